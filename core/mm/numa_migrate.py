"""Moving pages from node to node: mbind's MPOL_MF_MOVE, move_pages, migrate_pages (mm/migrate.c, mm/mempolicy.c).

A page moves by becoming another frame: a frame of the wanted node takes over its row, its place on the lists, in the page cache or
swap cache and in the page table; the old frame is free. The cgroup pays for one page all the while, and the process's rss is the same.
Only what counts by node changes:

    node 0 -> node 1, a page of anonymous memory     AnonPages, Inactive(anon), MemFree of both; pgmigrate_success 1

Not moved: a page that others map, too (their entries would have to be found), one under writeback, and one for which the wanted node has no frame
above its low mark.

Source: migrate_page_add, do_migrate_pages, do_pages_move, folio_migrate_mapping; facts NU-05.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.page_flags import PG_LRU
from core.jit import njit
from core.mm import memory, rmap_walk
from core.mm.migrate import PGMIGRATE_FAIL, PGMIGRATE_SUCCESS, cache_roots, can_migrate, migrate_page
from core.mm.mm_types import State
from core.mm.page_alloc import zone_of
from core.mm.page_ops import DONE, GFP_USER, alloc_by_policy, get_page_on
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, PTE_SPECIAL, find_pte_table
from core.mm.rmap_walk import Rmap
from core.mm.vma import vma_lookup, vmas_between

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma
    from core.sched.task import Task

BY_POLICY = -1
MOVED, FAILED = 0, 1  # vmf.count


@njit
def move_range(s: State, r: Rmap, roots, sources: int, target: int) -> None:
    """Move the pages of [vmf.first, vmf.n) that lie on the nodes of a mask: to a node, or where the mapping's policy wants them.

    vmf.count: MOVED, FAILED.
    """
    v = s.vmf[0]
    pgd = s.mms[v["mm"]]["pgd"]
    for vpn in range(v["first"], v["n"]):
        tid = find_pte_table(s, pgd, vpn)
        pte = s.pt[tid, vpn & 511] if tid else 0
        if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
            continue
        old = (pte & PFN_MASK) >> 12
        if not (sources >> s.zones[zone_of(s, old)]["node"]) & 1:
            continue
        new = 0
        if s.mem[old]["mapcount"] == 1 and can_migrate(s, r, old):
            if target >= 0:
                new = get_page_on(s, v, target, v["mark"], GFP_USER, 1 << target)
            else:
                new = alloc_by_policy(s, v, GFP_USER, vpn)
        if new == 0:
            v["count"][FAILED] += 1
            s.vm_event[PGMIGRATE_FAIL] += 1
            continue
        migrate_page(s, r, roots, old, new, s.mem[old]["flags"] & PG_LRU != 0)
        v["count"][MOVED] += 1
        s.vm_event[PGMIGRATE_SUCCESS] += 1
    v["reason"] = DONE


def migrate(k: Kernel, task: Task, vma: Vma, start: int, end: int, sources: int, target: int = BY_POLICY) -> int:
    """Move pages [start, end) of a mapping off the nodes of the mask `sources`: how many could not be moved."""
    memory.begin(k, task, vma, memory.READ, start, 1, end)
    move_range(k.s, rmap_walk.tables(k), cache_roots(k), sources, target)
    v = k.s.vmf[0]
    k.clock.spend(int(v["count"][MOVED]) * (k.costs.copy_page + k.costs.zap_pte))
    return int(v["count"][FAILED])


def move_misplaced(k: Kernel, task: Task, start: int, end: int, nodes: Sequence[int]) -> int:
    """mbind with MPOL_MF_MOVE: pages of [start, end) on other nodes go where the new policy wants them; how many did not."""
    assert task.mm is not None
    sources = ((1 << k.nr_nodes) - 1) & ~sum(1 << node for node in set(nodes))
    return sum(migrate(k, task, vma, max(vma.start, start), min(vma.end, end), sources) for vma in vmas_between(task.mm, start, end))


def remap(node: int, old: Sequence[int], new: Sequence[int]) -> int:
    """The node that takes the place of `node`: the n-th of `old` becomes the n-th of `new`, round it (node_remap)."""
    return new[old.index(node) % len(new)]


def do_migrate_pages(k: Kernel, task: Task, old_nodes: Sequence[int], new_nodes: Sequence[int]) -> int:
    """Move all pages of a process from some nodes to others: how many could not be moved. EINVAL without a node to go to.

    A pair whose goal is no source itself goes first, so that no page moves twice.
    """
    assert task.mm is not None
    old, new = sorted(set(old_nodes)), sorted({node for node in new_nodes if node < k.nr_nodes})
    if not new:
        raise SysError(Errno.EINVAL, f"no such node: this machine has nodes 0 to {k.nr_nodes - 1}")
    left, failed = list(old), 0
    while True:
        pairs = [(node, remap(node, old, new)) for node in left if len(old) == len(new) or node not in new]
        pairs = [pair for pair in pairs if pair[0] != pair[1]]
        if not pairs:
            return failed
        source, target = next((pair for pair in pairs if pair[1] not in left), pairs[-1])
        left.remove(source)
        for vma in list(task.mm.vmas):
            failed += migrate(k, task, vma, vma.start, vma.end, 1 << source, target)


def move_one(k: Kernel, task: Task, vpn: int, node: int) -> bool:
    """move_pages of a page that is there: True if it lies on `node` now."""
    assert task.mm is not None
    vma = vma_lookup(task.mm, vpn)
    assert vma is not None
    return migrate(k, task, vma, vpn, vpn + 1, ((1 << k.nr_nodes) - 1) & ~(1 << node), node) == 0
