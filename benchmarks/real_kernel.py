"""The other side of the race: the kernel of the machine we run on, measured by a C program (kernel/kfault.c), compiled at run time.

Round 0 of each run is cold (a virtual machine's host may have to back the memory first) and is thrown away; only warm rounds count.
CPU time, not wall time: it does not move when another process preempts us.
"""
from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "kernel" / "kfault.c"
BINARY = SOURCE.with_suffix("")
WARM_ROUNDS = 2


def build() -> None:
    """Compiles kfault unless it is newer than its source. Raises SystemExit with what to install where there is no C compiler."""
    if BINARY.exists() and BINARY.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("make bench needs a C compiler to measure the real kernel (Debian: apt-get install gcc libc6-dev)")
    subprocess.run([compiler, "-O2", "-w", "-pthread", str(SOURCE), "-o", str(BINARY)], check=True)


def measure(test: str, mib: int, *extra: str) -> dict[str, float]:
    """CPU nanoseconds per page of one kfault test over `mib` MiB: {figure: median of the warm rounds}."""
    command = [str(BINARY), test, str(mib), *extra]
    environment = dict(os.environ, ROUNDS=str(1 + WARM_ROUNDS))
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    rounds: dict[str, list[float]] = {}
    number = 0
    for line in output.splitlines():
        if line.startswith("#round"):
            number = int(line.split()[1])
        elif number > 0:
            name, _wall, cpu, _units, _faults = line.rsplit(None, 4)
            rounds.setdefault(name, []).append(float(cpu))
    return {name: statistics.median(values) for name, values in rounds.items()}
