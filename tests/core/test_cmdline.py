"""The kernel's command line."""

from __future__ import annotations

import pytest

from core import FsError, Kernel, Machine
from core.cmdline import parse, show
from tests.peer.box import CGROUP, Box, M

PRESSURE = ("/proc/pressure/memory", "/proc/pressure/cpu", "/proc/pressure/io", f"{CGROUP}/a/memory.pressure")

WRONG = [
    ("quiet", "'quiet' is not a parameter that this machine knows"),
    ("init=/bin/sh", "'init'"),
    ("transparent_hugepage=sometimes", "it takes always or madvise or never"),
    ("psi=maybe", "it takes 0 or 1"),
    ("hugepagesz=4M", "it takes 2M or 1G"),
    ("hugepages=lots", "it takes a number"),
    ("norandmaps=1", "it takes nothing"),
    ("mem=1G", "say machine.memory"),
    ("memory_recursiveprot", "say machine.cgroup_mount"),
    (["psi=0"], "must be a line"),
]


@pytest.mark.parametrize(("line", "why"), WRONG)
def test_what_is_not_known_is_refused_by_name(line: object, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        Machine.from_dict({"cmdline": line})
    assert why in str(refused.value)


def test_proc_cmdline_shows_it() -> None:
    assert show((), "madvise") == "norandmaps psi=1 transparent_hugepage=madvise numa_balancing=disable"
    box = Box(memory="96M", cmdline="psi=0 transparent_hugepage=always swapaccount=0")
    assert box.text("/proc/cmdline") == "norandmaps numa_balancing=disable psi=0 transparent_hugepage=always swapaccount=0\n"
    assert box.kernel.machine.transparent_hugepage == "always"
    assert Machine.from_dict(box.kernel.machine.to_dict()) == box.kernel.machine


def test_nothing_is_said_twice_in_two_ways() -> None:
    with pytest.raises(ValueError, match="say it once"):
        Machine.from_dict({"transparent_hugepage": "never", "cmdline": "transparent_hugepage=always"})
    assert parse("psi=0 psi=1") == (("psi", "0"), ("psi", "1"))
    assert Machine.from_dict({"cmdline": "psi=0 psi=1"}).psi  # the last one counts


@pytest.mark.parametrize("path", PRESSURE)
def test_without_psi_there_are_no_pressure_files(path: str) -> None:
    """As recorded of a 6.1 booted with psi=0: neither /proc/pressure nor the cgroups' files are made."""
    for psi in (0, 1):
        box = Box(memory="96M", cmdline=f"psi={psi}")
        box.cgroup("/a")
        name = path.rpartition("/")[2]
        if psi:
            assert box.text(path).startswith("some avg10=")
        else:
            with pytest.raises(FsError) as missing:
                box.text(path)
            assert missing.value.errno == "ENOENT"
            assert name not in box.kernel.listdir(f"{CGROUP}/a")


def test_without_swap_accounting_a_limit_is_passed_by_way_of_swap() -> None:
    """200M written in 50M: with accounting and no swap the limit kills; without it there is nothing to forbid the swap with."""
    killed = {}
    for accounting in (1, 0):
        box = Box(memory="256M", swap="256M", cmdline=f"swapaccount={accounting}")
        box.cgroup("/a", memory_max="50M")
        files = box.kernel.listdir(f"{CGROUP}/a")
        assert ("memory.swap.max" in files) == ("memory.swap.current" in files) == bool(accounting)
        assert box.put(f"{CGROUP}/a/memory.swap.max", 0) == (None if accounting else "ENOENT")
        pid = box.spawn(cgroup="/a")
        killed[accounting] = box.touch(pid, box.mmap(pid, 200 * M), 200 * M).killed
        box.kernel.verify()
        swap = dict(line.split(":") for line in box.text("/proc/meminfo").splitlines())
        used = int(swap["SwapTotal"].split()[0]) - int(swap["SwapFree"].split()[0])
        assert (used > 140 * 1024) == (not accounting)
    assert len(killed[1]) == 1
    assert killed[0] == []


def test_pools_of_huge_pages() -> None:
    box = Box(memory="256M", cmdline="hugepages=8")
    meminfo = dict(line.split(":") for line in box.text("/proc/meminfo").splitlines())
    assert meminfo["HugePages_Total"].strip() == "8"
    assert Kernel.restore(box.kernel.snapshot()).digest() == box.kernel.digest()
    assert Box(memory="96M", cmdline="numa_balancing=enable").text("/proc/sys/kernel/numa_balancing") == "1\n"
