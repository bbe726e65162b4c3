"""zram: a swap device in memory, compressed (drivers/block/zram, mm/zsmalloc.c).

A page that is written to zram is compressed and kept in RAM, so RAM shrinks as the device fills, by less than what was freed. How much less is
the device's `ratio`, the same for every page (3 unless the machine says otherwise; real pages differ):

    ratio 3: 4096 bytes become 1366, with their handle of 8 bytes an object of class 1376, of which 11 fit into a *zspage* of 4 frames;
    1,000 pages take 91 zspages, 364 frames, so 636 frames are won

A write is done when the call returns, so the page is freed at once: it waits neither under writeback nor in the swap cache, and is never rotated.

A page of one byte all over takes nothing (*same_pages*). One that does not shrink below 3,264 bytes or so is kept as it is, a frame for a
page (*huge_pages*): nothing is won. The frames come without regard to watermarks, as everything that frees memory does; they count as
`nr_zspages`, belong to no cgroup, and go back when the slots are free that they hold: not when a page is read, but when its slot is given up, and
a processor keeps up to 64 of those (`swap_slots`).

    mm_stat:  orig_data_size  compr_data_size  mem_used_total  mem_limit  mem_used_max  same_pages  pages_compacted  huge_pages  huge_pages_since

Simplified: objects fill zspages without gaps, as if the pool were compacted all the time, and compaction does not move them; no limit, no
writeback. Where not even a reserve has a free frame, objects share what there is until one comes free.
"""

from __future__ import annotations

from math import ceil

from core.abi.page_flags import PG_ZSMALLOC
from core.jit import inline, step
from core.mm.mm_types import MIGRATE_MOVABLE, State
from core.mm.page_alloc import clear_page_row, free_one_page, get_page_from_freelist, zone_of
from core.vmstat import ZONE

NR_ZSPAGES = ZONE["nr_zspages"]
PAGE = 4096
MIN_ALLOC, DELTA = 32, 16  # ZS_MIN_ALLOC_SIZE, ZS_SIZE_CLASS_DELTA
HANDLE = 8
MOST_PAGES = 4  # of a zspage
# SLOT.flags: what the device keeps for a slot: an object, a whole page, only the byte that it is full of
SLOT_OBJECT, SLOT_HUGE, SLOT_SAME = 8, 16, 32
SLOT_STORED = SLOT_OBJECT | SLOT_HUGE | SLOT_SAME


# ---------------------------------------------------------------- size classes


def class_size(size: int) -> int:
    """The class that objects of `size` bytes belong to."""
    return min(max(MIN_ALLOC, MIN_ALLOC + -(-(size - MIN_ALLOC) // DELTA) * DELTA), PAGE)


def pages_per_zspage(size: int) -> int:
    """How many frames waste the least for objects of a class (get_pages_per_zspage)."""
    used = [(pages * PAGE - pages * PAGE % size) * 100 // (pages * PAGE) for pages in range(1, MOST_PAGES + 1)]
    return used.index(max(used)) + 1


def huge_class_size() -> int:
    """Compressed pages of so many bytes are kept whole: the first class, from the largest, of which several fit into several frames."""
    for size in range(PAGE, MIN_ALLOC, -DELTA):
        pages = pages_per_zspage(size)
        if pages != 1 and pages * PAGE // size != 1:
            return size - (HANDLE - 1)
    return PAGE


HUGE_CLASS_SIZE = huge_class_size()


def shape(ratio: float) -> tuple[int, int, int]:
    """A device of this ratio: (bytes that a page is compressed to, objects a zspage, frames a zspage)."""
    size = ceil(PAGE / ratio)
    if size >= HUGE_CLASS_SIZE:
        return PAGE, 1, 1
    pages = pages_per_zspage(class_size(size + HANDLE))
    return size, pages * PAGE // class_size(size + HANDLE), pages


# ---------------------------------------------------------------- pages that come and go


@inline
def is_zram(s: State, kind: int) -> bool:
    """Is this area one of compressed memory?"""
    return s.swaps[kind]["object_size"] > 0


@step
def zram_write(s: State, kind: int, slot: int, content: int) -> None:
    """The device keeps a page (zram_bvec_write); what it kept for the slot before goes."""
    area, row = s.swaps[kind], s.slots[slot]
    forget(s, kind, slot)
    area["writes"] += 1
    if content >> 8 == 0:
        row["flags"] |= SLOT_SAME
        area["same_pages"] += 1
    elif area["object_size"] == PAGE:
        row["flags"] |= SLOT_HUGE
        area["huge_pages"] += 1
        area["huge_since"] += 1
    else:
        row["flags"] |= SLOT_OBJECT
        area["objects"] += 1
    fit_frames(s, kind)


@step
def zram_free(s: State, kind: int, slot: int) -> None:
    """A slot is free (swap_slot_free_notify)."""
    if s.slots[slot]["flags"] & SLOT_STORED:
        forget(s, kind, slot)
        fit_frames(s, kind)


@inline
def forget(s: State, kind: int, slot: int) -> None:
    """What the device kept for a slot is no more."""
    area, row = s.swaps[kind], s.slots[slot]
    if row["flags"] & SLOT_SAME:
        area["same_pages"] -= 1
    elif row["flags"] & SLOT_HUGE:
        area["huge_pages"] -= 1
    elif row["flags"] & SLOT_OBJECT:
        area["objects"] -= 1
    row["flags"] &= ~SLOT_STORED


@step
def fit_frames(s: State, kind: int) -> None:
    """The pool has as many frames as its objects need (alloc_zspage, free_zspage)."""
    area = s.swaps[kind]
    per = area["per_zspage"]
    wanted = (area["objects"] + per - 1) // per * area["zspage_frames"] + area["huge_pages"]
    node = s.vmf[0]["node"]
    while area["frames"] < wanted:
        pfn = get_page_from_freelist(s, node, 0, -1, 3, 0, node, MIGRATE_MOVABLE)
        if pfn == 0:
            return
        page = s.mem[pfn]
        page["refcount"] = 1
        page["flags"] = PG_ZSMALLOC
        page["next"] = area["frame_list"]
        area["frame_list"] = pfn
        area["frames"] += 1
        area["most_frames"] = max(area["most_frames"], area["frames"])
        s.zones[zone_of(s, pfn)]["stat"][NR_ZSPAGES] += 1
    while area["frames"] > wanted:
        pfn = area["frame_list"]
        zid = zone_of(s, pfn)
        area["frame_list"] = s.mem[pfn]["next"]
        s.mem[pfn]["next"] = 0
        area["frames"] -= 1
        s.zones[zid]["stat"][NR_ZSPAGES] -= 1
        clear_page_row(s, pfn)
        free_one_page(s, zid, pfn, 0)
