"""Moving pages between nodes: whose pages move, what move_pages answers, huge pages, pools of hugetlb."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.mm.space import PAGE, SHARED, M, Space

EACCES, EFAULT, ENOENT, EBUSY = -13, -14, -2, -16
KNOB = "/sys/kernel/mm/hugepages/hugepages-2048kB/"


def two_nodes(memory: str = "512M", **machine: Any) -> Space:
    return Space(memory, nodes=2, cpus=2, **{"swap": "0", **machine})


def move(space: Space, address: int, pages: int, node: int | None = None, pid: int | None = None, **args: Any) -> list[int]:
    """The statuses that move_pages gives; without a node it only asks."""
    nodes = {} if node is None else {"nodes": [node] * pages}
    return [int(word) for word in space.ok("move_pages", pid, address=address, pages=list(range(pages)), **nodes, **args)["status"].split()]


# ---------------------------------------------------------------- move_pages: statuses

# what four pages are, on node 0; what move_pages to node 1 says of each, and what asking says afterwards
STATUSES: dict[str, tuple[dict[str, Any], list[int], list[int]]] = {
    "written": ({}, [1, 1, 1, 1], [1, 1, 1, 1]),
    "only read: the zero page": ({"access": "read"}, [EFAULT] * 4, [EFAULT] * 4),
    "untouched": ({"touched": 0}, [EFAULT] * 4, [EFAULT] * 4),
    "half of them touched": ({"touched": 2}, [1, 1, EFAULT, EFAULT], [1, 1, EFAULT, EFAULT]),
    "not mapped": ({"mapped": 2, "touched": 2}, [1, 1, EFAULT, EFAULT], [1, 1, EFAULT, EFAULT]),
    "swapped": ({"then": "pageout", "swap": "64M"}, [ENOENT] * 4, [ENOENT] * 4),
    "of a shared object, half of it there": ({"flags": SHARED, "touched": 2}, [1, 1, ENOENT, ENOENT], [1, 1, ENOENT, ENOENT]),
    "mapped by a child, too": ({"then": "fork"}, [EACCES] * 4, [0, 0, 0, 0]),
    "the same with move_all": ({"then": "fork", "move": {"flags": ["move_all"]}}, [1, 1, 1, 1], [1, 1, 1, 1]),
    "locked": ({"flags": ["private", "anonymous", "locked"]}, [1, 1, 1, 1], [1, 1, 1, 1]),
    "permission taken away": ({"then": "mprotect"}, [1, 1, 1, 1], [1, 1, 1, 1]),
}


@pytest.mark.parametrize("case", STATUSES)
def test_what_move_pages_answers(case: str) -> None:
    how, answered, asked = STATUSES[case]
    space = two_nodes(swap=how.get("swap", "0"))
    address = space.mmap(8 * PAGE, flags=how.get("flags"))
    space.ok("munmap", address=address + how.get("mapped", 4) * PAGE, length=(8 - how.get("mapped", 4)) * PAGE)
    if how.get("touched", 4):
        space.touch(address, how.get("touched", 4) * PAGE, how.get("access", "write"))
    then = how.get("then")
    if then == "fork":
        space.ok("fork")
    elif then == "mprotect":
        space.ok("mprotect", address=address, length=4 * PAGE, prot="none")
    elif then:
        space.ok("madvise", address=address, length=4 * PAGE, advice=then)
    assert move(space, address, 4, 1, **how.get("move", {})) == answered
    assert move(space, address, 4) == asked


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"nodes": [2]}, "ENODEV"),
    ({"nodes": [0, 1]}, "EINVAL"),
    ({"nodes": [1], "flags": ["move_all"]}, "EPERM"),
]


@pytest.mark.parametrize(("args", "errno"), REFUSED)
def test_what_move_pages_refuses(args: dict[str, Any], errno: str) -> None:
    space = two_nodes()
    address = space.mmap(PAGE)
    space.touch(address, PAGE)
    space.ok("setuid", uid=1000)
    assert space.errno("move_pages", address=address, pages=[0], **args) == errno
    assert move(space, address, 1) == [0]


def test_a_node_outside_the_cpuset_is_refused() -> None:
    space = two_nodes()
    space.set("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset")
    space.k.call("mkdir", path="/sys/fs/cgroup/c")
    space.set("/sys/fs/cgroup/c/cpuset.mems", "0")
    space.set("/sys/fs/cgroup/c/cgroup.procs", space.pid)
    assert space.errno("move_pages", address=space.mmap(PAGE), pages=[0], nodes=[1]) == "EACCES"


def free_on(space: Space, node: int) -> int:
    """Free pages of a node."""
    return int(space.k.s.zones["free"][4 * node : 4 * node + 4].sum())


def test_a_full_node_ends_the_call() -> None:
    space = two_nodes("128M")
    address = space.mmap(40 * M)
    space.touch(address, 40 * M)
    hog = space.spawn()
    space.ok("set_mempolicy", hog, mode="bind", nodes=[1])
    length = (free_on(space, 1) - int(space.k.s.zones["wmark"][4:, 2].sum()) - 2048) * PAGE
    there = int(space.ok("mmap", hog, length=length, prot="rw", flags=["private", "anonymous"])["address"])
    space.ok("touch", hog, address=there, length=length, access="write")
    answer = space.ok("move_pages", address=address, pages=list(range(10240)), nodes=[1] * 10240)
    assert answer == {"status": "", "not_moved": 10240}
    moved = move(space, address, 10240).count(1)
    assert 0 < moved < 10240
    assert space.vmstat("pgmigrate_fail") == 10240 - moved


# ---------------------------------------------------------------- for all who map it


@pytest.mark.parametrize("how", ["move_pages", "mbind", "migrate_pages"])
def test_a_shared_page_moves_for_everybody(how: str) -> None:
    space = two_nodes()
    address = space.mmap(4 * PAGE)
    space.ok("touch", address=address, length=4 * PAGE, access="write", fill=7)
    child = int(space.ok("fork")["pid"])
    if how == "move_pages":
        assert move(space, address, 4, 1, flags=["move_all"]) == [1, 1, 1, 1]
    elif how == "mbind":
        space.ok("mbind", address=address, length=4 * PAGE, mode="bind", nodes=[1], flags=["move_all", "strict"])
    else:
        space.ok("migrate_pages", old_nodes=[0], new_nodes=[1])  # the caller is root
    assert move(space, address, 4) == move(space, address, 4, pid=child) == [1, 1, 1, 1]
    assert space.k.call("touch", child, address=address, length=4 * PAGE, access="read").minor == 0
    space.ok("touch", child, address=address, length=PAGE, access="write")  # a copy of its own, near it
    assert move(space, address, 1) == [1] and move(space, address, 1, pid=child) == [0]


def test_who_is_not_root_moves_only_his_own() -> None:
    space = two_nodes()
    address = space.mmap(4 * PAGE)
    space.touch(address, 4 * PAGE)
    space.ok("fork")
    space.touch(address, PAGE)
    space.ok("setuid", uid=1000)
    space.ok("migrate_pages", old_nodes=[0], new_nodes=[1])
    assert move(space, address, 4) == [1, 0, 0, 0]


def test_a_page_of_ksm_moves_with_all_its_sharers() -> None:
    space = two_nodes()
    address = space.mmap(8 * PAGE)
    space.ok("touch", address=address, length=8 * PAGE, access="write", fill=7)
    space.ok("madvise", address=address, length=8 * PAGE, advice="mergeable")
    space.set("/sys/kernel/mm/ksm/run", 1)
    space.k.call("advance", duration_ns=10**9)
    assert int(space.read("/sys/kernel/mm/ksm/pages_sharing")) == 7
    assert move(space, address, 8, 1) == [EACCES] * 8
    assert move(space, address, 8, 1, flags=["move_all"]) == [1, EBUSY] + [1] * 6
    assert int(space.read("/sys/kernel/mm/ksm/pages_sharing")) == 7


# ---------------------------------------------------------------- huge pages


def huge(**machine: Any) -> tuple[Space, int]:
    """A process with 4 MiB of huge pages on node 0."""
    space = two_nodes("1G", transparent_hugepage="always", **machine)
    address = space.mmap(4 * M, align=2 * M)
    space.touch(address, 4 * M)
    assert space.smaps("AnonHugePages", address) == 4096
    return space, address


@pytest.mark.parametrize("shared", [False, True])
def test_a_huge_page_moves_whole(shared: bool) -> None:
    space, address = huge()
    if shared:
        child = int(space.ok("fork")["pid"])
    space.ok("mbind", address=address, length=2 * M, mode="bind", nodes=[1], flags=["move_all" if shared else "move"])
    assert move(space, address, 1024) == [1] * 512 + [0] * 512
    assert (space.vmstat("thp_migration_success"), space.vmstat("pgmigrate_success"), space.vmstat("thp_split_page")) == (1, 512, 0)
    assert space.smaps("AnonHugePages", address) == space.smaps("AnonHugePages", address + 2 * M) == 2048
    if shared:
        assert move(space, address, 512, pid=child) == [1] * 512


def test_one_that_is_mapped_in_parts_moves_whole_too() -> None:
    space, address = huge()
    space.ok("munmap", address=address + M, length=M)
    space.touch(address + 2 * M, PAGE)
    assert move(space, address, 256, 1) == [1, EBUSY] + [1] * 254  # the second was gathered with the first
    assert space.vmstat("thp_migration_success") == 1 and space.vmstat("thp_split_page") == 0
    assert space.smaps("AnonHugePages", address) == 0


# ---------------------------------------------------------------- hugetlb

# pages in the pool by node before; those used on node 0 (two, of a process) go to node 1; total, free by node, surplus afterwards
POOLS: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "the pool has pages there": ((4, 3), (4, 3), (4, 1)),
    "it has one": ((4, 1), (3, 2), (3, 0)),
    "it has none": ((2, 0), (0, 2), (0, 0)),
}


@pytest.mark.parametrize("kind", ["private", "shared"])
@pytest.mark.parametrize("case", POOLS)
def test_a_page_of_a_pool_takes_another_s_place(case: str, kind: str) -> None:
    before, total, free = POOLS[case]
    space = two_nodes()
    for node, pages in enumerate(before):
        space.set(f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages", pages)
    address = space.mmap(4 * M, flags=[kind, "anonymous", "hugetlb"])
    space.ok("touch", address=address, length=4 * M, access="write", fill=5)
    assert move(space, address, 1024)[::512] == [0, 0]
    space.ok("migrate_pages", old_nodes=[0], new_nodes=[1])
    assert move(space, address, 1024)[::512] == [1, 1]
    for node in (0, 1):
        files = f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/"
        assert (int(space.read(files + "nr_hugepages")), int(space.read(files + "free_hugepages"))) == (total[node], free[node])
    assert space.meminfo("HugePages_Surp") == 0
    assert space.touch(address, 4 * M, "read").minor == 0
    space.ok("munmap", address=address, length=4 * M)
    assert space.meminfo("HugePages_Free") == sum(before)


def test_only_its_first_page_names_a_huge_page() -> None:
    space = two_nodes()
    space.set(KNOB + "nr_hugepages", 4)
    address = space.mmap(2 * M, flags=["private", "anonymous", "hugetlb"])
    space.touch(address, 2 * M)
    assert space.ok("move_pages", address=address, pages=[5, 0, 5], nodes=[1, 1, 1])["status"] == "-13 1 -13"


def test_the_cgroup_pays_for_the_page_where_it_is() -> None:
    space = two_nodes()
    space.set("/sys/fs/cgroup/cgroup.subtree_control", "+hugetlb")
    space.k.call("mkdir", path="/sys/fs/cgroup/c")
    space.set("/sys/fs/cgroup/c/cgroup.procs", space.pid)
    space.set(KNOB + "nr_hugepages", 4)
    address = space.mmap(2 * M, flags=["private", "anonymous", "hugetlb"])
    space.touch(address, 2 * M)
    move(space, address, 1, 1)
    assert space.read("/sys/fs/cgroup/c/hugetlb.2MB.numa_stat").split() == [f"total={2 * M}", "N0=0", f"N1={2 * M}"]
    assert int(space.read("/sys/fs/cgroup/c/hugetlb.2MB.current")) == 2 * M
