"""The buddy allocator: blocks of 2^order frames, split on allocation, merged on freeing (mm/page_alloc.c).

Each zone keeps one free list per order 0..10 and migrate type. A request takes the first block of the smallest list of its type
that can serve it and hands the upper halves back, order by order (`expand`): one frame out of an empty-but-for-one
4 MiB block leaves one free block of each order 0..9. Freeing looks at the *buddy*, the block whose number
differs in one bit (`pfn ^ (1 << order)`): if it is free at the same order the two become one block of the
next order, and so on up. Lists are last in, first out, so a frame just freed is the next one handed out, unless the buddy of the
block that it would merge into is free already: then it waits at the tail, because a little later it may be part of something larger
(`buddy_merge_likely`).

Migrate types keep pages that can move apart from those that cannot. Each *pageblock* of 2 MiB has a type: Unmovable (page tables,
stacks, slab that stays), Movable (user pages, page cache), Reclaimable (slab that can be shrunk). A frame goes back to the lists
of its pageblock's type. Where a type has nothing left it *steals* (`rmqueue_fallback`): the largest block of another type, in the
order of `FALLBACKS`, so that there will be few thefts.

    one page table, Unmovable empty, Movable has 4 MiB blocks      the 4 MiB block and both its pageblocks become Unmovable
    the same, but the largest Movable block is 16 KiB              it moves over with all other free frames of its pageblock; if those
                                                                   and what is unmovable there make half of it, the pageblock, too
    one user page, only Unmovable blocks smaller than 64 KiB left  the smallest is taken alone: user pages can move out again

A theft of less than a whole pageblock raises the zone's watermarks by one pageblock (`boost_watermark`), up to `max_boost`: kswapd then makes
room beforehand, so that the next theft may not be needed.

A watermark check comes first (`zone_watermark_ok`): free pages less the request must stay above the mark
plus the zone's lowmem reserve. Worked example, 512M: DMA32 min 649, low 811 pages: an ordinary request is
served while more than 811 + 0 pages are free; zone DMA keeps 427 more in reserve for those who can use
nothing else.

With several nodes the zones of all are asked in the order of a node's *zonelist*. Who was asked first and who gave is counted: a hit,
or a miss at the giver and a foreign at the one passed over (`zone_statistics`). A machine with ZONE_NORMAL and ZONE_DMA32 takes a block of the
right type in the lower zone before it steals less than a pageblock in the upper (`ALLOC_NOFRAGMENT`).

A theft is rare (4 MiB hold the page tables of 2 GiB), so the page loops leave it to Python, as every decision: `ask_for_theft` notes what was
wanted, and `rmqueue_fallback` runs before the loop goes on.

`vm.zone_reclaim_mode` has a request stay near: before it goes on from a zone below its mark to one of another node it reclaims 32 pages
there, clean page cache that nobody maps (1), dirty pages too (2), mapped ones too (4). Not if the node holds no more of it than min_unmapped_ratio
(1 %), and only on the CPU's own node. So a program that reads files goes on with the memory of its node, and evicts its own cache for it:

    two nodes of 256M, a file of 220M read on node 0       mode 0: about 25M of it lie on node 1      mode 1: none, 45M were dropped again

Whoever reclaims decides, so the loops leave that to Python, too: `ask_for_node_reclaim` notes the zone, `gfp.node_reclaim` does it.

Implementation. The links of order k lie in `State.buddy[ctl[CTL_BUDDY + k] + (pfn >> k)]` as (next, prev), as
block number + 1; 0 says "not a free block of this order". The ends of a list hold -1 - type, so that a block knows which list it
is on: after a theft of single blocks that is not always its pageblock's. So a booted, idle machine costs a
few kilobytes of links, and whether a buddy is free is one look. `State.pageblocks` has a byte a pageblock: its type, and compaction's skip mark.

Simplified: no per-CPU lists (a frame goes straight to its zone; MemFree differs from Linux by what those
would hold, at most `high` pages a CPU). Nobody here asks for pages in an interrupt, so no block is ever HighAtomic.

Source: mm/page_alloc.c: rmqueue, expand, __free_one_page, __rmqueue_fallback, steal_suitable_fallback, __zone_watermark_ok,
get_page_from_freelist.
"""

