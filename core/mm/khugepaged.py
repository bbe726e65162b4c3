"""khugepaged: small pages become a huge one, in the background or on demand (mm/khugepaged.c).

**The walk.** khugepaged wakes every `scan_sleep_millisecs` and looks at `pages_to_scan` page-table entries, 512 at a time, address space after
address space, in the order in which they came under its care (`huge_memory.khugepaged_enter`: the first huge fault, MADV_HUGEPAGE,
a fork of one that was). When the last one is through, `full_scans` counts and it begins anew.

**The look** at 512 entries (`scan_pmd`), of which each may stop it:

    empty, or the zero page    at most max_ptes_none (511)        else thp_scan_exceed_none_pte
    swapped out                at most max_ptes_swap (64)         else thp_scan_exceed_swap_pte
    mapped elsewhere, too      at most max_ptes_shared (256)      else thp_scan_exceed_share_pte
    present                    on an LRU list, held by nobody but its entries (and the swap cache)

and in the end one entry must be writable, and one page used lately (with swapped ones among them: 256).

**The collapse.** A block of 512 frames is taken and charged, and filled as long after as the copying takes: meanwhile the process runs, may unmap
the place or have it collapsed itself, and then the block goes back. It comes from the node with most of the pages. Swapped pages are read; each
page is copied to its place and freed, an empty place becomes a zeroed page: RSS grows by the empty ones ("bloat"). The page table that held
the small entries is put by for the huge one. Worked example: 2 MiB of which every second page was touched: 256 pages are copied, RSS
grows from 1024 kB to 2048 kB, pages_collapsed by one.

If no block can be had khugepaged waits `alloc_sleep_millisecs`, once a round. `defrag` 0 forbids it to compact and reclaim.

**MADV_COLLAPSE** does the same at once for each whole 2 MiB of a range, on the caller's time, heeding neither `enabled` nor any max_ptes_*.
0 if all are huge pages then; else ENOMEM without a free block, EBUSY over a memory.max, EAGAIN where a page was held, EINVAL otherwise.

Shared memory is collapsed in its object: `collapse_file`. khugepaged works beside the tasks and costs them no time.

Simplified: a collapse of shared memory happens at once, not as long after the look as the copying takes.

Source: mm/khugepaged.c of 6.1: khugepaged_do_scan, hpage_collapse_scan_pmd, collapse_huge_page, madvise_collapse; facts TH-07..TH-09, MA-12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.mman import PMD_PAGES, VM_LOCKED
from core.abi.page_flags import PG_ANON, PG_LRU, PG_REFERENCED, PG_SWAPCACHE, PG_UPTODATE
from core.events import Thp
from core.jit import inline, njit
from core.mm import collapse_file, gfp, memcontrol, memory, rmap_walk, shmem
from core.mm.compound import PG_COMPOUND, clear_compound_page, compound_head, page_mapcount, prep_compound_page, total_mapcount
from core.mm.fault import do_swap_page
from core.mm.gfp_types import GFP_DIRECT_RECLAIM, GFP_TRANSHUGE, GFP_TRANSHUGE_LIGHT
from core.mm.huge_memory import arm_khugepaged, hugepage_flags_enabled, hugepage_vma_check, map_new_huge_page, next_slot, why_not
from core.mm.mm_types import HPAGE_PMD_NR, HPAGE_PMD_ORDER, MM_ANONPAGES, State
from core.mm.page_alloc import free_one_page, zone_of
from core.mm.page_counter import charge_exactly, uncharge
from core.mm.page_ops import DONE, NEW_PAGES, munlock_page, page_remove_rmap, put_page
from core.mm.pgtable import (
    PFN_MASK,
    PTE_A,
    PTE_PRESENT,
    PTE_PS,
    PTE_RW,
    PTE_SPECIAL,
    deposit,
    find_table,
    pmd_frame,
)
from core.mm.scan_result import (
    ALLOC_FAIL,
    BY_KHUGEPAGED,
    CHARGE_FAIL,
    ERRNO,
    EXCEED_NONE,
    EXCEED_SHARED,
    EXCEED_SWAP,
    FAIL,
    GO_ON,
    LACK_REFERENCED,
    MAX_NONE,
    MAX_SHARED,
    MAX_SWAP,
    NODES,
    NON_PRESENT,
    NONE,
    PAGE_ANON,
    PAGE_COUNT,
    PAGE_LRU,
    PAGE_RO,
    PMD_MAPPED,
    PMD_NONE,
    PMD_NULL,
    PTE_MAPPED,
    REFERENCED,
    RESULTS,
    SHARED,
    SUCCEED,
    UNMAPPED,
    WRITABLE,
)
from core.mm.swap import lru_pages
from core.mm.swap_state import free_swap_cache
from core.mm.vma import vma_lookup, vmas_between
from core.vmstat import EVENT, MEMCG

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array, Mm, Vma
    from core.sched.task import Task

EXCEEDS = {EXCEED_NONE: EVENT["thp_scan_exceed_none_pte"], EXCEED_SWAP: EVENT["thp_scan_exceed_swap_pte"],
           EXCEED_SHARED: EVENT["thp_scan_exceed_share_pte"]}  # fmt: skip
THP_COLLAPSE_ALLOC, THP_COLLAPSE_ALLOC_FAILED = EVENT["thp_collapse_alloc"], EVENT["thp_collapse_alloc_failed"]
MEMCG_THP_COLLAPSE_ALLOC = MEMCG["thp_collapse_alloc"]
MSEC = 1_000_000
ENOUGH_REFERENCED = HPAGE_PMD_NR // 2


# ---------------------------------------------------------------- the look


@inline
def suitable(s: State, pfn: int) -> bool:
    """Is a page held by nothing but its entries and the swap cache (is_refcount_suitable)?"""
    head = compound_head(s, pfn)
    page = s.mem[head]
    cached = lru_pages(page["flags"]) if page["flags"] & PG_SWAPCACHE else 0
    return page["refcount"] == total_mapcount(s, head) + cached


@njit
def scan_pmd(s: State, pgd: int, vpn: int, limits, found) -> int:
    """Look at the 512 entries from `vpn` on: a result, and in `found` what was counted until then (hpage_collapse_scan_pmd)."""
    tid = find_table(s, pgd, vpn, 2)
    if tid == 0:
        return PMD_NULL
    entry = s.pt[tid, (vpn >> 9) & 511]
    if entry == 0:
        return PMD_NONE
    if entry & PTE_PS:
        return PMD_MAPPED
    return look(s, s.mem[(entry & PFN_MASK) >> 12]["private"], limits, found, False)


@inline
def look(s: State, row: int, limits, found, again: bool) -> int:
    """The look at one page table; `again`: right before the collapse, when no page may be in swap any more (__collapse_huge_page_isolate)."""
    ours = limits[BY_KHUGEPAGED]
    for i in range(HPAGE_PMD_NR):
        pte = s.pt[row, i]
        if pte and not pte & PTE_PRESENT:
            if again:
                return NON_PRESENT
            found[UNMAPPED] += 1
            if ours and found[UNMAPPED] > limits[MAX_SWAP]:
                return EXCEED_SWAP
            continue
        if pte == 0 or pte & PTE_SPECIAL:
            found[NONE] += 1
            if ours and found[NONE] > limits[MAX_NONE]:
                return EXCEED_NONE
            continue
        if pte & PTE_RW:
            found[WRITABLE] = 1
        pfn = (pte & PFN_MASK) >> 12
        if page_mapcount(s, pfn) > 1:
            found[SHARED] += 1
            if ours and found[SHARED] > limits[MAX_SHARED]:
                return EXCEED_SHARED
        flags = s.mem[compound_head(s, pfn)]["flags"]
        found[NODES + s.zones[zone_of(s, pfn)]["node"]] += 1
        if not flags & PG_LRU:
            return PAGE_LRU
        if not flags & PG_ANON:
            return PAGE_ANON
        if not suitable(s, pfn):
            return PAGE_COUNT
        if pte & PTE_A or flags & PG_REFERENCED:
            found[REFERENCED] += 1
    if not found[WRITABLE]:
        return PAGE_RO
    if ours and (found[REFERENCED] == 0 or (found[UNMAPPED] and found[REFERENCED] < ENOUGH_REFERENCED)):
        return LACK_REFERENCED
    return SUCCEED


def limits_of(k: Kernel, by_khugepaged: bool) -> Array:
    """What a look must heed: MADV_COLLAPSE heeds nothing."""
    names = ("max_ptes_none", "max_ptes_swap", "max_ptes_shared")
    return np.array([int(by_khugepaged), *(int(k.thp["khugepaged." + name]) for name in names)], np.int64)


def look_at(k: Kernel, vma: Vma, vpn: int, limits: Array) -> tuple[int, Array]:
    """A look: the result, and what was counted."""
    found = np.zeros(NODES + k.nr_nodes, np.int64)
    if vma.file is not None:
        return int(collapse_file.scan_tree(k.s, vma.file.root, vpn - vma.start + vma.pgoff, limits, found)), found
    return int(scan_pmd(k.s, int(k.s.mms["pgd"][vma.mm.id]), vpn, limits, found)), found


# ---------------------------------------------------------------- the collapse


@njit
def collapse_pmd(s: State, head: int, limits, found) -> int:
    """Copy the 512 places from vmf.first on into the huge page `head` and map it; a result. The frames are the caller's unless SUCCEED."""
    v = s.vmf[0]
    mm, first = v["mm"], v["first"]
    pmd = pmd_frame(s, s.mms[mm]["pgd"], first)
    tid, slot = s.mem[pmd]["private"], (first >> 9) & 511
    table = (s.pt[tid, slot] & PFN_MASK) >> 12
    row = s.mem[table]["private"]
    result = look(s, row, limits, found, True)
    if result != SUCCEED:
        return result
    s.mms[mm]["tlb_gen"] += 1
    for i in range(HPAGE_PMD_NR):
        pte = s.pt[row, i]
        s.pt[row, i] = 0
        if pte == 0 or pte & PTE_SPECIAL:
            s.mms[mm]["rss"][MM_ANONPAGES] += 1
            continue
        pfn = (pte & PFN_MASK) >> 12
        zid = zone_of(s, pfn)
        flags = s.mem[pfn]["flags"]
        s.mem[head + i]["content"] = s.mem[pfn]["content"]
        page_remove_rmap(s, zid, pfn)
        if v["vm_flags"] & VM_LOCKED and not flags & PG_COMPOUND:
            munlock_page(s, zid, pfn)
        if not put_page(s, zid, pfn) and flags & (PG_SWAPCACHE | PG_COMPOUND):
            free_swap_cache(s, zid, pfn)
    map_new_huge_page(s, v, head, first, tid)
    deposit(s, pmd, table)
    return SUCCEED


