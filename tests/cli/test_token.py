"""`pagewalk token` on a data folder and against a running service."""

import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.cli import main
from tests.api.client import running


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["token", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out.strip()


def test_the_first_administrator_and_a_revocation_from_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The service learns within a second of what another process wrote into its database."""
    data = ("--data", str(tmp_path))
    token = said(capsys, "issue", "root", "--role", "admin", *data)
    with running(require_tokens=True, data=tmp_path) as service:
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


@pytest.mark.parametrize("words", [("issue",), ("issue", "ada", "--role", "student"), ("issue", "ada"), ("revoke", "t_none")])
def test_what_makes_no_sense_is_usage(words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", *words, "--data", str(tmp_path)]) == 2
    assert "pagewalk:" in capsys.readouterr().err
