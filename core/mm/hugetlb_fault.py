"""Huge pages of a pool in address spaces: faults, copies, fork, munmap, mprotect, mremap (the second half of mm/hugetlb.c).

A mapping of hugetlb has no page tables of the last level: a page of 2 MiB is one entry of a PMD table with the PS bit, a page of 1 GiB one of a PUD
table. So a touched GiB costs one page table with 2 MiB pages and none with 1 GiB pages, where 4 KiB pages need 513. There is nothing to split: what
is done is done to whole pages, and whatever cuts a mapping inside a page is refused with EINVAL.

    first touch, shared       the page of the file, made if need be; both fault and page are the file's        (hugetlb_no_page)
    first touch, private      a page of the file is mapped read-only and copied on a write; else a page of one's own
    write to a shared page    private: the only user keeps it, any other gets a copy                           (hugetlb_wp)

**The child may lose.** After fork a private page is shared. The first to write gets the copy. If that is the parent and the pool is empty, its
promise must be kept: the page is taken *away from the child* (`unmap_ref_private`), and the child's next touch is a SIGBUS, with "PID %d killed due
to inadequate hugepage pool" in the log. If it is the child that writes, the child gets the SIGBUS: it was never promised anything.

    nr_hugepages 2    A maps and touches 1 page, forks B; another process takes the second page
    A writes          no page for the copy: B loses its entry, A keeps the page, no copy is made
    B reads           SIGBUS

These pages are on no LRU list: never swapped, never reclaimed, not part of RSS, nor of the cgroup's memory.current. `HugetlbPages` of status
counts them.

Large shared mappings share page tables between processes: `hugetlb_share`.

Source: mm/hugetlb.c:hugetlb_fault, hugetlb_wp, copy_hugetlb_page_range, __unmap_hugepage_range, hugetlb_change_protection; facts HG-05, 06, 09..12.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.mman import VM_MAYSHARE, VM_SHARED, VM_WRITE
from core.abi.page_flags import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY, PG_UPTODATE
from core.events import Fault
from core.jit import inline, njit
from core.mm import hugetlb, hugetlb_share, memory, rmap, told
from core.mm.fault import F_PERM
from core.mm.hugetlb import (
    alloc_huge_page,
    free_huge_page,
    hstate_vma,
    vma_hugecache_offset,
)
from core.mm.mm_types import Mm, State
from core.mm.page_ops import DONE, OUT_OF_VMA, alloc_table, check_sync_rss_stat
from core.mm.pgtable import (
    PFN_MASK,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PCD,
    PTE_PS,
    PTE_PWT,
    PTE_RW,
    PTE_SOFT_DIRTY,
    PTE_SPECIAL,
    TABLE_ENTRY,
    find_table,
    table_of,
)
from core.panic import Signal
from core.vmstat import MEMCG_PGFAULT, PGFAULT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.hugetlb_types import Hstate, HugetlbPage
    from core.mm.memory import TouchOutcome
    from core.mm.mm_types import Array, Inode, Vma
    from core.sched.task import Task

HUGE_FAULT = 64  # vmf.reason of `access_huge`: this page is not mapped, or not for writing
CHG_MASK = PFN_MASK | PTE_PCD | PTE_PWT | PTE_SPECIAL | PTE_A | PTE_D | PTE_SOFT_DIRTY | PTE_PS  # what mprotect keeps
DIRTIED = PTE_RW | PTE_D | PTE_SOFT_DIRTY


# ---------------------------------------------------------------- entries


@inline
def huge_table(s: State, pgd: int, vpn: int, order: int) -> int:
    """The row of the table whose entries map pages of this size: PMD for 2 MiB, PUD for 1 GiB; 0 if it is not there."""
    return find_table(s, pgd, vpn, 2 if order == 9 else 1)


@njit
def huge_pte(s: State, pgd: int, vpn: int, order: int) -> int:
    """The entry that maps the huge page around an address; 0 if there is none (huge_pte_offset)."""
    tid = huge_table(s, pgd, vpn, order)
    return s.pt[tid, (vpn >> order) & 511] if tid else 0


@njit
def set_huge_pte(s: State, pgd: int, vpn: int, order: int, entry: int) -> None:
    """Write the entry of a page whose table is there."""
    s.pt[huge_table(s, pgd, vpn, order), (vpn >> order) & 511] = entry


@njit
def next_huge_pte(s: State, pgd: int, order: int, vpn: int, end: int) -> int:
    """The first huge page of [vpn, end) that is mapped; `end` if there is none."""
    size = 1 << order
    while vpn < end:
        tid = huge_table(s, pgd, vpn, order)
        if tid == 0:
            vpn = ((vpn >> (order + 9)) + 1) << (order + 9)
            continue
        if s.pt[tid, (vpn >> order) & 511]:
            return vpn
        vpn += size
    return end


@njit
def alloc_huge_tables(s: State) -> None:
    """The tables above the huge page at vmf.first of order vmf.other (huge_pte_alloc); stops with a reason where one cannot be had."""
    v = s.vmf[0]
    vpn, levels = v["first"], 2 if v["other"] == 9 else 1
    tid = s.mms[v["mm"]]["pgd"]
    shift = 27
    v["reason"] = DONE
    for level in range(levels):
        entry = s.pt[tid, (vpn >> shift) & 511]
        if entry == 0:
            pfn = alloc_table(s, v)
            if pfn == 0:
                return
            entry = (pfn << 12) | TABLE_ENTRY
            s.pt[tid, (vpn >> shift) & 511] = entry
            s.mms[v["mm"]]["nr_tables"][2 - level] += 1
        tid = table_of(s, entry)
        shift -= 9


def huge_pte_alloc(k: Kernel, vma: Vma, vpn: int, order: int) -> None:
    """See to it that the tables above a huge page are there, its own or another process's. SysError(ENOMEM)."""
    if hugetlb_share.shareable(vma, vpn):
        memory.begin(k, k.current, vma, memory.READ, vpn, 1, vpn + 1, other=hugetlb.PUD_ORDER)
        memory.finish(k, vma, alloc_huge_tables)
        hugetlb_share.huge_pmd_share(k, vma, vpn)
    memory.begin(k, k.current, vma, memory.READ, vpn, 1, vpn + 1, other=order)
    memory.finish(k, vma, alloc_huge_tables)


