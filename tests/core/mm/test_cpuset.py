"""cpusets: effective sets, allocation within them, migration on change, policies that follow, OOM; and the order in which nodes are asked."""

from __future__ import annotations

from typing import Any

import pytest

from core import Machine
from core.mm import mmzone
from tests.peer.box import CGROUP, Box, M


class CpusetBox(Box):
    """Four nodes of 64 MiB with a CPU each, /a and /a/b with the controller, a process in /a/b."""

    def __init__(self, nodes: int = 4, memory: str = "64M", **machine: Any) -> None:
        super().__init__(memory=[memory] * nodes, cpus=nodes, transparent_hugepage="never", **machine)
        assert self.kernel.call("mkdir", path=f"{CGROUP}/a").errno is None
        self.set(f"{CGROUP}/cgroup.subtree_control", "+cpuset")
        self.set(f"{CGROUP}/a/cgroup.subtree_control", "+cpuset")
        assert self.kernel.call("mkdir", path=f"{CGROUP}/a/b").errno is None
        self.p = self.spawn("p", cgroup="/a/b")

    def ask(self, path: str, kind: str, value: str) -> str | None:
        return self.put(f"{CGROUP}{path}/cpuset.{kind}", value)

    def has(self, path: str, kind: str) -> str:
        return self.cg(path, f"cpuset.{kind}.effective").strip()

    def pages(self, address: int, pid: int = 0) -> dict[int, int]:
        """Pages of a mapping by node."""
        line = next(line for line in self.text(f"/proc/{pid or self.p}/numa_maps").splitlines() if line.startswith(f"{address:08x}"))
        found = {int(word[1 : word.index("=")]): int(word.partition("=")[2]) for word in line.split() if word[0] == "N" and word[1].isdigit()}
        self.kernel.verify()
        return found

    def heap(self, pages: int = 400, **args: Any) -> int:
        h = self.mmap(self.p, pages * 4096, "rw", **args)
        self.touch(self.p, h, pages * 4096)
        return h


EFFECTIVE = [
    ("", "", "0-3", "0-3"),
    ("0-1", "1", "0-1", "1"),
    ("0-1", "2-3", "0-1", "0-1"),  # nothing in common: the parent's
    ("1", "0-2", "1", "1"),
    ("", "3,0", "0-3", "0,3"),
]


@pytest.mark.parametrize(("a", "b", "a_has", "b_has"), EFFECTIVE)
@pytest.mark.parametrize("kind", ["cpus", "mems"])
def test_what_is_had(kind: str, a: str, b: str, a_has: str, b_has: str) -> None:
    box = CpusetBox()
    assert box.ask("/a/b", kind, b) is None and box.ask("/a", kind, a) is None
    assert (box.has("/a", kind), box.has("/a/b", kind)) == (a_has, b_has)
    status = box.text(f"/proc/{box.p}/status")
    assert f"{'Cpus' if kind == 'cpus' else 'Mems'}_allowed_list:\t{b_has}\n" in status
    assert box.cg("/a", f"cpuset.{kind}") == (a + "\n" if a != "" else "\n")


REFUSED = [("mems", "7", "EINVAL"), ("mems", "x", "EINVAL"), ("mems", "2-1", "EINVAL"), ("cpus", "9", "EINVAL"), ("cpus", "0-", "EINVAL"),
           ("cpus.partition", "root", "EOPNOTSUPP"), ("cpus.partition", "x", "EINVAL")]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "errno"), REFUSED)
def test_what_is_refused(kind: str, value: str, errno: str) -> None:
    box = CpusetBox()
    assert box.ask("/a", kind, value) == errno
    assert box.has("/a", "mems") == "0-3"


def test_not_emptied_under_a_process() -> None:
    box = CpusetBox()
    assert box.ask("/a/b", "mems", "1") is None and box.ask("/a/b", "mems", "") == "ENOSPC"
    box.ok(box.p, "exit")
    assert box.ask("/a/b", "mems", "") is None


def test_pages_move_when_the_nodes_change() -> None:
    box = CpusetBox()
    box.ask("/a/b", "mems", "0-1")
    h, bound = box.heap(), box.heap(100)
    box.ok(box.p, "mbind", address=bound, length=100 * 4096, mode="bind", nodes=[1], flags=["move"])
    assert box.pages(h) == {0: 400} and box.pages(bound) == {1: 100}
    box.ask("/a/b", "mems", "2-3")  # the first of two becomes the first of two, the second the second
    assert box.pages(h) == {2: 400} and box.pages(bound) == {3: 100}
    assert f"{bound:08x} bind:3" in box.text(f"/proc/{box.p}/numa_maps")


def test_a_process_that_moves_takes_its_pages_along() -> None:
    box = CpusetBox()
    assert box.kernel.call("mkdir", path=f"{CGROUP}/c").errno is None
    box.ask("/c", "mems", "3")
    box.ask("/c", "cpus", "1-2")
    h = box.heap()
    box.set(f"{CGROUP}/c/cgroup.procs", box.p)
    assert box.pages(h) == {3: 400}
    assert "Cpus_allowed_list:\t1-2\n" in box.text(f"/proc/{box.p}/status")
    assert box.call(box.p, "sched_setaffinity", cpus=[0, 3]).errno == "EINVAL"
    box.ok(box.p, "sched_setaffinity", cpus=[0, 2])
    assert "Cpus_allowed_list:\t2\n" in box.text(f"/proc/{box.p}/status")
    child = box.ok(box.p, "fork")["pid"]
    assert "Mems_allowed_list:\t3\n" in box.text(f"/proc/{child}/status")


