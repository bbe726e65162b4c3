"""One writer a session: long work holds up its own session only, and nothing is lost when its client leaves."""

import json
import threading

import httpx2
import pytest

from app.host.session import INLINE_PAGES
from tests.api.client import PAGE

LONG = (INLINE_PAGES + 1) * PAGE


class Held:
    """A kernel's `call` that waits, in whatever thread it is made, until it is let go."""

    def __init__(self, inside):
        self.real, self.threads = inside.kernel.call, []
        self.begun, self.go = threading.Event(), threading.Event()
        inside.kernel.call = self

    def __call__(self, *args, **options):
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        assert self.go.wait(60)
        return self.real(*args, **options)


@pytest.fixture
def busy(service):
    """A session whose kernel is in the middle of a long call, the call's thread, and what lets it go on."""
    session = service.session()
    pid = session.spawn()
    address = session.mmap(pid, LONG)
    held = Held(service.inside(session.id))
    answers = []
    caller = threading.Thread(target=lambda: answers.append(session.touch(pid, address, LONG)))
    caller.start()
    assert held.begun.wait(60)
    yield session, pid, held, caller, answers
    held.go.set()
    caller.join(60)


def test_long_work_runs_beside_the_event_loop_and_others_go_on(service, busy):
    session, _, held, caller, answers = busy
    assert held.threads[0].startswith("kernel")
    assert service.http.get("/livez").status_code == 200
    other = service.session()
    assert other.spawn() > 0
    assert session.state()["seq"] == 2
    held.go.set()
    caller.join(60)
    assert answers[0]["faults"]["minor"] == INLINE_PAGES + 1


def test_the_next_call_waits_for_its_turn(busy):
    session, pid, held, caller, answers = busy
    after = []
    second = threading.Thread(target=lambda: after.append(session.call(pid, "brk")))
    second.start()
    with pytest.raises(httpx2.ReadTimeout):
        session.get("/fs/proc/meminfo", timeout=0.2)
    assert after == [] == answers
    held.go.set()
    caller.join(60)
    second.join(60)
    assert (answers[0]["seq"], after[0]["seq"]) == (3, 4)


def test_a_client_that_leaves_takes_nothing_with_it(service):
    session = service.session()
    pid = session.spawn()
    address = session.mmap(pid, LONG)
    held = Held(service.inside(session.id))
    with pytest.raises(httpx2.ReadTimeout):
        session.post(f"/processes/{pid}/touch", {"address": address, "length": LONG, "access": "write"}, timeout=0.2)
    held.go.set()
    assert session.call(pid, "brk")["seq"] == 4
    assert [line["op"] for line in map(json.loads, session.get("/journal").text.splitlines())] == ["boot", "spawn", "mmap", "touch", "brk"]


def test_short_work_is_done_at_once(service):
    session = service.session()
    pid = session.spawn()
    held = Held(service.inside(session.id))
    held.go.set()
    session.call(pid, "brk")
    assert not held.threads[0].startswith("kernel")
