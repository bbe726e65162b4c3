"""Reclaim policies: which page goes next is one file of three hooks and its row in `POLICIES`.

    isolate    one visit of reclaim to the lists of a cgroup on a node: which pages are taken, tried and put back (Linux: shrink_lruvec)
    accessed   what an access tells the lists beyond the A bit that the processor sets in the entry (folio_mark_accessed)
    age        what kswapd does for the lists before it takes anything (kswapd_age_node)

What becomes of a page that has been isolated (unmapped, written to swap, freed) is no policy: `lru_classic.shrink_page` does it for all.

`isolate` and `age` are compiled loops, chosen once for a whole reclaim. `accessed` is a step inside other loops, so it is chosen there, by the
policy's number in `ctl`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from core.mm import lru_classic
from core.mm.mm_types import CTL_POLICY

if TYPE_CHECKING:
    from core.kernel import Kernel

Hook = Callable[..., Any]


class Policy(NamedTuple):
    """A row: its name, its hooks, what it is in one sentence."""

    name: str
    isolate: Hook  # (State, Rmap, memcg, roots, dropped, batch, nr)
    age: Hook  # (State, Rmap, memcg)
    doc: str


POLICIES = (
    Policy("classic", lru_classic.shrink_lruvec, lru_classic.age_active_anon, "6.1's active and inactive lists"),
)  # fmt: skip


def policy_of(k: Kernel) -> Policy:
    """The policy in force."""
    return POLICIES[int(k.s.ctl[CTL_POLICY])]
