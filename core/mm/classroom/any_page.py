"""Random replacement: any page goes. No book is kept, and no order of accesses can be its worst case.

The generator is a xorshift of 63 bits in `ctl`, seeded with the machine's seed: the same run gives the same choices.
"""

from __future__ import annotations

from core.abi.page_flags import PG_LRU, PG_SWAPBACKED, PG_UNEVICTABLE
from core.jit import inline
from core.mm.classroom.order import oldest
from core.mm.mm_types import CTL_MAX_PFN, CTL_NR_NODES, CTL_RANDOM, State
from core.mm.page_alloc import zone_of
from core.mm.rmap_walk import Rmap

TOLD = False
MASK = (1 << 62) - 1
TRIES = 4096


@inline
def draw(s: State, n: int) -> int:
    """A number from 0 to n - 1."""
    x = s.ctl[CTL_RANDOM]
    x ^= (x << 13) & MASK
    x ^= x >> 7
    x ^= (x << 17) & MASK
    s.ctl[CTL_RANDOM] = x
    return (x >> 20) % n


@inline
def isolate(s: State, r: Rmap, lruvec: int) -> int:
    """A frame drawn until it is one of these lists; after many draws in vain the oldest page."""
    memcg, node = lruvec // s.ctl[CTL_NR_NODES], lruvec % s.ctl[CTL_NR_NODES]
    if oldest(s, lruvec) == 0:
        return 0
    for _ in range(TRIES):
        pfn = draw(s, s.ctl[CTL_MAX_PFN])
        page = s.mem[pfn]
        if not page["flags"] & PG_LRU or page["flags"] & PG_UNEVICTABLE or page["memcg"] != memcg:
            continue
        if (s.sc[0]["may_swap"] or not page["flags"] & PG_SWAPBACKED) and s.zones[zone_of(s, pfn)]["node"] == node:
            return pfn
    return oldest(s, lruvec)


@inline
def accessed(s: State, zid: int, pfn: int) -> None:
    """A use changes nothing."""


@inline
def age(s: State, lruvec: int) -> None:
    """Nothing ages."""
