"""The scenario language (`.scn`): a story of processes touching memory, one operation a line.

A scenario is what the conformance suite recorded on real Linux, and what `pagewalk run FILE.scn` plays. Capital words
name processes; regions of a process have names; sizes take K, M, G; `#` opens a comment.

    #! mem=512M swap=256M nodes=1 cpus=2 thp=never      the machine (swap=0: none; cmdline=a,b and numab=enable: boot parameters)
    #file f 32M                                         a file /data/f of that size

    spawn A                         A fork B                     A exit                 kill A
    A mmap R LEN PROT FLAGS [FILE OFF]                           PROT: rwx or n; FLAGS: private,shared,populate,
                                                                 noreserve,locked,hugetlb,align2m
    A touch R OFF LEN r|w [stride:N] [rev] [x:TIMES]             one access a page
    A fill R OFF LEN BYTE                                        every page gets one byte value
    A munmap|mlock|munlock|msync|mincore|pagemap R OFF LEN       A mprotect R OFF LEN PROT
    A mremap R NEWLEN               A brk BYTES                  A madvise R OFF LEN ADVICE
    A mbind R OFF LEN MODE HEXMASK [strict|move|move_all]        A mempolicy MODE [HEXMASK]
    A move_pages R OFF LEN NODE|query [all]                      A migrate_pages HEXMASK HEXMASK     (from, to)
    A cpu N[,N]                     A rlimit WHAT N
    A read|write FILE OFF LEN       A fsync FILE                 A fadvise FILE         (fadvise is DONTNEED)
    cg create /p   cg attach A /p   cg write /p FILE VALUE       cg rmdir /p
    set PATH VALUE   setproc A FILE VALUE   sleep SECONDS        snap LABEL

Two tables carry the language: `PROCESS_VERBS` (what a process does: which operation, which words follow) and
`MACHINE_VERBS` (everything else); `WORDS` says how each kind of word is read. The runner only keeps what a program
would keep in its own variables: the pid behind a name and where a region was mapped.
"""

from __future__ import annotations

import array
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.target import Answer, Operation, Refused, Target

PAGE_SIZE = 4096
SECOND_NS = 1_000_000_000
CGROUP_ROOT = "/sys/fs/cgroup"
SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": PAGE_SIZE}
DEFAULT_CONFIG = {"mem": "512M", "swap": "256M", "nodes": "1", "cpus": "2", "thp": "never"}


class ScenarioError(ValueError):
    """A line that is not the language: says which, and what would be right."""


# ---- words -----------------------------------------------------------------------------------------------------


def size(text: str) -> int:
    """Bytes of `"64K"`, `"0x1000"`, `"1.5M"`; the suffix P counts pages, as the recorder has it."""
    scale = SUFFIXES.get(text[-1:].upper())
    if scale and re.fullmatch(r"\d+(\.\d+)?", text[:-1]):
        return int(float(text[:-1]) * scale)
    try:
        return int(text, 0)
    except ValueError:
        raise ScenarioError(f"{text!r} is not a size; write bytes or K, M, G, for example 64K") from None


def prot(text: str) -> str:
    """`"rw"` of `"rw"`; a word without r, w or x is `"none"`."""
    return "".join(letter for letter in text if letter in "rwx") or "none"


def nodes(mask: str) -> list[int]:
    """Node numbers of a hexadecimal mask: `"3"` is `[0, 1]`."""
    bits = int(mask, 16)
    return [node for node in range(bits.bit_length()) if bits >> node & 1]


def access(text: str) -> str:
    """`read` or `write` of `r` or `w`."""
    kinds = {"r": "read", "w": "write"}
    if text[:1] not in kinds:
        raise ScenarioError(f"{text!r} is not an access; write r or w")
    return kinds[text[:1]]


WORDS: dict[str, Callable[[str], Any]] = {
    "access": access,
    "advice": str,
    "cpus": lambda text: [int(cpu) for cpu in text.split(",")],
    "fill": int,
    "flags": lambda text: [text],
    "increment": size,
    "length": size,
    "limit": size,
    "mode": str,
    "new_length": size,
    "new_nodes": nodes,
    "nodes": nodes,
    "old_nodes": nodes,
    "offset": size,
    "path": str,
    "prot": prot,
    "resource": str,
}

TOUCH_OPTIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "stride": lambda value: {"stride": int(value)},
    "rev": lambda value: {"order": "reverse"},
    "x": lambda value: {"repeat": int(value)},
    "rand": lambda value: {"order": "random", "seed": int(value)},
}


