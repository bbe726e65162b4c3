"""Compaction: how fragmented memory is, by hand; what moves and what does not; who asks for it and what that costs. `verify` after each call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.mm import compaction
from core.mm.mm_types import MAX_ORDER
from core.vmstat import EVENT
from tests.core.mm.space import ANON, PAGE, SHARED, M, Space

COMPACT = "/proc/sys/vm/compact_memory"
THP = "/sys/kernel/mm/transparent_hugepage/"


def blocks(*, order: int, count: int) -> Any:
    """A zone's free blocks: `count` of one order."""
    nr_free = np.zeros(MAX_ORDER, np.int64)
    nr_free[order] = count
    return nr_free


def counters(space: Space, *names: str) -> dict[str, int]:
    return {name: int(space.k.s.vm_event[EVENT[name]]) for name in names}


def fragmented(memory: str = "160M", size: int = 48 * M, *, full: bool = False, **machine: Any) -> tuple[Space, int]:
    """A process that has every third frame of `size` free around it: it wrote every third page while a child shared them, and the child is gone.

    `full`: before the child went the rest of memory was filled but for 8 MiB: all that is free is in crumbs.
    """
    space = Space(memory, **machine)
    address = space.mmap(size)
    space.touch(address, size)
    child = int(space.ok("fork")["pid"])
    space.touch(address, size, stride=3)
    if full:
        rest = (space.meminfo("MemFree") << 10) - 8 * M
        space.touch(space.mmap(rest), rest)
    space.ok("exit", pid=child)
    return space, address


def largest(space: Space) -> int:
    """Frames in free blocks of 2 MiB and more of the machine's zones above DMA."""
    return int((space.k.s.zones["nr_free"][1:, 9:] * (512, 1024)).sum())


# ---------------------------------------------------------------- how fragmented


