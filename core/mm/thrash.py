"""A stretch of a thrash: touches, kswapd beside them and the clock, without a word of Python between.

Where memory is short, every few dozen touches find no frame above the low mark, wake kswapd, and go on:

    64 touches | kswapd: wakes, one round, 90 pages freed | 71 touches | kswapd: one round | 66 touches | kswapd: balanced, sleeps | ...

Each of these stops is decided in `gfp.slowpath`, `fair.kswapd_turn` and `vmscan.kswapd_run`, in some two hundred calls of Python, which take longer
than what they decide on. All of them are alike, and all that follows is arithmetic: whose time passes, what is counted, what is told. So `stretch`
carries the common stops out itself, by the same rules: kswapd wakes; it has kept pace with the task; the task reclaims 32 pages of its own. It
*notes* what there is to tell, in rows as those who need them want them: events (`core.untold`), changes of tasks' states (`psi.task_changes`),
visits and stalls for `explain`. `Stretch.run` brings in before what Python knows (`BESIDE`: clocks, kswapd's state, the run queue, the TLB) and hands
the rows on afterwards. Nobody makes an object of them before he is asked for it. The result is the same to the last bit.

It decides nothing that a reader of Linux would look for here. What is uncommon is left to Python (`common` says when none of it can come up; a
round of reclaim that stops for a decision after all is a bug, and found):

    the task's own reclaim has freed nothing         the OOM killer
    a limit of a cgroup, memory.high                 the charge's own reclaim, throttling
    kswapd has given up; a theft of a pageblock      `gfp`
    protected cgroups, dirty files, huge pages, several nodes, another policy; a task on a slice

    one stop in Python: 80 µs, of which the round itself takes 20        in a stretch: 21 µs, and 4 to hand on what is to be told

Sources: as for `gfp`, `vmscan`, `fair`, `memory.settle`, `tlb.access`; the test that compares both ways is tests/core/mm/test_thrash.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from core.columns import by_reference
from core.direct import Direct
from core.jit import inline, njit, step
from core.mm import rmap_walk, tlb, told, vmscan
from core.mm.fault import COW, F_POPULATE, READ_IN, ZERO_COW, access_pages
from core.mm.mm_types import (
    CLASSIC,
    CTL_FAIL_NTH,
    CTL_HUGE_ZERO,
    CTL_POLICY,
    CTL_RECLAIM_MODE,
    CTL_SHRINKLIST,
    CTL_STEAL,
    MAX_RUNS,
    WMARK_LOW,
    WMARK_MIN,
    ZONES_PER_NODE,
    Array,
    State,
)
from core.mm.page_ops import NO_PAGE, RUNS_FULL
from core.mm.pcp import drain_zones
from core.mm.rmap_walk import MAX_VISITS, Rmap
from core.mm.shrink_node import DEF_PRIORITY, FULL, SWAP_CLUSTER_MAX, balance_round, pgdat_balanced, snapshot_refaults, try_to_free_pages
from core.mm.swap_readahead import ZRAM
from core.mm.swapfile import swap_area
from core.mm.tlb_walk import access_tlb, flush_asid
from core.mm.vmscan import MAX_RECLAIM_RETRIES, SHORT_SLEEP_NS
from core.panic import KernelBug
from core.record import keep_all
from core.sched import fair, psi
from core.untold import AT, CAUSE, CGROUP, REST, TIMER, WHAT, WIDTH
from core.vmstat import EVENT, NR_FILE_DIRTY

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memory import TouchOutcome
    from core.mm.mm_types import Vma
    from core.sched.task import Task

PAGEOUTRUN, ALLOCSTALL = EVENT["pageoutrun"], EVENT["allocstall_movable"]
LOW_WMARK_HIT_QUICKLY, HIGH_WMARK_HIT_QUICKLY = EVENT["kswapd_low_wmark_hit_quickly"], EVENT["kswapd_high_wmark_hit_quickly"]
CYCLES_PER_NS = 3

# How far the last stop is carried out when a stretch ends.
UNSETTLED, UNWALKED, UNDECIDED, FRUITLESS, DECIDED = range(5)  # FRUITLESS: the task's own reclaim has freed nothing

# What Python knows and a stretch goes on with. Times in ns.
BESIDE = np.dtype([(name, "i8") for name in (
    "stage", "before", "tries", "stopped",  # how it ended; accesses made before the last stop; why a round of reclaim stopped
    "told", "changed", "visited", "stalled",  # rows of the logs
    "nr_events", "cause", "quiet", "state",  # events so far; what the task's follow from; are its faults none; its state for PSI
    "now", "user_ns", "asleep_ns", "others_ns", "disk_waits",  # the clock
    "pid", "cgroup", "minflt", "majflt", "faults",  # the task
    "awake", "priority", "reclaimed", "failures", "until", "time_ns", "ran", "for",  # kswapd; the event that it woke for
    "rq", "same_cpu", "queued", "rq_now", "iowait_ns", "idle_ns", "io_until", "system_ns",  # the processor that it runs on
    "cpu", "asid", "gen", "flushed", "local_all", "local_one", "accesses", "hits", "l2_hits", "misses", "cycles", "walk", "l2",  # the TLB
    "access_ns", "scan_ns", "swap_out_ns", "visits", "populate",
)])  # fmt: skip
NOTES = 1024  # rows of a log, after which a stretch ends; there is room for all runs that the next accesses may come to
MOST_ROUNDS = 39  # of a direct reclaim: 13 priorities, three times over
MAX_TRIES = 64  # decisions that one access may take before memory counts as exhausted
DIRECT, KSWAPD = range(2)  # who reclaims; rows of `Beside.fresh`
OVER = (psi.DIRECT_RECLAIM, told.REFAULT)  # what a stall is over
IN_RECLAIM, IN_READ = range(2)
KSWAPD_PID, KSWAPD_STATE = -1, psi.RUNNING | psi.ONCPU | psi.MEMSTALL


@by_reference
class Beside(NamedTuple):
    """What `stretch` is given besides the machine: `row` of BESIDE, what a fault of each kind costs, the logs, a fresh scan_control for each who
    reclaims, the CPUs' lists of free pages, the TLB.
    """

    row: Array
    prices: Array
    events: Array  # told: rows of `core.untold`
    changes: Array  # changed: when, pid, processor, state, cgroup (`psi.task_changes`)
    visits: Array  # visited: number of the visit, of its event, when, cgroup, priority, who
    stalls: Array  # stalled: from, to, over what
    sc: Array  # State.sc as words
    fresh: Array
    pcp: Array
    tags: Array
    stamps: Array
    tlb_state: Array
    geom: Array


# ---------------------------------------------------------------- compiled


@njit
def stretch(s: State, r: Rmap, b: Beside, perm) -> None:
    """Go on with the accesses of `vmf` through one common stop after another, until there is nothing left to do or one is not common."""
    v, w = s.vmf[0], b.row[0]
    while True:
        if not room(w, len(s.runs), len(r.order)):
            w["before"], w["stage"] = v["done"], DECIDED
            return
        before = v["done"]
        access_pages(s, perm)
        w["before"], w["stage"] = before, UNSETTLED
        w["tries"] = count_tries(v, before, w["tries"])
        settle(s, v, b, v["done"] - before)
        w["stage"] = UNWALKED
        if v["done"] > before and not w["populate"] and not walk(s, v, b, perm, before):
            return
        w["stage"] = UNDECIDED
        if v["reason"] == RUNS_FULL:
            continue
        if v["reason"] != NO_PAGE or v["tried"] or s.ctl[CTL_STEAL] or w["failures"] >= MAX_RECLAIM_RETRIES:
            return
        w["stage"] = slowpath(s, r, b, v)
        if w["stage"] != DECIDED or w["stopped"] or w["tries"] > MAX_TRIES:
            return


@inline
def room(w, runs: int, visits: int) -> bool:
    """Is there room in the logs for the runs of some accesses, and for so many visits of one who reclaims?"""
    most = NOTES + MAX_RUNS
    return w["told"] + runs + 2 * visits + ZONES_PER_NODE <= most and w["changed"] + 4 * runs + 2 <= 4 * most and w["visited"] + visits <= most


@step
def slowpath(s: State, r: Rmap, b: Beside, v) -> int:
    """`gfp.slowpath`: kswapd wakes; or it has kept pace; or the task reclaims. DECIDED: the access is tried again. FRUITLESS: that freed nothing."""
    w, worked = b.row[0], False
    if v["mark"] != WMARK_MIN:
        note_shortage(s, b)
        kswapd_turn(s, r, b)
        v["mark"] = WMARK_MIN
        return DECIDED
    while w["awake"] and w["until"] <= w["now"]:  # gfp.kswapd_keeps_pace
        if not room(w, 0, len(r.order)):
            return UNDECIDED
        kswapd_turn(s, r, b)
        worked = True
    if worked and above_min(s):
        if not w["awake"]:
            v["mark"] = WMARK_LOW
        return DECIDED
    if not room(w, 0, MOST_ROUNDS * len(r.order)):
        return UNDECIDED
    return DECIDED if direct_reclaim(s, r, b) else FRUITLESS


@inline
def above_min(s: State) -> bool:
    """`gfp.above_min`, where no mark is raised."""
    for zid in range(ZONES_PER_NODE):
        zone = s.zones[zid]
        if zone["managed"] and zone["free"] > zone["wmark"][WMARK_MIN] + zone["lowmem_reserve"][3]:
            return True
    return False


@step
def direct_reclaim(s: State, r: Rmap, b: Beside) -> int:
    """The task reclaims 32 pages itself, a stall: how many were freed."""
    w, begin = b.row[0], b.row[0]["now"]
    s.vm_event[ALLOCSTALL] += 1
    state_changes(b, begin, w["state"] | psi.MEMSTALL)
    begin_reclaim(s, b, DIRECT)
    reason = FULL
    while reason == FULL:
        reason = try_to_free_pages(s, r)
        tell(s, r, b)
    w["stopped"] = max(w["stopped"], reason)
    state_changes(b, w["now"], w["state"])
    stalled(b, begin, w["now"], IN_RECLAIM)
    drain_zones(s.zones, b.pcp)
    return s.sc[0]["nr_reclaimed"]


@inline
def begin_reclaim(s: State, b: Beside, who: int) -> None:
    """A fresh scan_control (vmscan.begin)."""
    for i in range(len(b.sc)):
        b.sc[i] = b.fresh[who, i]
    s.sc[0]["nr_visits"] = b.row[0]["visits"]
@inline
def count_tries(v, before: int, tries: int) -> int:
    """How often the same access has been tried without getting anywhere: not while its page is read, unless it was evicted again meanwhile."""
    if v["done"] != before:
        return 0
    return tries + 1 if not v["ra_next"] or v["major"] > tries else tries


@inline
def note(b: Beside, what: int, at: int, cause: int, cgroup: int) -> int:
    """An event: a new row of the log; the place in it of what is its own."""
    w, row = b.row[0], b.row[0]["told"]
    b.events[row, AT], b.events[row, CAUSE], b.events[row, WHAT], b.events[row, CGROUP] = at, cause, what, cgroup
    w["told"] += 1
    w["nr_events"] += 1
    return row


@inline
def state_changes(b: Beside, at: int, state: int) -> None:
    """From then on the task is in this state (psi.set_state)."""
    w = b.row[0]
    changes(b, at, w["pid"], w["cpu"], state, w["cgroup"])


@inline
def changes(b: Beside, at: int, pid: int, cpu: int, state: int, cgroup: int) -> None:
    """A row for psi.task_change."""
    w, row = b.row[0], b.changes[b.row[0]["changed"]]
    row[0], row[1], row[2], row[3], row[4] = at, pid, cpu, state, cgroup
    w["changed"] += 1


@inline
def stalled(b: Beside, begin: int, end: int, over: int) -> None:
    """A stall is over (psi.record_stall)."""
    w, row = b.row[0], b.stalls[b.row[0]["stalled"]]
    if end > begin:
        row[0], row[1], row[2] = begin, end, over
        w["stalled"] += 1


@step
def read(b: Beside, begin: int, ns: int, stall: bool) -> None:
    """The task waits for the disk (psi.io_schedule), in a stall or not (psi.memstall)."""
    w = b.row[0]
    within = w["state"] | (psi.MEMSTALL if stall else 0)
    if stall:
        state_changes(b, begin, within)
    state_changes(b, begin, within & psi.MEMSTALL | psi.IOWAIT)
    w["disk_waits"] += 1
    w["now"] += ns
    w["asleep_ns"] += ns
    state_changes(b, w["now"], within)
    if stall:
        state_changes(b, w["now"], w["state"])
        stalled(b, begin, w["now"], IN_READ)


@step
def settle(s: State, v, b: Beside, accesses: int) -> None:
    """`memory.settle` of anonymous memory: what the runs of the loop come to in counts and time."""
    w = b.row[0]
    left, ns, first = accesses, 0, v["done"] - accesses
    for i in range(v["nr_runs"]):
        run = s.runs[i]
        if run["kind"] != READ_IN:
            w["faults"] += run["n"]
            w["minflt"] += run["n"]
            ns += run["n"] * b.prices[run["kind"]]
            faults(b, run)
            continue
        if run["stall"]:
            before = run["at"] - first - (accesses - left)
            left -= before
            w["user_ns"] += before * w["access_ns"]
            w["now"] += before * w["access_ns"] + ns
            ns = 0
        read(b, w["now"], run["ns"], run["stall"] != 0)
        area, row = swap_area(s, run["slot"]), b.events[note(b, told.READ, w["now"], w["cause"], w["cgroup"])]
        row[REST], row[REST + 1], row[REST + 2] = w["pid"], run["vpn"], run["n"]
        row[REST + 3], row[REST + 4], row[REST + 5] = run["pages"], run["slot"], area
        if not w["populate"] or s.swaps[area]["kind"] == ZRAM:
            w["majflt"] += run["n"]
            w["minflt"] -= run["n"]
    w["user_ns"] += left * w["access_ns"]
    w["now"] += left * w["access_ns"] + ns


@inline
def faults(b: Beside, run) -> None:
    """`told.faults`."""
    w = b.row[0]
    if run["kind"] == COW or run["kind"] == ZERO_COW:
        w["local_one"] += run["n"]
    if not w["quiet"]:
        row = b.events[note(b, told.FAULTS, w["now"], w["cause"], w["cgroup"])]
        row[REST], row[REST + 1], row[REST + 2], row[REST + 3], row[REST + 4] = w["pid"], run["kind"], run["vpn"], run["n"], run["step"]


@step
def walk(s: State, v, b: Beside, perm, before: int) -> bool:
    """`tlb.access` for accesses before .. vmf.done; False where the stamps have to be renumbered first."""
    w = b.row[0]
    columns = (b.tags, b.stamps)
    if w["gen"] != s.mms[v["mm"]]["tlb_gen"]:
        w["gen"] = s.mms[v["mm"]]["tlb_gen"]
        flush_asid(columns, w["cpu"], w["asid"])
        w["flushed"] = w["now"]
        w["local_all"] += 1
    hits, l2_hits, misses, loads = access_tlb(columns, b.tlb_state, b.geom, s.pt, s.mem, w["cpu"], s.mms[v["mm"]]["pgd"], w["asid"], v["first"],
                                              v["step"], perm, v["flags"] & 1 != 0, before, v["done"], v["access"] == 1)  # fmt: skip
    if hits < 0:
        return False
    cycles = loads * w["walk"] // 4 + l2_hits * w["l2"]
    w["accesses"] += v["done"] - before
    w["hits"] += hits
    w["l2_hits"] += l2_hits
    w["misses"] += misses
    w["cycles"] += cycles
    ns = cycles // CYCLES_PER_NS
    w["now"] += ns
    w["user_ns"] += ns
    return True


@step
def note_shortage(s: State, b: Beside) -> None:
    """Which zones are below their low marks, if kswapd still sleeps (gfp.note_shortage)."""
    w = b.row[0]
    if w["awake"]:
        return
    for zid in range(ZONES_PER_NODE):
        zone = s.zones[zid]
        if zone["managed"] and zone["free"] <= zone["wmark"][WMARK_LOW]:
            row = b.events[note(b, told.SHORTAGE, w["now"], w["cause"], 0)]
            row[REST], row[REST + 1], row[REST + 2] = zid, zone["free"], zone["wmark"][WMARK_LOW]
            w["for"] = w["nr_events"]


@step
def kswapd_turn(s: State, r: Rmap, b: Beside) -> None:
    """A round of kswapd's, on its own time (fair.kswapd_turn)."""
    w, start = b.row[0], b.row[0]["now"]
    begin = max(start, w["until"])
    w["now"] = begin
    kswapd_run(s, r, b)
    took = w["now"] - begin
    w["until"] = begin + took
    w["time_ns"] += took
    w["now"] = start
    if w["same_cpu"]:
        w["now"] += took
        w["others_ns"] += took
    elif not w["queued"] and start > w["rq_now"]:
        waiting = max(0, min(w["io_until"], start) - w["rq_now"])
        w["iowait_ns"] += waiting
        w["idle_ns"] += start - w["rq_now"] - waiting
        w["rq_now"] = start
    w["system_ns"] += took
    w["rq_now"] += took
    if took:
        changes(b, begin, KSWAPD_PID, w["rq"], KSWAPD_STATE, 0)
        changes(b, begin + took, KSWAPD_PID, w["rq"], 0, 0)


