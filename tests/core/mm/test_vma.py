"""Splitting, merging and placing of mappings, on an empty address space: what Linux's own VMA tests ask."""

from __future__ import annotations

import pytest

from core import Kernel, Machine
from core.abi.errno import SysError
from core.abi.mman import VM_DONTEXPAND, VM_GROWSDOWN, VM_IO, VM_MIXEDMAP, VM_PFNMAP, VM_READ, VM_SOFTDIRTY, VM_WRITE
from core.mm import rmap, vma
from core.mm.mempolicy import Mempolicy
from core.mm.mm_types import Inode, Mm, Vma
from tests.core.mm.space import draw_mm

BASE = 0x1000  # first page of the drawings
RW, R = VM_READ | VM_WRITE, VM_READ


@pytest.fixture(scope="module")
def k() -> Kernel:
    return Kernel.boot(Machine.from_dict({"memory": "512M"}))


def add(k: Kernel, mm: Mm, start: int, end: int, flags: int = RW) -> None:
    """What mmap does with [start, end): grow a neighbour, or make a mapping."""
    low, high = BASE + start, BASE + end
    if vma.expand_neighbour(k, mm, low, high, flags, None, low) is None:
        vma.link_vma(Vma(mm, low, high, flags, low))


def change(k: Kernel, mm: Mm, start: int, end: int, flags: int) -> None:
    """What mprotect does with a part of one mapping."""
    found = vma.vma_lookup(mm, BASE + start)
    assert found is not None
    vma.set_vma(k, found, BASE + start, BASE + end, flags, found.policy)


def bind(k: Kernel, mm: Mm, start: int, end: int, *nodes: int) -> None:
    """What mbind does with a part of one mapping."""
    found = vma.vma_lookup(mm, BASE + start)
    assert found is not None
    vma.set_vma(k, found, BASE + start, BASE + end, found.flags, Mempolicy("bind", nodes) if nodes else None)


def touch(k: Kernel, mm: Mm, page: int) -> None:
    """What the first fault does: the mapping gets an anon_vma."""
    found = vma.vma_lookup(mm, BASE + page)
    assert found is not None
    rmap.anon_vma_prepare(k, found)


def inherit(k: Kernel, mm: Mm, page: int) -> None:
    """What fork leaves in a child: a chain of two."""
    found = vma.vma_lookup(mm, BASE + page)
    assert found is not None
    parent = Vma(mm, found.start, found.end, found.flags, found.pgoff)
    rmap.anon_vma_prepare(k, parent)
    rmap.anon_vma_fork(k, found, parent)


STEPS = {"add": add, "change": change, "bind": bind, "touch": touch, "inherit": inherit}

