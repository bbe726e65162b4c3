"""The page loops of KSM: the two trees, the scan, the merge (mm/ksm.c). `ksm` has the essay and the decisions.

Two red-black trees sorted by content, a pair for each node where `merge_across_nodes` is 0:

    stable     KSM pages: write-protected, so that their place in the tree is right for as long as they live
    unstable   pages without a twin yet; nobody protects them, so the tree is thrown away with every full scan

A stable node knows its frame and a list of rmap_items: the entries that map it. It is not told when the page is freed: whoever walks
over a node whose frame has another owner by now takes the node out (`get_ksm_page`), as Linux does, and so `pages_shared` may count
pages that are gone until ksmd passes there. A page with as many sharers as max_page_sharing takes no more; a second page of
the same content is made, and the two hang as *dups* in a *chain* that takes their place in the tree.

The scan looks at the frames of huge pages as at any others; a huge page comes apart (`split_huge_page`) when the first of its frames finds
a twin. Twins within one huge page are in each other's way: the page is split, and they are merged in the next scan.
"""

from __future__ import annotations

from core.abi.mman import VM_LOCKED, VM_WRITE
from core.abi.page_flags import (
    PG_ANON,
    PG_ANON_EXCLUSIVE,
    PG_DIRTY,
    PG_KSM,
    PG_SWAPCACHE,
)
from core.jit import inline, njit, step
from core.mm.compound import PG_COMPOUND, compound_head
from core.mm.fault import COW, do_wp_page, next_block
from core.mm.huge_memory import THP_SPLIT_PAGE_FAILED, put_split_head, split_huge_page
from core.mm.mm_types import (
    CTL_ZERO_PFN,
    KSM_CHAIN,
    KSM_NEITHER,
    KSM_STABLE,
    KSM_UNSTABLE,
    MM_ANONPAGES,
    State,
)
from core.mm.page_alloc import zone_of
from core.mm.page_ops import DONE, NO_STORE, mlock_page, munlock_page, page_remove_rmap, put_page, stat_add
from core.mm.pgtable import PFN_MASK, PTE_D, PTE_P, PTE_PRESENT, PTE_RW, PTE_SPECIAL, find_pte_table, huge_entry, pte_pfn
from core.mm.rbtree import rb_erase, rb_link, rb_replace
from core.mm.rmap_walk import Rmap
from core.mm.swap import mark_page_accessed
from core.mm.swap_state import free_swap
from core.vmstat import MEMCG_PGFAULT, NR_ANON_MAPPED, PGFAULT

IN_TREE, IN_CHAIN, MIGRATING = range(3)  # KSM_NODE.place
END_OF_MM, ROUND_OVER, UNDO = range(3)  # why scan_mm came back


# ---------------------------------------------------------------- rows


@step
def alloc_item(s: State, mm: int, vpn: int) -> int:
    """A new rmap_item of an address space, in neither tree."""
    c = s.ksm[0]
    row = c["item_free"]
    if row:
        c["item_free"] = s.ksm_items[row]["next"]
    else:
        c["item_next"] += 1
        row = c["item_next"]
    item = s.ksm_items[row]
    item["mm"] = mm
    item["vpn"] = vpn
    item["state"] = KSM_NEITHER
    item["checksum"] = -1
    item["head"] = 0
    item["anon_vma"] = 0
    c["rmap_items"] += 1
    c["changes"] += 1
    s.mms[mm]["ksm_items"] += 1
    return row


@step
def free_item(s: State, row: int) -> None:
    """An rmap_item that is in neither tree goes."""
    c = s.ksm[0]
    s.mms[s.ksm_items[row]["mm"]]["ksm_items"] -= 1
    s.ksm_items[row]["mm"] = 0
    s.ksm_items[row]["next"] = c["item_free"]
    c["item_free"] = row
    c["rmap_items"] -= 1
    c["changes"] += 1


@step
def alloc_node(s: State) -> int:
    """A new stable node without frame or rmap_items."""
    c = s.ksm[0]
    row = c["node_free"]
    if row:
        c["node_free"] = s.ksm_nodes[row]["first"]
    else:
        c["node_next"] += 1
        row = c["node_next"]
    node = s.ksm_nodes[row]
    node["kpfn"] = 0
    node["first"] = 0
    node["len"] = 0
    node["chain"] = 0
    node["place"] = IN_TREE
    c["nodes"] += 1
    return row


@step
def free_node(s: State, row: int) -> None:
    """A stable node that hangs nowhere goes."""
    c = s.ksm[0]
    s.ksm_nodes[row]["kpfn"] = 0
    s.ksm_nodes[row]["first"] = c["node_free"]
    c["node_free"] = row
    c["nodes"] -= 1
    c["changes"] += 1


