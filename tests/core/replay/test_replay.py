"""Replay: each policy against a reference written the slow way, the textbook's numbers, and what theory says of them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import replay
from core.mm.mm_types import MGLRU
from core.replay import Trace
from core.replay import frames as machines
from tests.core.replay.generations import Generations

BELADY = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]
NEVER = 1 << 40


def fifo(trace: list[int], frames: int) -> int:
    queue: deque[int] = deque()
    faults = 0
    for page in trace:
        if page not in queue:
            faults += 1
            if len(queue) == frames:
                queue.popleft()
            queue.append(page)
    return faults


def clock(trace: list[int], frames: int) -> int:
    ring: deque[int] = deque()
    used: dict[int, bool] = {}
    faults = 0
    for page in trace:
        if page in used:
            used[page] = True
            continue
        faults += 1
        if len(ring) == frames:
            while used[ring[0]]:
                used[ring[0]] = False
                ring.rotate(-1)
            del used[ring.popleft()]
        ring.append(page)
        used[page] = False
    return faults


def lru(trace: list[int], frames: int) -> int:
    stack: OrderedDict[int, None] = OrderedDict()
    faults = 0
    for page in trace:
        if page in stack:
            stack.move_to_end(page)
            continue
        faults += 1
        if len(stack) == frames:
            stack.popitem(last=False)
        stack[page] = None
    return faults


def opt(trace: list[int], frames: int) -> int:
    held: set[int] = set()
    faults = 0
    for at, page in enumerate(trace):
        if page in held:
            continue
        faults += 1
        if len(held) == frames:
            rest = trace[at + 1 :]
            held.remove(max(held, key=lambda old: rest.index(old) if old in rest else NEVER))
        held.add(page)
    return faults


def lfu(trace: list[int], frames: int) -> int:
    uses: dict[int, int] = {}
    last: dict[int, int] = {}
    faults = 0
    for at, page in enumerate(trace):
        if page not in uses:
            faults += 1
            if len(uses) == frames:
                del uses[min(uses, key=lambda old: (uses[old], last[old]))]
            uses[page] = 0
        uses[page] += 1
        last[page] = at
    return faults


REFERENCES: dict[str, Callable[[list[int], int], int]] = {"fifo": fifo, "clock": clock, "lru": lru, "opt": opt, "lfu": lfu}
TRACES = st.lists(st.integers(0, 24), min_size=1, max_size=220)


def test_beladys_anomaly() -> None:
    table = replay.compare_policies(Trace.of(BELADY), ["fifo", "lru", "opt"], [3, 4])
    assert table["faults"] == {"fifo": [9, 10], "lru": [10, 8], "opt": [7, 6]}
    assert table["anomalies"] == [replay.Anomaly("fifo", (3, 4), (9, 10))]


@pytest.mark.parametrize(("frames", "faults"), [(3, 15), (1, 20)])
def test_the_textbooks_reference_string(frames: int, faults: int) -> None:
    """Silberschatz, Galvin and Gagne, figure 10.12: FIFO with three frames faults 15 times, OPT 9, LRU 12."""
    trace = Trace.of([7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1])
    assert replay.faults(trace, "fifo", frames) == faults
    if frames == 3:
        assert (replay.faults(trace, "opt", 3), replay.faults(trace, "lru", 3)) == (9, 12)


@settings(max_examples=60, deadline=None)
@given(TRACES, st.integers(1, 24))
def test_each_policy_is_its_reference(pages: list[int], frames: int) -> None:
    trace = Trace.of(pages)
    for policy, reference in REFERENCES.items():
        assert replay.faults(trace, policy, frames) == reference(pages, frames), policy


def generations_of(trace: Trace, frames: int) -> tuple[list[object], list[list[int]]]:
    """The multi-gen LRU after a trace: faults, the oldest and youngest generation, the controller; each generation's list, from its head."""
    s, r, ranges = machines.machine(trace.pages, frames, MGLRU, 0)
    count = machines.replay(s, r, trace.accesses, ranges, s.pt[1:].reshape(-1), s.xa[1:].reshape(-1))
    vec = s.lrugens[0]
    sizes = np.zeros((4, 2, 4), np.int64)
    lists: list[list[int]] = []
    for gen in range(4):
        lists.append([])
        pfn = int(vec["head"][gen * 8])
        while pfn:
            lists[gen].append(int(s.mem["index"][pfn]))
            sizes[int(s.gens[pfn] & 7) - 1, 0, 0] += 1
            pfn = int(s.mem["next"][pfn])
    assert vec["nr"].tolist() == sizes.reshape(-1).tolist()  # each generation's size, though counted by batches
    controller = [vec[name][:4].tolist() for name in ("avg_refaulted", "avg_total", "refaulted", "evicted", "protected")]
    return [int(count), int(vec["min_seq"][0]), int(vec["max_seq"]), *controller], lists


