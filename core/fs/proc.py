"""/proc but for the processes: meminfo, vmstat, zoneinfo, buddyinfo and the files that tools need beside them.

Every figure is a column, a sum of columns, or a formula of `derived`; the texts are Linux 6.1's to the byte (fs/proc/meminfo.c,
mm/vmstat.c, mm/swapfile.c, fs/proc/page.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from core import cmdline as boot_parameters
from core.abi.page_flags import (
    KPAGEFLAGS,
    KPF_BUDDY,
    KPF_MMAP,
    KPF_NOPAGE,
    KPF_THP,
    PG_HEAD,
    PG_HUGETLB,
    PG_LRU,
    PG_MLOCKED,
    PG_PRIVATE,
    PG_RESERVED,
    PG_SLAB,
    PG_SWAPCACHE,
    PG_TABLE,
    PG_TAIL,
    PG_ZERO,
)
from core.fs import derived, hugepages
from core.fs.derived import free_pages, managed_pages, zone_stat
from core.fs.node import FsError, bad
from core.mm import memcontrol, mmzone, page_alloc, page_writeback, pcp
from core.mm.mm_types import (
    CTL_MAX_PFN,
    MAX_ORDER,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PAGEBLOCK_TYPE,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_NAMES,
    ZONES_PER_NODE,
)
from core.mm.mmzone import cpu_to_node
from core.mm.util import vm_commit_limit
from core.sched import fair, psi
from core.vmstat import EVENTS, NUMA_STATS, ZONE_STATS

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup

NS = 1_000_000_000
BOOT_EPOCH = 1_767_225_600  # the simulated machine always boots at 2026-01-01 00:00:00 UTC
VMALLOC_TOTAL_KB = (12800 << 30) - 1  # 12,800 TiB of vmalloc space in a kernel built for five levels, less one byte
VERSION = "Linux version 6.1.0-pagewalk (pagewalk@localhost) (simulated) #1 SMP PREEMPT_DYNAMIC"
ENTRY = 8  # bytes a frame in kpagecount, kpageflags, kpagecgroup
KPF_PGTABLE, KPF_RESERVED, KPF_MLOCKED, KPF_PRIVATE = 26, 32, 33, 35


# ---------------------------------------------------------------- meminfo

def meminfo(k: Kernel) -> str:
    """/proc/meminfo, kB (fs/proc/meminfo.c:meminfo_proc_show)."""
    n = derived.node_stats(k)
    return "".join(f"{label + ':':<16}{pages * 4:8d} kB\n" for label, pages in _head(k, n)) + _tail(k, n)


def lru_pages(k: Kernel, n: dict[str, int], node: int | None) -> list[tuple[str, int]]:
    """The LRU lines, pages: Active and Inactive are the sums of their anonymous and file lists."""
    return [
        ("Active", n["nr_active_anon"] + n["nr_active_file"]), ("Inactive", n["nr_inactive_anon"] + n["nr_inactive_file"]),
        ("Active(anon)", n["nr_active_anon"]), ("Inactive(anon)", n["nr_inactive_anon"]),
        ("Active(file)", n["nr_active_file"]), ("Inactive(file)", n["nr_inactive_file"]),
        ("Unevictable", n["nr_unevictable"]), ("Mlocked", zone_stat(k, "nr_mlock", node)),
    ]  # fmt: skip


def slab_pages(n: dict[str, int]) -> list[tuple[str, int]]:
    """The slab lines, pages."""
    reclaimable, unreclaimable = n["nr_slab_reclaimable"], n["nr_slab_unreclaimable"]
    return [("KReclaimable", reclaimable + n["nr_kernel_misc_reclaimable"]), ("Slab", reclaimable + unreclaimable),
            ("SReclaimable", reclaimable), ("SUnreclaim", unreclaimable)]  # fmt: skip


def huge_pages(n: dict[str, int]) -> list[tuple[str, int]]:
    """The lines of transparent huge pages, pages."""
    return [
        ("AnonHugePages", n["nr_anon_transparent_hugepages"]), ("ShmemHugePages", n["nr_shmem_hugepages"]),
        ("ShmemPmdMapped", n["nr_shmem_pmdmapped"]), ("FileHugePages", n["nr_file_hugepages"]), ("FilePmdMapped", n["nr_file_pmdmapped"]),
    ]  # fmt: skip


def _head(k: Kernel, n: dict[str, int]) -> list[tuple[str, int]]:
    """The lines that count pages, up to SUnreclaim."""
    swap_total, swap_free = derived.swap_pages(k)
    return [
        ("MemTotal", managed_pages(k)), ("MemFree", free_pages(k)), ("MemAvailable", derived.available_pages(k)),
        ("Buffers", 0), ("Cached", max(0, n["nr_file_pages"] - n["nr_swapcached"])), ("SwapCached", n["nr_swapcached"]),
        *lru_pages(k, n, None),
        ("SwapTotal", swap_total), ("SwapFree", swap_free), ("Zswap", 0), ("Zswapped", 0),
        ("Dirty", n["nr_dirty"]), ("Writeback", n["nr_writeback"]),
        ("AnonPages", n["nr_anon_pages"]), ("Mapped", n["nr_mapped"]), ("Shmem", n["nr_shmem"]), *slab_pages(n),
    ]  # fmt: skip


def _tail(k: Kernel, n: dict[str, int]) -> str:
    """The lines from KernelStack on: some in kB already, some without a unit."""
    kb = [
        ("KernelStack", n["nr_kernel_stack"]), ("PageTables", n["nr_page_table_pages"] * 4),
        ("SecPageTables", 0), ("NFS_Unstable", 0), ("Bounce", 0), ("WritebackTmp", 0),
        ("CommitLimit", vm_commit_limit(k) * 4), ("Committed_AS", k.committed_pages * 4),
        ("VmallocTotal", VMALLOC_TOTAL_KB), ("VmallocUsed", k.boot_facts.vmalloc_kb), ("VmallocChunk", 0), ("Percpu", k.boot_facts.percpu_kb),
    ]  # fmt: skip
    huge = [(label, pages * 4) for label, pages in huge_pages(n)]
    last = [*hugepages.sizes(k), *direct_map(k)]
    return _kb(kb) + f"HardwareCorrupted: {0:5d} kB\n" + _kb(huge) + hugepages.meminfo(k) + _kb(last)


def _kb(lines: list[tuple[str, int]]) -> str:
    return "".join(f"{label + ':':<16}{value:8d} kB\n" for label, value in lines)


def direct_map(k: Kernel) -> list[tuple[str, int]]:
    """How the kernel maps all of memory for itself, kB: GiB-aligned blocks whole, then 2 MiB pages, and what boot split."""
    ranges: list[tuple[int, int]] = []
    for start, end in (span for spans in mmzone.node_spans(k.machine) for span in spans):
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        ranges.append((start, end))
    whole = sum(max(0, (end >> 18) - max(1, -(-start >> 18))) for start, end in ranges) << 20
    small = k.boot_facts.direct_map_4k_kb
    return [("DirectMap4k", small), ("DirectMap2M", max(0, (k.machine.total >> 10) - whole - small) & ~2047), ("DirectMap1G", whole)]


# ---------------------------------------------------------------- vmstat

def vmstat(k: Kernel) -> str:
    """/proc/vmstat: zone counters, NUMA events, node counters, dirty limits, events, nr_unstable."""
    threshold, background = page_writeback.dirty_limits(k)
    tail = [("nr_dirty_threshold", threshold), ("nr_dirty_background_threshold", background),
            *zip(EVENTS, k.s.vm_event.tolist(), strict=True), ("nr_unstable", 0)]  # fmt: skip
    return vmstat_counters(k, None) + "".join(f"{name} {value}\n" for name, value in tail)


def vmstat_counters(k: Kernel, node: int | None) -> str:
    """The counters of one node, or of the machine: what /sys/devices/system/node/node0/vmstat shows."""
    rows = derived.node_zones(k, node)
    zone, numa = k.s.zones["stat"][rows].sum(axis=0), k.s.numa_stat[rows].sum(axis=0)
    lines = [("nr_free_pages", free_pages(k, node)), *zip(ZONE_STATS, zone.tolist(), strict=True),
             *zip(NUMA_STATS, numa.tolist(), strict=True), *node_values(k, node)]  # fmt: skip
    return "".join(f"{name} {max(0, value)}\n" for name, value in lines)


def node_values(k: Kernel, node: int | None) -> list[tuple[str, int]]:
    """The node counters in the units that vmstat prints: some are in huge pages."""
    shown = dict.fromkeys(derived.IN_HUGE_PAGES, derived.HPAGE_PAGES)
    return [(name, value // shown.get(name, 1)) for name, value in derived.node_stats(k, node).items()]


# ---------------------------------------------------------------- zones

def buddyinfo(k: Kernel) -> str:
    """Free blocks by order of each populated zone (mm/vmstat.c:frag_show_print)."""
    return "".join(f"{zone_title(k, zid)} " + "".join(f"{int(n):6d} " for n in k.s.zones["nr_free"][zid]) + "\n" for zid in k.populated)


MIGRATE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
FREE_LIST_CAP = 100_000


def pagetypeinfo(k: Kernel) -> str:
    """Free blocks by migrate type and order, and how many pageblocks are of each type (mm/vmstat.c:pagetypeinfo_show)."""
    out = ["Page block order: 9\n", "Pages per block:  512\n\n", f"{'Free pages count per migrate type at order':<43} "]
    out += [f"{order:6d} " for order in range(MAX_ORDER)] + ["\n"]
    for zid in k.populated:
        counts = np.zeros((len(MIGRATE_NAMES), MAX_ORDER), np.int64)
        page_alloc.count_free_blocks(k.s, zid, counts)
        node, name = _zone_name(zid)
        for kind, row in zip(MIGRATE_NAMES, counts.tolist(), strict=True):
            out.append(f"Node {node:4d}, zone {name:>8}, type {kind:>12} " + "".join(map(_capped, row)) + "\n")
    out.append("\n" + f"{'Number of blocks type':<23}" + "".join(f"{kind:>12} " for kind in MIGRATE_NAMES) + "\n")
    for zid in k.populated:
        node, name = _zone_name(zid)
        out.append(f"Node {node}, zone {name:>8} " + "".join(f"{n:12d} " for n in _pageblocks(k, zid)) + "\n")
    return "".join(out)


def _capped(blocks: int) -> str:
    """A list is counted up to 100,000."""
    return f"{blocks:6d} " if blocks < FREE_LIST_CAP else f">{FREE_LIST_CAP:6d} "


def _pageblocks(k: Kernel, zid: int) -> list[int]:
    """A zone's pageblocks by migrate type; a block that begins in the zone below counts there."""
    first, spanned = int(k.s.zones["start_pfn"][zid]), int(k.s.zones["spanned"][zid])
    blocks = k.s.pageblocks[np.arange(first, first + spanned, PAGEBLOCK_PAGES) >> PAGEBLOCK_ORDER] & PAGEBLOCK_TYPE
    return [int(n) for n in np.bincount(blocks, minlength=len(MIGRATE_NAMES))]