# ---------------------------------------------------------------- lists of stable nodes


@step
def list_add_node(s: State, node: int, first: int) -> None:
    """Put a node in front of `first` (a chain's dups, the list of nodes that migrate)."""
    s.ksm_nodes[node]["dnext"] = first
    s.ksm_nodes[node]["dprev"] = 0
    if first:
        s.ksm_nodes[first]["dprev"] = node


@step
def unlink_node(s: State, node: int) -> int:
    """Take a node off its list: the node after it."""
    after, before = s.ksm_nodes[node]["dnext"], s.ksm_nodes[node]["dprev"]
    if after:
        s.ksm_nodes[after]["dprev"] = before
    if before:
        s.ksm_nodes[before]["dnext"] = after
    return after


@step
def chain_add_dup(s: State, dup: int, chain: int) -> None:
    """stable_node_chain_add_dup."""
    list_add_node(s, dup, s.ksm_nodes[chain]["first"])
    s.ksm_nodes[chain]["first"] = dup
    s.ksm_nodes[dup]["place"] = IN_CHAIN
    s.ksm_nodes[dup]["chain"] = chain
    s.ksm[0]["stable_node_dups"] += 1


@step
def chain_del_dup(s: State, dup: int) -> None:
    """__stable_node_dup_del."""
    chain = s.ksm_nodes[dup]["chain"]
    first = s.ksm_nodes[chain]["first"] == dup
    after = unlink_node(s, dup)
    if first:
        s.ksm_nodes[chain]["first"] = after
    s.ksm[0]["stable_node_dups"] -= 1


@step
def add_migrating(s: State, node: int) -> None:
    """The page of a node is on another NUMA node now: it waits to be put into that one's tree."""
    list_add_node(s, node, s.ksm[0]["migrate"])
    s.ksm[0]["migrate"] = node
    s.ksm_nodes[node]["place"] = MIGRATING


@step
def del_migrating(s: State, node: int) -> None:
    """Off the list of those that wait."""
    first = s.ksm[0]["migrate"] == node
    after = unlink_node(s, node)
    if first:
        s.ksm[0]["migrate"] = after


@step
def detach(s: State, node: int) -> None:
    """Take a stable node out of wherever it is (stable_node_dup_del and the list of those that migrate)."""
    place = s.ksm_nodes[node]["place"]
    if place == MIGRATING:
        del_migrating(s, node)
    elif place == IN_CHAIN:
        chain_del_dup(s, node)
    else:
        rb_erase(s.ksm_nodes, s.ksm[0]["stable"], s.ksm_nodes[node]["nid"], node)


@step
def alloc_chain(s: State, dup: int) -> int:
    """A chain takes the place of a node in the tree, the node becomes its first dup (alloc_stable_node_chain)."""
    chain = alloc_node(s)
    s.ksm_nodes[chain]["len"] = KSM_CHAIN
    s.ksm_nodes[chain]["nid"] = s.ksm_nodes[dup]["nid"]
    s.ksm_nodes[chain]["prune_time"] = s.ksm[0]["now"]
    s.ksm[0]["stable_node_chains"] += 1
    rb_replace(s.ksm_nodes, s.ksm[0]["stable"], s.ksm_nodes[dup]["nid"], dup, chain)
    chain_add_dup(s, dup, chain)
    return chain


@step
def free_chain(s: State, chain: int) -> None:
    """An empty chain goes (free_stable_node_chain)."""
    rb_erase(s.ksm_nodes, s.ksm[0]["stable"], s.ksm_nodes[chain]["nid"], chain)
    s.ksm[0]["stable_node_chains"] -= 1
    free_node(s, chain)


# ---------------------------------------------------------------- a page's node, an item's tree


@step
def remove_node_from_stable_tree(s: State, node: int) -> None:
    """The node's page is gone: its rmap_items are in neither tree, the node is free."""
    c = s.ksm[0]
    row = s.ksm_nodes[node]["first"]
    while row:
        item = s.ksm_items[row]
        if item["hnext"]:
            c["pages_sharing"] -= 1
        else:
            c["pages_shared"] -= 1
        s.mms[item["mm"]]["ksm_merging"] -= 1
        item["state"] = KSM_NEITHER
        item["head"] = 0
        item["anon_vma"] = 0
        row = item["hnext"]
    detach(s, node)
    free_node(s, node)


@inline
def is_stable(s: State, node: int) -> bool:
    """Is the frame of a node still its KSM page?"""
    page = s.mem[s.ksm_nodes[node]["kpfn"]]
    return bool(page["flags"] & PG_KSM) and page["mapping"] == node


