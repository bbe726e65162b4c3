"""Kernel samepage merging: ksmd looks for pages of the same content and lets one stand for all (mm/ksm.c).

A program offers memory with madvise(MADV_MERGEABLE); only private anonymous pages are taken. ksmd wakes every `sleep_millisecs` and looks at
`pages_to_scan` of them, process after process (`slots`), in ascending order of addresses. Each page it looks at has an *rmap_item*.

    1  its content is in the stable tree            merge: the entry points to the KSM page, the page itself is freed
    2  content changed since the last scan          wait: what changes is not worth merging
    3  its content is in the unstable tree          both become one KSM page, which joins the stable tree
    4  none of these                                join the unstable tree, until the next full scan

So a page is merged in the second full scan at the earliest: the first one takes its checksum. Counters:

    pages_shared     KSM pages                      pages_unshared   pages in the unstable tree
    pages_sharing    entries that map them beyond   pages_volatile   all other rmap_items: they changed, or were seen once
                     the first: the pages saved

Worked example: three processes offer 1,024 pages each, all of one content but for 512 pages of another in the third. 2,560 pages of content 1
make 2560 / 256 = 10 KSM pages (max_page_sharing 256), a chain of 10 dups; 512 of content 3 make 2. pages_shared 12,
pages_sharing 3072 - 12 = 3060, AnonPages falls from 12 MiB to 48 KiB; every Rss stays as it is, Pss shrinks.

Writing to a KSM page copies it (cow_ksm): it is never taken over, not even by its last user. MADV_UNMERGEABLE and `run` 2 copy
them back ahead of any write, and memory may run out over that.

A KSM page can be swapped: its stable node leads to all entries, each gets the slot's number. Read back it is an ordinary page of whoever comes
first, others get copies (ksm_swpin_copy) until ksmd merges them again.

`merge_across_nodes` 0 keeps a pair of trees for each NUMA node; a KSM page that migrates waits to be put into its new node's tree.

Simplified: a page's content is one value (page_ops), so that checksums never collide; ksmd has a processor of its own: its work takes time
(`Costs.ksm_page` for each page) but nobody else's.

Source: mm/ksm.c, Documentation/admin-guide/mm/ksm.rst; facts KM-A1..A9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.mman import (
    VM_DONTEXPAND,
    VM_HUGETLB,
    VM_IO,
    VM_MAYSHARE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_SHARED,
)
from core.events import Ksm
from core.mm import gfp, memory, rmap_walk
from core.mm.fault import COW
from core.mm.ksm_trees import ROUND_OVER, UNDO, begin_full_scan, break_ksm_pages, fates, remove_all_stable_nodes, remove_trailing_items, scan_mm
from core.mm.page_ops import DONE, NO_PAGE, NO_STORE
from core.mm.slab import account_slab_unreclaimable
from core.mm.vma import vma_lookup
from core.panic import TaskKilled

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array, Mm, Vma
    from core.sched.task import Task

KSM_RUN_STOP, KSM_RUN_MERGE, KSM_RUN_UNMERGE = range(3)
NOT_FOR_KSM = VM_MERGEABLE | VM_SHARED | VM_MAYSHARE | VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_HUGETLB | VM_MIXEDMAP
JIFFY = 4_000_000  # ns: HZ is 250
ITEM_BYTES = NODE_BYTES = 64  # of slab: struct ksm_rmap_item, struct ksm_stable_node

# One mergeable mapping, for the loops.
VT = np.dtype([("mm", "i8"), ("start", "i8"), ("end", "i8"), ("flags", "i8"), ("anon_vma", "i8"), ("prot", "i8")])


class Ksmd:
    """The thread: whose memory it looks at, where it is, when it wakes.

    slots: address spaces in scan order (ksm_mm_head), dead ones until ksmd passes there. cursor: the one it is in, 0 between two
    full scans. due: ns of its next round, -1 when it sleeps for good. busy: ns at which the last round ends. slab: bytes accounted.
    seen: the counters at the end of the last full scan.
    """

    __slots__ = ("slots", "cursor", "due", "busy", "slab", "seen")

    def __init__(self) -> None:
        self.slots: list[int] = []
        self.cursor = 0
        self.due = -1
        self.busy = 0
        self.slab = 0
        self.seen: tuple[int, ...] = (0, 0, 0, 0)


# ---------------------------------------------------------------- who takes part


def ksm_enter(k: Kernel, mm: Mm) -> None:
    """An address space offers pages for the first time: just behind the scan, so that it may settle (__ksm_enter)."""
    d = k.ksmd
    at = len(d.slots)
    if d.cursor and k.ksm["run"] != KSM_RUN_UNMERGE:
        at = d.slots.index(d.cursor)
    d.slots.insert(at, mm.id)
    row = k.s.mms[mm.id]
    row["ksm_list"], row["ksm_items"], row["ksm_merging"] = 0, 0, 0
    wake_ksmd(k)


def ksm_fork(k: Kernel, mm: Mm, old: Mm) -> None:
    """A child of a process that takes part does so, too."""
    if old.id in k.ksmd.slots:
        ksm_enter(k, mm)


def ksm_exit(k: Kernel, mm: Mm) -> None:
    """An address space is about to go. If ksmd has been there it cleans up on its way, next (__ksm_exit)."""
    d = k.ksmd
    if mm.id not in d.slots or d.cursor == mm.id:
        return
    d.slots.remove(mm.id)
    if int(k.s.mms["ksm_list"][mm.id]):
        d.slots.insert(d.slots.index(d.cursor) + 1 if d.cursor else 0, mm.id)


def drop_slot(k: Kernel, mm_id: int) -> None:
    """ksmd lets go of an address space; a dead one's row can be used again (mmdrop)."""
    k.ksmd.slots.remove(mm_id)
    if mm_id not in k.mms:
        k.free_mm_ids.append(mm_id)


