"""A whole database in one file, and back, into a database of either kind.

    PAGEWALK BACKUP 1\\n
    one zstandard frame of JSON Lines:
        {"created": …, "program": …, "components": {"sessions": 2, …}}
        {"table": "sessions", "columns": […]}          then its rows, each a list; bytes are {"b": base64}
        …
        {"end": true, "rows": N, "digest": BLAKE2b of all lines before}

A backup reads in one transaction, so it is one moment of the database however long it takes, and the service goes on meanwhile: SQLite's
write-ahead log and PostgreSQL's REPEATABLE READ are made for that. Left out are `replies` and `tickets`: they live for a day or for
seconds, mean nothing once time has gone back, and hold secrets; so a backup has tokens as hashes only.

A restore is one transaction too. What it reads is checked against the digest before it is committed, and what it wrote is read again and
compared: table by table the same rows. Leases are not restored: whoever held them is gone.
"""

import base64
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import orjson
import zstandard
from sqlalchemy import Connection, Table, delete, insert, literal, select

from app.storage.database import Database
from app.storage.schema import COMPONENTS, Component, sessions

MAGIC: Final = b"PAGEWALK BACKUP 1\n"
LEVEL: Final = 6
ROWS: Final = 500  # that are written, or inserted, at a time
PASSED_OVER: Final = ("replies", "tickets")
NOBODY: Final = {"holder": None, "lease_until": 0.0}
Tell = Callable[[str, int], None]  # the table that it is at, rows so far


class BackupError(Exception):
    """The file is no backup that can be used, or the database is none that it may go to."""


@dataclass(slots=True)
class Summary:
    """What a backup holds."""

    created: float
    program: str
    rows: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of each table's rows


def tables(components: Sequence[Component] = COMPONENTS) -> list[Table]:
    """The tables that are kept, in the order of the file."""
    return [table for component in components for table in component.tables if table.name not in PASSED_OVER]


# ---------------------------------------------------------------- rows as lines


def _packed(value: Any) -> Any:
    return {"b": base64.b64encode(value).decode()} if isinstance(value, bytes | memoryview) else value


def _unpacked(value: Any) -> Any:
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value


def _rows(conn: Connection, table: Table) -> Iterator[bytes]:
    """A table's rows as lines, by primary key; without leases."""
    free = NOBODY if table.name == "sessions" else {}
    query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=ROWS)
    for row in conn.execute(query).mappings():
        yield orjson.dumps([free[name] if name in free else _packed(value) for name, value in row.items()]) + b"\n"


def _digest() -> Any:
    return hashlib.blake2b(digest_size=16)


# ---------------------------------------------------------------- backup


def backup(database: Database, out: IO[bytes], program: str, tell: Tell = lambda *_: None) -> Summary:
    """Write a database, as it is at one moment, to a file."""
    found, whole = Summary(time.time(), program), _digest()
    out.write(MAGIC)
    with zstandard.ZstdCompressor(LEVEL, write_checksum=True).stream_writer(out, closefd=False) as packer, database.moment() as conn:

        def write(line: bytes) -> None:
            whole.update(line)
            packer.write(line)

        write(_line({"created": found.created, "program": program, "components": {one.name: one.version for one in COMPONENTS}}))
        for table in tables():
            write(_line({"table": table.name, "columns": [column.name for column in table.c]}))
            found.rows[table.name], found.digests[table.name] = _write_rows(conn, table, write, tell)
        packer.write(_line({"end": True, "rows": sum(found.rows.values()), "digest": whole.hexdigest()}))
    return found


def _write_rows(conn: Connection, table: Table, write: Callable[[bytes], None], tell: Tell) -> tuple[int, str]:
    count, digest = 0, _digest()
    for count, line in enumerate(_rows(conn, table), 1):
        write(line)
        digest.update(line)
        if count % ROWS == 0:
            tell(table.name, count)
    tell(table.name, count)
    return count, digest.hexdigest()


def _line(value: Any) -> bytes:
    return orjson.dumps(value) + b"\n"


