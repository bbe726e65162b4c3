"""The TLB: against a slow, obvious model; what makes a CPU forget; what it costs; what is shown of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import Kernel, Machine
from core.jit import DISABLED
from core.mm import mm_types, tlb
from core.mm.pgtable import PTE_PRESENT, PTE_PS, PTE_RW, TABLE_ENTRY
from core.mm.tlb_walk import ACCESSES, HITS, L2_HITS, LOADS, MAX_CLOCK, MISSES, access_tlb
from tests.core.mm.space import ANON, PAGE, SHARED, M, Space
from tests.properties.programs import OPS, Program

HUGE = 512  # pages


# ---------------------------------------------------------------- the slow, obvious model


class Sets:
    """Sets of entries in the order of their use, the latest last: {key: writable}."""

    def __init__(self, entries: int, ways: int) -> None:
        self.ways = min(ways, entries)
        self.sets: list[dict[Any, bool]] = [{} for _ in range(entries // self.ways)]

    def find(self, page: int, key: Any) -> bool | None:
        """Whether the entry may be written, None if it is not there; it becomes the latest."""
        one = self.sets[page % len(self.sets)]
        if key not in one:
            return None
        one[key] = one.pop(key)
        return one[key]

    def put(self, page: int, key: Any, writable: bool) -> None:
        one = self.sets[page % len(self.sets)]
        one.pop(key, None)
        if len(one) == self.ways:
            del one[next(iter(one))]
        one[key] = writable

    def keys(self) -> set[Any]:
        return {key for one in self.sets for key in one}


class Model:
    def __init__(self, g: dict[str, int]) -> None:
        self.l1 = {1: Sets(g["l1_4k"], g["l1_4k_ways"]), HUGE: Sets(g["l1_2m"], g["l1_2m_ways"])}
        self.l2 = Sets(g["l2"], g["l2_ways"])
        self.upper = [Sets(g["pde"], g["pde_ways"]), Sets(g["pdpte"], g["pdpte"]), Sets(g["pml4e"], g["pml4e"])]
        self.counts = dict.fromkeys(("accesses", "l1", "l2", "misses", "loads"), 0)

    def access(self, vpn: int, size: int, writable: bool, write: bool) -> None:
        page, key = vpn // size, (size, vpn // size)
        self.counts["accesses"] += 1
        held = self.l1[size].find(page, key)
        if held or (held is False and not write):
            self.counts["l1"] += 1
            return
        below = self.l2.find(page, key)
        if below or (below is False and not write):
            self.counts["l2"] += 1
        else:
            self.counts["misses"] += 1
            self.counts["loads"] += self.walk(vpn, size)
            below = write or writable
            self.l2.put(page, key, below)
        self.l1[size].put(page, key, bool(below))

    def walk(self, vpn: int, size: int) -> int:
        """Fetches: the leaf, and every upper entry below the lowest one that is cached."""
        shifts = (9, 18, 27) if size == 1 else (18, 27)
        for fetched, (shift, cache) in enumerate(zip(shifts, self.upper[-len(shifts) :], strict=True), 1):
            known = cache.find(vpn >> shift, vpn >> shift) is not None
            if known:
                return fetched
            cache.put(vpn >> shift, vpn >> shift, True)
        return len(shifts) + 1


GEOMETRIES: dict[str, dict[str, int]] = {
    "default": {},
    "tiny": {"l1_4k": 4, "l1_4k_ways": 2, "l1_2m": 2, "l1_2m_ways": 1, "l2": 16, "l2_ways": 4, "pde": 2, "pde_ways": 1, "pdpte": 1, "pml4e": 1},
    "direct-mapped": {"l1_4k": 64, "l1_4k_ways": 1, "l1_2m": 16, "l1_2m_ways": 1, "l2": 512, "l2_ways": 1, "pde": 8, "pde_ways": 1},
    "fully associative": {"l1_4k": 32, "l1_4k_ways": 32, "l1_2m": 8, "l1_2m_ways": 8, "l2": 32, "l2_ways": 32, "pde": 16, "pde_ways": 16},
    "three ways": {"l1_4k": 48, "l1_4k_ways": 3, "l1_2m": 12, "l1_2m_ways": 3, "l2": 96, "l2_ways": 6, "pde": 24, "pde_ways": 3},
}
PATTERNS = ("uniform", "local", "sweeps")


def trace(pattern: str, rng: np.random.Generator, small: np.ndarray, large: np.ndarray, n: int) -> np.ndarray:
    """Page numbers: of 4 KiB pages mostly, of 2 MiB pages now and then."""
    match pattern:
        case "uniform":
            pages = rng.choice(small, n)
        case "local":
            pages = small[np.minimum(rng.geometric(0.01, n) + np.repeat(rng.integers(0, len(small) // 2, n // 1000), 1000), len(small) - 1)]
        case _:
            pages = small[np.arange(n) % 700]
    return np.where(rng.random(n) < 0.1, rng.choice(large, n), pages)


@pytest.fixture(scope="module")
def mapped() -> tuple[Kernel, int, np.ndarray, np.ndarray]:
    """A machine with 32 MiB of written pages, 8 MiB of the zero page, and 16 huge pages; (kernel, pgd, 4 KiB pages, pages of huge ones)."""
    space = Space("512M")
    space.ok("put", path="/proc/sys/vm/nr_hugepages", data=b"16")
    written, read = space.mmap(32 * M), space.mmap(8 * M)
    space.touch(written, 32 * M)
    space.touch(read, 8 * M, "read")
    huge = space.mmap(32 * M, flags=[*ANON, "hugetlb"])
    space.touch(huge, 32 * M)
    small = np.concatenate([np.arange(written, written + 32 * M, PAGE), np.arange(read, read + 8 * M, PAGE)]) // PAGE
    return space.k, int(space.k.s.mms["pgd"][space.mm.id]), small, np.arange(huge, huge + 32 * M, PAGE) // PAGE


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_equal_to_the_model_on_a_hundred_thousand_accesses(name: str, pattern: str, mapped: tuple[Kernel, int, np.ndarray, np.ndarray]) -> None:
    k, pgd, small, large = mapped
    machine = Machine.from_dict({"memory": "512M", "tlb": GEOMETRIES[name]})
    cols, model = tlb.columns(machine), Model(dict(machine.tlb))
    rng = np.random.default_rng(len(name) * 31 + len(pattern))
    pages = trace(pattern, rng, small, large, 100_000)
    is_huge = np.isin(pages, large)
    writable = is_huge | (pages >= small[: 32 * M // PAGE].min()) & (pages <= small[: 32 * M // PAGE].max())
    done = 0
    while done < len(pages):
        stop, write = min(len(pages), done + int(rng.integers(1, 4000))), bool(rng.random() < 0.3)
        access_tlb((cols.tags, cols.stamps), cols.state, cols.geom, k.s.pt, k.s.mem, 0, pgd, 2, 0, 0, pages, True, done, stop, write)
        for at in range(done, stop):
            model.access(int(pages[at]), HUGE if is_huge[at] else 1, bool(writable[at]), write)
        found = {label: int(cols.state[0, column]) for label, column in zip(model.counts, (ACCESSES, HITS, L2_HITS, MISSES, LOADS), strict=True)}
        assert found == model.counts
        done = stop
    held = {(HUGE if int(tag) & 128 else 1, int(tag) >> 8) for tag in cols.tags[0, int(cols.geom[2, 0]) : int(cols.geom[3, 0])] if tag}
    assert held == model.l2.keys()


def test_stamps_are_renumbered_before_they_overflow() -> None:
    space = Space("64M", tlb={"l1_4k": 4, "l2": 16, "l2_ways": 4})
    twin = Space("64M", tlb={"l1_4k": 4, "l2": 16, "l2_ways": 4})
    for one in (space, twin):
        address = one.mmap(40 * PAGE)
        one.touch(address, 40 * PAGE)
    space.k.tlb_columns.state[0, 0] = MAX_CLOCK - 10
    answers = [one.k.call("touch", one.pid, address=address, length=40 * PAGE, order="random", access="read", repeat=5).tlb for one in (space, twin)]
    assert answers[0] == answers[1]
    assert int(space.k.tlb_columns.state[0, 0]) < 1000


# ---------------------------------------------------------------- sweeps


TABLES = {"written": PTE_PRESENT | PTE_RW, "read": PTE_PRESENT}  # what the entries of a page table are


def two_gigabytes(kinds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Page tables for pages from 0 on, 2 MiB each of a kind: the rows PGD 1, PUD 2, PMDs 3 and 4, tables 5 and 6, and the frames that hold them."""
    pt, mem = np.zeros((7, 512), np.int64), np.zeros(7, mm_types.PAGE)
    mem["private"] = range(7)
    for row, kind in enumerate(TABLES, 5):
        pt[row] = TABLES[kind]
    pt[1, 0], pt[2, :2] = 2 << 12 | TABLE_ENTRY, (3 << 12 | TABLE_ENTRY, 4 << 12 | TABLE_ENTRY)
    for block, kind in enumerate(kinds):
        table = list(TABLES).index(kind) + 5 if kind in TABLES else 0
        pt[3 + block // 512, block % 512] = table << 12 | TABLE_ENTRY if table else PTE_PRESENT | PTE_PS | (PTE_RW if kind == "huge" else 0)
    return pt, mem.view(np.recarray) if DISABLED else mem


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[dict[str, int], list[str], list[tuple[int, int, bool]]]:
    """A geometry; what 2 MiB pieces are mapped by, in runs; sweeps (first page, pages, write) over some of them."""
    geometry = draw(st.sampled_from(list(GEOMETRIES.values())))
    kind = st.sampled_from(["written", "written", "read", "huge", "huge, read-only"])
    runs = draw(st.lists(st.tuples(kind, st.integers(1, 24)), min_size=1, max_size=4))
    shift = draw(st.sampled_from([0, 500]))  # across the border of two PMD tables, too
    kinds = [kind for kind, length in [("written", shift), *runs] for _ in range(length)]
    last = len(kinds) * HUGE
    where = st.integers(shift * HUGE, last - 1)
    return geometry, kinds, [(at, draw(st.integers(1, last - at)), draw(st.booleans())) for at in draw(st.lists(where, min_size=1, max_size=3))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sweeps())
def test_a_sweep_leaves_what_its_accesses_one_by_one_would(case: tuple[dict[str, int], list[str], list[tuple[int, int, bool]]]) -> None:
    """The same accesses in a permutation, the order of which nobody knows beforehand: no round of them is left out."""
    geometry, kinds, calls = case
    machine = Machine.from_dict({"memory": "64M", "tlb": geometry})
    pt, mem = two_gigabytes(kinds)
    one, other = tlb.columns(machine), tlb.columns(machine)
    order = np.arange(len(kinds) * HUGE)
    for first, n, write in calls:
        swept = access_tlb((one.tags, one.stamps), one.state, one.geom, pt, mem, 0, 1, 2, first, 1, order, False, 0, n, write)
        singly = access_tlb((other.tags, other.stamps), other.state, other.geom, pt, mem, 0, 1, 2, first, 1, order, True, 0, n, write)
        assert swept == singly
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("tags", "stamps", "state"))


