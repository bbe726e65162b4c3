"""A program in a process: where it is, what it has mapped, and how it goes on (see `language.py` for what a program is).

`parse` makes plain values of what a client sent, `Program` is one that runs. A program makes its system calls through the same handlers
as a client does, as its process; `run` lets it go on until its slice is over, it sleeps, or its process ends. A step that is not done in
one slice goes on in the next from where it was.

A call that the kernel refuses ends the process with status 1, unless the step says `"on_error": "continue"`; SIGSEGV and SIGBUS kill it
unless the process catches signals, then the step is given up. After its last step a program exits (`at_end: "stay"`: the process stays).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from core.events import ProgramStep
from core.mm import filemap
from core.mm.readahead import FileRa
from core.programs import patterns
from core.programs.language import HEAP, ON_ERROR, STEPS, Field, compile_steps, parse_field, parse_steps, shown, substitute
from core.programs.ready import READY
from core.sched import fair
from core.sched import task as sched

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

PAGE = 4096
STEP_WORK = 16  # accesses that a step counts as
PIECE = 4096  # accesses between two looks at the clock
READ_CHUNK = 64 << 10
WRITE_CHUNK = 256 << 10
_MEMBERS = ("name", "parameters", "steps", "seed", "at_end")


# ---------------------------------------------------------------- what a client may send


def parse(given: object) -> dict[str, Any] | str:
    """A program in plain values: a list of steps, an object, or the name of a ready-made one; the path of an executable stays one.

    ValueError in plain words.
    """
    if isinstance(given, list):
        given = {"steps": given}
    elif isinstance(given, str):
        if given.startswith("/"):
            return given
        given = {"name": given}
    if not isinstance(given, Mapping):
        raise ValueError(f"program must be a list of steps, an object with steps or name, one of {', '.join(READY)}, or a path, not {shown(given)}")
    if unknown := [str(name) for name in given if name not in _MEMBERS]:
        raise ValueError(f"program has no {unknown[0]!r}; it takes {', '.join(_MEMBERS)}")
    out: dict[str, Any] = {}
    if "steps" in given:
        if "name" in given or "parameters" in given:
            raise ValueError("program: either steps, or the name of a ready-made one with its parameters")
        out["steps"] = parse_steps(given["steps"])
    else:
        out |= _parse_ready(given.get("name"), given.get("parameters", {}))
    seed, at_end = given.get("seed", 0), given.get("at_end", "exit")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 62:
        raise ValueError(f"program.seed must be a whole number from 0 to 2^62-1, not {shown(seed)}")
    if at_end not in ("exit", "stay"):
        raise ValueError(f"program.at_end must be exit or stay, not {shown(at_end)}")
    return out | {"seed": seed, "at_end": at_end}


def _parse_ready(name: object, given: object) -> dict[str, Any]:
    if not isinstance(name, str) or name not in READY:
        raise ValueError(f"program.name must be one of {', '.join(READY)}, not {shown(name)}")
    row = READY[name]
    if not isinstance(given, Mapping):
        raise ValueError(f"program.parameters must be an object, not {shown(given)}")
    if unknown := [str(one) for one in given if one not in row.parameters]:
        raise ValueError(f"program.parameters: {name} has no {unknown[0]!r}; it takes {', '.join(row.parameters)}")
    values = {one: parse_field(spec.kind, spec, given.get(one, spec.default), f"program.parameters.{one}") for one, spec in row.parameters.items()}
    return {"name": name, "parameters": values}


def catalogue() -> dict[str, Any]:
    """What a program may be: the ready-made ones and the steps of the language, with their documentation."""
    ready = [
        {"name": row.name, "doc": row.doc, "parameters": {name: _documented(spec) for name, spec in row.parameters.items()}, "steps": row.steps}
        for row in READY.values()
    ]
    steps = [
        {"op": row.name, "doc": row.doc, "fields": {name: _documented(spec) for name, spec in {**row.fields, "on_error": ON_ERROR}.items()}}
        for row in STEPS.values()
    ]
    return {"items": ready, "steps": steps}


def _documented(spec: Field) -> dict[str, Any]:
    """A field as JSON."""
    out: dict[str, Any] = {"kind": spec.kind, "doc": spec.doc}
    if spec.required:
        return out | {"required": True} | ({"choices": list(spec.choices)} if spec.choices else {})
    default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
    return out | {"default": default} | ({"choices": list(spec.choices)} if spec.choices else {})


# ---------------------------------------------------------------- one that runs


class Program:
    """Where a program is. `code` is flat (`compile_steps`); `pc` the step at hand, `done` how much of it is done."""

    __slots__ = ("name", "code", "pc", "done", "counters", "regions", "cursors", "seed", "drawn", "at_end", "steps", "files", "wake_at")

    def __init__(self, name: str, code: list[dict[str, Any]], seed: int, at_end: str) -> None:
        self.name = name
        self.code = code
        self.pc = self.done = 0
        self.counters: dict[int, int] = {}  # how often each loop still goes round
        self.regions: dict[str, list[int]] = {}  # name: address, length
        self.cursors: dict[str, int] = {}  # how far sequential steps came: by region, by file
        self.seed = seed
        self.drawn = 0  # draws so far
        self.at_end = at_end
        self.steps = 0  # begun so far
        self.files: dict[str, FileRa] = {}  # open files: their read-ahead
        self.wake_at = -1

    def fork(self, pid: int) -> Program:
        """The child's copy; its draws are its own, its open files share nothing."""
        twin = Program(self.name, self.code, self.seed ^ pid << 20, self.at_end)
        twin.pc, twin.counters, twin.steps = self.pc, dict(self.counters), self.steps
        twin.regions = {name: list(where) for name, where in self.regions.items()}
        twin.cursors = dict(self.cursors)
        return twin

    def draw_seed(self, count: int) -> int:
        """The seed of the next `count` draws."""
        seed = (self.seed << 24) + self.drawn & (1 << 63) - 1
        self.drawn += count
        return seed


