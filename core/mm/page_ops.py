"""What happens to one page: charged, put on a list, mapped, unmapped, freed. The steps of every page loop.

Who holds a page. `refcount` counts the holders: each page-table entry one, the page cache one, buffer heads one.
`mapcount` counts only the entries. An anonymous page mapped once has 1 and 1; a file page that is cached
but not mapped 1 and 0. The page is free when the last holder lets go (`put_page`).

Which counters follow. An anonymous page counts in nr_anon_pages while it is mapped at all, a file page in nr_mapped
while it is mapped and in nr_file_pages while it is cached; node and cgroup (the page's own, not the
toucher's) move together.

A frame keeps the cgroup that was charged for it until it is free.

What is in it. `content` stands for the 4,096 bytes: bits 0..7 are the byte that fills the page, bits 8..15 what its first byte differs by
(exclusive or), the bits above name the file page that it is a copy of. So 0 is an empty page, 7 a page full of sevens; a store of one byte, 5,
makes that 7 | (5 ^ 7) << 8; storing 7 makes it full of sevens again. Two pages are alike if their contents are equal.

Source: mm/rmap.c, mm/swap.c:__put_page,
mm/filemap.c:__filemap_add_folio, filemap_unaccount_folio.
"""

from __future__ import annotations

from core.abi.mempolicy import MPOL_BIND, MPOL_INTERLEAVE, MPOL_PREFERRED, MPOL_PREFERRED_MANY
from core.abi.mman import VM_LOCKED
from core.abi.page_flags import (
    PG_ANON,
    PG_ANON_EXCLUSIVE,
    PG_DIRTY,
    PG_HEAD,
    PG_LRU,
    PG_MLOCKED,
    PG_PRIVATE,
    PG_SHMEM,
    PG_SWAPBACKED,
    PG_TABLE,
    PG_TAIL,
    PG_UNEVICTABLE,
    PG_UPTODATE,
)
from core.jit import inline, step
from core.mm.compound import (
    PG_COMPOUND,
    clear_compound_page,
    compound_head,
    compound_mapcount,
    compound_order,
    deferred_split_huge_page,
    undefer,
)
from core.mm.mm_inline import lru_gen_enabled
from core.mm.mm_types import (
    CTL_FAIL_NTH,
    CTL_RECLAIM_MODE,
    HPAGE_PMD_NR,
    MAX_NUMNODES,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    TASK_RSS_EVENTS_THRESH,
    WMARK_LOW,
    State,
)
from core.mm.page_alloc import ask_for_node_reclaim, clear_page_row, free_one_page, get_page_from_freelist, zone_of
from core.mm.page_counter import try_charge, uncharge
from core.mm.pgtable import PFN_MASK, PTE_PRESENT, TABLE_ENTRY, find_pte_table, give_table_row, huge_entry, take_node, take_table_row
from core.mm.slab import account_slab
from core.mm.swap import folio_add_lru, lru_del, lru_pages
from core.mm.swap import mlock_page as mlock_page
from core.mm.swap import munlock_page as munlock_page
from core.mm.swap import stat_add as stat_add
from core.mm.workingset import workingset_refault
from core.vmstat import (
    MEMCG_KMEM,
    MEMCG_PAGETABLES,
    NR_ANON_MAPPED,
    NR_DIRTIED,
    NR_FILE_DIRTY,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_MLOCK,
    NR_PAGETABLE,
    NR_SHMEM,
    NR_SHMEM_THPS,
    NR_ZONE_WRITE_PENDING,
    NUMA_INTERLEAVE_HIT,
    UNEVICTABLE_PGCLEARED,
    UNEVICTABLE_PGCULLED,
    UNEVICTABLE_PGMLOCKED,
)

# why a page loop stopped (vmf.reason)
DONE, OUT_OF_VMA, NO_PAGE, LIMIT, MISS, READAHEAD, SIGBUS, RUNS_FULL, OVER_HIGH, BALANCE, SLEPT = range(11)
NUMA_HINT, ASK_OBJECT = 24, 25

NO_STORE = -1000  # an access for writing that stores nothing: get_user_pages, a copy made ahead of the write

GFP_USER, GFP_KERNEL = 3, 2  # highest zone a request may use: ZONE_MOVABLE for user pages, ZONE_NORMAL else

