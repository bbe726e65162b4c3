"""/sys: transparent huge pages, the huge page pool, nodes and CPUs.

Switches whose mechanism is not simulated yet keep what is written and say so in their row.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.fs import derived, hugepages
from core.fs.derived import free_pages, managed_pages
from core.fs.node import Row, bad, bit_list, bit_map, choice, parse_choice, parse_int, show
from core.fs.proc import huge_pages, lru_pages, slab_pages, vmstat_counters, zone_title
from core.mm import compaction, huge_memory, mmzone, numa_balancing, swapon
from core.mm.mm_types import MAX_ORDER

if TYPE_CHECKING:
    from core.kernel import Kernel

THP = "/sys/kernel/mm/transparent_hugepage/"
UINT_MAX = (1 << 32) - 1
NOT_YET = "the setting is kept; the mechanism is not simulated yet"

ENABLED = ("always", "madvise", "never")
DEFRAG = ("always", "defer", "defer+madvise", "madvise", "never")
SHMEM_ENABLED = ("always", "within_size", "advise", "never", "deny", "force")


# ---------------------------------------------------------------- fragmentation

def compact_node(k: Kernel, node: int, text: str) -> None:
    """Whatever is written compacts the node."""
    compaction.compact_node(k, node)


def extfrag_index(k: Kernel) -> str:
    """By zone and order: -1.000 where a block is free, towards 0 for lack of memory, towards 1 for fragmentation (extfrag_show_print)."""
    return "".join(
        f"{zone_title(k, zid)} " + "".join(_thousandths(compaction.fragmentation_index(k.s.zones["nr_free"][zid], order)) for order in range(MAX_ORDER)) + "\n"
        for zid in k.populated
    )


def unusable_index(k: Kernel) -> str:
    """By zone and order: the share of free memory that is in smaller blocks (unusable_show_print)."""
    return "".join(
        f"{zone_title(k, zid)} " + "".join(_share(compaction.unusable_free_index(k.s.zones["nr_free"][zid], order)) for order in range(MAX_ORDER)) + "\n"
        for zid in k.populated
    )


def _thousandths(index: int) -> str:
    """Whole and remainder as C divides: -1000 is -1.000, 996 is  0.996."""
    sign = -1 if index < 0 else 1
    return f"{sign * (abs(index) // 1000):2d}.{sign * (abs(index) % 1000):03d} "


def _share(index: int) -> str:
    return f"{index // 1000}.{index % 1000:03d} "


# ---------------------------------------------------------------- switches

def read_choice(name: str, options: tuple[str, ...], k: Kernel) -> str:
    """always [madvise] never"""
    return choice(options, k.thp[name])


def write_choice(name: str, options: tuple[str, ...], k: Kernel, text: str) -> None:
    """One of the options, else EINVAL."""
    k.thp[name] = parse_choice(text, options, name)


def write_enabled(k: Kernel, text: str) -> None:
    """Switching it on raises min_free_kbytes, as khugepaged does when it starts (set_recommended_min_free_kbytes)."""
    k.thp["enabled"] = parse_choice(text, ENABLED, "transparent_hugepage/enabled")
    if k.thp["enabled"] != "never":
        recommended = mmzone.recommended_min_free_kb(len(k.populated), managed_pages(k))
        if recommended > int(k.sysctl["vm.min_free_kbytes"]):
            mmzone.setup_per_zone_wmarks(k, recommended)
        huge_memory.wake_khugepaged(k)


def read_number(table: str, key: str, k: Kernel) -> str:
    """One number of `k.thp`."""
    return show(getattr(k, table)[key])


def write_number(table: str, key: str, low: int, high: int, k: Kernel, text: str) -> None:
    """Range-check and keep."""
    getattr(k, table)[key] = parse_int(text, low, high, key.rpartition(".")[2])


def write_pace(key: str, low: int, high: int, k: Kernel, text: str) -> None:
    """A pause of khugepaged: it wakes at once and goes by the new one from then on."""
    write_number("thp", key, low, high, k, text)
    huge_memory.wake_khugepaged(k)


def hpage_pmd_size(k: Kernel) -> str:
    """Bytes of a huge page."""
    return "2097152\n"


# key, least, greatest, documentation
KHUGEPAGED = (
    ("defrag", 0, 1, "compact memory to find huge pages"), ("pages_to_scan", 1, UINT_MAX, "pages scanned a round"),
    ("scan_sleep_millisecs", 0, UINT_MAX, "pause between rounds"), ("alloc_sleep_millisecs", 0, UINT_MAX, "pause after a failed allocation"),
    ("max_ptes_none", 0, 511, "empty entries that a collapse may fill"), ("max_ptes_swap", 0, 511, "swapped entries that a collapse may read"),
    ("max_ptes_shared", 0, 511, "shared entries that a collapse may copy"),
)  # fmt: skip
KHUGEPAGED_COUNTS = (("full_scans", "scans of all memory completed"), ("pages_collapsed", "huge pages made by khugepaged"))


def rows() -> tuple[Row, ...]:
    """The switches above as rows of the file tree."""
    def thp(name: str, options: tuple[str, ...], doc: str, note: str = "") -> Row:
        support = "partial" if note else "full"
        return Row(THP + name, 0o644, doc, partial(read_choice, name, options), partial(write_choice, name, options), support, note)

    def khugepaged(key: str, low: int, high: int, doc: str) -> Row:
        name = "khugepaged." + key
        write = partial(write_pace, name, low, high) if key.endswith("millisecs") else partial(write_number, "thp", name, low, high)
        return Row(THP + "khugepaged/" + key, 0o644, doc, partial(read_number, "thp", name), write)

    def number(table: str, base: str, key: str, low: int, high: int, doc: str, prefix: str = "") -> Row:
        read, write = partial(read_number, table, prefix + key), partial(write_number, table, prefix + key, low, high)
        return Row(base + key, 0o644, doc, read, write, "partial", NOT_YET)

    def counter(table: str, base: str, key: str, doc: str, prefix: str = "") -> Row:
        return Row(base + key, 0o444, doc, partial(read_number, table, prefix + key), None, "partial", "stays 0: " + NOT_YET.partition("; ")[2])

    return (
        Row(THP + "enabled", 0o644, "where faults may use huge pages; switching it on raises min_free_kbytes",
            partial(read_choice, "enabled", ENABLED), write_enabled),
        thp("defrag", DEFRAG, "how hard a fault tries for a huge page"),
        thp("shmem_enabled", SHMEM_ENABLED, "huge pages in shared memory", "of shared anonymous memory; there is no tmpfs mount that it could be of"),
        Row(THP + "use_zero_page", 0o644, "map a huge zero page on a read", partial(read_number, "thp", "use_zero_page"),
            partial(write_number, "thp", "use_zero_page", 0, 1)),
        Row(THP + "hpage_pmd_size", 0o444, "bytes of a huge page", hpage_pmd_size),
        *(khugepaged(key, low, high, doc) for key, low, high, doc in KHUGEPAGED),
        *(Row(THP + "khugepaged/" + key, 0o444, doc, partial(read_number, "thp", "khugepaged." + key)) for key, doc in KHUGEPAGED_COUNTS),
    )  # fmt: skip


def read_balancing(name: str, k: Kernel) -> str:
    """One tunable of NUMA balancing."""
    return show(k.numa[name])


def write_balancing(name: str, k: Kernel, text: str) -> None:
    """Range-check and keep."""
    k.numa[name] = parse_int(text, 0, UINT_MAX, name)


def balancing_rows() -> tuple[Row, ...]:
    """/sys/kernel/debug/sched/numa_balancing."""
    unused = "hot_threshold_ms"
    return tuple(
        Row(f"/sys/kernel/debug/sched/numa_balancing/{name}", 0o644, f"NUMA balancing: {name.replace('_', ' ')}", partial(read_balancing, name),
            partial(write_balancing, name), "partial" if name == unused else "full", "no memory tiers" if name == unused else "")
        for name in numa_balancing.DEFAULTS
    )  # fmt: skip


def vma_ra_enabled(k: Kernel) -> str:
    """Swap read-ahead follows addresses, not slots, if no area in use rotates."""
    return ("true" if k.vma_ra_enabled else "false") + "\n"


def write_vma_ra_enabled(k: Kernel, text: str) -> None:
    """1, y or true switches it on, 0, n or false off (kstrtobool)."""
    word = text.strip().lower()
    if word not in ("0", "1", "n", "y", "false", "true"):
        raise bad("vma_ra_enabled takes true or false")
    k.vma_ra_enabled = int(word in ("1", "y", "true"))
    swapon.set_readahead(k)


def numa_demotion(k: Kernel) -> str:
    """Pages are not demoted to slower nodes."""
    return "false\n"


# ---------------------------------------------------------------- nodes and CPUs

def node_list(k: Kernel) -> str:
    """0-1"""
    return bit_list(list(range(k.nr_nodes))) + "\n"


def nodes_with_cpu(k: Kernel) -> str:
    """Nodes that have at least one CPU."""
    return bit_list([node for node in range(k.nr_nodes) if derived.cpus_of_node(k, node)]) + "\n"


def cpu_list(k: Kernel) -> str:
    """Every CPU is online."""
    return bit_list(list(range(k.nr_cpus))) + "\n"


def node_meminfo(k: Kernel, node: int) -> str:
    """A node's share of meminfo, kB (drivers/base/node.c:node_read_meminfo)."""
    n = derived.node_stats(k, node)
    total, free = managed_pages(k, node), free_pages(k, node)
    head = [
        ("MemTotal", total), ("MemFree", free), ("MemUsed", total - free), ("SwapCached", n["nr_swapcached"]), *lru_pages(k, n, node),
        ("Dirty", n["nr_dirty"]), ("Writeback", n["nr_writeback"]), ("FilePages", n["nr_file_pages"]), ("Mapped", n["nr_mapped"]),
        ("AnonPages", n["nr_anon_pages"]), ("Shmem", n["nr_shmem"]),
    ]  # fmt: skip
    tail = [
        ("PageTables", n["nr_page_table_pages"]), ("SecPageTables", 0), ("NFS_Unstable", 0), ("Bounce", 0), ("WritebackTmp", 0),
        *slab_pages(n), *huge_pages(n),
    ]  # fmt: skip
    lines = [_node_kb(node, label, pages * 4) for label, pages in head]
    lines.append(_node_kb(node, "KernelStack", n["nr_kernel_stack"]))
    lines += [_node_kb(node, label, pages * 4) for label, pages in tail]
    return "".join(lines) + hugepages.node_meminfo(k, node)


