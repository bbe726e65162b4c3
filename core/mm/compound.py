"""Compound pages: 2^order frames that are one page (include/linux/page-flags.h, mm/page_alloc.c:prep_compound_page).

A transparent huge page, and a page of hugetlb, is a *head* and its *tails*, all neighbours, the head aligned to the size:

    pfn        1024 (head)        1025 (first tail)            1026 (second tail)         1027 .. 1535
    flags      PG_HEAD | ...      PG_TAIL | ...                PG_TAIL | ...              PG_TAIL | ...
    private    its swap slot      1024                         1024                       1024          = the head's pfn
    index      place in mapping   compound_mapcount            1 on the deferred queue
    next       LRU list           order                        deferred queue
    prev       LRU list                                        deferred queue

What belongs to the whole stands in the head's row only: references, cgroup, anon_vma or file, LRU list, swap slot; the head counts as 2^order
pages wherever pages are counted. Each frame keeps for itself: `content`, PG_ANON_EXCLUSIVE while small entries map it, and
`mapcount`, the small (4 KiB) entries that point to it. The entries that map the whole at once (PMD, PUD) are counted once, in
`compound_mapcount`. So a subpage is mapped

    page_mapcount = mapcount of its row + compound_mapcount of the whole

times, and the whole's refcount is: its big entries + the small entries to all its subpages + 2^order if it is in the swap cache.
(Linux 6.1 reaches the same numbers by PageDoubleMap: it adds one to every subpage's count while both kinds of entries exist.)

PG_ANON and PG_SHMEM stand in the tails as well, so that an entry's rss column can be told from the frame it names. A frame belongs to a compound page
exactly if its flags have PG_HEAD or PG_TAIL.
"""

from __future__ import annotations

from core.abi.page_flags import PG_ANON, PG_HEAD, PG_SHMEM, PG_SWAPCACHE, PG_TAIL
from core.jit import inline, step
from core.mm.mm_types import State
from core.vmstat import EVENT

THP_DEFERRED_SPLIT_PAGE = EVENT["thp_deferred_split_page"]
PG_COMPOUND = PG_HEAD | PG_TAIL
TAIL_KEEPS = PG_ANON | PG_SHMEM  # flags of the whole that its tails show, too


@inline
def compound_head(s: State, pfn: int) -> int:
    """The head of the page that this frame belongs to; itself unless it is a tail."""
    if s.mem[pfn]["flags"] & PG_TAIL:
        return s.mem[pfn]["private"]
    return pfn


@inline
def compound_order(s: State, head: int) -> int:
    """log2 of the frames of a page, by its head; 0 for an ordinary page."""
    if s.mem[head]["flags"] & PG_HEAD:
        return s.mem[head + 1]["next"]
    return 0


@inline
def compound_nr(s: State, head: int) -> int:
    """Frames of a page, by its head; 1 for an ordinary page."""
    return 1 << compound_order(s, head)


@inline
def compound_mapcount(s: State, head: int) -> int:
    """Entries that map a compound page whole."""
    return s.mem[head + 1]["index"]


@inline
def add_compound_mapcount(s: State, head: int, nr: int) -> int:
    """Count entries that map the whole; how many there are now."""
    count = s.mem[head + 1]["index"] + nr
    s.mem[head + 1]["index"] = count
    return count


@step
def page_mapcount(s: State, pfn: int) -> int:
    """Entries, small and big, through which this frame can be reached."""
    page = s.mem[pfn]
    if not page["flags"] & PG_COMPOUND:
        return page["mapcount"]
    return page["mapcount"] + compound_mapcount(s, compound_head(s, pfn))


@step
def total_mapcount(s: State, head: int) -> int:
    """All entries of all kinds that map any part of a page."""
    if not s.mem[head]["flags"] & PG_HEAD:
        return s.mem[head]["mapcount"]
    total = compound_mapcount(s, head)
    for pfn in range(head, head + compound_nr(s, head)):
        total += s.mem[pfn]["mapcount"]
    return total


@inline
def prep_compound_page(s: State, head: int, order: int, flags: int) -> None:
    """Make 2^order free frames one page with these flags (PG_HEAD is added). refcount, memcg and mapping are the caller's."""
    s.mem[head]["flags"] = flags | PG_HEAD
    tail = PG_TAIL | (flags & TAIL_KEEPS)
    for pfn in range(head + 1, head + (1 << order)):
        page = s.mem[pfn]
        page["flags"] = tail
        page["private"] = head
    s.mem[head + 1]["next"] = order
    s.mem[head + 1]["prev"] = 0
    if order > 1:
        s.mem[head + 2]["next"] = 0
        s.mem[head + 2]["prev"] = 0
        s.mem[head + 2]["index"] = 0


@step
def clear_compound_page(s: State, head: int, order: int) -> None:
    """Forget 2^order frames that are about to be free: every row is zero."""
    for pfn in range(head, head + (1 << order)):
        page = s.mem[pfn]
        page["flags"] = 0
        page["refcount"] = 0
        page["mapcount"] = 0
        page["memcg"] = 0
        page["mapping"] = 0
        page["next"] = 0
        page["prev"] = 0
        page["private"] = 0
        page["index"] = 0
        page["content"] = 0


# ---- the deferred split queue: huge pages of a cgroup that are partly unused, in the order in which they became so


@inline
def is_deferred(s: State, head: int) -> bool:
    """Does the page wait to be split?"""
    return s.mem[head + 2]["index"] != 0


@step
def deferred_split_huge_page(s: State, head: int) -> None:
    """Part of a huge page is mapped no more: when memory is short it shall be split, and that part freed.

    Not while reclaim has it in the swap cache: it is on its way out already.
    """
    page = s.mem[head]
    if page["flags"] & PG_SWAPCACHE or is_deferred(s, head):
        return
    s.vm_event[THP_DEFERRED_SPLIT_PAGE] += 1
    row = s.memcgs[page["memcg"]]
    link = s.mem[head + 2]
    link["index"] = 1
    link["next"] = 0
    link["prev"] = row["split_tail"]
    if row["split_tail"]:
        s.mem[row["split_tail"] + 2]["next"] = head
    else:
        row["split_head"] = head
    row["split_tail"] = head
    row["split_len"] += 1


@step
def undefer(s: State, head: int) -> None:
    """Off the queue: the page was split, or is free."""
    link = s.mem[head + 2]
    if not link["index"]:
        return
    row = s.memcgs[s.mem[head]["memcg"]]
    if link["prev"]:
        s.mem[link["prev"] + 2]["next"] = link["next"]
    else:
        row["split_head"] = link["next"]
    if link["next"]:
        s.mem[link["next"] + 2]["prev"] = link["prev"]
    else:
        row["split_tail"] = link["prev"]
    row["split_len"] -= 1
    link["index"] = 0
    link["next"] = 0
    link["prev"] = 0
