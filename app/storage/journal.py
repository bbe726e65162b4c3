"""The journal: the operations that a session committed, in order.

A kernel is a value of its machine, its seed and this list, so the list is the session. Number N is the N-th committed operation;
number 0 is the boot.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Journal(Protocol[T]):
    """What a session asks of its journal."""

    def append(self, entry: T) -> None:
        """Keep one more operation, the next in number."""

    def entries(self, after: int = 0, upto: int | None = None) -> Sequence[T]:
        """The operations with numbers in (after, upto]."""

    def replace(self, entries: Sequence[T]) -> None:
        """Go back in time: keep these operations instead."""

    def __len__(self) -> int: ...


class MemoryJournal(Generic[T]):
    """A journal that lives as long as its process."""

    def __init__(self, entries: Sequence[T] = ()) -> None:
        self._entries: list[T] = list(entries)

    def append(self, entry: T) -> None:
        """Keep one more operation, the next in number."""
        self._entries.append(entry)

    def entries(self, after: int = 0, upto: int | None = None) -> Sequence[T]:
        """The operations with numbers in (after, upto]."""
        return self._entries[after:upto]

    def replace(self, entries: Sequence[T]) -> None:
        """Go back in time: keep these operations instead."""
        self._entries = list(entries)

    def __len__(self) -> int:
        return len(self._entries)
