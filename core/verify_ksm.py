"""What must hold of KSM: its lists, trees, chains and counters (a rule of `verify`).

    an address space's rmap_items     ascending, counted in ksm_items; those that are merged in ksm_merging
    a stable node's rmap_items        a list with both links, as long as the node says; pages_shared counts lists, pages_sharing what is beyond one
    a tree                            a red-black tree; every stable node is in a tree, in one chain, or waiting to change trees
    a KSM page                        anonymous, exclusive to nobody, the frame of its node
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np

from core.abi.page_flags import PG_ANON, PG_ANON_EXCLUSIVE, PG_KSM
from core.jit import njit
from core.mm.mm_types import KSM_CHAIN, KSM_STABLE, KSM_UNSTABLE, State
from core.mm.rbtree import rb_check
from core.panic import KernelBug

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array


def broken(detail: str) -> NoReturn:
    """The rule does not hold."""
    raise KernelBug(f"ksm: {detail}")


@njit
def walk_items(s: State, row: int, mm: int, seen, found) -> int:
    """One address space's rmap_items: found = [items, in the unstable tree, in the stable tree]. Answers the first wrong row, or 0."""
    before = -1
    while row:
        item = s.ksm_items[row]
        seen[row] += 1
        if seen[row] > 1 or item["mm"] != mm or item["vpn"] <= before:
            return row
        before = item["vpn"]
        found[0] += 1
        if item["state"] == KSM_UNSTABLE:
            found[1] += 1
        elif item["state"] == KSM_STABLE:
            found[2] += 1
        row = item["next"]
    return 0


@njit
def walk_sharers(s: State, node: int, found) -> bool:
    """A stable node's list: its length and back links; found = [pages shared, sharing]."""
    row, before, n = s.ksm_nodes[node]["first"], 0, 0
    while row:
        item = s.ksm_items[row]
        if item["head"] != node or item["state"] != KSM_STABLE or item["hprev"] != before:
            return False
        n += 1
        before = row
        row = item["hnext"]
    found[0] += n > 0
    found[1] += max(n - 1, 0)
    return n == s.ksm_nodes[node]["len"]


def shared_pages_add_up(k: Kernel, _: object) -> None:
    """KSM: rmap_items, trees, chains and lists of sharers are whole; a KSM page is read-only everywhere and known to its node."""
    c, nodes = k.s.ksm[0], k.s.ksm_nodes
    seen = np.zeros(int(c["item_next"]) + 1, np.int64)
    found = np.zeros(3, np.int64)
    for mm_id in k.ksmd.slots:
        before = found.copy()
        if wrong := int(walk_items(k.s, int(k.s.mms["ksm_list"][mm_id]), mm_id, seen, found)):
            broken(f"rmap_item {wrong} of mm {mm_id} is out of order")
        mine = (found - before).tolist()
        row = k.s.mms[mm_id]
        if [int(row["ksm_items"]), int(row["ksm_merging"])] != [mine[0], mine[2]]:
            broken(f"mm {mm_id} counts {int(row['ksm_items'])} rmap_items and {int(row['ksm_merging'])} merged, has {mine}")
    stable = _stable_nodes(k)
    shared = np.zeros(2, np.int64)
    for node in stable:
        if nodes["len"][node] != KSM_CHAIN and not walk_sharers(k.s, node, shared):
            broken(f"stable node {node} and its rmap_items do not agree: {nodes[node]}")
    counts = {"rmap_items": found[0], "pages_unshared": found[1], "pages_shared": shared[0], "pages_sharing": shared[1], "nodes": len(stable)}
    for name, count in counts.items():
        if int(c[name]) != int(count):
            broken(f"{name} is {int(c[name])}, found {int(count)}")
    _ksm_pages(k)


def _stable_nodes(k: Kernel) -> list[int]:
    """Every stable node, from the trees, the chains and the list of those that wait for another tree."""
    c, nodes = k.s.ksm[0], k.s.ksm_nodes
    seen = np.zeros(int(c["node_next"]) + 1, np.int64)
    for nid in range(k.nr_nodes):
        n = int(rb_check(nodes, c["stable"], nid, seen))
        if n < 0:
            broken(f"the stable tree of node {nid} is no red-black tree at {-1 - n}")
    out = np.flatnonzero(seen).tolist()
    chains = [node for node in out if nodes["len"][node] == KSM_CHAIN]
    dups = [dup for chain in chains for dup in _listed(k, int(nodes["first"][chain]), seen)]
    if any(len({int(k.s.mem["content"][nodes["kpfn"][dup]]) for dup in _live(k, chain)}) > 1 for chain in chains):
        broken("the dups of a chain differ in content")
    if (len(chains), len(dups)) != (int(c["stable_node_chains"]), int(c["stable_node_dups"])):
        broken(f"{int(c['stable_node_chains'])} chains and {int(c['stable_node_dups'])} dups are counted, found {len(chains)}, {len(dups)}")
    return [*out, *dups, *_listed(k, int(c["migrate"]), seen)]


def _listed(k: Kernel, node: int, seen: Array) -> list[int]:
    """A list of stable nodes; one that is listed twice is a bug."""
    out: list[int] = []
    while node:
        seen[node] += 1
        if seen[node] > 1 or int(k.s.ksm_nodes["dprev"][node]) != (out[-1] if out else 0):
            broken(f"stable node {node} is in two places")
        out.append(node)
        node = int(k.s.ksm_nodes["dnext"][node])
    return out


def _live(k: Kernel, chain: int) -> list[int]:
    """The dups of a chain whose pages are still theirs."""
    dups = _listed(k, int(k.s.ksm_nodes["first"][chain]), np.zeros(int(k.s.ksm[0]["node_next"]) + 1, np.int64))
    return [dup for dup in dups if int(k.s.mem["mapping"][k.s.ksm_nodes["kpfn"][dup]]) == dup]


def _ksm_pages(k: Kernel) -> None:
    """A KSM page is anonymous, nobody's alone, and the frame of its stable node."""
    mem = k.s.mem
    pages = np.flatnonzero(mem["flags"] & PG_KSM)
    if (mem["flags"][pages] & (PG_ANON | PG_ANON_EXCLUSIVE) != PG_ANON).any():
        broken("a KSM page is not anonymous, or exclusive")
    known = pages[mem["mapping"][pages] > 0]
    if (k.s.ksm_nodes["kpfn"][mem["mapping"][known]] != known).any():
        broken("a KSM page's stable node has another frame")
