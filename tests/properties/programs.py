"""Random programs: a step is the name of an operation and four integers, read against whatever the machine is at that moment.

So a program is plain data: it can be drawn, shortened, stored, and means something on any machine. `a` picks the process,
`b` a mapping or file, `c` a place, `d` a size or a variant, each modulo what there is. Nothing is chosen so that it
succeeds: ranges reach over the ends of mappings, limits are too small, files are truncated under their mappings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core import Kernel, Machine, Result

PAGE = 4096
MAPPED = 0x700000000  # page number: what lies above was mapped by a call, or is the stack
PAGES = (1, 2, 3, 7, 16, 64, 255, 511, 512, 513, 1500, 4000)
PROTS = ("rw", "r", "rwx", "none", "w", "rx")
MMAP_FLAGS = (
    ["private", "anonymous"], ["shared", "anonymous"], ["private", "anonymous", "populate"], ["private", "anonymous", "noreserve"],
    ["private", "anonymous", "hugetlb"], ["shared", "anonymous", "hugetlb"], ["private", "anonymous", "hugetlb", "noreserve"],
    ["private", "anonymous", "locked"], ["shared", "anonymous", "populate"], ["private", "anonymous", "fixed"], ["private", "anonymous", "growsdown"],
)  # fmt: skip
FILE_FLAGS = (["private"], ["shared"], ["private", "populate"], ["shared", "populate"], ["shared", "locked"])
ADVICE = ("dontneed", "free", "willneed", "random", "sequential", "normal", "dontfork", "dofork", "wipeonfork", "keeponfork", "cold", "pageout",
          "populate_read", "populate_write", "mergeable", "unmergeable",
          "hugepage", "nohugepage", "dontneed_locked", "remove", "collapse")  # fmt: skip
ORDERS = ("sequential", "reverse", "random", "zipf")
FILES = ("/data/a", "/data/b", "/data/c", "/dev/hugepages/h")
GROUPS = ("/g", "/g/x", "/g/y", "/h")
LIMITS = (b"max", b"0", b"100K", b"1M", b"3M", b"8M")
SYSCTL = (("vm/overcommit_memory", b"0"), ("vm/overcommit_memory", b"1"), ("vm/overcommit_memory", b"2"), ("vm/drop_caches", b"3"),
          ("vm/overcommit_ratio", b"90"), ("vm/max_map_count", b"40"), ("vm/max_map_count", b"65530"), ("vm/oom_kill_allocating_task", b"1"),
          ("vm/oom_kill_allocating_task", b"0"), ("vm/swappiness", b"10"),
          ("vm/nr_hugepages", b"3"), ("vm/nr_hugepages", b"1"), ("vm/nr_overcommit_hugepages", b"2"))  # fmt: skip

KSM = (("run", b"1"), ("pages_to_scan", b"500"), ("run", b"1"), ("run", b"2"), ("max_page_sharing", b"3"), ("use_zero_pages", b"1"), ("run", b"0"))

Step = tuple[str, int, int, int, int]


def small_machine(memory: str = "64M", **more: Any) -> Kernel:
    """A machine that is soon full."""
    return Kernel.boot(Machine.from_dict({"memory": memory, **more}))


class Program:
    """Runs steps on a kernel and remembers what happened, so that two runs can be compared."""

    def __init__(self, k: Kernel | None = None) -> None:
        fresh = k is None
        self.k = k or small_machine()
        self.trace: list[tuple[Any, ...]] = []
        if fresh:
            self.prepare()

    def prepare(self) -> None:
        """Something to begin with: two files, a cgroup with a limited child."""
        for path in FILES[:2]:
            self.call("create_file", path=path, size=300 * PAGE)
        self.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
        for group in GROUPS[:2]:
            self.call("mkdir", path=f"/sys/fs/cgroup{group}")
        self.call("put", path="/sys/fs/cgroup/g/memory.max", data=b"8M")

    def step(self, name: str, a: int, b: int, c: int, d: int) -> None:
        """One operation; a machine that panicked takes no more."""
        if self.k.panicked is None:
            OPS[name](self, a, b, c, d)

    def call(self, op: str, pid: int | None = None, **args: Any) -> Result:
        answer = self.k.call(op, pid, **args)
        self.trace.append((op, pid, answer.result, answer.errno, answer.signal, answer.minor, answer.major, tuple(answer.killed), answer.elapsed_ns))
        return answer

    def pid(self, a: int) -> int:
        """A live process; one is made when there is none."""
        pids = [task.pid for task in self.k.tasks.values() if task.pid != 1 and task.mm is not None]
        if not pids:
            made = self.call("spawn", comm="first", catch_signals=bool(a & 1))
            return int(made.result["pid"]) if made.result else 0
        return pids[a % len(pids)]

    def range(self, pid: int, b: int, c: int, d: int) -> dict[str, int]:
        """A range that begins in some mapping and may end in the next, or nowhere."""
        mm = self.k.tasks[pid].mm
        assert mm is not None
        vmas = [vma for vma in mm.vmas if not vma.special]
        mapped = [vma for vma in vmas if vma.start >= MAPPED]
        vmas = mapped if mapped and b % 4 else vmas
        if not vmas:
            return {"address": 0x10000, "length": PAGE}
        vma = vmas[-1 - b % len(vmas)] if b & 1 else vmas[b % len(vmas)]
        first = vma.start + c % vma.pages
        return {"address": first * PAGE, "length": PAGE * (1 + d % (vma.end - first + 2))}


def spawn(p: Program, a: int, b: int, c: int, d: int) -> None:
    groups = [cg.path for cg in p.k.cgroups.values() if not cg.dying]
    p.call("spawn", comm=f"p{a % 10}", cgroup=groups[b % len(groups)], oom_score_adj=(0, 0, 300, -500, -1000)[c % 5], catch_signals=bool(d & 1))


def on_process(op: str, **fixed: Any) -> Callable[[Program, int, int, int, int], None]:
    def run(p: Program, a: int, b: int, c: int, d: int) -> None:
        if pid := p.pid(a):
            p.call(op, pid, **fixed)
    return run


def on_range(op: str, **choices: tuple[Any, ...]) -> Callable[[Program, int, int, int, int], None]:
    """A call on a range, with further arguments chosen by `a` beyond the process."""
    def run(p: Program, a: int, b: int, c: int, d: int) -> None:
        if pid := p.pid(a):
            more = {name: values[(a // 7 + c) % len(values)] for name, values in choices.items()}
            p.call(op, pid, **p.range(pid, b, c, d), **more)
    return run


def mmap(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        flags = MMAP_FLAGS[b % len(MMAP_FLAGS)]
        where = p.range(pid, b, c, d)["address"] if "fixed" in flags else 0
        p.call("mmap", pid, length=PAGES[c % len(PAGES)] * PAGE - d % 2, prot=PROTS[d % 2 if d % 5 else d % len(PROTS)], flags=flags, address=where)


def mmap_file(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        p.call("mmap", pid, length=PAGES[c % len(PAGES)] * PAGE, prot=PROTS[d % len(PROTS)], flags=FILE_FLAGS[b % len(FILE_FLAGS)],
               file=FILES[c % len(FILES)], offset=(d % 20) * PAGE)


def touch(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        more: dict[str, Any] = {"access": ("write", "read", "write", "exec")[a % 4], "order": ORDERS[(a // 3 + b) % len(ORDERS)]}
        if d % 3 == 0:
            more["stride"] = 1 + c % 5
        p.call("touch", pid, **p.range(pid, b, c, d * 7), **more, seed=c)


def mremap(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        where = p.range(pid, b, c, d)
        p.call("mremap", pid, address=where["address"], old_length=where["length"], new_length=PAGES[d % len(PAGES)] * PAGE, may_move=bool(a & 2))


def kill(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        p.call("kill", pid, signal=("SIGKILL", "SIGSEGV", "SIGSTOP", "SIGCONT", "SIGCHLD", "SIGBUS")[b % 6])


def brk(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        p.call("brk", pid, increment=(c % 900 - 300) * 2048)


def rlimit(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        p.call("setrlimit", pid, resource=("as", "data", "stack", "memlock")[b % 4], limit=(None, 1 << 20, 8 << 20, 64 << 20)[c % 4])


def file_call(p: Program, a: int, b: int, c: int, d: int) -> None:
    pid = p.pid(a)
    if not pid:
        return
    path, offset, length = FILES[b % len(FILES)], (c % 700) * 1500, (1 + d % 600) * 3000
    which = ("create_file", "read", "write", "read", "fsync", "fadvise", "truncate", "rmdir", "fallocate")[a // 3 % 9]
    if path == FILES[-1]:
        offset, length = (c % 5) << 21, (d % 5) << 21
    if which == "create_file":
        p.call("create_file", path=path, size=length)
    elif which == "rmdir":
        p.call("rmdir", path=path)
    elif which in ("read", "write"):
        p.call(which, pid, path=path, offset=offset, length=length)
    elif which == "fallocate":
        p.call(which, pid, path=path, offset=offset, length=length, flags=([], ["keep_size"], ["keep_size", "punch_hole"])[a % 3])
    elif which == "truncate":
        p.call("truncate", pid, path=path, length=offset)
    else:
        p.call(which, pid, path=path, **({"advice": ("dontneed", "willneed", "random")[c % 3]} if which == "fadvise" else {}))


def group_call(p: Program, a: int, b: int, c: int, d: int) -> None:
    group = f"/sys/fs/cgroup{GROUPS[b % len(GROUPS)]}"
    which = a % 8
    if which == 0:
        p.call("mkdir", path=group)
    elif which == 1:
        p.call("rmdir", path=group)
    elif which == 2:
        parent = ("/sys/fs/cgroup", f"/sys/fs/cgroup{GROUPS[0]}")[c % 2]
        p.call("put", path=f"{parent}/cgroup.subtree_control", data=(b"+memory", b"+hugetlb", b"-hugetlb", b"-memory")[d % 4])
    elif which == 3:
        p.call("put", path=f"{group}/memory.max", data=LIMITS[c % len(LIMITS)])
    elif which == 4:
        p.call("put", path=f"{group}/memory.high", data=LIMITS[c % len(LIMITS)])
    elif which == 5:
        p.call("put", path=f"{group}/memory.oom.group", data=(b"1", b"0")[c % 2])
    elif which == 6:
        p.call("put", path=f"{group}/hugetlb.2MB.{('max', 'rsvd.max')[c % 2]}", data=(b"max", b"0", b"4M")[d % 3])
    else:
        p.call("put", path=f"{group}/cgroup.procs", data=str(p.pid(d)).encode())


def sysctl(p: Program, a: int, b: int, c: int, d: int) -> None:
    name, value = SYSCTL[b % len(SYSCTL)]
    p.call("put", path=f"/proc/sys/{name}", data=value)


def adj(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        p.call("put", path=f"/proc/{pid}/oom_score_adj", data=(b"0", b"500", b"-200", b"1000")[c % 4])


def clear_refs(p: Program, a: int, b: int, c: int, d: int) -> None:
    if pid := p.pid(a):
        p.call("put", path=f"/proc/{pid}/clear_refs", data=(b"1", b"2", b"3", b"4", b"5")[c % 5])


def ksm(p: Program, a: int, b: int, c: int, d: int) -> None:
    """A setting of ksmd's."""
    name, value = KSM[b % len(KSM)]
    p.call("put", path="/sys/kernel/mm/ksm/" + name, data=value)