from __future__ import annotations

from core.abi.page_flags import PG_LRU
from core.jit import inline, njit, step
from core.mm.mm_types import (
    CTL_BUDDY,
    CTL_FAIL_NTH,
    CTL_NODE_RECLAIM,
    CTL_NODE_RECLAIMED,
    CTL_RECLAIM_MODE,
    CTL_STEAL,
    CTL_STEAL_ORDER,
    CTL_STEAL_TYPE,
    HPAGE_PMD_ORDER,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_FILE,
    MAX_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_TYPES,
    MIGRATE_UNMOVABLE,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PAGEBLOCK_TYPE,
    SECTION_SHIFT,
    ZONES_PER_NODE,
    State,
)
from core.vmstat import (
    NR_FILE_DIRTY,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_SLAB_RECLAIMABLE,
    NUMA_FOREIGN,
    NUMA_HIT,
    NUMA_LOCAL,
    NUMA_MISS,
    NUMA_OTHER,
    PGALLOC_DMA,
    PGFREE,
)

RECLAIM_ZONE, RECLAIM_WRITE, RECLAIM_UNMAP = 1, 2, 4  # vm.zone_reclaim_mode: reclaim at all, dirty pages too, mapped ones too

# by type: whose blocks are stolen, in this order
FALLBACKS = (
    (MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE),
    (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE),
    (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE),
)


@inline
def pageblock_type(s: State, pfn: int) -> int:
    """The migrate type of the pageblock that a frame lies in (get_pageblock_migratetype)."""
    return int(s.pageblocks[pfn >> PAGEBLOCK_ORDER]) & PAGEBLOCK_TYPE


@inline
def set_pageblock_type(s: State, pfn: int, mt: int) -> None:
    """Give a pageblock another type; its skip mark stays."""
    at = pfn >> PAGEBLOCK_ORDER
    s.pageblocks[at] = (int(s.pageblocks[at]) & ~PAGEBLOCK_TYPE) | mt


@inline
def is_free_block(s: State, pfn: int, order: int) -> bool:
    """Does a free block of this order begin at this frame?"""
    return s.buddy[s.ctl[CTL_BUDDY + order] + (pfn >> order), 0] != 0


@step
def buddy_order(s: State, pfn: int) -> int:
    """The order of the free block that begins at this frame, -1 if none does (PageBuddy, buddy_order)."""
    order = 0
    while order < MAX_ORDER and pfn & ((1 << order) - 1) == 0:
        if s.buddy[s.ctl[CTL_BUDDY + order] + (pfn >> order), 0] != 0:
            return order
        order += 1
    return -1


@inline
def add_to_free_list(s: State, zid: int, order: int, block: int, mt: int) -> None:
    """Put a block at the head of its zone's list of this type."""
    base = s.ctl[CTL_BUDDY + order]
    zone = s.zones[zid]
    head = zone.head[mt, order]
    end = -1 - mt
    s.buddy[base + block, 1] = end
    if head > 0:
        s.buddy[base + block, 0] = head
        s.buddy[base + head - 1, 1] = block + 1
    else:
        s.buddy[base + block, 0] = end
        zone.tail[mt, order] = block + 1
    zone.head[mt, order] = block + 1
    zone.nr_free[order] += 1


@inline
def add_to_free_list_tail(s: State, zid: int, order: int, block: int, mt: int) -> None:
    """Put a block at the tail, where it is taken last."""
    base = s.ctl[CTL_BUDDY + order]
    zone = s.zones[zid]
    tail = zone.tail[mt, order]
    end = -1 - mt
    s.buddy[base + block, 0] = end
    if tail > 0:
        s.buddy[base + block, 1] = tail
        s.buddy[base + tail - 1, 0] = block + 1
    else:
        s.buddy[base + block, 1] = end
        zone.head[mt, order] = block + 1
    zone.tail[mt, order] = block + 1
    zone.nr_free[order] += 1


