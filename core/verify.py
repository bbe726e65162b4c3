"""What must hold between any two calls, each rule by its name.

`verify(k)` recounts everything that the mechanisms only update, the slow way: it walks every page table, every file's
radix tree, every free list and every LRU list, and compares. A rule that does not hold is a bug of ours, never of a user:
`KernelBug("rule: what was found")`. The tests run it after every step; `audit(k)` runs it for a user and shows the sums.

Conservation, the first rule: each frame of the machine has exactly one owner.

    free            a block of a buddy list               table      a page table (or a top-level one)
    boot            the kernel's own, since boot          stack      a kernel stack
    anon            mapped anonymous memory               slab       the kernel's objects
    cache           a page of a file's radix tree         hugetlb    a pool of huge pages, free or in use
    zero            the huge zero page

    free + boot + anon + cache + table + stack + slab + hugetlb + zero = all frames

The walks are page loops; a rule itself is a comparison of two arrays or two sums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from core.abi.mman import VM_ACCOUNT, VM_LOCKED, VM_SHARED
from core.abi.page_flags import (
    PG_ACTIVE,
    PG_ANON,
    PG_DIRTY,
    PG_HEAD,
    PG_HUGETLB,
    PG_LRU,
    PG_PRIVATE,
    PG_SHMEM,
    PG_SLAB,
    PG_STACK,
    PG_SWAPCACHE,
    PG_TABLE,
    PG_TAIL,
    PG_UNEVICTABLE,
    PG_ZERO,
    PG_ZSMALLOC,
)
from core.jit import njit, step
from core.mm import hugetlb_share
from core.mm.compound import PG_COMPOUND, compound_head
from core.mm.mm_inline import HOME_SHIFT, gen_list, lru_gen, lru_type
from core.mm.mm_types import (
    CTL_BUDDY,
    CTL_HUGE_ZERO,
    CTL_MAX_PFN,
    CTL_POLICY,
    CTL_SHRINKLIST,
    CTL_SLAB_BYTES,
    CTL_SLAB_PAGES,
    CTL_SLABU_BYTES,
    CTL_SLABU_PAGES,
    CTL_SWAP_FREE,
    HPAGE_PMD_NR,
    LRU_UNEVICTABLE,
    MAX_NR_GENS,
    MAX_ORDER,
    MGLRU,
    MIGRATE_TYPES,
    MIN_NR_GENS,
    NR_LRU,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_SKIP,
    ZONES_PER_NODE,
    Array,
    State,
)
from core.mm.page_alloc import zone_of
from core.mm.pgtable import PTE_PRESENT, PTE_PS, PTE_SPECIAL, pte_pfn
from core.mm.swap import lru_pages, page_lru
from core.mm.swapfile import SLOT_CACHED, SLOT_SHMEM, swp_slot
from core.mm.util import is_data_mapping
from core.mm.zram import SLOT_HUGE, SLOT_OBJECT, SLOT_SAME
from core.panic import KernelBug
from core.sched import psi
from core.verify_ksm import shared_pages_add_up
from core.vmstat import MEMCG, NODE, ZONE

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.hugetlb_types import Hstate
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import Mm

OWNERS = ("nobody", "free", "boot", "anon", "cache", "table", "stack", "slab", "hugetlb", "zero", "zsmalloc")
FREE, BOOT, ANON, CACHE, TABLE, STACK, SLAB, HUGETLB, ZERO, ZSMALLOC = range(1, 11)
NO_SWAP = np.zeros(0, np.int64)
MAPPED_RSS = ((0, "file"), (1, "anon"), (2, "swap"), (3, "shmem"))


def broken(rule: str, detail: str) -> NoReturn:
    """A rule does not hold."""
    raise KernelBug(f"{rule}: {detail}")


@dataclass(slots=True)
class Recount:
    """What the walks found: one entry a frame, one row an address space."""

    owner: Array  # OWNERS, by frame
    claims: Array  # how many owners claim the frame
    mapped: Array  # page-table entries that point to it
    cached: Array  # radix slots that hold it
    tables: dict[int, list[int]] = field(default_factory=dict)  # by mm: PTE, PMD, PUD tables
    rss: dict[int, list[int]] = field(default_factory=dict)
    stray: dict[int, int] = field(default_factory=dict)  # by mm: entries outside every mapping
    free: Array | None = None  # by zone and order: blocks
    cache_pages: dict[int, int] = field(default_factory=dict)  # by inode
    cache_dirty: dict[int, int] = field(default_factory=dict)
    huge: dict[int, list[int]] = field(default_factory=dict)  # by mm: entries of 2 MiB, of 1 GiB
    refs: Array | None = None  # by swap slot: entries that name it
    swapcached: int = 0
    sharers: Array | None = None  # of a PMD table of hugetlb: how many address spaces use it, too
    whole: Array | None = None  # by head of a compound page: PMD and PUD entries that map it
    heads: Array | None = None  # the heads of transparent huge pages
    head_of: Array | None = None  # by frame: the head of the page that it belongs to


# ---------------------------------------------------------------- the walks


@njit
def walk_tables(s: State, mm: int, starts, ends, owner, claims, mapped, tables, rss, refs, whole, huge, sharers) -> int:
    """One address space: its tables, what its entries point to. Answers entries that lie in no mapping, or huge ones without a table put by.

    whole: by head, entries that map a compound page at once. huge: entries of 2 MiB and of 1 GiB of hugetlb. sharers: by frame of a PMD table, who
    uses it besides the first.
    """
    pgd = s.mms[mm]["pgd"]
    stray = 0
    at = 0  # index of the mapping that may hold the next page
    for i in range(512):
        upper = s.pt[pgd, i]
        if upper == 0:
            continue
        pud = claim_table(s, upper, owner, claims)
        tables[2] += 1
        for j in range(512):
            middle = s.pt[pud, j]
            if middle == 0:
                continue
            if middle & PTE_PS:
                whole[pte_pfn(middle)] += 1
                huge[1] += 1
                continue
            tables[1] += 1
            if owner[pte_pfn(middle)] == TABLE and s.mem[pte_pfn(middle)]["refcount"] > 1:
                sharers[pte_pfn(middle)] += 1  # of hugetlb: what is in it was counted with its first user
                continue
            pmd = claim_table(s, middle, owner, claims)
            deposited = claim_deposits(s, (middle >> 12) & ((1 << 40) - 1), owner, claims)
            tables[0] += deposited
            for m in range(512):
                lower = s.pt[pmd, m]
                if lower == 0:
                    continue
                if lower & PTE_PS:
                    head = pte_pfn(lower)
                    if s.mem[head]["flags"] & PG_HUGETLB:
                        whole[head] += 1
                        huge[0] += 1
                        continue
                    base = (i << 27) | (j << 18) | (m << 9)
                    while at < len(ends) and ends[at] <= base:
                        at += 1
                    if at == len(ends) or base < starts[at] or base + HPAGE_PMD_NR > ends[at]:
                        stray += 1
                    if s.mem[head]["flags"] & PG_SHMEM:
                        whole[head] += 1
                        rss[3] += HPAGE_PMD_NR
                        continue
                    deposited -= 1
                    if head == s.ctl[CTL_HUGE_ZERO]:
                        stray += 1 - s.mms[mm]["huge_zero"]
                        continue
                    whole[head] += 1
                    rss[1] += HPAGE_PMD_NR
                    continue
                tid = claim_table(s, lower, owner, claims)
                tables[0] += 1
                base = (i << 27) | (j << 18) | (m << 9)
                for n in range(512):
                    pte = s.pt[tid, n]
                    if pte == 0:
                        continue
                    vpn = base | n
                    while at < len(ends) and ends[at] <= vpn:
                        at += 1
                    if at == len(ends) or vpn < starts[at]:
                        stray += 1
                    if not pte & PTE_PRESENT:
                        rss[2] += 1
                        refs[swp_slot(s, pte)] += 1
                        continue
                    if pte & PTE_SPECIAL:
                        continue
                    pfn = (pte >> 12) & ((1 << 40) - 1)
                    mapped[pfn] += 1
                    flags = s.mem[pfn]["flags"]
                    if flags & PG_ANON:
                        rss[1] += 1
                        if mapped[pfn] == 1 and not flags & PG_COMPOUND:
                            owner[pfn] = ANON
                            claims[pfn] += 1
                    elif flags & PG_SHMEM:
                        rss[3] += 1
                    else:
                        rss[0] += 1
            stray += abs(deposited)
    return stray


@step
def claim_deposits(s: State, pmd: int, owner, claims) -> int:
    """Page tables put by for the huge entries of a PMD table: how many."""
    n = 0
    table = s.mem[pmd]["index"]
    while table:
        owner[table] = TABLE
        claims[table] += 1
        n += 1
        table = s.mem[table]["next"]
    return n


@step
def claim_table(s: State, entry: int, owner, claims) -> int:
    """A page table belongs to the entry above it; answers its row."""
    pfn = (entry >> 12) & ((1 << 40) - 1)
    owner[pfn] = TABLE
    claims[pfn] += 1
    return s.mem[pfn]["private"]


@njit
def walk_file(s: State, root: int, inode: int, owner, claims, cached, refs, found) -> int:
    """One radix tree: found = [pages, dirty]. Answers the first index whose page says it is another's, or -1.

    A negative entry is a swap slot (`refs`) in a shared-memory object, the shadow of an evicted page in a file (`refs` empty).
    """
    wrong = -1
    for i in range(512):
        upper = s.xa[root, i]
        if upper == 0:
            continue
        for j in range(512):
            middle = s.xa[upper, j]
            if middle == 0:
                continue
            for m in range(512):
                leaf = s.xa[middle, m]
                if leaf == 0:
                    continue
                for n in range(512):
                    pfn = s.xa[leaf, n]
                    if pfn < 0 and len(refs):
                        refs[-pfn] += 1
                        if not s.slots[-pfn]["flags"] & SLOT_SHMEM:
                            wrong = (i << 27) | (j << 18) | (m << 9) | n
                    if pfn <= 0:
                        continue
                    head = compound_head(s, pfn)
                    page = s.mem[head]
                    owner[pfn] = CACHE
                    claims[pfn] += 1
                    cached[pfn] += 1
                    found[0] += 1
                    if page["flags"] & PG_DIRTY:
                        found[1] += 1
                    index = (i << 27) | (j << 18) | (m << 9) | n
                    if wrong < 0 and (page["mapping"] != inode or page["index"] + pfn - head != index or page["flags"] & PG_ANON):
                        wrong = index
    return wrong


@njit
def walk_buddy(s: State, zid: int, owner, claims, blocks) -> int:
    """One zone's free lists. Answers the first frame of a block that is misplaced or wrongly linked, or -1.

    A block belongs to its pageblock's list, but for single blocks that another type stole, and its links end in that list's type.
    """
    zone = s.zones[zid]
    first, last = zone["start_pfn"], zone["start_pfn"] + zone["spanned"]
    for mt in range(MIGRATE_TYPES):
        for order in range(MAX_ORDER):
            link = zone["head"][mt, order]
            before = -1 - mt
            pfn = first
            while link > 0:
                block = link - 1
                pfn = block << order
                row = s.ctl[CTL_BUDDY + order] + block
                if pfn < first or pfn + (1 << order) > last or s.buddy[row, 1] != before:
                    return pfn
                for at in range(pfn, pfn + (1 << order)):
                    owner[at] = FREE
                    claims[at] += 1
                blocks[order] += 1
                if blocks[order] > zone["spanned"]:
                    return pfn
                before = link
                link = s.buddy[row, 0]
            if (before > 0 and link != -1 - mt) or zone["tail"][mt, order] != max(before, 0):
                return pfn
    return -1


@njit
def walk_lru(s: State, lruvec: int, memcg: int, node_first: int, node_last: int, lru: int, seen) -> int:
    """One LRU list: how many pages, or -1 - pfn at the first page that does not belong there."""
    n = 0
    before = 0
    pfn = s.lruvecs[lruvec]["head"][lru]
    while pfn:
        page = s.mem[pfn]
        seen[pfn] += 1
        mine = page["memcg"] == memcg and node_first <= pfn < node_last
        if seen[pfn] > 1 or not page["flags"] & PG_LRU or page_lru(page["flags"]) != lru or page["prev"] != before or not mine:
            return -1 - pfn
        n += lru_pages(page["flags"])
        before = pfn
        pfn = page["next"]
    return n if s.lruvecs[lruvec]["tail"][lru] == before else -1 - before


@njit
def walk_gen(s: State, lruvec: int, memcg: int, zid: int, row: int, sizes, seen) -> int:
    """One list of a generation: 0, or -1 - pfn at the first page that does not belong there. `sizes` counts by the pages' own generation."""
    before = 0
    pfn = s.lrugens[lruvec]["head"][row]
    while pfn:
        page = s.mem[pfn]
        seen[pfn] += 1
        kind = lru_type(page["flags"])
        own, home = lru_gen(s, pfn), s.gens[pfn] >> HOME_SHIFT
        right = page["flags"] & PG_LRU and not page["flags"] & (PG_ACTIVE | PG_UNEVICTABLE) and page["memcg"] == memcg and own >= 0
        if seen[pfn] > 1 or not right or zone_of(s, pfn) != zid or gen_list(home, kind, zid) != row or page["prev"] != before:
            return -1 - pfn
        sizes[gen_list(own, kind, zid)] += lru_pages(page["flags"])
        before = pfn
        pfn = page["next"]
    return 0 if s.lrugens[lruvec]["tail"][row] == before else -1 - before


