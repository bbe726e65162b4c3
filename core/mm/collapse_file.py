"""Small pages of a shared-memory object become a huge one (mm/khugepaged.c: collapse_file, retract_page_tables, collapse_pte_mapped_thp).

khugepaged and MADV_COLLAPSE look at the *object* here, not at page tables: whoever maps it, or nobody.

    the look      of 512 places at least 512 - max_ptes_none filled, at most max_ptes_swap swapped, all held by nobody but their entries
    the collapse  swapped ones are read, every page is unmapped everywhere, copied, freed; holes are filled: the object grows ("bloat")
    the tables    now empty, a page table of a mapping goes back, so that the next fault maps the huge page by one entry

Worked example: 8M mapped, 5M written, MADV_COLLAPSE of 2M .. 6M: 768 pages are copied, 256 holes filled: Shmem + 1024 kB, RSS too, two page
tables less, ShmemPmdMapped 4096 kB: the caller's mapping gets its entries at once. Others' page tables are left to khugepaged, which frees
them when it comes to their address space next (`khugepaged.pte_mapped`); khugepaged itself frees all, and maps nothing.

A place that is a huge page already but is mapped by small entries only needs its page table taken away (PTE_MAPPED).

Simplified: all pages are looked at before the first is unmapped, so a collapse that fails has changed nothing.
"""

from __future__ import annotations

from core.abi.page_flags import PG_DIRTY, PG_LRU, PG_MLOCKED, PG_SHMEM, PG_SWAPBACKED, PG_UPTODATE
from core.jit import njit, step
from core.mm.compound import PG_COMPOUND, compound_head, prep_compound_page
from core.mm.mm_types import HPAGE_PMD_NR, HPAGE_PMD_ORDER, MM_SHMEMPAGES, State
from core.mm.page_alloc import zone_of
from core.mm.page_ops import (
    HUGE_XA_SHARE,
    XA_NODE_SHARE,
    free_table,
    munlock_page,
    page_remove_rmap,
    put_page,
    stat_add,
    xa_leaf,
    xa_leaf_create,
)
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, PTE_PS, find_table
from core.mm.rmap_walk import Rmap, try_to_unmap
from core.mm.scan_result import (
    BY_KHUGEPAGED,
    EXCEED_NONE,
    EXCEED_SWAP,
    FAIL,
    MAX_NONE,
    MAX_SWAP,
    NODES,
    NON_PRESENT,
    NONE,
    PAGE_COUNT,
    PAGE_LRU,
    PMD_MAPPED,
    PMD_NONE,
    PMD_NULL,
    PTE_MAPPED,
    SUCCEED,
    TRUNCATED,
    UNMAPPED,
)
from core.mm.shmem_huge import do_set_pmd
from core.mm.slab import account_slab
from core.mm.swap import folio_add_lru
from core.vmstat import NR_FILE_PAGES, NR_SHMEM, NR_SHMEM_THPS


@njit
def scan_tree(s: State, root: int, start: int, limits, found) -> int:
    """Look at the 512 places from `start` on of an object: a result, and in `found` what was counted (hpage_collapse_scan_file)."""
    leaf = xa_leaf(s, root, start) if root else 0
    present = 0
    for i in range(HPAGE_PMD_NR if leaf else 0):
        pfn = s.xa[leaf, i]
        if pfn < 0:
            found[UNMAPPED] += 1
            if limits[BY_KHUGEPAGED] and found[UNMAPPED] > limits[MAX_SWAP]:
                return EXCEED_SWAP
            continue
        if pfn == 0:
            continue
        page = s.mem[pfn]
        if page["flags"] & PG_COMPOUND:
            return PTE_MAPPED
        found[NODES + s.zones[zone_of(s, pfn)]["node"]] += 1
        if not page["flags"] & PG_LRU:
            return PAGE_LRU
        if page["refcount"] != 1 + page["mapcount"]:
            return PAGE_COUNT
        present += 1
    found[NONE] = HPAGE_PMD_NR - present - found[UNMAPPED]
    if limits[BY_KHUGEPAGED] and present < HPAGE_PMD_NR - limits[MAX_NONE]:
        return EXCEED_NONE
    return SUCCEED


@step
def may_collapse(s: State, leaf: int) -> int:
    """The look right before: is anything there, all of it in memory and held by nobody else?"""
    present = 0
    for i in range(HPAGE_PMD_NR if leaf else 0):
        pfn = s.xa[leaf, i]
        if pfn == 0:
            continue
        if pfn < 0:
            return FAIL
        page = s.mem[pfn]
        if page["flags"] & PG_COMPOUND:
            return PTE_MAPPED
        if not page["flags"] & PG_LRU:
            return PAGE_LRU
        if page["refcount"] != 1 + page["mapcount"]:
            return PAGE_COUNT
        present += 1
    return SUCCEED if present else TRUNCATED


