"""Answers as JSON Schema, for the OpenAPI document: what clients rely on, written once by name."""

from collections.abc import Mapping
from typing import Any, Final

from app.schemas.calls import BODIES, OPS, Batch, Body
from app.schemas.replay import Replay
from core import CALLS

Schema = dict[str, Any]
TOPICS: Final[Mapping[str, bool]] = {  # what is explained: True where an address of one page may be given
    "thp": True,
    "oom": False,
    "reclaim": True,
    "charge": False,
    "psi": False,
    "ksm": True,
    "tlb": True,
    "node": True,
    "hugetlb": True,
}
HTTP_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, doc: str = "") -> Schema:
    schema: Schema = {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}
    return schema | ({"description": doc} if doc else {})


def ref(name: str) -> Schema:
    """A reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(name: str) -> Schema:
    return _object({"items": {"type": "array", "items": ref(name)}, "next_page_token": _or_null({"type": "string"})})


INT: Final[Schema] = {"type": "integer"}
STR: Final[Schema] = {"type": "string"}
BYTES: Final[Schema] = {"type": "string", "format": "binary"}
BOOL: Final[Schema] = {"type": "boolean"}
NULL_STR: Final = _or_null(STR)
NULL_INT: Final = _or_null(INT)
HEX: Final[Schema] = {"type": "string", "pattern": "^0x[0-9a-f]+$"}
FREE: Final[Schema] = {"type": "object"}

TLB_COUNTS: Final = _object(
    {"accesses": INT, "l1_hits": INT, "l2_hits": INT, "misses": INT, "walk_cycles": INT},
    doc="What memory accesses found in the processor's TLB; only where there were any.",
)
ANSWER: Final[Mapping[str, Schema]] = {
    "result": _or_null(FREE),
    "errno": NULL_STR,
    "signal": NULL_STR,
    "fault_address": _or_null(HEX),
    "faults": _object({"minor": INT, "major": INT}),
    "killed": {"type": "array", "items": INT, "description": "Every pid that the OOM killer or a fatal signal ended during the call."},
    "elapsed_ns": INT,
    "clock_ns": INT,
    "events": _or_null(_object({"first": INT, "last": INT})),
    "seq": INT,
}
WITH_ACCESSES: Final[Mapping[str, Schema]] = {"tlb": TLB_COUNTS}  # of calls whose program accessed memory

PROBLEM: Final = _object(
    {"type": STR, "title": STR, "status": INT, "detail": STR},
    {"instance": STR, "errno": STR, "seq": INT, "errors": {"type": "array", "items": _object({"detail": STR, "pointer": STR})}},
    "What was wrong with the request, and what would be right (RFC 9457).",
)

SESSION: Final = {
    "id": STR,
    "name": NULL_STR,
    "lab": NULL_STR,
    "owner": NULL_STR,
    "course": NULL_STR,
    "machine": FREE,
    "seed": INT,
    "clock_ns": INT,
    "epoch": INT,
    "seq": INT,
    "state": {"type": "string", "enum": ["running", "panicked", "frozen"]},
    "events": _object({"oldest": INT, "last": INT}),
    "differs": _or_null(_object({"seq": INT, "clock_ns": _object({"was": INT, "is": INT}), "events": _object({"was": INT, "is": INT})})),
    "created": {"type": "string", "format": "date-time"},
    "ttl_ns": INT,
}

TOKEN: Final = {
    **dict.fromkeys(("id", "subject", "created"), STR),
    **dict.fromkeys(("course", "session", "label", "issued_by", "expires", "revoked", "used"), NULL_STR),
}
COURSE: Final = {"id": STR, "name": NULL_STR, "created": STR, "role": NULL_STR}

PROCESS: Final = {
    **dict.fromkeys(("pid", "ppid", "rss_bytes", "vsize_bytes", "swap_bytes", "minflt", "majflt", "oom_score", "oom_score_adj", "threads",
                     "cpu", "utime_ns", "stime_ns"), INT),
    **dict.fromkeys(("comm", "cgroup"), STR),
    "state": {"type": "string", "enum": ["running", "sleeping", "blocked", "stopped", "zombie", "dead"]},
    "program": _or_null(_object({
        "name": STR, "step": INT, "op": NULL_STR, "steps_begun": INT, "at_end": STR,
        "regions": {"type": "array", "items": _object({"name": STR, "address": HEX, "length": INT})},
    })),
}  # fmt: skip

VMA: Final = {
    "start": HEX,
    "end": HEX,
    "prot": STR,
    "flags": {"type": "array", "items": STR},
    "offset": INT,
    "name": NULL_STR,
    "rss_bytes": INT,
    "swap_bytes": INT,
}

STRINGS: Final[Schema] = {"type": "array", "items": STR}
COUNTS: Final[Schema] = {"type": "object", "additionalProperties": INT}

LEVEL: Final = _object({
    "level": {"type": "string", "enum": ["pgd", "pud", "pmd", "pte"]},
    "index": INT,
    "table_pfn": INT,
    "entry": HEX,
    "pfn": NULL_INT,
    "bits": {"type": "object", "additionalProperties": BOOL},
})  # fmt: skip
OUTCOME: Final = _object({"outcome": STR, "why": STR, "path": STRINGS}, doc="What an access would do, and the kernel's functions on the way.")
TLB_ENTRY: Final = _object(
    {"structure": STR, "address": HEX, "size": INT, "set": INT, "way": INT, "writable": BOOL, "age": INT},
    doc="age: accesses of this CPU since it was last used.",
)
TLB: Final = _object(
    {"pid": INT, "cpu": INT, "asid": NULL_INT, "counts": TLB_COUNTS, "held": FREE, "entries": {"type": "array", "items": TLB_ENTRY},
     "processor": FREE, "geometry": FREE, "flushed": _or_null(FREE)},
    doc="What the TLB of a process's CPU holds for it: how many entries by structure, and the 64 that were used last.",
)  # fmt: skip
TLB_REACH: Final = _object(
    {"pid": INT, "resident_bytes": INT, "rows": {"type": "array", "items": FREE}},
    doc="How much memory each level covers, by its entries and measured, and how much of it the process's resident memory is.",
)
LATENCY: Final = _object(
    {
        "pid": INT,
        "calls": {"type": "array", "items": FREE},
        "stalls": {"type": "array", "items": FREE},
    },
    doc="A process's latest calls, oldest first: op, begin_ns, elapsed_ns, stall_ns, faults, fault_ns; and its stalls: from when to when, over what.",
)
WALK: Final = _object(
    {
        "address": HEX,
        "page_address": HEX,
        "binary": STR,
        "canonical": BOOL,
        "offset": INT,
        "levels": {"type": "array", "items": LEVEL, "maxItems": 4},
        "present": BOOL,
        "frame": _or_null(FREE),
        "vma": _or_null(ref("Vma")),
        "read": OUTCOME,
        "write": OUTCOME,
    },
    {"physical": INT},
    "The four indices, each level's entry decoded, the frame, and what an access would do.",
)
AUDIT: Final = _object(
    {
        "frames": COUNTS | {"description": "Frames by owner; free ones too."},
        "total": INT | {"description": "Their sum."},
        "mapped_entries": INT,
        "mapcounts": INT,
        "cgroups": {"type": "array", "items": FREE},
        "rules": {"type": "array", "items": _object({"rule": STR, "doc": STR})},
    },
    doc="The invariants that were checked, and the sums they rest on.",
)
LIMIT: Final[Schema] = {"anyOf": [INT, {"const": "max"}]}
CGROUP: Final[Mapping[str, Schema]] = {
    "path": STR,
    "procs": {"type": "array", "items": INT},
    "subtree_control": STRINGS,
    **dict.fromkeys(("memory.current", "memory.peak", "memory.oom.group"), INT),
    **dict.fromkeys(("memory.min", "memory.low", "memory.high", "memory.max", "memory.swap.max"), LIMIT),
    "memory.events": COUNTS,
    "memory.stat": COUNTS,
}
ZONE: Final = _object({
    **dict.fromkeys(("node", "start_pfn", "present", "managed", "free", "min", "low", "high"), INT),
    "zone": STR,
    "free_blocks": {"type": "array", "items": INT, "description": "Free blocks of order 0 to 10."},
    "lowmem_reserve": {"type": "array", "items": INT},
})  # fmt: skip
MEMORY: Final = _object({"zones": {"type": "array", "items": ZONE}}, doc="Zones, watermarks and free lists, in pages.")

CHANGE: Final = _object(
    {
        "knob": STR,
        **dict.fromkeys(("from", "to", "extra_bytes", "step", "trials"), INT),
        "checked": {"type": "array", "items": _object({"value": INT, "kill": BOOL})},
    },
    doc="A knob, its value, and the smallest value with which nobody is killed: `checked` shows it, and one step less.",
)

SNAPSHOT: Final = {"name": STR, "seq": INT, "epoch": INT, "clock_ns": INT, "digest": STR, "size": INT}

SCHEMAS: Final[Mapping[str, Schema]] = {
    "Problem": PROBLEM,
    "Answer": _object(
        ANSWER,
        WITH_ACCESSES,
        doc="What one operation did. `errno` and `signal` tell a simulated failure; elapsed and clock are simulated nanoseconds.",
    ),
    "BatchAnswer": _object(
        {
            "results": {"type": "array", "items": {"anyOf": [ref("Answer"), ref("Problem")]}},
            "requested": INT,
            "completed": INT,
            "clock_ns": INT,
            "seq": INT,
        }
    ),
    "Session": _object(SESSION, {"token": STR}),
    "SessionList": _list("Session"),
    "Clock": _object({"clock_ns": INT, "seq": INT}),
    "Call": _object(
        {
            "id": INT,
            "op": STR,
            "pid": NULL_INT,
            "state": {"enum": ["queued", "running"]},
            "done": INT,
            "total": NULL_INT,
            "unit": {"enum": ["pages", "ns", "operations"]},
            "since": {"type": "string", "format": "date-time"},
        },
        doc="A call that waits for its turn or runs. `done` of `total` is told while it is long, in its `unit`.",
    ),
    "CallList": _list("Call"),
    "Snapshot": _object(SNAPSHOT),
    "SnapshotList": _list("Snapshot"),
    "Difference": _object({
        "from": INT,
        "to": INT,
        "clock_ns": _object({"from": INT, "to": INT}),
        "counters": {"type": "array", "items": _object({"file": STR, "name": STR, "before": NULL_STR, "after": STR})},
        "files": {
            "type": "array",
            "items": _object({"path": STR, "change": {"type": "string", "enum": ["appeared", "vanished", "changed"]}, "diff": STR}),
        },
    }),
    "Spawned": _object({"pid": NULL_INT, **ANSWER}),
    "Process": _object(PROCESS),
    "ProcessList": _list("Process"),
    "Vma": _object(VMA),
    "VmaList": _list("Vma"),
    "Walk": WALK,
    "Tlb": TLB,
    "TlbReach": TLB_REACH,
    "Latency": LATENCY,
    "Explanation": FREE | {"description": "What the kernel recorded about its decision."},
    "File": _object({"path": STR, "size": INT}),
    "FileList": _list("File"),
    "FileAnswer": _object({"path": STR, "size": INT, **ANSWER}),
    "Cgroup": _object({**CGROUP, "children": STRINGS}, doc="One cgroup's limits and counters, and the paths of the groups below it. Sizes in bytes."),
    "CgroupTree": _object(
        {**CGROUP, "children": {"type": "array", "items": ref("CgroupTree")}},
        doc="A cgroup's limits and counters, and the groups below it with theirs. Sizes in bytes.",
    ),
    "CgroupCreate": {
        "type": "object",
        "properties": {"path": {"type": "string", "examples": ["/app"]}},
        "required": ["path"],
        "additionalProperties": {"anyOf": [STR, INT, {"type": "null"}]},
        "description": "path, and settings: files of the cgroup (memory.max), systemd's properties (MemoryMin, MemoryLow, MemoryHigh, MemoryMax, "
                       "MemorySwapMax, with its sizes, percentages and infinity), or a pasted unit as `service`.",
        "examples": [{"path": "/app", "memory.max": "50M"}, {"path": "/web", "service": "[Service]\nMemoryHigh=40M\nMemoryMax=10%\n"}],
    },
    "CgroupPatch": {"type": "object", "additionalProperties": {"anyOf": [STR, INT, {"type": "null"}]}, "examples": [{"MemoryMax": "20%"}]},
    "Audit": AUDIT,
    "Memory": MEMORY,
    "Event": _object({"id": INT, "seq": INT, "clock_ns": INT, "type": STR}, doc="See asyncapi.yaml and events.md for the members of each type."),
    "Why": _object(
        {
            "event": ref("Event"),
            "causes": {"type": "array", "items": ref("Event"), "description": "What it follows from, the nearest first; each came before the last."},
            "root": _or_null(_object({"kind": {"type": "string", "enum": ["request", "timer", "boot"]}, "says": STR}, {"seq": INT, "op": FREE})),
            "complete": BOOL | {"description": "False when a cause is older than what the session keeps."},
        },
        doc="Why an event happened. Each event has a sentence, `says`.",
    ),
    "Autopsy": _object(
        {
            "event": ref("Event"),
            "seq": INT,
            "op": FREE,
            "changes": {"type": "array", "items": CHANGE, "description": "Each avoids the kill by itself; the cheapest first."},
            "smallest": _or_null(CHANGE),
            "without_effect": {"type": "array", "items": _object({"knob": STR, "from": INT, "why": STR})},
        },
        doc="What would have avoided an OOM kill.",
    ),
    "Comparison": _object(
        {
            "length": INT,
            "pages": INT,
            "frames": {"type": "array", "items": INT},
            "faults": {"type": "object", "additionalProperties": {"type": "array", "items": INT}},
            "hit_ratio": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}},
            "anomalies": {
                "type": "array",
                "items": _object({"policy": STR, "frames": {"type": "array", "items": INT}, "faults": {"type": "array", "items": INT}}),
                "description": "Where more memory made more faults.",
            },
            "policies": {"type": "object", "additionalProperties": STR, "description": "Each policy in one sentence."},
        },
        doc="Columns: faults and hit ratio of each policy, in the order of `frames`.",
    ),
    "EventPage": _object({"items": {"type": "array", "items": ref("Event")}, "next_after": INT, "last": INT, "seq": INT}),
    "OomTable": _object({"items": {"type": "array", "items": _object({
        **dict.fromkeys(("event", "clock_ns", "pid", "uid", "oom_score_adj", "total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes",
                         "swap_bytes", "pgtables_bytes"), INT),
        **dict.fromkeys(("comm", "cgroup", "constraint"), STR), "limit_of": NULL_STR, **dict.fromkeys(("victim", "by", "points"), NULL_INT),
    })}, "next_page_token": _or_null(STR)}, doc="Every kill of the OOM killer, in order of time."),
    "VmstatLines": _object({"items": {"type": "array", "items": _object({
        "clock_ns": INT, "ns": INT, "columns": COUNTS, "faults": {"type": "object", "additionalProperties": {"type": "array", "items": INT}},
    })}, "next_page_token": _or_null(STR)}),
    "Calibration": _object({"items": {"type": "array", "items": _object({
        "name": STR, "value": INT, "unit": STR, "how": {"type": "string", "enum": ["measured", "fitted", "assumed"]}, "source": STR,
    })}, "next_page_token": _or_null(STR)}),
    "ReadyPrograms": _object({"items": {"type": "array", "items": _object({"name": STR, "doc": STR, "parameters": FREE,
                                                                               "steps": {"type": "array", "items": FREE}})},
                              "steps": {"type": "array", "items": _object({"op": STR, "doc": STR, "fields": FREE})}},
                             doc="The ready-made programs, and the steps that a program may be made of."),
    "Status": _object({"status": STR}),
    "Me": _object({"subject": NULL_STR, "admin": BOOL, "roles": {"type": "object", "additionalProperties": STR}, "expires": NULL_STR},
                  doc="Who the caller is, and what in which course."),
    "Token": _object(TOKEN),
    "IssuedToken": _object({**TOKEN, "token": STR}, doc="A token, and its secret: shown here and never again."),
    "TokenList": _list("Token"),
    "Course": _object(COURSE),
    "CourseList": _list("Course"),
    "Member": _object({"subject": STR, "role": {"type": "string", "enum": ["instructor", "grader", "student"]}}),
    "MemberList": _list("Member"),
    "Ticket": _object({"ticket": STR, "expires_in": INT}, doc="Opens one stream of the session, once, within `expires_in` seconds."),
    "Observer": _object({**TOKEN, "token": STR, "events": STR}, doc="An observer's link, and its secret: shown here and never again."),
    "Version": _object({"name": STR, "version": STR, "api_version": STR, "linux": STR}),
}


def _response(description: str, media: str, schema: Schema) -> Schema:
    return {"description": description, "content": {media: {"schema": schema}}}


def ok(name: str) -> dict[int | str, Any]:
    """200 with a named schema."""
    return {200: _response("Done.", "application/json", ref(name))}


def created(name: str) -> dict[int | str, Any]:
    """201 with a named schema; 200 where a simulated refusal makes nothing."""
    answer: dict[int | str, Any] = {201: _response("Made.", "application/json", ref(name))}
    return {**answer, **ok(name)} if name == "Spawned" else answer


NOTHING: Final[dict[int | str, Any]] = {204: {"description": "Done."}}


def text(media: str, description: str) -> dict[int | str, Any]:
    """200 with text of a media type, which `Accept: text/plain` may call plain text."""
    return {200: {"description": description, "content": {media: {"schema": STR}, "text/plain": {"schema": STR}}}}


def binary(media: str, description: str) -> dict[int | str, Any]:
    """200 with bytes of a media type, which `Accept: application/octet-stream` may call mere bytes."""
    return {200: {"description": description, "content": {media: {}, "application/octet-stream": {"schema": BYTES}}}}


def file() -> dict[int | str, Any]:
    """A file: whole or a part."""
    content: Schema = {"text/plain": {"schema": STR}, "application/octet-stream": {"schema": BYTES}}
    return {200: {"description": "The file.", "content": content}, 206: {"description": "The part that Range names.", "content": content}}


def events() -> dict[int | str, Any]:
    """The three forms of the event stream that are plain HTTP."""
    content: Schema = {
        "application/json": {"schema": ref("EventPage")},
        "text/event-stream": {"schema": STR},
        "application/jsonl": {"schema": STR},
    }
    return {200: {"description": "Events, by Accept.", "content": content}}


def vmstat() -> dict[int | str, Any]:
    """vmstat's lines as text, or as JSON."""
    content: Schema = {"text/plain": {"schema": STR}, "application/json": {"schema": ref("VmstatLines")}}
    return {200: {"description": "The lines, by Accept.", "content": content}}


