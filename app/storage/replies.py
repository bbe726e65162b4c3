"""The first answers to requests that carried an Idempotency-Key, given again when the request is."""

from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, delete, insert, select

from app.storage.schema import replies


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer as it was sent; `fingerprint` tells whether a request is the same one."""

    fingerprint: bytes
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def get(conn: Connection, key: bytes) -> Reply | None:
    """The answer kept under a key."""
    row = conn.execute(select(replies).where(replies.c.key == key)).first()
    if row is None:
        return None
    headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(row.headers))
    return Reply(row.fingerprint, row.status, headers, row.body)


def put(conn: Connection, key: bytes, reply: Reply, now: float) -> None:
    """Keep an answer; there is none under that key yet."""
    headers = orjson.dumps([(name.decode("latin-1"), value.decode("latin-1")) for name, value in reply.headers])
    conn.execute(insert(replies).values(key=key, fingerprint=reply.fingerprint, status=reply.status, headers=headers, body=reply.body, created=now))


def prune(conn: Connection, before: float) -> None:
    """Forget answers from before a time."""
    conn.execute(delete(replies).where(replies.c.created < before))
