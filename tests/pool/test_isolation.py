"""Callers over several workers and in both databases: everyone is known everywhere, nobody reads a neighbour's session, whoever has it."""

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from app.identity.table import Row
from tests.api.course import OPERATOR, Course, bearer
from tests.api.foreign import outcome, tries
from tests.api.test_roles import OF_A_SESSION
from tests.pool.service import MACHINE, Workers, running
from tests.storage import postgres

SECONDS = 5.0  # a change is known to all workers by then; it takes half a second


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with contextlib.ExitStack() as stack:
        set_ = stack.enter_context(pytest.MonkeyPatch.context()).setenv
        if request.param == "sqlite":
            set_("PAGEWALK_DATABASE", f"sqlite:///{tmp_path_factory.mktemp('data') / 'sessions.sqlite'}")
        else:
            programs = postgres.programs()
            if programs is None:
                pytest.skip("PostgreSQL's server programs (initdb, postgres) are not installed: apt-get install postgresql")
            set_("PAGEWALK_DATABASE", stack.enter_context(postgres.server(Path(programs))))
        limits = {"RATE_LIMIT": "none", "RATE_LIMIT_ADDRESS": "none", "MAX_SESSIONS_PER_OWNER": "5"}
        for name, value in {"TOKEN": "secret-of-the-operator", **limits}.items():
            set_(f"PAGEWALK_{name}", value)
        yield stack.enter_context(running())


@pytest.fixture(scope="module")
def course(service: Workers) -> Course:
    return Course(service)  # type: ignore[arg-type]


def fresh(service: Workers, number: int = 4) -> Iterator[Any]:
    """Clients with connections of their own: they are with different workers, by chance."""
    for _ in range(number):
        with service.client() as http:
            yield http


def socket(service: Workers, sid: str, who: dict[str, str]) -> ClientConnection:
    return connect(f"{service.url.replace('http', 'ws')}/v1/sessions/{sid}/events", additional_headers=who)


@pytest.mark.parametrize("row", OF_A_SESSION, ids=lambda row: f"{row.method} {row.path}")
def test_nobody_else_gets_in_through_any_worker(row: Row, course: Course, service: Workers) -> None:
    wrong = {}
    for http in fresh(service, 2):
        for attempt in tries(course, row):
            if ", " in attempt.name:
                continue  # every way to bring a token is tried on one process
            found = outcome(course, row, course.sid, attempt, http)
            if found != "out":
                wrong[attempt.name] = found
    assert not wrong


def test_every_worker_lists_every_session(course: Course, service: Workers) -> None:
    made = [course.session("student elsewhere")["id"] for _ in range(4)]
    for http in fresh(service, 6):
        pages, token = [], None
        while True:
            query = {"page_size": 3} | ({"page_token": token} if token else {})
            body = http.get("/v1/sessions", params=query, headers=OPERATOR).json()
            pages.append([one["id"] for one in body["items"]])
            token = body["next_page_token"]
            if token is None:
                break
        seen = [sid for page in pages for sid in page]
        assert set(made) | {course.sid} <= set(seen) and len(seen) == len(set(seen)) and all(len(page) == 3 for page in pages[:-1])
        own = http.get("/v1/sessions", headers=course.who["student elsewhere"]).json()["items"]
        assert {one["id"] for one in own} == set(made) and {one["owner"] for one in own} == {"student elsewhere"}
        for name in ("student", "grader", "instructor"):
            found = {one["id"] for one in http.get("/v1/sessions", headers=course.who[name]).json()["items"]}
            assert course.sid in found and not found & set(made)


def test_a_quota_holds_over_all_workers(course: Course, service: Workers) -> None:
    """Twenty requests at once, from connections of their own, for one who may have five."""
    who = bearer(course.issue("greedy", "student", "os101"))

    def create(_: int) -> int:
        with service.client() as http:
            return int(http.post("/v1/sessions", json={"machine": MACHINE}, headers=who).status_code)

    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(create, range(20)))
    assert (statuses.count(201), statuses.count(429)) == (5, 15)


def test_a_token_is_known_and_forgotten_everywhere(course: Course, service: Workers) -> None:
    token = course.http.post("/v1/tokens", json={"subject": "eve", "role": "student", "course": "os101"}, headers=OPERATOR).json()
    who = bearer(token["token"])
    sessions = [course.http.post("/v1/sessions", json={"machine": MACHINE}, headers=who).json()["id"] for _ in range(4)]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket(service, sid, who)) for sid in sessions]
        http = stack.enter_context(service.client())
        lines = stack.enter_context(http.stream("GET", f"/v1/sessions/{sessions[0]}/events", headers=who | {"Accept": "application/jsonl"}))
        assert course.http.delete(f"/v1/tokens/{token['id']}", headers=OPERATOR).status_code == 204
        for ws in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(timeout=SECONDS)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401
        assert json.loads(list(lines.iter_lines())[-1])["reason"] == "revoked"
    for http in fresh(service, 6):
        until = time.monotonic() + SECONDS
        while http.get(f"/v1/sessions/{sessions[0]}", headers=who).status_code != 401:
            assert time.monotonic() < until


def test_members_and_courses_are_everywhere(course: Course, service: Workers) -> None:
    assert course.http.post("/v1/courses", json={"id": "new"}, headers=OPERATOR).status_code == 201
    who = bearer(course.issue("joe", "student", "new"))
    for http in fresh(service, 6):
        assert http.get("/v1/me", headers=who).json()["roles"] == {"new": "student"}
    assert course.http.put("/v1/courses/new/members/joe", json={"role": "grader"}, headers=OPERATOR).status_code == 200
    for http in fresh(service, 6):
        until = time.monotonic() + SECONDS
        while http.get("/v1/me", headers=who).json()["roles"] != {"new": "grader"}:
            assert time.monotonic() < until


def test_a_ticket_opens_one_stream_whoever_takes_it(course: Course, service: Workers) -> None:
    for _ in range(4):
        ticket = course.send("POST", f"/v1/sessions/{course.sid}/tickets", "student").json()["ticket"]
        address = f"{service.url.replace('http', 'ws')}/v1/sessions/{course.sid}/events?ticket={ticket}"

        def take(_: int, address: str = address) -> bool:
            try:
                with connect(address):
                    return True
            except Exception:
                return False

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(take, range(6))).count(True) == 1
