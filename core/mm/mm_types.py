"""The tables: mem_map and the other columns, and the Python objects that give them names.

Everything that grows with memory is a column of a numpy array; everything that a person would point at
(an address space, a mapping, a file) is a small Python object that holds indices into them.

    State.mem       one row a frame, by pfn       struct page
    State.pt        one row a page table          512 entries in x86-64's own bits (int64, bit 63 = NX)
    State.xa        one row a radix node          512 slots of a file's page cache
    State.buddy     free-list links by order      see page_alloc
    State.pageblocks  one byte a 2 MiB block      its migrate type, compaction's skip mark
    State.zones     one row a zone                struct zone, row = node * ZONES_PER_NODE + type
    State.sections  one row per 4 MiB of frames   the zone they belong to, -1 for none (see zone_of)
    State.lruvecs   one row a (cgroup, node)      struct lruvec, row = memcg * nr_nodes + node
    State.memcgs    one row a cgroup              page_counter and local statistics; row 0 is the root
    State.mms       one row an address space      rss counters, page-table counts, pgd
    State.node_stat, State.numa_stat, State.vm_event   the counters of `vmstat`
    State.slot_caches  one row a cpu              the swap slots that it keeps (swap_slots)
    State.stock     one row a cpu                 the charge that the cpu holds in advance (memcg_stock)
    State.ctl       a handful of scalars          heads of the free rows of pt and xa, the zero page
    State.looks     a ring of rows                what reclaim saw and decided, page by page (for `explain`)
    State.vmf       one row                       the operation at hand: what a page loop is asked and answers
    State.ksm       one row                       what ksmd knows; ksm_items, ksm_nodes: rmap_items and stable nodes (ksm.py)
    State.runs      runs of like faults           what a page loop reports as events
    State.gens      one number a frame            generation, refs and list of the multi-gen LRU (`mm_inline`)
    State.lrugens, State.blooms                   its numbers and filters, a row a (cgroup, node)
    State.stamps    one number a frame            order of arrival or use, for the classroom's policies

A page *is* its pfn. Row 0 of mem, pt and xa is never used, so 0 means "none" everywhere. Every array lies
in one anonymous mapping of the host (`core/arena.py`): an untouched row costs nothing, and zero is the empty value.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core import vmstat
from core.abi.mman import PAGE_SHIFT
from core.columns import by_reference

if TYPE_CHECKING:
    from core.mm.hugetlb_types import Hstate, ResvMap, Subpool
    from core.mm.mempolicy import Mempolicy

Array = npt.NDArray[Any]

ZONES_PER_NODE = 4
MAX_NUMNODES = 62  # a mask of nodes fits a column
ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, ZONE_MOVABLE = range(4)
ZONE_NAMES = ("DMA", "DMA32", "Normal", "Movable")
MAX_ORDER = 11  # orders 0..10, as in 6.1
HPAGE_PMD_ORDER = 9
HPAGE_PMD_NR = 1 << HPAGE_PMD_ORDER  # frames of a huge page that a PMD entry maps
SECTION_SHIFT = 10  # a node has a multiple of 4 MiB, so no 1,024 frames belong to two zones
MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_HIGHATOMIC = range(4)
MIGRATE_TYPES = 4  # those that have free lists
PAGEBLOCK_ORDER = 9  # the unit of migrate types: a huge page
PAGEBLOCK_PAGES = 1 << PAGEBLOCK_ORDER
PAGEBLOCK_TYPE, PAGEBLOCK_SKIP = 7, 8  # State.pageblocks: the migrate type, and compaction's mark
NR_LRU = 5
LRU_INACTIVE_ANON, LRU_ACTIVE_ANON, LRU_INACTIVE_FILE, LRU_ACTIVE_FILE, LRU_UNEVICTABLE = range(5)
WMARK_MIN, WMARK_LOW, WMARK_HIGH, WMARK_PROMO = range(4)

MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES = range(4)

# struct page. `private`: table row of a page-table frame, swap slot of a swap-cache page. `content`: see `stored` in page_ops.
PAGE = np.dtype([
    ("flags", "i4"), ("refcount", "i4"), ("mapcount", "i4"), ("memcg", "i4"), ("mapping", "i4"),
    ("next", "i4"), ("prev", "i4"), ("private", "i4"), ("index", "i8"), ("content", "i8"),
])  # fmt: skip

# compact_*: where compaction's scanners left off and how it fared (`compaction`).
# huge_taken, huge_freed: blocks of order 9 handed out and given back since boot (pcp).
# boost: what thefts have added to the marks, at most max_boost; boosted: kswapd is to wake for it. nofragment: rather take from
# the zone below than steal part of a pageblock here.
# For zone_reclaim_mode: min_unmapped, min_slab: its shares of what its node keeps; near: a mask of the nodes whose requests may reclaim here;
# has_cpu: its node has processors.
ZONE = np.dtype([
    ("node", "i8"), ("type", "i8"), ("start_pfn", "i8"), ("spanned", "i8"), ("present", "i8"), ("managed", "i8"),
    ("free", "i8"), ("boost", "i8"), ("huge_taken", "i8"), ("huge_freed", "i8"), ("wmark", "i8", (4,)), ("lowmem_reserve", "i8", (5,)),
    ("max_boost", "i8"), ("boosted", "i8"), ("nofragment", "i8"), ("min_unmapped", "i8"), ("min_slab", "i8"), ("near", "i8"), ("has_cpu", "i8"),
    ("compact_considered", "i8"), ("compact_defer_shift", "i8"), ("compact_order_failed", "i8"), ("compact_cached_free_pfn", "i8"),
    ("compact_cached_migrate_pfn", "i8", (2,)), ("compact_init_migrate_pfn", "i8"), ("compact_init_free_pfn", "i8"),
    ("compact_blockskip_flush", "i8"),
    ("nr_free", "i8", (MAX_ORDER,)), ("head", "i8", (MIGRATE_TYPES, MAX_ORDER)), ("tail", "i8", (MIGRATE_TYPES, MAX_ORDER)),
    ("stat", "i8", (len(vmstat.ZONE_STATS),)),
])  # fmt: skip

# tree: the list lengths of the cgroup and all below it. cost, refaults: anonymous, file. age: evictions and activations.
LRUVEC = np.dtype([
    ("head", "i8", (NR_LRU,)), ("tail", "i8", (NR_LRU,)), ("nr", "i8", (NR_LRU,)), ("tree", "i8", (NR_LRU,)),
    ("cost", "i8", (2,)), ("refaults", "i8", (2,)), ("age", "i8"),
])  # fmt: skip

# The multi-gen LRU of a cgroup on a node (struct lru_gen_struct, lru_gen_mm_state). head, tail, nr: rows as `mm_inline` numbers them.
# birth: of each generation, in jiffies. By type and tier (type * 4 + tier): avg_*: over the generations evicted before; refaulted,
# evicted, protected: in the oldest one. filters: which of the two Bloom filters are in use. mm_stats: what page-table walks saw.
LRUGEN = np.dtype([
    ("max_seq", "i8"), ("min_seq", "i8", (2,)), ("birth", "i8", (4,)), ("head", "i8", (32,)), ("tail", "i8", (32,)), ("nr", "i8", (32,)),
    ("avg_refaulted", "i8", (8,)), ("avg_total", "i8", (8,)), ("refaulted", "i8", (8,)), ("evicted", "i8", (8,)), ("protected", "i8", (8,)),
    ("filters", "i8", (2,)), ("mm_stats", "i8", (6,)),
])  # fmt: skip
MIN_NR_GENS, MAX_NR_GENS, MAX_NR_TIERS = 2, 4, 4
LRU_GEN_ANON, LRU_GEN_FILE = 0, 1
BLOOM_WORDS = 512  # of 64 bits, a filter

# page_counter of memory (pages) and the cgroup's own (not its children's) statistics
# split_*: its queue of huge pages that wait to be split, and what its shrinker has put off (deferred_split_queue)
MEMCG = np.dtype([
    ("parent", "i8"), ("usage", "i8"), ("max", "i8"), ("high", "i8"), ("watermark", "i8"), ("failcnt", "i8"),
    ("kmem_bytes", "i8"), ("swap", "i8"), ("swap_max", "i8"), ("swap_high", "i8"), ("swap_events", "i8", (3,)),
    ("min", "i8"), ("low", "i8"), ("emin", "i8"), ("elow", "i8"), ("offline", "i8"),
    ("split_head", "i8"), ("split_tail", "i8"), ("split_len", "i8"), ("split_deferred", "i8"), ("stat", "i8", (len(vmstat.MEMCG_STATS),)),
])  # fmt: skip
PAGE_COUNTER_MAX = (1 << 63) // 4096 - 1

# nr_tables: page tables by level, [0] = PTE tables, [1] = PMD, [2] = PUD (the pgd itself is not counted)
# lag, events: counts that the running task still keeps to itself, and for how many faults (task_struct.rss_stat)
# huge_zero: 1 once the address space has mapped the huge zero page (MMF_HUGE_ZERO_PAGE)
# used: nodes, as a mask, whose page-table walks have not seen the address space since it last ran; new: since it was made (mm->lru_gen)
# il_prev: the node that the task's interleave policy chose last, -1 before the first (task_struct.il_prev)
# tlb_gen: how many changes of its page tables the CPUs had to be told of (mm->context.tlb_gen)
# ksm_list: its first rmap_item; ksm_items: how many it has; ksm_merging: entries of it that map KSM pages
MM = np.dtype([
    ("pgd", "i8"), ("rss", "i8", (4,)), ("nr_tables", "i8", (3,)), ("memcg", "i8"), ("lag", "i8", (4,)), ("events", "i8"),
    ("il_prev", "i8"), ("huge_zero", "i8"), ("ksm_list", "i8"), ("ksm_items", "i8"), ("ksm_merging", "i8"), ("used", "i8"), ("new", "i8"),
    ("tlb_gen", "i8"),
])  # fmt: skip
TASK_RSS_EVENTS_THRESH = 64

# The operation at hand (Linux: struct vm_fault plus scan_control's idea of one context object).
# policy: 0 if no memory policy is in force; mode, nodes (a mask): the mapping's, which may be the task's; task_*: the task's own.
# of_start, of_end: the pages of a shared-memory object that mode and nodes are of; elsewhere the object is asked first.
# mems: the nodes that the task's cpuset allows, as a mask (0: all).
# thp: what a fault may use huge pages for (huge_memory.THP_*); no_thp: the 2 MiB where this access must do without;
# ready: a block of 512 frames that was found for it meanwhile (0: neither).
# major: this access is tried again after a wait for the disk; cache_hits: pages found in the page cache.
# tried: the nodes that an allocation in vain was confined to, as a mask (0: all).
# cluster: most pages to read from swap at once; sliced: the task runs on a slice, which ends when it sleeps for a read.
# ra_*: the read from swap that is under way: its fault's slot, where to go on (0: none is), its end, pages so far, the mark of before.
# read_*: a read that is done and not written down yet: where, how many, pages, ns; stall: the page was missed (workingset).
VMF = np.dtype([
    # asked
    ("mm", "i8"), ("memcg", "i8"), ("node", "i8"), ("cpu", "i8"),
    ("vm_start", "i8"), ("vm_end", "i8"), ("vm_pgoff", "i8"), ("vm_flags", "i8"),  # start, end in pages
    ("kind", "i8"), ("prot", "i8"), ("anon_vma", "i8"), ("file", "i8"), ("root", "i8"), ("file_pages", "i8"),
    ("access", "i8"), ("first", "i8"), ("step", "i8"), ("n", "i8"), ("content", "i8"), ("mark", "i8"),
    ("major", "i8"), ("flags", "i8"), ("other", "i8"),
    ("block_heads", "i8"), ("anon_root", "i8"),
    ("policy", "i8"), ("mode", "i8"), ("nodes", "i8"), ("task_mode", "i8"), ("task_nodes", "i8"), ("mems", "i8"), ("ino", "i8"), ("thp", "i8"),
    ("cluster", "i8"), ("sliced", "i8"), ("of_start", "i8"), ("of_end", "i8"),
    # answered
    ("done", "i8"), ("reason", "i8"), ("vpn", "i8"), ("victim", "i8"), ("nr_runs", "i8"), ("dirtied", "i8"), ("tried", "i8"),
    ("ra_slot", "i8"), ("ra_next", "i8"), ("ra_last", "i8"), ("ra_pages", "i8"), ("ra_mark", "i8"),
    ("read_slot", "i8"), ("reads", "i8"), ("read_pages", "i8"), ("read_ns", "i8"), ("read_stall", "i8"), ("read_run", "i8"),
    ("no_thp", "i8"), ("ready", "i8"), ("cache_hits", "i8"),
    ("count", "i8", (20,)),
])  # fmt: skip

_DONE_AT = VMF.fields["done"][1] if VMF.fields else 0
ASKED: Any = struct.Struct(f"{_DONE_AT // 8 + 1}q{VMF.itemsize - _DONE_AT - 8}x")
_ANSWERED: Any = struct.Struct("9q")


EVERYWHERE = 1 << 62  # beyond any page of a file


def ask(s: State, mm: int, memcg: int, node: int, cpu: int, vm_start: int = 0, vm_end: int = 0, vm_pgoff: int = 0, vm_flags: int = 0,
        kind: int = 0, prot: int = 0, anon_vma: int = 0, file: int = 0, root: int = 0, file_pages: int = 0, access: int = 0,
        first: int = 0, step: int = 1, n: int = 0, content: int = -1, mark: int = WMARK_LOW, flags: int = 0, other: int = 0,
        block_heads: int = 0, anon_root: int = 0, policy: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0), ino: int = 0,
        thp: int = 0, cluster: int = 1, sliced: bool = False, of_end: int = EVERYWHERE, done: int = 0) -> None:  # fmt: skip
    """Fill `State.vmf` for one page loop: what is asked in the order of VMF's columns, zeros for the answers."""
    ASKED.pack_into(
        s.vmf, 0, mm, memcg, node, cpu, vm_start, vm_end, vm_pgoff, vm_flags, kind, prot, anon_vma, file, root, file_pages,
        access, first, step, n, content, mark, 0, flags, other, block_heads, anon_root, *policy, ino, thp, cluster, sliced, 0, of_end, done,
    )  # fmt: skip


