"""Why: recorded decisions and the numbers behind them, for people who ask.

`explain_oom` shows where a process stands with the OOM killer: the kernel's formula term by term, and beside it the rule
of thumb that courses teach, RSS + 0.5 * swap. The two differ by half the swap and by all the rest: the kernel has no
0.5 anywhere, counts page tables, and adds oom_score_adj in thousandths of the whole memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi.mman import PMD_PAGES, VM_MERGEABLE
from core.mm import compaction, huge_memory, khugepaged, ksm, oom_kill, pgtable, smaps, tlb
from core.mm.mm_types import CTL_HUGE_ZERO, PAGEBLOCK_ORDER, ZONE_NAMES
from core.mm.util import total_swap_pages, totalram_pages
from core.mm.vma import vma_lookup
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


def explain_thp(k: Kernel, pid: int, address: int | None = None) -> dict[str, Any]:
    """Huge pages of a process: which mappings may have them and why the others may not; with an address, why there is one there or none.

    mappings: [{start, end, eligible, why_not, anon_huge_pages, shmem_pmd_mapped}] (bytes). at: {range, mapped, why, fault, khugepaged}: what
    maps the 2 MiB around the address now, what a first write there would do, and what khugepaged would make of it.
    blocks: by zone, whether a block of 2 MiB is free, and if not, for lack of memory or for fragmentation. khugepaged: its pace, where it is, its
    last collapse.
    LookupError for an unknown pid.
    """
    task = find_task(k, pid)
    vmas = task.mm.vmas if task.mm is not None else []
    settings = {key: value for key, value in k.thp.items() if key.startswith("khugepaged.")}
    state = k.khugepaged
    return {
        "pid": pid,
        "enabled": k.thp["enabled"], "shmem_enabled": k.thp["shmem_enabled"], "defrag": k.thp["defrag"],
        "use_zero_page": bool(k.thp["use_zero_page"]),
        "mappings": [_thp_mapping(k, vma) for vma in vmas if not vma.special],
        "at": _thp_at(k, task.mm, address) if address is not None and task.mm is not None else None,
        "blocks": [_huge_blocks(k, zid) for zid in k.populated],
        "khugepaged": {
            **{key.removeprefix("khugepaged."): value for key, value in settings.items()},
            "watches": bool(task.mm is not None and task.mm.khugepaged),
            "next_ns": state["due"] if state["due"] >= 0 else None,
            "last_collapse": state["last"],
        },
    }  # fmt: skip


def _huge_blocks(k: Kernel, zid: int) -> dict[str, Any]:
    """Could a zone give a block of 2 MiB? The fragmentation index, in thousandths, tells lack of memory (0) from fragmentation (1000)."""
    zone = k.s.zones[zid]
    pages, _, blocks = compaction.contig_page_info(zone["nr_free"], PAGEBLOCK_ORDER)
    index, threshold = compaction.fragmentation_index(zone["nr_free"], PAGEBLOCK_ORDER), int(k.sysctl["vm.extfrag_threshold"])
    if blocks:
        why = "a block of 2 MiB is free"
    elif index <= threshold:
        why = f"too little memory is free: fragmentation index {index}, at most extfrag_threshold {threshold}: reclaim, not compaction, may help"
    else:
        why = f"memory is free, but in pieces: fragmentation index {index}, above extfrag_threshold {threshold}: compaction may join them"
    waits = int(zone["compact_defer_shift"]) if int(zone["compact_order_failed"]) <= PAGEBLOCK_ORDER else 0
    return {
        "node": int(zone["node"]), "zone": ZONE_NAMES[int(zone["type"])], "free_pages": pages, "free_blocks": blocks, "fragmentation_index": index,
        "why": why, "compaction_waits_for": (1 << waits) - 1 if waits else 0,
    }  # fmt: skip


def _no_thp(k: Kernel, vma: Any, *, fault: bool) -> str | None:
    """Why a mapping may have no huge pages, and where that comes from on a machine too small for them."""
    why = huge_memory.why_not(k, vma, fault=fault)
    small = totalram_pages(k) < huge_memory.MIN_PAGES
    return f"{why}, as on every machine below 512M" if why == huge_memory.NEVER and small else why


def _thp_mapping(k: Kernel, vma: Any) -> dict[str, Any]:
    why = _no_thp(k, vma, fault=False)
    seen = smaps.account(k, vma)
    return {
        "start": hex(vma.start << 12), "end": hex(vma.end << 12), "eligible": why is None, "why_not": why,
        "anon_huge_pages": seen["AnonHugePages"], "shmem_pmd_mapped": seen["ShmemPmdMapped"],
    }  # fmt: skip


def _thp_at(k: Kernel, mm: Any, address: int) -> dict[str, Any]:
    """The 2 MiB around an address."""
    vpn = address >> 12
    first = vpn - vpn % PMD_PAGES
    vma = vma_lookup(mm, vpn)
    entry = pgtable.pmd_entry(k, mm, vpn)
    huge = bool(entry & pgtable.PTE_PS)
    zero = huge and (entry & pgtable.PFN_MASK) >> 12 == int(k.s.ctl[CTL_HUGE_ZERO])
    mapped = "huge zero page" if zero else "huge page" if huge else "page table" if entry else "nothing"
    out: dict[str, Any] = {"range": [hex(first << 12), hex((first + PMD_PAGES) << 12)], "mapped": mapped}
    if vma is None:
        return {**out, "why": "no mapping covers the address", "fault": None, "khugepaged": None}
    out |= {"why": _thp_why(k, vma, first, mapped), "fault": _thp_fault(k, vma, first, bool(entry))}
    return {**out, "khugepaged": khugepaged.explain(k, vma, vpn)}


def _thp_why(k: Kernel, vma: Any, first: int, mapped: str) -> str:
    """Why what maps these 2 MiB is what it is."""
    if mapped == "huge zero page":
        return "they were only read so far: the huge zero page serves until the first write"
    if mapped == "huge page":
        return "one entry maps 2 MiB"
    outside = first < vma.start or first + PMD_PAGES > vma.end
    if (why := _no_thp(k, vma, fault=True)) is not None:
        return why
    if outside:
        return "the mapping does not hold all of the 2 MiB between the multiples of 2 MiB around the address"
    if mapped == "nothing":
        return "nothing was touched here yet"
    return "small pages are mapped already: only khugepaged or MADV_COLLAPSE can make a huge page of them now"


def _thp_fault(k: Kernel, vma: Any, first: int, there: bool) -> str:
    """What the first write to these 2 MiB would do."""
    flags = huge_memory.fault_flags(k, vma)
    may = flags & (huge_memory.THP_FAULT | huge_memory.THP_SHMEM | huge_memory.THP_WITHIN)
    if there or not may or first < vma.start or first + PMD_PAGES > vma.end:
        return "takes small pages"
    if flags & huge_memory.THP_DIRECT:
        return "takes a huge page; if none is free it compacts and reclaims for one, which may take milliseconds"
    return "takes a huge page if one is free on the node, else a small page" + (" and wakes kswapd" if flags & huge_memory.THP_KSWAPD else "")


# ---------------------------------------------------------------- the TLB


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
