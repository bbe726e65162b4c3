"""What is known about callers: tokens (their hashes), courses and their members, tickets. They stand in the database of the sessions.

Every change counts up `generation`, so that each process of the service sees with one cheap read that what it remembers is stale.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Executable, Select, delete, insert, select, text, update

from app.storage.database import Database
from app.storage.schema import COUNT_CHANGE, IDENTITY, courses, members, tickets, tokens
from app.storage.schema import identity_changes as changes
from app.storage.writer import Writer

ADOPTED: Final = (tokens, courses, members)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token as it is kept: times are seconds since the epoch, `course` and `session` are all that it is good for, if given."""

    id: str
    digest: bytes
    subject: str
    course: str | None = None
    session: str | None = None
    label: str | None = None
    issued_by: str | None = None
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None
    used: float | None = None


@dataclass(frozen=True, slots=True)
class CourseRecord:
    """A course."""

    id: str
    name: str | None
    created: float


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What a subject is in a course."""

    course: str
    subject: str
    role: str


class Standing(NamedTuple):
    """A token, and the roles of its subject by course, at one moment."""

    token: TokenRecord
    roles: Mapping[str, str]


_NEW_COURSE: Final = text("INSERT INTO courses (id, name, created) VALUES (:id, :name, :created) ON CONFLICT (id) DO NOTHING")
_NEW_MEMBER: Final = text(
    "INSERT INTO members (course, subject, role) VALUES (:course, :subject, :role) ON CONFLICT (course, subject) DO UPDATE SET role = excluded.role"
)
_AT_ONCE: Final = 500  # names in one statement


def _roles(conn: Connection, subjects: Collection[str]) -> dict[str, dict[str, str]]:
    """The roles of subjects by course."""
    found: dict[str, dict[str, str]] = {subject: {} for subject in subjects}
    names = list(found)
    for start in range(0, len(names), _AT_ONCE):
        for row in conn.execute(select(members).where(members.c.subject.in_(names[start : start + _AT_ONCE]))):
            found[row.subject][row.course] = row.role
    return found


def _standing(conn: Connection, condition: ColumnElement[bool]) -> list[Standing]:
    found = [TokenRecord(**row) for row in conn.execute(select(tokens).where(condition)).mappings()]
    roles = _roles(conn, {token.subject for token in found})
    return [Standing(token, roles[token.subject]) for token in found]


class IdentityStore:
    """Callers in the database that every process of the service shares; each method is one transaction.

    Parameters
    ----------
    writer : Writer
        Of the database.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        return await self._writer.read(lambda conn: [dict(row) for row in conn.execute(query).mappings()])

    async def _change(self, *statements: Executable, values: Mapping[str, Any] | None = None) -> int:
        """Carry out statements, and count up the generation if the first touched rows; how many."""

        def work(conn: Connection) -> int:
            touched = [conn.execute(statement, values).rowcount for statement in statements]
            if touched[0]:
                conn.execute(COUNT_CHANGE)
            return touched[0]

        return await self._writer.write(work)

    # ---- tokens

    async def add_token(self, token: TokenRecord) -> None:
        """Keep a token."""
        await self._change(insert(tokens).values(asdict(token)))

    async def standing(self, digest: bytes) -> Standing | None:
        """The token with that hash, whether it is still good or not, and what its subject is."""
        found = await self._writer.read(lambda conn: _standing(conn, tokens.c.digest == digest))
        return found[0] if found else None

    async def standings(self, ids: Collection[str]) -> Mapping[str, Standing]:
        """Tokens by id; those that are no longer are left out."""
        names = list(ids)

        def work(conn: Connection) -> list[Standing]:
            parts = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
            return [standing for part in parts for standing in _standing(conn, tokens.c.id.in_(part))]

        return {standing.token.id: standing for standing in await self._writer.read(work)}

    async def token(self, id: str) -> TokenRecord | None:
        """The token of that id."""
        if "\0" in id:  # PostgreSQL has no such text
            return None
        rows = await self._rows(select(tokens).where(tokens.c.id == id))
        return TokenRecord(**rows[0]) if rows else None

    async def tokens(self, session: str | None = None) -> Sequence[TokenRecord]:
        """The tokens of people, or a session's observers, in order of creation."""
        query = select(tokens).where(tokens.c.session.is_(None) if session is None else tokens.c.session == session)
        return [TokenRecord(**row) for row in await self._rows(query.order_by(tokens.c.created, tokens.c.id))]

    async def revoke(self, id: str, when: float) -> bool:
        """Make a token worthless; False when there is none or it was revoked before."""
        return await self._change(update(tokens).where(tokens.c.id == id, tokens.c.revoked.is_(None)).values(revoked=when)) > 0

    async def used(self, when: Mapping[str, float]) -> None:
        """Note when tokens were last used, by id."""

        def work(conn: Connection) -> None:
            for id, moment in sorted(when.items()):  # in one order, whoever writes
                conn.execute(update(tokens).where(tokens.c.id == id).values(used=moment))

        await self._writer.write(work)

    # ---- courses and members

    async def add_course(self, course: CourseRecord) -> bool:
        """Found a course; False when there is one of that id."""
        return await self._change(_NEW_COURSE, values=asdict(course)) > 0

    async def courses(self) -> Sequence[CourseRecord]:
        """The courses by id."""
        return [CourseRecord(**row) for row in await self._rows(select(courses).order_by(courses.c.id))]

    async def drop_course(self, id: str) -> bool:
        """Forget a course, its members and its tokens; False when there is none."""
        rest = (delete(members).where(members.c.course == id), delete(tokens).where(tokens.c.course == id))
        return await self._change(delete(courses).where(courses.c.id == id), *rest) > 0

    async def set_member(self, member: MemberRecord) -> bool:
        """Give a subject a role in a course; True when he had none there."""

        def work(conn: Connection) -> bool:
            of = (members.c.course == member.course, members.c.subject == member.subject)
            new = conn.execute(select(members.c.role).where(*of)).first() is None
            conn.execute(_NEW_MEMBER, asdict(member))
            conn.execute(COUNT_CHANGE)
            return new

        return await self._writer.write(work)

    async def drop_member(self, course: str, subject: str) -> bool:
        """Take a subject's role away; False when he had none."""
        return await self._change(delete(members).where(members.c.course == course, members.c.subject == subject)) > 0

    async def members(self, course: str) -> Sequence[MemberRecord]:
        """The members of a course by subject."""
        return [MemberRecord(**row) for row in await self._rows(select(members).where(members.c.course == course).order_by(members.c.subject))]

    async def roles(self, subjects: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """The roles of subjects by course."""
        return await self._writer.read(lambda conn: _roles(conn, subjects))

    # ---- tickets

    async def add_ticket(self, digest: bytes, expires: float, grant: str, now: float) -> None:
        """Keep a ticket; those that ran out go."""

        def work(conn: Connection) -> None:
            conn.execute(delete(tickets).where(tickets.c.expires <= now))
            conn.execute(insert(tickets).values(digest=digest, expires=expires, caller=grant))

        await self._writer.write(work)

    async def take_ticket(self, digest: bytes, now: float) -> str | None:
        """What a ticket grants, to the first who asks in time; it is gone then."""

        def work(conn: Connection) -> str | None:
            row = conn.execute(delete(tickets).where(tickets.c.digest == digest).returning(tickets.c.expires, tickets.c.caller)).first()
            return str(row.caller) if row is not None and row.expires > now else None

        return await self._writer.write(work)

    async def generation(self) -> int:
        """Grows with every change of tokens, courses and members."""
        rows = await self._rows(select(changes.c.count))
        return int(rows[0]["count"]) if rows else 0


OLD_FILE: Final = "identity.sqlite"  # where a data folder kept its callers before they stood beside the sessions


def adopt(database: Database, folder: Path) -> bool:
    """Bring the callers of an older data folder into the database, once; the old file is kept under another name. True when there were some."""
    old = folder / OLD_FILE
    if not old.exists():
        return False
    with contextlib.closing(Database(f"sqlite:///{old}", components=(IDENTITY,))) as source:
        kept = source.read(lambda conn: [[dict(row) for row in conn.execute(select(table)).mappings()] for table in ADOPTED])

    def work(conn: Connection) -> None:
        database.dialect.lock(conn)
        for table, rows in zip(ADOPTED, kept, strict=True):
            have = {tuple(row) for row in conn.execute(select(*table.primary_key.columns))}
            keys = [column.name for column in table.primary_key.columns]
            new = [row for row in rows if tuple(row[key] for key in keys) not in have]
            if new:
                conn.execute(insert(table), new)
        conn.execute(COUNT_CHANGE)

    database.write(work)
    old.rename(old.with_suffix(".adopted"))
    return True
