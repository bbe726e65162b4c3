"""madvise: flags, giving up, getting ready, reclaiming."""

from __future__ import annotations

import pytest

from tests.core.mm.space import ANON, PAGE, SHARED, K, M, Space

# advice, letters it adds to VmFlags, the advice that takes them off again
FLAGS = [
    ("random", "rr", "normal"), ("sequential", "sr", "normal"), ("dontfork", "dc", "dofork"), ("wipeonfork", "wf", "keeponfork"),
    ("dontdump", "dd", "dodump"), ("mergeable", "mg", "unmergeable"), ("hugepage", "hg", "nohugepage"), ("nohugepage", "nh", None),
]  # fmt: skip


@pytest.mark.parametrize(("advice", "letters", "undo"), FLAGS)
def test_advice_that_is_a_flag_splits_and_merges(space: Space, advice: str, letters: str, undo: str | None) -> None:  # MA-10
    h = space.mmap(12 * PAGE)
    space.ok("madvise", address=h + 4 * PAGE, length=4 * PAGE, advice=advice)
    assert space.draw(h, 12 * PAGE) == "AAAABBBBCCCC"
    text = space.read("/proc/<pid>/smaps")
    entry = text[text.index(f"{h + 4 * PAGE:08x}-") :]
    assert letters in entry[entry.index("VmFlags:") :].partition("\n")[0].split()
    if undo:
        space.ok("madvise", address=h, length=12 * PAGE, advice=undo)
        assert space.draw(h, 12 * PAGE) == "AAAAAAAAAAAA"


# name: (first page, pages, advice, errno) on 8 pages of private anonymous memory at 0x10000000, a hole, 8 more
ERRNO: dict[str, tuple[int, int, str, str | None]] = {
    "unaligned": (0, 1, "dontneed", "EINVAL"),
    "no length": (0, 0, "dontneed", None),
    "a hole: the rest takes the advice": (0, 16, "dontneed", "ENOMEM"),
    "behind everything": (64, 1, "dontneed", "ENOMEM"),
    "populate over a hole": (0, 16, "populate_write", "ENOMEM"),
    "nothing behind it to remove": (0, 1, "remove", "EINVAL"),
    "no huge pages": (0, 8, "collapse", "EINVAL"),
    "willneed of anonymous memory": (0, 8, "willneed", None),
    "cold": (0, 8, "cold", None),
    "pageout": (0, 8, "pageout", None),
}


@pytest.mark.parametrize("case", ERRNO)
def test_errno(space: Space, case: str) -> None:
    at, pages, advice, errno = ERRNO[case]
    base = 0x10000000
    for start in (0, 9):
        space.mmap(8 * PAGE, flags=[*ANON, "fixed"], address=base + start * PAGE)
    space.touch(base, 8 * PAGE)
    offset = 1 if case == "unaligned" else 0
    assert space.errno("madvise", address=base + at * PAGE + offset, length=pages * PAGE, advice=advice) == errno
    if case.startswith("a hole"):
        assert space.smaps("Rss", base) == 0


@pytest.mark.parametrize(("kind", "advice", "errno"), [
    ("locked", "dontneed", "EINVAL"), ("locked", "dontneed_locked", None), ("locked", "free", "EINVAL"), ("locked", "cold", "EINVAL"),
    ("locked", "pageout", "EINVAL"), ("shared", "free", "EINVAL"), ("shared", "wipeonfork", "EINVAL"), ("shared", "dontneed", None),
    ("shared", "mergeable", None), ("read-only", "populate_write", "EINVAL"), ("read-only", "populate_read", None),
    ("none", "populate_read", "EINVAL"), ("shared read-only", "remove", "EACCES"), ("locked shared", "remove", "EINVAL"),
])  # fmt: skip
def test_what_a_mapping_cannot_take(space: Space, kind: str, advice: str, errno: str | None) -> None:
    prot = "r" if "read-only" in kind else "none" if kind == "none" else "rw"
    flags = [*(SHARED if "shared" in kind else ANON), *(["locked"] if "locked" in kind else [])]
    h = space.mmap(4 * PAGE, prot, flags)
    assert space.errno("madvise", address=h, length=4 * PAGE, advice=advice) == errno


def test_a_split_that_is_one_too_many_is_eagain(space: Space) -> None:
    h = space.mmap(4 * PAGE)
    space.set("/proc/sys/vm/max_map_count", space.mm.map_count)
    assert space.errno("madvise", address=h + PAGE, length=PAGE, advice="random") == "EAGAIN"


# ---------------------------------------------------------------- giving up


def test_dontneed_gives_anonymous_memory_back(space: Space) -> None:  # MA-02
    h = space.mmap(4 * M)
    space.touch(h, 4 * M)
    before = space.meminfo("AnonPages")
    space.ok("madvise", address=h, length=M, advice="dontneed")
    assert before - space.meminfo("AnonPages") == 1024
    assert space.smaps("Rss", h) == 3072
    assert space.touch(h, M, "read").minor == 256  # zero pages
    assert space.smaps("Rss", h) == 3072
    assert space.touch(h, M).minor == 256


def test_dontneed_of_shared_memory_only_unmaps_it(space: Space) -> None:
    h = space.mmap(M, flags=SHARED)
    space.touch(h, M)
    shmem = space.meminfo("Shmem")
    space.ok("madvise", address=h, length=M, advice="dontneed")
    assert (space.smaps("Rss", h), space.meminfo("Shmem")) == (0, shmem)


