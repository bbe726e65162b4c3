"""A service of several workers as its operator starts it, and its processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

ROOT = Path(__file__).resolve().parents[2]
READY = "pagewalk ready on "
MACHINE = {"memory": "64M"}


class Workers:
    """A running `pagewalk serve --workers N`."""

    def __init__(self, *options: str, workers: int = 2, port: int = 0) -> None:
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--workers", str(workers), *options]
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(READY), (line, self.process.communicate(timeout=30))
        self.url = line.removeprefix(READY).strip()
        self.http = self.client()

    def client(self) -> httpx2.Client:
        """A client with connections of its own."""
        return httpx2.Client(base_url=self.url, timeout=60)

    def pids(self) -> list[int]:
        """The workers' processes."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]

    def create(self, http: httpx2.Client | None = None, **options) -> str:
        answer = (http or self.http).post("/v1/sessions", json={"machine": MACHINE}, **options)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def spawn(self, sid: str, http: httpx2.Client | None = None, **options) -> httpx2.Response:
        return (http or self.http).post(f"/v1/sessions/{sid}/processes", json={"comm": "a"}, **options)

    def stop(self) -> tuple[int, str]:
        """End it in order: its exit code and what it said on standard error."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextmanager
def running(*options: str, workers: int = 2) -> Iterator[Workers]:
    service = Workers(*options, workers=workers)
    try:
        yield service
    finally:
        service.stop()
