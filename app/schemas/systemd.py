"""systemd's words for a cgroup's limits: single properties and a pasted unit (systemd.resource-control(5)).

    MemoryMin MemoryLow MemoryHigh MemoryMax MemorySwapMax     one file of the cgroup each

Values as systemd reads them: bytes, with K M G T P E as powers of 1024 and fractions ("1.5G"); `infinity`; a percentage of the installed
memory, for MemorySwapMax of the installed swap. An empty value is the default. A unit is read line by line: its sections, comments and
whatever does not speak of memory are passed over.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

PROPERTIES: Final = {
    "MemoryMin": "memory.min",
    "MemoryLow": "memory.low",
    "MemoryHigh": "memory.high",
    "MemoryMax": "memory.max",
    "MemorySwapMax": "memory.swap.max",
}
DEFAULTS: Final = {"MemoryMin": "0", "MemoryLow": "0"}  # of the others: max
NOT_ZERO: Final = ("MemoryHigh", "MemoryMax")  # systemd refuses 0 here
OURS: Final = ("MemoryAccounting",)  # always on
UNIT: Final = "service"  # the member that holds a pasted unit
_SIZE: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([BKMGTPE]?)")
_SHARE: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%")
_SHIFT: Final = {"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_LINE: Final = re.compile(r"([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*)")


def to_file(name: str, value: str, memory: int, swap: int) -> tuple[str, str]:
    """The cgroup's file and what to write there. `memory`, `swap`: bytes that a percentage is of. ValueError in plain words."""
    if name not in PROPERTIES:
        raise ValueError(f"{name} is not known here: there are {', '.join(PROPERTIES)}")
    file, text = PROPERTIES[name], value.strip()
    if not text:
        return file, DEFAULTS.get(name, "max")
    if text == "infinity":
        return file, "max"
    size = _bytes(text, swap if name == "MemorySwapMax" else memory)
    if size is None:
        right = 'give bytes, a size as systemd reads it ("512M", "1.5G"), a percentage ("20%") or infinity'
        raise ValueError(f"{name}={text[:40]} is not a limit: {right}")
    if size == 0 and name in NOT_ZERO:
        raise ValueError(f"{name}={text[:40]} is out of range: systemd takes no limit of 0 bytes")
    return file, str(size)


def _bytes(text: str, whole: int) -> int | None:
    if match := _SHARE.fullmatch(text):
        share = Decimal(match[1])
        return int(whole * share / 100) if share <= 100 else None
    if match := _SIZE.fullmatch(text):
        size = int(Decimal(match[1]) * (1 << _SHIFT[match[2]]))
        return size if size < 1 << 64 else None
    return None


def properties(unit: str) -> Iterator[tuple[str, str]]:
    """What a pasted unit says about memory, in its order. ValueError for a line that is none, and for a property that is not known here."""
    for number, raw in enumerate(unit.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;" or (line[0] == "[" and line[-1] == "]"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f'line {number}, {line[:40]!r}, is not an assignment such as "MemoryMax=512M"')
        name, value = match[1], match[2]
        if name in PROPERTIES:
            yield name, value
        elif name == "MemoryLimit":
            raise ValueError(f"line {number}: MemoryLimit= is cgroup v1's; on this machine it is MemoryMax=")
        elif name.startswith(("Memory", "DefaultMemory", "StartupMemory")) and name not in OURS:
            raise ValueError(f"line {number}: {name} is not known here: there are {', '.join(PROPERTIES)}")
