"""A stretch of a thrash: touches, kswapd beside them and the clock, without a word of Python between.

Where memory is short, every few dozen touches find no frame above the low mark, wake kswapd, and go on:

    64 touches | kswapd: wakes, one round, 90 pages freed | 71 touches | kswapd: one round | 66 touches | kswapd: balanced, sleeps | ...

Each of these stops is decided in `gfp.slowpath`, `fair.kswapd_turn` and `vmscan.kswapd_run`, in some two hundred calls of Python, which take longer
than what they decide on. All of them are alike, and all that follows is arithmetic: whose time passes, what is counted, what is told. So `stretch`
carries the common stop out itself, by the same rules, and *notes* what there is to tell: a row for each run of faults, each read, each visit of
reclaim, each turn of kswapd. `Stretch.run` brings in before what Python knows (`BESIDE`: clocks, kswapd's state, the run queue, the TLB) and tells
afterwards what the rows say, in their order: events, states of tasks (PSI), records for `explain`. The result is the same to the last bit.

It decides nothing that a reader of Linux would look for here. What is uncommon is left to Python (`common` says when none of it can come up):

    nothing was found above the min mark either      direct reclaim, the OOM killer
    a limit of a cgroup, memory.high                 the charge's own reclaim, throttling
    kswapd has given up; a theft of a pageblock      `gfp`
    protected cgroups, dirty files, huge pages, several nodes, another policy; a task on a slice

    one stop in Python: 80 µs, of which the round itself takes 20        in a stretch: 21 µs, and 10 to tell it

Sources: as for `gfp`, `vmscan`, `fair`, `memory.settle`, `tlb.access`; the test that compares both ways is tests/core/mm/test_thrash.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from core.columns import by_reference
from core.direct import Direct
from core.events import Watermark
from core.jit import inline, njit, step
from core.mm import rmap_walk, tlb, told, vmscan
from core.mm.fault import F_POPULATE, READ_IN, access_pages
from core.mm.mm_types import (
    CLASSIC,
    CTL_FAIL_NTH,
    CTL_HUGE_ZERO,
    CTL_POLICY,
    CTL_RECLAIM_MODE,
    CTL_SHRINKLIST,
    CTL_STEAL,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_NAMES,
    ZONES_PER_NODE,
    Array,
    State,
)
from core.mm.page_ops import NO_PAGE, RUNS_FULL
from core.mm.rmap_walk import MAX_VISITS, Rmap
from core.mm.shrink_node import DEF_PRIORITY, balance_round, pgdat_balanced, snapshot_refaults
from core.mm.swap_readahead import ZRAM
from core.mm.swapfile import swap_area
from core.mm.tlb_walk import access_tlb, flush_asid
from core.mm.vmscan import MAX_RECLAIM_RETRIES
from core.sched import fair, psi
from core.vmstat import EVENT, NR_FILE_DIRTY

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memory import TouchOutcome
    from core.mm.mm_types import Vma
    from core.sched.task import Task

PAGEOUTRUN, LOW_WMARK_HIT_QUICKLY = EVENT["pageoutrun"], EVENT["kswapd_low_wmark_hit_quickly"]
CYCLES_PER_NS = 3

# How far the last stop is carried out when a stretch ends.
UNSETTLED, UNWALKED, UNDECIDED, DECIDED = range(4)

# What Python knows and a stretch goes on with. Times in ns.
BESIDE = np.dtype([(name, "i8") for name in (
    "stage", "before", "tries", "noted",  # how it ended; accesses made before the last stop; rows of the log
    "now", "user_ns", "asleep_ns", "others_ns", "disk_waits",  # the clock
    "pid", "minflt", "majflt", "faults",  # the task
    "awake", "priority", "reclaimed", "failures", "until", "time_ns", "ran",  # kswapd
    "same_cpu", "queued", "rq_now", "iowait_ns", "idle_ns", "io_until", "system_ns",  # the processor that it runs on
    "cpu", "asid", "gen", "flushed", "local_all", "accesses", "hits", "l2_hits", "misses", "cycles", "walk", "l2",  # the TLB
    "access_ns", "scan_ns", "swap_out_ns", "visits", "populate",
)])  # fmt: skip
WIDTH, NOTES = 18, 1024  # of the log
# its rows: what, when, and
FAULTS = 0  # kind, first page, how many, step
READ = 1  # first page, reads, pages, slot, when it began, was it a stall
SHORTAGE = 2  # zone, free, low mark
VISIT = 3  # cgroup, priority, visit, looked, scanned, freed, written; then scanned and freed list by list
TURN = 4  # of kswapd: when it began, how long it took, does it sleep now


@by_reference
class Beside(NamedTuple):
    """What `stretch` is given besides the machine: `row` of BESIDE, what a fault of each kind costs, the log, a fresh scan_control, the TLB."""

    row: Array
    prices: Array
    log: Array
    sc: Array  # State.sc as words
    fresh: Array
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
        before = v["done"]
        access_pages(s, perm)
        w["before"], w["stage"] = before, UNSETTLED
        w["tries"] = count_tries(v, before, w["tries"])
        if w["noted"] + v["nr_runs"] + len(r.order) + ZONES_PER_NODE + 1 > NOTES:
            return
        settle(s, v, b, v["done"] - before)
        w["stage"] = UNWALKED
        if v["done"] > before and not w["populate"] and not walk(s, v, b, perm, before):
            return
        w["stage"] = UNDECIDED
        if v["reason"] == RUNS_FULL:
            continue
        if v["reason"] != NO_PAGE or v["mark"] == WMARK_MIN or v["tried"] or s.ctl[CTL_STEAL] or w["failures"] >= MAX_RECLAIM_RETRIES:
            return
        wake_kswapd(s, r, b)
        v["mark"] = WMARK_MIN
        w["stage"] = DECIDED


@inline
def count_tries(v, before: int, tries: int) -> int:
    """How often the same access has been tried without getting anywhere: not while its page is read, unless it was evicted again meanwhile."""
    if v["done"] != before:
        return 0
    return tries + 1 if not v["ra_next"] or v["major"] > tries else tries


@inline
def note(b: Beside, what: int) -> int:
    """A new row of the log: its number."""
    w = b.row[0]
    at = w["noted"]
    w["noted"] += 1
    b.log[at, 0], b.log[at, 1] = what, w["now"]
    return at


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
            at = note(b, FAULTS)
            b.log[at, 2], b.log[at, 3], b.log[at, 4], b.log[at, 5] = run["kind"], run["vpn"], run["n"], run["step"]
            continue
        if run["stall"]:
            before = run["at"] - first - (accesses - left)
            left -= before
            w["user_ns"] += before * w["access_ns"]
            w["now"] += before * w["access_ns"] + ns
            ns = 0
        began = w["now"]
        w["disk_waits"] += 1
        w["now"] += run["ns"]
        w["asleep_ns"] += run["ns"]
        at = note(b, READ)
        b.log[at, 2], b.log[at, 3], b.log[at, 4], b.log[at, 5] = run["vpn"], run["n"], run["pages"], run["slot"]
        b.log[at, 6], b.log[at, 7] = began, run["stall"]
        if not w["populate"] or s.swaps[swap_area(s, run["slot"])]["kind"] == ZRAM:
            w["majflt"] += run["n"]
            w["minflt"] -= run["n"]
    w["user_ns"] += left * w["access_ns"]
    w["now"] += left * w["access_ns"] + ns


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
def wake_kswapd(s: State, r: Rmap, b: Beside) -> None:
    """A zone is below its low mark: kswapd wakes, if it sleeps, and works for a round (gfp.wake_kswapd), on its own time (fair.kswapd_turn)."""
    w = b.row[0]
    if not w["awake"]:
        for zid in range(ZONES_PER_NODE):
            zone = s.zones[zid]
            if zone["managed"] and zone["free"] <= zone["wmark"][WMARK_LOW]:
                at = note(b, SHORTAGE)
                b.log[at, 2], b.log[at, 3], b.log[at, 4] = zid, zone["free"], zone["wmark"][WMARK_LOW]
    start = w["now"]
    begin = max(start, w["until"])
    w["now"] = begin
    sleeps = kswapd_run(s, r, b)
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
    at = note(b, TURN)
    b.log[at, 2], b.log[at, 3], b.log[at, 4] = begin, took, sleeps


@step
def kswapd_run(s: State, r: Rmap, b: Beside) -> bool:
    """One round of kswapd (vmscan.kswapd_run): True if it sleeps now."""
    w, c = b.row[0], s.sc[0]
    if not w["awake"]:
        begin_run(s, b)
    if pgdat_balanced(s, 0):
        return kswapd_sleep(s, r, b, True)
    for i in range(len(b.sc)):
        b.sc[i] = b.fresh[i]
    c["priority"], c["nr_visits"] = w["priority"], w["visits"]
    balance_round(s, r)
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
    balanced = pgdat_balanced(s, 0)
    if useful and balanced:
        s.vm_event[LOW_WMARK_HIT_QUICKLY] += 1
    if balanced or w["failures"] >= MAX_RECLAIM_RETRIES:
        w["awake"] = 0
        return True
    begin_run(s, b)
    return False


@step
def tell(s: State, r: Rmap, b: Beside) -> None:
    """What the visits of the round came to: their time, and a row for each (vmscan.tell)."""
    w, c = b.row[0], s.sc[0]
    for i in range(c["row"]):
        row = r.visits[i]
        w["now"] += row["scanned"] * w["scan_ns"]
        if not row["looked"] and not row["scanned"]:
            continue
        at = note(b, VISIT)
        b.log[at, 2], b.log[at, 3], b.log[at, 4] = row["memcg"], row["priority"], row["visit"]
        b.log[at, 5], b.log[at, 6], b.log[at, 7], b.log[at, 8] = row["looked"], row["scanned"], row["freed"], row["written"]
        for lru in range(4):
            b.log[at, 9 + lru], b.log[at, 13 + lru] = row["list_scanned"][lru], row["list_freed"][lru]
        if row["looked"]:
            w["visits"] = row["visit"] + 1
        if row["scanned"]:
            w["now"] += row["written"] * w["swap_out_ns"]
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


def allocates_low(k: Kernel) -> bool:
    """Will the next access ask for frames above the low mark? Then whoever finds none wakes kswapd, and has not come down to reclaiming himself."""
    v = k.s.vmf[0]
    return int(v["ra_mark"] if v["ra_next"] else v["mark"]) == WMARK_LOW


class Stretch:
    """The stretches of one run of accesses: what they need, and what becomes of their notes."""

    __slots__ = ("k", "task", "beside", "rq")

    def __init__(self, k: Kernel, task: Task) -> None:
        self.k, self.task, self.rq = k, task, fair.kswapd_rq(k, 0)
        cols, prices = k.tlb_columns, [told.price(k, kind) for kind in range(len(told.PRICES))]
        row, log, words = np.zeros(1, BESIDE), np.empty((NOTES, WIDTH), np.int64), k.s.sc.view(np.ndarray).view(np.int64)
        self.beside = Beside(row, np.array(prices, np.int64), log, words, np.zeros_like(words), cols.tags, cols.stamps, cols.state, cols.geom)

    def run(self, order: Array, tries: int, outcome: TouchOutcome) -> tuple[int, int, int]:
        """One stretch: how far its last stop is carried out (UNSETTLED ...), the accesses made before that, and its `tries`."""
        k, b = self.k, self.beside
        self.bring(tries)
        STRETCH.run(k.s, rmap_walk.tables(k), b, order)
        w = dict(zip(BESIDE.names or (), b.row[0].item(), strict=True))
        self.tell(b.log[: w["noted"]].tolist())
        self.take_back(w)
        outcome.faults += w["faults"]
        return w["stage"], w["before"], w["tries"]

    def bring(self, tries: int) -> None:
        """What Python knows of the moment."""
        k, task, rq, daemon = self.k, self.task, self.rq, self.k.kswapd[0]
        clock, costs, cpu = k.clock, k.costs, self.k.tlb.cpus[self.task.cpu]
        walk, l2, _ = k.tlb_costs
        self.beside.row[0] = (
            0, 0, tries, 0, clock.now, clock.user_ns, clock.asleep_ns, clock.others_ns, clock.disk_waits, task.pid, task.minflt, task.majflt, 0,
            daemon["awake"], daemon["priority"], daemon["reclaimed"], daemon["failures"], daemon["until"], daemon["time_ns"], 0,
            rq.number == task.cpu, bool(rq.queue), rq.now, rq.iowait_ns, rq.idle_ns, rq.io_until, rq.system_ns,
            task.cpu, cpu.asid, cpu.gens[cpu.asid], -1, cpu.local_all, 0, 0, 0, 0, 0, walk, l2,
            costs.access, costs.scan_page, costs.swap_out, k.records.nr_visits, int(k.s.vmf["flags"][0]) & F_POPULATE,
        )  # fmt: skip
        vmscan.begin(k, 0, vmscan.pages_to_balance(k, 0), kswapd=True, into=self.beside.fresh)

    def take_back(self, w: dict[str, int]) -> None:
        """How far everything has come."""
        k, task, rq, daemon = self.k, self.task, self.rq, self.k.kswapd[0]
        clock, cpu = k.clock, self.k.tlb.cpus[self.task.cpu]
        clock.now, clock.user_ns, clock.asleep_ns, clock.others_ns, clock.disk_waits = (
            w["now"], w["user_ns"], w["asleep_ns"], w["others_ns"], w["disk_waits"])  # fmt: skip
        task.minflt, task.majflt = w["minflt"], w["majflt"]
        daemon.update({name: w[name] for name in ("priority", "reclaimed", "failures", "until", "time_ns")}, awake=bool(w["awake"]))
        if w["ran"]:
            daemon.update(need_aging=False, boosts={})
        rq.now, rq.iowait_ns, rq.idle_ns, rq.system_ns = w["rq_now"], w["iowait_ns"], w["idle_ns"], w["system_ns"]
        cpu.gens[cpu.asid], cpu.local_all = w["gen"], w["local_all"]
        if w["flushed"] >= 0:
            cpu.flushed[cpu.asid] = (tlb.BY_RECLAIM, w["flushed"])
        if w["accesses"]:
            tlb.count(k, task, (w["accesses"], w["hits"], w["l2_hits"], w["misses"], w["cycles"]))
        if k.rmap[1].file_lost.any():
            rmap_walk.settle(k)

    def tell(self, notes: list[list[int]]) -> None:
        """What happened, note by note, as those who did it would have told."""
        k, task, rq, daemon = self.k, self.task, self.rq, self.k.kswapd[0]
        for what, at, *x in notes:
            if what == FAULTS:
                told.faults(k, task, at, x[0], x[1], x[2], x[3])
            elif what == READ:
                vpn, n, pages, slot, began, stall = x[:6]
                psi.slept(k, task, began, at, told.REFAULT if stall else None)
                told.reads(k, task, at, slot, vpn, n, pages)
            elif what == VISIT:
                with k.because(daemon["cause"]):
                    vmscan.tell_visit(k, at, 0, "kswapd", x[:7], x[7:11], x[11:15])
            elif what == TURN:
                begin, took, sleeps = x[:3]
                fair.kswapd_worked(k, 0, rq, begin, took)
                if sleeps:
                    daemon["cause"] = 0
            else:
                daemon["cause"] = k.emit(Watermark(at, 0, ZONE_NAMES[x[0] % ZONES_PER_NODE], "low", x[1], x[2], "kswapd"))
