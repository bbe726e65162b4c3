"""The only door to a page when the fast path fails: steal, wake kswapd, reclaim, compact, kill (mm/page_alloc.c:__alloc_pages_slowpath).

A page, inside the page loops (`slowpath`):

    1. get_page_from_freelist at the LOW mark                  the fast path
    2. a zone has room, but no block of the migrate type: steal one from another type; with zone_reclaim_mode: reclaim the node before
       the next one is asked
    3. wake kswapd; try again down to the MIN mark. kswapd works at the same time on a processor of its own: whenever the task finds nothing
       above that mark, kswapd has first done what there was time for, and where that is enough the task goes on
    4. direct reclaim, 32 pages at a time, as long as it makes progress
    5. the OOM killer; its victim frees memory, try again
    6. nobody to kill: the machine panics ("System is deadlocked on memory")

A block of 2^order frames (`alloc_pages`) goes the same way, and is compacted for, too:

    orders 1..3      reclaim, then compaction, again and again, harder each time; in the end the OOM killer
    order 4 and up   compaction first, then one attempt at reclaim and compaction; nobody is killed. With GFP_NORETRY (a huge page in a fault)
                     only the cheapest compaction, and reclaim only if that was not for lack of room
    no GFP_DIRECT_RECLAIM   neither; with GFP_KSWAPD_RECLAIM kswapd and kcompactd are woken, and a later request may be luckier

Direct reclaim and direct compaction are stalls of the task that does it (`psi`), and its time: the spike in the latency of a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.abi.errno import Errno, SysError
from core.events import Watermark
from core.mm import compaction, gfp_types, oom_kill, pcp, vmscan
from core.mm.gfp_types import (
    GFP_DIRECT_RECLAIM,
    GFP_FILLED_PAGE,
    GFP_HARDWALL,
    GFP_KSWAPD_RECLAIM,
    GFP_NORETRY,
    GFP_RETRY_MAYFAIL,
    GFP_THISNODE,
    gfp_migratetype,
    gfp_zone,
)
from core.mm.mm_types import (
    CTL_FAIL_NTH,
    CTL_NODE_RECLAIM,
    CTL_RECLAIM_MODE,
    CTL_STEAL,
    CTL_STEAL_TYPE,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    MAX_NUMNODES,
    MIGRATE_MOVABLE,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONES_PER_NODE,
)
from core.mm.mmzone import cpu_to_node
from core.mm.page_alloc import alloc_block, page_zone, rmqueue_fallback, wants_node_reclaim
from core.mm.vmscan import MAX_RECLAIM_RETRIES
from core.panic import TaskKilled
from core.sched import fair, psi
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

LOW, MIN = WMARK_LOW, WMARK_MIN
SWAP_CLUSTER_MAX = 32
MAX_COMPACT_RETRIES = 16
PAGE_ALLOC_COSTLY_ORDER = 3  # beyond it the OOM killer is no answer
ALLOCSTALL = EVENT["allocstall_movable"]
GFP_KERNEL_ZONE = 2  # ZONE_NORMAL: what the kernel allocates for itself is never movable


class saved:
    """Keep the operation at hand while a decision runs loops of its own; as bytes, because field by field it would take 30 µs."""

    __slots__ = ("row", "kept")

    def __init__(self, k: Kernel) -> None:
        self.row = k.s.vmf.view(np.uint8)

    def __enter__(self) -> None:
        self.kept = self.row.tobytes()

    def __exit__(self, *failure: object) -> None:
        self.row.data[:] = self.kept


def injected(k: Kernel) -> bool:
    """True once when a test made this allocation fail."""
    if k.s.ctl[CTL_FAIL_NTH] < 0:
        k.s.ctl[CTL_FAIL_NTH] = 0
        return True
    return False


def slowpath(k: Kernel, task: Task | None, gfp: int = GFP_FILLED_PAGE) -> None:
    """The loop found no frame at its mark: do the next thing that may help, then it tries again.

    SysError(ENOMEM) when nothing is left to do, TaskKilled when the OOM killer took `task` itself.
    """
    if injected(k):
        raise SysError(Errno.ENOMEM, "this allocation was told to fail")
    if steal(k) or node_reclaim(k, task):
        return
    v = k.s.vmf[0]
    nodes = nodes_of(int(v["tried"]))
    asked = nodes or list(range(k.nr_nodes))
    if int(v["mark"]) != MIN:
        with saved(k):
            for node in asked:
                wake_kswapd(k, node)
        v["mark"] = MIN
        return
    with saved(k):
        worked = kswapd_keeps_pace(k, asked)
    if worked and above_min(k, nodes):
        if not any(k.kswapd[node]["awake"] for node in asked):
            v["mark"] = LOW
        return
    with saved(k):
        k.s.vm_event[ALLOCSTALL] += 1
        with psi.memstall(k, task or k.current, psi.DIRECT_RECLAIM):
            reclaimed = vmscan.reclaim(k, k.root_cgroup, SWAP_CLUSTER_MAX, nodes=nodes)
        pcp.drain_all_pages(k)
    if not reclaimed:
        nothing_reclaimed(k, task, gfp, nodes)
    check_alive(k, task)


def nothing_reclaimed(k: Kernel, task: Task | None, gfp: int, nodes: list[int] | None = None) -> None:
    """Direct reclaim has not freed a page: if there is none to be had yet, somebody must die."""
    with saved(k):
        settle_boosts(k, nodes or list(range(k.nr_nodes)))
        if not above_min(k, nodes):
            oom_kill.out_of_memory(k, task, gfp_types.show(gfp), 0, nodes=nodes)


def check_alive(k: Kernel, task: Task | None) -> None:
    """Whoever looked for a page goes on only if neither he nor the machine died of it."""
    check_killed(k, task)
    if k.panicked is not None:
        raise SysError(Errno.ENOMEM, "the kernel panicked")


def kswapd_keeps_pace(k: Kernel, nodes: list[int]) -> bool:
    """What kswapd has done beside the task up to now, round by round. True if there was time for any."""
    worked = False
    for node in nodes:
        while k.kswapd[node]["awake"] and k.kswapd[node]["until"] <= k.clock.now:
            fair.kswapd_works(k, node)
            worked = True
    return worked


def steal(k: Kernel) -> bool:
    """A zone had room, but not in blocks of the migrate type that was wanted: take some of another type. True if that helped.

    What fragments memory raises the zone's watermarks and wakes kswapd to make room (boost_watermark).
    """
    zid = int(k.s.ctl[CTL_STEAL]) - 1
    if zid < 0 or not rmqueue_fallback(k.s):
        return False
    if k.s.zones["boosted"][zid]:
        k.s.zones["boosted"][zid] = 0
        with saved(k):
            wake_kswapd(k, int(k.s.zones["node"][zid]))
    return True


def node_reclaim(k: Kernel, task: Task | None, order: int = 0) -> bool:
    """A request would rather have a zone reclaimed than go on to the next (`page_alloc.ask_for_node_reclaim`): do that. False: it did not ask.

    Whether that was enough or not, it tries again; the zone has had its turn. Its time is a stall.
    """
    zid = int(k.s.ctl[CTL_NODE_RECLAIM]) - 1
    if zid < 0:
        return False
    k.s.ctl[CTL_NODE_RECLAIM] = 0
    with saved(k), psi.memstall(k, task or k.current, "node reclaim"):
        vmscan.node_reclaim(k, int(k.s.zones["node"][zid]), order)
    return True


def get_block(k: Kernel, node: int, order: int, mark: int, gfp: int, nodes: int) -> int:
    """`get_page_from_freelist` with stealing and node reclaim: 2^order frames from a zone that stays above `mark`, or 0."""
    waits = int(k.s.ctl[CTL_RECLAIM_MODE]) and gfp & GFP_DIRECT_RECLAIM
    while True:
        if waits and wants_node_reclaim(k.s, node, order, mark, gfp_zone(gfp), nodes):
            node_reclaim(k, k.current, order)
            continue
        pfn = int(alloc_block(k.s, node, order, mark, gfp_zone(gfp), nodes, gfp_migratetype(gfp)))
        if pfn or not steal(k):
            return pfn


def nodes_of(mask: int) -> list[int] | None:
    """The nodes that a memory policy confines an allocation to; None: it may use all."""
    return [node for node in range(MAX_NUMNODES) if mask >> node & 1] if mask else None


def settle_boosts(k: Kernel, nodes: list[int]) -> None:
    """Nothing to reclaim: kswapd is through with it as quickly as the task was, and the marks that thefts have raised fall again."""
    for node in nodes:
        while vmscan.watermark_boosts(k, node) and k.kswapd[node]["failures"] < MAX_RECLAIM_RETRIES:
            with fair.kswapd_turn(k, node):
                while not vmscan.kswapd_run(k, node, 8):
                    pass


def above_min(k: Kernel, nodes: list[int] | None = None) -> bool:
    """Can some zone (of these nodes) give a page after all?"""
    zones = k.s.zones
    usable = [z for z in k.populated if nodes is None or int(zones["node"][z]) in nodes]
    return any(int(zones["free"][z]) > compaction.wmark_pages(zones[z], MIN) + int(zones["lowmem_reserve"][z][3]) for z in usable)


def check_killed(k: Kernel, task: Task | None) -> None:
    """A task that the OOM killer chose does not return to its call."""
    if task is not None and task.dying:
        raise TaskKilled


def wake_kswapd(k: Kernel, node: int = 0, order: int = 0) -> None:
    """A zone is below its low mark: kswapd of its node wakes and works beside the tasks (wakeup_kswapd).

    For a block it also makes the room that compaction needs, and hands over to kcompactd when it goes to sleep.
    """
    if not all(daemon["awake"] for daemon in k.kswapd):
        note_shortage(k)
    if k.kswapd[node]["failures"] < MAX_RECLAIM_RETRIES:
        with fair.kswapd_turn(k, node):
            vmscan.kswapd_run(k, node, 1)
            if order and not balanced_for(k, node, order):
                vmscan.reclaim(k, k.root_cgroup, compaction.compact_gap(order), "kswapd", nodes=[node])
    if order:
        compaction.wakeup_kcompactd(k, node, order)


def note_shortage(k: Kernel) -> None:
    """Which zones are below their low marks, where kswapd still sleeps."""
    zones = k.s.zones
    for zid in k.populated:
        free, low = int(zones["free"][zid]), int(zones["wmark"][zid][WMARK_LOW])
        daemon = k.kswapd[int(zones["node"][zid])]
        if free <= low and not daemon["awake"]:
            daemon["cause"] = k.emit(Watermark(k.clock.now, int(zones["node"][zid]), zone_name(k, zid), "low", free, low, "kswapd"))


def wake_below_low(k: Kernel) -> None:
    """kswapd wakes where no zone would serve the kernel's own requests above its low mark; if nobody runs meanwhile it works until it may sleep."""
    zones = [k.s.zones[zid] for zid in k.populated]
    if any(compaction.watermark_ok(zone, 0, compaction.wmark_pages(zone, LOW), GFP_KERNEL_ZONE, int(zone["free"])) for zone in zones):
        return
    for node in range(k.nr_nodes):
        wake_kswapd(k, node)
    if not k.nr_programs:
        kswapd_finish(k)


