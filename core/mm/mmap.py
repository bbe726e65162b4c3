"""Address spaces as a whole: mmap, munmap, brk, and what fork and exit do with them (mm/mmap.c, kernel/fork.c).

**mmap** checks in a fixed order, and the first check that fails names the errno: length 0 EINVAL, too long ENOMEM, more than
vm.max_map_count mappings ENOMEM, no room ENOMEM, MAP_FIXED_NOREPLACE on something EEXIST, locked memory EPERM or
EAGAIN, the file EACCES or ENODEV, then the limits ENOMEM. Only then anything changes: what lay under a fixed range
is unmapped, the commitment is charged, a neighbour grows or a new mapping is made. No page is touched, unless the
mapping is to be populated or locked.

**munmap** cuts the mappings at both ends, frees their pages and then their page tables, as far as no neighbour needs
those (`floor` and `ceiling`). A hole in the middle of a mapping makes two of one, which vm.max_map_count may refuse.

**brk** moves the end of the heap, an ordinary private anonymous mapping that begins at start_brk.

**fork** copies the list of mappings; page tables are copied only for those that have anonymous pages. Locks are not
inherited, MADV_DONTFORK mappings are left out, MADV_WIPEONFORK ones arrive empty, commitments are charged again.

Worked example, no ASLR: the first mmap of 16M in a process with vvar at 0x7ffff7ff9000 gets 0x7ffff6ff9000, the next
one 0x7ffff5ff9000; the two are one mapping in /proc/<pid>/maps.

A file on the simulated disk (ext4) is placed so that huge pages could map it: its address and its offset agree modulo
2 MiB when the mapping is that long (thp_get_unmapped_area). Anonymous memory is not (6.7 began that).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import (
    MMAP_MIN_ADDR,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_PAGES,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    TASK_SIZE,
    TASK_VPNS,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTEXPAND,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_SPECIAL,
    VM_WIPEONFORK,
    VM_WRITE,
)
from core.events import VmaChange
from core.mm import filemap, huge_memory, hugetlb, hugetlbfs, ksm, memory, shmem, tlb
from core.mm.mm_types import SHMEM_DEV, Vma
from core.mm.rmap import anon_vma_fork
from core.mm.util import (
    can_do_mlock,
    capable,
    may_expand_vm,
    mlock_future_ok,
    rlimit,
    update_hiwater_rss,
    update_hiwater_vm,
    vm_enough_memory,
    vm_stat_account,
    vm_unacct_memory,
)
from core.mm.vma import (
    adjust,
    can_merge_after,
    count_pages,
    dup_vma,
    expand_neighbour,
    find_index,
    find_vma,
    find_vma_intersection,
    get_unmapped_area,
    get_unmapped_area_aligned,
    link_vma,
    remove_vma,
    split_unchecked,
    start_gap,
    vmas_between,
)

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Inode, Mm
    from core.sched.task import Task

PROT_BITS = {"r": PROT_READ, "w": PROT_WRITE, "x": PROT_EXEC}
VM_MAY = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
DATA_FLAGS = VM_READ | VM_WRITE | VM_MAY
MAX_FILE_SIZE = 17_592_186_040_320  # ext4 with 4 KiB blocks
MAX_LFS_FILESIZE = (1 << 63) - 1  # hugetlbfs
PGTABLES_CEILING = 1 << 36  # the last page of 48-bit addresses, and one
MCL_FLAGS = VM_LOCKED | VM_LOCKONFAULT


def page_align(length: int) -> int:
    """Bytes rounded up to whole pages, in 64 bits: the topmost lengths wrap to 0 as they do in C."""
    return ((length + PAGE_SIZE - 1) & -PAGE_SIZE) & ((1 << 64) - 1)


def parse_prot(prot: str) -> int:
    """ "rw" or "none" as VM_READ, VM_WRITE, VM_EXEC (the same bits as PROT_*)."""
    return 0 if prot == "none" else sum(PROT_BITS[letter] for letter in prot)


def show_prot(flags: int) -> str:
    """A mapping's access as letters, "none" for none."""
    letters = "".join(letter for letter, bit in PROT_BITS.items() if flags & bit)
    return letters or "none"


