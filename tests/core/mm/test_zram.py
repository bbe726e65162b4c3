"""Swap to compressed memory, and to a file."""

from __future__ import annotations

import pytest

from core import Machine
from core.mm import zram
from tests.core.mm.space import PAGE, M, Space, field

NAMES = ("stored", "compressed", "used", "limit", "most", "same", "compacted", "huge", "huge_since")


def boot(ratio: float = 3, **machine: object) -> Space:
    return Space("128M", swap=[{"size": "32M", "kind": "zram", "ratio": ratio}], cpus=1, **machine)


def mm_stat(space: Space) -> dict[str, int]:
    return dict(zip(NAMES, map(int, space.read("/sys/block/zram0/mm_stat").split()), strict=True))


def nr_zspages(space: Space) -> int:
    return int(next(line.split()[1] for line in space.read("/proc/vmstat").splitlines() if line.startswith("nr_zspages ")))


def swapped(space: Space, pages: int, content: int | None = None) -> int:
    """So many pages, each with something in it or all of them full of one byte, in zram and no more in memory."""
    address = space.mmap(pages * PAGE)
    if content is None:
        space.touch(address, pages * PAGE)
    else:
        space.touch(address, pages * PAGE, fill=content)
    space.ok("madvise", address=address, length=pages * PAGE, advice="pageout")
    if waiting := space.vmstat("nr_swapcached"):  # what is written to another kind of device is freed at the next look
        space.k.call("put", path="/sys/fs/cgroup/memory.reclaim", data=str(waiting * PAGE).encode())
    return address


SHAPES = [  # (ratio, bytes of a compressed page, objects a zspage, frames a zspage)
    (1, 4096, 1, 1),
    (1.2, 4096, 1, 1),  # 3,414 bytes: more than 3,257, kept whole
    (2, 2048, 7, 4),
    (3, 1366, 11, 4),
    (4, 1024, 15, 4),
]


@pytest.mark.parametrize(("ratio", "size", "objects", "frames"), SHAPES)
def test_the_shape_of_a_pool(ratio: float, size: int, objects: int, frames: int) -> None:
    assert zram.HUGE_CLASS_SIZE == 3257
    assert zram.shape(ratio) == (size, objects, frames)


