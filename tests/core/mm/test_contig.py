"""Pages of 1 GiB on a machine in use: what is in the way moves, what cannot move keeps its GiB."""

from __future__ import annotations

from tests.core.mm.space import ANON, PAGE, SHARED, G, K, M, Space

KNOB = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"


def busy(**machine: object) -> tuple[Space, int]:
    """3 GiB, and a process that holds the last 100 MiB of 1,500 that it has touched: in the second GiB, where boot left nothing."""
    space = Space("3G", **{"swap": "0", **machine})
    address = space.mmap(1500 * M)
    space.k.call("touch", space.pid, address=address, length=1500 * M, access="write")
    space.ok("munmap", address=address, length=1400 * M)
    return space, address + 1400 * M


def in_second_gib(space: Space, address: int, pages: int) -> int:
    """How many of the pages lie between 1 and 2 GiB."""
    raw = space.k.pread(f"/proc/{space.pid}/pagemap", address // PAGE * 8, pages * 8)
    frames = [int.from_bytes(raw[at : at + 8], "little") & (1 << 55) - 1 for at in range(0, len(raw), 8)]
    return sum(1 << 18 <= pfn < 2 << 18 for pfn in frames)


def test_pages_move_out_of_the_way() -> None:
    space, address = busy()
    before = in_second_gib(space, address, 25600)
    assert before > 10000
    child = int(space.ok("fork")["pid"])
    moved, isolated, rss = space.vmstat("pgmigrate_success"), space.vmstat("compact_isolated"), space.status("VmRSS")
    space.set(KNOB, 1)
    space.k.verify()
    assert int(space.read(KNOB)) == 1
    assert in_second_gib(space, address, 25600) == 0
    moved = space.vmstat("pgmigrate_success") - moved
    assert moved >= before and space.vmstat("compact_isolated") - isolated == moved + G // PAGE
    assert space.status("VmRSS") == rss
    assert space.touch(address, 100 * M, "read").minor == space.k.call("touch", child, address=address, length=100 * M, access="read").minor == 0
    space.set(KNOB, 0)
    space.k.verify()
    assert space.meminfo("HugePages_Total") == 0


def test_huge_pages_move_whole() -> None:
    space, address = busy(transparent_hugepage="always")
    huge = space.smaps("AnonHugePages", address)
    space.set(KNOB, 1)
    assert int(space.read(KNOB)) == 1
    assert space.smaps("AnonHugePages", address) == huge > 90 * K
    assert space.vmstat("thp_migration_success") > 40 and space.vmstat("thp_migration_split") == 0


def test_what_cannot_move_keeps_its_gib() -> None:
    space, address = busy()
    space.set("/proc/sys/vm/nr_hugepages", 700)  # they fill what is free, and some of the second GiB
    space.ok("munmap", address=address, length=100 * M)
    free = space.meminfo("MemFree")
    assert free > 1200 * K
    space.set(KNOB, 1)
    assert int(space.read(KNOB)) == 0 and space.meminfo("MemFree") == free
    space.k.verify()


def test_a_failure_half_way_gives_everything_back() -> None:
    space, address = busy()
    hog = space.mmap(3 * G, flags=[*ANON, "noreserve"])
    free = space.meminfo("MemFree")
    space.touch(hog, (free - 60 * K) * K)  # nowhere to move to
    space.set(KNOB, 1)
    assert int(space.read(KNOB)) == 0
    space.k.verify()
    assert space.touch(address, 100 * M, "read").minor == 0


def test_tables_of_a_gib_are_shared() -> None:
    space = Space("2G", swap="0")
    space.set("/proc/sys/vm/nr_hugepages", 700)
    address = space.mmap(3 * G, flags=[*SHARED, "hugetlb", "noreserve"])
    outside = -address % G // (2 * M)  # pages before the first whole GiB
    space.touch(address, 1200 * M, stride=512)
    tables = space.meminfo("PageTables")

    def vm_pte(pid: int) -> int:
        return int(space.k.read(f"/proc/{pid}/status").decode().split("VmPTE:")[1].split()[0])

    child = int(space.ok("fork")["pid"])
    own, before = vm_pte(child), space.meminfo("PageTables")
    assert space.call("touch", child, address=address, length=1200 * M, access="read", stride=512).minor == outside + 2
    assert vm_pte(child) - own == 16 and space.meminfo("PageTables") - before == 8  # PUD and first PMD table are its own; two more are shared
    assert f"HugetlbPages:\t{outside * 2048:8} kB" in space.k.read(f"/proc/{child}/status").decode()
    assert space.smaps("Shared_Hugetlb", address) == 1200 * K and space.smaps("Private_Hugetlb", address) == 0
    space.ok("mprotect", child, address=address + G, length=2 * M, prot="r")  # within the first whole GiB
    assert vm_pte(child) - own == 12
    assert space.call("touch", child, address=address + G - 2 * M, length=2 * M, access="read").minor == 1
    space.ok("munmap", child, address=address, length=3 * G)
    space.ok("exit", child)
    assert space.meminfo("PageTables") == tables
    assert space.meminfo("HugePages_Free") == 100
    last = int(space.ok("fork")["pid"])
    space.ok("touch", last, address=address, length=1200 * M, access="read", stride=512)
    space.ok("exit")
    assert space.k.call("touch", last, address=address, length=1200 * M, access="write", stride=512).minor == 0
    space.k.call("exit", last)
    space.k.verify()
    assert "HugePages_Free:      700" in space.k.read("/proc/meminfo").decode()
