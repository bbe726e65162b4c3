"""Hold one more boot, ours, against boots of the real kernel.

A recording holds several boots of one scenario. The scenario is played on a simulated kernel, and every figure that
it then shows must lie where one more real boot would: within the spread of the recorded boots, widened by a slack.

    figure     one number of one file: `A/status:VmRSS`, `meminfo:MemFree`, `/t:stat:anon`
    change     a figure minus its value in the first snapshot, so what a process weighs before the story is left out
    class      how steady the real kernel is:  EXACT  the same at every boot
                                               STAT   its own choices show (lists, reclaim, swap)
                                               COUNT  only whether it happened at all
    slack      a floor by unit (256 kB, 512 KiB, 64 events) + a share of the figure (1 %, 15 %, 100 %) + the spread;
               four times the floor where the kernel was reclaiming or the class is STAT

Figures that stayed at zero on both sides are no credit and are left out.

A line that hung: where nobody may be killed, a real task retries its fault for ever, and the recorder killed it after half
a minute. Ours is asked the same: the line must not succeed, and then the process is killed too. How often a real task
retried in that time says how fast the recorder's machine was, so the figures that count the retries (`SPUN`) are held
only as COUNT from there on.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from app.scenario import Runner, Scenario, Step, parse
from app.target import Target

EXACT, STAT, COUNT = "exact", "stat", "count"

FLOOR = {"kB": 256, "B": 512 << 10, "n": 64}
SHARE = {EXACT: 0.01, STAT: 0.15, COUNT: 1.0}
PRESSED_SHARE = 0.10
PRESSED_FLOOR = 4
RECLAIM = ("pgsteal_kswapd", "pgsteal_direct", "pgsteal_anon", "pgsteal_file")
RECLAIMED_AT_ALL = 32
FAULT_FLOOR = 8
FAULT_SHARE = {"minor": 0.02, "major": 0.15}

SIGNALS = {"11": "SIGSEGV", "7": "SIGBUS", "9": "SIGKILL"}
ERRNOS = {
    "1": "EPERM",
    "2": "ENOENT",
    "5": "EIO",
    "11": "EAGAIN",
    "12": "ENOMEM",
    "13": "EACCES",
    "14": "EFAULT",
    "16": "EBUSY",
    "22": "EINVAL",
}


def classes(exact: str = "", stat: str = "", count: str = "") -> dict[str, str]:
    """A table of fields by class, written as words."""
    named = ((exact, EXACT), (stat, STAT), (count, COUNT))
    return {name: kind for words, kind in named for name in words.split()}


STATUS = classes("VmSize VmLck RssAnon RssFile RssShmem VmPTE HugetlbPages", "VmSwap")
SMAPS_ROLLUP = classes(
    "Rss Pss Shared_Clean Shared_Dirty Private_Clean Private_Dirty AnonHugePages LazyFree Locked", "Swap"
)
MEMINFO = classes(
    "Cached AnonPages Mapped Shmem PageTables Committed_AS CommitLimit AnonHugePages Unevictable Mlocked"
    " HugePages_Total HugePages_Free HugePages_Rsvd HugePages_Surp",
    "MemFree SwapCached SwapFree",
)
VMSTAT = classes(
    "pgfault oom_kill thp_fault_alloc thp_split_pmd numa_interleave",
    "pgmajfault pswpin pswpout pgsteal_anon pgsteal_file workingset_refault_anon workingset_refault_file pglazyfreed"
    " numa_miss numa_foreign numa_other",
    "pgsteal_kswapd pgsteal_direct thp_split_page thp_collapse_alloc numa_hit numa_local htlb_buddy_alloc_success",
)
MEMORY_STAT = classes(
    "anon file shmem file_mapped anon_thp pagetables unevictable pgfault thp_fault_alloc",
    "file_dirty inactive_anon active_anon inactive_file active_file pgmajfault workingset_refault_file"
    " workingset_refault_anon workingset_activate_file pgscan pgsteal",
    "thp_collapse_alloc",
)
NODE_MEMINFO = classes("AnonPages", "MemFree FilePages")
MEMORY_FILES = {"memory.current": EXACT, "memory.peak": EXACT, "memory.swap.current": STAT}


SPUN = re.compile(r":(memory\.events:(max|oom)|pgfault)$")


class Figure(NamedTuple):
    """One number: its value, its class, its unit (kB, B or n)."""

    value: int
    kind: str
    unit: str


Snapshot = Mapping[str, str]
Figures = dict[str, Figure]


# ---- reading Linux's files -------------------------------------------------------------------------------------


def fields(text: str) -> dict[str, int]:
    """`name value` and `name: value kB` lines."""
    return {name: int(value) for name, value in re.findall(r"^\s*([\w()\-]+):?\s+(-?\d+)(?: kB)?\s*$", text, re.M)}


def figures(snapshot: Snapshot) -> Figures:
    """Every figure that is compared, of one snapshot's files."""
    found: Figures = {}
    for path, text in snapshot.items():
        found |= _figures_of(path, text)
    return found


