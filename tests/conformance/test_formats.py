"""Text formats: every recorded file against ours, byte for byte but for the digits.

Each scenario is played once and every file that a boot recorded is read from our kernel at the same point.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from app.inprocess import KernelTarget
from app.scenario import Runner
from tests.conformance.compare import Case
from tests.conformance.run import CASES
from tests.conformance.shapes import Learned, differences, one_format, shape, shapes

PATHS = sorted(CASES.glob("*.json.gz"))
IDS = [path.name.removesuffix(".json.gz") for path in PATHS]

# Whose lines depend on the address space of a process: looked at line by line.
RECORDS = ("maps", "smaps", "numa_maps")
# One number a line, and how many depends on the recorder's own processes.
LISTS = ("cgroup.procs",)

FIRST_MMAP = 0x7FF000000000


def family(path: str) -> str:
    """Files of one format: `/proc/PID/status`, `/cg/memory.stat`."""
    path = re.sub(r"^/proc/[A-Z]\w*/", "/proc/PID/", path)
    path = re.sub(r"^/sys/fs/cgroup/.*/", "/cg/", path)
    return re.sub(r"/node\d/", "/nodeN/", path)


def recorded(case: Case) -> Iterator[tuple[str, str, str]]:
    """Snapshot, path and text of every file of the first boot."""
    for label, snapshot in case.runs[0]["snaps"].items():
        for path, text in snapshot.items():
            yield label, path, text.removesuffix("\n")


@cache
def learned() -> dict[str, Learned]:
    """The formats of every family, from all recordings."""
    found: dict[str, Learned] = defaultdict(Learned)
    for path in PATHS:
        for _, name, text in recorded(Case.load(path)):
            found[family(name)].learn(text)
    return found


@cache
def played(path: Path) -> dict[tuple[str, str], str]:
    """Our files at every snapshot of a case: (label, path) → text."""
    case = Case.load(path)
    runner = Runner(case.scenario, KernelTarget(case.scenario.machine, seed=1))
    found: dict[tuple[str, str], str] = {}
    for number, line in case.scenario.lines:
        if not line.startswith("snap "):
            runner.step(line, number)
            continue
        label = line.split()[1]
        texts = runner.snapshot(list(case.runs[0]["snaps"][label]))
        found |= {(label, name): text for name, text in texts.items()}
    return found


def test_every_family_has_one_format() -> None:
    """The method: real lines of one kind are explained by one printf format."""
    for name, formats in learned().items():
        for key, fields in formats.fields.items():
            assert one_format(fields), (name, key, fields)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("MemFree:          398280 kB", False),
        ("MemFree:               1 kB", False),
        ("MemFree:         398280 kB", True),
        ("MemFree:          398280 KB", True),
        ("MemFree:\t398280 kB", True),
    ],
)
def test_a_wrong_width_is_found(line: str, wrong: bool) -> None:
    assert bool(learned()["/proc/meminfo"].misfits(line)) is wrong


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_files(path: Path) -> None:
    """Labels, order, widths, units, newlines."""
    ours, wrong = played(path), []
    for label, name, text in recorded(Case.load(path)):
        last = name.rpartition("/")[2]
        if last in RECORDS or last in LISTS:
            continue
        if (label, name) not in ours:
            wrong.append(f"{label} {name}: not there")
            continue
        wrong += [f"{label} {name}: {what}" for what in differences(ours[label, name], text, learned()[family(name)])]
    assert not wrong, "\n" + "\n".join(wrong[:60])


# ---- address spaces --------------------------------------------------------------------------------------------

MAPS_LINE = re.compile(r"[0-9a-f]{8,16}-[0-9a-f]{8,16} [r-][w-][x-][ps] [0-9a-f]{8,} [0-9a-f]{2}:[0-9a-f]{2,} \d+ (.*)")
NAME_COLUMN = 73


def header_errors(line: str) -> list[str]:
    """What is wrong with a VMA's line of maps or smaps."""
    match = MAPS_LINE.fullmatch(line)
    if not match:
        return [f"not a line of maps: {line!r}"]
    name = match[1].strip()
    if name and line.index(name, match.start(1)) != NAME_COLUMN:
        return [f"the name is not in column {NAME_COLUMN}: {line!r}"]
    if not name and match[1]:
        return [f"blanks after a nameless mapping: {line!r}"]
    return []


