"""Why a page of a pool of huge pages can be had here, or why a touch is SIGBUS: the arithmetic of promises, said aloud.

The rules are `hugetlb`'s; nothing is changed by asking. Worked example, nr_hugepages 2, no surplus allowed, a private mapping of 2 pages:

    promised 2 of 2: free 2, rsvd 2, available 0     its own touches take the promised pages
    a child of fork writes                           the copy needs a page nobody was promised: 0 available, 0 surplus: SIGBUS
    the parent writes first                          its promise was used: the child's copy is taken away, and the *child's* next touch is SIGBUS
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi.mman import VM_HUGETLB, VM_MAYSHARE, VM_NORESERVE
from core.mm import hugetlb, hugetlb_cgroup, hugetlb_fault
from core.mm.pgtable import PTE_RW
from core.mm.vma import vma_lookup
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.hugetlb_types import Hstate
    from core.mm.mm_types import Vma
    from core.sched.task import Task


def explain_hugetlb(k: Kernel, pid: int, address: int | None = None) -> dict[str, Any]:
    """The pools of huge pages and what a process was promised of them; with an `address`, what a write there would come to, and why.

    pools: by page size the four counters; available = free - rsvd; promisable = available + overcommit - surplus: the largest mapping that mmap
    would grant now. mappings: {start, end, page_size, kind, pages, mapped, promised, why}. at: {mapped, promised, outcome, why}; outcome is
    mapped, pool, surplus, file, reuse or SIGBUS. LookupError for an unknown pid.
    """
    task = find_task(k, pid)
    vmas = [vma for vma in task.mm.vmas if vma.flags & VM_HUGETLB] if task.mm is not None else []
    return {
        "pid": pid,
        "comm": task.comm,
        "pools": [_pool(h) for h in k.hstates],
        "mappings": [_mapping(k, vma) for vma in vmas],
        "at": _at(k, task, address) if address is not None else None,
    }


def _pool(h: Hstate) -> dict[str, Any]:
    """One pool's counters, and what they come to."""
    spare = 0 if h.gigantic else max(0, h.nr_overcommit_huge_pages - h.surplus_huge_pages)
    return {
        "page_size": h.size,
        "total": h.nr_huge_pages, "free": h.free_huge_pages, "rsvd": h.resv_huge_pages, "surplus": h.surplus_huge_pages,
        "overcommit": h.nr_overcommit_huge_pages,
        "available": h.available,
        "promisable": h.available + spare,
        "why": f"{h.free_huge_pages} free - {h.resv_huge_pages} promised = {h.available} for whoever comes; "
               f"{h.nr_overcommit_huge_pages} allowed beyond nr_hugepages - {h.surplus_huge_pages} taken = {spare} that the machine may add",
    }  # fmt: skip


def _mapping(k: Kernel, vma: Vma) -> dict[str, Any]:
    """One mapping: how many of its pages are mapped, how many of the others were promised."""
    h = hugetlb.hstate_vma(vma)
    mapped = {vpn for vpn, _ in hugetlb_fault.entries(k, vma, vma.start, vma.end)}
    places = range(vma.start, vma.end, h.nr_pages)
    promised = sum(1 for vpn in places if vpn not in mapped and _promised(h, vma, vpn))
    return {
        "start": hex(vma.start << 12), "end": hex(vma.end << 12), "page_size": h.size,
        "kind": "shared" if vma.flags & VM_MAYSHARE else "private",
        "pages": len(places), "mapped": len(mapped), "promised": promised, "why": _whose(vma),
    }  # fmt: skip


def _promised(h: Hstate, vma: Vma, vpn: int) -> bool:
    """May a first touch of this page take one that is set aside by a promise?"""
    return hugetlb.vma_has_reserves(vma, int(hugetlb.vma_needs_reservation(h, vma, vpn)))


def _whose(vma: Vma) -> str:
    """Where a mapping's promises come from."""
    if vma.flags & VM_NORESERVE:
        return "MAP_NORESERVE: nothing was promised, a touch takes what is left"
    if vma.flags & VM_MAYSHARE:
        return "the promises are the file's, page by page, whoever touches it first"
    if vma.resv is not None:
        return "the promises were made to this mapping when it was made"
    return "inherited by fork: the promises stayed with the parent, every page of its own is one that nobody was promised"


