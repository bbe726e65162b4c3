"""Why a charge did not fit, and why a task slept: recorded decisions of the memory controller.

Which ancestor was in the way, what its reclaim freed, how it ended; and the sleeps that memory.high cost a process, with the formula and its numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.mm import memcontrol
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel

SHOWN = 100
DELAY = (
    "overage = (usage - high) * 2^20 / high, the largest of the cgroup and its ancestors; "
    "jiffies = overage^2 * HZ / 2^34 * pages / 64; the same for swap above memory.swap.high is added; at most 2 s; slept only if more than 10 ms"
)


def explain_charge(k: Kernel, pid: int) -> dict[str, Any]:
    """The limits above a process now, and its last charges that did not fit and sleeps that memory.high cost it.

    charges: {clock_ns, cgroup that was charged, pages, levels as they were, rounds: [{event, limited: who was in the way,
    reclaimed_pages}], outcome: `charged`, `killed` or an errno}. throttles: {pages, levels, overage (2^-20), delay_ns, slept}.
    LookupError for an unknown pid.
    """
    cg = find_task(k, pid).cgroup.memcg
    return {
        "pid": pid,
        "cgroup": cg.path,
        "levels": memcontrol.levels(k, cg),
        "charges": [row for row in k.records.charges if row["pid"] == pid][-SHOWN:],
        "throttles": [_throttle(row) for row in k.records.throttles if row["pid"] == pid][-SHOWN:],
        "delay_formula": DELAY,
    }


def _throttle(row: dict[str, Any]) -> dict[str, Any]:
    """A throttle with its arithmetic spelt out."""
    memory, swap = row.get("overage", 0), row.get("swap_overage", 0)
    terms = [_term(over, row["pages"]) for over in (memory, swap) if over or over is memory]
    return {**row, "percent_over": round(memory * 100 / (1 << 20), 3), "arithmetic": " + ".join(terms)}


def _term(overage: int, pages: int) -> str:
    """The delay for one excess, of memory or of swap, as a sum."""
    jiffies = memcontrol.high_delay_jiffies(pages, overage)
    return f"{overage}^2 * {memcontrol.HZ} / 2^34 * {pages} / 64 = {jiffies} jiffies of {1000 // memcontrol.HZ} ms"
