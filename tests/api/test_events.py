"""Events: one numbered stream in four forms, resumed without loss, with explicit gaps; a slow reader slows nobody."""

import asyncio
import base64
import gc
import json
import resource
import socket
import threading
import time

import httpx2
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.host.ring import Arrays, Entry, Ring
from app.stream.hub import Filter, Subscription
from benchmarks.load import Stream
from tests.api.client import PAGE, problem


def take(socket_, count):
    return [json.loads(socket_.recv(timeout=20)) for _ in range(count)]


def all_of(session, query=""):
    return session.get(f"/events?limit=10000{query}").json()["items"]


def test_every_event_is_numbered_and_says_which_operation_caused_it(session):
    pid = session.spawn()
    address = session.mmap(pid, 16 * PAGE)
    answer = session.touch(pid, address, 16 * PAGE)
    items = all_of(session)
    assert [item["id"] for item in items] == list(range(1, len(items) + 1))
    last = items[-1]
    assert answer["events"]["last"] == last["id"] and answer["seq"] == last["seq"]
    caused = [item for item in items if answer["events"]["first"] <= item["id"]]
    assert {item["seq"] for item in caused} == {answer["seq"]}
    (fault,) = [item for item in caused if item["type"] == "fault" and item["kind"] == "anon"]
    assert (fault["pid"], fault["address"], fault["pages"]) == (pid, address, 16)


def test_the_websocket_tells_what_the_page_tells(session):
    with session.websocket() as ws:
        pid = session.spawn()
        session.touch(pid, session.mmap(pid, PAGE), PAGE)
        expected = all_of(session)
        assert take(ws, len(expected)) == expected


def test_a_websocket_resumes_without_loss(session):
    pid = session.spawn()
    address = session.mmap(pid, 64 * PAGE)
    for index in range(5):
        session.touch(pid, hex(int(address, 16) + index * PAGE), PAGE)
    expected = all_of(session)
    with session.websocket("?after=0") as ws:
        assert take(ws, 3) == expected[:3]
    with session.websocket("?after=3") as ws:
        assert take(ws, len(expected) - 3) == expected[3:]


def test_server_sent_events_resume_by_the_browsers_header(session):
    pid = session.spawn()
    session.mmap(pid, PAGE)
    session.spawn("b")
    expected = all_of(session)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
    with httpx2.stream("GET", session.service.url + session.path + "/events?after=0", headers=headers, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        found = []
        while len(found) < len(expected) - 1:
            line = next(lines)
            if line.startswith("id: "):
                data = next(lines)
                found.append(json.loads(data.removeprefix("data: ")))
                assert found[-1]["id"] == int(line[4:])
    assert found == expected[1:]


def test_json_lines(session):
    session.spawn()
    session.spawn("b")
    expected = all_of(session)
    with httpx2.stream("GET", session.service.url + session.path + "/events?after=0", headers={"Accept": "application/jsonl"}, timeout=30) as answer:
        assert answer.headers["content-type"] == "application/jsonl"
        lines = answer.iter_lines()
        assert [json.loads(next(lines)) for _ in expected] == expected


def test_a_quiet_stream_shows_that_it_lives(special):
    with special(heartbeat=0.05) as service:
        session = service.session()
        session.spawn()
        last = session.get("/events").json()["last"]
        for accept, sign in (("text/event-stream", ": alive"), ("application/jsonl", '"type":"bookmark"')):
            with httpx2.stream("GET", service.url + session.path + "/events", headers={"Accept": accept}, timeout=30) as answer:
                line = next(line for line in answer.iter_lines() if sign in line)
            assert accept == "text/event-stream" or json.loads(line)["id"] == last


def test_pages_follow_each_other(session):
    for index in range(5):
        session.spawn(f"p{index}")
    expected, found, after = all_of(session), [], 0
    while True:
        page = session.get(f"/events?after={after}&limit=2").json()
        if not page["items"]:
            break
        assert len(page["items"]) <= 2
        found += page["items"]
        after = page["next_after"]
    assert found == expected
    assert page == {"items": [], "next_after": expected[-1]["id"], "last": expected[-1]["id"], "seq": session.state()["seq"]}


def test_a_long_poll_ends_with_the_first_event(session):
    pages = []
    url = session.service.url + session.path + "/events?after=0&wait=30s"
    waiting = threading.Thread(target=lambda: pages.append(httpx2.get(url, timeout=60).json()))
    waiting.start()
    session.spawn()
    waiting.join(20)
    assert not waiting.is_alive()
    assert pages[0]["items"][0]["type"] == "process"


def test_a_long_poll_ends_when_its_time_is_over(session):
    assert session.get("/events?after=0&wait=10ms").json()["items"] == []


def test_filters(session):
    one, two = session.spawn("a"), session.spawn("b")
    session.request("MKCOL", "/fs/sys/fs/cgroup/app")
    three = session.spawn("c", cgroup="/app")
    for pid in (one, two, three):
        session.touch(pid, session.mmap(pid, PAGE), PAGE)
    everything = all_of(session)
    assert all_of(session, f"&pid={two}") == [item for item in everything if item.get("pid") == two]
    assert all_of(session, "&types=fault,oom") == [item for item in everything if item["type"] in ("fault", "oom")]
    assert all_of(session, "&cgroup=/app") == [item for item in everything if item.get("cgroup") == "/app"] != []
    with session.websocket(f"?after=0&types=fault&pid={three}") as ws:
        (fault,) = take(ws, 1)
        assert (fault["type"], fault["pid"]) == ("fault", three)


def test_a_client_may_change_its_filter(session):
    with session.websocket("?types=oom") as ws:
        ws.send('{"type":"subscribe","types":["process"]}')
        session.service.inside(session.id)  # the message and the calls travel apart: ask until the filter is in force
        while True:
            session.spawn()
            try:
                assert json.loads(ws.recv(timeout=0.05))["type"] == "process"
                break
            except TimeoutError:
                continue


BAD_MESSAGES = [
    "hello",
    "{}",
    "[]",
    '{"type":"ack"}',
    '{"type":"subscribe","colour":1}',
    '{"type":"subscribe","types":["love"]}',
    '{"type":"subscribe","pid":0}',
    b"\x00\x01",
]


@pytest.mark.parametrize("message", BAD_MESSAGES)
def test_a_message_that_is_none_closes_with_a_reason(session, message):
    with session.websocket() as ws:
        ws.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=20)
    assert closed.value.rcvd.code == 4400
    assert len(closed.value.rcvd.reason) > 10
    assert session.spawn() > 0


