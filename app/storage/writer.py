"""Group commit: everything that one process writes goes through one thread, and what waits while it commits is committed together.

A *unit* is what must be committed together: entries of journals, functions on the connection, or both (a reply to be kept with the operation that
it answers). Units of one session are committed in the order in which they were given, and none after one that could not be: a journal has no
holes. A group without functions, which is what a busy service makes, is one statement.
"""

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.storage import sql
from app.storage.database import Database
from app.storage.store import Append, Fenced, StorageError

T = TypeVar("T")
Work = Callable[[Connection], Any]
READERS: Final = 4
MAX_UNITS: Final = 4096
TRIES: Final = 16  # of a unit that loses races
LOST: Final = frozenset({"40001", "40P01"})  # PostgreSQL: serialization_failure, deadlock_detected
_AFTER: Final = StorageError("an earlier operation of this session could not be stored")


@dataclass(eq=False, slots=True)
class Unit:
    """What is committed together, in its order. `done` is called on the event loop with None, or with why it was not committed."""

    items: Sequence[Append | Work] = ()
    done: Callable[[Exception | None], None] = lambda _: None
    owner: Any = None  # of several units: once one of them failed, the others fail
    results: list[Any] = field(default_factory=list)  # of the works

    @property
    def plain(self) -> bool:
        """True when it only appends."""
        return all(isinstance(item, Append) for item in self.items)

    @property
    def appends(self) -> list[Append]:
        """Its appends."""
        return [item for item in self.items if isinstance(item, Append)]


