"""The hugetlb controller: how much of the pools a cgroup may use, and may have promised (mm/hugetlb_cgroup.c).

    hugetlb.2MB.max         pages in use; a fault that would pass it gets SIGBUS
    hugetlb.2MB.rsvd.max    promises; an mmap that would pass it gets ENOMEM. Never a signal: whoever got the mapping can use it

Worked example, max 4M: mmap of 16M of 2 MiB pages succeeds; two are touched; the third touch is a SIGBUS and one `max` in
hugetlb.2MB.events. With rsvd.max 4M the mmap itself fails.

A page or a promise is charged to the cgroup of the process that caused it and to all its ancestors, and uncharged from these when it is freed,
wherever the process is by then. Hugetlb pages are not part of memory.current. When a cgroup is removed its pages pass to the parent.

Source: mm/hugetlb_cgroup.c:__hugetlb_cgroup_charge_cgroup, hugetlb_cgroup_css_offline; fact CG-48.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mm.hugetlb_types import HugetlbCounter
from core.mm.mm_types import PAGE_COUNTER_MAX

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.hugetlb_types import Hstate, HugetlbPage, ResvMap
    from core.mm.memcontrol import Cgroup
    from core.sched.task import Task


def payer(task: Task | None) -> Cgroup | None:
    """The cgroup with the hugetlb controller that a process's pages are charged to; None: nobody pays (the root, the operator)."""
    at: Cgroup | None = task.cgroup if task is not None else None
    while at is not None and at.parent is not None and "hugetlb" not in at.controllers:
        at = at.parent
    return at if at is not None and at.parent is not None else None


def read(k: Kernel, cg: Cgroup, h: Hstate) -> HugetlbCounter:
    """A cgroup's counter to look at; one that never counted anything is not kept."""
    return cg.hugetlb.get(h.order) or HugetlbCounter(k.nr_nodes)


def counter(k: Kernel, cg: Cgroup, h: Hstate) -> HugetlbCounter:
    """A cgroup's counter to change."""
    return cg.hugetlb.setdefault(h.order, HugetlbCounter(k.nr_nodes))


def _line(cg: Cgroup | None) -> list[Cgroup]:
    """A cgroup and its ancestors below the root."""
    return cg.ancestors[:-1] if cg is not None else []


def try_charge(k: Kernel, cg: Cgroup | None, h: Hstate, pages: int, *, rsvd: bool) -> bool:
    """Charge small pages to a cgroup and its ancestors, or to none of them: False, with a `max` event."""
    usage, limit = ("rsvd_usage", "rsvd_max") if rsvd else ("usage", "max")
    line = [counter(k, at, h) for at in _line(cg)]
    if any(getattr(at, usage) + pages > getattr(at, limit) for at in line):
        line[0].max_events_local += 1
        for at in line:
            at.max_events += 1
        return False
    for at in line:
        setattr(at, usage, getattr(at, usage) + pages)
    return True


def uncharge(k: Kernel, cg: Cgroup | None, h: Hstate, pages: int, *, rsvd: bool) -> None:
    """Take small pages off a cgroup and its ancestors."""
    usage = "rsvd_usage" if rsvd else "usage"
    for one in _line(cg):
        at = counter(k, one, h)
        setattr(at, usage, getattr(at, usage) - pages)


def commit_charge(k: Kernel, cg: Cgroup | None, h: Hstate, page: HugetlbPage) -> None:
    """The page that was charged is this one (hugetlb_cgroup_commit_charge)."""
    page.cgroup = cg
    if cg is not None:
        counter(k, cg, h).by_node[page.node] += h.nr_pages


def uncharge_page(k: Kernel, h: Hstate, page: HugetlbPage) -> None:
    """A page goes back to the pool (hugetlb_cgroup_uncharge_page, _rsvd)."""
    if page.cgroup is not None:
        counter(k, page.cgroup, h).by_node[page.node] -= h.nr_pages
    uncharge(k, page.cgroup, h, h.nr_pages, rsvd=False)
    uncharge(k, page.cgroup_rsvd, h, h.nr_pages, rsvd=True)
    page.cgroup = page.cgroup_rsvd = None


def migrate_page(k: Kernel, h: Hstate, old: HugetlbPage, new: HugetlbPage) -> None:
    """A page becomes another: who paid for it pays for that one (hugetlb_cgroup_migrate)."""
    if old.cgroup is not None:
        by_node = counter(k, old.cgroup, h).by_node
        by_node[old.node] -= h.nr_pages
        by_node[new.node] += h.nr_pages
    new.cgroup, new.cgroup_rsvd = old.cgroup, old.cgroup_rsvd
    old.cgroup = old.cgroup_rsvd = None


def uncharge_regions(k: Kernel, h: Hstate, resv: ResvMap, start: int, end: int) -> None:
    """The promises of [start, end) of a file are gone: their payers pay no more (hugetlb_cgroup_uncharge_file_region)."""
    kept = []
    for low, high, cg in resv.payers:
        first, last = max(low, start), min(high, end)
        if first >= last:
            kept.append((low, high, cg))
            continue
        uncharge(k, cg, h, (last - first) * h.nr_pages, rsvd=True)
        kept += [piece for piece in ((low, first, cg), (last, high, cg)) if piece[0] < piece[1]]
    resv.payers = kept


def css_offline(k: Kernel, cg: Cgroup) -> None:
    """A cgroup is removed, or loses the controller: the parent takes its pages over (hugetlb_cgroup_move_parent)."""
    parent = payer_of_parent(cg)
    for h in k.hstates:
        for page in h.pages.values():
            if page.cgroup is cg:
                counter(k, cg, h).by_node[page.node] -= h.nr_pages
                counter(k, cg, h).usage -= h.nr_pages
                commit_charge(k, parent, h, page)
        if h.order in cg.hugetlb:
            cg.hugetlb[h.order].max = cg.hugetlb[h.order].rsvd_max = PAGE_COUNTER_MAX


def payer_of_parent(cg: Cgroup) -> Cgroup | None:
    """The parent, unless that is the root, which counts nothing."""
    return cg.parent if cg.parent is not None and cg.parent.parent is not None else None