def advance(p: Program, a: int, b: int, c: int, d: int) -> None:
    p.call("advance", duration_ns=(1 + c % 9) * 500_000_000)


OPS: dict[str, Callable[[Program, int, int, int, int], None]] = {
    "spawn": spawn,
    "fork": on_process("fork"),
    "exec": on_process("exec", path="/bin/other"),
    "exit": on_process("exit", status=3),
    "wait": on_process("wait"),
    "kill": kill,
    "mmap": mmap,
    "mmap_file": mmap_file,
    "touch": touch,
    "touch again": touch,
    "touch more": touch,
    "touch much": touch,
    "mmap more": mmap,
    "munmap": on_range("munmap"),
    "mprotect": on_range("mprotect", prot=PROTS),
    "mremap": mremap,
    "madvise": on_range("madvise", advice=ADVICE),
    "mlock": on_range("mlock", onfault=(False, True)),
    "munlock": on_range("munlock"),
    "mlockall": on_process("mlockall", flags=("current", "future")),
    "munlockall": on_process("munlockall"),
    "msync": on_range("msync"),
    "mincore": on_range("mincore"),
    "brk": brk,
    "rlimit": rlimit,
    "file": file_call,
    "file again": file_call,
    "group": group_call,
    "sysctl": sysctl,
    "ksm": ksm,
    "adj": adj,
    "clear_refs": clear_refs,
    "advance": advance,
}
NAMES = tuple(OPS)
