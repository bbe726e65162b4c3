"""Per-CPU lists of free pages, as counts (mm/page_alloc.c: struct per_cpu_pages).

A page that a CPU frees does not go back to its zone at once: it stays on a list of the CPU, up to `high` pages, and is what the CPU takes next. Such
pages are free, but not in MemFree. Huge pages have a list of their own, filled two at a time:

    a process frees 8 MiB of small pages        MemFree as before: they stand on the CPU's list (free_pcp)
    and then touches 4 MiB                      MemFree as before: the CPU had them
    one huge page is allocated                  MemFree 4 MiB less: two were taken; the next one costs nothing

Here the frames themselves go straight to their zone. What would stand on the lists is *counted*, after each call and each run of a daemon, from
what the zones gained and lost meanwhile, and taken off where user space reads free pages (MemFree, nr_free_pages). Watermarks see the zones.
The pages that boot left on the lists are a range of their own (`boot.give_zone`) and stay there.

`high` is the low watermark divided by the node's CPUs: 512M 405 pages a CPU, 1G with huge pages on 7,040. A list that
reaches it goes back in bulk, in ever larger batches as long as nothing is allocated: after a large munmap next to nothing is left on it. Direct
reclaim empties the lists (drain_all_pages).

Simplified: counts, so buddyinfo shows the pages in the zone; no batches for small pages; a process does not move from CPU to CPU by itself.

Source: mm/page_alloc.c of 6.1: free_unref_page_commit, rmqueue_pcplist, nr_pcp_high.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.direct import Direct
from core.jit import inline, njit
from core.mm.mm_types import HPAGE_PMD_NR
from core.mm.mmzone import PCP_BOOT, PCP_FIRST, PCP_FREE, PCP_FREED, PCP_HIGH, PCP_TAKEN, cpu_to_node

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array

HUGE_BATCH = 2  # huge pages that a CPU takes from the zone at a time


def start(k: Kernel) -> None:
    """Boot: nothing stands on the lists but what boot left there."""
    for zid, count in k.boot_facts.pcp_counts.items():
        k.pcp.rows[zid, PCP_BOOT] = count
    drain_all_pages(k)


def settle(k: Kernel, cpu: int) -> None:
    """What `cpu` allocated and freed since the last time: its lists give and take first."""
    SETTLE.run(k.s.zones, k.pcp.rows, cpu)


@njit
def settle_zones(zones: Array, pcp: Array, cpu: int) -> None:
    """`settle`, zone by zone."""
    cpus = (pcp.shape[1] - PCP_FIRST) // 2
    for zid in range(len(zones)):
        zone, row = zones[zid], pcp[zid]
        gained, taken, freed = zone["free"] - row[PCP_FREE], zone["huge_taken"] - row[PCP_TAKEN], zone["huge_freed"] - row[PCP_FREED]
        if gained or taken or freed:
            row[PCP_FREE], row[PCP_TAKEN], row[PCP_FREED] = zone["free"], zone["huge_taken"], zone["huge_freed"]
            room = max(0, row[PCP_HIGH] - row[PCP_BOOT])
            settle_zone(row, PCP_FIRST + cpu, PCP_FIRST + cpus + cpu, room, gained, taken, freed)


SETTLE = Direct(settle_zones)


@inline
def settle_zone(row: Array, small: int, huge: int, room: int, gained: int, taken: int, freed: int) -> None:
    """One zone's lists of a CPU, at places `small` and `huge` of its row, after such gains and losses; `room` is their limit in pages."""
    row[huge] += freed - taken
    if row[huge] < 0:
        row[huge] += -(row[huge] // HUGE_BATCH) * HUGE_BATCH  # so many pairs
    row[huge] = min(row[huge], room // HPAGE_PMD_NR)
    row[small] = max(0, row[small] + gained + (taken - freed) * HPAGE_PMD_NR)
    limit = room - row[huge] * HPAGE_PMD_NR
    if row[small] > limit:
        row[small] = limit if taken else 0  # frees and nothing else: it went back in bulk, again and again (nr_pcp_free)


def drain_all_pages(k: Kernel) -> None:
    """Memory is short: every list goes back to its zone."""
    DRAIN.run(k.s.zones, k.pcp.rows)


@njit
def drain_zones(zones: Array, pcp: Array) -> None:
    """`drain_all_pages`, zone by zone."""
    for zid in range(len(zones)):
        zone, row = zones[zid], pcp[zid]
        row[PCP_FREE], row[PCP_TAKEN], row[PCP_FREED] = zone["free"], zone["huge_taken"], zone["huge_freed"]
        for at in range(PCP_FIRST, len(row)):
            row[at] = 0


DRAIN = Direct(drain_zones)


def held(k: Kernel, zid: int) -> int:
    """Pages of a zone on the lists beyond what boot left there, never more than the zone has."""
    small, huge = k.pcp.rows[zid, PCP_FIRST:].reshape(2, k.nr_cpus)
    return min(int(small.sum() + HPAGE_PMD_NR * huge.sum()), int(k.s.zones["free"][zid]))


def count(k: Kernel, zid: int, cpu: int) -> int:
    """Pages on one CPU's list (zoneinfo)."""
    own, row = cpu_to_node(k, cpu) == int(k.s.zones["node"][zid]), k.pcp.rows[zid]
    return (int(row[PCP_BOOT]) if own else 0) + int(row[PCP_FIRST + cpu]) + HPAGE_PMD_NR * int(row[PCP_FIRST + k.nr_cpus + cpu])
