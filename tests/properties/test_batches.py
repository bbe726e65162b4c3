"""What is done to many pages at once leaves the very bytes that one page after the other leaves: frames, order of lists, counters, events.

The other way is always there: while the test knob of failing allocations counts, no batch is made (`anon_batch.may_batch`, `mmu_gather.may_gather`).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import Kernel
from core.mm.mm_types import CTL_FAIL_NTH
from tests.properties.programs import PAGE, Program, Step, small_machine
from tests.properties.test_random_calls import NUMBER, STEP

MANY = 1 << 40  # allocations: more than any program makes
MIB = 1 << 20
MACHINES: tuple[dict[str, Any], ...] = (
    {}, {"nodes": 2, "cpus": 2, "memory": "128M"}, {"reclaim_policy": "mglru"}, {"reclaim_policy": "fifo"}, {"swap": "32M"},
    {"transparent_hugepage": "always"}, {"transparent_hugepage": "never"}, {"swap": "64M", "reclaim_policy": "lru"},
)  # fmt: skip
OFTEN = ("touch", "touch", "mmap", "munmap", "fork")  # besides the other operations
STEPS = st.lists(st.one_of(STEP, st.tuples(st.sampled_from(OFTEN), NUMBER, NUMBER, NUMBER, NUMBER)), min_size=5, max_size=60)


class Pair:
    """A machine, and its twin that handles every page by itself."""

    def __init__(self, **machine: Any) -> None:
        self.ours, self.singly = (Program(small_machine(**machine)) for _ in range(2))
        self.do(lambda program: program.prepare())

    def do(self, action: Any) -> Any:
        """The same on both: the same answers, events and bytes."""
        answers = [action(self.ours)]
        with_knob(self.singly.k, lambda: answers.append(action(self.singly)))
        assert answers[0] == answers[1]
        assert self.ours.trace == self.singly.trace
        assert self.ours.k.drain() == self.singly.k.drain()
        assert self.ours.k.digest() == self.singly.k.digest()
        return answers[0]

    def call(self, op: str, pid: int | None = None, **args: Any) -> dict[str, Any]:
        return dict(self.do(lambda program: program.call(op, pid, **args).result) or {})


def with_knob(k: Kernel, action: Any) -> None:
    """An action during which allocations are counted."""
    k.s.ctl[CTL_FAIL_NTH] = MANY
    try:
        action()
    finally:
        assert k.s.ctl[CTL_FAIL_NTH] > 0, "an allocation failed for the knob"
        k.s.ctl[CTL_FAIL_NTH] = 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(MACHINES), STEPS)
def test_random_programs(machine: dict[str, Any], steps: list[Step]) -> None:
    pair = Pair(**machine)
    for step in steps:
        pair.do(lambda program, step=step: program.step(*step))
    pair.ours.k.verify()


PIECE = st.tuples(
    st.integers(0, 5_999), st.integers(1, 3_000), st.sampled_from(("write", "write", "write", "read")),
    st.sampled_from(("sequential", "reverse", "random")), st.sampled_from((1, 1, 1, 2, 3, 513)), st.sampled_from((None, 0, 7, 255)),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from((0, 0, 1, 37, 63, 64, 65, 500, 3_000)), st.sampled_from(("max", "1M", "6M")), st.booleans(), st.data())
def test_touches_of_a_mapping_in_pieces(first: int, limit: str, forked: bool, data: st.DataObject) -> None:
    """24 MiB, touched and given back in pieces in any order, so that the free lists are crumbs; in a cgroup, beside a child."""
    pair = Pair(memory="64M", swap="32M")
    pair.call("put", path="/sys/fs/cgroup/g/memory.max", data=limit.encode())
    pid = pair.call("spawn", comm="t", cgroup="/g" if limit != "max" else "/")["pid"]
    at = pair.call("mmap", pid, length=6_000 * PAGE, prot="rw", flags=["private", "anonymous"])["address"]
    if first:
        pair.call("touch", pid, address=at, length=first * PAGE, access="write")
    if forked:
        pair.call("fork", pid)
    for start, n, access, order, stride, fill in data.draw(st.lists(PIECE, min_size=1, max_size=5)):
        if pid not in pair.ours.k.tasks:
            return  # the limit was too low for it
        n = min(n, 6_000 - start)
        more = {"fill": fill} if fill is not None and access == "write" else {}
        pair.call("touch", pid, address=at + start * PAGE, length=n * PAGE, access=access, order=order, stride=stride, **more)
        if pid in pair.ours.k.tasks and data.draw(st.booleans()):
            gone = data.draw(st.integers(0, n - 1))
            pair.call("madvise", pid, address=at + (start + gone) * PAGE, length=(n - gone) * PAGE, advice="dontneed")
    if pid in pair.ours.k.tasks:
        pair.call("exit", pid)
    pair.ours.k.verify()


@pytest.mark.parametrize("machine", [{}, {"memory": "128M", "nodes": 2, "cpus": 2}, {"swap": "64M"}], ids=str)
def test_to_the_last_frame(machine: dict[str, Any]) -> None:
    """More than there is: every watermark, theft, reclaim and kill comes at the same page."""
    pair = Pair(**machine)
    for turn in range(4):
        pid = pair.call("spawn", comm=f"p{turn}", catch_signals=True)["pid"]
        at = pair.call("mmap", pid, length=40 * MIB, prot="rw", flags=["private", "anonymous", "noreserve"])["address"]
        pair.call("touch", pid, address=at, length=40 * MIB, access="write", order=("sequential", "random")[turn % 2])
    pair.ours.k.verify()
