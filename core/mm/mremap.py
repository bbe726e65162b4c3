"""mremap: grow, shrink or move a mapping with its pages (mm/mremap.c).

    shrink   the tail is unmapped
    grow     in place, if what follows is free: the mapping is extended, and may meet its neighbour
             else, with MREMAP_MAYMOVE, at a new place: the page-table entries are moved, not the pages
    to       MREMAP_FIXED: to this very place, unmapping what is there
    dup      old_length 0, shared mappings only: a second mapping of the same object
    keep     MREMAP_DONTUNMAP: the pages move, the old mapping stays, empty

A move costs page tables, not memory: after `mremap` of 8 MiB to 32 MiB the RSS is what it was. An anonymous mapping
that was never touched takes the offset of its new address, and so may merge there; one that has pages keeps its
offset, because its pages are found by it.

Growth is charged like a new mapping: RLIMIT_AS, RLIMIT_DATA (ENOMEM), RLIMIT_MEMLOCK (EAGAIN), Committed_AS (ENOMEM).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import (
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    TASK_VPNS,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYSHARE,
    VM_PFNMAP,
    VM_SHARED,
)
from core.mm import hugetlb, memory
from core.mm.mmap import check_fixed, do_munmap, emit_vma, mm_populate, page_align, place_like
from core.mm.rmap import anon_vma_clone, unlink_anon_vmas
from core.mm.util import may_expand_vm, mlock_future_ok, vm_enough_memory, vm_stat_account, vm_unacct_memory
from core.mm.vma import dup_vma, find_vma_intersection, link_vma, vma_lookup, vma_merge
from core.panic import TaskKilled

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.hugetlb_types import Hstate
    from core.mm.mm_types import Mm, Vma
    from core.sched.task import Task


def do_mremap(
    k: Kernel, task: Task, address: int, old_length: int, new_length: int, *, may_move: bool = False, new_address: int | None = None,
    dontunmap: bool = False,
) -> int:  # fmt: skip
    """mremap(2): the mapping's address afterwards. new_address: MREMAP_FIXED. Errors: EINVAL, EFAULT, ENOMEM, EAGAIN."""
    if new_address is not None and not may_move:
        raise SysError(Errno.EINVAL, "new_address (MREMAP_FIXED) needs may_move")
    if dontunmap and (not may_move or old_length != new_length):
        raise SysError(Errno.EINVAL, "dontunmap needs may_move and equal lengths")
    if address & (PAGE_SIZE - 1):
        raise SysError(Errno.EINVAL, "the address is not a multiple of 4096")
    old, new = page_align(old_length) >> PAGE_SHIFT, page_align(new_length) >> PAGE_SHIFT
    if new == 0:
        raise SysError(Errno.EINVAL, "new_length is 0")
    mm = task.mm
    assert mm is not None
    start = address >> PAGE_SHIFT
    vma = vma_lookup(mm, start)
    if vma is None:
        raise SysError(Errno.EFAULT, "nothing is mapped at the address")
    if vma.flags & VM_HUGETLB:
        old, new = _whole_huge_pages(hugetlb.hstate_vma(vma), start, (new_address or 0) >> PAGE_SHIFT, old, new)
    k.clock.spend(k.costs.vma)
    if new_address is not None or dontunmap:
        result = _mremap_to(k, task, start, old, new_address, new, dontunmap)
    elif old >= new:
        result = start
        if old > new:
            do_munmap(k, task, (start + new) << PAGE_SHIFT, (old - new) << PAGE_SHIFT)
    else:
        result = _grow(k, task, vma, start, old, new, may_move)
    emit_vma(k, task, "move", result, result + new, old_address=address)
    return result << PAGE_SHIFT


def _whole_huge_pages(h: Hstate, start: int, to: int, old: int, new: int) -> tuple[int, int]:
    """The lengths in whole huge pages; EINVAL for addresses that are not, and for growth: a promise cannot grow."""
    tail = h.nr_pages - 1
    old, new = (old + tail) & ~tail, (new + tail) & ~tail
    if (start | to) & tail or new > old:
        raise SysError(Errno.EINVAL, "a mapping of hugetlb moves or shrinks by whole huge pages, and does not grow")
    return old, new


