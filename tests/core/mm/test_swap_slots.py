"""Which slots pages get, and what processors keep of them."""

from __future__ import annotations

import numpy as np

from tests.core.mm.space import PAGE, K, M, Space, field

SLOTS = 64  # that a processor keeps at most, of each kind
RUN = 512


def boot(size: str, **machine: object) -> Space:
    return Space("128M", swap=[{"size": size, "kind": "disk"}], cpus=1, **machine)


def used(space: Space) -> int:
    """Slots that are not free: what meminfo says."""
    text = space.read("/proc/meminfo")
    return (field(text, "SwapTotal") - field(text, "SwapFree")) // 4


def offsets(space: Space, address: int, length: int) -> list[int]:
    """Where the pages of a range lie in swap (pagemap); -1 for those that are in memory."""
    entries = np.frombuffer(space.k.pread(f"/proc/{space.pid}/pagemap", address // PAGE * 8, length // PAGE * 8), "<u8")
    swapped = (entries >> np.uint64(62)) & np.uint64(1)
    return np.where(swapped, (entries >> np.uint64(5)) & np.uint64((1 << 50) - 1), -1).astype(int).tolist()


def page_out(space: Space, address: int, length: int) -> None:
    """Write the range to swap; its pages stay in the swap cache."""
    space.ok("madvise", address=address, length=length, advice="pageout")


def written(space: Space, length: int) -> int:
    address = space.mmap(length)
    space.touch(address, length)
    page_out(space, address, length)
    return address


def test_a_processor_asks_for_64_slots_at_once() -> None:
    space = boot("16M")
    written(space, 10 * PAGE)
    assert used(space) == SLOTS
    written(space, 54 * PAGE)
    assert used(space) == SLOTS
    written(space, PAGE)
    assert used(space) == 2 * SLOTS


def test_slots_that_are_given_back_wait_and_stay_on_their_cgroups_account() -> None:
    space = boot("16M")
    space.k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    space.k.call("mkdir", path="/sys/fs/cgroup/g")
    space.k.call("put", path="/sys/fs/cgroup/g/cgroup.procs", data=str(space.pid).encode())
    address = written(space, SLOTS * PAGE)
    assert (used(space), space.read("/sys/fs/cgroup/g/memory.swap.current")) == (SLOTS, f"{SLOTS * PAGE}\n")
    space.ok("munmap", address=address, length=SLOTS * PAGE)
    assert (used(space), space.read("/sys/fs/cgroup/g/memory.swap.current")) == (SLOTS, f"{SLOTS * PAGE}\n")
    address = written(space, PAGE)
    space.ok("munmap", address=address, length=PAGE)  # the 65th: those that waited go
    assert space.read("/sys/fs/cgroup/g/memory.swap.current") == f"{PAGE}\n"
    assert used(space) == SLOTS


def test_where_swap_is_short_every_slot_is_asked_for_and_given_back_by_itself() -> None:
    space = boot("1M")  # 255 slots: fewer than 320 a processor
    address = written(space, 10 * PAGE)
    assert used(space) == 10
    space.ok("munmap", address=address, length=PAGE)
    assert used(space) == 9


def test_the_last_slots_are_found_though_processors_keep_some() -> None:
    space = boot("4M")
    address = space.mmap(4 * M)
    space.touch(address, 4 * M)
    page_out(space, address, 4 * M)
    assert used(space) == 4 * M // PAGE - 1
    assert sorted(offset for offset in offsets(space, address, 4 * M) if offset > 0) == list(range(1, 4 * M // PAGE))


def test_a_disk_is_filled_in_runs_from_its_beginning() -> None:
    """1,024 slots are taken. 256 that become free are no run, so the next pages go behind; with 512 free the run begins there."""
    space = boot("16M")
    first = written(space, 2 * RUN * PAGE)
    assert offsets(space, first, 2 * RUN * PAGE) == list(range(1, 2 * RUN + 1))
    space.ok("munmap", address=first, length=RUN // 2 * PAGE)
    second = written(space, RUN * PAGE)
    assert offsets(space, second, RUN * PAGE) == list(range(2 * RUN + 1, 3 * RUN + 1))
    space.ok("munmap", address=first + RUN // 2 * PAGE, length=RUN // 2 * PAGE + SLOTS * PAGE)
    third = written(space, SLOTS * PAGE)
    assert offsets(space, third, SLOTS * PAGE) == list(range(1, SLOTS + 1))


def test_a_slot_that_only_the_swap_cache_needs_is_taken_when_swap_is_half_full() -> None:
    """Read back, 256 pages keep slots 1 .. 256 as long as half of swap is free. Later a search from the one that is free passes the others."""
    space = boot("4M")
    address = written(space, M)
    space.touch(address, M, "read")
    assert used(space) >= M // PAGE
    for page in (0, 128):
        space.ok("munmap", address=address + page * PAGE, length=PAGE)
    length = 3 * M + 2 * PAGE  # 767 slots are left behind the first ones, and two among them
    more = written(space, length)
    found = offsets(space, more, length)
    assert len(set(found) - {-1}) == length // PAGE
    assert sum(1 <= offset <= 256 for offset in found) > 2


def test_swapoff_takes_the_slots_that_processors_keep() -> None:
    space = boot("16M")
    written(space, 10 * PAGE)
    space.ok("swapoff", path="/dev/vdb")
    space.ok("swapon", path="/dev/vdb")
    assert used(space) == 0
    written(space, 10 * PAGE)
    assert used(space) == SLOTS


def test_areas_of_the_same_priority_take_turns_request_by_request() -> None:
    space = Space("128M", swap=[{"size": "8M", "priority": 1}, {"size": "8M", "priority": 1}], cpus=1)
    written(space, 4 * SLOTS * PAGE)
    rows = [line.split() for line in space.read("/proc/swaps").splitlines()[1:]]
    assert [int(row[3]) for row in rows] == [2 * SLOTS * PAGE // K] * 2
