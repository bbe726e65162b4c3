"""A service as its operator starts it, and its processes."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

ROOT = Path(__file__).resolve().parents[2]
READY = "pagewalk ready on "
MACHINE = {"memory": "64M"}


class Workers:
    """A running `pagewalk serve --workers N`; it can be killed and started again on the same port."""

    def __init__(self, *options: str, workers: int = 2, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self._options, self._workers, self._port = options, workers, port
        self._environment = {**os.environ, **(environment or {})}
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (a pipe that nobody reads fills up)
        self.begin()
        self.await_ready()
        self.http = self.client()

    def begin(self) -> None:
        """Start the program, without waiting for it."""
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(self._port), "--workers", str(self._workers), *self._options]
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=self._said, env=self._environment)

    def await_ready(self) -> None:
        """Wait until it says that it is ready."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(READY), (line, self.said())
        self.url = line.removeprefix(READY).strip()
        self._port = int(self.url.rpartition(":")[2])

    def client(self) -> httpx2.Client:
        """A client with connections of its own."""
        return httpx2.Client(base_url=self.url, timeout=60)

    def pids(self) -> list[int]:
        """The workers' processes."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]

    def ready(self) -> int:
        """How many workers take requests."""
        try:
            lines = self.http.get("/metrics").text.splitlines()
        except httpx2.TransportError:
            return 0
        return int(float(next(line for line in lines if line.startswith("pagewalk_workers ")).split()[1]))

    def create(self, http: httpx2.Client | None = None, **options) -> str:
        answer = (http or self.http).post("/v1/sessions", json={"machine": MACHINE}, **options)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def spawn(self, sid: str, http: httpx2.Client | None = None, **options) -> httpx2.Response:
        return (http or self.http).post(f"/v1/sessions/{sid}/processes", json={"comm": "a"}, **options)

    def kill(self, everyone: bool = False) -> None:
        """SIGKILL to the program, and with `everyone` to all its workers first; returns when all of them are gone."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        for child in family if everyone else ():
            if child.is_running():
                child.kill()
        self.process.kill()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive, f"workers outlive their supervisor: {alive}"

    def said(self) -> str:
        """What it said on standard error."""
        self._said.seek(0)
        return self._said.read()

    def stop(self) -> tuple[int, str]:
        """End it in order: its exit code and what it said on standard error."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        said = self.said()
        self._said.close()
        return self.process.returncode, said


@contextmanager
def running(*options: str, workers: int = 2, environment: Mapping[str, str] | None = None) -> Iterator[Workers]:
    service = Workers(*options, workers=workers, environment=environment)
    try:
        yield service
    finally:
        service.stop()


