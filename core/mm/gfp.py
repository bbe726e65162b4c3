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
from core.mm import oom_kill, vmscan
from core.mm.mm_types import CTL_FAIL_NTH, MAX_NUMNODES, WMARK_LOW, WMARK_MIN
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
ALLOCSTALL = EVENT["allocstall_movable"]
GFP_HIGHUSER_MOVABLE = "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"
GFP_KERNEL = "GFP_KERNEL"


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


def slowpath(k: Kernel, task: Task | None, gfp: str = GFP_HIGHUSER_MOVABLE) -> None:
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
        with psi.memstall(k, task or k.current):
            reclaimed = vmscan.reclaim(k, k.root_cgroup, SWAP_CLUSTER_MAX, nodes=nodes)
        if not reclaimed and not above_min(k, nodes):
            oom_kill.out_of_memory(k, task, gfp, 0, nodes=nodes)
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
        if free <= low and not k.kswapd[int(zones["node"][zid])]["awake"]:
            k.emit(Watermark(k.clock.now, int(zones["node"][zid]), zone_name(k, zid), "low", free, low, "kswapd"))
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


def alloc_pages(k: Kernel, order: int, *, node: int = 0, classzone: int = 2, task: Task | None = None) -> int:
    """2^order frames for the kernel itself: the first pfn; SysError(ENOMEM) when they cannot be had."""
    for mark in (LOW, MIN):
        pfn = int(alloc_block(k.s, node, order, mark, classzone))
        if pfn:
            return pfn
        if injected(k):
            raise SysError(Errno.ENOMEM, "this allocation was told to fail")
        if mark == LOW:
            wake_kswapd(k, node)
    while True:
        with psi.memstall(k, task or k.current):
            reclaimed = vmscan.reclaim(k, k.root_cgroup, SWAP_CLUSTER_MAX)
        if not reclaimed and (order > 3 or not oom_kill.out_of_memory(k, task, GFP_KERNEL, order)):
            raise SysError(Errno.ENOMEM, f"no free block of order {order}")
        check_killed(k, task)
        pfn = int(alloc_block(k.s, node, order, MIN, classzone))
        if pfn:
            return pfn
        if k.panicked is not None:
            raise SysError(Errno.ENOMEM, "the kernel panicked")