def _resizable(k: Kernel, task: Task, mm: Mm, start: int, old: int, new: int, dontunmap: bool) -> Vma:
    """The mapping at `start`, if it may become `new` pages long (vma_to_resize)."""
    vma = vma_lookup(mm, start)
    if vma is None:
        raise SysError(Errno.EFAULT, "nothing is mapped at the address")
    if old == 0 and not vma.flags & (VM_SHARED | VM_MAYSHARE):
        raise SysError(Errno.EINVAL, "old_length 0 duplicates shared mappings only")
    if dontunmap and vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise SysError(Errno.EINVAL, "a special mapping cannot be left behind")
    if old > vma.end - start:
        raise SysError(Errno.EFAULT, "the old range reaches over the end of its mapping")
    if new == old:
        return vma
    if vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise SysError(Errno.EFAULT, "a special mapping cannot grow")
    if not mlock_future_ok(task, mm, vma.flags, new - old):
        raise SysError(Errno.EAGAIN, "more locked memory than RLIMIT_MEMLOCK")
    if not may_expand_vm(k, task, mm, vma.flags, new - old):
        raise SysError(Errno.ENOMEM, "RLIMIT_AS or RLIMIT_DATA")
    return vma


def _grow(k: Kernel, task: Task, vma: Vma, start: int, old: int, new: int, may_move: bool) -> int:
    mm = vma.mm
    vma = _resizable(k, task, mm, start, old, new, False)
    if old == vma.end - start and start + new <= TASK_VPNS and not find_vma_intersection(mm, vma.end, start + new):
        _extend(k, task, vma, new - old)
        if vma.flags & VM_LOCKED:
            mm_populate(k, task, start + old, start + new)
        return start
    if not may_move:
        raise SysError(Errno.ENOMEM, "no room to grow in place, and it may not move")
    to = place_like(k, mm, 0, new, vma.file, vma.pgoff + start - vma.start)
    return _move_vma(k, task, vma, start, old, new, to, False)


def _extend(k: Kernel, task: Task, vma: Vma, pages: int) -> None:
    """Lengthen a mapping over free space; it may join the next one."""
    mm, flags = vma.mm, vma.flags
    if flags & VM_ACCOUNT:
        vm_enough_memory(k, task, pages)
    merged = vma_merge(k, mm, vma.end, vma.end + pages, flags, vma.anon_vma, vma.file, vma.pgoff + vma.pages, vma.policy)
    if merged is None:
        if flags & VM_ACCOUNT:
            vm_unacct_memory(k, pages)
        raise SysError(Errno.ENOMEM, "the mapping cannot be extended")
    vm_stat_account(mm, flags, pages)
    if flags & VM_LOCKED:
        mm.locked_vm += pages


def _mremap_to(k: Kernel, task: Task, start: int, old: int, new_address: int | None, new: int, dontunmap: bool) -> int:
    """MREMAP_FIXED and MREMAP_DONTUNMAP (mremap_to)."""
    mm = task.mm
    assert mm is not None
    to = (new_address or 0) >> PAGE_SHIFT
    if new_address is not None:
        if new_address & (PAGE_SIZE - 1) or new > TASK_VPNS or new_address > TASK_SIZE - (new << PAGE_SHIFT):
            raise SysError(Errno.EINVAL, "new_address is not page-aligned or too high")
        if start + old > to and to + new > start:
            raise SysError(Errno.EINVAL, "the old and the new range overlap")
    if mm.map_count + 2 >= int(k.sysctl["vm.max_map_count"]) - 3:
        raise SysError(Errno.ENOMEM, "too close to vm.max_map_count")
    if new_address is not None:
        do_munmap(k, task, new_address, new << PAGE_SHIFT)
    if old > new:
        do_munmap(k, task, (start + new) << PAGE_SHIFT, (old - new) << PAGE_SHIFT)
        old = new
    vma = _resizable(k, task, mm, start, old, new, dontunmap)
    if dontunmap and not may_expand_vm(k, task, mm, vma.flags, old):
        raise SysError(Errno.ENOMEM, "RLIMIT_AS or RLIMIT_DATA")
    if new_address is not None:
        to = check_fixed(task, new_address, new)
    else:
        to = place_like(k, mm, 0, new, vma.file, vma.pgoff + start - vma.start)
    return _move_vma(k, task, vma, start, old, new, to, dontunmap)


