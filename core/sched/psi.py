"""PSI: how much time is lost waiting for memory, the disk, a processor (kernel/sched/psi.c).

*Each processor, each group.* A group is a cgroup with all below it; the root's is the whole machine. At every change of a task's state
the group counts, per processor, its tasks that are running or runnable, that wait for the disk, that are in a memory stall, and those
that are in one while running. From the counts follow the states:

    memory some   anybody in a memory stall
    memory full   and nobody does anything else: every running task is in a stall itself, or the one on the processor is
    io some       anybody waits for the disk              io full    and nobody runs
    cpu some      more tasks want to run than do run      cpu full   tasks want to run and none of this group does
    non-idle      any of them

*Over the processors.* A processor counts by the time in which it was not idle, period by period:

    total += sum(time in the state * non-idle time) / sum(non-idle time)

    1 task stalled, 1 productive, one processor: some 100 %, full 0 %       (the productive one has the processor)
    1 stalled on cpu0, 3 productive on cpu1..3, all of the time: some = full = 1 of 4 non-idle processors: 25 %

*Averages.* They are recomputed every period of 2.004 s (2*HZ+1 ticks of 4 ms) as exponential means in fixed point, 1.0 = 2048:

    avg' = (avg * exp + pct * 2048 * (2048 - exp) [+ 2047 if it rises]) / 2048      exp = 1677, 1981, 2034 for 10, 60, 300 s

Worked numbers: one period of 100 % from zero gives (0 + 204800 * 371 + 2047) / 2048 = 37100, shown as 18.11; the fifth shows
63.18, not 100: it is a mean with a time constant of 10 s. A period without any stall lets it fall: 14.83, 12.14, ...

Periods in which nobody looked are made up for with zero samples; a stall longer than its period is carried over into the next.

What is a memory stall (`memstall`, at the places of psi_memstall_enter): direct reclaim; reclaim at a cgroup's limit or above its
memory.high, and the sleep for it; waiting for the disk for a page that was in the workingset before it was evicted
(PG_workingset), from a file or from swap; all that kswapd does. Reading a file for the first time is not, nor what the operator asks
for (memory.reclaim, a lower memory.max). A stall counts in the task's cgroup and all above it.

*The implementation.* Processors run slice by slice, one a little ahead of another (`sched/fair.py`), so changes of state come out of
order: `task_change` only notes them, and `settle` carries them out in order of time once no processor can be behind them. Two calls
of a client right after each other are one stretch of running. Accounts are only moved on by changes; reading works on a copy, so what
a file shows does not depend on who looked before.

Triggers. "some 150000 1000000" written to the file: an event `psi` when tasks stalled for 150 ms within 1 s, at most one per
window. The window slides by interpolation: what the last one grew by counts in proportion to what is left of this one. Growth is
looked at ten times a window during a stall, and at its end. There is no file descriptor to close: a trigger stays as long as its
cgroup, and writing the same one again changes nothing.

    150 ms of 1 s; the last window grew by 200 ms, 0.25 s into this one it grew by 10 ms: 10 + 200 * 0.75 = 160 ms: it fires

Simplified: Linux weighs processors in whole ticks of 4 ms of non-idle time, here it is ns; and in Linux every read ends a period of weighing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from core.events import Psi
from core.record import keep

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import Array
    from core.sched.task import Task

NSEC_PER_TICK = 4_000_000  # HZ = 250
PSI_PERIOD = (2 * 250 + 1) * NSEC_PER_TICK
FSHIFT = 11
FIXED_1 = 1 << FSHIFT
EXP = (1677, 1981, 2034)  # 10 s, 60 s, 300 s
RUNNING, ONCPU, IOWAIT, MEMSTALL = 1, 2, 4, 8  # a task's state; RUNNING: on a run queue
IO, MEM, CPU = range(3)  # resources; state = 2 * resource + (0 some, 1 full)
RESOURCES = ("io", "memory", "cpu")
IO_SOME, IO_FULL, MEM_SOME, MEM_FULL, CPU_SOME, CPU_FULL, NONIDLE = range(7)
NR_STATES = NONIDLE
NAMES = ("some", "full")
DIRECT_RECLAIM = "direct reclaim"  # a stall
WINDOW_MIN_US, WINDOW_MAX_US = 500_000, 10_000_000
UPDATES_PER_WINDOW = 10


def calc_load(load: int, exp: int, active: int) -> int:
    """One step of the mean; all in units of 1/2048 (include/linux/sched/loadavg.h)."""
    new = load * exp + active * (FIXED_1 - exp)
    if active >= load:
        new += FIXED_1 - 1
    return new // FIXED_1


def fixed_power(x: int, n: int) -> int:
    """x to the n-th, x in units of 1/2048, rounded at every step (kernel/sched/loadavg.c:fixed_power_int)."""
    result = FIXED_1
    while n:
        if n & 1:
            result = (result * x + (1 << (FSHIFT - 1))) >> FSHIFT
        n >>= 1
        x = (x * x + (1 << (FSHIFT - 1))) >> FSHIFT
    return result


def calc_avgs(avg: list[int], missed: int, stalled: int, period: int) -> list[int]:
    """The three means after `missed` empty periods and one of `period` ns with `stalled` ns of stall."""
    if missed:
        avg = [calc_load(load, fixed_power(exp, missed), 0) for load, exp in zip(avg, EXP, strict=True)]
    active = stalled * 100 // period * FIXED_1
    return [calc_load(load, exp, active) for load, exp in zip(avg, EXP, strict=True)]


class Trigger:
    """One watch on an account: `threshold` ns of stall within `window` ns (struct psi_trigger, struct psi_window)."""

    __slots__ = ("state", "threshold", "window", "start", "start_value", "prev_growth", "polled", "last_event", "pending")

    def __init__(self, state: int, threshold: int, window: int, now: int, value: int) -> None:
        self.state, self.threshold, self.window = state, threshold, window
        self.polled = now
        self.last_event = now - window
        self.pending = 0
        self.reset(now, value, 0)

    def reset(self, now: int, value: int, growth: int) -> None:
        """A new window begins (window_reset)."""
        self.start, self.start_value, self.prev_growth = now, value, growth

    def wake(self, now: int, value: int) -> None:
        """A stall begins: after a whole window without one, nothing of the past counts (init_triggers)."""
        if now >= self.polled + self.window:
            self.reset(now, value, 0)
        self.polled = max(self.polled, now)

    @property
    def next_poll(self) -> int:
        """When growth is looked at next while the stall lasts."""
        return self.polled + self.window // UPDATES_PER_WINDOW

    def poll(self, now: int, value: int) -> int:
        """Growth within the window if that is worth an event, else 0 (update_triggers, window_update).

        What crosses the threshold too soon after the last event is reported when a window has passed since.
        """
        self.polled = now
        elapsed, growth = now - self.start, value - self.start_value
        if elapsed > self.window:
            self.reset(now, value, growth)
        else:
            growth += self.prev_growth * (self.window - elapsed) // self.window
        if not self.pending and growth >= self.threshold:
            self.pending = growth
        if now < self.last_event + self.window:
            return 0
        due, self.pending = self.pending, 0
        if due:
            self.last_event = now
        return due


def counts(flags: int) -> tuple[int, ...]:
    """What a task in this state counts as: running, oncpu, iowait, memstall, memstall_running, memstall_oncpu."""
    running, oncpu, iowait, memstall = (int(flags & bit != 0) for bit in (RUNNING, ONCPU, IOWAIT, MEMSTALL))
    return running, oncpu, iowait, memstall, running & memstall, oncpu & memstall


# By old and new state of a task: what that adds to each count.
CHANGES = [[tuple(b - a for a, b in zip(counts(old), counts(new), strict=True)) for new in range(16)] for old in range(16)]
COUNTS = np.array([counts(flags) for flags in range(16)], np.int64)


def test_states(running: Any, oncpu: Any, iowait: Any, memstall: Any, memstall_running: Any, memstall_oncpu: Any) -> tuple[Any, ...]:
    """Which states hold where so many tasks are in each (test_state), IO_SOME to NONIDLE: for one moment, or for many at once (arrays)."""
    io, memory, cpu = iowait > 0, memstall > 0, running > oncpu
    full = (running == memstall_running) | (memstall_oncpu > 0)
    return io, io & (running == 0), memory, memory & full, cpu, cpu & (oncpu == 0), (running > 0) | io | memory


@lru_cache(maxsize=1024)
def states_of(*counts: int) -> tuple[int, ...]:
    """The states that hold at a moment."""
    return tuple(state for state, holds in enumerate(test_states(*counts)) if holds)


class GroupCpu:
    """One processor's share of a group (struct psi_group_cpu): counts of tasks, the states they make, time in each."""

    __slots__ = ("running", "oncpu", "iowait", "memstall", "memstall_running", "memstall_oncpu", "states", "since", "times")

    def __init__(self, now: int) -> None:
        self.running = self.oncpu = self.iowait = self.memstall = self.memstall_running = self.memstall_oncpu = 0
        self.states: tuple[int, ...] = ()
        self.since = now
        self.times = [0] * (NR_STATES + 1)

    def count(self, old: int, new: int) -> None:
        """A task goes from the state `old` to `new`; 0: it is not there."""
        running, oncpu, iowait, memstall, memstall_running, memstall_oncpu = CHANGES[old][new]
        self.running += running
        self.oncpu += oncpu
        self.iowait += iowait
        self.memstall += memstall
        self.memstall_running += memstall_running
        self.memstall_oncpu += memstall_oncpu
        self.states = states_of(self.running, self.oncpu, self.iowait, self.memstall, self.memstall_running, self.memstall_oncpu)

    def run(self, now: int) -> None:
        """Time passes (record_times)."""
        passed = now - self.since
        if passed:
            for state in self.states:
                self.times[state] += passed
            self.since = now

    def run_through(self, times: Array, changes: Array) -> None:
        """`run` and `count` for many changes at once, in order of time; `changes`: what each adds to the counts."""
        before = [self.running, self.oncpu, self.iowait, self.memstall, self.memstall_running, self.memstall_oncpu]
        counts = np.vstack([before, changes]).cumsum(axis=0)
        passed = np.diff(times, prepend=self.since)
        for state, holds in enumerate(test_states(*counts[:-1].T)):
            self.times[state] += int(passed[holds].sum())
        self.since = int(times[-1])
        self.running, self.oncpu, self.iowait, self.memstall, self.memstall_running, self.memstall_oncpu = counts[-1].tolist()
        self.states = states_of(*counts[-1].tolist())


