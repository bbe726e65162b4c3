"""Journals, snapshots and stored events along a timeline: functions on a connection, whose transaction is the caller's."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, ScalarSelect, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from app.storage.catalogue import change, row_of
from app.storage.packing import unpack
from app.storage.schema import COUNT_CHANGE, events, journal, lines, names, sessions, snapshots, tokens
from app.storage.store import Entry, Lease, Snapshot


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part (after, upto] of a timeline; `upto` None is its end."""

    line: int
    after: int
    upto: int | None


def lineage(conn: Connection, line: int, upto: int | None = None) -> list[Stretch]:
    """The stretches that make up the history of a timeline up to a number, the oldest first. The boot is in the first."""
    found: list[Stretch] = []
    at: int | None = line
    while at is not None:
        row = conn.execute(select(lines.c.parent, lines.c.fork_seq).where(lines.c.id == at)).one()
        if upto is None or row.parent is None or upto > row.fork_seq:
            found.append(Stretch(at, row.fork_seq if row.parent is not None else -1, upto))
        if row.parent is not None:
            upto = row.fork_seq if upto is None else min(upto, row.fork_seq)
        at = row.parent
    return found[::-1]


def entries(conn: Connection, line: int, after: int = -1, upto: int | None = None) -> Iterator[Entry]:
    """The entries of a history with numbers in (after, upto]; -1 begins with the boot."""
    for stretch in lineage(conn, line, upto):
        after = max(after, stretch.after)
        for entry in _stored(conn, stretch.line, after, stretch.upto):
            yield entry
            after = entry.seq


def _stored(conn: Connection, line: int, after: int, upto: int | None) -> Iterator[Entry]:
    """The entries of one timeline with numbers in (after, upto]. A row holds the operations up to its number (`packing`)."""
    query = select(journal).where(journal.c.line == line, journal.c.seq > after)
    if upto is not None:
        query = query.where(journal.c.seq <= func.coalesce(_row_of(line, upto), upto))
    for row in conn.execute(query.order_by(journal.c.seq)):
        for entry in unpack(row, after):
            if entry.seq > after and (upto is None or entry.seq <= upto):
                yield entry
                after = entry.seq


def _row_of(line: int, seq: int) -> ScalarSelect[int]:
    """The number of the row that holds an operation, if any does."""
    rows = journal.alias()
    return select(func.min(rows.c.seq)).where(rows.c.line == line, rows.c.seq >= seq).scalar_subquery()


def entry(conn: Connection, line: int, seq: int) -> Entry | None:
    """One entry of a history."""
    return next(entries(conn, line, seq - 1, seq), None)


def fork(conn: Connection, line: int, seq: int, child: int, session: str) -> None:
    """A new timeline that has everything up to an operation in common with an older one; it begins with a copy of that operation's entry."""
    parent = lineage(conn, line, seq)[-1].line
    conn.execute(insert(lines).values(id=child, session=session, parent=parent, fork_seq=seq))
    copied = next(_stored(conn, parent, seq - 1, seq), None)
    if copied is None or copied.damage is not None:
        raise LookupError(f"timeline {parent} has no operation {seq} that can be read")
    conn.execute(insert(journal).values(row_of(child, copied)))


def rewind(conn: Connection, lease: Lease, line: int, seq: int, child: int, epoch: int) -> None:
    """A session goes on from an earlier place. Raises Fenced."""
    change(conn, lease, line=child, epoch=epoch, frozen=None, panicked=None)
    fork(conn, line, seq, child, lease.session)


def remove(conn: Connection, session: str) -> bool:
    """Forget a session, its names, its observers and those of its timelines that no other session grows from; False when it is gone already."""
    if not conn.execute(delete(sessions).where(sessions.c.id == session)).rowcount:
        return False
    conn.execute(delete(names).where(names.c.session == session))
    if conn.execute(delete(tokens).where(tokens.c.session == session)).rowcount:
        conn.execute(COUNT_CHANGE)
    theirs = list(conn.execute(select(lines.c.id).where(lines.c.session == session)).scalars())
    conn.execute(update(lines).where(lines.c.session == session).values(session=None))
    prune_lines(conn, theirs)
    return True


def prune_lines(conn: Connection, candidates: Sequence[int]) -> None:
    """Delete the timelines among these that no session has and from which nothing grows, then their parents if they are so too."""
    waiting = list(candidates)
    while waiting:
        at = waiting.pop()
        row = conn.execute(select(lines.c.session, lines.c.parent).where(lines.c.id == at)).first()
        if row is None or row.session is not None or conn.execute(select(lines.c.id).where(lines.c.parent == at).limit(1)).first() is not None:
            continue
        drop_line(conn, at)
        if row.parent is not None:
            waiting.append(row.parent)


def finish(conn: Connection, line: int, seq: int, last_event: int, clock_ns: int) -> None:
    """Complete the entry of an operation that was stored before it was carried out."""
    mine = (journal.c.line == line, journal.c.seq == seq)
    conn.execute(update(journal).where(*mine).values(last_event=last_event, clock_ns=clock_ns))


