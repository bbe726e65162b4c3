"""Processes: what they are and how they stand. Their system calls are in `hot`."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.deps import IfMatch, TheSession
from app.errors import Problem, require_json
from app.host.outcome import no_such_process
from app.host.session import Session
from app.identity.guard import GuardedRoute
from app.routes import reply
from app.schemas import docs, plot
from app.schemas.calls import Op, parse_body, parse_pid
from app.schemas.kinds import parse_address
from app.schemas.views import render_view

router = APIRouter(prefix="/v1/sessions/{sid}/processes", tags=["processes"], route_class=GuardedRoute)
EXPLAIN: Final = "explain_"


async def _view(session: Session, pid: str, name: str, **args: Any) -> Any:
    """A view of one process. Raises 404 for a pid that names none."""
    number = parse_pid(pid)
    try:
        return render_view(await session.read(name, lambda kernel: kernel.view(name, pid=number, **args)))
    except LookupError as error:
        raise no_such_process(number, error) from None


@router.post("", status_code=201, responses=docs.created("Spawned"), openapi_extra=docs.body("SpawnBody"))
async def spawn_process(request: Request, session: TheSession, if_match: IfMatch = None) -> Response:
    """Start a process."""
    raw = await request.body()
    require_json(request.headers.get("content-type", ""))
    answer = await session.call(Op("spawn", None, parse_body("spawn", raw)), if_match)
    if answer["errno"] is not None:
        return reply.json({"pid": None} | answer, session)
    pid = answer["result"]["pid"]
    return reply.json({"pid": pid} | answer, session, 201, reply.location(session, f"/processes/{pid}"))


@router.get("", responses=docs.ok("ProcessList"))
async def list_processes(session: TheSession) -> Response:
    """The processes, dead ones that nobody has waited for included."""
    items = await session.read("processes", lambda kernel: kernel.view("processes"))
    return reply.json({"items": render_view(items), "next_page_token": None}, session)


@router.get("/{pid}", responses=docs.ok("Process"))
async def read_process(session: TheSession, pid: str) -> Response:
    """One process."""
    return reply.json(await _view(session, pid, "process"), session)


@router.get("/{pid}/vmas", responses=docs.ok("VmaList"))
async def list_vmas(session: TheSession, pid: str) -> Response:
    """A process's mapped regions, by address."""
    return reply.json({"items": await _view(session, pid, "vmas"), "next_page_token": None}, session)


@router.get("/{pid}/walk", responses=docs.ok("Walk"))
async def walk(session: TheSession, pid: str, address: Annotated[str, Query(max_length=40)]) -> Response:
    """The page walk of one address, level by level, and what an access there would do."""
    return reply.json(await _view(session, pid, "walk", address=_address(address)), session)


def _address(text: str) -> int:
    """An address of the query. Raises 422."""
    try:
        return parse_address(int(text) if text.isascii() and text.isdigit() else text)
    except ValueError as error:
        raise Problem(422, "malformed-request", f"address: {error}", errors=[{"detail": str(error), "pointer": "#/address"}]) from None


@router.get("/{pid}/tlb", responses=docs.ok("Tlb"))
async def tlb(session: TheSession, pid: str) -> Response:
    """What the TLB of the process's CPU holds for it, and what its accesses found there."""
    return reply.json(await _view(session, pid, "tlb"), session)


@router.get("/{pid}/tlb/reach", responses=docs.ok("TlbReach"))
async def tlb_reach(session: TheSession, pid: str) -> Response:
    """How much memory the levels of the TLB cover, by their entries and measured."""
    return reply.json(await _view(session, pid, "tlb_reach"), session)


@router.get("/{pid}/latency", responses=docs.latency())
async def latency(request: Request, session: TheSession, pid: str) -> Response:
    """How long the process's latest calls took, and what it stalled over. `Accept: image/svg+xml` answers a plot: time by fault, and stalls."""
    found = await _view(session, pid, "latency")
    if "image/svg+xml" in request.headers.get("accept", ""):
        return Response(plot.latency(found, f"process {pid}"), media_type="image/svg+xml")
    return reply.json(found, session)


@router.get("/{pid}/explain/{topic}", responses=docs.ok("Explanation"))
async def explain(session: TheSession, pid: str, topic: str, address: Annotated[str | None, Query(max_length=40)] = None) -> Response:
    """Why the kernel decided as it did, from what it recorded; of one page where the topic takes an `address`."""
    if topic not in docs.TOPICS:
        raise Problem(404, "no-such-topic", f"nothing is explained about {topic[:40]!r}: there is {', '.join(docs.TOPICS)}")
    args = {"address": _address(address) if address is not None else None} if docs.TOPICS[topic] else {}
    return reply.json(await _view(session, pid, EXPLAIN + topic, **args), session)
