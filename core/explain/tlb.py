"""Why an access misses in the TLB: what the CPU holds for a process, and when it last forgot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.mm import pgtable, tlb
from core.mm.vma import vma_lookup
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel


def explain_tlb(k: Kernel, pid: int, address: int | None = None) -> dict[str, Any]:
    """Why accesses of a process miss in the TLB; with an `address`, why the next one there would, or would not.

    counts: over its life, with the share of misses. reach: what level 2 covers of its resident memory. page: `found` (l1, l2, or null), `why`, what a
    walk would fetch, and the entries that are in the page's level-2 set now. LookupError for an unknown pid.
    """
    task = find_task(k, pid)
    counts = tlb.by_name(task.tlb)
    c = k.tlb.cpus[task.cpu]
    asid = c.ctxs.index(task.mm.ctx_id) if task.mm is not None and task.mm.ctx_id in c.ctxs else None
    return {
        "pid": pid,
        "comm": task.comm,
        "cpu": task.cpu,
        "counts": counts,
        "miss_ratio": counts["misses"] / counts["accesses"] if counts["accesses"] else 0.0,
        "reach": {"l1_4k_bytes": dict(k.machine.tlb)["l1_4k"] * 4096, "l2_4k_bytes": dict(k.machine.tlb)["l2"] * 4096},
        "last_flush": _last_flush(c.flushed[asid] if asid is not None else None),
        "page": _tlb_page(k, task, address) if address is not None and task.mm is not None else None,
    }


def _last_flush(flushed: tuple[str, int] | None) -> dict[str, Any] | None:
    return {"why": flushed[0], "clock_ns": flushed[1]} if flushed is not None else None


def _tlb_page(k: Kernel, task: Any, address: int) -> dict[str, Any]:
    """What the next access to an address would find, and why."""
    vpn = address >> 12
    pte = pgtable.entry(k, task.mm, vpn)
    huge = pte == 0 and vma_lookup(task.mm, vpn) is not None and tlb.is_huge(k, task.mm, vpn)
    if not huge and not pte & pgtable.PTE_PRESENT:
        return {"address": address, "found": None, "why": "nothing is mapped there: the access faults, and TLBs hold present entries only"}
    seen = tlb.probe(k, task.cpu, task.mm, vpn, huge)
    around = tlb.neighbours(k, task.cpu, vpn, huge)
    return {"address": address, "found": seen["held_by"], "why": _why_miss(k, task, seen, pte, around), "walk": seen, "set": around}


def _why_miss(k: Kernel, task: Any, seen: dict[str, Any], pte: int, around: list[dict[str, Any]]) -> str:
    if seen["held_by"]:
        return f"level {seen['held_by'][1]} holds the entry"
    c = k.tlb.cpus[task.cpu]
    if seen["asid"] is None:
        if task.mm.ctx_id not in c.ctxs:
            return "the CPU has not run the process yet, or gave its ASID to another: it keeps six"
        return "its page tables changed since the CPU last ran it: everything of its ASID goes at the next switch"
    if pte and not pte & pgtable.PTE_A:
        return "the page was not accessed since its entry was made or made old: nobody has walked to it"
    ways = dict(k.machine.tlb)["l2_ways"]
    if len(around) >= ways:
        return f"its level-2 set is full: {ways} other pages that fall into the set were used since"
    flushed = c.flushed[seen["asid"]]
    return f"the entry was forgotten: {flushed[0]}" if flushed is not None else "the CPU has not walked to the page yet"
