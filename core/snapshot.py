"""A kernel as bytes: save, load, and a digest for "is this the same state?".

The state has two halves. The *columns* (`mm_types.State`) are saved as they lie in memory, but only their used rows: page
tables and radix nodes up to the highest row ever taken, cgroups and address spaces up to the highest id. The *objects*
(tasks, mappings, files, …) refer to each other in circles, so they are flattened: every object gets a number in the order
in which it is met, starting from the kernel's own attributes, and is written as its class and its attributes, in which other
objects appear by number. The result is plain lists of integers and strings, written as JSON: nothing depends on addresses,
hashes or the interpreter's memo, nothing is executed on load, and depth does not grow with the machine.

    [["core.kernel:Kernel", "tasks", ["d", 1, ["@", 7], 101, ["@", 9]], ...], ["core.clock:Clock", ...], ...]

The same text serves the digest: SHA-256 over it and the columns' used rows. Equal histories give equal digests, on
any machine; the loops' scratch (`State.runs`) is no part of the state.

Format: "PWK" and a version byte, then a zstandard frame of: length of the JSON (8 bytes, little-endian), JSON, columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import import_module
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard

from core import boot
from core.abi.mman import PAGE_SIZE
from core.mm import mmzone, tlb
from core.mm.mm_types import CTL_LOOKS, CTL_MAX_PFN, CTL_PT_NEXT, CTL_STAMP, CTL_XA_NEXT, NR_LOOKS, Array, State
from core.mm.mmzone import PerCpuPages
from core.mm.tlb import TlbColumns
from core.mm.tlb_walk import CLOCK
from core.mm.told import tell
from core.untold import Untold

if TYPE_CHECKING:
    from core.kernel import Kernel

VERSION = 4
MAGIC = b"PWK" + bytes([VERSION])
LEVEL = 1
SCRATCH = ("runs", "cc")  # columns that hold nothing between two calls
TLB = ("tlb_tags", "tlb_stamps", "tlb_state")  # tags, stamps, state of TlbColumns; its geometry is the machine's
PCP = "pcp_rows"
COLUMNS = tuple(name for name in (*State._fields, *TLB, PCP) if name not in SCRATCH)
_PLAIN = (int, str, bool, type(None))


# ---------------------------------------------------------------- columns


def used_rows(k: Kernel, name: str) -> int:
    """How many rows of a column hold anything, counted from the first."""
    column = column_of(k, name)
    groups = max(k.cgroups, default=0) + 1
    known = {
        "pt": int(k.s.ctl[CTL_PT_NEXT]),
        "xa": int(k.s.ctl[CTL_XA_NEXT]),
        "memcgs": groups,
        "lruvecs": groups * k.nr_nodes,
        "looks": min(int(k.s.ctl[CTL_LOOKS]), NR_LOOKS),
        "mms": max([*k.mms, *k.free_mm_ids, *k.ksmd.slots], default=0) + 1,
        "ksm_items": int(k.s.ksm[0]["item_next"]) + 1,
        "ksm_nodes": int(k.s.ksm[0]["node_next"]) + 1,
        "lrugens": groups * k.nr_nodes,
        "blooms": groups * k.nr_nodes if k.s.lrugens["filters"].any() else 0,
        "gens": len(k.s.gens) if k.lru_gen["on"] else 0,
        "stamps": len(k.s.stamps) if k.s.ctl[CTL_STAMP] else 0,
        **dict.fromkeys(TLB, int(np.flatnonzero(k.tlb_columns.state[:, CLOCK]).max(initial=-1)) + 1),
    }
    return min(known.get(name, len(column)), len(column))


def column_of(k: Kernel, name: str) -> Array:
    """A column by its name: of the state, of the TLBs, of the per-CPU lists."""
    if name == PCP:
        return k.pcp.rows
    column: Array = getattr(k.tlb_columns, name.removeprefix("tlb_")) if name in TLB else getattr(k.s, name)
    return column


def columns(k: Kernel) -> Iterator[tuple[str, Array]]:
    """Every column's used rows."""
    for name in COLUMNS:
        yield name, np.ascontiguousarray(column_of(k, name)[: used_rows(k, name)])


def as_bytes(rows: Array) -> Array:
    """The same memory as a flat array of bytes."""
    return rows.reshape(-1).view(np.ndarray).view(np.uint8)


# ---------------------------------------------------------------- objects


class _Flattener:
    """Numbers objects as they are met and writes values in terms of those numbers."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.waiting: list[Any] = []

    def value(self, value: Any) -> Any:
        """A value as JSON: plain ones as they are, containers by a letter, objects by number."""
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, (np.integer, np.bool_)):
            return int(value)
        if isinstance(value, (list, tuple)):
            return ["l" if isinstance(value, list) else "t", *map(self.value, value)]
        if isinstance(value, dict):
            return ["d", *(self.value(item) for pair in value.items() for item in pair)]
        if isinstance(value, (set, frozenset)):
            return ["s" if isinstance(value, set) else "f", *map(self.value, sorted(value))]
        if isinstance(value, bytes):
            return ["b", value.hex()]
        if isinstance(value, Random):
            return ["r", self.value(value.getstate())]
        return ["@", self.number(value)]

    def number(self, thing: Any) -> int:
        """The number of an object of ours; a new one is written later."""
        if id(thing) not in self.numbers:
            if not type(thing).__module__.startswith("core."):
                raise TypeError(f"a {type(thing).__qualname__} of {type(thing).__module__} cannot be part of a kernel's state")
            self.numbers[id(thing)] = len(self.waiting)
            self.waiting.append(thing)
        return self.numbers[id(thing)]

    def write(self, first: Any) -> list[Any]:
        """Every object that `first` leads to, each as [class, attribute, value, attribute, value, ...]."""
        self.number(first)
        out = []
        for thing in self.waiting:  # grows while we go
            row: list[Any] = [f"{type(thing).__module__}:{type(thing).__qualname__}"]
            for name, value in attributes(thing):
                row += (name, self.value(value))
            out.append(row)
        return out


def attributes(thing: Any) -> list[tuple[str, Any]]:
    """An object's state by name, in a fixed order: its slots as declared, then its dictionary. A kernel's columns are left out, and its rows of
    events, which are told first.
    """
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()) if isinstance(name, str)]
    found = [(name, getattr(thing, name)) for name in slots if hasattr(thing, name)]
    found += sorted(getattr(thing, "__dict__", {}).items())
    return [(name, value) for name, value in found if not isinstance(value, (State, TlbColumns, PerCpuPages, Untold))]


def objects_text(k: Kernel) -> bytes:
    """The objects' half as canonical JSON."""
    return json.dumps(_Flattener().write(k), separators=(",", ":"), ensure_ascii=True).encode()


