"""What reclaim saw of each page that it looked at, kept in a ring for those who ask why a page went or stayed.

A row is begun before the page is judged, because afterwards its frame may be another's. 8,192 rows are kept: the last 8,192 looks.
"""

from __future__ import annotations

from core.jit import inline
from core.mm.mm_types import CTL_LOOKS, NR_LOOKS, State
from core.mm.swap import page_lru


@inline
def begin_look(s: State, pfn: int) -> None:
    """Reclaim takes a page up: what it is, and on which list it stands or stood."""
    row = s.looks[s.ctl[CTL_LOOKS] & (NR_LOOKS - 1)]
    s.ctl[CTL_LOOKS] += 1
    page = s.mem[pfn]
    row["visit"] = s.sc[0]["visit"]
    row["index"] = page["index"]
    row["pfn"] = pfn
    row["mapping"] = page["mapping"]
    row["flags"] = page["flags"]
    row["lru"] = page_lru(page["flags"])
    row["young"] = 0
    row["before"] = 0


@inline
def note_uses(s: State, young: int, before: int) -> None:
    """How many entries had used the page, and whether a use had been seen at the look before."""
    row = s.looks[(s.ctl[CTL_LOOKS] - 1) & (NR_LOOKS - 1)]
    row["young"] = young
    row["before"] = 1 if before else 0


@inline
def end_look(s: State, fate: int) -> None:
    """What became of it (`lru_classic.FREED` and its kin)."""
    s.looks[(s.ctl[CTL_LOOKS] - 1) & (NR_LOOKS - 1)]["fate"] = fate
