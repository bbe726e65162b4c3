"""cgroup v2 memory, by the kernel's own selftests (cgroup/test_memcontrol.c): the scenarios and numbers, their tolerances."""

from __future__ import annotations

import pytest

from tests.peer.box import Box, M, close


@pytest.fixture
def box() -> Box:
    return Box(memory="1G", swap="0")


def test_mc01_subtree_control(box: Box) -> None:
    box.cgroup("/p")
    box.cgroup("/p/c")
    assert "memory" in box.cg("/p/c", "cgroup.controllers").split()
    box.cgroup("/p2")
    box.kernel.call("mkdir", path="/sys/fs/cgroup/p2/c2")
    assert "memory" not in box.cg("/p2/c2", "cgroup.controllers").split()


def test_mc02_a_fresh_group_is_empty(box: Box) -> None:
    box.cgroup("/a")
    assert box.cg_int("/a", "memory.current") == 0


def test_mc03_anonymous_memory(box: Box) -> None:
    box.cgroup("/a")
    pid = box.spawn(cgroup="/a")
    assert box.alloc_anon(pid, 50 * M).signal is None
    current = box.cg_int("/a", "memory.current")
    assert current >= 50 * M
    assert close(50 * M, current, 3)
    assert close(box.stat("/a")["anon"], current, 3)


def test_mc04_page_cache(box: Box) -> None:
    box.cgroup("/a")
    pid = box.spawn(cgroup="/a")
    box.alloc_anon(pid, 50 * M)
    box.ok(pid, "exit")
    reader = box.spawn(cgroup="/a")
    box.pagecache(reader, "/data/f", 50 * M)
    current, file = box.cg_int("/a", "memory.current"), box.stat("/a")["file"]
    assert current >= 50 * M
    assert file > 0
    assert close(file, current, 10)


@pytest.mark.parametrize("name", ["memory.max", "memory.swap.max", "memory.high"])
def test_mc19_default_limits(box: Box, name: str) -> None:
    box.cgroup("/a")
    assert box.cg("/a", name) == "max\n"


def test_mc19_swap_current_starts_at_nothing(box: Box) -> None:
    box.cgroup("/a")
    assert box.cg("/a", "memory.swap.current") == "0\n"


def test_mc16_over_the_limit(box: Box) -> None:
    box.cgroup("/a", memory_swap_max=0, memory_max="30M")
    pid = box.spawn(cgroup="/a")
    found = box.alloc_anon(pid, 100 * M)
    assert found.killed == [pid]
    assert not box.alive(pid)


def test_mc23_oom_events(box: Box) -> None:
    box.cgroup("/a", memory_max="30M", memory_swap_max=0)
    pid = box.spawn(cgroup="/a")
    box.alloc_anon(pid, 100 * M)
    assert not box.alive(pid)
    assert box.cg("/a", "cgroup.procs") == ""
    events = box.events("/a")
    assert (events["oom"], events["oom_kill"]) == (1, 1)
    assert events["max"] > 0


def test_mc25_oom_group_of_a_leaf(box: Box) -> None:
    """The parent's own 60M task sits in a leaf beside the child: a group with controllers for its children holds no tasks."""
    box.cgroup("/parent")
    box.cgroup("/parent/child", memory_max="50M", memory_swap_max=0, memory_oom_group=1)
    box.cgroup("/parent/beside")
    beside = box.spawn("beside", cgroup="/parent/beside")
    box.alloc_anon(beside, 60 * M)
    small = [box.spawn(cgroup="/parent/child") for _ in range(2)]
    for pid in small:
        box.alloc_anon(pid, M)
    big = box.spawn(cgroup="/parent/child")
    assert box.alloc_anon(big, 100 * M).signal == "SIGKILL"
    assert box.cg("/parent/child", "cgroup.procs") == ""
    assert box.events("/parent/child")["oom_kill"] > 0
    assert box.events("/parent")["oom_kill"] > 0
    assert box.events("/parent", "memory.events.local")["oom_kill"] == 0
    assert box.alive(beside)


def test_mc26_oom_group_of_a_parent(box: Box) -> None:
    box.cgroup("/parent", memory_max="80M", memory_swap_max=0, memory_oom_group=1)
    box.cgroup("/parent/child")
    box.cgroup("/parent/beside")
    for group in ("/parent/beside", "/parent/beside", "/parent/child"):
        box.alloc_anon(box.spawn(cgroup=group), M)
    outside = box.spawn("outside")
    big = box.spawn(cgroup="/parent/child")
    assert box.alloc_anon(big, 100 * M).signal == "SIGKILL"
    assert box.cg("/parent/child", "cgroup.procs") == ""
    assert box.cg("/parent/beside", "cgroup.procs") == ""
    assert box.alive(outside)


def test_mc27_oom_group_counts_the_first_victim_twice(box: Box) -> None:
    box.cgroup("/a", memory_max="50M", memory_swap_max=0, memory_oom_group=1)
    immune = box.spawn("immune", cgroup="/a", oom_score_adj=-1000)
    box.alloc_anon(immune, M)
    box.alloc_anon(box.spawn(cgroup="/a"), M)
    big = box.spawn("big", cgroup="/a")
    assert box.alloc_anon(big, 100 * M).signal == "SIGKILL"
    assert box.events("/a")["oom_kill"] == 3
    assert box.events("/a")["oom_group_kill"] == 1
    assert box.alive(immune)


# ---- the interface ---------------------------------------------------------------------------------------------

