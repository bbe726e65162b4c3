"""cgroup v2 memory under pressure, by the kernel's own selftests (cgroup/test_memcontrol.c): their scenarios, numbers and tolerances."""

from __future__ import annotations

import pytest

from core.mm import memcontrol, rmap_walk, swap_readahead, vmscan
from core.mm.lru_classic import inactive_is_low, shrink_lruvec
from tests.peer.box import ANON, CGROUP, Box, K, M, close

# ---- memory.min, memory.low: MC-06 .. MC-12 -----------------------------------------------------------------------

CLAIMS = {"C": "75M", "D": "25M", "E": "0", "F": "500M"}


class Tree:
    """A (max 200M, no swap) / B (50M protected) / C D E with 50M of page cache each, F empty; and A/G beside B."""

    def __init__(self, protection: str) -> None:
        self.box = Box(memory="512M", swap="0")
        self.box.cgroup("/A", memory_max="200M", memory_swap_max=0)
        self.box.cgroup("/A/B", **{f"memory_{protection}": "50M"})
        self.box.cgroup("/A/G")
        for name, claim in CLAIMS.items():
            self.box.cgroup(f"/A/B/{name}", **{f"memory_{protection}": claim})
        for name in "CDE":
            self.box.pagecache(self.box.spawn(cgroup=f"/A/B/{name}"), f"/data/{name}", 50 * M)

    def current(self, name: str) -> int:
        return self.box.cg_int("/A/B" if name == "B" else f"/A/B/{name}", "memory.current")

    def squeeze(self, length: int) -> bool:
        """A program in G takes so much anonymous memory and ends: whether it got it."""
        pid = self.box.spawn("squeezer", cgroup="/A/G")
        found = self.box.alloc_anon(pid, length)
        if found.signal is None:
            self.box.ok(pid, "exit")
        return found.signal is None


@pytest.mark.parametrize("protection", ["min", "low"])
def test_mc06_mc09_protection_is_shared_out(protection: str) -> None:
    tree = Tree(protection)
    assert close(tree.current("B"), 150 * M, 3)
    assert tree.squeeze(148 * M)
    assert close(tree.current("B"), 50 * M, 3)
    assert close(tree.current("C"), 29 * M, 10)
    assert close(tree.current("D"), 21 * M, 10)
    assert tree.current("E") < M
    assert tree.current("F") == 0


def test_mc07_min_is_kept_at_the_price_of_a_kill() -> None:
    tree = Tree("min")
    assert tree.squeeze(148 * M)
    assert not tree.squeeze(170 * M)
    assert close(tree.current("B"), 50 * M, 3)


def test_mc08_reclaim_of_the_target_itself_ignores_its_min() -> None:
    tree = Tree("min")
    assert tree.squeeze(148 * M)
    for _ in range(5):
        left = tree.current("C") - 10 * M
        if left <= 0 or tree.box.put(f"{CGROUP}/A/B/C/memory.reclaim", left) is None:
            break
    assert close(tree.current("C"), 10 * M, 10)


def test_mc10_mc11_low_gives_way() -> None:
    tree = Tree("low")
    assert tree.squeeze(148 * M)
    assert tree.squeeze(170 * M)
    assert close(tree.current("B"), 30 * M, 3)
    events = {name: tree.box.events(f"/A/B/{name}") for name in CLAIMS}
    assert [events[name]["oom"] for name in CLAIMS] == [0, 0, 0, 0]
    assert [events[name]["low"] > 0 for name in CLAIMS] == [True, True, False, False]


def test_a_protected_parent_protects_a_child_two_levels_down() -> None:
    """The group in between has no pages of its own; what it is given passes through it all the same."""
    box = Box(memory="512M", swap="0")
    box.cgroup("/A", memory_max="100M", memory_swap_max=0)
    for path in ("/A/p", "/A/p/q", "/A/p/q/r"):
        box.cgroup(path, memory_min="40M")
    box.cgroup("/A/free")
    box.pagecache(box.spawn(cgroup="/A/p/q/r"), "/data/kept", 40 * M)
    box.pagecache(box.spawn(cgroup="/A/free"), "/data/other", 200 * M)
    assert close(box.cg_int("/A/p/q/r", "memory.current"), 40 * M, 3)


PROTECTION = [  # (parent's protection, claims, usage), M
    (50, (75, 25, 0, 500), (50, 50, 50, 0)),
    (50, (50, 50, 0), (50, 50, 50)),
    (80, (20, 20, 20), (50, 50, 50)),
    (30, (60, 20, 10), (40, 40, 40)),
]


