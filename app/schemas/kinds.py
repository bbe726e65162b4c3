"""The kinds of argument a system call takes, as they arrive in JSON.

Each kind is one parser (JSON value to the clean value that the kernel takes), one renderer (back again, for the journal) and one
JSON Schema. A parser raises ValueError in words that tell a student what would have been right.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from core import parse_program

MAX_U64: Final = (1 << 64) - 1
MAX_I64: Final = (1 << 63) - 1

_SIZE: Final = re.compile(r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})([kKmMgGtTpPeE]?)")
_SHIFT: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_DURATION: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h|d)")
_NS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_ADDRESS: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_SIGNAL: Final = re.compile(r"(SIG)?[A-Z][A-Z0-9+]{1,9}")
_PROT: Final = re.compile(r"r?w?x?|none")
BASE64: Final = "base64:"


def _show(value: object) -> str:
    """What was sent, as JSON writes it where that differs from Python."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_size(value: object) -> int:
    """Bytes from 65536, "64K", "0x10000"; suffixes K M G T P E are powers of 1024, as in the kernel's memparse()."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        number = int(match[1], 0 if match[1][:2] in ("0x", "0X") else 10) << _SHIFT[match[2].upper()]
    else:
        raise ValueError(f'{_show(value)} is not a size: give bytes (65536) or a number with K, M, G, T, P or E ("64K")')
    if not 0 <= number <= MAX_U64:
        raise ValueError(f"{_show(value)} is not a size: it must lie between 0 and 2^64-1 bytes")
    return number


def parse_duration(value: object) -> int:
    """Nanoseconds from 250000000, "250ms", "1.5s"; units ns us ms s m h d."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        number = int(Decimal(match[1]) * _NS[match[2]])
    else:
        raise ValueError(f'{_show(value)} is not a duration: give nanoseconds (250000000) or a number with ns, us, ms, s, m, h or d ("250ms")')
    if not 0 <= number <= MAX_I64:
        raise ValueError(f"{_show(value)} is not a duration: it must lie between 0 and 2^63-1 nanoseconds")
    return number


def parse_address(value: object) -> int:
    """An address from "0x7ffff7a00000" or an integer."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and _ADDRESS.fullmatch(value):
        number = int(value, 16)
    else:
        raise ValueError(f'{_show(value)} is not an address: give a hexadecimal string ("0x7ffff7a00000") or an integer')
    if not 0 <= number <= MAX_U64:
        raise ValueError(f"{_show(value)} is not an address: it must lie between 0 and 2^64-1")
    return number


def parse_int(value: object) -> int:
    """A whole number of 64 bits."""
    if isinstance(value, int) and not isinstance(value, bool) and -MAX_I64 - 1 <= value <= MAX_I64:
        return value
    raise ValueError(f"{_show(value)} is not a whole number of 64 bits")


def parse_bool(value: object) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"{_show(value)} is neither true nor false")


def parse_str(value: object) -> str:
    """Text without NUL, at most 4096 characters (PATH_MAX)."""
    if not isinstance(value, str):
        raise ValueError(f"{_show(value)} is not a string")
    if len(value) > 4096 or "\0" in value:
        raise ValueError("a string here has at most 4096 characters and no NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("the string holds half of a surrogate pair: it is not text that UTF-8 can carry") from None
    return value


def parse_prot(value: object) -> str:
    """ "rw", "r", "rwx" in any order, or "none"."""
    if isinstance(value, str) and value:
        word = value if value == "none" else "".join(sorted(value, key=lambda c: "rwx".find(c)))
        if _PROT.fullmatch(word):
            return word
    raise ValueError(f'{_show(value)} is not a protection: give letters of "rwx", each once ("rw"), or "none"')


def parse_ints(value: object) -> list[int]:
    """A list of whole numbers."""
    if not isinstance(value, list):
        raise ValueError(f"{_show(value)} is not a list of whole numbers")
    return [parse_int(item) for item in value]


def parse_bytes(value: object) -> bytes:
    """Text, as UTF-8; binary data as "base64:..."."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError(f'{_show(value)} is not data: give text, or binary data as "base64:..."')
    try:
        return base64.b64decode(value[len(BASE64) :], validate=True) if value.startswith(BASE64) else value.encode()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"{_show(value)} cannot be read: {error}") from None


