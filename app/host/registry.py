"""All the sessions of a service: create, find, list, destroy; those that nobody uses leave memory, and expire.

A session that is not in memory is a row in the catalogue; the next request for it takes its lease and builds its kernel again. A session in memory
leaves it when nobody used it for `hibernate_after`, or, the one that was used longest ago first, when the kernels outgrow `live_memory`.
"""

import asyncio
import base64
import logging
import math
import resource
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from app.errors import Problem
from app.host.exchange import CURRENT
from app.host.history import History, boot_body, nobody
from app.host.instance import Instance, claim
from app.host.meter import Meter
from app.host.places import Places
from app.host.rebuild import Rebuilt, ring_entries, state_at
from app.host.session import Named, Session, hash_of
from app.host.turns import Threads
from app.logs import logger
from app.settings import Settings
from app.storage import Entry, Held, Lease, NoSuchSession, Record, StorageError, Writer, catalogue, history, open_store, replies
from core import Kernel, Machine

T = TypeVar("T")
log = logger("pagewalk.sessions")
SWEEP_S: Final = 5.0
LEASE_S: Final = 20.0
SPREAD_S: Final = 3.0  # over which sessions leave memory
PAUSE_S: Final = 0.03  # at most, between two that leave
FEW, MANY = 50, 8  # of so many that have to leave one leaves at a time; so many at most
KEEP_S: Final = 2.0  # for snapshots at the end
REPLIES_S: Final = 24 * 3600.0
PLAYED_AGAIN_NS: Final = 5_000_000  # what is played again as fast leaves memory without a snapshot


@dataclass(frozen=True, slots=True)
class Whose:
    """Whom a new session belongs to, in which course, and whether that one has a share."""

    owner: str | None = None
    course: str | None = None
    limited: bool = False


NOBODY: Final = Whose()


