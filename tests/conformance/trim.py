"""Bring a new recording into the suite, trimmed to what is compared.

    python -m tests.conformance.trim RECORDING.json.gz ...

The first boot keeps every recorded file (the text formats are learnt from them), the others the files whose figures are
compared; wall-clock durations are left out. The scenario is written beside it.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from tests.conformance.compare import compared
from tests.conformance.run import CASES

WALL_CLOCK = "ns"


def trimmed(recording: dict[str, Any]) -> dict[str, Any]:
    """The recording without what the suite never looks at."""
    first, *others = recording["runs"]
    return {
        **{key: recording[key] for key in ("kernel", "config", "scenario")},
        "runs": [_boot(first, whole=True), *(_boot(run, whole=False) for run in others)],
    }


def _boot(run: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    ops = [{**op, "ret": {key: value for key, value in op["ret"].items() if key != WALL_CLOCK}} for op in run["ops"]]
    snaps = {label: {path: text for path, text in files.items() if whole or compared(path)} for label, files in run["snaps"].items()}
    return {"ops": ops, "snaps": snaps, "dmesg": run.get("dmesg", "")}


def main(paths: list[str]) -> int:
    """Write each recording and its scenario to the cases; 2 when none was named."""
    for path in map(Path, paths):
        recording = trimmed(json.loads(gzip.decompress(path.read_bytes())))
        name = path.name.removesuffix(".json.gz")
        (CASES / f"{name}.scn").write_text(recording["scenario"])
        (CASES / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(recording).encode(), mtime=0))
        print(f"{name}: {path.stat().st_size:,} -> {(CASES / f'{name}.json.gz').stat().st_size:,} bytes")
    return 0 if paths else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
