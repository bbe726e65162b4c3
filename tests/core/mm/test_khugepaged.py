"""khugepaged and MADV_COLLAPSE: thresholds to the page, pace, and what a collapse costs and gives."""

from __future__ import annotations

import pytest

from core.vmstat import EVENT
from tests.core.mm.space import ANON, K, M, Space

HUGE = 2 * M
THP = "/sys/kernel/mm/transparent_hugepage/"
SECOND = 1_000_000_000


class Collapse(Space):
    """A region of 8 MiB, huge pages only for what is advised, khugepaged every 50 ms."""

    def __init__(self, **machine: object) -> None:
        super().__init__("768M", transparent_hugepage="madvise", **machine)
        self.h = int(self.ok("mmap", length=8 * M, prot="rw", flags=ANON, align=HUGE)["address"])
        for name in ("scan_sleep_millisecs", "alloc_sleep_millisecs"):
            self.put("khugepaged/" + name, 50)

    def put(self, name: str, value: int) -> None:
        assert self.k.call("put", path=THP + name, data=str(value).encode()).errno is None

    def count(self, event: str) -> int:
        return int(self.k.s.vm_event[EVENT[event]])

    def write(self, at: int, pages: int, pid: int | None = None) -> None:
        self.ok("touch", pid, address=self.h + at, length=pages * 4 * K, access="write")

    def run(self, seconds: float = 1) -> int:
        """Advise the region, let time pass: huge pages of the process then."""
        self.ok("madvise", address=self.h, length=8 * M, advice="hugepage")
        self.k.advance(int(seconds * SECOND))
        self.k.verify()
        return self.huge()

    def huge(self) -> int:
        text = self.k.read(f"/proc/{self.pid}/smaps_rollup").decode()
        return int(text.split("AnonHugePages:")[1].split()[0]) // 2048

    def collapsed(self) -> int:
        return int(self.k.read(THP + "khugepaged/pages_collapsed"))


@pytest.mark.parametrize(("empty", "limit", "huge"), [(256, 256, 1), (257, 256, 0), (511, 511, 1), (0, 0, 1), (1, 0, 0)])
def test_max_ptes_none(empty: int, limit: int, huge: int) -> None:
    t = Collapse()
    t.put("khugepaged/max_ptes_none", limit)
    t.write(0, 512 - empty)
    rss = t.anon()
    assert t.run() == huge == t.collapsed()
    assert t.anon() == rss + 4 * (empty if huge else 0)
    assert (t.count("thp_scan_exceed_none_pte") > 0) == (not huge)


@pytest.mark.parametrize(("swapped", "huge"), [(64, 1), (65, 0)])
def test_max_ptes_swap(swapped: int, huge: int) -> None:
    t = Collapse(swap="64M")
    t.write(0, 512)
    t.ok("madvise", address=t.h, length=swapped * 4 * K, advice="pageout")
    assert t.run() == huge
    assert (t.count("thp_scan_exceed_swap_pte") > 0) == (not huge)


@pytest.mark.parametrize(("shared", "huge"), [(256, 1), (257, 0)])
def test_max_ptes_shared(shared: int, huge: int) -> None:
    t = Collapse()
    t.write(0, 512)
    child = t.ok("fork")["pid"]
    t.write(0, 512 - shared)
    assert t.run() == huge
    assert (t.count("thp_scan_exceed_share_pte") > 0) == (not huge)
    t.ok("exit", child)


@pytest.mark.parametrize("how", ["none", "swap", "shared"])
def test_collapse_on_demand_heeds_no_limit(how: str) -> None:
    t = Collapse(swap="64M")
    for name in ("none", "swap", "shared"):
        t.put("khugepaged/max_ptes_" + name, 0)
    t.k.call("put", path=THP + "enabled", data=b"never")
    t.write(0, 300 if how == "none" else 512)
    if how == "swap":
        t.ok("madvise", address=t.h, length=256 * 4 * K, advice="pageout")
    if how == "shared":
        t.ok("fork")
        t.write(0, 1)
    t.ok("madvise", address=t.h, length=HUGE, advice="collapse")
    assert t.huge() == 1


