"""Translation lookaside buffers: what a processor remembers of page tables, and what it must forget (arch/x86/mm/tlb.c).

**The model.** Each CPU has two levels of TLB and three page-walk caches, with the geometry of `machine.tlb`:

    level 1     64 entries, 4-way, for 4 KiB pages; 32, 4-way, for 2 MiB         no cost
    level 2     1536 entries, 12-way, shared by both sizes                       l2_cycles (7)
    PDE, PDPTE, PML4E caches    32, 4, 4 entries: upper entries of the page table
    walk        each level that no cache could tell is one fetch                 miss_cycles / 4 each (60 for all four)

Sets are chosen by the low bits of the page's number, and the least recently used entry of a set goes. A 1 GiB page is held as its 2 MiB pieces.

**Reach.** 64 entries of 4 KiB cover 256 KiB, 1536 cover 6 MiB. 64 entries of 2 MiB cover 128 MiB. Who uses more than the reach in no order
misses nearly always: 256 MiB of 4 KiB pages, touched at random, miss in 98 of 100 accesses, of 2 MiB pages (128 of them) in none of level 2.

**Forgetting.** An entry is tagged with the ASID (PCID) of its address space: a CPU keeps six, and a switch back to one of those finds its entries
again; without PCID (`pcid` 0) every switch empties the TLB. When the kernel changes a page table it must make the CPUs forget:

    up to 33 pages (tlb_single_page_flush_ceiling)     INVLPG for each, about 100 ns
    more, or the whole address space                   everything of the ASID
    another CPU runs on these tables                   an interrupt to it: a shootdown
    another CPU is idle with them loaded (lazy)        none: it compares generations when it goes on; only freed page tables interrupt it

Each address space counts its changes (`tlb_gen`), each CPU remembers up to which one it followed: if it is behind, it forgets all of that ASID.
Reclaim and ksmd, which change entries by the thousand from within their loops, only move the count on.

**Time.** A call's `elapsed_ns` contains its walks at 3 GHz, its flushes and its shootdowns. The walk of an access that faults is part of the fault's
price; the walk after it counts here. A page that a fault makes writable is walked again: the entry that forbade the write is gone.

Simplified: TLBs of instructions are the data's, the kernel's own accesses need none, no prefetch of translations, a page's walk never misses the
processor's caches. These numbers are of processors, not of Linux: a Skylake-era core's by default.

Source: arch/x86/mm/tlb.c (ASIDs, generations, ceiling); Intel SDM 3A 4.10; facts AR-01, AR-02.
"""

from __future__ import annotations

from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.abi.mman import PAGE_SIZE
from core.arena import arena
from core.direct import Direct
from core.jit import DISABLED
from core.machine import TLB_WAYS
from core.mm.mm_types import PAGE, Array
from core.mm.pgtable import PFN_MASK, PTE_P, PTE_PS, PTE_RW
from core.mm.tlb_walk import (
    CLOCK,
    HITS,
    HUGE_TAG,
    L1,
    L1_HUGE,
    L2,
    MISSES,
    NR_STATE,
    PDE,
    PDPTE,
    PML4E,
    WAYS_BITS,
    access_tlb,
    flush_asid,
    flush_pages,
    renumber,
)

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.machine import Machine
    from core.mm.mm_types import Mm
    from core.sched.task import Task

TLB_NR_DYN_ASIDS = 6
TLB_SINGLE_PAGE_FLUSH_CEILING = 33
CYCLES_PER_US = 3_000
BY_RECLAIM = "reclaim or a kernel thread changed its page tables"
BY_SOMEBODY = "somebody, while it was idle, changed its page tables"
STRUCTURES = ("l1_4k", "l1_2m", "l2", "pde", "pdpte", "pml4e")  # in the order of tlb_walk's rows
COUNTED = ("accesses", "l1_hits", "l2_hits", "misses", "walk_cycles")


class TlbColumns(NamedTuple):
    """Tags and stamps, a row a CPU; `state`: its counters; `geom`: base, sets - 1 and ways of each structure."""

    tags: Array
    stamps: Array
    state: Array
    geom: Array


