"""Policies that no kernel could run, or none does: OPT, LFU, 2Q, ARC. They see page numbers only, a trace at a time.

OPT (Belady, 1966) evicts the page whose next use is farthest away. It needs the future, so it is the bound: no policy faults less.

    frames 3:   1 2 3 4 1 2 5 1 2 3 4 5      faults 7
                      4 replaces 3 (used again at 10; 1 at 5, 2 at 6)

LFU evicts the page with the fewest uses since it came in, of those the one used longest ago.

2Q (Johnson and Shasha, 1994) keeps new pages in a FIFO of a quarter of the frames; only a page that comes back while its number is
remembered (for half as many pages as there are frames) enters the main LRU list.

ARC (Megiddo and Modha, 2003) keeps two LRU lists, once used and used again, remembers as many evicted pages of each, and shifts the
shares of the two towards the list whose remembered pages come back.

OPT and LFU find their victim in a heap: each access pushes the page's new key, and keys that are no longer the page's are skipped when they come up.
"""

from __future__ import annotations

from core.jit import inline, njit, step

OPT, LFU = range(2)
OUT, IN, MAIN, GHOST_IN, GHOST_MAIN = range(5)  # where 2Q and ARC have a page


@njit
def next_uses(trace, last, after) -> None:
    """after[i]: when the page of access i is used next; the length of the trace if never. `last` has a place for each page."""
    n = len(trace)
    for page in range(len(last)):
        last[page] = n
    for i in range(n - 1, -1, -1):
        after[i] = last[trace[i]]
        last[trace[i]] = i


@step
def push(heap, size: int, key: int) -> None:
    """A new greatest-first heap entry in place `size`."""
    at = size
    while at > 0 and heap[(at - 1) >> 1] < key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key


@step
def pop(heap, size: int) -> int:
    """The greatest of `size` entries, taken out."""
    top, key = heap[0], heap[size - 1]
    at, child = 0, 1
    while child < size - 1:
        if child + 1 < size - 1 and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    heap[at] = key
    return top


@inline
def page_of(trace, key: int, rule: int) -> int:
    """Whose key it is: OPT's is the time of the next use (beyond the end: the page), LFU's ends in the time of the last."""
    n = len(trace)
    if rule == LFU:
        return trace[n - 1 - key % n]
    return trace[key] if key < n else key - n


@njit
def ranked(trace, after, frames: int, rule: int, key_of, uses, heap) -> int:
    """OPT (`after`: the next uses) or LFU: faults. key_of[page]: its key, negative outside memory; the greatest key goes."""
    n = len(trace)
    faults, held, size = 0, 0, 0
    for i in range(n):
        page = trace[i]
        if key_of[page] < 0:
            faults += 1
            uses[page] = 0
            if held == frames:
                key = pop(heap, size)
                size -= 1
                while key_of[page_of(trace, key, rule)] != key:
                    key = pop(heap, size)
                    size -= 1
                key_of[page_of(trace, key, rule)] = -1
            else:
                held += 1
        uses[page] += 1
        if rule == LFU:
            key_of[page] = (n - uses[page]) * n + (n - 1 - i)
        else:
            key_of[page] = after[i] if after[i] < n else n + page
        if size == len(heap):
            size = tidy(trace, heap, size, key_of, rule)
        push(heap, size, key_of[page])
        size += 1
    return faults


@step
def tidy(trace, heap, size: int, key_of, rule: int) -> int:
    """Drop the keys that are out of date; how many are left. (A page's own new key is pushed afterwards.)"""
    left = 0
    for at in range(size):
        key = heap[at]
        if key_of[page_of(trace, key, rule)] == key:
            push(heap, left, key)
            left += 1
    return left


# ---------------------------------------------------------------- lists of pages: row 0 .. pages - 1, then a head for each list


@inline
def unlink(links, page: int) -> None:
    """Take a page out of its list."""
    before, behind = links[page, 0], links[page, 1]
    links[before, 1] = behind
    links[behind, 0] = before


