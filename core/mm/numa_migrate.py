"""Moving pages from node to node: mbind's MPOL_MF_MOVE, move_pages, migrate_pages (mm/migrate.c, mm/mempolicy.c).

A page moves by becoming another frame: a frame of the wanted node takes over its row, its place on the lists, in the page cache or
swap cache and in the page table; the old frame is free. The cgroup pays for one page all the while, and the process's rss is the same.
Only what counts by node changes:

    node 0 -> node 1, a page of anonymous memory     AnonPages, Inactive(anon), MemFree of both; pgmigrate_success 1

A huge page moves as one (thp_migration_success), where the wanted node has a free block of 2 MiB.

Not moved: a page that others map, too (their entries would have to be found), one under writeback, and one for which the wanted node has no frame
above its low mark.

Source: migrate_page_add, do_migrate_pages, do_pages_move, folio_migrate_mapping; facts NU-05.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.page_flags import PG_HEAD, PG_LRU, PG_MLOCKED, PG_WRITEBACK
from core.jit import njit, step
from core.mm import memory, mempolicy
from core.mm.compound import (
    PG_COMPOUND,
    add_compound_mapcount,
    clear_compound_page,
    deferred_split_huge_page,
    is_deferred,
    prep_compound_page,
    undefer,
)
from core.mm.huge_memory import alloc_hugepage_vma, huge_page_on, il_place
from core.mm.huge_pmd import NR_ANON_THPS
from core.mm.mm_types import CTL_HUGE_ZERO, HPAGE_PMD_NR, HPAGE_PMD_ORDER, State
from core.mm.numa_move import move_page
from core.mm.page_alloc import free_one_page, zone_of
from core.mm.page_ops import DONE, GFP_USER, alloc_by_policy, get_page_on
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, PTE_SPECIAL, find_pte_table, find_table, huge_entry
from core.mm.swap import lru_add, lru_del
from core.mm.vma import vma_lookup, vmas_between
from core.vmstat import (
    EVENT,
    NR_ANON_MAPPED,
    NR_MLOCK,
)

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma
    from core.sched.task import Task

PGMIGRATE_SUCCESS, PGMIGRATE_FAIL = EVENT["pgmigrate_success"], EVENT["pgmigrate_fail"]
THP_MIGRATION_SUCCESS, THP_MIGRATION_FAIL = EVENT["thp_migration_success"], EVENT["thp_migration_fail"]
BY_POLICY = -1
MOVED, FAILED = 0, 1  # vmf.count


@step
def move_huge(s: State, v, pgd: int, vpn: int, sources: int, target: int) -> int:
    """A huge entry around `vpn`: its page moves whole, if nobody else maps it and the wanted node has 2 MiB. Where to go on."""
    stop = (vpn | 511) + 1
    entry = huge_entry(s, pgd, vpn)
    old = (entry & PFN_MASK) >> 12
    if old == 0 or old == s.ctl[CTL_HUGE_ZERO] or not (sources >> s.zones[zone_of(s, old)]["node"]) & 1:
        return stop
    new = 0
    if s.mem[old]["refcount"] == 1:
        new = huge_page_on(s, v, target, 1 << target) if target >= 0 else alloc_hugepage_vma(s, v, il_place(v, vpn))
    if new == 0:
        v["count"][FAILED] += 1
        s.vm_event[PGMIGRATE_FAIL] += HPAGE_PMD_NR
        s.vm_event[THP_MIGRATION_FAIL] += 1
        return stop
    before, after = zone_of(s, old), zone_of(s, new)
    page, to = s.mem[old], s.mem[new]
    flags, listed, waits = page["flags"], page["flags"] & PG_LRU, is_deferred(s, old)
    if listed:
        lru_del(s, before, old)
    undefer(s, old)
    prep_compound_page(s, new, HPAGE_PMD_ORDER, flags & ~(PG_HEAD | PG_LRU))
    add_compound_mapcount(s, new, 1)
    to["refcount"] = 1
    to["memcg"] = page["memcg"]
    to["mapping"] = page["mapping"]
    to["index"] = page["index"]
    for i in range(HPAGE_PMD_NR):
        s.mem[new + i]["content"] = s.mem[old + i]["content"]
    for node, zid in ((-1, before), (1, after)):
        s.node_stat[s.zones[zid]["node"], NR_ANON_MAPPED] += node * HPAGE_PMD_NR
        s.node_stat[s.zones[zid]["node"], NR_ANON_THPS] += node * HPAGE_PMD_NR
        if flags & PG_MLOCKED:
            s.zones[zid]["stat"][NR_MLOCK] += node * HPAGE_PMD_NR
    if waits:
        deferred_split_huge_page(s, new)
    if listed:
        lru_add(s, after, new)
    clear_compound_page(s, old, HPAGE_PMD_ORDER)
    free_one_page(s, before, old, HPAGE_PMD_ORDER)
    s.pt[find_table(s, pgd, vpn, 2), (vpn >> 9) & 511] = (entry & ~PFN_MASK) | (new << 12)
    s.mms[v["mm"]]["tlb_gen"] += 1
    v["count"][MOVED] += HPAGE_PMD_NR
    s.vm_event[PGMIGRATE_SUCCESS] += HPAGE_PMD_NR
    s.vm_event[THP_MIGRATION_SUCCESS] += 1
    return stop


@njit
def move_range(s: State, sources: int, target: int) -> None:
    """Move the pages of [vmf.first, vmf.n) that lie on the nodes of a mask: to a node, or where the mapping's policy wants them.

    vmf.count: MOVED, FAILED.
    """
    v = s.vmf[0]
    pgd = s.mms[v["mm"]]["pgd"]
    done = 0  # the 2 MiB up to here moved whole
    for vpn in range(v["first"], v["n"]):
        if vpn < done:
            continue
        tid = find_pte_table(s, pgd, vpn)
        if tid == 0:
            done = move_huge(s, v, pgd, vpn, sources, target)
            continue
        pte = s.pt[tid, vpn & 511]
        if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
            continue
        old = (pte & PFN_MASK) >> 12
        if not (sources >> s.zones[zone_of(s, old)]["node"]) & 1:
            continue
        new = 0
        if s.mem[old]["mapcount"] == 1 and not s.mem[old]["flags"] & (PG_WRITEBACK | PG_COMPOUND):
            if target >= 0:
                new = get_page_on(s, v, target, v["mark"], GFP_USER, 1 << target)
            else:
                new = alloc_by_policy(s, v, GFP_USER, vpn)
        if new == 0:
            v["count"][FAILED] += 1
            s.vm_event[PGMIGRATE_FAIL] += 1
            continue
        move_page(s, v, old, new)
        s.pt[tid, vpn & 511] = (pte & ~PFN_MASK) | (new << 12)
        s.mms[v["mm"]]["tlb_gen"] += 1
        v["count"][MOVED] += 1
        s.vm_event[PGMIGRATE_SUCCESS] += 1
    v["reason"] = DONE


def migrate(k: Kernel, task: Task, vma: Vma, start: int, end: int, sources: int, target: int = BY_POLICY) -> int:
    """Move pages [start, end) of a mapping off the nodes of the mask `sources`: how many could not be moved."""
    memory.begin(k, task, vma, memory.READ, start, 1, end)
    if mempolicy.keeps_policies(vma):
        mempolicy.ask_object(k, task, vma, start - vma.start + vma.pgoff)
    move_range(k.s, sources, target)
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