@step
def kswapd_run(s: State, r: Rmap, b: Beside) -> bool:
    """One round of kswapd (vmscan.kswapd_run): True if it sleeps now."""
    w, c = b.row[0], s.sc[0]
    if not w["awake"]:
        if w["now"] < w["until"] + SHORT_SLEEP_NS:
            s.vm_event[LOW_WMARK_HIT_QUICKLY] += 1
        begin_run(s, b)
    if pgdat_balanced(s, 0):
        return kswapd_sleep(s, r, b, True)
    begin_reclaim(s, b, KSWAPD)
    c["priority"] = w["priority"]
    w["stopped"] = max(w["stopped"], balance_round(s, r))
    tell(s, r, b)
    w["reclaimed"] += c["nr_reclaimed"]
    if c["nr_scanned"] < c["nr_to_reclaim"] or c["nr_reclaimed"] == 0:
        w["priority"] -= 1
    if pgdat_balanced(s, 0):
        return kswapd_sleep(s, r, b, True)
    if w["priority"] < 1:
        return kswapd_sleep(s, r, b, w["reclaimed"] > 0)
    return False


@inline
def begin_run(s: State, b: Beside) -> None:
    """kswapd looks at its node from the gentlest priority on (vmscan.begin_run)."""
    w = b.row[0]
    w["awake"], w["priority"], w["reclaimed"], w["ran"] = 1, DEF_PRIORITY, 0, 1
    s.vm_event[PAGEOUTRUN] += 1