def _figures_of(path: str, text: str) -> Figures:
    if match := re.fullmatch(r"/proc/([A-Z]\w*)/(status|smaps_rollup)", path):
        table = STATUS if match[2] == "status" else SMAPS_ROLLUP
        return _select(fields(text), table, f"{match[1]}/{match[2]}:", "kB")
    if path == "/proc/meminfo":
        return _select(fields(text), MEMINFO, "meminfo:", "kB")
    if path == "/proc/vmstat":
        return _select(fields(text), VMSTAT, "vmstat:", "n")
    if match := re.fullmatch(r"/sys/devices/system/node/(node\d)/meminfo", path):
        values = {name: int(value) for name, value in re.findall(r"Node \d+ (\S+):\s+(\d+)", text)}
        return _select(values, NODE_MEMINFO, f"{match[1]}:", "kB")
    if path.startswith("/sys/kernel/mm/ksm/pages_sha"):
        return {path.rpartition("/")[2]: Figure(int(text), EXACT, "n")}
    if path.startswith("/sys/fs/cgroup/"):
        group, _, name = path.removeprefix("/sys/fs/cgroup").rpartition("/")
        return _cgroup_figures(group, name, text)
    return {}


def _select(values: Mapping[str, int], table: Mapping[str, str], prefix: str, unit: str) -> Figures:
    def unit_of(name: str) -> str:
        return "n" if name.startswith("HugePages_") else unit

    return {prefix + name: Figure(values[name], kind, unit_of(name)) for name, kind in table.items() if name in values}


def _cgroup_figures(group: str, name: str, text: str) -> Figures:
    if name in MEMORY_FILES:
        return {f"{group}:{name}": Figure(int(text), MEMORY_FILES[name], "B")}
    if name in ("memory.events", "memory.swap.events"):
        kinds = {event: EXACT if "kill" in event else COUNT for event in fields(text)}
        return _select(fields(text), kinds, f"{group}:{name}:", "n")
    if name == "memory.stat":
        found = _select(fields(text), MEMORY_STAT, f"{group}:stat:", "B")
        events = re.compile(r".*:stat:(pg|work|thp)")
        return {key: f._replace(unit="n") if events.match(key) else f for key, f in found.items()}
    return {}


# ---- the rule --------------------------------------------------------------------------------------------------


def slack(kind: str, unit: str, low: int, high: int, pressed: bool) -> float:
    """How far outside the boots' own spread a figure may lie."""
    share = PRESSED_SHARE if pressed and kind == EXACT else SHARE[kind]
    floor = FLOOR[unit] * (PRESSED_FLOOR if pressed or kind == STAT else 1)
    return floor + share * max(abs(low), abs(high)) + (high - low)


def holds(key: str, kind: str, unit: str, got: int, low: int, high: int, pressed: bool) -> bool:
    """Whether one more boot might have shown `got` where the others showed `low` to `high`."""
    if re.search(r"\.events:(high|max|low|oom)$", key):
        return (got > 0) == (high > 0) and (high == 0 or low / 3 <= got <= high * 3)
    if kind == COUNT:
        return (got > 0) == (high > 0) or abs(got) <= FLOOR["n"]
    margin = slack(kind, unit, low, high, pressed)
    return low - margin <= got <= high + margin


