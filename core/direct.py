"""The short way from Python into a compiled loop, for those that run it once a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.jit import DISABLED


class Direct:
    """A loop for a caller that runs it for single pages: `run(...)` is the compiled code's own entry.

    numba's dispatcher looks at every column of every argument to find out which version of the loop is meant, 2.4 µs for a `State`. A loop of
    ours has one version; with the first call it is known, and from then on `run` is it. Nobody checks types any more: the caller promises
    a machine's columns, and other arrays as int64 in C order.
    """

    __slots__ = ("loop", "run")

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.run: Callable[..., Any] = loop if DISABLED else self._first

    def _first(self, *args: Any) -> Any:
        result = self.loop(*args)
        versions = list(self.loop.overloads.values())
        if len(versions) == 1:
            self.run = versions[0].entry_point
        return result
