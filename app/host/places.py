"""Which worker a session is at.

Every session has one worker that holds its lease. Who looks for a session knows it without asking in nearly every case: the workers are ranked
by a hash of their seat and the session's id (rendezvous hashing), a worker draws ids until its own seat is the first of the ranking, and a
session that nobody holds is opened by the first that is alive. A session that went elsewhere, because its worker was dead for a while, is found
by asking the first: it learns from the lease who has it, and the answer is remembered.

Whether a worker lives is known for sure on one machine: it holds a lock on a file, which the kernel lets go with the process, however that ends.
"""

import fcntl
import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

REMEMBERED: Final = 65_536


def ranking(key: str, names: Sequence[str]) -> list[str]:
    """The names, in an order of their own for each key."""
    return sorted(names, key=lambda name: hashlib.blake2b(f"{name} {key}".encode(), digest_size=8).digest())


class Places:
    """The workers of this service, by the names of their seats.

    Parameters
    ----------
    folder : Path
        Where their sockets and locks stand.
    seat : str
        This worker's own.
    seats : sequence of str
        All of them; a worker that is started again takes the seat of the one that died.
    """

    def __init__(self, folder: Path, seat: str, seats: Sequence[str]) -> None:
        self.folder, self.seat, self.seats = folder, seat, tuple(seats)
        self._known: OrderedDict[str, str] = OrderedDict()
        self._rankings: OrderedDict[str, list[str]] = OrderedDict()
        self._lock = -1

    def socket(self, seat: str) -> Path:
        """The Unix socket of a seat."""
        return self.folder / f"{seat}.sock"

    def ranked(self, key: str) -> list[str]:
        """The seats in the order of a key."""
        found = self._rankings.get(key)
        if found is None:
            found = self._rankings[key] = ranking(key, self.seats)
            if len(self._rankings) > REMEMBERED:
                self._rankings.popitem(last=False)
        return found

    def candidates(self, sid: str) -> list[str]:
        """Whom to ask for a session, in order."""
        ranked = self.ranked(sid)
        known = self._known.get(sid)
        return ranked if known is None else [known, *(seat for seat in ranked if seat != known)]

    def mine(self, sid: str) -> bool:
        """True when a new session of that id would be looked for here first."""
        return ranking(sid, self.seats)[0] == self.seat

    def remember(self, sid: str, seat: str) -> None:
        """A session is at a seat."""
        self._known[sid] = seat
        self._known.move_to_end(sid)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, sid: str) -> None:
        """Nobody knows where a session is."""
        self._known.pop(sid, None)

    def occupy(self, life: str) -> None:
        """Show that this worker lives, under the name of this life of it, as long as its process does."""
        self._lock = os.open(self.folder / f"{life}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_dead(self, life: str) -> bool:
        """True when the process that had this name is gone for sure."""
        if "/" in life or not life:
            return False
        try:
            found = os.open(self.folder / f"{life}.lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(found)
        return True

    def leave(self) -> None:
        """Take the socket away."""
        with suppress(OSError):
            self.socket(self.seat).unlink()
