"""Who sends a request: from the secret that it carries to a caller, quickly.

A verified secret is remembered under its hash for a few seconds, so that the hot routes cost one SHA-256 and one look-up. What is remembered
is forgotten at once when this process changes a token, a course or a member, and within POLL_S when another process did: the
store counts its changes, and every process looks at that number. A store that does not answer makes the gate forget everything, so nobody
passes on the strength of a memory that cannot be checked.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

import orjson
from starlette.types import Scope

from app.errors import Problem
from app.identity import tokens
from app.identity.buckets import Bucket
from app.identity.roles import ANYONE, EVERYWHERE, OPEN, OPERATOR, Caller
from app.settings import Settings
from app.storage.identity import IdentityStore, TokenRecord

BEARER_PROTOCOL: Final = "base64url.bearer.authorization.pagewalk."
POLL_S: Final = 0.5
REMEMBER_S: Final = 5.0
MOST_REMEMBERED: Final = 20_000
NOTE_USE_S: Final = 30.0
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="pagewalk"'}
CHALLENGE_DAV: Final = {"WWW-Authenticate": 'Bearer realm="pagewalk", Basic realm="pagewalk", charset="UTF-8"'}
DAV_METHODS: Final = frozenset({"OPTIONS", "PROPFIND", "PROPPATCH", "MKCOL", "PUT", "DELETE", "COPY", "MOVE", "LOCK", "UNLOCK"})
log = logging.getLogger("pagewalk.identity")


class Verifier(Protocol):
    """Makes a caller of a JSON Web Token. Raises ValueError in words for the log."""

    async def caller(self, token: str) -> Caller: ...


class Watch:
    """An open stream whose caller may lose his right to it."""

    def __init__(self, caller: Caller, sid: str) -> None:
        self.caller, self.sid = caller, sid
        self.ended = asyncio.Event()


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
    """The callers of one process."""

    def __init__(self, settings: Settings, store: IdentityStore, verifier: Verifier | None = None) -> None:
        self.settings, self.store, self.verifier = settings, store, verifier
        self.open = settings.open
        self.quota = None if settings.open or settings.rate_limit is None else Bucket("caller", settings.rate_limit)
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
        caller = await self._look_up(token, hashed)
        now = time.monotonic()
        until = now + REMEMBER_S if caller is None or caller.expires is None else now + min(REMEMBER_S, caller.expires - time.time())
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[hashed] = until, caller
        if caller is None:
            raise self._wrong(scope)
        return caller

    async def _look_up(self, token: bytes, hashed: bytes) -> Caller | None:
        if hashed == self._operator:
            return Caller("operator", OPERATOR, admin=True, digest=hashed)
        text = token.decode("latin-1")
        if tokens.is_ours(text):
            if text.startswith(tokens.SESSION):
                return Caller(f"key:{hashed.hex()[:16]}", key="session", digest=hashed)
            record = await self.store.token_of(hashed)
            return None if record is None else await self._of_record(record)
        if self.verifier is not None and len(token) <= tokens.MAX_LENGTH and tokens.is_jwt(text):
            try:
                return await self.verifier.caller(text)
            except ValueError as error:
                log.info("a JSON Web Token was refused: %s", error)
        return None

    async def _of_record(self, record: TokenRecord) -> Caller | None:
        now = time.time()
        if record.revoked is not None or (record.expires is not None and record.expires <= now):
            return None
        self._used[record.id] = now
        if record.session is not None:
            return Caller(record.id, key="observer", session=record.session, digest=record.digest, expires=record.expires)
        roles = dict(await self.store.roles(record.subject))
        if record.course is not None:
            roles = {course: role for course, role in roles.items() if course == record.course}
        admin = roles.pop(EVERYWHERE, None) == "admin"
        return Caller(record.id, record.subject, admin, roles, course=record.course, digest=record.digest, expires=record.expires)

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
        generation = await self.store.generation()
        if generation != self._generation:
            self._generation = generation
            self.forget()
            for watch in list(self._watches):
                if not await self._still_good(watch.caller):
                    watch.ended.set()
        now = time.time()
        for watch in self._watches:
            if watch.caller.expires is not None and watch.caller.expires <= now:
                watch.ended.set()

    async def note_use(self) -> None:
        """Write down when tokens were last used."""
        used, self._used = self._used, {}
        if used:
            await self.store.used(used)

    async def _still_good(self, caller: Caller) -> bool:
        record = await self.store.token_of(caller.digest)
        if record is None:  # the operator, a session's key: nothing of the store's to revoke
            return caller.id in ("operator", "anyone") or caller.key == "session"
        now = await self._of_record(record)
        return now is not None and (now.admin, dict(now.roles)) == (caller.admin, dict(caller.roles))

    @contextlib.contextmanager
    def watch(self, caller: Caller, sid: str) -> Iterator[Watch]:
        """While a stream is open: `ended` is set when its caller's token is revoked or runs out, or his roles change."""
        watch = Watch(caller, sid)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def watching(self) -> Sequence[Watch]:
        """The open streams."""
        return list(self._watches)
