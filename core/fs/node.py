"""What a row of the file table is, how a file refuses, and how Linux reads numbers from a write.

A `Row` is one file (or one per process, per cgroup, per node): its pattern, how it is read and written, its mode,
one sentence of documentation, and an honest word on how much of Linux's file it is.

A handler takes the kernel and, where the pattern has a `<placeholder>`, what that stands for: `read(k)` or
`read(k, task)`. It returns text or bytes. `write` gets the text that was written, without its last newline.
Reading never changes the kernel.

Numbers (lib/kstrtox.c, lib/cmdline.c:memparse, mm/page_counter.c:page_counter_memparse):

    echo 64        kstrtoint: decimal, 0x… or 0…; anything else EINVAL, too large ERANGE
    echo 50M       memparse: a number and one of K M G T P E, powers of 1024
    echo 5000      to memory.max: 5000 / 4096 = 1 page, read back as 4096
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.mm.mm_types import PAGE_COUNTER_MAX

PAGE = 4096
SUFFIXES = "KMGTPE"
NUMBER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)")
SIZE = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)([KMGTPEkmgtpe]?)")


class FsError(Exception):
    """A file operation refused: `errno` is the symbol that Linux answers, `message` one plain sentence."""

    def __init__(self, errno: str, message: str) -> None:
        super().__init__(f"{errno}: {message}")
        self.errno = errno
        self.message = message


@dataclass(frozen=True, slots=True)
class Row:
    """One file of the tree.

    pattern: path with at most one placeholder (`<pid>`, `<cgroup>`, `<node>`, `<file>`). mode: permission bits.
    support: full, partial or none; `note` says what is missing. `pread` and `size` make the file binary: it is
    read by range and `size` is its length in bytes. `present` says whether a subject has the file (memory.max is not in the
    root cgroup).
    """

    pattern: str
    mode: int
    doc: str
    read: Callable[..., str | bytes] | None = None
    write: Callable[..., None] | None = None
    support: str = "full"
    note: str = ""
    pread: Callable[..., bytes] | None = None
    size: Callable[..., int] | None = None
    present: Callable[..., bool] | None = None

    @property
    def binary(self) -> bool:
        """Read by range, not as text."""
        return self.pread is not None


def bad(message: str) -> FsError:
    """EINVAL with words."""
    return FsError("EINVAL", message)


def parse_int(text: str, low: int, high: int, what: str) -> int:
    """A written integer from low to high (kstrtoint and the caller's range): EINVAL, or ERANGE past 64 bits."""
    match = NUMBER.fullmatch(text.strip())
    if not match:
        raise bad(f"{what} takes an integer, not {text.strip()!r}")
    value = _number(match[2]) * (-1 if match[1] == "-" else 1)
    if not -(1 << 63) <= value < 1 << 64:
        raise FsError("ERANGE", f"{what}: {text.strip()} does not fit in 64 bits")
    if not low <= value <= high:
        raise bad(f"{what} must be from {low} to {high}, not {value}")
    return value


def parse_flag(text: str, what: str) -> int:
    """0 or 1, else EINVAL."""
    return parse_int(text, 0, 1, what)


def _number(digits: str) -> int:
    """A C integer literal: 0x… is hexadecimal, 0… octal (a digit 8 or 9 there is EINVAL)."""
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    if len(digits) > 1 and digits[0] == "0":
        if set(digits) & {"8", "9"}:
            raise bad(f"{digits} begins with 0, so it is octal, and 8 and 9 are no octal digits")
        return int(digits, 8)
    return int(digits)


def memparse(text: str, what: str) -> int:
    """Bytes from "4096", "50M", "0x1000": EINVAL for anything else, a negative number included."""
    match = SIZE.fullmatch(text.strip())
    if not match:
        raise bad(f"{what} takes a size such as 52428800, 50M or 2G, not {text.strip()!r}")
    shift = 10 * (SUFFIXES.index(match[2].upper()) + 1) if match[2] else 0
    return _number(match[1]) << shift


def page_counter_memparse(text: str, what: str) -> int:
    """Pages from a size or "max": bytes / 4096 truncated, PAGE_COUNTER_MAX at most."""
    if text.strip() == "max":
        return PAGE_COUNTER_MAX
    return min((memparse(text, f"{what} (or \"max\")") & ((1 << 64) - 1)) // PAGE, PAGE_COUNTER_MAX)


def tunable(pages: int) -> str:
    """A limit as the file shows it: bytes, or "max" (seq_puts_memcg_tunable)."""
    return "max\n" if pages >= PAGE_COUNTER_MAX else f"{pages * PAGE}\n"


def bit_list(bits: list[int]) -> str:
    """Numbers as ranges: [0, 1, 2, 5] is "0-2,5" (%*pbl)."""
    runs: list[list[int]] = []
    for bit in sorted(bits):
        if runs and runs[-1][1] == bit - 1:
            runs[-1][1] = bit
        else:
            runs.append([bit, bit])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def bit_map(bits: list[int], width: int) -> str:
    """A bit mask of `width` bits in words of 32 (%*pb): [0, 1] of 2 is "3", of 64 "00000000,00000003"."""
    mask = sum(1 << bit for bit in set(bits))
    words = []
    for start in range((width - 1) // 32 * 32, -1, -32):
        digits = (min(width - start, 32) + 3) // 4
        words.append(f"{mask >> start & 0xFFFFFFFF:0{digits}x}")
    return ",".join(words)


def choice(options: tuple[str, ...], chosen: object) -> str:
    """The options with the current one in brackets: "always [madvise] never"."""
    return " ".join(f"[{name}]" if name == chosen else name for name in options) + "\n"


def parse_choice(text: str, options: tuple[str, ...], what: str) -> str:
    """One of the options, else EINVAL."""
    if text.strip() not in options:
        raise bad(f"{what} takes one of {', '.join(options)}, not {text.strip()!r}")
    return text.strip()


def escape(name: str, special: str) -> str:
    """A path as seq_file_path prints it: the special characters as \\ooo."""
    return "".join(f"\\{ord(c):03o}" if c in special else c for c in name)


def decode(data: bytes, what: str) -> str:
    """What was written, as text without its end of line; EINVAL if it is no text."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise bad(f"{what} takes plain text") from None
    if "\0" in text:
        raise bad(f"{what} takes text without NUL bytes")
    return text.removesuffix("\n")


def show(value: Any) -> str:
    """One value and a newline."""
    return f"{value}\n"
