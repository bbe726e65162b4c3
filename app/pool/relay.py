"""The outermost layer of a worker: what is of a session at another worker is handed over, and what others hand over is carried out.

A request is handed over with its whole body, so that it can be offered to the next worker when the first is dead. Once it was handed over and the
worker died before it answered, nobody knows whether it was carried out: it is offered again if that does no harm (it reads, or has an
Idempotency-Key), else it is answered 502, which says so. A websocket whose worker died is closed with 1012: resume.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Problem
from app.host.places import Places
from app.pool.wire import LIMIT, Lost, Wire, carried

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
IDLE_WIRES: Final = 64  # kept open to each worker
MOVES: Final = 8
MOVED: Final = "moved"
MESSAGE: Final = "message"
READY: Final = "ready"
END: Final = "end"
COUNT: Final = "count"
COUNT_S: Final = 2.0
UNKNOWN: Final = "the worker died: the operation may have been carried out or not; read the session's seq before you try again"
RESUME: Final = "the worker of this session is gone: resume with after=<last id>"

logger = logging.getLogger(__name__)
Settle = Callable[[str], Awaitable[str | None]]
Count = Callable[[], dict[str, Any]]


def session_of(path: str, root: str = "") -> str | None:
    """The session that a path is about; the path may begin with the prefix `root`."""
    parts = inner(path, root).split("/", 4)
    return parts[3] if len(parts) > 3 and parts[1:3] == ["v1", "sessions"] and parts[3] else None


def inner(path: str, root: str) -> str:
    """A path without the prefix that a proxy may have left."""
    return path[len(root) :] if root and path.startswith(root + "/") else path


class ClientGone(OSError):
    """The client of a websocket has left, or the worker that it is connected to is dead."""


class Relay:
    """An ASGI layer around the whole app of one worker.

    Parameters
    ----------
    app : ASGIApp
        The service.
    places : Places
        Where sessions are.
    here : callable
        True for a session that lives in this process.
    settle : callable
        Makes a session live here, if it may: None, or the seat of the worker that has it.
    count : callable
        What this process counts.
    max_body : int
        Bytes of the largest body that is handed over.
    root : str
        The prefix that paths may begin with.
    """

    def __init__(self, app: ASGIApp, places: Places, here: Callable[[str], bool], settle: Settle, count: Count, max_body: int, root: str) -> None:
        self.app, self.places, self._here, self._settle, self._count = app, places, here, settle, count
        self._max_body, self._root = max_body, root
        self._idle: dict[str, list[Wire]] = {seat: [] for seat in places.seats}
        self._next = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of a client."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._listening(send))
            return
        path = inner(scope["path"], self._root)
        sid = session_of(path)
        if (sid is not None and self._here(sid)) or (sid is None and not (path == "/v1/sessions" and scope.get("method") == "POST")):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(sid or "", scope, receive, send)
        else:
            await self._http(sid, scope, receive, send)

    # ---- to others

    async def _http(self, sid: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._whole(receive)
        if isinstance(body, list):  # larger than may be: whoever is here says so
            await self.app(scope, _replay(body, receive), send)
            return
        key = next((value for name, value in scope["headers"] if name == b"idempotency-key"), None)
        again = scope["method"] in SAFE or key is not None
        try:
            await self._offer(sid, self._candidates(sid, key), scope, body, receive, send, again)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, send)

    def _candidates(self, sid: str | None, key: bytes | None) -> list[str]:
        """Whom to offer a request: those that a session may be at; for a new session each in its turn, but the same for the same key."""
        if sid is not None:
            return self.places.candidates(sid)
        if key is not None:
            return self.places.ranked(key.decode("latin-1"))
        seats = self.places.seats
        start = next(self._next) % len(seats)
        return [*seats[start:], *seats[:start]]

    async def _offer(self, sid: str | None, candidates: list[str], scope: Scope, body: bytes, receive: Receive, send: Send, again: bool) -> None:
        asked = list(candidates)
        for _ in range(MOVES):
            if not asked:
                break
            seat = asked.pop(0)
            if seat == self.places.seat:
                moved = await self._settle(sid) if sid is not None else None
                if moved is None:
                    await self.app(scope, _replay([{"type": "http.request", "body": body, "more_body": False}], receive), send)
                    return
            else:
                wire = await self._connect(seat)
                if wire is None:
                    continue
                moved = await self._exchange(wire, seat, scope, body, receive, send, again)
                if moved is None:
                    if sid is not None:
                        self.places.remember(sid, seat)
                    return
            if moved:
                asked = [moved, *(other for other in asked if other != moved)]
        raise Problem(503, "no-worker", "no worker takes this session just now: try again", {"Retry-After": "1"})

    async def _exchange(self, wire: Wire, seat: str, scope: Scope, body: bytes, receive: Receive, send: Send, again: bool) -> str | None:
        """One request on a wire: None when it was answered, the seat to ask when it has moved, "" when the worker died and another may be asked."""
        try:
            await wire.send((carried(scope), body))
            message = await wire.receive()
        except Lost:
            wire.close()
            if again:
                return ""
            raise Problem(502, "worker-lost", UNKNOWN) from None
        if message[0] == MOVED:
            self._keep(seat, wire)
            return str(message[1])
        await self._answer(wire, seat, message, receive, send)
        return None

    async def _answer(self, wire: Wire, seat: str, message: Any, receive: Receive, send: Send) -> None:
        """Pass an answer on. A client that leaves in the midst of a stream takes the wire with it, and so the other worker learns of it."""
        watch: asyncio.Task[None] | None = None
        try:
            while message[0] != END:
                await send(message[1])
                if watch is None and message[1].get("more_body"):
                    watch = asyncio.create_task(_until_gone(receive, wire))
                message = await wire.receive()
        except Lost:
            if watch is None or not watch.done():
                raise  # in the midst of an answer: the server breaks the connection off
            return
        finally:
            if watch is not None:
                watch.cancel()
            if message[0] != END:
                wire.close()
        self._keep(seat, wire)

    async def _websocket(self, sid: str, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.places.candidates(sid)
        for _ in range(MOVES):
            if not asked:
                break
            seat = asked.pop(0)
            if seat == self.places.seat:
                moved = await self._settle(sid)
                if moved is None:
                    await self.app(scope, receive, send)
                    return
            else:
                wire = await self._connect(seat)
                if wire is None:
                    continue
                moved = await self._talk(wire, scope, receive, send)
                if moved is None:
                    self.places.remember(sid, seat)
                    return
            if moved:
                asked = [moved, *(other for other in asked if other != moved)]
        await receive()  # websocket.connect
        await send({"type": "websocket.close", "code": 1012, "reason": RESUME})

    async def _talk(self, wire: Wire, scope: Scope, receive: Receive, send: Send) -> str | None:
        """A websocket on a wire of its own: None when it is over, else as `_exchange`."""
        try:
            await wire.send((carried(scope), None))
            message = await wire.receive()
        except Lost:
            wire.close()
            return ""
        if message[0] == MOVED:
            wire.close()
            return str(message[1])
        hear = asyncio.create_task(_pass_on(receive, wire))
        try:
            while message[0] != END:
                if message[0] != READY:
                    await send(message[1])
                message = await wire.receive()
        except Lost:
            if not hear.done():
                await send({"type": "websocket.close", "code": 1012, "reason": RESUME})
        finally:
            hear.cancel()
            wire.close()
        return None

    async def gather(self) -> list[dict[str, Any]]:
        """What all workers count; those that are dead, or too busy to say, count nothing."""
        others = (self._ask_count(seat) for seat in self.places.seats if seat != self.places.seat)
        return [self._count(), *(found for found in await asyncio.gather(*others) if found is not None)]

    async def _ask_count(self, seat: str) -> dict[str, Any] | None:
        wire = await self._connect(seat)
        if wire is None:
            return None
        try:
            async with asyncio.timeout(COUNT_S):
                await wire.send((COUNT, None))
                found: dict[str, Any] = await wire.receive()
        except (Lost, TimeoutError):
            wire.close()
            return None
        self._keep(seat, wire)
        return found

    async def _connect(self, seat: str) -> Wire | None:
        """A wire to a worker, None when it is dead."""
        idle = self._idle[seat]
        while idle:
            if not (wire := idle.pop()).dead:
                return wire
            wire.close()
        try:
            return Wire(*await asyncio.open_unix_connection(str(self.places.socket(seat)), limit=LIMIT))
        except OSError:
            return None

    def _keep(self, seat: str, wire: Wire) -> None:
        if len(self._idle[seat]) < IDLE_WIRES:
            self._idle[seat].append(wire)
        else:
            wire.close()

    async def _whole(self, receive: Receive) -> bytes | list[Message]:
        """A request's body; the messages so far when it is larger than may be, or its client is gone."""
        messages, size = [], 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if message["type"] != "http.request" or size > self._max_body:
                return messages
            if not message.get("more_body"):
                return b"".join(part.get("body", b"") for part in messages)

    # ---- from others

    def _listening(self, send: Send) -> Send:
        """The app's word that it has started: from then on others may hand something over, and not before, when it has no database yet."""

        async def send_on(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.listen()
            await send(message)

        return send_on

    async def listen(self) -> None:
        """Take what other workers hand over."""
        path = self.places.socket(self.places.seat)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(path), limit=LIMIT)

    async def close(self) -> None:
        """Take nothing more; what is under way may end."""
        if self._server is not None:
            self._server.close()
        self.places.leave()
        for wires in self._idle.values():
            while wires:
                wires.pop().close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        wire = Wire(reader, writer)
        try:
            body: bytes | None = b""
            while body is not None:  # after a websocket the other end may still have something to say
                scope, body = await wire.receive()
                if scope == COUNT:
                    body = b""
                    await wire.send(self._count())
                else:
                    await self._carry_out(wire, scope, body)
        except (Lost, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            wire.close()

    async def _carry_out(self, wire: Wire, scope: dict[str, Any], body: bytes | None) -> None:
        sid = session_of(scope["path"], self._root)
        moved = await self._settle(sid) if sid is not None and not self._here(sid) else None
        if moved is not None:
            await wire.send((MOVED, moved))
            return

        if body is None:
            await wire.send((READY,))
            hear = _from(wire)
            if (first := await hear())["type"] == "websocket.connect":  # else whoever handed it over is gone again
                await self._run(_whole_scope(scope, "2.4"), _replay([first], hear), _to(wire, quietly=False))
        else:
            receive = _replay([{"type": "http.request", "body": body, "more_body": False}], _gone(wire))
            await self._run(_whole_scope(scope, "2.3"), receive, _to(wire, quietly=True))
        await wire.send((END,))

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except ClientGone:
            pass
        except Exception:  # the app has answered 500 by then, if it could
            logger.exception("an answer to another worker broke off")


def _whole_scope(scope: dict[str, Any], version: str) -> Scope:
    """A scope that came from another worker, as a server of that version of the protocol would give it."""
    return {**scope, "asgi": {"version": "3.0", "spec_version": version}, "state": {}}


def _to(wire: Wire, quietly: bool) -> Send:
    """The app's messages onto the wire. When that is gone an answer goes nowhere, and a websocket is told so, as uvicorn does it."""

    async def send(message: Message) -> None:
        try:
            await wire.send((MESSAGE, _plain(message)))
        except Lost as error:
            if not quietly:
                raise ClientGone from error

    return send


def _plain(message: Message) -> dict[str, Any]:
    """A message without what only its own process understands."""
    if "headers" in message:
        return {**message, "headers": [(bytes(name), bytes(value)) for name, value in message["headers"]]}
    return dict(message)


def _replay(messages: list[Message], then: Receive) -> Receive:
    """What was received already, then the rest."""
    left = iter(messages)

    async def receive() -> Message:
        for message in left:
            return message
        return await then()

    return receive


def _gone(wire: Wire) -> Receive:
    """Nothing comes on this wire before the answer is complete, but its end."""

    async def receive() -> Message:
        try:
            await wire.receive()
        except Lost:
            pass
        return {"type": "http.disconnect"}

    return receive


def _from(wire: Wire) -> Receive:
    """A websocket's messages from the wire."""

    async def receive() -> Message:
        try:
            return dict(await wire.receive())
        except Lost:
            return {"type": "websocket.disconnect", "code": 1006}

    return receive


async def _pass_on(receive: Receive, wire: Wire) -> None:
    """A websocket's messages onto the wire, until it is closed."""
    try:
        while True:
            message = await receive()
            await wire.send(_plain(message))
            if message["type"] == "websocket.disconnect":
                return
    except Lost:
        await asyncio.get_running_loop().create_future()  # the other half finds out


async def _until_gone(receive: Receive, wire: Wire) -> None:
    """Close the wire when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    wire.close()
