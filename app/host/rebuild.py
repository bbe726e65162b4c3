"""A kernel from what is stored: the newest sound snapshot, or the boot, and the operations after it.

The journal has the clock and the number of events after each operation, so playing it again shows where this version of the simulator comes to other
figures than the one that carried the operations out. What cannot be read any more ends the history before it.
"""

import io
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import zstandard

from app.host.history import History, Past, op_of
from app.host.ring import Entry
from app.storage import Entry as StoredEntry
from core import Event, Kernel, Machine, event_from_dict

UNKNOWN: Final = -1  # the last event of an operation that was stored before it was carried out


class Unusable(Exception):
    """This program cannot read the snapshot: it is another version's."""


@dataclass(slots=True)
class Rebuilt:
    """A kernel, the events since its snapshot (or since the boot) by operation, and the number of the last one."""

    kernel: Kernel
    events: list[tuple[int, list[Event]]]
    first: int  # the number of the first of them
    last_event: int
    unfinished: list[tuple[int, int, int]]  # operations of which the journal does not know the last event: seq, last event, clock
    broke: str | None = None  # why it ends before the last operation: a rule of the simulator broke, or the journal is damaged there
    differs: dict[str, Any] | None = None  # the first operation that came to other figures than when it was carried out
    took_ns: int = 0  # to play again what came after the snapshot


def rebuild(machine: Machine, seed: int, past: Past, breathe: Callable[[], None]) -> Rebuilt:
    """Play the past again. Raises Unusable for a snapshot of another version."""
    if past.snapshot is None:
        kernel = Kernel.boot(machine, seed)
        events = [(0, kernel.drain())]
        found = Rebuilt(kernel, events, 1, len(events[0][1]), [])
    else:
        try:
            kernel = Kernel.restore(past.snapshot.kernel)
        except Exception as error:
            raise Unusable(str(error)) from error
        kernel.drain()
        found = Rebuilt(kernel, [], past.snapshot.last_event + 1, past.snapshot.last_event, [])
    begin = time.thread_time_ns()
    start = 0 if past.snapshot is None else past.snapshot.seq
    for seq, entry in enumerate(past.entries, start + 1):
        found.broke = _damage(seq, entry)
        if found.broke is not None:
            break
        try:
            op = op_of(entry)
            kernel.call(op.op, op.pid, **op.args)
        except Exception as error:
            found.broke = f"{type(error).__name__}: {error} (operation {entry.seq}, played again)"
            break
        fresh = kernel.drain()
        found.events.append((entry.seq, fresh))
        found.last_event += len(fresh)
        if entry.last_event == UNKNOWN:
            found.unfinished.append((entry.seq, found.last_event, kernel.clock_ns))
        elif found.differs is None:
            found.differs = _difference(entry, found)
        breathe()
    found.took_ns = time.thread_time_ns() - begin
    return found


def _damage(seq: int, entry: StoredEntry) -> str | None:
    """Why the journal cannot be read from here."""
    if entry.seq != seq:
        return f"the journal is damaged: operation {seq} is missing, {entry.seq} follows"
    return None if entry.damage is None else f"the journal is damaged at operation {seq}: {entry.damage}"


def _difference(entry: StoredEntry, found: Rebuilt) -> dict[str, Any] | None:
    """What an operation came to now and did not when it was carried out: it was another version of the simulator that did."""
    was, now = (entry.clock_ns, entry.last_event), (found.kernel.clock_ns, found.last_event)
    if was == now:
        return None
    return {"seq": entry.seq, "clock_ns": {"was": was[0], "is": now[0]}, "events": {"was": was[1], "is": now[1]}}


async def state_at(
    history: History,
    machine: Machine,
    seed: int,
    place: tuple[int, int],
    run: Callable[[Callable[[], Rebuilt]], Awaitable[Rebuilt]],
    breathe: Callable[[], None],
) -> Rebuilt:
    """The state at a place (line, seq) of a history; `run` does the work, in a thread if it wants."""
    before: int | None = None
    while True:
        past = await history.past(*place, before)
        try:
            return await run(lambda past=past: rebuild(machine, seed, past, breathe))  # type: ignore[misc]
        except Unusable:
            assert past.snapshot is not None
            before = past.snapshot.seq


# ---------------------------------------------------------------- events


def pack(entries: Sequence[Entry]) -> bytes:
    """Events as they are stored."""
    return zstandard.ZstdCompressor(level=1).compress(b"\n".join(entry.data for entry in entries))


def unpack(data: bytes) -> list[Entry]:
    """What `pack` packed."""
    found = []
    for line in zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read().splitlines():
        row = orjson.loads(line)
        found.append(Entry(row["id"], row["seq"], event_from_dict(row)))
    return found


def ring_entries(stored: Sequence[tuple[int, bytes]], rebuilt: Rebuilt, retention: int) -> list[Entry]:
    """The newest events without a gap: stored ones (each part up to a number that is still its history's), then those that came again."""
    fresh = numbered(rebuilt)
    kept: dict[int, Entry] = {}
    for limit, data in stored:
        kept.update((entry.id, entry) for entry in unpack(data) if entry.id <= limit and entry.id < rebuilt.first)
    number = rebuilt.first - 1
    older: list[Entry] = []
    while number in kept and len(older) + len(fresh) < retention:
        older.append(kept[number])
        number -= 1
    return (older[::-1] + fresh)[-retention:]


def numbered(rebuilt: Rebuilt) -> list[Entry]:
    """The events that came again, with their numbers."""
    found, number = [], rebuilt.first
    for seq, events in rebuilt.events:
        found += [Entry(at, seq, event) for at, event in enumerate(events, number)]
        number += len(events)
    return found
