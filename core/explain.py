"""Why: recorded decisions and the numbers behind them, for people who ask.

`explain_oom` shows where a process stands with the OOM killer: the kernel's formula term by term, and beside it the rule
of thumb that courses teach, RSS + 0.5 * swap. The two differ by half the swap and by all the rest: the kernel has no
0.5 anywhere, counts page tables, and adds oom_score_adj in thousandths of the whole memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi.mman import VM_MERGEABLE
from core.mm import ksm, oom_kill, pgtable
from core.mm.util import total_swap_pages, totalram_pages
from core.mm.vma import vma_lookup

if TYPE_CHECKING:
    from core.kernel import Kernel

FORMULA = "points = rss + swap + pgtables + oom_score_adj * (totalpages / 1000); oom_score = (1000 + points * 1000 / totalpages) * 2 / 3"
COURSE = "RSS + 0.5 * swap"


def explain_oom(k: Kernel, pid: int) -> dict[str, Any]:
    """A process's badness by its terms (pages), and the last recorded decision of the OOM killer.

    terms: {rss, swap, pgtables, adj_term, points, oom_score}; points is None for a process that may never be chosen, with
    `why_not`. approximation: the course's rule in pages and how far it is off. rank: 1 for the process that would be killed
    now if the whole machine ran out of memory. LookupError for an unknown pid.
    """
    task = k.tasks.get(pid)
    if task is None:
        raise LookupError(f"no process {pid}")
    total = totalram_pages(k) + total_swap_pages(k)
    terms = oom_kill.oom_terms(k, task, total)
    points = oom_kill.oom_badness(k, task, total)
    thumb = terms["rss"] + terms["swap"] // 2
    return {
        "pid": pid,
        "comm": task.comm,
        "oom_score_adj": task.oom_score_adj,
        "totalpages": total,
        "formula": FORMULA,
        "terms": {
            "rss": terms["rss"], "swap": terms["swap"], "pgtables": terms["pgtables"], "adj_term": terms["adj"],
            "points": points, "oom_score": oom_kill.oom_score(points, total),
        },
        "why_not": _why_not(task) if points is None else None,
        "rank": _rank(k, pid, total),
        "approximation": {
            "rule": COURSE,
            "points": thumb,
            "difference": points - thumb if points is not None else None,
            "note": "a rule of thumb: the kernel counts swap in full, adds page tables and oom_score_adj",
        },
        "last_oom": k.last_oom,
    }  # fmt: skip


def _why_not(task: Any) -> str:
    """Why a process has no points."""
    if oom_kill.oom_unkillable_task(task):
        return "init and kernel threads are never killed"
    if task.mm is None:
        return "it has no memory any more"
    if task.oom_score_adj == oom_kill.OOM_SCORE_ADJ_MIN:
        return "oom_score_adj is -1000"
    return "its memory has been reaped already"


def _rank(k: Kernel, pid: int, total: int) -> int | None:
    """The process's place in the order of killing; among equals the later one comes first."""
    scored = [(points, at, task.pid) for at, task in enumerate(k.tasks.values()) if (points := oom_kill.oom_badness(k, task, total)) is not None]
    order = [entry[2] for entry in sorted(scored, reverse=True)]
    return order.index(pid) + 1 if pid in order else None


# ---------------------------------------------------------------- KSM

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
    task = k.tasks.get(pid)
    if task is None:
        raise LookupError(f"no process {pid}")
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