def _zone_name(zid: int) -> tuple[int, str]:
    return zid // ZONES_PER_NODE, ZONE_NAMES[zid % ZONES_PER_NODE]


def zone_title(k: Kernel, zid: int) -> str:
    """How every line about a zone begins."""
    node, name = _zone_name(zid)
    return f"Node {node}, zone {name:>8}"


def zoneinfo(k: Kernel) -> str:
    """Every zone of every node, the empty ones too (mm/vmstat.c:zoneinfo_show_print)."""
    return "".join(line for node in range(k.nr_nodes) for line in _node_zones(k, node))


def _node_zones(k: Kernel, node: int) -> Iterator[str]:
    first = True
    for kind in range(ZONES_PER_NODE):
        zid = node * ZONES_PER_NODE + kind
        populated = bool(k.s.zones["present"][zid])
        yield zone_title(k, zid) + "\n"
        if populated and first:
            yield "  per-node stats\n" + "".join(f"      {name:<12} {value}\n" for name, value in node_values(k, node))
            first = False
        yield _zone_pages(k, zid)
        if populated:
            yield _zone_detail(k, zid)
    yield f"Node {node}, zone   Device\n" + _pages_block(dict.fromkeys(_PAGES, 0), [0] * 5)


_PAGES = ("boost", "min", "low", "high", "spanned", "present", "managed", "cma")


