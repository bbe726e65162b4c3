"""Shared memory on its way to swap and back."""

from __future__ import annotations

import pytest

from core.abi.page_flags import PG_SHMEM
from tests.core.mm.space import PAGE, SHARED, M, Space

POOL = 8 * M  # memory.max of the cgroup
SIZE = 12 * M
WAITING = 64 * 4096  # slots that were given back and wait on their processor are still paid for


class Squeezed(Space):
    """A process in a cgroup of 8M on a machine with swap, and 12M of shared memory at `base`, written once with 7s."""

    def __init__(self) -> None:
        super().__init__(swap="64M")
        self.at_boot = stat(self, "nr_shmem", "/proc/vmstat")
        assert self.k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory").errno is None
        assert self.k.call("mkdir", path="/sys/fs/cgroup/t").errno is None
        self.put("memory.max", POOL)
        self.put("cgroup.procs", self.pid)
        self.base = self.mmap(SIZE, flags=SHARED)
        assert self.touch(self.base, SIZE, fill=7).signal is None

    def put(self, name: str, value: int) -> None:
        assert self.k.call("put", path=f"/sys/fs/cgroup/t/{name}", data=str(value).encode()).errno is None


@pytest.fixture
def squeezed() -> Squeezed:
    return Squeezed()


def stat(space: Space, key: str, path: str = "/sys/fs/cgroup/t/memory.stat") -> int:
    return int(next(line.split()[1] for line in space.k.read(path).decode().splitlines() if line.split()[0] == key))


def swapped(space: Space) -> int:
    return int(space.k.read("/sys/fs/cgroup/t/memory.swap.current"))


def test_what_does_not_fit_is_in_swap_and_in_smaps(squeezed: Squeezed) -> None:
    assert swapped(squeezed) >= SIZE - POOL
    assert stat(squeezed, "shmem") <= POOL
    out = SIZE - stat(squeezed, "shmem")  # in the swap cache still or not
    assert f"Swap:           {out // 1024:8} kB" in squeezed.read("/proc/<pid>/smaps_rollup")
    assert "VmSwap:\t       0 kB" in squeezed.read("/proc/<pid>/status")


def test_it_comes_back_with_its_content_by_major_and_minor_faults(squeezed: Squeezed) -> None:
    before = squeezed.k.tasks[squeezed.pid].majflt
    answer = squeezed.touch(squeezed.base, SIZE, "read")
    assert answer.major == squeezed.k.tasks[squeezed.pid].majflt - before > 0
    assert answer.minor > answer.major
    mem, slots = squeezed.k.s.mem, squeezed.k.s.slots
    assert set(mem["content"][((mem["flags"] & PG_SHMEM) != 0) & (mem["memcg"] > 0)].tolist()) == {7}
    assert set(slots["content"][slots["count"] > 0].tolist()) == {7}
    assert stat(squeezed, "workingset_refault_anon") > 0


@pytest.mark.parametrize("how", ["munmap", "exit", "remove"])
def test_nothing_is_left_in_swap(squeezed: Squeezed, how: str) -> None:
    base = squeezed.base
    if how == "munmap":
        squeezed.ok("munmap", address=base, length=SIZE)
    elif how == "remove":
        squeezed.ok("madvise", address=base, length=SIZE, advice="remove")
    else:
        squeezed.call("exit")
    assert swapped(squeezed) <= WAITING
    assert not (squeezed.k.s.slots["count"] | squeezed.k.s.slots["pfn"]).any()
    assert (stat(squeezed, "nr_shmem", "/proc/vmstat"), stat(squeezed, "nr_swapcached", "/proc/vmstat")) == (squeezed.at_boot, 0)


def test_two_processes_share_what_comes_back(squeezed: Squeezed) -> None:
    child = int(squeezed.ok("fork")["pid"])
    squeezed.call("touch", child, address=squeezed.base, length=64 * PAGE, access="read")
    again = squeezed.touch(squeezed.base, 64 * PAGE, "read")
    assert again.major == 0


def test_a_hole_that_was_only_read_is_dropped_without_swap(squeezed: Squeezed) -> None:
    squeezed.ok("munmap", address=squeezed.base, length=SIZE)
    written = stat(squeezed, "pswpout", "/proc/vmstat")
    hole = squeezed.mmap(SIZE, flags=SHARED)
    squeezed.touch(hole, SIZE, "read")
    assert stat(squeezed, "pswpout", "/proc/vmstat") == written
    assert stat(squeezed, "shmem") <= POOL


def test_mincore_sees_the_swap_cache(squeezed: Squeezed) -> None:
    resident = int(squeezed.ok("mincore", address=squeezed.base, length=SIZE)["resident"])
    cached = int((squeezed.k.s.slots["pfn"] > 0).sum())
    assert resident == stat(squeezed, "shmem") // PAGE + cached


def test_without_room_in_swap_the_page_stays(squeezed: Squeezed) -> None:
    squeezed.ok("munmap", address=squeezed.base, length=SIZE)
    squeezed.put("memory.swap.max", 1 * M)
    other = squeezed.mmap(SIZE, flags=SHARED)
    assert squeezed.touch(other, SIZE).killed == [squeezed.pid]
    assert stat(squeezed, "max", "/sys/fs/cgroup/t/memory.swap.events") > 0
    assert not (squeezed.k.s.slots["count"] | squeezed.k.s.slots["pfn"]).any()
