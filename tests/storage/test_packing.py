"""What is committed together stands in one row, and comes out of it as it went in."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from app.storage import Append, Entry, history
from app.storage.packing import MOST, PACKED, pack, unpack
from app.storage.schema import journal
from app.storage.store import mark
from tests.storage.test_store import begin, entries, numbers, numbers_of_rows

NUMBER = st.integers(0, 1 << 62)
FIGURES = st.tuples(st.integers(1, 3), st.integers(-1, 1 << 62), NUMBER, st.binary(max_size=20).map(lambda body: body.replace(b"\n", b"")))


def row(line, entry):
    return SimpleNamespace(line=line, mark=mark(line, entry.seq, entry.format, entry.body), **entry._asdict())


@given(st.lists(FIGURES, max_size=40), NUMBER)
def test_what_went_in_comes_out(steps, line):
    """Numbers with gaps; events that are not known yet (-1)."""
    seq, given_ = 0, []
    for step, last_event, clock_ns, body in steps:
        seq += step if step > 1 else 1
        given_.append(Entry(seq, last_event, clock_ns, body))
    rows = list(pack(given_))
    found, before = [], 0
    for first, packed in rows:
        items = list(unpack(row(line, packed), before))
        assert items[0].seq == first and items[-1].seq == packed.seq
        assert all(item.last_event >= 0 for item in items[:-1])
        found, before = found + items, packed.seq
    assert found == given_


@given(st.lists(FIGURES, min_size=2, max_size=5), st.data())
def test_one_wrong_bit_is_seen(steps, data):
    given_ = [Entry(seq, abs(last_event), clock_ns, body) for seq, (_, last_event, clock_ns, body) in enumerate(steps, 4)]
    [(first, packed)] = pack(given_)
    wrong = bytearray(packed.body)
    wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    stored = row(1, packed)
    stored.body = bytes(wrong)
    [entry] = unpack(stored, 3)
    assert (first, entry.seq, entry.damage) == (4, 4, "its checksum is wrong")


def test_a_commit_is_a_row(store):
    lease, line = begin(store, upto=5)
    assert numbers_of_rows(store) == 2  # the boot, and the five
    store.append([Append(lease, line, entries(6, 7)), Append(lease, line, entries(8, 8))])
    assert numbers_of_rows(store) == 3
    assert numbers(store, line) == list(range(9))
    store.append([Append(lease, line, entries(9, 9 + MOST))])
    assert numbers_of_rows(store) == 5 and numbers(store, line)[-1] == 9 + MOST


def test_places_within_a_row(store):
    """Every part of a history can be read, whatever rows it begins and ends in."""
    lease, line = begin(store, upto=4)
    store.append([Append(lease, line, entries(5, 5))])
    store.append([Append(lease, line, entries(6, 9))])
    for after in range(-1, 10):
        for upto in (*range(10), None):
            last = 9 if upto is None else upto
            assert numbers(store, line, after, upto) == list(range(after + 1, last + 1))
    for seq in range(10):
        found = store.read(lambda conn, seq=seq: history.entry(conn, line, seq))
        assert found is not None and found.seq == seq
    assert store.read(lambda conn: history.entry(conn, line, 10)) is None


def test_every_operation_of_a_row_can_be_gone_back_to(store):
    lease, line = begin(store, upto=6)
    for seq in range(7):
        store.write(lambda conn, seq=seq: history.rewind(conn, lease, line, seq, 900 + seq, 2 + seq))
        found = store.load("a")
        assert (found.record.seq, found.record.last_event, found.record.clock_ns) == ((seq, 10 * seq, 100 * seq) if seq else (0, 3, 7))
        assert [entry.seq for entry in found.entries] == list(range(seq + 1))
        store.write(lambda conn, seq=seq: history.keep_events(conn, line, 1, 99, b"e"))
        assert store.read(lambda conn, seq=seq: history.stored_events(conn, 900 + seq)) == [(found.record.last_event, b"e")]


def test_a_damaged_row_ends_the_history_at_its_first_operation(store):
    _, line = begin(store, upto=4)
    store.write(lambda conn: conn.execute(update(journal).where(journal.c.seq == 4).values(clock_ns=1, body=b"{}\nx")))
    found = store.read(lambda conn: list(history.entries(conn, line)))
    assert [(entry.seq, entry.damage) for entry in found] == [(0, None), (1, "its checksum is wrong")]
    assert store.read(lambda conn: conn.execute(select(journal.c.format).where(journal.c.seq == 4)).scalar()) == PACKED