@inline
def del_from_free_list(s: State, zid: int, order: int, block: int) -> None:
    """Take a block out of its list, whichever that is and wherever it stands in it."""
    base = s.ctl[CTL_BUDDY + order]
    zone = s.zones[zid]
    after = s.buddy[base + block, 0]
    before = s.buddy[base + block, 1]
    if before > 0:
        s.buddy[base + before - 1, 0] = after
    else:
        zone.head[-1 - before, order] = after if after > 0 else 0
    if after > 0:
        s.buddy[base + after - 1, 1] = before
    else:
        zone.tail[-1 - after, order] = before if before > 0 else 0
    s.buddy[base + block, 0] = 0
    s.buddy[base + block, 1] = 0
    zone.nr_free[order] -= 1


@inline
def zone_watermark_ok(s: State, zid: int, order: int, mark: int, classzone: int) -> bool:
    """True if `zone` can give 2^order pages and stay above `mark`; order > 0 needs a block that large."""
    zone = s.zones[zid]
    free = zone.free - ((1 << order) - 1)
    if free <= zone.wmark[mark] + zone.boost + zone.lowmem_reserve[classzone]:
        return False
    if order == 0:
        return True
    return has_free_block(s, zid, order)


@step
def has_free_block(s: State, zid: int, order: int) -> bool:
    """Is a block of at least this order free, of a type that anybody may use?"""
    zone = s.zones[zid]
    for k in range(order, MAX_ORDER):
        if zone.nr_free[k] > 0:
            for mt in range(MIGRATE_HIGHATOMIC):
                if zone.head[mt, k] > 0:
                    return True
    return False


@inline
def rmqueue(s: State, zid: int, order: int, mt: int) -> int:
    """Take 2^order frames from the zone's lists of a migrate type: the first frame, or 0 when none of its blocks is large enough."""
    zone = s.zones[zid]
    for k in range(order, MAX_ORDER):
        head = zone.head[mt, k]
        if head == 0:
            continue
        block = head - 1
        del_from_free_list(s, zid, k, block)
        pfn = block << k
        while k > order:
            k -= 1
            add_to_free_list(s, zid, k, (pfn >> k) + 1, mt)
        zone.free -= 1 << order
        s.vm_event[PGALLOC_DMA + zone.type] += 1 << order
        return pfn
    return 0


# ---------------------------------------------------------------- stealing: a decision of its own, made between the loops


@inline
def ask_for_theft(s: State, zid: int, order: int, mt: int) -> bool:
    """A zone has room, but not in blocks of the wanted type: note it for `rmqueue_fallback`. True if the next zone is to be asked first.

    That is so where part of a pageblock would have to be stolen while a lower zone of the node may have what is wanted.
    """
    zone = s.zones[zid]
    whole = zone.nr_free[PAGEBLOCK_ORDER] + zone.nr_free[PAGEBLOCK_ORDER + 1] > 0
    if whole or s.ctl[CTL_STEAL] == 0:
        s.ctl[CTL_STEAL] = zid + 1
        s.ctl[CTL_STEAL_ORDER] = order
        s.ctl[CTL_STEAL_TYPE] = mt
    return zone.nofragment != 0 and not whole


@step
def can_steal_fallback(order: int, mt: int) -> bool:
    """May a request steal a whole pageblock for the sake of a free block of this order? Movable ones only for large blocks."""
    return order >= PAGEBLOCK_ORDER // 2 or mt != MIGRATE_MOVABLE


@step
def find_suitable_fallback(s: State, zid: int, order: int, mt: int) -> int:
    """The type whose list of this order is the first to steal from, -1 if none has a block."""
    zone = s.zones[zid]
    if zone.nr_free[order] == 0:
        return -1
    for i in range(2):
        other = FALLBACKS[mt][i]
        if zone.head[other, order] > 0:
            return other
    return -1


@njit
def rmqueue_fallback(s: State) -> bool:
    """Move free blocks of another type to the lists that a request found empty (State.ctl says which): False if there are none.

    The largest block first; but a movable request that may not have the whole pageblock takes the smallest that will do.
    """
    zid, order, mt = s.ctl[CTL_STEAL] - 1, s.ctl[CTL_STEAL_ORDER], s.ctl[CTL_STEAL_TYPE]
    s.ctl[CTL_STEAL] = 0
    at = MAX_ORDER - 1
    while at >= order and find_suitable_fallback(s, zid, at, mt) < 0:
        at -= 1
    if at < order:
        return False
    if not can_steal_fallback(at, mt) and at > order:
        at = order
        while find_suitable_fallback(s, zid, at, mt) < 0:
            at += 1
    block = s.zones[zid].head[find_suitable_fallback(s, zid, at, mt), at] - 1
    steal_suitable_fallback(s, zid, block << at, at, mt, can_steal_fallback(at, mt))
    return True


