"""Bodies of requests about tokens, courses, members and observers."""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from app.schemas.calls import Body
from app.schemas.sessions import COURSE, COURSE_LENGTH, CourseId, Name, Ttl

OPERATOR: Final = "operator"  # who sends PAGEWALK_TOKEN
SUBJECT: Final = r"^[^\x00-\x20\x7f/][^\x00-\x1f\x7f/]*$"
SUBJECT_LENGTH: Final = 200


def subject(name: str) -> str:
    """The name of a person or a program. Raises ValueError in plain words for what is none."""
    if name == OPERATOR:
        raise ValueError(f"{OPERATOR!r} is who sends PAGEWALK_TOKEN: nobody else may be called so")
    if len(name) > SUBJECT_LENGTH or re.fullmatch(SUBJECT, name) is None:
        raise ValueError(f"{name[:40]!r} is no name: 1 to {SUBJECT_LENGTH} characters, no control characters, no slash, no blank at the beginning")
    return name


def course_id(name: str) -> str:
    """A course's id. Raises ValueError in plain words for what is none."""
    if re.fullmatch(COURSE, name) is None or len(name) > COURSE_LENGTH:
        raise ValueError(f"{name[:40]!r} is no course: at most {COURSE_LENGTH} letters, digits, dots, dashes and underscores, no sign first")
    return name


Subject = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=SUBJECT_LENGTH, pattern=SUBJECT), AfterValidator(subject)
]
MemberRole = Literal["instructor", "grader", "student"]


class TokenCreate(Body):
    """A token to be issued."""

    subject: Subject = Field(description="Whose it is: a person or a program.", examples=["ada@example.org"])
    role: Literal["admin", "instructor", "grader", "student"] | None = Field(
        None, description="Makes the subject this in the course; left out: he has a role already."
    )
    course: CourseId | None = Field(None, description="All that the token is good for; only an administrator's may be good for every course.")
    label: Name | None = Field(None, description="What it is for.")
    expires: Ttl | None = Field(None, description="From now; left out: never.", examples=["2160h"])


class CourseCreate(Body):
    """A course to be founded."""

    id: CourseId = Field(examples=["os101"])
    name: Name | None = None


class MemberPut(Body):
    """What a subject is in a course."""

    role: MemberRole


class ObserverCreate(Body):
    """A link to be shown in class."""

    label: Name | None = None
    expires: Ttl | None = Field(None, description="From now; left out: with the session.")
