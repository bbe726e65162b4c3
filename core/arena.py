"""Where columns lie in the host's memory: one anonymous mapping an array, which costs nothing where nothing is written.

Zero is the empty value of every column, so a new machine needs no filling, and a row that nobody has written is a row that the host has not backed.
`np.zeros` is not lazy once the host's malloc has raised its mmap threshold, and numpy asks for huge pages for large arrays, so that one written
row would cost 2 MiB: therefore mappings of our own, and huge pages are refused at first.

Small pages make a machine small, and its first use slow: the host backs memory by faults of its own, and each clears 4 KiB (measured under
virtualisation: 1.8 µs). A frame takes 64 bytes of mem_map, 16 of buddy links, 8 of page table, so the host faults once for every
46 frames, 40 ns each: as long as the simulated fault itself. One fault for 2 MiB costs 60 µs, a fifteenth a byte. So a call that
is about to touch much of a machine says so beforehand:

    expect(array)             from now on huge pages under what is not backed yet
    expect(array, 5, 90_000)  and those pieces of 2 MiB in which these rows lie become huge at once: a piece of which the smallest part
                              is backed already (boot wrote there) would otherwise go on by 4 KiB to its end

For this the larger arrays begin at a multiple of 2 MiB. Nothing here is a simulated value: a host that refuses changes the time, nothing else.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from core.jit import DISABLED

Array = npt.NDArray[Any]

PIECE = 1 << 21  # a huge page of the host
SMALL = 1 << 15  # an array up to here needs no mapping of its own
MAP_NORESERVE = 0x4000
MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLLAPSE = 14, 15, 25


def arena(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A zeroed array in its own anonymous mapping: only rows that are written cost memory."""
    kind = np.dtype(dtype)
    count = 1
    for extent in shape:
        count *= extent
    size = max(count * kind.itemsize, 1)
    if size <= SMALL:
        return _named(np.zeros(shape, kind))
    whole = size if size < PIECE else (-(-size // PIECE) + 1) * PIECE  # room to begin at a multiple of a piece, and to end at one
    area = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    with suppress(OSError):  # a host without transparent huge pages has nothing to switch off
        area.madvise(MADV_NOHUGEPAGE)
    return _named(np.frombuffer(area, kind, count, _first_piece(area) if size >= PIECE else 0).reshape(shape))


def _first_piece(area: mmap.mmap) -> int:
    """Where the first whole piece of a mapping begins."""
    return -address_of(np.frombuffer(area, np.uint8, 1)) % PIECE


def _named(array: Array) -> Array:
    """Uncompiled loops say `zone.free` too: numpy offers that for record arrays only."""
    return array.view(np.recarray) if DISABLED and array.dtype.names else array


def address_of(array: Array) -> int:
    """Where an array begins in this process."""
    return int(array.__array_interface__["data"][0])


def expect(array: Array, *rows: int) -> None:
    """Much of `array` is about to be written, beginning around `rows`: ask the host for huge pages (see the head of this file)."""
    area = _area(array)
    if area is None or array.nbytes < PIECE:
        return
    with suppress(OSError):
        area.madvise(MADV_HUGEPAGE)
    begin = address_of(array) - address_of(np.frombuffer(area, np.uint8, 1))
    for piece in sorted({row * array.strides[0] // PIECE for row in rows}):
        with suppress(OSError):  # none to be had, or a kernel before 6.1
            area.madvise(MADV_COLLAPSE, begin + piece * PIECE, PIECE)


def _area(array: Array) -> mmap.mmap | None:
    """The mapping that an array lies in, if it is one of ours."""
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    area = base.obj if isinstance(base, memoryview) else base
    return area if isinstance(area, mmap.mmap) else None
