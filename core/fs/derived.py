"""Figures that several files show and no column holds: each by the kernel's own formula.

    MemAvailable = free - totalreserve + (file - min(file/2, low)) + (slab - min(slab/2, low))     WM-17

512M, idle, free 95386 pages, reserve 1432, 5 file pages, 2543 reclaimable slab pages, low marks 838:
95386 - 1432 + (5 - 2) + (2543 - 838) = 95662 pages = 382648 kB.

    dirtyable = free - min(free, totalreserve) + file LRU + 1      threshold = dirtyable * (20 * 4096/100) / 4096
    95386 - 1432 + 5 + 1 = 93960, * 819 / 4096 = 18787 pages
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mm import mmzone, pcp
from core.mm.mm_types import MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS, WMARK_LOW, ZONES_PER_NODE, get_mm_counters
from core.mm.mmzone import cpu_to_node
from core.vmstat import NODE, NODE_STATS, ZONE

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Mm
    from core.sched.task import Task

PAGE = 4096
CLOCK_TICK_NS = 10_000_000  # USER_HZ 100
HPAGE_PAGES = 512

# node counters that vmstat shows in huge pages (vmstat_item_print_in_thp)
IN_HUGE_PAGES = frozenset({
    "nr_shmem_hugepages", "nr_shmem_pmdmapped", "nr_file_hugepages", "nr_file_pmdmapped", "nr_anon_transparent_hugepages",
})  # fmt: skip


def node_stat(k: Kernel, name: str, node: int | None = None) -> int:
    """A node counter, of one node or summed; never below zero (global_node_page_state)."""
    column = k.s.node_stat[:, NODE[name]] if node is None else k.s.node_stat[node : node + 1, NODE[name]]
    return max(0, int(column.sum()))


def node_stats(k: Kernel, node: int | None = None) -> dict[str, int]:
    """Every node counter by name, of one node or summed, never below zero: for files that show most of them."""
    sums = k.s.node_stat.sum(axis=0) if node is None else k.s.node_stat[node]
    return {name: max(0, value) for name, value in zip(NODE_STATS, sums.tolist(), strict=True)}


def zone_stat(k: Kernel, name: str, node: int | None = None) -> int:
    """A zone counter summed over the zones of one node or of all."""
    return max(0, int(k.s.zones["stat"][node_zones(k, node), ZONE[name]].sum()))


def node_zones(k: Kernel, node: int | None) -> slice:
    """The rows of a node's zones, or of all."""
    return slice(0, k.nr_nodes * ZONES_PER_NODE) if node is None else slice(node * ZONES_PER_NODE, (node + 1) * ZONES_PER_NODE)


def free_pages(k: Kernel, node: int | None = None) -> int:
    """Free frames of the zones (NR_FREE_PAGES): not those on a CPU's own list."""
    rows = node_zones(k, node)
    return int(k.s.zones["free"][rows].sum()) - sum(pcp.held(k, zid) for zid in range(rows.start, rows.stop))


def managed_pages(k: Kernel, node: int | None = None) -> int:
    """Frames that the allocator was given: totalram_pages()."""
    return int(k.s.zones["managed"][node_zones(k, node)].sum())


def available_pages(k: Kernel) -> int:
    """MemAvailable in pages (si_mem_available)."""
    low = int(k.s.zones["wmark"][node_zones(k, None), WMARK_LOW].sum())
    file = node_stat(k, "nr_active_file") + node_stat(k, "nr_inactive_file")
    slab = reclaimable_pages(k)
    available = free_pages(k) - mmzone.totalreserve_pages(k) + file - min(file // 2, low) + slab - min(slab // 2, low)
    return max(0, available)


def reclaimable_pages(k: Kernel, node: int | None = None) -> int:
    """KReclaimable in pages."""
    return node_stat(k, "nr_slab_reclaimable", node) + node_stat(k, "nr_kernel_misc_reclaimable", node)


def swap_pages(k: Kernel) -> tuple[int, int]:
    """Pages of swap, total and free."""
    total = sum(int(device["pages"]) for device in k.swap_devices)
    return total, total - int(k.s.swaps["used"].sum())


def rss(k: Kernel, mm: Mm) -> tuple[int, int, int, int]:
    """Resident pages of an address space: anonymous, file, shmem; and its swap entries."""
    row = get_mm_counters(k.s, mm)
    return int(row[MM_ANONPAGES]), int(row[MM_FILEPAGES]), int(row[MM_SHMEMPAGES]), int(row[MM_SWAPENTS])


def resident(k: Kernel, mm: Mm) -> int:
    """VmRSS in pages."""
    return sum(rss(k, mm)[:3])


def pgtables_bytes(k: Kernel, mm: Mm) -> int:
    """VmPTE in bytes: every table but the top one (mm_pgtables_bytes)."""
    return int(k.s.mms[mm.id]["nr_tables"].sum()) * PAGE


def cpus_of_node(k: Kernel, node: int) -> list[int]:
    """CPUs of a node."""
    return [cpu for cpu in range(k.nr_cpus) if cpu_to_node(k, cpu) == node]


def live_tasks(k: Kernel) -> list[Task]:
    """Tasks that /proc shows: the living and the zombies."""
    return [task for task in k.tasks.values() if task.state != "dead"]
