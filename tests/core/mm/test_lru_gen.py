"""The multi-gen LRU: generations, tiers and the controller by worked numbers; switching; random programs under pressure keep every page."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import FsError, Kernel
from core.jit import njit
from core.mm import lru_gen, lru_gen_walk
from core.mm.lru_gen_walk import LEAF_YOUNG
from core.mm.mm_inline import lru_tier
from core.mm.mm_types import CTL_POLICY, MGLRU, MIN_NR_GENS
from core.vmstat import EVENT
from tests.core.mm.space import ANON, PAGE, M, Space


@njit
def bloom_add(s, lruvec, seq, item):
    lru_gen_walk.update_bloom_filter(s, lruvec, seq, item)


@njit
def bloom_has(s, lruvec, seq, item):
    return lru_gen_walk.test_bloom_filter(s, lruvec, seq, item)


@njit
def last_tier(s, lruvec, kind):
    return lru_gen.get_tier_idx(s, lruvec, kind)


@njit
def tier_of(refs):
    return lru_tier(refs)


ENABLED, DEBUG = "/sys/kernel/mm/lru_gen/enabled", "/sys/kernel/debug/lru_gen"
GROUP = "/sys/fs/cgroup/t"


def put(space: Space, path: str, text: str) -> Any:
    return space.call("put", path=path, data=text.encode())


def limited(memory: str = "64M", limit: str = "max", **machine: Any) -> Space:
    """A process in a cgroup of its own."""
    space = Space(memory, swap="64M", **machine)
    put(space, "/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    space.ok("mkdir", path=GROUP)
    put(space, GROUP + "/memory.max", limit)
    put(space, GROUP + "/cgroup.procs", str(space.pid))
    return space


def generations(k: Kernel, path: str = "/t") -> list[tuple[int, int, int]]:
    """(seq, anonymous pages, file pages) of a cgroup on node 0, as the file shows them."""
    lines = k.read(DEBUG).decode().split("memcg ")
    mine = next(part for part in lines if part.split("\n")[0].endswith(f" {path}"))
    rows = [[int(word) for word in line.split()] for line in mine.splitlines()[2:]]
    return [(seq, anon, file) for seq, _, anon, file in rows]


def heap(space: Space, size: int) -> int:
    address = int(space.ok("mmap", length=size, prot="rw", flags=ANON)["address"])
    space.ok("touch", address=address, length=size, access="write")
    return address


@pytest.mark.parametrize(("refs", "tier"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3)])
def test_tiers_are_powers_of_two(refs: int, tier: int) -> None:
    assert int(tier_of(refs)) == tier


@pytest.mark.parametrize(
    ("written", "shown"),
    [("y", "0x0007"), ("n", "0x0000"), ("7", "0x0007"), ("0x0005", "0x0005"), ("2", "0x0002"), ("1", "0x0001"), ("YES", "0x0007")],
)
def test_enabled_is_a_mask(written: str, shown: str) -> None:
    space = limited()
    assert space.k.read(ENABLED) == b"0x0000\n"
    assert put(space, ENABLED, written).errno is None
    assert space.k.read(ENABLED).decode().strip() == shown
    assert (int(space.k.s.ctl[CTL_POLICY]) == MGLRU) == bool(int(shown, 16) & 1)


def test_enabled_refuses_words() -> None:
    assert put(limited(), ENABLED, "maybe").errno == "EINVAL"


def test_where_new_pages_go() -> None:
    """Faulted in: the youngest; read(2): the second oldest. A recorded kernel showed the same."""
    space = limited("128M")
    put(space, ENABLED, "y")
    space.ok("create_file", path="/data/f", size=4 * M)
    heap(space, 8 * M)
    space.ok("read", path="/data/f", offset=0, length=4 * M)
    assert generations(space.k) == [(0, 0, 0), (1, 0, 1024), (2, 0, 0), (3, 2048, 0)]


def test_aging_moves_what_was_used() -> None:
    """`+ memcg node seq`: pages used since the last walk are in the two youngest generations, the others fall behind."""
    space = limited()
    put(space, ENABLED, "y")
    address = heap(space, 8 * M)
    for seq in (3, 4):  # the first walk finds every A bit set by the fault itself, the second finds none
        assert put(space, DEBUG, f"+ 2 0 {seq} 1 1").errno is None
    space.ok("touch", address=address, length=2 * M, access="read")
    assert put(space, DEBUG, "+ 2 0 5 1 1").errno is None
    assert {seq: anon for seq, anon, _ in generations(space.k)} == {3: 1536, 4: 0, 5: 512, 6: 0}
    lruvec = space.k.cgroups[1].id * space.k.nr_nodes
    assert int(space.k.s.lrugens["mm_stats"][lruvec][LEAF_YOUNG]) >= 2048 + 512


def test_eviction_takes_the_oldest_only() -> None:
    space = limited()
    put(space, ENABLED, "y")
    address = heap(space, 8 * M)
    for seq in (3, 4):
        put(space, DEBUG, f"+ 2 0 {seq} 1 1")
    space.ok("touch", address=address, length=2 * M, access="read")
    put(space, DEBUG, "+ 2 0 5 1 1")
    assert put(space, DEBUG, "- 2 0 3 200").errno is None
    left = {seq: anon for seq, anon, _ in generations(space.k)}
    assert left == {5: 512 + 64, 6: 0}  # the last batch was being written when its generation was empty already: it waits in the next
    assert space.ok("touch", address=address, length=2 * M, access="read") and space.k.tasks[space.pid].majflt == 0


@pytest.mark.parametrize(
    ("command", "errno"),
    [
        ("+ 2 0 9", "EINVAL"), ("+ 99 0 3", "EINVAL"), ("+ 2 7 3", "EINVAL"), ("- 2 0 3", "EINVAL"), ("x 2 0 3", "EINVAL"), ("+ 2", "EINVAL"),
        ("+ 2 0 3 201", "EINVAL"), ("+ 2 0 2", None), ("+ 2 0 3 1 0", "ERANGE"), ("+ 2 0 3 1 1, + 2 0 4", None), ("", None),
    ],
)  # fmt: skip
def test_commands(command: str, errno: str | None) -> None:
    space = limited()
    put(space, ENABLED, "y")
    heap(space, M)
    assert put(space, DEBUG, command).errno == errno


def test_bloom_filter_knows_what_was_put_in() -> None:
    k = limited().k
    lru_gen_walk.reset_bloom_filter(k.s, 0, 4)
    items = [(row << 9) | slot for row in range(1, 40) for slot in (0, 3, 77, 511)]
    for item in items:
        bloom_add(k.s, 0, 4, item)
    assert all(bloom_has(k.s, 0, 4, item) for item in items)
    others = [item + 100_000 for item in items]
    assert sum(bool(bloom_has(k.s, 0, 4, item)) for item in others) < len(others) // 4
    assert bloom_has(k.s, 0, 5, items[0])  # a filter that is not in use says yes


def test_a_scan_does_not_push_out_what_is_used() -> None:
    """16 MiB limit, 6 MiB in use again and again, a scan over 40 MiB of file: the used pages stay."""
    space = limited("512M", "16M")
    put(space, ENABLED, "y")
    address = heap(space, 6 * M)
    space.ok("create_file", path="/data/big", size=40 * M)
    for step in range(10):
        space.ok("read", path="/data/big", offset=step * 4 * M, length=4 * M)
        space.ok("touch", address=address, length=6 * M, access="read")
    assert space.k.tasks[space.pid].majflt <= 2


def test_min_ttl_kills_instead_of_thrashing() -> None:
    space = limited("64M")
    put(space, ENABLED, "y")
    put(space, "/sys/kernel/mm/lru_gen/min_ttl_ms", "100000")
    assert space.k.read("/sys/kernel/mm/lru_gen/min_ttl_ms") == b"100000\n"
    address = int(space.ok("mmap", length=96 * M, prot="rw", flags=ANON)["address"])
    answer = space.call("touch", address=address, length=96 * M, access="write")
    assert space.pid in answer.killed and int(space.k.s.vm_event[EVENT["oom_kill"]]) == 1


def test_switching_keeps_every_page() -> None:
    space = limited("64M", "8M")
    space.ok("create_file", path="/data/f", size=4 * M)
    address = heap(space, 6 * M)
    space.ok("read", path="/data/f", offset=0, length=4 * M)
    space.ok("mlock", address=address, length=M)
    for word in ("y", "n", "5", "y", "0"):
        before = space.k.s.node_stat[:, :5].sum()
        put(space, ENABLED, word)
        assert space.k.s.node_stat[:, :5].sum() == before
        space.ok("touch", address=address, length=6 * M, access="write")


def test_active_means_the_two_youngest() -> None:
    space = limited()
    put(space, ENABLED, "y")
    heap(space, 8 * M)
    assert b"active_anon 8388608\n" in space.k.read(GROUP + "/memory.stat")
    for seq in (3, 4):
        put(space, DEBUG, f"+ 2 0 {seq} 1 1")
    assert b"inactive_anon 8388608\n" in space.k.read(GROUP + "/memory.stat")


def test_walk_view_names_the_generation() -> None:
    space = limited()
    put(space, ENABLED, "y")
    address = heap(space, M)
    frame = space.k.view("walk", pid=space.pid, address=address)["frame"]
    assert frame["lru"] == {"policy": "mglru", "type": "anon", "generation": 3, "age": 0, "active": True, "refs": 0, "tier": 0}
    put(space, ENABLED, "n")
    assert space.k.view("walk", pid=space.pid, address=address)["frame"]["lru"] == {"policy": "classic", "list": "active_anon"}


def test_restored_kernels_go_on_alike() -> None:
    space = limited("64M", "8M")
    put(space, ENABLED, "y")
    address = heap(space, 12 * M)
    twin = Kernel.restore(space.k.snapshot())
    twin.verify()
    for k in (space.k, twin):
        k.call("touch", space.pid, address=address, length=12 * M, access="write", order="random", seed=3)
    assert twin.digest() == space.k.digest()


OPS = ("touch", "read", "age", "evict", "switch", "fork", "exit", "advise", "limit", "write", "advance")
STEP = st.tuples(st.sampled_from(OPS), st.integers(0, 4095), st.integers(0, 4095))


class Gang:
    """Processes in a cgroup on a small machine with both policies."""

    def __init__(self) -> None:
        self.space = limited("64M", "8M", reclaim_policy="mglru")
        self.k = self.space.k
        self.k.call("create_file", path="/data/f", size=24 * M)
        self.heaps = {self.space.pid: self.map(self.space.pid)}

    def map(self, pid: int) -> int:
        return int(self.k.call("mmap", pid, length=16 * M, prot="rw", flags=ANON).result["address"])

    def step(self, op: str, a: int, b: int) -> None:
        pids = [pid for pid in self.heaps if pid in self.k.tasks and self.k.tasks[pid].mm is not None]
        if not pids:
            pid = int(self.k.call("spawn", comm="p", cgroup="/t", catch_signals=True).result["pid"])
            self.heaps[pid] = self.map(pid)
            pids = [pid]
        pid = pids[a % len(pids)]
        at = self.heaps[pid] + (b % 3000) * PAGE
        if op == "touch":
            self.k.call("touch", pid, address=at, length=(1 + a % 1000) * PAGE, access="write" if a & 1 else "read")
        elif op in ("read", "write"):
            self.k.call(op, pid, path="/data/f", offset=(b % 5000) * PAGE, length=(1 + a % 900) * PAGE)
        elif op == "advise":
            self.k.call("madvise", pid, address=at, length=(1 + a % 200) * PAGE, advice=("cold", "pageout", "free", "dontneed")[b % 4])
        elif op == "fork" and len(pids) < 4:
            child = int(self.k.call("fork", pid).result["pid"])
            self.heaps[child] = self.heaps[pid]
        elif op == "exit":
            self.k.call("exit", pid)
        elif op == "switch":
            self.k.call("put", path=ENABLED, data=(b"y", b"n", b"1", b"3")[a % 4])
        elif op == "limit":
            self.k.call("put", path=GROUP + "/memory.max", data=(b"4M", b"8M", b"max", b"16M")[a % 4])
        elif op == "advance":
            self.k.advance(a * 1_000_000)
        else:
            self.command(op, a)

    def command(self, op: str, a: int) -> None:
        cg = self.k.cgroup_at("/t")
        assert cg is not None
        seq = int(self.k.s.lrugens["max_seq"][cg.id])
        text = f"+ {cg.id + 1} 0 {seq} {a & 1} {a >> 1 & 1}" if op == "age" else f"- {cg.id + 1} 0 {seq - MIN_NR_GENS} {a % 201} {a % 700}"
        self.k.call("put", path=DEBUG, data=text.encode())


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(STEP, min_size=4, max_size=25))
def test_each_page_is_on_one_list_of_one_generation(steps: list[tuple[str, int, int]]) -> None:
    gang = Gang()
    for step in steps:
        gang.step(*step)
        gang.k.verify()


def test_the_same_steps_give_the_same_state() -> None:
    steps = [(OPS[i * 7 % len(OPS)], i * 37 % 4096, i * 91 % 4096) for i in range(60)]
    digests = set()
    for _ in range(2):
        gang = Gang()
        for step in steps:
            gang.step(*step)
        digests.add(gang.k.digest())
    assert len(digests) == 1


def test_reading_the_file_changes_nothing() -> None:
    space = limited()
    put(space, ENABLED, "y")
    heap(space, M)
    before = space.k.digest()
    space.k.read(DEBUG + "_full")
    with pytest.raises(FsError):
        space.k.read("/sys/kernel/debug/lru_gen/none")
    assert space.k.digest() == before


def test_the_controller_compares_with_tier_zero() -> None:
    """1,000 evicted of tier 0, 50 back; of tier 1 100 protected or evicted, 80 back: tier 1 is worth protecting, tier 2 never came back."""
    k = limited().k
    vec = k.s.lrugens[0]
    vec["evicted"][4:8] = (1000, 100, 10, 0)
    vec["refaulted"][4:8] = (50, 80, 0, 0)
    assert int(last_tier(k.s, 0, 1)) == 0
    vec["refaulted"][5] = 63  # fewer than a batch prove nothing
    assert int(last_tier(k.s, 0, 1)) == 3
