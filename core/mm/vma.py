"""Mappings of an address space: finding, placing, splitting, merging (mm/mmap.c, mm/vma.c since 6.10).

    0x400000                                             mmap_base 0x7ffff7fff000    stack 0x7ffffffff000
    |program|heap ->                      <- libraries, mappings |   gap 128 MiB   <- stack |
    +-------+----+------------------------+---+------+------+----+-----------------+--------+

**Placing.** A new mapping goes to the highest hole below mmap_base that is large enough; a hint is used if that very
range is free. Below a stack lies its guard gap of 1 MiB (256 pages), where nothing is placed. When nothing is left
below mmap_base the search starts again from a third of the address space, upwards.

**Merging.** Two neighbours become one when nothing tells them apart: same flags (soft-dirty aside), same file at
continuing offsets, same memory policy, none of VM_IO, VM_DONTEXPAND, VM_PFNMAP, VM_MIXEDMAP, and anon_vmas that fit:
the same one; or none on the side that joins and a chain of exactly one on the side that is joined (a longer chain
was inherited by a fork). A private anonymous mapping's offset is its address, so only neighbours by birth merge:

      mprotect(B)          AAAA BBBB CCCC     B differs: three mappings
      mprotect back        AAAAAAAAAAAAAA     alike again: one
      B touched, A, C not  AAAA BBBB CCCC     an anon_vma does not move into a mapping that has none (6.1)

**Splitting** costs one mapping; a process may have vm.max_map_count (65530) of them, and one more by mmap.

Here the mappings are a sorted list with a list of their starts to bisect; Linux's maple tree has the same order.
Addresses are page numbers (vpn) throughout.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import (
    MMAP_MIN_ADDR,
    PAGE_SHIFT,
    STACK_GUARD_GAP,
    TASK_VPNS,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_SOFTDIRTY,
    VM_SPECIAL,
)
from core.mm import hugetlb_share
from core.mm.huge_pmd import vma_adjust_trans_huge
from core.mm.mm_types import Vma
from core.mm.rmap import anon_vma_clone, anon_vma_prepare, unlink_anon_vmas
from core.mm.util import may_expand_vm, mlock_future_ok, rlimit, vm_enough_memory, vm_stat_account

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mempolicy import Mempolicy
    from core.mm.mm_types import AnonVma, Inode, Mm
    from core.sched.task import Task

GUARD_PAGES = STACK_GUARD_GAP >> PAGE_SHIFT
MIN_VPN = MMAP_MIN_ADDR >> PAGE_SHIFT
UNMAPPED_BASE = (TASK_VPNS + 2) // 3  # where the bottom-up search begins


# ---------------------------------------------------------------- finding


def find_index(mm: Mm, vpn: int) -> int:
    """The position of the first mapping that ends above `vpn`; len(mm.vmas) if there is none."""
    at = bisect_right(mm.starts, vpn) - 1
    return at if at >= 0 and mm.vmas[at].end > vpn else at + 1


def find_vma(mm: Mm, vpn: int) -> Vma | None:
    """The first mapping that ends above `vpn`: the one that holds it, or the next one up."""
    at = bisect_right(mm.starts, vpn)
    if at and (vma := mm.vmas[at - 1]).end > vpn:
        return vma
    return mm.vmas[at] if at < len(mm.vmas) else None


def vma_lookup(mm: Mm, vpn: int) -> Vma | None:
    """The mapping that holds `vpn`, if any."""
    vma = find_vma(mm, vpn)
    return vma if vma is not None and vma.start <= vpn else None


def find_vma_intersection(mm: Mm, start: int, end: int) -> Vma | None:
    """The first mapping that shares a page with [start, end)."""
    vma = find_vma(mm, start)
    return vma if vma is not None and vma.start < end else None


def vmas_between(mm: Mm, start: int, end: int) -> list[Vma]:
    """The mappings that share a page with [start, end), in address order."""
    return mm.vmas[find_index(mm, start) : bisect_left(mm.starts, end)]


def count_pages(mm: Mm, start: int, end: int) -> int:
    """How many pages of [start, end) are mapped."""
    return sum(min(vma.end, end) - max(vma.start, start) for vma in vmas_between(mm, start, end))


# ---------------------------------------------------------------- the list


def link_vma(vma: Vma) -> None:
    """Put a mapping into its address space and into its file's list of mappings."""
    mm = vma.mm
    at = bisect_left(mm.starts, vma.start)
    mm.vmas.insert(at, vma)
    mm.starts.insert(at, vma.start)
    mm.generation += 1
    if vma.file is not None:
        vma.file.vmas.append(vma)
        vma.file.refs += 1