@step
def kswapd_sleep(s: State, r: Rmap, b: Beside, useful: bool) -> bool:
    """A run is over (vmscan.kswapd_sleep): True if it sleeps, False if the next run begins."""
    w = b.row[0]
    w["failures"] = 0 if useful else w["failures"] + 1
    snapshot_refaults(s, r, 0)
    if pgdat_balanced(s, 0) or w["failures"] >= MAX_RECLAIM_RETRIES:
        w["awake"], w["for"] = 0, 0
        return True
    s.vm_event[HIGH_WMARK_HIT_QUICKLY] += 1
    begin_run(s, b)
    return False


@step
def tell(s: State, r: Rmap, b: Beside) -> None:
    """What the visits of the rounds came to: their time, their events, their rows for `explain` (vmscan.tell)."""
    w, c = b.row[0], s.sc[0]
    cause = w["for"] if c["kswapd"] and w["for"] else w["cause"]
    for i in range(c["row"]):
        visit = r.visits[i]
        w["now"] += visit["scanned"] * w["scan_ns"]
        if visit["looked"]:
            row = b.visits[w["visited"]]
            row[0], row[1], row[2] = visit["visit"], w["nr_events"] + 1 if visit["scanned"] else 0, w["now"]
            row[3], row[4], row[5] = visit["memcg"], visit["priority"], visit["kswapd"]
            w["visited"] += 1
            w["visits"] = visit["visit"] + 1
        if visit["scanned"]:
            row = b.events[note(b, told.RECLAIM, w["now"], cause, visit["memcg"])]
            row[REST], row[REST + 1], row[REST + 2], row[REST + 3] = visit["kswapd"], visit["priority"], visit["scanned"], visit["freed"]
            for lru in range(4):
                row[REST + 4 + lru], row[REST + 8 + lru] = visit["list_scanned"][lru], visit["list_freed"][lru]
            w["now"] += visit["written"] * w["swap_out_ns"]
            if visit["written"]:
                number = w["nr_events"]
                b.events[note(b, told.WRITTEN, w["now"], number, visit["memcg"]), REST] = visit["written"]
    if c["row"]:
        r.visits[0] = r.visits[c["row"] % len(r.visits)]
    c["row"] = 0