@njit
def take_charged(s: State, head: int, memcg: int) -> None:
    """The block is this cgroup's, a page that nothing maps yet."""
    prep_compound_page(s, head, HPAGE_PMD_ORDER, PG_UPTODATE)
    s.mem[head]["memcg"] = memcg
    s.memcgs[memcg]["stat"][MEMCG_THP_COLLAPSE_ALLOC] += 1


@njit
def give_back(s: State, head: int, charged: bool) -> None:
    """The block was not needed."""
    if charged:
        uncharge(s, s.mem[head]["memcg"], HPAGE_PMD_NR)
    clear_compound_page(s, head, HPAGE_PMD_ORDER)
    free_one_page(s, zone_of(s, head), head, HPAGE_PMD_ORDER)


@njit
def swapin_pmd(s: State) -> None:
    """Bring back what is swapped out of the 512 places from vmf.first on; stops with a reason at one that must be read (vmf.victim)."""
    v = s.vmf[0]
    pmd = pmd_frame(s, s.mms[v["mm"]]["pgd"], v["first"])
    entry = s.pt[s.mem[pmd]["private"], (v["first"] >> 9) & 511]
    tid = s.mem[(entry & PFN_MASK) >> 12]["private"]
    v["reason"] = DONE
    for vpn in range(v["first"], v["first"] + HPAGE_PMD_NR):
        pte = s.pt[tid, vpn & 511]
        if pte and not pte & PTE_PRESENT and not do_swap_page(s, v, tid, pte, vpn, False, 0):
            v["vpn"] = vpn
            return


