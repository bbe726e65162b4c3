"""hugetlbfs: files whose pages come from a pool (fs/hugetlbfs/inode.c).

A file is a place for pages and for promises: processes that map it MAP_SHARED see the same pages; they stay when the processes are gone, and go with
the file. Its length is a multiple of the page size. It cannot be written with write(2); it grows by being mapped for writing, by truncate or by
fallocate.

    mmap of 4 MiB of an empty file     length 4 MiB, HugePages_Rsvd 2: the promise is the file's, not the process's
    touch of both pages                Free -2, Rsvd 0
    munmap, exit                       nothing changes
    truncate to 2 MiB                  Free +1
    unlink                             Free +1 (with the last mapping)

`MAP_HUGETLB` without a file makes one that has no name ("/anon_hugepage (deleted)"), on a mount that nobody sees.

A mount may have limits, `size=` and `min_size=`: more than `size` cannot be promised or touched there, and `min_size` is promised to the mount from
the start, so that nobody else gets it (`Subpool`).

Source: fs/hugetlbfs/inode.c:hugetlbfs_file_mmap, hugetlbfs_fallocate, hugetlbfs_punch_hole, remove_inode_hugepages.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT, VM_HUGETLB, VM_MAYSHARE, VM_SHARED, VM_WRITE
from core.mm import hugetlb, hugetlb_fault
from core.mm.hugetlb_types import NO_LIMIT, Hstate, ResvMap, Subpool
from core.mm.mm_types import Inode, Mm, Vma

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

DEVICE = (0, 15)  # as in the recordings
FIRST_INO = 2048
DEFAULT_MOUNT = "/dev/hugepages"
NAME = re.compile(r"[^/\0\n]{1,255}")


class Mount:
    """A mounted hugetlbfs: where, which pages, what limits."""

    __slots__ = ("path", "hstate", "spool", "options")

    def __init__(self, path: str, hstate: Hstate, spool: Subpool | None, options: str) -> None:
        self.path = path
        self.hstate = hstate
        self.spool = spool
        self.options = options


def mount(k: Kernel, path: str, page_size: int = 0, size: int | None = None, min_size: int | None = None) -> None:
    """mount -t hugetlbfs -o pagesize=,size=,min_size= none path. EINVAL, EBUSY; ENOMEM: min_size cannot be promised."""
    h = hugetlb.size_to_hstate(k, page_size) if page_size else k.default_hstate
    if h is None:
        raise SysError(Errno.EINVAL, "there are pages of 2M and 1G")
    if path in k.mounts:
        raise SysError(Errno.EBUSY, f"{path} is mounted already")
    limits = [NO_LIMIT if limit is None else limit // h.size for limit in (size, min_size)]
    if NO_LIMIT not in limits and limits[1] > limits[0]:
        raise SysError(Errno.EINVAL, "min_size is larger than size")
    spool = Subpool(*limits) if limits != [NO_LIMIT, NO_LIMIT] else None
    if min_size is not None and not hugetlb.hugetlb_acct_memory(k, None, h, limits[1]):
        raise hugetlb.no_pool(h)
    words = [("size", size), ("min_size", min_size)]
    options = "".join(f",{name}={value >> 10}K" for name, value in words if value is not None)
    k.mounts[path] = Mount(path, h, spool, f"rw,relatime,pagesize={_unit(h.size)}{options}")


def _unit(size: int) -> str:
    return f"{size >> 30}G" if size >= 1 << 30 else f"{size >> 20}M"


def mount_of(k: Kernel, path: str) -> Mount | None:
    """The mount whose directory holds a path."""
    found = k.mounts.get(path.rpartition("/")[0])
    return found if found is not None and NAME.fullmatch(path.rpartition("/")[2]) else None


# ---------------------------------------------------------------- files


def get_inode(k: Kernel, path: str, h: Hstate, spool: Subpool | None, size: int) -> Inode:
    """A new file of a pool's pages (hugetlbfs_get_inode)."""
    inode = Inode(k.next_inode, path, size, ino=FIRST_INO + k.next_inode, dev=DEVICE)
    k.next_inode += 1
    inode.hstate, inode.spool, inode.resv_map = h, spool, ResvMap()
    k.inodes[inode.id] = inode
    return inode


def create(k: Kernel, path: str, size: int) -> None:
    """A file on a mount of hugetlbfs. EEXIST; EINVAL: its length is no multiple of the page size."""
    where = mount_of(k, path)
    assert where is not None
    if path in k.files:
        raise SysError(Errno.EEXIST, f"there is a file {path} already")
    _check_size(where.hstate, size)
    k.files[path] = get_inode(k, path, where.hstate, where.spool, size)


def _check_size(h: Hstate, size: int) -> None:
    if size & (h.size - 1):
        raise SysError(Errno.EINVAL, f"a file here is as long as a number of its pages of {h.size} bytes, not {size}")


