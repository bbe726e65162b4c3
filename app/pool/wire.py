"""ASGI between two workers: messages over a Unix socket, one request or websocket at a time on a connection.

What a worker hands to another is not HTTP again but what the server has made of it: the scope, then the messages of the ASGI protocol both
ways, as they are. So a stream stays a stream, a websocket a websocket whose frames are compressed once, by whoever has the client, and a
reader that is slow fills this connection's buffers and no one else's.

    asks        (scope, body)           a request with its whole body; body None for a websocket, whose messages follow
                ("count", None)         what does this worker count? The answer is one frame
    answers     ("moved", seat)         not mine: ask that one. Nothing was done
                ("ready",)              a websocket may talk
                ("message", message)    what the app sends
                ("end",)                the answer is complete; a connection that carried a request can carry the next

A frame is its length, 4 bytes, and a value in Python's own `marshal` format, which knows bytes and is the fastest there is; both ends are the
same Python of the same service, and the socket stands in a directory that only its user may enter.
"""

import asyncio
import marshal
from typing import Any, Final

from starlette.types import Scope

CARRIED: Final = (
    "type",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
    "subprotocols",
    "extensions",
)
LIMIT: Final = 1 << 16  # bytes of a connection's buffer, beside the socket's own


class Lost(Exception):
    """The other worker is gone."""


class Wire:
    """One connection to another worker."""

    __slots__ = ("_left", "_reader", "_writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._left: int | None = None  # length of the frame that is being read: a reader that is cancelled loses nothing

    @property
    def dead(self) -> bool:
        """True when the other end is known to be gone."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def send(self, value: Any) -> None:
        """One frame; waits while the other end is slow. Raises Lost."""
        data = marshal.dumps(value)
        if self._writer.is_closing():
            raise Lost
        try:
            self._writer.write(len(data).to_bytes(4, "big") + data)
            await self._writer.drain()
        except OSError as error:
            raise Lost from error

    async def receive(self) -> Any:
        """The next frame. Raises Lost."""
        try:
            if self._left is None:
                self._left = int.from_bytes(await self._reader.readexactly(4), "big")
            data = await self._reader.readexactly(self._left)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Lost from error
        self._left = None
        return marshal.loads(data)

    def close(self) -> None:
        """Let the connection go."""
        self._writer.close()


def carried(scope: Scope) -> dict[str, Any]:
    """What of a scope goes to another worker."""
    found = {key: scope[key] for key in CARRIED if key in scope}
    found["headers"] = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    return found
