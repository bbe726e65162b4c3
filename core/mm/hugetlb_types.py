"""The tables of hugetlb: a pool of one page size, its pages, subpools, and region maps (include/linux/hugetlb.h).

    Hstate        one page size: how many pages there are, are free, are promised, are surplus; by node, too
    HugetlbPage   one page that belongs to a pool, free or in use, named by its head frame
    ResvMap       which pages of a file (shared) or of a mapping (private) the promises are about: sorted, disjoint regions
    Subpool       a mount of hugetlbfs with `size=` or `min_size=`: a pool within the pool

A region map of pages [0, 4) and [6, 8) is `[[0, 4], [6, 8]]`. `region_chg` asks how many pages of a range are not in it, `region_add` puts the range
in and says how many were new, `region_del` takes it out and says how many were there:

    chg(2, 7) = 2        add(2, 7) = 2, the map is [[0, 8]]        del(1, 3) = 2, the map is [[0, 1], [3, 8]]

Of a *shared* mapping a region means "promised": it belongs to the file and stays as long as the file. Of a *private* one it means "promise
consumed": the map begins empty with the mapping, whose whole length is promised, and dies with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mm.mm_types import PAGE_COUNTER_MAX

if TYPE_CHECKING:
    from core.mm.memcontrol import Cgroup

NO_LIMIT = -1


class ResvMap:
    """Sorted, disjoint, non-adjacent regions [from, to) in huge pages (struct resv_map).

    `cgroup`: who pays for the promises of a private mapping. `payers`: who pays for which part of a file's, as (from, to, cgroup).
    """

    __slots__ = ("regions", "cgroup", "payers")

    def __init__(self) -> None:
        self.regions: list[list[int]] = []
        self.cgroup: Cgroup | None = None
        self.payers: list[tuple[int, int, Cgroup]] = []

    def region_count(self, start: int, end: int) -> int:
        """Pages of [start, end) that are in the map."""
        return sum(max(0, min(high, end) - max(low, start)) for low, high in self.regions)

    def region_chg(self, start: int, end: int) -> int:
        """Pages of [start, end) that are not in the map."""
        return end - start - self.region_count(start, end)

    def region_add(self, start: int, end: int) -> int:
        """Put [start, end) in; how many pages are new."""
        if start == end:
            return 0
        added = self.region_chg(start, end)
        joined = [start, end]
        others = []
        for low, high in self.regions:
            if high < joined[0] or low > joined[1]:
                others.append([low, high])
            else:
                joined = [min(low, joined[0]), max(high, joined[1])]
        self.regions = sorted([*others, joined])
        return added

    def region_del(self, start: int, end: int) -> int:
        """Take [start, end) out; how many pages were there."""
        removed = self.region_count(start, end)
        pieces = [piece for low, high in self.regions for piece in ([low, min(high, start)], [max(low, end), high])]
        self.regions = [[low, high] for low, high in pieces if low < high]
        return removed


class HugetlbCounter:
    """What the hugetlb controller keeps for a cgroup and a page size, in small pages (struct hugetlb_cgroup).

    usage: pages in use here and below; rsvd_usage: promises made, and pages in use that no promise covered. by_node: pages in use by this
    cgroup alone. max_events: how often `max` or `rsvd.max` refused, with those below; max_events_local: in this cgroup.
    """

    __slots__ = ("usage", "max", "rsvd_usage", "rsvd_max", "by_node", "max_events", "max_events_local")

    def __init__(self, nodes: int) -> None:
        self.usage = self.rsvd_usage = 0
        self.max = self.rsvd_max = PAGE_COUNTER_MAX
        self.by_node = [0] * nodes
        self.max_events = self.max_events_local = 0


class HugetlbPage:
    """A page of a pool (the head's page->private flags and hugetlb_cgroup pointers in Linux)."""

    __slots__ = ("pfn", "node", "restore_reserve", "spool", "cgroup", "cgroup_rsvd")

    def __init__(self, pfn: int, node: int) -> None:
        self.pfn = pfn
        self.node = node
        self.restore_reserve = False  # its allocation consumed a promise that freeing it before its first mapping gives back
        self.spool: Subpool | None = None
        self.cgroup: Cgroup | None = None
        self.cgroup_rsvd: Cgroup | None = None


class Subpool:
    """struct hugepage_subpool: counts in huge pages, -1 for no limit."""

    __slots__ = ("max_hpages", "used_hpages", "min_hpages", "rsv_hpages")

    def __init__(self, max_hpages: int, min_hpages: int) -> None:
        self.max_hpages = max_hpages
        self.min_hpages = min_hpages
        self.used_hpages = 0
        self.rsv_hpages = max(min_hpages, 0)  # of the guaranteed minimum, what nobody has taken

    def get_pages(self, delta: int) -> int:
        """Take `delta` pages out of the subpool; how many the pool itself must promise, -1 if `size=` is in the way."""
        if self.max_hpages != NO_LIMIT:
            if self.used_hpages + delta > self.max_hpages:
                return -1
            self.used_hpages += delta
        if self.min_hpages == NO_LIMIT or not self.rsv_hpages:
            return delta
        covered = min(delta, self.rsv_hpages)
        self.rsv_hpages -= covered
        return delta - covered

    def put_pages(self, delta: int) -> int:
        """Give `delta` pages back; how many promises of the pool are free again."""
        if self.max_hpages != NO_LIMIT:
            self.used_hpages -= delta
        if self.min_hpages == NO_LIMIT or self.used_hpages >= self.min_hpages:
            return delta
        kept = self.rsv_hpages + delta
        self.rsv_hpages = min(kept, self.min_hpages)
        return max(0, kept - self.min_hpages)


class Hstate:
    """The pool of one page size (struct hstate). Counts are in huge pages; lists have one entry a node."""

    __slots__ = ("order", "nr_huge_pages", "free_huge_pages", "resv_huge_pages", "surplus_huge_pages", "nr_overcommit_huge_pages",
                 "max_huge_pages", "nr_node", "free_node", "surplus_node", "next_nid_to_alloc", "next_nid_to_free", "free_lists",
                 "pages")  # fmt: skip

    def __init__(self, order: int, nodes: int) -> None:
        self.order = order
        self.nr_huge_pages = self.free_huge_pages = self.resv_huge_pages = self.surplus_huge_pages = 0
        self.nr_overcommit_huge_pages = 0
        self.max_huge_pages = 0  # what was asked for last, as far as it was got: the persistent ones
        self.nr_node, self.free_node, self.surplus_node = ([0] * nodes for _ in range(3))
        self.next_nid_to_alloc = self.next_nid_to_free = 0
        self.free_lists: list[list[int]] = [[] for _ in range(nodes)]  # by node, head frames; the last one is handed out next
        self.pages: dict[int, HugetlbPage] = {}  # all of them, by head frame

    @property
    def nr_pages(self) -> int:
        """Small pages that one page of this size holds (pages_per_huge_page)."""
        return 1 << self.order

    @property
    def size(self) -> int:
        """Bytes of one page."""
        return 4096 << self.order

    @property
    def gigantic(self) -> bool:
        """Too large for a block of the buddy allocator (hstate_is_gigantic)."""
        return self.order > 10

    @property
    def persistent(self) -> int:
        """Pages that stay in the pool when they are freed."""
        return self.nr_huge_pages - self.surplus_huge_pages

    @property
    def available(self) -> int:
        """Free pages that nobody has been promised."""
        return self.free_huge_pages - self.resv_huge_pages