REBIND = [
    ("interleave", [0, 1], [], "interleave:2-3"),
    ("bind", [1], [], "bind:3"),
    ("bind", [1], ["static_nodes"], "bind=static:2-3"),  # node 1 is gone: all that there is
    ("interleave", [0, 2], ["static_nodes"], "interleave=static:2"),
    ("interleave", [0, 1], ["relative_nodes"], "interleave=relative:2-3"),
    ("preferred", [1], [], "prefer:1"),
]


@pytest.mark.parametrize(("mode", "nodes", "flags", "shown"), REBIND)
def test_policies_follow(mode: str, nodes: list[int], flags: list[str], shown: str) -> None:
    box = CpusetBox()
    box.ask("/a/b", "mems", "0-1")
    box.ok(box.p, "set_mempolicy", mode=mode, nodes=nodes, flags=flags)
    box.ask("/a/b", "mems", "2-3")
    assert f" {shown} heap" in box.text(f"/proc/{box.p}/numa_maps")


def test_a_policy_names_nodes_of_the_cpuset_only() -> None:
    box = CpusetBox()
    box.ask("/a/b", "mems", "1-2")
    assert box.call(box.p, "set_mempolicy", mode="bind", nodes=[0, 3]).errno == "EINVAL"
    box.ok(box.p, "set_mempolicy", mode="interleave", nodes=[0, 1, 2, 3])
    assert box.pages(box.heap()) == {1: 200, 2: 200}


def test_oom_of_a_cpuset() -> None:
    box = CpusetBox(2, "96M")
    box.ask("/a/b", "mems", "1")
    other = box.spawn("other")
    box.touch(other, box.mmap(other, 40 * M), 40 * M)
    found = box.touch(box.p, box.mmap(box.p, 120 * M), 120 * M)
    assert found.killed == [box.p]
    assert "constraint=CONSTRAINT_CPUSET,nodemask=(null),cpuset=b,mems_allowed=1,global_oom" in box.text("/dev/kmsg")
    box.kernel.verify()


# ---------------------------------------------------------------- distances

ORDERS = [
    (None, [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]),
    ([[10, 20, 30, 40], [20, 10, 20, 30], [30, 20, 10, 20], [40, 30, 20, 10]], [[0, 1, 2, 3], [1, 2, 0, 3], [2, 3, 1, 0], [3, 2, 1, 0]]),
    ([[10, 15, 40, 40], [15, 10, 40, 40], [40, 40, 10, 15], [40, 40, 15, 10]], [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]),
]


@pytest.mark.parametrize(("distances", "orders"), ORDERS, ids=["equal", "chain", "two sockets"])
def test_the_nearest_node_first(distances: list[list[int]] | None, orders: list[list[int]]) -> None:
    box = CpusetBox(distances=distances)
    assert mmzone.fallback_orders(box.kernel) == orders
    rows = distances or [[10 if a == b else 20 for b in range(4)] for a in range(4)]
    assert [box.text(f"/sys/devices/system/node/node{n}/distance") for n in range(4)] == [" ".join(map(str, row)) + "\n" for row in rows]


def test_allocation_falls_to_the_nearest_node() -> None:
    chain = [[10, 20, 30], [20, 10, 20], [30, 20, 10]]
    box = CpusetBox(3, distances=chain)
    box.ok(box.p, "sched_setaffinity", cpus=[2])
    pages = box.pages(box.heap(20_000))
    assert pages.get(2, 0) > 8_000 and pages.get(1, 0) > 1_000 and 0 not in pages


@pytest.mark.parametrize("distances", [[[10, 20]], [[10, 10], [20, 10]], [[11, 20], [20, 10]], [[10, 255], [20, 10]], "near"])
def test_impossible_distances(distances: object) -> None:
    with pytest.raises(ValueError, match=r"machine\.distances"):
        Machine.from_dict({"memory": ["64M", "64M"], "distances": distances})


# ---------------------------------------------------------------- what it costs, and why

def test_a_far_page_takes_longer() -> None:
    times = {}
    for distance in (10, 20, 40):
        box = CpusetBox(2, distances=[[10, max(distance, 11)], [20, 10]])
        if distance > 10:
            box.ok(box.p, "set_mempolicy", mode="bind", nodes=[1])
        h = box.heap(512)
        times[distance] = box.touch(box.p, h, 512 * 4096, "read").elapsed_ns
    access = 512 * 2  # ns: `Costs.access`
    assert times[20] - times[10] == access and times[40] - times[10] == 3 * access


@pytest.mark.parametrize(("policy", "mems", "node", "word"), [
    (None, "", 0, "no policy"), (("bind", [2, 3]), "", 2, "bound"), (("preferred", [1]), "", 1, "preferred"),
    (("interleave", [1, 3]), "", None, "interleaved"), (None, "3", 3, "no policy"), (("preferred_many", [1, 2]), "", 1, "prefers"),
])  # fmt: skip
def test_why_this_node(policy: tuple[str, list[int]] | None, mems: str, node: int | None, word: str) -> None:
    box = CpusetBox()
    if mems:
        box.ask("/a/b", "mems", mems)
    if policy:
        box.ok(box.p, "set_mempolicy", mode=policy[0], nodes=policy[1])
    h = box.heap(4)
    told = box.kernel.view("explain_node", pid=box.p, address=h)
    assert told["distances"] == list(box.kernel.machine.distances[told["first_node"]])
    assert told["node"] == told["page"]["node"] and node in (None, told["node"]) and word in told["why"]
    assert [zone["verdict"] for zone in told["zones"]].count("chosen") == 1
    with pytest.raises(LookupError):
        box.kernel.view("explain_node", pid=9999)
