"""A policy that somebody else answers: reclaim asks which pages to take, a program outside says so (`Advisor`).

The kernel stays a value. It never waits for anybody: what it takes are *answers* that stand ready (`k.policy_client["answers"]`), put there by the
operation `policy_answers`, which is journaled like any other. Whoever lets a program play asks it on a twin of the kernel first, notes
its answers, and then runs the operation for good with them. So a journal rebuilds the session without the program.

    twin     touch ... reclaim ── isolate? ──> advisor ──> [7123, 7124, ...]
    kernel   policy_answers [2, 7123, 7124]; touch ... reclaim takes them

Answers are numbers in a row: how many pages, the pages; -1 for none. No answer, or one that names a page twice, a page that stands on no list
of the cgroup in question, or more than 32, is no answer: then the fallback, one of the classroom's policies, chooses.

At each question the A bits are collected and cleared, so that the program learns who was used since the last (`use_pages`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from core.abi.errno import Errno, SysError
from core.abi.page_flags import PG_ACTIVE, PG_LRU, PG_REFERENCED, PG_SWAPBACKED, PG_UNEVICTABLE
from core.jit import njit
from core.machine import RECLAIM_POLICIES
from core.mm import lru_gen, lru_simple
from core.mm.mm_inline import lru_pages, update_lru_size
from core.mm.mm_types import (
    CTL_FALLBACK,
    CTL_MAX_PFN,
    CTL_POLICY,
    FIFO,
    LRU,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    MGLRU,
    Array,
    State,
)
from core.mm.page_alloc import page_zone, zone_of
from core.mm.rmap_walk import Rmap, page_referenced
from core.mm.swap import list_del, lru_add
from core.mm.workingset import nr_swap_pages

if TYPE_CHECKING:
    from core.kernel import Kernel

MOST = lru_simple.SWAP_CLUSTER_MAX
NO_ANSWER = -1


class Advisor:
    """The program outside, as the kernel sees it: `ask(question)` answers a list of frames, or None.

    A question holds: `node`, `cgroup`, `want` (at most so many pages), `kinds` that may be taken, and what has changed since the last
    question: `added` (columns pfn, kind, cgroup, node; in the order of arrival; a page that reclaim put back arrives again), `removed`, `written`
    (it is in swap: the next to be freed at no cost; the last written last), `used`.
    """

    def __init__(self, ask: Callable[[dict[str, Any]], list[int] | None]) -> None:
        self.ask = ask
        self.known: Array = np.zeros(0, np.int64)  # by frame: the stamp under which the program knows the page + 1; 0: not
        self.used: set[int] = set()
        self.given: list[int] = []  # what it answered, as `policy_answers` takes it
        self.score = {"asked": 0, "late": 0, "nonsense": 0}

    def advise(self, k: Kernel, memcg: int, node: int, kinds: list[str]) -> list[int]:
        """Ask; the pages, or none."""
        self.score["asked"] += 1
        question = {"node": node, "cgroup": k.cgroups[memcg].path, "want": MOST, "kinds": kinds, **self.changes(k)}
        answer = self.ask(question)
        if answer is None:
            self.score["late"] += 1
        elif not takeable(k, answer, memcg, node, kinds):
            if answer or there_are(k, memcg, node, kinds):
                self.score["nonsense"] += 1
            answer = None
        self.given += [NO_ANSWER] if answer is None else [len(answer), *answer]
        return answer or []

    def changes(self, k: Kernel) -> dict[str, Any]:
        """Who came, went, was written and was used since the last question."""
        rows = int(k.s.ctl[CTL_MAX_PFN])
        if len(self.known) != rows:
            self.known = np.zeros(rows, np.int64)
        flags, stamps = k.s.mem["flags"][:rows], k.s.stamps[:rows]
        here = (flags & (PG_LRU | PG_UNEVICTABLE)) == PG_LRU
        now = np.where(here, stamps + 1, 0)
        changed = np.flatnonzero(now != self.known)
        added = changed[now[changed] > 1]
        added = added[np.argsort(stamps[added], kind="stable")]
        removed = changed[now[changed] == 0]
        self.known = now
        used, self.used = sorted(pfn for pfn in self.used if now[pfn]), set()
        return {
            "added": {"pfn": added.tolist(), "kind": ["anon" if flag & PG_SWAPBACKED else "file" for flag in flags[added].tolist()],
                      "cgroup": [k.cgroups[id].path for id in k.s.mem["memcg"][added].tolist()], "node": nodes_of(k, added)},
            "removed": removed.tolist(), "written": written(k, changed[now[changed] == 1]), "used": used,
        }  # fmt: skip


def nodes_of(k: Kernel, pfns: Array) -> list[int]:
    """The node of each frame."""
    if k.nr_nodes == 1:
        return [0] * len(pfns)
    return [int(k.s.zones["node"][int(page_zone(k.s, pfn))]) for pfn in pfns.tolist()]


def written(k: Kernel, fresh: Array) -> list[int]:
    """Pages that have just been written, the last written last: the nearer to the tail, the later."""
    left, out = set(fresh.tolist()), []
    for tail in k.s.lruvecs["tail"][: (max(k.cgroups) + 1) * k.nr_nodes, 0].tolist():
        pfn = tail
        while pfn in left:
            out.append(pfn)
            left.discard(pfn)
            pfn = int(k.s.mem["prev"][pfn])
    return out[::-1]


def takeable(k: Kernel, pages: list[int], memcg: int, node: int, kinds: list[str]) -> bool:
    """Do these name pages of the cgroup's lists on the node, each once, and not too many?"""
    if not 1 <= len(pages) <= MOST or len(set(pages)) != len(pages) or min(pages) < 1 or max(pages) >= int(k.s.ctl[CTL_MAX_PFN]):
        return False
    rows = k.s.mem[np.array(pages)]
    flags = rows["flags"]
    allowed = [("anon" if flag & PG_SWAPBACKED else "file") in kinds for flag in flags.tolist()]
    return bool(((flags & (PG_LRU | PG_UNEVICTABLE)) == PG_LRU).all() and (rows["memcg"] == memcg).all()
                and all(allowed) and nodes_of(k, np.array(pages)) == [node] * len(pages))  # fmt: skip


