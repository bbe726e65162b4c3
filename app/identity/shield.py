"""The first layer that a request meets: is it sent to us, by a page that may, and not too often?

A page of another site can make a browser send requests here. Against a service that wants a token that is harmless, for no browser adds
one by itself. An open service would obey, so there

- the Host must be an address, `localhost`, a name without a dot, or one of PAGEWALK_HOSTS. A site can point its own name at 127.0.0.1
  (DNS rebinding), and then its pages count as ours; but its name is in the Host header, and it has a dot. Where PAGEWALK_HOSTS is set, a service
  that wants tokens answers to no other name, either; to addresses and names without a dot both do, or its health would not be seen;
- a page's Origin must be the service's own or one of PAGEWALK_ORIGINS where something is changed or a websocket is opened; what is
  merely read, a browser does not show to a foreign page, unless CORS says so.
"""

import time
from collections.abc import Sequence
from functools import lru_cache, partial
from ipaddress import ip_address, ip_network
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Problem
from app.identity.buckets import Bucket, Level
from app.identity.guard import QUOTA
from app.settings import Settings

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
IPV6_NETWORK: Final = 64
MOST_HOSTS: Final = 256  # Host headers that are remembered with what was thought of them


def header(scope: Scope, wanted: bytes) -> str | None:
    """A header of a request."""
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value, "latin-1")
    return None


def host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()


def is_local_name(name: str) -> bool:
    """True for a name that no site of the Internet can have: an address, `localhost`, a name without a dot."""
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def answers_to(host: str, settings: Settings) -> bool:
    """True for a Host header with one of the service's names."""
    name = host_name(host)
    return name in settings.hosts or is_local_name(name)


def require_origin(scope: Scope, settings: Settings) -> None:
    """Refuse a page of another site. Raises 403."""
    origin = header(scope, b"origin")
    if origin is None or origin in settings.origins or "*" in settings.origins:
        return
    if origin.partition("://")[2] != header(scope, b"host"):
        detail = f"a page of {origin[:100]} may not use this service: PAGEWALK_ORIGINS lists those that may"
        raise Problem(403, "foreign-origin", detail)


def address(scope: Scope) -> str:
    """Whom a request without a name is counted to: its address, or the network of 2^64 that an IPv6 host may choose from."""
    host = (scope.get("client") or ("unknown",))[0]
    if ":" not in host:
        return str(host)
    try:
        return str(ip_network((host.partition("%")[0], IPV6_NETWORK), strict=False))
    except ValueError:
        return str(host)


class Shield:
    """An ASGI layer around the whole app."""

    def __init__(self, app: ASGIApp, settings: Settings, bucket: Bucket | None, quota: Bucket | None) -> None:
        self.app, self.settings = app, settings
        self.bucket, self.quota = bucket, quota
        self._open = settings.open
        self._checks_host = bool(settings.hosts) or (settings.open and settings.loopback)
        self._answers_to = lru_cache(MOST_HOSTS)(partial(answers_to, settings=settings))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        level: Level | None = None

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._limits(level, scope.get(QUOTA), message["headers"])]
            await send(message)

        try:
            self._check(scope)
            if self.bucket is None:
                await self.app(scope, receive, send if self.quota is None else send_with_limits)
                return
            level = self.bucket.take(address(scope), time.monotonic())
            if level.retry_in:
                raise self.bucket.refusal(level)
        except Problem as problem:
            await self._refuse(problem, scope, receive, send)
            return
        await self.app(scope, receive, send_with_limits)

    def _check(self, scope: Scope) -> None:
        """Refuse what was sent to another name (421), and what a page of another site sends (403)."""
        host, origin = "", None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1")
            elif name == b"origin":
                origin = value.decode("latin-1")
        if self._checks_host and not self._answers_to(host):
            detail = f"this service is not called {host_name(host)[:100]!r}: PAGEWALK_HOSTS lists the names that it answers to"
            raise Problem(421, "misdirected", detail)
        if origin is not None and self._open and scope["type"] == "http" and scope["method"] not in SAFE:
            require_origin(scope, self.settings)

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        response = problem.response(scope["path"])
        await response(scope, receive, send)

    def _limits(self, level: Level | None, own: Level | None, have: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """RateLimit headers: of the caller where he is known, and of his address."""
        pairs = [(bucket, held) for bucket, held in ((self.quota, own), (self.bucket, level)) if bucket is not None and held is not None]
        if not pairs or any(name == b"ratelimit" for name, _ in have):
            return []
        policy = b", ".join(bucket.policy for bucket, _ in pairs)
        return [(b"ratelimit-policy", policy), (b"ratelimit", b", ".join(bucket.state(held) for bucket, held in pairs))]
