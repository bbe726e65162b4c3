"""The page cache: files of the simulated disk, page by page in memory (mm/filemap.c, mm/truncate.c, fs/buffer.c).

A file's cached pages hang in a radix tree of 512-way nodes (`Inode.root` in `State.xa`), so a cache costs what is
cached. A page comes in by a miss (read, with read-ahead around it) or by a write; it stays after the process is gone, until
memory is short, the file is gone, or somebody asks (`drop_caches`, fadvise DONTNEED). Who touched it first pays for it.

    read(2) hit     copy; first time PG_referenced, second time to the active list
    read(2) miss    read-ahead window, one request to the disk, then as a hit
    fault hit       up to 16 neighbours mapped, a minor fault
    fault miss      read-ahead around it, a *major* fault
    write(2)        page allocated if need be, dirty, buffers attached
    fsync, msync    dirty pages written, entries that map them cleaned and write-protected: the next write faults again

Simplified: I/O is done when the call that needs it returns, so no page is ever seen locked or under writeback; the
read(2) of this API makes requests of 64 KiB as `cat` does.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from core.abi.errno import SysError
from core.abi.mman import VM_RAND_READ, VM_SEQ_READ, VM_SHARED
from core.abi.page_flags import PG_DIRTY, PG_MLOCKED, PG_PRIVATE, PG_READAHEAD, PG_RECLAIM, PG_WRITEBACK
from core.events import Fault, Writeback
from core.jit import inline, njit
from core.mm import gfp, memcontrol, mempolicy, page_writeback, readahead, tlb
from core.mm.compound import compound_head, compound_nr
from core.mm.fault import F_POPULATE
from core.mm.lru_classic import rotate_reclaimable
from core.mm.mm_types import Inode, State, ask
from core.mm.mmzone import cpu_to_node
from core.mm.page_alloc import zone_of
from core.mm.page_ops import (
    DONE,
    GFP_USER,
    NEW_PAGES,
    NO_PAGE,
    add_to_page_cache,
    alloc_charged,
    clear_dirty,
    next_entry,
    remove_from_page_cache,
    set_dirty,
    xa_leaf,
    xa_leaf_create,
)
from core.mm.pgtable import PTE_D, PTE_PRESENT, find_pte_table, give_node, pte_pfn, take_node
from core.mm.readahead import RA_PAGES, FileRa, Window
from core.mm.swap import deactivate_file_page, mark_page_accessed
from core.mm.workingset import RESTORE_ANON
from core.mm.zap import wrprotect_file_page
from core.sched import psi
from core.vmstat import MEMCG_PGFAULT, MEMCG_PGMAJFAULT, NR_WRITTEN, PGFAULT, PGMAJFAULT, PGPGIN, PGPGOUT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma
    from core.sched.task import Task

RESTORE_FILE = RESTORE_ANON + 1  # pages that were in the workingset and are back
WRITE_PIECE = 512  # pages brought in before they are written to
READ_CHUNK = 16  # pages of one read(2) or write(2) request
MMAP_LOTSAMISS = 100
MAX_FILE_PAGES = 1 << 36


@njit
def find(s: State, root: int, index: int) -> int:
    """The frame that caches page `index`, or 0."""
    leaf = xa_leaf(s, root, index)
    if leaf == 0:
        return 0
    pfn = s.xa[leaf, index & 511]
    return pfn if pfn > 0 else 0


@njit
def new_root(s: State) -> int:
    """An empty radix tree."""
    return take_node(s)


def make_root(k: Kernel, inode: Inode) -> None:
    """Give a file its (empty) radix tree."""
    inode.root = int(new_root(k.s))
    k.rmap = None  # reclaim knows files by their trees


@njit
def fill_pages(s: State, mark: int, rewritten: bool) -> None:
    """Cache the pages vmf.first .. vmf.n of vmf.file that are not cached yet; page `mark` gets PG_readahead.

    Pages that are about to be `rewritten` do not come back too soon, whatever their shadow says (__GFP_WRITE in __filemap_add_folio).
    Answers `done` (pages looked at), `count[NEW_PAGES]` (pages added), and a reason where a frame cannot be had.
    """
    v = s.vmf[0]
    v["reason"] = DONE
    at = v["first"] + v["done"]
    while at < v["n"]:
        leaf = xa_leaf_create(s, v["root"], at)
        if s.xa[leaf, at & 511] <= 0:
            pfn = alloc_charged(s, v, GFP_USER, at + v["ino"] if v["kind"] == 2 else -1)
            if pfn == 0:
                break
            if rewritten:
                s.xa[leaf, at & 511] = 0
            add_to_page_cache(s, v, leaf, at, pfn, v["kind"] == 2)
            v["count"][NEW_PAGES] += 1
            if at == mark:
                s.mem[pfn]["flags"] |= PG_READAHEAD
        at += 1
    v["done"] = at - v["first"]


@njit
def use_cached(s: State, root: int, start: int, end: int) -> int:
    """read(2) copies the cached pages from `start` on, each marked accessed: how many, up to the first that is missing.

    Stops before a page that carries the read-ahead mark (its first use must be noticed).
    """
    at = start
    while at < end:
        pfn = find(s, root, at)
        if pfn == 0 or s.mem[pfn]["flags"] & PG_READAHEAD:
            break
        mark_page_accessed(s, zone_of(s, pfn), pfn)
        at += 1
    return at - start


@njit
def next_miss(s: State, root: int, start: int, limit: int) -> int:
    """The first page >= start that is not cached, looking at `limit` pages at most."""
    for at in range(start, start + limit):
        if find(s, root, at) == 0:
            return at
    return start + limit


@njit
def cached_before(s: State, root: int, index: int, limit: int) -> int:
    """How many pages right before `index` are cached (count_history_pages)."""
    n = 0
    while n < limit and index - n > 0 and find(s, root, index - n - 1):
        n += 1
    return n


@njit
def clear_mark(s: State, root: int, index: int) -> int:
    """Take the read-ahead mark off a page: 1 if it had one."""
    pfn = find(s, root, index)
    if pfn == 0 or not s.mem[pfn]["flags"] & PG_READAHEAD:
        return 0
    s.mem[pfn]["flags"] &= ~PG_READAHEAD
    return 1


@njit
def dirty_pages(s: State) -> None:
    """write(2) over the cached pages vmf.first .. vmf.n: dirty, with buffers; `dirtied` counts those that were clean.

    Stops after `done` pages at one that has been reclaimed again before it was written.
    """
    v = s.vmf[0]
    for at in range(v["first"], v["n"]):
        pfn = find(s, v["root"], at)
        if pfn == 0:
            break
        v["done"] += 1
        v["dirtied"] += set_dirty(s, zone_of(s, pfn), pfn, v["block_heads"])


@njit
def next_cached(s: State, root: int, start: int, end: int) -> int:
    """The first cached page in [start, end), or -1."""
    return next_entry(s, root, start, end, 1)


@njit
def next_dirty(s: State, root: int, start: int, end: int) -> int:
    """The first dirty page in [start, end), or -1."""
    at = next_cached(s, root, start, end)
    while at >= 0:
        if s.mem[find(s, root, at)]["flags"] & PG_DIRTY:
            return at
        at = next_cached(s, root, at + 1, end)
    return -1


@njit
def clean_page(s: State, root: int, index: int) -> int:
    """Write one dirty page out: 1 if it was dirty. Its mappings are the caller's (page_mkclean)."""
    pfn = find(s, root, index)
    if pfn == 0 or not s.mem[pfn]["flags"] & PG_DIRTY:
        return 0
    zid = zone_of(s, pfn)
    clear_dirty(s, zid, pfn)
    s.node_stat[s.zones[zid]["node"], NR_WRITTEN] += 1
    s.memcgs[s.mem[pfn]["memcg"]]["stat"][NR_WRITTEN] += 1
    if s.mem[pfn]["flags"] & PG_RECLAIM:  # reclaim waits for it (folio_end_writeback)
        s.mem[pfn]["flags"] &= ~PG_RECLAIM
        rotate_reclaimable(s, pfn)
    return 1


