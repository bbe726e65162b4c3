"""Processes: what a program weighs, what fork copies, how processes end and who learns of it."""

from __future__ import annotations

from typing import Any

import pytest

from core import Kernel, Machine
from core.mm.mm_types import MM_ANONPAGES, MM_SHMEMPAGES
from core.vmstat import EVENT

M = 1 << 20
KB = 1024


@pytest.fixture
def k() -> Kernel:
    return Kernel.boot(Machine.from_dict({"memory": "128M"}))


def spawn(k: Kernel, **more: Any) -> int:
    return int(k.call("spawn", **{"comm": "p", "catch_signals": False, **more}).result["pid"])


def fork(k: Kernel, pid: int) -> int:
    return int(k.call("fork", pid).result["pid"])


def kb(k: Kernel, pid: int, key: str) -> int:
    text = k.read(f"/proc/{pid}/status").decode()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:")))


# ---------------------------------------------------------------- the program


def test_a_fresh_process_weighs_what_the_recorded_one_did(k: Kernel) -> None:
    pid = spawn(k)
    sizes = {key: kb(k, pid, key) for key in ("VmSize", "VmRSS", "RssAnon", "RssShmem", "VmData", "VmStk", "VmExe", "VmPTE")}
    assert sizes == {"VmSize": 1392, "VmRSS": 1368, "RssAnon": 648, "RssShmem": 720, "VmData": 508, "VmStk": 132, "VmExe": 544, "VmPTE": 28}


def test_a_programs_own_pages_are_active_after_one_look() -> None:
    """It began with mlockall, which marks all as accessed: what reclaim then finds in use was used twice. Recorded kernels activated 160."""
    k = Kernel.boot(Machine.from_dict({"memory": "64M", "swap": "64M"}))
    pid = spawn(k)
    own = kb(k, pid, "RssAnon") // 4
    address = k.call("mmap", pid, length=40 << 20, prot="rw", flags=["private", "anonymous"]).result["address"]
    k.call("touch", pid, address=address, length=40 << 20, access="write")
    assert own - 10 <= int(k.s.vm_event[EVENT["pgactivate"]]) <= own == 162


def test_the_program_lies_where_the_recorded_one_did(k: Kernel) -> None:
    starts = [line.split()[0] + " " + line.split()[1] for line in k.read(f"/proc/{spawn(k)}/maps").decode().splitlines()]
    assert starts == [
        "00400000-00401000 r--p", "00401000-00489000 r-xp", "00489000-004b2000 r--p", "004b2000-004b6000 r--p", "004b6000-004b9000 rw-p",
        "004b9000-00535000 rw-p", "7ffff7ff9000-7ffff7ffd000 r--p", "7ffff7ffd000-7ffff7fff000 r-xp", "7ffffffde000-7ffffffff000 rw-p",
    ]  # fmt: skip


def test_all_processes_share_one_program_file(k: Kernel) -> None:
    shmem = k.view("audit")["frames"]["cache"]
    for _ in range(5):
        spawn(k)
    assert k.view("audit")["frames"]["cache"] == shmem


def test_start_up_faults_are_not_the_users(k: Kernel) -> None:
    pid = spawn(k)
    assert (k.tasks[pid].minflt, k.tasks[pid].majflt) == (0, 0)
    k.drain()
    child = fork(k, pid)
    answer = k.call("mmap", child, length=4096, prot="rw", flags=["private", "anonymous"])
    assert (answer.minor, answer.major) == (0, 0)
    assert not [event for event in k.drain() if event.type == "fault"]


def test_a_child_has_its_parents_memory_and_less_of_the_file(k: Kernel) -> None:
    """Anonymous pages are shared by page table; file pages are faulted in again as the child runs: to where it waits, then with its first call."""
    pid = spawn(k)
    child = fork(k, pid)
    rss = k.s.mms["rss"][k.tasks[child].mm.id]  # type: ignore[union-attr]
    assert (int(rss[MM_ANONPAGES]), int(rss[MM_SHMEMPAGES])) == (162, 2 + 32)
    for process in (pid, child):  # of stack, data and heap each has written six pages, or the other has: they are shared no more
        assert "Private_Dirty:        24 kB" in k.read(f"/proc/{process}/smaps_rollup").decode()
    k.call("mmap", child, length=4096, prot="rw", flags=["private", "anonymous"])
    assert int(rss[MM_SHMEMPAGES]) * 4 == 644
    k.verify()


# ---------------------------------------------------------------- fork, exec, exit, wait


def test_fork_inherits(k: Kernel) -> None:
    pid = spawn(k, oom_score_adj=123, catch_signals=True)
    k.call("setrlimit", pid, resource="as", limit=1 << 30)
    k.call("sched_setaffinity", pid, cpus=[1])
    child, parent = k.tasks[fork(k, pid)], k.tasks[pid]
    for name in ("oom_score_adj", "catch_signals", "rlimits", "cpu", "cpus_allowed", "comm", "cgroup", "exe"):
        assert getattr(child, name) == getattr(parent, name), name
    assert (child.ppid, parent.children) == (pid, [child.pid])
    assert (child.minflt, child.cminflt) == (0, 0)


def test_fork_that_fails_leaves_nothing(k: Kernel) -> None:
    """vm.overcommit_memory 2 refuses the child's promises."""
    pid = spawn(k)
    k.call("mmap", pid, length=20 * M, prot="rw", flags=["private", "anonymous"])
    k.call("put", path="/proc/sys/vm/overcommit_memory", data=b"2")
    k.call("put", path="/proc/sys/vm/overcommit_ratio", data=b"25")
    before = (int(k.s.zones["free"].sum()), k.committed_pages, len(k.mms), k.next_pid)
    assert k.call("fork", pid).errno == "ENOMEM"
    assert (int(k.s.zones["free"].sum()), k.committed_pages, len(k.mms), k.next_pid) == before
    k.verify()