def fresh(dtype: np.dtype[Any], *names: str) -> Any:
    """The struct of a row of which these columns, in their order, are written and all others zero: field by field that costs ten times as much."""
    fields: Any = dtype.fields
    at, form = 0, ""
    for name in names:
        begin = fields[name][1]
        form += f"{begin - at}xq"
        at = begin + 8
    return struct.Struct(f"={form}{dtype.itemsize - at}x")


class Answer(NamedTuple):
    """What a page loop left in `State.vmf`, but for its counts."""

    done: int
    reason: int
    vpn: int
    victim: int
    nr_runs: int
    dirtied: int
    tried: int
    ra_slot: int
    ra_next: int


def answer(s: State) -> Answer:
    """The answers of the loop that has just run, all at once: reading them column by column costs a microsecond."""
    return Answer._make(_ANSWERED.unpack_from(s.vmf, _DONE_AT))


# What a loop reports in order. A run of like faults: kind, first page, how many, stride. Reads from swap (kind READ_IN): n of them, the
# first one's page and slot, pages in all, their ns; stall: it was one for a page that was missed; at: accesses that came before.
RUN = np.dtype([(name, "i8") for name in ("kind", "vpn", "n", "step", "at", "slot", "pages", "ns", "stall")])
MAX_RUNS = 1024
_NOTED: Any = struct.Struct(f"{RUN.itemsize // 8}q")


