"""Why an event happened: the chain of its causes, back to a request or to a daemon whose time had come.

Every event names the event that it follows from, and a cause always comes before what follows from it, so the chain is walked
backwards through the session's ring and ends. Where it ends stands the operation during which it began, from the journal.
"""

from typing import Any, Final

from app.errors import Problem
from app.host.ring import Entry
from app.host.session import Session
from app.host.travel import operation
from app.schemas.calls import render_op
from core import says

BOOT: Final = {"kind": "boot", "says": "the machine was booted"}


async def why(session: Session, id: int) -> dict[str, Any]:
    """An event, what led to it (nearest first) and the root of it all. Raises 404 for no such event, 410 for one that is gone."""
    entry = held(session, id)
    chain: list[Entry] = []
    at, complete = entry, True
    while at.event.cause is not None:
        cause = session.ring.find(at.event.cause)
        if cause is None:
            complete = False
            break
        chain.append(cause)
        at = cause
    return {
        "event": _shown(entry),
        "causes": [_shown(one) for one in chain],
        "root": await _root(session, at) if complete else None,
        "complete": complete,
    }


def held(session: Session, id: int) -> Entry:
    """The event of that number. Raises 404 for one that never was, 410 for one that is no longer kept."""
    entry = session.ring.find(id)
    if entry is not None:
        return entry
    oldest, last = session.ring.oldest, session.ring.last
    if 0 < id < oldest:
        raise Problem(410, "cursor-expired", f"event {id} is gone: this session keeps {oldest} to {last}", oldest=oldest, last=last)
    raise Problem(404, "no-such-event", f"there is no event {id}: this session keeps {oldest} to {last}")


def _shown(entry: Entry) -> dict[str, Any]:
    return entry.to_dict() | {"says": says(entry.event)}


async def _root(session: Session, first: Entry) -> dict[str, Any]:
    """What set the kernel to work: a daemon's timer, a request, or the boot."""
    if first.seq == 0:
        return BOOT
    op = render_op((await operation(session, first.seq)).op)
    root = {"seq": first.seq, "op": op}
    if first.event.timer is not None:
        text = f"the time of {first.event.timer} had come, during operation {first.seq} ({op['op']})"
        return {"kind": "timer", "timer": first.event.timer, "says": text} | root
    who = "" if op.get("pid") is None else f" of process {op['pid']}"
    return {"kind": "request", "says": f"operation {first.seq}: {op['op']}{who}"} | root
