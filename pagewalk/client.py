"""A client of the service: sessions, calls, files, events.

    from pagewalk import Client

    with Client("http://127.0.0.1:8000") as service, service.session(machine={"memory": "512M"}, seed=1) as session:
        pid = session.spawn(comm="student")["pid"]
        region = session.call(pid, "mmap", length="64M", prot="rw", flags=["private", "anonymous"])["result"]["address"]
        print(session.call(pid, "touch", address=region, length="16M", access="write")["faults"])
        print(session.read(f"/proc/{pid}/smaps_rollup"))

What the simulated kernel refuses is an answer (`answer["errno"]`); what the service refuses is a `ProblemError` with the problem document.

What is sent again, and when
----------------------------
A request is repeated only where that cannot do its work twice:

=====================================  =======================================================================
the service could not be reached       every request: it was never sent
429, 503 with `Retry-After`            every request: the service says that it did not carry it out
the connection broke, 502, 504         reads; and POSTs, because each carries an `Idempotency-Key` of its own:
                                       the service answers a repetition with the first answer
=====================================  =======================================================================

A PUT, MKCOL or DELETE whose connection broke may have been carried out: that is an `Unreachable` for the caller to judge.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2

from pagewalk.errors import ProblemError, Unreachable
from pagewalk.events import Event, Events, Stream, follow_async

Answer = dict[str, Any]

REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
NOT_CARRIED_OUT: Final = frozenset({429, 503})
BROKEN_ON_THE_WAY: Final = frozenset({502, 504})
UNDER_WAY: Final = "urn:pagewalk:problem:still-under-way"
LONGEST_PAUSE_S: Final = 5.0


class Client:
    """A service.

    Parameters
    ----------
    url : str
        Where it is: `http://127.0.0.1:8000`.
    token : str, optional
        The bearer token.
    timeout : float
        Seconds to wait for an answer.
    retries : int
        How often a request is repeated.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 120.0, retries: int = 4) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.url, self.token, self.retries = url.rstrip("/"), token, retries
        self.http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self.http.close()

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One request, repeated where that is safe. Raises ProblemError, Unreachable."""
        headers = dict(options.pop("headers", None) or {})
        if method == "POST":
            headers.setdefault("idempotency-key", str(uuid.uuid4()))
        safe = method in REPEATABLE or "idempotency-key" in headers
        for attempt in range(self.retries + 1):
            try:
                response = self.http.request(method, path, headers=headers, **options)
            except httpx2.RequestError as error:
                never_sent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
                if attempt == self.retries or not (safe or never_sent):
                    raise Unreachable(f"{method} {self.url}{path}: {error or type(error).__name__}") from error
                time.sleep(pause(attempt))
                continue
            if response.status_code < 400:
                return response
            if attempt == self.retries or not _may_repeat(response, safe):
                raise ProblemError.of(response)
            time.sleep(pause(attempt, response.headers.get("retry-after")))
        raise AssertionError("the last attempt returns or raises")

    def json(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """One request with a JSON body and a JSON answer."""
        answer: Answer = self.request(method, path, **({} if body is None else {"json": body}), **options).json()
        return answer

    def session(self, machine: Mapping[str, Any] | None = None, seed: int = 0, **more: Any) -> Session:
        """Boot a machine: a new session, which `with` destroys at its end."""
        return Session(self, self.json("POST", "/v1/sessions", {"machine": dict(machine or {}), "seed": seed, **more}))

    def open(self, sid: str, token: str | None = None) -> Session:
        """A session that exists; `token` is its own, where the client's does not enter it."""
        client = self if token in (None, self.token) else Client(self.url, token, retries=self.retries)
        try:
            return Session(client, client.json("GET", f"/v1/sessions/{quote(sid, safe='')}"), owned=client is not self)
        except BaseException:
            if client is not self:
                client.close()
            raise

    def version(self) -> Answer:
        """What runs there."""
        return self.json("GET", "/version")


