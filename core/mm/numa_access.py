"""What it costs that memory is far away.

An access to a page of another node takes longer, by the distance that the machine states (ACPI's SLIT, `machine.distances`): 10 is local, 20 twice as
long. With `Costs.access` of 2 ns:

    8,192 accesses to pages of one's own node       16.4 µs
    the same to a node at distance 20               32.8 µs
    half of them there (interleave over two)        24.6 µs

Simplified: there are no caches, so every access goes to memory; a machine with one node knows no distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.jit import njit
from core.mm.fault import F_PERM
from core.mm.mm_types import State
from core.mm.mmzone import cpu_to_node
from core.mm.page_alloc import zone_of
from core.mm.pgtable import PFN_MASK, PTE_P, PTE_PS, table_of

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array
    from core.sched.task import Task

LOCAL_DISTANCE = 10


@njit
def far_accesses(s: State, perm, done: int, distances) -> int:
    """Sum of what the accesses `done` .. vmf.done have of distance beyond 10, by the nodes of their pages."""
    v = s.vmf[0]
    first, step, end, permuted = v["first"], v["step"], v["done"], v["flags"] & F_PERM
    pgd, total = s.mms[v["mm"]]["pgd"], 0
    for i in range(done, end):
        vpn = first + (perm[i] if permuted else i * step)
        tid, shift, pte = pgd, 27, 0
        for _ in range(4):
            pte = s.pt[tid, (vpn >> shift) & 511]
            if pte == 0 or pte & PTE_PS or shift == 0:
                break
            tid = table_of(s, pte)
            shift -= 9
        if pte & PTE_P:
            pfn = ((pte & PFN_MASK) >> 12) + (vpn & ((1 << shift) - 1))
            total += distances[s.zones[zone_of(s, pfn)]["node"]] - 10
    return total


def spend(k: Kernel, task: Task, done: int, order: Array) -> None:
    """The accesses since `done` of the loop that has just run: the time that they took because their pages are far (on a machine with nodes)."""
    distances = np.array(k.machine.distances[cpu_to_node(k, task.cpu)], np.int64)
    k.clock.spend(int(far_accesses(k.s, order, done, distances)) * k.costs.access // LOCAL_DISTANCE)
