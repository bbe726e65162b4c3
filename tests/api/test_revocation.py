"""Whoever loses his right to a session loses its streams too, in every form, and is told why; so does whoever reads a session that is deleted."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.api.client import problem, running
from tests.api.course import OPERATOR, Course, bearer

Read = Callable[[], Any]  # blocks until the stream is over; what it said at last


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with running(token=SecretStr("secret-of-the-operator"), max_sessions_per_owner=1000) as service:
        yield Course(service)


# ---- the forms: each opens a stream, and says how it ended


@contextlib.contextmanager
def websocket(course: Course, sid: str, who: dict[str, str], path: str = "events") -> Iterator[Read]:
    with connect(course.service.url.replace("http", "ws") + f"/v1/sessions/{sid}/{path}", additional_headers=who) as ws:
        if path == "policy":
            assert json.loads(ws.recv(timeout=20))["type"] == "hello"

        def read() -> Any:
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    ws.recv(timeout=30)
            assert closed.value.rcvd is not None
            return closed.value.rcvd.code

        yield read


@contextlib.contextmanager
def policy(course: Course, sid: str, who: dict[str, str]) -> Iterator[Read]:
    with websocket(course, sid, who, "policy") as read:
        yield read


@contextlib.contextmanager
def lines(course: Course, sid: str, who: dict[str, str], accept: str = "application/jsonl", mark: str = "") -> Iterator[Read]:
    with course.http.stream("GET", f"/v1/sessions/{sid}/events?after=0", headers={"Accept": accept, **who}) as answer:
        assert answer.status_code == 200

        def read() -> Any:
            last = [line for line in answer.iter_lines() if line.startswith(mark or "{")][-1]
            told = json.loads(last.removeprefix(mark))
            assert told["type"] == "end" and told["id"] >= 0
            return told["reason"]

        yield read


@contextlib.contextmanager
def sse(course: Course, sid: str, who: dict[str, str]) -> Iterator[Read]:
    with lines(course, sid, who, "text/event-stream", "data: ") as read:
        yield read


@contextlib.contextmanager
def long_poll(course: Course, sid: str, who: dict[str, str]) -> Iterator[Read]:
    found: list[Any] = []
    last = course.http.get(f"/v1/sessions/{sid}", headers=OPERATOR).json()["events"]["last"]
    address = f"/v1/sessions/{sid}/events?wait=60s&after={last}"
    thread = threading.Thread(target=lambda: found.append(course.http.get(address, headers=who)))
    thread.start()
    inside = course.service.inside(sid)
    while not inside.ring._waiters:  # it waits
        pass

    def read() -> Any:
        thread.join(30)
        return found[0].status_code, found[0].json()["detail"]

    yield read
    thread.join(30)


WEB = {"revoked": 4401, "expired": 4401, "changed": 4401, "deleted": 1000}
SAID = {name: name for name in WEB}
FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "websocket": (websocket, WEB),
    "policy": (policy, WEB),
    "json lines": (lines, SAID),
    "server-sent events": (sse, SAID),
    "long poll": (long_poll, {
        "revoked": (401, "the token was revoked while this request waited"),
        "expired": (401, "the token has run out while this request waited"),
        "changed": (401, "what the caller may do has changed while this request waited"),
        "deleted": (404, "the session has been destroyed"),
    }),
}  # fmt: skip


def lose(course: Course, loss: str, name: str, token: dict[str, Any], sid: str) -> None:
    """What takes the right away."""
    if loss == "revoked":
        assert course.http.delete(f"/v1/tokens/{token['id']}", headers=OPERATOR).status_code == 204
    elif loss == "changed":
        body = {"role": "grader"}
        assert course.http.put(f"/v1/courses/os101/members/{name}", json=body, headers=OPERATOR).status_code == 200
    elif loss == "deleted":
        assert course.http.delete(f"/v1/sessions/{sid}", headers=OPERATOR).status_code == 204


@pytest.mark.parametrize("loss", WEB)
@pytest.mark.parametrize("form", FORMS)
def test_a_stream_ends_with_the_right_to_it(course: Course, form: str, loss: str) -> None:
    opens, endings = FORMS[form]
    name = f"{form} {loss}"
    body = {"subject": name, "role": "student", "course": "os101"} | ({"expires": "3s"} if loss == "expired" else {})
    token = course.http.post("/v1/tokens", json=body, headers=OPERATOR).json()
    who = bearer(token["token"])
    sid = course.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=who).json()["id"]
    with opens(course, sid, who) as read:
        lose(course, loss, name, token, sid)
        assert read() == endings[loss]


def test_a_token_of_one_who_is_called_as_the_operator_is(course: Course) -> None:
    """Nobody else gets that name, so nobody shares what is the operator's."""
    body = {"subject": "operator", "role": "student", "course": "os101"}
    problem(course.http.post("/v1/tokens", json=body, headers=OPERATOR), 422, "PAGEWALK_TOKEN")
    problem(course.http.put("/v1/courses/os101/members/operator", json={"role": "student"}, headers=OPERATOR), 422, "PAGEWALK_TOKEN")


