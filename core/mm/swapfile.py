"""Swap areas: slots, who refers to them and who pays (mm/swapfile.c, mm/swap_cgroup.c).

A swap area is a row of page-sized slots; slot 0 is its header. A slot is in use while page-table entries refer to it (`count`;
fork duplicates entries) or a page in the swap cache stands for it (`pfn`). Areas are used in order of priority; within one,
slots are handed out in ascending order from where the last search ended, so that pages evicted together lie together and
read-ahead finds them.

In a page table a swapped page is

      63..59   58 .. 9          8    3           1            0
     | type | ~offset (50 bits) | 0 | exclusive | soft-dirty | 0 |

(the offset is inverted so that a stray entry points at no RAM). A slot is charged to the page's cgroup when it is
handed out, against memory.swap.max of it and all above (`mem_cgroup_try_charge_swap`), and stays so until it is free.
"""

from __future__ import annotations

from core.jit import inline, step
from core.mm.mm_types import HPAGE_PMD_NR, State
from core.mm.pgtable import SWP_OFFSET_SHIFT, SWP_TYPE_SHIFT

SWP_EXCLUSIVE = 1 << 3
ROTATING = (0, 4)  # kinds of machine.SWAP_KINDS: disk, virtio
SLOT_KSM = 2  # SLOT.flags: what lies there was a KSM page, its users have nothing else in common
OFFSET_MASK = (1 << 50) - 1
SLOT_SHMEM = 1  # SLOT.flags: a shared-memory object refers to it, not a page table (SWAP_MAP_SHMEM)
SWAP_EVENT_HIGH, SWAP_EVENT_MAX, SWAP_EVENT_FAIL = range(3)


@inline
def swap_area(s: State, slot: int) -> int:
    """The swap area that a slot belongs to."""
    kind = 0
    while kind + 1 < len(s.swaps) and s.swaps[kind + 1]["pages"] > 0 and slot >= s.swaps[kind + 1]["base"]:
        kind += 1
    return kind


@inline
def swp_entry(s: State, slot: int) -> int:
    """The page-table entry that names a slot."""
    kind = swap_area(s, slot)
    offset = slot - s.swaps[kind]["base"]
    return (kind << SWP_TYPE_SHIFT) | ((~offset & OFFSET_MASK) << SWP_OFFSET_SHIFT)


@inline
def swp_slot(s: State, pte: int) -> int:
    """The slot that a page-table entry names."""
    kind = (pte >> SWP_TYPE_SHIFT) & 31
    return s.swaps[kind]["base"] + (~(pte >> SWP_OFFSET_SHIFT) & OFFSET_MASK)


@step
def charge_swap(s: State, memcg: int, nr: int) -> bool:
    """`nr` slots on a cgroup's account; False, with its event, where a swap.max above is reached."""
    at = memcg
    while at > 0:
        row = s.memcgs[at]
        if row["swap"] + nr > row["swap_max"]:
            row["swap_events"][SWAP_EVENT_MAX] += 1
            row["swap_events"][SWAP_EVENT_FAIL] += 1
            undo = memcg
            while undo != at:
                s.memcgs[undo]["swap"] -= nr
                undo = s.memcgs[undo]["parent"]
            return False
        row["swap"] += nr
        at = row["parent"]
    return True


@step
def uncharge_swap(s: State, memcg: int) -> None:
    """A slot is free again."""
    while memcg > 0:
        s.memcgs[memcg]["swap"] -= 1
        memcg = s.memcgs[memcg]["parent"]


@step
def get_swap_page(s: State, memcg: int) -> int:
    """A free slot for a page of `memcg` (folio_alloc_swap), or 0: no swap left or not allowed."""
    best = -1
    for i in range(len(s.swaps)):
        area = s.swaps[i]
        if area["pages"] > area["used"] and (best < 0 or area["prio"] > s.swaps[best]["prio"]):
            best = i
    if best < 0:
        if memcg > 0:
            s.memcgs[memcg]["swap_events"][SWAP_EVENT_FAIL] += 1
        return 0
    if not charge_swap(s, memcg, 1):
        return 0
    area = s.swaps[best]
    offset = area["next"]
    while True:
        if offset > area["pages"]:
            offset = 1
        row = s.slots[area["base"] + offset]
        if row["count"] == 0 and row["pfn"] == 0:
            break
        offset += 1
    area["next"] = offset + 1
    area["used"] += 1
    slot = area["base"] + offset
    s.slots[slot]["memcg"] = memcg
    s.slots[slot]["shadow"] = 0
    return slot


@step
def get_swap_cluster(s: State, memcg: int) -> int:
    """512 free slots in a row, aligned, for a huge page of `memcg`: the first, or 0 (get_swap_pages, swap_alloc_cluster).

    Only devices that do not rotate hand out clusters; on the others a huge page is split before it is swapped.
    """
    for i in range(len(s.swaps)):
        area = s.swaps[i]
        if area["pages"] - area["used"] < HPAGE_PMD_NR or area["kind"] in ROTATING:
            continue
        for first in range(HPAGE_PMD_NR, area["pages"] - HPAGE_PMD_NR + 2, HPAGE_PMD_NR):
            base = area["base"] + first
            at = 0
            while at < HPAGE_PMD_NR and s.slots[base + at]["count"] == 0 and s.slots[base + at]["pfn"] == 0:
                at += 1
            if at < HPAGE_PMD_NR:
                continue
            if not charge_swap(s, memcg, HPAGE_PMD_NR):
                return 0
            area["used"] += HPAGE_PMD_NR
            for slot in range(base, base + HPAGE_PMD_NR):
                s.slots[slot]["memcg"] = memcg
                s.slots[slot]["shadow"] = 0
            return base
    return 0


@step
def free_slot(s: State, slot: int) -> None:
    """Nobody needs the slot any more."""
    s.swaps[swap_area(s, slot)]["used"] -= 1
    row = s.slots[slot]
    uncharge_swap(s, row["memcg"])
    row["memcg"] = 0
    row["content"] = 0
    row["shadow"] = 0
    row["flags"] = 0


@inline
def swap_duplicate(s: State, slot: int) -> None:
    """One more entry refers to the slot."""
    s.slots[slot]["count"] += 1


@step
def swap_free(s: State, slot: int) -> None:
    """One entry less refers to the slot; free when it was the last and no page is cached for it."""
    row = s.slots[slot]
    row["count"] -= 1
    if row["count"] == 0 and row["pfn"] == 0:
        free_slot(s, slot)


@step
def swap_full(s: State, memcg: int) -> bool:
    """Is swap more than half used, or some cgroup's share of it (mem_cgroup_swap_full)? Then slots are freed early."""
    pages, used = 0, 0
    for i in range(len(s.swaps)):
        pages += s.swaps[i]["pages"]
        used += s.swaps[i]["used"]
    if used * 2 > pages:
        return True
    while memcg > 0:
        row = s.memcgs[memcg]
        if row["swap"] * 2 >= min(row["swap_max"], row["swap_high"]):
            return True
        memcg = row["parent"]
    return False