@inline
def evict_or_deactivate(s: State, leaf: int, pfn: int, block_heads: int) -> int:
    """Drop a page that is clean and unused (1), else let it age faster (0)."""
    page = s.mem[pfn]
    zid = zone_of(s, pfn)
    held = 2 if page["flags"] & PG_PRIVATE else 1
    if page["flags"] & (PG_DIRTY | PG_WRITEBACK | PG_MLOCKED) or page["refcount"] > held:
        deactivate_file_page(s, zid, pfn)
        return 0
    remove_from_page_cache(s, zid, leaf, pfn, block_heads)
    return 1


@njit
def invalidate_pages(s: State, root: int, start: int, end: int, block_heads: int) -> int:
    """Drop the clean, unmapped pages of [start, end) (invalidate_mapping_pages): how many."""
    dropped = 0
    at = next_cached(s, root, start, end)
    while at >= 0:
        leaf = xa_leaf(s, root, at)
        dropped += evict_or_deactivate(s, leaf, s.xa[leaf, at & 511], block_heads)
        at = next_cached(s, root, at + 1, end)
    return dropped


@njit
def truncate_pages(s: State, root: int, start: int, block_heads: int) -> int:
    """Drop every page from `start` on, dirty or not, a huge one whole; they must not be mapped any more: how many."""
    dropped = 0
    at = next_cached(s, root, start, MAX_FILE_PAGES)
    while at >= 0:
        leaf = xa_leaf(s, root, at)
        pfn = s.xa[leaf, at & 511]
        dropped += compound_nr(s, compound_head(s, pfn))
        remove_from_page_cache(s, zone_of(s, pfn), leaf, pfn, block_heads)
        at = next_cached(s, root, at + 1, MAX_FILE_PAGES)
    return dropped


