"""A service as its operator starts it, and its processes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

ROOT = Path(__file__).resolve().parents[2]
READY = "pagewalk ready on "
MACHINE = {"memory": "64M"}
START_S = 180.0  # for it to be ready
END_S = 30.0  # for workers to follow their supervisor


class GaveUp(Exception):
    """The program ended before it was ready."""


def is_alive(pid: int) -> bool:
    """False for a process that is over, also when nobody has asked for its exit code yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Program:
    """A process of `pagewalk serve`."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], out: Path, err: Path) -> None:
        command = [sys.executable, "-m", "app.cli", *arguments]
        with out.open("a") as said, err.open("a") as complained:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=complained, env={**os.environ, **environment})
        self.pid = self._process.pid

    def wait(self) -> int:
        """Its exit code, once it is over."""
        return self._process.wait(60)


class Nursery:
    """Programs as forks of a process that has imported everything (`nursery`)."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.pool.nursery"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, arguments: list[str], environment: Mapping[str, str], out: Path, err: Path) -> "Forked":
        asked = {"start": arguments, "environment": dict(environment), "out": str(out), "err": str(err)}
        return Forked(self, self.ask(asked)["pid"])

    def ask(self, what: dict) -> dict:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """It has nothing to lose."""
        self._process.kill()
        self._process.communicate()


class Forked:
    """A process that the nursery started."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self._code: int | None = None

    def wait(self) -> int:
        """Its exit code, once it is over."""
        if self._code is None:
            self._code = int(self._nursery.ask({"wait": self.pid})["code"])
        return self._code


class Workers:
    """A running `pagewalk serve --workers N`; it can be killed and started again on the same port. `patience`: how many times as long it may take."""

    def __init__(
        self,
        *options: str,
        workers: int = 2,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
        program: type[Program] | Nursery = Program,
        patience: float = 1,
    ) -> None:
        self._options, self._workers, self._port, self._program, self._patience = options, workers, port, program, patience
        self._environment = dict(environment or {})
        self._folder = tempfile.TemporaryDirectory(prefix="pagewalk-test-")
        self._starts = 0
        self._end: tuple[int, str] | None = None
        self.begin()
        self.await_ready()
        self.http = self.client()

    def begin(self) -> None:
        """Start the program, without waiting for it."""
        self._starts += 1
        arguments = ["serve", "--port", str(self._port), "--workers", str(self._workers), *self._options]
        self.process = self._program(arguments, self._environment, self._out, Path(self._folder.name) / "err")

    @property
    def _out(self) -> Path:
        return Path(self._folder.name) / f"out-{self._starts}"

    def await_ready(self) -> None:
        """Wait until it says that it is ready."""
        end = time.monotonic() + START_S * self._patience
        while not (line := self._out.read_text() if self._out.exists() else "").endswith("\n"):
            if not is_alive(self.process.pid):
                raise GaveUp(self.said())
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)
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
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        _, alive = psutil.wait_procs(family, timeout=END_S * self._patience)
        assert not alive, f"workers outlive their supervisor: {alive}"

    def said(self) -> str:
        """What it said on standard error."""
        return (Path(self._folder.name) / "err").read_text()

    def stop(self) -> tuple[int, str]:
        """End it in order: its exit code and what it said on standard error."""
        if self._end is None:
            self.http.close()
            if psutil.pid_exists(self.process.pid):
                os.kill(self.process.pid, signal.SIGTERM)
            self._end = self.process.wait(), self.said()
            self._folder.cleanup()
        return self._end


@contextmanager
def running(*options: str, workers: int = 2, environment: Mapping[str, str] | None = None) -> Iterator[Workers]:
    service = Workers(*options, workers=workers, environment=environment)
    try:
        yield service
    finally:
        service.stop()
