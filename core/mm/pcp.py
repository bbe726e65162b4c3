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

from core.mm.mm_types import HPAGE_PMD_NR
from core.mm.mmzone import cpu_to_node, pcp_high

if TYPE_CHECKING:
    from core.kernel import Kernel

HUGE_BATCH = 2  # huge pages that a CPU takes from the zone at a time


def start(k: Kernel) -> None:
    """Boot: nothing stands on the lists but what boot left there."""
    zones, cpus = len(k.s.zones), k.nr_cpus
    k.pcp = {"small": [[0] * cpus for _ in range(zones)], "huge": [[0] * cpus for _ in range(zones)], "seen": []}
    k.pcp["seen"] = _now(k)


def _now(k: Kernel) -> list[tuple[int, int, int]]:
    """By zone: free pages, huge pages taken and given back since boot."""
    zones = k.s.zones
    return list(zip(zones["free"].tolist(), zones["huge_taken"].tolist(), zones["huge_freed"].tolist(), strict=True))


def settle(k: Kernel, cpu: int) -> None:
    """What `cpu` allocated and freed since the last time: its lists give and take first."""
    now, seen = _now(k), k.pcp["seen"]
    if now == seen:
        return
    k.pcp["seen"] = now
    for zid, ((free, taken, freed), (free_before, taken_before, freed_before)) in enumerate(zip(now, seen, strict=True)):
        if now[zid] != seen[zid]:
            _settle_zone(k, zid, cpu, free - free_before, taken - taken_before, freed - freed_before)


def _settle_zone(k: Kernel, zid: int, cpu: int, gained: int, taken: int, freed: int) -> None:
    small, huge = k.pcp["small"][zid], k.pcp["huge"][zid]
    room = max(0, pcp_high(k, zid) - k.boot_facts.pcp_counts.get(zid, 0))
    huge[cpu] += freed - taken
    if huge[cpu] < 0:
        huge[cpu] += -(huge[cpu] // HUGE_BATCH) * HUGE_BATCH  # so many pairs
    huge[cpu] = min(huge[cpu], room // HPAGE_PMD_NR)
    small[cpu] = max(0, small[cpu] + gained + (taken - freed) * HPAGE_PMD_NR)
    limit = room - huge[cpu] * HPAGE_PMD_NR
    if small[cpu] > limit:
        small[cpu] = limit if taken else 0  # frees and nothing else: it went back in bulk, again and again (nr_pcp_free)


def drain_all_pages(k: Kernel) -> None:
    """Memory is short: every list goes back to its zone."""
    for lists in (k.pcp["small"], k.pcp["huge"]):
        for row in lists:
            row[:] = [0] * len(row)
    k.pcp["seen"] = _now(k)


def held(k: Kernel, zid: int) -> int:
    """Pages of a zone on the lists beyond what boot left there, never more than the zone has."""
    pages = sum(k.pcp["small"][zid]) + HPAGE_PMD_NR * sum(k.pcp["huge"][zid])
    return min(pages, int(k.s.zones["free"][zid]))


def count(k: Kernel, zid: int, cpu: int) -> int:
    """Pages on one CPU's list (zoneinfo)."""
    own = cpu_to_node(k, cpu) == int(k.s.zones["node"][zid])
    return (k.boot_facts.pcp_counts.get(zid, 0) if own else 0) + k.pcp["small"][zid][cpu] + HPAGE_PMD_NR * k.pcp["huge"][zid][cpu]
