"""A course on a service that asks for tokens: its people, a stranger's course beside it, and a session of one student."""

from typing import Any

import httpx2
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.api.client import Service

OPERATOR = {"Authorization": "Bearer secret-of-the-operator"}
REFUSALS = ("unauthorized", "forbidden", "no-such-session", "no-such-course")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Course:
    """Everyone who may come by, by name, as the headers that he sends."""

    def __init__(self, service: Service) -> None:
        self.service, self.http = service, service.http
        self.who: dict[str, dict[str, str]] = {"nobody": {}, "operator": OPERATOR, "a forger": bearer("pw_u_" + "x" * 32)}
        for course in ("os101", "db202"):
            assert self.http.post("/v1/courses", json={"id": course}, headers=OPERATOR).status_code == 201
        self.who["admin"] = bearer(self.issue("root", "admin", None))
        for name, role, course in (
            ("instructor", "instructor", "os101"), ("grader", "grader", "os101"), ("student", "student", "os101"), ("neighbour", "student", "os101"),
            ("instructor elsewhere", "instructor", "db202"), ("grader elsewhere", "grader", "db202"), ("student elsewhere", "student", "db202"),
        ):  # fmt: skip
            self.who[name] = bearer(self.issue(name, role, course))
        self.record = self.session("student")
        self.sid = self.record["id"]
        self.own_of_grader = self.session("grader")["id"]
        self.who["its key"] = bearer(self.record["token"])
        self.who["another's key"] = bearer(self.session("neighbour")["token"])
        self.who["its observer"] = bearer(self.observer(self.sid))
        other = self.session("neighbour")["id"]
        self.who["another's observer"] = bearer(self.observer(other))
        self.ticket = self.send("POST", f"/v1/sessions/{other}/tickets", "neighbour").json()["ticket"]

    def issue(self, subject: str, role: str | None, course: str | None, by: str | None = None, **body: Any) -> str:
        given = {key: value for key, value in {"subject": subject, "role": role, "course": course, **body}.items() if value is not None}
        answer = self.http.post("/v1/tokens", json=given, headers=self.who[by] if by else OPERATOR)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def session(self, name: str, **body: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/sessions", json={"machine": {"memory": "64M"}, **body}, headers=self.who[name])
        assert answer.status_code == 201, answer.text
        record: dict[str, Any] = answer.json()
        return record

    def observer(self, sid: str) -> str:
        answer = self.http.post(f"/v1/sessions/{sid}/observers", json={}, headers=OPERATOR)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def send(self, method: str, path: str, name: str, **options: Any) -> httpx2.Response:
        headers = {**options.pop("headers", {}), **self.who[name]}
        return self.http.request(method, path, headers=headers, **options)

    def verdict(self, method: str, path: str, name: str, **options: Any) -> str:
        """`in`, or the kind of refusal, of a request or of a websocket's handshake."""
        if method == "WEBSOCKET":
            return self.handshake(path, self.who[name])
        return verdict(self.send(method, path, name, **options))

    def handshake(self, path: str, headers: dict[str, str]) -> str:
        try:
            with connect(self.service.url.replace("http", "ws") + path, additional_headers=headers):
                return "in"
        except InvalidStatus as refused:
            return kind(refused.response.body or b"")


def kind(body: bytes) -> str:
    """The kind of a problem document, `in` for what is none of the refusals."""
    return next((slug for slug in REFUSALS if f"urn:pagewalk:problem:{slug}\"".encode() in body), "in")


def verdict(answer: httpx2.Response) -> str:
    if answer.request.method == "HEAD":  # says it by its status only
        return {401: "unauthorized", 403: "forbidden", 404: "no-such-session"}.get(answer.status_code, "in")
    return kind(answer.content) if answer.status_code >= 400 else "in"
