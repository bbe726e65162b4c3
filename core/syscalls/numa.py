"""Calls on NUMA policy and placement: decode, hand on to `core/mm/mempolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT, PAGE_SIZE
from core.mm import numa_migrate, pgtable
from core.mm.mempolicy import do_mbind, do_set_mempolicy, make_policy
from core.mm.page_alloc import page_zone
from core.mm.smaps import NUMA_NODES, gather_numa
from core.mm.vma import vma_lookup, vmas_between

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task


def sys_mbind(k: Kernel, task: Task, address: int, length: int, mode: str, nodes: Sequence[int] = (), flags: Sequence[str] = ()) -> None:
    """mbind. EINVAL, EFAULT; EPERM (move_all without CAP_SYS_NICE); EIO: with strict, a page lies on another node.

    strict alone refuses before anything changes; with move the policy is set, pages move, and EIO says that some could not.
    """
    make_policy(k, task, mode, nodes, flags)
    if "move_all" in flags and task.uid:
        raise SysError(Errno.EPERM, "moving pages that others map, too, needs CAP_SYS_NICE")
    moving = mode != "default" and not {"move", "move_all"}.isdisjoint(flags)
    strict = mode != "default" and "strict" in flags
    if strict and not moving and _misplaced(k, task, address, length, set(nodes)):
        raise SysError(Errno.EIO, "a page of the range lies on a node that the policy does not name")
    do_mbind(k, task, address, length, mode, nodes, flags)
    if moving:
        first, last = address >> PAGE_SHIFT, (address + length + PAGE_SIZE - 1) >> PAGE_SHIFT
        if numa_migrate.move_misplaced(k, task, first, last, nodes) and strict:
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
    """migrate_pages: {not_moved}. EINVAL."""
    return {"not_moved": numa_migrate.do_migrate_pages(k, task, old_nodes, new_nodes)}


def sys_move_pages(k: Kernel, task: Task, address: int, pages: Sequence[int], nodes: Sequence[int] | None = None) -> dict[str, Any]:
    """move_pages: {status}, the node of each page or -errno, in order. EINVAL (lengths differ), ENODEV (no such node)."""
    vpns = [(address >> PAGE_SHIFT) + page for page in pages]
    if nodes is None:
        return {"status": " ".join(str(_node_of(k, task, vpn)) for vpn in vpns)}
    if len(nodes) != len(vpns):
        raise SysError(Errno.EINVAL, "one node for each page")
    if any(node >= k.nr_nodes for node in nodes):
        raise SysError(Errno.ENODEV, f"no such node: this machine has nodes 0 to {k.nr_nodes - 1}")
    return {"status": " ".join(str(_move(k, task, vpn, node)) for vpn, node in zip(vpns, nodes, strict=True))}


def _move(k: Kernel, task: Task, vpn: int, node: int) -> int:
    """The node of a page after it was told to move there; -EACCES if others map it, too, -EBUSY if it stayed."""
    there = _node_of(k, task, vpn)
    if there < 0 or there == node:
        return there
    assert task.mm is not None
    pte = pgtable.entry(k, task.mm, vpn)
    if int(k.s.mem["mapcount"][(pte & pgtable.PFN_MASK) >> PAGE_SHIFT]) > 1:
        return -int(Errno.EACCES)
    return node if numa_migrate.move_one(k, task, vpn, node) else -int(Errno.EBUSY)


def _node_of(k: Kernel, task: Task, vpn: int) -> int:
    """The node of the page that is mapped here; -EFAULT outside a mapping and for the zero page, -ENOENT for no page."""
    assert task.mm is not None
    vma = vma_lookup(task.mm, vpn)
    pte = pgtable.entry(k, task.mm, vpn) if vma is not None else 0
    if vma is None or (pte & pgtable.PTE_PRESENT and pte & pgtable.PTE_SPECIAL):
        return -int(Errno.EFAULT)
    if not pte & pgtable.PTE_PRESENT:
        return -int(Errno.ENOENT)
    zone = int(page_zone(k.s, (pte & pgtable.PFN_MASK) >> PAGE_SHIFT))
    return int(k.s.zones["node"][zone])
