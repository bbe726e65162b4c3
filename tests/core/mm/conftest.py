"""A fresh process on a fresh machine."""

import pytest

from tests.core.mm.space import Space


@pytest.fixture
def space() -> Space:
    return Space()
