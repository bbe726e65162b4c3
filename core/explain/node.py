"""Why this node: where a process's next page would come from, zone by zone in the order in which Linux asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.mm import cpuset, mempolicy, numa_migrate, pgtable
from core.mm.mm_types import CTL_RECLAIM_MODE, WMARK_LOW, ZONE_MOVABLE, ZONE_NAMES
from core.mm.mmzone import cpu_to_node
from core.mm.page_alloc import would_reclaim
from core.mm.vma import vma_lookup
from core.sched.task import find_task

if TYPE_CHECKING:
    from core.kernel import Kernel

WHY_ZONE = {
    "not_allowed": "the memory policy or the cpuset leaves this node out",
    "below": "its free pages are below the low mark (with what it keeps for others): passed over unless kswapd and the min mark change that",
    "reclaimed": "below it, too, but vm.zone_reclaim_mode has this node reclaimed before a request goes on to another",
    "chosen": "the first in the order that is above its mark",
    "later": "an earlier zone can give",
}


def explain_node(k: Kernel, pid: int, address: int | None = None) -> dict[str, Any]:
    """Where a process's next page would come from, and why; with an `address`, a page of that mapping, and where the page there lies.

    policy: the one in force and whose it is. mems_allowed: the cpuset's nodes. first_node: the node whose zonelist is asked. zones: in that order,
    free pages against the low mark, with what is said about each (`verdicts`). LookupError for an unknown pid.
    """
    task = find_task(k, pid)
    vma = vma_lookup(task.mm, address >> 12) if task.mm is not None and address is not None else None
    policy, whose = _policy(task, vma, address)
    local, mems = cpu_to_node(k, task.cpu), cpuset.mems_allowed(k, task)
    start, allowed, why = _first_node(k, policy, local, mems, vma, address)
    zones = _zones_in_order(k, start, allowed, local)
    chosen = next((zone["node"] for zone in zones if zone["verdict"] in ("chosen", "reclaimed")), None)
    return {
        "pid": pid,
        "comm": task.comm,
        "cpu": task.cpu,
        "local_node": local,
        "policy": {"whose": whose, "mode": policy.mode, "nodes": list(policy.nodes)} if policy else {"whose": None, "mode": "default", "nodes": []},
        "mems_allowed": mems,
        "first_node": start,
        "why": why,
        "distances": list(k.machine.distances[start]),
        "zones": zones,
        "verdicts": WHY_ZONE,
        "node": chosen,
        "page": _where(k, task, address) if address is not None else None,
    }  # fmt: skip


def _policy(task: Any, vma: Any, address: int | None) -> tuple[Any, str]:
    """The policy in force, and whose it is: the object's behind shared memory, the mapping's, or else the process's."""
    if vma is not None and address is not None and mempolicy.keeps_policies(vma):
        kept = mempolicy.policy_at(vma.file, (address >> 12) - vma.start + vma.pgoff)[2]
        return (kept, "object") if kept is not None else (task.policy, "process")
    return (vma.policy, "mapping") if vma is not None and vma.policy is not None else (task.policy, "process")


def _first_node(k: Kernel, policy: Any, local: int, mems: list[int], vma: Any, address: int | None) -> tuple[int, list[int], str]:
    """The node whose zonelist is asked, the nodes that may give, and the reason in words."""
    if policy is None or policy.mode in ("default", "local"):
        return local, mems, "no policy says otherwise: the node of the CPU that runs the process"
    if policy.mode == "interleave":
        page = (address >> 12) - vma.start + vma.pgoff if vma is not None and address is not None else None
        if page is None:
            return policy.nodes[0], mems, "interleaved: a page of a mapping goes by its place; say which address"
        return policy.nodes[page % len(policy.nodes)], mems, f"interleaved: page {page} of the mapping, node number {page} mod {len(policy.nodes)}"
    if policy.mode == "preferred":
        return policy.nodes[0], mems, "preferred: this node first, others when it is full"
    nodes = [node for node in policy.nodes if node in mems] or mems
    if policy.mode == "preferred_many":
        return local, nodes, "the policy prefers these nodes, the nearest first; others when all are full"
    return local, nodes, "bound: these nodes and no others, the nearest first"


def _zones_in_order(k: Kernel, start: int, allowed: list[int], local: int) -> list[dict[str, Any]]:
    found, given = [], False
    for zid in (int(zid) for zid in k.s.zonelists[start] if zid >= 0):
        zone = k.s.zones[zid]
        node, free = int(zone["node"]), int(zone["free"])
        need = int(zone["wmark"][WMARK_LOW]) + int(zone["boost"]) + int(zone["lowmem_reserve"][ZONE_MOVABLE])
        verdict = "not_allowed" if node not in allowed else "below" if free <= need else "later" if given else "chosen"
        near, here = int(zone["near"]) >> start & 1, node == local or not zone["has_cpu"]
        if verdict == "below" and not given and int(k.s.ctl[CTL_RECLAIM_MODE]) and near and here and would_reclaim(k.s, node):
            verdict = "reclaimed"
        given = given or verdict in ("chosen", "reclaimed")
        found.append({"node": node, "zone": ZONE_NAMES[int(zone["type"])], "free": free, "needs_more_than": need, "verdict": verdict})
    return found


def _where(k: Kernel, task: Any, address: int) -> dict[str, Any]:
    """The page that is mapped at an address: its node, and how far that is from the CPU."""
    node = numa_migrate.do_pages_stat(k, task, [address >> 12])[0] if task.mm is not None else -1
    if task.mm is None or node < 0:
        return {"address": address, "node": None, "distance": None, "why": "no page is mapped there"}
    pte = pgtable.entry(k, task.mm, address >> 12) or pgtable.pmd_entry(k, task.mm, address >> 12)
    hinted = pte & (pgtable.PTE_P | pgtable.PTE_PROTNONE) == pgtable.PTE_PROTNONE
    hint = " An access would be a hint fault of NUMA balancing." if hinted else ""
    here = cpu_to_node(k, task.cpu)
    return {"address": address, "node": node, "distance": k.machine.distances[here][node],
            "why": ("it is local." if node == here else "it lies on another node than the CPU.") + hint}  # fmt: skip
