"""/data: the simulated disk's files. They have a size and a page cache; what the bytes are matters to nobody but a reader of this tree.

A file is made with `create_file`, mapped, read and written by processes, and removed like a directory of the tree (DELETE). Reading it here
bypasses the simulated page cache: it is the operator who looks, not a process, so nothing is charged and no counter moves.
"""

from __future__ import annotations

import hashlib
import re
from itertools import count
from typing import TYPE_CHECKING

from core.fs.node import FsError, bad
from core.mm import filemap, hugetlbfs
from core.mm.mm_types import Inode

if TYPE_CHECKING:
    from core.kernel import Kernel

ROOT = "/data/"
NAME = re.compile(r"[^/\0\n]{1,255}")
MOST = 1 << 44  # 16 TiB, the largest file of ext4
BLOCK = 4096
FIRST_INO = 12  # ext4 keeps the first eleven inodes to itself and gives the lowest that is free
DEVICE = (0xFE, 0x20)  # the third virtio disk, as in the recordings


def create_file(k: Kernel, path: str, size: int) -> None:
    """A new file of `size` bytes. Errors: EINVAL (path, size), EEXIST, EFBIG."""
    if hugetlbfs.mount_of(k, path) is not None:
        hugetlbfs.create(k, path, size)
        return
    if not path.startswith(ROOT) or not NAME.fullmatch(path[len(ROOT):]) or path[len(ROOT):] in (".", ".."):
        raise bad(f"files lie in {ROOT} and have a name of at most 255 characters without '/': such as {ROOT}f, not {path!r}")
    if path in k.files:
        raise FsError("EEXIST", f"there is a file {path} already")
    if not 0 <= size <= MOST:
        raise FsError("EFBIG" if size > MOST else "EINVAL", f"a file has 0 to {MOST} bytes, not {size}")
    taken = {other.ino for other in k.inodes.values() if other.dev == DEVICE}
    ino = next(ino for ino in count(FIRST_INO) if ino not in taken)
    inode = Inode(k.next_inode, path, size, ino=ino, dev=DEVICE)
    k.next_inode += 1
    k.inodes[inode.id] = inode
    k.files[path] = inode


def unlink(k: Kernel, path: str) -> None:
    """Remove a name. The file's pages go at once, or with its last mapping."""
    if path not in k.files:
        raise FsError("ENOENT", f"no file {path}")
    if k.files[path].hstate is not None:
        hugetlbfs.unlink(k, path)
        return
    if k.files[path].swapfile:
        raise FsError("EPERM", f"{path} is a swap area in use: swapoff first")
    inode = k.files.pop(path)
    inode.nlink = 0
    inode.path += " (deleted)"
    if not inode.vmas:
        filemap.evict_inode(k, inode)


def size(k: Kernel, inode: Inode) -> int:
    """Bytes."""
    return inode.size


def read(k: Kernel, inode: Inode, offset: int, length: int) -> bytes:
    """Bytes that depend on the file's name and the position alone: the same every time, as if nobody had written."""
    end = min(offset + length, inode.size)
    if offset >= end:
        return b""
    first = offset // BLOCK
    blocks = (hashlib.shake_128(f"{inode.path}:{block}".encode()).digest(BLOCK) for block in range(first, -(-end // BLOCK)))
    return b"".join(blocks)[offset - first * BLOCK : end - first * BLOCK]


def read_huge(k: Kernel, inode: Inode, offset: int, length: int) -> bytes:
    """A file of hugetlbfs: nobody has written bytes into it."""
    return bytes(max(0, min(length, inode.size - offset)))
