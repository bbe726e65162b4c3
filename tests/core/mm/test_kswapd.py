"""kswapd works beside the task that allocates: how they share the work of reclaim, as recorded on Linux 6.1 with two CPUs."""

from __future__ import annotations

import pytest

from tests.core.mm.space import M, Space

# What a machine of 256M did: swap, MiB touched in turn by processes of their own (at most 120 each), the least and the most of its
# pages that kswapd freed in the recorded boots (pgsteal_kswapd of pgsteal_kswapd + pgsteal_direct)
RECORDED = {
    "one process fills a third more than there is": ("512M", (120, 120, 80), 0.28, 0.47),
    "three of them": ("512M", (120, 120, 120), 0.71, 0.75),
    "one of them small": ("256M", (96, 120, 40), 0.69, 0.85),
}


def fill(cpus: int, swap: str, sizes: tuple[int, ...]) -> Space:
    space = Space("256M", swap=swap, cpus=cpus)
    for size in sizes:
        pid = space.spawn()
        address = int(space.k.call("mmap", pid, length=size * M, prot="rw", flags=["private", "anonymous"]).result["address"])
        space.k.call("touch", pid, address=address, length=size * M, access="write")
    space.k.verify()
    return space


def share(space: Space) -> float:
    """Of the pages reclaimed, those that kswapd freed."""
    kswapd, direct = space.vmstat("pgsteal_kswapd"), space.vmstat("pgsteal_direct")
    return kswapd / (kswapd + direct)


@pytest.mark.parametrize("case", RECORDED)
def test_kswapd_frees_its_share(case: str) -> None:
    swap, sizes, least, most = RECORDED[case]
    space = fill(2, swap, sizes)
    assert least / 2 < share(space) < most * 3 / 2  # which of the two is ahead depends on the disk and the processors
    stalls, direct = space.vmstat("allocstall_movable"), space.vmstat("pgsteal_direct")
    assert 32 * stalls <= direct < 64 * stalls  # each takes 32, or what the last batch gives


def test_a_task_that_finds_kswapd_ahead_does_not_reclaim() -> None:
    """Bursts smaller than the distance of the marks, with pauses: kswapd keeps up, once it has looked at every page a first time."""
    space = Space("256M", swap="512M")
    address, burst = space.mmap(320 * M), M // 4
    for offset in range(0, 320 * M, burst):
        space.touch(address + offset, burst)
        space.k.advance(10**8)
    assert space.vmstat("pgsteal_kswapd") > 15_000 and space.vmstat("pgsteal_direct") < 32 * 16
    assert space.vmstat("pageoutrun") > 10


@pytest.mark.parametrize(("pause_ms", "quickly"), [(20, True), (200, False)])
def test_who_wakes_kswapd_within_100_ms_does_so_quickly(pause_ms: int, quickly: bool) -> None:
    """It is counted when it is woken; a run that ends without balance is followed by the next, and missed the high mark."""
    space = Space("256M", swap="512M")
    address, burst = space.mmap(320 * M), M // 4
    for offset in range(0, 320 * M, burst):
        space.touch(address + offset, burst)
        space.k.advance(pause_ms * 10**6)
    runs, low, high = (space.vmstat(name) for name in ("pageoutrun", "kswapd_low_wmark_hit_quickly", "kswapd_high_wmark_hit_quickly"))
    assert runs > 100
    assert 0.9 * runs < low < runs - high if quickly else low == 0