def alloc_charge_hpage(k: Kernel, task: Task | None, mm: Mm, found: Array) -> tuple[int, int]:
    """The look said yes: a block, on the account of the address space's cgroup. A result, and the block."""
    hard = GFP_TRANSHUGE if task is not None or k.thp["khugepaged.defrag"] else GFP_TRANSHUGE_LIGHT
    load = found[NODES:]
    most = [node for node in range(k.nr_nodes) if load[node] == load.max()]
    head = gfp.alloc_pages(k, task, HPAGE_PMD_ORDER, hard, node=most[0], nodes=sum(1 << node for node in most))
    if not head:
        k.s.vm_event[THP_COLLAPSE_ALLOC_FAILED] += 1
        return ALLOC_FAIL, 0
    k.s.vm_event[THP_COLLAPSE_ALLOC] += 1
    if not _charge(k, task, mm, hard):
        give_back(k.s, head, False)
        return CHARGE_FAIL, 0
    take_charged(k.s, head, int(k.s.mms["memcg"][mm.id]))
    return SUCCEED, head


def collapse_huge_page(k: Kernel, task: Task | None, vma: Vma, vpn: int, head: int, found: Array, limits: Array) -> int:
    """The block is there: bring back what is in swap, copy, map. `task`: the caller of MADV_COLLAPSE, None: khugepaged."""
    result = _swap_in(k, task, vma, vpn) if found[UNMAPPED] else SUCCEED
    if result == SUCCEED:
        again = np.zeros_like(found)
        memory.begin(k, task, vma, memory.READ, vpn, 1, 1)
        result = int(collapse_pmd(k.s, head, limits, again)) if _table_there(k, vma.mm, vpn) else PMD_NONE
    if result != SUCCEED:
        give_back(k.s, head, True)
        return result
    _collapsed(k, task, vma, vpn, found)
    return SUCCEED


