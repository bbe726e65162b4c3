"""Moving pages from node to node: mbind's MPOL_MF_MOVE, move_pages, migrate_pages, and cpusets (mm/mempolicy.c, mm/migrate.c).

A page moves by becoming another frame (`migrate`): a frame of the wanted node takes over its row, its place on the lists, in the page cache or
swap cache and in every page table that names it; the old frame is free. The cgroup pays for one page all the while, and each process's rss is
the same. Only what counts by node changes:

    node 0 -> node 1, a page of anonymous memory     AnonPages, Inactive(anon), MemFree of both; pgmigrate_success 1

Whose pages. A page that other processes map, too, stays, unless the caller says otherwise and may: with MPOL_MF_MOVE_ALL, for which one needs
CAP_SYS_NICE, it moves for all of them. migrate_pages of root does so by itself, as does a change of a cpuset's `mems`.

    A and B share 8 MiB after a fork, on node 0      A: move_pages to 1           every status is -EACCES
                                                     A: the same with move_all    every status is 1, in B's page table, too
    A: move_pages of 1,024 pages, two huge ones      1,022 times 1; the second of each is -EBUSY: its page was just gathered to be moved

A huge page moves as one (thp_migration_success). Where no 2 MiB can be had on the wanted node, not even by compaction, it is split and its
frames move one by one (thp_migration_split); those of shared memory, which nothing maps after a split, stay, where Linux would move them, too.
Pages of a pool of hugetlb: `hugetlb_migrate`.

The new frame comes as any other: from the free lists, else the loop stops and `gfp.alloc_pages` reclaims and compacts for it. What cannot
be had in the end, or is held by somebody who would not notice, stays where it is, and counts (pgmigrate_fail).

Source: queue_pages_range, migrate_folio_add, do_migrate_pages, do_pages_move, add_page_for_migration; fact NU-05, recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.mman import VM_HUGETLB
from core.abi.page_flags import PG_LRU
from core.jit import njit, step
from core.mm import gfp, hugetlb_migrate, memory, mempolicy, pgtable, rmap_walk
from core.mm.compound import PG_COMPOUND, compound_head, page_mapcount
from core.mm.fault import next_block
from core.mm.gfp_types import GFP_HIGHUSER_MOVABLE, GFP_RETRY_MAYFAIL, GFP_THISNODE, GFP_TRANSHUGE
from core.mm.huge_memory import alloc_hugepage_vma, huge_page_on, il_place, split_huge_page
from core.mm.hugetlb_migrate import STAYED
from core.mm.migrate import (
    PGMIGRATE_FAIL,
    PGMIGRATE_SUCCESS,
    cache_root,
    cache_roots,
    can_migrate,
    can_migrate_huge,
    is_free_to_go,
    migrate_huge_page,
    redirect,
    take_over,
)
from core.mm.mm_types import CTL_HUGE_ZERO, HPAGE_PMD_NR, HPAGE_PMD_ORDER, State
from core.mm.page_alloc import zone_of
from core.mm.page_ops import DONE, GFP_USER, NO_PAGE, alloc_by_policy, get_page_on
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, PTE_SPECIAL, find_pte_table, huge_entry
from core.mm.rmap_walk import Rmap
from core.mm.vma import vma_lookup, vmas_between
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array, Vma
    from core.sched.task import Task

THP_MIGRATION_SUCCESS, THP_MIGRATION_FAIL = EVENT["thp_migration_success"], EVENT["thp_migration_fail"]
THP_MIGRATION_SPLIT = EVENT["thp_migration_split"]
BY_POLICY = -1  # instead of a node: where the mapping's policy wants the page
NEVER = -1  # vmf.ready: no frame can be had
MOVED, FAILED, SINCE = range(3)  # vmf.count
# what became of a page: it moved; none is there; it lies well; others map it; it stays though it should not; try again, with a frame or in parts; it
# was gathered before
GONE, ABSENT, THERE, SHARED, BUSY, NO_FRAME, SPLIT, QUEUED = range(8)


# ---------------------------------------------------------------- one page


@step
def migrate_entry(s: State, r: Rmap, roots, v, vpn: int, sources: int, target: int, everybody: int) -> int:
    """The page that is mapped at `vpn` leaves the nodes of a mask for a node, or for where its mapping's policy wants it: what became of it."""
    pgd = s.mms[v["mm"]]["pgd"]
    tid = find_pte_table(s, pgd, vpn)
    entry = s.pt[tid, vpn & 511] if tid else huge_entry(s, pgd, vpn)
    pfn = (entry & PFN_MASK) >> 12
    if not entry & PTE_PRESENT or (tid and entry & PTE_SPECIAL) or pfn == s.ctl[CTL_HUGE_ZERO]:
        return ABSENT
    if not (sources >> s.zones[zone_of(s, pfn)]["node"]) & 1:
        return THERE
    pfn = compound_head(s, pfn)
    if not everybody and page_mapcount(s, pfn) > 1:
        return SHARED
    if s.mem[pfn]["flags"] & PG_COMPOUND:
        return migrate_huge(s, r, v, vpn, pfn, target)
    alone = s.mem[pfn]["mapcount"] == 1
    if not (is_free_to_go(s, pfn) if alone else can_migrate(s, r, pfn)):
        return fail(s, v, 1)
    new, v["ready"] = v["ready"], 0
    if new == 0:
        new = get_page_on(s, v, target, v["mark"], GFP_USER, 1 << target) if target >= 0 else alloc_by_policy(s, v, GFP_USER, vpn)
    if new <= 0:
        return NO_FRAME if new == 0 else fail(s, v, 1)
    root = cache_root(s, roots, pfn)
    if alone:  # no need to look for its only entry
        s.pt[tid, vpn & 511] = (entry & ~PFN_MASK) | (new << 12)
        s.mms[v["mm"]]["tlb_gen"] += 1
    else:
        redirect(s, r, pfn, new)
    take_over(s, root, pfn, new, s.mem[pfn]["flags"] & PG_LRU != 0)
    v["count"][MOVED] += 1
    s.vm_event[PGMIGRATE_SUCCESS] += 1
    return GONE


