"""The hot routes do without the framework, not without the layers: what holds for every route holds for them."""

import re
import socket

import pytest

from app.routes import hot
from tests.api.client import PAGE, problem

TOUCH = {"length": PAGE, "access": "write"}


@pytest.fixture
def routes(session):
    """Path and body of both, on a process with a page."""
    pid = session.spawn()
    body = {"address": session.mmap(pid, PAGE), **TOUCH}
    return {"call": (f"/processes/{pid}/touch", body), "batch": ("/batch", {"ops": [{"op": "touch", "pid": pid, **body}]})}


BOTH = pytest.mark.parametrize("name", ["call", "batch"])


@BOTH
def test_what_every_answer_carries(session, routes, name):
    path, body = routes[name]
    answer = session.post(path, body, headers={"X-Request-Id": "mine"})
    assert answer.status_code == 200
    have = answer.headers
    assert have["etag"] == f'"1.{session.state()["seq"]}"'
    assert (have["content-type"], have["cache-control"], have["x-content-type-options"]) == ("application/json", "no-store", "nosniff")
    assert have["x-request-id"] == "mine"


@BOTH
@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"headers": {"Host": "evil.example"}}, 421, "evil.example"),
        ({"headers": {"Origin": "https://evil.example"}}, 403, "evil.example"),
        ({"headers": {"If-Match": '"1.999"'}}, 412, "moved on"),
        ({"headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 415, "curl"),
        ({"headers": {"Content-Type": "text/plain"}}, 415, "text/plain"),
        ({"headers": {"Idempotency-Key": "k" * 300}}, 422, "255"),
        ({"json": {"unknown": 1}}, 422, "not known"),
    ],
)  # fmt: skip
def test_what_is_refused(session, routes, name, change, status, word):
    path, body = routes[name]
    before = session.state()["seq"]
    document = problem(session.post(path, **{"json": body, **change}), status, word)
    assert document["request_id"] and session.state()["seq"] == before


@BOTH
def test_a_session_that_is_not_there(service, session, routes, name):
    problem(service.http.post("/v1/sessions/s_none" + routes[name][0], json=routes[name][1]), 404, "s_none")


@BOTH
def test_other_methods(session, routes, name):
    answer = session.request("PUT", routes[name][0], json=routes[name][1])
    problem(answer, 405, "POST")
    assert "POST" in answer.headers["allow"]


@BOTH
def test_a_retry_is_the_same_answer(session, routes, name):
    path, body = routes[name]
    first, again = (session.post(path, body, headers={"Idempotency-Key": "one"}) for _ in range(2))
    assert first.content == again.content and again.headers["idempotent-replayed"] == "true"
    problem(session.post("/clock", {"advance": "1ms"}, headers={"Idempotency-Key": "one"}), 422, "another request")


def test_a_batch_answers_what_its_operations_answer(service):
    """Byte by byte, on two like machines; what is carried out in one step, and what is not."""
    alone, together = (service.session(machine={"memory": "64M"}) for _ in range(2))
    [pid] = {session.spawn(catch_signals=True) for session in (alone, together)}
    [address] = {session.mmap(pid, 600 * PAGE) for session in (alone, together)}
    at = int(address, 16)
    pages = [0, 0, 1, 2, 2, 599, 599, 3, 700, 4, *range(5, 60), 0, 1]
    ops = [{"address": hex(at + page * PAGE), "access": ("write", "write", "read")[place % 3]} for place, page in enumerate(pages)]
    ops[20]["fill"], ops[30]["length"], ops[40]["order"] = 7, 3 * PAGE, "random"
    answers = [alone.post(f"/processes/{pid}/touch", op) for op in ops]
    found = together.post("/batch", {"ops": [{"op": "touch", "pid": pid, **op} for op in ops]})
    assert found.content.startswith(b'{"results":[' + b",".join(answer.content for answer in answers) + b"]")
    assert alone.state()["seq"] == together.state()["seq"] == found.json()["seq"]
    for path in ("/journal", "/fs/proc/vmstat", "/events?after=0&limit=1000"):
        assert alone.get(path).content == together.get(path).content
    assert alone.post("/snapshots", {"name": "end"}).json()["digest"] == together.post("/snapshots", {"name": "end"}).json()["digest"]


