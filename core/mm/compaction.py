"""Compaction: free memory is there, but in crumbs; move pages until it is in one piece (mm/compaction.c).

Two scanners go through a zone towards each other:

    low end                                                                      high end
     |x.x.x.x.x.x.x.x.|x.x.x..x         ......             ..x.x.x.|xxxx.xxx|xxxxxxxx|
      migrate scanner ───>   takes movable pages        takes free frames   <─── free scanner

Every page that the one finds is moved (`migrate`) into a frame that the other found, 32 at a time, until they meet or until a free block of
the wanted order has come about. Worked example: 81,920 frames of which every second one is free: free pages 163,840 kB, the largest block 4
kB. After one compaction 40,960 pages lie at the high end, and the low end is 80 blocks of 2 MiB.

Who asks. A request of order > 0 that finds no block *compacts directly*, in its own time (`try_to_compact_pages`, `gfp`). *kcompactd* of a
node works beside the tasks, when kswapd has made room for a larger order and when too much of the free memory is in crumbs
(`compaction_proactiveness`). A write to /proc/sys/vm/compact_memory or to a node's `compact` moves everything at once.

How hard. *async* (a first direct attempt): only pageblocks of the wanted type, and a 2^order stretch is given up at the first page that
cannot move. *sync light* (the next attempts, kcompactd): every pageblock. *sync* (compact_memory): pays no heed to marks of failure either.

Whether. `compaction_suitable`: with 2 x 2^order frames above the low mark (a place to move to), and only if it is fragmentation that stands
in the way:

    fragmentation index = 1000 - (1000 + 1000 x free pages / 2^order) / free blocks        at most extfrag_threshold (500): lack of memory, reclaim
    30,000 free frames in 30,000 blocks, order 9:  1000 - (1000 + 58,593)/30,000 = 999      fragmentation: compact

Who failed lately waits: after each failure of an order the next 2, 4, .. 64 requests do not try (`defer_compaction`). Pageblocks in which
nothing was found carry a skip mark until the scanners have met and started anew. What helps a large request most, a pageblock with large
free blocks, is looked for on the free lists first (`fast_find_migrateblock`, `fast_isolate_freepages`).

The free scanner looks at every frame of a pageblock as long as it finds some; if not, at every second of the next, every fourth, up to
every 32nd. So free frames that all have odd numbers are passed over: a recorded kernel moved 164 pages of 20,000 and called it complete.

Implementation. The scanners are page loops; which block next, and when to stop, is decided between them in `compact_zone`. `State.cc` is
the struct compact_control of the one that runs.

Simplified: no lock is ever contended; freed pages reach the buddy lists at once, not by way of per-CPU lists. Compound pages are stepped
over, as in Linux.

Source: mm/compaction.c, mm/vmstat.c:fragmentation_index, extfrag_for_order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.page_flags import PG_ANON, PG_HEAD, PG_LRU, PG_SWAPCACHE, PG_TAIL, PG_UNEVICTABLE
from core.events import Compact
from core.jit import njit, step
from core.mm import rmap_walk
from core.mm.compound import compound_order
from core.mm.migrate import PGMIGRATE_FAIL, PGMIGRATE_SUCCESS, cache_roots, can_migrate, migrate_page
from core.mm.mm_types import (
    CTL_BUDDY,
    MAX_ORDER,
    MIGRATE_MOVABLE,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PAGEBLOCK_SKIP,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_NAMES,
    ZONES_PER_NODE,
    Array,
    State,
)
from core.mm.page_alloc import (
    add_to_free_list,
    buddy_order,
    can_steal_fallback,
    del_from_free_list,
    find_suitable_fallback,
    free_one_page,
    pageblock_type,
    set_pageblock_type,
)
from core.mm.rmap_walk import Rmap
from core.mm.swap import lru_add, lru_del
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel

COMPACT_CLUSTER_MAX = 32
COMPACT_MAX_DEFER_SHIFT = 6
PAGE_ALLOC_COSTLY_ORDER = 3
VIA_COMPACT_MEMORY = -1  # the order of a compaction that wants no block, but everything compacted
HPAGE_FRAG_CHECK_INTERVAL_NS = 500_000_000

# enum compact_priority
PRIO_SYNC_FULL, PRIO_SYNC_LIGHT, PRIO_ASYNC = range(3)
# enum compact_result: the larger, the better for the request
NOT_SUITABLE_ZONE, SKIPPED, DEFERRED, NO_SUITABLE_PAGE, CONTINUE, COMPLETE, PARTIAL_SKIPPED, CONTENDED, SUCCESS = range(9)
RESULTS = (
    "not_suitable_zone", "skipped", "deferred", "no_suitable_page", "continue", "complete", "partial_skipped", "contended", "success",
)  # fmt: skip
# how `migrate_batch` ends
MIGRATED, NEED_FREE_PAGES = 0, 1

MIGRATE_SCANNED, FREE_SCANNED, ISOLATED = (EVENT[f"compact_{name}"] for name in ("migrate_scanned", "free_scanned", "isolated"))
STALL, FAIL, COMPACT_SUCCESS = (EVENT[f"compact_{name}"] for name in ("stall", "fail", "success"))
DAEMON_WAKE, DAEMON_MIGRATE_SCANNED, DAEMON_FREE_SCANNED = (
    EVENT[f"compact_daemon_{name}"] for name in ("wake", "migrate_scanned", "free_scanned")
)


@dataclass(slots=True)
class Request:
    """What one compaction is for (the constant half of struct compact_control)."""

    order: int  # the block that is wanted; VIA_COMPACT_MEMORY: compact it all
    mode: int = PRIO_SYNC_LIGHT
    migratetype: int = MIGRATE_MOVABLE
    mark: int = WMARK_MIN  # the watermark that the request is held to
    classzone: int = 3
    by: str = "direct"
    whole_zone: bool = False
    ignore_skip_hint: bool = False
    ignore_block_suitable: bool = False
    proactive: bool = False

    @property
    def direct(self) -> bool:
        """Does a task wait for it?"""
        return self.by == "direct"


# ---------------------------------------------------------------- how fragmented is a zone


def contig_page_info(nr_free: Any, order: int) -> tuple[int, int, int]:
    """Free pages, free blocks, and how many blocks of `order` could be had (fill_contig_page_info)."""
    blocks = [int(n) for n in nr_free]
    pages = sum(n << k for k, n in enumerate(blocks))
    return pages, sum(blocks), sum(n << (k - order) for k, n in enumerate(blocks) if k >= order)


def fragmentation_index(nr_free: Any, order: int) -> int:
    """-1000: a block of `order` is free; towards 0: there is too little memory; towards 1000: it is in pieces that are too small."""
    pages, blocks, suitable = contig_page_info(nr_free, order)
    if blocks == 0:
        return 0
    if suitable:
        return -1000
    return 1000 - (1000 + pages * 1000 // (1 << order)) // blocks


def unusable_free_index(nr_free: Any, order: int) -> int:
    """The share of free memory that a request of `order` cannot use, in thousandths."""
    pages, _, suitable = contig_page_info(nr_free, order)
    if pages == 0:
        return 1000
    return (pages - (suitable << order)) * 1000 // pages


def extfrag_for_order(nr_free: Any, order: int) -> int:
    """The same in per cent; 0 without free memory."""
    pages, _, suitable = contig_page_info(nr_free, order)
    return (pages - (suitable << order)) * 100 // pages if pages else 0


def fragmentation_score_node(k: Kernel, node: int) -> int:
    """How much of a node's free memory is no use for huge pages: per cent, each zone weighted by its size."""
    zids = [zid for zid in k.populated if zid // ZONES_PER_NODE == node]
    present = sum(int(k.s.zones["present"][zid]) for zid in zids)
    return sum(int(k.s.zones["present"][zid]) * extfrag_for_order(k.s.zones["nr_free"][zid], PAGEBLOCK_ORDER) // (present + 1) for zid in zids)


def fragmentation_score_wmark(k: Kernel, low: bool) -> int:
    """The score at which proactive compaction stops (low) and starts."""
    mark = max(100 - int(k.sysctl["vm.compaction_proactiveness"]), 5)
    return mark if low else min(mark + 10, 100)


# ---------------------------------------------------------------- deferral


def defer_compaction(zone: Any, order: int) -> None:
    """It failed: the next 1 << compact_defer_shift requests of this order and above will not try."""
    zone["compact_considered"] = 0
    zone["compact_defer_shift"] = min(int(zone["compact_defer_shift"]) + 1, COMPACT_MAX_DEFER_SHIFT)
    zone["compact_order_failed"] = min(int(zone["compact_order_failed"]), order)


def compaction_deferred(zone: Any, order: int) -> bool:
    """Is it this request's turn to be passed over?"""
    if order < int(zone["compact_order_failed"]):
        return False
    limit = 1 << int(zone["compact_defer_shift"])
    zone["compact_considered"] += 1
    if int(zone["compact_considered"]) >= limit:
        zone["compact_considered"] = limit
        return False
    return True


def compaction_defer_reset(zone: Any, order: int, alloc_success: bool) -> None:
    """It succeeded, or is expected to: this order does not count as failed any more."""
    if alloc_success:
        zone["compact_considered"] = zone["compact_defer_shift"] = 0
    zone["compact_order_failed"] = max(int(zone["compact_order_failed"]), order + 1)


def compaction_restarting(zone: Any, order: int) -> bool:
    """Is it tried again after the longest wait?"""
    shift = int(zone["compact_defer_shift"])
    return order >= int(zone["compact_order_failed"]) and shift == COMPACT_MAX_DEFER_SHIFT and int(zone["compact_considered"]) >= 1 << shift


# ---------------------------------------------------------------- whether


def compact_gap(order: int) -> int:
    """Frames that a compaction for `order` should find free: as many to move into as the block is large, twice."""
    return 2 << order


def watermark_ok(zone: Any, order: int, mark: int, classzone: int, free: int) -> bool:
    """`__zone_watermark_ok` for a mark in pages and an assumed number of free pages."""
    if free - ((1 << order) - 1) <= mark + int(zone["lowmem_reserve"][classzone]):
        return False
    return order == 0 or bool(zone["nr_free"][order:].any())


def wmark_pages(zone: Any, mark: int) -> int:
    """A watermark with its boost."""
    return int(zone["wmark"][mark]) + int(zone["boost"])


def compaction_suitable(k: Kernel, zid: int, q: Request, free: int | None = None) -> int:
    """SUCCESS: the request would succeed as it is; SKIPPED: there is too little room to move pages, or that is not the problem; CONTINUE.

    `free`: free pages to reckon with, when reclaim is expected to help; then the fragmentation index is not asked.
    """
    zone = k.s.zones[zid]
    if q.order == VIA_COMPACT_MEMORY:
        return CONTINUE
    now = int(zone["free"]) if free is None else free
    if watermark_ok(zone, q.order, wmark_pages(zone, q.mark), q.classzone, int(zone["free"])):
        return SUCCESS
    mark = wmark_pages(zone, WMARK_LOW if q.order > PAGE_ALLOC_COSTLY_ORDER else WMARK_MIN) + compact_gap(q.order)
    if not watermark_ok(zone, 0, mark, q.classzone, now):
        return SKIPPED
    if free is None and q.order > PAGE_ALLOC_COSTLY_ORDER:
        index = fragmentation_index(zone["nr_free"], q.order)
        if 0 <= index <= int(k.sysctl["vm.extfrag_threshold"]):
            return SKIPPED
    return CONTINUE


# ---------------------------------------------------------------- skip marks


@step
def test_skip(s: State, pfn: int) -> bool:
    """Was nothing found in this pageblock the last time?"""
    return int(s.pageblocks[pfn >> PAGEBLOCK_ORDER]) & PAGEBLOCK_SKIP != 0


@step
def set_skip(s: State, pfn: int) -> None:
    """Mark a pageblock as not worth another look."""
    s.pageblocks[pfn >> PAGEBLOCK_ORDER] = int(s.pageblocks[pfn >> PAGEBLOCK_ORDER]) | PAGEBLOCK_SKIP


@step
def skip_persistent(s: State, pfn: int) -> bool:
    """Is the pageblock one huge page?"""
    if not s.mem[pfn]["flags"] & (PG_HEAD | PG_TAIL):
        return False
    head = s.mem[pfn]["private"] if s.mem[pfn]["flags"] & PG_TAIL else pfn
    return compound_order(s, head) >= PAGEBLOCK_ORDER


@step
def reset_isolation_pfn(s: State, zid: int, pfn: int, source: bool, target: bool) -> bool:
    """Take the skip mark off a pageblock that has a page to move (`source`) or a free frame (`target`): True if it can be a starting point."""
    zone = s.zones[zid]
    if skip_persistent(s, pfn):
        return False
    if source and target and not test_skip(s, pfn):
        return True
    if not source and target and pageblock_type(s, pfn) != MIGRATE_MOVABLE:
        return False
    at = max(pfn & ~(PAGEBLOCK_PAGES - 1), zone["start_pfn"])
    end = min((pfn | (PAGEBLOCK_PAGES - 1)) + 1, zone["start_pfn"] + zone["spanned"])
    while at < end:
        if (source and s.mem[at]["flags"] & PG_LRU) or (target and buddy_order(s, at) >= 0):
            s.pageblocks[pfn >> PAGEBLOCK_ORDER] = int(s.pageblocks[pfn >> PAGEBLOCK_ORDER]) & ~PAGEBLOCK_SKIP
            return True
        at += 1 << PAGE_ALLOC_COSTLY_ORDER
    return False


@njit
def reset_isolation_suitable(s: State, zid: int) -> None:
    """The scanners have met: all marks go, and the next compaction starts from the outermost pageblocks that are any use."""
    zone = s.zones[zid]
    zone["compact_blockskip_flush"] = 0
    migrate = zone["start_pfn"]
    free = zone["start_pfn"] + zone["spanned"] - 1
    first, last = free, migrate
    source, target = False, False
    while migrate < free:
        if reset_isolation_pfn(s, zid, migrate, True, source) and migrate < first:
            source = True
            first = migrate
            zone["compact_init_migrate_pfn"] = first
            zone["compact_cached_migrate_pfn"][0] = first
            zone["compact_cached_migrate_pfn"][1] = first
        if reset_isolation_pfn(s, zid, free, target, True) and free > last:
            target = True
            last = free
            zone["compact_init_free_pfn"] = last
            zone["compact_cached_free_pfn"] = last
        migrate += PAGEBLOCK_PAGES
        free -= PAGEBLOCK_PAGES
    if first >= last:
        zone["compact_cached_migrate_pfn"][0] = migrate
        zone["compact_cached_migrate_pfn"][1] = migrate
        zone["compact_cached_free_pfn"] = free


def reset_cached_positions(zone: Any) -> None:
    """The next compaction starts from the ends of the zone."""
    zone["compact_cached_migrate_pfn"] = zone["start_pfn"]
    zone["compact_cached_free_pfn"] = (int(zone["start_pfn"]) + int(zone["spanned"]) - 1) & ~(PAGEBLOCK_PAGES - 1)


# ---------------------------------------------------------------- the free scanner


@step
def isolate_free_page(s: State, zid: int, pfn: int, order: int) -> bool:
    """Take a free block off its list, unless that would go below the min mark. A large one's pageblock becomes Movable (__isolate_free_page)."""
    zone = s.zones[zid]
    if zone["free"] <= zone["wmark"][WMARK_MIN] + (1 << order):
        return False
    del_from_free_list(s, zid, order, pfn >> order)
    zone["free"] -= 1 << order
    if order >= PAGEBLOCK_ORDER - 1:
        for block in range(pfn, pfn + (1 << order), PAGEBLOCK_PAGES):
            set_pageblock_type(s, block, MIGRATE_MOVABLE)
    return True


@step
def keep_free_pages(s: State, free, pfn: int, order: int) -> None:
    """The frames of an isolated block join those to be moved into; the last one is used first (split_map_pages)."""
    c = s.cc[0]
    for i in range(1 << order):
        free[c["nr_freepages"]] = pfn + i
        c["nr_freepages"] += 1
    s.vm_event[ISOLATED] += 1 << order


@step
def isolate_freepages_block(s: State, free, start: int, end: int, stride: int):
    """Take the free blocks of a pageblock from `start`, looking at every `stride`-th frame, until there are enough.

    (how far it came, how many frames). What is isolated before all are enough waits for the end: the last block's last frame is used first.
    """
    c = s.cc[0]
    at, isolated, scanned = start, 0, 0
    while at < end:
        scanned += 1
        if s.mem[at]["flags"] & PG_HEAD:
            at += (1 << compound_order(s, at)) - 1 + stride
            continue
        order = buddy_order(s, at)
        if order < 0:
            at += stride
            continue
        if not isolate_free_page(s, c["zid"], at, order):
            break
        keep_free_pages(s, free, at, order)
        scanned += (1 << order) - 1
        isolated += 1 << order
        if c["nr_migratepages"] <= c["nr_freepages"]:
            at += 1 << order
            break
        at += (1 << order) - 1 + stride
    c["total_free_scanned"] += scanned
    return min(at, end), isolated


@step
def suitable_migration_target(s: State, pfn: int) -> bool:
    """A Movable pageblock that is not free as a whole."""
    if buddy_order(s, pfn) >= PAGEBLOCK_ORDER:
        return False
    return s.cc[0]["ignore_block_suitable"] != 0 or pageblock_type(s, pfn) == MIGRATE_MOVABLE


@step
def freelist_scan_limit(fail: int) -> int:
    """How many blocks of the free lists to look at; fewer after each failure."""
    return (COMPACT_CLUSTER_MAX >> min(fail, 31)) + 1


@step
def move_freelist_head(s: State, zid: int, order: int, block: int) -> None:
    """Those before a block go to the end of its (Movable) list: it is the head now."""
    base = s.ctl[CTL_BUDDY + order]
    zone = s.zones[zid]
    head, tail = zone["head"][MIGRATE_MOVABLE, order], zone["tail"][MIGRATE_MOVABLE, order]
    if head == block + 1:
        return
    end = -1 - MIGRATE_MOVABLE
    before = s.buddy[base + block, 1]
    s.buddy[base + tail - 1, 0] = head
    s.buddy[base + head - 1, 1] = tail
    s.buddy[base + before - 1, 0] = end
    s.buddy[base + block, 1] = end
    zone["head"][MIGRATE_MOVABLE, order] = block + 1
    zone["tail"][MIGRATE_MOVABLE, order] = before


@step
def fast_search_order(s: State, order: int) -> int:
    """The next order to search: downwards, round to the largest; -1 when all were (next_search_order)."""
    c = s.cc[0]
    order -= 1
    if order < 0:
        order = c["order"] - 1
    if order == c["search_order"]:
        c["search_order"] -= 1
        if c["search_order"] < 0:
            c["search_order"] = c["order"] - 1
        return -1
    return order


@step
def fast_isolate_freepages(s: State, free) -> None:
    """Look on the free lists for a block near the free scanner, best in the top quarter of what is left to scan."""
    c = s.cc[0]
    zone = s.zones[c["zid"]]
    limit = max(1, freelist_scan_limit(c["fast_search_fail"]) >> 1)
    scan_start = c["free_pfn"] >= zone["compact_init_free_pfn"]
    if scan_start:
        limit = PAGEBLOCK_PAGES >> 1
    distance = c["free_pfn"] - c["migrate_pfn"]
    low_pfn = (c["free_pfn"] - (distance >> 2)) & ~(PAGEBLOCK_PAGES - 1)
    min_pfn = (c["free_pfn"] - (distance >> 1)) & ~(PAGEBLOCK_PAGES - 1)
    c["search_order"] = min(c["order"] - 1, c["search_order"])
    order = c["search_order"]
    page, scanned, highest = 0, 0, 0
    while page == 0 and order >= 0:
        if zone["nr_free"][order] == 0:
            order = fast_search_order(s, order)
            continue
        seen, high_pfn, last = 0, 0, 0
        base = s.ctl[CTL_BUDDY + order]
        link = zone["tail"][MIGRATE_MOVABLE, order]
        while link > 0:
            seen += 1
            scanned += 1
            pfn = (link - 1) << order
            last = link
            if pfn >= highest:
                highest = max(pfn & ~(PAGEBLOCK_PAGES - 1), zone["start_pfn"])
            if pfn >= low_pfn:
                c["fast_search_fail"] = 0
                c["search_order"] = order
                page = pfn
                break
            if pfn >= min_pfn and pfn > high_pfn:
                high_pfn = pfn
                limit >>= 1
            if seen >= limit:
                break
            link = s.buddy[base + link - 1, 1]
        if page == 0 and high_pfn:
            page = high_pfn
            last = (high_pfn >> order) + 1
        if last > 0:
            move_freelist_head(s, c["zid"], order, last - 1)
        at = order
        if page:
            if isolate_free_page(s, c["zid"], page, order):
                keep_free_pages(s, free, page, order)
                scanned += (1 << order) - 1
            else:
                at = c["search_order"] + 1
                page = 0
        if seen >= limit:
            limit = max(1, limit >> 1)
        order = fast_search_order(s, at)
    if page == 0:
        c["fast_search_fail"] += 1
        if scan_start:
            if highest >= min_pfn:
                c["free_pfn"] = highest
                page = highest
            elif c["direct"]:
                c["free_pfn"] = min_pfn
                page = min_pfn
    if highest and highest >= zone["compact_cached_free_pfn"]:
        zone["compact_cached_free_pfn"] = highest - PAGEBLOCK_PAGES
    c["total_free_scanned"] += scanned
    if page:
        fast_isolate_around(s, free, page)


@step
def fast_isolate_around(s: State, free, pfn: int) -> None:
    """Where one free block is there may be others: the rest of its pageblock. Not in the cheapest mode."""
    c = s.cc[0]
    if c["nr_freepages"] >= c["nr_migratepages"] or (c["direct"] and not c["sync"]):
        return
    zone = s.zones[c["zid"]]
    start = max(pfn & ~(PAGEBLOCK_PAGES - 1), zone["start_pfn"])
    end = min((pfn | (PAGEBLOCK_PAGES - 1)) + 1, zone["start_pfn"] + zone["spanned"])
    isolate_freepages_block(s, free, start, end, 1)
    if c["nr_freepages"] < c["nr_migratepages"]:
        set_skip(s, start)


@njit
def isolate_freepages(s: State, free) -> None:
    """Find frames to move the isolated pages into, from the free scanner's place downwards."""
    c = s.cc[0]
    zone = s.zones[c["zid"]]
    if c["order"] > 0:
        fast_isolate_freepages(s, free)
        if c["nr_freepages"]:
            return
    at = c["free_pfn"]
    block = at & ~(PAGEBLOCK_PAGES - 1)
    end = min(block + PAGEBLOCK_PAGES, zone["start_pfn"] + zone["spanned"])
    low_pfn = (c["migrate_pfn"] | (PAGEBLOCK_PAGES - 1)) + 1
    stride = 1 if c["sync"] else COMPACT_CLUSTER_MAX
    while block >= low_pfn:
        if suitable_migration_target(s, block) and (c["ignore_skip_hint"] or not test_skip(s, block)):
            at, isolated = isolate_freepages_block(s, free, at, end, stride)
            if at == end:
                set_skip(s, block)
                if block < zone["compact_cached_free_pfn"]:
                    zone["compact_cached_free_pfn"] = block
            if c["nr_freepages"] >= c["nr_migratepages"]:
                if at >= end:
                    at = block - PAGEBLOCK_PAGES
                break
            if at < end:
                break
            stride = 1 if isolated else min(COMPACT_CLUSTER_MAX, stride << 1)
        end = block
        block -= PAGEBLOCK_PAGES
        at = block
    c["free_pfn"] = at


@njit
def release_freepages(s: State, free) -> int:
    """Give unused frames back: the highest of them."""
    c = s.cc[0]
    highest = 0
    while c["nr_freepages"] > 0:
        c["nr_freepages"] -= 1
        pfn = free[c["nr_freepages"]]
        highest = max(highest, pfn)
        free_one_page(s, c["zid"], pfn, 0)
    return highest


# ---------------------------------------------------------------- the migrate scanner


@njit
def fast_find_migrateblock(s: State) -> int:
    """A pageblock with a large free block, early in what is left to scan: few pages have to move to make it free. Where to start from."""
    c = s.cc[0]
    pfn = c["migrate_pfn"]
    zone = s.zones[c["zid"]]
    start = pfn & ~(PAGEBLOCK_PAGES - 1)
    if c["ignore_skip_hint"] or (pfn != zone["start_pfn"] and pfn != start) or c["order"] <= PAGE_ALLOC_COSTLY_ORDER:
        return pfn
    if c["direct"] and c["migratetype"] != MIGRATE_MOVABLE:
        return pfn
    limit = freelist_scan_limit(c["fast_search_fail"])
    distance = (c["free_pfn"] - pfn) >> 1
    if pfn != zone["start_pfn"]:
        distance >>= 2
    high_pfn = (pfn + distance) & ~(PAGEBLOCK_PAGES - 1)
    scanned, order, found = 0, c["order"] - 1, False
    while order >= PAGE_ALLOC_COSTLY_ORDER and not found and scanned < limit:
        base = s.ctl[CTL_BUDDY + order]
        link = zone["head"][MIGRATE_MOVABLE, order]
        while link > 0:
            block = link - 1
            scanned += 1
            if scanned > limit:
                move_freelist_tail(s, c["zid"], order, block)
                break
            at = block << order
            if at < high_pfn and not test_skip(s, at):
                move_freelist_tail(s, c["zid"], order, block)
                if c["fast_start_pfn"] >= 0:
                    c["fast_start_pfn"] = min(c["fast_start_pfn"], at) if c["fast_start_pfn"] else at
                pfn = max(at & ~(PAGEBLOCK_PAGES - 1), zone["start_pfn"])
                c["fast_search_fail"] = 0
                found = True
                set_skip(s, at)
                break
            link = s.buddy[base + block, 0]
        order -= 1
    c["total_migrate_scanned"] += scanned
    if not found:
        c["fast_search_fail"] += 1
        if c["fast_start_pfn"] > 0:
            c["migrate_pfn"] = c["fast_start_pfn"]
            c["fast_start_pfn"] = -1
        pfn = c["migrate_pfn"]
    return pfn


@step
def move_freelist_tail(s: State, zid: int, order: int, block: int) -> None:
    """A block and those before it go to the end of its (Movable) list."""
    after = s.buddy[s.ctl[CTL_BUDDY + order] + block, 0]
    if after > 0:
        move_freelist_head(s, zid, order, after - 1)


@step
def can_isolate(s: State, pfn: int) -> bool:
    """Is this a page that may be taken off its list to be moved?"""
    c = s.cc[0]
    page = s.mem[pfn]
    flags = page["flags"]
    if not flags & PG_LRU:
        return False
    if flags & PG_ANON and not flags & PG_SWAPCACHE and page["refcount"] > page["mapcount"]:
        return False
    return c["unevictable"] != 0 or not flags & PG_UNEVICTABLE


@njit
def isolate_migratepages_block(s: State, pages, low: int, end: int) -> bool:
    """Take the movable pages of [low, end), within one pageblock, off their lists, 32 of them or, when it is scanned again, all.

    In the cheapest mode a stretch of 2^order frames is given up when a page in it cannot move. False: give the whole compaction up.
    """
    c = s.cc[0]
    zid = c["zid"]
    zone = s.zones[zid]
    start, isolated, scanned, asked, marked = low, 0, 0, False, False
    give_up = c["direct"] and not c["sync"]
    size = 1 << max(c["order"], 0)
    next_skip = (low & ~(size - 1)) + size
    c["migrate_pfn"] = low
    while low < end:
        if give_up and low >= next_skip:
            if isolated:
                break
            next_skip = (low & ~(size - 1)) + size
        scanned += 1
        if not asked and low & (PAGEBLOCK_PAGES - 1) == 0:
            if not c["ignore_skip_hint"] and test_skip(s, low):
                low = end
                break
            asked = True
        order = buddy_order(s, low)
        if order >= 0:
            low += 1 << order
            continue
        if s.mem[low]["flags"] & PG_HEAD:
            low += (1 << compound_order(s, low)) - 1
        elif can_isolate(s, low):
            if not marked:
                marked = True
                if not c["ignore_skip_hint"] and low & (PAGEBLOCK_PAGES - 1) == 0:
                    if test_skip(s, low):
                        break
                    set_skip(s, low)
            lru_del(s, zid, low)
            pages[c["nr_migratepages"]] = low
            c["nr_migratepages"] += 1
            isolated += 1
            low += 1
            if c["nr_migratepages"] >= COMPACT_CLUSTER_MAX and not c["rescan"]:
                break
            continue
        if give_up:
            if isolated:
                putback(s, pages)
                isolated = 0
            if low < next_skip:
                low = next_skip - 1
                next_skip += size
        low += 1
    low = min(low, end)
    if low == end and (isolated == 0 or c["rescan"]):
        if asked and not marked:
            set_skip(s, start)
        update_cached_migrate(s, low)
    c["total_migrate_scanned"] += scanned
    s.vm_event[ISOLATED] += isolated
    c["migrate_pfn"] = low
    return zone["free"] >= 0


@step
def update_cached_migrate(s: State, pfn: int) -> None:
    """The next compaction need not begin before this pageblock's end."""
    c = s.cc[0]
    cached = s.zones[c["zid"]]["compact_cached_migrate_pfn"]
    pfn = (pfn | (PAGEBLOCK_PAGES - 1)) + 1
    cached[0] = max(cached[0], pfn)
    if c["sync"]:
        cached[1] = max(cached[1], pfn)


@step
def putback(s: State, pages) -> None:
    """Isolated pages that were not moved go back to the head of their lists."""
    c = s.cc[0]
    while c["nr_migratepages"] > 0:
        c["nr_migratepages"] -= 1
        lru_add(s, c["zid"], pages[c["nr_migratepages"]])


@njit
def putback_movable_pages(s: State, pages) -> None:
    """`putback`, callable from Python."""
    putback(s, pages)


@njit
def suitable_migration_source(s: State, pfn: int) -> bool:
    """In the cheapest mode only pageblocks of the request's own type; never one that is a huge page."""
    c = s.cc[0]
    if skip_persistent(s, pfn):
        return False
    return c["sync"] or not c["direct"] or pageblock_type(s, pfn) == c["migratetype"]


@njit
def skip_marked(s: State, pfn: int) -> bool:
    """`test_skip`, callable from Python."""
    return test_skip(s, pfn)


@njit
def cached_migrate(s: State, pfn: int) -> None:
    """`update_cached_migrate`, callable from Python."""
    update_cached_migrate(s, pfn)


# ---------------------------------------------------------------- moving, and what has come of it


@njit
def migrate_batch(s: State, r: Rmap, roots, pages, free) -> int:
    """Move the isolated pages, the last one first. NEED_FREE_PAGES: go on when there are frames again; what cannot move stays in `pages`."""
    c = s.cc[0]
    while c["left"] > 0:
        pfn = pages[c["left"] - 1]
        if c["nr_freepages"] == 0:
            return NEED_FREE_PAGES
        if can_migrate(s, r, pfn):
            c["nr_freepages"] -= 1
            migrate_page(s, r, roots, pfn, free[c["nr_freepages"]])
            c["migrated"] += 1
            s.vm_event[PGMIGRATE_SUCCESS] += 1
        else:
            c["failed"] += 1
            s.vm_event[PGMIGRATE_FAIL] += 1
            lru_add(s, c["zid"], pfn)
        c["left"] -= 1
    return MIGRATED


@njit
def capture(s: State, first: int, end: int) -> int:
    """A block of exactly the wanted order that the moves have made free, taken at once, before anybody else does: its first frame, or 0.

    If it merged into a larger one, the other half stays free (compaction_capture: Linux catches it before it merges).
    """
    c = s.cc[0]
    order, zid = c["order"], c["zid"]
    zone = s.zones[zid]
    pfn = first & ~((1 << order) - 1)
    while pfn < end:
        mt = pageblock_type(s, pfn)
        if order >= PAGEBLOCK_ORDER or mt != MIGRATE_MOVABLE:
            for k in range(order, MAX_ORDER):
                block = pfn >> k
                if s.buddy[s.ctl[CTL_BUDDY + k] + block, 0] == 0:
                    continue
                del_from_free_list(s, zid, k, block)
                while k > order:
                    k -= 1
                    add_to_free_list(s, zid, k, (pfn >> k) ^ 1, mt)
                zone["free"] -= 1 << order
                s.mem[pfn]["refcount"] = 1
                return pfn
        pfn += 1 << order
    return 0


@njit
def would_succeed(s: State) -> bool:
    """Is a block of the wanted order free, of the wanted type or of one that may be stolen from?"""
    c = s.cc[0]
    zone, mt = s.zones[c["zid"]], c["migratetype"]
    for order in range(c["order"], MAX_ORDER):
        if zone["head"][mt, order] > 0:
            return True
        if can_steal_fallback(order, mt) and find_suitable_fallback(s, c["zid"], order, mt) >= 0:
            return True
    return False


class Compaction:
    """One compaction of one zone: the loop that lets the two scanners run."""

    __slots__ = ("k", "q", "zid", "zone", "c", "pages", "free", "rmap", "roots", "captured")

    def __init__(self, k: Kernel, zid: int, q: Request) -> None:
        self.k, self.q, self.zid = k, q, zid
        self.zone, self.c = k.s.zones[zid], k.s.cc[0]
        self.pages: Array = np.zeros(2 * PAGEBLOCK_PAGES, np.int64)
        self.free: Array = np.zeros(4 << MAX_ORDER, np.int64)
        self.rmap, self.roots = rmap_walk.tables(k), cache_roots(k)
        self.captured = 0

    def begin(self) -> None:
        """Fill State.cc; the scanners start where they left off, or from the ends of the zone."""
        k, q, c, zone = self.k, self.q, self.c, self.zone
        k.s.cc[:] = np.zeros(1, k.s.cc.dtype)
        c["zid"], c["order"], c["migratetype"] = self.zid, q.order, q.migratetype
        c["sync"], c["sync_full"], c["direct"] = q.mode != PRIO_ASYNC, q.mode == PRIO_SYNC_FULL, q.direct
        c["ignore_skip_hint"], c["ignore_block_suitable"] = q.ignore_skip_hint, q.ignore_block_suitable
        c["unevictable"], c["search_order"] = int(k.sysctl["vm.compact_unevictable_allowed"]), q.order
        c["whole_zone"] = q.whole_zone
        start, end = int(zone["start_pfn"]), int(zone["start_pfn"]) + int(zone["spanned"])
        top = (end - 1) & ~(PAGEBLOCK_PAGES - 1)
        if q.whole_zone:
            c["migrate_pfn"], c["free_pfn"] = start, top
            return
        sync = int(c["sync"])
        if not start <= int(zone["compact_cached_free_pfn"]) < end:
            zone["compact_cached_free_pfn"] = top
        if not start <= int(zone["compact_cached_migrate_pfn"][sync]) < end:
            zone["compact_cached_migrate_pfn"] = start
        c["migrate_pfn"], c["free_pfn"] = zone["compact_cached_migrate_pfn"][sync], zone["compact_cached_free_pfn"]
        c["whole_zone"] = int(c["migrate_pfn"]) <= int(zone["compact_init_migrate_pfn"])

    def scanners_met(self) -> bool:
        """Has the free scanner reached the pageblock of the migrate scanner?"""
        return int(self.c["free_pfn"]) >> PAGEBLOCK_ORDER <= int(self.c["migrate_pfn"]) >> PAGEBLOCK_ORDER

    def finished(self) -> int:
        """CONTINUE, or how it ended (__compact_finished)."""
        q, c = self.q, self.c
        if self.scanners_met():
            reset_cached_positions(self.zone)
            if q.direct:
                self.zone["compact_blockskip_flush"] = 1
            return COMPLETE if c["whole_zone"] else PARTIAL_SKIPPED
        if q.proactive:
            if self.k.kswapd[int(self.zone["node"])]["awake"]:
                return PARTIAL_SKIPPED
            score = extfrag_for_order(self.zone["nr_free"], PAGEBLOCK_ORDER)
            return CONTINUE if score > fragmentation_score_wmark(self.k, True) else SUCCESS
        if q.order == VIA_COMPACT_MEMORY or int(c["migrate_pfn"]) & (PAGEBLOCK_PAGES - 1):
            return CONTINUE
        return SUCCESS if would_succeed(self.k.s) else CONTINUE

    def isolate(self) -> bool:
        """Take pages to move from the next pageblock that has some; False if none were found (isolate_migratepages)."""
        s, c, zone = self.k.s, self.c, self.zone
        low = int(fast_find_migrateblock(s))
        fast = low != int(c["migrate_pfn"]) and not int(c["fast_search_fail"])
        end = (low & ~(PAGEBLOCK_PAGES - 1)) + PAGEBLOCK_PAGES
        while end <= int(c["free_pfn"]):
            marked = not c["ignore_skip_hint"] and low & (PAGEBLOCK_PAGES - 1) == 0 and not fast and bool(skip_marked(s, low))
            if not marked:
                if suitable_migration_source(s, max(low, int(zone["start_pfn"]))):
                    isolate_migratepages_block(s, self.pages, low, end)
                    break
                cached_migrate(s, end)
            fast = False
            c["migrate_pfn"] = low = end
            end += PAGEBLOCK_PAGES
        return int(c["nr_migratepages"]) > 0

    def migrate(self) -> bool:
        """Move what is isolated; False when there are no more frames to move into."""
        s, c = self.k.s, self.c
        c["left"] = c["nr_migratepages"]
        while int(migrate_batch(s, self.rmap, self.roots, self.pages, self.free)) == NEED_FREE_PAGES:
            isolate_freepages(s, self.free)
            if int(c["nr_freepages"]) == 0:
                s.vm_event[PGMIGRATE_FAIL] += 1
                c["failed"] += 1
                c["nr_migratepages"] = c["left"]
                putback_movable_pages(s, self.pages)
                return False
        c["nr_migratepages"] = 0
        return True

    def run(self) -> int:
        """Until the scanners meet, or a block of the wanted order is free (compact_zone)."""
        s, q, c = self.k.s, self.q, self.c
        cached = self.zone["compact_cached_migrate_pfn"]
        keep_cached_equal = not c["sync"] and cached[0] == cached[1]
        last_migrated = 0
        while (result := self.finished()) == CONTINUE:
            at = int(c["migrate_pfn"])
            c["rescan"] = last_migrated >> PAGEBLOCK_ORDER == at >> PAGEBLOCK_ORDER
            c["failed"] = 0
            if not self.isolate():
                if keep_cached_equal:
                    cached[1] = cached[0]
                continue
            keep_cached_equal, last_migrated = False, at
            pages = self.pages[: int(c["nr_migratepages"])]
            first, end = int(pages.min()), int(pages.max()) + 1
            if not self.migrate() and not self.scanners_met():
                result = CONTENDED
                break
            if c["failed"] and q.direct and not c["sync"]:
                size = 1 << q.order
                c["migrate_pfn"] = (int(c["migrate_pfn"]) - 1) // size * size + size
                last_migrated = 0
            if q.direct and q.order > 0:
                self.captured = int(capture(s, first, end))
                if self.captured:
                    result = SUCCESS
                    break
        return result

    def finish(self, result: int) -> None:
        """Unused frames go back; counters, time, the event."""
        k, q, c, zone = self.k, self.q, self.c, self.zone
        highest = int(release_freepages(k.s, self.free)) & ~(PAGEBLOCK_PAGES - 1)
        if highest > int(zone["compact_cached_free_pfn"]):
            zone["compact_cached_free_pfn"] = highest
        scanned, looked, moved = int(c["total_migrate_scanned"]), int(c["total_free_scanned"]), int(c["migrated"])
        k.s.vm_event[MIGRATE_SCANNED] += scanned
        k.s.vm_event[FREE_SCANNED] += looked
        k.clock.spend((scanned + looked) * k.costs.compact_scan + moved * k.costs.migrate_page)
        k.emit(Compact(k.clock.now, int(zone["node"]), ZONE_NAMES[int(zone["type"])], q.order, q.by, scanned, looked, moved, RESULTS[result]))


def compact_zone(k: Kernel, zid: int, q: Request) -> tuple[int, int]:
    """Compact a zone as far as the request needs: the result, and the first frame of the block that was captured for it (0: none)."""
    result = compaction_suitable(k, zid, q)
    if result != CONTINUE:
        return result, 0
    if compaction_restarting(k.s.zones[zid], q.order):
        flush_skip_marks(k, zid)
    one = Compaction(k, zid, q)
    one.begin()
    result = one.run()
    one.finish(result)
    return result, one.captured


def flush_skip_marks(k: Kernel, zid: int) -> None:
    """Forget where nothing was found, if a direct compaction has gone through the whole zone since the last time."""
    if k.s.zones["compact_blockskip_flush"][zid]:
        reset_isolation_suitable(k.s, zid)


# ---------------------------------------------------------------- who asks


def try_to_compact_pages(k: Kernel, zids: list[int], q: Request) -> tuple[int, int]:
    """A request compacts zone after zone of its zonelist until it may succeed: the best result, and the captured block (0: none)."""
    best = SKIPPED
    for zid in zids:
        zone = k.s.zones[zid]
        if q.mode > PRIO_SYNC_FULL and compaction_deferred(zone, q.order):
            best = max(best, DEFERRED)
            continue
        result, captured = compact_zone(k, zid, q)
        best = max(best, result)
        if result == SUCCESS:
            compaction_defer_reset(zone, q.order, False)
            return best, captured
        if q.mode != PRIO_ASYNC and result in (COMPLETE, PARTIAL_SKIPPED):
            defer_compaction(zone, q.order)
    return best, 0


def direct_request(order: int, migratetype: int, classzone: int, prio: int) -> Request:
    """A task's own compaction at one of the three priorities."""
    full = prio == PRIO_SYNC_FULL
    return Request(order, prio if prio == PRIO_ASYNC else PRIO_SYNC_LIGHT, migratetype, WMARK_MIN, classzone, "direct", full, full, full)


def compact_node(k: Kernel, node: int, *, proactive: bool = False) -> None:
    """Compact every zone of a node as a whole (compact_node, proactive_compact_node)."""
    mode, by = (PRIO_SYNC_LIGHT, "kcompactd") if proactive else (PRIO_SYNC_FULL, "sysctl")
    for zid in k.populated:
        if zid // ZONES_PER_NODE == node:
            q = Request(VIA_COMPACT_MEMORY, mode, by=by, whole_zone=True, ignore_skip_hint=True, proactive=proactive)
            compact_zone(k, zid, q)


def compact_nodes(k: Kernel) -> None:
    """What a write to /proc/sys/vm/compact_memory does."""
    for node in range(k.nr_nodes):
        compact_node(k, node)


# ---------------------------------------------------------------- kcompactd


def wakeup_kcompactd(k: Kernel, node: int, order: int) -> None:
    """kswapd goes to sleep and somebody wanted a block of this order: kcompactd is to make one."""
    state = k.kcompactd[node]
    state["max_order"] = max(state["max_order"], order)
    if k.nr_programs and not state["armed"]:  # nobody waits for the end of a call
        k.clock.at(k.clock.now, f"kcompactd{node}")
        state["armed"] = True


def kcompactd_do_work(k: Kernel, node: int) -> None:
    """Compact the node's zones until a block of the wanted order is free in each."""
    order = k.kcompactd[node]["max_order"]
    k.kcompactd[node]["max_order"] = 0
    zids = [zid for zid in k.populated if zid // ZONES_PER_NODE == node]
    if not any(compaction_suitable(k, zid, Request(order, by="kcompactd")) == CONTINUE for zid in zids):
        return
    k.s.vm_event[DAEMON_WAKE] += 1
    for zid in zids:
        zone, q = k.s.zones[zid], Request(order, by="kcompactd", classzone=zid % ZONES_PER_NODE)
        if compaction_deferred(zone, order) or compaction_suitable(k, zid, q) != CONTINUE:
            continue
        result, _ = compact_zone(k, zid, q)
        if result == SUCCESS:
            compaction_defer_reset(zone, order, False)
        elif result in (PARTIAL_SKIPPED, COMPLETE):
            defer_compaction(zone, order)
        k.s.vm_event[DAEMON_MIGRATE_SCANNED] += int(k.s.cc["total_migrate_scanned"][0])
        k.s.vm_event[DAEMON_FREE_SCANNED] += int(k.s.cc["total_free_scanned"][0])


def should_proactive_compact_node(k: Kernel, node: int) -> bool:
    """Is so much of the free memory in crumbs that kcompactd should act before anybody asks?"""
    if not int(k.sysctl["vm.compaction_proactiveness"]) or k.kswapd[node]["awake"]:
        return False
    return fragmentation_score_node(k, node) > fragmentation_score_wmark(k, False)


def arm_kcompactd(k: Kernel) -> None:
    """Nodes that want proactive compaction get it at kcompactd's next look, twice a second; others need no timer."""
    for node in range(k.nr_nodes):
        state = k.kcompactd[node]
        if not state["armed"] and should_proactive_compact_node(k, node):
            due = (k.clock.now // HPAGE_FRAG_CHECK_INTERVAL_NS + 1) * HPAGE_FRAG_CHECK_INTERVAL_NS
            k.clock.at(max(due, state["not_before"]), f"kcompactd{node}")
            state["armed"] = True


def kcompactd(k: Kernel, node: int) -> None:
    """kcompactd's look at a node: compact if it is worth it; if that did not help, wait 32 seconds."""
    state = k.kcompactd[node]
    state["armed"] = False
    now = k.clock.now
    if state["max_order"]:
        kcompactd_do_work(k, node)
        k.clock.now = now
    if not should_proactive_compact_node(k, node):
        return
    before = fragmentation_score_node(k, node)
    compact_node(k, node, proactive=True)
    k.clock.now = now  # beside the tasks, not on their time
    useless = fragmentation_score_node(k, node) >= before
    state["not_before"] = now + (HPAGE_FRAG_CHECK_INTERVAL_NS << COMPACT_MAX_DEFER_SHIFT if useless else 0)
    arm_kcompactd(k)


def kcompactd_finish(k: Kernel) -> None:
    """A call is over and the machine idle: kcompactd does what it was woken for, and looks at the fragmentation if it is time to."""
    for node in range(k.nr_nodes):
        if k.kcompactd[node]["max_order"]:
            now = k.clock.now
            kcompactd_do_work(k, node)
            k.clock.now = now  # beside the tasks, not on their time
    if k.clock.now >= k.kcompactd[0]["look"]:
        k.kcompactd[0]["look"] = k.clock.now + HPAGE_FRAG_CHECK_INTERVAL_NS
        arm_kcompactd(k)