def test_streams_of_the_operator_and_of_a_sessions_key_stay_open(course: Course) -> None:
    record = course.session("student")
    with websocket(course, record["id"], OPERATOR), websocket(course, record["id"], bearer(record["token"])):
        other = course.http.post("/v1/tokens", json={"subject": "x", "role": "student", "course": "os101"}, headers=OPERATOR).json()
        with websocket(course, course.sid, bearer(course.issue("y", "instructor", "os101"))) as third:
            lose(course, "revoked", "x", other, "")
            lose(course, "changed", "y", other, "")
            assert third() == 4401  # the others have been looked at by then
        inside = course.service.inside(record["id"])
        assert inside.streams == 2
    course.http.delete(f"/v1/sessions/{record['id']}", headers=OPERATOR)


def test_a_caller_who_was_let_in_before_a_change_is_looked_at_again(course: Course) -> None:
    """Between the check and the open stream the token may be revoked: the stream knows at which epoch he was let in."""
    gate = course.service.app.state.gate
    token = course.http.post("/v1/tokens", json={"subject": "late", "role": "student", "course": "os101"}, headers=OPERATOR).json()

    async def caller() -> Any:
        headers = [(b"authorization", b"Bearer " + token["token"].encode())]
        return await gate.caller({"type": "http", "headers": headers, "query_string": b"", "path": "/", "method": "GET"})

    found, epoch = course.service.run(caller), gate.epoch
    lose(course, "revoked", "late", token, "")
    while course.service.run(gate.store.generation) != gate._generation:  # the change has been noticed
        pass

    async def open_late() -> Any:
        with gate.watch(found, epoch) as watch:
            async with asyncio.timeout(30):
                await watch.ended.wait()
            return watch.loss

    assert course.service.run(open_late) == "revoked"


def test_a_program_that_loses_its_right_is_no_longer_the_policy(course: Course) -> None:
    token = course.http.post("/v1/tokens", json={"subject": "prog", "role": "student", "course": "os101"}, headers=OPERATOR).json()
    sid = course.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=bearer(token["token"])).json()["id"]
    with policy(course, sid, bearer(token["token"])) as read:
        lose(course, "revoked", "prog", token, sid)
        assert read() == 4401
    with policy(course, sid, OPERATOR):  # the place is free again
        pass


def test_a_session_takes_its_observers_with_it(course: Course) -> None:
    record = course.session("student")
    sid, token = record["id"], course.observer(record["id"])
    other = course.observer(course.sid)
    with websocket(course, sid, bearer(token)) as read:
        assert course.http.delete(f"/v1/sessions/{sid}", headers=OPERATOR).status_code == 204
        assert read() == 1000
    gate = course.service.app.state.gate
    assert course.service.run(lambda: gate.store.tokens(sid)) == []
    while course.service.run(gate.store.generation) != gate._generation:  # the change has been noticed
        pass
    problem(course.http.get(f"/v1/sessions/{sid}", headers=bearer(token)), 401)
    assert course.http.get(f"/v1/sessions/{course.sid}", headers=bearer(other)).status_code == 200


def test_who_may_not_enter_wakes_nobody(course: Course) -> None:
    """A session that sleeps is looked up in the catalogue first: a stranger's request costs no kernel."""
    registry = course.service.app.state.registry
    sid = course.session("student")["id"]
    assert course.service.run(lambda: registry.hibernate(registry.live(sid)))
    for name in ("neighbour", "student elsewhere", "instructor elsewhere", "another's key", "another's observer", "nobody", "a forger"):
        assert course.verdict("GET", f"/v1/sessions/{sid}", name) != "in"
        assert course.verdict("WEBSOCKET", f"/v1/sessions/{sid}/events", name) != "in"
        assert course.verdict("POST", f"/v1/sessions/{sid}/batch", name, json={"ops": []}) != "in"
        assert not registry.here(sid), name
    assert course.verdict("DELETE", f"/v1/sessions/{sid}", "grader") == "forbidden" and not registry.here(sid)  # he may look at it
    assert course.verdict("GET", f"/v1/sessions/{sid}", "student") == "in" and registry.here(sid)