def test_a_message_that_is_too_large_closes_the_connection(session):
    with session.websocket() as ws:
        ws.send("x" * (300 << 10))
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=20)
    assert closed.value.rcvd.code == 1009


REFUSED = [("?after=99", 410, 4410), ("?types=love", 422, 4400), ("?after=x", 422, 4400), ("?pid=x", 422, 4400)]


@pytest.mark.parametrize(("query", "status", "code"), REFUSED)
def test_a_websocket_is_refused_with_a_problem_or_for_browsers_with_a_code(session, query, status, code):
    with pytest.raises(InvalidStatus) as refused, session.websocket(query):
        pass
    document = json.loads(refused.value.response.body)
    assert (refused.value.response.status_code, document["status"]) == (status, status)
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    with session.websocket(query, subprotocols=["pagewalk.v1"]) as ws, pytest.raises(ConnectionClosed) as closed:
        ws.recv(timeout=20)
    assert closed.value.rcvd.code == code


def test_a_session_that_is_not_there(service):
    url = service.url.replace("http", "ws") + "/v1/sessions/s_none/events"
    with pytest.raises(InvalidStatus) as refused, connect(url):
        pass
    assert refused.value.response.status_code == 404
    with connect(url, subprotocols=["pagewalk.v1"]) as ws, pytest.raises(ConnectionClosed) as closed:
        ws.recv(timeout=20)
    assert closed.value.rcvd.code == 4404


def test_a_page_of_another_site_is_refused(session):
    with pytest.raises(InvalidStatus) as refused, session.websocket(origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with session.websocket(origin=session.service.url) as ws:
        session.spawn()
        assert take(ws, 1)


def test_the_stream_ends_with_its_session(service):
    session = service.session()
    with session.websocket() as ws:
        session.request("DELETE", "")
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=20)
    assert closed.value.rcvd.code == 1000


def test_events_older_than_retention_are_gone(special):
    with special(event_retention=16) as service:
        session = service.session()
        for index in range(40):
            session.spawn(f"p{index}")
        last = session.get("/events").json()["last"]
        document = problem(session.get("/events?after=1"), 410, str(last - 16))
        assert (document["oldest"], document["last"]) == (last - 15, last)
        with pytest.raises(InvalidStatus) as refused, session.websocket("?after=1"):
            pass
        assert refused.value.response.status_code == 410
        assert len(session.get("/events").json()["items"]) == 16


