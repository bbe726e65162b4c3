"""Every test of a store runs on SQLite and on a real PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.storage import SqlStore, open_store
from tests.storage import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    folder = postgres.programs()
    if folder is None:
        pytest.skip("PostgreSQL's server programs (initdb, postgres) are not installed: apt-get install postgresql")
    with postgres.server(folder) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a folder' / 'sessions.sqlite'}"
    return postgres.emptied(request.getfixturevalue("postgres_server"))


@pytest.fixture
def opened(database_url: str) -> Iterator[Callable[[], SqlStore]]:
    """Opens the database, as often as the test wants."""
    stores: list[SqlStore] = []

    def one_more() -> SqlStore:
        stores.append(open_store(database_url, "normal"))
        return stores[-1]

    yield one_more
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], SqlStore]) -> SqlStore:
    return opened()
