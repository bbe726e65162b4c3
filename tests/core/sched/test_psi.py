"""PSI's averages against vectors computed from the kernel's own fixed-point code."""

from __future__ import annotations

import pytest

from core.sched.psi import PSI_PERIOD, PsiGroup, percent

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


@pytest.mark.parametrize(("share", "periods", "avg10", "avg60", "avg300"), CONSTANT)
def test_constant_stall(share: int, periods: int, avg10: str, avg60: str, avg300: str) -> None:
    group = PsiGroup(0)
    for k in range(1, periods + 1):
        group.stall(PSI_PERIOD * share // 100, full=True)
        group.update_averages(k * PSI_PERIOD)
    total = periods * PSI_PERIOD * share // 100 // 1000
    line = f"avg10={avg10} avg60={avg60} avg300={avg300} total={total}\n"
    assert group.show(periods * PSI_PERIOD) == f"some {line}full {line}"


def test_it_falls_when_the_stall_is_over() -> None:
    group = PsiGroup(0)
    group.stall(PSI_PERIOD, full=False)
    shown = []
    for k in range(1, 12):
        group.update_averages(k * PSI_PERIOD)
        shown.append(percent(group.avg[0][0]))
    assert shown[:3] == ["18.11", "14.83", "12.14"]
    assert shown[5] == "6.66"
    assert shown[10] == "2.45"
    assert group.avg[1] == [0, 0, 0]


def test_a_group_without_stalls_is_zero_forever() -> None:
    group = PsiGroup(5)
    text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert group.show(5) == text
    assert group.show(100 * PSI_PERIOD) == text


def test_missed_periods_count_as_empty() -> None:
    looked, slept = PsiGroup(0), PsiGroup(0)
    for group in (looked, slept):
        group.stall(PSI_PERIOD, full=False)
        group.update_averages(PSI_PERIOD)
    for k in range(2, 8):
        looked.update_averages(k * PSI_PERIOD)
    slept.update_averages(7 * PSI_PERIOD)
    assert abs(looked.avg[0][0] - slept.avg[0][0]) <= 32  # the power is rounded once, the steps each time


def test_a_long_stall_is_carried_over() -> None:
    group = PsiGroup(0)
    group.stall(3 * PSI_PERIOD, full=False)
    shown = []
    for k in range(1, 5):
        group.update_averages(k * PSI_PERIOD)
        shown.append(percent(group.avg[0][0]))
    assert shown[:3] == ["18.11", "32.94", "45.09"]
    assert group.avg[0][0] < 45 * 2048