def touch_options(words: list[str]) -> dict[str, Any]:
    """`stride:4 rev x:3` as arguments of `touch`."""
    options: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition(":")
        if name not in TOUCH_OPTIONS:
            raise ScenarioError(f"{word!r} is not an option of touch; know {', '.join(TOUCH_OPTIONS)}")
        options |= TOUCH_OPTIONS[name](value)
    return options


# ---- verbs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verb:
    """What a process does on one line.

    `words` lists what follows the verb: `region` is a mapped region with its offset and length (all of it when they
    are left out), `[word]` is optional, everything else is read by `WORDS`. `constant` holds arguments that the
    language does not spell.
    """

    op: str
    words: str
    constant: Mapping[str, Any] = field(default_factory=dict)
    options: bool = False


PROCESS_VERBS: dict[str, Verb] = {
    "munmap": Verb("munmap", "region"),
    "mlock": Verb("mlock", "region"),
    "munlock": Verb("munlock", "region"),
    "msync": Verb("msync", "region"),
    "mincore": Verb("mincore", "region"),
    "mprotect": Verb("mprotect", "region prot"),
    "madvise": Verb("madvise", "region advice"),
    "mbind": Verb("mbind", "region mode nodes [flags]"),
    "touch": Verb("touch", "region access", options=True),
    "fill": Verb("touch", "region fill", {"access": "write"}),
    "brk": Verb("brk", "increment"),
    "read": Verb("read", "path offset length"),
    "write": Verb("write", "path offset length"),
    "fsync": Verb("fsync", "path"),
    "fadvise": Verb("fadvise", "path", {"advice": "dontneed"}),
    "rlimit": Verb("setrlimit", "resource limit"),
    "cpu": Verb("sched_setaffinity", "cpus"),
    "mempolicy": Verb("set_mempolicy", "mode [nodes]", {"nodes": ()}),
    "migrate_pages": Verb("migrate_pages", "old_nodes new_nodes"),
    "exit": Verb("exit", ""),
}


def decode(verb: Verb, words: list[str]) -> dict[str, Any]:
    """Arguments of the words that follow a verb (its region already taken off)."""
    args: dict[str, Any] = dict(verb.constant)
    names = [name for name in verb.words.split() if name != "region"]
    rest = list(words)
    for name in names:
        key = name.strip("[]")
        if rest:
            args[key] = WORDS[key](rest.pop(0))
        elif key == name:
            raise ScenarioError(f"{verb.op} needs {verb.words}")
    if verb.options:
        args |= touch_options(rest)
    elif rest:
        raise ScenarioError(f"{verb.op} takes {verb.words or 'nothing'}, not {' '.join(rest)!r} as well")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in args.items()}


# ---- the file --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """A parsed file: the machine, the files on its disk, and the lines to play."""

    config: dict[str, str]
    files: tuple[tuple[str, int], ...]
    lines: tuple[tuple[int, str], ...]

    @property
    def machine(self) -> dict[str, Any]:
        """The machine as `POST /v1/sessions` takes it."""
        return machine_of(self.config)


def machine_of(config: Mapping[str, str]) -> dict[str, Any]:
    """A `#!` line's settings as the API's `machine`; boot parameters stand in `cmdline`, with commas, and in `numab`."""
    words = config.get("cmdline", "").replace(",", " ").split() + ([f"numa_balancing={config['numab']}"] if "numab" in config else [])
    return {
        "memory": config["mem"],
        "swap": config["swap"],
        "nodes": int(config["nodes"]),
        "cpus": int(config["cpus"]),
        "transparent_hugepage": config["thp"],
        **({"cmdline": " ".join(words)} if words else {}),
    }


