"""`pagewalk demo`: the service's main job as a story, told by a client.

Starts a service on a free loopback port (or uses `--url`), then walks as an HTTP and websocket client from the first
mapping to the OOM kill. Every request is shown as a `curl` line that can be pasted while the story is at it, every
counter before and after, every event as it arrives. What the story claims it checks: `check()` compares a figure of
the kernel with the sentence, and one claim that does not hold makes the exit code 1.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from httpx2 import Response

from pagewalk import Client, ProblemError, Session, Unreachable

KB, MB, PAGE = 1 << 10, 1 << 20, 4096
START_SECONDS = 60.0
EVENT_SECONDS = 10.0
READY = re.compile(r"pagewalk ready on (\S+)")
CGROUP = "/sys/fs/cgroup"
WIDTH = 150


# ---- the service -----------------------------------------------------------------------------------------------


@contextmanager
def own_service() -> Iterator[str]:
    """A service of our own as a subprocess, with embedded defaults; yields its address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PAGEWALK_")}
    command = [sys.executable, "-m", "app.cli", "serve", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield _address(process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    """Read the service's output up to its ready line."""
    assert process.stdout is not None
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            if match := READY.search(line):
                return match[1]
    finally:
        watchdog.cancel()
    raise RuntimeError(f"the service did not become ready (exit code {process.wait()})")


# ---- events ----------------------------------------------------------------------------------------------------


class Listener:
    """The session's events, read from the websocket by a thread of their own."""

    def __init__(self, session: Session) -> None:
        self.events: list[dict[str, Any]] = []
        self.shown = 0
        self.arrived = threading.Condition()
        self.stream = session.events(after=0)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for event in self.stream:
            with self.arrived:
                self.events.append(event)
                self.arrived.notify_all()

    def news(self, last: int | None) -> list[dict[str, Any]]:
        """What arrived since the last look, once the event `last` is here."""
        with self.arrived:
            if last is not None:
                self.arrived.wait_for(lambda: any(_id(event) >= last for event in self.events[self.shown :]), EVENT_SECONDS)
            found = self.events[self.shown :]
            self.shown = len(self.events)
            return found

    def close(self) -> None:
        self.stream.close()
        self.thread.join(5)


def _id(event: Mapping[str, Any]) -> int:
    return int(event.get("id") or event.get("seq") or 0)


# ---- the story's tools -----------------------------------------------------------------------------------------


@dataclass
class Story:
    """A client that shows what it does and checks what it says."""

    url: str
    client: Client
    base: str = ""
    session: Session | None = None
    listener: Listener | None = None
    held: int = 0
    broken: list[str] = field(default_factory=list)
    chapter_number: int = 0
    paint: bool = field(default_factory=lambda: sys.stdout.isatty() and "NO_COLOR" not in os.environ)

    # -- saying --

    def chapter(self, title: str, text: str) -> None:
        self.chapter_number += 1
        self.say("")
        self.say(self.styled(f"{self.chapter_number}. {title}", "1"))
        self.say(f"   {text}")

    def say(self, text: str) -> None:
        print(text, flush=True)

    def styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.paint else text

    def check(self, claim: str, holds: bool, seen: object = "") -> None:
        """A claim of the story: printed with a tick when it holds, remembered when it does not."""
        if holds:
            self.held += 1
            self.say(self.styled(f"   ✓ {claim}", "32"))
        else:
            self.broken.append(claim)
            self.say(self.styled(f"   ✗ {claim}: seen {seen}", "31"))

    def counters(self, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """Counters in kB, before → after."""
        width = max(map(len, after))
        for name, now in after.items():
            change = now - before.get(name, 0)
            mark = f"{change:+,}" if change else "="
            self.say(f"     {name:<{width}}  {before.get(name, 0):>9,} → {now:>9,} kB  {mark}")

    # -- asking --

    def ask(self, method: str, path: str, body: Any = None, quiet: bool = False) -> Response:
        """One request; shown as a curl line unless `quiet`."""
        if not quiet:
            self.say(self.styled(f"   $ {self._curl(method, path, body)}", "36"))
        headers = {"content-type": "text/plain"} if isinstance(body, str) else {}
        client = self.session.client if self.session else self.client
        options = {"json": body} if isinstance(body, dict) else {"content": body} if isinstance(body, str) else {}
        return client.request(method, self.base + path, headers=headers, **options)

    def _curl(self, method: str, path: str, body: Any) -> str:
        """The request as a line for a shell in which `$S` is the session's address."""
        words = ["curl", "-s"]
        default = "POST" if isinstance(body, dict) else "GET"
        if method != default:
            words += ["-X", method]
        if isinstance(body, dict):
            words += ["--json", json.dumps(body, separators=(",", ":"))]
        elif isinstance(body, str):
            words += ["-H", "content-type: text/plain", "--data-binary", body]
        token = self.session.token if self.session else self.client.token
        if token and not self.open:
            words += ["-H", f"authorization: Bearer {token}"]
        address = f'"$S{path}"' if self.base else f"{self.url}{path}"
        return f"{shlex.join(words)} {address}"

    @property
    def open(self) -> bool:
        """On loopback the service asks nobody for a token, so the lines go without."""
        return "127.0.0.1" in self.url or "localhost" in self.url

    def call(self, pid: int, name: str, **body: Any) -> dict[str, Any]:
        """A system call of a process: its answer, shown in a line, and the events that it caused."""
        answer: dict[str, Any] = self.ask("POST", f"/processes/{pid}/{name}", body).json()
        faults = answer["faults"]
        words = [f"{key}={value}" for key, value in (answer["result"] or {}).items()]
        words += [str(answer[key]) for key in ("errno", "signal") if answer[key]]
        if faults["minor"] or faults["major"]:
            words.append(f"{faults['minor']:,} minor faults" + (f", {faults['major']:,} major" if faults["major"] else ""))
        if answer["killed"]:
            words.append("killed " + ", ".join(map(str, answer["killed"])))
        self.say(f"     → {'; '.join(words) or 'done'}; {answer['elapsed_ns'] / 1e6:.3f} ms of simulated time")
        self.events((answer.get("events") or {}).get("last"))
        return answer

    def events(self, last: int | None) -> None:
        """The events that arrived on the websocket up to the number `last`, in short."""
        if not self.listener:
            return
        for line in folded(self.listener.news(last)):
            self.say(self.styled(f"     ⚡ {line}", "2"))

    def file(self, path: str, quiet: bool = True) -> str:
        """A file of the session's tree."""
        return self.ask("GET", f"/fs{path}", quiet=quiet).text

    def kb(self, path: str, *names: str) -> dict[str, int]:
        """Fields of a file in kB."""
        return {name: value for name, value in fields(self.file(path)).items() if name in names}

    def process(self, pid: int) -> dict[str, int]:
        """The memory of a process. smaps_rollup counts pages; VmRSS of status may lag by 64 of them, in Linux as here."""
        rollup = self.kb(f"/proc/{pid}/smaps_rollup", "Rss", "Anonymous")
        return self.kb(f"/proc/{pid}/status", "VmSize") | rollup | self.kb(f"/proc/{pid}/status", "VmPTE")

    def spawn(self, **body: Any) -> int:
        """A new process: its pid."""
        answer = self.ask("POST", "/processes", body).json()
        self.say(f"     → pid {answer['pid']}")
        self.events((answer.get("events") or {}).get("last"))
        return int(answer["pid"])

    def system(self) -> dict[str, int]:
        """The memory of the machine."""
        return self.kb("/proc/meminfo", "MemFree", "AnonPages", "PageTables", "Committed_AS")


def fields(text: str) -> dict[str, int]:
    """`Name:   123 kB` and `name 123` lines."""
    return {name: int(value) for name, value in re.findall(r"^([\w()]+):?\s+(\d+)(?: kB)?$", text, re.M)}


LONG = ("candidates", "dmesg", "report", "text", "id", "seq", "clock_ns", "type")


def folded(events: list[dict[str, Any]]) -> Iterator[str]:
    """Events in a line each; a run of the same type and kind as one line with its length."""
    for _, run in groupby(events, key=lambda event: (event["type"], event.get("kind"))):
        first, *others = run
        yield brief(first) + (f"  (and {len(others)} more of them)" if others else "")


def brief(event: Mapping[str, Any]) -> str:
    """An event in one line: its type first, the long parts left out."""
    words = [f"{key}={value}" for key, value in event.items() if key not in LONG and value not in (None, [], {})]
    return f"{event['clock_ns'] / 1e6:10.3f} ms  {event['type']:<9} {' '.join(words)}"[:WIDTH]


# ---- the chapters ----------------------------------------------------------------------------------------------


def boot(story: Story) -> None:
    story.chapter("Boot", "A machine of 512M: one kernel, one session.")
    body = {"machine": {"memory": "512M"}, "seed": 1}
    found = story.ask("POST", "/v1/sessions", body).json()
    story.session = Session(story.client, found)
    story.base = story.session.path
    socket_url = story.url.replace("http", "ws", 1) + f"{story.base}/events"
    story.say(f"     → session {found['id']}; its events come from {socket_url}")
    story.say(story.styled(f"   $ S={story.url}{story.base}", "36"))
    story.listener = Listener(story.session)
    meminfo = fields(story.file("/proc/meminfo", quiet=False))
    story.say(f"     MemTotal {meminfo['MemTotal']:,} kB   MemFree {meminfo['MemFree']:,} kB")
    managed = sum(map(int, re.findall(r"^\s+managed\s+(\d+)$", story.file("/proc/zoneinfo"), re.M)))
    story.check("MemTotal is what the zones manage", managed * 4 == meminfo["MemTotal"], (managed * 4, meminfo["MemTotal"]))
    kernel = 512 * MB // KB - meminfo["MemTotal"]
    story.check("the kernel keeps a part of the 512M for itself", 0 < kernel < 128 * MB // KB, kernel)


def spawn(story: Story) -> int:
    story.chapter("A process", "It has code, a heap, a stack, and almost no memory yet.")
    pid = story.spawn(comm="app")
    maps = story.file(f"/proc/{pid}/maps", quiet=False)
    for line in maps.splitlines():
        story.say(f"     {line}")
    story.check("its stack ends where user space ends", "7ffffffff000 rw-p" in maps and "[stack]" in maps, maps)
    return pid


def map_memory(story: Story, pid: int) -> int:
    story.chapter("mmap 64M", "A promise, not memory: the address space grows, nothing becomes resident.")
    before, system = story.process(pid), story.system()
    answer = story.call(pid, "mmap", length="64M", prot="rw", flags=["private", "anonymous"])
    after, system_after = story.process(pid), story.system()
    story.counters(before, after)
    story.check("VmSize grew by 64M", after["VmSize"] - before["VmSize"] == 64 * KB, after)
    story.check("no page became resident", after["Rss"] == before["Rss"], after)
    grown = system_after["Committed_AS"] - system["Committed_AS"]
    story.check("the kernel counts the promise in Committed_AS", grown == 64 * KB, grown)
    return int(answer["result"]["address"], 16)


def touch(story: Story, pid: int, address: int) -> None:
    story.chapter("First touch", "Writing the first half: one minor fault a page, a zeroed frame each.")
    before = story.process(pid) | story.system()
    answer = story.call(pid, "touch", address=hex(address), length="32M", access="write")
    after = story.process(pid) | story.system()
    story.counters(before, after)
    story.check("8,192 pages cost 8,192 minor faults", answer["faults"] == {"minor": 8192, "major": 0}, answer["faults"])
    story.check("32M more are resident", after["Anonymous"] - before["Anonymous"] == 32 * KB, after)
    tables = after["VmPTE"] - before["VmPTE"]
    story.check("page tables: one 4 kB table for each 2M, and what hangs them up", 64 <= tables <= 76, tables)
    story.check("the faults took simulated time", answer["elapsed_ns"] > 0, answer["elapsed_ns"])


def read_touch(story: Story, pid: int, address: int) -> None:
    story.chapter("Reading what was never written", "Every page is the one shared zero page: faults, but no memory.")
    before = story.process(pid) | story.system()
    answer = story.call(pid, "touch", address=hex(address + 32 * MB), length="32M", access="read")
    after = story.process(pid) | story.system()
    story.counters(before, after)
    story.check("8,192 minor faults again", answer["faults"]["minor"] == 8192, answer["faults"])
    story.check("and not one page more is resident", after["Rss"] == before["Rss"], after)


def fork(story: Story, pid: int) -> int:
    story.chapter("fork", "The child gets page tables of its own, and every page of its parent's, read-only in both.")
    before = story.system()
    answer = story.call(pid, "fork")
    child = int(answer["result"]["pid"])
    after = story.system()
    story.counters(before, after)
    parent, copy = story.process(pid)["Anonymous"], story.process(child)["Anonymous"]
    story.check("the child has every anonymous page of its parent's", copy == parent, (copy, parent))
    grown = after["AnonPages"] - before["AnonPages"]
    story.say("   Both run on to where they wait, and write to their stacks and data: the first pages to part.")
    story.check("but no page was copied, except a handful of those", 0 < grown <= 32, grown)
    story.check("page tables are not shared: PageTables grew", after["PageTables"] > before["PageTables"], after)
    for task in (child, pid):
        story.call(task, "brk", increment=0)
    parted = story.system()["AnonPages"] - after["AnonPages"]
    story.check("the child's first call wants one page of data more", parted == 4, parted)
    return child


def copy_on_write(story: Story, pid: int, child: int, address: int) -> None:
    story.chapter("Copy on write", "The child writes 4M: each page is copied at its first write.")
    before = story.system()
    answer = story.call(child, "touch", address=hex(address), length="4M", access="write")
    middle = story.system()
    story.counters(before, middle)
    story.check("1,024 minor faults", answer["faults"]["minor"] == 1024, answer["faults"])
    copied = middle["AnonPages"] - before["AnonPages"]
    story.check("4M were copied", copied == 4 * KB, copied)
    story.say("   The parent writes the same 4M: it is the last to use these pages, so nothing is copied.")
    answer = story.call(pid, "touch", address=hex(address), length="4M", access="write")
    after = story.system()
    story.counters(middle, after)
    story.check("1,024 minor faults to make them writable", answer["faults"]["minor"] == 1024, answer["faults"])
    story.check("and no page was copied", after["AnonPages"] == middle["AnonPages"], after)


LEVELS = (("PGD", 39), ("PUD", 30), ("PMD", 21), ("PTE", 12))
PFN = (1 << 55) - 1


def page_walk(story: Story, pid: int, address: int) -> None:
    story.chapter("A page walk", "How the processor finds the frame behind one address, nine bits at a time.")
    target = address + 5 * PAGE + 0x2A8
    answer = story.ask("GET", f"/processes/{pid}/walk?address={target:#x}").json()
    for line in draw(target, answer):
        story.say(f"     {line}")
    assert story.session is not None
    raw = story.session.read_bytes(f"/proc/{pid}/pagemap", target // PAGE * 8, 8)
    entry, last = int.from_bytes(raw[:8], "little"), answer["levels"][-1]
    story.check("present, says pagemap", bool(entry >> 63), hex(entry))
    story.check("and it names the same frame as the walk", entry & PFN == last["pfn"], (entry & PFN, last["pfn"]))
    indices = [level["index"] for level in answer["levels"]]
    want = [target >> shift & 511 for _, shift in LEVELS]
    story.check("the four indices are the address's own bits", indices == want, (indices, want))
    tables = [level["table_pfn"] for level in answer["levels"][1:]]
    pointed = [level["pfn"] for level in answer["levels"][:-1]]
    story.check("each entry points to the next table", tables == pointed, (tables, pointed))


def draw(address: int, answer: Mapping[str, Any]) -> list[str]:
    """The address in its bit fields, and each level's entry below."""
    parts = [format(address >> shift & 511, "09b") for _, shift in LEVELS] + [format(address & 4095, "012b")]
    numbers = [str(address >> shift & 511) for _, shift in LEVELS] + [f"{address & 4095:#x}"]
    names = [name for name, _ in LEVELS] + ["offset"]

    def row(cells: list[str]) -> str:
        return "  ".join(f"{cell:^{len(bits)}}" for cell, bits in zip(cells, parts, strict=True)).rstrip()

    lines = [f"{address:#x}", row(names), row(parts), row(numbers), f"CR3 → the PGD in frame {answer['levels'][0]['table_pfn']}"]
    for depth, level in enumerate(answer["levels"]):
        set_bits = " ".join(name for name, is_set in level["bits"].items() if is_set)
        text = f"{level['level'].upper()}[{level['index']}] = {level['entry']}  {set_bits}"
        lines.append(f"{'  ' * depth}└ {text}  → frame {level['pfn']}")
    frame = answer["levels"][-1]["pfn"]
    if frame is not None:
        lines.append(f"physical address: frame {frame} × 4096 + {address & 4095:#x} = {frame * PAGE + (address & 4095):#x}")
    return lines


def cgroup_oom(story: Story) -> None:
    story.chapter("A limit", "A cgroup of 32M, and a process in it that wants 64M.")
    story.ask("PUT", f"/fs{CGROUP}/cgroup.subtree_control", "+memory")
    story.ask("MKCOL", f"/fs{CGROUP}/box")
    story.ask("PUT", f"/fs{CGROUP}/box/memory.max", "32M")
    limit = story.file(f"{CGROUP}/box/memory.max", quiet=False).strip()
    story.say(f"     → {limit}")
    story.check("the limit reads back in bytes", limit == str(32 * MB), limit)
    pid = story.spawn(comm="hog", cgroup="/box")
    answer = story.call(pid, "mmap", length="64M", prot="rw", flags=["private", "anonymous"])
    story.check("mapping 64M under a limit of 32M succeeds: only touching is charged", answer["errno"] is None, answer)
    kills = fields(story.file("/proc/vmstat"))["oom_kill"]

    story.chapter("The OOM killer", "It touches all 64M.")
    answer = story.call(pid, "touch", address=answer["result"]["address"], length="64M", access="write")
    story.check("the hog was killed", pid in answer["killed"] and answer["signal"] == "SIGKILL", answer)
    events = fields(story.file(f"{CGROUP}/box/memory.events", quiet=False))
    story.say("     " + "  ".join(f"{name} {count}" for name, count in events.items()))
    story.check("memory.events counts one kill", events["oom_kill"] == 1, events)
    now = fields(story.file("/proc/vmstat"))["oom_kill"]
    story.check("so does /proc/vmstat", now - kills == 1, (kills, now))
    peak = int(story.file(f"{CGROUP}/box/memory.peak"))
    story.check("the cgroup went up to its limit and never above", 31 * MB < peak <= 32 * MB, peak)
    report(story, pid)


def report(story: Story, pid: int) -> None:
    log = story.file("/dev/kmsg", quiet=False)
    start = log.find("invoked oom-killer")
    lines = log[log.rfind("\n", 0, start) + 1 :].splitlines() if start >= 0 else []
    texts = [part for line in lines for part in (line.partition(";")[2] or line).split(r"\x0a")]
    zeros = [text for text in texts if re.fullmatch(r" ?\w+ 0", text)]
    for text in texts:
        if text not in zeros:
            story.say(f"     {text}")
    if zeros:
        story.say(f"     (and {len(zeros)} counters of the cgroup at 0)")
    killed = re.search(r"Memory cgroup out of memory: Killed process (\d+) \((\w+)\)", log)
    story.check("dmesg names the victim", bool(killed) and killed is not None and int(killed[1]) == pid, killed)
    story.check("and the constraint", "constraint=CONSTRAINT_MEMCG" in log, "no CONSTRAINT_MEMCG")


def events_of_all(story: Story) -> None:
    seen = story.listener.events if story.listener else []
    kinds = sorted({str(event["type"]) for event in seen})
    story.say(f"     {len(seen):,} events in all, of the types {', '.join(kinds)}")
    story.check("the kill arrived on the websocket as an event", any(e["type"] == "oom" for e in seen), kinds)
    story.check("and the faults before it", any(e["type"] == "fault" for e in seen), kinds)
    numbers = [_id(event) for event in seen if event["type"] not in ("gap", "bookmark")]
    story.check("in order, none twice", numbers == sorted(set(numbers)), numbers[:20])


def conservation(story: Story) -> None:
    story.chapter("The books", "Every frame has one owner or is free; the audit counts them all.")
    audit = story.ask("GET", "/audit").json()
    for owner, frames in audit["frames"].items():
        story.say(f"     {owner:<8} {frames:>9,} frames")
    story.say(f"     {'total':<8} {audit['total']:>9,}")
    total = sum(audit["frames"].values())
    story.check("owners and free frames add up to the machine", total == audit["total"] == audit["spanned"], audit["frames"])
    entries, counts = audit["mapped_entries"], audit["mapcounts"]
    story.check(f"the frames' mapcounts are the {entries:,} page-table entries that point to them", entries == counts, counts)
    story.check("the dead process's memory is given back", [row["usage"] for row in audit["cgroups"]] == [0], audit["cgroups"])


# ---- telling it ------------------------------------------------------------------------------------------------


def tell(url: str, token: str | None, stay: bool = False) -> Story:
    """The whole story against the service at `url`; `stay` keeps the session until Ctrl-C, so that the lines can be tried."""
    with Client(url, token) as client:
        story = Story(client.url, client)
        try:
            _chapters(story)
            if stay:
                _linger(story)
        finally:
            if story.listener:
                story.listener.close()
            if story.session:
                story.session.destroy()
    return story


def _linger(story: Story) -> None:
    story.say(f"\nThe session stays open: S={story.url}{story.base} (Ctrl-C ends it)")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _chapters(story: Story) -> None:
    boot(story)
    pid = spawn(story)
    address = map_memory(story, pid)
    touch(story, pid, address)
    read_touch(story, pid, address)
    child = fork(story, pid)
    copy_on_write(story, pid, child, address)
    page_walk(story, pid, address)
    cgroup_oom(story)
    events_of_all(story)
    conservation(story)


def main(url: str | None = None, token: str | None = None, stay: bool = False) -> int:
    """Tell the story; 0 when everything that it claims was checked and holds."""
    started = time.perf_counter()
    try:
        if url:
            story = tell(url, token, stay)
        else:
            print("starting a service on a free loopback port …", flush=True)
            with own_service() as own:
                story = tell(own, token, stay)
    except (RuntimeError, OSError, ProblemError, Unreachable, KeyError) as error:
        print(f"pagewalk: the story broke off: {error!r}", file=sys.stderr)
        return 1
    print()
    for claim in story.broken:
        print(f"does not hold: {claim}", file=sys.stderr)
    total = story.held + len(story.broken)
    print(f"{story.held} of {total} claims checked and true, in {time.perf_counter() - started:.1f} s")
    return 1 if story.broken else 0
