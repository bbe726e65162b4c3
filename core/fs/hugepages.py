"""The files of the huge page pools: /sys/kernel/mm/hugepages, a node's share of it, three tunables, and the cgroup's hugetlb.* files.

    nr_hugepages            all pages of the pool, surplus included; a write asks for so many persistent ones
    /proc/sys/vm/nr_hugepages   the same of the default size; reads as the persistent ones
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.fs.node import Row, bad, page_counter_memparse, parse_int, show, tunable
from core.mm import hugetlb, hugetlb_cgroup

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.hugetlb_types import Hstate
    from core.mm.memcontrol import Cgroup
    from core.sched.task import Task

SIZES = (("hugepages-1048576kB", 0), ("hugepages-2048kB", 1))  # directory, index in k.hstates
CGROUP_SIZES = (("1GB", 0), ("2MB", 1))
MOST = (1 << 63) - 1
OWN_POLICY = "`put` says by whom (`by`); the file tree itself is written by root, who has no policy: as nr_hugepages"


# ---------------------------------------------------------------- /sys

def read_count(size: int, attribute: str, k: Kernel) -> str:
    """One counter of a pool."""
    return show(getattr(k.hstates[size], attribute))


def read_node_count(size: int, attribute: str, k: Kernel, node: int) -> str:
    """A node's part of it."""
    return show(getattr(k.hstates[size], attribute)[node])


def write_count(size: int, k: Kernel, text: str) -> None:
    """nr_hugepages: grow or shrink the pool, as far as it goes."""
    hugetlb.set_max_huge_pages(k, k.hstates[size], parse_int(text, 0, MOST, "nr_hugepages"))


def write_node_count(size: int, k: Kernel, node: int, text: str) -> None:
    """nr_hugepages of one node."""
    hugetlb.set_max_huge_pages(k, k.hstates[size], parse_int(text, 0, MOST, "nr_hugepages"), node)


def set_by_policy(k: Kernel, path: str, text: str, task: Task) -> None:
    """nr_hugepages_mempolicy, written by a process: the pool grows and shrinks on the nodes of its memory policy only."""
    size = next((size for directory, size in SIZES if directory in path), None)
    h = k.hstates[size] if size is not None else k.default_hstate
    hugetlb.set_max_huge_pages(k, h, parse_int(text, 0, MOST, "nr_hugepages_mempolicy"), allowed=hugetlb.nodes_of_policy(k, task))


def write_demote(size: int, k: Kernel, text: str) -> None:
    """demote: break so many free pages up."""
    hugetlb.demote(k, k.hstates[size], parse_int(text, 0, MOST, "demote"))


def write_node_demote(size: int, k: Kernel, node: int, text: str) -> None:
    """demote, of one node."""
    hugetlb.demote(k, k.hstates[size], parse_int(text, 0, MOST, "demote"), node)


def read_demote_size(k: Kernel, *node: int) -> str:
    """What they become."""
    return "2048kB\n"


def write_demote_size(k: Kernel, *words: int | str) -> None:
    """Only 2 MiB is smaller than 1 GiB."""
    if str(words[-1]).strip().upper() not in ("2M", "2048K", "2097152"):
        raise bad("pages of 1 GiB can become pages of 2M only")


def demote_rows(at: str, *, node: bool) -> tuple[Row, ...]:
    """demote and demote_size: of 1 GiB pages only."""
    write = partial(write_node_demote if node else write_demote, 0)
    return (
        Row(at + "demote", 0o200, "break so many free pages up into smaller ones", None, write),
        Row(at + "demote_size", 0o644, "what demoted pages become", read_demote_size, write_demote_size),
    )


def write_overcommit(size: int, k: Kernel, text: str) -> None:
    """nr_overcommit_hugepages: EINVAL for gigantic pages, which are never surplus."""
    _overcommit(k.hstates[size], parse_int(text, 0, MOST, "nr_overcommit_hugepages"))


