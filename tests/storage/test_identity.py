"""What is kept of callers, in SQLite and in PostgreSQL: the same answers, to every process of the service."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from app.storage import Database, SqlStore, Writer
from app.storage.identity import OLD_FILE, CourseRecord, IdentityStore, MemberRecord, TokenRecord, adopt
from app.storage.schema import IDENTITY


@pytest.fixture
def stores(opened: Callable[[], SqlStore]) -> Iterator[tuple[IdentityStore, IdentityStore]]:
    """Two processes' stores of one database."""
    writers = [Writer(opened().database) for _ in range(2)]
    yield IdentityStore(writers[0]), IdentityStore(writers[1])
    for writer in writers:
        writer.close()


Stores = tuple[IdentityStore, IdentityStore]


def run(live: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await live()

    asyncio.run(whole())


def test_a_tokens_life(stores: Stores) -> None:
    store, other = stores

    async def live() -> None:
        token = TokenRecord("t_1", b"d" * 32, "ada", "os101", created=1.0, expires=9.0)
        before = await other.generation()
        await store.add_token(token)
        assert await other.token("t_1") == token and await store.standing(b"e" * 32) is None
        await store.set_member(MemberRecord("os101", "ada", "grader"))
        assert await other.standing(b"d" * 32) == (token, {"os101": "grader"})
        assert await other.standings(["t_1", "t_2"]) == {"t_1": (token, {"os101": "grader"})}
        assert list(await other.tokens()) == [token] and list(await store.tokens("s_1")) == []
        await store.used({"t_1": 4.0})
        added = await other.generation()
        assert await other.revoke("t_1", 5.0) and not await store.revoke("t_1", 6.0) and not await store.revoke("t_2", 6.0)
        kept = await store.token("t_1")
        assert kept is not None and (kept.used, kept.revoked) == (4.0, 5.0)
        assert before < added < await store.generation()
        assert await store.token("t_\0") is None

    run(live)


def test_courses_and_members(stores: Stores) -> None:
    store, other = stores

    async def live() -> None:
        assert await store.add_course(CourseRecord("os101", None, 1.0)) and not await other.add_course(CourseRecord("os101", "again", 2.0))
        assert await store.set_member(MemberRecord("os101", "ada", "student"))
        assert not await other.set_member(MemberRecord("os101", "ada", "instructor"))
        await store.set_member(MemberRecord("*", "ada", "admin"))
        assert await other.roles(["ada", "bob"]) == {"ada": {"os101": "instructor", "*": "admin"}, "bob": {}}
        assert list(await other.members("os101")) == [MemberRecord("os101", "ada", "instructor")]
        await store.add_token(TokenRecord("t_1", b"d" * 32, "ada", "os101"))
        assert await other.drop_course("os101") and not await store.drop_course("os101")
        assert await store.roles(["ada"]) == {"ada": {"*": "admin"}} and await store.token("t_1") is None and list(await store.courses()) == []
        assert await store.drop_member("*", "ada") and not await other.drop_member("*", "ada")

    run(live)


def test_a_ticket_is_taken_once(stores: Stores) -> None:
    store, other = stores

    async def live() -> None:
        await store.add_ticket(b"a" * 32, 10.0, "grant", 1.0)
        await store.add_ticket(b"b" * 32, 2.0, "late", 1.0)
        taken = await asyncio.gather(*(one.take_ticket(b"a" * 32, 3.0) for one in (store, other) * 4))
        assert sorted(map(str, taken)) == ["None"] * 7 + ["grant"]
        assert await store.take_ticket(b"b" * 32, 3.0) is None

    run(live)


def test_many_at_once_from_two_processes(stores: Stores) -> None:
    """Every change is counted, and none is in the way of another."""
    store, other = stores

    async def live() -> None:
        before = await store.generation()
        added = (one.add_token(TokenRecord(f"t_{number}", bytes([number]) * 32, f"s{number % 7}")) for number, one in enumerate((store, other) * 30))
        joined = (one.set_member(MemberRecord("os101", f"s{number % 7}", "student")) for number, one in enumerate((store, other) * 30))
        founded = (one.add_course(CourseRecord("os101", None, 1.0)) for one in (store, other) * 5)
        results = await asyncio.gather(*added, *joined, *founded)
        assert results[-10:].count(True) == 1
        assert await other.generation() == before + 121 and len(await store.tokens()) == 60 and len(await store.members("os101")) == 7
        assert len(await store.standings([f"t_{number}" for number in range(2000)])) == 60

    run(live)


def test_the_callers_of_an_older_data_folder_are_adopted(opened: Callable[[], SqlStore], tmp_path: Path) -> None:
    token, member = TokenRecord("t_1", b"d" * 32, "ada", "os101", created=1.0), MemberRecord("os101", "ada", "student")

    async def fill(store: IdentityStore) -> None:
        await store.add_token(token)
        await store.set_member(member)

    url = f"sqlite:///{tmp_path / OLD_FILE}"
    with contextlib.closing(Database(url, components=(IDENTITY,))) as old, contextlib.closing(Writer(old)) as writer:
        asyncio.run(fill(IdentityStore(writer)))
    database = opened().database
    assert adopt(database, tmp_path) and not adopt(database, tmp_path)
    with contextlib.closing(Writer(database)) as writer:
        store = IdentityStore(writer)
        assert asyncio.run(store.token("t_1")) == token and list(asyncio.run(store.members("os101"))) == [member]
    assert not (tmp_path / OLD_FILE).exists()