def parse(text: str) -> Scenario:
    """Read a `.scn` text; raises `ScenarioError` with the line's number."""
    config = dict(DEFAULT_CONFIG)
    files: list[tuple[str, int]] = []
    lines: list[tuple[int, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        try:
            if line.startswith("#!"):
                config |= _settings(line[2:])
            elif line.startswith("#file "):
                files.append(_file(line))
            elif line and not line.startswith("#"):
                check(line)
                lines.append((number, line))
        except ScenarioError as error:
            raise ScenarioError(f"line {number}: {error}") from None
    return Scenario(config, tuple(files), tuple(lines))


def _settings(text: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in text.split())
    return {name: value for name, _, value in pairs}


def _file(line: str) -> tuple[str, int]:
    words = line.split()
    if len(words) != 3:
        raise ScenarioError("#file needs a name and a size, for example: #file f 32M")
    return f"/data/{words[1]}", size(words[2])


def check(line: str) -> None:
    """Raise `ScenarioError` unless the line begins as one of the language's."""
    words = line.split()
    if words[0] in MACHINE_VERBS:
        usage = MACHINE_VERBS[words[0]]
        if len(words) < len(usage.split()) + 1:
            raise ScenarioError(f"{words[0]} needs {usage}")
        return
    if not words[0][0].isupper():
        raise ScenarioError(f"{words[0]!r} is neither a process (capital letter) nor one of {', '.join(MACHINE_VERBS)}")
    if len(words) < 2 or words[1] not in (*PROCESS_VERBS, "mmap", "mremap", "fork", "pagemap", "move_pages"):
        raise ScenarioError(f"{' '.join(words[1:2]) or 'nothing'!r} is not something a process does")


# what move_pages says of a page, as the recorder counts it
MOVE_STATUS = {"0": "node0", "1": "node1", "-2": "enoent", "-13": "eacces", "-14": "efault", "-16": "ebusy"}

MACHINE_VERBS: dict[str, str] = {
    "spawn": "NAME",
    "kill": "NAME",
    "cg": "create|attach|write|rmdir PATH",
    "set": "PATH VALUE",
    "setproc": "NAME FILE VALUE",
    "sleep": "SECONDS",
    "snap": "LABEL",
}


# ---- the runner ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Region:
    """Where a named region lies in one process."""

    address: int
    length: int


@dataclass(slots=True)
class Actor:
    """A process of the story: its pid, its own table of regions, whether it still lives."""

    pid: int
    alive: bool = True
    regions: dict[str, Region] = field(default_factory=dict)


@dataclass(slots=True)
class Step:
    """What one line came to."""

    number: int
    line: str
    op: Operation | None = None
    answer: Answer | None = None
    refused: Refused | None = None
    dead: bool = False
    missing: bool = False
    values: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] | None = None

    @property
    def errno(self) -> str | None:
        """The error as its symbol, whoever refused."""
        if self.missing:
            return "ENOENT"
        if self.refused:
            return self.refused.errno or f"http{self.refused.status}"
        return self.answer.get("errno") if self.answer else None

    @property
    def signal(self) -> str | None:
        """The signal that the line ran into."""
        return self.answer.get("signal") if self.answer else None

    @property
    def failed(self) -> bool:
        """Whether the line did not do what it says."""
        return bool(self.errno or self.signal or (self.dead and self.op is None))

    @property
    def outcome(self) -> str:
        """What the line came to, in a word: the error, the signal, `no such process`, or `ok`."""
        return self.errno or self.signal or ("no such process" if self.dead and self.op is None else "ok")

    def faults(self, kind: str) -> int:
        """Faults of `minor` or `major` kind during the line."""
        found = (self.answer or {}).get("faults") or {}
        return int(found.get(kind, 0))


def as_int(address: int | str) -> int:
    """An address of an answer: an integer in process, a hex string over HTTP."""
    return address if isinstance(address, int) else int(address, 16)


def pagemap_counts(raw: bytes) -> dict[str, int]:
    """Pages by state of a slice of `/proc/<pid>/pagemap` (bits 63, 62, 61, 56 and 55 of each entry)."""
    bits = {"present": 63, "swapped": 62, "file": 61, "exclusive": 56, "softdirty": 55}
    entries = array.array("Q", raw[: len(raw) // 8 * 8])
    return {name: sum(entry >> bit & 1 for entry in entries) for name, bit in bits.items()}


def process_named(words: list[str]) -> str | None:
    """The process that a line of the machine's is about, which must be there."""
    if words[0] in ("kill", "setproc"):
        return words[1]
    return words[2] if words[:2] == ["cg", "attach"] else None


class Runner:
    """Plays a scenario against a target, a line at a time."""

    def __init__(self, scenario: Scenario, target: Target) -> None:
        self.scenario = scenario
        self.target = target
        self.actors: dict[str, Actor] = {}
        self.cgroups: list[str] = []
        for path, length in scenario.files:
            target.apply({"op": "create_file", "path": path, "size": length})

    def run(self) -> Iterator[Step]:
        """Every line in order."""
        for number, line in self.scenario.lines:
            yield self.step(line, number)

    def step(self, line: str, number: int = 0) -> Step:
        """One line; the kernel's refusals are in the step, never raised."""
        step = Step(number, line)
        words = line.split()
        try:
            if words[0] in MACHINE_VERBS:
                self._machine(step, words)
            else:
                self._process(step, words)
        except Refused as refused:
            step.refused = refused
        except (ScenarioError, KeyError, IndexError, ValueError) as error:
            raise ScenarioError(f"line {number}: {line}: {error}") from error
        self._sync(step)
        return step

    # -- lines that begin with a process --

    def _process(self, step: Step, words: list[str]) -> None:
        name, verb, args = words[0], words[1], words[2:]
        actor = self.actors.get(name)
        if actor is None or not actor.alive:
            step.dead = True
            return
        special = {"mmap": self._mmap, "mremap": self._mremap, "fork": self._fork, "pagemap": self._pagemap,
                   "move_pages": self._move_pages}  # fmt: skip
        if verb in special:
            special[verb](step, actor, args)
        else:
            self._plain(step, actor, PROCESS_VERBS[verb], args)
        if verb == "exit":
            actor.alive = False
        step.dead = verb != "exit" and not actor.alive

    def _plain(self, step: Step, actor: Actor, verb: Verb, words: list[str]) -> None:
        args: dict[str, Any] = {}
        if verb.words.startswith("region"):
            region = actor.regions.get(words[0])
            if region is None:
                step.missing = True
                return
            offset = size(words[1]) if len(words) > 1 else 0
            args = {
                "address": region.address + offset,
                "length": size(words[2]) if len(words) > 2 else region.length,
            }
            words = words[3:]
        result = self._call(step, actor, verb.op, args | decode(verb, words))
        if verb.op == "brk" and result:
            self._grow_heap(actor, as_int(result["address"]), step)
        for key, label in (("bytes", "value"), ("resident", "value")):
            if key in result:
                step.values[label] = int(result[key])

    def _mmap(self, step: Step, actor: Actor, words: list[str]) -> None:
        name, length, rights, flags = words[0], size(words[1]), prot(words[2]), words[3].split(",")
        args: dict[str, Any] = {"length": length, "prot": rights, "flags": [f for f in flags if f != "align2m"]}
        if "align2m" in flags:
            args["align"] = 2 << 20
        if len(words) > 4:
            args |= {"file": words[4], "offset": size(words[5]) if len(words) > 5 else 0}
        else:
            args["flags"].append("anonymous")
        result = self._call(step, actor, "mmap", args)
        if result:
            actor.regions[name] = Region(as_int(result["address"]), length)

    def _mremap(self, step: Step, actor: Actor, words: list[str]) -> None:
        region = actor.regions.get(words[0])
        if region is None:
            step.missing = True
            return
        args = {
            "address": region.address,
            "old_length": region.length,
            "new_length": size(words[1]),
            "may_move": True,
        }
        result = self._call(step, actor, "mremap", args)
        if result:
            actor.regions[words[0]] = Region(as_int(result["address"]), size(words[1]))

    def _fork(self, step: Step, actor: Actor, words: list[str]) -> None:
        result = self._call(step, actor, "fork", {})
        if result:
            regions = {name: Region(r.address, r.length) for name, r in actor.regions.items()}
            self.actors[words[0]] = Actor(int(result["pid"]), regions=regions)

    def _pagemap(self, step: Step, actor: Actor, words: list[str]) -> None:
        region = actor.regions.get(words[0])
        if region is None:
            step.missing = True
            return
        start = region.address + (size(words[1]) if len(words) > 1 else 0)
        length = size(words[2]) if len(words) > 2 else region.length
        path = f"/proc/{actor.pid}/pagemap"
        raw = self.target.pread(path, start // PAGE_SIZE * 8, length // PAGE_SIZE * 8)
        step.values |= pagemap_counts(raw)

    def _move_pages(self, step: Step, actor: Actor, words: list[str]) -> None:
        region = actor.regions.get(words[0])
        if region is None:
            step.missing = True
            return
        pages = list(range(size(words[2]) // PAGE_SIZE))
        args: dict[str, Any] = {"address": region.address + size(words[1]), "pages": pages}
        if words[3] != "query":
            args |= {"nodes": [int(words[3])] * len(pages), "flags": ["move_all" if words[4:] == ["all"] else "move"]}
        result = self._call(step, actor, "move_pages", args)
        status = str(result.get("status", "")).split()
        step.values |= {name: status.count(word) for word, name in MOVE_STATUS.items()}

    @staticmethod
    def _grow_heap(actor: Actor, new_break: int, step: Step) -> None:
        increment = int(step.op["increment"]) if step.op else 0
        heap = actor.regions.setdefault("brk", Region(new_break - increment, 0))
        heap.length += increment

    # -- lines of the machine --

    def _machine(self, step: Step, words: list[str]) -> None:
        verb, named = words[0], process_named(words)
        if named is not None and named not in self.actors:  # the fork that should have made it was refused
            step.dead = True
        elif verb == "spawn":
            self._spawn(step, words[1])
        elif verb == "kill":
            self._kill(step, words[1])
        elif verb == "cg":
            self._cgroup(step, words[1], words[2:])
        elif verb == "set":
            self._put(step, words[1], words[2])
        elif verb == "setproc":
            self._put(step, f"/proc/{self.actors[words[1]].pid}/{words[2]}", words[3])
        elif verb == "sleep":
            self._apply(step, {"op": "advance", "duration_ns": int(float(words[1]) * SECOND_NS)})
        else:
            step.files = self.snapshot()

    def _spawn(self, step: Step, name: str) -> None:
        self._apply(step, {"op": "spawn", "comm": name, "catch_signals": True})
        answer = step.answer or {}
        pid = answer["pid"] if "pid" in answer else answer["result"]["pid"]
        self.actors[name] = Actor(int(pid))

    def _kill(self, step: Step, name: str) -> None:
        self._apply(step, {"op": "kill", "pid": self.actors[name].pid, "signal": "SIGKILL"})
        self.actors[name].alive = False

    def _cgroup(self, step: Step, verb: str, words: list[str]) -> None:
        if verb == "create":
            self._create_cgroup(step, words[0])
        elif verb == "attach":
            self._put(step, f"{CGROUP_ROOT}{words[1]}/cgroup.procs", str(self.actors[words[0]].pid))
        elif verb == "write":
            self._put(step, f"{CGROUP_ROOT}{words[0]}/{words[1]}", words[2])
        elif verb == "rmdir":
            self._apply(step, {"op": "rmdir", "path": CGROUP_ROOT + words[0]})
        else:
            raise ScenarioError(f"cg {verb!r}; know create, attach, write, rmdir")

    def _create_cgroup(self, step: Step, path: str) -> None:
        parent = path.rpartition("/")[0]
        self._put(step, f"{CGROUP_ROOT}{parent}/cgroup.subtree_control", "+memory")
        self._apply(step, {"op": "mkdir", "path": CGROUP_ROOT + path})
        self.cgroups.append(path)

    def _put(self, step: Step, path: str, value: str) -> None:
        self._apply(step, {"op": "put", "path": path, "data": value})

    # -- the door --

    def _call(self, step: Step, actor: Actor, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """Carry out a call; its result, or {} when it failed."""
        self._apply(step, {"op": op, "pid": actor.pid, **args})
        answer = step.answer or {}
        return {} if answer.get("errno") else answer.get("result") or {}

    def _apply(self, step: Step, op: Operation) -> None:
        step.op = op
        step.answer = self.target.apply(op)

    def _sync(self, step: Step) -> None:
        """Learn who died: the answer names them, the process list is the truth."""
        live = self.target.live()
        for actor in self.actors.values():
            actor.alive = actor.alive and actor.pid in live
        actor_of_line = self.actors.get(step.line.split()[0])
        if actor_of_line and step.line.split()[1:2] != ["exit"]:
            step.dead = not actor_of_line.alive

    # -- snapshots --

    def snapshot(self, paths: list[str] | None = None) -> dict[str, str]:
        """The files of a `snap` line, by the path of the scenario (`/proc/A/status` for the process A)."""
        found: dict[str, str] = {}
        for path in paths if paths is not None else self.paths():
            try:
                found[path] = self.target.read(self.real_path(path)).decode()
            except Refused:
                continue
        return found

    def real_path(self, path: str) -> str:
        """A scenario's path with the process's name replaced by its pid."""
        match = re.fullmatch(r"/proc/([A-Z]\w*)/(.+)", path)
        if not match or match[1] not in self.actors:
            return path
        return f"/proc/{self.actors[match[1]].pid}/{match[2]}"

    def paths(self) -> list[str]:
        """What a `snap` line reads when nobody asks for more."""
        of_processes = [f"/proc/{n}/{f}" for n, a in self.actors.items() if a.alive for f in PROCESS_FILES]
        of_cgroups = [f"{CGROUP_ROOT}{path}/{f}" for path in self.cgroups for f in CGROUP_FILES]
        return of_processes + of_cgroups + list(SYSTEM_FILES)


PROCESS_FILES = ("status", "smaps_rollup")
CGROUP_FILES = ("memory.current", "memory.stat", "memory.events")
SYSTEM_FILES = ("/proc/meminfo", "/proc/vmstat")
