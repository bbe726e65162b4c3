"""Programs over HTTP: the catalogue, spawning, the clock, the stream, vmstat and the OOM table, the journal."""

import json

import pytest

from tests.api.client import problem, running

BUSY = [{"op": "loop", "steps": [{"op": "compute", "time": "5ms"}, {"op": "sleep", "time": "5ms"}]}]


def test_the_catalogue_says_what_a_program_may_be(service):
    seen = service.http.get("/v1/programs").json()
    assert [row["name"] for row in seen["items"]] == ["leak", "db-buffer-pool", "web-workers", "batch-scan", "jvm"]
    assert seen["items"][0]["parameters"]["rate"] == {"kind": "size", "doc": "By how much it grows each time.", "default": 4 << 20}
    assert {"map", "touch", "loop", "fork", "think"} <= {row["op"] for row in seen["steps"]}


def test_a_program_runs_as_the_clock_advances(session):
    pid = session.spawn(program="leak")
    before = session.get(f"/processes/{pid}").json()
    assert before["program"]["name"] == "leak"
    answer = session.post("/clock", {"advance": "3s"}).json()
    assert answer["errno"] is None
    assert answer["result"]["advanced_ns"] == 3 * 10**9
    after = session.get(f"/processes/{pid}").json()
    assert after["rss_bytes"] - before["rss_bytes"] >= 8 << 20
    assert after["program"]["regions"][0]["address"].startswith("0x")
    items = session.get(f"/events?after={answer['events']['first'] - 1}&types=vmstat").json()["items"]
    assert len(items) == 3
    assert all(item["seq"] == answer["seq"] for item in items)


@pytest.mark.parametrize(("program", "word"), [
    ("cron", "leak, db-buffer-pool"), ([], "list of steps"), ([{"op": "sleep"}], "sleep needs 'time'"), ({"steps": [{"op": "x"}]}, "op must be"),
    (5, "program must be"),
])  # fmt: skip
def test_a_bad_program_is_refused_before_anything_happens(session, program, word):
    answer = session.post("/processes", {"comm": "p", "program": program})
    document = problem(answer, 422)
    assert word in document["errors"][0]["detail"]
    assert document["errors"][0]["pointer"] == "#/program"
    assert session.state()["seq"] == 0


def test_programs_are_given_and_taken_away_by_calls_and_in_batches(session):
    pid = session.spawn()
    batch = {"ops": [{"op": "program", "pid": pid, "program": BUSY}, {"op": "advance", "duration_ns": "1s"}, {"op": "program", "pid": pid}]}
    answer = session.post("/batch", batch).json()
    assert [row["errno"] for row in answer["results"]] == [None] * 3
    seen = session.get(f"/processes/{pid}").json()
    assert seen["program"] is None
    assert seen["utime_ns"] == pytest.approx(5 * 10**8, rel=0.03)


def test_work_has_a_limit_of_its_own(session):
    session.spawn(program=[{"op": "map", "region": "a", "length": "1M"}, {"op": "loop", "steps": [{"op": "touch", "region": "a"}]}])
    answer = session.post("/clock", {"advance": "60s", "max_work": 20_000}).json()
    assert answer["errno"] == "EDQUOT"
    assert "advance again for the rest" in answer["result"]["stopped"]
    problem(session.post("/clock", {"advance": "1s", "max_work": 1 << 30}), 422, "max_work is at most")


def test_the_journal_holds_the_clients_own_operations_and_replays(service):
    one = service.session(machine={"memory": "128M", "swap": "64M"}, seed=5)
    one.spawn("leak", program={"name": "leak", "parameters": {"rate": "8M"}})
    one.spawn("db", program={"name": "db-buffer-pool", "parameters": {"pool": "32M"}, "seed": 3})
    one.post("/clock", {"advance": "6s"})
    lines = [json.loads(line) for line in one.get("/journal").text.splitlines()]
    assert [line["op"] for line in lines] == ["boot", "spawn", "spawn", "advance"]
    two = service.session(machine={"memory": "128M", "swap": "64M"}, seed=5)
    ops = [{key: value for key, value in line.items() if key != "seq"} for line in lines[1:]]
    assert [row["errno"] for row in two.post("/batch", {"ops": ops}).json()["results"]] == [None] * 3
    digests = [session.post("/snapshots", {"name": "end"}).json()["digest"] for session in (one, two)]
    assert digests[0] == digests[1]
    one.post("/rewind", {"seq": 3})
    assert one.post("/snapshots", {"name": "again"}).json()["digest"] == digests[0]


def test_a_long_advance_tells_its_events_while_it_runs():
    """More events than the ring holds: a reader that keeps up gets every one of them."""
    with running(event_retention=4096) as service:
        session = service.session(machine={"memory": "128M", "swap": [{"size": "128M", "kind": "disk"}]})
        for name, parameters in (("db-buffer-pool", {"pool": "96M"}), ("jvm", {"heap": "48M", "collect_every": 20})):
            session.spawn(name, program={"name": name, "parameters": parameters})
        with session.websocket("?after=0", max_queue=None) as stream:
            answer = session.post("/clock", {"advance": "40s"}).json()
            last = answer["events"]["last"]
            assert last > 4096 + 1024
            seen = [json.loads(stream.recv(timeout=30))]
            while seen[-1]["id"] < last:
                seen.append(json.loads(stream.recv(timeout=30)))
        seen = [event for event in seen if event["type"] != "progress"]  # a slow machine is told how far the call is
        assert [event["id"] for event in seen] == list(range(1, last + 1))
        times = [event["clock_ns"] for event in seen]
        assert times == sorted(times)
        causes = [(event["cause"], event["id"]) for event in seen if "cause" in event]
        assert causes and all(cause < number for cause, number in causes)


def test_vmstat_and_the_oom_table(session):
    session.spawn("leak", program={"name": "leak", "parameters": {"rate": "64M", "interval": "500ms"}})
    session.post("/clock", {"advance": "8s"})
    text = session.get("/vmstat?interval=1s&count=3").text.splitlines()
    assert text[1].split()[:6] == ["r", "b", "swpd", "free", "buff", "cache"]
    assert len(text) == 5
    rows = session.get("/vmstat?interval=2s", headers={"accept": "application/json"}).json()["items"]
    assert rows[-1]["ns"] == 2 * 10**9
    assert len(session.get("/vmstat").text.splitlines()) == 3
    kills = session.get("/oom").json()["items"]
    assert [row["comm"] for row in kills] == ["leak"]
    why = session.get(f"/events/{kills[0]['event']}/why").json()
    assert why["event"]["type"] == "oom"
    for bad in ("0", "soon"):
        problem(session.get(f"/vmstat?interval={bad}"), 422, "interval")
    assert session.post("/vmstat", {"interval": "100ms"}).json()["errno"] is None
    session.post("/clock", {"advance": "1s"})
    assert len(session.get("/vmstat?interval=100ms&count=5").text.splitlines()) == 7
