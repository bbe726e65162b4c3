"""systemd's words for a cgroup's limits."""

import pytest

from app.schemas.systemd import properties, to_file
from tests.api.client import problem

GIB = 1 << 30
SIZES = [
    ("MemoryMax", "512M", ("memory.max", str(512 << 20))),
    ("MemoryMax", "1.5G", ("memory.max", str(3 << 29))),
    ("MemoryMax", "4096", ("memory.max", "4096")),
    ("MemoryMax", "8K", ("memory.max", "8192")),
    ("MemoryMax", "infinity", ("memory.max", "max")),
    ("MemoryMax", "", ("memory.max", "max")),
    ("MemoryHigh", "20%", ("memory.high", str(2 * GIB * 20 // 100))),
    ("MemoryMin", "0", ("memory.min", "0")),
    ("MemoryLow", "", ("memory.low", "0")),
    ("MemoryLow", "infinity", ("memory.low", "max")),
    ("MemorySwapMax", "50%", ("memory.swap.max", str(GIB // 2))),
    ("MemorySwapMax", "0", ("memory.swap.max", "0")),
]
WRONG = [("MemoryMax", "0"), ("MemoryHigh", "0%"), ("MemoryMax", "101%"), ("MemoryMax", "lots"), ("MemoryMax", "-1"), ("MemoryMax", "5X"),
         ("MemoryZSwapMax", "1")]  # fmt: skip

UNIT = """\
# /etc/systemd/system/web.service
[Unit]
Description=A web server

[Service]
ExecStart=/usr/bin/web --port=80
MemoryAccounting=yes
MemoryLow=16M
MemoryHigh = 40M
MemoryMax=10%
MemorySwapMax=0
; the end
"""


@pytest.mark.parametrize(("name", "value", "write"), SIZES)
def test_values_are_read_as_systemd_reads_them(name, value, write):
    assert to_file(name, value, 2 * GIB, GIB) == write


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_systemd_would_not_take(name, value):
    with pytest.raises(ValueError, match=name):
        to_file(name, value, 2 * GIB, GIB)


def test_a_unit_is_read_line_by_line():
    assert list(properties(UNIT)) == [("MemoryLow", "16M"), ("MemoryHigh", "40M"), ("MemoryMax", "10%"), ("MemorySwapMax", "0")]
    for line, word in (("MemoryLimit=1G", "MemoryMax="), ("MemoryZSwapMax=1G", "not known here"), ("Memory", "not an assignment")):
        with pytest.raises(ValueError, match=word):
            list(properties(f"[Service]\n{line}\n"))


def test_a_pasted_unit_makes_the_cgroup(session):
    made = session.post("/cgroups", {"path": "/web", "service": UNIT})
    assert made.status_code == 201, made.text
    total = int(session.get("/fs/proc/meminfo").text.split("MemTotal:")[1].split()[0]) * 1024
    seen = made.json()
    assert (seen["memory.low"], seen["memory.high"], seen["memory.swap.max"]) == (16 << 20, 40 << 20, 0)
    assert seen["memory.max"] == total // 10 // 4096 * 4096
    changed = session.request("PATCH", "/cgroups/web", json={"MemoryMax": "infinity", "MemoryHigh": None, "memory.low": "1M"})
    assert changed.status_code == 200
    assert (changed.json()["memory.max"], changed.json()["memory.high"], changed.json()["memory.low"]) == ("max", "max", 1 << 20)
    assert all(line.startswith(b'{"seq"') and b"MemoryMax" not in line for line in session.get("/journal").content.splitlines()[1:])


@pytest.mark.parametrize(("body", "pointer", "word"), [
    ({"MemoryMax": "lots"}, "#/MemoryMax", "as systemd reads it"), ({"service": "MemoryMax"}, "#/service", "line 1"),
    ({"service": 5}, "#/service", "text of a unit"), ({"MemoryMax": True}, "#/MemoryMax", "text such as"),
    ({"CPUQuota": "5%"}, "#/CPUQuota", "MemoryMax"),
])  # fmt: skip
def test_what_is_wrong_is_said_and_changes_nothing(session, body, pointer, word):
    document = problem(session.post("/cgroups", {"path": "/a", **body}), 422)
    assert document["errors"][0]["pointer"] == pointer
    assert word in document["errors"][0]["detail"]
    assert session.state()["seq"] == 0