BUFFER_HEAD = 104  # bytes of slab per block of a page that carries buffers (struct buffer_head)
XA_NODE_SHARE = 9  # bytes of slab per cached page: a 576-byte radix node serves 64 of them
HUGE_XA_SHARE = 72  # of a huge page: 8 slots of one node
MAPPED_AROUND, NEW_PAGES = 16, 17  # vmf.count: pages mapped by fault-around, for their cost; pages that a file gained


@inline
def stored(content: int, value: int) -> int:
    """What a page holds after a write: `value` 0..255 fills it, -1 - b stores the byte b at its start, NO_STORE leaves it."""
    if value >= 0:
        return value
    if value == NO_STORE:
        return content
    return (content & ~0xFF00) | (((content ^ (-1 - value)) & 255) << 8)


@inline
def file_content(file: int, index: int) -> int:
    """What a page of a file holds: nothing like it anywhere."""
    return ((file << 30) + index + 1) << 16


@inline
def migratetype_of(classzone: int) -> int:
    """User pages and the page cache can move, page tables and the kernel's own cannot."""
    return MIGRATE_MOVABLE if classzone == GFP_USER else MIGRATE_UNMOVABLE


@step
def get_page_on(s: State, v, node: int, mark: int, classzone: int, nodes: int) -> int:
    """A frame by `node`'s zonelist from the nodes of a mask (0: all), on behalf of vmf's CPU."""
    return get_page_from_freelist(s, node, 0, mark, classzone, nodes, v["node"], migratetype_of(classzone))


@step
def get_page_near(s: State, v, node: int, classzone: int, nodes: int) -> int:
    """`get_page_on` for a request that may wait: 0 where zone_reclaim_mode has it reclaim a node before it asks the next (`gfp.slowpath` does)."""
    if s.ctl[CTL_RECLAIM_MODE] and ask_for_node_reclaim(s, node, 0, v["mark"], classzone, nodes, v["node"]):
        return 0
    return get_page_on(s, v, node, v["mark"], classzone, nodes)


@step
def nth_node(nodes: int, n: int) -> int:
    """The n-th node of a mask, counting from 0 and round it (offset_il_node)."""
    weight = 0
    for node in range(MAX_NUMNODES):
        weight += (nodes >> node) & 1
    left = n % weight
    for node in range(MAX_NUMNODES):
        if (nodes >> node) & 1:
            if left == 0:
                return node
            left -= 1
    return 0


@step
def next_node_in(nodes: int, after: int) -> int:
    """The node of a mask that follows `after`, round it (next_node_in)."""
    for i in range(1, MAX_NUMNODES + 1):
        node = (after + i) % MAX_NUMNODES
        if (nodes >> node) & 1:
            return node
    return 0


@step
def alloc_interleaved(s: State, v, classzone: int, vpn: int, nodes: int) -> int:
    """A page of a mapping goes where its offset says, any other to the task's next node (alloc_page_interleave)."""
    row = s.mms[v["mm"]]
    node = nth_node(nodes, vpn - v["vm_start"] + v["vm_pgoff"]) if vpn >= 0 else next_node_in(nodes, row["il_prev"])
    pfn = get_page_near(s, v, node, classzone, v["tried"])
    if pfn == 0:
        return 0
    if vpn < 0:
        row["il_prev"] = node
    zid = zone_of(s, pfn)
    if s.zones[zid]["node"] == node:
        s.numa_stat[zid, NUMA_INTERLEAVE_HIT] += 1
    return pfn


@step
def alloc_preferred_many(s: State, v, classzone: int, nodes: int) -> int:
    """First the nodes of the mask, without reclaim, then all (alloc_pages_preferred_many)."""
    v["tried"] = cpuset_nodes(v, classzone, nodes)
    pfn = get_page_on(s, v, v["node"], v["mark"], classzone, v["tried"])
    if pfn or v["mark"] == WMARK_LOW or s.ctl[CTL_FAIL_NTH] < 0:
        return pfn
    v["tried"] = cpuset_nodes(v, classzone, 0)
    pfn = get_page_on(s, v, v["node"], WMARK_LOW, classzone, v["tried"])
    return pfn if pfn else get_page_near(s, v, v["node"], classzone, v["tried"])


@inline
def cpuset_nodes(v, classzone: int, nodes: int) -> int:
    """A mask of nodes (0: all) within the task's cpuset. The kernel's own pages leave it when it is full (__cpuset_node_allowed)."""
    mems = v["mems"]
    if mems == 0 or (classzone == GFP_KERNEL and v["mark"] != WMARK_LOW):
        return nodes
    both = nodes & mems
    return both if both else mems


