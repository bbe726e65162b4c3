"""What a request for pages says about itself: the gfp flags (include/linux/gfp_types.h).

Three questions. *Where from*: which zones will do, this node only. *What will become of the pages*: movable (a user's page,
which can change its frame), reclaimable (slab that can be shrunk), else unmovable; it decides which blocks of 2 MiB they
are put into (`page_alloc`). *How hard to try*: may it reclaim and compact itself, wake kswapd, call the OOM killer.

    GFP_HIGHUSER_MOVABLE    a page of user memory: everything is allowed, up to the OOM killer for orders 0..3
    GFP_KERNEL              the kernel's own: the same, unmovable
    GFP_TRANSHUGE_LIGHT     a huge page if one is at hand: neither reclaim nor compaction, kswapd is not woken
    GFP_TRANSHUGE           a huge page worth a stall: direct reclaim and compaction

    GFP_ANON_PAGE           what a fault that zeroes its page asks for; GFP_FILLED_PAGE: one that fills it; GFP_PGTABLE_USER: its page table

The values are those of 6.1, as the kernel log shows them: `gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP)`. In Linux the names
of single bits begin with two underscores.
"""

from __future__ import annotations

from core.mm.mm_types import MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, ZONE_DMA, ZONE_DMA32, ZONE_MOVABLE, ZONE_NORMAL

GFP_DMA = 0x01
GFP_HIGHMEM = 0x02
GFP_DMA32 = 0x04
GFP_MOVABLE = 0x08
GFP_RECLAIMABLE = 0x10
GFP_HIGH = 0x20  # may use half of the min watermark
GFP_IO = 0x40
GFP_FS = 0x80
GFP_ZERO = 0x100
GFP_ATOMIC = 0x200
GFP_DIRECT_RECLAIM = 0x400  # may reclaim and compact itself
GFP_KSWAPD_RECLAIM = 0x800  # wakes kswapd, and through it kcompactd
GFP_NOWARN = 0x2000
GFP_RETRY_MAYFAIL = 0x4000  # tries hard, but does not call the OOM killer
GFP_NORETRY = 0x10000  # one light attempt at compaction and reclaim
GFP_COMP = 0x40000
GFP_NOMEMALLOC = 0x80000
GFP_HARDWALL = 0x100000
GFP_THISNODE = 0x200000  # no fallback to other nodes
GFP_ACCOUNT = 0x400000

GFP_RECLAIM = GFP_DIRECT_RECLAIM | GFP_KSWAPD_RECLAIM
GFP_KERNEL = GFP_RECLAIM | GFP_IO | GFP_FS
GFP_KERNEL_ACCOUNT = GFP_KERNEL | GFP_ACCOUNT
GFP_USER = GFP_KERNEL | GFP_HARDWALL
GFP_HIGHUSER = GFP_USER | GFP_HIGHMEM
GFP_HIGHUSER_MOVABLE = GFP_HIGHUSER | GFP_MOVABLE
GFP_TRANSHUGE_LIGHT = (GFP_HIGHUSER_MOVABLE | GFP_COMP | GFP_NOMEMALLOC | GFP_NOWARN) & ~GFP_RECLAIM
GFP_TRANSHUGE = GFP_TRANSHUGE_LIGHT | GFP_DIRECT_RECLAIM
GFP_ANON_PAGE = GFP_HIGHUSER_MOVABLE | GFP_COMP | GFP_ZERO  # a fault's page of zeros: the first write, and the first after a read
GFP_FILLED_PAGE = GFP_HIGHUSER_MOVABLE | GFP_COMP  # one that is filled from elsewhere: a copy, a page of a file, of swap
GFP_PGTABLE_USER = GFP_KERNEL_ACCOUNT | GFP_ZERO

# as the kernel log writes them: combinations first, then what is left
NAMES: tuple[tuple[str, int], ...] = (
    ("GFP_TRANSHUGE", GFP_TRANSHUGE),
    ("GFP_TRANSHUGE_LIGHT", GFP_TRANSHUGE_LIGHT),
    ("GFP_HIGHUSER_MOVABLE", GFP_HIGHUSER_MOVABLE),
    ("GFP_HIGHUSER", GFP_HIGHUSER),
    ("GFP_USER", GFP_USER),
    ("GFP_KERNEL_ACCOUNT", GFP_KERNEL_ACCOUNT),
    ("GFP_KERNEL", GFP_KERNEL),
    ("__GFP_HIGHMEM", GFP_HIGHMEM),
    ("__GFP_HIGH", GFP_HIGH),
    ("__GFP_ATOMIC", GFP_ATOMIC),
    ("__GFP_IO", GFP_IO),
    ("__GFP_FS", GFP_FS),
    ("__GFP_NOWARN", GFP_NOWARN),
    ("__GFP_RETRY_MAYFAIL", GFP_RETRY_MAYFAIL),
    ("__GFP_NORETRY", GFP_NORETRY),
    ("__GFP_COMP", GFP_COMP),
    ("__GFP_ZERO", GFP_ZERO),
    ("__GFP_NOMEMALLOC", GFP_NOMEMALLOC),
    ("__GFP_HARDWALL", GFP_HARDWALL),
    ("__GFP_THISNODE", GFP_THISNODE),
    ("__GFP_RECLAIMABLE", GFP_RECLAIMABLE),
    ("__GFP_MOVABLE", GFP_MOVABLE),
    ("__GFP_ACCOUNT", GFP_ACCOUNT),
    ("__GFP_RECLAIM", GFP_RECLAIM),
    ("__GFP_DIRECT_RECLAIM", GFP_DIRECT_RECLAIM),
    ("__GFP_KSWAPD_RECLAIM", GFP_KSWAPD_RECLAIM),
)


def show(gfp: int) -> str:
    """The flags as the kernel log writes them."""
    names, left = [], gfp
    for name, bits in NAMES:
        if left & bits == bits:
            names.append(name)
            left &= ~bits
    return "|".join(names) + (f"|{left:#x}" if left else "") or "none"


def parse(text: str) -> int:
    """The flags that `show` wrote."""
    values = dict(NAMES)
    mask = 0
    for name in text.split("|"):
        mask |= values[name]
    return mask


def gfp_migratetype(gfp: int) -> int:
    """Which blocks the pages belong into."""
    if gfp & GFP_MOVABLE:
        return MIGRATE_MOVABLE
    return MIGRATE_RECLAIMABLE if gfp & GFP_RECLAIMABLE else MIGRATE_UNMOVABLE


def gfp_zone(gfp: int) -> int:
    """The highest zone that will do. Only movable pages that may lie in high memory may use ZONE_MOVABLE."""
    if gfp & GFP_DMA:
        return ZONE_DMA
    if gfp & GFP_DMA32:
        return ZONE_DMA32
    return ZONE_MOVABLE if gfp & GFP_MOVABLE and gfp & GFP_HIGHMEM else ZONE_NORMAL
