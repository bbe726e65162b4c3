"""Transparent huge pages: who gets one, what takes it apart, and what stays of it. Each step is checked by `verify`."""

from __future__ import annotations

from typing import Any

import pytest

from core.abi.page_flags import KPF_THP
from core.mm import huge_memory
from core.mm.swapon import drain_caches
from core.vmstat import EVENT
from tests.core.mm.space import ANON, K, M, Space

HUGE = 2 * M


class Huge(Space):
    """A machine with huge pages on and a region of 16 MiB that begins at a multiple of 2 MiB."""

    def __init__(self, memory: str = "768M", mode: str = "always", pages: int = 8, **machine: Any) -> None:
        super().__init__(memory, transparent_hugepage=mode, **machine)
        self.h = int(self.ok("mmap", length=pages * HUGE, prot="rw", flags=ANON, align=HUGE)["address"])
        self.start = self.k.s.vm_event.copy()

    def count(self, event: str) -> int:
        return int(self.k.s.vm_event[EVENT[event]] - self.start[EVENT[event]])

    def huge(self, pid: int | None = None) -> int:
        """AnonHugePages of the process, in huge pages."""
        text = self.k.read(f"/proc/{pid or self.pid}/smaps_rollup").decode()
        return int(text.split("AnonHugePages:")[1].split()[0]) // 2048

    def write(self, at: int = 0, length: int = HUGE, pid: int | None = None) -> int:
        answer = self.call("touch", pid, address=self.h + at, length=length, access="write")
        assert (answer.errno, answer.signal) == (None, None), answer
        return answer.minor

    def advise(self, at: int, length: int, advice: str, pid: int | None = None) -> str | None:
        return self.call("madvise", pid, address=self.h + at, length=length, advice=advice).errno

    def thp(self, name: str, value: object) -> None:
        self.set(f"/sys/kernel/mm/transparent_hugepage/{name}", value)


# ---------------------------------------------------------------- who gets one


def test_a_write_takes_a_huge_page_and_a_page_table_is_put_by() -> None:
    t = Huge()
    tables = t.k.s.mms["nr_tables"][t.mm.id].tolist()
    assert t.write(0, 4 * M) == 2
    assert t.huge() == 2 and t.count("thp_fault_alloc") == 2
    assert t.k.s.mms["nr_tables"][t.mm.id].tolist() == [tables[0] + 2, *tables[1:]]
    events = [e for e in t.k.drain() if e.type == "thp"]
    assert {e.kind for e in events} == {"alloc"} and sum(e.pages for e in events) == 1024


