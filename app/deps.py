"""What routes depend on, as named types, so that a route's signature reads as a sentence."""

import base64
import binascii
import secrets
from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import HTTPConnection

from app.errors import Problem
from app.host.registry import Registry
from app.host.session import Session
from app.settings import Settings

PROTOCOL: Final = "pagewalk.v1"
BEARER_PROTOCOL: Final = "base64url.bearer.authorization.pagewalk."
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="pagewalk"'}


def get_registry(connection: HTTPConnection) -> Registry:
    """The service's sessions."""
    registry: Registry = connection.app.state.registry
    return registry


def get_settings(connection: HTTPConnection) -> Settings:
    """The service's settings."""
    return get_registry(connection).settings


def offered_protocols(connection: HTTPConnection) -> list[str]:
    """The websocket subprotocols that a client offers."""
    return [item.strip() for item in connection.headers.get("sec-websocket-protocol", "").split(",") if item.strip()]


def _presented(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    for protocol in offered_protocols(connection):
        if protocol.startswith(BEARER_PROTOCOL):
            text = protocol.removeprefix(BEARER_PROTOCOL)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return None


def _is_operator(settings: Settings, token: str) -> bool:
    return settings.token is not None and secrets.compare_digest(token.encode(), settings.token.get_secret_value().encode())


def require_operator(connection: HTTPConnection) -> None:
    """Let in whoever may create and list sessions. Raises 401."""
    registry = get_registry(connection)
    if registry.open:
        return
    token = _presented(connection)
    if token is None or not _is_operator(registry.settings, token):
        raise Problem(401, "unauthorized", "this needs the operator's token: Authorization: Bearer <PAGEWALK_TOKEN>", _CHALLENGE)


async def enter(connection: HTTPConnection, sid: str) -> Session:
    """The session of a path, for those who may enter it. Raises 401, 404."""
    registry = get_registry(connection)
    if registry.open:
        return await registry.find(sid)
    token = _presented(connection)
    if token is None:
        raise Problem(401, "unauthorized", "this needs the session's token: Authorization: Bearer <token>", _CHALLENGE)
    session = await registry.find(sid)
    if not session.admits(token) and not _is_operator(registry.settings, token):
        raise Problem(401, "unauthorized", "this is not the session's token: it is shown once, when the session is created", _CHALLENGE)
    return session


def require_origin(websocket: HTTPConnection) -> None:
    """Refuse a page of another site. Raises 403."""
    origin = websocket.headers.get("origin")
    if origin is None or origin in get_settings(websocket).origins:
        return
    if origin.partition("://")[2] != websocket.headers.get("host"):
        raise Problem(403, "foreign-origin", f"a page of {origin[:100]} may not read these events: PAGEWALK_ORIGINS lists those that may")


TheRegistry = Annotated[Registry, Depends(get_registry)]
TheSettings = Annotated[Settings, Depends(get_settings)]
TheSession = Annotated[Session, Depends(enter)]
IfMatch = Annotated[
    str | None, Header(description='The state the writer has read: `"<epoch>.<seq>"`; 412 when the session has moved on.', max_length=256)
]
