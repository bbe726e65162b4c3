"""Reverse mapping in page loops: from a frame to the entries that map it (mm/rmap.c).

A page knows its anchor (`mapping`: an anon_vma, or a file) and its `index`; the anchor knows its mappings. So
`vpn = vma.start + index - vma.pgoff` for each of them, and the entry there maps the page if it holds its frame.

A KSM page's anchor is its stable node: that knows rmap_items, an address and an anon_vma each, since the sharers have nothing else in common.

The mappings are Python objects; for the loops they are laid out as a table (`Rmap`), one row a mapping, and for each
anchor the rows that belong to it: rows `av_rows[av_start[id] .. av_start[id + 1]]` for anon_vma `id`, likewise for files. It
is made anew when mappings have changed (`tables`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from core.abi.mman import VM_LOCKED, VM_SEQ_READ
from core.abi.page_flags import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY, PG_HEAD, PG_KSM, PG_SWAPBACKED, PG_SWAPCACHE
from core.columns import by_reference
from core.jit import inline, step
from core.mm.compound import total_mapcount
from core.mm.huge_pmd import split_huge_pmd
from core.mm.lru_gen_walk import lru_gen_look_around
from core.mm.mm_inline import lru_gen_enabled
from core.mm.mm_types import HPAGE_PMD_NR, MM_ANONPAGES, MM_SHMEMPAGES, MM_SWAPENTS, Array, State
from core.mm.page_counter import subtree
from core.mm.page_ops import page_remove_rmap, rss_column
from core.mm.pgtable import (
    PFN_MASK,
    PTE_A,
    PTE_D,
    PTE_PRESENT,
    PTE_SOFT_DIRTY,
    SWP_SOFT_DIRTY,
    find_pte_table,
    find_table,
    huge_entry,
)
from core.mm.swapfile import SLOT_KSM, SWP_EXCLUSIVE, swap_duplicate, swp_entry

if TYPE_CHECKING:
    from core.kernel import Kernel

VT = np.dtype([("mm", "i8"), ("start", "i8"), ("end", "i8"), ("pgoff", "i8"), ("flags", "i8")])


# One visit of reclaim to a cgroup's lists on a node, for events and `explain` (`vmscan.tell`). looked: pages were looked at, by `visit`'s number;
# scanned, freed, written: pages in all, then scanned and freed by list.
VISIT = np.dtype([(name, "i8") for name in ("memcg", "node", "priority", "kswapd", "visit", "looked", "scanned", "freed", "written")]
                 + [("list_scanned", "i8", (4,)), ("list_freed", "i8", (4,))])  # fmt: skip
MAX_VISITS = 128


@by_reference
class Rmap(NamedTuple):
    """What loops need of the Python objects, and their room: mappings by anchor; the rest is reclaim's.

    order: cgroups in the order in which they are visited.
    batch: pages taken from a list; plan: how many of each list to look at; visits: what came of it. near: while a batch is judged, the PTE table
    found last (`pte_table`).
    """

    vt: Array
    av_start: Array
    av_rows: Array
    file_start: Array
    file_rows: Array
    file_root: Array  # by file: its tree, its pages up to the end, and (answered) pages that it lost (`settle`)
    file_end: Array
    file_lost: Array
    order: Array
    batch: Array
    plan: Array
    visits: Array
    near: Array


NEAR_PGD, NEAR_BLOCK, NEAR_TABLE, NEAR_KEPT = range(4)  # Rmap.near: of which address space, which 2 MiB, its row; is it kept at all


def tables(k: Kernel) -> Rmap:
    """The tables of this moment, made anew when a mapping has changed since, or a file has got or lost its tree.

    `k.rmap` keeps the moment and the tables.
    """
    moment = (k.next_anon_vma, k.next_inode, [(mm.id, mm.generation) for mm in k.mms.values()])
    if k.rmap is None or k.rmap[0] != moment:
        k.rmap = (moment, _build(k))
    rmap: Rmap = k.rmap[1]
    return rmap


def room() -> tuple[Array, ...]:
    """What reclaim writes into: batch, plan, visits, near."""
    return np.zeros(2 * HPAGE_PMD_NR, np.int64), np.zeros(8, np.int64), np.zeros(MAX_VISITS, VISIT), np.zeros(4, np.int64)


def settle(k: Kernel) -> None:
    """Tell the files how many pages they lost, by reclaim or, beyond their ends, by splits of huge pages."""
    if k.rmap is None:
        return
    lost = k.rmap[1].file_lost
    for id in np.flatnonzero(lost).tolist():
        k.inodes[id].nr_pages -= int(lost[id])
        lost[id] = 0


def _build(k: Kernel) -> Rmap:
    rows: list[tuple[int, int, int, int, int]] = []
    numbers: dict[int, int] = {}
    for mm in k.mms.values():
        for vma in mm.vmas:
            numbers[id(vma)] = len(rows)
            rows.append((mm.id, vma.start, vma.end, vma.pgoff, vma.flags))
    anon = [(one.id, [numbers[id(vma)] for vma in one.vmas if id(vma) in numbers]) for one in k.anon_vmas.values()]
    files = [(one.id, [numbers[id(vma)] for vma in one.vmas if id(vma) in numbers]) for one in k.inodes.values()]
    roots, ends, lost = np.zeros((3, k.next_inode + 1), np.int64)
    for one in k.inodes.values():
        roots[one.id], ends[one.id] = one.root, one.nr_file_pages
    tree = np.array([*rows, (0, 0, 0, 0, 0)], VT)
    order = np.array([cg.id for cg in subtree(k, k.root_cgroup, dying=True)], np.int64)
    return Rmap(tree, *_compressed(anon, k.next_anon_vma), *_compressed(files, k.next_inode), roots, ends, lost, order, *room())


def _compressed(groups: list[tuple[int, list[int]]], count: int) -> tuple[Array, Array]:
    """Row numbers by id, one after the other, and where each id's begin."""
    sizes = np.zeros(count + 2, np.int64)
    for id, rows in groups:
        sizes[id + 1] = len(rows)
    flat = [row for _, rows in sorted(groups) for row in rows]
    return np.cumsum(sizes), np.array([*flat, 0], np.int64)


