"""Page flags of `mem_map` (our bits) and the bits that /proc/kpageflags shows (the ABI's)."""

from __future__ import annotations

# struct page flags, one bit each in mem_map.flags (0 = an ordinary allocated or free page)
PG_LOCKED = 1 << 0
PG_REFERENCED = 1 << 1
PG_UPTODATE = 1 << 2
PG_DIRTY = 1 << 3
PG_LRU = 1 << 4
PG_ACTIVE = 1 << 5
PG_WORKINGSET = 1 << 6
PG_SLAB = 1 << 7
PG_WRITEBACK = 1 << 8
PG_RECLAIM = 1 << 9
PG_SWAPBACKED = 1 << 10
PG_UNEVICTABLE = 1 << 11
PG_MLOCKED = 1 << 12
PG_ANON = 1 << 13  # mapping names an anon_vma (PAGE_MAPPING_ANON in Linux)
PG_ANON_EXCLUSIVE = 1 << 14
PG_SWAPCACHE = 1 << 15
PG_HEAD = 1 << 16
PG_TAIL = 1 << 17
PG_TABLE = 1 << 18  # a page-table frame; `private` is its row in the table pool
PG_KSM = 1 << 19
PG_READAHEAD = 1 << 20
PG_ZERO = 1 << 21  # the shared zero page
PG_RESERVED = 1 << 22  # the kernel's own, taken at boot
PG_PRIVATE = 1 << 23  # carries buffer heads
PG_SHMEM = 1 << 24  # page cache of shmem (tmpfs): counted in Shmem, lives on the anon lists
PG_STACK = 1 << 25  # kernel stack
PG_HUGETLB = 1 << 26
PG_ZSMALLOC = 1 << 27  # part of a zspage: compressed pages of a zram device

# /proc/kpageflags bit -> our bit, where they correspond one to one
KPAGEFLAGS: dict[int, int] = {
    0: PG_LOCKED,
    2: PG_REFERENCED,
    3: PG_UPTODATE,
    4: PG_DIRTY,
    5: PG_LRU,
    6: PG_ACTIVE,
    7: PG_SLAB,
    8: PG_WRITEBACK,
    9: PG_RECLAIM,
    12: PG_ANON,
    13: PG_SWAPCACHE,
    14: PG_SWAPBACKED,
    15: PG_HEAD,
    16: PG_TAIL,
    17: PG_HUGETLB,
    18: PG_UNEVICTABLE,
    21: PG_KSM,
    24: PG_ZERO,
    26: PG_TABLE,
}
KPF_BUDDY = 10
KPF_MMAP = 11
KPF_NOPAGE = 20
KPF_THP = 22
