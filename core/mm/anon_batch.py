"""First writes in batches: many neighbours in time get their frames at once, and nobody can tell.

A first write to anonymous memory takes the next frame of the buddy lists, charges it, puts it at the head of a list, counts it in a dozen places
and writes one entry. The next first write does the same to the next frame, and so on: of the 50 ns of one fault only the page's own row
and its entry differ. So where nothing can come between, `do_anonymous_pages` makes a run of them as one: the rows and entries one by one,
everything else once.

That is the same, not nearly the same, as one fault after the other (a property test compares the digests), because

    the buddy list     A request of order 0 takes the first block of the smallest order that has one, and hands its upper halves back to
                       lists that are empty, or it would not have come so far up. The next requests take those. So a block's frames go
                       out in ascending order, and what is left of it at any time is one block of each order in the binary number
                       of frames that are left: 1,024 frames less 300 leave blocks of 4, 16, 64, 128 and 512, from below.
    the watermark      Each fault asks for more than the mark; each takes one. A zone with 5,000 free above its mark can serve 5,000.
    the charge         A CPU holds up to 64 pages of a cgroup in advance (`page_counter`): that many are charged already. The one that finds
                       none left goes the long way, which may find a limit.
    rss                What /proc/<pid>/status shows lags behind: every 66th fault hands in what was counted before it (`count_faults`).
    the LRU list       Each page goes before the one before: a chain, whose last page is the new head.

Nothing is decided here. Where the next fault would need a decision or a rare branch (another zone, a theft, a limit, a page table, a locked mapping,
a memory policy, another reclaim policy than the classic one, the knob that makes allocations fail), the batch ends before it and the fault goes
the ordinary way (`fault.do_anonymous_page`).

Source: mm/memory.c:do_anonymous_page, mm/page_alloc.c:rmqueue, expand.
"""

from __future__ import annotations

from core.abi.mman import VM_LOCKED
from core.abi.page_flags import PG_ANON, PG_ANON_EXCLUSIVE, PG_LRU, PG_SWAPBACKED, PG_UPTODATE
from core.jit import inline, prefetch, step
from core.mm.mm_types import (
    CLASSIC,
    CTL_FAIL_NTH,
    CTL_OVER_HIGH,
    CTL_POLICY,
    CTL_RECLAIM_MODE,
    LRU_INACTIVE_ANON,
    MAX_ORDER,
    MIGRATE_MOVABLE,
    MM_ANONPAGES,
    TASK_RSS_EVENTS_THRESH,
    State,
)
from core.mm.page_alloc import add_to_free_list, del_from_free_list, zone_statistics
from core.mm.page_ops import GFP_USER, cpuset_nodes, stat_add, stored
from core.mm.pgtable import PTE_D, PTE_PS, PTE_RW, PTE_SOFT_DIRTY, find_table, table_of
from core.mm.swap import lruvec_of, update_lru_size
from core.vmstat import NR_ANON_MAPPED, PGALLOC_DMA

NEW_ANON = PG_UPTODATE | PG_SWAPBACKED | PG_ANON | PG_ANON_EXCLUSIVE | PG_LRU
AHEAD = 8  # accesses in no order: how far ahead their entries are fetched


@step
def may_batch(s: State, v) -> bool:
    """Is an ordinary first write all that the accesses of this loop can be, where an entry is empty?"""
    plain = v["policy"] == 0 and not v["vm_flags"] & VM_LOCKED and v["mark"] >= 0 and s.ctl[CTL_POLICY] == CLASSIC
    return plain and s.ctl[CTL_RECLAIM_MODE] == 0 and s.ctl[CTL_FAIL_NTH] == 0 and s.ctl[CTL_OVER_HIGH] == 0


@step
def do_anonymous_pages(s: State, v, perm, i: int, permuted: bool) -> int:
    """First writes from access `i` of this loop on, as many as can be made without a decision: how many, perhaps none."""
    v["tried"] = cpuset_nodes(v, GFP_USER, 0)
    preferred = first_zone(s, v)
    zid = zone_with_room(s, v, preferred)
    if zid < 0:
        return 0
    zone, memcg = s.zones[zid], v["memcg"]
    most = min(v["n"] - i, zone["free"] - mark_of(s, zid, v["mark"]))
    if memcg > 0:
        most = min(most, s.stock[v["cpu"], 1] if s.stock[v["cpu"], 0] == memcg else 0)
    lruvec, made = lruvec_of(s, memcg, zone["node"]), 0
    while made < most:
        order = smallest_order(s, zid)
        if order == MAX_ORDER:
            break
        pfn = (zone["head"][MIGRATE_MOVABLE, order] - 1) << order
        wanted = min(1 << order, most - made)
        nr = map_frames(s, v, perm, i + made, permuted, pfn, wanted, s.lruvecs[lruvec]["head"][LRU_INACTIVE_ANON])
        if nr == 0:
            break
        take_frames(s, zid, pfn, order, nr)
        link_chain(s, lruvec, pfn, nr)
        made += nr
        if nr < wanted:
            break
    if made:
        if memcg > 0:
            s.stock[v["cpu"], 1] -= made
        zone_statistics(s, zid, preferred, v["node"], made)
        stat_add(s, zid, memcg, NR_ANON_MAPPED, made)
        update_lru_size(s, zid, lruvec, LRU_INACTIVE_ANON, made)
        count_faults(s, v["mm"], made)
    return made


@inline
def mark_of(s: State, zid: int, mark: int) -> int:
    """How many pages of a zone a user's request leaves alone (zone_watermark_ok)."""
    zone = s.zones[zid]
    return zone["wmark"][mark] + zone["boost"] + zone["lowmem_reserve"][GFP_USER]


