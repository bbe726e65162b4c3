"""The N-th page allocation fails, for every N of a scenario: the call may fail, the kernel may not.

After each such failure every invariant holds, the machine goes on, and when the last process has exited nothing of it
remains: the free pages are what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core import Kernel, Machine
from core.mm.mm_types import CTL_FAIL_NTH

PAGE, M = 4096, 1 << 20
ANON = ["private", "anonymous"]
Scenario = Callable[[Kernel], None]


def boot() -> Kernel:
    k = Kernel.boot(Machine.from_dict({"memory": "64M"}))
    k.call("create_file", path="/data/f", size=2 * M)
    k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    k.call("mkdir", path="/sys/fs/cgroup/g")
    return k


def mapped(k: Kernel, pid: int, length: int, **more: Any) -> int | None:
    answer = k.call("mmap", pid, **{"length": length, "prot": "rw", "flags": ANON, **more})
    return int(answer.result["address"]) if answer.result else None


def spawned(k: Kernel, **more: Any) -> int | None:
    answer = k.call("spawn", comm="a", catch_signals=True, **more)
    return int(answer.result["pid"]) if answer.result else None


def live(k: Kernel, pid: int | None) -> bool:
    return pid in k.tasks and k.tasks[pid].mm is not None  # type: ignore[index]


def spawn_and_touch(k: Kernel) -> None:
    """Stacks, page tables, zeroed pages, pages of the program."""
    pid = spawned(k, cgroup="/g")
    if pid and (at := mapped(k, pid, 40 * PAGE)):
        k.call("touch", pid, address=at, length=20 * PAGE, access="write")
        if live(k, pid):
            k.call("touch", pid, address=at, length=40 * PAGE, access="read")


def fork_and_write(k: Kernel) -> None:
    """Page tables copied, then copy-on-write on both sides."""
    pid = spawned(k)
    at = mapped(k, pid, 12 * PAGE) if pid else None
    if pid and at:
        k.call("touch", pid, address=at, length=12 * PAGE, access="write")
        answer = k.call("fork", pid) if live(k, pid) else None
        for who in (pid, answer.result["pid"] if answer and answer.result else None):
            if who and live(k, who):
                k.call("touch", who, address=at, length=6 * PAGE, access="write")


def file_and_shared(k: Kernel) -> None:
    """Page cache by read, by write, by fault; shared memory; a private copy of a file page."""
    pid = spawned(k)
    for op, args in (("read", {"offset": 0, "length": 9 * PAGE}), ("write", {"offset": 5 * PAGE, "length": 9 * PAGE})):
        if live(k, pid):
            k.call(op, pid, path="/data/f", **args)
    for flags, file in ((["shared"], "/data/f"), (["private"], "/data/f"), (["shared", "anonymous"], None)):
        at = mapped(k, pid, 8 * PAGE, flags=flags, file=file) if pid and live(k, pid) else None
        if pid and at:
            k.call("touch", pid, address=at, length=8 * PAGE, access="write")
    k.call("put", path="/proc/sys/vm/drop_caches", data=b"1")


def move_and_lock(k: Kernel) -> None:
    """mremap's page tables, mlock's populating, exec's new address space."""
    pid = spawned(k)
    at = mapped(k, pid, 6 * PAGE) if pid else None
    if pid and at:
        k.call("touch", pid, address=at, length=6 * PAGE, access="write")
        if live(k, pid):
            k.call("mremap", pid, address=at, old_length=6 * PAGE, new_length=3 * M)
        if live(k, pid):
            k.call("mlockall", pid)
        if live(k, pid):
            k.call("exec", pid, path="/bin/other")


SCENARIOS: dict[str, Scenario] = {
    "spawn and touch": spawn_and_touch,
    "fork and write": fork_and_write,
    "file and shared": file_and_shared,
    "move and lock": move_and_lock,
}


def allocations(scenario: Scenario) -> int:
    """How many page allocations the scenario makes when none fails."""
    k = boot()
    k.s.ctl[CTL_FAIL_NTH] = many = 1 << 40
    scenario(k)
    return many - int(k.s.ctl[CTL_FAIL_NTH])


def end(k: Kernel) -> None:
    """Every process exits, the file goes."""
    for pid in [pid for pid in k.tasks if pid != 1]:
        if pid in k.tasks and k.tasks[pid].mm is not None:
            k.call("exit", pid)
    k.call("rmdir", path="/data/f")


@pytest.mark.parametrize("name", SCENARIOS)
def test_any_allocation_may_fail(name: str) -> None:
    scenario = SCENARIOS[name]
    total = allocations(scenario)
    assert total > 20
    free = None
    for n in range(1, total + 1):
        k = boot()
        k.s.ctl[CTL_FAIL_NTH] = n
        scenario(k)
        assert int(k.s.ctl[CTL_FAIL_NTH]) <= 0, f"allocation {n} of {total} was never made"
        k.s.ctl[CTL_FAIL_NTH] = 0
        k.verify()
        end(k)
        k.verify()
        left = int(k.s.zones["free"].sum()) + sum(inode.nr_pages for inode in k.inodes.values())
        free = left if free is None else free
        assert left == free, f"after the failure of allocation {n}, {free - left} pages are missing"
