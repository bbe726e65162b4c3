"""Random programs that need about four times the memory there is: every invariant after each step, and everything given back at the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import Kernel
from tests.properties.programs import small_machine

MIB = 1 << 20
GROUP = "/sys/fs/cgroup"
FILES = {"/data/x": 40 * MIB, "/data/y": 30 * MIB}
ANON = 32 * MIB
INIT_PAGES = 400
LIMITS = (
    ("/one/memory.max", b"6M"), ("/one/memory.max", b"16M"), ("/one/memory.max", b"max"), ("/one/memory.low", b"8M"), ("/one/memory.min", b"3M"),
    ("/two/memory.high", b"10M"), ("/two/memory.high", b"max"), ("/two/memory.swap.max", b"4M"), ("/two/memory.swap.max", b"max"),
    ("/two/memory.low", b"8M"), ("/one/memory.reclaim", b"2M"), ("/two/memory.reclaim", b"2M"),
)  # fmt: skip
SETTINGS = (("vm/swappiness", b"0"), ("vm/swappiness", b"60"), ("vm/swappiness", b"200"), ("vm/drop_caches", b"1"), ("vm/drop_caches", b"3"),
            ("vm/page-cluster", b"0"), ("vm/page-cluster", b"3"), ("vm/dirty_bytes", b"1048576"), ("vm/dirty_ratio", b"20"),
            ("vm/compact_memory", b"1"), ("vm/compaction_proactiveness", b"100"))  # fmt: skip
OPS = ("touch", "touch", "touch", "read", "write", "map", "share", "fork", "exit", "advise", "limit", "setting", "fsync", "advance", "move")
NUMBER = st.integers(0, (1 << 12) - 1)
STEP = st.tuples(st.sampled_from(OPS), NUMBER, NUMBER, NUMBER)


class Crowd:
    """Two cgroups, two files, processes with 32 MiB of anonymous memory each, on a machine of 64 MiB."""

    def __init__(self, swap: str, nodes: int = 1) -> None:
        self.k: Kernel = small_machine(swap=swap, nodes=nodes, memory=f"{64 * nodes}M")
        self.free = self.k.s.zones["free"].copy()
        self.put(f"{GROUP}/cgroup.subtree_control", b"+memory")
        for group in ("/one", "/two"):
            self.k.call("mkdir", path=GROUP + group)
        for path, size in FILES.items():
            self.k.call("create_file", path=path, size=size)

    def put(self, path: str, data: bytes) -> None:
        self.k.call("put", path=path, data=data)

    def pids(self) -> list[int]:
        return [task.pid for task in self.k.tasks.values() if task.pid != 1 and task.mm is not None]

    def pid(self, a: int) -> int:
        """A live process; there are three at least."""
        if len(self.pids()) < 3:
            group = ("/one", "/two", "/")[a % 3]
            made = self.k.call("spawn", comm=f"p{a % 10}", cgroup=group).result
            if made is not None:
                self.k.call("mmap", int(made["pid"]), length=ANON, prot="rw", flags=["private", "anonymous"])
                return int(made["pid"])
        return self.pids()[a % len(self.pids())]

    def piece(self, pid: int, b: int, c: int) -> dict[str, int]:
        """A stretch of one of the large mappings of a process."""
        mm = self.k.tasks[pid].mm
        assert mm is not None
        vmas = [vma for vma in mm.vmas if vma.pages >= 256 and not vma.special]
        if not vmas:
            return {"address": 0x10000, "length": 4096}
        vma = vmas[b % len(vmas)]
        first = vma.start + c * 7 % vma.pages
        return {"address": first << 12, "length": min(vma.end - first, 1 + b * c % 6000) << 12}

    def step(self, op: str, a: int, b: int, c: int) -> None:
        k = self.k
        if k.panicked is not None:
            return
        pid, path = self.pid(a), tuple(FILES)[b % len(FILES)]
        if op == "touch":
            k.call("touch", pid, **self.piece(pid, b, c), access=("write", "read")[a % 5 == 0], order=("sequential", "random")[a % 3 == 0], seed=c)
        elif op in ("read", "write"):
            k.call(op, pid, path=path, offset=c * 5000, length=(1 + a) * 2000)
        elif op == "map":
            k.call("mmap", pid, length=16 * MIB, prot="rw", flags=[("private", "shared")[c % 2]], file=path, offset=0)
        elif op == "share":
            k.call("mmap", pid, length=12 * MIB, prot="rw", flags=["shared", "anonymous"])
        elif op in ("fork", "exit"):
            if op == "exit" or len(self.pids()) < 6:
                k.call(op, pid)
        elif op == "advise":
            k.call("madvise", pid, **self.piece(pid, b, c), advice=("cold", "pageout", "free", "dontneed", "willneed", "remove")[a % 6])
        elif op == "limit":
            name, value = LIMITS[c % len(LIMITS)]
            self.put(GROUP + name, value)
        elif op == "setting":
            name, value = SETTINGS[c % len(SETTINGS)]
            self.put(f"/proc/sys/{name}", value)
        elif op == "fsync":
            k.call("fsync", pid, path=path)
        elif op == "advance":
            k.call("advance", duration_ns=c * 10_000_000)
        elif op == "move":
            self.put(f"{GROUP}{('/one', '/two', '')[b % 3]}/cgroup.procs", str(pid).encode())

    def leave(self) -> None:
        """Everybody exits, the files and the cgroups are removed, what is cached is dropped."""
        while self.pids():
            self.k.call("exit", self.pids()[0])
        for path in FILES:
            self.k.call("rmdir", path=path)
        self.put("/proc/sys/vm/drop_caches", b"3")
        for group in ("/one", "/two"):
            self.k.call("rmdir", path=GROUP + group)

    def all_given_back(self) -> None:
        self.leave()
        self.k.verify()
        assert list(self.k.tasks) == [1]
        slots = self.k.s.slots
        init_in_swap = int(((slots["count"] > 0) | (slots["pfn"] > 0)).sum())  # pages of init and of the image it runs: it lives on
        assert init_in_swap <= INIT_PAGES
        cached = int((slots["pfn"] > 0).sum())
        assert int(self.k.s.zones["free"].sum()) == int(self.free.sum()) + init_in_swap - cached


@pytest.mark.parametrize(("swap", "nodes"), [("0", 1), ("32M", 1), ("192M", 1), ("64M", 2)])
def test_a_working_set_four_times_the_memory(swap: str, nodes: int) -> None:
    """Six turns of writing everything, reading both files and forking; whoever is killed is replaced."""
    crowd = Crowd(swap, nodes)
    for turn in range(6):
        for a in range(4):
            pid = crowd.pid(a)
            if turn == 0:
                crowd.step("limit", a, a, 3 * a + 1)
            for vma in [vma for vma in crowd.k.tasks[pid].mm.vmas if vma.pages == ANON >> 12]:  # type: ignore[union-attr]
                if pid in crowd.pids():
                    crowd.k.call("touch", pid, address=vma.start << 12, length=ANON, access="write")
                    crowd.k.verify()
            crowd.step("read", 4095, a, 0)
            crowd.step("fork", a, 0, 0)
            crowd.k.verify()
    events = dict(line.split() for line in crowd.k.read("/proc/vmstat").decode().splitlines())
    assert int(events["pgsteal_anon"]) + int(events["pgsteal_file"]) > 0
    assert (int(events["pswpout"]) > 0) == (swap != "0")
    crowd.all_given_back()


CROWDS: dict[str, Any] = {"max_examples": 12, "deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("swap", ["0", "96M"])
@settings(**CROWDS)
@given(steps=st.lists(STEP, min_size=20, max_size=50))
def test_random_programs_under_pressure(swap: str, steps: list[tuple[str, int, int, int]]) -> None:
    crowd = Crowd(swap)
    for step in steps:
        crowd.step(*step)
        crowd.k.verify()
    if crowd.k.panicked is None:
        crowd.all_given_back()
