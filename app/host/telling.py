"""What is heard of a long call while it runs: how far it is, and the events of a long advance. Both come from the call's thread."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from app.host.turns import Abandoned, Call
from core import Event

if TYPE_CHECKING:
    from app.host.session import Session

PATIENCE_S: Final = 60.0  # of a kernel's thread with the event loop
READ_AT_ONCE, TURNS = 256, 4  # events that a reader takes at a time, turns of the event loop that it has for each such part
TELL_S: Final = 0.1  # how often a long call says how far it is


def teller(session: "Session") -> Callable[[list[Event]], None]:
    """For the thread of a long advance: hand events to the event loop, and wait until they are published."""
    loop = asyncio.get_running_loop()
    session.told_early = None

    async def tell(events: list[Event]) -> None:
        for at in range(0, len(events), READ_AT_ONCE):
            part = events[at : at + READ_AT_ONCE]
            first, _ = session.ring.publish(session.seq + 1, part)
            session.told_early = session.told_early or first
            session.last_event += len(part)
            for _ in range(TURNS):
                await asyncio.sleep(0)  # readers that keep up get their turn

    return lambda events: asyncio.run_coroutine_threadsafe(tell(events), loop).result(PATIENCE_S)


def watcher(session: "Session", call: Call) -> Callable[[int], None]:
    """For the thread of a long call: others have their slice, the client its progress; a call that was cancelled ends here."""
    loop, kernel, start, due = asyncio.get_running_loop(), session.kernel, session.kernel.clock_ns, time.monotonic() + TELL_S

    def watch(accesses: int) -> None:
        nonlocal due
        if call.cancelled:
            raise Abandoned
        session.threads.breathe()
        if call.unit != "operations" and (now := time.monotonic()) >= due:
            due = now + TELL_S
            done = kernel.clock_ns - start if call.unit == "ns" else accesses
            loop.call_soon_threadsafe(show, session, call, done, kernel.clock_ns)

    return watch


def show(session: "Session", call: Call, done: int, clock_ns: int) -> None:
    """How far a call is; every subscriber hears of it, and none later."""
    call.done = done
    if session.calls.under_way.get(call.id) is call:
        how_far = {"call": call.id, "op": call.op, "pid": call.pid, "done": done, "total": call.total or None, "unit": call.unit}
        session.ring.show(how_far, clock_ns)


def was_cancelled(call: Call, error: BaseException) -> bool:
    """True where work ended because its call was cancelled, whatever the kernel said to that on its way out."""
    return call.cancelled and isinstance(error, Exception | Abandoned)
