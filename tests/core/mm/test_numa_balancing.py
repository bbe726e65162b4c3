"""NUMA balancing: scans, hint faults, the two-reference filter, migration, pace."""

from __future__ import annotations

from typing import Any

import pytest

from core import parse_program
from core.sched import fair
from tests.peer.box import PAGE, Box

KNOBS = "/sys/kernel/debug/sched/numa_balancing/"
PAGES = 2048


class NumaBox(Box):
    """Two nodes with a CPU each, balancing on with short periods, and a process on CPU 0 with pages on node 0."""

    def __init__(self, **knobs: int) -> None:
        super().__init__(memory=["64M", "64M"], cpus=2, transparent_hugepage="never")
        for name, value in {"scan_delay_ms": 20, "scan_period_min_ms": 20, "scan_period_max_ms": 20, "scan_size_mb": 16, **knobs}.items():
            self.set(KNOBS + name, value)
        self.p = self.spawn("p")
        self.run_on(0)
        self.h = self.mmap(self.p, PAGES * PAGE)
        self.touch(self.p, self.h, PAGES * PAGE)
        self.set("/proc/sys/kernel/numa_balancing", 1)

    def run_on(self, cpu: int) -> None:
        self.ok(self.p, "sched_setaffinity", cpus=[cpu])

    def compute(self, ms: int, **args: Any) -> Any:
        """Read the pages again and again for so long (2 ns an access, 4 when they are far)."""
        found = self.touch(self.p, self.h, PAGES * PAGE, "read", repeat=max(1, ms * 500_000 // PAGES), **args)
        self.kernel.verify()
        return found

    def counters(self) -> dict[str, int]:
        return {name: value for name, value in self.vmstat().items() if name.startswith("numa_") and name.split("_")[1] in ("pte", "hint", "pages")}

    def node_of_pages(self) -> str:
        line = next(line for line in self.text(f"/proc/{self.p}/numa_maps").splitlines() if line.startswith(f"{self.h:08x}"))
        return " ".join(word for word in line.split() if word[0] == "N")


def test_local_pages_are_not_asked_about() -> None:
    box = NumaBox()
    box.compute(100)
    assert not any(box.counters().values()) and box.node_of_pages() == f"N0={PAGES}"


def test_pages_follow_their_program() -> None:
    box = NumaBox()
    box.run_on(1)
    faults = box.compute(100).minor
    found = box.counters()
    assert box.node_of_pages() == f"N1={PAGES}"
    assert found["numa_pages_migrated"] == found["numa_hint_faults"] == faults == PAGES
    assert found["numa_hint_faults_local"] == 0 and found["numa_pte_updates"] >= PAGES
    events = [event for event in box.kernel.drain() if event.type == "fault" and event.kind == "numa_hint"]  # type: ignore[attr-defined]
    assert sum(event.pages for event in events) == PAGES  # type: ignore[attr-defined]


def test_what_it_has_learnt_stands_in_sched() -> None:
    box = NumaBox()
    box.run_on(1)
    box.compute(300)
    text = box.text(f"/proc/{box.p}/sched")
    found = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in text.splitlines()[2:] if ":" in line}
    assert found["numa_pages_migrated"] == str(PAGES) and found["numa_preferred_nid"] in ("-1", "0", "1")
    assert int(found["mm->numa_scan_seq"]) > 4 and int(found["total_numa_faults"]) >= 0
    assert "current_node=1, numa_group_id=0" in text and "numa_faults node=1 task_private=" in text


def test_later_it_takes_two_faults_from_the_same_node() -> None:
    box = NumaBox()
    box.run_on(1)
    box.compute(300)  # more than four passes
    assert box.counters()["numa_pages_migrated"] == PAGES
    box.run_on(0)
    box.compute(300)
    found = box.counters()
    assert box.node_of_pages() == f"N0={PAGES}"
    assert found["numa_pages_migrated"] == 2 * PAGES and found["numa_hint_faults"] == 3 * PAGES


@pytest.mark.parametrize("why", ["off", "a policy", "the delay", "a full node", "a fork shares them"])
def test_what_stays(why: str) -> None:
    box = NumaBox(**({"scan_delay_ms": 10_000, "scan_period_min_ms": 10_000} if why == "the delay" else {}))
    if why == "off":
        box.set("/proc/sys/kernel/numa_balancing", 0)
    elif why == "a policy":
        box.ok(box.p, "mbind", address=box.h, length=PAGES * PAGE, mode="bind", nodes=[0])
    elif why == "a full node":
        other = box.spawn("other")
        box.ok(other, "set_mempolicy", mode="bind", nodes=[1])
        free = int(box.kernel.s.zones["free"][4:].sum()) - int(box.kernel.s.zones["wmark"][4:, 2].sum())
        box.touch(other, box.mmap(other, free * PAGE), free * PAGE)
    elif why == "a fork shares them":
        box.ok(box.p, "fork")
    box.run_on(1)
    box.compute(60)
    assert box.node_of_pages() == f"N0={PAGES}" and box.counters()["numa_pages_migrated"] == 0


def test_a_hint_is_a_mapped_page_to_everybody_else() -> None:
    box = NumaBox()
    box.run_on(1)
    box.touch(box.p, box.h, PAGE, "read", pages=[0] * 65536, repeat=300)  # 80 ms of the first page: the others are marked meanwhile
    box.kernel.verify()
    assert box.smaps_kb(box.p, box.h, "Rss") == PAGES * 4
    assert box.ok(box.p, "mincore", address=box.h, length=PAGES * PAGE)["resident"] == PAGES
    told = box.kernel.view("walk", pid=box.p, address=box.h + 5 * PAGE)
    assert told["levels"][-1]["bits"]["protnone"]
    box.ok(box.p, "mprotect", address=box.h, length=PAGES * PAGE, prot="r")
    box.ok(box.p, "munmap", address=box.h, length=PAGES * PAGE)
    box.kernel.verify()


def test_the_same_twice_and_through_a_snapshot() -> None:
    from core import Kernel

    one, two = NumaBox(), NumaBox()
    for box in (one, two):
        box.run_on(1)
        box.compute(30)
    two.kernel = Kernel.restore(two.kernel.snapshot())
    for box in (one, two):
        box.compute(60)
    assert one.kernel.digest() == two.kernel.digest()


class HugeBox(NumaBox):
    """The same with huge pages under 8 MiB of it."""

    def __init__(self, **knobs: int) -> None:
        super().__init__(**knobs)
        self.set("/sys/kernel/mm/transparent_hugepage/enabled", "always")
        self.h = self.mmap(self.p, PAGES * PAGE, align=2 << 20)
        self.touch(self.p, self.h, PAGES * PAGE)
        assert self.smaps_kb(self.p, self.h, "AnonHugePages") == PAGES * 4


def test_huge_pages_are_asked_about_and_move_whole() -> None:
    box = HugeBox()
    box.run_on(1)
    faults = box.compute(100).minor
    found = box.counters()
    assert box.node_of_pages() == f"N1={PAGES}"
    assert faults == found["numa_hint_faults"] and found["numa_pages_migrated"] == PAGES
    assert box.vmstat()["numa_huge_pte_updates"] * 512 >= PAGES
    assert box.vmstat()["thp_migration_success"] == PAGES // 512 and box.vmstat()["thp_split_page"] == 0
    assert box.smaps_kb(box.p, box.h, "AnonHugePages") == PAGES * 4


def test_a_huge_page_of_two_programs_stays() -> None:
    box = HugeBox()
    box.ok(box.p, "fork")
    box.run_on(1)
    box.compute(100)
    assert box.node_of_pages() == f"N0={PAGES}" and box.counters()["numa_pages_migrated"] == 0
    assert box.counters()["numa_hint_faults"] > 0


def test_a_write_through_a_hint_is_stored() -> None:
    box = NumaBox()
    box.run_on(1)
    box.touch(box.p, box.h, PAGE, "read", pages=[0] * 65536, repeat=300)
    assert box.counters()["numa_pte_updates"] > 0
    box.touch(box.p, box.h, PAGES * PAGE, fill=9)
    found = box.counters()["numa_hint_faults"]
    assert found > 0
    pfns = [int(pfn) for pfn in (box.kernel.s.mem["content"][box.kernel.s.mem["mapping"] > 0] == 9).nonzero()[0]]
    assert len(pfns) >= PAGES


# ---------------------------------------------------------------- the program goes to its memory


def fill_node_1(box: NumaBox) -> None:
    """Somebody holds so much of node 1 that nothing can move there."""
    hog = box.spawn("hog")
    box.ok(hog, "set_mempolicy", mode="bind", nodes=[1])
    room = next(int(line.split()[3]) for line in box.text("/sys/devices/system/node/node1/meminfo").splitlines() if "MemFree" in line) - 1200
    box.ok(hog, "mlock", address=box.mmap(hog, room << 10), length=room << 10)


def moves(box: NumaBox) -> list[tuple[int, int, int]]:
    return [(event.pid, event.source_cpu, event.target_cpu) for event in box.kernel.drain() if event.type == "sched_move_numa"]  # type: ignore[attr-defined]


def test_where_pages_cannot_come_the_program_goes_to_them() -> None:
    """As a real kernel did with two nodes of a processor each."""
    box = NumaBox()
    fill_node_1(box)
    box.run_on(1)
    box.compute(200)
    assert box.node_of_pages().startswith("N0") and moves(box) == []  # it may not run elsewhere
    box.ok(box.p, "sched_setaffinity", cpus=[0, 1])
    box.compute(200)
    assert moves(box) == [(box.p, 1, 0)]
    assert box.text(f"/proc/{box.p}/stat").split()[38] == "0" and box.node_of_pages() == f"N0={PAGES}"
    asked = box.counters()
    box.compute(100)
    assert box.counters() == asked  # they are near now, and no question any more


def test_a_program_goes_when_its_slice_is_over() -> None:
    box = NumaBox()
    fill_node_1(box)
    steps = [{"op": "map", "region": "a", "length": "4M"}, {"op": "touch", "region": "a", "access": "write"},
             {"op": "loop", "steps": [{"op": "touch", "region": "a", "access": "read"}]}]  # fmt: skip
    pid = box.spawn("q", program=parse_program(steps))
    box.ok(pid, "sched_setaffinity", cpus=[0])
    box.kernel.call("advance", duration_ns=20_000_000)
    box.ok(pid, "sched_setaffinity", cpus=[1])
    box.kernel.call("advance", duration_ns=400_000_000)
    assert moves(box) == [] and box.text(f"/proc/{pid}/stat").split()[38] == "1"
    box.kernel.tasks[pid].cpus_allowed = [0, 1]  # not by a call: that would keep its processor busy, and an idle one would take it over
    box.kernel.call("advance", duration_ns=400_000_000)
    box.kernel.verify()
    assert moves(box) == [(pid, 1, 0)] and box.text(f"/proc/{pid}/stat").split()[38] == "0"


# Four processors, two on each of two nodes; the task makes a call on processor 0 and its memory is on node 1: tasks on each, allowed -> goes to
PLACES = [
    ((0, 0, 0, 0), [0, 1, 2, 3], 2),
    ((0, 0, 1, 0), [0, 1, 2, 3], -1),  # two there, none here
    ((0, 0, 0, 0), [0, 1, 3], 3),
    ((0, 0, 0, 0), [0, 1], -1),
    ((0, 1, 1, 0), [0, 1, 2, 3], -1),  # two there, one here
    ((1, 1, 1, 0), [0, 1, 2, 3], 3),  # evenly shared
    ((2, 2, 1, 1), [0, 1, 2, 3], -1),  # nobody is idle there
]


@pytest.mark.parametrize(("queued", "allowed", "cpu"), PLACES)
def test_which_processor_it_goes_to(queued: tuple[int, ...], allowed: list[int], cpu: int) -> None:
    box = Box(memory=["64M", "64M"], cpus=4)
    pid = box.spawn("p")
    box.ok(pid, "sched_setaffinity", cpus=allowed)
    k = box.kernel
    task = k.current = k.tasks[pid]
    for rq, n in zip(k.rqs, queued, strict=True):
        rq.queue = [1000] * n
    assert fair.task_numa_find_cpu(k, task, 1) == cpu
