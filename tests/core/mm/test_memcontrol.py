"""The memory controller: charging up the tree, the rules of the tree, limits, statistics."""

from __future__ import annotations

from typing import Any

import pytest

from core import Kernel, Machine
from core.abi.errno import SysError
from core.mm import memcontrol, page_counter

M = 1 << 20
PAGE = 4096


@pytest.fixture
def k() -> Kernel:
    kernel = Kernel.boot(Machine.from_dict({"memory": "128M"}))
    put(kernel, "cgroup.subtree_control", "+memory")
    return kernel


def put(k: Kernel, path: str, data: str) -> str | None:
    return k.call("put", path=f"/sys/fs/cgroup/{path}", data=data.encode()).errno


def mkdir(k: Kernel, path: str) -> str | None:
    return k.call("mkdir", path=f"/sys/fs/cgroup/{path}").errno


def process(k: Kernel, cgroup: str = "/") -> int:
    return int(k.call("spawn", comm="p", cgroup=cgroup, catch_signals=True).result["pid"])


def write(k: Kernel, pid: int, size: int) -> Any:
    address = k.call("mmap", pid, length=size, prot="rw", flags=["private", "anonymous"]).result["address"]
    return k.call("touch", pid, address=address, length=size, access="write")


def events(k: Kernel, path: str, local: bool = False) -> dict[str, int]:
    text = k.read(f"/sys/fs/cgroup/{path}/memory.events{'.local' if local else ''}").decode()
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


# ---------------------------------------------------------------- charging

# (usage, max of the cgroup, max of its parent, pages wanted) -> (who is in the way, usage after)
CHARGES = [
    ("fits", 0, 100, 200, 1, None, 64),  # a batch of 64
    ("batch does not fit, the page does", 60, 100, 200, 1, None, 61),
    ("own limit", 100, 100, 200, 1, "child", 100),
    ("parent's limit", 150, 1000, 150, 1, "parent", 150),
    ("more than a batch", 0, 1000, 1000, 100, None, 100),
    ("exactly full", 36, 100, 200, 64, None, 100),
]


@pytest.mark.parametrize(("usage", "limit", "above", "nr", "over", "after"), [row[1:] for row in CHARGES], ids=[row[0] for row in CHARGES])
def test_a_charge_goes_up_the_tree(k: Kernel, usage: int, limit: int, above: int, nr: int, over: str | None, after: int) -> None:
    mkdir(k, "parent")
    put(k, "parent/cgroup.subtree_control", "+memory")
    mkdir(k, "parent/child")
    groups = {name: k.cgroup_at(path).id for name, path in (("parent", "/parent"), ("child", "/parent/child"))}  # type: ignore[union-attr]
    page_counter.force_charge(k.s, groups["child"], usage)
    k.s.memcgs["max"][groups["child"]], k.s.memcgs["max"][groups["parent"]] = limit, above
    failed = int(page_counter.charge_exactly(k.s, 0, groups["child"], nr))
    assert failed == (groups[over] if over else -1)
    assert [int(k.s.memcgs["usage"][group]) for group in groups.values()] == [after, after]
    assert int(k.s.memcgs["failcnt"][groups["child"]]) == (0 if over == "parent" else int(over is not None) + int(usage + 64 > limit and nr < 64))
    page_counter.drain_all_stock(k.s, 0)
    held = usage + (nr if over is None else 0)
    assert [int(k.s.memcgs["usage"][group]) for group in groups.values()] == [held, held]


def test_a_stock_serves_one_cgroup(k: Kernel) -> None:
    for name in "ab":
        mkdir(k, name)
    a, b = (k.cgroup_at(f"/{name}").id for name in "ab")  # type: ignore[union-attr]
    for _ in range(10):
        page_counter.charge_exactly(k.s, 0, a, 1)
    assert k.s.stock[0].tolist() == [a, 54]
    page_counter.charge_exactly(k.s, 0, b, 1)
    assert k.s.stock[0].tolist() == [b, 63]
    assert [int(k.s.memcgs["usage"][group]) for group in (a, b)] == [10, 64]
    page_counter.uncharge_pages(k.s, a, 10)
    page_counter.uncharge_pages(k.s, b, 1)


