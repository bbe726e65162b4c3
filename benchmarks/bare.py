"""The base of the one-request path: a bare FastAPI route with the service's own request model and the answer's shape, doing no work.

    python -m benchmarks.bare PORT

It gives one fixed, valid answer to the same request at the same path, so the difference to the service is the service's.
"""
from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from app.schemas.calls import BODIES

PATH = "/v1/sessions/{sid}/processes/{pid}/touch"
TouchBody: Any = BODIES["touch"]


class Faults(BaseModel):
    minor: int
    major: int


class Span(BaseModel):
    first: int
    last: int


class Answer(BaseModel):
    """The one shape that all calls answer in."""

    result: dict[str, Any] | None
    errno: str | None
    signal: str | None
    fault_address: str | None
    faults: Faults
    killed: list[int]
    elapsed_ns: int
    clock_ns: int
    events: Span | None
    seq: int


def create_app() -> FastAPI:
    """One POST route: touch's request model in, the answer's model out."""
    app = FastAPI()

    async def touch(sid: str, pid: int, body: Any) -> Any:
        return Answer(
            result={"touched": 1}, errno=None, signal=None, fault_address=None, faults=Faults(minor=0, major=0), killed=[],
            elapsed_ns=100, clock_ns=123456789, events=None, seq=42,
        )

    touch.__annotations__ = {"sid": str, "pid": int, "body": TouchBody, "return": Answer}
    app.add_api_route(PATH, touch, methods=["POST"], response_model=Answer)
    return app


if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
