"""A stretch of a thrash is what its stops would have been one by one: the same state, the same events with the same numbers, the same records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import Event, Kernel, Machine
from core.kernel import Result
from core.mm import thrash
from core.panic import KernelBug

M = 1 << 20
SIZE = 96 * M
MACHINE = {"memory": "64M", "swap": "160M", "transparent_hugepage": "never"}
NVME, ZRAM, DISK = ({"size": "160M", "kind": kind} for kind in ("nvme", "zram", "disk"))
CGROUP = "/sys/fs/cgroup/a"
ANON = ["private", "anonymous", "noreserve"]
FILES = ("vmstat", "meminfo", "zoneinfo", "stat", "pressure/memory", "pressure/io", "pressure/cpu")
ORDERS = ("sequential", "reverse", "random", "zipf")

Step = tuple[str, Any]


class Story:
    """Two processes, each with a mapping larger than memory, and all that can be seen of what they do."""

    def __init__(self, machine: dict[str, Any], cgroup: dict[str, str], steps: list[Step]) -> None:
        self.k = Kernel.boot(Machine.from_dict({**MACHINE, **machine}), seed=3)
        self.results: list[Result | None] = []
        self.events: list[Event] = []
        if cgroup:
            self.put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
            self.call("mkdir", None, path=CGROUP)
            for name, value in cgroup.items():
                self.put(f"{CGROUP}/{name}", value)
        self.pids = [
            self.call("spawn", None, comm="a", cgroup="/a" if cgroup else "/").result["pid"],
            self.call("spawn", None, comm="b").result["pid"],
        ]
        self.at = [self.call("mmap", pid, length=2 * SIZE, prot="rw", flags=ANON).result["address"] for pid in self.pids]
        for op, args in steps:
            getattr(self, op)(**args)
        self.k.verify()

    def call(self, op: str, pid: int | None, **args: Any) -> Result:
        answer = self.k.call(op, pid, **args)
        self.results.append(replace(answer))
        self.events += self.k.drain()
        return answer

    def put(self, path: str, data: str) -> None:
        assert self.call("put", None, path=path, data=data.encode()).errno is None

    def touch(self, who: int = 0, order: str = "sequential", access: str = "write", length: int = SIZE, offset: int = 0, **more: Any) -> None:
        if self.pids[who] in self.k.tasks:  # the OOM killer may have taken it
            self.call("touch", self.pids[who], address=self.at[who] + offset, length=length, access=access, order=order, **more)

    def fork(self, who: int = 0) -> None:
        self.call("fork", self.pids[who])

    def advise(self, advice: str, who: int = 0, length: int = SIZE) -> None:
        self.call("madvise", self.pids[who], address=self.at[who], length=length, advice=advice)

    def file(self, length: int) -> None:
        self.call("create_file", None, path="/data/f", size=length)
        for _ in range(2):
            self.call("read", self.pids[1], path="/data/f", offset=0, length=length)

    def wait(self, ns: int) -> None:
        self.call("advance", None, duration_ns=ns)

    def seen(self) -> dict[str, Any]:
        k = self.k
        return {
            "results": self.results,
            "events": [event.to_dict() for event in self.events],
            "records": [k.records.visits, k.records.stalls, k.records.charges, k.records.throttles],
            "files": [k.read(f"/proc/{name}") for name in FILES],
            "digest": k.digest(),
        }


def both_ways(monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any], cgroup: dict[str, str], steps: list[Step]) -> int:
    """Play it with stretches and without; the same must be seen. How many stretches there were."""
    run, ran = thrash.Stretch.run, []

    def counted(self: thrash.Stretch, *args: Any) -> Any:
        ran.append(0)
        return run(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(thrash.Stretch, "run", counted)
        seen = Story(machine, cgroup, steps).seen()
    with monkeypatch.context() as patch:
        patch.setattr(thrash, "common", lambda *_: False)
        expected = Story(machine, cgroup, steps).seen()
    for what, value in expected.items():
        assert seen[what] == value, what
    return len(ran)


def touch(order: str = "sequential", access: str = "write", **more: Any) -> Step:
    return "touch", {"order": order, "access": access, **more}


FILL = touch()
CASES: dict[str, tuple[dict[str, Any], dict[str, str], list[Step]]] = {
    **{f"{order} {access}": ({}, {}, [FILL, touch(order, access)]) for order in ORDERS for access in ("read", "write")},
    "nvme": ({"swap": [NVME]}, {}, [FILL, touch(), touch("random")]),
    "zram": ({"swap": [ZRAM], "memory": "128M"}, {}, [touch(length=160 * M), touch("random", length=160 * M)]),
    "a disk that rotates": ({"swap": [DISK]}, {}, [FILL, touch(), touch("random", "read")]),
    "two areas": ({"swap": [{"size": "80M", "kind": "ssd"}, {"size": "80M", "kind": "disk"}]}, {}, [FILL, touch(), touch("random")]),
    "one processor": ({"cpus": 1}, {}, [FILL, touch(), touch("random")]),
    "again and again": ({}, {}, [FILL, touch(repeat=3)]),
    "with gaps": ({}, {}, [FILL, touch(stride=3, repeat=2)]),
    "two processes": ({}, {}, [FILL, touch(who=1), touch("random"), touch("zipf", "read", who=1), touch()]),
    "parent and child": ({}, {}, [FILL, ("fork", {}), touch(length=60 * M), touch("random", "read")]),
    "swap nearly full": ({"swap": "64M"}, {}, [touch(length=90 * M), touch(length=90 * M), touch("random", length=90 * M)]),
    "nothing left": ({"swap": "24M"}, {}, [touch(length=60 * M), touch(who=1, length=60 * M), touch(who=1, length=20 * M)]),
    "files too": ({}, {}, [("file", {"length": 40 * M}), FILL, ("file", {"length": 20 * M}), touch("zipf", "read"), touch()]),
    "advice": ({}, {}, [FILL, ("advise", {"advice": "pageout"}), touch(length=M), ("advise", {"advice": "populate_write", "length": 60 * M}),
                        ("advise", {"advice": "free", "length": 30 * M}), touch("random")]),
    "a trigger": ({}, {}, [("put", {"path": "/proc/pressure/memory", "data": "some 50000 1000000"}), FILL, touch("random"), touch()]),
    "time passes": ({}, {}, [FILL, touch("random"), ("wait", {"ns": 5 * 10**9}), touch("random"), ("wait", {"ns": 10**9})]),
    "memory.max": ({}, {"memory.max": str(24 * M)}, [touch(length=40 * M), touch(who=1), touch("random", length=40 * M), touch("random", who=1)]),
    "memory.high": ({}, {"memory.high": str(40 * M)}, [touch(length=48 * M), touch(who=1), touch("random", length=48 * M)]),
    "memory.low": ({}, {"memory.low": str(20 * M)}, [touch(length=48 * M), touch(who=1), touch("random", who=1)]),
    "memory.swap.max": ({}, {"memory.swap.max": str(16 * M)}, [touch(length=48 * M), touch(who=1), touch("random", who=1)]),
    "a cgroup without limits": ({}, {"memory.max": "max"}, [FILL, touch(who=1), touch("random"), touch("zipf", who=1)]),
    "the multi-gen LRU": ({"reclaim_policy": "mglru"}, {}, [FILL, touch("random")]),
}  # fmt: skip
UNCOMMON = ("memory.low", "the multi-gen LRU")  # no stretch


@pytest.mark.parametrize("name", CASES)
def test_a_stretch_is_its_stops(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stretches = both_ways(monkeypatch, *CASES[name])
    assert (stretches == 0) == (name in UNCOMMON)


moves = st.builds(
    touch, st.sampled_from(ORDERS), st.sampled_from(["read", "write"]), who=st.integers(0, 1),
    length=st.integers(1, 40).map(lambda n: 2 * M * n), offset=st.integers(0, 20).map(lambda n: 2 * M * n), repeat=st.integers(1, 2),
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(moves, min_size=2, max_size=5), kind=st.sampled_from(["ssd", "disk", "nvme"]), cpus=st.integers(1, 3))
def test_whatever_is_touched(monkeypatch: pytest.MonkeyPatch, steps: list[Step], kind: str, cpus: int) -> None:
    both_ways(monkeypatch, {"swap": [{"size": "320M", "kind": kind}], "cpus": cpus}, {}, [FILL, *steps])


def test_a_long_thrash_is_a_few_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of each stop: those are several hundred."""
    assert 0 < both_ways(monkeypatch, {}, {}, [FILL, touch()]) < 100


def test_events_that_nobody_has_taken_are_in_a_snapshot() -> None:
    story = Story({}, {}, [FILL])
    k = story.k
    k.call("touch", story.pids[0], address=story.at[0], length=SIZE, access="write")
    assert any(isinstance(event, int) for event in k.events)
    twin = Kernel.restore(k.snapshot())
    assert [event.to_dict() for event in twin.drain()] == [event.to_dict() for event in k.drain()]
    assert twin.digest() == k.digest()


def test_a_round_that_stops_for_a_decision_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not carried on with as if it had not stopped: the multi-gen LRU ages its lists in Python."""
    monkeypatch.setattr(thrash, "common", lambda *_: True)
    with pytest.raises(KernelBug, match=r"thrash\.common"):
        Story({"reclaim_policy": "mglru"}, {}, [FILL, touch()])
