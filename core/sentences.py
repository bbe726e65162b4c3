"""An event as one sentence: what happened, with its numbers, for a person who asks why.

One row a type; a chain of causes reads as a story from the bottom up:

    process 101 made the request touch
    /t reached its memory.max: usage 50331648 bytes, limit 50331648
    direct reclaim for /t looked at 64 pages of /t at priority 12 and freed 32
    32 pages were written to swap
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.events import EVENTS, Event

MEMCG = {
    "low": "was reclaimed from although it was within its memory.low: nothing else was left",
    "high": "was above its memory.high",
    "max": "reached its memory.max",
    "oom": "could not be reclaimed below its memory.max",
    "oom_kill": "lost a process to the OOM killer",
    "oom_group_kill": "is killed as a group (memory.oom.group)",
    "throttle": "was above its memory.high: the task slept",
}
FAULTS = {
    "anon": "got zeroed pages on first write", "zero": "mapped the shared zero page on first read", "cow": "copied pages that it shared",
    "reuse": "took over pages that nobody else used any more", "file": "mapped pages of a file", "swap": "mapped pages that had been swapped out",
    "thp": "got huge pages", "hugetlb": "got reserved huge pages", "numa_hint": "told by a hint fault which node it uses",
    "write_notify": "wrote to clean pages of a shared file", "segv": "accessed an address that it may not: SIGSEGV",
    "bus": "accessed a page beyond the end of its file: SIGBUS", "oom": "found no memory",
    "shmem": "got pages of shared memory",
}  # fmt: skip


def says(event: Event) -> str:
    """One sentence about an event."""
    return SAYS[event.type](event)


def _pages(count: int) -> str:
    return "1 page" if count == 1 else f"{count} pages"


def _memcg(e: Any) -> str:
    limit = "" if e.limit is None else f", limit {e.limit}"
    delay = "" if e.delay_ns is None else f" for {e.delay_ns // 1_000_000} ms"
    return f"{e.cgroup} {MEMCG[e.kind]}{delay}: usage {e.usage} bytes{limit}"


def _reclaim(e: Any) -> str:
    return f"{e.by} reclaim looked at {_pages(e.scanned)} of {e.cgroup} on node {e.node} at priority {e.priority} and freed {e.reclaimed}"


def _fault(e: Any) -> str:
    return f"process {e.pid} {FAULTS.get(e.kind, e.kind)}: {_pages(e.pages)} from {e.address:#x}{', read from the disk' if e.major else ''}"


def _oom(e: Any) -> str:
    where = "the machine" if e.cgroup is None else e.cgroup
    end = "nobody could be killed" if e.victim is None else f"process {e.victim} had the most points and was killed"
    return f"the OOM killer looked at {len(e.candidates)} processes of {where} ({e.constraint}): {end}"


def _process(e: Any) -> str:
    more = f" with {e.signal}" if e.signal else f" with status {e.code}" if e.code is not None else f", child {e.child}" if e.child else ""
    return f"process {e.pid} ({e.comm}): {e.kind}{more}"


def _watermark(e: Any) -> str:
    return f"zone {e.zone} of node {e.node} had {_pages(e.free)} free, its {e.level} mark is {e.mark}: {e.action}"


def _words(e: Any) -> str:
    """The event's fields as they stand: for types whose fields speak for themselves."""
    shown = {name: value for name, value in e.to_dict().items() if name not in ("type", "clock_ns", "cause", "timer")}
    return f"{e.type}: " + ", ".join(f"{name} {value}" for name, value in shown.items())


SAYS: dict[str, Callable[[Any], str]] = dict.fromkeys(EVENTS, _words) | {
    "fault": _fault,
    "reclaim": _reclaim,
    "memcg": _memcg,
    "oom": _oom,
    "process": _process,
    "watermark": _watermark,
    "swap_out": lambda e: f"{_pages(e.pages)} were written to swap",
    "swap_in": lambda e: f"{_pages(e.pages)} came back from swap, {e.readahead} of them read ahead",
    "writeback": lambda e: f"{_pages(e.pages)} of {e.path} were written ({e.why})",
    "oom_reap": lambda e: f"{_pages(e.freed)} of process {e.pid} ({e.comm}) came back by {e.by}",
    "vmstat": lambda e: f"vmstat: {e.line}",
    "program": lambda e: f"the program of process {e.pid} ({e.name}): {e.kind}" + (f", {e.op} was answered {e.errno}" if e.errno else ""),
    "psi": lambda e: f"{e.kind} {e.resource} pressure of {e.stall_us} us within {e.window_us} us fired a trigger",
}
