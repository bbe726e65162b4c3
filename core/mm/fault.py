"""The fault path as a page loop: accesses one after the other, as the processor and mm/memory.c would make them.

A load or store goes through the page table. If the entry allows it, the processor sets A (and D on a store) and
that was all. Otherwise it faults, and `handle_pte_fault` looks at the entry, in this order:

    entry empty, anonymous    read: map the shared zero page          write: a zeroed page of one's own   (do_anonymous_page)
    entry empty, file         read: map up to 16 cached neighbours    (do_read_fault, do_fault_around)
                              write, private: a copy of the page      (do_cow_fault)
                              write, shared: the page itself, dirty   (do_shared_fault)
    present, write forbidden  the only user: take it over             (do_wp_page: wp_page_reuse)
                              shared with others: copy                (wp_page_copy)
                              shared file page: mark it dirty first   (page_mkwrite: "write notify")
    swap entry                bring it back                           (do_swap_page)

Worked example: 64 MiB mapped, 16 MiB written: 4,096 faults, 4,096 frames, 8 PTE tables. Reading the next 16 MiB:
4,096 faults that map the zero page, no frame but 8 more tables. Writing 8 of those: 2,048 faults, 2,048 frames.

`access_pages` decides nothing: at a page that needs a decision (no frame above the watermark, a limit, a page to be
read from disk, a signal) it stops with a reason; `memory.touch` decides and lets it go on with the same access.

What is written. `vmf.content` 0..255 fills every page with that byte; -1 is a program that numbers its stores: access i stores the byte
i + 1 at the start of its page (with a stride, i counts pages); NO_STORE writes nothing. A copy holds what the original held.

Whether a page may be taken over on a write (PF-17): it is marked exclusive (never shared since its last fork), or it has
but one reference. Fork clears the mark, so after the child is gone the parent's next write is a fault, not a copy.

Source: mm/memory.c; facts PF-01..22.
"""

from __future__ import annotations

from core.abi.mman import VM_LOCKED, VM_RAND_READ, VM_SHARED, VM_WRITE
from core.abi.page_flags import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY, PG_KSM, PG_READAHEAD, PG_SHMEM, PG_SWAPCACHE
from core.jit import inline, njit, prefetch, step
from core.mm.anon_batch import AHEAD, do_anonymous_pages, may_batch
from core.mm.compound import PG_COMPOUND, compound_head, page_mapcount
from core.mm.huge_memory import (
    FALL_BACK,
    HUGE,
    HUGE_FILE,
    HUGE_REUSE,
    HUGE_SHMEM,
    THP_FAULT,
    THP_FILE,
    copy_huge_pmd,
    do_huge_pmd_anonymous_page,
    do_huge_pmd_wp_page,
)
from core.mm.mm_types import (
    CTL_DIRTY_POLL,
    CTL_OVER_HIGH,
    CTL_POLICY,
    CTL_ZERO_PFN,
    LRU,
    MAX_RUNS,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    MM_SWAPENTS,
    State,
)
from core.mm.page_alloc import zone_of
from core.mm.page_ops import (
    BALANCE,
    DONE,
    GFP_USER,
    MAPPED_AROUND,
    MISS,
    NEW_PAGES,
    NUMA_HINT,
    OUT_OF_VMA,
    OVER_HIGH,
    READAHEAD,
    RUNS_FULL,
    SIGBUS,
    SLEPT,
    add_new_anon,
    add_to_page_cache,
    alloc_charged,
    check_sync_rss_stat,
    count_rss,
    mlock_page,
    munlock_page,
    page_add_file_rmap,
    page_remove_rmap,
    pte_alloc,
    put_page,
    rss_column,
    set_dirty,
    stat_add,
    stored,
    xa_leaf,
    xa_leaf_create,
)
from core.mm.pgtable import (
    PFN_MASK,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PRESENT,
    PTE_PS,
    PTE_RW,
    PTE_SOFT_DIRTY,
    PTE_SPECIAL,
    SWP_SOFT_DIRTY,
    find_pte_table,
    find_table,
    huge_entry,
    table_of,
)
from core.mm.shmem_huge import do_huge_pmd_file_page, may_fill_huge, policy_known, shmem_get_huge
from core.mm.shmem_swap import shmem_swapin_folio
from core.mm.swap import mark_page_accessed
from core.mm.swap_readahead import ZRAM, note_hit, swapin_readahead
from core.mm.swap_state import free_swap, free_swap_cache
from core.mm.swapfile import SLOT_KSM, SWP_EXCLUSIVE, swap_area, swap_duplicate, swap_free, swap_full, swp_slot
from core.vmstat import COW_KSM, KSM_SWPIN_COPY, MEMCG_PGFAULT, NR_ANON_MAPPED, PGFAULT, PGREUSE

