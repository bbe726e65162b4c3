"""What a run of the fault loop is told as: events of faults and of reads from swap, for `memory` and for `thrash`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.mman import PMD_PAGES
from core.events import Fault, SwapIn, Thp
from core.mm.fault import COW, KIND_NAMES, ZERO_COW
from core.mm.huge_memory import HUGE, HUGE_SHMEM

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

REFAULT = "reading a page of the workingset back from swap"  # a stall

# what a fault costs beyond the trap itself, by kind: a field of Costs. No fault is a HIT, the first.
PRICES = ("access", "clear_page", "zero_page", "copy_page", "clear_page", "reuse", "map_file", "copy_page", "clear_page", "reuse", "reuse",
          "clear_huge_page", "zero_page", "reuse", "clear_huge_page", "map_file")  # fmt: skip


def price(k: Kernel, kind: int) -> int:
    """ns of a fault of this kind."""
    return k.costs.fault + int(getattr(k.costs, PRICES[kind]))


def emit_fault(k: Kernel, task: Task, kind: str, vpn: int, pages: int, stride: int | None, *, major: bool, at: int = -1) -> None:
    """One run of like faults; `at`: when, if not now."""
    k.emit(Fault(k.clock.now if at < 0 else at, task.pid, kind, major, vpn << 12, pages, stride, task.cgroup.path))


def faults(k: Kernel, task: Task, at: int, kind: int, vpn: int, n: int, step: int) -> None:
    """A run of faults of one kind, and what the processor has to forget for it."""
    emit_fault(k, task, KIND_NAMES[kind], vpn, n, step or None, major=False, at=at)
    if kind in (COW, ZERO_COW):
        k.tlb.cpus[task.cpu].local_one += n  # ptep_clear_flush; tlb.access walks again
    if kind in (HUGE, HUGE_SHMEM):
        k.emit(Thp(at, "alloc", n * PMD_PAGES, task.pid, (vpn & -PMD_PAGES) << 12, cgroup=task.cgroup.path))


def reads(k: Kernel, task: Task, at: int, slot: int, vpn: int, n: int, pages: int) -> None:
    """A run of reads from swap: `n` faults read `pages` pages."""
    k.emit(SwapIn(at, pages, swap_device(k, slot), slot, pages - n, task.cgroup.path, task.pid, vpn << 12, n))


def swap_device(k: Kernel, slot: int) -> int:
    """The swap area that a slot belongs to."""
    if len(k.swap_devices) == 1:
        return 0
    bases = k.s.swaps["base"][: len(k.swap_devices)].tolist()
    return max(area for area, base in enumerate(bases) if base <= slot)
