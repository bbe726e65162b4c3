"""Names of people, programs and courses."""

import re
from typing import Final

EVERYWHERE: Final = "*"  # the course of an administrator's role
OPERATOR: Final = "operator"  # who sends PAGEWALK_TOKEN
SUBJECT: Final = r"^[^\x00-\x20\x7f/][^\x00-\x1f\x7f/]*$"
SUBJECT_LENGTH: Final = 200
COURSE: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
COURSE_LENGTH: Final = 60


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
