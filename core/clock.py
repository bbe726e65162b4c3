"""Simulated time: a counter of nanoseconds and a heap of what is due.

Nothing here knows the wall clock. A call by a task *spends* time; `run_until` lets it pass, and whatever is due
meanwhile runs in order of (time, priority, seq), so that ties never depend on anything but the order in which
timers were armed. A timer is a name: the kernel's table says what it does, so that a clock can be saved.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Clock:
    """`now` in ns since boot; `spend` moves it, `at` arms a named timer, `run_until` lets timers fire."""

    __slots__ = ("now", "timers", "seq")

    def __init__(self, now: int = 0) -> None:
        self.now = now
        self.timers: list[tuple[int, int, int, str]] = []
        self.seq = 0

    def spend(self, ns: int) -> None:
        """The running task used `ns` of time."""
        self.now += ns

    def at(self, time: int, timer: str, priority: int = 0) -> None:
        """Fire `timer` when the clock reaches `time` (ns)."""
        self.seq += 1
        heapq.heappush(self.timers, (time, priority, self.seq, timer))

    def run_until(self, time: int, fire: Callable[[str], None]) -> None:
        """Let time pass up to `time`, firing what falls due in order."""
        while self.timers and self.timers[0][0] <= time:
            due, _, _, timer = heapq.heappop(self.timers)
            self.now = max(self.now, due)
            fire(timer)
        self.now = max(self.now, time)