@step
def alloc_by_policy(s: State, v, classzone: int, vpn: int) -> int:
    """One frame where the memory policy wants it, 0 if there is none: the mapping's policy, or for vpn < 0 the task's own."""
    mode = v["mode"] if vpn >= 0 else v["task_mode"]
    nodes = v["nodes"] if vpn >= 0 else v["task_nodes"]
    allowed = cpuset_nodes(v, classzone, 0)
    v["tried"] = allowed
    if mode == MPOL_INTERLEAVE:
        return alloc_interleaved(s, v, classzone, vpn, nodes)
    if mode == MPOL_PREFERRED_MANY:
        return alloc_preferred_many(s, v, classzone, nodes)
    if mode == MPOL_PREFERRED:
        return get_page_near(s, v, nth_node(nodes, 0), classzone, allowed)
    if mode == MPOL_BIND:
        v["tried"] = cpuset_nodes(v, classzone, nodes)
        return get_page_near(s, v, v["node"], classzone, v["tried"])
    return get_page_near(s, v, v["node"], classzone, allowed)


@inline
def charge_block(s: State, v, pfn: int, order: int, refused: int) -> int:
    """Charge 2^order fresh frames to vmf.memcg: the first, with refcount 1; or 0, the frames given back and vmf.reason `refused`."""
    over = try_charge(s, v["cpu"], v["memcg"], 1 << order)
    if over >= 0:
        free_one_page(s, zone_of(s, pfn), pfn, order)
        v["reason"] = refused
        v["victim"] = over
        return 0
    s.mem[pfn]["refcount"] = 1
    s.mem[pfn]["memcg"] = v["memcg"]
    return pfn


@inline
def alloc_charged(s: State, v, classzone: int, vpn: int) -> int:
    """One frame, charged to vmf.memcg: its pfn with refcount 1, or 0 with vmf.reason NO_PAGE or LIMIT.

    `vpn`: the page of the mapping that it is for, -1 for the kernel's own (page tables, page cache of files): a memory
    policy chooses the node by it.
    """
    if v["policy"] == 0:
        v["tried"] = cpuset_nodes(v, classzone, 0)
        pfn = 0
        if s.ctl[CTL_RECLAIM_MODE] == 0 or not ask_for_node_reclaim(s, v["node"], 0, v["mark"], classzone, v["tried"], v["node"]):
            pfn = get_page_from_freelist(s, v["node"], 0, v["mark"], classzone, v["tried"], v["node"], migratetype_of(classzone))
    else:
        pfn = alloc_by_policy(s, v, classzone, vpn)
    if pfn == 0:
        v["reason"] = NO_PAGE
        return 0
    return charge_block(s, v, pfn, 0, LIMIT)


@inline
def free_page(s: State, zid: int, pfn: int) -> None:
    """The last holder let go: off the lists, uncharged, back to the allocator."""
    page = s.mem[pfn]
    flags = page["flags"]
    if flags & PG_HEAD:
        free_compound_page(s, zid, pfn)
        return
    if flags & PG_MLOCKED:
        s.zones[zid]["stat"][NR_MLOCK] -= 1
        s.vm_event[UNEVICTABLE_PGCLEARED] += 1
    if flags & PG_LRU:
        lru_del(s, zid, pfn)
    if lru_gen_enabled(s):
        s.gens[pfn] = 0
    uncharge(s, page["memcg"], 1)
    clear_page_row(s, pfn)
    free_one_page(s, zid, pfn, 0)


@step
def free_compound_page(s: State, zid: int, head: int) -> None:
    """`free_page` of a huge page: all its frames at once (free_transhuge_page)."""
    page = s.mem[head]
    order = compound_order(s, head)
    if page["flags"] & PG_MLOCKED:
        s.zones[zid]["stat"][NR_MLOCK] -= 1 << order
        s.vm_event[UNEVICTABLE_PGCLEARED] += 1 << order
    if page["flags"] & PG_LRU:
        lru_del(s, zid, head)
    undefer(s, head)
    uncharge(s, page["memcg"], 1 << order)
    clear_compound_page(s, head, order)
    free_one_page(s, zid, head, order)


@inline
def put_page(s: State, zid: int, pfn: int) -> bool:
    """Drop one reference; True if the page is free now. A tail's is its head's."""
    if s.mem[pfn]["flags"] & PG_TAIL:
        pfn = s.mem[pfn]["private"]
    refs = s.mem[pfn]["refcount"] - 1
    s.mem[pfn]["refcount"] = refs
    if refs > 0:
        return False
    free_page(s, zid, pfn)
    return True


