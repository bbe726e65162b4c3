"""Every constant of time says where it comes from, and none is zero by omission."""

from __future__ import annotations

from dataclasses import fields

from core import Costs, calibration_table
from core.calibration import COSTS, HOW, STORAGE
from core.machine import STORAGE_NS


def test_every_cost_has_a_row_and_no_row_is_without_a_cost() -> None:
    assert sorted(name for name, _, _ in COSTS) == sorted(field.name for field in fields(Costs))
    assert set(STORAGE) == set(STORAGE_NS)


def test_no_constant_is_zero_and_each_has_a_source() -> None:
    rows = calibration_table()
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert row["value"] > 0, row
        assert row["unit"] in ("ns", "bytes/s", "cycles", "entries")
        assert row["how"] in HOW
        assert len(row["source"]) > 20, row


def test_the_values_are_the_ones_in_force() -> None:
    rows = {row["name"]: row["value"] for row in calibration_table()}
    assert {name.removeprefix("costs."): value for name, value in rows.items() if name.startswith("costs.")} == {
        field.name: getattr(Costs(), field.name) for field in fields(Costs)
    }
