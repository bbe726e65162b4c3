"""Real tools read a session's files: psutil, smem, free, vmstat, ps. None may complain, and all must see our numbers.

procps reads /proc and nothing else: it runs in namespaces of its own, where the session's /proc lies over the real one and the
tool, which looks for itself by its pid, is process 1: the session's init.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from app.host.archive import write_archive
from tests.peer.box import Box
from tests.tools.tree import busy_box, unpack

pytestmark = pytest.mark.tools

KB = 1024


@dataclass(frozen=True)
class Captured:
    """A session and its files on the disk."""

    box: Box
    parent: int
    child: int
    root: Path


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    box, parent, child = busy_box()
    root = unpack(box.kernel, tmp_path_factory.mktemp("session"))
    (root / "proc/self").symlink_to("1")  # what "self" is depends on who reads: here, init
    return Captured(box, parent, child, root)


# ---- psutil ----------------------------------------------------------------------------------------------------


@pytest.fixture
def as_procfs(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> Captured:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(captured.root / "proc"))
    return captured


def test_psutil_system(as_procfs: Captured) -> None:
    info = as_procfs.box.meminfo()
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    assert memory.total == info["MemTotal"] * KB
    assert memory.free == info["MemFree"] * KB
    assert memory.available == info["MemAvailable"] * KB
    assert memory.shared == info["Shmem"] * KB
    assert memory.cached == (info["Cached"] + info["SReclaimable"]) * KB
    assert (swap.total, swap.free) == (info["SwapTotal"] * KB, info["SwapFree"] * KB)
    assert psutil.cpu_count() is not None
    assert psutil.cpu_times().user >= 0
    assert psutil.cpu_stats().ctx_switches >= 0
    assert psutil.boot_time() > 0
    assert {as_procfs.parent, as_procfs.child} <= set(psutil.pids())


def test_psutil_process(as_procfs: Captured) -> None:
    status = as_procfs.box.status(as_procfs.parent)
    process = psutil.Process(as_procfs.parent)
    assert process.name() == "student"
    info = process.memory_info()
    assert (info.rss, info.vms) == (status["VmRSS"] * KB, status["VmSize"] * KB)
    assert info.shared == (status["RssFile"] + status["RssShmem"]) * KB
    full = process.memory_full_info()
    assert full.uss + 2 * KB * KB < full.pss < full.rss
    assert process.status() in (psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING)
    assert process.num_threads() == 1
    assert process.uids().real == 0
    assert process.num_ctx_switches().voluntary >= 0
    assert process.cpu_times().user >= 0
    assert process.create_time() > 0
    assert isinstance(process.cmdline(), list)
    assert psutil.Process(as_procfs.child).ppid() == as_procfs.parent


def test_psutil_memory_maps(as_procfs: Captured) -> None:
    rows = psutil.Process(as_procfs.parent).memory_maps(grouped=False)
    assert len(rows) == len(as_procfs.box.maps(as_procfs.parent))
    rollup = as_procfs.box.text(f"/proc/{as_procfs.parent}/smaps_rollup")
    assert sum(row.rss for row in rows) == int(re.search(r"^Rss: +(\d+)", rollup, re.M)[1]) * KB  # type: ignore[index]
    paths = {row.path for row in rows}
    assert {"[heap]", "[stack]", "/data/f"} <= paths


# ---- smem ------------------------------------------------------------------------------------------------------


def run(*command: str) -> str:
    """A tool's output; it must succeed and say nothing on standard error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (command, done.stderr, done.stdout)
    assert done.stderr == "", (command, done.stderr)
    return done.stdout


@pytest.fixture
def smem() -> str:
    found = shutil.which("smem")
    if not found:
        pytest.skip("smem is not installed")
    return found


def test_smem_processes(smem: str, captured: Captured) -> None:
    out = run(smem, "--source", str(captured.root), "-c", "pid name swap uss pss rss", "-H")
    rows = {int(line.split()[0]): line.split() for line in out.splitlines()}
    rollup = captured.box.text(f"/proc/{captured.parent}/smaps_rollup")
    rss = int(re.search(r"^Rss: +(\d+)", rollup, re.M)[1])  # type: ignore[index]
    pss = int(re.search(r"^Pss: +(\d+)", rollup, re.M)[1])  # type: ignore[index]
    assert {captured.parent, captured.child} <= rows.keys()
    name, uss_, pss_, rss_ = rows[captured.parent][1], *map(int, rows[captured.parent][-3:])
    assert name == "student"
    assert rss_ == rss
    assert abs(pss_ - pss) <= len(captured.box.maps(captured.parent))
    assert uss_ <= pss_ <= rss_


