"""Kill the service at random moments while clients work, and see that nothing was lost, nothing was done twice, and every event was told once.

    python -m tests.pool.torture --victim worker --kills 100 --clients 50
    python -m tests.pool.torture --victim service --workers 1 --database postgresql

The victim is one worker, which its supervisor replaces; or the whole service, of one process or of several, which is started again. Now and then
it is killed again while it starts. Each client has a session of its own, gives its operations names of their own and an Idempotency-Key, and
repeats what was not answered. Followers read the events of every other session and resume where they were; the sessions without one leave memory at
each sweep. In the end every operation that was answered, and no other, is in the journal, and a fresh process to which only those are given
has the same clock after each of them, as many events, and byte by byte the same files.
"""

import argparse
import base64
import contextlib
import itertools
import json
import os
import random
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx2
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from tests.pool.reference import replayed
from tests.pool.service import GaveUp, Nursery, Workers
from tests.storage import postgres

AGAIN = frozenset({409, 502, 503})  # 409: the first request with this key is still under way
PAGE = 4096
PATIENCE = 10.0  # it may run beside others, with what they leave of the processors
STARTS = 20
LATE = "took no requests within"  # said by a service that was not ready in time
DRAINED = "timeout graceful shutdown exceeded"  # said of a request that was still under way when such a service ended
GROUP = "/sys/fs/cgroup/app"
FILES = ("/proc/meminfo", "/proc/vmstat", "/proc/buddyinfo", "/sys/fs/cgroup/memory.stat", f"{GROUP}/memory.current", f"{GROUP}/memory.events",
         f"{GROUP}/memory.stat")  # fmt: skip
OF_KEEPER = ("smaps", "status", "maps")
OFTEN = {"PAGEWALK_INSTANCE": "torture", "PAGEWALK_SNAPSHOT_EVERY": "25", "PAGEWALK_LIVE_MEMORY": "0"}  # snapshots and hibernation all the time


class Wait:
    """A pause before something is tried again, longer each time: fifty clients that ask and ask leave a service that starts no processor."""

    def __init__(self) -> None:
        self._most = 0.5

    def __call__(self) -> None:
        time.sleep(random.uniform(0.2, 1.0) * self._most)
        self._most = min(self._most * 2, 8.0)


