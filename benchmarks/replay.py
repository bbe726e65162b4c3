"""Replay of one trace beside libCacheSim's `process_trace`, in one run: million accesses a second, and the same misses.

    python -m benchmarks.replay            # wants the package libcachesim (pip install -e '.[bench]')

The trace: 5 million accesses, Zipf 1.0 over 200,000 pages, memory 20,000 frames. libCacheSim reads it from its 24-byte binary
format, which is its fastest. It hashes sparse names of 64 bits; a page's number is dense, which is legitimate for pages and saves us
that. It has no MGLRU: its LRU stands in.
"""
from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from core import Trace, generate_trace
from core.replay import faults

LENGTH, PAGES, FRAMES = 5_000_000, 200_000, 20_000
RECORD = np.dtype([("time", "<u4"), ("page", "<u8"), ("size", "<u4"), ("next", "<i8")])
BESIDE = {"fifo": "FIFO", "clock": "Clock", "lru": "LRU", "mglru": "LRU"}


def write(trace: Trace, path: Path) -> None:
    """The trace in libCacheSim's oracleGeneral format."""
    rows = np.zeros(len(trace.accesses), RECORD)
    rows["page"], rows["size"], rows["next"] = trace.accesses, 1, -1
    rows.tofile(path)


def theirs(lcs: Any, name: str, path: Path) -> tuple[float, int]:
    """Seconds and misses of libCacheSim."""
    reader = lcs.TraceReader(str(path), lcs.TraceType.ORACLE_GENERAL_TRACE, lcs.ReaderInitParam(ignore_obj_size=True))
    cache = getattr(lcs, name)(FRAMES, hashpower=18)
    begin = time.perf_counter()
    ratio = cache.process_trace(reader)[0]
    return time.perf_counter() - begin, round(ratio * LENGTH)


def ours(trace: Trace, policy: str) -> tuple[float, int]:
    """Seconds and faults of ours, the set-up of the machine included."""
    begin = time.perf_counter()
    count = faults(trace, policy, FRAMES)
    return time.perf_counter() - begin, count


def main(repetitions: int = 3) -> int:
    """The table; 0 if each of ours is as fast and misses as often."""
    import libcachesim as lcs

    trace = generate_trace("zipf", PAGES, LENGTH, seed=7)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.bin"
        write(trace, path)
        for policy in (*BESIDE, "classic", "random"):
            ours(trace, policy)  # compiled
        print(f"{'policy':8} {'ours, M/s':>10} {'libCacheSim':>12} {'ratio':>6}   faults")
        for policy, name in BESIDE.items():
            pairs = [(theirs(lcs, name, path), ours(trace, policy)) for _ in range(repetitions)]
            their, our = (statistics.median(LENGTH / pair[side][0] / 1e6 for pair in pairs) for side in (0, 1))
            same = policy == "mglru" or pairs[0][0][1] == pairs[0][1][1]
            good = good and our >= their and same
            note = "" if same else f" (libCacheSim {pairs[0][0][1]:,})"
            print(f"{policy:8} {our:10.1f} {their:12.1f} {our / their:6.2f}   {pairs[0][1][1]:,}{note}")
        for policy in ("classic", "random"):
            print(f"{policy:8} {LENGTH / ours(trace, policy)[0] / 1e6:10.1f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
