"""How many slots to read at once when a page comes back from swap (mm/swap_state.c:swapin_nr_pages).

hits: pages read ahead last time that were used since. A first, isolated fault reads one page; hits + 2, rounded up to a
power of two of at least 4, is the next window; never more than 2^page-cluster, never less than half of the last one. The window
is aligned: the fault on slot 21 with 8 pages reads 16..23.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.machine import STORAGE_NS
from core.mm.mm_types import CTL_SWAP_HITS

if TYPE_CHECKING:
    from core.kernel import Kernel


def nr_pages(previous: int, offset: int, hits: int, limit: int, last: int) -> int:
    """The window for a fault at `offset` (__swapin_nr_pages)."""
    pages = hits + 2
    if pages == 2:
        if offset not in (previous + 1, previous - 1):
            pages = 1
    else:
        pages = max(4, 1 << (pages - 1).bit_length())
    return max(min(pages, limit), last // 2)


def window(k: Kernel, slot: int) -> tuple[int, int]:
    """The slots to read, first and last, for a fault on `slot`."""
    area = k.s.swaps[device_of(k, slot)]
    offset = slot - int(area["base"])
    limit = 1 << int(k.sysctl["vm.page-cluster"])
    hits = int(k.s.ctl[CTL_SWAP_HITS])
    k.s.ctl[CTL_SWAP_HITS] = 0
    state = k.swap_ra
    pages = 1 if limit == 1 else nr_pages(state["previous"], offset, hits, limit, state["last"])
    if not hits:
        state["previous"] = offset
    state["last"] = pages
    first = offset & ~(pages - 1)
    last = min(offset | (pages - 1), int(area["pages"]))
    return int(area["base"]) + max(first, 1), int(area["base"]) + last


def device_of(k: Kernel, slot: int) -> int:
    """The swap area that a slot belongs to."""
    areas = k.s.swaps
    return max(i for i in range(len(areas)) if areas["pages"][i] and int(areas["base"][i]) <= slot)


def io_ns(k: Kernel, slot: int, pages: int) -> int:
    """Simulated time of one read from the area's device."""
    latency, bandwidth = STORAGE_NS[k.swap_devices[device_of(k, slot)]["kind"]]
    return latency + pages * 4096 * 1_000_000_000 // bandwidth