def _zone_pages(k: Kernel, zid: int) -> str:
    zone = k.s.zones[zid]
    boost = int(zone["boost"])
    marks = {name: int(zone["wmark"][mark]) + boost for name, mark in (("min", WMARK_MIN), ("low", WMARK_LOW), ("high", WMARK_HIGH))}
    sizes = {name: int(zone[name]) for name in ("spanned", "present", "managed")}
    return _pages_block({"boost": boost, **marks, **sizes, "cma": 0}, list(zone["lowmem_reserve"]), int(zone["free"]) - pcp.held(k, zid))


def _pages_block(values: dict[str, int], protection: list[int], free: int = 0) -> str:
    lines = "".join(f"        {name:<8} {value}\n" for name, value in values.items())
    return f"  pages free     {free}\n{lines}        protection: ({', '.join(str(int(n)) for n in protection)})\n"


def _zone_detail(k: Kernel, zid: int) -> str:
    """Counters, per-CPU sets and the rest of a populated zone."""
    zone = k.s.zones[zid]
    stats = [("nr_free_pages", int(zone["free"]) - pcp.held(k, zid)), *zip(ZONE_STATS, zone["stat"].tolist(), strict=True),
             *zip(NUMA_STATS, k.s.numa_stat[zid].tolist(), strict=True)]  # fmt: skip
    out = "".join(f"      {name:<12} {max(0, value)}\n" for name, value in stats) + "  pagesets\n"
    high, batch, threshold = int(k.pcp.rows[zid, mmzone.PCP_HIGH]), mmzone.pcp_batch(k, zid), stat_threshold(int(zone["managed"]), k.nr_cpus)
    for cpu in range(k.nr_cpus):
        out += f"    cpu: {cpu}\n" + "".join(f"              {label:<6} {value}\n" for label, value in (("count:", pcp.count(k, zid, cpu)), ("high:", high), ("batch:", batch)))
        out += f"  vm stats threshold: {threshold}\n"
    return out + f"  node_unreclaimable:  0\n  start_pfn:           {int(zone['start_pfn'])}\n"