PARSE = [  # CG-03: what is written, what reads back
    ("50M", f"{50 * M}\n"),
    ("5000", "4096\n"),
    ("100", "0\n"),
    ("max", "max\n"),
    ("1G\n", f"{1024 * M}\n"),
    ("16384", "16384\n"),
    ("18446744073709551615", "max\n"),
]


@pytest.mark.parametrize(("written", "read"), PARSE)
def test_cg03_limits_are_parsed_as_memparse_does(box: Box, written: str, read: str) -> None:
    box.cgroup("/a")
    assert box.put("/sys/fs/cgroup/a/memory.high", written) is None
    assert box.cg("/a", "memory.high") == read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory.max", "50X"),
        ("memory.max", "lots"),
        ("memory.max", "-1"),
        ("memory.oom.group", "2"),
        ("memory.oom.group", "yes"),
        ("cgroup.subtree_control", "+nothing"),
    ],
)
def test_bad_values_are_einval(box: Box, name: str, value: str) -> None:
    box.cgroup("/a")
    before = box.cg("/a", name)
    assert box.put(f"/sys/fs/cgroup/a/{name}", value) == "EINVAL"
    assert box.cg("/a", name) == before


def test_cg46_no_internal_processes(box: Box) -> None:
    box.cgroup("/a")
    box.spawn(cgroup="/a")
    assert box.put("/sys/fs/cgroup/a/cgroup.subtree_control", "+memory") == "EBUSY"


def test_busy_groups_are_not_removed(box: Box) -> None:
    box.cgroup("/a")
    pid = box.spawn(cgroup="/a")
    assert remove(box, "/a") == "EBUSY"
    box.ok(pid, "exit")
    assert remove(box, "/a") is None
    assert "a" not in box.kernel.listdir("/sys/fs/cgroup")


def remove(box: Box, path: str) -> str | None:
    from core import FsError

    try:
        return box.kernel.call("rmdir", path=f"/sys/fs/cgroup{path}").errno
    except FsError as error:
        return str(error.errno)


def test_cg26_moving_a_task_leaves_its_charges(box: Box) -> None:
    box.cgroup("/a")
    box.cgroup("/b")
    pid = box.spawn(cgroup="/a")
    box.alloc_anon(pid, 20 * M)
    charged = box.cg_int("/a", "memory.current")
    box.set("/sys/fs/cgroup/b/cgroup.procs", pid)
    assert box.cg("/b", "cgroup.procs") == f"{pid}\n"
    assert close(box.cg_int("/a", "memory.current"), charged, 1)
    box.alloc_anon(pid, 10 * M)
    assert close(box.cg_int("/b", "memory.current"), 10 * M, 3)


def test_cg08_a_parents_limit_binds_its_children(box: Box) -> None:
    box.cgroup("/p", memory_max="20M", memory_swap_max=0)
    box.cgroup("/p/c", memory_max="100M")
    pid = box.spawn(cgroup="/p/c")
    assert box.alloc_anon(pid, 40 * M).killed == [pid]
    assert box.events("/p")["oom"] == 1
    assert box.events("/p/c")["oom"] == 0
    assert box.events("/p/c")["oom_kill"] == 1


def test_cg12_a_limit_below_usage_kills_until_it_fits(box: Box) -> None:
    """One more than had to: the first victim's pages are not uncharged yet when the writer looks again."""
    box.cgroup("/a", memory_swap_max=0)
    pids = [box.spawn(f"p{index}", cgroup="/a") for index in range(3)]
    for pid in pids:
        box.alloc_anon(pid, 20 * M)
    assert box.put("/sys/fs/cgroup/a/memory.max", "45M") is None
    assert sum(map(box.alive, pids)) == 1
    assert box.cg_int("/a", "memory.current") <= 45 * M


def test_cg19_events_are_hierarchical(box: Box) -> None:
    box.cgroup("/p")
    box.cgroup("/p/c", memory_max="10M", memory_swap_max=0)
    pid = box.spawn(cgroup="/p/c")
    box.alloc_anon(pid, 20 * M)
    assert box.events("/p")["max"] == box.events("/p/c")["max"] > 0
    assert box.events("/p", "memory.events.local") == dict.fromkeys(box.events("/p"), 0)


def test_mc05_peak_is_read_only_and_remembers(box: Box) -> None:
    box.cgroup("/a")
    pid = box.spawn(cgroup="/a")
    address = box.mmap(pid, 50 * M)
    box.touch(pid, address, 50 * M)
    box.ok(pid, "munmap", address=address, length=50 * M)
    assert box.cg_int("/a", "memory.peak") >= 50 * M
    assert box.cg_int("/a", "memory.current") < 2 * M
    assert box.put("/sys/fs/cgroup/a/memory.peak", "0") is not None


# ---- LTP: limits and who is hit --------------------------------------------------------------------------------


@pytest.mark.parametrize("swap_max", [None, "1M"])
def test_lo04_only_the_group_is_hit(swap_max: str | None) -> None:
    box = Box(memory="1G", swap="0")
    files = {"memory_max": "256M"} | ({"memory_swap_max": swap_max} if swap_max else {})
    box.cgroup("/a", **files)
    outside = box.spawn("outside")
    box.alloc_anon(outside, 300 * M)
    pid = box.spawn(cgroup="/a")
    found = box.alloc_anon(pid, 512 * M)
    assert found.signal == "SIGKILL" and found.killed == [pid]
    assert box.alive(outside)
