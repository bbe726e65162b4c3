"""A page becomes a frame of another node: what `numa_migrate` and `numa_balancing` share. The mechanism is `migrate`'s."""

from __future__ import annotations

from core.abi.page_flags import PG_LRU
from core.jit import step
from core.mm.migrate import take_over
from core.mm.mm_types import State


@step
def move_page(s: State, v, old: int, new: int) -> None:
    """The frame `new` takes the place of `old` everywhere but in the page table; `old` is free. vmf.root: the page cache of its file."""
    take_over(s, v["root"], old, new, s.mem[old]["flags"] & PG_LRU != 0)
