"""A session's events: one address, four forms."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, WebSocket
from starlette.responses import Response

from app.deps import TheSession, TheWatch, enter_stream, watch_of
from app.errors import Problem
from app.host.autopsy import autopsy
from app.host.session import Session
from app.host.why import why
from app.identity.guard import GuardedRoute, admits
from app.routes import reply
from app.schemas import docs
from app.schemas.events import BATCH
from app.schemas.kinds import parse_duration
from app.stream import lines, poll
from app.stream.hub import Filter, Subscription, cursor, parse_types
from app.stream.websocket import refuse, serve

router = APIRouter(prefix="/v1/sessions/{sid}/events", tags=["events"], route_class=GuardedRoute)
MAX_WAIT_S = 60.0
MAX_ID = (1 << 63) - 1

After = Annotated[int | None, Query(ge=0, le=MAX_ID, description="The id of the last event that is known; streams begin at the present without it.")]
Types = Annotated[str | None, Query(max_length=400, description="Event types, comma-separated.")]
Pid = Annotated[int | None, Query(ge=1, le=MAX_ID)]
Cgroup = Annotated[str | None, Query(max_length=4096, description="A cgroup's path; events of the groups below it belong to it.")]


def _subscription(
    session: Session, after: int | None, types: str | None, pid: int | None, cgroup: str | None, progress: bool = True
) -> Subscription:
    wanted = Filter(parse_types(types), pid, cgroup)
    return Subscription(session, wanted, cursor(session, after), progress)


def _seconds(wait: str) -> float:
    try:
        return min(parse_duration(int(wait) if wait.isascii() and wait.isdigit() else wait) / 10**9, MAX_WAIT_S)
    except ValueError as error:
        raise Problem(422, "malformed-request", f"wait: {error}", errors=[{"detail": str(error), "pointer": "#/wait"}]) from None


@router.get("", responses=docs.events())
async def read_events(
    request: Request,
    session: TheSession,
    watched: TheWatch,
    after: After = None,
    wait: Annotated[str, Query(max_length=40, description="How long the page may wait for a first event, at most 60s.")] = "0s",
    limit: Annotated[int, Query(ge=1, le=10_000, description="Events of one page.")] = 1000,
    types: Types = None,
    pid: Pid = None,
    cgroup: Cgroup = None,
    last_event_id: Annotated[str | None, Header(description="Resumes a stream of server-sent events.")] = None,
) -> Response:
    """Events by `Accept`: server-sent events, JSON Lines, or a page that may wait for its first; here is a websocket too."""
    seconds = _seconds(wait)
    accept = request.headers.get("accept", "")
    if "text/event-stream" in accept:
        return lines.sse(_subscription(session, _resume(after, last_event_id), types, pid, cgroup), watched)
    if "application/jsonl" in accept or "application/x-ndjson" in accept:
        return lines.jsonl(_subscription(session, after, types, pid, cgroup), watched)
    oldest = session.ring.oldest - 1 if after is None else after
    subscription = _subscription(session, oldest, types, pid, cgroup, progress=False)
    return Response(await poll.page(subscription, limit, seconds, watched), headers={"ETag": session.etag}, media_type=reply.JSON)


@router.get("/{id}/why", responses=docs.ok("Why"))
async def explain_event(session: TheSession, id: Annotated[int, Path(ge=1, le=MAX_ID)]) -> Response:
    """Why an event happened: the chain of its causes, back to the request or the timer that set the kernel to work."""
    return reply.json(await why(session, id), session)


@router.get("/{id}/autopsy", responses=docs.ok("Autopsy"))
async def autopsy_of_event(session: TheSession, id: Annotated[int, Path(ge=1, le=MAX_ID)]) -> Response:
    """The smallest single change that would have avoided this OOM kill, found by trying: with it no kill, with one step less a kill."""
    return reply.json(await autopsy(session, id), session)


def _resume(after: int | None, last_event_id: str | None) -> int | None:
    """What a server-sent stream resumes after: the browser's header is newer than its address."""
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19:
        return int(last_event_id)
    return after


@router.websocket("")
@admits
async def stream_events(websocket: WebSocket, sid: str) -> None:
    """Events as a websocket: one JSON object a message."""
    try:
        session = await enter_stream(websocket, router.prefix)
        subscription, batch = _subscription(session, *_queries(websocket)), _batch(websocket.query_params.get("batch"))
        lines.require_place(subscription)
    except Problem as problem:
        await refuse(websocket, problem)
        return
    with watch_of(websocket)() as watch:
        await serve(websocket, subscription, watch, batch)


def _queries(websocket: WebSocket) -> tuple[int | None, str | None, int | None, str | None]:
    query = websocket.query_params
    return _number(query.get("after"), "after"), query.get("types"), _number(query.get("pid"), "pid"), query.get("cgroup")


def _batch(text: str | None) -> int | None:
    """Events of one message, if they shall come as arrays. Raises 422."""
    number = _number(text, "batch")
    if number is not None and not 1 <= number <= BATCH:
        detail = f"batch: a message has 1 to {BATCH} events"
        raise Problem(422, "malformed-request", detail, errors=[{"detail": detail, "pointer": "#/batch"}])
    return number


def _number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    raise Problem(
        422,
        "malformed-request",
        f"{name}: {text[:40]!r} is not a whole number",
        errors=[{"detail": "not a whole number", "pointer": f"#/{name}"}],
    )
