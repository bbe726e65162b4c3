"""The Store on a SQL database: each method one transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection

from app.storage import catalogue, history
from app.storage.database import Database, Row
from app.storage.packing import pack
from app.storage.store import Append, Entry, Lease, Loaded, Record, Snapshot, mark


def rows(appends: Sequence[Append]) -> list[Row]:
    """Appends as rows for the database's append: what a timeline gains in one commit stands together (`packing`)."""
    gains: dict[tuple[str, int, int], list[Entry]] = {}
    for one in appends:
        gains.setdefault((one.lease.session, one.lease.fence, one.line), []).extend(one.entries)
    return [
        (
            session, fence, line, entry.seq, entry.format, entry.last_event, entry.clock_ns, entry.body,
            mark(line, entry.seq, entry.format, entry.body), first,
        )
        for (session, fence, line), entries in gains.items()
        for first, entry in pack(entries)
    ]  # fmt: skip


class SqlStore:
    """Sessions in a database. Implements `Store`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.read, self.write = database.read, database.write

    def create(self, record: Record, boot: Entry, holder: str, ttl: float) -> Lease:
        """Take a new session in, with its lease."""
        return self.write(lambda conn: catalogue.create(conn, record, boot, holder, self.database.now(conn) + ttl))

    def acquire(self, session: str, holder: str, ttl: float) -> Lease:
        """The lease of a session that nobody has. Raises Held, NoSuchSession."""
        return self.write(lambda conn: catalogue.acquire(conn, session, holder, ttl, self.database.dialect.now))

    def renew(self, holder: str, ttl: float) -> set[str]:
        """Prolong every lease of a holder; the sessions that it still has."""
        return self.write(lambda conn: catalogue.renew(conn, holder, ttl, self.database.dialect.now))

    def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back."""
        self.write(lambda conn: catalogue.release(conn, leases))

    def void(self, holder: str) -> int:
        """Take every lease of a dead holder; how many."""
        return self.write(lambda conn: catalogue.void(conn, holder))

    def append(self, appends: Sequence[Append]) -> set[str]:
        """Add to journals, in one commit; the sessions whose lease was not valid."""

        def work(conn: Connection) -> set[str]:
            return append(self.database, conn, conn.connection.driver_connection, appends)

        return self.write(work)

    def snapshot(self, lease: Lease, snapshot: Snapshot) -> None:
        """Keep a snapshot. Raises Fenced."""
        self.write(lambda conn: history.keep(conn, lease, snapshot))

    def load(self, session: str, upto: int | None = None) -> Loaded:
        """What a session is rebuilt from. Raises NoSuchSession."""
        return self.read(lambda conn: load(conn, session, upto))

    def close(self) -> None:
        """Let the connections go."""
        self.database.close()


def append(database: Database, conn: Connection, driver: object, appends: Sequence[Append]) -> set[str]:
    """Add rows by the driver's connection; the sessions that were fenced, of which nothing was written."""
    added = rows(appends)
    if not added or database.dialect.append(driver, added) == len(added):
        return set()
    return fenced(conn, appends)


def fenced(conn: Connection, appends: Sequence[Append]) -> set[str]:
    """The sessions whose lease is not valid any more."""
    have = catalogue.fences(conn, sorted({one.lease.session for one in appends}))
    return {one.lease.session for one in appends if have.get(one.lease.session) != one.lease.fence}


def newest_snapshot(conn: Connection, line: int, upto: int | None = None, before: int | None = None) -> Snapshot | None:
    """The newest sound snapshot of a history, up to a number and from before another."""
    for at, seq in history.candidates(conn, line, upto):
        if (before is None or seq < before) and (found := history.snapshot_at(conn, at, seq)) is not None:
            return found
    return None


def load(conn: Connection, session: str, upto: int | None = None) -> Loaded:
    """The newest sound snapshot of a session up to a number, and the entries after it. Raises NoSuchSession."""
    record = catalogue.find(conn, session)
    found = newest_snapshot(conn, record.line, upto)
    newer = [seq for _, seq in history.candidates(conn, record.line, upto) if found is None or seq > found.seq]
    after = -1 if found is None else found.seq
    return Loaded(record, found, list(history.entries(conn, record.line, after, upto)), len(newer))
