"""mlock, madvise, msync, mincore, soft-dirty and pagemap: the statements of the manual pages, one row each."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.peer.box import ANON, FREE, PAGE, Box, K, M

KB = 1024
# kB by which a counter of status may lag: 64 events are kept with the task (SPLIT_RSS_COUNTING).
RSS_LAG = 256


@pytest.fixture
def box() -> Box:
    return Box(memory="512M", swap="64M")


def entries(box: Box, pid: int, address: int, pages: int) -> list[int]:
    """pagemap's entries of a range."""
    raw = box.kernel.pread(f"/proc/{pid}/pagemap", address // PAGE * 8, 8 * pages)
    return list(struct.unpack(f"<{pages}Q", raw))


def bit(entry: int, number: int) -> int:
    return entry >> number & 1


# ---- mlock -----------------------------------------------------------------------------------------------------


def test_a1_a_range_is_rounded_to_pages(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, 4 * PAGE)
    box.ok(pid, "mlock", address=address + 100, length=PAGE)
    assert box.status(pid)["VmLck"] == 8
    assert box.smaps(pid, address)["VmFlags"].split().count("lo") == 1


def test_a1_a_hole_is_enomem_and_what_is_mapped_is_locked(box: Box) -> None:
    pid = box.spawn()
    box.fixed(pid, 0, 2)
    box.fixed(pid, 3, 1)
    assert box.call(pid, "mlock", address=FREE, length=4 * PAGE).errno == "ENOMEM"
    assert box.status(pid)["VmLck"] == 8


def test_a2_locking_twice_counts_once(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, 8 * PAGE)
    for _ in range(2):
        box.ok(pid, "mlock", address=address, length=6 * PAGE)
    assert box.status(pid)["VmLck"] == 24


def test_a3_prot_none_cannot_be_faulted_in_but_stays_locked(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, 4 * PAGE, "none")
    assert box.call(pid, "mlock", address=address, length=4 * PAGE).errno == "ENOMEM"
    assert box.status(pid)["VmLck"] == 16
    assert "lo" in box.smaps(pid, address)["VmFlags"].split()


def test_a4_munlock_gives_pages_back_to_the_lists(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M)
    before = box.meminfo()
    box.ok(pid, "mlock", address=address, length=M)
    locked = box.meminfo()
    box.ok(pid, "munlock", address=address, length=M)
    after = box.meminfo()
    assert locked["Mlocked"] - before["Mlocked"] == 1024
    assert locked["Unevictable"] - before["Unevictable"] == 1024
    assert after["Mlocked"] == before["Mlocked"]
    assert after["Unevictable"] == before["Unevictable"]


def test_a5_locking_faults_in(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M)
    box.ok(pid, "mlock", address=address, length=M)
    assert box.smaps_kb(pid, address, "Rss") == 1024
    assert box.touch(pid, address, M).minor == 0


def test_a6_fork_drops_locks(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M)
    box.ok(pid, "mlock", address=address, length=M)
    child = int(box.ok(pid, "fork")["pid"])
    assert box.status(child)["VmLck"] == 0
    assert "lo" not in box.smaps(child, address)["VmFlags"].split()
    assert box.status(pid)["VmLck"] == 1024


def test_a6_mlockall_future(box: Box) -> None:
    pid = box.spawn()
    assert box.call(pid, "mlockall", flags=[]).errno == "EINVAL"
    assert box.call(pid, "mlockall", flags=["onfault"]).errno == "EINVAL"
    box.ok(pid, "mlockall", flags=["future"])
    address = box.mmap(pid, 4 * PAGE)
    assert box.status(pid)["VmLck"] == 16
    assert box.touch(pid, address, 4 * PAGE).minor == 0
    box.ok(pid, "munlockall")
    assert box.status(pid)["VmLck"] == 0


def test_exec_drops_locks(box: Box) -> None:
    pid = box.spawn()
    box.ok(pid, "mlock", address=box.mmap(pid, M), length=M)
    before = box.meminfo()["Mlocked"]
    box.ok(pid, "exec", path="/bin/true")
    assert box.status(pid)["VmLck"] == 0
    assert before - box.meminfo()["Mlocked"] == 1024


def test_map_locked(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M, "rw", [*ANON, "locked"])
    assert box.status(pid)["VmLck"] == 1024
    assert box.touch(pid, address, M).minor == 0
    box.ok(pid, "munmap", address=address, length=M)
    assert box.status(pid)["VmLck"] == 0


# ---- madvise ---------------------------------------------------------------------------------------------------


def test_ma02_dontneed_of_anonymous_memory(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M)
    box.touch(pid, address, M)
    assert box.smaps_kb(pid, address, "Rss") == 1024
    box.ok(pid, "madvise", address=address, length=M, advice="dontneed")
    assert box.smaps_kb(pid, address, "Rss") == 0
    assert box.touch(pid, address, M).minor == 256


def test_ma02_dontneed_of_a_private_file_loses_the_copies(box: Box) -> None:
    pid = box.spawn()
    box.kernel.call("create_file", path="/data/f", size=M)
    address = box.mmap(pid, M, "rw", ["private"], file="/data/f")
    box.touch(pid, address, M)
    assert box.smaps_kb(pid, address, "Anonymous") == 1024
    box.ok(pid, "madvise", address=address, length=M, advice="dontneed")
    assert box.smaps_kb(pid, address, "Rss") == 0
    assert box.touch(pid, address, M, "read").major == 0
    assert box.smaps_kb(pid, address, "Anonymous") == 0


def test_ma02_dontneed_of_shared_memory_keeps_the_data(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M, "rw", ["shared", "anonymous"])
    box.touch(pid, address, M)
    before = box.meminfo()["Shmem"]
    box.ok(pid, "madvise", address=address, length=M, advice="dontneed")
    assert box.smaps_kb(pid, address, "Rss") == 0
    assert box.meminfo()["Shmem"] == before


def test_ma03_free_keeps_pages_until_they_are_wanted(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M)
    box.touch(pid, address, M)
    rss, lazy = box.status(pid)["RssAnon"], box.vmstat()["pglazyfree"]
    box.ok(pid, "madvise", address=address, length=M, advice="free")
    assert box.status(pid)["RssAnon"] == rss
    assert box.smaps_kb(pid, address, "LazyFree") == 1024
    assert box.vmstat()["pglazyfree"] - lazy == 256
    box.touch(pid, address, 64 * PAGE)
    assert box.smaps_kb(pid, address, "LazyFree") == 1024 - 256


def test_ma07_willneed_reads_ahead_without_mapping(box: Box) -> None:
    pid = box.spawn()
    box.kernel.call("create_file", path="/data/f", size=M)
    address = box.mmap(pid, M, "r", ["private"], file="/data/f")
    cached = box.meminfo()["Cached"]
    found = box.call(pid, "madvise", address=address, length=M, advice="willneed")
    assert (found.errno, found.minor, found.major) == (None, 0, 0)
    assert box.smaps_kb(pid, address, "Rss") == 0
    assert box.meminfo()["Cached"] - cached == 1024
    assert box.touch(pid, address, M, "read").major == 0


@pytest.mark.parametrize("advice", ["populate_read", "populate_write"])
def test_ma08_populate_counts_as_the_callers_faults(box: Box, advice: str) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M)
    found = box.call(pid, "madvise", address=address, length=M, advice=advice)
    assert (found.errno, found.minor) == (None, 256)
    assert box.touch(pid, address, M, "read").minor == 0
    assert box.smaps_kb(pid, address, "Rss") == (1024 if advice == "populate_write" else 0)