def emit_vma(k: Kernel, task: Task, kind: str, start: int, end: int, **more: object) -> None:
    """Report a change of mappings; start and end are page numbers."""
    mm = task.mm
    count = mm.map_count if mm is not None else 0
    k.emit(VmaChange(k.clock.now, task.pid, kind, start << PAGE_SHIFT, end << PAGE_SHIFT, count, **more))  # type: ignore[arg-type]


# ---------------------------------------------------------------- mmap


def do_mmap(
    k: Kernel, task: Task, length: int, prot: int, flags: Collection[str], *, address: int = 0, align: int = 0,
    file: Inode | None = None, offset: int = 0, huge_size: int = 0,
) -> int:  # fmt: skip
    """mmap(2): map `length` bytes and return the address.

    Parameters: prot as VM_READ | VM_WRITE | VM_EXEC; flags by name ("private", "shared", "fixed", …); file: None for an
    anonymous mapping, else opened read-write if the mapping is shared and writable, read-only otherwise; align: a power
    of two that the start shall be a multiple of (no flag of Linux: a program would map too much and cut it off); huge_size: bytes
    of the pages that "hugetlb" asks for (MAP_HUGE_2MB, MAP_HUGE_1GB), 0 the default.
    Errors: EINVAL, ENOMEM, EEXIST, EPERM, EAGAIN, EACCES, ENODEV, EOVERFLOW (mm/mmap.c:do_mmap).
    """
    if offset & (PAGE_SIZE - 1):
        raise SysError(Errno.EINVAL, "the offset is not a multiple of 4096")
    if length == 0:
        raise SysError(Errno.EINVAL, "length is 0")
    if "hugetlb" not in flags and (file is None or file.hstate is None):
        return _map(k, task, length, prot, flags, address, align, file, offset >> PAGE_SHIFT)
    file, length = _hugetlb_setup(k, file, length, huge_size)
    try:
        return _map(k, task, length, prot, flags, address, align, file, offset >> PAGE_SHIFT)
    except SysError:
        if not file.nlink and not file.vmas:
            hugetlbfs.evict_inode(k, file)
        raise


def _map(
    k: Kernel, task: Task, length: int, prot: int, flags: Collection[str], address: int, align: int, file: Inode | None, pgoff: int
) -> int:
    """mmap once it is known what is to be mapped (do_mmap)."""
    mm = _mm(task)
    fixed = "fixed" in flags or "fixed_noreplace" in flags
    address = address if fixed else _round_hint(address)
    pages = page_align(length) >> PAGE_SHIFT
    if pages == 0:
        raise SysError(Errno.ENOMEM, "length wraps around the address space")
    if mm.map_count > int(k.sysctl["vm.max_map_count"]):
        raise SysError(Errno.ENOMEM, "more mappings than vm.max_map_count")
    start = _place(k, task, mm, address, pages, fixed, align, file, 0 if file is None else pgoff, "shared" in flags)
    if "fixed_noreplace" in flags and find_vma_intersection(mm, start, start + pages):
        raise SysError(Errno.EEXIST, "MAP_FIXED_NOREPLACE, and something is mapped there")
    vm_flags = prot | mm.def_flags | VM_MAY
    vm_flags |= VM_LOCKED if "locked" in flags else 0
    vm_flags |= VM_GROWSDOWN if "growsdown" in flags else 0
    _check_locked(task, mm, vm_flags, "locked" in flags, pages)
    vm_flags = _file_flags(file, vm_flags, flags, pages, pgoff) if file is not None else _anon_flags(vm_flags, flags)
    if "noreserve" in flags and (int(k.sysctl["vm.overcommit_memory"]) != 2 or vm_flags & VM_HUGETLB):
        vm_flags |= VM_NORESERVE
    if file is None:
        pgoff = 0 if vm_flags & VM_SHARED else start
    mmap_region(k, task, start, pages, vm_flags, pgoff, file)
    k.clock.spend(k.costs.vma)
    emit_vma(k, task, "map", start, start + pages, prot=show_prot(prot), name=file.path if file is not None else None)
    if vm_flags & VM_LOCKED or "populate" in flags:
        mm_populate(k, task, start, start + pages)
    return start << PAGE_SHIFT


