"""What a client may get wrong, as a table: each answer says what was wrong and what would be right, and the kernel is unchanged."""

import pytest

from tests.api.client import PAGE, problem

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}

# call, body, status, words of the answer
BODIES = [
    ("mmap", {}, 422, ["length"]),
    ("mmap", {"length": "64X"}, 422, ["64X", "64K"]),
    ("mmap", {"length": -1}, 422, ["-1"]),
    ("mmap", {"length": 1 << 64}, 422, ["2^64-1"]),
    ("mmap", {"length": 1.5}, 422, ["1.5"]),
    ("mmap", {"length": True}, 422, ["true"]),
    ("mmap", {"length": None}, 422, ["null"]),
    ("mmap", {"length": [1]}, 422, ["length"]),
    ("mmap", {"length": PAGE, "prot": "q"}, 422, ["rwx"]),
    ("mmap", {"length": PAGE, "prot": "rr"}, 422, ["rwx"]),
    ("mmap", {"length": PAGE, "flags": ["private", "turbo"]}, 422, ["turbo", "anonymous"]),
    ("mmap", {"length": PAGE, "flags": "private"}, 422, ["list"]),
    ("mmap", {"length": PAGE, "address": "7f00"}, 422, ["0x"]),
    ("mmap", {"length": PAGE, "file": "a\0b"}, 422, ["NUL"]),
    ("mmap", {"length": PAGE, "lenght": 1}, 422, ["lenght"]),
    ("madvise", {"address": 0, "length": PAGE, "advice": "DONTNEED"}, 422, ["dontneed"]),
    ("touch", {"address": 0, "access": "smell"}, 422, ["read"]),
    ("touch", {"address": 0, "stride": 0}, 422, ["stride"]),
    ("touch", {"address": 0, "fill": 256}, 422, ["255"]),
    ("touch", {"address": 0, "pages": [0, -1]}, 422, ["pages"]),
    ("touch", {"address": 0, "length": 1 << 63}, 422, ["one call may make"]),
    ("touch", {"address": 0, "length": "1T", "repeat": 1 << 32}, 422, ["one call may make"]),
    ("kill", {"signal": "TERM!"}, 422, ["SIGKILL"]),
    ("kill", {"signal": 65}, 422, ["64"]),
    ("mmap_", {"length": PAGE}, 404, ["mmap_", "munmap"]),
    ("spawn", {"comm": "x"}, 404, ["spawn"]),
]


@pytest.mark.parametrize(("call", "body", "status", "words"), BODIES)
def test_a_body_that_cannot_be_read(session, call, body, status, words):
    pid = session.spawn()
    problem(session.post(f"/processes/{pid}/{call}", body), status, *words)
    assert session.state()["seq"] == 1


RAW = [
    (b'{"length": 4096', JSON, 422, "JSON"),
    (b'{"length": 4096', {}, 415, "curl --json"),
    (b'{"length":4096}', FORM, 415, "curl --json"),
    (b"length=4096", FORM, 415, "curl --json"),
    (b'{"length":4096}', {"content-type": "text/plain"}, 415, "application/json"),
    (b"[]", JSON, 422, ""),
    (b"null", JSON, 422, ""),
    (b'"x"', JSON, 422, ""),
    (b"\xff\xfe", JSON, 422, ""),
    (b'{"length":NaN}', JSON, 422, "nan"),
    (b'{"length":1e400}', JSON, 422, ""),
    (b'{"length":' + b"9" * 5000 + b"}", JSON, 422, ""),
    (b"[" * 3000, JSON, 422, ""),
    (b'{"file":"\\ud800","length":4096}', JSON, 422, ""),
]


@pytest.mark.parametrize(("raw", "headers", "status", "word"), RAW)
@pytest.mark.parametrize("path", ["/processes/{pid}/mmap", "/batch", "/clock", "/cgroups", "/files", "/processes", "/snapshots", "/rewind"])
def test_what_is_no_json_object(session, path, raw, headers, status, word):
    pid = session.spawn()
    answer = session.request("POST", path.format(pid=pid), content=raw, headers=headers)
    problem(answer, status, *([word] if path.endswith("mmap") else []))
    assert session.state()["seq"] == 1


@pytest.mark.parametrize("address", ["0x800000000000", "0xffffffffffffffff", "0x1", "0xffff800000000000", 0])
@pytest.mark.parametrize("call", ["touch", "munmap", "mprotect", "madvise", "mlock", "msync", "mincore", "mremap"])
def test_strange_addresses_are_the_simulated_kernels_business(session, call, address):
    pid = session.spawn(catch_signals=True)
    more = {"mprotect": {"prot": "r"}, "madvise": {"advice": "dontneed"}, "mremap": {"old_length": PAGE, "new_length": PAGE}}.get(call, {})
    lengths = {} if call == "mremap" else {"length": PAGE}
    answer = session.post(f"/processes/{pid}/{call}", {"address": address, **lengths, **more})
    assert answer.status_code == 200, answer.text
    assert session.get(f"/processes/{pid}").json()["state"] != "dead"