def test_a_reader_that_fell_behind_is_told_the_gap(special):
    with special(event_retention=16) as service:
        session = service.session()
        inside = service.inside(session.id)
        start = inside.ring.last
        reader = Subscription(inside, Filter(), start)
        for index in range(40):
            session.spawn(f"p{index}")
        messages = [json.loads(message.data) for message in reader.take()]
        last = inside.ring.last
        assert (messages[0]["type"], messages[0]["from"], messages[0]["to"], messages[0]["reason"]) == ("gap", start + 1, last - 16, "slow")
        assert [message["id"] for message in messages[1:]] == list(range(last - 15, last + 1))


def test_a_filtered_reader_gets_bookmarks(session):
    with session.websocket("?types=oom") as ws:
        ops = [{"op": "mmap", "pid": session.spawn(), "length": PAGE}] * 300
        session.post("/batch", {"ops": ops})
        (bookmark,) = take(ws, 1)
    assert bookmark["type"] == "bookmark"
    assert bookmark["id"] >= 256
    assert all_of(session, f"&after={bookmark['id']}&types=oom") == []


def test_readers_are_told_when_a_session_goes_back_in_time(session):
    session.spawn()
    first = session.get("/events").json()["last"]
    with session.websocket() as ws:
        session.spawn("b")
        assert take(ws, 1)[0]["id"] == first + 1
        last = session.get("/events").json()["last"]
        seen = last - first
        take(ws, seen - 1)
        session.post("/rewind", {"seq": 1})
        (gap,) = take(ws, 1)
        assert (gap["type"], gap["reason"], gap["from"], gap["to"], gap["seq"]) == ("gap", "rewind", first + 1, last, 1)
        session.spawn("c")
        assert take(ws, 1)[0]["id"] == first + 1
    problem(session.get(f"/events?after={last + 5}"), 410, "back in time")


def test_streams_are_counted(special):
    with special(max_streams=1) as service:
        session = service.session()
        with session.websocket() as ws:
            with pytest.raises(InvalidStatus) as refused, session.websocket():
                pass
            assert refused.value.response.status_code == 429
            session.spawn()
            assert take(ws, 1)


