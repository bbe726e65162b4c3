"""Long poll: one page of events, at once when there are any, else when there are or when the wait is over."""

import asyncio
from typing import Any

import orjson

from app.stream.hub import Subscription


async def page(subscription: Subscription, limit: int, wait: float) -> bytes:
    """At most `limit` events as `{"items", "next_after", "last", "seq"}`; `wait` is in seconds."""
    deadline = asyncio.get_running_loop().time() + wait
    items = _collect(subscription, limit)
    while not items and not subscription.session.ring.closed:
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0 or not await subscription.arrived(left):
            break
        items = _collect(subscription, limit)
    members: dict[str, Any] = {"next_after": subscription.position, "last": subscription.session.ring.last, "seq": subscription.session.seq}
    return b'{"items":[' + b",".join(items) + b"]," + orjson.dumps(members)[1:]


def _collect(subscription: Subscription, limit: int) -> list[bytes]:
    items: list[bytes] = []
    while len(items) < limit and subscription.behind:
        items += [message.data for message in subscription.take(limit - len(items))]
    return items
