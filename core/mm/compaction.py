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

Who failed lately waits: after each failure of an order the next 2, 4, .. 64 requests do not try (`defer_compaction`).

Implementation. The scanners are page loops (`compact_scan`); which block next, and when to stop, is decided between them in
`compact_zone`. `State.cc` is the struct compact_control of the one that runs.

Simplified: no lock is ever contended; freed pages reach the buddy lists at once, not by way of per-CPU lists. Compound pages are stepped
over, as in Linux.

Source: mm/compaction.c, mm/vmstat.c:fragmentation_index, extfrag_for_order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.events import Compact
from core.mm import rmap_walk
from core.mm.compact_scan import (
    NEED_FREE_PAGES,
    PAGE_ALLOC_COSTLY_ORDER,
    cached_migrate,
    capture,
    fast_find_migrateblock,
    isolate_freepages,
    isolate_migratepages_block,
    migrate_batch,
    putback_movable_pages,
    release_freepages,
    reset_isolation_suitable,
    skip_marked,
    suitable_migration_source,
    would_succeed,
)
from core.mm.migrate import PGMIGRATE_FAIL, cache_roots
from core.mm.mm_types import (
    MAX_ORDER,
    MIGRATE_MOVABLE,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_NAMES,
    ZONES_PER_NODE,
    Array,
)
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel

COMPACT_MAX_DEFER_SHIFT = 6
VIA_COMPACT_MEMORY = -1  # the order of a compaction that wants no block, but everything compacted
HPAGE_FRAG_CHECK_INTERVAL_NS = 500_000_000

# enum compact_priority
PRIO_SYNC_FULL, PRIO_SYNC_LIGHT, PRIO_ASYNC = range(3)
# enum compact_result: the larger, the better for the request
NOT_SUITABLE_ZONE, SKIPPED, DEFERRED, NO_SUITABLE_PAGE, CONTINUE, COMPLETE, PARTIAL_SKIPPED, CONTENDED, SUCCESS = range(9)
RESULTS = (
    "not_suitable_zone", "skipped", "deferred", "no_suitable_page", "continue", "complete", "partial_skipped", "contended", "success",
)  # fmt: skip

MIGRATE_SCANNED, FREE_SCANNED = EVENT["compact_migrate_scanned"], EVENT["compact_free_scanned"]
STALL, FAIL, COMPACT_SUCCESS = (EVENT[f"compact_{name}"] for name in ("stall", "fail", "success"))
DAEMON_WAKE, DAEMON_MIGRATE_SCANNED, DAEMON_FREE_SCANNED = (EVENT[f"compact_daemon_{name}"] for name in ("wake", "migrate_scanned", "free_scanned"))


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


def reset_cached_positions(zone: Any) -> None:
    """The next compaction starts from the ends of the zone."""
    zone["compact_cached_migrate_pfn"] = zone["start_pfn"]
    zone["compact_cached_free_pfn"] = (int(zone["start_pfn"]) + int(zone["spanned"]) - 1) & ~(PAGEBLOCK_PAGES - 1)


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
