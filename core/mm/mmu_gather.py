"""Pages that are unmapped together are freed together (mm/mmu_gather.c, mm/swap.c:release_pages).

A program that wrote its memory in the order of its addresses has its pages in ascending frames, one after the other on the LRU list, of one
cgroup. munmap takes them apart in that order: each leaves the list, is taken off a dozen counters, and goes back to the buddy allocator,
where it merges with the one before, and the pair with the pair before that. `pages_alike` finds such a run in a page table, and
`release_run` frees it as one. The result is the same (a property test compares the digests):

    the LRU list       neighbours leave a gap of one piece: what was before the first and after the last are linked
    the counters       are sums
    the buddy lists    Frames of ascending number that are freed one by one, none of them free before, make the aligned blocks that the run
                       consists of, each when its last frame is freed. On the way smaller blocks are put on lists and taken off again, which
                       leaves no trace. So each block can be freed whole, in ascending order; with what lies free around it, it merges then,
                       as the last frame would have. Frames 5 to 12: 5, 6-7, 8-11, 12.

Pages that were written in random order lie anywhere, and a run is a page; what it costs is waiting for memory: its row, its neighbours' on
the LRU list, its buddies. `prefetch_release` asks for them some entries ahead.

What is not plain (shared with somebody, locked, huge, in the swap cache, of a file) is no run and goes the ordinary way in `zap.zap_pages`.
"""

from __future__ import annotations

from core.abi.page_flags import PG_ACTIVE, PG_ANON, PG_KSM, PG_LRU, PG_MLOCKED, PG_SWAPBACKED, PG_SWAPCACHE, PG_UNEVICTABLE
from core.jit import inline, prefetch, step
from core.mm.compound import PG_COMPOUND
from core.mm.mm_inline import lru_gen_enabled
from core.mm.mm_types import CTL_BUDDY, CTL_FAIL_NTH, MM_ANONPAGES, PAGEBLOCK_ORDER, SECTION_SHIFT, State
from core.mm.page_alloc import clear_page_row, free_one_page, zone_of
from core.mm.page_counter import uncharge
from core.mm.page_ops import stat_add
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, PTE_SPECIAL
from core.mm.swap import lruvec_of, page_lru, update_lru_size
from core.vmstat import NR_ANON_MAPPED

PLAIN = PG_ANON | PG_LRU  # a page of a run has these flags
OTHER = PG_COMPOUND | PG_MLOCKED | PG_UNEVICTABLE | PG_SWAPCACHE | PG_KSM  # and none of these
LIST = PG_ACTIVE | PG_SWAPBACKED  # and these decide on which list it stands
AHEAD = 8  # entries between one stage of prefetching and the next


@step
def may_gather(s: State) -> bool:
    """Are runs looked for? Not where pages stand on the lists of generations.

    And not while the test knob counts allocations, so that both ways can be compared.
    """
    return not lru_gen_enabled(s) and s.ctl[CTL_FAIL_NTH] == 0


@inline
def pages_alike(s: State, tid: int, slot: int, stop: int) -> int:
    """How many entries from `slot` on (before `stop`) map a run of plain pages: ascending frames, neighbours on their list; 0: the first is none."""
    pte = s.pt[tid, slot]
    if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
        return 0
    pfn = (pte & PFN_MASK) >> 12
    first = s.mem[pfn]
    flags, memcg = first["flags"], first["memcg"]
    if flags & (PLAIN | OTHER) != PLAIN or first["refcount"] != 1 or first["mapcount"] != 1:
        return 0
    most, nr = min(stop - slot, (((pfn >> SECTION_SHIFT) + 1) << SECTION_SHIFT) - pfn), 1
    while nr < most:
        pte, page = s.pt[tid, slot + nr], s.mem[pfn + nr]
        if (pte & (PFN_MASK | PTE_SPECIAL)) != (pfn + nr) << 12 or not pte & PTE_PRESENT or page["next"] != pfn + nr - 1:
            break
        if (page["flags"] ^ flags) & (PLAIN | OTHER | LIST) or page["refcount"] != 1 or page["mapcount"] != 1 or page["memcg"] != memcg:
            break
        nr += 1
    return nr


@inline
def release_run(s: State, mm: int, pfn: int, nr: int) -> None:
    """Unmap and free the pages pfn .. pfn + nr - 1, which `pages_alike` found: their entries are empty already."""
    zid, first, last = zone_of(s, pfn), s.mem[pfn], s.mem[pfn + nr - 1]
    memcg, lru = first["memcg"], page_lru(first["flags"])
    lruvec = lruvec_of(s, memcg, s.zones[zid]["node"])
    s.mms[mm]["rss"][MM_ANONPAGES] -= nr
    stat_add(s, zid, memcg, NR_ANON_MAPPED, -nr)
    vec, younger, older = s.lruvecs[lruvec], last["prev"], first["next"]
    if younger:
        s.mem[younger]["next"] = older
    else:
        vec["head"][lru] = older
    if older:
        s.mem[older]["prev"] = younger
    else:
        vec["tail"][lru] = younger
    update_lru_size(s, zid, lruvec, lru, -nr)
    uncharge(s, memcg, nr)
    for one in range(pfn, pfn + nr):
        clear_page_row(s, one)
        s.mem[one]["next"] = 0
        s.mem[one]["prev"] = 0
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
def prefetch_release(s: State, tid: int, slot: int) -> None:
    """Three stages, each of which reads what the one before has fetched: the page's row; its neighbours and its places in the buddy lists; and
    where its buddy is free and will be merged, that one's neighbours."""
    if slot + 3 * AHEAD < 512:
        pte = s.pt[tid, slot + 3 * AHEAD]
        if pte & PTE_PRESENT:
            prefetch(s.mem, (pte & PFN_MASK) >> 12, 0)
    if slot + 2 * AHEAD < 512:
        pte = s.pt[tid, slot + 2 * AHEAD]
        if pte & PTE_PRESENT:
            pfn = (pte & PFN_MASK) >> 12
            prefetch(s.mem, s.mem[pfn]["next"], 0)
            prefetch(s.mem, s.mem[pfn]["prev"], 0)
            for order in range(3):
                prefetch(s.buddy, s.ctl[CTL_BUDDY + order] + (pfn >> order), 0)
    if slot + AHEAD < 512:
        pte = s.pt[tid, slot + AHEAD]
        if pte & PTE_PRESENT:
            link = s.ctl[CTL_BUDDY] + (((pte & PFN_MASK) >> 12) ^ 1)
            if s.buddy[link, 0] > 0:
                prefetch(s.buddy, s.ctl[CTL_BUDDY] + s.buddy[link, 0] - 1, 0)
            if s.buddy[link, 1] > 0:
                prefetch(s.buddy, s.ctl[CTL_BUDDY] + s.buddy[link, 1] - 1, 0)
