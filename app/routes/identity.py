"""Tokens, courses and their members: who may come in, and as what."""

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from starlette.responses import Response

from app.deps import TheCaller, TheGate, TheRegistry
from app.errors import Problem
from app.identity import tokens
from app.identity.gate import Gate
from app.identity.guard import GuardedRoute
from app.identity.roles import Caller
from app.identity.table import ROWS
from app.routes import reply
from app.schemas import docs
from app.schemas.identity import CourseCreate, MemberPut, TokenCreate
from app.schemas.names import EVERYWHERE, OPERATOR, SUBJECT, SUBJECT_LENGTH
from app.storage.identity import CourseRecord, MemberRecord, TokenRecord

router = APIRouter(prefix="/v1", tags=["identity"], route_class=GuardedRoute)
MAY_ISSUE: Final = ROWS["POST", "/v1/tokens"]
CoursePath = Annotated[str, Path(max_length=60)]
SubjectPath = Annotated[str, Path(max_length=SUBJECT_LENGTH, pattern=SUBJECT)]


def when(seconds: float | None) -> str | None:
    """A moment as a client reads it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def show_token(token: TokenRecord) -> dict[str, Any]:
    """A token without its secret."""
    return {
        "id": token.id,
        "subject": token.subject,
        "course": token.course,
        "session": token.session,
        "label": token.label,
        "issued_by": token.issued_by,
        "created": when(token.created),
        "expires": when(token.expires),
        "revoked": when(token.revoked),
        "used": when(token.used),
    }


def new_token(
    prefix: str, subject: str, caller: Caller, ttl_ns: int | None, label: str | None, course: str | None, session: str | None = None
) -> tuple[str, TokenRecord]:
    """A secret, and what is kept of it."""
    secret, now = tokens.make(prefix), time.time()
    expires = None if ttl_ns is None else now + ttl_ns / 10**9
    by = caller.subject or caller.id
    id = f"t_{secrets.token_urlsafe(9)}"
    return secret, TokenRecord(id, tokens.digest(secret), subject, course, session, label, by, created=now, expires=expires)


def _bad(member: str, detail: str) -> Problem:
    return Problem(422, "malformed-request", f"{member}: {detail}", errors=[{"detail": detail, "pointer": f"#/{member}"}])


def _holds(caller: Caller, course: str | None, method: str, path: str) -> bool:
    """Whether a row of the table lets the caller at a course's things, beyond his own."""
    if caller.admin:
        return True
    return course is not None and ROWS[method, path].reach(caller.roles.get(course, "anyone")) == "course"


async def require_course(gate: Gate, course: str) -> None:
    """Raises 404 for what is no course."""
    if course not in {found.id for found in await gate.store.courses()}:
        raise Problem(404, "no-such-course", f"there is no course {course[:60]!r}: POST /v1/courses founds one")


@router.get("/me", responses=docs.ok("Me"))
async def read_me(caller: TheCaller) -> Response:
    """Who the caller is, and what in which course."""
    return reply.json({"subject": caller.subject, "admin": caller.admin, "roles": dict(caller.roles), "expires": when(caller.expires)})


@router.post("/tokens", status_code=201, responses=docs.created("IssuedToken"))
async def issue_token(body: TokenCreate, gate: TheGate, caller: TheCaller) -> Response:
    """Issue a token. The answer holds it; it is shown once. An instructor's are good for his course only."""
    course = body.course
    if not caller.admin and course is None:
        mine = [name for name, role in caller.roles.items() if MAY_ISSUE.reach(role) != "-"]
        course = mine[0] if len(mine) == 1 else None
    await _require_right(body, course, gate, caller)
    if body.role is not None:
        await gate.store.set_member(MemberRecord(EVERYWHERE if body.role == "admin" else course or "", body.subject, body.role))
    secret, token = new_token(tokens.USER, body.subject, caller, body.expires, body.label, course)
    await gate.store.add_token(token)
    gate.forget()
    return reply.json(show_token(token) | {"token": secret}, status=201, headers={"Location": f"/v1/tokens/{token.id}"})


async def _require_right(body: TokenCreate, course: str | None, gate: Gate, caller: Caller) -> None:
    """Raises 403 for more than the caller has himself, 422 for what makes no sense, 404 for a course that is none."""
    if not _holds(caller, course, "POST", "/v1/tokens"):
        raise Problem(403, "forbidden", "an instructor issues tokens for his own course only: name it in `course`")
    if body.role == "admin":
        if not caller.admin:
            raise Problem(403, "forbidden", "only an administrator makes administrators")
        if course is not None:
            raise _bad("course", "an administrator is above courses: leave it out")
    elif body.role is not None and course is None:
        raise _bad("course", f"a {body.role} is one of a course: name it")
    if course is not None:
        await require_course(gate, course)
    roles = (await gate.store.roles([body.subject]))[body.subject]
    if body.role is None and not (roles if course is None else course in roles):
        raise _bad("role", f"{body.subject} has no role {'yet' if course is None else f'in {course}'}: say which")