def under_pressure(snapshot: Snapshot, base: Snapshot) -> bool:
    """Whether the real kernel reclaimed between two snapshots."""
    now, then = fields(snapshot.get("/proc/vmstat", "")), fields(base.get("/proc/vmstat", ""))
    return any(now.get(name, 0) - then.get(name, 0) > RECLAIMED_AT_ALL for name in RECLAIM)


# ---- a case ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: where, what we showed, what the real boots showed."""

    where: str
    ok: bool
    got: Any
    want: Any

    def __str__(self) -> str:
        return f"{self.where}: ours {self.got}, Linux {self.want}"


@dataclass(slots=True)
class Report:
    """All comparisons of one case."""

    name: str
    checks: list[Check] = field(default_factory=list)

    def add(self, where: str, ok: bool, got: Any, want: Any) -> None:
        self.checks.append(Check(where, bool(ok), got, want))

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.ok]

    @property
    def score(self) -> float:
        return 1 - len(self.failures) / len(self.checks) if self.checks else 0.0

    def __str__(self) -> str:
        head = f"{self.name}: {len(self.checks) - len(self.failures)} of {len(self.checks)} figures hold"
        return "\n".join([head, *(f"    {check}" for check in self.failures)])


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario and what several boots of Linux did with it."""

    name: str
    scenario: Scenario
    kernel: str
    runs: list[dict[str, Any]]

    @classmethod
    def load(cls, path: Path) -> Case:
        with gzip.open(path, "rt") as file:
            data = json.load(file)
        return cls(path.name.removesuffix(".json.gz"), parse(data["scenario"]), data["kernel"], data["runs"])

    def snapshots(self, label: str) -> list[Snapshot]:
        """One snapshot as each boot showed it."""
        return [run["snaps"][label] for run in self.runs]


def compare(case: Case, target: Target) -> Report:
    """Play the case on a freshly booted target and compare every figure."""
    return Comparison(case, target).run()


class Comparison:
    """One case in progress: the runner, the report, and the first snapshot that changes are counted from."""

    def __init__(self, case: Case, target: Target) -> None:
        self.case = case
        self.runner = Runner(case.scenario, target)
        self.report = Report(case.name)
        self.first = ""
        self.base: Figures = {}
        self.real_bases: list[Figures] = []
        self.spun = False

    def run(self) -> Report:
        for index, (number, line) in enumerate(self.case.scenario.lines):
            recorded = [run["ops"][index] for run in self.case.runs]
            assert recorded[0]["line"] == line, f"{self.case.name}: recording and scenario differ at line {number}"
            if line.startswith("snap "):
                self._snapshot(line.split()[1])
            else:
                self._line(self.runner, number, line, recorded)
        return self.report

    # -- lines --

    def _line(self, runner: Runner, number: int, line: str, recorded: list[dict[str, Any]]) -> None:
        returns = [op["ret"] for op in recorded]
        died = set().union(*(op["died"] for op in recorded))
        step = runner.step(line, number)
        if any("hung" in found for found in returns):
            self._hung(step)
            return
        for name in sorted(died):
            self.report.add(f"{line}: kills {name}", self._fate(name) == "dead", self._fate(name), "dead")
        if "died" in returns[0]:
            self.report.add(f"{line}: dies", step.dead, step.answer, returns[0])
            died.add(line.split()[0])
        elif "ret" in returns[0] and not line.startswith(("spawn", "sleep", "kill")):
            self._outcome(step, returns)
        for name in died & set(runner.actors):
            runner.actors[name].alive = False

    def _fate(self, name: str) -> str:
        """What has become of a process by now."""
        actor = self.runner.actors.get(name)
        return "never forked" if actor is None else "alive" if actor.alive else "dead"

    def _hung(self, step: Step) -> None:
        self.spun = True
        self.report.add(f"{step.line}: does not finish", step.failed or step.dead, step.answer, "retries for ever")
        name = step.line.split()[0]
        if self._fate(name) == "alive":
            self.runner.step(f"kill {name}")

    def _outcome(self, step: Step, returns: list[dict[str, str]]) -> None:
        want, line = returns[0], step.line
        refused = want["ret"].startswith("-1")
        self.report.add(f"{line}: outcome", step.failed == refused, step.outcome, want)
        if refused and step.failed and want.get("err") in ERRNOS:
            self.report.add(f"{line}: errno", step.errno == ERRNOS[want["err"]], step.errno, ERRNOS[want["err"]])
        if "signal" in want:
            self.report.add(f"{line}: signal", step.signal == SIGNALS[want["signal"]], step.signal, want["signal"])
        if not refused and line.split()[1] not in ("exit", "fork", "read", "write"):
            for kind, key in (("minor", "minflt"), ("major", "majflt")):
                if key in want:
                    self._faults(step, kind, [int(found[key]) for found in returns])
        for name in step.values:
            if name in want:
                self._counted(step, name, [int(found[name]) for found in returns])
        if line.split()[1] == "mincore":
            resident = [int(found["ret"]) for found in returns]
            got = step.values.get("value", 0)
            ok = min(resident) - FAULT_FLOOR <= got <= max(resident) + FAULT_FLOOR
            self.report.add(f"{line}: resident", ok, got, resident)

    def _faults(self, step: Step, kind: str, real: list[int]) -> None:
        got, low, high = step.faults(kind), min(real), max(real)
        if high <= FAULT_FLOOR and got <= FAULT_FLOOR:
            return
        margin = FAULT_FLOOR + FAULT_SHARE[kind] * high + (high - low)
        self.report.add(f"{step.line}: {kind} faults", low - margin <= got <= high + margin, got, (low, high))

    def _counted(self, step: Step, name: str, real: list[int]) -> None:
        low, high, got = min(real) * 0.98 - FAULT_FLOOR, max(real) * 1.02 + FAULT_FLOOR, step.values[name]
        self.report.add(f"{step.line}: {name}", low <= got <= high, got, real)

    # -- snapshots --

    def _snapshot(self, label: str) -> None:
        recorded = self.case.snapshots(label)
        got = figures(self.runner.snapshot([path for path in recorded[0] if compared(path)]))
        if not self.first:
            self.first, self.base = label, got
            self.real_bases = [figures(snapshot) for snapshot in recorded]
            return
        want = [figures(snapshot) for snapshot in recorded]
        pressed = under_pressure(recorded[0], self.case.snapshots(self.first)[0])
        for key in sorted(set.intersection(*(set(boot) for boot in want))):
            self._figure(label, key, got, want, pressed)

    def _figure(self, label: str, key: str, got: Figures, want: list[Figures], pressed: bool) -> None:
        base_key = base_of(key, self.real_bases[0])
        real = [boot[key].value - value_of(base, base_key) for boot, base in zip(want, self.real_bases, strict=True)]
        where = f"{label} {key}"
        if key not in got:
            self.report.add(where, False, None, real)
            return
        change = got[key].value - value_of(self.base, base_key)
        low, high = min(real), max(real)
        if low == high == change == 0:
            return
        _, kind, unit = want[0][key]
        if self.spun and SPUN.search(key):
            self.report.add(where, (change > 0) == (high > 0), change, (low, high))
            return
        self.report.add(where, holds(key, kind, unit, change, low, high, pressed), change, (low, high))


def base_of(key: str, base: Figures) -> str | None:
    """The figure that a change is counted from: its own, or, for a process made since, that of its first parent."""
    if key in base:
        return key
    owner, _, rest = key.partition("/")
    if not re.fullmatch(r"[A-Z]\w*", owner):
        return None
    return next((known for known in base if known.partition("/")[2] == rest and known[:1].isupper()), None)


def value_of(found: Figures, key: str | None) -> int:
    return found[key].value if key is not None and key in found else 0


def compared(path: str) -> bool:
    """Whether a recorded file's figures are compared."""
    if re.fullmatch(r"/proc/[A-Z]\w*/(status|smaps_rollup)", path):
        return True
    return path in ("/proc/meminfo", "/proc/vmstat") or path.startswith("/sys/")


def load_cases(directory: Path) -> Iterator[Case]:
    """Every recording of a directory, by name."""
    for path in sorted(directory.glob("*.json.gz")):
        yield Case.load(path)
