"""Following a session's events on a websocket, without loss.

What happens                                   what the follower does
---------------------------------------------  ------------------------------------------------------------------
an event                                       gives it; its `id` is where the stream is resumed
`bookmark`                                     moves on silently (or gives it, with `bookmarks=True`)
`gap` (too slow, or the session went back)     gives it: read the session's state again; goes on after it
the connection breaks (1006), the service      connects again after the last id, after a pause that doubles and is
  restarts (1012, 1001), 1011, 1013, 503         spread by chance; `Unreachable` after `patience` seconds in vain
4429, 429: too slow, or too many streams       the same; that it was too slow shows as a gap only if something was lost
410: the id is no longer, or not yet, there    gives a `gap` of its own (reason `expired` or `rewind`), goes on where
                                                 the service still is
1000: the session is over                      ends
401, 403, 404, 422 (4401, 4403, 4404, 4400)    raises the ProblemError

`Stream` decides all this and knows no socket; `Events` and `follow_async` carry it out.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pagewalk.errors import ProblemError, Unreachable

Event = dict[str, Any]

OVER: Final = 1000
EXPIRED: Final = 410
STATUS_OF: Final = {4400: 422, 4401: 401, 4403: 403, 4404: 404}
FINAL: Final = frozenset({400, 401, 403, 404, 405, 422})
LONGEST_PAUSE_S: Final = 5.0
OPEN_TIMEOUT_S: Final = 20.0
CLOSE_TIMEOUT_S: Final = 1.0  # events that nobody wants any more may stand before the service's goodbye
MAX_SIZE: Final = 16 << 20
OPTIONS: Final[Mapping[str, Any]] = {"open_timeout": OPEN_TIMEOUT_S, "close_timeout": CLOSE_TIMEOUT_S, "max_size": MAX_SIZE}
LOST: Final = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, EOFError)


class Over(Exception):
    """The stream is at its end."""


class Stream:
    """Where a follower is, and what the next thing to do is. Knows no socket.

    Attributes
    ----------
    after : int
        The id of the last event that was given.
    """

    def __init__(self, url: str, token: str | None, after: int, filters: Mapping[str, Any] | None = None, patience: float = 60.0) -> None:
        self.after, self.patience, self.stopped = after, patience, False
        self.headers = {"authorization": f"Bearer {token}"} if token else {}
        filters = dict(filters or {})
        self._bookmarks = bool(filters.pop("bookmarks", False))
        self._query = {name: value for name, value in filters.items() if value is not None}
        self._base = url.replace("http", "ws", 1) + "/events"
        self._failures = 0
        self._away_since: float | None = None

    @property
    def address(self) -> str:
        """What to connect to now."""
        return f"{self._base}?{urlencode({'after': self.after, **self._query})}"

    def connected(self) -> None:
        """The service took the connection."""
        self._away_since = None

    def received(self, text: str | bytes) -> Event | None:
        """A message came: the event to give, if there is one."""
        event: Event = json.loads(text)
        self._failures = 0
        self.after = int(event["id"])
        return None if event["type"] == "bookmark" and not self._bookmarks else event

    def lost(self, error: BaseException) -> tuple[float, Event | None]:
        """The connection ended, or could not be made: seconds to wait, and a gap to give before.

        Raises Over at the end of the session, ProblemError, Unreachable.
        """
        code, document = _reason(error)
        if self.stopped or code == OVER:
            raise Over
        if code == EXPIRED and "last" in document:
            return 0.0, self._expired(int(document["oldest"]), int(document["last"]))
        status = STATUS_OF.get(code, code)
        if status in FINAL:
            raise ProblemError(status, document) from error
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since > self.patience:
            raise Unreachable(f"{self._base}: {error or type(error).__name__}") from error
        self._failures += 1
        return min(0.05 * 2.0**self._failures, LONGEST_PAUSE_S) * random.uniform(0.5, 1.0), None

    def _expired(self, oldest: int, last: int) -> Event:
        """The gap between what is known here and what is there."""
        known = self.after
        if known > last:
            self.after, reason, first, end = last, "rewind", last + 1, known
        else:
            self.after, reason, first, end = oldest - 1, "expired", known + 1, oldest - 1
        return {"id": self.after, "type": "gap", "from": first, "to": end, "reason": reason}


def _reason(error: BaseException) -> tuple[int, dict[str, Any]]:
    """The close code or HTTP status of an ending, and what the service said."""
    if isinstance(error, InvalidStatus):
        try:
            document = json.loads(error.response.body or b"{}")
        except ValueError:
            document = {}
        return error.response.status_code, document if isinstance(document, dict) else {}
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return error.rcvd.code, {"title": "closed", "status": error.rcvd.code, "detail": error.rcvd.reason}
    return 1006, {}


class Events(Iterator[Event]):
    """The events as an iterator; `close()`, from any thread, or `with` ends it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._socket: ClientConnection | None = None
        self._events = self._follow()

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop: whoever waits for an event is at the end."""
        self.stream.stopped = True
        if self._socket is not None:
            self._socket.close()

    def _follow(self) -> Iterator[Event]:
        stream = self.stream
        while not stream.stopped:
            try:
                with self._connected() as socket:
                    while True:
                        event = stream.received(socket.recv())
                        if event is not None:
                            yield event
            except LOST as error:
                try:
                    wait, gap = stream.lost(error)
                except Over:
                    return
            if gap is not None:
                yield gap
            time.sleep(wait)

    def _connected(self) -> ClientConnection:
        stream = self.stream
        self._socket = connect(stream.address, additional_headers=stream.headers, **OPTIONS)
        stream.connected()
        return self._socket


async def follow_async(stream: Stream) -> AsyncIterator[Event]:
    """The events for asyncio: until the session is over, or the task is cancelled."""
    while not stream.stopped:
        try:
            async with connect_async(stream.address, additional_headers=stream.headers, **OPTIONS) as socket:
                stream.connected()
                while True:
                    event = stream.received(await socket.recv())
                    if event is not None:
                        yield event
        except LOST as error:
            try:
                wait, gap = stream.lost(error)
            except Over:
                return
        if gap is not None:
            yield gap
        await asyncio.sleep(wait)
