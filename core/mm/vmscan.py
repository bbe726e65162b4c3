"""Reclaim: who asks, for how much, and how hard it tries (mm/vmscan.c).

Three ask. *kswapd* of a node runs when a zone falls below its low mark until one is above its high mark; a task that finds
nothing above the min mark reclaims 32 pages itself (*direct*); a charge that a cgroup's limit refuses, a write to
memory.max or memory.high, and memory.reclaim reclaim from that cgroup's subtree (*memcg*).

Each asks in rounds of falling priority: at priority p a list gives 1/2^p of its pages to be looked at, from 12 (a
4096th) down to 0 (all). Within a round every cgroup below the target is visited, its share of anonymous and file pages
following from swappiness and from what each kind has cost lately (`lru_classic.get_scan_count`); those within their memory.min
are passed over, those within memory.low are passed over in a first attempt and only taken if it found nothing else.

    cgroup of 8,192 pages, all touched once, limit reached, 32 wanted: rounds look at 2, 4, 8, ... pages, find each used
    (first look), until priority 0 has looked at all; the next round writes some out and the one after frees them

Files first: with no swap left, or anonymous pages nobody may swap, only the file lists are looked at; if plenty of inactive
file pages are there and nothing suggests that they are needed, anonymous pages are left alone (cache_trim_mode).

Time: each look, each write and each wait has its price in `Costs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.events import Reclaim, SwapOut
from core.mm import compaction, huge_memory, lru_gen, memcontrol, policy, rmap_walk
from core.mm.lru_classic import inactive_low, pageout_range
from core.mm.mm_types import CTL_LOOKS, HPAGE_PMD_NR, PAGEBLOCK_ORDER, SC, WMARK_HIGH, ZONES_PER_NODE
from core.record import keep
from core.vmstat import EVENT, NODE

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup

DEF_PRIORITY = 12
FRESH = np.zeros(1, SC)
SWAP_CLUSTER_MAX = 32
BATCH = 64  # pages that a policy may take at once
HUGE_ZERO_PRIORITY = 3  # where 512 pages, the huge zero page, are worth a batch of its shrinker
DEACTIVATE_ANON, DEACTIVATE_FILE = 1, 2
LISTS = ("inactive_anon", "active_anon", "inactive_file", "active_file")
ACTIVATE_ANON, ACTIVATE_FILE = NODE["workingset_activate_anon"], NODE["workingset_activate_file"]
IMMEDIATE = NODE["nr_vmscan_immediate_reclaim"]


class Workspace:
    """Arrays that the loops of one reclaim write into, and the page-cache roots they need."""

    __slots__ = ("batch", "nr", "roots", "dropped")

    def __init__(self, k: Kernel) -> None:
        self.batch = np.zeros(BATCH + HPAGE_PMD_NR, np.int64)
        self.nr = np.zeros(8, np.int64)
        tables = rmap_walk.tables(k)
        self.roots, self.dropped = tables.file_root, tables.file_lost

    def settle(self, k: Kernel) -> None:
        """Tell the files how many pages they lost."""
        rmap_walk.settle(k)


def workspace(k: Kernel) -> Workspace:
    """The arrays of this moment: they last as long as the reverse-mapping tables, and no file has got or lost its tree meanwhile."""
    rmap_walk.tables(k)
    if k.rmap[2] is None:
        k.rmap[2] = Workspace(k)
    space: Workspace = k.rmap[2]
    return space


def begin(k: Kernel, target: int, nr: int, *, may_swap: bool = True, kswapd: bool = False) -> Any:
    """A fresh scan_control."""
    k.s.sc[:] = FRESH
    c = k.s.sc[0]
    c["target"], c["priority"], c["nr_to_reclaim"] = target, DEF_PRIORITY, nr
    c["may_swap"], c["may_writepage"], c["may_unmap"], c["kswapd"] = may_swap, 1, 1, kswapd
    c["swappiness"], c["block_heads"] = int(k.sysctl["vm.swappiness"]), k.machine.storage.buffers
    return c


def reclaim(k: Kernel, cg: Cgroup, nr: int, by: str | None = None, *, may_swap: bool = True, nodes: list[int] | None = None) -> int:
    """Free about `nr` pages charged below `cg` (the root: anywhere): how many were (do_try_to_free_pages).

    `nodes`: those that the allocation is confined to by a memory policy; None: all.
    """
    c = begin(k, cg.id, max(nr, SWAP_CLUSTER_MAX), may_swap=may_swap, kswapd=by == "kswapd")
    space = workspace(k)
    who = by or ("memcg" if cg.parent is not None else "direct")
    while True:
        c["priority"] = DEF_PRIORITY
        while c["priority"] >= 0:
            shrink_zones(k, cg, space, who, nodes)
            if c["nr_reclaimed"] >= c["nr_to_reclaim"]:
                break
            c["priority"] -= 1
        snapshot_refaults(k, cg)
        if c["nr_reclaimed"]:
            break
        if c["skipped_deactivate"] and not c["force_deactivate"]:
            c["force_deactivate"], c["skipped_deactivate"] = 1, 0
        elif c["memcg_low_skipped"]:
            c["memcg_low_reclaim"], c["memcg_low_skipped"] = 1, 0
            c["force_deactivate"] = 0
        else:
            break
    return int(c["nr_reclaimed"])


def shrink_zones(k: Kernel, cg: Cgroup, space: Workspace, who: str, nodes: list[int] | None) -> None:
    """One round on every node that could give what is wanted."""
    for node in range(k.nr_nodes) if nodes is None else nodes:
        shrink_node(k, node, cg, space, who)


def shrink_node(k: Kernel, node: int, cg: Cgroup, space: Workspace, who: str) -> None:
    """One round over the cgroups below `cg` on one node (shrink_node)."""
    c = k.s.sc[0]
    c["node"] = node
    prepare_scan_count(k, node, cg)
    r = rmap_walk.tables(k)
    isolate = policy.policy_of(k).isolate
    nodes = k.nr_nodes
    immediate = int(k.s.node_stat[node, IMMEDIATE])
    for at in memcontrol.reclaim_order(k, cg):
        if memcontrol.protected(k, cg, at, low_too=not c["memcg_low_reclaim"]):
            continue
        if not k.s.lruvecs["nr"][at.id * nodes + node].any():
            continue  # its children may have pages: it was asked for what it passes on to them
        scanned, freed, io = int(c["nr_scanned"]), int(c["list_reclaimed"].sum()), int(c["nr_io"])
        before = (c["list_scanned"].copy(), c["list_reclaimed"].copy())
        looked = begin_visit(k)
        isolate(k, r, at.id, space)
        huge_memory.deferred_split_shrink(k, at, int(c["priority"]))
        scanned = int(c["nr_scanned"]) - scanned
        k.clock.spend(scanned * k.costs.scan_page)
        visited(k, looked, who, node, at.path, int(c["priority"]), k.nr_events + 1 if scanned else 0)
        if scanned:
            note(k, at, node, who, scanned, int(c["list_reclaimed"].sum()) - freed, int(c["nr_io"]) - io, before)
    if cg.parent is None and int(c["priority"]) <= HUGE_ZERO_PRIORITY:
        huge_memory.shrink_huge_zero_page(k)
    space.settle(k)
    if int(k.s.node_stat[node, IMMEDIATE]) > immediate:
        k.flush_dirty("reclaim")


def begin_visit(k: Kernel) -> int:
    """What is looked at from now on belongs to the next visit; how many looks there were before."""
    k.s.sc[0]["visit"] = k.records.nr_visits
    return int(k.s.ctl[CTL_LOOKS])


def visited(k: Kernel, looked: int, by: str, node: int, cgroup: str, priority: int, event: int) -> None:
    """The visit is over: kept for `explain` if anything was looked at. `event`: the number of the one that tells of it, 0: none does."""
    if int(k.s.ctl[CTL_LOOKS]) == looked:
        return
    keep(k.records.visits, {"visit": k.records.nr_visits, "event": event, "clock_ns": k.clock.now, "by": by, "node": node, "cgroup": cgroup,
                            "priority": priority})  # fmt: skip
    k.records.nr_visits += 1


def note(k: Kernel, cg: Cgroup, node: int, who: str, scanned: int, freed: int, written: int, before: Any) -> None:
    """The events of one visit, and the time of its writes."""
    c = k.s.sc[0]
    looked, got = (c["list_scanned"] - before[0]).tolist(), (c["list_reclaimed"] - before[1]).tolist()
    lists = {name: [looked[lru], got[lru]] for lru, name in enumerate(LISTS) if looked[lru]}
    number = k.emit(Reclaim(k.clock.now, who, node, cg.path, int(c["priority"]), scanned, freed, lists))
    if written:
        k.clock.spend(written * k.costs.swap_out)
        with k.because(number):
            k.emit(SwapOut(k.clock.now, written, 0, 0, cg.path))


def prepare_scan_count(k: Kernel, node: int, cg: Cgroup) -> None:
    """What holds for the whole round: costs, whether to deactivate, whether the file lists are worth it (prepare_scan_count)."""
    if lru_gen.is_on(k):
        return
    s, c = k.s, k.s.sc[0]
    vec = s.lruvecs[cg.id * k.nr_nodes + node]
    tree = vec["tree"]
    c["anon_cost"], c["file_cost"] = vec["cost"][0], vec["cost"][1]
    may = DEACTIVATE_ANON | DEACTIVATE_FILE
    if not c["force_deactivate"]:
        may = 0
        now, before = refaults(k, node, cg), vec["refaults"].tolist()
        for kind, bit in enumerate((DEACTIVATE_ANON, DEACTIVATE_FILE)):
            if now[kind] != before[kind] or inactive_low(s, cg.id * k.nr_nodes + node, 2 * kind):
                may |= bit
    c["may_deactivate"] = may
    c["cache_trim_mode"] = int(int(tree[2]) >> int(c["priority"]) > 0 and not may & DEACTIVATE_FILE)
    c["file_is_tiny"] = 0
    if cg.parent is None:
        zones = s.zones[node * ZONES_PER_NODE : (node + 1) * ZONES_PER_NODE]
        free, high = sum(zones["free"].tolist()), sum(zones["wmark"][:, WMARK_HIGH].tolist())
        tiny = int(tree[2]) + int(tree[3]) + free <= high
        c["file_is_tiny"] = int(tiny and not may & DEACTIVATE_ANON and int(tree[0]) >> int(c["priority"]) > 0)


def refaults(k: Kernel, node: int, cg: Cgroup) -> tuple[int, int]:
    """Activations by refault so far, anonymous and file, below a cgroup (the root: of the node)."""
    if cg.parent is None:
        return int(k.s.node_stat[node, ACTIVATE_ANON]), int(k.s.node_stat[node, ACTIVATE_FILE])
    rows = [at.id for at in memcontrol.subtree(k, cg, dying=True)]
    stat = k.s.memcgs["stat"]
    return int(stat[rows, ACTIVATE_ANON].sum()), int(stat[rows, ACTIVATE_FILE].sum())


def snapshot_refaults(k: Kernel, cg: Cgroup) -> None:
    """Remember them: only new ones count at the next reclaim."""
    if lru_gen.is_on(k):
        return
    for node in range(k.nr_nodes):
        k.s.lruvecs["refaults"][cg.id * k.nr_nodes + node] = refaults(k, node, cg)


# ---------------------------------------------------------------- kswapd


def pgdat_balanced(k: Kernel, node: int) -> bool:
    """Is some zone of the node above its high mark, boost included (pgdat_balanced)?"""
    zones = k.s.zones[node * ZONES_PER_NODE : (node + 1) * ZONES_PER_NODE]
    marks = zones["wmark"][:, WMARK_HIGH] + zones["boost"] + zones["lowmem_reserve"][:, 3]
    return bool(((zones["free"] > marks) & (zones["managed"] > 0)).any())


def kswapd_run(k: Kernel, node: int, rounds: int) -> bool:
    """Let kswapd of a node work for some rounds (balance_pgdat); True when it is done and sleeps.

    It works beside the tasks: whoever allocates lets it have a few rounds whenever it finds memory short.
    """
    state = k.kswapd[node]
    if not state["awake"]:
        state.update(awake=True, priority=DEF_PRIORITY, reclaimed=0, need_aging=False, boosts=watermark_boosts(k, node))
        k.s.vm_event[EVENT["pageoutrun"]] += 1
    space, age = workspace(k), policy.policy_of(k).age
    if pgdat_balanced(k, node):
        boost_reclaim(k, node, space)
        return kswapd_sleep(k, node, True)
    for _ in range(rounds):
        zones = k.s.zones[node * ZONES_PER_NODE : (node + 1) * ZONES_PER_NODE]
        marks, managed = zones["wmark"][:, WMARK_HIGH].tolist(), zones["managed"].tolist()
        high = sum(max(mark, SWAP_CLUSTER_MAX) for mark, pages in zip(marks, managed, strict=True) if pages)
        c = begin(k, 0, high, kswapd=True)
        c["priority"], c["node"] = state["priority"], node
        c["may_writepage"] = 1
        age(k, node)
        with k.because(state["cause"]):
            shrink_node(k, node, k.root_cgroup, space, "kswapd")
        freed = int(c["nr_reclaimed"])
        state["reclaimed"] += freed
        if int(c["nr_scanned"]) < high or not freed:
            state["priority"] -= 1
        if pgdat_balanced(k, node):
            return kswapd_sleep(k, node, True)
        if state["priority"] < 1:
            return kswapd_sleep(k, node, state["reclaimed"] > 0)
    return False


def watermark_boosts(k: Kernel, node: int) -> dict[int, int]:
    """What thefts of pageblocks have added to the marks of the node's zones: it goes when kswapd is done."""
    zids = range(node * ZONES_PER_NODE, (node + 1) * ZONES_PER_NODE)
    return {zid: int(k.s.zones["boost"][zid]) for zid in zids if int(k.s.zones["boost"][zid])}


