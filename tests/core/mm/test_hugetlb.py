"""The pool against the model of LTP's hugemmap10: four counters that any sequence of operations must leave exactly so; and region maps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import Kernel, Machine
from core.mm.hugetlb_types import ResvMap
from core.vmstat import EVENT
from tests.core.mm.space import K, M, Space

H = 2 << 20
MOST = 8

OPERATION = st.one_of(
    st.tuples(st.just("set"), st.integers(0, MOST)),
    st.tuples(st.just("map"), st.integers(1, 4), st.sampled_from(["private", "shared"])),
    st.tuples(st.just("touch"), st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("unmap"), st.integers(0, 5)),
)


class Model:
    """The rules in their simplest form: totals, and a list of mappings with a flag a page."""

    def __init__(self, overcommit: int) -> None:
        self.total = self.free = self.rsvd = self.surp = 0
        self.overcommit = overcommit
        self.mappings: list[list[bool]] = []

    def set(self, n: int) -> None:
        grown = min(self.surp, max(0, n - (self.total - self.surp)))
        self.surp -= grown
        fresh = max(0, n - (self.total - self.surp))
        self.total, self.free = self.total + fresh, self.free + fresh
        floor = max(n, self.rsvd + self.total - self.free)
        gone = max(0, self.total - self.surp - floor)
        self.total, self.free = self.total - gone, self.free - gone
        self.surp = max(self.surp, self.total - n) if self.total - self.surp > n else self.surp

    def map(self, n: int) -> bool:
        short = max(0, self.rsvd + n - self.free)
        if self.surp + short > self.overcommit and short:
            return False
        self.total, self.free, self.surp = self.total + short, self.free + short, self.surp + short
        self.rsvd += n
        self.mappings.append([False] * n)
        return True

    def touch(self, pages: list[bool], at: int) -> None:
        if not pages[at]:
            pages[at] = True
            self.free, self.rsvd = self.free - 1, self.rsvd - 1

    def unmap(self, which: int) -> None:
        pages = self.mappings.pop(which)
        for _ in range(sum(pages)):
            self.give_back(in_use=True)
        untouched = len(pages) - sum(pages)
        self.rsvd -= untouched
        for _ in range(min(untouched, self.surp, self.free)):
            self.total, self.free, self.surp = self.total - 1, self.free - 1, self.surp - 1

    def give_back(self, *, in_use: bool) -> None:
        if self.surp:
            self.surp, self.total = self.surp - 1, self.total - 1
        else:
            self.free += 1

    @property
    def counters(self) -> tuple[int, int, int, int]:
        return self.total, self.free, self.rsvd, self.surp


def counters(k: Kernel) -> tuple[int, int, int, int]:
    h = k.default_hstate
    return h.nr_huge_pages, h.free_huge_pages, h.resv_huge_pages, h.surplus_huge_pages


def run(k: Kernel, pid: int, model: Model, addresses: list[int], step: tuple[Any, ...]) -> None:
    """One operation on both."""
    op, *args = step
    if op == "set":
        k.call("put", path="/proc/sys/vm/nr_hugepages", data=str(args[0]).encode())
        model.set(args[0])
    elif op == "map":
        found = k.call("mmap", pid, length=args[0] * H, prot="rw", flags=[args[1], "anonymous", "hugetlb"])
        assert (found.errno is None) == model.map(args[0])
        if found.result:
            addresses.append(int(found.result["address"]))
    elif addresses:
        which = args[0] % len(addresses)
        pages = model.mappings[which]
        if op == "touch":
            at = args[1] % len(pages)
            assert k.call("touch", pid, address=addresses[which] + at * H, length=4096, access="write").signal is None
            model.touch(pages, at)
        else:
            model.unmap(which)
            assert k.call("munmap", pid, address=addresses.pop(which), length=len(pages) * H).errno is None


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=st.integers(0, 3), overcommit=st.integers(0, 4), steps=st.lists(OPERATION, max_size=30))
def test_lh06_to_lh10_the_counters(base: int, overcommit: int, steps: list[tuple[Any, ...]]) -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "128M", "transparent_hugepage": "never"}))
    pid = (k.call("spawn", comm="a").result or {})["pid"]
    k.call("put", path="/proc/sys/vm/nr_overcommit_hugepages", data=str(overcommit).encode())
    model, addresses = Model(overcommit), list[int]()
    for step in (("set", base), *steps):
        run(k, pid, model, addresses, step)
        assert counters(k) == model.counters, step
        k.verify()


@pytest.mark.parametrize("base", [1, 2, 3])
def test_lh10_a_pool_of_surplus_only(base: int) -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "128M", "transparent_hugepage": "never", "sysctl": {"vm.nr_overcommit_hugepages": base}}))
    pid = (k.call("spawn", comm="a").result or {})["pid"]
    address = (k.call("mmap", pid, length=H, prot="rw", flags=["private", "anonymous", "hugetlb"]).result or {})["address"]
    assert counters(k) == (1, 1, 1, 1)
    k.call("touch", pid, address=address, length=H, access="write")
    assert counters(k) == (1, 0, 0, 1)
    k.call("munmap", pid, address=address, length=H)
    assert counters(k) == (0, 0, 0, 0)


RANGE = st.tuples(st.integers(0, 20), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(steps=st.lists(st.tuples(st.sampled_from(["add", "del"]), RANGE), max_size=20))
def test_a_region_map_is_a_set_of_pages(steps: list[tuple[str, tuple[int, int]]]) -> None:
    resv, pages = ResvMap(), set[int]()
    for op, (start, end) in steps:
        span = set(range(start, end))
        assert resv.region_chg(start, end) == len(span - pages)
        if op == "add":
            assert resv.region_add(start, end) == len(span - pages)
            pages |= span
        else:
            assert resv.region_del(start, end) == len(span & pages)
            pages -= span
        held = {page for low, high in resv.regions for page in range(low, high)}
        assert held == pages and all(low < high for low, high in resv.regions)


def test_a_pool_survives_a_snapshot() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "128M", "transparent_hugepage": "never", "sysctl": {"vm.nr_hugepages": 6}}))
    pid = (k.call("spawn", comm="a").result or {})["pid"]
    k.call("create_file", path="/dev/hugepages/f", size=0)
    for flags, file in ((["private", "anonymous", "hugetlb"], None), (["shared"], "/dev/hugepages/f")):
        address = (k.call("mmap", pid, length=2 * H, prot="rw", flags=flags, file=file).result or {})["address"]
        k.call("touch", pid, address=address, length=4096, access="write")
    other = Kernel.restore(k.snapshot())
    other.verify()
    assert other.digest() == k.digest() and counters(other) == counters(k) == (6, 4, 2, 0)
    for kernel in (k, other):
        kernel.call("fork", pid)
        kernel.call("exit", pid)
        kernel.verify()
    assert other.digest() == k.digest()


def test_frames_of_a_pool_say_so() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "128M", "transparent_hugepage": "never", "sysctl": {"vm.nr_hugepages": 1}}))
    pfn = next(iter(k.default_hstate.pages))
    raw = k.pread("/proc/kpageflags", pfn * 8, 513 * 8)
    flags = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]
    head, tail, huge = 1 << 15, 1 << 16, 1 << 17
    assert flags[0] & (head | tail | huge) == head | huge and flags[511] & (head | tail | huge) == tail | huge and not flags[512] & huge


# ---------------------------------------------------------------- nr_hugepages_mempolicy, demote

PER_NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"

# the writer's policy, and where a pool of 8 lies on a machine of four nodes, the writer on node 1
BY_POLICY = [
    (None, [2, 2, 2, 2]),
    (("bind", [2]), [0, 0, 8, 0]),
    (("interleave", [0, 3]), [4, 0, 0, 4]),
    (("preferred", [3]), [0, 0, 0, 8]),
    (("local", []), [0, 8, 0, 0]),
]


@pytest.mark.parametrize("path", ["/proc/sys/vm/nr_hugepages_mempolicy", "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages_mempolicy"])
@pytest.mark.parametrize(("policy", "expected"), BY_POLICY)
def test_the_pool_grows_on_the_nodes_of_the_writers_policy(path: str, policy: tuple[str, list[int]] | None, expected: list[int]) -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "256M", "nodes": 4, "cpus": 4, "swap": "0"}))
    pid = k.call("spawn", comm="a").result["pid"]
    k.call("sched_setaffinity", pid, cpus=[1])
    if policy is not None:
        assert k.call("set_mempolicy", pid, mode=policy[0], nodes=policy[1]).errno is None
    assert k.call("put", path=path, data=b"8", by=pid).errno is None
    k.verify()
    assert [int(k.read(PER_NODE.format(node))) for node in range(4)] == expected
    assert k.call("put", path=path, data=b"8", by=pid + 1000).errno == "ESRCH"
    assert k.call("put", path=path, data=b"x", by=pid).errno == "EINVAL"


def test_a_free_page_of_1g_is_demoted_to_512_of_2m() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "4G", "swap": "0"}))
    big, small = (f"/sys/kernel/mm/hugepages/hugepages-{kb}kB/" for kb in (1048576, 2048))
    k.call("put", path=big + "nr_hugepages", data=b"2")
    had = int(k.read(big + "nr_hugepages"))
    assert had and k.read(big + "demote_size") == b"2048kB\n"
    pid = k.call("spawn", comm="a").result["pid"]
    made = k.call("mmap", pid, length=1 << 30, prot="rw", flags=["shared", "anonymous", "hugetlb"], huge_size=1 << 30)
    assert made.errno is None
    assert k.call("put", path=big + "demote", data=b"5").errno is None  # one is promised: it stays
    k.verify()
    assert int(k.read(big + "nr_hugepages")) == 1
    assert [int(k.read(small + name)) for name in ("nr_hugepages", "free_hugepages")] == [512 * (had - 1)] * 2
    k.call("put", path=small + "nr_hugepages", data=b"0")
    k.verify()
    assert k.call("put", path=big + "demote_size", data=b"4M").errno == "EINVAL"


# a mapping whose pages there are too few of: its arguments, pages to touch of 4 KiB, how many faults succeed before the SIGBUS
FAILING: list[tuple[str, dict[str, Any], int, int]] = [
    ("a pool of two, three are touched", {"length": 6 * M, "flags": ["private", "anonymous", "hugetlb", "noreserve"]}, 3 * 512, 2),
    ("a file of three pages, five are mapped", {"length": 20 * K, "flags": ["shared"], "file": "/data/f", "offset": 0}, 5, 1),
]


@pytest.mark.parametrize(("mapping", "pages", "good"), [pytest.param(*case, id=name) for name, *case in FAILING])
def test_a_failed_fault_counts_in_vmstat_only(mapping: dict[str, Any], pages: int, good: int) -> None:
    """mm_account_fault leaves out what ended in SIGBUS, handle_mm_fault has counted it before."""
    t = Space("512M")
    t.k.call("put", path="/proc/sys/vm/nr_hugepages", data=b"2")
    t.k.call("create_file", path="/data/f", size=12 * K)
    t.ok("read", path="/data/f", offset=0, length=12 * K)
    address = t.ok("mmap", prot="rw", **mapping)["address"]
    before, own = int(t.k.s.vm_event[EVENT["pgfault"]]), t.k.tasks[t.pid].minflt
    answer = t.call("touch", address=address, length=pages * 4 * K, access="read")
    assert answer.signal == "SIGBUS"
    assert answer.minor == t.k.tasks[t.pid].minflt - own == good
    assert int(t.k.s.vm_event[EVENT["pgfault"]]) - before == good + 1
