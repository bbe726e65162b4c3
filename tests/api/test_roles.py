"""Every route × every role against a running service, from the table that the check itself reads."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from pydantic import SecretStr
from starlette.responses import Response
from starlette.routing import Route

from app.identity.guard import GuardedRoute, require_rows
from app.identity.table import COLUMNS, ROWS, Row
from tests.api.client import running
from tests.api.course import Course

# Who stands before a student's session, the column of the table that is his, and what he is to that session.
CALLERS = (
    ("operator", "admin", "all"), ("admin", "admin", "all"), ("instructor", "instructor", "course"), ("grader", "grader", "course"),
    ("student", "student", "own"), ("its key", "session", "its"), ("its observer", "observer", "its"),
    ("neighbour", "student", "none"), ("instructor elsewhere", "instructor", "none"), ("grader elsewhere", "grader", "none"),
    ("student elsewhere", "student", "none"), ("another's key", "session", "none"), ("another's observer", "observer", "none"),
    ("nobody", "anyone", "none"), ("a forger", "anyone", "none"),
)  # fmt: skip
REACHES = {"all": {"all"}, "course": {"all", "course"}, "own": {"all", "course", "own"}, "its": {"its"}, "none": set()}
OF_A_SESSION = [row for row in ROWS.values() if "{sid}" in row.path]
OTHERS = [row for row in ROWS.values() if "{sid}" not in row.path]


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with running(token=SecretStr("secret-of-the-operator"), max_sessions_per_owner=1000, max_sessions=5000) as service:
        yield Course(service)


def expected(row: Row, column: str, relation: str) -> str:
    """What the table says about one caller at the student's session."""
    if row.reach(column) in REACHES[relation]:
        return "in"
    if column == "anyone":
        return "unauthorized"
    return "no-such-session" if relation == "none" else "forbidden"


def where(row: Row, sid: str) -> str:
    """An address that matches a row; what it names besides the session need not exist."""
    fill = {"{sid}": sid, "{pid}": "999", "{call}": "fork", "{topic}": "oom", "{name}": "none", "{id}": "1", "{path:path}": "proc/meminfo",
            "{course}": "os101", "{subject}": "ghost", "{seq}": "0"}  # fmt: skip
    path = row.path
    for name, value in fill.items():
        path = path.replace(name, value)
    assert "{" not in path, "this test knows no value for a part of the path"
    return path


@pytest.mark.parametrize("row", OF_A_SESSION, ids=lambda row: f"{row.method} {row.path}")
def test_a_route_of_a_session(row: Row, course: Course) -> None:
    deletes = (row.method, row.path) == ("DELETE", "/v1/sessions/{sid}")
    wrong = {}
    for name, column, relation in CALLERS:
        want = expected(row, column, relation)
        sid = course.sid
        if deletes and want == "in":
            sid, course.who["its key"] = _victim(course)
        found = course.verdict(row.method, where(row, sid), name)
        if found != want:
            wrong[name] = f"{found} instead of {want}"
    course.who["its key"] = {"Authorization": f"Bearer {course.record['token']}"}
    assert not wrong


@pytest.mark.parametrize("row", [row for row in OF_A_SESSION if row.method != "DELETE"], ids=lambda row: f"{row.method} {row.path}")
def test_a_route_of_a_graders_own_session(row: Row, course: Course) -> None:
    """Where a grader is the owner he may what an owner may; a student of his course knows nothing of it."""
    sid = course.own_of_grader
    wrong = {}
    for name, column, relation in (("grader", "grader", "own"), ("instructor", "instructor", "course"), ("student", "student", "none")):
        want, found = expected(row, column, relation), course.verdict(row.method, where(row, sid), name)
        if found != want:
            wrong[name] = f"{found} instead of {want}"
    assert not wrong


def _victim(course: Course) -> tuple[str, dict[str, str]]:
    record = course.session("student")
    return record["id"], {"Authorization": f"Bearer {record['token']}"}


# Of routes without a session: who gets in at all. What he sees there has tests of its own.
@pytest.mark.parametrize("row", OTHERS, ids=lambda row: f"{row.method} {row.path}")
def test_a_route_of_the_service(row: Row, course: Course) -> None:
    wrong = {}
    elsewhere = ("instructor elsewhere", "grader elsewhere", "student elsewhere")
    for name, column, _ in CALLERS:
        want = "in" if row.reach(column) != "-" else "unauthorized" if column in ("anyone", "session") else "forbidden"
        if "{course}" in row.path and name in elsewhere:
            want = "forbidden"
        found = course.verdict(row.method, where(row, "").replace("os101", "os101" if row.method != "DELETE" else "none"), name, json={})
        if want == "in" and found == "no-such-course":
            found = "in"
        if row.method == "DELETE" and "{course}" in row.path and column != "admin":
            want = "forbidden" if want == "in" else want  # the course `none` is not theirs
        if found != want:
            wrong[name] = f"{found} instead of {want}"
    assert not wrong


def test_an_open_service_lets_everyone_do_everything() -> None:
    with running() as service:
        sid = service.session(machine={"memory": "64M"}).id
        for row in ROWS.values():
            if row.method in ("WEBSOCKET", "DELETE"):
                continue
            for headers in ({}, {"Authorization": "Bearer pw_u_" + "x" * 32}, {"Authorization": "Basic zzz"}):
                answer = service.http.request(row.method, where(row, sid), headers=headers)
                assert answer.status_code != 401 and b"problem:forbidden" not in answer.content, (row, answer.text)


def test_the_table_has_sound_rows() -> None:
    for row in ROWS.values():
        assert row.admin == "all"
        if row.public:
            assert set(row[2:]) == {"all"}
        else:
            assert row.anyone == "-"
            if "{sid}" in row.path:
                assert row.session in ("its", "-") and row.observer in ("its", "-") and row.student in ("own", "-")
                assert row.observer == "-" or row.method in ("GET", "HEAD", "PROPFIND", "OPTIONS", "WEBSOCKET")
    assert Row._fields[2:] == COLUMNS


async def _nothing(request: Any = None) -> Response:
    return Response()


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ([Route("/v1/secret", _nothing, methods=["GET"])], "GET /v1/secret has no row"),
        ([Route("/v1/sessions", _nothing, methods=["POST"])], "POST /v1/sessions is guarded by nobody"),
        ([], "POST /v1/sessions stands in app/identity/table.py, but nothing is served there"),
    ],
)
def test_a_route_that_the_table_does_not_know_keeps_the_service_from_starting(routes: list[Any], words: str) -> None:
    with pytest.raises(LookupError, match=words):
        require_rows(routes)


def test_a_router_must_be_guarded() -> None:
    bare = APIRouter()
    bare.add_api_route("/v1/me", _nothing, methods=["GET"])
    with pytest.raises(LookupError, match="GET /v1/me is guarded by nobody"):
        require_rows(bare.routes)
    guarded = APIRouter(route_class=GuardedRoute)
    guarded.add_api_route("/v1/me", _nothing, methods=["GET"])
    with pytest.raises(LookupError) as told:
        require_rows(guarded.routes)
    assert "GET /v1/me" not in str(told.value)
