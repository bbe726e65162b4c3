"""Compile every page loop once, with a progress line: `python -m core.warm`.

The loops compile on first use (some minutes in all) and are kept on disk by `core.jit`; whoever sets pagewalk up runs
this once, so that nobody waits later. It plays a short story on a small machine that needs nearly every loop, then compiles those
whose annotations say what they take, and says so if one was left out.

Where there is a second processor, a second process (`--from-the-end`) takes the same loops the other way round: what it has compiled
the story finds on disk, and somewhere in the middle the two meet.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from numba import boolean, int64, typeof

import core
from core import REPLAY_POLICIES, Kernel, Machine, compare_policies, generate_trace
from core.jit import cache_dir
from core.mm import huge_memory, rmap_walk, shmem_huge, thrash
from core.mm.memory import NO_PERM

M = 1 << 20
K = 1 << 10
PRIVATE = ["private", "anonymous"]


def story(k: Kernel) -> None:
    """Calls and reads that need every loop there is."""
    a = call(k, "spawn", comm="a", catch_signals=True)["pid"]
    call(k, "put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    call(k, "mkdir", path="/sys/fs/cgroup/w")
    call(k, "put", path="/sys/fs/cgroup/w/cgroup.procs", data=str(a).encode())
    heap = call(k, "mmap", a, length=4 * M, prot="rw", flags=PRIVATE)["address"]
    for access, order in (("read", "sequential"), ("write", "random"), ("write", "zipf")):
        call(k, "touch", a, address=heap, length=M, access=access, order=order)
    k.calls([("touch", a, {"address": heap})])
    child = call(k, "fork", a)["pid"]
    call(k, "touch", child, address=heap, length=64 * K, access="write")
    call(k, "exit", child)
    files(k, a)
    mappings(k, a, heap)
    for path in READS:
        k.read(path.format(pid=a))
    for path, length in (("/proc/kpageflags", 64), ("/proc/kpagecount", 64), ("/proc/kpagecgroup", 64)):
        k.pread(path, 0, length)
    k.pread(f"/proc/{a}/pagemap", heap // 4096 * 8, 64)
    for name, args in (("walk", {"pid": a, "address": heap}), ("vmas", {"pid": a}), ("cgroups", {}), ("audit", {})):
        k.view(name, **args)
    samepages(k)
    huge(k, a)
    fragments(k)
    transparent(k)
    shared_huge_pages(k)
    pressure(k)
    k.verify()
    generations(k, a, heap)
    k.verify()
    policies(k)
    k.verify()
    Kernel.restore(k.snapshot()).digest()


def transparent(k: Kernel) -> None:
    """Huge pages that come by themselves: read, written, split, swapped in part, collapsed; the huge zero page goes again."""
    thp = "/sys/kernel/mm/transparent_hugepage/"
    call(k, "put", path=thp + "enabled", data=b"always")
    d = call(k, "spawn", comm="d")["pid"]
    at = call(k, "mmap", d, length=8 * M, prot="rw", flags=PRIVATE, align=2 * M)["address"]
    for offset, access in ((0, "write"), (2 * M, "write"), (4 * M, "read")):
        call(k, "touch", d, address=at + offset, length=2 * M, access=access)
    k.view("explain_thp", pid=d, address=at)
    call(k, "mprotect", d, address=at, length=M, prot="r")
    for advice in ("dontneed", "pageout", "free", "cold"):
        call(k, "madvise", d, address=at + 3 * M, length=512 * K, advice=advice)
    call(k, "madvise", d, address=at + 2 * M, length=512 * K, advice="pageout")
    call(k, "madvise", d, address=at + 2 * M, length=2 * M, advice="collapse")
    call(k, "touch", d, address=at + 6 * M, length=M, access="write")
    k.advance(1_000_000)
    call(k, "madvise", d, address=at, length=512 * K, advice="dontneed")
    k.advance(11_000_000_000)
    call(k, "munmap", d, address=at + M, length=512 * K)
    call(k, "put", path=thp + "enabled", data=b"madvise")
    small = call(k, "mmap", d, length=4 * M, prot="rw", flags=PRIVATE)["address"]
    call(k, "touch", d, address=small, length=4 * M, access="write")
    call(k, "put", path=thp + "enabled", data=b"always")  # khugepaged wakes, takes a block, and then the process is gone
    call(k, "exit", d)
    k.advance(1_000_000)
    huge_memory.shrink_huge_zero_page(k)
    d = call(k, "spawn", comm="d")["pid"]
    at = call(k, "mmap", d, length=4 * M, prot="rw", flags=PRIVATE, align=2 * M)["address"]
    call(k, "touch", d, address=at, length=2 * M, access="write")
    call(k, "madvise", d, address=at, length=M, advice="dontneed")
    huge_memory.deferred_split_shrink(k, k.root_cgroup, 0)
    call(k, "exit", d)
    call(k, "put", path=thp + "enabled", data=b"never")


def shared_huge_pages(k: Kernel) -> None:
    """Huge pages of shared memory: made, mapped, split, punched, swapped in small pages, collapsed."""
    setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
    call(k, "put", path=setting, data=b"always")
    d = call(k, "spawn", comm="d")["pid"]
    at = call(k, "mmap", d, length=4 * M, prot="rw", flags=["shared", "anonymous"])["address"]
    call(k, "touch", d, address=at, length=4 * M, access="write")
    call(k, "madvise", d, address=at + 3 * M, length=512 * K, advice="remove")
    part = call(k, "mmap", d, length=M, prot="rw", flags=["shared", "anonymous"])["address"]
    call(k, "touch", d, address=part, length=M, access="write")
    shmem_huge.shmem_unused_huge_scan(k, 0, 0)
    call(k, "madvise", d, address=at, length=2 * M, advice="pageout")
    e = call(k, "fork", d)["pid"]
    call(k, "madvise", d, address=at, length=2 * M, advice="collapse")
    call(k, "touch", e, address=at, length=M, access="read")
    call(k, "munmap", e, address=at + M, length=M)
    call(k, "exit", e)
    call(k, "mprotect", d, address=at, length=M, prot="r")
    call(k, "mprotect", d, address=at, length=M, prot="rw")
    call(k, "touch", d, address=at, length=M, access="read")
    call(k, "madvise", d, address=at, length=2 * M, advice="collapse")
    call(k, "exit", d)
    call(k, "put", path=setting, data=b"never")


def files(k: Kernel, a: int) -> None:
    """The page cache."""
    call(k, "create_file", path="/data/f", size=2 * M)
    call(k, "read", a, path="/data/f", offset=0, length=M)
    call(k, "write", a, path="/data/f", offset=0, length=M)
    shared = call(k, "mmap", a, length=M, prot="rw", flags=["shared"], file="/data/f", offset=0)["address"]
    call(k, "touch", a, address=shared, length=M, access="write")
    call(k, "msync", a, address=shared, length=M)
    call(k, "madvise", a, address=shared, length=M, advice="willneed")
    call(k, "mincore", a, address=shared, length=M)
    call(k, "munmap", a, address=shared, length=M)
    call(k, "fsync", a, path="/data/f")
    call(k, "fadvise", a, path="/data/f", advice="dontneed")
    anon = call(k, "mmap", a, length=M, prot="rw", flags=["shared", "anonymous"])["address"]
    call(k, "touch", a, address=anon, length=M, access="write")
    for way in ("mincore", "willneed", "remove"):
        call(k, "mincore" if way == "mincore" else "madvise", a, address=anon, length=M, **({} if way == "mincore" else {"advice": way}))
    call(k, "put", path="/proc/sys/vm/drop_caches", data=b"1")
    call(k, "rmdir", path="/data/f")


def mappings(k: Kernel, a: int, heap: int) -> None:
    """What changes mappings."""
    call(k, "mprotect", a, address=heap, length=64 * K, prot="r")
    call(k, "mprotect", a, address=heap, length=64 * K, prot="rw")
    call(k, "mlock", a, address=heap, length=64 * K)
    call(k, "munlock", a, address=heap, length=64 * K)
    for advice in ("free", "cold", "pageout", "dontneed", "populate_write"):
        call(k, "madvise", a, address=heap + M, length=64 * K, advice=advice)
    for kind in b"14":
        call(k, "put", path=f"/proc/{a}/clear_refs", data=bytes([kind]))
    call(k, "brk", a, increment=M)
    moved = call(k, "mmap", a, length=64 * K, prot="rw", flags=[*PRIVATE, "populate"])["address"]
    call(k, "mremap", a, address=moved, old_length=64 * K, new_length=2 * M, may_move=True)
    call(k, "setrlimit", a, resource="memlock", limit=M)


def nodes() -> None:
    """Two nodes: pages that follow their program, and pages that are told to; a GiB is freed of what is in its way."""
    k = Kernel.boot(Machine.from_dict({"memory": ["64M", "64M"], "cpus": 2}))
    for knob, value in (("scan_delay_ms", 20), ("scan_period_min_ms", 20), ("scan_size_mb", 16)):
        call(k, "put", path=f"/sys/kernel/debug/sched/numa_balancing/{knob}", data=str(value).encode())
    call(k, "put", path="/proc/sys/kernel/numa_balancing", data=b"1")
    a = call(k, "spawn", comm="a")["pid"]
    call(k, "sched_setaffinity", a, cpus=[0])
    heap = call(k, "mmap", a, length=M, prot="rw", flags=PRIVATE)["address"]
    call(k, "touch", a, address=heap, length=M, access="write")
    call(k, "sched_setaffinity", a, cpus=[1])
    call(k, "touch", a, address=heap, length=M, access="read", repeat=100_000)
    k.read("/sys/fs/cgroup/memory.numa_stat")
    call(k, "move_pages", a, address=heap, pages=[0, 1], nodes=[0, 0])
    call(k, "move_pages", a, address=heap, pages=[0, 1])
    call(k, "mbind", a, address=heap, length=M, mode="bind", nodes=[0], flags=["move"])
    k.verify()
    k = Kernel.boot(Machine.from_dict({"memory": "3G"}))
    a = call(k, "spawn", comm="a")["pid"]
    heap = call(k, "mmap", a, length=1500 * M, prot="rw", flags=PRIVATE)["address"]
    call(k, "touch", a, address=heap, length=1500 * M, access="write")
    call(k, "munmap", a, address=heap, length=1400 * M)
    call(k, "put", path="/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", data=b"1")


def samepages(k: Kernel) -> None:
    """KSM: two pages merged, one written, the rest copied back."""
    d = call(k, "spawn", comm="d")["pid"]
    heap = call(k, "mmap", d, length=64 * K, prot="rw", flags=PRIVATE)["address"]
    call(k, "touch", d, address=heap, length=64 * K, access="write", fill=1)
    call(k, "madvise", d, address=heap, length=64 * K, advice="mergeable")
    call(k, "put", path="/sys/kernel/mm/ksm/run", data=b"1")
    k.advance(10**8)
    k.verify()
    k.view("explain_ksm", pid=d)
    k.view("tlb_reach", pid=d)
    call(k, "touch", d, address=heap, length=8 * K, access="write", fill=2)
    call(k, "put", path="/sys/kernel/mm/ksm/run", data=b"2")
    call(k, "exit", d)


def huge(k: Kernel, a: int) -> None:
    """A pool of huge pages."""
    call(k, "put", path="/proc/sys/vm/nr_hugepages", data=b"2")
    address = call(k, "mmap", a, length=4 * M, prot="rw", flags=[*PRIVATE, "hugetlb"])["address"]
    call(k, "touch", a, address=address, length=4 * M, access="write")
    call(k, "munmap", a, address=address, length=4 * M)
    call(k, "put", path="/proc/sys/vm/nr_hugepages", data=b"0")
    call(k, "put", path="/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", data=b"1")


def fragments(k: Kernel) -> None:
    """Every second frame of some MiB is free: huge pages have to be compacted for."""
    e = call(k, "spawn", comm="e")["pid"]
    heap = call(k, "mmap", e, length=12 * M, prot="rw", flags=PRIVATE)["address"]
    call(k, "touch", e, address=heap, length=12 * M, access="write")
    child = call(k, "fork", e)["pid"]
    call(k, "touch", e, address=heap, length=12 * M, access="write", stride=2)
    call(k, "exit", child)
    call(k, "put", path="/proc/sys/vm/nr_hugepages", data=b"40")
    call(k, "put", path="/proc/sys/vm/nr_hugepages", data=b"0")
    call(k, "put", path="/proc/sys/vm/compact_memory", data=b"1")
    call(k, "exit", e)


def pressure(k: Kernel, name: str = "x") -> None:
    """A limit that reclaims, then kills."""
    b = call(k, "spawn", comm="b")["pid"]
    call(k, "mkdir", path=f"/sys/fs/cgroup/{name}")
    call(k, "put", path=f"/sys/fs/cgroup/{name}/memory.max", data=b"2M")
    call(k, "put", path=f"/sys/fs/cgroup/{name}/cgroup.procs", data=str(b).encode())
    call(k, "create_file", path="/data/g", size=4 * M)
    call(k, "read", b, path="/data/g", offset=0, length=4 * M)
    heap = call(k, "mmap", b, length=8 * M, prot="rw", flags=PRIVATE)["address"]
    call(k, "touch", b, address=heap, length=8 * M, access="write")
    call(k, "rmdir", path="/data/g")
    c = call(k, "spawn", comm="c")["pid"]
    size = int(k.s.zones["free"].sum()) * 4096 + 16 * M
    heap = call(k, "mmap", c, length=size, prot="rw", flags=[*PRIVATE, "noreserve"])["address"]
    call(k, "touch", c, address=heap, length=size, access="write")
    call(k, "touch", c, address=heap, length=8 * M, access="read")
    for advice in ("pageout", "willneed"):
        call(k, "madvise", c, address=heap, length=M, advice=advice)
    call(k, "swapon", c, path="/dev/vdz", size=8 * M, kind="ssd")
    call(k, "fork", c)
    call(k, "exit", c)


def generations(k: Kernel, a: int, heap: int) -> None:
    """The multi-gen LRU, switched on and off."""
    call(k, "put", path="/sys/kernel/mm/lru_gen/enabled", data=b"y")
    k.read("/sys/kernel/debug/lru_gen_full")
    call(k, "touch", a, address=heap, length=4 * M, access="write")
    call(k, "put", path="/sys/kernel/debug/lru_gen", data=b"+ 2 0 3 1 1;+ 2 0 4 1 1;- 2 0 2 60 64")
    pressure(k, "y")
    k.verify()
    call(k, "put", path="/sys/kernel/mm/lru_gen/enabled", data=b"n")


def policies(k: Kernel) -> None:
    """The classroom's policies in a session, a client's, and all of them on a trace."""
    for policy in ("fifo", "client"):
        call(k, "reclaim_policy", policy=policy)
        pressure(k, policy)
    call(k, "reclaim_policy", policy="classic")
    trace = generate_trace("zipf", 300, 3000)
    compare_policies(trace, list(REPLAY_POLICIES), [40, 80])


READS = (
    "/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo", "/proc/buddyinfo", "/proc/pagetypeinfo", "/proc/{pid}/smaps", "/proc/{pid}/smaps_rollup",
    "/proc/{pid}/numa_maps", "/proc/{pid}/status", "/sys/fs/cgroup/w/memory.stat", "/sys/fs/cgroup/w/memory.numa_stat",
)  # fmt: skip


def call(k: Kernel, op: str, pid: int | None = None, **args: Any) -> dict[str, Any]:
    """One operation; its result, empty when it has none."""
    progress(op)
    return k.call(op, pid, **args).result or {}


def progress(what: str) -> None:
    """The line that shows where we are."""
    done, total = len(compiled()), len(loops())
    if sys.stderr.isatty():
        print(f"\rcompiling page loops: {done}/{total}  {what:<24}", end="", file=sys.stderr, flush=True)


def loops() -> dict[str, Any]:
    """Every entry point of compiled code, by name."""
    found = {}
    for module in pkgutil.walk_packages(core.__path__, "core."):
        if module.name in sys.modules:
            for name, value in vars(sys.modules[module.name]).items():
                if hasattr(value, "py_func") and value.__module__ == module.name and not value.targetoptions.get("no_cpython_wrapper"):
                    found[f"{module.name}.{name}"] = value
    return found


def compiled() -> set[str]:
    """Those that have been used."""
    return {name for name, loop in loops().items() if loop.signatures}


def described(k: Kernel) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Loops whose annotations, or the names of their arrays, say all that they take: name, loop, the types of its arguments."""
    beside = thrash.Stretch(k, k.tasks[1]).beside
    kinds = {"State": typeof(k.s), "Rmap": typeof(rmap_walk.tables(k)), "Beside": typeof(beside), "int": int64, "bool": boolean}
    named = {"perm": typeof(NO_PERM)}
    for name, loop in loops().items():
        parameters = inspect.signature(loop.py_func).parameters.values()
        takes = tuple(kinds.get(parameter.annotation) or named.get(parameter.name) for parameter in parameters)
        if None not in takes:
            yield name, loop, takes


