"""Who may go on, and when: the turn of a session, and the threads that long work of all sessions shares.

**A session's turn.** A kernel has one caller at a time. Whoever comes while the turn is taken waits in line, first come, first served, and
the line is short: when `max_queue` wait already the next one is refused with 503 and told when to come again, and so is everyone who would have
to wait while `max_waiting` requests of the whole service do. Who never has to wait is never refused.

**Threads.** Long work leaves the event loop for a thread. Threads are many and processors few, so a thread computes only while it holds one of
`slots`. A slot is lent for a slice of 10 ms: at the next place where the kernel looks up (`Kernel.watch`) a thread that had its slice goes
to the end of the line if somebody waits. The line is one per session, served in rotation. So with 2 slots and 4 sessions that never stop, a
fifth session's 5 ms of work begin after at most 4 / 2 slices, 20 ms, however much the four have queued. What holds no slot is the event loop:
short work of any session is done there at once.

**A call** is an operation from its arrival to its answer. It can be listed and cancelled: while it waits it leaves the line; while it runs it is
told at the same places, its kernel is thrown away and built again from the history, and nothing has happened.
"""

import asyncio
import contextlib
import contextvars
import itertools
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

from app.errors import Problem

T = TypeVar("T")

SLICE_S: Final = 0.01
AT_ONCE_S: Final = 0.001  # of short work that is done without anyone else having the event loop
MORE_THREADS: Final = 16  # than long calls: for boots, snapshots and what else a call needs
LONGEST_RETRY_S: Final = 30


class Abandoned(BaseException):
    """Raised within a kernel at work: its call was cancelled. The kernel is of no use any more."""


class Threads:
    """Threads for long work, of which a few compute at a time, in rotation of who they work for.

    Parameters
    ----------
    slots : int
        How many compute at the same time; 0: as many as there are processors.
    most : int
        Long calls that may be under way.
    most_waiting : int
        Requests of all sessions that may wait for a turn.
    """

    def __init__(self, slots: int, most: int, most_waiting: int) -> None:
        self.most, self.most_waiting = most, most_waiting
        self.under_way = 0  # long work that was begun
        self.waiting = 0  # requests that wait for a turn
        self._free = slots or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(most + MORE_THREADS, "kernel")
        self.lines: OrderedDict[object, deque[threading.Event]] = OrderedDict()  # threads that wait for a slot, by who they work for
        self._mutex = threading.Lock()
        self._mine = threading.local()  # key, since: of the slot that a thread holds

    async def run(self, key: object, work: Callable[[], T]) -> T:
        """Do work for `key` on a thread. A caller that is cancelled meanwhile waits for the end of it all the same."""
        self.under_way += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._within, key, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])  # the turn must not pass on while the thread holds the kernel
            raise
        finally:
            self.under_way -= 1

    def require_room(self) -> None:
        """Raises 503 when as many long calls are under way as may be."""
        if self.under_way >= self.most:
            detail = f"{self.most} long calls are under way, as many as this service takes on at a time: come again"
            raise Problem(503, "service-busy", detail, {"Retry-After": "1"})

    def _within(self, key: object, work: Callable[[], T]) -> T:
        self._take(key)
        try:
            return work()
        finally:
            self._give()

    def _take(self, key: object) -> None:
        with self._mutex:
            event = None if self._free and not self.lines else self._queue(key)
            if event is None:
                self._free -= 1
        if event is not None:
            event.wait()
        self._mine.key, self._mine.since = key, time.monotonic()

    def _queue(self, key: object) -> threading.Event:
        event = threading.Event()
        self.lines.setdefault(key, deque()).append(event)
        return event

    def _give(self) -> None:
        self._mine.key = None
        with self._mutex:
            self._next()

    def _next(self) -> None:
        """A slot is free: the first of the next line has it, and that line goes to the end."""
        if not self.lines:
            self._free += 1
            return
        key, line = self.lines.popitem(last=False)
        line.popleft().set()
        if line:
            self.lines[key] = line

    def breathe(self) -> None:
        """On a thread in the middle of its work: let another go on if one waits and the slice is over. Elsewhere: nothing."""
        key = getattr(self._mine, "key", None)
        if key is None or not self.lines or time.monotonic() - self._mine.since < SLICE_S:
            return
        with self._mutex:
            if not self.lines:
                return
            event = self._queue(key)
            self._next()
        event.wait()
        self._mine.since = time.monotonic()

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        """The thread waits for something else than a processor: its slot is another's meanwhile."""
        key = getattr(self._mine, "key", None)
        if key is not None:
            self._give()
        try:
            yield
        finally:
            if key is not None:
                self._take(key)

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=True)


