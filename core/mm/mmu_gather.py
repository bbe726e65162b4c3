"""Pages that are unmapped together are freed together (mm/mmu_gather.c, mm/swap.c:release_pages).

Each page that munmap takes away leaves the LRU list, is taken off a dozen counters, and goes back to the buddy allocator. Pages that are *plain*
(anonymous, nobody else's, in their usual place) and of one zone, one cgroup and one list need that once for all that a page table maps:
`pages_alike` counts them and `release_pages` frees them, in two passes. The result is the same as one after the other (a property test
compares the digests):

    the counters       are sums
    the LRU list       What is left of a list does not depend on the order in which pages leave it. Memory that was written in the order of its
                       addresses stands there in one piece, which is cut out at both ends.
    the buddy lists    do depend on the order, so frames are freed in it. Frames of ascending number that are freed one by one, none of them
                       free before, make the aligned blocks that they consist of, each when its last frame is freed; on the way smaller
                       blocks are put on lists and taken off again, which leaves no trace. So each block can be freed whole: with what
                       lies free around it, it merges then, as the last frame would have. Frames 5 to 12: 5, 6-7, 8-11, 12.

Pages that were written in random order lie anywhere, and what they cost is waiting for memory: a page's row, its neighbours' on the LRU list, its
buddies. Each pass asks for what it will need some entries ahead; two short loops wait less than one long one.

What is not plain (shared with somebody, locked, huge, in the swap cache, of a file) goes the ordinary way in `zap.zap_pages`.
"""

from __future__ import annotations

from core.abi.page_flags import PG_ACTIVE, PG_ANON, PG_KSM, PG_LRU, PG_MLOCKED, PG_SWAPBACKED, PG_SWAPCACHE, PG_UNEVICTABLE
from core.jit import inline, prefetch, step
from core.mm.compound import PG_COMPOUND
from core.mm.mm_inline import lru_gen_enabled
from core.mm.mm_types import CTL_BUDDY, CTL_FAIL_NTH, MM_ANONPAGES, PAGEBLOCK_ORDER, State
from core.mm.page_alloc import clear_page_row, free_one_page, zone_of
from core.mm.page_counter import uncharge
from core.mm.page_ops import stat_add
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, PTE_SPECIAL
from core.mm.swap import lruvec_of, page_lru, update_lru_size
from core.vmstat import NR_ANON_MAPPED

PLAIN = PG_ANON | PG_LRU  # a plain page has these flags
OTHER = PG_COMPOUND | PG_MLOCKED | PG_UNEVICTABLE | PG_SWAPCACHE | PG_KSM  # and none of these
LIST = PG_ACTIVE | PG_SWAPBACKED  # and these decide on which list it stands
AHEAD = 8  # entries between one stage of prefetching and the next


@step
def may_gather(s: State) -> bool:
    """Are plain pages looked for? Not where pages stand on the lists of generations.

    And not while the test knob counts allocations, so that both ways can be compared.
    """
    return not lru_gen_enabled(s) and s.ctl[CTL_FAIL_NTH] == 0


@inline
def pages_alike(s: State, tid: int, slot: int, stop: int) -> int:
    """How many entries from `slot` on (before `stop`) map plain pages of one zone, one cgroup and one list; 0: the first does not."""
    if not is_plain(s, s.pt[tid, slot]):
        return 0
    pfn = (s.pt[tid, slot] & PFN_MASK) >> 12
    zid, memcg, kind = zone_of(s, pfn), s.mem[pfn]["memcg"], s.mem[pfn]["flags"] & LIST
    end = slot + 1
    while end < stop and is_plain(s, s.pt[tid, end]):
        prefetch_row(s, tid, end + 2 * AHEAD)
        pfn = (s.pt[tid, end] & PFN_MASK) >> 12
        page = s.mem[pfn]
        if page["memcg"] != memcg or page["flags"] & LIST != kind or zone_of(s, pfn) != zid:
            break
        end += 1
    return end - slot


@inline
def is_plain(s: State, pte: int) -> bool:
    """Does an entry map an anonymous page that nobody else has, in its usual place on a list?"""
    if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
        return False
    page = s.mem[(pte & PFN_MASK) >> 12]
    return page["flags"] & (PLAIN | OTHER) == PLAIN and page["refcount"] == 1 and page["mapcount"] == 1


