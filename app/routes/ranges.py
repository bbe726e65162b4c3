"""Range requests (RFC 9110 §14): which bytes of a file are wanted."""

import re
from typing import Final

from app.errors import Problem

_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last of a single range; None for no range, or for one that may be ignored.

    Raises a 416 when no byte of the file is wanted.
    """
    match = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= stop:
        raise Problem(416, "range-not-satisfiable", f"the file has {size} bytes, the range begins behind them", {"Content-Range": f"bytes */{size}"})
    return start, stop
