"""The short version of `torture`: a few kills of each kind."""

import pytest

from tests.pool.torture import Plan, torture
from tests.storage import postgres

NEEDS = pytest.mark.skipif(postgres.programs() is None, reason="PostgreSQL is not installed")
KINDS = [
    ("worker", 2, "sqlite"),
    ("service", 1, "sqlite"),
    pytest.param("service", 1, "postgresql", marks=NEEDS),
    pytest.param("service", 2, "postgresql", marks=NEEDS),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("victim", "workers", "database"), KINDS)
def test_nothing_is_lost_or_doubled(victim, workers, database):
    plan = Plan(victim, kills=2, clients=4, workers=workers, database=database, seed=1, rounds=4)
    figures = torture(plan)
    assert plan.operations == 4 + 4 * 6 + 1
    assert (figures["kills"], figures["operations"]) == (2, 4 * plan.operations)
    assert figures["events"] == figures["events of those who are followed"] >= 2 * 6 * plan.rounds  # of a round of either of two followed clients
