"""The service ends its streams and stops in time."""

import threading

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.client import running


def test_open_streams_end_when_the_service_stops():
    with running(drain_seconds=10) as service:
        session = service.session()
        ws = session.websocket()
        ends = []

        def follow(accept):
            with httpx2.stream("GET", service.url + session.path + "/events", headers={"Accept": accept}, timeout=60) as answer:
                for _ in answer.iter_bytes():
                    pass
                ends.append(accept)

        def poll():
            ends.append(httpx2.get(service.url + session.path + "/events?wait=60s&after=0", timeout=60).json()["items"] == [])

        threads = [threading.Thread(target=follow, args=(accept,)) for accept in ("text/event-stream", "application/jsonl")]
        threads.append(threading.Thread(target=poll))
        for thread in threads:
            thread.start()
        inside = service.inside(session.id)
        while inside.streams < 3 or not inside.ring._waiters:
            pass
        service.app.state.registry.drain()
        assert service.http.get("/readyz").status_code == 503
        for thread in threads:
            thread.join(20)
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=20)
    assert set(ends) >= {"text/event-stream", "application/jsonl"}
    assert len(ends) == 3
