"""VMA splitting and merging (tools/testing/vma/vma.c, LTP vma01): what is mapped where, in pages above a free address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.peer.box import FREE, PAGE, Box

Spans = list[tuple[int, int]]


@pytest.fixture
def box() -> Box:
    return Box(memory="512M")


def mapped(*ranges: tuple[int, int]) -> Callable[[Box, int], None]:
    def steps(box: Box, pid: int) -> None:
        for start, end in ranges:
            box.fixed(pid, start, end - start)

    return steps


# VM-01 and VM-04: insertions, and the mappings after each
INSERTIONS = {
    "VM-01 simple merge": [((0, 1), 1), ((2, 3), 2), ((1, 2), 1)],
    "VM-04 merge new": [
        ((0, 2), 1),
        ((3, 4), 2),
        ((11, 13), 3),  #      AA B       CC
        ((7, 9), 4),  #        AA B   **  CC   alone
        ((2, 3), 3),  #        AA*B   DD  CC   both sides
        ((4, 5), 3),  #        AAAA*  DD  CC   the previous
        ((6, 7), 3),  #        AAAAA *DD  CC   the next
        ((5, 6), 2),  #        AAAAA*DDD  CC   both sides
        ((10, 11), 2),  #      AAAAAAAAA *CC   the next
        ((9, 10), 1),  #       AAAAAAAAA*CCC   both sides
    ],
}


@pytest.mark.parametrize("steps", INSERTIONS.values(), ids=INSERTIONS.keys())
def test_insertions(box: Box, steps: list[tuple[tuple[int, int], int]]) -> None:
    pid = box.spawn()
    for (start, end), count in steps:
        box.fixed(pid, start, end - start)
        assert len(box.spans(pid)) == count, (start, end, box.spans(pid))


def test_vm02_simple_modify(box: Box) -> None:
    box.kernel.call("create_file", path="/data/f", size=3 * PAGE)
    pid = box.spawn()
    box.mmap(pid, 3 * PAGE, "rw", ["private", "fixed"], address=FREE, file="/data/f", offset=0)
    box.ok(pid, "mprotect", address=FREE + PAGE, length=PAGE, prot="r")
    assert box.vmas(pid) == [(0, 1, "rw-p", 0), (1, 2, "r--p", 1), (2, 3, "rw-p", 2)]
    box.ok(pid, "mprotect", address=FREE + PAGE, length=PAGE, prot="rw")
    assert box.vmas(pid) == [(0, 3, "rw-p", 0)]


def test_vm03_simple_expand(box: Box) -> None:
    pid = box.spawn()
    box.fixed(pid, 0, 1)
    box.ok(pid, "mremap", address=FREE, old_length=PAGE, new_length=3 * PAGE, may_move=False)
    assert box.spans(pid) == [(0, 3)]


def test_vm05_special_mappings_never_merge(box: Box) -> None:
    """[vvar] has VM_IO and VM_PFNMAP: the first mapping lies right below it and stays apart."""
    pid = box.spawn()
    vvar = next(int(line.split("-")[0], 16) for line in box.maps(pid) if line.endswith("[vvar]"))
    address = box.mmap(pid, PAGE, "r")
    assert address + PAGE == vvar
    assert {"io", "pf"} <= set(box.smaps(pid, vvar)["VmFlags"].split())
    assert any(line.startswith(f"{address:x}-{vvar:x} r--p") for line in box.maps(pid))


MODIFIED: dict[str, tuple[tuple[int, int], Spans]] = {
    # prev [0,4) r | middle [4,8) rw | next [8,12) r: the range made r, and what is left
    "right part joins the next": ((6, 8), [(0, 4), (4, 6), (6, 12)]),
    "left part joins the previous": ((4, 6), [(0, 6), (6, 8), (8, 12)]),
    "all of it joins both": ((4, 8), [(0, 12)]),
    "the interior joins nobody": ((5, 7), [(0, 4), (4, 5), (5, 7), (7, 8), (8, 12)]),
}


@pytest.mark.parametrize(("range_", "left"), MODIFIED.values(), ids=MODIFIED.keys())
def test_vm07_merge_existing(box: Box, range_: tuple[int, int], left: Spans) -> None:
    """All was writable once, so that nothing but the rights differs: what was never writable is not accounted ("ac")."""
    pid = box.spawn()
    box.fixed(pid, 0, 12, "rw")
    for start in (0, 8):
        box.ok(pid, "mprotect", address=FREE + start * PAGE, length=4 * PAGE, prot="r")
    start, end = range_
    box.ok(pid, "mprotect", address=FREE + start * PAGE, length=(end - start) * PAGE, prot="r")
    assert box.spans(pid) == left


def test_vm07_what_was_never_writable_is_not_accounted_and_stays_apart(box: Box) -> None:
    pid = box.spawn()
    box.fixed(pid, 0, 3, "r")
    for prot in ("rw", "r"):
        box.ok(pid, "mprotect", address=FREE + PAGE, length=PAGE, prot=prot)
    assert box.spans(pid) == [(0, 1), (1, 2), (2, 3)]
    assert ["ac" in box.smaps(pid, FREE + page * PAGE)["VmFlags"].split() for page in range(3)] == [False, True, False]


# Pages 0 and 2 are mapped, some touched (each then has an anon_vma of its own), and page 1 is mapped between them.
# 6.1's mmap_region() looks at the next mapping first, and a previous one without an anon_vma has an empty chain, not a
# singular one: only a touched previous and an untouched next become one with the new page.
TOUCHED: dict[tuple[int, ...], Spans] = {
    (): [(0, 3)],
    (0,): [(0, 3)],
    (2,): [(0, 1), (1, 3)],
    (0, 2): [(0, 1), (1, 3)],
}


@pytest.mark.parametrize(("touched", "left"), TOUCHED.items(), ids=map(str, TOUCHED))
def test_vm08_two_anon_vmas_do_not_become_one(box: Box, touched: tuple[int, ...], left: Spans) -> None:
    pid = box.spawn()
    for page in (0, 2):
        box.fixed(pid, page, 1)
    for page in touched:
        box.touch(pid, FREE + page * PAGE, PAGE)
    box.fixed(pid, 1, 1)
    assert box.spans(pid) == left


def test_vm09_expanding_into_the_next(box: Box) -> None:
    pid = box.spawn()
    box.fixed(pid, 0, 1)
    box.fixed(pid, 3, 1)
    box.ok(pid, "mremap", address=FREE, old_length=PAGE, new_length=3 * PAGE, may_move=False)
    assert box.spans(pid) == [(0, 4)]


def test_lv01_no_merge_with_an_inherited_anon_vma(box: Box) -> None:
    """vma01: the parent's touched mapping and the child's new one beside it stay two."""
    pid = box.spawn()
    box.fixed(pid, 3, 3)
    box.touch(pid, FREE + 3 * PAGE, 3 * PAGE)
    child = int(box.ok(pid, "fork")["pid"])
    box.fixed(child, 0, 3)
    assert box.spans(child) == [(0, 3), (3, 6)]


SPLITS = {
    "munmap the middle": ("munmap", {}, [(0, 1), (2, 3)]),
    "lock the middle": ("mlock", {}, [(0, 1), (1, 2), (2, 3)]),
    "advise the middle": ("madvise", {"advice": "random"}, [(0, 1), (1, 2), (2, 3)]),
    "protect the middle": ("mprotect", {"prot": "none"}, [(0, 1), (1, 2), (2, 3)]),
    "protect with what it has": ("mprotect", {"prot": "rw"}, [(0, 3)]),
}


@pytest.mark.parametrize(("op", "args", "left"), SPLITS.values(), ids=SPLITS.keys())
def test_splits(box: Box, op: str, args: dict[str, str], left: Spans) -> None:
    pid = box.spawn()
    box.fixed(pid, 0, 3)
    box.ok(pid, op, address=FREE + PAGE, length=PAGE, **args)
    assert box.spans(pid) == left


UNDONE = {
    "mlock": ("munlock", {}),
    "madvise": ("madvise", {"advice": "normal"}),
    "mprotect": ("mprotect", {"prot": "rw"}),
}


@pytest.mark.parametrize("op", UNDONE)
def test_what_was_split_merges_again(box: Box, op: str) -> None:
    """Touched before, so that all three parts have the one anon_vma."""
    pid = box.spawn()
    box.fixed(pid, 0, 3)
    box.touch(pid, FREE, 3 * PAGE)
    args = {"mlock": {}, "madvise": {"advice": "sequential"}, "mprotect": {"prot": "r"}}[op]
    box.ok(pid, op, address=FREE + PAGE, length=PAGE, **args)
    undo, back = UNDONE[op]
    box.ok(pid, undo, address=FREE + PAGE, length=PAGE, **back)
    assert box.spans(pid) == [(0, 3)]


# ---- LX-01: how many mappings a process may have ---------------------------------------------------------------


@pytest.mark.parametrize("limit", [1024, 2048, 4096, pytest.param(65536, marks=pytest.mark.slow)])
def test_lx01_max_map_count(limit: int) -> None:
    box = Box(memory="512M")
    box.set("/proc/sys/vm/max_map_count", limit)
    box.set("/proc/sys/vm/overcommit_memory", 1)
    pid = box.spawn()
    for page in range(limit + 1):
        prot = "r" if page % 2 else "rw"
        found = box.call(pid, "mmap", length=PAGE, prot=prot, flags=["private", "anonymous", "fixed"], address=FREE + page * PAGE)
        if found.errno:
            break
    assert found.errno == "ENOMEM"
    lines = [line for line in box.maps(pid) if "[vsyscall]" not in line]
    assert len(lines) == limit + 1


def test_splits_stop_at_the_limit() -> None:
    box = Box(memory="512M")
    pid = box.spawn()
    box.fixed(pid, 0, 3)
    box.set("/proc/sys/vm/max_map_count", len(box.maps(pid)))
    found = box.call(pid, "munmap", address=FREE + PAGE, length=PAGE)
    assert found.errno == "ENOMEM"
    assert box.spans(pid) == [(0, 3)]


def test_lv02_mbind_splits_and_the_default_merges(box: Box) -> None:
    """vma02: another policy for the middle page makes three mappings; the default for all of them makes one again."""
    pid = box.spawn()
    box.fixed(pid, 0, 3)
    box.ok(pid, "mbind", address=FREE + PAGE, length=PAGE, mode="bind", nodes=[0])
    assert box.spans(pid) == [(0, 1), (1, 2), (2, 3)]
    box.ok(pid, "mbind", address=FREE, length=3 * PAGE, mode="default")
    assert box.spans(pid) == [(0, 3)]


# vma04: six pages in parts of one policy each, the range that gets another part's policy, and what is left
D, BIND, WEAVE = "default", "bind", "interleave"
REBOUND: dict[str, tuple[list[tuple[int, int, str]], tuple[int, int, str], Spans]] = {
    "case 4: the end of the previous joins the next": ([(0, 3, D), (3, 6, BIND)], (2, 3, BIND), [(0, 2), (2, 6)]),
    "case 5: the start of the next joins the previous": ([(0, 3, D), (3, 6, BIND)], (3, 4, D), [(0, 4), (4, 6)]),
    "case 6: all become one": ([(0, 2, D), (2, 4, BIND), (4, 6, D)], (2, 4, D), [(0, 6)]),
    "case 7: the whole joins the previous": ([(0, 2, D), (2, 4, BIND), (4, 6, WEAVE)], (2, 4, D), [(0, 4), (4, 6)]),
    "case 8: the whole joins the next": ([(0, 2, D), (2, 4, BIND), (4, 6, WEAVE)], (2, 4, WEAVE), [(0, 2), (2, 6)]),
}


@pytest.mark.parametrize(("parts", "change", "left"), REBOUND.values(), ids=REBOUND.keys())
def test_lv03_mbind_merges(box: Box, parts: list[tuple[int, int, str]], change: tuple[int, int, str], left: Spans) -> None:
    pid = box.spawn()
    box.fixed(pid, 0, 6)
    for start, end, mode in [*parts, change]:
        nodes = [] if mode == D else [0]
        box.ok(pid, "mbind", address=FREE + start * PAGE, length=(end - start) * PAGE, mode=mode, nodes=nodes)
    assert box.spans(pid) == left
