"""Power on: from a `Machine` to a kernel whose first process runs (init/main.c, mm/page_alloc.c, mm/memblock.c).

What the kernel needs for itself is laid out first, as ranges of frames that never change hands (`BootFacts.ranges`):
the image and page array at the front of the first DMA32 zone, then slab, stacks, per-CPU data. What is left goes to
the buddy allocator in the largest blocks. The amounts are those of recorded boots (`mmzone.BOOT_*`), so that MemTotal,
MemFree, the watermarks and thus the point where limits bite are the real machine's within 1 %.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from core import cmdline, monitor, sysctl
from core.abi.page_flags import PG_RESERVED, PG_ZERO
from core.arena import arena
from core.clock import Clock
from core.machine import MAX_NODES, RECLAIM_POLICIES, Costs, Machine
from core.mm import (
    compaction,
    huge_memory,
    hugetlb,
    hugetlbfs,
    khugepaged,
    ksm,
    memcontrol,
    mmzone,
    numa_balancing,
    page_alloc,
    page_writeback,
    pcp,
    swapon,
    tlb,
)
from core.mm.mm_types import (
    BLOOM_WORDS,
    CC,
    CTL_BUDDY,
    CTL_FALLBACK,
    CTL_MAX_PFN,
    CTL_NR_NODES,
    CTL_POLICY,
    CTL_PT_NEXT,
    CTL_RANDOM,
    CTL_SWAP_HITS,
    CTL_XA_NEXT,
    CTL_ZERO_PFN,
    FIFO,
    KSM,
    KSM_ITEM,
    KSM_NODE,
    LOOK,
    LRUGEN,
    LRUVEC,
    MAX_ORDER,
    MAX_RUNS,
    MAX_SWAPFILES,
    MEMCG,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    MM,
    NR_CTL,
    NR_LOOKS,
    PAGE,
    PAGEBLOCK_ORDER,
    RUN,
    SC,
    SECTION_SHIFT,
    SLOT,
    SLOTS_CACHE,
    SWAP,
    VMF,
    ZONE,
    ZONE_DMA,
    ZONES_PER_NODE,
    State,
)
from core.mm.mmzone import DMA_USABLE, BootFacts, ZoneLayout
from core.record import Records
from core.sched import exec as image
from core.sched import fair, psi
from core.untold import Untold
from core.vmstat import (
    EVENTS,
    NODE_STATS,
    NR_KERNEL_STACK_KB,
    NR_SLAB_RECLAIMABLE,
    NR_SLAB_UNRECLAIMABLE,
    NUMA_STATS,
)

if TYPE_CHECKING:
    from core.kernel import Kernel

MAX_MMS = 1 << 13
MAX_MEMCGS = 1 << 13
KSM_ITEMS_PER_FRAME = 8  # rmap_items that fit: each takes 64 bytes of slab in Linux, so that memory ends before they do
BOOT_NS = 3_000_000_000  # a recorded machine needs about 3 s from power-on to its first process

THP: dict[str, Any] = {
    "enabled": "madvise",
    "defrag": "madvise",
    "use_zero_page": 1,
    "shmem_enabled": "never",
    "khugepaged.defrag": 1,
    "khugepaged.pages_to_scan": 4096,
    "khugepaged.scan_sleep_millisecs": 10000,
    "khugepaged.alloc_sleep_millisecs": 60000,
    "khugepaged.max_ptes_none": 511,
    "khugepaged.max_ptes_swap": 64,
    "khugepaged.max_ptes_shared": 256,
    "khugepaged.full_scans": 0,
    "khugepaged.pages_collapsed": 0,
}
# mms: address spaces under its care, in order; mm, vpn: where it is; due: when it wakes (-1: it waits for work);
# progress, waited, heads: of the round at hand; held: the block that it is about to fill; last: its last collapse, for Explain
KHUGEPAGED: dict[str, Any] = {"mms": [], "mm": 0, "vpn": 0, "due": -1, "progress": 0, "waited": False, "heads": 0, "last": None, "held": None,
                              "pte_mapped": []}
KSM_SETTINGS: dict[str, int] = {
    "run": 0,
    "pages_to_scan": 100,
    "sleep_millisecs": 20,
    "merge_across_nodes": 1,
    "use_zero_pages": 0,
    "max_page_sharing": 256,
    "stable_node_chains_prune_millisecs": 2000,
}
TIMERS: dict[str, Callable[[Kernel], None]] = {  # what a daemon does when it wakes
    "flusher": page_writeback.flusher,
    "loadavg": fair.calc_load,
    "vmstat": monitor.sample,
    "ksmd": ksm.ksmd,
    "khugepaged": khugepaged.daemon,
    **{f"kcompactd{node}": partial(compaction.kcompactd, node=node) for node in range(MAX_NODES)},
}
TASK_TIMERS: dict[str, Callable[[Kernel, int], None]] = {  # what falls due for one task, whose pid stands behind the colon
    "wake": fair.wake,
    "fork": image.ret_from_fork,
}


def boot(k: Kernel, machine: Machine, seed: int) -> None:
    """Fill a bare Kernel."""
    k.machine, k.seed, k.rng, k.costs = machine, seed, random.Random(seed), Costs()
    k.clock = Clock(BOOT_NS)
    k.nr_nodes, k.nr_cpus = machine.nodes, machine.cpus
    k.tasks, k.next_pid = {}, 1
    k.mms, k.free_mm_ids = {}, []
    k.inodes, k.files, k.next_inode = {}, {}, 1
    k.anon_vmas, k.next_anon_vma = {}, 1
    k.sysctl, k.thp, k.ksm = {**sysctl.defaults(), **dict(machine.sysctl)}, dict(THP), dict(KSM_SETTINGS)
    k.khugepaged = {**KHUGEPAGED, "mms": [], "pte_mapped": []}
    k.shmem = {"shrinklist": [], "deferred": [0] * k.nr_nodes}
    k.swap_devices, k.committed_pages, k.vma_ra_enabled = [], 0, 1
    k.kswapd = [
        {"awake": False, "priority": 0, "reclaimed": 0, "failures": 0, "cause": 0, "until": 0, "time_ns": 0, "need_aging": False,
         "boosts": {}}
        for _ in range(k.nr_nodes)
    ]
    on = machine.reclaim_policy == "mglru"
    k.lru_gen = {"on": int(on), "mm_walk": int(on), "nonleaf_young": int(on), "min_ttl_ms": 0}
    k.policy_client = {"answers": []}
    k.kcompactd = [{"max_order": 0, "armed": False, "not_before": 0, "look": 0} for _ in range(k.nr_nodes)]
    k.flushers = {}
    k.rmap = None
    k.ksmd = ksm.Ksmd()
    k.in_memstall = k.unordered = False
    k.psi, k.rqs, k.loadavg = psi.PsiTasks(), fair.make_rqs(k), [0, 0, 0]
    k.nr_programs, k.work_left, k.pause, k.watch = 0, 0, None, None
    k.dmesg, k.events, k.untold, k.killed = [], [], Untold(), []
    k.nr_events, k.nr_ordered, k.causes, k.timer, k.quiet, k.records = 0, 0, [], None, False, Records()
    k.panicked = k.last_oom = k.current = None
    k.oom_kills, k.monitor = [], monitor.Monitor()
    layouts = mmzone.zone_layouts(machine)
    swapon.plug_in(k, machine.swap)
    k.tlb, k.tlb_columns, k.tlb_costs = tlb.Tlb(machine.cpus), tlb.columns(machine), tlb.costs(machine)
    k.s = columns(k, max(zone.end for zone in layouts))
    k.s.ctl[CTL_POLICY] = RECLAIM_POLICIES.index(machine.reclaim_policy)
    k.s.ctl[CTL_FALLBACK] = FIFO
    k.s.ctl[CTL_RANDOM] = (seed * 2654435761 + 88172645463325252) & ((1 << 62) - 1) or 1
    k.pcp = mmzone.per_cpu_pages(machine)
    lay_out_zones(k, layouts)
    hugetlb.hugetlb_init(k)
    k.numa = dict(numa_balancing.DEFAULTS)
    k.mounts = {}
    hugetlbfs.mount(k, hugetlbfs.DEFAULT_MOUNT)
    k.root_cgroup = memcontrol.make_root(k)
    k.cgroups = {0: k.root_cgroup}
    take_zero_page(k)
    for device in k.swap_devices:
        swapon.enable(k, device)
    banner(k)
    page_writeback.flusher(k)
    fair.calc_load(k)
    image.start_init(k)
    pcp.start(k)
    hugetlb.boot_settings(k)
    boot_parameters(k)
    k.order_events()
    k.drain()
    k.nr_events = k.nr_ordered = 0  # a session's first event is number 1


def boot_parameters(k: Kernel) -> None:
    """What the command line asks for, beyond what the machine says itself."""
    given = k.machine.cmdline
    hugetlb.boot_parameters(k, [(name, value) for name, value in given if name in ("hugepages", "hugepagesz", "default_hugepagesz")])
    balancing = cmdline.value_of(given, "numa_balancing", "")
    if balancing:
        k.sysctl["kernel.numa_balancing"] = int(balancing == "enable")


def columns(k: Kernel, max_pfn: int) -> State:
    """Every column, empty; `max_pfn` is one past the last frame."""
    nodes = k.nr_nodes
    links = [(max_pfn >> order) + 2 for order in range(MAX_ORDER)]
    s = State(
        mem=arena((max_pfn + 1,), PAGE),
        pt=arena((max_pfn + 1, 512), "i8"),
        xa=arena((max_pfn + 1, 512), "i8"),
        buddy=arena((sum(links), 2), "i4"),
        pageblocks=arena(((max_pfn >> PAGEBLOCK_ORDER) + 2,), "i1"),
        zones=arena((nodes * ZONES_PER_NODE,), ZONE),
        sections=arena(((max_pfn >> SECTION_SHIFT) + 1,), "i2"),
        zonelists=arena((nodes, nodes * 3), "i8"),
        lruvecs=arena((MAX_MEMCGS * nodes,), LRUVEC),
        memcgs=arena((MAX_MEMCGS,), MEMCG),
        mms=arena((MAX_MMS,), MM),
        node_stat=arena((nodes, len(NODE_STATS)), "i8"),
        numa_stat=arena((nodes * ZONES_PER_NODE, len(NUMA_STATS)), "i8"),
        vm_event=arena((len(EVENTS),), "i8"),
        stock=arena((k.nr_cpus, 2), "i8"),
        ctl=arena((NR_CTL,), "i8"),
        vmf=arena((1,), VMF),
        runs=arena((MAX_RUNS,), RUN),
        slots=arena((swapon.rows(k.swap_devices),), SLOT),
        swaps=arena((MAX_SWAPFILES,), SWAP),
        slot_caches=arena((k.nr_cpus,), SLOTS_CACHE),
        sc=arena((1,), SC),
        cc=arena((1,), CC),
        looks=arena((NR_LOOKS,), LOOK),
        ksm=arena((1,), KSM),
        ksm_items=arena((max_pfn * KSM_ITEMS_PER_FRAME,), KSM_ITEM),
        ksm_nodes=arena((max_pfn + 1,), KSM_NODE),
        gens=arena((max_pfn + 1,), "i1"),
        lrugens=arena((MAX_MEMCGS * nodes,), LRUGEN),
        blooms=arena((MAX_MEMCGS * nodes, 2, BLOOM_WORDS), "i8"),
        stamps=arena((max_pfn + 1,), "i8"),
    )
    at = 0
    for order, count in enumerate(links):
        s.ctl[CTL_BUDDY + order] = at
        at += count
    s.ctl[CTL_NR_NODES], s.ctl[CTL_MAX_PFN] = nodes, max_pfn
    s.ctl[CTL_PT_NEXT] = s.ctl[CTL_XA_NEXT] = 1
    s.ctl[CTL_SWAP_HITS] = 4  # as swapin_readahead_hits begins
    return s


def lay_out_zones(k: Kernel, layouts: list[ZoneLayout]) -> None:
    """Zones, watermarks and reserves, the kernel's own ranges, and the rest to the allocator."""
    zones, early = k.s.zones, {}
    for node in range(k.nr_nodes):
        for kind in range(ZONES_PER_NODE):
            zones["node"][node * ZONES_PER_NODE + kind], zones["type"][node * ZONES_PER_NODE + kind] = node, kind
    k.s.sections[:] = -1
    for one in layouts:
        zid = one.node * ZONES_PER_NODE + one.type
        k.s.sections[one.start >> SECTION_SHIFT : -(-one.end >> SECTION_SHIFT)] = zid
        early[zid] = one.early
        zones["start_pfn"][zid], zones["spanned"][zid] = one.start, one.end - one.start
        zones["present"][zid] = one.end - one.start - one.hole
        zones["managed"][zid] = zones["present"][zid] - one.reserved
    k.populated = [zid for zid in range(len(zones)) if zones["managed"][zid]]
    totalram = int(zones["managed"].sum())
    k.thp["enabled"] = k.machine.transparent_hugepage if totalram >= huge_memory.MIN_PAGES else "never"
    mmzone.setup_per_zone_wmarks(k, early=early)
    if "vm.min_free_kbytes" in dict(k.machine.sysctl):
        mmzone.setup_per_zone_wmarks(k, int(dict(k.machine.sysctl)["vm.min_free_kbytes"]))
    ratios = tuple(int(ratio) for ratio in str(k.sysctl["vm.lowmem_reserve_ratio"]).split())
    mmzone.setup_per_zone_lowmem_reserve(k, ratios, early=early)
    mmzone.build_zonelists(k)
    mmzone.setup_zone_reclaim(k)
    k.boot_facts = BootFacts(2490, 1950, 928, 544 * k.nr_cpus // 2, 7020, 34664, 0, [], {})
    shares = [one for one in layouts if one.type != ZONE_DMA]
    shares = [max((o for o in shares if o.node == node), key=lambda o: o.end - o.start) for node in range(k.nr_nodes)]
    used = mmzone.BOOT_KERNEL + mmzone.BOOT_SWAP * bool(k.machine.swap) + mmzone.BOOT_NODE * (k.nr_nodes - 1)
    used -= image.IMAGE_PAGES + mmzone.BOOT_DMA
    for one in layouts:
        give_zone(k, one, used // k.nr_nodes if one in shares else 0)
    k.s.vm_event[:] = 0
    account_boot(k)


def give_zone(k: Kernel, one: ZoneLayout, used: int) -> None:
    """Free the zone's frames but for what is reserved, what boot used and what stands on per-CPU lists."""
    zid = one.node * ZONES_PER_NODE + one.type
    ranges, at = k.boot_facts.ranges, one.start
    if one.type == ZONE_DMA:
        at, used = DMA_USABLE, mmzone.BOOT_DMA
        ranges.append((one.start, at, "reserved"))
    else:
        ranges.append((at, at + one.reserved, "reserved"))
        at += one.reserved
    room = one.end - at
    used = min(used, room // 2)
    set_pageblock_types(k, at, used, one)
    if used:
        ranges.append((at, at + used, "kernel"))
        at += used
    count = int(k.pcp.rows[zid, mmzone.PCP_HIGH]) // mmzone.BOOT_PCP_SHARE if one.type != ZONE_DMA else 0
    cpus = max(1, k.nr_cpus // k.nr_nodes)
    count = min(count, (one.end - at) // (4 * cpus))
    k.boot_facts.pcp_counts[zid] = count
    if count:
        ranges.append((at, at + count * cpus, "pcp"))
        k.boot_facts.free_pcp += count * cpus
        at += count * cpus
    page_alloc.free_range(k.s, at, one.end, zid)


def set_pageblock_types(k: Kernel, at: int, used: int, one: ZoneLayout) -> None:
    """Every pageblock is Movable but those that the kernel's own pages came from: Unmovable, and Reclaimable for its share of slab.

    Boot has taken some more than it holds: a few free blocks of both kinds are left, as recorded.
    """
    first, last = one.start >> PAGEBLOCK_ORDER, -(-one.end >> PAGEBLOCK_ORDER)
    k.s.pageblocks[first:last] = MIGRATE_MOVABLE
    if not used:
        return
    spare = min(mmzone.BOOT_SPARE_BLOCKS, (one.end - at - used) >> (PAGEBLOCK_ORDER + 2))
    low, high = at >> PAGEBLOCK_ORDER, -(-(at + used) >> PAGEBLOCK_ORDER) + (spare if one.type != ZONE_DMA else 0)
    slab = min(k.boot_facts.slab_reclaimable * used // mmzone.BOOT_KERNEL >> PAGEBLOCK_ORDER, (high - low) // 2)
    k.s.pageblocks[low:high] = MIGRATE_UNMOVABLE
    k.s.pageblocks[low : low + slab] = MIGRATE_RECLAIMABLE
    if spare and one.type != ZONE_DMA:
        k.s.pageblocks[high - 1] = MIGRATE_RECLAIMABLE


def account_boot(k: Kernel) -> None:
    """The counters of what boot itself holds, shared evenly over the nodes."""
    facts = k.boot_facts
    for node in range(k.nr_nodes):
        k.s.node_stat[node, NR_SLAB_RECLAIMABLE] = facts.slab_reclaimable // k.nr_nodes
        k.s.node_stat[node, NR_SLAB_UNRECLAIMABLE] = facts.slab_unreclaimable // k.nr_nodes
        k.s.node_stat[node, NR_KERNEL_STACK_KB] = facts.kernel_stack_kb // k.nr_nodes


def take_zero_page(k: Kernel) -> None:
    """The shared zero page: the first frame of the kernel's own, never counted and never freed."""
    start = next(start for start, _, owner in k.boot_facts.ranges if owner == "kernel")
    k.s.mem["flags"][start] = PG_RESERVED | PG_ZERO
    k.s.mem["refcount"][start] = 1
    k.s.ctl[CTL_ZERO_PFN] = start


def banner(k: Kernel) -> None:
    """The first lines of the log."""
    k.log(5, "Linux version 6.1.192 (pagewalk) #1 SMP PREEMPT_DYNAMIC simulated")
    total = int(k.s.zones["managed"].sum()) * 4
    present = int(k.s.zones["present"].sum()) * 4
    k.log(6, f"Memory: {total}K/{present}K available")
    for device in k.swap_devices:
        swapon.announce(k, device)
