"""`pagewalk run FILE`: operations from a file on a fresh kernel, and what each came to.

A file is a scenario (`.scn`, see `app.scenario`) or JSON Lines, one operation of the batch union a line:

    {"op": "spawn", "comm": "app"}
    {"op": "mmap", "pid": 1, "length": "64M", "prot": "rw", "flags": ["private", "anonymous"]}

A first line `{"machine": {...}, "seed": 1}` chooses the machine; so does that of a session's journal (GET .../journal), which is
such a file: running it is replaying the session. Results go to standard output, as an aligned table or
(`--json`) one JSON object a line; progress goes to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from app.scenario import Runner, Scenario, ScenarioError, Step, parse
from app.target import HttpTarget, Operation, Refused, Target

NS_PER_MS = 1_000_000
SHOWN = 44


class FileError(ValueError):
    """The file cannot be read as operations: says where and what would be right."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file and what it came to, as the table and the JSON show it."""

    number: int
    text: str
    body: dict[str, Any]

    @property
    def refused(self) -> bool:
        """Whether the line could not be carried out; what the simulated kernel refuses (an errno) is a result."""
        return "refused" in self.body and self.body["refused"]["errno"] is None


@dataclass(frozen=True, slots=True)
class Program:
    """What a file holds: a machine, and lines to carry out."""

    machine: Mapping[str, Any]
    seed: int
    length: int
    scenario: Scenario | None = None
    operations: tuple[tuple[int, Operation], ...] = ()


# ---- reading ---------------------------------------------------------------------------------------------------


