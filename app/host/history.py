"""A session's journal: what it did is staged here, in order, and committed in groups with what other sessions did.

The kernel runs ahead of the disk. What is *staged* has its number; what is *durable* may be told. `then` of whatever is staged runs on the event
loop once it is durable, in the order of staging: that is when events are published. Nothing waits here for the disk but `settled`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection

from app.errors import Problem
from app.host.exchange import CURRENT
from app.schemas.calls import Op, parse_op, render_op
from app.storage import Append, Entry, Fenced, Lease, Snapshot, StorageDamaged, StorageFull, Unit, Writer, history, sql
from app.storage.writer import Work
from core import Machine

Then = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Committed:
    """An operation in the journal, and the number of the last event up to and with it."""

    seq: int
    op: Op
    last_event: int


@dataclass(frozen=True, slots=True)
class Past:
    """What a kernel is rebuilt from: a snapshot, or the boot when there is none, and the entries that follow it."""

    snapshot: Snapshot | None
    boot_event: int
    entries: Sequence[Entry]


def boot_body(machine: Machine, seed: int) -> bytes:
    """The journal's number 0."""
    return orjson.dumps({"op": "boot", "machine": machine.to_dict(), "seed": seed})


def op_body(op: Op) -> bytes:
    """An operation as it is stored: a member of the batch union, which is the service's contract."""
    return orjson.dumps(render_op(op))


def op_of(entry: Entry) -> Op:
    """The operation of an entry."""
    return parse_op(entry.body)


def nobody() -> None:
    """Wants to know of nothing."""


class History:
    """What one session has stored and is about to store.

    Parameters
    ----------
    writer : Writer
        Who commits.
    lease : Lease
        The right to.
    line : int
        The session's timeline.
    """

    def __init__(self, writer: Writer, lease: Lease, line: int) -> None:
        self.writer, self.lease, self.line = writer, lease, line
        self.broken = False  # set by the writer: nothing more can be stored
        self.failure: Problem | None = None
        self.lost: Callable[[], None] = nobody  # who wants to know of that
        self._items: list[Append | Work] = []
        self._entries: list[Entry] = []  # of the last of them, while it is one of appends
        self._thens: list[Then] = []
        self._staged = self._durable = self._holds = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._soon = False

    # ---- staging

    def entry(self, seq: int, body: bytes, last_event: int, clock_ns: int, then: Then | None = None) -> None:
        """Stage an operation."""
        self.stage((Entry(seq, last_event, clock_ns, body),), then)

    def stage(self, rows: Sequence[Entry], then: Then | None = None) -> None:
        """Stage operations that follow each other."""
        last = self._items[-1] if self._items else None
        if isinstance(last, Append) and last.line == self.line:
            self._entries += rows
        else:
            self._entries = list(rows)
            self._items.append(Append(self.lease, self.line, self._entries))
        self._stage(then)

    def work(self, work: Work, then: Then | None = None) -> None:
        """Stage a function on the connection."""
        self._items.append(work)
        self._stage(then)

    def _stage(self, then: Then | None) -> None:
        if then is not None:
            self._thens.append(then)
        self._staged += 1
        if (exchange := CURRENT.get()) is not None:
            exchange.changes(self)
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._soon = False
        if not self._holds:
            self.flush()

    def hold(self) -> None:
        """Commit nothing for now: a request's answer is to be stored with it."""
        self._holds += 1

    def let_go(self) -> None:
        """One that held back does no more."""
        self._holds -= 1
        if not self._holds:
            self.flush()

    def flush(self) -> None:
        """Give what is staged to the writer."""
        if not self._items:
            return
        mark, thens = self._staged, self._thens
        unit = Unit(self._items, lambda error: self._done(error, mark, thens), self)
        self._items, self._thens = [], []
        self.writer.submit(unit)

    def _done(self, error: Exception | None, mark: int, thens: Sequence[Then]) -> None:
        if error is not None:
            self._fail(error)
            return
        self._durable = mark
        for then in thens:
            then()
        while self._waiting and self._waiting[0][0] <= mark:
            _, waiter = self._waiting.pop(0)
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error if isinstance(error, Problem) else not_stored(error)
            self.lost()
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(self.failure)
        self._waiting.clear()

    async def settled(self, at_once: bool = False) -> None:
        """Wait until everything staged so far is durable. Raises a Problem when it could not be stored.

        at_once: do not wait for a request that holds back its operations, commit them without its answer.
        """
        if self.failure is not None:
            raise self.failure
        if self._durable == self._staged:
            return
        if at_once or not (self._holds or self._soon):
            self.flush()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._staged, waiter))
        await waiter

    @property
    def idle(self) -> bool:
        """True when everything is durable."""
        return self._durable == self._staged

    # ---- reading

    async def read(self, work: Callable[[Connection], Any]) -> Any:
        """Read what is stored, everything staged so far included."""
        await self.settled(at_once=True)
        return await self.writer.read(work)

    async def entries(self, after: int = 0, upto: int | None = None) -> list[Entry]:
        """The entries with numbers in (after, upto]; -1 begins with the boot."""
        line = self.line
        found: list[Entry] = await self.read(lambda conn: list(history.entries(conn, line, after, upto)))
        return found

    async def committed(self, after: int = 0, upto: int | None = None) -> list[Committed]:
        """The operations with numbers in (after, upto]."""
        return [Committed(entry.seq, op_of(entry), entry.last_event) for entry in await self.entries(after, upto)]

    async def past(self, line: int, seq: int, before: int | None = None) -> Past:
        """What the state at a number is rebuilt from, with a snapshot from before `before` if one was of no use."""
        found: Past = await self.read(lambda conn: past(conn, line, seq, before))
        return found


def past(conn: Connection, line: int, seq: int | None, before: int | None = None) -> Past:
    """What a kernel is rebuilt from."""
    snapshot = sql.newest_snapshot(conn, line, seq, before)
    after = -1 if snapshot is None else snapshot.seq
    entries = list(history.entries(conn, line, after, seq))
    return Past(snapshot, entries[0].last_event if snapshot is None else 0, entries if snapshot is not None else entries[1:])


def not_stored(error: Exception) -> Problem:
    """What is answered when the database did not do what it was asked."""
    if isinstance(error, Fenced):
        detail = "another worker has taken this session over: what this request did was not stored; send it again"
    elif isinstance(error, StorageFull):
        detail = f"there is no room to store what this request does ({error}): it has not happened; the operator makes room, then send it again"
        return Problem(507, "storage-full", detail, {"Retry-After": "30"})
    elif isinstance(error, StorageDamaged):
        detail = f"the database is damaged where this is kept ({error}): the operator's `pagewalk doctor` says what of it; a backup has it"
        return Problem(503, "storage-damaged", detail, {"Retry-After": "60"})
    else:
        detail = f"the database did not do what it was asked ({error}): send it again with the same Idempotency-Key, or read the session's seq first"
    return Problem(503, "not-stored", detail, {"Retry-After": "1"})