def test_smem_reads_the_sessions_archive(smem: str, captured: Captured, tmp_path: Path) -> None:
    """The tar that GET .../archive answers, unpacked."""
    with tarfile.open(fileobj=io.BytesIO(write_archive(captured.box.kernel))) as tar:
        tar.extractall(tmp_path, filter="data")
    columns = ["-c", "pid name swap uss pss rss", "-H"]
    assert run(smem, "--source", str(tmp_path), *columns) == run(smem, "--source", str(captured.root), *columns)
    assert (tmp_path / "proc/meminfo").read_bytes() == captured.box.kernel.read("/proc/meminfo")


@pytest.mark.parametrize("option", ["-m", "-u", "-w", "-t"])
def test_smem_views(smem: str, captured: Captured, option: str) -> None:
    assert len(run(smem, "--source", str(captured.root), option).splitlines()) > 1


# ---- procps ----------------------------------------------------------------------------------------------------


def over_proc(captured: Captured, tool: str, *arguments: str) -> str:
    """Run a tool with the session's /proc in place of the real one."""
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    command = ["unshare", "--mount", "--pid", "--fork", *(["--map-root-user"] if os.geteuid() else [])]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    mount = 'mount --bind "$1" /proc && shift && exec "$@"'
    return run(*command, "sh", "-c", mount, "sh", str(captured.root / "proc"), tool, *arguments)


def test_free(captured: Captured) -> None:
    info = captured.box.meminfo()
    lines = over_proc(captured, "free", "-k", "-w").splitlines()
    memory, swap = lines[1].split()[1:], lines[2].split()[1:]
    total, used, free, shared, buffers, cache, available = map(int, memory)
    assert (total, free, shared) == (info["MemTotal"], info["MemFree"], info["Shmem"])
    assert (buffers, available) == (info["Buffers"], info["MemAvailable"])
    assert cache == info["Cached"] + info["SReclaimable"]
    assert 0 < used < total
    assert list(map(int, swap)) == [info["SwapTotal"], info["SwapTotal"] - info["SwapFree"], info["SwapFree"]]


def test_vmstat(captured: Captured) -> None:
    info = captured.box.meminfo()
    header, columns, values = over_proc(captured, "vmstat").splitlines()
    assert "memory" in header
    row = dict(zip(columns.split(), map(int, values.split()), strict=True))
    assert row["free"] == info["MemFree"]
    assert row["swpd"] == info["SwapTotal"] - info["SwapFree"]
    assert row["us"] + row["sy"] + row["id"] + row["wa"] + row["st"] in range(98, 103)


@pytest.mark.parametrize("option", ["-s", "-a", "-f"])
def test_vmstat_views(captured: Captured, option: str) -> None:
    assert over_proc(captured, "vmstat", option).strip()


def test_ps(captured: Captured) -> None:
    status = captured.box.status(captured.parent)
    out = over_proc(captured, "ps", "-e", "-o", "pid=,ppid=,rss=,vsz=,min_flt=,maj_flt=,stat=,comm=")
    rows = {int(line.split()[0]): line.split() for line in out.splitlines()}
    parent, child = rows[captured.parent], rows[captured.child]
    assert parent[7] == "student"
    assert list(map(int, parent[2:4])) == [status["VmRSS"], status["VmSize"]]
    assert int(parent[4]) >= 24 * 256
    assert int(child[1]) == captured.parent


@pytest.mark.parametrize("options", [["aux"], ["-ef"], ["-el"], ["-eo", "pid,pmem,pcpu,etime,time,wchan,tty"]])
def test_ps_views(captured: Captured, options: list[str]) -> None:
    out = over_proc(captured, "ps", *options)
    assert any(str(captured.child) in line.split() for line in out.splitlines())
