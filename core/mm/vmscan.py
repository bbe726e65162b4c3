"""Reclaim, in the small: unmapped page cache from the cold end of the file lists (mm/vmscan.c).

A page of the cache can be had back when nobody maps it: clean, it is simply forgotten; dirty, it is written first. The
lists say where to look: the tail of inactive_file is what was used longest ago, and only when that is empty the tail of
active_file. What is mapped goes back to the head of its list.

    inactive_file   head  p9 p8 p7 ... p2 p1  tail  <- looked at first
    active_file     head  q4 q3 q2 q1         tail

Simplified, until the pressure mechanisms come: anonymous memory and mapped file pages stay (no swap-out, no rmap);
dirty pages are written here and now, where Linux wakes the flusher and waits; no priorities, no protection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.page_flags import PG_DIRTY, PG_MLOCKED, PG_PRIVATE, PG_SHMEM, PG_WRITEBACK
from core.events import Reclaim
from core.jit import njit
from core.mm import memcontrol, page_ops
from core.mm.mm_types import LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, State
from core.mm.page_alloc import zone_of
from core.mm.swap import list_add, list_del
from core.vmstat import EVENT, MEMCG, NR_WRITTEN, PGPGOUT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup

PAGE_NS = 400  # one page looked at, unmapped from its file and freed


def reclaim(k: Kernel, cg: Cgroup, nr: int, by: str | None = None) -> int:
    """Free up to `nr` pages charged below `cg` (the root: anywhere); how many were.

    by: "kswapd", "direct" or "memcg", for the counters; by default memcg for a limit, direct for the machine.
    """
    who = by or ("memcg" if cg.parent is not None else "direct")
    size = k.next_inode + 1
    roots, dropped, cleaned = (np.zeros(size, np.int64) for _ in range(3))
    for inode in k.inodes.values():
        roots[inode.id] = 0 if inode.shmem else inode.root
    total = 0
    for lru in (LRU_INACTIVE_FILE, LRU_ACTIVE_FILE):
        for at in memcontrol.subtree(k, cg, dying=True):
            for node in range(k.nr_nodes):
                if total < nr and k.s.lruvecs["nr"][at.id * k.nr_nodes + node][lru]:
                    total += _shrink(k, at, node, lru, nr - total, who, roots, dropped, cleaned)
    for inode in k.inodes.values():
        inode.nr_pages -= int(dropped[inode.id])
        inode.nr_dirty -= int(cleaned[inode.id])
    return total


def _shrink(k: Kernel, cg: Cgroup, node: int, lru: int, nr: int, by: str, roots: Any, dropped: Any, cleaned: Any) -> int:
    """One list: its event, its counters, its time."""
    answer = np.zeros(2, np.int64)
    shrink_list(k.s, cg.id * k.nr_nodes + node, lru, nr, roots, dropped, cleaned, k.machine.storage.buffers, answer)
    scanned, reclaimed = int(answer[0]), int(answer[1])
    suffix = "kswapd" if by == "kswapd" else "direct"
    for name, count in (("pgscan", scanned), ("pgsteal", reclaimed)):
        k.s.vm_event[EVENT[f"{name}_{suffix}"]] += count
        k.s.vm_event[EVENT[f"{name}_file"]] += count
        k.s.memcgs["stat"][cg.id, MEMCG[f"{name}_{suffix}"]] += count
    k.clock.spend(scanned * PAGE_NS)
    name = "inactive_file" if lru == LRU_INACTIVE_FILE else "active_file"
    if scanned:
        k.emit(Reclaim(k.clock.now, by, node, cg.path, 0, scanned, reclaimed, {name: [scanned, reclaimed]}))
    return reclaimed


@njit
def shrink_list(s: State, lruvec: int, lru: int, nr: int, roots, dropped, cleaned, block_heads: int, answer) -> None:
    """From the tail of one list, free up to `nr` pages; look at each page once. answer = [scanned, reclaimed]."""
    left = s.lruvecs[lruvec].nr[lru]
    pfn = s.lruvecs[lruvec].tail[lru]
    scanned, reclaimed = 0, 0
    while pfn and left > 0 and reclaimed < nr:
        before = s.mem[pfn].prev
        page = s.mem[pfn]
        scanned += 1
        left -= 1
        held = 2 if page["flags"] & PG_PRIVATE else 1
        root = roots[page.mapping]
        if page.mapcount > 0 or page.refcount > held or page["flags"] & (PG_WRITEBACK | PG_MLOCKED | PG_SHMEM) or root == 0:
            list_del(s, lruvec, lru, pfn)
            list_add(s, lruvec, lru, pfn)
        else:
            zid = zone_of(s, pfn)
            if page["flags"] & PG_DIRTY:
                page_ops.clear_dirty(s, zid, pfn)
                cleaned[page.mapping] += 1
                page_ops.stat_add(s, zid, page.memcg, NR_WRITTEN, 1)
                s.vm_event[PGPGOUT] += 4
            dropped[page.mapping] += 1
            leaf = page_ops.xa_leaf(s, root, page.index)
            page_ops.remove_from_page_cache(s, zid, leaf, pfn, block_heads)
            reclaimed += 1
        pfn = before
    answer[0], answer[1] = scanned, reclaimed