@njit
def charged_frames(s: State, owner, whole, charged, anon, mapped_file, cache, shmem, tables) -> None:
    """By cgroup: frames charged, and what kinds they are."""
    for pfn in range(len(owner)):
        page = s.mem[pfn]
        head = compound_head(s, pfn)
        memcg = s.mem[head]["memcg"]
        kind = owner[pfn]
        if kind in (ANON, CACHE, TABLE, STACK):
            charged[memcg] += 1
        if kind == ANON:
            if page["mapcount"] > 0 or whole[head] > 0:
                anon[memcg] += 1
        elif kind == CACHE:
            cache[memcg] += 1
            if page["mapcount"] > 0 or whole[head] > 0:
                mapped_file[memcg] += 1
            if page["flags"] & PG_SHMEM:
                shmem[memcg] += 1
        elif kind == TABLE:
            tables[memcg] += 1


def recount(k: Kernel) -> Recount:
    """Walk everything once."""
    size = int(k.s.ctl[CTL_MAX_PFN]) + 1
    claims, mapped, cached, whole = np.zeros((4, size), np.int32)
    r = Recount(np.zeros(size, np.int8), claims, mapped, cached, whole=whole, sharers=np.zeros(size, np.int32))
    for start, end, _ in k.boot_facts.ranges:
        _claim(r, slice(start, end), BOOT)
    r.refs = np.zeros(len(k.s.slots), np.int64)
    for h in k.hstates:
        for pfn in h.pages:
            _claim(r, slice(pfn, pfn + h.nr_pages), HUGETLB)
    _walk_free(k, r)
    for mm in k.mms.values():
        _walk_mm(k, r, mm)
    for inode in k.inodes.values():
        if inode.root:
            found = np.zeros(2, np.int64)
            refs = r.refs if inode.shmem else NO_SWAP
            wrong = int(walk_file(k.s, inode.root, inode.id, r.owner, r.claims, r.cached, refs, found))
            if wrong >= 0:
                broken("page cache", f"page {wrong} of {inode.path} (inode {inode.id}) is somebody else's")
            r.cache_pages[inode.id], r.cache_dirty[inode.id] = int(found[0]), int(found[1])
    for task in k.tasks.values():
        for pfn in task.stack:
            _claim(r, pfn, STACK)
    flags = k.s.mem["flags"][:size]
    in_cache = k.s.slots["pfn"][k.s.slots["pfn"] > 0]
    r.swapcached = len(in_cache)
    unmapped = in_cache[(r.mapped[in_cache] == 0) & (flags[in_cache] & PG_COMPOUND == 0)]
    r.owner[unmapped] = ANON
    r.claims[unmapped] += 1
    _claim_compound(k, r, flags)
    for owner, flag in ((SLAB, PG_SLAB), (ZSMALLOC, PG_ZSMALLOC)):
        theirs = np.flatnonzero(flags & flag)
        r.owner[theirs] = owner
        r.claims[theirs] += 1
    return r


