"""A trace through the kernel's own lists: a machine of nothing but frames, one page table and a policy.

The columns are those of every machine (`mm_types.State`), filled with the least that reclaim needs: one node, one cgroup, one
address space whose pages are numbered 0, 1, 2, …, and `frames` frames for them. An access whose entry is present sets its A bit; one that
is not is a *fault* and takes a free frame; when there is none the policy is asked, by the very hooks that reclaim of a session uses
(`policy`): the classic lists, the generations of the multi-gen LRU, and the classroom's policies.

CLOCK alone does not count the access that brings a page in as a use: so it is defined for traces, and cache simulators agree.

Two things differ from a session, so that a trace of millions of accesses takes a fraction of a second: a page that may go is
dropped on the spot (`lru_classic.shrink_traced`), without swap; and classic and mglru, which free up to 32 pages at a time, aim at no more
than a sixteenth of the frames. What remains of an access is a load and a store: that of its entry, found by the page's number alone.

    pages 0 .. 511 ──> table 1        frames 1 .. n: the pages'       xa, row by table: the shadow that an evicted page left
"""

from __future__ import annotations

import numpy as np

from core.abi.page_flags import PG_ANON, PG_LRU, PG_SWAPBACKED, PG_UPTODATE
from core.arena import arena
from core.jit import inline, njit, prefetch, step
from core.mm import lru_gen
from core.mm.classroom import any_page, clock, fifo, lru
from core.mm.lru_classic import inactive_is_low, shrink_lruvec
from core.mm.lru_gen_walk import reset_bloom_filter, walk_mm
from core.mm.mm_types import (
    BLOOM_WORDS,
    CC,
    CLASSIC,
    CLOCK,
    CTL_IN_LRU_FAULT,
    CTL_MAX_PFN,
    CTL_NR_NODES,
    CTL_POLICY,
    CTL_RANDOM,
    CTL_SWAP_FREE,
    CTL_SWAP_TOTAL,
    CTL_TRACE_FREE,
    CTL_TRACE_TABLES,
    FIFO,
    KSM,
    KSM_ITEM,
    KSM_NODE,
    LOOK,
    LRU,
    LRU_INACTIVE_ANON,
    LRUGEN,
    LRUVEC,
    MEMCG,
    MM,
    NR_CTL,
    NR_LOOKS,
    PAGE,
    PAGEBLOCK_ORDER,
    RUN,
    SC,
    SECTION_SHIFT,
    SLOT,
    SLOTS_CACHE,
    SWAP,
    VMF,
    ZONE,
    ZONES_PER_NODE,
    Array,
    State,
)
from core.mm.pgtable import PFN_MASK, PTE_A, PTE_P, TABLE_ENTRY
from core.mm.rmap_walk import VT, Rmap, room
from core.mm.swap import folio_add_lru, list_add, list_del, move_to_front
from core.mm.workingset import ACTIVATE_ANON, workingset_refault
from core.vmstat import EVENTS, NODE_STATS, NUMA_STATS

SWAP_CLUSTER_MAX = 32
DEF_PRIORITY = 12
AHEAD = 24  # accesses: how far ahead their entries are fetched
ANON_VMA = 1  # the number of the one anchor of reverse mapping


