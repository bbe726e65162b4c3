"""What a program may say: parsing is strict, in plain words, and its result can be parsed again."""

from __future__ import annotations

import pytest

from core.programs.language import MAX_DEPTH, MAX_STEPS, STEPS, compile_steps, parse_steps
from core.programs.program import DO, catalogue, parse
from core.programs.ready import READY

MAP = {"op": "map", "region": "a", "length": "64K"}

WRONG = [
    ([], "must be a list of steps"),
    ([{"op": "jump"}], "program.steps[0].op must be one of map, unmap, touch"),
    ([7], "program.steps[0].op must be one of"),
    ([{"op": "sleep"}], "sleep needs 'time'"),
    ([{"op": "sleep", "time": "soon"}], 'program.steps[0].time must be a duration such as 250000000 or "250ms", not \'soon\''),
    ([{"op": "sleep", "time": -1}], "must lie between 0 and"),
    ([{"op": "sleep", "time": True}], "must be a duration"),
    ([{"op": "sleep", "time": "1s", "seconds": 1}], "sleep has no 'seconds'; it takes time, on_error"),
    ([{"op": "touch", "region": "b"}], "no step maps a region 'b'; there are none"),
    ([MAP, {"op": "touch", "region": "a", "order": "backwards"}], "order must be one of sequential, random, zipf, hot-cold, working-set"),
    ([MAP, {"op": "touch", "region": "a", "accesses": 1.5}], "accesses must be a whole number"),
    ([MAP, {"op": "touch", "region": "a", "write_percent": 101}], "must lie between 0 and 100"),
    ([MAP | {"region": "heap"}], "heap is the region that grow makes"),
    ([MAP | {"length": "0"}], "length must lie between 1 and"),
    ([MAP | {"flags": ["fixed"]}], "flags must be a list of private, shared"),
    ([{"op": "loop", "steps": []}], "program.steps[0].steps must be a list of steps"),
    ([{"op": "loop", "steps": [{"op": "fork"}]}], "program.steps[0].steps[0]: fork needs 'steps'"),
    ([{"op": "read", "path": "/data/f\n", "length": 1}], "must be a path"),
    ([{"op": "exit", "on_error": "ignore"}], "on_error must be one of exit, continue"),
    ([{"op": "wait"}] * (MAX_STEPS + 1), f"at most {MAX_STEPS} steps"),
    ("cron", "program.name must be one of leak, db-buffer-pool"),
    (7, "program must be a list of steps"),
    ({"steps": [{"op": "wait"}], "name": "leak"}, "either steps, or the name"),
    ({"name": "leak", "parameters": {"speed": 1}}, "leak has no 'speed'; it takes rate, interval"),
    ({"name": "leak", "parameters": {"rate": "1"}}, "program.parameters.rate must lie between 4096 and"),
    ({"steps": [{"op": "wait"}], "seed": -1}, "program.seed"),
    ({"steps": [{"op": "wait"}], "at_end": "again"}, "at_end must be exit or stay"),
    ({"steps": [{"op": "wait"}], "loops": 1}, "program has no 'loops'"),
]


@pytest.mark.parametrize(("given", "why"), WRONG)
def test_what_is_wrong_is_said(given: object, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(given)
    assert why in str(refused.value)


def test_loops_may_not_be_deeper_than_that() -> None:
    steps: list[object] = [{"op": "wait"}]
    for _ in range(MAX_DEPTH):
        steps = [{"op": "loop", "steps": steps}]
    with pytest.raises(ValueError, match=f"{MAX_DEPTH} deep"):
        parse(steps)


@pytest.mark.parametrize("name", READY)
def test_ready_made_programs_are_programs(name: str) -> None:
    once = parse(name)
    assert isinstance(once, dict)
    assert parse(once) == once
    assert set(once["parameters"]) == set(READY[name].parameters)


def test_what_was_parsed_can_be_parsed_again() -> None:
    given = {"steps": [MAP, {"op": "loop", "times": 3, "steps": [{"op": "touch", "region": "a", "work": "2us"}, {"op": "think", "time": "1.5ms"}]}]}
    once = parse(given)
    assert isinstance(once, dict)
    assert once["steps"][0] == {"op": "map", "region": "a", "length": 65536}
    assert once["steps"][1]["steps"][1] == {"op": "think", "time": 1_500_000}
    assert parse(once) == once


def test_a_path_stays_the_executable() -> None:
    assert parse("/data/f") == "/data/f"


def test_code_is_flat() -> None:
    """0 repeat  1 wait  2 again(1)  3 fork(child 4, parent 6)  4 sleep  5 exit  6 exit"""
    steps = parse_steps([
        {"op": "loop", "times": 2, "steps": [{"op": "wait"}]}, {"op": "fork", "steps": [{"op": "sleep", "time": 1}]}, {"op": "exit", "status": 3},
    ])  # fmt: skip
    code = compile_steps(steps)
    assert [step["op"] for step in code] == ["repeat", "wait", "again", "fork", "sleep", "exit", "exit"]
    assert code[2]["to"] == 1
    assert (code[3]["child"], code[3]["parent"]) == (4, 6)
    assert (code[5]["status"], code[6]["status"]) == (0, 3)


def test_every_step_is_documented_and_can_be_done() -> None:
    assert set(STEPS) - {"loop"} | {"repeat", "again"} == set(DO)
    seen = catalogue()
    assert [row["name"] for row in seen["items"]] == ["leak", "db-buffer-pool", "web-workers", "batch-scan", "jvm"]
    assert all(row["doc"] and all(spec["doc"] for spec in row["parameters"].values()) for row in seen["items"])
    assert all(row["doc"] and all(spec["doc"] for spec in row["fields"].values()) for row in seen["steps"])
