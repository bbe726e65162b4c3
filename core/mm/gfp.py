"""The only door to a page when the fast path fails: wake kswapd, reclaim, compact, kill (mm/page_alloc.c:__alloc_pages_slowpath).

    1. get_page_from_freelist at the LOW mark                  the fast path, inside the page loops
    2. wake kswapd; try again down to the MIN mark
    3. direct reclaim, 32 pages at a time, as long as it makes progress
    4. the OOM killer (orders up to 3); its victim frees memory, try again
    5. nobody to kill: the machine panics ("System is deadlocked on memory")

Direct reclaim is a stall of the task that does it (`psi`). Simplified here: no compaction yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.events import Watermark
from core.mm import gfp_types, oom_kill, pcp, vmscan
from core.mm.gfp_types import (
    GFP_COMP,
    GFP_DIRECT_RECLAIM,
    GFP_HARDWALL,
    GFP_HIGHUSER_MOVABLE,
    GFP_KSWAPD_RECLAIM,
    GFP_NORETRY,
    GFP_RETRY_MAYFAIL,
    GFP_THISNODE,
    GFP_ZERO,
    gfp_zone,
)
from core.mm.mm_types import CTL_FAIL_NTH, MAX_NUMNODES, WMARK_LOW, WMARK_MIN
from core.mm.mmzone import cpu_to_node
from core.mm.page_alloc import alloc_block
from core.panic import TaskKilled
from core.sched import fair, psi
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

LOW, MIN = WMARK_LOW, WMARK_MIN
SWAP_CLUSTER_MAX = 32
MAX_RECLAIM_RETRIES = 16
PAGE_ALLOC_COSTLY_ORDER = 3  # beyond it the OOM killer is no answer
ALLOCSTALL = EVENT["allocstall_movable"]
GFP_USER_PAGE = GFP_HIGHUSER_MOVABLE | GFP_COMP | GFP_ZERO  # what a fault asks for


@contextmanager
def saved(k: Kernel) -> Iterator[None]:
    """Keep the operation at hand while a decision runs loops of its own."""
    vmf = k.s.vmf.copy()
    try:
        yield
    finally:
        k.s.vmf[:] = vmf


def injected(k: Kernel) -> bool:
    """True once when a test made this allocation fail."""
    if k.s.ctl[CTL_FAIL_NTH] < 0:
        k.s.ctl[CTL_FAIL_NTH] = 0
        return True
    return False


def slowpath(k: Kernel, task: Task | None, gfp: int = GFP_USER_PAGE) -> None:
    """The loop found no frame at its mark: do the next thing that may help, then it tries again.

    SysError(ENOMEM) when nothing is left to do, TaskKilled when the OOM killer took `task` itself.
    """
    if injected(k):
        raise SysError(Errno.ENOMEM, "this allocation was told to fail")
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
        k.s.vm_event[ALLOCSTALL] += 1
        for node in asked:
            if k.kswapd[node]["awake"]:
                with fair.kswapd_turn(k, node):
                    vmscan.kswapd_run(k, node, 1)
        with psi.memstall(k, task or k.current, "direct reclaim"):
            reclaimed = vmscan.reclaim(k, k.root_cgroup, SWAP_CLUSTER_MAX, nodes=nodes)
        pcp.drain_all_pages(k)
        if not reclaimed and not above_min(k, nodes):
            oom_kill.out_of_memory(k, task, gfp_types.show(gfp), 0, nodes=nodes)
    check_killed(k, task)
    if k.panicked is not None:
        raise SysError(Errno.ENOMEM, "the kernel panicked")


def nodes_of(mask: int) -> list[int] | None:
    """The nodes that a memory policy confines an allocation to; None: it may use all."""
    return [node for node in range(MAX_NUMNODES) if mask >> node & 1] if mask else None


def above_min(k: Kernel, nodes: list[int] | None = None) -> bool:
    """Can some zone (of these nodes) give a page after all?"""
    zones = k.s.zones
    usable = [z for z in k.populated if nodes is None or int(zones["node"][z]) in nodes]
    return any(int(zones["free"][z]) > int(zones["wmark"][z][MIN]) + int(zones["lowmem_reserve"][z][3]) for z in usable)


def check_killed(k: Kernel, task: Task | None) -> None:
    """A task that the OOM killer chose does not return to its call."""
    if task is not None and task.dying:
        raise TaskKilled


def wake_kswapd(k: Kernel, node: int = 0) -> None:
    """A zone is below its low mark: kswapd of its node wakes and works beside the tasks (wakeup_kswapd)."""
    zones = k.s.zones
    for zid in k.populated:
        free, low = int(zones["free"][zid]), int(zones["wmark"][zid][WMARK_LOW])
        daemon = k.kswapd[int(zones["node"][zid])]
        if free <= low and not daemon["awake"]:
            daemon["cause"] = k.emit(Watermark(k.clock.now, int(zones["node"][zid]), zone_name(k, zid), "low", free, low, "kswapd"))
    if k.kswapd[node]["failures"] < MAX_RECLAIM_RETRIES:
        with fair.kswapd_turn(k, node):
            vmscan.kswapd_run(k, node, 1)


def kswapd_finish(k: Kernel) -> None:
    """The call is over and the machine idle: a kswapd that is awake works until it may sleep."""
    for node in range(k.nr_nodes):
        while k.kswapd[node]["awake"]:
            with fair.kswapd_turn(k, node):
                vmscan.kswapd_run(k, node, 8)


def zone_name(k: Kernel, zid: int) -> str:
    """DMA, DMA32 or Normal."""
    return ("DMA", "DMA32", "Normal", "Movable")[int(k.s.zones["type"][zid])]


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
    pfn = int(alloc_block(k.s, node, order, LOW, gfp_zone(gfp), nodes or cpuset))
    if pfn or injected(k):
        return pfn
    with saved(k):
        return alloc_pages_slowpath(k, task, order, gfp, node, nodes)


def alloc_pages_slowpath(k: Kernel, task: Task | None, order: int, gfp: int, node: int, nodes: int) -> int:
    """Everything that may be done for a request that found no free block above the low mark (__alloc_pages_slowpath)."""
    asked = nodes_of(nodes)
    while True:
        if gfp & GFP_KSWAPD_RECLAIM:
            for one in asked or range(k.nr_nodes):
                wake_kswapd(k, one)
        pfn = int(alloc_block(k.s, node, order, MIN, gfp_zone(gfp), nodes))
        if pfn or injected(k) or k.panicked is not None or not gfp & GFP_DIRECT_RECLAIM:
            return pfn
        with psi.memstall(k, task or k.current, "direct reclaim"):
            reclaimed = vmscan.reclaim(k, k.root_cgroup, SWAP_CLUSTER_MAX, nodes=asked)
        pfn = int(alloc_block(k.s, node, order, MIN, gfp_zone(gfp), nodes))
        if pfn or gfp & GFP_NORETRY or order > PAGE_ALLOC_COSTLY_ORDER:
            return pfn
        if reclaimed:
            continue
        if gfp & GFP_RETRY_MAYFAIL or not oom_kill.out_of_memory(k, task, gfp_types.show(gfp), order, nodes=asked):
            return 0
        check_killed(k, task)