# ---------------------------------------------------------------- calls


def counts(answer: Any) -> tuple[int, int, int, int]:
    """Accesses, level 1, level 2, misses."""
    assert answer.tlb is not None
    return answer.tlb["accesses"], answer.tlb["l1_hits"], answer.tlb["l2_hits"], answer.tlb["misses"]


def only_touch(space: Space, address: int, pages: int, access: str = "read", pid: int | None = None, **args: Any) -> Any:
    return space.k.call("touch", pid or space.pid, address=address, length=pages * PAGE, access=access, **args)


def test_a_call_counts_its_own_accesses() -> None:
    space = Space()
    address = space.mmap(4096 * PAGE)
    assert counts(only_touch(space, address, 4096, "write")) == (4096, 0, 0, 4096)
    assert counts(only_touch(space, address, 4096)) == (4096, 0, 0, 4096)  # LRU: what comes last pushes out what comes first
    assert counts(only_touch(space, address + 3072 * PAGE, 1024)) == (1024, 0, 1024, 0)  # level 2 still has these
    small = space.mmap(64 * PAGE)
    only_touch(space, small, 64, "write")
    assert counts(only_touch(space, small, 64)) == (64, 64, 0, 0)
    assert counts(only_touch(space, small, 64, repeat=10)) == (640, 640, 0, 0)
    assert space.k.call("madvise", space.pid, address=address, length=PAGE, advice="dontneed").tlb is None


