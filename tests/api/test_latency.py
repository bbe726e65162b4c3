"""The latency of a process's calls, as rows and as a plot: a huge page that must be compacted for is a spike."""

import re

from tests.api.client import problem

M = 1 << 20
THP = "/sys/kernel/mm/transparent_hugepage/"


def crumbled(session):
    """Memory in crumbs: a child leaves every third page free, nothing larger."""
    pid = session.spawn("hog")
    address = session.mmap(pid, 330 * M)
    session.touch(pid, address, 330 * M)
    child = session.call(pid, "fork")["result"]["pid"]
    session.touch(pid, address, 330 * M, stride=3)
    session.call(child, "exit")


def plotted(session, pid):
    answer = session.get(f"/processes/{pid}/latency", headers={"Accept": "image/svg+xml"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("image/svg+xml")
    return answer.text


def test_the_spike_of_direct_compaction_is_in_the_plot(service):
    session = service.session(machine={"memory": "512M", "swap": "0", "transparent_hugepage": "never"})
    crumbled(session)
    session.put(THP + "enabled", "always")
    pid = session.spawn("a")
    address = session.call(pid, "mmap", length=24 * M, prot="rw", flags=["private", "anonymous"], align=2 * M)["result"]["address"]
    at = int(address, 16)
    session.put(THP + "defrag", "never")
    session.touch(pid, hex(at), 2 * M)  # 512 small faults
    session.put(THP + "defrag", "always")
    session.touch(pid, hex(at + 8 * M), 2 * M)  # one that compacts memory first
    told = session.get(f"/processes/{pid}/latency").json()
    small, huge = [call for call in told["calls"] if call["op"] == "touch"]
    assert small["minor"] == 512 and small["stall_ns"] == 0
    assert huge["minor"] == 1 and huge["stall_ns"] > 0
    assert huge["fault_ns"] > 100 * small["fault_ns"]
    assert {stall["over"] for stall in told["stalls"]} <= {"direct compaction", "direct reclaim"} and told["stalls"]
    drawn = plotted(session, pid)
    heights = [float(y) for y in re.findall(r'<circle class="call" cx="[\d.]+" cy="([\d.]+)"', drawn)]
    assert len(heights) == len(told["calls"]) and drawn.count('<line class="stall"') == len(told["stalls"])
    assert heights[-1] == min(heights) and sorted(heights)[1] - heights[-1] > 50


def test_who_has_made_no_call_has_an_empty_plot(session):
    pid = session.spawn("a")
    assert session.get(f"/processes/{pid}/latency").json() == {"pid": pid, "calls": [], "stalls": []}
    assert "<circle" not in plotted(session, pid)
    problem(session.get("/processes/4711/latency"), 404)
