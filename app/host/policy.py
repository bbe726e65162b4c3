"""A program that is a session's policy: it takes over, it leaves, it is compared."""

from typing import Any

from app.errors import Problem
from app.host.outcome import carry_out
from app.host.policy_client import PolicyClient, score
from app.host.session import Session
from app.schemas.calls import Op


def _policy(policy: str, fallback: str) -> Op:
    """The operation that changes the policy."""
    return Op("reclaim_policy", None, {"policy": policy, "fallback": fallback})


async def attach(session: Session, client: PolicyClient, fallback: str) -> None:
    """Let a program choose the pages that reclaim takes. Raises 409 when there is one already."""
    async with session.turn:
        session.require_ready(1)
        if session.client is not None:
            raise Problem(409, "policy-taken", "another program is this session's policy already")
        kernel = session.kernel
        blob = await session.run("snapshot", kernel.snapshot, True)
        client.start, client.idle = (session.seq, blob), session.threads.idle
        session.commit(await session.run("reclaim_policy", lambda: carry_out(kernel, _policy("client", fallback)), True))
        session.client = client


async def detach(session: Session, client: PolicyClient, fallback: str) -> None:
    """The program has left: the fallback is the policy."""
    async with session.turn:
        if session.client is not client:
            return
        session.client = None
        if not session.closed and session.frozen is None and session.kernel.panicked is None:
            session.commit(await session.run("reclaim_policy", lambda: carry_out(session.kernel, _policy(fallback, fallback)), True))


async def compare(session: Session, client: PolicyClient) -> dict[str, Any]:
    """The program beside the built-in policies, on the operations since it took over."""
    async with session.turn:
        session.require_sound()
        ops = [entry.op for entry in await session.history.committed(client.start[0])]
        return await session.run("score", lambda: score(client, session.kernel, ops), True)
