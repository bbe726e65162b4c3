"""The check that stands before every route: its row of the table, the caller, the session.

`GuardedRoute` is the route class of every router; it checks before FastAPI reads the body. The hot route and the websockets are no
routes of FastAPI's: they call `admit` as their first act and say so with `@admits`. `require_rows` keeps the service from starting with a
route that has no row, or that nobody guards.
"""

import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope

from app.errors import Problem
from app.host.registry import Registry
from app.host.session import Session
from app.identity.gate import Gate, unauthorized
from app.identity.roles import Caller
from app.identity.table import COLUMNS, ROWS, SEES, WEBSOCKET, Row
from app.storage import Record
from app.storage.catalogue import Part

CALLER: Final = "pagewalk.caller"
SESSION: Final = "pagewalk.session"
EPOCH: Final = "pagewalk.epoch"
QUOTA: Final = "pagewalk.quota"
CALL: Final = "/v1/sessions/{sid}/processes/{pid}/{call}"
STREAMS: Final = frozenset({"/v1/sessions/{sid}/events", "/v1/sessions/{sid}/policy"})
F = TypeVar("F", bound=Callable[..., Any])


def admits(endpoint: F) -> F:
    """Marks an endpoint that calls `admit` itself, before anything else."""
    endpoint.admits = True  # type: ignore[attr-defined]
    return endpoint


def _may(row: Row, caller: Caller, session: Session | Record) -> bool:
    """Whether a row lets a caller at a session."""
    if caller.admin:
        return row.admin != "-"
    if caller.key == "session":
        return row.session != "-" and session.is_key(caller.digest)
    if caller.key == "observer":
        return row.observer != "-" and caller.session == session.id
    role = caller.roles.get(session.course or "")
    if role is None:
        return False
    cell = row.reach(role)
    return cell in ("course", "all") or (cell == "own" and session.owner == caller.subject)


def sees(caller: Caller, session: Session | Record) -> bool:
    """Whether a caller may know that a session exists."""
    return _may(SEES, caller, session)


def seen_by(caller: Caller) -> Part | None:
    """The sessions that a caller may know of, None for all: what `sees` says of each of them."""
    if caller.admin:
        return None
    whole = [course for course, role in caller.roles.items() if SEES.reach(role) in ("course", "all")]
    return Part(whole, caller.subject, [course for course, role in caller.roles.items() if SEES.reach(role) == "own"])


def _refusal(row: Row, caller: Caller, session: Session | Record | None, scope: Scope) -> Problem:
    if caller.id == "anyone":
        return unauthorized("this needs a token: Authorization: Bearer <token>", scope)
    if caller.key == "session" and session is None:
        return unauthorized("a session's token opens that session only: send a person's", scope)
    if session is not None and not sees(caller, session):
        return _none_such(caller, session.id)
    who = ", ".join(name for name in COLUMNS[:-1] if row.reach(name) != "-")
    return Problem(403, "forbidden", f"{row.method} here is not for {caller.name}: it is for {who}, as docs/security.md says")


def _none_such(caller: Caller, sid: str) -> Problem:
    """The 404 for a session that is not there, or that the caller may not know of: he cannot tell which."""
    if caller.key == "session":
        detail = f"this token opens no session {sid[:60]!r}: a session's token is shown once, when it is created, and opens that session only"
        return Problem(404, "no-such-session", detail)
    return Registry.no_such_session(sid)


async def admit(scope: Scope, row: Row) -> Session | None:
    """Let a request in, or raise what keeps it out: 401, 403, 404, 429. Returns the session of its path, if it has one."""
    state = scope["app"].state
    gate: Gate = state.gate
    if row.public:
        return None
    sid = scope["path_params"].get("sid")
    scope[EPOCH] = gate.epoch
    caller = await gate.caller(scope, sid, row.path in STREAMS)
    if caller.id == "anyone" and not caller.admin:
        raise _refusal(row, caller, None, scope)
    scope[CALLER] = caller
    if gate.quota is not None:
        level = gate.quota.take(caller.id, time.monotonic())
        scope[QUOTA] = level
        if level.retry_in:
            raise gate.quota.refusal(level)
    if sid is None:
        if not _may_anywhere(row, caller, scope["path_params"].get("course")):
            raise _refusal(row, caller, None, scope)
        return None
    try:
        session = scope[SESSION] = await _enter(state.registry, row, caller, sid, scope)
    except Problem as problem:
        raise (_none_such(caller, sid) if problem.status == 404 else problem) from None
    return session