class CpuTlb:
    """What Linux keeps for a CPU (cpu_tlbstate), and counters.

    loaded: the address space (ctx_id) in CR3, 0 for the kernel's own; ctxs, gens: by ASID, whose it is and up to which change
    it followed. flushed: by ASID, why and when (ns) it last forgot everything. local_all, local_one, ipis_sent, ipis_received: Linux's
    nr_tlb_* (not in vmstat of a kernel without CONFIG_DEBUG_TLBFLUSH).
    """

    __slots__ = ("loaded", "asid", "next_asid", "ctxs", "gens", "flushed", "switches", "switch_flushes", "local_all", "local_one",
                 "ipis_sent", "ipis_received")  # fmt: skip

    def __init__(self) -> None:
        self.loaded = 0
        self.asid = 0
        self.next_asid = 0
        self.ctxs = [0] * TLB_NR_DYN_ASIDS
        self.gens = [0] * TLB_NR_DYN_ASIDS
        self.flushed: list[tuple[str, int] | None] = [None] * TLB_NR_DYN_ASIDS
        self.switches = self.switch_flushes = self.local_all = self.local_one = self.ipis_sent = self.ipis_received = 0


def by_name(counts: tuple[int, ...]) -> dict[str, int]:
    """What accesses found in the TLB, as it is shown."""
    return dict(zip(COUNTED, counts, strict=True))


class Tlb:
    """All CPUs' TLBs.

    running: the CPU that runs a process now, -1: all are idle, lazily keeping the address space of the last one. next_ctx: the last ctx_id given to
    an address space; call: what the call at hand counted (COUNTED), () if it made no access.
    """

    __slots__ = ("cpus", "running", "next_ctx", "call")

    def __init__(self, cpus: int) -> None:
        self.cpus = [CpuTlb() for _ in range(cpus)]
        self.running = -1
        self.next_ctx = 0
        self.call: tuple[int, ...] = ()


def columns(machine: Machine) -> TlbColumns:
    """The empty TLBs of a machine."""
    given = dict(machine.tlb)
    geom = np.zeros((len(STRUCTURES), 3), np.uint64)
    at = 0
    for i, name in enumerate(STRUCTURES):
        entries, ways = given[name], min(given[TLB_WAYS[name]], given[name])
        geom[i] = at, entries // ways - 1, ways
        at += entries
    return TlbColumns(arena((machine.cpus, at), "u8"), arena((machine.cpus, at), "i4"), arena((machine.cpus, NR_STATE), "i8"), geom)


# ---------------------------------------------------------------- accesses


def access(k: Kernel, task: Task, first: int, step: int, perm: Array, permuted: bool, begin: int, end: int, write: bool) -> int:
    """The processor's side of accesses begin .. end, all of them made: the nanoseconds of their walks."""
    mm, cpu, cols = task.mm, task.cpu, k.tlb_columns
    assert mm is not None
    switch_mm(k, cpu, mm)
    args = ((cols.tags, cols.stamps), cols.state, cols.geom, k.s.pt, k.s.mem, cpu, mm.pgd, k.tlb.cpus[cpu].asid, first, step, perm, permuted,
            begin, end, write)  # fmt: skip
    hits, l2_hits, misses, loads = ACCESS.run(*args)
    if hits < 0:
        cols.state[cpu, CLOCK] = renumber(cols.stamps[cpu])
        hits, l2_hits, misses, loads = ACCESS.run(*args)
    walk, l2, _ = k.tlb_costs
    cycles = loads * walk // 4 + l2_hits * l2
    count(k, task, (end - begin, hits, l2_hits, misses, cycles))
    return cycles * 1000 // CYCLES_PER_US


def count(k: Kernel, task: Task, counts: tuple[int, ...]) -> None:
    """What accesses found (COUNTED), for the call at hand and for the task."""
    k.tlb.call = tuple(map(add, k.tlb.call, counts)) if k.tlb.call else counts
    task.tlb = tuple(map(add, task.tlb, counts))


ACCESS, FORGET = Direct(access_tlb), Direct(flush_asid)


