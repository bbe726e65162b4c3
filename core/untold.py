"""Events that are kept as rows of numbers until somebody takes them.

A stretch of a thrash makes four events in 20 µs (`mm.thrash`); an object for each would take as long again, and whoever plays a trace
for its figures never looks at one. So `Kernel.events` may hold a number in an event's place, its row here, and `mm.told` makes the
event of the row when the log is drained:

    events   Fault   17   18   Watermark   19          rows   17: at, cause, FAULT, "/a", ...

A row is as good as the event: it has its number in the order of all events, it is put in order of time and renumbered with the others
(`Fresh`), and what it says is fixed when it is noted: words (a cgroup's path, a timer's name) stand in `words`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.events import Event

WIDTH = 17  # of a row
AT, CAUSE, WHAT, TIMER, CGROUP = range(5)  # its first columns: ns; the number of an event, 0: none; `told`; two words; then its own
REST = 5

Array = np.ndarray[Any, Any]


class Untold:
    """`rows` [:nr] of int64, and `words`: what a row can only name by number. `changes`: likewise of tasks' states (`sched.psi`), within a call."""

    __slots__ = ("rows", "nr", "words", "changes")

    def __init__(self) -> None:
        self.rows = np.empty((0, WIDTH), np.int64)
        self.nr = 0
        self.words: list[str | None] = []
        self.changes: list[Array] = []

    def word(self, text: str | None) -> int:
        """The number of a word."""
        if text not in self.words:
            self.words.append(text)
        return self.words.index(text)

    def add(self, rows: Array) -> range:
        """Keep these rows: their numbers."""
        first, end = self.nr, self.nr + len(rows)
        if end > len(self.rows):
            grown = np.empty((max(end, 2 * len(self.rows)), WIDTH), np.int64)
            grown[:first] = self.rows[:first]
            self.rows = grown
        self.rows[first:end] = rows
        self.nr = end
        return range(first, end)

    def clear(self) -> None:
        """All of them have been told."""
        self.nr = 0
        self.words.clear()


class Fresh:
    """Events that are to be put in order, rows or not, as columns: `times`, ns; `causes`, the number of each one's cause, 0: none."""

    __slots__ = ("untold", "events", "at", "rows", "objects", "times", "causes")

    def __init__(self, untold: Untold, events: list[Event | int]) -> None:
        self.untold, self.events = untold, events
        numbers = np.array([event if isinstance(event, int) else -1 for event in events], np.int64)
        self.at, self.objects = np.flatnonzero(numbers >= 0), np.flatnonzero(numbers < 0).tolist()
        self.rows = numbers[self.at]
        self.times, self.causes = np.empty(len(events), np.int64), np.zeros(len(events), np.int64)
        self.times[self.at], self.causes[self.at] = untold.rows[self.rows, AT], untold.rows[self.rows, CAUSE]
        for place in self.objects:
            event: Any = events[place]
            self.times[place], self.causes[place] = event.clock_ns, event.cause or 0

    def write_back(self) -> None:
        """Give the events these times and causes."""
        self.untold.rows[self.rows, AT], self.untold.rows[self.rows, CAUSE] = self.times[self.at], self.causes[self.at]
        for place in self.objects:
            event: Any = self.events[place]
            event.clock_ns, event.cause = int(self.times[place]), int(self.causes[place]) or None


def after_causes(times: Array, causes: Array, first: int) -> Array:
    """When the events, of the numbers from `first` on, have their turn: at their times, but nothing comes before its cause."""
    due, at = times, np.flatnonzero(causes >= first)
    before = causes[at] - first
    while len(at) and (due[at] < due[before]).any():  # as often as the longest chain has links
        due = due.copy()
        due[at] = np.maximum(due[at], due[before])
    return due

