"""The multi-gen LRU at the page tables: who was used, found by walking tables instead of asking page by page (mm/vmscan.c).

The classic lists ask of each page at their tail: which entries map it, and was one of them used? A walk goes the other way: along the page tables of
every address space of the cgroup, where 512 entries lie side by side. An entry whose A bit is set loses it, and its page is promoted
to the youngest generation (`walk_mm`).

Tables that were found nearly unused are left out next time. Which are worth a walk is kept in a *Bloom filter*: 2^15 bits, two of
which stand for a table; a table is in it if both are set. A wrong "yes" costs a useless walk, a wrong "no" cannot be.

    a table with at least one used entry in eight goes into the filter of the next generation (`suitable_to_scan`)
    eviction that meets a used page looks at the 64 entries around it (`lru_gen_look_around`) and reports their table, too
    there are two filters, one being read and one being filled; each new generation swaps them

Simplified: A bits of upper entries are not used to leave tables out (0x0004 of `enabled` is kept, and changes nothing).

Source: walk_mm, walk_pmd_range, walk_pte_range, lru_gen_look_around, update_bloom_filter; Documentation/mm/multigen_lru.rst.
"""

from __future__ import annotations

from core.abi.mman import VM_RAND_READ, VM_SEQ_READ
from core.abi.page_flags import PG_ANON, PG_DIRTY, PG_HEAD, PG_REFERENCED, PG_SWAPBACKED, PG_SWAPCACHE, PG_TAIL
from core.bits import bits, trailing_zeros
from core.jit import inline, njit, prefetch, step
from core.mm.mm_inline import GEN_MASK, gen_move, lru_gen, lru_gen_promote, lru_gen_update_size, lru_pages, lru_type, lruvec_of
from core.mm.mm_types import CTL_NR_NODES, LRU_GEN_FILE, MAX_NR_GENS, State
from core.mm.page_alloc import zone_of
from core.mm.pgtable import PFN_MASK, PTE_A, PTE_D, PTE_PRESENT, PTE_PS, PTE_SPECIAL, find_table, table_of
from core.vmstat import MEMCG_PGACTIVATE, PGACTIVATE

MIN_LRU_BATCH = 64
PAGEVEC_SIZE = 15
LEAF_TOTAL, LEAF_OLD, LEAF_YOUNG, NONLEAF_TOTAL, NONLEAF_FOUND, NONLEAF_ADDED = range(6)
BLOOM_BITS = 15
HASH = 2654435761  # Knuth's multiplier


@inline
def bloom_word(key: int) -> int:
    """The word of a filter that holds a bit."""
    return key >> 6


@inline
def bloom_hash(item: int) -> int:
    """Two keys of 15 bits for the number of an upper entry."""
    return ((item * HASH) >> 15) & ((1 << 2 * BLOOM_BITS) - 1)


@step
def test_bloom_filter(s: State, lruvec: int, seq: int, item: int) -> bool:
    """Is a table in the filter of a generation? A filter that is not in use says yes."""
    which = seq & 1
    if not s.lrugens[lruvec]["filters"][which]:
        return True
    key = bloom_hash(item)
    low, high = key & ((1 << BLOOM_BITS) - 1), key >> BLOOM_BITS
    first = (s.blooms[lruvec, which, bloom_word(low)] >> (low & 63)) & 1
    second = (s.blooms[lruvec, which, bloom_word(high)] >> (high & 63)) & 1
    return first == 1 and second == 1


@step
def update_bloom_filter(s: State, lruvec: int, seq: int, item: int) -> None:
    """Put a table into the filter of a generation, if that is in use."""
    which = seq & 1
    if not s.lrugens[lruvec]["filters"][which]:
        return
    key = bloom_hash(item)
    low, high = key & ((1 << BLOOM_BITS) - 1), key >> BLOOM_BITS
    s.blooms[lruvec, which, bloom_word(low)] |= bit(low & 63)
    s.blooms[lruvec, which, bloom_word(high)] |= bit(high & 63)


@inline
def bit(n: int) -> int:
    """Bit n of a signed word of 64."""
    return -(1 << 62) * 2 if n == 63 else 1 << n


@njit
def reset_bloom_filter(s: State, lruvec: int, seq: int) -> None:
    """A generation's filter begins empty, and is in use."""
    which = seq & 1
    for word in range(s.blooms.shape[2]):
        s.blooms[lruvec, which, word] = 0
    s.lrugens[lruvec]["filters"][which] = 1