def costs(machine: Machine) -> tuple[int, int, bool]:
    """Cycles of a walk from the top, cycles of a level-2 hit, and whether there are PCIDs."""
    given = dict(machine.tlb)
    return given["miss_cycles"], given["l2_cycles"], bool(given["pcid"])


# ---------------------------------------------------------------- context switches


def new_context(k: Kernel, mm: Mm) -> None:
    """A new address space gets a number that no other ever had (init_new_context)."""
    k.tlb.next_ctx += 1
    mm.ctx_id = k.tlb.next_ctx
    k.s.mms["tlb_gen"][mm.id] = 1


def generation(k: Kernel, mm: Mm) -> int:
    """How many changes of its page tables CPUs had to be told of."""
    return int(k.s.mms["tlb_gen"][mm.id])


def switch_mm(k: Kernel, cpu: int, mm: Mm) -> None:
    """A CPU goes on with an address space: it may know it still, or must forget what it knew (switch_mm_irqs_off)."""
    c, gen = k.tlb.cpus[cpu], int(k.s.mms["tlb_gen"][mm.id])
    if c.loaded == mm.ctx_id:
        if c.gens[c.asid] != gen:
            forget(k, cpu, c.asid, gen, BY_RECLAIM if k.tlb.running == cpu else BY_SOMEBODY)
            c.local_all += 1
        k.tlb.running = cpu
        return
    c.switches += 1
    c.asid, why = choose_new_asid(k, c, mm, gen)
    if why:
        c.switch_flushes += 1
        forget(k, cpu, c.asid if k.tlb_costs[2] else -1, gen, why)
    c.ctxs[c.asid], c.gens[c.asid] = mm.ctx_id, gen
    c.loaded, k.tlb.running = mm.ctx_id, cpu


def choose_new_asid(k: Kernel, c: CpuTlb, mm: Mm, gen: int) -> tuple[int, str]:
    """The ASID for an address space, and why its entries must go first, "" if they need not."""
    if not k.tlb_costs[2]:
        return 0, "a switch without PCID"
    for asid, owner in enumerate(c.ctxs):
        if owner == mm.ctx_id:
            return asid, "" if c.gens[asid] >= gen else "its page tables changed while another process ran"
    asid = c.next_asid
    c.next_asid += 1
    if asid >= TLB_NR_DYN_ASIDS:
        asid, c.next_asid = 0, 1
    return asid, "the ASID was another process's"


def forget(k: Kernel, cpu: int, asid: int, gen: int, why: str) -> None:
    """A CPU forgets everything of an ASID (-1: of all)."""
    c = k.tlb.cpus[cpu]
    FORGET.run((k.tlb_columns.tags, k.tlb_columns.stamps), cpu, asid)
    for one in range(TLB_NR_DYN_ASIDS) if asid < 0 else (asid,):
        c.flushed[one] = (why, k.clock.now)
    if asid >= 0:
        c.gens[asid] = gen


def enter_lazy_tlb(k: Kernel) -> None:
    """The CPU goes idle with the address space still loaded."""
    k.tlb.running = -1


# ---------------------------------------------------------------- flushes


def flush_tlb_mm_range(k: Kernel, mm: Mm, start: int, end: int, why: str, freed_tables: bool = False, stride: int = 1) -> None:
    """Entries of pages [start, end) changed, each of `stride` pages: whoever knows them must forget (flush_tlb_mm_range)."""
    gen = generation(k, mm) + 1
    k.s.mms["tlb_gen"][mm.id] = gen
    for cpu, c in enumerate(k.tlb.cpus):
        if c.loaded != mm.ctx_id:
            continue
        if cpu == k.tlb.running:
            k.clock.spend(flush_tlb_func(k, cpu, range(start, end, stride), gen, why))
        elif freed_tables:
            shoot_down(k, cpu)


def flush_tlb_mm(k: Kernel, mm: Mm, why: str) -> None:
    """The whole address space."""
    flush_tlb_mm_range(k, mm, 0, 1 << 36, why)


