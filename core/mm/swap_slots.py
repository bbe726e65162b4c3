"""Which slot a page gets (mm/swap_slots.c; mm/swapfile.c: get_swap_pages, scan_swap_map_slots).

Areas are used in order of priority; those of the same priority take turns, a request each. A device that rotates is filled in runs:
where 512 slots in a row are free, searched from the beginning of the area, so that the head has short ways; where there are none, whatever is
free from its beginning on. On a device without a head the search goes on from where the last one ended (`scan_swap_map_slots`).

*Slot caches.* A processor asks for 64 slots at once and hands them out one by one; slots that are given back wait on the processor, too, until 64
more come (mm/swap_slots.c). Both count as used, and those that wait stay on their cgroup's account:

    one page swapped by one processor, and back again:  SwapFree is 64 pages below SwapTotal, memory.swap.current 4096

When less than 128 slots a processor are left, all go back and every request is served by itself; with more than 320 it begins anew. So read-ahead
finds pages together that one processor evicted together.

When more than half of swap is used, a slot on the way that only the swap cache refers to is taken from its page, which is dirty from then on.

Simplified: kswapd's slots are those of the last processor. A device without a head has no clusters of its own for each processor.
"""

from __future__ import annotations

from core.abi.page_flags import PG_LRU
from core.jit import step
from core.mm.mm_types import CTL_SWAP_CACHE, CTL_SWAP_FREE, HPAGE_PMD_NR, SLOTS_CACHE_SIZE, State
from core.mm.page_alloc import zone_of
from core.mm.swap_state import free_swap
from core.mm.swapfile import (
    ROTATING,
    SLOT_CACHED,
    SWAP_EVENT_FAIL,
    charge_swap,
    drain_slot_caches,
    free_swap_slot,
    is_free,
    swap_range_alloc,
    vm_swap_full,
)

SWAPFILE_CLUSTER = HPAGE_PMD_NR
LATENCY_LIMIT = 256  # slots that a search looks at in one go
ACTIVATE_SLOTS_CACHE, DEACTIVATE_SLOTS_CACHE = 5 * SLOTS_CACHE_SIZE, 2 * SLOTS_CACHE_SIZE  # free slots for each processor


# ---------------------------------------------------------------- areas: a search for free slots


@step
def next_area(s: State) -> int:
    """The area with the highest priority that has room; among equals the one whose turn it is. -1: none."""
    best = -1
    for i in range(len(s.swaps)):
        area = s.swaps[i]
        if area["on"] and area["pages"] > area["used"]:
            top = s.swaps[best] if best >= 0 else area
            if best < 0 or area["prio"] > top["prio"] or (area["prio"] == top["prio"] and area["turn"] < top["turn"]):
                best = i
    return best


@step
def requeue(s: State, kind: int) -> None:
    """An area that was asked stands behind its equals (plist_requeue)."""
    latest = 0
    for i in range(len(s.swaps)):
        latest = max(latest, s.swaps[i]["turn"])
    s.swaps[kind]["turn"] = latest + 1


@step
def empty_cluster(s: State, base: int, low: int, high: int) -> int:
    """The first 512 free slots in a row of low .. high: where they begin, 0 if there are none. Looks from a run's end: it may skip 512 at once."""
    start = low
    while start + SWAPFILE_CLUSTER - 1 <= high:
        at = start + SWAPFILE_CLUSTER - 1
        while at >= start and is_free(s, base + at):
            at -= 1
        if at < start:
            return start
        start = at + 1
    return 0


@step
def new_cluster(s: State, kind: int) -> int:
    """A device that rotates has filled its run of slots: where the next one begins. Without an empty one: at the first that may be free."""
    area = s.swaps[kind]
    area["cluster_nr"] = SWAPFILE_CLUSTER - 1
    if area["pages"] - area["used"] < SWAPFILE_CLUSTER:
        return area["next"]
    start = empty_cluster(s, area["base"], area["lowest"], area["highest"])
    return start if start else area["lowest"]


@step
def next_free(s: State, kind: int, offset: int, end: int) -> int:
    """The first free slot of offset .. end of an area, or 0."""
    base = s.swaps[kind]["base"]
    while offset <= end:
        if is_free(s, base + offset):
            return offset
        offset += 1
    return 0


@step
def can_take(s: State, slot: int, full: bool) -> bool:
    """Is the slot free, or can it be taken from the swap cache (__try_to_reclaim_swap)?"""
    row = s.slots[slot]
    pfn = row["pfn"]
    if full and pfn and row["count"] == 0 and s.mem[pfn]["flags"] & PG_LRU:
        free_swap(s, zone_of(s, pfn), pfn)  # and waits on the processor then, or is free at once
    return is_free(s, slot)


@step
def first_to_take(s: State, kind: int, offset: int) -> int:
    """From `offset` on and then from the area's beginning: the first slot that can be taken. There is one."""
    area = s.swaps[kind]
    full = vm_swap_full(s)
    at = offset if offset <= area["highest"] else area["lowest"]
    while not can_take(s, area["base"] + at, full):
        at += 1
        if at > area["highest"]:
            at = area["lowest"]
    return at


