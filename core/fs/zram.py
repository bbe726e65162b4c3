"""/sys/block/zram<N>: compressed memory that is swapped to (drivers/block/zram/zram_drv.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.fs.node import FsError, Row, bad, show

if TYPE_CHECKING:
    from core.kernel import Kernel

BLOCK = "/sys/block"
ZRAM = BLOCK + "/<zram>/"
PAGE = 4096
ALGORITHMS = "lzo [lzo-rle] lz4 lz4hc 842 zstd \n"


def devices(k: Kernel) -> dict[str, int]:
    """The zram devices of the machine by name: their rows among the swap areas."""
    return {device["path"].rpartition("/")[2]: row for row, device in enumerate(k.swap_devices) if device["kind"] == "zram"}


def disksize(k: Kernel, row: int) -> str:
    """Bytes that may be written to it, header included."""
    return show((k.swap_devices[row]["pages"] + 1) * PAGE)


def busy(k: Kernel, row: int, text: str) -> None:
    """A device that is set up keeps its size and its algorithm."""
    raise FsError("EBUSY", "the device is set up; its size and ratio are those of the machine, or of swapon")


def initstate(k: Kernel, row: int) -> str:
    """1: it has a size."""
    return "1\n"


def comp_algorithm(k: Kernel, row: int) -> str:
    """The one in use in brackets."""
    return ALGORITHMS


def max_comp_streams(k: Kernel, row: int) -> str:
    """One for each processor."""
    return show(k.nr_cpus)


def ignore(k: Kernel, row: int, text: str) -> None:
    """6.1 takes a number and does nothing with it."""


def mm_stat(k: Kernel, row: int) -> str:
    """What is kept, what it takes (mm_stat_show): bytes of pages, compressed, of memory, its limit, its most; pages: same, compacted, huge, huge ever."""
    area: Any = k.s.swaps[row]
    objects, huge, same = int(area["objects"]), int(area["huge_pages"]), int(area["same_pages"])
    compressed = objects * int(area["object_size"]) + huge * PAGE
    stored = (objects + huge + same) * PAGE
    return (f"{stored:8d} {compressed:8d} {int(area['frames']) * PAGE:8d} {0:8d} {int(area['most_frames']) * PAGE:8d} {same:8d} {0:8d} "
            f"{huge:8d} {int(area['huge_since']):8d}\n")  # fmt: skip


def write_mem_used_max(k: Kernel, row: int, text: str) -> None:
    """0: the most begins anew with what it takes now."""
    if text.strip() != "0":
        raise bad("only 0 can be written to mem_used_max")
    k.s.swaps["most_frames"][row] = k.s.swaps["frames"][row]


def rows() -> tuple[Row, ...]:
    """The files of one device."""
    return (
        Row(ZRAM + "disksize", 0o644, "bytes that may be written to it", disksize, busy, support="partial", note="it is set when the device is plugged in"),
        Row(ZRAM + "initstate", 0o444, "1: it is set up", initstate),
        Row(ZRAM + "comp_algorithm", 0o644, "algorithms, the one in use in brackets", comp_algorithm, busy, support="partial",
            note="how small pages get is the device's ratio"),
        Row(ZRAM + "max_comp_streams", 0o644, "pages that can be compressed at once", max_comp_streams, ignore),
        Row(ZRAM + "mm_stat", 0o444, "bytes stored, compressed, of memory, limit, most; pages of one byte, compacted, huge, huge ever", mm_stat, support="partial",
            note="no limit; objects lie without gaps"),
        Row(ZRAM + "mem_used_max", 0o200, "0: the most begins anew", None, write_mem_used_max),
        Row(ZRAM + "compact", 0o200, "close the gaps of the pool", None, ignore, support="partial", note="there are none"),
    )  # fmt: skip