def _charge(k: Kernel, task: Task | None, mm: Mm, hard: int) -> bool:
    """512 pages on the account of the address space's cgroup, with reclaim there if allowed."""
    cg = k.cgroups[int(k.s.mms["memcg"][mm.id])]
    if not hard & GFP_DIRECT_RECLAIM:
        return int(charge_exactly(k.s, 0, cg.id, HPAGE_PMD_NR)) < 0
    try:
        memcontrol.charge(k, task, cg, HPAGE_PMD_NR, order=HPAGE_PMD_ORDER)
    except SysError:
        return False
    return True


def _table_there(k: Kernel, mm: Mm, vpn: int) -> bool:
    """Reclaim for the block may have freed pages, but page tables stay; a collapse never finds a huge entry here."""
    return int(scan_pmd(k.s, int(k.s.mms["pgd"][mm.id]), vpn, np.zeros(4, np.int64), np.zeros(NODES + k.nr_nodes, np.int64))) not in (
        PMD_NULL, PMD_NONE, PMD_MAPPED)  # fmt: skip


def _swap_in(k: Kernel, task: Task | None, vma: Vma, vpn: int) -> int:
    """Read what is swapped out of these 2 MiB (__collapse_huge_page_swapin)."""
    memory.begin(k, task, vma, memory.READ, vpn, 1, 1)
    while True:
        swapin_pmd(k.s)
        if int(k.s.vmf["reason"][0]) == DONE:
            memory.sync_mm_rss(k, vma.mm)
            return SUCCEED
        try:
            memory.swapin_readahead(k, task, vma)
        except SysError:
            return FAIL


def _collapsed(k: Kernel, task: Task | None, vma: Vma, vpn: int, found: Array) -> None:
    """Time, the event, and what Explain shows."""
    copied = HPAGE_PMD_NR - int(found[NONE])
    k.clock.spend(k.costs.clear_huge_page + copied * (k.costs.copy_page + k.costs.zap_pte))
    by = "MADV_COLLAPSE" if task is not None else "khugepaged"
    counts = {"referenced": int(found[REFERENCED]), "swapped": int(found[UNMAPPED]), "empty": int(found[NONE]), "shared": int(found[SHARED])}
    why = f"{by}: {copied} pages copied, {counts['empty']} empty places filled, {counts['swapped']} read from swap, {counts['shared']} shared"
    pid = next((one.pid for one in k.tasks.values() if one.mm is vma.mm), None)
    k.khugepaged["last"] = {"by": by, "pid": pid, "address": vpn << 12, "clock_ns": k.clock.now, **counts, "copied": copied, "why": why}
    k.emit(Thp(k.clock.now, "collapse", PMD_PAGES, pid, vpn << 12, why, k.cgroups[int(k.s.mms["memcg"][vma.mm.id])].path))


