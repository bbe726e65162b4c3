"""Calls that begin, change and end processes, and time that passes: decode, validate, hand on to `core/sched`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core import monitor
from core.abi.errno import Errno, SysError
from core.abi.signal import SIGNALS
from core.mm import cpuset
from core.mm.util import RLIM_INFINITY, capable
from core.programs import program as programs
from core.sched import exec as image
from core.sched import task as sched

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

MAX_SIGNAL = 64
MAX_WORK = 1 << 23  # accesses and their like that programs may make in one advance


def sys_fork(k: Kernel, task: Task) -> dict[str, Any]:
    """fork: {pid} of the child. ENOMEM, EAGAIN."""
    child = sched.fork(k, task)
    image.run_user(k, task)
    return {"pid": child.pid}


def sys_exec(k: Kernel, task: Task, path: str) -> None:
    """execve. ENOMEM, ENOENT."""
    image.exec_program(k, task, path)
    programs.install(k, task, None)


def sys_exit(k: Kernel, task: Task, status: int = 0) -> None:
    """exit_group."""
    sched.do_exit(k, task, status & 0xFF)


def sys_kill(k: Kernel, task: Task, signal: str | int = "SIGTERM") -> None:
    """kill of the process itself. EINVAL."""
    number = signal if isinstance(signal, int) else SIGNALS.get(signal, -1)
    if not 0 <= number <= MAX_SIGNAL:
        raise SysError(Errno.EINVAL, f"{signal} is no signal")
    sched.send_signal(k, task, number)


def sys_wait(k: Kernel, task: Task, child: int = -1) -> dict[str, Any]:
    """wait4 with WNOHANG: {pid, status, signal}. ECHILD."""
    return sched.wait(k, task, child)


def sys_setrlimit(k: Kernel, task: Task, resource: str, limit: int | None = None) -> None:
    """setrlimit, soft and hard together: EPERM to raise a hard limit without CAP_SYS_RESOURCE."""
    if limit is not None and limit >= RLIM_INFINITY:
        limit = None
    old = task.rlimits.get(resource)
    raises = old is not None and (limit is None or limit > old)
    if raises and not capable(task):
        raise SysError(Errno.EPERM, "a hard limit cannot be raised without CAP_SYS_RESOURCE")
    task.rlimits[resource] = limit


def sys_prctl(k: Kernel, task: Task, option: str, name: str | None = None, value: int = 0) -> dict[str, Any] | None:
    """PR_SET_NAME, PR_SET_THP_DISABLE, PR_GET_THP_DISABLE."""
    if option == "set_name":
        if name is None:
            raise SysError(Errno.EFAULT, "set_name needs a name")
        task.comm = name.encode()[: sched.TASK_COMM_LEN - 1].decode(errors="ignore")
        return None
    assert task.mm is not None
    if option == "get_thp_disable":
        return {"value": int(task.mm.thp_disable)}
    task.mm.thp_disable = bool(value)
    return None


def sys_setuid(k: Kernel, task: Task, uid: int) -> None:
    """setuid: leaving uid 0 drops every capability. EPERM back."""
    if uid != task.uid and not capable(task):
        raise SysError(Errno.EPERM, "only root may become somebody else")
    task.uid = uid


def sys_sched_setaffinity(k: Kernel, task: Task, cpus: Sequence[int]) -> None:
    """sched_setaffinity: EINVAL if none of the CPUs exists, or the cpuset has none of them."""
    mine = cpuset.effective(k, task.cgroup)[0]
    there = sorted({cpu for cpu in cpus if cpu in mine})
    if not there:
        raise SysError(Errno.EINVAL, f"the process may use CPUs {', '.join(map(str, mine))} of this machine's 0 to {k.nr_cpus - 1}")
    cpuset.set_cpus_allowed(k, task, there)


# ---------------------------------------------------------------- by the operator


def spawn(k: Kernel, comm: str, cgroup: str = "/", oom_score_adj: int = 0, catch_signals: bool = False,
          program: str | dict[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
    """A new process: {pid}. `program`: the path of its executable, or what it does by itself.

    ENOENT (cgroup), EBUSY (cgroup is no leaf), ENOMEM, EAGAIN.
    """
    path = program if isinstance(program, str) else None
    task = image.spawn(k, comm, cgroup, oom_score_adj, catch_signals, path)
    if isinstance(program, dict):
        programs.install(k, task, program)
        monitor.arm(k)
    return {"pid": task.pid}


def sys_program(k: Kernel, task: Task, program: dict[str, Any] | str | None = None) -> None:
    """From now on the process runs this program by itself; None: it waits for calls again. EINVAL for a path: that is exec's."""
    if isinstance(program, str):
        raise SysError(Errno.EINVAL, "steps or a ready-made program by name, not a path: exec replaces the executable")
    programs.install(k, task, program)
    monitor.arm(k)


def vmstat(k: Kernel, interval: int | None = None) -> None:
    """How often a line of vmstat is taken; None: every second while programs run."""
    monitor.set_interval(k, -1 if interval is None else interval)


def advance(k: Kernel, duration_ns: int, max_work: int = MAX_WORK) -> dict[str, Any]:
    """Let time pass: {advanced_ns, work, stopped}.

    EDQUOT when programs used up `max_work` before it was over: the clock stands where they came, `stopped` says so.
    """
    passed = k.advance(duration_ns, max_work)
    answer: dict[str, Any] = {"advanced_ns": passed, "work": max_work - k.work_left, "stopped": None}
    if passed < duration_ns and k.panicked is None:
        why = f"the programs used up the work of one call ({max_work} accesses) after {passed / 1e9:.3f} s: advance again for the rest"
        raise SysError(Errno.EDQUOT, why, answer | {"stopped": why})
    return answer
