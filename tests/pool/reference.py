"""Plays sessions again in a process that knows nothing of the service: a session is its machine, its seed and its operations.

Reads one session a line, {"machine": …, "seed": …, "ops": […], "files": […]}, and writes for each one line: the operations as a journal
has them, the clock after each, the number of events, the digest, and the files as base64.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.schemas.calls import OP_ADAPTER, render_op, to_op
from core import FsError, Kernel, Machine

ROOT = Path(__file__).resolve().parents[2]


def play(machine: dict, seed: int, ops: Sequence[dict], files: Sequence[str]) -> dict[str, Any]:
    """One session, from its boot."""
    kernel = Kernel.boot(Machine.from_dict(machine), seed)
    events, clocks, journal = len(kernel.drain()), [], []
    for line in ops:
        op = to_op(OP_ADAPTER.validate_python(line))
        kernel.call(op.op, op.pid, **op.args)
        events += len(kernel.drain())
        clocks.append(kernel.clock_ns)
        journal.append(render_op(op))
    texts = {path: base64.b64encode(_read(kernel, path)).decode() for path in files}
    return {"journal": journal, "clocks": clocks, "events": events, "digest": kernel.digest(), "files": texts}


def _read(kernel: Kernel, path: str) -> bytes:
    try:
        return kernel.read(path)
    except FsError as error:
        return str(error.errno).encode()


def replayed(sessions: Sequence[dict]) -> list[dict]:
    """What a fresh process makes of sessions."""
    given = "".join(json.dumps(session) + "\n" for session in sessions)
    done = subprocess.run([sys.executable, "-m", "tests.pool.reference"], input=given, cwd=ROOT, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    for text in sys.stdin:
        print(json.dumps(play(**json.loads(text))), flush=True)
