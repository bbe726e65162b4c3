"""The cgroup tree as typed JSON, for web interfaces; every change is a write to one of its files.

A setting of the memory controller needs `+memory` in the `cgroup.subtree_control` of every group above; a student of the files writes that
by hand, here it is done on the way. systemd's words (`MemoryMax`, a pasted `[Service]` section) become the writes that systemd would make.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.deps import IfMatch, TheSession
from app.errors import Problem, malformed, require_json
from app.host.batches import transaction
from app.host.session import Session
from app.identity.guard import GuardedRoute
from app.routes import reply
from app.routes.fs_errors import fs_problem
from app.schemas import docs, systemd
from app.schemas.calls import Op
from core import FsError

router = APIRouter(prefix="/v1/sessions/{sid}/cgroups", tags=["cgroups"], route_class=GuardedRoute)
MOUNT: Final = "/sys/fs/cgroup"
_FILE: Final = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")


def _bad(member: str, detail: str) -> Problem:
    return malformed([{"loc": (member,), "msg": detail, "type": "value_error"}])


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or value == "/" or "//" in value or "\0" in value or len(value) > 4096:
        raise _bad("path", f'{str(value)[:60]!r} is not the path of a cgroup: give one below the root ("/app")')
    if any(part in (".", "..") for part in value.split("/")) or not value.isprintable():
        raise _bad("path", "a cgroup's path holds neither . nor .. nor unprintable characters")
    return value.rstrip("/")


def _text(member: str, value: object) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        raise _bad(member, 'it is neither a number nor a string: write what `echo` would ("50M", "max", 0)')
    try:
        return ("max" if value is None else str(value)).encode()
    except UnicodeEncodeError:
        raise _bad(member, "it is not text that UTF-8 can carry") from None


class Setting(NamedTuple):
    """One file to write, and the member of the request that it comes from."""

    member: str
    file: str
    data: bytes


async def _settings(session: Session, members: Mapping[str, object]) -> list[Setting]:
    """What a request's members ask for: files by name, systemd's properties, a pasted unit."""
    memory = swap = 0
    if any(name in systemd.PROPERTIES or name == systemd.UNIT for name in members):
        memory, swap = await session.read("installed", lambda kernel: kernel.view("installed"))
    found: list[Setting] = []
    for name, value in members.items():
        if name == systemd.UNIT or name in systemd.PROPERTIES:
            found += _systemd(name, value, memory, swap)
        elif _FILE.fullmatch(name):
            found.append(Setting(name, name, _text(name, value)))
        else:
            words = ", ".join((*systemd.PROPERTIES, systemd.UNIT))
            raise _bad(name, f'it is neither the name of a cgroup\'s file, such as "memory.max", nor one of {words}')
    return found


def _systemd(member: str, value: object, memory: int, swap: int) -> list[Setting]:
    value = "infinity" if value is None and member != systemd.UNIT else value
    if isinstance(value, bool) or not isinstance(value, str | int) or (member == systemd.UNIT and not isinstance(value, str)):
        raise _bad(member, 'it is not text such as "512M", "20%" or "infinity"' if member != systemd.UNIT else "it is not the text of a unit")
    try:
        pairs = list(systemd.properties(str(value))) if member == systemd.UNIT else [(member, str(value))]
        return [Setting(member, file, text.encode()) for file, text in (systemd.to_file(name, text, memory, swap) for name, text in pairs)]
    except ValueError as error:
        raise _bad(member, str(error)) from None


def _writes(path: str, settings: list[Setting]) -> list[Op]:
    return [Op("put", None, {"path": f"{MOUNT}{path}/{one.file}", "data": one.data}) for one in settings]


def _enable(path: str, settings: list[Setting]) -> list[Op]:
    """The writes that give a cgroup its memory controller, from the root down; none when no file needs it."""
    if not any(one.file.startswith("memory.") for one in settings):
        return []
    parts = path.split("/")[1:]
    groups = ["".join(f"/{part}" for part in parts[:depth]) for depth in range(len(parts))]
    return [Op("put", None, {"path": f"{MOUNT}{group}/cgroup.subtree_control", "data": b"+memory"}) for group in groups]


async def _object(request: Request) -> dict[str, Any]:
    raw = await request.body()
    require_json(request.headers.get("content-type", ""))
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise malformed([{"loc": (), "msg": f"this is not JSON: {error}", "type": "json_invalid"}]) from None
    if not isinstance(body, dict):
        raise malformed([{"loc": (), "msg": "this is not a JSON object", "type": "dict_type"}])
    return body


async def _show(session: Session, path: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    try:
        view = await session.read("cgroup", lambda kernel: kernel.view("cgroup", path=path))
    except FsError as error:
        raise fs_problem(error) from None
    except LookupError:
        raise Problem(404, "no-such-cgroup", f"there is no cgroup {path[:100]}", errno="ENOENT") from None
    answer = reply.view(view, session)
    answer.status_code = status
    answer.headers.update(headers or {})
    return answer


async def _apply(session: Session, ops: list[Op], members: list[str], if_match: str | None) -> None:
    """Carry out the writes, all or none; a refusal points to the member whose write it is."""
    try:
        await transaction(session, ops, if_match)
    except Problem as problem:
        index = problem.extra.pop("index", None)
        if index is not None:
            problem.extra["errors"] = [{"detail": problem.detail, "pointer": f"#/{members[index]}"}]
        raise


@router.get("", responses=docs.ok("CgroupTree"))
async def read_cgroups(session: TheSession) -> Response:
    """The whole tree."""
    return reply.view(await session.read("cgroups", lambda kernel: kernel.view("cgroups")), session)


@router.post("", status_code=201, responses=docs.created("Cgroup"), openapi_extra=docs.body("CgroupCreate"))
async def create_cgroup(request: Request, session: TheSession, if_match: IfMatch = None) -> Response:
    """Make a cgroup; members named as its files, or as systemd's properties, are its first settings; `service` is a pasted unit."""
    body = await _object(request)
    path = _path(body.pop("path", None))
    settings = await _settings(session, body)
    enable = _enable(path, settings)
    ops = [*enable, Op("mkdir", None, {"path": MOUNT + path}), *_writes(path, settings)]
    await _apply(session, ops, ["path"] * (len(enable) + 1) + [one.member for one in settings], if_match)
    return await _show(session, path, 201, reply.location(session, f"/cgroups{path}"))


@router.get("/{path:path}", responses=docs.ok("Cgroup"))
async def read_cgroup(session: TheSession, path: str) -> Response:
    """One cgroup and those below it."""
    return await _show(session, f"/{path}".rstrip("/") or "/")


@router.patch("/{path:path}", responses=docs.ok("Cgroup"), openapi_extra=docs.body("CgroupPatch"))
async def patch_cgroup(request: Request, session: TheSession, path: str, if_match: IfMatch = None) -> Response:
    """Change a cgroup's settings, all or none."""
    body = await _object(request)
    clean = "" if not path.strip("/") else _path(f"/{path}")
    settings = await _settings(session, body)
    enable = _enable(clean, settings)
    await _apply(session, [*enable, *_writes(clean, settings)], ["path"] * len(enable) + [one.member for one in settings], if_match)
    return await _show(session, clean or "/")
