"""kpagecount, kpageflags, kpagecgroup: one entry a frame, true to what processes did."""
import numpy as np
import pytest

from core import FsError, Kernel, Machine

LOCKED, REFERENCED, UPTODATE, DIRTY, LRU, MMAP, ANON, SWAPBACKED, NOPAGE, PGTABLE, BUDDY = 0, 1, 3, 4, 5, 11, 12, 14, 20, 26, 10
PAGE = 4096


@pytest.fixture
def shared() -> tuple[Kernel, int, int, int]:
    """A parent and its child that share 16 pages by fork; the address."""
    k = Kernel.boot(Machine.from_dict({"memory": "256M"}))
    k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    k.call("mkdir", path="/sys/fs/cgroup/app")
    pid = (k.call("spawn", comm="a", cgroup="/app").result or {})["pid"]
    address = (k.call("mmap", pid, length=16 * PAGE, prot="rw", flags=["private", "anonymous"]).result or {})["address"]
    assert k.call("touch", pid, address=address, length=16 * PAGE, access="write").minor == 16
    child = (k.call("fork", pid).result or {})["pid"]
    return k, pid, child, address


def entries(k: Kernel, name: str) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    return np.frombuffer(k.read(f"/proc/{name}"), "<u8")


def frames(k: Kernel, pid: int, address: int, pages: int) -> list[int]:
    """Where the process's pages lie, by its pagemap."""
    map_ = np.frombuffer(k.pread(f"/proc/{pid}/pagemap", address // PAGE * 8, pages * 8), "<u8")
    assert (map_ >> np.uint64(63)).all()
    return [int(entry) & ((1 << 55) - 1) for entry in map_]


def test_counts_and_flags_of_shared_pages(shared: tuple[Kernel, int, int, int]) -> None:
    k, pid, child, address = shared
    ours = frames(k, pid, address, 16)
    assert ours == frames(k, child, address, 16)
    assert set(entries(k, "kpagecount")[ours]) == {2}
    wanted = sum(1 << bit for bit in (UPTODATE, LRU, MMAP, ANON, SWAPBACKED))
    assert all(int(flags) & wanted == wanted for flags in entries(k, "kpageflags")[ours])
    assert len(set(entries(k, "kpagecgroup")[ours])) == 1


def test_every_frame_is_one_thing(shared: tuple[Kernel, int, int, int]) -> None:
    k = shared[0]
    flags = entries(k, "kpageflags")
    buddy, nopage = (flags >> np.uint64(BUDDY)) & np.uint64(1), (flags >> np.uint64(NOPAGE)) & np.uint64(1)
    assert int(buddy.sum()) == int(k.s.zones["free"].sum())
    assert not (buddy & nopage).any()
    assert set(flags[nopage == 1]) == {1 << NOPAGE}
    assert set(flags[buddy == 1]) == {1 << BUDDY}
    tables = (flags >> np.uint64(PGTABLE)) & np.uint64(1)
    assert int(tables.sum()) == int(k.s.node_stat[:, 38].sum())


def test_ranges_are_whole_entries(shared: tuple[Kernel, int, int, int]) -> None:
    k = shared[0]
    whole = k.read("/proc/kpageflags")
    assert len(whole) == k.stat("/proc/kpageflags")["size"]
    assert k.pread("/proc/kpageflags", 8000, 80) == whole[8000:8080]
    assert k.pread("/proc/kpageflags", len(whole) - 8, 80) == whole[-8:]
    assert k.pread("/proc/kpageflags", len(whole) + 80, 80) == b""
    for offset, length in ((4, 8), (8, 4)):
        with pytest.raises(FsError) as error:
            k.pread("/proc/kpagecount", offset, length)
        assert error.value.errno == "EINVAL"


def test_zones_are_where_memory_is() -> None:
    """512 MiB: frame 0 and the hole below 1 MiB are no memory, and the firmware's tables at the end neither."""
    k = Kernel.boot(Machine.from_dict({"memory": "512M"}))
    flags = entries(k, "kpageflags")
    assert flags[0] == 1 << NOPAGE
    assert int((flags == 1 << NOPAGE).sum()) <= 512
