"""Transparent huge pages: 2 MiB of anonymous memory as one page, one entry, one fault (mm/huge_memory.c).

**Where.** A fault gets a huge page if the 2 MiB around it lie wholly inside an anonymous private mapping, no page table is there yet, and
`enabled` says so: always, or madvise and the mapping was advised (MADV_HUGEPAGE). MADV_NOHUGEPAGE and PR_SET_THP_DISABLE forbid it. On a
machine below 512M of usable memory `enabled` starts as never.

    mmap 32M (aligned), touch 8M      4 faults, 4 pages of 2 MiB: AnonHugePages 8192 kB, RSS 8192 kB, 4 page tables put by
    first *read* of another 2M        the huge zero page: 1 fault, no RSS; a write there splits the entry and copies 4 KiB

**How hard it tries** (`defrag`). First the free lists of the task's own node. If no block of order 9 is free there: `always`, or `madvise` and
`defer+madvise` in an advised mapping, let the fault compact and reclaim (a stall, visible in elapsed_ns) and then take another node's; `defer` wakes
kswapd and kcompactd and goes on with 4 KiB pages; `never`, and unadvised mappings otherwise, go on at once. A cgroup at its limit: the 512 pages are
charged at once or not at all; then the fault falls back (thp_fault_fallback_charge).

**What takes it apart.** Two things are kept apart (facts TH-10):

    PMD split     the page *table*: 512 small entries instead of one (`huge_pmd`). Frees nothing.
    page split    the *page*: 512 pages of their own (`split_huge_page`), each on the LRU list, unmapped ones freed

A write to a huge page that a fork shares splits the PMD and copies 4 KiB (6.1 copies no 2 MiB). A huge page of which a part is
unmapped stays whole, in memory and on its cgroup's bill, until reclaim's shrinker finds it on the deferred split queue. Reclaim
swaps a huge page out whole where the swap device hands out runs of 512 slots (thp_swpout: those that do not rotate), and else splits it first
(thp_swpout_fallback).

**Fork** shares the huge page: both entries read-only. **mremap** moves the huge entry if both places are aligned, else splits.

Huge pages of shared memory have rules of their own: `shmem_huge`. Files of the disk have none (CONFIG_READ_ONLY_THP_FOR_FS is off in the kernel
that was recorded, as in Debian's).

Source: mm/huge_memory.c of 6.1; facts TH-01..TH-13, PF-19.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.mempolicy import MPOL_BIND, MPOL_INTERLEAVE, MPOL_PREFERRED, MPOL_PREFERRED_MANY
from core.abi.mman import PMD_PAGES, VM_HUGEPAGE, VM_HUGETLB, VM_LOCKED, VM_NOHUGEPAGE, VM_SPECIAL, VM_WRITE
from core.abi.page_flags import (
    PG_ANON,
    PG_ANON_EXCLUSIVE,
    PG_DIRTY,
    PG_HEAD,
    PG_LRU,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UNEVICTABLE,
    PG_UPTODATE,
    PG_ZERO,
)
from core.events import Thp
from core.jit import njit, step
from core.mm import rmap_walk
from core.mm.compound import (
    THP_DEFERRED_SPLIT_PAGE,
    add_compound_mapcount,
    clear_compound_page,
    compound_mapcount,
    deferred_split_huge_page,
    prep_compound_page,
    total_mapcount,
    undefer,
)
from core.mm.huge_pmd import NR_ANON_THPS, page_remove_file_rmap_huge, split_huge_pmd
from core.mm.mm_inline import HOME_SHIFT, gen_list, lru_gen_enabled, lru_type
from core.mm.mm_types import CTL_HUGE_ZERO, HPAGE_PMD_NR, HPAGE_PMD_ORDER, MIGRATE_MOVABLE, MM_ANONPAGES, MM_SHMEMPAGES, SHMEM_DEV, WMARK_MIN, State
from core.mm.page_alloc import free_one_page, get_page_from_freelist, zone_of
from core.mm.page_counter import uncharge
from core.mm.page_ops import (
    GFP_USER,
    HUGE_XA_SHARE,
    XA_NODE_SHARE,
    alloc_table,
    charge_block,
    free_page,
    free_table,
    locked_elsewhere,
    lru_add_new,
    nth_node,
    put_page,
    remove_from_page_cache,
    stat_add,
    xa_leaf,
)
from core.mm.pgtable import (
    PFN_MASK,
    PTE_A,
    PTE_D,
    PTE_PS,
    PTE_RW,
    PTE_SOFT_DIRTY,
    TABLE_ENTRY,
    deposit,
    huge_entry,
    pmd_frame,
    withdraw,
)
from core.mm.rmap_walk import Rmap, split_all_pmds, unmap_small_entries
from core.mm.shrinker import do_shrink_slab
from core.mm.slab import account_slab
from core.mm.swap import lruvec_of, mlock_page, munlock_page, page_lru
from core.mm.swap_state import free_swap, free_swap_cache
from core.vmstat import EVENT, MEMCG, NR_ANON_MAPPED, NR_SHMEM_THPS, NUMA_INTERLEAVE_HIT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import Mm, Vma

# what a fault may do about huge pages (vmf.thp)
THP_FAULT, THP_ZERO, THP_DIRECT, THP_KSWAPD = 1, 2, 4, 8
THP_SUITED = 16  # one came to a place where a huge page would fit
# and of shared memory: one entry may map a huge page of the object; a hole gets one; a hole gets one if it ends within the object
THP_FILE, THP_SHMEM, THP_WITHIN = 32, 64, 128
# what a fault by the huge way came to (access_pages): a kind, or one of these
STOP, FALL_BACK = 0, -1
HUGE, HUGE_ZERO, HUGE_REUSE, HUGE_SHMEM, HUGE_FILE = 11, 12, 13, 14, 15
# further reasons why a page loop stopped
NO_HUGE, HUGE_LIMIT, NO_HUGE_ZERO = 20, 21, 22

THP_FAULT_ALLOC, MEMCG_THP_FAULT_ALLOC = EVENT["thp_fault_alloc"], MEMCG["thp_fault_alloc"]
THP_SPLIT_PAGE, THP_SPLIT_PAGE_FAILED = EVENT["thp_split_page"], EVENT["thp_split_page_failed"]
THP_ZERO_PAGE_ALLOC, THP_ZERO_PAGE_ALLOC_FAILED = EVENT["thp_zero_page_alloc"], EVENT["thp_zero_page_alloc_failed"]
VM_NO_KHUGEPAGED = VM_SPECIAL | VM_HUGETLB
DIRTIED = PTE_RW | PTE_D | PTE_SOFT_DIRTY
NEVER = "transparent_hugepage/enabled is never"
MIN_PAGES = (512 << 20) >> 12  # a machine with less memory boots with transparent huge pages off (hugepage_init)


# ---------------------------------------------------------------- who may


def hugepage_flags_enabled(k: Kernel) -> bool:
    """Is `enabled` always or madvise?"""
    return bool(k.thp["enabled"] != "never")


def why_not(k: Kernel, vma: Vma, *, fault: bool = False, enforce_sysfs: bool = True) -> str | None:
    """Why a mapping may have no huge pages, in one sentence; None: it may (hugepage_vma_check).

    `fault`: a page fault asks, which looks at the place itself; else the mapping must hold at least one whole 2 MiB.
    """
    if vma.flags & VM_NOHUGEPAGE:
        return "the mapping was advised MADV_NOHUGEPAGE"
    if vma.mm.thp_disable:
        return "the process has PR_SET_THP_DISABLE"
    if vma.flags & VM_NO_KHUGEPAGED or vma.special:
        return "special and hugetlb mappings have no transparent huge pages"
    if not fault and vma.end - (vma.start + -vma.start % PMD_PAGES) < PMD_PAGES:
        return "the mapping holds no whole 2 MiB between addresses that are multiples of 2 MiB"
    if vma.file is not None:
        return why_no_file_pages(k, vma, fault=fault, force=not enforce_sysfs)
    if enforce_sysfs and k.thp["enabled"] == "never":
        return NEVER
    if enforce_sysfs and k.thp["enabled"] == "madvise" and not vma.flags & VM_HUGEPAGE:
        return "transparent_hugepage/enabled is madvise and the mapping was not advised MADV_HUGEPAGE"
    return None


def why_no_file_pages(k: Kernel, vma: Vma, *, fault: bool, force: bool) -> str | None:
    """The same for a mapping of a file: shared memory, by `shmem_enabled` (shmem_is_huge); `force`: whatever it says, but for deny."""
    file, setting = vma.file, k.thp["shmem_enabled"]
    assert file is not None
    if not file.shmem or file.dev != SHMEM_DEV:
        return "files of the disk have no huge pages (CONFIG_READ_ONLY_THP_FOR_FS is off)"
    if not fault and (vma.start - vma.pgoff) % PMD_PAGES:
        return "mapping and object do not lie alike: address and offset must differ by a multiple of 2 MiB"
    if setting == "deny":
        return "transparent_hugepage/shmem_enabled is deny"
    if force or setting in ("always", "force") or (setting in ("advise", "within_size") and vma.flags & VM_HUGEPAGE):
        return None
    if setting == "within_size" and vma.pgoff + PMD_PAGES - vma.pgoff % PMD_PAGES <= file.nr_file_pages:
        return None
    return f"transparent_hugepage/shmem_enabled is {setting}" + (" and the mapping was not advised MADV_HUGEPAGE" if setting == "advise" else "")


def hugepage_vma_check(k: Kernel, vma: Vma, *, smaps: bool = False, enforce_sysfs: bool = True) -> bool:
    """May a mapping have huge pages? For khugepaged one of anonymous memory must have had a page of its own, too (an anon_vma)."""
    return why_not(k, vma, enforce_sysfs=enforce_sysfs) is None and (smaps or vma.anon_vma is not None or vma.file is not None)


def fault_flags(k: Kernel, vma: Vma) -> int:
    """What a fault in this mapping may do about huge pages (vmf.thp), by `enabled`, `shmem_enabled`, `defrag` and `use_zero_page`."""
    advised = bool(vma.flags & VM_HUGEPAGE)
    if vma.file is not None:
        if not vma.file.shmem or vma.file.dev != SHMEM_DEV:
            return 0
        flags = THP_FILE | shmem_flags(k, vma)
    elif k.thp["enabled"] == "never" or why_not(k, vma, fault=True) is not None:
        return 0
    else:
        flags = THP_FAULT | (THP_ZERO if k.thp["use_zero_page"] else 0)
    defrag = k.thp["defrag"]
    if defrag == "always" or (advised and defrag in ("madvise", "defer+madvise")):
        return flags | THP_DIRECT | (THP_KSWAPD if defrag == "always" else 0)
    return flags | (THP_KSWAPD if defrag in ("defer", "defer+madvise") else 0)


def shmem_flags(k: Kernel, vma: Vma) -> int:
    """When a hole that a fault of this mapping finds in its shared-memory object gets a huge page (shmem_is_huge)."""
    setting = k.thp["shmem_enabled"]
    if vma.flags & VM_NOHUGEPAGE or vma.mm.thp_disable or setting in ("deny", "never"):
        return 0
    if setting in ("always", "force") or vma.flags & VM_HUGEPAGE:
        return THP_SHMEM
    return THP_WITHIN if setting == "within_size" else 0


# ---------------------------------------------------------------- the fault


@step
def pmd_alloc(s: State, v, mm: int, vpn: int) -> int:
    """The frame of the PMD table that covers a page, made with what leads to it, or 0 with vmf.reason."""
    tid = s.mms[mm]["pgd"]
    pfn = 0
    for level in range(2):
        slot = (vpn >> (27 - 9 * level)) & 511
        entry = s.pt[tid, slot]
        if entry == 0:
            pfn = alloc_table(s, v)
            if pfn == 0:
                return 0
            entry = (pfn << 12) | TABLE_ENTRY
            s.pt[tid, slot] = entry
            s.mms[mm]["nr_tables"][2 - level] += 1
        pfn = (entry & PFN_MASK) >> 12
        tid = s.mem[pfn]["private"]
    return pfn


@step
def huge_page_on(s: State, v, node: int, nodes: int) -> int:
    """A block of order 9, above the low mark or else above the min mark."""
    pfn = get_page_from_freelist(s, node, HPAGE_PMD_ORDER, v["mark"], GFP_USER, nodes, v["node"], MIGRATE_MOVABLE)
    if pfn == 0 and v["mark"] != WMARK_MIN:
        pfn = get_page_from_freelist(s, node, HPAGE_PMD_ORDER, WMARK_MIN, GFP_USER, nodes, v["node"], MIGRATE_MOVABLE)
    return pfn


@step
def il_place(v, vpn: int) -> int:
    """Which 2 MiB of its mapping, and of what that maps, a page lies in: its turn among interleaved nodes."""
    return (v["vm_pgoff"] >> HPAGE_PMD_ORDER) + (((vpn & ~511) - v["vm_start"]) >> HPAGE_PMD_ORDER)


@step
def alloc_hugepage_vma(s: State, v, place: int) -> int:
    """512 frames where the memory policy wants them, 0 if there are none (vma_alloc_folio with hugepage set). `place`: see `il_place`.

    On the preferred node only: a remote huge page is slower than local small ones. A fault that may compact and reclaim does that first, and goes
    elsewhere in the end (`huge_fault`).
    """
    node, mode = v["node"], 0
    if v["policy"]:
        mode = v["mode"]
    if mode == MPOL_INTERLEAVE:
        node = nth_node(v["nodes"], place)
        pfn = huge_page_on(s, v, node, 0)
        if pfn:
            zid = zone_of(s, pfn)
            if s.zones[zid]["node"] == node:
                s.numa_stat[zid, NUMA_INTERLEAVE_HIT] += 1
        return pfn
    if mode == MPOL_PREFERRED_MANY:
        pfn = huge_page_on(s, v, node, v["nodes"])
        return pfn if pfn else huge_page_on(s, v, node, 0)
    only = 1 << node
    if mode == MPOL_PREFERRED:
        node = nth_node(v["nodes"], 0)
        only = 1 << node
    elif mode == MPOL_BIND and not (v["nodes"] >> node) & 1:
        only = v["nodes"]
    return huge_page_on(s, v, node, only)


@step
def alloc_charged_huge(s: State, v, place: int) -> int:
    """512 frames, charged to vmf.memcg at once: the first one with refcount 1, or 0 with vmf.reason NO_HUGE or HUGE_LIMIT."""
    pfn = v["ready"]
    v["ready"] = 0
    if pfn == 0:
        pfn = alloc_hugepage_vma(s, v, place)
    if pfn == 0:
        v["reason"] = NO_HUGE
        return 0
    return charge_block(s, v, pfn, HPAGE_PMD_ORDER, HUGE_LIMIT)


@step
def unalloc_huge(s: State, head: int) -> None:
    """Give back what `alloc_charged_huge` gave, unused."""
    memcg = s.mem[head]["memcg"]
    s.mem[head]["refcount"] = 0
    s.mem[head]["memcg"] = 0
    uncharge(s, memcg, HPAGE_PMD_NR)
    free_one_page(s, zone_of(s, head), head, HPAGE_PMD_ORDER)


@step
def do_huge_pmd_anonymous_page(s: State, v, vpn: int, write: bool) -> int:
    """A fault where no page table is: map a huge page, or on a read the huge zero page.

    Its kind; FALL_BACK where the 2 MiB do not fit the mapping; STOP with vmf.reason.
    """
    first = vpn & ~511
    if first < v["vm_start"] or first + HPAGE_PMD_NR > v["vm_end"] or first == v["no_thp"]:
        return FALL_BACK
    v["thp"] |= THP_SUITED
    zero = not write and v["thp"] & THP_ZERO
    if zero and s.ctl[CTL_HUGE_ZERO] == 0:
        v["reason"] = NO_HUGE_ZERO
        return STOP
    mm = v["mm"]
    pmd = pmd_alloc(s, v, mm, vpn)
    if pmd == 0:
        return STOP
    head = s.ctl[CTL_HUGE_ZERO]
    if not zero:
        head = alloc_charged_huge(s, v, il_place(v, vpn))
        if head == 0:
            return STOP
    table = alloc_table(s, v)
    if table == 0:
        if not zero:
            unalloc_huge(s, head)
        return STOP
    deposit(s, pmd, table)
    s.mms[mm]["nr_tables"][0] += 1
    tid = s.mem[pmd]["private"]
    if zero:
        s.mms[mm]["huge_zero"] = 1
        s.pt[tid, (vpn >> 9) & 511] = (head << 12) | v["prot"] | PTE_PS
        return HUGE_ZERO
    map_new_huge_page(s, v, head, first, tid)
    s.vm_event[THP_FAULT_ALLOC] += 1
    s.memcgs[v["memcg"]]["stat"][MEMCG_THP_FAULT_ALLOC] += 1
    s.mms[mm]["rss"][MM_ANONPAGES] += HPAGE_PMD_NR
    return HUGE


@step
def map_new_huge_page(s: State, v, head: int, first: int, tid: int) -> None:
    """A fresh huge page of this mapping behind entry of PMD table `tid`: exclusive, dirty, on inactive_anon."""
    prep_compound_page(s, head, HPAGE_PMD_ORDER, PG_UPTODATE | PG_SWAPBACKED | PG_ANON | PG_ANON_EXCLUSIVE)
    add_compound_mapcount(s, head, 1)
    page = s.mem[head]
    page["mapping"] = v["anon_vma"]
    page["index"] = first - v["vm_start"] + v["vm_pgoff"]
    zid = zone_of(s, head)
    stat_add(s, zid, v["memcg"], NR_ANON_MAPPED, HPAGE_PMD_NR)
    stat_add(s, zid, v["memcg"], NR_ANON_THPS, HPAGE_PMD_NR)
    lru_add_new(s, zid, head, v["vm_flags"])
    entry = (head << 12) | v["prot"] | PTE_PS | PTE_D | PTE_SOFT_DIRTY
    if v["vm_flags"] & VM_WRITE:
        entry |= PTE_RW
    s.pt[tid, (first >> 9) & 511] = entry


@step
def do_huge_pmd_wp_page(s: State, v, tid: int, entry: int, vpn: int) -> int:
    """A write to a huge page that is mapped read-only: taken over by its only user, else split, for 4 KiB to be copied (FALL_BACK)."""
    head = (entry & PFN_MASK) >> 12
    if head != s.ctl[CTL_HUGE_ZERO]:
        page = s.mem[head]
        if not page["flags"] & PG_ANON_EXCLUSIVE and page["flags"] & PG_SWAPCACHE and page["refcount"] == 1 + HPAGE_PMD_NR:
            free_swap(s, zone_of(s, head), head)
        if page["flags"] & PG_ANON_EXCLUSIVE or page["refcount"] == 1:
            if not page["flags"] & PG_ANON_EXCLUSIVE:
                page["mapping"] = v["anon_vma"]
                page["flags"] |= PG_ANON_EXCLUSIVE
            s.pt[tid, (vpn >> 9) & 511] = entry | PTE_A | DIRTIED
            return HUGE_REUSE
    split_huge_pmd(s, v["mm"], vpn, v["vm_flags"])
    return FALL_BACK


# ---------------------------------------------------------------- entries that go, are copied, change, move


@step
def zap_deposited_table(s: State, mm: int, pmd: int) -> None:
    """The page table put by for a huge entry goes with it."""
    free_table(s, withdraw(s, pmd))
    s.mms[mm]["nr_tables"][0] -= 1


@step
def page_remove_rmap_huge(s: State, zid: int, head: int) -> None:
    """One huge entry less maps the page; a part that small entries still map keeps it, deferred (page_remove_anon_compound_rmap)."""
    if add_compound_mapcount(s, head, -1) > 0:
        return
    page = s.mem[head]
    stat_add(s, zid, page["memcg"], NR_ANON_THPS, -HPAGE_PMD_NR)
    unmapped = HPAGE_PMD_NR
    if page["refcount"] > 1 + (HPAGE_PMD_NR if page["flags"] & PG_SWAPCACHE else 0):
        unmapped = 0
        for pfn in range(head, head + HPAGE_PMD_NR):
            if s.mem[pfn]["mapcount"] == 0:
                unmapped += 1
    stat_add(s, zid, page["memcg"], NR_ANON_MAPPED, -unmapped)
    if unmapped and unmapped < HPAGE_PMD_NR:
        deferred_split_huge_page(s, head)


@step
def zap_huge_pmd(s: State, mm: int, vpn: int, vm_flags: int, others) -> None:
    """Empty a huge entry (zap_huge_pmd)."""
    pmd = pmd_frame(s, s.mms[mm]["pgd"], vpn)
    tid, slot = s.mem[pmd]["private"], (vpn >> 9) & 511
    head = (s.pt[tid, slot] & PFN_MASK) >> 12
    if head != s.ctl[CTL_HUGE_ZERO] and not s.mem[head]["flags"] & PG_ANON:
        zap_file_pmd(s, mm, tid, slot, vm_flags, others)
        return
    s.pt[tid, slot] = 0
    zap_deposited_table(s, mm, pmd)
    if head == s.ctl[CTL_HUGE_ZERO]:
        return
    s.mms[mm]["rss"][MM_ANONPAGES] -= HPAGE_PMD_NR
    zid = zone_of(s, head)
    page_remove_rmap_huge(s, zid, head)
    if vm_flags & VM_LOCKED and s.mem[head]["refcount"] > 1 and not locked_elsewhere(s, others, head):
        munlock_page(s, zid, head)
    if not put_page(s, zid, head):
        free_swap_cache(s, zid, head)


@step
def zap_file_pmd(s: State, mm: int, tid: int, slot: int, vm_flags: int, others) -> None:
    """Empty a huge entry of shared memory: no table was put by for it, and the page stays in its object."""
    entry = s.pt[tid, slot]
    head = (entry & PFN_MASK) >> 12
    zid = zone_of(s, head)
    s.pt[tid, slot] = 0
    s.mms[mm]["rss"][MM_SHMEMPAGES] -= HPAGE_PMD_NR
    page_remove_file_rmap_huge(s, zid, head)
    if entry & PTE_D:
        s.mem[head]["flags"] |= PG_DIRTY
    if vm_flags & VM_LOCKED and not locked_elsewhere(s, others, head):
        munlock_page(s, zid, head)
    put_page(s, zid, head)


@step
def copy_huge_pmd(s: State, v, dst: int, vpn: int) -> bool:
    """fork: the child maps the same huge page, both read-only (copy_huge_pmd). False with vmf.reason if it has no room for tables."""
    pmd = pmd_alloc(s, v, dst, vpn)
    table = alloc_table(s, v) if pmd else 0
    if table == 0:
        return False
    deposit(s, pmd, table)
    s.mms[dst]["nr_tables"][0] += 1
    own = s.mem[pmd_frame(s, s.mms[v["mm"]]["pgd"], vpn)]["private"]
    slot = (vpn >> 9) & 511
    entry = s.pt[own, slot] & ~PTE_RW
    head = (entry & PFN_MASK) >> 12
    if head == s.ctl[CTL_HUGE_ZERO]:
        s.mms[dst]["huge_zero"] = 1
    else:
        page = s.mem[head]
        page["refcount"] += 1
        page["flags"] &= ~PG_ANON_EXCLUSIVE
        add_compound_mapcount(s, head, 1)
        s.mms[dst]["rss"][MM_ANONPAGES] += HPAGE_PMD_NR
    s.pt[own, slot] = entry
    s.pt[s.mem[pmd]["private"], slot] = entry & ~PTE_A
    return True


@step
def move_huge_pmd(s: State, v, vpn: int, to: int) -> bool:
    """mremap: the huge entry of `vpn` moves to `to` with its table (move_huge_pmd). False if a table stands in the way (or vmf.reason says)."""
    mm = v["mm"]
    target = pmd_alloc(s, v, mm, to)
    if target == 0 or s.pt[s.mem[target]["private"], (to >> 9) & 511] != 0:
        return False
    source = pmd_frame(s, s.mms[mm]["pgd"], vpn)
    tid = s.mem[source]["private"]
    entry = s.pt[tid, (vpn >> 9) & 511]
    s.pt[tid, (vpn >> 9) & 511] = 0
    s.mms[mm]["tlb_gen"] += 1
    head = (entry & PFN_MASK) >> 12
    if head == s.ctl[CTL_HUGE_ZERO] or s.mem[head]["flags"] & PG_ANON:
        deposit(s, target, withdraw(s, source))
    s.pt[s.mem[target]["private"], (to >> 9) & 511] = entry | PTE_SOFT_DIRTY
    return True


# ---------------------------------------------------------------- the page comes apart


@step
def split_huge_page(s: State, r: Rmap, head: int) -> bool:
    """One page of 512 frames becomes 512 pages (split_huge_page_to_list). True if it did; False if somebody else holds the page.

    Frames that nothing maps are freed, but for the head, which is the caller's to free. On a list the frames follow the head: it is the oldest, then
    frame 1, 2, ...; an isolated page's frames are isolated, too.
    """
    page = s.mem[head]
    if not page["flags"] & PG_ANON:
        return split_shmem_page(s, r, head)
    zid = zone_of(s, head)
    mapped = total_mapcount(s, head)
    pins = HPAGE_PMD_NR if page["flags"] & PG_SWAPCACHE else 0
    split_pmds = compound_mapcount(s, head)
    if page["refcount"] != mapped + pins:
        s.vm_event[THP_SPLIT_PAGE_FAILED] += 1
        return False
    locked = 0
    if split_pmds:
        locked = split_all_pmds(s, r, head) & VM_LOCKED
    if mapped:
        deferred_split_huge_page(s, head)  # its entries are taken away for the time of the split: it counts as partly unmapped
    undefer(s, head)
    flags = page["flags"] & ~(PG_HEAD | PG_ANON_EXCLUSIVE)
    cached = 1 if flags & PG_SWAPCACHE else 0
    queue_tails(s, zid, head, flags)
    for pfn in range(head + 1, head + HPAGE_PMD_NR):
        tail = s.mem[pfn]
        tail["flags"] = flags | (tail["flags"] & PG_ANON_EXCLUSIVE)
        tail["refcount"] = tail["mapcount"] + cached
        tail["memcg"] = page["memcg"]
        tail["mapping"] = page["mapping"]
        tail["index"] = page["index"] + (pfn - head)
        tail["private"] = page["private"] + (pfn - head) if cached else 0
    page["flags"] &= ~PG_HEAD
    page["refcount"] = page["mapcount"] + cached
    s.vm_event[THP_SPLIT_PAGE] += 1
    for pfn in range(head + 1, head + HPAGE_PMD_NR):
        if s.mem[pfn]["refcount"] == 0:
            free_page(s, zid, pfn)
        elif s.mem[pfn]["mapcount"] == 0:
            free_swap(s, zid, pfn)
    if locked:
        for pfn in range(head, head + HPAGE_PMD_NR):
            if s.mem[pfn]["mapcount"]:
                mlock_page(s, zid, pfn)
    return True


@step
def queue_tails(s: State, zid: int, head: int, flags: int) -> None:
    """The tails of a page that comes apart follow it on its list, the head being the oldest; they have no links if it is on none."""
    lruvec = lruvec_of(s, s.mem[head]["memcg"], s.zones[zid]["node"])
    older, newer = head, s.mem[head]["prev"]
    for pfn in range(head + 1, head + HPAGE_PMD_NR):
        s.gens[pfn] = s.gens[head]
        tail = s.mem[pfn]
        tail["next"] = 0
        tail["prev"] = 0
        if flags & PG_LRU:
            tail["next"] = older
            s.mem[older]["prev"] = pfn
            older = pfn
    if not flags & PG_LRU:
        return
    s.mem[older]["prev"] = newer
    if newer:
        s.mem[newer]["next"] = older
    elif lru_gen_enabled(s) and not flags & PG_UNEVICTABLE:
        s.lrugens[lruvec]["head"][gen_list(s.gens[head] >> HOME_SHIFT, lru_type(flags), zid)] = older
    else:
        s.lruvecs[lruvec]["head"][page_lru(flags)] = older


@step
def split_shmem_page(s: State, r: Rmap, head: int) -> bool:
    """A huge page of shared memory becomes 512 pages of its object, mapped nowhere: faults come again. True unless somebody else holds it.

    What lies beyond the end of the object is dropped (`Rmap.file_lost` says how much).
    """
    page = s.mem[head]
    zid = zone_of(s, head)
    if page["refcount"] != total_mapcount(s, head) + HPAGE_PMD_NR:
        s.vm_event[THP_SPLIT_PAGE_FAILED] += 1
        return False
    split_all_pmds(s, r, head)
    unmap_small_entries(s, r, zid, head)
    flags = page["flags"] & ~PG_HEAD
    queue_tails(s, zid, head, flags)
    for pfn in range(head + 1, head + HPAGE_PMD_NR):
        tail = s.mem[pfn]
        tail["flags"] = flags
        tail["refcount"] = 1
        tail["memcg"] = page["memcg"]
        tail["mapping"] = page["mapping"]
        tail["index"] = page["index"] + (pfn - head)
        tail["private"] = 0
    page["flags"] = flags
    page["refcount"] = 1
    stat_add(s, zid, page["memcg"], NR_SHMEM_THPS, -HPAGE_PMD_NR)
    account_slab(s, page["memcg"], HPAGE_PMD_NR * XA_NODE_SHARE - HUGE_XA_SHARE)
    s.vm_event[THP_SPLIT_PAGE] += 1
    inode = page["mapping"]
    leaf = xa_leaf(s, r.file_root[inode], page["index"])
    for pfn in range(head + 1, head + HPAGE_PMD_NR):
        if s.mem[pfn]["index"] >= r.file_end[inode]:
            remove_from_page_cache(s, zid, leaf, pfn, 0)
            r.file_lost[inode] += 1
    return True


@step
def put_split_head(s: State, head: int) -> None:
    """The first frame of a split page, too, goes if nothing holds it."""
    if s.mem[head]["refcount"] == 0:
        free_page(s, zone_of(s, head), head)
    elif s.mem[head]["mapcount"] == 0 and s.mem[head]["flags"] & PG_SWAPCACHE:
        free_swap(s, zone_of(s, head), head)


@njit
def split_deferred(s: State, r: Rmap, memcg: int, nr: int) -> int:
    """Split up to `nr` huge pages of a cgroup's deferred queue, oldest first (deferred_split_scan): how many came apart."""
    split = 0
    last = s.memcgs[memcg]["split_tail"]
    for _ in range(nr):
        head = s.memcgs[memcg]["split_head"]
        if head == 0:
            break
        if split_huge_page(s, r, head):
            put_split_head(s, head)
            split += 1
        else:
            undefer(s, head)
            s.vm_event[THP_DEFERRED_SPLIT_PAGE] -= 1
            deferred_split_huge_page(s, head)  # to the end of the queue
        if head == last:
            break
    return split


