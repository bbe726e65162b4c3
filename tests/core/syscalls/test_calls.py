"""What the handlers themselves decide: orders of access, limits, names, users, files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.syscalls.mm import access_order
from tests.core.mm.space import PAGE, K, M, Space


@pytest.fixture
def space() -> Space:
    return Space()


def touched(space: Space, address: int, pages: int) -> str:
    """One character a page: resident or not."""
    return "".join("x" if space.ok("mincore", address=address + i * PAGE, length=PAGE)["resident"] else "." for i in range(pages))


# arguments of touch on 8 pages, (touched, which pages)
TOUCHES: dict[str, tuple[dict[str, Any], int, str]] = {
    "one page by default": ({}, 1, "x......."),
    "half a page is a page": ({"length": 2 * PAGE + 1}, 3, "xxx....."),
    "every third": ({"length": 8 * PAGE, "stride": 3}, 3, "x..x..x."),
    "every third from the end": ({"length": 8 * PAGE, "stride": 3, "order": "reverse"}, 3, ".x..x..x"),
    "reverse": ({"length": 4 * PAGE, "order": "reverse"}, 4, "xxxx...."),
    "random is each once": ({"length": 8 * PAGE, "order": "random", "seed": 7}, 8, "xxxxxxxx"),
    "these": ({"pages": [5, 1, 1]}, 3, ".x...x.."),
    "none": ({"pages": []}, 0, "........"),
    "twice over": ({"length": 4 * PAGE, "repeat": 3}, 12, "xxxx...."),
    "from the middle of a page": ({"offset": 100, "length": PAGE}, 1, "x......."),
}


@pytest.mark.parametrize("case", TOUCHES)
def test_touch(space: Space, case: str) -> None:
    arguments, count, pages = TOUCHES[case]
    h = space.mmap(8 * PAGE)
    arguments = dict(arguments)
    answer = space.ok("touch", address=h + arguments.pop("offset", 0), access="write", **arguments)
    assert (answer["touched"], touched(space, h, 8)) == (count, pages)


def test_random_is_a_permutation_that_the_seed_decides() -> None:
    one, same, other = (access_order("random", 1000, 1, seed) for seed in (1, 1, 2))
    assert one is not None
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert sorted(one.tolist()) == list(range(1000))
    assert one.tolist() == shuffled(1000, seed=1)


def shuffled(count: int, seed: int) -> list[int]:
    """The inside-out shuffle of Fisher and Yates, in plain integers: item i goes to a drawn place at or before its own."""
    order: list[int] = []
    for i in range(count):
        j = ((splitmix64(seed + i + 1) >> 32) * (i + 1)) >> 32
        order.append(order[j] if j < i else i)
        order[j] = i
    return order


def splitmix64(state: int) -> int:
    """The same hash in plain integers."""
    mask = (1 << 64) - 1
    x = state * 0x9E3779B97F4A7C15 & mask
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
    return x ^ x >> 31


@pytest.mark.parametrize("order", ["random", "zipf"])
def test_an_order_has_an_end(space: Space, order: str) -> None:
    assert space.errno("touch", address=0, length=1 << 60, order=order) == "E2BIG"


def test_zipf_prefers_the_first_pages() -> None:
    order = access_order("zipf", 100_000, 1, 3)
    assert order is not None
    assert (order.min(), order.max() < 100_000) == (0, True)
    counts = np.bincount(order, minlength=4)
    harmonic = sum(1 / rank for rank in range(1, 100_001))
    for rank in range(4):  # page r is expected 100000 / (harmonic * (r + 1)) times
        expected = 100_000 / (harmonic * (rank + 1))
        assert abs(counts[rank] - expected) < 5 * expected**0.5


@pytest.mark.parametrize(("prot", "access", "signal"), [
    ("r", "read", None), ("r", "write", "SIGSEGV"), ("r", "exec", "SIGSEGV"), ("rx", "exec", None), ("w", "read", None),
    ("none", "read", "SIGSEGV"),
])  # fmt: skip
def test_access_needs_permission(space: Space, prot: str, access: str, signal: str | None) -> None:
    h = space.mmap(PAGE, prot)
    assert space.touch(h, PAGE, access).signal == signal


@pytest.mark.parametrize("address", [0, 0x7FFFFFFFF000, 1 << 47, 1 << 63, (1 << 64) - 1])
def test_no_address_is_too_odd(space: Space, address: int) -> None:
    answer = space.touch(address, PAGE, "read")
    assert (answer.signal, answer.fault_address) == ("SIGSEGV", address // PAGE * PAGE)


def test_setrlimit_up_needs_root(space: Space) -> None:
    space.ok("setrlimit", resource="as", limit=64 * M)
    space.ok("setrlimit", resource="as", limit=128 * M)
    space.ok("setuid", uid=1000)
    assert space.errno("setrlimit", resource="as", limit=256 * M) == "EPERM"
    assert space.errno("setrlimit", resource="as") == "EPERM"
    assert space.errno("setrlimit", resource="as", limit=64 * M) is None
    assert space.errno("setuid", uid=0) == "EPERM"
    assert space.errno("setuid", uid=1000) is None


def test_prctl(space: Space) -> None:
    space.ok("prctl", option="set_name", name="a-very-long-name-indeed")
    assert space.read("/proc/<pid>/comm") == "a-very-long-nam\n"
    assert space.ok("prctl", option="get_thp_disable") == {"value": 0}
    space.ok("prctl", option="set_thp_disable", value=1)
    assert space.ok("prctl", option="get_thp_disable") == {"value": 1}
    assert "THP_enabled:\t0\n" in space.read("/proc/<pid>/status")
    assert space.errno("prctl", option="set_name") == "EFAULT"


@pytest.mark.parametrize(("cpus", "errno", "cpu"), [([1], None, 1), ([0, 1], None, 0), ([7], "EINVAL", 0), ([], "EINVAL", 0)])
def test_sched_setaffinity(space: Space, cpus: list[int], errno: str | None, cpu: int) -> None:
    assert space.errno("sched_setaffinity", cpus=cpus) == errno
    assert space.k.tasks[space.pid].cpu == cpu


@pytest.mark.parametrize(("signal", "errno"), [("SIGKILL", None), (9, None), (0, None), ("SIGNOTHING", "EINVAL"), (64, "EINVAL")])
def test_kill(space: Space, signal: str | int, errno: str | None) -> None:
    answer = space.call("kill", signal=signal)
    assert answer.errno == errno
    assert answer.killed == ([space.pid] if signal in ("SIGKILL", 9) else [])


def test_wait_reaps_a_child_and_tells_how_it_ended(space: Space) -> None:
    assert space.errno("wait") == "ECHILD"
    child = space.ok("fork")["pid"]
    assert space.ok("wait")["pid"] == 0
    space.ok("exit", child, status=3)
    assert space.ok("wait") == {"pid": child, "status": 3, "signal": 0}
    child = space.ok("fork")["pid"]
    space.ok("kill", child, signal="SIGKILL")
    assert space.ok("wait", child=child) == {"pid": child, "status": 0, "signal": 9}


# ---------------------------------------------------------------- files


def test_files_grow_and_shrink(space: Space) -> None:
    assert space.ok("write", path="/data/new", offset=0, length=100 * K) == {"bytes": 100 * K}
    assert space.ok("read", path="/data/new", offset=96 * K, length=M) == {"bytes": 4 * K}
    assert space.ok("read", path="/data/new", offset=M, length=M) == {"bytes": 0}
    dirty = space.meminfo("Dirty")
    space.ok("fsync", path="/data/new")
    assert dirty - space.meminfo("Dirty") == 100
    cached = space.meminfo("Cached")
    space.ok("truncate", path="/data/new", length=40 * K)
    assert cached - space.meminfo("Cached") == 60
    assert space.ok("read", path="/data/new", offset=0, length=M) == {"bytes": 40 * K}


@pytest.mark.parametrize(("call", "arguments"), [
    ("read", {"length": PAGE}), ("fsync", {}), ("fadvise", {"advice": "dontneed"}), ("truncate", {"length": 0}),
])  # fmt: skip
def test_a_file_that_is_not_there(space: Space, call: str, arguments: dict[str, Any]) -> None:
    assert space.errno(call, path="/data/none", **arguments) == "ENOENT"


def test_a_mapping_beyond_the_new_end_is_a_bus_error(space: Space) -> None:  # WB-05
    space.k.call("create_file", path="/data/f", size=M)
    h = space.mmap(M, "rw", ["shared"], file="/data/f")
    space.touch(h, M, "read")
    space.ok("truncate", path="/data/f", length=M // 2)
    assert space.smaps("Rss", h) == 512
    assert space.touch(h, M, "read").signal == "SIGBUS"


def test_fadvise_dontneed_drops_whole_pages_of_the_range(space: Space) -> None:
    space.k.call("create_file", path="/data/f", size=M)
    space.ok("read", path="/data/f", offset=0, length=M)
    cached = space.meminfo("Cached")
    space.ok("fadvise", path="/data/f", advice="dontneed", offset=100, length=512 * K)
    assert cached - space.meminfo("Cached") == 508  # neither the first page nor the last is whole
    space.ok("fadvise", path="/data/f", advice="dontneed")
    assert cached - space.meminfo("Cached") == 1024
    space.ok("fadvise", path="/data/f", advice="willneed", offset=0, length=256 * K)
    assert cached - space.meminfo("Cached") == 768


# call, arguments, errno
OPERATOR = [
    ("create_file", {"path": "/data/f", "size": M}, None),
    ("create_file", {"path": "/tmp/f", "size": M}, "EINVAL"),
    ("create_file", {"path": "/data/huge", "size": 1 << 50}, "EFBIG"),
    ("put", {"path": "/proc/sys/vm/swappiness", "data": b"10"}, None),
    ("put", {"path": "/proc/sys/vm/swappiness", "data": b"many"}, "EINVAL"),
    ("put", {"path": "/proc/meminfo", "data": b"1"}, "EACCES"),
    ("put", {"path": "/proc/none", "data": b"1"}, "ENOENT"),
    ("mkdir", {"path": "/sys/fs/cgroup/a"}, None),
    ("mkdir", {"path": "/sys/fs/cgroup/a/b/c"}, "ENOENT"),
    ("mkdir", {"path": "/data/d"}, "EPERM"),
    ("rmdir", {"path": "/sys/fs/cgroup/none"}, "ENOENT"),
    ("spawn", {"comm": "x", "cgroup": "/none"}, "ENOENT"),
    ("advance", {"duration_ns": 10**9}, None),
]


@pytest.mark.parametrize(("call", "arguments", "errno"), OPERATOR)
def test_what_the_operator_does(space: Space, call: str, arguments: dict[str, Any], errno: str | None) -> None:
    assert space.k.call(call, **arguments).errno == errno


def test_move_pages_tells_where_pages_are(space: Space) -> None:
    h = space.mmap(4 * PAGE)
    space.touch(h, PAGE)
    space.touch(h + PAGE, PAGE, "read")
    assert space.ok("move_pages", address=h, pages=[0, 1, 2, 99999]) == {"status": "0 -14 -14 -14", "not_moved": 0}
    assert space.ok("move_pages", address=h, pages=[0], nodes=[0]) == {"status": "0", "not_moved": 0}
    assert space.ok("migrate_pages", old_nodes=[0], new_nodes=[0]) == {"not_moved": 0}
