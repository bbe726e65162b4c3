"""What a run of the fault loop, a read from swap or a visit of reclaim is told as: events, made at once or of a row that was noted (`core.untold`).

A row has the columns of `untold` and then, by its kind:

    FAULTS    pid, kind, first page, how many, step
    READ      pid, first page, reads, pages, slot, area
    SHORTAGE  zone, free, low mark
    RECLAIM   kswapd, priority, scanned, freed; scanned and freed list by list
    WRITTEN   pages
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi.mman import PMD_PAGES
from core.events import Event, Fault, Reclaim, SwapIn, SwapOut, Thp, Watermark
from core.mm.fault import COW, KIND_NAMES, ZERO_COW
from core.mm.huge_memory import HUGE, HUGE_SHMEM
from core.mm.mm_types import ZONE_NAMES, ZONES_PER_NODE
from core.mm.vmscan import lists_by_name

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task
    from core.untold import Untold

FAULTS, READ, SHORTAGE, RECLAIM, WRITTEN = range(5)
RECLAIMERS = ("direct", "kswapd")
REFAULT = "reading a page of the workingset back from swap"  # a stall

# what a fault costs beyond the trap itself, by kind: a field of Costs. No fault is a HIT, the first.
PRICES = ("access", "clear_page", "zero_page", "copy_page", "clear_page", "reuse", "map_file", "copy_page", "clear_page", "reuse", "reuse",
          "clear_huge_page", "zero_page", "reuse", "clear_huge_page", "map_file")  # fmt: skip


def price(k: Kernel, kind: int) -> int:
    """ns of a fault of this kind."""
    return k.costs.fault + int(getattr(k.costs, PRICES[kind]))


def emit_fault(k: Kernel, task: Task, kind: str, vpn: int, pages: int, stride: int | None, *, major: bool) -> None:
    """One run of like faults."""
    k.emit(Fault(k.clock.now, task.pid, kind, major, vpn << 12, pages, stride, task.cgroup.path))


def faults(k: Kernel, task: Task, kind: int, vpn: int, n: int, step: int, at: int | None = None) -> None:
    """A run of faults of one kind, and what the processor has to forget for it. `at`: when, if not now."""
    at = k.clock.now if at is None else at
    k.emit(_faults(at, task.cgroup.path, task.pid, kind, vpn, n, step))
    if kind in (COW, ZERO_COW):
        k.tlb.cpus[task.cpu].local_one += n  # ptep_clear_flush; tlb.access walks again
    if kind in (HUGE, HUGE_SHMEM):
        k.emit(Thp(at, "alloc", n * PMD_PAGES, task.pid, (vpn & -PMD_PAGES) << 12, cgroup=task.cgroup.path))


def reads(k: Kernel, task: Task, slot: int, vpn: int, n: int, pages: int) -> None:
    """A run of reads from swap: `n` faults read `pages` pages."""
    k.emit(_reads(k.clock.now, task.cgroup.path, task.pid, vpn, n, pages, slot, swap_device(k, slot)))


def swap_device(k: Kernel, slot: int) -> int:
    """The swap area that a slot belongs to."""
    if len(k.swap_devices) == 1:
        return 0
    bases = k.s.swaps["base"][: len(k.swap_devices)].tolist()
    return max(area for area, base in enumerate(bases) if base <= slot)


# ---------------------------------------------------------------- an event of a row


def _faults(at: int, cgroup: str | None, pid: int, kind: int, vpn: int, n: int, step: int, *_: int) -> Event:
    return Fault(at, pid, KIND_NAMES[kind], False, vpn << 12, n, step or None, cgroup)


def _reads(at: int, cgroup: str | None, pid: int, vpn: int, n: int, pages: int, slot: int, area: int, *_: int) -> Event:
    return SwapIn(at, pages, area, slot, pages - n, cgroup, pid, vpn << 12, n)


def _shortage(at: int, _: str | None, zone: int, free: int, low: int, *__: int) -> Event:
    return Watermark(at, 0, ZONE_NAMES[zone % ZONES_PER_NODE], "low", free, low, "kswapd")


def _reclaim(at: int, cgroup: str | None, kswapd: int, priority: int, scanned: int, freed: int, *lists: int) -> Event:
    assert cgroup is not None
    return Reclaim(at, RECLAIMERS[kswapd], 0, cgroup, priority, scanned, freed, lists_by_name(lists[:4], lists[4:8]))


def _written(at: int, cgroup: str | None, pages: int, *_: int) -> Event:
    return SwapOut(at, pages, 0, 0, cgroup)


MAKE: tuple[Any, ...] = (_faults, _reads, _shortage, _reclaim, _written)  # by kind of row


def tell(untold: Untold, events: list[Event | int]) -> list[Event]:
    """The events, those that are rows made of them."""
    return [_tell(untold.words, *untold.rows[event].tolist()) if isinstance(event, int) else event for event in events]


def _tell(words: list[str | None], at: int, cause: int, what: int, timer: int, cgroup: int, *rest: int) -> Event:
    event: Event = MAKE[what](at, words[cgroup], *rest)
    if cause:
        event.cause = cause
    else:
        event.timer = words[timer]
    return event