@step
def fail(s: State, v, nr: int) -> int:
    """A page of so many frames stays."""
    v["count"][FAILED] += 1
    s.vm_event[PGMIGRATE_FAIL] += nr
    return BUSY


@step
def migrate_huge(s: State, r: Rmap, v, vpn: int, head: int, target: int) -> int:
    """`migrate_entry` of a huge page: it moves whole, or comes apart so that its frames can move."""
    if not can_migrate_huge(s, r, head):
        s.vm_event[THP_MIGRATION_FAIL] += 1
        return fail(s, v, HPAGE_PMD_NR)
    new, v["ready"] = v["ready"], 0
    if new == 0:
        new = huge_page_on(s, v, target, 1 << target) if target >= 0 else alloc_hugepage_vma(s, v, il_place(v, vpn))
        if new == 0:
            v["thp"] = 1
            return NO_FRAME
    if new < 0:
        s.vm_event[THP_MIGRATION_FAIL] += 1
        if not split_huge_page(s, r, head):
            return fail(s, v, HPAGE_PMD_NR)
        s.vm_event[THP_MIGRATION_SPLIT] += 1
        return SPLIT
    migrate_huge_page(s, r, head, new)
    v["count"][MOVED] += HPAGE_PMD_NR
    s.vm_event[PGMIGRATE_SUCCESS] += HPAGE_PMD_NR
    s.vm_event[THP_MIGRATION_SUCCESS] += 1
    return GONE


# ---------------------------------------------------------------- many pages


@njit
def move_range(s: State, r: Rmap, roots, sources: int, target: int, everybody: int) -> None:
    """`migrate_entry` for the pages vmf.done .. vmf.n. vmf.reason: DONE, or NO_PAGE, and then vmf.ready is to have a frame (vmf.thp: a huge one)."""
    v = s.vmf[0]
    pgd = s.mms[v["mm"]]["pgd"]
    v["reason"], v["thp"] = DONE, 0
    vpn = v["done"]
    while vpn < v["n"]:
        if find_pte_table(s, pgd, vpn) == 0 and huge_entry(s, pgd, vpn) == 0:
            to = next_block(s, pgd, vpn, v["n"])
            vpn = to if to > vpn else (vpn | 511) + 1
            continue
        whole = find_pte_table(s, pgd, vpn) == 0
        fate = migrate_entry(s, r, roots, v, vpn, sources, target, everybody)
        if fate == NO_FRAME:
            v["reason"] = NO_PAGE
            break
        if fate != SPLIT:
            vpn = (vpn | 511) + 1 if whole else vpn + 1
    v["done"] = v["vpn"] = vpn