def raw_websocket(service, path):
    """A websocket by hand whose owner reads nothing unless it wants to."""
    host, port = service.listener.getsockname()
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect((host, port))
    key = base64.b64encode(b"0" * 16).decode()
    head = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    link.sendall("".join(f"{line}\r\n" for line in [*head, ""]).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += link.recv(1)
    assert b" 101 " in answer
    return link


def test_a_reader_that_reads_nothing_slows_nobody_and_is_closed(special):
    with special(send_timeout=0.2, event_retention=100_000) as service:
        session = service.session()
        link = raw_websocket(service, f"{session.path}/events")
        inside = service.inside(session.id)
        ops = [{"op": "mmap", "pid": session.spawn(), "length": PAGE}] * 5000
        while inside.streams:
            assert session.post("/batch", {"ops": ops}).json()["completed"] == 5000
            if inside.ring.last > 90_000:
                break
        with session.websocket() as ws:
            session.spawn()
            assert take(ws, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        tail = b""
        link.settimeout(30)
        while (4429).to_bytes(2, "big") not in tail:
            data = link.recv(1 << 20)
            assert data, "the stream ended without a reason"
            tail = (tail + data)[-200:]
        link.close()


def messages(link):
    """What a server sends on a websocket by hand, as JSON."""
    buffer = bytearray()
    while True:
        while len(buffer) < 2 or len(buffer) < (end := 2 + (0, 2, 8)[max(0, buffer[1] - 125)] + frame_length(buffer)):
            data = link.recv(1 << 20)
            assert data, "the stream ended"
            buffer += data
        yield json.loads(buffer[end - frame_length(buffer) : end])
        del buffer[:end]


def frame_length(buffer):
    return buffer[1] if buffer[1] < 126 else int.from_bytes(buffer[2 : 4 if buffer[1] == 126 else 10], "big")


def test_a_slow_reader_is_told_every_event_or_the_gap(special):
    with special(event_retention=1000, send_timeout=120) as service:
        session = service.session()
        link = raw_websocket(service, f"{session.path}/events?after=0")
        inside, ops = service.inside(session.id), [{"op": "mmap", "pid": session.spawn(), "length": PAGE}] * 5000
        while inside.ring.last < 60_000:  # more than fits between server and client
            assert session.post("/batch", {"ops": ops}).json()["completed"] == 5000
        known, gaps, last = 0, 0, inside.ring.last
        link.settimeout(30)
        for message in messages(link):
            if message["type"] == "gap":
                assert (message["from"], message["reason"]) == (known + 1, "slow")
                known, gaps = message["to"], gaps + 1
            elif message["type"] not in ("progress", "bookmark"):
                assert message["id"] == known + 1
                known = message["id"]
            if known == last:
                break
        link.close()
        assert gaps


def test_a_thousand_subscribers_of_one_session_get_the_same_bytes(special):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with special() as service:
            session = service.session(seed=1)
            port = service.listener.getsockname()[1]
            crowd = [Stream(port, f"{session.path}/events") for _ in range(1000)]
            session.spawn()
            sizes = {reader.read(1) for reader in crowd}
            assert len(sizes) == 1
            for reader in crowd:
                reader.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_events_come_as_arrays_where_that_is_asked_for(session):
    session.spawn()
    for _ in range(10):
        session.call(session.spawn(), "exit")
    events = session.get("/events").json()["items"]
    with session.websocket("?after=0&batch=4") as ws:
        arrays = [json.loads(ws.recv(timeout=20)) for _ in range(-(-len(events) // 4))]
    assert [event for array in arrays for event in array] == events
    assert all(len(array) <= 4 for array in arrays)
    with pytest.raises(InvalidStatus, match="422"):
        session.websocket("?batch=0")


def arrays(reader, size):
    """What a reader that is behind is told until it is not, as arrays."""

    async def told():
        batches, found = reader.batches(20, size), []
        while reader.behind:
            found += reader.arrays(await anext(batches), size)
        return found

    return asyncio.run(told())


def flat(texts):
    return [event for text in texts for event in json.loads(text)]


def test_readers_of_arrays_share_them_wherever_they_began(special):
    with special() as service:
        session = service.session()
        for _ in range(300):
            session.spawn()
        events, inside = all_of(session), service.inside(session.id)
        whole = arrays(Subscription(inside, Filter(), 0), 64)
        assert flat(whole) == events
        for after in (1, 63, 64, 65, 150):
            found = arrays(Subscription(inside, Filter(), after), 64)
            assert flat(found) == events[after:]
            shared = [text for text in found if len(json.loads(text)) == 64]
            assert shared and all(any(text is other for other in whole) for text in shared)
        assert flat(arrays(Subscription(inside, Filter(types=frozenset({"process"})), 0), 64)) == events


def test_arrays_of_another_past_are_others(special):
    with special() as service:
        session = service.session()
        for _ in range(20):
            session.spawn("before")
        inside = service.inside(session.id)
        assert flat(arrays(Subscription(inside, Filter(), 0), 8)) == all_of(session)
        session.post("/rewind", {"seq": 1})
        for _ in range(20):
            session.spawn("after")
        told = flat(arrays(Subscription(inside, Filter(), 0), 8))
        assert told == all_of(session) and {event["comm"] for event in told if event["seq"] > 1} == {"after"}


def test_arrays_of_a_reader_that_fell_behind_begin_with_the_gap(special):
    with special(event_retention=100) as service:
        session = service.session()
        reader = Subscription(service.inside(session.id), Filter(), 3)
        for _ in range(150):
            session.spawn()
        gap, *told = flat(arrays(reader, 64))
        assert (gap["type"], gap["from"]) == ("gap", 4) and told == all_of(session) and told[0]["id"] == gap["to"] + 1


def test_arrays_are_kept_for_as_many_events_as_the_ring_holds():
    entries = [Entry(number, 1, Spawned()) for number in range(1, 101)]
    kept = Arrays(room=32)
    made = [kept.of(entries[start : start + 8]) for start in range(0, 96, 8)]
    assert all(kept.of(entries[start : start + 8]) is made[start // 8] for start in range(64, 96, 8))
    assert kept.of(entries[:8]) is not made[0] and kept.of(entries[:8]) == made[0]


class Spawned:
    """An event, as far as it is encoded."""

    def to_dict(self):
        return {"type": "process"}


def test_a_closed_websocket_leaves_no_circle_behind(session):
    """A thousand that leave at once would be looked for while everyone waits."""
    port, end = session.service.listener.getsockname()[1], time.monotonic() + 10

    def connections():
        return sum(isinstance(one, HttpToolsProtocol | WebSocketsSansIOProtocol) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = connections()
        streams = [Stream(port, f"{session.path}/events") for _ in range(10)]
        assert connections() >= before + 10
        for stream in streams:
            stream.close()
        while connections() > before:
            assert time.monotonic() < end, "they are only found by a collection of garbage"
            session.service.run(lambda: asyncio.sleep(0))
    finally:
        gc.enable()


def test_a_reader_that_is_stopped_in_the_moment_an_event_comes_is_stopped():
    async def story():
        ring = Ring(16)
        reader = asyncio.create_task(ring.wait(0, 0, 0, 60))
        await asyncio.sleep(0)
        ring.nudge()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    asyncio.run(story())
