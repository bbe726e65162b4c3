"""Problems: how the service says that a request was wrong (RFC 9457).

what happened                         answer
------------------------------------  ---------------------------------------------------
a simulated call failed               200, `errno` or `signal` in the body: not a problem
the request cannot be read            400, 413, 415, 422 with `errors[{detail, pointer}]`
it names nothing, or may not be       401, 403, 404, 405, 409, 410, 412, 416, 429
we are wrong                          500, the session is frozen, the others go on
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.logs import REQUEST_ID

MEDIA_TYPE = "application/problem+json"
_UNREADABLE = "There was an error parsing the body"  # FastAPI's words for numbers too long and nesting too deep
CURL_JSON = "curl -d sends a form: send JSON with curl --json '{...}' (or the header Content-Type: application/json)"


class Problem(Exception):
    """A request that is answered with a problem document.

    Parameters
    ----------
    status : int
        The HTTP status.
    slug : str
        Names the kind of problem, in `type`.
    detail : str
        What was wrong, and what would be right.
    headers : mapping, optional
        Headers of the answer.
    **extra
        Further members of the document: `errno`, `errors`, `seq`.
    """

    def __init__(self, status: int, slug: str, detail: str, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.slug, self.detail = status, slug, detail
        self.headers, self.extra = dict(headers or {}), extra

    def document(self, instance: str | None = None) -> dict[str, Any]:
        """The problem as a JSON object."""
        document: dict[str, Any] = {
            "type": f"urn:pagewalk:problem:{self.slug}",
            "title": HTTPStatus(self.status).phrase if self.slug == "http" else self.slug.replace("-", " ").capitalize().replace("json", "JSON"),
            "status": self.status,
            "detail": self.detail,
        }
        if instance is not None:
            document["instance"] = instance
            if (request_id := REQUEST_ID.get()) is not None:
                document["request_id"] = request_id
        return document | self.extra

    def response(self, instance: str | None = None) -> Response:
        """The problem as an HTTP answer."""
        body = orjson.dumps(self.document(instance), default=str)
        return Response(body, self.status, self.headers, MEDIA_TYPE)


def pointer(location: Sequence[str | int]) -> str:
    """A JSON pointer, as a URI fragment, from pydantic's location."""
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in location]
    return "#/" + "/".join(parts) if parts else "#"


def _plain(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "this field is not known here"
    if error["type"] == "missing":
        return "this field is required"
    if error["type"] == "union_tag_invalid":
        return f"there is no operation {error['ctx']['tag']!r}: there are {error['ctx']['expected_tags']}".replace("'", "")
    return message


def malformed(errors: Sequence[Any], strip: int = 0) -> Problem:
    """A 422 from pydantic's list of errors; `strip` leading parts of each location are not the body's own."""
    rows = [{"detail": _plain(error), "pointer": pointer(list(error["loc"])[strip:])} for error in errors[:20]]
    detail = "; ".join(f"{row['pointer'][2:] or 'body'}: {row['detail']}" for row in rows[:3])
    return Problem(422, "malformed-request", detail, errors=rows)


def from_validation(error: ValidationError, strip: int = 0) -> Problem:
    """A 422 from a model that refused a body."""
    return malformed(error.errors(include_url=False, include_input=False), strip)


def is_form(content_type: str) -> bool:
    """True for what `curl -d` and HTML forms send."""
    return content_type.startswith(("application/x-www-form-urlencoded", "multipart/form-data"))


def require_json(content_type: str) -> None:
    """Refuse a body that does not say that it is JSON."""
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    if is_form(kind):
        raise Problem(415, "not-json", CURL_JSON)
    raise Problem(415, "not-json", f"the body's Content-Type is {kind or 'missing'}: send application/json, as curl --json does")


def _allowed(app: FastAPI, scope: Scope) -> str:
    methods: set[str] = set()
    for route in app.state.table:
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(methods))


async def _on_problem(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(connection.url.path)


async def _on_http(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    path = connection.url.path
    detail = str(error.detail)
    if error.status_code == 400 and detail == _UNREADABLE:
        return malformed([{"loc": (), "msg": "this is no JSON that can be read", "type": "json_invalid"}]).response(path)
    if error.status_code == 404:
        detail = f"nothing is served at {path}: see /docs"
    elif error.status_code == 405:
        headers["Allow"] = _allowed(connection.app, connection.scope)
        detail = f"{connection.scope.get('method', 'this method')} is not possible here; what is: {headers['Allow'] or 'nothing'}"
    return Problem(error.status_code, "http", detail, headers).response(path)


async def _on_validation(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    path = connection.url.path
    errors = error.errors()
    if any(item["loc"][:1] == ("body",) for item in errors) and isinstance(connection, Request):
        try:
            if "content-type" in connection.headers or await connection.body():
                require_json(connection.headers.get("content-type", ""))
        except Problem as problem:
            return problem.response(path)
    for item in errors:
        if item["type"] == "json_invalid":
            item["msg"] = f"this is not JSON: {(item.get('ctx') or {}).get('error', item['msg'])}"
            item["loc"] = ("body",)
    return malformed(errors, strip=1).response(path)


async def _on_bug(connection: HTTPConnection, error: Exception) -> Response:
    detail = "the service met an error of its own; the request may not have been carried out"
    return Problem(500, "internal-error", detail).response(connection.url.path)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(Exception, _on_bug)
