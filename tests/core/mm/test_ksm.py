"""KSM: what is merged when, what the counters say, what a write, a fork, an exit, swap and `run` 2 do to merged pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import Kernel
from core.kernel import Result
from core.vmstat import EVENT, NR_SLAB_UNRECLAIMABLE
from tests.core.mm.space import ANON, PAGE, SHARED, K, M, Space

KSM = "/sys/kernel/mm/ksm/"
MS = 1_000_000
PAGES_OF_128M = 32768


class Merger(Space):
    """A machine with ksmd set up, and processes by their index."""

    def __init__(self, memory: str = "512M", processes: int = 1, scan: int = 1 << 20, sharing: int = 256, run: bool = True, **machine: Any) -> None:
        super().__init__(memory, **machine)
        self.pids = [self.pid, *(self.spawn() for _ in range(processes - 1))]
        self.set("pages_to_scan", scan)
        self.set("sleep_millisecs", 20)
        self.set("max_page_sharing", sharing)
        if run:
            self.set("run", 1)

    def set(self, name: str, value: object) -> None:
        self.ok_put(KSM + name, value)

    def ok_put(self, path: str, value: object) -> None:
        assert self.k.call("put", path=path, data=str(value).encode()).errno is None

    def get(self, name: str) -> int:
        return int(self.read(KSM + name))

    def counts(self) -> tuple[int, int, int, int]:
        return self.get("pages_shared"), self.get("pages_sharing"), self.get("pages_unshared"), self.get("pages_volatile")

    def scans(self, n: int) -> None:
        """Let time pass until `n` more full scans are over."""
        goal = self.get("full_scans") + n
        for _ in range(1000):
            if self.get("full_scans") >= goal:
                break
            self.k.advance(20 * MS)
        else:
            raise AssertionError("ksmd does not scan")
        self.k.verify()

    def offer(self, process: int, length: int, fill: int | None = None, pages: Sequence[int] | None = None) -> int:
        """A region of a process, written and offered."""
        pid = self.pids[process]
        address = int(self.ok("mmap", pid, length=length, prot="rw", flags=ANON)["address"])
        self.fill(process, address, length, fill)
        self.ok("madvise", pid, address=address, length=length, advice="mergeable")
        return address

    def fill(self, process: int, address: int, length: int, fill: int | None) -> Result:
        return self.call("touch", self.pids[process], address=address, length=length, access="write", fill=fill)

    def vmstat(self, name: str) -> int:
        return next(int(line.split()[1]) for line in self.read("/proc/vmstat").splitlines() if line.split()[0] == name)

    def machine_anon(self) -> int:
        """AnonPages, kB."""
        return next(int(line.split()[1]) for line in self.read("/proc/meminfo").splitlines() if line.startswith("AnonPages"))

    def smaps(self, process: int) -> dict[str, int]:
        text = self.k.read(f"/proc/{self.pids[process]}/smaps_rollup").decode()
        return {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}


# ---------------------------------------------------------------- the peer's counter sequences: three processes of 128 MiB


CHARS: list[tuple[str, str, tuple[int, int, int, int]]] = [
    # content of each process, and the counters after two more scans
    ("c, a, a", "caa", (2, 98302, 0, 0)),
    ("a, b, c", "abc", (3, 98301, 0, 0)),
    ("d, d, d", "ddd", (1, 98303, 0, 0)),
    ("d, d, d and one page e", "ddde", (1, 98302, 1, 0)),
]


def test_the_counters_of_98304_pages_in_sequence() -> None:
    machine = Merger(processes=3, sharing=98304)
    regions = [machine.offer(i, 128 * M, 0) for i in range(3)]
    for name, contents, expected in CHARS:
        for i, (region, char) in enumerate(zip(regions, contents, strict=False)):
            machine.fill(i, region, 128 * M, ord(char))
        if len(contents) > 3:
            machine.fill(1, regions[1], PAGE, ord(contents[3]))
        machine.scans(3)
        assert machine.counts() == expected, name
    machine.set("run", 2)
    assert machine.counts() == (0, 0, 0, 0)
    assert machine.get("run") == 2
    assert machine.get("full_scans") == 0
    assert all(machine.smaps(i)["Rss"] >= 128 * 1024 for i in range(3))


@pytest.mark.parametrize(("across", "expected"), [(1, (1, 199)), (0, (2, 198))])
def test_pages_of_two_nodes(across: int, expected: tuple[int, int]) -> None:
    machine = Merger("256M", nodes=2, cpus=2, run=False)
    machine.set("merge_across_nodes", across)
    machine.set("run", 1)
    for node in range(2):
        address = machine.mmap(100 * PAGE)
        machine.ok("mbind", address=address, length=100 * PAGE, mode="bind", nodes=[node])
        machine.touch(address, 100 * PAGE, fill=7)
        machine.ok("madvise", address=address, length=100 * PAGE, advice="mergeable")
    machine.scans(3)
    assert machine.counts()[:2] == expected


def test_ten_thousand_pages_of_their_own_never_merge() -> None:
    machine = Merger()
    address = machine.mmap(40 * M)
    machine.touch(address, 40 * M, fill=1)
    for at in range(0, 10240 * PAGE, 256 * PAGE):
        machine.k.call("touch", machine.pid, address=address + at, length=256 * PAGE, access="write", fill=at // (256 * PAGE))
        machine.k.call("touch", machine.pid, address=address + at, length=256 * PAGE, access="write")
    machine.ok("madvise", address=address, length=40 * M, advice="mergeable")
    machine.scans(4)
    # each block of 256 pages: the page whose number equals the fill is uniform, the others differ in their first byte
    shared, sharing, unshared, volatile = machine.counts()
    assert (shared, sharing, volatile) == (0, 0, 0)
    assert unshared == 10240


# ---------------------------------------------------------------- chains


@pytest.mark.parametrize(("pages", "sharing", "expected"), [
    (1024, 256, (4, 1020, 4, 1)), (1024, 1024, (1, 1023, 0, 0)), (1000, 256, (4, 996, 4, 1)), (257, 256, (1, 255, 0, 0)), (258, 256, (2, 256, 2, 1)),
    (10, 2, (5, 5, 5, 1)), (9, 2, (4, 4, 4, 1)), (2, 256, (1, 1, 0, 0)),
])  # fmt: skip
def test_max_page_sharing(pages: int, sharing: int, expected: tuple[int, int, int, int]) -> None:
    machine = Merger(sharing=sharing)
    machine.offer(0, pages * PAGE, 5)
    machine.scans(3)
    found = (machine.get("pages_shared"), machine.get("pages_sharing"), machine.get("stable_node_dups"), machine.get("stable_node_chains"))
    assert found == expected


def test_a_page_beyond_the_limit_waits_for_a_twin() -> None:
    machine = Merger(sharing=256)
    machine.offer(0, 257 * PAGE, 5)
    machine.scans(3)
    assert machine.counts() == (1, 255, 1, 0)


def test_pruning_collapses_a_chain_with_one_dup_left() -> None:
    machine = Merger(sharing=256)
    address = machine.offer(0, 512 * PAGE, 5)
    machine.scans(3)
    assert (machine.get("stable_node_dups"), machine.get("stable_node_chains")) == (2, 1)
    machine.ok("munmap", address=address, length=300 * PAGE)
    machine.k.advance(2500 * MS)
    machine.offer(0, 2 * PAGE, 5)  # ksmd passes there
    machine.scans(4)
    assert (machine.get("stable_node_dups"), machine.get("stable_node_chains")) == (0, 0)
    assert machine.get("pages_shared") == 1


# ---------------------------------------------------------------- when


def test_a_page_is_merged_in_the_second_scan_at_the_earliest() -> None:
    machine = Merger()
    machine.offer(0, 64 * PAGE, 3)  # ksmd wakes at once
    assert (machine.get("full_scans"), machine.counts()) == (1, (0, 0, 0, 64))
    machine.scans(1)
    assert machine.counts() == (1, 63, 0, 0)


def test_what_changes_between_two_scans_is_volatile() -> None:
    machine = Merger()
    address = machine.offer(0, 8 * PAGE, 1)
    for value in range(2, 8):
        machine.fill(0, address, 8 * PAGE, value)
        machine.scans(1)
        assert machine.counts() == (0, 0, 0, 8)


@pytest.mark.parametrize(("scan", "sleep", "rounds"), [(100, 20, 11), (1024, 20, 1), (1024, 200, 1)])
def test_the_pace_is_pages_to_scan_every_sleep_millisecs(scan: int, sleep: int, rounds: int) -> None:
    machine = Merger(scan=scan, run=False)
    machine.set("sleep_millisecs", sleep)
    machine.offer(0, 1024 * PAGE, 1)
    machine.set("run", 1)
    per_round = sleep * MS + scan * machine.k.costs.ksm_page
    machine.k.advance((rounds - 1) * per_round - MS)
    assert machine.get("full_scans") == 0
    machine.k.advance(2 * per_round)
    assert machine.get("full_scans") == 1


def test_a_shorter_sleep_takes_effect_at_once() -> None:
    machine = Merger(scan=1024, run=False)
    machine.set("sleep_millisecs", 1_000_000)
    machine.offer(0, 16 * PAGE, 1)
    machine.set("run", 1)
    machine.k.advance(100 * MS)
    machine.set("sleep_millisecs", 4)
    machine.k.advance(100 * MS)
    assert machine.counts() == (1, 15, 0, 0)


def test_ksmd_stops_and_goes_on() -> None:
    machine = Merger()
    machine.offer(0, 16 * PAGE, 1)
    machine.set("run", 0)
    machine.k.advance(500 * MS)
    scans = machine.get("full_scans")
    machine.k.advance(500 * MS)
    assert machine.get("full_scans") == scans
    machine.set("run", 1)
    machine.scans(2)
    assert machine.counts() == (1, 15, 0, 0)


# ---------------------------------------------------------------- what is offered


@pytest.mark.parametrize(("flags", "file", "merged"), [(ANON, None, True), (SHARED, None, False), (["private"], "/data/f", False)])
def test_only_private_anonymous_pages(flags: list[str], file: str | None, merged: bool) -> None:
    machine = Merger()
    machine.ok("create_file", path="/data/f", size=64 * PAGE)
    address = machine.mmap(64 * PAGE, flags=flags, **({"file": file} if file else {}))
    machine.touch(address, 64 * PAGE, "write" if file is None else "read", fill=1)
    machine.ok("madvise", address=address, length=64 * PAGE, advice="mergeable")
    machine.k.advance(500 * MS)
    machine.k.verify()
    assert machine.counts() == ((1, 63, 0, 0) if merged else (0, 0, 0, 0))


def test_private_copies_of_file_pages_merge_if_they_are_alike() -> None:
    machine = Merger()
    machine.ok("create_file", path="/data/f", size=64 * PAGE)
    address = machine.mmap(64 * PAGE, flags=["private"], file="/data/f")
    machine.touch(address, 32 * PAGE, fill=9)
    machine.touch(address + 32 * PAGE, 32 * PAGE)  # one byte each: the rest is the file's
    machine.ok("madvise", address=address, length=64 * PAGE, advice="mergeable")
    machine.scans(3)
    assert machine.counts() == (1, 31, 32, 0)


def test_a_store_of_the_same_byte_makes_the_page_alike_again() -> None:
    machine = Merger()
    address = machine.offer(0, 8 * PAGE, 3)
    machine.touch(address, 8 * PAGE)  # access i stores i + 1: page 2 gets its own 3 back
    machine.touch(address + 6 * PAGE, 2 * PAGE, fill=3)
    machine.scans(3)
    assert machine.counts() == (1, 2, 5, 0)


# ---------------------------------------------------------------- the bill


def test_rss_stays_pss_and_memory_shrink() -> None:
    machine = Merger(processes=2)
    before = machine.machine_anon()
    addresses = [machine.offer(i, 4 * M, 7) for i in range(2)]
    apart = [machine.smaps(i) for i in range(2)]
    machine.scans(3)
    for i in range(2):
        seen = {name: kb - apart[i][name] for name, kb in machine.smaps(i).items()}
        # each of the 4096 kB counts as a 256th
        assert (seen["Rss"], seen["Anonymous"], seen["Pss"]) == (0, 0, -4096 + 4096 // 256)
        assert (seen["Private_Dirty"], seen["Shared_Dirty"]) == (-4096, 4096)
    assert machine.machine_anon() - before == 8 * 4  # 2048 pages by 256 sharers
    assert [int(machine.k.read(f"/proc/{pid}/ksm_merging_pages")) for pid in machine.pids] == [1024, 1024]
    assert machine.k.read(f"/proc/{machine.pid}/ksm_stat") == b"ksm_rmap_items 1024\n"
    pfn = machine.k.view("walk", pid=machine.pid, address=addresses[0])["frame"]["pfn"]
    flags = int.from_bytes(machine.k.pread("/proc/kpageflags", pfn * 8, 8), "little")
    assert flags >> 21 & 1  # KPF_KSM
    assert int.from_bytes(machine.k.pread("/proc/kpagecount", pfn * 8, 8), "little") == 256


def test_rmap_items_are_slab() -> None:
    machine = Merger()
    before = machine.k.s.node_stat.sum(axis=0)
    machine.offer(0, 16 * M, 7)
    machine.scans(3)
    slab = machine.k.s.node_stat.sum(axis=0)[NR_SLAB_UNRECLAIMABLE] - before[NR_SLAB_UNRECLAIMABLE]
    assert slab in (64, 65)  # 64 bytes for each of 4096 rmap_items, 16 dups and their chain


# ---------------------------------------------------------------- writes and forks


def test_a_write_copies_even_for_the_last_user() -> None:
    machine = Merger()
    address = machine.offer(0, 2 * PAGE, 1)
    machine.scans(3)
    assert machine.counts() == (1, 1, 0, 0)
    before = machine.vmstat("cow_ksm")
    for page in range(2):
        answer = machine.touch(address + page * PAGE, PAGE, fill=50 + page)
        assert answer.minor == 1
    assert machine.vmstat("cow_ksm") - before == 2
    assert machine.counts() == (1, 1, 0, 0)  # ksmd has not passed yet
    machine.scans(2)
    assert machine.counts() == (0, 0, 2, 0)


def test_reading_copies_nothing() -> None:
    machine = Merger()
    address = machine.offer(0, 64 * PAGE, 1)
    machine.scans(3)
    assert machine.touch(address, 64 * PAGE, "read").minor == 0
    assert machine.counts() == (1, 63, 0, 0)


def test_a_child_joins_and_its_writes_are_its_own() -> None:
    machine = Merger()
    address = machine.offer(0, 64 * PAGE, 1)
    machine.scans(3)
    child = machine.ok("fork")["pid"]
    machine.scans(2)
    assert machine.counts() == (1, 127, 0, 0)
    machine.call("touch", child, address=address, length=8 * PAGE, access="write", fill=2)
    machine.scans(3)
    assert machine.counts() == (2, 126, 0, 0)
    machine.call("exit", child)
    machine.scans(2)
    assert machine.counts() == (1, 63, 0, 0)


def test_everybody_gone_leaves_nothing_in_the_end() -> None:
    machine = Merger(processes=3)
    for i in range(3):
        machine.offer(i, 64 * PAGE, i)
    machine.scans(3)
    assert machine.counts() == (3, 189, 0, 0)
    machine.call("exit", machine.pids[0])
    machine.call("exit", machine.pids[1])
    machine.call("exec", machine.pids[2], path="/bin/sh")
    machine.k.advance(500 * MS)
    machine.k.verify()
    assert machine.k.ksmd.slots == []
    assert machine.get("pages_sharing") == 0
    machine.set("run", 2)
    assert machine.counts() == (0, 0, 0, 0)
    assert int(machine.k.s.ksm[0]["nodes"]) == 0
    new = machine.spawn()
    assert machine.k.tasks[new].mm is not None  # rows of the dead are used again
    machine.k.verify()


@pytest.mark.parametrize("how", ["munmap", "dontneed", "mprotect", "mremap"])
def test_mappings_change_under_ksmd(how: str) -> None:
    machine = Merger()
    address = machine.offer(0, 64 * PAGE, 1)
    machine.scans(3)
    half = {"address": address, "length": 32 * PAGE}
    match how:
        case "munmap":
            machine.ok("munmap", **half)
        case "dontneed":
            machine.ok("madvise", **half, advice="dontneed")
        case "mprotect":
            machine.ok("mprotect", **half, prot="r")
        case "mremap":
            machine.ok("mremap", address=address, old_length=64 * PAGE, new_length=128 * PAGE, may_move=True)
    machine.scans(3)
    assert machine.counts() == ((1, 63, 0, 0) if how in ("mprotect", "mremap") else (1, 31, 0, 0))


def test_merging_a_page_that_only_a_fork_shares() -> None:
    machine = Merger(run=False)
    address = machine.offer(0, 16 * PAGE, 1)
    machine.touch(address, 16 * PAGE)
    child = machine.ok("fork")["pid"]
    machine.set("run", 1)
    machine.scans(3)
    # the same page in both: not worth a KSM page; content 1 of page 0 is alone, too
    assert machine.counts()[:2] == (0, 0)
    machine.call("exit", child)


# ---------------------------------------------------------------- unmerging


def test_unmergeable_copies_back() -> None:
    machine = Merger()
    address = machine.offer(0, 64 * PAGE, 1)
    machine.scans(3)
    answer = machine.call("madvise", address=address, length=32 * PAGE, advice="unmergeable")
    assert (answer.errno, answer.minor) == (None, 32)
    assert machine.vmstat("cow_ksm") == 32
    machine.scans(2)
    assert machine.counts() == (1, 31, 0, 0)
    assert len([vma for vma in machine.mm.vmas if vma.start * PAGE in (address, address + 32 * PAGE)]) == 2


def test_unmerging_a_read_only_mapping_leaves_it_read_only() -> None:
    machine = Merger()
    address = machine.offer(0, 16 * PAGE, 1)
    machine.scans(3)
    machine.ok("mprotect", address=address, length=16 * PAGE, prot="r")
    machine.ok("madvise", address=address, length=16 * PAGE, advice="unmergeable")
    assert machine.touch(address, PAGE).signal == "SIGSEGV"
    assert machine.touch(address, 16 * PAGE, "read").minor == 0


def test_run_2_without_memory_for_the_copies() -> None:
    machine = Merger("64M")
    machine.ok_put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    machine.call("mkdir", path="/sys/fs/cgroup/g")
    machine.ok_put("/sys/fs/cgroup/g/cgroup.procs", machine.pid)
    machine.offer(0, 8 * M, 1)
    machine.scans(3)
    machine.ok_put("/sys/fs/cgroup/g/memory.max", "4M")
    machine.ok_put("/sys/fs/cgroup/g/memory.oom.group", "0")
    machine.k.call("put", path=KSM + "run", data=b"2")
    machine.k.verify()


@pytest.mark.parametrize("name", ["max_page_sharing", "merge_across_nodes"])
def test_busy_while_pages_are_shared(name: str) -> None:
    machine = Merger()
    machine.offer(0, 16 * PAGE, 1)
    machine.scans(3)
    value = 3 if name == "max_page_sharing" else 0
    assert machine.errno("put", path=KSM + name, data=str(value).encode()) == "EBUSY"
    machine.ok_put(KSM + name, machine.get(name))  # what it is already
    machine.set("run", 2)
    machine.ok_put(KSM + name, value)
    assert machine.get(name) == value


@pytest.mark.parametrize(("name", "value"), [
    ("run", "3"), ("run", "x"), ("run", "-1"), ("max_page_sharing", "1"), ("max_page_sharing", "-4"), ("merge_across_nodes", "2"),
    ("use_zero_pages", "maybe"), ("use_zero_pages", "ox"), ("pages_to_scan", "4294967296"), ("sleep_millisecs", ""),
])  # fmt: skip
def test_bad_settings_change_nothing(name: str, value: str) -> None:
    machine = Merger()
    answer = machine.k.call("put", path=KSM + name, data=value.encode())
    assert answer.errno == "EINVAL"
    assert machine.k.ksm == Kernel.boot(machine.k.machine).ksm | {"pages_to_scan": 1 << 20, "run": 1}


@pytest.mark.parametrize("name", ["pages_shared", "full_scans"])
def test_counters_are_read_only(name: str) -> None:
    machine = Merger()
    assert machine.errno("put", path=KSM + name, data=b"1") == "EACCES"


# ---------------------------------------------------------------- zero pages


def test_use_zero_pages() -> None:
    machine = Merger(run=False)
    machine.set("use_zero_pages", "y")
    address = machine.offer(0, 64 * PAGE, 0)
    machine.fill(0, address + 32 * PAGE, 32 * PAGE, 5)
    rss = machine.anon()
    machine.set("run", 1)
    machine.scans(4)
    assert machine.counts() == (1, 31, 0, 0)
    assert rss - machine.anon() == 32 * 4
    assert machine.touch(address, PAGE).minor == 1
    assert machine.vmstat("cow_ksm") == 0


# ---------------------------------------------------------------- swap


def test_a_ksm_page_is_swapped_once_and_read_back_as_copies() -> None:
    machine = Merger("128M", processes=2, swap="64M")
    machine.ok_put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    machine.call("mkdir", path="/sys/fs/cgroup/g")
    for pid in machine.pids:
        machine.ok_put("/sys/fs/cgroup/g/cgroup.procs", pid)
    regions = [machine.offer(i, 64 * PAGE, 7) for i in range(2)]
    machine.scans(3)
    assert machine.counts() == (1, 127, 0, 0)
    machine.set("run", 0)
    for _ in range(4):
        machine.call("put", path="/sys/fs/cgroup/g/memory.reclaim", data=b"4M")
    used = sum(int(area["used"]) for area in machine.k.s.swaps)
    assert used > 0
    assert machine.k.view("walk", pid=machine.pids[0], address=regions[0])["present"] is False
    for i in range(2):
        answer = machine.call("touch", machine.pids[i], address=regions[i], length=64 * PAGE, access="read")
        assert answer.major + answer.minor == 64
    assert machine.vmstat("ksm_swpin_copy") == 127
    machine.set("run", 1)
    machine.scans(4)
    assert machine.counts() == (1, 127, 0, 0)


# ---------------------------------------------------------------- NUMA


def test_a_ksm_page_that_moves_changes_trees() -> None:
    machine = Merger("256M", nodes=2, cpus=2, run=False, sharing=256)
    machine.set("merge_across_nodes", 0)
    machine.set("run", 1)
    regions = []
    for node in range(2):
        address = machine.mmap(2 * PAGE)
        machine.ok("mbind", address=address, length=2 * PAGE, mode="bind", nodes=[node])
        machine.touch(address, 2 * PAGE, fill=7)
        machine.ok("madvise", address=address, length=2 * PAGE, advice="mergeable")
        regions.append(address)
    machine.scans(3)
    assert machine.counts() == (2, 2, 0, 0)
    machine.touch(regions[0], PAGE, fill=9)  # the KSM page of node 0 has one user left: it can move
    machine.ok("mbind", address=regions[0], length=2 * PAGE, mode="bind", nodes=[1], flags=["move"])
    machine.scans(4)
    # it belongs to node 1's tree now, where its content is known already: ksmd lets go of it, but Linux cannot merge a KSM page (page_address_in_vma)
    assert machine.counts() == (1, 1, 1, 1)


# ---------------------------------------------------------------- the rest of the machine


def test_snapshot_goes_on_in_the_middle_of_a_scan() -> None:
    machine = Merger(scan=100, processes=2)
    machine.offer(0, 512 * PAGE, 1)
    machine.offer(1, 512 * PAGE, 1)
    machine.k.advance(150 * MS)
    other = Kernel.restore(machine.k.snapshot())
    assert other.digest() == machine.k.digest()
    for k in (machine.k, other):
        k.advance(2000 * MS)
        k.verify()
    assert other.digest() == machine.k.digest()
    assert machine.get("pages_sharing") > 0


def test_events_tell_what_ksmd_did() -> None:
    machine = Merger()
    address = machine.offer(0, 64 * PAGE, 1)
    machine.scans(3)
    machine.ok("madvise", address=address, length=64 * PAGE, advice="unmergeable")
    told = [(event.kind, event.pages) for event in machine.k.drain() if event.type == "ksm"]
    assert told == [("scan", 64), ("merge", 64), ("scan", 64), ("unmerge", 64)]


@pytest.mark.parametrize(("where", "fate"), [(0, "merged"), (63, "unshared"), (64, "absent"), (100, None)])
def test_explain(where: int, fate: str | None) -> None:
    machine = Merger()
    address = machine.mmap(66 * PAGE)
    machine.touch(address, 64 * PAGE, fill=1)
    machine.touch(address + 63 * PAGE, PAGE, fill=2)
    machine.ok("madvise", address=address, length=66 * PAGE, advice="mergeable")
    machine.scans(3)
    told = machine.k.view("explain_ksm", pid=machine.pid, address=address + where * PAGE)
    if fate is None:
        return
    assert told["page"]["fate"] == fate
    assert told["mappings"][0]["fates"] == {"merged": 63, "unshared": 1, "volatile": 0, "new": 0, "zero": 0, "not_anonymous": 0, "swapped": 0,
                                            "absent": 2}  # fmt: skip
    assert told["page"]["sharers"] == (63 if fate == "merged" else 0)


def test_the_walk_says_that_a_write_copies() -> None:
    machine = Merger()
    address = machine.offer(0, 2 * PAGE, 1)
    machine.scans(3)
    machine.touch(address, PAGE, fill=3)
    walk = machine.k.view("walk", pid=machine.pid, address=address + PAGE)
    assert walk["frame"]["ksm"] is True
    assert "wp_page_copy" in walk["write"]["path"]


# ---------------------------------------------------------------- random programs

OPS = st.one_of(
    st.tuples(st.just("fill"), st.integers(0, 2), st.integers(0, 60), st.integers(1, 20), st.integers(0, 2)),
    st.tuples(st.just("write"), st.integers(0, 2), st.integers(0, 60), st.integers(1, 20), st.just(0)),
    st.tuples(st.just("scan"), st.integers(1, 3), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("fork"), st.integers(0, 2), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("exit"), st.integers(0, 2), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("unmap"), st.integers(0, 2), st.integers(0, 60), st.integers(1, 9), st.just(0)),
    st.tuples(st.just("advise"), st.integers(0, 2), st.integers(0, 60), st.integers(1, 30), st.integers(0, 2)),
    st.tuples(st.just("run"), st.integers(0, 2), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("reclaim"), st.integers(1, 3), st.just(0), st.just(0), st.just(0)),
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(OPS, min_size=4, max_size=16))
def test_random_programs_keep_every_rule(steps: list[tuple[str, int, int, int, int]]) -> None:
    machine = Merger("64M", processes=3, swap="16M", scan=40, sharing=4)
    machine.ok_put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    machine.call("mkdir", path="/sys/fs/cgroup/g")
    regions: list[tuple[int, int]] = []
    for i, pid in enumerate(machine.pids):
        machine.ok_put("/sys/fs/cgroup/g/cgroup.procs", pid)
        regions.append((pid, machine.offer(i, 64 * PAGE, i & 1)))
    for op, who, first, pages, kind in steps:
        if not regions:
            break
        pid, base = regions[who % len(regions)]
        where = {"address": base + first * PAGE, "length": min(pages, 64 - first) * PAGE}
        match op:
            case "fill":
                machine.call("touch", pid, **where, access="write", fill=kind)
            case "write":
                machine.call("touch", pid, **where, access="write")
            case "scan":
                machine.k.advance(who * 50 * MS)
            case "fork":
                regions.append((int(machine.ok("fork", pid)["pid"]), base))
            case "exit":
                machine.call("exit", pid)
                regions = [one for one in regions if one[0] != pid]
            case "unmap":
                machine.call("munmap", pid, **where)
            case "advise":
                machine.call("madvise", pid, **where, advice=("mergeable", "unmergeable", "pageout")[kind])
            case "run":
                machine.call("put", path=KSM + "run", data=str(who).encode())
            case "reclaim":
                machine.k.call("put", path="/sys/fs/cgroup/g/memory.reclaim", data=f"{who * 64 * K}".encode())
        regions = [one for one in regions if one[0] in machine.k.tasks and machine.k.tasks[one[0]].mm is not None]
        machine.k.verify()


# ---------------------------------------------------------------- huge pages


def huge_region(machine: Merger) -> int:
    machine.ok_put("/sys/kernel/mm/transparent_hugepage/enabled", "always")
    return machine.mmap(4 * 1024 * K, align=2048 * K)


def test_a_huge_page_comes_apart_when_one_of_its_frames_finds_a_twin() -> None:
    """One frame of a huge page is full of fives, as 16 small pages are; the other 511 are zeros."""
    machine = Merger(sharing=2000)
    heap = huge_region(machine)
    machine.touch(heap + 7 * PAGE, PAGE, fill=5)
    small = machine.mmap(16 * PAGE)
    machine.touch(small, 16 * PAGE, fill=5)
    for address, length in ((heap, 2048 * K), (small, 16 * PAGE)):
        machine.ok("madvise", address=address, length=length, advice="mergeable")
    split = int(machine.k.s.vm_event[EVENT["thp_split_page"]])
    machine.scans(4)
    assert machine.counts()[:2] == (2, 16 + 510)
    assert int(machine.k.s.vm_event[EVENT["thp_split_page"]]) == split + 1
    machine.k.verify()


def test_twins_within_one_huge_page_are_merged_a_scan_later() -> None:
    machine = Merger()
    heap = huge_region(machine)
    machine.touch(heap, 2048 * K, fill=9)
    machine.ok("madvise", address=heap, length=2048 * K, advice="mergeable")
    failed = int(machine.k.s.vm_event[EVENT["thp_split_page_failed"]])
    machine.scans(2)  # the second finds them unchanged, and splits
    assert int(machine.k.s.vm_event[EVENT["thp_split_page_failed"]]) == failed + 1
    machine.scans(2)
    assert machine.get("pages_shared") + machine.get("pages_sharing") == 512
    machine.k.verify()