def _move_vma(k: Kernel, task: Task, vma: Vma, start: int, old: int, new: int, to: int, dontunmap: bool) -> int:
    """Move [start, start + old) to `to`, `new` pages long (move_vma). Its pages go with their entries."""
    mm, flags = vma.mm, vma.flags
    if mm.map_count >= int(k.sysctl["vm.max_map_count"]) - 3:
        raise SysError(Errno.ENOMEM, "too close to vm.max_map_count")
    if flags & VM_ACCOUNT:
        vm_enough_memory(k, task, new if dontunmap else new - old)
    copy, vma = _copy_vma(k, vma, start, to, new)
    try:
        memory.move_page_tables(k, vma, start, copy, to, old)
    except (SysError, TaskKilled):
        # no page table for the new place, or killed for one: what has moved goes back, and the copy goes
        if flags & VM_ACCOUNT:
            k.committed_pages += 0 if dontunmap else old
        memory.move_page_tables(k, copy, to, vma, start, old)
        vm_stat_account(mm, flags, new)
        if flags & VM_LOCKED:
            mm.locked_vm += new
        do_munmap(k, task, to << PAGE_SHIFT, new << PAGE_SHIFT)
        raise
    vma.resv = None  # of hugetlb: what was promised went with the pages
    vm_stat_account(mm, flags, new)
    if flags & VM_LOCKED:
        mm.locked_vm += new
    if dontunmap:
        _leave_empty(k, vma, start, old)
    else:
        _unmap_old(k, task, vma, start, old)
    if flags & VM_LOCKED and new > old:
        mm_populate(k, task, to + old, to + new)
    return to


def _copy_vma(k: Kernel, vma: Vma, start: int, to: int, pages: int) -> tuple[Vma, Vma]:
    """The mapping at the new place, and the old one (the two may have become one if they touch)."""
    mm, pgoff = vma.mm, vma.pgoff + start - vma.start
    if vma.file is None and vma.anon_vma is None:
        pgoff = to
    merged = vma_merge(k, mm, to, to + pages, vma.flags, vma.anon_vma, vma.file, pgoff, vma.policy)
    if merged is not None:
        return merged, (merged if merged.start <= start < merged.end else vma)
    copy = dup_vma(vma, mm)
    copy.start, copy.end, copy.pgoff = to, to + pages, pgoff
    copy.anon_vma = vma.anon_vma
    anon_vma_clone(copy, vma)
    link_vma(copy)
    return copy, vma


def _leave_empty(k: Kernel, vma: Vma, start: int, pages: int) -> None:
    """MREMAP_DONTUNMAP: the old mapping stays, without pages and without its lock."""
    if vma.flags & VM_LOCKED:
        vma.mm.locked_vm -= vma.pages
    vma.flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
    if vma.start == start and vma.pages == pages:
        unlink_anon_vmas(k, vma)


def _unmap_old(k: Kernel, task: Task, vma: Vma, start: int, pages: int) -> None:
    """The old range goes; its commitment and its peak moved with the pages."""
    mm = vma.mm
    hiwater = mm.hiwater_vm
    if pages:
        if vma.flags & VM_ACCOUNT:
            k.committed_pages += pages  # the unmap below takes off what the new place has taken over
        do_munmap(k, task, start << PAGE_SHIFT, pages << PAGE_SHIFT)
    mm.hiwater_vm = hiwater