@inline
def lru_add_new(s: State, zid: int, pfn: int, vm_flags: int) -> None:
    """A new page on its list; in a locked mapping that is the unevictable one (lru_cache_add_inactive_or_unevictable)."""
    if vm_flags & VM_LOCKED:
        nr = lru_pages(s.mem[pfn]["flags"])
        s.mem[pfn]["flags"] |= PG_MLOCKED | PG_UNEVICTABLE
        s.zones[zid]["stat"][NR_MLOCK] += nr
        s.vm_event[UNEVICTABLE_PGMLOCKED] += nr
        s.vm_event[UNEVICTABLE_PGCULLED] += nr
    folio_add_lru(s, zid, pfn)




@step
def locked_elsewhere(s: State, others, pfn: int) -> bool:
    """True if one of these locked mappings, rows of (pgd, start, end, pgoff), maps the page."""
    index = s.mem[pfn]["index"]
    for i in range(others.shape[0]):
        vpn = others[i, 1] + index - others[i, 3]
        if vpn < others[i, 1] or vpn >= others[i, 2]:
            continue
        tid = find_pte_table(s, others[i, 0], vpn)
        pte = s.pt[tid, vpn & 511] if tid else huge_entry(s, others[i, 0], vpn)
        if pte & PTE_PRESENT and (pte & PFN_MASK) >> 12 == pfn:
            return True
    return False


@inline
def add_new_anon(s: State, v, zid: int, pfn: int, vpn: int, content: int) -> None:
    """A fresh anonymous page of this mapping: exclusive, on inactive_anon (page_add_new_anon_rmap)."""
    page = s.mem[pfn]
    page["flags"] = PG_UPTODATE | PG_SWAPBACKED | PG_ANON | PG_ANON_EXCLUSIVE
    page["mapcount"] = 1
    page["mapping"] = v["anon_vma"]
    page["index"] = vpn - v["vm_start"] + v["vm_pgoff"]
    page["content"] = content
    stat_add(s, zid, v["memcg"], NR_ANON_MAPPED, 1)
    lru_add_new(s, zid, pfn, v["vm_flags"])
    count_rss(s, v["mm"], MM_ANONPAGES, 1)


@inline
def count_rss(s: State, mm: int, column: int, nr: int) -> None:
    """The running task's own pages: counted at once, shown when the task hands its counts in (add_mm_counter_fast)."""
    s.mms[mm]["rss"][column] += nr
    s.mms[mm]["lag"][column] += nr


@inline
def check_sync_rss_stat(s: State, mm: int) -> None:
    """Every 66th fault the task hands in what it counted: until then /proc/<pid>/status does not show it."""
    row = s.mms[mm]
    events = row["events"]
    row["events"] = events + 1
    if events > TASK_RSS_EVENTS_THRESH:
        row["events"] = 0
        for i in range(4):
            row["lag"][i] = 0


@inline
def rss_column(flags: int) -> int:
    """Which resident-set counter a page belongs to (mm_counter)."""
    if flags & PG_ANON:
        return MM_ANONPAGES
    return MM_SHMEMPAGES if flags & PG_SHMEM else MM_FILEPAGES


@inline
def page_add_file_rmap(s: State, zid: int, pfn: int) -> None:
    """One more entry maps a page-cache page."""
    page = s.mem[pfn]
    page["mapcount"] += 1
    if page["flags"] & PG_COMPOUND:
        file_subpage_mapped(s, zid, pfn)
        return
    page["refcount"] += 1
    if page["mapcount"] == 1:
        stat_add(s, zid, page["memcg"], NR_FILE_MAPPED, 1)


@step
def file_subpage_mapped(s: State, zid: int, pfn: int) -> None:
    """A small entry more maps this frame of a huge page of shared memory."""
    head = compound_head(s, pfn)
    s.mem[head]["refcount"] += 1
    if s.mem[pfn]["mapcount"] == 1 and compound_mapcount(s, head) == 0:
        stat_add(s, zid, s.mem[head]["memcg"], NR_FILE_MAPPED, 1)


