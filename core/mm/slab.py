"""Slab by the byte: kernel objects that a cgroup pays for, and the frames they take (mm/slab.h, mm/memcontrol.c).

Radix nodes of a page cache, buffer heads, VMAs and task structures are a few hundred bytes each. The machine keeps count of
the bytes in use and takes a frame whenever they pass the next 4 KiB; a cgroup's account (`kmem_bytes`) is kept by
the byte as well and rounded up to pages in its usage. 2,048 dirty pages on a disk with 1 KiB blocks: 2,048 x 4 buffer
heads of 104 bytes = 832 KiB, 208 frames.

Source: mm/memcontrol.c:obj_cgroup_charge, fs/buffer.c.
"""

from __future__ import annotations

from core.abi.page_flags import PG_SLAB
from core.jit import njit, step
from core.mm.mm_types import (
    CTL_SLAB_BYTES,
    CTL_SLAB_LIST,
    CTL_SLAB_PAGES,
    CTL_SLABU_BYTES,
    CTL_SLABU_LIST,
    CTL_SLABU_PAGES,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    State,
)
from core.mm.page_alloc import clear_page_row, free_one_page, get_page_from_freelist, zone_of
from core.mm.page_counter import page_counter_charge
from core.vmstat import (
    MEMCG_KERNEL_STACK,
    MEMCG_KMEM,
    MEMCG_SLAB_RECLAIMABLE_B,
    MEMCG_SLAB_UNRECLAIMABLE_B,
    NR_KERNEL_STACK_KB,
    NR_SLAB_RECLAIMABLE,
    NR_SLAB_UNRECLAIMABLE,
)


@step
def slab_frames(s, bytes_at, pages_at, list_at, item, nbytes, mt):
    """The machine's side of slab: `nbytes` more (or fewer) in use, frames taken or given back as needed.

    Frames come without regard to watermarks (a slab allocation is a part of something already let through); when none is free
    the objects share what frames there are, and the debt is made good by the next call.
    """
    s.ctl[bytes_at] += nbytes
    wanted = (s.ctl[bytes_at] + 4095) >> 12
    node = s.vmf[0].node
    while s.ctl[pages_at] < wanted:
        pfn = get_page_from_freelist(s, node, 0, -1, 2, 0, node, mt)
        if pfn == 0:
            return
        page = s.mem[pfn]
        page.refcount = 1
        page["flags"] = PG_SLAB
        page.next = s.ctl[list_at]
        s.ctl[list_at] = pfn
        s.ctl[pages_at] += 1
        s.node_stat[s.zones[zone_of(s, pfn)].node, item] += 1
    while s.ctl[pages_at] > wanted:
        pfn = s.ctl[list_at]
        zid = zone_of(s, pfn)
        s.ctl[list_at] = s.mem[pfn].next
        s.mem[pfn].next = 0
        s.node_stat[s.zones[zid].node, item] -= 1
        clear_page_row(s, pfn)
        free_one_page(s, zid, pfn, 0)
        s.ctl[pages_at] -= 1


@step
def charge_slab(s, memcg, nbytes, reclaimable):
    """Slab objects of `nbytes` made (or, negative, freed) on a cgroup's account.

    `kmem_bytes` is what its objects take; its usage and `kernel` grow by that, rounded up to pages. Never fails: the next
    charge of a page feels the excess.
    """
    if reclaimable:
        slab_frames(s, CTL_SLAB_BYTES, CTL_SLAB_PAGES, CTL_SLAB_LIST, NR_SLAB_RECLAIMABLE, nbytes, MIGRATE_RECLAIMABLE)
        s.memcgs[memcg].stat[MEMCG_SLAB_RECLAIMABLE_B] += nbytes
    else:
        slab_frames(s, CTL_SLABU_BYTES, CTL_SLABU_PAGES, CTL_SLABU_LIST, NR_SLAB_UNRECLAIMABLE, nbytes, MIGRATE_UNMOVABLE)
        s.memcgs[memcg].stat[MEMCG_SLAB_UNRECLAIMABLE_B] += nbytes
    row = s.memcgs[memcg]
    before = (row.kmem_bytes + 4095) >> 12
    row.kmem_bytes += nbytes
    pages = ((row.kmem_bytes + 4095) >> 12) - before
    if pages:
        row.stat[MEMCG_KMEM] += pages
        page_counter_charge(s, memcg, pages)


@njit
def account_slab(s: State, memcg: int, nbytes: int) -> None:
    """charge_slab of reclaimable objects: radix nodes, inodes, dentries."""
    charge_slab(s, memcg, nbytes, 1)


@njit
def account_slab_unreclaimable(s: State, memcg: int, nbytes: int) -> None:
    """charge_slab of objects that nobody can take back: VMAs, anon_vmas, task structs."""
    charge_slab(s, memcg, nbytes, 0)


@njit
def account_kernel_stack(s: State, memcg: int, node: int, pages: int) -> None:
    """A kernel stack of `pages` made (or, negative, freed): `kernel`, `kernel_stack`; its charge is the caller's."""
    s.node_stat[node, NR_KERNEL_STACK_KB] += 4 * pages
    s.memcgs[memcg].stat[MEMCG_KERNEL_STACK] += 4 * pages
    s.memcgs[memcg].stat[MEMCG_KMEM] += pages