@pytest.mark.parametrize("length", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, "16E"[:2] + "P", (1 << 47), (1 << 47) - PAGE])
@pytest.mark.parametrize("call", ["mmap", "munmap", "mprotect", "madvise", "mlock", "mincore", "mremap"])
def test_strange_lengths_are_the_simulated_kernels_business(session, call, length):
    pid = session.spawn(catch_signals=True)
    address = session.mmap(pid, PAGE)
    bodies = {"mmap": {"length": length}, "mremap": {"address": address, "old_length": PAGE, "new_length": length}}
    more = {"mprotect": {"prot": "r"}, "madvise": {"advice": "dontneed"}}.get(call, {})
    answer = session.post(f"/processes/{pid}/{call}", bodies.get(call, {"address": address, "length": length, **more}))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v1/sessions/s_none", 404),
        ("POST", "/v1/sessions/s_none/processes/1/mmap", 404),
        ("PUT", "/v1/sessions", 405),
        ("PATCH", "/v1/sessions", 405),
        ("TRACE", "/v1/sessions", 405),
        ("POST", "/livez", 405),
    ],
)
def test_what_is_not_there(service, method, path, status):
    answer = service.http.request(method, path, json={} if method == "POST" else None)
    problem(answer, status)
    if status == 405:
        assert answer.headers["allow"]


def test_the_methods_that_are_possible_are_named(session):
    answer = session.request("PATCH", "/clock", json={})
    assert problem(answer, 405)["detail"].endswith("GET, POST")
    assert answer.headers["allow"] == "GET, POST"


def test_a_body_that_is_too_large(special):
    with special(max_body="64K") as service:
        session = service.session()
        body = b'{"comm":"' + b"a" * 70_000 + b'"}'
        problem(session.request("POST", "/processes", content=body, headers=JSON), 413, "65536")
        problem(session.request("POST", "/processes", content=iter([body[:40_000], body[40_000:]]), headers=JSON), 413, "65536")
        keyed = {**JSON, "Idempotency-Key": "k"}
        problem(session.request("POST", "/processes", content=iter([body[:40_000], body[40_000:]]), headers=keyed), 413, "65536")
        problem(session.request("POST", "/clock", content=iter([body[:40_000], body[40_000:]]), headers=JSON), 413, "65536")
        problem(session.put("/proc/sys/vm/swappiness", b"1" * 70_000), 413)
        assert session.state()["seq"] == 0


def test_limits_are_told(special):
    limits = {"max_sessions": 2, "max_machine_memory": "1G", "max_pages_per_call": 100, "max_batch": 3, "max_advance": "1m", "max_journal": 5}
    with special(**limits) as service:
        session = service.session()
        problem(service.http.post("/v1/sessions", json={"machine": {"memory": "2G"}}), 422, str(1 << 30))
        service.session()
        full = service.http.post("/v1/sessions", json={})
        problem(full, 429, "2 sessions")
        assert full.headers["retry-after"]
        problem(session.post("/clone", {}), 429)
        pid = session.spawn()
        address = session.mmap(pid, 200 * PAGE)
        problem(session.post(f"/processes/{pid}/touch", {"address": address, "length": 101 * PAGE}), 422, "101", "100")
        problem(session.post("/batch", {"ops": [{"op": "fork", "pid": pid}] * 4}), 422, "at most 3")
        problem(session.post("/clock", {"advance": "2m"}), 422, "60 s")
        problem(session.post("/batch", {"ops": [{"op": "advance", "duration_ns": "2m"}]}), 422, "60 s")
        assert session.state()["seq"] == 2
        for _ in range(3):
            session.post("/clock", {"advance": "1ms"})
        problem(session.post("/clock", {"advance": "1ms"}), 409, "journal")


def test_a_bug_of_ours_freezes_its_session_only(service):
    from core import KernelBug

    broken, other = service.session(), service.session()
    pid = broken.spawn()
    inside = service.inside(broken.id)

    def call(*_: object, **__: object) -> None:
        raise KernelBug("frame 7 has two owners")

    inside.kernel.call = call
    problem(broken.post(f"/processes/{pid}/fork", {}), 500, "frame 7 has two owners")
    problem(broken.post(f"/processes/{pid}/fork", {}), 409, "frozen")
    problem(broken.get("/fs/proc/meminfo"), 409, "frozen")
    assert broken.state()["state"] == "frozen"
    assert broken.get("/journal").status_code == 200
    assert other.spawn() > 0
    assert broken.post("/rewind", {"seq": 1}).status_code == 200
    assert broken.call(pid, "fork")["errno"] is None


def test_a_bug_in_a_batch_keeps_what_was_done_before(service):
    from core import KernelBug

    session = service.session()
    pid = session.spawn()
    inside = service.inside(session.id)
    real = inside.kernel.call

    def call(op: str, *args: object, **options: object) -> object:
        if op == "fork":
            raise KernelBug("test")
        return real(op, *args, **options)

    inside.kernel.call = call
    ops = [{"op": "mmap", "pid": pid, "length": PAGE}, {"op": "fork", "pid": pid}]
    problem(session.post("/batch", {"ops": ops}), 500, "test")
    assert session.state()["seq"] == 2
    assert len(session.get("/journal").text.splitlines()) == 3


def test_a_panicked_kernel_stays_readable(service):
    session = service.session()
    pid = session.spawn()
    service.inside(session.id).kernel.panicked = "Out of memory"
    problem(session.post(f"/processes/{pid}/fork", {}), 409, "panicked", "kmsg")
    assert session.get("/fs/proc/meminfo").status_code == 200
    assert session.state()["state"] == "panicked"
