"""The classic two-list policy as page loops: what is looked at, kept, activated, written, freed (mm/vmscan.c).

    new page ──> inactive head ... inactive tail ──> looked at:
                                                     used since (A bit)?  first time: PG_referenced, once more round
                                                                          second time: to the active list
                                                     not used: anonymous, no slot yet: swap slot, unmapped, written;
                                                               written and clean: freed

An anonymous page that was touched once is thus looked at three times before it is gone: used, keep; not used, write it out
(and put it back); written, free it. 8,247 pages freed by recorded Linux took 32,603 looks: three for each page freed
and one for each of the 7,862 that stayed.

`shrink_list` is the loop, `check_references` the decision per page; `vmscan` says how many of which list.
I/O is finished when the batch of 32 that started it is: the pages go to the tail of the list then (pgrotated). zram has a page when the call
returns: it is freed at once.

A huge page is one entry of a list and a batch of its own: 512 looks at once. Where the swap device gives no 512 slots in a row it is split and its
frames are written one by one, 32 to a request. The disk needs five fourths of the time that reclaim does for a request, so of 512 frames 377 are
written while they are still off the list; only the last 135 are rotated, the others begin a new round at the head, clean. (Of a
second huge page in the same reclaim 270 are rotated, because the disk has those 135 to write first, and so on.) So the next reclaim meets
the next huge page soon: a cgroup of 31 huge pages that needs 17 MiB has all 31 split.
"""

from __future__ import annotations

from core.abi.mman import VM_EXEC, VM_LOCKED
from core.abi.page_flags import (
    PG_ACTIVE,
    PG_ANON,
    PG_DIRTY,
    PG_HEAD,
    PG_KSM,
    PG_LRU,
    PG_MLOCKED,
    PG_PRIVATE,
    PG_REFERENCED,
    PG_SHMEM,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UNEVICTABLE,
    PG_WORKINGSET,
)
from core.jit import inline, njit, prefetch, step
from core.mm.compound import PG_COMPOUND, compound_head, compound_mapcount, page_mapcount, total_mapcount
from core.mm.huge_memory import put_split_head, split_huge_page
from core.mm.looks import begin_look, end_look, note_uses
from core.mm.lru_gen_walk import lru_gen_look_around
from core.mm.mm_inline import REFS_MASK, REFS_SHIFT, lru_gen_add, lru_gen_del, lru_gen_enabled
from core.mm.mm_types import (
    CTL_HUGE_ZERO,
    CTL_NR_NODES,
    CTL_POLICY,
    CTL_TRACE_FREE,
    CTL_TRACE_TABLES,
    HPAGE_PMD_NR,
    LRU_INACTIVE_FILE,
    MGLRU,
    State,
)
from core.mm.page_alloc import zone_of
from core.mm.page_ops import drop_buffers, free_page, remove_from_page_cache, stat_add, xa_leaf
from core.mm.pgtable import PFN_MASK, PTE_A, PTE_PRESENT, PTE_SPECIAL, find_pte_table, find_table, huge_entry
from core.mm.rmap_walk import Rmap, keep_near, page_referenced, pte_table, try_to_unmap
from core.mm.shmem_swap import shmem_writepage
from core.mm.swap import (
    age_nonresident,
    list_add,
    list_add_tail,
    list_del,
    lru_add,
    lru_del,
    lru_pages,
    lruvec_of,
    page_lru,
    update_lru_size,
)
from core.mm.swap_slots import get_swap_cluster, get_swap_page
from core.mm.swap_state import add_to_swap_cache, delete_from_swap_cache, free_swap
from core.mm.swapfile import swap_area, swap_full
from core.mm.workingset import lru_note_cost, nr_swap_pages, workingset_eviction
from core.mm.zram import is_zram, zram_write
from core.vmstat import (
    EVENT,
    MEMCG,
    MEMCG_PGACTIVATE,
    MEMCG_PGDEACTIVATE,
    NODE,
    NR_WRITTEN,
    PGACTIVATE,
    PGDEACTIVATE,
    PGPGOUT,
)

