"""What a fault does when a huge page is not at hand: try harder, or go on with 4 KiB pages (mm/huge_memory.c, mm/page_alloc.c).

The page loop stops with one of three reasons, and `decide` answers it by `defrag`, as `huge_memory.fault_flags` put it into vmf.thp:

    NO_HUGE         no block of order 9 free on the task's node      THP_DIRECT: compact and reclaim, a stall; THP_KSWAPD: wake kswapd
    HUGE_LIMIT      512 pages more would pass a memory.max           THP_DIRECT: reclaim there; else fall back at once
    NO_HUGE_ZERO    the huge zero page does not exist (any more)     make it

If that does not help the fault falls back: thp_fault_fallback counts, an event says why, and this fault (vmf.no_thp) takes a small page.

A fault that may try hard shows it: its elapsed_ns contains the compaction and the reclaim, some hundred times a plain huge fault.

Shared memory (`shmem_huge`) comes by the same way; its charge may always reclaim, and its counters are thp_file_fallback*.

Source: mm/huge_memory.c:do_huge_pmd_anonymous_page, vma_thp_gfp_mask; mm/memcontrol.c:try_charge_memcg; facts TH-05, TH-06, CG-10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.abi.errno import SysError
from core.abi.mman import PMD_PAGES, VM_HUGEPAGE
from core.events import Thp
from core.mm import gfp, memcontrol, mempolicy
from core.mm.gfp_types import GFP_MOVABLE, GFP_NORETRY, GFP_THISNODE, GFP_TRANSHUGE, GFP_ZERO
from core.mm.huge_memory import HUGE_LIMIT, NO_HUGE_ZERO, THP_DIRECT, THP_FILE, THP_KSWAPD, THP_ZERO_PAGE_ALLOC_FAILED, make_huge_zero
from core.mm.mm_types import HPAGE_PMD_NR, HPAGE_PMD_ORDER
from core.mm.page_counter import uncharge_pages
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Answer, Vma
    from core.sched.task import Task

THP_FAULT_FALLBACK, THP_FAULT_FALLBACK_CHARGE = EVENT["thp_fault_fallback"], EVENT["thp_fault_fallback_charge"]
THP_FILE_FALLBACK, THP_FILE_FALLBACK_CHARGE = EVENT["thp_file_fallback"], EVENT["thp_file_fallback_charge"]


def decide(k: Kernel, task: Task, vma: Vma, end: Answer) -> None:
    """One of the three reasons: on return the access is tried again, with what was found or without a huge page."""
    if end.reason == NO_HUGE_ZERO:
        _huge_zero_page(k, task, end.vpn)
    elif end.reason == HUGE_LIMIT:
        _charge(k, task, vma, end)
    else:
        _allocate(k, task, vma, end.vpn)


def shared(k: Kernel) -> bool:
    """Is it a fault on shared memory?"""
    return bool(int(k.s.vmf["thp"][0]) & THP_FILE)


def _fall_back(k: Kernel, task: Task, vpn: int, why: str) -> None:
    """A small page will do (VM_FAULT_FALLBACK)."""
    first = vpn & -PMD_PAGES
    k.s.vmf["no_thp"][0] = first
    k.s.vm_event[THP_FILE_FALLBACK if shared(k) else THP_FAULT_FALLBACK] += 1
    k.emit(Thp(k.clock.now, "fallback", PMD_PAGES, task.pid, first << 12, why, task.cgroup.path))


def _huge_zero_page(k: Kernel, task: Task, vpn: int) -> None:
    """Make the huge zero page (get_huge_zero_page)."""
    head = gfp.alloc_pages(k, task, HPAGE_PMD_ORDER, (GFP_TRANSHUGE | GFP_ZERO) & ~GFP_MOVABLE)
    if head:
        make_huge_zero(k.s, head)
        return
    k.s.vm_event[THP_ZERO_PAGE_ALLOC_FAILED] += 1
    _fall_back(k, task, vpn, "no free block of 2 MiB for the huge zero page")


def _allocate(k: Kernel, task: Task, vma: Vma, vpn: int) -> None:
    """No block of order 9 on the free lists: by `defrag`, compact and reclaim for one, or leave it."""
    v = k.s.vmf[0]
    flags = int(v["thp"])
    if gfp.injected(k):
        _fall_back(k, task, vpn, "this allocation was told to fail")
        return
    if gfp.steal(k):
        return  # there is a block of another migrate type: now it is ours
    if flags & THP_KSWAPD:
        with gfp.saved(k):
            gfp.wake_kswapd(k, int(v["node"]), 0 if flags & THP_DIRECT else HPAGE_PMD_ORDER)
    if not flags & THP_DIRECT:
        _fall_back(k, task, vpn, f"no free block of 2 MiB, and defrag is {k.thp['defrag']}: a fault here does not wait for one")
        return
    hard = GFP_TRANSHUGE if vma.flags & VM_HUGEPAGE else GFP_TRANSHUGE | GFP_NORETRY
    node, nodes = mempolicy.place(k, vpn, huge=True)
    head = 0
    if not nodes or nodes >> node & 1:  # near first, with little effort: a remote huge page is slower than near small ones
        head = gfp.alloc_pages(k, task, HPAGE_PMD_ORDER, hard | GFP_THISNODE | GFP_NORETRY, node=node)
    if not head:
        head = gfp.alloc_pages(k, task, HPAGE_PMD_ORDER, hard, node=node, nodes=nodes)
    if head:
        v["ready"] = head
    else:
        _fall_back(k, task, vpn, "no free block of 2 MiB, not even after compaction and reclaim")


def _charge(k: Kernel, task: Task, vma: Vma, end: Answer) -> None:
    """512 pages do not fit below a limit: reclaim there if the fault may wait, else fall back at once."""
    cg = k.cgroups[int(k.s.vmf["memcg"][0])]
    limited = k.cgroups[end.victim]
    if int(k.s.vmf["thp"][0]) & (THP_DIRECT | THP_FILE):
        noretry = not shared(k) and not vma.flags & VM_HUGEPAGE
        with gfp.saved(k):
            try:
                memcontrol.charge(k, task, cg, HPAGE_PMD_NR, order=HPAGE_PMD_ORDER, failed=end.victim, noretry=noretry)
                uncharge_pages(k.s, cg.id, HPAGE_PMD_NR)  # the loop charges it again, at once
                return
            except SysError:
                pass
        gfp.check_killed(k, task)
    k.s.vm_event[THP_FILE_FALLBACK_CHARGE if shared(k) else THP_FAULT_FALLBACK_CHARGE] += 1
    _fall_back(k, task, end.vpn, f"512 pages more would pass memory.max of {limited.path}")
