"""Pools of huge pages: LTP's hugemmap tests and libhugetlbfs', as far as the API can say them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peer.box import CGROUP, FREE, PAGE, Box, G, K, M

H = 2 * M
PRIVATE = ["private", "anonymous", "hugetlb"]
SHARED = ["shared", "anonymous", "hugetlb"]
FILE = "/dev/hugepages/f"
POOL = "/proc/sys/vm/nr_hugepages"
OVERCOMMIT = "/proc/sys/vm/nr_overcommit_hugepages"


class HugeBox(Box):
    """A machine with a pool of 2 MiB pages; the counters in one tuple; the invariants hold after every call."""

    def __init__(self, pages: int = 0, overcommit: int = 0, memory: str = "128M", **machine: Any) -> None:
        super().__init__(memory=memory, transparent_hugepage="never", **machine)
        self.set(POOL, pages)
        self.set(OVERCOMMIT, overcommit)
        self.a = self.spawn("a", catch_signals=True)

    def counters(self) -> tuple[int, int, int, int]:
        """HugePages_Total, _Free, _Rsvd, _Surp."""
        self.kernel.verify()
        info = self.meminfo()
        return tuple(info[f"HugePages_{name}"] for name in ("Total", "Free", "Rsvd", "Surp"))  # type: ignore[return-value]

    def huge(self, pages: int, flags: list[str] | None = None, pid: int = 0, prot: str = "rw", **args: Any) -> int:
        return self.mmap(pid or self.a, pages * H, prot, flags or PRIVATE, **args)

    def refused(self, op: str, pid: int = 0, **args: Any) -> str | None:
        return self.call(pid or self.a, op, **args).errno

    def signal(self, address: int, length: int = H, access: str = "write", pid: int = 0) -> str | None:
        return self.touch(pid or self.a, address, length, access).signal

    def file(self, path: str = FILE) -> None:
        assert self.kernel.call("create_file", path=path, size=0).errno is None


def test_lh01_a_file_of_huge_pages() -> None:
    box = HugeBox(3)
    box.file()
    h = box.huge(2, ["shared"], file=FILE)
    assert box.counters() == (3, 3, 2, 0)
    box.touch(box.a, h, 2 * H)
    assert box.counters() == (3, 1, 0, 0)
    box.ok(box.a, "munmap", address=h, length=2 * H)
    assert box.counters() == (3, 1, 0, 0)  # the pages are the file's
    assert box.kernel.call("rmdir", path=FILE).errno is None
    assert box.counters() == (3, 3, 0, 0)


def test_lh02_the_whole_pool() -> None:
    box = HugeBox(8)
    h = box.huge(8)
    assert box.counters() == (8, 8, 8, 0)
    box.touch(box.a, h, 8 * H)
    assert box.counters() == (8, 0, 0, 0)


def test_lh03_surplus_comes_and_goes() -> None:
    box = HugeBox(2, 2)
    h = box.huge(3, SHARED)
    assert box.counters() == (3, 3, 3, 1)
    box.touch(box.a, h, 3 * H)
    assert box.counters() == (3, 0, 0, 1)
    box.ok(box.a, "munmap", address=h, length=3 * H)
    assert box.counters() == (2, 2, 0, 0)


@pytest.mark.parametrize("flags", [SHARED, PRIVATE], ids=["shared", "private"])
def test_lh04_more_than_may_be_promised(flags: list[str]) -> None:
    box = HugeBox(2, 2)
    assert box.refused("mmap", length=5 * H, prot="rw", flags=flags) == "ENOMEM"
    assert box.counters() == (2, 2, 0, 0)


@pytest.mark.parametrize(("overcommit", "errno"), [(0, "ENOMEM"), (2, None)])
def test_lh05_chunks(overcommit: int, errno: str | None) -> None:
    box = HugeBox(3, overcommit)
    first = box.huge(2)
    found = box.call(box.a, "mmap", length=2 * H, prot="rw", flags=PRIVATE)
    assert found.errno == errno
    if found.result:
        assert box.signal(first, 2 * H) is None and box.signal(int(found.result["address"]), 2 * H) is None


@pytest.mark.parametrize("advise", ["fadvise", "madvise"])
def test_lh11_readahead_leaks_no_reservation(advise: str) -> None:
    box = HugeBox(4)
    box.file()
    h = box.huge(2, ["shared"], file=FILE)
    where = {"path": FILE} if advise == "fadvise" else {"address": h, "length": 2 * H}
    box.ok(box.a, advise, advice="willneed", **where)
    assert box.counters() == (4, 4, 2, 0)


def test_lh12_a_second_mapping_without_reservation() -> None:
    box = HugeBox(4)
    box.file()
    h = box.huge(1, ["shared"], file=FILE)
    other = box.huge(1, ["shared", "noreserve"], file=FILE)
    assert box.counters() == (4, 4, 1, 0)
    box.touch(box.a, other, H)
    assert box.counters() == (4, 3, 0, 0)  # the file was promised the page, whoever touches it
    box.ok(box.a, "munmap", address=other, length=H)
    assert box.counters() == (4, 3, 0, 0)
    assert box.signal(h) is None


ALIGNMENT: list[tuple[str, dict[str, Any], str | None]] = [
    ("a crooked hint is rounded", {"address": FREE + PAGE, "length": H}, None),
    ("fixed and crooked", {"address": FREE + PAGE, "length": H, "flags": [*PRIVATE, "fixed"]}, "EINVAL"),
    ("fixed and straight", {"address": FREE, "length": H, "flags": [*PRIVATE, "fixed"]}, None),
    ("half a page is rounded up", {"length": M}, None),
    ("length 0", {"length": 0}, "EINVAL"),
    ("a crooked offset", {"length": H, "offset": PAGE}, "EINVAL"),
    ("no pool of that size", {"length": H, "huge_size": 64 * K}, "EINVAL"),
]


@pytest.mark.parametrize(("args", "errno"), [row[1:] for row in ALIGNMENT], ids=[row[0] for row in ALIGNMENT])
def test_lh13_alignment(args: dict[str, Any], errno: str | None) -> None:
    box = HugeBox(4)
    found = box.call(box.a, "mmap", **{"prot": "rw", "flags": PRIVATE, **args})
    assert found.errno == errno
    if found.result:
        h = int(found.result["address"])
        assert h % H == 0 and box.smaps(box.a, h)["KernelPageSize"].split()[0] == "2048"
        assert box.refused("munmap", address=h, length=PAGE) == "EINVAL"
        assert box.refused("munmap", address=h + PAGE, length=H - PAGE) == "EINVAL"
        box.ok(box.a, "munmap", address=h, length=H)
    assert box.counters() == (4, 4, 0, 0)


@pytest.mark.parametrize("flags", [PRIVATE, SHARED, [*PRIVATE, "locked"], [*SHARED, "locked"]], ids="-".join)
def test_lh14_mlock(flags: list[str]) -> None:
    box = HugeBox(4)
    mlocked = box.meminfo()["Mlocked"]
    h = box.huge(2, flags)
    for op in ("mlock", "munlock"):
        box.ok(box.a, op, address=h, length=2 * H)
    assert box.counters() == (4, 2, 0, 0)  # locking faults them in
    assert box.status(box.a)["VmLck"] == 0 and box.meminfo()["Mlocked"] == mlocked  # and is not counted
    box.ok(box.a, "munmap", address=h, length=2 * H)


@pytest.mark.parametrize(("prot", "access", "signal"), [
    ("r", "write", "SIGSEGV"), ("r", "read", None), ("rw", "write", None), ("none", "read", "SIGSEGV"),
])  # fmt: skip
@pytest.mark.parametrize("flags", [PRIVATE, SHARED], ids=["private", "shared"])
def test_lh15_mprotect(prot: str, access: str, signal: str | None, flags: list[str]) -> None:
    box = HugeBox(2)
    h = box.huge(2, flags)
    box.touch(box.a, h, 2 * H)
    box.ok(box.a, "mprotect", address=h, length=H, prot=prot)
    assert box.signal(h, H, access) == signal
    assert box.signal(h + H) is None  # the other page is as it was
    assert box.refused("mprotect", address=h + PAGE, length=H, prot="r") == "EINVAL"
    assert box.counters() == (2, 0, 0, 0)


@pytest.mark.parametrize(("overcommit", "signal", "after"), [(0, "SIGBUS", (2, 0, 0, 0)), (1, None, (3, 0, 0, 1))])
def test_lh16_noreserve_takes_nobodys_page(overcommit: int, signal: str | None, after: tuple[int, ...]) -> None:
    box = HugeBox(2, overcommit)
    first = box.huge(2)
    second = box.huge(1, [*PRIVATE, "noreserve"])
    found = box.touch(box.a, second, H)
    assert found.signal == signal and (signal is None or found.fault_address == second)
    assert box.signal(first, 2 * H) is None
    assert box.counters() == after


def test_lh17_beyond_the_end_of_a_truncated_file() -> None:
    box = HugeBox(3)
    box.file()
    h = box.huge(2, ["shared"], file=FILE)
    box.touch(box.a, h, H)
    box.ok(box.a, "truncate", path=FILE, length=0)
    assert box.counters() == (3, 3, 0, 0)
    assert box.signal(h) == "SIGBUS"
    assert box.refused("truncate", path=FILE, length=PAGE) == "EINVAL"


def contents(box: Box, pid: int, address: int, n: int = 1) -> list[int]:
    """The content of the first small frame of each huge page, as the page tables have it."""
    raw = [box.kernel.pread(f"/proc/{pid}/pagemap", (address + i * H) // PAGE * 8, 8) for i in range(n)]
    frames = [int.from_bytes(entry, "little") & ((1 << 55) - 1) for entry in raw]
    return [int(box.kernel.s.mem["content"][pfn]) for pfn in frames]


def test_lh18_private_writers_do_not_meet() -> None:
    box = HugeBox(8)
    box.file()
    shared = box.huge(1, ["shared"], file=FILE)
    box.touch(box.a, shared, H, fill=7)
    private = [box.huge(1, ["private"], file=FILE) for _ in range(3)]
    for n, h in enumerate(private):
        box.touch(box.a, h, H, fill=n)
    assert [contents(box, box.a, h) for h in (*private, shared)] == [[0], [1], [2], [7]]
    child = box.ok(box.a, "fork")["pid"]
    box.touch(box.a, private[0], H, fill=9)
    assert contents(box, child, private[0]) == [0] and contents(box, box.a, private[0]) == [9]
    box.touch(child, private[1], H, fill=8)
    assert contents(box, box.a, private[1]) == [1] and contents(box, child, private[1]) == [8]
    box.kernel.verify()


def test_lh19_sigbus_not_oom() -> None:
    box = HugeBox(4)
    box.file()
    h = box.huge(1, ["shared"], file=FILE)
    box.ok(box.a, "truncate", path=FILE, length=0)
    box.huge(4, SHARED)
    found = box.touch(box.a, h, H)
    assert (found.signal, found.killed) == ("SIGBUS", [])


def test_lh20_a_mount_of_one_page() -> None:
    box = HugeBox(4)
    assert box.kernel.call("mount", path="/mnt/q", size=H).errno is None
    box.file("/mnt/q/f")
    h = box.huge(1, ["shared"], file="/mnt/q/f")
    assert box.signal(h) is None
    assert box.refused("mmap", length=2 * H, prot="rw", flags=["shared"], file="/mnt/q/f") == "ENOMEM"
    copy = box.huge(1, ["private", "noreserve"], file="/mnt/q/f")
    assert box.signal(copy, access="read") is None  # the file's own page
    assert box.signal(copy) == "SIGBUS"  # a copy would be a second page
    assert box.counters() == (4, 3, 0, 0)
    assert box.kernel.call("rmdir", path="/mnt/q/f").errno is None


def test_a_mount_is_promised_its_minimum() -> None:
    box = HugeBox(4)
    assert box.kernel.call("mount", path="/mnt/m", min_size=3 * H).errno is None
    assert box.counters() == (4, 4, 3, 0)
    assert box.refused("mmap", length=2 * H, prot="rw", flags=SHARED) == "ENOMEM"
    box.file("/mnt/m/f")
    h = box.huge(2, ["shared"], file="/mnt/m/f")
    assert box.counters() == (4, 4, 3, 0)  # its own minimum covers it
    box.touch(box.a, h, 2 * H)
    assert box.counters() == (4, 2, 1, 0)
    box.ok(box.a, "munmap", address=h, length=2 * H)
    assert box.kernel.call("rmdir", path="/mnt/m/f").errno is None
    assert box.counters() == (4, 4, 3, 0)
    assert box.kernel.call("mount", path="/mnt/n", min_size=2 * H).errno == "ENOMEM"
    assert box.kernel.call("mount", path="/mnt/m").errno == "EBUSY"


def test_lh21_fallocate() -> None:
    box = HugeBox(5)
    box.file()
    box.ok(box.a, "fallocate", path=FILE, length=3 * H)
    assert box.counters() == (5, 2, 0, 0)
    for offset, length, free in ((PAGE, H, 2), (H // 2, 2 * H, 3), (0, 3 * H, 5)):
        box.ok(box.a, "fallocate", path=FILE, offset=offset, length=length, flags=["punch_hole", "keep_size"])
        assert box.counters() == (5, free, 0, 0)
    assert box.refused("fallocate", path=FILE, length=6 * H) == "ENOSPC"
    assert box.refused("fallocate", path=FILE, length=H, flags=["punch_hole"]) == "EOPNOTSUPP"
    assert box.refused("write", path=FILE, length=PAGE) == "EINVAL"
    assert box.ok(box.a, "read", path=FILE, length=H)["bytes"] == H


# ---------------------------------------------------------------- the parent's promise

def test_hg05_the_child_loses_its_page() -> None:
    box = HugeBox(2)
    h = box.huge(1)
    box.touch(box.a, h, H)
    child = box.ok(box.a, "fork")["pid"]
    other = box.spawn("other")
    box.touch(other, box.huge(1, pid=other), H)  # the pool is empty
    assert box.signal(h) is None
    assert box.status(child)["HugetlbPages"] == 0
    assert box.signal(h, access="read", pid=child) == "SIGBUS"
    assert f"PID {child} killed due to inadequate hugepage pool" in box.text("/dev/kmsg")
    assert box.counters() == (2, 0, 0, 0)


def test_hg05_the_child_is_promised_nothing() -> None:
    box = HugeBox(2)
    h = box.huge(2)
    box.touch(box.a, h, H)
    child = box.ok(box.a, "fork")["pid"]
    assert box.signal(h, pid=child) == "SIGBUS"  # a copy: the free page is the parent's second
    assert box.signal(h, access="read", pid=child) is None
    assert box.signal(h + H, pid=child) == "SIGBUS"
    assert box.signal(h, 2 * H) is None


# ---------------------------------------------------------------- moving, giving back

def test_hg09_dontneed_by_whole_pages() -> None:
    box = HugeBox(3)
    h = box.huge(3)
    box.touch(box.a, h, 3 * H)
    for address, length, free, errno in ((h, M, 0, None), (h, H + M, 1, None), (h + PAGE, H, 1, "EINVAL"), (h + H, 2 * H, 3, None)):
        assert box.refused("madvise", address=address, length=length, advice="dontneed") == errno
        assert box.counters() == (3, free, 0, 0)
    for advice in ("free", "cold", "pageout"):
        assert box.refused("madvise", address=h, length=H, advice=advice) == "EINVAL"


def test_madv_remove_is_a_hole_for_all() -> None:
    box = HugeBox(3)
    h = box.huge(3, SHARED)
    box.touch(box.a, h, 3 * H)
    child = box.ok(box.a, "fork")["pid"]
    box.touch(child, h, 3 * H, "read")
    box.ok(box.a, "madvise", address=h, length=2 * H, advice="remove")
    assert box.counters() == (3, 2, 0, 0) and box.status(child)["HugetlbPages"] == 2048


def test_hg11_mremap() -> None:
    box = HugeBox(4)
    h = box.huge(3)
    box.touch(box.a, h, 2 * H, fill=5)
    move = {"old_length": 3 * H, "new_length": 3 * H, "may_move": True}
    assert box.refused("mremap", address=h, **{**move, "new_length": 4 * H}) == "EINVAL"
    assert box.refused("mremap", address=h + PAGE, **move) == "EINVAL"
    assert box.refused("mremap", address=h, new_address=FREE + PAGE, **move) == "EINVAL"
    to = int(box.ok(box.a, "mremap", address=h, new_address=FREE, **move)["address"])
    assert to == FREE and box.counters() == (4, 2, 1, 0)  # the promise moved, too
    assert contents(box, box.a, FREE, 2) == [5, 5]
    assert box.signal(FREE + 2 * H) is None
    box.ok(box.a, "mremap", address=FREE, old_length=3 * H, new_length=H)
    assert box.counters() == (4, 3, 0, 0)
    box.ok(box.a, "munmap", address=FREE, length=H)
    assert box.counters() == (4, 4, 0, 0)


# ---------------------------------------------------------------- the number of pages

def test_hg08_a_pool_shrinks_to_what_is_promised() -> None:
    box = HugeBox(6)
    h = box.huge(3)
    box.touch(box.a, h, H)
    box.set(POOL, 1)
    assert box.counters() == (3, 2, 2, 2)  # one in use, two promised: two of three are surplus
    box.ok(box.a, "munmap", address=h, length=3 * H)
    assert box.counters() == (1, 1, 0, 0)


def test_growing_ends_short_without_an_error() -> None:
    box = HugeBox(memory="64M")
    box.set(POOL, 1000)
    total, free, *_ = box.counters()
    assert 0 < total == free < 32
    assert box.text(POOL) == f"{total}\n"
    assert box.vmstat()["htlb_buddy_alloc_success"] == total and box.vmstat()["htlb_buddy_alloc_fail"] == 1


def test_each_node_has_its_share() -> None:
    box = HugeBox(memory="256M", nodes=2, cpus=2)
    node = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/{}"
    box.set(POOL, 5)
    assert [box.text(node.format(n, "nr_hugepages")) for n in (0, 1)] == ["3\n", "2\n"]
    box.set(node.format(1, "nr_hugepages"), 6)
    assert [box.text(node.format(n, "free_hugepages")) for n in (0, 1)] == ["3\n", "6\n"]
    assert box.counters()[0] == 9
    h = box.huge(4)
    box.ok(box.a, "mbind", address=h, length=4 * H, mode="interleave", nodes=[0, 1])
    box.touch(box.a, h, 4 * H)
    assert [box.text(node.format(n, "free_hugepages")) for n in (0, 1)] == ["1\n", "4\n"]
    assert f"{h:08x} interleave:0-1 file=/anon_hugepage\\040(deleted) huge anon=4 dirty=4 N0=2 N1=2 kernelpagesize_kB=2048" in box.text(
        f"/proc/{box.a}/numa_maps")


def test_meminfo_and_commit_limit() -> None:
    box = HugeBox()
    before = box.meminfo()
    box.set(POOL, 4)
    after = box.meminfo()
    assert before["MemFree"] - after["MemFree"] == 4 * 2048 == after["Hugetlb"]
    assert before["CommitLimit"] - after["CommitLimit"] == 4 * 1024
    h = box.huge(2)
    box.touch(box.a, h, 2 * H)
    status, smaps = box.status(box.a), box.smaps(box.a, h)
    assert status["HugetlbPages"] == 4096 and smaps["Rss"].split()[0] == "0" and smaps["Private_Hugetlb"].split()[0] == "4096"
    child = box.ok(box.a, "fork")["pid"]
    assert box.smaps_kb(child, h, "Shared_Hugetlb") == 4096 and box.smaps_kb(box.a, h, "Private_Hugetlb") == 0
    assert box.meminfo()["Committed_AS"] - after["Committed_AS"] < 2048  # they are no part of it


def test_a_page_of_one_gib() -> None:
    box = HugeBox(memory="6G")
    box.set("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", 2)
    assert box.text("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages") == "2\n"
    tables = box.status(box.a)["VmPTE"]
    h = box.mmap(box.a, G, "rw", PRIVATE, huge_size=G)
    found = box.touch(box.a, h, G)
    assert found.minor == 1 and box.status(box.a)["HugetlbPages"] == 1 << 20
    assert box.status(box.a)["VmPTE"] == tables  # one entry of a table that was there
    assert box.smaps(box.a, h)["KernelPageSize"].split()[0] == "1048576"
    raw = box.kernel.pread(f"/proc/{box.a}/pagemap", h // PAGE * 8, 16)
    first, second = (int.from_bytes(raw[at : at + 8], "little") & ((1 << 55) - 1) for at in (0, 8))
    assert second == first + 1 and first % (1 << 18) == 0
    assert box.put("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_overcommit_hugepages", 1) == "EINVAL"
    box.kernel.verify()
    box.ok(box.a, "munmap", address=h, length=G)
    box.set("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", 0)
    box.kernel.verify()


def test_boot_parameters() -> None:
    from core.mm import hugetlb

    box = HugeBox(memory="6G", nodes=2)
    hugetlb.boot_parameters(box.kernel, [("hugepagesz", "1G"), ("hugepages", "1"), ("hugepagesz", "2M"), ("hugepages", "0:2,1:3")])
    assert box.counters() == (5, 5, 0, 0) and box.meminfo()["Hugetlb"] == 5 * 2048 + (1 << 20)
    hugetlb.boot_parameters(box.kernel, [("default_hugepagesz", "1G")])
    assert box.meminfo()["Hugepagesize"] == 1 << 20 and box.counters() == (1, 1, 0, 0)
    for bad in (("hugepagesz", "3M"), ("hugepages", "x"), ("hugepages", "7:1")):
        with pytest.raises(ValueError, match=r"pages of 2M|write a number|no node"):
            hugetlb.boot_parameters(box.kernel, [bad])


# ---------------------------------------------------------------- cgroups

def limited(box: HugeBox, **limits: int) -> str:
    box.set(f"{CGROUP}/cgroup.subtree_control", "+hugetlb")
    assert box.kernel.call("mkdir", path=f"{CGROUP}/g").errno is None
    for name, value in limits.items():
        box.set(f"{CGROUP}/g/hugetlb.2MB.{name.replace('_', '.')}", value)
    box.set(f"{CGROUP}/g/cgroup.procs", box.a)
    return "/g"


def test_cg48_max_is_a_sigbus() -> None:
    box = HugeBox(8)
    g = limited(box, max=5 * M)
    assert box.cg(g, "hugetlb.2MB.max") == f"{4 * M}\n"  # whole pages
    h = box.huge(4)
    found = box.touch(box.a, h, 4 * H)
    assert found.signal == "SIGBUS" and found.fault_address == h + 2 * H
    assert box.cg(g, "hugetlb.2MB.current") == f"{2 * H}\n" and box.cg(g, "hugetlb.2MB.rsvd.current") == f"{4 * H}\n"
    assert box.cg(g, "hugetlb.2MB.events") == "max 1\n" == box.cg(g, "hugetlb.2MB.events.local")
    assert box.cg(g, "hugetlb.2MB.numa_stat") == f"total={2 * H} N0={2 * H}\n"
    box.ok(box.a, "munmap", address=h, length=4 * H)
    assert box.cg(g, "hugetlb.2MB.current") == "0\n" == box.cg(g, "hugetlb.2MB.rsvd.current")
    assert box.counters() == (8, 8, 0, 0)


@pytest.mark.parametrize("flags", [PRIVATE, SHARED], ids=["private", "shared"])
def test_cg48_rsvd_max_is_enomem(flags: list[str]) -> None:
    box = HugeBox(8)
    g = limited(box, rsvd_max=2 * H)
    assert box.refused("mmap", length=3 * H, prot="rw", flags=flags) == "ENOMEM"
    h = box.huge(2, flags)
    assert box.signal(h, 2 * H) is None and box.cg(g, "hugetlb.2MB.events") == "max 1\n"
    noreserve = box.huge(1, [*PRIVATE, "noreserve"])
    assert box.signal(noreserve) == "SIGBUS"
    box.ok(box.a, "munmap", address=h, length=2 * H)
    assert box.cg(g, "hugetlb.2MB.rsvd.current") == "0\n"
    assert box.signal(noreserve) is None and box.cg(g, "hugetlb.2MB.rsvd.current") == f"{H}\n"


def test_a_removed_cgroup_leaves_its_pages_to_the_parent() -> None:
    box = HugeBox(4)
    limited(box)
    box.set(f"{CGROUP}/g/cgroup.procs", box.spawn("x"))
    box.set(f"{CGROUP}/cgroup.procs", box.a)
    box.set(f"{CGROUP}/g/cgroup.procs", box.a)
    h = box.huge(2)
    box.touch(box.a, h, 2 * H)
    box.set(f"{CGROUP}/cgroup.procs", box.a)
    box.set(f"{CGROUP}/g/cgroup.kill", 1)
    assert box.kernel.call("rmdir", path=f"{CGROUP}/g").errno is None
    box.ok(box.a, "munmap", address=h, length=2 * H)
    assert box.counters() == (4, 4, 0, 0)