@inline
def keep_near(r: Rmap, kept: int) -> None:
    """A batch of pages is judged from now on, or it has been: within it no page table is freed, so the one found last may be remembered."""
    r.near[NEAR_PGD], r.near[NEAR_KEPT] = -1, kept


@inline
def pte_table(s: State, r: Rmap, pgd: int, vpn: int) -> int:
    """`find_pte_table`. Pages that follow each other on a list are neighbours more often than not, and each is looked up several times."""
    near = r.near
    if near[NEAR_PGD] == pgd and near[NEAR_BLOCK] == vpn >> 9:
        return near[NEAR_TABLE]
    tid = find_pte_table(s, pgd, vpn)
    if near[NEAR_KEPT] and tid:
        near[NEAR_PGD], near[NEAR_BLOCK], near[NEAR_TABLE] = pgd, vpn >> 9, tid
    return tid


@inline
def entry_at(s: State, r: Rmap, row: int, pfn: int) -> int:
    """Where mapping `row` maps the frame: table row * 512 + slot, or -1."""
    return entry_of(s, r, row, r.vt[row]["start"] + s.mem[pfn]["index"] - r.vt[row]["pgoff"], pfn)


@inline
def entry_of(s: State, r: Rmap, row: int, vpn: int, pfn: int) -> int:
    """Where mapping `row` maps the frame at page `vpn`, or -1 if it does not."""
    vma = r.vt[row]
    if vpn < vma["start"] or vpn >= vma["end"]:
        return -1
    tid = pte_table(s, r, s.mms[vma["mm"]]["pgd"], vpn)
    if tid == 0:
        return -1
    pte = s.pt[tid, vpn & 511]
    if not pte & PTE_PRESENT or (pte & PFN_MASK) >> 12 != pfn:
        return -1
    return tid * 512 + (vpn & 511)


@inline
def belongs(s: State, memcg: int, target: int) -> bool:
    """Is a cgroup `target` or below it?"""
    while memcg > 0 and memcg != target:
        memcg = s.memcgs[memcg]["parent"]
    return memcg == target


@inline
def referenced_one(s: State, r: Rmap, row: int, at: int, target: int) -> int:
    """One entry of page_referenced: 1 if its A bit was set, plus the mapping's flags << 16 if it was; with a `target` cgroup only its own count.

    VM_LOCKED is told of any mapping.
    """
    if target > 0 and not belongs(s, s.mms[r.vt[row]["mm"]]["memcg"], target):
        return 0
    pte = s.pt[at >> 9, at & 511]
    young = 0
    if pte & PTE_A:
        page = s.mem[(pte & PFN_MASK) >> 12]
        if lru_gen_enabled(s) and not page["flags"] & PG_KSM:
            vma = r.vt[row]
            vpn = vma["start"] + page["index"] - vma["pgoff"]
            lru_gen_look_around(s, s.mms[vma["mm"]]["pgd"], at >> 9, vpn, vma["start"], vma["end"], vma["flags"], (pte & PFN_MASK) >> 12)
        s.pt[at >> 9, at & 511] &= ~PTE_A
        if not r.vt[row]["flags"] & VM_SEQ_READ:
            young = 1
    return young | r.vt[row]["flags"] << 16 if young else (r.vt[row]["flags"] & VM_LOCKED) << 16


