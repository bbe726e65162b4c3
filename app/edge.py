"""The outermost layer: answers that are durable, bodies of a bounded size, retries that are safe, and headers that every answer carries.

No answer leaves before what it tells of is stored (`host.exchange`): the route has long been done then, and the kernel has gone on.

A POST with an Idempotency-Key is carried out once: its first answer is stored, in one transaction with what it did, and given again to the
same request of the same caller, by whatever worker and after whatever crash; the same key with another request is refused, and so is a second request
while the first is under way. What was never carried out (no token, stale, too large, busy) is not kept.
"""

import hashlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Problem
from app.host.exchange import CURRENT, Exchange
from app.host.registry import Registry
from app.identity.guard import SESSION
from app.storage import replies
from app.storage.replies import Reply

MAX_KEY: Final = 255
NOT_KEPT: Final = frozenset({401, 403, 412, 413, 429, 503})
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS: Final = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer")]


class Edge:
    """An ASGI layer around the whole app.

    Parameters
    ----------
    app : ASGIApp
        What is inside.
    registry : Registry
        The sessions.
    under_way : set
        Idempotency-Keys whose first request is under way; every such layer of the process has the same set.
    """

    def __init__(self, app: ASGIApp, registry: Registry, under_way: set[bytes]) -> None:
        self.app, self.registry, self._under_way = app, registry, under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        exchange = Exchange()
        before = CURRENT.set(exchange)
        try:
            if scope["type"] == "websocket":
                await self.app(scope, receive, send)
            else:
                await self._request(scope, receive, send, exchange)
        finally:
            exchange.over()
            scope.pop(SESSION, None)  # a connection that is kept open keeps its last request
            CURRENT.reset(before)

    async def _request(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        lost = False

        async def send_with_headers(message: Message) -> None:
            nonlocal lost
            if lost:
                return
            if message["type"] == "http.response.start":
                try:
                    await exchange.settled()
                except Problem as problem:
                    lost = True
                    exchange.stores.clear()
                    await problem.response(scope["path"])(scope, receive, send)
                    return
                have = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in HEADERS if pair[0] not in have)]
            await send(message)

        if scope["method"] in SAFE:
            await self.app(scope, receive, send_with_headers)
            return
        try:
            await self._write(scope, receive, send_with_headers, exchange)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, send_with_headers)
        except HTTPException as error:  # of `_bounded`, to an app that reads no body through the framework
            await Problem(error.status_code, "http", error.detail).response(scope["path"])(scope, receive, send_with_headers)

    async def _write(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        key, bounded, chunked = b"", False, False
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                if int(value) > self._limit(scope):
                    raise self._too_large(scope)
                bounded = True  # the server gives no more of it than that
            elif name == b"transfer-encoding":
                chunked = True
            elif name == b"idempotency-key":
                key = value
        if chunked or not bounded:
            receive = self._bounded(scope, receive)
        if key and scope["method"] == "POST":
            await self._once(key, scope, receive, send, exchange)
        else:
            await self.app(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        """Bytes that a request may have: a trace may have more than others."""
        return self.registry.settings.max_trace if scope["path"] == "/v1/replay" else self.registry.settings.max_body

    def _too_large(self, scope: Scope) -> Problem:
        limit = self._limit(scope)
        return Problem(413, "body-too-large", f"the body is larger than {limit} bytes, which is what one request may have: send it in parts")

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        limit, got = self._limit(scope), 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                if got > limit:
                    raise HTTPException(413, self._too_large(scope).detail)
            return message

        return counted

    async def _once(self, key: bytes, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        if len(key) > MAX_KEY or not key.isascii():
            raise Problem(422, "malformed-request", f"Idempotency-Key has at most {MAX_KEY} ASCII characters", errors=[])
        request = Request(scope, receive)
        try:
            body = await request.body()
        except HTTPException as error:
            raise Problem(error.status_code, "body-too-large", error.detail) from None
        caller = await scope["app"].state.gate.caller(scope)  # 401 for a token that was revoked since
        name = _digest(key, _session_of(scope["path"]), caller.id.encode(), caller.digest)
        fingerprint = _digest(scope["path"].encode(), scope.get("query_string", b""), body)
        if name in self._under_way:
            raise Problem(409, "still-under-way", "the first request with this Idempotency-Key is still under way: wait for its answer")
        self._under_way.add(name)
        try:
            kept = await self.registry.writer.read(lambda conn: replies.get(conn, name))
            if kept is not None:
                await _again(kept, fingerprint, send)
                return
            exchange.holds = True
            reply, messages = await self._capture(scope, body, fingerprint)
            if reply.status not in NOT_KEPT and reply.status:
                await self._keep(name, reply, exchange)
            exchange.release()
            for message in messages:
                await send(message)
        finally:
            self._under_way.discard(name)

    async def _keep(self, name: bytes, reply: Reply, exchange: Exchange) -> None:
        """Store an answer together with what was done; by itself when nothing was."""
        put = partial(replies.put, key=name, reply=reply, now=time.time())
        if exchange.held:
            for store in exchange.held[:1]:
                store.work(put)
            return
        await self.registry.writer.write(put)

    async def _capture(self, scope: Scope, body: bytes, fingerprint: bytes) -> tuple[Reply, Sequence[Message]]:
        """Carry the request out, but send nothing yet."""
        start: dict[str, Any] = {"status": 0, "headers": []}
        parts: list[bytes] = []
        sent: list[Message] = []
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def copy(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
            sent.append(message)

        await self.app(scope, replay, copy)
        return Reply(fingerprint, start["status"], tuple(start["headers"]), b"".join(parts)), sent


async def _again(kept: Reply, fingerprint: bytes, send: Send) -> None:
    if kept.fingerprint != fingerprint:
        raise Problem(422, "key-reused", "this Idempotency-Key was used with another request: a new request needs a new key")
    headers = [*kept.headers, (b"idempotent-replayed", b"true")]
    await send({"type": "http.response.start", "status": kept.status, "headers": headers})
    await send({"type": "http.response.body", "body": kept.body})


def _session_of(path: str) -> bytes:
    parts = path.split("/", 4)
    return parts[3].encode() if len(parts) > 3 and parts[1:3] == ["v1", "sessions"] else b""


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
