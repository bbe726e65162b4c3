"""The buddy allocator: blocks of 2^order frames, split on allocation, merged on freeing (mm/page_alloc.c).

Each zone keeps one free list per order 0..10. A request takes the first block of the smallest list that can
serve it and hands the upper halves back, order by order (`expand`): one frame out of an empty-but-for-one
4 MiB block leaves one free block of each order 0..9. Freeing looks at the *buddy*, the block whose number
differs in one bit (`pfn ^ (1 << order)`): if it is free at the same order the two become one block of the
next order, and so on up. Lists are last in, first out, so a frame just freed is the next one handed out.

A watermark check comes first (`zone_watermark_ok`): free pages less the request must stay above the mark
plus the zone's lowmem reserve. Worked example, 512M: DMA32 min 649, low 811 pages: an ordinary request is
served while more than 811 + 0 pages are free; zone DMA keeps 427 more in reserve for those who can use
nothing else.

With several nodes the zones of all are asked in the order of a node's *zonelist*. Who was asked first and who gave is counted: a hit,
or a miss at the giver and a foreign at the one passed over (`zone_statistics`).

Implementation. The links of order k lie in `State.buddy[ctl[CTL_BUDDY + k] + (pfn >> k)]` as (next, prev), as
block number + 1; -1 ends a list, 0 says "not a free block of this order". So a booted, idle machine costs a
few kilobytes of links, and whether a buddy is free is one look.

Simplified: no per-CPU lists (a frame goes straight to its zone; MemFree differs from Linux by what those
would hold, at most `high` pages a CPU), no migrate types yet.

Source: mm/page_alloc.c: rmqueue, expand, __free_one_page, __zone_watermark_ok, get_page_from_freelist.
"""

from __future__ import annotations

from core.jit import inline, njit
from core.mm.mm_types import CTL_BUDDY, CTL_FAIL_NTH, HPAGE_PMD_ORDER, MAX_ORDER, SECTION_SHIFT, State
from core.vmstat import NUMA_FOREIGN, NUMA_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER, PGALLOC_DMA, PGFREE


@inline
def add_to_free_list(s: State, zid: int, order: int, block: int) -> None:
    """Put a block at the head of its zone's list."""
    base = s.ctl[CTL_BUDDY + order]
    zone = s.zones[zid]
    head = zone.head[order]
    s.buddy[base + block, 0] = head if head != 0 else -1
    s.buddy[base + block, 1] = -1
    if head > 0:
        s.buddy[base + head - 1, 1] = block + 1
    zone.head[order] = block + 1
    zone.nr_free[order] += 1


@inline
def del_from_free_list(s: State, zid: int, order: int, block: int) -> None:
    """Take a block out of its zone's list, wherever it stands in it."""
    base = s.ctl[CTL_BUDDY + order]
    zone = s.zones[zid]
    after = s.buddy[base + block, 0]
    before = s.buddy[base + block, 1]
    if before > 0:
        s.buddy[base + before - 1, 0] = after
    else:
        zone.head[order] = after if after > 0 else 0
    if after > 0:
        s.buddy[base + after - 1, 1] = before
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
    for k in range(order, MAX_ORDER):
        if zone.nr_free[k] > 0:
            return True
    return False


@inline
def rmqueue(s: State, zid: int, order: int) -> int:
    """Take 2^order frames from the zone's lists: the first frame, or 0 when no block is large enough."""
    zone = s.zones[zid]
    for k in range(order, MAX_ORDER):
        head = zone.head[k]
        if head == 0:
            continue
        block = head - 1
        del_from_free_list(s, zid, k, block)
        pfn = block << k
        while k > order:
            k -= 1
            add_to_free_list(s, zid, k, (pfn >> k) + 1)
        zone.free -= 1 << order
        s.vm_event[PGALLOC_DMA + zone.type] += 1 << order
        return pfn
    return 0


@inline
def zone_of(s: State, pfn: int) -> int:
    """The row of the zone that holds this frame (page_zone)."""
    return int(s.sections[pfn >> SECTION_SHIFT])


@inline
def free_one_page(s: State, zid: int, pfn: int, order: int) -> None:
    """Give 2^order frames back and merge with free buddies as far up as possible."""
    zone = s.zones[zid]
    zone.free += 1 << order
    s.vm_event[PGFREE] += 1 << order
    if order == HPAGE_PMD_ORDER:
        zone.huge_freed += 1
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
    add_to_free_list(s, zid, order, pfn >> order)


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
def get_page_from_freelist(s: State, node: int, order: int, mark: int, classzone: int, nodes: int, local: int) -> int:
    """The first zone of `node`'s zonelist that stays above its watermark gives 2^order frames.

    `nodes`: a mask of those that may give, 0: all. `local`: the node of the CPU that asks, for the statistics.

    Returns the first pfn, or 0: the caller (`gfp.alloc_pages`, or the Python side of a page loop) then wakes
    kswapd, lowers the mark to min, reclaims, and in the end calls the OOM killer. `mark` < 0: no watermark.
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
        pfn = rmqueue(s, zid, order)
        if pfn:
            if order == HPAGE_PMD_ORDER:
                s.zones[zid].huge_taken += 1
            zone_statistics(s, zid, preferred, local, 1)
            return pfn
    return 0


@njit
def alloc_block(s: State, node: int, order: int, mark: int, classzone: int, nodes: int) -> int:
    """`get_page_from_freelist` for Python callers: 2^order frames, refcount 1 on the first; 0 if none."""
    pfn = get_page_from_freelist(s, node, order, mark, classzone, nodes, node)
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
    """Boot: hand the frames [start, end) of one zone to the allocator in the largest aligned blocks.

    Blocks are added from the top down, so that the lowest block heads each list.
    """
    pfn = end
    while pfn > start:
        order = 0
        while order < MAX_ORDER - 1 and (pfn & ((1 << (order + 1)) - 1)) == 0 and pfn - (1 << (order + 1)) >= start:
            order += 1
        pfn -= 1 << order
        add_to_free_list(s, zid, order, pfn >> order)
        s.zones[zid].free += 1 << order


@njit
def page_zone(s: State, pfn: int) -> int:
    """`zone_of`, callable from Python."""
    return zone_of(s, pfn)
