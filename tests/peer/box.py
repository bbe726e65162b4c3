"""A machine to try things on: a booted kernel with the few shorthands that the tests share."""

from __future__ import annotations

import re
from typing import Any

from core import FsError, Kernel, Machine, Result

PAGE = 4096
K, M, G, T = 1 << 10, 1 << 20, 1 << 30, 1 << 40
TASK_SIZE = 0x7FFFFFFFF000
CGROUP = "/sys/fs/cgroup"
ANON = ["private", "anonymous"]
# Far from everything that a process has at its start.
FREE = 0x10_0000_0000


def close(a: int, b: int, percent: int) -> bool:
    """The selftests' tolerance: `percent` of the sum, in integers."""
    return abs(a - b) <= (a + b) // 100 * percent


def fields(text: str) -> dict[str, int]:
    """`Name:   12 kB` and `name 12` lines."""
    return {name: int(value) for name, value in re.findall(r"^([\w()\-.]+):?\s+(-?\d+)(?: kB)?\s*$", text, re.M)}


class Box:
    """A kernel and shorthands for its calls and files."""

    def __init__(self, **machine: Any) -> None:
        self.kernel = Kernel.boot(Machine.from_dict(machine), 1)

    # -- processes --

    def spawn(self, comm: str = "app", **args: Any) -> int:
        result = self.kernel.call("spawn", comm=comm, **args).result
        assert result
        return int(result["pid"])

    def call(self, pid: int, op: str, **args: Any) -> Result:
        return self.kernel.call(op, pid, **args)

    def ok(self, pid: int, op: str, **args: Any) -> dict[str, Any]:
        """A call that must succeed."""
        found = self.kernel.call(op, pid, **args)
        assert found.errno is None and found.signal is None, (op, args, found)
        return found.result or {}

    def mmap(self, pid: int, length: int, prot: str = "rw", flags: list[str] | None = None, **args: Any) -> int:
        """A mapping that must succeed: its address."""
        return int(self.ok(pid, "mmap", length=length, prot=prot, flags=flags or ANON, **args)["address"])

    def fixed(self, pid: int, page: int, pages: int, prot: str = "rw", **args: Any) -> int:
        """Pages [page, page + pages) above FREE, anonymous and private."""
        return self.mmap(pid, pages * PAGE, prot, [*ANON, "fixed"], address=FREE + page * PAGE, **args)

    def touch(self, pid: int, address: int, length: int, access: str = "write", **args: Any) -> Result:
        return self.call(pid, "touch", address=address, length=length, access=access, **args)

    def alloc_anon(self, pid: int, length: int, flags: list[str] | None = None) -> Result:
        """mmap and write one byte in each page."""
        return self.touch(pid, self.mmap(pid, length, flags=flags), length)

    def use_up(self, pid: int) -> Result:
        """Write more than the machine has."""
        return self.alloc_anon(pid, 4 * G, [*ANON, "noreserve"])

    def pagecache(self, pid: int, path: str, length: int) -> None:
        """Make a sparse file and read it all."""
        self.kernel.call("create_file", path=path, size=length)
        self.ok(pid, "read", path=path, offset=0, length=length)

    def alive(self, pid: int) -> bool:
        states = {row["pid"]: row["state"] for row in self.kernel.view("processes")}
        return states.get(pid, "dead") not in ("zombie", "dead")

    # -- files --

    def text(self, path: str) -> str:
        return self.kernel.read(path).decode()

    def put(self, path: str, value: object) -> str | None:
        """echo value > path: None, or the errno."""
        try:
            return self.kernel.call("put", path=path, data=str(value).encode()).errno
        except FsError as error:
            return str(error.errno)

    def set(self, path: str, value: object) -> None:
        assert self.put(path, value) is None, (path, value)

    def meminfo(self) -> dict[str, int]:
        """/proc/meminfo, kB."""
        return fields(self.text("/proc/meminfo"))

    def vmstat(self) -> dict[str, int]:
        return fields(self.text("/proc/vmstat"))

    def status(self, pid: int) -> dict[str, int]:
        """/proc/<pid>/status, kB."""
        return fields(self.text(f"/proc/{pid}/status"))

    def maps(self, pid: int) -> list[str]:
        return self.text(f"/proc/{pid}/maps").splitlines()

    def vmas(self, pid: int, low: int = FREE, high: int = FREE + G) -> list[tuple[int, int, str, int]]:
        """(first page, end page, rights, file page) of the mappings in a range, pages counted from its start."""
        found = []
        for line in self.maps(pid):
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
            if low <= start < high:
                words = line.split()
                found.append(((start - low) // PAGE, (end - low) // PAGE, words[1], int(words[2], 16) // PAGE))
        return found

    def spans(self, pid: int) -> list[tuple[int, int]]:
        """[first page, end page) of the mappings above FREE."""
        return [(start, end) for start, end, _, _ in self.vmas(pid)]

    def smaps(self, pid: int, address: int) -> dict[str, str]:
        """The smaps block of the mapping that begins at an address."""
        block: dict[str, str] = {}
        for line in self.text(f"/proc/{pid}/smaps").splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                block = {"": line} if int(line.split("-")[0], 16) == address else {}
            elif block:
                name, _, value = line.partition(":")
                block[name] = value
                if name == "VmFlags":
                    return block
        raise AssertionError(f"no mapping begins at {address:#x}")

    def smaps_kb(self, pid: int, address: int, name: str) -> int:
        return int(self.smaps(pid, address)[name].split()[0])

    # -- cgroups --

    def cgroup(self, path: str, **files: object) -> str:
        """Make a cgroup with the memory controller and write its files; keyword `memory_max` is memory.max."""
        parent = path.rpartition("/")[0]
        self.set(f"{CGROUP}{parent}/cgroup.subtree_control", "+memory")
        found = self.kernel.call("mkdir", path=CGROUP + path)
        assert found.errno is None, found
        for name, value in files.items():
            self.set(f"{CGROUP}{path}/{name.replace('_', '.')}", value)
        return path

    def cg(self, path: str, name: str) -> str:
        return self.text(f"{CGROUP}{path}/{name}")

    def cg_int(self, path: str, name: str) -> int:
        return int(self.cg(path, name))

    def stat(self, path: str) -> dict[str, int]:
        return fields(self.cg(path, "memory.stat"))

    def events(self, path: str, name: str = "memory.events") -> dict[str, int]:
        return fields(self.cg(path, name))
