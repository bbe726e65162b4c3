"""`make bench`: the simulated kernel beside the real kernel of this machine, and the service beside a bare route, in one run.

    python -m benchmarks [--json [FILE]] [--only core|service|journal|load|density] [--repetitions N] [--strict]

Exit code 0, or 1 with --strict when a target is missed.
"""
from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from benchmarks import density, journal, load, real_kernel, service, simulated
from benchmarks.report import Row, at_least, at_most, faster, repeat, table, within, write_json


def core_rows(repetitions: int) -> list[Row]:
    """The races: each repetition measures the real kernel and ours one after the other."""
    real_kernel.build()
    simulated.warm_up()
    real: dict[str, list[float]] = {}
    ours: dict[str, list[float]] = {}

    def note(side: dict[str, list[float]], figures: dict[str, float]) -> None:
        for name, value in figures.items():
            side.setdefault(name, []).append(value)

    for _ in range(repetitions):
        note(real, real_kernel.measure("anon_write_seq", 1024))
        note(ours, {f"seq_{k}": v for k, v in simulated.warm(lambda: simulated.first_write("sequential")).items()})
        note(real, real_kernel.measure("anon_write_rand", 1024))
        note(ours, {f"random_{k}": v for k, v in simulated.warm(lambda: simulated.first_write("random")).items()})
        note(real, real_kernel.measure("anon_read", 1024))
        note(ours, {"zero_page": simulated.warm(simulated.zero_page_read)})
        note(real, real_kernel.measure("fork", 512))
        note(ours, simulated.warm(simulated.fork_and_cow))
        note(ours, simulated.single_calls())
        note(ours, simulated.sparse_terabyte())
        note(ours, {f"thrash_{order}": simulated.thrash(order) for order in ("sequential", "random", "zipf")})
        note(ours, {"clean": simulated.clean_reclaim()})
        note(ours, simulated.reclaim_by_size())
        note(ours, simulated.ksm_scan())
        note(ours, simulated.tlb_trace())
        note(real, real_kernel.measure("thp", 1024))
        note(ours, simulated.huge_pages())
        note(ours, simulated.khugepaged_scan())
        note(ours, simulated.five_programs())
    sequential, rand = real["anon_first_write_seq"], real["anon_first_write_rand"]
    return [
        faster("first write, 1 GiB sequential", "ns/page", ours["seq_write"], sequential, 25, 55),
        faster("  the same on recycled frames", "ns/page", ours["seq_again"], sequential, 25, 55),
        faster("first write, 1 GiB random order", "ns/page", ours["random_write"], rand, 18, 80),
        faster("  the same on recycled frames", "ns/page", ours["random_again"], rand, 18, 80),
        faster("first read, zero page, 1 GiB", "ns/page", ours["zero_page"], real["anon_read_zeropage_seq"], 15),
        faster("copy-on-write in the child, 512 MiB", "ns/page", ours["cow"], real["cow_write_seq(child)"], 25),
        faster("fork of 512 MiB", "ns/page", ours["fork"], real["fork_copy_per_page"], 4),
        faster("munmap of 1 GiB", "ns/page", ours["seq_munmap"], real["munmap_after_seq"], 9, 40),
        faster("  the same after writes in random order", "ns/page", ours["random_munmap"], real["munmap_after_rand"], 6),
        faster("first write of huge pages, 4 GiB", "ns/4K", ours["huge_write"], real["thp_first_write_seq_per4K"], 20),
        at_most("khugepaged collapses 1 GiB", "ms", ours["khugepaged_collapse"], 200),
        at_most("khugepaged looks at 1 GiB of huge pages", "ms", ours["khugepaged_look"], 200),
        at_most("touch of one page, a fault, Kernel.call", "us", ours["fault"], 20),
        at_most("touch of one page, mapped, Kernel.call", "us", ours["mapped"], 20),
        within("1,000 pages over 1 TiB against over 2 GiB", "ms", ours["sparse"], ours["dense"], high=2.5),
        faster("thrash over twice the memory, sequential, against first touches", "ns/touch", ours["thrash_sequential"], sequential, 3),
        faster("  in random order: nearly every touch reads from swap", "ns/touch", ours["thrash_random"], sequential, 3),
        faster("  in zipf order", "ns/touch", ours["thrash_zipf"], sequential, 3),
        at_most("reclaim of a million clean file pages", "ms", ours["clean"], 400),
        within("  cost a page on 64 GiB against 64 MiB", "ns/page", ours["reclaim_64G"], ours["reclaim_64M"], high=1.5),
        within("  cost a page on 1 GiB against 64 MiB", "ns/page", ours["reclaim_1G"], ours["reclaim_64M"], high=1.5),
        at_most("ksmd's scan of 100,000 pages, all alike: merged", "ms", ours["ksm_merge"], 1000),
        at_most("ksmd's scan of 100,000 pages, each its own", "ms", ours["ksm_unique"], 1000),
        at_least("TLB trace, 256 MiB at random", "M/s", ours["tlb_uniform"], 40),
        at_least("TLB trace, 256 MiB by Zipf's law", "M/s", ours["tlb_zipf"], 40),
        at_least("touch of mapped pages in random order, all told", "M/s", ours["touch_random"], 20),
        at_most("five programs compete for 60 simulated seconds on 512M", "s", ours["programs"], 5),
        at_most("boot of the default machine", "ms", repeat(15, simulated.boot_ms), 5),
        at_most("one idle session more, resident", "MB", [simulated.idle_session_mb()], 1),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", nargs="?", type=Path, const=Path(__file__).parent / "results.json", help="write the figures to FILE")
    parser.add_argument("--only", choices=("core", "service", "journal", "load", "density"), help="measure one part")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    if options.only in (None, "core"):
        rows += core_rows(options.repetitions)
    if options.only in (None, "service"):
        rows += service.rows(options.repetitions)
    if options.only in (None, "journal"):
        rows += journal.rows(options.repetitions)
    if options.only in (None, "load"):
        rows += load.rows(options.repetitions)
    if options.only in (None, "density"):
        rows += density.rows()
    print(table(rows))
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cpus; medians of {options.repetitions}")
    if options.json:
        write_json(options.json, rows, {"platform": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()})
    return 1 if options.strict and not all(row.ok for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
