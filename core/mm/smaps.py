"""What the page tables say: the walks behind smaps, numa_maps, pagemap and clear_refs (fs/proc/task_mmu.c).

**smaps.** Each entry that maps a page of its own adds 4 KiB to Rss, and 4 KiB divided by the number of entries that map the
page to Pss, in fixed point with 12 bits: three sharers make 16777216 / 3 = 5592405, shown 1 kB each. A page is
*private* if one entry maps it, *dirty* if the entry or the page says so:

    4 pages of a parent after fork, 1 written by the child      Rss 16, Pss 10 = 3 * 2 + 4, Shared_Dirty 12, Private_Dirty 4

The zero page counts nowhere. LazyFree is anonymous memory that MADV_FREE gave up and nobody has written since;
Referenced needs the accessed bit of the entry or the page's own mark; Locked is the Pss of a locked mapping.

**pagemap.** One u64 for each page of the address space:

    63 present   62 swapped   61 file page or shared memory   56 mapped once   55 soft-dirty   54..0 frame
                                                                              of a swapped page: 54..5 slot, 4..0 area

**clear_refs.** 1, 2, 3 forget that pages were accessed (all, anonymous, file). 4 clears the soft-dirty bits *and* write
permission, so that the next write to a page faults and sets its bit again. 5 sets VmHWM back to VmRSS.

Reading changes nothing: these loops take what they need as arguments and leave `State.vmf` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.mman import VM_HUGETLB, VM_LOCKED, VM_PFNMAP, VM_SOFTDIRTY
from core.abi.page_flags import PG_ACTIVE, PG_ANON, PG_DIRTY, PG_REFERENCED, PG_SWAPBACKED, PG_SWAPCACHE, PG_UNEVICTABLE, PG_WRITEBACK
from core.jit import inline, njit, step
from core.mm import hugetlb_fault, tlb
from core.mm.compound import PG_COMPOUND, compound_head, compound_mapcount, page_mapcount
from core.mm.fault import next_block
from core.mm.mm_types import CTL_HUGE_ZERO, MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, State, get_mm_counters
from core.mm.page_alloc import zone_of
from core.mm.pgtable import (
    PTE_A,
    PTE_D,
    PTE_PRESENT,
    PTE_RW,
    PTE_SOFT_DIRTY,
    PTE_SPECIAL,
    SWP_SOFT_DIRTY,
    find_pte_table,
    find_table,
    huge_entry,
    pte_pfn,
)
from core.mm.shmem_swap import count_swapped
from core.mm.swapfile import swap_area, swp_slot

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Mm, Vma

PSS_SHIFT = 12
PAGE_PSS = 4096 << PSS_SHIFT

# columns of the sums: bytes, Pss in fixed point
(RSS, PSS, PSS_DIRTY, SHARED_CLEAN, SHARED_DIRTY, PRIVATE_CLEAN, PRIVATE_DIRTY, REFERENCED, ANONYMOUS, LAZYFREE, SWAP, SWAP_PSS,
 PSS_ANON, PSS_FILE, PSS_SHMEM, ANON_HUGE, SHMEM_PMD) = range(17)  # fmt: skip
NR_SUMS = 17
NAMES = ("Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "LazyFree",
         "Swap", "SwapPss", "Pss_Anon", "Pss_File", "Pss_Shmem", "AnonHugePages", "ShmemPmdMapped")  # fmt: skip
FIXED_POINT = frozenset({"Pss", "Pss_Dirty", "SwapPss", "Pss_Anon", "Pss_File", "Pss_Shmem"})

# columns of numa_maps: pages; from NUMA_NODES on, pages of each node
NUMA_PAGES, NUMA_ANON, NUMA_DIRTY, NUMA_MAPMAX, NUMA_SWAPCACHE, NUMA_ACTIVE, NUMA_WRITEBACK, NUMA_NODES = range(8)

PM_PRESENT = -(1 << 63)
PM_SWAP = 1 << 62
PM_SWAP_OFFSET = 5
PM_FILE = 1 << 61
PM_MMAP_EXCLUSIVE = 1 << 56
PM_SOFT_DIRTY = 1 << 55
PM_PFN = (1 << 55) - 1

CLEAR_ALL, CLEAR_ANON, CLEAR_MAPPED, CLEAR_SOFT_DIRTY, CLEAR_HIWATER = 1, 2, 3, 4, 5


def _pgd(k: Kernel, mm: Mm) -> int:
    return int(k.s.mms["pgd"][mm.id])


# ---------------------------------------------------------------- smaps


def account(k: Kernel, vma: Vma) -> dict[str, int]:
    """The figures of one mapping in smaps, in bytes, by their labels; also Pss_Anon, Pss_File, Pss_Shmem."""
    sums = np.zeros(NR_SUMS, np.int64)
    hugetlb = (0, 0)
    if vma.flags & VM_HUGETLB:
        hugetlb = hugetlb_fault.smaps(k, vma)
    else:
        gather(k.s, _pgd(k, vma.mm), vma.start, vma.end, sums)
    out = {name: int(value) >> PSS_SHIFT if name in FIXED_POINT else int(value) for name, value in zip(NAMES, sums.tolist(), strict=True)}
    if vma.file is not None and vma.file.shmem and vma.file.root:
        out["Swap"] += count_swapped(k.s, vma.file.root, vma.pgoff, vma.pgoff + vma.pages) << 12
    out["Locked"] = out["Pss"] if vma.flags & VM_LOCKED else 0
    out["FilePmdMapped"] = 0
    out["Shared_Hugetlb"], out["Private_Hugetlb"] = hugetlb
    return out


@inline
def share_of(mapcount: int) -> int:
    """The part of a page that each of its users bears, in fixed point."""
    return PAGE_PSS // int(mapcount) if mapcount > 1 else PAGE_PSS


@njit
def gather(s: State, pgd: int, start: int, end: int, sums) -> None:
    """Add the entries of [start, end) to `sums` (smaps_pte_range, smaps_account)."""
    at = start
    rss, pss, pss_dirty, referenced, anonymous, lazyfree, pss_anon, pss_shmem = 0, 0, 0, 0, 0, 0, 0, 0
    shared_clean, shared_dirty, private_clean, private_dirty = 0, 0, 0, 0
    swapped, swap_pss = 0, 0
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if huge_entry(s, pgd, at):
                account_huge(s, pgd, at, stop - at, sums)
                at = stop
            else:
                at = next_block(s, pgd, at, end)
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if pte == 0:
                continue
            if not pte & PTE_PRESENT:
                users = s.slots[swp_slot(s, pte)]["count"]
                swapped += 1
                swap_pss += PAGE_PSS // users if users > 1 else PAGE_PSS
                continue
            if pte & PTE_SPECIAL:
                continue
            pfn = pte_pfn(pte)
            flags, mapcount = s.mem[pfn]["flags"], s.mem[pfn]["mapcount"]
            if flags & PG_COMPOUND:
                flags, mapcount = s.mem[compound_head(s, pfn)]["flags"], page_mapcount(s, pfn)
            dirty = pte & PTE_D or flags & PG_DIRTY
            share = share_of(mapcount)
            rss += 1
            pss += share
            if pte & PTE_A or flags & PG_REFERENCED:
                referenced += 1
            if flags & PG_ANON:
                anonymous += 1
                pss_anon += share
                if not flags & PG_SWAPBACKED and not dirty:
                    lazyfree += 1
            elif flags & PG_SWAPBACKED:
                pss_shmem += share
            if dirty:
                pss_dirty += share
                if mapcount > 1:
                    shared_dirty += 1
                else:
                    private_dirty += 1
            elif mapcount > 1:
                shared_clean += 1
            else:
                private_clean += 1
        at = stop
    sums[RSS] += rss << 12
    sums[PSS] += pss
    sums[PSS_DIRTY] += pss_dirty
    sums[SHARED_CLEAN] += shared_clean << 12
    sums[SHARED_DIRTY] += shared_dirty << 12
    sums[PRIVATE_CLEAN] += private_clean << 12
    sums[PRIVATE_DIRTY] += private_dirty << 12
    sums[REFERENCED] += referenced << 12
    sums[ANONYMOUS] += anonymous << 12
    sums[LAZYFREE] += lazyfree << 12
    sums[SWAP] += swapped << 12
    sums[SWAP_PSS] += swap_pss
    sums[PSS_ANON] += pss_anon
    sums[PSS_SHMEM] += pss_shmem
    sums[PSS_FILE] += pss - pss_anon - pss_shmem


@step
def account_huge(s: State, pgd: int, vpn: int, pages: int, sums) -> None:
    """A huge entry counts for its pages (smaps_pmd_entry); the huge zero page nowhere."""
    entry = huge_entry(s, pgd, vpn)
    head = pte_pfn(entry)
    if head == s.ctl[CTL_HUGE_ZERO]:
        return
    flags, size = s.mem[head]["flags"], pages << 12
    dirty = entry & PTE_D or flags & PG_DIRTY
    anon = flags & PG_ANON
    sums[RSS] += size
    if anon:
        sums[ANONYMOUS] += size
    sums[ANON_HUGE if anon else SHMEM_PMD] += size
    if entry & PTE_A or flags & PG_REFERENCED:
        sums[REFERENCED] += size
    if anon and not flags & PG_SWAPBACKED and not dirty:
        sums[LAZYFREE] += size
    for pfn in range(head + (vpn & 511), head + (vpn & 511) + pages):
        mapcount = s.mem[pfn]["mapcount"] + compound_mapcount(s, head)
        share = share_of(mapcount)
        sums[PSS] += share
        sums[PSS_ANON if anon else PSS_SHMEM] += share
        if dirty:
            sums[PSS_DIRTY] += share
            sums[SHARED_DIRTY if mapcount > 1 else PRIVATE_DIRTY] += 4096
        else:
            sums[SHARED_CLEAN if mapcount > 1 else PRIVATE_CLEAN] += 4096


# ---------------------------------------------------------------- numa_maps


def numa_maps(k: Kernel, vma: Vma) -> dict[str, Any]:
    """The counts of one line of numa_maps in pages; `nodes` maps a node to its pages."""
    if vma.flags & VM_HUGETLB:
        return hugetlb_fault.numa_maps(k, vma)
    counts = np.zeros(NUMA_NODES + k.nr_nodes, np.int64)
    gather_numa(k.s, _pgd(k, vma.mm), vma.start, vma.end, counts)
    pages, anon, dirty, mapmax, swapcache, active, writeback, *nodes = counts.tolist()
    return {
        "pages": pages, "anon": anon, "dirty": dirty, "mapmax": mapmax, "swapcache": swapcache, "active": active, "writeback": writeback,
        "nodes": dict(enumerate(nodes)),
    }  # fmt: skip


@njit
def gather_numa(s: State, pgd: int, start: int, end: int, counts) -> None:
    """Add the entries of [start, end) to `counts` (gather_pte_stats)."""
    at = start
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if huge_entry(s, pgd, at):
                count_numa(s, zone_of(s, pte_pfn(huge_entry(s, pgd, at))), huge_entry(s, pgd, at), stop - at, counts)
                at = stop
            else:
                at = next_block(s, pgd, at, end)
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
                continue
            count_numa(s, zone_of(s, pte_pfn(pte)), pte, 1, counts)
        at = stop


@inline
def count_numa(s: State, zid: int, entry: int, nr: int, counts) -> None:
    """Pages that one entry maps (gather_stats)."""
    pfn = pte_pfn(entry)
    if pfn == s.ctl[CTL_HUGE_ZERO]:
        return
    flags, mapcount = s.mem[pfn]["flags"], s.mem[pfn]["mapcount"]
    if flags & PG_COMPOUND:
        flags, mapcount = s.mem[compound_head(s, pfn)]["flags"], page_mapcount(s, pfn)
    counts[NUMA_PAGES] += nr
    counts[NUMA_NODES + s.zones[zid]["node"]] += nr
    if flags & PG_ANON:
        counts[NUMA_ANON] += nr
    if entry & PTE_D or flags & PG_DIRTY:
        counts[NUMA_DIRTY] += nr
    if flags & PG_SWAPCACHE:
        counts[NUMA_SWAPCACHE] += nr
    if flags & (PG_ACTIVE | PG_UNEVICTABLE):
        counts[NUMA_ACTIVE] += nr
    if flags & PG_WRITEBACK:
        counts[NUMA_WRITEBACK] += nr
    counts[NUMA_MAPMAX] = max(counts[NUMA_MAPMAX], mapcount)


# ---------------------------------------------------------------- pagemap


def pagemap(k: Kernel, mm: Mm, first: int, count: int) -> bytes:
    """`count` entries of /proc/<pid>/pagemap from page `first` on, 8 bytes each, little-endian."""
    out = np.zeros(count, "<i8")
    for vma in mm.vmas:
        low, high = max(vma.start, first), min(vma.end, first + count)
        if low < high:
            soft_dirty = PM_SOFT_DIRTY if vma.flags & VM_SOFTDIRTY else 0
            part = out[low - first : high - first]
            if vma.flags & VM_HUGETLB:
                part[:] = soft_dirty
                hugetlb_fault.fill_pagemap(k, vma, low, high, part, (PM_PRESENT, PM_FILE, PM_MMAP_EXCLUSIVE))
                continue
            fill_pagemap(k.s, _pgd(k, mm), low, high, soft_dirty, part)
    return out.tobytes()


@njit
def fill_pagemap(s: State, pgd: int, start: int, end: int, soft_dirty: int, out) -> None:
    """Entries of one mapping's pages [start, end) (pte_to_pagemap_entry)."""
    out[:] = soft_dirty
    at = start
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if huge_entry(s, pgd, at):
                fill_huge(s, huge_entry(s, pgd, at), at, stop, start, soft_dirty, out)
                at = stop
            else:
                at = next_block(s, pgd, at, end)
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if pte & PTE_PRESENT:
                pfn = pte_pfn(pte)
                entry = soft_dirty | (pfn & PM_PFN) | PM_PRESENT
                if pte & PTE_SOFT_DIRTY:
                    entry |= PM_SOFT_DIRTY
                if not pte & PTE_SPECIAL:
                    if not s.mem[pfn]["flags"] & PG_ANON:
                        entry |= PM_FILE
                    if page_mapcount(s, pfn) == 1:
                        entry |= PM_MMAP_EXCLUSIVE
                out[vpn - start] = entry
            elif pte:
                slot = swp_slot(s, pte)
                area = swap_area(s, slot)
                entry = soft_dirty | PM_SWAP | area | (slot - s.swaps[area]["base"]) << PM_SWAP_OFFSET
                if pte & SWP_SOFT_DIRTY:
                    entry |= PM_SOFT_DIRTY
                out[vpn - start] = entry
        at = stop


