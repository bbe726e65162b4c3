"""Policies compared on one trace: faults against memory, as columns or as a picture."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, WebSocket
from pydantic import ValidationError
from starlette.responses import Response

from app.deps import TheRegistry, TheSession, enter_stream, watch_of
from app.errors import Problem, from_validation, require_json
from app.identity.guard import GuardedRoute, admits
from app.routes import reply
from app.schemas import docs, plot
from app.schemas.kinds import parse_duration
from app.schemas.replay import Compare, Replay, ReplaySession, render, sizes
from app.stream.policy import serve_policy
from app.stream.websocket import refuse
from core import CALLS, Trace, compare_policies, generate_trace, trace_from_bytes, trace_of_touches

router = APIRouter(prefix="/v1", tags=["replay"], route_class=GuardedRoute)
BINARY = "application/octet-stream"
FALLBACKS = tuple(CALLS["reclaim_policy"].params["fallback"].choices or ())
Policies = Annotated[str, Query(max_length=200, description="Of a binary body: policies, comma-separated.")]
Frames = Annotated[str, Query(max_length=4000, description="Of a binary body: sizes of memory in frames, comma-separated.")]


def refused(error: ValueError) -> Problem:
    """What the core said about a trace or a comparison, as a 422."""
    return Problem(422, "malformed-request", str(error), errors=[{"detail": str(error), "pointer": "#"}])


def _trace(body: Replay) -> Callable[[], Trace]:
    """The trace of a JSON body, to be made off the event loop."""
    if (body.trace is None) == (body.generate is None):
        raise Problem(422, "malformed-request", 'give either {"trace": [page, …]} or {"generate": {…}}', errors=[])
    if (given := body.trace) is not None:
        return lambda: Trace.of(given)
    assert body.generate is not None
    made = body.generate.model_dump()
    return lambda: generate_trace(**made)


def _comparison(policies: str, frames: str) -> Compare:
    """What the query of a binary body asks for."""
    wanted: dict[str, Any] = {}
    if policies:
        wanted["policies"] = [name.strip() for name in policies.split(",")]
    if frames:
        wanted["frames"] = [int(word) if word.strip().isdecimal() else word for word in frames.split(",")]
    try:
        return Compare.model_validate(wanted)
    except ValidationError as error:
        raise from_validation(error) from None


def _work(compare: Compare, make: Callable[[], Trace]) -> dict[str, Any]:
    trace = make()
    return render(compare_policies(trace, compare.policies, sizes(compare, trace), compare.seed))


async def _answer(request: Request, registry: TheRegistry, compare: Compare, make: Callable[[], Trace], title: str) -> Response:
    """Compare in a thread, then show it as the client likes to see it."""
    try:
        table = await registry.in_thread(lambda: _work(compare, make))
    except ValueError as error:
        raise refused(error) from None
    if "image/svg+xml" in request.headers.get("accept", ""):
        return Response(plot.faults(table, title), media_type="image/svg+xml")
    return reply.json(table)


@router.post("/replay", openapi_extra=docs.replay_body(), responses=docs.replayed())
async def replay_trace(request: Request, registry: TheRegistry, policies: Policies = "", frames: Frames = "") -> Response:
    """Replay a trace through several policies and sizes of memory. `Accept: image/svg+xml` answers a plot of faults against memory.

    The trace is a list of page numbers, made up by a generator, or the body itself: 32-bit little-endian page numbers as application/octet-stream.
    """
    raw = await request.body()
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == BINARY:
        return await _answer(request, registry, _comparison(policies, frames), lambda: trace_from_bytes(raw), "a trace")
    require_json(kind)
    try:
        body = await asyncio.to_thread(Replay.model_validate_json, raw)
    except ValidationError as error:
        raise from_validation(error) from None
    title = f"{body.generate.pattern}, {body.generate.pages:,} pages" if body.generate else "a trace"
    return await _answer(request, registry, body, _trace(body), title)


@router.post("/sessions/{sid}/replay", responses=docs.replayed())
async def replay_session(request: Request, body: ReplaySession, session: TheSession, registry: TheRegistry) -> Response:
    """Replay the pages that a process touched (its `touch` operations in the journal) through several policies and sizes of memory."""
    calls = [done.op.args for done in await session.history.committed() if done.op.op == "touch" and done.op.pid == body.pid]
    if not calls:
        raise Problem(409, "no-trace", f"process {body.pid} has touched nothing yet: the journal holds no touch of it", seq=session.seq)
    return await _answer(request, registry, body, lambda: trace_of_touches(calls), f"process {body.pid}")


@router.websocket("/sessions/{sid}/policy")
@admits
async def be_the_policy(websocket: WebSocket, sid: str) -> None:
    """A program chooses the pages that reclaim takes (`stream.policy`)."""
    query = websocket.query_params
    try:
        session = await enter_stream(websocket, "/v1/sessions/{sid}/policy")
        fallback = query.get("fallback", "fifo")
        if fallback not in FALLBACKS:
            raise Problem(422, "malformed-request", f"fallback must be one of {', '.join(FALLBACKS)}", errors=[])
        budget = _budget(query.get("budget", "500ms"))
    except Problem as problem:
        await refuse(websocket, problem)
        return
    with watch_of(websocket)() as watch:
        await serve_policy(websocket, session, watch, fallback, budget)


def _budget(text: str) -> int:
    try:
        budget = parse_duration(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise refused(ValueError(f"budget: {error}")) from None
    if not 1_000_000 <= budget <= 60 * 10**9:
        raise refused(ValueError("budget: a question may take from 1ms to 60s"))
    return budget