def entries(k: Kernel, vma: Vma, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(vpn, entry) of every huge page that a mapping has in [start, end); the one at hand may be changed."""
    order, pgd = hstate_vma(vma).order, int(k.s.mms["pgd"][vma.mm.id])
    at = int(next_huge_pte(k.s, pgd, order, start, end))
    while at < end:
        yield at, int(huge_pte(k.s, pgd, at, order))
        at = int(next_huge_pte(k.s, pgd, order, at + (1 << order), end))


def pfn_of(entry: int) -> int:
    """The head frame that an entry names."""
    return (entry & PFN_MASK) >> 12


def _set(k: Kernel, mm: Mm, vpn: int, order: int, entry: int) -> None:
    set_huge_pte(k.s, int(k.s.mms["pgd"][mm.id]), vpn, order, entry)


def mapcount(k: Kernel, pfn: int) -> int:
    """How many entries map a page of a pool (compound_mapcount)."""
    return int(k.s.mem["index"][pfn + 1])


def make_huge_pte(vma: Vma, pfn: int, *, writable: bool) -> int:
    """The entry for a page: a writable one is dirty at once."""
    prot = memory.page_prot(vma.flags) | PTE_PS | PTE_A
    return (pfn << 12) | (prot | DIRTIED if writable else prot & ~PTE_RW)


# ---------------------------------------------------------------- references


def _map(k: Kernel, vma: Vma, vpn: int, h: Hstate, entry: int) -> None:
    """One more entry; the page's reference for it is the caller's."""
    k.s.mem["index"][pfn_of(entry) + 1] += 1
    vma.mm.hugetlb_usage += h.nr_pages
    _set(k, vma.mm, vpn, h.order, entry)


def _unmap(k: Kernel, vma: Vma, vpn: int, h: Hstate, entry: int) -> None:
    """One entry less, with its reference (page_remove_rmap, put_page)."""
    pfn = pfn_of(entry)
    if entry & PTE_D:
        k.s.mem["flags"][pfn] |= PG_DIRTY
    _set(k, vma.mm, vpn, h.order, 0)
    k.s.mem["index"][pfn + 1] -= 1
    vma.mm.hugetlb_usage -= h.nr_pages
    put_huge_page(k, h, pfn)


def put_huge_page(k: Kernel, h: Hstate, pfn: int) -> None:
    """Drop a reference; the last one gives the page back to its pool."""
    k.s.mem["refcount"][pfn] -= 1
    if k.s.mem["refcount"][pfn] == 0:
        free_huge_page(k, h, h.pages[pfn])


def _new_anon(k: Kernel, vma: Vma, vpn: int, h: Hstate, page: HugetlbPage) -> None:
    """A page of this mapping's own (hugepage_add_new_anon_rmap)."""
    page.restore_reserve = False
    anon_vma = rmap.anon_vma_prepare(k, vma)
    mem, pfn = k.s.mem, page.pfn
    mem["flags"][pfn : pfn + h.nr_pages] |= PG_ANON
    mem["flags"][pfn] |= PG_UPTODATE | PG_ANON_EXCLUSIVE
    mem["mapping"][pfn] = anon_vma.id
    mem["index"][pfn] = vma_hugecache_offset(h, vma, vpn)


def add_to_page_cache(k: Kernel, inode: Inode, index: int, page: HugetlbPage) -> None:
    """A page becomes the file's; the file holds a reference of its own (hugetlb_add_to_page_cache)."""
    page.restore_reserve = False
    mem, pfn = k.s.mem, page.pfn
    mem["flags"][pfn] |= PG_UPTODATE | PG_DIRTY
    mem["mapping"][pfn] = inode.id
    mem["index"][pfn] = index
    mem["refcount"][pfn] += 1
    inode.huge_pages[index] = pfn


# ---------------------------------------------------------------- faults


@njit
def access_huge(s: State, order: int, perm) -> None:
    """Make accesses vmf.done .. vmf.n, as `access_pages` does, until one needs a fault (HUGE_FAULT) or lies outside the mapping."""
    v = s.vmf[0]
    start, end, first, step, n = v["vm_start"], v["vm_end"], v["first"], v["step"], v["n"]
    pgd, write, content = s.mms[v["mm"]]["pgd"], v["access"] == 1, v["content"]
    permuted = v["flags"] & F_PERM
    block, tid, tail = -1, 0, (1 << order) - 1
    v["reason"] = DONE
    i = v["done"]
    while i < n:
        vpn = first + (perm[i] if permuted else i * step)
        if vpn < start or vpn >= end:
            v["reason"] = OUT_OF_VMA
            break
        if vpn >> (order + 9) != block:
            block = vpn >> (order + 9)
            tid = huge_table(s, pgd, vpn, order)
        pte = s.pt[tid, (vpn >> order) & 511] if tid else 0
        if not pte & PTE_P or (write and not pte & PTE_RW):
            v["reason"] = HUGE_FAULT
            break
        if write:
            s.pt[tid, (vpn >> order) & 511] = pte | PTE_A | PTE_D
            s.mem[((pte & PFN_MASK) >> 12) + (vpn & tail)]["content"] = content if content >= 0 else 256 + vpn
        elif not pte & PTE_A:
            s.pt[tid, (vpn >> order) & 511] = pte | PTE_A
        i += 1
    v["done"] = i
    v["vpn"] = first + (perm[i] if permuted else i * step) if i < n else 0


@njit
def count_fault(s: State, mm: int, memcg: int) -> None:
    """What handle_mm_fault counts for any fault."""
    check_sync_rss_stat(s, mm)
    s.vm_event[PGFAULT] += 1
    s.memcgs[memcg]["stat"][MEMCG_PGFAULT] += 1


def access(k: Kernel, task: Task, vma: Vma, kind: int, first: int, step: int, n: int, *, perm: Array, flags: int, done: int,
           content: int, outcome: TouchOutcome) -> int:  # fmt: skip
    """A run of accesses to a mapping of hugetlb; returns how far it came. Signal(SIGBUS)."""
    h = hstate_vma(vma)
    runs = FaultRuns(k, task, h)
    try:
        while True:
            memory.begin(k, task, vma, kind, first, step, n, content=content, flags=flags, done=done)
            access_huge(k.s, h.order, perm)
            v = k.s.vmf[0]
            k.clock.spend((int(v["done"]) - done) * k.costs.access)
            done = int(v["done"])
            if int(v["reason"]) != HUGE_FAULT:
                return done
            vpn = int(v["vpn"])
            count_fault(k.s, vma.mm.id, int(v["memcg"]))
            k.clock.spend(k.costs.fault)
            runs.add(hugetlb_fault(k, task, vma, vpn, kind == memory.WRITE), vpn)
            task.minflt += 1  # not one that failed (mm_account_fault)
            outcome.faults += 1
    except Signal as signal:
        runs.end()
        told.emit_fault(k, task, "bus", signal.address >> 12, 1, None, major=False)
        raise
    finally:
        runs.end()


class FaultRuns:
    """Like faults of neighbouring huge pages, told as one event."""

    def __init__(self, k: Kernel, task: Task, h: Hstate) -> None:
        self.k, self.task, self.h = k, task, h
        self.kind, self.first, self.last, self.n, self.step = "", 0, 0, 0, 0

    def add(self, kind: str, vpn: int) -> None:
        """One fault."""
        if self.n and kind == self.kind and (self.n == 1 or vpn - self.last == self.step):
            self.n, self.step = self.n + 1, vpn - self.last
        else:
            self.end()
            self.kind, self.first, self.n, self.step = kind, vpn, 1, self.h.nr_pages
        self.last = vpn

    def end(self) -> None:
        """Tell it."""
        if self.n:
            k, task = self.k, self.task
            k.emit(Fault(k.clock.now, task.pid, self.kind, False, self.first << 12, self.n, self.step, task.cgroup.path))
        self.n = 0


def hugetlb_fault(k: Kernel, task: Task, vma: Vma, vpn: int, write: bool) -> str:
    """One fault: what it was, as the event calls it. Signal(SIGBUS) when the pool has no page for it."""
    h = hstate_vma(vma)
    huge_pte_alloc(k, vma, vpn, h.order)
    base = vpn & ~(h.nr_pages - 1)
    entry = int(huge_pte(k.s, int(k.s.mms["pgd"][vma.mm.id]), vpn, h.order))
    if entry == 0:
        return hugetlb_no_page(k, task, vma, h, base, write)
    if write and not entry & PTE_RW:
        found = None if vma.flags & VM_MAYSHARE else _cached(h, vma, base)
        return hugetlb_wp(k, task, vma, h, base, entry, found)
    _set(k, vma.mm, base, h.order, entry | PTE_A | (PTE_D if write else 0))
    return "reuse"


def _cached(h: Hstate, vma: Vma, vpn: int) -> int | None:
    assert vma.file is not None
    return vma.file.huge_pages.get(vma_hugecache_offset(h, vma, vpn))


def sigbus(vpn: int) -> Signal:
    """VM_FAULT_SIGBUS."""
    return Signal("SIGBUS", vpn << 12, "BUS_ADRERR")


def hugetlb_no_page(k: Kernel, task: Task, vma: Vma, h: Hstate, vpn: int, write: bool) -> str:
    """The first touch of a page."""
    file = vma.file
    assert file is not None
    if vma.resv_unmapped:
        k.log(4, f"PID {task.pid} killed due to inadequate hugepage pool")
        raise sigbus(vpn)
    pfn = _cached(h, vma, vpn)
    if pfn is None:
        index = vma_hugecache_offset(h, vma, vpn)
        page = alloc_huge_page(k, task, vma, vpn) if index < file.size // h.size else None
        if page is None:
            raise sigbus(vpn)
        pfn = page.pfn
        k.clock.spend(h.nr_pages * k.costs.clear_page)
        if vma.flags & VM_MAYSHARE:
            add_to_page_cache(k, file, index, page)
        else:
            _new_anon(k, vma, vpn, h, page)
    else:
        k.s.mem["refcount"][pfn] += 1
        k.clock.spend(k.costs.map_file)
    shared_write = vma.flags & (VM_SHARED | VM_WRITE) == VM_SHARED | VM_WRITE
    entry = make_huge_pte(vma, pfn, writable=shared_write)
    _map(k, vma, vpn, h, entry)
    if write and not vma.flags & VM_SHARED:
        hugetlb_wp(k, task, vma, h, vpn, entry, pfn)
    return "hugetlb"


def hugetlb_wp(k: Kernel, task: Task, vma: Vma, h: Hstate, vpn: int, entry: int, cached: int | None) -> str:
    """A write to a page that is mapped read-only. cached: the file's page here, if it has one."""
    old = pfn_of(entry)
    writable = entry | PTE_A | DIRTIED
    if vma.flags & VM_MAYSHARE:
        _set(k, vma.mm, vpn, h.order, writable)
        return "reuse"
    while True:
        if mapcount(k, old) == 1 and k.s.mem["flags"][old] & PG_ANON:
            k.s.mem["flags"][old] |= PG_ANON_EXCLUSIVE
            k.s.mem["mapping"][old] = rmap.anon_vma_prepare(k, vma).id
            _set(k, vma.mm, vpn, h.order, writable)
            k.clock.spend(k.costs.reuse)
            return "reuse"
        owner = vma.resv is not None and old != cached
        page = alloc_huge_page(k, task, vma, vpn, avoid_reserve=owner)
        if page is not None:
            break
        if not owner:
            raise sigbus(vpn)
        unmap_ref_private(k, vma, h, vpn, old)
    mem, new = k.s.mem, page.pfn
    mem["content"][new : new + h.nr_pages] = mem["content"][old : old + h.nr_pages]
    k.clock.spend(h.nr_pages * k.costs.copy_page)
    _unmap(k, vma, vpn, h, entry)
    _new_anon(k, vma, vpn, h, page)
    _map(k, vma, vpn, h, make_huge_pte(vma, new, writable=True))
    return "cow"


def unmap_ref_private(k: Kernel, owner: Vma, h: Hstate, vpn: int, pfn: int) -> None:
    """Take a page away from every private mapping that was never promised one, so that the owner of the promise has it alone."""
    assert owner.file is not None
    pgoff = vpn - owner.start + owner.pgoff
    for vma in list(owner.file.vmas):
        at = pgoff - vma.pgoff + vma.start
        if vma is owner or vma.flags & VM_MAYSHARE or vma.resv is not None or not vma.start <= at < vma.end:
            continue
        entry = int(huge_pte(k.s, int(k.s.mms["pgd"][vma.mm.id]), vpn, h.order))
        if entry and pfn_of(entry) == pfn:
            vma.resv_unmapped = True
            _unmap(k, vma, vpn, h, entry)


def populate(k: Kernel, task: Task, vma: Vma, start: int, end: int, write: bool) -> None:
    """Fault pages in as get_user_pages does: these faults are nobody's, neither pgfault nor the task counts them. EFAULT."""
    h = hstate_vma(vma)
    pgd = int(k.s.mms["pgd"][vma.mm.id])
    for vpn in range(start & ~(h.nr_pages - 1), end, h.nr_pages):
        entry = int(huge_pte(k.s, pgd, vpn, h.order))
        if entry == 0 or (write and not entry & PTE_RW):
            try:
                hugetlb_fault(k, task, vma, vpn, write)
            except Signal:
                raise SysError(Errno.EFAULT, "the pool has no page for the mapping") from None


# ---------------------------------------------------------------- whole mappings


def unmap_hugepage_range(k: Kernel, vma: Vma, start: int, end: int) -> None:
    """Empty the entries of [start, end) (__unmap_hugepage_range)."""
    h = hstate_vma(vma)
    hugetlb_share.unshare_range(k, vma, start, end)
    zapped = 0
    for vpn, entry in entries(k, vma, start, end):
        _unmap(k, vma, vpn, h, entry)
        zapped += 1
    k.clock.spend(zapped * k.costs.zap_pte)


def copy_hugetlb_page_range(k: Kernel, dst: Vma, src: Vma) -> None:
    """fork: the child maps the same pages, and of a private mapping neither may write them. SysError(ENOMEM) for a page table."""
    h = hstate_vma(src)
    cow = not src.flags & VM_SHARED
    copied = 0
    for vpn, entry in entries(k, src, src.start, src.end):
        huge_pte_alloc(k, dst, vpn, h.order)
        pfn = pfn_of(entry)
        k.s.mem["refcount"][pfn] += 1
        if k.s.mem["flags"][pfn] & PG_ANON:
            k.s.mem["flags"][pfn] &= ~PG_ANON_EXCLUSIVE
        if cow:
            entry &= ~PTE_RW
            _set(k, src.mm, vpn, h.order, entry)
        _map(k, dst, vpn, h, entry)
        copied += 1
    k.clock.spend(copied * k.costs.fork_pte)


def hugetlb_change_protection(k: Kernel, vma: Vma, start: int, end: int) -> None:
    """mprotect: entries get the protection that the mapping has now; a private page is made writable by its next write."""
    h = hstate_vma(vma)
    hugetlb_share.unshare_range(k, vma, start, end)
    prot = memory.page_prot(vma.flags) & ~(PTE_A | PTE_D)
    changed = 0
    for vpn, entry in entries(k, vma, start, end):
        _set(k, vma.mm, vpn, h.order, (entry & CHG_MASK) | prot)
        changed += 1
    k.clock.spend(changed * k.costs.protect_pte)


def move_hugetlb_page_tables(k: Kernel, vma: Vma, old_start: int, new_start: int, pages: int) -> None:
    """mremap: the entries of `pages` pages move to a new place of the address space. SysError(ENOMEM)."""
    order, mm = hstate_vma(vma).order, vma.mm
    hugetlb_share.unshare_range(k, vma, old_start, old_start + pages)
    moved = 0
    for vpn, entry in entries(k, vma, old_start, old_start + pages):
        to = vpn - old_start + new_start
        huge_pte_alloc(k, vma, to, order)
        _set(k, mm, vpn, order, 0)
        _set(k, mm, to, order, entry)
        moved += 1
    k.clock.spend(moved * k.costs.fork_pte)


# ---------------------------------------------------------------- what files show


def smaps(k: Kernel, vma: Vma) -> tuple[int, int]:
    """Bytes that others map, too, and bytes that nobody else does (smaps_hugetlb_range)."""
    size = hstate_vma(vma).size
    shared = [mapcount(k, pfn_of(entry)) >= 2 or hugetlb_share.is_shared(k, vma.mm, vpn) for vpn, entry in entries(k, vma, vma.start, vma.end)]
    return sum(shared) * size, (len(shared) - sum(shared)) * size


def numa_maps(k: Kernel, vma: Vma) -> dict[str, int | dict[int, int]]:
    """The counts of a line of numa_maps, in huge pages (gather_hugetlb_stats)."""
    h = hstate_vma(vma)
    nodes = dict.fromkeys(range(k.nr_nodes), 0)
    pages = anon = dirty = mapmax = 0
    for _, entry in entries(k, vma, vma.start, vma.end):
        pfn = pfn_of(entry)
        flags = int(k.s.mem["flags"][pfn])
        pages += 1
        anon += bool(flags & PG_ANON)
        dirty += bool(entry & PTE_D or flags & PG_DIRTY)
        mapmax = max(mapmax, mapcount(k, pfn))
        nodes[h.pages[pfn].node] += 1
    return {"pages": pages, "anon": anon, "dirty": dirty, "mapmax": mapmax, "swapcache": 0, "active": pages, "writeback": 0, "nodes": nodes}


def fill_pagemap(k: Kernel, vma: Vma, start: int, end: int, out: Array, bits: tuple[int, int, int]) -> None:
    """pagemap of small pages [start, end): each names its frame within the huge page (pagemap_hugetlb_range)."""
    present, is_file, exclusive = bits
    h = hstate_vma(vma)
    for vpn, entry in entries(k, vma, start & ~(h.nr_pages - 1), end):
        pfn = pfn_of(entry)
        flags = present | (0 if k.s.mem["flags"][pfn] & PG_ANON else is_file) | (exclusive if mapcount(k, pfn) == 1 else 0)
        low, high = max(start, vpn), min(end, vpn + h.nr_pages)
        out[low - start : high - start] |= np.arange(pfn + low - vpn, pfn + high - vpn) | flags


def resident(k: Kernel, vma: Vma, start: int, end: int) -> int:
    """Small pages of [start, end) that are mapped (mincore_hugetlb)."""
    size = hstate_vma(vma).nr_pages
    return sum(min(end, vpn + size) - max(start, vpn) for vpn, _ in entries(k, vma, start & ~(size - 1), end))
