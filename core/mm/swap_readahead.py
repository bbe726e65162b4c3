"""Reading from swap: how many slots at once, and the read itself (mm/swap_state.c: swapin_nr_pages, swap_cluster_readahead).

hits: pages read ahead last time that were used since. A first, isolated fault reads one page; hits + 2, rounded up to a
power of two of at least 4, is the next window; never more than 2^page-cluster, never less than half of the last one. The window
is aligned: the fault on slot 21 with 8 pages reads 16..23.

That is for disks that rotate. On those that do not, neighbours are taken by *address*: the window, as large by the same rule, lies around the
faulting page of the same mapping, ahead of it if the last fault was on the page before, behind it if on the page after, else around
it, within its page table; what is swapped there is read wherever it lies (swap_vma_readahead). Each mapping keeps its own last fault,
window and hits. One rotating area makes all read-ahead go by slots; shared memory always does. A page that only one entry wants is read from zram
alone: there is no seek to save.

`swapin_readahead` is a step of the fault loop. It goes on as long as frames can be had, and stops with a reason where one cannot: the read then
stays under way (vmf.ra_*), and the same access takes it up again.
"""

from __future__ import annotations

from core.abi.page_flags import PG_WORKINGSET
from core.jit import inline, njit, step
from core.mm.mm_types import (
    CTL_RA_ADDR,
    CTL_RA_HITS,
    CTL_RA_WIN,
    CTL_SWAP_HITS,
    CTL_SWAP_LAST,
    CTL_SWAP_PREVIOUS,
    CTL_VMA_RA,
    WMARK_LOW,
    State,
)
from core.mm.pgtable import PTE_PRESENT, find_pte_table
from core.mm.swap_state import SWAP_RA_HIT, read_swap_cache, swapin_memcg
from core.mm.swapfile import swap_area, swp_slot
from core.vmstat import MEMCG_PGMAJFAULT, PGMAJFAULT

MOST_BY_ADDRESS = 32  # 1 << SWAP_RA_ORDER_CEILING
V_SHMEM = 2  # vmf.kind
ZRAM = 3  # in SWAP_KINDS
RA_HITS_MAX = 63
PAGE_NS = 4096 * 1_000_000_000  # over bytes a second: ns for one page


