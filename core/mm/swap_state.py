"""The swap cache: pages that are in memory and in swap at once (mm/swap_state.c).

A page on its way out gets a slot and enters the cache before its entries are replaced; once written it can be dropped in
an instant. A page on its way in is read into the cache together with its neighbours (*read-ahead*); until its process
touches it, it is memory (SwapCached) that belongs to nobody's rss. As long as page and slot agree, evicting the
page again costs no I/O; the first write makes the slot worthless.

How much is read at once. A cluster of up to 2^page-cluster slots (8), aligned; how many exactly follows from how many of the pages
read ahead last time were used: hits + 2, rounded up to a power of two, at least half of the last window.

    page-cluster 3, sequential touches: one major fault reads 8 pages, then 7 minor faults find theirs in the cache

Source: __swapin_nr_pages, swap_cluster_readahead, read_swap_cache_async, __remove_mapping; facts SW-02..06.
"""

from __future__ import annotations

from core.abi.page_flags import PG_ANON, PG_DIRTY, PG_READAHEAD, PG_SWAPBACKED, PG_SWAPCACHE, PG_UPTODATE
from core.jit import inline, step
from core.mm.compound import compound_head, total_mapcount
from core.mm.mm_types import State
from core.mm.page_alloc import zone_of
from core.mm.page_ops import GFP_USER, alloc_charged, put_page, stat_add
from core.mm.swap import folio_add_lru, lru_pages
from core.mm.swapfile import SLOT_SHMEM, free_slot, swap_free
from core.mm.workingset import workingset_refault
from core.vmstat import EVENT, NR_FILE_PAGES, NR_SWAPCACHE

PSWPIN, PGPGIN = EVENT["pswpin"], EVENT["pgpgin"]
SWAP_RA, SWAP_RA_HIT = EVENT["swap_ra"], EVENT["swap_ra_hit"]


@step
def add_to_swap_cache(s: State, zid: int, pfn: int, slot: int) -> None:
    """The page stands for the slot, a huge page for 512 from there on; the cache holds a reference for each."""
    page = s.mem[pfn]
    nr = lru_pages(page["flags"])
    page["flags"] |= PG_SWAPCACHE
    page["private"] = slot
    page["refcount"] += nr
    for i in range(nr):
        s.slots[slot + i]["pfn"] = pfn + i
    s.node_stat[s.zones[zid]["node"], NR_FILE_PAGES] += nr
    stat_add(s, zid, page["memcg"], NR_SWAPCACHE, nr)


@step
def delete_from_swap_cache(s: State, zid: int, pfn: int) -> None:
    """The page stands for no slot any more; a slot is free if no entry refers to it. The references are the caller's."""
    page = s.mem[pfn]
    nr = lru_pages(page["flags"])
    first = page["private"]
    page["flags"] &= ~PG_SWAPCACHE
    page["private"] = 0
    for slot in range(first, first + nr):
        s.slots[slot]["pfn"] = 0
        if s.slots[slot]["count"] == 0:
            free_slot(s, slot)
    s.node_stat[s.zones[zid]["node"], NR_FILE_PAGES] -= nr
    stat_add(s, zid, page["memcg"], NR_SWAPCACHE, -nr)


@step
def free_swap(s: State, zid: int, pfn: int) -> bool:
    """Give up the slot of a page that only its cache refers to (folio_free_swap); a huge page's all or none."""
    pfn = compound_head(s, pfn)
    page = s.mem[pfn]
    nr = lru_pages(page["flags"])
    for slot in range(page["private"], page["private"] + nr):
        if s.slots[slot]["count"] > 0:
            return False
    delete_from_swap_cache(s, zid, pfn)
    page["flags"] |= PG_DIRTY  # the only copy now
    page["refcount"] -= nr - 1
    return not put_page(s, zid, pfn)


@step
def free_swap_cache(s: State, zid: int, pfn: int) -> None:
    """A page lost an entry: if it is in the swap cache and nothing maps it, its slot goes, and with that the page (free_swap_cache)."""
    head = compound_head(s, pfn)
    if s.mem[head]["flags"] & PG_SWAPCACHE and total_mapcount(s, head) == 0:
        free_swap(s, zid, head)


@step
def free_swap_and_cache(s: State, slot: int) -> None:
    """An entry that named a slot is gone; with the last one goes a cached page that nobody maps."""
    swap_free(s, slot)
    pfn = s.slots[slot]["pfn"]
    if pfn and s.slots[slot]["count"] == 0:
        free_swap_cache(s, zone_of(s, pfn), pfn)


@inline
def swapin_memcg(s: State, own: int, slot: int) -> int:
    """Who pays for the page that a slot is read into: whoever it was swapped out of, or, if that cgroup is gone, the reader."""
    memcg = s.slots[slot]["memcg"]
    return own if memcg > 0 and s.memcgs[memcg]["offline"] else memcg


@step
def read_swap_cache(s: State, v, target: int, at: int, end: int, vpn: int) -> int:
    """Read the slots at .. end (inclusive) that are in use into the swap cache; all but `target` are read ahead.

    Answers the slot to go on with: end + 1, or the one that no frame could be had for (vmf.reason). vmf: `ra_pages` pages read.
    """
    own = v["memcg"]
    slot = at
    while slot <= end:
        row = s.slots[slot]
        if row["pfn"] == 0 and row["count"] > 0:
            v["memcg"] = swapin_memcg(s, own, slot)
            pfn = alloc_charged(s, v, GFP_USER, vpn)
            if pfn == 0:
                break
            swap_cache_page(s, pfn, slot, slot != target)
            v["ra_pages"] += 1
        slot += 1
    v["memcg"] = own
    return slot


@inline
def swap_cache_page(s: State, pfn: int, slot: int, ahead: bool) -> None:
    """A charged frame holds what the slot holds, in the swap cache and on the lists."""
    row = s.slots[slot]
    zid = zone_of(s, pfn)
    page = s.mem[pfn]
    page["flags"] = PG_UPTODATE | PG_SWAPBACKED | (0 if row["flags"] & SLOT_SHMEM else PG_ANON) | (PG_READAHEAD if ahead else 0)
    page["content"] = row["content"]
    shadow = row["shadow"]
    page["refcount"] = 0
    add_to_swap_cache(s, zid, pfn, slot)
    if shadow < 0:
        workingset_refault(s, s.zones[zid]["node"], pfn, shadow, 0)
    row["shadow"] = 0
    folio_add_lru(s, zid, pfn)
    s.vm_event[PSWPIN] += 1
    s.vm_event[PGPGIN] += 4
    if ahead:
        s.vm_event[SWAP_RA] += 1
