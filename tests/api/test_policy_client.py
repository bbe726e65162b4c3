"""Be the policy: a program on a real websocket chooses what reclaim takes; one that plays a built-in gives the built-in's event log."""

import importlib.util
import json
import queue
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.api.client import problem

EXAMPLE = Path(__file__).parents[2] / "docs" / "be-the-policy.py"
MACHINE = {"memory": "64M", "swap": "64M"}
PAGE = 4096


def example():
    spec = importlib.util.spec_from_file_location("be_the_policy", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Clock(example().Fifo):
    """CLOCK: the example's FIFO, but a page that was used is passed over once."""

    def __init__(self):
        super().__init__()
        self.marked = set()

    def isolate(self, asked):
        self.marked |= set(asked["used"])
        super().isolate(asked)
        mine = [pfn for pfn, (kind, cgroup, node) in self.where.items()
                if kind in asked["kinds"] and (cgroup, node) == (asked["cgroup"], asked["node"])]  # fmt: skip
        taken = []
        while mine and len(taken) < asked["want"]:
            pfn = mine.pop(0)
            if pfn in self.marked:
                self.marked.discard(pfn)
                self.where[pfn] = self.where.pop(pfn)
                mine.append(pfn)
            else:
                taken.append(pfn)
        return taken


def address(session, query=""):
    return session.service.url.replace("http", "ws") + f"{session.path}/policy{query}"


@contextmanager
def playing(session, answer, query="?budget=20s"):
    """A program that answers each question by `answer(question)`, on a thread of its own; None: not at all."""
    with connect(address(session, query)) as socket:
        assert json.loads(socket.recv(timeout=20))["type"] == "hello"
        heard = queue.Queue()

        def listen():
            try:
                for text in socket:
                    message = json.loads(text)
                    heard.put(message)
                    if message["type"] == "isolate" and (pages := answer(message)) is not None:
                        socket.send(json.dumps({"type": "take", "id": message["id"], "pages": pages}))
            except ConnectionClosed:
                pass

        thread = threading.Thread(target=listen)
        thread.start()
        yield socket, heard
    thread.join(20)


def story(session):
    """A cgroup of 2 MiB, twice as much memory and a file: everything that reclaim does."""
    session.put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    session.request("MKCOL", "/fs/sys/fs/cgroup/t")
    session.put("/sys/fs/cgroup/t/memory.max", "2M")
    pid = session.spawn("a", cgroup="/t")
    session.post("/files", {"path": "/data/f", "size": "1M"})
    heap = session.mmap(pid, 4 << 20)
    for turn, order in enumerate(("random", "sequential", "zipf")):
        session.touch(pid, heap, 3 << 20, order=order, seed=turn)
        session.call(pid, "read", path="/data/f", offset=0, length="512K")
    return pid


def log(session):
    """The events without their numbers in the service."""
    items = session.get("/events?limit=10000").json()["items"]
    return [{key: value for key, value in event.items() if key != "seq"} for event in items]


@pytest.mark.parametrize("built_in", ["fifo", "clock"])
def test_a_program_that_plays_a_built_in_gives_its_event_log(service, built_in):
    played = service.session(machine=MACHINE, seed=1)
    program = Clock() if built_in == "clock" else example().Fifo()
    with playing(played, program.isolate):
        story(played)
        found = log(played)
        kernel = service.inside(played.id).kernel.digest()
    while service.inside(played.id).client is not None:  # the service notices that the program has left
        played.get("/clock")
    own = service.session(machine={**MACHINE, "reclaim_policy": built_in}, seed=1)
    story(own)
    assert found == log(own)
    assert sum(event["type"] == "reclaim" for event in found) > 20

    lines = [json.loads(line) for line in played.get("/journal").text.splitlines()[1:]]
    assert sum(line["op"] == "policy_answers" for line in lines) >= 3
    played.post("/rewind", {"seq": len(lines) - 1})  # before the program left: no program is there now, its answers are in the journal
    assert service.inside(played.id).kernel.digest() == kernel


def test_late_or_wrong_answers_leave_it_to_the_fallback(service):
    own = service.session(machine={**MACHINE, "reclaim_policy": "fifo"}, seed=1)
    story(own)
    wrong = [lambda question: [1], lambda question: [], lambda question: [question["added"]["pfn"][0]] * 2, lambda question: list(range(1, 40))]
    session = service.session(machine=MACHINE, seed=1)
    with playing(session, lambda question: wrong[question["id"] % 4](question) if question["added"]["pfn"] else [0]) as (socket, heard):
        story(session)
        assert log(session) == log(own)
        socket.send('{"type": "score"}')
        score = next(message for message in iter(lambda: heard.get(timeout=60), None) if message["type"] == "score")
    assert score["nonsense"] == score["asked"] > 20 and score["late"] == 0
    assert score["policies"]["client"] == score["policies"]["fifo"]
    assert set(score["policies"]) == {"client", "fifo", "clock", "random", "lru", "classic", "mglru"}
    silent = service.session(machine=MACHINE, seed=1)
    with playing(silent, lambda question: None, "?budget=1ms"):
        story(silent)
        assert log(silent) == log(own)
    assert silent.get("/journal").text.count("policy_answers") >= 3


def test_when_the_program_leaves_the_fallback_is_the_policy(service):
    session = service.session(machine=MACHINE)
    with playing(session, lambda question: None, "?fallback=lru"):
        assert session.get("/journal").text.count('"op":"reclaim_policy"') == 1
    for _ in range(2000):  # the service hears of it when it hears of it
        last = json.loads(session.get("/journal").text.splitlines()[-1])
        if last.get("policy") == "lru":
            break
    assert (last["op"], last["policy"], last["fallback"]) == ("reclaim_policy", "lru", "lru")


def test_one_program_at_a_time_and_only_what_is_understood(service):
    session = service.session(machine=MACHINE)
    with playing(session, lambda question: None) as (socket, _):
        with connect(address(session)) as second, pytest.raises(ConnectionClosed) as closed:
            second.recv(timeout=20)
        assert closed.value.rcvd.code == 4409
        socket.send('{"type": "take", "id": 99, "pages": [1]}')
        socket.send("hello")
    with pytest.raises(Exception, match="422"):
        connect(address(session, "?fallback=opt")).__enter__()
    with pytest.raises(Exception, match="422"):
        connect(address(session, "?budget=soon")).__enter__()
    with pytest.raises(Exception, match="404"):
        connect(address(session).replace(session.id, "s_none")).__enter__()


def test_policies_change_at_run_time(service):
    """Each policy in turn under pressure: every invariant holds, nothing is lost."""
    session = service.session(machine=MACHINE)
    pid = story(session)
    heap = session.mmap(pid, 4 << 20)
    for policy in ("mglru", "fifo", "lru", "classic", "random", "mglru", "clock", "classic"):
        answer = session.post("/batch", {"ops": [{"op": "reclaim_policy", "policy": policy}]}).json()["results"][0]
        assert answer["errno"] is None and answer["elapsed_ns"] == 0
        session.touch(pid, heap, 3 << 20, order="random", seed=3)
        assert session.get("/audit").status_code == 200


def test_an_unknown_policy_is_refused(session):
    assert problem(session.post("/batch", {"ops": [{"op": "reclaim_policy", "policy": "best"}]}), 422)


def test_no_page_is_the_right_answer_where_there_is_none(service):
    """Swap is full and no file is cached: reclaim asks for files, the program has none to name, which is no nonsense."""
    session = service.session(machine={"memory": "64M", "swap": "4M"}, seed=1)
    with playing(session, example().Fifo().isolate) as (socket, heard):
        pid = session.spawn("a")
        session.touch(pid, session.mmap(pid, 40 << 20), 40 << 20)
        socket.send('{"type": "score"}')
        messages = []
        while not messages or messages[-1]["type"] != "score":
            messages.append(heard.get(timeout=60))
    asked = [message for message in messages if message["type"] == "isolate"]
    assert any(message["kinds"] == ["file"] and "file" not in message["added"]["kind"] for message in asked)
    assert messages[-1]["nonsense"] == 0 and messages[-1]["asked"] == len(asked)
