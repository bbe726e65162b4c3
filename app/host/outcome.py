"""One operation on a kernel, what it did, and what its caller is told of that."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, repeat
from typing import Any, Final

from app.errors import Problem
from app.host.policy_client import OURS, PolicyClient
from app.schemas.calls import Op, render_result
from core import Event, FsError, Kernel, Result, Touched


@dataclass(slots=True)
class Outcome:
    """What one operation did: the call's result and its events."""

    op: Op
    result: Result
    clock_ns: int
    events: list[Event]
    announced: bool = False  # it was stored before it was carried out
    before: "Outcome | None" = None  # an operation that made this one's outcome what it is: a client's answers

    @property
    def failed(self) -> bool:
        """True when the kernel refused it, or a signal ended it."""
        return self.result.errno is not None or self.result.signal is not None

    def answer(self, seq: int, first: int, last: int) -> dict[str, Any]:
        """What every call answers: it is number `seq`, and its events are `first` to `last`."""
        result = self.result
        answer = {
            "result": render_result(self.op.op, result.result),
            "errno": result.errno,
            "signal": result.signal,
            "fault_address": None if result.fault_address is None else f"{result.fault_address:#x}",
            "faults": {"minor": result.minor, "major": result.major},
            "killed": result.killed,
            "elapsed_ns": result.elapsed_ns,
            "clock_ns": self.clock_ns,
            "events": {"first": first, "last": last} if first <= last else None,
            "seq": seq,
        }
        if result.tlb is not None:
            answer["tlb"] = result.tlb
        return answer


@dataclass(slots=True)
class Run:
    """Touches of a page each that were made in one step, and their events: each fault has one."""

    ops: Sequence[Op]
    made: Touched
    events: list[Event]

    failed = False  # none of them can

    def last_events(self, before: int) -> list[int]:
        """The number of the last event up to and with each, where `before` came before."""
        return list(accumulate(map(bool, self.made.fault), initial=before))[1:]

    def answers(self, seq: int, ends: Sequence[int]) -> list[bytes]:
        """What each answers, as JSON (`Outcome.answer`): the first is number `seq`; `ends`, their `last_events`."""
        made = self.made
        spans: Iterable[bytes] = repeat(b"null")
        if self.events:
            spans = [b'{"first":%d,"last":%d}' % (last, last) if fault else b"null" for fault, last in zip(made.fault, ends, strict=True)]
        rows = zip(
            map(bool, made.fault), made.elapsed_ns, made.clock_ns, spans, count(seq), made.l1_hits, made.l2_hits, made.misses, made.walk_cycles,
            strict=False,
        )  # fmt: skip
        return [TOUCHED % row for row in rows]


TOUCHED: Final = (
    b'{"result":{"touched":1},"errno":null,"signal":null,"fault_address":null,"faults":{"minor":%d,"major":0},"killed":[],'
    b'"elapsed_ns":%d,"clock_ns":%d,"events":%b,"seq":%d,'
    b'"tlb":{"accesses":1,"l1_hits":%d,"l2_hits":%d,"misses":%d,"walk_cycles":%d}}'
)


def carry_out_run(kernel: Kernel, ops: Sequence[Op]) -> Run | None:
    """Carry out the first of these operations in one step, if they are such."""
    made = kernel.calls(ops)
    return None if made is None else Run(ops[: len(made)], made, kernel.drain())


def carry_out(
    kernel: Kernel,
    op: Op,
    publish: Callable[[list[Event]], None] | None = None,
    client: PolicyClient | None = None,
    watch: Callable[[int], None] | None = None,
) -> Outcome:
    """Run one operation on a kernel. Raises LookupError for a pid that names no living process.

    `publish` gets the events of a long advance in parts, while it runs and at its end. A `client` that is the policy is asked
    first, and its answers are an operation before this one. `watch` is told in the midst of long work how many accesses were made.
    """
    before = None
    if client is not None and op.op not in OURS and (answers := client.rehearse(kernel, op)):
        before = carry_out(kernel, Op("policy_answers", None, {"answers": list(answers)}))
    if publish is not None:
        kernel.pause = lambda: publish(kernel.drain())
    kernel.watch = watch
    try:
        result = kernel.call(op.op, op.pid, **op.args)
        if publish is not None:
            publish(kernel.drain())  # the end may bring more at once than the ring holds
    finally:
        kernel.pause = kernel.watch = None
    return Outcome(op, result, kernel.clock_ns, kernel.drain(), False, before)


def is_answer(error: BaseException) -> bool:
    """True for what the core says to a client; anything else that it raises is our bug."""
    return isinstance(error, FsError | Problem) or (isinstance(error, LookupError) and not isinstance(error, KeyError | IndexError))


def refusal(op: Op, error: Exception) -> Problem:
    """What the core said, as a problem document."""
    if isinstance(error, Problem):
        return error
    return Problem(422, "refused", str(error), errno=error.errno) if isinstance(error, FsError) else no_such_process(op.pid, error)


def no_such_process(pid: int | None, error: Exception) -> Problem:
    """The 404 for a pid that names no living process."""
    return Problem(404, "no-such-process", str(error.args[0]) if error.args else f"there is no process {pid}", errno="ESRCH")