@step
def release_pages(s: State, mm: int, tid: int, slot: int, nr: int) -> None:
    """Unmap and free the pages of `nr` entries from `slot` on, which `pages_alike` found."""
    pfn = (s.pt[tid, slot] & PFN_MASK) >> 12
    zid, memcg, lru = zone_of(s, pfn), s.mem[pfn]["memcg"], page_lru(s.mem[pfn]["flags"])
    lruvec = lruvec_of(s, memcg, s.zones[zid]["node"])
    s.mms[mm]["rss"][MM_ANONPAGES] -= nr
    stat_add(s, zid, memcg, NR_ANON_MAPPED, -nr)
    update_lru_size(s, zid, lruvec, lru, -nr)
    uncharge(s, memcg, nr)
    unlink_pages(s, tid, slot, slot + nr, lruvec, lru)
    free_pages(s, tid, slot, slot + nr, zid)


@inline
def unlink_pages(s: State, tid: int, slot: int, end: int, lruvec: int, lru: int) -> None:
    """The pages leave their list: what was before and after each run of neighbours is linked."""
    vec = s.lruvecs[lruvec]
    while slot < end:
        prefetch_neighbours(s, tid, slot + AHEAD)
        last = (s.pt[tid, slot] & PFN_MASK) >> 12
        older, younger = s.mem[last]["next"], s.mem[last]["prev"]
        slot += 1
        while slot < end and younger == (s.pt[tid, slot] & PFN_MASK) >> 12 and younger:
            last = younger
            younger = s.mem[last]["prev"]
            slot += 1
        if younger:
            s.mem[younger]["next"] = older
        else:
            vec["head"][lru] = older
        if older:
            s.mem[older]["prev"] = younger
        else:
            vec["tail"][lru] = younger


@inline
def free_pages(s: State, tid: int, slot: int, end: int, zid: int) -> None:
    """The frames go back to their zone and the entries are empty; frames of ascending number by the blocks that they make."""
    while slot < end:
        prefetch_buddies(s, tid, slot + AHEAD)
        pfn, nr = (s.pt[tid, slot] & PFN_MASK) >> 12, 0
        while slot < end and (s.pt[tid, slot] & PFN_MASK) >> 12 == pfn + nr:
            clear_page_row(s, pfn + nr)
            s.mem[pfn + nr]["next"] = 0
            s.mem[pfn + nr]["prev"] = 0
            s.pt[tid, slot] = 0
            nr += 1
            slot += 1
        free_frames(s, zid, pfn, nr)


@inline
def free_frames(s: State, zid: int, pfn: int, nr: int) -> None:
    """Give back frames pfn .. pfn + nr - 1 as if one by one: in aligned blocks of less than a pageblock, the rest is merging."""
    while nr:
        order = 0
        while order < PAGEBLOCK_ORDER - 1 and pfn & (1 << order) == 0 and 2 << order <= nr:
            order += 1
        free_one_page(s, zid, pfn, order)
        pfn += 1 << order
        nr -= 1 << order


@inline
def prefetch_row(s: State, tid: int, slot: int) -> None:
    """The page of this entry comes soon."""
    pte = s.pt[tid, slot & 511]
    if pte & PTE_PRESENT:
        prefetch(s.mem, (pte & PFN_MASK) >> 12, 0)


@inline
def prefetch_neighbours(s: State, tid: int, slot: int) -> None:
    """And what unlinking it writes to: its neighbours on the list."""
    pte = s.pt[tid, slot & 511]
    if pte & PTE_PRESENT:
        page = s.mem[(pte & PFN_MASK) >> 12]
        prefetch(s.mem, page["next"], 0)
        prefetch(s.mem, page["prev"], 0)


@inline
def prefetch_buddies(s: State, tid: int, slot: int) -> None:
    """And what freeing it writes to: its places in the buddy lists, and a little later the neighbours there of a buddy that will be merged."""
    pte = s.pt[tid, (slot + AHEAD) & 511]
    if pte & PTE_PRESENT:
        pfn = (pte & PFN_MASK) >> 12
        for order in range(3):
            prefetch(s.buddy, s.ctl[CTL_BUDDY + order] + (pfn >> order), 0)
    pte = s.pt[tid, slot & 511]
    if pte & PTE_PRESENT:
        link = s.ctl[CTL_BUDDY] + (((pte & PFN_MASK) >> 12) ^ 1)
        if s.buddy[link, 0] > 0:
            prefetch(s.buddy, s.ctl[CTL_BUDDY] + s.buddy[link, 0] - 1, 0)
        if s.buddy[link, 1] > 0:
            prefetch(s.buddy, s.ctl[CTL_BUDDY] + s.buddy[link, 1] - 1, 0)