@step
def steal_suitable_fallback(s: State, zid: int, pfn: int, order: int, mt: int, whole: bool) -> None:
    """One free block changes over to type `mt`, with its whole pageblock where that is worth it."""
    old = pageblock_type(s, pfn)
    if order >= PAGEBLOCK_ORDER:
        for block in range(pfn, pfn + (1 << order), PAGEBLOCK_PAGES):
            set_pageblock_type(s, block, mt)
        move_to_free_list(s, zid, order, pfn >> order, mt)
        return
    boost_watermark(s, zid)
    if not whole:
        move_to_free_list(s, zid, order, pfn >> order, mt)
        return
    free, movable = move_freepages_block(s, zid, pfn, mt)
    if free == 0:
        move_to_free_list(s, zid, order, pfn >> order, mt)
        return
    alike = 0
    if mt == MIGRATE_MOVABLE:
        alike = movable
    elif old == MIGRATE_MOVABLE:
        alike = PAGEBLOCK_PAGES - free - movable
    if free + alike >= PAGEBLOCK_PAGES // 2:
        set_pageblock_type(s, pfn, mt)


@step
def move_to_free_list(s: State, zid: int, order: int, block: int, mt: int) -> None:
    """A free block changes lists; at the tail of the new one, not to be taken at once."""
    del_from_free_list(s, zid, order, block)
    add_to_free_list_tail(s, zid, order, block, mt)


@step
def move_freepages_block(s: State, zid: int, pfn: int, mt: int):
    """All free blocks of a pageblock go to the lists of `mt`: (frames moved, movable frames seen). (0, 0) where the zone ends inside."""
    zone = s.zones[zid]
    at = pfn & ~(PAGEBLOCK_PAGES - 1)
    end = at + PAGEBLOCK_PAGES
    if end > zone.start_pfn + zone.spanned:
        return 0, 0
    if at < zone.start_pfn:
        at = pfn
    free, movable = 0, 0
    while at < end:
        order = buddy_order(s, at)
        if order < 0:
            if s.mem[at]["flags"] & PG_LRU:
                movable += 1
            at += 1
            continue
        move_to_free_list(s, zid, order, at >> order, mt)
        free += 1 << order
        at += 1 << order
    return free, movable


@step
def boost_watermark(s: State, zid: int) -> None:
    """A theft fragments memory: the marks rise by a pageblock, and kswapd is to wake (`boosted`)."""
    zone = s.zones[zid]
    if zone.max_boost > 0:
        zone.boost = min(zone.boost + PAGEBLOCK_PAGES, zone.max_boost)
        zone.boosted = 1


@inline
def zone_of(s: State, pfn: int) -> int:
    """The row of the zone that holds this frame (page_zone)."""
    return int(s.sections[pfn >> SECTION_SHIFT])


@inline
def free_one_page(s: State, zid: int, pfn: int, order: int) -> None:
    """Give 2^order frames back and merge with free buddies as far up as possible; the block's list is its pageblock's."""
    zone = s.zones[zid]
    zone.free += 1 << order
    s.vm_event[PGFREE] += 1 << order
    if order == HPAGE_PMD_ORDER:
        zone.huge_freed += 1
    mt = pageblock_type(s, pfn)
    while order < MAX_ORDER - 1:
        buddy = (pfn >> order) ^ 1
        if s.buddy[s.ctl[CTL_BUDDY + order] + buddy, 0] == 0:
            break
        first = buddy << order
        if first < zone.start_pfn or first >= zone.start_pfn + zone.spanned:
            break
        del_from_free_list(s, zid, order, buddy)
        pfn &= ~(1 << order)
        order += 1
    if order < MAX_ORDER - 2 and s.buddy[s.ctl[CTL_BUDDY + order + 1] + ((pfn >> (order + 1)) ^ 1), 0] != 0:
        add_to_free_list_tail(s, zid, order, pfn >> order, mt)
    else:
        add_to_free_list(s, zid, order, pfn >> order, mt)


