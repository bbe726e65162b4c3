"""Groups at an identity provider, and the roles that rules make of them: {"os101-staff": "instructor of os101", "course-*": "student of *"}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from app.schemas.names import EVERYWHERE, course_id

_ROLE: Final = re.compile(r"(instructor|grader|student) of (\S+)")


class Rule(NamedTuple):
    """Whoever is in a group that matches has a role."""

    group: re.Pattern[str]
    role: str
    course: str  # `*` stands for what the group's `*` stands for

    @classmethod
    def of(cls, group: str, means: str) -> Rule:
        """A rule as it is written. Raises ValueError in plain words."""
        before, star, after = group.partition("*")
        pattern = re.compile(re.escape(before) + ("(.+)" if star else "") + re.escape(after))
        if means == "admin":
            if star:
                raise ValueError(f"{group!r}: a rule that makes administrators names one group, without *")
            return cls(pattern, "admin", EVERYWHERE)
        found = _ROLE.fullmatch(means)
        if found is None or "*" in after or (found[2] == "*") != bool(star):
            raise ValueError(f"{group!r}: {means!r} is no role: instructor, grader or student of COURSE, or admin; * stands once on both sides")
        if not star:
            course_id(found[2])
        return cls(pattern, found[1], found[2])

    def grants(self, group: str) -> str | None:
        """The course in which a group has the rule's role, None when it has none by it."""
        found = self.group.fullmatch(group)
        if found is None:
            return None
        if self.role == "admin" or self.course != "*":
            return self.course
        try:
            return course_id(found[1])
        except ValueError:
            return None


def rules_of(written: Mapping[str, str]) -> list[Rule]:
    """Rules as settings have them. Raises ValueError in plain words."""
    return [Rule.of(group, means) for group, means in written.items()]
