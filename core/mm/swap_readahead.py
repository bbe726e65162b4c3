"""Reading from swap: how many slots at once, and the read itself (mm/swap_state.c: swapin_nr_pages, swap_cluster_readahead).

hits: pages read ahead last time that were used since. A first, isolated fault reads one page; hits + 2, rounded up to a
power of two of at least 4, is the next window; never more than 2^page-cluster, never less than half of the last one. The window
is aligned: the fault on slot 21 with 8 pages reads 16..23.

`swapin_readahead` is a step of the fault loop. It goes on as long as frames can be had, and stops with a reason where one cannot: the read then
stays under way (vmf.ra_*), and the same access takes it up again.
"""

from __future__ import annotations

from core.abi.page_flags import PG_WORKINGSET
from core.jit import njit, step
from core.mm.mm_types import CTL_SWAP_HITS, CTL_SWAP_LAST, CTL_SWAP_PREVIOUS, WMARK_LOW, State
from core.mm.swap_state import read_swap_cache
from core.mm.swapfile import swap_area
from core.vmstat import MEMCG_PGMAJFAULT, PGMAJFAULT

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
def swapin_readahead(s: State, v, slot: int, vpn: int) -> bool:
    """Read the page in `slot` with its neighbours, a major fault; False where a frame cannot be had (vmf.reason)."""
    if v["ra_next"] == 0:
        start_window(s, v, slot)
        v["ra_slot"], v["ra_pages"], v["ra_mark"], v["mark"] = slot, 0, v["mark"], WMARK_LOW
    v["ra_next"] = read_swap_cache(s, v, v["ra_slot"], v["ra_next"], v["ra_last"], vpn)
    if v["ra_next"] <= v["ra_last"]:
        return False
    v["ra_next"] = 0
    v["mark"] = v["ra_mark"]
    count_read(s, v, v["ra_slot"])
    return True


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
