"""Clock, or second chance: first in, first out, but a page that was used since the hand last passed is passed over once.

The list is the clock's face, its tail is where the hand points; a page that gets its second chance loses its A bits and goes
to the front, which is where the hand arrives last.

    frames 3, all used; a fourth page comes: the hand clears 1, 2, 3 and, back at 1, takes it
"""

from __future__ import annotations

from core.abi.page_flags import PG_REFERENCED
from core.jit import inline
from core.mm.classroom.order import oldest
from core.mm.mm_types import State
from core.mm.page_alloc import zone_of
from core.mm.rmap_walk import Rmap, page_referenced
from core.mm.swap import move_to_front

TOLD = False


@inline
def isolate(s: State, r: Rmap, lruvec: int) -> int:
    """The first page under the hand that was not used; the others lose their mark."""
    pfn = oldest(s, lruvec)
    while pfn:
        used = page_referenced(s, r, pfn, 0) & 0xFFFF
        if used == 0 and not s.mem[pfn]["flags"] & PG_REFERENCED:
            break
        s.mem[pfn]["flags"] &= ~PG_REFERENCED
        move_to_front(s, zone_of(s, pfn), pfn)
        pfn = oldest(s, lruvec)
    return pfn


@inline
def accessed(s: State, zid: int, pfn: int) -> None:
    """A use through a file; one through memory is in the entry's A bit."""
    s.mem[pfn]["flags"] |= PG_REFERENCED


@inline
def age(s: State, lruvec: int) -> None:
    """The hand moves only when a page is wanted."""
