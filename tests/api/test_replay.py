"""Replay over HTTP: columns, pictures, binary traces, a process's own trace; and the command line."""

import json
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from tests.api.client import problem

BELADY = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]


def test_beladys_anomaly_is_shown(service):
    answer = service.http.post("/v1/replay", json={"trace": BELADY, "policies": ["fifo", "lru", "opt"], "frames": [3, 4]})
    assert answer.status_code == 200
    table = answer.json()
    assert (table["length"], table["pages"], table["frames"]) == (12, 5, [3, 4])
    assert table["faults"] == {"fifo": [9, 10], "lru": [10, 8], "opt": [7, 6]}
    assert table["hit_ratio"]["fifo"] == [0.25, 0.166667]
    assert table["anomalies"] == [{"policy": "fifo", "frames": [3, 4], "faults": [9, 10]}]
    assert set(table["policies"]) == {"fifo", "lru", "opt"}


def test_a_picture_for_those_who_would_rather_look(service):
    body = {"trace": BELADY, "policies": ["fifo", "opt"], "frames": {"from": 1, "to": 5}}
    answer = service.http.post("/v1/replay", json=body, headers={"Accept": "image/svg+xml"})
    assert answer.headers["content-type"].startswith("image/svg+xml")
    root = ET.fromstring(answer.text)
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [5, 5]
    assert "more memory, more faults" in answer.text


def test_a_trace_may_be_raw_page_numbers(service):
    raw = struct.pack("<12I", *BELADY)
    headers = {"Content-Type": "application/octet-stream"}
    answer = service.http.post("/v1/replay?policies=fifo,mglru&frames=3,4", content=raw, headers=headers)
    assert answer.json()["faults"]["fifo"] == [9, 10]
    assert problem(service.http.post("/v1/replay", content=raw[:-1], headers=headers), 422)


def test_generated_traces_and_default_sizes(service):
    made = {"pattern": "zipf", "pages": 500, "length": 20_000, "seed": 3}
    table = service.http.post("/v1/replay", json={"generate": made, "policies": ["classic", "mglru", "lru", "opt"]}).json()
    assert len(table["frames"]) == 16 and table["frames"][-1] == table["pages"] <= 500
    assert table["faults"]["lru"] == sorted(table["faults"]["lru"], reverse=True)
    for name in ("classic", "mglru", "lru"):
        assert all(bound <= count for bound, count in zip(table["faults"]["opt"], table["faults"][name], strict=True))


def test_a_process_and_its_own_trace(session):
    pid = session.spawn()
    heap = session.mmap(pid, 64 << 10)
    assert problem(session.post("/replay", {"pid": pid}), 409)
    for _ in range(3):
        session.touch(pid, heap, "48K")
    answer = session.post("/replay", {"pid": pid, "policies": ["lru", "opt"], "frames": [6, 12]})
    assert answer.json()["faults"] == {"lru": [36, 12], "opt": [24, 12]}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"trace": []}, {"trace": [1], "generate": {"pattern": "zipf", "pages": 2, "length": 2}}, {"trace": [-1]},
        {"trace": [1], "policies": ["best"]},
        {"trace": [1], "frames": [0]}, {"trace": [1], "frames": {"from": 9, "to": 1}}, {"trace": [1], "surprise": 1}, {"trace": [True]},
        {"generate": {"pattern": "loop", "pages": 3, "length": 3, "set": 4}},
        {"generate": {"pattern": "random", "pages": 2000, "length": 20_000_000}},
    ],
)  # fmt: skip
def test_bad_bodies_are_422(service, body):
    assert problem(service.http.post("/v1/replay", json=body), 422)


def test_the_command_line_shows_the_same(tmp_path):
    picture = tmp_path / "faults.svg"
    command = [sys.executable, "-m", "app.cli", "replay", *map(str, BELADY), "--policies", "fifo,opt", "--frames", "3,4", "--svg", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert rows[1:] == [["3", "9", "7"], ["4", "10", "6"]]
    assert "Belady's anomaly" in done.stdout and ET.fromstring(picture.read_text()).tag.endswith("svg")
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["faults"]["fifo"] == [9, 10]
    wrong = subprocess.run([sys.executable, "-m", "app.cli", "replay", "x"], capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 2 and "pagewalk replay:" in wrong.stderr
