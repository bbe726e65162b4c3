"""Long calls say how far they are, can be cancelled as if they had never been made, and wait in a line of bounded length."""

import json
import threading
import time

import pytest

from tests.api.client import PAGE, problem

MACHINE = {"memory": "64M", "swap": "256M"}
BUSY = {
    "steps": [
        {"op": "map", "region": "pool", "length": "96M"},
        {"op": "loop", "steps": [{"op": "touch", "region": "pool", "access": "write"}]},
    ],
}


@pytest.fixture
def thrash(service):
    """A session whose one process touches twice what it has, over and over: seconds of work."""
    session = service.session(machine=MACHINE)
    pid = session.spawn()
    address = session.mmap(pid, 96 << 20)
    return session, pid, {"address": address, "length": 96 << 20, "access": "write", "repeat": 300}


class Caller(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, session, path, body):
        super().__init__()
        self.session, self.path, self.body = session, path, body
        self.start()

    def run(self):
        self.answer = self.session.post(self.path, self.body)

    def end(self):
        self.join(120)
        return self.answer


def running(session, state="running"):
    """The first call in that state, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for call in session.get("/calls").json()["items"]:
            if call["state"] == state:
                return call
    raise AssertionError(f"no call is {state}")


def state(session):
    files = [session.get(f"/fs{path}").content for path in ("/proc/meminfo", "/proc/vmstat", "/sys/fs/cgroup/memory.stat")]
    return session.state()["seq"], session.state()["clock_ns"], files, session.get("/journal").content


def test_a_call_that_is_cancelled_never_happened(thrash):
    session, pid, body = thrash
    session.touch(pid, body["address"], 8 << 20)
    before = state(session)
    caller = Caller(session, f"/processes/{pid}/touch", body)
    call = running(session)
    assert (call["op"], call["pid"], call["unit"], call["total"]) == ("touch", pid, "pages", 300 * (96 << 20) // PAGE)
    assert session.request("DELETE", f"/calls/{call['id']}").status_code == 204
    problem(caller.end(), 409, "cancelled", "nothing")
    assert session.get("/calls").json()["items"] == []
    assert state(session) == before
    twin = session.service.session(machine=MACHINE)
    for line in map(json.loads, session.get("/journal").text.splitlines()[1:]):
        twin.post("/batch", {"ops": [{key: value for key, value in line.items() if key != "seq"}]})
    body = {**body, "repeat": 2}
    assert session.call(pid, "touch", **body) == twin.call(pid, "touch", **body)


def test_a_call_that_waits_leaves_the_line(thrash):
    session, pid, body = thrash
    caller = Caller(session, f"/processes/{pid}/touch", body)
    first = running(session)
    second = Caller(session, f"/processes/{pid}/brk", {})
    queued = running(session, "queued")
    assert queued["op"] == "brk"
    assert session.request("DELETE", f"/calls/{queued['id']}").status_code == 204
    problem(second.end(), 409, "cancelled")
    assert caller.is_alive()
    session.request("DELETE", f"/calls/{first['id']}")
    caller.end()
    assert session.state()["seq"] == 2


def test_a_batch_that_is_cancelled_keeps_what_was_done(thrash):
    session, pid, body = thrash
    ops = [{"op": "brk", "pid": pid}, {"op": "touch", "pid": pid, **body}, {"op": "brk", "pid": pid}]
    caller = Caller(session, "/batch", {"ops": ops})
    call = running(session)
    assert (call["op"], call["total"], call["unit"]) == ("batch", 3, "operations")
    assert session.request("DELETE", f"/calls/{call['id']}").status_code == 204
    answer = caller.end().json()
    assert (answer["requested"], answer["completed"], answer["seq"]) == (3, 1, 3)


def test_an_advance_that_is_cancelled_takes_back_what_it_told(service):
    session = service.session(machine=MACHINE)
    session.spawn(program=BUSY)
    before = state(session)
    with session.websocket("?after=0") as ws:
        caller = Caller(session, "/clock", {"advance": "20000s"})
        told, progress = 0, None
        while progress is None or told < 5_000:
            message = json.loads(ws.recv(timeout=60))
            told += message["type"] not in ("progress", "gap", "bookmark")
            if message["type"] == "progress" and message["done"]:
                progress = message
        assert (progress["op"], progress["unit"], progress["total"], progress["pid"]) == ("advance", "ns", 20_000 * 10**9, None)
        assert 0 < progress["done"] < progress["total"]
        assert session.request("DELETE", f"/calls/{progress['call']}").status_code == 204
        problem(caller.end(), 409, "cancelled")
        while True:
            message = json.loads(ws.recv(timeout=60))
            if message["type"] == "gap" and message["reason"] == "rewind":
                break
    assert state(session) == before
    assert session.state()["epoch"] == 2


def test_progress_is_for_those_who_listen_and_can_be_filtered(thrash):
    session, pid, body = thrash
    with session.websocket("?types=progress", max_queue=None) as ws, session.websocket("?types=vma", max_queue=None) as other:
        caller = Caller(session, f"/processes/{pid}/touch", {**body, "repeat": 20})
        while (told := json.loads(ws.recv(timeout=60)))["type"] == "bookmark":
            assert "done" not in told
        assert caller.end().json()["errno"] is None
        session.call(pid, "munmap", address=body["address"], length=PAGE)
        while (kind := json.loads(other.recv(timeout=60))["type"]) != "vma":
            assert kind in ("bookmark", "gap")
    assert told["type"] == "progress" and 0 < told["done"] < told["total"] and told["seq"] == 2
    assert all(event["type"] != "progress" for event in session.get("/events?limit=10000").json()["items"])


def test_what_is_not_under_way_cannot_be_cancelled(session):
    problem(session.request("DELETE", "/calls/1"), 404, "no call 1")
    problem(session.request("DELETE", "/calls/x"), 422)


def test_a_full_line_is_503_and_says_when_to_come_again(special):
    with special(max_queue=2) as service:
        session, other = service.session(machine=MACHINE), service.session(machine=MACHINE)
        pid = session.spawn()
        address = session.mmap(pid, 96 << 20)
        body = {"address": address, "length": 96 << 20, "access": "write", "repeat": 300}
        callers = [Caller(session, f"/processes/{pid}/touch", body)]
        call = running(session)
        callers += [Caller(session, f"/processes/{pid}/brk", {}) for _ in range(2)]
        while len(session.get("/calls").json()["items"]) < 3:
            pass
        refused = session.post(f"/processes/{pid}/brk", {}, headers={"Idempotency-Key": "again"})
        assert problem(refused, 503, "2 requests wait")["type"].endswith("session-busy")
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert other.spawn() > 0
        session.request("DELETE", f"/calls/{call['id']}")
        assert [caller.end().status_code for caller in callers] == [409, 200, 200]
        assert session.post(f"/processes/{pid}/brk", {}, headers={"Idempotency-Key": "again"}).status_code == 200
        assert session.state()["seq"] == 5


def test_a_full_service_is_503_for_long_calls_only(special):
    with special(max_long_calls=1) as service:
        session, other = service.session(machine=MACHINE), service.session(machine={"memory": "512M"}, seed=3)
        pid, second = session.spawn(), other.spawn()
        body = {"address": session.mmap(pid, 96 << 20), "length": 96 << 20, "access": "write", "repeat": 300}
        address = other.mmap(second, 128 << 20)
        caller = Caller(session, f"/processes/{pid}/touch", body)
        call = running(session)
        assert other.touch(second, address, PAGE)["faults"]["minor"] == 1
        refused = other.post(f"/processes/{second}/touch", {"address": address, "length": 128 << 20, "access": "write"})
        assert problem(refused, 503, "long calls")["type"].endswith("service-busy")
        session.request("DELETE", f"/calls/{call['id']}")
        caller.end()
        assert other.touch(second, address, 128 << 20)["faults"]["minor"] == (128 << 20) // PAGE - 1
