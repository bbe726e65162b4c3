"""LRU lists: five per cgroup and node, in exact order (mm/swap.c, include/linux/mm_inline.h).

    inactive_anon  active_anon  inactive_file  active_file  unevictable

A list is threaded through two columns of mem_map (`next`, `prev`); the head is the youngest page, reclaim
takes from the tail. Which list a page belongs to follows from its flags alone: PG_SWAPBACKED clear → file
(a MADV_FREEd anonymous page counts as file), PG_ACTIVE → active, PG_UNEVICTABLE → unevictable. Lengths are
kept per list (`lruvec.nr`), per zone and per node; `Active(anon)` in meminfo is the node's.

A new anonymous page starts at the head of inactive_anon, a new file page at the head of inactive_file.
`mark_page_accessed` is what read(2) does to a page: first sight sets PG_referenced, the second moves it to
the active list. Linux collects additions in per-CPU batches of 15 before they reach a list; here they
reach it at once. A huge page is one entry of a list, its head, and counts as 512.
"""

from __future__ import annotations

from core.abi.page_flags import (
    PG_ACTIVE,
    PG_HEAD,
    PG_LRU,
    PG_MLOCKED,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_TAIL,
    PG_UNEVICTABLE,
)
from core.jit import inline, step
from core.mm.mm_types import CTL_NR_NODES, HPAGE_PMD_NR, State
from core.vmstat import (
    MEMCG_PGACTIVATE,
    MEMCG_PGDEACTIVATE,
    NR_MLOCK,
    PGACTIVATE,
    PGDEACTIVATE,
    UNEVICTABLE_PGCULLED,
    UNEVICTABLE_PGMLOCKED,
    UNEVICTABLE_PGMUNLOCKED,
    UNEVICTABLE_PGRESCUED,
)


@inline
def stat_add(s: State, zid: int, memcg: int, item: int, nr: int) -> None:
    """A node counter and its cgroup's (mod_lruvec_page_state)."""
    s.node_stat[s.zones[zid]["node"], item] += nr
    s.memcgs[memcg]["stat"][item] += nr


@inline
def page_lru(flags: int) -> int:
    """The list that a page with these flags belongs to (folio_lru_list)."""
    if flags & PG_UNEVICTABLE:
        return 4
    lru = 0 if flags & PG_SWAPBACKED else 2
    return lru + 1 if flags & PG_ACTIVE else lru


@inline
def lru_pages(flags: int) -> int:
    """How many pages an entry of a list stands for: the compound pages on the lists are huge pages of 2 MiB."""
    return HPAGE_PMD_NR if flags & PG_HEAD else 1


@inline
def update_lru_size(s: State, zid: int, lruvec: int, lru: int, nr: int) -> None:
    """Lengths of a list: its own, the zone's and the node's."""
    s.lruvecs[lruvec].nr[lru] += nr
    s.zones[zid].stat[lru] += nr
    s.node_stat[s.zones[zid].node, lru] += nr
    nodes = s.ctl[CTL_NR_NODES]
    memcg = lruvec // nodes
    while memcg > 0:
        s.lruvecs[memcg * nodes + lruvec % nodes].tree[lru] += nr
        memcg = s.memcgs[memcg].parent
    s.lruvecs[lruvec % nodes].tree[lru] += nr


@inline
def list_add(s: State, lruvec: int, lru: int, pfn: int) -> None:
    """Link a page at the head of a list; lengths are the caller's."""
    vec = s.lruvecs[lruvec]
    head = vec.head[lru]
    page = s.mem[pfn]
    page.next = head
    page.prev = 0
    if head:
        s.mem[head].prev = pfn
    else:
        vec.tail[lru] = pfn
    vec.head[lru] = pfn


@inline
def list_add_tail(s: State, lruvec: int, lru: int, pfn: int) -> None:
    """Link a page at the tail of a list, where reclaim looks first."""
    vec = s.lruvecs[lruvec]
    tail = vec.tail[lru]
    page = s.mem[pfn]
    page.prev = tail
    page.next = 0
    if tail:
        s.mem[tail].next = pfn
    else:
        vec.head[lru] = pfn
    vec.tail[lru] = pfn


@inline
def list_del(s: State, lruvec: int, lru: int, pfn: int) -> None:
    """Unlink a page; lengths are the caller's."""
    page = s.mem[pfn]
    vec = s.lruvecs[lruvec]
    if page.prev:
        s.mem[page.prev].next = page.next
    else:
        vec.head[lru] = page.next
    if page.next:
        s.mem[page.next].prev = page.prev
    else:
        vec.tail[lru] = page.prev
    page.next = 0
    page.prev = 0


@inline
def lruvec_of(s: State, memcg: int, node: int) -> int:
    """The row of a cgroup's lists on a node."""
    return memcg * s.ctl[CTL_NR_NODES] + node


