"""Reclaim policies: which page goes next is one file of three hooks and its row in `POLICIES`.

    isolate    one visit of reclaim to the lists of a cgroup on a node: which pages are taken, tried and put back (Linux: shrink_lruvec)
    accessed   what an access tells the lists beyond the A bit that the processor sets in the entry (folio_mark_accessed)
    age        what kswapd does for the lists before it takes anything (kswapd_age_node)

The classroom's policies (`classroom`, a file each) say only which page is next; `lru_simple` does the rest for all of them.

What becomes of a page that has been isolated (unmapped, written to swap, freed) is no policy: `lru_classic.shrink_page` does it for all.

`isolate` and `age` run compiled loops; the classic policy's stand in the rounds of reclaim (`shrink_node`), which stop for the others'.
`accessed` is a step inside other loops, so it is chosen there, by the policy's number in `ctl`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from core.mm import lru_gen, lru_simple, policy_client
from core.mm.mm_types import CTL_POLICY

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.rmap_walk import Rmap


class Policy(NamedTuple):
    """A row: its name, its hooks, what it is in one sentence."""

    name: str
    isolate: Callable[[Kernel, Rmap, int], None] | None  # a cgroup's lists on the node `sc.node`; None: `shrink_node` does it itself
    age: Callable[[Kernel, int], None] | None  # a node; likewise
    doc: str


POLICIES = (
    Policy("classic", None, None, "6.1's active and inactive lists"),
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
