"""Sessions that sleep, and sessions whose worker dies: a stranger wakes none, through whatever worker, and what was done once stays done once.

Who has a session is read from the database: `holder` names the worker's life, and `fence` grows whenever a session enters or leaves memory.
"""

import contextlib
import itertools
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from tests.api.course import Course
from tests.api.foreign import FOREIGN, Try, outcome
from tests.api.test_roles import OF_A_SESSION
from tests.pool.service import Workers, running

SECONDS = 60.0
AGAIN = frozenset({409, 502, 503})


class Stored:
    """A service with two workers, and its database."""

    def __init__(self, service: Workers, path: Path) -> None:
        self.service, self._path = service, path

    def lease(self, sid: str) -> tuple[str | None, int]:
        """Who has a session, and its fence."""
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as database:
            holder, fence = database.execute("SELECT holder, fence FROM sessions WHERE id = ?", (sid,)).fetchone()
        return holder, fence

    def await_sleep(self, sid: str) -> int:
        """Until nobody has a session; its fence then."""
        until = time.monotonic() + SECONDS
        while True:
            holder, fence = self.lease(sid)
            if holder is None:
                return fence
            assert time.monotonic() < until, "it does not leave memory"
            assert self.service.http.get("/livez").status_code == 200


@contextlib.contextmanager
def stored(folder: Path, **settings: str) -> Iterator[Stored]:
    """Two workers with a database that can be looked into."""
    path = folder / "sessions.sqlite"
    environment = {"PAGEWALK_DATABASE": f"sqlite:///{path}", **{f"PAGEWALK_{name.upper()}": value for name, value in settings.items()}}
    with running(environment=environment) as service:
        yield Stored(service, path)


def insist(service: Workers, method: str, path: str, **options) -> httpx2.Response:
    """A request, sent until it is answered: one may fail with the worker that had it."""
    until = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(httpx2.TransportError), service.client() as http:
            answer = http.request(method, path, **options)
            if answer.status_code not in AGAIN:
                return answer
        assert time.monotonic() < until


def test_a_stranger_wakes_nobody_through_any_worker(tmp_path):
    off = {"rate_limit": "none", "rate_limit_address": "none"}
    with stored(tmp_path, token="secret-of-the-operator", hibernate_after="1ms", **off) as there, contextlib.ExitStack() as stack:
        course = Course(there.service)
        sid = course.session("student")["id"]
        fence = there.await_sleep(sid)
        clients = itertools.cycle([stack.enter_context(there.service.client()) for _ in range(4)])
        for row in OF_A_SESSION:
            wrong = {name: found for name in FOREIGN if (found := outcome(course, row, sid, Try(name, course.who[name]), next(clients))) != "out"}
            assert not wrong, (row.method, row.path)
            assert there.lease(sid) == (None, fence), (row.method, row.path)
        assert course.verdict("GET", f"/v1/sessions/{sid}", "student") == "in"
        assert there.lease(sid)[1] > fence


def kill_the_holder(there: Stored, sid: str, path: str, **options) -> httpx2.Response:
    """Kill workers until the one that had the session is among them, the same request after each; its last answer."""
    before = there.lease(sid)[0]
    assert before is not None
    for pid in there.service.pids():
        os.kill(pid, signal.SIGKILL)
        answer = insist(there.service, "POST", path, **options)
        if there.lease(sid)[0] != before:
            return answer
    raise AssertionError("nobody of them had it")


def test_what_was_done_once_stays_done_once_when_the_worker_changes(tmp_path):
    with stored(tmp_path) as there:
        service = there.service
        sid = service.create()
        path, key = f"/v1/sessions/{sid}", {"Idempotency-Key": "the-one"}
        first = service.spawn(sid, headers=key)
        tag = service.http.get(path).headers["etag"]
        again = kill_the_holder(there, sid, f"{path}/processes", json={"comm": "a"}, headers=key)
        assert (again.status_code, again.headers["idempotent-replayed"], again.json()) == (201, "true", first.json())
        other = insist(service, "POST", f"{path}/processes", json={"comm": "b"}, headers=key)
        assert other.status_code == 422
        state = insist(service, "GET", path)
        assert (state.headers["etag"], state.json()["seq"]) == (tag, 1)
        assert [one["comm"] for one in insist(service, "GET", f"{path}/processes").json()["items"]].count("a") == 1
        # the tag of before is good at the new worker, once
        fresh = insist(service, "POST", f"{path}/processes", json={"comm": "b"}, headers={"If-Match": tag})
        stale = insist(service, "POST", f"{path}/processes", json={"comm": "c"}, headers={"If-Match": tag})
        assert (fresh.status_code, stale.status_code) == (201, 412)
        assert insist(service, "GET", path).json()["seq"] == 2