VMFLAGS = [  # MA-10
    ("dontfork", "dc"),
    ("wipeonfork", "wf"),
    ("mergeable", "mg"),
    ("hugepage", "hg"),
    ("nohugepage", "nh"),
    ("dontdump", "dd"),
    ("random", "rr"),
    ("sequential", "sr"),
]


@pytest.mark.parametrize(("advice", "letters"), VMFLAGS)
def test_ma10_flags(box: Box, advice: str, letters: str) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M)
    assert letters not in box.smaps(pid, address)["VmFlags"].split()
    box.ok(pid, "madvise", address=address, length=M, advice=advice)
    assert letters in box.smaps(pid, address)["VmFlags"].split()


def test_ma10_dontfork_and_wipeonfork(box: Box) -> None:
    pid = box.spawn()
    for page in (0, 2, 4):
        box.fixed(pid, page, 1)
        box.touch(pid, FREE + page * PAGE, PAGE)
    box.ok(pid, "madvise", address=FREE, length=PAGE, advice="dontfork")
    box.ok(pid, "madvise", address=FREE + 2 * PAGE, length=PAGE, advice="wipeonfork")
    child = int(box.ok(pid, "fork")["pid"])
    assert box.spans(child) == [(2, 3), (4, 5)]
    assert box.smaps_kb(child, FREE + 2 * PAGE, "Rss") == 0
    assert box.smaps_kb(child, FREE + 4 * PAGE, "Rss") == 4


