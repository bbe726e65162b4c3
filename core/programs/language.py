"""The language of programs: what a step may say, and how a list of steps becomes code.

A program is a list of steps, each an object whose `op` names a row of `STEPS`:

    [{"op": "map", "region": "pool", "length": "64M"},
     {"op": "loop", "times": 1000, "steps": [
         {"op": "touch", "region": "pool", "accesses": 32, "order": "zipf", "access": "write", "work": "5us"},
         {"op": "think", "time": "10ms"}]}]

or an object `{"steps": [...], "seed": 1, "at_end": "exit"}`, or the name of a ready-made one with its parameters,
`{"name": "leak", "parameters": {"rate": "8M"}}`. `parse` checks everything before anything happens and answers the same program in
plain numbers, so that it may be written down and parsed again. ValueError says in plain words what is wrong, where, and what would be right.

`compile_steps` flattens it: a program counter is all that it takes to say where a program is.

    loop n { a b }    →    0 repeat (slot 0, n)   1 a   2 b   3 again (slot 0, to 1)
    fork { c }        →    4 fork (child at 5, parent at 7)   5 c   6 exit
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from core.machine import parse_size
from core.programs.patterns import ORDERS

MAX_STEPS = 1000
MAX_DEPTH = 8
MAX_ACCESSES = 1 << 26  # of one step
MAX_BYTES = 1 << 44
MAX_NS = 10**15  # eleven days
_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h)")
_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_REGION = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")
HEAP = "heap"  # the region that `grow` makes longer


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a step: kind (size, duration, int, str, choice, region, flags, steps), meaning, default (None: must be given)."""

    kind: str
    doc: str
    default: Any = None
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    required: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One row of `STEPS`."""

    name: str
    doc: str
    fields: Mapping[str, Field] = field(default_factory=dict)


REGION = Field("region", "The name that a map step gave it; heap is what grow makes.", required=True)
PATH = Field("str", "A file of the simulated disk: /data/f.", required=True)
ADVICE = ("normal", "random", "sequential", "willneed", "dontneed", "free", "cold", "pageout", "hugepage", "nohugepage", "mergeable", "unmergeable",
          "populate_read", "populate_write")  # fmt: skip
ON_ERROR = Field("choice", "What to do when the kernel refuses: exit (status 1) or continue with the next step.", "exit", ("exit", "continue"))

_ROWS = (
    Step("map", "mmap: a region of memory, or of a file.", {
        "region": Field("region", "A name for it.", required=True),
        "length": Field("size", "Its length in bytes.", low=1, high=MAX_BYTES, required=True),
        "file": Field("str", "The file to map; without it the memory is anonymous.", ""),
        "prot": Field("choice", "Access.", "rw", ("r", "rw")),
        "flags": Field("flags", "private or shared and more, as mmap takes them.", (),
                       ("private", "shared", "anonymous", "noreserve", "locked", "populate")),
    }),
    Step("unmap", "munmap of a region.", {"region": REGION}),
    Step("touch", "The processor accesses pages of a region, and computes for each access.", {
        "region": REGION,
        "accesses": Field("int", "How many; left out: as many as the region (or its part) has pages.", 0, low=0, high=MAX_ACCESSES),
        "access": Field("choice", "read or write.", "read", ("read", "write")),
        "order": Field("choice", "Which pages: sequential goes on where the region's last sequential touch ended.", "sequential", ORDERS),
        "offset": Field("size", "Where in the region its part begins.", 0, high=MAX_BYTES),
        "length": Field("size", "The part's length; 0: to the end of the region.", 0, high=MAX_BYTES),
        "work": Field("duration", "Computing time of each access.", 0, high=10**9),
        "write_percent": Field("int", "That many per cent of the accesses write, whatever access says.", -1, low=0, high=100),
        "hot_percent": Field("int", "hot-cold: per cent of the pages that are hot.", 10, low=1, high=100),
        "hot_share": Field("int", "hot-cold: per cent of the accesses that go to them.", 90, low=0, high=100),
        "window": Field("size", "working-set: its length.", 1 << 20, low=1, high=MAX_BYTES),
        "slide": Field("size", "working-set: how far it slides after the step.", 0, high=MAX_BYTES),
    }),
    Step("grow", "brk: the heap grows, and every new page is written: memory that is never given back is a leak.", {
        "length": Field("size", "By how much.", low=1, high=MAX_BYTES, required=True),
    }),
    Step("advise", "madvise on a region or a part of it.", {
        "region": REGION,
        "advice": Field("choice", "What is advised.", choices=ADVICE, required=True),
        "offset": Field("size", "Where the part begins.", 0, high=MAX_BYTES),
        "length": Field("size", "Its length; 0: to the end of the region.", 0, high=MAX_BYTES),
    }),
    Step("file", "A file is on the disk before the program reads it; one that is there already stays as it is.", {
        "path": PATH, "size": Field("size", "Its size.", high=MAX_BYTES, required=True),
    }),
    Step("read", "read: the next bytes of a file, from its beginning again at its end.", {
        "path": PATH,
        "length": Field("size", "How many bytes.", low=1, high=MAX_BYTES, required=True),
        "order": Field("choice", "sequential, or random: from some multiple of the length.", "sequential", ("sequential", "random")),
    }),
    Step("write", "write: the next bytes of a file; at `size` it begins again.", {
        "path": PATH,
        "length": Field("size", "How many bytes.", low=1, high=MAX_BYTES, required=True),
        "order": Field("choice", "sequential, or random: at some multiple of the length.", "sequential", ("sequential", "random")),
        "size": Field("size", "How large the file may become.", 1 << 20, low=1, high=MAX_BYTES),
    }),
    Step("fsync", "The file's dirty pages are written to the disk.", {"path": PATH}),
    Step("compute", "The processor is busy, without memory.", {"time": Field("duration", "How long.", high=MAX_NS, required=True)}),
    Step("sleep", "The program sleeps; its processor is free for others.", {"time": Field("duration", "How long.", high=MAX_NS, required=True)}),
    Step("think", "A user thinks: sleep of a random length.", {
        "time": Field("duration", "The mean.", high=MAX_NS, required=True),
        "jitter": Field("duration", "At most so much more or less; left out: half of the time.", -1, high=MAX_NS),
    }),
    Step("loop", "The steps again and again.", {
        "steps": Field("steps", "What is repeated.", required=True),
        "times": Field("int", "How often; 0: for ever.", 0, high=10**12),
    }),
    Step("fork", "fork: the child does these steps and exits; the parent goes on.", {"steps": Field("steps", "What the child does.", required=True)}),
    Step("wait", "Reap dead children; does not block.", {}),
    Step("exit", "The process ends.", {"status": Field("int", "Exit status.", 0, high=255)}),
)  # fmt: skip
STEPS: dict[str, Step] = {row.name: row for row in _ROWS}


# ---------------------------------------------------------------- checking


def shown(value: object) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_duration(value: object, what: str) -> int:
    """Nanoseconds from an int or "250ms"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return int(Decimal(match[1]) * _NS[match[2]])
    raise ValueError(f'{what} must be a duration such as 250000000 or "250ms", not {shown(value)}')


