"""The short version of `torture`: a few kills of each kind, on both databases."""

import pytest

from tests.pool.torture import Plan, torture
from tests.storage import postgres

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.skipif(postgres.programs() is None, reason="PostgreSQL is not installed"))]


@pytest.mark.parametrize("database", KINDS)
@pytest.mark.parametrize(("victim", "workers"), [("worker", 2), ("service", 1), ("service", 2)])
def test_nothing_is_lost_or_doubled(victim, workers, database):
    figures = torture(Plan(victim, kills=2, clients=4, workers=workers, database=database, seed=1))
    assert figures["operations"] > 20 and figures["events"] > 20
