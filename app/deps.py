"""What routes depend on, as named types, so that a route's signature reads as a sentence."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from app.host.registry import Registry
from app.host.session import Session
from app.identity.gate import Gate, Watch
from app.identity.guard import CALLER, EPOCH, SESSION, admit
from app.identity.roles import Caller
from app.identity.shield import require_origin
from app.identity.table import ROWS, WEBSOCKET

PROTOCOL: Final = "pagewalk.v1"


def registry_of(connection: HTTPConnection) -> Registry:
    """The service's sessions."""
    registry: Registry = connection.app.state.registry
    return registry


async def get_registry(connection: HTTPConnection) -> Registry:
    """The service's sessions."""
    return registry_of(connection)


async def get_gate(connection: HTTPConnection) -> Gate:
    """Who the callers are."""
    gate: Gate = connection.app.state.gate
    return gate


async def get_caller(connection: HTTPConnection) -> Caller:
    """Who sent the request: the guard has found out."""
    caller: Caller = connection.scope[CALLER]
    return caller


async def get_session(connection: HTTPConnection, sid: str) -> Session:
    """The session of a path: the guard has found it, and that the caller may do here what the route does."""
    session: Session = connection.scope[SESSION]
    return session


def watch_of(connection: HTTPConnection) -> Callable[[], AbstractContextManager[Watch]]:
    """What a stream does while it is open: watches that its caller may still read it."""
    gate: Gate = connection.app.state.gate
    caller: Caller = connection.scope[CALLER]
    epoch: int = connection.scope[EPOCH]
    return lambda: gate.watch(caller, epoch)


async def get_watch(connection: HTTPConnection) -> Callable[[], AbstractContextManager[Watch]]:
    """What a stream does while it is open."""
    return watch_of(connection)


def offered_protocols(connection: HTTPConnection) -> list[str]:
    """The websocket subprotocols that a client offers."""
    return [item.strip() for item in connection.headers.get("sec-websocket-protocol", "").split(",") if item.strip()]


async def enter_stream(websocket: WebSocket, path: str) -> Session:
    """The session of a websocket's path, for those who may open it. Raises 401, 403, 404."""
    require_origin(websocket.scope, registry_of(websocket).settings)
    session = await admit(websocket.scope, ROWS[WEBSOCKET, path])
    assert session is not None
    return session


TheRegistry = Annotated[Registry, Depends(get_registry)]
TheGate = Annotated[Gate, Depends(get_gate)]
TheCaller = Annotated[Caller, Depends(get_caller)]
TheSession = Annotated[Session, Depends(get_session)]
TheWatch = Annotated[Callable[[], AbstractContextManager[Watch]], Depends(get_watch)]
IfMatch = Annotated[
    str | None, Header(description='The state the writer has read: `"<epoch>.<seq>"`; 412 when the session has moved on.', max_length=256)
]
