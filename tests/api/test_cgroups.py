"""The cgroup tree as JSON; a change is all or nothing."""

import pytest

from tests.api.client import problem

ROOT = "/fs/sys/fs/cgroup"


def test_a_cgroup_is_made_with_its_first_settings(session):
    made = session.post("/cgroups", {"path": "/app", "memory.max": "50M", "memory.high": 41943040})
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"{session.path}/cgroups/app"
    assert session.get(f"{ROOT}/app/memory.max").text == "52428800\n"
    assert session.get(f"{ROOT}/app/memory.high").text == "41943040\n"
    assert session.get("/cgroups/app").json() == made.json()
    assert session.get("/cgroups").status_code == 200


def test_settings_are_changed_and_taken_back(session):
    session.post("/cgroups", {"path": "/app", "memory.max": "50M"})
    assert session.request("PATCH", "/cgroups/app", json={"memory.max": None, "memory.low": "4K"}).status_code == 200
    assert session.get(f"{ROOT}/app/memory.max").text == "max\n"
    assert session.get(f"{ROOT}/app/memory.low").text == "4096\n"


def test_a_refused_cgroup_is_not_made(session):
    before = session.state()
    document = problem(session.post("/cgroups", {"path": "/app", "memory.max": "much"}), 422, "memory.max")
    assert (document["errno"], document["errors"][0]["pointer"]) == ("EINVAL", "#/memory.max")
    assert session.get(f"{ROOT}/app/memory.max").status_code == 404
    assert session.state() == before
    assert session.post("/cgroups", {"path": "/app"}).status_code == 201


def test_a_refused_change_changes_nothing(session):
    session.post("/cgroups", {"path": "/app", "memory.max": "max"})
    before = session.state()
    document = problem(session.request("PATCH", "/cgroups/app", json={"memory.max": "50M", "memory.high": "x"}), 422)
    assert document["errors"][0]["pointer"] == "#/memory.high"
    assert session.get(f"{ROOT}/app/memory.max").text == "max\n"
    assert session.state() == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/path"),
        ({"path": "app"}, "#/path"),
        ({"path": "/"}, "#/path"),
        ({"path": "/a/../b"}, "#/path"),
        ({"path": 3}, "#/path"),
        ({"path": "/a", "memory": 1}, "#/memory"),
        ({"path": "/a", "../../x": 1}, "#/..~1..~1x"),
        ({"path": "/a", "memory.max": [1]}, "#/memory.max"),
        ({"path": "/a", "memory.max": True}, "#/memory.max"),
        ({"path": "/a", "memory.max": 1.5}, "#/memory.max"),
    ],
)
def test_a_bad_body_points_to_what_is_wrong(session, body, pointer):
    assert problem(session.post("/cgroups", body), 422)["errors"][0]["pointer"] == pointer
    assert session.state()["seq"] == 0


def test_what_is_not_there(session):
    problem(session.get("/cgroups/none"), 404)
    problem(session.request("PATCH", "/cgroups/none", json={"memory.max": "1M"}), 422)