def shoot_down(k: Kernel, cpu: int) -> None:
    """Interrupt an idle CPU whose lazily kept page tables are about to be freed: it lets go of the address space (flush_tlb_func)."""
    k.tlb.cpus[max(k.tlb.running, 0)].ipis_sent += 1
    k.tlb.cpus[cpu].ipis_received += 1
    k.tlb.cpus[cpu].loaded = 0
    k.clock.spend(k.costs.ipi)


def flush_tlb_func(k: Kernel, cpu: int, pages: range, gen: int, why: str) -> int:
    """One CPU forgets: page by page if they are few and it missed nothing before, else everything of the ASID. Nanoseconds."""
    c = k.tlb.cpus[cpu]
    if c.gens[c.asid] + 1 == gen and len(pages) <= TLB_SINGLE_PAGE_FLUSH_CEILING:
        flush_pages((k.tlb_columns.tags, k.tlb_columns.stamps), k.tlb_columns.geom, cpu, c.asid, pages.start, pages.stop, pages.step)
        c.gens[c.asid] = gen
        c.local_one += len(pages)
        return len(pages) * k.costs.invlpg
    forget(k, cpu, c.asid, gen, why)
    c.local_all += 1
    return k.costs.tlb_flush


# ---------------------------------------------------------------- what it holds


def held(k: Kernel, cpu: int, mm: Mm) -> list[dict[str, Any]]:
    """The entries that a CPU holds for an address space, structure by structure, the latest used first."""
    c, cols = k.tlb.cpus[cpu], k.tlb_columns
    if mm.ctx_id not in c.ctxs:
        return []
    asid = c.ctxs.index(mm.ctx_id)
    tags = cols.tags[cpu]
    mine = np.flatnonzero((tags >> np.uint64(1) & np.uint64(63)) == np.uint64(asid + 1))
    mine = mine[np.argsort(-cols.stamps[cpu][mine].astype(np.int64), kind="stable")]
    return [_entry(k, cpu, int(at)) for at in mine]


def _entry(k: Kernel, cpu: int, at: int) -> dict[str, Any]:
    """One entry by its place."""
    cols = k.tlb_columns
    which = max(i for i in range(len(STRUCTURES)) if int(cols.geom[i, 0]) <= at)
    base, _, ways = (int(x) for x in cols.geom[which])
    tag = int(cols.tags[cpu, at])
    shift = {PDE: 9, PDPTE: 18, PML4E: 27}.get(which, 9 if tag & HUGE_TAG else 0)
    return {
        "structure": STRUCTURES[which],
        "address": (tag >> 8) << shift << 12,
        "size": 4096 << shift,
        "set": (at - base) // ways,
        "way": (at - base) % ways,
        "writable": bool(tag & 1),
        "age": int(cols.state[cpu, CLOCK]) - (int(cols.stamps[cpu, at]) >> WAYS_BITS),
    }


def probe(k: Kernel, cpu: int, mm: Mm, vpn: int, huge: bool) -> dict[str, Any]:
    """What a CPU would find for one page, changing nothing: the level that has it, the fetches of a walk, their cycles."""
    c, cols = k.tlb.cpus[cpu], k.tlb_columns
    known = mm.ctx_id in c.ctxs and c.gens[c.ctxs.index(mm.ctx_id)] == generation(k, mm)
    asid = c.ctxs.index(mm.ctx_id) if known else -1
    level = None
    for name, which in (("l1", L1_HUGE if huge else L1), ("l2", L2)):
        if level is None and known and _find(cols, cpu, which, vpn >> 9 if huge else vpn, asid, HUGE_TAG if huge else 0) >= 0:
            level = name
    loads = 0 if level else walk_loads(cols, cpu, vpn, asid, huge)
    cycles = k.tlb_costs[1] if level == "l2" else loads * k.tlb_costs[0] // 4
    return {"cpu": cpu, "asid": asid if known else None, "held_by": level, "fetches": loads, "cycles": cycles}


def is_huge(k: Kernel, mm: Mm, vpn: int) -> bool:
    """Is a page mapped by a huge entry?"""
    table = int(k.s.mms["pgd"][mm.id])
    for shift in (27, 18, 9):
        entry = int(k.s.pt[table, (vpn >> shift) & 511])
        if entry == 0 or entry & PTE_PS:
            return entry != 0
        table = int(k.s.mem["private"][(entry & PFN_MASK) >> 12])
    return False


