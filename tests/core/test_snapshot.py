"""Snapshots: what is saved comes back, bytes that are none are refused in plain words."""

from __future__ import annotations

import pytest

from core import Kernel, Machine
from core.snapshot import MAGIC

M = 1 << 20


@pytest.fixture(scope="module")
def busy() -> Kernel:
    """Processes, a fork, files, a cgroup with a limit, a dying cgroup, a zombie, events not yet drained."""
    k = Kernel.boot(Machine.from_dict({"memory": "128M", "nodes": 1, "swap": "32M"}), seed=7)
    k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    for name in "ab":
        k.call("mkdir", path=f"/sys/fs/cgroup/{name}")
    k.call("create_file", path="/data/f", size=3 * M)
    pid = k.call("spawn", comm="one", cgroup="/a").result["pid"]
    address = k.call("mmap", pid, length=4 * M, prot="rw", flags=["private", "anonymous"]).result["address"]
    k.call("touch", pid, address=address, length=4 * M, access="write")
    k.call("put", path="/sys/fs/cgroup/b/cgroup.procs", data=str(pid).encode())
    k.call("rmdir", path="/sys/fs/cgroup/a")
    child = k.call("fork", pid).result["pid"]
    k.call("exit", k.call("fork", pid).result["pid"])
    k.call("read", child, path="/data/f", offset=0, length=M)
    k.call("mbind", pid, address=address, length=M, mode="bind", nodes=[0])
    k.call("put", path="/sys/fs/cgroup/b/memory.max", data=b"64M")
    return k


def test_what_is_saved_comes_back(busy: Kernel) -> None:
    again = Kernel.restore(busy.snapshot())
    assert again.digest() == busy.digest()
    again.verify()
    for path, text in busy.archive():
        assert again.read(path) == text, path
    assert [event.to_dict() for event in again.events] == [event.to_dict() for event in busy.events]


def test_two_copies_are_independent(busy: Kernel) -> None:
    blob = busy.snapshot()
    one, other = Kernel.restore(blob), Kernel.restore(blob)
    one.call("spawn", comm="x")
    assert other.digest() == busy.digest() != one.digest()


def test_saving_changes_nothing(busy: Kernel) -> None:
    before = busy.digest()
    assert busy.snapshot() == busy.snapshot()
    assert busy.digest() == before


@pytest.mark.parametrize(("blob", "why"), [
    (b"", "not a snapshot"),
    (b"hello, world", "not a snapshot"),
    (MAGIC[:3] + bytes([MAGIC[3] + 1]) + b"rest", "of version"),
    (MAGIC + b"no zstandard frame", "damaged"),
])  # fmt: skip
def test_other_bytes_are_refused(blob: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Kernel.restore(blob)


def test_a_cut_snapshot_is_refused(busy: Kernel) -> None:
    blob = busy.snapshot()
    with pytest.raises(ValueError, match="damaged"):
        Kernel.restore(blob[: len(blob) // 2])


def test_it_is_small(busy: Kernel) -> None:
    assert len(Kernel.boot(Machine.from_dict({"memory": "512M"})).snapshot()) < 100_000
