"""What the classroom's policies share: the page with the smallest stamp."""

from __future__ import annotations

from core.jit import inline
from core.mm.mm_types import LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, State


@inline
def oldest(s: State, lruvec: int) -> int:
    """Of the tails of the anonymous and the file list the one with the smaller stamp; 0 if both are empty."""
    anon = s.lruvecs[lruvec]["tail"][LRU_INACTIVE_ANON] if s.sc[0]["may_swap"] else 0
    file = s.lruvecs[lruvec]["tail"][LRU_INACTIVE_FILE]
    if anon == 0 or (file > 0 and s.stamps[file] < s.stamps[anon]):
        return file
    return anon
