"""Error numbers as user space sees them (asm-generic/errno-base.h and errno.h of Linux 6.1)."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Errno(IntEnum):
    """An errno by its symbol; the value is x86-64's."""

    EPERM = 1
    ENOENT = 2
    ESRCH = 3
    EINTR = 4
    EIO = 5
    E2BIG = 7
    EBADF = 9
    ECHILD = 10
    EAGAIN = 11
    ENOMEM = 12
    EACCES = 13
    EFAULT = 14
    EBUSY = 16
    EEXIST = 17
    ENODEV = 19
    ENOTDIR = 20
    EISDIR = 21
    EINVAL = 22
    ETXTBSY = 26
    EFBIG = 27
    ENOSPC = 28
    EROFS = 30
    ERANGE = 34
    ENAMETOOLONG = 36
    ENOSYS = 38
    ENOTEMPTY = 39
    EOVERFLOW = 75
    EOPNOTSUPP = 95
    EDQUOT = 122


class SysError(Exception):
    """A system call's failure, raised inside the kernel and answered as `errno` (never an HTTP error).

    `errno` is the number that Linux's manual page names for the case; `why` is one plain sentence.
    """

    def __init__(self, errno: Errno, why: str = "", result: dict[str, Any] | None = None) -> None:
        super().__init__(f"{errno.name}: {why}" if why else errno.name)
        self.errno = errno
        self.why = why
        self.result = result  # what was done nevertheless
