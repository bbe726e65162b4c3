"""/proc/sys/vm and /proc/sys/kernel: the table of `core.sysctl` as files.

A write outside the range is EINVAL; what else a write does stands in `ACTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from core.fs.node import Row, bad, parse_int, show
from core.mm import compaction, filemap, gfp, mmzone
from core.sysctl import BY_NAME, DEFAULT_RATIO, INT_MAX, LOWMEM_RESERVE_RATIO, POOL, SYSCTLS
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel


MIN_PERCPU_PAGELIST_HIGH_FRACTION = 8


def get(k: Kernel, name: str) -> int:
    """The current value of one tunable."""
    return int(k.sysctl.get(name, BY_NAME[name].default))


def read(name: str, k: Kernel) -> str:
    """One number and a newline."""
    return show(get(k, name))


def write(name: str, k: Kernel, text: str) -> None:
    """Range-check, keep, and do what the file does."""
    row = BY_NAME[name]
    k.sysctl[name] = parse_int(text, row.low, row.high, name)
    if act := ACTIONS.get(name):
        act(k)


def _exclusive(other: str, k: Kernel) -> None:
    """Of dirty_bytes and dirty_ratio only one counts: writing one clears the other."""
    k.sysctl[other] = 0


def _watermarks(k: Kernel) -> None:
    """New marks. If they lie above what is free, the next small allocation of whoever wrote here wakes kswapd, long before a program wants memory."""
    mmzone.setup_per_zone_wmarks(k, get(k, "vm.min_free_kbytes"))
    gfp.wake_below_low(k)


def _kcompactd(k: Kernel) -> None:
    """A new compaction_proactiveness wakes kcompactd at once."""
    for node in range(k.nr_nodes):
        compaction.kcompactd(k, node)


def _high_fraction(k: Kernel) -> None:
    """0 is off, 8 the least: an eighth of a zone."""
    if 0 < get(k, "vm.percpu_pagelist_high_fraction") < MIN_PERCPU_PAGELIST_HIGH_FRACTION:
        k.sysctl["vm.percpu_pagelist_high_fraction"] = 0
        raise bad("vm.percpu_pagelist_high_fraction is 0 or at least 8")
    mmzone.setup_pageset_high(k)


ACTIONS: dict[str, Callable[[Kernel], None]] = {
    "vm.compaction_proactiveness": _kcompactd,
    "vm.min_free_kbytes": _watermarks,
    "vm.min_slab_ratio": mmzone.setup_zone_reclaim,
    "vm.min_unmapped_ratio": mmzone.setup_zone_reclaim,
    "vm.percpu_pagelist_high_fraction": _high_fraction,
    "vm.watermark_boost_factor": mmzone.setup_boost,
    "vm.watermark_scale_factor": _watermarks,
    "vm.zone_reclaim_mode": mmzone.setup_zone_reclaim,
    "vm.dirty_bytes": partial(_exclusive, "vm.dirty_ratio"),
    "vm.dirty_ratio": partial(_exclusive, "vm.dirty_bytes"),
    "vm.dirty_background_bytes": partial(_exclusive, "vm.dirty_background_ratio"),
    "vm.dirty_background_ratio": partial(_exclusive, "vm.dirty_background_bytes"),
    "vm.overcommit_kbytes": partial(_exclusive, "vm.overcommit_ratio"),
    "vm.overcommit_ratio": partial(_exclusive, "vm.overcommit_kbytes"),
}


def lowmem_reserve_ratio(k: Kernel) -> str:
    """Five numbers: DMA DMA32 Normal Movable Device."""
    numbers = str(k.sysctl.get(LOWMEM_RESERVE_RATIO, DEFAULT_RATIO)).split()
    return "\t".join(numbers) + "\n"


def write_lowmem_reserve_ratio(k: Kernel, text: str) -> None:
    """Up to five non-negative numbers; below 1 is no reserve (setup_per_zone_lowmem_reserve)."""
    given = [str(parse_int(word, 0, INT_MAX, LOWMEM_RESERVE_RATIO)) for word in text.split()]
    now = str(k.sysctl.get(LOWMEM_RESERVE_RATIO, DEFAULT_RATIO)).split()
    if not 1 <= len(given) <= len(now):
        raise bad(f"{LOWMEM_RESERVE_RATIO} takes one to five numbers, such as {DEFAULT_RATIO}")
    ratios = given + now[len(given):]
    k.sysctl[LOWMEM_RESERVE_RATIO] = " ".join(ratios)
    mmzone.setup_per_zone_lowmem_reserve(k, tuple(int(ratio) for ratio in ratios))


def drop_caches(k: Kernel, text: str) -> None:
    """1 drops clean page cache, 2 slab, 3 both (fs/drop_caches.c); it counts in vmstat."""
    kind = parse_int(text, 1, 4, "vm.drop_caches")
    if kind & 1:
        filemap.drop_pagecache(k)
        k.s.vm_event[EVENT["drop_pagecache"]] += 1
    if kind & 2:
        k.s.vm_event[EVENT["drop_slab"]] += 1


def compact_memory(k: Kernel, text: str) -> None:
    """Whatever is written compacts every node."""
    compaction.compact_nodes(k)


def _path(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/", 1)


def rows() -> tuple[Row, ...]:
    """The table above as rows of the file tree, and the three files that are no plain number."""
    plain = tuple(Row(_path(row.name), 0o644, row.doc, partial(read, row.name), partial(write, row.name), row.support, row.note)
                  for row in SYSCTLS if row.name not in POOL)
    return (
        *plain,
        Row(_path(LOWMEM_RESERVE_RATIO), 0o644, "share of a zone that lower zones keep from its users",
            lowmem_reserve_ratio, write_lowmem_reserve_ratio),
        Row("/proc/sys/vm/drop_caches", 0o200, "1 page cache, 2 slab, 3 both", None, drop_caches,
            "partial", "slab objects are not simulated one by one: 2 only counts"),
        Row("/proc/sys/vm/compact_memory", 0o200, "compact every node", None, compact_memory),
    )  # fmt: skip