# ---------------------------------------------------------------- the daemon


def daemon(k: Kernel) -> None:
    """khugepaged wakes: its timer is due (or was overtaken by an earlier one)."""
    state = k.khugepaged
    if state["due"] < 0 or k.clock.now < state["due"]:
        return
    state["due"] = -1
    now = k.clock.now
    result = _fill_block(k) if state["held"] else FAIL
    if not hugepage_flags_enabled(k) or not state["mms"]:
        k.clock.now = now
        return
    slept = do_scan(k, result)
    k.clock.now = now  # beside the tasks, not on their time
    if state["held"]:
        arm_khugepaged(k, now + HPAGE_PMD_NR * k.costs.copy_page)
    elif state["mms"]:
        kind = "alloc_sleep_millisecs" if slept else "scan_sleep_millisecs"
        arm_khugepaged(k, now + max(1, int(k.thp["khugepaged." + kind])) * MSEC)


def do_scan(k: Kernel, result: int) -> bool:
    """One round of pages_to_scan entries, or what is left of it (khugepaged_do_scan); it stops when it holds a block that is to be filled.

    `result`: of the block just filled. True if it waits for a free block.
    """
    state, pages = k.khugepaged, int(k.thp["khugepaged.pages_to_scan"])
    while state["progress"] < pages:
        state["heads"] += not state["mm"]
        if not state["mms"] or state["heads"] >= 2:
            break
        progress, result = scan_mm_slot(k, pages - state["progress"])
        state["progress"] += progress
        if state["held"]:
            return False
        if result == ALLOC_FAIL and state["progress"] < pages:
            if state["waited"]:
                break
            state["waited"] = True
            return True
    state["progress"], state["heads"], state["waited"] = 0, 0, False
    return False


def _fill_block(k: Kernel) -> int:
    """The block that khugepaged took some microseconds ago is filled, if the address space still wants it (hugepage_vma_revalidate)."""
    held, k.khugepaged["held"] = k.khugepaged["held"], None
    mm, vpn = k.mms.get(held["mm"]), held["vpn"]
    vma = vma_lookup(mm, vpn) if mm is not None else None
    result = FAIL
    if vma is not None and hugepage_vma_check(k, vma) and vma.start <= vpn and vpn + PMD_PAGES <= vma.end:
        result = collapse_huge_page(k, None, vma, vpn, held["head"], np.array(held["found"], np.int64), limits_of(k, True))
    else:
        give_back(k.s, held["head"], True)
    if result == SUCCEED:
        k.thp["khugepaged.pages_collapsed"] += 1
    return result


def scan_mm_slot(k: Kernel, pages: int) -> tuple[int, int]:
    """Go on in the address space at hand: entries looked at, and the last result (khugepaged_scan_mm_slot)."""
    state = k.khugepaged
    if not state["mm"]:
        state["mm"], state["vpn"] = state["mms"][0], 0
    mm: Mm = k.mms[state["mm"]]
    collapse_remembered(k, mm)
    limits = limits_of(k, True)
    progress, result = 1, FAIL
    for vma in vmas_between(mm, state["vpn"], 1 << 36):
        low, high = vma.start + -vma.start % PMD_PAGES, vma.end - vma.end % PMD_PAGES
        if state["vpn"] > high or not hugepage_vma_check(k, vma):
            progress += 1
            continue
        state["vpn"] = max(state["vpn"], low)
        while state["vpn"] < high:
            if vma.file is not None:  # the lock is let go for it: this look was the last of the round
                result = scan_shared(k, vma, state["vpn"], limits)
                state["vpn"] += PMD_PAGES
                return progress + PMD_PAGES, result
            result, tried = scan_one(k, vma, state["vpn"], limits)
            state["vpn"] += PMD_PAGES
            progress += PMD_PAGES
            if tried or progress >= pages:
                return progress, result
    next_slot(k)
    return progress, result


def scan_one(k: Kernel, vma: Vma, vpn: int, limits: Array) -> tuple[int, bool]:
    """A look at 2 MiB, and a block for the collapse if it may be: the result, and whether one was tried."""
    result, found = look_at(k, vma, vpn, limits)
    if result in EXCEEDS:
        k.s.vm_event[EXCEEDS[result]] += 1
    if result != SUCCEED:
        return result, False
    result, head = alloc_charge_hpage(k, None, vma.mm, found)
    if head:
        k.khugepaged["held"] = {"mm": vma.mm.id, "vpn": vpn, "head": head, "found": found.tolist()}
    return result, True


