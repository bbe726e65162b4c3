"""Shared anonymous memory: files that live in memory only (mm/shmem.c).

`mmap(MAP_SHARED | MAP_ANONYMOUS)` makes an object without a name, shown as "/dev/zero (deleted)", that all who inherit
the mapping share. Its pages are page cache (counted in Cached and in Shmem) but swap-backed: they live on the
anonymous lists and go to swap when memory is short (`shmem_swap`). A first touch, read or write, gets a page of its own: there is no zero page
here. The object goes when its last mapping goes.

Commit accounting: a private mapping is charged when it is made; this object is charged whole when it is made, unless
MAP_NORESERVE, and uncharged when it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.mman import VM_NORESERVE
from core.mm import filemap, shmem_swap, util
from core.mm.mm_types import Inode

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

SHMEM_DEV = (0, 1)
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
    if inode.root:
        shmem_swap.free_swapped(k.s, inode.root, 0, filemap.MAX_FILE_PAGES)
    filemap.evict_inode(k, inode)
