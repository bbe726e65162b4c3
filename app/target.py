"""Where operations go: a kernel in this process, or a service over HTTP.

`pagewalk run`, the scenario runner and the conformance suite speak to either through one small protocol. An
operation is the dict of the batch union (`{"op": "mmap", "pid": 101, ...}`); an answer is the dict of the API
(`{"result", "errno", "signal", "faults", "killed", ...}`). What the simulated kernel refuses is an answer; what the
service refuses to do is `Refused`.

    app.inprocess.KernelTarget   Kernel.call, Kernel.read: no socket, no event loop
    HttpTarget                   one route for each operation, as a client would write it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pagewalk import Client, ProblemError
from pagewalk.client import fs_path

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
        self.client = Client(url, token)
        with refusals():
            self.session = self.client.session(machine, seed)

    @property
    def base(self) -> str:
        """The session's path."""
        return self.session.path

    def apply(self, op: Operation) -> Answer:
        request = request_of(op)
        options: dict[str, Any] = {} if request.json is None else {"json": request.json}
        if request.content is not None:
            options = {"content": request.content, "headers": {"content-type": "text/plain"}}
        with refusals():
            response = self.session.request(request.method, request.path, **options)
        body: Answer = response.json() if response.content else {}
        return body

    def read(self, path: str) -> bytes:
        with refusals():
            return self.session.read_bytes(path)

    def pread(self, path: str, offset: int, length: int) -> bytes:
        with refusals():
            return self.session.read_bytes(path, offset, length)

    def live(self) -> set[int]:
        with refusals():
            return {row["pid"] for row in self.session.processes() if row["state"] not in DEAD_STATES}

    def close(self) -> None:
        try:
            self.session.destroy()
        finally:
            self.client.close()


@contextmanager
def refusals() -> Iterator[None]:
    """What the service refuses, as `Refused`."""
    try:
        yield
    except ProblemError as error:
        raise Refused(error.status, error.detail or error.title, error.errno) from error