# ---------------------------------------------------------------- restore


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a backup. Raises BackupError for a file that is none."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise BackupError(f"{path} is no backup of pagewalk, or one of a newer version")
        reader = zstandard.ZstdDecompressor().stream_reader(file)
        try:
            yield iter(io.BufferedReader(reader))
        except (zstandard.ZstdError, ValueError, KeyError, TypeError) as error:
            raise BackupError(f"{path} is damaged: {error}") from error


def restore(database: Database, path: Path, force: bool = False, tell: Tell = lambda *_: None) -> Summary:
    """Put a backup into a database; all of it or nothing. Raises BackupError, StorageError.

    force: throw away what the database holds; not while somebody uses it.
    """
    with database.changing() as conn:
        _require_free(conn, database.now(conn), force)
        found = _read(conn, path, tell)
    with database.moment() as conn:
        for table in tables():
            count, digest = _write_rows(conn, table, lambda _: None, lambda *_: None)
            if (count, digest) != (found.rows.get(table.name, 0), found.digests.get(table.name, _digest().hexdigest())):
                raise BackupError(f"what was written to {table.name} reads otherwise: the database is not to be trusted")
    return found


def _require_free(conn: Connection, now: float, force: bool) -> None:
    full = [table.name for table in tables() if conn.execute(select(literal(1)).select_from(table).limit(1)).first() is not None]
    if full and not force:
        raise BackupError(f"the database is not empty ({', '.join(full)}): restore into an empty one, or throw away what it holds with --force")
    holder = conn.execute(select(sessions.c.holder).where(sessions.c.lease_until > now).limit(1)).scalar()
    if holder is not None:
        raise BackupError(f"{holder} uses this database: end that service first (if it was killed, its leases run out within half a minute)")
    for component in COMPONENTS:
        for table in component.tables:
            conn.execute(delete(table))


def _read(conn: Connection, path: Path, tell: Tell) -> Summary:
    with _lines(path) as lines:
        whole = _digest()
        head = orjson.loads(first := next(lines, b""))
        whole.update(first)
        _require_known(head["components"])
        found = Summary(head["created"], head["program"])
        inserter: _Inserter | None = None
        for line in lines:
            row = orjson.loads(line)
            if isinstance(row, list):
                if inserter is None:
                    raise ValueError("rows without a table")
                inserter.add(row)
            else:
                if inserter is not None:
                    inserter.end(found)
                if "end" in row:
                    if (row["rows"], row["digest"]) != (sum(found.rows.values()), whole.hexdigest()):
                        raise BackupError(f"{path} is damaged: its digest is wrong; nothing was restored")
                    return found
                inserter = _Inserter(conn, row["table"], row["columns"], tell)
            whole.update(line)
    raise BackupError(f"{path} is cut off: nothing was restored")


def _require_known(components: dict[str, int]) -> None:
    known = {one.name: one.version for one in COMPONENTS}
    for name, version in components.items():
        if version > known.get(name, 0):
            raise BackupError(f"the backup has {name} of version {version}, this program knows {known.get(name, 0)}: use a newer one")


class _Inserter:
    """The rows of one table. Columns that an older version did not have stay empty."""

    def __init__(self, conn: Connection, name: str, columns: Sequence[str], tell: Tell) -> None:
        self._conn, self._columns, self._tell = conn, columns, tell
        self._table = next((table for table in tables() if table.name == name), None)
        if self._table is None:
            raise BackupError(f"there is no table {name!r}: the backup is of another program")
        self._waiting: list[dict[str, Any]] = []
        self._count, self._digest = 0, _digest()

    def add(self, row: list[Any]) -> None:
        """One more."""
        assert self._table is not None
        values = dict(zip(self._columns, map(_unpacked, row), strict=True))
        full = [values.get(column.name) for column in self._table.c]
        self._digest.update(orjson.dumps([_packed(value) for value in full]) + b"\n")
        self._waiting.append(values)
        self._count += 1
        if len(self._waiting) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        assert self._table is not None
        if self._waiting:
            self._conn.execute(insert(self._table), self._waiting)
            self._waiting = []
            self._tell(self._table.name, self._count)

    def end(self, found: Summary) -> None:
        """That was the last."""
        assert self._table is not None
        self._flush()
        found.rows[self._table.name], found.digests[self._table.name] = self._count, self._digest.hexdigest()
