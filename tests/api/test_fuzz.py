"""What no client should ask of the file tree: paths, ranges and WebDAV bodies. Each is answered cleanly, nothing breaks, the kernel is as before."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.api.client import Client, Service, running

FUZZ = settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
READS = ("GET", "HEAD", "PROPFIND", "OPTIONS")
WRITES = ("PUT", "DELETE", "MKCOL", "LOCK", "PROPPATCH", "COPY", "MOVE")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture(scope="module")
def session(service: Service) -> Client:
    session = service.session(machine={"memory": "64M"}, seed=1)
    session.spawn("a")
    return session


def send(service: Service, method: str, target: bytes, headers: list[tuple[str, bytes]] = [], body: bytes = b"") -> Answer:  # noqa: B006
    """One request as it stands, byte by byte: no library corrects it."""
    lines = [f"{method} ".encode() + target + b" HTTP/1.1", b"Host: x", b"Connection: close", b"Content-Length: %d" % len(body)]
    lines += [name.encode() + b": " + value for name, value in headers]
    with socket.create_connection(("127.0.0.1", service.listener.getsockname()[1]), 30) as raw:
        raw.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        got = b""
        while data := raw.recv(65536):
            got += data
    head, _, rest = got.partition(b"\r\n\r\n")
    first, *others = head.decode("latin-1").split("\r\n")
    return Answer(int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in others)}, rest)


def is_clean(answer: Answer, method: str) -> bool:
    """A success, or a refusal with a problem document; what is no HTTP at all the server refuses by itself."""
    if answer.status < 400:
        return True
    if answer.body == b"Invalid HTTP request received.":
        return answer.status == 400
    found = answer.headers.get("content-type") == "application/problem+json"
    return answer.status < 500 and found and (method == "HEAD" or json.loads(answer.body)["status"] == answer.status)


def digest(session: Client) -> tuple[int, str]:
    kernel = session.service.inside(session.id).kernel
    return session.state()["seq"], kernel.digest()


# ---- paths

HOSTILE = (
    b"..", b".", b"", b"%2e%2e", b"%2E%2e", b".%2e", b"%252e%252e", b"%25252e", b"%c0%ae%c0%ae", b"%2f", b"%5c..", b"..%2f..", b"%2f%2f",
    b"%00", b"a%00b", b"proc%00", b"%0a", b"%0d%0aX:y", b"%ff", b"%fe%ff", b"%c3%28", b"%ed%a0%80", b"%f4%90%80%80",
    b"%", b"%2", b"%zz", b"%u002e", b"~root",
    b"proc", b"self", b"1", b"meminfo", b"sys", b"fs", b"cgroup", b"memory.max", b"etc", b"passwd",
    b"dev", b"99999999999999999999", b"-1", b"x" * 4096,
    b"%41" * 1500, b"*", b"?", b"#", b";a=b", b"$(id)", b"%7f", b"COM1", b"\xc3\xa9", b"%E2%80%AE",
)  # fmt: skip
PATHS = st.lists(st.sampled_from(HOSTILE) | st.binary(max_size=8).map(lambda raw: b"".join(b"%%%02x" % byte for byte in raw)), min_size=1, max_size=7)


def test_paths_that_lead_nowhere(session: Client) -> None:
    service, before = session.service, digest(session)

    @given(st.sampled_from(READS), st.sampled_from(("/fs/", "/fs", "/at/0/fs/", "/cgroups/", "/fs/proc/", "/fs/sys/fs/cgroup/")), PATHS)
    @example("GET", "/fs/", [b"..", b"..", b"..", b"etc", b"passwd"])
    @example("GET", "/fs/", [b"%2e%2e"] * 7)
    @example("GET", "/at/0/fs/", [b"a%00b"])
    @FUZZ
    def check(method: str, root: str, parts: list[bytes]) -> None:
        answer = send(service, method, session.path.encode() + root.encode() + b"/".join(parts))
        assert is_clean(answer, method), answer
        assert b"root:" not in answer.body, "a file of the machine that serves"

    check()
    assert digest(session) == before


def test_writes_that_lead_nowhere(session: Client) -> None:
    service = session.service

    @given(st.sampled_from(WRITES), st.sampled_from(("/fs/", "/fs/sys/fs/cgroup/", "/fs/proc/")), PATHS, st.binary(max_size=40))
    @example("PUT", "/fs/", [b"..", b"..", b"tmp", b"x"], b"1")
    @example("MKCOL", "/fs/sys/fs/cgroup/", ["日本".encode()], b"")
    @example("MKCOL", "/fs/sys/fs/cgroup/", [b"x" * 4096], b"")
    @example("MKCOL", "/fs/sys/fs/cgroup/", [b"a%00b"], b"")
    @FUZZ
    def check(method: str, root: str, parts: list[bytes], body: bytes) -> None:
        before = digest(session)
        answer = send(service, method, session.path.encode() + root.encode() + b"/".join(parts), [], body)
        assert is_clean(answer, method), answer
        if answer.status >= 400 and b'"errno"' not in answer.body:  # what the simulated kernel itself refuses is an operation of its journal
            assert digest(session) == before, "what was refused has changed something"

    check()


def test_sessions_that_are_no_names(session: Client) -> None:
    @given(st.sampled_from(READS + WRITES), PATHS)
    @FUZZ
    def check(method: str, parts: list[bytes]) -> None:
        answer = send(session.service, method, b"/v1/sessions/" + b"/".join(parts) + b"/fs/proc/meminfo")
        assert is_clean(answer, method) and answer.status >= 300, answer

    check()


# ---- ranges

NUMBER = st.integers(-5, 1 << 70).map(str) | st.sampled_from(["", " ", "0", "1", "99999999999999999999", "1e3", "0x10", "٣", "+1", "1.5", "NaN", "-"])
ONE_RANGE = st.builds("{}-{}".format, NUMBER, NUMBER)
RANGES = st.builds("{}={}".format, st.sampled_from(["bytes", "Bytes", "items", "", "bytes "]), st.lists(ONE_RANGE, max_size=4).map(",".join))


@pytest.mark.parametrize("path", ["/fs/proc/meminfo", "/fs/proc/1/pagemap", "/fs/proc/1/mem", "/at/0/fs/proc/meminfo", "/fs/dev/kmsg"])
def test_ranges(session: Client, path: str) -> None:
    before = digest(session)
    whole = send(session.service, "GET", f"{session.path}{path}".encode())

    @given(RANGES | st.text(max_size=30), st.sampled_from(["GET", "HEAD"]))
    @example("bytes=" + ",".join(f"{first}-{first}" for first in range(2000)), "GET")
    @example("bytes=5-2", "GET")
    @example("bytes=-99999999999999999999999999", "GET")
    @example("bytes=18446744073709551615-18446744073709551616", "GET")
    @example("bytes=0-0,-1", "GET")
    @settings(FUZZ, max_examples=60)
    def check(text: str, method: str) -> None:
        value = " ".join(text.encode("utf-8", "replace").decode("latin-1").split()).encode("latin-1")
        header = ("Range", bytes(byte for byte in value if byte >= 32 and byte != 127))
        answer = send(session.service, method, f"{session.path}{path}".encode(), [header])
        assert is_clean(answer, method), answer
        if method == "GET" and answer.status == 206 and whole.status == 200:
            first, _, last = answer.headers["content-range"].removeprefix("bytes ").partition("/")[0].partition("-")
            assert answer.body == whole.body[int(first) : int(last) + 1]

    check()
    assert digest(session) == before


# ---- WebDAV's XML

LAUGHS = "".join(f'<!ENTITY l{n} "' + f"&l{n - 1};" * 10 + '">' for n in range(1, 9))
BODIES = {
    "a billion laughs": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><propfind xmlns="DAV:"><prop>&l8;</prop></propfind>'.encode(),
    "quadratic": b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 50_000 + b'">]><propfind xmlns="DAV:">' + b"&a;" * 5000 + b"</propfind>",
    "a file of ours": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><propfind xmlns="DAV:"><prop>&a;</prop></propfind>',
    "an address": b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><propfind xmlns="DAV:"><allprop/></propfind>',
    "a parameter": b'<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><propfind xmlns="DAV:"/>',
    "deep": b'<propfind xmlns="DAV:">' + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</propfind>",
    "deep and open": b"<a>" * 300_000,
    "many properties": b'<propfind xmlns="DAV:"><prop>' + b"".join(b"<p%d/>" % n for n in range(20_000)) + b"</prop></propfind>",
    "many attributes": b"<propfind " + b" ".join(b'a%d=""' % n for n in range(20_000)) + b"/>",
    "a long name": b'<propfind xmlns="DAV:"><prop><' + b"a" * 500_000 + b"/></prop></propfind>",
    "UTF-16": '<?xml version="1.0" encoding="UTF-16"?><propfind xmlns="DAV:"><allprop/></propfind>'.encode("utf-16"),
    "UTF-7": b'<?xml version="1.0" encoding="UTF-7"?>+ADw-propfind xmlns=+ACI-DAV:+ACI-/+AD4-',
    "no encoding": b'<?xml version="1.0" encoding="none"?><propfind xmlns="DAV:"/>',
    "not UTF-8": b"<propfind xmlns='DAV:'>\xff\xfe</propfind>",
    "NUL": b"<propfind xmlns='DAV:'>\0</propfind>",
    "no XML": b"hello", "nothing but space": b"   ", "another root": b"<html/>", "an instruction": b"<?php system('id') ?>",
}  # fmt: skip


@pytest.mark.parametrize("method", ["PROPFIND", "PROPPATCH", "LOCK"])
@pytest.mark.parametrize("what", BODIES)
def test_xml_that_is_no_request(session: Client, method: str, what: str) -> None:
    before, headers = digest(session), [("Depth", b"0"), ("Content-Type", b"application/xml")]
    for path in ("/fs/proc/meminfo", "/fs/sys/fs/cgroup/"):
        answer = send(session.service, method, f"{session.path}{path}".encode(), headers, BODIES[what])
        assert is_clean(answer, method), (answer.status, answer.body[:300])
        assert b"root:" not in answer.body
    assert digest(session) == before
    assert session.service.http.get("/livez").status_code == 200


NAMES = st.sampled_from(["propfind", "prop", "allprop", "lockinfo", "lockscope", "exclusive", "owner", "set", "propertyupdate", "x", "&lt;", "a:b"])
LEAVES = NAMES.map("<{}/>".format) | st.text(max_size=5)
XML = st.recursive(LEAVES, lambda inner: st.builds("<{0}>{1}</{0}>".format, NAMES, st.lists(inner, max_size=3).map("".join)))


def test_any_xml(session: Client) -> None:
    before = digest(session)

    @given(XML.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=60), st.sampled_from(["PROPFIND", "PROPPATCH", "LOCK"]),
           st.sampled_from([b"0", b"1", b"infinity", b"-1", b"2", b"", b"x" * 3000, b"\xff"]))  # fmt: skip
    @FUZZ
    def check(body: bytes, method: str, depth: bytes) -> None:
        headers = [("Depth", depth), ("Content-Type", b"application/xml"), ("Timeout", b"Second-1")]
        assert is_clean(answer := send(session.service, method, f"{session.path}/fs/proc/meminfo".encode(), headers, body), method), answer

    check()
    assert digest(session) == before


@pytest.mark.parametrize("name", ["If", "Lock-Token", "Destination", "Depth", "Timeout", "Overwrite", "If-Match", "If-Range", "Idempotency-Key"])
def test_any_header(session: Client, name: str) -> None:
    @given(st.binary(max_size=60) | st.sampled_from([b"(<" * 2000, b"(" * 5000, b"<urn:uuid:" + b"0" * 4000 + b">", b"http://[", b"/../../etc"]),
           st.sampled_from(["PUT", "MOVE", "COPY", "LOCK", "UNLOCK", "DELETE", "PROPFIND", "GET"]))  # fmt: skip
    @settings(FUZZ, max_examples=40)
    def check(value: bytes, method: str) -> None:
        value = bytes(byte for byte in value if byte >= 32 and byte != 127)
        answer = send(session.service, method, f"{session.path}/fs/proc/version".encode(), [(name, value)])
        assert is_clean(answer, method), answer

    check()