def _node_kb(node: int, label: str, kb: int) -> str:
    """`Node 0 MemTotal:  466112 kB`; the two labels of file huge pages are a column short, as in Linux."""
    width = 15 if label in ("FileHugePages", "FilePmdMapped") else 16
    return f"Node {node} {label + ':':<{width}}{kb:8d} kB\n"


def node_vmstat(k: Kernel, node: int) -> str:
    """A node's counters by their vmstat names."""
    return vmstat_counters(k, node)


NUMASTAT = (("numa_hit", 0), ("numa_miss", 1), ("numa_foreign", 2), ("interleave_hit", 3), ("local_node", 4), ("other_node", 5))


def numastat(k: Kernel, node: int) -> str:
    """Where allocations went: hit, miss, foreign, interleave, local, other."""
    sums = k.s.numa_stat[derived.node_zones(k, node)].sum(axis=0)
    return "".join(f"{name} {int(sums[column])}\n" for name, column in NUMASTAT)


def distance(k: Kernel, node: int) -> str:
    """10 to itself, more to any other (`machine.distances`)."""
    return " ".join(str(one) for one in k.machine.distances[node]) + "\n"


def cpulist(k: Kernel, node: int) -> str:
    """The node's CPUs as ranges."""
    return bit_list(derived.cpus_of_node(k, node)) + "\n"


def cpumap(k: Kernel, node: int) -> str:
    """The node's CPUs as a mask."""
    return bit_map(derived.cpus_of_node(k, node), k.nr_cpus) + "\n"
