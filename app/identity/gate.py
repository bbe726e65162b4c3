"""Who sends a request: from the secret that it carries to a caller, quickly.

A verified secret is remembered under its hash for a few seconds, so that the hot routes cost one SHA-256 and one look-up. What is remembered
is forgotten at once when this process changes a token, a course or a member, and within POLL_S when another process did: the
store counts its changes, and every process looks at that number. A store that does not answer makes the gate forget everything, so nobody
passes on the strength of a memory that cannot be checked. Streams stay open for long, so their callers are looked at again after each change.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qs

import orjson
from starlette.types import Scope

from app.errors import Problem
from app.identity import tokens
from app.identity.buckets import Bucket
from app.identity.roles import ANYONE, OPEN, Caller, Person, higher
from app.schemas.names import EVERYWHERE, OPERATOR
from app.settings import Settings
from app.storage import StorageError
from app.storage.identity import IdentityStore, Standing

BEARER_PROTOCOL: Final = "base64url.bearer.authorization.pagewalk."
POLL_S: Final = 0.5
REMEMBER_S: Final = 5.0
MOST_REMEMBERED: Final = 20_000
NOTE_USE_S: Final = 30.0
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="pagewalk"'}
CHALLENGE_DAV: Final = {"WWW-Authenticate": 'Bearer realm="pagewalk", Basic realm="pagewalk", charset="UTF-8"'}
DAV_METHODS: Final = frozenset({"OPTIONS", "PROPFIND", "PROPPATCH", "MKCOL", "PUT", "DELETE", "COPY", "MOVE", "LOCK", "UNLOCK"})
log = logging.getLogger("pagewalk.identity")

Loss = Literal["revoked", "expired", "changed"]
LOST: Final[Mapping[Loss, str]] = {
    "revoked": "the token was revoked",
    "expired": "the token has run out",
    "changed": "what the caller may do has changed",
}


class Verifier(Protocol):
    """Makes a person of a JSON Web Token. Raises ValueError in words for the log, a 503 Problem while it cannot know."""

    async def person(self, token: str) -> Person: ...


class Watch:
    """An open stream whose caller may lose his right to it.

    Attributes
    ----------
    loss : str or None
        Why he has lost it.
    ended : asyncio.Event
        Set then.
    then : callable or None
        Called then.
    """

    def __init__(self, caller: Caller, unsure: bool) -> None:
        self.caller, self.unsure = caller, unsure
        self.loss: Loss | None = None
        self.ended = asyncio.Event()
        self.then: Callable[[], object] | None = None

    def end(self, loss: Loss) -> None:
        """The stream is to end."""
        if self.loss is None:
            self.loss = loss
            self.ended.set()
            if self.then is not None:
                self.then()

    @property
    def reason(self) -> str:
        """The loss in words."""
        return LOST[self.loss or "revoked"]

    def refusal(self) -> Problem:
        """The 401 for a request that waited too long."""
        return unauthorized(f"{self.reason} while this request waited")


def unauthorized(detail: str, scope: Scope | None = None) -> Problem:
    """A 401."""
    dav = scope is not None and scope.get("method") in DAV_METHODS and "/fs/" in scope["path"]
    return Problem(401, "unauthorized", detail, CHALLENGE_DAV if dav else CHALLENGE)


def presented(scope: Scope) -> bytes | None:
    """The secret that a request carries in its headers: bearer, a WebDAV client's password, or a browser's subprotocol; b"" for what is none."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, rest = value.partition(b" ")
            kind = kind.lower()
            if kind == b"bearer":
                return bytes(rest.strip())
            return _password(rest) if kind == b"basic" else b""
    return _subprotocol(scope) if scope["type"] == "websocket" else None


