"""mprotect: mappings split and merge, entries follow, commitments are charged."""

from __future__ import annotations

import pytest

from tests.core.mm.space import ANON, PAGE, SHARED, M, Space

# name: (steps: first unit, units, prot), drawing of 16 units of 1 MiB
DRAWINGS: dict[str, tuple[list[tuple[int, int, str]], str]] = {
    "the middle": ([(4, 4, "r")], "AAAABBBBCCCCCCCC"),
    "and next to it": ([(4, 4, "r"), (8, 4, "r")], "AAAABBBBBBBBCCCC"),
    "and back": ([(4, 4, "r"), (8, 4, "r"), (4, 8, "rw")], "AAAAAAAAAAAAAAAA"),
    "the same again": ([(4, 4, "rw")], "AAAAAAAAAAAAAAAA"),
    "over three mappings": ([(2, 2, "r"), (6, 2, "none"), (0, 16, "r")], "AAAAAAAAAAAAAAAA"),
}


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("case", DRAWINGS)
def test_drawings(space: Space, case: str, touched: bool) -> None:
    steps, drawing = DRAWINGS[case]
    h = space.mmap(16 * M)
    if touched:
        space.touch(h, 16 * M)
    for at, size, prot in steps:
        space.ok("mprotect", address=h + at * M, length=size * M, prot=prot)
    assert space.draw(h, 16 * M, M) == drawing


@pytest.mark.parametrize(("offset", "length", "prot", "errno"), [
    (1, PAGE, "r", "EINVAL"), (0, 0, "r", None), (0, 5 * PAGE, "r", "ENOMEM"), (-PAGE, PAGE, "r", "ENOMEM"),
    (0, (1 << 64) - 1, "r", "ENOMEM"), (0, 1, "r", None), (0, 4 * PAGE, "none", None),
])  # fmt: skip
def test_errno(space: Space, offset: int, length: int, prot: str, errno: str | None) -> None:
    h = space.mmap(4 * PAGE, flags=[*ANON, "fixed"], address=0x10000000)
    assert space.errno("mprotect", address=h + offset, length=length, prot=prot) == errno


def test_what_lies_before_a_hole_is_changed(space: Space) -> None:  # MM-13
    h = space.mmap(8 * PAGE)
    space.ok("munmap", address=h + 4 * PAGE, length=PAGE)
    assert space.errno("mprotect", address=h, length=8 * PAGE, prot="r") == "ENOMEM"
    assert [space.vma(h + at * PAGE).flags & 7 for at in (0, 5)] == [1, 3]


@pytest.mark.parametrize(("opened", "flags", "errno"), [("r", "shared", "EACCES"), ("rw", "shared", None), ("r", "private", None)])
def test_a_shared_file_must_have_been_opened_for_writing(space: Space, opened: str, flags: str, errno: str | None) -> None:
    space.k.call("create_file", path="/data/f", size=M)
    h = space.mmap(M, opened, [flags], file="/data/f")
    assert space.errno("mprotect", address=h, length=M, prot="rw") == errno


# what is done to 16 touched pages, then faults of a write to each of them
FAULTS: dict[str, tuple[list[str], int]] = {
    "own pages are writable at once": (["r", "rw"], 0),
    "none and back": (["none", "rw"], 0),
    "read-only: the signal comes at once": (["r"], -1),
}


@pytest.mark.parametrize("case", FAULTS)
def test_entries_follow(space: Space, case: str) -> None:
    prots, faults = FAULTS[case]
    h = space.mmap(16 * PAGE)
    space.touch(h, 16 * PAGE)
    for prot in prots:
        space.ok("mprotect", address=h, length=16 * PAGE, prot=prot)
    answer = space.touch(h, 16 * PAGE)
    if faults < 0:
        assert (answer.signal, answer.fault_address, answer.minor) == ("SIGSEGV", h, 0)
    else:
        assert (answer.signal, answer.minor) == (None, faults)


def test_pages_shared_after_fork_still_fault(space: Space) -> None:
    h = space.mmap(16 * PAGE)
    space.touch(h, 16 * PAGE)
    space.ok("fork")
    for prot in ("r", "rw"):
        space.ok("mprotect", address=h, length=16 * PAGE, prot=prot)
    assert space.touch(h, 16 * PAGE).minor == 16


def test_zero_pages_still_fault(space: Space) -> None:
    h = space.mmap(16 * PAGE, "r")
    space.touch(h, 16 * PAGE, "read")
    space.ok("mprotect", address=h, length=16 * PAGE, prot="rw")
    assert space.touch(h, 16 * PAGE).minor == 16


def test_becoming_writable_is_a_promise(space: Space) -> None:  # MM-14
    before = space.k.committed_pages
    h = space.mmap(4 * M, "r")
    assert space.k.committed_pages == before
    space.ok("mprotect", address=h, length=2 * M, prot="rw")
    assert space.k.committed_pages - before == 512
    space.ok("mprotect", address=h, length=2 * M, prot="r")
    assert space.k.committed_pages - before == 512  # once promised, always charged
    assert space.draw(h, 4 * M, M) == "AABB"
    space.ok("munmap", address=h, length=4 * M)
    assert space.k.committed_pages == before


def test_a_promise_that_cannot_be_kept_changes_nothing(space: Space) -> None:
    h = space.mmap(512 * M, "r")
    space.set("/proc/sys/vm/overcommit_memory", 2)
    before = space.k.committed_pages
    assert space.errno("mprotect", address=h, length=512 * M, prot="rw") == "ENOMEM"
    assert (space.k.committed_pages, space.vma(h).flags & 2) == (before, 0)


def test_shared_memory_was_charged_when_it_was_made(space: Space) -> None:
    h = space.mmap(M, "r", SHARED)
    before = space.k.committed_pages
    space.ok("mprotect", address=h, length=M, prot="rw")
    assert space.k.committed_pages == before


def test_data_limit_binds_what_becomes_data(space: Space) -> None:
    h = space.mmap(2 * M, "r")
    space.ok("setrlimit", resource="data", limit=space.mm.data_vm * PAGE + M)
    assert space.errno("mprotect", address=h, length=M, prot="rw") is None
    assert space.errno("mprotect", address=h + M, length=PAGE, prot="rw") == "ENOMEM"


def test_locked_memory_that_becomes_writable_is_faulted_in(space: Space) -> None:
    h = space.mmap(16 * PAGE, "r", [*ANON, "locked"])
    before = space.anon()
    space.ok("mprotect", address=h, length=16 * PAGE, prot="rw")
    assert space.anon() - before == 64
    assert space.touch(h, 16 * PAGE).minor == 0
