"""Secrets and buckets, without a service."""

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.errors import Problem
from app.identity import tokens
from app.identity.buckets import Bucket
from app.identity.gate import Gate
from app.identity.shield import is_local_name
from app.settings import Rate, Settings
from app.storage import Database, Writer
from app.storage.identity import IdentityStore

GATE = Gate(Settings(token=SecretStr("right"), rate_limit="none"))


@pytest.fixture(scope="module", autouse=True)
def _store() -> Iterator[None]:
    with contextlib.closing(Database("memory:")) as database, contextlib.closing(Writer(database)) as writer:
        GATE.store = IdentityStore(writer)
        yield


@given(st.one_of(st.binary(max_size=200), st.text(max_size=60).map(lambda text: b"pw_u_" + text.encode()), st.just(b"right ")))
def test_no_string_is_let_in_and_none_is_told(value: bytes) -> None:
    """Whatever follows Bearer is a 401 whose document does not hold it; never another error."""
    scope = {"type": "http", "method": "GET", "path": "/v1/me", "query_string": b"", "headers": [(b"authorization", b"Bearer " + value)]}
    if value.strip() == b"right":
        assert asyncio.run(GATE.caller(scope)).admin
        return
    with pytest.raises(Problem) as refused:
        asyncio.run(GATE.caller(scope))
    assert refused.value.status == 401
    assert len(value) < 12 or value.decode("latin-1") not in json.dumps(refused.value.document())


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_query_is_let_in(ticket: bytes, token: bytes) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"ticket=" + ticket + b"&token=" + token, "headers": []}
    with pytest.raises(Problem) as refused:
        asyncio.run(GATE.caller(scope, "s_1", True))
    assert refused.value.status == 401


def test_secrets_are_made_and_redacted() -> None:
    made = {tokens.make(tokens.USER) for _ in range(100)}
    assert len(made) == 100 and all(tokens.is_ours(token) for token in made)
    token = made.pop()
    assert tokens.redact(f"GET /x?token={token}&a=1") == "GET /x?token=pw_u_…&a=1"
    assert len(tokens.digest(token)) == 32


def test_a_bucket_by_hand() -> None:
    """Four at once in two seconds: the essay's numbers."""
    bucket = Bucket("caller", Rate(4, 2.0))
    assert [bucket.take("a", 100.0).left for _ in range(4)] == [3, 2, 1, 0]
    refused = bucket.take("a", 100.1)
    assert refused.left == 0 and refused.retry_in == pytest.approx(0.4)
    assert bucket.take("b", 100.1).retry_in == 0
    assert bucket.take("a", 100.5).retry_in == 0 and bucket.take("a", 100.5).retry_in > 0
    assert bucket.state(refused) == b'"caller";r=0;t=2'


@given(st.lists(st.floats(0, 3), max_size=60))
def test_a_bucket_never_lets_more_pass_than_its_rate(gaps: list[float]) -> None:
    bucket, now, passed = Bucket("a", Rate(5, 2.0)), 0.0, []
    for gap in gaps:
        now += gap
        if not bucket.take("a", now).retry_in:
            passed.append(now)
    for index, start in enumerate(passed):  # in any span: a full bucket, and what is refilled meanwhile
        for count, end in enumerate(passed[index:], 1):
            assert count <= 5 + (end - start) * 5 / 2.0 + 1e-6


@pytest.mark.parametrize(
    ("name", "local"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("pagewalk", True), ("a.localhost", True),
     ("evil.example", False), ("127.0.0.1.nip.io", False)],
)
def test_names_that_a_site_can_have(name: str, local: bool) -> None:
    assert is_local_name(name) is local
