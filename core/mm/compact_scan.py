"""The two scanners of compaction: which pages are taken to be moved, and which free frames they move into (mm/compaction.c, the page loops).

    migrate scanner   upwards, a pageblock at a time: pages on LRU lists, 32 of them. Free blocks are stepped over, compound pages too
    free scanner      downwards: whole free blocks of Movable pageblocks, until there are as many frames as pages were taken

The free scanner looks at every frame of a pageblock as long as it finds some; if not, at every second of the next, every fourth, up to
every 32nd. So free frames that all have odd numbers are passed over: a recorded kernel moved 164 pages of 20,000 and called it complete.

Pageblocks in which nothing was found carry a skip mark until the scanners have met and started anew. What helps a large request most, a
pageblock with large free blocks, is looked for on the free lists first (`fast_find_migrateblock`, `fast_isolate_freepages`); how many
blocks of a list are looked at halves with each failure: 33, 17, 9, 5 ...

Implementation. `State.cc` is the struct compact_control of the compaction that runs; `pages` and `free` are its two lists, taken from the end.

Source: mm/compaction.c: isolate_migratepages_block, isolate_freepages, fast_isolate_freepages, fast_find_migrateblock, __reset_isolation_suitable.
"""

from __future__ import annotations

from core.abi.page_flags import PG_ANON, PG_HEAD, PG_LRU, PG_SWAPCACHE, PG_TAIL, PG_UNEVICTABLE
from core.jit import njit, step
from core.mm.compound import compound_order
from core.mm.migrate import PGMIGRATE_FAIL, PGMIGRATE_SUCCESS, can_migrate, migrate_page
from core.mm.mm_types import (
    CTL_BUDDY,
    MAX_ORDER,
    MIGRATE_MOVABLE,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PAGEBLOCK_SKIP,
    WMARK_MIN,
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

COMPACT_CLUSTER_MAX = 32
PAGE_ALLOC_COSTLY_ORDER = 3
MIGRATED, NEED_FREE_PAGES = 0, 1  # how `migrate_batch` ends
ISOLATED = EVENT["compact_isolated"]

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
