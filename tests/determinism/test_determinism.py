"""The same machine, seed and calls give the same bytes: ten times over, alone or in company, whole or resumed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from core import FsError, Kernel, Machine
from tests.peer.box import ANON, PAGE, M

RUNS = 10
MACHINES: dict[str, dict[str, Any]] = {
    "small": {"memory": "256M", "swap": "64M"},
    "two nodes": {"memory": "512M", "nodes": 2, "cpus": 4},
}
PROCESS_FILES = ("maps", "smaps", "smaps_rollup", "status", "stat", "statm", "numa_maps", "oom_score", "limits", "cgroup")
MACHINE_FILES = (
    "/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo", "/proc/buddyinfo", "/proc/swaps", "/proc/pressure/memory",
    "/proc/stat", "/proc/uptime", "/proc/version", "/dev/kmsg", "/sys/devices/system/node/node0/meminfo",
    "/sys/devices/system/node/node0/numastat", "/sys/fs/cgroup/box/memory.stat", "/sys/fs/cgroup/box/memory.events",
)  # fmt: skip


def story(kernel: Kernel) -> Iterator[Any]:
    """A life with something of everything; yields each answer."""

    def call(op: str, pid: int | None = None, **args: Any) -> Any:
        return kernel.call(op, pid, **args)

    call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    call("mkdir", path="/sys/fs/cgroup/box")
    call("put", path="/sys/fs/cgroup/box/memory.max", data=b"24M")
    call("create_file", path="/data/f", size=8 * M)
    a = call("spawn", comm="a", catch_signals=True).result["pid"]
    yield a
    address = call("mmap", a, length=32 * M, prot="rw", flags=ANON).result["address"]
    yield call("touch", a, address=address, length=32 * M, access="write", order="random", seed=11)
    yield call("touch", a, address=address, length=32 * M, access="write", order="zipf", seed=12)
    b = call("fork", a).result["pid"]
    yield call("touch", b, address=address, length=8 * M, access="write", order="reverse")
    yield call("touch", a, address=address, length=16 * M, access="write", stride=3)
    mapped = call("mmap", a, length=8 * M, prot="rw", flags=["shared"], file="/data/f").result["address"]
    yield call("touch", a, address=mapped, length=4 * M, access="write")
    yield call("touch", a, address=0, length=PAGE, access="read")
    yield call("msync", a, address=mapped, length=8 * M)
    yield call("advance", duration_ns=3 * 10**9)
    yield call("mprotect", a, address=address, length=M, prot="r")
    yield call("madvise", a, address=address + 4 * M, length=M, advice="dontneed")
    c = call("spawn", comm="c", cgroup="/box").result["pid"]
    hog = call("mmap", c, length=64 * M, prot="rw", flags=ANON).result["address"]
    yield call("touch", c, address=hog, length=64 * M, access="write", order="random", seed=5)
    yield call("exit", b)
    yield call("wait", a)
    d = call("spawn", comm="d").result["pid"]
    big = call("mmap", d, length=512 * M, prot="rw", flags=[*ANON, "noreserve"]).result["address"]
    yield call("touch", d, address=big, length=512 * M, access="write")


def files(kernel: Kernel) -> dict[str, bytes]:
    """Every text that the machine shows."""
    pids = [name for name in kernel.listdir("/proc") if name.isdigit()]
    paths = [*MACHINE_FILES, *(f"/proc/{pid}/{name}" for pid in pids for name in PROCESS_FILES)]
    found = {}
    for path in paths:
        try:
            found[path] = kernel.read(path)
        except FsError as error:
            found[path] = str(error.errno).encode()
    return found


def live(machine: str, seed: int = 42) -> dict[str, bytes]:
    """One life: its answers, events, files, snapshot's digest."""
    kernel = Kernel.boot(Machine.from_dict(MACHINES[machine]), seed)
    answers = [repr(answer) for answer in story(kernel)]
    events = [json.dumps(event.to_dict(), sort_keys=True) for event in kernel.drain()]
    assert len(events) > 10
    return {
        **files(kernel),
        "answers": "\n".join(answers).encode(),
        "events": "\n".join(events).encode(),
        "digest": kernel.digest().encode(),
        "snapshot": hashlib.sha256(kernel.snapshot()).hexdigest().encode(),
        "clock": str(kernel.clock_ns).encode(),
    }


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.mark.parametrize("machine", MACHINES)
def test_ten_runs(machine: str) -> None:
    first = live(machine)
    for _ in range(RUNS - 1):
        assert different(first, live(machine)) == []


def test_in_step_with_another() -> None:
    """Two kernels that take turns are as alone."""
    alone = live("small")
    one, two = (Kernel.boot(Machine.from_dict(MACHINES["small"]), 42) for _ in range(2))
    answers: list[list[str]] = [[], []]
    for a, b in zip(story(one), story(two), strict=True):
        answers[0].append(repr(a))
        answers[1].append(repr(b))
    assert answers[0] == answers[1]
    for kernel in (one, two):
        kernel.drain()
    assert one.digest() == two.digest() == alone["digest"].decode()


def test_who_listens_is_no_part_of_history() -> None:
    """A host that takes the events after each call, one that takes them at the end, one that never does."""
    eager, late, deaf = (Kernel.boot(Machine.from_dict(MACHINES["small"]), 42) for _ in range(3))
    events: list[Any] = []
    for _ in story(eager):
        events += eager.drain()
    for kernel in (late, deaf):
        for _ in story(kernel):
            pass
    assert [event.to_dict() for event in late.drain()] == [event.to_dict() for event in [*events, *eager.drain()]]
    assert eager.digest() == late.digest() == deaf.digest()


HASH_SEEDS = ("0", "1", "4711")


def test_another_process_with_another_hash_seed() -> None:
    """Nothing depends on the order of a set or the address of an object."""
    script = (
        "from tests.determinism.test_determinism import live\n"
        "import hashlib\n"
        "found = live('small')\n"
        "print(hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest())\n"
    )
    digests = set()
    for seed in HASH_SEEDS:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment(seed), timeout=120
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def environment(seed: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}


@pytest.mark.parametrize("at", [1, 5, 9, 13])
def test_resumed_from_a_snapshot(at: int) -> None:
    """A kernel that goes on from a snapshot's copy ends where the one that never stopped does."""
    whole = Kernel.boot(Machine.from_dict(MACHINES["small"]), 42)
    steps = story(whole)
    for _ in range(at):
        next(steps)
    copy = Kernel.restore(whole.snapshot())
    assert copy.digest() == whole.digest()
    pid = whole.call("spawn", comm="late").result["pid"]  # type: ignore[index]
    assert copy.call("spawn", comm="late").result == {"pid": pid}
    for kernel in (whole, copy):
        address = kernel.call("mmap", pid, length=8 * M, prot="rw", flags=ANON).result["address"]  # type: ignore[index]
        kernel.call("touch", pid, address=address, length=8 * M, access="write", order="random", seed=1)
        kernel.call("advance", duration_ns=10**9)
    assert copy.digest() == whole.digest()
    assert different(files(copy), files(whole)) == []


def test_another_seed_is_another_history() -> None:
    """The seed is used, or said to be unused: the digest at least tells the machines apart."""
    assert live("small", 1)["digest"] != live("small", 2)["digest"]


def test_the_digest_sees_every_change() -> None:
    kernel = Kernel.boot(Machine.from_dict(MACHINES["small"]), 0)
    seen = [kernel.digest()]
    for _ in story(kernel):
        seen.append(kernel.digest())
    assert len(set(seen)) == len(seen)
