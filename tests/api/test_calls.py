"""Processes and their calls: the shape of every answer, batches, conditional and repeated requests."""

import pytest

from tests.api.client import PAGE, problem

SHAPE = ["result", "errno", "signal", "fault_address", "faults", "killed", "elapsed_ns", "clock_ns", "events", "seq"]


def test_spawn_answers_the_pid_and_where_the_process_is(session):
    answer = session.post("/processes", {"comm": "a"})
    pid = answer.json()["pid"]
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{session.path}/processes/{pid}"
    assert session.service.http.get(answer.headers["location"]).json()["comm"] == "a"
    listed = session.get("/processes").json()
    assert pid in [item["pid"] for item in listed["items"]]
    assert listed["next_page_token"] is None


def test_every_call_answers_in_one_shape(session):
    pid = session.spawn()
    answer = session.call(pid, "mmap", length="64K", prot="rw", flags=["private", "anonymous"])
    assert list(answer) == SHAPE
    assert answer["result"]["address"].startswith("0x")
    touched = session.touch(pid, answer["result"]["address"], "64K")
    assert list(touched) == [*SHAPE, "tlb"]
    assert touched["faults"] == {"minor": 16, "major": 0}
    assert touched["result"] == {"touched": 16}
    assert touched["seq"] == answer["seq"] + 1
    assert touched["events"]["last"] >= touched["events"]["first"] > 0
    assert touched["clock_ns"] > answer["clock_ns"]


def test_addresses_are_taken_as_text_and_as_numbers(session):
    pid = session.spawn()
    address = session.mmap(pid, 2 * PAGE)
    assert session.touch(pid, address, PAGE)["errno"] is None
    assert session.touch(pid, int(address, 16) + PAGE, PAGE)["errno"] is None


def test_a_simulated_failure_is_a_successful_request(session):
    pid = session.spawn()
    answer = session.post(f"/processes/{pid}/mmap", {"length": "64E"[:2] + "T", "prot": "rw"})
    assert (answer.status_code, answer.json()["errno"]) == (200, "ENOMEM") or answer.json()["result"]
    assert session.call(pid, "mmap", length=0)["errno"] == "EINVAL"


def test_the_etag_grows_with_each_operation_and_guards_writers(session):
    pid = session.spawn()
    tag = session.get("").headers["etag"]
    first = session.post(f"/processes/{pid}/mmap", {"length": PAGE}, headers={"If-Match": tag})
    assert (first.status_code, first.headers["etag"]) == (200, '"1.2"')
    stale = session.post(f"/processes/{pid}/mmap", {"length": PAGE}, headers={"If-Match": tag})
    document = problem(stale, 412, tag, '"1.2"')
    assert document["seq"] == session.state()["seq"] == 2
    for path, body in (("/clock", {"advance": "1s"}), ("/batch", {"ops": []}), ("/rewind", {"seq": 0}), ("/files", {"path": "/data/f", "size": 1})):
        problem(session.post(path, body, headers={"If-Match": tag}), 412)
    problem(session.put("/proc/sys/vm/swappiness", "10", headers={"If-Match": tag}), 412)
    assert session.state()["seq"] == 2


def test_a_batch_answers_what_its_routes_would(session):
    pid = session.spawn()
    ops = [
        {"op": "mmap", "pid": pid, "length": "8K", "prot": "rw", "flags": ["private", "anonymous"]},
        {"op": "mmap", "pid": pid, "length": 0},
        {"op": "touch", "pid": 99999, "address": "0x1000"},
        {"op": "advance", "duration_ns": "1ms"},
    ]
    answer = session.post("/batch", {"ops": ops}).json()
    mapped, refused, nobody, later = answer["results"]
    assert list(mapped) == list(later) == SHAPE
    assert refused["errno"] == "EINVAL"
    assert (nobody["status"], nobody["errno"]) == (404, "ESRCH")
    assert (answer["requested"], answer["completed"], answer["seq"]) == (4, 4, 4)


def test_a_batch_stops_at_the_first_error_when_asked(session):
    pid = session.spawn()
    ops = [{"op": "mmap", "pid": pid, "length": PAGE}, {"op": "mmap", "pid": pid, "length": 0}, {"op": "mmap", "pid": pid, "length": PAGE}]
    answer = session.post("/batch", {"ops": ops, "stop_on_error": True}).json()
    assert (answer["completed"], answer["requested"], answer["seq"]) == (2, 3, 3)


def test_a_batch_is_read_before_any_of_it_is_carried_out(session):
    pid = session.spawn()
    ops = [{"op": "mmap", "pid": pid, "length": PAGE}, {"op": "mmap", "pid": pid, "length": "4Q"}]
    document = problem(session.post("/batch", {"ops": ops}), 422, "4Q")
    assert document["errors"][0]["pointer"].startswith("#/ops/1")
    unknown = problem(session.post("/batch", {"ops": [{"op": "mmpa", "pid": pid}]}), 422, "mmpa", "mmap")
    assert unknown["errors"][0]["pointer"] == "#/ops/0"
    assert session.state()["seq"] == 1