def ksm_madvise(k: Kernel, task: Task, vma: Vma, start: int, end: int, advice: str) -> bool:
    """MADV_MERGEABLE, MADV_UNMERGEABLE before the flag changes: False if the advice is to be ignored. ENOMEM: no room for the copies."""
    if advice == "mergeable":
        if vma.flags & NOT_FOR_KSM:
            return False
        if vma.mm.id not in k.ksmd.slots:
            ksm_enter(k, vma.mm)
        return True
    if not vma.flags & VM_MERGEABLE:
        return False
    if vma.anon_vma is not None:
        copied = unmerge_ksm_pages(k, task, vma, start, end)
        task.minflt += copied
        k.clock.spend(copied * (k.costs.fault + k.costs.copy_page))
        if copied:
            emit(k, "unmerge", copied, task.pid)
    return True


# ---------------------------------------------------------------- the thread


def should_run(k: Kernel) -> bool:
    """ksmd_should_run."""
    return k.ksm["run"] == KSM_RUN_MERGE and bool(k.ksmd.slots)


def wake_ksmd(k: Kernel) -> None:
    """There may be work: ksmd wakes unless it has an alarm set."""
    if should_run(k) and k.ksmd.due < 0:
        arm(k, k.clock.now)


def arm(k: Kernel, time: int) -> None:
    """Set ksmd's alarm; an earlier one is void."""
    k.ksmd.due = time
    k.clock.at(time, "ksmd")