@inline
def maps_whole(s: State, r: Rmap, row: int, head: int) -> bool:
    """Does mapping `row` map this huge page by one entry?"""
    vma = r.vt[row]
    vpn = vma["start"] + s.mem[head]["index"] - vma["pgoff"]
    if vpn < vma["start"] or vpn >= vma["end"]:
        return False
    return (huge_entry(s, s.mms[vma["mm"]]["pgd"], vpn) & PFN_MASK) >> 12 == head


@step
def page_referenced_huge(s: State, r: Rmap, head: int, target: int) -> int:
    """`page_referenced` of a huge page: each mapping counts once, be it for its huge entry or for any of 512 (folio_referenced_one)."""
    young, flags = 0, 0
    mapping = s.mem[head]["mapping"]
    starts = r.av_start if s.mem[head]["flags"] & PG_ANON else r.file_start
    rows = r.av_rows if s.mem[head]["flags"] & PG_ANON else r.file_rows
    for i in range(starts[mapping], starts[mapping + 1]):
        row = rows[i]
        vma = r.vt[row]
        ours = target == 0 or belongs(s, s.mms[vma["mm"]]["memcg"], target)
        seen, used = 0, 0
        if maps_whole(s, r, row, head):
            vpn = vma["start"] + s.mem[head]["index"] - vma["pgoff"]
            tid, slot = find_table(s, s.mms[vma["mm"]]["pgd"], vpn, 2), (vpn >> 9) & 511
            seen = 1
            if ours and s.pt[tid, slot] & PTE_A:
                s.pt[tid, slot] &= ~PTE_A
                used = 1
        else:
            at = subpage_entry(s, r, row, head, 0)
            for sub in range(HPAGE_PMD_NR if at != -2 else 0):
                at = subpage_entry(s, r, row, head, sub)
                if at < 0:
                    continue
                seen = 1
                if ours and s.pt[at >> 9, at & 511] & PTE_A:
                    s.pt[at >> 9, at & 511] &= ~PTE_A
                    used = 1
        if seen and ours:
            told = used if not vma["flags"] & VM_SEQ_READ else 0
            flags |= vma["flags"] if told else vma["flags"] & VM_LOCKED
            young += told
    return young | flags << 16


@inline
def subpage_entry(s: State, r: Rmap, row: int, head: int, sub: int) -> int:
    """Where mapping `row` maps frame `sub` of a huge page by a small entry: table row * 512 + slot; -1: it does not, -2: it has no table there."""
    vma = r.vt[row]
    vpn = vma["start"] + s.mem[head]["index"] + sub - vma["pgoff"]
    tid = find_pte_table(s, s.mms[vma["mm"]]["pgd"], vpn) if vpn >= 0 else 0
    if tid == 0:
        return -2
    if vpn < vma["start"] or vpn >= vma["end"]:
        return -1
    pte = s.pt[tid, vpn & 511]
    if not pte & PTE_PRESENT or (pte & PFN_MASK) >> 12 != head + sub:
        return -1
    return tid * 512 + (vpn & 511)


@step
def split_all_pmds(s: State, r: Rmap, head: int) -> int:
    """Every huge entry that maps this page becomes 512 small ones; the flags of their mappings, together."""
    mapping = s.mem[head]["mapping"]
    starts = r.av_start if s.mem[head]["flags"] & PG_ANON else r.file_start
    rows = r.av_rows if s.mem[head]["flags"] & PG_ANON else r.file_rows
    flags = 0
    for i in range(starts[mapping], starts[mapping + 1]):
        row = rows[i]
        if maps_whole(s, r, row, head):
            vma = r.vt[row]
            flags |= vma["flags"]
            split_huge_pmd(s, vma["mm"], vma["start"] + s.mem[head]["index"] - vma["pgoff"], vma["flags"])
    return flags