# ---------------------------------------------------------------- on demand


def madvise_collapse(k: Kernel, task: Task, vma: Vma, start: int, end: int) -> None:
    """MADV_COLLAPSE on pages [start, end) of one mapping: SysError(EINVAL, ENOMEM, EBUSY, EAGAIN) unless every whole 2 MiB is a huge page then."""
    if not hugepage_vma_check(k, vma, enforce_sysfs=False):
        raise SysError(Errno.EINVAL, "the mapping cannot have huge pages")
    limits = limits_of(k, False)
    low, high = start + -start % PMD_PAGES, end - end % PMD_PAGES
    huge, failed = 0, FAIL
    for vpn in range(low, high, PMD_PAGES):
        result = _collapse_now(k, task, vma, vpn, limits)
        if result in (SUCCEED, PMD_MAPPED):
            huge += 1
            continue
        failed = result
        if result not in GO_ON:
            break
    if huge != (high - low) // PMD_PAGES:
        raise SysError(ERRNO.get(failed, Errno.EINVAL), RESULTS[failed][1])


def _collapse_now(k: Kernel, task: Task, vma: Vma, vpn: int, limits: Array) -> int:
    """MADV_COLLAPSE of one 2 MiB: a result."""
    result, found = look_at(k, vma, vpn, limits)
    if result == PTE_MAPPED:
        return collapse_pte_mapped_thp(k, task, vma, vpn, install=True)
    if result != SUCCEED:
        return result
    if vma.file is not None:
        return collapse_shared(k, task, vma, vpn, found)
    result, head = alloc_charge_hpage(k, task, vma.mm, found)
    return collapse_huge_page(k, task, vma, vpn, head, found, limits) if head else result


# ---------------------------------------------------------------- shared memory


MAX_PTE_MAPPED_THP = 8  # places of an address space that khugepaged remembers to come back to


def collapse_shared(k: Kernel, task: Task | None, vma: Vma, vpn: int, found: Array) -> int:
    """The look at the object said yes (collapse_file). `task`: the caller of MADV_COLLAPSE, None: khugepaged. A result, for this mapping."""
    file = vma.file
    assert file is not None
    result, head = alloc_charge_hpage(k, task, vma.mm, found)
    if not head:
        return result
    start = vpn - vma.start + vma.pgoff
    result = _bring_in(k, task, vma, start) if found[UNMAPPED] else SUCCEED
    if result == SUCCEED:
        result = int(collapse_file.collapse_tree(k.s, rmap_walk.tables(k), file.root, file.id, start, head, found))
    if result != SUCCEED:
        give_back(k.s, head, True)
        return result
    file.nr_pages += int(found[NONE])
    _collapsed(k, task, vma, vpn, found)
    return retract_page_tables(k, task, vma, vpn)


def _bring_in(k: Kernel, task: Task | None, vma: Vma, start: int) -> int:
    """Read what the object has in swap there back into it."""
    file = vma.file
    assert file is not None
    memory.begin(k, task, vma, memory.READ, start, 1, start + PMD_PAGES)
    try:
        shmem.bring_back(k, vma, lambda s: shmem.unuse_tree(s, 1, len(k.s.slots)))
    except SysError:
        return FAIL
    finally:
        file.nr_pages += int(k.s.vmf["count"][0][NEW_PAGES])
    return SUCCEED


def retract_page_tables(k: Kernel, task: Task | None, vma: Vma, vpn: int) -> int:
    """The page tables that mapped the small pages go, so that faults map the huge one: what that came to for `vma` itself.

    MADV_COLLAPSE frees the caller's only, and maps; khugepaged is to come to the others.
    """
    file = vma.file
    assert file is not None
    index, own = vpn - vma.start + vma.pgoff, FAIL
    for other in list(file.vmas):
        at = other.start + index - other.pgoff
        if not other.start <= at < other.end:
            continue
        result = _retract(k, task, other, at, other is vma)
        if result == PTE_MAPPED and other is not vma:
            remember(k, other.mm, at)
        own = result if other is vma else own
    return own


