"""Programs that run by themselves: their steps do what the calls do, they compete, and all of it is deterministic."""

from __future__ import annotations

import random
from typing import Any

import pytest

from core import Kernel, parse_program
from core.programs.ready import READY
from tests.peer.box import ANON, PAGE, Box, M

SECOND = 1_000_000_000
MS = 1_000_000


def start(box: Box, steps: Any, comm: str = "p", **args: Any) -> int:
    return box.spawn(comm, program=parse_program(steps), **args)


def advance(box: Box, ns: int = SECOND, **args: Any) -> Any:
    answer = box.kernel.call("advance", duration_ns=ns, **args)
    box.kernel.verify()
    return answer


def shown(box: Box, pid: int) -> dict[str, Any]:
    return dict(box.kernel.view("process", pid=pid))


def alive(box: Box, pid: int) -> bool:
    return pid in box.kernel.tasks


@pytest.fixture
def box() -> Box:
    return Box(memory="256M", swap="64M")


# ---- steps -----------------------------------------------------------------------------------------------------------


def test_a_leak_grows_with_the_clock(box: Box) -> None:
    pid = start(box, {"name": "leak", "parameters": {"rate": "2M", "interval": "100ms"}})
    before = shown(box, pid)["rss_bytes"]
    advance(box)
    assert shown(box, pid)["rss_bytes"] - before == pytest.approx(20 * M, abs=2 * M)
    assert shown(box, pid)["minflt"] >= 9 * 2 * M // PAGE


def test_steps_are_the_calls(box: Box) -> None:
    """The same faults, mappings and counters as a client's calls."""
    steps = [{"op": "map", "region": "a", "length": "4M"}, {"op": "touch", "region": "a", "access": "write"},
             {"op": "advise", "region": "a", "advice": "dontneed", "length": "1M"}, {"op": "touch", "region": "a", "length": "2M"},
             {"op": "sleep", "time": "1h"}]  # fmt: skip
    by_itself = start(box, steps)
    advance(box)
    by_call = box.spawn("c")
    address = box.mmap(by_call, 4 * M)
    box.touch(by_call, address, 4 * M)
    box.ok(by_call, "madvise", address=address, length=M, advice="dontneed")
    box.touch(by_call, address, 2 * M, "read")
    seen = [shown(box, pid) for pid in (by_itself, by_call)]
    assert [one["minflt"] for one in seen] == [1024 + 256] * 2
    assert seen[0]["rss_bytes"] == seen[1]["rss_bytes"]


def test_files_are_read_round_and_round_and_written(box: Box) -> None:
    steps = [{"op": "file", "path": "/data/in", "size": "1M"},
             {"op": "loop", "times": 3, "steps": [{"op": "read", "path": "/data/in", "length": "700K"}]},
             {"op": "write", "path": "/data/out", "length": "3M", "size": "2M"}, {"op": "fsync", "path": "/data/out"},
             {"op": "sleep", "time": "1h"}]  # fmt: skip
    start(box, steps)
    advance(box)
    files = {row["path"]: row for row in box.kernel.view("files")}
    assert files["/data/in"]["cached_bytes"] == M
    assert (files["/data/out"]["size"], files["/data/out"]["dirty_bytes"]) == (2 * M, 0)


def test_a_forked_child_does_its_steps_and_is_waited_for(box: Box) -> None:
    steps = [{"op": "map", "region": "a", "length": "1M"}, {"op": "touch", "region": "a", "access": "write"},
             {"op": "loop", "times": 2, "steps": [
                 {"op": "fork", "steps": [{"op": "touch", "region": "a", "access": "write"}, {"op": "sleep", "time": "1s"}]}]},
             {"op": "sleep", "time": "1500ms"}, {"op": "wait"}, {"op": "sleep", "time": "1h"}]  # fmt: skip
    pid = start(box, steps)
    advance(box)
    children = [task for task in box.kernel.tasks.values() if task.ppid == pid]
    assert len(children) == 2
    assert all(task.minflt >= 256 for task in children)
    advance(box)
    assert [task for task in box.kernel.tasks.values() if task.ppid == pid] == []
    exits = [event for event in box.kernel.drain() if event.type == "process" and event.to_dict()["kind"] == "exit"]
    assert [event.to_dict()["code"] for event in exits] == [0, 0]


