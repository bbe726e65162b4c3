"""What we did wrong: a broken invariant of our own, never something that a program or a client can cause."""

from __future__ import annotations

from typing import NoReturn


class KernelBug(Exception):
    """An invariant broke. The session is frozen; its journal shows how it came to that."""


def panic(rule: str) -> NoReturn:
    """Stop with the name of the rule that broke."""
    raise KernelBug(rule)


class Signal(Exception):
    """The running task takes a synchronous signal (SIGSEGV, SIGBUS) at `address` (bytes)."""

    def __init__(self, name: str, address: int, code: str = "") -> None:
        super().__init__(f"{name} at {address:#x}")
        self.name = name
        self.address = address
        self.code = code


class TaskKilled(Exception):
    """The running task was killed in the middle of its call (OOM killer): it returns to user space no more."""