def _claim_compound(k: Kernel, r: Recount, flags: Array) -> None:
    """A huge page's frames belong to what its head says; each tail names its head."""
    heads = np.flatnonzero(flags & (PG_HEAD | PG_HUGETLB) == PG_HEAD)
    r.heads, r.head_of = heads, np.arange(len(flags))
    frames = heads[:, None] + np.arange(HPAGE_PMD_NR)
    own = heads[flags[heads] & PG_SHMEM == 0]  # those of shared memory are claimed by their objects
    frames_of_own = own[:, None] + np.arange(HPAGE_PMD_NR)
    r.owner[frames_of_own] = np.where(flags[own] & PG_ZERO, ZERO, ANON)[:, None]
    r.claims[frames_of_own] += 1
    r.head_of[frames] = heads[:, None]
    tails = np.flatnonzero(flags & PG_TAIL)
    tails = tails[flags[k.s.mem["private"][tails]] & PG_HUGETLB == 0]
    if len(tails) != len(heads) * (HPAGE_PMD_NR - 1) or (k.s.mem["private"][tails] != r.head_of[tails]).any():
        broken("compound pages", f"{len(heads)} heads, {len(tails)} tails, or a tail that names another head")


def _claim(r: Recount, where: int | slice, owner: int) -> None:
    r.owner[where] = owner
    r.claims[where] += 1


def _walk_free(k: Kernel, r: Recount) -> None:
    r.free = np.zeros((len(k.s.zones), MAX_ORDER), np.int64)
    for zid in k.populated:
        wrong = int(walk_buddy(k.s, zid, r.owner, r.claims, r.free[zid]))
        if wrong >= 0:
            broken("free lists", f"the block at frame {wrong:#x} is not where zone {zid} has it")


def _walk_mm(k: Kernel, r: Recount, mm: Mm) -> None:
    tables, rss, huge = np.zeros(3, np.int64), np.zeros(4, np.int64), np.zeros(2, np.int64)
    starts = np.array([vma.start for vma in mm.vmas], np.int64)
    ends = np.array([vma.end for vma in mm.vmas], np.int64)
    r.stray[mm.id] = int(walk_tables(k.s, mm.id, starts, ends, r.owner, r.claims, r.mapped, tables, rss, r.refs, r.whole, huge, r.sharers))
    r.huge[mm.id] = huge.tolist()
    r.tables[mm.id], r.rss[mm.id] = tables.tolist(), rss.tolist()
    _claim(r, mm.pgd_pfn, TABLE)


# ---------------------------------------------------------------- the rules


