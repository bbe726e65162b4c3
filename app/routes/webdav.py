"""WebDAV (RFC 4918), as much as mounting a session takes: PROPFIND of depth 0 and 1, locks for clients that insist.

A real /proc says that its files have 0 bytes, and programs read on until there is no more. Clients of WebDAV believe the size that they are told
(rclone copies that many bytes, davfs2's kernel reads no further, cadaver lists no file without one), so `getcontentlength` is the true one:
the file is read to say how long it is. Its `getetag` is the session's state: with the same tag every file has the same bytes. There is no
304: what is read after `echo 50M >` is `52428800`, and a client that got the tag of its own write must not keep its `50M`.

A body is XML without document types, of bounded size, depth and number of elements, read by defusedxml: no entity is ever expanded.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from app.errors import Problem
from app.host.locks import LONGEST_S, Lock

DAV: Final = "DAV:"
CLASSES: Final = "1, 2"
MAX_XML: Final = 64 << 10
MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 256
SUPPORTED_LOCKS: Final = "".join(
    f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>" for scope in ("exclusive", "shared")
)
_TIMEOUT: Final = re.compile(r"Second-(\d{1,10})")
_IF: Final = re.compile(r"\((?:\s*(?:Not\s+)?(?:<[^>]*>|\[[^\]]*\]))+\s*\)")
_TOKEN: Final = re.compile(r"<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a PROPFIND asks: all properties, their names only, or those listed as (namespace, name)."""

    mode: str = "allprop"
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LockInfo:
    """What a LOCK asks; `owner` is XML text."""

    exclusive: bool
    owner: str


def bad(detail: str) -> Problem:
    """A 400 of a request that is not WebDAV."""
    return Problem(400, "malformed-request", detail)


# ---- reading ---------------------------------------------------------------------------------------------------


def parse_xml(body: bytes, root: str) -> Element:
    """The document of a request. Raises 413 for one too large, 400 for what is not XML, has a document type, or is nested too deeply."""
    if len(body) > MAX_XML:
        raise Problem(413, "body-too-large", f"the XML is larger than {MAX_XML} bytes, which is what a {root} may have")
    try:
        found: Element = fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise bad(f"a {root} has no document type and no entities") from None
    except (ParseError, ValueError, LookupError) as error:
        raise bad(f"this is not XML: {error}") from None
    level, count, depth = [found], 0, 0
    while level:
        count, depth = count + len(level), depth + 1
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise bad(f"the XML has more than {MAX_DEPTH} levels or {MAX_ELEMENTS} elements")
        level = [child for element in level for child in element]
    if found.tag != _tag(root):
        raise bad(f"the XML is a {str(found.tag)[:80]!r}, not a DAV: {root}")
    return found


def _tag(name: str) -> str:
    return f"{{{DAV}}}{name}"


def _name(element: Element) -> tuple[str, str]:
    namespace, _, local = str(element.tag).rpartition("}")
    return namespace.removeprefix("{"), local


def parse_propfind(body: bytes) -> Wanted:
    """What a PROPFIND's body asks for; no body asks for everything. Raises a 400."""
    if not body.strip():
        return Wanted()
    for element in parse_xml(body, "propfind"):
        namespace, mode = _name(element)
        if namespace == DAV and mode in ("allprop", "propname", "prop"):
            return Wanted(mode, tuple(map(_name, element)) if mode == "prop" else ())
    raise bad("a propfind holds allprop, propname or prop")


def parse_propertyupdate(body: bytes) -> list[tuple[str, str]]:
    """The properties that a PROPPATCH wants to change. Raises a 400."""
    found = [_name(item) for change in parse_xml(body, "propertyupdate") for prop in change.findall(_tag("prop")) for item in prop]
    if not found:
        raise bad("a propertyupdate holds set or remove, with prop")
    return found


def parse_lockinfo(body: bytes) -> LockInfo:
    """What a LOCK asks for. Raises a 400."""
    root = parse_xml(body, "lockinfo")
    scope = root.find(f"{_tag('lockscope')}/*")
    kind = root.find(f"{_tag('locktype')}/*")
    if scope is None or kind is None or kind.tag != _tag("write") or scope.tag not in (_tag("exclusive"), _tag("shared")):
        raise bad("a lockinfo holds lockscope (exclusive or shared), locktype (write) and perhaps owner")
    owner = root.find(_tag("owner"))
    return LockInfo(scope.tag == _tag("exclusive"), "" if owner is None else escape("".join(owner.itertext()).strip()[:200]))


