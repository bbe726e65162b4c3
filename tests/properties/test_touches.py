"""Touches in one step (`Kernel.calls`) leave the very bytes that the same calls leave one by one, and answer the same."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import Kernel
from core.kernel import Operation, Result
from tests.properties.programs import PAGE, Program, small_machine
from tests.properties.test_batches import MACHINES
from tests.properties.test_random_calls import STEP

PAGES = 700  # of a mapping: its second page table ends beyond it
MORE: tuple[dict[str, Any], ...] = ({"swap": "32M", "transparent_hugepage": "always"}, {"tlb": {"pcid": 0, "l1_4k": 8, "l1_4k_ways": 4}})
ODD = ({"length": 3 * PAGE}, {"repeat": 2}, {"order": "random"}, {"pages": [1, 0]}, {"stride": 2})  # touches that are not of one page, once
TOUCH = st.tuples(
    st.integers(0, 1), st.one_of(st.integers(0, 4), st.integers(0, PAGES + 1)), st.sampled_from(("write", "write", "read", "exec")),
    st.sampled_from((None, None, 0, 7, 255)), st.sampled_from((None,) * 12 + ODD),
)  # fmt: skip
BETWEEN = st.sampled_from(("nothing", "fork", "advance", "limit", "random call"))
PART = st.tuples(st.lists(TOUCH, min_size=1, max_size=40), BETWEEN, STEP)


class Twins:
    """A machine that makes runs, and one that makes every call by itself."""

    def __init__(self, **machine: Any) -> None:
        self.ours, self.singly = (Program(small_machine(**machine)) for _ in range(2))
        self.in_runs = 0
        self.do(lambda program: program.prepare())

    def do(self, action: Any) -> Any:
        """The same on both."""
        answers = [action(program) for program in (self.ours, self.singly)]
        assert answers[0] == answers[1]
        self.compare()
        return answers[0]

    def compare(self) -> None:
        assert self.ours.k.drain() == self.singly.k.drain()
        assert self.ours.k.clock_ns == self.singly.k.clock_ns
        assert self.ours.k.digest() == self.singly.k.digest()

    def run(self, ops: list[Operation]) -> None:
        """Operations as the service makes them, and one by one; the state is compared after each run."""
        while ops and self.ours.k.panicked is None:
            made = self.ours.k.calls(ops)
            answers = [Result.of(made, at) for at in range(len(made))] if made else [call(self.ours.k, ops[0])]
            clocks = made.clock_ns if made else [self.ours.k.clock_ns]
            self.in_runs += len(answers) if made else 0
            for op, answer, clock in zip(ops, answers, clocks, strict=False):
                assert call(self.singly.k, op) == answer
                assert self.singly.k.clock_ns == clock
            self.compare()
            ops = ops[len(answers) :]


def call(k: Kernel, op: Operation) -> Result | str:
    try:
        return k.call(op[0], op[1], **op[2])
    except LookupError as gone:
        return str(gone)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(MACHINES + MORE), st.sampled_from(("rw", "rw", "rwx", "r")), st.lists(PART, min_size=1, max_size=8))
def test_runs_of_touches(machine: dict[str, Any], prot: str, parts: Any) -> None:
    """Two processes, one in a cgroup, touch pages of a mapping, and things happen in between."""
    twins = Twins(**machine)
    pids = [twins.do(lambda p, g=group: p.call("spawn", comm="t", cgroup=g, catch_signals=True).result["pid"]) for group in ("/", "/g")]
    mapping = {"length": PAGES * PAGE, "prot": prot, "flags": ["private", "anonymous"]}
    at = [twins.do(lambda p, who=who: p.call("mmap", who, **mapping).result["address"]) for who in pids]
    for touches, between, step in parts:
        ops: list[Operation] = []
        for who, page, access, fill, odd in touches:
            args = {"address": at[who] + page * PAGE, "length": PAGE, "access": access, **(odd or {})}
            ops.append(("touch", pids[who], args if fill is None else {**args, "fill": fill}))
        twins.run(ops)
        if twins.ours.k.panicked is not None:
            return
        if between == "fork" and pids[0] in twins.ours.k.tasks:
            twins.do(lambda p: p.call("fork", pids[0]).result)
        elif between == "advance":
            twins.do(lambda p: p.call("advance", duration_ns=2_003_990_000).result)
        elif between == "limit":
            twins.do(lambda p: p.call("put", path="/sys/fs/cgroup/g/memory.max", data=b"1M").result)
        elif between == "random call":
            twins.do(lambda p, step=step: p.step(*step))
    twins.ours.k.verify()


def test_a_run_is_one_step() -> None:
    """What is plain is in it, to the first that is not."""
    twins = Twins()
    pid = twins.do(lambda p: p.call("spawn", comm="t").result["pid"])
    at = twins.do(lambda p: p.call("mmap", pid, length=64 * PAGE, prot="rw", flags=["private", "anonymous"]).result["address"])
    twins.do(lambda p: p.call("touch", pid, address=at, length=2 * PAGE, access="write").result)
    ops: list[Operation] = [("touch", pid, {"address": at + page * PAGE, "access": access}) for page in range(30) for access in ("read", "write")]
    made = twins.ours.k.calls(ops)
    assert made is not None and made.fault == [0, 0, 0, 0, 2]  # pages 0 and 1 are there; page 2 is read first, and then written: that has to copy
    for op in ops[:5]:
        twins.singly.k.call(op[0], op[1], **op[2])
    twins.compare()
    writes = [op for op in ops[6:] if op[2]["access"] == "write"]
    made = twins.ours.k.calls(writes)
    assert made is not None and len(made) == len(writes)


def test_what_may_fall_due_is_not_in_a_run() -> None:
    """The PSI averages' timer fires between two calls, as ever."""
    twins = Twins()
    pid = twins.do(lambda p: p.call("spawn", comm="t").result["pid"])
    at = twins.do(lambda p: p.call("mmap", pid, length=4 * PAGE, prot="rw", flags=["private", "anonymous"]).result["address"])
    twins.do(lambda p: p.call("touch", pid, address=at, length=PAGE, access="write").result)
    ops: list[Operation] = [("touch", pid, {"address": at})] * 100
    for _ in range(3):
        due = twins.ours.k.clock.timers[0][0]
        twins.do(lambda p, due=due: p.call("advance", duration_ns=due - 6_000 - p.k.clock_ns).result)
        twins.run(ops)
        assert twins.ours.k.clock_ns > due
    assert 200 < twins.in_runs < 300