def test_after_its_last_step_a_program_exits_or_stays(box: Box) -> None:
    gone, stays = start(box, [{"op": "compute", "time": "1ms"}]), start(box, {"steps": [{"op": "compute", "time": "1ms"}], "at_end": "stay"})
    advance(box)
    assert not alive(box, gone)
    assert shown(box, stays)["program"] is None
    assert box.touch(stays, box.mmap(stays, M), M).errno is None


@pytest.mark.parametrize(("on_error", "lives"), [("exit", False), ("continue", True)])
def test_a_refused_step(box: Box, on_error: str, lives: bool) -> None:
    pid = start(box, [{"op": "read", "path": "/data/none", "length": 1, "on_error": on_error}, {"op": "sleep", "time": "1h"}])
    advance(box)
    assert alive(box, pid) == lives
    told = [event.to_dict() for event in box.kernel.drain() if event.type == "program"]
    assert [(row["kind"], row.get("errno")) for row in told] == [("start", None), ("error", "ENOENT")]


@pytest.mark.parametrize("catch", [True, False])
def test_a_signal_of_its_own_making(box: Box, catch: bool) -> None:
    steps = [{"op": "map", "region": "a", "length": "64K", "prot": "r"}, {"op": "touch", "region": "a", "access": "write"},
             {"op": "sleep", "time": "1h"}]  # fmt: skip
    pid = start(box, steps, catch_signals=catch)
    advance(box)
    assert alive(box, pid) == catch


@pytest.mark.parametrize("order", ["random", "zipf", "hot-cold", "working-set", "sequential"])
def test_orders_touch_what_they_say(box: Box, order: str) -> None:
    touch = {"op": "touch", "region": "a", "accesses": 64, "order": order, "access": "write", "window": "64K", "slide": "16K", "work": "1us"}
    pid = start(box, [{"op": "map", "region": "a", "length": "4M"}, {"op": "loop", "times": 4, "steps": [touch]}, {"op": "sleep", "time": "1h"}])
    advance(box)
    pages = shown(box, pid)["minflt"]
    assert {"sequential": pages == 256, "working-set": 16 < pages <= 28}.get(order, 64 < pages < 256), pages
    assert shown(box, pid)["utime_ns"] >= 4 * 64 * 1000


def test_a_share_of_writes(box: Box) -> None:
    touch = {"op": "touch", "region": "a", "accesses": 100, "order": "random", "write_percent": 25}
    pid = start(box, [{"op": "map", "region": "a", "length": "64M"}, {"op": "loop", "times": 20, "steps": [touch]}, {"op": "sleep", "time": "1h"}])
    advance(box)
    anon = sum(event.to_dict()["pages"] for event in box.kernel.drain() if event.type == "fault" and event.to_dict()["kind"] in ("anon", "cow"))
    assert 400 < anon <= 520
    assert shown(box, pid)["minflt"] > 1500


# ---- calls on them ---------------------------------------------------------------------------------------------------


def test_a_program_can_be_given_and_taken_away(box: Box) -> None:
    pid = box.spawn()
    box.ok(pid, "program", program=parse_program([{"op": "loop", "steps": [{"op": "compute", "time": "1ms"}]}]))
    advance(box)
    used = shown(box, pid)["utime_ns"]
    assert used == pytest.approx(SECOND, rel=0.01)
    box.ok(pid, "program")
    advance(box)
    assert shown(box, pid)["utime_ns"] == used
    assert shown(box, pid)["state"] == "sleeping"
    assert box.call(pid, "program", program="/bin/sh").errno == "EINVAL"


def test_stop_continue_kill(box: Box) -> None:
    pid = start(box, [{"op": "loop", "steps": [{"op": "compute", "time": "10ms"}, {"op": "sleep", "time": "10ms"}]}])
    advance(box)
    box.ok(pid, "kill", signal="SIGSTOP")
    used = shown(box, pid)["utime_ns"]
    advance(box)
    assert (shown(box, pid)["state"], shown(box, pid)["utime_ns"]) == ("stopped", used)
    box.ok(pid, "kill", signal="SIGCONT")
    advance(box)
    assert shown(box, pid)["utime_ns"] > used
    box.call(pid, "kill", signal="SIGKILL")
    assert not alive(box, pid)
    advance(box)


