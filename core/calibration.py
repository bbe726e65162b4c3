"""Where every constant of time comes from: `GET /v1/calibration`.

Each constant of `machine.Costs`, of the kinds of storage, of the translation caches and of the scheduler is listed with its value, unit,
source and how it was obtained:

    measured   on a real machine, rounded; the program that measured it is named
    fitted     chosen so that sums of it agree with a measurement
    assumed    from documentation, a data sheet or the order of magnitude; nobody has measured it here

Absolute times are a model. What depends on them are `elapsed_ns`, the order in which programs and daemons come, and PSI; counts of faults,
pages and kills of a single process do not.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from core.machine import STORAGE_NS, TLB, Costs
from core.sched import fair, psi

HOW = ("measured", "fitted", "assumed")
KFAULT = "benchmarks/kernel/kfault.c on a server of the 2020s, rounded"

# (constant of Costs, how, source)
COSTS: tuple[tuple[str, str, str], ...] = (
    ("syscall", "measured", "getppid() in a loop on a server of the 2020s with mitigations, rounded"),
    ("access", "assumed", "a load or store that hits the caches: some cycles (vendors' optimization manuals)"),
    ("fault", "fitted", f"with clear_page the first write of an anonymous page, 0.8 us: {KFAULT}"),
    ("zero_page", "fitted", f"with fault the first read of an anonymous page: {KFAULT}"),
    ("clear_page", "fitted", f"with fault the first write of an anonymous page: {KFAULT}"),
    ("clear_huge_page", "assumed", "512 times 4 KiB at 20 GB/s: zeroing in one stretch is faster than page by page"),
    ("copy_page", "fitted", f"with fault a copy-on-write: {KFAULT}"),
    ("reuse", "assumed", "a write-protection fault without a copy: entry, flush of one translation"),
    ("map_file", "assumed", "one entry of fault-around: less than a tenth of a fault"),
    ("page_cache", "assumed", "a radix-tree look-up and a copy of 4 KiB at 16 GB/s"),
    ("vma", "assumed", "find, split, merge and insert one mapping: about a microsecond"),
    ("fork", "assumed", "task structures without page tables: fork of a small process takes 50 to 100 us"),
    ("fork_pte", "measured", f"fork's copy of an entry: {KFAULT}"),
    ("zap_pte", "measured", f"munmap of a page: {KFAULT}"),
    ("protect_pte", "assumed", "one entry rewritten, without freeing: a quarter of zap_pte"),
    ("exit", "assumed", "task structures and signals to the parent, without the address space"),
    ("scan_page", "assumed", "isolate a page, walk its reverse mapping, put it back"),
    ("ksm_page", "assumed", "xxhash of 4 KiB at 10 GB/s and a comparison or two; the rates in Documentation/admin-guide/mm/ksm.rst"),
    ("ksm_round", "assumed", "a wake-up of ksmd: two context switches and the scan's set-up"),
    ("swap_out", "assumed", "hand one page to the block layer: a request of an asynchronous write, without the device's own time"),
    ("compact_scan", "assumed", "compaction looks at one frame: its row of mem_map and whether a free block begins there, both in cache mostly"),
    ("migrate_page", "assumed", "copy 4 KiB, find and rewrite the entries, flush: 1 to 2 us a page as published for move_pages"),
    ("context_switch", "assumed", "one to two microseconds, as published for lmbench's lat_ctx on servers"),
    ("invlpg", "assumed", "forget one page: about 100 ns, as the comment in arch/x86/mm/tlb.c puts a single flush"),
    ("tlb_flush", "assumed", "forget an address space: a write to CR3"),
    ("ipi", "assumed", "interrupt another CPU and wait: 1 to 6 us in published measurements of shootdowns"),
    ("oom_look", "fitted", "a quarter of an oom event a page of the dying victim, as recorded when memory.max was lowered below usage"),
    ("oom_kill", "assumed", "selection, the report to a console and the victim's first steps: a few milliseconds"),
)
STORAGE: dict[str, tuple[str, str]] = {
    "disk": ("assumed", "data sheets of 7,200 rpm disks: seek and half a turn; streaming rate"),
    "ssd": ("assumed", "data sheets of SATA SSDs: one read of 4 KiB; the interface's rate"),
    "nvme": ("assumed", "data sheets of NVMe drives: one read of 4 KiB; sequential read"),
    "virtio": ("assumed", "a virtual disk on a SATA SSD: the same latency and rate, whatever the guest takes it for"),
    "zram": ("assumed", "lzo-rle: a page in about 3 us; single-core rate"),
}


def _row(name: str, value: int, unit: str, how: str, source: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "how": how, "source": source}


def calibration_table() -> list[dict[str, Any]]:
    """Every constant of time, in the order of the tables that hold them."""
    costs = Costs()
    known = {name: (how, source) for name, how, source in COSTS}
    rows = [_row(f"costs.{one.name}", getattr(costs, one.name), "ns", *known[one.name]) for one in fields(Costs)]
    for kind, (latency, bandwidth) in STORAGE_NS.items():
        rows.append(_row(f"storage.{kind}.latency_ns", latency, "ns", *STORAGE[kind]))
        rows.append(_row(f"storage.{kind}.bandwidth", bandwidth, "bytes/s", *STORAGE[kind]))
    for name, value in TLB:
        unit = "cycles" if name == "miss_cycles" else "entries"
        rows.append(_row(f"tlb.{name}", value, unit, "assumed", "a Skylake-era core (vendor's optimization manual); a machine may say otherwise"))
    source = "Linux 6.1's default, before scaling by processors (kernel/sched/fair.c)"
    rows.append(_row("sched.latency_ns", fair.LATENCY_NS, "ns", "assumed", source))
    rows.append(_row("sched.min_granularity_ns", fair.MIN_GRANULARITY_NS, "ns", "assumed", source))
    rows.append(_row("psi.period_ns", psi.PSI_PERIOD, "ns", "assumed", "2*HZ+1 ticks at HZ = 250, Debian's kernels (kernel/sched/psi.c)"))
    return rows
