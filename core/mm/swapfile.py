"""Swap areas: slots, who refers to them and who pays (mm/swapfile.c, mm/swap_cgroup.c).

A swap area is a row of page-sized slots; slot 0 is its header. A slot is in use while page-table entries refer to it (`count`;
fork duplicates entries), a page in the swap cache stands for it (`pfn`), or a processor keeps it for later (`SLOT_CACHED`).

Which slot a page gets, and what processors keep: `swap_slots`.

In a page table a swapped page is

      63..59   58 .. 9          8    3           1            0
     | type | ~offset (50 bits) | 0 | exclusive | soft-dirty | 0 |

(the offset is inverted so that a stray entry points at no RAM). A slot is charged to the page's cgroup when it is
handed out, against memory.swap.max of it and all above (`mem_cgroup_try_charge_swap`), and stays so until it is free.
"""

from __future__ import annotations

from core.jit import inline, step
from core.mm.mm_types import CTL_SWAP_CACHE, CTL_SWAP_FREE, CTL_SWAP_TOTAL, SLOTS_CACHE_SIZE, State
from core.mm.pgtable import SWP_OFFSET_SHIFT, SWP_TYPE_SHIFT
from core.mm.zram import SLOT_STORED, is_zram, zram_free

SWP_EXCLUSIVE = 1 << 3
ROTATING = (0, 4)  # kinds of machine.SWAP_KINDS: disk, virtio
SLOT_KSM = 2  # SLOT.flags: what lies there was a KSM page, its users have nothing else in common
OFFSET_MASK = (1 << 50) - 1
SLOT_SHMEM = 1  # SLOT.flags: a shared-memory object refers to it, not a page table (SWAP_MAP_SHMEM)
SLOT_CACHED = 4  # SLOT.flags: a processor keeps it (SWAP_HAS_CACHE without a page)
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


@inline
def vm_swap_full(s: State) -> bool:
    """Is more than half of swap used? Then slots that only the swap cache refers to are freed early."""
    return s.ctl[CTL_SWAP_FREE] * 2 < s.ctl[CTL_SWAP_TOTAL]


@inline
def is_free(s: State, slot: int) -> bool:
    """May the slot be given away?"""
    row = s.slots[slot]
    return row["count"] == 0 and row["pfn"] == 0 and not row["flags"] & SLOT_CACHED


@step
def swap_range_alloc(s: State, kind: int, offset: int, nr: int) -> None:
    """Slots are in use from now on."""
    area = s.swaps[kind]
    if offset == area["lowest"]:
        area["lowest"] += nr
    if offset + nr - 1 == area["highest"]:
        area["highest"] -= nr
    area["used"] += nr
    s.ctl[CTL_SWAP_FREE] -= nr
    if area["used"] == area["pages"]:
        area["lowest"], area["highest"] = area["pages"] + 1, 0


@step
def swap_range_free(s: State, kind: int, slot: int) -> None:
    """A slot can be given away again."""
    area = s.swaps[kind]
    offset = slot - area["base"]
    area["lowest"] = min(area["lowest"], offset)
    area["highest"] = max(area["highest"], offset)
    area["used"] -= 1
    s.ctl[CTL_SWAP_FREE] += 1


@step
def release(s: State, slot: int) -> None:
    """A slot that a processor kept goes back to its area, and off its cgroup's account (swap_entry_free)."""
    row = s.slots[slot]
    kind = swap_area(s, slot)
    uncharge_swap(s, row["memcg"])
    row["memcg"] = 0
    if is_zram(s, kind):
        zram_free(s, kind, slot)
    row["flags"] = 0
    swap_range_free(s, kind, slot)


@step
def give_back(s: State, cpu: int) -> None:
    """The slots that wait on a processor are free."""
    cache = s.slot_caches[cpu]
    for i in range(cache["n_ret"]):
        release(s, cache["ret"][i])
    cache["n_ret"] = 0


@step
def drain_slot_caches(s: State) -> None:
    """No processor keeps any slot (__drain_swap_slots_cache)."""
    for cpu in range(len(s.slot_caches)):
        cache = s.slot_caches[cpu]
        for i in range(cache["cur"], cache["cur"] + cache["nr"]):
            release(s, cache["slots"][i])
        cache["nr"] = 0
        give_back(s, cpu)


@step
def free_swap_slot(s: State, slot: int) -> None:
    """Nobody refers to the slot any more: it waits on the processor, if those keep slots."""
    row = s.slots[slot]
    row["flags"] = row["flags"] & SLOT_STORED | SLOT_CACHED
    if s.ctl[CTL_SWAP_CACHE] <= 0:
        release(s, slot)
        return
    cpu = s.vmf[0]["cpu"]
    cache = s.slot_caches[cpu]
    if cache["n_ret"] == SLOTS_CACHE_SIZE:
        give_back(s, cpu)
    cache["ret"][cache["n_ret"]] = slot
    cache["n_ret"] += 1


@step
def free_slot(s: State, slot: int) -> None:
    """Nobody needs the slot any more."""
    row = s.slots[slot]
    row["content"] = 0
    row["shadow"] = 0
    free_swap_slot(s, slot)


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
    if vm_swap_full(s):
        return True
    while memcg > 0:
        row = s.memcgs[memcg]
        if row["swap"] * 2 >= min(row["swap_max"], row["swap_high"]):
            return True
        memcg = row["parent"]
    return False