def body(name: str) -> Schema:
    """A JSON body with a named schema."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": ref(name)}}}}


def replay_body() -> Schema:
    """A trace: JSON, or raw page numbers."""
    content = {"application/json": {"schema": ref("Replay")}, "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "content": content}}


def latency() -> dict[int | str, Any]:
    """A process's latest calls, as rows or as a picture."""
    content = {"application/json": {"schema": ref("Latency")}, "image/svg+xml": {"schema": STR}}
    return {200: {"description": "Time by call and by stall.", "content": content}}


def replayed() -> dict[int | str, Any]:
    """A comparison: columns, or a picture."""
    content = {"application/json": {"schema": ref("Comparison")}, "image/svg+xml": {"schema": STR}}
    return {200: {"description": "Faults against memory, by policy.", "content": content}}


def raw_body() -> Schema:
    """A body of bytes, whatever it says that they are; what is written to most files is text, such as `50M`."""
    return {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": BYTES, "example": "50M"}}}}


def model_schemas() -> dict[str, Schema]:
    """The schemas of the models made from the table of calls."""
    found: dict[str, Schema] = {}
    models: list[type[Body]] = [*BODIES.values(), *OPS.values(), Batch, Replay]
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found


def _result_schema(name: str) -> Schema:
    kinds = {"address": HEX, "int": INT, "size": INT, "str": STR, "bool": BOOL, "ints": {"type": "array", "items": INT}}
    return _object({}, {key: kinds.get(kind, {}) for key, kind in CALLS[name].returns.items()})


def batch_operation() -> Schema:
    """The OpenAPI operation of the batch route."""
    return {
        "tags": ["sessions", "calls"],
        "summary": "Run Batch",
        "description": "Carry out many operations in order; each result is what its own route would answer.",
        "operationId": "run_batch",
        "parameters": [
            {"name": "sid", "in": "path", "required": True, "schema": STR},
            {"name": "if-match", "in": "header", "required": False, "schema": STR},
        ],
        **body("Batch"),
        "responses": {"200": _response("Done.", "application/json", ref("BatchAnswer"))},
    }


def call_operation(name: str) -> Schema:
    """The OpenAPI operation of one call's route."""
    row = CALLS[name]
    answer = _object({**ANSWER, "result": _or_null(_result_schema(name))}, WITH_ACCESSES)
    notes = [row.doc, f"Support: {row.support}." if row.support != "full" else "", row.note]
    required = any(param.required for param in row.params.values())
    return {
        "tags": ["calls"],
        "summary": name,
        "description": " ".join(note for note in notes if note),
        "operationId": f"call_{name}",
        "parameters": [
            {"name": "sid", "in": "path", "required": True, "schema": STR},
            {"name": "pid", "in": "path", "required": True, "schema": STR},
            {"name": "if-match", "in": "header", "required": False, "schema": STR},
        ],
        "requestBody": {"required": required, "content": {"application/json": {"schema": ref(BODIES[name].__name__)}}},
        "responses": {"200": _response("What the call did.", "application/json", answer)},
    }
