"""Nodes, zones and watermarks: how physical memory is laid out and where pressure begins.

    pfn 1        256       4096                                   0xC0000        0x100000
     | BIOS, hole | zone DMA | zone DMA32 ...                        | PCI hole ... | zone Normal ...
       (not RAM     16 MiB     below 4 GiB                             (3 or 3.5 to   above 4 GiB
        or held)                                                        4 GiB)

*present* frames are RAM; *managed* ones the allocator may hand out: the kernel image, the page array (64
bytes a frame, 1.6 %) and the hash tables are gone before it starts. These figures come from recordings of
Linux 6.1 booting on 256M, 512M and 1G (they agree with the straight line below to a few pages):

    reserved(first DMA32 zone) = 12078 + present * 1120/65536        512M: 12078 + 2169 = 14247
    reserved(other node)       =   528 + present * 1120/65536

A machine too small for a kernel of that size (below about 128M a real one would not boot) keeps half of the zone for it.

Watermarks (`__setup_per_zone_wmarks`): min_free_kbytes = int_sqrt(lowmem_kB * 16), shared out over the zones by
size; low = min + step, high = low + step with step = max(min/4, managed * watermark_scale_factor/10000).
512M: int_sqrt(453296 * 16) = 2693 kB = 673 pages: DMA 22, DMA32 649/811/973. Linux computes this while 3364
pages of initrd and init code are still in use, so `EARLY` is taken off then; a write to min_free_kbytes
computes with the final sizes. With transparent huge pages on, khugepaged raises min_free_kbytes to
512 * zones * 11 pages, at most 5 % of memory (`set_recommended_min_free_kbytes`).

`lowmem_reserve[j]`: what a zone keeps from requests that could also use zone j: (managed pages of the zones
above, up to j) / ratio, ratios 256, 256, 32. 512M: DMA keeps 427 pages.

Source: mm/page_alloc.c, arch/x86/mm/init.c, mm/khugepaged.c; facts WM-01..06.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from core.mm.mm_types import (
    CTL_RECLAIM_MODE,
    PAGEBLOCK_PAGES,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    WMARK_PROMO,
    ZONE_DMA,
    ZONE_DMA32,
    ZONE_NORMAL,
    ZONES_PER_NODE,
    Array,
)

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.machine import Machine

DMA_END = 1 << 12  # 16 MiB, in frames
DMA32_END = 1 << 20  # 4 GiB
DMA_FIRST, DMA_USABLE = 1, 256  # frame 0 and the first MiB are the firmware's
DMA_HOLE = 97  # frames 0x9f..0xff are not RAM
ACPI_FRAMES = 38  # the last frames of memory hold the firmware's tables
LOWMEM_SPLIT, LOWMEM_BELOW = 0xE0000, 0xC0000  # 3.5 GiB or more installed: only 3 GiB lie below 4 GiB
RESERVED_BASE, RESERVED_NODE = 12078, 528
MEMMAP_SHARE = (1120, 65536)
EARLY_FIRST, EARLY_LAST = 2002, 1362  # init code (first DMA32 zone) and initrd (top of memory), freed late
RECLAIM_DISTANCE = 30  # beyond it a request does not reclaim a node to stay there (zone_reclaim_mode)
NODES_MOST = 1 << 10  # MAX_NUMNODES: distance first, load second
MAX_MIN_FREE_KB, MIN_MIN_FREE_KB = 262144, 128


# PerCpuPages.rows. HIGH: how many pages of the zone each CPU may keep to itself; FREE, TAKEN, FREED: what was counted of `free`, `huge_taken` and
# `huge_freed` of the zone already; BOOT: what boot left on each CPU's list; from FIRST on the small pages on each CPU's list, then the huge ones.
PCP_HIGH, PCP_FREE, PCP_TAKEN, PCP_FREED, PCP_BOOT, PCP_FIRST = range(6)


class PerCpuPages(NamedTuple):
    """What stands on the CPUs' own lists of free pages (`pcp`): a row a zone."""

    rows: Array