def stat_threshold(managed: int, cpus: int) -> int:
    """How far a CPU's own counter may stray (calculate_normal_threshold): 2 fls(cpus) (1 + fls(128 MiB units)), at most 125."""
    return min(125, 2 * cpus.bit_length() * (1 + (managed >> 15).bit_length()))


# ---------------------------------------------------------------- swap, pressure

PSI_TRIGGER = re.compile(r"(some|full)\s*(\d{1,10})\s+(\d{1,10})", re.ASCII)  # as sscanf("some %u %u"): what follows is ignored
SWAPS_HEADER = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def swaps(k: Kernel) -> str:
    """Swap areas, kB (mm/swapfile.c:swap_show)."""
    return SWAPS_HEADER + "".join(
        _swap_line(d["path"], d["type"], d["pages"] * 4, int(k.s.swaps["used"][i]) * 4, d["priority"]) for i, d in enumerate(k.swap_devices) if d["on"])


def _swap_line(path: str, kind: str, size: int, used: int, priority: int) -> str:
    tabs = ["\t" if value < 10_000_000 else "" for value in (size, used)]
    return f"{path}{' ' * max(1, 40 - len(path))}{kind}\t{size}\t{tabs[0]}{used}\t{tabs[1]}{priority}\n"


def has_psi(k: Kernel, subject: object = None) -> bool:
    """psi=0 leaves the pressure files out (psi_proc_init)."""
    return k.machine.psi


