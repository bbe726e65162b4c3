"""page_counter: a number of pages, a limit, and the same again for every ancestor (mm/page_counter.c).

A cgroup's memory is charged to itself and to each of its ancestors. A charge goes up the tree and stops
at the first counter that would exceed its `max`; what was charged below it is taken back:

        /            not limited, not counted
        └─ app       max 100  usage  98     charging 4 pages to app/web:
           └─ web    max  50  usage  40     web 44 (fits), app 102 > 100: fails here, web back to 40, app.failcnt += 1

Walking a tree for every page would be slow, so each cpu keeps a *stock* for one cgroup: it charges 64 pages at
once (MEMCG_CHARGE_BATCH) and spends them one by one. That is why memory.current may exceed the pages in use by
up to 64 a cpu (memcg_stock_pcp of mm/memcontrol.c). Only when 64 do not fit is the exact number tried.

All of it is page-loop code: rows of `State.memcgs`, numbered by cgroup id. Row 0 is the root, where every walk ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.jit import inline, njit, step
from core.mm.mm_types import CTL_OVER_HIGH, State
from core.mm.mm_types import PAGE_COUNTER_MAX as PAGE_COUNTER_MAX

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup

MEMCG_CHARGE_BATCH = 64
STOCK_MEMCG, STOCK_NR = 0, 1  # columns of State.stock


@inline
def page_counter_charge(s: State, memcg: int, nr: int) -> None:
    """Charge `nr` pages whatever the limits (mm/page_counter.c:page_counter_charge)."""
    while memcg > 0:
        row = s.memcgs[memcg]
        usage = row["usage"] + nr
        row["usage"] = usage
        if usage > row["watermark"]:
            row["watermark"] = usage
        memcg = row["parent"]


@inline
def uncharge(s: State, memcg: int, nr: int) -> None:
    """Give back `nr` pages of `memcg` and of every ancestor (page_counter_uncharge)."""
    while memcg > 0:
        row = s.memcgs[memcg]
        row["usage"] -= nr
        memcg = row["parent"]


@step
def page_counter_try_charge(s: State, memcg: int, nr: int) -> int:
    """Charge `nr` pages up the tree: -1, or the id of the first counter over its max (then nothing is charged)."""
    at = memcg
    while at > 0:
        row = s.memcgs[at]
        if row["usage"] + nr > row["max"]:
            row["failcnt"] += 1
            break
        row["usage"] += nr
        at = row["parent"]
    if at > 0:
        undo = memcg
        while undo != at:
            s.memcgs[undo]["usage"] -= nr
            undo = s.memcgs[undo]["parent"]
        return at
    at = memcg
    while at > 0:
        row = s.memcgs[at]
        if row["usage"] > row["watermark"]:
            row["watermark"] = row["usage"]
        at = row["parent"]
    return -1


@step
def drain_stock(s: State, cpu: int) -> None:
    """Uncharge what `cpu` holds in advance."""
    nr = s.stock[cpu, 1]
    if nr:
        uncharge(s, s.stock[cpu, 0], nr)
        s.stock[cpu, 1] = 0
    s.stock[cpu, 0] = 0


@inline
def refill_stock(s: State, cpu: int, memcg: int, nr: int) -> None:
    """Keep `nr` charged pages of `memcg` on `cpu` for later; another cgroup's stock goes back first."""
    if s.stock[cpu, 0] != memcg:
        drain_stock(s, cpu)
        s.stock[cpu, 0] = memcg
    s.stock[cpu, 1] += nr
    if s.stock[cpu, 1] > MEMCG_CHARGE_BATCH:
        drain_stock(s, cpu)


@inline
def try_charge(s: State, cpu: int, memcg: int, nr: int) -> int:
    """Charge `nr` pages to `memcg`: -1, or the id of the cgroup whose limit is in the way.

    Stock first, then a batch of 64, then exactly `nr` (try_charge_memcg up to the point where it would
    reclaim). The root is never charged.
    """
    if memcg <= 0:
        return -1
    if nr <= MEMCG_CHARGE_BATCH and s.stock[cpu, 0] == memcg and s.stock[cpu, 1] >= nr:
        s.stock[cpu, 1] -= nr
        return -1
    if nr < MEMCG_CHARGE_BATCH:
        if page_counter_try_charge(s, memcg, MEMCG_CHARGE_BATCH) < 0:
            refill_stock(s, cpu, memcg, MEMCG_CHARGE_BATCH - nr)
            note_over_high(s, memcg, MEMCG_CHARGE_BATCH)
            return -1
    over = page_counter_try_charge(s, memcg, nr)
    if over < 0:
        note_over_high(s, memcg, nr)
    return over


@step
def note_over_high(s: State, memcg: int, nr: int) -> None:
    """A charge finds memory.high or memory.swap.high passed somewhere above: the task will answer for it on its way back to user space."""
    while memcg > 0:
        row = s.memcgs[memcg]
        if row["usage"] > row["high"] or row["swap"] > row["swap_high"]:
            s.ctl[CTL_OVER_HIGH] += nr
            return
        memcg = row["parent"]


@njit
def charge_exactly(s: State, cpu: int, memcg: int, nr: int) -> int:
    """try_charge, callable from Python."""
    return try_charge(s, cpu, memcg, nr)


@njit
def uncharge_pages(s: State, memcg: int, nr: int) -> None:
    """uncharge, callable from Python."""
    uncharge(s, memcg, nr)


@njit
def force_charge(s: State, memcg: int, nr: int) -> None:
    """page_counter_charge, callable from Python."""
    page_counter_charge(s, memcg, nr)


@njit
def drain_all_stock(s: State, memcg: int) -> None:
    """Empty every cpu's stock that belongs to `memcg` or to one of its descendants (0: every stock)."""
    for cpu in range(s.stock.shape[0]):
        at = s.stock[cpu, 0]
        while at > 0 and at != memcg:
            at = s.memcgs[at]["parent"]
        if at == memcg:
            drain_stock(s, cpu)


@inline
def retry_charge(s: State, cpu: int, memcg: int, nr: int) -> int:
    """try_charge after the batch has failed once: stock, then exactly `nr`."""
    if s.stock[cpu, 0] == memcg and s.stock[cpu, 1] >= nr:
        s.stock[cpu, 1] -= nr
        return -1
    return page_counter_try_charge(s, memcg, nr)


@njit
def charge_again(s: State, cpu: int, memcg: int, nr: int) -> int:
    """retry_charge, callable from Python."""
    return retry_charge(s, cpu, memcg, nr)


@njit
def keep_charge(s: State, cpu: int, memcg: int, nr: int) -> None:
    """refill_stock, callable from Python."""
    refill_stock(s, cpu, memcg, nr)


def subtree(k: Kernel, cg: Cgroup, dying: bool = False) -> list[Cgroup]:
    """A cgroup and its descendants, each before its children; with `dying`, also the removed ones (in id order)."""
    found, removed = [cg], [one for one in k.cgroups.values() if one.dying] if dying else []
    for at in found:
        found.extend(at.children.values())
        if removed:
            found.extend(child for child in removed if child.parent is at)
    return found
