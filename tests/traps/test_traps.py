"""What simulators of memory get wrong, one test each. All of them happened to somebody."""

from __future__ import annotations

import random
import struct
import time
from collections import Counter

import pytest

from core import Kernel, Machine
from tests.peer.box import ANON, FREE, PAGE, Box, G, K, M

PFN = (1 << 55) - 1
PRESENT = 1 << 63


def frames(box: Box, pid: int, address: int, length: int) -> list[int]:
    """The frame numbers behind a range, from pagemap; absent pages left out."""
    raw = box.kernel.pread(f"/proc/{pid}/pagemap", address // PAGE * 8, length // PAGE * 8)
    return [entry & PFN for (entry,) in struct.iter_unpack("<Q", raw) if entry & PRESENT]


def test_a_full_machine_hands_no_frame_out_twice() -> None:
    """Two processes fill the machine until one dies; what is left is mapped once each."""
    box = Box(memory="256M", swap="0")
    first, second = box.spawn("first"), box.spawn("second", catch_signals=True)
    one, two = box.mmap(first, 80 * M), box.mmap(second, 512 * M, flags=[*ANON, "noreserve"])
    box.touch(first, one, 80 * M)
    box.touch(second, two, 512 * M)
    assert not box.alive(second)
    third = box.spawn("third")
    three = box.mmap(third, 64 * M)
    box.touch(third, three, 64 * M)
    owned = Counter(frames(box, first, one, 80 * M) + frames(box, third, three, 64 * M))
    assert len(owned) == (80 + 64) * M // PAGE
    assert max(owned.values()) == 1
    box.kernel.view("audit")


def test_fills_to_the_last_frame_without_sharing_it() -> None:
    """Just before the killer comes: every resident page of the machine has a frame of its own."""
    box = Box(memory="256M", swap="0")
    pid = box.spawn()
    address = box.mmap(pid, box.meminfo()["MemFree"] * K * 9 // 10 // PAGE * PAGE)
    length = box.vmas(pid, 0, 1 << 47)
    span = next((end - start) * PAGE for start, end, _, _ in length if start * PAGE == address)
    assert box.touch(pid, address, span).signal is None
    found = frames(box, pid, address, span)
    assert len(found) == len(set(found)) == span // PAGE
    assert max(found) < 256 * M // PAGE


@pytest.mark.parametrize("pages", [1, 64])
def test_frames_are_used_again(pages: int) -> None:
    """Map, touch, unmap 10,000 times: free memory, page tables and the largest frame number stay where they were."""
    box = Box(memory="256M", swap="0")
    pid = box.spawn()
    length = pages * PAGE

    def round_() -> None:
        address = box.mmap(pid, length)
        box.touch(pid, address, length)
        box.ok(pid, "munmap", address=address, length=length)

    for _ in range(10):
        round_()
    before, tables, vmas = box.meminfo(), box.status(pid)["VmPTE"], len(box.maps(pid))
    for _ in range(10_000):
        round_()
    after = box.meminfo()
    assert after["MemFree"] == before["MemFree"]
    assert after["AnonPages"] == before["AnonPages"]
    assert after["PageTables"] == before["PageTables"]
    assert (box.status(pid)["VmPTE"], len(box.maps(pid))) == (tables, vmas)


def test_processes_are_used_up_and_given_back() -> None:
    """fork and exit 500 times: no frame, no page table, no pid directory is left behind."""
    box = Box(memory="256M", swap="0")
    pid = box.spawn()
    box.alloc_anon(pid, M)

    def round_() -> None:
        child = int(box.ok(pid, "fork")["pid"])
        box.alloc_anon(child, 256 * K)
        box.ok(child, "exit")
        box.ok(pid, "wait")

    for _ in range(5):
        round_()
    before, listed = box.meminfo(), box.kernel.listdir("/proc")
    for _ in range(500):
        round_()
    assert box.meminfo() == before
    assert box.kernel.listdir("/proc") == listed


COSTS = [
    ("a first write", {}, "write"),
    ("a first read", {}, "read"),
    ("a file page from the disk", {"file": "/data/f"}, "read"),
]


@pytest.mark.parametrize(("mapping", "access"), [row[1:] for row in COSTS], ids=[row[0] for row in COSTS])
def test_a_fault_costs_time_by_default(mapping: dict[str, str], access: str) -> None:
    box = Box(memory="512M")
    box.kernel.call("create_file", path="/data/f", size=M)
    pid = box.spawn()
    flags = ["private"] if mapping else ANON
    address = box.mmap(pid, M, "rw", flags, **mapping)
    clock = box.kernel.clock_ns
    found = box.touch(pid, address, M, access)
    faults = found.minor + found.major
    assert faults > 0
    assert found.elapsed_ns >= 100 * faults
    assert box.kernel.clock_ns - clock >= found.elapsed_ns
    again = box.touch(pid, address, M, access)
    assert (again.minor, again.major) == (0, 0)
    assert again.elapsed_ns < found.elapsed_ns
    if mapping:
        assert found.major > 0
        assert found.elapsed_ns > 10_000 * found.major


def test_a_disk_costs_more_than_memory() -> None:
    elapsed = {}
    for kind in ("disk", "nvme"):
        box = Box(memory="512M", storage={"kind": kind})
        box.kernel.call("create_file", path="/data/f", size=8 * M)
        pid = box.spawn()
        cold = box.call(pid, "read", path="/data/f", offset=0, length=8 * M).elapsed_ns
        warm = box.call(pid, "read", path="/data/f", offset=0, length=8 * M).elapsed_ns
        assert cold > 5 * warm > 0
        elapsed[kind] = cold
    assert elapsed["disk"] > elapsed["nvme"]


def copied(box: Box, pid: int, address: int, length: int) -> int:
    """New frames that a write needed, in pages."""
    before = box.meminfo()["AnonPages"]
    assert box.touch(pid, address, length).minor == length // PAGE
    return (box.meminfo()["AnonPages"] - before) // 4


def family(box: Box) -> tuple[int, int, int]:
    """A parent, its child, and 1M that they share."""
    pid = box.spawn()
    address = box.mmap(pid, M)
    box.touch(pid, address, M)
    return pid, fork(box, pid), address


def fork(box: Box, pid: int) -> int:
    """A child that has run on: it has written to its stack and data, as the parent has."""
    child = int(box.ok(pid, "fork")["pid"])
    for task in (child, pid):
        box.ok(task, "brk", increment=0)
    return child


def test_the_last_sharer_does_not_copy_after_the_other_did() -> None:
    box = Box(memory="512M")
    parent, child, address = family(box)
    assert copied(box, child, address, M) == 256
    assert copied(box, parent, address, M) == 0


def test_the_last_sharer_does_not_copy_after_the_others_exit() -> None:
    box = Box(memory="512M")
    parent, child, address = family(box)
    before = frames(box, parent, address, M)
    box.ok(child, "exit")
    assert copied(box, parent, address, M) == 0
    assert frames(box, parent, address, M) == before


def test_the_last_of_three_generations() -> None:
    box = Box(memory="512M")
    parent, child, address = family(box)
    grandchild = fork(box, child)
    assert copied(box, grandchild, address, M) == 256
    assert copied(box, parent, address, M) == 256
    assert copied(box, child, address, M) == 0


def test_what_one_writes_the_other_does_not_see() -> None:
    """Isolation: frames part at the first write, in both directions."""
    box = Box(memory="512M")
    parent, child, address = family(box)
    assert frames(box, parent, address, M) == frames(box, child, address, M)
    box.touch(parent, address, M)
    assert not set(frames(box, parent, address, M)) & set(frames(box, child, address, M))


LISTS = ("Active(anon)", "Inactive(anon)", "Active(file)", "Inactive(file)", "Unevictable")


def on_lists(box: Box) -> int:
    return sum(box.meminfo()[name] for name in LISTS)


NEW_PAGES = [
    ("anonymous", {}, "write"),
    ("shared", {"flags": ["shared", "anonymous"]}, "write"),
    ("of a file", {"flags": ["private"], "file": "/data/f"}, "read"),
    ("copied from a file", {"flags": ["private"], "file": "/data/f"}, "write"),
]


@pytest.mark.parametrize(("mapping", "access"), [row[1:] for row in NEW_PAGES], ids=[row[0] for row in NEW_PAGES])
def test_new_pages_are_known_to_the_reclaimer(mapping: dict[str, object], access: str) -> None:
    box = Box(memory="512M")
    box.kernel.call("create_file", path="/data/f", size=4 * M)
    pid = box.spawn()
    before, info = on_lists(box), box.meminfo()
    address = box.mmap(pid, 4 * M, "rw", **mapping)
    box.touch(pid, address, 4 * M, access)
    after = box.meminfo()
    new = sum(after[name] - info[name] for name in ("AnonPages", "Cached"))
    assert new >= 4096
    assert on_lists(box) - before == new


def test_pages_that_go_leave_the_lists() -> None:
    box = Box(memory="512M")
    pid = box.spawn()
    box.kernel.call("create_file", path="/data/f", size=4 * M)
    before = on_lists(box)
    box.alloc_anon(pid, 4 * M)
    file = box.mmap(pid, 4 * M, "r", ["shared"], file="/data/f")
    box.touch(pid, file, 4 * M, "read")
    box.ok(pid, "mlock", address=file, length=M)
    rss = box.status(pid)["RssAnon"] - 4096
    box.ok(pid, "exit")
    box.set("/proc/sys/vm/drop_caches", 3)
    assert before - rss <= on_lists(box) <= before


def test_the_wall_clock_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose host's clocks stand still, or whose host's dice are loaded, answers the same."""

    def history() -> str:
        kernel = Kernel.boot(Machine.from_dict({"memory": "256M"}), 7)
        result = kernel.call("spawn", comm="app").result
        assert result
        pid = result["pid"]
        mapped = kernel.call("mmap", pid, length=8 * M, prot="rw", flags=ANON).result
        assert mapped
        kernel.call("touch", pid, address=mapped["address"], length=8 * M, access="write", order="random", seed=3)
        kernel.call("advance", duration_ns=10**9)
        return kernel.digest()

    usual = history()
    for name in ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns"):
        zero: float = 0 if name.endswith("_ns") else 0.0
        monkeypatch.setattr(time, name, lambda zero=zero: zero)
    random.seed(0)
    assert history() == usual
    random.seed(99)
    assert history() == usual


def test_an_idle_machine_stands_still() -> None:
    """Reading files takes no simulated time and changes nothing."""
    box = Box(memory="256M")
    clock, digest = box.kernel.clock_ns, box.kernel.digest()
    for path in ("/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo", "/proc/uptime", "/proc/stat"):
        assert box.text(path) == box.text(path)
    assert (box.kernel.clock_ns, box.kernel.digest()) == (clock, digest)


# What a program has no business touching: (what, address or page, access)
BAD = [
    ("the null page", 0, "read"),
    ("a hole", FREE + 64 * PAGE, "read"),
    ("a hole, written", FREE + 64 * PAGE, "write"),
    ("behind a mapping", FREE + 4 * PAGE, "write"),
    ("before a mapping", FREE - PAGE, "write"),
    ("a read-only page, written", FREE + 8 * PAGE, "write"),
    ("a page without rights", FREE + 16 * PAGE, "read"),
    ("data, executed", FREE, "exec"),
    ("the kernel's half", 0xFFFF_8880_0000_0000, "read"),
    ("a non-canonical address", 0x8000_0000_0000, "read"),
    ("the last page", 0xFFFF_FFFF_FFFF_F000, "write"),
]


@pytest.mark.parametrize(("address", "access"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
@pytest.mark.parametrize("catch", [True, False], ids=["caught", "killed"])
def test_a_bad_access_is_never_mapped(address: int, access: str, catch: bool) -> None:
    box = Box(memory="256M")
    pid = box.spawn(catch_signals=catch)
    box.fixed(pid, 0, 4)
    box.fixed(pid, 8, 1, "r")
    box.fixed(pid, 16, 1, "none")
    maps, rss, anon = box.maps(pid), box.status(pid)["VmRSS"], box.meminfo()["AnonPages"]
    found = box.touch(pid, address, PAGE, access)
    assert found.signal == "SIGSEGV"
    assert found.fault_address == address
    assert box.alive(pid) is catch
    if catch:
        assert (box.maps(pid), box.status(pid)["VmRSS"], box.meminfo()["AnonPages"]) == (maps, rss, anon)
    else:
        assert found.killed == [pid]
        assert box.meminfo()["AnonPages"] < anon


def test_beyond_the_end_of_a_file_is_sigbus() -> None:
    box = Box(memory="256M")
    box.kernel.call("create_file", path="/data/f", size=2 * PAGE + 1)
    pid = box.spawn(catch_signals=True)
    address = box.mmap(pid, 8 * PAGE, "rw", ["shared"], file="/data/f")
    assert box.touch(pid, address, 3 * PAGE).signal is None
    found = box.touch(pid, address, 8 * PAGE)
    assert (found.signal, found.fault_address) == ("SIGBUS", address + 3 * PAGE)


def test_a_terabyte_costs_what_is_touched() -> None:
    box = Box(memory="256M", swap="0")
    box.set("/proc/sys/vm/overcommit_memory", 1)
    pid = box.spawn()
    free = box.meminfo()["MemFree"]
    address = box.mmap(pid, 1024 * G)
    pages = list(range(0, 1000 * 100_000, 100_000))
    found = box.call(pid, "touch", address=address, access="write", pages=pages)
    assert found.minor == 1000
    used = free - box.meminfo()["MemFree"]
    assert 4 * 2000 <= used <= 4 * 4000
    box.ok(pid, "munmap", address=address, length=1024 * G)
    assert abs(free - box.meminfo()["MemFree"]) <= 64