def every_frame_has_one_owner(k: Kernel, r: Recount) -> None:
    """Each frame of each zone is free or belongs to exactly one owner; a free frame's row is clean."""
    for zid in k.populated:
        zone = k.s.zones[zid]
        span = slice(int(zone["start_pfn"]), int(zone["start_pfn"]) + int(zone["spanned"]))
        wrong = np.flatnonzero(r.claims[span] != 1)
        if len(wrong):
            pfn = span.start + int(wrong[0])
            row = k.s.mem[pfn]
            what = f"{int(r.claims[pfn])} owners, last {OWNERS[int(r.owner[pfn])]}"
            broken("one owner", f"frame {pfn:#x} has {what}; {len(wrong)} such frames in zone {zid}; row {row}")
        free = r.owner[span] == FREE
        for column in ("flags", "refcount", "mapcount", "memcg", "mapping"):
            dirty = np.flatnonzero(free & (k.s.mem[column][span] != 0))
            if len(dirty):
                broken("one owner", f"free frame {span.start + int(dirty[0]):#x} has {column} {k.s.mem[span.start + int(dirty[0])]}")


def mapcounts_equal_entries(k: Kernel, r: Recount) -> None:
    """mapcount is the number of small entries that point to the frame, compound_mapcount that of huge ones."""
    assert r.whole is not None and r.heads is not None
    _same("mapcount", r.mapped, k.s.mem["mapcount"][: len(r.mapped)])
    counted = np.zeros_like(r.whole)
    heads = np.flatnonzero(k.s.mem["flags"][: len(r.mapped)] & PG_HEAD)
    counted[heads] = k.s.mem["index"][heads + 1]
    _same("compound_mapcount", r.whole, counted)


def references_have_holders(k: Kernel, r: Recount) -> None:
    """refcount is entries + page cache + buffers + swap cache, 1 for a frame of the kernel's own."""
    mem = k.s.mem[: len(r.mapped)]
    flags = mem["flags"]
    expected = r.mapped + r.cached + ((flags & PG_PRIVATE) != 0) + ((flags & PG_SWAPCACHE) != 0)
    assert r.whole is not None and r.heads is not None
    frames = r.heads[:, None] + np.arange(HPAGE_PMD_NR)
    small = r.mapped[frames].sum(axis=1)
    expected[frames] = 0
    expected[r.heads] = small + r.whole[r.heads] + HPAGE_PMD_NR * ((flags[r.heads] & (PG_SWAPCACHE | PG_SHMEM)) != 0)
    if k.khugepaged["held"]:
        expected[k.khugepaged["held"]["head"]] = 1  # a block that is to be filled
    expected[(flags & (PG_TABLE | PG_STACK | PG_SLAB | PG_ZSMALLOC)) != 0] = 1
    expected += r.sharers
    counted = np.isin(r.owner, (ANON, CACHE, TABLE, STACK, SLAB, ZSMALLOC))
    _same("refcount", np.where(counted, expected, 0), np.where(counted, mem["refcount"], 0))


def _same(rule: str, expected: Array, actual: Array) -> None:
    wrong = np.flatnonzero(expected != actual)
    if len(wrong):
        pfn = int(wrong[0])
        broken(rule, f"frame {pfn:#x} has {int(actual[pfn])}, found {int(expected[pfn])}; {len(wrong)} such frames")


def address_spaces_add_up(k: Kernel, r: Recount) -> None:
    """Page tables, resident sets and mappings of each address space equal their counters."""
    for mm in k.mms.values():
        row = k.s.mms[mm.id]
        if r.tables[mm.id] != row["nr_tables"].tolist():
            broken("page tables", f"mm {mm.id} counts {row['nr_tables'].tolist()}, has {r.tables[mm.id]}")
        for column, name in MAPPED_RSS:
            if r.rss[mm.id][column] != int(row["rss"][column]):
                broken("rss", f"mm {mm.id} counts {int(row['rss'][column])} {name} pages, maps {r.rss[mm.id][column]}")
        if r.stray[mm.id]:
            broken("entries", f"mm {mm.id} has {r.stray[mm.id]} page-table entries outside its mappings")
        _mappings(mm)


def _mappings(mm: Mm) -> None:
    """The list is sorted and without overlap; total_vm and its parts are the sums of the mappings."""
    if mm.starts != [vma.start for vma in mm.vmas]:
        broken("mappings", f"mm {mm.id}: the list of starts is out of step")
    for low, high in zip(mm.vmas, mm.vmas[1:], strict=False):
        if low.end > high.start:
            broken("mappings", f"mm {mm.id}: {low} overlaps {high}")
    for vma in mm.vmas:
        if vma.start >= vma.end or vma.mm is not mm:
            broken("mappings", f"mm {mm.id}: {vma} is empty or another's")
        if vma.file is not None and vma not in vma.file.vmas:
            broken("mappings", f"mm {mm.id}: {vma} is unknown to {vma.file.path}")
        if any(vma not in anon_vma.vmas for anon_vma in vma.chain) or (vma.anon_vma is not None and vma.anon_vma not in vma.chain):
            broken("anon_vma", f"mm {mm.id}: {vma} and its anon_vmas do not agree")
    sums = {
        "total_vm": sum(vma.pages for vma in mm.vmas),
        "locked_vm": sum(vma.pages for vma in mm.vmas if vma.flags & VM_LOCKED and not vma.special),
        "data_vm": sum(vma.pages for vma in mm.vmas if is_data_mapping(vma.flags)),
    }
    for name, pages in sums.items():
        if getattr(mm, name) != pages:
            broken("mappings", f"mm {mm.id}: {name} is {getattr(mm, name)}, its mappings sum up to {pages}")