@njit
def move_listed(s: State, r: Rmap, roots, vpns, fates, heads, sources: int, target: int, everybody: int) -> None:
    """`migrate_entry` for vpns[vmf.done ..] of one mapping, and what became of each. It stops as `move_range` does.

    Linux gathers pages and moves them when it meets one that it cannot gather. One that was gathered already is not found on its list then:
    QUEUED. heads: what each place maps now, in place of a list of those gathered; vmf.count[SINCE]: from where on.
    """
    v = s.vmf[0]
    v["reason"], v["thp"] = DONE, 0
    i = v["done"]
    while i < len(vpns):
        fate = migrate_entry(s, r, roots, v, vpns[i], sources, target, everybody)
        if fate == NO_FRAME:
            v["reason"] = NO_PAGE
            break
        if fate == SPLIT:
            continue
        heads[i] = head_at(s, v, vpns[i]) if fate in (GONE, THERE) else 0
        if fate == THERE:
            for j in range(v["count"][SINCE], i):
                if heads[j] == heads[i]:
                    fate = QUEUED
        if fate != GONE:
            v["count"][SINCE] = i + 1
        fates[i] = fate
        i += 1
    v["done"] = i
    v["vpn"] = vpns[i] if i < len(vpns) else 0


@step
def head_at(s: State, v, vpn: int) -> int:
    """The page that is mapped at a place, by its first frame."""
    pgd = s.mms[v["mm"]]["pgd"]
    tid = find_pte_table(s, pgd, vpn)
    entry = s.pt[tid, vpn & 511] if tid else huge_entry(s, pgd, vpn)
    return compound_head(s, (entry & PFN_MASK) >> 12)


def begin(k: Kernel, task: Task, vma: Vma, start: int, end: int) -> None:
    """The question for a loop over pages of a mapping."""
    memory.begin(k, task, vma, memory.READ, start, 1, end, done=start)
    if mempolicy.keeps_policies(vma):
        mempolicy.ask_object(k, task, vma, start - vma.start + vma.pgoff)


def find_frame(k: Kernel, task: Task, target: int) -> None:
    """The free lists had no frame for the page at hand: reclaim and compact for one (alloc_migration_target, new_page). vmf.ready: it, or NEVER."""
    if gfp.steal(k) or gfp.node_reclaim(k, task):
        return
    v = k.s.vmf[0]
    huge = bool(v["thp"])
    node, nodes = (target, 1 << target) if target >= 0 else mempolicy.place(k, int(v["vpn"]), huge=huge)
    hard = GFP_TRANSHUGE if huge else GFP_HIGHUSER_MOVABLE | (0 if target >= 0 else GFP_RETRY_MAYFAIL)
    with gfp.saved(k):
        pfn = gfp.alloc_pages(k, task, HPAGE_PMD_ORDER if huge else 0, hard | (GFP_THISNODE if target >= 0 else 0), node=node, nodes=nodes)
    v["ready"] = pfn or NEVER


def spend(k: Kernel) -> int:
    """The time of what was moved; how many pages were not."""
    moved, failed = k.s.vmf[0]["count"][:2].tolist()
    k.clock.spend(moved * (k.costs.copy_page + k.costs.zap_pte))
    rmap_walk.settle(k)
    return int(failed)


def migrate(k: Kernel, task: Task, vma: Vma, start: int, end: int, sources: int, target: int = BY_POLICY, *, everybody: bool = False) -> int:
    """Move pages [start, end) of a mapping off the nodes of the mask `sources`: how many could not be moved.

    everybody: also those that other processes map (MPOL_MF_MOVE_ALL); else these are passed over, and do not count.
    """
    if vma.flags & VM_HUGETLB:
        return hugetlb_migrate.migrate_range(k, task, vma, start, end, sources, target, everybody=everybody)
    begin(k, task, vma, start, end)
    roots = cache_roots(k)
    while True:
        move_range(k.s, rmap_walk.tables(k), roots, sources, target, int(everybody))
        if int(k.s.vmf["reason"][0]) == DONE:
            return spend(k)
        find_frame(k, task, target)


def move_misplaced(k: Kernel, task: Task, start: int, end: int, nodes: Sequence[int], *, everybody: bool) -> int:
    """mbind with MPOL_MF_MOVE: pages of [start, end) on other nodes go where the new policy wants them; how many did not."""
    assert task.mm is not None
    sources = ((1 << k.nr_nodes) - 1) & ~sum(1 << node for node in set(nodes))
    inside = vmas_between(task.mm, start, end)
    return sum(migrate(k, task, vma, max(vma.start, start), min(vma.end, end), sources, everybody=everybody) for vma in inside if movable(vma))


def movable(vma: Vma) -> bool:
    """May pages of a mapping be moved (vma_migratable)?"""
    return not vma.special


def remap(node: int, old: Sequence[int], new: Sequence[int]) -> int:
    """The node that takes the place of `node`: the n-th of `old` becomes the n-th of `new`, round it (node_remap)."""
    return new[old.index(node) % len(new)]


def do_migrate_pages(k: Kernel, task: Task, old_nodes: Sequence[int], new_nodes: Sequence[int], *, everybody: bool) -> int:
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
            if movable(vma):
                failed += migrate(k, task, vma, vma.start, vma.end, 1 << source, target, everybody=everybody)


