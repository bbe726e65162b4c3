"""vmstat's lines and the OOM table."""

from __future__ import annotations

from typing import Any

import pytest

from core import Kernel, parse_program, vmstat_text
from core.monitor import KEPT
from tests.peer.box import Box, M

SECOND = 1_000_000_000
COLUMNS = ["r", "b", "swpd", "free", "buff", "cache", "si", "so", "bi", "bo", "in", "cs", "us", "sy", "id", "wa", "st"]


def start(box: Box, steps: Any, **args: Any) -> int:
    return box.spawn("p", program=parse_program(steps), **args)


def advance(box: Box, seconds: int = 1) -> None:
    assert box.kernel.call("advance", duration_ns=seconds * SECOND).errno is None


def lines(box: Box) -> list[dict[str, Any]]:
    return [event.to_dict() for event in box.kernel.drain() if event.type == "vmstat"]


def test_a_line_a_second_while_programs_run() -> None:
    box = Box(memory="96M")
    advance(box, 3)
    assert lines(box) == []
    start(box, [{"op": "loop", "times": 150, "steps": [{"op": "compute", "time": "10ms"}, {"op": "sleep", "time": "10ms"}]}])
    advance(box, 6)
    told = lines(box)
    assert [row["clock_ns"] % SECOND for row in told] == [0] * len(told)
    assert len(told) in (3, 4)  # it runs for three seconds
    assert list(told[0]["columns"]) == COLUMNS
    assert told[1]["columns"]["us"] == 25  # half of one of two processors
    assert told[1]["columns"]["us"] + told[1]["columns"]["sy"] + told[1]["columns"]["id"] + told[1]["columns"]["wa"] in (99, 100, 101)
    assert 45 <= told[1]["columns"]["cs"] <= 110


def test_the_interval_can_be_set() -> None:
    box = Box(memory="96M")
    box.kernel.call("vmstat", interval=SECOND // 2)
    advance(box, 2)
    assert len(lines(box)) == 4
    box.kernel.call("vmstat", interval=0)
    start(box, [{"op": "sleep", "time": "1h"}])
    advance(box, 3)
    assert lines(box) == []
    box.kernel.call("vmstat")
    advance(box, 2)
    assert len(lines(box)) == 2


def test_columns_are_rates_of_the_counters() -> None:
    """A reader of 8 MiB/s: bi is what /proc/vmstat's pgpgin grew by."""
    box = Box(memory="128M")
    step = {"op": "read", "path": "/data/f", "length": "1M"}
    pid = start(box, [{"op": "file", "path": "/data/f", "size": "64M"}, {"op": "loop", "steps": [step, {"op": "sleep", "time": "125ms"}]}])
    advance(box, 1)
    before = int(box.text("/proc/vmstat").split("pgpgin ")[1].split()[0])
    box.kernel.drain()
    advance(box, 4)
    read = int(box.text("/proc/vmstat").split("pgpgin ")[1].split()[0]) - before
    told = lines(box)
    assert len(told) == 4
    assert sum(row["columns"]["bi"] for row in told) == pytest.approx(read, abs=2 * 1024)
    assert told[-1]["columns"]["in"] > 0
    meminfo = {line.split(":")[0]: int(line.split()[1]) for line in box.text("/proc/meminfo").splitlines()}
    assert told[-1]["columns"]["free"] == pytest.approx(meminfo["MemFree"], abs=2048)
    assert told[-1]["columns"]["cache"] == pytest.approx(meminfo["Cached"] + meminfo["SReclaimable"], abs=2048)
    assert str(pid) not in told[-1]["faults"]  # read(2) does not fault


def test_faults_by_process() -> None:
    box = Box(memory="128M")
    pid = start(box, {"name": "leak", "parameters": {"rate": "1M", "interval": "250ms"}})
    advance(box, 3)
    told = lines(box)
    assert told[1]["faults"][str(pid)] == [4 * 256, 0]


def test_text_is_vmstats() -> None:
    box = Box(memory="96M")
    assert box.kernel.view("vmstat", every=SECOND, count=3) == box.kernel.view("vmstat")  # since boot: no sample has been taken
    start(box, [{"op": "loop", "steps": [{"op": "compute", "time": "10ms"}]}])
    advance(box, 5)
    once = vmstat_text(box.kernel.view("vmstat"))
    assert once.splitlines()[0] == "procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----"
    assert once.splitlines()[1].split() == COLUMNS
    assert len(once.splitlines()) == 3
    rows = box.kernel.view("vmstat", every=SECOND, count=3)
    assert [row["clock_ns"] // SECOND for row in rows] == [rows[0]["clock_ns"] // SECOND + n for n in range(3)]
    table = vmstat_text(rows).splitlines()
    assert [line.split()[12] for line in table[2:]] == ["50"] * 3
    assert {len(line) for line in table[1:]} == {len(table[1])}
    two = box.kernel.view("vmstat", every=2 * SECOND, count=10)
    assert [row["ns"] for row in two][-1] == 2 * SECOND
    assert len(box.kernel.view("vmstat", every=SECOND, count=KEPT)) == 5


def test_samples_are_part_of_the_state() -> None:
    box = Box(memory="96M")
    start(box, "leak")
    advance(box, 3)
    twin = Kernel.restore(box.kernel.snapshot())
    for kernel in (box.kernel, twin):
        kernel.call("advance", duration_ns=2 * SECOND)
    assert twin.view("vmstat", every=SECOND, count=10) == box.kernel.view("vmstat", every=SECOND, count=10)
    assert twin.digest() == box.kernel.digest()


def test_the_table_of_kills() -> None:
    box = Box(memory="128M", swap="0")
    assert box.kernel.view("oom") == []
    leak = start(box, {"name": "leak", "parameters": {"rate": "16M", "interval": "10ms"}})
    box.cgroup("/a", memory_max="8M", memory_swap_max=0)
    small = box.spawn("small", cgroup="/a")
    box.touch(small, box.mmap(small, 16 * M), 16 * M)
    advance(box, 2)
    kills = box.kernel.view("oom")
    assert [(row["pid"], row["comm"], row["limit_of"]) for row in kills] == [(small, "small", "/a"), (leak, "p", None)]
    assert kills[0]["constraint"] == "CONSTRAINT_MEMCG"
    assert kills[0]["by"] == kills[0]["victim"] == small
    assert all(row["points"] > 0 and row["anon_rss_bytes"] > 4 * M for row in kills)
    told = box.kernel.drain()
    first = box.kernel.nr_ordered - len(told) + 1
    assert [told[row["event"] - first].type for row in kills] == ["oom", "oom"]