def swap_slots_add_up(k: Kernel, r: Recount) -> None:
    """A slot's count is the entries that name it; a cached page names its slot; areas and cgroups count what is in use."""
    slots, mem = k.s.slots, k.s.mem
    if (wrong := np.flatnonzero(r.refs != slots["count"])).size:
        broken("swap", f"slot {int(wrong[0])} counts {int(slots['count'][wrong[0]])} entries, {len(wrong)} such slots")
    cached = np.flatnonzero(slots["pfn"])
    pfns = slots["pfn"][cached]
    assert r.head_of is not None
    heads = r.head_of[pfns]
    if (mem["private"][heads] + pfns - heads != cached).any() or not (mem["flags"][heads] & PG_SWAPCACHE).all():
        broken("swap cache", "a slot's page does not name the slot")
    kept = slots["flags"] & SLOT_CACHED > 0
    used = (slots["count"] > 0) | (slots["pfn"] > 0) | kept
    if (kept & ((slots["count"] > 0) | (slots["pfn"] > 0))).any() or int(kept.sum()) != int((k.s.slot_caches["nr"] + k.s.slot_caches["n_ret"]).sum()):
        broken("swap", "what the processors keep is in use, or not theirs")
    free = sum(int(area["pages"]) - int(area["used"]) for area in k.s.swaps if area["on"])
    if free != int(k.s.ctl[CTL_SWAP_FREE]):
        broken("swap", f"{int(k.s.ctl[CTL_SWAP_FREE])} slots are counted as free, {free} are")
    frames = int((k.s.mem["flags"] & PG_ZSMALLOC > 0).sum())
    if frames != int(k.s.swaps["frames"].sum()) or frames != sum(int(zone["stat"][ZONE["nr_zspages"]]) for zone in k.s.zones):
        broken("zram", f"the devices count {int(k.s.swaps['frames'].sum())} frames, there are {frames}")
    for kind, area in enumerate(k.s.swaps):
        first = int(area["base"])
        _kept_by_zram(k, kind)
        found = int(used[first : first + int(area["pages"]) + 1].sum())
        if found != int(area["used"]):
            broken("swap", f"an area counts {int(area['used'])} slots in use, has {found}")
    paid = np.bincount(slots["memcg"][used], minlength=len(k.s.memcgs))
    for cg in k.cgroups.values():
        below = sum(int(k.s.memcgs["swap"][child.id]) for child in k.cgroups.values() if child.parent is cg)
        if cg.parent is not None and int(paid[cg.id]) + below != int(k.s.memcgs["swap"][cg.id]):
            broken("memory.swap", f"{cg.path} counts {int(k.s.memcgs['swap'][cg.id])} slots; it has {int(paid[cg.id])} and {below} below")


def _kept_by_zram(k: Kernel, kind: int) -> None:
    """The flags of an area's slots say what its device keeps, and slots that are in use have their page there."""
    area = k.s.swaps[kind]
    flags = k.s.slots["flags"][int(area["base"]) : int(area["base"]) + int(area["pages"]) + 1]
    for name, flag in (("objects", SLOT_OBJECT), ("huge_pages", SLOT_HUGE), ("same_pages", SLOT_SAME)):
        if int(area["object_size"]) and int((flags & flag > 0).sum()) != int(area[name]):
            broken("zram", f"the device counts {int(area[name])} {name}, it has {int((flags & flag > 0).sum())}")


def commitments_add_up(k: Kernel, r: Recount) -> None:
    """Committed_AS is the accounted mappings and the shared memory objects."""
    pages = sum(vma.pages for mm in k.mms.values() for vma in mm.vmas if vma.flags & VM_ACCOUNT and not vma.flags & VM_SHARED)
    pages += sum(inode.committed for inode in k.inodes.values())
    if pages != k.committed_pages:
        broken("Committed_AS", f"{k.committed_pages} pages are counted, {pages} promised")


def _shared_heads(k: Kernel, r: Recount) -> Array:
    """The huge pages of shared memory."""
    assert r.heads is not None
    return r.heads[k.s.mem["flags"][r.heads] & PG_SHMEM != 0]


def _whole(k: Kernel, r: Recount, *, shared: bool) -> Array:
    """The huge pages that some entry maps whole: those of shared memory, or the others."""
    assert r.heads is not None and r.whole is not None
    mapped = r.heads[r.whole[r.heads] > 0]
    return mapped[(k.s.mem["flags"][mapped] & PG_SHMEM != 0) == shared]


def charges_add_up(k: Kernel, r: Recount) -> None:
    """A cgroup's usage is its own frames and slab, what the cpus hold for it, and its children's usage."""
    groups = len(k.s.memcgs)
    counts = [np.zeros(groups, np.int64) for _ in range(6)]
    charged_frames(k.s, r.owner, r.whole, *counts)
    charged, anon, mapped_file, cache, shmem, tables = counts
    assert r.head_of is not None and r.heads is not None and r.whole is not None
    users = np.bincount(k.s.mem["memcg"][r.head_of[r.owner == ANON]], minlength=groups)  # in the swap cache or mapped
    huge = HPAGE_PMD_NR * np.bincount(k.s.mem["memcg"][_whole(k, r, shared=False)], minlength=groups)
    shared = HPAGE_PMD_NR * np.bincount(k.s.mem["memcg"][_shared_heads(k, r)], minlength=groups)
    pgds = np.bincount([int(k.s.mem["memcg"][mm.pgd_pfn]) for mm in k.mms.values()], minlength=groups)
    stat = k.s.memcgs["stat"]
    for cg in k.cgroups.values():
        row = k.s.memcgs[cg.id]
        slab = (int(row["kmem_bytes"]) + 4095) // 4096
        own = int(charged[cg.id]) + slab
        kernel = own - int(users[cg.id]) - int(cache[cg.id])
        own += sum(int(nr) for memcg, nr in k.s.stock if memcg == cg.id)
        below = sum(int(k.s.memcgs["usage"][child.id]) for child in k.cgroups.values() if child.parent is cg)
        if cg.parent is not None and own + below != int(row["usage"]):
            broken("charges", f"{cg.path} is charged {int(row['usage'])} pages; it has {own} of its own and {below} below")
        found = {"nr_anon_pages": anon[cg.id], "nr_file_pages": cache[cg.id], "nr_mapped": mapped_file[cg.id], "nr_shmem": shmem[cg.id],
                 "pagetables": tables[cg.id] - pgds[cg.id], "kernel": kernel, "nr_anon_transparent_hugepages": huge[cg.id],
                 "nr_shmem_hugepages": shared[cg.id]}  # fmt: skip
        for name, count in found.items():
            if int(stat[cg.id, MEMCG[name]]) != int(count):
                broken("memory.stat", f"{cg.path} counts {int(stat[cg.id, MEMCG[name]])} {name}, has {int(count)}")
    pids = sorted(pid for cg in k.cgroups.values() for pid in cg.pids)
    live = sorted(task.pid for task in k.tasks.values() if task.state not in ("zombie", "dead"))
    if pids != live:
        broken("cgroup.procs", f"the cgroups hold {pids}, the processes are {live}")


