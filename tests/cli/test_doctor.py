"""`pagewalk doctor`: what is wrong is found and said, with what would be right."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from app import doctor
from app.doctor import CHECKS, Finding, examine, show
from app.routes.health import release
from app.settings import Settings
from tests.api.client import running
from tests.cli.service import COMMAND, ROOT, environment


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "doctor", *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment(**settings), cwd=ROOT
    )


def test_a_sound_machine(tmp_path: Path) -> None:
    done = run("--port", "0", "--data", str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(CHECKS)
    assert not (tmp_path / "data").exists()


def test_a_machine_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--json", "--port", str(port), "--data", str(tmp_path / "data"), PAGEWALK_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert found["port"]["verdict"] == "wrong" and "--port" in found["port"]["says"]
    assert found["data"]["verdict"] == "wrong" and "is a file" in found["data"]["says"]
    assert found["compile cache"]["verdict"] == "note" and "core.warm" in found["compile cache"]["says"]


def test_bad_settings_are_usage() -> None:
    done = run(PAGEWALK_PORT="many")
    assert done.returncode == 2 and "PAGEWALK_PORT" in done.stderr


def test_an_open_address() -> None:
    assert doctor.address(Settings(host="0.0.0.0")).verdict == "wrong"
    assert doctor.address(Settings(host="0.0.0.0", token="x" * 32)).verdict == "ok"


@pytest.mark.parametrize(("free", "verdict"), [(1, "wrong"), (500 << 20, "note"), (10 << 30, "ok")])
def test_disk(monkeypatch: pytest.MonkeyPatch, free: int, verdict: str) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: doctor.shutil._ntuple_diskusage(1 << 40, 0, free))
    assert doctor.disk(Settings()).verdict == verdict


def test_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    assert doctor.data(Settings(data=folder)).verdict == "note"
    folder.chmod(0o750)
    assert doctor.data(Settings(data=folder)).verdict == "ok"
    if os.geteuid():
        folder.chmod(0o500)
        assert doctor.data(Settings(data=folder / "deeper")).verdict == "wrong"
    assert doctor.data(Settings(data=Path("/proc/version/here"))).verdict == "wrong"


def test_a_clock_before_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: 0.0)
    assert doctor.clock(Settings()).verdict == "wrong"


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_check(_: Settings) -> Finding:
        raise OSError("no such thing")

    monkeypatch.setattr(doctor, "CHECKS", (broken_check,))
    (found,) = examine(Settings())
    assert found == Finding("broken check", "wrong", "could not be checked: OSError: no such thing")
    assert show([found]).startswith("WRONG  broken check")


def test_a_pagewalk_on_its_port_is_known() -> None:
    """An operator asks while the service runs."""
    with running() as service:
        found = doctor.port(Settings(port=service.listener.getsockname()[1]))
        assert found.verdict == "note" and f"pagewalk {release()}" in found.says
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "ANSWER_S", 0.1)
        assert doctor.port(Settings(port=silent.getsockname()[1])).verdict == "wrong"