@inline
def suitable_to_scan(total: int, young: int) -> bool:
    """Was at least one entry in eight (a cache line of them) used?"""
    return young * 8 >= total


@inline
def mine(s: State, pfn: int, memcg: int, node: int, can_swap: int) -> bool:
    """Is this a page of that cgroup and node, and may it be reclaimed (get_pfn_folio)?"""
    page = s.mem[pfn]
    if page["memcg"] != memcg or s.zones[zone_of(s, pfn)]["node"] != node:
        return False
    return can_swap > 0 or lru_type(page["flags"]) == LRU_GEN_FILE


@step
def make_old(s: State, tid: int, slot: int, pfn: int) -> None:
    """Clear an entry's A bit; what its D bit knows of an anonymous page that would not be written without goes to the page."""
    pte = s.pt[tid, slot]
    s.pt[tid, slot] = pte & ~PTE_A
    page = s.mem[pfn]
    if pte & PTE_D and page["flags"] & PG_ANON and page["flags"] & (PG_SWAPBACKED | PG_SWAPCACHE) != PG_SWAPBACKED:
        page["flags"] |= PG_DIRTY


@inline
def used_entries(s: State, tid: int, slot: int, count: int) -> int:
    """Which of `count` <= 64 entries from `slot` on map a page and were used: a word, bit i for entry `slot` + i."""
    used = 0
    for i in range(count):
        pte = s.pt[tid, slot + i]
        if pte & (PTE_A | PTE_SPECIAL) == PTE_A and pte & PTE_PRESENT:
            used |= 1 << i
    return used


@inline
def idle_entries(s: State, tid: int, slot: int, count: int) -> int:
    """How many entries map a page that was not used."""
    idle = 0
    for i in range(count):
        pte = s.pt[tid, slot + i]
        if pte & (PTE_A | PTE_SPECIAL) == 0 and pte & PTE_PRESENT:
            idle += 1
    return idle


@inline
def page_at(s: State, tid: int, slot: int) -> int:
    """The page that an entry maps; of a huge page its head."""
    pfn = (s.pt[tid, slot] & PFN_MASK) >> 12
    return s.mem[pfn]["private"] if s.mem[pfn]["flags"] & PG_TAIL else pfn


@step
def walk_pte_range(s: State, lruvec: int, tid: int, start: int, end: int, can_swap: int, seq: int) -> bool:
    """One table: used pages are promoted; True if enough were to look here again (walk_pte_range)."""
    nodes = s.ctl[CTL_NR_NODES]
    memcg, node = lruvec // nodes, lruvec % nodes
    stats = s.lrugens[lruvec]["mm_stats"]
    young = 0
    for at in range(start, end, MIN_LRU_BATCH):
        first, count = at & 511, min(MIN_LRU_BATCH, end - at)
        stats[LEAF_OLD] += idle_entries(s, tid, first, count)
        used = used_entries(s, tid, first, count)
        while used:
            slot = first + trailing_zeros(used)
            used &= used - 1
            pfn = page_at(s, tid, slot)
            if mine(s, pfn, memcg, node, can_swap):
                make_old(s, tid, slot, pfn)
                young += 1
                lru_gen_promote(s, zone_of(s, pfn), lruvec, pfn, seq % MAX_NR_GENS)
    stats[LEAF_TOTAL] += end - start
    stats[LEAF_YOUNG] += young
    return suitable_to_scan(end - start, young)


