"""Huge pages of shared memory: who gets one, how it is mapped, what takes it apart, how small ones become one. `verify` after each step."""

from __future__ import annotations

from typing import Any

import pytest

from core import Kernel
from core.mm import filemap, shmem_huge
from core.mm.mm_types import CTL_SHRINKLIST
from core.mm.shrinker import do_shrink_slab
from core.vmstat import EVENT
from tests.core.mm.space import M, Space

SHARED = ["shared", "anonymous"]
THP = "/sys/kernel/mm/transparent_hugepage/"


class Shared(Space):
    """A machine whose shared memory may be huge, and a shared mapping."""

    def __init__(self, mode: str = "always", megabytes: int = 8, memory: str = "512M", **machine: Any) -> None:
        super().__init__(memory, **machine)
        self.set(THP + "shmem_enabled", mode)
        self.s = self.map(megabytes)
        self.start = self.k.s.vm_event.copy()

    def map(self, megabytes: int, **extra: Any) -> int:
        return int(self.ok("mmap", length=megabytes * M, prot="rw", flags=SHARED, **extra)["address"])

    def touch(self, at: float, megabytes: float, access: str = "write", pid: int | None = None, base: int = 0) -> int:
        """Faults of a touch, in megabytes from the mapping's start."""
        answer = self.call("touch", pid, address=(base or self.s) + int(at * M), length=int(megabytes * M), access=access)
        assert (answer.errno, answer.signal) == (None, None), answer
        return answer.minor

    def limit(self, size: str) -> None:
        """The process goes to a cgroup with a limit."""
        self.set("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
        self.k.call("mkdir", path="/sys/fs/cgroup/t")
        self.set("/sys/fs/cgroup/t/memory.max", size)
        self.set("/sys/fs/cgroup/t/cgroup.procs", self.pid)

    def advise(self, at: float, megabytes: float, advice: str, pid: int | None = None) -> str | None:
        errno = self.call("madvise", pid, address=self.s + int(at * M), length=int(megabytes * M), advice=advice).errno
        return str(errno) if errno else None

    def count(self, event: str) -> int:
        return int(self.k.s.vm_event[EVENT[event]] - self.start[EVENT[event]])

    def meminfo(self, name: str) -> int:
        """Megabytes of a line of /proc/meminfo."""
        line = next(line for line in self.k.read("/proc/meminfo").decode().splitlines() if line.startswith(name + ":"))
        return int(line.split()[1]) // 1024

    def rollup(self, name: str, pid: int | None = None) -> int:
        text = self.k.read(f"/proc/{pid or self.pid}/smaps_rollup").decode()
        return int(text.split(name + ":")[1].split()[0])


# shmem_enabled, advised, megabytes of the object: faults of writing all of it, huge pages made
WHO = [
    ("never", False, 4, 1024, 0),
    ("never", True, 4, 1024, 0),
    ("deny", True, 4, 1024, 0),
    ("advise", False, 4, 1024, 0),
    ("advise", True, 4, 2, 2),
    ("within_size", False, 4, 2, 2),
    ("within_size", False, 5, 258, 2),  # the last megabyte is no 2 MiB within the object
    ("within_size", True, 5, 258, 3),
    ("always", False, 4, 2, 2),
    ("always", False, 5, 258, 3),  # mapped by 256 small entries, half of it beyond the end
    ("always", False, 1, 256, 1),
    ("force", False, 4, 2, 2),
]


@pytest.mark.parametrize(("mode", "advised", "megabytes", "faults", "huge"), WHO)
def test_who_gets_a_huge_page(mode: str, advised: bool, megabytes: int, faults: int, huge: int) -> None:
    t = Shared(mode, megabytes)
    if mode in ("never", "deny") or megabytes == 1:
        t.s = t.map(megabytes, align=2 * M)
    if advised:
        assert t.advise(0, megabytes, "hugepage") is None
    assert t.touch(0, megabytes) == faults
    assert t.count("thp_file_alloc") == huge
    assert t.meminfo("ShmemHugePages") == 2 * huge
    assert t.rollup("Rss") >= 1024 * megabytes


def test_nohugepage_and_prctl_forbid_it() -> None:
    t = Shared()
    t.advise(0, 4, "nohugepage")
    assert t.touch(0, 4) == 1024
    t.ok("prctl", option="thp_disable", value=1)
    assert t.touch(4, 4) == 1024
    assert t.count("thp_file_alloc") == 0


def test_shared_memory_that_may_be_huge_is_placed_at_a_multiple_of_2_mib() -> None:
    t = Shared("never")
    assert t.s % (2 * M) != 0
    t.set(THP + "shmem_enabled", "advise")
    assert t.map(8) % (2 * M) == 0
    assert t.map(1) % (2 * M) != 0  # too short
    t.set(THP + "shmem_enabled", "deny")
    assert t.map(3) % (2 * M) != 0


def test_a_fork_copies_nothing_and_the_child_maps_whole_pages() -> None:
    t = Shared(megabytes=16)
    assert t.touch(0, 6) == 3
    child = t.ok("fork")["pid"]
    assert t.rollup("ShmemPmdMapped", child) == 0
    assert t.touch(0, 16, "read", child) == 8
    assert (t.count("thp_file_alloc"), t.count("thp_file_mapped")) == (8, 11)
    assert t.rollup("ShmemPmdMapped", child) == 16384
    assert t.meminfo("ShmemPmdMapped") == 16
    assert t.rollup("Private_Clean", child) >= 10240  # what the child read first, nobody wrote


def test_what_takes_an_entry_apart_empties_it() -> None:
    """[0..2M) [2..4M) [4..6M) [6..8M): munmap of 3M..5M cuts two of them."""
    t = Shared()
    t.touch(0, 8)
    t.ok("munmap", address=t.s + 3 * M, length=2 * M)
    assert t.count("thp_split_pmd") == 2
    assert t.rollup("ShmemPmdMapped") == 4096
    assert (t.meminfo("ShmemHugePages"), t.meminfo("ShmemPmdMapped")) == (8, 4)
    assert t.touch(2, 1, "read") == 16  # 16 small entries around a read
    assert t.touch(5, 1) == 256
    assert t.count("thp_split_page") == 0


def test_an_entry_changes_protection_whole_and_writes_come_back() -> None:
    t = Shared(megabytes=2)
    t.touch(0, 2)
    t.ok("mprotect", address=t.s, length=2 * M, prot="r")
    assert t.count("thp_split_pmd") == 0
    t.ok("mprotect", address=t.s, length=2 * M, prot="rw")
    assert t.touch(0, 2) == 0


def test_mremap_moves_the_entry() -> None:
    t = Shared("always", 4)
    t.touch(0, 4)
    moved = t.ok("mremap", address=t.s, old_length=4 * M, new_length=8 * M, may_move=True)["address"]
    assert moved % (2 * M) == 0
    assert t.rollup("ShmemPmdMapped") == 4096
    assert t.touch(0, 4, base=moved) == 0


def test_content_survives_the_ways_of_a_huge_page() -> None:
    t = Shared("always", 4)
    t.ok("touch", address=t.s, length=4 * M, access="write", fill=7)
    child = t.ok("fork")["pid"]
    t.ok("touch", child, address=t.s + M, length=4096, access="write", fill=9)
    t.advise(0, 2, "pageout", child)
    t.advise(3, 1, "remove")
    pages = [0, 256, 300, 600, 800]

    def content(page: int) -> int:
        vma = next(one for one in t.mm.vmas if one.start <= (t.s >> 12) + page < one.end)
        assert vma.file is not None
        t.touch(page / 256, 1 / 256, "read")
        return int(t.k.s.mem["content"][int(filemap.find(t.k.s, vma.file.root, page))])

    assert [content(page) for page in pages] == [7, 9, 7, 7, 0]


# ---------------------------------------------------------------- pressure


def test_reclaim_splits_before_it_swaps() -> None:
    t = Shared("always", 64, swap="256M")
    t.limit("40M")
    t.touch(0, 64)
    assert t.count("thp_file_alloc") == 32
    assert t.count("thp_split_page") == t.count("thp_split_pmd") >= 12
    assert t.count("pswpout") == 512 * t.count("thp_split_page")
    assert t.count("thp_swpout") == 0
    t.touch(0, 64, "read")
    t.ok("munmap", address=t.s, length=64 * M)
    assert t.meminfo("ShmemHugePages") == 0


def test_a_limit_that_has_no_room_makes_it_fall_back() -> None:
    t = Shared("always", 4, swap="0")
    t.limit("1500K")
    t.touch(0, 1)
    assert (t.count("thp_file_fallback"), t.count("thp_file_fallback_charge"), t.count("thp_file_alloc")) == (1, 1, 0)


def test_what_lies_beyond_the_end_is_dropped_by_a_split() -> None:
    t = Shared("always", 3, swap="64M")
    t.touch(0, 3)
    assert t.meminfo("Shmem") == 4
    assert t.advise(2, 1, "pageout") is None
    assert t.count("thp_split_page") == 1
    t.touch(2, 1, "read")
    assert t.meminfo("Shmem") == 3


# megabytes of an object that is written whole -> does its last huge page reach beyond its end, so far that it is kept in view?
ENDS = [(1, True), (2, False), (3, True), (4, False), (4 - 8 / 1024, True), (4 - 4 / 1024, False)]


@pytest.mark.parametrize(("megabytes", "listed"), ENDS)
def test_objects_that_end_within_a_huge_page_are_kept_in_view(megabytes: float, listed: bool) -> None:
    t = Shared("always", 2)
    address = int(t.ok("mmap", length=int(megabytes * M), prot="rw", flags=SHARED)["address"])
    t.touch(0, megabytes, base=address)
    assert len(t.k.shmem["shrinklist"]) == t.k.s.ctl[CTL_SHRINKLIST] == int(listed)
    t.ok("munmap", address=address, length=int(megabytes * M))
    assert t.k.shmem["shrinklist"] == [] and t.k.s.ctl[CTL_SHRINKLIST] == 0


def test_one_held_by_somebody_stays_in_view() -> None:
    t = Shared("always", 3)
    t.touch(0, 3)
    vma = next(vma for vma in t.mm.vmas if vma.start << 12 == t.s)
    assert vma.file is not None
    head = shmem_huge.last_huge(t.k.s, vma.file.root, 512)
    t.k.s.mem["refcount"][head] += 1
    assert shmem_huge.shmem_unused_huge_scan(t.k, 0, 0) == 0
    assert t.count("thp_split_page_failed") == 1 and len(t.k.shmem["shrinklist"]) == 1
    t.k.s.mem["refcount"][head] -= 1
    assert shmem_huge.shmem_unused_huge_scan(t.k, 0, 0) == 1
    assert t.meminfo("Shmem") == 3 and t.k.shmem["shrinklist"] == []
    t.k.verify()


# things, what was put off, priority, batch: asked for, and put off after it
ROUNDS = [(8, 0, 12, 1024, [], 0), (8, 0, 3, 1024, [], 2), (8, 2, 2, 1024, [], 6), (8, 6, 1, 1024, [11], 3), (1, 0, 0, 1024, [2], 0),
          (4096, 0, 12, 128, [], 2), (4096, 0, 2, 128, [128] * 16, 0), (1000, 9000, 0, 128, [128] * 15, 2000)]  # fmt: skip


@pytest.mark.parametrize(("freeable", "deferred", "priority", "batch", "asked", "after"), ROUNDS)
def test_a_round_of_a_shrinker(freeable: int, deferred: int, priority: int, batch: int, asked: list[int], after: int) -> None:
    k, seen = Shared().k, list[int]()
    assert do_shrink_slab(k, freeable, deferred, priority, batch, seen.append) == after
    assert seen == asked
    assert k.s.vm_event[EVENT["slabs_scanned"]] == sum(asked)


def test_under_pressure_what_lies_beyond_the_ends_comes_free() -> None:
    """As recorded (shmem_thp_beyond): the machine lives because of it."""
    t = Shared("always", 5, "256M", swap="0")
    objects = [t.s, *(t.map(5) for _ in range(7))]
    for base in objects:
        t.touch(0, 5, base=base)
    assert t.meminfo("Shmem") == 48 and len(t.k.shmem["shrinklist"]) == 8
    room = int(t.k.s.zones["free"].sum()) // 256
    other = t.spawn()
    address = t.ok("mmap", other, length=room * M, prot="rw", flags=["private", "anonymous"])["address"]
    t.ok("touch", other, address=address, length=room * M, access="write")
    assert t.meminfo("Shmem") == 40 and t.count("oom_kill") == 0 and t.count("thp_split_page") == 8
    assert t.k.shmem["shrinklist"] == []


def test_a_hole_in_the_middle_splits_the_pages_at_its_borders() -> None:
    t = Shared("always", 8)
    t.touch(0, 8)
    t.advise(1, 6, "remove")
    assert t.meminfo("Shmem") == 2
    assert t.count("thp_split_page") == 2
    assert t.touch(0, 8) == 512 + 1 + 1 + 512  # of the outer pages a half is left each: what is missing comes in small pages


# ---------------------------------------------------------------- to another node


class TwoNodes(Shared):
    """Two nodes; the object lies on node 0."""

    def __init__(self) -> None:
        super().__init__("always", 8, ["256M", "256M"], nodes=2, cpus=2, swap="0")
        self.ok("sched_setaffinity", cpus=[0])
        self.touch(0, 8)

    def nodes(self) -> dict[str, int]:
        """Pages of the object by node, as its mappings show them."""
        words = [word for line in self.k.read(f"/proc/{self.pid}/numa_maps").decode().splitlines() if "zero" in line for word in line.split()]
        found: dict[str, int] = {}
        for word in words:
            if word.startswith("N"):
                found[word[:2]] = found.get(word[:2], 0) + int(word[3:])
        return found

    def node_meminfo(self, node: int, name: str) -> int:
        text = self.k.read(f"/sys/devices/system/node/node{node}/meminfo").decode()
        return int(text.split(name + ":")[1].split()[0])


MOVES: list[tuple[str, dict[str, Any], dict[str, int], int]] = [
    ("move_pages", {"pages": list(range(1024)), "nodes": [1] * 1024, "flags": ["move"]}, {"N0": 1024, "N1": 1024}, 2),
    ("mbind", {"length": 8 * M, "mode": "bind", "nodes": [1], "flags": ["move"]}, {"N1": 2048}, 4),
    ("migrate_pages", {"old_nodes": [0], "new_nodes": [1]}, {"N1": 2048}, 4),
]


@pytest.mark.parametrize(("op", "args", "where", "huge"), MOVES, ids=[row[0] for row in MOVES])
def test_it_moves_whole_to_another_node(op: str, args: dict[str, Any], where: dict[str, int], huge: int) -> None:
    t = TwoNodes()
    rollup = {name: t.rollup(name) for name in ("Rss", "Pss", "ShmemPmdMapped")}
    t.ok(op, **({"address": t.s} if op != "migrate_pages" else {}), **args)
    assert t.nodes() == where
    assert (t.count("thp_migration_success"), t.count("pgmigrate_fail"), t.count("thp_split_page"), t.count("thp_split_pmd")) == (huge, 0, 0, 0)
    assert {name: t.rollup(name) for name in rollup} == rollup and t.meminfo("ShmemHugePages") == 8
    assert t.node_meminfo(1, "ShmemHugePages") == t.node_meminfo(1, "ShmemPmdMapped") == huge * 2048
    assert t.touch(0, 8, "read") == 0
    assert t.k.view("explain_thp", pid=t.pid, address=t.s)["at"]["fault"] == "needs none, or makes the entry writable"


def test_it_moves_for_all_who_map_it_however_they_do() -> None:
    """One program maps it whole, another by small entries after a piece was cut out: `move` leaves it, `move_all` moves it for both."""
    t = TwoNodes()
    child = t.ok("fork")["pid"]
    t.ok("munmap", child, address=t.s + M // 2, length=M // 2)
    t.touch(0, 0.5, "read", child)
    t.touch(1, 1, "read", child)
    args = {"address": t.s, "pages": [0], "nodes": [1]}
    assert t.ok("move_pages", **args, flags=["move"])["status"] == "-13"
    assert t.ok("move_pages", **args, flags=["move_all"])["status"] == "1"
    assert t.count("thp_migration_success") == 1
    assert t.touch(0, 0.5, "read", child) == 0 and t.touch(0, 2) == 0


# ---------------------------------------------------------------- collapse


def test_madvise_collapse_of_shared_memory_maps_it_at_once() -> None:
    t = Shared("advise", 8)
    assert t.touch(0, 5) == 1280
    tables = int(t.k.s.mms["nr_tables"][t.mm.id][0])
    assert t.advise(2, 4, "collapse") is None
    assert (t.count("thp_collapse_alloc"), t.count("thp_file_mapped"), t.count("thp_file_alloc")) == (2, 2, 0)
    assert int(t.k.s.mms["nr_tables"][t.mm.id][0]) == tables - 2
    assert t.rollup("ShmemPmdMapped") == 4096
    assert t.meminfo("Shmem") == 6  # one megabyte of holes was filled
    assert t.touch(2, 4) == 0


# what the object has, what the caller maps of it: errno, huge pages
COLLAPSE = [
    ("nothing", None, "EINVAL", 0),
    ("small", "caller", None, 1),
    ("small", "child", "EINVAL", 1),  # made, but the caller has nothing there to map it by
    ("huge", "child", None, 1),  # it is there: the caller gets an entry
]


@pytest.mark.parametrize(("has", "who", "errno", "huge"), COLLAPSE)
def test_madvise_collapse_says_what_came_of_it(has: str, who: str | None, errno: str | None, huge: int) -> None:
    t = Shared("advise", 2)
    child = t.ok("fork")["pid"]
    if has == "huge":
        t.set(THP + "shmem_enabled", "always")
    if who is not None:
        t.touch(0, 2, pid=child if who == "child" else t.pid)
    assert t.advise(0, 2, "collapse") == errno
    assert t.meminfo("ShmemHugePages") == 2 * huge


def test_small_entries_of_a_huge_page_give_way_to_one() -> None:
    t = Shared("always", 4)
    t.touch(0, 4)
    t.ok("mprotect", address=t.s, length=M, prot="r")
    t.touch(0, 2, "read")
    assert t.rollup("ShmemPmdMapped") == 2048
    t.ok("mprotect", address=t.s, length=M, prot="rw")
    assert t.advise(0, 2, "collapse") is None
    assert t.rollup("ShmemPmdMapped") == 4096
    assert t.count("thp_collapse_alloc") == 0


def test_khugepaged_collapses_the_object_and_frees_every_page_table() -> None:
    t = Shared("never", 2)
    t.set(THP + "enabled", "always")
    t.set(THP + "shmem_enabled", "always")
    t.s = t.map(4)
    child = t.ok("fork")["pid"]
    t.set(THP + "shmem_enabled", "deny")
    t.touch(0, 3)
    t.touch(0, 2, "read", child)
    t.set(THP + "shmem_enabled", "always")
    t.set(THP + "khugepaged/scan_sleep_millisecs", 10)
    t.k.advance(100_000_000)
    t.k.verify()
    assert int(t.k.read(THP + "khugepaged/pages_collapsed")) == 2
    assert t.meminfo("ShmemHugePages") == 4
    assert t.rollup("ShmemPmdMapped") == 0
    assert (t.touch(0, 4), t.touch(0, 4, pid=child)) == (2, 2)
    assert t.rollup("ShmemPmdMapped", child) == 4096


def test_a_look_at_an_empty_object_counts_against_max_ptes_none() -> None:
    t = Shared("never", 2)
    t.set(THP + "enabled", "always")
    t.set(THP + "shmem_enabled", "always")
    t.s = t.map(16)
    t.k.advance(1_000_000)
    assert t.count("thp_scan_exceed_none_pte") == 8  # a round of 4,096 places


def test_collapse_reads_what_is_in_swap() -> None:
    t = Shared("never", 2, swap="64M")
    t.s = t.map(2, align=2 * M)
    t.touch(0, 2)
    t.advise(0, 1, "pageout")
    assert t.advise(0, 2, "collapse") is None
    assert t.meminfo("Shmem") == 2 and t.meminfo("ShmemHugePages") == 2
    assert t.rollup("Swap") == 0


def test_a_snapshot_keeps_them() -> None:
    t = Shared("always", 5)
    t.touch(0, 5)
    again = Kernel.restore(t.k.snapshot())
    again.verify()
    assert again.digest() == t.k.digest()
    assert again.read("/proc/meminfo") == t.k.read("/proc/meminfo")


@pytest.mark.parametrize(("at", "advice"), [(1, "remove"), (4, "pageout")])
def test_the_multi_gen_lru_keeps_the_tails_of_a_split_in_their_heads_generation(at: int, advice: str) -> None:
    t = Shared("always", 8, swap="64M", reclaim_policy="mglru")
    t.touch(0, 8)
    assert t.advise(at, 0.5, advice) is None
    assert t.count("thp_split_page") == 1
