"""`pagewalk token` on a data folder and against a running service."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.cli import main
from tests.api.client import running
from tests.storage import postgres


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["token", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out.strip()


@pytest.fixture(params=["data folder", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """Where a service keeps its callers: the option of the command, and its value."""
    monkeypatch.delenv("PAGEWALK_DATABASE")
    if request.param == "data folder":
        yield "data", tmp_path
        return
    programs = postgres.programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs (initdb, postgres) are not installed: apt-get install postgresql")
    with postgres.server(programs) as url:
        yield "database", url


def test_the_first_administrator_and_a_revocation_from_outside(place: tuple[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The service learns within a second of what another process wrote into its database."""
    option, value = place
    data = (f"--{option}", str(value))
    token = said(capsys, "issue", "root", "--role", "admin", *data)
    with running(require_tokens=True, **{option: value}) as service:
        headers = {"Authorization": f"Bearer {token}"}
        assert service.http.get("/v1/me", headers=headers).json()["admin"] is True
        id = said(capsys, "list", *data).split()[0]
        said(capsys, "revoke", id, *data)
        until = time.monotonic() + 10
        while service.http.get("/v1/me", headers=headers).status_code != 401:
            assert time.monotonic() < until
        assert "revoked" in said(capsys, "list", *data)


def test_over_http(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(token=SecretStr("op")) as service:
        http = ("--url", service.url, "--token", "op")
        service.http.post("/v1/courses", json={"id": "os101"}, headers={"Authorization": "Bearer op"})
        token = said(capsys, "issue", "ada", "--role", "student", "--course", "os101", *http)
        assert service.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).json()["roles"] == {"os101": "student"}
        said(capsys, "revoke", said(capsys, "list", *http).split()[0], *http)
        assert service.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 401


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("issue",), "needs a subject"),
        (("issue", "ada", "--role", "student"), "--course"),
        (("issue", "ada"), "say --role"),
        (("issue", "operator", "--role", "admin"), "PAGEWALK_TOKEN"),
        (("issue", "a/b", "--role", "admin"), "no name"),
        (("issue", "ada", "--role", "student", "--course", "*"), "no course"),
        (("revoke", "t_none"), "t_none"),
        (("list", "--database", "mysql://x"), "mysql"),
        (("list", "--database", "memory:"), "where?"),
    ],
)
def test_what_makes_no_sense_is_usage(words: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = () if "--database" in words else ("--database", f"sqlite:///{tmp_path}/sessions.sqlite")
    assert main(["token", *words, *place]) == 2
    err = capsys.readouterr().err
    assert "pagewalk:" in err and told in err


def test_help_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["token", "--help"])
    assert "pagewalk token issue root --role admin" in capsys.readouterr().out