@step
def subpage_unmapped(s: State, zid: int, pfn: int) -> None:
    """No small entry maps this frame of a huge page any more; if no big one does either, the page is partly unused."""
    head = compound_head(s, pfn)
    if compound_mapcount(s, head) > 0:
        return
    anon = s.mem[head]["flags"] & PG_ANON
    stat_add(s, zid, s.mem[head]["memcg"], NR_ANON_MAPPED if anon else NR_FILE_MAPPED, -1)
    if anon:
        deferred_split_huge_page(s, head)


@inline
def page_remove_rmap(s: State, zid: int, pfn: int) -> None:
    """One entry less maps the page; the reference is the caller's to drop."""
    page = s.mem[pfn]
    page["mapcount"] -= 1
    if page["mapcount"] == 0:
        if page["flags"] & PG_COMPOUND:
            subpage_unmapped(s, zid, pfn)
            return
        stat_add(s, zid, page["memcg"], NR_ANON_MAPPED if page["flags"] & PG_ANON else NR_FILE_MAPPED, -1)


# ---- page tables as frames


@step
def alloc_table(s: State, v) -> int:
    """A frame for a page table, charged and counted: its pfn, or 0 with vmf.reason."""
    pfn = alloc_charged(s, v, GFP_KERNEL, -1)
    if pfn == 0:
        return 0
    tid = take_table_row(s)
    s.mem[pfn]["flags"] = PG_TABLE
    s.mem[pfn]["private"] = tid
    stat_add(s, zone_of(s, pfn), v["memcg"], NR_PAGETABLE, 1)
    s.memcgs[v["memcg"]]["stat"][MEMCG_KMEM] += 1
    s.memcgs[v["memcg"]]["stat"][MEMCG_PAGETABLES] += 1
    return pfn


@step
def free_table(s: State, pfn: int) -> None:
    """Return an empty page table and its frame."""
    zid = zone_of(s, pfn)
    memcg = s.mem[pfn]["memcg"]
    give_table_row(s, s.mem[pfn]["private"])
    stat_add(s, zid, memcg, NR_PAGETABLE, -1)
    s.memcgs[memcg]["stat"][MEMCG_KMEM] -= 1
    s.memcgs[memcg]["stat"][MEMCG_PAGETABLES] -= 1
    uncharge(s, memcg, 1)
    clear_page_row(s, pfn)
    free_one_page(s, zid, pfn, 0)


@step
def pte_alloc(s: State, v, mm: int, vpn: int) -> int:
    """The PTE table that covers a page, made with all that lead to it: its row, or 0 with vmf.reason."""
    tid = s.mms[mm]["pgd"]
    shift = 27
    for level in range(3):
        slot = (vpn >> shift) & 511
        entry = s.pt[tid, slot]
        if entry == 0:
            pfn = alloc_table(s, v)
            if pfn == 0:
                return 0
            entry = (pfn << 12) | TABLE_ENTRY
            s.pt[tid, slot] = entry
            s.mms[mm]["nr_tables"][2 - level] += 1
        tid = s.mem[(entry >> 12) & ((1 << 40) - 1)]["private"]
        shift -= 9
    return tid


# ---- the page cache


@inline
def xa_leaf(s: State, root: int, index: int) -> int:
    """The leaf node (512 slots) of a file's radix tree that covers `index`, or 0."""
    node = root
    shift = 27
    while node and shift > 0:
        node = s.xa[node, (index >> shift) & 511]
        shift -= 9
    return node


@step
def next_entry(s: State, root: int, start: int, end: int, sign: int) -> int:
    """The first index in [start, end) with an entry of that sign (1: a cached page, -1: what is left of one), or -1.

    Empty nodes are stepped over whole.
    """
    at = start
    while at < end:
        node = root
        shift = 27
        while shift > 0 and node:
            node = s.xa[node, (at >> shift) & 511]
            if node == 0:
                at = ((at >> shift) + 1) << shift
            shift -= 9
        if node == 0:
            continue
        stop = (at | 511) + 1
        while at < stop and at < end:
            if s.xa[node, at & 511] * sign > 0:
                return at
            at += 1
    return -1


@step
def xa_leaf_create(s: State, root: int, index: int) -> int:
    """The leaf that covers `index`, made if need be."""
    node = root
    shift = 27
    while shift > 0:
        below = s.xa[node, (index >> shift) & 511]
        if below == 0:
            below = take_node(s)
            s.xa[node, (index >> shift) & 511] = below
        node = below
        shift -= 9
    return node


