"""Operating the service: request ids, the log, the metrics."""

import asyncio
import io
import itertools
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import logs
from app.errors import Problem
from app.host.meter import BOUNDS, Meter, add
from app.metrics import COUNTERS, GAUGES, render
from app.storage import open_store
from app.storage.writer import Writer
from tests.api.client import PAGE, problem, running


def families(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {
        sample.name: [(other.labels, other.value) for other in family.samples if other.name == sample.name]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: dict[str, list[tuple[dict[str, str], float]]], name: str, **labels: str) -> float:
    return sum(number for have, number in found[name] if labels.items() <= have.items())


# ---- request ids -----------------------------------------------------------------------------------------------


def test_every_answer_names_its_request(session):
    one, two = session.get(""), session.get("")
    names = {one.headers["x-request-id"], two.headers["x-request-id"]}
    assert len(names) == 2 and all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", name) for name in names)
    assert session.get("", headers={"X-Request-Id": "lab-3.team:7"}).headers["x-request-id"] == "lab-3.team:7"


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a\tb", 'a"b', "ä"])
def test_a_name_that_could_forge_a_log_line_is_not_taken(session, name):
    assert session.get("", headers={"X-Request-Id": name.encode()}).headers["x-request-id"] != name


def test_problems_tell_the_request(session):
    document = problem(session.get("/fs/nothing", headers={"X-Request-Id": "mine"}), 404)
    assert document["request_id"] == "mine"
    document = problem(session.service.http.get("/nowhere", headers={"X-Request-Id": "mine"}), 404)
    assert document["request_id"] == "mine"
    with session.websocket("?after=0", additional_headers={"X-Request-Id": "mine"}) as socket:
        assert socket.response.headers["x-request-id"] == "mine"


# ---- the log ---------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level, out = list(root.handlers), root.level, io.StringIO()
    logs.configure("info", "json", out)
    yield out
    root.handlers[:] = before
    root.setLevel(level)


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_failure_of_ours_is_a_problem_and_a_line_with_its_name(log):
    with running() as service:
        session = service.session()

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a bug, near pw_s_abcdefgh")

        service.app.state.registry.find = broken
        document = problem(session.get("", headers={"X-Request-Id": "mine"}), 500)
        assert document["request_id"] == "mine"
    (line,) = [line for line in lines(log) if line.get("request_id") == "mine"]
    assert line["level"] == "error" and "ZeroDivisionError" in str(line["exception"]) and line["path"] == session.path
    assert "pw_s_abcdefgh" not in log.getvalue()


def test_requests_are_logged_when_wanted_and_not_otherwise(log):
    with running(access_log=1.0) as service:
        session = service.session()
        session.get("/fs/proc/meminfo", headers={"X-Request-Id": "wanted", "Authorization": "Bearer hush-hush"})
    with running() as service:
        service.http.get("/livez", headers={"X-Request-Id": "unwanted"})
    found = [line for line in lines(log) if line.get("event") == "request"]
    assert "unwanted" not in log.getvalue() and "hush-hush" not in log.getvalue()
    (line,) = [line for line in found if line["request_id"] == "wanted"]
    assert (line["method"], line["status"], line["route"]) == ("GET", 200, "/v1/sessions/{sid}/fs/{path:path}")


@pytest.mark.parametrize(
    "fields",
    [
        {"token": "abc-secret"},
        {"Authorization": "abc-secret"},
        {"database_password": "abc-secret"},
        {"text": "Authorization: Bearer abc-secret"},
        {"text": "got pw_i_abc-secret here"},
        {"url": "postgresql://me:abc-secret@db/x"},
    ],
)
def test_secrets_do_not_get_into_the_log(log, fields):
    logs.logger("pagewalk.test").warning("seen", **fields)
    logging.getLogger("another").warning("%s", " ".join(f"{key}={item}" for key, item in fields.items() if key in ("text", "url")))
    assert "abc-secret" not in log.getvalue() and "seen" in log.getvalue() and logs.BLANK in log.getvalue()


def test_lines_of_other_loggers_are_json_too(log):
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("it broke: %s", 7)
    (line,) = lines(log)
    assert (line["event"], line["level"], line["logger"]) == ("it broke: 7", "error", "uvicorn.error")
    assert "ValueError: no" in str(line["exception"])


def test_the_log_can_be_for_people():
    root = logging.getLogger()
    before, level, out = list(root.handlers), root.level, io.StringIO()
    try:
        logs.configure("info", "console", out)
        logs.logger("pagewalk.test").info("seen", path="/x")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert "seen" in out.getvalue() and "/x" in out.getvalue() and "{" not in out.getvalue()


# ---- the metrics -----------------------------------------------------------------------------------------------


def test_metrics_count_what_happens():
    with running() as service:
        session = service.session()
        pid = session.spawn(catch_signals=True)
        session.touch(pid, session.mmap(pid, 64 * PAGE), 64 * PAGE)
        problem(session.get("/fs/nothing"), 404)
        with session.websocket("?after=0"):
            found = families(service.http.get("/metrics").text)
            assert value(found, "pagewalk_event_streams") == 1
        call = "/v1/sessions/{sid}/processes/{pid}/{call}"
        assert value(found, "pagewalk_http_requests_total", method="POST", route=call, status="200") == 2
        assert value(found, "pagewalk_http_requests_total", route="/v1/sessions/{sid}/fs/{path:path}", status="404") == 1
        assert value(found, "pagewalk_http_request_duration_seconds_count", method="POST", route=call) == 2
        assert value(found, "pagewalk_http_request_duration_seconds_bucket", method="POST", route=call, le="+Inf") == 2
        assert value(found, "pagewalk_operations_total") == 3
        assert value(found, "pagewalk_faults_total", kind="minor") >= 64
        assert value(found, "pagewalk_sessions") == value(found, "pagewalk_sessions_created_total") == 1
        assert value(found, "pagewalk_queue_depth") == 0 and value(found, "pagewalk_resident_bytes") > 1 << 20
        assert session.id not in service.http.get("/metrics").text


def test_a_reader_that_falls_behind_is_seen(session):
    inner = session.service.inside(session.id)

    class Behind:
        lag = 7

    inner.meter.readers.add(Behind())
    try:
        found = families(session.service.http.get("/metrics").text)
        assert value(found, "pagewalk_event_stream_lag_highest") >= 7 <= value(found, "pagewalk_event_stream_lag")
    finally:
        inner.meter.readers.clear()


def test_openmetrics_for_those_who_ask(service):
    answer = service.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text") and answer.text.endswith("# EOF\n")


def test_workers_add_up():
    one, two = Meter(), Meter()
    one.request("GET", "/a", 200, 500_000)
    two.request("GET", "/a", 200, 3_000_000_000)
    two.request("GET", "/a", 404, 10**11)
    one.operations, two.operations = 3, 4
    carried = json.loads(json.dumps(two.snapshot({"sessions": 3, "sessions_live": 1, "journal_lag_seconds": 0.2})))
    both = add([one.snapshot({"sessions": 2, "sessions_live": 1, "journal_lag_seconds": 0.5}), carried])
    found = families(render(both, "1", "")[0].decode())
    assert value(found, "pagewalk_operations_total") == 7 and value(found, "pagewalk_sessions_live") == 2
    assert value(found, "pagewalk_sessions") == 3  # all workers count the same sessions, one of them some seconds ago
    assert value(found, "pagewalk_journal_lag_seconds") == 0.5
    assert value(found, "pagewalk_http_requests_total", status="200") == 2
    buckets = [value(found, "pagewalk_http_request_duration_seconds_bucket", le=str(bound)) for bound in (*BOUNDS, "+Inf")]
    assert buckets[0] == 1 and buckets[-2] == 2 and buckets[-1] == 3 and buckets == sorted(buckets)


def test_every_metric_has_a_name_of_ours_and_words():
    for name, doc in [*COUNTERS.values(), *GAUGES.values()]:
        assert re.fullmatch(r"pagewalk_[a-z_]+", name) and doc.endswith(".")


def test_a_problem_outside_of_a_request_has_no_id():
    assert "request_id" not in Problem(404, "x", "y").document("/z") and sys.version_info >= (3, 11)


def test_a_database_that_does_not_answer_is_not_ready(tmp_path):
    with running() as service:
        registry = service.app.state.registry
        registry.writer = Writer(open_store(f"sqlite:///{tmp_path}/x.db", "normal").database)
        try:
            assert service.http.get("/readyz").status_code == 200
            assert value(families(service.http.get("/metrics").text), "pagewalk_journal_waiting") == 0
        finally:
            registry.writer.close()
        problem(service.http.get("/readyz"), 503, "database")
        registry.writer.database.close()
        del registry.writer


def test_the_journals_lag_is_the_age_of_what_waits(tmp_path):
    async def until(holds: Callable[[], bool]) -> float:
        async with asyncio.timeout(10):
            for _ in itertools.takewhile(lambda _: not holds(), itertools.count()):
                await asyncio.sleep(0)
        return writer_of[0].lag_s

    async def lag() -> tuple[float, float, float]:
        writer = Writer(open_store(f"sqlite:///{tmp_path}/x.db", "normal").database)
        writer_of.append(writer)
        try:
            before = writer.lag_s
            task = asyncio.create_task(writer.write(lambda conn: held.wait(10)))
            during = await until(lambda: writer.lag_s > 0)
            held.set()
            await task
            after = await until(lambda: writer.lag_s == 0)
            return before, during, after
        finally:
            held.set()
            await asyncio.to_thread(writer.close)
            writer.database.close()

    held, writer_of = threading.Event(), []
    before, during, after = asyncio.run(lag())
    assert before == after == 0 < during