# name: (steps, drawing of pages 0..15)
CASES: dict[str, tuple[list[tuple[object, ...]], str]] = {
    "VM-01 a gap is filled": ([("add", 0, 1), ("add", 2, 3), ("add", 1, 2)], "AAA............."),
    "VM-02 the middle changes": ([("add", 0, 3), ("change", 1, 2, R)], "ABC............."),
    "VM-02 and changes back": ([("add", 0, 3), ("change", 1, 2, R), ("change", 1, 2, RW)], "AAA............."),
    "VM-03 grow to the right": ([("add", 0, 1), ("add", 1, 3)], "AAA............."),
    "VM-04 apart": ([("add", 0, 4), ("add", 6, 8), ("add", 12, 13)], "AAAA..BB....C..."),
    "VM-04 between two": ([("add", 0, 4), ("add", 6, 8), ("add", 12, 13), ("add", 4, 6)], "AAAAAAAA....B..."),
    "VM-04 in front of the next": ([("add", 0, 4), ("add", 12, 13), ("add", 10, 12)], "AAAA......BBB..."),
    "VM-04 other flags": ([("add", 0, 4), ("add", 4, 6, R), ("add", 6, 8)], "AAAABBCC........"),
    "VM-07 the right part joins the next": ([("add", 0, 4), ("add", 4, 8, R), ("change", 2, 4, R)], "AABBBBBB........"),
    "VM-07 the left part joins the one before": ([("add", 0, 4, R), ("add", 4, 8), ("change", 4, 6, R)], "AAAAAABB........"),
    "VM-07 all of it joins both": ([("add", 0, 4, R), ("add", 4, 6), ("add", 6, 8, R), ("change", 4, 6, R)], "AAAAAAAA........"),
    "VM-07 all of it joins the next": ([("add", 0, 2), ("add", 2, 4, R), ("change", 0, 2, R)], "AAAA............"),
    "VM-07 an inner range joins nobody": ([("add", 0, 8, R), ("change", 3, 5, RW)], "AAABBCCC........"),
    "soft-dirty does not count": ([("add", 0, 2, RW | VM_SOFTDIRTY), ("add", 2, 4, RW)], "AAAA............"),
    "touched, then grown": ([("add", 0, 2), ("touch", 0), ("add", 2, 4)], "AAAA............"),
    "touched later, one anon_vma for both": ([("add", 0, 2), ("add", 2, 4, R), ("touch", 0), ("touch", 2), ("change", 2, 4, RW)], "AAAA............"),
    "a touched part does not move into an untouched mapping": (
        [("add", 0, 6), ("change", 2, 4, R), ("touch", 2), ("change", 2, 4, RW)], "AABBCC..........",
    ),
    "an untouched part joins a touched mapping": (
        [("add", 0, 6), ("change", 2, 6, R), ("touch", 0), ("change", 2, 6, RW)], "AAAAAA..........",
    ),
    "VM-08 two anon_vmas: one side only": (
        [("add", 0, 2), ("add", 4, 6), ("touch", 0), ("touch", 4), ("add", 2, 4)], "AABBBB..........",
    ),
    "VM-08 one of them was touched": ([("add", 0, 2), ("add", 4, 6), ("touch", 0), ("add", 2, 4)], "AAAAAA.........."),
    "VM-08 the other one was touched": ([("add", 0, 2), ("add", 4, 6), ("touch", 4), ("add", 2, 4)], "AABBBB.........."),
    "LV-01 nothing joins inherited memory": ([("add", 0, 3), ("inherit", 0), ("add", 3, 6)], "AAABBB.........."),
    "LV-02 the middle is bound": ([("add", 0, 3), ("bind", 1, 2, 0)], "ABC............."),
    "LV-02 and unbound": ([("add", 0, 3), ("bind", 1, 2, 0), ("bind", 1, 2)], "AAA............."),
    "LV-03 case 4": ([("add", 0, 6), ("bind", 4, 6, 0), ("bind", 2, 4, 0)], "AABBBB.........."),
    "LV-03 case 5": ([("add", 0, 6), ("bind", 0, 2, 0), ("bind", 2, 4, 0)], "AAAABB.........."),
    "LV-03 case 6": ([("add", 0, 6), ("bind", 0, 2, 0), ("bind", 4, 6, 0), ("bind", 2, 4, 0)], "AAAAAA.........."),
    "LV-03 case 7": ([("add", 0, 6), ("bind", 0, 2, 0), ("bind", 4, 6, 1), ("bind", 2, 4, 0)], "AAAABB.........."),
    "LV-03 case 8": ([("add", 0, 6), ("bind", 4, 6, 0), ("bind", 0, 2, 1), ("bind", 2, 4, 0)], "AABBBB.........."),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_mappings_split_and_merge(k: Kernel, case: str) -> None:
    steps, drawing = CASES[case]
    mm = Mm(0)
    for name, *arguments in steps:
        STEPS[str(name)](k, mm, *arguments)  # type: ignore[arg-type]
    assert draw_mm(mm, BASE, 16) == drawing
    assert mm.starts == [mapping.start for mapping in mm.vmas]
    assert all(mapping.pgoff == mapping.start for mapping in mm.vmas)


@pytest.mark.parametrize("special", [VM_IO, VM_DONTEXPAND, VM_PFNMAP, VM_MIXEDMAP])
def test_special_mappings_never_merge(k: Kernel, special: int) -> None:  # VM-05
    mm = Mm(0)
    for start in (0, 4, 2):
        add(k, mm, start, start + 2, RW | special)
    assert draw_mm(mm, BASE, 8) == "AABBCC.."


@pytest.mark.parametrize(("pgoff", "drawing"), [(10, "AAAA"), (11, "AABB"), (8, "AABB")])
def test_a_files_mappings_merge_where_its_offsets_continue(k: Kernel, pgoff: int, drawing: str) -> None:
    mm, file = Mm(0), Inode(1, "/data/f", 1 << 20)
    vma.link_vma(Vma(mm, BASE, BASE + 2, R, 8, file))
    if vma.expand_neighbour(k, mm, BASE + 2, BASE + 4, R, file, pgoff) is None:
        vma.link_vma(Vma(mm, BASE + 2, BASE + 4, R, pgoff, file))
    assert draw_mm(mm, BASE, 4) == drawing


def test_every_anon_vma_of_a_swallowed_mapping_finds_the_pages(k: Kernel) -> None:
    mm = Mm(0)
    add(k, mm, 0, 2, R)
    add(k, mm, 2, 4, RW)
    touch(k, mm, 0)
    joined = mm.vmas[0].anon_vma
    change(k, mm, 2, 4, R)
    assert [mapping.anon_vma for mapping in mm.vmas] == [joined]
    assert joined is not None
    assert joined.vmas == mm.vmas


def test_a_split_stops_at_max_map_count(k: Kernel) -> None:
    mm = Mm(0)
    add(k, mm, 0, 8)
    k.sysctl["vm.max_map_count"] = 2
    try:
        with pytest.raises(SysError, match="ENOMEM"):
            change(k, mm, 2, 4, R)
    finally:
        k.sysctl["vm.max_map_count"] = 65530
    assert draw_mm(mm, BASE, 8) == "AABBBBBB"  # the first of two splits was made, as in Linux


# ---------------------------------------------------------------- placing

TOP = 0x7FFFF7FFF  # mmap_base as a page number

# mappings from the top down: (pages below mmap_base, pages, flags), the request, where it goes below mmap_base
PLACES: dict[str, tuple[list[tuple[int, int, int]], int, int]] = {
    "empty: right below mmap_base": ([], 4, 4),
    "below what is there": ([(4, 4, RW)], 4, 8),
    "the highest hole that is large enough": ([(2, 2, RW), (10, 4, RW)], 4, 6),
    "a hole that is too small is passed over": ([(2, 2, RW), (8, 4, RW)], 4, 12),
    "nothing goes into a stack's guard gap": ([(4, 4, RW | VM_GROWSDOWN)], 4, 4 + 256 + 4),
    "above a stack there is no gap": ([(8, 4, RW | VM_GROWSDOWN)], 4, 4),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_mapping_goes_to_the_highest_hole(case: str) -> None:
    there, pages, below = PLACES[case]
    mm = Mm(0)
    for down, size, flags in there:
        vma.link_vma(Vma(mm, TOP - down, TOP - down + size, flags, TOP - down))
    assert vma.get_unmapped_area(mm, 0, pages) == TOP - below


@pytest.mark.parametrize(
    ("hint", "pages", "taken"),
    [(0x10000, 4, True), (0xF, 4, False), (0x20000, 4, False), (0x1FFFE, 4, False), (0x1FFFC, 4, True)],
)
def test_a_hint_is_used_if_the_range_is_free(hint: int, pages: int, taken: bool) -> None:
    mm = Mm(0)
    vma.link_vma(Vma(mm, 0x20000, 0x20010, RW, 0x20000))
    assert (vma.get_unmapped_area(mm, hint, pages) == hint) is taken


def test_when_all_below_mmap_base_is_full_the_search_goes_up() -> None:
    mm = Mm(0)
    vma.link_vma(Vma(mm, 0x10, TOP, RW, 0x10))
    assert vma.get_unmapped_area(mm, 0, 4) == TOP


@pytest.mark.parametrize(("pages", "align", "offset"), [(4, 512, 0), (600, 512, 0), (512, 512, 3), (1, 2, 1)])
def test_an_aligned_start_agrees_with_the_offset(pages: int, align: int, offset: int) -> None:
    start = vma.get_unmapped_area_aligned(Mm(0), pages, align, offset)
    assert (start - offset) % align == 0
    assert TOP - pages - align <= start <= TOP - pages


@pytest.mark.parametrize(("vpn", "found"), [(0, 0), (0x10, 0), (0x13, 0), (0x14, 1), (0x20, 1), (0x2F, 1), (0x30, None)])
def test_find_vma_answers_the_first_mapping_that_ends_above(vpn: int, found: int | None) -> None:
    mm = Mm(0)
    for start, end in ((0x10, 0x14), (0x20, 0x30)):
        vma.link_vma(Vma(mm, start, end, RW, start))
    assert vma.find_vma(mm, vpn) is (None if found is None else mm.vmas[found])
    assert (vma.vma_lookup(mm, vpn) is None) == (vpn < 0x10 or 0x14 <= vpn < 0x20 or vpn >= 0x30)
