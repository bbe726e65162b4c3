"""WebDAV class 1 (RFC 4918), as much as mounting a session takes: PROPFIND of depth 0 and 1.

A file has no size before it is read, as in a real /proc, so `getcontentlength` is given for files that know theirs only. Times are
simulated time since the epoch. A request body is parsed without document types, so no entity is ever expanded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import quote
from xml.parsers import expat
from xml.sax.saxutils import escape

from app.errors import Problem

DAV: Final = "DAV:"
LIVE: Final = ("displayname", "resourcetype", "getcontenttype", "getcontentlength", "getlastmodified")
MAX_DEPTH: Final = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a PROPFIND asks: all properties, their names only, or those listed as (namespace, name)."""

    mode: str = "allprop"
    names: tuple[tuple[str, str], ...] = ()


class _Reader:
    """Reads a propfind element with expat, refusing what could expand."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.mode: str | None = None
        self.names: list[tuple[str, str]] = []
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._doctype

    def _doctype(self, *_: object) -> None:
        raise _bad("a PROPFIND's body has no document type")

    def _start(self, name: str, attributes: object) -> None:
        self.path.append(name)
        depth = len(self.path)
        if depth > MAX_DEPTH:
            raise _bad("the XML is nested too deeply")
        if depth == 1 and name != f"{DAV} propfind":
            raise _bad(f"the XML is a {name!r}, not a DAV: propfind")
        if depth == 2 and name in (f"{DAV} allprop", f"{DAV} propname", f"{DAV} prop"):
            self.mode = name.removeprefix(f"{DAV} ")
        if depth == 3 and self.path[1] == f"{DAV} prop":
            namespace, local = name.rpartition(" ")[::2]
            self.names.append((namespace, local))

    def _end(self, _: str) -> None:
        self.path.pop()


def _bad(detail: str) -> Problem:
    return Problem(400, "malformed-request", detail)


def parse_propfind(body: bytes) -> Wanted:
    """What a PROPFIND's body asks for; no body asks for everything. Raises a 400."""
    if not body.strip():
        return Wanted()
    reader = _Reader()
    try:
        reader.parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise _bad(f"this is not XML: {error}") from None
    if reader.mode is None:
        raise _bad("a propfind holds allprop, propname or prop")
    return Wanted(reader.mode, tuple(reader.names))


def parse_depth(header: str | None) -> int:
    """0 or 1. Raises 403 for infinity, which is never given, 400 for what is no depth."""
    depth = (header or "infinity").strip().lower()
    if depth in ("0", "1"):
        return int(depth)
    if depth == "infinity":
        raise Problem(403, "propfind-finite-depth", "the tree is given one level at a time: send Depth: 0 or Depth: 1")
    raise _bad(f"{depth[:20]!r} is not a depth: send Depth: 0 or Depth: 1")


def properties(name: str, stat: Mapping[str, Any], clock_ns: int) -> dict[str, str]:
    """The live properties of a file or directory, as XML content."""
    found = {"displayname": escape(name), "getlastmodified": formatdate(clock_ns // 10**9, usegmt=True)}
    if stat["type"] == "dir":
        return found | {"resourcetype": "<D:collection/>"}
    found |= {"resourcetype": "", "getcontenttype": "application/octet-stream" if stat["binary"] else "text/plain; charset=utf-8"}
    return found if stat["size"] is None else found | {"getcontentlength": str(stat["size"])}


def _element(namespace: str, name: str, content: str = "") -> str:
    if namespace == DAV:
        return f"<D:{name}>{content}</D:{name}>" if content else f"<D:{name}/>"
    return f"<{name} xmlns={_attribute(namespace)}/>"


def _attribute(text: str) -> str:
    return '"' + escape(text, {'"': "&quot;"}) + '"'


def _propstat(elements: Iterable[str], status: str) -> str:
    inner = "".join(elements)
    return f"<D:propstat><D:prop>{inner}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>" if inner else ""


def _propstats(found: Mapping[str, str], wanted: Wanted) -> str:
    if wanted.mode == "propname":
        return _propstat((_element(DAV, name) for name in found), "200 OK")
    if wanted.mode == "allprop":
        return _propstat((_element(DAV, name, content) for name, content in found.items()), "200 OK")
    have = [(space, name) for space, name in wanted.names if space == DAV and name in found]
    lack = [pair for pair in wanted.names if pair not in have]
    given = _propstat((_element(space, name, found[name]) for space, name in have), "200 OK")
    return (given + _propstat((_element(space, name) for space, name in lack), "404 Not Found")) or _propstat(["<!---->"], "200 OK")


def multistatus(items: Sequence[tuple[str, Mapping[str, str]]], wanted: Wanted) -> bytes:
    """The answer of a PROPFIND: for each address its properties."""
    responses = "".join(f"<D:response><D:href>{escape(quote(href))}</D:href>{_propstats(found, wanted)}</D:response>" for href, found in items)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">{responses}</D:multistatus>\n'.encode()
