"""Why a page went, and why a task waited: recorded decisions of reclaim and of the memory controller.

`explain_reclaim` follows one page through the looks that reclaim took at it, each with what it saw (entries that had used the page
since the last look, PG_referenced from the look before) and what it decided; without an address, the last visits of reclaim.
`explain_charge` tells of the charges of a process that did not fit: which ancestor was in the way, what its reclaim freed, how it
ended, and of the sleeps that memory.high cost it, with the formula and its numbers. `explain_psi` shows who loses time to memory, what it
was lost over, and how the averages follow from it.
"""

from __future__ import annotations

import copy
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
from core.mm import memcontrol
from core.mm import vma as vmas_of
from core.mm.lru_classic import ACTIVATED, DEACTIVATED, FREED, GONE, KEPT, ROTATED, WRITTEN
from core.mm.mm_types import CTL_LOOKS, NR_LOOKS
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, PTE_SPECIAL, entry
from core.sched import psi
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import Array, Vma
    from core.sched.psi import PsiGroup

LISTS = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
DECISIONS = {FREED: "freed", KEPT: "kept", ACTIVATED: "activated", WRITTEN: "written to swap", DEACTIVATED: "deactivated", GONE: "gone",
             ROTATED: "rotated"}  # fmt: skip
SHOWN = 100
DELAY = (
    "overage = (usage - high) * 2^20 / high, the largest of the cgroup and its ancestors; "
    "jiffies = overage^2 * HZ / 2^34 * pages / 64; the same for swap above memory.swap.high is added; at most 2 s; slept only if more than 10 ms"
)

MEANS = (10, 60, 300)
AVERAGE = (
    "every 2.004 s: percent = time lost / period; avg' = (avg * exp + percent * 2048 * (2048 - exp) [+ 2047 if it rises]) / 2048, "
    "exp = 1677, 1981, 2034 for 10, 60, 300 s, 1.0 = 2048"
)


# ---------------------------------------------------------------- reclaim


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


# ---------------------------------------------------------------- charging


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


# ---------------------------------------------------------------- psi


def explain_psi(k: Kernel, pid: int) -> dict[str, Any]:
    """The memory pressure of a process's cgroup and of all above it: who stalls now, what was lost lately and over what, and the next average.

    stalls: the recorded ones of the process's own cgroup and those below the root that hold it, {begin_ns, end_ns, pid, cgroup, over, event}.
    groups: from the cgroup up to the root, each with its running, stalled and waiting tasks by processor, `some` and `full` in total
    and how the averages will move at the end of the present period. LookupError for an unknown pid.
    """
    task = find_task(k, pid)
    groups = [_group(k, group) for group in task.cgroup.ancestors]
    below = task.cgroup.path.rstrip("/") + "/"
    stalls = [row for row in k.records.stalls if (row["cgroup"] + "/").startswith(below)]
    return {"pid": pid, "cgroup": task.cgroup.path, "groups": groups, "stalls": stalls[-SHOWN:], "average_formula": AVERAGE}


def _group(k: Kernel, group: Cgroup) -> dict[str, Any]:
    """One account as it stands now."""
    account = copy.deepcopy(group.psi)
    account.advance(k.clock.now)
    total = account.collected()
    cpus = [
        {"cpu": number, "running": cpu.running, "stalled": cpu.memstall, "stalled_on_cpu": cpu.memstall_oncpu, "waiting_for_disk": cpu.iowait}
        for number, cpu in sorted(account.cpus.items()) if cpu.states
    ]  # fmt: skip
    kinds = {name: _average(k, account, total, 2 * psi.MEM + kind) for kind, name in enumerate(psi.NAMES)}
    return {"cgroup": group.path, "cpus": cpus, **kinds}


def _average(k: Kernel, account: PsiGroup, total: list[int], state: int) -> dict[str, Any]:
    """One state's mean, and what the present period will make of it if nothing more is lost."""
    period = account.next_update - account.last_update
    lost = min(total[state] - account.avg_total[state], period)
    percent = lost * 100 // period
    after = psi.calc_avgs(account.avg[state], 0, lost, period)
    return {
        "total_us": total[state] // 1000,
        **{f"avg{seconds}": psi.percent(load) for seconds, load in zip(MEANS, account.avg[state], strict=True)},
        "period": {
            "begin_ns": account.last_update, "end_ns": account.next_update, "lost_ns": lost, "percent": percent,
            **{f"avg{seconds}_then": psi.percent(load) for seconds, load in zip(MEANS, after, strict=True)},
        },
    }  # fmt: skip