def boost_reclaim(k: Kernel, node: int, space: Workspace) -> None:
    """Make as many pages free as the marks were raised by, with little effort: no writing, no swapping, few rounds (balance_pgdat)."""
    left = sum(k.kswapd[node]["boosts"].values())
    if not left:
        return
    c = begin(k, 0, left, may_swap=False, kswapd=True)
    c["node"], c["may_writepage"] = node, 0
    while left > 0 and c["priority"] >= 1:
        before = int(c["nr_reclaimed"])
        shrink_node(k, node, k.root_cgroup, space, "kswapd")
        got = int(c["nr_reclaimed"]) - before
        left -= got
        if not got or c["priority"] > DEF_PRIORITY - 2:
            c["priority"] -= 1


def release_boosts(k: Kernel, node: int) -> None:
    """What kswapd was woken for is done: those boosts go, and kcompactd is to make the pageblocks whole that thefts have torn.

    Where compaction has gone through a whole zone, it may look everywhere again.
    """
    boosts = k.kswapd[node]["boosts"]
    for zid, boost in boosts.items():
        k.s.zones["boost"][zid] -= min(boost, int(k.s.zones["boost"][zid]))
    if boosts:
        compaction.wakeup_kcompactd(k, node, PAGEBLOCK_ORDER)
    for zid in range(node * ZONES_PER_NODE, (node + 1) * ZONES_PER_NODE):
        compaction.flush_skip_marks(k, zid)