def test_an_idempotency_key_makes_a_retry_safe(session):
    pid = session.spawn()
    headers = {"Idempotency-Key": "k1"}
    first = session.post(f"/processes/{pid}/mmap", {"length": PAGE}, headers=headers)
    again = session.post(f"/processes/{pid}/mmap", {"length": PAGE}, headers=headers)
    assert again.content == first.content
    assert again.headers["etag"] == first.headers["etag"]
    assert "idempotent-replayed" in again.headers and "idempotent-replayed" not in first.headers
    assert session.state()["seq"] == 2
    problem(session.post(f"/processes/{pid}/mmap", {"length": 2 * PAGE}, headers=headers), 422, "Idempotency-Key")
    problem(session.post("/clock", {"advance": "1s"}, headers=headers), 422, "Idempotency-Key")


def test_a_key_makes_one_session_only(service):
    headers = {"Idempotency-Key": "one-session"}
    first = service.http.post("/v1/sessions", json={}, headers=headers)
    again = service.http.post("/v1/sessions", json={}, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert first.json()["token"] == again.json()["token"]


def test_a_key_belongs_to_its_session(service):
    one, two = service.session(), service.session()
    headers = {"Idempotency-Key": "same"}
    assert one.post("/processes", {"comm": "a"}, headers=headers).status_code == 201
    assert "idempotent-replayed" not in two.post("/processes", {"comm": "b"}, headers=headers).headers


@pytest.mark.parametrize("pid", ["0", "99999", "-1", "abc", "1e3", "９", "4294967296000"])
def test_a_pid_that_names_no_process_is_not_found(session, pid):
    problem(session.post(f"/processes/{pid}/fork", {}), 404)
    problem(session.get(f"/processes/{pid}"), 404)
    problem(session.get(f"/processes/{pid}/vmas"), 404)
    problem(session.get(f"/processes/{pid}/walk?address=0x1000"), 404)
    assert session.state()["seq"] == 0


def test_a_dead_process_makes_no_calls(session):
    pid = session.spawn()
    assert session.call(pid, "exit")["errno"] is None
    problem(session.post(f"/processes/{pid}/mmap", {"length": PAGE}), 404)


def test_a_walk_takes_addresses_only(session):
    pid = session.spawn()
    address = session.mmap(pid, PAGE)
    assert session.get(f"/processes/{pid}/walk?address={address}").json()["address"] == address
    for bad in ("", "xyz", "0xg", "-1", "0x10000000000000000"):
        problem(session.get(f"/processes/{pid}/walk?address={bad}"), 422, "address")
    problem(session.get(f"/processes/{pid}/walk"), 422, "address")


def test_why_is_explained_for_known_topics(session):
    pid = session.spawn()
    assert session.get(f"/processes/{pid}/explain/oom").status_code == 200
    assert session.get(f"/processes/{pid}/explain/tlb").json()["page"] is None
    assert session.get(f"/processes/{pid}/explain/ksm").json()["page"] is None
    assert session.get(f"/processes/{pid}/explain/ksm?address=0x1000").json()["page"]["fate"] is None
    assert session.get(f"/processes/{pid}/explain/ksm?address=here").status_code == 422
    problem(session.get(f"/processes/{pid}/explain/love"), 404, "oom")


def test_the_tlb_is_shown(session):
    pid = session.spawn()
    address = session.mmap(pid, 64 * PAGE)
    assert "tlb" not in session.call(pid, "mmap", length=PAGE)
    session.call(pid, "touch", address=address, length=64 * PAGE, access="write")
    again = session.call(pid, "touch", address=address, length=64 * PAGE, access="read")
    assert again["tlb"] == {"accesses": 64, "l1_hits": 64, "l2_hits": 0, "misses": 0, "walk_cycles": 0}
    view = session.get(f"/processes/{pid}/tlb").json()
    assert view["counts"]["accesses"] >= 128
    assert all(entry["address"].startswith("0x") for entry in view["entries"])
    rows = session.get(f"/processes/{pid}/tlb/reach").json()["rows"]
    assert [row["measured_bytes"] for row in rows] == [256 << 10, 64 << 20, 6 << 20, 3 << 30]
    assert session.get(f"/processes/{pid}/walk?address={address}").json()["tlb"]["held_by"] == "l1"
    problem(session.get("/processes/99999/tlb"), 404)


def test_the_audit_shows_its_sums(session):
    answer = session.get("/audit")
    assert answer.status_code == 200
    assert isinstance(answer.json(), dict)