# Linux's own test of memory.min and memory.low: four children under a parent that protects 50M
PROTECTION = [(50, 75, 33), (50, 25, 16), (50, 0, 0), (0, 500, 0)]


def test_effective_protection_shares_the_parents() -> None:
    claimed = sum(min(usage, setting) for usage, setting, _ in PROTECTION)
    for usage, setting, expected in PROTECTION:
        assert memcontrol.effective_protection(usage, 150, setting, 50, claimed) == expected


@pytest.mark.parametrize(("usage", "parent_usage", "setting", "parent", "siblings", "recursive", "expected"), [
    (100, 200, 40, 100, 40, False, 40),    # the claims fit: protected as set
    (30, 200, 40, 100, 30, False, 30),     # never more than is used
    (100, 200, 40, 0, 40, False, 0),       # an unprotected parent protects nobody
    (100, 200, 0, 100, 0, True, 50),       # recursive: what nobody claims is shared by usage
    (100, 200, 0, 100, 0, False, 0),
])  # fmt: skip
def test_effective_protection(usage: int, parent_usage: int, setting: int, parent: int, siblings: int, recursive: bool, expected: int) -> None:
    assert memcontrol.effective_protection(usage, parent_usage, setting, parent, siblings, recursive) == expected


# ---------------------------------------------------------------- the tree


def test_names_and_places(k: Kernel) -> None:
    assert mkdir(k, "a") is None
    assert mkdir(k, "a") == "EEXIST"
    assert mkdir(k, "b/c") == "ENOENT"
    assert k.call("rmdir", path="/sys/fs/cgroup/b").errno == "ENOENT"
    mkdir(k, "a/b")
    assert k.call("rmdir", path="/sys/fs/cgroup/a").errno == "EBUSY"


def test_processes_live_in_leaves(k: Kernel) -> None:
    mkdir(k, "a")
    mkdir(k, "a/b")
    pid = process(k, "/a")
    assert put(k, "a/cgroup.subtree_control", "+memory") == "EBUSY"
    assert put(k, "a/b/cgroup.procs", str(pid)) is None
    assert put(k, "a/cgroup.subtree_control", "+memory") is None
    assert put(k, "a/cgroup.procs", str(pid)) == "EBUSY"
    assert k.call("rmdir", path="/sys/fs/cgroup/a/b").errno == "EBUSY"
    assert k.call("spawn", comm="x", cgroup="/a").errno == "EBUSY"


@pytest.mark.parametrize(("text", "errno"), [("+rdma", "EINVAL"), ("memory", "EINVAL"), ("+memory -memory", None), ("-memory", None), ("", None)])
def test_subtree_control_words(k: Kernel, text: str, errno: str | None) -> None:
    mkdir(k, "a")
    assert put(k, "a/cgroup.subtree_control", text) == errno


def test_a_controller_must_be_had_to_be_given(k: Kernel) -> None:
    mkdir(k, "a")
    mkdir(k, "a/b")
    assert put(k, "a/b/cgroup.subtree_control", "+memory") == "ENOENT"
    put(k, "a/cgroup.subtree_control", "+memory")
    assert put(k, "a/b/cgroup.subtree_control", "+memory") is None
    assert put(k, "a/cgroup.subtree_control", "-memory") == "EBUSY"


def test_without_the_controller_the_ancestor_pays(k: Kernel) -> None:
    mkdir(k, "a")
    mkdir(k, "a/b")
    pid = process(k, "/a/b")
    write(k, pid, M)
    assert memcontrol.stat(k, k.cgroup_at("/a"))["anon"] == M  # type: ignore[arg-type]
    assert int(k.s.memcgs["usage"][k.cgroup_at("/a/b").id]) == 0  # type: ignore[union-attr]
    put(k, "a/cgroup.subtree_control", "+memory")
    write(k, pid, M)
    assert int(k.s.memcgs["usage"][k.cgroup_at("/a/b").id]) >= 256  # type: ignore[union-attr]
    k.verify()