def above(text: str, start: int) -> list[str]:
    """Lines of mappings from an address up; device and inode numbers are the disk's business."""
    lines = [line for line in text.splitlines() if int(line.split("-")[0].split(" ")[0], 16) >= start]
    return [re.sub(r" [0-9a-f]{2}:[0-9a-f]{2} (\d+) ", lambda m: " DEV ", line) for line in lines]


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_maps(path: Path) -> None:
    """Each line's form; and above the heap, where no image of the recorder's lies, the very same mappings."""
    ours, wrong = played(path), []
    for label, name, text in recorded(Case.load(path)):
        if not name.endswith("/maps"):
            continue
        mine = ours.get((label, name))
        if mine is None:
            wrong.append(f"{label} {name}: not there")
            continue
        wrong += [f"{label} {name}: {what}" for line in mine.splitlines() for what in header_errors(line)]
        got, want = above(mine, FIRST_MMAP), above(text, FIRST_MMAP)
        got = [re.sub(r"DEV +", "DEV ", line) for line in got]
        want = [re.sub(r"DEV +", "DEV ", line) for line in want]
        wrong += [f"{label} {name}: Linux has {line!r}" for line in want if line not in got]
        wrong += [f"{label} {name}: ours alone {line!r}" for line in got if line not in want]
    assert not wrong, "\n" + "\n".join(wrong[:60])


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """smaps: each VMA's header and its lines."""
    header, lines = "", []
    for line in text.splitlines():
        if re.match(r"[0-9a-f]{8,}-", line):
            if header:
                yield header, lines
            header, lines = line, []
        else:
            lines.append(line)
    yield header, lines


# Two letters a flag, in the order of their bits (fs/proc/task_mmu.c).
VMFLAGS = (
    "rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "um", "pf", "uw", "lo", "io", "sr",
    "rr", "dc", "de", "ac", "nr", "ht", "sf", "wf", "dd", "sd", "mm", "hg", "nh", "mg",
)  # fmt: skip


def vmflags_errors(line: str) -> list[str]:
    """VmFlags: two letters and a blank each, in the order of their bits."""
    words = line.removeprefix("VmFlags: ").split()
    if line != "VmFlags: " + "".join(f"{word} " for word in words):
        return [f"blanks: {line!r}"]
    if any(word not in VMFLAGS for word in words):
        return [f"unknown letters: {line!r}"]
    if [VMFLAGS.index(word) for word in words] != sorted(VMFLAGS.index(word) for word in words):
        return [f"order: {line!r}"]
    return []


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_smaps(path: Path) -> None:
    """Every block has Linux's lines in Linux's order and widths; the same mapping has the same VmFlags."""
    ours, wrong = played(path), []
    formats = learned()["/proc/PID/smaps"]
    for label, name, text in recorded(Case.load(path)):
        if not name.endswith("/smaps"):
            continue
        order = [shape(line).text for line in next(blocks(text))[1][:-1]]
        flags = {head.split()[0]: lines[-1] for head, lines in blocks(text)}
        for head, lines in blocks(ours.get((label, name), "")):
            wrong += header_errors(head)
            if [shape(line).text for line in lines[:-1]] != order:
                wrong.append(f"{label} {name} {head}: lines {lines}")
            wrong += [what for line in lines[:-1] for what in formats.misfits(line)]
            wrong += vmflags_errors(lines[-1]) if lines else []
            start = head.split()[0]
            if start in flags and int(start.split("-")[0], 16) >= FIRST_MMAP and lines[-1] != flags[start]:
                wrong.append(f"{label} {name} {start}: {lines[-1]!r}, Linux has {flags[start]!r}")
    assert not wrong, "\n" + "\n".join(sorted(set(wrong))[:60])


NUMA_LINE = re.compile(
    r"[0-9a-f]{8,16} (default|local|prefer[^ ]*|bind[^ ]*|interleave[^ ]*)( file=\S+| heap| stack)?( huge)?"
    r"(?: anon=\d+)?(?: dirty=\d+)?(?: mapped=\d+)?(?: mapmax=\d+)?(?: swapcache=\d+)?(?: active=\d+)?(?: writeback=\d+)?"
    r"(?: N\d+=\d+)*(?: kernelpagesize_kB=(?:4|2048))?"
)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_numa_maps(path: Path) -> None:
    """The words of a line and their order; above the heap, anonymous mappings word for word."""
    ours, wrong = played(path), []
    for label, name, text in recorded(Case.load(path)):
        if not name.endswith("/numa_maps"):
            continue
        mine = ours.get((label, name))
        if mine is None:
            wrong.append(f"{label} {name}: not there")
            continue
        wrong += [f"{label} {name}: {line!r}" for line in mine.splitlines() if not NUMA_LINE.fullmatch(line)]
        got, want = above(mine, FIRST_MMAP), above(text, FIRST_MMAP)
        if [line.split()[:2] for line in got] != [line.split()[:2] for line in want]:
            wrong.append(f"{label} {name}: ours {got}, Linux {want}")
    assert not wrong, "\n" + "\n".join(wrong[:60])


