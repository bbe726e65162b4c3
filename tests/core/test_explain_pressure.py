"""Why a page went and why a task waited: what was recorded agrees with what was decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core import Kernel, Machine
from core.abi.page_flags import PG_ANON, PG_SWAPBACKED
from core.explain.reclaim import reason
from core.mm.lru_classic import ACTIVATED, DEACTIVATED, FREED, GONE, KEPT, ROTATED, WRITTEN
from core.mm.mm_types import CTL_LOOKS, NR_LOOKS

M = 1 << 20
PAGE = 4096


def machine(limit: str, knob: str = "memory.max", **parts: Any) -> tuple[Kernel, int]:
    """A machine with one process in /app, whose `knob` is set."""
    k = Kernel.boot(Machine.from_dict({"memory": "512M", **parts}))
    k.call("put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    k.call("mkdir", path="/sys/fs/cgroup/app")
    k.call("put", path=f"/sys/fs/cgroup/app/{knob}", data=limit.encode())
    pid = k.call("spawn", comm="a").result["pid"]
    k.call("put", path="/sys/fs/cgroup/app/cgroup.procs", data=str(pid).encode())
    return k, pid


def write(k: Kernel, pid: int, size: int) -> int:
    """Map and write `size` bytes; the address."""
    address: int = k.call("mmap", pid, length=size, prot="rw", flags=["private", "anonymous"]).result["address"]
    k.call("touch", pid, address=address, length=size, access="write")
    return address


def test_a_page_that_was_touched_once_is_kept_then_written_then_freed() -> None:
    k, pid = machine("8M", swap="64M")
    address = write(k, pid, 12 * M)
    told = k.view("explain_reclaim", pid=pid, address=address + 100 * PAGE)
    assert told["page"] == "in swap"
    assert [look["decision"] for look in told["looks"]] == ["kept", "written to swap", "freed"]
    assert [look["references"] for look in told["looks"]] == [1, 0, 0]
    assert [look["list"] for look in told["looks"]] == ["inactive_anon"] * 3
    assert {(look["by"], look["cgroup"]) for look in told["looks"]} == {("memcg", "/app")}
    times = [look["clock_ns"] for look in told["looks"]]
    assert times == sorted(times)
    assert Kernel.restore(k.snapshot()).view("explain_reclaim", pid=pid, address=address + 100 * PAGE) == told


def test_the_looks_belong_to_the_reclaim_events() -> None:
    k, pid = machine("8M", swap="64M")
    address = write(k, pid, 12 * M)
    reclaims = {number: event for number, event in enumerate(k.drain(), 1) if event.type == "reclaim"}
    for look in k.view("explain_reclaim", pid=pid, address=address)["looks"]:
        event: Any = reclaims[look["event"]]
        assert (event.by, event.cgroup, event.priority) == (look["by"], look["cgroup"], look["priority"])


def test_a_page_that_two_processes_used_is_activated() -> None:
    k, pid = machine("8M", swap="64M")
    shared = write(k, pid, M // 16)
    child = k.call("fork", pid).result["pid"]
    for reader in (pid, child):
        k.call("touch", reader, address=shared, length=M // 16, access="read")
    write(k, pid, 10 * M)
    first = k.view("explain_reclaim", pid=child, address=shared)["looks"][0]
    assert (first["references"], first["decision"]) == (2, "activated")
    assert "several" in first["why"]


@pytest.mark.parametrize(
    ("address", "page"),
    [(0x1000, "nothing is mapped there"), (None, "not in memory through this mapping: never touched, dropped, or its file page was reclaimed")],
)
def test_pages_that_reclaim_never_saw(address: int | None, page: str) -> None:
    k, pid = machine("8M")
    mapped = k.call("mmap", pid, length=M, prot="rw", flags=["private", "anonymous"]).result["address"]
    told = k.view("explain_reclaim", pid=pid, address=address or mapped)
    assert (told["page"], told["looks"]) == (page, [])


def test_a_charge_that_does_not_fit_names_who_was_in_the_way() -> None:
    k, pid = machine("8M", swap="64M")
    write(k, pid, 12 * M)
    told = k.view("explain_charge", pid=pid)
    assert told["cgroup"] == "/app"
    assert len(told["charges"]) > 10
    for charge in told["charges"]:
        assert charge["outcome"] == "charged"
        assert charge["levels"][0] == {"cgroup": "/app", "usage": 8 * M, "max": 8 * M, "high": None}
        assert [one["limited"] for one in charge["rounds"]] == ["/app"] * len(charge["rounds"])
        assert sum(one["reclaimed_pages"] for one in charge["rounds"]) > 0


def test_a_charge_that_ends_in_a_kill_says_so() -> None:
    k, pid = machine("8M")
    other = k.call("spawn", comm="b").result["pid"]
    k.call("put", path="/sys/fs/cgroup/app/cgroup.procs", data=str(other).encode())
    write(k, pid, 6 * M)
    k.call("put", path=f"/proc/{other}/oom_score_adj", data=b"-500")
    write(k, other, 4 * M)
    last = k.view("explain_charge", pid=other)["charges"][-1]
    assert last["outcome"] == "charged"  # the other process died for it
    assert len(last["rounds"]) == 18  # one that finds the stocks to drain, one more, 16 retries
    assert {one["reclaimed_pages"] for one in last["rounds"]} == {0}
    assert pid not in {task["pid"] for task in k.view("processes")}


def test_a_throttle_shows_its_arithmetic() -> None:
    k, pid = machine("30M", "memory.high")
    write(k, pid, 33 * M)
    slept = [row for row in k.view("explain_charge", pid=pid)["throttles"] if row["slept"]]
    assert slept
    row = slept[-1]
    jiffies = (row["overage"] ** 2 * 250 >> 34) * row["pages"] // 64
    assert row["delay_ns"] == min(jiffies, 500) * 4_000_000
    assert f"= {jiffies} jiffies" in row["arithmetic"]
    assert row["percent_over"] == pytest.approx(row["overage"] / (1 << 20) * 100, abs=0.01)


def test_stalls_add_up_to_the_pressure_file() -> None:
    k, pid = machine("30M", "memory.high")
    write(k, pid, 36 * M)
    told = k.view("explain_psi", pid=pid)
    own, root = told["groups"]
    assert (own["cgroup"], root["cgroup"]) == ("/app", "/")
    overs = {stall["over"] for stall in told["stalls"]}
    assert overs <= {"reclaim above memory.high", "the sleep that memory.high costs"} and "the sleep that memory.high costs" in overs
    lost = sum(stall["end_ns"] - stall["begin_ns"] for stall in k.records.stalls)
    assert own["some"]["total_us"] == lost // 1000
    shown = dict(word.split("=") for word in k.read("/sys/fs/cgroup/app/memory.pressure").decode().splitlines()[0].split()[1:])
    assert shown["total"] == str(own["some"]["total_us"])
    assert shown["avg10"] == own["some"]["avg10"]


def test_the_next_average_is_the_one_that_comes() -> None:
    k, pid = machine("30M", "memory.high")
    write(k, pid, 36 * M)
    before = k.view("explain_psi", pid=pid)["groups"][0]["some"]
    k.call("advance", duration_ns=before["period"]["end_ns"] - k.clock_ns)
    after = k.view("explain_psi", pid=pid)["groups"][0]["some"]
    assert after["avg10"] == before["period"]["avg10_then"]


@pytest.mark.parametrize(
    ("fate", "young", "before", "says"),
    [(KEPT, 1, False, "first time"), (ACTIVATED, 1, True, "used again"), (ACTIVATED, 2, False, "several"), (WRITTEN, 0, False, "swap slot"),
     (FREED, 0, True, "elsewhere"), (DEACTIVATED, 1, False, "active list was too long"), (GONE, 0, False, "split"), (ROTATED, 1, False, "code")],
)  # fmt: skip
def test_reasons(fate: int, young: int, before: bool, says: str) -> None:
    assert says in reason(fate, young, before, PG_ANON | PG_SWAPBACKED)


def test_every_look_at_a_huge_page_can_be_told() -> None:
    """Huge pages of which half was given back are split for reclaim: their unused frames are gone, by nobody's merit."""
    k, pid = machine("24M", memory="1G", swap="128M", transparent_hugepage="always")
    address = k.call("mmap", pid, length=16 * M, prot="rw", flags=["private", "anonymous"], align=2 * M).result["address"]
    k.call("touch", pid, address=address, length=16 * M, access="write")
    for start in range(0, 16 * M, 2 * M):
        k.call("madvise", pid, address=address + start, length=M, advice="dontneed")
    write(k, pid, 30 * M)
    told = [look for at in range(0, 16 * M, PAGE * 64) for look in k.view("explain_reclaim", pid=pid, address=address + at)["looks"]]
    assert told
    assert all(look["why"] and look["decision"] for look in told)