def compile_described(k: Kernel, backwards: bool = False) -> None:
    """Compile them, or load what is on disk."""
    order = list(described(k))
    for name, loop, takes in reversed(order) if backwards else order:
        progress(name.removeprefix("core."))
        loop.compile(takes)


def boot() -> Kernel:
    """The small machine; every module is imported, so that every loop is known."""
    for module in pkgutil.walk_packages(core.__path__, "core."):
        importlib.import_module(module.name)
    return Kernel.boot(Machine.from_dict({"memory": "96M", "swap": "64M"}))


def main(arguments: list[str]) -> int:
    """Compile everything; 0 if nothing was left out."""
    started = time.monotonic()
    if arguments == ["--from-the-end"]:
        compile_described(boot(), backwards=True)
        return 0
    alone = len(os.sched_getaffinity(0)) == 1
    second = None if alone else subprocess.Popen([sys.executable, "-m", "core.warm", "--from-the-end"], stderr=subprocess.DEVNULL)
    k = boot()
    story(k)
    nodes()
    compile_described(k)
    if second:
        second.wait()
    left = sorted(set(loops()) - compiled())
    print(f"\rcompiled {len(compiled())} page loops in {time.monotonic() - started:.0f} s into {cache_dir()}", file=sys.stderr)
    if left:
        print(f"compiled when first called: {', '.join(name.removeprefix('core.') for name in left)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
