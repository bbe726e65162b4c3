"""The first answers to requests that carried an Idempotency-Key, given again when the request is."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer as it was sent; `fingerprint` tells whether a request is the same one."""

    fingerprint: bytes
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Replies(Protocol):
    """What the service asks of the store of answers."""

    def get(self, key: bytes) -> Reply | None:
        """The answer kept under a key."""

    def put(self, key: bytes, reply: Reply) -> None:
        """Keep an answer."""


class MemoryReplies:
    """The most recent answers, in memory; the oldest go when they outgrow `max_bytes`."""

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        self._replies: OrderedDict[bytes, Reply] = OrderedDict()
        self._bytes, self._max_bytes = 0, max_bytes

    def get(self, key: bytes) -> Reply | None:
        """The answer kept under a key."""
        return self._replies.get(key)

    def put(self, key: bytes, reply: Reply) -> None:
        """Keep an answer."""
        self._replies[key] = reply
        self._bytes += _weight(key, reply)
        while self._bytes > self._max_bytes and len(self._replies) > 1:
            oldest, dropped = self._replies.popitem(last=False)
            self._bytes -= _weight(oldest, dropped)


def _weight(key: bytes, reply: Reply) -> int:
    return len(key) + len(reply.body) + 1024
