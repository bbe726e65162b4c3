"""A session: one kernel, one writer, one history.

Whoever wants the kernel takes the session's turn (`turns`), so a kernel never has two callers. Within the turn short work runs at once on the
event loop (a hop to a thread and back costs more than a small call); work that is expected to take over a millisecond, by its arguments or
because the same operation did the last two times, runs in a thread, where compiled loops release the interpreter. Other sessions go on meanwhile.

Long calls tell how far they are, and can be cancelled. A call that is cancelled never happened: its kernel is thrown away wherever it stands,
and the one that it began with is built again from the history, as it is when a session wakes up. So the journal holds whole operations only.

What is committed is numbered: the `seq` of a session grows by one with each operation the kernel carried out, whatever errno it answered.
The machine, the seed and the operations up to a number are the session at that number, which is how it goes back in time.
"""

import asyncio
import contextvars
import hashlib
import io
import secrets
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import Connection

from app.errors import Problem
from app.host.exchange import CURRENT
from app.host.history import History, op_body
from app.host.locks import Locks
from app.host.meter import Meter
from app.host.policy_client import OURS, PolicyClient, score
from app.host.rebuild import UNKNOWN, Rebuilt, pack, state_at
from app.host.ring import Ring
from app.host.turns import Abandoned, Call, Calls, Threads, Turn
from app.logs import logger
from app.schemas.calls import Op, accesses, render_result
from app.settings import Settings
from app.storage import Record, Snapshot, catalogue, history
from core import Event, FsError, Kernel, Machine, Result

T = TypeVar("T")
log = logger("pagewalk.sessions")

INLINE_PAGES: Final = 16_384
INLINE_OPS: Final = 32
SLOW_NS: Final = 1_000_000
PATIENCE_S: Final = 60.0  # of a kernel's thread with the event loop
READ_AT_ONCE, TURNS = 256, 4  # events that a reader takes at a time, turns of the event loop that it has for each such part
SNAPSHOTS: Final = 3  # kept of a timeline, besides those with a name
TELL_S: Final = 0.1  # how often a long call says how far it is


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one operation did: the call's result and its events."""

    op: Op
    result: Result
    clock_ns: int
    events: list[Event]
    announced: bool = False  # it was stored before it was carried out
    before: "Outcome | None" = None  # an operation that made this one's outcome what it is: a client's answers


def carry_out(
    kernel: Kernel,
    op: Op,
    publish: Callable[[list[Event]], None] | None = None,
    client: PolicyClient | None = None,
    watch: Callable[[int], None] | None = None,
) -> Outcome:
    """Run one operation on a kernel. Raises LookupError for a pid that names no living process.

    `publish` gets the events of a long advance in parts, while it runs and at its end. A `client` that is the policy is asked
    first, and its answers are an operation before this one. `watch` is told in the midst of long work how many accesses were made.
    """
    before = None
    if client is not None and op.op not in OURS and (answers := client.rehearse(kernel, op)):
        before = carry_out(kernel, Op("policy_answers", None, {"answers": list(answers)}))
    if publish is not None:
        kernel.pause = lambda: publish(kernel.drain())
    kernel.watch = watch
    try:
        result = kernel.call(op.op, op.pid, **op.args)
        if publish is not None:
            publish(kernel.drain())  # the end may bring more at once than the ring holds
    finally:
        kernel.pause = kernel.watch = None
    return Outcome(op, result, kernel.clock_ns, kernel.drain(), before=before)