@inline
def link(links, head: int, page: int) -> None:
    """Put a page at the front of a list."""
    behind = links[head, 1]
    links[page, 0], links[page, 1] = head, behind
    links[head, 1] = page
    links[behind, 0] = page


@step
def move(links, where, count, pages: int, page: int, to: int) -> None:
    """A page changes its list, to the front of the other."""
    if where[page] != OUT:
        unlink(links, page)
        count[where[page]] -= 1
    where[page] = to
    if to != OUT:
        link(links, pages + to, page)
        count[to] += 1


@inline
def last(links, pages: int, which: int) -> int:
    """The page at the end of a list."""
    return links[pages + which, 0]


@njit
def start_lists(links, where, count, pages: int) -> None:
    """All lists empty."""
    for which in range(5):
        links[pages + which, 0] = pages + which
        links[pages + which, 1] = pages + which
        count[which] = 0
    for page in range(pages):
        where[page] = OUT


@njit
def two_queues(trace, frames: int, links, where, count) -> int:
    """2Q: faults."""
    pages = len(where)
    new, remembered = max(1, frames // 4), max(1, frames // 2)
    faults = 0
    for i in range(len(trace)):
        page = trace[i]
        at = where[page]
        if at == MAIN:
            move(links, where, count, pages, page, MAIN)
            continue
        if at == IN:
            continue
        faults += 1
        if count[IN] + count[MAIN] == frames:
            if count[IN] > new or count[MAIN] == 0:
                move(links, where, count, pages, last(links, pages, IN), GHOST_IN)
                if count[GHOST_IN] > remembered:
                    move(links, where, count, pages, last(links, pages, GHOST_IN), OUT)
            else:
                move(links, where, count, pages, last(links, pages, MAIN), OUT)
        move(links, where, count, pages, page, MAIN if at == GHOST_IN else IN)
    return faults


@step
def arc_replace(links, where, count, pages: int, share: int, ghost_main: bool) -> None:
    """Evict from the list that is over its share (REPLACE)."""
    if count[IN] > 0 and (count[IN] > share or (ghost_main and count[IN] == share) or count[MAIN] == 0):
        move(links, where, count, pages, last(links, pages, IN), GHOST_IN)
    else:
        move(links, where, count, pages, last(links, pages, MAIN), GHOST_MAIN)


@njit
def arc(trace, frames: int, links, where, count) -> int:
    """ARC: faults. IN is its T1, MAIN its T2, the ghosts B1 and B2; `share` is the target size of T1."""
    pages = len(where)
    faults, share = 0, 0
    for i in range(len(trace)):
        page = trace[i]
        at = where[page]
        if at in (IN, MAIN):
            move(links, where, count, pages, page, MAIN)
            continue
        faults += 1
        if at == GHOST_IN:
            share = min(frames, share + max(count[GHOST_MAIN] // max(count[GHOST_IN], 1), 1))
            arc_replace(links, where, count, pages, share, False)
        elif at == GHOST_MAIN:
            share = max(0, share - max(count[GHOST_IN] // max(count[GHOST_MAIN], 1), 1))
            arc_replace(links, where, count, pages, share, True)
        elif count[IN] + count[GHOST_IN] == frames:
            if count[IN] < frames:
                move(links, where, count, pages, last(links, pages, GHOST_IN), OUT)
                arc_replace(links, where, count, pages, share, False)
            else:
                move(links, where, count, pages, last(links, pages, IN), OUT)
        elif count[IN] + count[MAIN] + count[GHOST_IN] + count[GHOST_MAIN] >= frames:
            if count[IN] + count[MAIN] + count[GHOST_IN] + count[GHOST_MAIN] == 2 * frames:
                move(links, where, count, pages, last(links, pages, GHOST_MAIN), OUT)
            if count[IN] + count[MAIN] == frames:
                arc_replace(links, where, count, pages, share, False)
        move(links, where, count, pages, page, IN if at == OUT else MAIN)
    return faults
