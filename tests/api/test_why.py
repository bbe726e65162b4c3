"""The chain of causes of an event, over HTTP: back to the request, each cause before what follows from it."""

import pytest

from tests.api.client import problem

M = 1 << 20


def pressed(session, limit, size):
    """A process that writes `size` MiB in a cgroup that may hold `limit`; its pid."""
    session.put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    session.request("MKCOL", "/fs/sys/fs/cgroup/app")
    session.put("/sys/fs/cgroup/app/memory.max", f"{limit}M")
    pid = session.spawn("a")
    session.put("/sys/fs/cgroup/app/cgroup.procs", str(pid))
    address = session.mmap(pid, size * M)
    session.touch(pid, address, size * M)
    return pid


def events(session, types=""):
    query = f"&types={types}" if types else ""
    return session.get(f"/events?limit=10000{query}").json()["items"]


def why(session, event):
    answer = session.get(f"/events/{event['id']}/why")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_death_is_traced_to_the_write_that_did_not_fit(service):
    session = service.session(machine={"memory": "512M"})
    pid = pressed(session, 8, 16)
    death = next(event for event in events(session, "process") if event["kind"] == "exit" and event["pid"] == pid)
    told = why(session, death)
    assert [(cause["type"], cause.get("kind")) for cause in told["causes"]] == [("oom", None), ("memcg", "oom"), ("memcg", "max")]
    assert (told["root"]["kind"], told["root"]["op"]["op"], told["root"]["op"]["pid"]) == ("request", "touch", pid)
    assert told["complete"] is True
    assert f"process {pid} had the most points" in told["causes"][0]["says"]
    assert told["causes"][2]["says"].startswith("/app reached its memory.max: usage ")


def test_a_page_written_to_swap_is_traced_through_reclaim(service):
    session = service.session(machine={"memory": "512M", "swap": "64M"})
    pressed(session, 8, 16)
    told = why(session, events(session, "swap_out")[0])
    assert [cause["type"] for cause in told["causes"]] == ["reclaim", "memcg"]


def test_kswapd_works_because_a_zone_was_low(service):
    session = service.session(machine={"memory": "128M", "swap": "256M", "transparent_hugepage": "never"})
    pid = session.spawn("a")
    session.touch(pid, session.mmap(pid, 128 * M), 128 * M)
    by_kswapd = next(event for event in events(session, "reclaim") if event["by"] == "kswapd")
    told = why(session, by_kswapd)
    assert [(cause["type"], cause["level"], cause["action"]) for cause in told["causes"]] == [("watermark", "low", "kswapd")]


def test_what_a_daemon_does_when_its_time_comes_has_a_timer_for_root(service):
    session = service.session()
    pid = session.spawn("a")
    session.post("/files", {"path": "/data/f", "size": "1M"})
    session.call(pid, "write", path="/data/f", offset=0, length="1M")
    session.post("/clock", {"advance": "60s"})
    told = why(session, events(session, "writeback")[0])
    assert (told["root"]["kind"], told["root"]["timer"], told["root"]["op"]["op"]) == ("timer", "flusher", "advance")


def test_causes_come_first_and_numbers_are_the_streams(service):
    session = service.session(machine={"memory": "128M", "swap": "64M", "transparent_hugepage": "never"})
    pressed(session, 16, 64)
    session.post("/rewind", {"seq": 5})
    pid = session.spawn("b")
    session.touch(pid, session.mmap(pid, 140 * M), 140 * M)
    clone = session.post("/clone", {}).json()
    assert service.inside(clone["id"]).kernel.nr_events == service.inside(session.id).ring.last
    told = events(session)
    assert service.inside(session.id).kernel.nr_events == told[-1]["id"]
    caused = [event for event in told if "cause" in event]
    assert len(caused) > 20
    assert all(event["cause"] < event["id"] for event in caused)


def test_explanations_are_served(service):
    session = service.session(machine={"memory": "512M", "swap": "64M"})
    pid = pressed(session, 8, 12)
    address = session.get(f"/processes/{pid}/vmas").json()["items"][-5]["start"]
    told = session.get(f"/processes/{pid}/explain/reclaim?address={address}").json()
    assert told["address"] == address
    assert session.get(f"/processes/{pid}/explain/reclaim").json()["visits"]
    assert session.get(f"/processes/{pid}/explain/charge").json()["charges"][0]["rounds"][0]["limited"] == "/app"
    problem(session.get(f"/processes/{pid}/explain/reclaim?address=nowhere"), 422, "address")
    problem(session.get(f"/processes/{pid}/explain/weather"), 404, "reclaim")


@pytest.mark.parametrize(("id", "status", "kind"), [("999999", 404, "no-such-event"), ("0", 422, None), ("x", 422, None)])
def test_what_is_no_event(session, id, status, kind):
    answer = session.get(f"/events/{id}/why")
    document = problem(answer, status)
    assert kind is None or document["type"].endswith(kind)


def test_what_is_older_than_retention_is_gone_and_a_broken_chain_says_so(special):
    with special(event_retention=64) as small:
        session = small.session(machine={"memory": "128M", "swap": "64M", "transparent_hugepage": "never"})
        pressed(session, 16, 64)
        held = events(session)
        assert held[0]["id"] > 1
        document = problem(session.get("/events/1/why"), 410)
        assert (document["oldest"], document["last"]) == (held[0]["id"], held[-1]["id"])
        orphan = next(event for event in held if event.get("cause", held[0]["id"]) < held[0]["id"])
        told = why(session, orphan)
        assert (told["complete"], told["root"], told["causes"]) == (False, None, [])
