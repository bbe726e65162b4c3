"""The limits of dirty pages: formulas, writers that wait, the flusher."""

from __future__ import annotations

import pytest

from core import Kernel, Machine
from core.events import BalanceDirty, Writeback
from core.mm.page_writeback import HZ, Domain, domains, max_pause, min_pause, polynomial

M = 1 << 20

# (setpoint, dirty, limit) -> the share of the disk's speed in 1/1024
POLYNOMIAL = [(3000, 1999, 4001, 2048), (3000, 3000, 4000, 1024), (3000, 4001, 4001, 0), (3000, 3500, 4001, 896), (3000, 2500, 4001, 1151)]


@pytest.mark.parametrize(("setpoint", "dirty", "limit", "ratio"), POLYNOMIAL)
def test_a_writer_may_have_twice_the_disk_at_freerun_and_nothing_at_the_limit(setpoint: int, dirty: int, limit: int, ratio: int) -> None:
    assert polynomial(setpoint, dirty, limit) == ratio


@pytest.mark.parametrize(("thresh", "dirty", "interval"), [(3276, 0, 32), (21320, 0, 128), (3276, 3270, 2), (3276, 3276, 1), (3276, 4000, 1)])
def test_it_looks_more_often_the_nearer_the_limit(thresh: int, dirty: int, interval: int) -> None:
    assert Domain(16384, dirty, dirty, thresh, thresh // 2).interval == interval


def test_pauses_are_bounded() -> None:
    assert max_pause(10**9, 1000) == HZ // 5
    assert max_pause(0, 100_000) == 1
    shortest, pages = min_pause(HZ // 5, 100_000, 100_000)
    assert (shortest, pages) == (2, 781)


def machine(limit: str | None = None, **given: object) -> tuple[Kernel, int]:
    k = Kernel.boot(Machine.from_dict({"memory": "256M", **given}))
    pid = int((k.call("spawn", comm="w").result or {})["pid"])
    if limit:
        k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
        k.call("mkdir", path="/sys/fs/cgroup/t")
        k.call("put", path="/sys/fs/cgroup/t/memory.max", data=limit.encode())
        k.call("put", path="/sys/fs/cgroup/t/cgroup.procs", data=str(pid).encode())
    k.drain()
    return k, pid


def dirty_kb(k: Kernel) -> int:
    return int(next(line.split()[1] for line in k.read("/proc/meminfo").decode().splitlines() if line.startswith("Dirty:")))


@pytest.mark.parametrize("limit", [None, "64M"])
def test_a_writer_within_freerun_never_waits_and_one_beyond_it_gets_the_speed_of_the_disk(limit: str | None) -> None:
    k, pid = machine(limit)
    whole = domains(k, k.tasks[pid].cgroup)[-1]
    first = whole.freerun * 4096 * 9 // 10
    quick = k.call("write", pid, path="/data/f", offset=0, length=first)
    assert not [event for event in k.drain() if isinstance(event, BalanceDirty)]
    slow = k.call("write", pid, path="/data/f", offset=first, length=160 * M)
    waits = [event for event in k.drain() if isinstance(event, BalanceDirty)]
    k.verify()
    assert all(0 < event.pause_ns <= 200_000_000 and event.dirty > (event.thresh + event.background) // 2 for event in waits)
    assert all(event.dirty <= event.thresh * 11 // 10 for event in waits)  # it may pass the limit by a piece, no more
    at_speed = (160 * M - whole.thresh * 4096) * 10**9 // k.machine.storage.bandwidth
    assert quick.elapsed_ns < first // 4096 * 1000
    assert at_speed <= slow.elapsed_ns <= at_speed * 3 // 2
    assert dirty_kb(k) <= domains(k, k.tasks[pid].cgroup)[-1].background * 4


def test_a_program_that_stores_to_a_shared_mapping_waits_too() -> None:
    k, pid = machine("64M")
    k.call("create_file", path="/data/f", size=48 * M)
    address = (k.call("mmap", pid, length=48 * M, prot="rw", flags=["shared"], file="/data/f", offset=0).result or {})["address"]
    k.call("read", pid, path="/data/f", offset=0, length=48 * M)
    k.drain()
    k.call("touch", pid, address=address, length=48 * M, access="write")
    assert [event for event in k.drain() if isinstance(event, BalanceDirty) and event.cgroup == "/t"]
    k.verify()


def test_bytes_and_ratio_exclude_each_other_and_move_the_thresholds() -> None:
    k, _ = machine()
    k.call("put", path="/proc/sys/vm/dirty_bytes", data=str(8 * M).encode())
    vmstat = dict(line.split() for line in k.read("/proc/vmstat").decode().splitlines())
    assert vmstat["nr_dirty_threshold"] == "2048"
    assert vmstat["nr_dirty_background_threshold"] == "1024"  # 10 % would be more than the limit: half of it
    assert k.read("/proc/sys/vm/dirty_ratio") == b"0\n"


def test_old_pages_are_written_by_the_periodic_flusher_on_its_own_time() -> None:
    k, pid = machine()
    k.call("write", pid, path="/data/f", offset=0, length=4 * M)
    start = k.clock_ns
    k.call("advance", duration_ns=29 * 10**9)
    assert dirty_kb(k) == 4096
    k.call("advance", duration_ns=8 * 10**9)
    assert dirty_kb(k) == 0
    assert 0 <= k.clock_ns - start - 37 * 10**9 < 1000  # the calls themselves, nothing for the disk
    assert [event.why for event in k.drain() if isinstance(event, Writeback)] == ["periodic"]


def test_the_state_of_the_flushers_is_part_of_the_machine() -> None:
    k, pid = machine("64M")
    k.call("write", pid, path="/data/f", offset=0, length=64 * M)
    assert k.flushers
    twin = Kernel.restore(k.snapshot())
    answers = [one.call("write", pid, path="/data/f", offset=0, length=32 * M).elapsed_ns for one in (k, twin)]
    assert answers[0] == answers[1]
    assert k.digest() == twin.digest()


@pytest.mark.parametrize(("op", "refaults"), [("read", True), ("write", False)])
def test_a_page_that_is_rewritten_does_not_come_back_too_soon(op: str, refaults: bool) -> None:
    """A file larger than its cgroup, twice: pages that are read again are refaults, pages that write(2) brings in are not (__GFP_WRITE)."""
    k = Kernel.boot(Machine.from_dict({"memory": "512M", "swap": "0"}))
    k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    k.call("mkdir", path="/sys/fs/cgroup/g")
    k.call("put", path="/sys/fs/cgroup/g/memory.max", data=b"16M")
    k.call("create_file", path="/data/f", size=32 * M)
    pid = k.call("spawn", comm="w", cgroup="/g").result["pid"]
    for _ in range(2):
        assert k.call(op, pid, path="/data/f", offset=0, length=32 * M).errno is None
    vmstat = dict(line.split() for line in k.read("/proc/vmstat").decode().splitlines())
    assert (int(vmstat["workingset_refault_file"]) > 4000) == refaults
    assert (int(vmstat["workingset_refault_file"]) == 0) != refaults
    k.verify()


@pytest.mark.parametrize(("name", "least"), [("dirty_bytes", 8192), ("dirty_background_bytes", 1)])
def test_limits_in_bytes_have_a_least(name: str, least: int) -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "512M"}))
    for value, errno in ((least - 1, "EINVAL"), (least, None)):
        assert k.call("put", path=f"/proc/sys/vm/{name}", data=str(value).encode()).errno == errno
    assert int(k.read(f"/proc/sys/vm/{name}")) == least
