"""Shared anonymous memory: files that live in memory only (mm/shmem.c).

`mmap(MAP_SHARED | MAP_ANONYMOUS)` makes an object without a name, shown as "/dev/zero (deleted)", that all who inherit
the mapping share. Its pages are page cache (counted in Cached and in Shmem) but swap-backed: they live on the
anonymous lists and go to swap when memory is short (`shmem_swap`); they may be huge (`shmem_huge`). A first touch, read or write, gets
a page of its own: there is no zero page here. The object goes when its last mapping goes.

Commit accounting: a private mapping is charged when it is made; this object is charged whole when it is made, unless
MAP_NORESERVE, and uncharged when it goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.abi.mman import VM_NORESERVE
from core.jit import njit
from core.mm import filemap, memory, shmem_huge, shmem_swap, util
from core.mm.fault import in_swap_cache
from core.mm.gfp_types import GFP_FILLED_PAGE
from core.mm.mm_types import SHMEM_DEV, Inode, State
from core.mm.page_ops import DONE, NEW_PAGES, xa_leaf
from core.mm.shmem_swap import next_swapped, shmem_swapin_folio
from core.vmstat import MEMCG_PGMAJFAULT, PGMAJFAULT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma
    from core.sched.task import Task

FIRST_INO = 1024


def shmem_zero_setup(k: Kernel, task: Task, pages: int, vm_flags: int) -> Inode:
    """A new object of `pages` pages for a shared anonymous mapping; SysError(ENOMEM) when the commit limit is in the way."""
    reserved = 0 if vm_flags & VM_NORESERVE else pages
    if reserved:
        util.vm_enough_memory(k, task, reserved)
    inode = Inode(k.next_inode, "/dev/zero (deleted)", pages << 12, shmem=True, ino=FIRST_INO + k.next_inode, dev=SHMEM_DEV)
    k.next_inode += 1
    inode.nlink = 0
    inode.committed = reserved
    k.inodes[inode.id] = inode
    filemap.make_root(k, inode)
    return inode


def shmem_evict_inode(k: Kernel, inode: Inode) -> None:
    """The last mapping is gone: pages freed, commit charge given back."""
    util.vm_unacct_memory(k, inode.committed)
    inode.committed = 0
    shmem_huge.forget(k, inode)
    if inode.root:
        shmem_swap.free_swapped(k.s, inode.root, 0, filemap.MAX_FILE_PAGES)
    filemap.evict_inode(k, inode)


def bring_back(k: Kernel, vma: Vma | None, loop: Callable[[State], None]) -> None:
    """Run a loop that reads pages back until it is done: its reads take time, and are nobody's major faults."""
    v = k.s.vmf[0]
    memory.finish(k, vma, loop, GFP_FILLED_PAGE)
    k.clock.spend(int(v["read_ns"]))
    k.s.vm_event[PGMAJFAULT] -= int(v["major"])
    k.s.memcgs["stat"][int(v["memcg"]), MEMCG_PGMAJFAULT] -= int(v["major"])


@njit
def unuse_tree(s: State, low: int, high: int) -> None:
    """Bring the pages of vmf.file that are in the slots low .. high back into it (shmem_unuse_swap_entries)."""
    v = s.vmf[0]
    v["reason"] = DONE
    end = v["n"]
    at = next_swapped(s, v["root"], v["first"] + v["done"], end)
    while at >= 0:
        leaf = xa_leaf(s, v["root"], at)
        slot = -s.xa[leaf, at & 511]
        v["done"] = at - v["first"]
        if low <= slot <= high:
            if not in_swap_cache(s, v, slot, at):
                return
            shmem_swapin_folio(s, v["file"], leaf, at, slot)
            v["count"][NEW_PAGES] += 1
        at = next_swapped(s, v["root"], at + 1, end)
    v["done"] = end - v["first"]