def walk_loads(cols: TlbColumns, cpu: int, vpn: int, asid: int, huge: bool) -> int:
    """Entries that a walk would fetch now."""
    levels = ((PDE, 9), (PDPTE, 18), (PML4E, 27))[1 if huge else 0 :]
    for fetched, (which, shift) in enumerate(levels, 1):
        if asid >= 0 and _find(cols, cpu, which, vpn >> shift, asid, 0) >= 0:
            return fetched
    return len(levels) + 1


def _find(cols: TlbColumns, cpu: int, which: int, page: int, asid: int, size: int) -> int:
    """The place of an entry, -1 if it is not there."""
    base, mask, ways = (int(x) for x in cols.geom[which])
    first = base + (page & mask) * ways
    key = page << 8 | size | (asid + 1) << 1 | 1
    return next((at for at in range(first, first + ways) if int(cols.tags[cpu, at]) | 1 == key), -1)


def neighbours(k: Kernel, cpu: int, vpn: int, huge: bool) -> list[dict[str, Any]]:
    """The entries of the level-2 set that a page belongs to, the latest used first: who is in its place."""
    cols = k.tlb_columns
    base, mask, ways = (int(x) for x in cols.geom[L2])
    first = base + ((vpn >> 9 if huge else vpn) & mask) * ways
    return sorted((_entry(k, cpu, at) for at in range(first, first + ways) if cols.tags[cpu, at]), key=lambda entry: entry["age"])


# ---------------------------------------------------------------- reach


def reach(machine: Machine) -> list[dict[str, Any]]:
    """For each structure and page size: how much it covers by its entries, and how much it covers measured.

    Measured: the largest memory, touched page by page again and again, that an empty TLB of this machine serves from that level alone.
    """
    given = dict(machine.tlb)
    rows = []
    for name, level, size, entries in (
        ("level 1, 4 KiB pages", "l1", 4096, given["l1_4k"]), ("level 1, 2 MiB pages", "l1", 2 << 20, given["l1_2m"]),
        ("level 2, 4 KiB pages", "l2", 4096, given["l2"]), ("level 2, 2 MiB pages", "l2", 2 << 20, given["l2"]),
    ):  # fmt: skip
        pages = measure(machine, size, level, entries)
        row = {"what": name, "level": level, "page_bytes": size, "entries": entries}
        rows.append({**row, "reach_bytes": entries * size, "measured_bytes": pages * size})
    return rows


def measure(machine: Machine, size: int, level: str, entries: int) -> int:
    """The most pages that a second and third round over them find in `level` (or above)."""
    low, high = 0, 2 * entries + 2
    while high - low > 1:
        middle = (low + high) // 2
        if served(machine, size, middle, level):
            low = middle
        else:
            high = middle
    return low


def served(machine: Machine, size: int, pages: int, level: str) -> bool:
    """Does `level` serve every access of a round over `pages` pages, once they have been touched?"""
    cols = columns(machine)
    pt, mem = _one_table(size)
    order = np.arange(pages, dtype=np.int64) * (size >> 12)
    rounds = [np.zeros(NR_STATE, np.int64)]
    for _ in range(3):
        access_tlb((cols.tags, cols.stamps), cols.state, cols.geom, pt, mem, 0, 0, 0, 0, 0, order, True, 0, pages, False)
        rounds.append(cols.state[0].copy())
    last = rounds[3] - rounds[2]
    return int(last[HITS]) == pages if level == "l1" else int(last[MISSES]) == 0


def _one_table(size: int) -> tuple[Array, Array]:
    """A page table in which every entry points back to the one table: any address is mapped, by pages of one size."""
    pt, mem = np.zeros((1, 512), np.int64), np.zeros(1, PAGE)
    pt[:] = PTE_P | PTE_RW | (PTE_PS if size > PAGE_SIZE else 0)
    return pt, mem.view(np.recarray) if DISABLED else mem
