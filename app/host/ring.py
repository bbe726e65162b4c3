"""A session's recent events, numbered and encoded once.

The ring is every subscriber's queue: a subscriber is a cursor into it, so a slow one costs nothing and the kernel never waits.
What is only shown (how far a long call is) has no number and is not kept: who listens now learns the latest of it, nobody later.
When the oldest events are dropped below a cursor, that subscriber is told the gap. Going back in time cuts the ring's head off and
starts a new generation, which subscribers notice.

Readers that take several events a message share those, too (`Arrays`): a thousand who listen to the same session get one text, and who reads
its past after another finds it made.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import orjson

from core import Event

_SOON: Final = 256
LET_GO: Final = 1024


class Encoded(Protocol):
    """What has its JSON."""

    @property
    def data(self) -> bytes:
        """It."""


class Entry:
    """One event with its number, the operation that caused it, and its bytes once somebody wanted them."""

    __slots__ = ("_data", "event", "id", "seq")

    def __init__(self, id: int, seq: int, event: Event) -> None:
        self.id, self.seq, self.event = id, seq, event
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        """The event as JSON."""
        if self._data is None:
            self._data = orjson.dumps({"id": self.id, "seq": self.seq, **self.event.to_dict()})
        return self._data

    def to_dict(self) -> dict[str, Any]:
        """The event as a JSON object."""
        return {"id": self.id, "seq": self.seq, **self.event.to_dict()}


class Arrays:
    """Events that follow each other as JSON arrays: made once, and kept until arrays with as many events as `room` were made after them."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._texts: dict[tuple[int, int], str] = {}  # by the first and the last number, the oldest first
        self._held = 0

    def of(self, entries: Sequence[Entry]) -> str:
        """The array of these events, of which none is left out."""
        key = first, last = entries[0].id, entries[-1].id
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = array(entries)
            self._held += last - first + 1
            while self._held > self._room:
                first, last = next(iter(self._texts))
                del self._texts[first, last]
                self._held -= last - first + 1
        return text

    def clear(self) -> None:
        """Forget them: the same numbers are other events now."""
        self._texts.clear()
        self._held = 0


def array(messages: Iterable[Encoded]) -> str:
    """A JSON array of what is encoded already."""
    return f"[{b','.join([message.data for message in messages]).decode()}]"


class Ring:
    """The last `retention` events of a session.

    Attributes
    ----------
    last : int
        The number of the newest event ever published; 0 before the first.
    generation : int
        Grows when the session goes back in time.
    shown, nr_shown : dict, int
        The latest that is only shown, and how many there were.
    arrays : Arrays
        Of events that are held.
    """

    def __init__(self, retention: int) -> None:
        self._retention = retention
        self._entries: list[Entry] = []  # the last of them count; those before are let go some at a time
        self._waiters: set[asyncio.Future[None]] = set()
        self.arrays = Arrays(retention)
        self.last = 0
        self.generation = 0
        self.closed = self.restarting = False
        self.over = asyncio.Event()  # set when it is closed
        self.shown: dict[str, Any] = {}
        self.nr_shown = 0

    @property
    def oldest(self) -> int:
        """The number of the oldest event still held; `last + 1` when there is none."""
        return self.last - min(len(self._entries), self._retention) + 1

    def publish(self, seq: int, events: Sequence[Event]) -> tuple[int | None, int | None]:
        """Number the events of one operation; returns the first and the last number, or None twice when there are none."""
        if not events:
            return None, None
        first = self.last + 1
        held = events[-self._retention :]
        self._entries.extend(Entry(number, seq, event) for number, event in enumerate(held, first + len(events) - len(held)))
        self.last += len(events)
        if len(self._entries) > self._retention + LET_GO:
            del self._entries[: -self._retention]
        self._wake()
        return first, self.last

    def after(self, cursor: int, limit: int = _SOON) -> list[Entry]:
        """At most `limit` events with numbers above the cursor, oldest first."""
        left = min(self.last - cursor, self._retention, len(self._entries))
        start = len(self._entries) - left
        return self._entries[start : start + limit] if left > 0 else []

    def find(self, id: int) -> Entry | None:
        """The event of that number, None when it is not held."""
        return self._entries[id - self.last - 1] if self.oldest <= id <= self.last else None

    def cut(self, last: int) -> None:
        """Forget every event above a number: the session went back in time."""
        while self._entries and self._entries[-1].id > last:
            self._entries.pop()
        self.arrays.clear()
        self.last = last
        self.generation += 1
        self._wake()

    def refill(self, entries: Iterable[Entry], last: int) -> None:
        """Hold these events instead: of another session, for a clone, or of another past."""
        self._entries.clear()
        self.arrays.clear()
        self._entries.extend(entries)
        self.last = last
        self._wake()

    def entries(self) -> list[Entry]:
        """Every event held."""
        return self._entries[-self._retention :]

    def close(self, restarting: bool = False) -> None:
        """End every subscription: the session is destroyed, or the service shuts down and its readers shall come back."""
        self.closed, self.restarting = True, restarting
        self.over.set()
        self._wake()

    def show(self, what: dict[str, Any], clock_ns: int) -> None:
        """Tell those who listen now how far a long call is."""
        self.shown = {"clock_ns": clock_ns, "type": "progress", **what}
        self.nr_shown += 1
        self._wake()

    async def wait(self, cursor: int, generation: int, seen: int, timeout: float) -> bool:
        """Wait until something happened after the cursor, or more than `seen` was shown; False when `timeout` seconds passed first."""
        if self.last > cursor or self.generation != generation or self.nr_shown > seen or self.closed:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):  # not `wait_for`: it loses a cancellation that comes together with what it waits for
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    def nudge(self) -> None:
        """Let everyone who waits look again."""
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