@inline
def lru_add(s: State, zid: int, pfn: int) -> None:
    """Put a page on the list its flags name."""
    page = s.mem[pfn]
    page["flags"] |= PG_LRU
    lru = page_lru(page["flags"])
    lruvec = lruvec_of(s, page.memcg, s.zones[zid].node)
    list_add(s, lruvec, lru, pfn)
    update_lru_size(s, zid, lruvec, lru, lru_pages(page["flags"]))


@inline
def lru_del(s: State, zid: int, pfn: int) -> None:
    """Take a page off its list; PG_LRU is cleared."""
    page = s.mem[pfn]
    lru = page_lru(page["flags"])
    lruvec = lruvec_of(s, page.memcg, s.zones[zid].node)
    list_del(s, lruvec, lru, pfn)
    update_lru_size(s, zid, lruvec, lru, -lru_pages(page["flags"]))
    page["flags"] &= ~PG_LRU


@step
def activate_page(s: State, zid: int, pfn: int) -> None:
    """Move an inactive page to the head of its active list (folio_activate)."""
    page = s.mem[pfn]
    if page["flags"] & PG_LRU and not page["flags"] & (PG_ACTIVE | PG_UNEVICTABLE):
        lru_del(s, zid, pfn)
        page["flags"] |= PG_ACTIVE
        lru_add(s, zid, pfn)
        nr = lru_pages(page["flags"])
        s.vm_event[PGACTIVATE] += nr
        s.memcgs[page.memcg].stat[MEMCG_PGACTIVATE] += nr


@step
def age_nonresident(s: State, lruvec: int, nr: int) -> None:
    """The lists of a cgroup and of its ancestors moved on by `nr` pages (workingset_age_nonresident)."""
    nodes = s.ctl[CTL_NR_NODES]
    memcg = lruvec // nodes
    while memcg > 0:
        s.lruvecs[memcg * nodes + lruvec % nodes].age += nr
        memcg = s.memcgs[memcg].parent
    s.lruvecs[lruvec % nodes].age += nr


@inline
def mark_page_accessed(s: State, zid: int, pfn: int) -> None:
    """First touch sets PG_referenced, the second activates (folio_mark_accessed)."""
    if s.mem[pfn]["flags"] & PG_TAIL:
        pfn = s.mem[pfn]["private"]
    page = s.mem[pfn]
    if not page["flags"] & PG_REFERENCED:
        page["flags"] |= PG_REFERENCED
    elif page["flags"] & PG_UNEVICTABLE:
        return
    elif not page["flags"] & PG_ACTIVE:
        activate_page(s, zid, pfn)
        page["flags"] &= ~PG_REFERENCED
        age_nonresident(s, lruvec_of(s, page.memcg, s.zones[zid].node), lru_pages(page["flags"]))


@step
def deactivate_file_page(s: State, zid: int, pfn: int) -> None:
    """invalidate_mapping_pages found the page in use: to the inactive list, tail if clean (lru_deactivate_file_fn).

    A mapped page stays where it is.
    """
    page = s.mem[pfn]
    if not page["flags"] & PG_LRU or page["flags"] & PG_UNEVICTABLE or page.mapcount > 0:
        return
    was_active = page["flags"] & PG_ACTIVE
    lru_del(s, zid, pfn)
    page["flags"] &= ~(PG_ACTIVE | PG_REFERENCED)
    lru_add(s, zid, pfn)
    if was_active:
        s.vm_event[PGDEACTIVATE] += 1
        s.memcgs[page.memcg].stat[MEMCG_PGDEACTIVATE] += 1


@step
def mlock_page(s: State, zid: int, pfn: int) -> None:
    """A page that a locked mapping holds becomes unevictable (mlock_folio, __mlock_page)."""
    page = s.mem[pfn]
    if page["flags"] & PG_MLOCKED:
        return
    nr = lru_pages(page["flags"])
    page["flags"] |= PG_MLOCKED
    s.zones[zid]["stat"][NR_MLOCK] += nr
    s.vm_event[UNEVICTABLE_PGMLOCKED] += nr
    if page["flags"] & PG_LRU and not page["flags"] & PG_UNEVICTABLE:
        lru_del(s, zid, pfn)
        page["flags"] = (page["flags"] & ~PG_ACTIVE) | PG_UNEVICTABLE
        lru_add(s, zid, pfn)
        s.vm_event[UNEVICTABLE_PGCULLED] += nr


@step
def munlock_page(s: State, zid: int, pfn: int) -> None:
    """A page that no locked mapping holds any more goes back to an evictable list (__munlock_page)."""
    page = s.mem[pfn]
    if not page["flags"] & PG_MLOCKED:
        return
    nr = lru_pages(page["flags"])
    s.zones[zid]["stat"][NR_MLOCK] -= nr
    s.vm_event[UNEVICTABLE_PGMUNLOCKED] += nr
    lru_del(s, zid, pfn)
    page["flags"] &= ~(PG_MLOCKED | PG_UNEVICTABLE)
    lru_add(s, zid, pfn)
    s.vm_event[UNEVICTABLE_PGRESCUED] += nr