RECLAIM, RECLAIM_CLEAN, KEEP, ACTIVATE = range(4)
# whose pages a batch holds: the classic lists', those named by MADV_PAGEOUT, the multi-gen LRU's, a classroom policy's
BY_LISTS, ADVISED, BY_GENERATIONS, ONE_BY_ONE = range(4)
# what became of a page (gone: free, but by no merit of reclaim; rotated: round the active list once more)
FREED, KEPT, ACTIVATED, WRITTEN, DEACTIVATED, GONE, ROTATED = range(7)

PGSCAN_KSWAPD, PGSTEAL_KSWAPD = EVENT["pgscan_kswapd"], EVENT["pgsteal_kswapd"]
PGSCAN_DIRECT, PGSTEAL_DIRECT = EVENT["pgscan_direct"], EVENT["pgsteal_direct"]
PGSCAN_ANON, PGSTEAL_ANON = EVENT["pgscan_anon"], EVENT["pgsteal_anon"]  # + 1: file
MEMCG_SCAN_KSWAPD, MEMCG_STEAL_KSWAPD = MEMCG["pgscan_kswapd"], MEMCG["pgsteal_kswapd"]  # + 1: direct
PGREFILL, MEMCG_PGREFILL = EVENT["pgrefill"], MEMCG["pgrefill"]
PGROTATED, PSWPOUT, MEMCG_PSWPOUT = EVENT["pgrotated"], EVENT["pswpout"], MEMCG["pswpout"]
PGLAZYFREED, MEMCG_PGLAZYFREED = EVENT["pglazyfreed"], MEMCG["pglazyfreed"]
VMSCAN_WRITE, VMSCAN_IMMEDIATE = NODE["nr_vmscan_write"], NODE["nr_vmscan_immediate_reclaim"]
THP_SWPOUT, THP_SWPOUT_FALLBACK = EVENT["thp_swpout"], EVENT["thp_swpout_fallback"]
SWAP_CLUSTER_MAX = 32


@inline
def check_references(s: State, r: Rmap, pfn: int, target: int) -> int:
    """Was an inactive page used since it was last looked at, and what follows (folio_check_references)."""
    found = page_referenced(s, r, pfn, target)
    note_uses(s, found & 0xFFFF, s.mem[pfn]["flags"] & PG_REFERENCED)
    return judge_references(s, pfn, found & 0xFFFF, found >> 16)


@inline
def judge_references(s: State, pfn: int, young: int, flags: int) -> int:
    """What follows from so many uses through mappings with these flags, and from the look before; PG_referenced remembers this one."""
    page = s.mem[pfn]
    before = page["flags"] & PG_REFERENCED
    page["flags"] &= ~PG_REFERENCED
    file = not page["flags"] & PG_SWAPBACKED
    if flags & VM_LOCKED:
        return ACTIVATE
    if young:
        page["flags"] |= PG_REFERENCED
        if before or young > 1 or (flags & VM_EXEC and file):
            return ACTIVATE
        return KEEP
    return RECLAIM_CLEAN if before and file else RECLAIM


@step
def shrink_page(s: State, r: Rmap, pfn: int) -> int:
    """One isolated page of an inactive list: what becomes of it, written down for those who ask."""
    begin_look(s, pfn)
    fate = shrink_isolated(s, r, pfn)
    end_look(s, fate)
    return fate