def test_unknown_processes_cannot_be_moved(k: Kernel) -> None:
    mkdir(k, "a")
    assert put(k, "a/cgroup.procs", "4242") == "ESRCH"


def test_a_move_leaves_the_charges_behind(k: Kernel) -> None:
    mkdir(k, "a")
    mkdir(k, "b")
    pid = process(k, "/a")
    write(k, pid, 2 * M)
    put(k, "b/cgroup.procs", str(pid))
    assert memcontrol.stat(k, k.cgroup_at("/a"))["anon"] == 2 * M  # type: ignore[arg-type]
    assert memcontrol.stat(k, k.cgroup_at("/b"))["anon"] == 0  # type: ignore[arg-type]


def test_a_removed_cgroup_pays_until_its_pages_are_gone(k: Kernel) -> None:
    """/a/b is emptied and removed; what its process wrote stays charged to /a, and shows in /a's memory.stat."""
    mkdir(k, "a")
    put(k, "a/cgroup.subtree_control", "+memory")
    mkdir(k, "a/b")
    mkdir(k, "a/c")
    pid = process(k, "/a/b")
    write(k, pid, 2 * M)
    put(k, "a/c/cgroup.procs", str(pid))
    assert k.call("rmdir", path="/sys/fs/cgroup/a/b").errno is None
    assert "b" not in k.listdir("/sys/fs/cgroup/a")
    a = k.cgroup_at("/a")
    assert a is not None
    assert memcontrol.stat(k, a)["anon"] == 2 * M
    assert [cg.path for cg in k.cgroups.values() if cg.dying] == ["/a/b"]
    assert k.read("/sys/fs/cgroup/a/cgroup.stat") == b"nr_descendants 1\nnr_dying_descendants 1\n"
    faults = memcontrol.stat(k, a)["pgfault"]
    k.call("exit", pid)
    assert k.read("/sys/fs/cgroup/a/cgroup.stat") == b"nr_descendants 1\nnr_dying_descendants 0\n"
    memcontrol.release_dying(k)
    assert not [cg for cg in k.cgroups.values() if cg.dying]
    assert memcontrol.stat(k, a)["anon"] == 0
    assert memcontrol.stat(k, a)["pgfault"] == faults
    k.verify()


@pytest.mark.parametrize(("name", "value", "errno"), [("cgroup.max.depth", "1", "EAGAIN"), ("cgroup.max.descendants", "1", "EAGAIN")])
def test_depth_and_descendants_are_limited(k: Kernel, name: str, value: str, errno: str) -> None:
    put(k, name, value)
    assert mkdir(k, "a") is None
    assert mkdir(k, "a/b") == errno


# ---------------------------------------------------------------- limits


def test_max_kills_when_nothing_can_be_reclaimed(k: Kernel) -> None:
    mkdir(k, "a")
    put(k, "a/memory.max", "8M")
    pid = process(k, "/a")
    answer = write(k, pid, 16 * M)
    assert (answer.signal, answer.killed) == ("SIGKILL", [pid])
    assert events(k, "a") == {"low": 0, "high": 0, "max": 18, "oom": 1, "oom_kill": 1, "oom_group_kill": 0}
    assert "failcnt 19\n" in "\n".join(line[3] for line in k.dmesg)
    assert memcontrol.peak(k, k.cgroup_at("/a")) == 8 * M  # type: ignore[arg-type]
    k.verify()


def test_clean_page_cache_goes_before_anybody_dies(k: Kernel) -> None:
    mkdir(k, "a")
    put(k, "a/memory.max", "8M")
    k.call("create_file", path="/data/f", size=32 * M)
    pid = process(k, "/a")
    assert k.call("read", pid, path="/data/f", offset=0, length=32 * M).errno is None
    assert write(k, pid, 6 * M).killed == []
    assert events(k, "a")["oom"] == 0
    assert events(k, "a")["max"] > 0
    assert memcontrol.stat(k, k.cgroup_at("/a"))["pgsteal"] > 0  # type: ignore[arg-type]
    k.verify()


