"""What is kept of a session besides its journal, so that it comes back soon: now and then a snapshot, with the events since the last one.

A keeper is told whose it is each time: two that know each other would stay in memory, kernel and all, until Python next looks for circles.
"""

import asyncio
import contextvars
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from app.errors import Problem
from app.host.rebuild import pack
from app.storage import Snapshot, history

if TYPE_CHECKING:
    from app.host.session import Session

WORTH: Final = 10
SNAPSHOTS: Final = 3  # kept of a timeline, besides those with a name


class Keeper:
    """The snapshots of one session.

    Attributes
    ----------
    seq, event : int
        Where the newest snapshot and the stored events end.
    replay_ns : int
        About how long it takes to play again what came after that.
    cost_ns : int
        How long the last snapshot took to make. A large machine's takes long: it is made when it saves `WORTH` times that, not before.
    """

    def __init__(self, seq: int, event: int) -> None:
        self.seq, self.event, self.replay_ns, self.cost_ns = seq, event, 0, 0
        self._keeping: asyncio.Task[None] | None = None

    def ran(self, session: "Session", took_ns: int) -> None:
        """One operation more, which took so long: keep a snapshot when it would take long to play again what came after the last one."""
        self.replay_ns += took_ns
        many = session.seq - self.seq >= session.settings.snapshot_every
        due = many or self.replay_ns > max(session.settings.snapshot_replay, WORTH * self.cost_ns)
        if due and self._keeping is None and session.frozen is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep_in_turn(session), context=contextvars.Context())

    async def _keep_in_turn(self, session: "Session") -> None:
        try:
            async with session.turn:
                if not session.closed and session.frozen is None:
                    await self.keep(session)
        except Problem:
            pass  # later
        finally:
            self._keeping = None

    async def keep(self, session: "Session", always: bool = False) -> int:
        """Stage a snapshot, and the events since the last one; its size. Within the turn."""
        kernel, seq, last, line, lease = session.kernel, session.seq, session.last_event, session.history.line, session.history.lease
        if (seq, last) == (self.seq, self.event) and not always:
            return 0
        await session.history.settled(at_once=True)  # then the ring has its events
        retention = session.settings.event_retention
        fresh = session.ring.after(self.event, retention)

        def save() -> tuple[bytes, bytes]:
            begin = time.thread_time_ns()
            saved = kernel.snapshot(), pack(fresh) if fresh else b""
            self.cost_ns = time.thread_time_ns() - begin
            return saved

        blob, data = await session.run("keep", save, True)
        kept, oldest = Snapshot(line, seq, last, blob), last - retention

        def work(conn: Connection) -> None:
            history.keep(conn, lease, kept)
            if fresh:
                history.keep_events(conn, line, fresh[0].id, last, data)
                history.drop_events(conn, line, oldest)
            history.prune(conn, line, SNAPSHOTS)

        session.history.work(work)
        self.seq, self.event, self.replay_ns = seq, last, 0
        return len(blob)

    def went_back(self, seq: int, last_event: int) -> None:
        """The session goes on from an earlier operation."""
        self.seq, self.event = min(self.seq, seq), min(self.event, last_event)

    def behind_ns(self, session: "Session") -> int:
        """About how long it would take to play again what no snapshot has; 0 when there is nothing, or nothing that can be kept."""
        kept = (session.seq, session.last_event) == (self.seq, self.event)
        return 0 if kept or session.frozen is not None or session.closed or not session.turn.free else self.replay_ns + 1
