"""What was answered is there after a restart, a crash, a takeover and a change of version, on both databases."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref

import httpx2
import pytest
from sqlalchemy import delete, func, select, update

from app.host import registry as registries
from app.storage import history, open_store
from app.storage.schema import journal, replies, snapshots
from core import Kernel
from tests.api.client import PAGE, Client, problem, running
from tests.api.test_time_travel import events, seen, story
from tests.storage.conftest import database_url, postgres_server  # noqa: F401  (fixtures)


def kept(url, **more):
    """A service on a database that outlives it."""
    return running(**{"database": url, "durability": "normal", "instance": "test", **more})


def again(service, client):
    """The same session of another service."""
    return Client(service, client.record)


def test_a_session_is_there_after_a_restart(database_url):  # noqa: F811
    with kept(database_url, snapshot_every=4) as service:
        session = service.session(seed=5, name="n")
        story(session)
        before, told, state, lines = seen(session), events(session), session.state(), session.get("/journal").text
        digest = session.post("/snapshots", {"name": "end"}).json()["digest"]
    with kept(database_url) as service:
        session = again(service, session)
        assert session.state() == state
        assert seen(session) == before
        assert events(session) == told
        assert session.get("/journal").text == lines
        assert session.get("/snapshots").json()["items"][0]["digest"] == digest
        assert session.get("", headers={"If-Match": "x"}).headers["etag"] == f'"1.{state["seq"]}"'
        problem(session.post("/clock", {"advance": "1s"}, headers={"If-Match": '"1.1"'}), 412)
        assert [item["id"] for item in service.http.get("/v1/sessions").json()["items"]] == [session.id]
        assert session.post("/rewind", {"snapshot": "end"}).json()["seq"] == state["seq"]
        assert seen(session) == before


def test_a_journal_replays_to_the_same_digest(database_url):  # noqa: F811
    """Without any snapshot: from the boot, in another process' place."""
    with kept(database_url) as service:
        session = service.session(seed=6)
        story(session)
        digest = session.post("/snapshots", {"name": "end"}).json()["digest"]
    store = open_store(database_url)
    store.write(lambda conn: conn.execute(delete(snapshots)))
    store.close()
    with kept(database_url) as service:
        session = again(service, session)
        session.get("")
        assert service.inside(session.id).kernel.digest() == digest
        answer = session.post("/rewind", {"snapshot": "end"})
        assert answer.status_code == 200, answer.text
        assert service.inside(session.id).kernel.digest() == digest


