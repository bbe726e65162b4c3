"""PSI's averages and states against vectors computed from the kernel's own rules (PS-01 … PS-12)."""

from __future__ import annotations

import pytest

from core.sched.psi import CPU, IO, IOWAIT, MEM, MEMSTALL, NONIDLE, ONCPU, PSI_PERIOD, RUNNING, PsiGroup, percent

MEM_SOME = 2 * MEM
PRODUCTIVE = RUNNING | ONCPU

# (percent stalled, periods, avg10, avg60, avg300)
CONSTANT = [
    (100, 1, "18.11", "3.27", "0.68"),
    (100, 2, "32.94", "6.43", "1.36"),
    (100, 3, "45.09", "9.49", "2.03"),
    (100, 5, "63.18", "15.32", "3.37"),
    (100, 10, "86.44", "28.29", "6.63"),
    (100, 15, "95.01", "39.28", "9.78"),
    (50, 5, "31.59", "7.66", "1.68"),
]


def stall(group: PsiGroup, start: int, end: int, *, full: bool = True) -> None:
    """A task in a memory stall on cpu 0; not full: beside one that runs."""
    beside = 0 if full else PRODUCTIVE
    group.change(0, start, 0, MEMSTALL)
    group.change(0, start, 0, beside)
    group.change(0, end, MEMSTALL, 0)
    group.change(0, end, beside, 0)


def totals(group: PsiGroup, now: int, resource: int = MEM, *, system: bool = False) -> list[int]:
    """some and full in us."""
    return [int(line.split("total=")[1]) for line in group.show(now, resource, system=system).splitlines()]