# what kind of mapping (vmf.kind)
V_ANON, V_FILE, V_SHMEM = range(3)
# what a fault was (index of vmf.count; a run has one of these)
HIT, ANON, ZERO, COW, ZERO_COW, REUSE, FILE, FILE_COW, SHMEM, NOTIFY = range(10)
SWAP_IN = 10
KIND_NAMES = ("hit", "anon", "zero", "cow", "cow", "reuse", "file", "cow", "shmem", "write_notify", "swap", "thp", "zero", "reuse", "thp", "file")
READ_IN = 16  # no fault: reads from swap
# vmf.flags
F_PERM, F_POPULATE, F_NO_AROUND = 1, 2, 4

FAULT_AROUND_PAGES = 16
DIRTIED = PTE_RW | PTE_D | PTE_SOFT_DIRTY


@njit
def access_pages(s: State, perm) -> None:
    """Make accesses vmf.done .. vmf.n of `first + i * step` (or `first + perm[i]`) until one needs a decision.

    Answers in vmf: `done`, `reason`, `vpn` of the access that stopped, `count` by kind of fault, and the runs.
    """
    v = s.vmf[0]
    start, end, first, step, n = v["vm_start"], v["vm_end"], v["first"], v["step"], v["n"]
    pgd, write, content = s.mms[v["mm"]]["pgd"], v["access"] == 1, v["content"]
    numbered, apart = content == -1, 1 if v["flags"] & F_PERM else abs(step)
    permuted = v["flags"] & F_PERM
    batches = write and v["kind"] == V_ANON and may_batch(s, v)
    told = v["flags"] & F_POPULATE or s.ctl[CTL_POLICY] == LRU  # get_user_pages marks what it finds; exact LRU hears of every access
    block, tid, upper, pmd = -1, 0, -1, 0
    run_kind, run_vpn, run_n, run_last, run_step = -1, 0, 0, 0, step
    v["reason"] = DONE
    v["nr_runs"] = v["dirtied"] = v["read_run"] = v["cache_hits"] = 0
    for kind in range(len(v["count"])):
        v["count"][kind] = 0
    i = v["done"]
    while i < n:
        vpn = first + (perm[i] if permuted else i * step)
        if vpn < start or vpn >= end:
            v["reason"] = OUT_OF_VMA
            break
        if vpn >> 9 != block or tid == 0:
            block = vpn >> 9
            if vpn >> 18 != upper or pmd == 0:
                upper = vpn >> 18
                pmd = find_table(s, pgd, vpn, 2)
            entry = s.pt[pmd, block & 511] if pmd else 0
            tid = table_of(s, entry) if entry and not entry & PTE_PS else 0
        if permuted and pmd and i + AHEAD < n:
            soon = first + perm[i + AHEAD]
            if soon >> 18 == upper:
                entry = s.pt[pmd, (soon >> 9) & 511]
                if entry:
                    prefetch(s.pt, table_of(s, entry), soon & 511)
        if numbered:
            content = -1 - ((i * apart + 1) & 255)
        if tid == 0 and pmd:
            entry = s.pt[pmd, block & 511]
            if entry & PTE_PS and entry & PTE_P and (not write or entry & PTE_RW):
                i += huge_hits(s, v, pmd, entry, vpn, 0 if permuted else step, i, write, content, apart if numbered else 0)
                continue
        pte = s.pt[tid, vpn & 511] if tid else 0
        if pte & PTE_P and (not write or pte & PTE_RW):
            if write:
                s.pt[tid, vpn & 511] = pte | PTE_A | PTE_D
                page = s.mem[(pte & PFN_MASK) >> 12]
                page["content"] = stored(page["content"], content)
            elif not pte & PTE_A:
                s.pt[tid, vpn & 511] = pte | PTE_A
            if told and not pte & PTE_SPECIAL:
                pfn = (pte & PFN_MASK) >> 12
                mark_page_accessed(s, zone_of(s, pfn), pfn)
            i += 1
            continue
        if v["nr_runs"] >= MAX_RUNS - 3:
            v["reason"] = RUNS_FULL
            break
        if batches and tid and pte == 0:
            made = do_anonymous_pages(s, v, perm, i, permuted != 0)
            if made:
                if run_kind == ANON and (permuted or vpn == run_last + step):
                    run_n += made
                else:
                    end_run(s, v, run_kind, run_vpn, run_n, 0 if permuted else run_step)
                    run_kind, run_vpn, run_n, run_step = ANON, vpn, made, step
                i += made
                run_last = vpn + (made - 1) * step
                continue
        if v["ra_next"] == 0:  # else the same fault goes on
            check_sync_rss_stat(s, v["mm"])
        kind = FALL_BACK
        if tid == 0 and (v["thp"] or (pmd and s.pt[pmd, block & 511])):
            kind = handle_pmd_fault(s, v, vpn, write, content)
        if kind == FALL_BACK:
            if tid == 0:
                tid = find_pte_table(s, pgd, vpn)
                pte = s.pt[tid, vpn & 511] if tid else 0
            kind = handle_pte_fault(s, v, tid, pte, vpn, write, content)
        if v["reads"]:
            if v["read_stall"]:
                end_run(s, v, run_kind, run_vpn, run_n, 0 if permuted else run_step)
                run_kind, run_n = -1, 0
            note_reads(s, v, vpn, i)
        if kind <= 0:
            break
        if kind == run_kind and (permuted or vpn == run_last + step or (kind >= HUGE and vpn == run_last + run_step)):
            run_n += 1
        else:
            end_run(s, v, run_kind, run_vpn, run_n, 0 if permuted else run_step)
            run_kind, run_vpn, run_n = kind, vpn, 1
            run_step = huge_step(step) if kind >= HUGE else step
        if kind == REUSE and tid and s.ctl[CTL_POLICY] == LRU:
            old = (pte & PFN_MASK) >> 12
            mark_page_accessed(s, zone_of(s, old), old)
        run_last = vpn
        i += 1
        if v["major"]:
            v["major"] = 0
            if v["sliced"]:
                v["reason"] = SLEPT
                break
        if s.ctl[CTL_OVER_HIGH]:
            v["reason"] = OVER_HIGH
            break
        if v["dirtied"] >= s.ctl[CTL_DIRTY_POLL] > 0:
            v["reason"] = BALANCE
            break
    end_run(s, v, run_kind, run_vpn, run_n, 0 if permuted else run_step)
    v["done"] = i
    v["vpn"] = first + (perm[i] if permuted else i * step) if i < n else 0