class Turn:
    """A session's turn: `async with turn` is the kernel's only caller.

    Parameters
    ----------
    threads : Threads
        Counts who waits, over all sessions.
    limit : int
        How many may wait.
    """

    __slots__ = ("_line", "_limit", "_since", "_taken", "_threads")

    def __init__(self, threads: Threads, limit: int) -> None:
        self._threads, self._limit = threads, limit
        self._line: deque[tuple[asyncio.Future[Any], Callable[[], object] | None]] = deque()
        self._taken, self._since = False, 0.0

    @property
    def free(self) -> bool:
        """True when nobody has it."""
        return not self._taken

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    async def __aenter__(self) -> None:
        await self.take()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()

    async def take(self, call: "Call | None" = None) -> None:
        """Wait for the turn. Raises 503 when too many do."""
        if not self._taken:
            self._taken, self._since = True, time.monotonic()
        else:
            await self._wait(None, call)

    async def do(self, work: Callable[[], T], call: "Call") -> T:
        """Do short work in turn. Whoever leaves the turn does it for those who wait for no more than that. Raises 503 when too many wait."""
        if self._taken:
            found: T = await self._wait(partial(contextvars.copy_context().run, work), call)
            return found
        return work()

    async def _wait(self, work: Callable[[], object] | None, call: "Call | None") -> Any:
        """Stand in line, for the turn or for work to be done."""
        self._require_room()
        ahead: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if call is not None:
            call.ahead = ahead
        place = ahead, work
        self._line.append(place)
        self._threads.waiting += 1
        try:
            return await ahead
        except BaseException:
            if place in self._line:
                self._line.remove(place)
            elif work is None and not ahead.cancelled() and ahead.exception() is None:
                self.leave()  # it was handed over at the very moment
            raise
        finally:
            self._threads.waiting -= 1

    def leave(self) -> None:
        """Hand the turn over to the first in line who still waits for it; short work is done on the way to him, some of it at a time."""
        self._since = time.monotonic()
        while self._line:
            ahead, work = self._line.popleft()
            if ahead.done():
                continue
            if work is None:
                ahead.set_result(None)
                return
            _fulfil(ahead, work)
            if self._line and time.monotonic() - self._since > AT_ONCE_S:
                asyncio.get_running_loop().call_soon(self.leave)
                return
        self._taken = False

    def _require_room(self) -> None:
        if len(self._line) >= self._limit:
            detail = f"{self._limit} requests wait for this session's turn, as many as may: it takes one after the other"
            raise Problem(503, "session-busy", detail, {"Retry-After": self._retry_after()})
        if self._threads.waiting >= self._threads.most_waiting:
            detail = f"{self._threads.most_waiting} requests wait in this service, as many as may: come again"
            raise Problem(503, "service-busy", detail, {"Retry-After": self._retry_after()})

    def _retry_after(self) -> str:
        """Whole seconds: as long again as the present holder has had the turn."""
        return str(min(max(1, round(time.monotonic() - self._since)), LONGEST_RETRY_S))


def _fulfil(ahead: asyncio.Future[Any], work: Callable[[], object]) -> None:
    try:
        found = work()
    except Exception as error:
        ahead.set_exception(error)
    else:
        ahead.set_result(found)


class Call:
    """One operation under way: `async with` it is the session's turn, for as long as it is not cancelled.

    Attributes
    ----------
    done, total : int
        How far it is: accesses, nanoseconds or operations, as `unit` says; total 0: unknown.
    """

    __slots__ = ("_calls", "_over", "ahead", "begun", "cancelled", "done", "id", "op", "pid", "since", "stopped", "total", "unit")

    def __init__(self, calls: "Calls", id: int, op: str, pid: int | None, total: int, unit: Literal["pages", "ns", "operations"]) -> None:
        self._calls, self.id, self.op, self.pid, self.total, self.unit = calls, id, op, pid, total, unit
        self.done, self.since = 0, time.time()
        self.begun = self.cancelled = self.stopped = False
        self.ahead: asyncio.Future[Any] | None = None
        self._over: asyncio.Event | None = None

    async def __aenter__(self) -> "Call":
        self._calls.under_way[self.id] = self
        try:
            await self._calls.turn.take(self)
        except BaseException:
            self._end()
            raise
        self.begun = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._calls.turn.leave()
        self._end()

    async def do(self, work: Callable[[], T]) -> T:
        """The whole of it is short work: do it in the session's turn."""
        self._calls.under_way[self.id] = self
        try:
            return await self._calls.turn.do(work, self)
        finally:
            self._end()

    def _end(self) -> None:
        del self._calls.under_way[self.id]
        if self._over is not None:
            self._over.set()

    async def cancel(self) -> bool:
        """Stop it and wait until it has; False when it came to its end all the same."""
        self.cancelled = True
        if not self.begun and self.ahead is not None and not self.ahead.done():
            self.ahead.set_exception(self.refusal())
        if self._over is None:
            self._over = asyncio.Event()
        await self._over.wait()
        return self.stopped

    def refusal(self) -> Problem:
        """What the call answers to whoever made it."""
        self.stopped = True
        return Problem(409, "call-cancelled", f"this call ({self.op}) was cancelled: nothing of it has happened")

    def document(self) -> dict[str, Any]:
        """The call as JSON, without the time it came."""
        state = "running" if self.begun else "queued"
        return {"id": self.id, "op": self.op, "pid": self.pid, "state": state, "done": self.done, "total": self.total or None, "unit": self.unit}


class Calls:
    """The operations of one session that are under way, in order of arrival."""

    __slots__ = ("_numbers", "turn", "under_way")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.under_way: dict[int, Call] = {}
        self._numbers = itertools.count(1)

    def begin(self, op: str, pid: int | None, total: int, unit: Literal["pages", "ns", "operations"] = "pages") -> Call:
        """A new call."""
        return Call(self, next(self._numbers), op, pid, total, unit)

    def find(self, id: int) -> Call:
        """The call of a number. Raises 404 when it is not under way."""
        call = self.under_way.get(id)
        if call is None:
            raise Problem(404, "no-such-call", f"no call {id} is under way: it has been answered, or there never was one")
        return call
