"""Page faults from the outside: who asked, which mapping, and the decisions a page loop hands back (mm/memory.c).

`touch` is the processor running a program's accesses: it finds the mapping, checks what it permits, and lets the loop
of `fault` run. The loop comes back with a reason, and each reason is a decision that Linux makes in readable words:

    NO_PAGE    no zone above its watermark      gfp: wake kswapd, lower the mark, reclaim, OOM killer
    LIMIT      a cgroup's memory.max            memcontrol.charge: reclaim in that subtree, memcg OOM
    MISS       page not in the page cache       filemap: read it, with read-ahead; a major fault
    READAHEAD  the marked page is reached       filemap: start the next read-ahead window
    SIGBUS     beyond the end of the file       the signal
    OUT_OF_VMA the access is outside            the next mapping, the stack grows, or SIGSEGV

The same loop serves mlock, MAP_POPULATE and MADV_POPULATE (`populate`), which fault pages in without a processor.

Time: every kind of fault has its price in `Costs`; `touch` adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from core import arena
from core.abi.errno import Errno, SysError
from core.abi.mman import (
    PMD_PAGES,
    TASK_VPNS,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
)
from core.abi.page_flags import PG_TAIL
from core.direct import Direct
from core.events import SwapIn
from core.mm import (
    filemap,
    gfp,
    gfp_types,
    huge_fault,
    huge_memory,
    hugetlb_fault,
    memcontrol,
    mempolicy,
    numa_access,
    numa_balancing,
    oom_kill,
    page_writeback,
    rmap,
    shmem_huge,
    thrash,
    tlb,
    told,
    zap,
)
from core.mm import vma as vmas
from core.mm.fault import (
    F_PERM,
    F_POPULATE,
    READ_IN,
    V_ANON,
    V_FILE,
    V_SHMEM,
    access_pages,
    copy_pages,
)
from core.mm.gfp_types import GFP_ANON_PAGE, GFP_FILLED_PAGE, GFP_PGTABLE_USER
from core.mm.huge_memory import HUGE_LIMIT, NO_HUGE, NO_HUGE_ZERO
from core.mm.mm_types import (
    ASKED,
    CTL_BUDDY,
    CTL_DIRTY_POLL,
    CTL_IN_LRU_FAULT,
    CTL_PT_NEXT,
    CTL_RA_ADDR,
    CTL_RA_HITS,
    CTL_VMA_RA,
    EVERYWHERE,
    MAX_ORDER,
    MIGRATE_MOVABLE,
    WMARK_LOW,
    Answer,
    answer,
    noted_runs,
)
from core.mm.mmzone import cpu_to_node
from core.mm.page_ops import (
    ASK_OBJECT,
    BALANCE,
    DONE,
    LIMIT,
    MAPPED_AROUND,
    MISS,
    NEW_PAGES,
    NO_PAGE,
    NO_STORE,
    NUMA_HINT,
    OUT_OF_VMA,
    OVER_HIGH,
    READAHEAD,
    RUNS_FULL,
    SIGBUS,
    SLEPT,
)
from core.mm.pgtable import PTE_A, PTE_NX, PTE_P, PTE_PROTNONE, PTE_RW, PTE_SPECIAL, PTE_US, entry, pmd_entry
from core.mm.swap_readahead import ZRAM, memcg_at_hand, next_refused, read_slot
from core.mm.thrash import FRUITLESS, MAX_TRIES, UNSETTLED, UNWALKED
from core.mm.told import emit_fault
from core.panic import KernelBug, Signal, TaskKilled
from core.sched import psi
from core.vmstat import MEMCG_PGFAULT, NR_FILE_DIRTY, PGFAULT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array, Inode, Mm, State, Vma
    from core.sched.task import Task

READ, WRITE, EXEC = 0, 1, 2
PTRS_PER_PMD = 512
MANY = 1 << 16  # accesses of one call that make host huge pages under mem_map worth their granularity
NO_PERM = np.zeros(1, np.int64)
NO_FILE = (V_ANON, 0, 0, 0, 0, EVERYWHERE)
ACCESS = Direct(access_pages)


@dataclass(slots=True)
class TouchOutcome:
    """How far a run of accesses came: pages touched and faults by kind."""

    touched: int = 0
    faults: int = 0


def page_prot(vm_flags: int) -> int:
    """The PTE bits that a mapping's permissions give (vm_get_page_prot, x86-64): private writable pages are not RW."""
    if not vm_flags & (VM_READ | VM_WRITE | VM_EXEC):
        return PTE_PROTNONE | PTE_A
    prot = PTE_P | PTE_US | PTE_A
    if not vm_flags & VM_EXEC:
        prot |= PTE_NX
    if vm_flags & VM_SHARED and vm_flags & VM_WRITE:
        prot |= PTE_RW
    return prot


