"""The measure itself: real boots hold against one another, and one bent figure is found."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from app.inprocess import KernelTarget
from app.scenario import parse
from tests.conformance.compare import COUNT, EXACT, STAT, Case, Comparison, compare, fields, figures, holds, slack
from tests.conformance.recorded import RecordedBoot
from tests.conformance.run import CASES

PATHS = sorted(CASES.glob("*.json.gz"))
# The share of the last boot's figures outside the others' spread and slack: the real kernel's own scatter (per-cpu
# counters of memory.stat are flushed every 2 s, so pgfault is now and then read before the flush).
SCATTER = 0.012


class Replay(Comparison):
    """A comparison whose snapshots come from the boot that is played back."""

    def _snapshot(self, label: str) -> None:
        target = self.runner.target
        assert isinstance(target, RecordedBoot)
        target.peek(label)
        super()._snapshot(label)


def replay(case: Case, boot: dict[str, Any]) -> Comparison:
    comparison = Replay(case, RecordedBoot(copy.deepcopy(boot)))
    comparison.run()
    return comparison


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_one_more_real_boot_holds(path: Path) -> None:
    case = Case.load(path)
    others = dataclasses.replace(case, runs=case.runs[:-1])
    report = replay(others, case.runs[-1]).report
    assert report.checks
    assert 1 - report.score <= SCATTER, report


@pytest.mark.parametrize(
    ("path", "field", "change"),
    [
        ("/proc/A/status", "RssAnon", 1024),
        ("/proc/A/status", "VmPTE", 1024),
        ("/proc/A/smaps_rollup", "Private_Dirty", 1024),
        ("/proc/meminfo", "AnonPages", 1024),
        ("/proc/meminfo", "MemFree", 200_000),
        ("/proc/vmstat", "pgfault", 400),
        ("/sys/fs/cgroup/t/memory.stat", "anon", 4 << 20),
    ],
)
def test_a_bent_figure_is_found(path: str, field: str, change: int) -> None:
    case = Case.load(CASES / "anon_touch.json.gz")
    boot = copy.deepcopy(case.runs[0])
    text = boot["snaps"]["s3"][path]
    value = fields(text)[field]
    bent = [
        line.replace(str(value), str(value + change)) if line.split(":")[0].split(" ")[0] == field else line
        for line in text.splitlines()
    ]
    boot["snaps"]["s3"][path] = "\n".join(bent) + "\n"
    report = replay(case, boot).report
    assert [check.where.rpartition(":")[2] for check in report.failures] == [field]


def test_a_lost_fault_and_a_wrong_errno_are_found() -> None:
    case = Case.load(CASES / "mlock_populate.json.gz")
    boot = copy.deepcopy(case.runs[0])
    touch = next(op for op in boot["ops"] if op["line"] == "A touch k 0 16M w")
    touch["ret"]["minflt"] = "0"
    report = replay(case, boot).report
    assert [check.where for check in report.failures] == ["A touch k 0 16M w: minor faults"]


def test_a_missing_file_is_found() -> None:
    case = Case.load(CASES / "anon_touch.json.gz")
    boot = copy.deepcopy(case.runs[0])
    del boot["snaps"]["s2"]["/proc/A/status"]
    assert all(check.got is None for check in replay(case, boot).report.failures)
    assert len(replay(case, boot).report.failures) >= 5


@pytest.mark.parametrize(
    ("kind", "unit", "low", "high", "pressed", "want"),
    [
        (EXACT, "kB", 0, 0, False, 256),
        (EXACT, "kB", 100_000, 100_000, False, 1256),
        (EXACT, "kB", 100_000, 100_000, True, 11_024),
        (STAT, "kB", -100_000, -90_000, False, 1024 + 15_000 + 10_000),
        (EXACT, "B", 0, 0, False, 524_288),
        (EXACT, "n", 0, 0, False, 64),
        (COUNT, "n", 10, 10, False, 74),
    ],
)
def test_slack(kind: str, unit: str, low: int, high: int, pressed: bool, want: float) -> None:
    assert slack(kind, unit, low, high, pressed) == pytest.approx(want)


@pytest.mark.parametrize(
    ("key", "kind", "got", "low", "high", "want"),
    [
        ("/t:memory.events:max", COUNT, 0, 3, 5, False),
        ("/t:memory.events:max", COUNT, 12, 3, 5, True),
        ("/t:memory.events:max", COUNT, 16, 3, 5, False),
        ("/t:memory.events:oom_kill", EXACT, 1, 1, 1, True),
        ("vmstat:numa_hit", COUNT, 5, 5000, 6000, True),
        ("vmstat:numa_hit", COUNT, 500, 0, 0, False),
        ("meminfo:AnonPages", EXACT, 1000, 0, 0, False),
    ],
)
def test_holds(key: str, kind: str, got: int, low: int, high: int, want: bool) -> None:
    assert holds(key, kind, "n", got, low, high, pressed=False) is want


def test_figures_of_a_snapshot() -> None:
    case = Case.load(CASES / "memcg_oom.json.gz")
    found = figures(case.snapshots("s1")[0])
    assert found["/t:memory.events:oom_kill"].value == 1
    assert found["/t:stat:anon"].unit == "B"
    assert found["/t:stat:pgfault"].unit == "n"
    assert found["A/status:RssAnon"].kind == EXACT
    assert found["node0:MemFree"].kind == STAT


FORK_REFUSED = """\
#! mem=256M swap=64M
spawn A
set /proc/sys/vm/overcommit_memory 2
A mmap h 100M rw private
A fork B
B touch h 0 4K w
cg create /t
cg attach B /t
kill B
A touch h 0 4K w
"""


def test_a_refused_fork_is_named_and_the_story_goes_on() -> None:
    """Our kernel refuses a fork that Linux made: every line of the child falls short, in words, and those of others are still played."""
    scenario = parse(FORK_REFUSED)
    ops = [{"line": line, "ret": {"ret": "0", "err": "0"}, "died": []} for _, line in scenario.lines]
    ops[4]["died"] = ["B"]
    report = compare(Case("fork_refused", scenario, "6.1", [{"ops": ops, "snaps": {}}]), KernelTarget(scenario.machine))
    outcomes = {check.where: check.got for check in report.checks}
    assert outcomes["A fork B: outcome"] == "ENOMEM"
    assert outcomes["B touch h 0 4K w: outcome"] == "no such process"
    assert outcomes["B touch h 0 4K w: kills B"] == "never forked"
    assert outcomes["cg attach B /t: outcome"] == "no such process"
    assert outcomes["A touch h 0 4K w: outcome"] == "ok"
    assert [check.where for check in report.failures] == [
        "A fork B: outcome", "B touch h 0 4K w: kills B", "B touch h 0 4K w: outcome", "cg attach B /t: outcome",
    ]  # fmt: skip
