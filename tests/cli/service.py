"""A service of our own for a test: a real process on a free loopback port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-m", "app.cli"]
READY = re.compile(r"pagewalk ready on (http://127\.0\.0\.1:\d+)\n")
ROOT = Path(__file__).parents[2]
DATA = tempfile.TemporaryDirectory()


def environment(**settings: str) -> dict[str, str]:
    """The environment with no setting of ours but these, and a data folder that is not the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAGEWALK_")}
    return kept | {"XDG_DATA_HOME": DATA.name} | settings


@contextmanager
def serving(*arguments: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running service with a data folder of its own: its process and the address that it printed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data:
        yield from _serving(*arguments, **({"XDG_DATA_HOME": data} | settings))


def _serving(*arguments: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**settings),
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        match = READY.fullmatch(line)
        if not match:
            process.terminate()
            raise AssertionError((line, process.communicate(timeout=20)[1]))
        yield process, match[1]
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
        process.stderr.close()