@step
def get_ksm_page(s: State, node: int) -> int:
    """The frame of a stable node; 0 if it is no longer its page, and then the node is gone, too."""
    if is_stable(s, node):
        return s.ksm_nodes[node]["kpfn"]
    remove_node_from_stable_tree(s, node)
    return 0


@step
def remove_item_from_tree(s: State, row: int) -> None:
    """An rmap_item leaves the tree that it is in (remove_rmap_item_from_tree)."""
    c = s.ksm[0]
    item = s.ksm_items[row]
    if item["state"] == KSM_STABLE:
        node = item["head"]
        if get_ksm_page(s, node) == 0:
            return
        if item["hprev"]:
            s.ksm_items[item["hprev"]]["hnext"] = item["hnext"]
        else:
            s.ksm_nodes[node]["first"] = item["hnext"]
        if item["hnext"]:
            s.ksm_items[item["hnext"]]["hprev"] = item["hprev"]
        if s.ksm_nodes[node]["first"]:
            c["pages_sharing"] -= 1
        else:
            c["pages_shared"] -= 1
        s.mms[item["mm"]]["ksm_merging"] -= 1
        s.ksm_nodes[node]["len"] -= 1
        item["head"] = 0
        item["anon_vma"] = 0
        item["state"] = KSM_NEITHER
        c["changes"] += 1
    elif item["state"] == KSM_UNSTABLE:
        if item["seqnr"] == c["seqnr"]:
            rb_erase(s.ksm_items, c["unstable"], item["nid"], row)
        c["pages_unshared"] -= 1
        item["state"] = KSM_NEITHER


@njit
def remove_trailing_items(s: State, mm: int, link: int) -> None:
    """Every rmap_item of an address space after `link` (0: all of them) goes."""
    row = s.ksm_items[link]["next"] if link else s.mms[mm]["ksm_list"]
    while row:
        after = s.ksm_items[row]["next"]
        remove_item_from_tree(s, row)
        free_item(s, row)
        row = after
    if link:
        s.ksm_items[link]["next"] = 0
    else:
        s.mms[mm]["ksm_list"] = 0


@step
def get_next_item(s: State, mm: int, vpn: int) -> int:
    """The rmap_item of a page, made if there is none; those of pages passed over are freed (get_next_rmap_item)."""
    c = s.ksm[0]
    link = c["link"]
    row = s.ksm_items[link]["next"] if link else s.mms[mm]["ksm_list"]
    while row and s.ksm_items[row]["vpn"] < vpn:
        after = s.ksm_items[row]["next"]
        remove_item_from_tree(s, row)
        free_item(s, row)
        row = after
    if row == 0 or s.ksm_items[row]["vpn"] != vpn:
        new = alloc_item(s, mm, vpn)
        s.ksm_items[new]["next"] = row
        row = new
    if link:
        s.ksm_items[link]["next"] = row
    else:
        s.mms[mm]["ksm_list"] = row
    c["link"] = row
    return row


# ---------------------------------------------------------------- looking up


@inline
def sort_key(content: int) -> int:
    """Contents in memcmp's order: the first byte, then what the rest of the page is."""
    return ((((content >> 8) ^ content) & 255) << 55) | ((content >> 16) << 8) | (content & 255)


@step
def find_mergeable(s: State, vt, mm: int, vpn: int) -> int:
    """The row of the mergeable mapping that holds a page, -1 if there is none (find_mergeable_vma)."""
    low, high = 0, len(vt)
    while low < high:
        middle = (low + high) >> 1
        if vt[middle]["mm"] < mm or (vt[middle]["mm"] == mm and vt[middle]["start"] <= vpn):
            low = middle + 1
        else:
            high = middle
    at = low - 1
    if at < 0 or vt[at]["mm"] != mm or vpn >= vt[at]["end"] or vt[at]["anon_vma"] == 0:
        return -1
    return at


@step
def entry_of_page(s: State, pgd: int, vpn: int) -> int:
    """The entry that maps a page; of a huge one, what its small entry would be."""
    tid = find_pte_table(s, pgd, vpn)
    if tid:
        return s.pt[tid, vpn & 511]
    huge = huge_entry(s, pgd, vpn)
    return huge + ((vpn & 511) << 12) if huge else 0