# ---- msync, mincore --------------------------------------------------------------------------------------------


def test_msa2_sync_cleans_and_protects_again(box: Box) -> None:
    pid = box.spawn()
    box.kernel.call("create_file", path="/data/f", size=M)
    address = box.mmap(pid, M, "rw", ["shared"], file="/data/f")
    before = box.meminfo()["Dirty"]
    box.touch(pid, address, M)
    assert box.meminfo()["Dirty"] - before == 1024
    assert box.touch(pid, address, M).minor == 0
    box.ok(pid, "msync", address=address, length=M)
    assert box.meminfo()["Dirty"] == before
    assert box.smaps_kb(pid, address, "Private_Dirty") == 0
    assert box.touch(pid, address, M).minor == 256


def resident(box: Box, pid: int, address: int, length: int) -> int:
    return int(box.ok(pid, "mincore", address=address, length=length)["resident"])


def test_mca1_mincore(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, M)
    assert resident(box, pid, address, M) == 0
    box.touch(pid, address, 10 * PAGE)
    assert resident(box, pid, address, M) == 10
    box.pagecache(pid, "/data/f", 64 * K)
    file = box.mmap(pid, 64 * K, "r", ["shared"], file="/data/f")
    assert resident(box, pid, file, 64 * K) == 16
    shared = box.mmap(pid, 64 * K, "rw", ["shared", "anonymous"])
    box.touch(pid, shared, 4 * PAGE)
    other = int(box.ok(pid, "fork")["pid"])
    assert resident(box, other, shared, 64 * K) == 4


# ---- pagemap, clear_refs ---------------------------------------------------------------------------------------


def test_pm03_the_zero_page_is_present_and_nobodys(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, 2 * PAGE)
    box.touch(pid, address, PAGE, "read")
    read, untouched = entries(box, pid, address, 2)
    assert (bit(read, 63), bit(read, 56), bit(read, 61), bit(read, 62)) == (1, 0, 0, 0)
    assert untouched & ~(1 << 55) == 0


def test_pm01_exclusive_shared_and_file(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, PAGE)
    box.touch(pid, address, PAGE)
    (own,) = entries(box, pid, address, 1)
    assert (bit(own, 63), bit(own, 56), bit(own, 61)) == (1, 1, 0)
    child = int(box.ok(pid, "fork")["pid"])
    (first,), (second,) = entries(box, pid, address, 1), entries(box, child, address, 1)
    assert bit(first, 56) == bit(second, 56) == 0
    assert first & ((1 << 55) - 1) == second & ((1 << 55) - 1)
    box.touch(child, address, PAGE)
    (first,), (second,) = entries(box, pid, address, 1), entries(box, child, address, 1)
    assert bit(first, 56) == bit(second, 56) == 1
    assert first & ((1 << 55) - 1) != second & ((1 << 55) - 1)
    box.pagecache(pid, "/data/f", PAGE)
    file = box.mmap(pid, PAGE, "r", ["shared"], file="/data/f")
    box.touch(pid, file, PAGE, "read")
    assert bit(entries(box, pid, file, 1)[0], 61) == 1


def test_pm04_soft_dirty(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, 8 * PAGE)
    box.touch(pid, address, 8 * PAGE)
    box.set(f"/proc/{pid}/clear_refs", 4)
    assert [bit(entry, 55) for entry in entries(box, pid, address, 8)] == [0] * 8
    assert box.touch(pid, address, 2 * PAGE).minor == 2
    box.touch(pid, address + 4 * PAGE, PAGE, "read")
    assert [bit(entry, 55) for entry in entries(box, pid, address, 8)] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_pm05_referenced(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, 8 * PAGE)
    box.touch(pid, address, 8 * PAGE)
    assert box.smaps_kb(pid, address, "Referenced") == 32
    box.set(f"/proc/{pid}/clear_refs", 1)
    assert box.smaps_kb(pid, address, "Referenced") == 0
    box.touch(pid, address, 2 * PAGE, "read")
    assert box.smaps_kb(pid, address, "Referenced") == 8


