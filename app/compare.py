"""`pagewalk replay`: policies compared on one trace, in process, as a table, as JSON, or as a picture."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from app.schemas import plot
from app.schemas.replay import Compare, render, sizes
from core import REPLAY_POLICIES, Trace, compare_policies, generate_trace


def trace_of(args: argparse.Namespace) -> Trace:
    """The trace that the command line names. Raises ValueError in plain words."""
    if args.generate is not None:
        return generate_trace(args.generate, args.pages, args.length, args.seed, args.skew)
    words = list(args.trace)
    if len(words) == 1 and not words[0].isdecimal():
        words = (sys.stdin.read() if words[0] == "-" else Path(words[0]).read_text()).split()
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"{next(word for word in words if not word.isdecimal())!r} is not a page number")
    return Trace.of([int(word) for word in words])


def frames_of(text: str | None) -> Any:
    """3,4 or 1-8."""
    if text is None:
        return None
    first, dash, last = text.partition("-")
    return {"from": int(first), "to": int(last)} if dash else [int(word) for word in text.split(",")]


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """The comparison that the command line asks for. Raises ValueError (pydantic's included) or OSError."""
    trace = trace_of(args)
    policies = list(REPLAY_POLICIES) if args.policies == "all" else args.policies.split(",")
    asked = Compare.model_validate({"policies": policies, "frames": frames_of(args.frames), "seed": args.seed})
    return render(compare_policies(trace, asked.policies, sizes(asked, trace), asked.seed))


def table(found: dict[str, Any]) -> str:
    """Faults in columns, a row for each size, and what is remarkable."""
    names = list(found["faults"])
    wide = max(9, *(len(name) + 2 for name in names))
    lines = [f"{found['length']} accesses to {found['pages']} pages", "", f"{'frames':>9}" + "".join(f"{name:>{wide}}" for name in names)]
    for at, size in enumerate(found["frames"]):
        lines.append(f"{size:9}" + "".join(f"{found['faults'][name][at]:{wide}}" for name in names))
    for one in found["anomalies"]:
        sizes_, faults = one["frames"], one["faults"]
        lines.append(f"{one['policy']}: more memory, more faults: {sizes_[0]} frames {faults[0]}, {sizes_[1]} frames {faults[1]} (Belady's anomaly)")
    return "\n".join(lines)


def main(args: argparse.Namespace) -> str:
    """What the command prints."""
    found = compare(args)
    if args.svg is not None:
        args.svg.write_text(plot.faults(found, args.generate or "a trace"))
    return json.dumps(found) if args.json else table(found)