def noted_runs(s: State, n: int) -> Sequence[tuple[int, ...]]:
    """The first `n` rows of `State.runs`. Most calls note one: read by itself it costs a quarter."""
    return (_NOTED.unpack_from(s.runs),) if n == 1 else s.runs[:n].tolist()


# One page-sized piece of a swap area. count: entries that refer to it; pfn: its page in the swap cache; memcg: who pays.
SLOT = np.dtype([("count", "i4"), ("pfn", "i4"), ("memcg", "i4"), ("flags", "i4"), ("content", "i8"), ("shadow", "i8")])
# A swap area: its slots are rows base + 1 .. base + pages of State.slots (row base is the header's). on: new pages may go there;
# next, cluster_nr: where the search goes on, and how many slots of its run are left; lowest, highest: no slot beyond is free; turn: when its
# turn among its equals comes again. From object_size on: what a zram device keeps, and the frames that it takes (`zram`).
SWAP = np.dtype([("base", "i8"), ("pages", "i8"), ("used", "i8"), ("prio", "i8"), ("next", "i8"), ("kind", "i8"),
                 ("latency", "i8"), ("bandwidth", "i8"), ("on", "i8"), ("cluster_nr", "i8"), ("turn", "i8"),
                 ("lowest", "i8"), ("highest", "i8"), ("object_size", "i8"), ("per_zspage", "i8"), ("zspage_frames", "i8"), ("objects", "i8"),
                 ("same_pages", "i8"), ("huge_pages", "i8"), ("huge_since", "i8"), ("writes", "i8"), ("frames", "i8"), ("most_frames", "i8"),
                 ("frame_list", "i8")])  # fmt: skip