def _may_see(token: TokenRecord, caller: Caller, method: str, path: str) -> bool:
    own = token.subject == caller.subject and caller.course in (None, token.course)
    return own or _holds(caller, token.course, method, path)


@router.get("/tokens", responses=docs.ok("TokenList"))
async def list_tokens(gate: TheGate, caller: TheCaller) -> Response:
    """The tokens that the caller may see, without their secrets: an instructor those of his course, everyone his own."""
    items = [show_token(token) for token in await gate.store.tokens() if _may_see(token, caller, "GET", "/v1/tokens")]
    return reply.json({"items": items, "next_page_token": None})


@router.delete("/tokens/{id}", status_code=204, response_class=Response, responses=docs.NOTHING)
async def revoke_token(id: str, gate: TheGate, caller: TheCaller) -> Response:
    """Revoke a token: within a second no process lets it in, and its streams end."""
    token = await gate.store.token(id)
    if token is None or token.session is not None or not _may_see(token, caller, "DELETE", "/v1/tokens/{id}"):
        raise Problem(404, "no-such-token", f"there is no token {id[:60]!r}: GET /v1/tokens lists yours")
    await gate.store.revoke(id, time.time())
    gate.forget()
    return Response(status_code=204)


# ---- courses


@router.post("/courses", status_code=201, responses=docs.created("Course"))
async def create_course(body: CourseCreate, gate: TheGate) -> Response:
    """Found a course."""
    course = CourseRecord(body.id, body.name, time.time())
    if not await gate.store.add_course(course):
        raise Problem(409, "name-taken", f"there is a course {body.id!r} already")
    return reply.json(_show_course(course, "admin"), status=201, headers={"Location": f"/v1/courses/{body.id}"})


def _show_course(course: CourseRecord, role: str | None) -> dict[str, Any]:
    return {"id": course.id, "name": course.name, "created": when(course.created), "role": role}


@router.get("/courses", responses=docs.ok("CourseList"))
async def list_courses(gate: TheGate, caller: TheCaller) -> Response:
    """The caller's courses, and what he is in each; an administrator's are all."""
    roles: Mapping[str, str] = caller.roles
    found = [course for course in await gate.store.courses() if caller.admin or course.id in roles]
    items = [_show_course(course, "admin" if caller.admin else roles[course.id]) for course in found]
    return reply.json({"items": items, "next_page_token": None})


@router.delete("/courses/{course}", status_code=204, response_class=Response, responses=docs.NOTHING)
async def delete_course(course: CoursePath, gate: TheGate, registry: TheRegistry) -> Response:
    """Forget a course that has no sessions, with its members and its tokens."""
    await require_course(gate, course)
    if await registry.in_course(course):
        raise Problem(409, "course-in-use", f"{course} has sessions: delete them first")
    await gate.store.drop_course(course)
    gate.forget()
    return Response(status_code=204)


@router.get("/courses/{course}/members", responses=docs.ok("MemberList"))
async def list_members(course: CoursePath, gate: TheGate) -> Response:
    """The members of a course."""
    await require_course(gate, course)
    items = [{"subject": member.subject, "role": member.role} for member in await gate.store.members(course)]
    return reply.json({"items": items, "next_page_token": None})


@router.put("/courses/{course}/members/{subject}", responses=docs.ok("Member"))
async def put_member(course: CoursePath, subject: SubjectPath, body: MemberPut, gate: TheGate) -> Response:
    """Give a subject a role in a course, in the place of the one that he had."""
    await require_course(gate, course)
    if subject == OPERATOR:
        raise _bad("subject", f"{OPERATOR!r} is who sends PAGEWALK_TOKEN: nobody else may be called so")
    await gate.store.set_member(MemberRecord(course, subject, body.role))
    gate.forget()
    return reply.json({"subject": subject, "role": body.role})


@router.delete("/courses/{course}/members/{subject}", status_code=204, response_class=Response, responses=docs.NOTHING)
async def delete_member(course: CoursePath, subject: SubjectPath, gate: TheGate) -> Response:
    """Take a subject out of a course; his tokens open nothing there any more."""
    await require_course(gate, course)
    if not await gate.store.drop_member(course, subject):
        raise Problem(404, "no-such-member", f"{subject[:60]} is not in {course}")
    gate.forget()
    return Response(status_code=204)