def machine(pages: int, frames: int, policy: int, seed: int) -> tuple[State, Rmap, Array]:
    """A machine for pages 0 .. `pages` - 1 with `frames` frames: its columns, the way back from a frame to its entry, what aging walks."""
    leaves = -(-pages // 512)
    middles = -(-leaves // 512)
    tables = leaves + middles + 2  # and a PUD table and the PGD: up to 2^27 pages
    rows = frames + tables + 1
    s = State(
        mem=arena((rows,), PAGE), pt=arena((tables + 1, 512), "i8"), xa=arena((tables + 1, 512), "i8"), buddy=arena((1, 2), "i4"),
        pageblocks=arena(((rows >> PAGEBLOCK_ORDER) + 2,), "i1"),
        zones=arena((ZONES_PER_NODE,), ZONE), sections=arena(((rows >> SECTION_SHIFT) + 1,), "i2"), zonelists=arena((1, 3), "i8"),
        lruvecs=arena((1,), LRUVEC), memcgs=arena((1,), MEMCG), mms=arena((2,), MM), node_stat=arena((1, len(NODE_STATS)), "i8"),
        numa_stat=arena((ZONES_PER_NODE, len(NUMA_STATS)), "i8"), vm_event=arena((len(EVENTS),), "i8"), stock=arena((1, 2), "i8"),
        ctl=arena((NR_CTL,), "i8"), vmf=arena((1,), VMF), runs=arena((1,), RUN), slots=arena((1,), SLOT), swaps=arena((1,), SWAP),
        slot_caches=arena((1,), SLOTS_CACHE), sc=arena((1,), SC), cc=arena((1,), CC),
        looks=arena((NR_LOOKS,), LOOK), ksm=arena((1,), KSM), ksm_items=arena((1,), KSM_ITEM),
        ksm_nodes=arena((1,), KSM_NODE), gens=arena((rows,), "i1"), lrugens=arena((1,), LRUGEN), blooms=arena((1, 2, BLOOM_WORDS), "i8"),
        stamps=arena((rows,), "i8"),
    )  # fmt: skip
    s.ctl[CTL_NR_NODES], s.ctl[CTL_POLICY], s.ctl[CTL_MAX_PFN], s.ctl[CTL_TRACE_TABLES] = 1, policy, frames + 1, 1
    s.ctl[CTL_RANDOM], s.ctl[CTL_IN_LRU_FAULT] = seed * 2654435761 + 88172645463325252 & (1 << 62) - 1 or 1, 1
    s.zones["managed"][0] = s.zones["spanned"][0] = rows
    s.ctl[CTL_SWAP_FREE] = s.ctl[CTL_SWAP_TOTAL] = 1 << 40  # what goes away has somewhere to go
    s.lrugens["max_seq"][0] = 3
    s.mem["next"][1:frames] = np.arange(2, frames + 1)
    s.ctl[CTL_TRACE_FREE] = 1
    _hang_tables(s, frames, leaves, middles)
    none = np.zeros(1, np.int64)
    starts = np.array([0, 0, 1], np.int64)
    r = Rmap(np.array([(1, 0, pages, 0, 0)], VT), starts, none, np.zeros(2, np.int64), none, none, none, none, none, *room())
    return s, r, np.array([(s.mms["pgd"][1], 0, pages)], np.int64)


def _hang_tables(s: State, frames: int, leaves: int, middles: int) -> None:
    """Table rows 1 .. are the leaves, then the middles, the PUD table, the PGD; each has a frame behind the pages' frames."""
    rows = np.arange(1, leaves + middles + 3)
    s.mem["private"][frames + rows] = rows
    entries = (frames + rows) << 12 | TABLE_ENTRY
    for row in range(middles):
        below = entries[row * 512 : min((row + 1) * 512, leaves)]
        s.pt[leaves + 1 + row, : len(below)] = below
    pud, pgd = leaves + middles + 1, leaves + middles + 2
    s.pt[pud, :middles] = entries[leaves : leaves + middles]
    s.pt[pgd, 0] = entries[leaves + middles]
    s.mms["pgd"][1] = pgd


@njit
def replay(s: State, r: Rmap, trace, ranges, entries, shadows) -> int:
    """Make the accesses of a trace; how many faulted. `entries`, `shadows`: s.pt and s.xa from the first page on, by its number."""
    faults = 0
    policy = s.ctl[CTL_POLICY]
    for i in range(len(trace)):
        if i + AHEAD < len(trace):
            fetch(entries, shadows, trace[i + AHEAD], trace[i + AHEAD // 2])
        page = trace[i]
        pte = entries[page]
        if pte & PTE_P:
            if policy == LRU:
                move_to_front(s, 0, (pte & PFN_MASK) >> 12)
            else:
                entries[page] = pte | PTE_A  # whether it was set or not: cheaper than to guess wrong
            continue
        faults += 1
        if s.ctl[CTL_TRACE_FREE] == 0:
            if policy >= FIFO:
                evict_next(s, r, policy)
            else:
                make_room(s, r, policy, ranges)
        entries[page] = fault(s, page, shadows[page]) << 12 | PTE_P | (0 if policy == CLOCK else PTE_A)
    return faults


@inline
def fetch(entries, shadows, later: int, soon: int) -> None:
    """The entry of a page that is used a little later, and the shadow of one that is going to fault soon: a cache miss each otherwise."""
    prefetch(entries, later, 0)
    prefetch(shadows, soon * (~entries[soon] & PTE_P), 0)  # of one that is in memory, that of page 0: no branch to guess


@inline
def fault(s: State, page: int, shadow: int) -> int:
    """The page gets a free frame, which is answered; if it was here before, its shadow may tell."""
    pfn = s.ctl[CTL_TRACE_FREE]
    row = s.mem[pfn]
    s.ctl[CTL_TRACE_FREE] = row["next"]
    prefetch(s.mem, row["next"], 0)
    row["flags"] = PG_UPTODATE | PG_SWAPBACKED | PG_ANON
    row["mapping"] = ANON_VMA
    row["index"] = page
    row["mapcount"] = 1
    row["refcount"] = 1
    if shadow < 0:
        workingset_refault(s, 0, pfn, shadow, 0)
    if s.ctl[CTL_POLICY] >= FIFO:
        row["flags"] |= PG_LRU
        list_add(s, 0, LRU_INACTIVE_ANON, pfn)
    else:
        folio_add_lru(s, 0, pfn)
    return pfn


@step
def make_room(s: State, r: Rmap, policy: int, ranges) -> None:
    """No frame is free: one of the kernel's policies gives at least one."""
    if policy == CLASSIC:
        classic_round(s, r)
    else:
        generations_round(s, r, ranges)


@inline
def evict_next(s: State, r: Rmap, policy: int) -> None:
    """No frame is free: one of the classroom's policies names a page, which is dropped.

    Written into the loop, not called: a step's call hands over every column, which costs as much as all that is done here.
    """
    s.sc[0]["may_swap"] = 1
    if policy == FIFO:
        pfn = fifo.isolate(s, r, 0)
    elif policy == CLOCK:
        pfn = clock.isolate(s, r, 0)
    elif policy == LRU:
        pfn = lru.isolate(s, r, 0)
    else:
        pfn = any_page.isolate(s, r, 0)
    list_del(s, 0, LRU_INACTIVE_ANON, pfn)
    page = s.mem[pfn]
    s.pt[1 + (page["index"] >> 9), page["index"] & 511] = 0
    page["flags"] = 0
    page["next"] = s.ctl[CTL_TRACE_FREE]
    s.ctl[CTL_TRACE_FREE] = pfn


@inline
def begin_round(s: State) -> None:
    """A fresh scan_control."""
    c = s.sc[0]
    most = s.ctl[CTL_MAX_PFN] - 1
    c["nr_to_reclaim"] = min(SWAP_CLUSTER_MAX, max(1, most >> 4))
    c["nr_reclaimed"], c["swappiness"], c["target"], c["kswapd"] = 0, 60, 0, 0
    c["may_swap"], c["may_unmap"], c["may_writepage"], c["memcg_low_reclaim"] = 1, 1, 1, 1
    c["force_deactivate"], c["skipped_deactivate"], c["priority"] = 0, 0, DEF_PRIORITY


@step
def classic_round(s: State, r: Rmap) -> None:
    """Priorities 12 .. 0 over the two lists, as try_to_free_pages does; a second time deactivating whatever there is."""
    begin_round(s)
    c, vec = s.sc[0], s.lruvecs[0]
    while c["nr_reclaimed"] == 0:
        c["priority"] = DEF_PRIORITY
        while c["priority"] >= 0 and c["nr_reclaimed"] < c["nr_to_reclaim"]:
            missed = s.node_stat[0, ACTIVATE_ANON] != vec["refaults"][0]
            c["may_deactivate"] = 1 if missed or c["force_deactivate"] or inactive_is_low(s, 0, 0) else 0
            c["anon_cost"], c["file_cost"] = vec["cost"][0], vec["cost"][1]
            shrink_lruvec(s, r, 0)
            c["priority"] -= 1
        vec["refaults"][0] = s.node_stat[0, ACTIVATE_ANON]
        c["force_deactivate"] = 1


@step
def generations_round(s: State, r: Rmap, ranges) -> None:
    """Priorities 12 .. 0 over the generations; a new one begins when the visit asks for it."""
    begin_round(s)
    c, vec = s.sc[0], s.lrugens[0]
    while s.ctl[CTL_TRACE_FREE] == 0:
        aged = 0
        while lru_gen.visit(s, r, 0, aged) == lru_gen.AGE:
            seq = vec["max_seq"]
            reset_bloom_filter(s, 0, seq + 1)
            walk_mm(s, 0, seq, 1, 0, ranges)
            lru_gen.inc_max_seq(s, 0, 1, 0)
            aged, c["walk"] = 1, 1
        c["priority"] = c["priority"] - 1 if c["priority"] else 0

