"""Reclaim: who asks, for how much, and how hard it tries (mm/vmscan.c).

Four ask. *kswapd* of a node runs when a zone falls below its low mark until one is above its high mark; a task that finds
nothing above the min mark reclaims 32 pages itself (*direct*); a charge that a cgroup's limit refuses, a write to
memory.max or memory.high, and memory.reclaim reclaim from that cgroup's subtree (*memcg*).

With vm.zone_reclaim_mode a task also reclaims 32 pages of its own *node* before it goes on to another node's memory (`node_reclaim`).

Each asks in rounds of falling priority: at priority p a list gives 1/2^p of its pages to be looked at, from 12 (a
4096th) down to 0 (all). Within a round every cgroup below the target is visited, its share of anonymous and file pages
following from swappiness and from what each kind has cost lately (`lru_classic.get_scan_count`); those within their memory.min
are passed over, those within memory.low are passed over in a first attempt and only taken if it found nothing else.

    cgroup of 8,192 pages, all touched once, limit reached, 32 wanted: rounds look at 2, 4, 8, ... pages, find each used
    (first look), until priority 0 has looked at all; the next round writes some out and the one after frees them

Files first: with no swap left, or anonymous pages nobody may swap, only the file lists are looked at; if plenty of inactive
file pages are there and nothing suggests that they are needed, anonymous pages are left alone (cache_trim_mode).

The rounds themselves are compiled (`shrink_node`); here stands who asks, what is left to decide, and how it is told.

Time: each look, each write and each wait has its price in `Costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.direct import Direct
from core.events import Reclaim, SwapOut
from core.mm import compaction, huge_memory, memcontrol, policy, rmap_walk, shmem_huge
from core.mm.lru_classic import pageout_range
from core.mm.mm_types import CTL_LOOKS, CTL_RECLAIM_MODE, PAGEBLOCK_ORDER, SC, WMARK_HIGH, ZONES_PER_NODE, fresh
from core.mm.page_alloc import RECLAIM_UNMAP, RECLAIM_WRITE
from core.mm.shrink_node import (
    AGE,
    DEF_PRIORITY,
    FLUSH,
    HUGE_ZERO_PRIORITY,
    ISOLATE,
    LOW,
    SLAB,
    SPLIT,
    SWAP_CLUSTER_MAX,
    balance_round,
    is_balanced,
    one_round,
    remember_refaults,
    try_to_free_pages,
)
from core.record import keep
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup

NODE_RECLAIM_PRIORITY = 4
SCAN_CONTROL = fresh(SC, "target", "priority", "nr_to_reclaim", "may_swap", "may_writepage", "may_unmap", "kswapd", "swappiness", "block_heads",
                     "nr_visits", "recursive")  # fmt: skip
BALANCED, BALANCE, TRY, ONE = map(Direct, (is_balanced, balance_round, try_to_free_pages, one_round))
MAX_RECLAIM_RETRIES = 16
SHORT_SLEEP_NS = 100_000_000  # a sleep of kswapd that counts as short: HZ / 10
LISTS = ("inactive_anon", "active_anon", "inactive_file", "active_file")


def begin(k: Kernel, target: int, nr: int, *, may_swap: bool = True, kswapd: bool = False, into: Any = None) -> Any:
    """A fresh scan_control, in its place or elsewhere."""
    SCAN_CONTROL.pack_into(k.s.sc if into is None else into, 0, target, DEF_PRIORITY, nr, may_swap, 1, 1, kswapd, int(k.sysctl["vm.swappiness"]),
                           k.machine.storage.buffers, k.records.nr_visits, memcontrol.RECURSIVE_PROT in k.machine.cgroup_mount)  # fmt: skip
    return k.s.sc[0]


def reclaim(k: Kernel, cg: Cgroup, nr: int, by: str | None = None, *, may_swap: bool = True, nodes: list[int] | None = None) -> int:
    """Free about `nr` pages charged below `cg` (the root: anywhere): how many were (try_to_free_pages).

    `nodes`: those that the allocation is confined to by a memory policy; None: all.
    """
    c = begin(k, cg.id, max(nr, SWAP_CLUSTER_MAX), may_swap=may_swap, kswapd=by == "kswapd")
    c["nodes"] = sum(1 << node for node in nodes or ())
    who = by or ("memcg" if cg.parent is not None else "direct")
    carry_out(k, TRY, who)
    return int(c["nr_reclaimed"])


def node_reclaim(k: Kernel, node: int, order: int) -> bool:
    """Free what a request needs on a node, so that it can stay there (__node_reclaim): whether that was enough.

    From priority 4, a sixteenth of the lists, and as far as vm.zone_reclaim_mode lets it: with bit 2 it writes, with bit 4 it unmaps.
    """
    mode, wanted = int(k.s.ctl[CTL_RECLAIM_MODE]), 1 << order
    c = begin(k, 0, max(wanted, SWAP_CLUSTER_MAX))
    c["node"], c["priority"] = node, NODE_RECLAIM_PRIORITY
    c["may_writepage"], c["may_unmap"] = int(mode & RECLAIM_WRITE != 0), int(mode & RECLAIM_UNMAP != 0)
    while True:
        carry_out(k, ONE, "node")
        if int(c["nr_reclaimed"]) >= wanted or c["priority"] == 0:
            break
        c["priority"] -= 1
    if int(c["nr_reclaimed"]) >= wanted:
        return True
    k.s.vm_event[EVENT["zone_reclaim_failed"]] += 1
    return False


def carry_out(k: Kernel, rounds: Direct, who: str) -> None:
    """Let rounds of reclaim run to their end, deciding whatever they stop for, and tell what came of them."""
    while reason := int(rounds.run(k.s, rmap_walk.tables(k))):
        decide(k, reason, who)
    tell(k, who)


def decide(k: Kernel, reason: int, who: str) -> None:
    """What the rounds of reclaim leave to Python; they are taken up again afterwards."""
    tell(k, who)
    c, hooks = k.s.sc[0], policy.policy_of(k)
    if reason == ISOLATE and hooks.isolate is not None:
        hooks.isolate(k, rmap_walk.tables(k), int(c["memcg"]))
    elif reason == AGE and hooks.age is not None:
        hooks.age(k, int(c["node"]))
    elif reason == SPLIT:
        huge_memory.deferred_split_shrink(k, k.cgroups[int(c["memcg"])], int(c["priority"]))
    elif reason == LOW:
        memcontrol.memcg_event(k, k.cgroups[int(c["memcg"])], "low")
    elif reason == SLAB:
        shmem_huge.shmem_unused_huge_scan(k, int(c["node"]), int(c["priority"]))
        if c["priority"] <= HUGE_ZERO_PRIORITY:
            huge_memory.shrink_huge_zero_page(k)
    elif reason == FLUSH:
        k.flush_dirty("reclaim")


def tell(k: Kernel, who: str) -> None:
    """What the visits so far came to: their time, their events, their rows for `explain`. One that is still going on moves to the front."""
    r, done = rmap_walk.tables(k), int(k.s.sc[0]["row"])
    if r.file_lost.any():
        rmap_walk.settle(k)
    for memcg, node, priority, _, visit, looked, scanned, freed, written, list_scanned, list_freed in r.visits[:done].tolist():
        k.clock.spend(scanned * k.costs.scan_page)
        row = [memcg, priority, visit, looked, scanned, freed, written]
        tell_visit(k, k.clock.now, node, who, row, list_scanned.tolist(), list_freed.tolist())
        k.clock.spend(written * k.costs.swap_out if scanned else 0)
    if done:
        r.visits[0] = r.visits[done % len(r.visits)]
        k.s.sc[0]["row"] = 0


def visit_of(visit: int, event: int, at: int, who: str, node: int, cgroup: str, priority: int) -> dict[str, Any]:
    """What is kept of a visit for `explain`; `event`: the number of its event, 0 if nothing was scanned."""
    return {"visit": visit, "event": event, "clock_ns": at, "by": who, "node": node, "cgroup": cgroup, "priority": priority}


def lists_by_name(scanned: Sequence[int], freed: Sequence[int]) -> dict[str, list[int]]:
    """Pages scanned and freed of each LRU list that was looked at."""
    return {name: [scanned[lru], freed[lru]] for lru, name in enumerate(LISTS) if scanned[lru]}


def tell_visit(k: Kernel, at: int, node: int, who: str, row: list[int], list_scanned: list[int], list_freed: list[int]) -> None:
    """The events of a visit, whose looks were done `at`, and its row for `explain`. What it wrote takes its time after that.

    row: cgroup, priority, number of the visit, looked at, scanned, freed, written.
    """
    memcg, priority, visit, looked, scanned, freed, written = row
    path = k.cgroups[memcg].path
    if looked:
        keep(k.records.visits, visit_of(visit, k.nr_events + 1 if scanned else 0, at, who, node, path, priority))
        k.records.nr_visits = visit + 1
    if scanned:
        number = k.emit(Reclaim(at, who, node, path, priority, scanned, freed, lists_by_name(list_scanned, list_freed)))
        if written:
            with k.because(number):
                k.emit(SwapOut(at + written * k.costs.swap_out, written, 0, 0, path))


# ---------------------------------------------------------------- kswapd


def pgdat_balanced(k: Kernel, node: int) -> bool:
    """Is some zone of the node above its high mark, boost included?"""
    return bool(BALANCED.run(k.s, node))


def kswapd_run(k: Kernel, node: int, rounds: int) -> bool:
    """Let kswapd of a node work for some rounds; True when it is done and sleeps.

    It works beside the tasks: whoever allocates lets it have a few rounds whenever it finds memory short.
    """
    state = k.kswapd[node]
    if not state["awake"]:
        if k.clock.now < state["until"] + SHORT_SLEEP_NS:
            k.s.vm_event[EVENT["kswapd_low_wmark_hit_quickly"]] += 1
        begin_run(k, node)
    if pgdat_balanced(k, node):
        boost_reclaim(k, node)
        return kswapd_sleep(k, node, True)
    for _ in range(rounds):
        high = pages_to_balance(k, node)
        c = begin(k, 0, high, kswapd=True)
        c["priority"], c["node"] = state["priority"], node
        with k.because(state["cause"]):
            carry_out(k, BALANCE, "kswapd")
        freed = int(c["nr_reclaimed"])
        state["reclaimed"] += freed
        if int(c["nr_scanned"]) < high or not freed:
            state["priority"] -= 1
        if pgdat_balanced(k, node):
            return kswapd_sleep(k, node, True)
        if state["priority"] < 1:
            return kswapd_sleep(k, node, state["reclaimed"] > 0)
    return False


def pages_to_balance(k: Kernel, node: int) -> int:
    """How many pages a round of kswapd looks at least (kswapd_shrink_node): its zones' high marks."""
    zones = k.s.zones[node * ZONES_PER_NODE : (node + 1) * ZONES_PER_NODE]
    marks, managed = zones["wmark"][:, WMARK_HIGH].tolist(), zones["managed"].tolist()
    return sum(max(mark, SWAP_CLUSTER_MAX) for mark, pages in zip(marks, managed, strict=True) if pages)


