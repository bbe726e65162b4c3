"""Calls on NUMA policy and placement: decode, hand on to `core/mm/mempolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT
from core.mm import pgtable
from core.mm.mempolicy import do_mbind, do_set_mempolicy
from core.mm.page_alloc import page_zone
from core.mm.vma import vma_lookup

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task


def sys_mbind(k: Kernel, task: Task, address: int, length: int, mode: str, nodes: Sequence[int] = (), flags: Sequence[str] = ()) -> None:
    """mbind. EINVAL, EFAULT."""
    do_mbind(k, task, address, length, mode, nodes, flags)


def sys_set_mempolicy(k: Kernel, task: Task, mode: str, nodes: Sequence[int] = (), flags: Sequence[str] = ()) -> None:
    """set_mempolicy. EINVAL."""
    do_set_mempolicy(k, task, mode, nodes, flags)


def sys_migrate_pages(k: Kernel, task: Task, old_nodes: Sequence[int], new_nodes: Sequence[int]) -> None:
    """migrate_pages: not simulated, ENOSYS."""
    raise SysError(Errno.ENOSYS, "migration is not simulated yet")


def sys_move_pages(k: Kernel, task: Task, address: int, pages: Sequence[int], nodes: Sequence[int] | None = None) -> dict[str, Any]:
    """move_pages without nodes: {status}, the node of each page or -errno, in order. ENOSYS with nodes."""
    if nodes is not None:
        raise SysError(Errno.ENOSYS, "migration is not simulated yet")
    return {"status": " ".join(str(_node_of(k, task, (address >> PAGE_SHIFT) + page)) for page in pages)}


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
