"""A real service on a free port of the loopback, in a thread, and a client of it."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from websockets.sync.client import ClientConnection, connect

from app.main import create_app, server
from app.settings import Settings

PAGE = 4096


class Service:
    """A running service, and the app inside it for tests that must break something."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_app(settings)
        self.server = server(settings, self.app)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)
        self.http = httpx2.Client(base_url=self.url, timeout=120)

    def start(self) -> None:
        self.thread.start()
        with httpx2.Client(base_url=self.url, timeout=120) as probe:
            assert probe.get("/readyz").status_code == 200

    def stop(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.listener.close()

    def session(self, **body: Any) -> "Client":
        answer = self.http.post("/v1/sessions", json=body)
        assert answer.status_code == 201, answer.text
        return Client(self, answer.json())

    @property
    def loop(self) -> Any:
        """The service's event loop."""
        return self.app.state.loop

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Carry out a coroutine on the service's event loop."""

        async def whole() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(whole(), self.loop).result(60)

    def inside(self, sid: str) -> Any:
        """The session's object within the app."""
        return self.app.state.registry.live(sid)


class Client:
    """One session as its user sees it."""

    def __init__(self, service: Service, record: dict[str, Any]) -> None:
        self.service, self.record = service, record
        self.id = record["id"]
        self.path = f"/v1/sessions/{self.id}"

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return self.service.http.request(method, self.path + path, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> httpx2.Response:
        return self.request("POST", path, json=json, **options)

    def put(self, path: str, data: str | bytes, **options: Any) -> httpx2.Response:
        return self.request("PUT", "/fs" + path, content=data, **options)

    def state(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("").json()
        return answer

    def spawn(self, comm: str = "a", **body: Any) -> int:
        answer = self.post("/processes", {"comm": comm, **body})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["pid"])

    def call(self, pid: int, name: str, **body: Any) -> dict[str, Any]:
        answer = self.post(f"/processes/{pid}/{name}", body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def mmap(self, pid: int, length: int) -> str:
        return str(self.call(pid, "mmap", length=length, prot="rw", flags=["private", "anonymous"])["result"]["address"])

    def touch(self, pid: int, address: str, length: int, **body: Any) -> dict[str, Any]:
        return self.call(pid, "touch", address=address, length=length, access="write", **body)

    def websocket(self, query: str = "", **options: Any) -> ClientConnection:
        return connect(self.service.url.replace("http", "ws") + self.path + "/events" + query, **options)


@contextmanager
def running(**settings: Any) -> Iterator[Service]:
    """A service with settings of its own."""
    service = Service(Settings(host="127.0.0.1", **settings))
    service.start()
    try:
        yield service
    finally:
        service.stop()


def problem(answer: httpx2.Response, status: int, *words: str) -> dict[str, Any]:
    """The problem document of an answer, checked for what every problem has."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["title"] and document["type"].startswith("urn:pagewalk:problem:")
    assert document["instance"] == answer.request.url.path
    for word in words:
        assert word in document["detail"], document
    return document