STRETCH = Direct(stretch)

# ---------------------------------------------------------------- between Python and a stretch


def common(k: Kernel, task: Task, vma: Vma) -> bool:
    """May the stops of a thrash on this mapping be expected to be common ones, all of them?"""
    s, ctl, zones = k.s, k.s.ctl, k.s.zones
    if k.nr_nodes > 1 or vma.file is not None or k.clock.slice_end >= 0 or task is not k.current or k.in_memstall:
        return False
    if k.tlb.running != task.cpu or k.tlb.cpus[task.cpu].loaded != vma.mm.ctx_id:
        return False
    if ctl[CTL_POLICY] != CLASSIC or ctl[CTL_FAIL_NTH] or ctl[CTL_RECLAIM_MODE] or ctl[CTL_HUGE_ZERO] or ctl[CTL_SHRINKLIST]:
        return False
    if s.node_stat[0, NR_FILE_DIRTY] or int(s.vmf["thp"][0]):
        return False
    if k.kswapd[0]["boosts"] or zones["boost"].any() or zones["compact_blockskip_flush"].any():
        return False
    ids = list(k.cgroups)
    groups = s.memcgs[ids]
    return len(ids) < MAX_VISITS and not (groups["low"].any() or groups["min"].any() or groups["split_len"].any())


