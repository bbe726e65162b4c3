"""mremap: in place, moved, fixed, duplicated, left empty."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.mm.space import ANON, PAGE, SHARED, M, Space

FAR = 0x10000000  # an address with nothing around it

# name: (arguments beside the address of 8 pages at FAR, errno)
ERRNO: dict[str, tuple[dict[str, Any], str | None]] = {
    "new length 0": ({"old_length": PAGE, "new_length": 0}, "EINVAL"),
    "old length 0, private": ({"old_length": 0, "new_length": PAGE}, "EINVAL"),
    "unaligned": ({"address": FAR + 1, "old_length": PAGE, "new_length": PAGE}, "EINVAL"),
    "nothing there": ({"address": FAR - PAGE, "old_length": PAGE, "new_length": 2 * PAGE}, "EFAULT"),
    "over the end of its mapping": ({"old_length": 9 * PAGE, "new_length": 10 * PAGE}, "EFAULT"),
    "fixed without may_move": ({"old_length": PAGE, "new_length": PAGE, "may_move": False, "new_address": FAR + M}, "EINVAL"),
    "fixed, unaligned": ({"old_length": PAGE, "new_length": PAGE, "new_address": FAR + M + 1}, "EINVAL"),
    "fixed, overlapping": ({"old_length": 8 * PAGE, "new_length": 8 * PAGE, "new_address": FAR + 4 * PAGE}, "EINVAL"),
    "fixed, beyond the end": ({"old_length": PAGE, "new_length": PAGE, "new_address": 0x7FFFFFFFF000}, "EINVAL"),
    "dontunmap, other length": ({"old_length": PAGE, "new_length": 2 * PAGE, "dontunmap": True}, "EINVAL"),
    "blocked, may not move": ({"old_length": 8 * PAGE, "new_length": 32 * PAGE, "may_move": False}, "ENOMEM"),
    "in the middle, may not move": ({"old_length": 4 * PAGE, "new_length": 6 * PAGE, "may_move": False}, "ENOMEM"),
    "room to grow": ({"old_length": 8 * PAGE, "new_length": 16 * PAGE, "may_move": False}, None),
    "the same length": ({"old_length": 8 * PAGE, "new_length": 8 * PAGE}, None),
    "special": ({"address": 0x7FFFF7FFD000, "old_length": 2 * PAGE, "new_length": 4 * PAGE}, "EFAULT"),
}


@pytest.mark.parametrize("case", ERRNO)
def test_errno(space: Space, case: str) -> None:
    arguments, errno = ERRNO[case]
    space.mmap(8 * PAGE, flags=[*ANON, "fixed"], address=FAR)
    space.mmap(PAGE, flags=[*ANON, "fixed"], address=FAR + 16 * PAGE)
    assert space.errno("mremap", **{"address": FAR, **arguments}) == errno


def test_growing_moves_the_pages_not_their_content(space: Space) -> None:
    h = space.mmap(8 * M)
    space.mmap(PAGE, flags=[*ANON, "fixed_noreplace"], address=h - PAGE)
    space.touch(h, 8 * M)
    before = space.anon(), space.status("VmSize")
    to = space.ok("mremap", address=h, old_length=8 * M, new_length=32 * M)["address"]
    assert to != h
    assert space.draw(h, 8 * M, M) == "." * 8
    assert space.draw(to, 32 * M, 4 * M) == "A" * 8
    assert (space.anon(), space.status("VmSize")) == (before[0], before[1] + 24 * 1024)
    assert space.touch(to, 8 * M).minor == 0  # the entries came along, writable
    assert space.touch(to, 32 * M).minor == 6144
    assert space.ok("mremap", address=to, old_length=32 * M, new_length=4 * M)["address"] == to
    assert space.anon() == before[0] - 4096


@pytest.mark.parametrize("touched", [False, True])
def test_growing_in_place_meets_the_neighbour(space: Space, touched: bool) -> None:
    # AAAA....BBBB   grow A by 4: one mapping, if nobody has an anon_vma of its own
    space.mmap(4 * PAGE, flags=[*ANON, "fixed"], address=FAR)
    space.mmap(4 * PAGE, flags=[*ANON, "fixed"], address=FAR + 8 * PAGE)
    if touched:
        space.touch(FAR, PAGE)
        space.touch(FAR + 8 * PAGE, PAGE)
    assert space.ok("mremap", address=FAR, old_length=4 * PAGE, new_length=8 * PAGE, may_move=False)["address"] == FAR
    assert space.draw(FAR, 12 * PAGE) == ("AAAAAAAABBBB" if touched else "AAAAAAAAAAAA")


def test_a_part_is_moved_to_a_fixed_place(space: Space) -> None:
    h = space.mmap(12 * PAGE, flags=[*ANON, "fixed"], address=FAR)
    space.mmap(8 * PAGE, "r", [*ANON, "fixed"], address=FAR + M)
    space.touch(h, 12 * PAGE)
    to = space.ok("mremap", address=h + 4 * PAGE, old_length=4 * PAGE, new_length=4 * PAGE, new_address=FAR + M + 2 * PAGE)["address"]
    assert to == FAR + M + 2 * PAGE
    assert space.draw(h, 12 * PAGE) == "AAAA....BBBB"
    assert space.draw(FAR + M, 8 * PAGE) == "AABBBBCC"
    assert space.touch(to, 4 * PAGE).minor == 0
    back = space.ok("mremap", address=to, old_length=4 * PAGE, new_length=4 * PAGE, new_address=h + 4 * PAGE)["address"]
    assert space.draw(back - 4 * PAGE, 12 * PAGE) == "AAAAAAAAAAAA"  # its offset never changed: one mapping again


def test_an_untouched_mapping_takes_the_offset_of_its_new_place(space: Space) -> None:
    space.mmap(4 * PAGE, flags=[*ANON, "fixed"], address=FAR)
    space.mmap(4 * PAGE, flags=[*ANON, "fixed"], address=FAR + M)
    space.ok("mremap", address=FAR + M, old_length=4 * PAGE, new_length=4 * PAGE, new_address=FAR + 4 * PAGE)
    assert space.draw(FAR, 8 * PAGE) == "AAAAAAAA"


def test_old_length_0_maps_a_shared_object_twice(space: Space) -> None:
    h = space.mmap(4 * PAGE, flags=SHARED)
    space.touch(h, 4 * PAGE)
    shmem = space.meminfo("Shmem")
    twin = space.ok("mremap", address=h, old_length=0, new_length=4 * PAGE)["address"]
    assert space.draw(twin, 4 * PAGE) == space.draw(h, 4 * PAGE) == "AAAA"
    space.touch(twin, 4 * PAGE)
    assert space.meminfo("Shmem") == shmem
    assert space.smaps("Pss", h) == 8  # each page is mapped twice


def test_dontunmap_leaves_an_empty_mapping(space: Space) -> None:  # MM-17
    h = space.mmap(4 * PAGE, flags=[*ANON, "locked"])
    locked = space.status("VmLck")
    to = space.ok("mremap", address=h, old_length=4 * PAGE, new_length=4 * PAGE, dontunmap=True)["address"]
    assert [space.smaps("Rss", at) for at in (h, to)] == [0, 16]
    assert space.status("VmLck") == locked
    assert space.touch(h, 4 * PAGE).minor == 4


def test_commitment_and_locks_move_along(space: Space) -> None:
    h = space.mmap(4 * M, flags=[*ANON, "locked"])
    space.mmap(PAGE, flags=[*ANON, "fixed_noreplace"], address=h - PAGE)
    before = space.k.committed_pages, space.status("VmLck"), space.status("VmData"), space.status("VmPeak")
    answer = space.call("mremap", address=h, old_length=4 * M, new_length=6 * M)
    assert answer.minor == 512  # the new part is locked, so it is faulted in
    after = space.k.committed_pages, space.status("VmLck"), space.status("VmData"), space.status("VmPeak")
    assert [b - a for a, b in zip(before, after, strict=True)] == [512, 2048, 2048, 2048]


@pytest.mark.parametrize(("resource", "errno"), [("as", "ENOMEM"), ("data", "ENOMEM"), ("memlock", "EAGAIN")])
def test_growth_is_limited_like_a_mapping(space: Space, resource: str, errno: str) -> None:
    h = space.mmap(M, flags=[*ANON, "locked"])
    used = {"as": space.mm.total_vm, "data": space.mm.data_vm, "memlock": space.mm.locked_vm}[resource]
    space.ok("setrlimit", resource=resource, limit=used * PAGE + PAGE)
    space.ok("setuid", uid=1000)
    assert space.errno("mremap", address=h, old_length=M, new_length=M + 2 * PAGE) == errno
    assert space.errno("mremap", address=h, old_length=M, new_length=M + PAGE) is None


def test_a_growth_that_cannot_be_promised_changes_nothing(space: Space) -> None:
    h = space.mmap(M)
    space.set("/proc/sys/vm/overcommit_memory", 2)
    before = space.k.committed_pages, space.mm.total_vm
    assert space.errno("mremap", address=h, old_length=M, new_length=900 * M) == "ENOMEM"
    assert (space.k.committed_pages, space.mm.total_vm) == before
