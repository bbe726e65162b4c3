"""A session: one kernel, one writer, one history.

Whoever wants the kernel takes the session's turn (`turns`), so a kernel never has two callers. Within the turn short work runs at once on the
event loop (a hop to a thread and back costs more than a small call); work that is expected to take over a millisecond, by its arguments or
because the same operation did the last two times, runs in a thread, where compiled loops release the interpreter. Other sessions go on meanwhile.

Long calls tell how far they are, and can be cancelled. A call that is cancelled never happened: its kernel is thrown away wherever it stands,
and the one that it began with is built again from the history, as it is when a session wakes up. So the journal holds whole operations only.

What is committed is numbered: the `seq` of a session grows by one with each operation the kernel carried out, whatever errno it answered.
The machine, the seed and the operations up to a number are the session at that number, which is how it goes back in time.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final, TypeVar

import orjson

from app.errors import Problem
from app.host.exchange import CURRENT
from app.host.history import History, op_body
from app.host.keeper import Keeper
from app.host.locks import Locks
from app.host.meter import Meter
from app.host.outcome import Outcome, Run, carry_out, is_answer, no_such_process
from app.host.policy_client import PolicyClient
from app.host.rebuild import UNKNOWN, Rebuilt, state_at
from app.host.ring import Ring
from app.host.telling import teller, was_cancelled, watcher
from app.host.turns import Call, Calls, Threads, Turn
from app.logs import logger
from app.schemas.calls import Op, accesses
from app.settings import Settings
from app.storage import Entry, Record, catalogue, history
from core import Kernel, Machine

T = TypeVar("T")
log = logger("pagewalk.sessions")

INLINE_PAGES: Final = 16_384
INLINE_OPS: Final = 32
SLOW_NS: Final = 1_000_000
NEVER: Final = (0, 0)  # of an operation that was not carried out yet: how long it took the last two times


class _Grew(Exception):
    """An operation that was short when it came is none any more: what was done before it has changed what it does."""


@dataclass(frozen=True, slots=True)
class Named:
    """A state with a name."""

    name: str
    line: int
    seq: int
    epoch: int
    clock_ns: int
    digest: str
    size: int
    created: float


class Session:
    """One simulated kernel and everything the service knows about it.

    Parameters
    ----------
    record : Record
        Its row in the catalogue.
    machine : Machine
        What was booted.
    kernel : Kernel
        As it is now.
    history : History
        What it has stored, and by which lease.
    settings : Settings
        Limits.
    threads : Threads
        For long work.
    """

    def __init__(self, record: Record, machine: Machine, kernel: Kernel, history: History, settings: Settings, threads: Threads) -> None:
        self.id, self.name, self.lab = record.id, record.name, record.lab
        self.owner, self.course = record.owner, record.course  # whose it is, and in which course
        self.token_hash, self.ttl_ns, self.created, self.used = record.token, record.ttl_ns, record.created, record.used
        self.epoch, self.seq, self.last_event, self.clock_ns = record.epoch, record.seq, record.last_event, record.clock_ns
        self.frozen, self.panicked, self.differs = record.frozen, record.panicked, record.differs
        self.machine, self.seed, self.kernel = machine, record.seed, kernel
        self.settings, self.threads = settings, threads
        self.history = history
        self.closed = False
        self.streams = 0
        self.users = 0  # requests and streams that keep it in memory
        self.locks = Locks()  # of WebDAV clients
        self.meter = Meter()  # the service's, once the session is one of its
        self.ring = Ring(settings.event_retention)
        self.names: dict[str, Named] = {}
        self.client: PolicyClient | None = None  # a program that is the policy
        self.turn = Turn(threads, settings.max_queue)
        self.calls = Calls(self.turn)
        self._took_ns: dict[str, tuple[int, int]] = {}
        self.told_early: int | None = None  # the first event of the operation that is still running, if some are told already
        self.keeper = Keeper(record.seq, record.last_event)

    def record(self) -> Record:
        """Its row in the catalogue, as it is to be."""
        machine = orjson.dumps(self.machine.to_dict()).decode()
        return Record(
            self.id, self.owner, self.course, self.name, self.lab, machine, self.seed, self.token_hash, self.ttl_ns, self.created, self.used,
            self.history.line, self.epoch, self.frozen, self.panicked or self.kernel.panicked, self.differs, None,
            self.seq, self.last_event, self.clock_ns,
        )  # fmt: skip

    # ---- who may

    @property
    def etag(self) -> str:
        """The session's state as an entity tag: `"<epoch>.<seq>"`."""
        return f'"{self.epoch}.{self.seq}"'

    def admits(self, token: str) -> bool:
        """True when this is the session's own token."""
        return self.is_key(hash_of(token))

    def is_key(self, digest: bytes) -> bool:
        """True for the hash of the session's own token."""
        return secrets.compare_digest(digest, self.token_hash)

    def require_match(self, if_match: str | None) -> None:
        if if_match is None or if_match.strip() == "*" or self.etag in (tag.strip() for tag in if_match.split(",")):
            return
        detail = f"the session has moved on: If-Match says {if_match[:80]}, the session is at {self.etag}; read it again"
        raise Problem(412, "stale-etag", detail, {"ETag": self.etag}, seq=self.seq)

    def require_sound(self) -> None:
        if self.closed:
            raise Problem(404, "no-such-session", "the session has been destroyed")
        if self.frozen is not None:
            raise Problem(409, "session-frozen", f"this session is frozen: {self.frozen}; its journal is kept and it can be rewound", seq=self.seq)

    def require_running(self) -> None:
        self.require_sound()
        if (panic := self.kernel.panicked) is not None:
            detail = f"the simulated kernel has panicked ({panic}): it runs nothing more, but its files can be read (fs/dev/kmsg says why)"
            raise Problem(409, "kernel-panicked", detail, errno="EIO", seq=self.seq)

    # ---- the turn

    def _is_long(self, key: str) -> bool:
        return self.client is not None or min(self._took_ns.get(key, NEVER)) > SLOW_NS

    async def run(self, key: str, work: Callable[[], T], long: bool = False, call: Call | None = None) -> T:
        """Do work on the kernel within the turn; freeze the session when the work shows a bug of ours."""
        try:
            if long or self._is_long(key):
                return await self.in_thread(partial(self._timed, time.thread_time_ns, key, work))
            return self._timed(time.perf_counter_ns, key, work)
        except Exception as error:
            if is_answer(error) or (call is not None and call.cancelled):
                raise
            raise self._broken(error) from error

    def _timed(self, clock: Callable[[], int], key: str, work: Callable[[], T]) -> T:
        """Work, and the memory of how long it took.

        A thread may wait for a processor, or for the interpreter, longer than it works: it is measured by the time that it had one, or a
        call that was taken for long once would stay so. On the event loop the clock that costs nothing does.
        """
        begin = clock()
        result = work()
        self._took_ns[key] = (self._took_ns.get(key, NEVER)[1], clock() - begin)
        return result

    def _broken(self, error: Exception) -> Problem:
        """A bug of ours showed: nothing runs here any more."""
        self.freeze(f"{type(error).__name__}: {error}")
        self.meter.frozen += 1
        detail = f"the simulator broke one of its own rules ({self.frozen}); this session is frozen, the others go on"
        return Problem(500, "kernel-bug", detail, seq=self.seq)

    def freeze(self, why: str) -> None:
        """A rule of ours broke: nothing runs here any more, until the session goes back."""
        self.frozen = why
        self.change(frozen=why)

    def differ(self, how: Mapping[str, Any]) -> None:
        """Played again it came to other figures: the code has changed since. The session goes on from what it is now, and says so."""
        self.differs = orjson.dumps(how).decode()
        self.meter.differing += 1
        log.warning("a session came to other figures when it was played again", session=self.id, **how)
        self.change(differs=self.differs)

    def change(self, **columns: Any) -> None:
        """Change the session's row in the catalogue."""
        lease = self.history.lease
        self.history.work(lambda conn: catalogue.change(conn, lease, **columns))

    def label(self, name: str | None, ttl_ns: int | None) -> None:
        """Rename the session, give it another time to live."""
        self.name = self.name if name is None else name
        self.ttl_ns = self.ttl_ns if ttl_ns is None else ttl_ns
        self.change(name=self.name, ttl_ns=self.ttl_ns)

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await self.threads.run(self.id, work)

    async def read(self, key: str, work: Callable[[Kernel], T], long: bool = False) -> T:
        """Look at the kernel, in turn. `key` names the kind of work, for the memory of how long it takes."""
        self.used = time.time()
        async with self.turn:
            self.require_sound()
            return await self.run(key, lambda: work(self.kernel), long)

    # ---- operations

    def check_size(self, op: Op) -> int:
        pages = accesses(op)
        limit = self.settings.max_pages_per_call
        if pages > limit and op.op in ("touch", "read", "write"):
            raise Problem(422, "too-much", f"{op.op} would make {pages} page accesses, one call may make {limit}: do it in parts", errors=[])
        if op.op == "advance" and op.args.get("duration_ns", 0) > self.settings.max_advance:
            raise Problem(422, "too-much", f"one request may let {self.settings.max_advance // 10**9} s pass: advance in parts", errors=[])
        if op.op == "advance" and op.args.get("max_work", 0) > limit:
            raise Problem(422, "too-much", f"the programs of one advance may make {limit} page accesses: max_work is at most that", errors=[])
        return pages

    def _require_room(self, ops: int) -> None:
        if self.seq + ops > self.settings.max_journal:
            detail = f"the session's journal is full ({self.settings.max_journal} operations): clone a snapshot or begin a new session"
            raise Problem(409, "journal-full", detail)

    def commit(self, outcome: Outcome) -> dict[str, Any]:
        """Number an operation and stage it; its events are published once it is stored. Returns the answer that every call gives."""
        if outcome.before is not None:
            self.commit(outcome.before)
        op, events = outcome.op, outcome.events
        self.seq = seq = self.seq + 1
        first, early, self.told_early = self.last_event + 1, self.told_early, None
        self.last_event, self.clock_ns = last, clock_ns = self.last_event + len(events), outcome.clock_ns
        then = partial(self.ring.publish, seq, events) if events else None
        if outcome.announced:
            line = self.history.line
            self.history.work(lambda conn: history.finish(conn, line, seq, last, clock_ns), then)
        else:
            self.history.entry(seq, op_body(op), last, clock_ns, then)
        self._committed(op.op, 1)
        self.meter.operation(outcome.result)
        return outcome.answer(seq, first if early is None else early, last)

    def commit_run(self, run: Run) -> list[bytes]:
        """The same for operations that were carried out in one step: their answers, as JSON."""
        seq, before, made = self.seq + 1, self.last_event, run.made
        ends = run.last_events(before)
        rows = list(map(Entry, count(seq), ends, made.clock_ns, map(op_body, run.ops)))
        self.history.stage(rows, partial(self._publish, run, seq, before, ends) if run.events else None)
        self.seq, self.last_event, self.clock_ns = rows[-1].seq, ends[-1], made.clock_ns[-1]
        self._committed(run.ops[0].op, len(rows))
        self.meter.operations += len(rows)
        self.meter.minor += sum(map(bool, made.fault))
        return run.answers(seq, ends)

    def _committed(self, op: str, times: int) -> None:
        """What follows from an operation, or from several that were one step."""
        if self.kernel.panicked is not None and self.panicked is None:
            self.panicked = self.kernel.panicked
            self.change(panicked=self.panicked)
        self.keeper.ran(self, times * self._took_ns.get(op, NEVER)[1])

    def _publish(self, run: Run, seq: int, before: int, ends: Sequence[int]) -> None:
        """The events of a run's operations, each with the number of its own."""
        at = 0
        for number, last in enumerate(ends, seq):
            if last > before + at:
                self.ring.publish(number, run.events[at : last - before])
                at = last - before

    def limited(self, op: Op) -> Op:
        """An advance says how much its programs may do, so that it does the same when it is replayed under other settings."""
        if op.op != "advance" or "max_work" in op.args:
            return op
        return Op(op.op, op.pid, {**op.args, "max_work": self.settings.max_pages_per_call})

    def runs_programs(self, op: Op) -> bool:
        return op.op == "advance" and self.kernel.nr_programs > 0

    def _begin(self, op: Op, pages: int) -> Call:
        """A call for an operation. Raises 503 when it is long and there is no room for another."""
        if self._leaves_loop(op, pages):
            self.threads.require_room()
        if op.op == "advance":
            return self.calls.begin(op.op, op.pid, op.args.get("duration_ns", 0), "ns")
        return self.calls.begin(op.op, op.pid, pages)

    async def call(self, op: Op, if_match: str | None = None) -> dict[str, Any]:
        """Carry out one operation and answer what it did.

        Raises Problem: 404 for a pid that lives no more, 409 after a panic, a bug or a cancellation, 412 for a stale writer, 422 for too much
        work, 503 when too many wait.
        """
        op = self.limited(op)
        pages = self.check_size(op)
        self.used = time.time()
        if not self._leaves_loop(op, pages):
            at_once = partial(self._at_once, op, pages, if_match)
            try:
                return at_once() if self.turn.free else await self._begin(op, pages).do(at_once)
            except _Grew:
                pass
        async with self._begin(op, pages) as call:
            self.require_ready(1, if_match)
            try:
                return self.commit(await self._perform(op, call, pages > INLINE_PAGES))
            except LookupError as error:
                raise no_such_process(op.pid, error) from None

    def _leaves_loop(self, op: Op, pages: int) -> bool:
        """True for an operation that is carried out in a thread."""
        return pages > INLINE_PAGES or self.runs_programs(op) or self._is_long(op.op)

    def require_ready(self, ops: int, if_match: str | None = None) -> None:
        """The state in which so many operations may be carried out. Raises 404, 409, 412."""
        self.require_running()
        self.require_match(if_match)
        self._require_room(ops)

    def _at_once(self, op: Op, pages: int, if_match: str | None) -> dict[str, Any]:
        """A short operation in one go: it begins and ends before anyone else can come, so it takes no turn."""
        if self._leaves_loop(op, pages):
            raise _Grew
        self.require_ready(1, if_match)
        try:
            outcome = self._timed(time.perf_counter_ns, op.op, partial(carry_out, self.kernel, op))
        except Exception as error:
            if not is_answer(error):
                raise self._broken(error) from error
            if isinstance(error, LookupError):
                raise no_such_process(op.pid, error) from None
            raise
        return self.commit(outcome)

    async def _perform(self, op: Op, call: Call, long: bool) -> Outcome:
        """One operation on the kernel, in a thread if it is long. Raises the call's refusal when it was cancelled: then nothing has happened."""
        runs = self.runs_programs(op)
        if not (long or runs or self._is_long(op.op)):
            return await self.run(op.op, lambda: carry_out(self.kernel, op))
        announced = runs and await self._announce(op)
        tell = teller(self) if announced else None
        watch, last_event = watcher(self, call), self.last_event
        try:
            outcome = await self.run(op.op, lambda: carry_out(self.kernel, op, tell, self.client, watch), True, call)
        except BaseException as error:
            cancelled = was_cancelled(call, error)
            if cancelled:
                await self.undo_call()
            if announced:
                self._take_back(last_event)
            if not cancelled:
                raise
            raise call.refusal() from None
        outcome.announced = announced
        return outcome

    async def _announce(self, op: Op) -> bool:
        """Store an operation before it is carried out, so that its events may be told while it runs: whatever happens, it will have happened.

        Not where a client's answers come before it, nor where a request's answer has to be stored with it.
        """
        exchange = CURRENT.get()
        if self.client is not None or (exchange is not None and exchange.holds):
            return False
        self.history.entry(self.seq + 1, op_body(op), UNKNOWN, UNKNOWN)
        await self.history.settled(at_once=True)
        return True

    def _take_back(self, last_event: int) -> None:
        """An operation that was stored did not come to its end: the session goes on from before it, on a timeline of its own."""
        self.told_early, self.last_event = None, last_event
        self.go_back(self.history.line, self.seq, last_event)
        if self.frozen is not None:
            self.change(frozen=self.frozen)

    def go_back(self, line: int, seq: int, last_event: int) -> None:
        """Go on from an operation of a timeline; readers of events are told."""
        self.epoch += 1
        child, lease, epoch = secrets.randbits(62), self.history.lease, self.epoch
        self.history.work(lambda conn: history.rewind(conn, lease, line, seq, child, epoch), lambda: self.ring.cut(last_event))
        self.history.line = child
        self.seq, self.last_event = seq, last_event
        self.keeper.went_back(seq, last_event)

    async def undo_call(self) -> None:
        """The kernel was abandoned in the midst of a call: build the one that it was before."""
        self.kernel = (await self.state_at(self.history.line, self.seq)).kernel

    async def state_at(self, line: int, seq: int) -> Rebuilt:
        """The state at an operation of a timeline, on a kernel of its own. Raises 409 where it cannot be built again."""
        found = await state_at(self.history, self.machine, self.seed, (line, seq), self.in_thread, self.threads.breathe)
        if found.broke is not None:
            raise Problem(409, "state-lost", f"the state at operation {seq} cannot be built again: {found.broke}", seq=self.seq)
        return found

    async def close(self) -> None:
        """Destroy the session, once nobody holds its turn."""
        self.closed = True
        self.ring.close()
        async with self.turn:
            pass

    # ---- taking it home

    async def journal_lines(self) -> bytes:
        """The session as JSON Lines: the boot, then each committed operation."""
        return b"".join(b'{"seq":%d,%b\n' % (entry.seq, entry.body[1:]) for entry in await self.history.entries(-1))


def hash_of(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()