@pytest.mark.parametrize(("parent", "claims", "usage"), PROTECTION)
def test_mc12_the_protection_of_siblings(parent: int, claims: tuple[int, ...], usage: tuple[int, ...]) -> None:
    """memcg_protection.m: e = min(n, c) * min(1, E / sum(min(n, c)))."""
    protected = [min(claim, used) * M for claim, used in zip(claims, usage, strict=True)]
    for mine, claim, used in zip(protected, claims, usage, strict=True):
        got = memcontrol.effective_protection(used * M, sum(usage) * M, claim * M, parent * M, sum(protected))
        assert abs(got - mine * min(1.0, parent * M / sum(protected))) <= 1


def test_mc12_rounds_of_reclaim_end_where_the_model_does() -> None:
    """The model that ships with the selftest: each round takes a tenth of what is not protected, until 50M are left: 29, 21, 0, 0."""
    claims, usage = (75.0, 25.0, 0.0, 500.0), [50.0, 50.0, 50.0, 0.0]
    while sum(usage) > 50:
        protected = [min(pair) for pair in zip(claims, usage, strict=True)]
        for i, claim in enumerate(claims):
            kept = memcontrol.effective_protection(int(usage[i] * M), int(sum(usage) * M), int(claim * M), 50 * M, int(sum(protected) * M)) / M
            usage[i] -= 0.1 * usage[i] * (1 - kept / max(kept, usage[i], 1e-9))
    assert [round(used) for used in usage] == [29, 21, 0, 0]


# ---- memory.high: MC-13 .. MC-15 ----------------------------------------------------------------------------------


def test_mc13_high_never_kills() -> None:
    box = Box(memory="512M", swap="0")
    box.cgroup("/a", memory_swap_max=0)
    assert box.cg("/a", "memory.high") == "max\n"
    box.set(f"{CGROUP}/a/memory.high", "30M")
    pid = box.spawn(cgroup="/a")
    assert box.alloc_anon(pid, 31 * M).signal is None
    assert box.events("/a")["oom_kill"] == 0


def test_mc14_high_holds_page_cache_down() -> None:
    box = Box(memory="512M", swap="0")
    box.cgroup("/a", memory_high="30M")
    box.pagecache(box.spawn(cgroup="/a"), "/data/f", 50 * M)
    current = box.cg_int("/a", "memory.current")
    assert close(current, 30 * M, 5)
    assert box.events("/a")["high"] > 0
    assert box.events("/a")["max"] == 0


def test_mc15_one_large_call_is_held_up_while_it_runs() -> None:
    """Looked at after 100 ms, as the selftest does: above high it has been noticed, and it has not run into max."""
    box = Box(memory="512M", swap="0")
    box.cgroup("/a", memory_swap_max=0, memory_high="30M", memory_max="140M")
    pid = box.spawn(cgroup="/a")
    box.kernel.drain()
    start = box.kernel.clock_ns
    found = box.call(pid, "mmap", length=200 * M, prot="rw", flags=[*ANON, "populate"])
    seen = [event.to_dict() for event in box.kernel.drain() if event.clock_ns <= start + 100_000_000]
    kinds = {event["kind"] for event in seen if event["type"] == "memcg"}
    assert "high" in kinds
    assert "max" not in kinds
    assert found.elapsed_ns > 2_000_000_000


THROTTLE = [  # CG-17: (pages charged, high in KiB, usage in KiB, milliseconds at HZ = 1000)
    (64, 100 * K, 105 * K, 159),
    (64, 100 * K, 110 * K, 639),
    (64, 30 * K, 50 * K, 2000),
    (64, 30 * K, 30 * K + 128, 1),
]


@pytest.mark.parametrize(("nr", "high", "usage", "milliseconds"), THROTTLE)
def test_cg17_the_price_of_exceeding_high(nr: int, high: int, usage: int, milliseconds: int) -> None:
    """Debian's HZ is 250: the same up to one of its ticks, 4 ms."""
    overage = ((usage - high) << 20) // high
    delay = memcontrol.high_delay_ns(nr, overage)
    assert delay % 4_000_000 == 0
    assert -4_000_000 < delay - milliseconds * 1_000_000 < 4_000_000


# ---- memory.max, memory.reclaim, swap: MC-17 .. MC-21 -------------------------------------------------------------


def test_mc17_max_holds_page_cache_down() -> None:
    box = Box(memory="512M", swap="0")
    box.cgroup("/a", memory_max="30M")
    pid = box.spawn(cgroup="/a")
    box.pagecache(pid, "/data/f", 50 * M)
    assert box.alive(pid)
    assert close(box.cg_int("/a", "memory.current"), 30 * M, 5)
    box.ok(pid, "exit")
    assert 0 < box.cg_int("/a", "memory.current") <= 30 * M
    assert box.events("/a")["max"] > 0
    assert box.events("/a")["oom"] == 0