@njit
def free_nodes(s: State, root: int) -> None:
    """Return an empty radix tree, four levels of nodes, to the pool."""
    for i in range(512):
        upper = s.xa[root, i]
        if upper == 0:
            continue
        for j in range(512):
            lower = s.xa[upper, j]
            if lower == 0:
                continue
            for m in range(512):
                leaf = s.xa[lower, m]
                if leaf:
                    for n in range(512):
                        s.xa[leaf, n] = 0  # shadows
                    give_node(s, leaf)
                    s.xa[lower, m] = 0
            s.xa[upper, j] = 0
            give_node(s, lower)
        s.xa[root, i] = 0
        give_node(s, upper)
    give_node(s, root)


# ---------------------------------------------------------------- decisions


def begin(k: Kernel, task: Task, inode: Inode, start: int, end: int) -> None:
    """Fill `State.vmf` for a loop over the pages [start, end) of a file on behalf of a task."""
    if inode.root == 0:
        make_root(k, inode)
    ask(
        k.s, mm=task.mm.id if task.mm else 0, memcg=task.cgroup.memcg.id, node=cpu_to_node(k, task.cpu), cpu=task.cpu,
        kind=2 if inode.shmem else 1,
        file=inode.id, root=inode.root, file_pages=inode.nr_file_pages, ino=inode.ino, first=start, n=end,
        block_heads=k.machine.storage.buffers, policy=mempolicy.in_force(task, None),
    )  # fmt: skip


