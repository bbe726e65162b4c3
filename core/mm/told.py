"""What a run of the fault loop, a read from swap or a visit of reclaim is told as: events, made at once or of a row that was noted (`core.untold`).

A row has the columns of `untold` and then, by its kind:

    FAULTS    pid, kind, first page, how many, step
    READ      pid, first page, reads, pages, slot, area
    SHORTAGE  zone, free, low mark
    RECLAIM   kswapd, priority, scanned, freed; scanned and freed list by list
    WRITTEN   pages
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.mman import PMD_PAGES
from core.events import Event, Fault, Reclaim, SwapIn, SwapOut, Thp, Watermark
from core.mm.fault import COW, KIND_NAMES, ZERO_COW
from core.mm.huge_memory import HUGE, HUGE_SHMEM
from core.mm.mm_types import ZONE_NAMES, ZONES_PER_NODE
from core.mm.vmscan import lists_by_name
from core.untold import AT, CAUSE, CGROUP, REST, TIMER, WHAT

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


def emit_fault(k: Kernel, task: Task, kind: str, vpn: int, pages: int, stride: int | None, *, major: bool, at: int | None = None) -> None:
    """One run of like faults; `at`: when, if not now."""
    k.emit(Fault(k.clock.now if at is None else at, task.pid, kind, major, vpn << 12, pages, stride, task.cgroup.path))


def faults(k: Kernel, task: Task, kind: int, vpn: int, n: int, step: int, at: int | None = None) -> None:
    """A run of faults of one kind, and what the processor has to forget for it. `at`: when, if not now."""
    emit_fault(k, task, KIND_NAMES[kind], vpn, n, step or None, major=False, at=at)
    if kind in (COW, ZERO_COW):
        k.tlb.cpus[task.cpu].local_one += n  # ptep_clear_flush; tlb.access walks again
    if kind in (HUGE, HUGE_SHMEM):
        k.emit(Thp(k.clock.now if at is None else at, "alloc", n * PMD_PAGES, task.pid, (vpn & -PMD_PAGES) << 12, cgroup=task.cgroup.path))


def reads(k: Kernel, task: Task, slot: int, vpn: int, n: int, pages: int) -> None:
    """A run of reads from swap: `n` faults read `pages` pages."""
    k.emit(SwapIn(k.clock.now, pages, swap_device(k, slot), slot, pages - n, task.cgroup.path, task.pid, vpn << 12, n))


def swap_device(k: Kernel, slot: int) -> int:
    """The swap area that a slot belongs to."""
    if len(k.swap_devices) == 1:
        return 0
    bases = k.s.swaps["base"][: len(k.swap_devices)].tolist()
    return max(area for area, base in enumerate(bases) if base <= slot)


# ---------------------------------------------------------------- an event of a row


def _faults(words: list[str | None], row: list[int]) -> Event:
    at, _, _, _, cgroup, pid, kind, vpn, n, step = row[:10]
    return Fault(at, pid, KIND_NAMES[kind], False, vpn << 12, n, step or None, words[cgroup])


def _reads(words: list[str | None], row: list[int]) -> Event:
    at, _, _, _, cgroup, pid, vpn, n, pages, slot, area = row[:11]
    return SwapIn(at, pages, area, slot, pages - n, words[cgroup], pid, vpn << 12, n)


def _shortage(_: list[str | None], row: list[int]) -> Event:
    return Watermark(row[AT], 0, ZONE_NAMES[row[REST] % ZONES_PER_NODE], "low", row[REST + 1], row[REST + 2], "kswapd")


def _reclaim(words: list[str | None], row: list[int]) -> Event:
    at, _, _, _, cgroup, kswapd, priority, scanned, freed = row[:9]
    return Reclaim(at, RECLAIMERS[kswapd], 0, words[cgroup] or "", priority, scanned, freed, lists_by_name(row[9:13], row[13:]))


def _written(words: list[str | None], row: list[int]) -> Event:
    return SwapOut(row[AT], row[REST], 0, 0, words[row[CGROUP]])


MAKE = (_faults, _reads, _shortage, _reclaim, _written)  # by kind of row


def tell(untold: Untold, events: list[Event | int]) -> list[Event]:
    """The events, those that are rows made of them."""
    if not untold.nr:
        return events  # type: ignore[return-value]  # no number is among them
    rows = iter(untold.rows[[event for event in events if isinstance(event, int)]].tolist())
    return [_tell(untold.words, next(rows)) if isinstance(event, int) else event for event in events]


def _tell(words: list[str | None], row: list[int]) -> Event:
    event = MAKE[row[WHAT]](words, row)
    if row[CAUSE]:
        event.cause = row[CAUSE]
    else:
        event.timer = words[row[TIMER]]
    return event
