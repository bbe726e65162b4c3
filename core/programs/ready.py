"""Ready-made programs, as data: the five characters of a machine under pressure.

Each is a list of steps in the language of `language.py`, in which "$name" stands for a parameter. On the default machine of 512M with
256M of swap the five of them fit for a while; the leak grows by 4 MiB a second until they do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.programs.language import Field

MAX = 1 << 40
SECONDS = 10**12


@dataclass(frozen=True, slots=True)
class Ready:
    """One ready-made program: what it shows, its parameters with their defaults, its steps."""

    name: str
    doc: str
    parameters: dict[str, Field]
    steps: list[dict[str, Any]]


def _size(default: int, doc: str) -> Field:
    return Field("size", doc, default, low=4096, high=MAX)


def _time(default: int, doc: str) -> Field:
    return Field("duration", doc, default, low=1000, high=SECONDS)


def _count(default: int, doc: str, low: int = 1, high: int = 1 << 20) -> Field:
    return Field("int", doc, default, low=low, high=high)


M, MS, US = 1 << 20, 10**6, 10**3

_ROWS = (
    Ready("leak", "Forgets to free: its heap grows step by step, every new page is written once and never used again. The kernel swaps it out "
          "as long as there is swap; then the OOM killer comes, not always for the leak.",
          {"rate": _size(4 * M, "By how much it grows each time."), "interval": _time(1000 * MS, "The time between two steps.")},
          [{"op": "loop", "steps": [{"op": "grow", "length": "$rate"}, {"op": "sleep", "time": "$interval"}]}]),
    Ready("db-buffer-pool", "A database: a pool of pages that queries ask for by popularity (zipf), a part of them writing; a log that is written "
          "and synced every hundred queries. It shows a hot working set that reclaim should spare, and what a major fault does to latency.",
          {"pool": _size(96 * M, "The buffer pool."), "accesses": _count(32, "Pages that a query touches."),
           "write_percent": _count(20, "Per cent of them that it writes.", 0, 100), "think": _time(20 * MS, "Mean time between two queries."),
           "log": _size(8 * M, "The size at which the log begins again.")},
          [{"op": "map", "region": "pool", "length": "$pool"},
           {"op": "touch", "region": "pool", "access": "write", "work": 1 * US},
           {"op": "loop", "steps": [
               {"op": "loop", "times": 100, "steps": [
                   {"op": "touch", "region": "pool", "accesses": "$accesses", "order": "zipf", "write_percent": "$write_percent", "work": 10 * US},
                   {"op": "think", "time": "$think"}]},
               {"op": "write", "path": "/data/db.log", "length": 256 * 1024, "size": "$log"},
               {"op": "fsync", "path": "/data/db.log"}]}]),
    Ready("web-workers", "A server that forks its workers: they share what the parent wrote (copy-on-write) and have an arena of their own, of which "
          "each request uses the hot tenth most of the time.",
          {"workers": _count(3, "Children.", 1, 64), "shared": _size(16 * M, "What the parent writes before it forks."),
           "arena": _size(12 * M, "A worker's own memory."), "accesses": _count(48, "Pages that a request touches."),
           "work": _time(2 * MS, "Computing time of a request."), "think": _time(60 * MS, "Mean time between two requests of a worker.")},
          [{"op": "map", "region": "shared", "length": "$shared"},
           {"op": "touch", "region": "shared", "access": "write"},
           {"op": "loop", "times": "$workers", "steps": [{"op": "fork", "steps": [
               {"op": "map", "region": "arena", "length": "$arena"},
               {"op": "loop", "steps": [
                   {"op": "touch", "region": "arena", "accesses": "$accesses", "order": "hot-cold", "access": "write", "work": 1 * US},
                   {"op": "touch", "region": "shared", "accesses": 8, "order": "random"},
                   {"op": "compute", "time": "$work"},
                   {"op": "think", "time": "$think"}]}]}]},
           {"op": "loop", "steps": [{"op": "sleep", "time": 1000 * MS}, {"op": "wait"}]}]),
    Ready("batch-scan", "Reads a large file from the beginning to the end, over and over: the page cache fills with pages used once. It shows why "
          "new file pages start on the inactive list.",
          {"size": _size(192 * M, "The file's size."), "chunk": _size(512 * 1024, "How much it reads at a time."),
           "work": _time(4 * MS, "Computing time of a chunk."), "pause": _time(30 * MS, "Sleep after each chunk.")},
          [{"op": "file", "path": "/data/batch", "size": "$size"},
           {"op": "loop", "steps": [
               {"op": "read", "path": "/data/batch", "length": "$chunk"},
               {"op": "compute", "time": "$work"},
               {"op": "sleep", "time": "$pause"}]}]),
    Ready("jvm", "A managed heap: new objects are written through a nursery one after another; every so often the collector reads the whole heap. "
          "Pages that nobody used for long are asked for all at once: if they were swapped out, the collection takes seconds.",
          {"heap": _size(96 * M, "The old generation."), "nursery": _size(16 * M, "Where new objects go."),
           "allocation": _count(64, "Pages that are allocated each time."), "think": _time(25 * MS, "Mean time between allocations."),
           "collect_every": _count(200, "Allocations between two collections.")},
          [{"op": "map", "region": "old", "length": "$heap"}, {"op": "map", "region": "nursery", "length": "$nursery"},
           {"op": "touch", "region": "old", "access": "write", "work": 1 * US},
           {"op": "loop", "steps": [
               {"op": "loop", "times": "$collect_every", "steps": [
                   {"op": "touch", "region": "nursery", "accesses": "$allocation", "access": "write", "work": 2 * US},
                   {"op": "touch", "region": "old", "accesses": 8, "order": "zipf", "access": "write", "work": 2 * US},
                   {"op": "think", "time": "$think"}]},
               {"op": "touch", "region": "old", "work": 1 * US}]}]),
)  # fmt: skip
READY: dict[str, Ready] = {row.name: row for row in _ROWS}