def read_pages(k: Kernel, task: Task, inode: Inode, start: int, end: int, mark: int = -1, *, disk: bool = True,
               rewritten: bool = False, needed: int | None = None) -> int:  # fmt: skip
    """Bring the pages [start, end) into the cache: how many came from the disk.

    `disk`: they are read; `rewritten`: for write(2). `needed`: the page that somebody waits for; without it a shortage of memory
    simply ends the read-ahead.
    """
    begin(k, task, inode, start, end)
    v = k.s.vmf[0]
    added, restored = 0, int(k.s.node_stat[:, RESTORE_FILE].sum())
    while True:
        fill_pages(k.s, mark, rewritten)
        added += int(v["count"][NEW_PAGES])
        inode.nr_pages += int(v["count"][NEW_PAGES])  # before anything is reclaimed, these pages may be among it
        v["count"][NEW_PAGES] = 0
        if int(v["reason"]) == DONE:
            break
        at = start + int(v["done"])
        try:
            more_memory(k, task, oom=needed is not None and at <= needed)
        except SysError:
            if needed is None or at > needed:
                break
            raise
    if added and disk:
        k.s.vm_event[PGPGIN] += 4 * added
        thrashing = int(k.s.node_stat[:, RESTORE_FILE].sum()) > restored
        with psi.memstall(k, task, "reading a page of the workingset back from its file") if thrashing else nullcontext():
            psi.io_schedule(k, io_ns(k, added))
        page_writeback.disk_read(k, added)
    return added


def more_memory(k: Kernel, task: Task, *, oom: bool) -> None:
    """A page of the cache found no frame or no room under a limit."""
    v = k.s.vmf[0]
    if int(v["reason"]) == NO_PAGE:
        gfp.slowpath(k, task)
        return
    with gfp.saved(k):
        cg = k.cgroups[int(v["memcg"])]
        memcontrol.charge(k, task, cg, 1, failed=int(v["victim"]), oom=oom)
        memcontrol.keep_charge(k.s, task.cpu, cg.id, 1)
    gfp.check_killed(k, task)


def io_ns(k: Kernel, pages: int) -> int:
    """Simulated time of one request to the disk."""
    storage = k.machine.storage
    return storage.latency_ns + pages * 4096 * 1_000_000_000 // storage.bandwidth


def do_window(k: Kernel, task: Task, inode: Inode, window: Window | None, needed: int | None = None) -> int:
    """Read a window, clipped to the file."""
    if window is None:
        return 0
    end = min(window.start + window.size, inode.nr_file_pages)
    mark = window.start + window.size - window.async_size if window.async_size else -1
    return read_pages(k, task, inode, window.start, end, mark, needed=needed) if window.start < end else 0


def ra_state(inode: Inode, key: int) -> FileRa:
    """The read-ahead state of an open file (or mapping), by key."""
    state: FileRa = inode.ra.setdefault(key, FileRa())
    return state


def window_for(k: Kernel, inode: Inode, ra: FileRa, index: int, request: int, *, marked: bool) -> Window | None:
    """`readahead.ondemand` with what the cache holds around `index`."""
    until = int(next_miss(k.s, inode.root, index + 1, RA_PAGES)) if marked else 0
    history = int(cached_before(k.s, inode.root, index, RA_PAGES))
    return readahead.ondemand(ra, index, request, marked=marked, cached_until=until, cached_from=history)


# ---------------------------------------------------------------- faults


def found_cached(k: Kernel, vma: Vma) -> None:
    """Faults found pages in the cache: each counts against the misses that would end read-around (mmap_miss)."""
    hits, file = int(k.s.vmf["cache_hits"][0]), vma.file
    if hits and file is not None and vma.mm.id in file.ra:
        ra = ra_state(file, vma.mm.id)
        ra.mmap_miss = max(0, ra.mmap_miss - hits)


