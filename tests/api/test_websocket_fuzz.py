"""Frames that no client should send: each connection ends as the protocol says, and nothing else happens."""

from __future__ import annotations

import base64
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.api.client import Client, Service, running

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PROTOCOL_ERROR, BAD_DATA, TOO_LARGE, BAD_MESSAGE = 1002, 1007, 1009, 4400
MASK = b"\x01\x02\x03\x04"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(max_streams=1000) as service:
        yield service


@pytest.fixture(scope="module")
def session(service: Service) -> Client:
    return service.session(machine={"memory": "256M"})


@contextmanager
def opened(session: Client, path: str = "events") -> Iterator[socket.socket]:
    """A raw connection, upgraded, its reading end at the first frame."""
    port = session.service.listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), 20) as raw:
        key = base64.b64encode(os.urandom(16)).decode()
        raw.sendall(
            f"GET {session.path}/{path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += raw.recv(1)
        assert b" 101 " in head.split(b"\r\n")[0]
        yield raw


def frame(opcode: int, data: bytes = b"", fin: bool = True, rsv: int = 0, mask: bool = True, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    first = (fin << 7) | (rsv << 4) | opcode
    bit = mask << 7
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 1 << 16:
        head = bytes([first, bit | 126]) + struct.pack(">H", size)
    else:
        head = bytes([first, bit | 127]) + struct.pack(">Q", size)
    if not mask:
        return head + data
    return head + MASK + bytes(byte ^ MASK[place % 4] for place, byte in enumerate(data))


def ending(raw: socket.socket) -> int | None:
    """The close code that the service sends, None when it only hangs up. Other frames before it are skipped."""
    got = b""
    while True:
        try:
            data = raw.recv(65536)
        except ConnectionResetError:
            return None
        if not data:
            return None
        got += data
        while (part := whole_frame(got)) is not None:
            opcode, body, got = part
            if opcode == CLOSE:
                return int(struct.unpack(">H", body[:2])[0]) if body else 1005


def whole_frame(got: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame of what came: its opcode, its data, and what is after it."""
    if len(got) < 4 and (len(got) < 2 or got[1] & 127):
        return None
    size, start = got[1] & 127, 2
    if size == 126:
        size, start = struct.unpack(">H", got[2:4])[0], 4
    if len(got) < start + size:
        return None
    return got[0] & 15, got[start : start + size], got[start + size :]


def calm(session: Client) -> None:
    """The service goes on as if nothing had been."""
    assert session.service.http.get("/livez").status_code == 200
    assert session.state()["id"] == session.id
    assert session.service.inside(session.id).frozen is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b"{}", mask=False), PROTOCOL_ERROR, id="not masked"),
        pytest.param(frame(3, b"x"), PROTOCOL_ERROR, id="a reserved opcode"),
        pytest.param(frame(15, b"x"), PROTOCOL_ERROR, id="a reserved control opcode"),
        pytest.param(frame(TEXT, b"{}", rsv=2), PROTOCOL_ERROR, id="a reserved bit"),
        pytest.param(frame(PING, b"x" * 126), PROTOCOL_ERROR, id="a long ping"),
        pytest.param(frame(PING, b"x", fin=False), PROTOCOL_ERROR, id="a ping in parts"),
        pytest.param(frame(0, b"x"), PROTOCOL_ERROR, id="a part of nothing"),
        pytest.param(frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), PROTOCOL_ERROR, id="a message within another"),
        pytest.param(frame(CLOSE, b"\x00"), PROTOCOL_ERROR, id="half a close code"),
        pytest.param(frame(CLOSE, struct.pack(">H", 1005)), PROTOCOL_ERROR, id="a close code that is never sent"),
        pytest.param(frame(TEXT, b"\xff\xfe"), BAD_DATA, id="text that is not UTF-8"),
        pytest.param(frame(TEXT, b"x" * (300 << 10)), TOO_LARGE, id="a large message"),
        pytest.param(frame(TEXT, b"", length=1 << 40) + b"x" * 100, TOO_LARGE, id="a length of a terabyte"),
        pytest.param(frame(TEXT, b"", length=(1 << 64) - 1), TOO_LARGE, id="a length that no frame may have"),
        pytest.param(frame(TEXT, b"x" * 200_000, fin=False) + frame(0, b"x" * 200_000), TOO_LARGE, id="large in parts"),
        pytest.param(frame(TEXT, b"[" * 100_000), BAD_MESSAGE, id="deep JSON"),
        pytest.param(frame(TEXT, b'{"type":"subscribe","pid":' + b"9" * 5000 + b"}"), BAD_MESSAGE, id="a long number"),
        pytest.param(frame(TEXT, b'{"type":"subscribe","types":[' + b'"a",' * 10_000 + b'"b"]}'), BAD_MESSAGE, id="many types"),
        pytest.param(frame(BINARY, b"{}"), BAD_MESSAGE, id="binary"),
        pytest.param(frame(TEXT, b""), BAD_MESSAGE, id="empty"),
    ],
)
def test_frames_that_break_the_rules(session: Client, data: bytes, code: int) -> None:
    with opened(session) as raw:
        raw.sendall(data)
        assert ending(raw) in {code, PROTOCOL_ERROR}
    calm(session)


def test_pings_are_answered_and_pongs_are_not_asked_for(session: Client) -> None:
    with opened(session) as raw:
        raw.sendall(frame(PONG, b"unasked") + frame(PING, b"hello") + frame(CLOSE, struct.pack(">H", 1000)))
        got = b""
        while data := raw.recv(4096):
            got += data
        assert b"hello" in got
    calm(session)


FRAMES = st.builds(
    frame,
    opcode=st.integers(0, 15),
    data=st.binary(max_size=200) | st.sampled_from([b'{"type":"subscribe"}', b'{"type":"subscribe","pid":1}', b"null", b'"\\ud800"']),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 1, 4, 7]),
    mask=st.sampled_from([True, True, True, False]),
    length=st.none() | st.integers(0, (1 << 63) - 1),
)


@pytest.mark.parametrize("path", ["events", "policy"])
def test_any_frames(session: Client, path: str) -> None:
    @given(st.lists(FRAMES, min_size=1, max_size=6), st.binary(max_size=20))
    @example([], b"\x00" * 20)
    @example([], b"GET / HTTP/1.1\r\n\r\n")
    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def check(frames: list[bytes], tail: bytes) -> None:
        with opened(session, path) as raw:
            try:
                raw.sendall(b"".join(frames) + tail)
                raw.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            code = ending(raw)
        assert code is None or code in {1000, 1005, PROTOCOL_ERROR, BAD_DATA, TOO_LARGE, BAD_MESSAGE} or code in range(1000, 5000), code

    check()
    calm(session)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[]", b'"x"', b"{", b"{}", b'{"type":"take"}', b'{"type":"take","id":0,"pages":[]}', b'{"type":"take","id":1,"pages":[-1]}',
        b'{"type":"take","id":1,"pages":[1.5]}', b'{"type":"take","id":1,"pages":["1"]}', b'{"type":"take","id":1,"pages":' + b"[" * 50_000,
        b'{"type":"take","id":' + b"9" * 5000 + b',"pages":[]}', b'{"type":"take","id":1,"pages":[' + b"1," * 5000 + b"1]}",
        b'{"type":"score","x":1}',
        b'{"type":"hello"}', b'{"type":"isolate","id":1}', b'{"type":["take"],"id":1,"pages":[]}',
    ],
    ids=lambda text: text[:50].decode(),
)  # fmt: skip
def test_messages_that_are_no_policys(service: Service, text: bytes) -> None:
    session = service.session(machine={"memory": "64M"})
    with opened(session, "policy") as raw:
        raw.sendall(frame(TEXT, text))
        assert ending(raw) == BAD_MESSAGE
    calm(session)


def test_no_stream_stays_open(session: Client) -> None:
    """Whatever was sent above, the readers are gone: whoever reads next is the only one."""
    inner = session.service.inside(session.id)
    with session.websocket("?after=0") as ws:
        session.spawn()
        ws.recv(timeout=20)
        assert (inner.streams, len(inner.meter.readers)) == (1, 1)


@pytest.mark.parametrize("line", ["Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: short", "Upgrade: other", "Connection: close"])
def test_a_bad_handshake_is_refused(session: Client, line: str) -> None:
    port = session.service.listener.getsockname()[1]
    name = line.split(":")[0]
    good = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"x" * 16).decode(),
    }  # fmt: skip
    headers = "".join(f"{key}: {value}\r\n" for key, value in good.items() if key != name)
    with socket.create_connection(("127.0.0.1", port), 20) as raw:
        raw.sendall(f"GET {session.path}/events?wait=0s HTTP/1.1\r\nHost: x\r\n{headers}{line}\r\n\r\n".encode())
        status = raw.recv(4096).split(b" ")[1]
    assert status in (b"200", b"400", b"426"), status  # what is no upgrade is an ordinary page
    calm(session)
