"""PSI of a running kernel: what is a stall, whose it is, what the files and the triggers say."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from core import Kernel
from core.sched.psi import MEM, MEMSTALL, PSI_PERIOD, PsiGroup
from tests.peer.box import ANON, CGROUP, Box, M

SECOND = 1_000_000_000


def totals(text: str) -> list[int]:
    """`total` of some and full, microseconds."""
    assert re.fullmatch(r"(?:(?:some|full) avg10=\d+\.\d\d avg60=\d+\.\d\d avg300=\d+\.\d\d total=\d+\n){2}", text)
    return [int(value) for value in re.findall(r"total=(\d+)", text)]


def machine_totals(box: Box) -> list[int]:
    return totals(box.text("/proc/pressure/memory"))


def thrash(box: Box, pid: int, length: int = 60 * M, turns: int = 3) -> None:
    """Write more than the cgroup holds, again and again."""
    address = box.mmap(pid, length)
    for _ in range(turns):
        assert box.touch(pid, address, length).signal is None


@pytest.fixture
def box() -> Box:
    return Box(memory="256M", swap="256M")


def test_an_idle_machine_does_not_stall(box: Box) -> None:
    pid = box.spawn()
    box.alloc_anon(pid, 50 * M)
    box.pagecache(pid, "/data/f", 50 * M)
    assert machine_totals(box) == [0, 0]


def test_a_limit_stalls_its_cgroup_and_those_above(box: Box) -> None:
    box.cgroup("/a", memory_max="40M")
    box.cgroup("/a/in")
    box.cgroup("/beside")
    pid = box.spawn(cgroup="/a/in")
    start = box.kernel.clock_ns
    thrash(box, pid)
    some, full = totals(box.cg("/a/in", "memory.pressure"))
    assert 0 < some <= (box.kernel.clock_ns - start) // 1000
    assert full == some
    assert totals(box.cg("/a", "memory.pressure")) == [some, full]
    assert machine_totals(box) == totals(box.cg("", "memory.pressure")) == [some, full]
    assert totals(box.cg("/beside", "memory.pressure")) == [0, 0]


def test_direct_reclaim_is_a_stall_and_kswapd_is_none_of_the_tasks(box: Box) -> None:
    box.cgroup("/a")
    thrash(box, box.spawn(cgroup="/a"), 350 * M, 2)
    box.kernel.call("advance", duration_ns=SECOND)
    mine, machine = totals(box.cg("/a", "memory.pressure")), machine_totals(box)
    assert mine[0] == mine[1] > 0
    assert machine != mine  # kswapd's own, on the other processor
    assert set(box.kernel.root_cgroup.psi.cpus) == {0, 1}
    assert set(box.kernel.cgroup_at("/a").psi.cpus) == {0}  # type: ignore[union-attr]


def test_the_sleep_above_high_is_a_stall() -> None:
    box = Box(memory="256M", swap="0")
    box.cgroup("/a", memory_high="20M", memory_swap_max=0)
    pid = box.spawn(cgroup="/a")
    box.kernel.drain()
    box.alloc_anon(pid, 22 * M)
    slept = sum(event.to_dict()["delay_ns"] or 0 for event in box.kernel.drain() if event.to_dict().get("kind") == "throttle")
    assert slept > 0
    assert totals(box.cg("/a", "memory.pressure"))[0] >= slept // 1000


def test_a_first_read_is_no_stall_a_page_missed_again_is(box: Box) -> None:
    """Pages used twice are active. Evicted nevertheless and read again while there was more memory than they need: it was too little for them."""
    box.cgroup("/a")
    box.set("/proc/sys/vm/swappiness", 0)
    pid = box.spawn(cgroup="/a")
    box.alloc_anon(pid, 60 * M)
    box.pagecache(pid, "/data/f", 20 * M)
    for _ in range(3):
        box.ok(pid, "read", path="/data/f", offset=0, length=20 * M)
    assert machine_totals(box) == [0, 0]
    for _ in range(8):  # the operator's reclaim is nobody's stall
        box.put(f"{CGROUP}/a/memory.reclaim", 20 * M)
    assert box.stat("/a")["file"] == 0
    assert machine_totals(box) == [0, 0]
    box.ok(pid, "read", path="/data/f", offset=0, length=20 * M)
    assert box.stat("/a")["workingset_restore_file"] > 0
    assert totals(box.cg("/a", "memory.pressure"))[0] > 0


def test_reading_changes_nothing(box: Box) -> None:
    box.cgroup("/a", memory_max="40M")
    thrash(box, box.spawn(cgroup="/a"))
    twin = Kernel.restore(box.kernel.snapshot())
    for kernel in (box.kernel, twin):
        for _ in range(3):
            kernel.call("advance", duration_ns=3 * SECOND)
            if kernel is twin:
                kernel.read("/proc/pressure/memory")
    assert box.kernel.digest() == twin.digest()
    assert box.kernel.read("/proc/pressure/memory") == twin.read("/proc/pressure/memory")


def test_averages_rise_and_fade_with_the_clock(box: Box) -> None:
    box.cgroup("/a", memory_max="40M")
    thrash(box, box.spawn(cgroup="/a"), turns=10)
    shown = []
    for _ in range(4):
        box.kernel.call("advance", duration_ns=PSI_PERIOD)
        shown.append(float(re.search(r"avg10=(\S+)", box.text("/proc/pressure/memory"))[1]))  # type: ignore[index]
    assert shown[0] > 0
    assert shown == sorted(shown, reverse=True)
    box.kernel.call("advance", duration_ns=3600 * SECOND)
    assert "avg300=0.00" in box.text("/proc/pressure/memory")


def test_a_stall_is_sampled_in_the_periods_in_which_it_was() -> None:
    """Half of the first period and half of the second, looked at much later, as if somebody had looked all the time."""
    half = PSI_PERIOD // 2
    looked, slept = PsiGroup(0), PsiGroup(0)
    for group in (looked, slept):
        group.change(0, half, 0, MEMSTALL)
        group.change(0, 3 * half, MEMSTALL, 0)
    for k in range(1, 5):
        looked.advance(k * PSI_PERIOD)
    slept.advance(4 * PSI_PERIOD)
    assert looked.collected() == slept.collected() == [0, 0, 2 * half, 2 * half, 0, 0]
    assert abs(looked.avg[2 * MEM][0] - slept.avg[2 * MEM][0]) <= 4
    one = PsiGroup(0)
    one.change(0, half, 0, MEMSTALL)
    one.change(0, 3 * half, MEMSTALL, 0)
    assert one.avg[2 * MEM][0] == (50 * 2048 * (2048 - 1677) + 2047) // 2048


# ---- triggers -----------------------------------------------------------------------------------------------------

WRITTEN = [  # PS-12
    ("some 150000 1000000", None),
    ("full 500000 500000", None),
    ("some 1 10000000", None),
    ("some 150000 499999", "EINVAL"),
    ("some 150000 10000001", "EINVAL"),
    ("some 0 1000000", "EINVAL"),
    ("full 1000001 1000000", "EINVAL"),
    ("most 150000 1000000", "EINVAL"),
    ("some 150000", "EINVAL"),
    ("", "EINVAL"),
]


@pytest.mark.parametrize(("text", "errno"), WRITTEN)
def test_what_a_trigger_may_be(box: Box, text: str, errno: str | None) -> None:
    box.cgroup("/a")
    assert box.put("/proc/pressure/memory", text) == errno
    assert box.put(f"{CGROUP}/a/memory.pressure", text) == errno


def test_a_trigger_fires_once_a_window(box: Box) -> None:
    box.cgroup("/a", memory_max="40M")
    pid = box.spawn(cgroup="/a")
    for _ in range(2):
        box.set(f"{CGROUP}/a/memory.pressure", "some 50000 500000")
    thrash(box, pid, turns=12)
    fired = [event.to_dict() for event in box.kernel.drain() if event.type == "psi"]
    assert len(fired) > 1
    assert {(event["kind"], event["cgroup"], event["threshold_us"], event["window_us"]) for event in fired} == {("some", "/a", 50_000, 500_000)}
    assert all(event["stall_us"] >= 50_000 for event in fired)
    times = [event["clock_ns"] for event in fired]
    assert all(later - earlier >= 500_000_000 for earlier, later in pairwise(times))


def test_a_trigger_waits_for_its_threshold(box: Box) -> None:
    box.cgroup("/a", memory_max="40M")
    pid = box.spawn(cgroup="/a")
    box.set(f"{CGROUP}/a/memory.pressure", "some 900000 1000000")
    box.set("/proc/pressure/memory", "full 900000 1000000")
    for _ in range(3):
        thrash(box, pid, 45 * M, 1)
        box.ok(pid, "munmap", address=box.mmap(pid, M, flags=ANON), length=M)
        box.kernel.call("advance", duration_ns=2 * SECOND)
    assert machine_totals(box)[0] > 0
    assert [event for event in box.kernel.drain() if event.type == "psi"] == []