def _mm(task: Task) -> Mm:
    if task.mm is None:
        raise SysError(Errno.ESRCH, "the process has no address space any more")
    return task.mm


def _hugetlb_setup(k: Kernel, file: Inode | None, length: int, huge_size: int) -> tuple[Inode, int]:
    """The file of hugetlbfs that a mapping is of, and its length in whole huge pages (ksys_mmap_pgoff). EINVAL."""
    if file is not None and file.hstate is None:
        raise SysError(Errno.EINVAL, "MAP_HUGETLB takes no file of an ordinary file system")
    h = file.hstate if file is not None else hugetlb.size_to_hstate(k, huge_size) if huge_size else k.default_hstate
    if h is None:
        raise SysError(Errno.EINVAL, "there is no pool of pages of that size: there are 2M and 1G")
    length = (length + h.size - 1) & -h.size
    return file or hugetlbfs.hugetlb_file_setup(k, h, length), length


def _round_hint(address: int) -> int:
    """A hint to a page, and never below vm.mmap_min_addr (round_hint_to_min)."""
    address &= -PAGE_SIZE
    return MMAP_MIN_ADDR if 0 < address < MMAP_MIN_ADDR else address


def _place(
    k: Kernel, task: Task, mm: Mm, address: int, pages: int, fixed: bool, align: int, file: Inode | None, pgoff: int, shared: bool
) -> int:
    """Where the mapping goes, as a page number (get_unmapped_area)."""
    if pages > TASK_VPNS:
        raise SysError(Errno.ENOMEM, "longer than the address space")
    if file is not None and file.hstate is not None:
        return place_hugetlb(task, mm, address, pages, fixed, file.hstate.nr_pages)
    if fixed:
        return check_fixed(task, address, pages)
    if align & (align - 1):
        raise SysError(Errno.EINVAL, "align is not a power of two")
    if align > PAGE_SIZE and not address:
        return get_unmapped_area_aligned(mm, pages, align >> PAGE_SHIFT)
    if file is None and shared:
        return place_shmem(k, mm, address >> PAGE_SHIFT, pages, 0)
    return place_like(k, mm, address >> PAGE_SHIFT, pages, file, pgoff)


def check_fixed(task: Task, address: int, pages: int) -> int:
    """The page number of a fixed address, or ENOMEM, EINVAL, EPERM."""
    if address > TASK_SIZE - (pages << PAGE_SHIFT):
        raise SysError(Errno.ENOMEM, "the range ends beyond the address space")
    if address & (PAGE_SIZE - 1):
        raise SysError(Errno.EINVAL, "the address is not a multiple of 4096")
    if address < MMAP_MIN_ADDR and not capable(task):
        raise SysError(Errno.EPERM, "below vm.mmap_min_addr")
    return address >> PAGE_SHIFT


def place_hugetlb(task: Task, mm: Mm, address: int, pages: int, fixed: bool, huge: int) -> int:
    """A free range that begins at a multiple of the huge page (hugetlb_get_unmapped_area). EINVAL for a fixed one that does not."""
    if fixed:
        start = check_fixed(task, address, pages)
        if start & (huge - 1):
            raise SysError(Errno.EINVAL, "a mapping of hugetlb begins at a multiple of its page size")
        return start
    hint = (address >> PAGE_SHIFT) & ~(huge - 1)
    if hint and get_unmapped_area(mm, hint, pages) == hint:
        return hint
    return (get_unmapped_area(mm, 0, pages + huge - 1) + huge - 1) & ~(huge - 1)


