"""Counters by their /proc/vmstat names: per zone, per node, per cgroup, and events of the whole machine.

Linux keeps three kinds (mm/vmstat.c): *zone* and *node* counters say how much there is now and go up and
down; *events* say how often something happened and only grow. /proc/vmstat prints zone counters, NUMA
events, node counters, the two dirty thresholds, then the events, in the order of the tuples below.
A cgroup keeps node counters and a few events of its own: `MEMCG_EVENTS`.

Columns are found by position: `NODE["nr_anon_pages"]`; page loops use the upper-case constants, which
are the same positions frozen at compile time. Units: pages, but for nr_kernel_stack (kB).
"""

from __future__ import annotations

ZONE_STATS: tuple[str, ...] = (
    "nr_zone_inactive_anon", "nr_zone_active_anon", "nr_zone_inactive_file", "nr_zone_active_file",
    "nr_zone_unevictable", "nr_zone_write_pending", "nr_mlock", "nr_bounce", "nr_zspages", "nr_free_cma",
)  # fmt: skip
NUMA_STATS: tuple[str, ...] = (
    "numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other",
)  # fmt: skip
NODE_STATS: tuple[str, ...] = (
    "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable",
    "nr_slab_reclaimable", "nr_slab_unreclaimable", "nr_isolated_anon", "nr_isolated_file", "workingset_nodes",
    "workingset_refault_anon", "workingset_refault_file", "workingset_activate_anon", "workingset_activate_file",
    "workingset_restore_anon", "workingset_restore_file", "workingset_nodereclaim", "nr_anon_pages", "nr_mapped",
    "nr_file_pages", "nr_dirty", "nr_writeback", "nr_writeback_temp", "nr_shmem", "nr_shmem_hugepages",
    "nr_shmem_pmdmapped", "nr_file_hugepages", "nr_file_pmdmapped", "nr_anon_transparent_hugepages",
    "nr_vmscan_write", "nr_vmscan_immediate_reclaim", "nr_dirtied", "nr_written", "nr_throttled_written",
    "nr_kernel_misc_reclaimable", "nr_foll_pin_acquired", "nr_foll_pin_released", "nr_kernel_stack",
    "nr_page_table_pages", "nr_sec_page_table_pages", "nr_swapcached", "pgpromote_success", "pgpromote_candidate",
)  # fmt: skip
EVENTS: tuple[str, ...] = (
    "pgpgin", "pgpgout", "pswpin", "pswpout", "pgalloc_dma", "pgalloc_dma32", "pgalloc_normal", "pgalloc_movable",
    "pgalloc_device", "allocstall_dma", "allocstall_dma32", "allocstall_normal", "allocstall_movable",
    "allocstall_device", "pgskip_dma", "pgskip_dma32", "pgskip_normal", "pgskip_movable", "pgskip_device",
    "pgfree", "pgactivate", "pgdeactivate", "pglazyfree", "pgfault", "pgmajfault", "pglazyfreed", "pgrefill",
    "pgreuse", "pgsteal_kswapd", "pgsteal_direct", "pgdemote_kswapd", "pgdemote_direct", "pgscan_kswapd",
    "pgscan_direct", "pgscan_direct_throttle", "pgscan_anon", "pgscan_file", "pgsteal_anon", "pgsteal_file",
    "zone_reclaim_failed", "pginodesteal", "slabs_scanned", "kswapd_inodesteal", "kswapd_low_wmark_hit_quickly",
    "kswapd_high_wmark_hit_quickly", "pageoutrun", "pgrotated", "drop_pagecache", "drop_slab", "oom_kill",
    "numa_pte_updates", "numa_huge_pte_updates", "numa_hint_faults", "numa_hint_faults_local",
    "numa_pages_migrated", "pgmigrate_success", "pgmigrate_fail", "thp_migration_success", "thp_migration_fail",
    "thp_migration_split", "compact_migrate_scanned", "compact_free_scanned", "compact_isolated", "compact_stall",
    "compact_fail", "compact_success", "compact_daemon_wake", "compact_daemon_migrate_scanned",
    "compact_daemon_free_scanned", "htlb_buddy_alloc_success", "htlb_buddy_alloc_fail", "unevictable_pgs_culled",
    "unevictable_pgs_scanned", "unevictable_pgs_rescued", "unevictable_pgs_mlocked", "unevictable_pgs_munlocked",
    "unevictable_pgs_cleared", "unevictable_pgs_stranded", "thp_fault_alloc", "thp_fault_fallback",
    "thp_fault_fallback_charge", "thp_collapse_alloc", "thp_collapse_alloc_failed", "thp_file_alloc",
    "thp_file_fallback", "thp_file_fallback_charge", "thp_file_mapped", "thp_split_page", "thp_split_page_failed",
    "thp_deferred_split_page", "thp_split_pmd", "thp_scan_exceed_none_pte", "thp_scan_exceed_swap_pte",
    "thp_scan_exceed_share_pte", "thp_split_pud", "thp_zero_page_alloc", "thp_zero_page_alloc_failed",
    "thp_swpout", "thp_swpout_fallback", "balloon_inflate", "balloon_deflate", "balloon_migrate", "swap_ra",
    "swap_ra_hit", "ksm_swpin_copy", "cow_ksm", "zswpin", "zswpout", "direct_map_level2_splits",
    "direct_map_level3_splits",
)  # fmt: skip
# What a cgroup counts of its own: node counters (same columns as NODE_STATS), then these.
MEMCG_EXTRA: tuple[str, ...] = (
    "kernel", "kernel_stack", "pagetables", "percpu", "sock", "vmalloc", "zswap", "zswapped",
    "slab_reclaimable_b", "slab_unreclaimable_b",
    "pgscan_kswapd", "pgscan_direct", "pgsteal_kswapd", "pgsteal_direct", "pgfault", "pgmajfault", "pgrefill",
    "pgactivate", "pgdeactivate", "pglazyfree", "pglazyfreed", "zswpin", "zswpout", "thp_fault_alloc",
    "thp_collapse_alloc", "pswpin", "pswpout",
)  # fmt: skip
MEMCG_STATS: tuple[str, ...] = NODE_STATS + MEMCG_EXTRA

