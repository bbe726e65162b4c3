"""`pagewalk token`: issue, list and revoke tokens, in the service's database or over HTTP.

The database is written directly, so that the first administrator needs no token; a running service notices within a second.
"""

import argparse
import asyncio
import json
import secrets
import time
from typing import Any

import httpx2

from app.identity import tokens
from app.schemas.kinds import parse_duration
from app.schemas.names import EVERYWHERE, course_id, subject
from app.settings import Settings
from app.storage import StorageError, Writer, open_store
from app.storage.identity import CourseRecord, IdentityStore, MemberRecord, TokenRecord, adopt


def main(args: argparse.Namespace, settings: Settings) -> str:
    """Carry out the command; returns what to print. Raises ValueError in plain words."""
    if args.action != "list" and not args.name:
        raise ValueError("issue needs a subject, revoke a token's id")
    if args.url:
        return _over_http(args)
    if settings.database_url == "memory:":
        raise ValueError("where? give --data DIR (or PAGEWALK_DATA), --database URL (or PAGEWALK_DATABASE), or --url of a running service")
    try:
        database = open_store(settings.database_url).database
        if settings.data is not None:
            adopt(database, settings.data)
        writer = Writer(database)
        try:
            return asyncio.run(_ACTIONS[args.action](IdentityStore(writer), args))
        finally:
            writer.close()
            database.close()
    except StorageError as error:
        raise ValueError(str(error)) from error


async def _issue(store: IdentityStore, args: argparse.Namespace) -> str:
    subject(args.name)
    if args.course is not None:
        course_id(args.course)
    if (args.role == "admin") == (args.course is not None) and args.role is not None:
        raise ValueError("an administrator is above courses: no --course; every other role is in one: --course")
    if args.role is not None:
        if args.course is not None:
            await store.add_course(CourseRecord(args.course, None, time.time()))
        await store.set_member(MemberRecord(args.course or EVERYWHERE, args.name, args.role))
    elif not (await store.roles([args.name]))[args.name]:
        raise ValueError(f"{args.name} has no role yet: say --role")
    secret, now = tokens.make(tokens.USER), time.time()
    expires = None if args.expires is None else now + parse_duration(args.expires) / 10**9
    id = f"t_{secrets.token_urlsafe(9)}"
    by = "pagewalk token"
    record = TokenRecord(id, tokens.digest(secret), args.name, args.course, None, args.label, by, created=now, expires=expires)
    await store.add_token(record)
    return secret


async def _list(store: IdentityStore, args: argparse.Namespace) -> str:
    return "\n".join(_line(token.id, token.subject, token.course, token.revoked, token.label) for token in await store.tokens())


def _line(id: str, subject: str, course: str | None, revoked: object, label: str | None) -> str:
    return f"{id}  {subject}  {course or '-'}  {'revoked' if revoked else 'good'}  {label or ''}".rstrip()


async def _revoke(store: IdentityStore, args: argparse.Namespace) -> str:
    if not await store.revoke(args.name, time.time()):
        raise ValueError(f"there is no token {args.name!r} that is still good: pagewalk token list")
    return f"revoked {args.name}"


_ACTIONS = {"issue": _issue, "list": _list, "revoke": _revoke}


def _over_http(args: argparse.Namespace) -> str:
    headers = {"Authorization": f"Bearer {args.token}"} if args.token else {}
    with httpx2.Client(base_url=args.url.rstrip("/"), headers=headers, timeout=60) as http:
        if args.action == "issue":
            given = {"subject": args.name, "role": args.role, "course": args.course, "label": args.label, "expires": args.expires}
            body = {key: value for key, value in given.items() if value is not None}
            return str(_answer(http.post("/v1/tokens", json=body))["token"])
        if args.action == "revoke":
            _answer(http.delete(f"/v1/tokens/{args.name}"))
            return f"revoked {args.name}"
        rows = _answer(http.get("/v1/tokens"))["items"]
    return "\n".join(_line(row["id"], row["subject"], row["course"], row["revoked"], row["label"]) for row in rows)


def _answer(answer: httpx2.Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.content or b"{}")
    if answer.status_code >= 400:
        raise ValueError(str(found.get("detail", answer.status_code)))
    return found
