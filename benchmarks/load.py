"""The service under load: neighbours, many subscribers, streams of events; beside itself at rest or a bare server, in one run.

Servers run on the first core, clients on the last.
"""
from __future__ import annotations

import base64
import json
import multiprocessing
import os
import random
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from benchmarks.report import Row, at_most, within
from benchmarks.service import CPUS, PAGE, Client, Session, _wait, cpu_ns, encode, free_port, load, one_request, server

SUBSCRIBERS, ACTIVE = 1000, 200
PAUSE_S = 0.5  # between two operations of an active session, on the average
EVENTS = 12_000
BATCH = 64


class Stream:
    """A websocket that is read as fast as it comes: messages are counted by their frames, not decoded."""

    def __init__(self, port: int, path: str, deflate: bool = False) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else ""
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        self.socket.sendall(f"{head}Sec-WebSocket-Version: 13\r\n{offer}\r\n".encode())
        self.left = b""
        while b"\r\n\r\n" not in self.left:
            self.left += self.socket.recv(4096)
        if not self.left.startswith(b"HTTP/1.1 101"):
            raise SystemExit(f"benchmark: {self.left[:200]!r}")
        self.left = self.left.partition(b"\r\n\r\n")[2]

    def read(self, messages: int) -> int:
        """Take that many messages; returns their bytes."""
        buffer, at, total = bytearray(self.left), 0, 0
        while messages:
            need = 2 if len(buffer) - at < 2 else 2 + (0, 2, 8)[max(0, (buffer[at + 1] & 127) - 125)]
            if len(buffer) - at >= need:
                length = buffer[at + 1] & 127
                if length > 125:
                    length = int.from_bytes(buffer[at + 2 : at + need], "big")
                if len(buffer) - at >= need + length:
                    at, total = at + need + length, total + length
                    messages -= (buffer[at - need - length] & 15) == 1
                    continue
            del buffer[:at]
            at = 0
            data = self.socket.recv(1 << 20)
            if not data:
                raise SystemExit("benchmark: the stream ended early")
            buffer += data
        self.left = bytes(buffer[at:])
        return total

    def answers_pings(self) -> bool:
        """Take what has come of a silent stream and answer its pings; False when the server has closed it."""
        if not (data := self.socket.recv(1 << 16)):
            return False
        self.left += data
        while len(self.left) >= 2 and len(self.left) >= (end := 2 + (self.left[1] & 127)):
            opcode, payload, self.left = self.left[0] & 15, self.left[2:end], self.left[end:]
            if opcode == 8:
                return False
            if opcode == 9:
                self.socket.sendall(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        return True

    def close(self) -> None:
        self.socket.close()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def resident(pid: int) -> float:
    """MB of a process and its children."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---- neighbours


def paced(client: Client, request: bytes, times: int, pause: float = 0.002) -> list[float]:
    """Latencies in microseconds of one light session's operations, with a pause between two."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        client.send(request)
        if client.receive()[0] != 200:
            raise SystemExit("benchmark: a light session's operation was refused")
        found.append((time.perf_counter() - begin) * 1e6)
        time.sleep(pause)
    return found


class Heavy(threading.Thread):
    """A session that works flat out: the same request again and again."""

    def __init__(self, port: int, path: str, body: dict[str, object]) -> None:
        super().__init__(daemon=True)
        self.client, self.request, self.over, self.done = Client(port), encode(path, body), False, 0
        self.start()

    def run(self) -> None:
        while not self.over:
            self.client.send(self.request)
            status, data = self.client.receive()
            if status != 200:
                raise SystemExit(f"benchmark: {status} {data[:200]!r}")
            self.done += 1

    def end(self) -> None:
        self.over = True
        self.join(60)
        self.client.close()


def heavies(port: int) -> dict[str, tuple[str, dict[str, object]]]:
    """What three heavy sessions do: touches of 128 MiB, batches of 2,000 operations, an hour of programs that compete."""
    long, batch, clock = Session(port, "512M"), Session(port, "512M"), Session(port, "512M")
    length = 128 << 20
    address = long.mmap(length)
    small = batch.mmap(PAGE)
    pid = int(batch.process.rsplit("/", 1)[1])
    one = {"op": "touch", "pid": pid, "address": hex(small), "length": PAGE, "access": "write"}
    for name in ("leak", "web-workers"):
        clock.client.post(f"{clock.path}/processes", {"comm": name, "program": {"name": name}})
    return {
        "touches of 128 MiB": (f"{long.process}/touch", {"address": hex(address), "length": length, "access": "write", "repeat": 4}),
        "batches of 2,000": (f"{batch.path}/batch", {"ops": [one] * 2000}),
        "advances of 5 s": (f"{clock.path}/clock", {"advance": "5s"}),
    }


def neighbours(port: int, times: int = 500) -> list[Row]:
    """p99 of a light session alone and beside each kind of heavy one."""
    light = Session(port, "64M")
    address = light.mmap(PAGE)
    request = encode(f"{light.process}/touch", {"address": hex(address), "length": PAGE, "access": "write"})
    found = []
    for name, (path, body) in heavies(port).items():
        light.client.close()
        light.client.connect()
        paced(light.client, request, 50)
        alone = percentile(paced(light.client, request, times), 0.99)
        heavy = Heavy(port, path, body)
        beside = percentile(paced(light.client, request, times), 0.99)
        heavy.end()
        if not heavy.done:
            raise SystemExit(f"benchmark: {name}: the heavy session did nothing")
        found.append(within(f"p99 of a light session beside {name}", "us", [beside], [alone], high=10))
    return found


# ---- a thousand subscribers


class Audience:
    """Subscribers in a process of their own: they are told nothing, and answer the server's pings, or it would take them for dead after a while."""

    def __init__(self, port: int, paths: Sequence[str]) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_listen, args=(port, paths, theirs), daemon=True)
        self._process.start()
        self._ours.recv()

    def leave(self) -> int:
        """All of them at once; how many were still there."""
        self._ours.send("leave")
        there = int(self._ours.recv())
        self._process.join()
        return there


