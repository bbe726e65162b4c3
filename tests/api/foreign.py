"""Everyone to whom a student's session is none of his business, with everything that he could try."""

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.identity.table import WEBSOCKET, Row
from tests.api.course import Course
from tests.api.test_roles import CALLERS, where

FOREIGN = tuple(name for name, _, relation in CALLERS if relation == "none")
EVENTS = "/v1/sessions/{sid}/events"
FORMS = ("text/event-stream", "application/jsonl", "application/json")
CLOSED_OUT = frozenset({4401, 4404})


class Try(NamedTuple):
    """One attempt: who, and with which headers, query and subprotocols."""

    name: str
    headers: dict[str, str]
    query: str = ""
    protocols: tuple[str, ...] = ()


def tries(course: Course, row: Row) -> Iterator[Try]:
    """Each foreign caller in each way in which he could bring what he has."""
    for name in FOREIGN:
        who = course.who[name]
        token = who.get("Authorization", "").removeprefix("Bearer ")
        yield Try(name, who)
        if not token:
            continue
        yield Try(f"{name}, as a password", {"Authorization": "Basic " + base64.b64encode(f"me:{token}".encode()).decode()})
        yield Try(f"{name}, in the address", {}, f"?token={token}")
        if row.method == WEBSOCKET:
            encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
            yield Try(f"{name}, as a subprotocol", {}, "", (f"base64url.bearer.authorization.pagewalk.{encoded}", "pagewalk.v1"))
    for ticket in (course.ticket, "pw_t_" + "x" * 32):
        yield Try("a ticket of another session", {}, f"?ticket={ticket}")
        yield Try("a neighbour with a ticket of another session", course.who["neighbour"], f"?ticket={ticket}")


def outcome(course: Course, row: Row, sid: str, attempt: Try, http: httpx2.Client | None = None) -> str:
    """How an attempt ends: `out`, or what is wrong with that."""
    path = where(row, sid) + attempt.query
    if row.method == WEBSOCKET:
        return _knock(course.service.url.replace("http", "ws") + path, attempt)
    forms = FORMS if row.path == EVENTS else ("*/*",)
    for form in forms:
        answer = (http or course.http).request(row.method, path, headers={**attempt.headers, "Accept": form})
        if answer.status_code not in (401, 404):
            return f"{answer.status_code} {answer.text[:200]}"
        if row.method == "HEAD":
            continue
        found = answer.json()
        missing = (http or course.http).request(row.method, where(row, "s_none") + attempt.query, headers={**attempt.headers, "Accept": form})
        if _told(found, sid) != _told(missing.json(), "s_none"):
            return f"one can tell that the session exists: {found} {missing.json()}"
    return "out"


def _told(document: dict[str, Any], sid: str) -> dict[str, Any]:
    """A problem without what names the session or the request."""
    return {key: str(value).replace(sid, "?") for key, value in document.items() if key != "request_id"}


def _knock(address: str, attempt: Try) -> str:
    protocols: Any = list(attempt.protocols) or None
    try:
        with connect(address, additional_headers=attempt.headers, subprotocols=protocols) as ws:
            ws.recv(timeout=20)
            return "in"
    except InvalidStatus as refused:
        return "out" if refused.response.status_code in (401, 404) else str(refused)
    except ConnectionClosed as closed:
        return "out" if closed.rcvd is not None and closed.rcvd.code in CLOSED_OUT else str(closed)