@step
def get_mergeable_page(s: State, vt, row: int) -> int:
    """The anonymous page that an rmap_item's address maps now, or 0."""
    mm, vpn = s.ksm_items[row]["mm"], s.ksm_items[row]["vpn"]
    if find_mergeable(s, vt, mm, vpn) < 0:
        return 0
    pte = entry_of_page(s, s.mms[mm]["pgd"], vpn)
    if not pte & PTE_P or pte & PTE_SPECIAL:
        return 0
    pfn = pte_pfn(pte)
    return pfn if s.mem[pfn]["flags"] & PG_ANON else 0


@inline
def kpfn_nid(s: State, pfn: int) -> int:
    """Whose pair of trees a frame belongs to (get_kpfn_nid)."""
    return 0 if s.ksm[0]["merge_across_nodes"] else s.zones[zone_of(s, pfn)]["node"]


@inline
def is_candidate(s: State, node: int, offset: int) -> bool:
    """May one more entry share this node's page? Not one that nobody maps any more (is_page_sharing_candidate)."""
    sharers = s.ksm_nodes[node]["len"]
    return sharers > 0 and sharers + offset < s.ksm[0]["max_page_sharing"]


@step
def stable_node_dup(s: State, chain: int, prune: bool) -> int:
    """The dup of a chain that takes the next sharer, or 0: all are full, or the chain is empty.

    `prune`: the fullest of those that have room, and all stale ones go, every prune_ns; else the first that has room.
    """
    c = s.ksm[0]
    if not prune or c["now"] < s.ksm_nodes[chain]["prune_time"] + c["prune_ns"]:
        prune = False
    else:
        s.ksm_nodes[chain]["prune_time"] = c["now"]
    found, dups = 0, 0
    dup = s.ksm_nodes[chain]["first"]
    while dup:
        after = s.ksm_nodes[dup]["dnext"]
        if get_ksm_page(s, dup):
            dups += 1
            if is_candidate(s, dup, 0) and (found == 0 or s.ksm_nodes[dup]["len"] > s.ksm_nodes[found]["len"]):
                found = dup
                if not prune:
                    break
        dup = after
    if found == 0:
        return 0
    if prune and dups == 1:
        rb_replace(s.ksm_nodes, c["stable"], s.ksm_nodes[chain]["nid"], chain, found)
        s.ksm_nodes[found]["place"] = IN_TREE
        s.ksm_nodes[found]["chain"] = 0
        c["stable_node_chains"] -= 1
        c["stable_node_dups"] -= 1
        free_node(s, chain)
    elif s.ksm_nodes[chain]["first"] != found and is_candidate(s, found, 1):
        unlink_node(s, found)
        list_add_node(s, found, s.ksm_nodes[chain]["first"])
        s.ksm_nodes[chain]["first"] = found
    return found


@step
def look_at(s: State, node: int, prune: bool, out) -> int:
    """A node of the stable tree as a search sees it (chain, chain_prune, stable_node_dup_any).

    out: [the node or dup that takes a sharer or 0, the place in the tree now]. Answers a frame of its content, 0 when something
    was stale and the search must begin again.
    """
    out[0], out[1] = 0, node
    if s.ksm_nodes[node]["len"] != KSM_CHAIN:
        if is_candidate(s, node, 0):
            out[0] = node
        return get_ksm_page(s, node)
    dup = stable_node_dup(s, node, prune)
    if dup:
        out[0] = dup
        if s.ksm_nodes[dup]["place"] == IN_TREE:
            out[1] = dup
        return s.ksm_nodes[dup]["kpfn"]
    first = s.ksm_nodes[node]["first"]
    if first == 0:
        free_chain(s, node)
        return 0
    return get_ksm_page(s, first)


@step
def stable_tree_search(s: State, pfn: int, out) -> int:
    """The KSM page that a page can be merged into: its frame, or 0 (stable_tree_search).

    A KSM page is found at once: itself; unless it has moved to another NUMA node and must change trees first.
    """
    c = s.ksm[0]
    moving = s.mem[pfn]["mapping"] if s.mem[pfn]["flags"] & PG_KSM else 0
    if moving and s.ksm_nodes[moving]["place"] != MIGRATING:
        return pfn
    nid = kpfn_nid(s, pfn)
    key = sort_key(s.mem[pfn]["content"])
    parent, side = 0, 0
    at = c["stable"][nid]
    while at:
        tree_pfn = look_at(s, at, True, out)
        if tree_pfn == 0:
            parent, at = 0, c["stable"][nid]
            continue
        dup, at = out[0], out[1]
        other = sort_key(s.mem[tree_pfn]["content"])
        if key == other:
            if moving and s.mem[pfn]["mapcount"] > 1:
                return append_moved(s, moving, dup, at, nid)
            if dup == 0:
                return 0
            if kpfn_nid(s, s.ksm_nodes[dup]["kpfn"]) != s.ksm_nodes[dup]["nid"]:
                return replace_moved(s, moving, dup, at, nid)
            return s.ksm_nodes[dup]["kpfn"]
        parent, side = at, 0 if key < other else 1
        at = s.ksm_nodes[at]["child"][side]
    if moving == 0:
        return 0
    del_migrating(s, moving)
    s.ksm_nodes[moving]["nid"] = nid
    s.ksm_nodes[moving]["place"] = IN_TREE
    rb_link(s.ksm_nodes, c["stable"], nid, moving, parent, side)
    return pfn if is_candidate(s, moving, 0) else 0