@njit
def split_page_at(s: State, r: Rmap, mm: int, vpn: int) -> bool:
    """Split the huge page around `vpn` that one huge entry maps, if nothing else does (madvise of a part)."""
    head = (huge_entry(s, s.mms[mm]["pgd"], vpn) & PFN_MASK) >> 12
    if head == 0 or head == s.ctl[CTL_HUGE_ZERO] or total_mapcount(s, head) != 1:
        return False
    return split_huge_page(s, r, head)


# ---------------------------------------------------------------- the huge zero page


@njit
def make_huge_zero(s: State, head: int) -> None:
    """512 frames become the huge zero page (get_huge_zero_page)."""
    prep_compound_page(s, head, HPAGE_PMD_ORDER, PG_ZERO | PG_UPTODATE)
    s.mem[head]["refcount"] = 1
    s.ctl[CTL_HUGE_ZERO] = head
    s.vm_event[THP_ZERO_PAGE_ALLOC] += 1


@njit
def free_huge_zero(s: State) -> None:
    """Nobody maps it and memory is short (shrink_huge_zero_page_scan)."""
    head = s.ctl[CTL_HUGE_ZERO]
    s.ctl[CTL_HUGE_ZERO] = 0
    clear_compound_page(s, head, HPAGE_PMD_ORDER)
    free_one_page(s, zone_of(s, head), head, HPAGE_PMD_ORDER)


