"""Time travel: named states, going back, and looks at the past and at what changed between two moments.

A session is its machine, its seed and its operations, so each of its moments can be built again: from the newest snapshot before it, and the
operations between. Looks at the past do that on a kernel of their own; the session goes on meanwhile.
"""

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

from app.errors import Problem
from app.host.history import Committed
from app.host.rebuild import ring_entries
from app.host.session import Named, Session
from app.storage import history
from core import FsError, Kernel

T = TypeVar("T")

COUNTERS: Final = ("/proc/vmstat", "/proc/meminfo", "/proc/loadavg")
FILES: Final = ("/proc/buddyinfo", "/proc/swaps", "/proc/pressure/memory", "/proc/pressure/io", "/proc/pressure/cpu")
OF_PROCESS: Final = ("maps", "smaps_rollup", "oom_score")
OF_CGROUP: Final = (
    "memory.current", "memory.peak", "memory.min", "memory.low", "memory.high", "memory.max", "memory.swap.current", "memory.swap.max",
    "memory.events", "memory.stat", "cgroup.procs", "pids.current",
)  # fmt: skip
MOUNT: Final = "/sys/fs/cgroup"


async def name_state(session: Session, name: str) -> Named:
    """Name the present state. Raises 409 when there are too many or the name is taken."""
    async with session.turn:
        session.require_sound()
        if name in session.names:
            raise Problem(409, "name-taken", f"there is a snapshot named {name!r} already: choose another name or delete it")
        if len(session.names) >= session.settings.max_snapshots:
            raise Problem(409, "too-many-snapshots", f"a session keeps at most {session.settings.max_snapshots} snapshots: delete one")
        kernel = session.kernel
        digest = await session.run("digest", kernel.digest, True)
        size = await session.keeper.keep(session, always=True)
        lease = session.history.lease
        named = Named(name, session.history.line, session.seq, session.epoch, kernel.clock_ns, digest, size, time.time())
        row = {field: getattr(named, field) for field in Named.__dataclass_fields__}
        session.history.work(lambda conn: history.name(conn, lease, row))
        session.names[name] = named
        return named


def forget_name(session: Session, name: str) -> None:
    """Forget a named state. Raises a 404."""
    if session.names.pop(name, None) is None:
        raise Problem(404, "no-such-snapshot", f"there is no snapshot named {name[:60]!r}")
    session.history.work(lambda conn: history.unname(conn, session.id, name))


async def rewind(session: Session, seq: int | None, name: str | None, if_match: str | None = None) -> None:
    """Go back to an operation's number, or to a named state. Raises 404 or 422 when there is no such state."""
    async with session.turn:
        if session.closed:
            session.require_sound()
        session.require_match(if_match)
        line, at = _place(session, seq, name)
        session.frozen = None
        found = await session.state_at(line, at)
        elsewhere = line != session.history.line
        session.kernel, session.panicked, session.clock_ns = found.kernel, found.kernel.panicked, found.kernel.clock_ns
        session.go_back(line, at, found.last_event)
        if session.panicked is not None:
            session.change(panicked=session.panicked)
        if found.differs is not None:
            session.differ(found.differs)
        elif session.differs is not None and at < orjson.loads(session.differs)["seq"]:
            session.differs = None
            session.change(differs=None)
        if elsewhere:  # what the ring holds may be of another past
            stored = await session.history.read(lambda conn: history.stored_events(conn, line, at))
            session.ring.refill(ring_entries(stored, found, session.settings.event_retention), found.last_event)


def _place(session: Session, seq: int | None, name: str | None) -> tuple[int, int]:
    if name is not None:
        if name not in session.names:
            raise Problem(404, "no-such-snapshot", f"there is no snapshot named {name!r}: there are {', '.join(session.names) or 'none'}")
        return session.names[name].line, session.names[name].seq
    return session.history.line, require_past(session, seq, "seq")


def require_past(session: Session, seq: int | None, member: str) -> int:
    """A number that the session has been at. Raises a 422."""
    if seq is None or not 0 <= seq <= session.seq:
        raise Problem(422, "malformed-request", f"{member}: the session is at {session.seq}, it can go back to 0 .. {session.seq}", errors=[])
    return seq


async def operation(session: Session, seq: int) -> Committed:
    """The committed operation of that number, from 1."""
    return (await session.history.committed(seq - 1, seq))[0]


async def aside(session: Session, seq: int, work: Callable[[Kernel, Sequence[Committed]], T]) -> T:
    """Work on a kernel of its own, as the session's was before operation `seq`, given the operations up to it; the session goes on."""
    session.require_sound()
    line = session.history.line
    found = await session.state_at(line, seq - 1)
    ops = await session.history.committed(0, seq)
    return await session.in_thread(lambda: work(found.kernel, ops))


async def look(session: Session, seq: int, work: Callable[[Kernel], T]) -> T:
    """Look at the session as it was after operation `seq`, which is in its past. Raises a 422."""
    require_past(session, seq, "seq")
    if seq == session.seq:
        return await session.read("look", work, True)
    found = await session.state_at(session.history.line, seq)
    return await session.in_thread(lambda: work(found.kernel))


# ---------------------------------------------------------------- what changed


async def difference(session: Session, before: int, after: int) -> dict[str, Any]:
    """What the operations between two numbers changed: counters with both values, files with the lines that differ."""
    first = await look(session, before, _seen)
    second = await look(session, after, _seen)
    return {
        "from": before,
        "to": after,
        "clock_ns": {"from": first[0], "to": second[0]},
        "counters": _counters(first[1], second[1]),
        "files": _files(first[2], second[2]),
    }


def _seen(kernel: Kernel) -> tuple[int, dict[str, dict[str, str]], dict[str, str]]:
    """The clock, the counters by file, and the text files that tell a state."""
    counters = {path: _pairs(text) for path in COUNTERS if (text := _text(kernel, path)) is not None}
    paths = [*FILES, *(f"/proc/{row['pid']}/{name}" for row in kernel.view("processes") for name in OF_PROCESS)]
    paths += [f"{MOUNT}{group.rstrip('/')}/{name}" for group in _cgroups(kernel.view("cgroups")) for name in OF_CGROUP]
    return kernel.clock_ns, counters, {path: text for path in paths if (text := _text(kernel, path)) is not None}


def _cgroups(view: Mapping[str, Any]) -> list[str]:
    found = [str(view["path"])]
    for child in view.get("children", ()):
        found += _cgroups(child)
    return found


def _text(kernel: Kernel, path: str) -> str | None:
    try:
        return kernel.read(path).decode(errors="replace")
    except (FsError, LookupError):
        return None


def _pairs(text: str) -> dict[str, str]:
    rows = (line.replace(":", " ").split(None, 1) for line in text.splitlines())
    return {row[0]: " ".join(row[1].split()) for row in rows if len(row) == 2}


def _counters(first: Mapping[str, Mapping[str, str]], second: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    found = []
    for path in second:
        for name, now in second[path].items():
            was = first.get(path, {}).get(name)
            if was != now:
                found.append({"file": path, "name": name, "before": was, "after": now})
    return found


def _files(first: Mapping[str, str], second: Mapping[str, str]) -> list[dict[str, Any]]:
    found = []
    for path in sorted(first.keys() | second.keys()):
        was, now = first.get(path), second.get(path)
        if was != now:
            change = "appeared" if was is None else "vanished" if now is None else "changed"
            lines = difflib.unified_diff((was or "").splitlines(), (now or "").splitlines(), "before", "after", lineterm="", n=0)
            found.append({"path": path, "change": change, "diff": "".join(f"{line}\n" for line in list(lines)[2:])})
    return found