class Stretch:
    """The stretches of one run of accesses: what they need, and what becomes of their notes."""

    __slots__ = ("k", "task", "beside", "rq")

    def __init__(self, k: Kernel, task: Task) -> None:
        self.k, self.task, self.rq = k, task, fair.kswapd_rq(k, 0)
        cols, prices = k.tlb_columns, [told.price(k, kind) for kind in range(len(told.PRICES))]
        row, words = np.zeros(1, BESIDE), k.s.sc.view(np.ndarray).view(np.int64)
        most = NOTES + MAX_RUNS
        events, changes, visits, stalls = (np.empty(shape, np.int64) for shape in ((most, WIDTH), (4 * most, 5), (most, 6), (most, 3)))
        fresh = np.zeros((2, len(words)), np.int64)
        self.beside = Beside(row, np.array(prices, np.int64), events, changes, visits, stalls, words, fresh, k.pcp.rows,
                             cols.tags, cols.stamps, cols.state, cols.geom)  # fmt: skip

    def run(self, order: Array, tries: int, outcome: TouchOutcome) -> tuple[int, int, int]:
        """One stretch: how far its last stop is carried out (UNSETTLED ...), the accesses made before that, and its `tries`."""
        k, b = self.k, self.beside
        self.bring(tries)
        STRETCH.run(k.s, rmap_walk.tables(k), b, order)
        w = dict(zip(BESIDE.names or (), b.row[0].item(), strict=True))
        if w["stopped"]:
            raise KernelBug(f"reclaim stopped for a decision ({w['stopped']}) in a stretch: `thrash.common` does not know of it")
        self.tell(w)
        self.take_back(w)
        outcome.faults += w["faults"]
        return w["stage"], w["before"], w["tries"]

    def bring(self, tries: int) -> None:
        """What Python knows of the moment."""
        k, task, rq, daemon = self.k, self.task, self.rq, self.k.kswapd[0]
        clock, costs, cpu = k.clock, k.costs, self.k.tlb.cpus[self.task.cpu]
        walk, l2, _ = k.tlb_costs
        self.beside.row[0] = (
            0, 0, tries, 0, 0, 0, 0, 0, k.nr_events, k.causes[-1] if k.causes else 0, k.quiet, k.psi.flags.get(task.pid, 0),
            clock.now, clock.user_ns, clock.asleep_ns, clock.others_ns, clock.disk_waits, task.pid, task.cgroup.id, task.minflt, task.majflt, 0,
            daemon["awake"], daemon["priority"], daemon["reclaimed"], daemon["failures"], daemon["until"], daemon["time_ns"], 0, daemon["cause"],
            rq.number, rq.number == task.cpu, bool(rq.queue), rq.now, rq.iowait_ns, rq.idle_ns, rq.io_until, rq.system_ns,
            task.cpu, cpu.asid, cpu.gens[cpu.asid], -1, cpu.local_all, cpu.local_one, 0, 0, 0, 0, 0, walk, l2,
            costs.access, costs.scan_page, costs.swap_out, k.records.nr_visits, int(k.s.vmf["flags"][0]) & F_POPULATE,
        )  # fmt: skip
        vmscan.begin(k, 0, SWAP_CLUSTER_MAX, into=self.beside.fresh[DIRECT])
        vmscan.begin(k, 0, vmscan.pages_to_balance(k, 0), kswapd=True, into=self.beside.fresh[KSWAPD])

    def take_back(self, w: dict[str, int]) -> None:
        """How far everything has come."""
        k, task, rq, daemon = self.k, self.task, self.rq, self.k.kswapd[0]
        clock, cpu = k.clock, self.k.tlb.cpus[self.task.cpu]
        clock.now, clock.user_ns, clock.asleep_ns, clock.others_ns, clock.disk_waits = (
            w["now"], w["user_ns"], w["asleep_ns"], w["others_ns"], w["disk_waits"])  # fmt: skip
        task.minflt, task.majflt = w["minflt"], w["majflt"]
        daemon.update({name: w[name] for name in ("priority", "reclaimed", "failures", "until", "time_ns")}, awake=bool(w["awake"]), cause=w["for"])
        if w["ran"]:
            daemon.update(need_aging=False, boosts={})
        rq.now, rq.iowait_ns, rq.idle_ns, rq.system_ns = w["rq_now"], w["iowait_ns"], w["idle_ns"], w["system_ns"]
        cpu.gens[cpu.asid], cpu.local_all, cpu.local_one = w["gen"], w["local_all"], w["local_one"]
        if w["flushed"] >= 0:
            cpu.flushed[cpu.asid] = (tlb.BY_RECLAIM, w["flushed"])
        if w["accesses"]:
            tlb.count(k, task, (w["accesses"], w["hits"], w["l2_hits"], w["misses"], w["cycles"]))
        if k.rmap[1].file_lost.any():
            rmap_walk.settle(k)

    def tell(self, w: dict[str, int]) -> None:
        """What happened: events and states of tasks, as rows; records, as those who did it would have kept them."""
        k, b, task = self.k, self.beside, self.task
        events, cause = b.events[: w["told"]], k.causes[-1] if k.causes else 0
        groups = events[:, CGROUP].copy()
        for id in set(groups.tolist()):
            events[groups == id, CGROUP] = k.untold.word(k.cgroups[id].path)
        events[:, TIMER] = k.untold.word(k.timer)
        k.emit_rows(events)
        psi.task_changes(k, b.changes[: w["changed"]])
        keep_all(k.records.stalls, [psi.stall(task, begin, end, OVER[over], cause) for begin, end, over in b.stalls[: w["stalled"]].tolist()])
        keep_all(k.records.visits, [vmscan.visit_of(visit, event, at, told.RECLAIMERS[who], 0, k.cgroups[memcg].path, priority)
                                    for visit, event, at, memcg, priority, who in b.visits[: w["visited"]].tolist()])  # fmt: skip
        k.records.nr_visits = w["visits"]
        k.unordered = True
