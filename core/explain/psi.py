"""Who loses time to memory, what it was lost over, and how the averages follow from it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from core.sched import psi
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.sched.psi import PsiGroup

SHOWN = 100
MEANS = (10, 60, 300)
AVERAGE = (
    "every 2.004 s: percent = time lost / period; avg' = (avg * exp + percent * 2048 * (2048 - exp) [+ 2047 if it rises]) / 2048, "
    "exp = 1677, 1981, 2034 for 10, 60, 300 s, 1.0 = 2048"
)


def explain_psi(k: Kernel, pid: int) -> dict[str, Any]:
    """The memory pressure of a process's cgroup and of all above it: who stalls now, what was lost lately and over what, and the next average.

    stalls: the recorded ones of the process's own cgroup and those below the root that hold it, {begin_ns, end_ns, pid, cgroup, over, event}.
    groups: from the cgroup up to the root, each with its running, stalled and waiting tasks by processor, `some` and `full` in total
    and how the averages will move at the end of the present period. LookupError for an unknown pid.
    """
    task = find_task(k, pid)
    groups = [_group(k, group) for group in task.cgroup.ancestors]
    below = task.cgroup.path.rstrip("/") + "/"
    stalls = [row for row in k.records.stalls if (row["cgroup"] + "/").startswith(below)]
    return {"pid": pid, "cgroup": task.cgroup.path, "groups": groups, "stalls": stalls[-SHOWN:], "average_formula": AVERAGE}


def _group(k: Kernel, group: Cgroup) -> dict[str, Any]:
    """One account as it stands now."""
    account = copy.deepcopy(group.psi)
    account.advance(k.clock.now)
    total = account.collected()
    cpus = [
        {"cpu": number, "running": cpu.running, "stalled": cpu.memstall, "stalled_on_cpu": cpu.memstall_oncpu, "waiting_for_disk": cpu.iowait}
        for number, cpu in sorted(account.cpus.items()) if cpu.states
    ]  # fmt: skip
    kinds = {name: _average(k, account, total, 2 * psi.MEM + kind) for kind, name in enumerate(psi.NAMES)}
    return {"cgroup": group.path, "cpus": cpus, **kinds}


def _average(k: Kernel, account: PsiGroup, total: list[int], state: int) -> dict[str, Any]:
    """One state's mean, and what the present period will make of it if nothing more is lost."""
    period = account.next_update - account.last_update
    lost = min(total[state] - account.avg_total[state], period)
    percent = lost * 100 // period
    after = psi.calc_avgs(account.avg[state], 0, lost, period)
    return {
        "total_us": total[state] // 1000,
        **{f"avg{seconds}": psi.percent(load) for seconds, load in zip(MEANS, account.avg[state], strict=True)},
        "period": {
            "begin_ns": account.last_update, "end_ns": account.next_update, "lost_ns": lost, "percent": percent,
            **{f"avg{seconds}_then": psi.percent(load) for seconds, load in zip(MEANS, after, strict=True)},
        },
    }  # fmt: skip
