"""The kernel's command line: the boot parameters that this machine behaves by (`machine.cmdline`, shown by /proc/cmdline).

    transparent_hugepage=always|madvise|never      as machine.transparent_hugepage
    psi=0|1                                        0: no stall information: /proc/pressure and the cgroups' *.pressure are not there
    swapaccount=0|1                                0: swap is charged to nobody: no memory.swap.* files, so no limit on it
    numa_balancing=enable|disable                  as the sysctl kernel.numa_balancing
    hugepages=N  hugepagesz=SIZE  default_hugepagesz=SIZE    pools of huge pages from the start, in the order written
    norandmaps                                     addresses without ASLR: the only way here

Any other is refused by name. Linux would pass over what it does not know; here nothing is said to be in force that is not.

`swapaccount=0` is what kernels before 6.1 had: a cgroup with memory.max 50M that writes 200M is not killed, its pages go to swap, which
counts for nobody. 6.1 itself only warns that the parameter has no effect any more; here it has, so that the difference can be seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable

THP = ("always", "madvise", "never")
ON, OFF = ("1", "y", "Y", "on", "t", "T"), ("0", "n", "N", "off", "f", "F")
HUGE_SIZES = ("2M", "1G", "2m", "1g", "2048K", "2048k")
_HUGEPAGES = re.compile(r"[0-9]{1,9}|[0-9]{1,2}:[0-9]{1,9}(,[0-9]{1,2}:[0-9]{1,9})*")
DEFAULT = (("norandmaps", ""), ("psi", "1"), ("transparent_hugepage", ""), ("numa_balancing", "disable"))
ELSEWHERE = {
    "mem": "say machine.memory", "nr_cpus": "say machine.cpus", "maxcpus": "say machine.cpus", "numa": "say machine.nodes",
    "memory_recursiveprot": "it is a mount option of cgroup2: say machine.cgroup_mount", "cgroup_no_v1": "there is no cgroup v1 here",
    "cgroup_disable": "the memory controller is always there",
}  # fmt: skip

Parameters = tuple[tuple[str, str], ...]


def _one_of(*words: str) -> tuple[Callable[[str], bool], str]:
    return (lambda value: value in words), " or ".join(words)


_SIZE = _one_of(*HUGE_SIZES[:2])[1]
KNOWN: dict[str, tuple[Callable[[str], bool], str]] = {
    "transparent_hugepage": _one_of(*THP),
    "psi": (lambda value: value in ON + OFF, "0 or 1"),
    "swapaccount": (lambda value: value in ON + OFF, "0 or 1"),
    "numa_balancing": _one_of("enable", "disable"),
    "hugepages": (lambda value: _HUGEPAGES.fullmatch(value) is not None, "a number, or node:number,node:number"),
    "hugepagesz": (lambda value: value in HUGE_SIZES, _SIZE),
    "default_hugepagesz": (lambda value: value in HUGE_SIZES, _SIZE),
    "norandmaps": (lambda value: not value, "nothing"),
}


def parse(given: object) -> Parameters:
    """Parameters in their order from "psi=0 hugepages=4"; ValueError in plain words."""
    if not isinstance(given, str) or not given.isprintable() or len(given) > 2048:
        raise ValueError(f'machine.cmdline must be a line such as "transparent_hugepage=always psi=1", not {given!r}')
    found = []
    for word in given.split():
        name, _, value = word.partition("=")
        if name in ELSEWHERE:
            raise ValueError(f"machine.cmdline: {name} is not taken here: {ELSEWHERE[name]}")
        if name not in KNOWN:
            raise ValueError(f"machine.cmdline: {name!r} is not a parameter that this machine knows; there are {', '.join(KNOWN)}")
        right, what = KNOWN[name]
        if not right(value):
            raise ValueError(f"machine.cmdline: {name}={value} is wrong: it takes {what}")
        found.append((name, value))
    return tuple(found)


def value_of(parameters: Parameters, name: str, default: str) -> str:
    """The last value of a parameter, as the kernel has it."""
    return next((value for known, value in reversed(parameters) if known == name), default)


def is_on(parameters: Parameters, name: str) -> bool:
    """A switch that is on unless it was said otherwise."""
    return value_of(parameters, name, "1") in ON


def show(parameters: Parameters, thp: str) -> str:
    """/proc/cmdline: what every machine here is booted with, then what was said besides or otherwise."""
    said = {name for name, _ in parameters}
    words = [(name, thp if name == "transparent_hugepage" else value) for name, value in DEFAULT if name not in said]
    return " ".join(f"{name}={value}" if value else name for name, value in (*words, *parameters))