def _at(k: Kernel, task: Task, address: int) -> dict[str, Any]:
    """What a write to one address would come to."""
    vma = vma_lookup(task.mm, address >> 12) if task.mm is not None else None
    if vma is None or not vma.flags & VM_HUGETLB:
        return {"mapped": False, "promised": False, "outcome": None, "why": "no mapping of hugetlb covers the address"}
    h = hugetlb.hstate_vma(vma)
    vpn = (address >> 12) & ~(h.nr_pages - 1)
    entry = int(hugetlb_fault.huge_pte(k.s, int(k.s.mms["pgd"][vma.mm.id]), vpn, h.order))
    outcome, why = _touched(k, task, vma, h, vpn, entry) if entry else _untouched(k, task, vma, h, vpn)
    return {"mapped": bool(entry), "promised": _promised(h, vma, vpn), "outcome": outcome, "why": why}


def _touched(k: Kernel, task: Task, vma: Vma, h: Hstate, vpn: int, entry: int) -> tuple[str, str]:
    """A page is mapped: the write hits it, or wants a copy."""
    if entry & PTE_RW:
        return "mapped", "the page is mapped and writable"
    if vma.flags & VM_MAYSHARE:
        return "reuse", "a shared page: its entry is made writable"
    pfn = hugetlb_fault.pfn_of(entry)
    if hugetlb_fault.mapcount(k, pfn) == 1 and not _is_cached(vma, h, vpn, pfn):
        return "reuse", "nobody else maps the page any more: it is taken over"
    outcome, why = _page(k, task, vma, h, vpn, avoid_reserve=vma.resv is not None)
    if outcome == "SIGBUS" and vma.resv is not None:
        return "reuse", f"{why}. But this mapping was promised the page: it is taken away from those who were not, and they get SIGBUS"
    return outcome, f"others map the page: the write needs a copy. {why}"


def _is_cached(vma: Vma, h: Hstate, vpn: int, pfn: int) -> bool:
    """Is the page that is mapped the file's own?"""
    return vma.file is not None and vma.file.huge_pages.get(hugetlb.vma_hugecache_offset(h, vma, vpn)) == pfn


def _untouched(k: Kernel, task: Task, vma: Vma, h: Hstate, vpn: int) -> tuple[str, str]:
    """Nothing is mapped yet."""
    index = hugetlb.vma_hugecache_offset(h, vma, vpn)
    assert vma.file is not None
    if vma.resv_unmapped:
        return "SIGBUS", "a page of this mapping was taken away for the owner of the promise; whoever touches the mapping again is killed"
    if index in vma.file.huge_pages:
        return "file", "the file has the page already: it is mapped"
    if index >= vma.file.size // h.size:
        return "SIGBUS", "the page lies beyond the end of the file"
    return _page(k, task, vma, h, vpn, avoid_reserve=False)


def _page(k: Kernel, task: Task, vma: Vma, h: Hstate, vpn: int, *, avoid_reserve: bool) -> tuple[str, str]:
    """Where a fresh page would come from, in the order in which it is looked for (`hugetlb.alloc_huge_page`)."""
    unpromised = hugetlb.vma_needs_reservation(h, vma, vpn) or avoid_reserve
    spool = vma.file.spool if vma.file is not None else None
    if unpromised and spool is not None and 0 <= spool.max_hpages <= spool.used_hpages:
        return "SIGBUS", f"the mount's size= allows {spool.max_hpages} pages, and all are in use"
    limit = _limit(k, task, h, rsvd=unpromised)
    if limit is not None:
        return "SIGBUS", limit
    if not unpromised and hugetlb.vma_has_reserves(vma, 0):
        return "pool", "the page was promised: one of the free pages is set aside for it"
    if h.available > 0:
        return "pool", f"no promise covers it, but {h.available} free pages are promised to nobody"
    if not h.gigantic and h.surplus_huge_pages < h.nr_overcommit_huge_pages:
        return "surplus", "no page is left in the pool: one more is taken from the machine's free memory, if it has a block of that size"
    return "SIGBUS", (
        f"no promise covers it, {h.free_huge_pages} pages are free and {h.resv_huge_pages} of them promised to others, "
        + ("and pages of 1 GiB are never surplus" if h.gigantic else f"and nr_overcommit_hugepages ({h.nr_overcommit_huge_pages}) allows no more")
    )


def _limit(k: Kernel, task: Task, h: Hstate, *, rsvd: bool) -> str | None:
    """The cgroup whose limit of the hugetlb controller is in the way."""
    payer = hugetlb_cgroup.payer(task)
    for cg in payer.ancestors[:-1] if payer is not None else ():
        at = hugetlb_cgroup.read(k, cg, h)
        if at.usage + h.nr_pages > at.max:
            return f"hugetlb.{h.size >> 20}MB.max of {cg.path} is reached"
        if rsvd and at.rsvd_usage + h.nr_pages > at.rsvd_max:
            return f"hugetlb.{h.size >> 20}MB.rsvd.max of {cg.path} is reached"
    return None