def test_events_count_on_every_ancestor_but_the_root(k: Kernel) -> None:
    mkdir(k, "a")
    put(k, "a/cgroup.subtree_control", "+memory")
    mkdir(k, "a/b")
    put(k, "a/memory.max", "4M")
    pid = process(k, "/a/b")
    write(k, pid, 8 * M)
    assert events(k, "a")["oom"] == events(k, "a", local=True)["oom"] == 1  # the limit is a's
    assert events(k, "a/b")["oom"] == 0
    assert (events(k, "a/b", local=True)["oom_kill"], events(k, "a", local=True)["oom_kill"], events(k, "a")["oom_kill"]) == (1, 0, 1)


def test_lowering_max_reclaims_then_kills_one_more_than_had_to(k: Kernel) -> None:
    """When the writer looks again, the pages of the last victim are not uncharged yet: recorded with 60M, 20M, 10M and a limit of 40M."""
    mkdir(k, "a")
    big, middle, small = process(k, "/a"), process(k, "/a"), process(k, "/a")
    for pid, size in ((big, 8), (middle, 3), (small, 1)):
        write(k, pid, size * M)
    assert put(k, "a/memory.max", "6M") is None
    assert sorted(k.tasks) == [1, small]
    assert memcontrol.current(k, k.cgroup_at("/a")) <= 6 * M  # type: ignore[arg-type]
    assert events(k, "a")["oom_kill"] == 2
    assert events(k, "a")["oom"] > 2  # the writer looked again and again while they died
    assert "memory_max_write" in "\n".join(line[3] for line in k.dmesg)


def test_high_never_kills(k: Kernel) -> None:
    mkdir(k, "a")
    pid = process(k, "/a")
    write(k, pid, 8 * M)
    assert put(k, "a/memory.high", "1M") is None
    assert pid in k.tasks
    assert events(k, "a")["oom"] == 0


def test_an_oom_group_dies_together(k: Kernel) -> None:
    """Two processes, memory.oom.group: three kills are counted, because the first victim is met again (as in Linux)."""
    mkdir(k, "a")
    put(k, "a/memory.oom.group", "1")
    put(k, "a/memory.max", "8M")
    first, second = process(k, "/a"), process(k, "/a")
    k.call("put", path=f"/proc/{process(k, '/a')}/oom_score_adj", data=b"-1000")
    write(k, first, 2 * M)
    answer = write(k, second, 16 * M)
    assert sorted(answer.killed) == [first, second]
    assert (events(k, "a")["oom_kill"], events(k, "a")["oom_group_kill"]) == (3, 1)
    assert "Tasks in /a are going to be killed due to memory.oom.group set" in [line[3] for line in k.dmesg]
    assert len(k.tasks) == 2
    k.verify()


def test_nobody_to_kill_is_enomem_not_a_panic(k: Kernel) -> None:
    mkdir(k, "a")
    put(k, "a/memory.max", "4M")
    pid = process(k, "/a")
    k.call("put", path=f"/proc/{pid}/oom_score_adj", data=b"-1000")
    assert write(k, pid, 8 * M).errno == "ENOMEM"
    assert k.panicked is None
    assert "Out of memory and no killable processes..." in [line[3] for line in k.dmesg]
    k.verify()


# ---------------------------------------------------------------- statistics


