"""SQLite in WAL mode: one file, one writer at a time, any number of readers; the processes of one host may share it.

An append is one statement, and by itself one transaction, so that the writer's thread leaves the interpreter once a commit and not once a row:
each return to it may have to wait for the event loop. The number of rows is rounded up to a power of two with empty ones, which the join with
`sessions` drops, so that the same few statements are compiled once. A row that has an operation again gets no timeline, which the table refuses.
"""

import os
import sqlite3
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Double, Engine, create_engine, event, literal_column

from app.storage.database import Durability, Row

BUSY_S: Final = 20.0
MAX_ROWS: Final = 512
MMAP: Final = 64 << 20
DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
FULL: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
_EMPTY: Final = (None,) * 10


@cache
def _append(rows: int) -> str:
    values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows)
    return (
        "INSERT INTO journal (line, seq, format, last_event, clock_ns, body, mark)"
        " SELECT CASE WHEN EXISTS (SELECT 1 FROM journal AS j WHERE j.line = v.column3 AND j.seq >= v.column10) THEN NULL ELSE v.column3 END,"
        " v.column4, v.column5, v.column6, v.column7, v.column8, v.column9"
        f" FROM (VALUES {values}) AS v JOIN sessions AS s ON s.id = v.column1 AND s.fence = v.column2"
    )


class Sqlite:
    """One SQLite file."""

    now: ColumnElement[float] = literal_column("((julianday('now') - 2440587.5) * 86400.0)", Double)
    error: type[Exception] = sqlite3.Error

    def __init__(self, path: Path, durability: Durability) -> None:
        self.path, self.durability = path, durability

    def engine(self) -> Engine:
        """Connections that keep a write-ahead log, and begin their transactions themselves."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # others of the host have no business in it
        engine = create_engine(f"sqlite:///{self.path}", connect_args={"timeout": BUSY_S, "check_same_thread": False, "cached_statements": 256})

        @event.listens_for(engine, "connect")
        def opened(connection: sqlite3.Connection, _: Any) -> None:
            connection.isolation_level = None  # the driver begins nothing by itself
            for pragma in ("journal_mode=WAL", f"synchronous={self.durability}", f"mmap_size={MMAP}", "temp_store=MEMORY"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begun(conn: Connection) -> None:
            conn.exec_driver_sql("BEGIN IMMEDIATE" if conn.get_execution_options().get("write") else "BEGIN")

        return engine

    def hot(self, engine: Engine) -> Any:
        """A connection of the driver's own. Out of the pool: what is appended would be part of another user's transaction, and taken back with it."""
        connection = engine.raw_connection()
        found = connection.driver_connection
        connection.detach()
        return found

    def append(self, connection: Any, rows: Sequence[Row]) -> int:
        """Add rows, those with a valid fence; how many."""
        if len(rows) <= MAX_ROWS:
            size = 1 << (len(rows) - 1).bit_length()
            values = [value for row in rows for value in row] + [*_EMPTY] * (size - len(rows))
            return int(connection.execute(_append(size), values).rowcount)
        if connection.in_transaction:
            return sum(self.append(connection, rows[start : start + MAX_ROWS]) for start in range(0, len(rows), MAX_ROWS))
        connection.execute("BEGIN IMMEDIATE")
        try:
            added = self.append(connection, rows)
            connection.execute("COMMIT")
        except sqlite3.Error:
            connection.execute("ROLLBACK")
            raise
        return added

    def lock(self, conn: Connection) -> None:
        """BEGIN IMMEDIATE has locked it."""

    def is_full(self, error: Exception) -> bool:
        """SQLITE_FULL, and a write that the system cut short: of a full disk, or at the process's limit of a file's size."""
        return getattr(error, "sqlite_errorname", "") in FULL

    def is_damaged(self, error: Exception) -> bool:
        """SQLITE_CORRUPT and its kin."""
        return getattr(error, "sqlite_errorname", "").startswith(DAMAGED)

    def alone(self, conn: Connection, name: str) -> None:
        """Whoever writes is alone."""
