"""vm.zone_reclaim_mode: a request reclaims its own node before it goes to another."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.mm.space import M, Space

FILE = "/data/f"
SIZE = 160 * M


def machine(**args: Any) -> Space:
    """Two nodes of 128 MiB; a process on node 0."""
    space = Space("256M", nodes=2, cpus=2, **{"swap": "0", **args})
    space.ok("sched_setaffinity", cpus=[0])
    space.k.call("create_file", path=FILE, size=SIZE)
    space.set("/proc/sys/vm/min_slab_ratio", 100)  # on so small a node the kernel's own slab is more than 5 %
    return space


def elsewhere(space: Space) -> int:
    """Pages that node 0 was asked for and node 1 gave."""
    return int(space.read("/sys/devices/system/node/node0/numastat").split()[5])


# mode, what fills node 0 with pages of a file, settings; does a process of that node then get its memory from it?
CASES: dict[str, tuple[int, str, dict[str, int], bool]] = {
    "off": (0, "read", {}, False),
    "clean page cache goes": (1, "read", {}, True),
    "mapped pages stay": (1, "map", {}, False),
    "unless unmapping is allowed": (5, "map", {}, True),
    "dirty pages stay": (1, "dirty", {}, False),
    "a node keeps min_unmapped_ratio": (1, "read", {"vm/min_unmapped_ratio": 100}, False),
}


@pytest.mark.parametrize("case", CASES)
def test_who_stays_on_the_node(case: str) -> None:
    mode, how, settings, stays = CASES[case]
    space = machine()
    space.set("/proc/sys/vm/dirty_ratio", 90)
    space.set("/proc/sys/vm/dirty_background_ratio", 90)
    space.set("/proc/sys/vm/dirty_writeback_centisecs", 0)
    length = 90 * M
    if how == "dirty":  # few enough that nobody writes them
        space.touch(space.mmap(30 * M), 30 * M)
        length = 30 * M
    if how == "read":
        space.ok("read", path=FILE, offset=0, length=length)
    else:
        address = space.mmap(length, flags=["shared"], file=FILE, offset=0)
        space.touch(address, length, "write" if how == "dirty" else "read")
        if how == "dirty":
            space.ok("munmap", address=address, length=length)
    for name, value in settings.items():
        space.set(f"/proc/sys/{name}", value)
    space.set("/proc/sys/vm/zone_reclaim_mode", mode)
    before, freed = elsewhere(space), space.vmstat("pgsteal_direct")
    space.touch(space.mmap(40 * M), 40 * M)
    assert (elsewhere(space) == before) == stays
    assert not stays or space.vmstat("pgsteal_direct") > freed


def test_it_is_told_and_counted() -> None:
    space = machine()
    space.set("/proc/sys/vm/zone_reclaim_mode", 1)
    space.k.drain()
    space.ok("read", path=FILE, offset=0, length=SIZE)
    events = [event for event in space.k.drain() if event.type == "reclaim" and event.by == "node"]  # type: ignore[attr-defined]
    assert events and all(event.node == 0 and event.reclaimed >= 32 for event in events)  # type: ignore[attr-defined]
    assert elsewhere(space) == 0 and space.vmstat("zone_reclaim_failed") == 0
    space.k.call("advance", duration_ns=3 * 10**9)
    assert "total=0" not in space.read("/proc/pressure/memory").splitlines()[0]


def test_a_node_that_gives_nothing_is_counted_and_passed() -> None:
    space = machine(swap="64M")
    address = space.mmap(90 * M, flags=["shared"], file=FILE, offset=0)
    space.touch(address, 88 * M, "read")
    space.ok("read", path=FILE, offset=88 * M, length=2 * M)
    space.ok("mlock", address=address, length=90 * M)
    space.set("/proc/sys/vm/min_unmapped_ratio", 0)
    space.set("/proc/sys/vm/zone_reclaim_mode", 5)
    space.touch(space.mmap(40 * M), 40 * M)
    assert elsewhere(space) > 0 and space.vmstat("zone_reclaim_failed") > 0


def test_far_nodes_are_not_reclaimed_for() -> None:
    space = Space("256M", nodes=2, cpus=2, swap="0", distances=[[10, 40], [40, 10]])
    space.k.call("create_file", path=FILE, size=SIZE)
    space.ok("sched_setaffinity", cpus=[1])
    space.ok("read", path=FILE, offset=0, length=90 * M)
    space.set("/proc/sys/vm/zone_reclaim_mode", 1)
    space.ok("mbind", address=(address := space.mmap(40 * M)), length=40 * M, mode="preferred", nodes=[1])
    before = space.vmstat("pgsteal_direct")
    space.touch(address, 40 * M)
    assert space.vmstat("pgsteal_direct") > before  # its own node is near
    space.ok("sched_setaffinity", cpus=[0])
    freed = space.vmstat("pgsteal_direct")
    space.ok("mbind", address=(far := space.mmap(60 * M)), length=60 * M, mode="preferred", nodes=[1])
    space.touch(far, 60 * M)
    assert space.vmstat("pgsteal_direct") == freed  # node 1 has a CPU, and it is not this one


def test_the_same_pages_in_every_mode_of_the_loops() -> None:
    """The loop that stops for it and the slow path of Python agree with a replay."""
    one, two = machine(), machine()
    for space in (one, two):
        space.set("/proc/sys/vm/zone_reclaim_mode", 1)
        space.ok("read", path=FILE, offset=0, length=SIZE)
        space.touch(space.mmap(40 * M), 40 * M)
    assert one.k.digest() == two.k.digest()