MAX_SWAPFILES = 29
# The slots that a processor keeps: slots cur .. cur + nr - 1 to hand out, n_ret that came back; one: a slot that is asked for alone.
SLOTS_CACHE_SIZE = 64
SLOTS_CACHE = np.dtype([("cur", "i8"), ("nr", "i8"), ("n_ret", "i8"), ("one", "i8", (1,)), ("slots", "i8", (SLOTS_CACHE_SIZE,)),
                        ("ret", "i8", (SLOTS_CACHE_SIZE,))])  # fmt: skip

# struct scan_control: one reclaim, asked and answered. target: the cgroup whose limit is in the way (0: the machine).
# split: the page looked at last was a huge one and has been split. in_flight: pages written by this reclaim that the disk still has to write.
# walk .. visited: the multi-gen LRU's (`lru_gen`); walk: somebody keeps book of promotions, so that none need be counted one by one.
# nr_written: how many pages of a batch were written. memcg .. immediate: where a reclaim stands that is taken up again (`shrink_node`):
# the cgroup being visited, the nodes that may give (a mask, 0: all), the stage of a round and of the whole, which cgroup of the order and which
# row of visits; looks and dirty pages met (nr_vmscan_immediate_reclaim) before; the number of the next visit.
# recursive: the mount option memory_recursiveprot.
SC = np.dtype([
    ("target", "i8"), ("node", "i8"), ("priority", "i8"), ("nr_to_reclaim", "i8"), ("may_swap", "i8"), ("may_writepage", "i8"),
    ("may_unmap", "i8"), ("split", "i8"), ("in_flight", "i8"), ("may_deactivate", "i8"), ("force_deactivate", "i8"), ("skipped_deactivate", "i8"),
    ("memcg_low_reclaim", "i8"), ("memcg_low_skipped", "i8"), ("file_is_tiny", "i8"), ("cache_trim_mode", "i8"),
    ("kswapd", "i8"), ("swappiness", "i8"), ("anon_cost", "i8"), ("file_cost", "i8"), ("block_heads", "i8"),
    ("nr_scanned", "i8"), ("nr_reclaimed", "i8"), ("nr_pageout", "i8"), ("nr_io", "i8"), ("list_scanned", "i8", (NR_LRU,)),
    ("list_reclaimed", "i8", (NR_LRU,)), ("visit", "i8"),
    ("walk", "i8"), ("start_seq", "i8"), ("can_swap", "i8"), ("need_aging", "i8"), ("need_swapping", "i8"), ("gen_total", "i8"),
    ("gen_scanned", "i8"), ("visited", "i8"), ("nr_written", "i8"),
    ("memcg", "i8"), ("nodes", "i8"), ("stage", "i8"), ("round", "i8"), ("at", "i8"), ("row", "i8"), ("looked", "i8"), ("nr_visits", "i8"),
    ("immediate", "i8"), ("recursive", "i8"),
])  # fmt: skip