def test_each_look_belongs_to_the_visit_that_made_it() -> None:
    """A visit that only moved pages of the active list is a visit, too: what it looked at is not put down to the next one."""
    k, pid = machine("8M", swap="64M")
    shared = write(k, pid, 6 * M)
    child = k.call("fork", pid).result["pid"]
    for reader in (pid, child):
        k.call("touch", reader, address=shared, length=6 * M, access="read")
    write(k, pid, 4 * M)
    total = int(k.s.ctl[CTL_LOOKS])
    assert total < NR_LOOKS
    assert {row["visit"] for row in k.records.visits} == set(k.s.looks["visit"][:total].tolist())
    silent = {row["visit"] for row in k.records.visits if row["event"] == 0}
    assert silent
    looks = k.s.looks[:total]
    assert set(looks["fate"][np.isin(looks["visit"], list(silent))].tolist()) == {DEACTIVATED}


def test_swap_above_its_high_is_part_of_the_arithmetic() -> None:
    k, pid = machine("8M", swap="64M")
    k.call("put", path="/sys/fs/cgroup/app/memory.swap.high", data=b"2M")
    write(k, pid, 12 * M)
    row = next(row for row in k.view("explain_charge", pid=pid)["throttles"] if row["swap_overage"])
    terms = row["arithmetic"].split(" + ")
    assert len(terms) == 2
    jiffies = sum(int(term.rpartition("= ")[2].split()[0]) for term in terms)
    assert row["delay_ns"] == min(jiffies * 4_000_000, 2_000_000_000)