@step
def first_zone(s: State, v) -> int:
    """The zone that a request asks first, -1 if it may ask none."""
    for i in range(s.zonelists.shape[1]):
        zid = s.zonelists[v["node"], i]
        if zid < 0 or not v["tried"] or (v["tried"] >> s.zones[zid]["node"]) & 1:
            return zid
    return -1


@step
def zone_with_room(s: State, v, preferred: int) -> int:
    """The first zone above its mark, -1 if there is none."""
    for i in range(s.zonelists.shape[1]):
        zid = s.zonelists[v["node"], i]
        if zid < 0:
            return -1
        if v["tried"] and not (v["tried"] >> s.zones[zid]["node"]) & 1:
            continue
        if s.zones[zid]["free"] > mark_of(s, zid, v["mark"]):
            return zid
    return -1


@inline
def smallest_order(s: State, zid: int) -> int:
    """The order of the block that the next movable frame comes from, MAX_ORDER if there is none."""
    order = 0
    while order < MAX_ORDER and s.zones[zid]["head"][MIGRATE_MOVABLE, order] == 0:
        order += 1
    return order


@step
def map_frames(s: State, v, perm, i: int, permuted: bool, pfn: int, nr: int, older: int) -> int:
    """Map frames pfn, pfn + 1, .. for the accesses from `i` on, at most `nr`, until one is no first write through a table that is there.

    Their rows are linked as a chain from `older`, the head of the list up to now; how many there are.
    """
    start, end, first, step, pgd = v["vm_start"], v["vm_end"], v["first"], v["step"], s.mms[v["mm"]]["pgd"]
    memcg, mapping, offset = v["memcg"], v["anon_vma"], v["vm_pgoff"] - v["vm_start"]
    content, apart = v["content"], 1 if permuted else abs(step)
    bits = v["prot"] | PTE_RW | PTE_D | PTE_SOFT_DIRTY
    block, tid, upper, pmd = -1, 0, -1, 0
    for j in range(nr):
        vpn = first + (perm[i + j] if permuted else (i + j) * step)
        if vpn < start or vpn >= end:
            return j
        if vpn >> 9 != block:
            block = vpn >> 9
            if vpn >> 18 != upper:
                upper = vpn >> 18
                pmd = find_table(s, pgd, vpn, 2)
            entry = s.pt[pmd, block & 511] if pmd else 0
            if entry == 0 or entry & PTE_PS:
                return j
            tid = table_of(s, entry)
        if permuted and i + j + AHEAD < v["n"]:
            soon = first + perm[i + j + AHEAD]
            if soon >> 18 == upper:
                entry = s.pt[pmd, (soon >> 9) & 511]
                if entry:
                    prefetch(s.pt, table_of(s, entry), soon & 511)
        if s.pt[tid, vpn & 511]:
            return j
        s.pt[tid, vpn & 511] = (pfn + j) << 12 | bits
        page = s.mem[pfn + j]
        page["flags"] = NEW_ANON
        page["refcount"] = 1
        page["mapcount"] = 1
        page["memcg"] = memcg
        page["mapping"] = mapping
        page["next"] = pfn + j - 1 if j else older
        page["prev"] = pfn + j + 1
        page["index"] = vpn + offset
        page["content"] = stored(0, content if content != -1 else -1 - (((i + j) * apart + 1) & 255))
    return nr


@inline
def take_frames(s: State, zid: int, pfn: int, order: int, nr: int) -> None:
    """The first `nr` frames of a block leave the allocator; the rest stays as the blocks that `expand` would have made of it."""
    zone = s.zones[zid]
    del_from_free_list(s, zid, order, pfn >> order)
    at, left = pfn + nr, (1 << order) - nr
    for k in range(order):
        if (left >> k) & 1:
            add_to_free_list(s, zid, k, at >> k, MIGRATE_MOVABLE)
            at += 1 << k
    zone["free"] -= nr
    s.vm_event[PGALLOC_DMA + zone["type"]] += nr


@inline
def link_chain(s: State, lruvec: int, pfn: int, nr: int) -> None:
    """Pages pfn .. pfn + nr - 1, chained by `map_frames`, become the youngest of inactive_anon, the last one its head."""
    vec = s.lruvecs[lruvec]
    head = vec["head"][LRU_INACTIVE_ANON]
    if head:
        s.mem[head]["prev"] = pfn
    else:
        vec["tail"][LRU_INACTIVE_ANON] = pfn
    s.mem[pfn + nr - 1]["prev"] = 0
    vec["head"][LRU_INACTIVE_ANON] = pfn + nr - 1


@inline
def count_faults(s: State, mm: int, nr: int) -> None:
    """`nr` faults that each gain an anonymous page: check_sync_rss_stat and count_rss of each, one after the other.

    The task hands its counts in with the fault that finds 65 before it; so the first of these does after 65 - events others, and then every 66th.
    """
    row = s.mms[mm]
    row["rss"][MM_ANONPAGES] += nr
    until = max(0, TASK_RSS_EVENTS_THRESH + 1 - row["events"])
    if nr <= until:
        row["events"] += nr
        row["lag"][MM_ANONPAGES] += nr
        return
    since = (nr - until - 1) % (TASK_RSS_EVENTS_THRESH + 2)  # faults after the last that handed in
    row["events"] = since
    for i in range(4):
        row["lag"][i] = 0
    row["lag"][MM_ANONPAGES] = since + 1
