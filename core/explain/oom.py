"""Why this process, or not that one: where each stands with the OOM killer.

The kernel's formula term by term, and beside it the rule of thumb that courses teach, RSS + 0.5 * swap. The two differ by half the swap and by
all the rest: the kernel has no 0.5 anywhere, counts page tables, and adds oom_score_adj in thousandths of the whole memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.mm import oom_kill
from core.mm.util import total_swap_pages, totalram_pages
from core.sched.task import find_task

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
    task = find_task(k, pid)
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