# ---------------------------------------------------------------- move_pages


def do_pages_move(k: Kernel, task: Task, vpns: Sequence[int], nodes: Sequence[int], *, everybody: bool) -> list[int]:
    """move_pages: the status of each page, its node or -errno. A page that had to stay ends the call: the list is shorter (do_pages_move)."""
    status: list[int] = []
    for first, last in runs(task, vpns, nodes):
        found = move_run(k, task, vpns[first:last], nodes[first], everybody=everybody)
        if STAYED in found:
            return status
        status += found
    return status


def runs(task: Task, vpns: Sequence[int], nodes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pages that follow each other in the list, of one mapping (or of none) and for one node: [first, last)."""
    assert task.mm is not None
    first = 0
    while first < len(vpns):
        vma, last = vma_lookup(task.mm, vpns[first]), first + 1
        while last < len(vpns) and nodes[last] == nodes[first] and vma is not None and vma.start <= vpns[last] < vma.end:
            last += 1
        yield first, last
        first = last


def move_run(k: Kernel, task: Task, vpns: Sequence[int], target: int, *, everybody: bool) -> list[int]:
    """`do_pages_move` for pages of one mapping."""
    assert task.mm is not None
    vma = vma_lookup(task.mm, vpns[0])
    if vma is None or not movable(vma):
        return [-int(Errno.EFAULT)] * len(vpns)
    elsewhere = ((1 << k.nr_nodes) - 1) & ~(1 << target)
    if vma.flags & VM_HUGETLB:
        return hugetlb_migrate.move_listed(k, task, vma, vpns, target, everybody=everybody)
    begin(k, task, vma, 0, len(vpns))
    k.s.vmf["done"][0] = 0
    pages: Array = np.array(vpns, np.int64)
    fates, heads = np.zeros((2, len(vpns)), np.int64)
    roots = cache_roots(k)
    while True:
        move_listed(k.s, rmap_walk.tables(k), roots, pages, fates, heads, elsewhere, target, int(everybody))
        if int(k.s.vmf["reason"][0]) == DONE:
            break
        find_frame(k, task, target)
    spend(k)
    answers = {GONE: target, THERE: target, SHARED: -int(Errno.EACCES), QUEUED: -int(Errno.EBUSY), BUSY: STAYED}
    return [answers[fate] if fate in answers else nothing_there(k, vma, vpn) for fate, vpn in zip(fates.tolist(), vpns, strict=True)]


@njit
def find_nodes(s: State, pgd: int, vpns, nodes) -> None:
    """The node of the page that is mapped at each place, -1 where there is none."""
    for i in range(len(vpns)):
        tid = find_pte_table(s, pgd, vpns[i])
        entry = s.pt[tid, vpns[i] & 511] if tid else huge_entry(s, pgd, vpns[i])
        pfn = (entry & PFN_MASK) >> 12
        there = entry & PTE_PRESENT and not (tid and entry & PTE_SPECIAL) and pfn != s.ctl[CTL_HUGE_ZERO]
        nodes[i] = s.zones[zone_of(s, pfn)]["node"] if there else -1


def do_pages_stat(k: Kernel, task: Task, vpns: Sequence[int]) -> list[int]:
    """move_pages without nodes: where each page is, its node or -errno (do_pages_stat_array)."""
    assert task.mm is not None
    status: list[int] = []
    for first, last in runs(task, vpns, [0] * len(vpns)):
        pages: Array = np.array(vpns[first:last], np.int64)
        nodes: Array = np.zeros(last - first, np.int64)
        vma = vma_lookup(task.mm, vpns[first])
        if vma is not None and vma.flags & VM_HUGETLB:
            status += hugetlb_migrate.nodes_of(k, vma, vpns[first:last])
            continue
        if vma is not None:
            find_nodes(k.s, int(k.s.mms["pgd"][task.mm.id]), pages, nodes)
        found = zip(nodes.tolist(), vpns[first:last], strict=True)
        status += [node if vma is not None and node >= 0 else nothing_there(k, vma, vpn) for node, vpn in found]
    return status


def nothing_there(k: Kernel, vma: Vma | None, vpn: int) -> int:
    """Why there is no page to move (no_page_table): -EFAULT outside every mapping, for a zero page, and in anonymous memory that has none.

    -ENOENT else. Swapped pages and holes of files are -ENOENT: a fault would bring them in.
    """
    if vma is None or vma.special:
        return -int(Errno.EFAULT)
    entry = pgtable.entry(k, vma.mm, vpn)
    if entry & PTE_PRESENT or (entry == 0 and vma.file is None):
        return -int(Errno.EFAULT)
    return -int(Errno.ENOENT)
