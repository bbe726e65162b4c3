"""One request and what its answer depends on.

An answer may be sent once every session that the request touched has stored what it had done by then: what an answer shows is never lost. With an
Idempotency-Key what the request does is held back until its answer is known, and stored in one transaction with it. A session that a request
or a websocket uses stays in memory as long.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Protocol

from sqlalchemy import Connection


class Stored(Protocol):
    """The side of a session that stores."""

    async def settled(self) -> None:
        """Wait until everything so far is stored."""

    def hold(self) -> None:
        """Store nothing for now."""

    def let_go(self) -> None:
        """Store again."""

    def work(self, work: Callable[[Connection], object]) -> None:
        """Store something more."""


class Used(Protocol):
    """A session, to those who keep it in memory."""

    users: int


class Exchange:
    """One request."""

    __slots__ = ("held", "holds", "stores", "used")

    def __init__(self) -> None:
        self.holds = False  # it has an Idempotency-Key
        self.stores: list[Stored] = []
        self.held: list[Stored] = []
        self.used: list[Used] = []

    def touches(self, store: Stored) -> None:
        """The answer depends on it."""
        if store not in self.stores:
            self.stores.append(store)

    def changes(self, store: Stored) -> None:
        """The request did something there."""
        self.touches(store)
        if self.holds and store not in self.held:
            self.held.append(store)
            store.hold()

    def uses(self, session: Used) -> None:
        """Keep a session in memory until the request is over."""
        session.users += 1
        self.used.append(session)

    async def settled(self) -> None:
        """Wait until the answer may be sent. Raises a Problem when what was done could not be stored."""
        for store in self.stores:
            await store.settled()

    def release(self) -> None:
        """Hold nothing back any more."""
        held, self.held, self.holds = self.held, [], False
        for store in held:
            store.let_go()

    def over(self) -> None:
        """The answer has been sent."""
        self.release()
        for session in self.used:
            session.users -= 1
        self.used.clear()


CURRENT: Final[ContextVar[Exchange | None]] = ContextVar("exchange", default=None)
