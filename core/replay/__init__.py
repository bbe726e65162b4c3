"""Policies compared on one trace: faults against memory, for every policy that reclaim of a session may use and for some that no kernel could.

`faults` is one policy at one size of memory, `compare_policies` a table of them. What the comparison shows:

    Belady's anomaly     a size at which a policy faults more than at the size before it (FIFO: 1 2 3 4 1 2 5 1 2 3 4 5 with 3 and 4 frames: 9, 10)
    the bound            OPT: no policy can fault less
    the stack property   LRU's faults never grow with memory, so all sizes come from one pass over the trace (`stack`)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.machine import RECLAIM_POLICIES
from core.mm.mm_types import Array
from core.mm.policy import POLICIES as RECLAIM
from core.replay import frames as machines
from core.replay import stack, textbook
from core.replay.trace import PATTERNS as PATTERNS
from core.replay.trace import Trace as Trace
from core.replay.trace import generate_trace as generate_trace
from core.replay.trace import trace_from_bytes as trace_from_bytes
from core.replay.trace import trace_of_touches as trace_of_touches

TEXTBOOK = {
    "opt": "the page whose next use is farthest away goes: the bound",
    "lfu": "the page with the fewest uses goes",
    "2q": "new pages in a FIFO, those that come back in an LRU list",
    "arc": "used once and used again, in shares that follow the misses",
}
POLICIES: dict[str, str] = {policy.name: policy.doc for policy in RECLAIM[:-1]} | TEXTBOOK
MAX_SIZES = 1000
WORK = 400_000_000  # accesses that one comparison may make, over all policies and sizes


@dataclass(frozen=True, slots=True)
class Anomaly:
    """More memory, more faults."""

    policy: str
    frames: tuple[int, int]
    faults: tuple[int, int]


def faults(trace: Trace, policy: str, frames: int, seed: int = 0) -> int:
    """The faults of a policy with so many frames. ValueError for an unknown policy or no frames."""
    if policy not in POLICIES:
        raise ValueError(f"no policy is called {policy!r}; there are {', '.join(POLICIES)}")
    if frames < 1:
        raise ValueError("memory needs at least one frame")
    if frames >= trace.pages:
        return trace.pages  # all fit: each faults once
    if policy not in TEXTBOOK:
        return _reclaim(trace, RECLAIM_POLICIES.index(policy), frames, seed)
    return _textbook(trace, policy, frames)


def _reclaim(trace: Trace, policy: int, frames: int, seed: int) -> int:
    """A policy of the kernel, on a machine of frames."""
    s, r, ranges = machines.machine(trace.pages, frames, policy, seed)
    return int(machines.replay(s, r, trace.accesses, ranges, s.pt[1:].reshape(-1), s.xa[1:].reshape(-1)))


def _textbook(trace: Trace, policy: str, frames: int) -> int:
    """A policy that knows page numbers only."""
    n, pages = len(trace.accesses), trace.pages
    if policy in ("opt", "lfu"):
        after = np.zeros(n if policy == "opt" else 1, np.int64)
        if policy == "opt":
            textbook.next_uses(trace.accesses, np.zeros(pages, np.int64), after)
        rule = textbook.OPT if policy == "opt" else textbook.LFU
        heap = np.zeros(4 * frames + 1024, np.int64)
        return int(textbook.ranked(trace.accesses, after, frames, rule, np.full(pages, -1, np.int64), np.zeros(pages, np.int64), heap))
    links, where, count = np.zeros((pages + 5, 2), np.int32), np.zeros(pages, np.int8), np.zeros(5, np.int64)
    textbook.start_lists(links, where, count, pages)
    loop = textbook.two_queues if policy == "2q" else textbook.arc
    return int(loop(trace.accesses, frames, links, where, count))


def lru_curve(trace: Trace) -> Array:
    """LRU's faults with 0, 1, 2, … frames up to the number of pages, from one pass."""
    pages = trace.pages
    room = 2 * pages + 2
    histogram = np.zeros(pages + 1, np.int64)
    stack.depths(trace.accesses, np.zeros(room, np.int64), np.zeros(pages, np.int64), np.full(room, -1, np.int64), histogram)
    return len(trace.accesses) - np.cumsum(histogram)


def compare_policies(trace: Trace, policies: Sequence[str], sizes: Iterable[int], seed: int = 0) -> dict[str, Any]:
    """Policies over sizes of memory: columns.

    Returns {length, pages, frames: [...], faults: {policy: [...]}, hit_ratio: {policy: [...]}, anomalies: [Anomaly, ...]}; frames ascending.
    ValueError when the comparison would be too long.
    """
    frames = sorted(set(sizes))
    unknown = [name for name in policies if name not in POLICIES]
    if unknown:
        raise ValueError(f"no policy is called {unknown[0]!r}; there are {', '.join(POLICIES)}")
    if not frames or frames[0] < 1 or len(frames) > MAX_SIZES:
        raise ValueError(f"give 1 to {MAX_SIZES} sizes of memory, each of at least one frame")
    work = len(trace.accesses) * sum(1 if name == "lru" else sum(size < trace.pages for size in frames) for name in policies)
    if work > WORK:
        raise ValueError(f"this comparison makes {work} accesses, at most {WORK} are made at once: take fewer sizes, policies or accesses")
    counts = {name: _column(trace, name, frames, seed) for name in dict.fromkeys(policies)}
    length = len(trace.accesses)
    return {
        "length": length,
        "pages": trace.pages,
        "frames": frames,
        "faults": counts,
        "hit_ratio": {name: [round(1 - count / length, 6) for count in column] for name, column in counts.items()},
        "anomalies": [anomaly for name, column in counts.items() for anomaly in anomalies(name, frames, column)],
    }


def _column(trace: Trace, policy: str, frames: list[int], seed: int) -> list[int]:
    """One policy's faults at each size."""
    if policy == "lru" and len(frames) > 1:
        curve = lru_curve(trace)
        return [int(curve[min(size, trace.pages)]) for size in frames]
    return [faults(trace, policy, size, seed) for size in frames]


def anomalies(policy: str, frames: list[int], column: list[int]) -> list[Anomaly]:
    """Where more memory made more faults."""
    pairs = zip(itertools.pairwise(frames), itertools.pairwise(column), strict=True)
    return [Anomaly(policy, sizes, counts) for sizes, counts in pairs if counts[1] > counts[0]]
