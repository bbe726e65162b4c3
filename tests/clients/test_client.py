"""The hand-written client against a real service, over a network that breaks."""

import asyncio
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from websockets.sync.server import serve

from pagewalk import Client, ProblemError, Session, Unreachable
from pagewalk.client import pause
from pagewalk.events import Events, Stream
from tests.api.client import PAGE, Service, running
from tests.clients.proxy import Proxy, proxied


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(event_retention=64) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    with client.session({"memory": "256M"}, seed=1) as session:
        yield session


@pytest.fixture
def proxy(service: Service) -> Iterator[Proxy]:
    with proxied(service.listener.getsockname()[1]) as proxy:
        yield proxy


def make_events(session: Session, pid: int, count: int) -> None:
    for _ in range(count):
        session.call(pid, "mmap", length=PAGE, prot="rw", flags=["private", "anonymous"])


# ---- requests --------------------------------------------------------------------------------------------------


def test_a_session_from_boot_to_end(client: Client) -> None:
    with client.session({"memory": "256M"}, seed=7, name="lab") as session:
        pid = session.spawn("student")["pid"]
        region = session.call(pid, "mmap", length="1M", prot="rw", flags=["private", "anonymous"])["result"]["address"]
        assert session.call(pid, "touch", address=region, length="1M", access="write")["faults"]["minor"] == 256
        assert session.read(f"/proc/{pid}/comm") == "student\n"
        session.write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
        session.mkdir("/sys/fs/cgroup/app")
        session.write("/sys/fs/cgroup/app/memory.max", "50M")
        assert session.read("/sys/fs/cgroup/app/memory.max") == f"{50 << 20}\n"
        session.write("/proc/sys/vm/swappiness", 11)
        assert session.read("/proc/sys/vm/swappiness") == "11\n"
        assert "app" in session.listdir("/sys/fs/cgroup")
        session.rmdir("/sys/fs/cgroup/app")
        assert len(session.read_bytes(f"/proc/{pid}/pagemap", int(region, 16) // PAGE * 8, 8)) == 8
        assert [row["pid"] for row in session.processes() if row["comm"] == "student"] == [pid]
        assert session.batch([{"op": "fork", "pid": pid}, {"op": "advance", "duration_ns": "1ms"}])["completed"] == 2
        assert session.advance("1ms")["errno"] is None
        again = client.open(session.id)
        assert again.record["name"] == "lab"
        again.close()
    with pytest.raises(ProblemError) as gone:
        client.open(session.id)
    assert gone.value.status == 404


def test_a_problem_is_an_exception_with_its_document(session: Session) -> None:
    with pytest.raises(ProblemError) as caught:
        session.write("/proc/sys/vm/swappiness", "many")
    problem = caught.value
    assert (problem.status, problem.errno, problem.type) == (422, "EINVAL", "urn:pagewalk:problem:refused")
    assert problem.detail in str(problem)
    with pytest.raises(ProblemError) as caught:
        session.call(1, "mmap", length="one", prot="rw", flags=[])
    assert [row["pointer"] for row in caught.value.errors]


def test_a_simulated_failure_is_an_answer(session: Session) -> None:
    pid = session.spawn("a")["pid"]
    assert session.call(pid, "munmap", address="0x1", length=PAGE)["errno"] == "EINVAL"


def test_a_sessions_own_token_enters_it() -> None:
    with running(token="operator") as service, Client(service.url, "operator") as operator:
        session = operator.session({"memory": "256M"})
        assert session.token != "operator" and session.read("/proc/meminfo")
        with Client(service.url) as stranger:
            with pytest.raises(ProblemError) as caught:
                stranger.open(session.id)
            assert caught.value.status == 401
            mine = stranger.open(session.id, session.token)
            pid = mine.spawn("a")["pid"]
            with mine.events(after=0) as events:
                assert next(event for event in events if event.get("pid") == pid)["type"] == "process"
            mine.close()
        session.destroy()


# ---- retries: an answer, then the connection that carried it is cut ---------------------------------------------


class Script(BaseHTTPRequestHandler):
    """Answers what the test's list says, one entry a request: a status with headers and a body, or None to hang up."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.command, self.headers.get("idempotency-key")))  # type: ignore[attr-defined]
        step = self.server.steps.pop(0)  # type: ignore[attr-defined]
        if step is None:
            self.close_connection = True
            return
        status, headers, body = step
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = handle_any

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def scripted() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    server.seen, server.steps = [], []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


DONE = (200, {}, b"{}")
BUSY = (503, {"retry-after": "0"}, b"{}")
UNDER_WAY = (409, {}, b'{"type": "urn:pagewalk:problem:still-under-way"}')


@pytest.mark.parametrize(
    ("method", "steps", "outcome"),
    [
        ("GET", [None, None, DONE], 3),
        ("POST", [None, DONE], 2),
        ("POST", [None, UNDER_WAY, DONE], 3),
        ("POST", [BUSY, (429, {"retry-after": "0"}, b"{}"), DONE], 3),
        ("POST", [(502, {}, b"bad gateway"), DONE], 2),
        ("PUT", [BUSY, DONE], 2),
        ("PUT", [None], Unreachable),
        ("PUT", [(502, {}, b"bad gateway")], ProblemError),
        ("POST", [(422, {}, b"{}")], ProblemError),
        ("POST", [(500, {}, b"[1]")], ProblemError),
        ("GET", [(503, {}, b"")], ProblemError),
        ("GET", [None, None, None], Unreachable),
    ],
)
def test_what_is_sent_again(scripted: ThreadingHTTPServer, method: str, steps: list[object], outcome: object) -> None:
    scripted.steps[:] = steps  # type: ignore[attr-defined]
    seen: list[tuple[str, str | None]] = scripted.seen  # type: ignore[attr-defined]
    with Client(f"http://127.0.0.1:{scripted.server_address[1]}", retries=2) as client:
        if isinstance(outcome, int):
            assert client.request(method, "/x").status_code == HTTPStatus.OK
            assert len(seen) == outcome
        else:
            with pytest.raises(outcome):  # type: ignore[call-overload]
                client.request(method, "/x")
            assert len(seen) == len(steps)
    keys = {key for _, key in seen}
    assert len(keys) == 1 and (None in keys) == (method != "POST")  # one key for all attempts of a POST


def test_a_service_that_is_not_there() -> None:
    with Client("http://127.0.0.1:9", retries=1) as client, pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        client.version()


def test_a_post_whose_answer_was_lost_is_not_done_twice(service: Service, proxy: Proxy) -> None:
    """The operation is carried out, its answer is cut off on the way; the repetition gets the first answer."""
    with Client(service.url) as direct, direct.session({"memory": "256M"}) as session, Client(proxy.url) as client:
        inner = service.inside(session.id)
        cut = threading.Event()
        commit = inner.commit

        def commit_and_cut(outcome):
            if not cut.is_set():
                cut.set()
                proxy.cut()
            return commit(outcome)

        inner.commit = commit_and_cut
        answer = client.open(session.id).spawn("once")
        assert cut.is_set() and answer["seq"] == 1
        assert [row["comm"] for row in session.processes()].count("once") == 1


@pytest.mark.parametrize(
    ("attempt", "header", "low", "high"),
    [(0, None, 0.05, 0.1), (9, None, 2.5, 5), (0, "2", 2, 2), (0, "900", 5, 5), (1, "soon", 0.1, 0.2)],
)
def test_pauses(attempt: int, header: str | None, low: float, high: float) -> None:
    assert low <= pause(attempt, header) <= high


# ---- events ----------------------------------------------------------------------------------------------------


def test_events_go_on_where_the_connection_broke(service: Service, proxy: Proxy) -> None:
    with Client(proxy.url) as client, Client(service.url) as direct, direct.session({"memory": "256M"}) as session:
        pid = session.spawn("a")["pid"]
        ids = []
        with client.open(session.id).events(after=0, types="vma") as events:
            for _ in range(4):
                make_events(session, pid, 3)
                ids += [next(events)["id"] for _ in range(3)]
                proxy.cut()
        assert proxy.connections >= 5
        expected = [item["id"] for item in session.json("GET", "/events", params={"types": "vma", "limit": 64})["items"]]
        assert ids == expected[: len(ids)] and len(ids) == 12


def test_events_for_asyncio_too(service: Service, proxy: Proxy) -> None:
    async def follow(session: Session) -> list[int]:
        ids: list[int] = []
        async for event in session.events_async(after=0, types="vma"):
            ids.append(event["id"])
            if len(ids) == 2:
                proxy.cut()
            if len(ids) == 4:
                return ids
        raise AssertionError("the stream ended")

    with Client(service.url) as direct, direct.session({"memory": "256M"}) as session, Client(proxy.url) as client:
        make_events(session, session.spawn("a")["pid"], 4)
        ids = asyncio.run(follow(client.open(session.id)))
        assert ids == sorted(set(ids)) and proxy.connections >= 2


def test_what_is_no_longer_kept_is_a_gap(session: Session) -> None:
    pid = session.spawn("a")["pid"]
    make_events(session, pid, 100)
    last = session.json("GET", "/events", params={"limit": 1})["last"]
    with session.events(after=0) as events:
        gap = next(events)
        assert (gap["type"], gap["from"], gap["to"], gap["reason"]) == ("gap", 1, last - 64, "expired")
        assert next(events)["id"] == last - 63


def test_a_session_that_went_back_is_a_gap(session: Session) -> None:
    pid = session.spawn("a")["pid"]
    make_events(session, pid, 5)
    last = session.json("GET", "/events", params={"limit": 1})["last"]
    session.json("POST", "/rewind", {"seq": 1})
    now = session.json("GET", "/events", params={"limit": 1})["last"]
    with session.events(after=last) as events:
        gap = next(events)
    assert (gap["reason"], gap["from"], gap["to"], gap["id"]) == ("rewind", now + 1, last, now)


def test_a_stream_ends_with_its_session(client: Client) -> None:
    session = client.session({"memory": "256M"})
    events = session.events(after=0)
    session.spawn("a")
    first = next(events)
    session.destroy()
    assert [event["id"] for event in events] == sorted(event["id"] for event in events) or first


def test_without_after_a_stream_begins_at_the_present(session: Session) -> None:
    pid = session.spawn("a")["pid"]
    with session.events() as events:
        make_events(session, pid, 1)
        assert next(events)["type"] == "vma"


def test_a_stream_is_stopped_from_another_thread(session: Session) -> None:
    events, got = session.events(after=0), []
    session.spawn("a")
    thread = threading.Thread(target=lambda: got.extend(events))
    thread.start()
    while not got:
        thread.join(0.01)
    events.close()
    thread.join(20)
    assert not thread.is_alive() and got


def test_a_session_that_is_not_there_and_a_wrong_filter(client: Client, session: Session) -> None:
    with pytest.raises(ProblemError) as caught:
        next(session.events(after=0, types="nothing"))
    assert caught.value.status == 422 and "nothing" in caught.value.detail
    gone = Session(client, {"id": "s_gone"})
    with pytest.raises(ProblemError) as caught:
        next(gone.events(after=0))
    assert caught.value.status == 404


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4429, None])
def test_a_server_that_goes_away_is_asked_again(code: int | None) -> None:
    """Two events and a close; the follower comes back after the second, whatever the service said."""
    asked: list[str] = []

    def handle(socket) -> None:
        asked.append(socket.request.path)
        first = 1 if len(asked) == 1 else 3
        for number in (first, first + 1):
            socket.send(f'{{"id": {number}, "type": "vma"}}')
        if len(asked) == 1:
            if code is None:
                socket.socket.shutdown(2)
            else:
                socket.close(code, "on purpose")
        else:
            socket.close(1000)

    with serve(handle, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        ids = [event["id"] for event in Events(Stream(f"http://127.0.0.1:{port}/v1/sessions/s", "t", 0, {"pid": 7}))]
        server.shutdown()
    assert ids == [1, 2, 3, 4]
    assert [path.partition("?")[2] for path in asked] == ["after=0&pid=7", "after=2&pid=7"]


def test_patience_ends() -> None:
    with pytest.raises(Unreachable):
        next(Events(Stream("http://127.0.0.1:9/v1/sessions/s", None, 0, {}, patience=0.1)))
