"""Random programs where every fault may take a huge page: nothing is lost when they are split, shared, swapped, moved and collapsed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.properties.programs import Program, small_machine

MIB = 1 << 20
PAGE = 4096
THP = "/sys/kernel/mm/transparent_hugepage/"
NUMBER = st.integers(0, (1 << 16) - 1)
# offsets and lengths within a region of 8 MiB: whole huge pages, parts of them, over their borders
PLACES = (0, 2 * MIB, 4 * MIB, 6 * MIB, MIB, 2 * MIB + 4 * PAGE, 3 * MIB - PAGE, 7 * MIB)
SIZES = (PAGE, 2 * MIB, 4 * MIB, MIB, 5 * PAGE, 2 * MIB + PAGE, 3 * MIB)
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("touch", {"access": "write"}), ("touch", {"access": "write"}), ("touch", {"access": "read"}), ("touch", {"access": "write", "order": "random"}),
    ("touch", {"access": "write", "order": "reverse"}), ("munmap", {}), ("mprotect", {"prot": "r"}), ("mprotect", {"prot": "rw"}),
    ("mlock", {}), ("munlock", {}),
    *(("madvise", {"advice": advice}) for advice in ("dontneed", "free", "cold", "pageout", "collapse", "hugepage", "nohugepage", "willneed")),
    ("madvise", {"advice": "remove"}), ("mincore", {}), ("mbind", {"mode": "interleave", "nodes": [0]}),
)  # fmt: skip


class HugePages(RuleBasedStateMachine):
    """A few processes over one region of 8 MiB and its copies; `verify` after each call."""

    swap: Any = "24M"
    flags = ("private", "anonymous")
    policy = "classic"

    def __init__(self) -> None:
        super().__init__()
        self.p = Program(small_machine("80M", swap=self.swap, reclaim_policy=self.policy))
        for name, value in (("enabled", "always"), ("shmem_enabled", "always"), ("khugepaged/scan_sleep_millisecs", "10")):
            self.p.call("put", path=THP + name, data=value.encode())
        self.pids = [int(self.p.call("spawn", comm="a", catch_signals=True).result["pid"])]  # type: ignore[index]
        made = self.p.call("mmap", self.pids[0], length=8 * MIB, prot="rw", flags=list(self.flags), align=2 * MIB)
        self.at = int(made.result["address"])  # type: ignore[index]

    def alive(self, a: int) -> int | None:
        pids = [pid for pid in self.pids if pid in self.p.k.tasks and self.p.k.tasks[pid].mm is not None]
        return pids[a % len(pids)] if pids and self.p.k.panicked is None else None

    @rule(a=NUMBER, what=st.sampled_from(CALLS), place=st.sampled_from(PLACES), size=st.sampled_from(SIZES))
    def call(self, a: int, what: tuple[str, dict[str, Any]], place: int, size: int) -> None:
        if (pid := self.alive(a)) is not None:
            op, args = what
            self.p.call(op, pid, address=self.at + place, length=size, **args)

    @rule(a=NUMBER)
    def fork(self, a: int) -> None:
        if (pid := self.alive(a)) is not None and len(self.pids) < 5 and (made := self.p.call("fork", pid).result):
            self.pids.append(int(made["pid"]))

    @rule(a=NUMBER)
    def exit(self, a: int) -> None:
        if (pid := self.alive(a)) is not None and len(self.pids) > 1:
            self.p.call("exit", pid)

    @rule(a=NUMBER, place=st.sampled_from(PLACES), to=st.sampled_from((16 * MIB, 18 * MIB, 20 * MIB + PAGE)), size=st.sampled_from(SIZES))
    def mremap(self, a: int, place: int, to: int, size: int) -> None:
        if (pid := self.alive(a)) is not None:
            self.p.call("mremap", pid, address=self.at + place, old_length=size, new_length=size, new_address=self.at - 32 * MIB + to)

    @rule(a=NUMBER)
    def remap(self, a: int) -> None:
        if (pid := self.alive(a)) is not None:
            self.p.call("mmap", pid, address=self.at, length=8 * MIB, prot="rw", flags=[*self.flags, "fixed"])

    @rule(ms=st.integers(1, 60))
    def time(self, ms: int) -> None:
        self.p.call("advance", duration_ns=ms * 1_000_000)

    @rule(limit=st.sampled_from((b"max", b"5M", b"9M", b"3M")))
    def limit(self, limit: bytes) -> None:
        self.p.call("put", path="/sys/fs/cgroup/g/memory.max", data=limit)

    @rule(a=NUMBER)
    def join(self, a: int) -> None:
        if (pid := self.alive(a)) is not None:
            self.p.call("put", path="/sys/fs/cgroup/g/cgroup.procs", data=str(pid).encode())

    @rule(path=st.sampled_from(("/proc/sys/vm/compact_memory", "/sys/devices/system/node/node0/compact")))
    def compact(self, path: str) -> None:
        self.p.call("put", path=path, data=b"1")

    @rule(defrag=st.sampled_from((b"always", b"defer", b"madvise", b"never")))
    def defrag(self, defrag: bytes) -> None:
        self.p.call("put", path=THP + "defrag", data=defrag)

    @rule(kind=st.sampled_from((b"1", b"4", b"5")), a=NUMBER)
    def clear_refs(self, kind: bytes, a: int) -> None:
        if (pid := self.alive(a)) is not None:
            self.p.call("put", path=f"/proc/{pid}/clear_refs", data=kind)

    @invariant()
    def holds(self) -> None:
        self.p.k.verify()


@pytest.mark.parametrize(
    ("kind", "sharing", "policy"),
    [
        ("virtio", "private", "classic"), ("nvme", "private", "classic"), ("virtio", "shared", "classic"),
    ],
)
def test_random_calls_on_huge_pages(kind: str, sharing: str, policy: str) -> None:
    settled = {"swap": [{"size": "24M", "kind": kind}], "flags": (sharing, "anonymous"), "policy": policy}
    machine = type(f"HugePages_{kind}_{sharing}_{policy}", (HugePages,), settled)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine, settings=settings(max_examples=25, stateful_step_count=40, suppress_health_check=list(HealthCheck), deadline=None)
    )
