"""Lists by generation: what the multi-gen LRU does when a page joins a list or leaves one (include/linux/mm_inline.h, mmzone.h).

A cgroup's pages on a node are divided into *generations*, numbered as time goes on: `max_seq` is the youngest, `min_seq[type]` the oldest
of anonymous (0) and of file pages (1). At most four exist at once, so number modulo four (`gen`) says which list:

    seq        8 (min_seq)      9           10 (max_seq - 1)      11 (max_seq)
    list          0             1                2                    3
    shown as   inactive      inactive         active               active

The two youngest count as active, so that meminfo and vmstat mean what they meant. Where a page joins:

    faulted in just now (PG_active)                    the youngest
    anonymous otherwise                                the second youngest
    read ahead or read(2), clean                       the second oldest, the oldest if there are only three
    written, to be freed next (rotate_reclaimable)     the oldest, at its tail

`State.gens[pfn]` holds three small numbers: bits 0-2 the page's generation + 1 (0: on no list), bits 3-4 how often it was used through
files beyond twice (its *refs*), bits 5-6 the list that it stands on. A page that is promoted only changes its generation;
it stays where it is until reclaim comes along it (`lru_gen.sort_page`), so the two may differ. Sizes go by generation.

Lists are kept by zone, too, as Linux has them. Row of a list, and of its size: (gen * 2 + type) * 4 + zone type.
"""

from __future__ import annotations

from core.abi.page_flags import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_HEAD,
    PG_LRU,
    PG_RECLAIM,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_WORKINGSET,
    PG_WRITEBACK,
)
from core.jit import inline, step
from core.mm.mm_types import CTL_NR_NODES, CTL_POLICY, HPAGE_PMD_NR, LRU_GEN_ANON, MAX_NR_GENS, MGLRU, MIN_NR_GENS, ZONES_PER_NODE, State

GEN_MASK, REFS_SHIFT, REFS_MASK, HOME_SHIFT = 7, 3, 3, 5
GEN_AND_REFS = GEN_MASK | REFS_MASK << REFS_SHIFT
MAX_REFS = REFS_MASK


@inline
def lru_gen_enabled(s: State) -> bool:
    """Is the multi-gen LRU the policy in force?"""
    return s.ctl[CTL_POLICY] == MGLRU


@inline
def lru_pages(flags: int) -> int:
    """How many pages an entry of a list stands for: the compound pages on the lists are huge pages of 2 MiB."""
    return HPAGE_PMD_NR if flags & PG_HEAD else 1


@inline
def lruvec_of(s: State, memcg: int, node: int) -> int:
    """The row of a cgroup's lists on a node."""
    return memcg * s.ctl[CTL_NR_NODES] + node


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
def lru_type(flags: int) -> int:
    """0 for pages that go to swap, 1 for those that belong to files or may be dropped (folio_is_file_lru)."""
    return 0 if flags & PG_SWAPBACKED else 1


@inline
def gen_list(gen: int, kind: int, zid: int) -> int:
    """The row of a generation's list."""
    return (gen * 2 + kind) * ZONES_PER_NODE + zid % ZONES_PER_NODE


@inline
def lru_gen(s: State, pfn: int) -> int:
    """A page's generation, -1 if it is on no list of one (folio_lru_gen)."""
    return (s.gens[pfn] & GEN_MASK) - 1


@inline
def lru_refs(s: State, pfn: int) -> int:
    """Uses through files beyond the first two (folio_lru_refs)."""
    was = 1 if s.mem[pfn]["flags"] & PG_WORKINGSET else 0
    return ((s.gens[pfn] >> REFS_SHIFT) & REFS_MASK) + was


@inline
def lru_tier(refs: int) -> int:
    """0 for 0 refs, 1 for 1, 2 for 2 and 3, 3 for 4 (lru_tier_from_refs)."""
    tier = 0
    while (1 << tier) < refs + 1:
        tier += 1
    return tier


@inline
def lru_gen_is_active(s: State, lruvec: int, gen: int) -> int:
    """1 if a generation is one of the two youngest."""
    seq = s.lrugens[lruvec]["max_seq"]
    return 1 if gen == seq % MAX_NR_GENS or gen == (seq - 1) % MAX_NR_GENS else 0


@step
def lru_gen_update_size(s: State, zid: int, lruvec: int, kind: int, old: int, new: int, nr: int) -> None:
    """A page of `nr` frames goes from one generation (-1: none) to another (-1: none): the sizes follow."""
    sizes = s.lrugens[lruvec]["nr"]
    was = lru_gen_is_active(s, lruvec, old) if old >= 0 else 0
    now = lru_gen_is_active(s, lruvec, new) if new >= 0 else 0
    if old >= 0:
        sizes[gen_list(old, kind, zid)] -= nr
    if new >= 0:
        sizes[gen_list(new, kind, zid)] += nr
    if old < 0:
        update_lru_size(s, zid, lruvec, 2 * kind + now, nr)
    elif new < 0:
        update_lru_size(s, zid, lruvec, 2 * kind + was, -nr)
    elif now > was:
        update_lru_size(s, zid, lruvec, 2 * kind, -nr)
        update_lru_size(s, zid, lruvec, 2 * kind + 1, nr)


