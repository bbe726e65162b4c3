"""maps and smaps line by line: names, columns, flags, and who may have huge pages."""
import pytest

from core import Kernel, Machine
from core.abi.mman import (
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from core.fs import proc_pid
from core.mm.mempolicy import Mempolicy
from core.mm.mm_types import Inode, Mm, Vma

RW = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel.boot(Machine.from_dict({"memory": "256M"}))


def address_space() -> Mm:
    """A heap at 0x600000..0x621000 and a stack whose first byte used was 0x7fffffffe000."""
    mm = Mm(1)
    mm.start_brk, mm.brk, mm.start_stack = 0x600000, 0x621000, 0x7FFFFFFFE000
    return mm


def mapping(start: int, end: int, flags: int = RW, file: Inode | None = None, pgoff: int = 0) -> Vma:
    return Vma(address_space(), start >> 12, end >> 12, flags, pgoff, file)


FILE = Inode(1, "/data/f", 1 << 20, ino=12, dev=(0xFE, 0x20))
ZERO = Inode(2, "/dev/zero (deleted)", 1 << 20, shmem=True, ino=1024, dev=(0, 1))
ODD = Inode(3, "/data/two\nlines", 1, ino=13, dev=(0xFE, 0x20))

LINES = (
    (mapping(0x7FFFF3FF9000, 0x7FFFF7FF9000), "7ffff3ff9000-7ffff7ff9000 rw-p 00000000 00:00 0 "),
    (mapping(0x600000, 0x621000), "00600000-00621000 rw-p 00000000 00:00 0                                  [heap]"),
    (mapping(0x5FF000, 0x600000), "005ff000-00600000 rw-p 00000000 00:00 0                                  [heap]"),
    (mapping(0x622000, 0x623000), "00622000-00623000 rw-p 00000000 00:00 0 "),
    (mapping(0x7FFFFFFDE000, 0x7FFFFFFFF000, RW | VM_GROWSDOWN),
     "7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]"),
    (mapping(0x7FFFF5E00000, 0x7FFFF7E00000, VM_READ, FILE, 3), "7ffff5e00000-7ffff7e00000 r--p 00003000 fe:20 12                         /data/f"),
    (mapping(0x7FFFF6FF9000, 0x7FFFF7FF9000, RW | VM_SHARED | VM_MAYSHARE, ZERO),
     "7ffff6ff9000-7ffff7ff9000 rw-s 00000000 00:01 1024                       /dev/zero (deleted)"),
    (mapping(0x10000, 0x11000, 0, ODD), "00010000-00011000 ---p 00000000 fe:20 13                                 /data/two\\012lines"),
)  # fmt: skip


@pytest.mark.parametrize(("vma", "line"), LINES, ids=[line[:17] for _, line in LINES])
def test_maps_line(vma: Vma, line: str) -> None:
    assert proc_pid.map_line(vma.mm, vma) == line + "\n"
    assert len(line) == line.rindex(" ") + 1 or line[73] in "[/", "names stand in column 73"


FLAGS = (
    (RW, "rd wr mr mw "), (VM_READ, "rd "), (0, ""), (RW | VM_LOCKED | VM_LOCKONFAULT, "rd wr mr mw lo ?? "),
    (RW | VM_HUGEPAGE, "rd wr mr mw hg "), (VM_READ | VM_SHARED | VM_MAYSHARE, "rd sh ms "),
)  # fmt: skip


@pytest.mark.parametrize(("flags", "letters"), FLAGS)
def test_flags_stand_in_bit_order_with_a_blank_after_each(flags: int, letters: str) -> None:
    assert proc_pid.vm_flags(mapping(0x10000, 0x11000, flags)) == letters


M2 = 2 << 20
ELIGIBLE = (
    ("always", mapping(0x40000000, 0x40000000 + M2), True), ("always", mapping(0x40001000, 0x40000000 + 2 * M2), True),
    ("always", mapping(0x40001000, 0x40001000 + M2), False), ("always", mapping(0x40000000, 0x40000000 + M2 - 4096), False),
    ("always", mapping(0x40000000, 0x40000000 + M2, RW | VM_NOHUGEPAGE), False), ("madvise", mapping(0x40000000, 0x40000000 + M2), False),
    ("madvise", mapping(0x40000000, 0x40000000 + M2, RW | VM_HUGEPAGE), True),
    ("never", mapping(0x40000000, 0x40000000 + M2, RW | VM_HUGEPAGE), False),
    ("always", mapping(0x40000000, 0x40000000 + M2, RW, FILE), False), ("always", mapping(0x40000000, 0x40000000 + M2, RW, ZERO), False),
)  # fmt: skip


@pytest.mark.parametrize(("mode", "vma", "eligible"), ELIGIBLE)
def test_thp_eligible(kernel: Kernel, mode: str, vma: Vma, eligible: bool) -> None:
    kernel.thp["enabled"] = mode
    assert proc_pid.thp_eligible(kernel, vma.mm, vma) is eligible


POLICIES = (
    (None, "default"), (Mempolicy("local"), "local"), (Mempolicy("preferred", (0,)), "prefer:0"), (Mempolicy("bind", (0, 1)), "bind:0-1"),
    (Mempolicy("interleave", (0, 1, 3)), "interleave:0-1,3"), (Mempolicy("bind", (1,), "static"), "bind=static:1"),
    (Mempolicy("preferred_many", (0, 2)), "prefer (many):0,2"),
)  # fmt: skip


@pytest.mark.parametrize(("policy", "text"), POLICIES)
def test_policy_names(policy: Mempolicy | None, text: str) -> None:
    assert proc_pid.policy(policy) == text
