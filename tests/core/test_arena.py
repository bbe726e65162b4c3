"""Columns in the host's memory: small where little is written, huge pages where much is expected, and never another value."""
from __future__ import annotations

import mmap
import resource
from pathlib import Path

import numpy as np
import pytest

from core import Kernel, Machine, arena

MIB = 1 << 20


def resident() -> int:
    """Bytes of this process that the host backs."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(("shape", "dtype"), [((3,), "i8"), ((1 << 12, 512), "i8"), ((1 << 18,), "i4"), ((1 << 20,), "i1"), ((5, 7, 1 << 16), "i2")])
def test_an_array_is_zero_and_writable_and_its_end_is_there(shape: tuple[int, ...], dtype: str) -> None:
    array = arena.arena(shape, dtype)
    assert array.shape == shape and array.dtype == np.dtype(dtype)
    last = tuple(extent - 1 for extent in shape)
    assert array[last] == 0
    array[last] = 7
    assert array[last] == 7 and int(np.count_nonzero(array[0])) == (len(shape) == 1 and shape[0] == 1)


def test_an_untouched_array_costs_nothing() -> None:
    before = resident()
    array = arena.arena((64 * MIB,), "i8")
    array[5] = array[-1] = 1
    assert resident() - before < MIB


@pytest.mark.parametrize("rows", [(), (0,), (100_000, 5), (1 << 19,)])
def test_expect_changes_no_value(rows: tuple[int, ...]) -> None:
    array = arena.arena(((1 << 19) + 1,), "i8")  # its last piece is not full
    array[::4099] = np.arange(len(array[::4099]))
    arena.expect(array, *rows)
    assert np.array_equal(array[::4099], np.arange(len(array[::4099])))
    assert int(np.count_nonzero(array)) == len(array[::4099]) - 1
    array[:] = 3
    assert int(array.sum()) == 3 * len(array)


def test_arrays_begin_at_a_piece_if_they_are_as_large() -> None:
    assert arena.address_of(arena.arena((arena.PIECE,), "i1")) % arena.PIECE == 0


@pytest.mark.parametrize("array", [np.zeros(1 << 20), arena.arena((10,), "i8"), arena.arena((1 << 16,), "i8")])
def test_what_is_no_large_mapping_is_left_alone(array: arena.Array) -> None:
    arena.expect(array, 0)
    assert not array.any()


def test_a_host_that_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(mmap.mmap):
        def madvise(self, *_args: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(arena.mmap, "mmap", Refusing)
    array = arena.arena((1 << 20,), "i8")
    array[3] = 4
    arena.expect(array, 3)
    assert array[3] == 4 and array.sum() == 4


def test_a_large_touch_on_a_machine_gives_what_small_ones_give() -> None:
    """65,536 pages in one call, for which the host is asked for huge pages, and in four, for which it is not."""
    digests = []
    for calls in (1, 4):
        kernel = Kernel.boot(Machine.from_dict({"memory": "512M", "transparent_hugepage": "never"}))
        pid = kernel.call("spawn", comm="t").result["pid"]
        length = 256 * MIB
        address = kernel.call("mmap", pid, length=length, prot="rw", flags=["private", "anonymous"]).result["address"]
        for part in range(calls):
            kernel.call("touch", pid, address=address + part * length // calls, length=length // calls, access="write", fill=1)
        kernel.drain()
        kernel.verify()
        digests.append([kernel.read(path) for path in ("/proc/meminfo", "/proc/buddyinfo", f"/proc/{pid}/smaps")])
    assert digests[0] == digests[1]
