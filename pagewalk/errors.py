"""What goes wrong between a program and the service: it refuses, or it cannot be reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2


class ProblemError(Exception):
    """The service refused a request; nothing has changed.

    Attributes
    ----------
    status : int
        The HTTP status.
    type, title, detail : str
        Of the problem document (RFC 9457).
    errno : str or None
        The kernel's reason, where there is one.
    errors : list
        What is wrong with the body: `{"detail", "pointer"}`.
    request_id : str or None
        Names the request in the service's log.
    document : dict
        The whole document.
    """

    def __init__(self, status: int, document: Mapping[str, Any], request_id: str | None = None) -> None:
        self.status, self.document = status, dict(document)
        self.type = str(document.get("type", "about:blank"))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        self.errno: str | None = document.get("errno")
        self.errors: list[dict[str, Any]] = list(document.get("errors") or [])
        self.request_id = request_id or document.get("request_id")
        super().__init__(f"{status}: {self.detail or self.title}")

    @classmethod
    def of(cls, response: httpx2.Response) -> ProblemError:
        """The problem that an HTTP answer tells."""
        try:
            document = response.json()
        except ValueError:
            document = {"title": response.reason_phrase, "detail": response.text[:500]}
        if not isinstance(document, dict):
            document = {"title": response.reason_phrase, "detail": str(document)[:500]}
        return cls(response.status_code, document, response.headers.get("x-request-id"))


class Unreachable(Exception):
    """The service did not answer, and it was asked as often as it may be."""
