"""Overcommit (LTP overcommit_memory, oom01): what the kernel promises in each mode."""

from __future__ import annotations

import pytest

from tests.peer.box import ANON, FREE, PAGE, Box, K, M

KB = 1024


def heuristic(box: Box) -> dict[str, int]:
    """Lengths in bytes that the cases ask for, from meminfo."""
    info = {name: value * KB for name, value in box.meminfo().items()}
    cpus = 2
    batch = max(2 * cpus, max(32, info["MemTotal"] // PAGE // cpus // 256)) * PAGE * cpus
    left = info["CommitLimit"] - info["Committed_AS"]
    total = info["MemTotal"] + info["SwapTotal"]
    return {
        "twice what is left": 2 * left,
        "the limit and the batch": info["CommitLimit"] + batch,
        "half of what is left": left // 2,
        "half of what is free": (info["MemFree"] + info["SwapFree"]) // 2,
        "half of the machine": total // 2,
        "the machine": total,
        "twice the machine": 2 * total,
    }


CASES = [
    ("LX-04", 2, "twice what is left", "ENOMEM"),
    ("LX-04", 2, "the limit and the batch", "ENOMEM"),
    ("LX-04", 2, "half of what is left", None),
    ("LX-05", 0, "half of what is free", None),
    ("LX-05", 0, "twice the machine", "ENOMEM"),
    ("LX-06", 1, "half of the machine", None),
    ("LX-06", 1, "the machine", None),
    ("LX-06", 1, "twice the machine", None),
]


@pytest.mark.parametrize("swap", ["0", "256M"])
@pytest.mark.parametrize(("name", "mode", "length", "errno"), CASES, ids=[f"{c[0]} mode {c[1]} {c[2]}" for c in CASES])
def test_modes(name: str, mode: int, length: str, errno: str | None, swap: str) -> None:
    box = Box(memory="512M", swap=swap)
    box.set("/proc/sys/vm/overcommit_memory", mode)
    pid = box.spawn()
    found = box.call(pid, "mmap", length=heuristic(box)[length], prot="rw", flags=ANON)
    assert found.errno == errno


@pytest.mark.parametrize("ratio", [0, 10, 50, 100])
@pytest.mark.parametrize("swap", ["0", "256M"])
def test_lx07_commit_limit(swap: str, ratio: int) -> None:
    box = Box(memory="512M", swap=swap)
    box.set("/proc/sys/vm/overcommit_ratio", ratio)
    info = box.meminfo()
    huge = info["HugePages_Total"] * info["Hugepagesize"]
    assert abs(info["CommitLimit"] - ((info["MemTotal"] - huge) * ratio // 100 + info["SwapTotal"])) <= 4


def test_overcommit_kbytes_wins_over_the_ratio() -> None:
    box = Box(memory="512M", swap="0")
    box.set("/proc/sys/vm/overcommit_kbytes", 100_000)
    assert box.meminfo()["CommitLimit"] == 100_000
    box.set("/proc/sys/vm/overcommit_ratio", 50)
    assert abs(box.meminfo()["CommitLimit"] - box.meminfo()["MemTotal"] // 2) <= 4


ACCOUNTED = [  # MM-26: what Committed_AS counts of 8M
    ("private writable", {"prot": "rw", "flags": ANON}, 8 * K),
    ("private read-only", {"prot": "r", "flags": ANON}, 0),
    ("private noreserve", {"prot": "rw", "flags": [*ANON, "noreserve"]}, 0),
    ("shared anonymous", {"prot": "rw", "flags": ["shared", "anonymous"]}, 8 * K),
    ("private file, writable", {"prot": "rw", "flags": ["private"], "file": "/data/f"}, 8 * K),
    ("shared file, writable", {"prot": "rw", "flags": ["shared"], "file": "/data/f"}, 0),
]


@pytest.mark.parametrize(("args", "kb"), [row[1:] for row in ACCOUNTED], ids=[row[0] for row in ACCOUNTED])
def test_what_is_accounted(args: dict[str, object], kb: int) -> None:
    box = Box(memory="512M")
    box.kernel.call("create_file", path="/data/f", size=8 * M)
    pid = box.spawn()
    before = box.meminfo()["Committed_AS"]
    address = box.ok(pid, "mmap", length=8 * M, **args)["address"]
    assert box.meminfo()["Committed_AS"] - before == kb
    box.ok(pid, "munmap", address=address, length=8 * M)
    assert box.meminfo()["Committed_AS"] == before


def test_making_a_mapping_writable_charges() -> None:
    """MM-14."""
    box = Box(memory="512M", swap="0")
    box.set("/proc/sys/vm/overcommit_memory", 2)
    pid = box.spawn()
    left = heuristic(box)["half of what is left"]
    for page in range(3):
        box.mmap(pid, left, "r", [*ANON, "fixed"], address=FREE + page * (left // PAGE * PAGE + PAGE))
    before = box.meminfo()["Committed_AS"]
    assert box.call(pid, "mprotect", address=FREE, length=left, prot="rw").errno is None
    assert box.meminfo()["Committed_AS"] > before
    second = FREE + left // PAGE * PAGE + PAGE
    third = FREE + 2 * (left // PAGE * PAGE + PAGE)
    outcomes = [box.call(pid, "mprotect", address=start, length=left, prot="rw").errno for start in (second, third)]
    assert outcomes[1] == "ENOMEM"


def test_fork_charges_again() -> None:
    """PF-23."""
    box = Box(memory="512M", swap="0")
    box.set("/proc/sys/vm/overcommit_memory", 2)
    pid = box.spawn()
    box.mmap(pid, heuristic(box)["half of what is left"] * 3 // 2 // PAGE * PAGE)
    assert box.call(pid, "fork").errno == "ENOMEM"
    box.set("/proc/sys/vm/overcommit_memory", 1)
    assert box.call(pid, "fork").errno is None


# ---- LTP oom01: map, touch, until it fails ---------------------------------------------------------------------


def until_it_fails(box: Box, pid: int, chunk: int, lock: bool) -> str:
    """What ended the allocator: ENOMEM or SIGKILL."""
    for _ in range(64):
        found = box.call(pid, "mmap", length=chunk, prot="rw", flags=ANON)
        if found.errno:
            return found.errno
        assert found.result
        args = {"address": found.result["address"], "length": chunk}
        found = box.call(pid, "mlock", **args) if lock else box.touch(pid, **args)
        if found.errno or found.signal:
            return str(found.errno or found.signal)
    raise AssertionError("64 chunks and no end")


@pytest.mark.parametrize("lock", [False, True], ids=["normal", "mlock"])
def test_lo01_mode_2_fails_and_kills_nobody(lock: bool) -> None:
    box = Box(memory="512M", swap="0")
    box.set("/proc/sys/vm/overcommit_memory", 2)
    pid = box.spawn()
    assert until_it_fails(box, pid, 32 * M, lock) == "ENOMEM"
    assert box.alive(pid)
    assert box.vmstat()["oom_kill"] == 0


@pytest.mark.parametrize("lock", [False, True], ids=["normal", "mlock"])
@pytest.mark.parametrize("mode", [0, 1])
def test_lo02_the_system_survives(mode: int, lock: bool) -> None:
    box = Box(memory="256M", swap="0")
    box.set("/proc/sys/vm/overcommit_memory", mode)
    pid, bystander = box.spawn("allocator"), box.spawn("bystander")
    assert until_it_fails(box, pid, 32 * M, lock) in ("ENOMEM", "SIGKILL")
    assert box.kernel.panicked is None
    assert box.alive(bystander)
    assert box.alloc_anon(bystander, 16 * M).minor >= 4096
    box.kernel.view("audit")
