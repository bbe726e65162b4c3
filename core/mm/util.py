"""Who may have how much address space: overcommit, resource limits, capabilities (mm/util.c, mm/mmap.c, mm/mlock.c).

**Overcommit.** A promise of memory costs nothing until it is touched. Linux counts the promises it may have to keep,
`Committed_AS`: private writable mappings and shared memory, not files, not MAP_NORESERVE. What it does with the count:

    vm.overcommit_memory = 0   refuse only what could never be kept: one request larger than RAM + swap
                         = 1   refuse nothing
                         = 2   keep Committed_AS below CommitLimit = RAM * overcommit_ratio / 100 + swap

Worked example, 512M without swap (MemTotal 472 MB or so), ratio 50: CommitLimit is about 236 MB. mmap of 64M passes,
of 512M fails with ENOMEM, and so does 512M with MAP_NORESERVE, which mode 2 does not heed. A read-only private
mapping of 512M passes: nothing that can be written is promised.

**Limits.** RLIMIT_AS bounds total_vm, RLIMIT_DATA the private writable part, RLIMIT_MEMLOCK locked_vm, RLIMIT_STACK
the stack as it grows.

**Capabilities.** A process of uid 0 has them all, as processes do that nobody took anything from: RLIMIT_MEMLOCK does
not bind it, nor do the reserves of mode 2. `setuid` to another uid drops them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT, VM_EXEC, VM_GROWSDOWN, VM_LOCKED, VM_SHARED, VM_WRITE
from core.mm.mm_types import MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, get_mm_counters

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Mm
    from core.sched.task import Task

RLIM_INFINITY = (1 << 64) - 1


def capable(task: Task) -> bool:
    """True if the process holds its capabilities (CAP_IPC_LOCK, CAP_SYS_ADMIN, CAP_SYS_RAWIO, ...): uid 0."""
    return getattr(task, "uid", 0) == 0


def rlimit(task: Task, resource: str) -> int:
    """The limit of a resource in bytes; RLIM_INFINITY where there is none."""
    limit = task.rlimits.get(resource)
    return RLIM_INFINITY if limit is None else limit


def totalram_pages(k: Kernel) -> int:
    """Pages that the allocator manages, all zones (MemTotal)."""
    return int(k.s.zones["managed"].sum())


def total_swap_pages(k: Kernel) -> int:
    """Pages of all active swap devices."""
    return sum(int(device["pages"]) for device in k.swap_devices)


def vm_commit_limit(k: Kernel) -> int:
    """CommitLimit in pages (mm/util.c:vm_commit_limit)."""
    kbytes = int(k.sysctl["vm.overcommit_kbytes"])
    pools = sum(h.nr_huge_pages * h.nr_pages for h in k.hstates)  # hugetlb_total_pages: nobody else can have those
    allowed = kbytes >> 2 if kbytes else (totalram_pages(k) - pools) * int(k.sysctl["vm.overcommit_ratio"]) // 100
    return allowed + total_swap_pages(k)


def vm_enough_memory(k: Kernel, task: Task, pages: int) -> None:
    """Add `pages` to Committed_AS, or raise ENOMEM and leave it (mm/util.c:__vm_enough_memory)."""
    mode = int(k.sysctl["vm.overcommit_memory"])
    if mode == 0 and pages > totalram_pages(k) + total_swap_pages(k):
        raise SysError(Errno.ENOMEM, "one request for more than RAM and swap together (vm.overcommit_memory is 0)")
    if mode == 2 and k.committed_pages + pages >= _allowed(k, task):
        raise SysError(Errno.ENOMEM, "Committed_AS would pass CommitLimit (vm.overcommit_memory is 2)")
    k.committed_pages += pages


def _allowed(k: Kernel, task: Task) -> int:
    allowed = vm_commit_limit(k)
    if not capable(task):
        allowed -= int(k.sysctl["vm.admin_reserve_kbytes"]) >> 2
    if task.mm is not None:
        allowed -= min(task.mm.total_vm // 32, int(k.sysctl["vm.user_reserve_kbytes"]) >> 2)
    return allowed


def vm_unacct_memory(k: Kernel, pages: int) -> None:
    """Take `pages` off Committed_AS."""
    k.committed_pages -= pages


def is_data_mapping(flags: int) -> bool:
    """Private, writable and no stack: counts towards VmData and RLIMIT_DATA."""
    return flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE


def vm_stat_account(mm: Mm, flags: int, pages: int) -> None:
    """Count a mapping's pages in total_vm and in exec_vm, stack_vm or data_vm (negative: take them off)."""
    mm.total_vm += pages
    if flags & (VM_EXEC | VM_WRITE | VM_GROWSDOWN) == VM_EXEC:
        mm.exec_vm += pages
    elif flags & VM_GROWSDOWN:
        mm.stack_vm += pages
    elif is_data_mapping(flags):
        mm.data_vm += pages


def may_expand_vm(k: Kernel, task: Task, mm: Mm, flags: int, pages: int) -> bool:
    """True if RLIMIT_AS and RLIMIT_DATA allow `pages` more (mm/mmap.c:may_expand_vm)."""
    if mm.total_vm + pages > rlimit(task, "as") >> PAGE_SHIFT:
        return False
    limit = rlimit(task, "data")
    if is_data_mapping(flags) and mm.data_vm + pages > limit >> PAGE_SHIFT:
        _warn_data_limit(k, task, (mm.data_vm + pages) << PAGE_SHIFT, limit)
        return False
    return True


def _warn_data_limit(k: Kernel, task: Task, size: int, limit: int) -> None:
    if any("exceed data ulimit" in entry[3] for entry in k.dmesg):
        return  # once, like pr_warn_once
    k.log(4, f"{task.comm} ({task.pid}): VmData {size} exceed data ulimit {limit}. Update limits or use boot option ignore_rlimit_data.")


def can_do_mlock(task: Task) -> bool:
    """False only with a RLIMIT_MEMLOCK of 0 and no CAP_IPC_LOCK."""
    return rlimit(task, "memlock") != 0 or capable(task)


def mlock_future_ok(task: Task, mm: Mm, flags: int, pages: int) -> bool:
    """True if a mapping with these flags keeps within RLIMIT_MEMLOCK (mm/mmap.c:mlock_future_check)."""
    if not flags & VM_LOCKED or capable(task):
        return True
    return mm.locked_vm + pages <= rlimit(task, "memlock") >> PAGE_SHIFT


def update_hiwater_vm(mm: Mm) -> None:
    """Remember the largest total_vm (VmPeak) before it shrinks."""
    mm.hiwater_vm = max(mm.hiwater_vm, mm.total_vm)


def update_hiwater_rss(k: Kernel, mm: Mm) -> None:
    """Remember the largest resident size (VmHWM) before it shrinks."""
    rss = get_mm_counters(k.s, mm)
    mm.hiwater_rss = max(mm.hiwater_rss, rss[MM_FILEPAGES] + rss[MM_ANONPAGES] + rss[MM_SHMEMPAGES])
