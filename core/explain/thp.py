"""Why there are huge pages, or none: which mappings may have them, what a fault would do, what khugepaged makes of it, whether memory has any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi.mman import PMD_PAGES
from core.mm import compaction, huge_memory, khugepaged, pgtable, smaps
from core.mm.mm_types import CTL_HUGE_ZERO, PAGEBLOCK_ORDER, ZONE_NAMES
from core.mm.util import totalram_pages
from core.mm.vma import vma_lookup
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel


def explain_thp(k: Kernel, pid: int, address: int | None = None) -> dict[str, Any]:
    """Huge pages of a process: which mappings may have them and why the others may not; with an address, why there is one there or none.

    mappings: [{start, end, eligible, why_not, anon_huge_pages, shmem_pmd_mapped}] (bytes). at: {range, mapped, why, fault, khugepaged}: what
    maps the 2 MiB around the address now, what the next write there would do, and what khugepaged would make of it.
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
    out |= {"why": _thp_why(k, vma, first, mapped), "fault": _thp_fault(k, vma, first, mapped)}
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


def _thp_fault(k: Kernel, vma: Any, first: int, mapped: str) -> str:
    """What the next write to these 2 MiB would do."""
    if mapped == "huge zero page":
        return "splits the entry and takes one small page for what is written"
    if mapped == "huge page":
        shared = "; where a fork shares the page, it splits the entry and copies 4 KiB"
        return "needs none, or makes the entry writable" + (shared if vma.file is None else "")
    flags = huge_memory.fault_flags(k, vma)
    may = flags & (huge_memory.THP_FAULT | huge_memory.THP_SHMEM | huge_memory.THP_WITHIN)
    if mapped != "nothing" or not may or first < vma.start or first + PMD_PAGES > vma.end:
        return "takes small pages"
    if flags & huge_memory.THP_DIRECT:
        return "takes a huge page; if none is free it compacts and reclaims for one, which may take milliseconds"
    return "takes a huge page if one is free on the node, else a small page" + (" and wakes kswapd" if flags & huge_memory.THP_KSWAPD else "")