def ksmd(k: Kernel) -> None:
    """The alarm rings: one round, then sleep (ksm_scan_thread)."""
    d = k.ksmd
    if d.due < 0 or k.clock.now < d.due:
        return
    d.due = -1
    if should_run(k):
        scanned = ksm_do_scan(k, k.ksm["pages_to_scan"])
        d.busy = k.clock.now + max(scanned * k.costs.ksm_page, k.costs.ksm_round)
    if should_run(k):
        arm(k, d.busy + -(-k.ksm["sleep_millisecs"] * 1_000_000 // JIFFY) * JIFFY)


def ksm_do_scan(k: Kernel, pages: int) -> int:
    """Look at `pages` pages, or up to the end of a full scan: how many they were."""
    c, d = k.s.ksm[0], k.ksmd
    take_settings(k)
    c["left"] = pages
    vt = mergeable(k)
    before, whole = int(c["merged"]) + int(c["zeroed"]), False
    while int(c["left"]) and d.slots and not whole:
        if d.cursor == 0:
            begin_full_scan(k.s, trees(k))
            go_to(k, d.slots[0])
        whole = scan_slot(k, vt) and leave_slot(k)
    merged = int(c["merged"]) + int(c["zeroed"]) - before
    account_slab(k)
    if merged:
        emit(k, "merge", merged)
    counts = (int(c["pages_shared"]), int(c["pages_sharing"]), int(c["pages_unshared"]), int(c["rmap_items"]))
    if whole and counts != d.seen:
        d.seen = counts
        emit(k, "scan", int(c["rmap_items"]))
    return pages - int(c["left"])


def scan_slot(k: Kernel, vt: Array) -> bool:
    """Go on in the address space at the cursor: True at its end, False when the round is over."""
    c, mm_id = k.s.ksm[0], k.ksmd.cursor
    first, last = np.searchsorted(vt["mm"], (mm_id, mm_id + 1)).tolist()
    while True:
        why = scan_mm(k.s, rmap_walk.tables(k), vt, first, last, np.zeros(2, np.int64))
        if why == UNDO:
            item = k.s.ksm_items[int(c["undo"])]
            break_cow(k, int(item["mm"]), int(item["vpn"]))
            continue
        return why != ROUND_OVER and int(c["left"]) > 0


def leave_slot(k: Kernel) -> bool:
    """The address space at the cursor is done: True if that ends a full scan."""
    c, d = k.s.ksm[0], k.ksmd
    mm_id = d.cursor
    if mm_id not in k.mms:
        c["vpn"] = c["link"] = 0
    remove_trailing_items(k.s, mm_id, int(c["link"]))
    at = d.slots.index(mm_id) + 1
    after = d.slots[at] if at < len(d.slots) else 0
    if int(c["vpn"]) == 0:
        drop_slot(k, mm_id)
    go_to(k, after)
    if after:
        return False
    c["seqnr"] += 1
    return True


def go_to(k: Kernel, mm_id: int) -> None:
    """Put the cursor at the beginning of an address space."""
    c = k.s.ksm[0]
    k.ksmd.cursor = mm_id
    c["mm"], c["vpn"], c["link"] = mm_id, 0, 0


def take_settings(k: Kernel) -> None:
    """What the loops need to know of the settings and the time."""
    c = k.s.ksm[0]
    for name in ("run", "max_page_sharing", "merge_across_nodes", "use_zero_pages"):
        c[name] = k.ksm[name]
    c["prune_ns"], c["now"] = k.ksm["stable_node_chains_prune_millisecs"] * 1_000_000, k.clock.now


def trees(k: Kernel) -> int:
    """How many pairs of trees there are (ksm_nr_node_ids)."""
    return 1 if k.ksm["merge_across_nodes"] else k.nr_nodes


def mergeable(k: Kernel) -> Array:
    """The mergeable mappings of all who take part, by address space and address."""
    rows = [
        (mm.id, vma.start, vma.end, vma.flags, vma.anon_vma.id if vma.anon_vma else 0, memory.vma_prot(vma))
        for mm in (k.mms[mm_id] for mm_id in sorted(k.ksmd.slots) if mm_id in k.mms)
        for vma in mm.vmas
        if vma.flags & VM_MERGEABLE
    ]
    return np.array(rows, VT)


def account_slab(k: Kernel) -> None:
    """rmap_items and stable nodes are slab of the kernel's own, 64 bytes each."""
    c = k.s.ksm[0]
    wanted = int(c["rmap_items"]) * ITEM_BYTES + int(c["nodes"]) * NODE_BYTES
    if wanted != k.ksmd.slab:
        account_slab_unreclaimable(k.s, 0, wanted - k.ksmd.slab)
        k.ksmd.slab = wanted


def emit(k: Kernel, kind: str, pages: int, pid: int | None = None) -> None:
    """What ksmd did, with the counters after it."""
    c = k.s.ksm[0]
    k.emit(Ksm(k.clock.now, kind, pages, int(c["pages_shared"]), int(c["pages_sharing"]), pid))


# ---------------------------------------------------------------- copying back


def break_cow(k: Kernel, mm_id: int, vpn: int) -> None:
    """A merge was given up half-way: the one entry of the new KSM page gets a page of its own again."""
    mm = k.mms.get(mm_id)
    vma = vma_lookup(mm, vpn) if mm is not None else None
    if vma is not None and vma.flags & VM_MERGEABLE and vma.anon_vma is not None:
        with gfp.saved(k):
            unmerge_ksm_pages(k, None, vma, vpn, vpn + 1)


def unmerge_ksm_pages(k: Kernel, task: Task | None, vma: Vma, start: int, end: int) -> int:
    """Every KSM page in a range is copied, as if it was written: how many. SysError(ENOMEM) where no frame can be had."""
    take_settings(k)
    memory.begin(k, task, vma, memory.WRITE, start, 1, end, content=NO_STORE)
    v = k.s.vmf[0]
    while True:
        break_ksm_pages(k.s)
        reason = int(v["reason"])
        if reason == DONE:
            return int(v["count"][COW])
        try:
            if reason == NO_PAGE:
                gfp.slowpath(k, task)
            else:
                memory.charge_slowpath(k, task)
        except TaskKilled:
            raise
        except SysError:
            raise SysError(Errno.ENOMEM, "there is no memory for a copy of every shared page") from None


def unmerge_all(k: Kernel) -> None:
    """`run` 2: nothing is merged any more; the address spaces stay on the list (unmerge_and_remove_all_rmap_items). ENOMEM."""
    d, copied = k.ksmd, 0
    if d.slots:
        go_to(k, d.slots[0])
    try:
        for mm_id in list(d.slots):
            go_to(k, mm_id)
            for vma in list(k.mms[mm_id].vmas) if mm_id in k.mms else ():
                if vma.flags & VM_MERGEABLE and vma.anon_vma is not None:
                    copied += unmerge_ksm_pages(k, None, vma, vma.start, vma.end)
            remove_trailing_items(k.s, mm_id, 0)
            if mm_id not in k.mms:
                drop_slot(k, mm_id)
        remove_all_stable_nodes(k.s, trees(k))
        k.s.ksm[0]["seqnr"] = 0
    finally:
        go_to(k, 0)
        account_slab(k)
        k.clock.spend(copied * (k.costs.fault + k.costs.copy_page))
        if copied:
            emit(k, "unmerge", copied)


# ---------------------------------------------------------------- sysfs


def set_run(k: Kernel, run: int) -> None:
    """echo 0|1|2 > run (run_store). ENOMEM of run 2: it stops, some pages merged still."""
    if k.ksm["run"] != run:
        k.ksm["run"] = run
        if run == KSM_RUN_UNMERGE:
            try:
                unmerge_all(k)
            except SysError:
                k.ksm["run"] = KSM_RUN_STOP
                raise
    wake_ksmd(k)


def set_sleep(k: Kernel, millisecs: int) -> None:
    """Another pause takes effect at once: ksmd is woken."""
    changed = k.ksm["sleep_millisecs"] != millisecs
    k.ksm["sleep_millisecs"] = millisecs
    if changed and k.ksmd.due > k.clock.now:
        arm(k, max(k.clock.now, k.ksmd.busy))


def set_when_clean(k: Kernel, name: str, value: int) -> bool:
    """max_page_sharing, merge_across_nodes: only when no KSM page is left; False: busy."""
    if k.ksm[name] == value:
        return True
    take_settings(k)
    if int(k.s.ksm[0]["pages_shared"]) or not remove_all_stable_nodes(k.s, trees(k)):
        return False
    account_slab(k)
    k.ksm[name] = value
    return True


def counter(k: Kernel, name: str) -> int:
    """A figure of /sys/kernel/mm/ksm."""
    c = k.s.ksm[0]
    if name == "full_scans":
        return int(c["seqnr"])
    if name == "pages_volatile":
        return max(0, int(c["rmap_items"]) - int(c["pages_shared"]) - int(c["pages_sharing"]) - int(c["pages_unshared"]))
    return int(c[name])


# What became of a page that was offered, in the order of `fates`.
FATES = ("merged", "unshared", "volatile", "new", "zero", "not_anonymous", "swapped", "absent")
MERGED, UNSHARED, VOLATILE, NEW, ZERO, NOT_ANONYMOUS, SWAPPED, ABSENT = range(8)


def census(k: Kernel, vma: Vma, start: int, end: int) -> dict[str, int]:
    """How many pages of [start, end) of a mapping met which fate."""
    counts = np.zeros(len(FATES), np.int64)
    fates(k.s, vma.mm.id, start, end, counts)
    return dict(zip(FATES, counts.tolist(), strict=True))


def merging_pages(k: Kernel, mm: Mm) -> tuple[int, int]:
    """ksm_merging_pages and ksm_rmap_items of a process."""
    row = k.s.mms[mm.id]
    return int(row["ksm_merging"]), int(row["ksm_items"])
