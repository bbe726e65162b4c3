"""A session to take home: the files of its kernel as a tar, for tools that read a captured system."""

import io
import tarfile

from core import Kernel


def write_archive(kernel: Kernel) -> bytes:
    """The text files of the kernel's tree as an uncompressed tar, dated at the epoch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, data in kernel.archive():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.mode, member.size = kernel.stat(path)["mode"] & 0o7777, len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
