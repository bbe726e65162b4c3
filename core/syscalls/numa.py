"""Calls on NUMA policy and placement: decode, hand on to `core/mm/mempolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT, PAGE_SIZE
from core.mm import numa_migrate
from core.mm.mempolicy import do_mbind, do_set_mempolicy, make_policy
from core.mm.smaps import NUMA_NODES, gather_numa
from core.mm.util import capable
from core.mm.vma import vmas_between

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task


def sys_mbind(k: Kernel, task: Task, address: int, length: int, mode: str, nodes: Sequence[int] = (), flags: Sequence[str] = ()) -> None:
    """mbind. EINVAL, EFAULT; EPERM (move_all without CAP_SYS_NICE); EIO: with strict, a page lies on another node.

    strict alone refuses before anything changes; with move the policy is set, pages move, and EIO says that some could not.
    """
    make_policy(k, task, mode, nodes, flags)
    if "move_all" in flags and not capable(task):
        raise SysError(Errno.EPERM, "moving pages that others map, too, needs CAP_SYS_NICE")
    moving = mode != "default" and not {"move", "move_all"}.isdisjoint(flags)
    strict = mode != "default" and "strict" in flags
    if strict and not moving and _misplaced(k, task, address, length, set(nodes)):
        raise SysError(Errno.EIO, "a page of the range lies on a node that the policy does not name")
    do_mbind(k, task, address, length, mode, nodes, flags)
    if moving:
        first, last = address >> PAGE_SHIFT, (address + length + PAGE_SIZE - 1) >> PAGE_SHIFT
        if numa_migrate.move_misplaced(k, task, first, last, nodes, everybody="move_all" in flags) and strict:
            raise SysError(Errno.EIO, "pages of the range could not be moved")


def _misplaced(k: Kernel, task: Task, address: int, length: int, nodes: set[int]) -> bool:
    """Does the range hold a page on any other node (queue_pages_range with MPOL_MF_INVERT)?"""
    assert task.mm is not None
    start, end = address >> PAGE_SHIFT, (address + length + PAGE_SIZE - 1) >> PAGE_SHIFT
    counts = np.zeros(NUMA_NODES + k.nr_nodes, np.int64)
    pgd = int(k.s.mms["pgd"][task.mm.id])
    for vma in vmas_between(task.mm, start, end):
        gather_numa(k.s, pgd, max(vma.start, start), min(vma.end, end), counts)
    return any(counts[NUMA_NODES + node] for node in range(k.nr_nodes) if node not in nodes)


def sys_set_mempolicy(k: Kernel, task: Task, mode: str, nodes: Sequence[int] = (), flags: Sequence[str] = ()) -> None:
    """set_mempolicy. EINVAL."""
    do_set_mempolicy(k, task, mode, nodes, flags)


def sys_migrate_pages(k: Kernel, task: Task, old_nodes: Sequence[int], new_nodes: Sequence[int]) -> dict[str, Any]:
    """migrate_pages: {not_moved}. EINVAL. With CAP_SYS_NICE the pages that others map move, too."""
    return {"not_moved": numa_migrate.do_migrate_pages(k, task, old_nodes, new_nodes, everybody=capable(task))}


def sys_move_pages(k: Kernel, task: Task, address: int, pages: Sequence[int], nodes: Sequence[int] | None = None,
                   flags: Sequence[str] = ()) -> dict[str, Any]:  # fmt: skip
    """move_pages: {status, not_moved}, the node of each page or -errno, in order. EINVAL (lengths differ), ENODEV (no such node), EACCES (not in the
    cpuset), EPERM (move_all without CAP_SYS_NICE).
    """
    vpns = [(address >> PAGE_SHIFT) + page for page in pages]
    if "move_all" in flags and not capable(task):
        raise SysError(Errno.EPERM, "moving pages that others map, too, needs CAP_SYS_NICE")
    if nodes is None:
        return _statuses(numa_migrate.do_pages_stat(k, task, vpns), len(vpns))
    if len(nodes) != len(vpns):
        raise SysError(Errno.EINVAL, "one node for each page")
    if any(node >= k.nr_nodes for node in nodes):
        raise SysError(Errno.ENODEV, f"no such node: this machine has nodes 0 to {k.nr_nodes - 1}")
    if task.mems and any(not task.mems >> node & 1 for node in nodes):
        raise SysError(Errno.EACCES, "a node is not in the process's cpuset")
    return _statuses(numa_migrate.do_pages_move(k, task, vpns, nodes, everybody="move_all" in flags), len(vpns))


def _statuses(status: list[int], asked: int) -> dict[str, Any]:
    """What was found out, and about how many pages nothing was, because the call ended before."""
    return {"status": " ".join(map(str, status)), "not_moved": asked - len(status)}