@step
def add_to_page_cache(s: State, v, leaf: int, index: int, pfn: int, shmem: bool) -> None:
    """A charged frame becomes page `index` of vmf.file; up to date, on the inactive list of its kind."""
    zid = zone_of(s, pfn)
    page = s.mem[pfn]
    page["mapping"] = v["file"]
    page["index"] = index
    page["flags"] = PG_UPTODATE | ((PG_SHMEM | PG_SWAPBACKED) if shmem else 0)
    page["content"] = 0 if shmem else file_content(v["file"], index)
    shadow = s.xa[leaf, index & 511]
    s.xa[leaf, index & 511] = pfn
    if shadow < 0 and not shmem:
        workingset_refault(s, s.zones[zid]["node"], pfn, shadow, 1)
    stat_add(s, zid, page["memcg"], NR_FILE_PAGES, 1)
    if shmem:
        stat_add(s, zid, page["memcg"], NR_SHMEM, 1)
    account_slab(s, page["memcg"], XA_NODE_SHARE)
    folio_add_lru(s, zid, pfn)


@step
def remove_from_page_cache(s: State, zid: int, leaf: int, pfn: int, block_heads: int) -> None:
    """Page `index` is cached no more: unaccounted, its buffers gone, the cache's reference dropped."""
    page = s.mem[pfn]
    if page["flags"] & PG_COMPOUND:
        remove_huge_from_page_cache(s, zid, leaf, compound_head(s, pfn))
        return
    memcg = page["memcg"]
    s.xa[leaf, page["index"] & 511] = 0
    stat_add(s, zid, memcg, NR_FILE_PAGES, -1)
    if page["flags"] & PG_SHMEM:
        stat_add(s, zid, memcg, NR_SHMEM, -1)
    if page["flags"] & PG_DIRTY and not page["flags"] & PG_SHMEM:
        clear_dirty(s, zid, pfn)
    if page["flags"] & PG_PRIVATE:
        drop_buffers(s, pfn, block_heads)
    account_slab(s, memcg, -XA_NODE_SHARE)
    put_page(s, zid, pfn)


@step
def remove_huge_from_page_cache(s: State, zid: int, leaf: int, head: int) -> None:
    """A huge page of shared memory leaves its object whole."""
    page = s.mem[head]
    memcg = page["memcg"]
    for i in range(HPAGE_PMD_NR):
        s.xa[leaf, i] = 0
    for counter in (NR_FILE_PAGES, NR_SHMEM, NR_SHMEM_THPS):
        stat_add(s, zid, memcg, counter, -HPAGE_PMD_NR)
    account_slab(s, memcg, -HUGE_XA_SHARE)
    page["refcount"] -= HPAGE_PMD_NR - 1
    put_page(s, zid, head)


@step
def attach_buffers(s: State, pfn: int, block_heads: int) -> None:
    """create_empty_buffers: one buffer head a block, charged to the page's cgroup; they hold a reference."""
    page = s.mem[pfn]
    if not page["flags"] & PG_PRIVATE:
        page["flags"] |= PG_PRIVATE
        page["refcount"] += 1
        account_slab(s, page["memcg"], BUFFER_HEAD * block_heads)


@step
def drop_buffers(s: State, pfn: int, block_heads: int) -> None:
    """try_to_free_buffers of a clean page."""
    page = s.mem[pfn]
    page["flags"] &= ~PG_PRIVATE
    page["refcount"] -= 1
    account_slab(s, page["memcg"], -BUFFER_HEAD * block_heads)


@step
def set_dirty(s: State, zid: int, pfn: int, block_heads: int) -> int:
    """A page of the disk becomes dirty (account_page_dirtied): 1 if it was clean, else 0."""
    page = s.mem[pfn]
    if page["flags"] & PG_DIRTY:
        return 0
    attach_buffers(s, pfn, block_heads)
    page["flags"] |= PG_DIRTY
    stat_add(s, zid, page["memcg"], NR_FILE_DIRTY, 1)
    s.zones[zid]["stat"][NR_ZONE_WRITE_PENDING] += 1
    stat_add(s, zid, page["memcg"], NR_DIRTIED, 1)
    return 1


@inline
def clear_dirty(s: State, zid: int, pfn: int) -> None:
    """A dirty page of the disk is clean, or gone (folio_account_cleaned)."""
    page = s.mem[pfn]
    page["flags"] &= ~PG_DIRTY
    stat_add(s, zid, page["memcg"], NR_FILE_DIRTY, -1)
    s.zones[zid]["stat"][NR_ZONE_WRITE_PENDING] -= 1
