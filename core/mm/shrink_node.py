"""The rounds of reclaim as loops that can be taken up again (mm/vmscan.c: shrink_node, do_try_to_free_pages, a round of balance_pgdat).

`vmscan` says who asks and tells what came of it; here the work is done, from the first round to the last, without a word of Python
between. `State.sc` keeps where it stands, so that it can stop for what it does not decide and go on after it:

    ISOLATE     another policy than the classic one: it visits the cgroup `sc.memcg`
    AGE         likewise what kswapd does for its lists before a round
    SPLIT       `sc.memcg` has huge pages that wait to be split (huge_memory.deferred_split_shrink)
    LOW         `sc.memcg` is taken below its memory.low: an event
    SLAB        what else can be had: the huge zero page, huge pages that reach beyond the end of their object (`shrinker`)
    FLUSH       dirty pages of files stand at the end of a list: the flusher must write
    FULL        there is no room for what came of another visit (`Rmap.visits`)

A round visits the cgroups below the target in their order, those with protection left out or taken in part, and asks `lru_classic.shrink_lruvec` for
each one's share. What each visit came to stands in `Rmap.visits`.
"""

from __future__ import annotations

from core.jit import inline, njit, step
from core.mm.lru_classic import age_active_anon, inactive_is_low, shrink_lruvec
from core.mm.mm_inline import lru_gen_enabled
from core.mm.mm_types import (
    CLASSIC,
    CTL_HUGE_ZERO,
    CTL_LOOKS,
    CTL_NR_NODES,
    CTL_POLICY,
    CTL_SHRINKLIST,
    WMARK_HIGH,
    ZONES_PER_NODE,
    State,
)
from core.mm.rmap_walk import Rmap, belongs
from core.vmstat import NODE

DONE, ISOLATE, AGE, SPLIT, LOW, SLAB, FLUSH, FULL = range(8)

DEF_PRIORITY = 12
SWAP_CLUSTER_MAX = 32
HUGE_ZERO_PRIORITY = 3  # where 512 pages, the huge zero page, are worth a batch of its shrinker
DEACTIVATE_ANON, DEACTIVATE_FILE = 1, 2
ACTIVATE_ANON, ACTIVATE_FILE = NODE["workingset_activate_anon"], NODE["workingset_activate_file"]
IMMEDIATE = NODE["nr_vmscan_immediate_reclaim"]

# where a round stands (sc.stage), and a reclaim (sc.round)
FRESH, NEXT, TAKEN, ISOLATED, SHRUNK, AFTER, FLUSHED = range(7)
START, AGED = range(2)


# ---------------------------------------------------------------- one round


@step
def shrink_node(s: State, r: Rmap) -> int:
    """One round over the cgroups below sc.target on the node sc.node (shrink_node): DONE, or why it stopped."""
    c = s.sc[0]
    if c["stage"] == FRESH:
        prepare_scan_count(s, r)
        c["immediate"], c["at"], c["stage"] = s.node_stat[c["node"], IMMEDIATE], 0, NEXT
    while c["at"] < len(r.order):
        reason = visit(s, r)
        if reason:
            return reason
        c["at"] += 1
        c["stage"] = NEXT
    if c["stage"] == NEXT:
        c["stage"] = AFTER
        if c["target"] == 0 and (s.ctl[CTL_SHRINKLIST] or (c["priority"] <= HUGE_ZERO_PRIORITY and s.ctl[CTL_HUGE_ZERO])):
            return SLAB
    if c["stage"] == AFTER:
        c["stage"] = FLUSHED
        if s.node_stat[c["node"], IMMEDIATE] > c["immediate"]:
            return FLUSH
    c["stage"] = FRESH
    return DONE


@step
def visit(s: State, r: Rmap) -> int:
    """The visit to one cgroup of a round: DONE, or why it stopped."""
    c = s.sc[0]
    memcg = r.order[c["at"]]
    c["memcg"] = memcg
    if c["stage"] == NEXT:
        if c["target"] and not belongs(s, memcg, c["target"]):
            return DONE
        standing = calculate_protection(s, r, memcg, c["memcg_low_reclaim"] == 0)
        if standing == WITHIN:
            return DONE
        c["stage"] = TAKEN
        if standing == BELOW_LOW:
            return LOW
    if c["stage"] == TAKEN:
        if lists_empty(s, memcg * s.ctl[CTL_NR_NODES] + c["node"]):
            return DONE  # its children may have pages: it was asked for what it passes on to them
        if c["row"] == len(r.visits):
            return FULL
        begin_visit(s, r)
        c["stage"] = ISOLATED
        if s.ctl[CTL_POLICY] != CLASSIC:
            return ISOLATE
        shrink_lruvec(s, r, memcg)
    if c["stage"] == ISOLATED:
        c["stage"] = SHRUNK
        if s.memcgs[memcg]["split_len"]:
            return SPLIT
    end_visit(s, r)
    return DONE


