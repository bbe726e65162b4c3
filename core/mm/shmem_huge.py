"""Huge pages of shared memory (mm/shmem.c, mm/memory.c:do_set_pmd).

**Where.** A hole of a shared-memory object is filled by 2 MiB at once if its 512 places are empty, all of them, and `shmem_enabled` says so:

    always        yes, even where the object ends before the 2 MiB do
    within_size   if the 2 MiB end within the object; else as advise
    advise        in a mapping with MADV_HUGEPAGE
    never         no            deny: nowhere, whatever a mount says; force: everywhere

`enabled`, for anonymous memory, has no say here; `defrag` says how hard the fault tries. The charge always tries hard: a cgroup at its limit is
reclaimed from before the fault falls back to a small page (thp_file_fallback, thp_file_fallback_charge).

**How it is mapped.** By one entry where mapping and object lie alike (address and offset differ by a multiple of 2 MiB) and the 2 MiB lie wholly
inside the mapping, else by small ones, 16 around a read. No page table is put by: an entry that comes apart (munmap, mprotect, madvise
of a part) is simply emptied, all 2 MiB of it, and faults come again: the page stays in the object.

    16M mapped, 6M written        3 faults, 3 huge pages (thp_file_alloc), mapped whole (thp_file_mapped): RssShmem, ShmemPmdMapped 6144 kB
    fork, the child reads 16M     nothing was copied: 8 faults, 4 of them find a huge page, 4 make one
    munmap of 3M .. 5M            two entries come apart: RssShmem - 4096 kB, of which 2048 kB come back by faults, 4 KiB each
    5M of an object of 5M         2 huge entries, then 256 small ones to a third huge page, half of which lies beyond the end

**Beyond the end.** The last huge page of an object may reach beyond its end: memory that nobody can use. Such objects stand in a list
(`Kernel.shmem`), and when the machine is short of memory those pages are split (`shmem_unused_huge_shrink`): what lies beyond the end is freed.
By the rules of shrinkers a few objects are worth it only when reclaim is near its end (`shrinker`).

    5M of an object of 5M, 8 of them        24 huge pages, 48M; under pressure 8 of them split: 8M come free

**In the tree** of the object each of the 512 places names its own frame; the whole is held 512 times. Swap takes small pages only: reclaim
splits first, which unmaps; what lies beyond the end of the object is dropped then.

Source: mm/shmem.c:shmem_is_huge, shmem_get_folio_gfp, shmem_alloc_hugefolio, shmem_unused_huge_shrink;
fs/super.c:super_cache_scan; mm/memory.c:do_set_pmd, finish_fault; mm/filemap.c:filemap_map_pmd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.mman import VM_LOCKED, VM_SHARED, VM_WRITE
from core.abi.page_flags import PG_DIRTY, PG_SHMEM, PG_SWAPBACKED, PG_UPTODATE
from core.events import Thp
from core.jit import njit, step
from core.mm import rmap_walk
from core.mm.compound import PG_COMPOUND, compound_head, prep_compound_page
from core.mm.huge_memory import (
    FALL_BACK,
    HUGE_FILE,
    HUGE_SHMEM,
    STOP,
    THP_FILE,
    THP_SHMEM,
    THP_WITHIN,
    alloc_charged_huge,
    pmd_alloc,
    put_split_head,
    split_huge_page,
)
from core.mm.huge_pmd import page_add_file_rmap_huge
from core.mm.mm_types import CTL_SHRINKLIST, HPAGE_PMD_NR, HPAGE_PMD_ORDER, MM_SHMEMPAGES, State
from core.mm.page_alloc import zone_of
from core.mm.page_ops import ASK_OBJECT, HUGE_XA_SHARE, NEW_PAGES, stat_add, xa_leaf, xa_leaf_create
from core.mm.pgtable import PTE_D, PTE_PS, PTE_RW, PTE_SOFT_DIRTY
from core.mm.rmap_walk import Rmap
from core.mm.shrinker import do_shrink_slab
from core.mm.slab import account_slab
from core.mm.swap import folio_add_lru, mlock_page
from core.vmstat import EVENT, NR_FILE_PAGES, NR_SHMEM, NR_SHMEM_THPS

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Inode

SUPER_BATCH = 1024  # of a file system's shrinker
NOTHING, SPLIT, FAILED = range(3)  # how `split_last` ends
THP_FILE_ALLOC, THP_FILE_MAPPED = EVENT["thp_file_alloc"], EVENT["thp_file_mapped"]
NEW_HUGE = PG_UPTODATE | PG_SWAPBACKED | PG_SHMEM


@step
def shmem_is_huge(v, index: int) -> bool:
    """Shall the hole at `index` be filled by 2 MiB at once?"""
    if v["thp"] & THP_SHMEM:
        return True
    return bool(v["thp"] & THP_WITHIN) and (index | 511) < v["file_pages"]


@step
def is_hole(s: State, root: int, index: int) -> bool:
    """Are all 512 places around `index` empty: no page, no slot?"""
    leaf = xa_leaf(s, root, index)
    for i in range(HPAGE_PMD_NR if leaf else 0):
        if s.xa[leaf, i]:
            return False
    return True


@step
def may_fill_huge(s: State, v, index: int, vpn: int) -> bool:
    """A fault at `vpn` found a hole: is a huge page to be tried?"""
    return vpn & ~511 != v["no_thp"] and shmem_is_huge(v, index) and is_hole(s, v["root"], index)


@step
def policy_known(v, index: int) -> bool:
    """Does vmf's memory policy hold for this page of the object? Else the object is asked (reason ASK_OBJECT, its index in vmf.victim)."""
    if v["of_start"] <= index < v["of_end"]:
        return True
    v["reason"] = ASK_OBJECT
    v["victim"] = index
    return False


