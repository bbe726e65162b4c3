"""Pages of a pool move from node to node: mbind, migrate_pages, move_pages, cpusets (mm/hugetlb.c, mm/migrate.c).

The new page is a free one of the wanted node's list, if the pool has one that nobody was promised; else one from the buddy allocator, which the pool
then keeps while the old one leaves it. Either way the pool has as many pages as before:

    node 0: 4 pages, 2 in use; node 1: 2 pages, free. The 2 move to node 1    node 0: 4 free; node 1: 2 in use
    the same, but node 1 has none                                            node 0: 2 free; node 1: 2 in use, two new ones

A page of 1 GiB moves only where the pool has a free one.

Source: mm/hugetlb.c:alloc_huge_page_nodemask, alloc_migrate_huge_page, move_hugetlb_state; mm/mempolicy.c:queue_pages_hugetlb.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from core.abi.errno import Errno
from core.abi.page_flags import PG_ANON
from core.mm import hugetlb, hugetlb_cgroup, hugetlb_share
from core.mm.hugetlb import hstate_vma, huge_node, zonelist_nodes
from core.mm.hugetlb_fault import entries, huge_pte, mapcount, pfn_of, set_huge_pte
from core.mm.migrate import PGMIGRATE_FAIL, PGMIGRATE_SUCCESS
from core.mm.pgtable import PFN_MASK

STAYED = -1000  # no status of move_pages: the call ends

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.hugetlb_types import Hstate, HugetlbPage
    from core.mm.mm_types import Vma
    from core.sched.task import Task


def migrate_range(k: Kernel, task: Task, vma: Vma, start: int, end: int, sources: int, target: int, *, everybody: bool) -> int:
    """`numa_migrate.migrate` for a mapping of hugetlb."""
    h, failed = hstate_vma(vma), 0
    for vpn, entry in entries(k, vma, start & -h.nr_pages, end):
        page = h.pages[pfn_of(entry)]
        alone = mapcount(k, page.pfn) == 1 and not hugetlb_share.is_shared(k, vma.mm, vpn)
        if sources >> page.node & 1 and (everybody or alone):
            failed += not migrate_page(k, task, vma, vpn, page, target)
    return failed


def migrate_page(k: Kernel, task: Task, vma: Vma, vpn: int, page: HugetlbPage, target: int) -> bool:
    """One page moves to a node, or (target < 0) where the mapping's policy wants it; False: there is no page for it."""
    h = hstate_vma(vma)
    fresh = find_page(k, task, h, vma, vpn, target)
    if fresh is None:
        k.s.vm_event[PGMIGRATE_FAIL] += h.nr_pages
        return False
    new, temporary = fresh
    redirect(k, h, page, new)
    mem, old = k.s.mem, page.pfn
    for column in ("flags", "content"):
        mem[column][new.pfn : new.pfn + h.nr_pages] = mem[column][old : old + h.nr_pages]
    for column in ("refcount", "mapping", "index"):
        mem[column][new.pfn] = mem[column][old]
    mem["index"][new.pfn + 1], mem["index"][old + 1] = mem["index"][old + 1], 0
    hugetlb_cgroup.migrate_page(k, h, page, new)
    new.restore_reserve, new.spool = page.restore_reserve, page.spool
    page.restore_reserve, page.spool = False, None
    give_back(k, h, page, new, temporary=temporary)
    k.s.vm_event[PGMIGRATE_SUCCESS] += h.nr_pages
    k.clock.spend(h.nr_pages * k.costs.copy_page + k.costs.zap_pte)
    return True


def find_page(k: Kernel, task: Task, h: Hstate, vma: Vma, vpn: int, target: int) -> tuple[HugetlbPage, bool] | None:
    """A page to move into, and whether it is new: the old one leaves the pool for it (alloc_huge_page_nodemask)."""
    node, nodes = (target, 1 << target) if target >= 0 else huge_node(k, task, vma, vpn)[:2]
    if h.available > 0:
        for one in zonelist_nodes(k, node, nodes):
            if h.free_lists[one]:
                return hugetlb.dequeue_huge_page(h, one), False
    page = None if h.gigantic else hugetlb.alloc_fresh_huge_page(k, task, h, node, nodes)
    return (page, True) if page is not None else None


