"""WebDAV's write locks of one session (RFC 4918 §6): who says that nobody else should write a file for a while.

The kernel knows nothing of them: a write is one turn of the session, whole or not at all, lock or no lock. Clients that edit files insist
on them (DAV class 2), so they are kept, in memory, for two minutes at most: a client that wants one longer refreshes it, a client that
died blocks nobody for long.
"""

import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from app.errors import Problem

LONGEST_S: Final = 120
MOST: Final = 256


@dataclass(slots=True)
class Lock:
    """A lock as its `lockdiscovery` shows it; `owner` is the client's own words, as XML text."""

    path: str
    exclusive: bool
    tree: bool
    owner: str
    token: str
    seconds: int
    until: float

    def covers(self, path: str) -> bool:
        """True for the file itself, and for what is below a locked tree."""
        return path == self.path or (self.tree and path.startswith(self.path.rstrip("/") + "/"))


class Locks:
    """The locks of a session that have not run out.

    Parameters
    ----------
    clock : callable
        Seconds, for tests to choose.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._locks: dict[str, Lock] = {}

    def of(self, path: str) -> list[Lock]:
        """The locks that hold for a path."""
        if not self._locks:
            return []
        now = self._clock()
        self._locks = {token: lock for token, lock in self._locks.items() if lock.until > now}
        return [lock for lock in self._locks.values() if lock.covers(path)]

    def take(self, path: str, exclusive: bool, tree: bool, owner: str, seconds: int) -> Lock:
        """A new lock. Raises 423 where another stands in its way."""
        wanted = Lock(path, exclusive, tree, owner, f"urn:uuid:{uuid.uuid4()}", min(max(seconds, 1), LONGEST_S), 0.0)
        self.of(path)
        for lock in self._locks.values():
            if (lock.covers(path) or wanted.covers(lock.path)) and (exclusive or lock.exclusive):
                raise _locked(lock)
        if len(self._locks) >= MOST:
            raise Problem(429, "too-many-locks", f"the session has {MOST} locks: give one back", {"Retry-After": str(LONGEST_S)})
        wanted.until = self._clock() + wanted.seconds
        self._locks[wanted.token] = wanted
        return wanted

    def refresh(self, path: str, tokens: Collection[str], seconds: int) -> Lock:
        """Begin a lock's time anew. Raises 412 when none of the tokens is a lock of the path."""
        for lock in self.of(path):
            if lock.token in tokens:
                lock.seconds = min(max(seconds, 1), LONGEST_S)
                lock.until = self._clock() + lock.seconds
                return lock
        raise _no_such_lock(path)

    def give_back(self, path: str, token: str) -> None:
        """End a lock. Raises 409 when it is none of the path's."""
        if not any(lock.token == token for lock in self.of(path)):
            raise Problem(409, "no-such-lock", f"{path} has no such lock; locks end by themselves after {LONGEST_S} s")
        del self._locks[token]

    def require(self, path: str, tokens: Collection[str] | None) -> None:
        """Let a writer through who names a lock, or when there is none. Raises 423, or 412 for a lock that is no more."""
        held = self.of(path)
        if held and not any(lock.token in (tokens or ()) for lock in held):
            raise _locked(held[0])
        if tokens and not held:
            raise _no_such_lock(path)


def _locked(lock: Lock) -> Problem:
    return Problem(423, "locked", f"{lock.path} is locked by another client, for {lock.seconds} s at most: name its lock in If, or try later")


def _no_such_lock(path: str) -> Problem:
    return Problem(412, "no-such-lock", f"the lock that If names does not hold for {path}: it ended, or the service has started anew; lock it again")