def _password(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _subprotocol(scope: Scope) -> bytes | None:
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(BEARER_PROTOCOL):
            text = protocol.removeprefix(BEARER_PROTOCOL)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except (binascii.Error, ValueError):
                return b""
    return None


class Gate:
    """The callers of one process; `store` is there once the service has started."""

    store: IdentityStore

    def __init__(self, settings: Settings, verifier: Verifier | None = None) -> None:
        self.settings, self.verifier = settings, verifier
        self.open = settings.open
        self.quota = None if settings.open or settings.rate_limit is None else Bucket("caller", settings.rate_limit)
        self.epoch = 0  # grows when everybody is forgotten
        self._known: dict[bytes, tuple[float, Caller | None]] = {}
        self._used: dict[str, float] = {}
        self._generation = -1
        self._watches: set[Watch] = set()
        self._operator = b"" if settings.token is None else tokens.digest(settings.token.get_secret_value())

    # ---- from a secret to a caller

    async def caller(self, scope: Scope, sid: str | None = None, stream: bool = False) -> Caller:
        """Who sends this request. Raises a 401 for a secret that is wrong, 429 and 503 as they come."""
        if self.open:
            return OPEN
        token = presented(scope)
        if token is None:
            return await self._from_address(scope, sid, stream) if scope["query_string"] else ANYONE
        hashed = tokens.digest(token)
        known = self._known.get(hashed)
        if known is not None and known[0] > time.monotonic():
            if known[1] is not None:
                return known[1]
            raise self._wrong(scope)
        return await self._verify(token, hashed, scope)

    def _wrong(self, scope: Scope) -> Problem:
        return unauthorized("this token is not known here, has run out or was revoked: send Authorization: Bearer <token>", scope)

    async def _from_address(self, scope: Scope, sid: str | None, stream: bool) -> Caller:
        """What a browser can only say in the address: an observer's link, or a ticket to open a stream."""
        if b"ticket=" not in scope["query_string"] and b"token=" not in scope["query_string"]:
            return ANYONE
        query = parse_qs(scope["query_string"].decode("latin-1"))
        ticket, token = query.get("ticket", [""])[0], query.get("token", [""])[0]
        if ticket and stream and sid is not None:
            return await self._take_ticket(ticket, sid, scope)
        if not token.startswith(tokens.OBSERVER):
            raise unauthorized("an address carries an observer's link or, for a stream, a ticket; any other token belongs in a header", scope)
        return await self._verify(token.encode(), tokens.digest(token), scope)

    async def _verify(self, token: bytes, hashed: bytes, scope: Scope) -> Caller:
        epoch = self.epoch
        try:
            caller = await self._look_up(token, hashed)
        except StorageError as error:
            log.error("the store of callers does not answer: %s", error)
            raise Problem(503, "no-database", "who may come in cannot be looked up just now: try again", {"Retry-After": "2"}) from None
        now = time.monotonic()
        until = now + REMEMBER_S if caller is None or caller.expires is None else now + min(REMEMBER_S, caller.expires - time.time())
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        if epoch == self.epoch:  # else what was looked up may be old already
            self._known[hashed] = until, caller
        if caller is None:
            raise self._wrong(scope)
        return caller

    async def _look_up(self, token: bytes, hashed: bytes) -> Caller | None:
        if hashed == self._operator:
            return Caller("operator", OPERATOR, admin=True)
        text = token.decode("latin-1")
        if tokens.is_ours(text):
            if text.startswith(tokens.SESSION):
                return Caller(f"key:{hashed.hex()[:16]}", key="session", digest=hashed)
            standing = await self.store.standing(hashed)
            caller = None if standing is None else _of_token(standing)
            if caller is not None:
                self._used[caller.id] = time.time()
            return caller
        if self.verifier is not None and len(token) <= tokens.MAX_LENGTH and tokens.is_jwt(text):
            try:
                person = await self.verifier.person(text)
            except ValueError as error:
                log.info("a JSON Web Token was refused: %s", error)
                return None
            return await self._of_person(person)
        return None

    async def _of_person(self, person: Person) -> Caller:
        roles = (await self.store.roles([person.subject]))[person.subject]
        courses = {course.id for course in await self.store.courses()}
        return Caller(person.id, person.subject, expires=person.expires, **_standing(person.claimed, roles, courses))

    # ---- tickets

    async def make_ticket(self, caller: Caller, sid: str) -> str:
        """A ticket that opens one stream of a session with the caller's own rights, once."""
        ticket = tokens.make(tokens.TICKET)
        now = time.time()
        grant = orjson.dumps({**asdict(caller), "sid": sid, "digest": caller.digest.hex()}).decode()
        await self.store.add_ticket(tokens.digest(ticket), now + self.settings.ticket_seconds, grant, now)
        return ticket

    async def _take_ticket(self, ticket: str, sid: str, scope: Scope) -> Caller:
        grant = await self.store.take_ticket(tokens.digest(ticket), time.time()) if tokens.is_ours(ticket) else None
        found: dict[str, Any] = orjson.loads(grant) if grant is not None else {}
        if found.pop("sid", None) != sid:
            raise unauthorized(f"this ticket is not good: it opens one stream of its session, once, within {self.settings.ticket_seconds} s", scope)
        found["digest"] = bytes.fromhex(found["digest"])
        return Caller(**found)

    # ---- staying true

    def forget(self) -> None:
        """A token, a course or a member has changed here: remember nobody."""
        self._known.clear()
        self.epoch += 1

    async def run(self) -> None:
        """Follow the store's changes and note when tokens were used, for ever."""
        noted = time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._poll()
                if time.monotonic() - noted > NOTE_USE_S:
                    noted = time.monotonic()
                    await self.note_use()
            except Exception:
                self.forget()
                log.exception("the store of callers does not answer")

    async def _poll(self) -> None:
        """End the streams of those who may not read on: all are looked at after a change, else those who were let in during one."""
        generation = await self.store.generation()
        changed = generation != self._generation
        if changed:
            self.forget()
        await self._look_again([watch for watch in self._watches if changed or watch.unsure])
        self._generation = generation
        now = time.time()
        for watch in list(self._watches):
            if watch.caller.expires is not None and watch.caller.expires <= now:
                watch.end("expired")

    async def _look_again(self, watches: Collection[Watch]) -> None:
        if not watches:
            return
        standings = await self.store.standings({watch.caller.token for watch in watches if watch.caller.token is not None})
        people = {watch.caller.subject or "" for watch in watches if watch.caller.claimed is not None}
        roles = await self.store.roles(people) if people else {}
        courses = {course.id for course in await self.store.courses()} if people else set()
        for watch in watches:
            watch.unsure = False
            caller = watch.caller
            if caller.token is not None:
                standing = standings.get(caller.token)
                now = None if standing is None else _of_token(standing)
                if now is None:
                    expired = standing is not None and standing.token.revoked is None
                    watch.end("expired" if expired else "revoked")
                elif (now.admin, now.roles) != (caller.admin, caller.roles):
                    watch.end("changed")
            elif caller.claimed is not None:
                now_is = _standing(caller.claimed, roles[caller.subject or ""], courses)
                if (now_is["admin"], now_is["roles"]) != (caller.admin, caller.roles):
                    watch.end("changed")

    async def note_use(self) -> None:
        """Write down when tokens were last used."""
        used, self._used = self._used, {}
        if used:
            await self.store.used(used)

    @contextlib.contextmanager
    def watch(self, caller: Caller, epoch: int) -> Iterator[Watch]:
        """While a stream is open: it ends when its caller's token is revoked or runs out, or his roles change.

        `epoch` is the gate's when the caller was let in: if it has grown, he is looked at again soon.
        """
        watch = Watch(caller, unsure=epoch != self.epoch)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)


def _of_token(standing: Standing) -> Caller | None:
    """The caller who carries a token of the store; None when it is not good any more."""
    record = standing.token
    if record.revoked is not None or (record.expires is not None and record.expires <= time.time()):
        return None
    if record.session is not None:
        return Caller(record.id, key="observer", session=record.session, token=record.id, expires=record.expires)
    roles = dict(standing.roles)
    if record.course is not None:
        roles = {course: role for course, role in roles.items() if course == record.course}
    admin = roles.pop(EVERYWHERE, None) == "admin"
    return Caller(record.id, record.subject, admin, roles, course=record.course, token=record.id, expires=record.expires)


def _standing(claimed: Mapping[str, str], kept: Mapping[str, str], courses: Collection[str]) -> dict[str, Any]:
    """What a person is by what the provider says and by what is kept here: in each course that there is, the higher of both."""
    roles = {course: role for course, role in claimed.items() if course in courses or course == EVERYWHERE}
    for course, role in kept.items():
        roles[course] = higher(role, roles.get(course))
    admin = roles.pop(EVERYWHERE, None) == "admin"
    return {"admin": admin, "roles": roles, "claimed": dict(claimed)}