@step
def one_more(s: State, kind: int, offset: int) -> int:
    """The slot to take after `offset` in the same request, 0 if there is none near by."""
    area = s.swaps[kind]
    rotates = area["kind"] in ROTATING
    if not rotates or area["cluster_nr"] > 0:
        if is_free(s, area["base"] + offset + 1):
            area["cluster_nr"] -= 1 if rotates else 0
            return offset + 1
    return next_free(s, kind, offset + 1, min(area["highest"], offset + LATENCY_LIMIT))


@step
def scan_swap_map_slots(s: State, kind: int, nr: int, out) -> int:
    """Take up to `nr` slots of an area, which has a free one at least: how many, in `out`. Those of one request lie near each other."""
    area = s.swaps[kind]
    base, offset = area["base"], area["next"]
    if area["kind"] in ROTATING:
        if area["cluster_nr"] == 0:
            offset = new_cluster(s, kind)
        else:
            area["cluster_nr"] -= 1
    taken = 0
    while True:
        offset = first_to_take(s, kind, offset)
        s.slots[base + offset]["flags"] = SLOT_CACHED
        swap_range_alloc(s, kind, offset, 1)
        out[taken] = base + offset
        taken += 1
        area["next"] = offset + 1
        if taken == nr or offset >= area["highest"]:
            return taken
        offset = one_more(s, kind, offset)
        if offset == 0:
            return taken


@step
def get_swap_pages(s: State, nr: int, out) -> int:
    """Up to `nr` slots of the area whose turn it is: how many, in `out`."""
    kind = next_area(s)
    if kind < 0:
        return 0
    requeue(s, kind)
    return scan_swap_map_slots(s, kind, min(nr, s.ctl[CTL_SWAP_FREE]), out)


# ---------------------------------------------------------------- processors' slots


@step
def slots_cache_active(s: State) -> bool:
    """Is there so much free swap that processors may keep some (check_cache_active)?"""
    free, cpus = s.ctl[CTL_SWAP_FREE], len(s.slot_caches)
    if s.ctl[CTL_SWAP_CACHE] == 0:
        s.ctl[CTL_SWAP_CACHE] = 1 if free > cpus * ACTIVATE_SLOTS_CACHE else 0
    elif s.ctl[CTL_SWAP_CACHE] > 0 and free < cpus * DEACTIVATE_SLOTS_CACHE:
        s.ctl[CTL_SWAP_CACHE] = 0
        drain_slot_caches(s)
    return s.ctl[CTL_SWAP_CACHE] > 0


@step
def alloc_slot(s: State) -> int:
    """A slot that nobody pays for yet, or 0."""
    cpu = len(s.slot_caches) - 1 if s.sc[0]["kswapd"] else s.vmf[0]["cpu"]
    cache = s.slot_caches[cpu]
    if slots_cache_active(s):
        if cache["nr"] == 0:
            cache["cur"] = 0
            cache["nr"] = get_swap_pages(s, SLOTS_CACHE_SIZE, cache["slots"])
        if cache["nr"]:
            cache["nr"] -= 1
            cache["cur"] += 1
            return cache["slots"][cache["cur"] - 1]
    return cache["one"][0] if get_swap_pages(s, 1, cache["one"]) else 0


@step
def get_swap_page(s: State, memcg: int) -> int:
    """A free slot for a page of `memcg` (folio_alloc_swap), or 0: no swap left or not allowed."""
    slot = alloc_slot(s)
    if slot == 0:
        if memcg > 0:
            s.memcgs[memcg]["swap_events"][SWAP_EVENT_FAIL] += 1
        return 0
    row = s.slots[slot]
    if not charge_swap(s, memcg, 1):
        free_swap_slot(s, slot)
        return 0
    row["flags"] &= ~SLOT_CACHED
    row["memcg"] = memcg
    row["shadow"] = 0
    return slot


@step
def get_swap_cluster(s: State, memcg: int) -> int:
    """512 free slots in a row, aligned, for a huge page of `memcg`: the first, or 0 (get_swap_pages, swap_alloc_cluster).

    Only devices that do not rotate hand out clusters; on the others a huge page is split before it is swapped.
    """
    for i in range(len(s.swaps)):
        area = s.swaps[i]
        if not area["on"] or area["pages"] - area["used"] < HPAGE_PMD_NR or area["kind"] in ROTATING:
            continue
        for first in range(HPAGE_PMD_NR, area["pages"] - HPAGE_PMD_NR + 2, HPAGE_PMD_NR):
            base = area["base"] + first
            at = 0
            while at < HPAGE_PMD_NR and is_free(s, base + at):
                at += 1
            if at < HPAGE_PMD_NR:
                continue
            if not charge_swap(s, memcg, HPAGE_PMD_NR):
                return 0
            swap_range_alloc(s, i, first, HPAGE_PMD_NR)
            for slot in range(base, base + HPAGE_PMD_NR):
                s.slots[slot]["memcg"] = memcg
                s.slots[slot]["shadow"] = 0
            return base
    return 0