@step
def shmem_get_huge(s: State, v, index: int) -> int:
    """512 zeroed frames become the 2 MiB of the object around `index`: the first; or 0 with vmf.reason."""
    first = index & ~511
    if not policy_known(v, first):
        return 0
    head = alloc_charged_huge(s, v, (first + v["ino"]) >> HPAGE_PMD_ORDER)
    if head == 0:
        return 0
    zid = zone_of(s, head)
    prep_compound_page(s, head, HPAGE_PMD_ORDER, NEW_HUGE)
    page = s.mem[head]
    page["refcount"] = HPAGE_PMD_NR
    page["mapping"] = v["file"]
    page["index"] = first
    leaf = xa_leaf_create(s, v["root"], first)
    for i in range(HPAGE_PMD_NR):
        s.xa[leaf, i] = head + i
    for counter in (NR_FILE_PAGES, NR_SHMEM, NR_SHMEM_THPS):
        stat_add(s, zid, v["memcg"], counter, HPAGE_PMD_NR)
    account_slab(s, v["memcg"], HUGE_XA_SHARE)
    s.vm_event[THP_FILE_ALLOC] += 1
    folio_add_lru(s, zid, head)
    v["count"][NEW_PAGES] += HPAGE_PMD_NR
    return head


@step
def suits(v, first: int) -> bool:
    """Could one entry map the 2 MiB at `first` (transhuge_vma_suitable)?"""
    return first >= v["vm_start"] and first + HPAGE_PMD_NR <= v["vm_end"] and (v["vm_start"] - v["vm_pgoff"]) & 511 == 0


@step
def do_huge_pmd_file_page(s: State, v, vpn: int, write: bool) -> int:
    """A fault on shared memory where no page table is: one entry for the huge page that is there, or is made.

    Its kind; FALL_BACK: small entries will do; STOP with vmf.reason.
    """
    index = vpn - v["vm_start"] + v["vm_pgoff"]
    if not v["thp"] & THP_FILE or not suits(v, vpn & ~511) or index >= v["file_pages"] or (write and not v["vm_flags"] & VM_SHARED):
        return FALL_BACK
    leaf = xa_leaf(s, v["root"], index)
    pfn = s.xa[leaf, index & 511] if leaf else 0
    if pfn < 0 or (pfn == 0 and not may_fill_huge(s, v, index, vpn)) or (pfn and not s.mem[pfn]["flags"] & PG_COMPOUND):
        return FALL_BACK
    pmd = pmd_alloc(s, v, v["mm"], vpn)
    if pmd == 0:
        return STOP
    head = compound_head(s, pfn) if pfn else shmem_get_huge(s, v, index)
    if head == 0:
        return STOP
    do_set_pmd(s, v, s.mem[pmd]["private"], vpn, head, write)
    return HUGE_FILE if pfn else HUGE_SHMEM


