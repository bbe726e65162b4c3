"""Calls under way: what a session is at, and how to stop it."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from app.deps import TheSession
from app.errors import Problem
from app.identity.guard import GuardedRoute
from app.routes import reply
from app.schemas import docs

router = APIRouter(prefix="/v1/sessions/{sid}/calls", tags=["calls"], route_class=GuardedRoute)
MAX_ID = (1 << 63) - 1


@router.get("", responses=docs.ok("CallList"))
async def list_calls(session: TheSession) -> Response:
    """The calls that run or wait for their turn, in order of arrival. Answered at once, whatever the session is at."""
    items = [
        call.document() | {"since": datetime.fromtimestamp(call.since, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        for call in session.calls.under_way.values()
    ]
    return reply.json({"items": items, "next_page_token": None}, session)


@router.delete("/{id}", status_code=204, response_class=Response, responses=docs.NOTHING)
async def cancel_call(session: TheSession, id: Annotated[int, Path(ge=1, le=MAX_ID)]) -> Response:
    """Cancel a call: it never happened, and whoever made it is answered 409. A batch ends before the operation that it is at."""
    if not await session.calls.find(id).cancel():
        raise Problem(409, "call-done", f"call {id} could not be stopped any more: it has been carried out", {"ETag": session.etag}, seq=session.seq)
    return Response(status_code=204, headers={"ETag": session.etag})
