"""What is stored, and the Protocol of whoever stores it.

A session has one writer: whoever has its *lease*. Each lease has a fence, a number that grows with each one given for that session, and what
is written under an older fence is refused: a worker that was taken for dead and wakes up again can write nothing.
"""

import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


class StorageError(Exception):
    """The database did not do what it was asked: whether it was committed is not known."""


class StorageFull(StorageError):
    """There is no room: nothing was committed."""


class StorageDamaged(StorageError):
    """What is on the disk is not what was written there."""


class Fenced(Exception):
    """The lease is not valid any more: another has the session, or it is gone."""


class NoSuchSession(LookupError):
    """There is no session of that id."""


class Held(Exception):
    """Another has the session's lease, until `until` by the database's clock unless it is renewed; `now` is that clock's time."""

    def __init__(self, holder: str, until: float, now: float) -> None:
        super().__init__(f"held by {holder} for {until - now:.1f} s")
        self.holder, self.until, self.now = holder, until, now


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a session."""

    session: str
    holder: str
    fence: int


class Entry(NamedTuple):
    """One operation in the journal; number 0 is the boot."""

    seq: int
    last_event: int  # the number of the last event up to and with it
    clock_ns: int
    body: bytes  # one line
    format: int = 1
    damage: str | None = None  # what is wrong with it, as it was read


def mark(line: int, seq: int, form: int, body: bytes) -> int:
    """The checksum of an entry: of its place, which it must not leave, and its body. What it came to is checked by playing it again."""
    return zlib.crc32(body, zlib.crc32(b"%d %d %d " % (line, seq, form)))


@dataclass(frozen=True, slots=True)
class Append:
    """Entries to add to a timeline, in order."""

    lease: Lease
    line: int
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Record:
    """A session in the catalogue; `seq`, `last_event` and `clock_ns` are its newest journal entry's."""

    id: str
    owner: str | None
    course: str | None
    name: str | None
    lab: str | None
    machine: str
    seed: int
    token: bytes
    ttl_ns: int
    created: float
    used: float
    line: int
    epoch: int
    frozen: str | None = None
    panicked: str | None = None
    differs: str | None = None  # JSON: the first operation that came to other figures when it was played again
    holder: str | None = None
    seq: int = 0
    last_event: int = 0
    clock_ns: int = 0

    def is_key(self, digest: bytes) -> bool:
        """True for the hash of the session's own token."""
        return secrets.compare_digest(digest, self.token)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A kernel's bytes at a place of a timeline."""

    line: int
    seq: int
    last_event: int
    kernel: bytes
    format: int = 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a session is rebuilt from: the newest snapshot that is sound (None: boot), and what came after it."""

    record: Record
    snapshot: Snapshot | None
    entries: Sequence[Entry]
    damaged: int = 0  # snapshots that were passed over


class Store(Protocol):
    """Where sessions are kept. Every method is one transaction, blocks until it is committed, and may be called from any thread."""

    def create(self, record: Record, boot: Entry, holder: str, ttl: float) -> Lease:
        """Take a new session in, with its lease."""

    def acquire(self, session: str, holder: str, ttl: float) -> Lease:
        """The lease of a session that nobody has, or whose lease ran out, or is the holder's own. Raises Held, NoSuchSession."""

    def renew(self, holder: str, ttl: float) -> set[str]:
        """Prolong every lease of a holder; the sessions that it still has."""

    def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back."""

    def void(self, holder: str) -> int:
        """Take every lease of a holder that is known to be dead, and of those whose name begins with its name and a slash; how many."""

    def append(self, appends: Sequence[Append]) -> set[str]:
        """Add to journals, in one commit; the sessions whose lease was not valid: nothing of theirs is written."""

    def snapshot(self, lease: Lease, snapshot: Snapshot) -> None:
        """Keep a snapshot. Raises Fenced."""

    def load(self, session: str, upto: int | None = None) -> Loaded:
        """What a session, or its state at an earlier number, is rebuilt from. Raises NoSuchSession."""

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function of reads on a connection, for other tables than the sessions'."""

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a function on a connection in a transaction of its own; an exception takes it back."""

    def close(self) -> None:
        """Let the connections go."""
