"""How answers lead on: OpenAPI's links, made from the document itself.

A session that was made may be used, a process that was spawned may call, a region that was mapped may be touched, a snapshot may be gone back
to. Tools that explore an API by itself (and our own tests) follow them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

Document = dict[str, Any]

CALLS: Final = "/v1/sessions/{sid}/processes/{pid}/"
METHODS: Final = frozenset({"get", "put", "post", "delete", "patch"})
SID: Final = "$request.path.sid"
REGION: Final[Mapping[str, Mapping[str, Any]]] = {
    "call_touch": {"length": 16384, "access": "write"},
    "call_mprotect": {"length": 4096, "prot": "r"},
    "call_madvise": {"length": 8192, "advice": "dontneed"},
    "call_mincore": {"length": 4096},
    "call_munmap": {"length": 4096},
}


def operations(paths: Mapping[str, Document]) -> Iterator[tuple[str, Document]]:
    """Path and operation of every route."""
    for path, item in paths.items():
        for method, operation in item.items():
            if method in METHODS:
                yield path, operation


def add_links(document: Document) -> None:
    """Write the links of the document's operations into it."""
    found = {operation["operationId"]: (path, operation) for path, operation in operations(document["paths"])}
    below = {name: path for name, (path, _) in found.items() if path.startswith("/v1/sessions/{sid}")}
    of_session = [name for name, path in below.items() if path.count("{") == 1]
    of_process = [name for name, path in below.items() if path.startswith(CALLS.rstrip("/")) and path.count("{") == 2]
    for maker in ("create_session", "clone_session"):
        _lead(found, maker, "201", {name: {"sid": "$response.body#/id"} for name in of_session})
    _lead(found, "spawn_process", "201", {name: {"sid": SID, "pid": "$response.body#/pid"} for name in of_process})
    _lead(found, "create_snapshot", "201", {"delete_snapshot": {"sid": SID, "name": "$response.body#/name"}})
    for name, body in REGION.items():
        if name in found:
            link = {
                "operationId": name,
                "parameters": {"sid": SID, "pid": "$request.path.pid"},
                "requestBody": {"address": "$response.body#/result/address", **body},
            }
            _response(found, "call_mmap", "200").setdefault("links", {})[name] = link


def _response(found: Mapping[str, tuple[str, Document]], name: str, status: str) -> Document:
    answer: Document = found[name][1]["responses"][status]
    return answer


def _lead(found: Mapping[str, tuple[str, Document]], maker: str, status: str, to: Mapping[str, Mapping[str, str]]) -> None:
    links = _response(found, maker, status).setdefault("links", {})
    links.update({name: {"operationId": name, "parameters": dict(parameters)} for name, parameters in to.items() if name in found})