def test_pm04_clear_refs_5_resets_the_peak(box: Box) -> None:
    pid = box.spawn()
    address = box.mmap(pid, 8 * M)
    box.touch(pid, address, 8 * M)
    box.ok(pid, "munmap", address=address, length=8 * M)
    assert box.status(pid)["VmHWM"] - box.status(pid)["VmRSS"] >= 8 * 1024 - 2 * RSS_LAG
    box.set(f"/proc/{pid}/clear_refs", 5)
    assert box.status(pid)["VmHWM"] == box.status(pid)["VmRSS"]


@pytest.mark.parametrize("value", ["0", "6", "x"])
def test_pm04_other_values_are_einval(box: Box, value: str) -> None:
    pid = box.spawn()
    assert box.put(f"/proc/{pid}/clear_refs", value) == "EINVAL"


# ---- errors: what is wrong, and the errno ----------------------------------------------------------------------

A, B, HOLE, FILE, LOCKED, SHARED = (FREE + page * PAGE for page in (0, 4, 8, 16, 32, 48))

ERRORS: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("MM-07 length 0", "mmap", {"length": 0, "flags": ANON}, "EINVAL"),
    ("MM-07 longer than the address space", "mmap", {"length": 1 << 48, "flags": ANON}, "ENOMEM"),
    ("MM-07 a length that wraps", "mmap", {"length": (1 << 64) - 1, "flags": ANON}, "ENOMEM"),
    ("MM-07 neither shared nor private", "mmap", {"length": PAGE, "flags": ["anonymous"]}, "EINVAL"),
    ("MM-07 both", "mmap", {"length": PAGE, "flags": ["anonymous", "shared", "private"]}, "EINVAL"),
    ("MM-07 no such file", "mmap", {"length": PAGE, "flags": ["private"], "file": "/data/none"}, "ENOENT"),
    ("MM-07 offset within a page", "mmap", {"length": PAGE, "flags": ["private"], "file": "/data/f", "offset": 100}, "EINVAL"),
    ("MM-08 fixed, unaligned", "mmap", {"length": PAGE, "flags": [*ANON, "fixed"], "address": A + 1}, "EINVAL"),
    ("MM-08 fixed beyond user space", "mmap", {"length": PAGE, "flags": [*ANON, "fixed"], "address": 0x7FFFFFFFF000}, "ENOMEM"),
    ("MM-08 no replacing", "mmap", {"length": PAGE, "flags": [*ANON, "fixed_noreplace"], "address": A}, "EEXIST"),
    ("MM-08 no replacing where nothing is", "mmap", {"length": PAGE, "flags": [*ANON, "fixed_noreplace"], "address": HOLE}, None),
    ("MM-12 mprotect unaligned", "mprotect", {"address": A + 1, "length": PAGE, "prot": "r"}, "EINVAL"),
    ("MM-13 mprotect nothing", "mprotect", {"address": A, "length": 0, "prot": "r"}, None),
    ("MM-13 mprotect a hole", "mprotect", {"address": HOLE, "length": PAGE, "prot": "r"}, "ENOMEM"),
    ("MM-13 mprotect into a hole", "mprotect", {"address": B, "length": 8 * PAGE, "prot": "r"}, "ENOMEM"),
    ("MM-15 munmap unaligned", "munmap", {"address": A + 1, "length": PAGE}, "EINVAL"),
    ("MM-15 munmap nothing", "munmap", {"address": A, "length": 0}, "EINVAL"),
    ("MM-15 munmap a hole", "munmap", {"address": HOLE, "length": PAGE}, None),
    ("MM-15 munmap beyond user space", "munmap", {"address": A, "length": 1 << 48}, "EINVAL"),
    ("MM-16 mremap to nothing", "mremap", {"address": A, "old_length": PAGE, "new_length": 0}, "EINVAL"),
    ("MM-16 mremap unaligned", "mremap", {"address": A + 1, "old_length": PAGE, "new_length": 2 * PAGE}, "EINVAL"),
    ("MM-16 mremap over two mappings", "mremap", {"address": A, "old_length": 8 * PAGE, "new_length": 9 * PAGE}, "EFAULT"),
    ("MM-16 mremap a hole", "mremap", {"address": HOLE, "old_length": PAGE, "new_length": 2 * PAGE}, "EFAULT"),
    ("MM-16 no room and no moving", "mremap", {"address": A, "old_length": 4 * PAGE, "new_length": 5 * PAGE, "may_move": False}, "ENOMEM"),
    ("MM-16 to a place, without moving", "mremap",
     {"address": A, "old_length": PAGE, "new_length": PAGE, "may_move": False, "new_address": HOLE}, "EINVAL"),
    ("MM-16 onto itself", "mremap",
     {"address": A, "old_length": 4 * PAGE, "new_length": 4 * PAGE, "may_move": True, "new_address": A + PAGE}, "EINVAL"),
    ("MM-16 old length 0 of a private mapping", "mremap", {"address": A, "old_length": 0, "new_length": PAGE, "may_move": True}, "EINVAL"),
    ("MM-16 old length 0 of a shared mapping", "mremap",
     {"address": SHARED, "old_length": 0, "new_length": PAGE, "may_move": True}, None),
    ("MA-01 madvise unaligned", "madvise", {"address": A + 1, "length": PAGE, "advice": "normal"}, "EINVAL"),
    ("MA-01 madvise nothing", "madvise", {"address": A, "length": 0, "advice": "dontneed"}, None),
    ("MA-01 madvise a hole", "madvise", {"address": B, "length": 8 * PAGE, "advice": "dontneed"}, "ENOMEM"),
    ("MA-02 dontneed of locked memory", "madvise", {"address": LOCKED, "length": PAGE, "advice": "dontneed"}, "EINVAL"),
    ("MA-04 dontneed_locked", "madvise", {"address": LOCKED, "length": PAGE, "advice": "dontneed_locked"}, None),
    ("MA-03 free of a file mapping", "madvise", {"address": FILE, "length": PAGE, "advice": "free"}, "EINVAL"),
    ("MA-03 free of shared memory", "madvise", {"address": SHARED, "length": PAGE, "advice": "free"}, "EINVAL"),
    ("MA-06 pageout of locked memory", "madvise", {"address": LOCKED, "length": PAGE, "advice": "pageout"}, "EINVAL"),
    ("MA-08 populate_write of a read-only file", "madvise", {"address": FILE, "length": PAGE, "advice": "populate_write"}, "EINVAL"),
    ("MA-08 populate beyond the file's end", "madvise",
     {"address": FILE + PAGE, "length": PAGE, "advice": "populate_read"}, "EFAULT"),
    ("MA-08 populate a hole", "madvise", {"address": HOLE, "length": PAGE, "advice": "populate_read"}, "ENOMEM"),
    ("MA-10 wipeonfork of a file", "madvise", {"address": FILE, "length": PAGE, "advice": "wipeonfork"}, "EINVAL"),
    ("MS-A1 msync unaligned", "msync", {"address": A + 1, "length": PAGE}, "EINVAL"),
    ("MS-A1 sync and async", "msync", {"address": A, "length": PAGE, "flags": ["sync", "async"]}, "EINVAL"),
    ("MS-A1 msync a hole", "msync", {"address": HOLE, "length": PAGE}, "ENOMEM"),
    ("MS-A1 invalidate locked memory", "msync", {"address": LOCKED, "length": PAGE, "flags": ["invalidate"]}, "EBUSY"),
    ("MC-A1 mincore unaligned", "mincore", {"address": A + 1, "length": PAGE}, "EINVAL"),
    ("MC-A1 mincore a hole", "mincore", {"address": HOLE, "length": PAGE}, "ENOMEM"),
    ("ML-A1 mlock a hole", "mlock", {"address": HOLE, "length": PAGE}, "ENOMEM"),
    ("ML-A4 munlock a hole", "munlock", {"address": HOLE, "length": PAGE}, "ENOMEM"),
    ("fadvise no file", "fadvise", {"path": "/data/none", "advice": "dontneed"}, "ENOENT"),
    ("read no file", "read", {"path": "/data/none", "offset": 0, "length": 1}, "ENOENT"),
    ("fsync no file", "fsync", {"path": "/data/none"}, "ENOENT"),
    ("kill by no signal", "kill", {"signal": "SIGNOT"}, "EINVAL"),
    ("an affinity of no CPU", "sched_setaffinity", {"cpus": [77]}, "EINVAL"),
]  # fmt: skip


