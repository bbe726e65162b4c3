"""madvise: what a program says about its memory, and what the kernel makes of it (mm/madvise.c).

Four kinds of advice:

    flags       dontfork, wipeonfork, hugepage, mergeable, random, … set a VM_ flag: mappings split and merge
    give up     dontneed   entries are cleared now: anonymous memory is zero again, a file is read again
                free       pages may be taken when memory is short; until then they are there, and a write keeps them
                remove     a hole in the file or the shared memory itself, for everybody
    get ready   willneed   read a file ahead; populate_read, populate_write fault pages in
    reclaim     cold       to the inactive list;  pageout  out, now

Advice goes mapping by mapping. A hole does not stop it, but the answer is ENOMEM in the end; a mapping that cannot
take the advice stops it with EINVAL. Running out of mappings (vm.max_map_count) is EAGAIN here.

MADV_FREE in detail: the page keeps its content and its entry; the entry's D and A bits are cleared, the page loses
PG_swapbacked and goes to the inactive *file* list, where reclaim looks first. RSS does not change, LazyFree in
smaps does. A write sets D again and reclaim leaves the page alone.

Without swap MADV_PAGEOUT can take clean file pages that nobody else maps, and pages given up by MADV_FREE; an
anonymous page has nowhere to go and is put on the active list, as in Linux.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import (
    PAGE_SHIFT,
    PAGE_SIZE,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    VM_WRITE,
)
from core.abi.page_flags import PG_ACTIVE, PG_ANON, PG_DIRTY, PG_LRU, PG_REFERENCED, PG_SHMEM, PG_SWAPBACKED, PG_SWAPCACHE, PG_UNEVICTABLE
from core.jit import inline, njit, step
from core.mm import filemap, huge_memory, hugetlb, hugetlbfs, khugepaged, ksm, memory, mmzone, rmap_walk, shmem_swap, tlb, vmscan
from core.mm.compound import PG_COMPOUND, compound_head, page_mapcount, total_mapcount
from core.mm.fault import next_block
from core.mm.filemap import next_cached
from core.mm.gfp_types import GFP_FILLED_PAGE
from core.mm.huge_memory import put_split_head, split_huge_page, split_page_at
from core.mm.mm_inline import lru_gen_enabled
from core.mm.mm_types import CTL_HUGE_ZERO, HPAGE_PMD_NR, MM_SWAPENTS, State
from core.mm.mmap import page_align
from core.mm.page_alloc import zone_of
from core.mm.page_ops import DONE, remove_from_page_cache, xa_leaf
from core.mm.pgtable import PTE_A, PTE_D, PTE_PRESENT, PTE_SPECIAL, find_pte_table, find_table, huge_entry, pte_pfn
from core.mm.rmap_walk import Rmap
from core.mm.shmem_swap import next_swapped
from core.mm.swap import lru_add, lru_del, lru_pages
from core.mm.swap_readahead import read_place
from core.mm.swap_state import free_swap, free_swap_and_cache, read_swap_cache
from core.mm.swapfile import swap_area, swp_slot
from core.mm.util import update_hiwater_rss
from core.mm.vma import find_vma, set_vma
from core.vmstat import EVENT, MEMCG, MEMCG_PGDEACTIVATE, MEMCG_PGLAZYFREE, PGDEACTIVATE, PGLAZYFREE

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma
    from core.sched.task import Task

PGLAZYFREED = EVENT["pglazyfreed"]
MEMCG_PGLAZYFREED = MEMCG["pglazyfreed"]

# advice -> (flags it takes off, flags it sets)
FLAG_ADVICE: dict[str, tuple[int, int]] = {
    "normal": (VM_RAND_READ | VM_SEQ_READ, 0),
    "random": (VM_SEQ_READ, VM_RAND_READ),
    "sequential": (VM_RAND_READ, VM_SEQ_READ),
    "dontfork": (0, VM_DONTCOPY),
    "dofork": (VM_DONTCOPY, 0),
    "wipeonfork": (0, VM_WIPEONFORK),
    "keeponfork": (VM_WIPEONFORK, 0),
    "dontdump": (0, VM_DONTDUMP),
    "dodump": (VM_DONTDUMP, 0),
    "mergeable": (0, VM_MERGEABLE),
    "unmergeable": (VM_MERGEABLE, 0),
    "hugepage": (VM_NOHUGEPAGE, VM_HUGEPAGE),
    "nohugepage": (VM_HUGEPAGE, VM_NOHUGEPAGE),
}

Action = Callable[["Kernel", "Task", "Vma", int, int, str], None]


def do_madvise(k: Kernel, task: Task, address: int, length: int, advice: str) -> None:
    """madvise(2). Errors: EINVAL, ENOMEM (a hole), EAGAIN, EACCES, EFAULT."""
    if address & (PAGE_SIZE - 1):
        raise SysError(Errno.EINVAL, "the address is not a multiple of 4096")
    size = page_align(length)
    if (length and not size) or address + size > 1 << 64:
        raise SysError(Errno.EINVAL, "the range wraps around")
    start, end = address >> PAGE_SHIFT, (address + size) >> PAGE_SHIFT
    if start == end:
        return
    k.clock.spend(k.costs.vma)
    if advice in ("populate_read", "populate_write"):
        _populate(k, task, start, end, advice == "populate_write")
        return
    action = ACTIONS.get(advice, _set_flags)
    mm = task.mm
    assert mm is not None
    hole = False
    at = start
    while at < end:
        vma = find_vma(mm, at)
        if vma is None or vma.start >= end:
            hole = True
            break
        if vma.start > at:
            hole, at = True, vma.start
        stop = min(vma.end, end)
        action(k, task, vma, at, stop, advice)
        at = stop
    if hole:
        raise SysError(Errno.ENOMEM, "part of the range is not mapped; the rest took the advice")


# ---------------------------------------------------------------- flags


def _set_flags(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> None:
    """Advice that is a VM_ flag (madvise_vma_behavior)."""
    clear, add = FLAG_ADVICE[advice]
    flags = vma.flags
    if advice == "dofork" and flags & VM_IO:
        raise SysError(Errno.EINVAL, "device memory is never inherited")
    if advice == "wipeonfork" and (vma.file is not None or flags & VM_SHARED):
        raise SysError(Errno.EINVAL, "only private anonymous memory can be wiped on fork")
    if advice == "dodump" and flags & VM_SPECIAL and not flags & VM_HUGETLB:
        raise SysError(Errno.EINVAL, "special mappings are never dumped")
    if advice in ("mergeable", "unmergeable") and not ksm.ksm_madvise(k, task, vma, start, end, advice):
        return
    new = (flags & ~clear) | add
    if advice == "hugepage" and vma.file is not None:
        huge_memory.khugepaged_enter(k, vma)  # by what it was advised so far: shared memory is asked before the flag is set
    if new == flags:
        return
    try:
        vma = set_vma(k, vma, start, end, new, vma.policy)
    except SysError as failure:
        raise SysError(Errno.EAGAIN, failure.why) from None
    if advice == "hugepage" and vma.file is None:
        huge_memory.khugepaged_enter(k, vma)


def _collapse(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> None:
    """MADV_COLLAPSE: every whole 2 MiB becomes a huge page, now."""
    khugepaged.madvise_collapse(k, task, vma, start, end)


# ---------------------------------------------------------------- giving up


def _dontneed(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> None:
    """MADV_DONTNEED and MADV_DONTNEED_LOCKED: the entries are cleared."""
    if vma.flags & VM_PFNMAP or (vma.flags & VM_LOCKED and advice == "dontneed"):
        raise SysError(Errno.EINVAL, "locked and special mappings cannot be given up")
    if vma.flags & VM_HUGETLB:  # whole pages only, so that nobody loses what he did not name
        tail = hugetlb.hstate_vma(vma).nr_pages - 1
        end &= ~tail
        if start & tail:
            raise SysError(Errno.EINVAL, "the address is not a multiple of the huge page size")
        if start >= end:
            return
    update_hiwater_rss(k, vma.mm)
    memory.zap_page_range(k, vma, start, end)


def _free(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> None:
    """MADV_FREE: private anonymous memory only."""
    if vma.flags & (VM_PFNMAP | VM_LOCKED):
        raise SysError(Errno.EINVAL, "locked and special mappings cannot be given up")
    if vma.file is not None or vma.special:
        raise SysError(Errno.EINVAL, "only private anonymous memory can be freed lazily")
    memory.begin(k, task, vma, memory.READ, start, 1, end)
    lazyfree_ptes(k.s, rmap_walk.tables(k))
    if int(k.s.vmf["count"][0, 0]):
        memory.sync_mm_rss(k, vma.mm)
    tlb.flush_tlb_mm_range(k, vma.mm, start, end, "madvise(MADV_FREE) made its pages clean")


def _remove(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> None:
    """MADV_REMOVE: punch a hole into the object behind a shared writable mapping."""
    file = vma.file
    if vma.flags & VM_LOCKED or file is None:
        raise SysError(Errno.EINVAL, "nothing behind this mapping can be removed")
    if vma.flags & (VM_SHARED | VM_WRITE) != VM_SHARED | VM_WRITE:
        raise SysError(Errno.EACCES, "the mapping is not shared and writable")
    first, last = start - vma.start + vma.pgoff, end - vma.start + vma.pgoff
    if file.hstate is not None:
        hugetlbfs.fallocate(k, task, file, first << PAGE_SHIFT, (last - first) << PAGE_SHIFT, punch=True, keep_size=True)
        return
    for other in file.vmas:
        low, high = max(other.start, other.start + first - other.pgoff), min(other.end, other.start + last - other.pgoff)
        if low < high and other.flags & VM_SHARED:
            memory.zap_page_range(k, other, low, high)
    if file.root:
        for border in (first, last):
            split_at_border(k.s, rmap_walk.tables(k), file.root, border)
        rmap_walk.settle(k)
        memory.begin(k, task, vma, memory.READ, first, 1, min(last, file.nr_file_pages))
        punch_pages(k.s)
        if file.shmem:
            shmem_swap.free_swapped(k.s, file.root, first, last)
        v = k.s.vmf[0]
        file.nr_pages -= int(v["count"][0])
        file.nr_dirty -= int(v["count"][1])


# ---------------------------------------------------------------- getting ready


def _willneed(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> None:
    """MADV_WILLNEED: read a file's range ahead; what is swapped of anonymous and shared memory comes back to the swap cache."""
    first, last = start - vma.start + vma.pgoff, end - vma.start + vma.pgoff
    if vma.file is None:
        memory.begin(k, task, vma, memory.READ, start, 1, end)
        _swap_in(k, vma, willneed_ptes)
    elif not vma.file.shmem and vma.file.hstate is None:
        filemap.willneed(k, task, vma.file, first, last)
    elif vma.file.shmem and vma.file.root:
        memory.begin(k, task, vma, memory.READ, first, 1, min(last, vma.file.nr_file_pages))
        _swap_in(k, vma, willneed_tree)


