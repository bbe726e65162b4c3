"""Every route and who may use it: one literal table, from which both the check and its test come.

    all     every session, or simply yes          own   his own sessions (tokens)
    course  the sessions (members, tokens)        its   the session that the key belongs to
            of his courses, and his own           –     refused

A caller who may not see a session is told that there is none (404); one who sees it and may not do this is refused (403); nobody, or a session's
key where no session is, is asked for a token (401). A route without a row here keeps the service from starting.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

COLUMNS: Final = ("admin", "instructor", "grader", "student", "session", "observer", "anyone")
REACHES: Final = frozenset({"all", "course", "own", "its", "-"})
WEBSOCKET: Final = "WEBSOCKET"


class Row(NamedTuple):
    """One route: which reach each role has there."""

    method: str
    path: str
    admin: str
    instructor: str
    grader: str
    student: str
    session: str
    observer: str
    anyone: str

    @property
    def public(self) -> bool:
        """True when nobody is asked who he is."""
        return self.anyone == "all"

    def reach(self, column: str) -> str:
        """The cell of a role."""
        cell: str = getattr(self, column)
        return cell


PUBLIC: Final = "all all    all    all all all all"
READ: Final = "  all course course own its its -"
COSTLY: Final = "all course course own its -   -"  # reading that makes the simulator work: not for a class behind one link
WRITE: Final = " all course own    own its -   -"
COPY: Final = "  all course course own its -   -"  # of what may be read; the copy is the caller's
S: Final = "/v1/sessions/{sid}"
P: Final = S + "/processes"
R: Final = S + "/fs"
F: Final = S + "/fs/{path:path}"
C: Final = "/v1/courses/{course}"

#                                                     admin instructor grader student session observer anyone
_TABLE: Final = (
    ("GET",       "/livez",                           PUBLIC),
    ("GET",       "/readyz",                          PUBLIC),
    ("GET",       "/version",                         PUBLIC),
    ("GET",       "/metrics",                         PUBLIC),
    ("GET",       "/docs",                            PUBLIC),
    ("GET",       "/openapi.json",                    PUBLIC),
    ("GET",       "/v1/programs",                     PUBLIC),
    ("GET",       "/v1/calibration",                  PUBLIC),
    ("POST",      "/v1/replay",                      "all   all        all    all     -       -        -"),

    ("POST",      "/v1/sessions",                    "all   course     course course  -       -        -"),
    ("GET",       "/v1/sessions",                    "all   course     course own     -       -        -"),
    ("GET",       S,                                  READ),
    ("PATCH",     S,                                  WRITE),
    ("DELETE",    S,                                  WRITE),
    ("GET",       S + "/clock",                       READ),
    ("POST",      S + "/clock",                       WRITE),
    ("POST",      S + "/batch",                       WRITE),
    ("GET",       S + "/journal",                     COSTLY),
    ("GET",       S + "/archive",                     COSTLY),
    ("GET",       S + "/audit",                       COSTLY),
    ("GET",       S + "/memory",                      READ),
    ("POST",      S + "/snapshots",                   WRITE),
    ("GET",       S + "/snapshots",                   READ),
    ("GET",       S + "/diff",                        COSTLY),
    ("GET",       S + "/at/{seq}/fs/{path:path}",     COSTLY),
    ("DELETE",    S + "/snapshots/{name}",            WRITE),
    ("POST",      S + "/clone",                       COPY),
    ("POST",      S + "/rewind",                      WRITE),
    ("POST",      S + "/replay",                      COSTLY),

    ("POST",      P + "/{pid}/{call}",                WRITE),
    ("POST",      P,                                  WRITE),
    ("GET",       S + "/calls",                       READ),
    ("DELETE",    S + "/calls/{id}",                  WRITE),
    ("GET",       P,                                  READ),
    ("GET",       P + "/{pid}",                       READ),
    ("GET",       P + "/{pid}/vmas",                  READ),
    ("GET",       P + "/{pid}/walk",                  READ),
    ("GET",       P + "/{pid}/tlb",                   READ),
    ("GET",       P + "/{pid}/tlb/reach",             READ),
    ("GET",       P + "/{pid}/latency",               READ),
    ("GET",       P + "/{pid}/explain/{topic}",       READ),

    ("GET",       F,                                  READ),
    ("HEAD",      F,                                  READ),
    ("PROPFIND",  F,                                  READ),
    ("OPTIONS",   F,                                  READ),
    ("PUT",       F,                                  WRITE),
    ("DELETE",    F,                                  WRITE),
    ("MKCOL",     F,                                  WRITE),
    ("COPY",      F,                                  WRITE),
    ("MOVE",      F,                                  WRITE),
    ("PROPPATCH", F,                                  WRITE),
    ("LOCK",      F,                                  WRITE),
    ("UNLOCK",    F,                                  WRITE),
    ("PROPFIND",  R,                                  READ),
    ("OPTIONS",   R,                                  READ),
    ("COPY",      R,                                  WRITE),
    ("MOVE",      R,                                  WRITE),
    ("PROPPATCH", R,                                  WRITE),
    ("LOCK",      R,                                  WRITE),
    ("UNLOCK",    R,                                  WRITE),
    ("GET",       S + "/files",                       READ),
    ("POST",      S + "/files",                       WRITE),

    ("GET",       S + "/cgroups",                     READ),
    ("POST",      S + "/cgroups",                     WRITE),
    ("GET",       S + "/cgroups/{path:path}",         READ),
    ("PATCH",     S + "/cgroups/{path:path}",         WRITE),

    ("GET",       S + "/events",                      READ),
    (WEBSOCKET,   S + "/events",                      READ),
    ("GET",       S + "/events/{id}/why",             READ),
    ("GET",       S + "/events/{id}/autopsy",         COSTLY),
    (WEBSOCKET,   S + "/policy",                      WRITE),
    ("GET",       S + "/vmstat",                      READ),
    ("POST",      S + "/vmstat",                      WRITE),
    ("GET",       S + "/oom",                         READ),

    ("POST",      S + "/tickets",                     COPY),
    ("POST",      S + "/observers",                   WRITE),
    ("GET",       S + "/observers",                   WRITE),
    ("DELETE",    S + "/observers/{id}",              WRITE),

    ("GET",       "/v1/me",                          "all   all        all    all     -       -        -"),
    ("POST",      "/v1/tokens",                      "all   course     -      -       -       -        -"),
    ("GET",       "/v1/tokens",                      "all   course     own    own     -       -        -"),
    ("DELETE",    "/v1/tokens/{id}",                 "all   course     own    own     -       -        -"),
    ("POST",      "/v1/courses",                     "all   -          -      -       -       -        -"),
    ("GET",       "/v1/courses",                     "all   course     course course  -       -        -"),
    ("DELETE",    C,                                 "all   -          -      -       -       -        -"),
    ("GET",       C + "/members",                    "all   course     course -       -       -        -"),
    ("PUT",       C + "/members/{subject}",          "all   course     -      -       -       -        -"),
    ("DELETE",    C + "/members/{subject}",          "all   course     -      -       -       -        -"),
)  # fmt: skip


def _rows() -> Mapping[tuple[str, str], Row]:
    made = [Row(method, path, *cells.split()) for method, path, cells in _TABLE]
    found = {(row.method, row.path): row for row in made}
    assert len(found) == len(made) and all(set(row[2:]) <= REACHES for row in made), "a route stands twice in the table, or a cell is no reach"
    return MappingProxyType(found)


ROWS: Final = _rows()
SEES: Final = ROWS["GET", S]  # who may know that a session exists