def _listen(port: int, paths: Sequence[str], master: Connection) -> None:
    streams = [Stream(port, path) for path in paths]
    selector, there = selectors.DefaultSelector(), len(streams)
    selector.register(master, selectors.EVENT_READ)
    for stream in streams:
        selector.register(stream.socket, selectors.EVENT_READ, stream)
    master.send("here")
    while not master.poll():
        for key, _ in selector.select():
            if key.data is not None and not key.data.answers_pings():
                selector.unregister(key.fileobj)
                there -= 1
    for stream in streams:
        stream.close()
    master.send(there)


def crowd(port: int, pid: int, seconds: float) -> list[Row]:
    """p99 of an operation at rest, and with 1,000 idle subscribers and 200 active sessions; the service's memory meanwhile."""
    idle = [Session(port, "64M") for _ in range(10)]
    active = [Session(port, "64M") for _ in range(ACTIVE)]
    requests = {}
    for session in active:
        address = session.mmap(PAGE)
        requests[session] = encode(f"{session.process}/touch", {"address": hex(address), "length": PAGE, "access": "write"})
        session.client.close()
    for session in idle:
        session.client.close()
    first = active[0]
    first.client.connect()
    at_rest = percentile(paced(first.client, requests[first], 1000), 0.99)
    first.client.close()
    audience = Audience(port, [f"{idle[number % len(idle)].path}/events" for number in range(SUBSCRIBERS)])
    for session in active:
        session.client.connect()
    drive(active, requests, seconds / 6)
    begin = resident(pid)
    latencies = drive(active, requests, seconds)
    grown = (resident(pid) / begin - 1) * 100
    if (there := audience.leave()) != SUBSCRIBERS:
        raise SystemExit(f"benchmark: of {SUBSCRIBERS} subscribers {there} were there in the end")
    leaving = drive(active, requests, 2)
    name = f"p99 of an op, {SUBSCRIBERS:,} subscribers and {ACTIVE} active sessions"
    return [
        within(f"{name} (at rest)", "us", [percentile(latencies, 0.99)], [at_rest], high=10),
        within("  the longest of them (p99 at rest)", "us", [max(latencies)], [at_rest]),
        within("  the longest while all subscribers leave (p99 at rest)", "us", [max(leaving)], [at_rest]),
        at_most(f"  memory grown in {seconds:g} s, {begin:.0f} MB at the start", "%", [grown], 5),
    ]


