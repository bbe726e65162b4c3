"""Memory in one piece, larger than any block of the buddy allocator: what is in the way moves out of it (mm/page_alloc.c:alloc_contig_range).

A page of 1 GiB is 262,144 frames that begin at a multiple of 262,144. On a machine in use no such range is free, but much of what lies there is
movable: pages of processes and of files, which another frame serves as well. For each aligned range of a zone, the lowest first:

    look        is every frame free, or a page on an LRU list? One page of slab, a stack, a page table, a page of hugetlb: the next range
    isolate     its free blocks leave the free lists, so that nothing new comes in
    migrate     every page there becomes a frame elsewhere (`migrate`), huge pages whole, or in parts if no 2 MiB are left
    take        262,144 frames, in nobody's use. If a page could not move, all go back, and the next range is tried

    3G, 500M of a process in the second GiB, nothing else there: pgmigrate_success 128,000, compact_isolated 128,000 + 262,144

So gigantic pages are best asked for early: boot's own pages, and the kernel's later ones, cannot move, and one in each GiB is enough to have none.

Simplified: clean pages of files move too, where Linux drops them (reclaim_clean_pages_from_list).

Source: alloc_contig_pages, pfn_range_valid_contig, has_unmovable_pages, __alloc_contig_migrate_range, isolate_freepages_range; recordings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from core.abi.page_flags import PG_HEAD, PG_HUGETLB, PG_LRU, PG_TAIL
from core.jit import njit, step
from core.mm import gfp, rmap_walk
from core.mm.gfp_types import GFP_MOVABLE, GFP_RETRY_MAYFAIL, GFP_TRANSHUGE, GFP_USER
from core.mm.huge_memory import split_huge_page
from core.mm.migrate import (
    PGMIGRATE_FAIL,
    PGMIGRATE_SUCCESS,
    cache_roots,
    can_migrate,
    can_migrate_huge,
    migrate_huge_page,
    migrate_page,
)
from core.mm.mm_types import HPAGE_PMD_NR, HPAGE_PMD_ORDER, MIGRATE_MOVABLE, PAGEBLOCK_PAGES, WMARK_LOW, ZONE_NORMAL, State
from core.mm.page_alloc import (
    add_to_free_list_tail,
    buddy_order,
    del_from_free_list,
    get_page_from_freelist,
    set_pageblock_type,
)
from core.mm.rmap_walk import Rmap
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array
    from core.sched.task import Task

COMPACT_ISOLATED = EVENT["compact_isolated"]
THP_MIGRATION_SUCCESS, THP_MIGRATION_FAIL = EVENT["thp_migration_success"], EVENT["thp_migration_fail"]
THP_MIGRATION_SPLIT = EVENT["thp_migration_split"]
OURS = -(1 << 62)  # `content` of a frame that is isolated
DONE, NO_FRAME, NO_HUGE, BUSY = range(4)  # how `migrate_out` ends
AT, READY, MOVED = range(3)  # its account: where it stands; a frame that was found for it, NEVER if there is none; pages moved
NEVER = -1


def alloc_contig_pages(k: Kernel, task: Task | None, order: int, node: int, nodes: int = 0) -> int:
    """2^order frames in a row, aligned, from `node`'s zonelist and the nodes of a mask (0: all): the first, in nobody's use; 0: there are none."""
    for zid in (int(zid) for zid in k.s.zonelists[node] if zid >= 0):
        if nodes and not nodes >> int(k.s.zones["node"][zid]) & 1:
            continue
        for pfn in ranges(k, zid, order):
            if not obstacle(k.s, zid, pfn, pfn + (1 << order)) and evacuate(k, task, zid, pfn, pfn + (1 << order)):
                k.s.mem["content"][pfn : pfn + (1 << order)] = 0
                return pfn
    return 0


def ranges(k: Kernel, zid: int, order: int) -> Iterator[int]:
    """The first frames of the aligned ranges of this order that lie in a zone."""
    zone, pages = k.s.zones[zid], 1 << order
    end = int(zone["start_pfn"]) + int(zone["spanned"])
    yield from range((int(zone["start_pfn"]) + pages - 1) & -pages, end - pages + 1, pages)


def evacuate(k: Kernel, task: Task | None, zid: int, start: int, end: int) -> bool:
    """Empty a range: True if every frame of it is isolated then; else all that were free are free again."""
    isolate(k.s, zid, start, end)
    account: Array = np.array([start, 0, 0], np.int64)
    roots = cache_roots(k)
    while True:
        why = int(migrate_out(k.s, rmap_walk.tables(k), roots, zid, end, account))
        if why not in (NO_FRAME, NO_HUGE):
            break
        account[READY] = find_frame(k, task, int(k.s.zones["node"][zid]), huge=why == NO_HUGE)
    rmap_walk.settle(k)
    moved = int(account[MOVED])
    k.clock.spend(moved * (k.costs.copy_page + k.costs.zap_pte))
    k.s.vm_event[COMPACT_ISOLATED] += moved + (end - start if why == DONE else 0)
    if why != DONE:
        give_back(k.s, zid, start, end)
    return why == DONE


def find_frame(k: Kernel, task: Task | None, node: int, *, huge: bool) -> int:
    """The free lists had none: reclaim and compact for one (alloc_migration_target)."""
    hard = GFP_TRANSHUGE if huge else GFP_USER | GFP_MOVABLE | GFP_RETRY_MAYFAIL
    return gfp.alloc_pages(k, task, HPAGE_PMD_ORDER if huge else 0, hard, node=node) or NEVER


# ---------------------------------------------------------------- loops


@njit
def obstacle(s: State, zid: int, start: int, end: int) -> int:
    """The first frame of a range that neither is free nor can move; 0 if there is none (pfn_range_valid_contig, has_unmovable_pages)."""
    pfn = start
    while pfn < end:
        order = buddy_order(s, pfn)
        if order >= 0:
            pfn += 1 << order
            continue
        flags = s.mem[pfn]["flags"]
        if flags & PG_HUGETLB or not (flags & PG_LRU or (flags & PG_TAIL and s.mem[s.mem[pfn]["private"]]["flags"] & PG_LRU)):
            return pfn
        pfn += 1
    return 0


@njit
def isolate(s: State, zid: int, start: int, end: int) -> None:
    """The free blocks of a range leave the free lists; its pageblocks are Movable from now on (start_isolate_page_range)."""
    for block in range(start, end, PAGEBLOCK_PAGES):
        set_pageblock_type(s, block, MIGRATE_MOVABLE)
    pfn = start
    while pfn < end:
        order = buddy_order(s, pfn)
        if order < 0:
            pfn += 1
            continue
        seize(s, zid, pfn, order)
        pfn += 1 << order


@step
def seize(s: State, zid: int, pfn: int, order: int) -> None:
    """One free block is ours."""
    del_from_free_list(s, zid, order, pfn >> order)
    s.zones[zid]["free"] -= 1 << order
    for at in range(pfn, pfn + (1 << order)):
        s.mem[at]["content"] = OURS


@njit
def migrate_out(s: State, r: Rmap, roots, zid: int, end: int, account) -> int:
    """Move the pages from account[AT] on to frames elsewhere, and seize what that frees: DONE, or why it stopped there."""
    while account[AT] < end:
        pfn = account[AT]
        if s.mem[pfn]["content"] == OURS:
            account[AT] = pfn + 1
            continue
        huge = s.mem[pfn]["flags"] & PG_HEAD != 0
        if not (can_migrate_huge(s, r, pfn) if huge else can_migrate(s, r, pfn)):
            s.vm_event[PGMIGRATE_FAIL] += HPAGE_PMD_NR if huge else 1
            return BUSY
        order = HPAGE_PMD_ORDER if huge else 0
        new, account[READY] = account[READY], 0
        if new == 0:
            node = s.zones[zid]["node"]
            new = get_page_from_freelist(s, node, order, WMARK_LOW, ZONE_NORMAL, 0, node, MIGRATE_MOVABLE)
        if new == 0:
            return NO_HUGE if huge else NO_FRAME
        if new < 0:
            if not huge:
                s.vm_event[PGMIGRATE_FAIL] += 1
                return BUSY
            s.vm_event[THP_MIGRATION_FAIL] += 1
            if not split_huge_page(s, r, pfn):
                return BUSY
            s.vm_event[THP_MIGRATION_SPLIT] += 1
            seize_free(s, zid, pfn)
            continue
        if huge:
            migrate_huge_page(s, r, pfn, new)
            s.vm_event[THP_MIGRATION_SUCCESS] += 1
        else:
            migrate_page(s, r, roots, pfn, new)
        seize(s, zid, pfn, order)
        s.vm_event[PGMIGRATE_SUCCESS] += 1 << order
        account[MOVED] += 1 << order
        account[AT] = pfn + (1 << order)
    return DONE


@step
def seize_free(s: State, zid: int, pfn: int) -> None:
    """A huge page came apart: those of its frames that nobody used are free, and ours."""
    at = pfn
    while at < pfn + HPAGE_PMD_NR:
        order = buddy_order(s, at)
        if order >= 0:
            seize(s, zid, at, order)
        at += 1 << max(order, 0)


@njit
def give_back(s: State, zid: int, start: int, end: int) -> None:
    """The isolated frames of a range are free again, in blocks as large as they make (undo_isolate_page_range)."""
    pfn = start
    while pfn < end:
        order = 0
        while s.mem[pfn]["content"] == OURS and order < 10 and is_ours(s, pfn + (1 << order), 1 << order) and pfn & ((2 << order) - 1) == 0:
            order += 1
        if s.mem[pfn]["content"] == OURS:
            for at in range(pfn, pfn + (1 << order)):
                s.mem[at]["content"] = 0
            add_to_free_list_tail(s, zid, order, pfn >> order, MIGRATE_MOVABLE)
            s.zones[zid]["free"] += 1 << order
        pfn += 1 << order


@step
def is_ours(s: State, start: int, nr: int) -> bool:
    """Are all of these frames isolated?"""
    for pfn in range(start, start + nr):
        if s.mem[pfn]["content"] != OURS:
            return False
    return True