@step
def append_moved(s: State, moving: int, dup: int, at: int, nid: int) -> int:
    """A moved page with several sharers meets its content in the new tree: it becomes a dup of that chain."""
    chain = at
    if s.ksm_nodes[at]["len"] != KSM_CHAIN:
        chain = alloc_chain(s, at)
    del_migrating(s, moving)
    s.ksm_nodes[moving]["nid"] = nid
    chain_add_dup(s, moving, chain)
    return s.ksm_nodes[moving]["kpfn"] if is_candidate(s, moving, 0) else 0


@step
def replace_moved(s: State, moving: int, dup: int, at: int, nid: int) -> int:
    """The page that was found has moved away itself: it waits for its new tree, a page that moved here takes its place."""
    c = s.ksm[0]
    if moving:
        del_migrating(s, moving)
        s.ksm_nodes[moving]["nid"] = nid
    if dup == at:
        if moving:
            rb_replace(s.ksm_nodes, c["stable"], nid, dup, moving)
            s.ksm_nodes[moving]["place"] = IN_TREE
        else:
            rb_erase(s.ksm_nodes, c["stable"], s.ksm_nodes[dup]["nid"], dup)
    else:
        chain_del_dup(s, dup)
        if moving:
            chain_add_dup(s, moving, at)
    add_migrating(s, dup)
    return s.ksm_nodes[moving]["kpfn"] if moving and is_candidate(s, moving, 0) else 0


@step
def stable_tree_insert(s: State, kpfn: int, out) -> int:
    """A node for a new KSM page, in the tree, or in a chain if its content is there already (stable_tree_insert)."""
    c = s.ksm[0]
    nid = kpfn_nid(s, kpfn)
    key = sort_key(s.mem[kpfn]["content"])
    parent, side, twin = 0, 0, 0
    at = c["stable"][nid]
    while at:
        tree_pfn = look_at(s, at, False, out)
        if tree_pfn == 0:
            parent, at = 0, c["stable"][nid]
            continue
        other = sort_key(s.mem[tree_pfn]["content"])
        if key == other:
            twin = at
            break
        parent, side = at, 0 if key < other else 1
        at = s.ksm_nodes[at]["child"][side]
    node = alloc_node(s)
    s.ksm_nodes[node]["kpfn"] = kpfn
    s.ksm_nodes[node]["nid"] = nid
    s.mem[kpfn]["mapping"] = node
    if twin == 0:
        rb_link(s.ksm_nodes, c["stable"], nid, node, parent, side)
    else:
        chain_add_dup(s, node, twin if s.ksm_nodes[twin]["len"] == KSM_CHAIN else alloc_chain(s, twin))
    return node


@step
def stable_tree_append(s: State, row: int, node: int) -> None:
    """One more entry shares the node's page (stable_tree_append)."""
    item = s.ksm_items[row]
    first = s.ksm_nodes[node]["first"]
    item["hnext"] = first
    item["hprev"] = 0
    if first:
        s.ksm_items[first]["hprev"] = row
        s.ksm[0]["pages_sharing"] += 1
    else:
        s.ksm[0]["pages_shared"] += 1
    s.ksm_nodes[node]["first"] = row
    s.ksm_nodes[node]["len"] += 1
    item["head"] = node
    item["state"] = KSM_STABLE
    s.mms[item["mm"]]["ksm_merging"] += 1
    s.ksm[0]["changes"] += 1


@step
def unstable_tree_search_insert(s: State, vt, row: int, pfn: int) -> int:
    """The rmap_item of a page with the same content; if there is none this one joins the tree, and the answer is 0."""
    c = s.ksm[0]
    nid = kpfn_nid(s, pfn)
    key = sort_key(s.mem[pfn]["content"])
    parent, side = 0, 0
    at = c["unstable"][nid]
    while at:
        tree_pfn = get_mergeable_page(s, vt, at)
        if tree_pfn == 0 or tree_pfn == pfn:
            return 0
        other = sort_key(s.mem[tree_pfn]["content"])
        if key == other:
            if not c["merge_across_nodes"] and s.zones[zone_of(s, tree_pfn)]["node"] != nid:
                return 0
            return at
        parent, side = at, 0 if key < other else 1
        at = s.ksm_items[at]["child"][side]
    item = s.ksm_items[row]
    item["state"] = KSM_UNSTABLE
    item["seqnr"] = c["seqnr"]
    item["nid"] = nid
    rb_link(s.ksm_items, c["unstable"], nid, row, parent, side)
    c["pages_unshared"] += 1
    return 0


