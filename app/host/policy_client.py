"""Be the policy: a program on a websocket says which pages reclaim takes.

The session's kernel never waits for it. While a program is attached each operation is rehearsed on a twin of the kernel, which asks; then
its answers are journaled (`policy_answers`) and the operation is carried out for good with them. A program that is late, answers nonsense or
goes away is replaced by the fallback for that question, and the score says so.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from app.schemas.calls import Op
from core import Advisor, Kernel

BUILT_IN: Final = ("fifo", "clock", "random", "lru", "classic", "mglru")
COUNTED: Final = ("pgmajfault", "pswpin", "pswpout", "pgsteal_anon", "pgsteal_file", "workingset_refault_file", "oom_kill")
OURS: Final = frozenset({"policy_answers", "reclaim_policy"})


class PolicyClient:
    """The program: questions go out by `questions`, answers come in by `answer`.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Where its websocket is served.
    budget : float
        Seconds that one question may take.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, budget: float) -> None:
        self.advisor = Advisor(self._ask)
        self.questions: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.start: tuple[int, bytes] = (0, b"")  # the journal's length and the kernel when it took over
        self.idle: Callable[[], AbstractContextManager[None]] = nullcontext  # what a thread waits in
        self._loop, self._budget = loop, budget
        self._numbers = itertools.count(1)
        self._waiting: tuple[int, Future[list[int] | None]] | None = None
        self._gone = False

    def _ask(self, question: dict[str, Any]) -> list[int] | None:
        """Called on a kernel's thread: wait for the answer as long as the budget lasts."""
        if self._gone:
            return None
        number = next(self._numbers)
        waiting: Future[list[int] | None] = Future()
        self._waiting = (number, waiting)
        self._loop.call_soon_threadsafe(self.questions.put_nowait, {"type": "isolate", "id": number, **question})
        try:
            with self.idle():
                return waiting.result(self._budget)
        except TimeoutError:
            return None
        finally:
            self._waiting = None

    def answer(self, number: int, pages: list[int]) -> bool:
        """The program's answer; False where nobody waits for it (any more)."""
        waiting = self._waiting
        if waiting is None or waiting[0] != number or waiting[1].done():
            return False
        waiting[1].set_result(pages)
        return True

    def leave(self) -> None:
        """The program is gone: whoever waits for it need not."""
        self._gone = True
        if (waiting := self._waiting) is not None and not waiting[1].done():
            waiting[1].set_result(None)

    def rehearse(self, kernel: Kernel, op: Op) -> list[int]:
        """Carry the operation out on a twin that asks the program: its answers. Raises what the operation raises."""
        twin = Kernel.restore(kernel.snapshot())
        twin.call("policy_answers", answers=[])
        self.advisor.given = []
        twin.advisor = self.advisor
        twin.call(op.op, op.pid, **op.args)
        return self.advisor.given


def counters(kernel: Kernel) -> dict[str, int]:
    """What a policy is judged by."""
    rows = (line.split() for line in kernel.read("/proc/vmstat").decode().splitlines())
    found = {name: int(value) for name, value in rows if name in COUNTED}
    return {name: found.get(name, 0) for name in COUNTED} | {"clock_ns": kernel.clock_ns}


def differences(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What came to the counters."""
    return {name: after[name] - before[name] for name in after}


def score(client: PolicyClient, kernel: Kernel, ops: Sequence[Op]) -> dict[str, Any]:
    """The program beside the built-ins: each runs the same operations from the moment when the program took over."""
    blob = client.start[1]
    before = counters(Kernel.restore(blob))
    rows = {"client": differences(counters(kernel), before)}
    for name in BUILT_IN:
        other = Kernel.restore(blob)
        other.call("reclaim_policy", policy=name)
        for op in ops:
            if op.op not in OURS:
                try:
                    other.call(op.op, op.pid, **op.args)
                except LookupError:
                    continue  # under this policy the process is gone already
        rows[name] = differences(counters(other), before)
    return {"type": "score", "operations": sum(op.op not in OURS for op in ops), "policies": rows, **client.advisor.score}