@pytest.mark.parametrize(
    ("prepare", "errno"),
    [
        (lambda t: None, "EINVAL"),  # nothing was touched
        (lambda t: t.write(0, 512), None),
        (lambda t: (t.write(0, 512), t.ok("madvise", address=t.h, length=HUGE, advice="nohugepage")), "EINVAL"),
        (lambda t: (t.write(0, 512), t.ok("fork")), "EINVAL"),  # no entry is writable
        (lambda t: (t.write(0, 512), limit(t, "2200K")), "EBUSY"),
    ],
)
def test_errno_of_collapse(prepare: object, errno: str | None) -> None:
    t = Collapse()
    prepare(t)  # type: ignore[operator]
    assert t.call("madvise", address=t.h, length=HUGE, advice="collapse").errno == errno


def limit(t: Collapse, size: str) -> None:
    """A cgroup in which the process pays for what it touches from now on: its own pages came before."""
    t.ok("mkdir", path="/sys/fs/cgroup/g")
    t.k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    t.k.call("put", path="/sys/fs/cgroup/g/memory.max", data=size.encode())
    t.k.call("put", path="/sys/fs/cgroup/g/cgroup.procs", data=str(t.pid).encode())
    t.write(4 * M, 100)


def test_content_survives_and_the_old_pages_are_free() -> None:
    t = Collapse()
    for page, byte in ((0, 7), (100, 8), (511, 9)):
        t.ok("touch", address=t.h + page * 4 * K, length=4 * K, access="write", fill=byte)
    free = int(t.k.s.zones["free"].sum())
    t.ok("madvise", address=t.h, length=HUGE, advice="collapse")
    pfns = [t.k.view("walk", pid=t.pid, address=t.h + page * 4 * K)["frame"]["pfn"] for page in (0, 100, 511, 1)]
    assert [int(t.k.s.mem["content"][pfn]) for pfn in pfns] == [7, 8, 9, 0]
    assert int(t.k.s.zones["free"].sum()) == free - 512 + 3


def test_pace_and_full_scans() -> None:
    t = Collapse()
    t.put("khugepaged/pages_to_scan", 512)
    t.write(0, 2048)
    t.ok("madvise", address=t.h, length=8 * M, advice="hugepage")
    t.k.advance(80_000_000)
    assert t.collapsed() == 2  # at once, and 50 ms later
    t.k.advance(SECOND)
    assert t.collapsed() == 4
    before = int(t.k.read(THP + "khugepaged/full_scans"))
    t.k.advance(SECOND)
    assert int(t.k.read(THP + "khugepaged/full_scans")) > before


def test_the_process_may_go_while_khugepaged_holds_a_block() -> None:
    t = Collapse()
    t.write(0, 512)
    t.ok("madvise", address=t.h, length=8 * M, advice="hugepage")
    assert t.k.khugepaged["held"] is not None
    t.ok("exit")
    t.k.advance(SECOND)
    t.k.verify()
    assert t.k.khugepaged["held"] is None and t.k.khugepaged["mms"] == []


def test_explain_says_what_khugepaged_would_do() -> None:
    t = Collapse()
    t.write(0, 512)
    at = t.k.view("explain_thp", pid=t.pid, address=t.h)["at"]
    assert at["khugepaged"]["result"] == "vma_check_failed" and "madvise" in at["why"] and "madvise" in at["khugepaged"]["why"]
    t.ok("madvise", address=t.h, length=8 * M, advice="hugepage")
    assert t.k.view("explain_thp", pid=t.pid, address=t.h)["at"]["khugepaged"]["result"] == "succeed"
    of_disk = t.k.view("explain_thp", pid=t.pid, address=0x400000)["at"]["khugepaged"]
    assert of_disk["result"] == "vma_check_failed" and "2 MiB" in of_disk["why"]
    assert t.run() == 1
    told = t.k.view("explain_thp", pid=t.pid, address=t.h)
    assert told["at"]["mapped"] == "huge page" and told["khugepaged"]["last_collapse"]["copied"] == 512
