"""A huge entry becomes 512 small ones: the PMD split (mm/huge_memory.c:__split_huge_pmd).

A PMD entry with PS set maps 2 MiB at once. Behind it lies an empty page table, put by when the entry was made (`pgtable.deposit`),
so that going back to small entries can never fail:

    PMD entry  PS, pfn 1024, A, RW, D      ->   PMD entry  the table      PTE 0  pfn 1024, A, RW
                                                                          PTE 1  pfn 1025, A, RW ... PTE 511  pfn 1535

The page itself stays one page of 512 frames: other processes may go on mapping it whole. Only its counts change: one big entry less, one
small entry more for each frame, 511 references more. Dirty is remembered by the page, not by the new entries. The huge zero
page becomes 512 entries of the small zero page. A huge page of shared memory has no table put by: its entry is emptied, and faults come again.

When. Whatever changes part of 2 MiB splits first: munmap, mprotect, mremap or madvise of a part, a write to a shared page, and every change of
mappings whose new border lies inside (`vma_adjust_trans_huge`). Worked example: munmap of 1 MiB .. 3 MiB of a region of huge
pages splits two PMDs, leaves two pages half mapped, and frees nothing yet (`compound.deferred_split_huge_page`).

Source: mm/huge_memory.c: __split_huge_pmd_locked, __split_huge_zero_page_pmd, vma_adjust_trans_huge; facts TH-10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.mman import PMD_PAGES, VM_LOCKED
from core.abi.page_flags import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY, PG_REFERENCED
from core.jit import njit, step
from core.mm.compound import add_compound_mapcount
from core.mm.mm_types import CTL_HUGE_ZERO, CTL_ZERO_PFN, HPAGE_PMD_NR, MM_SHMEMPAGES, State
from core.mm.page_alloc import zone_of
from core.mm.pgtable import (
    PFN_MASK,
    PTE_A,
    PTE_D,
    PTE_PS,
    PTE_RW,
    PTE_SPECIAL,
    TABLE_ENTRY,
    huge_entry,
    pmd_frame,
    withdraw,
)
from core.mm.swap import munlock_page, stat_add
from core.vmstat import EVENT, NODE, NR_FILE_MAPPED, NR_SHMEM_PMDMAPPED

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma

THP_SPLIT_PMD = EVENT["thp_split_pmd"]
NR_ANON_THPS = NODE["nr_anon_transparent_hugepages"]


@step
def frames_without_small_entries(s: State, head: int) -> int:
    """How many frames of a huge page no small entry maps."""
    n = 0
    for pfn in range(head, head + HPAGE_PMD_NR):
        if s.mem[pfn]["mapcount"] == 0:
            n += 1
    return n


@step
def page_add_file_rmap_huge(s: State, zid: int, head: int) -> None:
    """One more huge entry maps a page of shared memory (page_add_file_rmap, compound)."""
    page = s.mem[head]
    page["refcount"] += 1
    if add_compound_mapcount(s, head, 1) > 1:
        return
    stat_add(s, zid, page["memcg"], NR_SHMEM_PMDMAPPED, HPAGE_PMD_NR)
    stat_add(s, zid, page["memcg"], NR_FILE_MAPPED, frames_without_small_entries(s, head))


@step
def page_remove_file_rmap_huge(s: State, zid: int, head: int) -> None:
    """One huge entry less maps it; the reference is the caller's to drop (page_remove_file_rmap, compound)."""
    if add_compound_mapcount(s, head, -1) > 0:
        return
    memcg = s.mem[head]["memcg"]
    stat_add(s, zid, memcg, NR_SHMEM_PMDMAPPED, -HPAGE_PMD_NR)
    stat_add(s, zid, memcg, NR_FILE_MAPPED, -frames_without_small_entries(s, head))


@step
def unmap_file_pmd(s: State, mm: int, vpn: int, vm_flags: int) -> None:
    """The huge entry around `vpn`, of shared memory, is emptied; the page remembers what the entry knew."""
    pmd = pmd_frame(s, s.mms[mm]["pgd"], vpn)
    tid, slot = s.mem[pmd]["private"], (vpn >> 9) & 511
    entry = s.pt[tid, slot]
    head = (entry & PFN_MASK) >> 12
    zid = zone_of(s, head)
    s.pt[tid, slot] = 0
    page = s.mem[head]
    if entry & PTE_D:
        page["flags"] |= PG_DIRTY
    if entry & PTE_A:
        page["flags"] |= PG_REFERENCED
    s.mms[mm]["rss"][MM_SHMEMPAGES] -= HPAGE_PMD_NR
    page_remove_file_rmap_huge(s, zid, head)
    if vm_flags & VM_LOCKED:
        munlock_page(s, zid, head)
    page["refcount"] -= 1


@step
def split_huge_pmd(s: State, mm: int, vpn: int, vm_flags: int) -> None:
    """Replace the huge entry around `vpn` by small ones; that of shared memory by none."""
    pmd = pmd_frame(s, s.mms[mm]["pgd"], vpn)
    tid, slot = s.mem[pmd]["private"], (vpn >> 9) & 511
    entry = s.pt[tid, slot]
    head = (entry & PFN_MASK) >> 12
    s.vm_event[THP_SPLIT_PMD] += 1
    s.mms[mm]["tlb_gen"] += 1
    if head != s.ctl[CTL_HUGE_ZERO] and not s.mem[head]["flags"] & PG_ANON:
        unmap_file_pmd(s, mm, vpn, vm_flags)
        return
    table = withdraw(s, pmd)
    s.pt[tid, slot] = (table << 12) | TABLE_ENTRY
    row = s.mem[table]["private"]
    bits = entry & ~(PFN_MASK | PTE_PS | PTE_D)
    if head == s.ctl[CTL_HUGE_ZERO]:
        small = (s.ctl[CTL_ZERO_PFN] << 12) | (bits & ~PTE_RW) | PTE_SPECIAL | PTE_A
        for i in range(HPAGE_PMD_NR):
            s.pt[row, i] = small
        return
    page = s.mem[head]
    if entry & PTE_D:
        page["flags"] |= PG_DIRTY
    page["refcount"] += HPAGE_PMD_NR - 1
    exclusive = page["flags"] & PG_ANON_EXCLUSIVE
    for i in range(HPAGE_PMD_NR):
        sub = s.mem[head + i]
        sub["mapcount"] += 1
        sub["flags"] |= exclusive
        s.pt[row, i] = ((head + i) << 12) | bits
    zid = zone_of(s, head)
    if add_compound_mapcount(s, head, -1) == 0:
        stat_add(s, zid, page["memcg"], NR_ANON_THPS, -HPAGE_PMD_NR)
    if vm_flags & VM_LOCKED:
        munlock_page(s, zid, head)


@njit
def split_at(s: State, mm: int, vpn: int, vm_flags: int) -> bool:
    """Split the huge entry that covers `vpn` in its middle; True if there was one."""
    if not huge_entry(s, s.mms[mm]["pgd"], vpn):
        return False
    split_huge_pmd(s, mm, vpn, vm_flags)
    return True


def vma_adjust_trans_huge(k: Kernel, vma: Vma, vpn: int) -> None:
    """A border of mappings is about to lie at `vpn` within `vma`: no huge entry may reach over it."""
    if vpn % PMD_PAGES and vma.start <= vpn - vpn % PMD_PAGES and vpn - vpn % PMD_PAGES + PMD_PAGES <= vma.end:
        split_at(k.s, vma.mm.id, vpn, vma.flags)