@pytest.mark.parametrize(
    ("nr_free", "order", "index", "unusable", "percent"),
    [
        (blocks(order=0, count=30_000), 9, 999, 1000, 100),  # 1000 - (1000 + 58,593)/30,000
        (blocks(order=0, count=40), 9, 974, 1000, 100),  # 1000 - (1000 + 40,000/512 = 78)/40: even so little memory
        (blocks(order=8, count=1), 9, -500, 1000, 100),  # 1000 - (1000 + 500)/1: lack of memory
        (blocks(order=10, count=3), 9, -1000, 0, 0),  # a block is free
        (blocks(order=0, count=0), 9, 0, 1000, 0),
        (blocks(order=9, count=1) + blocks(order=0, count=512), 9, -1000, 500, 50),
        (blocks(order=9, count=2), 10, 1000 - (1000 + 1000) // 2, 1000, 100),
    ],
)  # fmt: skip
def test_how_fragmented_free_memory_is(nr_free: Any, order: int, index: int, unusable: int, percent: int) -> None:
    assert compaction.fragmentation_index(nr_free, order) == index
    assert compaction.unusable_free_index(nr_free, order) == unusable
    assert compaction.extfrag_for_order(nr_free, order) == percent


def test_files_show_it() -> None:
    space, _ = fragmented()
    line = space.read("/proc/buddyinfo").splitlines()[1].split()
    assert int(line[4]) > 4000  # blocks of one frame: those that the child held
    index = space.read("/sys/kernel/debug/extfrag/extfrag_index").splitlines()[1]
    assert index.startswith("Node 0, zone    DMA32 -1.000 ")
    unusable = space.read("/sys/kernel/debug/extfrag/unusable_index").splitlines()[1].split()[4:]
    assert [float(word) for word in unusable] == sorted(float(word) for word in unusable)
    kinds = [line for line in space.read("/proc/pagetypeinfo").splitlines() if "DMA32, type" in line]
    assert sum(int(line.split()[6]) for line in kinds) == int(line[4])


# ---------------------------------------------------------------- what moves


def test_compact_memory_makes_whole_blocks() -> None:
    """40 to 64 MiB of crumbs become blocks of 2 MiB; nobody's memory changes, no page is lost."""
    space, address = fragmented()
    free, before, anon = space.meminfo("MemFree"), largest(space), space.anon()
    space.set(COMPACT, 1)
    space.k.verify()
    assert largest(space) > before + 3000
    assert space.meminfo("MemFree") == free and space.anon() == anon
    seen = counters(space, "compact_migrate_scanned", "compact_free_scanned", "compact_isolated", "pgmigrate_success", "compact_stall")
    assert seen["pgmigrate_success"] > 3000 and seen["compact_isolated"] >= 2 * seen["pgmigrate_success"]
    assert seen["compact_migrate_scanned"] >= seen["pgmigrate_success"] and seen["compact_stall"] == 0
    assert space.touch(address, 48 * M, "read").minor == 0
    events = [e for e in space.k.drain() if e.type == "compact"]
    assert [e.by for e in events] == ["sysctl"] * len(events) and sum(e.migrated for e in events) == seen["pgmigrate_success"]


def test_compacting_again_finds_little() -> None:
    space, _ = fragmented()
    space.set(COMPACT, 1)
    first = counters(space, "pgmigrate_success")["pgmigrate_success"]
    space.set(COMPACT, 1)
    assert counters(space, "pgmigrate_success")["pgmigrate_success"] - first < first // 4


def pattern(space: Space, pid: int, address: int, length: int) -> list[int]:
    """What a process's pages contain, by way of its page tables."""
    raw = space.k.pread(f"/proc/{pid}/pagemap", address // PAGE * 8, length // PAGE * 8)
    pfns = [int.from_bytes(raw[i : i + 8], "little") & ((1 << 55) - 1) for i in range(0, len(raw), 8)]
    return [int(space.k.s.mem["content"][pfn]) for pfn in pfns]


def test_every_kind_of_page_moves_with_its_contents() -> None:
    """Anonymous pages, shared ones, file pages and those of a fork: the same contents, the same rss, the same cgroup's pages."""
    space = Space("128M", swap="64M")
    space.ok("create_file", path="/data/f", size=4 * M)
    anon, shared = space.mmap(8 * M), space.mmap(4 * M, flags=SHARED)
    file = space.mmap(4 * M, "r", ["shared"], file="/data/f", offset=0)
    hole = space.mmap(8 * M)
    for part in range(8):
        space.touch(hole + part * M, M)
        space.touch(anon + part * M, M)
        space.touch(shared + part * M // 2, M // 2)
        space.touch(file + part * M // 2, M // 2, "read")
    child = int(space.ok("fork")["pid"])
    space.ok("munmap", address=hole, length=8 * M)
    places = [(space.pid, anon, 8 * M), (child, anon, 8 * M), (space.pid, shared, 4 * M), (space.pid, file, 4 * M)]
    contents, rss = [pattern(space, *place) for place in places], space.read("/proc/<pid>/status")
    cached = space.meminfo("Cached")
    space.set(COMPACT, 1)
    space.k.verify()
    assert counters(space, "pgmigrate_success")["pgmigrate_success"] > 0
    assert [pattern(space, *place) for place in places] == contents
    assert space.read("/proc/<pid>/status") == rss and space.meminfo("Cached") == cached
    assert sum(space.touch(at, n, "read", pid=pid).minor for pid, at, n in places) == 0


def test_locked_pages_stay_if_they_are_to() -> None:
    """compact_unevictable_allowed 0: nothing of an mlocked mapping moves; 1: all may."""
    space = Space("160M")
    address = space.mmap(48 * M)
    space.touch(address, 48 * M)
    space.ok("mlock", address=address, length=48 * M)
    child = int(space.ok("fork")["pid"])
    space.touch(address, 48 * M, stride=3)
    space.ok("exit", pid=child)
    space.set("/proc/sys/vm/compact_unevictable_allowed", 0)
    space.set(COMPACT, 1)
    still = counters(space, "pgmigrate_success")["pgmigrate_success"]
    space.set("/proc/sys/vm/compact_unevictable_allowed", 1)
    space.set(COMPACT, 1)
    space.k.verify()
    assert counters(space, "pgmigrate_success")["pgmigrate_success"] > still + 2000


def test_other_processors_must_forget_where_a_page_lay() -> None:
    """A moved page's address space counts one change of its tables for each entry: TLBs that held the old frame are void."""
    space, address = fragmented()
    before = int(space.k.s.mms["tlb_gen"][space.mm.id])
    space.set(COMPACT, 1)
    moved = counters(space, "pgmigrate_success")["pgmigrate_success"]
    assert int(space.k.s.mms["tlb_gen"][space.mm.id]) - before >= moved // 2 > 0
    assert (space.touch(address, 48 * M, "read").tlb or {})["misses"] > 0


def test_a_node_is_compacted_by_its_own_file() -> None:
    space = Space("256M", nodes=2)
    address = space.mmap(128 * M)
    space.touch(address, 128 * M)
    child = int(space.ok("fork")["pid"])
    space.touch(address, 64 * M, stride=3)
    space.ok("exit", pid=child)
    space.set("/sys/devices/system/node/node1/compact", 1)
    space.k.verify()
    assert {e.node for e in space.k.drain() if e.type == "compact"} == {1}
    assert space.k.call("put", path="/sys/devices/system/node/node9/compact", data=b"1").errno is not None


# ---------------------------------------------------------------- who asks


def huge_range(space: Space, pages: int) -> int:
    return int(space.ok("mmap", length=pages * 2 * M, prot="rw", flags=ANON, align=2 * M)["address"])


def latency(defrag: str, pages: int = 8) -> tuple[list[int], Space]:
    """Nanoseconds of the first write into each of some huge ranges, on a machine whose free memory is in single frames."""
    space, _ = fragmented("512M", 200 * M, full=True, swap="0")
    space.set(THP + "enabled", "always")
    space.set(THP + "defrag", defrag)
    at = huge_range(space, pages + 1)
    space.touch(at, PAGE)  # takes the only block of 2 MiB, in ZONE_DMA
    space.k.drain()
    return [space.touch(at + i * 2 * M, PAGE).elapsed_ns for i in range(1, pages + 1)], space


def test_a_fault_that_compacts_takes_hundreds_of_times_as_long() -> None:
    """defrag=always: each fault a spike of half a millisecond; never: 4 KiB at once, within a microsecond. Events say what the time went into."""
    slow, space = latency("always")
    assert counters(space, "thp_fault_alloc", "thp_fault_fallback") == {"thp_fault_alloc": 9, "thp_fault_fallback": 0}
    compacted = [e for e in space.k.drain() if e.type == "compact" and e.by == "direct"]
    assert len(compacted) >= 8 and counters(space, "compact_stall")["compact_stall"] >= 8
    spent = sum((e.migrate_scanned + e.free_scanned) * space.k.costs.compact_scan + e.migrated * space.k.costs.migrate_page for e in compacted)
    assert 0.8 * sum(slow) < spent < sum(slow)
    fast, other = latency("never")
    assert counters(other, "compact_stall", "thp_fault_alloc") == {"compact_stall": 0, "thp_fault_alloc": 1}
    assert min(slow) > 300 * max(fast)


def test_defer_leaves_it_to_kcompactd() -> None:
    """defrag=defer: a fault takes 4 KiB and wakes kswapd and kcompactd; the next one finds the huge page that those made."""
    took, space = latency("defer")
    assert [ns > 50_000 for ns in took] == [False, True] * 4  # zeroing 2 MiB takes 100 us
    assert max(took) < 110_000
    assert {e.by for e in space.k.drain() if e.type == "compact"} == {"kcompactd"}
    seen = counters(space, "thp_fault_fallback", "thp_fault_alloc", "compact_daemon_wake", "compact_stall")
    assert seen == {"thp_fault_fallback": 4, "thp_fault_alloc": 5, "compact_daemon_wake": 4, "compact_stall": 0}


def test_direct_compaction_is_a_memory_stall() -> None:
    _, space = latency("always")
    assert "total=0" not in space.read("/proc/pressure/memory").splitlines()[0]


def test_a_request_that_failed_waits() -> None:
    """After a failure 2 requests of the order are passed over, after another 4: compact_defer_shift."""
    space = Space("128M")
    zone = space.k.s.zones[1]
    compaction.defer_compaction(zone, 9)
    assert [compaction.compaction_deferred(zone, 9) for _ in range(3)] == [True, False, False]
    compaction.defer_compaction(zone, 9)
    assert [compaction.compaction_deferred(zone, 9) for _ in range(5)] == [True, True, True, False, False]
    assert not compaction.compaction_deferred(zone, 8)
    compaction.compaction_defer_reset(zone, 9, True)
    assert not compaction.compaction_deferred(zone, 9)


def test_a_pool_of_huge_pages_compacts_for_its_pages() -> None:
    """nr_hugepages on a machine in crumbs: the pool gets more than the blocks that were free."""
    space, _ = fragmented("256M", 96 * M, full=True)
    ready = largest(space) // 512
    space.set("/proc/sys/vm/nr_hugepages", 16)
    space.k.verify()
    assert int(space.read("/proc/sys/vm/nr_hugepages")) > ready
    assert counters(space, "compact_success")["compact_success"] >= 1


# ---------------------------------------------------------------- kcompactd


def test_kcompactd_works_when_fragmentation_is_worth_it() -> None:
    """compaction_proactiveness 0 switches it off; at 100 every idle machine is compacted, on nobody's time."""
    space, _ = fragmented()
    space.set("/proc/sys/vm/compaction_proactiveness", 0)
    space.ok("advance", duration_ns=3_000_000_000)
    before = largest(space)
    assert counters(space, "pgmigrate_success")["pgmigrate_success"] == 0
    space.set("/proc/sys/vm/compaction_proactiveness", 100)
    space.ok("advance", duration_ns=2_000_000_000)
    assert largest(space) > before
    assert {e.by for e in space.k.drain() if e.type == "compact"} == {"kcompactd"}


def test_score_and_watermarks_of_proactive_compaction() -> None:
    space = Space("128M")
    assert (compaction.fragmentation_score_wmark(space.k, True), compaction.fragmentation_score_wmark(space.k, False)) == (80, 90)
    space.set("/proc/sys/vm/compaction_proactiveness", 100)
    assert (compaction.fragmentation_score_wmark(space.k, True), compaction.fragmentation_score_wmark(space.k, False)) == (5, 15)


def test_explain_tells_fragmentation_from_lack_of_memory() -> None:
    space, _ = fragmented("512M", 200 * M, full=True, swap="0")
    crumbs = space.k.view("explain_thp", pid=space.pid)["blocks"][1]
    assert (crumbs["zone"], crumbs["free_blocks"]) == ("DMA32", 0) and crumbs["fragmentation_index"] > 900
    assert "in pieces" in crumbs["why"] and crumbs["compaction_waits_for"] == 0
    compaction.defer_compaction(space.k.s.zones[1], 9)
    assert space.k.view("explain_thp", pid=space.pid)["blocks"][1]["compaction_waits_for"] == 1
    space.set("/proc/sys/vm/extfrag_threshold", 1000)
    assert "too little memory" in space.k.view("explain_thp", pid=space.pid)["blocks"][1]["why"]
    space.set(COMPACT, 1)
    assert space.k.view("explain_thp", pid=space.pid)["blocks"][1]["why"] == "a block of 2 MiB is free"


# ---------------------------------------------------------------- it is state


def test_a_restored_machine_compacts_in_the_same_way() -> None:
    space, _ = fragmented()
    twin = type(space.k).restore(space.k.snapshot())
    for k in (space.k, twin):
        k.call("put", path=COMPACT, data=b"1")
        k.verify()
    assert space.k.digest() == twin.digest()