async def _enter(registry: Registry, row: Row, caller: Caller, sid: str, scope: Scope) -> Session:
    """The session, if the caller may: one that sleeps is not woken by whom it does not concern."""
    if not caller.admin and not registry.here(sid):
        _require(row, caller, await registry.look_up(sid), scope)
    session = await registry.find(sid)
    _require(row, caller, session, scope)
    return session


def _require(row: Row, caller: Caller, session: Session | Record, scope: Scope) -> None:
    if not _may(row, caller, session):
        raise _refusal(row, caller, session, scope)


def _may_anywhere(row: Row, caller: Caller, course: str | None) -> bool:
    """Whether a row without a session lets a caller in; what he sees there is up to the route, by `row` and role."""
    if caller.admin:
        return row.admin != "-"
    if caller.key is not None:
        return row.reach(caller.key) != "-"
    if course is not None:
        return course in caller.roles and row.reach(caller.roles[course]) != "-"
    return any(row.reach(role) != "-" for role in caller.roles.values())


class GuardedRoute(APIRoute):
    """A route of FastAPI's that checks its caller before it reads anything."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind the check."""
        handler = super().get_route_handler()
        rows = {method: ROWS.get((method, self.path)) for method in self.methods or ()}

        async def guarded(request: Request) -> Response:
            row = rows[request.method]
            assert row is not None, "require_rows lets no such route start"
            await admit(request.scope, row)
            return await handler(request)

        return guarded


_DOCUMENTED: Final = {(method, path.replace(":path", "")): row for (method, path), row in ROWS.items()}


def schemes(method: str, path: str) -> list[dict[str, list[str]]]:
    """What a caller may bring to a route, in the words of the OpenAPI document; the empty choice is a service that asks nobody."""
    row = _DOCUMENTED.get((method, path)) or ROWS["POST", CALL]  # each call has a path of its own in the document
    if row.public:
        return []
    names = ["token", "openid"]
    names += ["observer"] if row.observer != "-" else []
    names += ["ticket"] if path in STREAMS else []
    names += ["password"] if "/fs" in path else []
    found: list[dict[str, list[str]]] = [{name: []} for name in names]
    return [{}, *found]


def methods_of(route: BaseRoute) -> list[tuple[str, str]]:
    """The keys that a route should have in the table."""
    if isinstance(route, WebSocketRoute | APIWebSocketRoute):
        return [(WEBSOCKET, route.path)]
    if isinstance(route, Route):
        implied = {"HEAD"} if not isinstance(route, APIRoute) else set()
        return [(method, route.path) for method in sorted((route.methods or set()) - implied)]
    return []


def require_rows(routes: Iterable[BaseRoute]) -> None:
    """Refuse to start with a route that has no row, a row that has no route, or a route that nobody guards. Raises LookupError."""
    routes = list(routes)
    keys = {key: route for route in routes for key in methods_of(route)}
    wrong = [f"{method} {path} has no row in app/identity/table.py" for method, path in keys.keys() - ROWS.keys()]
    wrong += [f"{method} {path} stands in app/identity/table.py, but nothing is served there" for method, path in ROWS.keys() - keys.keys()]
    for key, route in keys.items():
        guarded = isinstance(route, GuardedRoute) or getattr(getattr(route, "endpoint", None), "admits", False)
        if not guarded and key in ROWS and not ROWS[key].public:
            wrong.append(f"{' '.join(key)} is guarded by nobody: its router needs route_class=GuardedRoute")
    if wrong:
        raise LookupError("; ".join(sorted(wrong)))
