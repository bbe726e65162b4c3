"""The cache key of a compiled loop: it follows everything that the machine code is made of, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from core.jit import fingerprint
from core.mm import fault, lru_classic

SOURCE = """
LIMIT = {limit}
UNUSED = {unused}

def unused(x):
    return x - {unused}

def deepest(x):
    return x + {deep}

def step(x):
    return deepest(x) * 2

def loop(x):
    return step(x) if x < LIMIT else 0
"""
WRITTEN = {"limit": 4, "unused": 1, "deep": 7}


def key(lines_above: int = 0, **changed: int) -> str:
    """The key of `loop` in a module of that source."""
    names: dict[str, Any] = {"__name__": "sample"}
    exec("\n" * lines_above + SOURCE.format(**(WRITTEN | changed)), names)
    return fingerprint(names["loop"])


@pytest.mark.parametrize("changed", [{"limit": 5}, {"deep": 8}])
def test_a_change_that_reaches_the_loop_changes_its_key(changed: dict[str, int]) -> None:
    assert key(**changed) != key()


@pytest.mark.parametrize("changed", [{}, {"unused": 2}, {"lines_above": 3}])
def test_a_change_elsewhere_does_not(changed: dict[str, int]) -> None:
    assert key(**changed) == key()


def test_another_layout_of_the_arguments_is_another_key() -> None:
    assert fingerprint(fault.access_pages, "int64(Record(a))") != fingerprint(fault.access_pages, "int64(Record(b))")


def test_loops_have_keys_of_their_own() -> None:
    assert fingerprint(fault.access_pages) == fingerprint(fault.access_pages)
    assert fingerprint(fault.access_pages) != fingerprint(lru_classic.shrink_lruvec)