def drop_line(conn: Connection, line: int) -> None:
    """Delete a timeline and everything on it."""
    for table in (journal, snapshots, events):
        conn.execute(delete(table).where(table.c.line == line))
    conn.execute(delete(lines).where(lines.c.id == line))


# ---------------------------------------------------------------- snapshots


def checksum(line: int, seq: int, last_event: int, form: int, data: bytes) -> bytes:
    """Of a row: its place and its bytes."""
    return hashlib.blake2b(struct.pack("<qqqq", line, seq, last_event, form) + data, digest_size=16).digest()


def keep(conn: Connection, lease: Lease, kept: Snapshot) -> None:
    """Keep a snapshot; one that is there already is written again. Raises Fenced."""
    change(conn, lease, fence=lease.fence)
    conn.execute(delete(snapshots).where(snapshots.c.line == kept.line, snapshots.c.seq == kept.seq))
    conn.execute(
        insert(snapshots).values(
            line=kept.line,
            seq=kept.seq,
            last_event=kept.last_event,
            format=kept.format,
            kernel=kept.kernel,
            checksum=checksum(kept.line, kept.seq, kept.last_event, kept.format, kept.kernel),
        )
    )


def candidates(conn: Connection, line: int, upto: int | None = None) -> list[tuple[int, int]]:
    """Where snapshots of a history lie, (line, seq), the newest first."""
    found: list[tuple[int, int]] = []
    for stretch in reversed(lineage(conn, line, upto)):
        query = select(snapshots.c.seq).where(snapshots.c.line == stretch.line)
        if stretch.upto is not None:
            query = query.where(snapshots.c.seq <= stretch.upto)
        found += [(stretch.line, seq) for seq in conn.execute(query.order_by(snapshots.c.seq.desc())).scalars()]
    return found


def snapshot_at(conn: Connection, line: int, seq: int) -> Snapshot | None:
    """A snapshot if it is sound; None when it is damaged, however: its bytes, its place, or the database's pages that hold it."""
    try:
        row = conn.execute(select(snapshots).where(snapshots.c.line == line, snapshots.c.seq == seq)).first()
        if row is None or row.checksum != checksum(line, seq, row.last_event, row.format, row.kernel):
            return None
    except (DBAPIError, TypeError, struct.error):
        return None
    return Snapshot(line, seq, row.last_event, row.kernel, row.format)


def prune(conn: Connection, line: int, keep_newest: int) -> None:
    """Forget a timeline's old snapshots but the newest few and those that have a name."""
    rows = list(conn.execute(select(snapshots.c.seq).where(snapshots.c.line == line).order_by(snapshots.c.seq.desc())).scalars())
    named = set(conn.execute(select(names.c.seq).where(names.c.line == line)).scalars())
    old = [seq for seq in rows[keep_newest:] if seq not in named]
    if old:
        conn.execute(delete(snapshots).where(snapshots.c.line == line, snapshots.c.seq.in_(old)))


# ---------------------------------------------------------------- names


def name(conn: Connection, lease: Lease, values: dict[str, Any]) -> None:
    """Give a state a name. Raises Fenced."""
    change(conn, lease, fence=lease.fence)
    conn.execute(insert(names).values(values | {"session": lease.session}))


def named(conn: Connection, session: str) -> list[dict[str, Any]]:
    """A session's named states, in order of their making."""
    query = select(names).where(names.c.session == session).order_by(names.c.created, names.c.name)
    return [dict(row) for row in conn.execute(query).mappings()]


def unname(conn: Connection, session: str, what: str) -> bool:
    """Forget a name; False when there is none."""
    return bool(conn.execute(delete(names).where(names.c.session == session, names.c.name == what)).rowcount)


# ---------------------------------------------------------------- events


def keep_events(conn: Connection, line: int, first: int, last: int, data: bytes) -> None:
    """Keep the events [first, last]."""
    conn.execute(delete(events).where(events.c.line == line, events.c.first == first))
    conn.execute(insert(events).values(line=line, first=first, last=last, data=data, checksum=checksum(line, first, last, 0, data)))


def drop_events(conn: Connection, line: int, before: int) -> None:
    """Forget the stored events of a timeline that all lie before a number."""
    conn.execute(delete(events).where(events.c.line == line, events.c.last < before))


def stored_events(conn: Connection, line: int, upto: int | None = None) -> list[tuple[int, bytes]]:
    """The sound parts of stored events along a history, in order, each with the number of the last event that belongs to that history."""
    found = []
    for stretch in lineage(conn, line, upto):
        limit = None
        if stretch.upto is not None:
            limit = next((one.last_event for one in _stored(conn, stretch.line, stretch.upto - 1, stretch.upto)), None)
        for row in conn.execute(select(events).where(events.c.line == stretch.line).order_by(events.c.first)):
            if row.checksum == checksum(row.line, row.first, row.last, 0, row.data):
                found.append((row.last if limit is None else min(limit, row.last), row.data))
    return found