def install(k: Kernel, task: Task, given: Mapping[str, Any] | None) -> None:
    """Give a process a program (parsed), or None: take it away. It starts at once."""
    if task.program is not None:
        fair.stop(k, task)
        say(k, task, "stop")
        task.program = None
        task.state = "sleeping" if task.state != "stopped" else task.state
        k.nr_programs -= 1
    if given is None:
        return
    name = given.get("name") or task.comm
    steps = given["steps"] if "steps" in given else parse_steps(substitute(READY[name].steps, given["parameters"]))
    task.program = Program(name, compile_steps(steps), given["seed"], given["at_end"])
    begin(k, task)


def begin(k: Kernel, task: Task) -> None:
    """A program is new in its process: it wants to run."""
    k.nr_programs += 1
    task.se = fair.SchedEntity()
    say(k, task, "start")
    if task.state != "stopped":
        fair.start(k, task)
        task.state = fair.state_of(task)


def say(k: Kernel, task: Task, kind: str, errno: str | None = None, op: str | None = None) -> None:
    """An event about a program."""
    p = task.program
    assert p is not None
    k.emit(ProgramStep(k.clock.now, kind, task.pid, p.name, p.pc, op, errno, task.cgroup.path))


def run(k: Kernel, task: Task, horizon: int) -> tuple[int, str]:
    """Go on until the slice is over, the program sleeps or the process ends: when it wakes (0: it did not choose to sleep), and as what.

    `horizon`: until when it may compute in one go.
    """
    p: Program = task.program
    p.wake_at = 0
    while task.program is p and not k.clock.over() and not p.wake_at and k.work_left > 0 and k.panicked is None and task.state != "stopped":
        if p.pc >= len(p.code):
            end(k, task, p)
            break
        step = p.code[p.pc]
        if p.done == 0:
            p.steps += 1
        k.work_left -= STEP_WORK
        before = p.pc
        errno = k.perform(task, partial(_go_on, k, task, p, step, horizon))
        if errno is not None and task.program is p:
            refused(k, task, p, before, errno)
    return p.wake_at, "sleeping"


