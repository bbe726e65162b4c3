"""Tokens over HTTP: their life, who may issue which, tickets, observers, limits, pages of other sites."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.api.client import problem, running
from tests.api.course import OPERATOR, Course, bearer

TOKEN = SecretStr("secret-of-the-operator")


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with running(token=TOKEN, max_sessions_per_owner=3, origins=["https://lms.example"]) as service:
        yield Course(service)


def test_a_revoked_token_opens_nothing(course: Course) -> None:
    answer = course.http.post("/v1/tokens", json={"subject": "eve", "role": "student", "course": "os101"}, headers=OPERATOR).json()
    assert answer["token"].startswith("pw_u_")
    me = course.http.get("/v1/me", headers=bearer(answer["token"])).json()
    assert (me["subject"], me["roles"], me["admin"]) == ("eve", {"os101": "student"}, False)
    once = bearer(answer["token"]) | {"Idempotency-Key": "k"}
    assert course.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=once).status_code == 201
    listed = course.http.get("/v1/tokens", headers=OPERATOR)
    assert answer["id"] in listed.text and answer["token"] not in listed.text
    assert course.send("DELETE", f"/v1/tokens/{answer['id']}", "instructor").status_code == 204
    refused = problem(course.http.get("/v1/me", headers=bearer(answer["token"])), 401, "revoked")
    assert answer["token"] not in json.dumps(refused)
    problem(course.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=once), 401)


def test_an_instructor_gives_nothing_that_is_not_his(course: Course) -> None:
    for body in ({"subject": "x", "role": "student", "course": "db202"}, {"subject": "x", "role": "admin"}):
        problem(course.send("POST", "/v1/tokens", "instructor", json=body), 403)
    mine = course.issue("root", "student", None, by="instructor")  # root is an administrator elsewhere
    me = course.http.get("/v1/me", headers=bearer(mine)).json()
    assert (me["admin"], me["roles"]) == (False, {"os101": "student"})
    assert "root" not in [row["subject"] for row in course.http.get("/v1/tokens", headers=bearer(mine)).json()["items"] if row["course"] is None]


def test_lists_show_what_a_caller_may_see(course: Course) -> None:
    def seen(name: str) -> set[str]:
        return {row["id"] for row in course.send("GET", "/v1/sessions", name).json()["items"]}

    assert seen("student") == {course.sid}
    assert course.sid in seen("grader") & seen("instructor") & seen("admin")
    assert seen("student elsewhere") == seen("instructor elsewhere") == set() and course.sid not in seen("neighbour")


def test_a_graders_clone_is_his_own(course: Course) -> None:
    twin = course.send("POST", f"/v1/sessions/{course.sid}/clone", "grader", json={}).json()
    assert (twin["owner"], twin["course"]) == ("grader", "os101")
    assert course.send("POST", f"/v1/sessions/{twin['id']}/processes", "grader", json={"comm": "a"}).status_code == 201
    problem(course.send("POST", f"/v1/sessions/{course.sid}/processes", "grader", json={"comm": "a"}), 403, "grader of os101")
    problem(course.send("GET", f"/v1/sessions/{twin['id']}", "student"), 404)


def test_a_ticket_opens_one_stream_once(course: Course) -> None:
    ticket = course.send("POST", f"/v1/sessions/{course.sid}/tickets", "student").json()["ticket"]
    address = course.service.url.replace("http", "ws") + f"/v1/sessions/{course.sid}/events?ticket={ticket}"
    with connect(address, subprotocols=["pagewalk.v1"]) as ws:  # type: ignore[list-item]
        assert ws.subprotocol == "pagewalk.v1"
    with pytest.raises(InvalidStatus) as again, connect(address):
        pass
    assert again.value.response.status_code == 401
    ticket = course.send("POST", f"/v1/sessions/{course.sid}/tickets", "student").json()["ticket"]
    problem(course.http.get(f"/v1/sessions/{course.sid}", params={"ticket": ticket}), 401)


def test_an_observers_stream_ends_when_the_link_is_revoked(course: Course) -> None:
    made = course.send("POST", f"/v1/sessions/{course.sid}/observers", "student", json={"label": "room 5"}).json()
    assert course.http.get(f"/v1/sessions/{course.sid}/fs/proc/meminfo", params={"token": made["token"]}).status_code == 200
    problem(course.http.get(f"/v1/sessions/{course.sid}", params={"token": "pw_u_" + "x" * 32}), 401, "header")
    with connect(course.service.url.replace("http", "ws") + made["events"]) as ws:
        assert course.send("DELETE", f"/v1/sessions/{course.sid}/observers/{made['id']}", "student").status_code == 204
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=20)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401


def test_an_owner_has_a_quota(course: Course) -> None:
    token = course.issue("many", "student", "os101")
    for _ in range(3):
        assert course.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=bearer(token)).status_code == 201
    problem(course.http.post("/v1/sessions", json={}, headers=bearer(token)), 429, "3 sessions")


def test_cors_is_for_the_listed_origins(course: Course) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    good = course.http.options("/v1/sessions", headers={"Origin": "https://lms.example", **ask})
    assert good.status_code == 200 and good.headers["access-control-allow-origin"] == "https://lms.example"
    assert "access-control-allow-credentials" not in good.headers
    assert "access-control-allow-origin" not in course.http.options("/v1/sessions", headers={"Origin": "https://evil.example", **ask}).headers


def test_too_many_requests_are_told_when_to_come_again() -> None:
    with running(token=TOKEN, rate_limit="3/60s") as service:
        answers = [service.http.get("/v1/sessions", headers=OPERATOR) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[0].headers["ratelimit-policy"] == '"caller";q=3;w=60, "address";q=20000;w=20'
        assert answers[0].headers["ratelimit"].startswith('"caller";r=2;t=20')
        problem(answers[3], 429, "come again")
        assert 1 <= int(answers[3].headers["retry-after"]) <= 20


def test_an_open_service_obeys_no_foreign_page() -> None:
    with running() as service:
        problem(service.http.get("/v1/sessions", headers={"Host": "rebound.example"}), 421)
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "pagewalk"):
            assert service.http.get("/v1/sessions", headers={"Host": host}).status_code == 200
        problem(service.http.post("/v1/sessions", json={}, headers={"Origin": "https://evil.example"}), 403, "evil.example")


def test_a_service_that_asks_for_tokens_answers_to_its_names_and_to_addresses() -> None:
    with running(token=TOKEN, hosts=["pagewalk.example.org"]) as service:
        for host in ("pagewalk.example.org", "127.0.0.1:8000", "localhost", "pagewalk:8000"):
            assert service.http.get("/readyz", headers={"Host": host}).status_code == 200
        problem(service.http.get("/readyz", headers={"Host": "evil.example"}), 421, "PAGEWALK_HOSTS")


def test_tokens_outlive_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sessions.sqlite'}"
    with running(token=TOKEN, database=url) as service:
        made = Course(service).who["student"]
    with running(token=TOKEN, database=url) as service:
        assert service.http.get("/v1/me", headers=made).json()["roles"] == {"os101": "student"}
