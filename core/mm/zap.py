"""Taking mappings apart and changing them: the page loops behind munmap, exit, mprotect and mremap.

`zap_pages` empties entries (zap_pte_range): each page loses a mapper and a holder, a store that the entry's D bit
remembers makes a file page dirty, a use that its A bit remembers counts as an access. `free_tables` then returns the
page tables that lie wholly between the neighbouring mappings (free_pgd_range): tables are freed only when nothing
else can need them, so a munmap in the middle of a busy 2 MiB keeps the table.

Source: mm/memory.c, mm/mprotect.c:change_pte_range, mm/mremap.c:move_ptes.
"""

from __future__ import annotations

from core.abi.mman import VM_LOCKED, VM_SEQ_READ, VM_SHARED, VM_SOFTDIRTY
from core.abi.page_flags import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY, PG_SHMEM, PG_SWAPCACHE
from core.jit import inline, njit
from core.mm.compound import PG_COMPOUND, compound_head
from core.mm.fault import next_block
from core.mm.huge_memory import move_huge_pmd, zap_huge_pmd
from core.mm.huge_pmd import split_huge_pmd
from core.mm.mm_types import HPAGE_PMD_NR, MM_SWAPENTS, State
from core.mm.mmu_gather import AHEAD, may_gather, pages_alike, prefetch_neighbours, prefetch_row, release_pages
from core.mm.page_alloc import zone_of
from core.mm.page_ops import (
    DONE,
    free_table,
    locked_elsewhere,
    munlock_page,
    page_remove_rmap,
    pte_alloc,
    put_page,
    rss_column,
    set_dirty,
)
from core.mm.pgtable import (
    PFN_MASK,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PCD,
    PTE_PRESENT,
    PTE_PS,
    PTE_PWT,
    PTE_RW,
    PTE_SOFT_DIRTY,
    PTE_SPECIAL,
    find_pte_table,
    find_table,
    huge_entry,
)
from core.mm.swap import mark_page_accessed
from core.mm.swap_state import free_swap_and_cache, free_swap_cache
from core.mm.swapfile import swp_slot
from core.vmstat import EVENT

NUMA_HUGE_PTE_UPDATES = EVENT["numa_huge_pte_updates"]
CHG_MASK = PFN_MASK | PTE_PCD | PTE_PWT | PTE_SPECIAL | PTE_A | PTE_D | PTE_SOFT_DIRTY  # what mprotect keeps

LOW, HIGH, TABLES = 1, 2, 3  # vmf.count: the first page whose entry was changed, and the one after the last; page tables gone through


@njit
def zap_pages(s: State, others) -> None:
    """Empty the entries of [vmf.first, vmf.n) of address space vmf.mm; `count[0]` says how many there were.

    Of a locked mapping, a page that lives on is unlocked, unless one of `others` (rmap.other_locked) maps it too.
    """
    v = s.vmf[0]
    mm, end, flags = v["mm"], v["n"], v["vm_flags"]
    pgd = s.mms[mm]["pgd"]
    rss = s.mms[mm]["rss"]
    at = v["first"]
    zapped, low, high, tables = 0, end, 0, 0
    gathers = may_gather(s)
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if not huge_entry(s, pgd, at):
                at = next_block(s, pgd, at, end)
            elif stop - at == HPAGE_PMD_NR:
                zap_huge_pmd(s, mm, at, flags, others)
                low = min(low, at)
                high = stop
                zapped += 1
                at = stop
            else:
                split_huge_pmd(s, mm, at, flags)
            continue
        tables += 1
        vpn, skip = at, 0
        while vpn + skip < stop:
            vpn += skip
            skip = 1
            pte = s.pt[tid, vpn & 511]
            if pte == 0:
                continue
            nr = pages_alike(s, tid, vpn & 511, (vpn & 511) + stop - vpn) if gathers else 0
            low = min(low, vpn)
            high = vpn + max(nr, 1)
            zapped += max(nr, 1)
            if nr:
                release_pages(s, mm, tid, vpn & 511, nr)
                skip = nr
                continue
            prefetch_row(s, tid, (vpn & 511) + 2 * AHEAD)
            prefetch_neighbours(s, tid, (vpn & 511) + AHEAD)
            s.pt[tid, vpn & 511] = 0
            if not pte & PTE_PRESENT:
                rss[MM_SWAPENTS] -= 1
                free_swap_and_cache(s, swp_slot(s, pte))
                continue
            if pte & PTE_SPECIAL:
                continue
            pfn = (pte & PFN_MASK) >> 12
            zid = zone_of(s, pfn)
            held = s.mem[pfn]["flags"]
            rss[rss_column(held)] -= 1
            if not held & PG_ANON:
                if pte & PTE_D:
                    if held & PG_SHMEM:
                        s.mem[compound_head(s, pfn)]["flags"] |= PG_DIRTY
                    else:
                        v["dirtied"] += set_dirty(s, zid, pfn, v["block_heads"])
                if pte & PTE_A and not flags & VM_SEQ_READ:
                    mark_page_accessed(s, zid, pfn)
            page_remove_rmap(s, zid, pfn)
            if flags & VM_LOCKED and not held & PG_COMPOUND and s.mem[pfn]["refcount"] > 1 and not locked_elsewhere(s, others, pfn):
                munlock_page(s, zid, pfn)
            if not put_page(s, zid, pfn) and held & (PG_SWAPCACHE | PG_COMPOUND):
                free_swap_cache(s, zid, pfn)
        at = stop
    v["count"][0], v["count"][LOW], v["count"][HIGH], v["count"][TABLES] = zapped, low, high, tables
    v["reason"] = DONE