def _swap_in(k: Kernel, vma: Vma, loop: Callable[[State], None]) -> None:
    """Read swapped pages into the swap cache, as many as memory and the cgroup's limit give room for; they are mapped when they are touched."""
    with contextlib.suppress(SysError):
        memory.finish(k, vma, loop, GFP_FILLED_PAGE)
    if pages := int(k.s.vmf[0]["ra_pages"]):
        device = int(k.s.vmf[0]["read_slot"])
        area = k.s.swaps[device]
        k.clock.spend(int(area["latency"]) + pages * PAGE_SIZE * 1_000_000_000 // int(area["bandwidth"]))


def _populate(k: Kernel, task: Task, start: int, end: int, write: bool) -> None:
    """MADV_POPULATE_READ, _WRITE: fault every page in; each is a fault of the caller's. EINVAL, ENOMEM, EFAULT."""
    mm = task.mm
    assert mm is not None
    at = start
    while at < end:
        vma = find_vma(mm, at)
        if vma is None or vma.start > at:
            raise SysError(Errno.ENOMEM, f"nothing is mapped at {at << PAGE_SHIFT:#x}")
        if vma.flags & (VM_IO | VM_PFNMAP) or not memory.permitted(vma, memory.WRITE if write else memory.READ):
            raise SysError(Errno.EINVAL, "the mapping does not permit the access")
        stop = min(vma.end, end)
        memory.populate(k, task, at, stop, write)
        at = stop


# ---------------------------------------------------------------- reclaiming


def _check_lru(vma: Vma) -> None:
    if vma.flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB):
        raise SysError(Errno.EINVAL, "locked and special mappings are not on the lists of reclaim")