def test_elapsed_time_contains_the_walks() -> None:
    slow, fast = (Space(tlb={"miss_cycles": cycles}) for cycles in (4000, 0))
    times = []
    for space in (slow, fast):
        address = space.mmap(64 * PAGE)
        times.append(only_touch(space, address, 64, "write"))
    walks = times[0].tlb["walk_cycles"]
    assert walks == times[1].tlb["misses"] * 1000 + 4000 - 1000 or walks > 64_000
    assert times[0].elapsed_ns - times[1].elapsed_ns == walks // 3


def test_only_time_and_the_tlb_itself_depend_on_the_tlb() -> None:
    texts = []
    for geometry in ({}, {"l1_4k": 1, "l2": 1, "miss_cycles": 1}, {"pcid": 0}):
        space = Space("64M", swap="32M", tlb=geometry)
        address = space.mmap(80 * M, flags=[*ANON, "noreserve"])
        for order in ("sequential", "random"):
            space.touch(address, 40 * M, order=order)
        child = space.ok("fork")["pid"]
        space.call("touch", child, address=address, length=M, access="write")
        texts.append([space.read(path) for path in ("/proc/vmstat", "/proc/<pid>/smaps", "/proc/meminfo", "/proc/zoneinfo", "/proc/<pid>/status")])
    assert texts[0] == texts[1] == texts[2]


