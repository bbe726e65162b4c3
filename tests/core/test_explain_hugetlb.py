"""Explain for hugetlb: what it says of a write is what the write then does, and the arithmetic is the pool's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.mm.space import M, Space

H = 2 * M
KINDS = {"private": ["private", "anonymous", "hugetlb"], "shared": ["shared", "anonymous", "hugetlb"],
         "noreserve": ["private", "anonymous", "hugetlb", "noreserve"]}  # fmt: skip
TAKES = {"pool", "surplus"}


class Pool(Space):
    """A small pool, and processes that use it."""

    def __init__(self, pages: int, overcommit: int = 0) -> None:
        super().__init__("256M", swap="0")
        self.set("/proc/sys/vm/nr_overcommit_hugepages", overcommit)
        self.set("/proc/sys/vm/nr_hugepages", pages)

    def map(self, pages: int, kind: str) -> int | None:
        answer = self.call("mmap", length=pages * H, prot="rw", flags=KINDS[kind])
        return int(answer.result["address"]) if answer.errno is None else None

    def ask(self, address: int, pid: int | None = None) -> dict[str, Any]:
        at: dict[str, Any] = self.k.view("explain_hugetlb", pid=pid or self.pid, address=address)["at"]
        return at

    def write(self, address: int, pid: int | None = None) -> str | None:
        """The signal of a write, if any."""
        signal = self.call("touch", pid, address=address, length=4096, access="write").signal
        return str(signal) if signal else None

    def free(self) -> int:
        return int(self.read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"))

    def total(self) -> int:
        return int(self.read("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"))


# pages of the pool, overcommit, pages and kind of the mapping, who writes after the parent has written half: outcome, a word of the reason
CASES = [
    (2, 0, 2, "private", "parent", "pool", "promised"),
    (2, 0, 2, "private", "child", "SIGBUS", "nr_overcommit_hugepages"),
    (3, 0, 2, "private", "child", "pool", "promised to nobody"),
    (2, 2, 2, "private", "child", "surplus", "free memory"),
    (2, 0, 2, "shared", "child", "pool", "promised"),
    (1, 0, 2, "noreserve", "parent", "SIGBUS", "no promise"),
    (2, 0, 2, "noreserve", "parent", "pool", "promised to nobody"),
]


@pytest.mark.parametrize(("pages", "overcommit", "length", "kind", "who", "outcome", "word"), CASES)
def test_why_a_page_can_be_had_or_not(pages: int, overcommit: int, length: int, kind: str, who: str, outcome: str, word: str) -> None:
    pool = Pool(pages, overcommit)
    address = pool.map(length, kind)
    assert address is not None
    pool.write(address)
    child = pool.ok("fork")["pid"]
    pid = child if who == "child" else pool.pid
    told = pool.ask(address + H, pid)
    assert told["outcome"] == outcome and word in told["why"], told
    assert pool.write(address + H, pid) == ("SIGBUS" if outcome == "SIGBUS" else None)


def test_the_owner_of_the_promise_takes_the_page_away() -> None:
    pool = Pool(1)
    address = pool.map(1, "private")
    assert address is not None
    pool.write(address)
    child = pool.ok("fork")["pid"]
    assert pool.ask(address, child)["outcome"] == "SIGBUS"
    told = pool.ask(address)
    assert told["outcome"] == "reuse" and "taken away" in told["why"]
    assert pool.write(address) is None
    told = pool.ask(address, child)
    assert told["outcome"] == "SIGBUS" and "taken away" in told["why"]
    assert pool.write(address, child) == "SIGBUS"


def test_the_arithmetic_is_what_mmap_goes_by() -> None:
    pool = Pool(4, 2)
    assert pool.map(3, "shared") is not None
    told = next(one for one in pool.k.view("explain_hugetlb", pid=pool.pid)["pools"] if one["page_size"] == H)
    assert (told["free"], told["rsvd"], told["available"], told["promisable"]) == (4, 3, 1, 3)
    assert pool.map(4, "shared") is None
    assert pool.map(3, "shared") is not None
    mapping = pool.k.view("explain_hugetlb", pid=pool.pid)["mappings"][0]
    assert (mapping["pages"], mapping["mapped"], mapping["promised"]) == (3, 0, 3)


def test_a_limit_of_the_cgroup_is_named() -> None:
    pool = Pool(4)
    pool.set("/sys/fs/cgroup/cgroup.subtree_control", "+hugetlb")
    pool.k.call("mkdir", path="/sys/fs/cgroup/t")
    pool.set("/sys/fs/cgroup/t/cgroup.procs", pool.pid)
    pool.set("/sys/fs/cgroup/t/hugetlb.2MB.max", "2M")
    address = pool.map(2, "private")
    assert address is not None and pool.write(address) is None
    told = pool.ask(address + H)
    assert told["outcome"] == "SIGBUS" and "hugetlb.2MB.max of /t" in told["why"]
    assert pool.write(address + H) == "SIGBUS"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pages=st.integers(0, 4), overcommit=st.integers(0, 2),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7), st.integers(0, 3)), max_size=14),
)
def test_what_it_says_is_what_happens(pages: int, overcommit: int, steps: list[tuple[int, int, int]]) -> None:
    """Random mappings, forks, unmappings and writes: before each write its outcome is foretold."""
    pool = Pool(pages, overcommit)
    pids, regions = [pool.pid], [at for kind in KINDS if (at := pool.map(2, kind)) is not None]
    for what, a, b in steps:
        pid = pids[a % len(pids)]
        if what == 0 and len(pids) < 3:
            pids.append(pool.ok("fork", pid)["pid"])
        elif what == 1 and regions:
            pool.call("munmap", pid, address=regions[b % len(regions)] + a % 2 * H, length=H)
        elif regions:
            address = regions[b % len(regions)] + a % 2 * H
            told, free, total = pool.ask(address, pid), pool.free(), pool.total()
            signal = pool.write(address, pid)
            if told["outcome"] is None:
                assert signal == "SIGSEGV"
                continue
            assert (signal == "SIGBUS") == (told["outcome"] == "SIGBUS"), told
            assert pool.free() == free - (told["outcome"] == "pool"), told
            assert pool.total() >= total
