"""Our side: the same operations on a simulated machine, through the core's public surface only (`Kernel.boot`, `Kernel.call`).

Times are CPU nanoseconds per page of the call itself, on a freshly booted kernel: the columns of a new session are still unbacked
memory, and having them backed is part of the price (`again` measures the same call on recycled frames). As with the C program, a first
round is thrown away (`warm`): under virtualisation the host may have to find memory that this machine never used, for either side.
"""
from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable
from typing import Any, TypeVar

from core import Kernel, Machine

PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30
ANONYMOUS = {"prot": "rw", "flags": ["private", "anonymous"]}


class Program:
    """One process on one freshly booted machine without huge pages, and a clock around its calls."""

    def __init__(self, memory: str = "2G") -> None:
        self.kernel = Kernel.boot(Machine.from_dict({"memory": memory, "transparent_hugepage": "never"}))
        self.pid = int(self._result("spawn", None, comm="bench")["pid"])

    def _result(self, op: str, pid: int | None, **args: Any) -> dict[str, Any]:
        answer = self.kernel.call(op, pid, **args)
        if answer.errno or answer.signal or answer.killed:
            raise SystemExit(f"benchmark: {op} {args} failed: {answer}")
        return answer.result or {}

    def call(self, op: str, pid: int | None = None, **args: Any) -> dict[str, Any]:
        """The call's result, which must be a success."""
        return self._result(op, pid or self.pid, **args)

    def timed(self, op: str, pid: int | None = None, **args: Any) -> float:
        """CPU nanoseconds of the call. What it left in the event log is dropped outside the clock."""
        begin = time.process_time_ns()
        self._result(op, pid or self.pid, **args)
        spent = time.process_time_ns() - begin
        self.kernel.drain()
        return float(spent)

    def mmap(self, length: int, **more: Any) -> int:
        return int(self.call("mmap", length=length, **{**ANONYMOUS, **more})["address"])


Figure = TypeVar("Figure")


def warm(measure: Callable[[], Figure]) -> Figure:
    """The second of two rounds."""
    measure()
    gc.collect()
    return measure()


