"""Why a page went, or stayed: the looks that reclaim took at it.

Each with what it saw (entries that had used the page since the last look, PG_referenced from the look before) and what it decided; without an
address, the last visits of reclaim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.page_flags import (
    PG_ACTIVE,
    PG_ANON,
    PG_DIRTY,
    PG_LRU,
    PG_MLOCKED,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UNEVICTABLE,
)
from core.mm import vma as vmas_of
from core.mm.lru_classic import ACTIVATED, DEACTIVATED, FREED, GONE, KEPT, ROTATED, WRITTEN
from core.mm.mm_types import CTL_LOOKS, NR_LOOKS
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, PTE_SPECIAL, entry
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array, Vma

LISTS = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
DECISIONS = {FREED: "freed", KEPT: "kept", ACTIVATED: "activated", WRITTEN: "written to swap", DEACTIVATED: "deactivated", GONE: "gone",
             ROTATED: "rotated"}  # fmt: skip
SHOWN = 100


def explain_reclaim(k: Kernel, pid: int, address: int | None = None) -> dict[str, Any]:
    """What reclaim saw of the page at `address` and decided, oldest look first; without an address its last visits.

    LookupError for an unknown pid. A page that was never looked at has no looks; only the last 8,192 looks are kept.
    """
    task = find_task(k, pid)
    if address is None:
        return {"pid": pid, "visits": k.records.visits[-SHOWN:]}
    vpn = address >> 12
    vma = vmas_of.vma_lookup(task.mm, vpn) if task.mm is not None else None
    if vma is None:
        return {"pid": pid, "address": address, "page": "nothing is mapped there", "looks": []}
    return {"pid": pid, "address": address, "page": _present(k, vma, vpn), "looks": _looks(k, vma, vpn)}


def _present(k: Kernel, vma: Vma, vpn: int) -> dict[str, Any] | str:
    """Where the page is now."""
    pte = entry(k, vma.mm, vpn)
    if pte == 0:
        return "not in memory through this mapping: never touched, dropped, or its file page was reclaimed"
    if not pte & PTE_PRESENT:
        return "in swap"
    if pte & PTE_SPECIAL:
        return "the shared zero page: never reclaimed"
    pfn = (pte & PFN_MASK) >> 12
    flags = int(k.s.mem["flags"][pfn])
    return {
        "pfn": pfn,
        "list": list_of(flags),
        "active": bool(flags & PG_ACTIVE),
        "referenced": bool(flags & PG_REFERENCED),
        "swapcache": bool(flags & PG_SWAPCACHE),
        "dirty": bool(flags & PG_DIRTY),
    }


def list_of(flags: int) -> str | None:
    """The LRU list of a page with these flags (`swap.page_lru`); None for a page on none."""
    if not flags & PG_LRU:
        return None
    if flags & PG_UNEVICTABLE:
        return "unevictable"
    return ("active_" if flags & PG_ACTIVE else "inactive_") + ("anon" if flags & PG_SWAPBACKED else "file")


def _looks(k: Kernel, vma: Vma, vpn: int) -> list[dict[str, Any]]:
    """The looks at one page: as an anonymous page of the mapping's anchors, or as the file's page."""
    rows = _ring(k)
    mine = rows["index"] == vpn - vma.start + vma.pgoff
    anon = (rows["flags"] & PG_ANON) != 0
    anchors = [anchor.id for anchor in vma.chain]
    belongs = anon & np.isin(rows["mapping"], anchors)
    if vma.file is not None:
        belongs |= ~anon & (rows["mapping"] == vma.file.id)
    visits = {row["visit"]: row for row in k.records.visits}
    return [_look(row, visits.get(int(row["visit"]), {})) for row in rows[mine & belongs]]


def _ring(k: Kernel) -> Array:
    """The looks that are kept, oldest first."""
    total = int(k.s.ctl[CTL_LOOKS])
    order = np.arange(max(total - NR_LOOKS, 0), total) & (NR_LOOKS - 1)
    rows: Array = k.s.looks[order]
    return rows


def _look(row: Any, visit: dict[str, Any]) -> dict[str, Any]:
    """One look in words, with the visit it was part of."""
    fate, young, before, flags = (int(row[name]) for name in ("fate", "young", "before", "flags"))
    return {
        **visit,
        "list": LISTS[int(row["lru"])],
        "references": young,
        "referenced_before": bool(before),
        "decision": DECISIONS[fate],
        "why": reason(fate, young, bool(before), flags),
    }


def reason(fate: int, young: int, before: bool, flags: int) -> str:
    """The rule that a decision followed (folio_check_references, shrink_folio_list, shrink_active_list)."""
    if fate == DEACTIVATED:
        return "the active list was too long, or pages of its kind refaulted: its tail goes to the inactive list, used or not"
    if fate == ROTATED:
        return "code that was used since the last look stays on the active list"
    if fate == GONE:
        return "a frame of a huge page that was split for reclaim, and nobody used it"
    if flags & PG_MLOCKED:
        return "the page is locked in memory"
    if fate == ACTIVATED and young:
        return "used again since a use was seen before" if before else "used through several entries, or as code"
    if fate == KEPT and young:
        return "used since the last look, for the first time: one more trip through the list"
    if fate == ACTIVATED and flags & PG_DIRTY and not flags & PG_SWAPBACKED:
        return "a dirty page of a file: it must be written first, the flusher was told"
    if fate == ACTIVATED:
        return "no swap slot could be had, or an entry could not be taken away"
    if fate == WRITTEN:
        return "not used since the last look: it got a swap slot, its entries were replaced, it was written; freed at the next look"
    if fate == FREED:
        return "not used since the last look, and its content is elsewhere: in its file or in swap" if not _lazy(flags) else "given up by MADV_FREE"
    return "somebody else held the page"


def _lazy(flags: int) -> bool:
    """An anonymous page that MADV_FREE gave up."""
    return bool(flags & PG_ANON) and not flags & PG_SWAPBACKED
