"""Which HTTP status an errno of the file tree is."""

from collections.abc import Mapping
from typing import Final

from app.errors import Problem
from core import FsError

STATUS: Final[Mapping[str, int]] = {
    "ENOENT": 404,
    "EACCES": 403,
    "EPERM": 403,
    "EROFS": 403,
    "EBUSY": 409,
    "ENOTEMPTY": 409,
    "EEXIST": 409,
    "ENOTDIR": 409,
    "EISDIR": 409,
    "EIO": 409,
}


def errno_problem(errno: str, detail: str, overrides: Mapping[str, int] | None = None) -> Problem:
    """The problem of an errno; a value that the kernel refuses is a 422."""
    return Problem((overrides or {}).get(errno) or STATUS.get(errno, 422), "refused", detail, errno=errno)


def fs_problem(error: FsError, overrides: Mapping[str, int] | None = None) -> Problem:
    """The problem of a refused file operation."""
    return errno_problem(error.errno, str(error), overrides)
