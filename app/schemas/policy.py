"""Messages of the websocket on which a program is the policy, as JSON Schema."""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]
INTS: Final[Schema] = {"type": "array", "items": {"type": "integer"}}
WORDS: Final[Schema] = {"type": "array", "items": {"type": "string"}}
POLICY_QUERY: Final[Mapping[str, Schema]] = {
    "fallback": {"type": "string", "enum": ["fifo", "clock", "random", "lru"], "description": "Chooses where the program does not."},
    "budget": {"type": "string", "description": "How long one question may take, 1ms to 60s; 500ms without it."},
}


def _message(kind: str, doc: str, **members: Schema) -> Schema:
    properties = {"type": {"const": kind}, **members}
    return {"type": "object", "description": doc, "properties": properties, "required": list(properties), "additionalProperties": False}


def policy_messages() -> dict[str, tuple[str, Schema]]:
    """By name: who speaks (`send`: the service), and what."""
    number: Schema = {"type": "integer"}
    added = {
        "type": "object",
        "description": "Columns: pages that came, in the order of arrival; one that reclaim put back arrives again.",
        "properties": {"pfn": INTS, "kind": WORDS, "cgroup": WORDS, "node": INTS},
    }
    isolate = _message(
        "isolate",
        "Which pages are taken? What has changed since the last question is in it.",
        id=number,
        node=number,
        cgroup={"type": "string"},
        want={"type": "integer", "description": "At most so many."},
        kinds=WORDS,
        added=added,
        removed=INTS,
        written={**INTS, "description": "Pages that are in swap now: the next to be freed at no cost; the last written last."},
        used={**INTS, "description": "Pages that were used since the last question."},
    )
    taken = _message("take", "1 to `want` frames on the lists of that cgroup and node, the first to go first.", id=number, pages=INTS)
    rows = {"type": "object", "description": "By policy, what came to the counters since the program took over."}
    score = _message("score", "The program beside the built-in policies on the same operations.", operations=number, policies=rows, asked=number,
                     late=number, nonsense=number)  # fmt: skip
    return {
        "hello": ("send", _message("hello", "The program is the policy.", fallback={"type": "string"}, budget_ns=number)),
        "isolate": ("send", isolate),
        "late": ("send", _message("late", "The answer came after the budget, or to no question.", id=number)),
        "policyScore": ("send", score),
        "take": ("receive", taken),
        "askScore": ("receive", _message("score", "How well is it doing?")),
    }
