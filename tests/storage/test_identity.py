"""What is kept of callers, in memory and in a database: the same answers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage.identity import CourseRecord, IdentityStore, MemberRecord, MemoryIdentity, TokenRecord
from app.storage.identity_sql import SqlIdentity


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IdentityStore]:
    if request.param == "memory":
        yield MemoryIdentity()
        return
    found = SqlIdentity(f"sqlite:///{tmp_path / 'identity.sqlite'}")
    yield found
    found.close()


def test_a_tokens_life(store: IdentityStore) -> None:
    async def live() -> None:
        token = TokenRecord("t_1", b"d" * 32, "ada", "os101", created=1.0, expires=9.0)
        before = await store.generation()
        await store.add_token(token)
        assert await store.token_of(b"d" * 32) == await store.token("t_1") == token and await store.token_of(b"e" * 32) is None
        assert list(await store.tokens()) == [token] and list(await store.tokens("s_1")) == []
        await store.used({"t_1": 4.0})
        added = await store.generation()
        assert await store.revoke("t_1", 5.0) and not await store.revoke("t_1", 6.0) and not await store.revoke("t_2", 6.0)
        kept = await store.token("t_1")
        assert kept is not None and (kept.used, kept.revoked) == (4.0, 5.0)
        assert before < added < await store.generation()

    asyncio.run(live())


def test_courses_and_members(store: IdentityStore) -> None:
    async def live() -> None:
        assert await store.add_course(CourseRecord("os101", None, 1.0)) and not await store.add_course(CourseRecord("os101", "again", 2.0))
        assert await store.set_member(MemberRecord("os101", "ada", "student"))
        assert not await store.set_member(MemberRecord("os101", "ada", "instructor"))
        await store.set_member(MemberRecord("*", "ada", "admin"))
        assert await store.roles("ada") == {"os101": "instructor", "*": "admin"}
        assert list(await store.members("os101")) == [MemberRecord("os101", "ada", "instructor")]
        await store.add_token(TokenRecord("t_1", b"d" * 32, "ada", "os101"))
        assert await store.drop_course("os101") and not await store.drop_course("os101")
        assert await store.roles("ada") == {"*": "admin"} and await store.token("t_1") is None and list(await store.courses()) == []
        assert await store.drop_member("*", "ada") and not await store.drop_member("*", "ada")

    asyncio.run(live())


def test_a_ticket_is_taken_once(store: IdentityStore) -> None:
    async def live() -> None:
        await store.add_ticket(b"a" * 32, 10.0, "grant", 1.0)
        await store.add_ticket(b"b" * 32, 2.0, "late", 1.0)
        taken = await asyncio.gather(*(store.take_ticket(b"a" * 32, 3.0) for _ in range(8)))
        assert sorted(map(str, taken)) == ["None"] * 7 + ["grant"]
        assert await store.take_ticket(b"b" * 32, 3.0) is None

    asyncio.run(live())
