"""A recorded boot as a target: the real kernel's answers, played back.

It lets the comparison be tested against the thing it compares with: a real boot must hold against the others, and a
boot with one figure bent must not.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from app.scenario import MOVE_STATUS, PAGE_SIZE
from app.target import Answer, Operation, Refused
from tests.conformance.compare import ERRNOS, SIGNALS

SILENT = ("create_file",)


class RecordedBoot:
    """Answers each operation with what one boot of Linux answered."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.ops: deque[dict[str, Any]] = deque(run["ops"])
        self.snaps = run["snaps"]
        self.snap: dict[str, str] = {}
        self.pids: dict[str, int] = {}
        self.dead: set[int] = set()

    def apply(self, op: Operation) -> Answer:
        if op["op"] in SILENT or self._goes_with_create(op):
            return {}
        return self._answer(self._next())

    def _goes_with_create(self, op: Operation) -> bool:
        """The write of `+memory` that is part of a line `cg create`; other lines write to that file, too."""
        return str(op.get("path", "")).endswith("/cgroup.subtree_control") and self._peek()["line"].startswith("cg create ")

    def _peek(self) -> dict[str, Any]:
        while self.ops[0]["line"].startswith("snap "):
            self.snap = self.snaps[self.ops.popleft()["line"].split()[1]]
        return self.ops[0]

    def _next(self) -> dict[str, Any]:
        self._peek()
        return self.ops.popleft()

    def _answer(self, recorded: dict[str, Any]) -> Answer:
        found, words = recorded["ret"], recorded["line"].split()
        killed = [self.pids[name] for name in recorded["died"]] + ([self.pids[words[0]]] if "died" in found else [])
        if words[1:2] == ["exit"] or words[0] == "kill":
            killed.append(self.pids[words[0] if words[1:2] == ["exit"] else words[1]])
        if "hung" in found:
            killed.append(self.pids[words[0]])  # by the recorder
        self.dead.update(killed)
        if words[0] == "spawn":
            self.pids[words[1]] = int(found["ret"])
            return {"pid": int(found["ret"])}
        result: dict[str, Any] = {}
        if words[1:2] == ["fork"]:
            self.pids[words[2]] = 100_000 + len(self.pids)
            result = {"pid": self.pids[words[2]]}
        elif "addr" in found:
            result = {"address": found["addr"]}
        elif words[1:2] == ["mremap"] or words[1:2] == ["brk"]:
            result = {"address": "0x7ffff0000000"}
        elif words[1:2] == ["mincore"]:
            result = {"resident": int(found["ret"])}
        elif words[1:2] == ["move_pages"]:
            result = {"status": " ".join(word for word, name in MOVE_STATUS.items() for _ in range(int(found.get(name, 0))))}
        errno = "hung" if "hung" in found else ERRNOS.get(found.get("err", "0"))
        return {
            "result": result or None,
            "errno": errno,
            "signal": SIGNALS.get(found.get("signal", "")),
            "faults": {"minor": int(found.get("minflt", 0)), "major": int(found.get("majflt", 0))},
            "killed": killed,
        }

    def peek(self, label: str) -> None:
        self.snap = self.snaps[label]

    def read(self, path: str) -> bytes:
        match = re.fullmatch(r"/proc/(\d+)/(.+)", path)
        if match:
            name = next(name for name, pid in self.pids.items() if pid == int(match[1]))
            path = f"/proc/{name}/{match[2]}"
        if path not in self.snap:
            raise Refused(404, path)
        return self.snap[path].encode()

    def pread(self, path: str, offset: int, length: int) -> bytes:
        """Entries with as many bits of each kind as the real process counted."""
        found = self._next()["ret"]
        pages = length // 8
        bits = {"present": 63, "swapped": 62, "file": 61, "exclusive": 56, "softdirty": 55}
        entries = [sum(1 << bit for name, bit in bits.items() if page < int(found[name])) for page in range(pages)]
        return b"".join(entry.to_bytes(8, "little") for entry in entries)

    def live(self) -> set[int]:
        return set(self.pids.values()) - self.dead

    def close(self) -> None:
        assert PAGE_SIZE == 4096
