"""First in, first out: the page that has been in memory longest goes, used or not.

    frames 3:  1 2 3 4 1 2 5 1 2 3 4 5   faults 9
    frames 4:  1 2 3 4 1 2 5 1 2 3 4 5   faults 10: more memory, more faults (Belady, 1969)
"""

from __future__ import annotations

from core.jit import inline
from core.mm.classroom.order import oldest
from core.mm.mm_types import State
from core.mm.rmap_walk import Rmap

TOLD = False


@inline
def isolate(s: State, r: Rmap, lruvec: int) -> int:
    """The page that came first."""
    return oldest(s, lruvec)


@inline
def accessed(s: State, zid: int, pfn: int) -> None:
    """A use changes nothing."""


@inline
def age(s: State, lruvec: int) -> None:
    """Nothing ages but by arrival."""