@step
def fill_huge(s: State, huge: int, first: int, stop: int, start: int, soft_dirty: int, out) -> None:
    """The entries of the pages that one huge entry maps (pagemap_pmd_range)."""
    head = pte_pfn(huge)
    bits = soft_dirty | PM_PRESENT
    if huge & PTE_SOFT_DIRTY:
        bits |= PM_SOFT_DIRTY
    if not s.mem[head]["flags"] & PG_ANON:
        bits |= PM_FILE  # shared memory, or the huge zero page
    if head != s.ctl[CTL_HUGE_ZERO] and page_mapcount(s, head) == 1:
        bits |= PM_MMAP_EXCLUSIVE
    for vpn in range(first, stop):
        out[vpn - start] = bits | (head + (vpn & 511))


# ---------------------------------------------------------------- clear_refs


def clear_refs(k: Kernel, mm: Mm, kind: int) -> None:
    """echo 1..5 > /proc/<pid>/clear_refs (clear_refs_write)."""
    if kind == CLEAR_HIWATER:
        rss = get_mm_counters(k.s, mm)
        mm.hiwater_rss = int(rss[MM_ANONPAGES]) + int(rss[MM_FILEPAGES]) + int(rss[MM_SHMEMPAGES])
        return
    for vma in mm.vmas:
        if kind == CLEAR_SOFT_DIRTY:
            vma.flags &= ~VM_SOFTDIRTY
        if vma.flags & (VM_PFNMAP | VM_HUGETLB) or (kind == CLEAR_ANON and vma.file) or (kind == CLEAR_MAPPED and not vma.file):
            continue
        k.clock.spend(int(clear_ptes(k.s, _pgd(k, mm), vma.start, vma.end, int(kind == CLEAR_SOFT_DIRTY))) * k.costs.protect_pte)
    if kind == CLEAR_SOFT_DIRTY:
        tlb.flush_tlb_mm(k, mm, "clear_refs write-protected its pages")