@pytest.mark.parametrize(("share", "periods", "avg10", "avg60", "avg300"), CONSTANT)
def test_constant_stall(share: int, periods: int, avg10: str, avg60: str, avg300: str) -> None:
    group = PsiGroup(0)
    for k in range(periods):
        stall(group, k * PSI_PERIOD, k * PSI_PERIOD + PSI_PERIOD * share // 100)
    total = periods * PSI_PERIOD * share // 100 // 1000
    line = f"avg10={avg10} avg60={avg60} avg300={avg300} total={total}\n"
    assert group.show(periods * PSI_PERIOD) == f"some {line}full {line}"


def test_it_falls_when_the_stall_is_over() -> None:
    group = PsiGroup(0)
    stall(group, 0, PSI_PERIOD, full=False)
    shown = []
    for k in range(1, 12):
        group.advance(k * PSI_PERIOD)
        shown.append(percent(group.avg[MEM_SOME][0]))
    assert shown[:3] == ["18.11", "14.83", "12.14"]
    assert shown[5] == "6.66"
    assert shown[10] == "2.45"
    assert group.avg[MEM_SOME + 1] == [0, 0, 0]


def test_a_group_without_stalls_is_zero_forever() -> None:
    group = PsiGroup(5)
    text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert group.show(5) == text
    assert group.show(100 * PSI_PERIOD) == text


def test_missed_periods_count_as_empty() -> None:
    looked, slept = PsiGroup(0), PsiGroup(0)
    for group in (looked, slept):
        stall(group, 0, PSI_PERIOD, full=False)
    for k in range(1, 8):
        looked.advance(k * PSI_PERIOD)
    slept.advance(7 * PSI_PERIOD)
    assert abs(looked.avg[MEM_SOME][0] - slept.avg[MEM_SOME][0]) <= 32  # the power is rounded once, the steps each time


def test_a_long_stall_is_sampled_in_every_period() -> None:
    group = PsiGroup(0)
    stall(group, 0, 3 * PSI_PERIOD, full=False)
    assert group.show(3 * PSI_PERIOD).startswith("some avg10=45.09 ")
    assert group.show(4 * PSI_PERIOD).startswith("some avg10=36.92 ")  # 45.09 * 1677/2048
    assert totals(group, 4 * PSI_PERIOD) == [3 * PSI_PERIOD // 1000, 0]


# ---- states and processors -------------------------------------------------------------------------------------------

SECOND = 1_000_000_000
MACHINES = [  # (tasks as cpu and state, seconds of memory some, memory full, io some, io full, cpu some, cpu full) of one second
    ("nobody", [], (0, 0, 0, 0, 0, 0)),
    ("one runs", [(0, PRODUCTIVE)], (0, 0, 0, 0, 0, 0)),
    ("two want one processor", [(0, PRODUCTIVE), (0, RUNNING)], (0, 0, 0, 0, 1, 0)),
    ("somebody else has the processor", [(0, RUNNING)], (0, 0, 0, 0, 1, 1)),
    ("one waits for the disk", [(0, IOWAIT)], (0, 0, 1, 1, 0, 0)),
    ("one waits for the disk, one runs", [(0, IOWAIT), (0, PRODUCTIVE)], (0, 0, 1, 0, 0, 0)),
    ("PS-07: one reclaims", [(0, PRODUCTIVE | MEMSTALL)], (1, 1, 0, 0, 0, 0)),
    ("PS-07: one swaps in", [(0, IOWAIT | MEMSTALL)], (1, 1, 1, 1, 0, 0)),
    ("PS-08: one stalled, one productive, one processor", [(0, MEMSTALL), (0, PRODUCTIVE)], (1, 0, 0, 0, 0, 0)),
    ("PS-07: two reclaim on one processor", [(0, PRODUCTIVE | MEMSTALL), (0, RUNNING | MEMSTALL)], (1, 1, 0, 0, 1, 0)),
    ("PS-07: a reclaimer has the processor that another wants", [(0, PRODUCTIVE | MEMSTALL), (0, RUNNING)], (1, 1, 0, 0, 1, 0)),
    ("PS-08: one stalled, three productive, four processors", [(0, MEMSTALL), *((cpu, PRODUCTIVE) for cpu in (1, 2, 3))], (0.25, 0.25, 0, 0, 0, 0)),
    ("PS-10: kswapd beside one that runs", [(0, PRODUCTIVE), (1, PRODUCTIVE | MEMSTALL)], (0.5, 0.5, 0, 0, 0, 0)),
]


@pytest.mark.parametrize(("tasks", "seconds"), [row[1:] for row in MACHINES], ids=[row[0] for row in MACHINES])
def test_states(tasks: list[tuple[int, int]], seconds: tuple[float, ...]) -> None:
    group = PsiGroup(0)
    for cpu, flags in tasks:
        group.change(cpu, 0, 0, flags)
    for cpu, flags in tasks:
        group.change(cpu, SECOND, flags, 0)
    shown = [us for resource in (MEM, IO, CPU) for us in totals(group, SECOND, resource)]
    assert shown == [int(part * 1_000_000) for part in seconds]


def test_nobody_asks_whether_the_whole_machine_waits_for_a_processor() -> None:
    """PS-11."""
    group = PsiGroup(0)
    group.change(0, 0, 0, RUNNING)
    assert totals(group, SECOND, CPU) == [1_000_000, 1_000_000]
    assert totals(group, SECOND, CPU, system=True) == [1_000_000, 0]


def test_a_processor_weighs_as_long_as_it_was_not_idle() -> None:
    """cpu 0 stalls for all of its 200 ms, cpu 1 works for 800 ms: 200 * 200 / (200 + 800) = 40 ms."""
    group = PsiGroup(0)
    group.change(0, 0, 0, MEMSTALL)
    group.change(1, 0, 0, PRODUCTIVE)
    group.change(0, SECOND // 5, MEMSTALL, 0)
    group.change(1, SECOND * 4 // 5, PRODUCTIVE, 0)
    assert totals(group, SECOND) == [40_000, 40_000]
    assert group.cpus[0].times[NONIDLE] == SECOND // 5
