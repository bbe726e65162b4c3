"""Why this process, or not that one: where each stands with the OOM killer.

The kernel's formula term by term, and beside it the rule of thumb that courses teach, RSS + 0.5 * swap. The two differ by half the swap and by
all the rest: the kernel has no 0.5 anywhere, counts page tables, and adds oom_score_adj in thousandths of the whole memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi.mman import PAGE_SIZE
from core.mm import oom_kill
from core.mm.util import total_swap_pages, totalram_pages
from core.sched.task import find_kill, find_task

if TYPE_CHECKING:
    from core.kernel import Kernel

FORMULA = "points = rss + swap + pgtables + oom_score_adj * (totalpages / 1000); oom_score = (1000 + points * 1000 / totalpages) * 2 / 3"
COURSE = "RSS + 0.5 * swap"


def explain_oom(k: Kernel, pid: int) -> dict[str, Any]:
    """A process's badness by its terms (pages), and the last recorded decision of the OOM killer.

    terms: {rss, swap, pgtables, adj_term, points, oom_score}; points is None for a process that may never be chosen, with
    `why_not`. approximation: the course's rule in pages and how far it is off. rank: 1 for the process that would be killed
    now if the whole machine ran out of memory. Of a process that the OOM killer has killed: `killed`, and its terms as they were then.
    LookupError for an unknown pid.
    """
    if pid not in k.tasks and (kill := find_kill(k, pid)):
        return _killed(k, kill)
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
        "approximation": _approximation(thumb, points),
        "last_oom": k.last_oom,
    }  # fmt: skip


def _killed(k: Kernel, kill: dict[str, Any]) -> dict[str, Any]:
    """Of a process that is gone: the decision that killed it, and the numbers of that moment."""
    rss = sum(kill[kind] for kind in ("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes")) // PAGE_SIZE
    swap = kill["swap_bytes"] // PAGE_SIZE
    thumb = rss + swap // 2
    return {
        "pid": kill["pid"],
        "comm": kill["comm"],
        "oom_score_adj": kill["oom_score_adj"],
        "formula": FORMULA,
        "terms": {"rss": rss, "swap": swap, "pgtables": kill["pgtables_bytes"] // PAGE_SIZE, "points": kill["points"]},
        "why_not": "it has been killed",
        "rank": None,
        "approximation": _approximation(thumb, kill["points"]),
        "killed": dict(kill),
        "last_oom": k.last_oom,
    }


def _approximation(thumb: int, points: int | None) -> dict[str, Any]:
    """The course's rule beside the kernel's points."""
    return {
        "rule": COURSE,
        "points": thumb,
        "difference": points - thumb if points is not None else None,
        "note": "a rule of thumb: the kernel counts swap in full, adds page tables and oom_score_adj",
    }


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