@pytest.mark.parametrize("where", ["head", "middle", "tail", "version"])
def test_a_snapshot_that_cannot_be_read_is_passed_over(tmp_path, where):
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    with kept(url) as service:
        session = service.session()
        pid = session.spawn()
        session.post("/snapshots", {"name": "one"})
        session.mmap(pid, PAGE)
        session.post("/snapshots", {"name": "two"})
        session.call(pid, "fork")
        before = seen(session)
    store = open_store(url)
    store.write(lambda conn: conn.execute(delete(snapshots).where(snapshots.c.seq == 3)))  # of the service's end
    blob = bytearray(store.read(lambda conn: conn.execute(select(snapshots.c.kernel).where(snapshots.c.seq == 2)).scalar_one()))
    at = {"head": 0, "middle": len(blob) // 2, "tail": -1, "version": 3}[where]
    blob[at] ^= 0x55
    if where == "version":  # a sound row of another program's version
        from app.storage.history import checksum

        def write(conn):
            row = conn.execute(select(snapshots).where(snapshots.c.seq == 2)).one()
            mark = checksum(row.line, row.seq, row.last_event, row.format, bytes(blob))
            conn.execute(update(snapshots).where(snapshots.c.seq == 2).values(kernel=bytes(blob), checksum=mark))

        store.write(write)
    else:
        store.write(lambda conn: conn.execute(update(snapshots).where(snapshots.c.seq == 2).values(kernel=bytes(blob))))
    store.close()
    with kept(url) as service:
        session = again(service, session)
        assert seen(session) == before


def test_the_end_of_a_service_leaves_snapshots(database_url):  # noqa: F811
    """The next one plays nothing again."""
    with kept(database_url) as service:
        session = service.session()
        story(session)
        before, seq = seen(session), session.state()["seq"]
    store = open_store(database_url)
    loaded = store.load(session.id)
    assert (loaded.snapshot.seq, loaded.entries, loaded.record.holder) == (seq, [], None)
    store.close()
    with kept(database_url) as service:
        assert seen(again(service, session)) == before


def test_an_answer_is_given_again_after_a_restart(database_url):  # noqa: F811
    key = {"Idempotency-Key": "k1"}
    with kept(database_url) as service:
        made = service.http.post("/v1/sessions", json={"seed": 3}, headers=key)
        session = Client(service, made.json())
        pid = session.spawn()
        first = session.post(f"/processes/{pid}/mmap", {"length": PAGE, "prot": "rw", "flags": ["private", "anonymous"]}, headers=key)
        seq = session.state()["seq"]
    with kept(database_url) as service:
        session = again(service, session)
        assert service.http.post("/v1/sessions", json={"seed": 3}, headers=key).content == made.content
        second = session.post(f"/processes/{pid}/mmap", {"length": PAGE, "prot": "rw", "flags": ["private", "anonymous"]}, headers=key)
        assert (second.content, second.headers["idempotent-replayed"]) == (first.content, "true")
        assert session.state()["seq"] == seq
        assert len(service.http.get("/v1/sessions").json()["items"]) == 1
        problem(session.post(f"/processes/{pid}/brk", {"increment": 1}, headers=key), 422, "another request")


def test_an_answer_is_stored_with_its_operation_or_not_at_all(tmp_path):
    """The reply cannot be written: neither is the operation."""
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    with kept(url) as service:
        session = service.session()
        pid = session.spawn()
        service.app.state.registry.writer.database.write(lambda conn: replies.drop(conn))
        answer = session.post(f"/processes/{pid}/fork", {}, headers={"Idempotency-Key": "k"})
        assert answer.status_code in (500, 503)
        service.app.state.registry.writer.database.write(lambda conn: replies.create(conn))
        assert session.state()["seq"] == 1
        answer = session.post(f"/processes/{pid}/fork", {}, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 200
        assert session.state()["seq"] == 2


def test_a_session_that_leaves_memory_comes_back(special):
    with special(hibernate_after=1) as service:
        session = service.session()
        story(session)
        before, told, state = seen(session), events(session), session.state()
        registry = service.app.state.registry
        for _ in range(2):
            assert asyncio.run_coroutine_threadsafe(registry.hibernate(service.inside(session.id)), service.loop).result(60)
            assert len(registry) == 0
            assert service.http.get("/v1/sessions").json()["items"] == [state]
            assert seen(session) == before
            assert events(session) == told
            assert len(registry) == 1


@pytest.mark.parametrize(("limit_ns", "kept"), [(0, 1), (10**12, 0)], ids=["with a snapshot", "without"])
def test_what_is_played_again_fast_needs_no_snapshot(special, monkeypatch, limit_ns, kept):
    monkeypatch.setattr(registries, "PLAYED_AGAIN_NS", limit_ns)
    with special() as service:
        session = service.session()
        story(session)
        before, told = seen(session), events(session)
        registry = service.app.state.registry
        assert asyncio.run_coroutine_threadsafe(registry.hibernate(service.inside(session.id)), service.loop).result(60)
        with registry.writer.database.engine.connect() as conn:
            assert conn.execute(select(func.count()).select_from(snapshots)).scalar_one() == kept
        assert (seen(session), events(session)) == (before, told)


def test_a_session_that_left_leaves_its_memory(special):
    with special() as service:
        session = service.session()
        session.post("/batch", {"ops": [{"op": "spawn", "comm": "a"}]})
        kernel = weakref.ref(service.inside(session.id).kernel)
        gc.collect()
        gc.disable()
        try:
            assert asyncio.run_coroutine_threadsafe(service.app.state.registry.hibernate(service.inside(session.id)), service.loop).result(60)
            assert kernel() is None
        finally:
            gc.enable()


def test_a_session_in_use_stays(special):
    with special() as service:
        session = service.session()
        session.spawn()
        registry = service.app.state.registry
        with session.websocket("?after=0") as ws:
            ws.recv(timeout=30)
            assert not asyncio.run_coroutine_threadsafe(registry.hibernate(service.inside(session.id)), service.loop).result(60)
            assert registry.live(session.id)


def test_those_used_longest_ago_leave_when_memory_is_short(special):
    with special(live_memory="0", hibernate_after="1h") as service:
        sessions = [service.session() for _ in range(4)]
        registry = service.app.state.registry
        asyncio.run_coroutine_threadsafe(registry.make_room(1e12), service.loop).result(60)
        assert len(registry) < 4
        assert [session.state()["seq"] for session in sessions] == [0] * 4


def test_a_zombie_can_write_nothing(database_url):  # noqa: F811
    """Another service takes the session over; what the first does with it afterwards is refused, and it reads it anew."""
    with kept(database_url, instance="one") as first, kept(database_url, instance="two") as second:
        session = first.session()
        session.spawn()
        problem(second.http.get(session.path), 503, "another worker")
        first.app.state.registry.writer.database.write(lambda conn: __import__("app.storage.catalogue").storage.catalogue.void(conn, "one"))
        other = again(second, session)
        assert other.spawn() == 102
        problem(session.post("/processes", {"comm": "x"}), 503, "send it again")
        problem(first.http.get(session.path), 503, "another worker")
        assert other.state()["seq"] == 2


def test_no_answer_and_no_event_before_it_is_stored(special):
    """While nothing is committed nothing is told."""
    with special() as service:
        session = service.session()
        pid = session.spawn()
        last = session.state()["events"]["last"]
        go, writer = threading.Event(), service.app.state.registry.writer
        real = writer._commit
        writer._commit = lambda units: (go.wait(60), real(units))[1]
        answers = []
        asking = threading.Thread(target=lambda: answers.append(session.call(pid, "fork")))
        asking.start()
        while service.inside(session.id).seq < 2:
            threading.Event().wait(0.001)
        ring = service.inside(session.id).ring
        assert (answers, ring.last) == ([], last)
        go.set()
        asking.join(60)
        assert answers[0]["seq"] == 2
        assert session.get(f"/events?after={last}").json()["items"][0]["id"] == last + 1


def test_a_snapshot_is_made_when_it_saves_ten_times_what_it_costs(special):
    with special(snapshot_replay=1, snapshot_every=10**6) as service:
        session = service.session()
        session.spawn()
        keeper = service.inside(session.id).keeper
        while keeper.seq < 1:  # each operation takes longer than a nanosecond
            pass
        assert keeper.cost_ns > 0
        keeper.cost_ns = 10**15
        for _ in range(5):
            session.spawn()
        assert (keeper.seq, keeper._keeping) == (1, None)
        keeper.cost_ns = 1
        session.spawn()
        while keeper.seq < 7:
            pass


# ---------------------------------------------------------------- the past


def test_any_file_as_it_was(session):
    pid = session.spawn()
    address = session.mmap(pid, 64 * PAGE)
    then = session.get("/fs/proc/meminfo").content
    session.touch(pid, address, 64 * PAGE)
    assert session.get("/at/2/fs/proc/meminfo").content == then
    assert session.get("/at/3/fs/proc/meminfo").content == session.get("/fs/proc/meminfo").content != then
    problem(session.get("/at/4/fs/proc/meminfo"), 422, "0 .. 3")
    assert problem(session.get(f"/at/0/fs/proc/{pid}/maps"), 404)["errno"] == "ENOENT"
    assert session.state()["seq"] == 3


def test_what_changed_between_two_moments(session):
    pid = session.spawn()
    address = session.mmap(pid, 64 * PAGE)
    session.touch(pid, address, 64 * PAGE)
    found = session.get("/diff?from=2&to=3").json()
    counters = {row["name"]: (row["before"], row["after"]) for row in found["counters"] if row["file"] == "/proc/vmstat"}
    assert int(counters["pgfault"][1]) - int(counters["pgfault"][0]) >= 64
    rollup = next(row for row in found["files"] if row["path"] == f"/proc/{pid}/smaps_rollup")
    assert rollup["change"] == "changed" and "+Rss:" in rollup["diff"] and "-Rss:" in rollup["diff"]
    assert [row["change"] for row in session.get("/diff?from=0&to=1").json()["files"] if row["path"] == f"/proc/{pid}/maps"] == ["appeared"]
    assert session.get("/diff?from=3&to=3").json()["counters"] == []
    problem(session.get("/diff?from=0&to=9"), 422, "0 .. 3")


# ---------------------------------------------------------------- kill -9


class Process:
    """The real service in a process of its own."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(self.port), "--data", str(self.folder)]
        environment = {name: value for name, value in os.environ.items() if name != "PAGEWALK_DATABASE"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert "ready" in self.process.stdout.readline()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self.process.stdout.close()


def test_a_killed_service_has_lost_nothing_that_it_answered(tmp_path):
    service = Process(tmp_path)
    service.start()
    ask = httpx2.Client(timeout=120)
    try:
        session = ask.post(f"{service.url}/v1/sessions", json={}).json()["id"]
        path = f"{service.url}/v1/sessions/{session}"
        pid = ask.post(f"{path}/processes", json={"comm": "a"}).json()["pid"]
        for _ in range(2):
            acknowledged = [ask.post(f"{path}/processes/{pid}/brk", json={"increment": 1}).json()["seq"] for _ in range(20)][-1]
            before = ask.get(f"{path}/fs/proc/meminfo").content
            service.kill()
            service.start()
            assert ask.get(path).json()["seq"] == acknowledged
            assert ask.get(f"{path}/fs/proc/meminfo").content == before
    finally:
        ask.close()
        service.kill()


def test_kernels_are_values(tmp_path):
    """The journal of a database, read without the service: a kernel of one's own comes to the same digest."""
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    with kept(url, snapshot_replay="1h") as service:  # on a slow machine too the journal is all there is
        session = service.session(seed=9)
        story(session)
        digest = service.inside(session.id).kernel.digest()
        machine = service.inside(session.id).machine
    from app.host.history import op_of

    store = open_store(url)
    kernel = Kernel.boot(machine, 9)
    kernel.drain()
    line = store.load(session.id).record.line
    for entry in store.read(lambda conn: list(history.entries(conn, line)))[1:]:
        op = op_of(entry)
        kernel.call(op.op, op.pid, **op.args)
    assert kernel.digest() == digest
    assert store.read(lambda conn: conn.execute(select(journal.c.format).distinct()).scalars().all()) == [1]
    store.close()