def _go_on(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> None:
    """Some of a step; the program counter moves when it is done."""
    before = p.pc
    if DO[step["op"]](k, task, p, step, horizon) and task.program is p and p.pc == before:
        p.pc, p.done = before + 1, 0


def refused(k: Kernel, task: Task, p: Program, pc: int, errno: str) -> None:
    """The kernel did not do what a step asked for."""
    step = p.code[pc]
    say(k, task, "error", errno, step["op"])
    if errno.startswith("SIG") or step.get("on_error") == "continue":
        p.pc, p.done = pc + 1, 0
    else:
        k.perform(task, lambda: sched.do_exit(k, task, 1))


def end(k: Kernel, task: Task, p: Program) -> None:
    """After the last step."""
    if p.at_end == "stay":
        install(k, task, None)
    else:
        k.perform(task, lambda: sched.do_exit(k, task, 0))


# ---------------------------------------------------------------- the steps


def region(p: Program, step: Mapping[str, Any]) -> tuple[int, int]:
    """Address and length of the part of a region that a step means."""
    address, length = p.regions.get(step["region"], (0, 0))
    offset = min(step.get("offset", 0), max(length - PAGE, 0)) & ~(PAGE - 1)
    rest = max(length - offset, 0)
    return address + offset, min(step.get("length") or rest, rest) if rest else PAGE


def do_map(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """mmap; mapping a region again replaces what the name meant."""
    kind = list(step["flags"]) or ["private"]
    if not step["file"] and "anonymous" not in kind:
        kind.append("anonymous")
    if "shared" not in kind and "private" not in kind:
        kind.append("private")
    args = {"file": step["file"]} if step["file"] else {}
    answer = k.syscall("mmap", task, length=step["length"], prot=step["prot"], flags=kind, **args)
    p.regions[step["region"]] = [answer["address"], step["length"]]
    p.cursors.pop(step["region"], None)
    return True


def do_unmap(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """munmap."""
    address, length = p.regions.pop(step["region"], [0, PAGE])
    k.syscall("munmap", task, address=address, length=length)
    return True


def do_touch(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """Accesses in pieces that fit the slice, each with its work."""
    address, length = region(p, step)
    pages = max((length + PAGE - 1) // PAGE, 1)
    total = step["accesses"] or pages
    while p.done < total and not k.clock.over() and k.work_left > 0:
        count = min(total - p.done, PIECE, max(1, (k.clock.slice_end - k.clock.now) // max(step["work"], k.costs.fault)))
        touched = touch_piece(k, task, p, step, address, pages, count)
        p.done += touched
        k.work_left -= max(touched, 1)
        k.clock.run_user(touched * step["work"])
    if p.done < total:
        return False
    if step["order"] == "working-set":
        key = f"{step['region']} window"
        p.cursors[key] = (p.cursors.get(key, 0) + step["slide"] // PAGE) % pages
    return True


def touch_piece(k: Kernel, task: Task, p: Program, step: dict[str, Any], address: int, pages: int, count: int) -> int:
    """`count` accesses: how many were made before the slice was over."""
    mixed = step["write_percent"]
    if 0 <= mixed < 100 and count > 1:
        writes = (count * mixed + p.drawn % 100) // 100  # what is left of a per cent is now rounded up, now down
        done = one_kind(k, task, p, step, address, pages, count - writes, "read")
        return done if done < count - writes or not writes else done + one_kind(k, task, p, step, address, pages, writes, "write")
    if 0 <= mixed < 100:
        access = "write" if patterns.draw(p.draw_seed(1), 100) < mixed else "read"
    else:
        access = "write" if mixed == 100 else step["access"]
    return one_kind(k, task, p, step, address, pages, count, access)


def one_kind(k: Kernel, task: Task, p: Program, step: dict[str, Any], address: int, pages: int, count: int, access: str) -> int:
    """Accesses of one kind in the step's order."""
    if count <= 0:
        return 0
    order, name = step["order"], step["region"]
    if order == "sequential":
        at = p.cursors.get(name, 0) % pages
        count = min(count, pages - at)
        done = int(k.user("touch", task, address=address + at * PAGE, length=count * PAGE, access=access)["touched"])
        p.cursors[name] = (at + done) % pages
        return done
    wanted = chosen(p, step, order, pages, count)
    return int(k.user("touch", task, address=address, pages=wanted, access=access)["touched"])


def chosen(p: Program, step: dict[str, Any], order: str, pages: int, count: int) -> patterns.Array:
    """The next pages of a random order."""
    if order == "hot-cold":
        return patterns.hot_cold(p.draw_seed(2 * count), count, pages, step["hot_percent"], step["hot_share"])
    draws = patterns.uniform(p.draw_seed(count), count)
    if order == "zipf":
        return patterns.zipf(draws, pages)
    if order == "random":
        return patterns.scaled(draws, pages)
    start = p.cursors.get(f"{step['region']} window", 0)
    return (start + patterns.scaled(draws, min(max(step["window"] // PAGE, 1), pages))) % pages


def do_grow(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """brk, then a write to each new page."""
    pages = (step["length"] + PAGE - 1) // PAGE
    if p.done == 0:
        new_break = k.syscall("brk", task, increment=pages * PAGE)["address"]
        heap = p.regions.setdefault(HEAP, [(new_break - pages * PAGE + PAGE - 1) & ~(PAGE - 1), 0])
        heap[1] += pages * PAGE
        p.done = 1  # brk is done; then one more for each page
    start, length = p.regions[HEAP]
    first = start + length - pages * PAGE
    while p.done <= pages and not k.clock.over() and k.work_left > 0:
        count = min(pages + 1 - p.done, PIECE, max(1, (k.clock.slice_end - k.clock.now) // k.costs.fault))
        touched = int(k.user("touch", task, address=first + (p.done - 1) * PAGE, length=count * PAGE, access="write")["touched"])
        p.done += touched
        k.work_left -= max(touched, 1)
    return p.done > pages


def do_advise(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """madvise."""
    address, length = region(p, step)
    k.work_left -= length // PAGE
    k.syscall("madvise", task, address=address, length=length, advice=step["advice"])
    return True


def do_file(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """A fixture: the file is there."""
    if step["path"] not in k.files:
        k.machine_call("create_file", path=step["path"], size=step["size"])
    return True


def place(k: Kernel, p: Program, step: dict[str, Any], size: int) -> int:
    """Where in a file a read or write begins; kept while it is not done."""
    length, key = step["length"], step["path"]
    if p.done == 0 and step["order"] == "random":
        p.cursors[key] = patterns.draw(p.draw_seed(1), max(size // length, 1)) * length
    at = p.cursors.get(key, 0)
    return at if at < size else 0


def do_read(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """read, request by request, from an open file with read-ahead of its own."""
    while p.done < step["length"] and not k.clock.over() and k.work_left > 0:
        inode = k.file(step["path"])
        at = place(k, p, step, inode.size)
        if inode.size == 0:
            return True
        length = min(READ_CHUNK, step["length"] - p.done, inode.size - at)
        k.clock.spend(k.costs.syscall)
        k.work_left -= READ_CHUNK // PAGE
        filemap.file_read(k, task, inode, at, length, p.files.setdefault(step["path"], FileRa()))
        p.cursors[step["path"]] = at + length
        p.done += length
    return bool(p.done >= step["length"])


def do_write(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """write, piece by piece."""
    while p.done < step["length"] and not k.clock.over() and k.work_left > 0:
        at = place(k, p, step, step["size"])
        length = min(WRITE_CHUNK, step["length"] - p.done, step["size"] - at)
        k.work_left -= WRITE_CHUNK // PAGE
        k.syscall("write", task, path=step["path"], offset=at, length=length)
        p.cursors[step["path"]] = at + length
        p.done += length
    return bool(p.done >= step["length"])


def do_fsync(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """fsync."""
    k.syscall("fsync", task, path=step["path"])
    return True


def do_compute(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """Time of the processor's."""
    ns = min(step["time"] - p.done, max(horizon - k.clock.now, 0))
    k.clock.run_user(ns)
    p.done += ns
    return bool(p.done >= step["time"])


def do_sleep(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """nanosleep."""
    k.clock.spend(k.costs.syscall)
    p.wake_at = k.clock.now + max(step["time"], 1)
    return True


def do_think(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """nanosleep of a random length: the mean, more or less by the jitter."""
    jitter = step["jitter"] if step["jitter"] >= 0 else step["time"] // 2
    drawn = patterns.draw(p.draw_seed(1), 2 * jitter + 1) - jitter if jitter else 0
    k.clock.spend(k.costs.syscall)
    p.wake_at = k.clock.now + max(step["time"] + drawn, 1)
    return True


def do_repeat(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """A loop begins."""
    p.counters[step["slot"]] = step["times"]
    return True


def do_again(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """The end of a loop: back, or on."""
    left = p.counters[step["slot"]]
    if left == 1:
        return True
    p.counters[step["slot"]] = max(left - 1, 0)
    p.pc, p.done = step["to"], 0
    return False


def do_fork(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """fork: the child has the program, too, at its own steps."""
    pid = k.syscall("fork", task)["pid"]
    child = k.tasks[pid]
    assert child.program is not None
    child.program.pc, child.program.done = step["child"], 0
    p.pc, p.done = step["parent"], 0
    return False


def do_wait(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """wait for every child that is dead."""
    while any(k.tasks[pid].state == "zombie" for pid in task.children):
        k.syscall("wait", task)
    return True


def do_exit(k: Kernel, task: Task, p: Program, step: dict[str, Any], horizon: int) -> bool:
    """exit_group."""
    k.syscall("exit", task, status=step["status"])
    return False


DO = {
    "map": do_map, "unmap": do_unmap, "touch": do_touch, "grow": do_grow, "advise": do_advise, "file": do_file, "read": do_read, "write": do_write,
    "fsync": do_fsync, "compute": do_compute, "sleep": do_sleep, "think": do_think, "repeat": do_repeat, "again": do_again, "fork": do_fork,
    "wait": do_wait, "exit": do_exit,
}  # fmt: skip