def vma_prot(vma: Vma) -> int:
    """vma->vm_page_prot (vma_set_page_prot)."""
    return prot_of(vma.flags, vma_kind(vma))


@cache
def prot_of(vm_flags: int, kind: int) -> int:
    """`page_prot`, but a shared file mapping that must notice writes starts read-only (vma_wants_writenotify)."""
    prot = page_prot(vm_flags)
    if kind == V_FILE and vm_flags & VM_SHARED:
        prot &= ~PTE_RW
    if vm_flags & VM_SHARED and not vm_flags & VM_SOFTDIRTY:  # soft-dirty is being tracked
        prot &= ~PTE_RW
    return prot


def vma_kind(vma: Vma) -> int:
    """Anonymous, file of the disk, or shared memory."""
    if vma.file is None:
        return V_ANON
    return V_SHMEM if vma.file.shmem else V_FILE


def begin(k: Kernel, task: Task | None, vma: Vma, access: int, first: int, step: int, n: int, *, content: int = -1,
          flags: int = 0, other: int = 0, thp: int = 0, done: int = 0) -> None:  # fmt: skip
    """Fill `State.vmf` for one loop over pages of `vma`."""
    s, file, mm, anon_vma, vm_flags = k.s, vma.file, vma.mm, vma.anon_vma, vma.flags
    cpu = task.cpu if task is not None else 0
    kind, file_id, root, file_pages, ino, of_end = of_file(file) if file is not None else NO_FILE
    anon_id, anon_root = (anon_vma.id, anon_vma.root.id) if anon_vma is not None else (0, 0)
    ASKED.pack_into(  # VMF's columns in their order
        s.vmf, 0, mm.id, s.mms["memcg"][mm.id], cpu_to_node(k, cpu), cpu, vma.start, vma.end, vma.pgoff, vm_flags, kind, prot_of(vm_flags, kind),
        anon_id, file_id, root, file_pages, access, first, step, n, content, WMARK_LOW, 0, flags, other, k.machine.storage.buffers, anon_root,
        *mempolicy.in_force(task, vma), ino, thp, 1 << int(k.sysctl["vm.page-cluster"]), k.clock.slice_end >= 0, 0, of_end, done,
    )  # fmt: skip


def of_file(file: Inode) -> tuple[int, int, int, int, int, int]:
    """What a page loop must know of a mapping's file: kind, id, radix tree, length in pages, inode number, how far a policy is known to hold."""
    kind = V_SHMEM if file.shmem else V_FILE
    return kind, file.id, file.root, file.nr_file_pages, file.ino, 0 if file.policies else EVERYWHERE


def permitted(vma: Vma, access: int) -> bool:
    """access_error's rule: a write needs VM_WRITE; a read needs any of the three (x86 cannot deny reading alone)."""
    if access == WRITE:
        return bool(vma.flags & VM_WRITE)
    if access == EXEC:
        return bool(vma.flags & VM_EXEC)
    return bool(vma.flags & (VM_READ | VM_WRITE | VM_EXEC))


