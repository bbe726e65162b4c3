"""The N-th page allocation of a call fails, for every N: the call says so or carries on, and nothing is lost or left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.mm.mm_types import CTL_FAIL_NTH
from tests.core.mm.space import ANON, PAGE, SHARED, M, Space

FAR = 0x10000000
MOST = 40  # no call below allocates more pages than this


def _mremap(space: Space) -> None:
    space.call("mremap", address=FAR, old_length=8 * M, new_length=16 * M)


def _mremap_fixed(space: Space) -> None:
    space.call("mremap", address=FAR, old_length=8 * M, new_length=8 * M, new_address=FAR + (1 << 40))


def _mlock(space: Space) -> None:
    space.call("mlock", address=FAR + 8 * M - 4 * PAGE, length=8 * PAGE)


def _mmap_locked(space: Space) -> None:
    space.call("mmap", length=8 * PAGE, prot="rw", flags=[*ANON, "locked"], address=1 << 40)


def _shared(space: Space) -> None:
    space.call("mmap", length=8 * PAGE, prot="rw", flags=[*SHARED, "populate"])


def _populate(space: Space) -> None:
    space.call("madvise", address=FAR + 4 * M, length=8 * PAGE, advice="populate_write")


def _mprotect(space: Space) -> None:
    space.call("mprotect", address=FAR + M, length=M, prot="r")


def _fork(space: Space) -> None:
    space.call("fork")


CALLS: dict[str, Callable[[Space], None]] = {
    "mremap": _mremap,
    "mremap, fixed": _mremap_fixed,
    "mlock": _mlock,
    "mmap, locked": _mmap_locked,
    "mmap, shared": _shared,
    "populate": _populate,
    "mprotect": _mprotect,
    "fork": _fork,
}


@pytest.mark.parametrize("name", CALLS)
def test_every_allocation_may_fail(name: str) -> None:
    for nth in range(1, MOST):
        space = Space()
        space.mmap(8 * M, flags=[*ANON, "fixed"], address=FAR)
        space.mmap(16 * PAGE, flags=[*ANON, "fixed"], address=FAR + 8 * M, prot="rw")
        space.mmap(PAGE, flags=[*ANON, "fixed"], address=FAR + 8 * M + 16 * PAGE, prot="r")
        for at in range(0, 8, 2):
            space.touch(FAR + at * M, 2 * PAGE)
        committed, resident = space.k.committed_pages, space.anon()
        space.k.s.ctl[CTL_FAIL_NTH] = nth
        CALLS[name](space)  # verify() runs after it
        untouched = space.k.s.ctl[CTL_FAIL_NTH] > 0
        space.k.s.ctl[CTL_FAIL_NTH] = 0
        if name.startswith("mremap"):
            assert space.anon() == resident, nth
        for pid in [pid for pid in space.k.tasks if pid >= space.pid]:
            space.ok("exit", pid)
        assert space.k.committed_pages < committed
        if untouched:
            return
    pytest.fail(f"{name} allocates more than {MOST} pages")
