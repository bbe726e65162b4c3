"""cgroup v2 and its memory controller: who pays for a page, and what happens at a limit (mm/memcontrol.c).

The model. Cgroups are a tree; a process is in exactly one. Every page has one payer: the cgroup of the process that
touched it first. The payer and all its ancestors count it (`page_counter`), so a limit anywhere above a process
limits it. What one pays for: anonymous pages, page cache, page tables, kernel stacks, slab objects.

        /app        memory.max 50M   usage 48M   = app/web 30M + app/db 18M
        ├─ web      memory.max max   usage 30M
        └─ db       memory.max 20M   usage 18M   a fault in db may fail at db's 20M or at app's 50M

At the limit (try_charge_memcg). A charge that does not fit raises the event `max` on the cgroup in the way,
reclaims from *its* subtree, and tries again: up to 16 rounds, and one in which the cpus' stocks are drained. If that was not
enough the OOM killer picks in that subtree, and the rounds begin again; with nobody left to kill the charge fails
(ENOMEM). Worked numbers: nothing to reclaim and max = 32M gives one batch of 64 refused, then the page itself
refused 1 + 1 + 16 times: 18 `max` events, failcnt 19, then one `oom`.

Rules of the tree (kernel/cgroup/cgroup.c). A cgroup's `subtree_control` says which controllers its children have;
a child without the memory controller is paid for by its nearest ancestor with one. Processes live in leaves: a
cgroup other than the root that gives controllers to its children may hold no processes (EBUSY both ways). A cgroup
can be removed when it has neither processes nor children (EBUSY); what it had paid for stays charged to its
ancestors, under the removed cgroup's name, until those pages are freed ("dying").

Moving a process moves no charge: its old pages stay with the old payer.

Protection (memory.min, memory.low). What reclaim leaves to a cgroup is its setting, cut by what its parent has to give: with 50M for the
parent, and children that claim and use 50M and 25M, the two get 2/3 of it and 1/3: 33.3M and 16.7M (`effective_protection`). It
falls from the target of the reclaim downwards, through cgroups that have no pages of their own, too.

Simplified. Slab is charged by the byte and rounded up to pages per cgroup, and its charge never fails. memory.stat is exact
where Linux's may lag by up to two seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.page_flags import PG_ANON, PG_DIRTY, PG_SHMEM, PG_SWAPCACHE, PG_TABLE, PG_WRITEBACK
from core.events import Memcg as MemcgEvent
from core.jit import njit
from core.mm import hugetlb_cgroup, lru_gen, oom_kill, vmscan
from core.mm.compound import compound_head, page_mapcount
from core.mm.mm_types import (
    CTL_OVER_HIGH,
    PAGE_COUNTER_MAX,
    ZONES_PER_NODE,
    State,
)
from core.mm.page_counter import charge_again, charge_exactly, drain_all_stock
from core.mm.page_counter import drain_stock as drain_stock
from core.mm.page_counter import force_charge as force_charge
from core.mm.page_counter import keep_charge as keep_charge
from core.mm.page_counter import refill_stock as refill_stock
from core.mm.page_counter import subtree as subtree
from core.mm.page_counter import try_charge as try_charge
from core.mm.page_counter import uncharge as uncharge
from core.mm.shrink_node import effective_protection as effective_protection
from core.mm.slab import account_kernel_stack as account_kernel_stack
from core.mm.slab import account_slab as account_slab
from core.mm.slab import account_slab_unreclaimable as account_slab_unreclaimable
from core.mm.swapfile import SWAP_EVENT_HIGH
from core.panic import TaskKilled
from core.record import keep
from core.sched import psi
from core.vmstat import (
    MEMCG,
    MEMCG_SLAB_RECLAIMABLE_B,
    MEMCG_SLAB_UNRECLAIMABLE_B,
)

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.hugetlb_types import HugetlbCounter
    from core.sched.task import Task

EVENT_NAMES = ("low", "high", "max", "oom", "oom_kill", "oom_group_kill")
SWAP_EVENT_NAMES = ("high", "max", "fail")
CONTROLLERS = ("cpuset", "memory", "hugetlb")  # what this machine's kernel has (cgroup.controllers of the root)
MAX_RECLAIM_RETRIES = 16
SWAP_CLUSTER_MAX = 32
HZ = 250  # Debian's kernels
MEMCG_CHARGE_BATCH = 64
MAX_HIGH_DELAY_NS = 2_000_000_000
LOCAL_EVENTS, RECURSIVE_PROT = "memory_localevents", "memory_recursiveprot"  # mount options
PAGE_ALLOC_COSTLY_ORDER = 3
MMU_GATHER_PAGES = 8 + 19 * 510  # pages that an exit takes out of the page tables before it frees them all (mm/mmu_gather.c)
SHORT_SLEEP_NS = 1_000_000_000 // 100  # HZ / 100: an excess that costs no more is not slept for


class Cgroup:
    """One directory of /sys/fs/cgroup. Its counters are row `id` of `State.memcgs`; sizes here are in pages."""

    __slots__ = ("id", "name", "path", "parent", "children", "pids", "subtree_control", "min", "low", "swap_max", "swap_high",
                 "events", "events_local", "swap_events", "oom_group", "dying", "max_depth", "max_descendants", "psi", "hugetlb", "cpus",
                 "mems")  # fmt: skip

    def __init__(self, id: int, name: str, parent: Cgroup | None, now: int) -> None:
        self.id = id
        self.name = name
        self.parent = parent
        self.path: str = "/" if parent is None else (parent.path.rstrip("/") + "/" + name)
        self.children: dict[str, Cgroup] = {}
        self.pids: list[int] = []
        self.subtree_control: set[str] = set()
        self.min = 0
        self.low = 0
        self.swap_max = PAGE_COUNTER_MAX
        self.swap_high = PAGE_COUNTER_MAX
        self.events = dict.fromkeys(EVENT_NAMES, 0)  # with those of the children
        self.events_local = dict.fromkeys(EVENT_NAMES, 0)
        self.swap_events = dict.fromkeys(SWAP_EVENT_NAMES, 0)
        self.oom_group = False
        self.dying = False
        self.max_depth: int | None = None
        self.max_descendants: int | None = None
        self.psi = psi.PsiGroup(now)
        self.hugetlb: dict[int, HugetlbCounter] = {}  # by order of the page size
        self.cpus: list[int] = []  # cpuset.cpus, cpuset.mems; empty: the parent's
        self.mems: list[int] = []

    @property
    def controllers(self) -> tuple[str, ...]:
        """Controllers that this cgroup has (cgroup.controllers): all at the root, else what the parent gives."""
        return CONTROLLERS if self.parent is None else tuple(name for name in CONTROLLERS if name in self.parent.subtree_control)

    @property
    def memcg(self) -> Cgroup:
        """The cgroup that pays for the processes in this one: itself, or its nearest ancestor with the memory controller."""
        at = self
        while at.parent is not None and "memory" not in at.controllers:
            at = at.parent
        return at

    @property
    def ancestors(self) -> list[Cgroup]:
        """This cgroup and every one above it, the root last."""
        line = [self]
        while line[-1].parent is not None:
            line.append(line[-1].parent)
        return line

    def __repr__(self) -> str:
        return f"Cgroup({self.id}, {self.path})"


# ---------------------------------------------------------------- the tree


def make_root(k: Kernel) -> Cgroup:
    """Boot: the root cgroup, row 0, without a limit."""
    root = Cgroup(0, "", None, k.clock.now)
    _reset_row(k, root)
    return root


def _reset_row(k: Kernel, cg: Cgroup) -> None:
    """A fresh memory controller: no usage, no limits, no statistics."""
    row = k.s.memcgs[cg.id : cg.id + 1]
    row[:] = np.zeros(1, row.dtype)
    row["parent"] = cg.parent.id if cg.parent is not None else 0
    for limit in ("max", "high", "swap_max", "swap_high"):
        row[limit] = PAGE_COUNTER_MAX
    for node in range(k.nr_nodes):
        lruvec = k.s.lruvecs[cg.id * k.nr_nodes + node : cg.id * k.nr_nodes + node + 1]
        lruvec[:] = np.zeros(1, lruvec.dtype)
        lru_gen.init_lruvec(k, cg.id * k.nr_nodes + node)


def create(k: Kernel, path: str) -> Cgroup:
    """mkdir of a cgroup, e.g. "/app/web" (cgroup_mkdir).

    Errors: EEXIST; ENOENT without its parent; EINVAL for a name with a newline; EAGAIN beyond cgroup.max.depth or
    cgroup.max.descendants; ENOSPC when the machine's table of cgroups is full.
    """
    head, _, name = path.rstrip("/").rpartition("/")
    parent: Cgroup | None = k.cgroup_at(head or "/")
    if not name or k.cgroup_at(path) is not None:
        raise SysError(Errno.EEXIST, f"there is a cgroup {path} already")
    if parent is None:
        raise SysError(Errno.ENOENT, f"no cgroup {head}")
    if "\n" in name:
        raise SysError(Errno.EINVAL, "a cgroup's name cannot hold a newline")
    for up, at in enumerate(parent.ancestors):
        deep = at.max_depth is not None and up + 1 > at.max_depth
        wide = at.max_descendants is not None and sum(1 for _ in subtree(k, at)) > at.max_descendants
        if deep or wide:
            raise SysError(Errno.EAGAIN, f"cgroup.max.{'depth' if deep else 'descendants'} of {at.path} is reached")
    cg = Cgroup(_free_id(k), name, parent, k.clock.now)
    _reset_row(k, cg)
    parent.children[name] = cg
    k.cgroups[cg.id] = cg
    return cg


def _free_id(k: Kernel) -> int:
    """The smallest row that no cgroup, live or dying, holds."""
    release_dying(k)
    if max(k.cgroups) + 1 == len(k.cgroups):  # no gaps
        if len(k.cgroups) < len(k.s.memcgs):
            return len(k.cgroups)
    else:
        return next(id for id in range(1, len(k.s.memcgs)) if id not in k.cgroups)
    raise SysError(Errno.ENOSPC, f"this machine holds {len(k.s.memcgs)} cgroups at most")


def remove(k: Kernel, path: str) -> None:
    """rmdir of a cgroup (cgroup_rmdir). Errors: ENOENT; EBUSY for the root, with children, or with live processes."""
    cg: Cgroup | None = k.cgroup_at(path)
    if cg is None:
        raise SysError(Errno.ENOENT, f"no cgroup {path}")
    if cg.parent is None or cg.children or any(pid in k.tasks and k.tasks[pid].state not in ("zombie", "dead") for pid in cg.pids):
        raise SysError(Errno.EBUSY, "a cgroup with processes or children cannot be removed")
    drain_all_stock(k.s, cg.id)
    hugetlb_cgroup.css_offline(k, cg)
    del cg.parent.children[cg.name]
    cg.dying = True
    k.s.memcgs["offline"][cg.id] = 1
    for inode in k.inodes.values():  # its files pass to the flusher above (cleanup_offline_cgwbs)
        if inode.wb == cg.id:
            inode.wb = cg.parent.memcg.id
    k.flushers.pop(cg.id, None)
    release_dying(k)


def release_dying(k: Kernel) -> None:
    """Forget removed cgroups that pay for nothing any more, the lowest first; their event counts pass to the parent's memory.stat."""
    for cg in [cg for cg in reversed(k.cgroups.values()) if cg.dying]:
        if is_held(k, cg) or cg.parent is None:
            continue
        k.s.memcgs["stat"][cg.parent.id] += k.s.memcgs["stat"][cg.id]
        k.s.memcgs["stat"][cg.id] = 0
        del k.cgroups[cg.id]


