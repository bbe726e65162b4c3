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
from core.jit import njit, step
from core.mm.mm_types import State
from core.mm.page_alloc import zone_of
from core.mm.page_ops import DONE, GFP_USER, alloc_charged, put_page, stat_add
from core.mm.swap import lru_add
from core.mm.swapfile import SLOT_SHMEM, free_slot, swap_free
from core.mm.workingset import workingset_refault
from core.vmstat import EVENT, NR_FILE_PAGES, NR_SWAPCACHE

PSWPIN, PGPGIN = EVENT["pswpin"], EVENT["pgpgin"]
SWAP_RA, SWAP_RA_HIT = EVENT["swap_ra"], EVENT["swap_ra_hit"]


@step
def add_to_swap_cache(s: State, zid: int, pfn: int, slot: int) -> None:
    """The page stands for the slot; the cache holds a reference."""
    page = s.mem[pfn]
    page["flags"] |= PG_SWAPCACHE
    page["private"] = slot
    page["refcount"] += 1
    s.slots[slot]["pfn"] = pfn
    s.node_stat[s.zones[zid]["node"], NR_FILE_PAGES] += 1
    stat_add(s, zid, page["memcg"], NR_SWAPCACHE, 1)


@step
def delete_from_swap_cache(s: State, zid: int, pfn: int) -> None:
    """The page stands for no slot any more; the slot is free if no entry refers to it. The reference is the caller's."""
    page = s.mem[pfn]
    slot = page["private"]
    page["flags"] &= ~PG_SWAPCACHE
    page["private"] = 0
    s.slots[slot]["pfn"] = 0
    s.node_stat[s.zones[zid]["node"], NR_FILE_PAGES] -= 1
    stat_add(s, zid, page["memcg"], NR_SWAPCACHE, -1)
    if s.slots[slot]["count"] == 0:
        free_slot(s, slot)


@step
def free_swap(s: State, zid: int, pfn: int) -> bool:
    """Give up the slot of a page that only its cache refers to (folio_free_swap)."""
    if s.slots[s.mem[pfn]["private"]]["count"] > 0:
        return False
    delete_from_swap_cache(s, zid, pfn)
    s.mem[pfn]["flags"] |= PG_DIRTY  # the only copy now
    return not put_page(s, zid, pfn)


@step
def free_swap_and_cache(s: State, slot: int) -> None:
    """An entry that named a slot is gone; with the last one goes a cached page that nobody maps."""
    swap_free(s, slot)
    pfn = s.slots[slot]["pfn"]
    if pfn and s.slots[slot]["count"] == 0 and s.mem[pfn]["mapcount"] == 0:
        free_swap(s, zone_of(s, pfn), pfn)


@njit
def swapin_cluster(s: State, target: int, start: int, end: int) -> None:
    """Read the slots start .. end (inclusive) that are in use into the swap cache; all but `target` are read ahead.

    vmf: `count[15]` pages read, `done` the slot to go on with, and a reason where a frame cannot be had.
    """
    v = s.vmf[0]
    v["reason"] = DONE
    own = v["memcg"]
    slot = start + v["done"]
    while slot <= end:
        row = s.slots[slot]
        if row["pfn"] == 0 and row["count"] > 0:
            memcg = row["memcg"]
            v["memcg"] = own if memcg > 0 and s.memcgs[memcg]["offline"] else memcg
            pfn = alloc_charged(s, v, GFP_USER, v["first"])
            if pfn == 0:
                break
            zid = zone_of(s, pfn)
            page = s.mem[pfn]
            page["flags"] = PG_UPTODATE | PG_SWAPBACKED | (0 if row["flags"] & SLOT_SHMEM else PG_ANON) | (0 if slot == target else PG_READAHEAD)
            page["content"] = row["content"]
            shadow = row["shadow"]
            page["refcount"] = 0
            add_to_swap_cache(s, zid, pfn, slot)
            if shadow < 0:
                workingset_refault(s, s.zones[zid]["node"], pfn, shadow, 0)
            row["shadow"] = 0
            lru_add(s, zid, pfn)
            v["count"][15] += 1
            s.vm_event[PSWPIN] += 1
            s.vm_event[PGPGIN] += 4
            if slot != target:
                s.vm_event[SWAP_RA] += 1
        slot += 1
    v["memcg"] = own
    v["done"] = slot - start
