"""Journal, snapshots, clone and rewind: a session is its machine, its seed and its operations."""

import json

import pytest

from tests.api.client import PAGE, problem

FILES = ("/fs/proc/meminfo", "/fs/proc/vmstat", "/fs/proc/buddyinfo")


def story(session):
    """Some operations of every kind; returns the pid."""
    pid = session.spawn("a")
    address = session.mmap(pid, 64 * PAGE)
    session.touch(pid, address, 32 * PAGE)
    session.request("MKCOL", "/fs/sys/fs/cgroup/app")
    session.put("/sys/fs/cgroup/app/memory.max", "50M")
    session.post("/files", {"path": "/data/f", "size": "1M"})
    session.call(pid, "read", path="/data/f", offset=0, length="128K")
    session.post("/clock", {"advance": "2s"})
    session.call(pid, "fork")
    session.call(pid, "kill", signal=0)
    return pid


def seen(session):
    return [session.get(path).content for path in FILES] + [session.get("/processes").json(), session.get("/clock").json()]


def events(session):
    return session.get("/events?limit=10000").json()["items"]


def test_a_journal_rebuilds_its_session(session):
    story(session)
    lines = [json.loads(line) for line in session.get("/journal").text.splitlines()]
    boot, ops = lines[0], lines[1:]
    assert session.get("/journal").headers["content-type"] == "application/jsonl"
    assert (boot["op"], boot["seq"], boot["seed"]) == ("boot", 0, 1)
    assert [op["seq"] for op in ops] == list(range(1, len(ops) + 1))
    twin = session.service.session(machine=boot["machine"], seed=boot["seed"])
    assert twin.post("/batch", {"ops": ops}).json()["completed"] == len(ops)
    assert seen(twin) == seen(session)
    assert events(twin) == events(session)
    assert twin.get("/journal").text.splitlines()[1:] == session.get("/journal").text.splitlines()[1:]
    digests = {client.post("/snapshots", {"name": "end"}).json()["digest"] for client in (session, twin)}
    assert len(digests) == 1


def test_binary_writes_survive_the_journal(session):
    session.put("/proc/sys/vm/swappiness", b"\xff\x00")
    session.put("/proc/sys/vm/swappiness", "base64:x")
    lines = session.get("/journal").text.splitlines()[1:]
    assert [json.loads(line)["data"] for line in lines] == ["base64:/wA=", "base64:YmFzZTY0Ong="]


def test_a_clone_goes_its_own_way(session):
    pid = story(session)
    answer = session.post("/clone", {"name": "twin"})
    assert answer.status_code == 201
    record = answer.json()
    assert (record["seq"], record["name"]) == (session.state()["seq"], "twin")
    assert record["token"] != session.record["token"]
    twin = type(session)(session.service, record)
    assert seen(twin) == seen(session)
    assert events(twin) == events(session)
    before = seen(session)
    twin.mmap(pid, PAGE)
    assert seen(session) == before
    assert twin.state()["seq"] == session.state()["seq"] + 1


def test_going_back_in_time_and_doing_it_again_gives_the_same(session):
    pid = session.spawn()
    address = session.mmap(pid, 64 * PAGE)
    then = seen(session)
    session.touch(pid, address, 32 * PAGE)
    now, told = seen(session), events(session)
    answer = session.post("/rewind", {"seq": 2})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2.2"')
    assert seen(session) == then
    session.touch(pid, address, 32 * PAGE)
    assert seen(session) == now
    assert events(session) == told
    assert session.post("/rewind", {"seq": 0}).json()["clock_ns"] == session.record["clock_ns"]


def test_snapshots_are_named_listed_returned_to_and_forgotten(session):
    pid = session.spawn()
    kept = session.post("/snapshots", {"name": "base"})
    assert kept.status_code == 201
    assert (kept.json()["name"], kept.json()["seq"]) == ("base", 1)
    then = seen(session)
    session.mmap(pid, PAGE)
    session.post("/snapshots", {})
    assert [item["name"] for item in session.get("/snapshots").json()["items"]] == ["base", "seq-2"]
    problem(session.post("/snapshots", {"name": "base"}), 409, "base")
    assert session.post("/rewind", {"snapshot": "base"}).json()["seq"] == 1
    assert seen(session) == then
    assert session.post("/rewind", {"snapshot": "seq-2"}).json()["seq"] == 2
    assert session.request("DELETE", "/snapshots/base").status_code == 204
    problem(session.request("DELETE", "/snapshots/base"), 404)
    problem(session.post("/rewind", {"snapshot": "base"}), 404, "seq-2")


def test_snapshots_are_counted(special):
    with special(max_snapshots=1) as service:
        session = service.session()
        assert session.post("/snapshots", {}).status_code == 201
        problem(session.post("/snapshots", {"name": "b"}), 409, "at most 1")


@pytest.mark.parametrize("body", [{}, {"seq": 1}, {"seq": -1}, {"seq": 0, "snapshot": "a"}, {"seq": "0"}, {"to": 1}])
def test_there_is_no_such_past(session, body):
    problem(session.post("/rewind", body), 422)
    assert session.state()["epoch"] == 1
