"""Compiled or not, a page loop does the same: a program's trace and digest with NUMBA_DISABLE_JIT=1 equal the compiled ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.properties.programs import Program, Step, small_machine

ROOT = Path(__file__).resolve().parents[2]

PROGRAM: list[Step] = [
    ("group", 0, 0, 0, 0), ("group", 2, 0, 0, 1), ("spawn", 1, 1, 0, 1), ("group", 3, 0, 4, 0), ("spawn", 2, 0, 0, 1),
    ("mmap", 0, 0, 6, 0), ("touch", 0, 1, 0, 20), ("mmap", 0, 1, 5, 0), ("touch", 4, 3, 2, 11), ("fork", 0, 0, 0, 0),
    ("touch", 8, 1, 0, 9), ("mprotect", 0, 1, 3, 5), ("mlock", 1, 1, 0, 7), ("madvise", 0, 1, 0, 9), ("mremap", 2, 1, 0, 7),
    ("file", 0, 0, 4, 90), ("file", 3, 0, 4, 90), ("mmap_file", 0, 1, 3, 0), ("touch", 0, 1, 0, 5), ("file again", 6, 0, 9, 30),
    ("msync", 0, 1, 0, 3), ("file", 12, 0, 0, 0), ("munlock", 1, 1, 0, 7), ("clear_refs", 0, 0, 3, 0), ("touch", 0, 1, 0, 2),
    ("munmap", 0, 3, 1, 4), ("sysctl", 0, 3, 0, 0), ("kill", 2, 0, 0, 0), ("exec", 1, 0, 0, 0), ("exit", 0, 0, 0, 0), ("wait", 0, 0, 0, 0),
]  # fmt: skip

SCRIPT = """
import json, sys
from tests.core.test_uncompiled import run
print(json.dumps(run()))
"""


def run() -> list[object]:
    """The trace and the digest of the program; the invariants hold at the end."""
    program = Program(small_machine())
    for step in PROGRAM:
        program.step(*step)
    program.k.verify()
    return [json.loads(json.dumps(program.trace)), program.k.digest()]


def test_compiled_and_uncompiled_agree() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == run()
