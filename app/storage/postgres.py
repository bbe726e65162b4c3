"""PostgreSQL by psycopg 3.

An append is one statement over arrays. It locks the sessions' rows against a change of their fence until it is committed (`FOR SHARE`): whoever
takes a session over waits for it, and so reads a journal to which nothing can be added under the old fence. A row that has an operation again gets no
timeline, which the table refuses.
"""

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from sqlalchemy import URL, ColumnElement, Connection, Double, Engine, create_engine, literal_column, text

from app.storage.database import Durability, Row

LOCK: Final = 7_238_541_906  # of the schema, an advisory one
APPEND: Final = (
    "INSERT INTO journal (line, seq, format, last_event, clock_ns, body, mark)"
    " SELECT CASE WHEN EXISTS (SELECT FROM journal AS j WHERE j.line = v.line AND j.seq >= v.first) THEN NULL ELSE v.line END,"
    " v.seq, v.format, v.last_event, v.clock_ns, v.body, v.mark"
    " FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::int[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[],"
    " %s::bigint[])"
    " AS v(session, fence, line, seq, format, last_event, clock_ns, body, mark, first)"
    " JOIN sessions AS s ON s.id = v.session AND s.fence = v.fence FOR SHARE OF s"
)


class Postgres:
    """One PostgreSQL database."""

    now: ColumnElement[float] = literal_column("(extract(epoch from clock_timestamp())::double precision)", Double)
    error: type[Exception] = psycopg.Error

    def __init__(self, url: URL, durability: Durability) -> None:
        self.url, self.durability = url, durability

    def engine(self) -> Engine:
        """Connections that are tried before they are used: a server may have been restarted."""
        return create_engine(self.url, pool_pre_ping=True, connect_args={"options": self._options, "connect_timeout": 10})

    @property
    def _options(self) -> str:
        return f"-c synchronous_commit={'on' if self.durability == 'full' else 'off'} -c application_name=pagewalk"

    def hot(self, engine: Engine) -> Any:
        """A connection of the driver's own that commits each statement."""
        return psycopg.connect(
            self.url.set(drivername="postgresql").render_as_string(hide_password=False), options=self._options, autocommit=True, prepare_threshold=2
        )

    def append(self, connection: Any, rows: Sequence[Row]) -> int:
        """Add rows, those with a valid fence; how many."""
        return int(connection.execute(APPEND, [list(column) for column in zip(*rows, strict=True)]).rowcount)

    def lock(self, conn: Connection) -> None:
        """An advisory lock, until the transaction ends."""
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    def is_full(self, error: Exception) -> bool:
        """Class 53: no room on the disk."""
        return isinstance(error, psycopg.errors.DiskFull)

    def is_damaged(self, error: Exception) -> bool:
        """Class XX: a checksum of the server's is wrong."""
        return isinstance(error, psycopg.errors.DataCorrupted | psycopg.errors.IndexCorrupted)

    def alone(self, conn: Connection, name: str) -> None:
        """An advisory lock, until the transaction ends; two names may rarely have the same."""
        conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
