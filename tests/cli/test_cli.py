"""The command line as a user meets it: real processes, real sockets, exit codes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.cli import main
from tests.cli.service import COMMAND, ROOT, environment, serving
from tests.conformance.run import CASES


def pagewalk(*arguments: str, stdin: str | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=240, env=environment(**settings), cwd=ROOT
    )


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with serving() as (_, url):
        yield url


# ---- help, version, usage --------------------------------------------------------------------------------------


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("serve", "demo", "run", "version", "exit codes", "PAGEWALK_"))


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    assert re.match(r"pagewalk \S+", capsys.readouterr().out)


def test_no_command_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: pagewalk" in capsys.readouterr().out


WRONG_USE = [["fly"], ["serve", "--port", "x"], ["serve", "--port", "70000"], ["run"], ["run", "f", "--machine", "[]"], ["demo", "--nope"]]


@pytest.mark.parametrize("arguments", WRONG_USE, ids=" ".join)
def test_wrong_use_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    assert "usage: pagewalk" in capsys.readouterr().err


# ---- serve -----------------------------------------------------------------------------------------------------


def test_serve_prints_one_line_and_serves() -> None:
    with serving() as (process, url):
        assert httpx2.get(f"{url}/livez").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""


def test_flags_win_over_the_environment() -> None:
    with serving(PAGEWALK_PORT="1", PAGEWALK_HOST="127.0.0.1") as (_, url):
        assert not url.endswith(":1")


def test_serve_refuses_to_be_open_to_others() -> None:
    done = pagewalk("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 3
    assert "PAGEWALK_TOKEN" in done.stderr
    assert "ready" not in done.stdout


def test_serve_says_which_setting_is_bad() -> None:
    done = pagewalk("serve", PAGEWALK_PORT="eighty")
    assert done.returncode == 2
    assert "PAGEWALK_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_says_that_the_address_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = pagewalk("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


# ---- run -------------------------------------------------------------------------------------------------------

OPERATIONS = """\
{"machine": {"memory": "256M"}, "seed": 3}
{"op": "spawn", "comm": "app"}
{"op": "put", "path": "/proc/sys/vm/swappiness", "data": "10"}
"""


@pytest.fixture
def operations(tmp_path: Path, service: str) -> Path:
    """A file that maps and touches; the pid is the one that a fresh machine gives."""
    with httpx2.Client(base_url=service) as http:
        session = http.post("/v1/sessions", json={"machine": {"memory": "256M"}, "seed": 3}).json()
        pid = http.post(f"/v1/sessions/{session['id']}/processes", json={"comm": "app"}).json()["pid"]
        http.delete(f"/v1/sessions/{session['id']}")
    lines = [
        {"op": "mmap", "pid": pid, "length": "4M", "prot": "rw", "flags": ["private", "anonymous", "fixed"], "address": "0x10000000000"},
        {"op": "touch", "pid": pid, "address": "0x10000000000", "length": "4M", "access": "write"},
        {"op": "munmap", "pid": pid, "address": "0x1", "length": "4K"},
        {"op": "touch", "pid": pid, "address": "0x0", "length": "4K"},
    ]
    path = tmp_path / "ops.jsonl"
    path.write_text(OPERATIONS + "\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_run_shows_a_table(operations: Path) -> None:
    done = pagewalk("run", str(operations))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["line", "operation", "faults", "ms", "result"]
    assert len(lines) == 7
    assert "address=0x10000000000" in lines[3]
    assert "1024/0" in lines[4]
    assert "EINVAL" in lines[5]
    assert "SIGSEGV" in lines[6] and "killed" in lines[6]
    assert "6 operations" in done.stderr


def test_run_in_process_and_over_http_say_the_same(operations: Path, service: str) -> None:
    local = pagewalk("run", str(operations), "--json")
    remote = pagewalk("run", str(operations), "--json", "--url", service)
    assert (local.returncode, remote.returncode) == (0, 0), remote.stderr

    def answers(text: str) -> list[dict[str, object]]:
        keys = ("errno", "signal", "faults", "killed", "fault_address")
        rows = [json.loads(line) for line in text.splitlines()]
        return [{key: row["answer"][key] for key in keys} for row in rows if row["op"]["op"] in ("mmap", "touch", "munmap")]

    assert answers(local.stdout) == answers(remote.stdout)
    assert len(answers(local.stdout)) == 4


@pytest.mark.parametrize("over_http", [False, True], ids=["in process", "over http"])
def test_run_replays_a_journal(over_http: bool, service: str) -> None:
    with httpx2.Client(base_url=service) as http:
        made = http.post("/v1/sessions", json={"machine": {"memory": "256M", "swap": "64M"}, "seed": 5}).json()
        base = f"/v1/sessions/{made['id']}"
        pid = http.post(f"{base}/processes", json={"comm": "a"}).json()["pid"]
        mapped = http.post(f"{base}/processes/{pid}/mmap", json={"length": "4M"}).json()
        http.post(f"{base}/processes/{pid}/touch", json={"address": mapped["result"]["address"], "length": "4M", "access": "write"})
        http.put(f"{base}/fs/proc/sys/vm/swappiness", content="10", headers={"content-type": "text/plain"})
        clock = http.post(f"{base}/clock", json={"advance": "1s"}).json()["clock_ns"]
        journal = http.get(f"{base}/journal").text
        http.delete(base)
    done = pagewalk("run", "-", "--json", *(["--url", service] if over_http else []), stdin=journal)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["op"]["op"] for row in rows] == ["spawn", "mmap", "touch", "put", "advance"]
    assert rows[1]["answer"]["result"] == mapped["result"]
    assert rows[2]["answer"]["faults"] == {"minor": 1024, "major": 0}
    assert rows[-1]["answer"]["clock_ns"] == clock


def test_run_reads_standard_input() -> None:
    done = pagewalk("run", "-", "--json", stdin='{"op": "spawn", "comm": "a"}\n')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"]["result"]["pid"] > 0


@pytest.mark.parametrize("over_http", [False, True], ids=["in process", "over http"])
def test_run_plays_a_scenario(over_http: bool, service: str) -> None:
    url = ["--url", service] if over_http else []
    done = pagewalk("run", str(CASES / "anon_touch.scn"), *url)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    touch = next(line for line in lines if "A touch h 0 16M w" in line)
    assert "4096/0" in touch
    snap = next(line for line in lines if " snap s2 " in line)
    assert "A Anonymous +16384" in snap


BAD_FILES = [
    ("not json\n", 2, ":1: not JSON"),
    ('["op"]\n', 2, ":1: not an operation"),
    ('{"op": "spawn", "comm": "a"}\n{"pid": 3}\n', 2, ":2: not an operation"),
    ('{"op": "fly"}\n', 1, "fly"),
    ('{"op": "touch", "pid": 99999, "address": "0x0", "length": "4K"}\n', 1, "99999"),
    ('{"op": "spawn", "comm": "a", "wings": 2}\n', 1, "wings"),
    ('{"machine": {"memory": "17 potatoes"}}\n', 2, "potatoes"),
]


@pytest.mark.parametrize(("text", "code", "words"), BAD_FILES, ids=[text[:24].strip() for text, _, _ in BAD_FILES])
def test_bad_files(text: str, code: int, words: str) -> None:
    done = pagewalk("run", "-", stdin=text)
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_scenario_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.scn"
    path.write_text("spawn A\nA dance\n")
    done = pagewalk("run", str(path))
    assert done.returncode == 2
    assert "line 2" in done.stderr


def test_run_without_a_service(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"op": "spawn", "comm": "a"}\n')
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = pagewalk("run", str(path), "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# ---- demo ------------------------------------------------------------------------------------------------------


def test_demo_checks_everything_that_it_claims() -> None:
    done = pagewalk("demo")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    match = re.search(r"^(\d+) of (\d+) claims checked and true", done.stdout, re.M)
    assert match
    assert match[1] == match[2]
    assert int(match[2]) >= 30
    assert "✗" not in done.stdout
    assert "$ curl -s" in done.stdout
    assert "⚡" in done.stdout
    assert "invoked oom-killer" in done.stdout


def test_demo_on_a_running_service(service: str) -> None:
    done = pagewalk("demo", "--url", service)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    with httpx2.Client(base_url=service) as http:
        assert http.get("/v1/sessions").json()["items"] == []


def test_demo_stays_until_it_is_interrupted(service: str) -> None:
    """With --stay the lines can be pasted into a shell: they work as they are printed."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--stay", "--url", service], stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "stays open" in line:
                break
        session = next(line for line in lines if line.startswith("   $ S=")).removeprefix("   $ ").strip()
        walk = next(line for line in lines if "/walk?" in line).removeprefix("   $ ").strip()
        done = subprocess.run(["sh", "-c", f"{session}; {walk}"], capture_output=True, text=True, check=True)
        assert [level["level"] for level in json.loads(done.stdout)["levels"]] == ["pgd", "pud", "pmd", "pte"]
        process.send_signal(signal.SIGINT)
        assert "claims checked and true" in process.stdout.read()
        assert process.wait(20) == 0


def test_demo_fails_when_the_service_is_not_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = pagewalk("demo", "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