# ---------------------------------------------------------------- merging


@step
def write_protect_page(s: State, tid: int, vpn: int, pfn: int) -> bool:
    """Make one page's entry read-only and clean, the page remembering that it is dirty. False: somebody else holds the page."""
    page = s.mem[pfn]
    pte = s.pt[tid, vpn & 511]
    if pte & (PTE_RW | PTE_D) or page["flags"] & PG_ANON_EXCLUSIVE:
        if page["mapcount"] + (1 if page["flags"] & PG_SWAPCACHE else 0) != page["refcount"]:
            return False
        page["flags"] &= ~PG_ANON_EXCLUSIVE
        if pte & PTE_D:
            page["flags"] |= PG_DIRTY
        s.pt[tid, vpn & 511] = pte & ~(PTE_RW | PTE_D)
    return True


@step
def replace_page(s: State, vma, tid: int, vpn: int, pfn: int, kpfn: int) -> None:
    """The entry points to the KSM page (or the zero page) from now on; the old page loses a mapper (replace_page)."""
    if kpfn != s.ctl[CTL_ZERO_PFN]:
        kpage = s.mem[kpfn]
        kpage["refcount"] += 1
        kpage["mapcount"] += 1
        if kpage["mapcount"] == 1:
            stat_add(s, zone_of(s, kpfn), kpage["memcg"], NR_ANON_MAPPED, 1)
        if vma["flags"] & VM_LOCKED:
            mlock_page(s, zone_of(s, kpfn), kpfn)
        s.pt[tid, vpn & 511] = (kpfn << 12) | vma["prot"]
    else:
        s.pt[tid, vpn & 511] = (kpfn << 12) | vma["prot"] | PTE_SPECIAL
        s.mms[vma["mm"]]["rss"][MM_ANONPAGES] -= 1
        s.ksm[0]["zeroed"] += 1
    zid = zone_of(s, pfn)
    page_remove_rmap(s, zid, pfn)
    if vma["flags"] & VM_LOCKED and s.mem[pfn]["refcount"] > 1:
        munlock_page(s, zid, pfn)
    if s.mem[pfn]["flags"] & PG_SWAPCACHE and s.mem[pfn]["mapcount"] == 0:
        free_swap(s, zid, pfn)
    put_page(s, zid, pfn)
    s.ksm[0]["changes"] += 1


@step
def try_to_merge_one_page(s: State, r: Rmap, vt, at: int, vpn: int, pfn: int, kpfn: int) -> bool:
    """Let one entry of mapping `at` map `kpfn` instead of `pfn`; kpfn 0: make `pfn` itself the KSM page."""
    if pfn == kpfn:
        return True  # a KSM page that fork gave to another process
    page = s.mem[pfn]
    if not page["flags"] & PG_ANON or page["flags"] & PG_KSM:
        return False
    if page["flags"] & PG_COMPOUND and not take_apart(s, r, pfn):
        return False
    tid = find_pte_table(s, s.mms[vt[at]["mm"]]["pgd"], vpn)
    if tid == 0 or not s.pt[tid, vpn & 511] & PTE_PRESENT or pte_pfn(s.pt[tid, vpn & 511]) != pfn:
        return False
    if not write_protect_page(s, tid, vpn, pfn):
        return False
    s.mms[vt[at]["mm"]]["tlb_gen"] += 1
    if kpfn == 0:
        page["flags"] |= PG_KSM | PG_DIRTY
        page["mapping"] = 0
        mark_page_accessed(s, zone_of(s, pfn), pfn)
        return True
    if page["content"] != s.mem[kpfn]["content"]:
        return False
    replace_page(s, vt[at], tid, vpn, pfn, kpfn)
    return True


@step
def take_apart(s: State, r: Rmap, pfn: int) -> bool:
    """The huge page around a frame becomes small ones, those that nothing maps are freed; False if somebody else holds it."""
    head = compound_head(s, pfn)
    if not split_huge_page(s, r, head):
        return False
    put_split_head(s, head)
    return True


