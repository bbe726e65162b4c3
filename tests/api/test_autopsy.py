"""The smallest change that would have avoided a kill: with it no kill, with one step less a kill, tried again here by hand."""

import pytest

from tests.api.client import PAGE, problem

M = 1 << 20


def doomed(session, limits, size):
    """A process that writes `size` bytes in /app under `limits`; its pid."""
    session.put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    session.request("MKCOL", "/fs/sys/fs/cgroup/app")
    for name, value in limits.items():
        assert session.put(f"/sys/fs/cgroup/app/{name}", value).status_code == 204
    pid = session.spawn("a")
    session.put("/sys/fs/cgroup/app/cgroup.procs", str(pid))
    answer = session.touch(pid, session.mmap(pid, size), size)
    assert answer["killed"] == [pid]
    return pid


def autopsy(session):
    oom = next(event for event in session.get("/events?limit=10000").json()["items"] if event["type"] == "oom")
    answer = session.get(f"/events/{oom['id']}/autopsy")
    assert answer.status_code == 200, answer.text
    return answer.json()


def kills(session, told, path, value):
    """Go back to just before the operation, turn the knob, do it again: was anybody killed?"""
    assert session.post("/rewind", {"seq": told["seq"] - 1}).status_code == 200
    assert session.put(path, str(value)).status_code == 204
    op = dict(told["op"])
    return bool(session.call(op.pop("pid"), op.pop("op"), **op)["killed"])


def test_the_smallest_limit_is_found_to_the_page(service):
    session = service.session(machine={"memory": "512M"})
    doomed(session, {"memory.max": "8M"}, 16 * M)
    told = autopsy(session)
    smallest = told["smallest"]
    assert smallest["knob"] == "/sys/fs/cgroup/app/memory.max"
    assert (smallest["from"], smallest["step"]) == (8 * M, PAGE)
    assert 16 * M < smallest["to"] < 17 * M  # the pages and their page tables
    assert smallest["extra_bytes"] == smallest["to"] - 8 * M
    path = smallest["knob"].removeprefix("/fs")
    assert not kills(session, told, path, smallest["to"])
    assert kills(session, told, path, smallest["to"] - PAGE)


def test_swap_is_the_cheaper_change_where_it_is_short(service):
    session = service.session(machine={"memory": "512M", "swap": "64M"})
    doomed(session, {"memory.max": "8M", "memory.swap.max": "4M"}, 16 * M)
    told = autopsy(session)
    assert {change["knob"].rpartition("/")[2] for change in told["changes"]} == {"memory.max", "memory.swap.max"}
    assert told["changes"] == sorted(told["changes"], key=lambda change: change["extra_bytes"])
    for change in told["changes"]:
        assert [trial["kill"] for trial in change["checked"]] == [False, True]
        assert change["checked"][0]["value"] - change["checked"][1]["value"] == change["step"]


def test_a_machine_that_is_too_small_needs_memory_or_swap(service):
    session = service.session(machine={"memory": "64M", "sysctl": {"vm.overcommit_memory": 1}})
    pid = session.spawn("a")
    assert session.touch(pid, session.mmap(pid, 80 * M), 80 * M)["killed"] == [pid]
    told = autopsy(session)
    assert {change["knob"] for change in told["changes"]} == {"machine.memory", "machine.swap"}
    ram = next(change for change in told["changes"] if change["knob"] == "machine.memory")
    assert ram["from"] == 64 * M
    assert ram["to"] % (4 * M) == 0
    assert session.get("/clock").json()["seq"] == told["seq"]  # the session itself was not touched


@pytest.mark.parametrize(("id", "status", "word"), [(1, 422, "oom"), (99999, 404, "no event")])
def test_what_has_no_autopsy(session, id, status, word):
    session.spawn("a")
    problem(session.get(f"/events/{id}/autopsy"), status, word)