def lists_add_up(k: Kernel, r: Recount) -> None:
    """Each page with PG_lru is on exactly the list that its flags name; lengths equal counters."""
    seen = np.zeros(len(r.owner), np.int32)
    by_node = np.zeros((k.nr_nodes, NR_LRU), np.int64)
    spans = [_node_span(k, node) for node in range(k.nr_nodes)]
    is_gen = int(k.s.ctl[CTL_POLICY]) == MGLRU
    for cg in k.cgroups.values():
        for node in range(k.nr_nodes):
            lruvec = cg.id * k.nr_nodes + node
            if is_gen:
                _generations(k, cg, node, seen)
            for lru in range(NR_LRU):
                if is_gen and lru != LRU_UNEVICTABLE:
                    by_node[node, lru] += int(k.s.lruvecs["nr"][lruvec][lru])
                    continue
                n = int(walk_lru(k.s, lruvec, cg.id, *spans[node], lru, seen))
                if n < 0:
                    broken("lru", f"frame {-1 - n:#x} does not belong on list {lru} of {cg.path}, node {node}: {k.s.mem[-1 - n]}")
                if n != int(k.s.lruvecs["nr"][lruvec][lru]):
                    broken("lru", f"list {lru} of {cg.path} counts {int(k.s.lruvecs['nr'][lruvec][lru])} pages, has {n}")
                by_node[node, lru] += n
    _same("lru", seen != 0, (k.s.mem["flags"][: len(seen)] & PG_LRU) != 0)
    if (by_node != k.s.node_stat[:, :NR_LRU]).any():
        broken("lru", f"the nodes count {k.s.node_stat[:, :NR_LRU].tolist()}, their lists hold {by_node.tolist()}")
    zones = k.s.zones["stat"][:, :NR_LRU].reshape(k.nr_nodes, -1, NR_LRU).sum(axis=1)
    if (zones != by_node).any():
        broken("lru", f"the zones count {zones.tolist()}, the lists hold {by_node.tolist()}")


