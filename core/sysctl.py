"""The tunables of /proc/sys/vm and the few of /proc/sys/kernel that concern memory: one literal table, with Linux's ranges.

`k.sysctl["vm.swappiness"]` holds the value; `defaults()` is what a fresh kernel starts with, `check` what a machine's own settings must
pass, and `fs.sysctl` makes the files of them. Each row says honestly whether anything acts on it yet.

Source: kernel/sysctl.c:vm_table, Documentation/admin-guide/sysctl/vm.rst (ranges and defaults of 6.1).
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

INT_MAX = (1 << 31) - 1
ULONG_MAX = (1 << 63) - 1


class Sysctl(NamedTuple):
    """One tunable: name ("vm.swappiness"), default, least, greatest, documentation, support, what is missing."""

    name: str
    default: int
    low: int
    high: int
    doc: str
    support: str = "full"
    note: str = ""


POOL = ("vm.nr_hugepages", "vm.nr_hugepages_mempolicy", "vm.nr_overcommit_hugepages")  # the pool's own files (fs.hugepages); here: at boot
LATER = "the value is kept; the mechanism that reads it is not simulated yet"

SYSCTLS: tuple[Sysctl, ...] = (
    Sysctl("vm.admin_reserve_kbytes", 8192, 0, ULONG_MAX, "kB kept for root when overcommit_memory is 2"),
    Sysctl("vm.compaction_proactiveness", 20, 0, 100, "how eagerly kcompactd works in the background"),
    Sysctl("vm.dirty_background_bytes", 0, 1, ULONG_MAX, "dirty bytes at which background writeback starts (0: use the ratio)"),
    Sysctl("vm.dirty_background_ratio", 10, 0, 100, "per cent of dirtyable memory at which background writeback starts"),
    Sysctl("vm.dirty_bytes", 0, 8192, ULONG_MAX, "dirty bytes at which writers are throttled (0: use the ratio)"),
    Sysctl("vm.dirty_expire_centisecs", 3000, 0, INT_MAX, "age at which a dirty file is written"),
    Sysctl("vm.dirty_ratio", 20, 0, 100, "per cent of dirtyable memory at which writers are throttled"),
    Sysctl("vm.dirty_writeback_centisecs", 500, 0, INT_MAX, "how often the flusher wakes; 0 switches periodic writeback off"),
    Sysctl("vm.dirtytime_expire_seconds", 43200, 0, INT_MAX, "age at which a lazily kept time stamp is written", "none", "files have no times"),
    Sysctl("vm.extfrag_threshold", 500, 0, 1000, "fragmentation index above which compaction is preferred to reclaim"),
    Sysctl("vm.hugetlb_shm_group", 0, 0, INT_MAX, "group that may use huge pages in shared memory", "none", "one user: root"),
    Sysctl("vm.laptop_mode", 0, 0, INT_MAX, "gather writes to let a disk sleep", "none", LATER),
    Sysctl("vm.max_map_count", 65530, 0, INT_MAX, "mappings a process may have"),
    Sysctl("vm.min_free_kbytes", 0, 0, INT_MAX, "kB below which only reclaimers may allocate; every watermark follows from it"),
    Sysctl("vm.compact_unevictable_allowed", 1, 0, 1, "compaction may move mlocked pages"),
    Sysctl("vm.min_slab_ratio", 5, 0, 100, "per cent of a node in reclaimable slab from which zone_reclaim_mode acts", "partial",
           "it decides whether a node is looked at; slab itself is not reclaimed"),
    Sysctl("vm.min_unmapped_ratio", 1, 0, 100, "per cent of a node in page cache that zone_reclaim_mode leaves alone"),
    Sysctl("vm.mmap_min_addr", 65536, 0, ULONG_MAX, "lowest address a process may map", "partial", "the value is kept; 65536 applies"),
    Sysctl("vm.nr_hugepages", 0, 0, INT_MAX, "huge pages in the pool"),
    Sysctl("vm.nr_hugepages_mempolicy", 0, 0, INT_MAX, "the same, by the writer's memory policy"),
    Sysctl("vm.nr_overcommit_hugepages", 0, 0, INT_MAX, "surplus huge pages the pool may take"),
    Sysctl("vm.numa_stat", 1, 0, 1, "count numa_hit and its like", "partial", "they are always counted"),
    Sysctl("vm.oom_dump_tasks", 1, 0, 1, "list the tasks in an OOM report"),
    Sysctl("vm.oom_kill_allocating_task", 0, 0, 1, "kill the task that ran out of memory instead of choosing one"),
    Sysctl("vm.overcommit_kbytes", 0, 0, ULONG_MAX, "CommitLimit in kB (0: use the ratio)"),
    Sysctl("vm.overcommit_memory", 0, 0, 2, "0 heuristic, 1 always, 2 never beyond CommitLimit"),
    Sysctl("vm.overcommit_ratio", 50, 0, INT_MAX, "per cent of RAM in CommitLimit"),
    Sysctl("vm.page-cluster", 3, 0, 31, "log2 of the pages a swap-in reads"),
    Sysctl("vm.panic_on_oom", 0, 0, 2, "1 panic at a system-wide OOM, 2 at any"),
    Sysctl("vm.percpu_pagelist_high_fraction", 0, 0, INT_MAX, "share of a zone that per-CPU lists may hold",
           "partial", "the limits in zoneinfo follow; there are no per-CPU lists"),
    Sysctl("vm.stat_interval", 1, 1, INT_MAX, "seconds between foldings of per-CPU counters", "none", "counters are exact"),
    Sysctl("vm.swappiness", 60, 0, 200, "cost of swapping against the cost of dropping file pages"),
    Sysctl("vm.user_reserve_kbytes", 131072, 0, ULONG_MAX, "kB kept for the user when overcommit_memory is 2"),
    Sysctl("vm.vfs_cache_pressure", 100, 0, INT_MAX, "how much to favour dropping inodes over pages", "partial",
           "inodes and dentries are not reclaimed here; it counts for huge pages of shared memory that reach beyond their object's end"),
    Sysctl("vm.watermark_boost_factor", 15000, 0, INT_MAX, "how far a watermark is raised after a fragmenting fallback"),
    Sysctl("vm.watermark_scale_factor", 10, 1, 3000, "distance between watermarks in 1/10000 of the zone"),
    Sysctl("vm.zone_reclaim_mode", 0, 0, 7, "stay on the node: 1 reclaim it before another is asked, 2 dirty pages too, 4 mapped ones too"),
    Sysctl("kernel.numa_balancing", 0, 0, 2, "migrate pages to the node that uses them", "partial",
           "tasks are not grouped (numa_group), and do not change places; 2 behaves as 1; off at boot"),
    Sysctl("kernel.numa_balancing_promote_rate_limit_MBps", 65536, 0, INT_MAX, "promotion of pages from slow memory, MB/s", "none",
           "acts in mode 2 only, and there are no nodes of slow memory"),
    Sysctl("kernel.panic", 0, -INT_MAX, INT_MAX, "seconds until reboot after a panic", "none", "a session whose kernel panicked stays readable"),
    Sysctl("kernel.panic_on_oops", 0, 0, 1, "panic on a kernel bug", "none", "a bug of the simulator freezes the session"),
    Sysctl("kernel.pid_max", 32768, 301, 4194304, "first pid that is not given", "partial", "pids are not reused"),
    Sysctl("kernel.randomize_va_space", 0, 0, 2, "address space randomisation", "none", "addresses are never random here"),
)  # fmt: skip

BY_NAME: dict[str, Sysctl] = {row.name: row for row in SYSCTLS}
LOWMEM_RESERVE_RATIO = "vm.lowmem_reserve_ratio"
DEFAULT_RATIO = "256 256 32 0 0"


def defaults() -> dict[str, int | str]:
    """What `k.sysctl` holds after boot, before the machine's own settings (min_free_kbytes is computed)."""
    return {**{row.name: row.default for row in SYSCTLS}, LOWMEM_RESERVE_RATIO: DEFAULT_RATIO}


def check(name: str, setting: object) -> None:
    """A machine's own setting: ValueError, in plain words, for an unknown name, a wrong kind, or a value out of range."""
    if name == LOWMEM_RESERVE_RATIO:
        words = str(setting).split()
        if len(words) != len(DEFAULT_RATIO.split()) or not all(word.isascii() and word.isdigit() for word in words):
            raise ValueError(f"machine.sysctl.{name} must be five numbers such as {DEFAULT_RATIO!r}, not {setting!r}")
        return
    row = BY_NAME.get(name)
    if row is None:
        near = " or ".join(get_close_matches(name, BY_NAME, 3)) or "one of /proc/sys/vm, such as vm.swappiness"
        raise ValueError(f"machine.sysctl: no such tunable {name!r}; did you mean {near}?")
    if isinstance(setting, bool) or not isinstance(setting, int) or not row.low <= setting <= row.high:
        raise ValueError(f"machine.sysctl.{name} must be an integer from {row.low} to {row.high}, not {setting!r}")