def touch(k: Kernel, task: Task, first: int, n: int, step: int, access: int, *, perm: Array | None = None,
          repeat: int = 1, content: int = -1) -> TouchOutcome:  # fmt: skip
    """Make `n` accesses at pages `first + i * step` (or `first + perm[i]`), `repeat` times over; fewer if the task's slice ends.

    Raises Signal on SIGSEGV and SIGBUS, TaskKilled when the OOM killer takes the task.
    """
    outcome = TouchOutcome()
    if n >= MANY:
        expect_many(k.s)
    balancing = numa_balancing.watching(k, task)
    flags = F_PERM if perm is not None else 0
    for _ in range(repeat):
        done = 0
        while done < n:
            vpn = first + (int(perm[done]) if perm is not None else done * step)
            vma = find_for_access(k, task, vpn, access)
            stop = min(n, done + numa_balancing.budget(k, task)) if balancing else n
            began = k.clock.now
            done = run(k, task, vma, access, first, step, stop, perm=perm, flags=flags, done=done, content=content, outcome=outcome)
            if balancing:
                numa_balancing.task_tick_numa(k, task, k.clock.now - began)
            if done < n and k.clock.over():
                outcome.touched += done
                return outcome
        outcome.touched += n
        if k.watch is not None:
            k.watch(outcome.touched)
    return outcome


