"""Sessions: create, list in pages, read, rename, destroy."""

import re

import pytest

from tests.api.client import problem


def test_a_session_is_created_with_a_location_an_etag_and_a_token_that_is_shown_once(service):
    answer = service.http.post("/v1/sessions", json={"machine": {"memory": "512M"}, "seed": 7, "name": "mine"})
    record = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/sessions/{record['id']}"
    assert answer.headers["etag"] == '"1.0"'
    assert record["machine"]["memory"] == 512 << 20
    assert (record["seed"], record["name"], record["seq"], record["state"]) == (7, "mine", 0, "running")
    assert len(record["token"]) > 30
    read = service.http.get(answer.headers["location"])
    assert read.headers["etag"] == '"1.0"'
    assert read.json() == {key: value for key, value in record.items() if key != "token"}


def test_ids_cannot_be_guessed(service):
    ids = {service.session().id for _ in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch(r"s_[\w-]{22}", sid) for sid in ids)


def test_the_list_comes_in_pages(special):
    with special() as service:
        made = [service.session().id for _ in range(5)]
        first = service.http.get("/v1/sessions", params={"page_size": 2})
        seen = [item["id"] for item in first.json()["items"]]
        token = first.json()["next_page_token"]
        assert f"page_token={token}" in first.headers["link"]
        while token:
            page = service.http.get("/v1/sessions", params={"page_size": 2, "page_token": token}).json()
            seen += [item["id"] for item in page["items"]]
            token = page["next_page_token"]
        assert seen == made


def test_a_bad_page_token_is_refused(service):
    problem(service.http.get("/v1/sessions", params={"page_token": "xyz"}), 422, "page_token")


def test_a_session_is_renamed_and_its_life_extended(session):
    answer = session.request("PATCH", "", json={"name": "other", "ttl": "2h"})
    assert answer.status_code == 200
    assert (session.state()["name"], session.state()["ttl_ns"]) == ("other", 7200 * 10**9)


def test_a_destroyed_session_is_gone(service):
    session = service.session()
    assert session.request("DELETE", "").status_code == 204
    problem(session.get(""), 404, "no session")
    problem(session.request("DELETE", ""), 404)


def test_sessions_that_nobody_uses_expire(service):
    import asyncio

    kept, gone = service.session(), service.session(ttl="1s")
    registry = service.app.state.registry
    asyncio.run_coroutine_threadsafe(registry.expire(service.inside(gone.id).used + 2), service.loop).result(30)
    assert gone.get("").status_code == 404
    assert kept.get("").status_code == 200


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"memory": "512X"}, "512X"),
        ({"memory": -1}, "memory"),
        ({"memory": 1}, "memory"),
        ({"memory": "8E"}, "memory"),
        ({"ram": "1G"}, "ram"),
        ({"preset": "mainframe"}, "mainframe"),
        ({"cpus": 0}, "cpus"),
        ({"transparent_hugepage": "yes"}, "transparent_hugepage"),
        ({"swap": [{"size": "1G", "kind": "tape"}]}, "tape"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_in_plain_words(service, machine, words):
    before = len(service.app.state.registry)
    problem(service.http.post("/v1/sessions", json={"machine": machine}), 422, words)
    assert len(service.app.state.registry) == before


@pytest.mark.parametrize("body", [{"seed": -1}, {"seed": "x"}, {"name": ""}, {"name": "a/b"}, {"ttl": "soon"}, {"ttl": 0}, {"colour": 1}, [], "x", 3])
def test_a_bad_body_points_to_what_is_wrong(service, body):
    document = problem(service.http.post("/v1/sessions", json=body), 422)
    wanted = f"#/{next(iter(body))}" if isinstance(body, dict) else "#"
    assert document["errors"][0]["pointer"] == wanted


def test_the_clock_advances(session):
    assert session.get("/clock").json() == {"clock_ns": session.record["clock_ns"], "seq": 0}
    answer = session.post("/clock", {"advance": "1.5s"}).json()
    assert answer["clock_ns"] - session.record["clock_ns"] >= 1_500_000_000
    assert answer["seq"] == session.get("/clock").json()["seq"] == 1
    assert answer["clock_ns"] == session.get("/clock").json()["clock_ns"]


@pytest.mark.parametrize("advance", ["1 fortnight", -1, "-1s", 1.5, None, True, "99999999999d"])
def test_the_clock_refuses_what_is_no_duration(session, advance):
    problem(session.post("/clock", {"advance": advance}), 422)
    assert session.state()["seq"] == 0


def test_the_service_says_what_it_is(service):
    assert service.http.get("/livez").json() == service.http.get("/readyz").json() == {"status": "ok"}
    assert service.http.get("/version").json()["linux"] == "6.1"
    page = service.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/sessions/{sid}/processes/{pid}/mmap" in page.text
    assert "src=" not in page.text