@step
def shrink_isolated(s: State, r: Rmap, pfn: int) -> int:
    """One isolated page of an inactive list: freed, or why not (shrink_folio_list's body)."""
    c = s.sc[0]
    page = s.mem[pfn]
    zid = zone_of(s, pfn)
    if page["flags"] & PG_MLOCKED:
        return ACTIVATED
    if not c["may_unmap"] and is_mapped(s, pfn):
        return KEPT
    if lru_gen_enabled(s) and page["flags"] & PG_REFERENCED and is_mapped(s, pfn):
        return KEPT  # promoted while it was in our hands
    references = RECLAIM if s.ctl[CTL_POLICY] > MGLRU else check_references(s, r, pfn, c["target"])
    if references == ACTIVATE:
        return activate(s, zid, pfn)
    if references == KEEP:
        return KEPT
    anon, shmem = page["flags"] & PG_ANON, page["flags"] & PG_SHMEM
    swapbacked = page["flags"] & PG_SWAPBACKED
    if anon and swapbacked and not page["flags"] & PG_SWAPCACHE:
        slot = 0
        if page["flags"] & PG_HEAD:
            slot = add_huge_to_swap(s, r, pfn)
            if slot < 0:
                return activate(s, zid, pfn)
            if c["split"] and page["refcount"] == 0:
                free_page(s, zid, pfn)
                return GONE
        if slot == 0:
            slot = get_swap_page(s, page["memcg"])
        if slot == 0:
            return activate(s, zid, pfn)
        add_to_swap_cache(s, zid, pfn, slot)
        page["flags"] |= PG_DIRTY
    elif shmem and page["flags"] & PG_HEAD:
        if not split_huge_page(s, r, pfn):
            return KEPT
        c["split"] = 1
    if is_mapped(s, pfn) and not try_to_unmap(s, r, zid, pfn):
        return activate(s, zid, pfn)
    nr = lru_pages(page["flags"])
    if page["flags"] & PG_DIRTY and (not anon or swapbacked):
        if not anon and not swapbacked:
            s.node_stat[s.zones[zid]["node"], VMSCAN_IMMEDIATE] += 1
            return activate(s, zid, pfn)
        if not c["may_writepage"]:
            return KEPT
        if shmem:
            inode = page["mapping"]
            if page["refcount"] > 1:
                return KEPT
            if not shmem_writepage(s, zid, pfn, r.file_root[inode]):
                return activate(s, zid, pfn)
            r.file_lost[inode] += 1
        if not write_to_swap(s, zid, pfn):
            return WRITTEN
    if page["flags"] & PG_PRIVATE:
        drop_buffers(s, pfn, c["block_heads"])
    if anon and not swapbacked:
        s.vm_event[PGLAZYFREED] += nr
        s.memcgs[page["memcg"]]["stat"][MEMCG_PGLAZYFREED] += nr
        free_page(s, zid, pfn)
        return FREED
    node = s.zones[zid]["node"]
    if page["flags"] & PG_SWAPCACHE:
        if page["refcount"] > nr:
            return KEPT
        slot = page["private"]
        shadow = workingset_eviction(s, c["target"], node, pfn)
        for i in range(nr):
            s.slots[slot + i]["content"] = s.mem[pfn + i]["content"]
            s.slots[slot + i]["shadow"] = shadow
        delete_from_swap_cache(s, zid, pfn)
        page["refcount"] = 0
        free_page(s, zid, pfn)
        return FREED
    root = r.file_root[page["mapping"]]
    if root == 0 or page["refcount"] > 1:
        return KEPT
    shadow = 0 if shmem else workingset_eviction(s, c["target"], node, pfn)
    r.file_lost[page["mapping"]] += 1
    index = page["index"]
    leaf = xa_leaf(s, root, index)
    remove_from_page_cache(s, zid, leaf, pfn, c["block_heads"])
    s.xa[leaf, index & 511] = shadow
    return FREED


@inline
def is_mapped(s: State, pfn: int) -> bool:
    """Does any entry map the page, or a part of it?"""
    if s.mem[pfn]["flags"] & PG_HEAD:
        return total_mapcount(s, pfn) > 0
    return s.mem[pfn]["mapcount"] > 0


@step
def add_huge_to_swap(s: State, r: Rmap, head: int) -> int:
    """A huge page needs swap: the first of 512 slots in a row; 0: it was split (sc.split), each frame for itself now; -1: it must stay."""
    c = s.sc[0]
    whole = compound_mapcount(s, head) > 0
    if whole:
        if s.mem[head]["refcount"] != total_mapcount(s, head):
            return -1
        slot = get_swap_cluster(s, s.mem[head]["memcg"])
        if slot:
            return slot
    if not split_huge_page(s, r, head):
        return -1
    c["split"] = 1
    if whole:
        s.vm_event[THP_SWPOUT_FALLBACK] += 1
    return 0


@inline
def queue_frames(s: State, batch, at: int, taken: int, head: int) -> int:
    """The frames of a page that was split have their turn next, one by one, before what is left of the batch; its new length."""
    used = 0
    for pfn in range(head + 1, head + HPAGE_PMD_NR):
        if s.mem[pfn]["refcount"] > 0:
            used += 1
    for i in range(taken - 1, at, -1):
        batch[i + used] = batch[i]
    i = at
    for pfn in range(head + 1, head + HPAGE_PMD_NR):
        if s.mem[pfn]["refcount"] > 0:
            i += 1
            batch[i] = pfn
    return taken + used