def expect_many(s: State) -> None:
    """A great many faults are to come: the host is to back what they will fill by huge pages, first of all where frames are handed out next."""
    zones = s.zones[s.zones["free"] >= MANY // 4]
    frames = [block - 1 << MAX_ORDER - 1 for block in zones["head"][:, MIGRATE_MOVABLE, MAX_ORDER - 1].tolist() if block]
    arena.expect(s.mem, *frames)
    arena.expect(s.pt, int(s.ctl[CTL_PT_NEXT]))
    arena.expect(s.buddy, *(int(s.ctl[CTL_BUDDY + order]) + (pfn >> order) for pfn in frames for order in range(MAX_ORDER)))


def find_for_access(k: Kernel, task: Task, vpn: int, access: int) -> Vma:
    """The mapping that serves an access, in the kernel's order: none → stack growth or SIGSEGV; not permitted → SIGSEGV."""
    assert task.mm is not None
    vma = vmas.find_vma(task.mm, vpn) if 0 <= vpn < TASK_VPNS else None
    if vma is None:
        raise bad_area(k, task, vpn, access, "SEGV_MAPERR")
    if vpn < vma.start:
        if not vma.flags & VM_GROWSDOWN:
            raise bad_area(k, task, vpn, access, "SEGV_MAPERR")
        try:
            vmas.expand_stack(k, task, vma, vpn)
        except SysError:
            raise bad_area(k, task, vpn, access, "SEGV_MAPERR") from None
    if not permitted(vma, access):
        raise bad_area(k, task, vpn, access, "SEGV_ACCERR")
    if vma.special:
        raise Signal("SIGBUS", vpn << 12, "BUS_ADRERR")
    return vma


def bad_area(k: Kernel, task: Task, vpn: int, access: int, code: str) -> Signal:
    """The SIGSEGV of a bad access, with its event."""
    emit_fault(k, task, "segv", vpn, 1, None, major=False)
    k.clock.spend(k.costs.fault)
    return Signal("SIGSEGV", vpn << 12, code)


def run(k: Kernel, task: Task, vma: Vma, access: int, first: int, step: int, n: int, *, perm: Array | None, flags: int,
        done: int, content: int, outcome: TouchOutcome) -> int:  # fmt: skip
    """Let the loop go over one mapping, deciding whatever it comes back with; returns how far it came."""
    if k.lru_gen["on"]:
        lru_gen_enter_fault(k, vma)
    order = np.ascontiguousarray(perm, np.int64) if perm is not None else NO_PERM
    if vma.flags & VM_HUGETLB:
        reached = hugetlb_fault.access(k, task, vma, access, first, step, n, perm=order, flags=flags, done=done, content=content, outcome=outcome)
        if not flags & F_POPULATE:
            k.clock.run_user(tlb.access(k, task, first, step, order, perm is not None, done, reached, access == WRITE))
        return reached
    prepare(k, vma, access)
    thp = huge_memory.fault_flags(k, vma)
    begin(k, task, vma, access, first, step, n, content=content, flags=flags, thp=thp, done=done)
    tries, stretch = 0, None
    if by_address := bool(k.swap_devices and k.s.ctl[CTL_VMA_RA]):  # without swap nothing is read ahead
        k.s.ctl[CTL_RA_ADDR : CTL_RA_HITS + 1] = vma.swap_ra
    while True:
        if vma.file is not None:
            k.s.ctl[CTL_DIRTY_POLL] = max(1, task.nr_dirtied_pause - task.nr_dirtied)
        if stretch is not None and thrash.common(k, task, vma):  # many stops are likely, and all alike
            stage, done, tries = stretch.run(order, tries, outcome)
        else:
            ACCESS.run(k.s, order)
            stage, tries = UNSETTLED, 0 if int(k.s.vmf["done"][0]) != done else tries + stuck(k, tries)
        if by_address:
            addr, win, hits = k.s.ctl[CTL_RA_ADDR : CTL_RA_HITS + 1].tolist()
            vma.swap_ra = (addr, win, hits)
        end = answer(k.s)
        if stage == UNSETTLED:
            settle(k, task, vma, end, end.done - done, outcome)
        if stage <= UNWALKED and end.done > done and not flags & F_POPULATE:
            k.clock.run_user(tlb.access(k, task, first, step, order, perm is not None, done, end.done, access == WRITE))
        if k.nr_nodes > 1:
            numa_access.spend(k, task, done, order)
        if thp and not vma.mm.khugepaged and int(k.s.vmf["thp"][0]) & huge_memory.THP_SUITED:
            huge_memory.khugepaged_enter(k, vma)
        done = end.done
        if end.reason in (DONE, OUT_OF_VMA):
            return done
        if stage <= FRUITLESS:
            decide(k, task, vma, end, order, outcome, reclaimed=stage == FRUITLESS)
        if stretch is None and end.reason == NO_PAGE and k.swap_devices and thrash.common(k, task, vma):
            stretch = thrash.Stretch(k, task)
        if k.watch is not None:
            k.watch(outcome.touched + done)
        if k.clock.over():
            if end.reason == SLEPT:
                return done
            k.s.vmf["n"][0] = n = min(n, done + 1)  # the access that was decided on is the last of this slice
        if tries > MAX_TRIES:
            livelocked(k, task, vma, end)
            tries = 0
        if end.reason in (OVER_HIGH, BALANCE) and done >= n:
            return done


def stuck(k: Kernel, tries: int) -> bool:
    """The same access has to be tried again: does that count? Not while its page is read, unless it was evicted again meanwhile."""
    return not k.s.vmf["ra_next"][0] or int(k.s.vmf["major"][0]) > tries


def lru_gen_enter_fault(k: Kernel, vma: Vma) -> None:
    """For the multi-gen LRU: the address space is in use, and pages that a fault brings in count as used, unless the mapping says otherwise.

    `Kernel.call` puts an end to it (lru_gen_exit_fault).
    """
    k.s.mms["used"][vma.mm.id] = -1
    k.s.ctl[CTL_IN_LRU_FAULT] = not vma.flags & (VM_SEQ_READ | VM_RAND_READ)


def livelocked(k: Kernel, task: Task, vma: Vma, end: Answer) -> None:
    """One access was tried again and again: what it needs is reclaimed before it gets all of it. Somebody has to go."""
    with gfp.saved(k):
        limited = k.cgroups.get(end.victim) if end.reason == LIMIT else None
        if limited is not None:
            memcontrol.mem_cgroup_oom(k, task, limited, 0)
        else:
            oom_kill.out_of_memory(k, task, gfp_types.show(asked_for(k, vma, end.vpn)), 0)
    gfp.check_killed(k, task)
    if k.panicked is not None:
        raise TaskKilled


def prepare(k: Kernel, vma: Vma, access: int) -> None:
    """What a fault needs besides frames: an anon_vma for private pages, a root for the page cache."""
    if vma.anon_vma is None and not vma.flags & VM_SHARED and (vma.file is None or access == WRITE):
        rmap.anon_vma_prepare(k, vma)
    if vma.file is not None and vma.file.root == 0:
        filemap.make_root(k, vma.file)


def settle(k: Kernel, task: Task, vma: Vma, end: Answer, accesses: int, outcome: TouchOutcome) -> None:
    """After a stretch of the loop: events of its runs, the task's counters, simulated time."""
    costs, left = k.costs, accesses
    ns, faults, first = 0, 0, end.done - accesses
    for kind, vpn, n, step, at, slot, pages, read_ns, stall in noted_runs(k.s, end.nr_runs):
        if kind != READ_IN:
            faults += n
            ns += n * told.price(k, kind)
            told.faults(k, task, kind, vpn, n, step)
            continue
        if stall:  # everything before it has had its time: the stall begins then
            before = at - first - (accesses - left)
            left -= before
            k.clock.run_user(before * costs.access)
            k.clock.spend(ns)
            ns = 0
            with psi.memstall(k, task, told.REFAULT):
                psi.io_schedule(k, read_ns)
        else:
            psi.io_schedule(k, read_ns)
        told.reads(k, task, slot, vpn, n, pages)
        # get_user_pages comes back to a page that was read as a new fault (filemap.retry_major)
        if not int(k.s.vmf["flags"][0]) & F_POPULATE or k.s.swaps["kind"][told.swap_device(k, slot)] == ZRAM:
            task.majflt += n
            task.minflt -= n  # the loop counts an access as a minor fault when it maps the page
    task.minflt += faults
    outcome.faults += faults
    if vma.file is not None:
        count = k.s.vmf["count"][0]
        ns += int(count[MAPPED_AROUND]) * costs.map_file if end.nr_runs or accesses else 0
        vma.file.nr_pages += int(count[NEW_PAGES])
        if vma.file.shmem and count[NEW_PAGES] >= PMD_PAGES:
            shmem_huge.keep_in_view(k, vma.file)
        filemap.found_cached(k, vma)
        vma.file.nr_dirty += end.dirtied
    k.clock.run_user(left * costs.access)
    k.clock.spend(ns)
    if vma.file is not None and end.dirtied:
        with gfp.saved(k):
            page_writeback.dirtied(k, task, vma.file, end.dirtied)


def decide(k: Kernel, task: Task, vma: Vma, end: Answer, order: Array, outcome: TouchOutcome, *, reclaimed: bool = False) -> None:
    """The decisions that the loop leaves to the kernel; on return the same access is tried again.

    `reclaimed`: the task has reclaimed for itself already, in vain.
    """
    reason, vpn = end.reason, end.vpn
    if k.lru_gen["on"]:
        lru_gen_enter_fault(k, vma)  # it waited, and runs again
    if reason in (NO_PAGE, LIMIT):
        try:
            with held(k, vma, vpn) if vma.file is not None and not end.ra_next else nullcontext():
                if reason != NO_PAGE:
                    charge_slowpath(k, task)
                elif reclaimed:
                    gfp.nothing_reclaimed(k, task, asked_for(k, vma, vpn))
                    gfp.check_alive(k, task)
                else:
                    gfp.slowpath(k, task, asked_for(k, vma, vpn))
        except SysError:
            pagefault_out_of_memory(k, task)
    elif reason == MISS:
        filemap.fault_miss(k, task, vma, vpn)
    elif reason == READAHEAD:
        filemap.fault_readahead(k, task, vma, vpn)
    elif reason == OVER_HIGH:
        with gfp.saved(k):
            memcontrol.handle_over_high(k, task)
        gfp.check_killed(k, task)
    elif reason == SIGBUS:  # it counts in vmstat, not in the task's faults (mm_account_fault)
        k.s.vm_event[PGFAULT] += 1
        k.s.memcgs["stat"][task.cgroup.memcg.id, MEMCG_PGFAULT] += 1
        emit_fault(k, task, "bus", vpn, 1, None, major=False)
        raise Signal("SIGBUS", vpn << 12, "BUS_ADRERR")
    elif reason == ASK_OBJECT:
        mempolicy.ask_object(k, task, vma, end.victim)
    elif reason == NUMA_HINT:
        outcome.faults += numa_balancing.hint_faults(k, task, end, order)
    elif reason in (NO_HUGE, HUGE_LIMIT, NO_HUGE_ZERO):
        huge_fault.decide(k, task, vma, end)
    elif reason not in (RUNS_FULL, BALANCE, SLEPT):  # settle has balanced and slept already
        raise KernelBug(f"a page loop stopped for the unknown reason {reason}")


def asked_for(k: Kernel, vma: Vma, vpn: int) -> int:
    """The gfp flags of the request that a fault failed with, as the report shows them: what the page at hand, or its table, is for."""
    if vma.file is not None:
        return GFP_FILLED_PAGE
    if not pmd_entry(k, vma.mm, vpn):
        return GFP_PGTABLE_USER
    pte = entry(k, vma.mm, vpn)
    return GFP_FILLED_PAGE if pte and not pte & PTE_SPECIAL else GFP_ANON_PAGE


@contextmanager
def held(k: Kernel, vma: Vma, vpn: int) -> Iterator[None]:
    """A fault on a file holds the page that it found (folio_get in filemap_fault).

    Else the search for a frame for the private copy could evict the very page to be copied, read it again, and so on for ever.
    """
    file = vma.file
    pfn = int(filemap.find(k.s, file.root, vpn - vma.start + vma.pgoff)) if file is not None and file.root else 0
    if k.s.mem["flags"][pfn] & PG_TAIL:
        pfn = int(k.s.mem["private"][pfn])
    if pfn:
        k.s.mem["refcount"][pfn] += 1
    try:
        yield
    finally:
        if pfn:
            k.s.mem["refcount"][pfn] -= 1


def swapin_readahead(k: Kernel, task: Task | None, vma: Vma) -> None:
    """A collapse reads the slot that `vmf.victim` names, with its neighbours. For khugepaged (task None) a failure is SysError(ENOMEM)."""
    v = k.s.vmf[0]
    slot, vpn = int(v["victim"]), int(v["vpn"])
    with gfp.saved(k):
        begin(k, task, vma, READ, vpn, 1, 1)
        while not read_slot(k.s, slot, vpn):
            try:
                if int(v["reason"]) == NO_PAGE:
                    gfp.slowpath(k, task)
                else:
                    charge_slowpath(k, task)
            except SysError:
                if task is None:
                    raise
                pagefault_out_of_memory(k, task)
        pages, ns, stall = int(v["read_pages"]), int(v["read_ns"]), bool(v["read_stall"])
    with psi.memstall(k, task, told.REFAULT) if stall else nullcontext():
        psi.io_schedule(k, ns)
    by, cgroup = (task.pid, task.cgroup.path) if task is not None else (None, None)
    k.emit(SwapIn(k.clock.now, pages, told.swap_device(k, slot), slot, pages - 1, cgroup, by, vpn << 12))


def charge_slowpath(k: Kernel, task: Task | None) -> None:
    """A cgroup's limit stood in the way: reclaim there, or OOM; SysError(ENOMEM) when nothing helps."""
    with gfp.saved(k):
        v = k.s.vmf[0]
        cg = k.cgroups[memcg_at_hand(k.s)]
        try:
            memcontrol.charge(k, task, cg, 1, failed=int(v["victim"]))
        except TaskKilled:
            refuse_the_rest(k, task)
            raise
        memcontrol.keep_charge(k.s, int(v["cpu"]), cg.id, 1)
    gfp.check_killed(k, task)


def refuse_the_rest(k: Kernel, task: Task | None) -> None:
    """A task that was killed over a read from swap tries the other pages of the read, too, before it dies: each is refused as the first was.

    Seen in `memory.events`: oom counts them all, oom_kill the one kill.
    """
    while (memcg := next_refused(k.s)) >= 0:
        with suppress(TaskKilled, SysError):
            memcontrol.charge(k, task, k.cgroups[memcg], 1)


def pagefault_out_of_memory(k: Kernel, task: Task) -> None:
    """VM_FAULT_OOM reached the top: warn and let the access be tried again (OOM-18)."""
    task.oom_retries += 1
    k.log(4, "Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF")
    if task.oom_retries > MAX_OOM_RETRIES:
        raise SysError(Errno.ENOMEM, "the fault finds no memory and no task can be killed: a real task would spin here")


MAX_OOM_RETRIES = 3


def populate(k: Kernel, task: Task, start: int, end: int, write: bool | None = None) -> None:
    """Fault pages [start, end) in as get_user_pages does (populate_vma_page_range).

    `write` None: as the mapping is: a write where it is private and writable, else a read. SysError(EFAULT) at a page
    that cannot be had, ENOMEM at a hole.
    """
    assert task.mm is not None
    at = start
    while at < end:
        vma = vmas.find_vma(task.mm, at)
        if vma is None or vma.start > at:
            raise SysError(Errno.ENOMEM, "part of the range is not mapped")
        stop = min(end, vma.end)
        if vma.flags & (VM_IO | VM_PFNMAP) or vma.special:
            raise SysError(Errno.EFAULT, "the mapping has no pages that could be faulted in")
        access = WRITE if (write if write is not None else vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE) else READ
        if not permitted(vma, access):
            raise SysError(Errno.EFAULT if write is not None else Errno.ENOMEM, "the mapping does not permit the access")
        if vma.flags & VM_HUGETLB:
            hugetlb_fault.populate(k, task, vma, at, stop, access == WRITE)
            at = stop
            continue
        try:
            run(k, task, vma, access, at, 1, stop - at, perm=None, flags=F_POPULATE, done=0, content=NO_STORE,
                outcome=TouchOutcome())  # fmt: skip
        except Signal:
            raise SysError(Errno.EFAULT, "a page lies beyond the end of the file") from None
        at = stop


# ---------------------------------------------------------------- whole mappings


def zap_page_range(k: Kernel, vma: Vma, start: int, end: int, gather: list[int] | None = None) -> None:
    """Unmap the pages [start, end) of a mapping; page tables stay.

    The TLBs forget them at once, or, with `gather` (struct mmu_gather), when the caller is done: the ends of what was unmapped are added to it.
    """
    if vma.flags & VM_HUGETLB:
        hugetlb_fault.unmap_hugepage_range(k, vma, start, end)
        if gather is None:
            tlb.flush_tlb_mm_range(k, vma.mm, start, end, "pages were given up", stride=PTRS_PER_PMD)
        else:
            gather += (start, end)
        return
    begin(k, None, vma, READ, start, 1, end)
    zap.zap_pages(k.s, rmap.other_locked(k, vma) if vma.flags & VM_LOCKED else rmap.NOBODY)
    v = k.s.vmf[0]
    if int(v["count"][zap.TABLES]) and k.current is not None and k.current.mm is vma.mm:
        sync_mm_rss(k, vma.mm)  # whoever goes through a page table settles his counts; huge entries have none
    k.clock.spend(int(v["count"][0]) * k.costs.zap_pte)
    if vma.file is not None:
        vma.file.nr_dirty += int(v["dirtied"])
    if int(v["count"][0]):
        _unmapped(k, vma, int(v["count"][zap.LOW]), int(v["count"][zap.HIGH]), gather)


def _unmapped(k: Kernel, vma: Vma, low: int, high: int, gather: list[int] | None) -> None:
    """Pages [low, high) are mapped no more: flush, or remember to."""
    if gather is not None:
        gather += (low, high)
    else:
        tlb.flush_tlb_mm_range(k, vma.mm, low, high, "pages were given up")


def sync_mm_rss(k: Kernel, mm: Mm) -> None:
    """The running task hands in the counts it kept to itself."""
    k.s.mms["lag"][mm.id] = 0
    k.s.mms["events"][mm.id] = 0


def free_pgtables(k: Kernel, mm: Mm, start: int, end: int, floor: int, ceiling: int) -> None:
    """Free the page tables of [start, end) that lie wholly within [floor, ceiling) (pages)."""
    zap.free_tables(k.s, mm.id, start, end, floor, ceiling)


def copy_page_range(k: Kernel, dst: Vma, src: Vma) -> None:
    """fork's copy of one mapping's entries; SysError(ENOMEM) when a page table cannot be had.

    A mapping that never had anonymous pages is not copied: the child faults its file pages in again (vma_needs_copy).
    """
    if src.anon_vma is None:
        return
    if src.flags & VM_HUGETLB:
        hugetlb_fault.copy_hugetlb_page_range(k, dst, src)
        return
    begin(k, k.current, src, WRITE, src.start, 1, src.end, other=dst.mm.id)
    finish(k, src, copy_pages)
    k.clock.spend(int(k.s.vmf[0]["count"][0]) * k.costs.fork_pte)


def finish(k: Kernel, vma: Vma | None, loop: Callable[[State], None], mask: int = GFP_PGTABLE_USER) -> None:
    """Run a loop that needs nothing but page tables, or pages of one kind (`mask`), until it is done."""
    v = k.s.vmf[0]
    while True:
        loop(k.s)
        if int(v["reason"]) == DONE:
            return
        if int(v["reason"]) == NO_PAGE:
            gfp.slowpath(k, k.current, mask)
        else:
            charge_slowpath(k, k.current)


def change_protection(k: Kernel, vma: Vma, start: int, end: int, try_change_writable: bool) -> None:
    """Give the pages [start, end) the protection that `vma.flags` (already new) says."""
    if vma.flags & VM_HUGETLB:
        hugetlb_fault.hugetlb_change_protection(k, vma, start, end)
        tlb.flush_tlb_mm_range(k, vma.mm, start, end, "mprotect", stride=PTRS_PER_PMD)
        return
    begin(k, None, vma, READ, start, 1, end)
    zap.change_prot(k.s, int(try_change_writable))
    count = k.s.vmf[0]["count"]
    k.clock.spend(int(count[0]) * k.costs.protect_pte)
    if int(count[zap.HIGH]):
        tlb.flush_tlb_mm_range(k, vma.mm, int(count[zap.LOW]), int(count[zap.HIGH]), "mprotect")


def move_page_tables(k: Kernel, vma: Vma, old_start: int, new_vma: Vma, new_start: int, pages: int) -> None:
    """mremap: the entries of `pages` pages move to their new address; SysError(ENOMEM) as for fork."""
    if vma.flags & VM_HUGETLB:
        hugetlb_fault.move_hugetlb_page_tables(k, vma, old_start, new_start, pages)
        tlb.flush_tlb_mm_range(k, vma.mm, old_start, old_start + pages, "mremap", stride=PTRS_PER_PMD)
        return
    begin(k, k.current, vma, READ, old_start, 1, old_start + pages, other=new_start)
    finish(k, vma, zap.move_entries)
    moved = int(k.s.vmf[0]["count"][0])
    k.clock.spend(moved * k.costs.fork_pte)
    if moved:
        tlb.flush_tlb_mm_range(k, vma.mm, old_start, old_start + pages, "mremap")


def truncate(k: Kernel, inode: Inode, size: int) -> None:
    """truncate(2): pages beyond the new end are unmapped everywhere and dropped; SysError(EINVAL) for a bad size."""
    if size < 0 or (size + 4095) >> 12 > filemap.MAX_FILE_PAGES:
        raise SysError(Errno.EINVAL, "no file can have that size")
    first = (size + 4095) >> 12
    for vma in list(inode.vmas):
        low = max(vma.start, vma.start + first - vma.pgoff)
        if low < vma.end:
            zap_page_range(k, vma, low, vma.end)
    inode.size = size
    k.rmap = None  # it knows where the file ends
    if inode.root:
        dirty = k.s.node_stat[:, NR_FILE_DIRTY].sum()
        inode.nr_pages -= int(filemap.truncate_pages(k.s, inode.root, first, k.machine.storage.buffers))
        inode.nr_dirty -= int(dirty - k.s.node_stat[:, NR_FILE_DIRTY].sum())