def balanced_for(k: Kernel, node: int, order: int) -> bool:
    """Could some zone of a node give a block and stay above its high mark?"""
    zids = [zid for zid in k.populated if zid // ZONES_PER_NODE == node]
    zones = k.s.zones
    return any(
        compaction.watermark_ok(zones[zid], order, compaction.wmark_pages(zones[zid], WMARK_HIGH), 3, int(zones["free"][zid])) for zid in zids
    )


def kswapd_finish(k: Kernel) -> None:
    """The call is over and the machine idle: a kswapd that is awake works until it may sleep."""
    if k.s.ctl[CTL_STEAL] and k.s.ctl[CTL_STEAL_TYPE] != MIGRATE_MOVABLE:
        steal(k)  # for slab, which does not wait
    for node, kswapd in enumerate(k.kswapd):
        while kswapd["awake"]:
            fair.kswapd_works(k, node, 8)
    compaction.kcompactd_finish(k)


def zone_name(k: Kernel, zid: int) -> str:
    """DMA, DMA32 or Normal."""
    return ("DMA", "DMA32", "Normal", "Movable")[int(k.s.zones["type"][zid])]


# ---------------------------------------------------------------- the slow path, for any order


@dataclass(slots=True)
class AllocContext:
    """One request (struct alloc_context): who asks for what, and which zones may give."""

    task: Task | None
    order: int
    gfp: int
    node: int  # whose zonelist
    nodes: int  # a mask of those that may give, 0: all

    def zids(self, k: Kernel) -> list[int]:
        """The zones that may be asked, in their order."""
        found = [int(zid) for zid in k.s.zonelists[self.node] if zid >= 0]
        most = gfp_zone(self.gfp)
        return [zid for zid in found if zid % ZONES_PER_NODE <= most and (not self.nodes or self.nodes >> zid // ZONES_PER_NODE & 1)]


def alloc_pages(k: Kernel, task: Task | None, order: int, gfp: int, *, node: int | None = None, nodes: int = 0) -> int:
    """2^order frames, refcount 1 on the first, their content undefined: the first pfn, 0 when they cannot be had (__alloc_pages).

    `gfp`: what for and how hard to try (`gfp_types`). `node`: whose zonelist is asked, by default that of the task's CPU;
    `nodes`: a mask of those that may give, 0: all. TaskKilled if the OOM killer took `task`. The charge is the caller's.
    """
    if node is None:
        node = cpu_to_node(k, task.cpu) if task is not None else 0
    if gfp & GFP_THISNODE:
        nodes = 1 << node
    cpuset = task.mems if task is not None else 0
    if gfp & GFP_HARDWALL and not nodes:
        nodes = cpuset
    pfn = get_block(k, node, order, LOW, gfp, nodes or cpuset)
    if pfn or injected(k):
        return pfn
    with saved(k):
        return alloc_pages_slowpath(k, AllocContext(task, order, gfp, node, nodes))


def alloc_pages_slowpath(k: Kernel, ac: AllocContext) -> int:
    """Everything that may be done for a request that found no free block above the low mark: a pfn, or 0 (__alloc_pages_slowpath).

    A block larger than the allocator promises (order > 3) is compacted for before anything is reclaimed, and nobody is killed for it.
    """
    direct, costly = ac.gfp & GFP_DIRECT_RECLAIM, ac.order > PAGE_ALLOC_COSTLY_ORDER
    prio, retries, loops = compaction.PRIO_SYNC_LIGHT, 0, 0
    pfn = awake_and_try(k, ac)
    if pfn or not direct or k.panicked is not None:
        return pfn
    if costly or (ac.order > 0 and gfp_migratetype(ac.gfp) != MIGRATE_MOVABLE):
        pfn, result = direct_compact(k, ac, compaction.PRIO_ASYNC)
        if pfn:
            return pfn
        if costly and ac.gfp & GFP_NORETRY:
            if result in (compaction.SKIPPED, compaction.DEFERRED) or ac.gfp & GFP_THISNODE:
                return 0
            prio = compaction.PRIO_ASYNC
    while True:
        progress = direct_reclaim(k, ac)
        pfn = get_block(k, ac.node, ac.order, MIN, ac.gfp, ac.nodes)
        if pfn:
            return pfn
        pfn, result = direct_compact(k, ac, prio)
        if pfn or ac.gfp & GFP_NORETRY or (costly and not ac.gfp & GFP_RETRY_MAYFAIL):
            return pfn
        loops = 0 if progress and not costly else loops + 1
        again = should_reclaim_retry(k, ac, loops)
        if not again and progress and ac.order:
            again, prio, retries = should_compact_retry(k, ac, result, prio, retries)
        if not again:
            if costly or ac.gfp & (GFP_RETRY_MAYFAIL | GFP_THISNODE):
                return 0
            if not oom_kill.out_of_memory(k, ac.task, gfp_types.show(ac.gfp), ac.order, nodes=nodes_of(ac.nodes)):
                return 0
            check_killed(k, ac.task)
            loops = 0
        pfn = awake_and_try(k, ac)
        if pfn or k.panicked is not None:
            return pfn


def awake_and_try(k: Kernel, ac: AllocContext) -> int:
    """Wake kswapd, if the request does that, and try down to the min mark."""
    nodes = nodes_of(ac.nodes) or list(range(k.nr_nodes))
    if ac.gfp & GFP_KSWAPD_RECLAIM:
        for one in nodes:
            wake_kswapd(k, one, ac.order)
    kswapd_keeps_pace(k, nodes)
    return get_block(k, ac.node, ac.order, MIN, ac.gfp, ac.nodes)


def direct_reclaim(k: Kernel, ac: AllocContext) -> bool:
    """The task reclaims itself; for a large block only if there is no room to compact. True if it got anywhere."""
    costly = ac.order > PAGE_ALLOC_COSTLY_ORDER
    if costly and any(compaction_ready(k, ac, zid) for zid in ac.zids(k)):
        return True
    k.s.vm_event[EVENT["allocstall_dma"] + gfp_zone(ac.gfp)] += 1
    with psi.memstall(k, ac.task or k.current, psi.DIRECT_RECLAIM):
        wanted = compaction.compact_gap(ac.order) if costly else SWAP_CLUSTER_MAX
        return vmscan.reclaim(k, k.root_cgroup, wanted, nodes=nodes_of(ac.nodes)) > 0


def compaction_ready(k: Kernel, ac: AllocContext, zid: int) -> bool:
    """Would reclaim for a large block be work for nothing: compaction has room enough?"""
    zone = k.s.zones[zid]
    q = compaction.Request(ac.order, classzone=gfp_zone(ac.gfp))
    suitable = compaction.compaction_suitable(k, zid, q)
    if suitable != compaction.CONTINUE:
        return suitable == compaction.SUCCESS
    mark = compaction.wmark_pages(zone, WMARK_HIGH) + compaction.compact_gap(ac.order)
    return compaction.watermark_ok(zone, 0, mark, gfp_zone(ac.gfp), int(zone["free"]))


def direct_compact(k: Kernel, ac: AllocContext, prio: int) -> tuple[int, int]:
    """The task compacts itself: a pfn or 0, and how compaction ended (__alloc_pages_direct_compact). Its time is a stall."""
    if not ac.order:
        return 0, compaction.SKIPPED
    q = compaction.direct_request(ac.order, gfp_migratetype(ac.gfp), gfp_zone(ac.gfp), prio)
    with psi.memstall(k, ac.task or k.current, "direct compaction"):
        result, pfn = compaction.try_to_compact_pages(k, ac.zids(k), q)
    if result == compaction.SKIPPED:
        return 0, result
    k.s.vm_event[compaction.STALL] += 1
    pfn = pfn or get_block(k, ac.node, ac.order, MIN, ac.gfp, ac.nodes)
    if not pfn:
        k.s.vm_event[compaction.FAIL] += 1
        return 0, result
    zone = k.s.zones[int(page_zone(k.s, pfn))]
    zone["compact_blockskip_flush"] = 0
    compaction.compaction_defer_reset(zone, ac.order, True)
    k.s.vm_event[compaction.COMPACT_SUCCESS] += 1
    return pfn, result


def should_reclaim_retry(k: Kernel, ac: AllocContext, loops: int) -> bool:
    """Would the request succeed if everything reclaimable were reclaimed, and has that not been hoped for 16 times already?"""
    if loops > MAX_RECLAIM_RETRIES:
        return False
    classzone = gfp_zone(ac.gfp)
    return any(
        compaction.watermark_ok(k.s.zones[zid], ac.order, compaction.wmark_pages(k.s.zones[zid], MIN), classzone,
                                int(k.s.zones["free"][zid]) + zone_reclaimable_pages(k, zid))
        for zid in ac.zids(k)
    )  # fmt: skip


def zone_reclaimable_pages(k: Kernel, zid: int) -> int:
    """Pages of a zone that reclaim may look at: of files, and anonymous ones if there is swap left."""
    stat = k.s.zones["stat"][zid]
    pages = int(stat[LRU_INACTIVE_FILE] + stat[LRU_ACTIVE_FILE])
    if int((k.s.swaps["pages"] - k.s.swaps["used"]).sum()) > 0:
        pages += int(stat[LRU_INACTIVE_ANON] + stat[LRU_ACTIVE_ANON])
    return pages


def should_compact_retry(k: Kernel, ac: AllocContext, result: int, prio: int, retries: int) -> tuple[bool, int, int]:
    """Is another compaction worth it: (again, priority, how often it has succeeded in vain)?"""
    if result == compaction.SUCCESS:
        retries += 1
    if result == compaction.SKIPPED:
        return any(compaction_may_help(k, ac, zid) for zid in ac.zids(k)), prio, retries
    costly = ac.order > PAGE_ALLOC_COSTLY_ORDER
    gave_up = result in (compaction.COMPLETE, compaction.DEFERRED, compaction.CONTENDED, compaction.PARTIAL_SKIPPED)
    if not gave_up and retries <= (MAX_COMPACT_RETRIES // 4 if costly else MAX_COMPACT_RETRIES):
        return True, prio, retries
    if prio > (compaction.PRIO_SYNC_LIGHT if costly else compaction.PRIO_SYNC_FULL):
        return True, prio - 1, 0
    return False, prio, retries


def compaction_may_help(k: Kernel, ac: AllocContext, zid: int) -> bool:
    """Could a zone be compacted if a part of what is reclaimable were free?"""
    available = zone_reclaimable_pages(k, zid) // ac.order + int(k.s.zones["free"][zid])
    q = compaction.Request(ac.order, classzone=gfp_zone(ac.gfp))
    return compaction.compaction_suitable(k, zid, q, available) == compaction.CONTINUE