def is_held(k: Kernel, cg: Cgroup) -> bool:
    """Does a removed cgroup still pay for something, or one below it?"""
    own = k.s.memcgs["usage"][cg.id] or k.s.memcgs["swap"][cg.id] or cg.pids or k.s.lruvecs["nr"][cg.id * k.nr_nodes : (cg.id + 1) * k.nr_nodes].any()
    return bool(own) or any(is_held(k, child) for child in k.cgroups.values() if child.parent is cg)


def attach(k: Kernel, cg: Cgroup, pid: int) -> None:
    """echo pid > cgroup.procs (cgroup_procs_write): move a process, not its charges.

    Errors: ESRCH for an unknown pid; EBUSY if `cg` gives controllers to its children; ENODEV if it was removed; EINVAL
    for a kernel thread. A zombie stays where it is, without an error.
    """
    task: Task | None = k.tasks.get(pid)
    if task is None or task.state == "dead":
        raise SysError(Errno.ESRCH, f"no process {pid}")
    if cg.dying:
        raise SysError(Errno.ENODEV, f"{cg.path} was removed")
    if cg.parent is not None and cg.subtree_control:
        raise SysError(Errno.EBUSY, f"{cg.path} has controllers in cgroup.subtree_control: only its leaves may hold processes")
    if task.kthread:
        raise SysError(Errno.EINVAL, "a kernel thread stays in the root")
    if task.state == "zombie" or task.cgroup is cg:
        return
    task.cgroup.pids.remove(pid)
    cg.pids.append(pid)
    task.cgroup = cg
    if task.mm is not None:
        k.s.mms["memcg"][task.mm.id], k.s.mms["new"][task.mm.id] = cg.memcg.id, -1
    psi.move(k, task)