@njit
def clear_ptes(s: State, pgd: int, start: int, end: int, soft_dirty: int) -> int:
    """Clear soft-dirty and write permission, or accessed and referenced, of [start, end); how many entries there were."""
    at, n = start, 0
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            head = pte_pfn(huge_entry(s, pgd, at))
            if head == 0:
                at = next_block(s, pgd, at, end)
                continue
            n += 1
            top, slot = find_table(s, pgd, at, 2), (at >> 9) & 511
            if soft_dirty:
                s.pt[top, slot] &= ~(PTE_RW | PTE_SOFT_DIRTY)
            else:
                s.pt[top, slot] &= ~PTE_A
                s.mem[head]["flags"] &= ~PG_REFERENCED
            at = stop
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if pte == 0:
                continue
            n += 1
            if soft_dirty:
                s.pt[tid, vpn & 511] = pte & ~(PTE_RW | PTE_SOFT_DIRTY) if pte & PTE_PRESENT else pte & ~SWP_SOFT_DIRTY
            elif pte & PTE_PRESENT and not pte & PTE_SPECIAL:
                s.pt[tid, vpn & 511] = pte & ~PTE_A
                s.mem[compound_head(s, pte_pfn(pte))]["flags"] &= ~PG_REFERENCED
        at = stop
    return n
