"""What the page tables say: smaps, numa_maps, pagemap, clear_refs."""

from __future__ import annotations

import struct

import pytest

from tests.core.mm.space import ANON, PAGE, SHARED, M, Space

KEYS = ("Rss", "Pss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced", "Anonymous")

# name: (kind, access of the first 16 of 32 pages, who else maps them, the line of KEYS)
SMAPS: dict[str, tuple[str, str | None, int, tuple[int, ...]]] = {
    "untouched": ("anon", None, 0, (0, 0, 0, 0, 0, 0, 0, 0)),
    "the zero page counts nowhere": ("anon", "read", 0, (0, 0, 0, 0, 0, 0, 0, 0)),
    "written": ("anon", "write", 0, (64, 64, 0, 0, 0, 64, 64, 64)),
    "shared with a child": ("anon", "write", 1, (64, 32, 0, 64, 0, 0, 64, 64)),
    "with two children": ("anon", "write", 2, (64, 21, 0, 64, 0, 0, 64, 64)),
    "shared memory, read": ("shared", "read", 0, (64, 64, 0, 0, 64, 0, 64, 0)),
    "shared memory, written": ("shared", "write", 0, (64, 64, 0, 0, 0, 64, 64, 0)),
    "a file, read": ("file", "read", 0, (64, 64, 0, 0, 64, 0, 64, 0)),
    "a file, written in private": ("private file", "write", 0, (64, 64, 0, 0, 0, 64, 64, 64)),
}


@pytest.mark.parametrize("case", SMAPS)
def test_smaps(space: Space, case: str) -> None:
    kind, access, children, line = SMAPS[case]
    space.k.call("create_file", path="/data/f", size=M)
    flags = {"anon": ANON, "shared": SHARED, "file": ["shared"], "private file": ["private"]}[kind]
    h = space.mmap(32 * PAGE, "rw", flags, **({"file": "/data/f"} if "file" in kind else {}))
    if access:
        space.touch(h, 16 * PAGE, access)
    for _ in range(children):
        space.ok("fork")
    assert tuple(space.smaps(key, h) for key in KEYS) == line
    rss, _, shared_clean, shared_dirty, private_clean, private_dirty, *_ = line
    assert rss == shared_clean + shared_dirty + private_clean + private_dirty  # FM-11


def test_a_page_is_private_again_when_the_child_is_gone(space: Space) -> None:  # FM-12
    h = space.mmap(4 * PAGE)
    space.touch(h, 4 * PAGE)
    child = space.ok("fork")["pid"]
    space.ok("touch", child, address=h, length=PAGE, access="write")
    assert [space.smaps(key, h) for key in ("Pss", "Shared_Dirty", "Private_Dirty")] == [4 + 3 * 2, 12, 4]
    space.ok("exit", child)
    assert [space.smaps(key, h) for key in ("Pss", "Shared_Dirty", "Private_Dirty")] == [16, 0, 16]


def test_locked_is_the_share_of_a_locked_mapping(space: Space) -> None:
    h = space.mmap(4 * PAGE, flags=[*SHARED, "locked"])
    assert space.smaps("Locked", h) == 16
    space.pid = space.ok("fork")["pid"]
    space.touch(h, 4 * PAGE, "read")
    assert space.smaps("Locked", h) == 0


def test_rollup_is_the_sum(space: Space) -> None:
    space.touch(space.mmap(M), M)
    rollup, smaps = space.read("/proc/<pid>/smaps_rollup"), space.read("/proc/<pid>/smaps")
    for key in KEYS:
        parts = [int(line.split()[1]) for line in smaps.splitlines() if line.startswith(key + ":")]
        total = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(key + ":"))
        assert 0 <= total - sum(parts) <= len(parts)  # each part of Pss was rounded down


# name: (kind, access, children, what a line of numa_maps says of it)
NUMA: dict[str, tuple[str, str | None, int, str]] = {
    "untouched": ("anon", None, 0, "default"),
    "written": ("anon", "write", 0, "default anon=16 dirty=16 active=0 N0=16 kernelpagesize_kB=4"),
    "shared with a child": ("anon", "write", 1, "default anon=16 dirty=16 mapmax=2 active=0 N0=16 kernelpagesize_kB=4"),
    "a file": ("file", "read", 0, "default file=/data/f mapped=16 active=0 N0=16 kernelpagesize_kB=4"),
}


@pytest.mark.parametrize("case", NUMA)
def test_numa_maps(space: Space, case: str) -> None:
    kind, access, children, line = NUMA[case]
    space.k.call("create_file", path="/data/f", size=M)
    h = space.mmap(16 * PAGE, "rw", ["shared"], file="/data/f") if kind == "file" else space.mmap(16 * PAGE)
    if access:
        space.touch(h, 16 * PAGE, access)
    for _ in range(children):
        space.ok("fork")
    assert f"{h:08x} {line}\n" in space.read("/proc/<pid>/numa_maps")


@pytest.mark.parametrize(("mode", "nodes", "shown"), [
    ("bind", [0, 1], "bind:0-1"), ("interleave", [0, 1], "interleave:0-1"), ("preferred", [1], "prefer:1"), ("local", [], "local"),
    ("preferred", [], "local"), ("preferred_many", [0, 1], "prefer (many):0-1"), ("default", [], "default"),
])  # fmt: skip
def test_policies_are_shown(mode: str, nodes: list[int], shown: str) -> None:
    space = Space(["512M", "512M"], nodes=2)  # type: ignore[arg-type]
    h = space.mmap(4 * PAGE)
    space.ok("mbind", address=h, length=4 * PAGE, mode=mode, nodes=nodes)
    assert f"{h:08x} {shown}\n" in space.read("/proc/<pid>/numa_maps")