def there_are(k: Kernel, memcg: int, node: int, kinds: list[str]) -> bool:
    """Has the cgroup pages of these kinds on the node? If not, no page is the right answer."""
    nr = k.s.lruvecs["nr"][memcg * k.nr_nodes + node]
    return bool("anon" in kinds and nr[LRU_INACTIVE_ANON] + nr[LRU_INACTIVE_ANON + 1]) or bool(nr[LRU_INACTIVE_FILE] + nr[LRU_INACTIVE_FILE + 1])


@njit
def use_pages(s: State, r: Rmap, used) -> int:
    """Collect and clear the A bits and PG_referenced of every page on a list: how many frames stand in `used`."""
    count = 0
    for pfn in range(1, s.ctl[CTL_MAX_PFN]):
        page = s.mem[pfn]
        if not page["flags"] & PG_LRU or page["flags"] & PG_UNEVICTABLE:
            continue
        young = page_referenced(s, r, pfn, 0) & 0xFFFF
        if young or page["flags"] & PG_REFERENCED:
            page["flags"] &= ~PG_REFERENCED
            used[count] = pfn
            count += 1
    return count


@njit
def swap_left(s: State, memcg: int) -> int:
    """`nr_swap_pages`, callable from Python."""
    return nr_swap_pages(s, memcg)


def next_answer(k: Kernel, r: Rmap, memcg: int, node: int, kinds: list[str]) -> list[int]:
    """The pages to take: as answered before, or as the advisor says now; none where the fallback has to choose."""
    used = np.zeros(int(k.s.ctl[CTL_MAX_PFN]), np.int64)
    count = int(use_pages(k.s, r, used))
    waiting: list[int] = k.policy_client["answers"]
    if waiting:
        nr = waiting.pop(0)
        pages = [waiting.pop(0) for _ in range(min(max(nr, 0), len(waiting)))]
        return pages if takeable(k, pages, memcg, node, kinds) else []
    if k.advisor is None:
        return []
    k.advisor.used.update(used[:count].tolist())
    answer: list[int] = k.advisor.advise(k, memcg, node, kinds)
    return answer


# ---------------------------------------------------------------- the hooks


def isolate(k: Kernel, r: Rmap, memcg: int) -> None:
    """One visit: the pages that the program names, or those of the fallback; of several cgroups the one with the oldest page first."""
    node = int(k.s.sc[0]["node"])
    if not lru_simple.its_turn(k, memcg):
        return
    swap = bool(k.s.sc[0]["may_swap"]) and int(swap_left(k.s, memcg)) > 0
    named = next_answer(k, r, memcg, node, ["anon", "file"] if swap else ["file"])
    lru_simple.visit(k.s, r, memcg, np.array(named, np.int64))


def age(k: Kernel, node: int) -> None:
    """The program ages as it likes."""


# ---------------------------------------------------------------- operations


def policy_answers(k: Kernel, answers: list[int]) -> None:
    """Put answers ready for the next operation. It happens outside of the machine, so no time passes."""
    k.clock.now -= k.costs.syscall
    k.policy_client["answers"] = list(answers)


def reclaim_policy(k: Kernel, policy: str, fallback: str = "fifo") -> None:
    """Another policy from now on: every page changes its list, none is lost. EINVAL for a fallback that is none. No time passes."""
    k.clock.now -= k.costs.syscall
    if fallback not in FALLBACKS:
        raise SysError(Errno.EINVAL, f"the fallback must be one of {', '.join(FALLBACKS)}")
    wanted = RECLAIM_POLICIES.index(policy)
    k.policy_client["answers"] = []
    k.s.ctl[CTL_FALLBACK] = RECLAIM_POLICIES.index(fallback)
    if wanted == int(k.s.ctl[CTL_POLICY]):
        return
    lru_gen.change_state(k, False)
    k.s.ctl[CTL_POLICY] = wanted
    if wanted == MGLRU:
        k.s.ctl[CTL_POLICY] = 0
        k.lru_gen["mm_walk"] = k.lru_gen["nonleaf_young"] = 1
        lru_gen.change_state(k, True)
    elif wanted >= FIFO:
        for lruvec in range((max(k.cgroups) + 1) * k.nr_nodes):
            flatten(k.s, lruvec)


FALLBACKS = RECLAIM_POLICIES[FIFO : LRU + 1]


@njit
def flatten(s: State, lruvec: int) -> None:
    """The classic lists become one a kind, with stamps: inactive before active, each from its tail."""
    for lru in range(4):
        left = s.lruvecs[lruvec]["nr"][lru]
        while left > 0:
            pfn = s.lruvecs[lruvec]["tail"][lru]
            nr = lru_pages(s.mem[pfn]["flags"])
            left -= nr
            zid = zone_of(s, pfn)
            list_del(s, lruvec, lru, pfn)
            update_lru_size(s, zid, lruvec, lru, -nr)
            s.mem[pfn]["flags"] &= ~(PG_LRU | PG_ACTIVE)
            lru_add(s, zid, pfn)