# ---------------------------------------------------------------- forgetting


def flushes(space: Space, cpu: int = 0) -> tuple[int, int]:
    """Everything of an ASID, single pages."""
    c = space.k.tlb.cpus[cpu]
    return c.local_all, c.local_one


@pytest.mark.parametrize(("pages", "alone"), [(1, True), (33, True), (34, False), (300, False)])
@pytest.mark.parametrize("how", ["munmap", "mprotect", "dontneed", "mremap"])
def test_the_ceiling_of_33_pages(how: str, pages: int, alone: bool) -> None:
    space = Space()
    address = space.mmap(600 * PAGE)
    keep = space.mmap(16 * PAGE, prot="rwx")
    only_touch(space, address, 600, "write")
    only_touch(space, keep, 16, "write")
    only_touch(space, keep, 16)
    where = {"address": address + 100 * PAGE, "length": pages * PAGE}
    before = flushes(space)
    match how:
        case "munmap":
            space.ok("munmap", **where)
        case "mprotect":
            space.ok("mprotect", **where, prot="r")
        case "dontneed":
            space.ok("madvise", **where, advice="dontneed")
        case "mremap":
            space.ok("mremap", address=where["address"], old_length=where["length"], new_length=700 * PAGE, may_move=True)
    after = flushes(space)
    assert (after[0] - before[0], after[1] - before[1]) == ((0, pages) if alone else (1, 0))
    assert counts(only_touch(space, keep, 16))[3] == (0 if alone else 16)


def test_a_copy_forgets_one_page_and_fork_all() -> None:
    space = Space()
    address = space.mmap(16 * PAGE)
    only_touch(space, address, 16, "write")
    before = flushes(space)
    space.ok("fork")
    assert flushes(space)[0] - before[0] == 1
    only_touch(space, address, 16)
    before = flushes(space)
    assert counts(only_touch(space, address, 4, "write")) == (4, 0, 0, 4)
    assert flushes(space)[1] - before[1] >= 4
    assert counts(only_touch(space, address, 16)) == (16, 16, 0, 0)


def test_taking_over_a_page_walks_again() -> None:
    space = Space()
    address = space.mmap(16 * PAGE)
    only_touch(space, address, 16, "write")
    child = space.ok("fork")["pid"]
    space.call("exit", child)
    only_touch(space, address, 16)
    assert counts(only_touch(space, address, 16, "write")) == (16, 0, 0, 16)  # the entries forbade writing
    assert counts(only_touch(space, address, 16, "write")) == (16, 16, 0, 0)


def test_six_address_spaces_are_kept_apart_and_a_seventh_takes_the_oldest_place() -> None:
    space = Space()
    pids = [space.pid, *(space.spawn() for _ in range(6))]
    where = {}
    for pid in pids[:6]:
        where[pid] = space.ok("mmap", pid, length=8 * PAGE, prot="rw", flags=ANON)["address"]
        only_touch(space, where[pid], 8, "write", pid)
    held = [pid for pid in pids[:6] if space.k.tasks[pid].mm.ctx_id in space.k.tlb.cpus[0].ctxs]
    assert len(set(held)) >= 5
    for pid in held[-3:]:
        assert counts(only_touch(space, where[pid], 8, "read", pid))[3] == 0
    for _other in range(6):
        pid = space.spawn()
        address = space.ok("mmap", pid, length=PAGE, prot="rw", flags=ANON)["address"]
        only_touch(space, address, 1, "write", pid)
    assert counts(only_touch(space, where[held[-1]], 8, "read", held[-1]))[3] == 8