def remove_vma(k: Kernel, vma: Vma) -> None:
    """Take a mapping out; its pages must be unmapped, its accounting is the caller's."""
    mm = vma.mm
    at = bisect_left(mm.starts, vma.start)
    del mm.vmas[at], mm.starts[at]
    mm.generation += 1
    unlink_anon_vmas(k, vma)
    if vma.file is not None:
        vma.file.vmas.remove(vma)
        vma.file.refs -= 1


def adjust(vma: Vma, start: int, end: int) -> None:
    """Move a mapping's bounds; its offset follows its start."""
    if start != vma.start:
        at = bisect_left(vma.mm.starts, vma.start)
        vma.mm.starts[at] = start
        vma.pgoff += start - vma.start
        vma.start = start
    vma.end = end
    vma.mm.generation += 1


def dup_vma(vma: Vma, mm: Mm) -> Vma:
    """A copy without anon_vma, not yet linked."""
    new = Vma(mm, vma.start, vma.end, vma.flags, vma.pgoff, vma.file)
    new.policy, new.name, new.special, new.swap_ra = vma.policy, vma.name, vma.special, vma.swap_ra
    if mm is vma.mm:  # a child is promised nothing
        new.resv, new.resv_unmapped = vma.resv, vma.resv_unmapped
    return new


# ---------------------------------------------------------------- splitting


def split_vma(k: Kernel, vma: Vma, vpn: int) -> Vma:
    """Cut a mapping at `vpn`, strictly inside it; returns the upper part. ENOMEM at vm.max_map_count."""
    if vma.mm.map_count >= int(k.sysctl["vm.max_map_count"]):
        raise SysError(Errno.ENOMEM, "a split would pass vm.max_map_count")
    return split_unchecked(k, vma, vpn)


def split_unchecked(k: Kernel, vma: Vma, vpn: int) -> Vma:
    """split_vma for those who have checked the number of mappings (munmap). EINVAL inside a huge page of hugetlb."""
    if vma.file is not None and vma.file.hstate is not None and vpn & (vma.file.hstate.nr_pages - 1):
        raise SysError(Errno.EINVAL, f"a mapping of hugetlb ends at multiples of {vma.file.hstate.size >> 20} MiB")
    vma_adjust_trans_huge(k, vma, vpn)
    hugetlb_share.unshare_at(k, vma, vpn)
    upper = dup_vma(vma, vma.mm)
    upper.start = vpn
    upper.pgoff = vma.pgoff + (vpn - vma.start)
    upper.anon_vma = vma.anon_vma
    anon_vma_clone(upper, vma)
    vma.end = vpn
    link_vma(upper)
    return upper


# ---------------------------------------------------------------- merging


def _anon_vmas_fit(joining: AnonVma | None, joined: AnonVma | None, vma: Vma | None) -> bool:
    if (joining is None or joined is None) and (vma is None or len(vma.chain) == 1):
        return True
    return joining is joined


def _alike(vma: Vma, flags: int, file: Inode | None, policy: Mempolicy | None) -> bool:
    return not (vma.flags ^ flags) & ~VM_SOFTDIRTY and vma.file is file and vma.policy == policy and not vma.special


def can_merge_after(vma: Vma, flags: int, anon_vma: AnonVma | None, file: Inode | None, pgoff: int, policy: Mempolicy | None) -> bool:
    """True if a range with these properties may be appended to `vma`."""
    return _alike(vma, flags, file, policy) and _anon_vmas_fit(anon_vma, vma.anon_vma, vma) and vma.pgoff + vma.pages == pgoff


def can_merge_before(vma: Vma, flags: int, anon_vma: AnonVma | None, file: Inode | None, pgoff: int, policy: Mempolicy | None) -> bool:
    """True if a range with these properties, whose end has offset `pgoff`, may be put in front of `vma`."""
    return _alike(vma, flags, file, policy) and _anon_vmas_fit(anon_vma, vma.anon_vma, vma) and vma.pgoff == pgoff


