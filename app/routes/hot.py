"""The hot routes: a process's call, and a batch. What a class of students sends in an hour is nearly all of this kind.

Of the 105 µs that a FastAPI route costs before it does anything, two thirds are the framework's: a scan of the routes, a Request, exit stacks,
the body through `json` into a model and the answer through another. So these two stand behind the same layers as every route (`app.main`), but
in place of the framework: the path is matched once, the body goes from its bytes into the prebuilt model, the answer from plain values
into bytes. They are in the table of routes like all others, and are documented from the table of calls.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

import orjson
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.errors import require_json
from app.host.batches import batch
from app.host.session import Session
from app.identity.guard import admit
from app.identity.table import ROWS
from app.schemas.calls import Op, parse_batch, parse_body, parse_pid, process_call

CALL_PATH: Final = "/v1/sessions/{sid}/processes/{pid}/{call}"
BATCH_PATH: Final = "/v1/sessions/{sid}/batch"
_PATHS: Final = re.compile(r"/v1/sessions/(?P<sid>[^/]+)/(?:batch|processes/(?P<pid>[^/]+)/(?P<call>[^/]+))")


class Sent(NamedTuple):
    """What a request carries."""

    path: dict[str, str]
    body: bytes
    content_type: str
    if_match: str | None


LARGE: Final = 32 << 10  # bytes of a batch that are read in a thread: about a millisecond
Answer = Callable[[Session, Sent], Awaitable[bytes]]


class Endpoint:
    """An ASGI app that answers one of the routes.

    Parameters
    ----------
    path : str
        Its template.
    answer : callable
        From the session and what was sent to the JSON that is answered.
    """

    admits: Final = True  # it calls `admit` before anything else

    def __init__(self, path: str, answer: Answer) -> None:
        self.path, self.row, self._answer = path, ROWS["POST", path], answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, which its layers have let through."""
        scope["template"] = self.path
        session = await admit(scope, self.row)
        assert session is not None
        body = await _body(receive)
        if body is None:
            return
        kind, if_match = "", None
        for name, value in scope["headers"]:
            if name == b"content-type":
                kind = value.decode("latin-1")
            elif name == b"if-match":
                if_match = value.decode("latin-1")
        data = await self._answer(session, Sent(scope["path_params"], body, kind, if_match))
        headers = [(b"content-length", b"%d" % len(data)), (b"content-type", b"application/json"), (b"etag", session.etag.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when the client left before it had sent it."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return bytes(message["body"])
    parts = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    return None


async def _call(session: Session, sent: Sent) -> bytes:
    """Carry out one system call of one process."""
    name, pid = sent.path["call"], parse_pid(sent.path["pid"])
    process_call(name)
    if sent.body:
        require_json(sent.content_type)
    return orjson.dumps(await session.call(Op(name, pid, parse_body(name, sent.body)), sent.if_match))


async def _batch(session: Session, sent: Sent) -> bytes:
    """Carry out many operations in order; each result is what its own route would answer."""
    require_json(sent.content_type)
    read = partial(parse_batch, sent.body, session.settings.max_batch)
    ops, stop = await session.in_thread(read) if len(sent.body) > LARGE else read()
    results = await batch(session, ops, stop, sent.if_match)
    state = {"requested": len(ops), "completed": len(results), "clock_ns": session.clock_ns, "seq": session.seq}
    return b'{"results":[%b],%b' % (b",".join(results), orjson.dumps(state)[1:])


CALL: Final = Endpoint(CALL_PATH, _call)
BATCH: Final = Endpoint(BATCH_PATH, _batch)
ROUTES: Final = [Route(one.path, one, methods=["POST"], include_in_schema=False) for one in (CALL, BATCH)]


def matches(scope: Scope) -> bool:
    """Whether a request is for one of the hot routes; its path parameters are in the scope then."""
    if scope["type"] != "http" or scope["method"] != "POST" or (found := _PATHS.fullmatch(scope["path"])) is None:
        return False
    scope["path_params"] = found.groupdict()
    return True


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that `matches`."""
    await (BATCH if scope["path_params"]["call"] is None else CALL)(scope, receive, send)
