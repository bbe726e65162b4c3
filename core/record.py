"""What the kernel decided lately and why, kept for those who ask (`explain`).

Nothing here steers the kernel: mechanisms write a row when they have decided, and only the last ones of each kind are kept. Rows are plain
values, sizes in bytes, times in simulated ns; `event` is the number of the event that tells of it, 0 if none does.

    charges     a charge did not fit: who was charged, which ancestor was over, what was reclaimed, how it ended
    throttles   a task answered for what it charged above memory.high: the excess at each ancestor, the formula, the sleep
    stalls      a task lost time to memory (PSI): from when to when, and over what
    calls       a client's call: whose, what, from when to when, its faults
    visits      reclaim came to a cgroup's lists: who, at which priority (the pages it looked at are in `State.looks`)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

KEPT = 512


class Records:
    """The last decisions of each kind, oldest first."""

    __slots__ = ("charges", "throttles", "stalls", "calls", "visits", "nr_visits")

    def __init__(self) -> None:
        self.charges: list[dict[str, Any]] = []
        self.throttles: list[dict[str, Any]] = []
        self.stalls: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.visits: list[dict[str, Any]] = []
        self.nr_visits = 0


def renumber(records: Records, first: int, renumbered: Callable[[int], int]) -> None:
    """Events from `first` on have got other numbers (`Kernel.order_events`)."""
    rounds = [one for row in records.charges for one in row["rounds"]]
    for rows in (records.throttles, records.stalls, records.visits, rounds):
        for row in reversed(rows):
            if 0 < row["event"] < first:
                break
            row["event"] = renumbered(row["event"])


def keep(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Add a row; the oldest go when there are twice as many as are kept."""
    rows.append(row)
    if len(rows) > 2 * KEPT:
        del rows[:-KEPT]


def keep_all(rows: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    """Add rows as one after the other."""
    rows += more
    if len(rows) > 2 * KEPT:
        del rows[: -(KEPT + (len(rows) - 2 * KEPT - 1) % (KEPT + 1))]
