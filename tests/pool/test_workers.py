"""One service, one port, several processes: whoever has the connection, the session answers the same."""

import contextlib
import json
import os
import signal
import socket
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from app.pool import supervisor
from app.settings import Settings
from tests.pool.service import Workers, running


@pytest.fixture(scope="module")
def service():
    with running() as service:
        yield service


@pytest.fixture(scope="module")
def sessions(service):
    return [service.create() for _ in range(4)]


def events(service, sid, query="?after=0"):
    return connect(f"{service.url.replace('http', 'ws')}/v1/sessions/{sid}/events{query}")


def streams(service, sid):
    """The first event in each of the four forms."""
    path = f"/v1/sessions/{sid}/events?after=0"
    yield service.http.get(path).json()["items"][0]
    with events(service, sid) as ws:
        yield json.loads(ws.recv(timeout=20))
    with service.client() as http, http.stream("GET", path, headers={"Accept": "application/jsonl"}) as answer:
        yield json.loads(next(answer.iter_lines()))
    with service.client() as http, http.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
        yield json.loads(next(line for line in answer.iter_lines() if line.startswith("data:"))[5:])


def how_it_ends(ws):
    """The code that a websocket is closed with, None while it is open."""
    try:
        ws.recv(timeout=1)
    except TimeoutError:
        return None
    except ConnectionClosed as closed:
        return 1006 if closed.rcvd is None else closed.rcvd.code
    return None


def test_every_connection_reaches_every_session(service, sessions):
    assert len(service.pids()) == 2
    for _ in range(6):
        with service.client() as http:
            assert [http.get(f"/v1/sessions/{sid}").json()["id"] for sid in sessions] == sessions


def test_all_forms_of_events_come_through(service, sessions):
    for sid in sessions:
        service.spawn(sid)
        first, *others = streams(service, sid)
        assert first["type"] == "process" and others == [first] * 3


def test_a_websocket_s_own_messages_and_close_codes_come_through(service, sessions):
    for sid in sessions:
        with events(service, sid, "") as ws:
            ws.send("nonsense")
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(timeout=20)
            assert closed.value.rcvd.code == 4400


def test_bodies_headers_and_problems_come_through(service, sessions):
    for sid in sessions:
        path = f"/v1/sessions/{sid}"
        seq = service.http.get(path).json()["seq"]
        answer = service.spawn(sid, headers={"If-Match": f'"1.{seq}"', "Idempotency-Key": sid})
        again = service.spawn(sid, headers={"If-Match": f'"1.{seq}"', "Idempotency-Key": sid})
        assert (answer.status_code, again.status_code, again.headers["idempotent-replayed"]) == (201, 201, "true")
        assert answer.json() == again.json()
        assert service.spawn(sid, headers={"If-Match": f'"1.{seq}"'}).status_code == 412
        assert service.http.put(f"{path}/fs/sys/fs/cgroup/memory.max", content=b"x" * (5 << 20)).status_code == 413
        assert service.http.put(f"{path}/fs/proc/sys/vm/swappiness", content=b"10").status_code == 204
        assert service.http.get(f"{path}/fs/proc/sys/vm/swappiness").text == "10\n"
        assert service.http.get(f"{path}/nothing").json()["instance"] == f"{path}/nothing"
    assert service.http.get("/v1/sessions/s_none").status_code == 404


def test_metrics_are_of_all_workers(service, sessions):
    for sid in sessions:
        service.spawn(sid)
    for _ in range(3):
        with service.client() as http:
            figures = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if not line.startswith("#"))
            assert float(figures["pagewalk_workers"]) == 2


def test_sessions_are_not_counted_once_for_each_worker(service, sessions):
    """Every worker knows of all of them, the others' some seconds later."""
    until = time.monotonic() + 30
    while True:
        there = len(service.http.get("/v1/sessions?page_size=1000").json()["items"])
        lines = service.http.get("/metrics").text.splitlines()
        counted = float(next(line for line in lines if line.startswith("pagewalk_sessions ")).split()[1])
        assert counted <= there
        if counted == there:
            break
        assert time.monotonic() < until


def test_the_same_key_makes_one_session_wherever_it_arrives(service):
    made = set()
    for _ in range(6):
        with service.client() as http:
            made.add(service.create(http, headers={"Idempotency-Key": "one"}))
    assert len(made) == 1


def test_a_worker_that_is_killed_is_replaced_and_the_service_goes_on():
    with running() as service:
        sessions = [service.create() for _ in range(4)]
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(events(service, sid)) for sid in sessions]
            killed = service.pids()[0]
            os.kill(killed, signal.SIGKILL)
            ends = [how_it_ends(ws) for ws in sockets]
            assert sum(end is not None for end in ends) >= 1
            assert set(ends) <= {None, 1006, 1012}, "open still, broken off with its worker, or told to resume"
        with service.client() as http:
            for _ in range(8):
                sid = service.create(http)
                assert service.spawn(sid, http).status_code == 201
        code, said = service.stop()
    assert code == 0 and "signal 9" in said


def test_sigterm_ends_streams_and_all_processes_in_time():
    service = Workers()
    pids = service.pids()
    sid = service.create()
    with events(service, sid) as ws:
        assert service.stop()[0] == 0
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=20)
        assert closed.value.rcvd.code == 1012
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_workers_end_with_their_supervisor_and_free_the_port():
    service = Workers()
    port = int(service.url.rpartition(":")[2])
    os.kill(service.process.pid, signal.SIGKILL)
    service.stop()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            continue
        break
    again = Workers(port=port)
    assert again.stop()[0] == 0


def test_it_is_said_why_a_service_does_not_start(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "READY_S", 0.0)
    settings = Settings(workers=2, database=f"sqlite:///{tmp_path / 'sessions.sqlite'}", instance="late")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        late = supervisor.Supervisor(settings, listener, lambda: pytest.fail("it is not ready"), lambda life: None)
        assert not late.run()
    assert "worker w0 took no requests within 0 s: giving up" in caplog.text
