"""Simulated time: a counter of nanoseconds and a heap of what is due.

Nothing here knows the wall clock. A call by a task *spends* time; `run_until` lets it pass, and whatever is due
meanwhile runs in order of (time, priority, seq), so that ties never depend on anything but the order in which
timers were armed. A timer is a name, with an argument behind a colon if it has one ("wake:103"): the kernel's table says
what it does, so that a clock can be saved.

Time of a running task is of three kinds: the processor runs its own instructions (`run_user`), the kernel works for it
(`spend`), or it sleeps, for the disk or in a throttle (`sleep`), and its processor is free for others.

A task of the scheduler runs until the end of its slice: `begin_slice` says when that is, `over` whether it is, and page loops
stop there. A task that has slept is over, too. Without a slice (a client's call) nothing is ever over.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Clock:
    """`now` in ns since boot; `spend` and its kin move it, `at` arms a named timer, `run_until` lets timers fire."""

    __slots__ = ("now", "timers", "seq", "user_ns", "asleep_ns", "others_ns", "disk_waits", "slice_end", "slept_before", "fired")

    def __init__(self, now: int = 0) -> None:
        self.now = now
        self.timers: list[tuple[int, int, int, str]] = []
        self.seq = 0
        self.user_ns = self.asleep_ns = 0  # how much of the time that passed was of these kinds
        self.others_ns = 0  # and how much a daemon took on the running task's processor
        self.disk_waits = 0  # how often somebody waited for a disk
        self.fired = now  # when the last timer fell due
        self.slice_end = self.slept_before = -1

    def spend(self, ns: int) -> None:
        """The running task used `ns` of time."""
        self.now += ns

    def run_user(self, ns: int) -> None:
        """The running task used `ns` of time for its own instructions."""
        self.now += ns
        self.user_ns += ns

    def sleep(self, ns: int) -> None:
        """The running task slept for `ns`."""
        self.now += ns
        self.asleep_ns += ns

    def begin_slice(self, end: int) -> None:
        """A task of the scheduler runs from now to `end` at most."""
        self.slice_end, self.slept_before = end, self.asleep_ns

    def end_slice(self) -> None:
        """Nobody runs on a slice any more."""
        self.slice_end = -1

    def over(self) -> bool:
        """Must the running task stop: its slice is used up, or it has slept?"""
        return self.slice_end >= 0 and (self.now >= self.slice_end or self.asleep_ns > self.slept_before)

    def at(self, time: int, timer: str, priority: int = 0) -> None:
        """Fire `timer` when the clock reaches `time` (ns)."""
        self.seq += 1
        heapq.heappush(self.timers, (time, priority, self.seq, timer))

    def run_until(self, time: int, fire: Callable[[str], None]) -> None:
        """Let time pass up to `time`, firing what falls due in order."""
        while self.timers and self.timers[0][0] <= time:
            fire(self.take())
        self.now = max(self.now, time)

    def take(self) -> str:
        """The timer that falls due next: off the heap; its time is now."""
        due, _, _, timer = heapq.heappop(self.timers)
        self.now = self.fired = due
        return timer
