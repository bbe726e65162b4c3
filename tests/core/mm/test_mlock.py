"""mlock: what counts for the mapping, what for the page, and who may."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.mm.space import ANON, PAGE, SHARED, K, M, Space


def locked(space: Space) -> tuple[int, int]:
    """(VmLck, Mlocked) in kB."""
    return space.status("VmLck"), space.meminfo("Mlocked")


# name: (steps on 16 MiB: call, first MiB, MiB), (VmLck, Mlocked) in MiB
COUNTS: dict[str, tuple[list[tuple[str, int, int]], tuple[int, int]]] = {
    "half of it": ([("mlock", 0, 8)], (8, 8)),
    "twice the same": ([("mlock", 0, 8), ("mlock", 0, 8)], (8, 8)),
    "overlapping": ([("mlock", 0, 8), ("mlock", 4, 8)], (12, 12)),
    "and unlocked in the middle": ([("mlock", 0, 12), ("munlock", 4, 4)], (8, 8)),
    "unlocked": ([("mlock", 0, 8), ("munlock", 0, 16)], (0, 0)),
    "unmapped": ([("mlock", 0, 8), ("munmap", 0, 4)], (4, 4)),
}


@pytest.mark.parametrize("case", COUNTS)
def test_mapping_and_pages_are_counted_apart(space: Space, case: str) -> None:
    steps, (vm_lck, mlocked) = COUNTS[case]
    h = space.mmap(16 * M)
    first = locked(space)
    for name, at, size in steps:
        space.ok(name, address=h + at * M, length=size * M)
    assert [after - before for before, after in zip(first, locked(space), strict=True)] == [vm_lck * 1024, mlocked * 1024]
    assert space.meminfo("Unevictable") - first[1] == mlocked * 1024


def test_mlock_faults_in_and_munlock_leaves_it_there(space: Space) -> None:
    h = space.mmap(8 * M)
    assert space.call("mlock", address=h, length=4 * M).minor == 1024
    assert space.smaps("Rss", h) == space.smaps("Locked", h) == 4096
    assert space.call("munlock", address=h, length=4 * M).minor == 0
    assert space.smaps("Rss", h) == 4096
    assert space.smaps("Locked", h) == 0
    assert "lo" not in space.read("/proc/<pid>/smaps")


def test_a_read_only_mapping_is_faulted_in_by_reading(space: Space) -> None:
    h = space.mmap(M, "r")
    before = locked(space)
    assert space.call("mlock", address=h, length=M).minor == 256
    assert locked(space) == (before[0] + 1024, before[1])  # the zero page is nobody's: nothing is mlocked


def test_onfault_waits_for_the_touch(space: Space) -> None:
    h = space.mmap(M)
    before = locked(space)
    assert space.call("mlock", address=h, length=M, onfault=True).minor == 0
    assert locked(space) == (before[0] + 1024, before[1])
    space.touch(h, M // 2)
    assert locked(space) == (before[0] + 1024, before[1] + 512)


def test_a_part_of_a_page_is_the_page(space: Space) -> None:
    h = space.mmap(4 * PAGE)
    space.ok("mlock", address=h + PAGE + 100, length=PAGE)
    assert space.status("VmLck") == 8
    assert space.draw(h, 4 * PAGE) == "ABBC"


# name: (arguments of mlock on 8 pages at 0x10000000, prot, errno)
ERRNO: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "a hole behind it": ({"length": 9 * PAGE}, "rw", "ENOMEM"),
    "nothing there": ({"address": 0x20000000, "length": PAGE}, "rw", "ENOMEM"),
    "wraps": ({"length": (1 << 64) - 2 * PAGE}, "rw", "EINVAL"),
    "rounds up to nothing": ({"length": (1 << 64) - 1}, "rw", None),
    "no length": ({"length": 0}, "rw", None),
    "cannot be faulted in": ({"length": PAGE}, "none", "ENOMEM"),
}


@pytest.mark.parametrize("case", ERRNO)
def test_errno(space: Space, case: str) -> None:
    arguments, prot, errno = ERRNO[case]
    space.mmap(8 * PAGE, prot, [*ANON, "fixed"], address=0x10000000)
    assert space.errno("mlock", **{"address": 0x10000000, **arguments}) == errno


def test_what_lies_before_a_hole_is_locked(space: Space) -> None:  # ML-A1, ML-A3
    space.mmap(8 * PAGE, flags=[*ANON, "fixed"], address=0x10000000)
    assert space.errno("mlock", address=0x10000000, length=9 * PAGE) == "ENOMEM"
    assert space.status("VmLck") == 32
    h = space.mmap(4 * PAGE, "none")
    assert space.errno("mlock", address=h, length=4 * PAGE) == "ENOMEM"
    assert space.status("VmLck") == 48  # PROT_NONE cannot be faulted in, yet it is locked


# uid, RLIMIT_MEMLOCK, call, errno
LIMITS: dict[str, tuple[int, int | None, str, dict[str, Any], str | None]] = {
    "root is not bound": (0, 64 * K, "mlock", {"length": M}, None),
    "a user is": (1000, 64 * K, "mlock", {"length": M}, "ENOMEM"),
    "up to the limit": (1000, 64 * K, "mlock", {"length": 64 * K}, None),
    "a page more": (1000, 64 * K, "mlock", {"length": 64 * K + 1}, "ENOMEM"),
    "no limit": (1000, None, "mlock", {"length": M}, None),
    "limit 0": (1000, 0, "mlock", {"length": PAGE}, "EPERM"),
    "limit 0 and root": (0, 0, "mlock", {"length": PAGE}, None),
    "mmap, locked": (1000, 64 * K, "mmap", {"length": M, "prot": "rw", "flags": [*ANON, "locked"]}, "EAGAIN"),
    "mmap, locked, limit 0": (1000, 0, "mmap", {"length": PAGE, "prot": "rw", "flags": [*ANON, "locked"]}, "EPERM"),
    "all of it": (1000, 64 * K, "mlockall", {"flags": ["current"]}, "ENOMEM"),
    "what is to come": (1000, 64 * K, "mlockall", {"flags": ["future"]}, None),
    "mlockall of nothing": (1000, None, "mlockall", {"flags": []}, "EINVAL"),
    "mlockall onfault alone": (1000, None, "mlockall", {"flags": ["onfault"]}, "EINVAL"),
}


@pytest.mark.parametrize("case", LIMITS)
def test_who_may_lock_how_much(space: Space, case: str) -> None:
    uid, limit, call, arguments, errno = LIMITS[case]
    h = space.mmap(M)
    space.ok("setrlimit", resource="memlock", **({} if limit is None else {"limit": limit}))
    space.ok("setuid", uid=uid)
    assert space.errno(call, **({"address": h} if call == "mlock" else {}), **arguments) == errno


def test_pages_locked_already_do_not_count_twice(space: Space) -> None:  # ML-A2
    h = space.mmap(M)
    space.ok("setrlimit", resource="memlock", limit=64 * K)
    space.ok("setuid", uid=1000)
    space.ok("mlock", address=h, length=48 * K)
    assert space.errno("mlock", address=h + 16 * K, length=48 * K) is None
    assert space.errno("mlock", address=h + 64 * K, length=PAGE) == "ENOMEM"


def test_mlockall_locks_what_is_there_and_what_comes(space: Space) -> None:  # ML-A6
    space.ok("mlockall", flags=["current", "future"])
    special = sum(vma.pages for vma in space.mm.vmas if vma.special)
    assert space.mm.locked_vm == space.mm.total_vm - special
    assert space.call("mmap", length=M, prot="rw", flags=ANON).minor == 256
    assert space.call("brk", increment=M).minor == 256
    child = space.ok("fork")["pid"]
    assert space.k.tasks[child].mm.locked_vm == 0  # type: ignore[union-attr]
    assert space.call("mmap", child, length=M, prot="rw", flags=ANON).minor == 0
    space.ok("munlockall")
    assert space.mm.locked_vm == 0
    assert space.call("mmap", length=M, prot="rw", flags=ANON).minor == 0


def test_a_page_that_two_lock_stays_locked_until_both_let_go(space: Space) -> None:
    h = space.mmap(M, flags=SHARED)
    space.touch(h, M)
    child = space.ok("fork")["pid"]
    before = space.meminfo("Mlocked")
    space.ok("mlock", address=h, length=M)
    space.ok("mlock", child, address=h, length=M)
    assert space.meminfo("Mlocked") - before == 1024
    space.ok("munlock", address=h, length=M)
    assert space.meminfo("Mlocked") - before == 1024
    space.ok("munlock", child, address=h, length=M)
    assert space.meminfo("Mlocked") == before


@pytest.mark.parametrize("kind", ["shared memory", "a file"])
def test_pages_are_locked_as_they_are_faulted_in_and_counted_once(space: Space, kind: str) -> None:
    space.k.call("create_file", path="/data/f", size=M)
    first = space.meminfo("Mlocked")
    h = space.mmap(M, "r", ["shared"], file="/data/f") if kind == "a file" else space.mmap(M, flags=SHARED)
    twin = space.ok("mremap", address=h, old_length=0, new_length=M)["address"]
    mlocked = []
    for call, address, length in (
        ("mlock", h, M), ("mlock", twin, M), ("munmap", twin, M), ("munmap", h, M // 2), ("munmap", h + M // 2, M // 2),
    ):  # fmt: skip
        space.ok(call, address=address, length=length)
        mlocked.append(space.meminfo("Mlocked") - first)
    assert mlocked == [1024, 1024, 1024, 512, 0]
    assert space.meminfo("Unevictable") == first


def test_a_copy_takes_the_lock_along(space: Space) -> None:
    h = space.mmap(M, flags=[*ANON, "locked"])
    before = space.meminfo("Mlocked")
    child = space.ok("fork")["pid"]
    space.touch(h, M)  # each page is copied: the child's is no longer locked, the parent's is
    assert space.meminfo("Mlocked") == before
    space.ok("exit", child)
    assert space.meminfo("Mlocked") == before


def test_events_are_counted_by_page(space: Space) -> None:
    names = ("unevictable_pgs_mlocked", "unevictable_pgs_munlocked", "unevictable_pgs_culled", "unevictable_pgs_rescued")
    h = space.mmap(M)
    space.touch(h, M)
    before = [space.vmstat(name) for name in names]
    space.ok("mlock", address=h, length=M)
    space.ok("munlock", address=h, length=M)
    assert [space.vmstat(name) - was for name, was in zip(names, before, strict=True)] == [256, 256, 256, 256]