class _Builder:
    """Makes the objects again: all of them empty first, then their attributes."""

    def __init__(self, rows: list[Any], kernel: Kernel) -> None:
        self.rows = rows
        self.things: list[Any] = [kernel, *(self.empty(row[0]) for row in rows[1:])]

    @staticmethod
    def empty(name: str) -> Any:
        """An object of a class of ours, its constructor not run."""
        module, _, kind = name.partition(":")
        if not module.startswith("core."):
            raise ValueError(f"a snapshot holds objects of core only, not {name}")
        return object.__new__(getattr(import_module(module), kind))

    def fill(self) -> None:
        """Give every object its attributes."""
        for thing, row in zip(self.things, self.rows, strict=True):
            for at in range(1, len(row), 2):
                object.__setattr__(thing, row[at], self.value(row[at + 1]))

    def value(self, text: Any) -> Any:
        """What `_Flattener.value` wrote."""
        if not isinstance(text, list):
            return text
        kind, *rest = text
        if kind == "@":
            return self.things[rest[0]]
        if kind == "b":
            return bytes.fromhex(rest[0])
        items = [self.value(item) for item in rest]
        if kind == "d":
            return dict(zip(items[::2], items[1::2], strict=True))
        if kind == "r":
            rng = Random(0)
            rng.setstate(items[0])
            return rng
        return {"l": list, "t": tuple, "s": set, "f": frozenset}[kind](items)


# ---------------------------------------------------------------- the two together


def save(k: Kernel) -> bytes:
    """The whole state; `load` continues from it exactly."""
    k.events = [*tell(k.untold, k.events)]
    k.untold.clear()
    text = objects_text(k)
    head = {name: len(rows) for name, rows in columns(k)} | {"max_pfn": int(k.s.ctl[CTL_MAX_PFN])}
    sizes = json.dumps(head).encode()
    compressor = zstandard.ZstdCompressor(level=LEVEL).compressobj()
    parts = [MAGIC]
    for piece in (len(sizes).to_bytes(8, "little"), sizes, len(text).to_bytes(8, "little"), text):
        parts.append(compressor.compress(piece))
    parts += [compressor.compress(as_bytes(rows).data) for _, rows in columns(k)]
    parts.append(compressor.flush())
    return b"".join(parts)


def load(k: Kernel, blob: bytes) -> None:
    """Make a bare Kernel the one that was saved. ValueError for bytes that are no snapshot of this version."""
    if blob[:3] != MAGIC[:3]:
        raise ValueError("these bytes are not a snapshot of a kernel")
    if blob[3:4] != MAGIC[3:]:
        raise ValueError(f"a snapshot of version {blob[3]}; this program reads version {VERSION}")
    try:
        frame = zstandard.ZstdDecompressor().decompressobj()
        data = memoryview(frame.decompress(blob[4:]))
    except zstandard.ZstdError as broken:
        raise ValueError(f"the snapshot is damaged: {broken}") from None
    if not frame.eof:
        raise ValueError("the snapshot is damaged: it ends early")
    sizes, data = _take(data)
    text, data = _take(data)
    head = json.loads(bytes(sizes))
    _Builder(json.loads(bytes(text)), k).fill()
    k.untold = Untold()
    k.s, k.tlb_columns, k.pcp = boot.columns(k, head["max_pfn"]), tlb.columns(k.machine), mmzone.per_cpu_pages(k.machine)
    for name in COLUMNS:
        column = column_of(k, name)
        count = head[name] * column[:1].nbytes
        _copy_sparse(data[:count], as_bytes(column[: head[name]]))
        data = data[count:]


def _copy_sparse(source: memoryview, target: Array) -> None:
    """Copy only the pages of `source` that are not all zero: `target` is fresh, and what is not written costs nothing."""
    whole = len(source) // PAGE_SIZE * PAGE_SIZE
    pages = np.frombuffer(source[:whole], np.uint8).reshape(-1, PAGE_SIZE)
    used = pages.view(np.uint64).any(axis=1)
    target[:whole].reshape(-1, PAGE_SIZE)[used] = pages[used]
    target[whole:] = np.frombuffer(source[whole:], np.uint8)


def _take(data: memoryview) -> tuple[memoryview, memoryview]:
    """A piece that carries its length, and the rest."""
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size], data[8 + size :]


def digest(k: Kernel) -> str:
    """SHA-256 of the whole state, hex. Events that nobody has taken yet are no part of it: who listens is not history."""
    waiting, k.events = k.events, []
    try:
        total = hashlib.sha256(objects_text(k))
    finally:
        k.events = waiting
    for name, rows in columns(k):
        total.update(f"{name}:{len(rows)};".encode())
        total.update(as_bytes(rows).data)
    return total.hexdigest()