def parse_field(kind: str, spec: Field, value: object, what: str) -> Any:
    """A plain value; `what` says where it stands."""
    if kind == "steps":
        raise AssertionError("steps are parsed by parse_steps")
    if kind == "region":
        if not isinstance(value, str) or not _REGION.fullmatch(value):
            raise ValueError(f"{what} must be a name of letters, digits, - and _, not {shown(value)}")
        return value
    if kind == "str":
        if not isinstance(value, str) or not value.isprintable() or len(value) > 4096:
            raise ValueError(f"{what} must be a path such as /data/f, not {shown(value)}")
        return value
    if kind == "choice":
        if not isinstance(value, str) or value not in spec.choices:
            raise ValueError(f"{what} must be one of {', '.join(spec.choices)}, not {shown(value)}")
        return value
    if kind == "flags":
        if not isinstance(value, (list, tuple)) or any(word not in spec.choices for word in value):
            raise ValueError(f"{what} must be a list of {', '.join(spec.choices)}, not {shown(value)}")
        return list(value)
    return in_range(parse_number(kind, value, what), spec, value, what)


def parse_number(kind: str, value: object, what: str) -> int:
    """An int, a size or a duration."""
    if kind == "size":
        return parse_size(value, what)
    if kind == "duration":
        return parse_duration(value, what)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} must be a whole number, not {shown(value)}")
    return value


def in_range(number: int, spec: Field, value: object, what: str) -> int:
    """The number, if it lies where the field says."""
    if not spec.low <= number <= (spec.high or MAX_BYTES):
        raise ValueError(f"{what} must lie between {spec.low} and {spec.high or MAX_BYTES}, not {shown(value)}")
    return number


