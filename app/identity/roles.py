"""Callers and their roles.

A *subject* is a person or a program by name. In a *course* he is its instructor, one of its graders or students; an administrator is above
courses. Two kinds of secret stand for no person: a session's own token and an observer's link, each a key to one session.

    admin       everything, in every course
    instructor  his course: members, tokens, every session of it
    grader      reads every session of his course and clones it; the clone is his own, the student's session he never changes
    student     his own sessions
    session     all of the one session it belongs to
    observer    reads the one session it belongs to, for a projector in class
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

LADDER: Final = ("student", "grader", "instructor", "admin")


def higher(one: str, other: str | None) -> str:
    """The role that may do more."""
    return one if other is None or LADDER.index(one) >= LADDER.index(other) else other


@dataclass(frozen=True, slots=True)
class Person:
    """Who an OpenID provider says that someone is, and what in which course (`*`: an administrator)."""

    id: str
    subject: str
    claimed: Mapping[str, str]
    expires: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes
    ----------
    id : str
        Of what he carries, for limits and logs; no secret.
    subject : str or None
        Who he is; owns the sessions that he creates. None for anyone on an open service, and for keys.
    admin : bool
        May do everything.
    roles : mapping
        Course → role.
    key : "session", "observer" or None
        A key to one session, which stands for no person.
    session : str or None
        The session that an observer's key opens.
    course : str or None
        The only course that what he carries is good for.
    token : str or None
        The id of what he carries, where the store has it.
    claimed : mapping or None
        What an OpenID provider says that he is, course → role.
    digest : bytes
        Of a session's key: the session knows whether it is the right one.
    expires : float or None
        When what he carries ends, in seconds since the epoch.
    """

    id: str
    subject: str | None = None
    admin: bool = False
    roles: Mapping[str, str] = field(default_factory=dict)
    key: Literal["session", "observer"] | None = None
    session: str | None = None
    course: str | None = None
    token: str | None = None
    claimed: Mapping[str, str] | None = None
    digest: bytes = b""
    expires: float | None = None

    @property
    def name(self) -> str:
        """How a problem document calls him."""
        if self.key is not None:
            return "a session's token" if self.key == "session" else "an observer's link"
        return ", ".join(f"{role} of {course}" for course, role in self.roles.items()) or "nobody's role"


ANYONE: Final = Caller("anyone")
OPEN: Final = Caller("anyone", admin=True)  # of a service that asks nobody
