"""What an administrator watches: vmstat's lines, and the table of OOM kills."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from app.deps import IfMatch, TheSession
from app.errors import Problem
from app.identity.guard import GuardedRoute
from app.routes import reply
from app.schemas import docs
from app.schemas.calls import Op
from app.schemas.kinds import parse_duration
from app.schemas.sessions import VmstatInterval
from core import vmstat_text

router = APIRouter(prefix="/v1/sessions/{sid}", tags=["monitor"], route_class=GuardedRoute)


def _interval(text: str) -> int:
    try:
        every = parse_duration(int(text) if text.isascii() and text.isdigit() else text)
    except ValueError as error:
        raise Problem(422, "malformed-request", f"interval: {error}", errors=[{"detail": str(error), "pointer": "#/interval"}]) from None
    if every == 0:
        detail = 'an interval lasts longer than 0: "1s"; left out, there is one line since boot'
        raise Problem(422, "malformed-request", f"interval: {detail}", errors=[{"detail": detail, "pointer": "#/interval"}])
    return every


@router.get("/vmstat", responses=docs.vmstat())
async def read_vmstat(
    session: TheSession,
    interval: Annotated[str | None, Query(max_length=40, description="Of a line, from whole samples; left out or too early: one since boot.")] = None,
    count: Annotated[int, Query(ge=1, le=600, description="How many lines, up to now.")] = 10,
    accept: Annotated[str, Header(max_length=400)] = "",
) -> Response:
    """vmstat in its own columns; as JSON with each process's faults for Accept: application/json.

    Samples are taken while programs run, or at the interval that POST sets; before the first there is the line since boot, as vmstat begins.
    """
    every = 0 if interval is None else _interval(interval)
    rows = await session.read("vmstat", lambda kernel: kernel.view("vmstat", every=every, count=count))
    if "application/json" in accept:
        return reply.json({"items": rows, "next_page_token": None}, session)
    return Response(vmstat_text(rows), headers={"ETag": session.etag}, media_type="text/plain")


@router.post("/vmstat", responses=docs.ok("Answer"))
async def set_vmstat(body: VmstatInterval, session: TheSession, if_match: IfMatch = None) -> Response:
    """Say how often a line is taken."""
    args = {} if body.interval is None else {"interval": body.interval}
    return reply.json(await session.call(Op("vmstat", None, args), if_match), session)


@router.get("/oom", responses=docs.ok("OomTable"))
async def read_oom(session: TheSession) -> Response:
    """Every kill of the OOM killer: when, who, by whose request, with how many points, within which limit."""
    items = await session.read("oom", lambda kernel: kernel.view("oom"))
    return reply.json({"items": items, "next_page_token": None}, session)
