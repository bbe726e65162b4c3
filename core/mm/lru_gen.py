"""The multi-gen LRU: reclaim by generations instead of two lists (mm/vmscan.c under CONFIG_LRU_GEN; `mm_inline` has the lists themselves).

The idea. "Active" and "inactive" are two coarse ages, and the age of a page is learnt by asking page by page who maps it. Here pages stand in up
to four *generations*, and time is cut by *aging*: a walk over page tables finds what has been used, promotes it to the
youngest generation, and then a new youngest one begins. Who was not promoted has become one generation older by standing still.
*Eviction* takes from the oldest generation only.

    aging     max_seq + 1; used pages are in the two youngest generations, "active"
    eviction  from min_seq, tail first; the generation is empty: min_seq + 1

        memory of 8,192 pages, all touched, limit reached: generations 0-2 are empty, so min_seq goes to 2; that leaves two, too few
        aging: all are young, stay in 3, a new one, 4, begins. Again too few: aging again, nobody was used since: 3 is the
        oldest of 3, 4, 5: its 8,192 pages are evicted from the tail, 64 at a time

When to age (`should_run_aging`): fewer than three generations, or three and the youngest holds more than half, or the oldest less
than a quarter of all. Anonymous and file pages are aged together; with swap short the file pages' oldest may run ahead.

Uses through read(2) set no A bit. They are counted in the page (its *refs*) and sort a generation's pages into *tiers*: tier 0 for up to two
uses, 1 for two more, ... 3. Eviction always takes tier 0; a higher tier is protected (moved to the next generation) if its pages
came back more often after eviction than those of tier 0: refaulted / (evicted + protected), in this generation and half of all before
it, a controller whose set point is tier 0 (`get_tier_idx`). The same comparison between kinds chooses whether anonymous or file pages go
(`get_type_to_scan`), with swappiness and 200 - swappiness as gains.

    gain 60 : 140 (swappiness 60), both refaulted little: file pages, as long as fewer than 64 came back

`min_ttl_ms`: if even the oldest generation of every cgroup is younger than this, kswapd calls the OOM killer rather than thrash.

Simplified: one walk at a time, at once; batches are settled at once; a page under writeback is never seen (`lru_classic`).

Source: lru_gen_shrink_lruvec, evict_folios, isolate_folios, sort_folio, try_to_inc_max_seq, lru_gen_age_node, lru_gen_change_state;
Documentation/admin-guide/mm/multigen_lru.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.mman import VM_ACCESS, VM_HUGETLB, VM_IO, VM_LOCKED, VM_PFNMAP, VM_RAND_READ, VM_SEQ_READ
from core.abi.page_flags import (
    PG_ANON,
    PG_DIRTY,
    PG_LRU,
    PG_MLOCKED,
    PG_RECLAIM,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_WORKINGSET,
)
from core.jit import inline, njit, prefetch, step
from core.machine import RECLAIM_POLICIES
from core.mm import lru_gen_walk, memcontrol, oom_kill, rmap_walk
from core.mm.lru_classic import BY_GENERATIONS, MEMCG_PGREFILL, PGREFILL, count_reclaim, rotate_reclaimable, shrink_folio_list
from core.mm.lru_gen_walk import MIN_LRU_BATCH
from core.mm.mm_inline import (
    MAX_REFS,
    REFS_MASK,
    REFS_SHIFT,
    gen_list,
    gen_move,
    gen_unlink,
    lru_gen,
    lru_gen_add,
    lru_gen_del,
    lru_gen_update_size,
    lru_pages,
    lru_refs,
    lru_tier,
    lru_type,
    lruvec_of,
    update_lru_size,
)
from core.mm.mm_types import (
    CLASSIC,
    CTL_NR_NODES,
    CTL_POLICY,
    LRU_GEN_ANON,
    LRU_GEN_FILE,
    LRUGEN,
    MAX_NR_GENS,
    MAX_NR_TIERS,
    MGLRU,
    MIN_NR_GENS,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    WMARK_HIGH,
    WMARK_LOW,
    ZONES_PER_NODE,
    State,
)
from core.mm.page_alloc import page_zone as zone_of_page
from core.mm.page_alloc import zone_of
from core.mm.rmap_walk import Rmap
from core.mm.shrink_node import BELOW_LOW, WITHIN, protection
from core.mm.swap import list_del, lru_add
from core.mm.workingset import ACTIVATE_ANON, nr_swap_pages
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import Mm, Vma

MAX_LRU_BATCH = MIN_LRU_BATCH * 64
DEF_PRIORITY = 12
JIFFY = 4_000_000  # ns: HZ=250
BATCH = MIN_LRU_BATCH  # pages that one eviction takes at most
PGSKIP = EVENT["pgskip_dma"]  # + 1 .. 3: the other zones
VISITED, AGE = range(2)  # why a visit to a cgroup ended

# ---------------------------------------------------------------- generations


@njit
def inc_min_seq(s: State, lruvec: int, kind: int, can_swap: int) -> None:
    """The oldest generation is given up: its pages join the next one, at the tail (inc_min_seq)."""
    vec = s.lrugens[lruvec]
    old = vec["min_seq"][kind] % MAX_NR_GENS
    if kind == LRU_GEN_FILE or can_swap:
        for zone in range(ZONES_PER_NODE):
            row = gen_list(old, kind, zone)
            while vec["tail"][row]:
                pfn = vec["tail"][row]
                gen = inc_gen(s, zone_of(s, pfn), lruvec, pfn)
                gen_move(s, zone_of(s, pfn), lruvec, pfn, gen, True)
    reset_ctrl_pos(s, lruvec, kind)
    vec["min_seq"][kind] += 1


@step
def inc_gen(s: State, zid: int, lruvec: int, pfn: int) -> int:
    """A page of the oldest generation goes to the next, its uses forgotten; one that was promoted stays so (folio_inc_gen)."""
    page = s.mem[pfn]
    kind = lru_type(page["flags"])
    old = s.lrugens[lruvec]["min_seq"][kind] % MAX_NR_GENS
    gen = lru_gen(s, pfn)
    if gen != old:
        return gen
    new = (old + 1) % MAX_NR_GENS
    page["flags"] &= ~(PG_REFERENCED | PG_WORKINGSET)
    s.gens[pfn] = (s.gens[pfn] & ~(7 | REFS_MASK << REFS_SHIFT)) | (new + 1)
    lru_gen_update_size(s, zid, lruvec, kind, old, new, lru_pages(page["flags"]))
    return new


@step
def reset_ctrl_pos(s: State, lruvec: int, kind: int) -> None:
    """An oldest generation is done: half of what was counted for it is carried over (reset_ctrl_pos)."""
    vec = s.lrugens[lruvec]
    for at in range(kind * MAX_NR_TIERS, (kind + 1) * MAX_NR_TIERS):
        vec["avg_refaulted"][at] = (vec["avg_refaulted"][at] + vec["refaulted"][at]) // 2
        vec["avg_total"][at] = (vec["avg_total"][at] + vec["evicted"][at] + vec["protected"][at]) // 2
        vec["refaulted"][at] = 0
        vec["evicted"][at] = 0
        vec["protected"][at] = 0


@step
def try_to_inc_min_seq(s: State, lruvec: int, can_swap: int) -> int:
    """Step over oldest generations that are empty, down to two: 1 if there was one (try_to_inc_min_seq)."""
    vec = s.lrugens[lruvec]
    anon, file = vec["min_seq"][LRU_GEN_ANON], vec["min_seq"][LRU_GEN_FILE]
    if can_swap:
        anon = oldest_populated(s, lruvec, LRU_GEN_ANON)
    file = oldest_populated(s, lruvec, LRU_GEN_FILE)
    if can_swap:
        anon = min(anon, file)
        file = max(anon, vec["min_seq"][LRU_GEN_FILE])
    moved = 0
    if can_swap and anon != vec["min_seq"][LRU_GEN_ANON]:
        reset_ctrl_pos(s, lruvec, LRU_GEN_ANON)
        vec["min_seq"][LRU_GEN_ANON] = anon
        moved = 1
    if file != vec["min_seq"][LRU_GEN_FILE]:
        reset_ctrl_pos(s, lruvec, LRU_GEN_FILE)
        vec["min_seq"][LRU_GEN_FILE] = file
        moved = 1
    return moved


@inline
def oldest_populated(s: State, lruvec: int, kind: int) -> int:
    """The oldest generation with pages on its lists, or the second youngest."""
    vec = s.lrugens[lruvec]
    seq = vec["min_seq"][kind]
    while seq + MIN_NR_GENS <= vec["max_seq"]:
        row = gen_list(seq % MAX_NR_GENS, kind, 0)
        if vec["tail"][row] or vec["tail"][row + 1] or vec["tail"][row + 2] or vec["tail"][row + 3]:
            break
        seq += 1
    return seq


@njit
def inc_max_seq(s: State, lruvec: int, can_swap: int, now: int) -> None:
    """A new youngest generation begins; the third youngest stops to count as active (inc_max_seq). `now` in jiffies."""
    vec = s.lrugens[lruvec]
    for kind in range(1, -1, -1):
        if vec["max_seq"] - vec["min_seq"][kind] + 1 == MAX_NR_GENS:
            inc_min_seq(s, lruvec, kind, can_swap)
    before, after = (vec["max_seq"] - 1) % MAX_NR_GENS, (vec["max_seq"] + 1) % MAX_NR_GENS
    first = lruvec % s.ctl[CTL_NR_NODES] * ZONES_PER_NODE
    for kind in range(2):
        for zone in range(ZONES_PER_NODE):
            delta = vec["nr"][gen_list(before, kind, zone)] - vec["nr"][gen_list(after, kind, zone)]
            if delta:
                update_lru_size(s, first + zone, lruvec, 2 * kind, delta)
                update_lru_size(s, first + zone, lruvec, 2 * kind + 1, -delta)
    vec["birth"][after] = now
    vec["max_seq"] += 1


# ---------------------------------------------------------------- the feedback of refaults


@inline
def refaulted(s: State, lruvec: int, at: int) -> int:
    """Pages of a kind and tier that came back: now, and half of before."""
    vec = s.lrugens[lruvec]
    return vec["avg_refaulted"][at] + vec["refaulted"][at]


@inline
def considered(s: State, lruvec: int, at: int) -> int:
    """Pages of a kind and tier that eviction came along."""
    vec = s.lrugens[lruvec]
    return vec["avg_total"][at] + vec["evicted"][at] + vec["protected"][at]


@step
def positive_ctrl_err(s: State, lruvec: int, sp: int, sp_gain: int, pv: int, pv_gain: int) -> bool:
    """Does `pv` (kind * 4 + tier) refault little, or less than the set point `sp` by their gains (positive_ctrl_err)?"""
    back = refaulted(s, lruvec, pv)
    if back < MIN_LRU_BATCH:
        return True
    left = back * (considered(s, lruvec, sp) + MIN_LRU_BATCH) * sp_gain
    return left <= (refaulted(s, lruvec, sp) + 1) * considered(s, lruvec, pv) * pv_gain


@step
def get_tier_idx(s: State, lruvec: int, kind: int) -> int:
    """The last tier of a kind that may be evicted: those above refault more than twice as much as tier 0."""
    first = kind * MAX_NR_TIERS
    tier = 1
    while tier < MAX_NR_TIERS and positive_ctrl_err(s, lruvec, first, 1, first + tier, 2):
        tier += 1
    return tier - 1


@step
def get_type_to_scan(s: State, lruvec: int, swappiness: int) -> int:
    """Anonymous or file pages first, and up to which tier: kind * 4 + tier."""
    kind = 1 if positive_ctrl_err(s, lruvec, 0, swappiness, MAX_NR_TIERS, 200 - swappiness) else 0
    own = 200 - swappiness if kind else swappiness
    other = (1 - kind) * MAX_NR_TIERS
    tier = 1
    while tier < MAX_NR_TIERS and positive_ctrl_err(s, lruvec, other, 200 - own, kind * MAX_NR_TIERS + tier, own):
        tier += 1
    return kind * MAX_NR_TIERS + tier - 1


# ---------------------------------------------------------------- eviction


@inline
def sort_page(s: State, zid: int, lruvec: int, pfn: int, tier_idx: int) -> bool:
    """A page at the tail that is not to be taken: put where it belongs (sort_folio)."""
    page = s.mem[pfn]
    flags = page["flags"]
    kind, gen, refs = lru_type(flags), lru_gen(s, pfn), lru_refs(s, pfn)
    tier = lru_tier(refs)
    vec = s.lrugens[lruvec]
    if flags & PG_MLOCKED:
        return False
    if kind == LRU_GEN_FILE and flags & PG_ANON and flags & PG_DIRTY:  # given up by MADV_FREE, written since
        lru_gen_del(s, zid, pfn, True)
        page["flags"] |= PG_SWAPBACKED
        lru_gen_add(s, zid, pfn, True)
        return True
    if gen != vec["min_seq"][kind] % MAX_NR_GENS:  # promoted
        gen_move(s, zid, lruvec, pfn, gen, False)
        return True
    if tier > tier_idx or refs == MAX_REFS + 1:  # protected
        gen_move(s, zid, lruvec, pfn, inc_gen(s, zid, lruvec, pfn), True)
        nr = lru_pages(flags)
        vec["protected"][kind * MAX_NR_TIERS + tier] += nr
        s.node_stat[s.zones[zid]["node"], ACTIVATE_ANON + kind] += nr
        s.memcgs[page["memcg"]]["stat"][ACTIVATE_ANON + kind] += nr
        return True
    if kind == LRU_GEN_FILE and flags & PG_DIRTY:  # waits for the flusher
        gen_move(s, zid, lruvec, pfn, inc_gen(s, zid, lruvec, pfn), False)
        page["flags"] |= PG_RECLAIM
        return True
    return False


@inline
def isolate_page(s: State, lruvec: int, row: int, pfn: int) -> bool:
    """Take a page off its list to try it (isolate_folio); sizes are the caller's."""
    page = s.mem[pfn]
    c = s.sc[0]
    if not c["may_unmap"] and page["mapcount"] > 0:
        return False
    if not c["may_writepage"] and (page["flags"] & PG_DIRTY or page["flags"] & (PG_ANON | PG_SWAPCACHE) == PG_ANON):
        return False
    if not page["flags"] & PG_REFERENCED:
        s.gens[pfn] &= ~(REFS_MASK << REFS_SHIFT)
        page["flags"] &= ~PG_WORKINGSET
    page["flags"] &= ~(PG_RECLAIM | PG_REFERENCED | PG_LRU)
    gen_unlink(s, lruvec, row, pfn)
    s.gens[pfn] &= REFS_MASK << REFS_SHIFT
    return True


