"""cpusets: which CPUs and which nodes the processes of a cgroup may use (kernel/cgroup/cpuset.c).

    cpuset.cpus, cpuset.mems             what is asked for; empty: whatever the parent has
    cpuset.cpus.effective, mems.effective    what is had: what is asked for and the parent has, or, if that is nothing, what the parent has

Worked example, two nodes: /a asks for mems 0-1, /a/b for 1: /a/b has 1. /a changes to 0: /a/b has 0, because 1 and 0 have nothing in common.

`mems` bounds everything: a policy names only nodes of the cpuset, and follows when they change (the n-th old node becomes the n-th new one, static
and relative policies are computed anew). Pages of user memory and of the page cache come from these nodes or not at all: when they are full the OOM
killer looks for CONSTRAINT_CPUSET among those who may have memory there. What the kernel needs for itself comes from them if it can, else from
anywhere.

On a change, and when a process moves to a cgroup with other nodes, its pages move along (version 2 always does so: CS_MEMORY_MIGRATE).

Simplified: partitions are not simulated (`member` only); the pages of the page cache that a process has read stay where they are, as in Linux.

Source: kernel/cgroup/cpuset.c:update_nodemask, update_cpumask, cpuset_attach, __cpuset_node_allowed; mm/mempolicy.c:mpol_rebind_policy; fact NU-12.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from core.mm import memcontrol, numa_migrate
from core.sched import fair

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mempolicy import Mempolicy
    from core.sched.task import Task

Sets = tuple[list[int], list[int]]  # CPUs, nodes


def owner(cg: Cgroup) -> Cgroup:
    """The cgroup whose cpuset holds for the processes of this one: the nearest with the controller."""
    while cg.parent is not None and "cpuset" not in cg.controllers:
        cg = cg.parent
    return cg


def effective(k: Kernel, cg: Cgroup) -> Sets:
    """The CPUs and nodes that a cgroup's processes may use."""
    at = owner(cg)
    if at.parent is None:
        return list(range(k.nr_cpus)), list(range(k.nr_nodes))
    cpus, mems = effective(k, at.parent)
    return [cpu for cpu in at.cpus if cpu in cpus] or cpus, [node for node in at.mems if node in mems] or mems


def node_mask(k: Kernel, nodes: Iterable[int]) -> int:
    """Nodes as bits; 0 stands for all of them."""
    mask = sum(1 << node for node in nodes)
    return 0 if mask == (1 << k.nr_nodes) - 1 else mask


def mems_allowed(k: Kernel, task: Task) -> list[int]:
    """The nodes that a process may have memory from."""
    return [node for node in range(k.nr_nodes) if not task.mems or task.mems >> node & 1]


def below(k: Kernel, cg: Cgroup) -> list[tuple[Task, Cgroup, Sets]]:
    """The processes of a cgroup and those below, each with its cpuset and what that has."""
    found = []
    for at in memcontrol.subtree(k, cg):
        tasks = [k.tasks[pid] for pid in at.pids if pid in k.tasks and k.tasks[pid].state not in ("zombie", "dead")]
        if tasks:
            sets = effective(k, at)
            found += [(task, owner(at), sets) for task in tasks]
    return found


def refresh(k: Kernel, before: list[tuple[Task, Cgroup, Sets]]) -> None:
    """After a change of the tree: every process whose cpuset is another, or has other sets now, follows."""
    for task, old_owner, (cpus, mems) in before:
        now_cpus, now_mems = effective(k, task.cgroup)
        another = owner(task.cgroup) is not old_owner
        if another or now_cpus != cpus:
            set_cpus_allowed(k, task, now_cpus)
        if now_mems != mems:
            change_mems(k, task, now_mems)


def join(k: Kernel, task: Task) -> None:
    """A new program in a cgroup: it has no pages to move."""
    cpus, mems = effective(k, task.cgroup)
    set_cpus_allowed(k, task, cpus)
    task.mems = node_mask(k, mems)


def set_cpus_allowed(k: Kernel, task: Task, cpus: Sequence[int]) -> None:
    """The process runs on these CPUs only, on the first of them if it has to move."""
    task.cpus_allowed = list(cpus)
    fair.affinity_changed(k, task)
    if task.cpu not in cpus:
        task.cpu = cpus[0]


def change_mems(k: Kernel, task: Task, nodes: list[int]) -> None:
    """The process may have memory on these nodes only: policies follow, pages move (cpuset_change_task_nodemask, cpuset_migrate_mm)."""
    old = mems_allowed(k, task)
    task.mems = node_mask(k, nodes)
    task.policy = rebind(task.policy, old, nodes)
    if task.mm is None:
        return
    for vma in task.mm.vmas:
        vma.policy = rebind(vma.policy, old, nodes)
    numa_migrate.do_migrate_pages(k, task, old, nodes, everybody=True)


def rebind(policy: Mempolicy | None, old: list[int], new: list[int]) -> Mempolicy | None:
    """A policy on other nodes (mpol_rebind_policy): static ones keep what they can, relative ones are folded, others are renumbered."""
    if policy is None or not policy.nodes or policy.mode == "preferred":
        return policy
    if policy.how == "static":
        nodes = [node for node in policy.asked if node in new]
    elif policy.how == "relative":
        nodes = [new[node % len(new)] for node in policy.asked]
    else:
        nodes = [numa_migrate.remap(node, old, new) if node in old else node for node in policy.nodes]
    return replace(policy, nodes=tuple(sorted(set(nodes))) or tuple(new))