ZONE = {name: i for i, name in enumerate(ZONE_STATS)}
NUMA = {name: i for i, name in enumerate(NUMA_STATS)}
NODE = {name: i for i, name in enumerate(NODE_STATS)}
EVENT = {name: i for i, name in enumerate(EVENTS)}
MEMCG = {name: i for i, name in enumerate(MEMCG_STATS)}

# Constants that page loops freeze at compile time.
NR_INACTIVE_ANON = 0  # the five LRU columns are the first five of ZONE_STATS and of NODE_STATS, in lru order
NR_SLAB_RECLAIMABLE = NODE["nr_slab_reclaimable"]
NR_SLAB_UNRECLAIMABLE = NODE["nr_slab_unreclaimable"]
NR_ANON_MAPPED = NODE["nr_anon_pages"]
NR_FILE_MAPPED = NODE["nr_mapped"]
NR_FILE_PAGES = NODE["nr_file_pages"]
NR_FILE_DIRTY = NODE["nr_dirty"]
NR_WRITEBACK = NODE["nr_writeback"]
NR_SHMEM = NODE["nr_shmem"]
NR_SHMEM_THPS = NODE["nr_shmem_hugepages"]
NR_SHMEM_PMDMAPPED = NODE["nr_shmem_pmdmapped"]
NR_DIRTIED = NODE["nr_dirtied"]
NR_WRITTEN = NODE["nr_written"]
NR_PAGETABLE = NODE["nr_page_table_pages"]
NR_KERNEL_STACK_KB = NODE["nr_kernel_stack"]
NR_SWAPCACHE = NODE["nr_swapcached"]

NR_ZONE_WRITE_PENDING = ZONE["nr_zone_write_pending"]
NR_MLOCK = ZONE["nr_mlock"]
NUMA_HIT = NUMA["numa_hit"]
NUMA_MISS = NUMA["numa_miss"]
NUMA_FOREIGN = NUMA["numa_foreign"]
NUMA_INTERLEAVE_HIT = NUMA["numa_interleave"]
NUMA_LOCAL = NUMA["numa_local"]
NUMA_OTHER = NUMA["numa_other"]

PGALLOC_DMA = EVENT["pgalloc_dma"]  # + zone type
PGFREE = EVENT["pgfree"]
PGACTIVATE = EVENT["pgactivate"]
PGDEACTIVATE = EVENT["pgdeactivate"]
PGLAZYFREE = EVENT["pglazyfree"]
PGFAULT = EVENT["pgfault"]
PGMAJFAULT = EVENT["pgmajfault"]
PGREUSE = EVENT["pgreuse"]
COW_KSM = EVENT["cow_ksm"]
KSM_SWPIN_COPY = EVENT["ksm_swpin_copy"]
PGPGIN = EVENT["pgpgin"]
PGPGOUT = EVENT["pgpgout"]
UNEVICTABLE_PGCULLED = EVENT["unevictable_pgs_culled"]
UNEVICTABLE_PGRESCUED = EVENT["unevictable_pgs_rescued"]
UNEVICTABLE_PGMLOCKED = EVENT["unevictable_pgs_mlocked"]
UNEVICTABLE_PGMUNLOCKED = EVENT["unevictable_pgs_munlocked"]
UNEVICTABLE_PGCLEARED = EVENT["unevictable_pgs_cleared"]

MEMCG_KMEM = MEMCG["kernel"]
MEMCG_KERNEL_STACK = MEMCG["kernel_stack"]
MEMCG_PAGETABLES = MEMCG["pagetables"]
MEMCG_SLAB_RECLAIMABLE_B = MEMCG["slab_reclaimable_b"]
MEMCG_SLAB_UNRECLAIMABLE_B = MEMCG["slab_unreclaimable_b"]
MEMCG_PGFAULT = MEMCG["pgfault"]
MEMCG_PGMAJFAULT = MEMCG["pgmajfault"]
MEMCG_PGACTIVATE = MEMCG["pgactivate"]
MEMCG_PGDEACTIVATE = MEMCG["pgdeactivate"]
MEMCG_PGLAZYFREE = MEMCG["pglazyfree"]