def test_without_pcid_every_switch_forgets() -> None:
    for pcid, misses in ((1, 0), (0, 8)):
        space = Space(tlb={"pcid": pcid})
        other = space.spawn()
        addresses = {pid: space.ok("mmap", pid, length=8 * PAGE, prot="rw", flags=ANON)["address"] for pid in (space.pid, other)}
        for _ in range(2):
            for pid, address in addresses.items():
                last = only_touch(space, address, 8, "write", pid)
        assert counts(last)[3] == misses


def test_an_idle_cpu_that_keeps_the_page_tables_is_interrupted_when_they_are_freed() -> None:
    space = Space(cpus=2)
    space.ok("sched_setaffinity", cpus=[0])
    far = space.mmap(4 * M)
    only_touch(space, far, 1024, "write")
    space.ok("sched_setaffinity", cpus=[1])
    only_touch(space, far, 16)
    first = space.k.tlb.cpus[0]
    assert first.loaded == space.mm.ctx_id
    space.ok("madvise", address=far, length=64 * PAGE, advice="dontneed")  # entries only: the idle CPU is left alone
    assert first.ipis_received == 0
    space.ok("munmap", address=far, length=4 * M)
    assert (first.ipis_received, space.k.tlb.cpus[1].ipis_sent, first.loaded) == (1, 1, 0)


def test_an_idle_cpu_compares_generations_when_it_goes_on() -> None:
    space = Space(cpus=2)
    space.ok("sched_setaffinity", cpus=[0])
    address = space.mmap(16 * PAGE)
    only_touch(space, address, 16, "write")
    space.ok("sched_setaffinity", cpus=[1])
    space.ok("mprotect", address=address, length=PAGE, prot="r")
    space.ok("sched_setaffinity", cpus=[0])
    assert counts(only_touch(space, address, 16)) == (16, 0, 0, 16)


def test_ksmd_makes_an_idle_cpu_forget() -> None:
    space = Space()
    address = space.mmap(16 * PAGE)
    only_touch(space, address, 16, "write", fill=1)
    space.ok("madvise", address=address, length=16 * PAGE, advice="mergeable")
    space.ok("put", path="/sys/kernel/mm/ksm/run", data=b"1")
    space.k.advance(200_000_000)
    assert counts(only_touch(space, address, 16)) == (16, 0, 0, 16)
    assert "idle" in space.k.view("tlb", pid=space.pid)["flushed"]["why"]


# ---------------------------------------------------------------- what is held is true