class Session:
    """One simulated kernel.

    Attributes
    ----------
    id, token : str
        Its name, and its own bearer token (known to who created it).
    record : dict
        What the service said when it was created or opened.
    """

    def __init__(self, client: Client, record: Mapping[str, Any], owned: bool = False) -> None:
        self.record = dict(record)
        self.id = str(record["id"])
        self.token: str | None = record.get("token") or client.token
        if self.token != client.token:
            client, owned = Client(client.url, self.token, retries=client.retries), True
        self.client, self._owned = client, owned
        self.path = f"/v1/sessions/{self.id}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.destroy()

    @property
    def url(self) -> str:
        """The session's address."""
        return self.client.url + self.path

    def request(self, method: str, path: str = "", **options: Any) -> httpx2.Response:
        """A request below the session's address."""
        return self.client.request(method, self.path + path, **options)

    def json(self, method: str, path: str = "", body: Any = None, **options: Any) -> Answer:
        """A request below the session's address, JSON both ways."""
        return self.client.json(method, self.path + path, body, **options)

    def close(self) -> None:
        """Let the connections go; the session lives on."""
        if self._owned:
            self.client.close()

    def destroy(self) -> None:
        """End the session; one that is gone already is no error."""
        try:
            self.request("DELETE")
        except ProblemError as error:
            if error.status != 404:
                raise
        finally:
            self.close()

    # ---- processes and calls

    def spawn(self, comm: str, **body: Any) -> Answer:
        """Start a process; its number is `answer["pid"]`."""
        return self.json("POST", "/processes", {"comm": comm, **body})

    def call(self, pid: int, name: str, **body: Any) -> Answer:
        """One system call of a process."""
        return self.json("POST", f"/processes/{pid}/{name}", body)

    def batch(self, ops: Sequence[Mapping[str, Any]], stop_on_error: bool = False) -> Answer:
        """Many operations in one request."""
        return self.json("POST", "/batch", {"ops": [dict(op) for op in ops], "stop_on_error": stop_on_error})

    def advance(self, duration: str | int) -> Answer:
        """Let simulated time pass: `"5s"`, or nanoseconds."""
        return self.json("POST", "/clock", {"advance": duration})

    def processes(self) -> list[Answer]:
        """The processes, those that nobody has waited for included."""
        return self.items("/processes")

    def items(self, path: str) -> list[Answer]:
        """A whole list, page by page."""
        found: list[Answer] = []
        page: str | None = None
        while True:
            body = self.json("GET", path, params={"page_token": page} if page else None)
            found += body["items"]
            page = body.get("next_page_token")
            if not page:
                return found

    # ---- files

    def read(self, path: str) -> str:
        """A file of the tree, as `cat` shows it."""
        return self.request("GET", fs_path(path)).text

    def read_bytes(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """A file or a part of it, for those that are binary."""
        headers = {"range": f"bytes={offset}-{'' if length is None else offset + length - 1}"} if offset or length is not None else {}
        return self.request("GET", fs_path(path), headers=headers).content[:length]

    def write(self, path: str, value: str | bytes | int) -> None:
        """Write a file, as `echo value >` does. Raises ProblemError with `errno` when the kernel refuses the value."""
        content = value if isinstance(value, bytes) else str(value).encode()
        self.request("PUT", fs_path(path), content=content, headers={"content-type": "text/plain"})

    def mkdir(self, path: str) -> None:
        """Make a cgroup."""
        self.request("MKCOL", fs_path(path))

    def rmdir(self, path: str) -> None:
        """Remove a cgroup, or a file of /data."""
        self.request("DELETE", fs_path(path))

    def listdir(self, path: str) -> list[str]:
        """The names in a directory."""
        return self.read(path).splitlines()

    # ---- events

    def _stream(self, after: int | None, patience: float, filters: Mapping[str, Any]) -> Stream:
        if after is None:  # pin the present down, so that nothing is lost even when the first connection breaks
            after = int(self.json("GET", "/events", params={"limit": 1})["last"])
        return Stream(self.url, self.token, after, filters, patience)

    def events(self, after: int | None = None, patience: float = 60.0, **filters: Any) -> Events:
        """The session's events as they come, without loss across broken connections and restarts: see `pagewalk.events`.

        Parameters
        ----------
        after : int, optional
            The id of the last event that is known; without it the present. 0 asks for all that are kept.
        patience : float
            Seconds that the service may be away before it is `Unreachable`.
        **filters
            `types="fault,oom"`, `pid=101`, `cgroup="/app"`, `bookmarks=True`.
        """
        return Events(self._stream(after, patience, filters))

    async def events_async(self, after: int | None = None, patience: float = 60.0, **filters: Any) -> AsyncIterator[Event]:
        """The same for asyncio."""
        stream = await asyncio.to_thread(self._stream, after, patience, filters)
        async for event in follow_async(stream):
            yield event


def fs_path(path: str) -> str:
    """The route of a file of the session's tree."""
    return "/fs" + quote(path if path.startswith("/") else f"/{path}")


def pause(attempt: int, retry_after: str | None = None) -> float:
    """Seconds before a repetition: what the service says, else longer each time, spread by chance so that a class does not come back at once."""
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_PAUSE_S)
    return min(0.1 * 2.0**attempt, LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)


def _may_repeat(response: httpx2.Response, safe: bool) -> bool:
    """True when the service did not carry the request out, or would answer a repetition with the first answer."""
    if response.status_code in NOT_CARRIED_OUT:
        return "retry-after" in response.headers
    if response.status_code == 409 and safe:
        return bool(ProblemError.of(response).type == UNDER_WAY)
    return safe and response.status_code in BROKEN_ON_THE_WAY
