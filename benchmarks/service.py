"""The service's half: cold start, the one-request path beside a bare FastAPI route, and faults per second over REST.

Servers run on the first core, this client on the last. The client speaks HTTP/1.1 over plain sockets (a library would be the slower side).
Requests per second and latencies are wall-clock time, so run this on a quiet machine.
"""
from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import real_kernel
from benchmarks.report import Row, at_most, faster, within

PAGE = 4096
WINDOW = 4096  # pages of one touch
CONNECTIONS = 16
READY = "pagewalk ready on "
CPUS = sorted(os.sched_getaffinity(0))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[str], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"benchmark: {process.args!r} did not start")


@contextmanager
def server(module: str, port: int, *arguments: str, cpus: Iterable[int] = CPUS[:1], **settings: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m module arguments` on the first core (or others) until the block ends, with settings of the service and a data folder of its own."""
    folder = tempfile.mkdtemp(prefix="pagewalk-bench-")
    environment = {**os.environ, "PAGEWALK_DATA": folder, **{f"PAGEWALK_{name.upper()}": value for name, value in settings.items()}}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a warm start reads bytecode
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], text=True, env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, set(cpus)))  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def cpu_ns(pid: int) -> int:
    """Processor time of a process so far, of all its threads that live."""
    return sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def cold_start() -> float:
    """Seconds from exec of `pagewalk serve` (warm compile cache) to its ready line."""
    port = free_port()
    begin = time.monotonic()
    with server("app.cli", port, "serve", "--port", str(port)) as process:
        assert process.stdout is not None
        line = next((text for text in process.stdout if text.startswith(READY)), "")
        spent = time.monotonic() - begin
    if not line:
        raise SystemExit("benchmark: pagewalk serve never printed its ready line")
    return spent


class Client:
    """One keep-alive connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connect()

    def connect(self) -> None:
        """A fresh connection: the server closes one that was idle for some seconds."""
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self.socket.close()

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes]:
        """(status, body) of the next answer."""
        head, body = self.receive_whole()
        return int(head[9:12]), body

    def receive_whole(self) -> tuple[bytes, bytes]:
        """(head, body) of the next answer."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
        while len(body) < length:
            body += self._more()
        return head, body

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise SystemExit("benchmark: the server closed the connection")
        return data

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.send(encode(path, body))
        status, data = self.receive()
        answer: dict[str, Any] = json.loads(data)
        if status not in (200, 201) or answer.get("errno"):
            raise SystemExit(f"benchmark: POST {path} {body}: {status} {data[:300]!r}")
        return answer


def encode(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


class Session:
    """One machine with one process over HTTP."""

    def __init__(self, port: int, memory: str) -> None:
        self.client = Client(port)
        machine = {"memory": memory, "transparent_hugepage": "never"}
        self.path = "/v1/sessions/" + str(self.client.post("/v1/sessions", {"machine": machine})["id"])
        pid = self.client.post(self.path + "/processes", {"comm": "bench"})["pid"]
        self.process = f"{self.path}/processes/{pid}"

    def call(self, op: str, **body: Any) -> dict[str, Any]:
        return self.client.post(f"{self.process}/{op}", body)

    def mmap(self, length: int) -> int:
        answer = self.call("mmap", length=length, prot="rw", flags=["private", "anonymous"])
        return int(answer["result"]["address"], 16)


def load(port: int, request: bytes | Sequence[bytes], connections: int, seconds: float) -> tuple[float, list[float]]:
    """A closed loop on `connections` sockets for `seconds`: (requests per second, sorted latencies in microseconds).

    request: the same for all, or one for each connection.
    """
    requests = [request] * connections if isinstance(request, bytes) else request
    selector = selectors.DefaultSelector()
    sent: dict[Client, float] = {}
    latencies: list[float] = []
    clients = [Client(port) for _ in range(connections)]
    theirs = dict(zip(clients, requests, strict=True))
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    begin = time.perf_counter()
    for client in clients:
        sent[client] = time.perf_counter()
        client.send(theirs[client])
    while (now := time.perf_counter()) < begin + seconds:
        for key, _ in selector.select(1):
            client = key.data
            status, body = client.receive()
            if status != 200:
                raise SystemExit(f"benchmark: {status} {body[:300]!r}")
            now = time.perf_counter()
            latencies.append((now - sent[client]) * 1e6)
            sent[client] = now
            client.send(theirs[client])
    rate = len(latencies) / (now - begin)
    for client in clients:
        client.close()
    return rate, sorted(latencies)


def one_request(port: int, path: str, address: int, seconds: float) -> dict[str, float]:
    """Rate at 16 connections, p50 and p99 at one, of a touch of one mapped page."""
    request = encode(path, {"address": hex(address), "length": PAGE, "access": "write"})
    load(port, request, CONNECTIONS, 0.5)
    rate, _ = load(port, request, CONNECTIONS, seconds)
    _, alone = load(port, request, 1, seconds)
    return {"rate": rate, "p50": statistics.median(alone), "p99": alone[int(len(alone) * 0.99)]}


def rest_touch(session: Session, windows: int = 64) -> float:
    """Wall-clock nanoseconds per page of first writes of 4,096 pages a request."""
    session.client.close()
    session.client.connect()
    address = session.mmap(windows * WINDOW * PAGE)
    begin = time.perf_counter()
    for index in range(windows):
        answer = session.call("touch", address=hex(address + index * WINDOW * PAGE), length=WINDOW * PAGE, access="write")
        if answer["faults"]["minor"] != WINDOW:
            raise SystemExit(f"benchmark: {answer['faults']} faults instead of {WINDOW}")
    spent = time.perf_counter() - begin
    session.call("munmap", address=hex(address), length=windows * WINDOW * PAGE)
    return spent / (windows * WINDOW) * 1e9


def rest_touches(sessions: Sequence[Session], windows: int = 32) -> float:
    """Wall-clock nanoseconds per page of the same by several sessions at once, a connection each: they share commits."""
    waiting: dict[Client, Iterator[bytes]] = {}
    mapped = []
    selector = selectors.DefaultSelector()
    for session in sessions:
        session.client.close()
        session.client.connect()
        address = session.mmap(windows * WINDOW * PAGE)
        mapped.append(address)
        bodies = [{"address": hex(address + at * WINDOW * PAGE), "length": WINDOW * PAGE, "access": "write"} for at in range(windows)]
        waiting[session.client] = iter([encode(f"{session.process}/touch", body) for body in bodies])
        selector.register(session.client.socket, selectors.EVENT_READ, session.client)
    begin = time.perf_counter()
    for client, requests in waiting.items():
        client.send(next(requests))
    left = windows * len(sessions)
    while left:
        for key, _ in selector.select():
            status, data = key.data.receive()
            if status != 200 or json.loads(data)["faults"]["minor"] != WINDOW:
                raise SystemExit(f"benchmark: {status} {data[:300]!r}")
            left -= 1
            if (request := next(waiting[key.data], None)) is not None:
                key.data.send(request)
    spent = time.perf_counter() - begin
    for session, address in zip(sessions, mapped, strict=True):
        session.call("munmap", address=hex(address), length=windows * WINDOW * PAGE)
    return spent / (windows * WINDOW * len(sessions)) * 1e9


def rows(repetitions: int, seconds: float = 2.0) -> list[Row]:
    """Every figure of the service; bare route and service alternate."""
    real_kernel.build()
    os.sched_setaffinity(0, {CPUS[-1]})
    try:
        return _rows(repetitions, seconds)
    finally:
        os.sched_setaffinity(0, set(CPUS))


def _rows(repetitions: int, seconds: float) -> list[Row]:
    cold_start()  # fills the compile cache if nobody has
    starts = [cold_start() for _ in range(repetitions)]
    bare: dict[str, list[float]] = {}
    ours: dict[str, list[float]] = {}
    loose: dict[str, list[float]] = {}
    rest: list[float] = []
    unsynced: list[float] = []
    together: list[float] = []
    worked: list[float] = []
    real: list[float] = []
    bare_port, port, loose_port = free_port(), free_port(), free_port()
    with (
        server("benchmarks.bare", bare_port, str(bare_port)) as base,
        server("app.cli", port, "serve", "--port", str(port)) as service,
        server("app.cli", loose_port, "serve", "--port", str(loose_port), database="memory:") as forgetful,
    ):
        for where, process in ((bare_port, base), (port, service), (loose_port, forgetful)):
            _wait(where, process)
        session, other = Session(port, "512M"), Session(loose_port, "512M")
        large, unkept = [Session(port, "2G") for _ in range(4)], Session(loose_port, "2G")
        address = session.mmap(PAGE)
        if other.mmap(PAGE) != address:
            raise SystemExit("benchmark: two sessions on like machines do not get the same address")
        for one in (session, other):
            one.call("touch", address=hex(address), length=PAGE, access="write")
        for _ in range(repetitions):
            for side, where, path in ((bare, bare_port, session.process), (ours, port, session.process), (loose, loose_port, other.process)):
                for name, value in one_request(where, path + "/touch", address, seconds).items():
                    side.setdefault(name, []).append(value)
            real.append(real_kernel.measure("anon_write_seq", 1024)["anon_first_write_seq"])
            rest.append(rest_touch(large[0]))
            unsynced.append(rest_touch(unkept))
            before = cpu_ns(service.pid)
            together.append(rest_touches(large))
            worked.append((cpu_ns(service.pid) - before) / (32 * len(large) * WINDOW))
    return [
        at_most("cold start of pagewalk serve, warm cache", "s", starts, 2),
        within("one op a request, 16 connections (bare FastAPI)", "req/s", ours["rate"], bare["rate"], low=0.6),
        within("  the same, kept in a temporary database, without fsync", "req/s", loose["rate"], bare["rate"], low=0.6),
        within("  its p50, one connection", "us", ours["p50"], bare["p50"], high=3),
        within("  its p99, one connection", "us", ours["p99"], bare["p99"], high=3),
        within("  its p99, without fsync", "us", loose["p99"], bare["p99"], high=3),
        faster("first write over REST, 4,096 pages a request, one connection", "ns/page", rest, real, 10),
        faster("  the same, without fsync", "ns/page", unsynced, real, 10),
        faster("  the same, four sessions, a connection each", "ns/page", together, real, 10),
        faster("  processor time of the service for that", "ns/page", worked, real, 10),
    ]
