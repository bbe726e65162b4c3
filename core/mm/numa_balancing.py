"""Automatic NUMA balancing: memory follows the program that uses it (kernel/sched/fair.c, mm/memory.c:do_numa_page).

The kernel cannot see who accesses what, so it asks: now and then it takes the permission away from some of a program's pages (PROT_NONE, a *hint*),
and the next access is a fault that tells which CPU wanted which page. A page that is wanted from another node than its own moves there.

    scan     after every `scan_period` ms of its own running time a program marks the next `scan_size_mb` (256) MB of its mappings; the first scan
             after `scan_delay_ms` (1000). Of a program with one thread only pages on *other* nodes are marked: local ones need no question.
    hint     numa_hint_faults, and numa_hint_faults_local if the page is on the CPU's node; a minor fault
    filter   a page moves at its first fault only in the early life of a program (fewer than five passes over its memory, or no node preferred yet).
             Later it takes two faults in a row from the same node: a page used by chance does not move
    move     numa_pages_migrated; not if that would take the node below its high mark
    prefer   after a pass, the node that has most of the pages that were asked for. A program on another node goes there, if a processor is idle
             (event `sched_move_numa`): what cannot come to the program makes the program come to it

Worked example, 8 MiB touched on node 0, then the program runs on node 1 for some seconds: 2,048 hint faults, 2,048 pages moved. Back on node 0
after more than four passes: 4,096 hint faults for the 2,048 pages.

The pace. When a pass finds a program's accesses local or its own, the period grows (up to 60 s), else it shrinks; a pass without any fault doubles it
(`update_task_scan_period`).

Who asked last stands in `private` of a page that is in no swap cache (CPU and the last 8 bits of the pid, plus 1; 0: nobody yet); in Linux in the
page's flags.

A huge page is asked about with one hint and moves whole (numa_huge_pte_updates; its 512 pages count in numa_pages_migrated), unless another
program maps it, too, or the node has no 2 MiB at hand. A small page moves for all who map it; libraries and dirty pages of files stay.

Simplified. Only accesses (`touch`) count as running time. Programs that share pages are not grouped (numa_group): with one thread a process that
can concern nothing but clean pages of files that several map shared and writable, for shared memory and read-only files are not asked about, nor are
pages shared since a fork. `kernel.numa_balancing` 2 (memory tiering) behaves as 1: all nodes
are top tier. It is off at boot, as with `numa_balancing=disable`.

Source: task_tick_numa, task_numa_work, task_numa_fault, task_numa_placement, numa_migrate_preferred, should_numa_migrate_memory,
migrate_misplaced_page; fact NU-10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.mman import VM_ACCESS, VM_EXEC, VM_HUGETLB, VM_IO, VM_MIXEDMAP, VM_PFNMAP, VM_READ, VM_SHARED, VM_WRITE
from core.abi.page_flags import PG_DIRTY, PG_HEAD, PG_KSM, PG_LRU, PG_SWAPBACKED, PG_SWAPCACHE, PG_TAIL
from core.events import Fault
from core.jit import inline, njit, step
from core.mm import rmap_walk
from core.mm.compound import total_mapcount
from core.mm.fault import F_PERM, next_block
from core.mm.huge_memory import huge_page_on
from core.mm.migrate import (
    PGMIGRATE_FAIL,
    PGMIGRATE_SUCCESS,
    cache_root,
    cache_roots,
    can_migrate,
    can_migrate_huge,
    is_free_to_go,
    migrate_huge_page,
    migrate_page,
    take_over,
)
from core.mm.mm_types import (
    CTL_HUGE_ZERO,
    CTL_STEAL,
    HPAGE_PMD_NR,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    WMARK_HIGH,
    WMARK_LOW,
    ZONE_MOVABLE,
    ZONES_PER_NODE,
    State,
)
from core.mm.mmzone import cpu_to_node
from core.mm.page_alloc import rmqueue_fallback, zone_of
from core.mm.page_ops import GFP_USER, check_sync_rss_stat, get_page_on
from core.mm.pgtable import (
    PFN_MASK,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PROTNONE,
    PTE_PS,
    PTE_RW,
    PTE_SOFT_DIRTY,
    PTE_SPECIAL,
    find_pte_table,
    find_table,
    huge_entry,
)
from core.mm.rmap_walk import Rmap
from core.mm.tlb import flush_tlb_mm_range
from core.sched import fair
from core.vmstat import EVENT, MEMCG_PGFAULT, PGFAULT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Answer, Array, Mm, Vma
    from core.sched.task import Task

TICK_NS = 4_000_000  # HZ = 250
MS = 1_000_000
NO_NODE = -1
NUMA_PERIOD_SLOTS, NUMA_PERIOD_THRESHOLD = 10, 7
MAX_SCAN_WINDOW = 2560  # MB of scanning a second at most
EARLY_PASSES = 4
NUMA_PTE_UPDATES, NUMA_HUGE_PTE_UPDATES = EVENT["numa_pte_updates"], EVENT["numa_huge_pte_updates"]
NUMA_HINT_FAULTS = EVENT["numa_hint_faults"]
NUMA_HINT_FAULTS_LOCAL, NUMA_PAGE_MIGRATE = EVENT["numa_hint_faults_local"], EVENT["numa_pages_migrated"]
THP_MIGRATION_SUCCESS, THP_MIGRATION_FAIL = EVENT["thp_migration_success"], EVENT["thp_migration_fail"]
KEPT = PTE_A | PTE_D | PTE_SOFT_DIRTY | PFN_MASK  # of an entry when it becomes a hint and back

# debugfs: sched/numa_balancing
DEFAULTS: dict[str, int] = {
    "scan_delay_ms": 1000, "scan_period_min_ms": 1000, "scan_period_max_ms": 60000, "scan_size_mb": 256, "hot_threshold_ms": 1000,
}  # fmt: skip
# vmf.count of `do_numa_pages`: faults, those for pages that were near; in pages: all, those near, moved, not moved
HINTS, LOCAL, PAGES, LOCAL_PAGES, MIGRATED, FAILED = range(6)
HAS_NO_CPUPID = PG_SWAPCACHE | PG_TAIL | PG_KSM  # `private` of such a page is something else


class NumaStats:
    """What a process knows about where its accesses go (task_struct.numa_*). Periods in ms, times in ns, faults by node."""

    __slots__ = ("runtime", "node_stamp", "scan_period", "scan_period_max", "scan_seq", "preferred_nid", "migrate_retry", "faults", "recent",
                 "locality", "failed", "pages_migrated", "move_to")  # fmt: skip

    def __init__(self, nodes: int, delay: int) -> None:
        self.runtime = 0  # sum_exec_runtime, as far as it counts here
        self.node_stamp = 0
        self.scan_period = delay
        self.scan_period_max = 0
        self.scan_seq = 0
        self.preferred_nid = NO_NODE
        self.migrate_retry = 0
        self.faults = [[0, 0] for _ in range(nodes)]  # decayed: by other programs last, by this one last (private)
        self.recent = [[0, 0] for _ in range(nodes)]  # since the last pass
        self.locality = [0, 0]  # remote, local
        self.failed = 0
        self.pages_migrated = 0
        self.move_to = -1  # the processor that the program goes to when its slice is over, -1: it stays


# ---------------------------------------------------------------- the clock of a running program


def watching(k: Kernel, task: Task) -> bool:
    """Is balancing on, and is there anything to balance?"""
    return k.nr_nodes > 1 and task.mm is not None and bool(int(k.sysctl["kernel.numa_balancing"]))


def stats(k: Kernel, task: Task) -> NumaStats:
    """A process's statistics, made when it first runs with balancing on (init_numa_balancing)."""
    if task.numa is None:
        task.numa = NumaStats(k.nr_nodes, k.numa["scan_delay_ms"])
    return task.numa