def drive(active: list[Session], requests: dict[Session, bytes], seconds: float) -> list[float]:
    """Latencies in microseconds: every active session does an operation, thinks for half a second or so, does the next.

    They think for different times, as people do: with one and the same time, all that once came together would come together ever after.
    """
    selector, luck, latencies = selectors.DefaultSelector(), random.Random(1), []
    start = time.perf_counter()
    due = {session: start + luck.uniform(0, PAUSE_S) for session in active}
    sent: dict[Session, float] = {}
    for session in active:
        selector.register(session.client.socket, selectors.EVENT_READ, session)
    while (now := time.perf_counter()) < start + seconds or sent:
        for session, when in list(due.items()):
            if when <= now:
                del due[session]
                if now < start + seconds:
                    sent[session] = time.perf_counter()
                    session.client.send(requests[session])
        for key, _ in selector.select(0.001):
            session = key.data
            if session.client.receive()[0] != 200:
                raise SystemExit("benchmark: an active session's operation was refused")
            now = time.perf_counter()
            latencies.append((now - sent.pop(session)) * 1e6)
            due[session] = now + luck.uniform(0.5 * PAUSE_S, 1.5 * PAUSE_S)
    return latencies


# ---- events


def rates(port: int, path: str, messages: int, batch: int, deflate: bool = False) -> float:
    """Events per second of one subscriber that begins at the oldest."""
    stream = Stream(port, path, deflate)
    begin = time.perf_counter()
    stream.read(messages)
    spent = time.perf_counter() - begin
    stream.close()
    return messages * batch / spent


def written(port: int) -> tuple[str, int]:
    """A session that wrote one page after the other, a fault and an event each: where its events are, the number of the last."""
    session = Session(port, "512M")
    address, pid, last = session.mmap(EVENTS * PAGE), int(session.process.rsplit("/", 1)[1]), 0
    for start in range(0, EVENTS, 1000):
        op = {"op": "touch", "pid": pid, "length": PAGE, "access": "write"}
        ops = [{**op, "address": hex(address + page * PAGE)} for page in range(start, start + 1000)]
        last = session.client.post(f"{session.path}/batch", {"ops": ops})["results"][-1]["events"]["last"]
    session.client.close()
    return f"{session.path}/events", last