def per_page(nanoseconds: float, length: int) -> float:
    return nanoseconds / (length // PAGE)


def first_write(order: str, length: int = GIB) -> dict[str, float]:
    """First write of `length` bytes in `order`, its munmap, and the same write again on recycled frames."""
    program = Program()
    address = program.mmap(length)
    write = program.timed("touch", address=address, length=length, access="write", order=order)
    munmap = program.timed("munmap", address=address, length=length)
    address = program.mmap(length)
    again = program.timed("touch", address=address, length=length, access="write", order=order)
    return {"write": per_page(write, length), "munmap": per_page(munmap, length), "again": per_page(again, length)}


def zero_page_read(length: int = GIB) -> float:
    """First read: every entry points to the one zero page."""
    program = Program()
    address = program.mmap(length)
    return per_page(program.timed("touch", address=address, length=length, access="read"), length)


def fork_and_cow(length: int = 512 * MIB) -> dict[str, float]:
    """fork of a process with `length` bytes in frames, and the child's write to each of them."""
    program = Program()
    address = program.mmap(length)
    program.timed("touch", address=address, length=length, access="write")
    begin = time.process_time_ns()
    child = int(program.call("fork")["pid"])
    fork = float(time.process_time_ns() - begin)
    program.kernel.drain()
    cow = program.timed("touch", child, address=address, length=length, access="write")
    return {"fork": per_page(fork, length), "cow": per_page(cow, length)}


def single_calls(count: int = 5_000) -> dict[str, float]:
    """Microseconds of one `Kernel.call("touch")` of one page: a page that faults, and one that is mapped."""
    program = Program("512M")
    address = program.mmap(count * PAGE)
    kernel, pid = program.kernel, program.pid

    def each() -> float:
        begin = time.process_time_ns()
        for index in range(count):
            kernel.call("touch", pid, address=address + index * PAGE, length=PAGE, access="write")
        spent = time.process_time_ns() - begin
        kernel.drain()
        return spent / count / 1e3

    return {"fault": each(), "mapped": each()}


def ksm_scan(pages: int = 100_000) -> dict[str, float]:
    """Milliseconds of one full scan of `pages` pages by ksmd: the one that merges them all, and the one that finds each to be like no other.

    Pages that are alike are filled with one byte; pages that are not are private copies of a file's pages, one byte changed.
    """

    def scan(file: str | None) -> float:
        program = Program("1G")
        kernel = program.kernel
        if file:
            program.call("create_file", path=file, size=pages * PAGE)
        address = program.mmap(pages * PAGE, **({"file": file, "flags": ["private"]} if file else {}))
        program.call("touch", address=address, length=pages * PAGE, access="write", **({} if file else {"fill": 7}))
        program.call("madvise", address=address, length=pages * PAGE, advice="mergeable")
        for name, value in (("pages_to_scan", pages + 1), ("sleep_millisecs", 20), ("run", 1)):
            program.call("put", path=f"/sys/kernel/mm/ksm/{name}", data=str(value).encode())
        begin = time.process_time_ns()
        while int(kernel.read("/sys/kernel/mm/ksm/full_scans")) < 2:
            kernel.advance(10_000_000)
        spent = time.process_time_ns() - begin
        found = "pages_unshared" if file else "pages_sharing"
        if int(kernel.read(f"/sys/kernel/mm/ksm/{found}")) < pages * 0.99:
            raise SystemExit(f"benchmark: ksmd found {kernel.read(f'/sys/kernel/mm/ksm/{found}')} {found} of {pages}")
        return spent / 1e6

    return {"ksm_merge": scan(None), "ksm_unique": scan("/data/unique")}


def boot_ms() -> float:
    """Milliseconds to boot the default machine."""
    begin = time.process_time_ns()
    kernel = Kernel.boot(Machine.from_dict({}))
    spent = time.process_time_ns() - begin
    del kernel
    return spent / 1e6


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def idle_session_mb(count: int = 40) -> float:
    """Resident megabytes that one more idle session of the default machine adds, as the mean of `count` new ones."""
    machine = Machine.from_dict({})
    kept = [Kernel.boot(machine)]
    gc.collect()
    before = resident_bytes()
    kept.extend(Kernel.boot(machine) for _ in range(count))
    gc.collect()
    return (resident_bytes() - before) / count / 1e6


def sparse_terabyte(pages: int = 1_000) -> dict[str, float]:
    """Milliseconds for mmap, touch of `pages` pages and munmap: spread over 1 TiB, and over as many 2 MiB steps.

    Each page needs a PTE table of its own in both, and over 1 TiB a PMD table too: twice the tables, so about twice the cost, whatever the
    length of the mapping.
    """

    def cost(length: int, stride: int) -> float:
        program = Program("512M")
        begin = time.process_time_ns()
        address = program.mmap(length, flags=["private", "anonymous", "noreserve"])
        touched = program.call("touch", address=address, length=length, access="write", stride=stride)["touched"]
        program.call("munmap", address=address, length=length)
        if touched != pages:
            raise SystemExit(f"benchmark: {touched} pages touched of {pages}")
        return (time.process_time_ns() - begin) / 1e6

    terabyte = 1 << 40
    step = terabyte // PAGE // pages
    return {"sparse": cost(pages * step * PAGE, step), "dense": cost(pages * 2 * MIB, 2 * MIB // PAGE)}


def warm_up() -> None:
    """Every loop loaded and run once, so that no measurement contains a compilation."""
    steps: list[Callable[[], object]] = [
        lambda: first_write("sequential", 4 * MIB), lambda: first_write("random", 4 * MIB), lambda: zero_page_read(4 * MIB),
        lambda: fork_and_cow(4 * MIB), lambda: single_calls(50), lambda: sparse_terabyte(), boot_ms, lambda: ksm_scan(512),
    ]
    for step in steps:
        step()
