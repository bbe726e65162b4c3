"""Bodies of the replay: a trace, the policies and the sizes of memory; and its answer."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StrictInt

from app.schemas.calls import Body
from app.schemas.sessions import NonNegative
from core import MAX_SIZES, REPLAY_POLICIES, Trace

PageNumber = Annotated[int, Field(ge=0, le=(1 << 52) - 1, strict=True)]
Count = Annotated[int, Field(ge=1, le=1 << 24, strict=True)]
PolicyName = Literal["classic", "mglru", "fifo", "clock", "random", "lru", "opt", "lfu", "2q", "arc"]
DEFAULT_POLICIES: Final = ("fifo", "clock", "lru", "opt")
DEFAULT_SIZES: Final = 16


class Generate(Body):
    """A made-up trace."""

    pattern: Literal["sequential", "loop", "random", "zipf", "hot-cold", "working-set"]
    pages: Count = Field(description="How many different pages there are.")
    length: Annotated[int, Field(ge=1, le=20_000_000, strict=True)] = Field(description="How many accesses.")
    seed: NonNegative = 0
    skew: Annotated[float, Field(ge=0, le=10)] = Field(1.0, description="Of zipf: page r has a weight of 1 / (r + 1)^skew.")
    set: Count | None = Field(None, description="Of loop and working-set: pages in use at a time; default a tenth.")


class Sizes(Body):
    """Sizes of memory in even steps."""

    first: Count = Field(1, alias="from")
    last: Count = Field(alias="to")
    step: Count = 1


class Compare(Body):
    """Which policies, over which sizes of memory."""

    policies: list[PolicyName] = Field(list(DEFAULT_POLICIES), min_length=1, max_length=len(REPLAY_POLICIES))
    frames: Annotated[list[Count], Field(min_length=1, max_length=MAX_SIZES)] | Sizes | None = Field(
        None, description="Sizes of memory, in frames; default: sixteen up to the number of pages.", examples=[[3, 4], {"from": 1, "to": 8}]
    )
    seed: NonNegative = Field(0, description="Of the random policy.")


class Replay(Compare):
    """A trace given as page numbers or made up, and what to compare on it."""

    trace: Annotated[list[PageNumber], Field(min_length=1)] | None = Field(None, examples=[[1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]])
    generate: Generate | None = None


class ReplaySession(Compare):
    """What to compare on the pages that a process of the session touched."""

    pid: Annotated[StrictInt, Field(ge=1)]


def sizes(compare: Compare, trace: Trace) -> list[int]:
    """The sizes of memory that were asked for. ValueError where there are none, or too many."""
    if isinstance(compare.frames, list):
        return list(compare.frames)
    if compare.frames is not None:
        asked = range(compare.frames.first, compare.frames.last + 1, compare.frames.step)
        if not 1 <= len(asked) <= MAX_SIZES:
            raise ValueError(f"frames: from, to and step give {len(asked)} sizes; 1 to {MAX_SIZES} are possible")
        return list(asked)
    pages = trace.pages
    return sorted({max(1, pages * part // DEFAULT_SIZES) for part in range(1, DEFAULT_SIZES + 1)})


def render(table: Mapping[str, Any]) -> dict[str, Any]:
    """`compare_policies`'s table as JSON."""
    anomalies = [{"policy": one.policy, "frames": list(one.frames), "faults": list(one.faults)} for one in table["anomalies"]]
    about = {name: REPLAY_POLICIES[name] for name in table["faults"]}
    return {**table, "anomalies": anomalies, "policies": about}