def load(path: Path, machine: Mapping[str, Any] | None = None, seed: int | None = None) -> Program:
    """Read a file; `machine` and `seed` win over the file's own. Raises `FileError`."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: {error}") from error
    if path.suffix == ".scn" or text.startswith("#!"):
        return _scenario(path, text, machine, seed)
    return _operations(path, text, machine, seed)


def _scenario(path: Path, text: str, machine: Mapping[str, Any] | None, seed: int | None) -> Program:
    try:
        scenario = parse(text)
    except ScenarioError as error:
        raise FileError(f"{path}: {error}") from error
    return Program(machine or scenario.machine, seed or 0, len(scenario.lines), scenario)


def _operations(path: Path, text: str, machine: Mapping[str, Any] | None, seed: int | None) -> Program:
    found: list[tuple[int, Operation]] = []
    own: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            op = json.loads(line)
        except ValueError as error:
            raise FileError(f"{path}:{number}: not JSON: {error}; one operation a line") from error
        if not found and _is_boot(op):
            own = op
        elif not isinstance(op, dict) or not isinstance(op.get("op"), str):
            raise FileError(f'{path}:{number}: not an operation; write {{"op": "mmap", "pid": 101, ...}}')
        else:
            found.append((number, op))
    return Program(
        machine or own.get("machine") or {},
        own.get("seed", 0) if seed is None else seed,
        len(found),
        operations=tuple(found),
    )


def _is_boot(line: Any) -> bool:
    return isinstance(line, dict) and "machine" in line and line.get("op", "boot") == "boot"


# ---- carrying out ----------------------------------------------------------------------------------------------


def open_target(program: Program, url: str | None, token: str | None) -> Target:
    """A fresh kernel in process, or a fresh session of the service at `url`."""
    if url:
        return HttpTarget(url, program.machine, program.seed, token)
    from app.inprocess import KernelTarget

    return KernelTarget(program.machine, program.seed)


def rows(program: Program, target: Target) -> Iterator[Row]:
    """Carry out every line in order."""
    if program.scenario:
        previous: dict[str, int] = {}
        for step in Runner(program.scenario, target).run():
            yield _row_of_step(step, previous)
        return
    for number, op in program.operations:
        yield _row_of_op(number, op, target)


def _row_of_op(number: int, op: Operation, target: Target) -> Row:
    words = [str(op[key]) for key in ("pid",) if key in op] + [op["op"]]
    words += [f"{key}={_brief(value)}" for key, value in op.items() if key not in ("op", "pid", "seq")]
    try:
        answer = target.apply(op)
    except Refused as refused:
        return Row(number, " ".join(words), {"op": op, "refused": _refusal(refused)})
    return Row(number, " ".join(words), {"op": op, "answer": answer})


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value[:8])) + (",…" if len(value) > 8 else "")
    return str(value)


def _refusal(refused: Refused) -> dict[str, Any]:
    return {"status": refused.status, "errno": refused.errno, "detail": refused.detail}


def _row_of_step(step: Step, previous: dict[str, int]) -> Row:
    body: dict[str, Any] = {"line": step.line}
    if step.op:
        body["op"] = step.op
    if step.answer:
        body["answer"] = step.answer
    if step.refused:
        body["refused"] = _refusal(step.refused)
    if step.values:
        body["counts"] = step.values
    if step.dead:
        body["dead"] = True
    if step.files is not None:
        now = watched(step.files)
        body["figures"] = now
        body["changes"] = {key: value - previous.get(key, 0) for key, value in now.items() if value != previous.get(key, 0)}
        previous.clear()
        previous.update(now)
    return Row(step.number, step.line, body)


WATCHED = {
    "status": ("VmSize", "VmPTE", "VmSwap"),
    "smaps_rollup": ("Rss", "Pss", "Anonymous"),
    "meminfo": ("MemFree", "Cached", "AnonPages", "PageTables", "SwapFree"),
    "memory.current": ("memory.current",),
    "memory.events": ("max", "oom", "oom_kill"),
}


def watched(files: Mapping[str, str]) -> dict[str, int]:
    """The figures of a snapshot that a person wants to see change."""
    found: dict[str, int] = {}
    for path, text in files.items():
        parts = path.split("/")
        name = parts[-1]
        if name not in WATCHED:
            continue
        owner = "/".join(parts[4:-1]) if path.startswith("/sys/fs/cgroup") else parts[2]
        for field in WATCHED[name]:
            value = _value(field, text) if name != field else int(text)
            if value is not None:
                found[f"{owner} {field}"] = value
    return found


def _value(field: str, text: str) -> int | None:
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if words and words[0] == field:
            return int(words[1])
    return None


# ---- showing ---------------------------------------------------------------------------------------------------


def outcome(row: Row) -> str:
    """The result column: an address, a count, an errno, a signal, who died."""
    body = row.body
    if "refused" in body:
        refused = body["refused"]
        return f"refused: {refused['errno'] or refused['status']} {refused['detail']}"
    answer = body.get("answer", {})
    words = [str(answer[key]) for key in ("errno", "signal") if answer.get(key)]
    if answer.get("fault_address"):
        words.append(f"at {answer['fault_address']}")
    words += [f"{key}={value}" for key, value in ((answer.get("result") or {}) | body.get("counts", {})).items()]
    if answer.get("killed"):
        words.append("killed " + ",".join(map(str, answer["killed"])))
    if body.get("dead") and not answer:
        words.append("process is dead")
    words += [f"{key} {change:+d}" for key, change in body.get("changes", {}).items()]
    return "; ".join(words) if "figures" in body else " ".join(words) or "ok"


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """Line number, operation, minor/major faults, simulated milliseconds, result."""
    answer = row.body.get("answer") or {}
    faults = answer.get("faults") or {}
    minor, major = faults.get("minor", 0), faults.get("major", 0)
    elapsed = answer.get("elapsed_ns") or 0
    text = row.text if len(row.text) <= SHOWN else row.text[: SHOWN - 1] + "…"
    shown_faults = f"{minor}/{major}" if minor or major else ""
    return str(row.number), text, shown_faults, f"{elapsed / NS_PER_MS:.3f}" if elapsed else "", outcome(row)


HEADINGS = ("line", "operation", "faults", "ms", "result")


class Table:
    """An aligned table that is printed a row at a time: columns have their width from the start."""

    WIDTHS = (4, SHOWN, 11, 11)

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self._print(HEADINGS)

    def add(self, row: Row) -> None:
        self._print(cells(row))

    def _print(self, columns: tuple[str, ...]) -> None:
        number, text, faults, elapsed, result = columns
        widths = self.WIDTHS
        line = f"{number:>{widths[0]}}  {text:<{widths[1]}} {faults:>{widths[2]}} {elapsed:>{widths[3]}}  {result}"
        print(line.rstrip(), file=self.out, flush=True)


class Progress:
    """`12/50` on standard error: one line that is rewritten on a terminal, nothing but the end elsewhere."""

    def __init__(self, total: int, err: TextIO) -> None:
        self.total, self.err, self.live = total, err, err.isatty() and not sys.stdout.isatty()

    def at(self, done: int, text: str) -> None:
        if self.live:
            print(f"\r\x1b[K{done}/{self.total} {text[:60]}", end="", file=self.err, flush=True)

    def end(self, refused: int, clock_ns: int) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=self.err)
        tail = f", {refused} refused" if refused else ""
        print(f"pagewalk: {self.total} operations{tail}, {clock_ns / 1e9:.6f} s of simulated time", file=self.err)


def run(program: Program, target: Target, as_json: bool, out: TextIO, err: TextIO) -> int:
    """Carry out a program and show it; the number of lines that were refused."""
    table = None if as_json else Table(out)
    progress = Progress(program.length, err)
    refused = clock_ns = 0
    for done, row in enumerate(rows(program, target), 1):
        progress.at(done, row.text)
        refused += row.refused
        clock_ns = (row.body.get("answer") or {}).get("clock_ns") or clock_ns
        if table:
            table.add(row)
        else:
            print(json.dumps({"line_number": row.number, **row.body}), file=out, flush=True)
    progress.end(refused, clock_ns)
    return refused
