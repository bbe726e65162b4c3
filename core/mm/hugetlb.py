"""Pools of huge pages that are set aside: counters, promises, and who may have one (mm/hugetlb.c).

The model. An administrator sets pages of 2 MiB or 1 GiB aside (`nr_hugepages`): they leave the buddy allocator and MemFree at once, used or not,
and nobody but MAP_HUGETLB and hugetlbfs can have them. A mapping does not take pages; it is *promised* them, so that a later touch cannot fail.
Four counters say it all (HugePages_Total, _Free, _Rsvd, _Surp of meminfo):

    total     pages of the pool                 free    of them not in use
    rsvd      of the free ones, promised        surp    of all, above nr_hugepages: they leave the pool when freed

    mmap of n     short = max(0, rsvd + n - free) pages are missing: they must come from the buddy allocator as surplus, at most
                  nr_overcommit_hugepages in all, else ENOMEM and nothing changes. Then rsvd += n
    touch         free -= 1, rsvd -= 1
    munmap        a touched page: surp > 0 on its node? to the buddy allocator, surp -= 1, total -= 1. Else free += 1
                  an untouched one: rsvd -= 1, and a surplus page that is free now goes, too
    nr_hugepages  growing: surplus pages become persistent first, then new ones are allocated, as many as there are. Shrinking: free pages that
                  nobody was promised go; what is in use beyond the new number becomes surplus

Worked example, nr_hugepages 2, nr_overcommit_hugepages 2, and a shared mapping of 3 pages:

    after mmap      total 3  free 3  rsvd 3  surp 1
    all touched     total 3  free 0  rsvd 0  surp 1
    unmapped        total 2  free 2  rsvd 0  surp 0

Who is promised what. A shared mapping's promise belongs to the file, page by page, and stays until the file goes; a private one's to the mapping
that was made, not to a child's copy of it, and goes with it. MAP_NORESERVE asks for no promise and takes what is left: a page that is free and not
promised, a surplus page if there may be one, else SIGBUS. The maps that keep count of it are `hugetlb_types.ResvMap`.

Which page. Each node has a list of free pages, last in, first out. Growing and shrinking go round the nodes by turns (`next_nid_to_alloc`,
`next_nid_to_free`); a fault takes from the node that the memory policy wants, others after it.

A page of 1 GiB is more than a block of the buddy allocator: `contig` looks for a range that can be emptied, and moves away what is in it.

Each page is handled in Python: one step for 2 MiB takes a few microseconds, and the hardware needs a hundred to clear it. Their frames are compound
pages (`compound`), PG_HUGETLB on each; a page that is free has a refcount of 0.

Source: mm/hugetlb.c:hugetlb_acct_memory, gather_surplus_pages, set_max_huge_pages, alloc_huge_page, free_huge_page; facts HG-01..13.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import VM_MAYSHARE, VM_NORESERVE
from core.abi.page_flags import PG_ANON, PG_HEAD, PG_HUGETLB
from core.jit import njit
from core.mm import contig, gfp, hugetlb_cgroup
from core.mm.compound import clear_compound_page, prep_compound_page
from core.mm.gfp_types import GFP_COMP, GFP_HIGHUSER_MOVABLE, GFP_NOWARN, GFP_RETRY_MAYFAIL
from core.mm.hugetlb_types import Hstate, HugetlbPage, ResvMap, Subpool
from core.mm.mm_types import MAX_ORDER, State
from core.mm.mmzone import cpu_to_node
from core.mm.page_alloc import free_one_page, page_zone, zone_of
from core.sysctl import POOL
from core.vmstat import EVENT

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Inode, Vma
    from core.sched.task import Task

PMD_ORDER, PUD_ORDER = 9, 18
BLOCK = MAX_ORDER - 1  # the largest block of the buddy allocator: 4 MiB
HTLB_BUDDY_PGALLOC, HTLB_BUDDY_PGALLOC_FAIL = EVENT["htlb_buddy_alloc_success"], EVENT["htlb_buddy_alloc_fail"]
GFP_HUGE = GFP_HIGHUSER_MOVABLE | GFP_COMP | GFP_NOWARN | GFP_RETRY_MAYFAIL


# ---------------------------------------------------------------- the pools of a machine


def hugetlb_init(k: Kernel) -> None:
    """Boot: an empty pool for each size that the processor can map, the larger first, as Linux registers them."""
    k.hstates = [Hstate(order, k.nr_nodes) for order in (PUD_ORDER, PMD_ORDER)]
    k.default_hstate = k.hstates[1]
    for h in k.hstates:
        size = "1.00 GiB" if h.gigantic else "2.00 MiB"
        k.log(6, f"HugeTLB: registered {size} page size, pre-allocated 0 pages")


def boot_settings(k: Kernel) -> None:
    """What the machine's own sysctl settings ask for, as /etc/sysctl.conf would."""
    number, policy, overcommit = (int(k.sysctl.pop(name, 0)) for name in POOL)
    if number or policy:
        set_max_huge_pages(k, k.default_hstate, number or policy)
    k.default_hstate.nr_overcommit_huge_pages = overcommit


