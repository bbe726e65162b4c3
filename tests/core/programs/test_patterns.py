"""The orders in which programs touch pages."""

from __future__ import annotations

import numpy as np

from core.programs import patterns


def test_draws_go_on_where_they_stopped() -> None:
    whole = patterns.splitmix64(7, 100)
    assert (np.concatenate([patterns.splitmix64(7, 30), patterns.splitmix64(37, 70)]) == whole).all()


def test_known_draws() -> None:
    """splitmix64 of seed 0 (the vector of its reference implementation)."""
    assert [int(x) for x in patterns.splitmix64(0, 3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_one_draw_is_the_first_of_many() -> None:
    for seed in (0, 7, 1 << 62):
        assert patterns.draw(seed, 1 << 64) == int(patterns.splitmix64(seed, 1)[0])
        assert 0 <= patterns.draw(seed, 10) < 10


def test_zipf_gives_the_first_page_its_weight() -> None:
    pages = patterns.zipf(patterns.uniform(1, 100_000), 1000)
    harmonic = sum(1 / n for n in range(1, 1001))
    counts = np.bincount(pages, minlength=1000)
    assert abs(counts[0] / 100_000 - 1 / harmonic) < 0.01
    assert counts[0] > counts[9] > counts[99]
    assert pages.max() < 1000


def test_hot_and_cold_get_their_shares() -> None:
    pages = patterns.hot_cold(3, 50_000, 1000, 10, 90)
    assert abs((pages < 100).mean() - 0.9) < 0.01
    assert pages.max() == 999
    assert pages.min() == 0
    assert patterns.hot_cold(3, 10, 1, 10, 90).tolist() == [0] * 10