def test_exec_starts_over_but_keeps_what_exec_keeps(k: Kernel) -> None:
    pid = spawn(k, oom_score_adj=5, catch_signals=True)
    address = k.call("mmap", pid, length=8 * M, prot="rw", flags=["private", "anonymous"]).result["address"]
    k.call("touch", pid, address=address, length=8 * M, access="write")
    assert k.call("exec", pid, path="/usr/bin/worker").errno is None
    task = k.tasks[pid]
    assert (task.comm, task.oom_score_adj, task.catch_signals, task.minflt) == ("worker", 5, False, 2048)
    assert (kb(k, pid, "VmRSS"), kb(k, pid, "VmHWM"), kb(k, pid, "VmPeak")) == (1368, 1368, 1392)
    assert "/usr/bin/worker" in k.read(f"/proc/{pid}/maps").decode()
    k.verify()


def test_exit_gives_everything_back(k: Kernel) -> None:
    spawn(k)  # so that the program's pages are there
    free = int(k.s.zones["free"].sum())
    pid = spawn(k)
    address = k.call("mmap", pid, length=8 * M, prot="rw", flags=["private", "anonymous"]).result["address"]
    k.call("touch", pid, address=address, length=8 * M, access="write")
    child = fork(k, pid)
    k.call("touch", child, address=address, length=8 * M, access="write")
    for who in (pid, child):
        k.call("exit", who)
    assert int(k.s.zones["free"].sum()) == free
    assert not [event for event in k.drain() if event.type == "oom"]


def test_a_zombie_waits_for_its_parent(k: Kernel) -> None:
    pid = spawn(k)
    child = fork(k, pid)
    k.call("exit", child, status=7)
    assert k.tasks[child].state == "zombie"
    assert child not in k.root_cgroup.pids
    with pytest.raises(LookupError, match="is dead"):
        k.call("touch", child, address=0, length=4096)
    assert k.call("wait", pid).result == {"pid": child, "status": 7, "signal": 0}
    assert child not in k.tasks
    assert k.call("wait", pid).errno == "ECHILD"


def test_wait_does_not_block(k: Kernel) -> None:
    pid = spawn(k)
    fork(k, pid)
    assert k.call("wait", pid).result == {"pid": 0, "status": 0, "signal": 0}


def test_a_childs_faults_are_added_when_it_is_waited_for(k: Kernel) -> None:
    pid = spawn(k)
    child = fork(k, pid)
    address = k.call("mmap", child, length=M, prot="rw", flags=["private", "anonymous"]).result["address"]
    k.call("touch", child, address=address, length=M, access="write")
    k.call("exit", child)
    assert k.tasks[pid].cminflt == 0
    k.call("wait", pid)
    assert k.tasks[pid].cminflt == 256


def test_orphans_become_inits(k: Kernel) -> None:
    """p forks q, q forks r; q dies a zombie of p, p dies: q is reaped by init, r lives on as init's child."""
    p = spawn(k)
    q = fork(k, p)
    r = fork(k, q)
    k.call("exit", q)
    assert k.tasks[r].ppid == 1
    k.call("exit", p)
    assert sorted(k.tasks) == [1, r]
    assert k.tasks[1].children == [r]
    k.verify()


def test_unknown_processes_are_a_lookup_error(k: Kernel) -> None:
    for pid in (4242, None):
        with pytest.raises(LookupError):
            k.call("fork", pid)


# ---------------------------------------------------------------- signals

SIGNALS = [
    # signal, catches, state afterwards (None: gone), killed
    ("SIGKILL", True, None, True),
    ("SIGTERM", False, None, True),
    ("SIGSEGV", False, None, True),
    ("SIGSEGV", True, "sleeping", False),
    ("SIGBUS", True, "sleeping", False),
    ("SIGSTOP", False, "stopped", False),
    ("SIGCHLD", False, "sleeping", False),
]


@pytest.mark.parametrize(("name", "catches", "state", "killed"), SIGNALS)
def test_default_actions(k: Kernel, name: str, catches: bool, state: str | None, killed: bool) -> None:
    pid = spawn(k, catch_signals=catches)
    answer = k.call("kill", pid, signal=name)
    assert answer.killed == ([pid] if killed else [])
    assert (k.tasks[pid].state if pid in k.tasks else None) == state


def test_a_stopped_process_continues(k: Kernel) -> None:
    pid = spawn(k)
    k.call("kill", pid, signal="SIGSTOP")
    k.call("kill", pid, signal="SIGCONT")
    assert k.tasks[pid].state == "sleeping"


def test_init_takes_no_signal(k: Kernel) -> None:
    assert k.call("kill", 1, signal="SIGKILL").killed == []
    assert k.tasks[1].state == "sleeping"


@pytest.mark.parametrize(("catches", "alive"), [(True, True), (False, False)])
def test_a_bad_access_kills_who_does_not_catch_it(k: Kernel, catches: bool, alive: bool) -> None:
    pid = spawn(k, catch_signals=catches)
    answer = k.call("touch", pid, address=0x1000, length=4096, access="write")
    assert (answer.signal, answer.fault_address, answer.killed) == ("SIGSEGV", 0x1000, [] if alive else [pid])
    assert (pid in k.tasks) is alive
    assert any("segfault at 1000" in line[3] for line in k.dmesg) is not alive
    k.verify()