def _retract(k: Kernel, task: Task | None, vma: Vma, at: int, target: bool) -> int:
    if vma.anon_vma is not None:
        return PAGE_ANON
    if at % PMD_PAGES or vma.end < at + PMD_PAGES:
        return FAIL
    pgd = int(k.s.mms["pgd"][vma.mm.id])
    if task is not None and not target:
        result = int(collapse_file.what_is_mapped(k.s, pgd, at))
        return PTE_MAPPED if result == SUCCEED else result
    memory.begin(k, task, vma, memory.READ, at, 1, 1)
    return int(collapse_file.retract_page_table(k.s, task is not None))


def remember(k: Kernel, mm: Mm, vpn: int) -> bool:
    """khugepaged shall take a page table away when it comes to this address space (khugepaged_add_pte_mapped_thp)."""
    places: list[list[int]] = k.khugepaged["pte_mapped"]
    if not mm.khugepaged or sum(1 for id, _ in places if id == mm.id) >= MAX_PTE_MAPPED_THP:
        return False
    places.append([mm.id, vpn])
    return True


def collapse_pte_mapped_thp(k: Kernel, task: Task | None, vma: Vma, vpn: int, *, install: bool) -> int:
    """A huge page of an object that small entries map: they go with their page table; `install`: one entry takes their place."""
    if vma.file is None or not vma.start <= vpn <= vma.end - PMD_PAGES or not hugepage_vma_check(k, vma, enforce_sysfs=False):
        return FAIL
    memory.begin(k, task, vma, memory.READ, vpn, 1, 1)
    return int(collapse_file.collapse_pte_mapped(k.s, install))


def collapse_remembered(k: Kernel, mm: Mm) -> None:
    """The places that `remember` noted (khugepaged_collapse_pte_mapped_thps)."""
    places = k.khugepaged["pte_mapped"]
    for vpn in [vpn for id, vpn in places if id == mm.id]:
        vma = vma_lookup(mm, vpn)
        if vma is not None:
            collapse_pte_mapped_thp(k, None, vma, vpn, install=False)
    places[:] = [place for place in places if place[0] != mm.id]


def scan_shared(k: Kernel, vma: Vma, vpn: int, limits: Array) -> int:
    """khugepaged's look at 2 MiB of shared memory, and the collapse if it may be: a result."""
    result, found = look_at(k, vma, vpn, limits)
    if result in EXCEEDS:
        k.s.vm_event[EXCEEDS[result]] += 1
    if result == SUCCEED:
        result = collapse_shared(k, None, vma, vpn, found)
    elif result == PTE_MAPPED:
        result = int(collapse_file.what_is_mapped(k.s, int(k.s.mms["pgd"][vma.mm.id]), vpn))
        if result == SUCCEED and not remember(k, vma.mm, vpn):
            return PTE_MAPPED
    if result == SUCCEED:
        k.thp["khugepaged.pages_collapsed"] += 1
    return result


# ---------------------------------------------------------------- Explain


def explain(k: Kernel, vma: Vma, vpn: int) -> dict[str, Any]:
    """What khugepaged would make of the 2 MiB around a page now, with the counts it would go by, be it that it does not look there."""
    limits, first = limits_of(k, True), vpn - vpn % PMD_PAGES
    result, found = look_at(k, vma, first, limits)
    name, sentence = RESULTS[result]
    passed_by = why_not(k, vma)
    if passed_by is None and not vma.start <= first <= vma.end - PMD_PAGES:
        passed_by = "the mapping does not hold all of the 2 MiB"
    if passed_by is None and vma.file is None and vma.anon_vma is None:
        passed_by = "the mapping has had no page of its own yet"
    if passed_by is not None:
        name, sentence = "vma_check_failed", f"khugepaged does not look here: {passed_by}"
    return {
        "result": name,
        "why": sentence,
        "referenced": int(found[REFERENCED]),
        "empty": {"found": int(found[NONE]), "limit": int(limits[MAX_NONE])},
        "swapped": {"found": int(found[UNMAPPED]), "limit": int(limits[MAX_SWAP])},
        "shared": {"found": int(found[SHARED]), "limit": int(limits[MAX_SHARED])},
        "writable": bool(found[WRITABLE]),
    }