@step
def try_to_merge_with_ksm_page(s: State, r: Rmap, vt, row: int, pfn: int, kpfn: int) -> bool:
    """The same for an rmap_item, which is in neither tree afterwards and knows its anon_vma."""
    at = find_mergeable(s, vt, s.ksm_items[row]["mm"], s.ksm_items[row]["vpn"])
    if at < 0 or not try_to_merge_one_page(s, r, vt, at, s.ksm_items[row]["vpn"], pfn, kpfn):
        return False
    remove_item_from_tree(s, row)
    s.ksm_items[row]["anon_vma"] = vt[at]["anon_vma"]
    return True


@step
def merge_two(s: State, r: Rmap, vt, row: int, pfn: int, twin: int, out) -> bool:
    """Two pages of the same content become one KSM page (try_to_merge_two_pages). False: the first must be copied back."""
    other = get_mergeable_page(s, vt, twin)
    if s.mem[pfn]["flags"] & PG_COMPOUND and compound_head(s, pfn) == compound_head(s, other):
        s.vm_event[THP_SPLIT_PAGE_FAILED] += 1  # ksmd itself holds the page twice, for each twin
        take_apart(s, r, pfn)
        return True
    if not try_to_merge_with_ksm_page(s, r, vt, row, pfn, 0):
        return True
    if not try_to_merge_with_ksm_page(s, r, vt, twin, get_mergeable_page(s, vt, twin), pfn):
        return False
    node = stable_tree_insert(s, pfn, out)
    stable_tree_append(s, twin, node)
    stable_tree_append(s, row, node)
    s.ksm[0]["merged"] += 2
    return True


@step
def cmp_and_merge_page(s: State, r: Rmap, vt, row: int, pfn: int, out) -> bool:
    """One page: into the stable tree if it can, else, if unchanged, into the unstable one. False: COW must be broken (`undo`)."""
    c = s.ksm[0]
    item = s.ksm_items[row]
    node = s.mem[pfn]["mapping"] if s.mem[pfn]["flags"] & PG_KSM else 0
    if node:
        if s.ksm_nodes[node]["place"] != MIGRATING and kpfn_nid(s, pfn) != s.ksm_nodes[node]["nid"]:
            detach(s, node)
            add_migrating(s, node)
        if s.ksm_nodes[node]["place"] != MIGRATING and item["head"] == node:
            return True
    kpfn = stable_tree_search(s, pfn, out)
    if kpfn == pfn and item["head"] == node:
        return True
    remove_item_from_tree(s, row)
    if kpfn:
        if try_to_merge_with_ksm_page(s, r, vt, row, pfn, kpfn):
            stable_tree_append(s, row, s.mem[kpfn]["mapping"])
            c["merged"] += 1
        return True
    content = s.mem[pfn]["content"]
    if item["checksum"] != content:
        item["checksum"] = content
        c["changes"] += 1
        return True
    if c["use_zero_pages"] and content == 0:
        at = find_mergeable(s, vt, item["mm"], item["vpn"])
        if at < 0 or try_to_merge_one_page(s, r, vt, at, item["vpn"], pfn, s.ctl[CTL_ZERO_PFN]):
            return True
    twin = unstable_tree_search_insert(s, vt, row, pfn)
    if twin and not merge_two(s, r, vt, row, pfn, twin, out):
        c["undo"] = row
        return False
    return True


@njit
def scan_mm(s: State, r: Rmap, vt, first: int, last: int, out) -> int:
    """Go on with the scan of ksm.mm, whose mergeable mappings are the rows first .. last of `vt` (scan_get_next_rmap_item)."""
    c = s.ksm[0]
    mm = c["mm"]
    pgd = s.mms[mm]["pgd"]
    for at in range(first, last):
        end = vt[at]["end"]
        if c["vpn"] >= end:
            continue
        c["vpn"] = max(c["vpn"], vt[at]["start"])
        if vt[at]["anon_vma"] == 0:
            c["vpn"] = end
        while c["vpn"] < end:
            vpn = c["vpn"]
            tid = find_pte_table(s, pgd, vpn)
            if tid == 0 and not huge_entry(s, pgd, vpn):
                c["vpn"] = max(next_block(s, pgd, vpn, end), vpn + 1)
                continue
            pte = s.pt[tid, vpn & 511] if tid else entry_of_page(s, pgd, vpn)
            if not pte & PTE_PRESENT or pte & PTE_SPECIAL or not s.mem[pte_pfn(pte)]["flags"] & PG_ANON:
                c["vpn"] = vpn + 1
                continue
            if c["left"] == 0:
                return ROUND_OVER
            c["left"] -= 1
            row = get_next_item(s, mm, vpn)
            c["vpn"] = vpn + 1
            if not cmp_and_merge_page(s, r, vt, row, pte_pfn(pte), out):
                return UNDO
    return END_OF_MM


