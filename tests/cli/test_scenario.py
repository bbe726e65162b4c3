"""The scenario language: what is read, what is refused, and that both targets are asked for the same."""

from __future__ import annotations

from typing import Any

import pytest

from app.inprocess import KernelTarget
from app.scenario import Region, Runner, ScenarioError, machine_of, nodes, pagemap_counts, parse, prot, size, touch_options
from app.target import Refused, fs_path, request_of

SIZES = [("0", 0), ("4096", 4096), ("0x1000", 4096), ("4K", 4096), ("64M", 64 << 20), ("1.5M", 3 << 19), ("2g", 2 << 30), ("3P", 12288)]


@pytest.mark.parametrize(("text", "value"), SIZES)
def test_sizes(text: str, value: int) -> None:
    assert size(text) == value


@pytest.mark.parametrize("text", ["", "K", "4X", "four", "4 K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ScenarioError, match="size"):
        size(text)


@pytest.mark.parametrize(("text", "value"), [("rw", "rw"), ("r", "r"), ("n", "none"), ("rwx", "rwx")])
def test_prot(text: str, value: str) -> None:
    assert prot(text) == value


@pytest.mark.parametrize(("text", "value"), [("1", [0]), ("3", [0, 1]), ("a", [1, 3]), ("0", [])])
def test_nodes(text: str, value: list[int]) -> None:
    assert nodes(text) == value


def test_touch_options() -> None:
    assert touch_options(["stride:4", "rev", "x:3"]) == {"stride": 4, "order": "reverse", "repeat": 3}
    with pytest.raises(ScenarioError, match="not an option"):
        touch_options(["sideways"])


def test_a_file() -> None:
    scenario = parse("#! mem=1G swap=0 thp=always\n#file f 32M\n# a remark\n\nspawn A\nA mmap h 4M rw private\nsnap s0\n")
    assert scenario.machine == {"memory": "1G", "swap": "0", "nodes": 1, "cpus": 2, "transparent_hugepage": "always"}
    assert scenario.files == (("/data/f", 32 << 20),)
    assert scenario.lines == ((5, "spawn A"), (6, "A mmap h 4M rw private"), (7, "snap s0"))


WRONG = [
    ("spawn", "line 1: spawn needs NAME"),
    ("spawn A\nA dance", "line 2: 'dance' is not something a process does"),
    ("frobnicate A", "line 1: 'frobnicate' is neither"),
    ("#file f", "line 1: #file needs"),
    ("spawn A\nA", "line 2: 'nothing'"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_line_is_named(text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message.replace("(", r"\(")):
        parse(text)


class Recorder:
    """A target that writes down what it is asked for and answers with addresses and pids."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.pids = iter(range(101, 200))

    def apply(self, op: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(op)
        results: dict[str, Any] = {"mmap": {"address": "0x7f0000000000"}, "brk": {"address": 0x500000}, "mremap": {"address": 0x7E0000000000}}
        result = {"pid": next(self.pids)} if op["op"] in ("spawn", "fork") else results.get(op["op"])
        return {"result": result, "errno": None, "signal": None, "faults": {"minor": 0, "major": 0}, "killed": []}

    def read(self, path: str) -> bytes:
        raise Refused(404, path, "ENOENT")

    def pread(self, path: str, offset: int, length: int) -> bytes:
        self.asked.append({"pread": path, "offset": offset, "length": length})
        return bytes(length)

    def live(self) -> set[int]:
        return set(range(101, 200))

    def close(self) -> None:
        self.asked.append({"closed": True})


H = 0x7F0000000000

LINES: list[tuple[str, list[dict[str, Any]]]] = [
    ("A mmap k 4M rw private", [{"op": "mmap", "pid": 101, "length": 4 << 20, "prot": "rw", "flags": ["private", "anonymous"]}]),
    ("A mmap k 4M n private,noreserve,align2m",
     [{"op": "mmap", "pid": 101, "length": 4 << 20, "prot": "none", "flags": ["private", "noreserve", "anonymous"], "align": 2 << 20}]),
    ("A mmap k 4M r shared /data/f 1M",
     [{"op": "mmap", "pid": 101, "length": 4 << 20, "prot": "r", "flags": ["shared"], "file": "/data/f", "offset": 1 << 20}]),
    ("A touch h 1M 2M w stride:2 rev x:3",
     [{"op": "touch", "pid": 101, "address": H + (1 << 20), "length": 2 << 20, "access": "write", "stride": 2, "order": "reverse", "repeat": 3}]),
    ("A touch h 0 4K r", [{"op": "touch", "pid": 101, "address": H, "length": 4096, "access": "read"}]),
    ("A fill h 0 4K 7", [{"op": "touch", "pid": 101, "address": H, "length": 4096, "access": "write", "fill": 7}]),
    ("A munmap h 0 1M", [{"op": "munmap", "pid": 101, "address": H, "length": 1 << 20}]),
    ("A munlock h", [{"op": "munlock", "pid": 101, "address": H, "length": 8 << 20}]),
    ("A mprotect h 0 1M n", [{"op": "mprotect", "pid": 101, "address": H, "length": 1 << 20, "prot": "none"}]),
    ("A madvise h 0 1M dontneed", [{"op": "madvise", "pid": 101, "address": H, "length": 1 << 20, "advice": "dontneed"}]),
    ("A mbind h 0 1M bind 2", [{"op": "mbind", "pid": 101, "address": H, "length": 1 << 20, "mode": "bind", "nodes": [1]}]),
    ("A mempolicy interleave 3", [{"op": "set_mempolicy", "pid": 101, "mode": "interleave", "nodes": [0, 1]}]),
    ("A mempolicy default", [{"op": "set_mempolicy", "pid": 101, "mode": "default", "nodes": []}]),
    ("A mremap h 16M", [{"op": "mremap", "pid": 101, "address": H, "old_length": 8 << 20, "new_length": 16 << 20, "may_move": True}]),
    ("A brk 1M", [{"op": "brk", "pid": 101, "increment": 1 << 20}]),
    ("A cpu 1", [{"op": "sched_setaffinity", "pid": 101, "cpus": [1]}]),
    ("A rlimit as 1G", [{"op": "setrlimit", "pid": 101, "resource": "as", "limit": 1 << 30}]),
    ("A read /data/f 0 1M", [{"op": "read", "pid": 101, "path": "/data/f", "offset": 0, "length": 1 << 20}]),
    ("A fsync /data/f", [{"op": "fsync", "pid": 101, "path": "/data/f"}]),
    ("A fadvise /data/f", [{"op": "fadvise", "pid": 101, "path": "/data/f", "advice": "dontneed"}]),
    ("A pagemap h 4K 8K", [{"pread": "/proc/101/pagemap", "offset": (H // 4096 + 1) * 8, "length": 16}]),
    ("A exit", [{"op": "exit", "pid": 101}]),
    ("kill A", [{"op": "kill", "pid": 101, "signal": "SIGKILL"}]),
    ("set /proc/sys/vm/swappiness 10", [{"op": "put", "path": "/proc/sys/vm/swappiness", "data": "10"}]),
    ("setproc A oom_score_adj 300", [{"op": "put", "path": "/proc/101/oom_score_adj", "data": "300"}]),
    ("sleep 0.5", [{"op": "advance", "duration_ns": 500_000_000}]),
    ("cg create /p/c",
     [{"op": "put", "path": "/sys/fs/cgroup/p/cgroup.subtree_control", "data": "+memory"}, {"op": "mkdir", "path": "/sys/fs/cgroup/p/c"}]),
    ("cg attach A /p", [{"op": "put", "path": "/sys/fs/cgroup/p/cgroup.procs", "data": "101"}]),
    ("cg write /p memory.max 50M", [{"op": "put", "path": "/sys/fs/cgroup/p/memory.max", "data": "50M"}]),
    ("cg rmdir /p", [{"op": "rmdir", "path": "/sys/fs/cgroup/p"}]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "asked"), LINES, ids=[line for line, _ in LINES])
def test_each_line_is_these_operations(line: str, asked: list[dict[str, Any]]) -> None:
    target = Recorder()
    runner = Runner(parse("spawn A\nA mmap h 8M rw private\n"), target)
    for _ in runner.run():
        pass
    assert runner.actors["A"].regions == {"h": Region(H, 8 << 20)}
    target.asked.clear()
    parse(line)
    runner.step(line)
    assert target.asked == asked


def test_a_child_knows_its_parents_regions() -> None:
    runner = Runner(parse("spawn A\nA mmap h 8M rw private\nA fork B\nB mremap h 4M\n"), Recorder())
    for _ in runner.run():
        pass
    assert runner.actors["B"].pid == 102
    assert runner.actors["A"].regions["h"] == Region(H, 8 << 20)
    assert runner.actors["B"].regions["h"] == Region(0x7E0000000000, 4 << 20)


def test_the_dead_do_nothing() -> None:
    runner = Runner(parse("spawn A\nA exit\nA brk 4K\n"), Recorder())
    steps = list(runner.run())
    assert (steps[1].failed, steps[1].dead) == (False, False)
    assert (steps[2].failed, steps[2].dead, steps[2].op) == (True, True, None)


def test_an_unknown_region_is_enoent() -> None:
    steps = list(Runner(parse("spawn A\nA munmap nothing 0 4K\n"), Recorder()).run())
    assert steps[1].errno == "ENOENT"


def test_pagemap_counts() -> None:
    raw = b"".join(entry.to_bytes(8, "little") for entry in (1 << 63 | 1 << 56 | 42, 1 << 62, 1 << 63 | 1 << 61, 1 << 55, 0))
    assert pagemap_counts(raw) == {"present": 2, "swapped": 1, "file": 1, "exclusive": 1, "softdirty": 1}


ROUTES = [
    ({"op": "spawn", "comm": "a"}, ("POST", "/processes", {"comm": "a"})),
    ({"op": "touch", "pid": 7, "address": 1}, ("POST", "/processes/7/touch", {"address": 1})),
    ({"op": "mkdir", "path": "/sys/fs/cgroup/a"}, ("MKCOL", "/fs/sys/fs/cgroup/a", None)),
    ({"op": "rmdir", "path": "/sys/fs/cgroup/a b"}, ("DELETE", "/fs/sys/fs/cgroup/a%20b", None)),
    ({"op": "create_file", "path": "/data/f", "size": 1}, ("POST", "/files", {"path": "/data/f", "size": 1})),
    ({"op": "advance", "duration_ns": 5}, ("POST", "/clock", {"advance": 5})),
]


@pytest.mark.parametrize(("op", "route"), ROUTES)
def test_routes(op: dict[str, Any], route: tuple[str, str, Any]) -> None:
    found = request_of(op)
    assert (found.method, found.path, found.json) == route


def test_put_is_text() -> None:
    found = request_of({"op": "put", "path": "/sys/fs/cgroup/a/memory.max", "data": "50M"})
    assert (found.method, found.path, found.content) == ("PUT", fs_path("/sys/fs/cgroup/a/memory.max"), b"50M")


# ---- on a real kernel ------------------------------------------------------------------------------------------


def test_in_process() -> None:
    text = (
        "#! mem=256M swap=0\nspawn A\ncg create /t\ncg attach A /t\nA mmap h 4M rw private\nA touch h 0 2M w\nA fork B\n"
        "B touch h 0 1M w\nA pagemap h 0 4M\nA mprotect h 0 4K r\nA touch h 0 4K w\nA munmap h 0 8M\nsnap s\n"
    )
    scenario = parse(text)
    runner = Runner(scenario, KernelTarget(scenario.machine))
    steps = {step.line: step for step in runner.run()}
    assert steps["A touch h 0 2M w"].faults("minor") == 512
    assert steps["B touch h 0 1M w"].faults("minor") == 256
    assert steps["A pagemap h 0 4M"].values["present"] == 512
    assert steps["A touch h 0 4K w"].signal == "SIGSEGV"
    assert not steps["A touch h 0 4K w"].dead
    files = steps["snap s"].files
    assert files is not None
    assert {"/proc/A/status", "/proc/B/smaps_rollup", "/proc/meminfo", "/sys/fs/cgroup/t/memory.stat"} <= files.keys()


def test_a_refused_write_shows_its_errno() -> None:
    scenario = parse("#! mem=256M swap=0\nspawn A\ncg create /t\ncg write /t memory.max lots\n")
    steps = list(Runner(scenario, KernelTarget(scenario.machine)).run())
    assert (steps[-1].failed, steps[-1].errno) == (True, "EINVAL")


def test_a_machine_that_cannot_be() -> None:
    with pytest.raises(Refused) as refused:
        KernelTarget(machine_of({"mem": "3K", "swap": "0", "nodes": "1", "cpus": "2", "thp": "never"}))
    assert refused.value.status == 422
