"""What is known about callers: tokens (their hashes), courses and their members, tickets.

Every change counts up `generation`, so that each process of the service sees with one cheap read that what it remembers is stale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token as it is kept: times are seconds since the epoch, `course` and `session` are all that it is good for, if given."""

    id: str
    digest: bytes
    subject: str
    course: str | None = None
    session: str | None = None
    label: str | None = None
    issued_by: str | None = None
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None
    used: float | None = None


@dataclass(frozen=True, slots=True)
class CourseRecord:
    """A course."""

    id: str
    name: str | None
    created: float


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What a subject is in a course."""

    course: str
    subject: str
    role: str


class IdentityStore(Protocol):
    """What the service asks of the place where callers are kept."""

    async def add_token(self, token: TokenRecord) -> None:
        """Keep a token."""

    async def token_of(self, digest: bytes) -> TokenRecord | None:
        """The token with that hash, whether it is still good or not."""

    async def token(self, id: str) -> TokenRecord | None:
        """The token of that id."""

    async def tokens(self, session: str | None = None) -> Sequence[TokenRecord]:
        """The tokens of people, or a session's observers, in order of creation."""

    async def revoke(self, id: str, when: float) -> bool:
        """Make a token worthless; False when there is none or it was revoked before."""

    async def used(self, when: Mapping[str, float]) -> None:
        """Note when tokens were last used, by id."""

    async def add_course(self, course: CourseRecord) -> bool:
        """Found a course; False when there is one of that id."""

    async def courses(self) -> Sequence[CourseRecord]:
        """The courses by id."""

    async def drop_course(self, id: str) -> bool:
        """Forget a course, its members and its tokens; False when there is none."""

    async def set_member(self, member: MemberRecord) -> bool:
        """Give a subject a role in a course; True when he had none there."""

    async def drop_member(self, course: str, subject: str) -> bool:
        """Take a subject's role away; False when he had none."""

    async def members(self, course: str) -> Sequence[MemberRecord]:
        """The members of a course by subject."""

    async def roles(self, subject: str) -> Mapping[str, str]:
        """A subject's roles by course."""

    async def add_ticket(self, digest: bytes, expires: float, grant: str, now: float) -> None:
        """Keep a ticket; those that ran out go."""

    async def take_ticket(self, digest: bytes, now: float) -> str | None:
        """What a ticket grants, to the first who asks in time; it is gone then."""

    async def generation(self) -> int:
        """Grows with every change of tokens, courses and members."""


class MemoryIdentity:
    """Callers as long as the process lives."""

    def __init__(self) -> None:
        self._tokens: dict[str, TokenRecord] = {}
        self._by_digest: dict[bytes, str] = {}
        self._courses: dict[str, CourseRecord] = {}
        self._roles: dict[str, dict[str, str]] = {}
        self._tickets: dict[bytes, tuple[float, str]] = {}
        self._generation = 0

    async def add_token(self, token: TokenRecord) -> None:
        """Keep a token."""
        self._tokens[token.id] = token
        self._by_digest[token.digest] = token.id
        self._generation += 1

    async def token_of(self, digest: bytes) -> TokenRecord | None:
        """The token with that hash, whether it is still good or not."""
        return self._tokens.get(self._by_digest.get(digest, ""))

    async def token(self, id: str) -> TokenRecord | None:
        """The token of that id."""
        return self._tokens.get(id)

    async def tokens(self, session: str | None = None) -> Sequence[TokenRecord]:
        """The tokens of people, or a session's observers, in order of creation."""
        return [token for token in self._tokens.values() if token.session == session]

    async def revoke(self, id: str, when: float) -> bool:
        """Make a token worthless; False when there is none or it was revoked before."""
        token = self._tokens.get(id)
        if token is None or token.revoked is not None:
            return False
        self._tokens[id] = replace(token, revoked=when)
        self._generation += 1
        return True

    async def used(self, when: Mapping[str, float]) -> None:
        """Note when tokens were last used, by id."""
        for id, moment in when.items():
            if id in self._tokens:
                self._tokens[id] = replace(self._tokens[id], used=moment)

    async def add_course(self, course: CourseRecord) -> bool:
        """Found a course; False when there is one of that id."""
        if course.id in self._courses:
            return False
        self._courses[course.id] = course
        self._generation += 1
        return True

    async def courses(self) -> Sequence[CourseRecord]:
        """The courses by id."""
        return [self._courses[id] for id in sorted(self._courses)]

    async def drop_course(self, id: str) -> bool:
        """Forget a course, its members and its tokens; False when there is none."""
        if self._courses.pop(id, None) is None:
            return False
        for roles in self._roles.values():
            roles.pop(id, None)
        for token in [token for token in self._tokens.values() if token.course == id]:
            del self._tokens[token.id], self._by_digest[token.digest]
        self._generation += 1
        return True

    async def set_member(self, member: MemberRecord) -> bool:
        """Give a subject a role in a course; True when he had none there."""
        roles = self._roles.setdefault(member.subject, {})
        new = member.course not in roles
        roles[member.course] = member.role
        self._generation += 1
        return new

    async def drop_member(self, course: str, subject: str) -> bool:
        """Take a subject's role away; False when he had none."""
        self._generation += 1
        return self._roles.get(subject, {}).pop(course, None) is not None

    async def members(self, course: str) -> Sequence[MemberRecord]:
        """The members of a course by subject."""
        return [MemberRecord(course, subject, roles[course]) for subject, roles in sorted(self._roles.items()) if course in roles]

    async def roles(self, subject: str) -> Mapping[str, str]:
        """A subject's roles by course."""
        return dict(self._roles.get(subject, {}))

    async def add_ticket(self, digest: bytes, expires: float, grant: str, now: float) -> None:
        """Keep a ticket; those that ran out go."""
        self._tickets = {key: kept for key, kept in self._tickets.items() if kept[0] > now}
        self._tickets[digest] = expires, grant

    async def take_ticket(self, digest: bytes, now: float) -> str | None:
        """What a ticket grants, to the first who asks in time; it is gone then."""
        expires, grant = self._tickets.pop(digest, (0.0, ""))
        return grant if expires > now else None

    async def generation(self) -> int:
        """Grows with every change of tokens, courses and members."""
        return self._generation
