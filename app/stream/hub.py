"""Subscriptions: a cursor into a session's ring, a filter, and what the reader must be told when it missed something.

Every event is encoded once, whoever reads it. A reader that falls behind the ring is told `gap {from, to}`; a reader whose filter hides
much is told `bookmark`, so that it can resume near the present; a reader of a session that went back in time is told a gap with reason
`rewind`. A reader at the present is told `progress` of a long call, which has the id of the last event that the reader knows.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import orjson

from app.errors import Problem
from app.host.ring import Entry, array
from app.host.session import Session
from app.schemas.events import BATCH
from core import EVENTS

NEVER: Final = 1 << 62
CONTROL: Final = frozenset({"gap", "bookmark", "progress", "end"})


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a reader wants; None means every one."""

    types: frozenset[str] | None = None
    pid: int | None = None
    cgroup: str | None = None

    @property
    def passes_all(self) -> bool:
        """True when nothing is hidden."""
        return self.types is None and self.pid is None and self.cgroup is None

    def matches(self, entry: Entry) -> bool:
        """True for an event that the reader wants."""
        event = entry.event
        if self.types is not None and event.type not in self.types:
            return False
        if self.pid is not None and getattr(event, "pid", None) != self.pid:
            return False
        return self.cgroup is None or _inside(getattr(event, "cgroup", None), self.cgroup)


def _inside(cgroup: str | None, tree: str) -> bool:
    return cgroup is not None and (cgroup == tree or tree == "/" or cgroup.startswith(tree + "/"))


def parse_types(text: str | None) -> frozenset[str] | None:
    """The event types of a comma-separated list. Raises a 422 that names what there is."""
    if text is None:
        return None
    types = frozenset(word.strip() for word in text.split(","))
    unknown = sorted(types - EVENTS.keys() - CONTROL)
    if unknown or not types:
        detail = f"types: there are no events of type {', '.join(map(repr, unknown))[:200]}: there are {', '.join(sorted(EVENTS))}"
        raise Problem(422, "malformed-request", detail, errors=[{"detail": detail, "pointer": "#/types"}])
    return types


def cursor(session: Session, after: int | None) -> int:
    """Where a reader begins: after an event, or at the present. Raises 410 for what is no longer, or not yet, there."""
    ring = session.ring
    if after is None:
        return ring.last
    state: Mapping[str, Any] = {"oldest": ring.oldest, "last": ring.last, "seq": session.seq}
    if after < ring.oldest - 1:
        raise Problem(
            410,
            "cursor-expired",
            f"events up to {ring.oldest - 1} are gone: read the session's state again, then follow it after {ring.last}",
            **state,
        )
    if after > ring.last:
        raise Problem(410, "cursor-ahead", f"the session is at event {ring.last}, it may have gone back in time: read its state again", **state)
    return after


@dataclass(frozen=True, slots=True)
class Control:
    """What is sent to a reader beside events: the number to resume after, and its JSON."""

    id: int
    data: bytes


Message = Entry | Control  # either has `id` and `data`


