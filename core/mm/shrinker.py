"""Who keeps what memory could do without, and how much of it goes in one round of reclaim (mm/vmscan.c: do_shrink_slab).

Beside the LRU lists there are caches and queues that only their owners can shrink. Each says how many things it has (freeable) and gets rid of as
many as it is asked to. A round of priority p asks for

    delta = (freeable >> p) * 4 / seeks          with seeks = 2: 2/4096 of them at priority 12, twice as many as there are at priority 0

plus its share of what earlier rounds put off. What is not worth a batch is put off again, unless it is all there is:

    8 things at priority 12 .. 4     delta 0: nothing
    8 things at priority 3           delta 2: put off        at priority 2   delta 4: put off      at priority 1   8: all of them

Here they are two: huge pages of which a part was unmapped (`huge_memory.deferred_split_shrink`, per cgroup), and objects of shared memory whose last
huge page reaches beyond their end (`shmem_huge.shmem_unused_huge_scan`). The huge zero page has one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel

SEEKS = 2  # DEFAULT_SEEKS
SLABS_SCANNED = EVENT["slabs_scanned"]


def do_shrink_slab(k: Kernel, freeable: int, deferred: int, priority: int, batch: int, scan: Callable[[int], None]) -> int:
    """One round over one shrinker: `scan` gets rid of so many. What is put off now, to be given as `deferred` the next time."""
    delta = (freeable >> priority) * 4 // SEEKS
    total = min((deferred >> priority) + delta, 2 * freeable)
    scanned = 0
    while total >= batch or total >= freeable:
        nr = min(batch, total)
        scan(nr)
        total -= nr
        scanned += nr
    k.s.vm_event[SLABS_SCANNED] += scanned
    return max(0, min(deferred + delta - scanned, 2 * freeable))
