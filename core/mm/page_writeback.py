"""When dirty pages are written: the flusher, and the limit for writers (mm/page-writeback.c, fs/fs-writeback.c).

*Dirtyable* memory is what is free or page cache, less the reserves. Above 10 % of it dirty (dirty_background_ratio, or
dirty_background_bytes) the flusher writes; 20 % (dirty_ratio, dirty_bytes) is the limit. 512M idle: 107,600 dirtyable pages,
background 10,647, limit 21,320.

A cgroup with memory.max has limits of its own, the same shares of what *it* may still use (its file pages and its room, no more than
the machine has clean), and a flusher of its own: with memory.max 64M background 1,638 pages, limit 3,276. Both limits hold.

                0 ........ background ........ freerun ........ setpoint ........ limit
    writer      free       free                slowed down, the more the nearer to the limit ... stands still
    flusher     sleeps     awake once the machine's background is passed, or freerun

Below `freerun` = (background + limit) / 2 a writer goes on and looks again after 2^(log2(limit - dirty) / 2) pages. Above it it may write
as fast as the disk times `pos_ratio`, which is 2 at freerun, 1 at the setpoint, halfway to the limit, and 0 at the limit:

    1 + ((setpoint - dirty) / (limit - setpoint))^3

and sleeps what it was too fast by, 200 ms at most. So memory.max 64M and a disk of 500 MB/s: the first 2,457 pages go in at the speed of
memory, the rest at the speed of the disk; the sleeps are in `elapsed_ns`.

The flusher is a thread of its own: it works beside the others and costs them nothing. It hands the disk a chunk (2,048 pages), and when
that is written asks whether background is still passed. What the disk has not written yet (`in_flight`) counts as dirty for the limits.

And every 5 s (dirty_writeback_centisecs) it wakes and writes the files that have been dirty for more than 30 s
(dirty_expire_centisecs), so that a page is written 30 to 35 s after it became dirty.

Simplified: a file's age is that of its oldest dirty page, to the precision of the flusher's rounds; a file belongs to the flusher of
the cgroup that dirtied it first, until another has written to it for a second's worth of the disk's time. The disk's speed, which Linux
estimates, is known: dirty_ratelimit is the bandwidth. A page is shown clean as soon as the disk has been handed it, never under
writeback. What reclaim and fsync wait for is written at once, on their time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.abi.mman import PAGE_SIZE
from core.events import BalanceDirty, Writeback
from core.mm import memcontrol, mmzone
from core.mm.mm_types import LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, PAGE_COUNTER_MAX
from core.sched import psi
from core.vmstat import MEMCG, NODE, NR_FILE_DIRTY

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import Inode
    from core.sched.task import Task

SECOND = 1_000_000_000
CENTISEC = SECOND // 100
HZ = memcontrol.HZ
JIFFY = SECOND // HZ
MAX_PAUSE = HZ // 5
POLL_PAGES = 32  # DIRTY_POLL_THRESH; also how many pages a new task may dirty before it looks
EXCEEDED_POLL = 8  # and when the limit is passed
RATELIMIT_SHIFT = 10  # fixed point of pos_ratio
IDLE_ROUND = 500 * CENTISEC  # with periodic writeback switched off the flusher only looks
CHUNK = 2048  # pages that it writes before it asks again (writeback_chunk_size)
INACTIVE_FILE, ACTIVE_FILE = NODE["nr_inactive_file"], NODE["nr_active_file"]
MEMCG_DIRTY = MEMCG["nr_dirty"]


class Domain(NamedTuple):
    """Who shares a limit, the machine or a cgroup (dirty_throttle_control): pages dirtyable, dirty, the same with those that the disk is
    still writing, and the two thresholds."""

    avail: int
    reclaimable: int
    dirty: int
    thresh: int
    background: int

    @property
    def freerun(self) -> int:
        """Below this nobody waits (dirty_freerun_ceiling)."""
        return (self.thresh + self.background) // 2

    @property
    def interval(self) -> int:
        """How many pages may be dirtied before the next look (dirty_poll_interval)."""
        return 1 << ((self.thresh - self.dirty).bit_length() - 1 >> 1) if self.thresh > self.dirty else 1


def dirtyable_memory(k: Kernel) -> int:
    """Pages that may become dirty: free ones beyond the reserves, and file pages (global_dirtyable_memory)."""
    free = int(k.s.zones["free"].sum())
    file = int(k.s.node_stat[:, INACTIVE_FILE].sum() + k.s.node_stat[:, ACTIVE_FILE].sum())
    return free - min(free, mmzone.totalreserve_pages(k)) + file + 1


def dirty_limits(k: Kernel) -> tuple[int, int]:
    """nr_dirty_threshold and nr_dirty_background_threshold in pages (global_dirty_limits)."""
    whole = machine_domain(k)
    return whole.thresh, whole.background


def machine_domain(k: Kernel) -> Domain:
    """The whole machine's."""
    avail = dirtyable_memory(k)
    dirty = int(k.s.node_stat[:, NR_FILE_DIRTY].sum())
    return Domain(avail, dirty, dirty + in_flight(k), *domain_dirty_limits(k, avail, None))