# ---- the kernel log --------------------------------------------------------------------------------------------

OOM_CASES = [path for path in PATHS if "invoked oom-killer" in Case.load(path).runs[0]["dmesg"]]
# Between these lines stand the machine, the call trace and the registers: they are the recorder's own.
TRACE_BEGINS, TRACE_ENDS = re.compile(r"CPU: \d+ PID: \d+ Comm: "), re.compile(r" </TASK>")
TASK_ROW = re.compile(r"\[ *\d+\] +\d+ +\d+ +\d+ +\d+ +\d+ +\d+ +-?\d+ \S+")


ENDS = ("Killed process", "Out of memory and no killable processes")


def reports(log: str) -> list[list[str]]:
    """The whole OOM reports of a /dev/kmsg text: their lines without prefix, machine, call trace and registers."""
    found: list[list[str]] = []
    lines: list[str] = []
    tracing = False
    for record in log.splitlines():
        head, _, message = record.partition(";")
        if not re.match(r"\d+,\d+,\d+,", head):
            continue
        tracing = bool(TRACE_BEGINS.match(message)) or (tracing and not TRACE_ENDS.match(message))
        if tracing or TRACE_ENDS.match(message):
            continue
        if "invoked oom-killer" in message:
            lines = []
        if lines or "invoked oom-killer" in message:
            lines += message.split(r"\x0a")
        if lines and any(end in message for end in ENDS):
            found.append(lines)
            lines = []
    return found


def of_report(line: str) -> str:
    """A report line's shape: names and pages' counts away, task rows as one."""
    if TASK_ROW.fullmatch(line):
        return "TASK"
    line = re.sub(r"\(\w+\) total-vm", "(COMM) total-vm", line)
    line = re.sub(r"^\S+ invoked", "COMM invoked", line)
    line = re.sub(r"task=\w+,", "task=COMM,", line)
    line = re.sub(r" \([UMECHI]+\)", "", line)
    line = re.sub(r"\d+", "#", line)
    return re.sub(r" +", " ", line)


@cache
def our_log(path: Path) -> str:
    case = Case.load(path)
    target = KernelTarget(case.scenario.machine, seed=1)
    for _ in Runner(case.scenario, target).run():
        pass
    return target.read("/dev/kmsg").decode()


def squeezed(lines: list[str]) -> list[str]:
    """Runs of the same shape as one."""
    return [line for index, line in enumerate(lines) if index == 0 or line != lines[index - 1]]


@pytest.mark.parametrize("path", OOM_CASES, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_oom_report(path: Path) -> None:
    """The OOM report line by line: the first that the boot's log holds, against our first that ends as it does."""
    want = squeezed([of_report(line) for line in reports(Case.load(path).runs[0]["dmesg"])[0]])
    ours = [squeezed([of_report(line) for line in lines]) for lines in reports(our_log(path))]
    got = next(lines for lines in ours if lines[-1] == want[-1])
    assert len(want) > 10
    assert got == want, "\n".join(["", *(f"Linux {a!r}\nours  {b!r}" for a, b in zip(want, got, strict=False) if a != b)])


@pytest.mark.parametrize("path", OOM_CASES, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_kmsg_records(path: Path) -> None:
    """Every record: `level,sequence,microseconds,-;text`; sequence numbers rise by one, times never fall."""
    records = [line for line in our_log(path).splitlines() if not line.startswith(" ")]
    heads = [re.fullmatch(r"(\d+),(\d+),(\d+),-;.*", record) for record in records]
    assert all(heads), [record for record, head in zip(records, heads, strict=True) if not head][:5]
    numbers = [int(head[2]) for head in heads if head]
    times = [int(head[3]) for head in heads if head]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert times == sorted(times)


def test_shapes_of_odd_lines() -> None:
    assert shape("SigCgt:\t0000000000000440").text == "SigCgt:\t<hex16>"
    assert shape("some avg10=0.00 avg60=12.34 total=7").text == "some avg10=#.## avg60=#.## total=#"
    assert shape("112 (mm run) S 111 0").text == "# (COMM) STATE##"
    assert [s.fields for s in shapes("MemFree:   1 kB\nx 2\n")] == [((3, 1),), ((1, 1),)]
