"""The translation caches of a processor as a page loop: what each access finds there, and what a walk costs (`tlb` has the essay).

A set is a few neighbouring entries of two columns: `tags` (0: empty) and `stamps`, the access number of the last use. The entry with the
lowest stamp is the one that goes, so replacement is LRU exactly. One row of the columns is one processor; its structures lie in it
one after the other, each with (base, sets - 1, ways) in `geom`. A tag is

    63 .. 8                    7         6 .. 1       0
    page, in its own size      2 MiB     ASID + 1     may be written

The bit 0 is set in what is searched for and in what is compared with, so that it does not matter there. Indices are unsigned: a signed one costs a
branch each time, because it might count from the end.

Sweeps. A program that goes through more memory than the TLB covers, page after page, misses every time, and what it leaves depends on its
last pages only. Let a sweep have touched as many pages as both levels have entries (default: 64 + 1,536). Then each set holds pages of the
sweep and nothing else, in the order of their use. Every further page is found nowhere and takes the place of the oldest, so the ways of a set
are used in turn, and after 1,536 pages (a multiple of 64: the least common one of both) each is where it was. Any number of such rounds may
be left out: count their misses, move the clock on, and go through the last pages one by one. Of a GiB, 262,144 pages, fewer than
5,000 are looked at. The page-walk caches hold entries of 2 MiB and more; they are asked for each of those, as ever. Within a huge page only the
first and the last small page are looked at: those between hit level 1.
"""

from __future__ import annotations

import numpy as np

from core.jit import inline, njit, step
from core.mm.mm_types import Array
from core.mm.pgtable import PFN_MASK, PTE_PS, PTE_RW

L1, L1_HUGE, L2, PDE, PDPTE, PML4E = range(6)  # rows of geom
CLOCK, ACCESSES, HITS, L2_HITS, MISSES, LOADS, NR_STATE = range(7)  # columns of state: of a processor
HUGE_TAG = 1 << 7
WAYS_BITS = 5
WAYS_MASK = (1 << WAYS_BITS) - 1  # of a stamp, left free for `least`: a set has at most 32 ways
MAX_CLOCK = (1 << (31 - WAYS_BITS)) - 1
U, I = np.uint64, np.int32
NONE = np.uint64(1 << 32)


@inline
def find(tags, base, ways, key):
    """The entry of a set that has this tag, or NONE. The whole set is compared, in one stroke: stopping early would cost more."""
    place = U(0)
    for way in range(ways):
        place |= way + U(1) if tags[base + way] | U(1) == key else U(0)
    return base + place - U(1) if place else NONE


@inline
def lookup(tags, base, ways, key):
    """`find`, unrolled for the usual widths."""
    if ways == U(4):
        return find(tags, base, U(4), key)
    if ways == U(12):
        return find(tags, base, U(12), key)
    return find(tags, base, ways, key)


@inline
def least(stamps, base, ways):
    """The entry of a set that was not used for longest: the lowest stamp, its own place in the bits below."""
    lowest = I(0x7FFFFFFF)
    for way in range(ways):
        lowest = min(lowest, stamps[base + way] | I(way))
    return base + U(lowest & I(WAYS_MASK))


@inline
def oldest(stamps, base, ways):
    """`least`, unrolled for the usual widths."""
    if ways == U(4):
        return least(stamps, base, U(4))
    if ways == U(12):
        return least(stamps, base, U(12))
    return least(stamps, base, ways)


@inline
def probe(tags, stamps, base, ways, key, clock):
    """Is it in this set of a page-walk cache? It is afterwards."""
    at = lookup(tags, base, ways, key)
    hit = at != NONE
    if not hit:
        at = oldest(stamps, base, ways)
        tags[at] = key
    stamps[at] = clock << WAYS_BITS
    return hit


@step
def upper_walk(tags, stamps, geom, vpn, low, clock):
    """How many of the two upper levels had to be fetched for a PUD entry and below: 0 the PUD entry was cached, 1 the PGD's, else 2."""
    base = geom[PDPTE, 0] + (vpn >> U(18) & geom[PDPTE, 1]) * geom[PDPTE, 2]
    if probe(tags, stamps, base, geom[PDPTE, 2], vpn >> U(18) << U(8) | low, clock):
        return 0
    base = geom[PML4E, 0] + (vpn >> U(27) & geom[PML4E, 1]) * geom[PML4E, 2]
    return 1 if probe(tags, stamps, base, geom[PML4E, 2], vpn >> U(27) << U(8) | low, clock) else 2


@inline
def upper_entry(pt, mem, pgd, vpn):
    """The PUD entry that covers a page, 0 if there is none."""
    entry = pt[pgd, (vpn >> 27) & 511]
    return pt[mem[(entry & PFN_MASK) >> 12]["private"], (vpn >> 18) & 511] if entry else 0