@pytest.mark.parametrize(("swap", "total"), [("0", 50), ("256M", 100)])
def test_mc18_memory_reclaim(swap: str, total: int) -> None:
    box = Box(memory="512M", swap=swap)
    box.cgroup("/a")
    assert box.cg_int("/a", "memory.current") == 0
    pid = box.spawn(cgroup="/a")
    if swap != "0":
        box.alloc_anon(pid, 50 * M)
    box.pagecache(pid, "/data/f", 50 * M)
    assert close(box.cg_int("/a", "memory.current"), total * M, 10)
    for _ in range(5):
        excess = box.cg_int("/a", "memory.current") - 30 * M
        assert excess > 0, "reclaimed too much and said EAGAIN"
        errno = box.put(f"{CGROUP}/a/memory.reclaim", excess)
        if errno is None:
            break
        assert errno == "EAGAIN"
    current = box.cg_int("/a", "memory.current")
    assert errno is None
    assert current < 30 * M or close(current, 30 * M, 3)


def test_mc20_swap_max_binds() -> None:
    box = Box(memory="512M", swap="256M")
    box.cgroup("/a", memory_swap_max="30M", memory_max="30M")
    pid = box.spawn(cgroup="/a")
    assert box.alloc_anon(pid, 100 * M).killed == [pid]
    events = box.events("/a")
    assert (events["oom"], events["oom_kill"]) == (1, 1)


def test_mc21_what_does_not_fit_is_in_swap() -> None:
    box = Box(memory="512M", swap="256M")
    box.cgroup("/a", memory_swap_max="30M", memory_max="30M")
    pid = box.spawn(cgroup="/a")
    assert box.alloc_anon(pid, 50 * M).signal is None
    current, swap = box.cg_int("/a", "memory.current"), box.cg_int("/a", "memory.swap.current")
    assert close(current, 30 * M, 3)
    assert close(current + swap, 50 * M, 3)
    assert box.events("/a")["max"] > 0


def test_mc22_the_peak_of_a_group_that_swaps() -> None:
    """6.1 has memory.peak, read-only, and no memory.swap.peak yet: the parts of the selftest that reset them are later kernels'."""
    box = Box(memory="512M", swap="256M")
    box.cgroup("/a", memory_swap_max="30M", memory_max="30M")
    pid = box.spawn(cgroup="/a")
    assert box.alloc_anon(pid, 50 * M).signal is None
    box.ok(pid, "exit")
    assert box.cg_int("/a", "memory.current") < M
    assert 29 * M <= box.cg_int("/a", "memory.peak") <= 30 * M
    assert "memory.swap.peak" not in box.kernel.listdir(f"{CGROUP}/a")


def test_mc24_there_are_no_sockets() -> None:
    """The selftest moves data through a socket; nothing here has one, and the key says so."""
    box = Box(memory="512M", swap="0")
    box.cgroup("/a")
    box.alloc_anon(box.spawn(cgroup="/a"), M)
    assert box.stat("/a")["sock"] == 0


# ---- the decisions behind it --------------------------------------------------------------------------------------

BALANCE = [  # LR-13: (swappiness, cost of anonymous pages, cost of file pages, share of the scan that is anonymous, %)
    (60, 0, 0, 30.0),
    (60, 0, 1000, 46.1),
    (60, 1000, 0, 17.5),
    (200, 0, 0, 100.0),
    (0, 0, 0, 0.0),
    (100, 0, 0, 50.0),
]


@pytest.mark.parametrize(("swappiness", "anon_cost", "file_cost", "share"), BALANCE)
def test_lr13_the_balance_of_a_scan(swappiness: int, anon_cost: int, file_cost: int, share: float) -> None:
    k = Box(memory="64M", swap="64M").kernel
    c = vmscan.begin(k, 0, 1)
    c["swappiness"], c["priority"], c["anon_cost"], c["file_cost"] = swappiness, 1, anon_cost, file_cost
    k.s.lruvecs[0]["nr"][:4] = 1 << 14  # lists that say they are long and hold nothing: all that happens is the plan
    r = rmap_walk.tables(k)
    shrink_lruvec(k.s, r, 0)
    anon, file = int(r.plan[4]), int(r.plan[6])
    assert abs(100 * anon / (anon + file) - share) < 0.1


INACTIVE = [  # LR-07: (GiB on both lists, how many times the inactive list the active one may be)
    (0.5, 1), (1, 3), (10, 10), (100, 31), (1024, 101),
]  # fmt: skip