def size_to_hstate(k: Kernel, size: int) -> Hstate | None:
    """The pool of pages of so many bytes."""
    return next((h for h in k.hstates if h.size == size), None)


def boot_parameters(k: Kernel, parameters: Sequence[tuple[str, str]]) -> None:
    """`default_hugepagesz=`, `hugepagesz=`, `hugepages=` of a kernel command line, in order, e.g. [("hugepagesz", "1G"), ("hugepages", "2")].

    `hugepages=` is a number, or numbers by node: "0:2,1:4". ValueError in plain words for a size that there is no pool of.
    """
    h = k.default_hstate
    for name, value in parameters:
        if name == "hugepages":
            for node, number in _by_node(value):
                set_max_huge_pages(k, h, number, node)
            continue
        found = size_to_hstate(k, _size(value))
        if found is None:
            raise ValueError(f"{name}={value}: there are pages of 2M and 1G")
        h = found
        if name == "default_hugepagesz":
            k.default_hstate = found


def _size(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    number = text[:-1] if text[-1:].upper() in units else text
    return int(number) << units.get(text[-1:].upper(), 0) if number.isdigit() else 0


def _by_node(value: str) -> list[tuple[int | None, int]]:
    parts = [part.partition(":") for part in value.split(",")]
    if not all(head.isdigit() and (not colon or tail.isdigit()) for head, colon, tail in parts):
        raise ValueError(f"hugepages={value}: write a number, or node:number,node:number")
    return [(int(head), int(tail)) if colon else (None, int(head)) for head, colon, tail in parts]


# ---------------------------------------------------------------- frames


@njit
def make_huge(s: State, pfn: int, order: int) -> None:
    """2^order frames become one page of a pool, in nobody's use."""
    s.mem[pfn]["refcount"] = 0
    prep_compound_page(s, pfn, order, PG_HUGETLB)


@njit
def free_huge_block(s: State, pfn: int, order: int) -> None:
    """The frames of a huge page go back to the buddy allocator, in blocks as large as it has."""
    zid = zone_of(s, pfn)
    clear_compound_page(s, pfn, order)
    block = min(order, BLOCK)
    for at in range(pfn, pfn + (1 << order), 1 << block):
        free_one_page(s, zid, at, block)


@njit
def demote_frames(s: State, pfn: int, order: int, small: int) -> None:
    """One page of a pool becomes several of a smaller size."""
    clear_compound_page(s, pfn, order)
    for at in range(pfn, pfn + (1 << order), 1 << small):
        prep_compound_page(s, at, small, PG_HUGETLB)


def numa_mem_id(k: Kernel, task: Task | None) -> int:
    """The node of the CPU that a process runs on."""
    return cpu_to_node(k, task.cpu) if task is not None else 0


def zonelist_nodes(k: Kernel, node: int, nodes: int = 0) -> list[int]:
    """The nodes in the order in which a request made on `node` asks them; `nodes`: a mask of those that may give (0: all)."""
    order = dict.fromkeys(int(k.s.zones["node"][zid]) for zid in k.s.zonelists[node] if zid >= 0)
    return [one for one in order if not nodes or nodes >> one & 1]


def alloc_fresh_huge_page(k: Kernel, task: Task | None, h: Hstate, node: int | None, nodes: int) -> HugetlbPage | None:
    """A new page for the pool, from `node`'s zonelist and the nodes of a mask (0: all); it is in use until somebody frees it."""
    first = numa_mem_id(k, task) if node is None else node
    pfn = _gigantic(k, task, h, first, nodes) if h.gigantic else _buddy(k, task, h, first, nodes)
    if not h.gigantic:
        k.s.vm_event[HTLB_BUDDY_PGALLOC if pfn else HTLB_BUDDY_PGALLOC_FAIL] += 1
    if not pfn:
        return None
    k.s.mem["flags"][pfn : pfn + h.nr_pages] |= PG_HUGETLB
    page = HugetlbPage(pfn, int(k.s.zones["node"][page_zone(k.s, pfn)]))
    h.pages[pfn] = page
    h.nr_huge_pages += 1
    h.nr_node[page.node] += 1
    return page


def _gigantic(k: Kernel, task: Task | None, h: Hstate, node: int, nodes: int) -> int:
    """A range that can be emptied (alloc_gigantic_page)."""
    pfn = contig.alloc_contig_pages(k, task, h.order, node, nodes)
    if pfn:
        make_huge(k.s, pfn, h.order)
    return pfn


def _buddy(k: Kernel, task: Task | None, h: Hstate, node: int, nodes: int) -> int:
    """A block of the buddy allocator: it tries hard, but kills nobody for it (alloc_buddy_huge_page)."""
    pfn = gfp.alloc_pages(k, task, h.order, GFP_HUGE, node=node, nodes=nodes)
    if pfn:
        make_huge(k.s, pfn, h.order)
    return pfn


def update_and_free_page(k: Kernel, h: Hstate, page: HugetlbPage, *, surplus: bool) -> None:
    """A page that is on no list leaves the pool for good (remove_hugetlb_page, __update_and_free_page)."""
    del h.pages[page.pfn]
    h.nr_huge_pages -= 1
    h.nr_node[page.node] -= 1
    if surplus:
        h.surplus_huge_pages -= 1
        h.surplus_node[page.node] -= 1
    free_huge_block(k.s, page.pfn, h.order)


def enqueue_huge_page(h: Hstate, page: HugetlbPage) -> None:
    """Put a page on its node's list."""
    h.free_lists[page.node].append(page.pfn)
    h.free_huge_pages += 1
    h.free_node[page.node] += 1


def dequeue_huge_page(h: Hstate, node: int) -> HugetlbPage:
    """Take the first page of a node's list."""
    h.free_huge_pages -= 1
    h.free_node[node] -= 1
    return h.pages[h.free_lists[node].pop()]


def free_huge_page(k: Kernel, h: Hstate, page: HugetlbPage) -> None:
    """The last holder of a page let go: back to the list, or out of the pool if its node has surplus (free_huge_page)."""
    restore = page.restore_reserve
    page.restore_reserve = False
    spool, page.spool = page.spool, None
    if not restore and spool is not None and spool.put_pages(1) == 0:
        restore = True
    hugetlb_cgroup.uncharge_page(k, h, page)
    _forget(k, h, page.pfn)
    if restore:
        h.resv_huge_pages += 1
    if h.surplus_node[page.node]:
        update_and_free_page(k, h, page, surplus=True)
    else:
        enqueue_huge_page(h, page)


def _forget(k: Kernel, h: Hstate, pfn: int) -> None:
    """A free page of the pool belongs to nobody: refcount 0, no mapping, no content."""
    mem = k.s.mem
    mem["flags"][pfn : pfn + h.nr_pages] &= ~PG_ANON
    mem["content"][pfn : pfn + h.nr_pages] = 0
    mem["flags"][pfn] = PG_HUGETLB | PG_HEAD
    for column in ("refcount", "mapping", "index"):
        mem[column][pfn] = 0


# ---------------------------------------------------------------- the number of pages


def _round_from(cursor: int, allowed: Sequence[int]) -> list[int]:
    """The allowed nodes once round, from the cursor on."""
    later = [node for node in allowed if node >= cursor]
    return later + [node for node in allowed if node < cursor]


def _next(node: int, allowed: Sequence[int]) -> int:
    return next((one for one in allowed if one > node), allowed[0])


def nodes_to_alloc(h: Hstate, allowed: Sequence[int]) -> Iterator[int]:
    """for_each_node_mask_to_alloc: each allowed node once, and the cursor behind the last that was looked at."""
    for node in _round_from(h.next_nid_to_alloc, allowed):
        h.next_nid_to_alloc = _next(node, allowed)
        yield node


def nodes_to_free(h: Hstate, allowed: Sequence[int]) -> Iterator[int]:
    """for_each_node_mask_to_free."""
    for node in _round_from(h.next_nid_to_free, allowed):
        h.next_nid_to_free = _next(node, allowed)
        yield node


def alloc_pool_huge_page(k: Kernel, h: Hstate, allowed: Sequence[int]) -> bool:
    """One page more, from the next node that has one."""
    for node in nodes_to_alloc(h, allowed):
        page = alloc_fresh_huge_page(k, k.current, h, node, 1 << node)
        if page is not None:
            free_huge_page(k, h, page)
            return True
    return False


def remove_pool_huge_page(k: Kernel, h: Hstate, allowed: Sequence[int], *, surplus: bool) -> bool:
    """One free page less, from the next node that has one (of its surplus)."""
    for node in nodes_to_free(h, allowed):
        if h.free_lists[node] and (not surplus or h.surplus_node[node]):
            update_and_free_page(k, h, dequeue_huge_page(h, node), surplus=surplus)
            return True
    return False


def adjust_pool_surplus(h: Hstate, allowed: Sequence[int], delta: int) -> bool:
    """Call one page surplus (+1) or persistent (-1) that was not; False if no node has one."""
    for node in nodes_to_alloc(h, allowed) if delta < 0 else nodes_to_free(h, allowed):
        if h.surplus_node[node] if delta < 0 else h.surplus_node[node] < h.nr_node[node]:
            h.surplus_huge_pages += delta
            h.surplus_node[node] += delta
            return True
    return False


def set_max_huge_pages(k: Kernel, h: Hstate, count: int, node: int | None = None, allowed: Sequence[int] | None = None) -> None:
    """echo count > nr_hugepages, of the machine or of one node; it may end short, without an error (set_max_huge_pages)."""
    if node is not None:
        if not 0 <= node < k.nr_nodes:
            raise ValueError(f"there is no node {node}")
        count += h.persistent - (h.nr_node[node] - h.surplus_node[node])
        allowed = [node]
    elif allowed is None:
        allowed = range(k.nr_nodes)
    while h.surplus_huge_pages and count > h.persistent and adjust_pool_surplus(h, allowed, -1):
        pass
    while count > h.persistent and alloc_pool_huge_page(k, h, allowed):
        pass
    if count < h.persistent:
        floor = max(count, h.resv_huge_pages + h.nr_huge_pages - h.free_huge_pages)
        while floor < h.persistent and remove_pool_huge_page(k, h, allowed, surplus=False):
            pass
        while count < h.persistent and adjust_pool_surplus(h, allowed, 1):
            pass
    h.max_huge_pages = h.persistent


def nodes_of_policy(k: Kernel, task: Task) -> Sequence[int]:
    """The nodes that a process's memory policy names for a pool (init_nodemask_of_mempolicy); all of them without one."""
    policy = task.policy
    if policy is None or policy.mode == "default":
        return range(k.nr_nodes)
    return policy.nodes if policy.nodes else (numa_mem_id(k, task),)


def demote(k: Kernel, h: Hstate, count: int, node: int | None = None) -> None:
    """echo count > demote: so many free pages that nobody was promised become pages of the next smaller size (demote_store)."""
    target = next(one for one in k.hstates if one.order < h.order)
    allowed = range(k.nr_nodes) if node is None else [node]
    for _ in range(count):
        free = h.free_huge_pages if node is None else h.free_node[node]
        source = next((one for one in nodes_to_free(h, allowed) if h.free_lists[one]), None)
        if free - h.resv_huge_pages <= 0 or source is None:
            return
        _demote_page(k, h, target, dequeue_huge_page(h, source))


def _demote_page(k: Kernel, h: Hstate, target: Hstate, page: HugetlbPage) -> None:
    """One page's frames change pools (demote_free_huge_page)."""
    del h.pages[page.pfn]
    h.nr_huge_pages -= 1
    h.nr_node[page.node] -= 1
    h.max_huge_pages -= 1
    demote_frames(k.s, page.pfn, h.order, target.order)
    for pfn in range(page.pfn, page.pfn + h.nr_pages, target.nr_pages):
        small = HugetlbPage(pfn, page.node)
        target.pages[pfn] = small
        target.nr_huge_pages += 1
        target.nr_node[page.node] += 1
        enqueue_huge_page(target, small)
    target.max_huge_pages += h.nr_pages // target.nr_pages


# ---------------------------------------------------------------- promises of the pool


def alloc_surplus_huge_page(k: Kernel, task: Task | None, h: Hstate, node: int | None, nodes: int) -> HugetlbPage | None:
    """A page above nr_hugepages, if nr_overcommit_hugepages allows it."""
    if h.gigantic or h.surplus_huge_pages >= h.nr_overcommit_huge_pages:
        return None
    page = alloc_fresh_huge_page(k, task, h, node, nodes)
    if page is not None:
        h.surplus_huge_pages += 1
        h.surplus_node[page.node] += 1
    return page


def gather_surplus_pages(k: Kernel, task: Task | None, h: Hstate, delta: int) -> bool:
    """Promise `delta` pages more; what the pool is short of comes from the buddy allocator. False, and nothing promised, if it cannot."""
    short = h.resv_huge_pages + delta - h.free_huge_pages
    got: list[HugetlbPage] = []
    while len(got) < short:
        page = alloc_surplus_huge_page(k, task, h, None, 0)
        if page is None:
            for spare in got:
                free_huge_page(k, h, spare)
            return False
        got.append(page)
    h.resv_huge_pages += delta
    for page in reversed(got):  # the list is taken from its end
        enqueue_huge_page(h, page)
    return True


def return_unused_surplus_pages(k: Kernel, h: Hstate, unused: int) -> None:
    """Promises are void: surplus pages that were held for them go back to the buddy allocator."""
    h.resv_huge_pages -= unused
    if h.gigantic:
        return
    for _ in range(min(unused, h.surplus_huge_pages)):
        if not remove_pool_huge_page(k, h, range(k.nr_nodes), surplus=True):
            return


def hugetlb_acct_memory(k: Kernel, task: Task | None, h: Hstate, delta: int) -> bool:
    """Promise `delta` pages more (negative: fewer). False if there are not enough, here or on the nodes that the task may use."""
    if delta < 0:
        return_unused_surplus_pages(k, h, -delta)
    if delta <= 0:
        return True
    if not gather_surplus_pages(k, task, h, delta):
        return False
    if delta > allowed_mems_nr(task, h):
        return_unused_surplus_pages(k, h, delta)
        return False
    return True


def allowed_mems_nr(task: Task | None, h: Hstate) -> int:
    """Free pages on the nodes that the task's own policy binds it to, of those of its cpuset."""
    policy = task.policy if task is not None else None
    bound = policy.nodes if policy is not None and policy.mode == "bind" else None
    mems = task.mems if task is not None else 0
    return sum(free for node, free in enumerate(h.free_node) if (bound is None or node in bound) and (not mems or mems >> node & 1))


# ---------------------------------------------------------------- promises to files and mappings


def hstate_vma(vma: Vma) -> Hstate:
    """The pool that a mapping's pages are from."""
    assert vma.file is not None and vma.file.hstate is not None
    return vma.file.hstate


def vma_hugecache_offset(h: Hstate, vma: Vma, vpn: int) -> int:
    """The page of the file, in huge pages, that an address of the mapping shows."""
    return (vpn - vma.start + vma.pgoff) >> h.order


def hugetlb_reserve_pages(k: Kernel, task: Task | None, inode: Inode, first: int, last: int, vma: Vma | None, vm_flags: int) -> bool:
    """Promise pages [first, last) of a file to a new mapping of it. False, and nothing has changed, if it cannot be kept."""
    h = inode.hstate
    assert h is not None
    if vm_flags & VM_NORESERVE:
        return True
    shared = vma is None or bool(vm_flags & VM_MAYSHARE)
    resv = inode.resv_map if shared else ResvMap()
    assert resv is not None
    wanted = resv.region_chg(first, last) if shared else last - first
    cg = hugetlb_cgroup.payer(task)
    if not hugetlb_cgroup.try_charge(k, cg, h, wanted * h.nr_pages, rsvd=True):
        return False
    spool: Subpool | None = inode.spool
    ours = spool.get_pages(wanted) if spool is not None else wanted
    if ours < 0 or not hugetlb_acct_memory(k, task, h, ours):
        if ours >= 0 and spool is not None:
            spool.put_pages(wanted)
        hugetlb_cgroup.uncharge(k, cg, h, wanted * h.nr_pages, rsvd=True)
        return False
    if not shared:
        assert vma is not None
        resv.cgroup = cg
        vma.resv = resv
        return True
    if cg is not None:
        resv.payers += [(low, high, cg) for low, high in _gaps(resv, first, last)]
    resv.region_add(first, last)
    return True


def _gaps(resv: ResvMap, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The parts of [first, last) that a map does not hold."""
    at = first
    for low, high in resv.regions:
        if at < min(low, last):
            yield at, min(low, last)
        at = max(at, high)
    if at < last:
        yield at, last


def hugetlb_unreserve_pages(k: Kernel, inode: Inode, start: int, end: int, freed: int) -> None:
    """A file's pages [start, end) are gone, `freed` of them real ones: promises about the others are void."""
    h, resv, spool = inode.hstate, inode.resv_map, inode.spool
    assert h is not None and resv is not None
    promised = resv.region_del(start, end)
    hugetlb_cgroup.uncharge_regions(k, h, resv, start, end)
    void = promised - freed
    hugetlb_acct_memory(k, None, h, -(spool.put_pages(void) if spool is not None else void))


def hugetlb_vm_op_close(k: Kernel, vma: Vma) -> None:
    """A mapping goes: what a private one was promised and did not touch is free again (hugetlb_vm_op_close)."""
    resv = vma.resv
    if resv is None:
        return
    h = hstate_vma(vma)
    start, end = vma_hugecache_offset(h, vma, vma.start), vma_hugecache_offset(h, vma, vma.end)
    hugetlb_cgroup.uncharge(k, resv.cgroup, h, (end - start) * h.nr_pages, rsvd=True)
    untouched = end - start - resv.region_count(start, end)
    if untouched:
        spool = vma.file.spool if vma.file is not None else None
        hugetlb_acct_memory(k, None, h, -(spool.put_pages(untouched) if spool is not None else untouched))
    vma.resv = None


# ---------------------------------------------------------------- a page for a fault


def vma_needs_reservation(h: Hstate, vma: Vma, vpn: int) -> bool:
    """True if no promise covers this page of the mapping: it must be had without one (vma_needs_reservation)."""
    resv = _resv_map(vma)
    if resv is None:
        return True
    index = vma_hugecache_offset(h, vma, vpn)
    missing = resv.region_chg(index, index + 1) > 0
    return missing if vma.flags & VM_MAYSHARE else not missing


def _resv_map(vma: Vma) -> ResvMap | None:
    """The file's map of a shared mapping, a private one's own (vma_resv_map)."""
    if vma.flags & VM_MAYSHARE:
        return vma.file.resv_map if vma.file is not None else None
    return vma.resv


def vma_has_reserves(vma: Vma, charged: int) -> bool:
    """May this allocation take a page that is promised? charged: promises that the pool itself would have to make (0: one was made)."""
    if vma.flags & VM_NORESERVE:
        return bool(vma.flags & VM_MAYSHARE) and charged == 0
    if vma.flags & VM_MAYSHARE or vma.resv is not None:
        return not charged
    return False


def huge_node(k: Kernel, task: Task | None, vma: Vma, vpn: int) -> tuple[int, int, bool]:
    """Where the memory policy wants a huge page: the node to begin with, a mask of those that may give (0: all), and is that only a preference?"""
    local, mems = numa_mem_id(k, task), task.mems if task is not None else 0
    policy = vma.policy or (task.policy if task is not None else None)
    if policy is None or policy.mode in ("default", "local"):
        return local, mems, False
    if policy.mode == "interleave":
        return policy.nodes[vma_hugecache_offset(hstate_vma(vma), vma, vpn) % len(policy.nodes)], mems, False
    if policy.mode == "preferred":
        return policy.nodes[0], mems, False
    return local, policy.mask & mems if mems else policy.mask, policy.mode == "preferred_many"


def _dequeue_nodemask(k: Kernel, h: Hstate, node: int, nodes: int) -> HugetlbPage | None:
    for one in zonelist_nodes(k, node, nodes):
        if h.free_lists[one]:
            return dequeue_huge_page(h, one)
    return None


def _dequeue_vma(k: Kernel, task: Task | None, h: Hstate, vma: Vma, charged: int, where: tuple[int, int, bool]) -> HugetlbPage | None:
    """A free page of the pool that this mapping may have (dequeue_huge_page_vma)."""
    if not vma_has_reserves(vma, charged) and h.available <= 0:
        return None
    node, nodes, preference = where
    mems = task.mems if task is not None else 0
    page = _dequeue_nodemask(k, h, node, nodes)
    if page is None and preference:
        page = _dequeue_nodemask(k, h, node, mems)
    return page


def alloc_huge_page(k: Kernel, task: Task | None, vma: Vma, vpn: int, *, avoid_reserve: bool = False) -> HugetlbPage | None:
    """A page for one address of a mapping, refcount 1; None: there is none that it may have, which is a SIGBUS.

    avoid_reserve: the promise for this address was kept already (a copy on write by its owner): try without.
    """
    h = hstate_vma(vma)
    spool = vma.file.spool if vma.file is not None else None
    unpromised = vma_needs_reservation(h, vma, vpn)
    deferred = unpromised or avoid_reserve
    charged = int(unpromised)
    if deferred:
        charged = spool.get_pages(1) if spool is not None else 1
        if charged < 0:
            return None
    cg = hugetlb_cgroup.payer(task)
    page = None
    if not deferred or hugetlb_cgroup.try_charge(k, cg, h, h.nr_pages, rsvd=True):
        if hugetlb_cgroup.try_charge(k, cg, h, h.nr_pages, rsvd=False):
            page = _from_pool_or_buddy(k, task, h, vma, vpn, charged, avoid_reserve)
            if page is None:
                hugetlb_cgroup.uncharge(k, cg, h, h.nr_pages, rsvd=False)
        if page is None and deferred:
            hugetlb_cgroup.uncharge(k, cg, h, h.nr_pages, rsvd=True)
    if page is None:
        if deferred and spool is not None:
            spool.put_pages(1)
        return None
    hugetlb_cgroup.commit_charge(k, cg, h, page)
    page.cgroup_rsvd = cg if deferred else None
    page.spool = spool
    resv = _resv_map(vma)
    if resv is not None:  # vma_commit_reservation
        index = vma_hugecache_offset(h, vma, vpn)
        resv.region_add(index, index + 1)
    k.s.mem["refcount"][page.pfn] = 1
    return page


def _from_pool_or_buddy(
    k: Kernel, task: Task | None, h: Hstate, vma: Vma, vpn: int, charged: int, avoid_reserve: bool
) -> HugetlbPage | None:
    where = huge_node(k, task, vma, vpn)
    page = _dequeue_vma(k, task, h, vma, charged, where)
    kept = page is not None and vma_has_reserves(vma, charged)
    if page is None:
        node, nodes, preference = where
        page = alloc_surplus_huge_page(k, task, h, node, nodes)
        if page is None and preference:
            page = alloc_surplus_huge_page(k, task, h, node, 0)
        kept = page is not None and not avoid_reserve and vma_has_reserves(vma, charged)
    if page is not None and kept:
        page.restore_reserve = True
        h.resv_huge_pages -= 1
    return page


def restore_reserve_on_error(h: Hstate, vma: Vma, vpn: int, page: HugetlbPage) -> None:
    """A page that was allocated cannot be mapped after all: the region map is as it was before (restore_reserve_on_error)."""
    resv = _resv_map(vma)
    if resv is None:
        return
    index = vma_hugecache_offset(h, vma, vpn)
    needs = vma_needs_reservation(h, vma, vpn)
    shared = bool(vma.flags & VM_MAYSHARE)
    if page.restore_reserve and needs and not shared:
        resv.region_del(index, index + 1)
    elif not page.restore_reserve and not needs:
        if shared:
            resv.region_del(index, index + 1)
        else:
            resv.region_add(index, index + 1)


def no_pool(h: Hstate) -> SysError:
    """ENOMEM of an mmap that cannot be promised its pages."""
    return SysError(Errno.ENOMEM, (
        f"the pool of {h.size >> 20} MiB pages has {h.free_huge_pages} free, {h.resv_huge_pages} of them promised, and may take "
        f"{h.nr_overcommit_huge_pages - h.surplus_huge_pages} more (nr_hugepages, nr_overcommit_hugepages)"
    ))  # fmt: skip
