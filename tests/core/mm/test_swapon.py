"""Swap areas that come and go, their priorities, read-ahead by address, MADV_WILLNEED."""

from __future__ import annotations

import pytest

from core import Kernel, Machine
from tests.core.mm.space import PAGE, SHARED, M, Space

SIZE = 4 * M
KEPT = 64  # slots that a processor keeps


def proc_swaps(space: Space) -> dict[str, tuple[int, int, int]]:
    """Path -> (size in kB, used in kB, priority) of /proc/swaps."""
    rows = [line.split() for line in space.k.read("/proc/swaps").decode().splitlines()[1:]]
    return {row[0]: (int(row[2]), int(row[3]), int(row[4])) for row in rows}


def vmstat(space: Space, key: str) -> int:
    return int(next(line.split()[1] for line in space.k.read("/proc/vmstat").decode().splitlines() if line.split()[0] == key))


def swapped_out(space: Space, flags: list[str] | None = None, size: int = SIZE) -> int:
    """Memory of the process, written and then paged out; where it begins."""
    address = space.mmap(size, flags=flags)
    space.touch(address, size)
    space.ok("madvise", address=address, length=size, advice="pageout")
    space.k.call("put", path="/sys/fs/cgroup/memory.reclaim", data=str(size).encode())  # what is written goes from the swap cache, too
    return address


def devices(*given: dict[str, object]) -> Space:
    return Space("128M", swap=list(given))


def test_priorities_are_given_from_minus_two_downwards_and_move_up_again() -> None:
    space = devices({"size": "8M"}, {"size": "8M"}, {"size": "8M", "priority": 5}, {"size": "8M", "kind": "zram"})
    assert {path: row[2] for path, row in proc_swaps(space).items()} == {"/dev/vdb": -2, "/dev/vdc": -3, "/dev/vdd": 5, "/dev/zram0": -4}
    space.ok("swapoff", path="/dev/vdb")
    assert {path: row[2] for path, row in proc_swaps(space).items()} == {"/dev/vdc": -2, "/dev/vdd": 5, "/dev/zram0": -3}
    space.ok("swapon", path="/dev/vdb")
    assert proc_swaps(space)["/dev/vdb"] == (8 * 1024 - 4, 0, -4)


