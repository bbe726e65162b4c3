"""mlock: keep pages in memory (mm/mlock.c).

Locking has two sides that are counted apart:

    the mapping   VM_LOCKED; its whole length counts in VmLck (mm->locked_vm) and against RLIMIT_MEMLOCK
    the page      PG_mlocked, on the unevictable list; resident pages only: Mlocked and Unevictable in meminfo

mlock of 8 MiB that was never touched: VmLck 8192 kB at once, then 2,048 write faults bring the pages in, and Mlocked and
RSS rise by 8192 kB. munlock takes the pages back to the list they came from, inactive first.

A huge page is locked whole, by a locked mapping that maps it whole; where only small entries of a locked mapping point into it, it stays evictable.

A page that two locked mappings hold stays locked until both let go. mlock(2) marks the mappings first, and only
then faults pages in; if that fails (a PROT_NONE mapping, beyond the end of a file) the answer is ENOMEM and the
mappings stay locked. MLOCK_ONFAULT (VM_LOCKONFAULT) leaves the faulting to the program.

Neither exec nor fork keeps locks. RLIMIT_MEMLOCK does not bind a process with CAP_IPC_LOCK (uid 0).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT, PAGE_SIZE, VM_HUGETLB, VM_LOCKED, VM_LOCKONFAULT, VM_SPECIAL
from core.jit import njit
from core.mm import memory
from core.mm.compound import PG_COMPOUND, page_mapcount
from core.mm.fault import next_block
from core.mm.mm_types import CTL_HUGE_ZERO, State
from core.mm.mmap import mm_populate, page_align
from core.mm.page_alloc import zone_of
from core.mm.page_ops import locked_elsewhere, mlock_page, munlock_page
from core.mm.pgtable import PTE_PRESENT, PTE_SPECIAL, find_pte_table, huge_entry, pte_pfn
from core.mm.rmap import other_locked
from core.mm.util import can_do_mlock, capable, rlimit
from core.mm.vma import set_vma, vmas_between

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Mm, Vma
    from core.sched.task import Task

LOCK_MASK = VM_LOCKED | VM_LOCKONFAULT


def do_mlock(k: Kernel, task: Task, address: int, length: int, onfault: bool = False) -> None:
    """mlock(2), mlock2(2): lock a range and fault it in. Errors: EPERM, ENOMEM (limit; a hole), EINVAL (wraps)."""
    mm = _mm(task)
    if not can_do_mlock(task):
        raise SysError(Errno.EPERM, "RLIMIT_MEMLOCK is 0")
    start, end = _range(address, length)
    limit = rlimit(task, "memlock") >> PAGE_SHIFT
    wanted = mm.locked_vm + (end - start)
    if wanted > limit and not capable(task):
        wanted -= _locked_pages(mm, start, end)
        if wanted > limit:
            raise SysError(Errno.ENOMEM, "more locked memory than RLIMIT_MEMLOCK")
    if end == start:
        return
    apply_vma_lock_flags(k, mm, start, end, VM_LOCKED | (VM_LOCKONFAULT if onfault else 0))
    try:
        mm_populate(k, task, start, end, ignore_errors=False)
    except SysError as failure:
        errno = Errno.EAGAIN if failure.errno == Errno.EAGAIN else Errno.ENOMEM
        raise SysError(errno, failure.why) from None


def do_munlock(k: Kernel, task: Task, address: int, length: int) -> None:
    """munlock(2). Errors: ENOMEM (a hole), EINVAL (wraps)."""
    start, end = _range(address, length)
    if end > start:
        apply_vma_lock_flags(k, _mm(task), start, end, 0)


def do_mlockall(k: Kernel, task: Task, flags: Collection[str]) -> None:
    """mlockall(2): `current`, `future`, `onfault`. Errors: EINVAL, EPERM, ENOMEM."""
    if not flags or set(flags) == {"onfault"}:
        raise SysError(Errno.EINVAL, "say current, future, or both")
    mm = _mm(task)
    if not can_do_mlock(task):
        raise SysError(Errno.EPERM, "RLIMIT_MEMLOCK is 0")
    if "current" in flags and mm.total_vm > rlimit(task, "memlock") >> PAGE_SHIFT and not capable(task):
        raise SysError(Errno.ENOMEM, "more memory than RLIMIT_MEMLOCK")
    lock = VM_LOCKED | (VM_LOCKONFAULT if "onfault" in flags else 0)
    mm.def_flags = (mm.def_flags & ~LOCK_MASK) | (lock if "future" in flags else 0)
    if "current" in flags:
        _apply_all(k, mm, lock)
        mm_populate(k, task, 0, 1 << 36)


def do_munlockall(k: Kernel, task: Task) -> None:
    """munlockall(2): unlock every mapping, and those to come."""
    mm = _mm(task)
    mm.def_flags &= ~LOCK_MASK
    _apply_all(k, mm, 0)


def _mm(task: Task) -> Mm:
    assert task.mm is not None
    return task.mm


def _range(address: int, length: int) -> tuple[int, int]:
    """Whole pages that hold the range; EINVAL if it wraps around (the topmost lengths round up to 0, as in C)."""
    offset = address & (PAGE_SIZE - 1)
    pages = page_align(length + offset) >> PAGE_SHIFT
    start = address >> PAGE_SHIFT
    if (start + pages) << PAGE_SHIFT > 1 << 64:
        raise SysError(Errno.EINVAL, "the range wraps around")
    return start, start + pages


def _locked_pages(mm: Mm, start: int, end: int) -> int:
    return sum(min(vma.end, end) - max(vma.start, start) for vma in vmas_between(mm, start, end) if vma.flags & VM_LOCKED)


def apply_vma_lock_flags(k: Kernel, mm: Mm, start: int, end: int, lock: int) -> None:
    """Lock or unlock the mappings of a range, in order; ENOMEM at the first hole (what came before is done)."""
    at = start
    while at < end:
        inside = vmas_between(mm, at, at + 1)
        if not inside:
            raise SysError(Errno.ENOMEM, f"nothing is mapped at {at << PAGE_SHIFT:#x}")
        vma = inside[0]
        stop = min(vma.end, end)
        mlock_fixup(k, vma, at, stop, (vma.flags & ~LOCK_MASK) | lock)
        at = stop


def _apply_all(k: Kernel, mm: Mm, lock: int) -> None:
    """Every mapping there is; a failed split cannot happen, whole mappings need none."""
    for start, end in [(vma.start, vma.end) for vma in mm.vmas]:
        at = start
        while at < end:
            vma = vmas_between(mm, at, at + 1)[0]
            stop = min(vma.end, end)
            mlock_fixup(k, vma, at, stop, (vma.flags & ~LOCK_MASK) | lock)
            at = stop


def mlock_fixup(k: Kernel, vma: Vma, start: int, end: int, flags: int) -> None:
    """Give part of a mapping its lock flags, count it, and lock or unlock its pages (mm/mlock.c:mlock_fixup)."""
    old = vma.flags
    if flags == old or old & (VM_SPECIAL | VM_HUGETLB):
        return
    vma = set_vma(k, vma, start, end, flags, vma.policy)
    k.clock.spend(k.costs.vma)
    if flags & VM_LOCKED and old & VM_LOCKED:
        return
    vma.mm.locked_vm += end - start if flags & VM_LOCKED else start - end
    mlock_vma_pages_range(k, vma, start, end, bool(flags & VM_LOCKED))


def mlock_vma_pages_range(k: Kernel, vma: Vma, start: int, end: int, lock: bool) -> None:
    """Lock or unlock the pages that are mapped in [start, end) now."""
    memory.begin(k, None, vma, memory.READ, start, 1, end)
    if lock:
        mlock_ptes(k.s)
    else:
        munlock_ptes(k.s, other_locked(k, vma))


@njit
def mlock_ptes(s: State) -> None:
    """Lock the pages mapped in [vmf.first, vmf.n) (mlock_pte_range)."""
    v = s.vmf[0]
    pgd, at, end = s.mms[v["mm"]]["pgd"], v["first"], v["n"]
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            pfn = pte_pfn(huge_entry(s, pgd, at))
            if pfn == 0:
                at = next_block(s, pgd, at, end)
                continue
            if pfn != s.ctl[CTL_HUGE_ZERO]:
                mlock_page(s, zone_of(s, pfn), pfn)
            at = stop
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if pte & PTE_PRESENT and not pte & PTE_SPECIAL:
                pfn = pte_pfn(pte)
                if s.mem[pfn]["flags"] & PG_COMPOUND:
                    continue
                zid = zone_of(s, pfn)
                mlock_page(s, zid, pfn)
        at = stop


@njit
def munlock_ptes(s: State, others) -> None:
    """Unlock the pages mapped in [vmf.first, vmf.n), but for those that one of `others` maps too."""
    v = s.vmf[0]
    pgd, at, end = s.mms[v["mm"]]["pgd"], v["first"], v["n"]
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            pfn = pte_pfn(huge_entry(s, pgd, at))
            if pfn == 0:
                at = next_block(s, pgd, at, end)
                continue
            if pfn != s.ctl[CTL_HUGE_ZERO] and (page_mapcount(s, pfn) == 1 or not locked_elsewhere(s, others, pfn)):
                munlock_page(s, zone_of(s, pfn), pfn)
            at = stop
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if pte & PTE_PRESENT and not pte & PTE_SPECIAL:
                pfn = pte_pfn(pte)
                if s.mem[pfn]["flags"] & PG_COMPOUND:
                    continue
                if s.mem[pfn]["mapcount"] > 1 and locked_elsewhere(s, others, pfn):
                    continue
                zid = zone_of(s, pfn)
                munlock_page(s, zid, pfn)
        at = stop
