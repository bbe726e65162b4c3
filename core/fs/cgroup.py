"""/sys/fs/cgroup: cgroup v2's files, read and written as in Linux (kernel/cgroup/cgroup.c, mm/memcontrol.c).

    echo +memory > cgroup.subtree_control; mkdir app; echo 50M > app/memory.max; echo $PID > app/cgroup.procs

A cgroup has `memory.*` files only if its parent gives it the controller; the root has no limits. Sizes are written as bytes with K, M, G, ...
or "max", kept in pages (so 5000 reads back as 4096), and read as bytes. What a write sets off (reclaim, the OOM killer) is
`memcontrol`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from core.abi.signal import SIGNALS
from core.fs.node import FsError, Row, bad, page_counter_memparse, parse_flag, parse_int, show, tunable
from core.fs.proc import add_psi_trigger, has_psi
from core.mm import cpuset, memcontrol
from core.sched import psi, task

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup

Read = Callable[..., str | bytes] | None
Write = Callable[..., None] | None
Present = Callable[..., bool] | None
BASE = "/sys/fs/cgroup/<cgroup>/"
PAGE = 4096


# ---------------------------------------------------------------- who has which file

def below_root(k: Kernel, cg: Cgroup) -> bool:
    """Every cgroup but the root."""
    return cg.parent is not None


def has_memory(k: Kernel, cg: Cgroup) -> bool:
    """The parent gives the memory controller."""
    return cg.parent is not None and "memory" in cg.controllers


def has_swap(k: Kernel, cg: Cgroup) -> bool:
    """And swap is charged."""
    return k.machine.swapaccount and has_memory(k, cg)


def root_or_memory(k: Kernel, cg: Cgroup) -> bool:
    """The root, and every cgroup with the memory controller."""
    return cg.parent is None or has_memory(k, cg)


# ---------------------------------------------------------------- cgroup.*

def controllers(k: Kernel, cg: Cgroup) -> str:
    """What the cgroup has and may give to its children."""
    return _words(cg.controllers)


def subtree_control(k: Kernel, cg: Cgroup) -> str:
    """What it gives to its children."""
    return _words(tuple(name for name in memcontrol.CONTROLLERS if name in cg.subtree_control))


def _words(names: tuple[str, ...]) -> str:
    return " ".join(names) + "\n" if names else ""


def write_subtree_control(k: Kernel, cg: Cgroup, text: str) -> None:
    """+memory or -memory: ENOENT if the cgroup does not have it, EBUSY if it holds processes."""
    before = cpuset.below(k, cg)
    memcontrol.write_subtree_control(k, cg, text)
    cpuset.refresh(k, before)


def live_pids(k: Kernel, cg: Cgroup) -> list[int]:
    """Processes of the cgroup that still run; zombies stay in it but are not listed."""
    return [pid for pid in cg.pids if pid in k.tasks and k.tasks[pid].state not in ("zombie", "dead")]


def procs(k: Kernel, cg: Cgroup) -> str:
    """Process ids, one a line."""
    return "".join(f"{pid}\n" for pid in live_pids(k, cg))


def write_procs(k: Kernel, cg: Cgroup, text: str) -> None:
    """Move a process here; its charges stay where they are. ESRCH, EBUSY (a cgroup that gives controllers away)."""
    pid = parse_int(text, 0, (1 << 31) - 1, "cgroup.procs")
    if pid == 0:
        raise bad("0 means the writer itself, and the client is no process of the simulated machine: write a pid")
    moved = k.tasks.get(pid)
    before = [(moved, cpuset.owner(moved.cgroup), cpuset.effective(k, moved.cgroup))] if moved is not None else []
    memcontrol.attach(k, cg, pid)
    cpuset.refresh(k, before)


def kind(k: Kernel, cg: Cgroup) -> str:
    """Threaded cgroups are not simulated."""
    return "domain\n"


def write_kind(k: Kernel, cg: Cgroup, text: str) -> None:
    """Only "threaded" may be written; a process here has one thread."""
    if text.strip() != "threaded":
        raise bad("cgroup.type takes only \"threaded\"")
    raise FsError("EOPNOTSUPP", "threaded cgroups are not simulated: a process here has one thread")


def events(k: Kernel, cg: Cgroup) -> str:
    """populated: a live process here or below."""
    populated = any(live_pids(k, at) for at in memcontrol.subtree(k, cg))
    return f"populated {int(populated)}\nfrozen 0\n"


def stat(k: Kernel, cg: Cgroup) -> str:
    """Descendants, live and removed."""
    below = memcontrol.subtree(k, cg, dying=True)[1:]
    dying = sum(memcontrol.is_held(k, at) for at in below if at.dying)
    return f"nr_descendants {sum(not at.dying for at in below)}\nnr_dying_descendants {dying}\n"


def read_bound(name: str, k: Kernel, cg: Cgroup) -> str:
    """A number, or max."""
    value = getattr(cg, name)
    return "max\n" if value is None else show(value)


def write_bound(name: str, k: Kernel, cg: Cgroup, text: str) -> None:
    """cgroup.max.depth, cgroup.max.descendants: how far mkdir may go below here."""
    setattr(cg, name, None if text.strip() == "max" else parse_int(text, 0, (1 << 31) - 1, f"cgroup.{name.replace('_', '.')}"))


def kill(k: Kernel, cg: Cgroup, text: str) -> None:
    """SIGKILL to every process here and below (cgroup_kill_write)."""
    parse_int(text, 1, 1, "cgroup.kill")
    for at in memcontrol.subtree(k, cg):
        for pid in live_pids(k, at):
            task.kill(k, k.tasks[pid], SIGNALS["SIGKILL"])


def constant(text: str, k: Kernel, cg: Cgroup) -> str:
    """A file with one possible content."""
    return text


def refuse(why: str, k: Kernel, cg: Cgroup, text: str) -> None:
    """EOPNOTSUPP."""
    raise FsError("EOPNOTSUPP", why)


# ---------------------------------------------------------------- memory.*

def current(k: Kernel, cg: Cgroup) -> str:
    """Bytes charged, with what the CPUs hold in stock."""
    return show(memcontrol.current(k, cg))


def peak(k: Kernel, cg: Cgroup) -> str:
    """The highest memory.current."""
    return show(memcontrol.peak(k, cg))


def read_column(column: str, k: Kernel, cg: Cgroup) -> str:
    """memory.max, memory.high: from the page counter's row."""
    return tunable(int(k.s.memcgs[column][cg.id]))


