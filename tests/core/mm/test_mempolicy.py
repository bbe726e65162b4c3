"""Memory policies: where pages land, what numastat says of it, and what happens when the nodes are full."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.mm.space import PAGE, SHARED, K, M, Space

PAGES = 2048  # 8 MiB
NODE = "/sys/devices/system/node/node"
Policy = tuple[str, list[int]]


def four_nodes(cpu: int = 1) -> Space:
    """Four nodes of 64 MiB with one CPU each; the process runs on `cpu`."""
    space = Space("256M", nodes=4, cpus=4, swap="0")
    space.ok("sched_setaffinity", cpus=[cpu])
    return space


def numastat(space: Space) -> list[list[int]]:
    """numa_hit, numa_miss, numa_foreign, interleave_hit, local_node, other_node of each node."""
    return [[int(line.split()[1]) for line in space.read(f"{NODE}{node}/numastat").splitlines()] for node in range(space.k.nr_nodes)]


def anon_by_node(space: Space) -> list[int]:
    """Anonymous pages of each node as its meminfo has them."""
    texts = [space.read(f"{NODE}{node}/meminfo") for node in range(space.k.nr_nodes)]
    return [next(int(line.split()[3]) // 4 for line in text.splitlines() if " AnonPages:" in line) for text in texts]


def change(before: list[Any], after: list[Any]) -> list[Any]:
    return [change(a, b) if isinstance(a, list) else b - a for a, b in zip(before, after, strict=True)]


def set_policies(space: Space, address: int, length: int, task: Policy | None, vma: Policy | None) -> None:
    if task is not None:
        space.ok("set_mempolicy", mode=task[0], nodes=task[1])
    if vma is not None:
        space.ok("mbind", address=address, length=length, mode=vma[0], nodes=vma[1])


# name: (the process's policy, the mapping's), pages on each node; the process runs on node 1 and nobody is short of memory,
# so whoever gets a page was asked first: every page is a hit
PLACED: dict[str, tuple[Policy | None, Policy | None, list[int]]] = {
    "default is local": (None, None, [0, PAGES, 0, 0]),
    "local": (None, ("local", []), [0, PAGES, 0, 0]),
    "preferred": (None, ("preferred", [3]), [0, 0, 0, PAGES]),
    "preferred takes the first": (None, ("preferred", [0, 2]), [PAGES, 0, 0, 0]),
    "bind": (None, ("bind", [2]), [0, 0, PAGES, 0]),
    "bind to several begins nearby": (None, ("bind", [0, 3]), [0, 0, 0, PAGES]),
    "bind to the own and others": (None, ("bind", [0, 1]), [0, PAGES, 0, 0]),
    "preferred_many": (None, ("preferred_many", [0, 2]), [0, 0, PAGES, 0]),
    "interleave": (None, ("interleave", [0, 1, 2, 3]), [512, 512, 512, 512]),
    "interleave over two": (None, ("interleave", [1, 3]), [0, 1024, 0, 1024]),
    "the process's": (("bind", [2]), None, [0, 0, PAGES, 0]),
    "the process's interleave": (("interleave", [0, 2]), None, [1024, 0, 1024, 0]),
    "the mapping's wins": (("bind", [2]), ("preferred", [3]), [0, 0, 0, PAGES]),
    "local wins, too": (("bind", [2]), ("local", []), [0, PAGES, 0, 0]),
    "default gives way": (("bind", [2]), ("default", []), [0, 0, PAGES, 0]),
}


@pytest.mark.parametrize("case", PLACED)
def test_pages_land_where_the_policy_wants_them(case: str) -> None:
    task, vma, expected = PLACED[case]
    space = four_nodes()
    address = space.mmap(PAGES * PAGE)
    space.touch(address, PAGES * PAGE, "read")  # the page tables are there now
    set_policies(space, address, PAGES * PAGE, task, vma)
    anon, stat = anon_by_node(space), numastat(space)
    space.touch(address, PAGES * PAGE)
    assert change(anon, anon_by_node(space)) == expected
    interleaved = "interleave" in (vma or task or ("", []))[0]
    rows = [[n, 0, 0, n if interleaved else 0, n if node == 1 else 0, 0 if node == 1 else n] for node, n in enumerate(expected)]
    assert change(stat, numastat(space)) == rows
    shown = next(line for line in space.read("/proc/<pid>/numa_maps").splitlines() if line.startswith(f"{address:08x}"))
    assert [f"N{node}={n}" in shown for node, n in enumerate(expected) if n] == [True] * sum(n > 0 for n in expected)


def test_interleaving_goes_by_address_not_by_turn() -> None:
    space = four_nodes()
    address = space.mmap(4 * M)
    set_policies(space, address, 4 * M, None, ("interleave", [0, 1, 2, 3]))
    space.touch(address, 4 * M, stride=4)
    wanted = (address // PAGE) % 4
    assert space.ok("move_pages", address=address, pages=[0, 1, 4, 8])["status"].split() == [str(wanted), "-14", str(wanted), str(wanted)]


def test_page_tables_and_files_take_the_process_s_turns() -> None:
    space = four_nodes()
    for name, size in (("a", 4), ("b", 1)):
        space.k.call("create_file", path=f"/data/{name}", size=size * PAGE)
    space.ok("set_mempolicy", mode="interleave", nodes=[0, 2, 3])
    before = numastat(space)
    space.ok("read", path="/data/a", offset=0, length=4 * PAGE)
    assert [row[3] for row in change(before, numastat(space))] == [2, 0, 1, 1]
    before = numastat(space)
    space.ok("read", path="/data/b", offset=0, length=PAGE)
    assert [row[3] for row in change(before, numastat(space))] == [0, 0, 1, 0]
    child = int(space.ok("fork")["pid"])
    mm = space.k.tasks[child].mm
    assert mm is not None
    assert space.k.s.mms["il_prev"][mm.id] == 2
    address = space.mmap(2 * M * 6)
    space.ok("mbind", address=address, length=12 * M, mode="bind", nodes=[1])
    before = numastat(space)
    space.touch(address, 12 * M, stride=512)
    after = change(before, numastat(space))
    assert after[1][0] == 6
    assert sum(row[3] for row in after) in (6, 7)  # a page table for each 2 MiB, not one of them on node 1
    assert after[1][3] == 0


def test_affinity_moves_what_is_local() -> None:
    space = four_nodes(0)
    address = space.mmap(2 * M)
    before = anon_by_node(space)
    space.touch(address, M)
    space.ok("sched_setaffinity", cpus=[3])
    space.touch(address + M, M)
    assert change(before, anon_by_node(space)) == [256, 0, 0, 256]


def test_shared_memory_interleaves_from_its_inode_number() -> None:
    space = four_nodes()
    address = space.mmap(M, flags=SHARED)
    space.ok("mbind", address=address, length=M, mode="interleave", nodes=[0, 1, 2, 3])
    space.touch(address, M)
    status = [int(word) for word in space.ok("move_pages", address=address, pages=[0, 1, 2, 3, 4])["status"].split()]
    file = space.vma(address).file
    assert file is not None
    assert status == [(file.ino + i) % 4 for i in range(5)]


# two nodes of 128 MiB, 160 MiB written by a process of node 1
FALLS_OVER: dict[str, Policy] = {"preferred": ("preferred", [1]), "preferred_many": ("preferred_many", [1]), "default": ("default", [])}


@pytest.mark.parametrize("case", FALLS_OVER)
def test_a_full_node_is_passed_over_and_counted(case: str) -> None:
    space = Space("256M", nodes=2, cpus=2, swap="0")
    space.ok("sched_setaffinity", cpus=[1])
    address = space.mmap(160 * M)
    space.ok("mbind", address=address, length=160 * M, mode=FALLS_OVER[case][0], nodes=FALLS_OVER[case][1])
    anon, stat = anon_by_node(space), numastat(space)
    answer = space.touch(address, 160 * M)
    assert (answer.errno, answer.killed) == (None, [])
    near, far = change(anon, anon_by_node(space))[::-1]
    assert near + far == 160 * M // PAGE
    assert near > 100 * M // PAGE
    after = change(stat, numastat(space))
    assert sum(row[1] for row in after) == sum(row[2] for row in after)
    assert all(row[0] + row[1] == row[4] + row[5] for row in after)
    assert after[0][1] == after[1][2] >= far


def test_interleaving_over_a_full_node_misses() -> None:
    space = Space("256M", nodes=2, cpus=2, swap="0")
    filler, address = space.mmap(135 * M), space.mmap(4 * M)
    space.ok("mbind", address=filler, length=135 * M, mode="preferred", nodes=[1])
    space.touch(filler, 135 * M)  # node 1 is full, node 0 not yet
    space.ok("mbind", address=address, length=4 * M, mode="interleave", nodes=[0, 1])
    before = numastat(space)
    space.touch(address, 4 * M)
    after = change(before, numastat(space))
    assert after[0][3] == 512  # of the 1,024 pages; those meant for node 1 are no interleave hits
    assert after[0][1] == after[1][2] >= 512


def test_bound_to_a_full_node_the_oom_killer_comes() -> None:
    space = Space("256M", nodes=2, cpus=2, swap="0")
    elsewhere = space.spawn(oom_score_adj=900)
    space.ok("set_mempolicy", elsewhere, mode="bind", nodes=[0])
    address = space.mmap(200 * M)
    space.ok("mbind", address=address, length=200 * M, mode="bind", nodes=[1])
    free = [int(space.read(f"{NODE}0/meminfo").split("MemFree:")[1].split()[0])]
    space.k.drain()
    answer = space.touch(address, 200 * M)
    assert answer.killed == [space.pid]  # not the one bound to node 0, whatever its score
    oom = next(event for event in space.k.drain() if event.type == "oom")
    assert oom.constraint == "CONSTRAINT_MEMORY_POLICY"  # type: ignore[attr-defined]
    assert elsewhere not in [row["pid"] for row in oom.candidates]  # type: ignore[attr-defined]
    assert any("oom-kill:constraint=CONSTRAINT_MEMORY_POLICY,nodemask=1,cpuset=/,mems_allowed=0-1" in line[3] for line in space.k.dmesg)
    free.append(int(space.read(f"{NODE}0/meminfo").split("MemFree:")[1].split()[0]))
    assert free[1] > free[0] - 2 * K  # node 0 gave nothing but page tables


def test_bound_memory_is_swapped_before_anybody_dies() -> None:
    space = Space("256M", nodes=2, cpus=2, swap="256M")
    address = space.mmap(160 * M)
    space.ok("mbind", address=address, length=160 * M, mode="bind", nodes=[1])
    before = anon_by_node(space)
    answer = space.touch(address, 160 * M)
    assert (answer.errno, answer.killed) == (None, [])
    assert change(before, anon_by_node(space))[0] <= 0
    assert space.status("VmSwap") > 30 * K


# mode, nodes, flags, what numa_maps calls it on a machine of two nodes
SHOWN = [
    ("bind", [0, 1], [], "bind:0-1"),
    ("interleave", [1], ["static_nodes"], "interleave=static:1"),
    ("bind", [3], ["relative_nodes"], "bind=relative:1"),
    ("preferred", [], [], "local"),
    ("preferred_many", [0, 1], [], "prefer (many):0-1"),
]
REFUSED = [
    ("bind", [], []), ("bind", [5], []), ("default", [0], []), ("local", [0], []), ("interleave", [], []),
    ("bind", [0], ["static_nodes", "relative_nodes"]), ("preferred", [], ["static_nodes"]),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "nodes", "flags", "text"), SHOWN)
def test_numa_maps_names_the_policy(mode: str, nodes: list[int], flags: list[str], text: str) -> None:
    space = Space(nodes=2, cpus=2)
    address = space.mmap(PAGE)
    space.ok("mbind", address=address, length=PAGE, mode=mode, nodes=nodes, flags=flags)
    assert f"{address:08x} {text}\n" in space.read("/proc/<pid>/numa_maps")


@pytest.mark.parametrize(("mode", "nodes", "flags"), REFUSED)
def test_policies_without_sense_are_refused(mode: str, nodes: list[int], flags: list[str]) -> None:
    space = Space(nodes=2, cpus=2)
    assert space.errno("set_mempolicy", mode=mode, nodes=nodes, flags=flags) == "EINVAL"


# flags of an mbind to node 1 over pages of node 0, what it answers, and whether the policy is set after it
STRICT: list[tuple[list[str], str | None, str]] = [
    ([], None, "bind:1"),
    (["strict"], "EIO", "default"),
    (["strict", "move"], None, "bind:1"),
]


@pytest.mark.parametrize(("flags", "errno", "policy"), STRICT)
def test_strict_minds_pages_on_other_nodes(flags: list[str], errno: str | None, policy: str) -> None:
    space = Space(nodes=2, cpus=2)
    address = space.mmap(M)
    assert space.errno("mbind", address=address, length=M, mode="bind", nodes=[1], flags=flags) is None  # no page yet
    assert space.errno("mbind", address=address, length=M, mode="default") is None
    space.touch(address, PAGE)
    assert space.errno("mbind", address=address, length=M, mode="bind", nodes=[1], flags=flags) == errno
    assert f"{address:08x} {policy} " in space.read("/proc/<pid>/numa_maps")


def test_moving_what_others_map_is_for_root() -> None:
    space = Space(nodes=2, cpus=2)
    address = space.mmap(M)
    space.ok("setuid", uid=1000)
    assert space.errno("mbind", address=address, length=M, mode="bind", nodes=[1], flags=["move_all"]) == "EPERM"


def test_every_node_asks_the_next_ones_first() -> None:
    space = four_nodes()
    order = [[int(space.k.s.zones["node"][zid]) for zid in row if zid >= 0] for row in space.k.s.zonelists]
    assert [list(dict.fromkeys(row)) for row in order] == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]


def nodes_of(space: Space, address: int, pages: int) -> list[int]:
    """The node of each page, as move_pages tells it."""
    return [int(word) for word in space.ok("move_pages", address=address, pages=list(range(pages)))["status"].split()]


# what kind of pages, four of them on node 0; every call is checked by the machine's own invariants (Space.call)
KINDS: dict[str, dict[str, Any]] = {
    "anonymous": {},
    "locked": {"flags": ["private", "anonymous", "locked"]},
    "shared": {"flags": SHARED},
    "file": {"flags": ["shared"], "file": "/data/f", "offset": 0},
}


def four_pages(kind: str) -> tuple[Space, int]:
    space = Space("256M", nodes=2, cpus=2, swap="0")
    space.k.call("create_file", path="/data/f", size=4 * PAGE)
    address = space.mmap(4 * PAGE, **KINDS[kind])
    space.touch(address, 4 * PAGE)
    assert nodes_of(space, address, 4) == [0, 0, 0, 0]
    return space, address


@pytest.mark.parametrize("kind", KINDS)
def test_mbind_moves_what_lies_elsewhere(kind: str) -> None:
    space, address = four_pages(kind)
    rss, moved = space.status("VmRSS"), space.vmstat("pgmigrate_success")
    space.ok("mbind", address=address, length=4 * PAGE, mode="bind", nodes=[1], flags=["move", "strict"])
    assert nodes_of(space, address, 4) == [1, 1, 1, 1]
    assert (space.status("VmRSS"), space.vmstat("pgmigrate_success") - moved) == (rss, 4)
    assert space.touch(address, 4 * PAGE).minor == 0
    space.ok("munmap", address=address, length=4 * PAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_move_pages_puts_each_where_it_is_told(kind: str) -> None:
    space, address = four_pages(kind)
    assert space.ok("move_pages", address=address, pages=[3, 0], nodes=[1, 0])["status"] == "1 0"
    assert nodes_of(space, address, 4) == [0, 0, 0, 1]
    assert space.errno("move_pages", address=address, pages=[0], nodes=[7]) == "ENODEV"
    assert space.errno("move_pages", address=address, pages=[0], nodes=[1, 1]) == "EINVAL"


def test_pages_of_two_processes_stay() -> None:
    space, address = four_pages("anonymous")
    space.ok("fork")
    assert space.ok("move_pages", address=address, pages=[0], nodes=[1])["status"] == "-13"
    assert space.errno("mbind", address=address, length=4 * PAGE, mode="bind", nodes=[1], flags=["move", "strict"]) is None  # passed over
    assert nodes_of(space, address, 4) == [0, 0, 0, 0]


def test_migrate_pages_moves_the_whole_process() -> None:
    space, address = four_pages("anonymous")
    space.ok("move_pages", address=address, pages=[1, 2], nodes=[1, 1])
    space.ok("migrate_pages", old_nodes=[0], new_nodes=[1])
    assert nodes_of(space, address, 4) == [1, 1, 1, 1]
    space.ok("migrate_pages", old_nodes=[1, 0], new_nodes=[0])
    assert nodes_of(space, address, 4) == [0, 0, 0, 0]
    assert space.errno("migrate_pages", old_nodes=[0], new_nodes=[7]) == "EINVAL"


# ---------------------------------------------------------------- shared memory keeps its policies


# mbind by the owner (MiB from, to, mode, nodes), in order; where the 8 MiB lie when a child on node 1 has touched them all
OBJECT = [
    ([], [0, 8, 0, 0]),
    ([(0, 8, "bind", [2])], [0, 0, 8, 0]),
    ([(2, 4, "bind", [2])], [0, 6, 2, 0]),
    ([(0, 8, "bind", [2]), (2, 4, "bind", [3])], [0, 0, 6, 2]),
    ([(0, 8, "interleave", [0, 3])], [4, 0, 0, 4]),
    ([(0, 8, "bind", [2]), (4, 8, "default", [])], [0, 4, 4, 0]),
    ([(0, 4, "bind", [2]), (0, 8, "preferred", [3])], [0, 0, 0, 8]),
]


@pytest.mark.parametrize(("owner", "expected"), OBJECT)
@pytest.mark.parametrize("huge", [False, True])
def test_mbind_of_shared_memory_holds_for_all_who_share_it(owner: list[Any], expected: list[int], huge: bool) -> None:
    space = four_nodes(0)
    if huge:
        assert space.k.call("put", path="/sys/kernel/mm/transparent_hugepage/shmem_enabled", data=b"always").errno is None
    address = space.mmap(8 * M, flags=SHARED)
    child = space.ok("fork")["pid"]
    space.ok("sched_setaffinity", child, cpus=[1])
    for first, last, mode, nodes in owner:
        space.ok("mbind", address=address + first * M, length=(last - first) * M, mode=mode, nodes=nodes)
    before = shared_by_node(space)
    space.ok("touch", child, address=address, length=8 * M, access="write")
    assert [nr // 256 for nr in change(before, shared_by_node(space))] == expected


def shared_by_node(space: Space) -> list[int]:
    """Pages of shared memory of each node as its meminfo has them."""
    texts = [space.read(f"{NODE}{node}/meminfo") for node in range(space.k.nr_nodes)]
    return [next(int(line.split()[3]) // 4 for line in text.splitlines() if " Shmem:" in line) for text in texts]


def test_a_later_mapping_of_the_object_follows_it_and_shows_it() -> None:
    space = four_nodes(0)
    address = space.mmap(2 * M, flags=SHARED)
    child = space.ok("fork")["pid"]
    space.ok("mbind", address=address, length=2 * M, mode="bind", nodes=[3])
    line = next(line for line in space.k.read(f"/proc/{child}/numa_maps").decode().splitlines() if line.startswith(f"{address:08x}"))
    assert "bind:3" in line
    assert space.k.view("explain_node", pid=child, address=address)["policy"] == {"whose": "object", "mode": "bind", "nodes": [3]}