@inline
def prefetch_page(s: State, pfn: int) -> None:
    """A page's row, which may lie on two cache lines."""
    prefetch(s.mem, pfn, 0)
    prefetch(s.mem, pfn + 1, 0)


@inline
def prefetch_entries(s: State, r: Rmap, taken: int) -> None:
    """The entries of the pages of r.batch, and their slots and shadows, are fetched all at once: a cache miss each otherwise."""
    tables = s.ctl[CTL_TRACE_TABLES]
    for i in range(taken):
        page = s.mem[r.batch[i]]
        if tables:
            prefetch(s.pt, tables + (page["index"] >> 9), page["index"] & 511)
            prefetch(s.xa, tables + (page["index"] >> 9), page["index"] & 511)
        elif page["flags"] & PG_ANON and page["mapcount"] and not page["flags"] & (PG_KSM | PG_HEAD):
            vma = r.vt[r.av_rows[r.av_start[page["mapping"]]]]
            vpn = vma["start"] + page["index"] - vma["pgoff"]
            tid = pte_table(s, r, s.mms[vma["mm"]]["pgd"], vpn) if vpn >= 0 else 0
            if tid:
                prefetch(s.pt, tid, vpn & 511)
        if page["flags"] & PG_SWAPCACHE:
            prefetch(s.slots, page["private"], 0)


@step
def write_to_swap(s: State, zid: int, pfn: int) -> bool:
    """swap_writepage: the slot holds the page's content now. True where the device is done when the call returns (zram: bdev_write_page)."""
    page = s.mem[pfn]
    nr = lru_pages(page["flags"])
    page["flags"] &= ~PG_DIRTY
    kind = swap_area(s, page["private"])
    done = is_zram(s, kind)
    for i in range(nr):
        s.slots[page["private"] + i]["content"] = s.mem[pfn + i]["content"]
        if done:
            zram_write(s, kind, page["private"] + i, s.mem[pfn + i]["content"])
    if nr > 1:
        s.vm_event[THP_SWPOUT] += 1
    s.vm_event[PSWPOUT] += nr
    s.vm_event[PGPGOUT] += 4 * nr
    s.memcgs[page["memcg"]]["stat"][MEMCG_PSWPOUT] += nr
    stat_add(s, zid, page["memcg"], VMSCAN_WRITE, nr)
    stat_add(s, zid, page["memcg"], NR_WRITTEN, nr)
    s.sc[0]["nr_pageout"] += nr
    s.sc[0]["nr_io"] += nr
    return done


@step
def activate(s: State, zid: int, pfn: int) -> int:
    """The page proved useful, or cannot go: to the active list, and its slot is given up if swap is getting full."""
    page = s.mem[pfn]
    if page["flags"] & PG_SWAPCACHE and is_mapped(s, pfn) and swap_full(s, page["memcg"]):
        free_swap(s, zid, pfn)
    if not page["flags"] & PG_MLOCKED:
        nr = lru_pages(page["flags"])
        page["flags"] |= PG_ACTIVE
        s.vm_event[PGACTIVATE] += nr
        s.memcgs[page["memcg"]]["stat"][MEMCG_PGACTIVATE] += nr
    return ACTIVATED


@step
def shrink_traced(s: State, r: Rmap, taken: int, how: int) -> int:
    """`shrink_folio_list` on a machine that replays a trace (`core.replay.frames`): no swap, no files, one mapping, and nobody asks for looks.

    The page's number says where its entry and its shadow are. What may go is gone, its frame is free.
    """
    tables, freed = s.ctl[CTL_TRACE_TABLES], 0
    later = r.batch[taken]
    for i in range(taken):
        later = s.mem[later]["prev"]  # its row was fetched a page ago
        prefetch_page(s, later)
        pfn = r.batch[i]
        page = s.mem[pfn]
        row, slot = tables + (page["index"] >> 9), page["index"] & 511
        fate = look_traced(s, r, pfn, row, slot)
        if fate != FREED:
            putback(s, pfn, fate, how, 1)
            continue
        s.xa[row, slot] = workingset_eviction(s, 0, 0, pfn)
        s.pt[row, slot] = 0
        page["flags"] = 0
        s.gens[pfn] = 0
        page["next"] = s.ctl[CTL_TRACE_FREE]
        s.ctl[CTL_TRACE_FREE] = pfn
        freed += 1
    s.sc[0]["nr_pageout"] += freed
    s.sc[0]["nr_written"] = 0
    return freed