@inline
def zone_statistics(s: State, zid: int, preferred: int, local: int, nr: int) -> None:
    """numa_hit, numa_miss, numa_foreign, numa_local, numa_other (mm/page_alloc.c:zone_statistics).

    `preferred`: the zone that was asked first; `local`: the node of the CPU. A foreign at one zone is a miss at another.
    """
    node = s.zones[zid].node
    if node == s.zones[preferred].node:
        s.numa_stat[zid, NUMA_HIT] += nr
    else:
        s.numa_stat[zid, NUMA_MISS] += nr
        s.numa_stat[preferred, NUMA_FOREIGN] += nr
    if node == local:
        s.numa_stat[zid, NUMA_LOCAL] += nr
    else:
        s.numa_stat[zid, NUMA_OTHER] += nr


@inline
def allowed(s: State, nr: int) -> bool:
    """The test knob "the N-th allocation fails": counts requests down, refuses the one that reaches zero."""
    left = s.ctl[CTL_FAIL_NTH]
    if left <= 0:
        return True
    s.ctl[CTL_FAIL_NTH] = left - nr if left > nr else -1
    return left > nr


@inline
def get_page_from_freelist(s: State, node: int, order: int, mark: int, classzone: int, nodes: int, local: int, mt: int) -> int:
    """The first zone of `node`'s zonelist that stays above its watermark gives 2^order frames of a migrate type.

    `nodes`: a mask of those that may give, 0: all. `local`: the node of the CPU that asks, for the statistics.

    Returns the first pfn, or 0: the caller (`gfp.alloc_pages`, or the Python side of a page loop) then steals from another type,
    wakes kswapd, lowers the mark to min, reclaims, and in the end calls the OOM killer. `mark` < 0: no watermark.
    """
    if not allowed(s, 1):
        return 0
    preferred = -1
    for i in range(s.zonelists.shape[1]):
        zid = s.zonelists[node, i]
        if zid < 0:
            break
        if nodes and not (nodes >> s.zones[zid].node) & 1:
            continue
        if preferred < 0:
            preferred = zid
        if mark >= 0 and not zone_watermark_ok(s, zid, order, mark, classzone):
            continue
        pfn = rmqueue(s, zid, order, mt)
        if pfn:
            if order == HPAGE_PMD_ORDER:
                s.zones[zid].huge_taken += 1
            zone_statistics(s, zid, preferred, local, 1)
            return pfn
        if s.zones[zid].free and not ask_for_theft(s, zid, order, mt):
            break
    return 0


# ---------------------------------------------------------------- zone_reclaim_mode: stay on the node, at the price of its page cache


@inline
def pagecache_reclaimable(s: State, node: int) -> int:
    """Pages of files that reclaim of one node could take in this zone_reclaim_mode (node_pagecache_reclaimable)."""
    stat, mode = s.node_stat[node], s.ctl[CTL_RECLAIM_MODE]
    pages = stat[NR_FILE_PAGES]
    if not mode & RECLAIM_UNMAP:
        pages = max(0, stat[LRU_INACTIVE_FILE] + stat[LRU_ACTIVE_FILE] - stat[NR_FILE_MAPPED])
    if not mode & RECLAIM_WRITE:
        pages -= min(pages, stat[NR_FILE_DIRTY])
    return pages


@step
def node_worth_reclaiming(s: State, node: int) -> bool:
    """Has a node more page cache, or more slab, than min_unmapped_ratio and min_slab_ratio leave alone?"""
    unmapped, slab = 0, 0
    for zid in range(node * ZONES_PER_NODE, (node + 1) * ZONES_PER_NODE):
        unmapped += s.zones[zid]["min_unmapped"]
        slab += s.zones[zid]["min_slab"]
    return pagecache_reclaimable(s, node) > unmapped or s.node_stat[node, NR_SLAB_RECLAIMABLE] > slab


