"""Why pages are merged, or are not: ksmd's settings and counters, and the fate of each page that was offered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi.mman import VM_MERGEABLE
from core.mm import ksm, pgtable
from core.mm.vma import vma_lookup
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel

WHY_FATE = {
    "merged": "its content was in the stable tree, or had a twin in the unstable tree: the entry maps a KSM page, read-only",
    "unshared": "its content did not change between two scans, but no other mergeable page has it: it waits in the unstable tree",
    "volatile": "its content changed since the last scan, or ksmd has seen it only once: the second look decides",
    "new": "ksmd has not come by since it was first written",
    "zero": "it maps the zero page: never written, or use_zero_pages merged it",
    "not_anonymous": "it is a page of a file: only anonymous pages are merged",
    "swapped": "it is in swap: ksmd looks at pages in memory only",
    "absent": "nothing is there",
}


def explain_ksm(k: Kernel, pid: int, address: int | None = None) -> dict[str, Any]:
    """Why pages of a process are merged or are not.

    ksmd: its settings and counters, and how long a full scan takes at this pace. mappings: those that were offered, with how many pages met which
    fate (`fates` says what each means). page: with an `address`, that page's fate and its sharers. LookupError for an unknown pid.
    """
    task = find_task(k, pid)
    mm = task.mm
    offered = [vma for vma in mm.vmas if vma.flags & VM_MERGEABLE] if mm is not None else []
    return {
        "pid": pid,
        "comm": task.comm,
        "ksmd": _ksmd(k),
        "ksm_merging_pages": ksm.merging_pages(k, mm)[0] if mm is not None else 0,
        "mappings": [{"start": vma.start << 12, "end": vma.end << 12, "fates": ksm.census(k, vma, vma.start, vma.end)} for vma in offered],
        "fates": WHY_FATE,
        "page": _ksm_page(k, mm, address) if mm is not None and address is not None else None,
    }


def _ksmd(k: Kernel) -> dict[str, Any]:
    """ksmd's settings and counters, and what they come to."""
    counters = {name: ksm.counter(k, name) for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans")}
    pages, pace = int(k.s.ksm[0]["rmap_items"]), max(k.ksm["pages_to_scan"], 1)
    rounds = -(-pages // pace)
    return {
        "running": ksm.should_run(k),
        "why_not": None if ksm.should_run(k) else "run is not 1" if k.ksm["run"] != 1 else "no process offers memory",
        "settings": dict(k.ksm),
        "counters": counters,
        "full_scan_ns": pages * k.costs.ksm_page + rounds * k.ksm["sleep_millisecs"] * 1_000_000,
        "saved_bytes": counters["pages_sharing"] * 4096,
    }


def _ksm_page(k: Kernel, mm: Any, address: int) -> dict[str, Any]:
    """One page's fate: why it is merged, or what keeps it from being merged."""
    vma = vma_lookup(mm, address >> 12)
    if vma is None:
        return {"address": address, "fate": None, "why": "nothing is mapped there", "sharers": 0}
    fate = next(name for name, count in ksm.census(k, vma, address >> 12, (address >> 12) + 1).items() if count)
    sharers, why = 0, WHY_FATE[fate]
    if fate == "merged":
        sharers = int(k.s.mem["mapcount"][(pgtable.entry(k, mm, address >> 12) & pgtable.PFN_MASK) >> 12])
    elif not vma.flags & VM_MERGEABLE:
        why = "the mapping is not offered: no madvise(MADV_MERGEABLE), or it is shared or a special one"
    return {"address": address, "fate": fate, "why": why, "sharers": sharers}
