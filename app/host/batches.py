"""Many operations in one request, within one turn of their session: a batch, in order whatever comes of each, or a transaction, all or none."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from app.errors import Problem
from app.host.outcome import Outcome, Run, carry_out, carry_out_run, is_answer, refusal
from app.host.session import INLINE_OPS, INLINE_PAGES, SLOW_NS, Session
from app.host.telling import TELL_S, show, was_cancelled, watcher
from app.host.turns import Call
from app.schemas.calls import Op
from core import Kernel

Done = Outcome | Problem | Run


async def batch(session: Session, ops: Sequence[Op], stop_on_error: bool, if_match: str | None = None) -> list[bytes]:
    """Carry out operations in order: the answer of each as JSON; an operation that cannot be carried out answers a problem in its place.

    A batch that is cancelled ends before the operation that it was at.
    """
    ops = [session.limited(op) for op in ops]
    pages = [session.check_size(op) for op in ops]
    session.used = time.time()
    if (heavy := sum(pages) > INLINE_PAGES) and ops:
        session.threads.require_room()
    async with session.calls.begin("batch", None, len(ops), "operations") as call:
        session.require_ready(len(ops), if_match)
        answers: list[bytes] = []
        told = time.monotonic()
        while len(answers) < len(ops):
            at = len(answers)
            part = ops[at : at + (1 if heavy else INLINE_OPS)]
            long = heavy and pages[at] > INLINE_PAGES
            if call.cancelled or await _part(session, part, long, stop_on_error, answers, call) or len(answers) == len(ops):
                break
            if (now := time.monotonic()) >= told + TELL_S:
                told = now
                show(session, call, len(answers), session.kernel.clock_ns)
            await asyncio.sleep(0)  # a long batch of short operations lets others be answered
        if call.cancelled and len(answers) < len(ops):
            call.stopped = True
            if not answers:
                raise call.refusal()
        return answers


async def _part(session: Session, ops: Sequence[Op], long: bool, stop: bool, answers: list[bytes], call: Call) -> bool:
    """Operations of a batch, as many as are done in a millisecond; True when the batch ends here. What was done before a bug is committed."""
    done: list[Done] = []
    long = long or any(map(session.runs_programs, ops))
    watch = watcher(session, call) if long else None

    def work() -> None:
        end = time.perf_counter_ns() + SLOW_NS
        at = 0
        while at < len(ops):
            at += _attempt(session, ops[at:], watch, done)
            if (stop and _failed(done[-1])) or time.perf_counter_ns() > end:
                return

    try:
        await session.run(f"batch {ops[0].op}", work, long, call)
    except BaseException as error:
        answers += _committed(session, done)
        if not was_cancelled(call, error):
            raise
        await session.undo_call()
        return True
    answers += _committed(session, done)
    return stop and _failed(done[-1])


def _attempt(session: Session, ops: Sequence[Op], watch: Callable[[int], None] | None, done: list[Done]) -> int:
    """Carry out the first of these operations, with those after it that are one step with it; how many."""
    try:
        session.require_running()
        if session.client is None and watch is None and (run := carry_out_run(session.kernel, ops)) is not None:
            done.append(run)
            return len(run.ops)
        done.append(carry_out(session.kernel, ops[0], None, session.client, watch))
    except Exception as error:
        if not is_answer(error):
            raise
        done.append(refusal(ops[0], error))
    return 1


def _committed(session: Session, done: Sequence[Done]) -> list[bytes]:
    answers: list[bytes] = []
    for item in done:
        if isinstance(item, Run):
            answers += session.commit_run(item)
        else:
            answers.append(orjson.dumps(item.document() if isinstance(item, Problem) else session.commit(item)))
    return answers


def _failed(item: Done) -> bool:
    return isinstance(item, Problem) or item.failed


async def transaction(session: Session, ops: Sequence[Op], if_match: str | None = None) -> list[dict[str, Any]]:
    """Carry out all operations or none: when one answers an errno the kernel is put back and a Problem with `index` is raised."""
    session.used = time.time()
    async with session.calls.begin("transaction", None, len(ops), "operations"):
        session.require_ready(len(ops), if_match)
        before = await session.run("snapshot", session.kernel.snapshot, True) if len(ops) > 1 else None
        done: list[Outcome] = []
        for index, op in enumerate(ops):
            problem = await _transact(session, op, done)
            if problem is not None:
                problem.extra["index"] = index
                await _undo(session, before, done)
                raise problem
        return [session.commit(outcome) for outcome in done]


async def _transact(session: Session, op: Op, done: list[Outcome]) -> Problem | None:
    try:
        outcome = await session.run(op.op, lambda: carry_out(session.kernel, op, client=session.client))
    except Exception as error:
        if isinstance(error, Problem) or not is_answer(error):
            raise
        return refusal(op, error)
    done.append(outcome)
    errno = outcome.result.errno
    return None if errno is None else Problem(422, "refused", f"{op.args.get('path', op.op)}: {errno}", errno=errno)


async def _undo(session: Session, before: bytes | None, done: Sequence[Outcome]) -> None:
    """Put the kernel back; a single operation that it refused changed nothing, and is kept as what it is: a call with an errno."""
    if before is not None:
        session.kernel = await session.run("restore", lambda: Kernel.restore(before), True)
        return
    for outcome in done:
        session.commit(outcome)
