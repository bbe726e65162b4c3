"""The layer that sees every request: it names it (`X-Request-Id`), counts it, and writes it down if that is wanted.

A client may bring a name of its own; it stands in the answer, in problem documents and in the log. An error of ours is a problem document
here, and a line in the log with what Python says about it.
"""

import itertools
import random
import re
import secrets
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Problem
from app.host.history import not_stored
from app.host.meter import Meter
from app.logs import REQUEST_ID, logger
from app.storage import StorageError

NAME: Final = re.compile(rb"[\w.:-]{1,64}", re.ASCII)
HEADER: Final = b"x-request-id"
NOWHERE: Final = "none"
STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
OURS: Final = "the service met an error of its own; the request may not have been carried out"

log = logger("pagewalk.requests")


class Observe:
    """An ASGI layer around the whole app.

    Parameters
    ----------
    app : ASGIApp
        What is inside.
    meter : Meter
        Where requests are counted.
    share : float
        The share of requests that is logged; those that failed by our fault always are.
    """

    def __init__(self, app: ASGIApp, meter: Meter, share: float = 0.0) -> None:
        self.app, self.meter, self.share = app, meter, share
        self._prefix = secrets.token_hex(4).encode()
        self._numbers = itertools.count(1)

    def _name(self, scope: Scope) -> bytes:
        for name, value in scope["headers"]:
            if name == HEADER and NAME.fullmatch(value):
                return bytes(value)
        return b"%s-%x" % (self._prefix, next(self._numbers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        name = self._name(scope)
        REQUEST_ID.set(name.decode())
        begin, took, status = time.perf_counter_ns(), 0, 0

        async def send_named(message: Message) -> None:
            nonlocal status, took
            if message["type"] in STARTS:
                status, took = message.get("status", 101), time.perf_counter_ns() - begin
                message["headers"] = [*message.get("headers", ()), (HEADER, name)]
            await send(message)

        meter = self.meter
        meter.in_flight += 1
        try:
            await self.app(scope, receive, send_named)
        except Exception as error:
            if scope["type"] == "websocket" and isinstance(error, OSError):
                raise  # its client has left
            if status or scope["type"] != "http":
                log.error("request broke off", exc_info=error, method=scope.get("method"), path=scope["path"])
                raise
            log.error("request failed", exc_info=error, method=scope["method"], path=scope["path"])
            problem = not_stored(error) if isinstance(error, StorageError) else Problem(500, "internal-error", OURS)
            await problem.response(scope["path"])(scope, receive, send_named)
        finally:
            meter.in_flight -= 1
            if status:
                self._count(scope, status, took)

    def _count(self, scope: Scope, status: int, ns: int) -> None:
        route = getattr(scope.get("route"), "path", None) or scope.get("template", NOWHERE)
        method = scope.get("method", "WEBSOCKET")
        self.meter.request(method, route, status, ns)
        if self.share and random.random() < self.share:
            log.info("request", method=method, route=route, path=scope["path"], status=status, ms=ns / 1e6)