# One page that reclaim looked at. flags, lru: as they were; young: entries that had used it since the last look; before: PG_referenced.
LOOK = np.dtype([
    ("visit", "i8"), ("index", "i8"), ("pfn", "i4"), ("mapping", "i4"), ("flags", "i4"), ("lru", "i4"), ("young", "i4"),
    ("before", "i4"), ("fate", "i4"), ("spare", "i4"),
])  # fmt: skip
NR_LOOKS = 1 << 13
# A page that ksmd watches (struct ksm_rmap_item), in ascending order of addresses by `next`. state: KSM_NEITHER, _UNSTABLE (in
# that tree, as of scan `seqnr`: child, parent, red), _STABLE (on the list of stable node `head`: hnext, hprev). checksum: -1 before the first.
KSM_ITEM = np.dtype([
    ("vpn", "i8"), ("checksum", "i8"), ("seqnr", "i8"), ("mm", "i4"), ("next", "i4"), ("state", "i4"), ("nid", "i4"),
    ("child", "i4", (2,)), ("parent", "i4"), ("red", "i4"), ("anon_vma", "i4"), ("head", "i4"), ("hnext", "i4"), ("hprev", "i4"),
])  # fmt: skip
# A KSM page (struct ksm_stable_node): its frame and its rmap_items (first, len), in the tree (child, parent, red), on the list of a
# chain (dnext, dprev) or waiting to change trees. A chain (len KSM_CHAIN) has no frame: `first` is its first duplicate.
KSM_NODE = np.dtype([
    ("kpfn", "i8"), ("prune_time", "i8"), ("place", "i4"), ("nid", "i4"), ("child", "i4", (2,)), ("parent", "i4"), ("red", "i4"),
    ("first", "i4"), ("len", "i4"), ("chain", "i4"), ("dnext", "i4"), ("dprev", "i4"),
])  # fmt: skip
# What ksmd knows: free rows, tree roots by node, counters of sysfs, settings of this round, where the scan stands (mm, vpn, link: the
# rmap_item whose `next` it follows, 0: the mm's list), left: pages of this round; broken: entries of COW that this round must undo.
KSM = np.dtype([
    ("item_free", "i8"), ("item_next", "i8"), ("node_free", "i8"), ("node_next", "i8"), ("nodes", "i8"), ("rmap_items", "i8"),
    ("stable", "i8", (MAX_NUMNODES,)), ("unstable", "i8", (MAX_NUMNODES,)), ("migrate", "i8"), ("seqnr", "i8"),
    ("pages_shared", "i8"), ("pages_sharing", "i8"), ("pages_unshared", "i8"), ("stable_node_dups", "i8"), ("stable_node_chains", "i8"),
    ("run", "i8"), ("max_page_sharing", "i8"), ("merge_across_nodes", "i8"), ("use_zero_pages", "i8"), ("prune_ns", "i8"), ("now", "i8"),
    ("mm", "i8"), ("vpn", "i8"), ("link", "i8"), ("left", "i8"), ("merged", "i8"), ("zeroed", "i8"), ("undo", "i8"), ("changes", "i8"),
])  # fmt: skip
KSM_NEITHER, KSM_UNSTABLE, KSM_STABLE = range(3)
KSM_CHAIN = -1024


