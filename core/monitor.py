"""What an administrator watches: a line of vmstat(8) for every second, and the table of OOM kills.

A sample is taken by a timer, so that it is the same whoever looks: once a simulated second while programs run, or at the interval that the
operation `vmstat` sets (0: never). Each becomes an event `vmstat` and is kept, the last 600 of them; `GET …/vmstat` prints them in the
columns of procps:

    procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----
     r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st
     2  1  51200  10240      0  90112  128  512   640   520   12   95 31  4 60  5  0

r: tasks that run or want to; b: tasks that wait for the disk. Memory in KiB. si, so, bi, bo: KiB a second, swapped in and out, read and
written. cs: context switches a second. us sy id wa: per cent of the processors' time.

    1,000 pages swapped out within 2 s: so = 1000 * 4 / 2 = 2000

Simplified: buff is 0 (there are no block-device pages), in counts what the disk has finished (there are no timer ticks), st is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.events import Vmstat
from core.fs import derived
from core.sched import fair
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel

SECOND = 1_000_000_000
KEPT = 600
HEADER = (
    "procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----\n"
    " r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st\n"
)
WIDTHS = {"r": 2, "b": 2, "swpd": 6, "free": 6, "buff": 6, "cache": 6, "si": 4, "so": 4, "bi": 5, "bo": 5, "in": 4, "cs": 4,
          "us": 2, "sy": 2, "id": 2, "wa": 2, "st": 2}  # fmt: skip
RATES = {"si": ("pswpin", 4), "so": ("pswpout", 4), "bi": ("pgpgin", 1), "bo": ("pgpgout", 1)}  # event, KiB of each


class Monitor:
    """`interval_ns`: as set, -1: every second while programs run; `armed`: a timer is on its way; `seen`: the counters at the last sample."""

    __slots__ = ("interval_ns", "armed", "seen", "samples")

    def __init__(self) -> None:
        self.interval_ns = -1
        self.armed = False
        self.seen: dict[str, Any] = {}
        self.samples: list[dict[str, Any]] = []


def counters(k: Kernel) -> dict[str, Any]:
    """What only grows: events, switches, processor time by kind, faults by process."""
    times = [fair.cpu_times(k, cpu) for cpu in range(k.nr_cpus)]
    user, system, idle, iowait = (sum(column) for column in zip(*times, strict=True))
    events = {name: int(k.s.vm_event[EVENT[event]]) * unit for name, (event, unit) in RATES.items()}
    return {
        "clock_ns": k.clock.now, **events, "in": k.clock.disk_waits, "cs": sum(rq.switches for rq in k.rqs),
        "us": user, "sy": system, "id": idle, "wa": iowait, "faults": {task.pid: (task.minflt, task.majflt) for task in k.tasks.values()},
    }  # fmt: skip


def line(k: Kernel, seen: dict[str, Any], now: dict[str, Any]) -> dict[str, int]:
    """The columns for the time between two looks at the counters."""
    ns = max(now["clock_ns"] - seen["clock_ns"], 1)
    out = {"r": fair.nr_running(k), "b": fair.nr_blocked(k), **memory(k)}
    for name in ("si", "so", "bi", "bo", "in", "cs"):
        out[name] = (now[name] - seen[name]) * SECOND // ns
    spent = {name: now[name] - seen[name] for name in ("us", "sy", "id", "wa")}
    total = max(sum(spent.values()), 1)
    return out | {name: (100 * part + total // 2) // total for name, part in spent.items()} | {"st": 0}


def memory(k: Kernel) -> dict[str, int]:
    """swpd free buff cache, KiB."""
    cache = derived.node_stat(k, "nr_file_pages") - derived.node_stat(k, "nr_swapcached") + derived.node_stat(k, "nr_slab_reclaimable")
    total, free = derived.swap_pages(k)
    return {"swpd": (total - free) * 4, "free": derived.free_pages(k) * 4, "buff": 0, "cache": cache * 4}


def show(columns: dict[str, int]) -> str:
    """One line of vmstat."""
    return " ".join(f"{columns[name]:{width}d}" for name, width in WIDTHS.items())


# ---------------------------------------------------------------- samples


def interval(k: Kernel) -> int:
    """How often a sample is due now; 0: not at all."""
    return k.monitor.interval_ns if k.monitor.interval_ns >= 0 else SECOND if k.nr_programs else 0


def arm(k: Kernel) -> None:
    """See to it that the next sample is taken: at the next whole multiple of the interval."""
    every = interval(k)
    if every and not k.monitor.armed:
        k.monitor.armed = True
        k.monitor.seen = k.monitor.seen or counters(k)
        k.clock.at((k.clock.now // every + 1) * every, "vmstat", priority=1)


def set_interval(k: Kernel, every: int) -> None:
    """vmstat: a sample every so many ns from now on; 0: none; -1: every second while programs run."""
    k.monitor.interval_ns = every
    arm(k)


def sample(k: Kernel) -> None:
    """The timer: a line and an event, and the next timer."""
    k.monitor.armed = False
    if not interval(k):
        k.monitor.seen = {}
        return
    seen, now = k.monitor.seen, counters(k)
    columns = line(k, seen, now)
    faults = {
        str(pid): [minor - seen["faults"].get(pid, (0, 0))[0], major - seen["faults"].get(pid, (0, 0))[1]]
        for pid, (minor, major) in now["faults"].items()
        if (minor, major) != seen["faults"].get(pid, (0, 0))
    }
    row = {"clock_ns": k.clock.now, "ns": k.clock.now - seen["clock_ns"], "columns": columns, "faults": faults}
    k.monitor.samples = [*k.monitor.samples[1 - KEPT :], row]
    k.monitor.seen = now
    k.emit(Vmstat(k.clock.now, show(columns), columns, faults))
    arm(k)


def vmstat(k: Kernel, every: int = 0, count: int = 1) -> list[dict[str, Any]]:
    """The last `count` stretches of `every` ns, made of whole samples, oldest first; without `every`, or samples, one line since boot."""
    if not every or not k.monitor.samples:
        boot = dict.fromkeys(("clock_ns", "si", "so", "bi", "bo", "in", "cs", "us", "sy", "id", "wa"), 0)
        now = counters(k)
        faults = {str(pid): list(both) for pid, both in now["faults"].items()}
        return [{"clock_ns": k.clock.now, "ns": k.clock.now, "columns": line(k, boot, now), "faults": faults}]
    rows: list[dict[str, Any]] = []
    at = len(k.monitor.samples)
    while at and len(rows) < count:
        part: list[dict[str, Any]] = []
        while at and sum(one["ns"] for one in part) < every:
            at -= 1
            part.insert(0, k.monitor.samples[at])
        rows.insert(0, together(part))
    return rows


def together(part: list[dict[str, Any]]) -> dict[str, Any]:
    """Some samples as one: rates and shares by time, the rest as it was at the end."""
    ns = sum(one["ns"] for one in part)
    columns = dict(part[-1]["columns"])
    for name in ("si", "so", "bi", "bo", "in", "cs", "us", "sy", "id", "wa"):
        columns[name] = sum(one["columns"][name] * one["ns"] for one in part) // ns
    faults: dict[str, list[int]] = {}
    for one in part:
        for pid, (minor, major) in one["faults"].items():
            before = faults.get(pid, [0, 0])
            faults[pid] = [before[0] + minor, before[1] + major]
    return {"clock_ns": part[-1]["clock_ns"], "ns": ns, "columns": columns, "faults": faults}


def text(rows: list[dict[str, Any]]) -> str:
    """The rows as vmstat prints them."""
    return HEADER + "".join(show(row["columns"]) + "\n" for row in rows)
