"""The Protocol of a store, on both databases: leases and fences, journals, timelines, snapshots, migrations."""

import asyncio
import dataclasses
import threading

import pytest
from sqlalchemy import insert, select, text, update

from app.storage import Append, Entry, Fenced, Held, NoSuchSession, Record, Snapshot, StorageError, Unit, Writer, catalogue, history, open_store
from app.storage.database import Database
from app.storage.schema import COMPONENTS, Component, lines, sessions, snapshots, versions

TTL = 3600.0


def record(name, **more):
    at = 1_700_000_000.0
    nobody = dict.fromkeys(("owner", "course", "name", "lab"))
    values = nobody | {"machine": "{}", "seed": 2**70, "token": b"t", "ttl_ns": 10**9, "created": at, "used": at}
    return Record(name, **values | {"line": int.from_bytes(name.encode()), "epoch": 1} | more)


def boot():
    return Entry(0, 3, 7, b"boot")


def entries(first, last):
    return [Entry(seq, 10 * seq, 100 * seq, b"\x00op %d" % seq) for seq in range(first, last + 1)]


def begin(store, name="a", upto=0, **more):
    """A session with some operations; its lease and its timeline."""
    lease = store.create(record(name, **more), boot(), "one", TTL)
    line = record(name, **more).line
    if upto:
        assert store.append([Append(lease, line, entries(1, upto))]) == set()
    return lease, line


def numbers(store, line, after=-1, upto=None):
    return [entry.seq for entry in store.read(lambda conn: list(history.entries(conn, line, after, upto)))]


def test_what_is_stored_comes_back(store, opened):
    lease, line = begin(store, upto=3, name="a", owner="ann", lab="l", machine='{"a": 1}')
    again = opened()
    found = again.load("a")
    assert found.snapshot is None
    assert list(found.entries) == [boot(), *entries(1, 3)]
    given = record("a", owner="ann", lab="l", machine='{"a": 1}')
    assert found.record == dataclasses.replace(given, holder="one", seq=3, last_event=30, clock_ns=300)
    assert (lease.fence, line) == (1, found.record.line)


def test_there_is_one_lease_and_its_fence_grows(store):
    first, line = begin(store)
    with pytest.raises(Held) as held:
        store.acquire("a", "two", TTL)
    assert held.value.holder == "one" and held.value.until > held.value.now
    store.release([first])
    second = store.acquire("a", "two", TTL)
    assert second.fence > first.fence
    assert store.append([Append(first, line, entries(1, 1))]) == {"a"}
    assert store.append([Append(second, line, entries(1, 1))]) == set()
    with pytest.raises(NoSuchSession):
        store.acquire("b", "two", TTL)


def test_a_lease_that_ran_out_is_taken_over_and_the_old_writer_is_fenced(store):
    first, line = begin(store, upto=1)
    assert store.renew("one", -1.0) == {"a"}
    second = store.acquire("a", "two", TTL)
    assert store.append([Append(first, line, entries(2, 2))]) == {"a"}
    with pytest.raises(Fenced):
        store.snapshot(first, Snapshot(line, 1, 10, b"kernel"))
    assert numbers(store, line) == [0, 1]
    assert store.renew("one", TTL) == set()
    assert store.renew("two", TTL) == {"a"}
    store.release([first])  # changes nothing: it is not valid
    with pytest.raises(Held):
        store.acquire("a", "three", TTL)
    assert second.holder == "two"


def test_the_leases_of_a_dead_holder_can_be_taken_from_it(store):
    for name, holder in (("a", "host/1/w1"), ("b", "host/1/w2"), ("c", "host_/1"), ("d", "host")):
        store.create(record(name), boot(), holder, TTL)
    lease = store.write(lambda conn: catalogue.fences(conn, ["a"]))
    assert store.void("host") == 3
    assert store.write(lambda conn: catalogue.fences(conn, ["a"]))["a"] > lease["a"]
    assert {name for name in "abcd" if store.read(lambda conn, name=name: catalogue.find(conn, name)).holder} == {"c"}


def test_only_the_fenced_part_of_an_append_is_refused(store):
    a, line_a = begin(store, "a")
    b, line_b = begin(store, "b")
    store.release([a])
    assert store.append([Append(a, line_a, entries(1, 2)), Append(b, line_b, entries(1, 2))]) == {"a"}
    assert (numbers(store, line_a), numbers(store, line_b)) == ([0], [0, 1, 2])
    store.write(lambda conn: history.remove(conn, "b"))
    assert store.append([Append(b, line_b, entries(3, 3))]) == {"b"}


@pytest.mark.parametrize("count", [1, 2, 3, 511, 512, 513, 2000])
def test_appends_of_any_size(store, count):
    lease, line = begin(store)
    assert store.append([Append(lease, line, entries(1, count))]) == set()
    assert numbers(store, line) == list(range(count + 1))


