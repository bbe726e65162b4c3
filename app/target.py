"""Where operations go: a kernel in this process, or a service over HTTP.

`pagewalk run`, the scenario runner and the conformance suite speak to either through one small protocol. An
operation is the dict of the batch union (`{"op": "mmap", "pid": 101, ...}`); an answer is the dict of the API
(`{"result", "errno", "signal", "faults", "killed", ...}`). What the simulated kernel refuses is an answer; what the
service refuses to do is `Refused`.

    app.inprocess.KernelTarget   Kernel.call, Kernel.read: no socket, no event loop
    HttpTarget                   one route for each operation, as a client would write it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import httpx2

Operation = dict[str, Any]
Answer = dict[str, Any]

DEAD_STATES = frozenset({"zombie", "dead"})


class Refused(Exception):
    """The request was not carried out: nothing changed.

    `status` is the HTTP status (the one the service would give when in process), `errno` the kernel's reason where
    there is one, `detail` the words.
    """

    def __init__(self, status: int, detail: str, errno: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errno = errno


class Target(Protocol):
    """A booted kernel that takes operations."""

    def apply(self, op: Operation) -> Answer:
        """Carry out one operation; raises `Refused`."""

    def read(self, path: str) -> bytes:
        """The whole file, as `cat` sees it; raises `Refused`."""

    def pread(self, path: str, offset: int, length: int) -> bytes:
        """A slice of a (possibly huge, sparse) file; raises `Refused`."""

    def live(self) -> set[int]:
        """The pids that are neither zombie nor dead."""

    def close(self) -> None:
        """Give the session back."""


# ---- over HTTP -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of the session's API, below `/v1/sessions/{sid}`."""

    method: str
    path: str
    json: dict[str, Any] | None = None
    content: bytes | None = None


def _without(op: Operation, *names: str) -> dict[str, Any]:
    """The body of a route: the operation without its name and its number in a journal."""
    return {key: value for key, value in op.items() if key not in ("op", "seq", *names)}


def fs_path(path: str) -> str:
    """The route of a file of the session's tree."""
    return "/fs" + quote(path if path.startswith("/") else f"/{path}")


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


MACHINE_ROUTES: dict[str, Callable[[Operation], Request]] = {
    "spawn": lambda op: Request("POST", "/processes", _without(op)),
    "put": lambda op: Request("PUT", fs_path(op["path"]), content=_bytes(op["data"])),
    "mkdir": lambda op: Request("MKCOL", fs_path(op["path"])),
    "rmdir": lambda op: Request("DELETE", fs_path(op["path"])),
    "create_file": lambda op: Request("POST", "/files", _without(op)),
    "advance": lambda op: Request("POST", "/clock", {"advance": op["duration_ns"]}),
}


def request_of(op: Operation) -> Request:
    """The single route that carries out an operation."""
    route = MACHINE_ROUTES.get(op["op"])
    if route:
        return route(op)
    return Request("POST", f"/processes/{op['pid']}/{op['op']}", _without(op, "pid"))


class HttpTarget:
    """A fresh session of a running service; deleted by `close()`."""

    def __init__(
        self,
        url: str,
        machine: Mapping[str, Any] | None = None,
        seed: int = 0,
        token: str | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=120.0)
        body = self._json("POST", "/v1/sessions", json={"machine": dict(machine or {}), "seed": seed})
        if body.get("token"):
            self.http.headers["authorization"] = f"Bearer {body['token']}"
        self.base = f"/v1/sessions/{body['id']}"

    def apply(self, op: Operation) -> Answer:
        request = request_of(op)
        headers = {"content-type": "text/plain"} if request.content is not None else {}
        return self._json(request.method, self.base + request.path, json=request.json, content=request.content, headers=headers)

    def read(self, path: str) -> bytes:
        return self._send("GET", self.base + fs_path(path)).content

    def pread(self, path: str, offset: int, length: int) -> bytes:
        headers = {"range": f"bytes={offset}-{offset + length - 1}"}
        return self._send("GET", self.base + fs_path(path), headers=headers).content[:length]

    def live(self) -> set[int]:
        pids: set[int] = set()
        page = ""
        while True:
            body = self._json("GET", f"{self.base}/processes", params={"page_token": page} if page else None)
            pids.update(row["pid"] for row in body["items"] if row["state"] not in DEAD_STATES)
            page = body.get("next_page_token") or ""
            if not page:
                return pids

    def close(self) -> None:
        try:
            self.http.delete(self.base)
        finally:
            self.http.close()

    def _json(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        response = self._send(method, path, **kwargs)
        body: dict[str, Any] = response.json() if response.content else {}
        return body

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        response = self.http.request(method, path, **{k: v for k, v in kwargs.items() if v is not None})
        if response.status_code >= 400:
            raise _refusal(response)
        return response


def _refusal(response: httpx2.Response) -> Refused:
    try:
        problem = response.json()
    except ValueError:
        return Refused(response.status_code, response.text[:200])
    detail = problem.get("detail") or problem.get("title") or response.reason_phrase
    return Refused(response.status_code, str(detail), problem.get("errno"))
