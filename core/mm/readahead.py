"""Read-ahead: how many pages to bring in, and when to bring in the next (mm/readahead.c).

A sequential reader gets a window that grows to 128 KiB (32 pages) and a *mark* on one of its pages; reaching the mark
starts the next window while the rest of this one is still unread, so that the reader never waits.

    |<----------------- size ---------------->|
    start                  ^ mark  |<- async ->|

Worked example, reads of 64 KiB (16 pages) from the start of a file: the first window is 32 pages with the mark at page
16; reaching page 16 starts pages 32..63 with the mark at 32, and so on: windows of 32. Reads of 4 KiB begin with 4
pages and grow 4, 8, 16, 32. A read at a random place that continues nothing reads just what was asked.

Source: mm/readahead.c:ondemand_readahead, get_init_ra_size, get_next_ra_size; facts PF-10..13.
"""

from __future__ import annotations

from dataclasses import dataclass

RA_PAGES = 32  # read_ahead_kb 128


@dataclass(slots=True)
class FileRa:
    """struct file_ra_state of an open file; pages. `prev`: the last page read, -1 if none."""

    start: int = 0
    size: int = 0
    async_size: int = 0
    mmap_miss: int = 0
    prev: int = -1


@dataclass(frozen=True, slots=True)
class Window:
    """Pages [start, start + size) to read; the page at size - async_size carries the mark (async_size 0: none)."""

    start: int
    size: int
    async_size: int


def init_size(request: int, limit: int = RA_PAGES) -> int:
    """The first window for a request of so many pages."""
    size = 1 << max(request - 1, 0).bit_length()
    if size <= limit // 32:
        return size * 4
    if size <= limit // 4:
        return size * 2
    return limit


def next_size(size: int, limit: int = RA_PAGES) -> int:
    """The window after one of `size` pages."""
    if size < limit // 16:
        return 4 * size
    if size <= limit // 2:
        return 2 * size
    return limit


def ondemand(ra: FileRa, index: int, request: int, *, marked: bool, cached_until: int, cached_from: int) -> Window | None:
    """The window for a read of `request` pages at `index`: missed in the cache, or (`marked`) at a mark.

    `cached_until`: the first page after `index` that is not cached. `cached_from`: how many pages right before `index`
    are cached (the history of a reader we have not followed).
    """
    expected = ra.start + ra.size - ra.async_size
    if index == 0:
        _initial(ra, index, request)
    elif ra.size and index in (expected, ra.start + ra.size):
        ra.start += ra.size
        ra.size = next_size(ra.size)
        ra.async_size = ra.size
    elif marked:
        if cached_until - index > RA_PAGES:
            return None
        ra.start = cached_until
        ra.size = next_size(cached_until - index + request)
        ra.async_size = ra.size
    elif request > RA_PAGES or 0 <= index - ra.prev <= 1:
        _initial(ra, index, request)
    elif cached_from > request:
        size = cached_from * 2 if cached_from >= index else cached_from
        ra.start, ra.size, ra.async_size = index, min(size + request, RA_PAGES), 1
    else:
        return Window(index, request, 0)
    if index == ra.start and ra.size == ra.async_size:
        more = next_size(ra.size)
        if ra.size + more <= RA_PAGES:
            ra.async_size, ra.size = more, ra.size + more
        else:
            ra.size, ra.async_size = RA_PAGES, RA_PAGES >> 1
    return Window(ra.start, ra.size, ra.async_size)


def _initial(ra: FileRa, index: int, request: int) -> None:
    ra.start = index
    ra.size = init_size(request)
    ra.async_size = ra.size - request if ra.size > request else ra.size


def around_fault(ra: FileRa, index: int) -> Window:
    """The window of a fault on a page that is not cached: half before it, half after (do_sync_mmap_readahead)."""
    ra.start = max(0, index - RA_PAGES // 2)
    ra.size, ra.async_size = RA_PAGES, RA_PAGES // 4
    return Window(ra.start, ra.size, ra.async_size)
