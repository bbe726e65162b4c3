"""The base of the one-request path: a bare FastAPI route with the service's own request model and the answer's shape, doing no work.

    python -m benchmarks.bare PORT

It gives one fixed, valid answer to the same request at the same path, so the difference to the service is the service's. A websocket at `/` sends
`messages` messages of `batch` events of `size` bytes, without a framework.
"""
from __future__ import annotations

import sys
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from app.schemas.calls import BODIES, Batch

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


class Results(BaseModel):
    """What a batch answers."""

    results: list[Answer]
    requested: int
    completed: int
    clock_ns: int
    seq: int


ANSWER = Answer(
    result={"touched": 1}, errno=None, signal=None, fault_address=None, faults=Faults(minor=0, major=0), killed=[],
    elapsed_ns=100, clock_ns=123456789, events=None, seq=42,
)


async def stream(scope: Any, receive: Any, send: Any) -> None:
    """The websocket."""
    query = {name: int(value[0]) for name, value in parse_qs(scope["query_string"].decode()).items()}
    event = '{"x":"' + "y" * (query["size"] - 8) + '"}'
    text = event if query["batch"] == 1 else "[" + ",".join([event] * query["batch"]) + "]"
    await receive()
    await send({"type": "websocket.accept"})
    for _ in range(query["messages"]):
        await send({"type": "websocket.send", "text": text})
    await receive()


def create_app() -> FastAPI:
    """One POST route: touch's request model in, the answer's model out."""
    app = FastAPI()

    async def touch(sid: str, pid: int, body: Any) -> Any:
        return ANSWER

    async def batch(sid: str, body: Batch) -> Results:
        return Results(results=[ANSWER] * len(body.ops), requested=len(body.ops), completed=len(body.ops), clock_ns=123456789, seq=42)

    touch.__annotations__ = {"sid": str, "pid": int, "body": TouchBody, "return": Answer}
    app.add_api_route(PATH, touch, methods=["POST"], response_model=Answer)
    app.add_api_route("/v1/sessions/{sid}/batch", batch, methods=["POST"], response_model=Results)
    return app


def with_stream(app: FastAPI) -> Any:
    """The app, and the websocket beside it."""

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (stream if scope["type"] == "websocket" else app)(scope, receive, send)

    return both


if __name__ == "__main__":
    uvicorn.run(with_stream(create_app()), host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning", ws="websockets-sansio",
                ws_per_message_deflate=False)
