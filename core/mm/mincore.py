"""mincore: which pages of a range are in memory (mm/mincore.c).

A page counts as resident if an entry maps it; the zero page does too. Where nothing is mapped, a file's or a
shared-memory object's page counts if it is in the page cache: another process may have brought it in, or read-ahead.
Untouched private anonymous memory is not resident; what is in swap counts while it is in the swap cache, too. For a
file that the caller could not open for writing every page is said to be resident (since 5.2), so that nobody can watch
what others read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, VM_HUGETLB
from core.jit import njit
from core.mm import hugetlb_fault, memory
from core.mm.fault import V_SHMEM, next_block
from core.mm.mm_types import State
from core.mm.mmap import page_align
from core.mm.page_ops import xa_leaf
from core.mm.pgtable import PTE_PRESENT, find_pte_table, huge_entry
from core.mm.swapfile import swp_slot
from core.mm.vma import vma_lookup

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma
    from core.sched.task import Task


def do_mincore(k: Kernel, task: Task, address: int, length: int) -> tuple[int, int]:
    """mincore(2): (resident pages, pages asked about). Errors: EINVAL (unaligned), ENOMEM (a hole)."""
    if address & (PAGE_SIZE - 1):
        raise SysError(Errno.EINVAL, "the address is not a multiple of 4096")
    if address + length > TASK_SIZE:
        raise SysError(Errno.ENOMEM, "the range ends beyond the address space")
    assert task.mm is not None
    start = address >> PAGE_SHIFT
    end = start + (page_align(length) >> PAGE_SHIFT)
    resident, at = 0, start
    while at < end:
        vma = vma_lookup(task.mm, at)
        if vma is None:
            raise SysError(Errno.ENOMEM, f"nothing is mapped at {at << PAGE_SHIFT:#x}")
        stop = min(vma.end, end)
        resident += _resident(k, vma, at, stop)
        at = stop
    return resident, end - start


def _resident(k: Kernel, vma: Vma, start: int, end: int) -> int:
    if vma.file is not None and not vma.file.writable:
        return end - start
    if vma.flags & VM_HUGETLB:
        return hugetlb_fault.resident(k, vma, start, end)
    memory.begin(k, None, vma, memory.READ, start, 1, end)
    mincore_ptes(k.s)
    return int(k.s.vmf[0]["done"])


@njit
def mincore_ptes(s: State) -> None:
    """Count resident pages of [vmf.first, vmf.n) into vmf.done (mincore_pte_range)."""
    v = s.vmf[0]
    pgd, at, end, root = s.mms[v["mm"]]["pgd"], v["first"], v["n"], v["root"]
    shift = v["vm_pgoff"] - v["vm_start"]
    shmem = v["kind"] == V_SHMEM
    resident = 0
    while at < end:
        tid = find_pte_table(s, pgd, at)
        if tid == 0 and huge_entry(s, pgd, at):
            resident += min(end, (at | 511) + 1) - at
            at = min(end, (at | 511) + 1)
            continue
        if tid == 0 and root == 0:
            at = next_block(s, pgd, at, end)
            continue
        stop = min(end, (at | 511) + 1)
        leaf, block = 0, -1
        while at < stop:
            pte = s.pt[tid, at & 511] if tid else 0
            if pte & PTE_PRESENT:
                resident += 1
            elif pte:
                resident += 1 if s.slots[swp_slot(s, pte)]["pfn"] else 0
            elif root:
                index = at + shift
                if index >> 9 != block:
                    block = index >> 9
                    leaf = xa_leaf(s, root, index)
                if leaf == 0 and tid == 0:  # nothing cached in this node, nothing mapped in this table
                    at = min(stop, at + 512 - (index & 511))
                    continue
                entry = s.xa[leaf, index & 511] if leaf else 0
                if entry > 0 or (entry < 0 and shmem and s.slots[-entry]["pfn"]):
                    resident += 1
            at += 1
    v["done"] = resident
