"""LRU for every size of memory in one pass (Mattson, Gecsei, Slutz and Traiger, 1970).

Think of the pages as a stack, the last used on top. An access finds its page at some depth d (1: it was the last used): in n frames it hits
exactly if d <= n. So the counts of depths are the faults of all sizes at once:

    faults(n) = first uses + accesses with d > n

    1 2 3 1 2 3:   depths - - - 3 3 3       faults 6 in 1 or 2 frames, 3 in 3

The depth is how many pages were used since: each page marks the time of its last use in a Fenwick tree (Bennett and Kruskal, 1975),
and the depth is a sum over the marks after that time. The times are renumbered when they run out, so the tree has twice as many places
as there are pages.
"""

from __future__ import annotations

from core.jit import njit, step


@step
def add(tree, at: int, nr: int) -> None:
    """Change the mark at a time (1 ..)."""
    while at < len(tree):
        tree[at] += nr
        at += at & -at


@step
def total(tree, at: int) -> int:
    """The marks at times 1 .. at."""
    marks = 0
    while at > 0:
        marks += tree[at]
        at -= at & -at
    return marks


@njit
def depths(trace, tree, time_of, page_at, histogram) -> int:
    """Counts the accesses at depth d in histogram[d]; how many were first uses."""
    now, first, marked = 0, 0, 0
    for i in range(len(trace)):
        page = trace[i]
        if now + 1 == len(tree):
            now = renumber(tree, time_of, page_at, now)
        was = time_of[page]
        if was:
            histogram[marked - total(tree, was - 1)] += 1
            add(tree, was, -1)
            page_at[was] = -1
        else:
            first += 1
            marked += 1
        now += 1
        time_of[page] = now
        page_at[now] = page
        add(tree, now, 1)
    return first


@step
def renumber(tree, time_of, page_at, now: int) -> int:
    """Close the gaps: the marks keep their order; the last time that is in use."""
    for at in range(len(tree)):
        tree[at] = 0
    used = 0
    for at in range(1, now + 1):
        page = page_at[at]
        if page >= 0:
            used += 1
            page_at[used] = page
            time_of[page] = used
    for at in range(used + 1, len(page_at)):
        page_at[at] = -1
    for at in range(1, used + 1):
        add(tree, at, 1)
    return used
