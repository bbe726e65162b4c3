"""The journal and the workers: appends a second as the service makes them, what a request costs at the wrong worker, what a second worker brings.

Appends go through the service's own `Writer`, each of a session's own; a writer awaits its append before it makes the next, as a client does. With
fsync (`full`) a commit is on the disk when it is answered. PostgreSQL is a server of this run's own with its usual settings, where its
programs are installed; else its rows are left out.
"""
from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from app.storage import Append, Entry, Lease, Record, Unit, Writer, open_store
from benchmarks.report import Row, at_least, at_most, within
from benchmarks.service import CPUS, PAGE, Client, Session, _wait, encode, free_port, load, server
from tests.storage import postgres

BODY = b'{"op":"touch","pid":101,"address":"0x7ffff7a00000","access":"write"}'
WRITERS = (1, 50)
DURABLE = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB")
Durability = Literal["full", "normal"]


# ---------------------------------------------------------------- appends


@contextlib.contextmanager
def databases() -> Iterator[dict[str, str]]:
    """URLs by name; PostgreSQL's only where its programs are."""
    programs = postgres.programs()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pagewalk-bench-"))
        found = {"SQLite": f"sqlite:///{Path(folder) / 'sessions.sqlite'}"}
        if programs is not None:
            found["PostgreSQL"] = stack.enter_context(postgres.server(programs, *DURABLE))
        yield found


def record(number: int) -> Record:
    """A session of which nothing matters but that it has a journal."""
    now = time.time()
    return Record(f"s_{number}_{secrets.token_hex(8)}", None, None, None, None, "{}", 0, b"", 10**15, now, now, secrets.randbits(62), 1)


async def _writes(writer: Writer, lease: Lease, line: int, end: float) -> int:
    """One writer: an append, its commit, the next. How many."""
    loop, seq = asyncio.get_running_loop(), 0
    while time.perf_counter() < end:
        seq += 1
        durable: asyncio.Future[None] = loop.create_future()

        def done(error: Exception | None, durable: asyncio.Future[None] = durable) -> None:
            if error is None:
                durable.set_result(None)
            else:
                durable.set_exception(error)

        writer.submit(Unit([Append(lease, line, [Entry(seq, seq, 1000 * seq, BODY)])], done))
        await durable
    return seq


async def _all(writer: Writer, leases: Sequence[tuple[Lease, int]], seconds: float) -> float:
    end = time.perf_counter() + seconds
    return sum(await asyncio.gather(*(_writes(writer, lease, line, end) for lease, line in leases))) / seconds


def appends(url: str, durability: Durability, writers: int, seconds: float) -> tuple[float, float]:
    """(appends a second, units in one commit)."""
    store = open_store(url, durability)
    leases = []
    for number in range(writers):
        one = record(number)
        leases.append((store.create(one, Entry(0, 0, 0, b"{}"), "bench", 3600), one.line))
    writer = Writer(store.database)
    try:
        rate = asyncio.run(_all(writer, leases, seconds))
        return rate, writer.units / writer.groups
    finally:
        writer.close()
        store.close()


def append_rows(repetitions: int, seconds: float = 1.0) -> list[Row]:
    """Every kind of database, with and without fsync, one writer and fifty."""
    found = []
    with databases() as urls:
        for name, url in urls.items():
            for durability in ("full", "normal"):
                measured = {writers: [appends(url, durability, writers, seconds) for _ in range(repetitions)] for writers in WRITERS}  # type: ignore[arg-type]
                one, many = ([rate for rate, _ in measured[writers]] for writers in WRITERS)
                size = statistics.median(size for _, size in measured[WRITERS[1]])
                found.append(at_least(f"appends to {name}, {durability}, one writer", "1/s", one, 20))
                found.append(within(f"  {WRITERS[1]} writers ({size:.0f} in a commit) to one writer", "1/s", many, one, low=1.5))
    return found


# ---------------------------------------------------------------- workers


class At:
    """A connection, and the process that it ended at."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.process = self.who("/version")

    def who(self, path: str) -> bytes:
        """The process that answers a request: its request ids begin alike."""
        self.client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _ = self.client.receive_whole()
        name = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"x-request-id:"))
        return name.split(b":", 1)[1].strip().rpartition(b"-")[0]


def both(port: int) -> list[At]:
    """A connection to each of two workers. An idle worker may take every connection that comes, so they come a dozen at a time."""
    found: dict[bytes, At] = {}
    for _ in range(40):
        sockets = [Client(port) for _ in range(12)]
        for client in sockets:
            at = At(client)
            found.setdefault(at.process, at)
        if len(found) == 2:
            return list(found.values())
    raise SystemExit("benchmark: one of two workers took every connection")


def hop(port: int, times: int) -> tuple[float, float]:
    """Median microseconds of a touch of one page at the session's own worker, and at the other one, which hands it over."""
    session = Session(port, "64M")
    address = session.mmap(PAGE)
    request = encode(f"{session.process}/touch", {"address": hex(address), "length": PAGE, "access": "write"})
    ways: dict[bool, At] = {}
    for at in both(port):
        ways[at.process == at.who(session.path)] = at
    took: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(times):
        for here, at in ways.items():
            begin = time.perf_counter()
            at.client.send(request)
            at.client.receive()
            took[here].append((time.perf_counter() - begin) * 1e6)
    return statistics.median(took[True]), statistics.median(took[False])


def spread(port: int, sessions: int, seconds: float) -> float:
    """Batches of 16 touches a second, each connection with a session of its own."""
    requests = []
    for _ in range(sessions):
        session = Session(port, "64M")
        op = {"op": "touch", "pid": int(session.process.rsplit("/", 1)[1]), "address": hex(session.mmap(PAGE)), "length": PAGE, "access": "write"}
        requests.append(encode(f"{session.path}/batch", {"ops": [op] * 16}))
        session.client.close()
    load(port, requests, sessions, seconds / 2)
    return load(port, requests, sessions, seconds)[0]


def worker_rows(repetitions: int, seconds: float = 2.0) -> list[Row]:
    """The hop of a request that comes to the wrong worker, and the rate of two workers to that of one; without fsync, so that no disk is measured."""
    one_port, two_port = free_port(), free_port()
    settings = {"durability": "normal"}
    own, other, one, two = [], [], [], []
    with (
        server("app.cli", one_port, "serve", "--port", str(one_port), cpus=CPUS, **settings) as single,
        server("app.cli", two_port, "serve", "--port", str(two_port), "--workers", "2", cpus=CPUS, **settings) as double,
    ):
        _wait(one_port, single)
        _wait(two_port, double)
        for _ in range(repetitions):
            here, there = hop(two_port, 1000)
            own.append(here)
            other.append(there)
            one.append(spread(one_port, 16, seconds))
            two.append(spread(two_port, 16, seconds))
    return [
        at_most("a touch that comes to the wrong worker: longer by", "us", [b - a for a, b in zip(own, other, strict=True)], 500),
        within(f"batches of 16, two workers to one, {len(CPUS)} processors, client included", "req/s", two, one, low=1.2),
    ]


def rows(repetitions: int) -> list[Row]:
    """Every figure."""
    return append_rows(repetitions) + worker_rows(repetitions)