def test_time_passes_for_programs_while_a_client_calls(box: Box) -> None:
    """150 MiB of first touches, 38,400 of 0.8 us, take some 31 ms on cpu 0; the program has cpu 1 meanwhile, give or take a slice of 12 ms."""
    pid = start(box, [{"op": "loop", "steps": [{"op": "compute", "time": "1ms"}]}])
    client = box.spawn("client")
    before, clock = shown(box, pid)["utime_ns"], box.kernel.clock_ns
    box.alloc_anon(client, 150 * M, ANON)
    took = box.kernel.clock_ns - clock
    assert took > 25 * MS
    assert shown(box, pid)["utime_ns"] - before == pytest.approx(took, abs=13 * MS)
    box.kernel.verify()


def test_a_fork_by_a_client_copies_the_program(box: Box) -> None:
    pid = start(box, [{"op": "loop", "steps": [{"op": "compute", "time": "1ms"}]}])
    child = box.ok(pid, "fork")["pid"]
    advance(box)
    assert shown(box, child)["utime_ns"] > SECOND // 2
    box.ok(child, "exec", path="/bin/other")
    assert shown(box, child)["program"] is None
    advance(box)


def test_work_is_limited(box: Box) -> None:
    start(box, [{"op": "map", "region": "a", "length": "1M"}, {"op": "loop", "steps": [{"op": "touch", "region": "a"}]}])
    clock = box.kernel.clock_ns
    answer = advance(box, 60 * SECOND, max_work=10_000)
    assert answer.errno == "EDQUOT"
    assert "advance again" in answer.result["stopped"]
    assert 0 < answer.result["advanced_ns"] < SECOND
    assert box.kernel.clock_ns - clock == pytest.approx(answer.result["advanced_ns"], abs=1000)
    assert 10_000 <= answer.result["work"] < 20_000


def test_steps_that_take_no_time_end_too(box: Box) -> None:
    start(box, [{"op": "loop", "steps": [{"op": "compute", "time": 0}]}])
    assert advance(box, SECOND, max_work=5000).errno == "EDQUOT"


# ---- under pressure --------------------------------------------------------------------------------------------------


def test_the_oom_killer_ends_a_leak_and_the_others_go_on() -> None:
    box = Box(memory="128M", swap="16M")
    leak = start(box, {"name": "leak", "parameters": {"rate": "8M", "interval": "50ms"}}, "leak")
    other = start(box, {"name": "db-buffer-pool", "parameters": {"pool": "16M"}}, "db")
    answer = advance(box, 2 * SECOND)
    assert answer.killed == [leak]
    assert alive(box, other)
    kills = [event.to_dict() for event in box.kernel.drain() if event.type == "oom"]
    assert [row["victim"] for row in kills] == [leak]
    advance(box)


def five(seed: int = 0) -> Box:
    box = Box(memory="128M", swap=[{"size": "128M", "kind": "disk"}])
    sizes: dict[str, dict[str, Any]] = {"leak": {"rate": "2M"}, "db-buffer-pool": {"pool": "24M"}, "web-workers": {"arena": "4M", "shared": "4M"},
                                        "batch-scan": {"size": "48M"}, "jvm": {"heap": "24M", "nursery": "8M", "collect_every": 40}}  # fmt: skip
    for name, parameters in sizes.items():
        start(box, {"name": name, "parameters": parameters, "seed": seed}, name)
    return box


def story(kernel: Kernel, seconds: int) -> list[dict[str, Any]]:
    events = []
    for _ in range(seconds):
        kernel.call("advance", duration_ns=SECOND)
        events += [event.to_dict() for event in kernel.drain()]
    return events


