"""The file tree: Linux's own interface over HTTP, and the files of the simulated disk.

GET is cat, PUT is echo, MKCOL is mkdir, DELETE is rmdir, PROPFIND is ls.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from app.deps import IfMatch, TheSession
from app.errors import Problem, require_json
from app.host.session import Session
from app.identity.guard import GuardedRoute
from app.routes import reply
from app.routes.fs_errors import errno_problem, fs_problem
from app.routes.ranges import parse_range
from app.routes.webdav import multistatus, parse_depth, parse_propfind, properties
from app.schemas import docs
from app.schemas.calls import Op, parse_body
from core import FsError, Kernel

router = APIRouter(prefix="/v1/sessions/{sid}", tags=["files"], route_class=GuardedRoute)
TEXT: Final = "text/plain; charset=utf-8"
BINARY: Final = "application/octet-stream"
ALLOW: Final = "DELETE, GET, HEAD, MKCOL, OPTIONS, PROPFIND, PUT"
READING: Final[Mapping[str, int]] = {"ENOTDIR": 404}
MAKING: Final[Mapping[str, int]] = {"EEXIST": 405, "ENOENT": 409}
RangeHeader = Annotated[str | None, Header(alias="range", max_length=100)]
XML: Final = 'application/xml; charset="utf-8"'


def _path(path: str) -> str:
    clean = "/" + path.strip("/")
    if "\0" in clean or len(clean) > 4096:
        raise Problem(404, "refused", "a path has at most 4096 characters and no NUL", errno="ENOENT")
    try:
        clean.encode()
    except UnicodeEncodeError:
        raise Problem(404, "refused", "the path is not UTF-8", errno="ENOENT") from None
    return clean


def _read(kernel: Kernel, path: str, header: str | None, limit: int) -> Response:
    """A file, or the part of it that a Range names. Runs within the session's turn."""
    stat = kernel.stat(path)
    media = BINARY if stat["binary"] else TEXT
    if stat["type"] == "dir":
        return Response("".join(f"{name}\n" for name in kernel.listdir(path)), media_type=TEXT)
    if stat["binary"] and stat["size"] is not None:
        return _read_binary(kernel, path, stat["size"], header, limit)
    data = kernel.read(path)
    part = parse_range(header, len(data))
    if part is None:
        return Response(data, headers={"Accept-Ranges": "bytes"}, media_type=media)
    return _partial(data[part[0] : part[1]], part[0], len(data), media)


def _read_binary(kernel: Kernel, path: str, size: int, header: str | None, limit: int) -> Response:
    part = parse_range(header, size)
    if part is None and size > limit:
        detail = f"the file has {size} bytes, one answer at most {limit}: ask for a part with Range: bytes=first-last"
        raise Problem(416, "range-not-satisfiable", detail, {"Content-Range": f"bytes */{size}"})
    start, stop = part or (0, size)
    data = kernel.pread(path, start, min(stop - start, limit))
    if part is None:
        return Response(data, headers={"Accept-Ranges": "bytes"}, media_type=BINARY)
    return _partial(data, start, size, BINARY)


def _partial(data: bytes, start: int, size: int, media: str) -> Response:
    headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{start + len(data) - 1}/{size}"}
    return Response(data, 206, headers, media)


@router.get("/fs/{path:path}", response_class=Response, responses=docs.file())
@router.head("/fs/{path:path}", include_in_schema=False)
async def read_file(session: TheSession, path: str, range_: RangeHeader = None) -> Response:
    """Read a file (`cat`), or a directory's names, one a line (`ls`)."""
    clean = _path(path)
    limit = session.settings.max_answer
    try:
        answer = await session.read(f"read {clean.rpartition('/')[2]}", lambda kernel: _read(kernel, clean, range_, limit))
    except FsError as error:
        raise fs_problem(error, READING) from None
    answer.headers["ETag"] = session.etag
    return answer


