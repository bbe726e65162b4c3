"""The events on a websocket: one JSON object a message, or with `batch` a JSON array of as many as there are, up to that number.

A client may change its filter: `{"type": "subscribe", "types": ["oom"], "pid": 101, "cgroup": "/app"}`. Anything else that it sends is
answered by closing with 4400 and the reason. What closes a stream:

    1000  the session is over          4401  the token is missing, wrong, revoked      4410  the cursor is no longer, or not yet, there
    1012  the service shuts down             or has run out, or its rights changed     4429  the reader takes nothing any more
    4400  the client's message is bad  4404  there is no such session
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.deps import PROTOCOL, offered_protocols
from app.errors import Problem, from_validation
from app.host.session import Session
from app.identity.gate import Watch
from app.stream.hub import Filter, Subscription, parse_types

CLOSE_OF: Final = {401: 4401, 403: 4403, 404: 4404, 410: 4410, 422: 4400, 429: 4429, 503: 1013}
REASON_BYTES: Final = 123
BAD_MESSAGE: Final = 'send {"type": "subscribe", "types": [...], "pid": n, "cgroup": "/path"} or nothing'


class Subscribe(BaseModel):
    """What a client may send: a new filter. Members left out hide nothing."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["subscribe"]
    types: list[StrictStr] | None = None
    pid: Annotated[int | None, Field(ge=1, strict=True)] = None
    cgroup: StrictStr | None = None


class _Refused(Exception):
    """The client sent what is no message."""


async def refuse(websocket: WebSocket, problem: Problem) -> None:
    """Refuse a handshake: by closing with a code for browsers, which cannot see a status, by a problem document for everyone else."""
    if PROTOCOL in offered_protocols(websocket):
        await websocket.accept(PROTOCOL)
        await websocket.close(CLOSE_OF.get(problem.status, 4400), _reason(problem.detail))
    else:
        await websocket.send_denial_response(problem.response(websocket.url.path))


def _reason(text: str) -> str:
    return text.encode()[:REASON_BYTES].decode(errors="ignore")


async def serve(websocket: WebSocket, subscription: Subscription, watch: Watch, batch: int | None = None) -> None:
    """Send events until the client leaves, the session ends, one of them misbehaves, or the client may not read them any more.

    `batch`: how many in a message, which is an array then.
    """
    session = subscription.session
    await websocket.accept(PROTOCOL if PROTOCOL in offered_protocols(websocket) else None)
    session.streams += 1
    session.meter.readers.add(subscription)
    sender = asyncio.create_task(_send(websocket, subscription, batch))
    receiver = asyncio.create_task(_receive(websocket, subscription))
    watch.then = sender.cancel
    if watch.loss is not None:
        sender.cancel()
    try:
        await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        session.streams -= 1
        for task in (sender, receiver):
            task.cancel()
        outcomes = await asyncio.gather(sender, receiver, return_exceptions=True)
    try:
        if watch.loss is not None:
            await close(websocket, 4401, watch.reason, session.settings.heartbeat)
        else:
            await _finish(websocket, session, outcomes)
    finally:
        session.meter.readers.discard(subscription)


async def _finish(websocket: WebSocket, session: Session, outcomes: Sequence[BaseException | None]) -> None:
    """Close as the first task that ended wants it."""
    timeout = session.settings.heartbeat
    for outcome in outcomes:
        if isinstance(outcome, WebSocketDisconnect):
            return
        if isinstance(outcome, _Refused):
            await close(websocket, 4400, str(outcome), timeout)
            return
        if isinstance(outcome, TimeoutError):
            session.meter.slow_readers += 1
            await close(websocket, 4429, "the reader took nothing any more: resume with after=<last id>", timeout)
            return
        if isinstance(outcome, Exception):
            raise outcome
    await close(websocket, *ending(session), timeout)


def ending(session: Session) -> tuple[int, str]:
    """The closing code for the end of a session, or of its service."""
    return (1012, "the service restarts: resume with after=<last id>") if session.ring.restarting else (1000, "the session is over")


async def close(websocket: WebSocket, code: int, reason: str, timeout: float) -> None:
    """Close; a reader that takes nothing has `timeout` seconds to come back and learn why."""
    try:
        async with asyncio.timeout(timeout):
            await websocket.close(code, _reason(reason))
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        return


async def _send(websocket: WebSocket, subscription: Subscription, batch: int | None) -> None:
    settings = subscription.session.settings
    async for messages in subscription.batches(settings.heartbeat, batch or 1):
        async with asyncio.timeout(settings.send_timeout):
            if batch is None:
                for message in messages:
                    await websocket.send_text(message.data.decode())
            elif messages:
                for text in subscription.arrays(messages, batch):
                    await websocket.send_text(text)


async def _receive(websocket: WebSocket, subscription: Subscription) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            raise _Refused(f"a binary message is not understood: {BAD_MESSAGE}")
        subscription.filter = _filter(text)


def _filter(text: str) -> Filter:
    try:
        wanted = Subscribe.model_validate_json(text)
        types = parse_types(",".join(wanted.types)) if wanted.types is not None else None
    except ValidationError as error:
        raise _Refused(f"{from_validation(error).detail}: {BAD_MESSAGE}") from None
    except Problem as problem:
        raise _Refused(problem.detail) from None
    return Filter(types, wanted.pid, wanted.cgroup)
