"""What of a database is damaged: its own pages, rows of the journal, snapshots. Reads only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from app.storage import history
from app.storage.schema import sessions, snapshots, versions

MOST = 20  # pages that are named


@dataclass(slots=True)
class Health:
    """What was found."""

    sessions: int = 0
    operations: int = 0
    snapshots: int = 0
    wrong: list[str] = field(default_factory=list)  # what is lost
    passed_over: list[str] = field(default_factory=list)  # what can be made again


def versions_of(conn: Connection) -> dict[str, int]:
    """The versions of the parts of the schema."""
    return {row.component: row.version for row in conn.execute(select(versions))}


def health(conn: Connection) -> Health:
    """Look at everything."""
    found = Health(wrong=list(_pages(conn)))
    for sid, line in conn.execute(select(sessions.c.id, sessions.c.line).order_by(sessions.c.created)).all():
        found.sessions += 1
        try:
            _journal(conn, sid, line, found)
        except DBAPIError as error:
            found.wrong.append(f"{sid}: its journal cannot be read ({error.orig})")
    for line, seq in _places(conn, found):
        found.snapshots += 1
        if history.snapshot_at(conn, line, seq) is None:
            found.passed_over.append(f"snapshot of timeline {line} at operation {seq}")
    return found


def _pages(conn: Connection) -> Iterator[str]:
    """What SQLite says of its own file; a server looks after its own."""
    if conn.dialect.name == "sqlite":
        try:
            for says in conn.exec_driver_sql(f"PRAGMA quick_check({MOST})").scalars():
                if says != "ok":
                    yield from str(says).splitlines()
        except DBAPIError as error:
            yield f"the database's file: {error.orig}"


def _places(conn: Connection, found: Health) -> Sequence[Any]:
    try:
        return conn.execute(select(snapshots.c.line, snapshots.c.seq)).all()
    except DBAPIError as error:
        found.passed_over.append(f"the table of snapshots ({error.orig})")
        return []


def _journal(conn: Connection, sid: str, line: int, found: Health) -> None:
    expected = 0
    for entry in history.entries(conn, line):
        if entry.seq != expected:
            found.wrong.append(f"{sid}: operation {expected} is missing")
        if entry.damage is not None:
            found.wrong.append(f"{sid}: operation {entry.seq} is damaged: {entry.damage}")
        expected = entry.seq + 1
        found.operations += 1
    if not expected:
        found.wrong.append(f"{sid}: its journal is empty")


