"""The database's tables as data, and the migrations that bring an older database to them.

    sessions ──line──> lines ──parent──> lines …      a timeline grows from another where the session went back or was cloned
                         │
              journal (line, seq)   snapshots (line, seq)   events (line, first)      names (session, name) ──> (line, seq)

The journal is the truth: boot is number 0, operation N is number N (a row holds one, or several that were committed together: `packing`), and
what is the same in two timelines is stored once, in the older one. Snapshots and events can be made again from it; they are there for speed.

Callers stand beside the sessions (`identity.py`), so that every process of the service knows the same tokens, courses and members.

To change a table: change it here, and add a migration to its component with the next number. A fresh database gets the tables as they
are; an older one gets the migrations that it lacks, in one transaction. `COMPONENTS` lists the parts; another part of the service adds
its own tables and its own row, and versions of different components do not know of each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

METADATA: Final = MetaData()


def _big(name: str, primary: bool = False, empty: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=primary, autoincrement=False, nullable=empty)


sessions: Final = Table(
    "sessions",
    METADATA,
    Column("id", String, primary_key=True),
    Column("owner", String, index=True),  # whom a quota counts it for
    Column("course", String, index=True),
    Column("name", Text),
    Column("lab", Text),
    Column("machine", Text, nullable=False),  # JSON
    Column("seed", Text, nullable=False),  # a number of any size
    Column("token", LargeBinary, nullable=False),  # its hash
    _big("ttl_ns"),
    Column("created", Double, nullable=False),
    Column("used", Double, nullable=False),
    _big("line"),
    _big("epoch"),
    Column("frozen", Text),
    Column("panicked", Text),
    Column("differs", Text),  # JSON: where it came to other figures when it was played again
    _big("fence"),
    Column("holder", String, index=True),  # who has the lease; None: nobody
    Column("lease_until", Double, nullable=False),  # by the database's clock
    Index("sessions_by_age", "created", "id"),
)

lines: Final = Table(
    "lines",
    METADATA,
    _big("id", primary=True),
    Column("session", String, index=True),  # None: its session is gone, younger lines still grow from it
    _big("parent", empty=True),
    _big("fork_seq"),  # the last operation that it has in common with its parent
    Index("lines_by_parent", "parent"),
)

journal: Final = Table(
    "journal",
    METADATA,
    _big("line", primary=True),
    _big("seq", primary=True),
    Column("format", Integer, nullable=False),  # of the body
    _big("last_event"),
    _big("clock_ns"),
    Column("body", LargeBinary, nullable=False),
    _big("mark", empty=True),  # checksum of place and body; None: stored by version 1
    sqlite_with_rowid=False,
)

snapshots: Final = Table(
    "snapshots",
    METADATA,
    _big("line", primary=True),
    _big("seq", primary=True),
    _big("last_event"),
    Column("format", Integer, nullable=False),
    Column("checksum", LargeBinary, nullable=False),  # of everything else in the row
    Column("kernel", LargeBinary, nullable=False),
)

events: Final = Table(
    "events",
    METADATA,
    _big("line", primary=True),
    _big("first", primary=True),
    _big("last"),
    Column("checksum", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),  # zstandard of JSON Lines
)

names: Final = Table(
    "names",
    METADATA,
    Column("session", String, primary_key=True),
    Column("name", String, primary_key=True),
    _big("line"),
    _big("seq"),
    _big("epoch"),
    _big("clock_ns"),
    Column("digest", String, nullable=False),
    _big("size"),
    Column("created", Double, nullable=False),
    Index("names_by_place", "line", "seq"),
)

replies: Final = Table(
    "replies",
    METADATA,
    Column("key", LargeBinary, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", LargeBinary, nullable=False),  # JSON
    Column("body", LargeBinary, nullable=False),
    Column("created", Double, nullable=False, index=True),
)

tokens: Final = Table(
    "tokens",
    METADATA,
    Column("id", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("subject", String, nullable=False),
    Column("course", String, index=True),
    Column("session", String, index=True),
    Column("label", Text),
    Column("issued_by", String),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("used", Double),
)

courses: Final = Table(
    "courses", METADATA, Column("id", String, primary_key=True), Column("name", Text), Column("created", Double, nullable=False)
)

members: Final = Table(
    "members",
    METADATA,
    Column("course", String, primary_key=True),
    Column("subject", String, primary_key=True, index=True),
    Column("role", String, nullable=False),
)

tickets: Final = Table(
    "tickets",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("expires", Double, nullable=False),
    Column("caller", Text, nullable=False),  # JSON
)

identity_changes: Final = Table("identity_changes", METADATA, _big("id", primary=True), _big("count"))
COUNT_CHANGE: Final = text(  # every process forgets whom it knows
    "INSERT INTO identity_changes (id, count) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET count = identity_changes.count + 1"
)

versions: Final = Table("schema_versions", METADATA, Column("component", String, primary_key=True), Column("version", Integer, nullable=False))


@dataclass(frozen=True, slots=True)
class Component:
    """Some tables with a version of their own; `migrations[N]` are the statements that bring version N - 1 to N."""

    name: str
    version: int
    tables: Sequence[Table]
    migrations: Mapping[int, Sequence[str]] = field(default_factory=dict)


SESSIONS: Final = Component(
    "sessions",
    3,
    (sessions, lines, journal, snapshots, events, names, replies),
    {
        2: ("ALTER TABLE journal ADD COLUMN mark BIGINT", "ALTER TABLE sessions ADD COLUMN differs TEXT"),
        3: (),  # rows of several operations (`packing`), which an older program cannot read
    },
)
IDENTITY: Final = Component("identity", 1, (tokens, courses, members, tickets, identity_changes))
COMPONENTS: Final = (SESSIONS, IDENTITY)