def fault_miss(k: Kernel, task: Task, vma: Vma, vpn: int) -> None:
    """filemap_fault on a page that is not cached: read it with read-ahead around it; a major fault."""
    inode = vma.file
    assert inode is not None
    index = vpn - vma.start + vma.pgoff
    ra = ra_state(inode, vma.mm.id)
    with gfp.saved(k):
        if vma.flags & VM_SEQ_READ:
            do_window(k, task, inode, window_for(k, inode, ra, index, RA_PAGES, marked=False), index)
        elif not vma.flags & VM_RAND_READ:
            ra.mmap_miss = min(ra.mmap_miss + 1, MMAP_LOTSAMISS * 10)
            if ra.mmap_miss <= MMAP_LOTSAMISS:
                do_window(k, task, inode, readahead.around_fault(ra, index), index)
        if not find(k.s, inode.root, index):
            read_pages(k, task, inode, index, index + 1, needed=index)
    k.s.vm_event[PGMAJFAULT] += 1
    k.s.memcgs["stat"][task.cgroup.memcg.id, MEMCG_PGMAJFAULT] += 1
    retry_major(k, task, vpn)


def fault_readahead(k: Kernel, task: Task, vma: Vma, vpn: int) -> None:
    """A fault reached the marked page: the next window (do_async_mmap_readahead)."""
    inode = vma.file
    assert inode is not None
    index = vpn - vma.start + vma.pgoff
    ra = ra_state(inode, vma.mm.id)
    ra.mmap_miss = max(0, ra.mmap_miss - 1)
    clear_mark(k.s, inode.root, index)
    if not vma.flags & VM_RAND_READ:
        with gfp.saved(k):
            do_window(k, task, inode, window_for(k, inode, ra, index, RA_PAGES, marked=True))
    retry_major(k, task, vpn)


def retry_major(k: Kernel, task: Task, vpn: int) -> None:
    """The fault let go of its locks for the disk and starts again: two entries into the fault path, one major fault.

    Any fault that is tried a second time counts as major for its task, also when it only started the next read-ahead window
    (FAULT_FLAG_TRIED, mm_account_fault); pgmajfault counts true misses only. mlock and populate come back as a new fault, a minor one.
    """
    if not int(k.s.vmf["flags"][0]) & F_POPULATE:
        task.majflt += 1
        task.minflt -= 1  # the loop counts the second try as minor
    k.s.vmf["major"][0] = 1
    k.s.vm_event[PGFAULT] += 1
    k.s.memcgs["stat"][task.cgroup.memcg.id, MEMCG_PGFAULT] += 1
    k.emit(Fault(k.clock.now, task.pid, "file", True, vpn << 12, 1, 1, task.cgroup.path))


# ---------------------------------------------------------------- system calls


def file_read(k: Kernel, task: Task, inode: Inode, offset: int, length: int, ra: FileRa | None = None) -> int:
    """read(2) in requests of 64 KiB, through a fresh file descriptor or one with a read-ahead state: bytes read (0 at the end of the file)."""
    length = max(0, min(length, inode.size - offset))
    if length == 0:
        return 0
    if inode.root == 0:
        make_root(k, inode)
    ra = ra or FileRa()
    at, last = offset >> 12, (offset + length + 4095) >> 12
    while at < last:
        stop = min(last, at + READ_CHUNK)
        read_request(k, task, inode, ra, at, stop)
        memcontrol.resume_user_mode(k, task)
        ra.prev = stop - 1
        at = stop
    k.clock.spend((last - (offset >> 12)) * k.costs.page_cache)
    return length


def read_request(k: Kernel, task: Task, inode: Inode, ra: FileRa, start: int, stop: int) -> None:
    """One request: pages [start, stop) through the cache (filemap_get_pages)."""
    at = start
    while at < stop:
        at += int(use_cached(k.s, inode.root, at, stop))
        if at >= stop:
            return
        marked = bool(clear_mark(k.s, inode.root, at))
        window = window_for(k, inode, ra, at, stop - at, marked=marked)
        do_window(k, task, inode, window, None if marked else at)
        if not find(k.s, inode.root, at):
            read_pages(k, task, inode, at, at + 1, needed=at)


