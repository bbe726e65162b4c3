"""Touches of one page each, many as one: of a program's accesses most find what they want, or want no more than a frame.

A call costs the same few dozen steps of bookkeeping whatever it does: the task comes onto its processor and leaves it, its time is accounted, daemons
are looked after. Of a touch of one page they are nearly all. Where many such touches follow each other, `touch_each` makes them in one step, and the
bookkeeping is done once (`Kernel.run_of_touches`). Sixteen touches of mapped pages: 260 µs one by one, 25 as a run.

It leaves the state, the events and the answers that the same calls leave one by one, down to the byte (a property test compares the digests). So
each touch of a run is a call of its own in all that can be seen: it pays for entering the kernel, has its own time, its own walk of the page
table, its own event; per-CPU lists settle after each. What a run leaves out is what cannot be seen: that the processor went idle in between for
no time at all.

A touch is *plain*, and may be in a run, where nobody has to decide anything:

    the entry allows it               the processor sets A, and D on a store
    a first read, a table is there    the zero page                                 (do_anonymous_page)
    a first write, a table is there   a frame, if `anon_batch` can have it: above the watermark, of a charge that is paid already

The first touch that is not plain ends the run before it, and goes the ordinary way (`memory.touch`); so does one at whose end a timer could fall
due. A machine on which more can happen between two calls (programs run, memory is short, there are several nodes) makes no runs
(`is_settled`). Neither do mappings of files, of huge pages' pools, and those without an anon_vma, which is made at the first fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.abi.mman import VM_EXEC, VM_HUGETLB, VM_READ, VM_WRITE
from core.direct import Direct
from core.jit import inline, njit
from core.mm import huge_memory, memory, tlb, told
from core.mm.anon_batch import do_anonymous_pages, may_batch
from core.mm.fault import ANON, HIT, ZERO, end_run, huge_hits
from core.mm.memory import EXEC, NO_PERM, WRITE
from core.mm.mm_types import CTL_OVER_HIGH, CTL_POLICY, CTL_RA_ADDR, CTL_RA_HITS, CTL_STEAL, CTL_VMA_RA, CTL_ZERO_PFN, LRU, State
from core.mm.page_ops import DONE, check_sync_rss_stat, stored
from core.mm.pcp import settle_zones
from core.mm.pgtable import PFN_MASK, PTE_A, PTE_D, PTE_P, PTE_PS, PTE_RW, PTE_SPECIAL, find_table, table_of
from core.mm.tlb import CYCLES_PER_US
from core.mm.tlb_walk import CLOCK, MAX_CLOCK, access_tlb
from core.mm.vma import vma_lookup

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Vma
    from core.sched.task import Task

NOT_PLAIN = -1
NUMBERED = -2  # what the first store of a program that numbers its stores writes (`fault.access_pages`)


@dataclass(slots=True)
class Touched:
    """Touches that were made in one step, a column each: the kind of its fault (`fault`; 0: none), its time, the part of it that the program's own
    access took, the clock after it, and what it found in the TLB (`tlb.COUNTED`; each is one access)."""

    fault: list[int]
    elapsed_ns: list[int]
    user_ns: list[int]
    clock_ns: list[int]
    l1_hits: list[int]
    l2_hits: list[int]
    misses: list[int]
    walk_cycles: list[int]

    def __len__(self) -> int:
        return len(self.fault)

    def tlb(self, at: int) -> tuple[int, ...]:
        """What touch number `at` found in the TLB (`tlb.COUNTED`)."""
        return 1, self.l1_hits[at], self.l2_hits[at], self.misses[at], self.walk_cycles[at]

    def tlb_in_all(self) -> tuple[int, ...]:
        """What all of them found."""
        return len(self), sum(self.l1_hits), sum(self.l2_hits), sum(self.misses), sum(self.walk_cycles)


def is_settled(k: Kernel, task: Task) -> bool:
    """Can nothing but the task itself do anything between two of its calls?"""
    now, ctl = k.clock.now, k.s.ctl
    if k.nr_programs or k.nr_nodes > 1 or k.flushers or k.psi.watched or k.lru_gen["on"] or k.watch is not None or k.nr_ordered < k.nr_events:
        return False
    if task.returning or task.fatal_signal or task.dying or task.mm is None or ctl[CTL_OVER_HIGH] or ctl[CTL_STEAL] or ctl[CTL_POLICY] == LRU:
        return False
    if k.kswapd[0]["awake"] or k.kcompactd[0]["max_order"]:
        return False
    return all(change[0] <= now for change in k.psi.changes)


def is_ordinary(vma: Vma) -> bool:
    """Private anonymous memory in small pages, or in huge ones that came by themselves, that was used before."""
    return vma.file is None and vma.anon_vma is not None and not vma.special and not vma.flags & VM_HUGETLB


def make(k: Kernel, task: Task, touches: Sequence[tuple[int, int, int]], due: int) -> Touched | None:
    """Make the first of these touches (page, access, content) of a settled machine, as many as are plain and over before the time `due` (ns).

    The clock stays: what each touch took is in the answer. None: not even the first is such.
    """
    assert task.mm is not None
    vpn, access, content = touches[0]
    vma = vma_lookup(task.mm, vpn)
    if vma is None or not is_ordinary(vma) or not memory.permitted(vma, access):
        return None
    s, cpu, cols, costs = k.s, task.cpu, k.tlb_columns, k.costs
    tlb.switch_mm(k, cpu, vma.mm)
    memory.begin(k, task, vma, access, vpn, 1, 1, content=content, thp=huge_memory.fault_flags(k, vma))
    if k.swap_devices and s.ctl[CTL_VMA_RA]:
        s.ctl[CTL_RA_ADDR : CTL_RA_HITS + 1] = vma.swap_ra
    first_write, first_read, (walk, l2, _) = told.price(k, ANON), told.price(k, ZERO), k.tlb_costs
    most = costs.syscall + costs.access + max(first_write, first_read) + (walk + l2) * 1000 // tlb.CYCLES_PER_US
    made = np.empty((len(Touched.__slots__), len(touches)), np.int64)
    nr = TOUCH_EACH.run(
        s, (cols.tags, cols.stamps), cols.state, cols.geom, k.pcp.rows, vma.mm.pgd, k.tlb.cpus[cpu].asid, NO_PERM, np.array(touches, np.int64), made,
        k.clock.now, due - most, costs.syscall, costs.access, first_write, first_read, walk, l2,
    )  # fmt: skip
    return Touched(*made[:, :nr].tolist()) if nr else None


@inline
def allows(vm_flags: int, access: int) -> bool:
    """`memory.permitted`."""
    if access == WRITE:
        return vm_flags & VM_WRITE != 0
    return vm_flags & (VM_EXEC if access == EXEC else VM_READ | VM_WRITE | VM_EXEC) != 0


@njit
def touch_each(s: State, entries, state, geom, pcp, pgd: int, asid: int, perm, touches, made, now: int, until: int, syscall: int, access_ns: int,
               write_ns: int, read_ns: int, walk: int, l2: int) -> int:  # fmt: skip
    """Make touches (page, access, content) in the mapping of `vmf`, until one is not plain or the clock shows `until`: how many; columns of `made`.

    syscall, access_ns, write_ns, read_ns: what a call, an access, a first write and a first read cost, in ns; walk, l2: cycles of a walk from the
    top, and of a hit of level 2.
    """
    v, nr = s.vmf[0], 0
    cpu, tried = v["cpu"], 0
    if state[cpu, CLOCK] + len(touches) > MAX_CLOCK:
        return 0
    batches = may_batch(s, v)
    while nr < len(touches) and now < until:
        vpn, access, content = touches[nr, 0], touches[nr, 1], touches[nr, 2]
        if vpn < v["vm_start"] or vpn >= v["vm_end"] or not allows(v["vm_flags"], access):
            break
        v["first"], v["content"], v["tried"] = vpn, content, 0
        kind = touch_one(s, v, pgd, perm, vpn, access == WRITE, content if content >= 0 else NUMBERED, batches)
        if kind == NOT_PLAIN:
            break
        tried = v["tried"]
        hits, l2_hits, misses, loads = access_tlb(entries, state, geom, s.pt, s.mem, cpu, pgd, asid, vpn, 1, perm, False, 0, 1, access == WRITE)
        settle_zones(s.zones, pcp, cpu)
        cycles = loads * walk // 4 + l2_hits * l2
        user = access_ns + cycles * 1000 // CYCLES_PER_US
        ns = syscall + user + (write_ns if kind == ANON else read_ns if kind == ZERO else 0)
        now += ns
        made[0, nr], made[1, nr], made[2, nr], made[3, nr] = kind, ns, user, now
        made[4, nr], made[5, nr], made[6, nr], made[7, nr] = hits, l2_hits, misses, cycles
        nr += 1
    if nr:  # what the page loop of the last call would have left
        kind = made[0, nr - 1]
        v["first"], v["access"], v["content"] = touches[nr - 1, 0], touches[nr - 1, 1], touches[nr - 1, 2]
        v["done"], v["reason"], v["vpn"], v["tried"], v["nr_runs"] = 1, DONE, 0, tried, 1 if kind != HIT else 0
        for one in range(len(v["count"])):
            v["count"][one] = 1 if one == kind and kind != HIT else 0
    return nr


@inline
def touch_one(s: State, v, pgd: int, perm, vpn: int, write: bool, content: int, batches: bool) -> int:
    """One access, as `fault.access_pages` makes it where it is plain: HIT, ANON or ZERO; else NOT_PLAIN, and nothing has changed."""
    pmd = find_table(s, pgd, vpn, 2)
    entry = s.pt[pmd, (vpn >> 9) & 511] if pmd else 0
    if entry & PTE_PS:
        if not entry & PTE_P or (write and not entry & PTE_RW):
            return NOT_PLAIN
        huge_hits(s, v, pmd, entry, vpn, 0, 0, write, content, 0)
        return HIT
    tid = table_of(s, entry) if entry else 0
    if tid == 0:
        return NOT_PLAIN
    pte = s.pt[tid, vpn & 511]
    if pte & PTE_P and (not write or pte & PTE_RW):
        s.pt[tid, vpn & 511] = pte | PTE_A | (PTE_D if write else 0)
        if write:
            page = s.mem[(pte & PFN_MASK) >> 12]
            page["content"] = stored(page["content"], content)
        return HIT
    if pte:
        return NOT_PLAIN
    v["nr_runs"] = 0
    if write:
        if not batches or do_anonymous_pages(s, v, perm, 0, False) == 0:
            return NOT_PLAIN
        end_run(s, v, ANON, vpn, 1, 1)
        return ANON
    check_sync_rss_stat(s, v["mm"])
    s.pt[tid, vpn & 511] = (s.ctl[CTL_ZERO_PFN] << 12) | v["prot"] | PTE_SPECIAL
    end_run(s, v, ZERO, vpn, 1, 1)
    return ZERO


TOUCH_EACH = Direct(touch_each)