def read_attribute(name: str, k: Kernel, cg: Cgroup) -> str:
    """memory.min, memory.low, memory.swap.max: from the cgroup."""
    return tunable(getattr(cg, name))


def write_attribute(name: str, k: Kernel, cg: Cgroup, text: str) -> None:
    """A limit that is looked up where it applies."""
    memcontrol.set_limit(k, cg, name, page_counter_memparse(text, "memory." + name.replace("_", ".")))


def write_max(k: Kernel, cg: Cgroup, text: str) -> None:
    """Reclaim, then kill, until usage fits; the write itself always succeeds."""
    memcontrol.set_max(k, cg, page_counter_memparse(text, "memory.max"))


def write_high(k: Kernel, cg: Cgroup, text: str) -> None:
    """Reclaim down to it; nobody is killed."""
    memcontrol.set_high(k, cg, page_counter_memparse(text, "memory.high"))


def swap_current(k: Kernel, cg: Cgroup) -> str:
    """Bytes of swap that the subtree pays for."""
    return show(memcontrol.swap_usage(k, cg) * 4096)


def swap_events(k: Kernel, cg: Cgroup) -> str:
    """high, max, fail, with those below."""
    return "".join(f"{key} {value}\n" for key, value in memcontrol.swap_events(k, cg).items())


def write_reclaim(k: Kernel, cg: Cgroup, text: str) -> None:
    """Reclaim that many bytes from the subtree: EAGAIN if it cannot be done, EINVAL for a bad number."""
    pages = page_counter_memparse(text, "memory.reclaim")
    memcontrol.reclaim_now(k, cg, pages)


def counts(name: str, k: Kernel, cg: Cgroup) -> str:
    """memory.events and its kin: one `key value` a line."""
    return "".join(f"{key} {value}\n" for key, value in getattr(cg, name).items())


def oom_group(k: Kernel, cg: Cgroup) -> str:
    """1: the OOM killer takes all of the cgroup or none."""
    return show(int(cg.oom_group))


def write_oom_group(k: Kernel, cg: Cgroup, text: str) -> None:
    """0 or 1."""
    cg.oom_group = bool(parse_flag(text, "memory.oom.group"))


def memory_stat(k: Kernel, cg: Cgroup) -> str:
    """memory.stat of the subtree."""
    return "".join(f"{key} {value}\n" for key, value in memcontrol.stat(k, cg).items())


def numa_stat(k: Kernel, cg: Cgroup) -> str:
    """memory.stat's memory items, by node."""
    lines = ((key, " ".join(f"N{node}={value}" for node, value in enumerate(values))) for key, values in memcontrol.numa_stat(k, cg).items())
    return "".join(f"{key} {values}\n" for key, values in lines)


