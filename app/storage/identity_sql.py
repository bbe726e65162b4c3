"""Callers in a database, shared by every process of the service."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Connection, Double, LargeBinary, String, Table, Text, delete, insert, select, update

from app.storage.database import Database
from app.storage.identity import CourseRecord, MemberRecord, TokenRecord
from app.storage.schema import METADATA, Component

tokens: Final = Table(
    "tokens",
    METADATA,
    Column("id", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("subject", String, nullable=False),
    Column("course", String, index=True),
    Column("session", String, index=True),
    Column("label", Text),
    Column("issued_by", String),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("used", Double),
)
courses: Final = Table(
    "courses", METADATA, Column("id", String, primary_key=True), Column("name", Text), Column("created", Double, nullable=False)
)
members: Final = Table(
    "members",
    METADATA,
    Column("course", String, primary_key=True),
    Column("subject", String, primary_key=True, index=True),
    Column("role", String, nullable=False),
)
tickets: Final = Table(
    "tickets",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("expires", Double, nullable=False),
    Column("caller", Text, nullable=False),
)
changes: Final = Table("identity_changes", METADATA, Column("id", BigInteger, primary_key=True, autoincrement=False), Column("count", BigInteger))
COMPONENT: Final = Component("identity", 1, (tokens, courses, members, tickets, changes))


def _changed(conn: Connection) -> None:
    if conn.execute(update(changes).values(count=changes.c.count + 1)).rowcount == 0:
        conn.execute(insert(changes).values(id=1, count=1))


class SqlIdentity:
    """Callers in a database: each method is a transaction in a thread. `identity.IdentityStore` says what they do."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, components=(COMPONENT,))

    async def _read(self, query: Any) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._database.read, lambda conn: [dict(row) for row in conn.execute(query).mappings()])

    async def _write(self, *statements: Any, counts: bool = True) -> int:
        """Carry out statements; how many rows the first touched."""

        def work(conn: Connection) -> int:
            touched = [conn.execute(statement).rowcount for statement in statements]
            if counts and touched[0]:
                _changed(conn)
            return touched[0]

        return await asyncio.to_thread(self._database.write, work)

    async def add_token(self, token: TokenRecord) -> None:
        """Keep a token."""
        await self._write(insert(tokens).values(asdict(token)))

    async def token_of(self, digest: bytes) -> TokenRecord | None:
        """The token with that hash, whether it is still good or not."""
        rows = await self._read(select(tokens).where(tokens.c.digest == digest))
        return TokenRecord(**rows[0]) if rows else None

    async def token(self, id: str) -> TokenRecord | None:
        """The token of that id."""
        rows = await self._read(select(tokens).where(tokens.c.id == id))
        return TokenRecord(**rows[0]) if rows else None

    async def tokens(self, session: str | None = None) -> Sequence[TokenRecord]:
        """The tokens of people, or a session's observers, in order of creation."""
        return [TokenRecord(**row) for row in await self._read(select(tokens).where(tokens.c.session == session).order_by(tokens.c.created))]

    async def revoke(self, id: str, when: float) -> bool:
        """Make a token worthless; False when there is none or it was revoked before."""
        return await self._write(update(tokens).where(tokens.c.id == id, tokens.c.revoked.is_(None)).values(revoked=when)) > 0

    async def used(self, when: Mapping[str, float]) -> None:
        """Note when tokens were last used, by id."""
        await self._write(*(update(tokens).where(tokens.c.id == id).values(used=moment) for id, moment in when.items()), counts=False)

    async def add_course(self, course: CourseRecord) -> bool:
        """Found a course; False when there is one of that id."""

        def work(conn: Connection) -> bool:
            if conn.execute(select(courses.c.id).where(courses.c.id == course.id)).first() is not None:
                return False
            conn.execute(insert(courses).values(asdict(course)))
            _changed(conn)
            return True

        return await asyncio.to_thread(self._database.write, work)

    async def courses(self) -> Sequence[CourseRecord]:
        """The courses by id."""
        return [CourseRecord(**row) for row in await self._read(select(courses).order_by(courses.c.id))]

    async def drop_course(self, id: str) -> bool:
        """Forget a course, its members and its tokens; False when there is none."""
        rest = (delete(members).where(members.c.course == id), delete(tokens).where(tokens.c.course == id))
        return await self._write(delete(courses).where(courses.c.id == id), *rest) > 0

    async def set_member(self, member: MemberRecord) -> bool:
        """Give a subject a role in a course; True when he had none there."""

        def work(conn: Connection) -> bool:
            of = (members.c.course == member.course, members.c.subject == member.subject)
            new = conn.execute(update(members).where(*of).values(role=member.role)).rowcount == 0
            if new:
                conn.execute(insert(members).values(asdict(member)))
            _changed(conn)
            return new

        return await asyncio.to_thread(self._database.write, work)

    async def drop_member(self, course: str, subject: str) -> bool:
        """Take a subject's role away; False when he had none."""
        return await self._write(delete(members).where(members.c.course == course, members.c.subject == subject)) > 0

    async def members(self, course: str) -> Sequence[MemberRecord]:
        """The members of a course by subject."""
        return [MemberRecord(**row) for row in await self._read(select(members).where(members.c.course == course).order_by(members.c.subject))]

    async def roles(self, subject: str) -> Mapping[str, str]:
        """A subject's roles by course."""
        return {row["course"]: row["role"] for row in await self._read(select(members).where(members.c.subject == subject))}

    async def add_ticket(self, digest: bytes, expires: float, grant: str, now: float) -> None:
        """Keep a ticket; those that ran out go."""
        old = delete(tickets).where(tickets.c.expires <= now)
        await self._write(old, insert(tickets).values(digest=digest, expires=expires, caller=grant), counts=False)

    async def take_ticket(self, digest: bytes, now: float) -> str | None:
        """What a ticket grants, to the first who asks in time; it is gone then."""

        def work(conn: Connection) -> str | None:
            row = conn.execute(delete(tickets).where(tickets.c.digest == digest).returning(tickets.c.expires, tickets.c.caller)).first()
            return str(row.caller) if row is not None and row.expires > now else None

        return await asyncio.to_thread(self._database.write, work)

    async def generation(self) -> int:
        """Grows with every change of tokens, courses and members."""
        rows = await self._read(select(changes.c.count))
        return int(rows[0]["count"]) if rows else 0

    def close(self) -> None:
        """Let the connections go."""
        self._database.close()
