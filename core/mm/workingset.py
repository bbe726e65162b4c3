"""Workingset: telling a page that came back too soon from one that was not missed (mm/workingset.c).

The question. A page is read again after it was evicted. Was memory merely full of pages used once, or would the page
have stayed if the active list had been a little shorter?

The measure. Each list of a cgroup keeps an age that grows by one for every eviction and every activation. An evicted
page leaves a *shadow* with the age of that moment in its place. When it comes back, `distance = age now - age then` is how many
pages were evicted or activated in between: the number of pages by which memory was too small for it. If that is no
more than the pages that it would have competed with (the *workingset*), it goes straight to the active list.

    inactive 600 pages, active 400. Page p evicted at age 5000, comes back at age 5300: distance 300 <= 400: activated.
    A loop over twice the memory: every distance is about the size of memory, larger than any active list: nobody is.

What it competes with: active file pages, for an anonymous page inactive file pages, too; if there is swap left, active
anonymous pages and, for a file page, inactive anonymous pages. A page that had been active before it was evicted (the shadow's
workingset bit) also raises the cost of its kind, which shifts the balance between file and anonymous pages.

A shadow here is a negative number in the page's slot (radix node or swap slot): age, node, cgroup, workingset bit.
"""

from __future__ import annotations

from core.abi.page_flags import PG_ACTIVE, PG_WORKINGSET
from core.jit import inline, step
from core.mm.mm_inline import MAX_REFS, REFS_SHIFT, lru_gen_enabled, lru_pages, lru_refs, lru_tier, lru_type, lruvec_of
from core.mm.mm_types import CTL_IN_LRU_FAULT, CTL_NR_NODES, CTL_SWAP_FREE, MAX_NR_TIERS, State
from core.mm.swap import age_nonresident
from core.vmstat import NODE

REFAULT_ANON = NODE["workingset_refault_anon"]  # + 1: file; likewise below
ACTIVATE_ANON = NODE["workingset_activate_anon"]
RESTORE_ANON = NODE["workingset_restore_anon"]


@step
def workingset_eviction(s: State, target: int, node: int, pfn: int) -> int:
    """A page leaves memory on behalf of `target` (0: the machine): its shadow, a negative number."""
    if lru_gen_enabled(s):
        return lru_gen_eviction(s, node, pfn)
    lruvec = lruvec_of(s, target, node)
    age = s.lruvecs[lruvec]["age"]
    age_nonresident(s, lruvec, lru_pages(s.mem[pfn]["flags"]))
    was = 1 if s.mem[pfn]["flags"] & PG_WORKINGSET else 0
    return pack_shadow(age, node, target, was)


@inline
def pack_shadow(age: int, node: int, memcg: int, was: int) -> int:
    """Age, node, cgroup and the workingset bit as one negative number."""
    return -1 - ((((age << 4) | node) << 13 | memcg) << 1 | was)


@step
def lru_gen_eviction(s: State, node: int, pfn: int) -> int:
    """For the multi-gen LRU a shadow holds the generation that was evicted and the page's refs, and its tier is counted."""
    memcg, kind, refs = s.mem[pfn]["memcg"], lru_type(s.mem[pfn]["flags"]), lru_refs(s, pfn)
    vec = s.lrugens[lruvec_of(s, memcg, node)]
    vec["evicted"][kind * MAX_NR_TIERS + lru_tier(refs)] += lru_pages(s.mem[pfn]["flags"])
    return pack_shadow(vec["min_seq"][kind] << 2 | max(refs - 1, 0), node, memcg, 1 if refs else 0)


@step
def lru_gen_refault(s: State, node: int, pfn: int, shadow: int, file: int) -> None:
    """It is back while that generation is still the oldest: counted for its tier; one that a fault wanted, or often used, is restored."""
    packed = -1 - shadow
    was, memcg, evicted_node, token = packed & 1, (packed >> 1) & 8191, (packed >> 14) & 15, packed >> 18
    page = s.mem[pfn]
    vec = s.lrugens[lruvec_of(s, memcg, node)]
    if evicted_node != node or page["memcg"] != memcg or token >> 2 != vec["min_seq"][file]:
        return
    refs = (token & MAX_REFS) + was
    vec["refaulted"][file * MAX_NR_TIERS + lru_tier(refs)] += 1
    s.node_stat[node, REFAULT_ANON + file] += 1
    s.memcgs[memcg]["stat"][REFAULT_ANON + file] += 1
    if s.ctl[CTL_IN_LRU_FAULT] or refs >= MAX_REFS:
        page["flags"] |= PG_WORKINGSET
        s.gens[pfn] |= MAX_REFS << REFS_SHIFT
        s.node_stat[node, RESTORE_ANON + file] += 1
        s.memcgs[memcg]["stat"][RESTORE_ANON + file] += 1


@step
def workingset_refault(s: State, node: int, pfn: int, shadow: int, file: int) -> None:
    """A page with a shadow is back, not yet on a list: activate it if it was missed too soon."""
    if lru_gen_enabled(s):
        lru_gen_refault(s, node, pfn, shadow, file)
        return
    packed = -1 - shadow
    was, target = packed & 1, (packed >> 1) & 8191
    evicted_node, age = (packed >> 14) & 15, packed >> 18
    page = s.mem[pfn]
    memcg = page["memcg"]
    s.node_stat[node, REFAULT_ANON + file] += 1
    s.memcgs[memcg]["stat"][REFAULT_ANON + file] += 1
    vec = s.lruvecs[lruvec_of(s, target, evicted_node)]
    size = vec["tree"][3]
    if not file:
        size += vec["tree"][2]
    if nr_swap_pages(s, target) > 0:
        size += vec["tree"][1]
        if file:
            size += vec["tree"][0]
    if vec["age"] - age > size:
        return
    page["flags"] |= PG_ACTIVE
    age_nonresident(s, lruvec_of(s, memcg, node), 1)
    s.node_stat[node, ACTIVATE_ANON + file] += 1
    s.memcgs[memcg]["stat"][ACTIVATE_ANON + file] += 1
    if was:
        page["flags"] |= PG_WORKINGSET
        lru_note_cost(s, lruvec_of(s, memcg, node), file, 1)
        s.node_stat[node, RESTORE_ANON + file] += 1
        s.memcgs[memcg]["stat"][RESTORE_ANON + file] += 1


@step
def lru_note_cost(s: State, lruvec: int, file: int, nr: int) -> None:
    """Reclaiming this kind cost I/O (lru_note_cost): remembered up the tree, halved as it outgrows the lists."""
    nodes = s.ctl[CTL_NR_NODES]
    memcg, node = lruvec // nodes, lruvec % nodes
    while True:
        vec = s.lruvecs[memcg * nodes + node]
        vec["cost"][file] += nr
        tree = vec["tree"]
        if vec["cost"][0] + vec["cost"][1] > (tree[0] + tree[1] + tree[2] + tree[3]) >> 2:
            vec["cost"][0] >>= 1
            vec["cost"][1] >>= 1
        if memcg == 0:
            break
        memcg = s.memcgs[memcg]["parent"]


@step
def nr_swap_pages(s: State, memcg: int) -> int:
    """Free swap that a cgroup may still use (mem_cgroup_get_nr_swap_pages): the machine's, cut by every swap.max above."""
    free = s.ctl[CTL_SWAP_FREE]
    while memcg > 0:
        row = s.memcgs[memcg]
        free = min(free, row["swap_max"] - row["swap"])
        memcg = row["parent"]
    return free
