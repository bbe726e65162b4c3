"""Calls on files of the simulated disk, and what an operator does with the file tree: decode, hand on.

`read` and `write` open, transfer and close: there are no file descriptors here. `put`, `mkdir`, `rmdir` and `create_file` are
what a shell does; a refusal of the tree (FsError) is an errno like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT, PAGE_SIZE
from core.fs import disk, hugepages, tree
from core.fs.node import FsError, decode
from core.mm import filemap, hugetlbfs, memory

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Inode
    from core.sched.task import Task

MAX_FILE_SIZE = disk.MOST
MOUNT_POINT = re.compile(r"/mnt/[A-Za-z0-9_-]{1,64}")


def lookup(k: Kernel, path: str) -> Inode:
    """The file at a path, or ENOENT."""
    inode = k.files.get(path)
    if inode is None:
        raise SysError(Errno.ENOENT, f"there is no file {path}")
    return inode


def check_writable(inode: Inode) -> None:
    """EACCES for a file that cannot be opened for writing, ETXTBSY for one that is swapped to."""
    if not inode.writable:
        raise SysError(Errno.EACCES, "the file cannot be opened for writing")
    if inode.swapfile:
        raise SysError(Errno.ETXTBSY, "the file is a swap area in use: swapoff first")


def _as_errno(function: Callable[..., object], *arguments: Any) -> None:
    try:
        function(*arguments)
    except FsError as refusal:
        raise SysError(getattr(Errno, refusal.errno, Errno.EIO), refusal.message) from None


# ---------------------------------------------------------------- by a process


def sys_read(k: Kernel, task: Task, path: str, length: int, offset: int = 0) -> dict[str, Any]:
    """read: {bytes}. ENOENT."""
    inode = lookup(k, path)
    if inode.hstate is not None:
        return {"bytes": max(0, min(length, inode.size - offset))}
    return {"bytes": filemap.file_read(k, task, inode, offset, length)}


def sys_write(k: Kernel, task: Task, path: str, length: int, offset: int = 0) -> dict[str, Any]:
    """write, creating the file if need be: {bytes}. EACCES, ETXTBSY, EFBIG, EINVAL."""
    if path not in k.files:
        _as_errno(disk.create_file, k, path, 0)
    inode = lookup(k, path)
    if inode.hstate is not None:
        raise SysError(Errno.EINVAL, "a file of hugetlbfs is written by mapping it")
    check_writable(inode)
    if offset >= MAX_FILE_SIZE and length:
        raise SysError(Errno.EFBIG, "beyond the largest file that the file system has")
    return {"bytes": filemap.file_write(k, task, inode, offset, min(length, MAX_FILE_SIZE - offset))}


def sys_fsync(k: Kernel, task: Task, path: str) -> None:
    """fsync. ENOENT."""
    inode = lookup(k, path)
    if inode.hstate is None:
        filemap.fsync(k, inode)


def sys_fadvise(k: Kernel, task: Task, path: str, advice: str, offset: int = 0, length: int = 0) -> None:
    """fadvise64: dontneed drops whole pages of the range, willneed reads them. ENOENT (mm/fadvise.c)."""
    inode = lookup(k, path)
    if inode.hstate is not None:
        return  # there is no device to read ahead from, and no page is dropped
    end = offset + length if length else max(inode.size, offset)
    if advice == "dontneed":
        last = inode.nr_file_pages if end >= inode.size else end >> PAGE_SHIFT
        filemap.fadvise_dontneed(k, inode, (offset + PAGE_SIZE - 1) >> PAGE_SHIFT, last)
    elif advice == "willneed":
        filemap.willneed(k, task, inode, offset >> PAGE_SHIFT, (end + PAGE_SIZE - 1) >> PAGE_SHIFT)


def sys_truncate(k: Kernel, task: Task, path: str, length: int) -> None:
    """truncate. ENOENT, EFBIG, EACCES, ETXTBSY."""
    inode = lookup(k, path)
    check_writable(inode)
    if length > MAX_FILE_SIZE:
        raise SysError(Errno.EFBIG, "beyond the largest file that the file system has")
    if inode.hstate is not None:
        hugetlbfs.setattr_size(k, inode, length)
    else:
        memory.truncate(k, inode, length)


def sys_fallocate(k: Kernel, task: Task, path: str, length: int, offset: int = 0, flags: Sequence[str] = ()) -> None:
    """fallocate. ENOENT, EINVAL, ENOSPC; EOPNOTSUPP for other files than those of hugetlbfs."""
    inode = lookup(k, path)
    if inode.hstate is None:
        raise SysError(Errno.EOPNOTSUPP, "only files of hugetlbfs are allocated in advance here")
    punch, keep_size = "punch_hole" in flags, "keep_size" in flags
    if punch and not keep_size:
        raise SysError(Errno.EOPNOTSUPP, "punch_hole comes with keep_size")
    hugetlbfs.fallocate(k, task, inode, offset, length, punch=punch, keep_size=keep_size)


# ---------------------------------------------------------------- by the operator


def put(k: Kernel, path: str, data: bytes, by: int | None = None) -> None:
    """echo data > path. `by`: the process that does it; only nr_hugepages_mempolicy asks who that is. ESRCH if there is none."""
    if by is None or not path.endswith("/nr_hugepages_mempolicy"):
        _as_errno(tree.write, k, path, data)
        return
    task = k.tasks.get(by)
    if task is None:
        raise SysError(Errno.ESRCH, f"there is no process {by}")
    _as_errno(tree.resolve, k, path)
    _as_errno(hugepages.set_by_policy, k, path, decode(data, path), task)


def mkdir(k: Kernel, path: str) -> None:
    """mkdir path: a cgroup."""
    _as_errno(tree.mkdir, k, path)


def rmdir(k: Kernel, path: str) -> None:
    """rmdir path: a cgroup, or rm of a file of /data."""
    _as_errno(tree.rmdir, k, path)


def mount(k: Kernel, path: str, page_size: int = 0, size: int | None = None, min_size: int | None = None) -> None:
    """mount -t hugetlbfs. EINVAL, EBUSY, ENOMEM."""
    if not MOUNT_POINT.fullmatch(path):
        raise SysError(Errno.ENOENT, f"hugetlbfs is mounted in a directory of /mnt, such as /mnt/huge, not {path!r}")
    hugetlbfs.mount(k, path, page_size, size, min_size)


def create_file(k: Kernel, path: str, size: int) -> None:
    """A new file on the simulated disk. EEXIST, EINVAL, EFBIG."""
    _as_errno(disk.create_file, k, path, size)
