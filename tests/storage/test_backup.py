"""A database in one file and back, into either kind, while the service runs."""

import io
import json
import stat
import threading

import orjson
import pytest
import zstandard
from sqlalchemy import insert, select

from app.cli import main
from app.host.verify import replays
from app.storage import backup as house
from app.storage import catalogue, open_store
from app.storage.backup import MAGIC, BackupError
from app.storage.schema import replies, sessions
from tests.api.client import PAGE, Client, running
from tests.api.test_time_travel import seen, story
from tests.storage import postgres


def kept(url, **more):
    return running(**{"database": url, "durability": "normal", "instance": "test", **more})


def saved(url, path):
    store = open_store(url)
    with path.open("wb") as out:
        found = house.backup(store.database, out, "test")
    store.close()
    return found


def restored(url, path, **options):
    store = open_store(url)
    try:
        return house.restore(store.database, path, **options)
    finally:
        store.close()


def lines(path):
    data = path.read_bytes()
    assert data.startswith(MAGIC)
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data[len(MAGIC) :])).read().splitlines()


def digest(session):
    return session.post("/snapshots", {"name": "now"}).json()["digest"]


def a_class(url):
    """Some sessions of every kind; what is seen of them, and their digests."""
    with kept(url, snapshot_every=4) as service:
        first, second = service.session(seed=1, name="ann"), service.session(seed=2)
        story(first)
        story(second)
        second.post("/rewind", {"seq": 5})
        second.spawn("later")
        third = Client(service, first.post("/clone", {"name": "twin"}).json())
        third.spawn("twin")
        return {session.id: (seen(session), digest(session), session.get("/journal").text) for session in (first, second, third)}


def check(url, told):
    with kept(url) as service:
        for sid, (files, was, journal) in told.items():
            session = Client(service, {"id": sid})
            assert (seen(session), session.get("/journal").text) == (files, journal)
            assert session.get("/snapshots").json()["items"][-1]["digest"] == was
            assert session.post("/rewind", {"snapshot": "now"}).json()["differs"] is None
            assert service.inside(sid).kernel.digest() == was
            assert session.spawn("after") > 0
    store = open_store(url)
    for record in store.read(lambda conn: catalogue.page(conn, 100, None)):
        assert replays(store.database, record) is None
    store.close()


def test_from_sqlite_to_postgresql_and_back(tmp_path, postgres_server):
    one, two = f"sqlite:///{tmp_path / 'one.sqlite'}", f"sqlite:///{tmp_path / 'two.sqlite'}"
    between = postgres.emptied(postgres_server)
    told = a_class(one)
    there = saved(one, tmp_path / "there")
    assert restored(between, tmp_path / "there").rows == there.rows
    back = saved(between, tmp_path / "back")
    assert (back.rows, back.digests) == (there.rows, there.digests)
    restored(two, tmp_path / "back")
    check(two, told)
    check(between, told)


def test_a_backup_has_no_secret(tmp_path):
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    with kept(url) as service:
        made = service.http.post("/v1/sessions", json={}, headers={"Idempotency-Key": "k"}).json()
        saved(url, tmp_path / "file")
    text = b"\n".join(lines(tmp_path / "file"))
    assert made["id"].encode() in text and made["token"].encode() not in text


def test_a_backup_under_load_is_one_moment(database_url, tmp_path):
    """Clients work while it is made: every session in it plays again, and has the beginning of what was answered."""
    over = threading.Event()
    answered = {}

    def work(session):
        pid = session.spawn()
        while not over.is_set():
            answered[session.id] = session.call(pid, "brk", increment=PAGE)["seq"]

    with kept(database_url, snapshot_every=10) as service:
        clients = [service.session(seed=number) for number in range(4)]
        threads = [threading.Thread(target=work, args=(session,)) for session in clients]
        for thread in threads:
            thread.start()
        while len(answered) < 4 or min(answered.values()) < 20:
            threading.Event().wait(0.01)
        before = dict(answered)
        saved(database_url, tmp_path / "file")
        assert all(thread.is_alive() for thread in threads)
        over.set()
        for thread in threads:
            thread.join(60)
        journals = {session.id: session.get("/journal").text.splitlines() for session in clients}
    target = f"sqlite:///{tmp_path / 'target.sqlite'}"
    restored(target, tmp_path / "file")
    with kept(target) as service:
        for sid, journal in journals.items():
            session = Client(service, {"id": sid})
            there = session.get("/journal").text.splitlines()
            assert len(there) > before[sid] and there == journal[: len(there)]
            assert session.state()["state"] == "running"
    store = open_store(target)
    assert [replays(store.database, record) for record in store.read(lambda conn: catalogue.page(conn, 9, None))] == [None] * 4
    store.close()