def file_write(k: Kernel, task: Task, inode: Inode, offset: int, length: int) -> int:
    """write(2): pages come into the cache and become dirty; the file grows if need be. Bytes written."""
    if length <= 0:
        return 0
    end = offset + length
    known = inode.nr_file_pages
    for edge in {offset >> 12, (end - 1) >> 12}:  # a page written in part is read first, if it exists
        covered = offset <= edge << 12 and ((edge + 1) << 12) <= max(end, inode.size and end)
        if edge < known and not covered and not (inode.root and find(k.s, inode.root, edge)):
            read_pages(k, task, inode, edge, edge + 1, rewritten=True, needed=edge)
    inode.size = max(inode.size, end)
    start, stop = offset >> 12, (end + 4095) >> 12
    at, piece = start, min(WRITE_PIECE, max(1, task.nr_dirtied_pause - task.nr_dirtied))
    while at < stop:
        upto = min(stop, at + piece)
        read_pages(k, task, inode, at, upto, disk=False, rewritten=True, needed=upto)
        begin(k, task, inode, at, upto)
        dirty_pages(k.s)
        dirtied, done = int(k.s.vmf[0]["dirtied"]), int(k.s.vmf[0]["done"])
        inode.nr_dirty += dirtied
        k.clock.spend(done * k.costs.page_cache)
        memcontrol.resume_user_mode(k, task, memcontrol.MEMCG_CHARGE_BATCH)
        page_writeback.dirtied(k, task, inode, dirtied)
        at += done
        piece = min(WRITE_PIECE, max(1, task.nr_dirtied_pause - task.nr_dirtied)) if done else 1  # memory so short that it does not fit: page by page
    return length


def write_back(k: Kernel, inode: Inode, start: int, end: int, reason: str) -> int:
    """Write the dirty pages [start, end) of a file: how many. Their mappings become clean and read-only."""
    if inode.root == 0:
        return 0
    collect_dirty_mappings(k, inode, start, end)
    written = 0
    at = int(next_dirty(k.s, inode.root, start, end))
    while at >= 0:
        written += int(write_run(k.s, inode.root, at, end))
        at = int(next_dirty(k.s, inode.root, at + 1, end))
    if written:
        inode.nr_dirty -= written
        k.s.vm_event[PGPGOUT] += 4 * written
        psi.io_schedule(k, io_ns(k, written))
        k.emit(Writeback(k.clock.now, inode.path, written, reason))
    return written


@njit
def write_run(s: State, root: int, start: int, end: int) -> int:
    """Write the dirty pages from `start` to the first that is not dirty: how many."""
    n = 0
    while start + n < end and clean_page(s, root, start + n):
        n += 1
    return n


def collect_dirty_mappings(k: Kernel, inode: Inode, start: int, end: int) -> None:
    """page_mkclean for a range: what the entries' D bits remember becomes PG_dirty; entries become read-only."""
    for vma in inode.vmas:
        if vma.flags & VM_SHARED:
            low = max(vma.start, vma.start + start - vma.pgoff)
            high = min(vma.end, vma.start + end - vma.pgoff)
            if low < high:
                pgd = int(k.s.mms["pgd"][vma.mm.id])
                inode.nr_dirty += int(clean_mapping(k.s, pgd, low, high, k.machine.storage.buffers))
                tlb.flush_tlb_mm_range(k, vma.mm, low, high, "writeback write-protected its pages")


@njit
def clean_mapping(s: State, pgd: int, low: int, high: int, block_heads: int) -> int:
    """Clean and write-protect the entries [low, high) of one shared file mapping: pages that became dirty by it."""
    dirtied = 0
    for vpn in range(low, high):
        tid = find_pte_table(s, pgd, vpn)
        pte = s.pt[tid, vpn & 511] if tid else 0
        if not pte & PTE_PRESENT:
            continue
        if wrprotect_file_page(s, pgd, vpn) and pte & PTE_D:
            pfn = pte_pfn(pte)
            dirtied += set_dirty(s, zone_of(s, pfn), pfn, block_heads)
    return dirtied