@step
def access_huge(tags, stamps, geom, vpn, low, writable, write, clock):
    """An access through a huge entry: 0 level 1 had it, 1 level 2, else 1 + entries fetched."""
    page = vpn >> U(9)
    key = page << U(8) | U(HUGE_TAG) | low
    base = geom[L1_HUGE, 0] + (page & geom[L1_HUGE, 1]) * geom[L1_HUGE, 2]
    at = lookup(tags, base, geom[L1_HUGE, 2], key)
    if at != NONE and (not write or tags[at] & U(1)):
        stamps[at] = clock << WAYS_BITS
        return 0
    if at == NONE:
        at = oldest(stamps, base, geom[L1_HUGE, 2])
    below = geom[L2, 0] + (page & geom[L2, 1]) * geom[L2, 2]
    there = lookup(tags, below, geom[L2, 2], key)
    found = 1
    if there == NONE or (write and not tags[there] & U(1)):
        if there == NONE:
            there = oldest(stamps, below, geom[L2, 2])
        found = 2 + upper_walk(tags, stamps, geom, vpn, low, clock)
        tags[there] = key if write or writable else key ^ U(1)
    stamps[there] = clock << WAYS_BITS
    tags[at] = tags[there]
    stamps[at] = clock << WAYS_BITS
    return found


@step
def small_pages(pt, mem, pgd, vpn, n):
    """How many of the `n` pages from `vpn` on come before the first that a huge entry maps."""
    at = vpn
    while at < vpn + n:
        above = upper_entry(pt, mem, pgd, at)
        if above == 0 or above & PTE_PS or pt[mem[(above & PFN_MASK) >> 12]["private"], (at >> 9) & 511] & PTE_PS:
            break
        at = (at | 511) + 1
    return min(at - vpn, n)


@step
def rounds_to_leave_out(geom, pt, mem, pgd, vpn, n):
    """A sweep has just touched `settled_after` pages and goes on with `n` from `vpn`: of these, how many pages make no difference to either level."""
    settled = settled_after(geom)
    entries, full = (geom[L1, 1] + U(1)) * geom[L1, 2], (geom[L2, 1] + U(1)) * geom[L2, 2]
    period = full
    while period % entries:
        period += full
    within = small_pages(pt, mem, pgd, vpn - settled, n + settled) - 2 * settled
    return within // np.int64(period) * np.int64(period) if within > 0 else 0


@inline
def settled_after(geom):
    """How many neighbouring pages one must touch until both levels hold nothing else."""
    return np.int64((geom[L1, 1] + U(1)) * geom[L1, 2] + (geom[L2, 1] + U(1)) * geom[L2, 2])


@step
def walk_upper_levels(tags, stamps, geom, vpn, n, low, clock, walked, walked_above):
    """What the page-walk caches see of `n` misses from `vpn` on: (entries fetched above the last level, walked, walked_above)."""
    loads, at = 0, U(vpn)
    while at < U(vpn + n):
        middle = at >> U(9)
        if middle != walked:
            walked = middle
            now = clock + np.int64(at - U(vpn)) + 1
            base = geom[PDE, 0] + (middle & geom[PDE, 1]) * geom[PDE, 2]
            if not probe(tags, stamps, base, geom[PDE, 2], middle << U(8) | low, now):
                loads += 1
                if at >> U(18) != walked_above:
                    walked_above = at >> U(18)
                    loads += upper_walk(tags, stamps, geom, at, low, now)
        at = (middle + U(1)) << U(9)
    return loads, walked, walked_above


