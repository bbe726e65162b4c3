"""A trace: which pages a program used, in order; and how to get one.

A policy does not care what a page is called, so the pages of a trace are numbered 0, 1, 2, … (`Trace.of`). Traces come as a list of numbers, as
bytes (32-bit little-endian page numbers), from the touches of a process (`trace_of_touches`), or made up (`generate_trace`):

    sequential    0 1 2 ... pages - 1, and again from 0          a scan: LRU and FIFO never hit if memory is smaller by one page
    loop          the same over `set` pages                      a loop
    random        any page, all alike                            hits = frames / pages whatever the policy
    zipf          page r with a weight of 1 / (r + 1)^skew       a few pages are used very often
    hot-cold      nine of ten accesses go to a tenth of the pages
    working-set   nine of ten accesses go to `set` pages, which change for others every tenth of the trace
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.mm.mm_types import Array
from core.programs.patterns import splitmix64
from core.syscalls.mm import access_order

PATTERNS = ("sequential", "loop", "random", "zipf", "hot-cold", "working-set")
MAX_LENGTH = 20_000_000
MAX_PAGES = 1 << 24
PAGE_SHIFT = 12


@dataclass(frozen=True, slots=True)
class Trace:
    """Accesses as page numbers 0 .. `pages` - 1 (int32)."""

    accesses: Array
    pages: int

    @classmethod
    def of(cls, numbers: Array | Iterable[int]) -> Trace:
        """Any non-negative page numbers, renumbered in their order. ValueError for a trace that is empty, too long or holds too many pages."""
        given = np.asarray(numbers if isinstance(numbers, np.ndarray) else list(numbers))
        if given.ndim != 1 or len(given) == 0:
            raise ValueError("a trace needs at least one access")
        if len(given) > MAX_LENGTH:
            raise ValueError(f"a trace may have {MAX_LENGTH} accesses at most, not {len(given)}")
        if given.dtype.kind not in "iu" or (given.dtype.kind == "i" and int(given.min()) < 0):
            raise ValueError("page numbers are integers from 0 on")
        top = int(given.max())
        if top < 4 * len(given) + 1024:
            return cls._dense(given.astype(np.int64, copy=False), top)
        names, accesses = np.unique(given, return_inverse=True)
        return cls(_checked(accesses.astype(np.int32), len(names)), len(names))

    @classmethod
    def _dense(cls, given: Array, top: int) -> Trace:
        """Numbers that are small: renumbered by counting, without sorting."""
        used = np.zeros(top + 1, bool)
        used[given] = True
        number = np.cumsum(used, dtype=np.int32) - 1
        return cls(_checked(number[given], int(used.sum())), int(used.sum()))


def _checked(accesses: Array, pages: int) -> Array:
    if pages > MAX_PAGES:
        raise ValueError(f"a trace may use {MAX_PAGES} different pages at most, not {pages}")
    return accesses


def trace_from_bytes(body: bytes) -> Trace:
    """32-bit little-endian page numbers."""
    if len(body) % 4:
        raise ValueError(f"the trace is {len(body)} bytes long, not a multiple of 4: it holds 32-bit little-endian page numbers")
    return Trace.of(np.frombuffer(body, "<u4"))


def generate_trace(pattern: str, pages: int, length: int, seed: int = 0, skew: float = 1.0, set: int | None = None) -> Trace:
    """A made-up trace. ValueError for an unknown pattern or numbers out of range."""
    if pattern not in PATTERNS:
        raise ValueError(f"pattern must be one of {', '.join(PATTERNS)}, not {pattern!r}")
    if not 1 <= pages <= MAX_PAGES or not 1 <= length <= MAX_LENGTH:
        raise ValueError(f"pages must be from 1 to {MAX_PAGES}, length from 1 to {MAX_LENGTH}")
    inner = max(1, pages // 10) if set is None else set
    if not 1 <= inner <= pages or not 0 <= skew <= 10:
        raise ValueError("set must be from 1 to pages, skew from 0 to 10")
    index = np.arange(length, dtype=np.int64)
    uniform = _uniform(seed, length)
    if pattern == "sequential":
        return Trace.of(index % pages)
    if pattern == "loop":
        return Trace.of(index % inner)
    if pattern == "random":
        return Trace.of((uniform * pages).astype(np.int64))
    if pattern == "zipf":
        return Trace.of(_zipf(uniform, pages, skew, seed))
    inside = _uniform(seed + 1, length) < 0.9
    within = (uniform * inner).astype(np.int64)
    if pattern == "working-set":
        within = (within + index // max(1, length // 10) * inner) % pages
    return Trace.of(np.where(inside, within, (uniform * pages).astype(np.int64)))


def _uniform(seed: int, count: int) -> Array:
    """Numbers from 0 to 1, below 1."""
    return (splitmix64(seed, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _zipf(uniform: Array, pages: int, skew: float, seed: int) -> Array:
    """Ranks by weight, dealt out to page numbers at random."""
    weights = np.cumsum(np.arange(1, pages + 1, dtype=np.float64) ** -skew)
    ranks = np.minimum(np.searchsorted(weights, uniform * weights[-1], side="right"), pages - 1)
    return np.argsort(splitmix64(seed + 2, pages), kind="stable")[ranks]


def trace_of_touches(calls: Iterable[Mapping[str, Any]]) -> Trace:
    """The pages that `touch` calls made a processor use, from their arguments."""
    pieces = [piece for args in calls for piece in _accesses(**args)]
    if sum(len(piece) for piece in pieces) > MAX_LENGTH:
        raise ValueError(f"these touches make more than {MAX_LENGTH} accesses")
    return Trace.of(np.concatenate(pieces) if pieces else np.zeros(0, np.int64))


def _accesses(address: int, length: int = 4096, stride: int = 1, order: str = "sequential", seed: int = 0,
              pages: Iterable[int] | None = None, repeat: int = 1, **_: Any) -> list[Array]:  # fmt: skip
    """One touch, `repeat` times."""
    first = address >> PAGE_SHIFT
    if pages is not None:
        once = first + np.array(list(pages), np.int64)
    else:
        last = max(length + 4095 >> PAGE_SHIFT, 1)
        offsets = access_order(order, -(-last // stride), stride, seed)
        once = first + (np.arange(0, last, stride, dtype=np.int64) if offsets is None else offsets)
        if order == "reverse":
            once = first + last - 1 - np.arange(0, last, stride, dtype=np.int64)
    return [once] * repeat
