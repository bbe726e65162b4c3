"""When dirty pages are written: the background flusher and the limit for writers (mm/page-writeback.c).

*Dirtyable* memory is what is free or page cache, less the reserves. Above 10 % of it dirty (dirty_background_ratio, or
dirty_background_bytes) the flusher writes; above 20 % (dirty_ratio, dirty_bytes) whoever writes is made to wait for it. 512M idle:
107,600 dirtyable pages, flusher above 10,647, limit 21,320.

The flusher writes in chunks, file after file, until the threshold is no longer passed.

And every 5 s (dirty_writeback_centisecs) the flusher wakes and writes the files that have been dirty for more than 30 s
(dirty_expire_centisecs), so that a page is written 30 to 35 s after it became dirty.

Simplified: a file's age is that of its oldest dirty page, to the precision of the flusher's rounds. The flusher writes at once, on the writer's
time, so that the limit is never reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.mman import PAGE_SIZE
from core.mm import mmzone
from core.vmstat import NODE, NR_FILE_DIRTY

if TYPE_CHECKING:
    from core.kernel import Kernel

CENTISEC = 10_000_000  # ns
IDLE_ROUND = 500 * CENTISEC  # with periodic writeback switched off it only looks
WRITEBACK_CHUNK = 2048  # pages that the flusher writes at a time (writeback_chunk_size)
INACTIVE_FILE, ACTIVE_FILE = NODE["nr_inactive_file"], NODE["nr_active_file"]


def dirtyable_memory(k: Kernel) -> int:
    """Pages that may become dirty: free ones beyond the reserves, and file pages (global_dirtyable_memory)."""
    free = int(k.s.zones["free"].sum())
    file = int(k.s.node_stat[:, INACTIVE_FILE].sum() + k.s.node_stat[:, ACTIVE_FILE].sum())
    return free - min(free, mmzone.totalreserve_pages(k)) + file + 1


def dirty_limits(k: Kernel) -> tuple[int, int]:
    """nr_dirty_threshold and nr_dirty_background_threshold in pages (domain_dirty_limits)."""
    dirtyable = dirtyable_memory(k)

    def limit(kind: str) -> int:
        size = int(k.sysctl[f"vm.{kind}_bytes"])
        return -(-size // PAGE_SIZE) if size else int(k.sysctl[f"vm.{kind}_ratio"]) * PAGE_SIZE // 100 * dirtyable // PAGE_SIZE

    threshold, background = limit("dirty"), limit("dirty_background")
    return threshold, background if background < threshold else threshold // 2


def balance_dirty_pages(k: Kernel) -> None:
    """After a write: wake the flusher if too much is dirty."""
    while (dirty := int(k.s.node_stat[:, NR_FILE_DIRTY].sum())) > 256 and dirty > dirty_limits(k)[1]:
        if not k.flush_dirty("background", WRITEBACK_CHUNK):
            return


def flusher(k: Kernel) -> None:
    """The flusher's round (wb_check_old_data_flush): files dirty for too long are written; the next round is armed."""
    interval = int(k.sysctl["vm.dirty_writeback_centisecs"]) * CENTISEC
    expire = int(k.sysctl["vm.dirty_expire_centisecs"]) * CENTISEC
    for inode in k.inodes.values():
        if inode.shmem or inode.nr_dirty <= 0:
            inode.dirtied_when = -1
        elif inode.dirtied_when < 0:
            inode.dirtied_when = k.clock.now
        elif interval and k.clock.now - inode.dirtied_when >= expire:
            k.flush_file(inode, "periodic")
            inode.dirtied_when = -1
    k.clock.at(k.clock.now + (interval or IDLE_ROUND), "flusher")
