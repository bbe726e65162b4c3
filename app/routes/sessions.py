"""Sessions: create, list, read, rename, destroy; clock, batch, journal, archive, snapshots, clone, rewind, audit."""

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.deps import IfMatch, TheCaller, TheRegistry, TheSession
from app.errors import Problem
from app.host import travel
from app.host.archive import write_archive
from app.host.registry import Whose
from app.host.session import Named, Session
from app.identity.guard import GuardedRoute, seen_by
from app.identity.roles import Caller
from app.identity.table import ROWS
from app.routes import reply
from app.schemas import docs
from app.schemas.calls import Op
from app.schemas.sessions import Advance, CloneCreate, Rewind, SessionCreate, SessionPatch, SnapshotCreate
from app.storage import Record

MAX_SEQ = (1 << 63) - 1
router = APIRouter(prefix="/v1/sessions", tags=["sessions"], route_class=GuardedRoute)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _shown(record: Record, retention: int) -> dict[str, Any]:
    """A session as JSON."""
    return {
        "id": record.id,
        "name": record.name,
        "lab": record.lab,
        "owner": record.owner,
        "course": record.course,
        "machine": orjson.loads(record.machine),
        "seed": record.seed,
        "clock_ns": record.clock_ns,
        "epoch": record.epoch,
        "seq": record.seq,
        "state": "frozen" if record.frozen else "panicked" if record.panicked else "running",
        "events": {"oldest": max(1, record.last_event - retention + 1), "last": record.last_event},
        "differs": orjson.loads(record.differs or "null"),
        "created": _when(record.created),
        "ttl_ns": record.ttl_ns,
    }


def _record(session: Session) -> dict[str, Any]:
    return _shown(session.record(), session.settings.event_retention)


def _created(session: Session, token: str) -> Response:
    return reply.json(_record(session) | {"token": token}, session, 201, reply.location(session))


def _course(wanted: str | None, caller: Caller) -> str | None:
    """The course of a new session: the caller's only one where he names none. Raises 403, 422."""
    if caller.admin:
        return wanted
    mine = sorted(course for course, role in caller.roles.items() if ROWS["POST", "/v1/sessions"].reach(role) != "-")
    if wanted is None and len(mine) != 1:
        detail = f"course: you are in {', '.join(mine)}: say for which one the session is"
        raise Problem(422, "malformed-request", detail, errors=[{"detail": detail, "pointer": "#/course"}])
    if wanted is not None and wanted not in mine:
        raise Problem(403, "forbidden", f"you are in {', '.join(mine)}, not in {wanted[:60]!r}")
    return wanted or mine[0]


@router.post("", status_code=201, responses=docs.created("Session"))
async def create_session(body: SessionCreate, registry: TheRegistry, caller: TheCaller) -> Response:
    """Boot a kernel. The answer holds the session's token, which is shown once."""
    whose = Whose(caller.subject, _course(body.course, caller), limited=not caller.admin)
    return _created(*await registry.create(body.machine, body.seed, body.name, body.lab, body.ttl, whose))