@step
def walk_huge(s: State, lruvec: int, tid: int, slot: int, can_swap: int, seq: int) -> None:
    """An entry that maps a huge page is one leaf (walk_pmd_range_locked)."""
    nodes = s.ctl[CTL_NR_NODES]
    stats = s.lrugens[lruvec]["mm_stats"]
    stats[LEAF_TOTAL] += 1
    pfn = (s.pt[tid, slot] & PFN_MASK) >> 12
    if not s.pt[tid, slot] & PTE_A:
        stats[LEAF_OLD] += 1
    elif mine(s, pfn, lruvec // nodes, lruvec % nodes, can_swap) and s.mem[pfn]["flags"] & PG_HEAD:
        s.pt[tid, slot] &= ~PTE_A
        stats[LEAF_YOUNG] += 1
        lru_gen_promote(s, zone_of(s, pfn), lruvec, pfn, seq % MAX_NR_GENS)


@njit
def walk_mm(s: State, lruvec: int, seq: int, can_swap: int, force: int, ranges) -> None:
    """Walk the page tables under `ranges`, rows of (pgd, start, end), for the generation `seq` (walk_pmd_range)."""
    stats = s.lrugens[lruvec]["mm_stats"]
    for i in range(ranges.shape[0]):
        pgd, at, end = ranges[i, 0], ranges[i, 1], ranges[i, 2]
        while at < end:
            upper = find_table(s, pgd, at, 2)
            if upper == 0:
                at = ((at >> 18) + 1) << 18
                continue
            stop = min(end, (at | 511) + 1)
            entry = s.pt[upper, (at >> 9) & 511]
            item = upper << 9 | (at >> 9) & 511
            if not entry & PTE_PRESENT:
                stats[LEAF_TOTAL] += 1
            elif entry & PTE_PS:
                walk_huge(s, lruvec, upper, (at >> 9) & 511, can_swap, seq)
            else:
                stats[NONLEAF_TOTAL] += 1
                if force or test_bloom_filter(s, lruvec, seq, item):
                    stats[NONLEAF_FOUND] += 1
                    if walk_pte_range(s, lruvec, table_of(s, entry), at, stop, can_swap, seq):
                        stats[NONLEAF_ADDED] += 1
                        update_bloom_filter(s, lruvec, seq + 1, item)
            at = stop


@step
def lru_gen_look_around(s: State, pgd: int, tid: int, vpn: int, vm_start: int, vm_end: int, vm_flags: int, pfn: int) -> None:
    """Eviction met a page in use, by an entry of table `tid`: promote those in use among the 64 entries around it (lru_gen_look_around).

    Fewer than 15 move to the youngest generation's list at once; where more do, or during a walk, only their generation changes.
    """
    if vm_flags & (VM_SEQ_READ | VM_RAND_READ):
        return
    memcg, zid = s.mem[pfn]["memcg"], zone_of(s, pfn)
    node = s.zones[zid]["node"]
    lruvec = lruvec_of(s, memcg, node)
    seq = s.lrugens[lruvec]["max_seq"]
    start, end = max((vpn >> 9) << 9, vm_start), min((vpn | 511) + 1, vm_end)
    if end - start > MIN_LRU_BATCH:
        start = min(max(vpn - MIN_LRU_BATCH // 2, start), end - MIN_LRU_BATCH)
        end = start + MIN_LRU_BATCH
    c, first = s.sc[0], start & 511
    can_swap = 1 if not c["walk"] or c["can_swap"] else 0
    used = used_entries(s, tid, first, end - start)
    left = used
    while left:
        prefetch(s.mem, (s.pt[tid, first + trailing_zeros(left)] & PFN_MASK) >> 12, 0)
        left &= left - 1
    young, older = 0, 0
    while used:
        at = trailing_zeros(used)
        used &= used - 1
        near = page_at(s, tid, first + at)
        if not mine(s, near, memcg, node, can_swap):
            continue
        make_old(s, tid, first + at, near)
        young += 1
        gen = lru_gen(s, near)
        if gen < 0:
            s.mem[near]["flags"] |= PG_REFERENCED
        elif gen != seq % MAX_NR_GENS:
            older |= 1 << at
    if suitable_to_scan(end - start, young):
        update_bloom_filter(s, lruvec, seq, find_table(s, pgd, vpn, 2) << 9 | (vpn >> 9) & 511)
    few = not c["walk"] and bits(older) < PAGEVEC_SIZE
    while older:
        near = page_at(s, tid, first + trailing_zeros(older))
        older &= older - 1
        if few:
            folio_activate(s, zone_of(s, near), lruvec, near, seq % MAX_NR_GENS)
        else:
            lru_gen_promote(s, zone_of(s, near), lruvec, near, seq % MAX_NR_GENS)


@inline
def folio_activate(s: State, zid: int, lruvec: int, pfn: int, gen: int) -> None:
    """A page is moved to the youngest generation, its uses through files remembered (folio_activate_fn)."""
    nr = lru_pages(s.mem[pfn]["flags"])
    lru_gen_update_size(s, zid, lruvec, lru_type(s.mem[pfn]["flags"]), lru_gen(s, pfn), gen, nr)
    s.gens[pfn] = (s.gens[pfn] & ~GEN_MASK) | (gen + 1)
    gen_move(s, zid, lruvec, pfn, gen, False)
    s.vm_event[PGACTIVATE] += nr
    s.memcgs[s.mem[pfn]["memcg"]]["stat"][MEMCG_PGACTIVATE] += nr