@inline
def lists_empty(s: State, lruvec: int) -> bool:
    """Has a cgroup no page on a node?"""
    nr = s.lruvecs[lruvec]["nr"]
    return nr[0] == 0 and nr[1] == 0 and nr[2] == 0 and nr[3] == 0 and nr[4] == 0


@inline
def begin_visit(s: State, r: Rmap) -> None:
    """What is looked at from now on belongs to this visit: its row holds what there was before."""
    c, row = s.sc[0], r.visits[s.sc[0]["row"]]
    c["visit"], c["looked"] = c["nr_visits"], s.ctl[CTL_LOOKS]
    row["memcg"], row["node"], row["priority"], row["kswapd"] = c["memcg"], c["node"], c["priority"], c["kswapd"]
    row["scanned"], row["written"] = c["nr_scanned"], c["nr_io"]
    for lru in range(4):
        row["list_scanned"][lru], row["list_freed"][lru] = c["list_scanned"][lru], c["list_reclaimed"][lru]


@inline
def end_visit(s: State, r: Rmap) -> None:
    """The row holds what the visit came to."""
    c, row = s.sc[0], r.visits[s.sc[0]["row"]]
    row["looked"], row["visit"] = s.ctl[CTL_LOOKS] - c["looked"], c["nr_visits"]
    c["nr_visits"] += 1 if row["looked"] else 0
    row["scanned"], row["written"] = c["nr_scanned"] - row["scanned"], c["nr_io"] - row["written"]
    row["freed"] = 0
    for lru in range(4):
        row["list_scanned"][lru] = c["list_scanned"][lru] - row["list_scanned"][lru]
        row["list_freed"][lru] = c["list_reclaimed"][lru] - row["list_freed"][lru]
        row["freed"] += row["list_freed"][lru]
    c["row"] += 1


@step
def prepare_scan_count(s: State, r: Rmap) -> None:
    """What holds for the whole round: costs, whether to deactivate, whether the file lists are worth it (prepare_scan_count)."""
    if lru_gen_enabled(s):
        return
    c = s.sc[0]
    node, lruvec = c["node"], c["target"] * s.ctl[CTL_NR_NODES] + c["node"]
    vec = s.lruvecs[lruvec]
    tree = vec["tree"]
    c["anon_cost"], c["file_cost"] = vec["cost"][0], vec["cost"][1]
    may = DEACTIVATE_ANON | DEACTIVATE_FILE
    if not c["force_deactivate"]:
        may = 0
        for kind in range(2):
            if refaults(s, r, node, c["target"], kind) != vec["refaults"][kind] or inactive_is_low(s, lruvec, 2 * kind):
                may |= DEACTIVATE_FILE if kind else DEACTIVATE_ANON
    c["may_deactivate"] = may
    c["cache_trim_mode"] = 1 if tree[2] >> c["priority"] > 0 and not may & DEACTIVATE_FILE else 0
    c["file_is_tiny"] = 0
    if c["target"] == 0:
        free, high = 0, 0
        for zid in range(node * ZONES_PER_NODE, (node + 1) * ZONES_PER_NODE):
            free += s.zones[zid]["free"]
            high += s.zones[zid]["wmark"][WMARK_HIGH]
        tiny = tree[2] + tree[3] + free <= high
        c["file_is_tiny"] = 1 if tiny and not may & DEACTIVATE_ANON and tree[0] >> c["priority"] > 0 else 0


@inline
def refaults(s: State, r: Rmap, node: int, target: int, kind: int) -> int:
    """Activations by refault so far, anonymous (kind 0) or of files, below a cgroup (the root: of the node)."""
    if target == 0:
        return s.node_stat[node, ACTIVATE_ANON + kind]
    total = 0
    for at in range(len(r.order)):
        if belongs(s, r.order[at], target):
            total += s.memcgs[r.order[at]]["stat"][ACTIVATE_ANON + kind]
    return total


@step
def snapshot_refaults(s: State, r: Rmap, target: int) -> None:
    """Remember them: only new ones count at the next reclaim."""
    if lru_gen_enabled(s):
        return
    for node in range(s.ctl[CTL_NR_NODES]):
        vec = s.lruvecs[target * s.ctl[CTL_NR_NODES] + node]
        for kind in range(2):
            vec["refaults"][kind] = refaults(s, r, node, target, kind)


@njit
def remember_refaults(s: State, r: Rmap, target: int) -> None:
    """`snapshot_refaults`, callable from Python."""
    snapshot_refaults(s, r, target)


# ---------------------------------------------------------------- protection

OPEN, WITHIN, BELOW_LOW = range(3)  # unprotected; passed over; taken although it is below its memory.low


