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
    PG_LRU,
    PG_MLOCKED,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_TAIL,
    PG_UNEVICTABLE,
    PG_WORKINGSET,
)
from core.jit import inline, step
from core.mm.mm_inline import MAX_REFS, REFS_SHIFT, lru_gen_add, lru_gen_del, lru_gen_enabled
from core.mm.mm_inline import lru_pages as lru_pages
from core.mm.mm_inline import lruvec_of as lruvec_of
from core.mm.mm_inline import update_lru_size as update_lru_size
from core.mm.mm_types import CTL_IN_LRU_FAULT, CTL_NR_NODES, CTL_POLICY, CTL_STAMP, LRU, State
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


@step
def lru_add_by_policy(s: State, zid: int, pfn: int) -> None:
    """`lru_add` where another than the classic policy is in force."""
    page = s.mem[pfn]
    if lru_gen_enabled(s):
        lru_gen_add(s, zid, pfn, False)
        return
    page["flags"] = (page["flags"] & ~PG_ACTIVE) | PG_LRU
    stamp(s, pfn)
    lru = page_lru(page["flags"])
    lruvec = lruvec_of(s, page.memcg, s.zones[zid].node)
    list_add(s, lruvec, lru, pfn)
    update_lru_size(s, zid, lruvec, lru, lru_pages(page["flags"]))


@inline
def stamp(s: State, pfn: int) -> None:
    """Note that a page is the last to have come, or to have been used."""
    s.ctl[CTL_STAMP] += 1
    s.stamps[pfn] = s.ctl[CTL_STAMP]


@inline
def lru_add(s: State, zid: int, pfn: int) -> None:
    """Put a page on the list its flags name."""
    page = s.mem[pfn]
    if s.ctl[CTL_POLICY] and not page["flags"] & PG_UNEVICTABLE:
        lru_add_by_policy(s, zid, pfn)
        return
    page["flags"] |= PG_LRU
    lru = page_lru(page["flags"])
    lruvec = lruvec_of(s, page.memcg, s.zones[zid].node)
    list_add(s, lruvec, lru, pfn)
    update_lru_size(s, zid, lruvec, lru, lru_pages(page["flags"]))


@inline
def lru_del(s: State, zid: int, pfn: int) -> None:
    """Take a page off its list; PG_LRU is cleared."""
    page = s.mem[pfn]
    if lru_gen_enabled(s) and not page["flags"] & PG_UNEVICTABLE:
        lru_gen_del(s, zid, pfn, False)
        return
    lru = page_lru(page["flags"])
    lruvec = lruvec_of(s, page.memcg, s.zones[zid].node)
    list_del(s, lruvec, lru, pfn)
    update_lru_size(s, zid, lruvec, lru, -lru_pages(page["flags"]))
    page["flags"] &= ~PG_LRU


@inline
def folio_add_lru(s: State, zid: int, pfn: int) -> None:
    """A page that is new in memory joins a list; for the multi-gen LRU one that a fault brought in has been used (folio_add_lru)."""
    if lru_gen_enabled(s) and s.ctl[CTL_IN_LRU_FAULT] and not s.mem[pfn]["flags"] & PG_UNEVICTABLE:
        s.mem[pfn]["flags"] |= PG_ACTIVE
    lru_add(s, zid, pfn)


@step
def inc_refs(s: State, pfn: int) -> None:
    """A use through a file: PG_referenced, then PG_workingset, then up to three more are counted (folio_inc_refs)."""
    page = s.mem[pfn]
    if page["flags"] & PG_UNEVICTABLE:
        return
    if not page["flags"] & PG_REFERENCED:
        page["flags"] |= PG_REFERENCED
    elif not page["flags"] & PG_WORKINGSET:
        page["flags"] |= PG_WORKINGSET
    elif (s.gens[pfn] >> REFS_SHIFT) & MAX_REFS < MAX_REFS:
        s.gens[pfn] += 1 << REFS_SHIFT


@inline
def move_to_front(s: State, zid: int, pfn: int) -> None:
    """The page is the youngest of its list."""
    page = s.mem[pfn]
    if not page["flags"] & PG_LRU or page["flags"] & PG_UNEVICTABLE:
        return
    lru = page_lru(page["flags"])
    lruvec = lruvec_of(s, page["memcg"], s.zones[zid]["node"])
    stamp(s, pfn)
    if s.lruvecs[lruvec]["head"][lru] != pfn:
        list_del(s, lruvec, lru, pfn)
        list_add(s, lruvec, lru, pfn)


@step
def accessed_by_policy(s: State, zid: int, pfn: int) -> None:
    """`mark_page_accessed` where another than the classic policy is in force."""
    if lru_gen_enabled(s):
        inc_refs(s, pfn)
    elif s.ctl[CTL_POLICY] == LRU:
        move_to_front(s, zid, pfn)
    else:
        s.mem[pfn]["flags"] |= PG_REFERENCED  # CLOCK looks for it


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
    if s.ctl[CTL_POLICY]:
        accessed_by_policy(s, zid, pfn)
    elif not page["flags"] & PG_REFERENCED:
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
    lru_del(s, zid, pfn)
    was_active = page["flags"] & PG_ACTIVE
    page["flags"] &= ~(PG_ACTIVE | PG_REFERENCED)
    if lru_gen_enabled(s):
        lru_gen_add(s, zid, pfn, True)
    else:
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