def pressure(resource: int, k: Kernel, cg: Cgroup) -> str:
    """Stall information of the cgroup and those below."""
    return cg.psi.show(k.clock.now, resource, system=cg.parent is None)


PSI_NOTE = "a trigger reports by the event psi and stays as long as the cgroup"


def rows() -> tuple[Row, ...]:
    """The files of one cgroup, in Linux's order."""
    def row(name: str, mode: int, doc: str, read: Read = None, write: Write = None, note: str = "", present: Present = None, *, none: bool = False) -> Row:
        return Row(BASE + name, mode, doc, read, write, "none" if none else "partial" if note else "full", note, present=present)

    def limit(name: str, doc: str, attribute: str, note: str = "") -> Row:
        present = has_swap if ".swap." in name else has_memory
        return row(name, 0o644, doc, partial(read_attribute, attribute), partial(write_attribute, attribute), note, present)

    return (
        row("cgroup.controllers", 0o444, "controllers this cgroup has", controllers, note="cpuset, memory and hugetlb are the only controllers"),
        row("cgroup.subtree_control", 0o644, "controllers given to children: +memory, -memory, +cpuset, +hugetlb", subtree_control, write_subtree_control),
        row("cgroup.procs", 0o644, "processes; writing a pid moves it here", procs, write_procs),
        row("cgroup.threads", 0o644, "threads; each process has one", procs, write_procs, "a thread moves as its process"),
        row("cgroup.type", 0o644, "domain", kind, write_kind, "threaded cgroups are not simulated", below_root),
        row("cgroup.events", 0o444, "populated, frozen", events, note="frozen is always 0", present=below_root),
        row("cgroup.stat", 0o444, "descendants, live and dying", stat),
        row("cgroup.max.depth", 0o644, "levels allowed below", partial(read_bound, "max_depth"), partial(write_bound, "max_depth")),
        row("cgroup.max.descendants", 0o644, "cgroups allowed below", partial(read_bound, "max_descendants"),
            partial(write_bound, "max_descendants")),
        row("cgroup.freeze", 0o644, "stop all processes", partial(constant, "0\n"), partial(refuse, "the freezer is not simulated"),
            "not simulated", below_root, none=True),
        row("cgroup.kill", 0o200, "1 kills every process here and below", None, kill, present=below_root),
        row("memory.current", 0o444, "bytes charged to the cgroup and below", current, present=has_memory),
        row("memory.peak", 0o444, "highest memory.current", peak, present=has_memory),
        limit("memory.min", "bytes that are never reclaimed", "min"),
        limit("memory.low", "bytes that are reclaimed last", "low"),
        row("memory.high", 0o644, "bytes above which the cgroup is slowed down", partial(read_column, "high"), write_high,
            present=has_memory),
        row("memory.max", 0o644, "bytes above which the OOM killer is called", partial(read_column, "max"), write_max, present=has_memory),
        row("memory.events", 0o444, "low high max oom oom_kill oom_group_kill, with those below", partial(counts, "events"), present=has_memory),
        row("memory.events.local", 0o444, "the same, of this cgroup alone", partial(counts, "events_local"), present=has_memory),
        row("memory.stat", 0o444, "what the memory is used for, and what happened to it", memory_stat, present=root_or_memory),
        row("memory.numa_stat", 0o444, "what the memory is used for, by node", numa_stat,
            note="kernel stacks, slab and workingset on node 0", present=root_or_memory),
        row("memory.oom.group", 0o644, "kill all processes of the cgroup together", oom_group, write_oom_group, present=has_memory),
        row("memory.reclaim", 0o200, "bytes to reclaim now", None, write_reclaim, present=root_or_memory),
        row("memory.swap.current", 0o444, "bytes in swap", swap_current, present=has_swap),
        limit("memory.swap.high", "bytes of swap above which the cgroup is slowed down", "swap_high"),
        limit("memory.swap.max", "bytes of swap allowed", "swap_max"),
        row("memory.swap.events", 0o444, "high max fail", swap_events, present=has_swap),
        row("memory.zswap.current", 0o444, "bytes compressed in memory", partial(constant, "0\n"), note="there is no zswap", present=has_memory),
        row("memory.zswap.max", 0o644, "limit of it", partial(constant, "max\n"), partial(refuse, "there is no zswap"),
            "there is no zswap", has_memory, none=True),
        *(row(f"{name}.pressure", 0o644, "stall information; writing `some 150000 1000000` sets a trigger", partial(pressure, resource),
              partial(add_psi_trigger, resource), PSI_NOTE, has_psi)
          for name, resource in (("memory", psi.MEM), ("cpu", psi.CPU), ("io", psi.IO))),
    )  # fmt: skip
