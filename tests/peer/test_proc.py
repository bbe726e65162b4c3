"""proc-pid-vm and proc-empty-vm, the kernel's selftests of /proc/<pid>'s address-space files."""

from __future__ import annotations

import re

import pytest

from tests.peer.box import FREE, PAGE, TASK_SIZE, Box

FILE = "/data/exe"


@pytest.fixture
def box() -> Box:
    found = Box(memory="512M")
    found.kernel.call("create_file", path=FILE, size=PAGE)
    return found


def emptied(box: Box) -> int:
    """A process that unmapped everything."""
    pid = box.spawn()
    box.ok(pid, "munmap", address=0, length=TASK_SIZE)
    return pid


def executable(box: Box) -> int:
    """A process with nothing but one executable page of a file."""
    pid = emptied(box)
    box.mmap(pid, PAGE, "rx", ["private", "fixed"], address=FREE, file=FILE)
    return pid


def without_vsyscall(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.endswith("[vsyscall]")]


def test_pv01_maps(box: Box) -> None:
    pid = executable(box)
    text = box.text(f"/proc/{pid}/maps")
    assert text.endswith("\n")
    (line,) = without_vsyscall(text)
    assert re.match(rf"{FREE:08x}-{FREE + PAGE:08x} r-xp 00000000 [0-9a-f]{{2}}:[0-9a-f]{{2}} \d+ +/", line)
    assert line.index(FILE) == 73
    assert line.endswith(FILE)


SMAPS = """\
Size:                  4 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Anonymous:             0 kB
AnonHugePages:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Locked:                0 kB
"""


@pytest.mark.parametrize("line", SMAPS.splitlines())
def test_pv02_smaps(box: Box, line: str) -> None:
    assert f"\n{line}\n" in box.text(f"/proc/{executable(box)}/smaps")


def test_pv03_smaps_rollup(box: Box) -> None:
    first = box.text(f"/proc/{executable(box)}/smaps_rollup").splitlines()[0]
    head = f"{FREE:08x}-{FREE + PAGE:08x} ---p 00000000 00:00 0 "
    assert first == f"{head:<73}[rollup]"


def test_pv04_statm(box: Box) -> None:
    """size resident shared text lib data dirty; text is where exec put the code, mapped or not."""
    text = box.text(f"/proc/{executable(box)}/statm")
    assert re.fullmatch(r"1 [01] [01] \d+ 0 0 0\n", text), text


def test_pv04_statm_resident(box: Box) -> None:
    pid = executable(box)
    box.touch(pid, FREE, PAGE, "exec")
    assert re.fullmatch(r"1 [01] [01] \d+ 0 0 0\n", box.text(f"/proc/{pid}/statm"))
    assert box.smaps_kb(pid, FREE, "Rss") == 4


def test_pv05_vsyscall_if_any_is_the_kernels_own_line(box: Box) -> None:
    lines = [line for line in box.maps(box.spawn()) if "[vsyscall]" in line]
    wanted = "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]"
    assert lines in ([], [wanted])


def test_pe01_an_empty_address_space(box: Box) -> None:
    pid = emptied(box)
    assert without_vsyscall(box.text(f"/proc/{pid}/maps")) == []
    assert without_vsyscall(box.text(f"/proc/{pid}/numa_maps")) == []
    rollup = box.text(f"/proc/{pid}/smaps_rollup")
    head = "00000000-00000000 ---p 00000000 00:00 0 "
    assert rollup.splitlines()[0] == f"{head:<73}[rollup]"
    assert set(re.findall(r":\s+(\d+) kB", rollup)) == {"0"}
    assert re.fullmatch(r"0 0 0 \d+ 0 0 0\n", box.text(f"/proc/{pid}/statm"))
    assert box.status(pid)["VmRSS"] == 0


def test_pe01_nothing_is_left_but_the_top_table(box: Box) -> None:
    """Every frame is given back; the page-table root alone is the process's, and it is not counted in VmPTE."""
    before = box.meminfo()["AnonPages"]
    pid = box.spawn()
    assert box.meminfo()["AnonPages"] > before
    box.ok(pid, "munmap", address=0, length=TASK_SIZE)
    assert box.meminfo()["AnonPages"] == before
    assert box.status(pid)["VmPTE"] == 0


def test_fm20_a_zombie_has_no_memory(box: Box) -> None:
    parent = box.spawn()
    child = int(box.ok(parent, "fork")["pid"])
    box.ok(child, "exit")
    assert box.text(f"/proc/{child}/maps") == ""
    status = box.text(f"/proc/{child}/status")
    assert "State:\tZ (zombie)\n" in status
    assert "VmSize" not in status
    words = box.text(f"/proc/{child}/stat").rpartition(")")[2].split()
    assert (words[20], words[21]) == ("0", "0")
    assert box.ok(parent, "wait")["pid"] == child
    assert str(child) not in box.kernel.listdir("/proc")