@inline
def look_traced(s: State, r: Rmap, pfn: int, row: int, slot: int) -> int:
    """What becomes of a page whose one entry is there: FREED if it may go."""
    page = s.mem[pfn]
    if lru_gen_enabled(s) and page["flags"] & PG_REFERENCED:
        return KEPT  # promoted while it was in our hands
    if not s.pt[row, slot] & PTE_A:
        page["flags"] &= ~PG_REFERENCED
        return FREED
    if lru_gen_enabled(s):
        lru_gen_look_around(s, s.mms[r.vt[0]["mm"]]["pgd"], row, page["index"], 0, r.vt[0]["end"], 0, pfn)
    s.pt[row, slot] &= ~PTE_A
    return activate(s, 0, pfn) if judge_references(s, pfn, 1, 0) == ACTIVATE else KEPT


@step
def shrink_folio_list(s: State, r: Rmap, taken: int, how: int) -> int:
    """Try to free the first `taken` pages of r.batch, which are on no list: how many were; the others are back on one (shrink_folio_list).

    The page behind them in r.batch is one that is still on a list: those before it come next, so their rows are fetched meanwhile.

    `how`: BY_LISTS and so on, whose pages they are, hence how they are put back. Those that were written stand in r.batch, `sc.nr_written` of them.
    """
    c, batch = s.sc[0], r.batch
    freed, written, i = 0, 0, -1
    keep_near(r, 1)
    prefetch_entries(s, r, taken)
    if s.ctl[CTL_TRACE_TABLES]:
        freed = shrink_traced(s, r, taken, how)
        keep_near(r, 0)
        return freed
    later = batch[taken] if taken < len(batch) else 0
    while i + 1 < taken:
        i += 1
        pfn = batch[i]
        later = s.mem[later]["prev"]  # its row was fetched a page ago
        prefetch_page(s, later)
        nr, flags = lru_pages(s.mem[pfn]["flags"]), s.mem[pfn]["flags"]
        c["split"] = 0
        fate = shrink_page(s, r, pfn)
        if c["split"]:
            nr = 1
            taken = queue_frames(s, batch, i, taken, pfn)
        if fate == FREED:
            freed += nr
        if how == ONE_BY_ONE:
            count_page(s, page_lru(flags), nr, nr if fate == FREED else 0)
        if fate in (FREED, GONE):
            continue
        if fate == WRITTEN and not (how == BY_GENERATIONS and s.mem[pfn]["flags"] & PG_MLOCKED):
            batch[written] = pfn
            written += 1
        putback(s, pfn, fate, how, nr)
    keep_near(r, 0)
    c["nr_written"] = written
    return freed


@inline
def putback(s: State, pfn: int, fate: int, how: int, nr: int) -> None:
    """A page that was not freed is on a list again (move_folios_to_lru); for the multi-gen LRU one that was not written counts as used."""
    page = s.mem[pfn]
    if how != ADVISED and page["flags"] & PG_MLOCKED:
        page["flags"] |= PG_UNEVICTABLE
    elif how == BY_GENERATIONS:
        if fate != WRITTEN:
            page["flags"] = (page["flags"] & ~(PG_REFERENCED | PG_WORKINGSET)) | PG_ACTIVE
            s.gens[pfn] &= ~(REFS_MASK << REFS_SHIFT)
        elif page["flags"] & PG_WORKINGSET:
            page["flags"] |= PG_REFERENCED
    zid = zone_of(s, pfn)
    lru_add(s, zid, pfn)
    if how == BY_LISTS and page["flags"] & PG_ACTIVE:
        age_nonresident(s, lruvec_of(s, page["memcg"], s.zones[zid]["node"]), nr)


