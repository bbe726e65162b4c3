"""Shared memory on its way to swap and back (mm/shmem.c: shmem_writepage, shmem_swapin_folio).

A shared-memory page has no page-table entry that could remember its slot for everybody: any number of processes may map it,
or none. So the object itself remembers. Where its page was in the object's tree stands the slot instead:

    tree of the object     index 0  frame 0x51a3      index 1  slot 77      index 2  empty (a hole: zeros when touched)

    out   unmapped everywhere first (the entries become empty), then: slot taken and charged, page from the tree into the swap
          cache, the slot's number in its place, written; freed at the next look as any page of the swap cache
    in    a touch finds the slot: read with its cluster (a *major* fault) unless it is in the swap cache still (minor), back into the
          tree, dirty, and its slot is free at once: the tree holds the only reference

Worked example: 80M written under memory.max 48M: 20,480 faults, some 32M in swap, 8,300 pages out; reading the first 40M again: every
eighth fault is major (the cluster), the other seven find their page in the swap cache.

While it is swapped or in the swap cache the page is neither in Cached nor in Shmem, and in nobody's VmSwap; `Swap` of smaps shows it.
A page that was never written (a hole that was read) is dropped, not swapped.

Here a slot in a tree is a negative number; `SLOT_SHMEM` marks such slots. Where no slot can be had the page goes to the active list.
"""

from __future__ import annotations

from core.abi.page_flags import PG_DIRTY, PG_READAHEAD, PG_SHMEM
from core.jit import njit, step
from core.mm.mm_types import CTL_SWAP_HITS, State
from core.mm.page_alloc import zone_of
from core.mm.page_ops import XA_NODE_SHARE, next_entry, stat_add, xa_leaf
from core.mm.slab import account_slab
from core.mm.swap_slots import get_swap_page
from core.mm.swap_state import SWAP_RA_HIT, add_to_swap_cache, delete_from_swap_cache, free_swap_and_cache
from core.mm.swapfile import SLOT_SHMEM
from core.vmstat import NR_FILE_PAGES, NR_SHMEM


@step
def shmem_writepage(s: State, zid: int, pfn: int, root: int) -> bool:
    """An unmapped dirty page leaves its object for the swap cache; False if there is no slot for it."""
    page = s.mem[pfn]
    memcg, index = page["memcg"], page["index"]
    slot = get_swap_page(s, memcg)
    if slot == 0:
        return False
    add_to_swap_cache(s, zid, pfn, slot)
    s.slots[slot]["count"] = 1
    s.slots[slot]["flags"] = SLOT_SHMEM
    s.xa[xa_leaf(s, root, index), index & 511] = -slot
    stat_add(s, zid, memcg, NR_FILE_PAGES, -1)
    stat_add(s, zid, memcg, NR_SHMEM, -1)
    page["flags"] &= ~PG_SHMEM
    page["mapping"] = 0
    page["index"] = 0
    page["refcount"] -= 1
    return True


@step
def shmem_swapin_folio(s: State, inode: int, leaf: int, index: int, slot: int) -> int:
    """A page in the swap cache becomes page `index` of its object again: its frame; 0 if it has to be read first."""
    pfn = s.slots[slot]["pfn"]
    if pfn == 0:
        return 0
    page = s.mem[pfn]
    zid = zone_of(s, pfn)
    if page["flags"] & PG_READAHEAD:
        page["flags"] &= ~PG_READAHEAD
        s.vm_event[SWAP_RA_HIT] += 1
        s.ctl[CTL_SWAP_HITS] += 1
    payer = s.slots[slot]["memcg"]
    if payer != page["memcg"]:  # its cgroup is gone: another pays for the page, and for its place in the tree
        account_slab(s, payer, -XA_NODE_SHARE)
        account_slab(s, page["memcg"], XA_NODE_SHARE)
    page["mapping"] = inode
    page["index"] = index
    page["flags"] |= PG_SHMEM | PG_DIRTY
    s.xa[leaf, index & 511] = pfn
    stat_add(s, zid, page["memcg"], NR_FILE_PAGES, 1)
    stat_add(s, zid, page["memcg"], NR_SHMEM, 1)
    s.slots[slot]["count"] = 0
    delete_from_swap_cache(s, zid, pfn)  # its reference is the tree's now
    return pfn


@njit
def next_swapped(s: State, root: int, start: int, end: int) -> int:
    """The first index in [start, end) that names a slot, or -1."""
    return next_entry(s, root, start, end, -1)


@njit
def count_swapped(s: State, root: int, start: int, end: int) -> int:
    """How many pages of [start, end) are in swap (shmem_partial_swap_usage)."""
    n = 0
    at = next_swapped(s, root, start, end)
    while at >= 0:
        n += 1
        at = next_swapped(s, root, at + 1, end)
    return n


@njit
def free_swapped(s: State, root: int, start: int, end: int) -> int:
    """Give up the swapped pages of [start, end) (shmem_free_swap): how many."""
    n = 0
    at = next_swapped(s, root, start, end)
    while at >= 0:
        leaf = xa_leaf(s, root, at)
        slot = -s.xa[leaf, at & 511]
        s.xa[leaf, at & 511] = 0
        account_slab(s, s.slots[slot]["memcg"], -XA_NODE_SHARE)
        free_swap_and_cache(s, slot)
        n += 1
        at = next_swapped(s, root, at + 1, end)
    return n