def _is_answer(error: Exception) -> bool:
    """True for what the core says to a client; anything else that it raises is our bug."""
    return isinstance(error, FsError | Problem) or (isinstance(error, LookupError) and not isinstance(error, KeyError | IndexError))


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
        self.settings, self._threads = settings, threads
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
        self._told_early: int | None = None  # the first event of the operation that is still running, if some are told already
        self.kept_seq, self.kept_event = record.seq, record.last_event  # where the newest snapshot and the stored events end
        self.replay_ns = 0  # about how long it takes to play again what came after that
        self._keeping: asyncio.Task[None] | None = None

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

    def _require_running(self) -> None:
        self.require_sound()
        if (panic := self.kernel.panicked) is not None:
            detail = f"the simulated kernel has panicked ({panic}): it runs nothing more, but its files can be read (fs/dev/kmsg says why)"
            raise Problem(409, "kernel-panicked", detail, errno="EIO", seq=self.seq)

    # ---- the turn

    def _is_long(self, key: str) -> bool:
        return self.client is not None or min(self._took_ns.get(key, (0, 0))) > SLOW_NS

    async def run(self, key: str, work: Callable[[], T], long: bool = False, call: Call | None = None) -> T:
        """Do work on the kernel within the turn; freeze the session when the work shows a bug of ours."""
        try:
            if long or self._is_long(key):
                return await self.in_thread(partial(self._timed, time.thread_time_ns, key, work))
            return self._timed(time.perf_counter_ns, key, work)
        except Exception as error:
            if _is_answer(error) or (call is not None and call.cancelled):
                raise
            raise self._broken(error) from error

    def _timed(self, clock: Callable[[], int], key: str, work: Callable[[], T]) -> T:
        """Work, and the memory of how long it took.

        A thread may wait for a processor, or for the interpreter, longer than it works: it is measured by the time that it had one, or a
        call that was taken for long once would stay so. On the event loop the clock that costs nothing does.
        """
        begin = clock()
        result = work()
        self._took_ns[key] = (self._took_ns.get(key, (0, 0))[1], clock() - begin)
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
        return await self._threads.run(self.id, work)

    async def read(self, key: str, work: Callable[[Kernel], T], long: bool = False) -> T:
        """Look at the kernel, in turn. `key` names the kind of work, for the memory of how long it takes."""
        self.used = time.time()
        async with self.turn:
            self.require_sound()
            return await self.run(key, lambda: work(self.kernel), long)

    # ---- operations

    def _check_size(self, op: Op) -> int:
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

    def _commit(self, outcome: Outcome) -> dict[str, Any]:
        """Number an operation and stage it; its events are published once it is stored. Returns the answer that every call gives."""
        if outcome.before is not None:
            self._commit(outcome.before)
        self.seq += 1
        first, early, self._told_early = self.last_event + 1, self._told_early, None
        self.last_event, self.clock_ns = self.last_event + len(outcome.events), outcome.clock_ns
        first, last = (first if early is None else early), self.last_event
        then = partial(self.ring.publish, self.seq, outcome.events) if outcome.events else None
        if outcome.announced:
            seq, line = self.seq, self.history.line
            self.history.work(lambda conn: history.finish(conn, line, seq, last, outcome.clock_ns), then)
        else:
            self.history.entry(self.seq, op_body(outcome.op), last, outcome.clock_ns, then)
        if self.panicked is None and self.kernel.panicked is not None:
            self.panicked = self.kernel.panicked
            self.change(panicked=self.panicked)
        self.replay_ns += self._took_ns.get(outcome.op.op, (0, 0))[1]
        self._keep_soon()
        result = outcome.result
        self.meter.operation(result)
        return {
            "result": render_result(outcome.op.op, result.result),
            "errno": result.errno,
            "signal": result.signal,
            "fault_address": None if result.fault_address is None else f"{result.fault_address:#x}",
            "faults": {"minor": result.minor, "major": result.major},
            "killed": result.killed,
            "elapsed_ns": result.elapsed_ns,
            "clock_ns": outcome.clock_ns,
            "events": {"first": first, "last": last} if first <= last else None,
            "seq": self.seq,
            **({"tlb": result.tlb} if result.tlb is not None else {}),
        }

    def _limited(self, op: Op) -> Op:
        """An advance says how much its programs may do, so that it does the same when it is replayed under other settings."""
        if op.op != "advance" or "max_work" in op.args:
            return op
        return Op(op.op, op.pid, {**op.args, "max_work": self.settings.max_pages_per_call})

    def _runs_programs(self, op: Op) -> bool:
        return op.op == "advance" and self.kernel.nr_programs > 0

    def _teller(self) -> Callable[[list[Event]], None]:
        """For the thread of a long advance: hand events to the event loop, and wait until they are published."""
        loop = asyncio.get_running_loop()
        self._told_early = None

        async def tell(events: list[Event]) -> None:
            for at in range(0, len(events), READ_AT_ONCE):
                part = events[at : at + READ_AT_ONCE]
                first, _ = self.ring.publish(self.seq + 1, part)
                self._told_early = self._told_early or first
                self.last_event += len(part)
                for _ in range(TURNS):
                    await asyncio.sleep(0)  # readers that keep up get their turn

        return lambda events: asyncio.run_coroutine_threadsafe(tell(events), loop).result(PATIENCE_S)

    def _watcher(self, call: Call) -> Callable[[int], None]:
        """For the thread of a long call: others have their slice, the client its progress; a call that was cancelled ends here."""
        loop, kernel, start, due = asyncio.get_running_loop(), self.kernel, self.kernel.clock_ns, time.monotonic() + TELL_S

        def watch(accesses: int) -> None:
            nonlocal due
            if call.cancelled:
                raise Abandoned
            self._threads.breathe()
            if call.unit != "operations" and (now := time.monotonic()) >= due:
                due = now + TELL_S
                done = kernel.clock_ns - start if call.unit == "ns" else accesses
                loop.call_soon_threadsafe(self._tell, call, done, kernel.clock_ns)

        return watch

    def _tell(self, call: Call, done: int, clock_ns: int) -> None:
        """How far a call is; every subscriber hears of it, and none later."""
        call.done = done
        if self.calls.under_way.get(call.id) is call:
            how_far = {"call": call.id, "op": call.op, "pid": call.pid, "done": done, "total": call.total or None, "unit": call.unit}
            self.ring.show(how_far, clock_ns)

    def _begin(self, op: Op, pages: int) -> Call:
        """A call for an operation. Raises 503 when it is long and there is no room for another."""
        if self._leaves_loop(op, pages):
            self._threads.require_room()
        if op.op == "advance":
            return self.calls.begin(op.op, op.pid, op.args.get("duration_ns", 0), "ns")
        return self.calls.begin(op.op, op.pid, pages)

    async def call(self, op: Op, if_match: str | None = None) -> dict[str, Any]:
        """Carry out one operation and answer what it did.

        Raises Problem: 404 for a pid that lives no more, 409 after a panic, a bug or a cancellation, 412 for a stale writer, 422 for too much
        work, 503 when too many wait.
        """
        op = self._limited(op)
        pages = self._check_size(op)
        self.used = time.time()
        if self.turn.free and not self._leaves_loop(op, pages):
            self._require_ready(1, if_match)
            return self._at_once(op)
        async with self._begin(op, pages) as call:
            self._require_ready(1, if_match)
            try:
                return self._commit(await self._perform(op, call, pages > INLINE_PAGES))
            except LookupError as error:
                raise no_such_process(op.pid, error) from None

    def _leaves_loop(self, op: Op, pages: int) -> bool:
        """True for an operation that is carried out in a thread."""
        return pages > INLINE_PAGES or self._runs_programs(op) or self._is_long(op.op)

    def _require_ready(self, ops: int, if_match: str | None) -> None:
        """The state in which so many operations may be carried out. Raises 404, 409, 412."""
        self._require_running()
        self.require_match(if_match)
        self._require_room(ops)

    def _at_once(self, op: Op) -> dict[str, Any]:
        """A short operation while nobody has the turn: it begins and ends before anyone else can come, so it takes none."""
        try:
            outcome = self._timed(time.perf_counter_ns, op.op, lambda: carry_out(self.kernel, op))
        except Exception as error:
            if not _is_answer(error):
                raise self._broken(error) from error
            if isinstance(error, LookupError):
                raise no_such_process(op.pid, error) from None
            raise
        return self._commit(outcome)

    async def _perform(self, op: Op, call: Call, long: bool) -> Outcome:
        """One operation on the kernel, in a thread if it is long. Raises the call's refusal when it was cancelled: then nothing has happened."""
        runs = self._runs_programs(op)
        if not (long or runs or self._is_long(op.op)):
            return await self.run(op.op, lambda: carry_out(self.kernel, op))
        announced = runs and await self._announce(op)
        teller = self._teller() if announced else None
        watch, last_event = self._watcher(call), self.last_event
        try:
            outcome = await self.run(op.op, lambda: carry_out(self.kernel, op, teller, self.client, watch), True, call)
        except BaseException as error:
            cancelled = _was_cancelled(call, error)
            if cancelled:
                await self._undo_call()
            if announced:
                self._take_back(last_event)
            if not cancelled:
                raise
            raise call.refusal() from None
        return replace(outcome, announced=announced)

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
        self._told_early, self.last_event = None, last_event
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
        self.kept_event = min(self.kept_event, last_event)
        self.kept_seq = min(self.kept_seq, seq)

    async def _undo_call(self) -> None:
        """The kernel was abandoned in the midst of a call: build the one that it was before."""
        self.kernel = (await self.state_at(self.history.line, self.seq)).kernel

    async def state_at(self, line: int, seq: int) -> Rebuilt:
        """The state at an operation of a timeline, on a kernel of its own. Raises 409 where it cannot be built again."""
        found = await state_at(self.history, self.machine, self.seed, (line, seq), self.in_thread, self._threads.breathe)
        if found.broke is not None:
            raise Problem(409, "state-lost", f"the state at operation {seq} cannot be built again: {found.broke}", seq=self.seq)
        return found

    async def batch(self, ops: Sequence[Op], stop_on_error: bool, if_match: str | None = None) -> list[dict[str, Any]]:
        """Carry out operations in order; an operation that cannot be carried out answers a problem in its place.

        A batch that is cancelled ends before the operation that it was at.
        """
        ops = [self._limited(op) for op in ops]
        pages = sum(self._check_size(op) for op in ops)
        self.used = time.time()
        if pages > INLINE_PAGES:
            self._threads.require_room()
        async with self.calls.begin("batch", None, len(ops), "operations") as call:
            self._require_ready(len(ops), if_match)
            answers: list[dict[str, Any]] = []
            told = time.monotonic()
            size = INLINE_OPS if pages <= INLINE_PAGES else 1
            while len(answers) < len(ops):
                part = ops[len(answers) : len(answers) + size]
                if call.cancelled or await self._batch_part(part, stop_on_error, answers, call):
                    break
                if (now := time.monotonic()) >= told + TELL_S:
                    told = now
                    self._tell(call, len(answers), self.kernel.clock_ns)
                await asyncio.sleep(0)  # a long batch of short operations lets others be answered
            if call.cancelled and len(answers) < len(ops):
                call.stopped = True
                if not answers:
                    raise call.refusal()
            return answers

    async def _batch_part(self, ops: Sequence[Op], stop: bool, answers: list[dict[str, Any]], call: Call) -> bool:
        """Operations of a batch, as many as are done in a millisecond; True when the batch ends here. What was done before a bug is committed."""
        done: list[Outcome | Problem] = []
        long = sum(accesses(op) for op in ops) > INLINE_PAGES or any(map(self._runs_programs, ops))
        watch = self._watcher(call) if long else None

        def work() -> None:
            end = time.perf_counter_ns() + SLOW_NS
            for op in ops:
                done.append(self._attempt(op, watch))
                if (stop and _failed(done[-1])) or time.perf_counter_ns() > end:
                    return

        try:
            await self.run(f"batch {ops[0].op}", work, long, call)
        except BaseException as error:
            self._commit_all(done, answers)
            if not _was_cancelled(call, error):
                raise
            await self._undo_call()
            return True
        self._commit_all(done, answers)
        return stop and _failed(done[-1])

    def _commit_all(self, done: Sequence[Outcome | Problem], answers: list[dict[str, Any]]) -> None:
        answers += [item.document() if isinstance(item, Problem) else self._commit(item) for item in done]

    def _attempt(self, op: Op, watch: Callable[[int], None] | None) -> Outcome | Problem:
        try:
            self._require_running()
            return carry_out(self.kernel, op, client=self.client, watch=watch)
        except Problem as problem:
            return problem
        except FsError as error:
            return Problem(422, "refused", str(error), errno=error.errno)
        except (KeyError, IndexError):
            raise
        except LookupError as error:
            return no_such_process(op.pid, error)

    async def transaction(self, ops: Sequence[Op], if_match: str | None = None) -> list[dict[str, Any]]:
        """Carry out all operations or none: when one answers an errno the kernel is put back and a Problem with `index` is raised."""
        self.used = time.time()
        async with self.calls.begin("transaction", None, len(ops), "operations"):
            self._require_ready(len(ops), if_match)
            before = await self.run("snapshot", lambda: self.kernel.snapshot(), True) if len(ops) > 1 else None
            done: list[Outcome] = []
            for index, op in enumerate(ops):
                refusal = await self._transact(op, done)
                if refusal is not None:
                    refusal.extra["index"] = index
                    await self._undo(before, done)
                    raise refusal
            return [self._commit(outcome) for outcome in done]

    async def _undo(self, before: bytes | None, done: Sequence[Outcome]) -> None:
        """Put the kernel back; a single operation that it refused changed nothing, and is kept as what it is: a call with an errno."""
        if before is not None:
            self.kernel = await self.run("restore", lambda: Kernel.restore(before), True)
            return
        for outcome in done:
            self._commit(outcome)

    async def _transact(self, op: Op, done: list[Outcome]) -> Problem | None:
        try:
            outcome = await self.run(op.op, lambda: carry_out(self.kernel, op, client=self.client))
        except FsError as error:
            return Problem(422, "refused", str(error), errno=error.errno)
        except LookupError as error:
            return no_such_process(op.pid, error)
        done.append(outcome)
        errno = outcome.result.errno
        return None if errno is None else Problem(422, "refused", f"{op.args.get('path', op.op)}: {errno}", errno=errno)

    # ---- a program that is the policy

    async def attach(self, client: PolicyClient, fallback: str) -> None:
        """Let a program choose the pages that reclaim takes. Raises 409 when there is one already."""
        async with self.turn:
            self._require_running()
            self._require_room(1)
            if self.client is not None:
                raise Problem(409, "policy-taken", "another program is this session's policy already")
            kernel = self.kernel
            blob = await self.run("snapshot", lambda: kernel.snapshot(), True)
            client.start, client.idle = (self.seq, blob), self._threads.idle
            self._commit(await self.run("reclaim_policy", lambda: carry_out(kernel, policy_op("client", fallback)), True))
            self.client = client

    async def detach(self, client: PolicyClient, fallback: str) -> None:
        """The program has left: the fallback is the policy."""
        async with self.turn:
            if self.client is not client:
                return
            self.client = None
            if not self.closed and self.frozen is None and self.kernel.panicked is None:
                self._commit(await self.run("reclaim_policy", lambda: carry_out(self.kernel, policy_op(fallback, fallback)), True))

    async def policy_score(self, client: PolicyClient) -> dict[str, Any]:
        """The program beside the built-in policies, on the operations since it took over."""
        async with self.turn:
            self.require_sound()
            ops = [entry.op for entry in await self.history.committed(client.start[0])]
            return await self.run("score", lambda: score(client, self.kernel, ops), True)

    # ---- what is kept

    def _keep_soon(self) -> None:
        """Keep a snapshot when it would take long to play again what came after the last one."""
        due = self.seq - self.kept_seq >= self.settings.snapshot_every or self.replay_ns > self.settings.snapshot_replay
        if due and self._keeping is None and self.frozen is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep_in_turn(), context=contextvars.Context())

    async def _keep_in_turn(self) -> None:
        try:
            async with self.turn:
                if not self.closed and self.frozen is None:
                    await self.keep()
        except Problem:
            pass  # later
        finally:
            self._keeping = None

    async def keep(self, always: bool = False) -> int:
        """Stage a snapshot, and the events since the last one; its size. Within the turn."""
        kernel, seq, last, line, lease = self.kernel, self.seq, self.last_event, self.history.line, self.history.lease
        if seq == self.kept_seq and last == self.kept_event and not always:
            return 0
        await self.history.settled(at_once=True)  # then the ring has its events
        fresh = self.ring.after(self.kept_event, self.settings.event_retention)
        blob, data = await self.run("keep", lambda: (kernel.snapshot(), pack(fresh) if fresh else b""), True)
        kept, oldest = Snapshot(line, seq, last, blob), last - self.settings.event_retention

        def work(conn: Connection) -> None:
            history.keep(conn, lease, kept)
            if fresh:
                history.keep_events(conn, line, fresh[0].id, last, data)
                history.drop_events(conn, line, oldest)
            history.prune(conn, line, SNAPSHOTS)

        self.history.work(work)
        self.kept_seq, self.kept_event, self.replay_ns = seq, last, 0
        return len(blob)

    @property
    def behind_ns(self) -> int:
        """About how long it would take to play again what no snapshot has; 0 when there is nothing, or nothing that can be kept."""
        if self.frozen is not None or self.closed or not self.turn.free or (self.seq, self.last_event) == (self.kept_seq, self.kept_event):
            return 0
        return self.replay_ns + 1

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

    async def archive(self) -> bytes:
        """A tar of the text files of /proc and /sys as they are now; the same state gives the same bytes."""
        return await self.read("archive", write_archive, True)


def hash_of(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


def policy_op(policy: str, fallback: str) -> Op:
    """The operation that changes the policy."""
    return Op("reclaim_policy", None, {"policy": policy, "fallback": fallback})


def no_such_process(pid: int | None, error: LookupError) -> Problem:
    """The 404 for a pid that names no living process."""
    return Problem(404, "no-such-process", str(error.args[0]) if error.args else f"there is no process {pid}", errno="ESRCH")


def _was_cancelled(call: Call, error: BaseException) -> bool:
    """True where work ended because its call was cancelled, whatever the kernel said to that on its way out."""
    return call.cancelled and isinstance(error, Exception | Abandoned)


def _failed(item: Outcome | Problem) -> bool:
    return isinstance(item, Problem) or item.result.errno is not None or item.result.signal is not None


def write_archive(kernel: Kernel) -> bytes:
    """The text files of the kernel's tree as an uncompressed tar, dated at the epoch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, data in kernel.archive():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.mode, member.size = kernel.stat(path)["mode"] & 0o7777, len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