def test_a_number_is_given_once(store):
    lease, line = begin(store, upto=2)
    with pytest.raises(StorageError):
        store.append([Append(lease, line, entries(2, 3))])
    assert numbers(store, line) == [0, 1, 2]


def test_takeovers_and_appends_at_once_never_write_under_an_old_fence(store):
    """Threads take the session from each other and append the number that they read: a number written twice would raise."""
    store.release([begin(store)[0]])
    written, lost = [], []

    def work(holder):
        for _ in range(20):
            lease = store.acquire("a", "shared", TTL)  # each takes it from the others
            found = store.read(lambda conn: catalogue.find(conn, "a"))
            one = Append(lease, found.line, [Entry(found.seq + 1, 0, 0, holder)])
            try:
                (lost if store.append([one]) else written).append(found.seq + 1)
            except StorageError:  # another has written that number before, with a valid lease: no harm done
                lost.append(found.seq + 1)

    threads = [threading.Thread(target=work, args=(b"%d" % number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(store, store.load("a").record.line) == [0, *sorted(written)]
    assert len(written) + len(lost) == 60


# ---------------------------------------------------------------- timelines


def test_going_back_shares_the_past_and_keeps_the_other_future(store):
    lease, line = begin(store, upto=5)
    store.write(lambda conn: history.rewind(conn, lease, line, 3, 900, 2))
    found = store.load("a").record
    assert (found.line, found.epoch, found.seq, found.last_event, found.clock_ns) == (900, 2, 3, 30, 300)
    store.append([Append(lease, 900, [Entry(4, 41, 401, b"another")])])
    assert [entry.body for entry in store.load("a").entries] == [b"boot", b"\x00op 1", b"\x00op 2", b"\x00op 3", b"another"]
    assert numbers(store, line) == [0, 1, 2, 3, 4, 5]
    store.write(lambda conn: history.rewind(conn, lease, 900, 3, 901, 3))  # to the place where it forked
    store.write(lambda conn: history.rewind(conn, lease, 901, 0, 902, 4))
    assert (numbers(store, 901), numbers(store, 902)) == ([0, 1, 2, 3], [0])
    assert numbers(store, 900, 2, 3) == [3]


def test_a_clone_outlives_its_origin(store):
    lease, line = begin(store, upto=4)
    twin = record("twin", line=70)
    store.write(lambda conn: history.rewind(conn, lease, line, 4, 900, 2))
    store.write(lambda conn: (catalogue.create_row(conn, twin, "one", TTL), history.fork(conn, 900, 4, 70, "twin")))
    assert store.write(lambda conn: history.remove(conn, "a"))
    assert not store.write(lambda conn: history.remove(conn, "a"))
    with pytest.raises(NoSuchSession):
        store.load("a")
    assert [entry.seq for entry in store.load("twin").entries] == [0, 1, 2, 3, 4]
    store.write(lambda conn: history.remove(conn, "twin"))
    assert store.read(lambda conn: list(conn.execute(select(lines.c.id)))) == []
    assert numbers_of_rows(store) == 0


def numbers_of_rows(store):
    return store.read(lambda conn: conn.execute(text("SELECT count(*) FROM journal")).scalar_one())


# ---------------------------------------------------------------- snapshots


def test_the_newest_snapshot_and_what_came_after(store):
    lease, line = begin(store, upto=6)
    for seq in (2, 4):
        store.snapshot(lease, Snapshot(line, seq, 10 * seq, b"kernel %d" % seq))
    found = store.load("a")
    assert found.snapshot == Snapshot(line, 4, 40, b"kernel 4") and [entry.seq for entry in found.entries] == [5, 6]
    found = store.load("a", 3)
    assert found.snapshot.seq == 2 and [entry.seq for entry in found.entries] == [3]
    assert store.load("a", 1).snapshot is None
    store.write(lambda conn: history.rewind(conn, lease, line, 3, 900, 2))
    assert store.load("a").snapshot.seq == 2


DAMAGE = {
    "first byte": {"kernel": b"\xffernel 4"},
    "last byte": {"kernel": b"kernel 5"},
    "cut": {"kernel": b"kernel"},
    "empty": {"kernel": b""},
    "longer": {"kernel": b"kernel 4 "},
    "checksum": {"checksum": b"0" * 16},
    "no checksum": {"checksum": b""},
    "events": {"last_event": 41},
    "format": {"format": 2},
    "place": {"seq": 5},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_snapshot_is_passed_over(store, damage):
    lease, line = begin(store, upto=6)
    for seq in (2, 4):
        store.snapshot(lease, Snapshot(line, seq, 10 * seq, b"kernel %d" % seq))
    store.write(lambda conn: conn.execute(update(snapshots).where(snapshots.c.seq == 4).values(damage)))
    found = store.load("a")
    assert (found.snapshot.seq, found.damaged) == (2, 1)
    assert [entry.seq for entry in found.entries] == [3, 4, 5, 6]


def test_old_snapshots_go_but_not_those_with_a_name(store):
    lease, line = begin(store, upto=6)
    for seq in range(1, 7):
        store.snapshot(lease, Snapshot(line, seq, 10 * seq, b"k"))
    named = {"name": "n", "line": line, "seq": 2, "epoch": 1, "clock_ns": 0, "digest": "d", "size": 1, "created": 0.0}
    store.write(lambda conn: (history.name(conn, lease, named), history.prune(conn, line, 2)))
    assert [seq for _, seq in store.read(lambda conn: history.candidates(conn, line))] == [6, 5, 2]


# ---------------------------------------------------------------- the catalogue


def test_pages_in_order_of_creation(store):
    for number in range(7):
        begin(store, f"s{number}", created=1000.0 + number // 2, owner="ann" if number % 2 else "bob", course=f"c{number % 3}")
    seen, after = [], None
    while part := store.read(lambda conn, after=after: catalogue.page(conn, 3, after)):
        seen += [one.id for one in part]
        after = (part[-1].created, part[-1].id)
    assert seen == [f"s{number}" for number in range(7)]
    for part, wanted in (
        (catalogue.Part(["c0"]), "036"), (catalogue.Part((), "ann", ["c0", "c1", "c2"]), "135"), (catalogue.Part((), "ann", ["c1"]), "1"),
        (catalogue.Part(["c2"], "bob", ["c1"]), "245"), (catalogue.Part(), ""), (catalogue.Part((), None, ["c0"]), ""),
    ):  # fmt: skip
        assert [one.id[1:] for one in store.read(lambda conn, part=part: catalogue.page(conn, 9, None, part))] == list(wanted)
    assert store.read(lambda conn: (catalogue.count(conn), catalogue.count(conn, "ann"))) == (7, 3)


def test_expired_sessions_are_those_that_nobody_has(store):
    for name in "ab":
        begin(store, name, used=100.0)
    assert store.read(lambda conn: catalogue.expired(conn, 102.0)) == []
    store.void("one")
    assert store.read(lambda conn: catalogue.expired(conn, 100.5)) == []
    assert sorted(store.read(lambda conn: catalogue.expired(conn, 102.0))) == ["a", "b"]
    store.write(lambda conn: catalogue.used(conn, {"a": 101.5, "b": 50.0}))
    assert store.read(lambda conn: catalogue.expired(conn, 102.0)) == ["b"]


# ---------------------------------------------------------------- versions


def test_an_older_database_is_brought_up_to_date_once(database_url):
    first = Component("part", 1, (), {})
    third = Component("part", 3, (), {2: ("CREATE TABLE part (a INTEGER)",), 3: ("ALTER TABLE part ADD COLUMN b INTEGER",)})
    for components in ([first], [third], [third]):
        Database(database_url, "normal", components).close()
    found = Database(database_url, "normal", [third])
    found.write(lambda conn: conn.execute(text("INSERT INTO part (a, b) VALUES (1, 2)")))
    assert found.read(lambda conn: conn.execute(select(versions.c.version)).scalar_one()) == 3
    found.close()


def test_a_newer_database_is_refused(database_url):
    store = open_store(database_url, "normal")
    newer = COMPONENTS[0].version + 1
    store.write(lambda conn: conn.execute(update(versions).where(versions.c.component == "sessions").values(version=newer)))
    store.close()
    with pytest.raises(StorageError, match=f"version {newer}"):
        open_store(database_url)


def test_a_failed_write_changes_nothing(store):
    def work(conn):
        conn.execute(insert(versions).values(component="x", version=1))
        raise KeyError("no")

    with pytest.raises(KeyError):
        store.write(work)
    assert store.read(lambda conn: conn.execute(select(versions).where(versions.c.component == "x")).first()) is None


@pytest.mark.parametrize("url", ["", "mysql://a", "sqlite://", "sqlite:///:memory:", "no url", "postgresql://nobody@127.0.0.1:1/x"])
def test_what_is_no_database_is_said(url):
    with pytest.raises(StorageError):
        open_store(url)


def test_appends_have_a_connection_that_nobody_else_has(store):
    """A reader that ends takes its transaction back: an append that was part of it would be lost after it was acknowledged."""
    lease, line = begin(store)
    writer = Writer(store.database)

    async def one(seq):
        done = asyncio.get_running_loop().create_future()
        writer.submit(Unit([Append(lease, line, entries(seq, seq))], done.set_result))
        assert await done is None

    def read(conn):
        conn.execute(select(sessions.c.id)).all()
        asyncio.run(one(numbers(store, line)[-1] + 1))

    for _ in range(20):
        store.read(read)
    assert numbers(store, line) == list(range(21))
    writer.close()