class Registry:
    """The sessions of this process, by id; `start` opens the database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.open = settings.open
        self.draining = False
        self.places: Places | None = None
        self.meter = Meter()
        self.total = 0  # sessions in the database, as last counted
        self.writer: Writer
        self._cancelling: set[asyncio.Task[bool]] = set()
        self._live: dict[str, Session] = {}
        self._moving: dict[str, asyncio.Future[None]] = {}  # sessions on their way in or out of memory
        self.threads = Threads(settings.kernel_threads, settings.max_long_calls, settings.max_waiting)
        self.instance, self.holder = "", ""  # who this is, to the leases: `start` or `join` say it
        self._name: Instance | None = None
        self._baseline = 0

    # ---- life

    async def start(self) -> None:
        """Open the database. An earlier process of this instance is dead, so its leases are void; of workers the supervisor knows who lives."""
        store = await asyncio.to_thread(open_store, self.settings.database_url, self.settings.durability)
        self.writer = Writer(store.database)
        if self.places is None:
            await self._take_name()
        self.total = await self.writer.read(catalogue.count)
        self._baseline = resident()

    async def _take_name(self) -> None:
        self._name = name = await asyncio.to_thread(claim, self.settings)
        self.instance, self.holder = name.name, f"{name.name}/{secrets.token_hex(4)}"
        for dead in name.dead:
            await self.writer.write(partial(catalogue.void, holder=dead))

    async def stop(self) -> None:
        """Keep snapshots, store what is staged, give the leases back, close the database."""
        await self._keep_all(time.monotonic() + KEEP_S)
        for session in list(self._live.values()):
            try:
                await session.history.settled(at_once=True)
            except Problem:
                continue
        leases = [session.history.lease for session in self._live.values()]
        used = {session.id: session.used for session in self._live.values()}
        try:
            await self.writer.write(lambda conn: catalogue.give_back(conn, used, leases))
        except StorageError as error:  # they run out by themselves
            log.error("leases could not be given back", error=str(error))
        self._live.clear()
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self.writer.database.close)
        if self._name is not None:
            self._name.leave()

    async def _keep_all(self, deadline: float) -> None:
        """Snapshots of what would take longest to play again, as many as there is time for: the next start wakes sessions faster."""
        for session in sorted(self._live.values(), key=lambda session: session.keeper.behind_ns(session), reverse=True):
            if time.monotonic() > deadline or not session.keeper.behind_ns(session):
                return
            try:
                async with session.turn:
                    await session.keeper.keep(session)
            except (Problem, StorageError):
                continue

    def close(self) -> None:
        """Let the threads go."""
        self.threads.close()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._live.values()))

    # ---- one of several workers


    def join(self, life: str, places: Places) -> None:
        """This process is one of several workers: a new session gets an id by which the others find it here."""
        assert self.settings.instance is not None, "the supervisor names the service"
        self.places, self.instance, self.holder = places, self.settings.instance, f"{self.settings.instance}/{life}"

    def new_id(self) -> str:
        """An id for a new session."""
        while True:
            found = f"s_{secrets.token_urlsafe(16)}"
            if self.places is None or self.places.mine(found):
                return found

    def here(self, sid: str) -> bool:
        """True for a session that lives in this process."""
        return sid in self._live

    async def settle(self, sid: str) -> str | None:
        """The seat of the worker that has a session; None when it may live here. It is woken by the request itself, once its caller may."""
        if not _is_id(sid) or sid in self._moving:
            return None
        now = self.writer.database.dialect.now
        try:
            holder = await self.writer.read(lambda conn: catalogue.holder(conn, sid, now))
        except StorageError:
            return None  # the request itself meets the same, and says so
        if holder is None or holder == self.holder or not holder.startswith(f"{self.instance}/") or self._is_dead(holder):
            return None
        return holder.rpartition("/")[2].rpartition("-")[0]

    # ---- finding

    def live(self, sid: str) -> Session:
        """The session of an id, if it is in memory. Raises KeyError."""
        return self._live[sid]

    async def find(self, sid: str) -> Session:
        """The session of an id, for the request under way: it stays in memory as long. Raises a 404."""
        session = self._live.get(sid)
        if session is None or sid in self._moving:
            try:
                session = await self._bring(sid)
            except NoSuchSession:
                raise self.no_such_session(sid) from None
            except Held as held:
                raise _elsewhere(held) from None
        if (exchange := CURRENT.get()) is not None:
            exchange.uses(session)
            exchange.touches(session.history)
        return session

    async def look_up(self, sid: str) -> Record:
        """What is stored of a session; that wakes nobody. Raises a 404."""
        try:
            if not _is_id(sid):
                raise NoSuchSession(sid)
            return await self.writer.read(lambda conn: catalogue.find(conn, sid))
        except NoSuchSession:
            raise self.no_such_session(sid) from None

    @staticmethod
    def no_such_session(sid: str) -> Problem:
        """The 404 for an id that names no session, or none that the caller may know of."""
        return Problem(404, "no-such-session", f"there is no session {sid[:60]!r}: POST /v1/sessions creates one")

    async def _bring(self, sid: str) -> Session:
        """A session that is, or comes, into memory. Raises NoSuchSession, Held."""
        session = self._live.get(sid)
        while session is None or sid in self._moving:
            moving = self._moving.get(sid)
            if moving is not None:
                await asyncio.shield(moving)
                session = self._live.get(sid)
            else:
                session = await self._wake(sid)
        return session

    async def _wake(self, sid: str) -> Session:
        """Bring a session into memory. Raises NoSuchSession, Held."""
        if not _is_id(sid):
            raise NoSuchSession(sid)
        moving = self._moving[sid] = asyncio.get_running_loop().create_future()
        try:
            session = await self._load(sid)
            self._live[sid] = session
            return session
        finally:
            del self._moving[sid]
            moving.set_result(None)

    async def _load(self, sid: str) -> Session:
        database, holder, retention = self.writer.database, self.holder, self.settings.event_retention
        try:
            lease = await self.writer.write(lambda conn: catalogue.acquire(conn, sid, holder, LEASE_S, database.dialect.now))
        except Held as held:
            if not self._is_dead(dead := held.holder):
                raise
            await self.writer.write(lambda conn: catalogue.void(conn, dead))
            lease = await self.writer.write(lambda conn: catalogue.acquire(conn, sid, holder, LEASE_S, database.dialect.now))
        record: Record = await self.writer.read(lambda conn: catalogue.find(conn, sid))
        machine = Machine.from_dict(orjson.loads(record.machine))
        stored = History(self.writer, lease, record.line)
        place = (record.line, record.seq)
        found = await state_at(stored, machine, record.seed, place, lambda work: self.threads.run(sid, work), self.threads.breathe)
        names, packed = await self.writer.read(lambda conn: (history.named(conn, sid), history.stored_events(conn, record.line)))
        session = self._built(record, machine, stored, found)
        session.ring.refill(ring_entries(packed, found, retention), found.last_event)
        session.names = {row["name"]: Named(**{field: row[field] for field in Named.__dataclass_fields__}) for row in names}
        return session

    def _is_dead(self, holder: str) -> bool:
        """True when that worker of this instance is gone for sure."""
        instance, _, life = holder.rpartition("/")
        return self.places is not None and instance == self.instance and self.places.is_dead(life)

    def _built(self, record: Record, machine: Machine, stored: History, found: Rebuilt) -> Session:
        record = replace(record, last_event=found.last_event, clock_ns=found.kernel.clock_ns)
        session = Session(record, machine, found.kernel, stored, self.settings, self.threads)
        session.keeper.event, session.keeper.seq = found.first - 1, found.events[0][0] - 1 if found.events else record.seq
        session.keeper.replay_ns = found.took_ns
        for seq, last, clock in found.unfinished:
            stored.work(lambda conn, seq=seq, last=last, clock=clock: history.finish(conn, record.line, seq, last, clock))  # type: ignore[misc]
        self._adopt(session)
        if found.broke is not None and session.frozen is None:
            session.freeze(found.broke)
            self.meter.frozen += 1
        if found.differs is not None and session.differs is None:
            session.differ(found.differs)
        return session

    def _adopt(self, session: Session) -> None:
        session.meter = self.meter
        session.history.lost = lambda: self._forget(session)

    def _forget(self, session: Session) -> None:
        """What a session did could not be stored: it is ahead of its journal, so it is built again when it is asked for."""
        if self._live.get(session.id) is session:
            del self._live[session.id]
        session.ring.close(restarting=True)

    # ---- creating

    async def create(
        self,
        machine: Mapping[str, Any],
        seed: int,
        name: str | None = None,
        lab: str | None = None,
        ttl_ns: int | None = None,
        whose: Whose = NOBODY,
    ) -> tuple[Session, str]:
        """Boot a kernel: the session and its token. Raises 422 for a machine that cannot be, 429 when there are too many sessions."""
        self.require_place()
        built = self._machine(machine)
        kernel = await self.in_thread(lambda: Kernel.boot(built, seed))
        events = kernel.drain()
        record, token = self._new(built, seed, name, lab, ttl_ns, whose)
        record = replace(record, last_event=len(events), clock_ns=kernel.clock_ns)
        boot = Entry(0, len(events), kernel.clock_ns, boot_body(built, seed))
        session = self._begin(record, built, kernel)
        database, holder = self.writer.database, self.holder

        def work(conn: Any) -> None:
            self._check_share(conn, whose)
            catalogue.create(conn, record, boot, holder, database.now(conn) + LEASE_S)

        session.history.work(work, lambda: session.ring.publish(0, events))
        return session, token

    async def clone(self, session: Session, name: str | None, ttl_ns: int | None, whose: Whose) -> tuple[Session, str]:
        """A second session in the same state, with its own id and token. Raises 429 when there are too many."""
        self.require_place()
        async with session.turn:
            session.require_sound()
            kernel = await session.run("clone", lambda: Kernel.restore(session.kernel.snapshot()), True)
            await session.history.settled(at_once=True)
            record, token = self._new(session.machine, session.seed, name or session.name, session.lab, ttl_ns, whose)
            record = replace(record, seq=session.seq, last_event=session.last_event, clock_ns=session.clock_ns, panicked=session.panicked)
            twin = self._begin(record, session.machine, kernel)
            twin.ring.refill(session.ring.entries(), session.ring.last)
            twin.keeper.seq, twin.keeper.event = session.keeper.seq, session.keeper.event
            line, seq, database, holder = session.history.line, session.seq, self.writer.database, self.holder

        def work(conn: Any) -> None:
            self._check_share(conn, whose)
            catalogue.create_row(conn, record, holder, database.now(conn) + LEASE_S)
            history.fork(conn, line, seq, record.line, record.id)

        twin.history.work(work)
        return twin, token

    def _new(self, machine: Machine, seed: int, name: str | None, lab: str | None, ttl_ns: int | None, whose: Whose) -> tuple[Record, str]:
        token, now = f"pw_s_{secrets.token_urlsafe(24)}", time.time()
        ttl = self.settings.session_ttl if ttl_ns is None else ttl_ns
        text = orjson.dumps(machine.to_dict()).decode()
        return Record(self.new_id(), whose.owner, whose.course, name, lab, text, seed, hash_of(token), ttl, now, now, secrets.randbits(62), 1), token

    def _begin(self, record: Record, machine: Machine, kernel: Kernel) -> Session:
        stored = History(self.writer, Lease(record.id, self.holder, 1), record.line)
        session = Session(record, machine, kernel, stored, self.settings, self.threads)
        self._adopt(session)
        self._live[session.id] = session
        self.meter.created += 1
        self.total += 1
        if (exchange := CURRENT.get()) is not None:
            exchange.uses(session)
        return session

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do work that belongs to no session off the event loop, beside the kernels. Raises 503 when there is no room for it."""
        self.threads.require_room()
        return await self.threads.run(self, work)

    def _machine(self, machine: Mapping[str, Any]) -> Machine:
        try:
            built = Machine.from_dict(dict(machine))
        except ValueError as error:
            raise Problem(422, "no-such-machine", str(error), errors=[{"detail": str(error), "pointer": "#/machine"}]) from None
        size = _footprint(built.to_dict())
        if size > self.settings.max_machine_memory:
            detail = f"the machine has {size} bytes of memory and swap; a session may have {self.settings.max_machine_memory}"
            raise Problem(422, "no-such-machine", detail, errors=[{"detail": detail, "pointer": "#/machine/memory"}])
        return built

    def require_place(self) -> None:
        """Raises 429 when there are as many sessions as there may be."""
        if self.total >= self.settings.max_sessions:
            detail = f"the service holds {self.settings.max_sessions} sessions, its limit: delete one, or wait until one expires"
            raise Problem(429, "too-many-sessions", detail, {"Retry-After": "60"})

    def _check_share(self, conn: Any, whose: Whose) -> None:
        """Raises 429 when a subject has as many sessions as one may have."""
        limit = self.settings.max_sessions_per_owner
        if not whose.limited or whose.owner is None:
            return
        self.writer.database.dialect.alone(conn, whose.owner)  # another worker may be creating one for him, too
        if catalogue.count(conn, whose.owner) >= limit:
            detail = f"{whose.owner[:60]} has {limit} sessions, which is what one may have: delete one, or wait until one expires"
            raise Problem(429, "quota-exceeded", detail, {"Retry-After": "60"})

    # ---- listing, destroying

    def _let_go(self, session: Session) -> None:
        """Keep no session in memory, and no circle of references that would keep its kernel there until the next collection of garbage."""
        self._live.pop(session.id, None)
        session.history.lost = nobody

    async def destroy(self, session: Session) -> None:
        """Forget a session; its streams end."""
        self._let_go(session)
        self.total -= 1
        await session.close()
        sid = session.id  # the writer keeps the function for a while, and would keep the session
        session.history.work(lambda conn: history.remove(conn, sid))

    async def page(self, size: int, token: str | None, of: catalogue.Part | None) -> tuple[list[Record], str | None]:
        """Sessions in order of creation, whichever worker has them, and the token of the next page. Raises a 422 for a token that is none of ours."""
        after = None if token is None else _decode(token)
        found = await self.writer.read(partial(catalogue.page, size=size + 1, after=after, part=of))
        part = [self._live[row.id].record() if row.id in self._live else row for row in found[:size]]
        return part, _encode(found[size - 1]) if len(found) > size else None

    async def in_course(self, course: str) -> bool:
        """True when a course has sessions."""
        return await self.writer.read(lambda conn: catalogue.in_course(conn, course))

    # ---- leaving memory

    async def sweep(self) -> None:
        """Renew leases, let sessions leave memory and expire, for ever."""
        more = False
        while True:
            await asyncio.sleep(PAUSE_S if more else SWEEP_S)
            try:
                more = await self.tend(time.time())
            except StorageError as error:
                log.warning("the database did not do what the sweep wanted; it is tried again", error=str(error))
            except Exception:
                logging.getLogger("pagewalk.storage").exception("the sweep failed; it is tried again")

    async def tend(self, now: float) -> bool:
        """One round of the sweep; True when there was more to do than it had time for."""
        holder, dialect = self.holder, self.writer.database.dialect
        mine = await self.writer.write(lambda conn: catalogue.renew(conn, holder, LEASE_S, dialect.now))
        for session in self:
            if session.id not in mine and session.history.idle and session.id not in self._moving:
                self._forget(session)
        await self.expire(now)
        more = await self.make_room(now)
        self.total = await self.writer.read(catalogue.count)
        await self.writer.write(lambda conn: replies.prune(conn, now - REPLIES_S))
        return more

    async def expire(self, now: float) -> None:
        """Destroy every session whose time has come."""
        for session in self:
            if session.users == 0 and session.streams == 0 and now - session.used > session.ttl_ns / 10**9:
                await self.destroy(session)
        gone: list[str] = await self.writer.read(lambda conn: catalogue.expired(conn, now))
        if gone:
            await self.writer.write(lambda conn: [history.remove(conn, sid) for sid in gone])

    async def make_room(self, now: float) -> bool:
        """Let sessions leave memory: those that nobody used for long, and as many more as the budget wants. True when there was no time for all.

        They leave one by one, spread over the time until the next sweep: to put a kernel away costs the event loop some milliseconds, and a
        hundred of them in a row would be felt by whoever comes meanwhile. When many have to leave, some leave at a time, and share a commit.
        """
        idle = sorted((session for session in self if self._may_leave(session)), key=lambda session: session.used)
        taken = resident() - self._baseline
        most = math.ceil(max(taken - self.settings.live_memory, 0) / max(taken, 1) * len(self._live))
        after, end = self.settings.hibernate_after / 10**9, time.monotonic() + SWEEP_S
        leaving = [session for number, session in enumerate(idle) if number < most or now - session.used > after]
        step = min(1 + len(leaving) // FEW, MANY)
        for at in range(0, len(leaving), step):
            if time.monotonic() > end:
                return True
            await asyncio.gather(*map(self.hibernate, leaving[at : at + step]))
            await asyncio.sleep(min(SPREAD_S * step / len(leaving), PAUSE_S))
        return False

    def _may_leave(self, session: Session) -> bool:
        return not session.users and not session.streams and session.client is None and not session.calls.under_way and session.id not in self._moving

    async def hibernate(self, session: Session) -> bool:
        """Let a session leave memory, with a snapshot to come back from. False when somebody began to use it."""
        if not self._may_leave(session) or self._live.get(session.id) is not session:
            return False
        moving = self._moving[session.id] = asyncio.get_running_loop().create_future()
        try:
            async with session.turn:
                if session.frozen is None and session.keeper.replay_ns > PLAYED_AGAIN_NS:
                    await session.keeper.keep(session)
                lease, used = session.history.lease, {session.id: session.used}
                session.history.work(lambda conn: catalogue.give_back(conn, used, [lease]))
                await session.history.settled(at_once=True)
                session.closed = True
                self._let_go(session)
            return True
        except Problem:
            return False
        finally:
            del self._moving[session.id]
            moving.set_result(None)

    @property
    def store(self) -> Writer | None:
        """What commits the journals; None before the service has started."""
        return getattr(self, "writer", None)

    def gauges(self) -> dict[str, float]:
        """How things stand, for those who watch the service."""
        return {
            "sessions": self.total,
            "sessions_live": len(self._live),
            "waiting": self.threads.waiting,
            "long_calls": self.threads.under_way,
            "journal_waiting": self.writer.waiting,
            "journal_lag_seconds": self.writer.lag_s,
            "draining": int(self.draining),
        }

    def drain(self) -> None:
        """Begin to shut down: no new work, and every stream ends."""
        self.draining = True
        for session in self:
            session.ring.close(restarting=True)

    async def goodbyes(self, seconds: float) -> None:
        """Wait until every stream is closed, for so long at most."""
        for _ in range(int(seconds * 100)):
            if not self.meter.readers:
                return
            await asyncio.sleep(0.01)

    def abandon(self) -> None:
        """Cancel every long call: nothing of it has happened."""
        for session in self:
            for call in list(session.calls.under_way.values()):
                task = asyncio.get_running_loop().create_task(call.cancel())
                self._cancelling.add(task)
                task.add_done_callback(self._cancelling.discard)


def _is_id(sid: str) -> bool:
    """True for what a database may be asked for."""
    return len(sid) <= 100 and sid.isascii() and "\0" not in sid


def _elsewhere(held: Held) -> Problem:
    retry = str(max(1, round(held.until - held.now)))
    return Problem(503, "session-elsewhere", "another worker has this session: it is free soon", {"Retry-After": retry})


def resident() -> int:
    """Bytes of memory that this process occupies."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _encode(record: Record) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([record.created, record.id])).decode()


def _decode(token: str) -> tuple[float, str]:
    try:
        created, sid = orjson.loads(base64.urlsafe_b64decode(token.encode()))
        return float(created), str(sid)
    except (ValueError, TypeError):
        raise Problem(422, "malformed-request", "page_token: it is no token of this list: start again without", errors=[]) from None


def _footprint(machine: Mapping[str, Any]) -> int:
    """Bytes of RAM and swap of a machine's description."""
    memory = machine.get("memory", 0)
    swap = machine.get("swap", 0)
    ram = sum(memory) if isinstance(memory, list) else int(memory)
    return ram + (sum(int(device["size"]) for device in swap) if isinstance(swap, list) else int(swap))
