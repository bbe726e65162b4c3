"""The cgroup's cpuset.* files: lists such as 0-1,3; an empty write takes the parent's (kernel/cgroup/cpuset.c)."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from core.fs.cgroup import live_pids
from core.fs.node import FsError, Row, bad, bit_list
from core.mm import cpuset, memcontrol

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup

LIST = re.compile(r"(\d+)(?:-(\d+))?")
KINDS = {"cpus": ("CPU", 0), "mems": ("node", 1)}  # what it counts, and which of `cpuset.effective`


def has_cpuset(k: Kernel, cg: Cgroup) -> bool:
    """The parent gives the cpuset controller."""
    return cg.parent is not None and "cpuset" in cg.controllers


def root_or_cpuset(k: Kernel, cg: Cgroup) -> bool:
    """The root, and every cgroup with the controller."""
    return cg.parent is None or has_cpuset(k, cg)


def read_asked(kind: str, k: Kernel, cg: Cgroup) -> str:
    """What was written."""
    return bit_list(getattr(cg, kind)) + "\n"


def read_effective(kind: str, k: Kernel, cg: Cgroup) -> str:
    """What is had."""
    return bit_list(cpuset.effective(k, cg)[KINDS[kind][1]]) + "\n"


def write_asked(kind: str, k: Kernel, cg: Cgroup, text: str) -> None:
    """EINVAL: no list, or one that the machine does not have; ENOSPC: nothing, and there are processes here."""
    numbers = parse_list(kind, text)
    if not set(numbers) <= set(cpuset.effective(k, k.root_cgroup)[KINDS[kind][1]]):
        raise bad(f"cpuset.{kind}: the machine has {KINDS[kind][0]}s {bit_list(cpuset.effective(k, k.root_cgroup)[KINDS[kind][1]])}")
    if getattr(cg, kind) and not numbers and any(live_pids(k, at) for at in memcontrol.subtree(k, cg)):
        raise FsError("ENOSPC", f"cpuset.{kind} cannot be emptied while there are processes in the cgroup")
    before = cpuset.below(k, cg)
    setattr(cg, kind, numbers)
    cpuset.refresh(k, before)


def parse_list(kind: str, text: str) -> list[int]:
    """[0, 1, 3] of 0-1,3."""
    numbers: set[int] = set()
    for part in text.strip().split(",") if text.strip() else []:
        match = LIST.fullmatch(part.strip())
        if not match or len(part) > 16 or int(match[2] or match[1]) < int(match[1]) or int(match[2] or match[1]) > 1 << 16:
            raise bad(f"cpuset.{kind} takes a list such as 0-1,3, not {text.strip()!r}")
        numbers |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(numbers)


def read_partition(k: Kernel, cg: Cgroup) -> str:
    """Partitions are not simulated."""
    return "member\n"


def write_partition(k: Kernel, cg: Cgroup, text: str) -> None:
    """Only what it is already."""
    if text.strip() not in ("member", "root", "isolated"):
        raise bad("cpuset.cpus.partition takes member, root or isolated")
    if text.strip() != "member":
        raise FsError("EOPNOTSUPP", "partitions of CPUs are not simulated")


def rows(base: str) -> tuple[Row, ...]:
    """The files of one cgroup, in Linux's order."""
    return (
        *(Row(f"{base}cpuset.{kind}", 0o644, f"{what}s that its processes shall use; empty: the parent's", partial(read_asked, kind),
              partial(write_asked, kind), present=has_cpuset) for kind, (what, _) in KINDS.items()),
        *(Row(f"{base}cpuset.{kind}.effective", 0o444, f"{what}s that its processes may use", partial(read_effective, kind),
              present=root_or_cpuset) for kind, (what, _) in KINDS.items()),
        Row(base + "cpuset.cpus.partition", 0o644, "member", read_partition, write_partition, "partial", "partitions are not simulated",
            present=has_cpuset),
    )  # fmt: skip
