"""The file tree: Linux's own interface over HTTP, and the files of the simulated disk.

GET is cat, PUT is echo, MKCOL is mkdir, DELETE is rmdir, PROPFIND is ls.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Header, Path, Request
from starlette.responses import Response

from app.deps import IfMatch, TheSession
from app.errors import Problem, require_json
from app.host import travel
from app.host.session import Session
from app.identity.guard import GuardedRoute
from app.routes import reply, webdav
from app.routes.fs_errors import errno_problem, fs_problem
from app.routes.ranges import parse_range
from app.schemas import docs
from app.schemas.calls import Op, parse_body
from core import FsError, Kernel

router = APIRouter(prefix="/v1/sessions/{sid}", tags=["files"], route_class=GuardedRoute)
TEXT: Final = "text/plain; charset=utf-8"
BINARY: Final = "application/octet-stream"
ALLOW: Final = "DELETE, GET, HEAD, LOCK, MKCOL, OPTIONS, PROPFIND, PROPPATCH, PUT, UNLOCK"
READING: Final[Mapping[str, int]] = {"ENOTDIR": 404}
MAKING: Final[Mapping[str, int]] = {"EEXIST": 405, "ENOENT": 409}
MAX_SEQ: Final = (1 << 63) - 1
RangeHeader = Annotated[str | None, Header(alias="range", max_length=100)]
If = Annotated[str | None, Header(alias="if", max_length=4096, include_in_schema=False)]
Depth = Annotated[str | None, Header(include_in_schema=False)]
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])
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
async def read_file(
    session: TheSession,
    path: str,
    range_: RangeHeader = None,
    if_range: Annotated[str | None, Header(max_length=256, include_in_schema=False)] = None,
) -> Response:
    """Read a file (`cat`), or a directory's names, one a line (`ls`)."""
    clean = _path(path)
    limit = session.settings.max_answer

    def work(kernel: Kernel) -> Response:
        etag = session.etag
        answer = _read(kernel, clean, range_ if if_range in (None, etag) else None, limit)
        answer.headers["ETag"] = etag
        return answer

    try:
        return await session.read(f"read {clean.rpartition('/')[2]}", work)
    except FsError as error:
        raise fs_problem(error, READING) from None


@router.get("/at/{seq}/fs/{path:path}", tags=["time travel"], response_class=Response, responses=docs.file())
async def read_past_file(session: TheSession, seq: Annotated[int, Path(ge=0, le=MAX_SEQ)], path: str, range_: RangeHeader = None) -> Response:
    """A file, or a directory's names, as after operation `seq`."""
    clean, limit = _path(path), session.settings.max_answer
    try:
        return await travel.look(session, seq, lambda kernel: _read(kernel, clean, range_, limit))
    except FsError as error:
        raise fs_problem(error, READING) from None


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
async def write_file(request: Request, session: TheSession, path: str, if_match: IfMatch = None, if_: If = None) -> Response:
    """Write a file (`echo value >`)."""
    data, clean = await request.body(), _path(path)
    if "content-range" in request.headers:
        raise webdav.bad("a file is written as a whole: PUT takes no Content-Range")
    session.locks.require(clean, webdav.parse_if(if_))
    await _change(session, Op("put", None, {"path": clean, "data": data}), if_match)
    return Response(status_code=204, headers={"ETag": session.etag})


@router.delete("/fs/{path:path}", status_code=204, response_class=Response, responses=docs.NOTHING)
async def remove_file(session: TheSession, path: str, if_match: IfMatch = None, if_: If = None) -> Response:
    """Remove a cgroup (`rmdir`), or a file of /data."""
    clean = _path(path)
    session.locks.require(clean, webdav.parse_if(if_))
    await _change(session, Op("rmdir", None, {"path": clean}), if_match)
    return Response(status_code=204, headers={"ETag": session.etag})


@router.api_route("/fs/{path:path}", methods=["MKCOL"], include_in_schema=False)
async def make_directory(request: Request, session: TheSession, path: str, if_match: IfMatch = None, if_: If = None) -> Response:
    """Make a cgroup (`mkdir`)."""
    if await request.body():
        raise Problem(415, "no-body-here", "MKCOL takes no body")
    clean = _path(path)
    session.locks.require(clean, webdav.parse_if(if_))
    await _change(session, Op("mkdir", None, {"path": clean}), if_match, MAKING)
    return Response(status_code=201, headers={"ETag": session.etag, **reply.location(session, f"/fs{clean}")})


