"""The scheduler: who gets which processor, for how long, and what the files say about it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from core import parse_program
from core.sched import fair
from tests.peer.box import Box

SECOND = 1_000_000_000
MS = 1_000_000
BUSY = [{"op": "loop", "steps": [{"op": "compute", "time": "10ms"}]}]


def start(box: Box, steps: Any = BUSY, **args: Any) -> int:
    return box.spawn("p", program=parse_program(steps), **args)


def advance(box: Box, ns: int = SECOND) -> None:
    assert box.kernel.call("advance", duration_ns=ns).errno is None
    box.kernel.verify()


def used(box: Box, pid: int) -> float:
    """CPU time in seconds."""
    seen = box.kernel.view("process", pid=pid)
    return float(seen["utime_ns"] + seen["stime_ns"]) / SECOND


SLICES = [(1, 1, 6.0), (1, 2, 3.0), (1, 100, 0.75), (2, 2, 6.0), (2, 10, 1.5), (4, 4, 4.5), (8, 2, 12.0), (64, 2, 12.0)]


@pytest.mark.parametrize(("cpus", "tasks", "ms"), SLICES)
def test_slices_share_a_period(cpus: int, tasks: int, ms: float) -> None:
    """6 ms times 1 + log2 of the processors, shared; 0.75 ms times that at least (sched_slice, 6.1's defaults)."""
    box = Box(memory="96M", cpus=cpus)
    assert fair.sched_slice(box.kernel, tasks) == ms * MS


@pytest.mark.parametrize(("cpus", "tasks"), [(1, 1), (1, 2), (1, 5), (2, 2), (2, 4), (4, 3)])
def test_equal_tasks_get_equal_shares(cpus: int, tasks: int) -> None:
    box = Box(memory="96M", cpus=cpus)
    pids = [start(box) for _ in range(tasks)]
    advance(box, 2 * SECOND)
    share = 2 * min(1.0, cpus / tasks)
    assert [used(box, pid) for pid in pids] == [pytest.approx(share, abs=0.03)] * tasks


def test_three_tasks_on_two_processors_use_both_of_them() -> None:
    box = Box(memory="96M")
    pids = [start(box) for _ in range(3)]
    advance(box, 2 * SECOND)
    assert sum(used(box, pid) for pid in pids) == pytest.approx(4, abs=0.03)  # a slice or two are on their way
    assert all(used(box, pid) > 0.9 for pid in pids)


def test_who_sleeps_gets_the_processor_when_he_wants_it() -> None:
    """Half of a processor's time is asked for in bits of 5 ms: three who compute all the time leave it to him."""
    box = Box(memory="96M", cpus=1)
    others = [start(box) for _ in range(3)]
    sleeper = start(box, [{"op": "loop", "steps": [{"op": "compute", "time": "1ms"}, {"op": "sleep", "time": "9ms"}]}])
    advance(box, 5 * SECOND)
    steps = box.kernel.view("process", pid=sleeper)["program"]["steps_begun"]
    assert steps > 3 * 150
    assert used(box, sleeper) > 0.15
    assert all(used(box, pid) > 1.3 for pid in others)


def test_affinity_is_obeyed() -> None:
    box = Box(memory="96M", cpus=2)
    pids = [start(box) for _ in range(2)]
    for pid in pids:
        box.ok(pid, "sched_setaffinity", cpus=[1])
    before = [used(box, pid) for pid in pids]
    advance(box)
    assert [box.kernel.view("process", pid=pid)["cpu"] for pid in pids] == [1, 1]
    assert [used(box, pid) - was for pid, was in zip(pids, before, strict=True)] == [pytest.approx(0.5, abs=0.03)] * 2


def test_a_disk_leaves_its_processor_to_others() -> None:
    """Reads of 8 ms each beside a task that computes: both get what they want of one processor, and iowait is what nobody used."""
    box = Box(memory="96M", cpus=1, storage={"kind": "disk"})
    read = {"op": "read", "path": "/data/f", "length": "64K", "order": "random"}
    reader = [{"op": "file", "path": "/data/f", "size": "64M"}, {"op": "loop", "steps": [read]}]
    first = start(box, reader)
    advance(box)
    state = box.text(f"/proc/{first}/stat").split()[2]
    assert state == "D"
    cpu = [int(x) for x in re.search(r"cpu +(.*)", box.text("/proc/stat"))[1].split()]  # type: ignore[index]
    assert cpu[4] >= 95  # iowait: nearly all of the second
    busy = start(box)
    advance(box, 2 * SECOND)
    assert used(box, busy) > 1.9
    assert re.search(r"avg10=(\S+)", box.text("/proc/pressure/io"))[1] != "0.00"  # type: ignore[index]
    assert "procs_blocked 1" in box.text("/proc/stat")


def test_processors_account_for_their_time() -> None:
    box = Box(memory="96M")
    pids = [start(box) for _ in range(3)]
    advance(box, 3 * SECOND)
    rows = re.findall(r"^cpu(\d) (.*)$", box.text("/proc/stat"), re.M)
    uptime = float(box.text("/proc/uptime").split()[0])
    for _, row in rows:
        assert sum(map(int, row.split())) == pytest.approx(uptime * 100, abs=4)
    user = sum(int(row.split()[0]) for _, row in rows)
    ticks = [int(box.text(f"/proc/{pid}/stat").split()[13]) for pid in pids]
    assert sum(ticks) == pytest.approx(user, abs=4)
    assert int(re.search(r"ctxt (\d+)", box.text("/proc/stat"))[1]) > 100  # type: ignore[index]


def test_load_and_pressure_of_processors() -> None:
    """Three want two processors: one of them always waits. The load goes towards 3 with a time constant of a minute."""
    box = Box(memory="96M")
    for _ in range(3):
        start(box)
    advance(box, 60 * SECOND)
    one, five, fifteen = (float(x) for x in box.text("/proc/loadavg").split()[:3])
    assert 1.7 < one < 2.1
    assert one > five > fifteen > 0
    assert box.text("/proc/loadavg").split()[3].startswith("3/")
    some, full = box.text("/proc/pressure/cpu").splitlines()
    assert 40 < float(re.search(r"avg10=(\S+)", some)[1]) <= 100  # type: ignore[index]
    assert full == "full avg10=0.00 avg60=0.00 avg300=0.00 total=0"


def test_a_group_waits_for_a_processor_that_others_have() -> None:
    box = Box(memory="96M", cpus=1)
    box.cgroup("/a")
    box.cgroup("/b")
    start(box, cgroup="/a")
    start(box, cgroup="/b")
    advance(box, 4 * SECOND)
    for group in ("a", "b"):
        some, full = (int(re.search(r"total=(\d+)", line)[1]) for line in box.text(f"/sys/fs/cgroup/{group}/cpu.pressure").splitlines())  # type: ignore[index]
        assert some == full == pytest.approx(2_000_000, abs=60_000)


def test_kswapd_has_a_processor_of_its_own() -> None:
    """A reader that fills memory: kswapd makes room on the other processor, and the reader seldom has to."""
    box = Box(memory="128M", swap="0")
    steps = [{"op": "file", "path": "/data/f", "size": "512M"}, {"op": "loop", "steps": [{"op": "read", "path": "/data/f", "length": "1M"}]}]
    pid = start(box, steps)
    box.ok(pid, "sched_setaffinity", cpus=[0])
    advance(box)
    stat = dict(line.split() for line in box.text("/proc/vmstat").splitlines())
    assert int(stat["pgsteal_kswapd"]) > 1000
    assert int(stat["pgsteal_direct"]) * 4 < int(stat["pgsteal_kswapd"])
    assert box.kernel.kswapd[0]["time_ns"] > 0
    assert box.kernel.rqs[1].system_ns >= box.kernel.kswapd[0]["time_ns"] * 9 // 10
