"""A page becomes a frame of another node: what `numa_migrate` and `numa_balancing` share (folio_migrate_mapping)."""

from __future__ import annotations

from core.abi.page_flags import PG_ANON, PG_DIRTY, PG_KSM, PG_LRU, PG_MLOCKED, PG_SHMEM, PG_SWAPCACHE
from core.jit import step
from core.mm.mm_types import State
from core.mm.page_alloc import clear_page_row, free_one_page, zone_of
from core.mm.page_ops import xa_leaf
from core.mm.swap import lru_add, lru_del
from core.vmstat import (
    NR_ANON_MAPPED,
    NR_FILE_DIRTY,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_MLOCK,
    NR_SHMEM,
    NR_SWAPCACHE,
    NR_ZONE_WRITE_PENDING,
)


@step
def move_counts(s: State, zid: int, flags: int, nr: int) -> None:
    """Everything that a mapped page with these flags counts in by node or zone."""
    stat = s.node_stat[s.zones[zid]["node"]]
    if flags & PG_ANON:
        stat[NR_ANON_MAPPED] += nr
    else:
        stat[NR_FILE_MAPPED] += nr
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
def move_page(s: State, v, old: int, new: int) -> None:
    """The frame `new` takes the place of `old` everywhere but in the page table; `old` is free."""
    before, after = zone_of(s, old), zone_of(s, new)
    page, to = s.mem[old], s.mem[new]
    listed = page["flags"] & PG_LRU
    if listed:
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
        s.ksm_nodes[page["mapping"]]["kpfn"] = new  # folio_migrate_ksm
    if flags & PG_SWAPCACHE:
        s.slots[page["private"]]["pfn"] = new
    elif not flags & PG_ANON:
        s.xa[xa_leaf(s, v["root"], page["index"]), page["index"] & 511] = new
    move_counts(s, before, flags, -1)
    move_counts(s, after, flags, 1)
    if listed:
        lru_add(s, after, new)
    clear_page_row(s, old)
    free_one_page(s, before, old, 0)
