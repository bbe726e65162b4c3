"""A page becomes another frame: the mechanism that compaction, NUMA migration and NUMA balancing share (mm/migrate.c).

A frame is only where a page happens to lie. To move a page, the new frame takes over everything that says what the page is, and everybody who
points to the old frame is told:

    who points to it           how it is found                              what changes
    page-table entries         rmap: anchor, index → mapping → entry        the frame's number; A, D, RW and soft-dirty stay
    KSM: rmap by stable node   rmap_items: anon_vma and address             the same, and the node's frame
    the page cache             mapping (inode), index → radix slot          the slot
    the swap cache             private (slot)                               the slot's frame
    the LRU list               next, prev                                   to the head of the same list

The cgroup pays for one page all the while, and every rss stays. What counts by node or zone changes if the new frame lies elsewhere.

A page can move only if all its references are accounted for: one for each entry, one for the page cache or the swap cache, one for buffers. Any
other (a fault that holds it, a pin) would keep pointing to the old frame: the page stays, `pgmigrate_fail`.

A huge page, of anonymous or of shared memory, moves whole, with every entry that maps it, be that all of it or one of its 512 frames
(`migrate_huge_page`).

Linux puts a migration entry into the page tables meanwhile, because others run; here nobody runs in between.

Source: unmap_and_move, folio_migrate_mapping, folio_migrate_flags, remove_migration_ptes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.abi.page_flags import (
    PG_ANON,
    PG_ANON_EXCLUSIVE,
    PG_DIRTY,
    PG_HEAD,
    PG_KSM,
    PG_LRU,
    PG_MLOCKED,
    PG_PRIVATE,
    PG_SHMEM,
    PG_SWAPCACHE,
    PG_TAIL,
    PG_WRITEBACK,
)
from core.jit import inline, step
from core.mm.compound import (
    add_compound_mapcount,
    clear_compound_page,
    compound_mapcount,
    deferred_split_huge_page,
    is_deferred,
    prep_compound_page,
    total_mapcount,
    undefer,
)
from core.mm.huge_pmd import NR_ANON_THPS
from core.mm.mm_types import HPAGE_PMD_NR, HPAGE_PMD_ORDER
from core.mm.page_alloc import clear_page_row, free_one_page, zone_of
from core.mm.page_ops import xa_leaf
from core.mm.pgtable import PFN_MASK, find_table
from core.mm.rmap_walk import Rmap, entry_at, ksm_entry, maps_whole, subpage_entry
from core.mm.swap import lru_add, lru_del
from core.vmstat import (
    EVENT,
    NR_ANON_MAPPED,
    NR_FILE_DIRTY,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_MLOCK,
    NR_SHMEM,
    NR_SHMEM_PMDMAPPED,
    NR_SHMEM_THPS,
    NR_SWAPCACHE,
    NR_ZONE_WRITE_PENDING,
)

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array, State

PGMIGRATE_SUCCESS, PGMIGRATE_FAIL = EVENT["pgmigrate_success"], EVENT["pgmigrate_fail"]


def cache_roots(k: Kernel) -> Array:
    """The radix tree of each file's page cache, by inode number."""
    roots = np.zeros(k.next_inode + 1, np.int64)
    for inode in k.inodes.values():
        roots[inode.id] = inode.root
    return roots


@inline
def expected_refs(flags: int, mapcount: int) -> int:
    """References that a page has if nobody holds it for a reason of his own."""
    refs = mapcount
    if flags & PG_SWAPCACHE or not flags & PG_ANON:
        refs += 1
    if flags & PG_PRIVATE:
        refs += 1
    return refs


@step
def is_free_to_go(s: State, pfn: int) -> bool:
    """Does nobody but its entries, and a cache, hold a small page?"""
    page = s.mem[pfn]
    return not page["flags"] & PG_WRITEBACK and page["refcount"] == expected_refs(page["flags"], page["mapcount"])


@step
def can_migrate(s: State, r: Rmap, pfn: int) -> bool:
    """Is every reference to the page one that can be redirected?"""
    page = s.mem[pfn]
    flags = page["flags"]
    if flags & (PG_WRITEBACK | PG_HEAD | PG_TAIL) or page["mapping"] == 0:
        return False
    if page["refcount"] != expected_refs(flags, page["mapcount"]):
        return False
    return redirect(s, r, pfn, 0) == page["mapcount"]


