"""Which service this is, to the leases of its sessions: a name that lasts from one start to the next.

A service that was killed leaves leases that nobody renews. Its next start may take them at once, if it knows for sure that it is the next start of
the same service: so the name is a file in the data folder, and who lives under it holds a lock on that file. The kernel lets a lock go with
its process, however that ends. Whoever gets one knows that its owner before is dead, whatever port it listened on, and that its leases are void.
Several services on one folder have a name each; the first that starts buries all who are dead.

Where there is no data folder, or none that can be written, a service is its host and port. PAGEWALK_INSTANCE says it otherwise.
"""

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.settings import Settings

FOLDER: Final = "instances"


@dataclass(slots=True)
class Instance:
    """A service's name, and the names of those that are dead: its own, if there was one before it, and others'."""

    name: str
    dead: list[str]
    _locks: list[int] = field(default_factory=list)

    def leave(self) -> None:
        """Let the name go; the end of the process does the same."""
        while self._locks:
            os.close(self._locks.pop())


def claim(settings: Settings) -> Instance:
    """The name of the service that starts with these settings."""
    if settings.instance is not None:
        return Instance(settings.instance, [settings.instance])
    if settings.data is not None:
        try:
            return _claim(settings.data / FOLDER)
        except OSError:
            pass  # a folder that cannot be written
    name = f"{socket.gethostname()}:{settings.port}" if settings.port else secrets.token_hex(4)
    return Instance(name, [name])


def _claim(folder: Path) -> Instance:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    dead = dict(_dead(folder))
    if not dead:
        name = secrets.token_hex(8)
        return Instance(name, [], [_locked(folder / name)])
    name, lock = next(iter(dead.items()))
    for other in list(dead.values())[1:]:
        os.close(other)
    return Instance(name, list(dead), [lock])


def _dead(folder: Path) -> Iterator[tuple[str, int]]:
    """Names whose services have ended, with the locks on them that are ours now."""
    for path in sorted(folder.iterdir()):
        try:
            yield path.name, _locked(path)
        except BlockingIOError:
            continue  # it lives


def _locked(path: Path) -> int:
    """A file with our lock on it. Raises BlockingIOError when another has it."""
    found = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(found)
        raise
    return found