@dataclass
class Client:
    """One session, who works on it and who follows it."""

    service: Workers
    number: int
    over: threading.Event
    rounds: int = 0  # how many it makes; 0: until it is over
    sid: str = ""
    keeper: int = 0  # a process that lives to the end
    done: list[tuple[int, dict, int]] = field(default_factory=list)  # answered: number, operation, clock
    told: list[dict] = field(default_factory=list)
    retries: int = 0
    failure: str = ""

    @property
    def followed(self) -> bool:
        return self.number % 2 == 0

    def send(self, path: str, body: dict) -> dict:
        """One request, repeated under one key until it is answered."""
        key, wait = str(uuid.uuid4()), Wait()
        while True:
            with contextlib.suppress(httpx2.TransportError):
                answer = self.http.post(path, json=body, headers={"Idempotency-Key": key})
                if answer.status_code not in AGAIN:
                    assert answer.status_code in (200, 201), f"{path}: {answer.status_code} {answer.text[:300]}"
                    return answer.json()
            self.retries += 1
            wait()

    def operation(self, path: str, op: str, pid: int | None = None, **args) -> dict:
        """One operation on its own route."""
        answer = self.send(f"/v1/sessions/{self.sid}{path}", args)
        self.done.append((answer["seq"], {"op": op, **({} if pid is None else {"pid": pid}), **args}, answer["clock_ns"]))
        return answer

    def batch(self, *ops: dict) -> list[dict]:
        """Several at once."""
        answers = self.send(f"/v1/sessions/{self.sid}/batch", {"ops": ops})["results"]
        self.done += [(answer["seq"], op, answer["clock_ns"]) for op, answer in zip(ops, answers, strict=True)]
        return answers

    def work(self) -> None:
        """Operations until it is over."""
        with self.service.client() as self.http:
            try:
                self._work()
            except Exception as error:
                self.failure = f"{type(error).__name__}: {error}"

    def _work(self) -> None:
        self.sid = self.send("/v1/sessions", {"machine": {"memory": "64M"}, "seed": self.number})["id"]
        follower = threading.Thread(target=self.follow, daemon=True)
        if self.followed:
            follower.start()
        put = {"op": "put", "path": f"{GROUP}/memory.max", "data": "4M"}
        self.batch({"op": "put", "path": "/sys/fs/cgroup/cgroup.subtree_control", "data": "+memory"}, {"op": "mkdir", "path": GROUP}, put)
        self.keeper = self.operation("/processes", "spawn", comm="keeper", cgroup="/app")["pid"]
        for turn in itertools.count() if not self.rounds else range(self.rounds):
            if self.over.is_set() and not self.rounds:
                break
            self._round(f"c{self.number}-{turn}")
        if self.followed:
            self.over.wait(600 * PATIENCE)
            follower.join(60 * PATIENCE)

    def _round(self, name: str) -> None:
        pid = self.operation("/processes", "spawn", comm=name)["pid"]
        path, args = f"/processes/{self.keeper}/mmap", {"length": 8 * PAGE, "prot": "rw", "flags": ["private", "anonymous"]}
        address = self.operation(path, "mmap", self.keeper, **args)["result"]["address"]
        self.batch(
            {"op": "touch", "pid": self.keeper, "address": address, "length": 8 * PAGE, "access": "write"},
            {"op": "brk", "pid": pid, "increment": PAGE},
            {"op": "munmap", "pid": self.keeper, "address": address, "length": 4 * PAGE},
        )
        self.operation(f"/processes/{pid}/exit", "exit", pid)
        if len(self.done) % 5 == 0:
            self.send_clock()

    def send_clock(self) -> None:
        answer = self.send(f"/v1/sessions/{self.sid}/clock", {"advance": "100ms"})
        self.done.append((answer["seq"], {"op": "advance", "duration_ns": 10**8, "max_work": 1 << 23}, answer["clock_ns"]))

    def follow(self) -> None:
        """Every event in order, whatever becomes of the connection."""
        url = f"{self.service.url.replace('http', 'ws')}/v1/sessions/{self.sid}/events"
        quiet, wait = 0, Wait()
        while quiet < 3:
            after = self.told[-1]["id"] if self.told else 0
            try:
                with connect(f"{url}?after={after}", open_timeout=20, max_queue=None) as ws:
                    while quiet < 3:
                        event = json.loads(ws.recv(timeout=5))
                        if event["type"] not in ("bookmark", "progress"):
                            self.told.append(event)
                        quiet, wait = 0, Wait()
            except TimeoutError:
                quiet += self.over.is_set()
            except (ConnectionClosed, InvalidHandshake, OSError):
                wait()

    # ---- what became of it

    @property
    def files(self) -> tuple[str, ...]:
        """What is compared byte by byte."""
        return (*FILES, *(f"/proc/{self.keeper}/{name}" for name in OF_KEEPER))

    def story(self) -> dict:
        """What it was answered, for a fresh process."""
        return {"machine": {"memory": "64M"}, "seed": self.number, "ops": [op for _, op, _ in self.done], "files": self.files}

    def check(self, http: httpx2.Client, reference: dict) -> None:
        """What the service has is what it answered, and what a fresh process makes of that."""
        assert [seq for seq, _, _ in self.done] == list(range(1, len(self.done) + 1)), f"{self.sid}: an operation was done twice"
        journal = [json.loads(line) for line in self._get(http, "/journal").text.splitlines()]
        stored = [{key: value for key, value in line.items() if key != "seq"} for line in journal[1:]]
        assert stored == reference["journal"], f"{self.sid}: {len(self.done)} answered, {len(stored)} stored"
        assert [clock for _, _, clock in self.done] == reference["clocks"], self.sid
        for path in self.files:
            assert self._get(http, f"/fs{path}").content == base64.b64decode(reference["files"][path]), f"{self.sid} {path}"
        assert http.post(f"/v1/sessions/{self.sid}/snapshots", json={"name": "end"}).json()["digest"] == reference["digest"], self.sid
        assert self._get(http, "").json()["events"]["last"] == reference["events"], self.sid
        if self.followed:
            ids = [event["id"] for event in self.told]
            assert ids == list(range(1, reference["events"] + 1)), f"{self.sid}: events {ids[:5]} .. {ids[-5:]}"

    def _get(self, http: httpx2.Client, path: str) -> httpx2.Response:
        end = time.monotonic() + 60 * PATIENCE  # a worker that was killed last may still be on its way back
        while (answer := http.get(f"/v1/sessions/{self.sid}{path}")).status_code == 503 and time.monotonic() < end:
            time.sleep(0.1)
        assert answer.status_code == 200, f"{self.sid}{path}: {answer.status_code} {answer.text[:300]}"
        return answer


@dataclass(frozen=True)
class Plan:
    """Who is killed, how often, at what."""

    victim: Literal["worker", "service"] = "worker"
    kills: int = 100
    clients: int = 50
    workers: int = 2
    database: Literal["sqlite", "postgresql"] = "sqlite"
    seed: int = 0
    rounds: int = 0  # of each client; 0: until the last kill

    @property
    def operations(self) -> int:
        """How many a client makes in its rounds: four to begin with, six a round, and time passes after every fifth operation."""
        done = 4
        for _ in range(self.rounds):
            done += 6
            done += done % 5 == 0
        return done


