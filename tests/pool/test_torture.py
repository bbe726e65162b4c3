"""The short version of `torture`."""

from tests.pool.torture import torture


def test_nothing_is_lost_or_doubled_when_workers_are_killed():
    figures = torture(kills=2, clients=4, workers=2, seed=1)
    assert figures["operations"] > 8 and figures["events"] >= 2 * figures["operations"]