def parse_signal(value: object) -> str | int:
    """ "SIGKILL", "KILL" or 9."""
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= 64:
            return value
    elif isinstance(value, str) and _SIGNAL.fullmatch(value):
        return value if value.startswith("SIG") else f"SIG{value}"
    raise ValueError(f'{_show(value)} is not a signal: give a name ("SIGKILL") or a number from 0 to 64')


def parse_object(value: object) -> dict[str, object]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{_show(value)} is not a JSON object")
    return value


def parse_a_program(value: object) -> object:
    """A list of steps, an object, the name of a ready-made program, or a path."""
    return parse_program(value)


def hex_address(value: int) -> str:
    """How every address is shown: lower-case hexadecimal, because JavaScript cannot hold 64 bits."""
    return f"{value:#x}"


def render_bytes(value: bytes) -> str:
    """The inverse of parse_bytes()."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = BASE64
    return BASE64 + base64.b64encode(value).decode() if text.startswith(BASE64) else text


def same(value: Any) -> Any:
    """The renderer of kinds that JSON holds as they are."""
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of argument: parse, render, schema."""

    parse: Callable[[object], Any]
    render: Callable[[Any], Any]
    schema: Mapping[str, Any]


_INT_RANGE: Final = {"minimum": 0, "maximum": MAX_U64}

KINDS: Final[Mapping[str, Kind]] = {
    "int": Kind(parse_int, same, {"type": "integer", "minimum": -MAX_I64 - 1, "maximum": MAX_I64}),
    "size": Kind(
        parse_size,
        same,
        {
            "anyOf": [
                {"type": "integer", **_INT_RANGE},
                {"type": "string", "pattern": "^(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})[kKmMgGtTpPeE]?$"},
            ],
            "examples": ["64K"],
        },
    ),
    "address": Kind(
        parse_address,
        hex_address,
        {
            "anyOf": [{"type": "string", "pattern": "^0[xX][0-9a-fA-F]{1,16}$"}, {"type": "integer", **_INT_RANGE}],
            "examples": ["0x7ffff7a00000"],
        },
    ),
    "duration": Kind(
        parse_duration,
        same,
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,18}(\.[0-9]{1,9})?(ns|us|ms|s|m|h|d)$"},
                {"type": "integer", "minimum": 0, "maximum": MAX_I64},
            ],
            "examples": ["250ms"],
        },
    ),
    "str": Kind(parse_str, same, {"type": "string", "maxLength": 4096, "pattern": "^[^\\u0000]*$"}),
    "bool": Kind(parse_bool, same, {"type": "boolean"}),
    "prot": Kind(parse_prot, same, {"enum": ["none", "r", "w", "x", "rw", "rx", "wx", "rwx"]}),
    "ints": Kind(parse_ints, same, {"type": "array", "items": {"type": "integer", "minimum": -MAX_I64 - 1, "maximum": MAX_I64}}),
    "bytes": Kind(parse_bytes, render_bytes, {"type": "string", "pattern": "^(?!base64:)"}),
    "signal": Kind(
        parse_signal,
        same,
        {
            "anyOf": [{"type": "string", "pattern": "^(SIG)?[A-Z][A-Z0-9+]{1,9}$"}, {"type": "integer", "minimum": 0, "maximum": 64}],
            "examples": ["SIGKILL"],
        },
    ),
    "program": Kind(
        parse_a_program,
        same,
        {
            "anyOf": [
                {"type": "array", "items": {"type": "object"}, "minItems": 1},
                {"type": "object"},
                {"type": "string", "maxLength": 4096, "pattern": "^[^\\u0000]*$"},
            ],
            "examples": ["leak"],
        },
    ),
    "object": Kind(parse_object, same, {"type": "object"}),
    "choice": Kind(parse_str, same, {"type": "string"}),
    "flags": Kind(same, same, {"type": "array", "items": {"type": "string"}}),
}
