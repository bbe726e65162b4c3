"""A kernel from what is stored: the newest sound snapshot, or the boot, and the operations after it."""

import io
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import zstandard

from app.host.history import History, Past, op_of
from app.host.ring import Entry
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
    took_ns: int = 0  # to play again what came after the snapshot
    broke: str | None = None  # a rule of the simulator that broke on the way, and at which operation


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
    for entry in past.entries:
        op = op_of(entry)
        try:
            kernel.call(op.op, op.pid, **op.args)
        except Exception as error:
            found.broke = f"{type(error).__name__}: {error} (operation {entry.seq}, played again)"
            break
        fresh = kernel.drain()
        found.events.append((entry.seq, fresh))
        found.last_event += len(fresh)
        if entry.last_event == UNKNOWN:
            found.unfinished.append((entry.seq, found.last_event, kernel.clock_ns))
        breathe()
    found.took_ns = time.thread_time_ns() - begin
    return found


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