def per_cpu_pages(machine: Machine) -> PerCpuPages:
    """The empty lists of a machine."""
    return PerCpuPages(np.zeros((machine.nodes * ZONES_PER_NODE, PCP_FIRST + 2 * machine.cpus), np.int64))


@dataclass(frozen=True, slots=True)
class ZoneLayout:
    """One populated zone before the allocator starts: frames [start, end), of which `reserved` at the front."""

    node: int
    type: int
    start: int
    end: int
    hole: int
    reserved: int
    early: int


def node_spans(machine: Machine) -> list[list[tuple[int, int]]]:
    """Per node, the frame ranges [start, end) of its memory; the PCI hole below 4 GiB is left out."""
    total = machine.total >> 12
    below = total if total < LOWMEM_SPLIT else LOWMEM_BELOW
    spans, at = [], 0
    for size in machine.memory:
        end = at + (size >> 12)
        pieces = [(at, min(end, below))] if at < below else []
        if end > below:
            shift = DMA32_END - below
            pieces.append((max(at, below) + shift, end + shift))
        spans.append(pieces)
        at = end
    return spans


def zone_layouts(machine: Machine) -> list[ZoneLayout]:
    """The populated zones of a machine, in order of address."""
    spans = node_spans(machine)
    top = max(end for pieces in spans for _, end in pieces)
    bounds = ((ZONE_DMA, DMA_FIRST, DMA_END), (ZONE_DMA32, DMA_END, DMA32_END), (ZONE_NORMAL, DMA32_END, 1 << 52))
    zones = []
    for node, pieces in enumerate(spans):
        base = RESERVED_BASE if node == 0 else RESERVED_NODE
        if node == 0 and len(spans) > 1:
            base -= 676  # part of the page array and hashes lies on the other nodes
        for kind, low, high in bounds:
            for first, last in pieces:
                start, end = max(first, low), min(last, high)
                if start >= end:
                    continue
                hole = DMA_HOLE if kind == ZONE_DMA else 0
                end -= ACPI_FRAMES if end == top else 0
                present = end - start - hole
                reserved = 158 if kind == ZONE_DMA else min(base + present * MEMMAP_SHARE[0] // MEMMAP_SHARE[1], present // 2)
                early = EARLY_FIRST if (node, kind) == (0, ZONE_DMA32) else 0
                early += EARLY_LAST if end == top - ACPI_FRAMES else 0
                early = min(early, (present - reserved) // 4)
                zones.append(ZoneLayout(node, kind, start, end, hole, reserved, early))
                base = 0 if kind != ZONE_DMA else base
    return zones


def setup_per_zone_wmarks(k: Kernel, min_free_kb: int | None = None, *, early: dict[int, int] | None = None) -> None:
    """Watermarks of every zone from min_free_kbytes (kB); `early`: frames by zone row not yet handed over.

    With `min_free_kb` None the value is computed as the kernel does at boot and kept in `vm.min_free_kbytes`.
    """
    zones, held = k.s.zones, early or {}
    managed = {zid: int(zones["managed"][zid]) - held.get(zid, 0) for zid in k.populated}
    lowmem = sum(managed.values())
    if min_free_kb is None:
        min_free_kb = max(MIN_MIN_FREE_KB, min(MAX_MIN_FREE_KB, isqrt(lowmem * 4 * 16)))
        if k.thp["enabled"] != "never":
            min_free_kb = max(min_free_kb, recommended_min_free_kb(len(managed), lowmem))
    k.sysctl["vm.min_free_kbytes"] = min_free_kb
    scale = int(k.sysctl["vm.watermark_scale_factor"])
    for zid, pages in managed.items():
        low_step = (min_free_kb >> 2) * pages // lowmem
        step = max(low_step >> 2, pages * scale // 10000)
        marks = zones["wmark"][zid]
        marks[WMARK_MIN] = low_step
        marks[WMARK_LOW] = low_step + step
        marks[WMARK_HIGH] = low_step + 2 * step
        marks[WMARK_PROMO] = low_step + 3 * step
        zones["boost"][zid] = 0
    setup_boost(k)
    setup_pageset_high(k)


def setup_boost(k: Kernel) -> None:
    """How far thefts of pageblocks may raise each zone's marks (boost_watermark): watermark_boost_factor/10000 of high, WM-05.

    15000: half as much again as high. At least one pageblock, but nothing in a zone of less than four.
    """
    zones, factor = k.s.zones, int(k.sysctl["vm.watermark_boost_factor"])
    for zid in k.populated:
        most = int(zones["wmark"][zid][WMARK_HIGH]) * factor // 10000
        usable = most and int(zones["managed"][zid]) >= 4 * PAGEBLOCK_PAGES
        zones["max_boost"][zid] = max(PAGEBLOCK_PAGES, most) if usable else 0


def setup_zone_reclaim(k: Kernel) -> None:
    """What zone_reclaim_mode goes by: its value, who is near, and what each zone's node keeps of page cache and slab (setup_min_unmapped_ratio)."""
    zones = k.s.zones
    k.s.ctl[CTL_RECLAIM_MODE] = int(k.sysctl["vm.zone_reclaim_mode"])
    for zid in k.populated:
        node, managed = int(zones["node"][zid]), int(zones["managed"][zid])
        zones["min_unmapped"][zid] = managed * int(k.sysctl["vm.min_unmapped_ratio"]) // 100
        zones["min_slab"][zid] = managed * int(k.sysctl["vm.min_slab_ratio"]) // 100
        zones["near"][zid] = sum(1 << other for other in range(k.nr_nodes) if k.machine.distances[other][node] <= RECLAIM_DISTANCE)
        zones["has_cpu"][zid] = has_cpus(k, node)


def recommended_min_free_kb(nr_zones: int, lowmem: int) -> int:
    """khugepaged's floor for min_free_kbytes: two pageblocks a zone and migrate type, at most 5 % (kB)."""
    pages = 512 * nr_zones * (2 + 3 * 3)
    return min(pages, lowmem // 20) * 4


def setup_per_zone_lowmem_reserve(k: Kernel, ratios: tuple[int, ...], *, early: dict[int, int] | None = None) -> None:
    """`lowmem_reserve` of every zone, pages, from lowmem_reserve_ratio."""
    zones, held = k.s.zones, early or {}
    for node in range(k.nr_nodes):
        for kind in range(ZONES_PER_NODE):
            zid = node * ZONES_PER_NODE + kind
            above = 0
            for j in range(kind + 1, ZONES_PER_NODE + 1):
                upper = node * ZONES_PER_NODE + j
                if j < ZONES_PER_NODE:
                    above += max(0, int(zones["managed"][upper]) - held.get(upper, 0))
                ratio = ratios[kind] if kind < len(ratios) else 0
                usable = ratio and zones["managed"][zid]
                zones["lowmem_reserve"][zid][j] = above // ratio if usable else 0


def totalreserve_pages(k: Kernel) -> int:
    """Pages that user space cannot expect to get: per zone the larger reserve plus high mark (WM-18)."""
    total = 0
    for zid in k.populated:
        zone = k.s.zones[zid]
        reserve = int(max(zone["lowmem_reserve"])) + int(zone["wmark"][WMARK_HIGH])
        total += min(reserve, int(zone["managed"]))
    return total


def build_zonelists(k: Kernel) -> None:
    """Per node the order in which zones are asked: the nodes in `fallback_order`, each node Normal, DMA32, DMA (NU-01)."""
    s = k.s
    s.zonelists[:] = -1
    for zid in k.populated:
        s.zones["nofragment"][zid] = int(s.zones["type"][zid]) == ZONE_NORMAL and s.zones["managed"][zid - 1] > 0
    for node, nodes in enumerate(fallback_orders(k)):
        order = [n * ZONES_PER_NODE + kind for n in nodes for kind in (ZONE_NORMAL, ZONE_DMA32, ZONE_DMA)]
        usable = [zid for zid in order if s.zones["managed"][zid]]
        s.zonelists[node, : len(usable)] = usable


def fallback_orders(k: Kernel) -> list[list[int]]:
    """For each node, itself and then the others, the nearest first (build_zonelists, find_next_best_node).

    Among equally near ones: a node without CPUs, then the next number upwards (a lower number costs 1), then the one that heads fewer
    distance groups of the nodes before. Four nodes at equal distance: node 1 asks 1, 2, 3, 0.
    """
    load, orders = [0] * k.nr_nodes, []
    for local in range(k.nr_nodes):
        distances = k.machine.distances[local]
        left, order = set(range(k.nr_nodes)) - {local}, [local]
        while left:
            def cost(n: int, local: int = local, distances: tuple[int, ...] = distances) -> int:
                return (distances[n] + (n < local) + has_cpus(k, n)) * NODES_MOST + load[n]

            best = min(sorted(left), key=cost)
            if distances[best] != distances[order[-1]]:
                load[best] += 1
            left.remove(best)
            order.append(best)
        orders.append(order)
    return orders


def has_cpus(k: Kernel, node: int) -> bool:
    """Does any CPU belong to the node?"""
    return any(cpu_to_node(k, cpu) == node for cpu in range(k.nr_cpus))


def cpu_to_node(k: Kernel, cpu: int) -> int:
    """CPUs are dealt out to the nodes in blocks (QEMU's `-numa node,cpus=`)."""
    if k.nr_nodes == 1:
        return 0
    per_node = max(1, k.nr_cpus // k.nr_nodes)
    return min(cpu // per_node, k.nr_nodes - 1)


def setup_pageset_high(k: Kernel) -> None:
    """How many pages of a zone each CPU may keep to itself (zone_highsize, zone_set_pageset_high_and_batch).

    The zone's low mark, or the share of percpu_pagelist_high_fraction, by CPUs; at least four batches.
    """
    zones, fraction = k.s.zones, int(k.sysctl["vm.percpu_pagelist_high_fraction"])
    cpus = max(1, k.nr_cpus // k.nr_nodes)
    for zid in k.populated:
        pages = int(zones["managed"][zid]) // fraction if fraction else int(zones["wmark"][zid][WMARK_LOW])
        k.pcp.rows[zid, PCP_HIGH] = max(pages // cpus, pcp_batch(k, zid) * 4) if pages else 0


def pcp_batch(k: Kernel, zid: int) -> int:
    """How many pages move at once between a CPU's list and the zone (zone_batchsize)."""
    managed = int(k.s.zones["managed"][zid])
    batch = min(managed >> 10, (1 << 20) >> 12) // 4
    if batch < 1:
        return 1
    rounded = batch + batch // 2
    return (1 << (rounded.bit_length() - 1)) - 1


# Boot's own use, pages, as recorded on 256M, 512M and 1G machines (they differ by less than 2 %).
BOOT_DMA = 32
BOOT_KERNEL, BOOT_SWAP, BOOT_NODE = 8180, 220, 1700
BOOT_SPARE_BLOCKS = 3  # free pageblocks that are Unmovable (the last one: Reclaimable) when boot is over
BOOT_PCP_SHARE = 3  # a third of each CPU's limit stands on its list when boot is over


@dataclass(slots=True)
class BootFacts:
    """What the kernel itself holds after boot, in pages unless said.

    `ranges`: (first pfn, one past the last, owner): frames that never change hands and have no row of their own.
    """

    slab_reclaimable: int
    slab_unreclaimable: int
    kernel_stack_kb: int
    percpu_kb: int
    vmalloc_kb: int
    direct_map_4k_kb: int
    free_pcp: int
    ranges: list[tuple[int, int, str]]
    pcp_counts: dict[int, int]