def dav(method: str) -> Callable[[Handler], Handler]:
    """A route of the whole tree, its root with and without a slash, for a method that OpenAPI has no word for."""

    def add(handler: Handler) -> Handler:
        for address in ("/fs/{path:path}", "/fs"):
            router.add_api_route(address, handler, methods=[method], include_in_schema=False, response_class=Response)
        return handler

    return add


def _base(session: Session) -> str:
    return f"{session.settings.root_path or ''}/v1/sessions/{session.id}/fs"


@dav("PROPFIND")
async def find_properties(request: Request, session: TheSession, path: str = "", depth: Depth = None) -> Response:
    """List a directory for a WebDAV client."""
    clean, levels, wanted = _path(path), webdav.parse_depth(depth), webdav.parse_propfind(await request.body())

    def work(kernel: Kernel) -> tuple[bytes, str]:
        paths = [clean]
        if levels and kernel.stat(clean)["type"] == "dir":
            paths += [f"{clean.rstrip('/')}/{name}" for name in kernel.listdir(clean)]
        return webdav.multistatus([_propfind_item(kernel, session, item) for item in paths], wanted), session.etag

    try:
        data, etag = await session.read("propfind", work)
    except FsError as error:
        raise fs_problem(error, READING) from None
    return Response(data, 207, {"ETag": etag, "DAV": webdav.CLASSES}, XML)


def _propfind_item(kernel: Kernel, session: Session, path: str) -> tuple[str, dict[str, str]]:
    stat, base = kernel.stat(path), _base(session)
    href = base + path + ("/" if stat["type"] == "dir" and path != "/" else "")
    found = webdav.properties(path.rpartition("/")[2] or "/", stat, _size(kernel, path, stat), kernel.clock_ns, session.etag,
                              session.locks.of(path), base)  # fmt: skip
    return href, found


def _size(kernel: Kernel, path: str, stat: Mapping[str, Any]) -> int:
    """How many bytes a client will read. A file that can only be written has none."""
    if stat["type"] == "dir":
        return 0
    if stat["size"] is not None:
        return int(stat["size"])
    try:
        return len(kernel.read(path))
    except FsError:
        return 0


@dav("OPTIONS")
async def file_options(session: TheSession, path: str = "") -> Response:
    """What WebDAV clients ask first."""
    return Response(status_code=204, headers={"Allow": ALLOW, "DAV": webdav.CLASSES, "MS-Author-Via": "DAV"})


@dav("LOCK")
async def lock_file(
    request: Request,
    session: TheSession,
    path: str = "",
    depth: Depth = None,
    if_: If = None,
    timeout: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Lock a file for other WebDAV clients, or refresh a lock."""
    clean, seconds, body = _path(path), webdav.parse_timeout(timeout), await request.body()
    try:
        await session.read("stat", lambda kernel: kernel.stat(clean))
    except FsError as error:
        raise fs_problem(error, READING) from None
    if not body.strip():
        lock = session.locks.refresh(clean, webdav.parse_if(if_) or (), seconds)
        return Response(webdav.locked(lock, _base(session)), 200, media_type=XML)
    asked = webdav.parse_lockinfo(body)
    lock = session.locks.take(clean, asked.exclusive, webdav.parse_lock_depth(depth), asked.owner, seconds)
    return Response(webdav.locked(lock, _base(session)), 200, {"Lock-Token": f"<{lock.token}>"}, XML)


@dav("UNLOCK")
async def unlock_file(session: TheSession, path: str = "", lock_token: Annotated[str | None, Header(include_in_schema=False)] = None) -> Response:
    """Give a lock back."""
    session.locks.give_back(_path(path), webdav.parse_lock_token(lock_token))
    return Response(status_code=204)


@dav("PROPPATCH")
async def patch_properties(request: Request, session: TheSession, path: str = "") -> Response:
    """The kernel's files have no properties of a client's own: each is refused in the multistatus."""
    clean, names = _path(path), webdav.parse_propertyupdate(await request.body())
    try:
        await session.read("stat", lambda kernel: kernel.stat(clean))
    except FsError as error:
        raise fs_problem(error, READING) from None
    return Response(webdav.nothing_set(_base(session) + clean, names), 207, media_type=XML)


@dav("COPY")
@dav("MOVE")
async def not_in_this_tree(request: Request, session: TheSession, path: str = "") -> Response:
    """The kernel's files are neither copied nor moved."""
    raise Problem(403, "refused", f"{request.method} is not possible in the kernel's file tree: read the file and write another", errno="EPERM")


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
    return reply.json({"path": args["path"], "size": args["size"]} | answer, session, 201, reply.location(session, f"/fs{args['path']}"))