@pytest.mark.parametrize("pattern", ["zipf", "hot-cold", "working-set", "random", "sequential"])
@pytest.mark.parametrize(("pages", "frames", "length"), [(700, 300, 6000), (400, 70, 4000), (1500, 900, 9000), (90, 20, 900)])
def test_the_multi_gen_lru_is_its_reference_access_by_access(pattern: str, pages: int, frames: int, length: int) -> None:
    """Equal at the end of each of many prefixes of a trace: the same pages on the same lists in the same order, and the same controller."""
    whole = replay.generate_trace(pattern, pages, length, seed=pages, skew=0.7).accesses.tolist()
    for end in range(length // 8, length + 1, length // 8):
        trace = Trace.of(whole[:end])
        if frames >= trace.pages:
            continue
        slow = Generations(trace.pages, frames)
        faults = slow.run(trace.accesses.tolist())
        controller = [slow.before_refaulted, slow.before_total, slow.refaulted, slow.evicted, slow.protected]
        assert generations_of(trace, frames) == ([len(faults), slow.min_anon, slow.max_seq, *controller], slow.lists)


@settings(max_examples=60, deadline=None)
@given(TRACES)
def test_lru_for_all_sizes_in_one_pass(pages: list[int]) -> None:
    trace = Trace.of(pages)
    curve = replay.lru_curve(trace)
    assert curve[1:].tolist() == [lru(pages, frames) for frames in range(1, trace.pages + 1)]
    assert (np.diff(curve) <= 0).all()  # the stack property


@settings(max_examples=40, deadline=None)
@given(TRACES, st.integers(1, 24))
def test_nobody_beats_opt_and_each_page_faults_once_at_least(pages: list[int], frames: int) -> None:
    trace = Trace.of(pages)
    bound = opt(pages, frames)
    for policy in replay.POLICIES:
        assert max(bound, trace.pages) <= replay.faults(trace, policy, frames) <= len(pages), policy


def test_a_scan_over_a_little_more_than_memory() -> None:
    """LRU, FIFO and CLOCK never hit; random and OPT do."""
    trace = replay.generate_trace("sequential", 110, 5500)
    for policy in ("lru", "fifo", "clock"):
        assert replay.faults(trace, policy, 100) == 5500
    assert replay.faults(trace, "opt", 100) < 1000
    assert replay.faults(trace, "random", 100, seed=1) < 4000


def test_the_kernels_policies_keep_what_is_used_often() -> None:
    """A tenth of the pages takes nine tenths of the accesses and fits twice: both kernels' lists come near to LRU or better."""
    trace = replay.generate_trace("hot-cold", 20_000, 400_000, seed=5)
    exact = replay.faults(trace, "lru", 4000)
    for policy in ("classic", "mglru"):
        assert replay.faults(trace, policy, 4000) < 1.1 * exact, policy


def test_a_run_depends_on_nothing_but_its_input() -> None:
    trace = replay.generate_trace("zipf", 3000, 60_000, seed=2)
    for policy in replay.POLICIES:
        assert replay.faults(trace, policy, 700, seed=9) == replay.faults(trace, policy, 700, seed=9)
    assert replay.faults(trace, "random", 700, seed=1) != replay.faults(trace, "random", 700, seed=2)


def test_names_of_pages_do_not_matter() -> None:
    far = [page * 977_777_777 for page in BELADY]
    assert Trace.of(far).accesses.tolist() == Trace.of(BELADY).accesses.tolist() == [page - 1 for page in BELADY]


@pytest.mark.parametrize("pattern", replay.PATTERNS)
def test_generated_traces_are_the_same_anywhere(pattern: str) -> None:
    one, two = replay.generate_trace(pattern, 50, 2000, seed=4), replay.generate_trace(pattern, 50, 2000, seed=4)
    assert one.accesses.tolist() == two.accesses.tolist() and one.pages <= 50 and len(one.accesses) == 2000


def test_zipf_prefers_few_pages() -> None:
    counts = np.bincount(replay.generate_trace("zipf", 1000, 100_000, seed=1).accesses)
    assert 0.11 < counts.max() / 100_000 < 0.16  # 1 / H(1000) = 0.134


def test_touches_become_a_trace() -> None:
    calls = [{"address": 0x7000, "length": 3 * 4096}, {"address": 0x7000, "length": 3 * 4096, "order": "reverse", "repeat": 2},
             {"address": 0x8000, "pages": [0, 5]}, {"address": 0x7000, "length": 5 * 4096, "stride": 2}]  # fmt: skip
    pages = [7, 8, 9, 9, 8, 7, 9, 8, 7, 8, 13, 7, 9, 11]
    assert replay.trace_of_touches(calls).accesses.tolist() == Trace.of(pages).accesses.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Trace.of([]), lambda: Trace.of([1, -1]), lambda: Trace.of(np.zeros((2, 2), np.int64)),
        lambda: replay.trace_from_bytes(b"12345"),
        lambda: replay.generate_trace("spiral", 3, 3), lambda: replay.generate_trace("loop", 0, 3),
        lambda: replay.generate_trace("loop", 5, 3, set=6),
        lambda: replay.faults(Trace.of([1]), "best", 1), lambda: replay.faults(Trace.of([1]), "lru", 0),
        lambda: replay.compare_policies(Trace.of([1]), ["lru"], []), lambda: replay.compare_policies(Trace.of([1]), ["lfu", "nfu"], [1]),
        lambda: replay.compare_policies(replay.generate_trace("random", 2000, 1_000_000), ["fifo"], range(1, 900)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        wrong()