@step
def redirect(s: State, r: Rmap, pfn: int, new: int) -> int:
    """The entries that map a page: how many there are; they map the frame `new` now, unless that is 0."""
    page = s.mem[pfn]
    if page["flags"] & PG_KSM:
        return redirect_ksm(s, r, pfn, new)
    anon = page["flags"] & PG_ANON
    starts = r.av_start if anon else r.file_start
    rows = r.av_rows if anon else r.file_rows
    found = 0
    for i in range(starts[page["mapping"]], starts[page["mapping"] + 1]):
        if found == page["mapcount"]:
            break
        at = entry_at(s, r, rows[i], pfn)
        if at < 0:
            continue
        found += 1
        if new:
            point_to(s, r, rows[i], at, new)
    return found


@step
def point_to(s: State, r: Rmap, row: int, at: int, new: int) -> None:
    """An entry of mapping `row` maps the frame `new` now; what translation caches hold of it is void."""
    s.pt[at >> 9, at & 511] = (s.pt[at >> 9, at & 511] & ~PFN_MASK) | (new << 12)
    s.mms[r.vt[row]["mm"]]["tlb_gen"] += 1


@step
def redirect_ksm(s: State, r: Rmap, pfn: int, new: int) -> int:
    """`redirect` of a KSM page: its stable node knows who shares it (rmap_walk_ksm)."""
    found = 0
    for forks in range(2):
        item = s.ksm_nodes[s.mem[pfn]["mapping"]]["first"]
        while item:
            anon_vma = s.ksm_items[item]["anon_vma"]
            for i in range(r.av_start[anon_vma], r.av_start[anon_vma + 1]):
                at = ksm_entry(s, r, r.av_rows[i], item, forks, pfn)
                if at < 0:
                    continue
                found += 1
                if new:
                    point_to(s, r, r.av_rows[i], at, new)
            item = s.ksm_items[item]["hnext"]
    return found


@step
def move_counts(s: State, zid: int, flags: int, mapped: int, nr: int) -> None:
    """Everything that a page with these flags counts in by node or zone."""
    stat = s.node_stat[s.zones[zid]["node"]]
    if mapped:
        stat[NR_ANON_MAPPED if flags & PG_ANON else NR_FILE_MAPPED] += nr
    if not flags & PG_ANON:
        stat[NR_FILE_PAGES] += nr
        if flags & PG_SHMEM:
            stat[NR_SHMEM] += nr
        elif flags & PG_DIRTY:
            stat[NR_FILE_DIRTY] += nr
            s.zones[zid]["stat"][NR_ZONE_WRITE_PENDING] += nr
    if flags & PG_SWAPCACHE:
        stat[NR_FILE_PAGES] += nr
        stat[NR_SWAPCACHE] += nr
    if flags & PG_MLOCKED:
        s.zones[zid]["stat"][NR_MLOCK] += nr


@step
def take_over(s: State, root: int, old: int, new: int, listed: bool) -> None:
    """The frame `new` takes the place of `old` everywhere but in the page tables; `old` is free (folio_migrate_mapping, folio_migrate_flags).

    `root`: the page cache of the page's file. `listed`: the page belongs on an LRU list, where it goes to the head.
    """
    page, to = s.mem[old], s.mem[new]
    before, after = zone_of(s, old), zone_of(s, new)
    if page["flags"] & PG_LRU:
        lru_del(s, before, old)
    flags = page["flags"]
    to["flags"] = flags
    to["refcount"] = page["refcount"]
    to["mapcount"] = page["mapcount"]
    to["memcg"] = page["memcg"]
    to["mapping"] = page["mapping"]
    to["private"] = page["private"]
    to["index"] = page["index"]
    to["content"] = page["content"]
    if flags & PG_KSM and page["mapping"]:
        s.ksm_nodes[page["mapping"]]["kpfn"] = new
    if flags & PG_SWAPCACHE:
        s.slots[page["private"]]["pfn"] = new
    elif not flags & PG_ANON:
        s.xa[xa_leaf(s, root, page["index"]), page["index"] & 511] = new
    if before != after:
        move_counts(s, before, flags, page["mapcount"], -1)
        move_counts(s, after, flags, page["mapcount"], 1)
    if listed:
        lru_add(s, after, new)
    clear_page_row(s, old)
    free_one_page(s, before, old, 0)


@step
def migrate_page(s: State, r: Rmap, roots, old: int, new: int) -> None:
    """A small page moves from frame `old` to `new`, with all entries that map it, and to the head of its list.

    One that is on no list at the moment (compaction took it off) is put on one.
    """
    redirect(s, r, old, new)
    take_over(s, cache_root(s, roots, old), old, new, True)


@inline
def cache_root(s: State, roots, pfn: int) -> int:
    """The page cache that a page stands in; 0: in none."""
    return 0 if s.mem[pfn]["flags"] & PG_ANON else roots[s.mem[pfn]["mapping"]]


# ---------------------------------------------------------------- huge pages