@step
def calculate_protection(s: State, r: Rmap, memcg: int, low_too: bool) -> int:
    """Is a cgroup within its memory.min (or, with `low_too`, its memory.low)? Then reclaim for sc.target passes it over.

    Leaves the effective protection in the cgroup's row for get_scan_count (mem_cgroup_calculate_protection).
    """
    c, row = s.sc[0], s.memcgs[memcg]
    row["emin"], row["elow"] = 0, 0
    usage = row["usage"]
    if memcg == c["target"] or memcg == 0 or usage == 0:
        return OPEN
    parent = row["parent"]
    if parent == c["target"] or parent == 0:
        row["emin"], row["elow"] = row["min"], row["low"]
    else:
        above, claimed_min, claimed_low = s.memcgs[parent], 0, 0
        for at in range(len(r.order)):
            child = s.memcgs[r.order[at]]
            if r.order[at] and child["parent"] == parent and not child["offline"]:
                claimed_min += min(child["usage"], child["min"])
                claimed_low += min(child["usage"], child["low"])
        row["emin"] = effective_protection(usage, above["usage"], row["min"], above["emin"], claimed_min, c["recursive"] != 0)
        row["elow"] = effective_protection(usage, above["usage"], row["low"], above["elow"], claimed_low, c["recursive"] != 0)
    if row["emin"] >= usage:
        return WITHIN
    if row["elow"] >= usage:
        if not low_too:
            return BELOW_LOW
        c["memcg_low_skipped"] = 1
        return WITHIN
    return OPEN


@njit
def protection(s: State, r: Rmap, memcg: int, low_too: bool) -> int:
    """`calculate_protection`, callable from Python."""
    return calculate_protection(s, r, memcg, low_too)


@njit
def effective_protection(usage: int, parent_usage: int, setting: int, parent_effective: int, siblings_protected: int,
                         recursive: bool = False) -> int:  # fmt: skip
    """What memory.min or memory.low really protects of a cgroup (effective_protection), in pages (or any one unit).

    Claims of siblings beyond the parent's own protection are scaled down in proportion; with the mount option
    memory_recursiveprot, what the children do not claim is shared out by unprotected usage.
    """
    protected = min(usage, setting)
    if siblings_protected > parent_effective:
        return protected * parent_effective // siblings_protected
    effective = protected
    if recursive and parent_effective > siblings_protected and parent_usage > siblings_protected and usage > protected:
        unclaimed, unprotected = parent_effective - siblings_protected, usage - protected
        if unclaimed > (1 << 62) // unprotected:  # "max": more than there is
            return usage
        effective += unclaimed * unprotected // (parent_usage - siblings_protected)
    return effective


# ---------------------------------------------------------------- those who ask


@njit
def try_to_free_pages(s: State, r: Rmap) -> int:
    """Rounds of falling priority until sc.nr_to_reclaim pages are free (do_try_to_free_pages): DONE, or why it stopped."""
    c = s.sc[0]
    while True:
        while c["priority"] >= 0:
            while c["node"] < s.ctl[CTL_NR_NODES]:
                if c["nodes"] == 0 or (c["nodes"] >> c["node"]) & 1:
                    reason = shrink_node(s, r)
                    if reason:
                        return reason
                c["node"] += 1
            c["node"] = 0
            if c["nr_reclaimed"] >= c["nr_to_reclaim"]:
                break
            c["priority"] -= 1
        snapshot_refaults(s, r, c["target"])
        if c["nr_reclaimed"]:
            return DONE
        if c["skipped_deactivate"] and not c["force_deactivate"]:
            c["force_deactivate"], c["skipped_deactivate"] = 1, 0
        elif c["memcg_low_skipped"]:
            c["memcg_low_reclaim"], c["memcg_low_skipped"] = 1, 0
            c["force_deactivate"] = 0
        else:
            return DONE
        c["priority"] = DEF_PRIORITY


@inline
def pgdat_balanced(s: State, node: int) -> bool:
    """Is some zone of the node above its high mark, boost included (pgdat_balanced)?"""
    for zid in range(node * ZONES_PER_NODE, (node + 1) * ZONES_PER_NODE):
        zone = s.zones[zid]
        if zone["managed"] > 0 and zone["free"] > zone["wmark"][WMARK_HIGH] + zone["boost"] + zone["lowmem_reserve"][3]:
            return True
    return False


@njit
def is_balanced(s: State, node: int) -> bool:
    """`pgdat_balanced`, callable from Python."""
    return pgdat_balanced(s, node)


@njit
def balance_round(s: State, r: Rmap) -> int:
    """One round of kswapd on the node sc.node, its lists aged first (kswapd_age_node): DONE, or why it stopped."""
    c = s.sc[0]
    if c["round"] == START:
        c["round"] = AGED
        if s.ctl[CTL_POLICY] != CLASSIC:
            return AGE
        for at in range(len(r.order)):
            age_active_anon(s, r, r.order[at])
    return shrink_node(s, r)


@njit
def one_round(s: State, r: Rmap) -> int:
    """`shrink_node`, callable from Python."""
    return shrink_node(s, r)
