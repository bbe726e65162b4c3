"""System calls on mappings: decode, validate, hand on to `core/mm`.

`touch` is here too: what a processor does with a mapping. The order of its accesses is made here, as an array of page
numbers, from the seed alone:

    sequential  0, 1, 2, …                      reverse  n-1, n-2, …
    random      each page once, sorted by a hash of (seed, index): the same on every machine
    zipf        n accesses with replacement; page r has a weight of 1 / (r + 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT, PAGE_SIZE, VM_LOCKED, VM_SHARED
from core.jit import njit
from core.mm import filemap, memory, swapon
from core.mm.madvise import do_madvise
from core.mm.mincore import do_mincore
from core.mm.mlock import do_mlock, do_mlockall, do_munlock, do_munlockall
from core.mm.mmap import do_brk, do_mmap, do_munmap, emit_vma, page_align, parse_prot
from core.mm.mprotect import do_mprotect
from core.mm.mremap import do_mremap
from core.mm.vma import find_vma
from core.programs.patterns import splitmix64, uniform, zipf
from core.syscalls.file import lookup

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array
    from core.sched.task import Task

MAX_ORDERED = 1 << 26  # pages that one call may visit in random or zipf order: 256 GiB of addresses
ACCESS = {"read": memory.READ, "write": memory.WRITE, "exec": memory.EXEC}


def sys_mmap(
    k: Kernel, task: Task, length: int, prot: str = "rw", flags: Sequence[str] | None = None, address: int = 0, align: int = 0,
    file: str | None = None, offset: int = 0, huge_size: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """mmap: {address}."""
    if flags is None:
        flags = ("private",) if file is not None else ("private", "anonymous")
    if file is None and "anonymous" not in flags:
        raise SysError(Errno.EBADF, "a mapping is either anonymous or of a file")
    inode = lookup(k, file) if file is not None and "anonymous" not in flags else None
    protection = parse_prot(prot)
    return {"address": do_mmap(k, task, length, protection, flags, address=address, align=align, file=inode, offset=offset, huge_size=huge_size)}


def sys_munmap(k: Kernel, task: Task, address: int, length: int) -> None:
    """munmap."""
    do_munmap(k, task, address, length)
    k.clock.spend(k.costs.vma)
    emit_vma(k, task, "unmap", address >> PAGE_SHIFT, (address + page_align(length)) >> PAGE_SHIFT)


def sys_mprotect(k: Kernel, task: Task, address: int, length: int, prot: str) -> None:
    """mprotect."""
    do_mprotect(k, task, address, length, parse_prot(prot))


def sys_mremap(
    k: Kernel, task: Task, address: int, old_length: int, new_length: int, may_move: bool = True, new_address: int | None = None,
    dontunmap: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """mremap: {address}."""
    to = do_mremap(k, task, address, old_length, new_length, may_move=may_move, new_address=new_address, dontunmap=dontunmap)
    return {"address": to}


def sys_brk(k: Kernel, task: Task, increment: int = 0) -> dict[str, Any]:
    """brk, as sbrk: {address}, the new break."""
    return {"address": do_brk(k, task, increment)}


def sys_madvise(k: Kernel, task: Task, address: int, length: int, advice: str) -> None:
    """madvise."""
    do_madvise(k, task, address, length, advice)


def sys_mlock(k: Kernel, task: Task, address: int, length: int, onfault: bool = False) -> None:
    """mlock, mlock2."""
    do_mlock(k, task, address, length, onfault)


def sys_munlock(k: Kernel, task: Task, address: int, length: int) -> None:
    """munlock."""
    do_munlock(k, task, address, length)


def sys_mlockall(k: Kernel, task: Task, flags: Sequence[str] = ("current",)) -> None:
    """mlockall."""
    do_mlockall(k, task, flags)


def sys_munlockall(k: Kernel, task: Task) -> None:
    """munlockall."""
    do_munlockall(k, task)


def sys_mincore(k: Kernel, task: Task, address: int, length: int) -> dict[str, Any]:
    """mincore: {resident, pages}."""
    resident, pages = do_mincore(k, task, address, length)
    return {"resident": resident, "pages": pages}


def sys_msync(k: Kernel, task: Task, address: int, length: int, flags: Sequence[str] = ("sync",)) -> None:
    """msync: EINVAL, ENOMEM (a hole; the rest is written), EBUSY (invalidate on locked memory) (mm/msync.c)."""
    if address & (PAGE_SIZE - 1):
        raise SysError(Errno.EINVAL, "the address is not a multiple of 4096")
    if "async" in flags and "sync" in flags:
        raise SysError(Errno.EINVAL, "either sync or async")
    size = page_align(length)
    if address + size > 1 << 64:
        raise SysError(Errno.ENOMEM, "the range wraps around")
    assert task.mm is not None
    at, end, hole = address >> PAGE_SHIFT, (address + size) >> PAGE_SHIFT, False
    while at < end:
        vma = find_vma(task.mm, at)
        if vma is None or vma.start >= end:
            hole = True
            break
        hole, at = hole or vma.start > at, max(at, vma.start)
        if "invalidate" in flags and vma.flags & VM_LOCKED:
            raise SysError(Errno.EBUSY, "invalidate, and the mapping is locked")
        stop = min(vma.end, end)
        if "sync" in flags and vma.file is not None and vma.flags & VM_SHARED:
            filemap.msync_range(k, vma, at, stop)
        at = stop
    if hole:
        raise SysError(Errno.ENOMEM, "part of the range is not mapped; the rest is written")


# ---------------------------------------------------------------- the processor


def sys_touch(
    k: Kernel, task: Task, address: int, length: int = PAGE_SIZE, access: str = "read", stride: int = 1, order: str = "sequential",
    seed: int = 0, pages: Sequence[int] | None = None, repeat: int = 1, fill: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The CPU makes these accesses: {touched}, the accesses that were made."""
    first = address >> PAGE_SHIFT
    content = fill if fill is not None else -1
    perm: Array | None
    if pages is not None:
        perm, count, start, step = np.array(pages, np.int64), len(pages), first, 1
    else:
        last = max(length + PAGE_SIZE - 1 >> PAGE_SHIFT, 1)
        count = -(-last // stride)
        perm, start, step = access_order(order, count, stride, seed), first, stride
        if order == "reverse":
            start, step = first + last - 1, -stride
    if count == 0:
        return {"touched": 0}
    outcome = memory.touch(k, task, start, count, step, ACCESS[access], perm=perm, repeat=repeat, content=content)
    return {"touched": outcome.touched}


def one_page(
    address: int, length: int = PAGE_SIZE, access: str = "read", stride: int = 1, order: str = "sequential", seed: int = 0,
    pages: Sequence[int] | None = None, repeat: int = 1, fill: int | None = None,
) -> tuple[int, int, int] | None:  # fmt: skip
    """What `sys_touch` would access with these arguments, if it is one page, once: page, access, content; None for more."""
    if length > PAGE_SIZE or repeat != 1 or stride != 1 or pages is not None or order != "sequential":
        return None
    return address >> PAGE_SHIFT, ACCESS[access], -1 if fill is None else fill


def access_order(order: str, count: int, stride: int, seed: int) -> Array | None:
    """The pages to access as offsets (int64), or None where they follow each other. E2BIG for an order that is too long."""
    if order in ("random", "zipf") and count > MAX_ORDERED:
        raise SysError(Errno.E2BIG, f"random and zipf order visit at most {MAX_ORDERED} pages in one call, not {count}")
    if order == "random":
        perm = np.empty(count, np.int64)
        shuffle(perm, splitmix64(seed, count), stride)
        return perm
    if order == "zipf":
        return zipf(uniform(seed, count), count) * stride
    return None


@njit
def shuffle(perm: Array, draws: Array, stride: int) -> None:
    """A random order of 0, stride, 2 * stride, …: the shuffle of Fisher and Yates, inside out, one 64-bit draw a place."""
    for i in range(len(perm)):
        j = int(((draws[i] >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32))
        perm[i] = perm[j]
        perm[j] = i * stride


# ---------------------------------------------------------------- swap


def sys_swapon(k: Kernel, task: Task, path: str, priority: int | None = None, size: int | None = None, kind: str = "virtio") -> None:
    """swapon. EPERM, ENOENT, EBUSY, EINVAL."""
    swapon.do_swapon(k, task, path, size, priority, kind)


def sys_swapoff(k: Kernel, task: Task, path: str) -> None:
    """swapoff. EPERM, EINVAL, ENOMEM."""
    swapon.do_swapoff(k, task, path)