@inline
def gen_link(s: State, lruvec: int, row: int, pfn: int, tail: bool) -> None:
    """Put a page at the head of a generation's list, or at its tail."""
    vec = s.lrugens[lruvec]
    page = s.mem[pfn]
    end = vec["tail"][row] if tail else vec["head"][row]
    page["prev"] = end if tail else 0
    page["next"] = 0 if tail else end
    if end == 0:
        vec["head"][row] = pfn
        vec["tail"][row] = pfn
    elif tail:
        s.mem[end]["next"] = pfn
        vec["tail"][row] = pfn
    else:
        s.mem[end]["prev"] = pfn
        vec["head"][row] = pfn


@inline
def gen_unlink(s: State, lruvec: int, row: int, pfn: int) -> None:
    """Take a page out of the list that it stands on."""
    vec = s.lrugens[lruvec]
    page = s.mem[pfn]
    if page["prev"]:
        s.mem[page["prev"]]["next"] = page["next"]
    else:
        vec["head"][row] = page["next"]
    if page["next"]:
        s.mem[page["next"]]["prev"] = page["prev"]
    else:
        vec["tail"][row] = page["prev"]
    page["next"] = 0
    page["prev"] = 0


@step
def gen_move(s: State, zid: int, lruvec: int, pfn: int, gen: int, tail: bool) -> None:
    """Move a page to the list of a generation, which is or becomes its own."""
    kind = lru_type(s.mem[pfn]["flags"])
    gen_unlink(s, lruvec, gen_list(s.gens[pfn] >> HOME_SHIFT, kind, zid), pfn)
    gen_link(s, lruvec, gen_list(gen, kind, zid), pfn, tail)
    s.gens[pfn] = (s.gens[pfn] & GEN_AND_REFS) | gen << HOME_SHIFT


@step
def lru_gen_add(s: State, zid: int, pfn: int, reclaiming: bool) -> None:
    """A page joins the generation that its flags call for (lru_gen_add_folio)."""
    page = s.mem[pfn]
    flags = page["flags"]
    lruvec = lruvec_of(s, page["memcg"], s.zones[zid]["node"])
    vec = s.lrugens[lruvec]
    kind = lru_type(flags)
    waits = flags & PG_RECLAIM and flags & (PG_DIRTY | PG_WRITEBACK)
    if flags & PG_ACTIVE:
        seq = vec["max_seq"]
    elif (kind == LRU_GEN_ANON and not flags & PG_SWAPCACHE) or waits:
        seq = vec["max_seq"] - 1
    elif reclaiming or vec["min_seq"][kind] + MIN_NR_GENS >= vec["max_seq"]:
        seq = vec["min_seq"][kind]
    else:
        seq = vec["min_seq"][kind] + 1
    gen = seq % MAX_NR_GENS
    page["flags"] = (flags & ~PG_ACTIVE) | PG_LRU
    s.gens[pfn] = (s.gens[pfn] & REFS_MASK << REFS_SHIFT) | (gen + 1) | gen << HOME_SHIFT
    lru_gen_update_size(s, zid, lruvec, kind, -1, gen, lru_pages(flags))
    gen_link(s, lruvec, gen_list(gen, kind, zid), pfn, reclaiming)


@step
def lru_gen_del(s: State, zid: int, pfn: int, reclaiming: bool) -> None:
    """A page leaves its list; unless reclaim took it, PG_active says afterwards whether it counted as active (lru_gen_del_folio)."""
    page = s.mem[pfn]
    lruvec = lruvec_of(s, page["memcg"], s.zones[zid]["node"])
    kind, gen = lru_type(page["flags"]), lru_gen(s, pfn)
    if not reclaiming and lru_gen_is_active(s, lruvec, gen):
        page["flags"] |= PG_ACTIVE
    page["flags"] &= ~PG_LRU
    gen_unlink(s, lruvec, gen_list(s.gens[pfn] >> HOME_SHIFT, kind, zid), pfn)
    s.gens[pfn] &= REFS_MASK << REFS_SHIFT
    lru_gen_update_size(s, zid, lruvec, kind, gen, -1, lru_pages(page["flags"]))


@step
def lru_gen_promote(s: State, zid: int, lruvec: int, pfn: int, gen: int) -> bool:
    """A page was used: it belongs to the youngest generation now; its place in the lists waits (folio_update_gen). True if it changed.

    One that reclaim has in its hands is only marked (PG_referenced).
    """
    page = s.mem[pfn]
    old = lru_gen(s, pfn)
    if old < 0:
        page["flags"] |= PG_REFERENCED
        return False
    page["flags"] &= ~(PG_REFERENCED | PG_WORKINGSET)
    s.gens[pfn] = (s.gens[pfn] >> HOME_SHIFT) << HOME_SHIFT | (gen + 1)
    if old == gen:
        return False
    lru_gen_update_size(s, zid, lruvec, lru_type(page["flags"]), old, gen, lru_pages(page["flags"]))
    return True
