"""Many changes of tasks' states carried out at once are what they are one by one: the same accounts, the same leftovers."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core import Kernel, Machine
from core.record import KEPT, keep, keep_all
from core.sched import psi
from core.sched.psi import PSI_PERIOD
from core.snapshot import attributes

STATES = (0, psi.RUNNING, psi.RUNNING | psi.ONCPU, psi.IOWAIT, psi.MEMSTALL | psi.IOWAIT, psi.RUNNING | psi.ONCPU | psi.MEMSTALL)

FIGURES = ("now", "avg", "avg_total", "last_update", "next_update")

# one change: who, a step in time since his last, processor, state, cgroup
change = st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 700, 40_000, PSI_PERIOD // 3, 2 * PSI_PERIOD]), st.integers(0, 2),
                   st.sampled_from(STATES), st.integers(0, 2))  # fmt: skip
batch = st.lists(change, max_size=30)


@cache
def machine() -> Kernel:
    """A kernel with the cgroups /a and /a/b."""
    k = Kernel.boot(Machine.from_dict({"memory": "64M", "cpus": 3}))
    for path in ("/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b"):
        k.call("mkdir", path=path)
    k.drain()
    return k


def nothing_known(k: Kernel, watched: bool) -> Kernel:
    """PSI from its beginning, perhaps with somebody who watches."""
    k.psi = psi.PsiTasks()
    for group in k.cgroups.values():
        group.psi = psi.PsiGroup(k.clock.now)
    if watched:
        psi.watch(k, k.cgroups[max(k.cgroups)], 2 * psi.MEM, 50_000, 1_000_000)
    return k


def rows_of(k: Kernel, changes: list[tuple[int, int, int, int, int]], clocks: dict[int, int]) -> np.ndarray[Any, Any]:
    """Rows for `psi.task_changes`; each task has a clock of its own, as processors have."""
    groups = sorted(k.cgroups)
    rows = []
    for who, passed, cpu, state, group in changes:
        clocks[who] += passed
        rows.append((clocks[who], 900 + who, cpu, state, groups[group]))
    return np.array(rows, np.int64).reshape(-1, 5)


def accounts(k: Kernel) -> list[Any]:
    """All that PSI knows, and the events that it made."""
    cpus = [[attributes(cpu) for cpu in group.psi.cpus.values()] for group in k.cgroups.values()]
    groups = [[(name, value) for name, value in attributes(group.psi) if name in FIGURES] for group in k.cgroups.values()]
    totals = [attributes(group.psi.totals) for group in k.cgroups.values()]
    changes = [(*change[:5], change[5].path) for change in k.psi.changes]
    known = [(pid, cpu, flags, cgroup.path) for pid, (cpu, flags, cgroup) in k.psi.known.items()]
    events = [event.to_dict() for event in k.drain()]
    return deepcopy([cpus, groups, totals, changes, list(k.psi.flags.items()), known, k.psi.seq, events])


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(st.tuples(batch, st.sampled_from([0, 5_000, PSI_PERIOD])), min_size=1, max_size=4), watched=st.booleans())
def test_many_at_once(batches: list[tuple[list[tuple[int, int, int, int, int]], int]], watched: bool) -> None:
    k = machine()
    seen = []
    for at_once in (True, False):
        nothing_known(k, watched)
        clocks, seen_now = dict.fromkeys(range(3), k.clock.now), []
        for changes, ahead in batches:
            rows = rows_of(k, changes, clocks)
            if at_once:
                psi.task_changes(k, rows)
            else:
                for now, pid, cpu, state, group in rows.tolist():
                    psi.task_change(k, pid, cpu, k.cgroups[group], now, state)
            psi.settle(k, max(clocks.values()) - ahead)  # some are later than that and wait
            seen_now.append(accounts(k))
        seen.append(seen_now)
    assert seen[0] == seen[1]


@given(st.lists(st.integers(0, 700), max_size=6))
def test_records_are_kept_as_one_by_one(batches: list[int]) -> None:
    at_once: list[dict[str, Any]] = []
    singly: list[dict[str, Any]] = []
    for number, size in enumerate(batches):
        rows = [{"batch": number, "row": row} for row in range(size)]
        keep_all(at_once, rows)
        for row in rows:
            keep(singly, row)
        assert at_once == singly
        assert len(at_once) <= 2 * KEPT