def flush(k: Kernel, why: str) -> int:
    """Dirty pages of the disk's files are written, all of them: how many."""
    dirty = [inode for inode in k.inodes.values() if inode.root and not inode.shmem and inode.nr_dirty > 0]
    return sum(write_back(k, inode, 0, inode.nr_file_pages, why) for inode in dirty)


def write_some(k: Kernel, inode: Inode, pages: int) -> int:
    """One request of the flusher: the next run of dirty pages of a file, from where it stopped and round to its start. Pages written."""
    end = inode.nr_file_pages
    first = int(next_dirty(k.s, inode.root, min(inode.writeback_index, end), end))
    first = first if first >= 0 else int(next_dirty(k.s, inode.root, 0, end))
    if first < 0:
        return 0
    end = min(end, first + pages)
    collect_dirty_mappings(k, inode, first, end)
    written = int(write_run(k.s, inode.root, first, end))
    inode.writeback_index = first + written
    inode.nr_dirty -= written
    k.s.vm_event[PGPGOUT] += 4 * written
    return written


def fsync(k: Kernel, inode: Inode) -> int:
    """fsync(2): every dirty page of the file is written. Pages written."""
    return 0 if inode.shmem else write_back(k, inode, 0, inode.nr_file_pages, "sync")


def msync_range(k: Kernel, vma: Vma, start: int, end: int) -> None:
    """MS_SYNC on pages [start, end) of a shared file mapping."""
    inode = vma.file
    if inode is None or inode.shmem or not vma.flags & VM_SHARED:
        return
    write_back(k, inode, start - vma.start + vma.pgoff, end - vma.start + vma.pgoff, "sync")


def fadvise_dontneed(k: Kernel, inode: Inode, start: int = 0, end: int = MAX_FILE_PAGES) -> int:
    """POSIX_FADV_DONTNEED: start writing what is dirty, drop what is clean and unmapped. Pages dropped."""
    if inode.root == 0 or inode.shmem:
        return 0
    write_back(k, inode, start, min(end, inode.nr_file_pages), "background")
    return invalidate(k, inode, start, end)


def willneed(k: Kernel, task: Task, inode: Inode, start: int, end: int) -> None:
    """POSIX_FADV_WILLNEED and MADV_WILLNEED: read the range into the cache, in pieces of 2 MiB."""
    if inode.shmem:
        return
    end = min(end, inode.nr_file_pages)
    while start < end:
        stop = min(end, start + 512)
        read_pages(k, task, inode, start, stop)
        memcontrol.resume_user_mode(k, task, memcontrol.MEMCG_CHARGE_BATCH)
        start = stop


def invalidate(k: Kernel, inode: Inode, start: int, end: int) -> int:
    """Drop clean, unmapped pages: how many."""
    dropped = int(invalidate_pages(k.s, inode.root, start, end, k.machine.storage.buffers))
    inode.nr_pages -= dropped
    return dropped


def drop_pagecache(k: Kernel) -> int:
    """echo 1 > /proc/sys/vm/drop_caches: every file's clean, unmapped pages. Pages dropped."""
    return sum(invalidate(k, inode, 0, MAX_FILE_PAGES) for inode in k.inodes.values() if inode.root and not inode.shmem)


def evict_inode(k: Kernel, inode: Inode) -> None:
    """The last link and the last mapping are gone: pages, tree and inode go."""
    if inode.root:
        truncate_pages(k.s, inode.root, 0, k.machine.storage.buffers)
        free_nodes(k.s, inode.root)
        inode.root = 0
        k.rmap = None
    inode.nr_pages = inode.nr_dirty = 0
    k.inodes.pop(inode.id, None)
