"""PSI: how much time is lost waiting for memory (kernel/sched/psi.c).

`some` is time in which at least one task waits for memory, `full` time in which nobody does anything else. Totals are exact;
the three averages are recomputed every period of 2.004 s (2*HZ+1 ticks of 4 ms) as exponential means in fixed point,
1.0 = 2048:

    avg' = (avg * exp + pct * 2048 * (2048 - exp) [+ 2047 if it rises]) / 2048      exp = 1677, 1981, 2034 for 10, 60, 300 s

Worked numbers: one period of 100 % from zero gives (0 + 204800 * 371 + 2047) / 2048 = 37100, shown as 18.11; the fifth shows
63.18, not 100: it is a mean with a time constant of 10 s. A period without any stall lets it fall: 14.83, 12.14, ...

Periods in which nobody looked are made up for with zero samples; a stall longer than its period is carried over into the next.
`PsiGroup` is one such account, of the machine or of a cgroup: `stall` adds to the totals, `show` is the file's text.

What is a stall (`memstall`, at the places of psi_memstall_enter): direct reclaim; reclaim at a cgroup's limit or above its
memory.high, and the sleep for it; waiting for the disk for a page that was in the workingset before it was evicted
(PG_workingset), from a file or from swap. Reading a file for the first time is not, nor what the operator asks for
(memory.reclaim, a lower memory.max). A stall counts in the task's cgroup and all above it. One task runs at a time here, so a
stalled one leaves nobody who does anything else: its time is `some` and `full`. kswapd's rounds beside a task that runs are `some` of
the machine only; what it does after a call takes no simulated time and is not counted.

Sampling follows the simulated clock: periods end exactly, a stall is split where one does. An account is only moved on by stalls;
reading works on a copy, so what a file shows does not depend on who looked before.

Triggers. "some 150000 1000000" written to the file: an event `psi` when tasks stalled for 150 ms within 1 s, at most one per
window. The window slides by interpolation: what the last one grew by counts in proportion to what is left of this one. Growth is
looked at ten times a window during a stall, and at its end. There is no file descriptor to close: a trigger stays as long as its
cgroup, and writing the same one again changes nothing.

    150 ms of 1 s; the last window grew by 200 ms, 0.25 s into this one it grew by 10 ms: 10 + 200 * 0.75 = 160 ms: it fires
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.events import Psi

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

NSEC_PER_TICK = 4_000_000  # HZ = 250
PSI_PERIOD = (2 * 250 + 1) * NSEC_PER_TICK
FSHIFT = 11
FIXED_1 = 1 << FSHIFT
EXP = (1677, 1981, 2034)  # 10 s, 60 s, 300 s
SOME, FULL = range(2)
NAMES = ("some", "full")
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


class PsiGroup:
    """The memory stalls of a group of tasks. Times in ns of simulated time."""

    __slots__ = ("total", "avg", "avg_total", "last_update", "next_update", "triggers")

    def __init__(self, now: int) -> None:
        self.total = [0, 0]  # some, full
        self.avg = [[0, 0, 0], [0, 0, 0]]
        self.avg_total = [0, 0]  # how much of the totals the averages have seen
        self.last_update = now
        self.next_update = now + PSI_PERIOD
        self.triggers: list[Trigger] = []

    def stall(self, ns: int, full: bool) -> None:
        """Somebody waited for memory for `ns`; `full`: and nobody ran meanwhile."""
        self.total[SOME] += ns
        if full:
            self.total[FULL] += ns

    def stalled(self, start: int, end: int, full: bool) -> list[tuple[int, Trigger, int]]:
        """Somebody waited from `start` to `end`: the triggers that fired, each with its time and its growth."""
        fired = []
        self.catch_up(start)
        for trigger in self.triggers:
            trigger.wake(start, self.total[trigger.state])
        while start < end:
            stop = min(end, self.next_update, *(t.polled + t.window // UPDATES_PER_WINDOW for t in self.triggers))
            self.stall(stop - start, full)
            for trigger in self.triggers:
                if stop == end or stop - trigger.polled >= trigger.window // UPDATES_PER_WINDOW:
                    growth = trigger.poll(stop, self.total[trigger.state])
                    if growth:
                        fired.append((stop, trigger, growth))
            self.update_averages(stop)
            start = stop
        return fired

    def catch_up(self, now: int) -> None:
        """End every period up to `now` at its time: one by one while there is a stall to sample, else all at once."""
        while now >= self.next_update:
            idle = self.total == self.avg_total
            self.update_averages(now - (now - self.next_update) % PSI_PERIOD if idle else self.next_update)

    def add_trigger(self, state: int, threshold_us: int, window_us: int, now: int) -> None:
        """Watch for so much stall within so much time; the same watch twice is one."""
        wanted = (state, threshold_us * 1000, window_us * 1000)
        if all((t.state, t.threshold, t.window) != wanted for t in self.triggers):
            self.triggers.append(Trigger(*wanted, now, self.total[state]))

    def update_averages(self, now: int) -> None:
        """Bring the averages up to `now`, if a period has ended."""
        if now < self.next_update:
            return
        missed = (now - self.next_update) // PSI_PERIOD
        self.next_update += (1 + missed) * PSI_PERIOD
        period = now - (self.last_update + missed * PSI_PERIOD)
        self.last_update = now
        for state in (SOME, FULL):
            sample = min(self.total[state] - self.avg_total[state], period)
            self.avg_total[state] += sample
            self.avg[state] = calc_avgs(self.avg[state], missed, sample, period)

    def show(self, now: int) -> str:
        """memory.pressure and /proc/pressure/memory: averages in percent, totals in microseconds. Changes nothing."""
        seen = copy.deepcopy(self)
        seen.catch_up(now)
        lines = []
        for state, name in enumerate(NAMES):
            means = " ".join(f"avg{seconds}={percent(load)}" for seconds, load in zip((10, 60, 300), seen.avg[state], strict=True))
            lines.append(f"{name} {means} total={seen.total[state] // 1000}\n")
        return "".join(lines)


def percent(load: int) -> str:
    """A mean as Linux prints it: two decimals, cut off."""
    return f"{load >> FSHIFT}.{((load & (FIXED_1 - 1)) * 100) >> FSHIFT:02d}"


# ---------------------------------------------------------------- the kernel's stalls


@contextmanager
def memstall(k: Kernel, task: Task | None) -> Iterator[None]:
    """The time that passes inside is lost to memory for `task` (psi_memstall_enter, psi_memstall_leave). Inside another: that one counts.

    `task` None: the kernel itself, nobody's stall.
    """
    if task is None or k.in_memstall:
        yield
        return
    start = k.clock.now
    k.in_memstall = True
    try:
        yield
    finally:
        k.in_memstall = False
        for cg in task.cgroup.ancestors:
            report(k, cg.path, cg.psi.stalled(start, k.clock.now, full=True))


@contextmanager
def kswapd_stall(k: Kernel) -> Iterator[None]:
    """kswapd works on a CPU of its own while a task waits for its turn: `some` of the machine."""
    if k.in_memstall:
        yield
        return
    start = k.clock.now
    try:
        yield
    finally:
        report(k, "/", k.root_cgroup.psi.stalled(start, k.clock.now, full=False))


def report(k: Kernel, path: str, fired: list[tuple[int, Trigger, int]]) -> None:
    """Events of the triggers of one account."""
    for now, trigger, growth in fired:
        k.emit(Psi(now, NAMES[trigger.state], growth // 1000, trigger.threshold // 1000, trigger.window // 1000, path))
