"""Nobody reads a neighbour's session: every route of a session × everyone else × every way to bring a token; what is refused is as if not there."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from app.identity.table import Row
from tests.api.client import running
from tests.api.course import Course
from tests.api.foreign import outcome, tries
from tests.api.test_roles import OF_A_SESSION


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with running(token=SecretStr("secret-of-the-operator"), max_sessions_per_owner=1000, rate_limit="none", rate_limit_address="none") as service:
        yield Course(service)


@pytest.mark.parametrize("row", OF_A_SESSION, ids=lambda row: f"{row.method} {row.path}")
def test_nobody_else_gets_in(row: Row, course: Course) -> None:
    before = course.send("GET", f"/v1/sessions/{course.sid}", "student").json()
    wrong = {}
    for attempt in tries(course, row):
        if attempt.name.startswith("another's observer, in the address") and row.observer == "-":
            continue  # an observer's link of another session is refused by its role, in the row's own test
        found = outcome(course, row, course.sid, attempt)
        if found != "out":
            wrong[attempt.name] = found
    assert not wrong
    assert course.send("GET", f"/v1/sessions/{course.sid}", "student").json() == before


def test_what_is_kept_for_a_retry_is_the_callers_own(course: Course) -> None:
    path, key = f"/v1/sessions/{course.sid}/processes", {"Idempotency-Key": "mine"}
    assert course.send("POST", path, "student", json={"comm": "a"}, headers=key).status_code == 201
    for name in ("neighbour", "instructor elsewhere", "another's key", "another's observer", "nobody", "a forger"):
        assert course.send("POST", path, name, json={"comm": "a"}, headers=key).status_code in (401, 404), name
    made = course.send("POST", "/v1/sessions", "student", json={"machine": {"memory": "64M"}}, headers=key)
    theirs = course.send("POST", "/v1/sessions", "neighbour", json={"machine": {"memory": "64M"}}, headers=key)
    assert made.status_code == theirs.status_code == 201 and made.json()["id"] != theirs.json()["id"]


def test_a_clone_does_not_open_its_origin(course: Course) -> None:
    """A grader's clone, and its key, lead to the clone only."""
    twin = course.send("POST", f"/v1/sessions/{course.sid}/clone", "grader", json={}).json()
    key = {"Authorization": f"Bearer {twin['token']}"}
    assert course.http.get(f"/v1/sessions/{twin['id']}", headers=key).status_code == 200
    assert course.http.get(f"/v1/sessions/{course.sid}", headers=key).status_code == 404
    assert course.http.get(f"/v1/sessions/{twin['id']}", headers=course.who["its key"]).status_code == 404
    assert course.http.get(f"/v1/sessions/{twin['id']}", headers=course.who["its observer"]).status_code == 404
    assert course.send("GET", f"/v1/sessions/{twin['id']}", "student").status_code == 404


def test_ids_and_pages_cannot_be_guessed(course: Course) -> None:
    assert len(course.sid) >= 22
    page = course.send("GET", "/v1/sessions?page_size=1", "admin").json()["next_page_token"]
    found = course.send("GET", f"/v1/sessions?page_token={page}", "neighbour").json()["items"]
    assert course.sid not in {one["id"] for one in found} and {one["owner"] for one in found} <= {"neighbour"}
