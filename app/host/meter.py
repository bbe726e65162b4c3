"""What a service counts, in plain numbers: an increment costs less than a lock, and everything is counted on the event loop's thread.

`snapshot()` is a value that several workers' can be added up from (`add`); `app.metrics` shows it in Prometheus' format.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final, Protocol

from core import Result

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
NS: Final = tuple(int(bound * 1e9) for bound in BOUNDS)
HIGHEST: Final = frozenset({"stream_lag_highest", "journal_lag_seconds", "sessions", "draining"})  # of several workers' the highest counts


class Reader(Protocol):
    """Somebody who reads a session's events."""

    @property
    def lag(self) -> int:
        """Events that happened and were not taken yet."""


class Meter:
    """The counters of one process.

    Attributes
    ----------
    rows : dict
        (method, route's template, status) → [requests, nanoseconds in all, then requests by bucket of `BOUNDS`].
    operations, minor, major, killed : int
        Committed operations, simulated faults, processes killed by the OOM killer or a signal.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, int], list[int]] = {}
        self.in_flight = 0
        self.operations = self.minor = self.major = self.killed = 0
        self.created = self.frozen = self.differing = 0
        self.slow_readers = 0
        self.readers: set[Reader] = set()

    def operation(self, result: Result) -> None:
        """An operation was committed."""
        self.operations += 1
        self.minor += result.minor
        self.major += result.major
        if result.killed:
            self.killed += len(result.killed)

    def request(self, method: str, route: str, status: int, ns: int) -> None:
        """A request was answered."""
        key = (method, route, status)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = [0] * (len(NS) + 3)
        row[0] += 1
        row[1] += ns
        row[2 + bisect_left(NS, ns)] += 1

    def snapshot(self, gauges: dict[str, float]) -> dict[str, Any]:
        """Everything counted, with gauges that others know, as JSON can carry it."""
        lags = [reader.lag for reader in self.readers]
        names = ("operations", "minor", "major", "killed", "created", "frozen", "differing", "slow_readers")
        counts = {name: getattr(self, name) for name in names}
        seen = {"in_flight": self.in_flight, "streams": len(lags), "stream_lag": sum(lags), "stream_lag_highest": max(lags, default=0)}
        return {"counts": counts, "gauges": {**seen, **gauges}, "rows": [[*key, *row] for key, row in self.rows.items()]}


def add(snapshots: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The snapshots of several workers as one."""
    counts: dict[str, int] = {}
    gauges: dict[str, float] = {}
    rows: dict[tuple[str, str, int], list[int]] = {}
    for one in snapshots:
        for name, value in one["counts"].items():
            counts[name] = counts.get(name, 0) + value
        for name, value in one["gauges"].items():
            gauges[name] = max(gauges.get(name, 0), value) if name in HIGHEST else gauges.get(name, 0) + value
        for method, route, status, *row in one["rows"]:
            key = (method, route, status)
            rows[key] = [a + b for a, b in zip(rows[key], row, strict=True)] if key in rows else row
    return {"counts": counts, "gauges": gauges, "rows": [[*key, *row] for key, row in rows.items()]}