class Checker:
    """Parses the steps of one program; counts them, and knows the regions that are mapped somewhere."""

    def __init__(self) -> None:
        self.count = 0
        self.made: set[str] = set()
        self.used: list[tuple[str, str]] = []  # region, where

    def steps(self, given: object, what: str, depth: int) -> list[dict[str, Any]]:
        """A list of steps; deeper ones inside."""
        if not isinstance(given, list) or not given:
            raise ValueError(f'{what} must be a list of steps such as {{"op": "sleep", "time": "1s"}}, not {shown(given)}')
        if depth > MAX_DEPTH:
            raise ValueError(f"{what}: loops and forks may stand in each other {MAX_DEPTH} deep")
        return [self.step(one, f"{what}[{at}]", depth) for at, one in enumerate(given)]

    def step(self, given: object, what: str, depth: int) -> dict[str, Any]:
        """One step in plain values."""
        self.count += 1
        if self.count > MAX_STEPS:
            raise ValueError(f"{what}: a program has at most {MAX_STEPS} steps")
        if not isinstance(given, Mapping) or not isinstance(given.get("op"), str) or given["op"] not in STEPS:
            name = given.get("op") if isinstance(given, Mapping) else given
            raise ValueError(f"{what}.op must be one of {', '.join(STEPS)}, not {shown(name)}")
        row = STEPS[given["op"]]
        known = {**row.fields, "on_error": ON_ERROR}
        if unknown := [str(name) for name in given if name != "op" and name not in known]:
            raise ValueError(f"{what}: {row.name} has no {unknown[0]!r}; it takes {', '.join(known)}")
        out: dict[str, Any] = {"op": row.name}
        for name, spec in known.items():
            if name not in given:
                if spec.required:
                    raise ValueError(f"{what}: {row.name} needs {name!r}: {spec.doc}")
            elif spec.kind == "steps":
                out[name] = self.steps(given[name], f"{what}.{name}", depth + 1)
            else:
                out[name] = parse_field(spec.kind, spec, given[name], f"{what}.{name}")
        self.note_region(out, what)
        return out

    def note_region(self, step: Mapping[str, Any], what: str) -> None:
        """Who makes a region, who uses it."""
        if step["op"] == "grow":
            self.made.add(HEAP)
        elif step["op"] == "map":
            if step["region"] == HEAP:
                raise ValueError(f"{what}.region: heap is the region that grow makes; choose another name")
            self.made.add(step["region"])
        elif "region" in step:
            self.used.append((step["region"], what))

    def finish(self) -> None:
        """Every region that is used is made somewhere."""
        for region, what in self.used:
            if region not in self.made:
                raise ValueError(f"{what}.region: no step maps a region {region!r}; there are {', '.join(sorted(self.made)) or 'none'}")


def parse_steps(given: object, what: str = "program.steps") -> list[dict[str, Any]]:
    """Steps in plain values; ValueError says what is wrong with them."""
    checker = Checker()
    steps = checker.steps(given, what, 1)
    checker.finish()
    return steps


# ---------------------------------------------------------------- code


def compile_steps(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Flat code of parsed steps: loops become jumps, defaults are filled in."""
    code: list[dict[str, Any]] = []
    slots = iter(range(MAX_STEPS))

    def emit(step: dict[str, Any]) -> None:
        row = STEPS[step["op"]]
        if row.name == "loop":
            slot = next(slots)
            code.append({"op": "repeat", "slot": slot, "times": step.get("times", 0)})
            first = len(code)
            for inner in step["steps"]:
                emit(inner)
            code.append({"op": "again", "slot": slot, "to": first})
        elif row.name == "fork":
            at = len(code)
            code.append({"op": "fork", "on_error": step.get("on_error", "exit")})
            for inner in step["steps"]:
                emit(inner)
            code.append({"op": "exit", "status": 0, "on_error": "exit"})
            code[at] |= {"child": at + 1, "parent": len(code)}
        else:
            defaults = {name: spec.default for name, spec in row.fields.items()} | {"on_error": "exit"}
            code.append(defaults | step)

    for step in steps:
        emit(step)
    return code


def substitute(given: Any, values: Mapping[str, int]) -> Any:
    """Steps of a ready-made program with its parameters ("$rate") filled in."""
    if isinstance(given, str) and given.startswith("$"):
        return values[given[1:]]
    if isinstance(given, dict):
        return {name: substitute(one, values) for name, one in given.items()}
    return [substitute(one, values) for one in given] if isinstance(given, list) else given


Parse = Callable[[object], Any]