def events(port: int, bare_port: int, repetitions: int) -> list[Row]:
    """The same events from the service and from a bare uvicorn websocket, one a message and 64 a message."""
    path, _ = written(port)
    client = Client(port)
    client.send(f"GET {path}?after=0&limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    items = json.loads(client.receive()[1])["items"]
    size = round(statistics.mean(len(json.dumps(item, separators=(",", ":"))) for item in items))
    events = len(items)
    found = []
    for name, batch in (("one a message", 1), (f"{BATCH} a message", BATCH)):
        ours, bare = [], []
        messages = events // batch
        query = f"&batch={batch}" if batch > 1 else ""
        rates(port, f"{path}?after=0{query}", messages, batch)
        for _ in range(repetitions):
            bare.append(rates(bare_port, f"/?size={size}&batch={batch}&messages={messages}", messages, batch))
            ours.append(rates(port, f"{path}?after=0{query}", messages, batch))
        found.append(within(f"events, {name}, of {size} bytes (bare uvicorn)", "1/s", ours, bare, low=0.5))
    return found


# ---- compression


def deflate(repetitions: int) -> list[Row]:
    """permessage-deflate, on and off: bytes on the wire and processor time of an event, one a message and 64 a message."""
    found: dict[tuple[bool, int], tuple[list[float], list[float]]] = {}
    for compressed in (False, True):
        port = free_port()
        with server("app.cli", port, "serve", "--port", str(port), ws_deflate=str(compressed)) as service:
            _wait(port, service)
            path, events = written(port)
            for batch in (1, BATCH):
                messages = EVENTS // 2 // batch
                query = f"&batch={batch}" if batch > 1 else ""
                figures = found.setdefault((compressed, batch), ([], []))
                for _ in range(repetitions):
                    before, size = cpu_ns(service.pid), 0
                    for _ in range(4):
                        stream = Stream(port, f"{path}?after={events - EVENTS // 2}{query}", compressed)
                        size += stream.read(messages)
                        stream.close()
                    figures[0].append(size / (4 * messages * batch))
                    figures[1].append((cpu_ns(service.pid) - before) / (4 * messages * batch) / 1e3)
    rows = []
    for batch, name in ((1, "one a message"), (BATCH, f"{BATCH} a message")):
        (plain, cpu), (small, work) = found[False, batch], found[True, batch]
        rows.append(within(f"bytes of an event, {name}, compressed (plain)", "B", small, plain, high=0.6))
        rows.append(within("  processor time of it", "us", work, cpu, high=10))
    return rows


# ---- hot routes


def hot(port: int, bare_port: int, repetitions: int, seconds: float) -> list[Row]:
    """Touch and batch beside plain FastAPI routes with the same models, that do nothing."""
    session = Session(port, "512M")
    address = session.mmap(PAGE)
    session.call("touch", address=hex(address), length=PAGE, access="write")
    pid = int(session.process.rsplit("/", 1)[1])
    op = {"op": "touch", "pid": pid, "address": hex(address), "length": PAGE, "access": "write"}
    request = encode(f"{session.path}/batch", {"ops": [op] * 16})
    touch: dict[int, list[float]] = {port: [], bare_port: []}
    batch: dict[int, list[float]] = {port: [], bare_port: []}
    for _ in range(repetitions):
        for where in (bare_port, port):
            touch[where].append(one_request(where, f"{session.process}/touch", address, seconds)["rate"])
            batch[where].append(load(where, request, 16, seconds)[0])
    return [
        within("touch, 16 connections (plain FastAPI route)", "req/s", touch[port], touch[bare_port], low=1),
        within("batch of 16 touches, 16 connections (plain FastAPI route)", "req/s", batch[port], batch[bare_port], low=1),
    ]


def rows(repetitions: int, seconds: float = 60, only: tuple[str, ...] = ("hot", "events", "neighbours", "crowd", "deflate")) -> list[Row]:
    """Every figure of the load; service and bare server are up at the same time and take turns."""
    os.sched_setaffinity(0, {CPUS[-1]})
    bare_port, port = free_port(), free_port()
    try:
        with server("benchmarks.bare", bare_port, str(bare_port)) as base, server("app.cli", port, "serve", "--port", str(port)) as service:
            _wait(bare_port, base)
            _wait(port, service)
            parts: dict[str, Callable[[], list[Row]]] = {
                "hot": lambda: hot(port, bare_port, repetitions, min(seconds / 30, 2)),
                "events": lambda: events(port, bare_port, repetitions),
                "neighbours": lambda: neighbours(port),
                "crowd": lambda: crowd(port, service.pid, seconds),
                "deflate": lambda: deflate(repetitions),
            }
            return [row for name in only for row in parts[name]()]
    finally:
        os.sched_setaffinity(0, set(CPUS))