def shrink_huge_zero_page(k: Kernel) -> bool:
    """Free the huge zero page if no address space has used it; True if it is gone."""
    if not int(k.s.ctl[CTL_HUGE_ZERO]) or any(int(k.s.mms["huge_zero"][id]) for id in k.mms):
        return False
    free_huge_zero(k.s)
    return True


# ---------------------------------------------------------------- shrinking


SHRINK_BATCH = 128


def deferred_split_shrink(k: Kernel, cg: Cgroup, priority: int) -> int:
    """Reclaim's round over one cgroup's deferred queue: how many huge pages came apart (deferred_split_scan)."""
    row, split = k.s.memcgs[cg.id], 0

    def scan(nr: int) -> None:
        nonlocal split
        split += int(split_deferred(k.s, rmap_walk.tables(k), cg.id, nr))

    freeable = int(row["split_len"])
    if not freeable:
        return 0
    row["split_deferred"] = do_shrink_slab(k, freeable, int(row["split_deferred"]), priority, SHRINK_BATCH, scan)
    if split:
        k.emit(Thp(k.clock.now, "split", split * HPAGE_PMD_NR, reason="deferred: part of it was unmapped and memory is short", cgroup=cg.path))
    return split


# ---------------------------------------------------------------- what comes under khugepaged's care


