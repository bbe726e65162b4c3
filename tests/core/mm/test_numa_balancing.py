"""NUMA balancing: scans, hint faults, the two-reference filter, migration, pace."""

from __future__ import annotations

from typing import Any

import pytest

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