def _generations(k: Kernel, cg: Cgroup, node: int, seen: Array) -> None:
    """Each page is on one list of one generation, the sizes are the pages', and the two youngest count as the active lists."""
    lruvec = cg.id * k.nr_nodes + node
    vec = k.s.lrugens[lruvec]
    sizes = np.zeros(len(vec["nr"]), np.int64)
    for row in range(len(sizes)):
        zid = node * ZONES_PER_NODE + row % ZONES_PER_NODE
        wrong = int(walk_gen(k.s, lruvec, cg.id, zid, row, sizes, seen))
        if wrong < 0:
            broken("lru_gen", f"frame {-1 - wrong:#x} does not belong on list {row} of {cg.path}, node {node}: {k.s.mem[-1 - wrong]}")
    if (sizes != vec["nr"]).any():
        broken("lru_gen", f"{cg.path}, node {node} counts {vec['nr'].tolist()}, its lists hold {sizes.tolist()}")
    newest, oldest = int(vec["max_seq"]), [int(seq) for seq in vec["min_seq"]]
    if not MIN_NR_GENS <= newest - oldest[1] + 1 <= newest - oldest[0] + 1 <= MAX_NR_GENS:
        broken("lru_gen", f"{cg.path}, node {node} has generations {oldest} to {newest}")
    active = {newest % MAX_NR_GENS, (newest - 1) % MAX_NR_GENS}
    for lru in range(4):
        rows = [gen * 2 + lru // 2 for gen in range(MAX_NR_GENS) if (gen in active) == bool(lru & 1)]
        pages = sum(int(sizes[row * ZONES_PER_NODE : (row + 1) * ZONES_PER_NODE].sum()) for row in rows)
        if pages != int(k.s.lruvecs["nr"][lruvec][lru]):
            broken("lru_gen", f"{cg.path}, node {node} shows {int(k.s.lruvecs['nr'][lruvec][lru])} pages as list {lru}, has {pages}")


def _node_span(k: Kernel, node: int) -> tuple[int, int]:
    """First frame and one past the last of a node."""
    mine = [zid for zid in k.populated if int(k.s.zones["node"][zid]) == node]
    first = min(int(k.s.zones["start_pfn"][zid]) for zid in mine)
    return first, max(int(k.s.zones["start_pfn"][zid]) + int(k.s.zones["spanned"][zid]) for zid in mine)


def free_pages_add_up(k: Kernel, r: Recount) -> None:
    """A zone's free pages are the sum of its blocks, and each order's count is its list's length."""
    assert r.free is not None
    sizes = 1 << np.arange(MAX_ORDER)
    for zid in k.populated:
        zone = k.s.zones[zid]
        if zone["nr_free"].tolist() != r.free[zid].tolist():
            broken("free lists", f"zone {zid} counts {zone['nr_free'].tolist()} blocks, has {r.free[zid].tolist()}")
        if int(zone["free"]) != int((r.free[zid] * sizes).sum()):
            broken("free pages", f"zone {zid} counts {int(zone['free'])} free pages, its lists hold {int((r.free[zid] * sizes).sum())}")
        if not 0 <= int(zone["boost"]) <= max(int(zone["max_boost"]), int(zone["managed"])):
            broken("watermark boost", f"zone {zid} has {int(zone['boost'])}, at most {int(zone['max_boost'])}")


def pageblocks_have_a_type(k: Kernel, r: Recount) -> None:
    """Every pageblock of a zone has a migrate type that has free lists."""
    for zid in k.populated:
        first, spanned = int(k.s.zones["start_pfn"][zid]), int(k.s.zones["spanned"][zid])
        blocks = k.s.pageblocks[first >> PAGEBLOCK_ORDER : ((first + spanned - 1) >> PAGEBLOCK_ORDER) + 1]
        odd = np.flatnonzero((blocks & ~PAGEBLOCK_SKIP) >= MIGRATE_TYPES)
        if len(odd):
            broken("pageblocks", f"pageblock {int(odd[0])} of zone {zid} has the flags {int(blocks[odd[0]])}")


def gauges_equal_recounts(k: Kernel, r: Recount) -> None:
    """The machine's counters of what there is now equal what there is now."""
    flags, mapcount = k.s.mem["flags"][: len(r.owner)], k.s.mem["mapcount"][: len(r.owner)]
    cache = r.owner == CACHE
    pgds = len(k.mms)
    assert r.head_of is not None and r.heads is not None and r.whole is not None
    found = {
        "nr_anon_pages": int(((r.owner == ANON) & ((mapcount > 0) | (r.whole[r.head_of] > 0))).sum()),
        "nr_anon_transparent_hugepages": HPAGE_PMD_NR * len(_whole(k, r, shared=False)),
        "nr_shmem_hugepages": HPAGE_PMD_NR * len(_shared_heads(k, r)),
        "nr_shmem_pmdmapped": HPAGE_PMD_NR * len(_whole(k, r, shared=True)),
        "nr_mapped": int((cache & ((mapcount > 0) | (r.whole[r.head_of] > 0))).sum()),
        "nr_file_pages": int(cache.sum()) + r.swapcached,
        "nr_shmem": int((cache & ((flags & PG_SHMEM) != 0)).sum()),
        "nr_dirty": int((cache & ((flags & (PG_DIRTY | PG_SHMEM)) == PG_DIRTY)).sum()),
        "nr_page_table_pages": int((r.owner == TABLE).sum()) - pgds,
        "nr_kernel_stack": 4 * int((r.owner == STACK).sum()) + k.boot_facts.kernel_stack_kb // k.nr_nodes * k.nr_nodes,
    }
    for name, count in found.items():
        counted = int(k.s.node_stat[:, NODE[name]].sum())
        if counted != count:
            broken("vmstat", f"{name} is {counted}, found {count}")
    slab = int((r.owner == SLAB).sum())
    if slab != int(k.s.ctl[CTL_SLAB_PAGES]) + int(k.s.ctl[CTL_SLABU_PAGES]):
        broken("slab", f"{slab} frames, counted {int(k.s.ctl[CTL_SLAB_PAGES])} and {int(k.s.ctl[CTL_SLABU_PAGES])}")
    for name, mask in (("nr_mlock", 1 << 12),):
        counted = int(k.s.zones["stat"][:, ZONE[name]].sum())
        pages = int((flags & mask != 0).sum()) + (HPAGE_PMD_NR - 1) * int((flags[r.heads] & mask != 0).sum())
        if counted != pages:
            broken("vmstat", f"{name} is {counted}, found {pages}")


def deferred_queues_add_up(k: Kernel, r: Recount) -> None:
    """A cgroup's deferred split queue holds huge pages of its own, as many as it counts; the shrink list, objects that end within a huge page."""
    for cg in k.cgroups.values():
        row = k.s.memcgs[cg.id]
        head, before, n = int(row["split_head"]), 0, 0
        while head:
            link = k.s.mem[head + 2]
            if int(k.s.mem["memcg"][head]) != cg.id or not int(k.s.mem["flags"][head]) & PG_HEAD or not link["index"] or int(link["prev"]) != before:
                broken("deferred split", f"frame {head:#x} does not belong on the queue of {cg.path}")
            before, head, n = head, int(link["next"]), n + 1
        if n != int(row["split_len"]) or before != int(row["split_tail"]):
            broken("deferred split", f"{cg.path} counts {int(row['split_len'])} huge pages, has {n}")
    listed = k.shmem["shrinklist"]
    if int(k.s.ctl[CTL_SHRINKLIST]) != len(listed) or len(set(listed)) != len(listed):
        broken("shrink list", f"{int(k.s.ctl[CTL_SHRINKLIST])} objects are counted, {listed} are listed")
    for id in listed:
        if id not in k.inodes or not k.inodes[id].shmem or k.inodes[id].nr_file_pages % HPAGE_PMD_NR in (0, HPAGE_PMD_NR - 1):
            broken("shrink list", f"object {id} has no huge page that could reach beyond its end")


def files_add_up(k: Kernel, r: Recount) -> None:
    """A file's counts of cached and dirty pages are those of its tree."""
    for inode in k.inodes.values():
        pages, dirty = r.cache_pages.get(inode.id, 0), r.cache_dirty.get(inode.id, 0)
        if inode.nr_pages != pages:
            broken("page cache", f"{inode.path} counts {inode.nr_pages} cached pages, has {pages}")
        if not inode.shmem and inode.nr_dirty != dirty:
            broken("page cache", f"{inode.path} counts {inode.nr_dirty} dirty pages, has {dirty}")


def processes_add_up(k: Kernel, r: Recount) -> None:
    """Parents know their children; an address space has as many users as tasks use it."""
    users: dict[int, int] = {}
    for task in k.tasks.values():
        if task.mm is not None:
            users[task.mm.id] = users.get(task.mm.id, 0) + 1
            if int(k.s.mms["memcg"][task.mm.id]) != task.cgroup.memcg.id:
                broken("mm owner", f"process {task.pid} is in {task.cgroup.path}, its pages go to {int(k.s.mms['memcg'][task.mm.id])}")
        for pid in task.children:
            if pid not in k.tasks or k.tasks[pid].ppid != task.pid:
                broken("children", f"process {task.pid} believes that {pid} is its child")
        if task.ppid and task.pid not in k.tasks[task.ppid].children:
            broken("children", f"process {task.ppid} does not know its child {task.pid}")
    if users != {mm.id: mm.users for mm in k.mms.values()}:
        broken("mm users", f"used by {users}, counted {[(mm.id, mm.users) for mm in k.mms.values()]}")


def programs_are_scheduled(k: Kernel, r: Recount) -> None:
    """A process with a program is on a run queue, asleep with a timer, or stopped; processors account for all of their time."""
    queued = [pid for rq in k.rqs for pid in rq.queue]
    programs = [task for task in k.tasks.values() if task.program is not None]
    if len(programs) != k.nr_programs or sorted(queued) != sorted(task.pid for task in programs if task.se.on_rq):
        broken("run queues", f"{k.nr_programs} programs, {len(programs)} found; queued are {queued}")
    timers = {(due, name) for due, _, _, name in k.clock.timers}
    for task in programs:
        if task.se.on_rq:
            if task.pid not in k.rqs[task.cpu].queue or task.cpu not in task.cpus_allowed:
                broken("run queues", f"process {task.pid} is not on the queue of processor {task.cpu}")
        elif task.state != "stopped" and (task.se.wake_ns, f"wake:{task.pid}") not in timers:
            broken("run queues", f"process {task.pid} sleeps and nothing will wake it")
    for rq in k.rqs:
        if rq.user_ns + rq.system_ns + rq.idle_ns + rq.iowait_ns != rq.now:
            broken("cpu time", f"processor {rq.number} is at {rq.now} ns, its parts do not add up to it")


def stalls_add_up(k: Kernel, r: Recount) -> None:
    """A group's counts of tasks by state, per processor, are those of the tasks below it (psi)."""
    counted: dict[tuple[str, int], list[int]] = {}
    for cpu, flags, cgroup in k.psi.known.values():
        for group in cgroup.ancestors:
            row = counted.setdefault((group.path, cpu), [0, 0, 0])
            for at, bit in enumerate((psi.RUNNING, psi.IOWAIT, psi.MEMSTALL)):
                row[at] += flags & bit != 0
    for group in k.cgroups.values():
        for cpu, seen in group.psi.cpus.items():
            if [seen.running, seen.iowait, seen.memstall] != counted.get((group.path, cpu), [0, 0, 0]):
                broken("psi", f"{group.path} counts {seen.running}, {seen.iowait}, {seen.memstall} running, waiting, stalled on cpu {cpu}")


def pools_add_up(k: Kernel, r: Recount) -> None:
    """A pool's counters are those of its pages; a page has as many references as entries and files; promises are what maps say."""
    for h in k.hstates:
        in_use = _check_pool(h)
        _check_huge_pages(k, r, h, in_use)
        promised = sum(inode.resv_map.region_count(0, LAST) - len(inode.huge_pages)
                       for inode in k.inodes.values() if inode.hstate is h and inode.resv_map is not None)  # fmt: skip
        owners = [vma for mm in k.mms.values() for vma in mm.vmas if vma.resv is not None and vma.file is not None and vma.file.hstate is h]
        for vma in owners:
            first, last = vma.pgoff >> h.order, (vma.pgoff + vma.pages) >> h.order
            promised += last - first - (vma.resv.region_count(first, last) if vma.resv is not None else 0)
        spools = {id(spool): spool for spool in [*(at.spool for at in k.mounts.values() if at.hstate is h),
                                                 *(inode.spool for inode in k.inodes.values() if inode.hstate is h)] if spool}  # fmt: skip
        promised += sum(spool.rsv_hpages for spool in spools.values())
        if promised != h.resv_huge_pages:
            broken("hugetlb", f"{h.resv_huge_pages} pages of {h.size >> 20} MiB are reserved, the maps say {promised}")
    for mm in k.mms.values():
        if any(hugetlb_share.shareable(vma, vma.start + hugetlb_share.PUD_PAGES - 1) for vma in mm.vmas):
            continue  # of a shared page table it counts what it has faulted in itself
        small = sum(count * pages for count, pages in zip(r.huge[mm.id], (512, 1 << 18), strict=True))
        if small != mm.hugetlb_usage:
            broken("HugetlbPages", f"mm {mm.id} counts {mm.hugetlb_usage} pages, maps {small}")


LAST = 1 << 62


def _check_pool(h: Hstate) -> set[int]:
    """Lists and counters agree; the pages in use."""
    free = [pfn for pages in h.free_lists for pfn in pages]
    nodes = range(len(h.nr_node))
    by_node = [sum(page.node == node for page in h.pages.values()) for node in nodes]
    sums = (len(h.pages), len(free), sum(h.surplus_node))
    if sums != (h.nr_huge_pages, h.free_huge_pages, h.surplus_huge_pages) or len(set(free)) != len(free):
        broken("hugetlb", f"counted {h.nr_huge_pages} pages, {h.free_huge_pages} free, {h.surplus_huge_pages} surplus; found {sums}")
    if by_node != h.nr_node or [len(pages) for pages in h.free_lists] != h.free_node or h.resv_huge_pages > h.free_huge_pages:
        broken("hugetlb", f"by node {by_node}, counted {h.nr_node}; {h.resv_huge_pages} reserved of {h.free_huge_pages} free")
    return set(h.pages) - set(free)


def _check_huge_pages(k: Kernel, r: Recount, h: Hstate, in_use: set[int]) -> None:
    assert r.whole is not None
    cached = [pfn for inode in k.inodes.values() if inode.hstate is h for pfn in inode.huge_pages.values()]
    for pfn in h.pages:
        entries, refs = int(r.whole[pfn]), int(k.s.mem["refcount"][pfn])
        if entries != int(k.s.mem["index"][pfn + 1]) or refs != entries + cached.count(pfn) or (refs > 0) != (pfn in in_use):
            broken("hugetlb", f"page {pfn:#x} has {refs} references and {int(k.s.mem['index'][pfn + 1])} mappings; {entries} entries found")


RULES = (
    free_pages_add_up,
    pageblocks_have_a_type,
    every_frame_has_one_owner,
    mapcounts_equal_entries,
    references_have_holders,
    address_spaces_add_up,
    commitments_add_up,
    swap_slots_add_up,
    charges_add_up,
    lists_add_up,
    gauges_equal_recounts,
    deferred_queues_add_up,
    files_add_up,
    pools_add_up,
    processes_add_up,
    programs_are_scheduled,
    stalls_add_up,
    shared_pages_add_up,
)


def verify(k: Kernel) -> None:
    """Check every rule; KernelBug names the first that does not hold."""
    _check(k)


def _check(k: Kernel) -> Recount:
    r = recount(k)
    for rule in RULES:
        rule(k, r)
    return r


def audit(k: Kernel) -> dict[str, Any]:
    """The sums for a user: frames by owner, which add up to all frames, and the rules that were checked.

    frames: {owner: frames}, total: all frames of all zones; mapped_entries: page-table entries that point to
    frames, equal to the sum of all mapcounts; slab_bytes: the kernel's objects.
    """
    r = _check(k)
    inside = np.concatenate([np.arange(int(z["start_pfn"]), int(z["start_pfn"]) + int(z["spanned"])) for z in k.s.zones[k.populated]])
    counts = np.bincount(r.owner[inside], minlength=len(OWNERS))
    frames = {name: int(counts[code]) for code, name in enumerate(OWNERS) if code}
    return {
        "frames": frames,
        "total": int(sum(frames.values())),
        "spanned": len(inside),
        "mapped_entries": int(r.mapped.sum()),
        "mapcounts": int(k.s.mem["mapcount"][: len(r.mapped)].sum()),
        "slab_bytes": int(k.s.ctl[CTL_SLAB_BYTES] + k.s.ctl[CTL_SLABU_BYTES]),
        "cgroups": [{"path": cg.path, "usage": int(k.s.memcgs["usage"][cg.id]) * 4096} for cg in k.cgroups.values() if cg.parent is not None],
        "rules": [{"rule": rule.__name__, "doc": (rule.__doc__ or "").split("\n")[0]} for rule in RULES],
    }