def _neighbours(mm: Mm, start: int, end: int) -> tuple[Vma | None, Vma | None]:
    """The mapping that ends at `start` and the one that begins at `end`."""
    at = bisect_left(mm.starts, start)
    left = mm.vmas[at - 1] if at and mm.vmas[at - 1].end == start else None
    at = bisect_left(mm.starts, end)
    right = mm.vmas[at] if at < len(mm.vmas) and mm.vmas[at].start == end else None
    return left, right


def _import_anon_vma(importer: Vma, exporter: Vma | None) -> None:
    """A mapping that swallows pages of another must be found by their anon_vma."""
    if exporter is not None and exporter.anon_vma is not None and importer.anon_vma is None:
        importer.anon_vma = exporter.anon_vma
        anon_vma_clone(importer, exporter)


def vma_merge(
    k: Kernel, mm: Mm, start: int, end: int, flags: int, anon_vma: AnonVma | None, file: Inode | None, pgoff: int,
    policy: Mempolicy | None, cur: Vma | None = None,
) -> Vma | None:  # fmt: skip
    """Let [start, end), about to have these properties, join its neighbours; the merged mapping, or None.

    `cur` is the mapping that holds the range now and is about to change (None: the range is a hole). Linux numbers
    the outcomes 1 to 8: 1, 6 both sides; 2, 5, 7 the left one grows; 3, 4, 8 the right one does.
    """
    if flags & VM_SPECIAL:
        return None
    left, right = _neighbours(mm, start, end)
    if left is not None and not can_merge_after(left, flags, anon_vma, file, pgoff, policy):
        left = None
    if right is not None and not can_merge_before(right, flags, anon_vma, file, pgoff + end - start, policy):
        right = None
    if left is not None and right is not None and _anon_vmas_fit(left.anon_vma, right.anon_vma, None):
        _import_anon_vma(left, cur if cur is not None and cur.anon_vma is not None else right)
        last = right.end
        remove_vma(k, right)
        _give_up(k, cur, start, end)
        adjust(left, left.start, last)
        return left
    if left is not None:
        if cur is not None:
            vma_adjust_trans_huge(k, cur, end)
        _import_anon_vma(left, cur)
        _give_up(k, cur, start, end)
        adjust(left, left.start, end)
        return left
    if right is not None:
        if cur is not None:
            vma_adjust_trans_huge(k, cur, start)
        _import_anon_vma(right, cur)
        _give_up(k, cur, start, end)
        adjust(right, start, right.end)
        return right
    return None


def _give_up(k: Kernel, cur: Vma | None, start: int, end: int) -> None:
    """`cur` loses [start, end), which is all of it or touches one of its ends."""
    if cur is None:
        return
    if cur.start == start and cur.end == end:
        remove_vma(k, cur)
    elif cur.start == start:
        adjust(cur, end, cur.end)
    else:
        adjust(cur, cur.start, start)


def expand_neighbour(k: Kernel, mm: Mm, start: int, end: int, flags: int, file: Inode | None, pgoff: int) -> Vma | None:
    """What mmap tries before it makes a mapping: grow a neighbour over the new range, or let two meet (mmap_region).

    The right neighbour is asked first; if it takes the range, the left one must fit *its* anon_vma to join too.
    """
    if flags & VM_SPECIAL:
        return None
    left, right = _neighbours(mm, start, end)
    if right is not None and not can_merge_before(right, flags, None, file, pgoff + end - start, None):
        right = None
    theirs = right.anon_vma if right is not None else None
    if left is not None and not can_merge_after(left, flags, theirs, file, pgoff, None):
        left = None
    if left is None:
        if right is not None:
            adjust(right, start, right.end)
        return right
    if right is not None:
        _import_anon_vma(left, right)
        end = right.end
        remove_vma(k, right)
    adjust(left, left.start, end)
    return left


def set_vma(k: Kernel, vma: Vma, start: int, end: int, flags: int, policy: Mempolicy | None) -> Vma:
    """Give [start, end) of a mapping new flags and policy: merge with what is now alike, or split it off.

    Returns the mapping that holds the range afterwards. ENOMEM at vm.max_map_count.
    """
    merged = vma_merge(k, vma.mm, start, end, flags, vma.anon_vma, vma.file, vma.pgoff + start - vma.start, policy, vma)
    if merged is None:
        if start != vma.start:
            vma = split_vma(k, vma, start)
        if end != vma.end:
            split_vma(k, vma, end)
        merged = vma
    merged.flags = flags | (merged.flags & VM_SOFTDIRTY)
    merged.policy = policy
    return merged