def kswapd_sleep(k: Kernel, node: int, useful: bool) -> bool:
    """kswapd is done: balanced, or at its wits' end (16 fruitless runs make a node hopeless)."""
    state = k.kswapd[node]
    state["awake"], state["cause"] = False, 0
    release_boosts(k, node)
    state["failures"] = 0 if useful else state["failures"] + 1
    if useful and pgdat_balanced(k, node):
        k.s.vm_event[EVENT["kswapd_low_wmark_hit_quickly"]] += 1
    snapshot_refaults(k, k.root_cgroup)
    return True


def pageout(k: Kernel, node: int) -> int:
    """Reclaim the pages that `vmf` names for MADV_PAGEOUT: how many were freed at once (reclaim_pages)."""
    c = begin(k, 0, 0)
    c["node"] = node
    space = workspace(k)
    looked = begin_visit(k)
    pageout_range(k.s, rmap_walk.tables(k), space.roots, space.dropped, np.zeros(2 * HPAGE_PMD_NR, np.int64))
    space.settle(k)
    visited(k, looked, "madvise", node, "/", 0, 0)
    written = int(c["nr_io"])
    if written:
        k.clock.spend(written * k.costs.swap_out)
        k.emit(SwapOut(k.clock.now, written, 0, 0))
    return int(k.s.vmf[0]["count"][0])
