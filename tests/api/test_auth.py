"""Who may do what when the service is not open."""

import base64
import json

import pytest
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.settings import Settings
from tests.api.client import Client, problem

OPERATOR = {"Authorization": "Bearer secret"}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def closed(special):
    with special(token=SecretStr("secret")) as service:
        yield service


@pytest.fixture
def mine(closed):
    return Client(closed, closed.http.post("/v1/sessions", json={}, headers=OPERATOR).json())


def test_creating_and_listing_is_the_operators(closed, mine):
    for headers in ({}, bearer("wrong"), bearer(mine.record["token"]), {"Authorization": "Basic secret"}):
        answer = closed.http.post("/v1/sessions", json={}, headers=headers)
        problem(answer, 401, "token")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        problem(closed.http.get("/v1/sessions", headers=headers), 401)
    assert closed.http.get("/v1/sessions", headers=OPERATOR).status_code == 200


def test_a_session_is_its_owners_and_the_operators(closed, mine):
    other = closed.http.post("/v1/sessions", json={}, headers=OPERATOR).json()
    paths = ["", "/processes", "/fs/proc/meminfo", "/events", "/journal", "/cgroups", "/audit", "/archive", "/snapshots", "/clock"]
    for path in paths:
        problem(mine.get(path), 401)
        problem(mine.get(path, headers=bearer(other["token"])), 404, "opens that session only")
        assert mine.get(path, headers=bearer(mine.record["token"])).status_code == 200
        assert mine.get(path, headers=OPERATOR).status_code == 200
    problem(mine.post("/processes/1/fork", {}), 401)
    assert mine.get("", headers=OPERATOR).json()["seq"] == 0


def test_a_kept_answer_is_given_to_its_owner_only(mine):
    headers = {"Idempotency-Key": "k"}
    own = headers | bearer(mine.record["token"])
    assert mine.post("/processes", {"comm": "a"}, headers=own).status_code == 201
    problem(mine.post("/processes", {"comm": "a"}, headers=headers), 401)
    assert "idempotent-replayed" in mine.post("/processes", {"comm": "a"}, headers=own).headers


def test_health_needs_no_token(closed):
    assert closed.http.get("/livez").status_code == closed.http.get("/readyz").status_code == 200


def test_browsers_bring_the_token_as_a_subprotocol(mine):
    encoded = base64.urlsafe_b64encode(mine.record["token"].encode()).decode().rstrip("=")
    protocols = [f"base64url.bearer.authorization.pagewalk.{encoded}", "pagewalk.v1"]
    with mine.websocket(subprotocols=protocols) as ws:
        assert ws.subprotocol == "pagewalk.v1"
        mine.post("/processes", {"comm": "a"}, headers=OPERATOR)
        assert json.loads(ws.recv(timeout=20))["type"] == "process"
    with mine.websocket(subprotocols=["pagewalk.v1"]) as ws, pytest.raises(ConnectionClosed) as refused:
        ws.recv(timeout=20)
    assert refused.value.rcvd.code == 4401
    with pytest.raises(InvalidStatus) as denied, mine.websocket():
        pass
    assert denied.value.response.status_code == 401


@pytest.mark.parametrize(
    ("host", "is_open"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False), ("example.org", False)]
)
def test_an_address_that_others_reach_needs_a_token(host, is_open):
    settings = Settings(host=host)
    assert settings.open is is_open
    if is_open:
        settings.check()
    else:
        with pytest.raises(ValueError, match="PAGEWALK_TOKEN"):
            settings.check()
        Settings(host=host, token=SecretStr("x")).check()
    assert not Settings(host=host, token=SecretStr("x")).open
