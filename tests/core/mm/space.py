"""One process on a small machine, its calls, and a drawing of its mappings.

`draw` shows a range, one character a unit: each mapping has the next capital letter, a hole is a dot.

    AAAABBBBCCCC....    three mappings of four units, then nothing
"""

from __future__ import annotations

from typing import Any

from core import Kernel, Machine
from core.kernel import Result
from core.mm.mm_types import MM_ANONPAGES, Mm, Vma

PAGE = 4096
K, M, G = 1 << 10, 1 << 20, 1 << 30
ANON = ["private", "anonymous"]
SHARED = ["shared", "anonymous"]


def draw_mm(mm: Mm, first: int, pages: int, unit: int = 1) -> str:
    """The mappings of [first, first + pages) (page numbers), one character for `unit` pages."""
    letters: dict[int, str] = {}
    out = ""
    for vpn in range(first, first + pages, unit):
        vma = next((vma for vma in mm.vmas if vma.start <= vpn < vma.end), None)
        out += letters.setdefault(id(vma), chr(ord("A") + len(letters))) if vma else "."
    return out


class Space:
    """A process of a machine that catches its signals; every call is checked to leave the address space in order."""

    def __init__(self, memory: str = "512M", **machine: Any) -> None:
        self.k = Kernel.boot(Machine.from_dict({"memory": memory, "transparent_hugepage": "never", **machine}))
        self.pid = self.spawn()

    def spawn(self, **args: Any) -> int:
        return int(self.k.call("spawn", comm="test", catch_signals=True, **args).result["pid"])

    @property
    def mm(self) -> Mm:
        mm = self.k.tasks[self.pid].mm
        assert mm is not None
        return mm

    def call(self, op: str, pid: int | None = None, **args: Any) -> Result:
        answer = self.k.call(op, pid or self.pid, **args)
        for task in self.k.tasks.values():
            if task.mm is not None:
                check_order(task.mm)
        self.k.verify()
        return answer

    def ok(self, op: str, pid: int | None = None, **args: Any) -> dict[str, Any]:
        answer = self.call(op, pid, **args)
        assert (answer.errno, answer.signal) == (None, None), answer
        return answer.result or {}

    def errno(self, op: str, pid: int | None = None, **args: Any) -> str | None:
        return self.call(op, pid, **args).errno

    def mmap(self, length: int, prot: str = "rw", flags: list[str] | None = None, **args: Any) -> int:
        return int(self.ok("mmap", length=length, prot=prot, flags=flags or ANON, **args)["address"])

    def touch(self, address: int, length: int, access: str = "write", **args: Any) -> Result:
        return self.call("touch", address=address, length=length, access=access, **args)

    def draw(self, address: int, length: int, unit: int = PAGE) -> str:
        return draw_mm(self.mm, address // PAGE, length // PAGE, unit // PAGE)

    def vma(self, address: int) -> Vma:
        return next(vma for vma in self.mm.vmas if vma.start <= address // PAGE < vma.end)

    def read(self, path: str) -> str:
        return self.k.read(path.replace("<pid>", str(self.pid))).decode()

    def anon(self) -> int:
        """Resident anonymous memory, kB, exact (RssAnon of status may lag by some pages, as in Linux)."""
        return int(self.k.s.mms["rss"][self.mm.id][MM_ANONPAGES]) * 4

    def status(self, key: str) -> int:
        """A Vm line of /proc/<pid>/status, kB."""
        return field(self.read("/proc/<pid>/status"), key)

    def smaps(self, key: str, address: int) -> int:
        """A line of the mapping's entry in smaps, kB."""
        text = self.read("/proc/<pid>/smaps")
        return field(text[text.index(f"{self.vma(address).start * PAGE:08x}-") :], key)

    def meminfo(self, key: str) -> int:
        """A line of /proc/meminfo, kB."""
        return field(self.read("/proc/meminfo"), key)

    def vmstat(self, key: str) -> int:
        """A line of /proc/vmstat."""
        return field(self.read("/proc/vmstat"), key)

    def set(self, path: str, value: object) -> None:
        answer = self.k.call("put", path=path, data=str(value).encode())
        assert answer.errno is None, answer


def field(text: str, key: str) -> int:
    """The first number after a key, as "key: n kB" or "key n"."""
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if words and words[0] == key:
            return int(words[1])
    raise KeyError(key)


def check_order(mm: Mm) -> None:
    """Mappings are sorted, apart, and as many pages as the counters say."""
    assert mm.starts == [vma.start for vma in mm.vmas]
    assert all(low.end <= high.start for low, high in zip(mm.vmas, mm.vmas[1:], strict=False))
    assert all(vma.start < vma.end for vma in mm.vmas)
    assert mm.total_vm == sum(vma.pages for vma in mm.vmas)
