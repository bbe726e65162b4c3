"""mprotect: change the access of a range (mm/mprotect.c).

Each mapping in the range is changed in turn, and a failure leaves those before it changed. A part of a mapping that
becomes different is split off; what has become like its neighbour joins it:

    rw rw rw rw   mprotect(2nd, 3rd, r)   rw | r r | rw      three mappings
                  mprotect(them, rw)      rw rw rw rw        one again

Then the page-table entries follow. An entry that may become writable does so at once only if nobody else can see
the page (an exclusive anonymous page); a shared or zero page stays read-only and the next write faults.

A private mapping that becomes writable is a promise of memory: it is charged to Committed_AS (VM_ACCOUNT) and counts
as data from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import (
    PAGE_SHIFT,
    PAGE_SIZE,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_HUGETLB,
    VM_LOCKED,
    VM_NORESERVE,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
)
from core.mm import memory
from core.mm.mmap import emit_vma, mm_populate, page_align, show_prot
from core.mm.util import may_expand_vm, vm_enough_memory, vm_stat_account, vm_unacct_memory
from core.mm.vma import find_vma, set_vma

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma
    from core.sched.task import Task


def do_mprotect(k: Kernel, task: Task, address: int, length: int, prot: int) -> None:
    """mprotect(2). prot as VM_READ | VM_WRITE | VM_EXEC. Errors: EINVAL, ENOMEM (a hole; limits), EACCES."""
    mm = task.mm
    assert mm is not None
    if address & (PAGE_SIZE - 1):
        raise SysError(Errno.EINVAL, "the address is not a multiple of 4096")
    if length == 0:
        return
    length = page_align(length)
    if length == 0 or address + length > 1 << 64:
        raise SysError(Errno.ENOMEM, "the range wraps around")
    start, end = address >> PAGE_SHIFT, (address + length) >> PAGE_SHIFT
    at = start
    while at < end:
        vma = find_vma(mm, at)
        if vma is None or vma.start > at:
            raise SysError(Errno.ENOMEM, f"nothing is mapped at {at << PAGE_SHIFT:#x}")
        flags = (vma.flags & ~VM_ACCESS) | prot
        if flags & ~(flags >> 4) & VM_ACCESS:
            raise SysError(Errno.EACCES, "the file was not opened for that access")
        stop = min(vma.end, end)
        mprotect_fixup(k, task, vma, at, stop, flags)
        at = stop
    k.clock.spend(k.costs.vma)
    emit_vma(k, task, "protect", start, end, prot=show_prot(prot))


def mprotect_fixup(k: Kernel, task: Task, vma: Vma, start: int, end: int, flags: int) -> None:
    """Give one mapping's part new access: limits, commitment, split or merge, entries (mm/mprotect.c:mprotect_fixup)."""
    mm, old, pages = vma.mm, vma.flags, end - start
    if flags == old:
        return
    charged = 0
    if flags & VM_WRITE:
        if not may_expand_vm(k, task, mm, flags, pages) and may_expand_vm(k, task, mm, old, pages):
            raise SysError(Errno.ENOMEM, "RLIMIT_DATA")
        if not old & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE):
            vm_enough_memory(k, task, pages)
            charged, flags = pages, flags | VM_ACCOUNT
    try:
        vma = set_vma(k, vma, start, end, flags, vma.policy)
    except SysError:
        vm_unacct_memory(k, charged)
        raise
    memory.change_protection(k, vma, start, end, _may_write_at_once(vma))
    if old & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and flags & VM_WRITE:
        mm_populate(k, task, start, end)
    vm_stat_account(mm, old, -pages)
    vm_stat_account(mm, flags, pages)


def _may_write_at_once(vma: Vma) -> bool:
    """True where entries are made writable one by one: the mapping wants to notice first writes."""
    if not vma.flags & VM_SHARED:
        return bool(vma.flags & VM_WRITE)
    notices = vma.file is not None and not vma.file.shmem
    return bool(vma.flags & VM_WRITE) and (notices or not vma.flags & VM_SOFTDIRTY)