class Subscription:
    """One reader of one session.

    Parameters
    ----------
    session : Session
        Whose events.
    wanted : Filter
        Which of them.
    after : int
        The number of the last event the reader knows.
    progress : bool
        Whether to tell how far long calls are.
    """

    def __init__(self, session: Session, wanted: Filter, after: int, progress: bool = True) -> None:
        self.session, self.filter = session, wanted
        self._ring = session.ring
        self._cursor = self._told = after
        self._generation = self._ring.generation
        self._shown = self._ring.nr_shown if progress else NEVER
        self.ended = False

    def end(self) -> None:
        """Tell nothing more: the reader has lost his right to it."""
        self.ended = True
        self._ring.nudge()

    @property
    def over(self) -> bool:
        """True when nothing more is told."""
        return self.ended or self._ring.closed

    async def batches(self, heartbeat: float, size: int = 1) -> AsyncIterator[list[Message]]:
        """Messages as they come, some at a time; an empty list after `heartbeat` seconds of silence. Ends with the session.

        Readers that want arrays of `size` come to want the same ones, wherever they began: arrays end at numbers that are multiples of it.
        """
        most = BATCH // size * size
        while not self.over:
            if await self.arrived(heartbeat):
                messages = [] if self.ended else self.take(most - self._cursor % size)
                if messages:
                    yield messages
            else:
                yield self.bookmark() if self._told != self._cursor else []

    @property
    def position(self) -> int:
        """The number of the last event that was looked at."""
        return self._cursor

    @property
    def lag(self) -> int:
        """Events that happened and were not looked at yet."""
        return max(self._ring.last - self._cursor, 0)

    @property
    def behind(self) -> bool:
        """True when there is something to tell."""
        return self._cursor < self._ring.last or self._generation != self._ring.generation

    async def arrived(self, timeout: float) -> bool:
        """Wait until there is something to tell; False when `timeout` seconds passed first."""
        return await self._ring.wait(self._cursor, self._generation, self._shown, timeout)

    def take(self, limit: int = BATCH) -> list[Message]:
        """What can be told now of the next `limit` events; never waits."""
        messages: list[Message] = [self._gap("rewind")] if self._generation != self._ring.generation else []
        if self._cursor < self._ring.oldest - 1:
            messages.append(self._gap("slow"))
        entries = self._ring.after(self._cursor, min(limit, BATCH))
        if entries:
            self._cursor = entries[-1].id
        wanted = entries if self.filter.passes_all else [entry for entry in entries if self.filter.matches(entry)]
        messages += wanted
        if messages:
            self._told = messages[-1].id
        if self._cursor - self._told >= BATCH:
            messages += self.bookmark()
        if self._shown < self._ring.nr_shown and self._cursor >= self._ring.last:
            messages += self._progress()
        return messages

    def arrays(self, messages: list[Message], size: int) -> list[str]:
        """What was taken, as JSON arrays of at most `size`; readers from whom nothing is hidden share them."""
        first, last = messages[0], messages[-1]
        if not (self.filter.passes_all and isinstance(first, Entry) and isinstance(last, Entry)):  # what is told beside events comes before or after
            return [array(messages[start : start + size]) for start in range(0, len(messages), size)]
        bounds = [0, *range(size - (first.id - 1) % size, len(messages), size), len(messages)]
        return [self._ring.arrays.of(messages[start:end]) for start, end in pairwise(bounds)]  # type: ignore[arg-type]

    def _progress(self) -> list[Message]:
        """How far a long call is, for those who want to know."""
        self._shown, shown, wanted = self._ring.nr_shown, self._ring.shown, self.filter
        asked = "progress" in wanted.types if wanted.types is not None else wanted.cgroup is None
        if not asked or (wanted.pid is not None and wanted.pid != shown["pid"]):
            return []
        return [Control(self._cursor, orjson.dumps({"id": self._cursor, "seq": self.session.seq, **shown}))]

    def _gap(self, reason: str) -> Control:
        """Tell what was missed, and go on from where the ring is."""
        ring = self._ring
        if reason == "rewind":
            first, last = min(self._cursor, ring.last) + 1, max(self._cursor, ring.last)
            self._cursor, self._generation = ring.last, ring.generation
        else:
            first, last = self._cursor + 1, ring.oldest - 1
            self._cursor = last
        return self._control("gap", {"from": first, "to": last, "reason": reason})

    def bookmark(self) -> list[Message]:
        """Nothing to tell up to where the reader is; resume after it."""
        self._told = self._cursor
        return [self._control("bookmark", {})]

    def farewell(self, reason: str) -> Control:
        """Why nothing more is told."""
        return self._control("end", {"reason": reason})

    def _control(self, kind: str, members: Mapping[str, Any]) -> Control:
        head = {"id": self._cursor, "seq": self.session.seq, "clock_ns": self.session.kernel.clock_ns, "type": kind}
        return Control(self._cursor, orjson.dumps(head | dict(members)))
