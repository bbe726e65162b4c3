"""One database behind a URL: `sqlite:///path`, `postgresql://…`, or `memory:` (a temporary file that is gone at the end).

SQLAlchemy Core knows the differences of the two in types and SQL; the few that it does not know are a `Dialect` each (`sqlite`, `postgres`).
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from app.storage.schema import COMPONENTS, METADATA, Component, versions
from app.storage.store import StorageDamaged, StorageError, StorageFull

T = TypeVar("T")
Durability = Literal["full", "normal"]
Row = tuple[str, int, int, int, int, int, int, bytes, int, int]  # session, fence, line, seq, format, last event, clock, body, mark, first operation


class Dialect(Protocol):
    """What one kind of database does its own way."""

    now: ColumnElement[float]  # its clock, in seconds
    error: type[Exception]  # the driver's

    def engine(self) -> Engine:
        """Connections."""

    def hot(self, engine: Engine) -> Any:
        """The driver's own connection for appends; what it executes is committed at once."""

    def append(self, connection: Any, rows: Sequence[Row]) -> int:
        """Add rows to the journal, those whose fence is the session's; how many. One statement; an error of a row that has an operation again."""

    def lock(self, conn: Connection) -> None:
        """Wait until no other changes the schema."""

    def is_full(self, error: Exception) -> bool:
        """True for the driver's error that says that there is no room on the disk."""

    def is_damaged(self, error: Exception) -> bool:
        """True for the driver's error that says that what is on the disk is not what was written."""

    def alone(self, conn: Connection, name: str) -> None:
        """Wait until no other transaction is alone with that name, and be so until this one ends."""


class Database:
    """Connections to one database, with its tables up to date.

    Parameters
    ----------
    url : str
        Where it is.
    durability : "full" or "normal"
        Full: a commit is on the disk when it returns. Normal: it survives the process, but the last ones not a power cut.
    components : sequence of Component
        Whose tables it has.
    migrate : bool
        False: look at what is there, change nothing.
    """

    def __init__(
        self, url: str, durability: Durability = "full", components: Sequence[Component] = COMPONENTS, migrate: bool = True
    ) -> None:
        self._temporary: Path | None = None
        if url == "memory:":
            self._temporary = Path(tempfile.mkdtemp(prefix="pagewalk-"))
            url, durability = f"sqlite:///{self._temporary / 'sessions.sqlite'}", "normal"
        self.url = url
        self.dialect = _dialect(url, durability)
        self.engine = self.dialect.engine()
        if not migrate:
            return
        try:
            with self._translated():
                self._migrate(components)
        except StorageError as error:
            self.close()
            raise StorageError(f"{make_url(url).render_as_string(hide_password=True)}: {error}") from error

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run reads on a connection: all of them see the same state."""
        with self._translated(), self.engine.connect() as conn:
            return work(conn)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a function in a transaction of its own."""
        with self.changing() as conn:
            return work(conn)

    @contextlib.contextmanager
    def moment(self) -> Iterator[Connection]:
        """A connection that sees one moment of the database, however long it reads."""
        options = {} if self.engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        with self._translated(), self.engine.connect() as conn:
            conn.execution_options(**options)
            yield conn  # its transaction begins with the first read, and ends with the connection

    @contextlib.contextmanager
    def changing(self) -> Iterator[Connection]:
        """A connection in a transaction of its own; an exception takes it back."""
        with self._translated(), self.writing() as conn, conn.begin():
            yield conn

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection whose transactions write from the start."""
        with self.engine.connect() as conn:
            yield conn.execution_options(write=True)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's failures as ours."""
        try:
            yield
        except (DBAPIError, self.dialect.error) as error:
            raise self.translate(error) from error

    def translate(self, error: Exception) -> StorageError:
        """The driver's failure as ours."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        assert isinstance(cause, Exception)
        full, damaged = self.dialect.is_full(cause), self.dialect.is_damaged(cause)
        return (StorageFull if full else StorageDamaged if damaged else StorageError)(str(cause).strip().split("\n")[0])

    def now(self, conn: Connection) -> float:
        """The database's clock, in seconds."""
        return float(conn.execute(select(self.dialect.now)).scalar_one())

    def close(self) -> None:
        """Let the connections go, and the file when it is a temporary one."""
        self.engine.dispose()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _migrate(self, components: Sequence[Component]) -> None:
        """Create what is missing, bring what is old up to date. Raises StorageError for a database of a newer program."""
        with self.writing() as conn, conn.begin():
            self.dialect.lock(conn)
            versions.create(conn, checkfirst=True)
            have = {row.component: row.version for row in conn.execute(select(versions))}
            for component in components:
                self._bring(conn, component, have.get(component.name))

    @staticmethod
    def _bring(conn: Connection, component: Component, have: int | None) -> None:
        if have is None:
            METADATA.create_all(conn, tables=list(component.tables), checkfirst=True)
            conn.execute(insert(versions).values(component=component.name, version=component.version))
            return
        if have > component.version:
            raise StorageError(f"the database's {component.name} are of version {have}, this program knows {component.version}: use a newer one")
        for version in range(have + 1, component.version + 1):
            for statement in component.migrations[version]:
                conn.execute(text(statement))
        conn.execute(update(versions).where(versions.c.component == component.name).values(version=component.version))


def _dialect(url: str, durability: Durability) -> Dialect:
    from app.storage import postgres, sqlite

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StorageError(f"{url[:60]!r} is no URL of a database: sqlite:///path, postgresql://user@host/name, or memory:") from None
    if parsed.drivername == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StorageError("sqlite:///path needs a path; memory: is a temporary database")
        return sqlite.Sqlite(Path(parsed.database), durability)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return postgres.Postgres(parsed.set(drivername="postgresql+psycopg"), durability)
    raise StorageError(f"{parsed.drivername} databases are not known: sqlite:///path, postgresql://user@host/name, or memory:")
