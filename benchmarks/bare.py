"""The base of the one-request path: a bare FastAPI route with the service's own body models, doing no work.

    python -m benchmarks.bare PORT

It answers one fixed, valid answer to the same request at the same path, so the difference to the service is the service's.
"""
from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

PATH = "/v1/sessions/{sid}/processes/{pid}/touch"
ANSWER: dict[str, Any] = {
    "result": {"touched": 1}, "errno": None, "signal": None, "fault_address": None, "faults": {"minor": 0, "major": 0},
    "killed": [], "elapsed_ns": 100, "clock_ns": 123456789, "events": None, "seq": 42,
}


def create_app() -> FastAPI:
    """One POST route: touch's request model in, the answer model out."""
    from benchmarks.models import Answer, TouchBody

    app = FastAPI()

    async def touch(sid: str, pid: int, body: TouchBody) -> Answer:  # type: ignore[valid-type]
        return Answer(**ANSWER)

    touch.__annotations__.update(body=TouchBody, **{"return": Answer})
    app.add_api_route(PATH, touch, methods=["POST"], response_model=Answer)
    return app


if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
