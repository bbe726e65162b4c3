"""The catalogue of sessions and their leases: functions on a connection, whose transaction is the caller's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, func, insert, or_, select, tuple_, update

from app.storage.schema import journal, lines, sessions
from app.storage.store import Entry, Fenced, Held, Lease, NoSuchSession, Record, mark

NEWEST: Final = select(func.max(journal.c.seq)).where(journal.c.line == sessions.c.line).correlate(sessions).scalar_subquery()
HEAD: Final = (journal.c.seq, journal.c.last_event, journal.c.clock_ns)
_STORED: Final = tuple(name for name in Record.__dataclass_fields__ if name in sessions.c)


def create_row(conn: Connection, record: Record, holder: str, until: float) -> Lease:
    """A new session, with its lease but without a timeline."""
    lease = Lease(record.id, holder, 1)
    row = {name: getattr(record, name) for name in _STORED}
    conn.execute(insert(sessions).values(row | {"seed": str(record.seed), "fence": lease.fence, "holder": holder, "lease_until": until}))
    return lease


def create(conn: Connection, record: Record, boot: Entry, holder: str, until: float) -> Lease:
    """A new session with its lease and its first timeline."""
    lease = create_row(conn, record, holder, until)
    conn.execute(insert(lines).values(id=record.line, session=record.id, parent=None, fork_seq=0))
    conn.execute(insert(journal).values(row_of(record.line, boot)))
    return lease


def row_of(line: int, entry: Entry) -> dict[str, Any]:
    """An entry as a row of a timeline's journal."""
    row = {name: getattr(entry, name) for name in ("seq", "last_event", "clock_ns", "body", "format")}
    return row | {"line": line, "mark": mark(line, entry.seq, entry.format, entry.body)}


def _records() -> Select[Any]:
    """Sessions with the head of their journals: a timeline that has just forked has a copy of the entry that it forked at."""
    return select(sessions, *HEAD).outerjoin(journal, and_(journal.c.line == sessions.c.line, journal.c.seq == NEWEST))


def _record(row: RowMapping) -> Record:
    values = {name: row[name] for name in Record.__dataclass_fields__}
    return Record(**values | {"seed": int(values["seed"])})


def find(conn: Connection, session: str) -> Record:
    """A session by its id. Raises NoSuchSession."""
    row = conn.execute(_records().where(sessions.c.id == session)).mappings().first()
    if row is None:
        raise NoSuchSession(session)
    return _record(row)


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the sessions: all of some courses, and those of one owner in others."""

    courses: Sequence[str] = ()
    owner: str | None = None
    his_courses: Sequence[str] = ()

    def condition(self) -> ColumnElement[bool]:
        """As SQL."""
        his = and_(sessions.c.owner == self.owner, sessions.c.course.in_(self.his_courses))
        return or_(sessions.c.course.in_(self.courses), his)


def page(conn: Connection, size: int, after: tuple[float, str] | None, part: Part | None = None) -> list[Record]:
    """Sessions in order of creation, after a place in that order: all, or a part."""
    query = _records().order_by(sessions.c.created, sessions.c.id).limit(size)
    if after is not None:
        query = query.where(tuple_(sessions.c.created, sessions.c.id) > after)
    if part is not None:
        query = query.where(part.condition())
    return [_record(row) for row in conn.execute(query).mappings()]


def count(conn: Connection, owner: str | None = None) -> int:
    """How many sessions there are, of one owner or of all."""
    query = select(func.count()).select_from(sessions)
    return int(conn.execute(query if owner is None else query.where(sessions.c.owner == owner)).scalar_one())


def in_course(conn: Connection, course: str) -> bool:
    """True when a course has sessions."""
    return conn.execute(select(sessions.c.id).where(sessions.c.course == course).limit(1)).first() is not None


def change(conn: Connection, lease: Lease, **values: Any) -> None:
    """Change columns of a session, under its lease. Raises Fenced."""
    done = conn.execute(update(sessions).where(sessions.c.id == lease.session, sessions.c.fence == lease.fence).values(values))
    if done.rowcount != 1:
        raise Fenced(lease.session)


def used(conn: Connection, when: dict[str, float]) -> None:
    """Note when sessions were used last."""
    for session, seconds in when.items():
        conn.execute(update(sessions).where(sessions.c.id == session, sessions.c.used < seconds).values(used=seconds))


def expired(conn: Connection, now: float, limit: int = 100) -> list[str]:
    """Sessions that nobody has in memory and whose time to live is over."""
    over = sessions.c.used + sessions.c.ttl_ns / 1e9 < now
    query = select(sessions.c.id).where(over, sessions.c.holder.is_(None)).limit(limit)
    return list(conn.execute(query).scalars())


# ---------------------------------------------------------------- leases


def acquire(conn: Connection, session: str, holder: str, ttl: float, now: ColumnElement[float]) -> Lease:
    """Take a session's lease. Raises Held, NoSuchSession."""
    free = or_(sessions.c.holder.is_(None), sessions.c.holder == holder, sessions.c.lease_until < now)
    taken = {"fence": sessions.c.fence + 1, "holder": holder, "lease_until": now + ttl}
    row = conn.execute(update(sessions).where(sessions.c.id == session, free).values(taken).returning(sessions.c.fence)).first()
    if row is not None:
        return Lease(session, holder, row.fence)
    held = conn.execute(select(sessions.c.holder, sessions.c.lease_until, now.label("now")).where(sessions.c.id == session)).first()
    if held is None:
        raise NoSuchSession(session)
    raise Held(held.holder or "", held.lease_until, held.now)


def holder(conn: Connection, session: str, now: ColumnElement[float]) -> str | None:
    """Who has a session's lease; None when nobody has, or there is no such session."""
    return conn.execute(select(sessions.c.holder).where(sessions.c.id == session, sessions.c.lease_until > now)).scalar()


def renew(conn: Connection, holder: str, ttl: float, now: ColumnElement[float]) -> set[str]:
    """Prolong every lease of a holder; the sessions that it has."""
    done = conn.execute(update(sessions).where(sessions.c.holder == holder).values(lease_until=now + ttl).returning(sessions.c.id))
    return set(done.scalars())


def release(conn: Connection, leases: Sequence[Lease]) -> None:
    """Give leases back: their holder writes no more under them. One that is not valid any more is not touched."""
    for lease in leases:
        mine = and_(sessions.c.id == lease.session, sessions.c.fence == lease.fence)
        conn.execute(update(sessions).where(mine).values(holder=None, lease_until=0.0, fence=sessions.c.fence + 1))


def give_back(conn: Connection, when: dict[str, float], leases: Sequence[Lease]) -> None:
    """Sessions leave memory: note when they were used, give their leases back."""
    used(conn, when)
    release(conn, leases)


def void(conn: Connection, holder: str) -> int:
    """Take the leases of a dead holder and of those below its name; the fence grows, so that it is dead even if it lives."""
    theirs = or_(sessions.c.holder == holder, sessions.c.holder.startswith(f"{holder}/", autoescape=True))
    return conn.execute(update(sessions).where(theirs).values(holder=None, lease_until=0.0, fence=sessions.c.fence + 1)).rowcount


def fences(conn: Connection, ids: Sequence[str]) -> dict[str, int]:
    """The fences of sessions."""
    return {row.id: row.fence for row in conn.execute(select(sessions.c.id, sessions.c.fence).where(sessions.c.id.in_(ids)))}