def write_subtree_control(k: Kernel, cg: Cgroup, text: str) -> None:
    """echo "+memory" > cgroup.subtree_control (cgroup_subtree_control_write).

    Errors: EINVAL for a word that is not +name or -name of a controller of this kernel; ENOENT if the parent does
    not give the controller; EBUSY when a cgroup other than the root holds processes, or a child passes it on.
    """
    enable, disable = set[str](), set[str]()
    for word in text.split():
        name = word[1:]
        if word[0] not in "+-" or name not in CONTROLLERS:
            raise SysError(Errno.EINVAL, f"{word!r}: write +controller or -controller; there is {', '.join(CONTROLLERS)}")
        add, drop = (enable, disable) if word[0] == "+" else (disable, enable)
        add.add(name)
        drop.discard(name)
    enable -= cg.subtree_control
    disable &= cg.subtree_control
    if not enable <= set(cg.controllers):
        raise SysError(Errno.ENOENT, f"{cg.path} has {' '.join(cg.controllers) or 'no controllers'}")
    if any(disable & child.subtree_control for child in cg.children.values()):
        raise SysError(Errno.EBUSY, "a child passes the controller on to its children")
    if enable and cg.parent is not None and cg.pids:
        raise SysError(Errno.EBUSY, f"{cg.path} holds processes: move them to a leaf first")
    cg.subtree_control |= enable
    cg.subtree_control -= disable
    for child in cg.children.values():
        if "cpuset" in disable:
            child.cpus, child.mems = [], []
        if "hugetlb" in disable:
            hugetlb_cgroup.css_offline(k, child)
        if "memory" in enable | disable:
            _controller_changed(k, child, "memory" in disable)