# struct compact_control: one compaction of a zone, asked and answered (`compaction`).
CC = np.dtype([
    ("zid", "i8"), ("order", "i8"), ("migratetype", "i8"), ("sync", "i8"), ("sync_full", "i8"), ("direct", "i8"), ("whole_zone", "i8"),
    ("ignore_skip_hint", "i8"), ("ignore_block_suitable", "i8"), ("rescan", "i8"), ("unevictable", "i8"),
    ("migrate_pfn", "i8"), ("free_pfn", "i8"), ("fast_start_pfn", "i8"), ("fast_search_fail", "i8"), ("search_order", "i8"),
    ("nr_migratepages", "i8"), ("left", "i8"), ("nr_freepages", "i8"), ("migrated", "i8"), ("failed", "i8"),
    ("total_migrate_scanned", "i8"), ("total_free_scanned", "i8"),
])  # fmt: skip


@by_reference
class State(NamedTuple):
    """Every column of one simulated machine; passed whole to each page loop."""

    mem: Array
    pt: Array
    xa: Array
    buddy: Array
    pageblocks: Array
    zones: Array
    sections: Array
    zonelists: Array
    lruvecs: Array
    memcgs: Array
    mms: Array
    node_stat: Array
    numa_stat: Array
    vm_event: Array
    stock: Array
    ctl: Array
    vmf: Array
    runs: Array
    slots: Array
    swaps: Array
    slot_caches: Array
    sc: Array
    cc: Array
    looks: Array
    ksm: Array
    ksm_items: Array
    ksm_nodes: Array
    gens: Array
    lrugens: Array
    blooms: Array
    stamps: Array


# ctl columns
CTL_PT_FREE, CTL_PT_NEXT, CTL_XA_FREE, CTL_XA_NEXT, CTL_ZERO_PFN, CTL_NR_NODES, CTL_MAX_PFN, CTL_NR_FREE_PT = range(8)
CTL_FAIL_NTH = 8  # tests: when > 0, counts down page allocations; the one that reaches 0 fails
CTL_LOOKS = 29  # pages that reclaim looked at so far: where the ring `State.looks` goes on
CTL_OVER_HIGH = 15  # pages charged above a memory.high that the running task has not answered for yet
CTL_SWAP_HITS = 27  # pages read ahead from swap and used since the last window (swapin_readahead_hits)
CTL_DIRTY_POLL = 28  # file pages that the running task may dirty by stores before it must look (page_writeback); 0: no limit
CTL_SLAB_BYTES = 9  # reclaimable slab in use beyond the boot's, bytes
CTL_SLAB_PAGES = 10  # frames that slab has taken for it
CTL_SLABU_BYTES = 11
CTL_SLABU_PAGES = 12
CTL_SLAB_LIST, CTL_SLABU_LIST = 30, 31  # the first frame of each kind of slab, linked by `next`
CTL_HUGE_ZERO = 13  # the huge zero page's first frame; 0: there is none now
CTL_BUDDY = 16  # .. 26: where each order's links begin in State.buddy
CTL_SWAP_CACHE = 47  # may processors keep swap slots (-1: not now)
CTL_SWAP_FREE, CTL_SWAP_TOTAL = 48, 49  # free swap slots, and all (nr_swap_pages, total_swap_pages)
CTL_SWAP_PREVIOUS, CTL_SWAP_LAST = 50, 51  # of the swap clusters read: the last isolated fault, the last window (swapin_nr_pages)
CTL_VMA_RA, CTL_RA_ADDR, CTL_RA_WIN, CTL_RA_HITS = 52, 53, 54, 55  # swap read-ahead by address: is it on; of the mapping at hand
# the zone (+ 1) that had room for a request but no block of its migrate type; which order and type it was (page_alloc.rmqueue_fallback)
CTL_STEAL, CTL_STEAL_ORDER, CTL_STEAL_TYPE = 56, 57, 58
# zone_reclaim_mode; the zone (+ 1) that a request would have reclaimed before it goes on to the next; how far it has come so (node_reclaim)
CTL_RECLAIM_MODE, CTL_NODE_RECLAIM, CTL_NODE_RECLAIMED = 59, 60, 61
CTL_SHRINKLIST = 62  # objects of shared memory whose last huge page reaches beyond their end (shrinklist_len)
CTL_POLICY = 40  # the reclaim policy, a row of policy.POLICIES
CTL_IN_LRU_FAULT = 41  # a page fault is being served whose page counts as used (task->in_lru_fault)
CTL_STAMP = 42  # the last stamp given
CTL_RANDOM = 43  # state of the random policy's generator
CTL_FALLBACK = 46  # the policy that chooses where a client's does not
CTL_TRACE_TABLES = 44  # a machine that replays a trace: the first of its page tables; 0: an ordinary machine
CTL_TRACE_FREE = 45  # its free frames, linked by `next`
NR_CTL = 64

