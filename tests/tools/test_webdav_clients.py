"""Real WebDAV clients list a session, read /proc/meminfo and write memory.max: cadaver, rclone, davfs2."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.api.client import Client, Service, running

pytestmark = pytest.mark.tools
M = 1 << 20
MAX = "/sys/fs/cgroup/app/memory.max"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def session(service: Service) -> Client:
    session = service.session(machine={"memory": "256M"})
    assert session.put("/sys/fs/cgroup/cgroup.subtree_control", "+memory").status_code == 204
    return session


def tool(name: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str, text: str = "", **environment: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60, env=os.environ | environment)
    assert done.returncode == 0, (command, done.stderr, done.stdout)
    return done.stdout


def address(session: Client) -> str:
    return f"{session.service.url}{session.path}/fs/"


def read(session: Client, path: str) -> str:
    return session.get("/fs" + path).text


def test_cadaver(session: Client, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("50M\n")
    script = f"""
ls proc
get proc/meminfo {tmp_path}/meminfo
mkcol sys/fs/cgroup/app
put {tmp_path}/value {MAX[1:]}
lock {MAX[1:]}
put {tmp_path}/value {MAX[1:]}
unlock {MAX[1:]}
cat {MAX[1:]}
mkcol sys/fs/cgroup/gone
rmcol sys/fs/cgroup/gone
quit
"""
    out = run(tool("cadaver"), address(session), text=script, HOME=str(tmp_path))
    assert "meminfo" in out and "rror" not in out and "failed" not in out, out
    assert str(50 * M) in out
    assert (tmp_path / "meminfo").read_text() == read(session, "/proc/meminfo")
    assert read(session, MAX) == f"{50 * M}\n"
    assert "gone" not in read(session, "/sys/fs/cgroup")


def test_rclone(session: Client, tmp_path: Path) -> None:
    (tmp_path / "rclone.conf").write_text("")

    def rclone(command: str, path: str, *options: str, text: str = "") -> str:
        remote = f":webdav,url='{address(session)}':{path}"
        return run(tool("rclone"), "--config", str(tmp_path / "rclone.conf"), command, remote, *options, text=text)

    sizes = dict(reversed(line.split()) for line in rclone("lsf", "proc", "--format", "sp", "--separator", " ").splitlines())
    assert "sys/" in sizes and int(sizes["meminfo"]) == len(read(session, "/proc/meminfo"))
    assert rclone("cat", "proc/meminfo") == read(session, "/proc/meminfo")
    assert rclone("cat", "proc/meminfo", "--offset", "10", "--count", "20") == read(session, "/proc/meminfo")[10:30]
    rclone("mkdir", "sys/fs/cgroup/app")
    rclone("rcat", MAX, "--ignore-size", text="51M\n")  # what is read back has another length than what was written, as with any knob
    assert read(session, MAX) == f"{51 * M}\n"


@pytest.fixture
def mount(session: Client, tmp_path: Path) -> Iterator[Path]:
    program = tool("mount.davfs")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0:
        pytest.skip("mounting with davfs2 needs /dev/fuse, and to be root")
    point = tmp_path / "mnt"
    point.mkdir()
    (tmp_path / "davfs2.conf").write_text("ask_auth 0\nuse_locks 1\ndelay_upload 0\nfile_refresh 0\nbuf_size 256\n")
    done = subprocess.run(
        [program, "-o", f"conf={tmp_path}/davfs2.conf", address(session), str(point)], capture_output=True, text=True, check=False, timeout=60
    )
    if "not permitted" in done.stderr or "fuse" in done.stderr:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    try:
        yield point
    finally:
        run("umount", str(point))


def test_davfs2_mounts_a_session(session: Client, mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ls, cat, mkdir, echo 50M > memory.max; then smem and psutil on the mounted /proc."""
    pid = session.spawn("student")
    session.touch(pid, session.mmap(pid, 8 * M), 8 * M)
    assert {"proc", "sys", "dev"} <= set(run("ls", str(mount)).split())
    assert run("cat", f"{mount}/proc/meminfo") == read(session, "/proc/meminfo")
    run("mkdir", f"{mount}/sys/fs/cgroup/app")
    run("sh", "-c", f"echo 50M > {mount}{MAX}")
    assert read(session, MAX) == f"{50 * M}\n"
    deadline = time.monotonic() + 10
    while run("cat", f"{mount}{MAX}") != f"{50 * M}\n":  # its cache believes what was written for a second
        assert time.monotonic() < deadline
    monkeypatch.setattr(psutil, "PROCFS_PATH", f"{mount}/proc")
    assert psutil.virtual_memory().total == int(read(session, "/proc/meminfo").split()[1]) * 1024
    assert psutil.Process(pid).name() == "student" and psutil.Process(pid).memory_info().rss > 8 * M
    if shutil.which("smem"):
        rows = [line.split() for line in run("smem", "--source", str(mount), "-H", "-c", "pid name rss").splitlines()]
        rss = re.search(r"^Rss: +(\d+)", read(session, f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
        assert rss and [str(pid), "student", rss[1]] in rows
