"""Score recordings: a table of cases, and the figures that fall short.

    python -m tests.conformance.run [--cases DIR] [--url URL] [-v] [NAME ...]

In process by default; `--url` plays the cases on a running service. Exit code 0: every figure of every case holds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from app.target import HttpTarget, Target
from tests.conformance.compare import Case, Report, compare

CASES = Path(__file__).parent / "cases"


def target_for(case: Case, url: str | None) -> Target:
    """A fresh kernel with the case's machine."""
    if url:
        return HttpTarget(url, case.scenario.machine, seed=1)
    from app.inprocess import KernelTarget

    return KernelTarget(case.scenario.machine, seed=1)


def score(path: Path, url: str | None = None) -> Report:
    """Play one recording."""
    case = Case.load(path)
    target = target_for(case, url)
    try:
        return compare(case, target)
    finally:
        target.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases by name; all when none is named")
    parser.add_argument("--cases", type=Path, default=CASES, help="directory of recordings")
    parser.add_argument("--url", help="a running service instead of a kernel in process")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every figure that falls short")
    args = parser.parse_args(argv)
    paths = [p for p in sorted(args.cases.glob("*.json.gz")) if not args.names or p.name[:-8] in args.names]
    scores = []
    for path in paths:
        started = time.perf_counter()
        name = path.name.removesuffix(".json.gz")
        try:
            report, note = score(path, args.url), ""
        except Exception as error:  # a case that cannot run scores nothing; the others still run
            report, note = Report(name), f"{type(error).__name__}: {error}"
        scores.append(report.score)
        held = len(report.checks) - len(report.failures)
        seconds = time.perf_counter() - started
        print(f"{report.score:7.1%} {held:4d}/{len(report.checks):<4d} {seconds:5.1f}s {name} {note}")
        for check in report.failures if args.verbose else ():
            print(f"          {check}")
    perfect = sum(score == 1.0 for score in scores)
    print(f"fidelity {sum(scores) / max(len(scores), 1):.1%} over {len(scores)} cases, {perfect} perfect")
    return 0 if scores and perfect == len(scores) else 1


if __name__ == "__main__":
    sys.exit(main())