@step
def do_set_pmd(s: State, v, tid: int, vpn: int, head: int, write: bool) -> None:
    """One entry of PMD table `tid` maps a huge page of shared memory."""
    entry = (head << 12) | v["prot"] | PTE_PS
    if write:
        entry |= PTE_D | PTE_SOFT_DIRTY | (PTE_RW if v["vm_flags"] & VM_WRITE else 0)
        s.mem[head]["flags"] |= PG_DIRTY
    zid = zone_of(s, head)
    s.mms[v["mm"]]["rss"][MM_SHMEMPAGES] += HPAGE_PMD_NR
    page_add_file_rmap_huge(s, zid, head)
    if v["vm_flags"] & VM_LOCKED:
        mlock_page(s, zid, head)
    s.pt[tid, (vpn >> 9) & 511] = entry
    s.vm_event[THP_FILE_MAPPED] += 1


# ---------------------------------------------------------------- beyond the end


@njit
def last_huge(s: State, root: int, index: int) -> int:
    """The huge page of an object at `index`: its first frame, or 0."""
    leaf = xa_leaf(s, root, index)
    pfn = s.xa[leaf, index & 511] if leaf else 0
    return compound_head(s, pfn) if pfn > 0 and s.mem[pfn]["flags"] & PG_COMPOUND else 0


@njit
def split_last(s: State, r: Rmap, root: int, index: int) -> int:
    """Split the huge page of an object at `index`: NOTHING there to split, SPLIT, or FAILED because somebody holds it."""
    head = last_huge(s, root, index)
    if head == 0:
        return NOTHING
    if not split_huge_page(s, r, head):
        return FAILED
    put_split_head(s, head)
    return SPLIT


def keep_in_view(k: Kernel, inode: Inode) -> None:
    """The object has got a huge page: to the shrink list with it, if its last one reaches beyond the end by two pages or more."""
    last, listed = inode.nr_file_pages & -HPAGE_PMD_NR, k.shmem["shrinklist"]
    if inode.nr_file_pages < last + HPAGE_PMD_NR - 1 and inode.id not in listed and last_huge(k.s, inode.root, last):
        listed.append(inode.id)
        k.s.ctl[CTL_SHRINKLIST] = len(listed)


def forget(k: Kernel, inode: Inode) -> None:
    """The object goes."""
    if inode.id in k.shmem["shrinklist"]:
        k.shmem["shrinklist"].remove(inode.id)
        k.s.ctl[CTL_SHRINKLIST] = len(k.shmem["shrinklist"])


def shmem_unused_huge_shrink(k: Kernel, nr: int) -> int:
    """Split the last huge pages of the first `nr` objects of the list, the last of them first: how many came apart."""
    listed, split = k.shmem["shrinklist"], 0
    batch = [listed.pop(0) for _ in range(min(nr, len(listed)))]
    for id in reversed(batch):
        inode = k.inodes[id]
        end = split_last(k.s, rmap_walk.tables(k), inode.root, inode.nr_file_pages & -HPAGE_PMD_NR)
        split += end == SPLIT
        if end == FAILED:
            listed.insert(0, id)
    k.s.ctl[CTL_SHRINKLIST] = len(listed)
    rmap_walk.settle(k)
    return split


def shmem_unused_huge_scan(k: Kernel, node: int, priority: int) -> int:
    """Reclaim's round over the file system of shared memory, the shrinker of its super block (super_cache_count, super_cache_scan)."""
    split = 0

    def scan(nr: int) -> None:
        nonlocal split
        objects = len(k.shmem["shrinklist"])
        split += shmem_unused_huge_shrink(k, nr * objects // (objects + 1))

    freeable = len(k.shmem["shrinklist"]) * int(k.sysctl["vm.vfs_cache_pressure"]) // 100
    if freeable:
        deferred = k.shmem["deferred"]
        deferred[node] = do_shrink_slab(k, freeable, deferred[node], priority, SUPER_BATCH, scan)
    if split:
        k.emit(Thp(k.clock.now, "split", split * HPAGE_PMD_NR, reason="part of it lies beyond the end of its object and memory is short"))
    return split