async def _change(session: Session, op: Op, if_match: str | None, overrides: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Carry out a change of the tree; an errno is a problem here."""
    try:
        answer = await session.call(op, if_match)
    except FsError as error:
        raise fs_problem(error, overrides) from None
    if answer["errno"] is not None:
        raise errno_problem(answer["errno"], f"{op.op} {op.args['path']}: {answer['errno']}", overrides)
    return answer


@router.put("/fs/{path:path}", status_code=204, response_class=Response, responses=docs.NOTHING, openapi_extra=docs.raw_body())
async def write_file(request: Request, session: TheSession, path: str, if_match: IfMatch = None) -> Response:
    """Write a file (`echo value >`)."""
    data = await request.body()
    await _change(session, Op("put", None, {"path": _path(path), "data": data}), if_match)
    return Response(status_code=204, headers={"ETag": session.etag})


@router.delete("/fs/{path:path}", status_code=204, response_class=Response, responses=docs.NOTHING)
async def remove_file(session: TheSession, path: str, if_match: IfMatch = None) -> Response:
    """Remove a cgroup (`rmdir`), or a file of /data."""
    await _change(session, Op("rmdir", None, {"path": _path(path)}), if_match)
    return Response(status_code=204, headers={"ETag": session.etag})


@router.api_route("/fs/{path:path}", methods=["MKCOL"], include_in_schema=False)
async def make_directory(request: Request, session: TheSession, path: str, if_match: IfMatch = None) -> Response:
    """Make a cgroup (`mkdir`)."""
    if await request.body():
        raise Problem(415, "no-body-here", "MKCOL takes no body")
    clean = _path(path)
    await _change(session, Op("mkdir", None, {"path": clean}), if_match, MAKING)
    return Response(status_code=201, headers={"ETag": session.etag, "Location": f"/v1/sessions/{session.id}/fs{clean}"})


@router.api_route("/fs/{path:path}", methods=["PROPFIND"], include_in_schema=False)
async def find_properties(request: Request, session: TheSession, path: str, depth: Annotated[str | None, Header()] = None) -> Response:
    """List a directory for a WebDAV client."""
    clean, levels, wanted = _path(path), parse_depth(depth), parse_propfind(await request.body())
    base = f"/v1/sessions/{session.id}/fs"

    def work(kernel: Kernel) -> bytes:
        paths = [clean]
        if levels and kernel.stat(clean)["type"] == "dir":
            paths += [f"{clean.rstrip('/')}/{name}" for name in kernel.listdir(clean)]
        return multistatus([_propfind_item(kernel, base, item) for item in paths], wanted)

    try:
        data = await session.read("propfind", work)
    except FsError as error:
        raise fs_problem(error, READING) from None
    return Response(data, 207, {"ETag": session.etag, "DAV": "1"}, XML)


def _propfind_item(kernel: Kernel, base: str, path: str) -> tuple[str, dict[str, str]]:
    stat = kernel.stat(path)
    href = base + path + ("/" if stat["type"] == "dir" and path != "/" else "")
    return href, properties(path.rpartition("/")[2] or "/", stat, kernel.clock_ns)


@router.api_route("/fs/{path:path}", methods=["OPTIONS"], include_in_schema=False)
async def file_options(session: TheSession, path: str) -> Response:
    """What WebDAV clients ask first."""
    return Response(status_code=204, headers={"Allow": ALLOW, "DAV": "1", "MS-Author-Via": "DAV"})


@router.api_route("/fs/{path:path}", methods=["COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"], include_in_schema=False)
async def not_in_this_tree(request: Request, session: TheSession, path: str) -> Response:
    """The kernel's files are neither copied nor moved nor locked, and have no properties of a client's own."""
    raise Problem(403, "refused", f"{request.method} is not possible in the kernel's file tree", errno="EPERM")


@router.get("/files", responses=docs.ok("FileList"))
async def list_files(session: TheSession) -> Response:
    """The files of the simulated disk."""
    items = await session.read("files", lambda kernel: kernel.view("files"))
    return reply.json({"items": items, "next_page_token": None}, session)


@router.post("/files", status_code=201, responses=docs.created("FileAnswer"), openapi_extra=docs.body("CreateFileBody"))
async def create_file(request: Request, session: TheSession, if_match: IfMatch = None) -> Response:
    """Put a file of random bytes on the simulated disk."""
    raw = await request.body()
    require_json(request.headers.get("content-type", ""))
    args = parse_body("create_file", raw)
    answer = await _change(session, Op("create_file", None, args), if_match)
    location = f"/v1/sessions/{session.id}/fs{args['path']}"
    return reply.json({"path": args["path"], "size": args["size"]} | answer, session, 201, {"Location": location})
