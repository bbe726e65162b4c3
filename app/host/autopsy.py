"""The smallest single change that would have avoided an OOM kill, found by trying it on kernels of its own.

The session is rebuilt as it was just before the operation that ended in the kill; then one knob at a time is turned and the operation is
carried out again, until the smallest value is found with which nobody is killed: with one step less somebody is. Limits of a cgroup
are turned right before the operation; the size of the machine and of its swap from the boot on, with the whole history played again.

What a knob costs is compared in bytes: the limit, the RAM or the swap that it adds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.errors import Problem
from app.host.history import Committed
from app.host.session import Session
from app.host.travel import aside, operation
from app.host.why import held
from app.schemas.calls import Op, render_op
from core import Event, Kernel, Machine

PAGE: Final = 4096
NODE_STEP: Final = 4 << 20  # a node's memory is a multiple of this
REPLAY_BUDGET_S: Final = 20.0  # about how long trials that play the whole history again may take in all
DOUBLINGS: Final = 14
UNLIMITED: Final = "max"


@dataclass(frozen=True, slots=True)
class Knob:
    """One thing that can be turned: its name, its value now, its step and its largest value in bytes, and a trial of a value."""

    name: str
    now: int
    step: int
    most: int
    kills: Callable[[int], bool]
    replays: bool  # a trial plays the whole history again


async def autopsy(session: Session, id: int) -> dict[str, Any]:
    """What would have avoided the OOM of event `id`. Raises 404 or 410 for an event that is not there, 422 for one of another type."""
    entry = held(session, id)
    if entry.event.type != "oom":
        detail = f"event {id} is a {entry.event.type}: an autopsy is made of an oom event"
        raise Problem(422, "malformed-request", detail, errors=[{"detail": detail, "pointer": "#/id"}])
    if entry.seq == 0:
        raise Problem(422, "malformed-request", f"event {id} belongs to the boot: nothing led to it that could be changed", errors=[])
    answer = await aside(session, entry.seq, lambda before, history: examine(session, entry.event, before, history))
    return {"event": entry.to_dict(), "seq": entry.seq, "op": render_op((await operation(session, entry.seq)).op)} | answer


def examine(session: Session, oom: Any, before: Kernel, history: Sequence[Committed]) -> dict[str, Any]:
    """Try every knob; the answer's `changes`, cheapest first, and what was not tried and why."""
    changes, skipped = [], []
    for knob in _knobs(session, oom, before, history):
        found, why = _search(knob)
        if found is None:
            skipped.append({"knob": knob.name, "from": knob.now, "why": why})
        else:
            changes.append(found)
    changes.sort(key=lambda change: change["extra_bytes"])
    return {"changes": changes, "smallest": changes[0] if changes else None, "without_effect": skipped}


def _knobs(session: Session, oom: Any, before: Kernel, history: Sequence[Committed]) -> list[Knob]:
    blob, last = before.snapshot(), history[-1].op
    machine = session.machine
    if oom.cgroup is not None:
        return [knob for name in ("memory.max", "memory.swap.max") if (knob := _limit(blob, before, last, oom.cgroup, name)) is not None]
    ram = Knob("machine.memory", machine.total, NODE_STEP * machine.nodes, machine.total << DOUBLINGS, _replayed(session, history, _with_ram), True)
    swap = sum(device.size for device in machine.swap)
    return [ram, Knob("machine.swap", swap, PAGE, max(swap, machine.total) * 8, _replayed(session, history, _with_swap), True)]


# ---------------------------------------------------------------- trials


def _limit(blob: bytes, before: Kernel, op: Op, cgroup: str, name: str) -> Knob | None:
    """A limit of the cgroup that ran out; None where it is not set, so that raising it changes nothing."""
    path = f"/sys/fs/cgroup{cgroup.rstrip('/')}/{name}"
    text = before.read(path).decode().strip()
    if text == UNLIMITED:
        return None

    def kills(value: int) -> bool:
        kernel = Kernel.restore(blob)
        kernel.call("put", path=path, data=str(value).encode())
        return _killed(kernel, op)

    total = before.view("memory")["zones"]
    return Knob(path, int(text), PAGE, sum(zone["managed"] for zone in total) * PAGE * 2, kills, False)


def _replayed(session: Session, history: Sequence[Committed], changed: Callable[[Machine, int], Machine]) -> Callable[[int], bool]:
    """A trial that boots another machine and plays everything again; a kill anywhere on the way counts."""

    def kills(value: int) -> bool:
        kernel = Kernel.boot(changed(session.machine, value), session.seed)
        for entry in history[:-1]:
            kernel.call(entry.op.op, entry.op.pid, **entry.op.args)
            kernel.drain()
        return _killed(kernel, history[-1].op)

    return kills


def _with_ram(machine: Machine, value: int) -> Machine:
    given = machine.to_dict()
    share = value // machine.nodes
    return Machine.from_dict(given | {"memory": [share] * machine.nodes if machine.nodes > 1 else value})


def _with_swap(machine: Machine, value: int) -> Machine:
    """The last swap device grows to make up the sum, or there is a first one."""
    devices = machine.to_dict()["swap"]
    have = sum(device["size"] for device in devices)
    if not devices:
        return Machine.from_dict(machine.to_dict() | {"swap": [{"size": max(value, 2 * PAGE)}]})
    devices[-1] = devices[-1] | {"size": devices[-1]["size"] + value - have}
    return Machine.from_dict(machine.to_dict() | {"swap": devices})


def _killed(kernel: Kernel, op: Op) -> bool:
    """Carry the operation out: did the OOM killer come?"""
    kernel.drain()
    try:
        kernel.call(op.op, op.pid, **op.args)
    except LookupError:  # the process died earlier in this history
        return True
    return any(_is_oom(event) for event in kernel.drain())


def _is_oom(event: Event) -> bool:
    return event.type == "oom"


# ---------------------------------------------------------------- the search


def _search(knob: Knob) -> tuple[dict[str, Any] | None, str]:
    """The smallest value of a knob that avoids the kill, and proof; or None and why there is none.

    Doubling steps find a value that helps, halving ones the border below it. `low` always kills, `high` never does.
    """
    trials, start = 0, time.perf_counter()

    def kills(value: int) -> bool:
        nonlocal trials
        trials += 1
        return knob.kills(value)

    low, step = knob.now, knob.step
    high = low
    while True:
        high = min(low + step, _down(knob.most, knob.step))
        if high <= low:
            return None, "no value of it alone avoids the kill"
        if not kills(high):
            break
        low, step = high, step * 2
        if knob.replays and _too_long(start, trials):
            return None, "the history is too long to be played again for every value"
    while high - low > knob.step:
        middle = low + _down((high - low) // 2, knob.step)
        if kills(middle):
            low = middle
        else:
            high = middle
    checked = [{"value": high, "kill": False}, {"value": low, "kill": True}]
    return {
        "knob": knob.name, "from": knob.now, "to": high, "extra_bytes": high - knob.now, "step": knob.step, "checked": checked, "trials": trials,
    }, ""  # fmt: skip


def _down(value: int, step: int) -> int:
    return value // step * step


def _too_long(start: float, trials: int) -> bool:
    """Would the trials still to come take too long, going by those so far?"""
    each = (time.perf_counter() - start) / trials
    return each * DOUBLINGS * 2 > REPLAY_BUDGET_S
