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

import numpy as np

from app.main import settle_in
from core import Event, Kernel, Machine, parse_program
from core.mm import tlb
from core.mm.tlb_walk import access_tlb

PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30
ANONYMOUS = {"prot": "rw", "flags": ["private", "anonymous"]}


class Program:
    """One process on one freshly booted machine without huge pages, and a clock around its calls."""

    def __init__(self, memory: str = "2G", **machine: Any) -> None:
        self._spawn(Kernel.boot(Machine.from_dict({"memory": memory, "transparent_hugepage": "never", **machine})))

    @classmethod
    def of(cls, kernel: Kernel) -> Program:
        """One on a machine that is there."""
        program = cls.__new__(cls)
        program._spawn(kernel)
        return program

    def _spawn(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.pid = int(self._result("spawn", None, comm="bench")["pid"])

    def _result(self, op: str, pid: int | None, **args: Any) -> dict[str, Any]:
        answer = self.kernel.call(op, pid, **args)
        if answer.errno or answer.signal or answer.killed:
            raise SystemExit(f"benchmark: {op} {args} failed: {answer}")
        return answer.result or {}

    def call(self, op: str, pid: int | None = None, **args: Any) -> dict[str, Any]:
        """The call's result, which must be a success."""
        return self._result(op, pid or self.pid, **args)

    def timed(self, op: str, pid: int | None = None, told: bool = False, **args: Any) -> float:
        """CPU nanoseconds of the call. What it left in the event log is told within the clock, or dropped outside it."""
        begin = time.process_time_ns()
        self._result(op, pid or self.pid, **args)
        done = time.process_time_ns()
        self.kernel.drain()
        return float((time.process_time_ns() if told else done) - begin)

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


def huge_pages(length: int = 4 << 30) -> dict[str, float]:
    """First writes to a region of huge pages, on frames that the host backs already."""
    program = Program("8G", transparent_hugepage="always")
    for _ in range(3):
        address = program.mmap(length, align=2 * MIB)
        spent = program.timed("touch", address=address, length=length, access="write")
        program.call("munmap", address=address, length=length)
    return {"huge_write": per_page(spent, length)}


def khugepaged_scan(length: int = 1 << 30) -> dict[str, float]:
    """khugepaged makes huge pages of 1 GiB of small ones, and then finds nothing to do; milliseconds."""
    program = Program("4G", transparent_hugepage="madvise")
    program.kernel.call("put", path="/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan", data=b"1000000")
    address = program.mmap(length, align=2 * MIB)
    program.call("touch", address=address, length=length, access="write")
    program.call("madvise", address=address, length=length, advice="hugepage")
    spent = []
    for _ in range(2):
        begin = time.process_time_ns()
        program.kernel.advance(20_000_000_000)
        spent.append((time.process_time_ns() - begin) / 1e6)
    return {"khugepaged_collapse": spent[0], "khugepaged_look": spent[1]}


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


def tlb_trace(accesses: int = 10_000_000) -> dict[str, float]:
    """Millions of accesses a second through the TLB of the default machine: 256 MiB touched at random, and by Zipf's law.

    The loop behind `touch`, on a trace made beforehand; the whole call, page-table side and all, is `touch`.
    """
    program = Program("512M")
    kernel, pages = program.kernel, 65_536
    address = program.mmap(pages * PAGE)
    program.call("touch", address=address, length=pages * PAGE, access="write")
    rng = np.random.default_rng(1)
    ranks = np.arange(1, pages + 1)
    traces = {"tlb_uniform": rng.integers(0, pages, accesses), "tlb_zipf": rng.choice(pages, accesses, p=1 / ranks / (1 / ranks).sum())}
    cols = tlb.columns(kernel.machine)
    pgd = int(kernel.s.mms["pgd"][kernel.tasks[program.pid].mm.id])
    figures = {}
    for name, trace in traces.items():
        begin = time.process_time_ns()
        access_tlb((cols.tags, cols.stamps), cols.state, cols.geom, kernel.s.pt, kernel.s.mem, 0, pgd, 0, address // PAGE, 1, trace, True, 0,
                   accesses, True)  # fmt: skip
        figures[name] = accesses / (time.process_time_ns() - begin) * 1e3
    begin = time.process_time_ns()
    program.call("touch", address=address, length=pages * PAGE, access="read", order="random", repeat=max(1, accesses // pages))
    return figures | {"touch_random": accesses / (time.process_time_ns() - begin) * 1e3}


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


def thrash(order: str, memory: str = "1G") -> float:
    """CPU nanoseconds a touch over twice the memory, all of it written before, so that most touches find their page in swap only.

    Events are made when somebody asks for them: that is within the clock, too.
    """
    kernel = Kernel.boot(Machine.from_dict({"memory": memory, "swap": "4G", "transparent_hugepage": "never"}))
    program = Program.of(kernel)
    length = 2 * kernel.machine.total
    address = program.mmap(length, flags=["private", "anonymous", "noreserve"])
    program.timed("touch", address=address, length=length, access="write")
    return per_page(program.timed("touch", told=True, address=address, length=length, access="write", order=order), length)


def clean_reclaim(pages: int = 1_000_000, memory: str = "8G") -> float:
    """CPU milliseconds to reclaim `pages` clean pages of a file that was read once (memory.reclaim of the root cgroup)."""
    kernel = Kernel.boot(Machine.from_dict({"memory": memory, "transparent_hugepage": "never"}))
    program = Program.of(kernel)
    kernel.call("create_file", path="/data/f", size=pages * PAGE)
    program.timed("read", path="/data/f", offset=0, length=pages * PAGE)
    begin = time.process_time_ns()
    kernel.call("put", path="/sys/fs/cgroup/memory.reclaim", data=str(pages * PAGE).encode())
    return (time.process_time_ns() - begin) / 1e6


def reclaim_by_size(pages: int = 4_096) -> dict[str, float]:
    """CPU nanoseconds a page to reclaim the same number of clean pages on machines of 64 MiB and of 64 GiB: the best of five."""
    return {f"reclaim_{memory}": min(clean_reclaim(pages, memory) for _ in range(5)) * 1e6 / pages for memory in ("64M", "1G", "64G")}


def warm_up() -> None:
    """Every loop loaded and run once, so that no measurement contains a compilation."""
    steps: list[Callable[[], object]] = [
        lambda: first_write("sequential", 4 * MIB), lambda: first_write("random", 4 * MIB), lambda: zero_page_read(4 * MIB),
        lambda: fork_and_cow(4 * MIB), lambda: single_calls(50), lambda: sparse_terabyte(), boot_ms, lambda: ksm_scan(512), lambda: tlb_trace(1000),
        lambda: thrash("zipf", "64M"), reclaim_by_size,
    ]
    for step in steps:
        step()
    settle_in()


READY = ("leak", "db-buffer-pool", "web-workers", "batch-scan", "jvm")


def five_programs(seconds: int = 60) -> dict[str, float]:
    """The ready-made programs compete on a machine of 512M: CPU seconds of a minute of simulated time, and how many events it told."""
    kernel = Kernel.boot(Machine.from_dict({"memory": "512M", "swap": "256M"}))
    for name in READY:
        kernel.call("spawn", comm=name, program=parse_program(name))
    told: list[Event] = []
    kernel.pause = lambda: told.extend(kernel.drain())
    begin = time.process_time()
    answer = kernel.call("advance", duration_ns=seconds * 10**9)
    spent = time.process_time() - begin
    kernel.pause = None
    told += kernel.drain()
    if answer.errno or len(kernel.view("vmstat", every=10**9, count=seconds)) != seconds:
        raise SystemExit(f"benchmark: the programs did not run to the end: {answer}")
    kernel.verify()
    return {"programs": spent, "programs_events": float(len(told))}