def _controller_changed(k: Kernel, cg: Cgroup, lost: bool) -> None:
    """A child has got or lost the memory controller: limits begin at their defaults, processes get another payer."""
    if lost:
        set_limit(k, cg, "min", 0)
        set_limit(k, cg, "low", 0)
        cg.oom_group = False
        k.s.memcgs["max"][cg.id] = k.s.memcgs["high"][cg.id] = PAGE_COUNTER_MAX
    for at in subtree(k, cg):
        for pid in at.pids:
            if (task := k.tasks.get(pid)) is not None and task.mm is not None:
                k.s.mms["memcg"][task.mm.id], k.s.mms["new"][task.mm.id] = at.memcg.id, -1


def memcg_event(k: Kernel, cg: Cgroup, kind: str, pid: int | None = None) -> int:
    """Count an event on a cgroup and on every ancestor but the root, and report it: the report's number (memcg_memory_event)."""
    count_event(k, cg, kind, 1)
    limit = int(k.s.memcgs["high" if kind == "high" else "max"][cg.id])
    shown = None if limit == PAGE_COUNTER_MAX else limit * 4096
    return k.emit(MemcgEvent(k.clock.now, cg.path, kind, int(k.s.memcgs["usage"][cg.id]) * 4096, shown, pid))


def count_event(k: Kernel, cg: Cgroup, kind: str, times: int) -> None:
    """An event in memory.events of a cgroup and, unless it is mounted with memory_localevents, of every ancestor but the root."""
    cg.events_local[kind] += times
    for at in [cg] if LOCAL_EVENTS in k.machine.cgroup_mount else cg.ancestors[:-1]:
        at.events[kind] += times


# ---------------------------------------------------------------- charging


def charge(k: Kernel, task: Task | None, cg: Cgroup, nr: int, *, order: int = 0, failed: int = -1, oom: bool = True,
           noretry: bool = False) -> None:  # fmt: skip
    """Charge `nr` pages to a cgroup, with reclaim and the OOM killer behind it (try_charge_memcg).

    Parameters: task that pays by its cgroup (None: the machine's shell); failed: the id that `try_charge` answered in a
    page loop, when it has been tried there already; oom: whether the OOM killer may be called; noretry: one round of reclaim must do.
    Errors: ENOMEM, when nobody could be killed or the order is too large to kill for; TaskKilled when the victim is `task`.
    """
    cpu = task.cpu if task is not None else 0
    over = failed if failed >= 0 else int(charge_exactly(k.s, cpu, cg.memcg.id, nr))
    if over >= 0:
        with recorded_charge(k, task, cg.memcg, nr) as rounds:
            _make_room(k, task, cg.memcg, nr, order, over, oom, noretry, rounds)


