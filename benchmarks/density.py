"""How many sessions fit: ten thousand are created and worked on, five hundred stay in use, the others leave memory and come back when asked.

The service runs as it is delivered, but for its budget: kernels in memory may take LIVE_MEMORY (PAGEWALK_LIVE_MEMORY), which holds the sessions in
use and little more, so that the others have to leave. The server runs on the first core, this client on the last.
"""
from __future__ import annotations

import json
import os
import random
import time

from benchmarks.load import percentile, resident
from benchmarks.report import Row, at_least, at_most
from benchmarks.service import CPUS, PAGE, Client, _wait, encode, free_port, server

SESSIONS, LIVE, WOKEN = 10_000, 500, 500
PAGES = 256  # that each session has written
LIVE_MEMORY = "1G"
ROUNDS_S = 30  # for those that are not in use to leave memory


def begin(client: Client) -> tuple[str, float]:
    """A session with a process that has written a megabyte: its path, and the milliseconds that creating it took."""
    request = encode("/v1/sessions", {"machine": {"memory": "512M"}})
    start = time.perf_counter()
    client.send(request)
    status, data = client.receive()
    spent = (time.perf_counter() - start) * 1e3
    if status != 201:
        raise SystemExit(f"benchmark: {status} {data[:300]!r}")
    path = f"/v1/sessions/{json.loads(data)['id']}"
    pid = client.post(f"{path}/processes", {"comm": "bench"})["pid"]
    address = client.post(f"{path}/processes/{pid}/mmap", {"length": PAGES * PAGE, "prot": "rw", "flags": ["private", "anonymous"]})
    client.post(f"{path}/processes/{pid}/touch", {"address": address["result"]["address"], "length": PAGES * PAGE, "access": "write"})
    return path, spent


def look(client: Client, path: str) -> float:
    """Milliseconds of the smallest question about a session."""
    start = time.perf_counter()
    client.send(f"GET {path}/fs/proc/uptime HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    status, data = client.receive()
    if status != 200:
        raise SystemExit(f"benchmark: {status} {data[:300]!r}")
    return (time.perf_counter() - start) * 1e3


def live(client: Client) -> int:
    """Sessions in memory, by the service's own count."""
    client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    lines = client.receive()[1].decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("pagewalk_sessions_live "))))


def settle(client: Client, used: list[str]) -> int:
    """Use the sessions in use until the others have left; how many are in memory then."""
    end = time.monotonic() + ROUNDS_S
    while (count := live(client)) > 1.5 * len(used) and time.monotonic() < end:
        for path in used:
            look(client, path)
    return count


def measure(port: int, pid: int, sessions: int) -> list[Row]:
    """Create, use, wake."""
    client, most, created, paths = Client(port), 0.0, [], []
    used: list[str] = []
    for number in range(sessions):
        path, spent = begin(client)
        created.append(spent)
        paths.append(path)
        if number % max(1, sessions // LIVE) == 0:
            used.append(path)
        if number % 20 == 0:
            most = max(most, resident(pid))
            look(client, random.choice(used))
    count = settle(client, used)
    asleep = [path for path in paths if path not in set(used)]
    random.Random(1).shuffle(asleep)
    woken = [look(client, path) for path in asleep[: min(WOKEN, len(asleep))]]
    most = max(most, resident(pid))
    return [
        at_most(f"{sessions:,} sessions created: memory at most", "MB", [most], 4096),
        at_least("  of them in memory at the end", "", [float(count)], min(LIVE, sessions) * 0.9),
        at_most("  p99 of creating one", "ms", [percentile(created, 0.99)], 50),
        at_most("  p99 of the first answer of one that was asleep", "ms", [percentile(woken, 0.99)], 100),
    ]


def rows(sessions: int = SESSIONS) -> list[Row]:
    """Every figure."""
    os.sched_setaffinity(0, {CPUS[-1]})
    port = free_port()
    try:
        limits = {"live_memory": LIVE_MEMORY, "max_sessions": str(sessions + 1)}
        with server("app.cli", port, "serve", "--port", str(port), **limits) as service:
            _wait(port, service)
            return measure(port, service.pid, sessions)
    finally:
        os.sched_setaffinity(0, set(CPUS))
