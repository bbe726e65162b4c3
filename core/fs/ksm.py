"""/sys/kernel/mm/ksm and a process's ksm files: settings are checked here, `core.mm.ksm` does the rest (mm/ksm.c: KSM_ATTR).

    echo 1 > run     ksmd runs          echo 2 > run     it stops, and every shared page is copied back

Whether pages of different nodes may be merged and how many entries may share one can only change while none are shared (EBUSY).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.abi.errno import SysError
from core.fs.node import FsError, Row, parse_int, show
from core.mm import ksm

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

KSM = "/sys/kernel/mm/ksm/"
UINT_MAX = (1 << 32) - 1
BOOL = {"y": 1, "Y": 1, "t": 1, "T": 1, "1": 1, "n": 0, "N": 0, "f": 0, "F": 0, "0": 0}
COUNTERS = (
    ("pages_shared", "pages that are kept"), ("pages_sharing", "further entries that point to them: pages saved"),
    ("pages_unshared", "pages without a twin"), ("pages_volatile", "pages that change too fast, or were seen only once"),
    ("stable_node_dups", "duplicates of pages with too many sharers"), ("stable_node_chains", "chains of duplicates"),
    ("full_scans", "scans of all mergeable memory"),
)  # fmt: skip


def setting(name: str, k: Kernel) -> str:
    """One of k.ksm."""
    return show(k.ksm[name])


def figure(name: str, k: Kernel) -> str:
    """One of ksmd's counters."""
    return show(ksm.counter(k, name))


def write_run(k: Kernel, text: str) -> None:
    """run_store: ENOMEM when memory runs out while pages are copied back."""
    try:
        ksm.set_run(k, parse_int(text, 0, 2, "run"))
    except SysError as failure:
        raise FsError(failure.errno.name, failure.why) from None


def write_sleep(k: Kernel, text: str) -> None:
    """sleep_millisecs_store."""
    ksm.set_sleep(k, parse_int(text, 0, UINT_MAX, "sleep_millisecs"))


def write_number(name: str, k: Kernel, text: str) -> None:
    """An unsigned number that is looked at in the next round."""
    k.ksm[name] = parse_int(text, 0, UINT_MAX, name)


def write_zero_pages(k: Kernel, text: str) -> None:
    """use_zero_pages_store: what kstrtobool understands."""
    value = BOOL.get(text[:1]) if text[:1] not in "oO" else {"n": 1, "N": 1, "f": 0, "F": 0}.get(text[1:2])
    if value is None:
        raise FsError("EINVAL", f"use_zero_pages is 0 or 1, not {text[:20]!r}")
    k.ksm["use_zero_pages"] = value


def write_when_clean(name: str, low: int, high: int, k: Kernel, text: str) -> None:
    """max_page_sharing_store, merge_across_nodes_store."""
    if not ksm.set_when_clean(k, name, parse_int(text, low, high, name)):
        raise FsError("EBUSY", f"{name} cannot change while pages are shared: write 2 to run first")


def rows() -> tuple[Row, ...]:
    """The directory as rows of the file tree."""
    return (
        Row(KSM + "run", 0o644, "0 stop, 1 run, 2 stop and unmerge", partial(setting, "run"), write_run),
        Row(KSM + "pages_to_scan", 0o644, "pages scanned a round", partial(setting, "pages_to_scan"), partial(write_number, "pages_to_scan")),
        Row(KSM + "sleep_millisecs", 0o644, "pause between rounds", partial(setting, "sleep_millisecs"), write_sleep),
        Row(KSM + "use_zero_pages", 0o644, "merge empty pages with the zero page", partial(setting, "use_zero_pages"), write_zero_pages),
        Row(KSM + "stable_node_chains_prune_millisecs", 0o644, "pause between prunings",
            partial(setting, "stable_node_chains_prune_millisecs"), partial(write_number, "stable_node_chains_prune_millisecs")),
        Row(KSM + "merge_across_nodes", 0o644, "merge pages of different nodes; EBUSY while pages are shared",
            partial(setting, "merge_across_nodes"), partial(write_when_clean, "merge_across_nodes", 0, 1)),
        Row(KSM + "max_page_sharing", 0o644, "sharers of one page; EBUSY while pages are shared",
            partial(setting, "max_page_sharing"), partial(write_when_clean, "max_page_sharing", 2, (1 << 31) - 1)),
        *(Row(KSM + name, 0o444, doc, partial(figure, name)) for name, doc in COUNTERS),
    )  # fmt: skip


# ---------------------------------------------------------------- /proc/<pid>


def merging_pages(k: Kernel, task: Task) -> str:
    """How many entries of the process map KSM pages (proc_pid_ksm_merging_pages)."""
    return f"{ksm.merging_pages(k, task.mm)[0]}\n" if task.mm is not None else ""


def ksm_stat(k: Kernel, task: Task) -> str:
    """How many of its pages ksmd watches (proc_pid_ksm_stat)."""
    return f"ksm_rmap_items {ksm.merging_pages(k, task.mm)[1]}\n" if task.mm is not None else ""
