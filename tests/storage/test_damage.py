"""What is damaged on the disk is detected: the session says so, its neighbours go on, `doctor` finds it, and nothing is answered 500."""

import contextlib
import random
import resource
import sqlite3

import psutil
import pytest
from sqlalchemy import delete, select, update

from app.doctor import journals
from app.settings import Settings
from app.storage import open_store
from app.storage.schema import journal, snapshots
from tests.api.client import PAGE, Client, problem, running
from tests.api.test_time_travel import seen
from tests.pool import service as pool


def kept(url, **more):
    return running(**{"database": url, "durability": "normal", "instance": "test", **more})


def some_operations(session, count=6):
    pid = session.spawn()
    for _ in range(count - 1):
        session.call(pid, "brk", increment=PAGE)
    return pid


def without_snapshots(url, work):
    store = open_store(url)
    try:
        store.write(lambda conn: conn.execute(delete(snapshots)))
        store.write(work)
    finally:
        store.close()


def damage(conn, seq, at):
    """Another byte in an operation."""
    row = conn.execute(select(journal).where(journal.c.seq == seq)).first()
    body = bytearray(row.body)
    body[at % len(body)] ^= 0x20
    conn.execute(update(journal).where(journal.c.line == row.line, journal.c.seq == seq).values(body=bytes(body)))


def lose(conn, seq, _):
    conn.execute(delete(journal).where(journal.c.seq == seq))


@pytest.mark.parametrize(("how", "at"), [(damage, 0), (damage, 30), (damage, -1), (lose, 0)], ids=["head", "middle", "tail", "missing"])
def test_a_damaged_operation_freezes_its_session_there(database_url, how, at):
    with kept(database_url) as service:
        session = service.session(seed=2)
        some_operations(session)
        then = session.get("/at/3/fs/proc/meminfo").content
    without_snapshots(database_url, lambda conn: how(conn, 4, at))
    with kept(database_url) as service:
        session = Client(service, session.record)
        neighbour = service.session()
        assert session.state()["state"] == "frozen"
        problem(session.get("/fs/proc/meminfo"), 409, "the journal is damaged", "operation 4")
        problem(session.post("/clock", {"advance": "1s"}), 409, "damaged")
        problem(session.post("/rewind", {"seq": 5}), 409, "cannot be built again", "damaged")
        problem(session.get("/at/5/fs/proc/meminfo"), 409, "damaged")
        assert "pagewalk_sessions_frozen_total 1.0" in service.http.get("/metrics").text
        assert neighbour.spawn() > 0
        found = journals(Settings(database=database_url))
        assert found.verdict == "wrong" and f"{session.id}: operation 4" in found.says
        assert session.post("/rewind", {"seq": 3}).json()["state"] == "running"
        assert session.get("/fs/proc/meminfo").content == then
        assert session.spawn("on") > 0


def test_a_sound_database_is_sound(database_url):
    with kept(database_url) as service:
        some_operations(service.session())
        found = journals(Settings(database=database_url))
        assert (found.verdict, found.says) == ("ok", "1 sessions, 7 operations, 0 snapshots: all sound")


@pytest.mark.parametrize("where", range(4))
def test_a_snapshot_with_any_byte_changed_is_passed_over(database_url, where):
    """Whichever byte it is, also of its place: the one before is used."""
    with kept(database_url) as service:
        session = service.session(seed=4)
        pid = some_operations(session, 3)
        session.post("/snapshots", {"name": "one"})
        session.call(pid, "brk", increment=PAGE)
        session.post("/snapshots", {"name": "two"})
        before = seen(session)
    store = open_store(database_url)

    def spoil(conn):
        row = conn.execute(select(snapshots).order_by(snapshots.c.seq.desc())).first()
        blob = bytearray(row.kernel)
        luck = random.Random(where)
        blob[luck.randrange(len(blob))] ^= 1 << luck.randrange(8)
        torn = bytes(blob) if where else bytes(blob[: len(blob) // 2])
        conn.execute(update(snapshots).where(snapshots.c.line == row.line, snapshots.c.seq == row.seq).values(kernel=torn))

    store.write(spoil)
    loaded = store.load(session.id)
    assert (loaded.damaged, loaded.snapshot.seq) == (1, 3)
    store.close()
    found = journals(Settings(database=database_url))
    assert found.verdict == "note" and "operation 4" in found.says
    with kept(database_url) as service:
        assert seen(Client(service, session.record)) == before


def test_a_damaged_page_of_sqlite_harms_its_own_sessions_only(tmp_path):
    """The pages of one session's operations are overwritten with noise."""
    path = tmp_path / "s.sqlite"
    url = f"sqlite:///{path}"
    with kept(url) as service:
        first, second = service.session(), service.session()
        for session in (first, second):
            pid = session.spawn()
            for number in range(30):
                session.post("/files", {"path": f"/data/{session.id}-{number}-{'x' * 200}", "size": PAGE})
            assert session.call(pid, "brk", increment=PAGE)["errno"] is None
    without_snapshots(url, lambda conn: None)
    with contextlib.closing(sqlite3.connect(path)) as conn:
        size = conn.execute("PRAGMA page_size").fetchone()[0]
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    pages = {at: bytes(data[at : at + size]) for at in range(0, len(data), size)}
    mine = [at for at, page in pages.items() if page.count(first.id.encode()) > 3 and second.id.encode() not in page and b"create_file" in page]
    assert mine
    for at in mine:
        data[at : at + size] = random.Random(1).randbytes(size)
    path.write_bytes(data)
    with kept(url) as service:
        hurt, sound = Client(service, first.record), Client(service, second.record)
        problem(hurt.get("/fs/proc/meminfo"), 503, "doctor")
        assert sound.state()["seq"] == 32 and sound.spawn() > 0
        found = journals(Settings(database=url))
        assert found.verdict == "wrong" and first.id in found.says


# ---------------------------------------------------------------- no room


def test_a_full_disk_is_answered_507_and_nothing_is_acknowledged_that_is_not_there(tmp_path):
    """The process may not let files grow for a while, which the system answers as it answers a full disk."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    environment = {"PAGEWALK_DATABASE": f"sqlite:///{tmp_path / 'data' / 's.sqlite'}", "PAGEWALK_INSTANCE": "test"}
    with pool.running(workers=1, environment=environment) as service:
        sid = service.create()
        answered = [service.spawn(sid).json()["seq"] for _ in range(5)]
        process = psutil.Process(service.process.pid)
        room = max(file.stat().st_size for file in (tmp_path / "data").iterdir())
        process.rlimit(resource.RLIMIT_FSIZE, (room + 40_000, resource.RLIM_INFINITY))
        refused = 0
        for number in range(200):
            answer = service.spawn(sid, headers={"Idempotency-Key": f"k{number}"})
            if answer.status_code == 201:
                answered.append(answer.json()["seq"])
            else:
                problem(answer, 507, "no room")
                refused += 1
            if refused == 5:
                break
        assert refused == 5 and service.http.get("/livez").status_code == 200
        process.rlimit(resource.RLIMIT_FSIZE, unlimited)
        again = service.spawn(sid, headers={"Idempotency-Key": f"k{number}"})
        assert again.status_code == 201 and again.json()["seq"] == answered[-1] + 1
        assert answered == list(range(1, len(answered) + 1))
        service.kill()
        service.begin()
        service.await_ready()
        assert service.http.get(f"/v1/sessions/{sid}").json()["seq"] == answered[-1] + 1