# ---------------------------------------------------------------- refused


@pytest.fixture
def file(tmp_path):
    url = f"sqlite:///{tmp_path / 'source.sqlite'}"
    with kept(url) as service:
        story(service.session())
    saved(url, tmp_path / "file")
    return tmp_path / "file"


def empty(url):
    store = open_store(url)
    found = store.read(catalogue.count)
    store.close()
    return found == 0


def test_a_database_with_something_in_it_is_refused(database_url, file):
    with kept(database_url) as service:
        mine = service.session().id
        with pytest.raises(BackupError, match="is not empty"):
            restored(database_url, file)
        with pytest.raises(BackupError, match="end that service first"):
            restored(database_url, file, force=True)
        assert service.http.get(f"/v1/sessions/{mine}").status_code == 200
    restored(database_url, file, force=True)
    with kept(database_url) as service:
        assert service.http.get(f"/v1/sessions/{mine}").status_code == 404
        assert len(service.http.get("/v1/sessions").json()["items"]) == 1


@pytest.mark.parametrize("at", [0, 20, 200, -40, -1])
def test_a_damaged_file_is_refused_and_nothing_of_it_restored(tmp_path, file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)
    target = f"sqlite:///{tmp_path / 't.sqlite'}"
    with pytest.raises(BackupError):
        restored(target, file)
    assert empty(target)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path, file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    target = f"sqlite:///{tmp_path / 't.sqlite'}"
    with pytest.raises(BackupError):
        restored(target, file)
    assert empty(target)


def test_rows_that_were_changed_are_noticed(tmp_path, file):
    text = b"".join(line + b"\n" for line in lines(file))
    changed = text.replace(b'"eyJv', b'"eyJw', 1)  # {"op of an operation
    assert changed != text
    file.write_bytes(MAGIC + zstandard.ZstdCompressor().compress(changed))
    target = f"sqlite:///{tmp_path / 't.sqlite'}"
    with pytest.raises(BackupError, match="digest is wrong"):
        restored(target, file)
    assert empty(target)


def test_a_backup_of_a_newer_version_is_refused(tmp_path, file):
    head, *rest = lines(file)
    newer = orjson.loads(head)
    newer["components"]["sessions"] += 1
    file.write_bytes(MAGIC + zstandard.ZstdCompressor().compress(b"\n".join([orjson.dumps(newer), *rest])))
    with pytest.raises(BackupError, match="use a newer one"):
        restored(f"sqlite:///{tmp_path / 't.sqlite'}", file)


# ---------------------------------------------------------------- the command


def test_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PAGEWALK_DATABASE", raising=False)
    data, target, file = tmp_path / "data", tmp_path / "target", tmp_path / "b.pwb"
    data.mkdir()
    with kept(f"sqlite:///{data / 'sessions.sqlite'}") as service:
        session = service.session()
        story(session)
        digest(session)
        assert main(["backup", str(file), "--data", str(data)]) == 0
    assert "1 sessions, 11 operations, 1 snapshots" in capsys.readouterr().out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["backup", str(file), "--data", str(data)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["backup", str(file), "--data", str(data), "--force"]) == 0
    assert main(["restore", str(file), "--data", str(target), "--replay"]) == 0
    assert "every session played again to the same digest" in capsys.readouterr().out
    assert main(["restore", str(file), "--data", str(target)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["restore", str(tmp_path / "none"), "--data", str(target), "--force"]) == 1
    assert main(["backup", str(file), "--data", str(tmp_path / "nowhere")]) == 1
    assert "there is no database" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["restore", "--help"])
    assert "--replay" in capsys.readouterr().out


def test_leases_and_kept_answers_stay_behind(tmp_path, database_url):
    with kept(database_url) as service:
        service.session()
        store = open_store(database_url)
        row = {"key": b"k", "fingerprint": b"f", "status": 200, "headers": b"[]", "body": b"secret", "created": 1.0}
        store.write(lambda conn: conn.execute(insert(replies).values(row)))
        store.close()
        saved(database_url, tmp_path / "file")
    target = f"sqlite:///{tmp_path / 't.sqlite'}"
    restored(target, tmp_path / "file")
    store = open_store(target)
    assert store.read(lambda conn: conn.execute(select(sessions.c.holder, sessions.c.lease_until)).all()) == [(None, 0.0)]
    assert store.read(lambda conn: conn.execute(select(replies)).all()) == []
    store.close()
    assert not [row for row in map(json.loads, lines(tmp_path / "file")) if isinstance(row, dict) and row.get("table") == "replies"]