@step
def scan_pages(s: State, lruvec: int, kind: int, tier: int, batch) -> int:
    """Come along the oldest generation of a kind: sort pages or take them; `sc.gen_scanned` pages were looked at (scan_folios).

    Answers how many stand in `batch`.
    """
    c, vec = s.sc[0], s.lrugens[lruvec]
    nodes = s.ctl[CTL_NR_NODES]
    c["gen_scanned"] = 0
    if vec["max_seq"] - vec["min_seq"][kind] + 1 == MIN_NR_GENS:
        return 0
    remaining, scanned, ordered, taken, isolated = MAX_LRU_BATCH, 0, 0, 0, 0
    oldest = vec["min_seq"][kind] % MAX_NR_GENS
    for zone in range(ZONES_PER_NODE - 1, -1, -1):
        row, zid, before = gen_list(oldest, kind, zone), lruvec % nodes * ZONES_PER_NODE + zone, isolated
        skipped, first_skipped, pfn = 0, 0, vec["tail"][row]
        while pfn and pfn != first_skipped and remaining and max(isolated, skipped) < BATCH:
            later, gen, nr = s.mem[pfn]["prev"], lru_gen(s, pfn), lru_pages(s.mem[pfn]["flags"])
            prefetch(s.mem, later, 0)
            remaining -= 1
            scanned += nr
            if sort_page(s, zid, lruvec, pfn, tier):
                ordered += nr
            elif isolate_page(s, lruvec, row, pfn):
                batch[taken] = pfn
                taken += 1
                isolated += nr
                if gen != oldest:  # locked in memory, so it was not sorted
                    lru_gen_update_size(s, zid, lruvec, kind, gen, oldest, nr)
            else:
                gen_move(s, zid, lruvec, pfn, oldest, False)
                first_skipped = first_skipped if skipped else pfn
                skipped += nr
            pfn = later
        if pfn:
            batch[taken] = pfn
        if isolated > before:
            lru_gen_update_size(s, zid, lruvec, kind, oldest, -1, isolated - before)
        s.vm_event[PGSKIP + zone] += skipped
    count_reclaim(s, lruvec // nodes, kind, c["kswapd"], isolated, 0)
    if c["target"] == 0:
        s.vm_event[PGREFILL] += ordered
    s.memcgs[lruvec // nodes]["stat"][MEMCG_PGREFILL] += ordered
    c["gen_scanned"] = scanned if taken or remaining == 0 else 0
    c["nr_scanned"] += isolated
    c["list_scanned"][2 * kind] += isolated
    return taken


@step
def evict_pages(s: State, r: Rmap, lruvec: int, swappiness: int) -> int:
    """Take up to 64 pages of one kind and try to free them: how many pages were looked at (evict_folios)."""
    c, vec = s.sc[0], s.lrugens[lruvec]
    anon_min, file_min = vec["min_seq"][LRU_GEN_ANON], vec["min_seq"][LRU_GEN_FILE]
    tier = -1
    if swappiness == 0:
        kind = LRU_GEN_FILE
    elif anon_min < file_min or swappiness == 200:
        kind = LRU_GEN_ANON
    elif swappiness == 1:
        kind = LRU_GEN_FILE
    else:
        both = get_type_to_scan(s, lruvec, swappiness)
        kind, tier = both // MAX_NR_TIERS, both % MAX_NR_TIERS
    taken = 0
    for attempt in range(2 if swappiness else 1):
        if attempt:
            kind, tier = 1 - kind, -1
        if tier < 0:
            tier = get_tier_idx(s, lruvec, kind)
        taken = scan_pages(s, lruvec, kind, tier, r.batch)
        if c["gen_scanned"]:
            break
    can_swap = 1 if swappiness else 0
    scanned = c["gen_scanned"] + try_to_inc_min_seq(s, lruvec, can_swap)
    if vec["max_seq"] - vec["min_seq"][1 - can_swap] + 1 == MIN_NR_GENS:
        scanned = 0
    if taken == 0:
        return scanned
    freed = shrink_folio_list(s, r, taken, BY_GENERATIONS)
    for i in range(c["nr_written"]):
        rotate_reclaimable(s, r.batch[i])
    c["nr_reclaimed"] += freed
    c["list_reclaimed"][2 * kind] += freed
    count_reclaim(s, lruvec // s.ctl[CTL_NR_NODES], kind, c["kswapd"], 0, freed)
    if kind == LRU_GEN_ANON:
        c["need_swapping"] = 1
    return scanned


@step
def should_run_aging(s: State, lruvec: int, can_swap: int) -> bool:
    """Is there too little to evict from, or are too many pages young (should_run_aging)?"""
    vec = s.lrugens[lruvec]
    max_seq, oldest = vec["max_seq"], vec["min_seq"][1 - can_swap]
    old, young, total = 0, 0, 0
    for kind in range(1 - can_swap, 2):
        for seq in range(vec["min_seq"][kind], max_seq + 1):
            row = gen_list(seq % MAX_NR_GENS, kind, 0)
            size = vec["nr"][row] + vec["nr"][row + 1] + vec["nr"][row + 2] + vec["nr"][row + 3]
            total += size
            if seq == max_seq:
                young += size
            elif seq + MIN_NR_GENS == max_seq:
                old += size
    s.sc[0]["gen_total"] = total
    if oldest + MIN_NR_GENS > max_seq:
        return True
    if oldest + MIN_NR_GENS < max_seq:
        return False
    return young * MIN_NR_GENS > total or old * (MIN_NR_GENS + 2) < total


@inline
def get_swappiness(s: State, memcg: int) -> int:
    """The sysctl, or 0 where swap has no room for a batch."""
    return s.sc[0]["swappiness"] if nr_swap_pages(s, memcg) >= MIN_LRU_BATCH else 0


@step
def should_abort_scan(s: State, lruvec: int) -> bool:
    """Enough for this visit (should_abort_scan)?"""
    c = s.sc[0]
    if not c["kswapd"]:
        if s.lrugens[lruvec]["max_seq"] - c["start_seq"] > 1:
            return True
        if c["nr_reclaimed"] >= c["nr_to_reclaim"] and c["need_swapping"]:
            return True
        if c["target"] > 0:
            return False
    elif c["nr_reclaimed"] < c["nr_to_reclaim"]:
        return False
    if c["priority"] > DEF_PRIORITY - 2:
        return False
    mark = WMARK_HIGH if c["kswapd"] else WMARK_LOW
    first = lruvec % s.ctl[CTL_NR_NODES] * ZONES_PER_NODE
    for zid in range(first, first + ZONES_PER_NODE):
        zone = s.zones[zid]
        if zone["managed"] and zone["wmark"][mark] + zone["boost"] > zone["free"]:
            return False
    c["nr_reclaimed"] += MIN_LRU_BATCH  # so that whoever asked stops, too
    return True



@njit
def visit(s: State, r: Rmap, memcg: int, aged: int) -> int:
    """Evict from a cgroup's lists on a node until the share of this round is done (lru_gen_shrink_lruvec).

    Answers AGE where a new generation is needed first; then it is called again with `aged` 1 if there is one, else -1; 0: the first call.
    """
    c = s.sc[0]
    lruvec = lruvec_of(s, memcg, c["node"])
    if aged == 0:
        c["walk"], c["start_seq"] = c["kswapd"], s.lrugens[lruvec]["max_seq"]
        c["need_swapping"], c["visited"] = 0, 0
    while True:
        swappiness = get_swappiness(s, memcg)
        if not c["may_swap"]:
            swappiness = 1 if swappiness and c["target"] == 0 else 0
        c["can_swap"] = 1 if swappiness else 0
        answer = get_nr_to_scan(s, lruvec, aged)
        aged = 0
        if answer < 0:
            return AGE
        if answer == 0:
            return VISITED
        scanned = evict_pages(s, r, lruvec, swappiness)
        if scanned == 0:
            return VISITED
        c["visited"] += scanned
        if c["visited"] >= answer or should_abort_scan(s, lruvec):
            return VISITED


@step
def get_nr_to_scan(s: State, lruvec: int, aged: int) -> int:
    """The cgroup's share of this round, 0 if it cannot give any; -1 to have it aged first (get_nr_to_scan)."""
    c = s.sc[0]
    offline = s.memcgs[lruvec // s.ctl[CTL_NR_NODES]]["offline"]
    need = should_run_aging(s, lruvec, c["can_swap"])
    share = c["gen_total"] if offline else c["gen_total"] >> c["priority"]
    if aged > 0:
        return share
    c["need_aging"] = 1 if need else 0
    if not need:
        return share
    if c["priority"] < DEF_PRIORITY and aged == 0:
        return 0 if c["kswapd"] else -1
    vec = s.lrugens[lruvec]
    return share if vec["min_seq"][1 - c["can_swap"]] + MIN_NR_GENS <= vec["max_seq"] else 0


@njit
def needs_aging(s: State, lruvec: int, can_swap: int) -> bool:
    """`should_run_aging`, callable from Python; `sc.gen_total` is the number of pages."""
    return should_run_aging(s, lruvec, can_swap)


@njit
def swappiness_of(s: State, memcg: int) -> int:
    """`get_swappiness`, callable from Python."""
    return get_swappiness(s, memcg)


# ---------------------------------------------------------------- the hooks


def isolate(k: Kernel, r: Rmap, memcg: int) -> None:
    """One visit of reclaim to a cgroup's lists on a node, with new generations where they are needed."""
    s, c = k.s, k.s.sc[0]
    before, aged = int(c["nr_reclaimed"]), 0
    while visit(s, r, memcg, aged) == AGE:
        aged = 1 if try_to_inc_max_seq(k, memcg, int(c["node"]), int(c["can_swap"])) else -1
        c["walk"] = 1
    if c["kswapd"] and int(c["nr_reclaimed"]) - before >= MIN_LRU_BATCH and not c["need_aging"]:
        k.kswapd[int(c["node"])]["need_aging"] = False


def age(k: Kernel, node: int) -> None:
    """kswapd ages the cgroups that need it, the first round excepted; min_ttl_ms may call the OOM killer (lru_gen_age_node)."""
    state = k.kswapd[node]
    if not state["need_aging"]:
        state["need_aging"] = True
        return
    ttl = k.lru_gen["min_ttl_ms"] * 1_000_000 // JIFFY
    aged = [age_lruvec(k, at, node, ttl) for at in memcontrol.reclaim_order(k, k.root_cgroup)]
    if ttl and not any(aged):
        oom_kill.out_of_memory(k, None, "GFP_KERNEL", 0)


def age_lruvec(k: Kernel, cg: Cgroup, node: int, ttl: int) -> bool:
    """One cgroup: True if it may be reclaimed, being neither protected nor younger than `ttl` jiffies (age_lruvec)."""
    s, c = k.s, k.s.sc[0]
    standing = int(protection(s, rmap_walk.tables(k), cg.id, False))
    if standing == BELOW_LOW:
        memcontrol.memcg_event(k, cg, "low")
    elif standing == WITHIN:
        return False
    lruvec = cg.id * k.nr_nodes + node
    can_swap = int(swappiness_of(s, cg.id) > 0)
    need = needs_aging(s, lruvec, can_swap)
    if ttl:
        vec = s.lrugens[lruvec]
        if int(vec["birth"][int(vec["min_seq"][LRU_GEN_FILE]) % MAX_NR_GENS]) + ttl > k.clock.now // JIFFY:
            return False
        if int(c["gen_total"]) >> int(c["priority"]) == 0 and int(c["priority"]) != DEF_PRIORITY:
            return False
    if need:
        try_to_inc_max_seq(k, cg.id, node, can_swap)
    return True


def try_to_inc_max_seq(k: Kernel, memcg: int, node: int, can_swap: int, *, force: bool = False) -> bool:
    """Age a cgroup on a node: walk the page tables of its processes, then begin a new generation (try_to_inc_max_seq)."""
    s, lruvec = k.s, memcg * k.nr_nodes + node
    seq = int(s.lrugens["max_seq"][lruvec])
    if force or k.lru_gen["mm_walk"]:
        fresh = False
        for mm, new in mm_list(k, memcg, node, can_swap, force):
            if not fresh:
                lru_gen_walk.reset_bloom_filter(s, lruvec, seq + 1)
                fresh = True
            pgd = int(s.mms["pgd"][mm.id])
            ranges = np.array([(pgd, vma.start, vma.end) for vma in mm.vmas if worth_a_walk(vma, can_swap)], np.int64).reshape(-1, 3)
            lru_gen_walk.walk_mm(s, lruvec, seq, can_swap, int(new), ranges)
    inc_max_seq(s, lruvec, can_swap, k.clock.now // JIFFY)
    return True


def mm_list(k: Kernel, memcg: int, node: int, can_swap: int, force: bool) -> Iterator[tuple[Mm, bool]]:
    """The address spaces to walk, and whether wholly: those that ran since the last walk and are not tiny (should_skip_mm)."""
    rows, bit = k.s.mms, 1 << node
    for mm in k.mms.values():
        row = rows[mm.id]
        if int(row["memcg"]) != memcg:
            continue
        new, used = bool(int(row["new"]) & bit) or force, int(row["used"]) & bit
        row["new"], row["used"] = int(row["new"]) & ~bit, int(row["used"]) & ~bit
        size = int(row["rss"][MM_FILEPAGES])
        if can_swap:
            size += int(row["rss"][MM_ANONPAGES]) + int(row["rss"][MM_SHMEMPAGES])
        if (new or used) and size >= MIN_LRU_BATCH:
            yield mm, new


def worth_a_walk(vma: Vma, can_swap: int) -> bool:
    """Can the mapping hold pages that are reclaimed, and does its use say anything about them (should_skip_vma)?"""
    if not vma.flags & VM_ACCESS or vma.flags & (VM_LOCKED | VM_IO | VM_PFNMAP | VM_SEQ_READ | VM_RAND_READ) or vma.special:
        return False
    if vma.file is None:
        return bool(can_swap)
    return not vma.flags & VM_HUGETLB and (bool(can_swap) or not vma.file.shmem)


# ---------------------------------------------------------------- the switch


def init_lruvec(k: Kernel, lruvec: int) -> None:
    """A new cgroup's generations: 0 to 3, empty, born now (lru_gen_init_lruvec)."""
    row = k.s.lrugens[lruvec : lruvec + 1]
    row[:] = np.zeros(1, LRUGEN)
    row["max_seq"], row["birth"] = MIN_NR_GENS + 1, k.clock.now // JIFFY
    k.s.blooms[lruvec] = 0


def is_on(k: Kernel) -> bool:
    """Is it the policy in force?"""
    return bool(k.lru_gen["on"])


def change_state(k: Kernel, enabled: bool) -> None:
    """Every page changes its list, none is lost (lru_gen_change_state)."""
    if enabled == is_on(k):
        return
    k.s.ctl[CTL_POLICY], k.lru_gen["on"] = MGLRU if enabled else fallback(k), int(enabled)
    for cg in k.cgroups.values():
        for node in range(k.nr_nodes):
            (fill_evictable if enabled else drain_evictable)(k.s, cg.id * k.nr_nodes + node)
    if not enabled:
        k.s.gens[:] = 0


def fallback(k: Kernel) -> int:
    """The policy that is in force when the multi-gen LRU is switched off: the machine's own, if that is another."""
    own = RECLAIM_POLICIES.index(k.machine.reclaim_policy)
    return CLASSIC if own == MGLRU else own


@njit
def fill_evictable(s: State, lruvec: int) -> None:
    """The four lists become generations: active pages join the youngest, and so on as their flags say."""
    for lru in range(4):
        while s.lruvecs[lruvec]["head"][lru]:
            pfn = s.lruvecs[lruvec]["head"][lru]
            zid = zone_of(s, pfn)
            list_del(s, lruvec, lru, pfn)
            update_lru_size(s, zid, lruvec, lru, -lru_pages(s.mem[pfn]["flags"]))
            lru_gen_add(s, zid, pfn, False)


@njit
def drain_evictable(s: State, lruvec: int) -> None:
    """Generations become lists again: the two youngest are the active pages."""
    for row in range(MAX_NR_GENS * 2 * ZONES_PER_NODE):
        while s.lrugens[lruvec]["head"][row]:
            pfn = s.lrugens[lruvec]["head"][row]
            zid = zone_of(s, pfn)
            lru_gen_del(s, zid, pfn, False)
            lru_add(s, zid, pfn)


def describe(k: Kernel, pfn: int) -> dict[str, Any]:
    """A page's generation, how many are younger, whether it counts as active, its refs and tier."""
    page, code = k.s.mem[pfn], int(k.s.gens[pfn])
    lruvec = int(page["memcg"]) * k.nr_nodes + int(k.s.zones["node"][int(zone_of_page(k.s, pfn))])
    newest = int(k.s.lrugens["max_seq"][lruvec])
    younger = (newest - (code & 7) + 1) % MAX_NR_GENS
    refs = (code >> REFS_SHIFT & REFS_MASK) + bool(int(page["flags"]) & PG_WORKINGSET)
    return {"generation": newest - younger, "age": younger, "active": younger < MIN_NR_GENS, "refs": refs, "tier": refs.bit_length()}


# ---------------------------------------------------------------- the administrator's commands


def run_aging(k: Kernel, memcg: int, node: int, seq: int, can_swap: int, force: bool) -> None:
    """`+ memcg node seq [can_swap [force_scan]]`: a new generation after `seq` (run_aging). FsError-worthy SysErrors: EINVAL, ERANGE."""
    vec = k.s.lrugens[memcg * k.nr_nodes + node]
    max_seq = int(vec["max_seq"])
    if seq < max_seq:
        return
    if seq > max_seq:
        raise SysError(Errno.EINVAL, f"the youngest generation is {max_seq}")
    if not force and int(vec["min_seq"][1 - can_swap]) + MAX_NR_GENS - 1 <= max_seq:
        raise SysError(Errno.ERANGE, "there are four generations already")
    try_to_inc_max_seq(k, memcg, node, can_swap, force=force)


def run_eviction(k: Kernel, memcg: int, node: int, seq: int, swappiness: int, nr: int) -> None:
    """`- memcg node seq [swappiness [nr]]`: evict the generations up to `seq` (run_eviction)."""
    s, lruvec = k.s, memcg * k.nr_nodes + node
    if seq + MIN_NR_GENS > int(s.lrugens["max_seq"][lruvec]):
        raise SysError(Errno.EINVAL, "the two youngest generations cannot be evicted")
    c, r = s.sc[0], rmap_walk.tables(k)
    while seq >= int(s.lrugens["min_seq"][lruvec][int(not swappiness)]) and int(c["nr_reclaimed"]) < nr:
        if evict(s, r, lruvec, swappiness) == 0:
            break
    rmap_walk.settle(k)


@njit
def evict(s: State, r: Rmap, lruvec: int, swappiness: int) -> int:
    """`evict_pages`, callable from Python."""
    return evict_pages(s, r, lruvec, swappiness)