@step
def ask_for_node_reclaim(s: State, node: int, order: int, mark: int, classzone: int, nodes: int, local: int) -> bool:
    """Is a zone to be reclaimed before a request that may wait goes on to the next one? Then it is noted, for `gfp.node_reclaim`.

    The zones are passed in the order of `get_page_from_freelist`; those that have been reclaimed for this request have had their turn. Only
    zones near the first one, on the node of the CPU or on one without CPUs, and only where it may be worth it (zone_allows_reclaim, node_reclaim).
    """
    preferred = -1
    for i in range(s.zonelists.shape[1]):
        zid = s.zonelists[node, i]
        if zid < 0:
            break
        zone = s.zones[zid]
        if nodes and not (nodes >> zone.node) & 1:
            continue
        if preferred < 0:
            preferred = zid
        if zone_watermark_ok(s, zid, order, mark, classzone):
            break
        if i < s.ctl[CTL_NODE_RECLAIMED] or not (zone["near"] >> s.zones[preferred].node) & 1 or (zone["has_cpu"] and zone.node != local):
            continue
        if node_worth_reclaiming(s, zone.node):
            s.ctl[CTL_NODE_RECLAIM], s.ctl[CTL_NODE_RECLAIMED] = zid + 1, i + 1
            return True
    s.ctl[CTL_NODE_RECLAIMED] = 0
    return False


@njit
def wants_node_reclaim(s: State, node: int, order: int, mark: int, classzone: int, nodes: int) -> bool:
    """`ask_for_node_reclaim`, callable from Python."""
    return ask_for_node_reclaim(s, node, order, mark, classzone, nodes, node)


@njit
def would_reclaim(s: State, node: int) -> bool:
    """`node_worth_reclaiming`, callable from Python."""
    return node_worth_reclaiming(s, node)


@njit
def alloc_block(s: State, node: int, order: int, mark: int, classzone: int, nodes: int, mt: int) -> int:
    """`get_page_from_freelist` for Python callers: 2^order frames, refcount 1 on the first; 0 if none."""
    pfn = get_page_from_freelist(s, node, order, mark, classzone, nodes, node, mt)
    if pfn:
        s.mem[pfn].refcount = 1
    return pfn


@njit
def free_block(s: State, pfn: int, order: int) -> None:
    """Return 2^order frames; their rows are cleared."""
    for i in range(1 << order):
        clear_page_row(s, pfn + i)
    free_one_page(s, zone_of(s, pfn), pfn, order)


@inline
def clear_page_row(s: State, pfn: int) -> None:
    """Forget what the frame was (free_pages_prepare): a free frame's row is all zero but for its links."""
    page = s.mem[pfn]
    page["flags"] = 0
    page.refcount = 0
    page.mapcount = 0
    page.memcg = 0
    page.mapping = 0
    page.private = 0
    page.index = 0
    page.content = 0


@njit
def free_range(s: State, start: int, end: int, zid: int) -> None:
    """Boot: hand the frames [start, end) of one zone to the allocator in the largest aligned blocks of one type.

    Blocks are added from the top down, so that the lowest block heads each list.
    """
    pfn = end
    while pfn > start:
        order = 0
        mt = pageblock_type(s, pfn - 1)
        while order < MAX_ORDER - 1 and (pfn & ((1 << (order + 1)) - 1)) == 0 and pfn - (1 << (order + 1)) >= start:
            if pageblock_type(s, pfn - (1 << (order + 1))) != mt:
                break
            order += 1
        pfn -= 1 << order
        add_to_free_list(s, zid, order, pfn >> order, mt)
        s.zones[zid].free += 1 << order


@njit
def count_free_blocks(s: State, zid: int, blocks) -> None:
    """How many free blocks each list holds: blocks[type, order]."""
    for mt in range(MIGRATE_TYPES):
        for order in range(MAX_ORDER):
            link = s.zones[zid].head[mt, order]
            while link > 0:
                blocks[mt, order] += 1
                link = s.buddy[s.ctl[CTL_BUDDY + order] + link - 1, 0]


@njit
def page_zone(s: State, pfn: int) -> int:
    """`zone_of`, callable from Python."""
    return zone_of(s, pfn)