@pytest.fixture(scope="module")
def prepared() -> tuple[bytes, int]:
    """A process with one mapping of each kind, as a snapshot: each row starts from the same state."""
    box = Box(memory="512M", swap="64M")
    box.kernel.call("create_file", path="/data/f", size=PAGE)
    pid = box.spawn()
    box.fixed(pid, 0, 4)
    box.fixed(pid, 4, 4, "r")
    box.mmap(pid, 4 * PAGE, "r", ["private", "fixed"], address=FILE, file="/data/f")
    box.mmap(pid, 4 * PAGE, "rw", [*ANON, "fixed", "locked"], address=LOCKED)
    box.mmap(pid, 4 * PAGE, "rw", ["shared", "anonymous", "fixed"], address=SHARED)
    return box.kernel.snapshot(), pid


@pytest.mark.parametrize(("op", "args", "errno"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_errors(prepared: tuple[bytes, int], op: str, args: dict[str, Any], errno: str | None) -> None:
    from core import Kernel

    blob, pid = prepared
    found = Kernel.restore(blob).call(op, pid, **args)
    assert (found.errno, found.signal, found.killed) == (errno, None, [])


def test_mm13_what_lies_before_the_hole_is_changed(box: Box) -> None:
    pid = box.spawn()
    box.fixed(pid, 0, 2)
    assert box.call(pid, "mprotect", address=FREE, length=4 * PAGE, prot="r").errno == "ENOMEM"
    assert box.vmas(pid) == [(0, 2, "r--p", 0)]


def test_ma01_the_rest_beyond_a_hole_is_processed(box: Box) -> None:
    pid = box.spawn()
    for page in (0, 2):
        box.fixed(pid, page, 1)
        box.touch(pid, FREE + page * PAGE, PAGE)
    assert box.call(pid, "madvise", address=FREE, length=3 * PAGE, advice="dontneed").errno == "ENOMEM"
    assert [box.smaps_kb(pid, FREE + page * PAGE, "Rss") for page in (0, 2)] == [0, 0]


LIMITS = [  # MM-19
    ("as", "mmap", {"length": 64 * M, "prot": "r", "flags": ANON}, "ENOMEM"),
    ("data", "mmap", {"length": 64 * M, "prot": "rw", "flags": ANON}, "ENOMEM"),
    ("data", "mmap", {"length": 64 * M, "prot": "r", "flags": ANON}, None),
    ("data", "brk", {"increment": 64 * M}, "ENOMEM"),
]


@pytest.mark.parametrize(("resource", "op", "args", "errno"), LIMITS)
def test_mm19_resource_limits(box: Box, resource: str, op: str, args: dict[str, Any], errno: str | None) -> None:
    pid = box.spawn()
    box.ok(pid, "setrlimit", resource=resource, limit=32 * M)
    assert box.call(pid, op, **args).errno == errno


def test_mm18_brk(box: Box) -> None:
    pid = box.spawn()
    start = int(box.ok(pid, "brk", increment=0)["address"])
    end = int(box.ok(pid, "brk", increment=M)["address"])
    assert end - start == M
    heap = next(line for line in box.maps(pid) if line.endswith("[heap]"))
    assert int(heap.split()[0].split("-")[1], 16) == (end + PAGE - 1) // PAGE * PAGE
    box.touch(pid, start // PAGE * PAGE + PAGE, M // 2)
    rss = box.status(pid)["RssAnon"]
    box.ok(pid, "brk", increment=-M)
    assert rss - box.status(pid)["RssAnon"] >= M // 2 // KB - 2 * RSS_LAG
    assert box.ok(pid, "brk", increment=0)["address"] == start


def test_mm05_the_stacks_guard_gap(box: Box) -> None:
    """No mapping within 256 pages below a stack, and no growth into another mapping's gap."""
    pid = box.spawn(catch_signals=True)
    stack = next(int(line.split("-")[0], 16) for line in box.maps(pid) if line.endswith("[stack]"))
    neighbour = stack - 300 * PAGE
    box.mmap(pid, PAGE, "rw", [*ANON, "fixed"], address=neighbour)
    assert box.touch(pid, stack - 40 * PAGE, PAGE).signal is None
    assert box.touch(pid, neighbour + 100 * PAGE, PAGE).signal == "SIGSEGV"


def test_pf26_the_stack_grows_to_its_limit(box: Box) -> None:
    pid = box.spawn(catch_signals=True)
    top = next(int(line.split()[0].split("-")[1], 16) for line in box.maps(pid) if line.endswith("[stack]"))
    assert box.touch(pid, top - 8 * M + PAGE, PAGE).signal is None
    assert box.touch(pid, top - 8 * M - 2 * PAGE, PAGE).signal == "SIGSEGV"
