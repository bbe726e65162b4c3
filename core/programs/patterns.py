"""In which order a program touches its pages: arrays of page numbers, made from a seed alone.

    sequential  0, 1, 2, … and from the start again                     a scan
    random      every page as likely as any other                       a hash table
    zipf        page r with a weight of 1 / (r + 1)                     most data: few pages are asked for most of the time
    hot-cold    `hot_percent` of the pages get `hot_share` per cent     a cache with a long tail
    working-set random within a window that slides by some pages each time

Randomness is a hash of (seed, number of the draw): the same on every machine, whatever was drawn between, and with nothing to
keep but the number of draws so far.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]
GOLDEN = 0x9E3779B97F4A7C15
MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
U64 = (1 << 64) - 1
ORDERS = ("sequential", "random", "zipf", "hot-cold", "working-set")


def splitmix64(seed: int, count: int) -> NDArray[np.uint64]:
    """`count` hashes of (seed, index): Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).

    Those of seed + n go on where the first n of seed end.
    """
    x = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed)) * np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(MIX[0])
    x = (x ^ (x >> np.uint64(27))) * np.uint64(MIX[1])
    return x ^ (x >> np.uint64(31))


def draw(seed: int, choices: int) -> int:
    """One number from 0 to choices - 1, by the first hash of a seed."""
    x = (seed + 1) * GOLDEN & U64
    x = (x ^ x >> 30) * MIX[0] & U64
    x = (x ^ x >> 27) * MIX[1] & U64
    return (x ^ x >> 31) * choices >> 64


def uniform(seed: int, count: int) -> NDArray[np.float64]:
    """`count` draws from [0, 1), in steps of 2^-53."""
    return (splitmix64(seed, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=16)
def zipf_weights(pages: int) -> NDArray[np.float64]:
    """The sums of 1, 1/2, 1/3, …: where the draws of page 0, 1, 2, … end."""
    return np.cumsum(1.0 / np.arange(1, pages + 1, dtype=np.float64))


def zipf(draws: NDArray[np.float64], pages: int) -> Array:
    """Pages by draws from [0, 1)."""
    weights = zipf_weights(pages)
    return np.minimum(np.searchsorted(weights, draws * weights[-1], side="right"), pages - 1).astype(np.int64)


def scaled(draws: NDArray[np.float64], pages: int) -> Array:
    """Every page as likely as any other."""
    return np.minimum((draws * pages).astype(np.int64), pages - 1)


def hot_cold(seed: int, count: int, pages: int, hot_percent: int, hot_share: int) -> Array:
    """`hot_share` per cent of the accesses to the first `hot_percent` per cent of the pages, the others to the rest."""
    hot = min(max(pages * hot_percent // 100, 1), pages)
    draws = uniform(seed, 2 * count)
    where = draws[count:]
    return np.where(draws[:count] * 100 < hot_share, scaled(where, hot), np.minimum(hot + scaled(where, max(pages - hot, 1)), pages - 1))
