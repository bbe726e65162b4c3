"""Long poll: one page of events, at once when there are any, else when there are or when the wait is over."""

import asyncio
from typing import Any

import orjson

from app.errors import Problem
from app.stream.hub import Subscription
from app.stream.lines import Watched


async def page(subscription: Subscription, limit: int, wait: float, watched: Watched) -> bytes:
    """At most `limit` events as `{"items", "next_after", "last", "seq"}`; `wait` is in seconds.

    Raises 401 when the caller may not read them any more after the wait, 404 when the session was deleted meanwhile.
    """
    items = _collect(subscription, limit)
    if not items and wait > 0:
        with watched() as watch:
            watch.then = subscription.end
            items = await _first(subscription, limit, wait)
        if watch.loss is not None:
            raise watch.refusal()
    ring = subscription.session.ring
    if not items and ring.closed and not ring.restarting:
        raise Problem(404, "no-such-session", "the session has been destroyed")
    members: dict[str, Any] = {"next_after": subscription.position, "last": subscription.session.ring.last, "seq": subscription.session.seq}
    return b'{"items":[' + b",".join(items) + b"]," + orjson.dumps(members)[1:]


async def _first(subscription: Subscription, limit: int, wait: float) -> list[bytes]:
    """The first events that come, none when nothing comes in time."""
    deadline = asyncio.get_running_loop().time() + wait
    while not subscription.over:
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0 or not await subscription.arrived(left):
            break
        if items := _collect(subscription, limit):
            return items
    return []


def _collect(subscription: Subscription, limit: int) -> list[bytes]:
    items: list[bytes] = []
    while len(items) < limit and subscription.behind:
        items += [message.data for message in subscription.take(limit - len(items))]
    return items