@step
def shrink_inactive_list(s: State, r: Rmap, lruvec: int, lru: int, nr: int) -> int:
    """Look at `nr` pages from the tail of an inactive list; how many were freed."""
    c = s.sc[0]
    memcg, file, kswapd = lruvec // s.ctl[CTL_NR_NODES], 1 if lru >= 2 else 0, c["kswapd"]
    taken, pages = 0, 0
    while pages < nr:
        pfn = s.lruvecs[lruvec]["tail"][lru]
        if pfn == 0:
            break
        lru_del(s, zone_of(s, pfn), pfn)
        r.batch[taken] = pfn
        taken += 1
        pages += lru_pages(s.mem[pfn]["flags"])
    r.batch[taken] = s.lruvecs[lruvec]["tail"][lru]
    count_reclaim(s, memcg, file, kswapd, pages, 0)
    if taken == 0:
        return 0
    c["nr_pageout"] = 0
    freed = shrink_folio_list(s, r, taken, BY_LISTS)
    for i in range(written_already(s, c["nr_written"]), c["nr_written"]):
        rotate_reclaimable(s, r.batch[i])
    count_reclaim(s, memcg, file, kswapd, 0, freed)
    if c["nr_pageout"]:
        lru_note_cost(s, lruvec, file, c["nr_pageout"])
    c["nr_scanned"] += pages
    c["list_scanned"][lru] += pages
    c["list_reclaimed"][lru] += freed
    return freed


@inline
def count_page(s: State, lru: int, scanned: int, freed: int) -> None:
    """A page of a classroom policy's, counted by itself: its neighbours may be of the other kind."""
    c = s.sc[0]
    count_reclaim(s, c["memcg"], 1 if lru == LRU_INACTIVE_FILE else 0, c["kswapd"], scanned, freed)
    c["nr_scanned"] += scanned
    c["nr_reclaimed"] += freed
    c["list_scanned"][lru] += scanned
    c["list_reclaimed"][lru] += freed


