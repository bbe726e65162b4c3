"""Memory policies: which NUMA node an allocation is taken from (mm/mempolicy.c).

A policy belongs to a process (`set_mempolicy`: kept by exec, inherited by fork) or to a range of addresses (`mbind`),
which wins. Setting one on part of a mapping splits it; equal neighbours merge again.

    default         the process's policy, or local
    local           the node of the CPU that faults
    preferred       that node, others if it is full           preferred_many    the same for several nodes
    bind            these nodes and no others: when they are full the OOM killer looks for CONSTRAINT_MEMORY_POLICY
    interleave      page by page round these nodes

Who follows which. Pages of a mapping follow the mapping's policy: anonymous ones, copies on write, shared memory, pages back
from swap. Page tables and the page cache of files follow the process's. Stacks, top-level tables and slab of
the kernel itself are local here.

Interleaving has two clocks. A page of a mapping goes by its place: node number (address / 4096) mod n of the policy's n nodes
(shared memory: page of the object + its inode number), so touching every second page of a mapping over two nodes fills one of
them. Whatever has no address goes by turns: `il_prev`, one node on each time, copied by fork, begun anew by set_mempolicy.

A policy is one of: where to begin (`preferred`), and which nodes may give (`bind`). The zones are then asked in the zonelist's
order, own node first, and the statistics compare with the first that may give:

    process on node 1, bind to 0 and 3     zonelist 1 2 3 0: node 3 is asked first, and a page from it is a numa_hit and numa_other
    preferred 0, node 0 is full            node 1 gives: numa_miss there, numa_foreign at node 0

`numa_hit + numa_miss` of a node is `numa_local + numa_other`; over all nodes as many misses as foreigns. The loops' side is
`page_ops.alloc_by_policy`; what they need to know stands in `State.vmf` (`in_force`).

When the nodes of a `bind` are full, only their kswapds run, only they are reclaimed, and the OOM killer passes over tasks that are
bound to other nodes. `preferred_many` gives its nodes up before it reclaims.

Shared memory keeps the policies that `mbind` gives to parts of it in the object (`policy_at`): whoever faults a page in next follows it, whatever
he himself was told. A mapping's own policy counts for nothing there; where the object has none the process's own holds. A page loop asks the
object when it comes to a hole outside the range that it knows of (`page_ops.ASK_OBJECT`).

    A, B share 16M; A: mbind 0..8M bind 1; B, on node 0, touches 12M     8M on node 1, 4M on node 0

Moving pages: `numa_migrate`.

Source: mm/mempolicy.c:vma_alloc_folio, alloc_pages, interleave_nid, policy_node, policy_nodemask, mempolicy_in_oom_domain; facts NU-01..08.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mempolicy import MODES, MPOL_BIND, MPOL_DEFAULT, MPOL_INTERLEAVE, MPOL_PREFERRED, MPOL_PREFERRED_MANY
from core.abi.mman import PAGE_SHIFT, PAGE_SIZE
from core.mm.mm_types import EVERYWHERE, HPAGE_PMD_NR, HPAGE_PMD_ORDER
from core.mm.vma import set_vma, vmas_between

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Inode, Vma
    from core.sched.task import Task


@dataclass(frozen=True, slots=True)
class Mempolicy:
    """A policy as a value: mode by name, nodes in order, and how they were meant ("static", "relative" or "")."""

    mode: str
    nodes: tuple[int, ...] = ()
    how: str = ""
    asked: tuple[int, ...] = ()  # static, relative: the nodes as the program named them

    @property
    def mask(self) -> int:
        """Its nodes as bits."""
        return sum(1 << node for node in self.nodes)


def in_force(task: Task | None, vma: Vma | None) -> tuple[int, int, int, int, int, int]:
    """What a page loop must know (`State.vmf`): is there any policy; mode and nodes for pages of the mapping; the task's own; its cpuset's nodes."""
    own, mems = (task.policy, task.mems) if task is not None else (None, 0)
    if own is None and (vma is None or vma.policy is None):
        return 0, 0, 0, 0, 0, mems
    of_vma = (vma.policy if vma is not None and not keeps_policies(vma) else None) or own
    if of_vma is None:
        return 0, 0, 0, 0, 0, mems
    return 1, MODES[of_vma.mode], of_vma.mask, MODES[own.mode] if own else 0, own.mask if own else 0, mems


# ---------------------------------------------------------------- shared memory keeps its policies itself


def keeps_policies(vma: Vma) -> bool:
    """Is it the object behind a mapping that has the policies (vm_ops->set_policy): shared memory?"""
    return vma.file is not None and vma.file.shmem


def policy_at(inode: Inode, index: int) -> tuple[int, int, Mempolicy | None]:
    """The policy of a page of an object, None for none, and the pages [first, last) it holds for (mpol_shared_policy_lookup)."""
    low, high = 0, EVERYWHERE
    for first, last, policy in inode.policies:
        if first <= index < last:
            return first, last, policy
        low, high = (max(low, last), high) if last <= index else (low, min(high, first))
    return low, high, None


def set_shared_policy(inode: Inode, start: int, end: int, policy: Mempolicy | None) -> None:
    """The pages [start, end) of an object have this policy from now on, for whoever faults them in (mpol_set_shared_policy)."""
    pieces = [(first, min(last, start), old) for first, last, old in inode.policies if first < start]
    pieces += [(max(first, end), last, old) for first, last, old in inode.policies if last > end]
    if policy is not None:
        pieces.append((start, end, policy))
    inode.policies = sorted((piece for piece in pieces if piece[0] < piece[1]), key=lambda piece: piece[0])


def policy_of(task: Task, vma: Vma) -> Mempolicy | None:
    """What a mapping's first page goes by: its object's policy, or its own, or the task's (get_vma_policy)."""
    own = policy_at(vma.file, vma.pgoff)[2] if vma.file is not None and keeps_policies(vma) else vma.policy
    return own or task.policy


