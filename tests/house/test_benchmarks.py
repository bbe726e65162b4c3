"""The benchmarks run against the core as it is, and their verdicts can be either way."""
from __future__ import annotations

import pytest

from benchmarks import report, simulated
from benchmarks.simulated import MIB


def test_every_core_benchmark_runs_on_a_small_scale() -> None:
    """A figure of each, small enough for a test; a failed call inside one ends it with SystemExit."""
    figures = simulated.first_write("sequential", MIB) | simulated.first_write("random", MIB) | simulated.fork_and_cow(MIB)
    figures |= simulated.single_calls(20) | simulated.sparse_terabyte(10)
    assert all(value > 0 for value in figures.values()), figures
    assert simulated.zero_page_read(MIB) > 0
    assert simulated.boot_ms() > 0


def test_a_failing_call_is_not_measured() -> None:
    with pytest.raises(SystemExit, match="munmap"):
        simulated.Program("512M").call("munmap", address=4097, length=4096)


@pytest.mark.parametrize(("ours", "ok"), [([10.0, 11.0, 12.0], True), ([10.0, 60.0, 61.0], False)])
def test_a_race_needs_the_ratio_and_the_limit(ours: list[float], ok: bool) -> None:
    assert report.faster("x", "ns", ours, [1400.0] * 3, times=20, limit=55).ok is ok


@pytest.mark.parametrize(("limit", "ok"), [(5.0, True), (3.9, False)])
def test_a_budget_is_the_median(limit: float, ok: bool) -> None:
    assert report.at_most("x", "ms", [1.0, 4.0, 99.0], limit).ok is ok


@pytest.mark.parametrize(("low", "high", "ok"), [(0.5, None, True), (0.6, None, False), (None, 0.5, True), (None, 0.4, False)])
def test_a_share_has_a_lower_or_an_upper_bound(low: float | None, high: float | None, ok: bool) -> None:
    assert report.within("x", "req/s", [50.0, 50.0], [100.0, 100.0], low=low, high=high).ok is ok


def test_the_table_shows_every_row_and_every_miss() -> None:
    rows = [report.at_most("kept", "ms", [1.0], 2), report.at_most("missed", "ms", [3.0], 2)]
    kept, missed = report.table(rows).splitlines()[2:]
    assert " yes " in kept
    assert " NO " in missed