class Aggregate:
    """Totals over the processors, and what they have seen of each (psi_group.total, times_prev): for the averages, and for triggers."""

    __slots__ = ("total", "seen")

    def __init__(self) -> None:
        self.total = [0] * NR_STATES
        self.seen: dict[int, list[int]] = {}

    def collect(self, cpus: dict[int, GroupCpu]) -> None:
        """Add what the processors spent in each state since the last time, by the weight of their non-idle time (collect_percpu_times)."""
        sums, weight = [0] * NR_STATES, 0
        for number, cpu in cpus.items():
            seen = self.seen.get(number)
            if seen == cpu.times:
                continue
            spent = [new - old for new, old in zip(cpu.times, seen, strict=True)] if seen else cpu.times
            weight += spent[NONIDLE]
            for state in range(NR_STATES):
                sums[state] += spent[state] * spent[NONIDLE]
            self.seen[number] = list(cpu.times)
        if weight:
            for state in range(NR_STATES):
                self.total[state] += sums[state] // weight


class PsiGroup:
    """The stalls of a group of tasks (struct psi_group). Times in ns of simulated time."""

    __slots__ = ("cpus", "now", "totals", "avg", "avg_total", "last_update", "next_update", "polled", "triggers")

    def __init__(self, now: int) -> None:
        self.cpus: dict[int, GroupCpu] = {}
        self.now = now  # how far it is accounted
        self.totals = Aggregate()
        self.avg = [[0, 0, 0] for _ in range(NR_STATES)]
        self.avg_total = [0] * NR_STATES  # how much of the totals the averages have seen
        self.last_update = now
        self.next_update = now + PSI_PERIOD
        self.polled = Aggregate()
        self.triggers: list[Trigger] = []

    def change(self, cpu: int, now: int, old: int, new: int) -> list[tuple[int, Trigger, int]]:
        """A task on `cpu` goes from one state to another (psi_group_change): the triggers that fired up to now."""
        fired = self.advance(now)
        before = self.holding() if self.triggers else ()
        groupc = self.cpus.get(cpu)
        if groupc is None:
            groupc = self.cpus[cpu] = GroupCpu(now)
        groupc.run(now)
        groupc.count(old, new)
        if self.triggers:
            fired += self.watch(now, before)
        return fired

    def change_many(self, cpus: Array, times: Array, changes: Array) -> None:
        """Many changes, in order of time, of a group without triggers: what each adds to the counts of its processor.

        They go by stretches in which no period ends.
        """
        at = 0
        while at < len(times):
            self.advance(int(times[at]))
            stop = max(at + 1, int(np.searchsorted(times, self.next_update)))
            for cpu in dict.fromkeys(cpus[at:stop].tolist()):
                mine = at + np.flatnonzero(cpus[at:stop] == cpu)
                if cpu not in self.cpus:
                    self.cpus[cpu] = GroupCpu(int(times[mine[0]]))
                self.cpus[cpu].run_through(times[mine], changes[mine])
            self.now = max(self.now, int(times[stop - 1]))
            at = stop

    def holding(self) -> set[int]:
        """The states that hold on some processor."""
        return {state for groupc in self.cpus.values() for state in groupc.states}

    def watch(self, now: int, before: set[int] | tuple[int, ...]) -> list[tuple[int, Trigger, int]]:
        """Stalls that begin wake their triggers, those that end are looked at."""
        after = self.holding()
        self.polled.collect(self.cpus)
        fired = []
        for trigger in self.triggers:
            value = self.polled.total[trigger.state]
            if trigger.state in after and trigger.state not in before:
                trigger.wake(now, value)
            elif trigger.state in before and trigger.state not in after and (growth := trigger.poll(now, value)):
                fired.append((now, trigger, growth))
        return fired

    def advance(self, now: int) -> list[tuple[int, Trigger, int]]:
        """Account everything up to `now`, each period at its end: the triggers that fired, each with its time and its growth."""
        fired: list[tuple[int, Trigger, int]] = []
        if now < self.next_update and not self.triggers:  # nothing to sample or to watch until then
            if now > self.now:
                self.now = now
            return fired
        while self.now < now:
            if now >= self.next_update and self.quiet():
                self.jump(now)
            stalled = self.holding() if self.triggers else ()
            stop = min(now, self.next_update, *(t.next_poll for t in self.triggers if t.state in stalled))
            self.run(stop)
            self.now = max(self.now, stop)
            fired += self.poll(stop, stalled)
            self.update_averages(stop)
        return fired

    def run(self, now: int) -> None:
        """Time passes on all processors."""
        for groupc in self.cpus.values():
            groupc.run(now)

    def quiet(self) -> bool:
        """Nobody is there, and the averages have seen all."""
        return not any(groupc.states for groupc in self.cpus.values()) and self.collected() == self.avg_total

    def collected(self) -> list[int]:
        """The totals up to now."""
        self.totals.collect(self.cpus)
        return self.totals.total

    def jump(self, now: int) -> None:
        """The end of the last whole period of many in which nothing was."""
        self.update_averages(now - (now - self.next_update) % PSI_PERIOD)

    def poll(self, now: int, stalled: set[int] | tuple[int, ...]) -> list[tuple[int, Trigger, int]]:
        """Look at the growth of what stalls, ten times a window."""
        fired = []
        for trigger in self.triggers:
            if trigger.state in stalled and now >= trigger.next_poll:
                self.polled.collect(self.cpus)
                if growth := trigger.poll(now, self.polled.total[trigger.state]):
                    fired.append((now, trigger, growth))
        return fired

    def add_trigger(self, state: int, threshold_us: int, window_us: int, now: int) -> None:
        """Watch for so much stall within so much time; the same watch twice is one."""
        wanted = (state, threshold_us * 1000, window_us * 1000)
        if all((t.state, t.threshold, t.window) != wanted for t in self.triggers):
            self.run(now)
            self.polled.collect(self.cpus)
            self.triggers.append(Trigger(*wanted, now, self.polled.total[state]))

    def update_averages(self, now: int) -> None:
        """Bring the averages up to `now`, if a period has ended."""
        if now < self.next_update:
            return
        total = self.collected()
        missed = (now - self.next_update) // PSI_PERIOD
        self.next_update += (1 + missed) * PSI_PERIOD
        period = now - (self.last_update + missed * PSI_PERIOD)
        self.last_update = now
        for state in range(NR_STATES):
            sample = min(total[state] - self.avg_total[state], period)
            self.avg_total[state] += sample
            if sample or any(self.avg[state]):
                self.avg[state] = calc_avgs(self.avg[state], missed, sample, period)

    def show(self, now: int, resource: int = MEM, *, system: bool = False) -> str:
        """A pressure file: averages in percent, totals in microseconds. Changes nothing.

        `system`: the whole machine's, for which nobody asks whether all of its tasks wait for a CPU (psi_show).
        """
        seen = copy.deepcopy(self)
        seen.advance(now)
        seen.run(now)
        total = seen.collected()
        lines = []
        for kind, name in enumerate(NAMES):
            state = 2 * resource + kind
            blank = system and resource == CPU and kind == 1
            avg, us = ([0, 0, 0], 0) if blank else (seen.avg[state], total[state] // 1000)
            means = " ".join(f"avg{seconds}={percent(load)}" for seconds, load in zip((10, 60, 300), avg, strict=True))
            lines.append(f"{name} {means} total={us}\n")
        return "".join(lines)


def percent(load: int) -> str:
    """A mean as Linux prints it: two decimals, cut off."""
    return f"{load >> FSHIFT}.{((load & (FIXED_1 - 1)) * 100) >> FSHIFT:02d}"


# ---------------------------------------------------------------- the kernel's tasks


class PsiTasks:
    """Who is in which state: as noted last (`flags`), as accounted (`known`: cpu, flags, cgroup), and the changes in between.

    A change is (time, number, pid, cpu, flags, cgroup). `watched`: the cgroups that have triggers.
    """

    __slots__ = ("changes", "seq", "flags", "known", "watched")

    def __init__(self) -> None:
        self.changes: list[tuple[int, int, int, int, int, Cgroup]] = []
        self.seq = 0
        self.flags: dict[int, int] = {}
        self.known: dict[int, tuple[int, int, Cgroup]] = {}
        self.watched: list[Cgroup] = []


def task_change(k: Kernel, pid: int, cpu: int, cgroup: Cgroup, now: int, flags: int) -> None:
    """From `now` on a task is in the state `flags` on `cpu` (psi_task_change). A pause of no length is none."""
    tasks = k.psi
    changes = tasks.changes
    if changes and changes[-1][2] == pid and changes[-1][0] == now:
        changes.pop()
    if flags:
        tasks.flags[pid] = flags
    else:
        tasks.flags.pop(pid, None)
    if changes or tasks.known.get(pid) != (cpu, flags, cgroup):
        tasks.seq += 1
        changes.append((now, tasks.seq, pid, cpu, flags, cgroup))


def task_changes(k: Kernel, rows: Array) -> None:
    """`task_change` for many, one after the other: rows of time, pid, cpu, flags, number of the cgroup. They stay rows until they are carried out."""
    tasks, at = k.psi, 0
    while at < len(rows) and len(tasks.changes) < 2:  # until there is something for the next to follow
        now, pid, cpu, flags, cgroup = rows[at].tolist()
        task_change(k, pid, cpu, k.cgroups[cgroup], now, flags)
        at += 1
    rows = rows[at:]
    if not len(rows):
        return
    if tasks.changes[-1][2] == rows[0, 1] and tasks.changes[-1][0] == rows[0, 0]:
        tasks.changes.pop()
    lasts = np.append((np.diff(rows[:, :2], axis=0) != 0).any(axis=1), True)
    numbered = np.insert(rows, 1, tasks.seq + 1 + np.arange(len(rows)), axis=1)[lasts]
    tasks.seq += len(rows)
    k.untold.changes.append(numbered[:-1])
    tasks.changes += as_changes(k.cgroups, numbered[-1:])
    begun = []  # since when each task has been in some state without a break
    for pid in np.unique(rows[:, 1]).tolist():
        mine = np.flatnonzero(rows[:, 1] == pid)
        breaks = np.flatnonzero(rows[mine, 3] == 0)
        if len(breaks):
            tasks.flags.pop(pid, None)
            mine = mine[breaks[-1] + 1 :]
        if len(mine):
            begun.append((int(mine[0]), pid, int(rows[mine[-1], 3])))
    for _, pid, state in sorted(begun):
        tasks.flags[pid] = state


def as_changes(groups: dict[int, Cgroup], rows: Array) -> list[tuple[int, int, int, int, int, Cgroup]]:
    """The changes that rows of `task_changes`, numbered, stand for."""
    return [(now, seq, pid, cpu, flags, groups[cgroup]) for now, seq, pid, cpu, flags, cgroup in rows.tolist()]


def set_state(k: Kernel, task: Task, flags: int) -> None:
    """The state of a task from now on."""
    task_change(k, task.pid, task.cpu, task.cgroup, k.clock.now, flags)


def forget(k: Kernel, task: Task) -> None:
    """A task dies: what was noted about its future does not come to pass."""
    now = k.clock.now
    one_by_one(k)
    k.psi.changes = [change for change in k.psi.changes if change[2] != task.pid or change[0] <= now]
    if task.pid in k.psi.flags:
        set_state(k, task, 0)


def move(k: Kernel, task: Task) -> None:
    """A task has changed its cgroup: its state counts there from now on (cgroup_move_task)."""
    one_by_one(k)
    tasks, now = k.psi, k.clock.now
    tasks.changes = [(*change[:5], task.cgroup) if change[2] == task.pid and change[0] > now else change for change in tasks.changes]
    if task.pid in tasks.flags:
        known = next((change[4] for change in reversed(tasks.changes) if change[2] == task.pid and change[0] <= now), None)
        flags = tasks.known.get(task.pid, (0, 0, None))[1] if known is None else known
        tasks.seq += 1
        tasks.changes.append((now, tasks.seq, task.pid, task.cpu, flags, task.cgroup))


def settle(k: Kernel, until: int) -> None:
    """Carry out the changes before `until`, in order of time."""
    tasks = k.psi
    due = bool(tasks.changes) and tasks.changes[0][0] < until
    if tasks.watched or not due:
        one_by_one(k)
    if k.untold.changes:
        carry_out_many(k, until)
    elif due:
        tasks.changes.sort()
        done = 0
        while done < len(tasks.changes) and tasks.changes[done][0] < until:
            _carry_out(k, tasks, tasks.changes[done])
            done += 1
        del tasks.changes[:done]
    for cgroup in tasks.watched:
        report(k, cgroup.path, cgroup.psi.advance(until))


def one_by_one(k: Kernel) -> None:
    """What was noted in rows is to be carried out change by change after all."""
    for rows in k.untold.changes:
        k.psi.changes[-1:-1] = as_changes(k.cgroups, rows)
    k.untold.changes.clear()


def carry_out_many(k: Kernel, until: int) -> None:
    """`_carry_out` for all changes before `until`, those that were noted in rows and the others; nobody watches."""
    tasks = k.psi
    groups = k.cgroups | {change[5].id: change[5] for change in tasks.changes} | {was[2].id: was[2] for was in tasks.known.values()}
    singly = np.array([(*change[:5], change[5].id) for change in tasks.changes], np.int64)
    rows = np.vstack([singly, *k.untold.changes])
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    due = int(np.searchsorted(rows[:, 0], until))
    tasks.changes = as_changes(groups, rows[due:])
    k.untold.changes.clear()
    rows = rows[:due]
    cpus, flags, cgroups = states_and_before(tasks, groups, rows)
    times, changes = np.repeat(rows[:, 0], 2), COUNTS[flags]
    changes[::2] *= -1
    concerned = {id: groups[id].ancestors for id in np.unique(cgroups).tolist()}
    for group in dict.fromkeys(group for above in concerned.values() for group in above):
        mine = np.isin(cgroups, [id for id, above in concerned.items() if group in above])
        group.psi.change_many(cpus[mine], times[mine], changes[mine])


def states_and_before(tasks: PsiTasks, groups: dict[int, Cgroup], rows: Array) -> Array:
    """Of each change, in order of time, first what was known of its task before, then what is now: processors, states, cgroups."""
    pairs = np.repeat(rows[:, 3:], 2, axis=0)
    by_task = np.argsort(rows[:, 2], kind="stable")
    again = rows[by_task[1:], 2] == rows[by_task[:-1], 2]
    pairs[2 * by_task[1:][again]] = rows[by_task[:-1][again], 3:]
    for at in by_task[np.insert(~again, 0, True)].tolist():  # each task's first
        was = tasks.known.get(int(rows[at, 2]))
        pairs[2 * at] = (was[0], was[1], was[2].id) if was is not None else (0, 0, 0)
    for at in sorted(by_task[np.append(~again, True)].tolist()):  # and last
        pid, cpu, flags, cgroup = rows[at, 2:].tolist()
        tasks.known.pop(pid, None)
        if flags:
            tasks.known[pid] = (cpu, flags, groups[cgroup])
    fresh = np.flatnonzero(pairs[::2, 1] == 0)  # it was in no state: nowhere else either
    pairs[2 * fresh, 0], pairs[2 * fresh, 2] = pairs[2 * fresh + 1, 0], pairs[2 * fresh + 1, 2]
    return pairs.T


def _carry_out(k: Kernel, tasks: PsiTasks, change: tuple[int, int, int, int, int, Cgroup]) -> None:
    """One change, in every group that it concerns."""
    now, _, pid, cpu, flags, cgroup = change
    was_cpu, was, was_in = tasks.known.pop(pid, (cpu, 0, cgroup))
    if flags:
        tasks.known[pid] = (cpu, flags, cgroup)
    if was_cpu == cpu and was_in is cgroup:
        for group in cgroup.ancestors:
            if fired := group.psi.change(cpu, now, was, flags):
                report(k, group.path, fired)
        return
    for group in was_in.ancestors:
        report(k, group.path, group.psi.change(was_cpu, now, was, 0))
    for group in cgroup.ancestors:
        report(k, group.path, group.psi.change(cpu, now, 0, flags))


@contextmanager
def memstall(k: Kernel, task: Task | None, over: str) -> Iterator[None]:
    """The time that passes inside is lost to memory for `task` (psi_memstall_enter, psi_memstall_leave). Inside another: that one counts.

    `task` None: the kernel itself, nobody's stall. `over`: what it is lost over, in a few words, for `explain`.
    """
    if task is None or k.in_memstall:
        yield
        return
    k.in_memstall = True
    begin, event = k.clock.now, k.causes[-1] if k.causes else 0
    set_state(k, task, k.psi.flags.get(task.pid, 0) | MEMSTALL)
    try:
        yield
    finally:
        k.in_memstall = False
        set_state(k, task, k.psi.flags.get(task.pid, 0) & ~MEMSTALL)
        record_stall(k, task, begin, k.clock.now, over, event)


def record_stall(k: Kernel, task: Task, begin: int, end: int, over: str, event: int) -> None:
    """A stall is over; one of no length is none."""
    if end > begin:
        keep(k.records.stalls, stall(task, begin, end, over, event))


def stall(task: Task, begin: int, end: int, over: str, event: int) -> dict[str, Any]:
    """What is kept of a stall."""
    return {"begin_ns": begin, "end_ns": end, "pid": task.pid, "cgroup": task.cgroup.path, "over": over, "event": event}


def io_schedule(k: Kernel, ns: int) -> None:
    """The running task, if there is one, sleeps until the disk has done its work (io_schedule)."""
    k.clock.disk_waits += 1
    schedule_timeout(k, ns, IOWAIT)


def schedule_timeout(k: Kernel, ns: int, state: int = 0) -> None:
    """The running task sleeps for `ns`; in a memory stall it stays in it."""
    task = k.current
    if task is None:
        k.clock.sleep(ns)
        return
    before = k.psi.flags.get(task.pid, 0)
    set_state(k, task, before & MEMSTALL | state)
    k.clock.sleep(ns)
    set_state(k, task, before)


def watch(k: Kernel, cgroup: Cgroup, state: int, threshold_us: int, window_us: int) -> None:
    """A trigger on a cgroup (psi_trigger_create)."""
    cgroup.psi.add_trigger(state, threshold_us, window_us, k.clock.now)
    if cgroup not in k.psi.watched:
        k.psi.watched.append(cgroup)


def report(k: Kernel, path: str, fired: list[tuple[int, Trigger, int]]) -> None:
    """Events of the triggers of one account."""
    for now, trigger, growth in fired:
        kind, resource = NAMES[trigger.state & 1], RESOURCES[trigger.state >> 1]
        k.emit(Psi(now, kind, growth // 1000, trigger.threshold // 1000, trigger.window // 1000, path, resource))
        k.unordered = True