class Moments:
    """When to kill: at random, after so many answers and a little later; where clients make a number of rounds, at even distances in them."""

    def __init__(self, plan: Plan, crowd: Sequence[Client], luck: random.Random) -> None:
        self.crowd, self._luck = crowd, luck
        self._distance = plan.clients * plan.operations // (plan.kills + 1) if plan.rounds else 0
        self._goal = 0

    def await_next(self) -> None:
        """Until clients have been answered between none and two times each, on the average; or so many times in all."""
        if self._distance:
            self._goal += self._distance
            while self.answered() < self._goal and not any(client.failure for client in self.crowd):
                time.sleep(0.005)
            return
        goal = self.answered() + self._luck.randint(0, 2 * len(self.crowd))
        end = time.monotonic() + 60
        while self.answered() < goal and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(self._luck.uniform(0.0, 0.05))

    def answered(self) -> int:
        """Operations so far."""
        return sum(len(client.done) for client in self.crowd)


def kill_workers(plan: Plan, service: Workers, luck: random.Random, moments: Moments) -> int:
    """One worker at a time, when all are there."""
    for killed in range(1, plan.kills + 1):
        moments.await_next()
        while service.ready() < plan.workers:
            time.sleep(0.05)
        os.kill(luck.choice(service.pids()), signal.SIGKILL)
        print(f"{killed} kills, {moments.answered()} operations", flush=True)
    return plan.kills


def kill_service(plan: Plan, service: Workers, luck: random.Random, moments: Moments) -> int:
    """The whole service, its supervisor alone or every process; one start in five does not come to its end."""
    killed = 0
    while killed < plan.kills:
        moments.await_next()
        while True:
            service.kill(everyone=luck.random() < 0.5)
            killed += 1
            service.begin()
            if killed >= plan.kills or luck.random() > 0.2:
                break
            time.sleep(luck.uniform(0.0, 8.0))
        await_ready(service)
        print(f"{killed} kills, {moments.answered()} operations", flush=True)
    return killed


def await_ready(service: Workers) -> None:
    """Wait for it; where the machine leaves it so little that its workers are not ready in time, start it again, as whoever runs a service does."""
    for _ in range(STARTS):
        try:
            service.await_ready()
            return
        except GaveUp as said:
            if LATE not in str(said):
                raise
            print("the service gave up: it is started again", flush=True)
            service.process.wait()
            service.begin()
    raise AssertionError("the service does not get ready")


KILL: dict[str, Callable[[Plan, Workers, random.Random, Moments], int]] = {"worker": kill_workers, "service": kill_service}


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a service that keeps its sessions there."""
    if kind == "sqlite":
        yield {**OFTEN, "PAGEWALK_DATABASE": f"sqlite:///{folder / 's.sqlite'}"}
        return
    folder = postgres.programs()
    assert folder is not None, "PostgreSQL's server programs are not installed"
    with postgres.server(folder) as url:
        yield {**OFTEN, "PAGEWALK_DATABASE": url}


def complaints(said: str) -> list[str]:
    """The ends of the tracebacks in a service's log."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    found = [line["exception"][-1500:] for line in lines if "exception" in line]
    return [text for text in found if not (LATE in said and text.endswith(DRAINED))]


def torture(plan: Plan) -> dict[str, float]:
    """The whole story; figures about it. Raises AssertionError for anything that is lost, doubled or different."""
    luck, over, begin = random.Random(plan.seed), threading.Event(), time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        database(plan.database, Path(folder)) as environment,
        contextlib.closing(Nursery()) as nursery,
    ):
        service = Workers("--data", str(Path(folder) / "data"), workers=plan.workers, environment=environment, program=nursery, patience=PATIENCE)
        try:
            crowd = [Client(service, number, over, plan.rounds) for number in range(plan.clients)]
            threads = [threading.Thread(target=client.work, daemon=True) for client in crowd]
            for thread in threads:
                thread.start()
            killed = KILL[plan.victim](plan, service, luck, Moments(plan, crowd, luck))
            while service.ready() < plan.workers:
                time.sleep(0.1)
            while plan.rounds and Moments(plan, crowd, luck).answered() < plan.clients * plan.operations and not any(one.failure for one in crowd):
                time.sleep(0.05)
            over.set()
            for thread in threads:
                thread.join(120 * PATIENCE)
                assert not thread.is_alive()
            failures = [client.failure for client in crowd if client.failure]
            assert not failures, (failures[:3], complaints(service.said()))
            with service.client() as http:
                references = replayed([client.story() for client in crowd])
                for client, reference in zip(crowd, references, strict=True):
                    client.check(http, reference)
        finally:
            code, said = service.stop()
    assert code == 0, said[-2000:]
    assert not complaints(said), complaints(said)
    return {
        "kills": killed,
        "operations": sum(len(client.done) for client in crowd),
        "repeated requests": sum(client.retries for client in crowd),
        "events": sum(len(client.told) for client in crowd),
        "events of those who are followed": sum(one["events"] for client, one in zip(crowd, references, strict=True) if client.followed),
        "seconds": round(time.monotonic() - begin),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victim", choices=("worker", "service"), default="worker")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rounds", type=int, default=0, help="of each client; 0: until the last kill")
    chosen = Plan(**vars(parser.parse_args()))
    print(chosen, flush=True)
    print(torture(chosen))