def pressure(resource: int, k: Kernel) -> str:
    """/proc/pressure/{memory,io,cpu}: the machine's stalls (kernel/sched/psi.c:psi_show)."""
    return k.root_cgroup.psi.show(k.clock.now, resource, system=True)


def write_pressure(resource: int, k: Kernel, text: str) -> None:
    """"some 150000 1000000": an event `psi` when so many µs of stall fall within so many µs."""
    add_psi_trigger(resource, k, k.root_cgroup, text)


def add_psi_trigger(resource: int, k: Kernel, cg: Cgroup, text: str) -> None:
    """A trigger on the stalls of a cgroup (psi_trigger_create): EINVAL unless 0 < stall <= window, window 0.5 to 10 s."""
    match = PSI_TRIGGER.match(text)
    if not match:
        raise bad("write `some` or `full`, the stall and the window in microseconds: some 150000 1000000")
    threshold, window = int(match[2]), int(match[3])
    if not psi.WINDOW_MIN_US <= window <= psi.WINDOW_MAX_US:
        raise bad(f"the window is {psi.WINDOW_MIN_US} to {psi.WINDOW_MAX_US} microseconds, not {window}")
    if not 0 < threshold <= window:
        raise bad(f"the stall is 1 to {window} microseconds, the window, not {threshold}")
    psi.watch(k, cg, 2 * resource + psi.NAMES.index(match[1]), threshold, window)


# ---------------------------------------------------------------- what tools read beside memory

def stat(k: Kernel) -> str:
    """CPU time in ticks of 10 ms, boot time, processes."""
    rows = [_cpu_ticks(k, cpu) for cpu in range(k.nr_cpus)]
    total = [sum(column) for column in zip(*rows, strict=True)]
    out = "".join(f"{name} {' '.join(map(str, row))}\n" for name, row in [("cpu ", total), *((f"cpu{i}", row) for i, row in enumerate(rows))])
    switches = sum(rq.switches for rq in k.rqs)
    out += f"intr 0\nctxt {switches}\nbtime {BOOT_EPOCH}\nprocesses {k.next_pid - 1}\n"
    out += f"procs_running {max(1, fair.nr_running(k))}\nprocs_blocked {fair.nr_blocked(k)}\n"
    return out + f"softirq{' 0' * 11}\n"