@njit
def nr_pages(previous: int, offset: int, hits: int, limit: int, last: int) -> int:
    """The window for a fault at `offset` (__swapin_nr_pages)."""
    pages = 1
    if hits:
        pages = 4
        while pages < hits + 2:
            pages *= 2
    elif offset in (previous + 1, previous - 1):
        pages = 2
    return max(min(pages, limit), last // 2)


@step
def start_window(s: State, v, slot: int) -> None:
    """The slots to read for a fault on `slot`: vmf.ra_next to vmf.ra_last."""
    ctl, area = s.ctl, s.swaps[swap_area(s, slot)]
    offset = slot - area["base"]
    hits = ctl[CTL_SWAP_HITS]
    ctl[CTL_SWAP_HITS] = 0
    pages = 1 if v["cluster"] == 1 else nr_pages(ctl[CTL_SWAP_PREVIOUS], offset, hits, v["cluster"], ctl[CTL_SWAP_LAST])
    if not hits:
        ctl[CTL_SWAP_PREVIOUS] = offset
    ctl[CTL_SWAP_LAST] = pages
    v["ra_next"] = area["base"] + max(offset & ~(pages - 1), 1)
    v["ra_last"] = area["base"] + min(offset | (pages - 1), area["pages"])


@step
def start_vma_window(s: State, v, vpn: int) -> None:
    """The pages of the mapping to read for a fault on `vpn`: vmf.ra_next to vmf.ra_last (swap_ra_info)."""
    ctl = s.ctl
    before, win = ctl[CTL_RA_ADDR], 1
    limit = min(v["cluster"], MOST_BY_ADDRESS)
    if limit > 1:
        win = nr_pages(before, vpn, ctl[CTL_RA_HITS], limit, ctl[CTL_RA_WIN])
        ctl[CTL_RA_ADDR], ctl[CTL_RA_WIN], ctl[CTL_RA_HITS] = vpn, win, 0
    low = vpn - (win - 1) // 2
    if vpn == before + 1:
        low = vpn
    elif before == vpn + 1:
        low = vpn - win + 1
    high = low + win
    v["ra_next"] = max(low, v["vm_start"], vpn & ~511)
    v["ra_last"] = min(high, v["vm_end"], (vpn | 511) + 1) - 1


@step
def read_by_address(s: State, v, target: int, at: int, end: int, vpn: int) -> int:
    """Read what is swapped of the pages at .. end of the mapping; as `read_swap_cache` otherwise."""
    tid = find_pte_table(s, s.mms[v["mm"]]["pgd"], vpn)
    while at <= end:
        pte = s.pt[tid, at & 511]
        if pte and not pte & PTE_PRESENT:
            slot = swp_slot(s, pte)
            if read_swap_cache(s, v, target, slot, slot, vpn) == slot:
                break
        at += 1
    return at


@step
def alone(s: State, slot: int) -> bool:
    """Is this page read from zram, for one entry only (SWP_SYNCHRONOUS_IO)?"""
    return s.swaps[swap_area(s, slot)]["kind"] == ZRAM and s.slots[slot]["count"] == 1


@inline
def reads_by_address(s: State, v, slot: int) -> bool:
    """Are the neighbours that are read with a slot those of the page in the mapping? Else they are those of the slot in its area."""
    return s.ctl[CTL_VMA_RA] != 0 and v["kind"] != V_SHMEM and not alone(s, slot)


@step
def read_place(s: State, v, slot: int, vpn: int) -> int:
    """Where a read that gets no further stands, as vmf.ra_next says it: at a page, or at a slot."""
    return vpn if reads_by_address(s, v, slot) else slot


@step
def slot_at(s: State, v, place: int) -> int:
    """The slot of such a place; 0: nothing is swapped there."""
    if not reads_by_address(s, v, v["ra_slot"]):
        return place
    pte = s.pt[find_pte_table(s, s.mms[v["mm"]]["pgd"], place), place & 511]
    return swp_slot(s, pte) if pte and not pte & PTE_PRESENT else 0


@njit
def memcg_at_hand(s: State) -> int:
    """Whose charge was refused: the owner's of the slot that a read under way goes on with (mem_cgroup_swapin_charge_folio), else vmf's."""
    v = s.vmf[0]
    return swapin_memcg(s, v["memcg"], slot_at(s, v, v["ra_next"])) if v["ra_next"] else v["memcg"]


@njit
def next_refused(s: State) -> int:
    """A read whose charge was refused for good goes on with the next slot of its window, and at last once more with the page that it is for.

    The cgroup that is to pay; -1: that was all. vmf.ra_next, vmf.ra_last: what is left.
    """
    v = s.vmf[0]
    while v["ra_next"] and v["ra_next"] < v["ra_last"]:
        v["ra_next"] += 1
        slot = slot_at(s, v, v["ra_next"])
        if slot and s.slots[slot]["pfn"] == 0 and s.slots[slot]["count"] > 0:
            return swapin_memcg(s, v["memcg"], slot)
    again = v["ra_next"] != 0 and s.slots[v["ra_slot"]]["pfn"] == 0
    v["ra_next"] = 0
    return swapin_memcg(s, v["memcg"], v["ra_slot"]) if again else -1


@step
def swapin_readahead(s: State, v, slot: int, vpn: int) -> bool:
    """Read the page in `slot` with its neighbours, a major fault; False where a frame cannot be had (vmf.reason)."""
    single = alone(s, slot if v["ra_next"] == 0 else v["ra_slot"])
    by_address = not single and s.ctl[CTL_VMA_RA] and v["kind"] != V_SHMEM
    if v["ra_next"] == 0:
        if single:
            v["ra_next"], v["ra_last"] = slot, slot
        elif by_address:
            start_vma_window(s, v, vpn)
        else:
            start_window(s, v, slot)
        v["ra_slot"], v["ra_pages"], v["ra_mark"], v["mark"] = slot, 0, v["mark"], WMARK_LOW
    if by_address:
        v["ra_next"] = read_by_address(s, v, v["ra_slot"], v["ra_next"], v["ra_last"], vpn)
    else:
        v["ra_next"] = read_swap_cache(s, v, v["ra_slot"], v["ra_next"], v["ra_last"], vpn)
    if v["ra_next"] <= v["ra_last"]:
        return False
    v["ra_next"] = 0
    v["mark"] = v["ra_mark"]
    count_read(s, v, v["ra_slot"])
    return True


@step
def note_hit(s: State, vpn: int, ahead: bool) -> None:
    """A fault found its page in the swap cache: the mapping's read-ahead goes on from here (lookup_swap_cache)."""
    if ahead:
        s.vm_event[SWAP_RA_HIT] += 1
    if s.ctl[CTL_VMA_RA]:
        s.ctl[CTL_RA_ADDR] = vpn
        s.ctl[CTL_RA_HITS] = min(s.ctl[CTL_RA_HITS] + (1 if ahead else 0), RA_HITS_MAX)
    elif ahead:
        s.ctl[CTL_SWAP_HITS] += 1


@step
def count_read(s: State, v, slot: int) -> None:
    """The read is done: its fault and its time; it was a stall if the page that it was for had been in the workingset."""
    area = s.swaps[swap_area(s, slot)]
    pfn = s.slots[slot]["pfn"]
    if v["reads"] == 0:
        v["read_slot"] = slot
    v["reads"] += 1
    v["major"] += 1
    v["read_pages"] += v["ra_pages"]
    v["read_ns"] += area["latency"] + v["ra_pages"] * PAGE_NS // area["bandwidth"]
    v["read_stall"] = 1 if pfn and s.mem[pfn]["flags"] & PG_WORKINGSET else 0
    s.vm_event[PGMAJFAULT] += 1
    s.memcgs[v["memcg"]]["stat"][MEMCG_PGMAJFAULT] += 1


@njit
def read_slot(s: State, slot: int, vpn: int) -> bool:
    """`swapin_readahead`, callable from Python."""
    return swapin_readahead(s, s.vmf[0], slot, vpn)
