"""Server-sent events and JSON Lines: the same subscription, framed two ways."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Final

from starlette.responses import StreamingResponse

from app.errors import Problem
from app.identity.gate import Watch
from app.stream.hub import Message, Subscription

_NO_BUFFER: Final = {"X-Accel-Buffering": "no"}
Watched = Callable[[], AbstractContextManager[Watch]]


def sse_frame(messages: list[Message]) -> bytes:
    """Events as `id:` and `data:`; a comment when there are none."""
    return b"".join(b"id: %d\ndata: %s\n\n" % (message.id, message.data) for message in messages) or b": alive\n\n"


def jsonl_frame(messages: list[Message]) -> bytes:
    """Events, one a line."""
    return b"".join(message.data + b"\n" for message in messages)


async def _frames(subscription: Subscription, frame: Callable[[list[Message]], bytes], watched: Watched) -> AsyncIterator[bytes]:
    session = subscription.session
    session.streams += 1
    session.meter.readers.add(subscription)
    try:
        if frame is sse_frame:
            yield b"retry: 1000\n\n"
        with watched() as watch:
            watch.then = subscription.end
            async for messages in subscription.batches(session.settings.heartbeat):
                yield frame(messages if messages or frame is sse_frame else subscription.bookmark())
        yield frame([subscription.farewell(watch.loss or ("restarting" if session.ring.restarting else "deleted"))])
    finally:
        session.streams -= 1
        session.meter.readers.discard(subscription)


def require_place(subscription: Subscription) -> None:
    """Refuse one stream too many. Raises 429."""
    limit = subscription.session.settings.max_streams
    if subscription.session.streams >= limit:
        raise Problem(429, "too-many-streams", f"the session has {limit} open streams, its limit: close one", {"Retry-After": "5"})


def sse(subscription: Subscription, watched: Watched) -> StreamingResponse:
    """The events as `text/event-stream`, while the caller may read them."""
    require_place(subscription)
    return StreamingResponse(_frames(subscription, sse_frame, watched), media_type="text/event-stream", headers=_NO_BUFFER)


def jsonl(subscription: Subscription, watched: Watched) -> StreamingResponse:
    """The events as `application/jsonl`, while the caller may read them."""
    require_place(subscription)
    return StreamingResponse(_frames(subscription, jsonl_frame, watched), media_type="application/jsonl", headers=_NO_BUFFER)
