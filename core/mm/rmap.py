"""Reverse mapping: from a page to the mappings that may hold it (mm/rmap.c).

A file page names its inode, whose `vmas` are the mappings of the file. An anonymous page names an *anon_vma*,
a meeting point that was made at the first fault of the mapping that created the page:

    vma ──anon_vma──> A          page.mapping = A, page.index = its place in the mapping
    A.vmas = [vma]

fork gives the child's mapping an anon_vma of its own, B, and also links it to every anon_vma of the parent's mapping,
because pages made before the fork (they name A) may be mapped in both:

    parent vma: chain [A]        A.vmas = [parent vma, child vma]
    child  vma: chain [A, B]     B.vmas = [child vma]

Pages made by the child after the fork name B: nobody else's mapping need be looked at. A mapping whose chain has
more than one entry was inherited, and is not merged with a new neighbour: it would make the chains longer (that is
why a child's mmap next to inherited memory stays a mapping of its own).

To keep chains short where each generation forks and the older one dies, a child reuses an ancestor's anon_vma that
has no mapping of its own left and at most one child.

Splitting a mapping clones its chain; merging keeps one. Neighbours that could become one mapping again share an
anon_vma from the start (`find_mergeable_anon_vma`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from core.abi.mman import VM_ACCESS, VM_LOCKED, VM_SOFTDIRTY
from core.abi.page_flags import PG_ANON, PG_KSM
from core.mm.mm_types import AnonVma

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Array, Vma


def anon_vma_alloc(k: Kernel, parent: AnonVma | None = None) -> AnonVma:
    """A new anon_vma; without a parent it is the root of its tree and counts itself as a child, as in Linux."""
    anon_vma = AnonVma(k.next_anon_vma, parent)
    k.next_anon_vma += 1
    k.anon_vmas[anon_vma.id] = anon_vma
    if parent is None:
        anon_vma.children = 1
    else:
        parent.children += 1
    return anon_vma


def _link(vma: Vma, anon_vma: AnonVma) -> None:
    vma.chain.append(anon_vma)
    anon_vma.vmas.append(vma)
    vma.mm.generation += 1


def _is_active(anon_vma: AnonVma) -> bool:
    return any(vma.anon_vma is anon_vma for vma in anon_vma.vmas)


def anon_vma_prepare(k: Kernel, vma: Vma) -> AnonVma:
    """The mapping's anon_vma, made or borrowed from a like neighbour at its first anonymous fault."""
    if vma.anon_vma is None:
        anon_vma = find_mergeable_anon_vma(vma) or anon_vma_alloc(k)
        vma.anon_vma = anon_vma
        _link(vma, anon_vma)
    return vma.anon_vma


def find_mergeable_anon_vma(vma: Vma) -> AnonVma | None:
    """The anon_vma of the next or the previous mapping, if the two might be merged one day (mm/mmap.c)."""
    vmas = vma.mm.vmas
    at = bisect_left(vma.mm.starts, vma.start)
    if at + 1 < len(vmas) and _compatible(vma, vmas[at + 1]) and len(vmas[at + 1].chain) == 1:
        return vmas[at + 1].anon_vma
    if at > 0 and _compatible(vmas[at - 1], vma) and len(vmas[at - 1].chain) == 1:
        return vmas[at - 1].anon_vma
    return None


def _compatible(low: Vma, high: Vma) -> bool:
    """Adjacent and alike but for access bits, which an mprotect may give back (anon_vma_compatible)."""
    return (
        low.end == high.start
        and low.policy == high.policy
        and low.file is high.file
        and not (low.flags ^ high.flags) & ~(VM_ACCESS | VM_SOFTDIRTY)
        and high.pgoff == low.pgoff + low.pages
    )


def anon_vma_clone(new: Vma, old: Vma) -> None:
    """Link `new` to every anon_vma of `old` (a split, a move, a merge that gains pages, a fork)."""
    for anon_vma in old.chain:
        _link(new, anon_vma)
        reusable = new.anon_vma is None and old.anon_vma is not None and anon_vma is not anon_vma.root
        if reusable and anon_vma.children < 2 and not _is_active(anon_vma):
            new.anon_vma = anon_vma


def anon_vma_fork(k: Kernel, child: Vma, parent: Vma) -> None:
    """The child's mapping: linked to all of the parent's anon_vmas, and one of its own for what it will write."""
    child.anon_vma = None
    child.chain = []
    if parent.anon_vma is None:
        return
    anon_vma_clone(child, parent)
    if child.anon_vma is None:
        child.anon_vma = anon_vma_alloc(k, parent.anon_vma)
        _link(child, child.anon_vma)


def unlink_anon_vmas(k: Kernel, vma: Vma) -> None:
    """The mapping goes: leave every anon_vma; those that nobody needs any more are freed."""
    for anon_vma in vma.chain:
        anon_vma.vmas.remove(vma)
    for anon_vma in vma.chain:
        if not anon_vma.vmas and anon_vma.id in k.anon_vmas:
            (anon_vma.parent or anon_vma).children -= 1
            del k.anon_vmas[anon_vma.id]
    vma.chain = []
    vma.anon_vma = None


def rmap_walk(k: Kernel, pfn: int) -> Iterator[tuple[Vma, int]]:
    """Every (mapping, vpn) where this page may be mapped; the page table says whether it is (mm/rmap.c:rmap_walk)."""
    page = k.s.mem[pfn]
    index, owner = int(page["index"]), int(page["mapping"])
    if page["flags"] & PG_KSM:
        yield from _rmap_walk_ksm(k, owner)
        return
    where: AnonVma | object | None = k.anon_vmas.get(owner) if page["flags"] & PG_ANON else k.inodes.get(owner)
    for vma in list(getattr(where, "vmas", ())):
        vpn = vma.start + index - vma.pgoff
        if vma.start <= vpn < vma.end:
            yield vma, vpn


def _rmap_walk_ksm(k: Kernel, node: int) -> Iterator[tuple[Vma, int]]:
    """The same for a KSM page: its rmap_items' addresses, in the processes that were merged, then in those forked from them."""
    for forks in (False, True):
        row = int(k.s.ksm_nodes["first"][node]) if node else 0
        while row:
            item = k.s.ksm_items[row]
            anon_vma = k.anon_vmas.get(int(item["anon_vma"]))
            for vma in list(anon_vma.vmas) if anon_vma is not None else ():
                if vma.start <= item["vpn"] < vma.end and (vma.mm.id != item["mm"]) == forks:
                    yield vma, int(item["vpn"])
            row = int(item["hnext"])


NOBODY = np.zeros((0, 4), np.int64)


def other_locked(k: Kernel, vma: Vma) -> Array:
    """The other locked mappings that may hold this one's pages: rows of (pgd, start, end, pgoff), for a page loop."""
    sharers = [*(vma.file.vmas if vma.file is not None else ()), *(other for anon_vma in vma.chain for other in anon_vma.vmas)]
    pgds = k.s.mms["pgd"]
    rows = {
        id(other): (int(pgds[other.mm.id]), other.start, other.end, other.pgoff) for other in sharers if other is not vma and other.flags & VM_LOCKED
    }
    return np.array(list(rows.values()), np.int64).reshape(len(rows), 4) if rows else NOBODY
