"""The OOM killer: points, choice, report, and what happens when there is nobody to choose."""

from __future__ import annotations

from typing import Any

import pytest

from core import Kernel, Machine
from core.mm import oom_kill

M = 1 << 20
GIB8 = 2097152  # pages of 8 GiB

# points in pages of an 8 GiB machine without swap -> /proc/<pid>/oom_score
SCORES = [(0, 666), (262144, 750), (1048576, 1000), (2097152, 1333), (None, 0)]
# oom_score_adj of an otherwise empty process on that machine -> score
BY_ADJ = [(-999, 1), (-500, 334), (-100, 600), (100, 732), (500, 999), (1000, 1332)]


@pytest.mark.parametrize(("points", "score"), SCORES)
def test_score_from_points(points: int | None, score: int) -> None:
    assert oom_kill.oom_score(points, GIB8) == score


@pytest.mark.parametrize(("adj", "score"), BY_ADJ)
def test_score_from_adj(adj: int, score: int) -> None:
    assert oom_kill.oom_score(adj * (GIB8 // 1000), GIB8) == score


def machine(**more: Any) -> Kernel:
    return Kernel.boot(Machine.from_dict({"memory": "64M", **more}))


def spawn(k: Kernel, adj: int = 0, comm: str = "p") -> int:
    return int(k.call("spawn", comm=comm, oom_score_adj=adj, catch_signals=True).result["pid"])


def write(k: Kernel, pid: int, size: int) -> Any:
    address = k.call("mmap", pid, length=size, prot="rw", flags=["private", "anonymous", "noreserve"]).result["address"]
    return k.call("touch", pid, address=address, length=size, access="write")


def sysctl(k: Kernel, name: str, value: int) -> None:
    assert k.call("put", path=f"/proc/sys/vm/{name}", data=str(value).encode()).errno is None


def log(k: Kernel) -> list[str]:
    return [line[3] for line in k.dmesg]


def kills(k: Kernel) -> list[int]:
    return [event.victim for event in k.drain() if event.type == "oom"]  # type: ignore[attr-defined]


def test_the_largest_dies() -> None:
    k = machine()
    big, other = spawn(k), spawn(k)
    free = int(k.s.zones["free"].sum()) * 4096
    write(k, big, free * 4 // 10)
    assert write(k, other, free * 3 // 10).killed == []
    answer = write(k, spawn(k, comm="last"), free * 35 // 100)
    assert answer.killed == [big]
    assert kills(k) == [big]
    k.verify()


def test_adj_outweighs_size() -> None:
    k = machine()
    small, big = spawn(k, adj=900), spawn(k)
    write(k, big, 10 * M)
    assert small in write(k, big, 64 * M).killed


def test_among_equals_the_later_one_dies() -> None:
    k = machine()
    pids = [spawn(k, adj=500) for _ in range(3)]
    hungry = spawn(k, adj=-500)
    assert write(k, hungry, 64 * M).killed[:3] == pids[::-1]


def test_minus_1000_and_init_never_die() -> None:
    k = machine()
    spawn(k, adj=-1000)
    assert write(k, spawn(k, adj=-1000), 64 * M).errno in ("ENOMEM", "EIO")
    assert k.panicked == "System is deadlocked on memory"
    assert log(k)[-2:] == ["Out of memory and no killable processes...", "Kernel panic - not syncing: System is deadlocked on memory"]
    assert len(k.tasks) == 3


def test_after_a_panic_files_can_be_read_and_calls_fail() -> None:
    k = machine()
    sysctl(k, "panic_on_oom", 1)
    pid = spawn(k)
    assert write(k, pid, 64 * M).killed == []
    assert k.panicked == "Out of memory: system-wide panic_on_oom is enabled"
    assert k.call("mmap", pid, length=4096).errno == "EIO"
    assert b"MemTotal" in k.read("/proc/meminfo")
    assert b"panic_on_oom is enabled" in k.read("/dev/kmsg")


@pytest.mark.parametrize(("mode", "panics"), [(1, False), (2, True)])
def test_panic_on_oom_and_cgroups(mode: int, panics: bool) -> None:
    k = machine()
    sysctl(k, "panic_on_oom", mode)
    k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    k.call("mkdir", path="/sys/fs/cgroup/a")
    k.call("put", path="/sys/fs/cgroup/a/memory.max", data=b"2M")
    pid = spawn(k)
    k.call("put", path="/sys/fs/cgroup/a/cgroup.procs", data=str(pid).encode())
    write(k, pid, 4 * M)
    assert (k.panicked is not None) is panics
    assert (pid in k.tasks) is panics


def test_the_allocating_task_can_be_made_to_die() -> None:
    k = machine()
    sysctl(k, "oom_kill_allocating_task", 1)
    big = spawn(k)
    write(k, big, 10 * M)
    asking = spawn(k)
    assert write(k, asking, 64 * M).killed == [asking]
    assert any(line.startswith("Out of memory (oom_kill_allocating_task): Killed process") for line in log(k))
    assert big in k.tasks


def test_the_killed_count_in_vmstat_and_freed_memory() -> None:
    k = machine()
    free = int(k.s.zones["free"].sum())
    pid = spawn(k)
    write(k, pid, 64 * M)
    assert pid not in k.tasks
    assert b"oom_kill 1\n" in k.read("/proc/vmstat")
    assert int(k.s.zones["free"].sum()) == free
    reaped = [event for event in k.drain() if event.type == "oom_reap"]
    assert len(reaped) == 1
    assert reaped[0].to_dict()["by"] == "exit"


REPORT = [
    "p invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, oom_score_adj=0",
    "CPU: 0 PID: 101 Comm: p Not tainted",
    "Hardware name: ",
    "Call Trace:",
    " <TASK>",
    " dump_stack_lvl",
    " dump_header",
    " oom_kill_process.cold",
    " out_of_memory",
    " __alloc_pages_slowpath.constprop.0",
    " __alloc_pages",
    " __folio_alloc",
    " vma_alloc_folio",
    " __handle_mm_fault",
    " handle_mm_fault",
    " do_user_addr_fault",
    " exc_page_fault",
    " asm_exc_page_fault",
    " </TASK>",
    "Mem-Info:",
    "active_anon:",
    "Node 0 active_anon:",
    "Node 0 DMA free:",
    "lowmem_reserve[]: 0 ",
    "Node 0 DMA32 free:",
    "lowmem_reserve[]: 0 0 0 0 0",
    "Node 0 DMA: ",
    "Node 0 DMA32: ",
    "Node 0 hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=1048576kB",
    "Node 0 hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB",
    "185 total pagecache pages",
    "0 pages in swap cache",
    "Free swap  = 0kB",
    "Total swap = 0kB",
    "16248 pages RAM",
    "0 pages HighMem/MovableOnly",
    "",
    "0 pages hwpoisoned",
    "Tasks state (memory values in pages):",
    "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    "[    101]     0   101 ",
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=p,pid=101,uid=0",
    "Out of memory: Killed process 101 (p) total-vm:66928kB, anon-rss:",
]


def test_the_report_line_by_line() -> None:
    k = machine()
    write(k, spawn(k), 64 * M)
    text = log(k)
    at = next(i for i, line in enumerate(text) if "invoked oom-killer" in line)
    for expected, line in zip(REPORT, text[at:], strict=True):
        assert line.startswith(expected)


ZEROED = "0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO)"
FILLED = "0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP)"
TABLES = "0x400dc0(GFP_KERNEL_ACCOUNT|__GFP_ZERO)"
# what fills the memory, one access a page unless it says otherwise -> what the request that failed was for (the copy: recorded, compact_direct)
REQUESTS: list[tuple[str, list[dict[str, Any]], str]] = [
    ("a first write", [{"access": "write"}], ZEROED),
    ("a write after a read", [{"access": "read"}, {"access": "write"}], ZEROED),
    ("a copy after fork", [{"access": "write", "pages": 5000}, {"op": "fork"}, {"access": "write", "pages": 5000}], FILLED),
    ("page tables of a sparse mapping", [{"access": "read", "stride": 512}], TABLES),
]


@pytest.mark.parametrize(("steps", "mask"), [pytest.param(steps, mask, id=name) for name, steps, mask in REQUESTS])
def test_the_mask_says_what_the_failed_request_was_for(steps: list[dict[str, Any]], mask: str) -> None:
    k = machine()
    pid = spawn(k)
    length = 64 << 30 if mask == TABLES else 60 * M
    address = k.call("mmap", pid, length=length, prot="rw", flags=["private", "anonymous", "noreserve"]).result["address"]
    for step in steps:
        args = dict(step)
        if args.pop("op", "touch") == "fork":
            k.call("fork", pid)
            continue
        pages = args.pop("pages", length // 4096)
        k.call("touch", pid, address=address, length=pages * 4096, **args)
    assert [line for line in log(k) if "invoked oom-killer" in line] == [f"p invoked oom-killer: gfp_mask={mask}, order=0, oom_score_adj=0"]


def test_explain_shows_the_terms_and_the_rule_of_thumb() -> None:
    k = machine()
    pid = spawn(k, adj=100)
    write(k, pid, 4 * M)
    answer = k.view("explain_oom", pid=pid)
    terms = answer["terms"]
    total = answer["totalpages"]
    assert terms["rss"] == int(k.read(f"/proc/{pid}/statm").split()[1])
    assert abs(terms["rss"] - (342 + 1024)) <= 64  # counts that the task keeps to itself
    assert terms["adj_term"] == 100 * (total // 1000)
    assert terms["points"] == terms["rss"] + terms["swap"] + terms["pgtables"] + terms["adj_term"]
    assert terms["oom_score"] == int(k.read(f"/proc/{pid}/oom_score"))
    assert answer["approximation"]["points"] == terms["rss"]
    assert answer["rank"] == 1
    assert k.view("explain_oom", pid=1)["why_not"] == "init and kernel threads are never killed"
    with pytest.raises(LookupError):
        k.view("explain_oom", pid=4242)


def test_explain_answers_for_the_dead() -> None:
    k = machine()
    pid = spawn(k, adj=100)
    write(k, pid, 64 * M)
    answer = k.view("explain_oom", pid=pid)
    kill = k.view("oom")[0]
    assert answer["killed"] == kill and kill["pid"] == pid and answer["last_oom"]["victim"] == pid
    terms, total = answer["terms"], answer["last_oom"]["totalpages"]
    assert terms["points"] == terms["rss"] + terms["swap"] + terms["pgtables"] + 100 * (total // 1000)
    assert answer["approximation"]["difference"] == terms["points"] - terms["rss"] - terms["swap"] // 2
    with pytest.raises(LookupError, match=f"event {kill['event']}: see .*/processes/{pid}/explain/oom"):
        k.view("explain_psi", pid=pid)