def budget(k: Kernel, task: Task) -> int:
    """Accesses until the tick at which the program may have to scan."""
    numa = stats(k, task)
    due = (numa.node_stamp + numa.scan_period * MS) // TICK_NS * TICK_NS + TICK_NS
    return max(1, (due - numa.runtime) // k.costs.access)


def task_tick_numa(k: Kernel, task: Task, ns: int) -> None:
    """The program has run for `ns` more: scan, if its period is over and nobody has scanned its address space meanwhile."""
    numa = stats(k, task)
    numa.runtime += ns
    period = numa.scan_period * MS
    if numa.runtime <= numa.node_stamp + period:
        return
    assert task.mm is not None
    if not numa.node_stamp:
        numa.scan_period = task_scan_min(k, task.mm)
    numa.node_stamp += period
    if k.clock.now >= task.mm.numa_next_scan:
        task_numa_work(k, task, numa)


def task_nr_scan_windows(k: Kernel, mm: Mm) -> int:
    """How many scans one pass over the resident memory takes."""
    window = max(1, k.numa["scan_size_mb"] << 8)
    rss = sum(int(k.s.mms["rss"][mm.id][column]) for column in (MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES)) or window
    return -(-rss // window)


def task_scan_min(k: Kernel, mm: Mm) -> int:
    """The shortest period, ms: one pass over the memory in scan_period_min_ms, but no more than 2,560 MB a second."""
    size = max(1, k.numa["scan_size_mb"])
    floor = 1000 // (MAX_SCAN_WINDOW // size if size < MAX_SCAN_WINDOW else 1)
    return max(floor, k.numa["scan_period_min_ms"] // task_nr_scan_windows(k, mm))


def task_scan_max(k: Kernel, mm: Mm) -> int:
    """The longest period, ms."""
    return max(task_scan_min(k, mm), k.numa["scan_period_max_ms"] // task_nr_scan_windows(k, mm))


# ---------------------------------------------------------------- the scan


def task_numa_work(k: Kernel, task: Task, numa: NumaStats) -> None:
    """Mark the next part of the address space (task_numa_work)."""
    mm = task.mm
    assert mm is not None
    now = k.clock.now
    if not mm.numa_next_scan:
        mm.numa_next_scan = now + k.numa["scan_delay_ms"] * MS
        return
    mm.numa_next_scan = now + numa.scan_period * MS
    numa.node_stamp += 2 * TICK_NS
    pages = k.numa["scan_size_mb"] << 8
    left = pages * 8  # so much of the address space at most, with what is empty
    start = mm.numa_scan_offset
    if not any(vma.end > start for vma in mm.vmas):
        reset_scan(mm)
        start = 0
    for vma in [vma for vma in mm.vmas if vma.end > start]:
        if not scannable(task, vma):
            continue
        start = max(start, vma.start)
        while start < vma.end:
            end = min((start + pages + 511) & ~511, vma.end)
            if mark(k, task, vma, start, end):
                pages -= end - start
            left -= end - start
            start = end
            if pages <= 0 or left <= 0:
                mm.numa_scan_offset = start
                return
    reset_scan(mm)


def reset_scan(mm: Mm) -> None:
    """A pass over the address space is complete."""
    mm.numa_scan_seq += 1
    mm.numa_scan_offset = 0


def scannable(task: Task, vma: Vma) -> bool:
    """May hints be set in this mapping? Not where a policy says where pages belong, in shared memory, libraries and special mappings."""
    if vma.special or vma.flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP | VM_HUGETLB) or not vma.flags & VM_ACCESS:
        return False
    if vma.policy is not None or task.policy is not None:
        return False
    return vma.file is None or (not vma.file.shmem and vma.flags & (VM_READ | VM_WRITE) != VM_READ)


def mark(k: Kernel, task: Task, vma: Vma, start: int, end: int) -> int:
    """Set hints on [start, end) of a mapping; how many."""
    alone = not vma.flags & VM_SHARED and vma.mm.users == 1
    here = cpu_to_node(k, task.cpu) if alone else NO_NODE
    found = int(change_prot_numa(k.s, int(k.s.mms["pgd"][vma.mm.id]), start, end, here, int(not vma.flags & VM_SHARED)))
    k.clock.spend(found * k.costs.protect_pte)
    if found:
        flush_tlb_mm_range(k, vma.mm, start, end, "NUMA balancing set hints")
    return found


@njit
def change_prot_numa(s: State, pgd: int, start: int, end: int, here: int, cow: int) -> int:
    """Make hints of the entries of [start, end) (change_pte_range, change_huge_pmd with MM_CP_PROT_NUMA); how many.

    here: the node whose small pages need no question, -1: none. Left out, too: zero pages, KSM, pages shared by a fork, dirty pages of files. A huge
    entry is asked about wherever its page lies.
    """
    at, entries = start, 0
    while at < end:
        tid = find_pte_table(s, pgd, at)
        stop = min(end, (at | 511) + 1)
        if tid == 0:
            if huge_entry(s, pgd, at):
                entries += mark_huge(s, pgd, at)
            else:
                stop = max(next_block(s, pgd, at, end), stop)
            at = stop
            continue
        for vpn in range(at, stop):
            pte = s.pt[tid, vpn & 511]
            if not pte & PTE_P or pte & PTE_SPECIAL:
                continue
            pfn = (pte & PFN_MASK) >> 12
            flags = s.mem[pfn]["flags"]
            if flags & (PG_KSM | PG_HEAD | PG_TAIL) or (cow and s.mem[pfn]["refcount"] != 1) or flags & (PG_SWAPBACKED | PG_DIRTY) == PG_DIRTY:
                continue
            if s.zones[zone_of(s, pfn)]["node"] == here:
                continue
            s.pt[tid, vpn & 511] = (pte & (KEPT | PTE_RW)) | PTE_PROTNONE
            s.vm_event[NUMA_PTE_UPDATES] += 1
            entries += 1
        at = stop
    return entries


@step
def mark_huge(s: State, pgd: int, vpn: int) -> int:
    """The huge entry around a page becomes a hint: 1, or 0 if it is one or maps the huge zero page."""
    tid, slot = find_table(s, pgd, vpn, 2), (vpn >> 9) & 511
    entry = s.pt[tid, slot]
    if not entry & PTE_P or (entry & PFN_MASK) >> 12 == s.ctl[CTL_HUGE_ZERO]:
        return 0
    s.pt[tid, slot] = (entry & (KEPT | PTE_RW | PTE_PS)) | PTE_PROTNONE
    s.vm_event[NUMA_PTE_UPDATES] += HPAGE_PMD_NR
    s.vm_event[NUMA_HUGE_PTE_UPDATES] += 1
    return 1


# ---------------------------------------------------------------- hint faults


@inline
def last_asker(s: State, pfn: int) -> int:
    """Who asked for the page last (page_cpupid_last): `me` of `do_numa_pages`, 0: nobody yet, or there is no place to keep it."""
    return 0 if s.mem[pfn]["flags"] & HAS_NO_CPUPID else s.mem[pfn]["private"]


@step
def should_migrate(s: State, v, pfn: int, early: int, me: int) -> bool:
    """should_numa_migrate_memory: early in life at once, later at the second fault in a row from one node."""
    last = last_asker(s, pfn)
    if not s.mem[pfn]["flags"] & HAS_NO_CPUPID:
        s.mem[pfn]["private"] = me
    if early and (last == 0 or (last - 1) & 255 == (me - 1) & 255):
        return True
    per_node = v["other"]
    return last == 0 or min(((last - 1) >> 8) // per_node, s.zonelists.shape[0] - 1) == v["node"]


@step
def room_on(s: State, node: int, nr: int) -> bool:
    """Would the node stay above its high mark with so many pages more (migrate_balanced_pgdat)?"""
    for zid in range(node * ZONES_PER_NODE, (node + 1) * ZONES_PER_NODE):
        zone = s.zones[zid]
        if zone["managed"] and zone["free"] > zone["wmark"][WMARK_HIGH] + zone["boost"] + zone["lowmem_reserve"][ZONE_MOVABLE] + nr:
            return True
    return False


@step
def frame_on(s: State, v, node: int) -> int:
    """A frame of a node for a page that moves there, be it of another type; it waits for nothing and wakes nobody (alloc_misplaced_dst_page)."""
    s.ctl[CTL_STEAL] = 0
    pfn = get_page_on(s, v, node, WMARK_LOW, GFP_USER, 1 << node)
    zid = s.ctl[CTL_STEAL] - 1
    if pfn == 0 and zid >= 0 and rmqueue_fallback(s):
        s.zones[zid]["boosted"] = 0
        pfn = get_page_on(s, v, node, WMARK_LOW, GFP_USER, 1 << node)
    return pfn


@step
def migrate_misplaced_page(s: State, r: Rmap, roots, v, pfn: int) -> int:
    """Move a small page to the node of vmf's CPU, for all who map it: its frame there, or 0. Libraries, and dirty pages of files, stay."""
    page, node = s.mem[pfn], v["node"]
    flags = page["flags"]
    alone, file = page["mapcount"] == 1, not flags & PG_SWAPBACKED
    if not flags & PG_LRU or (file and (flags & PG_DIRTY or (not alone and v["vm_flags"] & VM_EXEC))) or not room_on(s, node, 1):
        return 0
    new = 0
    if is_free_to_go(s, pfn) if alone else can_migrate(s, r, pfn):
        new = frame_on(s, v, node)
    if new == 0:
        s.vm_event[PGMIGRATE_FAIL] += 1
        return 0
    if alone:  # its only entry is the hint at hand
        take_over(s, cache_root(s, roots, pfn), pfn, new, True)
    else:
        migrate_page(s, r, roots, pfn, new)
    s.vm_event[PGMIGRATE_SUCCESS] += 1
    s.vm_event[NUMA_PAGE_MIGRATE] += 1
    return new


@step
def migrate_misplaced_huge(s: State, r: Rmap, v, head: int) -> int:
    """The same for a huge page, whole, if nobody else maps it and the node has 2 MiB at hand: its first frame there, or 0."""
    if total_mapcount(s, head) > 1 or not room_on(s, v["node"], HPAGE_PMD_NR):
        return 0
    new = huge_page_on(s, v, v["node"], 1 << v["node"]) if can_migrate_huge(s, r, head) else 0
    if new == 0:
        s.vm_event[PGMIGRATE_FAIL] += HPAGE_PMD_NR
        s.vm_event[THP_MIGRATION_FAIL] += 1
        return 0
    migrate_huge_page(s, r, head, new)
    s.vm_event[PGMIGRATE_SUCCESS] += HPAGE_PMD_NR
    s.vm_event[THP_MIGRATION_SUCCESS] += 1
    s.vm_event[NUMA_PAGE_MIGRATE] += HPAGE_PMD_NR
    return new


@njit
def do_numa_pages(s: State, r: Rmap, roots, perm, early: int, me: int, faults) -> None:
    """Answer the hints that the accesses from vmf.done on meet, until one meets none (do_numa_page, do_huge_pmd_numa_page). vmf.other: CPUs a node.

    The accesses themselves are still to be made. faults: by node of the page afterwards, how many pages another program or nobody-else (this one, or
    the first) had asked for before.
    """
    v = s.vmf[0]
    start, end, first, step, n = v["vm_start"], v["vm_end"], v["first"], v["step"], v["n"]
    pgd, permuted = s.mms[v["mm"]]["pgd"], v["flags"] & F_PERM
    i = v["done"]
    while i < n:
        vpn = first + (perm[i] if permuted else i * step)
        if not start <= vpn < end or not answer_hint(s, r, roots, v, pgd, vpn, early, me, faults):
            break
        i += 1
    hints = v["count"][HINTS]
    s.vm_event[NUMA_HINT_FAULTS] += hints
    s.vm_event[NUMA_HINT_FAULTS_LOCAL] += v["count"][LOCAL]
    s.vm_event[PGFAULT] += hints
    s.memcgs[v["memcg"]]["stat"][MEMCG_PGFAULT] += hints


@step
def answer_hint(s: State, r: Rmap, roots, v, pgd: int, vpn: int, early: int, me: int, faults) -> bool:
    """One hint fault, if there is a hint for this page: its page moves or not, and the entry permits accesses again."""
    tid, slot = find_pte_table(s, pgd, vpn), vpn & 511
    huge = tid == 0
    if huge:
        tid, slot = find_table(s, pgd, vpn, 2), (vpn >> 9) & 511
    entry = s.pt[tid, slot] if tid else 0
    if entry & (PTE_P | PTE_PROTNONE) != PTE_PROTNONE:
        return False
    check_sync_rss_stat(s, v["mm"])
    nr = HPAGE_PMD_NR if huge else 1
    pfn = (entry & PFN_MASK) >> 12
    node, last = s.zones[zone_of(s, pfn)]["node"], last_asker(s, pfn)
    private = 1 if last == 0 or (last - 1) & 255 == (me - 1) & 255 else 0
    count = v["count"]
    if node == v["node"]:
        count[LOCAL] += 1
        count[LOCAL_PAGES] += nr
    if should_migrate(s, v, pfn, early, me) and node != v["node"]:
        new = migrate_misplaced_huge(s, r, v, pfn) if huge else migrate_misplaced_page(s, r, roots, v, pfn)
        if new:
            pfn, node = new, v["node"]
        count[MIGRATED if new else FAILED] += nr
    s.pt[tid, slot] = (pfn << 12) | (entry & (KEPT & ~PFN_MASK | PTE_RW | (PTE_PS if huge else 0))) | v["prot"] | PTE_A
    faults[node, private] += nr
    count[HINTS] += 1
    count[PAGES] += nr
    return True


def hint_faults(k: Kernel, task: Task, end: Answer, order: Array) -> int:
    """A loop of accesses met a hint: answer it and those that follow; how many faults that was. `State.vmf` still holds the loop's question."""
    numa, mm = stats(k, task), task.mm
    assert mm is not None
    if k.clock.now > numa.migrate_retry:
        task_numa_placement(k, task, numa)
        numa_migrate_preferred(k, task, numa)
    early = numa.preferred_nid == NO_NODE or numa.scan_seq <= EARLY_PASSES
    faults = np.zeros((k.nr_nodes, 2), np.int64)
    v: Any = k.s.vmf[0]
    v["other"] = max(1, k.nr_cpus // k.nr_nodes)
    v["count"] = 0
    do_numa_pages(k.s, rmap_walk.tables(k), cache_roots(k), order, int(early), 1 + (task.cpu << 8 | task.pid & 255), faults)
    hints, _, pages, local, migrated, failed = v["count"][:6].tolist()
    for node, (other, private) in enumerate(faults.tolist()):
        numa.recent[node][0] += other
        numa.recent[node][1] += private
    numa.locality[1] += local
    numa.locality[0] += pages - local
    numa.failed += failed
    numa.pages_migrated += migrated
    task.minflt += hints
    k.clock.spend(hints * k.costs.fault + migrated * (k.costs.copy_page + k.costs.zap_pte))
    stride = int(v["step"]) if not v["flags"] & F_PERM else None
    k.emit(Fault(k.clock.now, task.pid, "numa_hint", False, end.vpn << 12, hints, stride, task.cgroup.path))
    return hints


# ---------------------------------------------------------------- what is learnt from them


def task_numa_placement(k: Kernel, task: Task, numa: NumaStats) -> None:
    """Once a pass: fold the pass's faults into the decayed ones, prefer the node that has most, and set the pace."""
    mm = task.mm
    assert mm is not None
    if numa.scan_seq == mm.numa_scan_seq:
        return
    numa.scan_seq = mm.numa_scan_seq
    numa.scan_period_max = task_scan_max(k, mm)
    shared, private = (sum(row[kind] for row in numa.recent) for kind in (0, 1))
    for old, new in zip(numa.faults, numa.recent, strict=True):
        for kind in (0, 1):
            old[kind] += new[kind] - old[kind] // 2
            new[kind] = 0
    totals = [sum(row) for row in numa.faults]
    if max(totals):
        numa.preferred_nid = totals.index(max(totals))
    update_task_scan_period(k, mm, numa, shared, private)


def numa_migrate_preferred(k: Kernel, task: Task, numa: NumaStats) -> None:
    """Now and then: is the program where its memory is? If not, it goes there."""
    if numa.preferred_nid == NO_NODE:
        return
    numa.migrate_retry = k.clock.now + min(1000 * MS, numa.scan_period * MS // 16)
    if cpu_to_node(k, task.cpu) == numa.preferred_nid:
        return
    cpu = fair.task_numa_find_cpu(k, task, numa.preferred_nid)
    if task.program is not None:
        numa.move_to = cpu
    elif cpu >= 0:
        fair.migrate_task_to(k, task, cpu)
        k.s.vmf["cpu"], k.s.vmf["node"] = cpu, cpu_to_node(k, cpu)  # the loop that met the hint goes on there


def update_task_scan_period(k: Kernel, mm: Mm, numa: NumaStats, shared: int, private: int) -> None:
    """Slower when accesses are local or the program's own, faster when they are remote and shared; twice as slow without any."""
    remote, local = numa.locality
    if local + shared == 0 or numa.failed:
        numa.scan_period = min(numa.scan_period_max, numa.scan_period * 2)
        mm.numa_next_scan = k.clock.now + numa.scan_period * MS
        return
    slot = -(-numa.scan_period // NUMA_PERIOD_SLOTS)
    lr_ratio = local * NUMA_PERIOD_SLOTS // (local + remote)
    ps_ratio = private * NUMA_PERIOD_SLOTS // max(private + shared, 1)
    if ps_ratio >= NUMA_PERIOD_THRESHOLD:
        diff = max(ps_ratio - NUMA_PERIOD_THRESHOLD, 1) * slot
    elif lr_ratio >= NUMA_PERIOD_THRESHOLD:
        diff = max(lr_ratio - NUMA_PERIOD_THRESHOLD, 1) * slot
    else:
        diff = -(NUMA_PERIOD_THRESHOLD - max(lr_ratio, ps_ratio)) * slot
    numa.scan_period = min(max(numa.scan_period + diff, task_scan_min(k, mm)), task_scan_max(k, mm))
    numa.locality, numa.failed = [0, 0], 0


def dup(k: Kernel, child: Mm) -> None:
    """fork: the child's address space is new to balancing (init_numa_balancing)."""
    child.numa_next_scan = k.clock.now + k.numa["scan_delay_ms"] * MS