def _make_room(k: Kernel, task: Task | None, cg: Cgroup, nr: int, order: int, over: int, oom: bool, noretry: bool,
               rounds: list[dict[str, Any]]) -> None:  # fmt: skip
    """Reclaim from whoever is in the way, and kill when that does not help, until the charge fits."""
    cpu = task.cpu if task is not None else 0
    retries, drained = MAX_RECLAIM_RETRIES, False
    passed_oom = False
    while over >= 0:
        limited: Cgroup = k.cgroups[over]
        number = memcg_event(k, limited, "max", task.pid if task is not None else None)
        with k.because(number):
            with psi.memstall(k, task, "reclaim at memory.max"):
                reclaimed = vmscan.reclaim(k, limited, nr)
            rounds.append({"event": number, "limited": limited.path, "reclaimed_pages": reclaimed})
            if margin(k, limited) < nr:
                if not drained:
                    drain_all_stock(k.s, limited.id)
                    drained = True
                elif noretry:
                    raise SysError(Errno.ENOMEM, f"memory.max of {limited.path} is reached")
                elif reclaimed and nr <= 1 << PAGE_ALLOC_COSTLY_ORDER:
                    pass
                elif retries:
                    retries -= 1
                elif passed_oom and task is not None and task.dying:
                    raise TaskKilled
                elif oom and order <= PAGE_ALLOC_COSTLY_ORDER and mem_cgroup_oom(k, task, limited, order):
                    passed_oom, retries = True, MAX_RECLAIM_RETRIES
                    if task is not None and task.dying:
                        raise TaskKilled
                else:
                    raise SysError(Errno.ENOMEM, f"memory.max of {limited.path} is reached and nobody can be killed for it")
        over = int(charge_again(k.s, cpu, cg.id, nr))


@contextmanager
def recorded_charge(k: Kernel, task: Task | None, cg: Cgroup, nr: int) -> Iterator[list[dict[str, Any]]]:
    """Keep for `explain` what a charge that did not fit led to: the rounds of reclaim, and how it ended."""
    rounds: list[dict[str, Any]] = []
    row = {"clock_ns": k.clock.now, "pid": task.pid if task is not None else None, "cgroup": cg.path, "pages": nr,
           "levels": levels(k, cg), "rounds": rounds, "outcome": "charged"}  # fmt: skip
    try:
        yield rounds
    except TaskKilled:
        row["outcome"] = "killed"
        raise
    except SysError as refusal:
        row["outcome"] = refusal.errno.name
        raise
    finally:
        keep(k.records.charges, row)


def levels(k: Kernel, cg: Cgroup) -> list[dict[str, Any]]:
    """A cgroup and its ancestors below the root, each with what it uses and may use, bytes (None: no limit)."""
    rows = [(at.path, k.s.memcgs[at.id]) for at in cg.ancestors[:-1]]
    return [{"cgroup": path, "usage": int(row["usage"]) * 4096, "max": in_bytes(row["max"]), "high": in_bytes(row["high"])} for path, row in rows]


def in_bytes(pages: int) -> int | None:
    """A limit in bytes; None for "max"."""
    return None if int(pages) == PAGE_COUNTER_MAX else int(pages) * 4096


def margin(k: Kernel, cg: Cgroup) -> int:
    """Pages that a cgroup may still be charged (mem_cgroup_margin)."""
    row = k.s.memcgs[cg.id]
    return max(int(row["max"]) - int(row["usage"]), 0)


def mem_cgroup_oom(k: Kernel, task: Task | None, cg: Cgroup, order: int) -> bool:
    """The `oom` event, then the OOM killer within a cgroup's subtree: whether anybody was killed."""
    with k.because(memcg_event(k, cg, "oom", task.pid if task is not None else None)):
        return bool(oom_kill.out_of_memory(k, task, "GFP_KERNEL", order, cg))