def ask_object(k: Kernel, task: Task | None, vma: Vma, index: int) -> None:
    """A page loop is about to fill a hole of an object: the policy for it, and for how many pages around, into `State.vmf`."""
    assert vma.file is not None
    first, last, policy = policy_at(vma.file, index)
    own = task.policy if task is not None else None
    v = k.s.vmf[0]
    v["of_start"], v["of_end"] = first, last
    chosen = policy or own
    v["policy"] = int(chosen is not None)
    v["mode"], v["nodes"] = (MODES[chosen.mode], chosen.mask) if chosen is not None else (0, 0)
    v["task_mode"], v["task_nodes"] = (MODES[own.mode], own.mask) if own is not None else (0, 0)


def place(k: Kernel, vpn: int, *, huge: bool) -> tuple[int, int]:
    """Where the policy in `State.vmf` wants a page of the mapping, or the huge page around it.

    The node whose zonelist is asked, and a mask of those that may give (0: all).
    """
    v = k.s.vmf[0]
    node, mask, mode = int(v["node"]), int(v["nodes"]), int(v["mode"]) if int(v["policy"]) else MPOL_DEFAULT
    nodes = [one for one in range(k.nr_nodes) if mask >> one & 1]
    if mode == MPOL_INTERLEAVE:
        start, pgoff = int(v["vm_start"]), int(v["vm_pgoff"])
        turn = (pgoff >> HPAGE_PMD_ORDER) + (((vpn & -HPAGE_PMD_NR) - start) >> HPAGE_PMD_ORDER) if huge else vpn - start + pgoff
        return nodes[turn % len(nodes)], 0
    if mode == MPOL_PREFERRED:
        return nodes[0], 0
    return node, mask if mode in (MPOL_BIND, MPOL_PREFERRED_MANY) else 0


def make_policy(k: Kernel, task: Task, mode: str, nodes: Sequence[int], flags: Sequence[str] = ()) -> Mempolicy | None:
    """A policy from a call's arguments, None for the default. EINVAL as mpol_new and sanitize_mpol_flags give it."""
    static, relative = "static_nodes" in flags, "relative_nodes" in flags
    if static and relative:
        raise SysError(Errno.EINVAL, "nodes are either static or relative")
    if mode == "default":
        if nodes:
            raise SysError(Errno.EINVAL, "the default policy takes no nodes")
        return None
    asked = tuple(sorted(set(nodes)))
    if mode == "local" or (mode == "preferred" and not asked):
        if asked or static or relative:
            raise SysError(Errno.EINVAL, "the local policy takes no nodes and no node flags")
        return Mempolicy("local")
    mine = [node for node in range(k.nr_nodes) if not task.mems or task.mems >> node & 1]
    there = tuple(sorted({mine[node % len(mine)] for node in asked})) if relative else tuple(node for node in asked if node in mine)
    if not there:
        raise SysError(Errno.EINVAL, f"no such node: the process may use {', '.join(map(str, mine))} of this machine's 0 to {k.nr_nodes - 1}")
    if mode == "preferred":
        there = there[:1]
    return Mempolicy(mode, there, "static" if static else "relative" if relative else "", asked if static or relative else ())


def do_set_mempolicy(k: Kernel, task: Task, mode: str, nodes: Sequence[int], flags: Sequence[str]) -> None:
    """set_mempolicy(2): the process's own policy. Errors: EINVAL."""
    task.policy = make_policy(k, task, mode, nodes, flags)
    if task.policy is not None and task.policy.mode == "interleave" and task.mm is not None:
        k.s.mms["il_prev"][task.mm.id] = -1


def do_mbind(k: Kernel, task: Task, address: int, length: int, mode: str, nodes: Sequence[int], flags: Sequence[str]) -> None:
    """mbind(2): the policy of a range. Errors: EINVAL, EFAULT (a hole)."""
    if address & (PAGE_SIZE - 1):
        raise SysError(Errno.EINVAL, "the address is not a multiple of 4096")
    policy = make_policy(k, task, mode, nodes, flags)
    start = address >> PAGE_SHIFT
    end = start + (((length + PAGE_SIZE - 1) & ((1 << 64) - 1)) >> PAGE_SHIFT)
    if end << PAGE_SHIFT > 1 << 64:
        raise SysError(Errno.EINVAL, "the range wraps around")
    if end == start:
        return
    mm = task.mm
    assert mm is not None
    at = start
    for vma in vmas_between(mm, start, end):
        if vma.start > at:
            break
        at = vma.end
    if at < end and policy is not None:
        raise SysError(Errno.EFAULT, "part of the range is not mapped")
    at = start
    while at < end:
        inside = vmas_between(mm, at, end)
        if not inside:
            break
        vma = inside[0]
        low, high = max(vma.start, at), min(vma.end, end)
        if vma.file is not None and keeps_policies(vma):
            set_shared_policy(vma.file, low - vma.start + vma.pgoff, high - vma.start + vma.pgoff, policy)
        if vma.policy != policy:
            set_vma(k, vma, low, high, vma.flags, policy)
        at = high