@pytest.mark.parametrize(("ratio", "size", "objects", "frames"), SHAPES)
def test_what_is_swapped_takes_memory_and_gives_it_back(ratio: float, size: int, objects: int, frames: int) -> None:
    space = boot(ratio)
    pages = 1100
    address = swapped(space, pages)
    found = mm_stat(space)
    kept = found["stored"] // PAGE - found["same"]  # stores of 0 leave a page empty; some pages are other programs'
    taken = -(-kept // objects) * frames
    assert 0 <= found["stored"] - pages * PAGE < 32 * PAGE
    assert (found["compressed"], found["used"]) == (kept * size, taken * PAGE)
    assert (found["huge"], found["huge_since"]) == ((kept, kept) if size == PAGE else (0, 0))
    assert nr_zspages(space) == taken
    space.ok("munmap", address=address, length=pages * PAGE)
    assert nr_zspages(space) <= 64 + 32  # slots that wait on the processor keep their pages
    space.ok("swapoff", path="/dev/zram0")
    assert nr_zspages(space) == 0


@pytest.mark.parametrize("kind", ["zram", "nvme"])
def test_a_page_is_freed_at_once_where_the_device_is_memory(kind: str) -> None:
    """MADV_PAGEOUT writes; a disk's pages wait in the swap cache for another look, zram's are gone when the call returns."""
    space = Space("128M", swap=[{"size": "32M", "kind": kind}])
    address = space.mmap(256 * PAGE)
    space.touch(address, 256 * PAGE)
    space.ok("madvise", address=address, length=256 * PAGE, advice="pageout")
    waits = 0 if kind == "zram" else 256
    assert (space.vmstat("pswpout"), space.vmstat("nr_swapcached"), space.vmstat("pgrotated")) == (256, waits, waits)
    space.touch(address, 256 * PAGE, "read")
    assert space.vmstat("pswpin") == 256 - waits


def test_pages_of_one_byte_take_nothing() -> None:
    space = boot()
    swapped(space, 100, content=7)
    found = mm_stat(space)
    assert found["same"] >= 100
    assert found["compressed"] == (found["stored"] // PAGE - found["same"]) * 1366


def test_memory_comes_free_by_less_than_was_swapped() -> None:
    free = {}
    for ratio in (1, 4):
        space = boot(ratio)
        before = field(space.read("/proc/meminfo"), "MemFree")
        swapped(space, 2048)
        free[ratio] = before - field(space.read("/proc/meminfo"), "MemFree")
    assert free[1] - free[4] > 2048 * 4 * 0.7
    assert free[4] < 2048 * 4 * 0.35


def test_the_most_that_it_took() -> None:
    space = boot()
    address = swapped(space, 256)
    most = mm_stat(space)["most"]
    space.ok("munmap", address=address, length=256 * PAGE)
    assert mm_stat(space)["used"] < mm_stat(space)["most"] == most
    space.k.call("put", path="/sys/block/zram0/mem_used_max", data=b"0")
    assert mm_stat(space)["most"] == mm_stat(space)["used"]


def test_the_machine_says_the_ratio_and_only_for_zram() -> None:
    machine = Machine.from_dict({"swap": [{"size": "32M", "kind": "zram", "ratio": 2.5}, {"size": "8M"}]})
    assert Machine.from_dict(machine.to_dict()) == machine
    for bad in ({"size": "8M", "ratio": 2}, {"size": "8M", "kind": "zram", "ratio": 0.5}, {"size": "8M", "kind": "zram", "ratio": "much"}):
        with pytest.raises(ValueError, match=r"machine\.swap\.ratio"):
            Machine.from_dict({"swap": [bad]})


def test_a_full_disk_of_incompressible_pages_survives_snapshot_and_restore() -> None:
    space = boot(1)
    swapped(space, 500)
    again = type(space.k).restore(space.k.snapshot())
    again.verify()
    assert again.digest() == space.k.digest()


# ---- a file ------------------------------------------------------------------------------------------------------


def test_a_file_is_swapped_to() -> None:
    space = Space("128M", swap="0", cpus=1)
    space.k.call("create_file", path="/data/swap", size=16 * M)
    space.ok("swapon", path="/data/swap", priority=3)
    assert space.read("/proc/swaps").splitlines()[1] == f"{'/data/swap':40}file\t\t16380\t\t0\t\t3"
    address = swapped(space, 256)
    assert (space.errno("write", path="/data/swap", length=PAGE), space.errno("truncate", path="/data/swap", length=0)) == ("ETXTBSY",) * 2
    assert space.k.call("rmdir", path="/data/swap").errno == "EPERM"
    assert space.touch(address, 256 * PAGE, "read").major > 0
    space.ok("swapoff", path="/data/swap")
    space.ok("truncate", path="/data/swap", length=8 * M)
    space.ok("swapon", path="/data/swap")
    assert space.read("/proc/swaps").split()[-3] == "8188"


REFUSED = [("/data/none", "ENOENT"), ("/data/small", "EINVAL"), ("/data/used", "EBUSY"), ("/tmp/x", "ENOENT")]


@pytest.mark.parametrize(("path", "errno"), REFUSED)
def test_a_file_that_cannot_be_swapped_to(path: str, errno: str) -> None:
    space = Space("128M", swap="0", cpus=1)
    space.k.call("create_file", path="/data/small", size=PAGE)
    space.k.call("create_file", path="/data/used", size=M)
    space.ok("swapon", path="/data/used")
    assert space.errno("swapon", path=path) == errno
