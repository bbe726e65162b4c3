"""Zones, watermarks and reserves by the kernel's formulas (mm/page_alloc.c), held against /proc/zoneinfo."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import pytest

from core.mm import vmscan
from tests.peer.box import Box, M, close, fields

RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32}
ORDER = ("DMA", "DMA32", "Normal")


@dataclass(frozen=True)
class Zone:
    """What zoneinfo says of a zone, in pages."""

    node: int
    name: str
    min: int
    low: int
    high: int
    managed: int
    free: int
    protection: tuple[int, ...]


def zones(box: Box) -> list[Zone]:
    found = []
    for block in re.split(r"(?=^Node )", box.text("/proc/zoneinfo"), flags=re.M)[1:]:
        node, name = re.match(r"Node (\d+), zone +(\w+)", block).groups()  # type: ignore[union-attr]
        number = {key: int(value) for key, value in re.findall(r"^ +(?:pages )?(free|min|low|high|managed) +(\d+)$", block, re.M)}
        if not number.get("managed"):
            continue
        protection = tuple(int(word) for word in re.search(r"protection: \((.*)\)", block)[1].split(", "))  # type: ignore[index]
        found.append(Zone(int(node), name, *(number[key] for key in ("min", "low", "high", "managed", "free")), protection))
    return found


def min_free_kbytes(box: Box) -> int:
    return int(box.text("/proc/sys/vm/min_free_kbytes"))


MACHINES = [
    {"memory": "256M", "transparent_hugepage": "never"},
    {"memory": "512M", "transparent_hugepage": "never"},
    {"memory": "1G", "transparent_hugepage": "never"},
    {"memory": "2G", "transparent_hugepage": "never"},
    {"memory": "8G", "transparent_hugepage": "never"},
    {"memory": "1G", "transparent_hugepage": "madvise"},
    {"memory": "8G", "transparent_hugepage": "always"},
    {"memory": "2G", "nodes": 2, "transparent_hugepage": "never"},
]
IDS = [" ".join(map(str, machine.values())) for machine in MACHINES]


@pytest.mark.parametrize("machine", MACHINES, ids=IDS)
def test_the_zones_add_up(machine: dict[str, object]) -> None:
    box = Box(**machine)
    found = zones(box)
    assert sum(zone.managed for zone in found) * 4 == box.meminfo()["MemTotal"]
    assert sum(zone.free for zone in found) * 4 == pytest.approx(box.meminfo()["MemFree"], abs=2048)


ZONES = [("512M", ["DMA", "DMA32"]), ("2G", ["DMA", "DMA32"]), ("8G", ["DMA", "DMA32", "Normal"])]


@pytest.mark.parametrize(("memory", "names"), ZONES)
def test_wm16_zones_by_the_real_boundaries(memory: str, names: list[str]) -> None:
    assert [zone.name for zone in zones(Box(memory=memory))] == names


# WM-01: int_sqrt(lowmem kB * 16) of the memory that is left to the allocator when the kernel sets it
SQUARE_ROOT = [("1G", 4096), ("2G", 5792), ("4G", 8192), ("8G", 11_585), ("16G", 16_384)]


@pytest.mark.parametrize(("memory", "kb"), SQUARE_ROOT)
def test_wm01_min_free_kbytes(memory: str, kb: int) -> None:
    """The table's figures are of the full size; the kernel itself takes a few percent before the root."""
    box = Box(memory=memory, transparent_hugepage="never")
    managed = sum(zone.managed for zone in zones(box)) * 4
    assert min_free_kbytes(box) <= kb
    assert close(min_free_kbytes(box), math.isqrt(managed * 16), 2)


# WM-02: with huge pages, 512 * zones * 11 pages, but at most a twentieth of the machine
RECOMMENDED = [("2G", 1, 45_056), ("8G", 1, 67_584), ("8G", 2, 90_112)]


