"""The table: every row is whole, and its handler takes what it says."""

from __future__ import annotations

import inspect

import pytest

from core import CALLS
from core.syscalls.table import Call, Param

KINDS = {"int", "size", "address", "str", "bool", "prot", "flags", "choice", "ints", "bytes", "duration", "signal", "program", "object"}


@pytest.mark.parametrize("call", CALLS.values(), ids=lambda call: call.name)
def test_a_row_is_whole(call: Call) -> None:
    assert CALLS[call.name] is call
    assert call.doc.endswith(".")
    assert (call.support == "full") or call.note, "what is not full says what is missing"
    for name, param in call.params.items():
        assert param.kind in KINDS, name
        assert param.doc.endswith("."), name
        assert (param.kind in ("flags", "choice")) == (param.choices is not None), name
    assert set(call.returns.values()) <= KINDS
    assert not {"op", "pid", "seq"} & set(call.params), "these say who calls what in a batch"


@pytest.mark.parametrize("call", CALLS.values(), ids=lambda call: call.name)
def test_a_handler_takes_its_rows_arguments(call: Call) -> None:
    taken = list(inspect.signature(call.handler).parameters.values())
    head = ["k", "task"] if call.process else ["k"]
    assert [param.name for param in taken[: len(head)]] == head
    own = {param.name: param.default for param in taken[len(head) :]}
    assert set(own) == set(call.params)
    for name, param in call.params.items():
        assert same_default(param, own[name]), name


def same_default(param: Param, default: object) -> bool:
    """Left out, an argument means the same to the table and to the handler."""
    if param.required:
        return default is inspect.Parameter.empty
    return default == param.default


def test_no_number_is_used_twice() -> None:
    numbers = [call.number for call in CALLS.values() if call.number is not None]
    assert len(numbers) == len(set(numbers))