def lost_a_race(error: Exception) -> bool:
    """Did the database give up this transaction for another's sake? Then nothing of it was done, and it may be tried again."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) in LOST


class Writer:
    """The thread that commits, and a few that read.

    Parameters
    ----------
    database : Database
        Where.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.groups = self.units = 0  # committed so far
        self._since: float | None = None  # when the oldest unit that waits came, about
        self._queue: queue.SimpleQueue[tuple[Unit, asyncio.AbstractEventLoop] | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, "storage-reader")
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._hot: Any = None
        self._thread.start()

    # ---- on the event loop

    def submit(self, unit: Unit) -> None:
        """Commit a unit soon; never waits."""
        if self._since is None:
            self._since = time.monotonic()
        self._queue.put((unit, asyncio.get_running_loop()))

    @property
    def waiting(self) -> int:
        """Units that are not being committed yet."""
        return self._queue.qsize()

    @property
    def lag_s(self) -> float:
        """Seconds that the oldest unit which is not committed has waited; a group that was committed begins anew."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a function on the writer's connection, in a transaction that may hold other units; what it returned, once it is committed."""
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None) -> None:
            if committed.cancelled():
                return
            if error is None:
                committed.set_result(None)
            else:
                committed.set_exception(error)

        unit = Unit((work,), done)
        self.submit(unit)
        await committed
        result: T = unit.results[0]
        return result

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function of reads on a connection of its own, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.database.read, work)

    def close(self) -> None:
        """Commit what waits, then end the threads. Blocks."""
        self._queue.put(None)
        self._thread.join()
        self._readers.shutdown()

    # ---- the thread

    def _run(self) -> None:
        going = True
        while going:
            group: list[tuple[Unit, asyncio.AbstractEventLoop]] = []
            item = self._queue.get()
            while item is not None:
                group.append(item)
                if len(group) >= MAX_UNITS or self._queue.empty():
                    break
                item = self._queue.get_nowait()
            going = item is not None
            if group:
                self._tell(group, self._commit([unit for unit, _ in group]))
                self._since = None if self._queue.empty() else time.monotonic()
        self._let_go()

    @staticmethod
    def _tell(group: Sequence[tuple[Unit, asyncio.AbstractEventLoop]], outcomes: Sequence[Exception | None]) -> None:
        """On each event loop, one call for all of its units, in order."""
        for loop in {id(loop): loop for _, loop in group}.values():
            theirs = [(unit, outcome) for (unit, own), outcome in zip(group, outcomes, strict=True) if own is loop]

            def deliver(theirs: Sequence[tuple[Unit, Exception | None]] = theirs) -> None:
                for unit, outcome in theirs:
                    unit.done(outcome)

            try:
                loop.call_soon_threadsafe(deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

    def _commit(self, units: Sequence[Unit]) -> list[Exception | None]:
        """Commit a group; for each unit None, or why it was not committed. Who lost a race to another service tries again."""
        self.groups, self.units = self.groups + 1, self.units + len(units)
        try:
            outcomes = self._try_again(units)
        except Exception as error:
            self._let_go()
            if len(units) == 1:
                outcomes = [self._ours(error)]
            else:
                outcomes = [outcome for unit in units for outcome in self._commit([unit])]
        for unit, outcome in zip(units, outcomes, strict=True):
            if outcome is not None and unit.owner is not None:
                unit.owner.broken = True
        return outcomes

    def _try_again(self, units: Sequence[Unit]) -> list[Exception | None]:
        """A unit by itself loses no race to the others of its group: it is tried until it wins."""
        for _ in range(TRIES if len(units) == 1 else 0):
            try:
                return self._try(units)
            except Exception as error:
                if not lost_a_race(error):
                    raise
                self._let_go()
        return self._try(units)

    def _try(self, units: Sequence[Unit]) -> list[Exception | None]:
        if any(unit.owner is not None and unit.owner.broken for unit in units):
            if len(units) == 1:
                return [StorageError("an earlier operation of this session could not be stored")]
            return [outcome for unit in units for outcome in self._commit([unit])]
        return self._at_once(units) if all(unit.plain for unit in units) else self._together(units)

    def _at_once(self, units: Sequence[Unit]) -> list[Exception | None]:
        """Only appends: one statement."""
        if self._hot is None:
            self._hot = self.database.dialect.hot(self.database.engine)
        appends = [one for unit in units for one in unit.appends]
        added = sql.rows(appends)
        if not added or self.database.dialect.append(self._hot, added) == len(added):
            return [None] * len(units)
        fenced = self.database.read(lambda conn: sql.fenced(conn, appends))
        return [_refusal(unit, fenced) for unit in units]

    def _together(self, units: Sequence[Unit]) -> list[Exception | None]:
        """One transaction: units that only append in one statement as far as they stand together, a savepoint for each of the others."""
        outcomes: list[Exception | None] = []
        failed: set[int] = set()
        with self.database.writing() as conn, conn.begin():
            for plain, neighbours in itertools.groupby(units, lambda unit: unit.plain):
                run = list(neighbours)
                if not failed and plain:
                    outcomes += self._appends(conn, run)
                    continue
                for unit in run:
                    outcomes.append(_AFTER if id(unit.owner) in failed else self._one(conn, unit))
                    if outcomes[-1] is not None and unit.owner is not None:
                        failed.add(id(unit.owner))
        return outcomes

    def _appends(self, conn: Connection, units: Sequence[Unit]) -> list[Exception | None]:
        appends = [one for unit in units for one in unit.appends]
        fenced = sql.append(self.database, conn, conn.connection.driver_connection, appends)
        return [_refusal(unit, fenced) for unit in units]

    def _one(self, conn: Connection, unit: Unit) -> Exception | None:
        """A unit with functions: none of it is done when one of them raises."""
        unit.results.clear()
        try:
            with conn.begin_nested():
                for item in unit.items:
                    if not isinstance(item, Append):
                        unit.results.append(item(conn))
                    elif sql.append(self.database, conn, conn.connection.driver_connection, [item]):
                        raise Fenced(item.lease.session)
        except Exception as error:
            if conn.invalidated or lost_a_race(error):
                raise
            return self._ours(error) if isinstance(error, DBAPIError) else error
        return None

    def _ours(self, error: Exception) -> StorageError:
        """What the database said, in the storage's own terms."""
        if isinstance(error, StorageError):
            return error
        if isinstance(error, DBAPIError | self.database.dialect.error):
            return self.database.translate(error)
        return StorageError(f"{type(error).__name__}: {error}")

    def _let_go(self) -> None:
        """Close the appends' connection: it may be broken, or is needed no more."""
        hot, self._hot = self._hot, None
        if hot is not None:
            hot.close()


def _refusal(unit: Unit, fenced: set[str]) -> Exception | None:
    theirs = fenced & {one.lease.session for one in unit.appends}
    return Fenced(", ".join(sorted(theirs))) if theirs else None