@pytest.mark.parametrize(("memory", "nodes", "kb"), RECOMMENDED)
@pytest.mark.parametrize("mode", ["madvise", "always"])
def test_wm02_recommended_min(memory: str, nodes: int, kb: int, mode: str) -> None:
    assert min_free_kbytes(Box(memory=memory, nodes=nodes, transparent_hugepage=mode)) == kb


def test_wm02_at_most_a_twentieth() -> None:
    box = Box(memory="768M", transparent_hugepage="madvise")
    managed = sum(zone.managed for zone in zones(box)) * 4
    assert min_free_kbytes(box) < 45_056
    assert close(min_free_kbytes(box), managed // 20, 2)


@pytest.mark.parametrize("scale", [10, 200, 1000])
@pytest.mark.parametrize("machine", MACHINES, ids=IDS)
def test_wm03_wm04_per_zone(machine: dict[str, object], scale: int) -> None:
    """Written and read back, so that all zones are computed from one total."""
    box = Box(**machine)
    box.set("/proc/sys/vm/watermark_scale_factor", scale)
    box.set("/proc/sys/vm/min_free_kbytes", 8192)
    found = zones(box)
    lowmem = sum(zone.managed for zone in found)
    for zone in found:
        least = 8192 // 4 * zone.managed // lowmem
        step = max(least // 4, zone.managed * scale // 10_000)
        assert zone.min == pytest.approx(least, abs=1)
        assert zone.low == zone.min + step
        assert zone.high == zone.min + 2 * step


@pytest.mark.parametrize("value", ["0", "3001", "x"])
def test_wm05_scale_factor_out_of_range(value: str) -> None:
    assert Box(memory="512M").put("/proc/sys/vm/watermark_scale_factor", value) == "EINVAL"


@pytest.mark.parametrize("machine", MACHINES, ids=IDS)
def test_wm06_lowmem_reserve(machine: dict[str, object]) -> None:
    """protection[j] of zone i: the managed pages of zones i+1 to j of its node, by i's ratio."""
    box = Box(**machine)
    box.set("/proc/sys/vm/lowmem_reserve_ratio", "256 256 32 0 0")  # at boot they are computed before all is managed
    found = zones(box)
    for zone in found:
        at = ORDER.index(zone.name)
        above = {other.name: other.managed for other in found if other.node == zone.node}
        for j, protection in enumerate(zone.protection[:3]):
            pages = sum(above.get(name, 0) for name in ORDER[at + 1 : j + 1])
            assert protection == (pages // RATIO[zone.name] if j > at else 0), (zone, j)


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("percent", [2, 5])
def test_lx02_free_memory_stays_above_the_reserve(percent: int, mode: int) -> None:
    """min_free_kbytes of 2 % to 5 % of what is free: an allocator runs until it dies, and never below nine tenths of it."""
    box = Box(memory="256M", swap="0")
    kb = box.meminfo()["MemFree"] * percent // 100
    box.set("/proc/sys/vm/min_free_kbytes", kb)
    box.set("/proc/sys/vm/overcommit_memory", mode)
    pid = box.spawn()
    lowest = box.meminfo()["MemFree"]
    while not (found := box.alloc_anon(pid, 4 << 20)).signal:
        lowest = min(lowest, box.meminfo()["MemFree"])
    assert found.signal == "SIGKILL"
    assert lowest >= kb * 9 // 10


def test_ratio_table_is_of_these_zones() -> None:
    assert tuple(RATIO) == ORDER


def test_raised_above_what_every_zone_has_free_they_wake_kswapd_at_once() -> None:
    """kswapd has made room before a program asks for memory: nobody reclaims for himself."""
    box = Box(memory="128M", swap="256M")
    pid = box.spawn()
    box.alloc_anon(pid, (fields(box.text("/proc/meminfo"))["MemFree"] << 10) - 6 * M)
    assert box.put("/proc/sys/vm/min_free_kbytes", 32768) is None
    counters = fields(box.text("/proc/vmstat"))
    assert counters["pgsteal_kswapd"] > 0
    assert counters["pgscan_direct"] == 0
    assert vmscan.pgdat_balanced(box.kernel, 0)
    box.kernel.verify()
