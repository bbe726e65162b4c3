"""All the sessions of a service: create, find, list, destroy; those that nobody uses expire."""

import asyncio
import base64
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from app.errors import Problem
from app.host.meter import Meter
from app.host.places import Places
from app.host.session import Session
from app.host.turns import Threads
from app.settings import Settings
from app.storage.replies import MemoryReplies, Replies
from app.storage.writer import Writer
from core import Kernel, Machine

T = TypeVar("T")
SWEEP_S: Final = 30.0


class Registry:
    """The sessions that live in this process, by id, in order of creation."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.open = settings.open
        self.draining = False
        self.places: Places | None = None
        self.meter = Meter()
        self._cancelling: set[asyncio.Task[bool]] = set()
        self.replies: Replies = MemoryReplies()
        self._sessions: dict[str, Session] = {}
        self.threads = Threads(settings.kernel_threads, settings.max_long_calls, settings.max_waiting)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def find(self, sid: str) -> Session:
        """The session of an id. Raises a 404."""
        session = self._sessions.get(sid)
        if session is None:
            raise self.no_such_session(sid)
        return session

    @staticmethod
    def no_such_session(sid: str) -> Problem:
        """The 404 for an id that names no session, or none that the caller may know of."""
        return Problem(404, "no-such-session", f"there is no session {sid[:60]!r}: POST /v1/sessions creates one")

    def join(self, life: str, places: Places) -> None:
        """This process is one of several workers: a new session gets an id by which the others find it here."""
        self.places = places

    def new_id(self) -> str:
        """An id for a new session."""
        while True:
            found = f"s_{secrets.token_urlsafe(16)}"
            if self.places is None or self.places.mine(found):
                return found

    def here(self, sid: str) -> bool:
        """True for a session that lives in this process."""
        return sid in self._sessions

    async def settle(self, sid: str) -> str | None:
        """Make a session live here, if it may: None, or the seat of the worker that has it."""
        return None

    async def create(self, machine: Mapping[str, Any], seed: int) -> Session:
        """Boot a kernel. Raises 422 for a machine that cannot be, 429 when there are too many sessions."""
        self.require_place()
        built = self._machine(machine)
        kernel = await self.in_thread(lambda: Kernel.boot(built, seed))
        return self.add(Session(built, seed, kernel, self.settings, self.threads))

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

    def require_share(self, owner: str | None) -> None:
        """Raises 429 when a subject has as many sessions as one may have."""
        limit = self.settings.max_sessions_per_owner
        if owner is not None and sum(session.owner == owner for session in self._sessions.values()) >= limit:
            detail = f"{owner[:60]} has {limit} sessions, which is what one may have: delete one, or wait until one expires"
            raise Problem(429, "quota-exceeded", detail, {"Retry-After": "60"})

    def require_place(self) -> None:
        """Raises 429 when there are as many sessions as there may be."""
        if len(self._sessions) >= self.settings.max_sessions:
            detail = f"the service holds {self.settings.max_sessions} sessions, its limit: delete one, or wait until one expires"
            raise Problem(429, "too-many-sessions", detail, {"Retry-After": "60"})

    def add(self, session: Session) -> Session:
        """Take a session in. Raises 429 when there are too many."""
        self.require_place()
        session.id = self.new_id()
        self._sessions[session.id] = session
        session.meter = self.meter
        self.meter.created += 1
        return session

    async def destroy(self, session: Session) -> None:
        """Forget a session; its streams end."""
        self._sessions.pop(session.id, None)
        await session.close()

    def page(self, size: int, token: str | None, visible: Callable[[Session], bool]) -> tuple[list[Session], str | None]:
        """Sessions in order of creation, and the token of the next page. Raises a 422 for a token that is none of ours."""
        sessions = [session for session in self._sessions.values() if visible(session)]
        start = 0
        if token is not None:
            ids = [session.id for session in sessions]
            last = _decode(token)
            if last not in ids:
                raise Problem(
                    422,
                    "malformed-request",
                    "page_token: it is no token of this list, or its session is gone: start again without",
                    errors=[],
                )
            start = ids.index(last) + 1
        part = sessions[start : start + size]
        more = start + size < len(sessions)
        return part, base64.urlsafe_b64encode(part[-1].id.encode()).decode() if more else None

    async def sweep(self) -> None:
        """Destroy the sessions that nobody used for their time to live, for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.expire(time.time())

    async def expire(self, now: float) -> None:
        """Destroy every session whose time has come."""
        for session in self:
            if session.streams == 0 and now - session.used > session.ttl_ns / 10**9:
                await self.destroy(session)

    @property
    def store(self) -> Writer | None:
        """What commits the journals; None while they are in memory, where they are committed at once."""
        return getattr(self, "writer", None)

    def gauges(self) -> dict[str, float]:
        """How things stand, for those who watch the service."""
        return {
            "sessions": max(getattr(self, "total", 0), len(self._sessions)),
            "sessions_live": len(self._sessions),
            "waiting": self.threads.waiting,
            "long_calls": self.threads.under_way,
            "journal_waiting": 0 if self.store is None else self.store.waiting,
            "journal_lag_seconds": 0.0 if self.store is None else self.store.lag_s,
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

    def close(self) -> None:
        """Let the threads go."""
        self.threads.close()


def _decode(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        return ""


def _footprint(machine: Mapping[str, Any]) -> int:
    """Bytes of RAM and swap of a machine's description."""
    memory = machine.get("memory", 0)
    swap = machine.get("swap", 0)
    ram = sum(memory) if isinstance(memory, list) else int(memory)
    return ram + (sum(int(device["size"]) for device in swap) if isinstance(swap, list) else int(swap))