def _overcommit(h: Hstate, number: int) -> None:
    if h.gigantic:
        raise bad("pages of 1 GiB cannot be had on demand: there is no surplus of them")
    h.nr_overcommit_huge_pages = number


def sysfs_rows(base: str) -> tuple[Row, ...]:
    """/sys/kernel/mm/hugepages/hugepages-*/."""
    out: list[Row] = []
    for directory, size in SIZES:
        def row(name: str, mode: int, doc: str, attribute: str, **more: object) -> Row:
            return Row(f"{base}hugepages/{directory}/{name}", mode, doc, partial(read_count, size, attribute), **more)  # type: ignore[arg-type]  # noqa: B023

        out += (
            row("nr_hugepages", 0o644, "huge pages in the pool", "nr_huge_pages", write=partial(write_count, size)),
            row("nr_hugepages_mempolicy", 0o644, "the same, by the writer's memory policy", "nr_huge_pages", write=partial(write_count, size),
                support="partial", note=OWN_POLICY),
            row("nr_overcommit_hugepages", 0o644, "surplus pages allowed", "nr_overcommit_huge_pages", write=partial(write_overcommit, size)),
            row("free_hugepages", 0o444, "pages not in use", "free_huge_pages"),
            row("resv_hugepages", 0o444, "pages promised to mappings that have not touched them", "resv_huge_pages"),
            row("surplus_hugepages", 0o444, "pages above nr_hugepages: they leave the pool when freed", "surplus_huge_pages"),
            *(demote_rows(f"{base}hugepages/{directory}/", node=False) if size == 0 else ()),
        )  # fmt: skip
    return tuple(out)


def node_rows(base: str) -> tuple[Row, ...]:
    """/sys/devices/system/node/nodeN/hugepages/hugepages-*/."""
    out: list[Row] = []
    for directory, size in SIZES:
        at = f"{base}hugepages/{directory}/"
        out += (
            Row(at + "nr_hugepages", 0o644, "huge pages of the node", partial(read_node_count, size, "nr_node"), partial(write_node_count, size)),
            Row(at + "free_hugepages", 0o444, "of them not in use", partial(read_node_count, size, "free_node")),
            Row(at + "surplus_hugepages", 0o444, "of them surplus", partial(read_node_count, size, "surplus_node")),
            *(demote_rows(at, node=True) if size == 0 else ()),
        )  # fmt: skip
    return tuple(out)


# ---------------------------------------------------------------- /proc/sys/vm

def read_max(k: Kernel) -> str:
    """The persistent pages of the default size."""
    return show(k.default_hstate.max_huge_pages)


def write_max(k: Kernel, text: str) -> None:
    """Grow or shrink the pool of the default size."""
    hugetlb.set_max_huge_pages(k, k.default_hstate, parse_int(text, 0, MOST, "vm.nr_hugepages"))


def read_overcommit(k: Kernel) -> str:
    """Surplus pages allowed, of the default size."""
    return show(k.default_hstate.nr_overcommit_huge_pages)


def write_default_overcommit(k: Kernel, text: str) -> None:
    """Allow so many."""
    _overcommit(k.default_hstate, parse_int(text, 0, MOST, "vm.nr_overcommit_hugepages"))


def sysctl_rows() -> tuple[Row, ...]:
    """The tunables of the pool of the default size."""
    base = "/proc/sys/vm/"
    return (
        Row(base + "nr_hugepages", 0o644, "huge pages in the pool", read_max, write_max),
        Row(base + "nr_hugepages_mempolicy", 0o644, "the same, by the writer's memory policy", read_max, write_max, "partial", OWN_POLICY),
        Row(base + "nr_overcommit_hugepages", 0o644, "surplus huge pages the pool may take", read_overcommit, write_default_overcommit),
    )  # fmt: skip


# ---------------------------------------------------------------- cgroup

def has_hugetlb(k: Kernel, cg: Cgroup) -> bool:
    """The parent gives the hugetlb controller."""
    return cg.parent is not None and "hugetlb" in cg.controllers