@njit
def free_tables(s: State, mm: int, start: int, end: int, floor: int, ceiling: int) -> None:
    """Free the page tables that overlap [start, end) and lie wholly within [floor, ceiling); all are pages."""
    pgd = s.mms[mm]["pgd"]
    for level in range(3):  # PTE tables, then PMD tables, then PUD tables
        shift = 9 * (level + 1)
        at = (start >> shift) << shift
        while at < end:
            if level == 0:
                at = (next_block(s, pgd, at, end) >> shift) << shift
                if at >= end:
                    break
            span_end = at + (1 << shift)
            if at >= floor and span_end <= ceiling:
                above = find_table(s, pgd, at, 2 - level)
                entry = s.pt[above, (at >> shift) & 511] if above else 0
                if entry:
                    s.pt[above, (at >> shift) & 511] = 0
                    free_table(s, (entry & PFN_MASK) >> 12)
                    s.mms[mm]["nr_tables"][level] -= 1
            at = span_end


@njit
def change_prot(s: State, upgrade: int) -> None:
    """Give the entries of [vmf.first, vmf.n) the protection vmf.prot (change_pte_range).

    `upgrade`: entries that are dirty and safe to write (shared file pages already dirty, exclusive anonymous pages)
    become writable at once instead of by a fault.
    """
    v = s.vmf[0]
    pgd, end, prot = s.mms[v["mm"]]["pgd"], v["n"], v["prot"]
    at = v["first"]
    changed, low, high = 0, end, 0
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if not huge_entry(s, pgd, at):
                at = next_block(s, pgd, at, end)
            elif stop - at == HPAGE_PMD_NR:
                top, slot = find_table(s, pgd, at, 2), (at >> 9) & 511
                s.pt[top, slot] = (s.pt[top, slot] & (CHG_MASK | PTE_PS)) | (prot & ~(PTE_A | PTE_D))
                s.vm_event[NUMA_HUGE_PTE_UPDATES] += 1
                low = min(low, at)
                high = stop
                changed += 1
                at = stop
            else:
                split_huge_pmd(s, v["mm"], at, v["vm_flags"])
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if not pte & PTE_PRESENT:
                continue
            new = (pte & CHG_MASK) | (prot & ~(PTE_A | PTE_D))
            if upgrade and prot & PTE_P and not new & PTE_RW and can_change_writable(s, new, v["vm_flags"]):
                new |= PTE_RW
            if pte & PTE_P and new != pte:  # pte_needs_flush
                low = min(low, vpn)
                high = vpn + 1
            s.pt[tid, vpn & 511] = new
            changed += 1
        at = stop
    v["count"][0], v["count"][LOW], v["count"][HIGH] = changed, low, high


@inline
def can_change_writable(s: State, pte: int, vm_flags: int) -> bool:
    """can_change_pte_writable: dirty, soft-dirty if that is tracked, and nobody else's."""
    if not pte & PTE_D:
        return False
    if not vm_flags & VM_SOFTDIRTY and not pte & PTE_SOFT_DIRTY:
        return False
    if vm_flags & VM_SHARED:
        return True
    if pte & PTE_SPECIAL:
        return False
    flags = s.mem[(pte & PFN_MASK) >> 12]["flags"]
    return bool(flags & PG_ANON) and bool(flags & PG_ANON_EXCLUSIVE)


@njit
def move_entries(s: State) -> None:
    """Move the entries of [vmf.first, vmf.n) to vmf.other on, in the same address space (move_ptes).

    Stops with a reason where a page table cannot be had; `done` pages are moved then.
    """
    v = s.vmf[0]
    mm, first, end, to = v["mm"], v["first"], v["n"], v["other"]
    v["reason"] = DONE
    at = first + v["done"]
    pgd = s.mms[mm]["pgd"]
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            vpn = at - first + to
            if not huge_entry(s, pgd, at):
                at = next_block(s, pgd, at, end)
            elif stop - at == HPAGE_PMD_NR and vpn & 511 == 0 and move_huge_pmd(s, v, at, vpn):
                v["count"][0] += 1
                at = stop
            elif v["reason"] != DONE:
                break
            else:
                split_huge_pmd(s, mm, at, v["vm_flags"])
            continue
        target, block = 0, -1
        while at < stop:
            pte = s.pt[tid, at & 511]
            if pte:
                vpn = at - first + to
                if vpn >> 9 != block:
                    block = vpn >> 9
                    target = pte_alloc(s, v, mm, vpn)
                    if target == 0:
                        break
                s.pt[tid, at & 511] = 0
                s.pt[target, vpn & 511] = pte | (PTE_SOFT_DIRTY if pte & PTE_PRESENT else 0)
                v["count"][0] += 1
            at += 1
        if at < stop:
            break
    v["done"] = at - first


@njit
def wrprotect_file_page(s: State, pgd: int, vpn: int) -> int:
    """Clean and write-protect one entry for writeback (page_mkclean_one): 1 if it was dirty or writable."""
    tid = find_pte_table(s, pgd, vpn)
    if tid == 0:
        return 0
    pte = s.pt[tid, vpn & 511]
    if not pte & PTE_PRESENT or not pte & (PTE_D | PTE_RW):
        return 0
    s.pt[tid, vpn & 511] = pte & ~(PTE_D | PTE_RW)
    return 1