def memcg_domain(k: Kernel, cg: Cgroup, whole: Domain) -> Domain:
    """A cgroup's, with all below it (mem_cgroup_wb_stats, mdtc_calc_avail)."""
    rows = [at.id for at in memcontrol.subtree(k, cg, dying=True)]
    dirty = int(k.s.memcgs["stat"][rows, MEMCG_DIRTY].sum())
    trees = k.s.lruvecs["tree"][cg.id * k.nr_nodes : (cg.id + 1) * k.nr_nodes]
    files = int(trees[:, LRU_INACTIVE_FILE].sum() + trees[:, LRU_ACTIVE_FILE].sum())
    room = PAGE_COUNTER_MAX
    for at in cg.ancestors[:-1]:
        row = k.s.memcgs[at.id]
        room = min(room, max(0, min(int(row["max"]), int(row["high"])) - int(row["usage"])))
    clean, clean_all = max(0, files - dirty), max(0, whole.avail - whole.dirty)
    avail = files + min(room, max(0, clean_all - clean))
    pending = sum(in_flight(k, row) for row in rows) if k.flushers else 0
    return Domain(avail, dirty, dirty + pending, *domain_dirty_limits(k, avail, whole.avail))


def domain_dirty_limits(k: Kernel, avail: int, machine: int | None) -> tuple[int, int]:
    """Threshold and background threshold of `avail` dirtyable pages; for a cgroup bytes become a share of the `machine`'s pages."""

    def limit(kind: str) -> int:
        size, ratio = int(k.sysctl[f"vm.{kind}_bytes"]), int(k.sysctl[f"vm.{kind}_ratio"]) * PAGE_SIZE // 100
        if size and machine is None:
            return -(-size // PAGE_SIZE)
        if size and machine is not None:
            ratio = min(-(-size // machine), PAGE_SIZE)
        return ratio * avail // PAGE_SIZE

    thresh, background = limit("dirty"), limit("dirty_background")
    return thresh, background if background < thresh else thresh // 2


def domains(k: Kernel, cg: Cgroup) -> list[Domain]:
    """What limits a writer in `cg`: the machine, then the cgroup unless it is the root."""
    whole = machine_domain(k)
    return [whole] if cg.parent is None else [whole, memcg_domain(k, cg, whole)]


# ---------------------------------------------------------------- writers


def dirtied(k: Kernel, task: Task, inode: Inode, pages: int) -> None:
    """A task has dirtied pages of a file: every so many of them it looks (balance_dirty_pages_ratelimited).

    The first who dirties a file makes it his cgroup's flusher's (inode_attach_wb).
    """
    if inode.wb not in k.cgroups:
        inode.wb = task.cgroup.memcg.id
    task.nr_dirtied += pages
    if task.nr_dirtied >= task.nr_dirtied_pause:
        balance_dirty_pages(k, task)


def balance_dirty_pages(k: Kernel, task: Task) -> None:
    """Wake the flusher if too much is dirty, and wait if it does not keep up."""
    cg = task.cgroup.memcg
    while True:
        run_flushers(k)
        limits = domains(k, cg)
        if limits[0].reclaimable > limits[0].background:
            start_flusher(k, cg.id)
        now = k.clock.now // JIFFY
        if all(domain.dirty <= domain.freerun for domain in limits):
            task.dirty_paused_when, task.nr_dirtied = now, 0
            task.nr_dirtied_pause = min(domain.interval for domain in limits)
            return
        start_flusher(k, cg.id)
        if throttle(k, task, min(limits, key=lambda domain: pos_ratio(k, domain)), now) or not in_flight(k):
            return


def throttle(k: Kernel, task: Task, domain: Domain, now: int) -> bool:
    """One sleep of a writer that is too fast, in whole jiffies; False if it must look again after it."""
    bandwidth = write_bandwidth(k)
    allowed = bandwidth * pos_ratio(k, domain) >> RATELIMIT_SHIFT  # pages a second
    longest = max_pause(domain.dirty, bandwidth)
    shortest, task_pause = min_pause(longest, allowed, bandwidth)
    period = pause = longest
    if allowed:
        period = HZ * task.nr_dirtied // allowed
        pause = period - (now - task.dirty_paused_when if task.dirty_paused_when else 0)
        if pause < shortest:  # it was slow enough, or too little too fast: remembered for the next time
            if pause < -HZ:
                task.dirty_paused_when, task.nr_dirtied = now, 0
            elif period:
                task.dirty_paused_when, task.nr_dirtied = task.dirty_paused_when + period, 0
            elif task.nr_dirtied_pause <= task.nr_dirtied:
                task.nr_dirtied_pause += task.nr_dirtied
            return True
        if pause > longest:
            now, pause = now + min(pause - longest, longest), longest
    k.emit(BalanceDirty(k.clock.now, task.pid, domain.dirty, domain.thresh, domain.background, allowed, pause * JIFFY, task.cgroup.path))
    psi.io_schedule(k, pause * JIFFY)
    task.dirty_paused_when, task.nr_dirtied = now + pause, 0
    task.nr_dirtied_pause = max(1, task_pause)
    if domain.dirty > domain.thresh:
        task.nr_dirtied_pause = min(task.nr_dirtied_pause, EXCEEDED_POLL)
    return allowed > 0


def write_bandwidth(k: Kernel) -> int:
    """Pages a second that the disk takes."""
    return max(1, k.machine.storage.bandwidth // PAGE_SIZE)


def pos_ratio(k: Kernel, domain: Domain) -> int:
    """What share of the disk's speed a writer may have, in 1/1024: 2 at freerun, 1 at the setpoint, 0 at the limit (wb_position_ratio)."""
    limit, dirty = domain.thresh, domain.dirty
    if dirty >= limit:
        return 0
    setpoint = (domain.freerun + limit) // 2
    ratio = polynomial(setpoint, dirty, limit)
    span = 8 * write_bandwidth(k)
    if dirty < setpoint + span - span // 4:
        ratio = ratio * (setpoint + span - dirty) // (span | 1)
    else:
        ratio //= 4
    reserve = limit // 2
    if dirty < reserve:
        ratio = ratio * reserve // dirty if dirty > reserve // 8 else ratio * 8
    return ratio


def polynomial(setpoint: int, dirty: int, limit: int) -> int:
    """1 + ((setpoint - dirty) / (limit - setpoint))^3 in 1/1024, from 0 to 2 (pos_ratio_polynom)."""
    x = int(((setpoint - dirty) << RATELIMIT_SHIFT) / ((limit - setpoint) | 1))
    cube = (x * x >> RATELIMIT_SHIFT) * x >> RATELIMIT_SHIFT
    return max(0, min(cube + (1 << RATELIMIT_SHIFT), 2 << RATELIMIT_SHIFT))


def max_pause(dirty: int, bandwidth: int) -> int:
    """The longest sleep, in jiffies: not so long that the disk could run dry (wb_max_pause)."""
    return min(dirty // (1 + bandwidth // 32) + 1, MAX_PAUSE)


def min_pause(longest: int, allowed: int, bandwidth: int) -> tuple[int, int]:
    """The shortest sleep worth it, in jiffies, and how many pages to dirty before the next (wb_min_pause)."""
    aim = min(max(1, HZ // 100), 1 + longest // 2)
    pages = bandwidth * aim // 256
    if pages < POLL_PAGES:
        aim, pages = longest, bandwidth * longest // 256
        if pages > POLL_PAGES:
            aim, pages = HZ * POLL_PAGES // bandwidth, POLL_PAGES
    if HZ * pages // (allowed + 1) > longest:
        aim, pages = longest, allowed * longest // 256
    return (1 + aim // 2 if pages >= POLL_PAGES else aim), pages


# ---------------------------------------------------------------- the flusher


def start_flusher(k: Kernel, wb: int) -> None:
    """Wake the flusher of a cgroup (0: the machine's) unless it is at work (wb_start_background_writeback)."""
    if wb not in k.flushers:
        hand_chunk(k, wb, k.clock.now + k.machine.storage.latency_ns)


def run_flushers(k: Kernel) -> None:
    """A flusher whose chunk is written by now takes the next one, if background is still passed, else it sleeps (wb_writeback)."""
    for wb in list(k.flushers):
        while wb in k.flushers and k.flushers[wb][0] <= k.clock.now:
            done, _ = k.flushers.pop(wb)
            if over_background(k, wb) and dirty_inode(k, wb) is not None:
                hand_chunk(k, wb, done)


def next_chunk(k: Kernel) -> int:
    """When the first flusher at work has written its chunk; far in the future if none is at work."""
    return min((done for done, _ in k.flushers.values()), default=1 << 62)


def flusher_finish(k: Kernel) -> None:
    """The call is over: a flusher that is at work goes on until background is no longer passed; the disk is busy until then."""
    for wb in list(k.flushers):
        while over_background(k, wb) and hand_chunk(k, wb, k.flushers[wb][0]):
            pass


def hand_chunk(k: Kernel, wb: int, since: int) -> bool:
    """Give the disk, idle since then, a chunk of a flusher's dirty pages; False if there are none.

    If the files belong to other flushers, theirs writes all they have (mem_cgroup_flush_foreign); a file that is written for another
    cgroup for a second's worth of the disk's time becomes that one's (wbc_detach_inode).
    """
    storage, now = k.machine.storage, k.clock.now
    inode = dirty_inode(k, wb)
    foreign = inode is None
    inode = inode or dirty_inode(k, None)
    pages = k.write_some(inode, inode.nr_dirty if foreign else CHUNK) if inode is not None else 0
    if inode is None or not pages:
        return False
    if foreign:
        inode.foreign += pages
        if inode.foreign * PAGE_SIZE >= storage.bandwidth:
            inode.wb, inode.foreign = wb, 0
    begin = max(since, max((done for done, _ in k.flushers.values()), default=0))
    k.flushers[wb] = (begin + pages * PAGE_SIZE * SECOND // storage.bandwidth, pages + in_flight(k, wb))
    k.emit(Writeback(now, inode.path, pages, "background"))
    return True


def disk_read(k: Kernel, pages: int) -> None:
    """Somebody reads from the disk: what the flushers have it write is done that much later."""
    for wb, (done, waiting) in k.flushers.items():
        k.flushers[wb] = (done + pages * PAGE_SIZE * SECOND // k.machine.storage.bandwidth, waiting)


def dirty_inode(k: Kernel, wb: int | None) -> Inode | None:
    """The first file with dirty pages that belongs to a flusher (None: to any)."""
    for inode in k.inodes.values():
        if inode.root and not inode.shmem and inode.nr_dirty > 0 and wb in (None, inode.wb):
            return inode
    return None


def in_flight(k: Kernel, wb: int | None = None) -> int:
    """Pages that the disk has not written yet, of one flusher or of all: for the limits they are still dirty."""
    bandwidth, now = k.machine.storage.bandwidth, k.clock.now
    waiting = [(done, pages) for owner, (done, pages) in k.flushers.items() if wb in (None, owner) and done > now]
    return sum(min(pages, -(-(done - now) * bandwidth // (PAGE_SIZE * SECOND))) for done, pages in waiting)


def over_background(k: Kernel, wb: int) -> bool:
    """Is there still too much dirty for a flusher to stop (wb_over_bg_thresh)?"""
    cg = k.cgroups.get(wb, k.root_cgroup)
    return any(domain.reclaimable > domain.background for domain in domains(k, cg))


def flusher(k: Kernel) -> None:
    """The flusher's round (wb_check_old_data_flush): files dirty for too long are written; the next round is armed."""
    interval = int(k.sysctl["vm.dirty_writeback_centisecs"]) * CENTISEC
    expire = int(k.sysctl["vm.dirty_expire_centisecs"]) * CENTISEC
    now = k.clock.now
    for inode in k.inodes.values():
        if inode.shmem or inode.nr_dirty <= 0:
            inode.dirtied_when = -1
        elif inode.dirtied_when < 0:
            inode.dirtied_when = now
        elif interval and now - inode.dirtied_when >= expire:
            k.flush_file(inode, "periodic")
            inode.dirtied_when = -1
    k.clock.now = now  # its own time, not that of whoever runs
    k.clock.at(now + (interval or IDLE_ROUND), "flusher")
