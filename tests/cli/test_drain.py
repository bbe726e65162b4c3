"""SIGTERM to the real process: open requests are answered, sockets closed with a reason, and it ends in time."""

import signal
import socket
import threading
import time

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pagewalk import Client
from tests.cli.service import serving

PAGES = 4096
OPS = 3000


def test_what_is_under_way_is_finished_and_sockets_are_told() -> None:
    with serving(PAGEWALK_DRAIN_SECONDS="30") as (process, url), Client(url) as client:
        session = client.session({"memory": "512M"})
        pid = session.spawn("a")["pid"]
        region = session.call(pid, "mmap", length=PAGES * 4096, prot="rw", flags=["private", "anonymous"])["result"]["address"]
        touch = {"op": "touch", "pid": pid, "address": region, "length": PAGES * 4096, "access": "write", "order": "random"}
        answers: list[httpx2.Response] = []
        address = f"{url}{session.path}/batch"
        worker = threading.Thread(target=lambda: answers.append(httpx2.post(address, json={"ops": [touch] * OPS}, timeout=60)))
        with connect(f"{url.replace('http', 'ws')}{session.path}/events?after=0") as ws:
            worker.start()
            while "fault" not in ws.recv(timeout=20):  # the batch is under way
                pass
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    ws.recv(timeout=20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012 and "after=" in closed.value.rcvd.reason
        worker.join(60)
        assert answers[0].status_code == 200 and answers[0].json()["completed"] == OPS
        assert process.wait(30) == 0
        session.close()


def test_what_does_not_end_is_ended() -> None:
    """A client that never sends its body holds the process up for the drain time, not longer."""
    with serving(PAGEWALK_DRAIN_SECONDS="1") as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stuck:
            stuck.sendall(b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
            with httpx2.Client(base_url=url) as http:
                while b"pagewalk_http_requests_in_flight 2" not in http.get("/metrics").content:
                    pass
            begin = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - begin < 10


def test_a_computation_that_goes_on_and_on_is_ended() -> None:
    with serving(PAGEWALK_DRAIN_SECONDS="1") as (process, url), Client(url, retries=0) as client:
        session = client.session({"memory": "512M"})
        session.json("POST", "/processes", {"comm": "db", "program": {"name": "db-buffer-pool", "parameters": {"pool": "64M"}}})
        asked = threading.Thread(target=lambda: _ask(f"{url}{session.path}/clock", {"advance": "24h"}))
        asked.start()
        with httpx2.Client(base_url=url) as http:
            while b"pagewalk_long_calls 1" not in http.get("/metrics").content:
                pass
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert time.monotonic() - begin < 15
        asked.join(30)
        session.close()


def _ask(url: str, body: dict[str, str]) -> None:
    try:
        httpx2.post(url, json=body, timeout=60)
    except httpx2.HTTPError:
        return
