"""Words of 64 bits as sets, for page loops: which of up to 64 entries are meant, one bit each.

A loop over the bits that are set takes as many steps as there are; one over entries with a test in it stumbles at each that differs from
the last.
"""

from __future__ import annotations

from typing import Any

from numba.cpython.unsafe import numbers

from core.jit import DISABLED, inline


def _lowest(word: int) -> int:
    """`trailing_zeros`, uncompiled."""
    return (word & -word).bit_length() - 1


# `trailing_zeros(word)`: the number of the lowest bit that is set; of a word that is not 0
trailing_zeros: Any = _lowest if DISABLED else numbers.trailing_zeros


@inline
def bits(word: int) -> int:
    """How many bits are set."""
    count = 0
    while word:
        word &= word - 1
        count += 1
    return count
