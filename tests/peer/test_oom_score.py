"""oom_score and the choice of a victim (mm/oom_kill.c:oom_badness, fs/proc/base.c:proc_oom_score)."""

from __future__ import annotations

import pytest

from tests.peer.box import Box, M

# Badness in pages of a machine of 2,097,152 pages (8 GiB, no swap), and the score shown: the kernel's own arithmetic.
TOTAL = 2_097_152
VECTORS = [(0, 666), (262_144, 750), (1_048_576, 1000), (2_097_152, 1333)]
ADJUSTED = [(-1000, 0), (-999, 1), (-500, 334), (-100, 600), (100, 732), (500, 999), (1000, 1332)]


def truncated(a: int, b: int) -> int:
    """C's division."""
    return abs(a) // b * (1 if a >= 0 else -1)


def score(badness: int, total: int) -> int:
    """proc_oom_score() of a badness."""
    return truncated((1000 + truncated(badness * 1000, total)) * 2, 3)


@pytest.mark.parametrize(("badness", "shown"), VECTORS)
def test_oom06_the_formula(badness: int, shown: int) -> None:
    assert score(badness, TOTAL) == shown


@pytest.mark.parametrize(("adj", "shown"), ADJUSTED)
def test_oom06_the_formula_adjusted(adj: int, shown: int) -> None:
    assert (0 if adj == -1000 else score(adj * (TOTAL // 1000), TOTAL)) == shown


def total_pages(box: Box) -> int:
    info = box.meminfo()
    return (info["MemTotal"] + info["SwapTotal"]) // 4


def badness(box: Box, pid: int, adj: int = 0) -> int:
    """oom_badness() from what /proc shows."""
    status = box.status(pid)
    return (status["VmRSS"] + status["VmSwap"] + status["VmPTE"]) // 4 + adj * (total_pages(box) // 1000)


@pytest.mark.parametrize("swap", ["0", "512M"])
@pytest.mark.parametrize("size", [0, 64 * M, 256 * M])
@pytest.mark.parametrize("adj", [-1000, -999, -500, -100, 0, 100, 500, 1000])
def test_oom05_the_file(size: int, adj: int, swap: str) -> None:
    box = Box(memory="1G", swap=swap)
    pid = box.spawn(oom_score_adj=adj)
    if size:
        box.alloc_anon(pid, size)
    want = 0 if adj == -1000 else max(score(badness(box, pid, adj), total_pages(box)), 0)
    assert int(box.text(f"/proc/{pid}/oom_score")) == want
    assert box.text(f"/proc/{pid}/oom_score_adj") == f"{adj}\n"


def test_oom05_an_idle_process_of_a_large_machine_shows_666() -> None:
    box = Box(memory="8G", swap="0")
    assert box.text(f"/proc/{box.spawn()}/oom_score") == "666\n"


def test_oom07_the_score_is_not_the_groups() -> None:
    box = Box(memory="1G", swap="0")
    box.cgroup("/a", memory_max="64M")
    inside, outside = box.spawn(cgroup="/a"), box.spawn()
    for pid in (inside, outside):
        box.alloc_anon(pid, 32 * M)
    assert box.text(f"/proc/{inside}/oom_score") == box.text(f"/proc/{outside}/oom_score")


@pytest.mark.parametrize("value", ["-1001", "1001", "x", "1.5"])
def test_oom12_out_of_range_is_einval(value: str) -> None:
    box = Box(memory="512M")
    assert box.put(f"/proc/{box.spawn()}/oom_score_adj", value) == "EINVAL"


def test_oom12_inherited_by_fork_and_kept_by_exec() -> None:
    box = Box(memory="512M")
    pid = box.spawn(oom_score_adj=321)
    child = int(box.ok(pid, "fork")["pid"])
    box.ok(child, "exec", path="/bin/true")
    assert box.text(f"/proc/{child}/oom_score_adj") == "321\n"


# Processes of a machine of 256M: (size, adj) of each in order, the index of the victim when another wants 200M more.
SELECTION = [
    ("the largest", [(48 * M, 0), (16 * M, 0)], 3),
    ("an adjusted one", [(48 * M, 0), (16 * M, 900)], 1),
    ("not an immune one", [(64 * M, -1000), (16 * M, 0)], 3),
]


@pytest.mark.parametrize(("others", "victim"), [row[1:] for row in SELECTION], ids=[row[0] for row in SELECTION])
def test_oom08_selection(others: list[tuple[int, int]], victim: int) -> None:
    box = Box(memory="256M", swap="0")
    pids = []
    for size, adj in others:
        pids.append(box.spawn("other", oom_score_adj=adj))
        box.alloc_anon(pids[-1], size)
    hungry = box.spawn("hungry")
    found = box.use_up(hungry)
    first = found.killed[0]
    assert first == (pids[victim] if victim < len(pids) else hungry)
    assert box.vmstat()["oom_kill"] == len(found.killed)
    assert all(box.alive(pid) for pid, (_, adj) in zip(pids, others, strict=True) if adj == -1000)


def test_oom17_nobody_to_kill_is_a_panic() -> None:
    box = Box(memory="256M", swap="0")
    pid = box.spawn(oom_score_adj=-1000)
    box.use_up(pid)
    assert box.kernel.panicked
    log = box.text("/dev/kmsg")
    assert "Out of memory and no killable processes" in log
    assert "System is deadlocked on memory" in log
    assert box.meminfo()["MemTotal"] > 0


def test_oom15_panic_on_oom() -> None:
    box = Box(memory="256M", swap="0")
    box.set("/proc/sys/vm/panic_on_oom", 1)
    box.use_up(box.spawn())
    assert box.kernel.panicked
    assert "system-wide panic_on_oom is enabled" in box.text("/dev/kmsg")


def test_oom16_kill_the_allocating_task() -> None:
    box = Box(memory="256M", swap="0")
    box.set("/proc/sys/vm/oom_kill_allocating_task", 1)
    large = box.spawn("large", oom_score_adj=500)
    box.alloc_anon(large, 64 * M)
    small = box.spawn("small")
    assert box.use_up(small).killed == [small]
    assert box.alive(large)
    assert "Out of memory (oom_kill_allocating_task)" in box.text("/dev/kmsg")
