"""The catalogue: every kind has its name, its documentation, and a form that JSON can hold."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from core import EVENTS, Event
from core.events import ADDRESSES, Fault

SAMPLES: dict[str, Any] = {"int": 7, "str": "x", "bool": True, "int | None": 7, "str | None": "x", "list[int]": [1, 2],
                           "list[dict[str, Any]]": [{"pid": 1}], "dict[str, list[int]] | None": {"inactive_file": [1, 1]},
                           "dict[str, int]": {"si": 1}, "dict[str, list[int]]": {"101": [1, 0]}}  # fmt: skip


def sample(kind: type[Event]) -> Event:
    return kind(**{field.name: SAMPLES[str(field.type)] for field in fields(kind)})


@pytest.mark.parametrize("name", EVENTS)
def test_every_kind(name: str) -> None:
    kind = EVENTS[name]
    out = sample(kind).to_dict()
    assert out["type"] == kind.type == name
    assert out["clock_ns"] == 7
    assert kind.__doc__ and len(kind.__doc__) > 40
    assert json.loads(json.dumps(out)) == out
    for field in fields(kind):
        if field.name in ADDRESSES:
            assert out[field.name] == "0x7"


def test_what_is_absent_is_left_out() -> None:
    fault = Fault(5, 101, "anon", False, 0x7FFFF3FF9000, 16, None)
    assert fault.to_dict() == {"type": "fault", "clock_ns": 5, "pid": 101, "kind": "anon", "major": False, "address": "0x7ffff3ff9000", "pages": 16}