def mappings(k: Kernel, h: Hstate, pfn: int) -> Iterator[tuple[Vma, int]]:
    """Every mapping that may show a page, and where."""
    owner, place = int(k.s.mem["mapping"][pfn]), int(k.s.mem["index"][pfn]) << h.order
    where = k.anon_vmas.get(owner) if k.s.mem["flags"][pfn] & PG_ANON else k.inodes.get(owner)
    for vma in list(where.vmas) if where is not None else ():
        vpn = vma.start + place - vma.pgoff
        if vma.start <= vpn < vma.end:
            yield vma, vpn


def redirect(k: Kernel, h: Hstate, page: HugetlbPage, new: HugetlbPage) -> None:
    """All entries of a page name the new one, and its file does."""
    for vma, vpn in mappings(k, h, page.pfn):
        pgd = int(k.s.mms["pgd"][vma.mm.id])
        entry = int(huge_pte(k.s, pgd, vpn, h.order))
        if entry and pfn_of(entry) == page.pfn:
            set_huge_pte(k.s, pgd, vpn, h.order, entry & ~PFN_MASK | new.pfn << 12)
            k.s.mms["tlb_gen"][vma.mm.id] += 1
    if not k.s.mem["flags"][page.pfn] & PG_ANON:
        k.inodes[int(k.s.mem["mapping"][page.pfn])].huge_pages[int(k.s.mem["index"][page.pfn])] = new.pfn


def give_back(k: Kernel, h: Hstate, page: HugetlbPage, new: HugetlbPage, *, temporary: bool) -> None:
    """The old page is free; where the new one came from outside the pool, it takes its place there, as surplus too (move_hugetlb_state)."""
    if not temporary:
        hugetlb.free_huge_page(k, h, page)
        return
    if h.surplus_node[page.node]:
        h.surplus_node[page.node] -= 1
        h.surplus_node[new.node] += 1
    hugetlb.update_and_free_page(k, h, page, surplus=False)


def nodes_of(k: Kernel, vma: Vma, vpns: Sequence[int]) -> list[int]:
    """move_pages without nodes: the node of each page, -ENOENT where there is none yet."""
    h, pgd = hstate_vma(vma), int(k.s.mms["pgd"][vma.mm.id])
    found = [int(huge_pte(k.s, pgd, vpn, h.order)) for vpn in vpns]
    return [h.pages[pfn_of(entry)].node if entry else -int(Errno.ENOENT) for entry in found]


def move_listed(k: Kernel, task: Task, vma: Vma, vpns: Sequence[int], target: int, *, everybody: bool) -> list[int]:
    """move_pages: a huge page is named by its first small one; any other is -EACCES as long as it has not moved (add_page_for_migration).

    Pages are gathered, and moved when one comes that is not.
    """
    h, status = hstate_vma(vma), list[int]()
    gathered: dict[int, tuple[int, HugetlbPage]] = {}  # by page of the mapping: where in the list, and what

    def move_gathered() -> None:
        for head, (at, page) in gathered.items():
            status[at] = target if migrate_page(k, task, vma, head, page, target) else STAYED
        gathered.clear()

    for vpn in vpns:
        node, head = nodes_of(k, vma, [vpn])[0], vpn & -h.nr_pages
        if node in (-int(Errno.ENOENT), target):
            status.append(node)
        elif vpn != head or (mapcount(k, pfn_at(k, h, vma, head)) > 1 and not everybody):
            status.append(-int(Errno.EACCES))
        elif head in gathered:
            status.append(-int(Errno.EBUSY))
        else:
            gathered[head] = (len(status), h.pages[pfn_at(k, h, vma, head)])
            status.append(target)
            continue
        move_gathered()
    move_gathered()
    return status


def pfn_at(k: Kernel, h: Hstate, vma: Vma, vpn: int) -> int:
    """The page that a mapping has at a place."""
    return pfn_of(int(huge_pte(k.s, int(k.s.mms["pgd"][vma.mm.id]), vpn, h.order)))
