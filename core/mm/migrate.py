"""A page becomes another frame: the mechanism that compaction and NUMA migration share (mm/migrate.c).

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

Linux puts a migration entry into the page tables meanwhile, because others run; here nobody runs in between. Compound pages are not moved here.

Source: unmap_and_move, folio_migrate_mapping, folio_migrate_flags, remove_migration_ptes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.abi.page_flags import (
    PG_ANON,
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
from core.mm.page_alloc import clear_page_row, free_one_page, zone_of
from core.mm.page_ops import xa_leaf
from core.mm.pgtable import PFN_MASK
from core.mm.rmap_walk import Rmap, entry_at, ksm_entry
from core.mm.swap import lru_add, lru_del
from core.vmstat import (
    EVENT,
    NR_ANON_MAPPED,
    NR_FILE_DIRTY,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_MLOCK,
    NR_SHMEM,
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
    """A page that is on no list at the moment moves from frame `old` to `new`, with all entries that map it."""
    redirect(s, r, old, new)
    take_over(s, 0 if s.mem[old]["flags"] & PG_ANON else roots[s.mem[old]["mapping"]], old, new, True)