@inline
def written_already(s: State, written: int) -> int:
    """How many pages of a batch the disk had written before the batch was put back on its list: they are not rotated."""
    c = s.sc[0]
    done = max(0, written * 4 // 5 - c["in_flight"] - SWAP_CLUSTER_MAX)
    c["in_flight"] = written - done
    return done


@inline
def count_reclaim(s: State, memcg: int, file: int, kswapd: int, scanned: int, stolen: int) -> None:
    """pgscan_*, pgsteal_*: by who and by kind for the machine (not by who for a cgroup's limit), by who for the cgroup."""
    direct = 0 if kswapd else 1
    if s.sc[0]["target"] == 0:
        s.vm_event[PGSCAN_KSWAPD + direct] += scanned
        s.vm_event[PGSTEAL_KSWAPD + direct] += stolen
    s.vm_event[PGSCAN_ANON + file] += scanned
    s.vm_event[PGSTEAL_ANON + file] += stolen
    s.memcgs[memcg]["stat"][MEMCG_SCAN_KSWAPD + direct] += scanned
    s.memcgs[memcg]["stat"][MEMCG_STEAL_KSWAPD + direct] += stolen


@step
def rotate_reclaimable(s: State, pfn: int) -> None:
    """Its write is done: to the tail of the inactive list, to be freed at the next look (folio_rotate_reclaimable)."""
    page = s.mem[pfn]
    if not page["flags"] & PG_LRU or page["flags"] & (PG_ACTIVE | PG_UNEVICTABLE):
        return
    lru = page_lru(page["flags"])
    lruvec = lruvec_of(s, page["memcg"], s.zones[zone_of(s, pfn)]["node"])
    s.vm_event[PGROTATED] += lru_pages(page["flags"])
    if lru_gen_enabled(s):
        lru_gen_del(s, zone_of(s, pfn), pfn, True)
        lru_gen_add(s, zone_of(s, pfn), pfn, True)
        return
    list_del(s, lruvec, lru, pfn)
    list_add_tail(s, lruvec, lru, pfn)


@step
def shrink_active_list(s: State, r: Rmap, lruvec: int, lru: int, nr: int) -> None:
    """Move `nr` pages from the tail of an active list to the inactive one; code that is in use stays (shrink_active_list)."""
    c = s.sc[0]
    memcg = lruvec // s.ctl[CTL_NR_NODES]
    taken, deactivated = 0, 0
    keep_near(r, 1)
    while taken < nr:
        pfn = s.lruvecs[lruvec]["tail"][lru]
        if pfn == 0:
            break
        page = s.mem[pfn]
        zid = zone_of(s, pfn)
        pages = lru_pages(page["flags"])
        taken += pages
        if not c["may_unmap"] and is_mapped(s, pfn):
            list_del(s, lruvec, lru, pfn)
            list_add(s, lruvec, lru, pfn)
            continue
        begin_look(s, pfn)
        found = page_referenced(s, r, pfn, c["target"])
        note_uses(s, found & 0xFFFF, page["flags"] & PG_REFERENCED)
        list_del(s, lruvec, lru, pfn)
        if found & 0xFFFF and (found >> 16) & VM_EXEC and not page["flags"] & PG_SWAPBACKED:
            list_add(s, lruvec, lru, pfn)
            age_nonresident(s, lruvec, 1)
            end_look(s, ROTATED)
            continue
        end_look(s, DEACTIVATED)
        update_lru_size(s, zid, lruvec, lru, -pages)
        page["flags"] = page["flags"] & ~(PG_ACTIVE | PG_LRU) | PG_WORKINGSET
        lru_add(s, zid, pfn)
        deactivated += pages
    keep_near(r, 0)
    if c["target"] == 0:
        s.vm_event[PGREFILL] += taken
    s.memcgs[memcg]["stat"][MEMCG_PGREFILL] += taken
    s.vm_event[PGDEACTIVATE] += deactivated
    s.memcgs[memcg]["stat"][MEMCG_PGDEACTIVATE] += deactivated


@inline
def int_sqrt(n: int) -> int:
    """The integer square root."""
    root = 0
    while (root + 1) * (root + 1) <= n:
        root += 1
    return root


@njit
def inactive_is_low(s: State, lruvec: int, lru: int) -> bool:
    """Is an inactive list too short for its active one (inactive_is_low)? The ratio grows with the size: 1 below 1 GiB."""
    tree = s.lruvecs[lruvec]["tree"]
    inactive, active = tree[lru], tree[lru + 1]
    gb = (inactive + active) >> 18
    ratio = int_sqrt(10 * gb) if gb else 1
    return inactive * ratio < active


@step
def get_scan_count(s: State, memcg: int, lruvec: int, nr) -> None:
    """How many pages of each list to look at in this round (get_scan_count); `nr` has four places."""
    c = s.sc[0]
    swappiness, priority = c["swappiness"], c["priority"]
    ap, fp = 1, 1
    anon_only, file_only = False, False
    if not c["may_swap"] or nr_swap_pages(s, memcg) <= 0 or (c["target"] > 0 and swappiness == 0):
        file_only = True
    elif priority == 0 and swappiness:
        pass
    elif c["file_is_tiny"]:
        anon_only = True
    elif c["cache_trim_mode"]:
        file_only = True
    else:
        total = c["anon_cost"] + c["file_cost"]
        anon_cost, file_cost = total + c["anon_cost"], total + c["file_cost"]
        total = anon_cost + file_cost
        ap = swappiness * (total + 1) // (anon_cost + 1)
        fp = (200 - swappiness) * (total + 1) // (file_cost + 1)
    fract = not anon_only and not file_only and not (priority == 0 and swappiness)
    row = s.memcgs[memcg]
    for lru in range(4):
        size = s.lruvecs[lruvec]["nr"][lru]
        scan = size
        if memcg > 0 and memcg != c["target"] and (row["emin"] > 0 or row["elow"] > 0):
            protection = row["emin"]
            if not c["memcg_low_reclaim"] and row["elow"] > row["emin"]:
                protection = row["elow"]
                c["memcg_low_skipped"] = 1
            usage = max(row["usage"], protection)
            scan = max(size - size * protection // (usage + 1), SWAP_CLUSTER_MAX)
        scan >>= priority
        if scan == 0 and row["offline"]:
            scan = min(size, SWAP_CLUSTER_MAX)
        file = lru >= 2
        if fract:
            share = fp if file else ap
            scan = (scan * share + (ap + fp - 1 if row["offline"] else 0)) // (ap + fp)
        elif (file_only and not file) or (anon_only and file):
            scan = 0
        nr[lru] = scan


@njit
def shrink_lruvec(s: State, r: Rmap, memcg: int) -> None:
    """One round over the lists of one cgroup on one node (shrink_lruvec). r.plan: what is left to do of each list, and what there was."""
    c, nr = s.sc[0], r.plan
    lruvec = lruvec_of(s, memcg, c["node"])
    get_scan_count(s, memcg, lruvec, nr)
    for lru in range(4):
        nr[4 + lru] = nr[lru]
    adjusted = c["target"] == 0 and not c["kswapd"] and c["priority"] == 12
    reclaimed = 0
    while nr[0] or nr[2] or nr[3]:
        for lru in range(4):
            if nr[lru] <= 0:
                continue
            count = min(nr[lru], SWAP_CLUSTER_MAX)
            nr[lru] -= count
            if lru & 1:
                if c["may_deactivate"] & (1 << (lru >> 1)):
                    shrink_active_list(s, r, lruvec, lru, count)
                else:
                    c["skipped_deactivate"] = 1
            else:
                reclaimed += shrink_inactive_list(s, r, lruvec, lru, count)
        if reclaimed < c["nr_to_reclaim"] or adjusted:
            continue
        files, anons = nr[2] + nr[3], nr[0] + nr[1]
        if files == 0 or anons == 0:
            break
        smaller = 0 if files > anons else 2
        percentage = (anons if smaller == 0 else files) * 100 // (nr[4 + smaller] + nr[5 + smaller] + 1)
        nr[smaller] = nr[smaller + 1] = 0
        for lru in range(2 - smaller, 4 - smaller):
            done = nr[4 + lru] - nr[lru]
            left = nr[4 + lru] * (100 - percentage) // 100
            nr[lru] = left - min(left, done)
        adjusted = True
    c["nr_reclaimed"] += reclaimed
    if nr_swap_pages(s, memcg) > 0 and inactive_is_low(s, lruvec, 0):
        shrink_active_list(s, r, lruvec, 1, SWAP_CLUSTER_MAX)


@step
def age_active_anon(s: State, r: Rmap, memcg: int) -> None:
    """kswapd gives every cgroup's active anonymous pages a chance to age (kswapd_age_node)."""
    lruvec = lruvec_of(s, memcg, s.sc[0]["node"])
    if inactive_is_low(s, lruvec, 0):
        shrink_active_list(s, r, lruvec, 1, SWAP_CLUSTER_MAX)


@njit
def pageout_range(s: State, r: Rmap) -> None:
    """MADV_PAGEOUT on the pages [vmf.first, vmf.n) that this process alone maps (madvise_cold_or_pageout_pte_range).

    Page table by page table: their uses are forgotten, then they are treated like the tail of an inactive list. `count[0]`: freed.
    """
    v, batch = s.vmf[0], r.batch
    pgd, end = s.mms[v["mm"]]["pgd"], v["n"]
    at = v["first"]
    freed = 0
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        taken = 0
        if tid == 0 and huge_entry(s, pgd, at):
            top = find_table(s, pgd, at, 2)
            head = (s.pt[top, (at >> 9) & 511] & PFN_MASK) >> 12
            if head == s.ctl[CTL_HUGE_ZERO] or total_mapcount(s, head) != 1:
                at = stop
                continue
            if stop - at < HPAGE_PMD_NR:
                if not split_huge_page(s, r, head):
                    at = stop
                continue
            page = s.mem[head]
            if page["flags"] & PG_LRU and not page["flags"] & PG_UNEVICTABLE:
                s.pt[top, (at >> 9) & 511] &= ~PTE_A
                lru_del(s, zone_of(s, head), head)
                page["flags"] &= ~(PG_REFERENCED | PG_ACTIVE)
                batch[0] = head
                taken = 1
        for vpn in range(at, stop if tid else at):
            pte = s.pt[tid, vpn & 511]
            if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
                continue
            pfn = (pte & PFN_MASK) >> 12
            page = s.mem[pfn]
            if page["flags"] & PG_COMPOUND:
                head = compound_head(s, pfn)
                if page_mapcount(s, pfn) != 1 or not split_huge_page(s, r, head):
                    break
                put_split_head(s, head)
            if page["mapcount"] != 1 or not page["flags"] & PG_LRU or page["flags"] & PG_UNEVICTABLE:
                continue
            s.pt[tid, vpn & 511] = pte & ~PTE_A
            lru_del(s, zone_of(s, pfn), pfn)
            page["flags"] &= ~(PG_REFERENCED | PG_ACTIVE)
            batch[taken] = pfn
            taken += 1
        freed += shrink_folio_list(s, r, taken, ADVISED)
        for i in range(s.sc[0]["nr_written"]):
            rotate_reclaimable(s, batch[i])
        at = stop
    v["count"][0] = freed