@njit
def collapse_tree(s: State, r: Rmap, root: int, inode: int, start: int, head: int, found) -> int:
    """The block `head` takes the place of what the object has in the 512 places from `start` on; a result. `found[NONE]`: holes filled."""
    leaf = xa_leaf(s, root, start)
    result = may_collapse(s, leaf)
    if result != SUCCEED:
        return result
    found[NONE] = 0
    memcg = s.mem[head]["memcg"]
    for i in range(HPAGE_PMD_NR):
        pfn = s.xa[leaf, i]
        s.xa[leaf, i] = head + i
        if pfn == 0:
            found[NONE] += 1
            continue
        zid = zone_of(s, pfn)
        try_to_unmap(s, r, zid, pfn)
        s.mem[head + i]["content"] = s.mem[pfn]["content"]
        if s.mem[pfn]["flags"] & PG_MLOCKED:
            munlock_page(s, zid, pfn)
        stat_add(s, zid, s.mem[pfn]["memcg"], NR_FILE_PAGES, -1)
        stat_add(s, zid, s.mem[pfn]["memcg"], NR_SHMEM, -1)
        account_slab(s, s.mem[pfn]["memcg"], -XA_NODE_SHARE)
        put_page(s, zid, pfn)
    prep_compound_page(s, head, HPAGE_PMD_ORDER, PG_UPTODATE | PG_SWAPBACKED | PG_SHMEM | PG_DIRTY)
    page = s.mem[head]
    page["refcount"] = HPAGE_PMD_NR
    page["mapping"] = inode
    page["index"] = start
    zid = zone_of(s, head)
    for counter in (NR_FILE_PAGES, NR_SHMEM, NR_SHMEM_THPS):
        stat_add(s, zid, memcg, counter, HPAGE_PMD_NR)
    account_slab(s, memcg, HUGE_XA_SHARE)
    folio_add_lru(s, zid, head)
    return SUCCEED


@step
def find_pmd(s: State, pgd: int, vpn: int) -> int:
    """What an address space has for 2 MiB: SUCCEED (a page table), PMD_MAPPED, PMD_NONE or PMD_NULL (find_pmd_or_thp_or_none)."""
    tid = find_table(s, pgd, vpn, 2)
    if tid == 0:
        return PMD_NULL
    entry = s.pt[tid, (vpn >> 9) & 511]
    if entry == 0:
        return PMD_NONE
    return PMD_MAPPED if entry & PTE_PS else SUCCEED


@njit
def what_is_mapped(s: State, pgd: int, vpn: int) -> int:
    """`find_pmd`, callable from Python."""
    return find_pmd(s, pgd, vpn)


@step
def free_pte_table(s: State, mm: int, vpn: int) -> None:
    """An empty page table goes back (collapse_and_free_pmd)."""
    tid = find_table(s, s.mms[mm]["pgd"], vpn, 2)
    table = (s.pt[tid, (vpn >> 9) & 511] & PFN_MASK) >> 12
    s.pt[tid, (vpn >> 9) & 511] = 0
    s.mms[mm]["tlb_gen"] += 1
    s.mms[mm]["nr_tables"][0] -= 1
    free_table(s, table)


@njit
def retract_page_table(s: State, install: bool) -> int:
    """The page table at vmf.first, of whose entries none is left, goes; with `install` one entry maps the huge page instead. A result."""
    v = s.vmf[0]
    result = find_pmd(s, s.mms[v["mm"]]["pgd"], v["first"])
    if result != SUCCEED:
        return result
    free_pte_table(s, v["mm"], v["first"])
    if install:
        set_huge_pmd(s, v)
    return SUCCEED


@step
def set_huge_pmd(s: State, v) -> None:
    """One entry maps the huge page that the object has for vmf.first, as a read would."""
    vpn = v["first"]
    index = vpn - v["vm_start"] + v["vm_pgoff"]
    tid = find_table(s, s.mms[v["mm"]]["pgd"], vpn, 2)
    do_set_pmd(s, v, tid, vpn, s.xa[xa_leaf_create(s, v["root"], index), 0], False)


@njit
def collapse_pte_mapped(s: State, install: bool) -> int:
    """Small entries at vmf.first map a huge page of the object: they go, with their page table. A result (collapse_pte_mapped_thp)."""
    v = s.vmf[0]
    mm, first = v["mm"], v["first"]
    result = find_pmd(s, s.mms[mm]["pgd"], first)
    if result not in (SUCCEED, PMD_NONE):
        return result
    index = first - v["vm_start"] + v["vm_pgoff"]
    leaf = xa_leaf(s, v["root"], index)
    head = s.xa[leaf, 0] if leaf else 0
    if head <= 0 or not s.mem[head]["flags"] & PG_COMPOUND:
        return FAIL
    if result == SUCCEED:
        result = drop_small_entries(s, mm, first, head)
        if result != SUCCEED:
            return result
        free_pte_table(s, mm, first)
    if install:
        set_huge_pmd(s, v)
    return SUCCEED


@step
def drop_small_entries(s: State, mm: int, first: int, head: int) -> int:
    """Empty a page table whose entries all map the right frame of `head`; FAIL or NON_PRESENT, and nothing is done, if one does not."""
    top = find_table(s, s.mms[mm]["pgd"], first, 2)
    row = s.mem[(s.pt[top, (first >> 9) & 511] & PFN_MASK) >> 12]["private"]
    for i in range(HPAGE_PMD_NR):
        pte = s.pt[row, i]
        if pte == 0:
            continue
        if not pte & PTE_PRESENT:
            return NON_PRESENT
        if (pte & PFN_MASK) >> 12 != head + i:
            return FAIL
    zid = zone_of(s, head)
    for i in range(HPAGE_PMD_NR):
        if s.pt[row, i]:
            s.pt[row, i] = 0
            page_remove_rmap(s, zid, head + i)
            s.mem[compound_head(s, head + i)]["refcount"] -= 1
            s.mms[mm]["rss"][MM_SHMEMPAGES] -= 1
    return SUCCEED
