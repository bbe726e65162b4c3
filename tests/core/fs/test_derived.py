"""Formulas that no column holds, by hand-checked numbers and recorded boots."""
import gzip
import json
import re
from functools import cache
from pathlib import Path

import pytest

from core import Kernel, Machine
from core.fs import derived, proc
from core.mm import page_writeback
from core.vmstat import EVENTS, NODE_STATS, NUMA_STATS, ZONE_STATS

CASES = Path(__file__).resolve().parents[2] / "conformance" / "cases"


@cache
def recording() -> dict[str, str]:
    """A snapshot of a recorded 512M machine on which nothing moved while its files were read."""
    for path in sorted(CASES.glob("*.json.gz")):
        with gzip.open(path) as file:
            snaps = [snap for boot in json.load(file)["runs"] for snap in boot["snaps"].values()]
        for snap in snaps:
            if snap["/proc/meminfo"].startswith("MemTotal:         466") and at_rest(snap):
                return dict(snap)
    raise AssertionError("no recording holds together")


def at_rest(snap: dict[str, str]) -> bool:
    """vmstat, zoneinfo, buddyinfo and meminfo agree on free memory, and vmstat and zoneinfo on the node's counters."""
    vmstat = dict(line.split() for line in snap["/proc/vmstat"].splitlines() if line)
    free = int(vmstat["nr_free_pages"])
    zones = sum(int(n) for n in re.findall(r"pages free +(\d+)", snap["/proc/zoneinfo"]))
    blocks = sum(int(n) << i for line in snap["/proc/buddyinfo"].splitlines() for i, n in enumerate(line.split()[4:]))
    node = dict(re.findall(r"^      (\w+) +(\d+)$", snap["/proc/zoneinfo"].partition("pages free")[0], re.M))
    meminfo = re.search(r"MemFree: +(\d+)", snap["/proc/meminfo"])[1]  # type: ignore[index]
    numa = all(sum(map(int, re.findall(rf"{name} +(\d+)", snap["/proc/zoneinfo"]))) == int(vmstat[name]) for name in NUMA_STATS)
    return free == zones == blocks == int(meminfo) // 4 and numa and all(node[name] == vmstat[name] for name in NODE_STATS)


def as_recorded(snap: dict[str, str]) -> Kernel:
    """A kernel whose counters are a real machine's: what the files then show must be the real text."""
    k = Kernel.boot(Machine.from_dict({"memory": "512M", "transparent_hugepage": "never"}))
    blocks = re.split(r"^Node 0, zone +", snap["/proc/zoneinfo"], flags=re.M)[1:]
    for zid, block in enumerate(blocks[:4]):
        fill_zone(k, zid, block, dict(re.findall(r"^ +(\w+) +(\d+)$", block, re.M)))
    for zid, line in enumerate(snap["/proc/buddyinfo"].splitlines()):
        k.s.zones["nr_free"][zid] = [int(n) for n in line.split()[4:]]
    vmstat = dict(line.split() for line in snap["/proc/vmstat"].splitlines())
    k.s.vm_event[:] = [int(vmstat[name]) for name in EVENTS]
    return k


def fill_zone(k: Kernel, zid: int, block: str, values: dict[str, str]) -> None:
    zone = k.s.zones[zid : zid + 1]
    zone["free"] = int(re.search(r"pages free +(\d+)", block)[1])  # type: ignore[index]
    for name in ("spanned", "present", "managed", "boost"):
        zone[name] = int(values[name])
    zone["wmark"][0, :3] = [int(values[name]) for name in ("min", "low", "high")]
    zone["lowmem_reserve"][0] = [int(n) for n in re.search(r"protection: \((.*)\)", block)[1].split(",")]  # type: ignore[index]
    if zone["present"][0]:
        zone["start_pfn"] = int(re.search(r"start_pfn: +(\d+)", block)[1])  # type: ignore[index]
        zone["stat"][0] = [int(values[name]) for name in ZONE_STATS]
        k.s.numa_stat[zid] = [int(values[name]) for name in NUMA_STATS]
    if "per-node stats" in block:
        k.s.node_stat[0] = [int(values[name]) for name in NODE_STATS]


@pytest.mark.parametrize("name", ["vmstat", "buddyinfo"])
def test_text_is_the_recorded_one_byte_for_byte(name: str) -> None:
    snap = recording()
    assert getattr(proc, name)(as_recorded(snap)).rstrip("\n") == snap[f"/proc/{name}"].rstrip("\n")


def test_zoneinfo_is_the_recorded_one_but_for_each_cpus_count() -> None:
    snap = recording()
    counts = re.compile(r"count: \d+")
    assert counts.sub("", proc.zoneinfo(as_recorded(snap))).rstrip("\n") == counts.sub("", snap["/proc/zoneinfo"]).rstrip("\n")


# no buffers here: Cached takes them; the rest of what boot used is another machine's
OTHERS = ("Buffers", "Cached", "Committed_AS", "VmallocUsed", "Percpu", "DirectMap4k", "DirectMap2M", "SwapTotal", "SwapFree", "CommitLimit")


def test_meminfo_is_the_recorded_one_line_by_line() -> None:
    snap = recording()
    ours, real = proc.meminfo(as_recorded(snap)).splitlines(), snap["/proc/meminfo"].splitlines()
    assert [line.split(":")[0] for line in ours] == [line.split(":")[0] for line in real]
    assert all(len(a) == len(b) for a, b in zip(ours, real, strict=True))
    assert [line for line in ours if not line.startswith(OTHERS)] == [line for line in real if not line.startswith(OTHERS)]


@pytest.mark.parametrize(("managed", "cpus", "threshold"), [(3840, 2, 4), (112688, 2, 12), (48988, 2, 8), (1 << 24, 64, 125), (3840, 1, 2)])
def test_stat_threshold(managed: int, cpus: int, threshold: int) -> None:
    assert proc.stat_threshold(managed, cpus) == threshold


def test_available_is_not_negative() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "256M"}))
    k.s.zones["free"][:] = 0
    assert derived.available_pages(k) >= 0
    assert page_writeback.dirty_limits(k) == (0, 0)


@pytest.mark.parametrize(("size", "used", "line"), [
    (262140, 65664, "/dev/vdb                                partition\t262140\t\t65664\t\t-2\n"),
    (16777212, 0, "/dev/vdb                                partition\t16777212\t0\t\t-2\n"),
    (16777212, 12345678, "/dev/vdb                                partition\t16777212\t12345678\t-2\n"),
])  # fmt: skip
def test_swaps_line(size: int, used: int, line: str) -> None:
    assert proc._swap_line("/dev/vdb", "partition", size, used, -2) == line
