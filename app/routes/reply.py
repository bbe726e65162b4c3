"""How answers are written: JSON by orjson, with the session's state as ETag."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.host.session import Session
from app.schemas.views import render_view

JSON: Final = "application/json"


def json(value: Any, session: Session | None = None, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; with a session, its ETag."""
    tags = {} if session is None else {"ETag": session.etag}
    return Response(orjson.dumps(value), status, {**tags, **(headers or {})}, JSON)


def location(session: Session, below: str = "") -> dict[str, str]:
    """The header that says where what was made is: the path below the session, quoted, since a name may have any letters and a header not."""
    return {"Location": quote(f"/v1/sessions/{session.id}{below}")}


def view(value: Any, session: Session) -> Response:
    """One of the kernel's views as JSON."""
    return json(render_view(value), session)


def media_of(request: Request, own: str, plain: str) -> str:
    """The media type of an answer: its own, or the plainer one that the client asks for by name."""
    return plain if plain in request.headers.get("accept", "") else own
