"""Random programs keep every invariant; the same program gives the same bytes; a restored snapshot goes on as the original."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from core import Kernel
from tests.properties.programs import NAMES, Program, Step, small_machine

NUMBER = st.integers(0, (1 << 16) - 1)
STEP = st.tuples(st.sampled_from(NAMES), NUMBER, NUMBER, NUMBER, NUMBER)

class RandomCalls(RuleBasedStateMachine):
    """Any operation, in any order, on a machine of 64 MiB; `verify` after each."""

    def __init__(self) -> None:
        super().__init__()
        self.program = Program()

    @rule(step=STEP)
    def call(self, step: Step) -> None:
        self.program.step(*step)

    @invariant()
    def holds(self) -> None:
        self.program.k.verify()


def test_random_calls_keep_every_invariant() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        RandomCalls, settings=settings(max_examples=60, stateful_step_count=60, suppress_health_check=list(HealthCheck), deadline=None)
    )


MACHINES = ({"memory": "64M"}, {"memory": "128M", "nodes": 2, "cpus": 2}, {"memory": "96M", "swap": "32M", "cpus": 1})
MIB = 1 << 20


def crowd(p: Program, size: int) -> None:
    """Processes that map and write `size` bytes each, fork, and write in the child: more than there is, again and again."""
    for turn in range(6):
        pid = p.pid(turn) if turn % 2 else int((p.call("spawn", comm=f"c{turn}", catch_signals=True).result or {"pid": p.pid(0)})["pid"])
        for flags in (["private", "anonymous"], ["shared", "anonymous"]):
            if pid not in p.k.tasks or p.k.tasks[pid].mm is None:
                break  # it was killed; a zombie, if its parent is one of us
            at = (p.call("mmap", pid, length=size, prot="rw", flags=flags).result or {}).get("address")
            for who in (pid, (p.call("fork", pid).result or {}).get("pid")):
                if at and who in p.k.tasks and p.k.tasks[who].mm is not None:
                    p.call("touch", who, address=at, length=size, access="write")
                    p.k.verify()


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_a_crowd_that_does_not_fit(machine: dict[str, Any]) -> None:
    """Memory is full time and again: nothing is handed out twice, nothing is lost, somebody is killed for it."""
    program = Program(small_machine(**machine))
    crowd(program, 14 * MIB)
    kills = int(program.k.read("/proc/vmstat").split(b"oom_kill ")[1].split(b"\n")[0])
    assert kills > 0
    assert kills == sum(len(row[7]) for row in program.trace)
    for pid in [pid for pid in program.k.tasks if pid != 1]:
        if pid in program.k.tasks and program.k.tasks[pid].mm is not None:
            program.call("exit", pid)
    program.k.verify()
    assert list(program.k.tasks) == [1]


@settings(max_examples=25, deadline=None)
@given(st.lists(STEP, min_size=10, max_size=40))
def test_the_same_program_gives_the_same_bytes(steps: list[Step]) -> None:
    first, second = Program(), Program()
    for step in steps:
        first.step(*step)
        second.step(*step)
    assert first.trace == second.trace
    assert [event.to_dict() for event in first.k.drain()] == [event.to_dict() for event in second.k.drain()]
    assert first.k.digest() == second.k.digest()


@settings(max_examples=25, deadline=None)
@given(st.lists(STEP, max_size=30), st.lists(STEP, max_size=15))
def test_a_restored_kernel_goes_on_as_the_original(before: list[Step], after: list[Step]) -> None:
    original = Program()
    for step in before:
        original.step(*step)
    blob = original.k.snapshot()
    restored = Program(Kernel.restore(blob))
    assert restored.k.digest() == original.k.digest()
    restored.k.verify()
    original.trace = []
    for step in after:
        original.step(*step)
        restored.step(*step)
    assert restored.trace == original.trace
    assert restored.k.digest() == original.k.digest()
