"""The service ends its streams and stops in time."""

import threading
import time

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.client import problem, running


def test_open_streams_end_when_the_service_stops():
    with running(drain_seconds=20) as service:
        session = service.session()
        opened, ends = threading.Barrier(4), []

        def follow(accept):
            headers = {"Accept": accept}
            with httpx2.stream("GET", f"{service.url}{session.path}/events?after=0", headers=headers, timeout=60) as answer:
                chunks = answer.iter_bytes()
                next(chunks)
                opened.wait(20)
                for _ in chunks:
                    pass
            ends.append(accept)

        def listen():
            with session.websocket("?after=0") as ws:
                ws.recv(timeout=20)
                opened.wait(20)
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        ws.recv(timeout=60)
                assert closed.value.rcvd.code == 1012
            ends.append("websocket")

        session.spawn()
        forms = [("text/event-stream",), ("application/jsonl",)]
        threads = [threading.Thread(target=follow, args=form) for form in forms] + [threading.Thread(target=listen)]
        for thread in threads:
            thread.start()
        opened.wait(20)
        begin = time.monotonic()
        service.server.should_exit = True
        for thread in threads:
            thread.join(30)
        assert time.monotonic() - begin < 15
    assert sorted(ends) == ["application/jsonl", "text/event-stream", "websocket"]


def test_a_service_that_drains_is_not_ready(special):
    with special() as service:
        service.app.state.registry.draining = True
        problem(service.http.get("/readyz"), 503, "shuts down")
        assert service.http.get("/livez").status_code == 200
