"""Reclaim policies: which page goes next is one file of three hooks and its row in `POLICIES`.

    isolate    one visit of reclaim to the lists of a cgroup on a node: which pages are taken, tried and put back (Linux: shrink_lruvec)
    accessed   what an access tells the lists beyond the A bit that the processor sets in the entry (folio_mark_accessed)
    age        what kswapd does for the lists before it takes anything (kswapd_age_node)

The classroom's policies (`classroom`, a file each) say only which page is next; `lru_simple` does the rest for all of them.

What becomes of a page that has been isolated (unmapped, written to swap, freed) is no policy: `lru_classic.shrink_page` does it for all.

`isolate` and `age` run compiled loops and are chosen once for a whole reclaim. `accessed` is a step inside other loops, so it is chosen there, by the
policy's number in `ctl`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from core.mm import lru_classic, lru_gen, lru_simple, memcontrol, policy_client, rmap_walk
from core.mm.mm_types import CTL_POLICY

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.rmap_walk import Rmap
    from core.mm.vmscan import Workspace


def isolate_classic(k: Kernel, r: Rmap, memcg: int, space: Workspace) -> None:
    """One visit of reclaim to a cgroup's lists on a node."""
    lru_classic.shrink_lruvec(k.s, r, memcg, space.roots, space.dropped, space.batch, space.nr)


def age_classic(k: Kernel, node: int) -> None:
    """kswapd_age_node."""
    for at in memcontrol.reclaim_order(k, k.root_cgroup):
        lru_classic.age_active_anon(k.s, rmap_walk.tables(k), at.id)


class Policy(NamedTuple):
    """A row: its name, its hooks, what it is in one sentence."""

    name: str
    isolate: Callable[[Kernel, Rmap, int, Workspace], None]  # a cgroup's lists on the node `sc.node`
    age: Callable[[Kernel, int], None]  # a node
    doc: str


POLICIES = (
    Policy("classic", isolate_classic, age_classic, "6.1's active and inactive lists"),
    Policy("mglru", lru_gen.isolate, lru_gen.age, "6.1's generations, as with CONFIG_LRU_GEN_ENABLED=y"),
    Policy("fifo", lru_simple.isolate, lru_simple.age, "the page that came first goes"),
    Policy("clock", lru_simple.isolate, lru_simple.age, "the page that came first goes, but one that was used is passed over once"),
    Policy("random", lru_simple.isolate, lru_simple.age, "any page goes"),
    Policy("lru", lru_simple.isolate, lru_simple.age, "the page that was used longest ago goes; every access is told"),
    Policy("client", policy_client.isolate, policy_client.age, "a program outside names the pages, one of the four above where it does not"),
)  # fmt: skip


def policy_of(k: Kernel) -> Policy:
    """The policy in force."""
    return POLICIES[int(k.s.ctl[CTL_POLICY])]