@pytest.mark.parametrize("stop", [False, True])
def test_a_batch_with_an_operation_that_fails_in_its_midst(session, routes, stop):
    [op] = routes["batch"][1]["ops"]
    ops = [op, op, {"op": "touch", "pid": 99, **routes["call"][1]}, op, {"op": "munmap", "pid": op["pid"], "address": "0x1", "length": PAGE}, op]
    before = session.state()["seq"]
    found = session.post("/batch", {"ops": ops, "stop_on_error": stop}).json()
    results = found["results"]
    assert [result.get("status", 200) for result in results] == ([200, 200, 404] if stop else [200, 200, 404, 200, 200, 200])
    assert found["completed"] == len(results) and results[2]["errno"] == "ESRCH"
    assert found["seq"] == before + len(results) - 1
    assert stop or results[4]["errno"] == "EINVAL"


@BOTH
def test_a_body_in_chunks(session, routes, name):
    path, body = routes[name]
    whole = session.service.http.build_request("POST", session.path + path, json=body).content
    parts = (whole[at : at + 7] for at in range(0, len(whole), 7))
    assert session.request("POST", path, content=parts, headers={"Content-Type": "application/json"}).status_code == 200


@BOTH
@pytest.mark.parametrize("chunked", [False, True], ids=["by its length", "in chunks"])
def test_a_body_that_is_too_large(special, name, chunked):
    with special(max_body=2000) as small:
        session = small.session(machine={"memory": "64M"})
        path = f"/processes/{session.spawn()}/touch" if name == "call" else "/batch"
        body = b'{"ops": [' + b" " * 3000 + b"]}"
        content = iter([body[:1500], body[1500:]]) if chunked else body
        problem(session.request("POST", path, content=content, headers={"Content-Type": "application/json"}), 413, "2000")


@BOTH
def test_a_client_that_leaves_in_the_midst_of_its_body(service, session, routes, name):
    before = session.state()["seq"]
    port = int(service.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = f"POST {session.path}{routes[name][0]} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{{"
        client.sendall(head.encode())
    assert session.post(*routes[name]).status_code == 200
    assert session.state()["seq"] == before + 1


@BOTH
def test_limits_of_rate_are_told(special, name):
    with special(token="secret", rate_limit="6/60s") as limited:
        limited.http.headers["Authorization"] = "Bearer secret"
        session = limited.session(machine={"memory": "64M"})
        pid = session.spawn()
        path, body = (f"/processes/{pid}/fork", {}) if name == "call" else ("/batch", {"ops": [{"op": "fork", "pid": pid}]})
        answers = [session.post(path, body) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429]
        assert re.fullmatch(r'"caller";r=3;t=\d+', answers[0].headers["ratelimit"].split(", ")[0])


def test_both_are_counted_by_their_templates(session, routes):
    for path, body in routes.values():
        session.post(path, body)
    text = session.service.http.get("/metrics").text
    for one in (hot.CALL_PATH, hot.BATCH_PATH):
        assert f'pagewalk_http_requests_total{{method="POST",route="{one}",status="200"}}' in text


def test_they_are_documented_as_they_were(service):
    paths = service.http.get("/openapi.json").json()["paths"]
    batch = paths[hot.BATCH_PATH]["post"]
    assert batch["operationId"] == "run_batch" and batch["responses"]["200"]
    assert {one["name"] for one in batch["parameters"]} == {"sid", "if-match", "Idempotency-Key"}
    assert "post" in paths[hot.CALL_PATH.replace("{call}", "touch")]