def arm_khugepaged(k: Kernel, at: int) -> None:
    """khugepaged shall wake at this time; a later time set before is overtaken."""
    k.khugepaged["due"] = at
    k.clock.at(at, "khugepaged")


def wake_khugepaged(k: Kernel) -> None:
    """At once: it was switched on, its pace was set, or it has its first work."""
    if k.khugepaged["mms"] and hugepage_flags_enabled(k):
        arm_khugepaged(k, k.clock.now)


def khugepaged_enter(k: Kernel, vma: Vma) -> None:
    """An address space comes under khugepaged's care if this mapping may have huge pages (khugepaged_enter_vma)."""
    if not vma.mm.khugepaged and hugepage_flags_enabled(k) and hugepage_vma_check(k, vma):
        khugepaged_add(k, vma.mm)


def khugepaged_add(k: Kernel, mm: Mm) -> None:
    """To the end of its list; the first one wakes it (__khugepaged_enter)."""
    mm.khugepaged = True
    k.khugepaged["mms"].append(mm.id)
    if len(k.khugepaged["mms"]) == 1:
        wake_khugepaged(k)


def khugepaged_exit(k: Kernel, mm: Mm) -> None:
    """The address space is gone."""
    if mm.khugepaged:
        if k.khugepaged["held"] and k.khugepaged["held"]["mm"] == mm.id:
            k.khugepaged["held"]["mm"] = 0  # the block goes back when khugepaged notices
        if k.khugepaged["mm"] == mm.id:
            next_slot(k)
        k.khugepaged["mms"].remove(mm.id)
        k.khugepaged["pte_mapped"] = [place for place in k.khugepaged["pte_mapped"] if place[0] != mm.id]
        mm.khugepaged = False


def next_slot(k: Kernel) -> None:
    """khugepaged is through with the address space at hand: the next one, or a full scan is done."""
    state = k.khugepaged
    at = state["mms"].index(state["mm"]) + 1
    state["vpn"] = 0
    state["mm"] = state["mms"][at] if at < len(state["mms"]) else 0
    if not state["mm"]:
        k.thp["khugepaged.full_scans"] += 1