def test_a_read_maps_the_huge_zero_page_and_a_write_there_splits_it() -> None:
    t = Huge()
    assert t.call("touch", address=t.h, length=HUGE, access="read").minor == 1
    assert t.huge() == 0 and t.count("thp_zero_page_alloc") == 1
    assert t.write(0, 4 * K) == 1
    assert t.count("thp_split_pmd") == 1 and t.huge() == 0
    pagemap = t.k.pread(f"/proc/{t.pid}/pagemap", t.h // 4096 * 8, 512 * 8)
    assert all(int.from_bytes(pagemap[i : i + 8], "little") >> 63 for i in range(0, len(pagemap), 8))


@pytest.mark.parametrize(
    ("mode", "advice", "huge"),
    [
        ("always", None, 1), ("always", "nohugepage", 0), ("madvise", None, 0), ("madvise", "hugepage", 1), ("never", "hugepage", 0),
    ],
)  # fmt: skip
def test_enabled_and_advice(mode: str, advice: str | None, huge: int) -> None:
    t = Huge(mode=mode)
    if advice:
        assert t.advise(0, 16 * M, advice) is None
    t.write()
    assert t.huge() == huge


def test_small_machines_begin_with_never() -> None:
    assert Space("256M", transparent_hugepage="always").k.thp["enabled"] == "never"


def test_prctl_forbids_and_a_fork_inherits_it() -> None:
    t = Huge()
    t.ok("prctl", option="set_thp_disable", value=1)
    child = t.ok("fork")["pid"]
    t.write(pid=child)
    assert t.huge(child) == 0


def test_only_whole_two_mebibytes_of_the_mapping() -> None:
    t = Huge()
    t.ok("munmap", address=t.h + 15 * M, length=M)
    assert t.write(14 * M, M) == 256
    assert t.huge() == 0
    why = t.k.view("explain_thp", pid=t.pid, address=t.h + 14 * M)["at"]
    assert why["mapped"] == "page table" and "2 MiB" in why["why"]


@pytest.mark.parametrize(
    ("defrag", "advice", "direct"),
    [
        ("always", None, True), ("defer", "hugepage", False), ("defer+madvise", "hugepage", True), ("defer+madvise", None, False),
        ("madvise", "hugepage", True), ("madvise", None, False), ("never", "hugepage", False),
    ],
)  # fmt: skip
def test_defrag_says_who_waits_for_a_block(defrag: str, advice: str | None, direct: bool) -> None:
    t = Huge()
    t.thp("defrag", defrag)
    if advice:
        t.advise(0, 16 * M, advice)
    fault = t.k.view("explain_thp", pid=t.pid, address=t.h)["at"]["fault"]
    assert ("compacts and reclaims" in fault) == direct
    t.write(0, 4096)
    fault = t.k.view("explain_thp", pid=t.pid, address=t.h)["at"]["fault"]
    assert ("splits the entry and copies 4 KiB" in fault) == bool(t.huge())


def test_a_limit_in_the_way_falls_back() -> None:
    t = Huge()
    t.set("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    t.ok("mkdir", path="/sys/fs/cgroup/g")
    t.set("/sys/fs/cgroup/g/memory.max", "3M")
    t.set("/sys/fs/cgroup/g/cgroup.procs", str(t.pid))
    t.write(0, HUGE)
    assert t.write(HUGE, 128 * K) == 32
    assert t.huge() == 1 and t.count("thp_fault_fallback") == t.count("thp_fault_fallback_charge") > 0
    assert any(e.kind == "fallback" and "memory.max" in e.reason for e in t.k.drain() if e.type == "thp")


# ---------------------------------------------------------------- what takes it apart


@pytest.mark.parametrize(
    ("op", "args", "huge", "split_pmd", "deferred"),
    [
        ("munmap", {"length": M}, 0, 1, 1),
        ("munmap", {"length": HUGE}, 0, 0, 0),
        ("mprotect", {"length": M, "prot": "r"}, 0, 1, 0),
        ("mprotect", {"length": HUGE, "prot": "r"}, 1, 0, 0),
        ("madvise", {"length": M, "advice": "dontneed"}, 0, 1, 1),
        ("madvise", {"length": HUGE, "advice": "dontneed"}, 0, 0, 0),
        ("madvise", {"length": M, "advice": "nohugepage"}, 0, 1, 0),
        ("mlock", {"length": HUGE}, 1, 0, 0),
        ("mlock", {"length": M}, 0, 1, 0),
        ("mremap", {"old_length": HUGE, "new_length": M}, 0, 1, 1),
    ],
)
def test_a_part_splits_the_entry_the_whole_does_not(op: str, args: dict[str, Any], huge: int, split_pmd: int, deferred: int) -> None:
    t = Huge()
    t.write()
    t.ok(op, address=t.h, **args)
    assert (t.huge(), t.count("thp_split_pmd"), t.count("thp_deferred_split_page"), t.count("thp_split_page")) == (huge, split_pmd, deferred, 0)


@pytest.mark.parametrize(("advice", "split"), [("free", 1), ("cold", 1), ("pageout", 1)])
def test_advice_on_a_part_splits_the_page(advice: str, split: int) -> None:
    t = Huge(swap="64M")
    t.write()
    t.advise(0, M, advice)
    assert t.count("thp_split_page") == split and t.huge() == 0


def test_what_is_partly_unmapped_stays_until_memory_is_short() -> None:
    t = Huge()
    t.write()
    before, free = t.anon(), int(t.k.s.zones["free"].sum())
    t.advise(0, M, "dontneed")
    assert t.anon() == before - 1024 and int(t.k.s.zones["free"].sum()) == free
    assert huge_memory.deferred_split_shrink(t.k, t.k.root_cgroup, 0) == 1
    t.k.verify()
    assert int(t.k.s.zones["free"].sum()) == free + 256 and t.count("thp_split_page") == 1


def test_fork_shares_and_a_write_copies_four_kib() -> None:
    t = Huge()
    t.write(0, 4 * M)
    child = t.ok("fork")["pid"]
    assert t.huge(child) == 2
    assert t.write(0, 4 * K, pid=child) == 1
    assert t.huge(child) == 1 and t.huge() == 2 and t.count("thp_split_pmd") == 1
    t.ok("exit", child)
    assert t.write(HUGE, HUGE) == 1 and t.huge() == 2 and t.count("thp_split_pmd") == 1


# both ends aligned or not: thp02 of the Linux Test Project
@pytest.mark.parametrize(("source", "target", "huge"), [(0, 0, 2), (0, 4096, 0), (4096, 0, 0), (4096, 4096, 1)])
def test_mremap_moves_the_entry_where_both_are_aligned(source: int, target: int, huge: int) -> None:
    t = Huge()
    t.write(0, 4 * M)
    frames = [t.k.view("walk", pid=t.pid, address=t.h + source + i * 64 * K)["frame"]["pfn"] for i in range(60)]
    to = int(t.ok("mmap", length=8 * M, prot="rw", flags=ANON, align=HUGE)["address"]) + target
    t.ok("mremap", address=t.h + source, old_length=4 * M - source, new_length=4 * M - source, new_address=to)
    assert [t.k.view("walk", pid=t.pid, address=to + i * 64 * K)["frame"]["pfn"] for i in range(60)] == frames
    assert t.huge() == huge


def test_mlock_counts_512_and_small_entries_do_not_lock() -> None:
    t = Huge()
    t.write(0, 4 * M)
    before = t.meminfo("Unevictable")
    for at, length, op, locked in ((0, HUGE, "mlock", 2048), (3 * M, M, "mlock", 2048), (0, 4 * M, "munlock", 0)):
        t.ok(op, address=t.h + at, length=length)
        assert t.meminfo("Unevictable") - before == locked


# ---------------------------------------------------------------- swap


@pytest.mark.parametrize(("kind", "whole"), [("nvme", 1), ("disk", 0)])
def test_swap_out_whole_or_split(kind: str, whole: int) -> None:
    t = Huge(swap=[{"size": "64M", "kind": kind}])
    t.write()
    t.advise(0, HUGE, "pageout")
    assert (t.count("thp_swpout"), t.count("thp_swpout_fallback"), t.count("thp_split_page")) == (whole, 1 - whole, 1 - whole)
    assert t.count("pswpout") == 512 and t.count("thp_split_pmd") == 1 and t.huge() == 0
    assert t.call("touch", address=t.h, length=HUGE, access="write").result == {"touched": 512}
    t.ok("munmap", address=t.h, length=HUGE)
    drain_caches(t.k.s)  # a processor keeps up to 64 slots for the next small page
    assert int(t.k.s.swaps["used"].sum()) == 0


# ---------------------------------------------------------------- what shows it


def test_walk_kpageflags_and_numa_maps() -> None:
    t = Huge()
    t.write()
    walk = t.k.view("walk", pid=t.pid, address=t.h + 5 * 4096)
    assert [level["level"] for level in walk["levels"]] == ["pgd", "pud", "pmd"] and walk["levels"][-1]["bits"]["huge"]
    head = walk["levels"][-1]["pfn"]
    assert walk["frame"]["pfn"] == head + 5 and walk["frame"]["compound"] == {"head": head, "order": 9, "mapcount": 1}
    flags = t.k.pread("/proc/kpageflags", head * 8, 512 * 8)
    bits = [int.from_bytes(flags[i : i + 8], "little") for i in range(0, len(flags), 8)]
    assert all(bit >> KPF_THP & 1 for bit in bits) and bits[0] >> 15 & 1 and all(bit >> 16 & 1 for bit in bits[1:])
    counts = t.k.pread("/proc/kpagecount", head * 8, 512 * 8)
    assert set(counts[::8]) == {1}
    assert "anon=512" in t.k.read(f"/proc/{t.pid}/numa_maps").decode()


def test_a_snapshot_goes_on_the_same() -> None:
    t = Huge(swap="64M")
    t.write(0, 6 * M)
    t.ok("fork")
    t.advise(HUGE, M, "dontneed")
    other = type(t.k).restore(t.k.snapshot())
    for k in (t.k, other):
        k.call("touch", t.pid, address=t.h, length=8 * M, access="write")
        k.advance(30_000_000_000)
        k.verify()
    assert other.digest() == t.k.digest()


def test_fault_that_finds_no_memory_for_its_tables_leaves_nothing() -> None:
    for nth in range(1, 6):
        t = Huge()
        t.k.s.ctl[8] = nth
        t.call("touch", address=t.h, length=4096, access="write")
        assert t.huge() <= 1
