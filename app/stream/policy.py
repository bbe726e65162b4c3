"""The websocket of a program that is the policy (`host.policy_client` says how it is asked).

The service sends
    {"type": "hello", "fallback": "fifo", "budget_ns": 500000000}
    {"type": "isolate", "id": 7, "node": 0, "cgroup": "/t", "want": 32, "kinds": ["anon", "file"],
     "added": {"pfn": [...], "kind": [...], "cgroup": [...], "node": [...]}, "removed": [...], "written": [...], "used": [...]}
    {"type": "late", "id": 7}                          the answer came after the budget: the fallback has chosen
    {"type": "score", ...}                             asked for by {"type": "score"}
and takes
    {"type": "take", "id": 7, "pages": [frame, ...]}   1 to `want` frames on the lists of that cgroup and node, the first to go first
    {"type": "score"}
Anything else closes with 4400; 4401 says that the program's token is good no more, 1000 that the session is over, 1012 that the service restarts.
When the program leaves, the fallback is in force.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.deps import PROTOCOL, offered_protocols
from app.errors import Problem, from_validation
from app.host import policy
from app.host.policy_client import PolicyClient
from app.host.session import Session
from app.identity.gate import Watch
from app.stream.websocket import CLOSE_OF, close, ending

BAD_MESSAGE: Final = 'send {"type": "take", "id": n, "pages": [frame, ...]} or {"type": "score"}'


class Take(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["take"]
    id: Annotated[int, Field(ge=1, strict=True)]
    pages: list[Annotated[int, Field(strict=True, ge=0, le=(1 << 40))]] = Field(max_length=4096)


class AskScore(BaseModel):
    """How well is it doing?"""

    model_config = ConfigDict(extra="forbid")

    type: Literal["score"]


MESSAGE: Final[TypeAdapter[Take | AskScore]] = TypeAdapter(Annotated[Take | AskScore, Field(discriminator="type")])


async def serve_policy(websocket: WebSocket, session: Session, watch: Watch, fallback: str, budget_ns: int) -> None:
    """Let the client be the session's policy until it leaves, may not be it any more, or the session is over."""
    await websocket.accept(PROTOCOL if PROTOCOL in offered_protocols(websocket) else None)
    client, timeout = PolicyClient(asyncio.get_running_loop(), budget_ns / 10**9), session.settings.heartbeat
    try:
        await policy.attach(session, client, fallback)
    except Problem as problem:
        await close(websocket, 4409, problem.detail, timeout)
        return
    hello = {"type": "hello", "fallback": fallback, "budget_ns": budget_ns}
    talking = asyncio.create_task(_answers(websocket, session, client, hello))
    waits: tuple[Coroutine[Any, Any, Any], ...] = (_questions(websocket, client), watch.ended.wait(), session.ring.over.wait())
    others = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait({talking, *others}, return_when=asyncio.FIRST_COMPLETED)
        client.leave()
        await _say_goodbye(websocket, session, watch, talking, timeout)
    finally:
        client.leave()
        for task in (talking, *others):
            task.cancel()
        await asyncio.gather(talking, *others, return_exceptions=True)
        await policy.detach(session, client, fallback)


async def _say_goodbye(websocket: WebSocket, session: Session, watch: Watch, talking: asyncio.Task[None], timeout: float) -> None:
    """Close with the reason why the program is the policy no more."""
    if talking.done() and not talking.cancelled():
        error = talking.exception()
        if isinstance(error, _Refused):
            await close(websocket, 4400, str(error), timeout)
        elif isinstance(error, Problem):
            await close(websocket, CLOSE_OF.get(error.status, 4409), error.detail, timeout)
        elif error is not None and not isinstance(error, WebSocketDisconnect):
            raise error
    elif watch.loss is not None:
        await close(websocket, 4401, watch.reason, timeout)
    elif session.ring.closed:
        await close(websocket, *ending(session), timeout)


class _Refused(Exception):
    """The client sent what is no message."""


async def _send(websocket: WebSocket, message: object) -> None:
    await websocket.send_text(orjson.dumps(message).decode())


async def _questions(websocket: WebSocket, client: PolicyClient) -> None:
    while True:
        await _send(websocket, await client.questions.get())


async def _answers(websocket: WebSocket, session: Session, client: PolicyClient, hello: Mapping[str, Any]) -> None:
    await _send(websocket, hello)
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        try:
            said = MESSAGE.validate_json(message.get("text") or b"")
        except ValidationError as error:
            raise _Refused(f"{from_validation(error).detail}: {BAD_MESSAGE}") from None
        if isinstance(said, AskScore):
            await _send(websocket, await policy.compare(session, client))
        elif not client.answer(said.id, said.pages):
            await _send(websocket, {"type": "late", "id": said.id})