def _cold(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> None:
    """MADV_COLD: pages that only this process maps go to the inactive list, unreferenced."""
    _check_lru(vma)
    memory.begin(k, task, vma, memory.READ, start, 1, end)
    cold_ptes(k.s, rmap_walk.tables(k))
    rmap_walk.settle(k)
    tlb.flush_tlb_mm_range(k, vma.mm, start, end, "madvise(MADV_COLD) made its pages old")


def _pageout(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> None:
    """MADV_PAGEOUT: as COLD, then out: what is clean and the file's, or lazily freed."""
    _check_lru(vma)
    if vma.file is not None and not vma.file.writable:
        return
    update_hiwater_rss(k, vma.mm)
    memory.begin(k, task, vma, memory.READ, start, 1, end)
    vmscan.pageout(k, mmzone.cpu_to_node(k, task.cpu))


ACTIONS: dict[str, Action] = {
    "dontneed": _dontneed,
    "dontneed_locked": _dontneed,
    "free": _free,
    "remove": _remove,
    "willneed": _willneed,
    "cold": _cold,
    "pageout": _pageout,
    "collapse": _collapse,
}


# ---------------------------------------------------------------- page loops


@inline
def mark_page_lazyfree(s: State, zid: int, pfn: int) -> None:
    """An anonymous page becomes one that reclaim may drop (mark_page_lazyfree)."""
    page = s.mem[pfn]
    flags = page["flags"]
    if flags & PG_LRU and flags & PG_ANON and flags & PG_SWAPBACKED and not flags & (PG_SWAPCACHE | PG_UNEVICTABLE):
        lru_del(s, zid, pfn)
        page["flags"] &= ~(PG_ACTIVE | PG_REFERENCED | PG_SWAPBACKED)
        lru_add(s, zid, pfn)
        nr = lru_pages(page["flags"])
        s.vm_event[PGLAZYFREE] += nr
        s.memcgs[page["memcg"]]["stat"][MEMCG_PGLAZYFREE] += nr


@step
def lazyfree_huge(s: State, pgd: int, vpn: int, pages: int) -> None:
    """MADV_FREE on a huge entry, whole; of a page that nobody else maps (madvise_free_huge_pmd)."""
    tid, slot = find_table(s, pgd, vpn, 2), (vpn >> 9) & 511
    head = pte_pfn(s.pt[tid, slot])
    if pages < HPAGE_PMD_NR or head == s.ctl[CTL_HUGE_ZERO] or total_mapcount(s, head) != 1:
        return
    s.mem[head]["flags"] &= ~PG_DIRTY
    s.pt[tid, slot] &= ~(PTE_A | PTE_D)
    mark_page_lazyfree(s, zone_of(s, head), head)


@njit
def lazyfree_ptes(s: State, r: Rmap) -> None:
    """MADV_FREE on the entries of [vmf.first, vmf.n) (madvise_free_pte_range); what is in swap is dropped at once, vmf.count[0] of them."""
    v = s.vmf[0]
    pgd, at, end = s.mms[v["mm"]]["pgd"], v["first"], v["n"]
    v["count"][0] = 0
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if not huge_entry(s, pgd, at):
                at = next_block(s, pgd, at, end)
            elif stop - at == HPAGE_PMD_NR or not split_page_at(s, r, v["mm"], at):
                lazyfree_huge(s, pgd, at, stop - at)
                at = stop
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if pte == 0:
                continue
            if not pte & PTE_PRESENT:
                s.pt[tid, vpn & 511] = 0
                s.mms[v["mm"]]["rss"][MM_SWAPENTS] -= 1
                v["count"][0] += 1
                free_swap_and_cache(s, swp_slot(s, pte))
                continue
            if pte & PTE_SPECIAL:
                continue
            pfn = pte_pfn(pte)
            if s.mem[pfn]["flags"] & PG_COMPOUND:
                head = compound_head(s, pfn)
                if page_mapcount(s, pfn) != 1 or not split_huge_page(s, r, head):
                    break
                put_split_head(s, head)
            if not clean_alone(s, pfn):
                continue
            s.pt[tid, vpn & 511] = pte & ~(PTE_A | PTE_D)
            zid = zone_of(s, pfn)
            mark_page_lazyfree(s, zid, pfn)
        at = stop


@inline
def clean_alone(s: State, pfn: int) -> bool:
    """Make a page of MADV_FREE clean and without a slot, False where others have it too and its content must stay."""
    page = s.mem[pfn]
    if page["flags"] & (PG_SWAPCACHE | PG_DIRTY):
        if page["mapcount"] != 1 or (page["flags"] & PG_SWAPCACHE and not free_swap(s, zone_of(s, pfn), pfn)):
            return False
        page["flags"] &= ~PG_DIRTY
    return True


@inline
def deactivate_page(s: State, zid: int, pfn: int) -> None:
    """To the inactive list, unreferenced (deactivate_page)."""
    page = s.mem[pfn]
    page["flags"] &= ~PG_REFERENCED
    if (page["flags"] & PG_ACTIVE or lru_gen_enabled(s)) and not page["flags"] & PG_UNEVICTABLE:
        nr = lru_pages(page["flags"])
        lru_del(s, zid, pfn)
        page["flags"] &= ~PG_ACTIVE
        lru_add(s, zid, pfn)
        s.vm_event[PGDEACTIVATE] += nr
        s.memcgs[page["memcg"]]["stat"][MEMCG_PGDEACTIVATE] += nr


@step
def cold_huge(s: State, pgd: int, vpn: int, pages: int) -> None:
    """MADV_COLD on a huge entry, whole; of a page that nobody else maps."""
    tid, slot = find_table(s, pgd, vpn, 2), (vpn >> 9) & 511
    head = pte_pfn(s.pt[tid, slot])
    if pages < HPAGE_PMD_NR or head == s.ctl[CTL_HUGE_ZERO] or total_mapcount(s, head) != 1:
        return
    s.pt[tid, slot] &= ~PTE_A
    deactivate_page(s, zone_of(s, head), head)


@njit
def cold_ptes(s: State, r: Rmap) -> None:
    """MADV_COLD on [vmf.first, vmf.n) (madvise_cold_or_pageout_pte_range, deactivate_page)."""
    v = s.vmf[0]
    pgd, at, end = s.mms[v["mm"]]["pgd"], v["first"], v["n"]
    v["count"][0] = 0
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if not huge_entry(s, pgd, at):
                at = next_block(s, pgd, at, end)
            elif stop - at == HPAGE_PMD_NR or not split_page_at(s, r, v["mm"], at):
                cold_huge(s, pgd, at, stop - at)
                at = stop
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
                continue
            pfn = pte_pfn(pte)
            page = s.mem[pfn]
            if page["flags"] & PG_COMPOUND:
                head = compound_head(s, pfn)
                if page_mapcount(s, pfn) != 1 or not split_huge_page(s, r, head):
                    break
                put_split_head(s, head)
            if page["mapcount"] != 1 or not page["flags"] & PG_LRU:
                continue
            s.pt[tid, vpn & 511] &= ~PTE_A
            deactivate_page(s, zone_of(s, pfn), pfn)
        at = stop


@njit
def willneed_ptes(s: State) -> None:
    """Read what the entries of [vmf.first, vmf.n) have in swap (swapin_walk_pmd_entry); `read_slot`: the device of the last one."""
    v = s.vmf[0]
    pgd, at, end = s.mms[v["mm"]]["pgd"], v["first"] + v["done"], v["n"]
    v["reason"] = DONE
    while at < end:
        tid = find_pte_table(s, pgd, at)
        if tid == 0:
            at = next_block(s, pgd, at, end)
            continue
        pte = s.pt[tid, at & 511]
        if pte and not pte & PTE_PRESENT and not swap_in_slot(s, v, swp_slot(s, pte), at):
            break
        at += 1
    v["done"] = at - v["first"]


@njit
def willneed_tree(s: State) -> None:
    """Read the swapped pages vmf.first .. vmf.n of vmf.file (shmem_swapin_range)."""
    v = s.vmf[0]
    v["reason"] = DONE
    at = next_swapped(s, v["root"], v["first"] + v["done"], v["n"])
    while at >= 0:
        v["done"] = at - v["first"]
        if not swap_in_slot(s, v, -s.xa[xa_leaf(s, v["root"], at), at & 511], at - v["vm_pgoff"] + v["vm_start"]):
            return
        at = next_swapped(s, v["root"], at + 1, v["n"])


@step
def swap_in_slot(s: State, v, slot: int, vpn: int) -> bool:
    """One page comes to the swap cache unless it is there; False where no frame can be had (vmf.reason), as of a read ahead of one page."""
    v["read_slot"] = swap_area(s, slot)
    came = read_swap_cache(s, v, slot, slot, slot, vpn) > slot
    v["ra_slot"] = slot
    v["ra_next"] = v["ra_last"] = 0 if came else read_place(s, v, slot, vpn)
    return came


@njit
def split_at_border(s: State, r: Rmap, root: int, border: int) -> None:
    """A huge page of shared memory across page `border` of its object comes apart (truncate_inode_partial_folio)."""
    leaf = xa_leaf(s, root, border)
    pfn = s.xa[leaf, border & 511] if leaf and border & 511 else 0
    if pfn > 0 and s.mem[pfn]["flags"] & PG_COMPOUND:
        split_huge_page(s, r, compound_head(s, pfn))


@njit
def punch_pages(s: State) -> None:
    """Drop the cached pages vmf.first .. vmf.n that nobody maps; `count`: pages, and how many of them were dirty."""
    v = s.vmf[0]
    dropped, dirty = 0, 0
    at = next_cached(s, v["root"], v["first"], v["n"])
    while at >= 0:
        leaf = xa_leaf(s, v["root"], at)
        pfn = s.xa[leaf, at & 511]
        if s.mem[pfn]["flags"] & PG_COMPOUND:
            if total_mapcount(s, compound_head(s, pfn)) == 0:
                remove_from_page_cache(s, zone_of(s, pfn), leaf, pfn, 0)
                dropped += HPAGE_PMD_NR
            at |= 511
        elif s.mem[pfn]["mapcount"] == 0:
            zid = zone_of(s, pfn)
            if s.mem[pfn]["flags"] & PG_DIRTY and not s.mem[pfn]["flags"] & PG_SHMEM:
                dirty += 1
            remove_from_page_cache(s, zid, leaf, pfn, v["block_heads"])
            dropped += 1
        at = next_cached(s, v["root"], at + 1, v["n"])
    v["count"][0], v["count"][1] = dropped, dirty