@pytest.mark.parametrize(("size", "ratio"), INACTIVE)
def test_lr07_the_ratio_of_inactive_to_active(size: float, ratio: int) -> None:
    box = Box(memory="64M", swap="0")
    tree = box.kernel.s.lruvecs[0]["tree"]
    pages = int(size * (1 << 18))
    balanced = pages // (ratio + 1) + 1  # inactive * ratio >= active
    for inactive, low in ((balanced, False), (balanced - 2, True)):
        tree[2], tree[3] = inactive, pages - inactive
        assert bool(inactive_is_low(box.kernel.s, 0, 2)) is low


WINDOWS = [  # SW-02: (previous offset, offset, pages of the last window that were used, the last window, pages)
    (100, 500, 0, 0, 1),
    (100, 101, 0, 1, 2),
    (100, 99, 0, 1, 2),
    (100, 500, 1, 1, 4),
    (100, 500, 2, 1, 4),
    (100, 500, 3, 1, 8),
    (100, 500, 7, 8, 8),
    (100, 500, 0, 8, 4),
    (100, 500, 0, 4, 2),
]


@pytest.mark.parametrize(("previous", "offset", "hits", "last", "pages"), WINDOWS)
def test_sw02_the_window_of_a_swap_in(previous: int, offset: int, hits: int, last: int, pages: int) -> None:
    assert swap_readahead.nr_pages(previous, offset, hits, 8, last) == pages


# ---- memory.swap.high, mount options ------------------------------------------------------------------------------


def test_cg16_swap_above_swap_high_costs_time_and_never_kills() -> None:
    """memory.max 30M, 60M touched: half of it goes to swap; with swap.high 8M the excess is paid for, and freed early."""
    elapsed = {}
    for high in ("max", "8M"):
        box = Box(memory="512M", swap="256M")
        box.cgroup("/a", memory_max="30M", memory_swap_high=high)
        pid = box.spawn(cgroup="/a")
        found = box.alloc_anon(pid, 60 * M)
        assert found.signal is None
        elapsed[high] = found.elapsed_ns
        throttles = [event for event in box.kernel.drain() if event.type == "memcg" and event.kind == "throttle"]
        assert bool(throttles) == (high != "max") == (box.events("/a", "memory.swap.events")["high"] > 0)
        assert all(10_000_000 < event.delay_ns <= 2_000_000_000 for event in throttles)
        assert box.events("/a")["oom"] == 0
    assert elapsed["8M"] > 2 * elapsed["max"]


RECURSIVE = [  # (parent's protection, claims, usage, what each gets with memory_recursiveprot), M
    (50, (0, 0), (50, 50), (25, 25)),  # nobody claims: by usage
    (60, (20, 0), (40, 40), (33.33, 26.67)),  # 20, and of the other 40 a share by what is not protected: 20 and 40 of 60
    (50, (75, 25), (50, 50), (33.33, 16.67)),  # more is claimed than there is: as without
]


@pytest.mark.parametrize(("parent", "claims", "usage", "kept"), RECURSIVE)
def test_cg28_recursive_protection_shares_out_what_nobody_claims(
    parent: int, claims: tuple[int, ...], usage: tuple[int, ...], kept: tuple[float, ...]
) -> None:
    protected = sum(min(claim, used) for claim, used in zip(claims, usage, strict=True)) * M
    for claim, used, share in zip(claims, usage, kept, strict=True):
        got = memcontrol.effective_protection(used * M, sum(usage) * M, claim * M, parent * M, protected, recursive=True)
        assert abs(got / M - share) < 0.01


@pytest.mark.parametrize(("mount", "kept"), [([], False), (["memory_recursiveprot"], True)])
def test_a_childs_cache_is_protected_by_its_parents_min_only_with_recursiveprot(mount: list[str], kept: bool) -> None:
    box = Box(memory="512M", swap="0", cgroup_mount=mount)
    assert ("memory_recursiveprot" in box.text("/proc/mounts")) == kept
    box.cgroup("/A", memory_max="100M")
    box.cgroup("/A/p", memory_min="40M")
    box.cgroup("/A/p/child")
    box.cgroup("/A/free")
    box.pagecache(box.spawn(cgroup="/A/p/child"), "/data/kept", 40 * M)
    box.pagecache(box.spawn(cgroup="/A/free"), "/data/other", 200 * M)
    assert (box.cg_int("/A/p/child", "memory.current") > 36 * M) == kept


def test_localevents_keeps_events_where_they_happen() -> None:
    box = Box(memory="512M", swap="0", cgroup_mount=["memory_localevents"])
    box.cgroup("/p")
    box.cgroup("/p/c", memory_max="10M", memory_swap_max=0)
    box.alloc_anon(box.spawn(cgroup="/p/c"), 20 * M)
    assert box.events("/p/c")["oom_kill"] == 1
    assert box.events("/p") == dict.fromkeys(box.events("/p"), 0)