CLASSIC, MGLRU, FIFO, CLOCK, RANDOM, LRU, CLIENT = range(7)  # ctl[CTL_POLICY]


class AnonVma:
    """The anchor of reverse mapping for anonymous pages (mm/rmap.c).

    `id` is what `mem.mapping` holds for PG_ANON pages. `vmas` are the mappings that may hold such a page:
    the one that created it and, after forks, its descendants'. `index` of a page is vma.pgoff-relative.
    """

    __slots__ = ("id", "parent", "root", "vmas", "children")

    def __init__(self, id: int, parent: AnonVma | None = None) -> None:
        self.id = id
        self.parent = parent
        self.root: AnonVma = parent.root if parent else self
        self.vmas: list[Vma] = []
        self.children = 0


SHMEM_DEV = (0, 1)  # the mount that nobody sees, of shared anonymous memory


class Inode:
    """A file of the simulated disk, or a shmem object: its size and its page cache.

    `root` is the row of its radix tree in `State.xa` (0 = no page cached yet). `vmas` are its mappings
    (i_mmap). `shmem`: lives in memory only, counted in Shmem. `seals`, blocks and time do not exist here.
    """

    __slots__ = ("id", "path", "size", "shmem", "root", "nr_pages", "vmas", "nlink", "ino", "dev", "ra",
                 "nr_dirty", "writable", "refs", "kernel", "committed", "dirtied_when", "wb", "foreign", "writeback_index",
                 "hstate", "spool", "resv_map", "huge_pages", "policies", "swapfile")  # fmt: skip

    def __init__(self, id: int, path: str, size: int, *, shmem: bool = False, ino: int = 0, dev: tuple[int, int] = (0, 0)) -> None:
        self.id = id
        self.path = path  # as /proc/<pid>/maps shows it, e.g. "/data/f" or "/dev/zero (deleted)"
        self.size = size  # bytes
        self.shmem = shmem
        self.root = 0
        self.nr_pages = 0
        self.vmas: list[Vma] = []
        self.nlink = 1
        self.ino = ino
        self.dev = dev
        self.ra: dict[int, Any] = {}  # read-ahead state of an open file, by owner
        self.nr_dirty = 0
        self.dirtied_when = -1  # ns: since when some page is dirty without a break; -1: none is (the flusher keeps it)
        self.wb = -1  # the cgroup whose flusher writes it: that of whoever dirtied it first
        self.foreign = 0  # pages written for another cgroup since
        self.writeback_index = 0  # where the flusher goes on
        self.writable = True
        self.swapfile = False  # in use as a swap area: nobody may write, shorten or remove it (S_SWAPFILE)
        self.refs = 0
        self.kernel = False
        self.committed = 0  # pages of commit charge that a shmem object holds
        # of a file of hugetlbfs: whose pages it has, its mount's limits, what its mappings were promised, its pages by index (in huge pages)
        self.hstate: Hstate | None = None
        self.spool: Subpool | None = None
        self.resv_map: ResvMap | None = None
        self.huge_pages: dict[int, int] = {}
        self.policies: list[tuple[int, int, Mempolicy]] = []  # of shared memory: pages [first, last), in order (shared_policy)

    @property
    def nr_file_pages(self) -> int:
        """Pages up to the end of the file."""
        return (self.size + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT


class Vma:
    """One mapping (struct vm_area_struct). Addresses are page numbers: [start, end)."""

    __slots__ = ("mm", "start", "end", "flags", "pgoff", "file", "anon_vma", "chain", "policy", "name", "special", "resv",
                 "resv_unmapped", "swap_ra")  # fmt: skip

    def __init__(self, mm: Mm, start: int, end: int, flags: int, pgoff: int, file: Inode | None = None) -> None:
        self.mm = mm
        self.start = start  # vpn
        self.end = end  # vpn, exclusive
        self.flags = flags  # VM_*
        self.pgoff = pgoff  # pages; of a private anonymous mapping: its address >> 12 when made
        self.file = file
        self.anon_vma: AnonVma | None = None
        self.chain: list[AnonVma] = []  # every anon_vma whose pages may be mapped here (anon_vma_chain)
        self.policy: Mempolicy | None = None
        self.name = ""  # "[vdso]", "[vvar]", or "" (heap and stack are named by address)
        self.special = False  # vdso, vvar: no ->fault of ours
        self.resv: ResvMap | None = None  # private hugetlb mapping that was promised pages: which promises are kept (HPAGE_RESV_OWNER)
        self.swap_ra = (0, 0, 4)  # read-ahead from swap: the last fault's page, the window, hits (swap_readahead_info)
        self.resv_unmapped = False  # its parent took a page away from it (HPAGE_RESV_UNMAPPED)

    @property
    def pages(self) -> int:
        """Length in pages."""
        return self.end - self.start

    def __repr__(self) -> str:
        return f"Vma({self.start << 12:#x}-{self.end << 12:#x} flags={self.flags:#x} {self.name})"


class Mm:
    """An address space (struct mm_struct): its mappings in address order and its counters.

    `id` is its row in `State.mms` (rss, page tables). Counters in pages: total_vm, data_vm, exec_vm,
    stack_vm, locked_vm, pinned_vm. High-water marks: hiwater_rss, hiwater_vm.
    """

    __slots__ = ("id", "vmas", "starts", "total_vm", "data_vm", "exec_vm", "stack_vm", "locked_vm", "pinned_vm",
                 "hiwater_rss", "hiwater_vm", "start_brk", "brk", "start_stack", "start_code", "end_code",
                 "start_data", "end_data", "mmap_base", "def_flags", "users", "oom_skip", "exe",
                 "thp_disable", "khugepaged", "generation", "ctx_id", "pgd_pfn", "pgd", "hugetlb_usage",
                 "numa_next_scan", "numa_scan_offset", "numa_scan_seq")  # fmt: skip

    def __init__(self, id: int) -> None:
        self.id = id
        self.vmas: list[Vma] = []  # sorted by start
        self.starts: list[int] = []  # their starts, for bisect
        self.total_vm = self.data_vm = self.exec_vm = self.stack_vm = self.locked_vm = self.pinned_vm = 0
        self.hiwater_rss = self.hiwater_vm = 0
        self.start_brk = self.brk = 0  # bytes
        self.start_stack = 0  # bytes
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.mmap_base = 0x7FFFF7FFF000
        self.def_flags = 0
        self.users = 1
        self.oom_skip = False
        self.exe: Inode | None = None
        self.numa_next_scan = 0  # NUMA balancing: not before this time (ns), from this page on, after so many passes
        self.numa_scan_offset = self.numa_scan_seq = 0
        self.hugetlb_usage = 0  # small pages that hugetlb mappings have
        self.thp_disable = False
        self.khugepaged = False  # under khugepaged's care (MMF_VM_HUGEPAGE)
        self.generation = 0  # grows with every change of the mappings: reverse-mapping tables made before are void
        self.ctx_id = 0  # never used twice (mm->context.ctx_id)
        self.pgd_pfn = self.pgd = 0  # its top-level table: the frame, and the row of State.pt

    @property
    def map_count(self) -> int:
        """Number of mappings."""
        return len(self.vmas)


def get_mm_counters(s: State, mm: Mm) -> list[int]:
    """Pages by MM_FILEPAGES .. MM_SHMEMPAGES as Linux shows them: without what the running task still keeps to itself.

    smaps counts entries and is exact; status, stat, statm and the OOM killer use these and may lag by 65 faults.
    """
    row = s.mms[mm.id]
    return [max(0, int(count) - int(lag)) for count, lag in zip(row["rss"], row["lag"], strict=True)]