def place_like(k: Kernel, mm: Mm, hint: int, pages: int, file: Inode | None, pgoff: int) -> int:
    """A free range for a mapping of `file`: a file of the disk gets one that huge pages could map, if it is that long."""
    if file is not None and file.dev == SHMEM_DEV:
        return place_shmem(k, mm, hint, pages, pgoff)
    if file is not None and not file.shmem and not file.kernel:
        end, first = pgoff + pages, -(-pgoff // PMD_PAGES) * PMD_PAGES
        if end - first >= PMD_PAGES and not (hint and get_unmapped_area(mm, hint, pages) == hint):
            try:
                return get_unmapped_area_aligned(mm, pages, PMD_PAGES, pgoff)
            except SysError:
                pass  # no room for both: any place will do
    return get_unmapped_area(mm, hint, pages)


def place_shmem(k: Kernel, mm: Mm, hint: int, pages: int, pgoff: int) -> int:
    """A free range for shared memory: one that huge pages could map, if it may have any and is that long (shmem_get_unmapped_area)."""
    start = get_unmapped_area(mm, hint, pages)
    if k.thp["shmem_enabled"] in ("deny", "never") or pages < PMD_PAGES or (hint and start == hint):
        return start
    offset = pgoff % PMD_PAGES
    if (offset and offset + pages < 2 * PMD_PAGES) or start % PMD_PAGES == offset:
        return start
    try:
        wide = get_unmapped_area(mm, hint, pages + PMD_PAGES - 1)
    except SysError:
        return start
    return wide + (offset - wide) % PMD_PAGES


def _check_locked(task: Task, mm: Mm, vm_flags: int, asked: bool, pages: int) -> None:
    if asked and not can_do_mlock(task):
        raise SysError(Errno.EPERM, "RLIMIT_MEMLOCK is 0")
    if not mlock_future_ok(task, mm, vm_flags, pages):
        raise SysError(Errno.EAGAIN, "more locked memory than RLIMIT_MEMLOCK")


def _file_flags(file: Inode, vm_flags: int, flags: Collection[str], pages: int, pgoff: int) -> int:
    """vm_flags of a file mapping, from how the file was opened; EINVAL, EACCES, ENODEV, EOVERFLOW."""
    most = MAX_FILE_SIZE if file.hstate is None else MAX_LFS_FILESIZE
    if pages << PAGE_SHIFT > most or pgoff > (most >> PAGE_SHIFT) - pages:
        raise SysError(Errno.EOVERFLOW, "beyond the largest offset that the file system has")
    if ("shared" in flags) == ("private" in flags):
        raise SysError(Errno.EINVAL, "a mapping is either shared or private")
    opened_rw = "shared" in flags and bool(vm_flags & VM_WRITE)
    if opened_rw and not file.writable:
        raise SysError(Errno.EACCES, "the file cannot be opened for writing")
    if file.kernel:
        raise SysError(Errno.ENODEV, "this file cannot be mapped")
    if vm_flags & VM_GROWSDOWN:
        raise SysError(Errno.EINVAL, "only anonymous memory grows downwards")
    if file.hstate is not None:
        if pgoff & (file.hstate.nr_pages - 1):
            raise SysError(Errno.EINVAL, "the offset is not a multiple of the huge page size")
        vm_flags |= VM_HUGETLB | VM_DONTEXPAND
    if "shared" not in flags:
        return vm_flags
    return vm_flags | VM_SHARED | VM_MAYSHARE if opened_rw else (vm_flags | VM_MAYSHARE) & ~VM_MAYWRITE


def _anon_flags(vm_flags: int, flags: Collection[str]) -> int:
    if ("shared" in flags) == ("private" in flags):
        raise SysError(Errno.EINVAL, "a mapping is either shared or private")
    if "shared" not in flags:
        return vm_flags
    if vm_flags & VM_GROWSDOWN:
        raise SysError(Errno.EINVAL, "only private memory grows downwards")
    return vm_flags | VM_SHARED | VM_MAYSHARE


def mmap_region(k: Kernel, task: Task, start: int, pages: int, flags: int, pgoff: int, file: Inode | None = None) -> Vma:
    """Make the mapping [start, start + pages), over whatever is there; limits and commitment are checked (ENOMEM)."""
    mm = _mm(task)
    end = start + pages
    if not may_expand_vm(k, task, mm, flags, pages) and not may_expand_vm(k, task, mm, flags, pages - count_pages(mm, start, end)):
        raise SysError(Errno.ENOMEM, "RLIMIT_AS or RLIMIT_DATA")
    if find_vma_intersection(mm, start, end) is not None:
        do_munmap(k, task, start << PAGE_SHIFT, pages << PAGE_SHIFT)
    if flags & (VM_NORESERVE | VM_SHARED | VM_WRITE | VM_HUGETLB) == VM_WRITE:
        vm_enough_memory(k, task, pages)
        flags |= VM_ACCOUNT
    vma = None if file is None and flags & VM_SHARED else expand_neighbour(k, mm, start, end, flags, file, pgoff)
    if vma is None:
        if file is None and flags & VM_SHARED:
            file = shmem.shmem_zero_setup(k, task, pages, flags)
        vma = Vma(mm, start, end, flags, pgoff, file)
        if flags & VM_HUGETLB:
            hugetlbfs.file_mmap(k, task, vma)
        link_vma(vma)
    huge_memory.khugepaged_enter(k, vma)
    vm_stat_account(mm, flags, pages)
    if flags & VM_LOCKED:
        if flags & VM_SPECIAL:
            vma.flags &= ~MCL_FLAGS
        else:
            mm.locked_vm += pages
    vma.flags |= VM_SOFTDIRTY
    return vma


def install_special_mapping(k: Kernel, task: Task, start: int, pages: int, flags: int, name: str) -> Vma:
    """[vdso] and [vvar]: a mapping of the kernel's own pages, which no call of ours moves or merges."""
    mm = _mm(task)
    vma = Vma(mm, start, start + pages, flags | mm.def_flags | VM_DONTEXPAND | VM_SOFTDIRTY, start)
    vma.name, vma.special = name, True
    link_vma(vma)
    vm_stat_account(mm, vma.flags, pages)
    return vma


def mm_populate(k: Kernel, task: Task, start: int, end: int, ignore_errors: bool = True) -> None:
    """Fault a range in, mapping by mapping (mm/gup.c:__mm_populate). Without ignore_errors: ENOMEM at a hole, EFAULT."""
    mm = _mm(task)
    at = start
    while at < end:
        vma = find_vma(mm, at)
        if vma is None or vma.start >= end:
            break
        at = max(at, vma.start)
        stop = min(vma.end, end)
        if not vma.flags & (VM_IO | VM_PFNMAP | VM_LOCKONFAULT):
            try:
                memory.populate(k, task, at, stop)
            except SysError:
                if not ignore_errors:
                    raise
        at = stop


# ---------------------------------------------------------------- munmap


def do_munmap(k: Kernel, task: Task, address: int, length: int) -> None:
    """munmap(2): remove what is mapped in a range. Errors: EINVAL, ENOMEM (mm/mmap.c:do_mas_munmap)."""
    mm = _mm(task)
    if address & (PAGE_SIZE - 1) or address > TASK_SIZE or length > TASK_SIZE - address:
        raise SysError(Errno.EINVAL, "the range is not page-aligned or ends beyond the address space")
    pages = page_align(length) >> PAGE_SHIFT
    if pages == 0:
        raise SysError(Errno.EINVAL, "length is 0")
    start = address >> PAGE_SHIFT
    end = start + pages
    _cut(k, mm, start, end)
    doomed = vmas_between(mm, start, end)
    if doomed:
        _detach(k, mm, doomed)


def _cut(k: Kernel, mm: Mm, start: int, end: int) -> None:
    """Split the mappings that reach over the ends of the range."""
    vma = find_vma_intersection(mm, start, end)
    if vma is None:
        return
    if start > vma.start:
        if end < vma.end and mm.map_count >= int(k.sysctl["vm.max_map_count"]):
            raise SysError(Errno.ENOMEM, "a hole would make one mapping more than vm.max_map_count")
        split_unchecked(k, vma, start)
    last = vmas_between(mm, end - 1, end)
    if last and last[0].end > end:
        split_unchecked(k, last[0], end)


def _detach(k: Kernel, mm: Mm, doomed: list[Vma]) -> None:
    """Free the pages, the page tables, the mappings and what they were charged (unmap_region, remove_vma_list)."""
    at = find_index(mm, doomed[0].start)
    floor = mm.vmas[at - 1].end if at else 0
    after = at + len(doomed)
    ceiling = mm.vmas[after].start if after < len(mm.vmas) else PGTABLES_CEILING
    unmap_region(k, mm, doomed, floor, ceiling)
    update_hiwater_vm(mm)
    for vma in doomed:
        if vma.flags & VM_LOCKED:
            mm.locked_vm -= vma.pages
        if vma.flags & VM_ACCOUNT:
            vm_unacct_memory(k, vma.pages)
        vm_stat_account(mm, vma.flags, -vma.pages)
        close_vma(k, vma)


def unmap_region(k: Kernel, mm: Mm, vmas: list[Vma], floor: int, ceiling: int) -> None:
    """Free the pages of these mappings and every page table that nothing between floor and ceiling needs any more."""
    update_hiwater_rss(k, mm)
    gather: list[int] = []
    tables = int(k.s.mms["nr_tables"][mm.id].sum())
    for vma in vmas:
        memory.zap_page_range(k, vma, vma.start, vma.end, gather)
    run = 0
    for i, vma in enumerate(vmas):
        near = i + 1 < len(vmas) and vmas[i + 1].start <= vma.end + PMD_PAGES
        if not near:
            top = vmas[i + 1].start if i + 1 < len(vmas) else ceiling
            memory.free_pgtables(k, mm, vmas[run].start, vma.end, floor, top)
            run = i + 1
    if gather and mm.users:
        freed = int(k.s.mms["nr_tables"][mm.id].sum()) != tables
        tlb.flush_tlb_mm_range(k, mm, min(gather), max(gather), "munmap", freed)


def close_vma(k: Kernel, vma: Vma) -> None:
    """An emptied mapping goes, with what it was promised and its hold on its file (remove_vma)."""
    hugetlb.hugetlb_vm_op_close(k, vma)
    remove_vma(k, vma)
    put_file(k, vma)


def put_file(k: Kernel, vma: Vma) -> None:
    """A mapping of a file is gone: the last one takes with it a shared-memory object, or a file that was removed."""
    file = vma.file
    if file is None or file.refs or file.nlink:
        return
    if file.shmem:
        shmem.shmem_evict_inode(k, file)
    elif file.hstate is not None:
        hugetlbfs.evict_inode(k, file)
    else:
        filemap.evict_inode(k, file)


# ---------------------------------------------------------------- brk


def do_brk(k: Kernel, task: Task, increment: int) -> int:
    """sbrk(3) by brk(2): move the program break by `increment` bytes and return the new one. Errors: ENOMEM."""
    mm = _mm(task)
    brk = mm.brk + increment
    if brk < mm.start_brk:
        raise SysError(Errno.ENOMEM, "the break cannot go below the start of the heap")
    data = (brk - mm.start_brk) + (mm.end_data - mm.start_data)
    if data > rlimit(task, "data"):
        raise SysError(Errno.ENOMEM, "RLIMIT_DATA")
    new, old = page_align(brk) >> PAGE_SHIFT, page_align(mm.brk) >> PAGE_SHIFT
    if new < old:
        do_munmap(k, task, new << PAGE_SHIFT, (old - new) << PAGE_SHIFT)
    elif new > old:
        above = find_vma(mm, old)
        if brk > TASK_SIZE or (above is not None and new + 1 > start_gap(above)):
            raise SysError(Errno.ENOMEM, "the heap would run into another mapping")
        brk_region(k, task, old, new - old)
    mm.brk = brk
    k.clock.spend(k.costs.vma)
    if new != old:
        emit_vma(k, task, "brk", min(new, old), max(new, old))
    if new > old and mm.def_flags & VM_LOCKED:
        mm_populate(k, task, old, new)
    return brk


def brk_region(k: Kernel, task: Task, start: int, pages: int, flags: int = 0) -> Vma:
    """`pages` more of heap or bss at `start`: the mapping that ends there grows, or a new one is made (do_brk_flags)."""
    mm = _mm(task)
    flags |= DATA_FLAGS | VM_ACCOUNT | mm.def_flags
    if not may_expand_vm(k, task, mm, flags, pages):
        raise SysError(Errno.ENOMEM, "RLIMIT_AS or RLIMIT_DATA")
    if mm.map_count > int(k.sysctl["vm.max_map_count"]):
        raise SysError(Errno.ENOMEM, "more mappings than vm.max_map_count")
    if not mlock_future_ok(task, mm, flags, pages):
        raise SysError(Errno.EAGAIN, "RLIMIT_MEMLOCK")
    vm_enough_memory(k, task, pages)
    at = find_index(mm, start)
    below = mm.vmas[at - 1] if at else None
    if below is not None and below.end == start and can_merge_after(below, flags, None, None, start, None):
        vma = below
        adjust(vma, vma.start, start + pages)
        huge_memory.khugepaged_enter(k, vma)
    else:
        vma = Vma(mm, start, start + pages, flags, start)
        link_vma(vma)
    vma.flags |= VM_SOFTDIRTY
    vm_stat_account(mm, flags, pages)
    if flags & VM_LOCKED:
        mm.locked_vm += pages
    return vma


# ---------------------------------------------------------------- fork and exit


def dup_mmap(k: Kernel, task: Task, mm: Mm, old: Mm) -> None:
    """fork: fill the child's empty address space from its parent's (kernel/fork.c:dup_mmap).

    Parameters: task, mm: the child and its address space, which has a pgd and a cgroup already; old: the parent's.
    Errors: ENOMEM, for the commitment or a page table; the caller then calls exit_mmap on what there is.
    """
    for name in ("start_brk", "brk", "start_stack", "start_code", "end_code", "start_data", "end_data", "mmap_base", "exe", "thp_disable"):
        setattr(mm, name, getattr(old, name))
    if old.khugepaged:
        huge_memory.khugepaged_add(k, mm)
    ksm.ksm_fork(k, mm, old)
    for parent in old.vmas:
        if parent.flags & VM_DONTCOPY:
            continue
        if parent.flags & VM_ACCOUNT:
            vm_enough_memory(k, task, parent.pages)
        child = dup_vma(parent, mm)
        child.flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
        if not parent.flags & VM_WIPEONFORK:
            anon_vma_fork(k, child, parent)
        link_vma(child)
        vm_stat_account(mm, child.flags, child.pages)
        if not parent.flags & VM_WIPEONFORK:
            memory.copy_page_range(k, child, parent)
    mm.hiwater_vm = mm.total_vm
    tlb.flush_tlb_mm(k, old, "fork made its pages read-only")


def exit_mmap(k: Kernel, task: Task | None, mm: Mm) -> None:
    """The last user of an address space is gone: free its pages, tables, mappings and commitments (mm/mmap.c)."""
    huge_memory.khugepaged_exit(k, mm)
    if not mm.vmas:
        return
    unmap_region(k, mm, mm.vmas, 0, PGTABLES_CEILING)
    for vma in reversed(list(mm.vmas)):
        if vma.flags & VM_ACCOUNT:
            vm_unacct_memory(k, vma.pages)
        close_vma(k, vma)
    mm.total_vm = mm.data_vm = mm.exec_vm = mm.stack_vm = mm.locked_vm = 0
