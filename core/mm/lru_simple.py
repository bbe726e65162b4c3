"""Reclaim for policies that only say which page goes next: FIFO, CLOCK, random, LRU (`classroom`).

One visit takes up to 32 pages, one by one as the policy names them, and tries to free them as the classic policy does with the pages it has isolated
(`lru_classic.shrink_page`), except that nobody asks again whether a page was used: naming was the decision.

    reclaim wants 32 ──> isolate ──> unmap, write to swap or drop ──> freed, or back: written: to the tail, to be freed next;
                                                                       in the way (dirty file page, no slot): to the front

With several cgroups the one whose oldest page came first is asked first, so the order holds for the whole machine to within a visit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.jit import njit, step
from core.mm import memcontrol
from core.mm.classroom import any_page, clock, fifo, lru
from core.mm.classroom.order import oldest
from core.mm.lru_classic import ONE_BY_ONE, shrink_folio_list
from core.mm.mm_inline import lru_pages, lruvec_of
from core.mm.mm_types import CLIENT, CLOCK, CTL_FALLBACK, CTL_POLICY, FIFO, LRU, LRU_INACTIVE_FILE, State
from core.mm.page_alloc import zone_of
from core.mm.rmap_walk import Rmap
from core.mm.swap import list_add_tail, list_del, lru_del, page_lru
from core.mm.workingset import nr_swap_pages
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel

SWAP_CLUSTER_MAX = 32
PGROTATED = EVENT["pgrotated"]
NOBODY = np.zeros(0, np.int64)


@step
def next_page(s: State, r: Rmap, lruvec: int) -> int:
    """The page that the policy in force would take next."""
    policy = s.ctl[CTL_POLICY]
    if policy == CLIENT:
        policy = s.ctl[CTL_FALLBACK]
    if policy == FIFO:
        return fifo.isolate(s, r, lruvec)
    if policy == CLOCK:
        return clock.isolate(s, r, lruvec)
    if policy == LRU:
        return lru.isolate(s, r, lruvec)
    return any_page.isolate(s, r, lruvec)


@step
def to_tail(s: State, pfn: int) -> None:
    """It is written: the next to be freed."""
    page = s.mem[pfn]
    lru = page_lru(page["flags"])
    if lru > LRU_INACTIVE_FILE:
        return
    lruvec = lruvec_of(s, page["memcg"], s.zones[zone_of(s, pfn)]["node"])
    list_del(s, lruvec, lru, pfn)
    list_add_tail(s, lruvec, lru, pfn)
    s.stamps[pfn] = 0
    s.vm_event[PGROTATED] += lru_pages(page["flags"])


@njit
def visit(s: State, r: Rmap, memcg: int, named) -> None:
    """Take the pages `named`, else up to 32 of a cgroup on a node as the policy names them, and try to free them."""
    c, batch = s.sc[0], r.batch
    lruvec = lruvec_of(s, memcg, c["node"])
    may_swap = c["may_swap"]
    c["may_swap"] = 1 if may_swap and nr_swap_pages(s, memcg) > 0 else 0
    taken = 0
    pages = 0
    while pages < SWAP_CLUSTER_MAX and (len(named) == 0 or taken < len(named)):
        pfn = named[taken] if len(named) else next_page(s, r, lruvec)
        if pfn == 0:
            break
        lru_del(s, zone_of(s, pfn), pfn)
        batch[taken] = pfn
        taken += 1
        pages += lru_pages(s.mem[pfn]["flags"])
    c["may_swap"] = may_swap
    c["memcg"] = memcg
    shrink_folio_list(s, r, taken, ONE_BY_ONE)
    for i in range(c["nr_written"]):
        to_tail(s, batch[i])


@njit
def first_stamp(s: State, lruvec: int) -> int:
    """The stamp of the oldest page of a cgroup on a node, -1 if there is none."""
    pfn = oldest(s, lruvec)
    return s.stamps[pfn] if pfn else -1


# ---------------------------------------------------------------- the hooks


def its_turn(k: Kernel, memcg: int) -> bool:
    """Has no other cgroup of this reclaim an older page? In the last rounds each has its turn."""
    c, node, nodes = k.s.sc[0], int(k.s.sc[0]["node"]), k.nr_nodes
    mine = int(first_stamp(k.s, memcg * nodes + node))
    others = [at.id for at in memcontrol.reclaim_order(k, k.cgroups[int(c["target"])]) if at.id != memcg]
    first = [stamp for stamp in (int(first_stamp(k.s, id * nodes + node)) for id in others) if stamp >= 0]
    return int(c["priority"]) <= 2 or not first or min(first) >= mine


def isolate(k: Kernel, r: Rmap, memcg: int) -> None:
    """One visit, unless another cgroup of the same reclaim has an older page."""
    if its_turn(k, memcg):
        visit(k.s, r, memcg, NOBODY)


def age(k: Kernel, node: int) -> None:
    """None of these policies ages anything before it is asked."""