def set_max(k: Kernel, cg: Cgroup, pages: int) -> None:
    """memory.max: reclaim, then kill, until usage fits or nobody is left (memory_max_write). Never fails.

    The writer looks again and again while the victim dies on another processor. The victim counts as dead (MMF_OOM_SKIP) before the
    last of its pages are uncharged, so one more process may die than had to: 25M in use, 24M allowed, of two processes with 8M and
    16M of their own both are killed.
    """
    k.s.memcgs["max"][cg.id] = pages
    retries, drained, gathered = MAX_RECLAIM_RETRIES, False, 0
    while (usage := int(k.s.memcgs["usage"][cg.id])) + gathered > pages:
        if not drained:
            drain_all_stock(k.s, cg.id)
            drained = True
        elif retries:
            if not vmscan.reclaim(k, cg, usage - pages):
                retries -= 1
        elif not mem_cgroup_oom(k, None, cg, 0):
            return
        else:
            freed = max(usage - int(k.s.memcgs["usage"][cg.id]), 0)
            gathered = freed % MMU_GATHER_PAGES
            k.clock.spend(freed * k.costs.zap_pte)
            count_event(k, cg, "oom", freed * k.costs.zap_pte // k.costs.oom_look)


def set_high(k: Kernel, cg: Cgroup, pages: int) -> None:
    """memory.high: reclaim only, up to 16 rounds without progress (memory_high_write). Never fails, never kills."""
    k.s.memcgs["high"][cg.id] = pages
    retries, drained = MAX_RECLAIM_RETRIES, False
    while (usage := int(k.s.memcgs["usage"][cg.id])) > pages and retries:
        if not drained:
            drain_all_stock(k.s, cg.id)
            drained = True
        elif not vmscan.reclaim(k, cg, usage - pages):
            retries -= 1


def set_limit(k: Kernel, cg: Cgroup, name: str, pages: int) -> None:
    """memory.min, .low, .swap.max, .swap.high: kept where the loops find them."""
    setattr(cg, name, pages)
    k.s.memcgs[name][cg.id] = pages


def reclaim_now(k: Kernel, cg: Cgroup, pages: int) -> None:
    """memory.reclaim: free that many pages of the subtree, in up to 16 fruitless rounds (memory_reclaim). Errors: EAGAIN."""
    freed, retries = 0, MAX_RECLAIM_RETRIES
    while freed < pages:
        got = vmscan.reclaim(k, cg, pages - freed, "memcg")
        if not got:
            if not retries:
                raise SysError(Errno.EAGAIN, f"{freed} of {pages} pages could be reclaimed")
            retries -= 1
        freed += got


def reclaim_order(k: Kernel, cg: Cgroup) -> list[Cgroup]:
    """Who is visited when `cg` must give memory back: itself, then everything below, removed cgroups included."""
    return subtree(k, cg, dying=True)


def resume_user_mode(k: Kernel, task: Task, allowed: int = 0) -> None:
    """A task that charged more than `allowed` pages above memory.high pays before it goes on.

    On its way out of a call (0), and within one that charges page after page (MEMCG_CHARGE_BATCH, try_charge_memcg).
    """
    if k.s.ctl[CTL_OVER_HIGH] > allowed:
        if task.mm is not None and not task.dying and k.panicked is None:
            handle_over_high(k, task)
        k.s.ctl[CTL_OVER_HIGH] = 0


def handle_over_high(k: Kernel, task: Task) -> None:
    """On the way back to user space a task answers for what it charged above memory.high (mem_cgroup_handle_over_high).

    Reclaim at every ancestor that is over; then a sleep that grows with the square of the overage, and with that of swap above
    memory.swap.high, at most 2 s together; not at all while reclaim makes progress, nor if it would be 10 ms or less.
    """
    nr = int(k.s.ctl[CTL_OVER_HIGH])
    k.s.ctl[CTL_OVER_HIGH] = 0
    cg = task.cgroup.memcg
    retries, in_retry = MAX_RECLAIM_RETRIES, False
    told: dict[str, Any] = {"clock_ns": k.clock.now, "event": 0, "pid": task.pid, "cgroup": cg.path, "pages": nr,
                            "levels": levels(k, cg), "reclaimed_pages": 0}  # fmt: skip
    keep(k.records.throttles, told)
    while True:
        freed = reclaim_high(k, task, cg, SWAP_CLUSTER_MAX if in_retry else nr)
        excess, swapped = max_overage(k, cg), swap_overage(k, cg)
        delay = min(high_delay_ns(nr, excess) + high_delay_ns(nr, swapped), MAX_HIGH_DELAY_NS)
        told.update(reclaimed_pages=told["reclaimed_pages"] + freed, overage=excess, swap_overage=swapped, delay_ns=delay,
                    slept=delay > SHORT_SLEEP_NS)  # fmt: skip
        if delay <= SHORT_SLEEP_NS:
            return
        if not freed:
            if not retries:
                break
            retries -= 1
        in_retry = True
    with psi.memstall(k, task, "the sleep that memory.high costs"):
        psi.schedule_timeout(k, delay)
    row = k.s.memcgs[cg.id]
    told["event"] = k.emit(MemcgEvent(k.clock.now, cg.path, "throttle", int(row["usage"]) * 4096, int(row["high"]) * 4096, task.pid, delay))


def reclaim_high(k: Kernel, task: Task, cg: Cgroup, nr: int) -> int:
    """Reclaim `nr` pages at each ancestor above its memory.high, with a `high` event each: pages freed."""
    freed = 0
    for at in cg.ancestors[:-1]:
        row = k.s.memcgs[at.id]
        if int(row["usage"]) > int(row["high"]):
            with k.because(memcg_event(k, at, "high")), psi.memstall(k, task, "reclaim above memory.high"):
                freed += vmscan.reclaim(k, at, nr)
    return freed


def max_overage(k: Kernel, cg: Cgroup) -> int:
    """The largest (usage - high) / high of a cgroup and its ancestors, in units of 2^-20 (mem_find_max_overage)."""
    rows = [k.s.memcgs[at.id] for at in cg.ancestors[:-1]]
    return max((overage(int(row["usage"]), int(row["high"])) for row in rows), default=0)


def swap_overage(k: Kernel, cg: Cgroup) -> int:
    """The same of swap and memory.swap.high; each cgroup that is over gets a `high` of memory.swap.events (swap_find_max_overage)."""
    worst = 0
    for at in cg.ancestors[:-1]:
        row = k.s.memcgs[at.id]
        if over := overage(int(row["swap"]), int(row["swap_high"])):
            row["swap_events"][SWAP_EVENT_HIGH] += 1
            worst = max(worst, over)
    return worst


def overage(usage: int, high: int) -> int:
    """How far usage is above high, as a share of it in units of 2^-20 (calculate_overage)."""
    return ((usage - high) << 20) // max(high, 1) if usage > high else 0


def high_delay_ns(nr: int, overage: int) -> int:
    """How long an excess of `overage` (2^-20) costs a charge of `nr` pages (calculate_high_delay): at most 2 s.

    overage^2 * HZ >> 34 jiffies for 64 pages: 5 % over costs 64 pages 160 ms, 10 % 640 ms.
    """
    return min(high_delay_jiffies(nr, overage) * (1_000_000_000 // HZ), MAX_HIGH_DELAY_NS)


def high_delay_jiffies(nr: int, overage: int) -> int:
    """The same in ticks, before it is cut off."""
    return (overage * overage * HZ >> 20 >> 14) * nr // MEMCG_CHARGE_BATCH


# ---------------------------------------------------------------- what the files show

# memory.stat, in 6.1's order: (key, column of MEMCG_STATS, bytes per unit)
_PAGES, _KB, _BYTES = 4096, 1024, 1
STAT_MEMORY: tuple[tuple[str, str, int], ...] = (
    ("anon", "nr_anon_pages", _PAGES), ("file", "nr_file_pages", _PAGES), ("kernel", "kernel", _PAGES),
    ("kernel_stack", "kernel_stack", _KB), ("pagetables", "pagetables", _PAGES),
    ("sec_pagetables", "nr_sec_page_table_pages", _PAGES), ("percpu", "percpu", _BYTES), ("sock", "sock", _PAGES),
    ("vmalloc", "vmalloc", _PAGES), ("shmem", "nr_shmem", _PAGES), ("zswap", "zswap", _BYTES), ("zswapped", "zswapped", _PAGES),
    ("file_mapped", "nr_mapped", _PAGES), ("file_dirty", "nr_dirty", _PAGES), ("file_writeback", "nr_writeback", _PAGES),
    ("swapcached", "nr_swapcached", _PAGES), ("anon_thp", "nr_anon_transparent_hugepages", _PAGES),
    ("file_thp", "nr_file_hugepages", _PAGES), ("shmem_thp", "nr_shmem_hugepages", _PAGES),
)  # fmt: skip
STAT_LRU = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
STAT_WORKINGSET = ("workingset_refault_anon", "workingset_refault_file", "workingset_activate_anon", "workingset_activate_file",
                   "workingset_restore_anon", "workingset_restore_file", "workingset_nodereclaim")  # fmt: skip
STAT_EVENTS = ("pgscan_kswapd", "pgscan_direct", "pgsteal_kswapd", "pgsteal_direct", "pgfault", "pgmajfault", "pgrefill", "pgactivate",
               "pgdeactivate", "pglazyfree", "pglazyfreed", "zswpin", "zswpout", "thp_fault_alloc", "thp_collapse_alloc")  # fmt: skip


def stat(k: Kernel, cg: Cgroup) -> dict[str, int]:
    """memory.stat of a cgroup and everything below it, in the file's order; memory in bytes, events as counts (CG-34)."""
    ids = [at.id for at in subtree(k, cg, dying=True)]
    total = k.s.memcgs["stat"][ids].sum(axis=0)
    rows = [id * k.nr_nodes + node for id in ids for node in range(k.nr_nodes)]
    lists = k.s.lruvecs["nr"][rows].sum(axis=0)
    out = {key: int(total[MEMCG[column]]) * unit for key, column, unit in STAT_MEMORY}
    out |= {key: int(lists[lru]) * _PAGES for lru, key in enumerate(STAT_LRU)}
    reclaimable, unreclaimable = int(total[MEMCG_SLAB_RECLAIMABLE_B]), int(total[MEMCG_SLAB_UNRECLAIMABLE_B])
    out |= {"slab_reclaimable": reclaimable, "slab_unreclaimable": unreclaimable, "slab": reclaimable + unreclaimable}
    out |= {key: int(total[MEMCG[key]]) for key in STAT_WORKINGSET}
    for key in ("pgscan", "pgsteal"):
        out[key] = int(total[MEMCG[key + "_kswapd"]] + total[MEMCG[key + "_direct"]])
    out |= {key: int(total[MEMCG[key]]) for key in STAT_EVENTS}
    return out


def current(k: Kernel, cg: Cgroup) -> int:
    """memory.current in bytes: charged pages, with what the cpus hold in stock."""
    return int(k.s.memcgs["usage"][cg.id]) * _PAGES


def peak(k: Kernel, cg: Cgroup) -> int:
    """memory.peak in bytes: the highest memory.current since the cgroup was made."""
    return int(k.s.memcgs["watermark"][cg.id]) * _PAGES


def swap_events(k: Kernel, cg: Cgroup) -> dict[str, int]:
    """memory.swap.events: of the cgroup and all below it."""
    rows = [at.id for at in subtree(k, cg, dying=True)]
    total = k.s.memcgs["swap_events"][rows].sum(axis=0)
    return {name: int(total[i]) for i, name in enumerate(SWAP_EVENT_NAMES)}


def swap_usage(k: Kernel, cg: Cgroup) -> int:
    """memory.swap.current in pages: swap slots that the subtree pays for."""
    return int(k.s.memcgs["swap"][cg.id])


def swap_in_use(k: Kernel) -> int:
    """Swap slots in use on all devices, pages."""
    return int(k.s.swaps["used"].sum())


NUMA_ITEMS = ("anon", "file", "kernel_stack", "pagetables", "sec_pagetables", "shmem", "file_mapped", "file_dirty", "file_writeback",
              "swapcached", "anon_thp", "file_thp", "shmem_thp", *STAT_LRU, "slab_reclaimable", "slab_unreclaimable",
              *STAT_WORKINGSET)  # fmt: skip
_BY_PAGE = ("anon", "file", "pagetables", "shmem", "file_mapped", "file_dirty", "file_writeback", "swapcached")


def numa_stat(k: Kernel, cg: Cgroup) -> dict[str, list[int]]:
    """memory.numa_stat: for each item its bytes (workingset: counts) on node 0, node 1, ... (CG-38).

    What is kept per cgroup only (kernel stacks, slab, workingset) is shown on node 0.
    """
    whole = stat(k, cg)
    out = {key: [whole[key]] + [0] * (k.nr_nodes - 1) for key in NUMA_ITEMS}
    if k.nr_nodes == 1:
        return out
    ids = [at.id for at in subtree(k, cg, dying=True)]
    wanted = np.zeros(len(k.s.memcgs), np.int64)
    wanted[ids] = 1
    counts = np.zeros((len(_BY_PAGE), k.nr_nodes), np.int64)
    _count_by_node(k.s, wanted, counts)
    for row, key in enumerate(_BY_PAGE):
        out[key] = [int(pages) * _PAGES for pages in counts[row]]
    for lru, key in enumerate(STAT_LRU):
        out[key] = [int(sum(k.s.lruvecs["nr"][id * k.nr_nodes + node][lru] for id in ids)) * _PAGES for node in range(k.nr_nodes)]
    return out


@njit
def _count_by_node(s: State, wanted, counts) -> None:
    """Frames of the wanted cgroups by node, one row a kind in the order of _BY_PAGE."""
    for zid in range(len(s.zones)):
        zone = s.zones[zid]
        node = zid // ZONES_PER_NODE
        for pfn in range(zone.start_pfn, zone.start_pfn + zone.spanned):
            head = compound_head(s, pfn)
            page = s.mem[head]
            flags = page["flags"]
            if page.refcount == 0 or wanted[page.memcg] == 0:
                continue
            if flags & PG_TABLE:
                counts[2, node] += 1
            elif flags & (PG_ANON | PG_SWAPCACHE):
                counts[0, node] += 1 if page_mapcount(s, pfn) > 0 else 0
                counts[7, node] += 1 if flags & PG_SWAPCACHE else 0
            elif page.mapping:
                counts[1, node] += 1
                counts[3, node] += 1 if flags & PG_SHMEM else 0
                counts[4, node] += 1 if page.mapcount > 0 else 0
                counts[5, node] += 1 if flags & PG_DIRTY and not flags & PG_SHMEM else 0
                counts[6, node] += 1 if flags & PG_WRITEBACK else 0
