"""Rows of the result: what the real kernel took, what ours took, their ratio, the target, and whether it holds."""
from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(slots=True)
class Row:
    """One measured figure. `real` is None where there is nothing to compare with; `ratio` is always 'how many times better'."""

    name: str
    unit: str
    ours: float
    real: float | None
    ratio: float | None
    target: str
    ok: bool
    spread: tuple[float, float]  # smallest and largest of our repetitions


def at_most(name: str, unit: str, ours: list[float], limit: float) -> Row:
    """A budget: the median of `ours` must not exceed `limit`."""
    median = statistics.median(ours)
    return Row(name, unit, median, None, None, f"<= {limit:g} {unit}", median <= limit, (min(ours), max(ours)))


def at_least(name: str, unit: str, ours: list[float], limit: float) -> Row:
    """A rate: the median of `ours` must reach `limit`."""
    median = statistics.median(ours)
    return Row(name, unit, median, None, None, f">= {limit:g} {unit}", median >= limit, (min(ours), max(ours)))


def faster(name: str, unit: str, ours: list[float], real: list[float], times: float, limit: float | None = None) -> Row:
    """A race: the median of real/ours, pair by pair in time, must reach `times` (and the median of ours stay under `limit`)."""
    ratio = statistics.median(r / o for r, o in zip(real, ours, strict=True))
    median = statistics.median(ours)
    target = f">= {times:g}x" + (f", <= {limit:g} {unit}" if limit else "")
    ok = ratio >= times and (limit is None or median <= limit)
    return Row(name, unit, median, statistics.median(real), ratio, target, ok, (min(ours), max(ours)))


def within(name: str, unit: str, ours: list[float], base: list[float], low: float | None = None, high: float | None = None) -> Row:
    """A share of a base measured in the same run: ours/base at least `low` (rates) or at most `high` (latencies); without either it is only told."""
    ratio = statistics.median(o / b for o, b in zip(ours, base, strict=True))
    ok = (low is None or ratio >= low) and (high is None or ratio <= high)
    target = f">= {low:g} of it" if low is not None else f"<= {high:g}x of it" if high is not None else "-"
    return Row(name, unit, statistics.median(ours), statistics.median(base), ratio, target, ok, (min(ours), max(ours)))


def table(rows: list[Row]) -> str:
    """The rows as text, one line each."""
    head = f"{'what':52s} {'unit':8s} {'real/base':>12s} {'ours':>12s} {'ratio':>8s}  {'target':22s} ok    (ours: min .. max)"
    return "\n".join([head, "-" * len(head), *(_line(row) for row in rows)])


def _line(row: Row) -> str:
    real = f"{row.real:12,.1f}" if row.real is not None else f"{'-':>12s}"
    ratio = f"{row.ratio:8.2f}" if row.ratio is not None else f"{'-':>8s}"
    verdict = "yes" if row.ok else "NO "
    low, high = row.spread
    return f"{row.name:52s} {row.unit:8s} {real} {row.ours:12,.1f} {ratio}  {row.target:22s} {verdict}   ({low:,.1f} .. {high:,.1f})"


def write_json(path: Path, rows: list[Row], machine: dict[str, object]) -> None:
    """The same, for a program to read."""
    path.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def repeat(times: int, measure: Callable[[], float]) -> list[float]:
    """`times` repetitions of one measurement."""
    return [measure() for _ in range(times)]