def parse_depth(header: str | None) -> int:
    """0 or 1. Raises 403 for infinity, which is never given, 400 for what is no depth."""
    depth = (header or "infinity").strip().lower()
    if depth in ("0", "1"):
        return int(depth)
    if depth == "infinity":
        raise Problem(403, "propfind-finite-depth", "the tree is given one level at a time: send Depth: 0 or Depth: 1")
    raise bad(f"{depth[:20]!r} is not a depth: send Depth: 0 or Depth: 1")


def parse_lock_depth(header: str | None) -> bool:
    """True for a lock of a whole tree. Raises a 400."""
    depth = (header or "infinity").strip().lower()
    if depth not in ("0", "infinity"):
        raise bad(f"{depth[:20]!r} is not a depth of a lock: send Depth: 0 or Depth: infinity")
    return depth == "infinity"


def parse_timeout(header: str | None) -> int:
    """Seconds of a lock: the first that is asked for, or the longest there is."""
    match = _TIMEOUT.search(header or "")
    return int(match[1]) if match else LONGEST_S


def parse_if(header: str | None) -> tuple[str, ...] | None:
    """The lock tokens that an If header names; None without one. Raises a 400."""
    if header is None:
        return None
    lists = _IF.findall(header)
    if not lists:
        raise bad("If holds lists of lock tokens: (<urn:uuid:...>)")
    return tuple(token for item in lists for token in _TOKEN.findall(item))


def parse_lock_token(header: str | None) -> str:
    """The token that UNLOCK names. Raises a 400."""
    match = _TOKEN.fullmatch((header or "").strip())
    if match is None:
        raise bad("UNLOCK needs the header Lock-Token: <urn:uuid:...>")
    return match[1]


# ---- writing ---------------------------------------------------------------------------------------------------


def properties(name: str, stat: Mapping[str, Any], size: int, clock_ns: int, etag: str, locks: Sequence[Lock], base: str) -> dict[str, str]:
    """The live properties of a file or directory, as XML content."""
    found = {
        "displayname": escape(name),
        "getlastmodified": formatdate(clock_ns // 10**9, usegmt=True),
        "creationdate": "1970-01-01T00:00:00Z",
        "supportedlock": SUPPORTED_LOCKS,
        "lockdiscovery": discovery(locks, base),
    }
    if stat["type"] == "dir":
        return found | {"resourcetype": "<D:collection/>"}
    media = "application/octet-stream" if stat["binary"] else "text/plain; charset=utf-8"
    return found | {"resourcetype": "", "getcontenttype": media, "getcontentlength": str(size), "getetag": escape(etag)}


def discovery(locks: Iterable[Lock], base: str) -> str:
    """Locks as the content of a `lockdiscovery`."""
    return "".join(
        f"<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{'exclusive' if lock.exclusive else 'shared'}/></D:lockscope>"
        f"<D:depth>{'infinity' if lock.tree else 0}</D:depth><D:owner>{lock.owner}</D:owner><D:timeout>Second-{lock.seconds}</D:timeout>"
        f"<D:locktoken><D:href>{lock.token}</D:href></D:locktoken><D:lockroot><D:href>{_href(base + lock.path)}</D:href></D:lockroot></D:activelock>"
        for lock in locks
    )


def locked(lock: Lock, base: str) -> bytes:
    """The answer of a LOCK."""
    return _document(f'<D:prop xmlns:D="DAV:"><D:lockdiscovery>{discovery([lock], base)}</D:lockdiscovery></D:prop>')


def _document(text: str) -> bytes:
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _href(path: str) -> str:
    return escape(quote(path))




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


def _responses(items: Sequence[tuple[str, Mapping[str, str]]], wanted: Wanted) -> Iterator[str]:
    for path, found in items:
        yield f"<D:response><D:href>{_href(path)}</D:href>{_propstats(found, wanted)}</D:response>"


def multistatus(items: Sequence[tuple[str, Mapping[str, str]]], wanted: Wanted) -> bytes:
    """The answer of a PROPFIND: for each address its properties."""
    return _document(f'<D:multistatus xmlns:D="DAV:">{"".join(_responses(items, wanted))}</D:multistatus>')


def nothing_set(path: str, names: Sequence[tuple[str, str]]) -> bytes:
    """The answer of a PROPPATCH: the files have no properties that a client may set."""
    stats = _propstat((_element(space, name) for space, name in names), "403 Forbidden")
    return _document(f'<D:multistatus xmlns:D="DAV:"><D:response><D:href>{_href(path)}</D:href>{stats}</D:response></D:multistatus>')
