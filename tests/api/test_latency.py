"""The latency of a process's calls, as rows and as a plot: a huge page that must be compacted for is a spike."""

import re

from tests.api.client import problem

M = 1 << 20
THP = "/sys/kernel/mm/transparent_hugepage/"


def crumbled(session):
    """Memory in crumbs: a child leaves every third page free, nothing larger."""
    pid = session.spawn("hog")
    address = session.mmap(pid, 290 * M)
    session.touch(pid, address, 290 * M)
    child = session.call(pid, "fork")["result"]["pid"]
    session.touch(pid, address, 290 * M, stride=3)
    session.call(child, "exit")


def plotted(session, pid):
    answer = session.get(f"/processes/{pid}/latency", headers={"Accept": "image/svg+xml"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("image/svg+xml")
    return answer.text


def test_the_spike_of_direct_compaction_is_in_the_plot(service):
    session = service.session(machine={"memory": "512M", "swap": "0", "transparent_hugepage": "always"})
    session.put(THP + "enabled", "never")
    crumbled(session)
    pid = session.spawn("a")
    address = session.call(pid, "mmap", length=64 * M, prot="rw", flags=["private", "anonymous"], align=2 * M)["result"]["address"]
    session.touch(pid, address, 2 * M)
    session.put(THP + "enabled", "always")
    session.put(THP + "defrag", "always")
    for start in range(2, 64, 2):
        session.touch(pid, hex(int(address, 16) + start * M), 2 * M)
    told = session.get(f"/processes/{pid}/latency").json()
    small, *huge = [call for call in told["calls"] if call["op"] == "touch"]
    assert small["minor"] == 512 and small["stall_ns"] == 0
    spikes = [call for call in huge if call["stall_ns"]]
    smooth = [call for call in huge if not call["stall_ns"] and call["minor"] == 1]
    assert spikes and smooth
    assert max(call["fault_ns"] for call in spikes) > 2 * max(call["fault_ns"] for call in smooth) > 10 * small["fault_ns"]
    assert "direct compaction" in {stall["over"] for stall in told["stalls"]}
    drawn = plotted(session, pid)
    heights = [float(y) for y in re.findall(r'<circle class="call" cx="[\d.]+" cy="([\d.]+)"', drawn)]
    assert len(heights) == len(told["calls"]) and drawn.count('<line class="stall"') == len(told["stalls"])
    highest = told["calls"][heights.index(min(heights))]
    assert highest["stall_ns"] > 0


def test_who_has_made_no_call_has_an_empty_plot(session):
    pid = session.spawn("a")
    assert session.get(f"/processes/{pid}/latency").json() == {"pid": pid, "calls": [], "stalls": []}
    assert "<circle" not in plotted(session, pid)
    problem(session.get("/processes/4711/latency"), 404)
