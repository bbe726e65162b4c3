"""Keys to one session: tickets that open a stream once, and observers' links."""

import time

from fastapi import APIRouter
from starlette.responses import Response

from app.deps import TheCaller, TheGate, TheSession
from app.errors import Problem
from app.identity import tokens
from app.identity.guard import GuardedRoute
from app.routes import reply
from app.routes.identity import new_token, show_token
from app.schemas import docs
from app.schemas.identity import ObserverCreate

router = APIRouter(prefix="/v1/sessions/{sid}", tags=["identity"], route_class=GuardedRoute)
MOST_OBSERVERS = 32


@router.post("/tickets", status_code=201, responses=docs.created("Ticket"))
async def create_ticket(session: TheSession, gate: TheGate, caller: TheCaller) -> Response:
    """A ticket with the caller's own rights: `…/events?ticket=…` opens one stream, once, within seconds. For browsers, which set no headers there."""
    ticket = await gate.make_ticket(caller, session.id)
    return reply.json({"ticket": ticket, "expires_in": gate.settings.ticket_seconds}, session, 201)


@router.post("/observers", status_code=201, responses=docs.created("Observer"))
async def create_observer(body: ObserverCreate, session: TheSession, gate: TheGate, caller: TheCaller) -> Response:
    """A link for class: reads this session, without a header (`?token=…`). The answer holds it; it is shown once."""
    live = [token for token in await gate.store.tokens(session.id) if token.revoked is None]
    if len(live) >= MOST_OBSERVERS:
        raise Problem(409, "too-many-observers", f"a session has at most {MOST_OBSERVERS} observers' links: delete one")
    subject = f"observer of {session.id}"
    secret, token = new_token(tokens.OBSERVER, subject, caller, body.expires, body.label, session.course, session.id)
    await gate.store.add_token(token)
    link = f"/v1/sessions/{session.id}/events?token={secret}"
    return reply.json(show_token(token) | {"token": secret, "events": link}, session, 201, reply.location(session, f"/observers/{token.id}"))


@router.get("/observers", responses=docs.ok("TokenList"))
async def list_observers(session: TheSession, gate: TheGate) -> Response:
    """The observers' links of this session, without their secrets."""
    return reply.json({"items": [show_token(token) for token in await gate.store.tokens(session.id)], "next_page_token": None}, session)


@router.delete("/observers/{id}", status_code=204, response_class=Response, responses=docs.NOTHING)
async def revoke_observer(id: str, session: TheSession, gate: TheGate) -> Response:
    """Revoke an observer's link; its streams end."""
    token = await gate.store.token(id)
    if token is None or token.session != session.id or not await gate.store.revoke(id, time.time()):
        raise Problem(404, "no-such-token", f"there is no observer's link {id[:60]!r} of this session")
    gate.forget()
    return Response(status_code=204, headers={"ETag": session.etag})