@router.get("", responses=docs.ok("SessionList"))
async def list_sessions(
    registry: TheRegistry,
    caller: TheCaller,
    page_size: Annotated[int, Query(ge=1, le=1000)] = 100,
    page_token: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """The sessions that the caller may see, in order of creation."""
    sessions, token = await registry.page(page_size, page_token, seen_by(caller))
    headers = {"Link": f'</v1/sessions?page_size={page_size}&page_token={token}>; rel="next"'} if token else {}
    return reply.json({"items": [_shown(one, registry.settings.event_retention) for one in sessions], "next_page_token": token}, headers=headers)


@router.get("/{sid}", responses=docs.ok("Session"))
async def read_session(session: TheSession) -> Response:
    """One session."""
    return reply.json(_record(session), session)


@router.patch("/{sid}", responses=docs.ok("Session"))
async def patch_session(body: SessionPatch, session: TheSession) -> Response:
    """Rename a session, or give it another time to live."""
    session.label(body.name, body.ttl)
    return reply.json(_record(session), session)


@router.delete("/{sid}", status_code=204, response_class=Response, responses=docs.NOTHING)
async def delete_session(session: TheSession, registry: TheRegistry) -> Response:
    """Destroy a session; its streams end."""
    await registry.destroy(session)
    return Response(status_code=204)


@router.get("/{sid}/clock", tags=["clock"], responses=docs.ok("Clock"))
async def read_clock(session: TheSession) -> Response:
    """The simulated time since boot."""
    return reply.json({"clock_ns": session.clock_ns, "seq": session.seq}, session)


@router.post("/{sid}/clock", tags=["clock"], responses=docs.ok("Answer"))
async def advance_clock(body: Advance, session: TheSession, if_match: IfMatch = None) -> Response:
    """Let simulated time pass; the kernel's daemons and the programs run meanwhile. EDQUOT: the programs used up `max_work` before."""
    work = {} if body.max_work is None else {"max_work": body.max_work}
    answer = await session.call(Op("advance", None, {"duration_ns": body.advance, **work}), if_match)
    return reply.json(answer, session)


@router.get("/{sid}/journal", response_class=Response, responses=docs.text("application/jsonl", "The boot, then each operation, one a line."))
async def read_journal(request: Request, session: TheSession) -> Response:
    """The committed operations as JSON Lines: replaying them rebuilds the session exactly."""
    media = reply.media_of(request, "application/jsonl", "text/plain")
    return Response(await session.journal_lines(), headers={"ETag": session.etag}, media_type=media)


@router.get("/{sid}/archive", response_class=Response, responses=docs.binary("application/x-tar", "A tar of the text files of /proc and /sys."))
async def read_archive(request: Request, session: TheSession) -> Response:
    """The file tree as a tar, for tools that read a captured system."""
    data = await session.read("archive", write_archive, True)
    headers = {"ETag": session.etag, "Content-Disposition": f'attachment; filename="{session.id}.tar"'}
    return Response(data, headers=headers, media_type=reply.media_of(request, "application/x-tar", "application/octet-stream"))


@router.get("/{sid}/audit", responses=docs.ok("Audit"))
async def read_audit(session: TheSession) -> Response:
    """Check every invariant of the kernel's state and show the sums: what is owned, what is free, what is charged."""
    return reply.view(await session.read("audit", lambda kernel: kernel.view("audit"), True), session)


@router.get("/{sid}/memory", responses=docs.ok("Memory"))
async def read_memory(session: TheSession) -> Response:
    """Zones, watermarks and free lists."""
    return reply.view(await session.read("memory", lambda kernel: kernel.view("memory")), session)


def _snapshot(kept: Named) -> dict[str, Any]:
    return {
        "name": kept.name,
        "seq": kept.seq,
        "epoch": kept.epoch,
        "clock_ns": kept.clock_ns,
        "digest": kept.digest,
        "size": kept.size,
    }


@router.post("/{sid}/snapshots", tags=["time travel"], status_code=201, responses=docs.created("Snapshot"))
async def create_snapshot(body: SnapshotCreate, session: TheSession) -> Response:
    """Name the present state."""
    kept = await travel.name_state(session, body.name or f"seq-{session.seq}")
    return reply.json(_snapshot(kept), session, 201, reply.location(session, "/snapshots"))


@router.get("/{sid}/snapshots", tags=["time travel"], responses=docs.ok("SnapshotList"))
async def list_snapshots(session: TheSession) -> Response:
    """The named states."""
    return reply.json({"items": [_snapshot(kept) for kept in session.names.values()], "next_page_token": None}, session)


@router.delete("/{sid}/snapshots/{name}", tags=["time travel"], status_code=204, response_class=Response, responses=docs.NOTHING)
async def delete_snapshot(session: TheSession, name: str) -> Response:
    """Forget a named state."""
    travel.forget_name(session, name)
    return Response(status_code=204, headers={"ETag": session.etag})


@router.post("/{sid}/clone", tags=["time travel"], status_code=201, responses=docs.created("Session"))
async def clone_session(body: CloneCreate, session: TheSession, registry: TheRegistry, caller: TheCaller) -> Response:
    """A second session in the same state, in the same course; it belongs to whoever made it."""
    whose = Whose(session.owner if caller.key is not None else caller.subject, session.course, limited=not caller.admin)
    return _created(*await registry.clone(session, body.name, body.ttl, whose))


@router.post("/{sid}/rewind", tags=["time travel"], responses=docs.ok("Session"))
async def rewind_session(body: Rewind, session: TheSession, if_match: IfMatch = None) -> Response:
    """Go back in time; what came later is forgotten and the epoch grows."""
    if (body.seq is None) == (body.snapshot is None):
        raise Problem(422, "malformed-request", 'give either {"seq": N} or {"snapshot": "name"}', errors=[])
    await travel.rewind(session, body.seq, body.snapshot, if_match)
    return reply.json(_record(session), session)


@router.get("/{sid}/diff", tags=["time travel"], responses=docs.ok("Difference"))
async def read_difference(
    session: TheSession, from_: Annotated[int, Query(ge=0, le=MAX_SEQ, alias="from")], to: Annotated[int, Query(ge=0, le=MAX_SEQ)]
) -> Response:
    """What the operations after `from`, up to `to`, changed: counters with both values, text files with the lines that differ."""
    return reply.json(await travel.difference(session, from_, to), session)