def test_the_highest_is_filled_first_and_equals_take_turns() -> None:
    space = devices({"size": "1M", "priority": 9}, {"size": "8M", "priority": 1}, {"size": "8M", "priority": 1})
    swapped_out(space)
    used = [row[1] // 4 for row in proc_swaps(space).values()]
    assert used[0] == 255
    assert 0 <= sum(used) - SIZE // PAGE <= KEPT
    assert abs(used[1] - used[2]) <= 64


@pytest.mark.parametrize("flags", [None, SHARED])
def test_swapoff_brings_everything_back_without_a_fault(flags: list[str] | None) -> None:
    space = devices({"size": "16M"})
    address = swapped_out(space, flags)
    assert 0 <= proc_swaps(space)["/dev/vdb"][1] - SIZE // 1024 <= 4 * KEPT + 128  # init may have given some pages, too
    faults = vmstat(space, "pgfault"), vmstat(space, "pgmajfault")
    answer = space.call("swapoff", path="/dev/vdb")
    assert (answer.errno, answer.minor, answer.major) == (None, 0, 0)
    assert answer.elapsed_ns > SIZE // PAGE * 8000  # it was read
    assert proc_swaps(space) == {}
    assert (vmstat(space, "pgfault"), vmstat(space, "pgmajfault")) == faults
    assert "SwapTotal:             0 kB" in space.k.read("/proc/meminfo").decode()
    if flags is None:
        assert space.anon() >= SIZE // 1024
    again = space.touch(address, SIZE, "read")
    assert again.major == 0
    assert (again.minor == 0) == (flags is None)


def test_a_forked_page_in_swap_comes_back_for_both() -> None:
    space = devices({"size": "16M"})
    address = space.mmap(M)
    space.touch(address, M)
    child = int(space.ok("fork")["pid"])
    space.k.call("put", path="/sys/fs/cgroup/memory.reclaim", data=str(64 * M).encode())
    space.ok("swapoff", path="/dev/vdb")
    for pid in (space.pid, child):
        assert space.call("touch", pid, address=address, length=M, access="read").major == 0


ERRNO = [
    ("swapoff", {"path": "/dev/nothing"}, "EINVAL"), ("swapon", {"path": "/dev/vdb"}, "EBUSY"), ("swapon", {"path": "/dev/new"}, "ENOENT"),
    ("swapon", {"path": "/dev/new", "size": PAGE}, "EINVAL"), ("swapon", {"path": "/tmp/new", "size": M}, "EINVAL"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "args", "errno"), ERRNO)
def test_what_is_refused_changes_nothing(call: str, args: dict[str, object], errno: str) -> None:
    space = devices({"size": "8M"})
    before = space.k.read("/proc/swaps")
    assert space.errno(call, **args) == errno
    assert space.k.read("/proc/swaps") == before


def test_only_root_may() -> None:
    space = devices({"size": "8M"})
    space.ok("setuid", uid=1000)
    assert space.errno("swapoff", path="/dev/vdb") == "EPERM"
    assert space.errno("swapon", path="/dev/new", size=M) == "EPERM"


def test_an_area_too_large_to_come_back_is_refused_or_the_caller_is_killed() -> None:
    space = devices({"size": "256M"})
    other = space.spawn()
    heap = int(space.ok("mmap", other, length=140 * M, prot="rw", flags=["private", "anonymous"])["address"])
    space.call("touch", other, address=heap, length=140 * M, access="write")
    answer = space.call("swapoff", path="/dev/vdb")
    assert answer.killed == [space.pid]
    assert space.k.tasks[other].state not in ("zombie", "dead")
    assert "/dev/vdb" in proc_swaps(space)
    space.k.call("put", path="/proc/sys/vm/overcommit_memory", data=b"2")
    third = space.spawn()
    assert space.errno("swapoff", third, path="/dev/vdb") == "ENOMEM"


def test_a_machine_with_a_new_area_is_saved_whole() -> None:
    space = Space("128M")
    space.ok("swapon", path="/dev/vdz", size=16 * M, priority=3, kind="ssd")
    swapped_out(space)
    twin = Kernel.restore(space.k.snapshot())
    twin.verify()
    assert twin.digest() == space.k.digest()
    assert twin.read("/proc/swaps") == space.k.read("/proc/swaps")
    assert twin.call("swapoff", space.pid, path="/dev/vdz").errno is None
    twin.verify()


def test_willneed_reads_swapped_pages_into_the_swap_cache() -> None:
    for flags in (None, SHARED):
        space = devices({"size": "16M"})
        address = swapped_out(space, flags)
        majors = vmstat(space, "pgmajfault")
        space.ok("madvise", address=address, length=M, advice="willneed")
        assert vmstat(space, "nr_swapcached") == M // PAGE
        assert vmstat(space, "pgmajfault") == majors
        assert (space.touch(address, M, "read").major, vmstat(space, "pgmajfault")) == (0, majors)


# ---- read-ahead by address: SSDs

WINDOWS = [  # order of the faults (pages), major faults of each: the window is 8 pages at most
    ("ahead of a sequential reader", list(range(64)), 11),
    ("behind a backward reader", list(range(63, -1, -1)), 11),
]


@pytest.mark.parametrize(("what", "pages", "majors"), WINDOWS)
def test_on_a_device_that_does_not_rotate_neighbours_are_those_by_address(what: str, pages: list[int], majors: int) -> None:
    space = devices({"size": "16M", "kind": "ssd"})
    address = swapped_out(space)
    found = space.call("touch", address=address + 512 * PAGE, pages=pages, length=PAGE, access="read")
    assert found.major <= majors, what
    assert vmstat(space, "swap_ra_hit") == len(pages) - found.major


def test_scattered_faults_shrink_the_window_to_one_page() -> None:
    space = devices({"size": "16M", "kind": "ssd"})
    address = swapped_out(space)
    space.call("touch", address=address, pages=list(range(0, 1000, 37)), length=PAGE, access="read")
    read = vmstat(space, "swap_ra")
    space.call("touch", address=address, pages=[1003, 900 + 57, 1011], length=PAGE, access="read")
    assert vmstat(space, "swap_ra") == read


@pytest.mark.parametrize(("kind", "knob", "by_address"), [("ssd", "true", 1), ("ssd", "false", 0), ("disk", "true", 0), ("virtio", "true", 0)])
def test_which_read_ahead_is_used(kind: str, knob: str, by_address: int) -> None:
    space = devices({"size": "16M", "kind": kind})
    assert space.k.call("put", path="/sys/kernel/mm/swap/vma_ra_enabled", data=knob.encode()).errno is None
    assert space.k.read("/sys/kernel/mm/swap/vma_ra_enabled") == knob.encode() + b"\n"
    from core.mm.mm_types import CTL_VMA_RA

    assert int(space.k.s.ctl[CTL_VMA_RA]) == by_address


def test_zram_reads_single_pages_and_gives_their_slots_up() -> None:
    space = devices({"size": "16M", "kind": "zram"})
    address = swapped_out(space)
    used = proc_swaps(space)["/dev/zram0"][1]
    found = space.touch(address, M, "read")
    assert (found.major, vmstat(space, "swap_ra")) == (M // PAGE, 0)
    assert 0 <= proc_swaps(space)["/dev/zram0"][1] - (used - M // 1024) <= 4 * KEPT


BAD = [{"size": "8M", "kind": "tape"}, {"size": "4K"}, {"size": "8M", "priority": -1}, {"size": "8M", "speed": 3}]


@pytest.mark.parametrize("device", BAD)
def test_a_machine_with_an_impossible_device_is_refused(device: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"machine\.swap"):
        Machine.from_dict({"swap": [device]})
