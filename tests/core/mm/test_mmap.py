"""mmap, munmap, brk, fork's copy and the limits: errno by errno, drawing by drawing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.mm.space import ANON, PAGE, SHARED, G, K, M, Space

FIRST = 0x7FFFF7FF9000  # where [vvar] begins: the first mapping ends here

# ---------------------------------------------------------------- errno, in Linux's order

ERRNO: dict[str, tuple[dict[str, Any], str | None]] = {
    "length 0": ({"length": 0}, "EINVAL"),
    "length 0 before the flags": ({"length": 0, "flags": ["anonymous"]}, "EINVAL"),
    "offset unaligned before length": ({"length": 0, "offset": 1}, "EINVAL"),
    "length wraps": ({"length": (1 << 64) - 1}, "ENOMEM"),
    "longer than the address space": ({"length": 1 << 48}, "ENOMEM"),
    "as long as the address space": ({"length": 0x7FFFFFFFF000}, "ENOMEM"),
    "neither shared nor private": ({"length": PAGE, "flags": ["anonymous"]}, "EINVAL"),
    "both shared and private": ({"length": PAGE, "flags": ["shared", "private", "anonymous"]}, "EINVAL"),
    "neither anonymous nor a file": ({"length": PAGE, "flags": ["private"]}, "EBADF"),
    "no such file": ({"length": PAGE, "flags": ["private"], "file": "/data/none"}, "ENOENT"),
    "a file and anonymous: the file is not looked at": ({"length": PAGE, "flags": ANON, "file": "/data/none"}, None),
    "fixed, unaligned": ({"length": PAGE, "flags": [*ANON, "fixed"], "address": 0x10001}, "EINVAL"),
    "fixed, beyond the end": ({"length": 2 * PAGE, "flags": [*ANON, "fixed"], "address": 0x7FFFFFFFE000}, "ENOMEM"),
    "fixed_noreplace on something": ({"length": PAGE, "flags": [*ANON, "fixed_noreplace"], "address": 0x400000}, "EEXIST"),
    "fixed_noreplace on nothing": ({"length": PAGE, "flags": [*ANON, "fixed_noreplace"], "address": 0x10000000}, None),
    "shared memory does not grow": ({"length": PAGE, "flags": [*SHARED, "growsdown"]}, "EINVAL"),
    "a file does not grow": ({"length": PAGE, "flags": ["private", "growsdown"], "file": "/data/f"}, "EINVAL"),
    "no huge pages": ({"length": 2 * M, "flags": [*ANON, "hugetlb"]}, "ENOMEM"),
    "hugetlb of an ordinary file": ({"length": 2 * M, "flags": ["private", "hugetlb"], "file": "/data/f"}, "EINVAL"),
    "beyond the largest file": ({"length": PAGE, "flags": ["private"], "file": "/data/f", "offset": 1 << 44}, "EOVERFLOW"),
    "beyond the end of the file": ({"length": PAGE, "flags": ["private"], "file": "/data/f", "offset": 1 << 30}, None),
    "align is no power of two": ({"length": PAGE, "align": 3 * PAGE}, "EINVAL"),
    "more than RAM and swap at once": ({"length": 8 * G}, "ENOMEM"),
    "read-only, that is no promise": ({"length": 8 * G, "prot": "r"}, None),
    "noreserve, neither": ({"length": 8 * G, "flags": [*ANON, "noreserve"]}, None),
}


@pytest.mark.parametrize("case", ERRNO)
def test_mmap_refuses_in_linuxs_order(space: Space, case: str) -> None:
    arguments, errno = ERRNO[case]
    space.k.call("create_file", path="/data/f", size=M)
    before = [(vma.start, vma.end) for vma in space.mm.vmas]
    committed = space.k.committed_pages
    assert space.errno("mmap", **{"prot": "rw", "flags": ANON, **arguments}) == errno
    if errno:
        assert [(vma.start, vma.end) for vma in space.mm.vmas] == before
        assert space.k.committed_pages == committed


@pytest.mark.parametrize(("address", "length", "errno"), [
    (0x10001, PAGE, "EINVAL"), (0x10000, 0, "EINVAL"), (0x7FFFFFFFF000, PAGE, "EINVAL"), (1 << 63, PAGE, "EINVAL"),
    (0x10000, (1 << 64) - 1, "EINVAL"), (0x10000, PAGE, None), (0x10000, 1, None),
])  # fmt: skip
def test_munmap_of_nothing_is_no_error_but_of_nonsense_is(space: Space, address: int, length: int, errno: str | None) -> None:
    assert space.errno("munmap", address=address, length=length) == errno


# ---------------------------------------------------------------- where things go


def test_mappings_go_down_from_vvar_and_merge(space: Space) -> None:
    assert space.mmap(16 * M) == FIRST - 16 * M
    assert space.mmap(16 * M) == FIRST - 32 * M
    assert space.draw(FIRST - 32 * M, 32 * M, 4 * M) == "AAAAAAAA"


def test_munmap_cuts_a_hole_and_mmap_fills_it(space: Space) -> None:
    h = space.mmap(16 * M)
    space.ok("munmap", address=h + 6 * M, length=2 * M)
    assert space.draw(h, 16 * M, 2 * M) == "AAA.BBBB"
    assert space.mmap(2 * M) == h + 6 * M
    assert space.draw(h, 16 * M, 2 * M) == "AAAAAAAA"


def test_a_hint_that_is_taken_is_not_used(space: Space) -> None:
    assert space.mmap(PAGE, address=0x10000123) == 0x10000000
    assert space.mmap(PAGE, address=0x10000000) == FIRST - PAGE
    assert space.mmap(PAGE, address=PAGE) == 0x10000  # never below vm.mmap_min_addr


def test_align_leaves_no_trace_but_the_address(space: Space) -> None:
    # the recorder maps 34M, keeps the aligned 32M of it: the highest aligned place below FIRST - 32M
    space.mmap(PAGE)
    h = space.mmap(32 * M, align=2 * M)
    assert h == (FIRST - PAGE - 34 * M + 2 * M - 1) // (2 * M) * (2 * M)
    assert space.draw(h - 2 * M, 36 * M, 2 * M) == "." + "A" * 16 + "."


@pytest.mark.parametrize(("length", "offset", "modulo"), [(8 * M, 0, 0), (4 * M, M, M), (M, 0, None)])
def test_a_file_of_the_disk_is_placed_for_huge_pages(space: Space, length: int, offset: int, modulo: int | None) -> None:
    space.k.call("create_file", path="/data/f", size=16 * M)
    space.mmap(8 * M)
    address = space.mmap(length, "r", ["shared"], file="/data/f", offset=offset)
    assert address % (2 * M) == (modulo if modulo is not None else (FIRST - 8 * M - length) % (2 * M))


def test_fixed_replaces_what_is_there(space: Space) -> None:
    h = space.mmap(8 * PAGE)
    space.touch(h, 8 * PAGE)
    space.mmap(2 * PAGE, "r", [*ANON, "fixed"], address=h + 2 * PAGE)
    assert space.draw(h, 8 * PAGE) == "AABBCCCC"
    assert space.smaps("Rss", h + 2 * PAGE) == 0
    assert space.smaps("Rss", h) == 8


def test_private_files_and_shared_memory_have_their_names_and_flags(space: Space) -> None:
    space.k.call("create_file", path="/data/f", size=M)
    cases = [
        (space.mmap(M, "rw", ["private"], file="/data/f"), "rw-p", "/data/f", "rd wr mr mw me ac sd "),
        (space.mmap(M, "rw", ["shared"], file="/data/f"), "rw-s", "/data/f", "rd wr sh mr mw me ms sd "),
        (space.mmap(M, "r", ["shared"], file="/data/f"), "r--s", "/data/f", "rd mr me ms sd "),
        (space.mmap(M, "rw", SHARED), "rw-s", "/dev/zero (deleted)", "rd wr sh mr mw me ms sd "),
        (space.mmap(M, "none"), "---p", "", "mr mw me sd "),
        (space.mmap(M, "rwx", [*ANON, "noreserve"]), "rwxp", "", "rd wr ex mr mw me nr sd "),
        (space.mmap(M, "rw", [*ANON, "locked"]), "rw-p", "", "rd wr mr mw me lo ac sd "),
    ]
    text = space.read("/proc/<pid>/smaps")
    for address, access, name, flags in cases:
        entry = text[text.index(f"{address:08x}-") :]
        assert entry.split()[1] == access
        assert entry.partition("\n")[0].endswith(name)
        assert entry[entry.index("VmFlags: ") + 9 :].partition("\n")[0] == flags


def test_two_shared_mappings_are_two_objects(space: Space) -> None:
    a, b = space.mmap(4 * PAGE, flags=SHARED), space.mmap(4 * PAGE, flags=SHARED)
    assert a == b + 4 * PAGE
    assert space.draw(b, 8 * PAGE) == "AAAABBBB"


def test_populate_faults_everything_in(space: Space) -> None:
    answer = space.call("mmap", length=4 * M, prot="rw", flags=[*ANON, "populate"])
    assert answer.minor == 1024
    assert answer.result is not None
    assert space.smaps("Rss", answer.result["address"]) == 4096
    assert space.call("mmap", length=4 * M, prot="none", flags=[*ANON, "populate"]).errno is None


def test_the_last_munmap_of_shared_memory_frees_it(space: Space) -> None:
    before = space.meminfo("Shmem"), space.k.committed_pages
    h = space.mmap(4 * M, flags=SHARED)
    space.touch(h, 4 * M)
    assert space.meminfo("Shmem") - before[0] == 4096
    assert space.k.committed_pages - before[1] == 1024
    child = space.ok("fork")["pid"]
    space.ok("munmap", address=h, length=4 * M)
    assert space.meminfo("Shmem") - before[0] == 4096  # the child still maps it
    space.ok("munmap", child, address=h, length=4 * M)
    assert space.meminfo("Shmem") == before[0]


# ---------------------------------------------------------------- counters


def test_vm_counters_follow_the_mappings(space: Space) -> None:
    def deltas() -> dict[str, int]:
        return {key: space.status(key) - first[key] for key in first}

    first = dict.fromkeys(("VmSize", "VmData", "VmStk", "VmLib", "VmLck"), 0)
    first = deltas()
    data = space.mmap(M)
    space.mmap(2 * M, "rx")
    space.mmap(4 * M, flags=SHARED)
    space.mmap(8 * M, "r")
    assert deltas() == {"VmSize": 15 * 1024, "VmData": 1024, "VmStk": 0, "VmLib": 2048, "VmLck": 0}
    space.ok("mprotect", address=data, length=512 * K, prot="r")
    assert deltas()["VmData"] == 512
    space.ok("munmap", address=data, length=M)
    assert deltas() == {"VmSize": 14 * 1024, "VmData": 0, "VmStk": 0, "VmLib": 2048, "VmLck": 0}
    assert space.status("VmPeak") - first["VmSize"] == 15 * 1024


def test_page_tables_go_with_the_last_mapping_that_needs_them(space: Space) -> None:
    h = space.mmap(6 * M, align=2 * M)
    before = space.status("VmPTE")
    space.touch(h, 6 * M)
    assert space.status("VmPTE") - before == 3 * 4  # one PTE table for each 2 MiB
    space.ok("munmap", address=h, length=3 * M)
    assert space.status("VmPTE") - before == 2 * 4  # half of the second table is still needed
    space.ok("munmap", address=h + 3 * M, length=3 * M)
    assert space.status("VmPTE") == before


# ---------------------------------------------------------------- limits


def test_max_map_count_allows_one_mapping_more(space: Space) -> None:  # LX-01, D-24
    limit = space.mm.map_count + 20
    space.set("/proc/sys/vm/max_map_count", limit)
    made = 0
    while space.errno("mmap", length=PAGE, prot=("r", "rw")[made % 2], flags=ANON) is None:
        made += 1
    assert space.mm.map_count == limit + 1
    # a hole in the middle of a mapping would make one more
    h = space.mm.vmas[-4].start * PAGE
    assert space.errno("munmap", address=h, length=PAGE) is None
    big = 0x10000000
    space.ok("munmap", address=space.mm.vmas[-4].start * PAGE, length=PAGE)
    space.ok("munmap", address=space.mm.vmas[-4].start * PAGE, length=PAGE)
    space.mmap(8 * PAGE, flags=[*ANON, "fixed"], address=big)
    space.mmap(PAGE, "r", flags=[*ANON, "fixed"], address=big + 64 * PAGE)
    assert space.mm.map_count == limit
    assert space.errno("munmap", address=big + 2 * PAGE, length=PAGE) == "ENOMEM"
    assert space.draw(big, 8 * PAGE) == "AAAAAAAA"


# resource, bytes beyond what there is, call, errno
LIMITS: dict[str, tuple[str, int, dict[str, Any], str | None]] = {
    "as: fits": ("as", M, {"length": M}, None),
    "as: one page too many": ("as", M, {"length": M + PAGE}, "ENOMEM"),
    "as: PROT_NONE counts": ("as", M, {"length": 2 * M, "prot": "none"}, "ENOMEM"),
    "data: fits": ("data", M, {"length": M}, None),
    "data: one page too many": ("data", M, {"length": M + PAGE}, "ENOMEM"),
    "data: read-only does not count": ("data", M, {"length": 2 * M, "prot": "r"}, None),
    "data: shared does not count": ("data", M, {"length": 2 * M, "flags": SHARED}, None),
}


@pytest.mark.parametrize("case", LIMITS)
def test_resource_limits(space: Space, case: str) -> None:
    resource, more, arguments, errno = LIMITS[case]
    used = space.mm.total_vm if resource == "as" else space.mm.data_vm
    space.ok("setrlimit", resource=resource, limit=used * PAGE + more)
    assert space.errno("mmap", **{"prot": "rw", "flags": ANON, **arguments}) == errno


def test_a_fixed_mapping_over_another_needs_no_more_address_space(space: Space) -> None:
    h = space.mmap(M)
    space.ok("setrlimit", resource="as", limit=space.mm.total_vm * PAGE)
    assert space.errno("mmap", length=M, prot="rw", flags=[*ANON, "fixed"], address=h) is None
    assert space.errno("mmap", length=2 * M, prot="rw", flags=[*ANON, "fixed"], address=h) == "ENOMEM"


# mode, ratio, then (length, prot, flags, errno) one after the other, on 512M without swap
OVERCOMMIT: dict[str, tuple[int, list[tuple[int, str, list[str], str | None]]]] = {
    "0: what RAM could never hold": (0, [(400 * M, "rw", ANON, None), (400 * M, "rw", ANON, None), (2 * G, "rw", ANON, "ENOMEM")]),
    "1: everything": (1, [(8 * G, "rw", ANON, None), (64 * G, "rw", ANON, None)]),
    "2: up to CommitLimit": (2, [(64 * M, "rw", ANON, None), (512 * M, "rw", ANON, "ENOMEM"), (512 * M, "r", ANON, None),
                                 (512 * M, "rw", [*ANON, "noreserve"], "ENOMEM"), (512 * M, "rw", SHARED, "ENOMEM")]),
}  # fmt: skip


@pytest.mark.parametrize("case", OVERCOMMIT)
def test_overcommit(space: Space, case: str) -> None:
    mode, requests = OVERCOMMIT[case]
    space.set("/proc/sys/vm/overcommit_memory", mode)
    for length, prot, flags, errno in requests:
        assert space.errno("mmap", length=length, prot=prot, flags=flags) == errno


def test_commit_limit_and_committed_as(space: Space) -> None:  # MM-24, LX-07
    assert abs(space.meminfo("CommitLimit") - space.meminfo("MemTotal") // 2) <= 4
    space.set("/proc/sys/vm/overcommit_kbytes", 65536)
    assert space.meminfo("CommitLimit") == 65536
    before = space.meminfo("Committed_AS")
    h = space.mmap(4 * M)
    space.mmap(4 * M, "r")
    space.mmap(4 * M, "rw", [*ANON, "noreserve"])
    assert space.meminfo("Committed_AS") - before == 4096
    space.ok("munmap", address=h + 3 * M, length=M)
    assert space.meminfo("Committed_AS") - before == 3072


def test_fork_is_charged_like_a_mapping(space: Space) -> None:  # PF-23
    space.mmap(100 * M)
    committed = space.k.committed_pages
    child = space.ok("fork")["pid"]
    assert space.k.committed_pages - committed >= 100 * 256
    space.ok("exit", child)
    assert space.k.committed_pages == committed
    space.set("/proc/sys/vm/overcommit_memory", 2)
    space.set("/proc/sys/vm/overcommit_kbytes", committed * 4 + 50 * 1024)
    assert space.errno("fork") == "ENOMEM"
    assert space.k.committed_pages == committed


# ---------------------------------------------------------------- brk


def test_brk_grows_and_shrinks_the_heap(space: Space) -> None:
    start = space.ok("brk")["address"]
    heap = space.draw(start - PAGE, 3 * PAGE)
    assert heap == "A.."
    assert space.ok("brk", increment=2 * PAGE)["address"] == start + 2 * PAGE
    assert space.draw(start - PAGE, 3 * PAGE) == "AAA"
    assert space.ok("brk", increment=-PAGE - 1)["address"] == start + PAGE - 1
    assert space.draw(start - PAGE, 3 * PAGE) == "AA."
    assert "[heap]" in space.read("/proc/<pid>/maps")


@pytest.mark.parametrize("case", ["below its start", "into a mapping", "beyond RLIMIT_DATA", "beyond the address space"])
def test_brk_stops(space: Space, case: str) -> None:
    start = space.ok("brk")["address"]
    increment = {"below its start": -G, "beyond the address space": 1 << 47}.get(case, M)
    if case == "into a mapping":
        space.mmap(PAGE, flags=[*ANON, "fixed"], address=start + M)
    if case == "beyond RLIMIT_DATA":
        space.ok("setrlimit", resource="data", limit=512 * K)
    assert space.errno("brk", increment=increment) == "ENOMEM"
    assert space.ok("brk")["address"] == start


# ---------------------------------------------------------------- the stack


def test_the_stack_grows_where_it_is_touched(space: Space) -> None:
    stack = next(vma for vma in space.mm.vmas if vma.flags & 0x100)
    low = stack.start * PAGE
    size = space.status("VmStk")
    assert space.touch(low - M, PAGE).signal is None
    assert stack.start * PAGE == low - M
    assert space.status("VmStk") - size == 1024
    assert stack.pgoff == stack.start


@pytest.mark.parametrize(("down", "signal"), [(7 * M, None), (8 * M, "SIGSEGV"), (64 * M, "SIGSEGV")])
def test_the_stack_ends_at_its_limit(space: Space, down: int, signal: str | None) -> None:
    stack = next(vma for vma in space.mm.vmas if vma.flags & 0x100)
    assert space.touch(stack.start * PAGE - down, PAGE).signal == signal


@pytest.mark.parametrize(("gap", "signal"), [(M, "SIGSEGV"), (2 * M, None)])
def test_the_stack_keeps_its_guard_gap(space: Space, gap: int, signal: str | None) -> None:
    stack = next(vma for vma in space.mm.vmas if vma.flags & 0x100)
    target = stack.start * PAGE - M
    space.mmap(PAGE, flags=[*ANON, "fixed"], address=target - gap)
    assert space.touch(target, PAGE).signal == signal


# ---------------------------------------------------------------- fork


def test_fork_copies_mappings_but_for_what_was_asked(space: Space) -> None:
    h = space.mmap(16 * PAGE)
    space.touch(h, 16 * PAGE)
    space.ok("madvise", address=h, length=4 * PAGE, advice="dontfork")
    space.ok("madvise", address=h + 4 * PAGE, length=4 * PAGE, advice="wipeonfork")
    space.ok("mlock", address=h + 8 * PAGE, length=4 * PAGE)
    assert space.draw(h, 16 * PAGE) == "AAAABBBBCCCCDDDD"
    size = space.status("VmSize")
    parent, space.pid = space.pid, space.ok("fork")["pid"]
    assert space.draw(h, 16 * PAGE) == "....AAAABBBBCCCC"
    assert [space.smaps("Rss", h + at * PAGE) for at in (4, 8, 12)] == [0, 16, 16]
    assert space.status("VmLck") == 0
    assert size - space.status("VmSize") == 16
    space.pid = parent
    assert space.status("VmLck") == 16


def test_a_child_does_not_extend_inherited_memory(space: Space) -> None:  # LV-01
    h = space.mmap(3 * PAGE)
    space.touch(h, 3 * PAGE)
    space.pid = space.ok("fork")["pid"]
    assert space.mmap(3 * PAGE) == h - 3 * PAGE
    assert space.draw(h - 3 * PAGE, 6 * PAGE) == "AAABBB"


def test_generations_of_forks_keep_chains_short(space: Space) -> None:
    h = space.mmap(4 * PAGE)
    space.touch(h, 4 * PAGE)
    longest = 0
    for _ in range(20):  # the parent dies each time, its child goes on
        child = space.ok("fork")["pid"]
        space.ok("exit")
        space.pid = child
        space.touch(h, PAGE)
        longest = max(longest, len(space.vma(h).chain))
    assert longest <= 3
    space.ok("exit")


def test_exit_gives_everything_back(space: Space) -> None:
    before = space.k.committed_pages, len(space.k.anon_vmas), space.meminfo("Shmem"), space.meminfo("Mlocked")
    first, space.pid = space.pid, space.spawn()
    space.touch(space.mmap(4 * M), 4 * M)
    space.touch(space.mmap(4 * M, flags=SHARED), 4 * M)
    space.ok("mlockall", flags=["current"])
    space.ok("exit")
    space.pid = first
    assert (space.k.committed_pages, len(space.k.anon_vmas), space.meminfo("Shmem"), space.meminfo("Mlocked")) == before
