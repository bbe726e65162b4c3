"""Columns go by reference: what a loop reads and writes through them, from step to step, is what uncompiled Python reads and writes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from core.columns import by_reference
from core.jit import DISABLED, njit, step
from core.mm.mm_types import Array

TYPEOF: Any = numba.typeof
ROW = np.dtype([("count", "i4"), ("sum", "i8")])


@by_reference
class Pair(NamedTuple):
    """Rows, and numbers of 32 bits to add up in them."""

    rows: Array
    numbers: Array


@step
def put(p: Pair, at: int, number: int) -> int:
    """One number into one row: how many it has."""
    p.rows[at]["count"] += 1
    p.rows[at]["sum"] += number
    return int(p.rows[at]["count"])


@step
def put_all(p: Pair, at: int) -> int:
    """The numbers one after the other into one row."""
    last = 0
    for i in range(len(p.numbers)):
        last = put(p, at, p.numbers[i])
    return last


@njit
def fill(p: Pair) -> int:
    """Every row gets all numbers; how many one of them has."""
    last = 0
    for at in range(len(p.rows)):
        last = put_all(p, at) + put(p, at, 1)
    return last


def pair(rows: int) -> Pair:
    column = np.zeros(rows, ROW)
    return Pair(column.view(np.recarray) if DISABLED else column, np.array([2_000_000_000, 2_000_000_000, 5], np.int32))


@pytest.mark.parametrize("rows", [1, 7])
def test_what_steps_write_stands_in_the_arrays(rows: int) -> None:
    p = pair(rows)
    assert fill(p) == 7  # 3 from the numbers, the fourth is the one
    assert p.rows["count"].tolist() == [4] * rows
    assert p.rows["sum"].tolist() == [4_000_000_006] * rows


def test_the_same_loop_serves_other_arrays() -> None:
    first, second = pair(2), pair(3)
    fill(first), fill(second), fill(first)
    assert first.rows["count"].tolist() == [8, 8]
    assert second.rows["count"].tolist() == [4, 4, 4]


@pytest.mark.skipif(DISABLED, reason="uncompiled loops have no types")
def test_the_layout_is_in_the_name() -> None:
    narrow = Pair(np.zeros(1, ROW), np.zeros(1, np.int64))
    assert str(TYPEOF(pair(1))) == str(TYPEOF(pair(5)))
    assert str(TYPEOF(pair(1))) != str(TYPEOF(narrow))
    assert len(str(TYPEOF(narrow))) < 40
