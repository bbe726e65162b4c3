"""Kill a worker at random moments while clients work, and see that nothing was lost, nothing was done twice, and every event was told once.

    python -m tests.pool.torture --kills 100 --clients 50

Each client has a session of its own, gives its operations names of their own and an Idempotency-Key, and repeats what was not answered. A follower
of each session reads its events and resumes where it was.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field

import httpx2
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from core import Kernel, Machine
from tests.pool.service import Workers

AGAIN = frozenset({409, 502, 503})  # 409: the first request with this key is still under way


@dataclass
class Client:
    """One session, who works on it and who follows it."""

    service: Workers
    number: int
    over: threading.Event
    sid: str = ""
    done: list[tuple[int, str]] = field(default_factory=list)
    told: list[dict] = field(default_factory=list)
    retries: int = 0
    failure: str = ""

    def send(self, path: str, body: dict) -> httpx2.Response:
        """One request, repeated under one key until it is answered."""
        key = str(uuid.uuid4())
        while True:
            with contextlib.suppress(httpx2.TransportError):
                answer = self.http.post(path, json=body, headers={"Idempotency-Key": key})
                if answer.status_code not in AGAIN:
                    return answer
            self.retries += 1
            time.sleep(0.02)

    def work(self) -> None:
        """Operations until it is over."""
        with self.service.client() as self.http:
            self._work()

    def _work(self) -> None:
        answer = self.send("/v1/sessions", {"machine": {"memory": "64M"}, "seed": self.number})
        self.sid = answer.json()["id"]
        follower = threading.Thread(target=self.follow, daemon=True)
        follower.start()
        while not self.over.is_set():
            name = f"c{self.number}-{len(self.done)}"
            answer = self.send(f"/v1/sessions/{self.sid}/processes", {"comm": name})
            if answer.status_code != 201:
                self.failure = f"{name}: {answer.status_code} {answer.text[:300]}"
                return
            self.done.append((answer.json()["seq"], name))
            self.send(f"/v1/sessions/{self.sid}/processes/{answer.json()['pid']}/exit", {})
        follower.join(60)

    def follow(self) -> None:
        """Every event in order, whatever becomes of the connection."""
        url = f"{self.service.url.replace('http', 'ws')}/v1/sessions/{self.sid}/events"
        quiet = 0
        while quiet < 3:
            after = self.told[-1]["id"] if self.told else 0
            try:
                with connect(f"{url}?after={after}", open_timeout=20, max_queue=None) as ws:
                    while quiet < 3:
                        event = json.loads(ws.recv(timeout=2))
                        if event["type"] not in ("bookmark", "progress"):
                            self.told.append(event)
                        quiet = 0
            except TimeoutError:
                quiet += self.over.is_set()
            except (ConnectionClosed, InvalidHandshake, OSError):
                time.sleep(0.02)

    def check(self) -> None:
        """What the service has is what it answered."""
        assert not self.failure, self.failure
        with self.service.client() as http:
            self._check(http)

    def _check(self, http: httpx2.Client) -> None:
        journal = [json.loads(line) for line in http.get(f"/v1/sessions/{self.sid}/journal").text.splitlines()]
        assert [line["seq"] for line in journal] == list(range(len(journal)))
        stored = [(line["seq"], line["comm"]) for line in journal if line["op"] == "spawn"]
        assert stored == self.done, f"{self.sid}: answered {self.done[-3:]}, stored {stored[-3:]}"
        kernel = Kernel.boot(Machine.from_dict(journal[0]["machine"]), journal[0]["seed"])
        for line in journal[1:]:
            args = {key: value for key, value in line.items() if key not in ("seq", "op", "pid")}
            kernel.call(line["op"], line.get("pid"), **args)
        for path in ("/proc/meminfo", "/proc/vmstat", "/sys/fs/cgroup/memory.stat"):
            assert http.get(f"/v1/sessions/{self.sid}/fs{path}").content == kernel.read(path), path
        ids = [event["id"] for event in self.told]
        assert ids == list(range(1, len(ids) + 1)), f"{self.sid}: events {ids[:5]} .. {ids[-5:]}"
        assert len(ids) == http.get(f"/v1/sessions/{self.sid}").json()["events"]["last"]


def torture(kills: int, clients: int, workers: int, seed: int) -> dict[str, float]:
    """The whole story; figures about it. Raises AssertionError for anything that is lost, doubled or different."""
    luck = random.Random(seed)
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        service = Workers("--data", folder, workers=workers)
        try:
            crowd = [Client(service, number, over) for number in range(clients)]
            threads = [threading.Thread(target=client.work, daemon=True) for client in crowd]
            for thread in threads:
                thread.start()
            killed = 0
            while killed < kills:
                time.sleep(luck.uniform(0.2, 2.5))
                if service.ready() == workers:
                    os.kill(luck.choice(service.pids()), signal.SIGKILL)
                    killed += 1
            while service.ready() < workers:
                time.sleep(0.1)
            over.set()
            for thread in threads:
                thread.join(120)
                assert not thread.is_alive()
            for client in crowd:
                client.check()
        finally:
            code, said = service.stop()
    assert code == 0, said[-2000:]
    return {
        "kills": killed,
        "operations": sum(len(client.done) for client in crowd),
        "repeated requests": sum(client.retries for client in crowd),
        "events": sum(len(client.told) for client in crowd),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    print(torture(options.kills, options.clients, options.workers, options.seed))