def hugetlb_file_setup(k: Kernel, h: Hstate, size: int) -> Inode:
    """The file without a name behind a MAP_HUGETLB mapping."""
    inode = get_inode(k, "/anon_hugepage (deleted)", h, None, size)
    inode.nlink = 0
    return inode


def unlink(k: Kernel, path: str) -> None:
    """Remove a name; pages and promises go at once, or with the last mapping."""
    inode = k.files.pop(path)
    inode.nlink = 0
    inode.path += " (deleted)"
    if not inode.vmas:
        evict_inode(k, inode)


def evict_inode(k: Kernel, inode: Inode) -> None:
    """Nobody can reach the file any more."""
    remove_inode_hugepages(k, inode, 0, None)
    del k.inodes[inode.id]


def setattr_size(k: Kernel, inode: Inode, size: int) -> None:
    """truncate(2): what lies behind the new end is unmapped everywhere, and gone. EINVAL (hugetlbfs_setattr)."""
    h = inode.hstate
    assert h is not None
    _check_size(h, size)
    inode.size = size
    hugetlb_vmdelete_list(k, inode, size >> PAGE_SHIFT, None)
    remove_inode_hugepages(k, inode, size // h.size, None)


def hugetlb_vmdelete_list(k: Kernel, inode: Inode, first: int, last: int | None) -> None:
    """Unmap small pages [first, last) of a file from every mapping of it."""
    for vma in list(inode.vmas):
        low = max(vma.start, vma.start + first - vma.pgoff)
        high = vma.end if last is None else min(vma.end, vma.start + last - vma.pgoff)
        if low < high:
            hugetlb_fault.unmap_hugepage_range(k, vma, low, high)


def remove_inode_hugepages(k: Kernel, inode: Inode, first: int, last: int | None) -> None:
    """Drop pages [first, last) of a file (None: to its end), with the promises about them."""
    h = inode.hstate
    assert h is not None
    doomed = sorted(index for index in inode.huge_pages if index >= first and (last is None or index < last))
    for index in doomed:
        hugetlb_fault.put_huge_page(k, h, inode.huge_pages.pop(index))
        if last is not None:
            hugetlb.hugetlb_unreserve_pages(k, inode, index, index + 1, 1)
    if last is None:
        hugetlb.hugetlb_unreserve_pages(k, inode, first, 1 << 62, len(doomed))


def fallocate(k: Kernel, task: Task, inode: Inode, offset: int, length: int, *, punch: bool, keep_size: bool) -> None:
    """fallocate(2): pages for a range now, or none any more. EINVAL, ENOSPC (hugetlbfs_fallocate)."""
    h = inode.hstate
    assert h is not None
    if length <= 0:
        raise SysError(Errno.EINVAL, "length is 0")
    if punch:
        _punch_hole(k, inode, h, offset, offset + length)
        return
    pseudo = Vma(Mm(0), 0, 1 << 50, VM_HUGETLB | VM_MAYSHARE | VM_SHARED, 0, inode)
    for index in range(offset // h.size, -(-(offset + length) // h.size)):
        if index in inode.huge_pages:
            continue
        page = hugetlb.alloc_huge_page(k, task, pseudo, index << h.order)
        if page is None:
            raise SysError(Errno.ENOSPC, "the pool has no page that this file may have")
        k.clock.spend(h.nr_pages * k.costs.clear_page)
        hugetlb_fault.add_to_page_cache(k, inode, index, page)
        hugetlb_fault.put_huge_page(k, h, page.pfn)
    if not keep_size:
        inode.size = max(inode.size, offset + length)


def _punch_hole(k: Kernel, inode: Inode, h: Hstate, start: int, end: int) -> None:
    """Whole pages of the range go; of a page at its ends only the content."""
    first, last = -(-start // h.size), end // h.size
    if first < last:
        hugetlb_vmdelete_list(k, inode, first << h.order, last << h.order)
        remove_inode_hugepages(k, inode, first, last)
    for index in {start // h.size, end // h.size} - set(range(first, last)):
        pfn = inode.huge_pages.get(index)
        low, high = max(start, index * h.size) >> PAGE_SHIFT, min(end, (index + 1) * h.size) >> PAGE_SHIFT
        if pfn is not None and low < high:
            k.s.mem["content"][pfn + low - (index << h.order) : pfn + high - (index << h.order)] = 0


def file_mmap(k: Kernel, task: Task, vma: Vma) -> None:
    """What the file system does about a new mapping: it promises the pages, and the file grows. EINVAL, ENOMEM (hugetlbfs_file_mmap)."""
    inode = vma.file
    assert inode is not None and inode.hstate is not None
    h = inode.hstate
    last = vma.pgoff + vma.pages
    if not hugetlb.hugetlb_reserve_pages(k, task, inode, vma.pgoff >> h.order, last >> h.order, vma, vma.flags):
        raise hugetlb.no_pool(h)
    if vma.flags & VM_WRITE:
        inode.size = max(inode.size, last << PAGE_SHIFT)