@pytest.mark.parametrize(("mode", "nodes", "flags", "errno"), [
    ("bind", [], [], "EINVAL"), ("bind", [1], [], "EINVAL"), ("default", [0], [], "EINVAL"), ("local", [0], [], "EINVAL"),
    ("bind", [0], ["static_nodes", "relative_nodes"], "EINVAL"), ("bind", [0, 5], [], None), ("interleave", [0], ["static_nodes"], None),
])  # fmt: skip
def test_policies_that_make_no_sense(space: Space, mode: str, nodes: list[int], flags: list[str], errno: str | None) -> None:
    h = space.mmap(4 * PAGE)
    assert space.errno("mbind", address=h, length=4 * PAGE, mode=mode, nodes=nodes, flags=flags) == errno
    assert space.errno("set_mempolicy", mode=mode, nodes=nodes, flags=flags) == errno
    assert space.errno("mbind", address=h, length=5 * M * 512, mode="bind", nodes=[0]) == "EFAULT"


# ---------------------------------------------------------------- pagemap

PRESENT, FILE, EXCLUSIVE, SOFT_DIRTY = 1 << 63, 1 << 61, 1 << 56, 1 << 55


def pagemap(space: Space, address: int, pages: int) -> list[int]:
    raw = space.k.pread(f"/proc/{space.pid}/pagemap", address // PAGE * 8, pages * 8)
    return list(struct.unpack(f"<{pages}Q", raw))


FLAGS: dict[str, tuple[str, str | None, int, int]] = {
    "untouched": ("anon", None, 0, SOFT_DIRTY),
    "the zero page": ("anon", "read", 0, PRESENT | SOFT_DIRTY),
    "written": ("anon", "write", 0, PRESENT | EXCLUSIVE | SOFT_DIRTY),
    "shared with a child": ("anon", "write", 1, PRESENT | SOFT_DIRTY),
    "shared memory": ("shared", "write", 0, PRESENT | FILE | EXCLUSIVE | SOFT_DIRTY),
}


@pytest.mark.parametrize("case", FLAGS)
def test_pagemap_flags(space: Space, case: str) -> None:  # PM-01..03
    kind, access, children, flags = FLAGS[case]
    h = space.mmap(4 * PAGE, flags=SHARED if kind == "shared" else ANON)
    if access:
        space.touch(h, 4 * PAGE, access)
    for _ in range(children):
        space.ok("fork")
    entries = pagemap(space, h, 4)
    assert {entry >> 55 << 55 for entry in entries} == {flags}
    frames = [entry & ((1 << 55) - 1) for entry in entries]
    assert len(set(frames)) == (4 if access == "write" else 1)
    assert all((frame > 0) == (access is not None) for frame in frames)


def test_pagemap_of_nothing_is_zero(space: Space) -> None:
    h = space.mmap(PAGE)
    assert [bool(entry) for entry in pagemap(space, h - 2 * PAGE, 3)] == [False, False, True]


def test_reading_changes_nothing(space: Space) -> None:
    space.touch(space.mmap(M), M)
    before = space.k.digest()
    for name in ("maps", "smaps", "smaps_rollup", "numa_maps", "status"):
        space.read(f"/proc/<pid>/{name}")
    pagemap(space, 0x400000, 512)
    assert space.k.digest() == before


# ---------------------------------------------------------------- clear_refs


def soft_dirty(space: Space, address: int, pages: int) -> int:
    return sum(entry >> 55 & 1 for entry in pagemap(space, address, pages))


def test_soft_dirty_follows_writes_only(space: Space) -> None:  # PM-04
    h = space.mmap(8 * M)
    space.touch(h, 8 * M)
    assert soft_dirty(space, h, 2048) == 2048
    space.set(f"/proc/{space.pid}/clear_refs", 4)
    assert soft_dirty(space, h, 2048) == 0
    assert "sd" not in space.read("/proc/<pid>/smaps")
    assert space.touch(h, 2 * M).minor == 512  # write-protected: each first write is a fault
    assert space.touch(h + 2 * M, 2 * M, "read").minor == 0
    assert soft_dirty(space, h, 2048) == 512
    assert space.touch(h, 2 * M).minor == 0


def test_a_new_mapping_is_soft_dirty(space: Space) -> None:
    space.set(f"/proc/{space.pid}/clear_refs", 4)
    h = space.mmap(4 * PAGE)
    assert soft_dirty(space, h, 4) == 4


@pytest.mark.parametrize(("kind", "anon", "file"), [(1, 0, 0), (2, 0, 64), (3, 64, 0), (4, 64, 64), (5, 64, 64)])
def test_referenced_is_forgotten_by_kind(space: Space, kind: int, anon: int, file: int) -> None:  # PM-05
    space.k.call("create_file", path="/data/f", size=M)
    a, f = space.mmap(16 * PAGE), space.mmap(16 * PAGE, "r", ["shared"], file="/data/f")
    space.touch(a, 16 * PAGE)
    space.touch(f, 16 * PAGE, "read")
    space.set(f"/proc/{space.pid}/clear_refs", kind)
    assert (space.smaps("Referenced", a), space.smaps("Referenced", f)) == (anon, file)
    space.touch(a, 16 * PAGE, "read")
    assert space.smaps("Referenced", a) == 64


def test_the_peak_is_reset(space: Space) -> None:
    h = space.mmap(4 * M)
    space.touch(h, 4 * M)
    space.ok("munmap", address=h, length=4 * M)
    peak = space.status("VmHWM")
    assert peak - space.status("VmRSS") >= 4096 - 256
    space.set(f"/proc/{space.pid}/clear_refs", 5)
    assert space.status("VmHWM") == space.status("VmRSS")