@step
def try_to_unmap_huge(s: State, r: Rmap, zid: int, head: int) -> bool:
    """`try_to_unmap` of a huge page (TTU_SPLIT_HUGE_PMD): entry by entry; its 512 slots follow each other."""
    split_all_pmds(s, r, head)
    page = s.mem[head]
    if not page["flags"] & PG_ANON:
        return unmap_small_entries(s, r, zid, head)
    lazy = not page["flags"] & PG_SWAPBACKED
    mapping = page["mapping"]
    starts, rows = r.av_start, r.av_rows
    for i in range(starts[mapping], starts[mapping + 1]):
        row = rows[i]
        mm = r.vt[row]["mm"]
        for sub in range(HPAGE_PMD_NR):
            at = subpage_entry(s, r, row, head, sub)
            if at < 0:
                continue
            pte = s.pt[at >> 9, at & 511]
            if lazy and (pte & PTE_D or page["flags"] & PG_DIRTY):
                page["flags"] |= PG_SWAPBACKED
                return False
            if pte & PTE_D:
                page["flags"] |= PG_DIRTY
            entry = 0
            if not lazy:
                slot = page["private"] + sub
                entry = swp_entry(s, slot)
                if s.mem[head + sub]["flags"] & PG_ANON_EXCLUSIVE:
                    entry |= SWP_EXCLUSIVE
                if pte & PTE_SOFT_DIRTY:
                    entry |= SWP_SOFT_DIRTY
                swap_duplicate(s, slot)
                s.mms[mm]["rss"][MM_SWAPENTS] += 1
            s.pt[at >> 9, at & 511] = entry
            s.mms[mm]["tlb_gen"] += 1
            s.mms[mm]["rss"][MM_ANONPAGES] -= 1
            page_remove_rmap(s, zid, head + sub)
            page["refcount"] -= 1
    if total_mapcount(s, head) > 0:
        return False
    for pfn in range(head, head + HPAGE_PMD_NR):
        s.mem[pfn]["flags"] &= ~PG_ANON_EXCLUSIVE
    return True


@step
def unmap_small_entries(s: State, r: Rmap, zid: int, head: int) -> bool:
    """The small entries that map a huge page of shared memory are emptied; True if nothing maps it then."""
    page = s.mem[head]
    for i in range(r.file_start[page["mapping"]], r.file_start[page["mapping"] + 1]):
        row = r.file_rows[i]
        for sub in range(HPAGE_PMD_NR):
            at = subpage_entry(s, r, row, head, sub)
            if at < 0:
                continue
            if s.pt[at >> 9, at & 511] & PTE_D:
                page["flags"] |= PG_DIRTY
            s.pt[at >> 9, at & 511] = 0
            mm = r.vt[row]["mm"]
            s.mms[mm]["tlb_gen"] += 1
            s.mms[mm]["rss"][MM_SHMEMPAGES] -= 1
            page_remove_rmap(s, zid, head + sub)
            page["refcount"] -= 1
    return total_mapcount(s, head) == 0


@step
def page_referenced(s: State, r: Rmap, pfn: int, target: int) -> int:
    """Clear the A bits of the entries that map a page: how many were set, plus the mappings' flags << 16.

    With a `target` cgroup only its own processes' uses count.
    """
    young, flags = 0, 0
    page = s.mem[pfn]
    if page["flags"] & PG_HEAD:
        return page_referenced_huge(s, r, pfn, target)
    if page["mapcount"] == 0:
        return 0
    if page["flags"] & PG_KSM:
        return page_referenced_ksm(s, r, pfn, target)
    starts = r.av_start if page["flags"] & PG_ANON else r.file_start
    rows = r.av_rows if page["flags"] & PG_ANON else r.file_rows
    left = page["mapcount"]
    for i in range(starts[page["mapping"]], starts[page["mapping"] + 1]):
        if left == 0:
            break
        at = entry_at(s, r, rows[i], pfn)
        if at < 0:
            continue
        left -= 1
        found = referenced_one(s, r, rows[i], at, target)
        young += found & 1
        flags |= found >> 16
    return young | flags << 16