def test_two_runs_are_the_same_and_go_on_from_a_snapshot() -> None:
    one, two = five(), five()
    first = story(one.kernel, 5)
    assert first == story(two.kernel, 5)
    assert one.kernel.digest() == two.kernel.digest()
    twin = Kernel.restore(one.kernel.snapshot())
    assert story(one.kernel, 3) == story(twin, 3)
    assert one.kernel.digest() == twin.digest()
    assert one.kernel.read("/proc/pressure/memory") == twin.read("/proc/pressure/memory")
    one.kernel.verify()


def test_events_come_in_order_of_time_whenever_they_are_taken() -> None:
    eager, late = five(), five()
    events = story(eager.kernel, 5)
    for _ in range(5):
        late.kernel.call("advance", duration_ns=SECOND)
    assert events == [event.to_dict() for event in late.kernel.drain()]
    times = [event["clock_ns"] for event in events]
    assert times == sorted(times)
    assert times[-1] <= eager.kernel.clock_ns
    assert {"fault", "reclaim", "swap_out"} <= {event["type"] for event in events}


def test_a_host_may_take_events_while_time_passes() -> None:
    one, two = five(), five()
    parts: list[dict[str, Any]] = []
    two.kernel.pause = lambda: parts.extend(event.to_dict() for event in two.kernel.drain())
    for box in (one, two):
        box.kernel.call("advance", duration_ns=6 * SECOND)
    two.kernel.pause = None
    whole = [event.to_dict() for event in one.kernel.drain()]
    assert len(parts) >= 1024
    assert parts + [event.to_dict() for event in two.kernel.drain()] == whole
    assert one.kernel.digest() == two.kernel.digest()


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_keep_the_books(seed: int) -> None:
    """Whatever programs do, by themselves and between calls, every invariant holds after each second."""
    rng = random.Random(seed)
    box = Box(memory="96M", swap=rng.choice(["0", "64M"]), cpus=rng.choice([1, 2, 4]))
    box.cgroup("/limited", memory_max="24M")
    pids = [start(box, some_program(rng), f"p{n}", cgroup=rng.choice(["/", "/limited"]), catch_signals=rng.random() < 0.3) for n in range(4)]
    for _ in range(4):
        advance(box, rng.randrange(1, SECOND), max_work=200_000)
        pid = rng.choice(pids)
        if alive(box, pid):
            box.call(pid, "kill", signal=rng.choice(["SIGSTOP", "SIGCONT", "SIGTERM", "SIGCHLD"]))
        if alive(box, pid):
            box.call(pid, "sched_setaffinity", cpus=[0])
            box.kernel.call("put", path="/sys/fs/cgroup/cgroup.procs", data=str(pid).encode())
        box.kernel.verify()


def some_program(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.3:
        return {"name": rng.choice(list(READY)), "seed": rng.randrange(1000)}
    steps: list[dict[str, Any]] = [
        {"op": "touch", "region": "a", "order": rng.choice(["random", "zipf", "hot-cold", "working-set", "sequential"]),
         "accesses": rng.randrange(1, 5000),
         "write_percent": rng.randrange(101), "work": rng.randrange(3000), "slide": "64K", "on_error": "continue"},
        {"op": "grow", "length": rng.randrange(1, 4 * M), "on_error": "continue"},
        {"op": "write", "path": "/data/w", "length": rng.randrange(1, M), "order": rng.choice(["random", "sequential"])},
        {"op": "read", "path": "/data/w", "length": rng.randrange(1, M), "on_error": "continue"},
        {"op": "fork", "steps": [{"op": "touch", "region": "a", "access": "write", "on_error": "continue"}, {"op": "sleep", "time": "20ms"}]},
        {"op": "wait"}, {"op": "compute", "time": "3ms"}, {"op": "think", "time": "5ms"}, {"op": "advise", "region": "a", "advice": "pageout"},
    ]  # fmt: skip
    rng.shuffle(steps)
    body = [{"op": "map", "region": "a", "length": rng.randrange(1, 24 * M)}, {"op": "write", "path": "/data/w", "length": "64K"}, *steps[:6]]
    return {"steps": [{"op": "loop", "times": rng.randrange(4), "steps": [*body, {"op": "unmap", "region": "a"}]}], "seed": rng.randrange(1000)}