@inline
def huge_step(step: int) -> int:
    """From one fault on a huge page to the next, when the accesses go by `step`."""
    if step >= 512 or step <= -512:
        return step
    return 512 if step > 0 else -512


@inline
def huge_hits(s: State, v, pmd: int, entry: int, vpn: int, step: int, i: int, write: bool, content: int, apart: int) -> int:
    """Accesses from `vpn`, the i-th, on that stay within a huge page whose entry permits them: how many (step 0: this one).

    `apart`: of stores that are numbered (see access_pages), else 0.
    """
    s.pt[pmd, (vpn >> 9) & 511] = entry | PTE_A | (PTE_D if write else 0)
    first, last = max(v["vm_start"], vpn & ~511), min(v["vm_end"], (vpn | 511) + 1)
    hits, left = 1, v["n"] - i
    if step > 0:
        hits = min(left, (last - vpn + step - 1) // step)
    elif step < 0:
        hits = min(left, (vpn - first) // -step + 1)
    if write:
        pfn = ((entry & PFN_MASK) >> 12) + (vpn & 511)
        for j in range(hits):
            page = s.mem[pfn + j * step]
            if apart:
                content = -1 - (((i + j) * apart + 1) & 255)
            page["content"] = stored(page["content"], content)
    return hits


@step
def handle_pmd_fault(s: State, v, vpn: int, write: bool, content: int) -> int:
    """A fault where no page table is: a kind of huge fault, 0 with vmf.reason, or FALL_BACK: go on with a small page (__handle_mm_fault)."""
    pgd = s.mms[v["mm"]]["pgd"]
    tid = find_table(s, pgd, vpn, 2)
    entry = s.pt[tid, (vpn >> 9) & 511] if tid else 0
    kind = FALL_BACK
    if entry == 0:
        if v["kind"] == V_SHMEM:
            kind = do_huge_pmd_file_page(s, v, vpn, write)
        elif v["thp"] & THP_FAULT:
            kind = do_huge_pmd_anonymous_page(s, v, vpn, write)
    elif entry & PTE_PS:
        if not entry & PTE_P:
            v["reason"] = NUMA_HINT
            return 0
        if not write or entry & PTE_RW:
            s.pt[tid, (vpn >> 9) & 511] = entry | PTE_A
            return HUGE_REUSE
        kind = do_huge_pmd_wp_page(s, v, tid, entry, vpn)
    if write and kind in (HUGE, HUGE_REUSE, HUGE_SHMEM, HUGE_FILE):
        page = s.mem[((huge_entry(s, pgd, vpn) & PFN_MASK) >> 12) + (vpn & 511)]
        page["content"] = stored(page["content"], content)
    return kind


@inline
def end_run(s: State, v, kind: int, vpn: int, n: int, step: int) -> None:
    """Write down a run of like faults and count it."""
    if n == 0:
        return
    run = s.runs[v["nr_runs"]]
    run["kind"] = kind
    run["vpn"] = vpn
    run["n"] = n
    run["step"] = step
    v["nr_runs"] += 1
    v["count"][kind] += n
    s.vm_event[PGFAULT] += n
    s.memcgs[v["memcg"]]["stat"][MEMCG_PGFAULT] += n


@step
def note_reads(s: State, v, vpn: int, at: int) -> None:
    """Write down the reads from swap that an access took, with those before it unless the task stalled for one of them."""
    area = swap_area(s, v["read_slot"])
    run = s.runs[v["read_run"] - 1]
    if v["read_run"] == 0 or v["read_stall"] or run["stall"] or swap_area(s, run["slot"]) != area:
        run = s.runs[v["nr_runs"]]
        v["nr_runs"] += 1
        v["read_run"] = v["nr_runs"]
        run["kind"], run["vpn"], run["at"], run["slot"], run["stall"] = READ_IN, vpn, at, v["read_slot"], v["read_stall"]
        run["n"] = run["pages"] = run["ns"] = run["step"] = 0
    run["n"] += v["reads"]
    run["pages"] += v["read_pages"]
    run["ns"] += v["read_ns"]
    v["reads"] = v["read_pages"] = v["read_ns"] = v["read_stall"] = 0


@inline
def handle_pte_fault(s: State, v, tid: int, pte: int, vpn: int, write: bool, content: int) -> int:
    """One fault: its kind (> 0), or 0 with vmf.reason when somebody else has to decide."""
    if pte == 0:
        if tid == 0:
            tid = pte_alloc(s, v, v["mm"], vpn)
            if tid == 0:
                return 0
        if v["kind"] == V_ANON:
            return do_anonymous_page(s, v, tid, vpn, write, content)
        return do_fault(s, v, tid, vpn, write, content)
    if not pte & PTE_PRESENT:
        return do_swap_page(s, v, tid, pte, vpn, write, content)
    if not pte & PTE_P:
        v["reason"] = NUMA_HINT
        return 0
    if write and not pte & PTE_RW:
        return do_wp_page(s, v, tid, pte, vpn, content)
    s.pt[tid, vpn & 511] = pte | PTE_A
    return REUSE


@inline
def do_anonymous_page(s: State, v, tid: int, vpn: int, write: bool, content: int) -> int:
    """First touch of private anonymous memory."""
    if not write:
        s.pt[tid, vpn & 511] = (s.ctl[CTL_ZERO_PFN] << 12) | v["prot"] | PTE_SPECIAL
        return ZERO
    pfn = alloc_charged(s, v, GFP_USER, vpn)
    if pfn == 0:
        return 0
    add_new_anon(s, v, zone_of(s, pfn), pfn, vpn, stored(0, content))
    s.pt[tid, vpn & 511] = (pfn << 12) | v["prot"] | DIRTIED
    return ANON


@inline
def do_wp_page(s: State, v, tid: int, pte: int, vpn: int, content: int) -> int:
    """A write to a page that is mapped read-only."""
    old = (pte & PFN_MASK) >> 12
    if pte & PTE_SPECIAL:
        pfn = alloc_charged(s, v, GFP_USER, vpn)
        if pfn == 0:
            return 0
        add_new_anon(s, v, zone_of(s, pfn), pfn, vpn, stored(0, content))
        s.pt[tid, vpn & 511] = (pfn << 12) | v["prot"] | DIRTIED
        return ZERO_COW
    flags = s.mem[old]["flags"]
    if flags & PG_COMPOUND and flags & PG_ANON:
        if reuse_subpage(s, v, old):
            s.mem[old]["content"] = stored(s.mem[old]["content"], content)
            s.pt[tid, vpn & 511] = pte | PTE_A | DIRTIED
            s.vm_event[PGREUSE] += 1
            return REUSE
    elif flags & PG_SWAPCACHE and not flags & (PG_ANON_EXCLUSIVE | PG_KSM) and s.mem[old]["refcount"] == 2:
        free_swap(s, zone_of(s, old), old)
        flags = s.mem[old]["flags"]  # in no swap cache any more
    if flags & PG_COMPOUND and flags & PG_ANON:
        pass
    elif flags & PG_ANON:
        if flags & PG_ANON_EXCLUSIVE or (s.mem[old]["refcount"] == 1 and not flags & PG_KSM):
            s.mem[old]["flags"] = flags | PG_ANON_EXCLUSIVE
            s.mem[old]["mapping"] = v["anon_vma"]
            s.mem[old]["content"] = stored(s.mem[old]["content"], content)
            s.pt[tid, vpn & 511] = pte | PTE_A | DIRTIED
            s.vm_event[PGREUSE] += 1
            return REUSE
    elif v["vm_flags"] & VM_SHARED:
        s.mem[old]["content"] = stored(s.mem[old]["content"], content)
        if v["kind"] == V_FILE:
            v["dirtied"] += set_dirty(s, zone_of(s, old), old, v["block_heads"])
        s.pt[tid, vpn & 511] = pte | PTE_A | DIRTIED
        s.vm_event[PGREUSE] += 1
        return NOTIFY
    pfn = alloc_charged(s, v, GFP_USER, vpn)
    if pfn == 0:
        return 0
    content = stored(s.mem[old]["content"], content)
    if flags & PG_KSM:
        s.vm_event[COW_KSM] += 1
    zid = zone_of(s, old)
    page_remove_rmap(s, zid, old)
    if v["vm_flags"] & VM_LOCKED and s.mem[old]["refcount"] > 1 and not flags & PG_COMPOUND:
        munlock_page(s, zid, old)
    count_rss(s, v["mm"], rss_column(flags), -1)
    if not put_page(s, zid, old) and flags & (PG_SWAPCACHE | PG_COMPOUND):
        free_swap_cache(s, zid, old)
    add_new_anon(s, v, zone_of(s, pfn), pfn, vpn, content)
    s.pt[tid, vpn & 511] = (pfn << 12) | v["prot"] | DIRTIED
    return COW


@step
def reuse_subpage(s: State, v, pfn: int) -> bool:
    """A write to one small page of a huge page: may it be taken over, because nobody else can see it?"""
    if s.mem[pfn]["flags"] & PG_ANON_EXCLUSIVE:
        return True
    head = compound_head(s, pfn)
    if s.mem[head]["refcount"] != 1 or not s.mem[head]["flags"] & PG_ANON:
        return False
    s.mem[head]["mapping"] = v["anon_vma"]
    s.mem[pfn]["flags"] |= PG_ANON_EXCLUSIVE
    return True


@step
def in_swap_cache(s: State, v, slot: int, vpn: int) -> bool:
    """The page of a slot is in the swap cache, after a read if it was not: then the fault is handled a second time. False with vmf.reason."""
    while s.slots[slot]["pfn"] == 0 or v["ra_next"]:
        if not swapin_readahead(s, v, slot, vpn):
            return False
        check_sync_rss_stat(s, v["mm"])
    return True


@step
def do_swap_page(s: State, v, tid: int, pte: int, vpn: int, write: bool, content: int) -> int:
    """A swapped page: in the swap cache it is mapped at once (minor); else it is read first, and the fault handled once more."""
    slot = swp_slot(s, pte)
    if not in_swap_cache(s, v, slot, vpn):
        return 0
    pfn = s.slots[slot]["pfn"]
    page, whole = s.mem[pfn], s.mem[compound_head(s, pfn)]
    zid = zone_of(s, pfn)
    note_hit(s, vpn, page["flags"] & PG_READAHEAD != 0)
    page["flags"] &= ~PG_READAHEAD
    if ksm_might_need_to_copy(s, v, slot, pfn, vpn):
        return ksm_swapin_copy(s, v, tid, pte, slot, pfn, vpn, write, content)
    exclusive = pte & SWP_EXCLUSIVE
    ksm = page["flags"] & PG_KSM
    whole["refcount"] += 1
    page["mapcount"] += 1
    if page_mapcount(s, pfn) == 1:
        stat_add(s, zid, whole["memcg"], NR_ANON_MAPPED, 1)
    if whole["mapping"] == 0:
        page["mapping"] = v["anon_vma"] if exclusive else v["anon_root"]
        page["index"] = vpn - v["vm_start"] + v["vm_pgoff"]
    swap_free(s, slot)
    only_user = not ksm and whole["refcount"] == 2
    if swap_full(s, whole["memcg"]) or v["vm_flags"] & VM_LOCKED or (only_user and (write or s.swaps[swap_area(s, slot)]["kind"] == ZRAM)):
        free_swap(s, zid, pfn)
    count_rss(s, v["mm"], MM_ANONPAGES, 1)
    count_rss(s, v["mm"], MM_SWAPENTS, -1)
    new = (pfn << 12) | v["prot"] | (PTE_SOFT_DIRTY if pte & SWP_SOFT_DIRTY else 0)
    if not ksm and (exclusive or whole["refcount"] == 1):
        page["flags"] |= PG_ANON_EXCLUSIVE
        if write:
            new |= DIRTIED
            page["content"] = stored(page["content"], content)
    s.pt[tid, vpn & 511] = new
    if write and not new & PTE_RW:
        return do_wp_page_slow(s, v, tid, new, vpn, content)
    return SWAP_IN


@inline
def ksm_might_need_to_copy(s: State, v, slot: int, pfn: int, vpn: int) -> bool:
    """Was the page in the swap cache a KSM page, and does it belong to somebody else now? Its other sharers need their own."""
    page = s.mem[pfn]
    if page["flags"] & PG_KSM:
        return page["mapping"] == 0 or bool(s.ksm[0]["run"] & 2)
    if not s.slots[slot]["flags"] & SLOT_KSM or page["mapping"] == 0:
        return False
    mine = page["mapping"] == v["anon_root"] or page["mapping"] == v["anon_vma"]
    return not mine or page["index"] != vpn - v["vm_start"] + v["vm_pgoff"]


@step
def ksm_swapin_copy(s: State, v, tid: int, pte: int, slot: int, pfn: int, vpn: int, write: bool, content: int) -> int:
    """The faulting process gets a copy of a page in the swap cache."""
    new = alloc_charged(s, v, GFP_USER, vpn)
    if new == 0:
        return 0
    s.vm_event[KSM_SWPIN_COPY] += 1
    old = s.mem[pfn]["content"]
    add_new_anon(s, v, zone_of(s, new), new, vpn, stored(old, content) if write else old)
    s.mem[new]["flags"] |= PG_DIRTY
    swap_free(s, slot)
    count_rss(s, v["mm"], MM_SWAPENTS, -1)
    soft = PTE_SOFT_DIRTY if pte & SWP_SOFT_DIRTY else 0
    s.pt[tid, vpn & 511] = (new << 12) | v["prot"] | soft | (DIRTIED if write else 0)
    return SWAP_IN


@step
def do_wp_page_slow(s: State, v, tid: int, pte: int, vpn: int, content: int) -> int:
    """`do_wp_page` right after a swap-in for writing."""
    kind = do_wp_page(s, v, tid, pte, vpn, content)
    return SWAP_IN if kind else 0


@step
def do_fault(s: State, v, tid: int, vpn: int, write: bool, content: int) -> int:
    """First touch of a page of a file or of shared memory."""
    index = vpn - v["vm_start"] + v["vm_pgoff"]
    if index >= v["file_pages"]:
        v["reason"] = SIGBUS
        return 0
    private_write = write and not v["vm_flags"] & VM_SHARED
    if not write and not v["flags"] & F_NO_AROUND and do_fault_around(s, v, tid, vpn, index):
        return FILE
    leaf = xa_leaf(s, v["root"], index)
    pfn = s.xa[leaf, index & 511] if leaf else 0
    kind = FILE_COW if private_write else FILE
    if pfn <= 0:
        if v["kind"] == V_FILE:
            v["reason"] = MISS
            return 0
        swapped = pfn < 0
        pfn = shmem_get_swapped(s, v, leaf, index, -pfn, vpn) if swapped else shmem_get_page(s, v, index, vpn)
        if pfn == 0:
            return 0
        kind = kind if private_write else (SWAP_IN if swapped else SHMEM)
    if s.mem[pfn]["flags"] & PG_READAHEAD and v["kind"] == V_FILE:
        v["reason"] = READAHEAD
        return 0
    if not v["major"] and not v["vm_flags"] & VM_RAND_READ:
        v["cache_hits"] += 1
    if private_write:
        copy = alloc_charged(s, v, GFP_USER, vpn)
        if copy == 0:
            return 0
        add_new_anon(s, v, zone_of(s, copy), copy, vpn, stored(s.mem[pfn]["content"], content))
        s.pt[tid, vpn & 511] = (copy << 12) | v["prot"] | DIRTIED
        return kind
    zid = zone_of(s, pfn)
    page_add_file_rmap(s, zid, pfn)
    if v["vm_flags"] & VM_LOCKED and not s.mem[pfn]["flags"] & PG_COMPOUND:
        mlock_page(s, zid, pfn)
    count_rss(s, v["mm"], MM_SHMEMPAGES if s.mem[pfn]["flags"] & PG_SHMEM else MM_FILEPAGES, 1)
    if write:
        s.mem[pfn]["content"] = stored(s.mem[pfn]["content"], content)
        if v["kind"] == V_FILE:
            v["dirtied"] += set_dirty(s, zid, pfn, v["block_heads"])
        else:
            s.mem[compound_head(s, pfn)]["flags"] |= PG_DIRTY
        s.pt[tid, vpn & 511] = (pfn << 12) | v["prot"] | DIRTIED
    else:
        s.pt[tid, vpn & 511] = (pfn << 12) | v["prot"]
    return kind


@inline
def do_fault_around(s: State, v, tid: int, vpn: int, index: int) -> bool:
    """Map the cached pages of the 64 KiB around a read fault; True if the faulting page is among them.

    The window is aligned to 16 pages and clipped to the mapping, the page table and the file. Pages that carry the
    read-ahead mark are left out: their first use must be noticed.
    """
    low = max(vpn & ~(FAULT_AROUND_PAGES - 1), v["vm_start"])
    high = min(low + FAULT_AROUND_PAGES, v["vm_end"])
    high = min(high, (low | 511) + 1)
    offset = index - vpn
    high = min(high, v["file_pages"] - offset)
    hit = False
    mapped = 0
    leaf = -1
    for page in range(low, high):
        at = page + offset
        if leaf < 0 or at & 511 == 0:
            leaf = xa_leaf(s, v["root"], at)
        pfn = s.xa[leaf, at & 511] if leaf else 0
        if pfn <= 0 or s.mem[pfn]["flags"] & PG_READAHEAD:
            continue
        v["cache_hits"] += 1
        if s.pt[tid, page & 511] != 0:
            continue
        page_add_file_rmap(s, zone_of(s, pfn), pfn)
        if v["vm_flags"] & VM_LOCKED and not s.mem[pfn]["flags"] & PG_COMPOUND:
            mlock_page(s, zone_of(s, pfn), pfn)
        s.pt[tid, page & 511] = (pfn << 12) | v["prot"]
        mapped += 1
        hit = hit or page == vpn
    if mapped:
        column = MM_SHMEMPAGES if v["kind"] == V_SHMEM else MM_FILEPAGES
        count_rss(s, v["mm"], column, mapped)
        v["count"][MAPPED_AROUND] += mapped
    return hit


@step
def shmem_get_page(s: State, v, index: int, vpn: int) -> int:
    """A hole of a shared-memory object gets a zeroed page (shmem_get_folio), maybe a huge one; 0 with vmf.reason if there is none.

    Interleaving counts from the inode number, so that not every object begins on the same node.
    """
    if v["thp"] & THP_FILE and may_fill_huge(s, v, index, vpn):
        head = shmem_get_huge(s, v, index)
        return head + (index & 511) if head else 0
    if not policy_known(v, index):
        return 0
    pfn = alloc_charged(s, v, GFP_USER, index + v["ino"] + v["vm_start"] - v["vm_pgoff"])
    if pfn:
        add_to_page_cache(s, v, xa_leaf_create(s, v["root"], index), index, pfn, True)
        v["count"][NEW_PAGES] += 1
    return pfn


@step
def shmem_get_swapped(s: State, v, leaf: int, index: int, slot: int, vpn: int) -> int:
    """A swapped page of a shared-memory object is back in it from the swap cache, where it is read to if need be; 0 with vmf.reason."""
    if not in_swap_cache(s, v, slot, vpn):
        return 0
    v["count"][NEW_PAGES] += 1
    return shmem_swapin_folio(s, v["file"], leaf, index, slot)


# ---------------------------------------------------------------- fork


@njit
def copy_pages(s: State) -> None:
    """Copy the entries of [vmf.first, vmf.n) from address space vmf.mm to vmf.other, as fork does (copy_pte_range).

    Anonymous pages gain an entry and lose the exclusive mark; in a private writable mapping both sides become
    read-only. The child's copies are old (A clear). Stops with a reason where a page table cannot be had.
    """
    v = s.vmf[0]
    src, dst, end, flags = v["mm"], v["other"], v["n"], v["vm_flags"]
    cow = flags & VM_WRITE and not flags & VM_SHARED
    v["reason"] = DONE
    at = v["first"] + v["done"]
    anon = 0
    while at < end:
        tid = find_pte_table(s, s.mms[src]["pgd"], at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if huge_entry(s, s.mms[src]["pgd"], at):
                if v["kind"] != V_ANON:  # the child faults it in again
                    at = stop
                    continue
                if not copy_huge_pmd(s, v, dst, at):
                    break
                v["count"][0] += 1
                at = stop
                continue
            at = next_block(s, s.mms[src]["pgd"], at, end)
            continue
        to = pte_alloc(s, v, dst, at)  # where the parent has a table, be it empty
        if to == 0:
            break
        while at < stop:
            pte = s.pt[tid, at & 511]
            if pte == 0:
                at += 1
                continue
            if not pte & PTE_PRESENT:
                swap_duplicate(s, swp_slot(s, pte))
                s.mms[dst]["rss"][MM_SWAPENTS] += 1
                s.pt[tid, at & 511] = s.pt[to, at & 511] = pte & ~SWP_EXCLUSIVE
                v["count"][0] += 1
                at += 1
                continue
            if not pte & PTE_SPECIAL:
                pfn = (pte & PFN_MASK) >> 12
                page = s.mem[pfn]
                page["mapcount"] += 1
                s.mem[compound_head(s, pfn)]["refcount"] += 1
                if page["flags"] & PG_ANON:
                    page["flags"] &= ~PG_ANON_EXCLUSIVE
                    anon += 1
                else:
                    s.mms[dst]["rss"][rss_column(page["flags"])] += 1
            if cow and pte & PTE_RW:
                pte &= ~PTE_RW
                s.pt[tid, at & 511] = pte
            if flags & VM_SHARED:
                pte &= ~PTE_D
            s.pt[to, at & 511] = pte & ~PTE_A
            v["count"][0] += 1
            at += 1
        if at < stop:
            break
    s.mms[dst]["rss"][MM_ANONPAGES] += anon
    v["done"] = at - v["first"]


@inline
def next_block(s: State, pgd: int, vpn: int, end: int) -> int:
    """The first page >= vpn whose 2 MiB may have entries: a page table or a huge entry. Empty upper entries are stepped over whole."""
    while vpn < end:
        tid = pgd
        shift = 27
        found = True
        for _ in range(3):
            entry = s.pt[tid, (vpn >> shift) & 511]
            if entry == 0:
                slot = ((vpn >> shift) & 511) + 1
                while slot < 512 and s.pt[tid, slot] == 0:
                    slot += 1
                vpn = ((vpn >> (shift + 9)) << (shift + 9)) + (slot << shift)
                found = False
                break
            if entry & PTE_PS:  # mapped whole: 2 MiB or 1 GiB
                break
            tid = s.mem[(entry & PFN_MASK) >> 12]["private"]
            shift -= 9
        if found:
            return vpn
    return end