def _cpu_ticks(k: Kernel, cpu: int) -> list[int]:
    """user nice system idle iowait irq softirq steal guest guest_nice of one CPU."""
    user, system, idle, iowait = (ns // derived.CLOCK_TICK_NS for ns in fair.cpu_times(k, cpu))
    return [user, 0, system, idle, iowait, 0, 0, 0, 0, 0]


def uptime(k: Kernel) -> str:
    """Seconds since boot, and seconds of idle CPU summed over the CPUs."""
    idle = sum(_cpu_ticks(k, cpu)[3] for cpu in range(k.nr_cpus))
    ticks = k.clock.now // derived.CLOCK_TICK_NS
    return f"{ticks // 100}.{ticks % 100:02d} {idle // 100}.{idle % 100:02d}\n"


def version(k: Kernel) -> str:
    """The kernel whose behaviour this is."""
    return VERSION + "\n"


def loadavg(k: Kernel) -> str:
    """Load averages of 1, 5 and 15 minutes, running and all tasks, the last pid (fs/proc/loadavg.c)."""
    loads = " ".join(psi.percent(load + psi.FIXED_1 // 200) for load in k.loadavg)
    return f"{loads} {max(1, fair.nr_running(k))}/{len(derived.live_tasks(k))} {k.next_pid - 1}\n"


def cmdline(k: Kernel) -> str:
    """The boot parameters that the simulated machine behaves by."""
    return boot_parameters.show(k.machine.cmdline, k.machine.transparent_hugepage) + "\n"


def cpuinfo(k: Kernel) -> str:
    """One block a CPU: what a program needs to count them."""
    return "".join(
        f"processor\t: {cpu}\nvendor_id\t: pagewalk\nmodel name\t: simulated x86-64\nphysical id\t: {cpu_to_node(k, cpu)}\n"
        f"core id\t\t: {cpu}\ncpu cores\t: {k.nr_cpus}\naddress sizes\t: 46 bits physical, 48 bits virtual\n\n"
        for cpu in range(k.nr_cpus)
    )


FILESYSTEMS = ("sysfs", "tmpfs", "proc", "cgroup2", "devtmpfs", "hugetlbfs")
MOUNTS = (
    "rootfs / rootfs rw 0 0", "proc /proc proc rw,relatime 0 0", "sysfs /sys sysfs rw,relatime 0 0",
    "devtmpfs /dev devtmpfs rw,relatime 0 0", "cgroup2 /sys/fs/cgroup cgroup2 {cgroup} 0 0", "/dev/vdc /data ext4 rw,relatime 0 0",
)  # fmt: skip


def filesystems(k: Kernel) -> str:
    """File systems; the disk's is the only one that needs a device."""
    return "".join(f"nodev\t{name}\n" for name in FILESYSTEMS) + "\text4\n"


def mounts(k: Kernel) -> str:
    """What is mounted where."""
    cgroup = ",".join(("rw", "relatime", *k.machine.cgroup_mount))
    return "".join(line.format(cgroup=cgroup) + "\n" for line in (*MOUNTS, *(f"none {at.path} hugetlbfs {at.options} 0 0" for at in k.mounts.values())))


def cgroups(k: Kernel) -> str:
    """Controllers: hierarchy 0 is v2's."""
    return "#subsys_name\thierarchy\tnum_cgroups\tenabled\n" + "".join(f"{name}\t0\t{len(k.cgroups)}\t1\n" for name in memcontrol.CONTROLLERS)


# ---------------------------------------------------------------- one entry a frame

def kpage_size(k: Kernel) -> int:
    """Bytes of kpagecount and its like: eight a frame up to the last."""
    return int(k.s.ctl[CTL_MAX_PFN]) * ENTRY


def _frames(k: Kernel, offset: int, length: int) -> slice:
    """The frames that a byte range covers; EINVAL where it is not in whole entries (fs/proc/page.c)."""
    if offset % ENTRY or length % ENTRY:
        raise FsError("EINVAL", f"offset and length must be multiples of {ENTRY}: one entry a frame")
    first = min(offset // ENTRY, kpage_size(k) // ENTRY)
    return slice(first, min(first + length // ENTRY, kpage_size(k) // ENTRY))


def kpagecount(k: Kernel, offset: int, length: int) -> bytes:
    """How many page-table entries map each frame; 0 for slab and page tables."""
    frames = _frames(k, offset, length)
    pages, heads = k.s.mem[frames], _heads(k, frames)
    counts = pages["mapcount"] + np.where(heads >= 0, k.s.mem["index"][heads + 1], 0)  # and the entries that map the whole of a huge page
    counts = np.where(pages["flags"] & (PG_SLAB | PG_TABLE), 0, counts)
    return np.maximum(counts, 0).astype("<u8").tobytes()


def kpageflags(k: Kernel, offset: int, length: int) -> bytes:
    """The flags of each frame in the ABI's bits (fs/proc/page.c:stable_page_flags)."""
    frames = _frames(k, offset, length)
    pages = k.s.mem[frames]
    heads = _heads(k, frames)
    shared = PG_SWAPCACHE | PG_ZERO | PG_HUGETLB  # asked of the head; all else a tail shows of its own
    flags = np.where(heads >= 0, pages["flags"] | k.s.mem["flags"][heads] & shared, pages["flags"])
    out = np.zeros(len(pages), "<u8")
    bits = {**KPAGEFLAGS, KPF_RESERVED: PG_RESERVED, KPF_MLOCKED: PG_MLOCKED, KPF_PRIVATE: PG_PRIVATE}
    for bit, ours in bits.items():
        out |= np.where(flags & ours, np.uint64(1 << bit), np.uint64(0))
    roots = ((flags & PG_TABLE) != 0) & np.isin(pages["private"], k.s.mms["pgd"][list(k.mms)])  # not a page table to Linux: pgd_alloc
    out[roots] &= ~np.uint64(1 << KPF_PGTABLE)
    mapped = pages["mapcount"] + np.where(heads >= 0, k.s.mem["index"][heads + 1], 0)
    out |= np.where(mapped > 0, np.uint64(1 << KPF_MMAP), np.uint64(0))
    out |= np.where((heads >= 0) & (flags & PG_HUGETLB == 0), np.uint64(1 << KPF_THP), np.uint64(0))
    exists, held = _existing(k, frames), _held(k, frames)
    out |= np.where(exists & ~held & (flags == 0) & (pages["refcount"] == 0), np.uint64(1 << KPF_BUDDY), np.uint64(0))
    return np.where(exists, out, np.uint64(1 << KPF_NOPAGE)).astype("<u8").tobytes()


def kpagecgroup(k: Kernel, offset: int, length: int) -> bytes:
    """The inode number of the cgroup that each frame is charged to; 0 where it is charged to none."""
    frames = _frames(k, offset, length)
    heads = _heads(k, frames)
    pages = k.s.mem[np.where(heads >= 0, heads, np.arange(frames.start, frames.stop))]
    charged = (pages["memcg"] > 0) | ((pages["flags"] & PG_LRU) != 0)
    return np.where(charged, pages["memcg"].astype("i8") + 1, 0).astype("<u8").tobytes()


def _heads(k: Kernel, frames: slice) -> np.ndarray:
    """By frame: the head of the compound page that it belongs to, -1 for an ordinary frame."""
    pages = k.s.mem[frames]
    own = np.where(pages["flags"] & PG_HEAD, np.arange(frames.start, frames.stop), -1)
    return np.where(pages["flags"] & PG_TAIL, pages["private"], own)


def _existing(k: Kernel, frames: slice) -> np.ndarray:
    """Which of the frames lie in a zone."""
    pfn = np.arange(frames.start, frames.stop)
    exists = np.zeros(len(pfn), bool)
    for zid in k.populated:
        start = int(k.s.zones["start_pfn"][zid])
        exists |= (pfn >= start) & (pfn < start + int(k.s.zones["spanned"][zid]))
    return exists


def _held(k: Kernel, frames: slice) -> np.ndarray:
    """Which of the frames the kernel itself took at boot and never gives."""
    pfn = np.arange(frames.start, frames.stop)
    held = np.zeros(len(pfn), bool)
    for start, end, _owner in k.boot_facts.ranges:
        held |= (pfn >= start) & (pfn < end)
    return held


def kmsg(k: Kernel) -> str:
    """/dev/kmsg: `level,seq,usec,-;text`, one record a line whatever is in it."""
    return "".join(f"{level},{seq},{ns // 1000},-;{escaped(text)}\n" for seq, ns, level, text in k.dmesg)


def escaped(text: str) -> str:
    """What is not printable ASCII, and the backslash, as \\x and two digits (msg_add_ext_text): a newline is \\x0a."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in text.encode())


def write_kmsg(k: Kernel, text: str) -> None:
    """A line of user space's own: `<level>text`, level 4 if none is given."""
    level = 4
    if text.startswith("<") and (end := text.find(">")) in (2, 3) and text[1:end].isdigit():
        level, text = int(text[1:end]) & 7, text[end + 1 :]
    k.log(8 | level, text)


def dmesg(k: Kernel) -> str:
    """The kernel log as `dmesg` prints it: seconds since boot in brackets."""
    return "".join(f"[{ns // NS:5d}.{ns // 1000 % 1_000_000:06d}] {line}\n" for _seq, ns, _level, text in k.dmesg for line in text.split("\n"))