def check_tlb(k: Kernel) -> None:
    """Every entry that a CPU would use says what the page tables say: mapped, by that size, writable only if the entry is."""
    for cpu, c in enumerate(k.tlb.cpus):
        for mm in k.mms.values():
            if mm.ctx_id not in c.ctxs or c.gens[c.ctxs.index(mm.ctx_id)] != tlb.generation(k, mm):
                continue
            for entry in tlb.held(k, cpu, mm):
                if entry["structure"] in ("pde", "pdpte", "pml4e"):
                    continue
                leaf = leaf_of(k, mm, entry["address"] // PAGE)
                assert leaf & PTE_PRESENT, entry
                assert not entry["writable"] or leaf & PTE_RW, entry


def leaf_of(k: Kernel, mm: Any, vpn: int) -> int:
    table = int(k.s.mms["pgd"][mm.id])
    for shift in (27, 18, 9, 0):
        entry = int(k.s.pt[table, (vpn >> shift) & 511])
        if entry == 0 or shift == 0 or entry & 128:
            return entry
        table = int(k.s.mem["private"][(entry & ((1 << 52) - 1)) >> 12])
    return 0


STEPS = st.lists(st.tuples(st.sampled_from(sorted(OPS)), *[st.integers(0, 2**16)] * 4), min_size=5, max_size=30)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_no_cpu_keeps_what_is_not_true_any_more(steps: list[tuple[str, int, int, int, int]]) -> None:
    program = Program()
    for step in steps:
        program.step(*step)
        check_tlb(program.k)


def test_under_pressure_nothing_stale_is_kept() -> None:
    space = Space("64M", swap="64M")
    address = space.mmap(80 * M, flags=[*ANON, "noreserve"])
    for order in ("sequential", "random", "zipf"):
        only_touch(space, address, 80 * 256, "write", order=order)
        check_tlb(space.k)
    shared = space.mmap(4 * M, flags=SHARED)
    only_touch(space, shared, 1024, "write")
    check_tlb(space.k)


# ---------------------------------------------------------------- what is shown


def test_reach_is_entries_times_page_size_and_measured_so() -> None:
    space = Space(tlb={"l1_2m": 64})
    rows = {row["what"]: row for row in space.k.view("tlb_reach", pid=space.pid)["rows"]}
    assert {what: row["reach_bytes"] for what, row in rows.items()} == {what: row["measured_bytes"] for what, row in rows.items()}
    assert rows["level 1, 4 KiB pages"]["measured_bytes"] == 256 << 10
    assert rows["level 1, 2 MiB pages"]["measured_bytes"] == 128 << 20
    assert rows["level 2, 4 KiB pages"]["measured_bytes"] == 6 << 20


def test_reach_as_a_program_meets_it() -> None:
    """Twice over the reach of level 1 and of level 2: all hits; one page more: the LRU of the full sets fails."""
    space = Space()
    address = space.mmap(2048 * PAGE)
    for pages, expected in ((64, (64, 64, 0, 0)), (1536, (1536, 0, 1536, 0)), (2048, (2048, 0, 0, 2048))):
        for _ in range(3):
            answer = only_touch(space, address, pages, "write")
        assert counts(answer) == expected


def test_views() -> None:
    space = Space()
    address = space.mmap(16 * PAGE)
    only_touch(space, address, 16, "write")
    view = space.k.view("tlb", pid=space.pid)
    assert view["counts"]["accesses"] >= 16
    assert view["held"]["l1_4k"] >= 16
    assert view["entries"][0]["age"] == 0
    assert {entry["address"] for entry in view["entries"] if entry["structure"] == "l1_4k"} >= {address + i * PAGE for i in range(16)}
    walk = space.k.view("walk", pid=space.pid, address=address)
    assert walk["tlb"]["held_by"] == "l1"
    assert space.k.view("walk", pid=space.pid, address=address + 64 * M)["tlb"] is None


@pytest.mark.parametrize(("what", "found", "word"), [
    ("held", "l1", "level 1"), ("evicted", None, "level-2 set is full"), ("flushed", None, "forgotten"), ("absent", None, "nothing is mapped"),
])  # fmt: skip
def test_why_a_miss(what: str, found: str | None, word: str) -> None:
    space = Space()
    address = space.mmap(4096 * PAGE)
    only_touch(space, address, 1, "write")
    match what:
        case "evicted":
            only_touch(space, address + PAGE, 4095, "write")
        case "flushed":
            space.ok("fork")
        case "absent":
            address += PAGE
    page = space.k.view("explain_tlb", pid=space.pid, address=address)["page"]
    assert page["found"] == found
    assert word in page["why"]


def test_snapshots_carry_the_tlb() -> None:
    space = Space()
    address = space.mmap(16 * PAGE)
    only_touch(space, address, 16, "write")
    other = Kernel.restore(space.k.snapshot())
    assert other.digest() == space.k.digest()
    answers = [k.call("touch", space.pid, address=address, length=16 * PAGE, access="read") for k in (space.k, other)]
    assert answers[0].tlb == answers[1].tlb
    assert counts(answers[0]) == (16, 16, 0, 0)


# ---------------------------------------------------------------- geometry


@pytest.mark.parametrize(("given", "ways"), [({"l1_4k": 100}, 25), ({"l1_4k": 6}, 3), ({"l2": 1024}, 8), ({"l2": 2048}, 8), ({"l1_4k": 1}, 1)])
def test_ways_that_fit_are_chosen(given: dict[str, int], ways: int) -> None:
    name = next(iter(given))
    assert dict(Machine.from_dict({"tlb": given}).tlb)[f"{name}_ways"] == ways


@pytest.mark.parametrize("given", [
    {"l1_4k": 64, "l1_4k_ways": 3}, {"l2": 1536, "l2_ways": 64}, {"l2": 1009}, {"l1_4k": 0}, {"pcid": 2}, {"pdpte": 64},
    {"l1_4k_ways": 4, "l1_4k": 48},
])  # fmt: skip
def test_impossible_geometry_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"machine\.tlb"):
        Machine.from_dict({"tlb": given})