# ---------------------------------------------------------------- unmerging


@njit
def break_ksm_pages(s: State) -> None:
    """Give the entries of [vmf.first, vmf.n) that map KSM pages a copy each, as writes to them would (unmerge_ksm_pages).

    vmf: `done` pages are looked at, `count[COW]` were copied; a reason where a frame cannot be had.
    """
    v = s.vmf[0]
    pgd, end = s.mms[v["mm"]]["pgd"], v["n"]
    v["reason"] = DONE
    at = v["first"] + v["done"]
    while at < end:
        tid = find_pte_table(s, pgd, at)
        if tid == 0:
            at = max(next_block(s, pgd, at, end), at + 1)
            continue
        pte = s.pt[tid, at & 511]
        if pte & PTE_P and not pte & PTE_SPECIAL and s.mem[(pte & PFN_MASK) >> 12]["flags"] & PG_KSM:
            if do_wp_page(s, v, tid, pte, at, NO_STORE) <= 0:
                break
            if not v["vm_flags"] & VM_WRITE:  # maybe_mkwrite
                s.pt[tid, at & 511] &= ~PTE_RW
            v["count"][COW] += 1
            s.mms[v["mm"]]["tlb_gen"] += 1
            s.vm_event[PGFAULT] += 1
            s.memcgs[v["memcg"]]["stat"][MEMCG_PGFAULT] += 1
        at += 1
    v["done"] = at - v["first"]


# ---------------------------------------------------------------- cleaning up


@step
def remove_stable_node(s: State, node: int) -> bool:
    """A stable node goes if nobody maps its page. False: busy."""
    pfn = get_ksm_page(s, node)
    if pfn == 0:
        return True
    if s.mem[pfn]["mapcount"] > 0:
        return False
    s.mem[pfn]["mapping"] = 0
    remove_node_from_stable_tree(s, node)
    return True


@step
def remove_chain(s: State, node: int) -> bool:
    """A node of the tree, with all dups if it is a chain (remove_stable_node_chain). False: busy."""
    if s.ksm_nodes[node]["len"] != KSM_CHAIN:
        return remove_stable_node(s, node)
    while s.ksm_nodes[node]["first"]:
        if not remove_stable_node(s, s.ksm_nodes[node]["first"]):
            return False
    free_chain(s, node)
    return True


@njit
def remove_all_stable_nodes(s: State, trees: int) -> bool:
    """Every stable node goes, if possible: False if some page is still mapped (remove_all_stable_nodes)."""
    c = s.ksm[0]
    clean = True
    for nid in range(trees):
        while c["stable"][nid]:
            if not remove_chain(s, c["stable"][nid]):
                clean = False
                break
    node = c["migrate"]
    while node:
        after = s.ksm_nodes[node]["dnext"]
        clean = remove_stable_node(s, node) and clean
        node = after
    return clean


@njit
def begin_full_scan(s: State, trees: int) -> None:
    """A new unstable tree; stale nodes that wait to change trees are dropped."""
    c = s.ksm[0]
    if not c["merge_across_nodes"]:
        node = c["migrate"]
        while node:
            after = s.ksm_nodes[node]["dnext"]
            get_ksm_page(s, node)
            node = after
    for nid in range(trees):
        c["unstable"][nid] = 0


# ---------------------------------------------------------------- for those who ask


@inline
def fate_of(s: State, row: int, pte: int) -> int:
    """What became of one page (the order is `ksm.FATES`); `row`: its rmap_item or 0."""
    if pte == 0:
        return 7
    if not pte & PTE_PRESENT:
        return 6
    if pte & PTE_SPECIAL:
        return 4
    flags = s.mem[pte_pfn(pte)]["flags"]
    if not flags & PG_ANON:
        return 5
    if flags & PG_KSM:
        return 0
    if row == 0:
        return 3
    return 1 if s.ksm_items[row]["state"] == KSM_UNSTABLE else 2


@njit
def fates(s: State, mm: int, start: int, end: int, counts) -> None:
    """Count the fates of the pages of [start, end)."""
    row = s.mms[mm]["ksm_list"]
    for vpn in range(start, end):
        while row and s.ksm_items[row]["vpn"] < vpn:
            row = s.ksm_items[row]["next"]
        pte = entry_of_page(s, s.mms[mm]["pgd"], vpn)
        mine = row if row and s.ksm_items[row]["vpn"] == vpn else 0
        counts[fate_of(s, mine, pte)] += 1
