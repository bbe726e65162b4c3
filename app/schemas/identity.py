"""Bodies of requests about tokens, courses, members and observers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from app.schemas.calls import Body
from app.schemas.names import SUBJECT, SUBJECT_LENGTH, subject
from app.schemas.sessions import CourseId, Name, Ttl

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
