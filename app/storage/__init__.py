"""Where sessions are kept: journals, snapshots and the catalogue, in SQLite or PostgreSQL.

For those who build on it:

`open_store("sqlite:///path" | "postgresql://…" | "memory:", durability="full" | "normal")` gives a `Store` (`store.py` is its Protocol: create,
acquire, renew, release, void, append, snapshot, load, and `read`/`write` for anything else). Its methods block; any thread may call them, and any
number of processes may open the same database.

*Leases.* `acquire(session, holder, ttl)` gives a `Lease` with a fence that grows each time; `renew(holder, ttl)` prolongs all of a holder's and says
which it still has; `append` and `snapshot` under an older fence are refused (`Fenced`). A lease that ran out, or was taken by `void(holder)` because
its holder is known to be dead, goes to the next who asks; `Held` says who has it. Name holders "instance/boot/worker": `void("instance")` takes all
of them.

*Writing from the event loop.* `Writer(store.database)` is the one thread of a process that commits: `submit(Unit(items, done))` never waits
and `done(None | exception)` is called on the loop when the unit is durable; `await write(function_of_a_connection)` and `await read(...)` do the same
for other tables. Units that arrive during a commit are committed together in the next.

*Tables of your own.* Define them with SQLAlchemy on `schema.METADATA` and add a `Component(name, version, tables, migrations)` to
`schema.COMPONENTS`; queries are SQLAlchemy Core in `read` and `write`.
"""

from app.storage.database import Database, Durability
from app.storage.sql import SqlStore
from app.storage.store import (
    Append,
    Entry,
    Fenced,
    Held,
    Lease,
    Loaded,
    NoSuchSession,
    Record,
    Snapshot,
    StorageDamaged,
    StorageError,
    StorageFull,
    Store,
)
from app.storage.writer import Unit, Writer

__all__ = [
    "Append",
    "Database",
    "Durability",
    "Entry",
    "Fenced",
    "Held",
    "Lease",
    "Loaded",
    "NoSuchSession",
    "Record",
    "Snapshot",
    "SqlStore",
    "StorageDamaged",
    "StorageError",
    "StorageFull",
    "Store",
    "Unit",
    "Writer",
    "open_store",
]


def open_store(url: str, durability: Durability = "full") -> SqlStore:
    """A store on the database of a URL. Raises StorageError in plain words."""
    return SqlStore(Database(url, durability))