def test_statistics_in_the_order_of_the_file(k: Kernel) -> None:
    keys = list(memcontrol.stat(k, k.root_cgroup))
    assert keys[:4] == ["anon", "file", "kernel", "kernel_stack"]
    assert keys[16:24] == ["anon_thp", "file_thp", "shmem_thp", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"]
    assert keys[-2:] == ["thp_fault_alloc", "thp_collapse_alloc"]


def test_slab_is_charged_by_the_byte(k: Kernel) -> None:
    mkdir(k, "a")
    cg = k.cgroup_at("/a")
    assert cg is not None
    free = int(k.s.zones["free"].sum())
    memcontrol.account_slab(k.s, cg.id, 5000)
    assert (memcontrol.stat(k, cg)["slab_reclaimable"], memcontrol.stat(k, cg)["kernel"], memcontrol.current(k, cg)) == (5000, 8192, 8192)
    k.verify()
    memcontrol.account_slab(k.s, cg.id, -5000)
    assert memcontrol.current(k, cg) == 0
    assert int(k.s.zones["free"].sum()) == free
    k.verify()


def test_numa_stat_counts_by_node() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "256M", "nodes": 2, "cpus": 2}))
    put(k, "cgroup.subtree_control", "+memory")
    mkdir(k, "a")
    pid = process(k, "/a")
    write(k, pid, 4 * M)
    k.call("sched_setaffinity", pid, cpus=[1])
    write(k, pid, 2 * M)
    by_node = memcontrol.numa_stat(k, k.cgroup_at("/a"))  # type: ignore[arg-type]
    whole = memcontrol.stat(k, k.cgroup_at("/a"))  # type: ignore[arg-type]
    assert by_node["anon"] == [4 * M, 2 * M]
    for key, values in by_node.items():
        assert sum(values) == whole[key], key


def test_cgroups_are_limited_by_the_table(k: Kernel) -> None:
    with pytest.raises(SysError) as failure:
        for i in range(len(k.s.memcgs) + 1):
            memcontrol.create(k, f"/n{i}")
    assert failure.value.errno.name == "ENOSPC"


@pytest.mark.parametrize("how", ["touch", "willneed"])
@pytest.mark.parametrize("kind", ["disk", "ssd"])  # read ahead by slot, and by address
def test_a_page_read_from_swap_is_charged_to_whoever_it_was_swapped_out_of(kind: str, how: str) -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "128M", "swap": [{"size": "64M", "kind": kind}]}))
    put(k, "cgroup.subtree_control", "+memory")
    for name in "ab":
        mkdir(k, name)
    put(k, "a/memory.max", "10M")
    pid = process(k, "/a")
    address = k.call("mmap", pid, length=20 * M, prot="rw", flags=["private", "anonymous"]).result["address"]
    k.call("touch", pid, address=address, length=20 * M, access="write")
    put(k, "b/cgroup.procs", str(pid))
    before = events(k, "a")["max"]
    if how == "touch":
        assert k.call("touch", pid, address=address, length=20 * M, access="read").errno is None
    else:
        assert k.call("madvise", pid, address=address, length=20 * M, advice="willneed").errno is None
    k.verify()
    assert events(k, "a")["max"] > before
    assert 9 * M < memcontrol.current(k, k.cgroup_at("/a")) <= 10 * M  # type: ignore[arg-type]
    assert memcontrol.current(k, k.cgroup_at("/b")) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["disk", "ssd"])
def test_a_task_that_is_killed_over_a_read_from_swap_is_refused_the_rest_of_it(kind: str) -> None:
    """Its pages are tried one by one: `oom` counts each that is refused, `oom_kill` the one kill (recorded: 5 and 1)."""
    k = Kernel.boot(Machine.from_dict({"memory": "128M", "swap": [{"size": "64M", "kind": kind}]}))
    put(k, "cgroup.subtree_control", "+memory")
    mkdir(k, "a")
    put(k, "a/memory.max", "10M")
    pid = process(k, "/a")
    address = k.call("mmap", pid, length=20 * M, prot="rw", flags=["private", "anonymous"]).result["address"]
    k.call("touch", pid, address=address, length=20 * M, access="write")
    put(k, "a/memory.swap.max", "4M")
    answer = k.call("touch", pid, address=address, length=20 * M, access="write")
    k.verify()
    assert answer.killed == [pid] and pid not in k.tasks
    found = events(k, "a")
    assert found["oom_kill"] == 1 and 2 <= found["oom"] <= 9  # a window of 8, and the page itself once more