# ---------------------------------------------------------------- placing


def start_gap(vma: Vma) -> int:
    """Where a mapping begins for those who look for room: a stack's guard gap belongs to it."""
    return max(vma.start - GUARD_PAGES, 0) if vma.flags & VM_GROWSDOWN else vma.start


def get_unmapped_area(mm: Mm, hint: int, pages: int) -> int:
    """A free range of `pages`: at the hint if that is free, else as high as possible below mmap_base (vpn; ENOMEM)."""
    if pages > TASK_VPNS:
        raise SysError(Errno.ENOMEM, "longer than the address space")
    if hint and hint >= MIN_VPN and hint + pages <= TASK_VPNS:
        above = find_vma(mm, hint)
        if above is None or hint + pages <= start_gap(above):
            return hint
    start = _topdown(mm, pages)
    if start < 0:
        start = _bottomup(mm, pages)
    if start < 0:
        raise SysError(Errno.ENOMEM, "no hole in the address space is large enough")
    return start


def get_unmapped_area_aligned(mm: Mm, pages: int, align: int, offset: int = 0) -> int:
    """A free range whose start is congruent to `offset` modulo `align` pages: room for both is found, the start moved up.

    So a huge page can map it: what a program does by hand, and ext4 for file mappings (thp_get_unmapped_area).
    """
    start = get_unmapped_area(mm, 0, pages + align)
    return start + ((offset - start) & (align - 1))


def _topdown(mm: Mm, pages: int) -> int:
    high = mm.mmap_base >> PAGE_SHIFT
    at = bisect_left(mm.starts, high)
    if at < len(mm.vmas):
        high = min(high, start_gap(mm.vmas[at]))
    for vma in reversed(mm.vmas[:at]):
        if high - vma.end >= pages:
            return high - pages
        high = min(high, start_gap(vma))
    return high - pages if high - pages >= MIN_VPN else -1


def _bottomup(mm: Mm, pages: int) -> int:
    low = UNMAPPED_BASE
    for vma in mm.vmas[find_index(mm, low) :]:
        if start_gap(vma) - low >= pages:
            return low
        low = vma.end
    return low if low + pages <= TASK_VPNS else -1


# ---------------------------------------------------------------- the stack grows


def expand_stack(k: Kernel, task: Task, vma: Vma, vpn: int) -> None:
    """Grow a VM_GROWSDOWN mapping down to `vpn` (mm/mmap.c:expand_downwards). ENOMEM or EPERM: the fault is a SIGSEGV."""
    mm = vma.mm
    if vpn < MIN_VPN:
        raise SysError(Errno.EPERM, "the stack would reach vm.mmap_min_addr")
    at = bisect_left(mm.starts, vma.start)
    below = mm.vmas[at - 1] if at else None
    if below is not None and not below.flags & VM_GROWSDOWN and below.flags & VM_ACCESS and vpn - below.end < GUARD_PAGES:
        raise SysError(Errno.ENOMEM, "a mapping lies in the stack's guard gap")
    anon_vma_prepare(k, vma)
    if vpn >= vma.start:
        return
    grow, size = vma.start - vpn, vma.end - vpn
    _may_grow_stack(k, task, vma, size, grow)
    vm_stat_account(mm, vma.flags, grow)
    if vma.flags & VM_LOCKED:
        mm.locked_vm += grow
    adjust(vma, vpn, vma.end)


def _may_grow_stack(k: Kernel, task: Task, vma: Vma, size: int, grow: int) -> None:
    if not may_expand_vm(k, task, vma.mm, vma.flags, grow):
        raise SysError(Errno.ENOMEM, "RLIMIT_AS")
    if size << PAGE_SHIFT > rlimit(task, "stack"):
        raise SysError(Errno.ENOMEM, "RLIMIT_STACK")
    if not mlock_future_ok(task, vma.mm, vma.flags, grow):
        raise SysError(Errno.ENOMEM, "RLIMIT_MEMLOCK")
    if vma.flags & VM_ACCOUNT:  # Linux charges always, and never takes back what a read-only stack grew by
        vm_enough_memory(k, task, grow)