def test_dontneed_of_a_private_file_loses_what_was_written(space: Space) -> None:
    space.k.call("create_file", path="/data/f", size=M)
    h = space.mmap(M, "rw", ["private"], file="/data/f")
    space.touch(h, M)
    assert space.smaps("Anonymous", h) == 1024
    space.ok("madvise", address=h, length=M, advice="dontneed")
    answer = space.touch(h, M, "read")
    assert (answer.major, space.smaps("Anonymous", h), space.smaps("Rss", h)) == (0, 0, 1024)


def test_free_keeps_the_pages_until_memory_is_short(space: Space) -> None:  # MA-03
    h = space.mmap(2 * M)
    space.touch(h, 2 * M)
    inactive_file, lazy = space.meminfo("Inactive(file)"), space.vmstat("pglazyfree")
    space.ok("madvise", address=h, length=M, advice="free")
    assert space.smaps("Rss", h) == 2048
    assert space.smaps("LazyFree", h) == 1024
    assert space.meminfo("Inactive(file)") - inactive_file == 1024
    assert space.vmstat("pglazyfree") - lazy == 256
    assert space.touch(h, 512 * K).minor == 0  # a write keeps a page
    assert space.smaps("LazyFree", h) == 512


def test_free_of_pages_shared_by_fork_frees_only_ones_own_view(space: Space) -> None:
    h = space.mmap(M)
    space.touch(h, M)
    child = space.ok("fork")["pid"]
    space.ok("madvise", child, address=h, length=M, advice="free")
    assert space.smaps("Rss", h) == 1024


def test_remove_punches_a_hole_for_everybody(space: Space) -> None:  # MA-09
    h = space.mmap(M, flags=SHARED)
    space.touch(h, M)
    space.ok("fork")
    shmem = space.meminfo("Shmem")
    space.ok("madvise", address=h, length=M // 2, advice="remove")
    assert shmem - space.meminfo("Shmem") == 512
    assert space.smaps("Rss", h) == 512
    assert space.touch(h, M // 2).minor == 128


# ---------------------------------------------------------------- getting ready


@pytest.mark.parametrize(("advice", "rss"), [("populate_read", 0), ("populate_write", 1024)])
def test_populate_counts_every_page_as_a_fault(space: Space, advice: str, rss: int) -> None:  # MA-08
    h = space.mmap(M)
    assert space.call("madvise", address=h, length=M, advice=advice).minor == 256
    assert space.smaps("Rss", h) == rss
    assert space.call("madvise", address=h, length=M, advice=advice).minor == 0


def test_populate_beyond_the_end_of_a_file(space: Space) -> None:
    space.k.call("create_file", path="/data/f", size=M)
    h = space.mmap(2 * M, "r", ["shared"], file="/data/f")
    assert space.errno("madvise", address=h, length=2 * M, advice="populate_read") == "EFAULT"
    assert space.smaps("Rss", h) == 1024  # what could be had stays


def test_willneed_reads_a_file_ahead(space: Space) -> None:  # MA-07
    space.k.call("create_file", path="/data/f", size=4 * M)
    h = space.mmap(4 * M, "r", ["shared"], file="/data/f")
    answer = space.call("madvise", address=h + M, length=2 * M, advice="willneed")
    assert (answer.minor, answer.major, space.smaps("Rss", h)) == (0, 0, 0)
    assert space.ok("mincore", address=h, length=4 * M)["resident"] == 512
    assert space.touch(h + M, 2 * M, "read").major == 0


# ---------------------------------------------------------------- reclaiming


def test_cold_ages_pages_without_taking_them(space: Space) -> None:  # MA-05
    space.k.call("create_file", path="/data/f", size=M)
    for _ in range(2):
        space.ok("read", path="/data/f", offset=0, length=M)
    h = space.mmap(M, "r", ["shared"], file="/data/f")
    space.touch(h, M, "read")
    active, deactivated = space.meminfo("Active(file)"), space.vmstat("pgdeactivate")
    space.ok("madvise", address=h, length=M, advice="cold")
    assert active - space.meminfo("Active(file)") == 1024
    assert space.vmstat("pgdeactivate") - deactivated == 256
    assert (space.smaps("Rss", h), space.smaps("Referenced", h)) == (1024, 0)


def test_pageout_takes_clean_file_pages(space: Space) -> None:  # MA-06
    space.k.call("create_file", path="/data/f", size=M)
    h = space.mmap(M, "r", ["shared"], file="/data/f")
    space.touch(h, M, "read")
    cached = space.meminfo("Cached")
    space.ok("madvise", address=h, length=M, advice="pageout")
    assert (space.smaps("Rss", h), cached - space.meminfo("Cached")) == (0, 1024)
    assert space.touch(h, M, "read").major > 0


def test_pageout_leaves_what_has_nowhere_to_go(space: Space) -> None:
    h = space.mmap(M)
    space.touch(h, M)
    space.ok("madvise", address=h, length=M, advice="pageout")
    assert space.smaps("Rss", h) == 1024
    space.ok("madvise", address=h, length=M, advice="free")
    space.ok("madvise", address=h, length=M, advice="pageout")
    assert space.smaps("Rss", h) == 0


def test_pageout_leaves_pages_that_others_map(space: Space) -> None:
    space.k.call("create_file", path="/data/f", size=M)
    h = space.mmap(M, "r", ["shared"], file="/data/f")
    space.touch(h, M, "read")
    child = space.ok("fork")["pid"]
    space.ok("touch", child, address=h, length=M, access="read")
    space.ok("madvise", address=h, length=M, advice="pageout")
    assert space.smaps("Rss", h) == 1024