@step
def page_referenced_ksm(s: State, r: Rmap, pfn: int, target: int) -> int:
    """page_referenced of a KSM page: rmap_item by rmap_item, first where ksmd merged it, then in processes forked since (rmap_walk_ksm)."""
    young, flags = 0, 0
    left = s.mem[pfn]["mapcount"]
    for forks in range(2):
        item = s.ksm_nodes[s.mem[pfn]["mapping"]]["first"]
        while item and left > 0:
            anon_vma = s.ksm_items[item]["anon_vma"]
            for i in range(r.av_start[anon_vma], r.av_start[anon_vma + 1]):
                at = ksm_entry(s, r, r.av_rows[i], item, forks, pfn)
                if at >= 0:
                    left -= 1
                    found = referenced_one(s, r, r.av_rows[i], at, target)
                    young += found & 1
                    flags |= found >> 16
            item = s.ksm_items[item]["hnext"]
    return young | flags << 16


@inline
def ksm_entry(s: State, r: Rmap, row: int, item: int, forks: int, pfn: int) -> int:
    """Where a mapping of an rmap_item's anon_vma maps its KSM page: the merged process itself, or (`forks`) one that inherited it; or -1."""
    if (s.ksm_items[item]["mm"] == r.vt[row]["mm"]) == (forks == 1):
        return -1
    return entry_of(s, r, row, s.ksm_items[item]["vpn"], pfn)


@step
def try_to_unmap(s: State, r: Rmap, zid: int, pfn: int) -> bool:
    """Take a page out of every page table; anonymous pages leave their slot's number there. True if nothing maps it now.

    A page given up by MADV_FREE that was written since stays (False).
    """
    page = s.mem[pfn]
    if page["flags"] & PG_HEAD:
        return try_to_unmap_huge(s, r, zid, pfn)
    anon = page["flags"] & PG_ANON
    if page["flags"] & PG_KSM:
        return try_to_unmap_ksm(s, r, zid, pfn)
    starts = r.av_start if anon else r.file_start
    rows = r.av_rows if anon else r.file_rows
    for i in range(starts[page["mapping"]], starts[page["mapping"] + 1]):
        if page["mapcount"] == 0:
            break
        at = entry_at(s, r, rows[i], pfn)
        if at >= 0 and not unmap_one(s, r, rows[i], at, zid, pfn):
            return False
    if anon and page["mapcount"] == 0:
        page["flags"] &= ~PG_ANON_EXCLUSIVE
    return page["mapcount"] == 0


@step
def try_to_unmap_ksm(s: State, r: Rmap, zid: int, pfn: int) -> bool:
    """try_to_unmap of a KSM page; its slot remembers what kind of page it was."""
    page = s.mem[pfn]
    for forks in range(2):
        item = s.ksm_nodes[page["mapping"]]["first"]
        while item and page["mapcount"] > 0:
            anon_vma = s.ksm_items[item]["anon_vma"]
            for i in range(r.av_start[anon_vma], r.av_start[anon_vma + 1]):
                at = ksm_entry(s, r, r.av_rows[i], item, forks, pfn)
                if at >= 0:
                    unmap_one(s, r, r.av_rows[i], at, zid, pfn)
            item = s.ksm_items[item]["hnext"]
    if page["flags"] & PG_SWAPCACHE:
        s.slots[page["private"]]["flags"] |= SLOT_KSM
    return page["mapcount"] == 0


@step
def unmap_one(s: State, r: Rmap, row: int, at: int, zid: int, pfn: int) -> bool:
    """Take one entry of a page away (try_to_unmap_one). False: the page was written since MADV_FREE and stays."""
    page = s.mem[pfn]
    pte = s.pt[at >> 9, at & 511]
    mm = r.vt[row]["mm"]
    anon = page["flags"] & PG_ANON
    lazy = anon and not page["flags"] & PG_SWAPBACKED
    if lazy and (pte & PTE_D or page["flags"] & PG_DIRTY):
        page["flags"] |= PG_SWAPBACKED
        return False
    if pte & PTE_D:
        page["flags"] |= PG_DIRTY
    if anon and not lazy:
        entry = swp_entry(s, page["private"])
        if page["flags"] & PG_ANON_EXCLUSIVE:
            entry |= SWP_EXCLUSIVE
        if pte & PTE_SOFT_DIRTY:
            entry |= SWP_SOFT_DIRTY
        s.pt[at >> 9, at & 511] = entry
        swap_duplicate(s, page["private"])
        s.mms[mm]["rss"][MM_SWAPENTS] += 1
        s.mms[mm]["rss"][MM_ANONPAGES] -= 1
    else:
        s.pt[at >> 9, at & 511] = 0
        s.mms[mm]["rss"][rss_column(page["flags"])] -= 1
    s.mms[mm]["tlb_gen"] += 1
    page_remove_rmap(s, zid, pfn)
    page["refcount"] -= 1
    return True
