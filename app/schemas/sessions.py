"""Bodies of requests about sessions, the clock, snapshots, files and cgroups."""

from typing import Annotated, Any

from pydantic import Field, PlainValidator, StringConstraints, WithJsonSchema

from app.schemas.calls import Body
from app.schemas.kinds import KINDS, MAX_I64, parse_duration, parse_int
from app.schemas.names import COURSE, COURSE_LENGTH

SECOND = 10**9
Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f/]+$")]
CourseId = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=COURSE_LENGTH, pattern=COURSE)]
Duration = Annotated[int, PlainValidator(parse_duration), WithJsonSchema(dict(KINDS["duration"].schema))]


def _non_negative(value: object) -> int:
    number = parse_int(value)
    if number < 0:
        raise ValueError(f"{number} is out of range: it must not be negative")
    return number


def _ttl(value: object) -> int:
    duration = parse_duration(value)
    if duration < SECOND:
        raise ValueError(f'{value!r} is out of range: a session lives at least one second ("1s")')
    return duration


TTL_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": "^[1-9][0-9]{0,5}(s|m|h)$"}, {"type": "integer", "minimum": SECOND, "maximum": MAX_I64}],
    "examples": ["2h"],
}
Ttl = Annotated[int, PlainValidator(_ttl), WithJsonSchema(TTL_SCHEMA)]
NonNegative = Annotated[int, PlainValidator(_non_negative), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_I64})]


def _work(value: object) -> int:
    number = parse_int(value)
    if number < 1:
        raise ValueError(f"{number} is out of range: it must be at least 1")
    return number


Work = Annotated[int, PlainValidator(_work), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_I64})]


class SessionCreate(Body):
    """A machine to boot."""

    machine: dict[str, Any] = Field(
        {},
        description="memory, swap, nodes, cpus, transparent_hugepage, storage, tlb, sysctl, reclaim_policy, cgroup_mount, distances, cmdline, "
        "preset; all have defaults.",
        examples=[{"memory": "512M", "swap": "256M"}],
    )
    seed: NonNegative = Field(0, description="The same machine, seed and operations give the same bytes everywhere.")
    name: Name | None = None
    lab: Name | None = None
    course: CourseId | None = Field(None, description="Whose instructor and graders may see it; default: the caller's only course.")
    ttl: Ttl | None = Field(None, description="The session is destroyed when nobody used it for so long.")


class SessionPatch(Body):
    """What may change about a session."""

    name: Name | None = None
    ttl: Ttl | None = None


class CloneCreate(Body):
    """A session to be made of another's state."""

    name: Name | None = None
    ttl: Ttl | None = None


class SnapshotCreate(Body):
    """A state to be named."""

    name: Name | None = Field(None, description="Default: seq-<N>.")


class Rewind(Body):
    """Where to go back to: an operation's number, or a snapshot's name."""

    seq: NonNegative | None = None
    snapshot: Name | None = None


class Advance(Body):
    """Simulated time that is to pass."""

    advance: Duration
    max_work: Work | None = Field(None, description="Accesses that programs may make meanwhile; default and most: what one call may make.")


class VmstatInterval(Body):
    """How often a line of vmstat is taken."""

    interval: Duration | None = Field(None, description="Simulated time between two lines; 0: none; left out: a second, while programs run.")


class CgroupCreate(Body):
    """A cgroup to be made; further members are its files' first contents."""

    path: str = Field(description="Below the root: /app.", examples=["/app"])
