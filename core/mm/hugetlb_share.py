"""Processes that map the same GiB of a hugetlb file share the page table for it (mm/hugetlb.c:huge_pmd_share).

Where a shared mapping of 2 MiB pages covers a whole aligned GiB, the PMD table below one PUD entry holds nothing but its pages. Another process
that maps the same GiB of the file, at the same place within a table and with the same rights, needs just these entries: its first fault there makes
its PUD entry point to the other's table, and all pages that the other has touched are mapped at once, without a fault each.

    A touches 512 pages of an aligned GiB, B maps the same GiB and touches them too     B: one fault; VmPTE 4 kB more, PageTables not at all;
                                                                                       HugetlbPages of B: nothing, of A: 1 GiB
    mapcount of each page: 1, because there is one entry

The table's frame counts its users (refcount). Whoever changes what it maps there gives it up first (`huge_pmd_unshare`): mprotect, munmap, mremap, a
border of mappings within the GiB. Its own view of the GiB is empty then, and comes back by faults.

Source: want_pmd_share, page_table_shareable, huge_pmd_share, huge_pmd_unshare, hugetlb_vm_op_split; recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.mman import VM_LOCKED, VM_MAYSHARE
from core.jit import njit
from core.mm.mm_types import State
from core.mm.pgtable import PFN_MASK, PTE_PS, find_table

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Mm, Vma

PUD_PAGES = 1 << 18
PMD_ORDER = 9


@njit
def pud_entry(s: State, pgd: int, vpn: int) -> int:
    """The PUD entry around a page; 0: there is none, or no table for it."""
    tid = find_table(s, pgd, vpn, 1)
    return s.pt[tid, (vpn >> 18) & 511] if tid else 0


@njit
def set_pud_entry(s: State, pgd: int, vpn: int, entry: int) -> None:
    """Write the PUD entry around a page, whose table is there."""
    s.pt[find_table(s, pgd, vpn, 1), (vpn >> 18) & 511] = entry


def entry_at(k: Kernel, mm: Mm, vpn: int) -> int:
    """The PUD entry around a page of an address space."""
    return int(pud_entry(k.s, int(k.s.mms["pgd"][mm.id]), vpn))


def table_frame(entry: int) -> int:
    """The frame of the PMD table that a PUD entry names; 0: it names none."""
    return 0 if entry & PTE_PS else (entry & PFN_MASK) >> 12


def shareable(vma: Vma, vpn: int) -> bool:
    """Does a shared mapping of 2 MiB pages cover the whole GiB around a page (want_pmd_share)?"""
    first = vpn & -PUD_PAGES
    small = vma.file is not None and vma.file.hstate is not None and vma.file.hstate.order == PMD_ORDER
    return small and bool(vma.flags & VM_MAYSHARE) and vma.start <= first and first + PUD_PAGES <= vma.end


def page_table_shareable(vma: Vma, vpn: int, other: Vma) -> int:
    """Where another mapping of the file has the same GiB, so that its table would do for this one; 0: nowhere."""
    at = vpn - vma.start + vma.pgoff - other.pgoff + other.start
    alike = (vma.flags ^ other.flags) & ~VM_LOCKED == 0
    return at if alike and (at ^ vpn) & (PUD_PAGES - 1) & -(1 << PMD_ORDER) == 0 and shareable(other, at) else 0


def huge_pmd_share(k: Kernel, vma: Vma, vpn: int) -> None:
    """Before the first fault in a GiB: take another's table for it, if there is one."""
    assert vma.file is not None
    if entry_at(k, vma.mm, vpn) or not shareable(vma, vpn):
        return
    for other in vma.file.vmas:
        at = page_table_shareable(vma, vpn, other) if other is not vma else 0
        frame = table_frame(entry_at(k, other.mm, at)) if at else 0
        if frame:
            k.s.mem["refcount"][frame] += 1
            set_pud_entry(k.s, int(k.s.mms["pgd"][vma.mm.id]), vpn, entry_at(k, other.mm, at))
            k.s.mms["nr_tables"][vma.mm.id, 1] += 1
            return


def is_shared(k: Kernel, mm: Mm, vpn: int) -> bool:
    """Do others use the PMD table around a page, too (hugetlb_pmd_shared)?"""
    frame = table_frame(entry_at(k, mm, vpn))
    return frame > 0 and int(k.s.mem["refcount"][frame]) > 1


def huge_pmd_unshare(k: Kernel, mm: Mm, vpn: int) -> bool:
    """Give up a table that others use, too; False if nobody else does."""
    if not is_shared(k, mm, vpn):
        return False
    k.s.mem["refcount"][table_frame(entry_at(k, mm, vpn))] -= 1
    set_pud_entry(k.s, int(k.s.mms["pgd"][mm.id]), vpn, 0)
    k.s.mms["nr_tables"][mm.id, 1] -= 1
    k.s.mms["tlb_gen"][mm.id] += 1
    return True


def unshare_range(k: Kernel, vma: Vma, start: int, end: int) -> None:
    """What a mapping is about to change in [start, end) shall concern nobody else."""
    for vpn in range(start & -PUD_PAGES, end, PUD_PAGES):
        if shareable(vma, vpn):
            huge_pmd_unshare(k, vma.mm, vpn)


def unshare_at(k: Kernel, vma: Vma, vpn: int) -> None:
    """A border of mappings is about to lie at `vpn`: the GiB around it is no longer whole (hugetlb_vm_op_split)."""
    if vpn & (PUD_PAGES - 1) and shareable(vma, vpn):
        huge_pmd_unshare(k, vma.mm, vpn)
