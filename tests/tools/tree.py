"""A session's file tree on a real disk, so that real tools can read it."""

from __future__ import annotations

from pathlib import Path

from core import FsError, Kernel
from tests.peer.box import ANON, Box, M

# Sparse and binary: nobody keeps them in an archive.
LEFT_OUT = {"pagemap", "kpagecount", "kpageflags", "kpagecgroup"}
# What reading a file answers that is only written: clear_refs, drop_caches, memory.reclaim.
WRITE_ONLY = ("EACCES", "EPERM", "EINVAL")


def unpack(kernel: Kernel, root: Path, path: str = "/") -> Path:
    """Write every readable file below a path under a directory of the disk."""
    for name in kernel.listdir(path):
        inner = f"{path.rstrip('/')}/{name}"
        if kernel.stat(inner)["type"] == "dir":
            (root / inner.lstrip("/")).mkdir(parents=True, exist_ok=True)
            unpack(kernel, root, inner)
        elif name not in LEFT_OUT:
            _write(kernel, root / inner.lstrip("/"), inner)
    return root


def _write(kernel: Kernel, target: Path, path: str) -> None:
    try:
        data = kernel.read(path)
    except FsError as error:
        if error.errno not in WRITE_ONLY:
            raise
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def busy_box() -> tuple[Box, int, int]:
    """A machine with a parent of 24M, its child, a file in the page cache, and a cgroup."""
    box = Box(memory="512M", swap="64M")
    box.cgroup("/app")
    parent = box.spawn("student", cgroup="/app")
    address = box.mmap(parent, 32 * M, "rw", ANON)
    box.touch(parent, address, 24 * M)
    box.pagecache(parent, "/data/f", 8 * M)
    box.touch(parent, box.mmap(parent, 8 * M, "r", ["shared"], file="/data/f"), 4 * M, "read")
    child = int(box.ok(parent, "fork")["pid"])
    box.touch(child, address, 4 * M)
    box.kernel.call("advance", duration_ns=5 * 10**9)
    return box, parent, child