def begin_run(k: Kernel, node: int) -> None:
    """kswapd looks at its node from the gentlest priority on (balance_pgdat)."""
    k.kswapd[node].update(awake=True, priority=DEF_PRIORITY, reclaimed=0, need_aging=False, boosts=watermark_boosts(k, node))
    k.s.vm_event[EVENT["pageoutrun"]] += 1


def watermark_boosts(k: Kernel, node: int) -> dict[int, int]:
    """What thefts of pageblocks have added to the marks of the node's zones: it goes when kswapd is done."""
    zids = range(node * ZONES_PER_NODE, (node + 1) * ZONES_PER_NODE)
    return {zid: int(k.s.zones["boost"][zid]) for zid in zids if int(k.s.zones["boost"][zid])}


def boost_reclaim(k: Kernel, node: int) -> None:
    """Make as many pages free as the marks were raised by, with little effort: no writing, no swapping, few rounds (balance_pgdat)."""
    left = sum(k.kswapd[node]["boosts"].values())
    if not left:
        return
    c = begin(k, 0, left, may_swap=False, kswapd=True)
    c["node"], c["may_writepage"] = node, 0
    while left > 0 and c["priority"] >= 1:
        before = int(c["nr_reclaimed"])
        carry_out(k, ONE, "kswapd")
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
    """A run is over. kswapd sleeps if the node is balanced, or hopeless after 16 fruitless runs; else the next run begins (kswapd_try_to_sleep).

    Two counters say how well it sleeps: whoever wakes it within 100 ms has brought the low mark back quickly (`kswapd_run`), and where it cannot
    even lie down the high mark was missed. Simplified: that the high mark is lost again within the 100 ms while nobody wakes it is not looked for.
    """
    state = k.kswapd[node]
    release_boosts(k, node)
    state["failures"] = 0 if useful else state["failures"] + 1
    remember_refaults(k.s, rmap_walk.tables(k), 0)
    if pgdat_balanced(k, node) or state["failures"] >= MAX_RECLAIM_RETRIES:
        state["awake"], state["cause"] = False, 0
        return True
    k.s.vm_event[EVENT["kswapd_high_wmark_hit_quickly"]] += 1
    begin_run(k, node)
    return False


def pageout(k: Kernel, node: int) -> int:
    """Reclaim the pages that `vmf` names for MADV_PAGEOUT: how many were freed at once (reclaim_pages)."""
    c = begin(k, 0, 0)
    c["node"], c["visit"] = node, k.records.nr_visits
    looked = int(k.s.ctl[CTL_LOOKS])
    pageout_range(k.s, rmap_walk.tables(k))
    rmap_walk.settle(k)
    if int(k.s.ctl[CTL_LOOKS]) > looked:
        keep(k.records.visits, visit_of(k.records.nr_visits, 0, k.clock.now, "madvise", node, "/", 0))
        k.records.nr_visits += 1
    written = int(c["nr_io"])
    if written:
        k.clock.spend(written * k.costs.swap_out)
        k.emit(SwapOut(k.clock.now, written, 0, 0))
    return int(k.s.vmf[0]["count"][0])
