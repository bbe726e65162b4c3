"""The parent of the workers: starts them, starts them again when they die, ends them in time.

It holds the listening socket, so no connection is refused while workers come and go, and does nothing else: what it does not do cannot break
it. What a worker that died held is free at once, because the supervisor has seen it die; without one the lease would have to run out.
"""

import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Final

from app.pool import worker
from app.settings import Settings

logger = logging.getLogger(__name__)

PATIENCE: Final = 5  # workers in a row that die before they take requests
READY_S: Final = 120.0
GRACE_S: Final = 5.0  # beyond the time that open requests may take


@dataclass(slots=True)
class Seat:
    """A worker's place: who sits there now."""

    name: str
    process: BaseProcess
    ready: Connection
    life: str
    started: bool = False

    def has_started(self) -> bool:
        """True when it ever took requests."""
        if not self.started and self.ready.poll(0):
            try:
                self.started = bool(self.ready.recv())
            except EOFError:
                pass
        return self.started


class Supervisor:
    """The workers of one service.

    Parameters
    ----------
    settings : Settings
        The service's; `workers` says how many.
    listener : socket
        Where clients come.
    announce : callable
        Called once, when every worker takes requests.
    bury : callable
        Called with the name of each life of a worker that is over.
    """

    def __init__(self, settings: Settings, listener: socket.socket, announce: Callable[[], None], bury: Callable[[str], None]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pagewalk-"))
        threads = settings.kernel_threads or max(1, len(os.sched_getaffinity(0)) // settings.workers)
        self.settings = settings.model_copy(update={"kernel_threads": threads})
        self.listener, self._announce, self._bury = listener, announce, bury
        self._spawn = multiprocessing.get_context("spawn")
        self._names = [f"w{number}" for number in range(settings.workers)]
        self._seats: dict[str, Seat] = {}
        self._early = 0
        self._wake, self._woken = os.pipe()
        self._stopping: int | None = None

    def run(self) -> bool:
        """Supervise until SIGTERM or SIGINT; False when the workers cannot be kept alive."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for name in self._names:
                self._start(name)
            return self._wait_ready() and self._watch()
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = number
        os.write(self._woken, b".")

    def _start(self, name: str) -> None:
        ours, theirs = self._spawn.Pipe(duplex=False)
        life = f"{name}-{secrets.token_hex(4)}"
        arguments = (self.settings, self.folder, name, self._names, life, self.listener, theirs)
        process = self._spawn.Process(target=worker.run, args=arguments, name=f"pagewalk {name}")
        process.start()
        theirs.close()
        self._seats[name] = Seat(name, process, ours, life)

    def _wait_ready(self) -> bool:
        deadline = time.monotonic() + READY_S
        for seat in self._seats.values():
            while not seat.ready.poll(0):
                found = connection.wait([seat.ready, seat.process.sentinel, self._wake], max(0.0, deadline - time.monotonic()))
                if self._stopping is not None:
                    return True
                if seat.ready not in found:
                    return self._give_up(seat)
            if not seat.has_started():
                return self._give_up(seat)
        self._announce()
        return True

    def _give_up(self, seat: Seat) -> bool:
        seat.process.join(0.1)
        late = seat.process.is_alive()
        why = f"took no requests within {READY_S:g} s" if late else f"ended before it took requests ({_how(seat.process.exitcode)})"
        logger.error("worker %s %s: giving up", seat.name, why)
        return False

    def _watch(self) -> bool:
        """Until a signal comes: whoever dies is replaced."""
        while self._stopping is None:
            connection.wait([self._wake, *(seat.process.sentinel for seat in self._seats.values())])
            for seat in list(self._seats.values()):
                if self._stopping is None and not seat.process.is_alive():
                    if not self._replace(seat):
                        return False
        return True

    def _replace(self, seat: Seat) -> bool:
        seat.process.join()
        self._early = 0 if seat.has_started() else self._early + 1
        self._note_death(seat)
        logger.warning("worker %s died (%s): it is started again", seat.name, _how(seat.process.exitcode))
        if self._early > PATIENCE:
            logger.error("workers die as soon as they are started: giving up")
            return False
        self._start(seat.name)
        return True

    def _note_death(self, seat: Seat) -> None:
        (self.folder / f"{seat.name}.sock").unlink(missing_ok=True)
        seat.ready.close()
        self._bury(seat.life)

    def _end(self) -> None:
        """Every worker ends what it is at; who does not in time is killed."""
        for seat in self._seats.values():
            if seat.process.is_alive():
                seat.process.terminate()
        deadline = time.monotonic() + self.settings.drain_seconds + GRACE_S
        for seat in self._seats.values():
            seat.process.join(max(0.0, deadline - time.monotonic()))
            if seat.process.is_alive():
                seat.process.kill()
                seat.process.join()
            self._note_death(seat)


def _how(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