@step
def can_migrate_huge(s: State, r: Rmap, head: int) -> bool:
    """Is every reference to a huge page one that can be redirected?"""
    page = s.mem[head]
    flags = page["flags"]
    if flags & PG_WRITEBACK:
        return False
    mapped = total_mapcount(s, head)
    cached = HPAGE_PMD_NR if flags & PG_SWAPCACHE or not flags & PG_ANON else 0
    return page["refcount"] == mapped + cached and redirect_huge(s, r, head, 0) == mapped


@step
def redirect_huge(s: State, r: Rmap, head: int, new: int) -> int:
    """The entries that map a huge page or a frame of it: how many; they map the huge page at `new` now, unless that is 0."""
    anon, mapping, found = s.mem[head]["flags"] & PG_ANON, s.mem[head]["mapping"], 0
    starts = r.av_start if anon else r.file_start
    rows = r.av_rows if anon else r.file_rows
    for i in range(starts[mapping], starts[mapping + 1]):
        row = rows[i]
        if maps_whole(s, r, row, head):
            found += 1
            if new:
                vma = r.vt[row]
                vpn = vma["start"] + s.mem[head]["index"] - vma["pgoff"]
                point_to(s, r, row, find_table(s, s.mms[vma["mm"]]["pgd"], vpn, 2) * 512 + ((vpn >> 9) & 511), new)
            continue
        for sub in range(HPAGE_PMD_NR):
            at = subpage_entry(s, r, row, head, sub)
            if at >= 0:
                found += 1
                if new:
                    point_to(s, r, row, at, new + sub)
    return found


@step
def migrate_huge_page(s: State, r: Rmap, old: int, new: int) -> None:
    """A huge page moves to the 512 frames from `new` on, with all entries that map it; the old frames are free."""
    redirect_huge(s, r, old, new)
    before, after = zone_of(s, old), zone_of(s, new)
    page, to = s.mem[old], s.mem[new]
    flags, waits, whole = page["flags"], is_deferred(s, old), compound_mapcount(s, old)
    if flags & PG_LRU:
        lru_del(s, before, old)
    undefer(s, old)
    prep_compound_page(s, new, HPAGE_PMD_ORDER, flags & ~(PG_HEAD | PG_LRU))
    add_compound_mapcount(s, new, whole)
    to["refcount"] = page["refcount"]
    to["memcg"] = page["memcg"]
    to["mapping"] = page["mapping"]
    to["index"] = page["index"]
    to["private"] = page["private"]
    leaf = 0 if flags & PG_ANON else xa_leaf(s, r.file_root[page["mapping"]], page["index"])
    mapped = HPAGE_PMD_NR if whole else 0
    for i in range(HPAGE_PMD_NR):
        frame = s.mem[new + i]
        frame["content"] = s.mem[old + i]["content"]
        frame["mapcount"] = s.mem[old + i]["mapcount"]
        frame["flags"] |= s.mem[old + i]["flags"] & PG_ANON_EXCLUSIVE
        if flags & PG_SWAPCACHE:
            s.slots[page["private"] + i]["pfn"] = new + i
        if leaf:
            s.xa[leaf, i] = new + i
        if not whole and frame["mapcount"]:
            mapped += 1
    count_huge(s, before, flags, -mapped, -HPAGE_PMD_NR if whole else 0, -HPAGE_PMD_NR)
    count_huge(s, after, flags, mapped, HPAGE_PMD_NR if whole else 0, HPAGE_PMD_NR)
    if waits:
        deferred_split_huge_page(s, new)
    if flags & PG_LRU:
        lru_add(s, after, new)
    clear_compound_page(s, old, HPAGE_PMD_ORDER)
    free_one_page(s, before, old, HPAGE_PMD_ORDER)


@step
def count_huge(s: State, zid: int, flags: int, mapped: int, whole: int, nr: int) -> None:
    """Everything that a huge page counts in by node or zone: frames that are mapped, as a whole, and all of them."""
    stat = s.node_stat[s.zones[zid]["node"]]
    stat[NR_ANON_MAPPED if flags & PG_ANON else NR_FILE_MAPPED] += mapped
    stat[NR_ANON_THPS if flags & PG_ANON else NR_SHMEM_PMDMAPPED] += whole
    if not flags & PG_ANON:
        stat[NR_FILE_PAGES] += nr
        stat[NR_SHMEM] += nr
        stat[NR_SHMEM_THPS] += nr
    if flags & PG_SWAPCACHE:
        stat[NR_FILE_PAGES] += nr
        stat[NR_SWAPCACHE] += nr
    if flags & PG_MLOCKED:
        s.zones[zid]["stat"][NR_MLOCK] += nr