@njit
def access_tlb(columns, state, geom, pt, mem, cpu, pgd, asid, first, step, perm, permuted, begin, end, write):
    """Accesses begin .. end of `first + i * step` (or `first + perm[i]`) on one processor; every page is mapped by now.

    Returns hits of level 1, hits of level 2, misses, entries fetched; all -1 and nothing done if the clock has no room for them (`renumber`).

    An entry that forbids the write is one from before the fault that made the page writable: that fault has thrown it away, the walk is made again.
    """
    tags, stamps = columns[0][cpu], columns[1][cpu]
    l1, l1_mask, l1_ways = geom[L1, 0], geom[L1, 1], geom[L1, 2]
    l2, l2_mask, l2_ways = geom[L2, 0], geom[L2, 1], geom[L2, 2]
    pde, pde_mask, pde_ways = geom[PDE, 0], geom[PDE, 1], geom[PDE, 2]
    clock = state[cpu, CLOCK]
    if clock + end - begin > MAX_CLOCK:
        return -1, -1, -1, -1
    hits, l2_hits, misses, loads = 0, 0, 0, 0
    low = (U(asid) + U(1)) << U(1) | U(1)
    upper, above, block, entry, last, huge = -1, 0, -1, 0, -1, False
    pmd, walked, walked_above = 0, NONE << U(20), NONE << U(20)
    sweep = not permuted and step == 1
    settled = settled_after(geom)
    look = begin + settled if sweep else end  # when it may be time to leave rounds out
    i = begin
    while i < end:
        if i >= look:
            alike = rounds_to_leave_out(geom, pt, mem, pgd, first + i, end - i)
            if alike:
                above_it, walked, walked_above = walk_upper_levels(tags, stamps, geom, first + i, alike, low, clock, walked, walked_above)
                i, clock, misses, loads = i + alike, clock + alike, misses + alike, loads + alike + above_it
            look = i + settled
        vpn = first + (perm[i] if permuted else i * step)
        i += 1
        if vpn == last:
            hits += 1
            continue
        last = vpn
        clock += 1
        if vpn >> 9 != block:
            block = vpn >> 9
            if vpn >> 18 != upper:
                upper = vpn >> 18
                above = upper_entry(pt, mem, pgd, vpn)
                pmd = 0 if above == 0 or above & PTE_PS else mem[(above & PFN_MASK) >> 12]["private"]
            entry = pt[pmd, block & 511] if pmd else above
            huge = entry & PTE_PS != 0
        page = U(vpn)
        if huge:
            found = access_huge(tags, stamps, geom, page, low, entry & PTE_RW != 0, write, clock)
            hits += found == 0
            l2_hits += found == 1
            misses += found > 1
            loads += found - 1 if found > 1 else 0
            walked_above = NONE << U(20)
            between = min(511 - (vpn & 511), end - i) - 1
            if sweep and between > 0:
                i, clock, hits = i + between, clock + between, hits + between
            continue
        key = page << U(8) | low
        base = l1 + (page & l1_mask) * l1_ways
        at = lookup(tags, base, l1_ways, key)
        if at != NONE and (not write or tags[at] & U(1)):
            stamps[at] = clock << WAYS_BITS
            hits += 1
            continue
        if at == NONE:
            at = oldest(stamps, base, l1_ways)
        base = l2 + (page & l2_mask) * l2_ways
        there = lookup(tags, base, l2_ways, key)
        if there != NONE and (not write or tags[there] & U(1)):
            l2_hits += 1
            key = tags[there]
        else:
            if there == NONE:
                there = oldest(stamps, base, l2_ways)
            if not write and not (entry and pt[mem[(entry & PFN_MASK) >> 12]["private"], vpn & 511] & PTE_RW):
                key ^= U(1)
            tags[there] = key
            misses += 1
            loads += 1
            middle = page >> U(9)
            if middle != walked:  # else it is the latest used already
                walked = middle
                if not probe(tags, stamps, pde + (middle & pde_mask) * pde_ways, pde_ways, middle << U(8) | low, clock):
                    loads += 1
                    if page >> U(18) != walked_above:
                        walked_above = page >> U(18)
                        loads += upper_walk(tags, stamps, geom, page, low, clock)
        stamps[there] = clock << WAYS_BITS
        tags[at] = key
        stamps[at] = clock << WAYS_BITS
    state[cpu, CLOCK] = clock
    state[cpu, ACCESSES] += end - begin
    state[cpu, HITS] += hits
    state[cpu, L2_HITS] += l2_hits
    state[cpu, MISSES] += misses
    state[cpu, LOADS] += loads
    return hits, l2_hits, misses, loads


@njit
def flush_asid(columns, cpu, asid):
    """Forget everything of one ASID (-1: everything) on one processor: how many entries there were."""
    tags, stamps = columns[0][cpu], columns[1][cpu]
    gone = 0
    for at in range(len(tags)):
        if tags[at] and (asid < 0 or (tags[at] >> U(1)) & U(63) == U(asid + 1)):
            tags[at] = U(0)
            stamps[at] = 0
            gone += 1
    return gone


@njit
def flush_pages(columns, geom, cpu, asid, start, end, stride):
    """INVLPG for every `stride`-th page of [start, end): its entries go, and all that the page-walk caches know of the ASID."""
    tags, stamps = columns[0][cpu], columns[1][cpu]
    low = (U(asid) + U(1)) << U(1) | U(1)
    for vpn in range(start, end, stride):
        small, large = U(vpn), U(vpn) >> U(9)
        drop(tags, stamps, geom, L1, small, small << U(8) | low)
        drop(tags, stamps, geom, L2, small, small << U(8) | low)
        drop(tags, stamps, geom, L1_HUGE, large, large << U(8) | U(HUGE_TAG) | low)
        drop(tags, stamps, geom, L2, large, large << U(8) | U(HUGE_TAG) | low)
    for at in range(geom[PDE, 0], U(len(tags))):
        if (tags[at] >> U(1)) & U(63) == U(asid + 1):
            tags[at] = U(0)
            stamps[at] = 0


@inline
def drop(tags, stamps, geom, which, page, key):
    """One entry of one structure, if it is there."""
    base = geom[which, 0] + (page & geom[which, 1]) * geom[which, 2]
    at = lookup(tags, base, geom[which, 2], key)
    if at != NONE:
        tags[at] = U(0)
        stamps[at] = 0


def renumber(stamps: Array) -> int:
    """Stamps by their rank, before the clock outgrows 31 bits; nothing else changes. The clock to go on with."""
    values, ranks = np.unique(stamps, return_inverse=True)
    ranks = ranks.reshape(stamps.shape) + (1 if values[0] else 0)
    stamps[:] = ranks << WAYS_BITS
    return int(ranks.max())