def read_limit(size: int, attribute: str, k: Kernel, cg: Cgroup) -> str:
    """A limit in bytes, or max."""
    return tunable(getattr(hugetlb_cgroup.read(k, cg, k.hstates[size]), attribute))


def write_limit(size: int, attribute: str, k: Kernel, cg: Cgroup, text: str) -> None:
    """A limit, rounded down to whole huge pages."""
    h = k.hstates[size]
    pages = page_counter_memparse(text, "hugetlb limit")
    if text.strip() != "max":
        pages -= pages % h.nr_pages
    setattr(hugetlb_cgroup.counter(k, cg, h), attribute, pages)


def read_usage(size: int, attribute: str, k: Kernel, cg: Cgroup) -> str:
    """Bytes."""
    return show(getattr(hugetlb_cgroup.read(k, cg, k.hstates[size]), attribute) * 4096)


def read_events(size: int, attribute: str, k: Kernel, cg: Cgroup) -> str:
    """max: how often a limit refused."""
    return f"max {getattr(hugetlb_cgroup.read(k, cg, k.hstates[size]), attribute)}\n"


def numa_stat(size: int, k: Kernel, cg: Cgroup) -> str:
    """Bytes in use, and by node, with those below."""
    h = k.hstates[size]
    line, below = f"total={hugetlb_cgroup.read(k, cg, h).usage * 4096}", [cg]
    for at in below:
        below.extend(at.children.values())
    for node in range(k.nr_nodes):
        line += f" N{node}={sum(hugetlb_cgroup.read(k, at, h).by_node[node] for at in below) * 4096}"
    return line + "\n"


def cgroup_rows(base: str) -> tuple[Row, ...]:
    """hugetlb.2MB.*, hugetlb.1GB.*."""
    out: list[Row] = []
    for name, size in CGROUP_SIZES:
        at = f"{base}hugetlb.{name}."
        for kind, usage, limit, what in (("", "usage", "max", "in use"), ("rsvd.", "rsvd_usage", "rsvd_max", "promised, or in use without a promise")):
            out += (
                Row(at + kind + "max", 0o644, f"bytes that may be {what}", partial(read_limit, size, limit), partial(write_limit, size, limit),
                    present=has_hugetlb),
                Row(at + kind + "current", 0o444, f"bytes {what}", partial(read_usage, size, usage), present=has_hugetlb),
            )  # fmt: skip
        out += (
            Row(at + "events", 0o444, "how often a limit refused, with those below", partial(read_events, size, "max_events"), present=has_hugetlb),
            Row(at + "events.local", 0o444, "the same, of this cgroup alone", partial(read_events, size, "max_events_local"), present=has_hugetlb),
            Row(at + "numa_stat", 0o444, "bytes in use, by node", partial(numa_stat, size), present=has_hugetlb),
        )  # fmt: skip
    return tuple(out)


# ---------------------------------------------------------------- what other files show of the pools

def meminfo(k: Kernel) -> str:
    """HugePages_* of the default size."""
    h = k.default_hstate
    counts = (("Total", h.nr_huge_pages), ("Free", h.free_huge_pages), ("Rsvd", h.resv_huge_pages), ("Surp", h.surplus_huge_pages))
    return "".join(f"{'HugePages_' + name + ':':<16}{count:8d}\n" for name, count in counts)


def sizes(k: Kernel) -> list[tuple[str, int]]:
    """Hugepagesize, and Hugetlb: all pools together, kB."""
    return [("Hugepagesize", k.default_hstate.size >> 10), ("Hugetlb", sum(h.nr_huge_pages * h.size for h in k.hstates) >> 10)]


def node_meminfo(k: Kernel, node: int) -> str:
    """A node's HugePages_* (hugetlb_report_node_meminfo)."""
    h = k.default_hstate
    counts = (("Total", h.nr_node), ("Free", h.free_node), ("Surp", h.surplus_node))
    return "".join(f"Node {node} HugePages_{name + ':':<6} {count[node]:5d}\n" for name, count in counts)
