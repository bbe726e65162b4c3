"""Least recently used, exactly: the page whose last use is longest ago goes. Every access must be told, which no processor does for free.

LRU is a *stack algorithm*: what it keeps in n frames it keeps in n + 1 as well. So more memory never costs a fault, and one pass over a trace
gives the faults for every size of memory (`replay.stack_distances`).
"""

from __future__ import annotations

from core.jit import inline
from core.mm.classroom.order import oldest
from core.mm.mm_types import State
from core.mm.rmap_walk import Rmap
from core.mm.swap import move_to_front

TOLD = True


@inline
def isolate(s: State, r: Rmap, lruvec: int) -> int:
    """The page that was used longest ago."""
    return oldest(s, lruvec)


@inline
def accessed(s: State, zid: int, pfn: int) -> None:
    """It is the youngest now."""
    move_to_front(s, zid, pfn)


@inline
def age(s: State, lruvec: int) -> None:
    """The order is exact at any time."""
