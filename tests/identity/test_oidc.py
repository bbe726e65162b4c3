"""People who come with tokens of an OpenID provider: a real one, on a port, that signs with real keys."""

import base64
import hashlib
import hmac
import io
import json
import logging
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr, ValidationError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app import logs
from app.identity import oidc
from app.settings import Settings
from tests.api.client import Service, problem, running
from tests.api.course import OPERATOR, bearer
from tests.identity.provider import AUDIENCE, Provider, make_key, providing, segment

RULES = {"os101-staff": "instructor of os101", "course-*": "student of *", "graders/*": "grader of *", "operations": "admin"}
STUDENT = {"groups": ["course-os101"]}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


def serving(provider: Provider, **settings: Any) -> Any:
    return running(
        token=SecretStr("secret-of-the-operator"), oidc_issuer=provider.url, oidc_audience=AUDIENCE, oidc_roles=RULES, oidc_leeway=5,
        rate_limit="none", **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def service(provider: Provider) -> Iterator[Service]:
    provider.rotate("ec", "ES256", keep=True)
    provider.rotate("ed", "EdDSA", keep=True)
    with serving(provider) as service:
        for course in ("os101", "db202"):
            assert service.http.post("/v1/courses", json={"id": course}, headers=OPERATOR).status_code == 201
        yield service


def me(service: Service, token: str) -> Any:
    return service.http.get("/v1/me", headers=bearer(token))


def known(service: Service, token: str) -> dict[str, Any]:
    answer = me(service, token)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# ---- who is let in, and as what


@pytest.mark.parametrize("kid", ["one", "ec", "ed"])
def test_a_token_of_each_kind_of_key_is_good(service: Service, provider: Provider, kid: str) -> None:
    found = known(service, provider.token("ada", kid, **STUDENT))
    assert (found["subject"], found["admin"], found["roles"]) == ("ada", False, {"os101": "student"})


@pytest.mark.parametrize(
    ("groups", "roles", "admin"),
    [
        (["os101-staff"], {"os101": "instructor"}, False),
        (["course-os101", "os101-staff", "course-db202"], {"os101": "instructor", "db202": "student"}, False),
        (["course-os101", "graders/os101"], {"os101": "grader"}, False),
        ("course-os101 course-db202", {"os101": "student", "db202": "student"}, False),
        (["operations"], {}, True),
        (["operations", "course-os101"], {"os101": "student"}, True),
        (["course-*", "course-os101", 7, None, ["os101-staff"]], {"os101": "student"}, False),
    ],
)
def test_groups_become_roles_by_the_rules(service: Service, provider: Provider, groups: Any, roles: dict[str, str], admin: bool) -> None:
    found = known(service, provider.token("bob", groups=groups))
    assert (found["roles"], found["admin"]) == (roles, admin)


@pytest.mark.parametrize("groups", [None, [], ["OS101-STAFF"], ["os101-staff2"], ["course-none"], ["course-../os101"], {"a": 1}, 5])
def test_who_is_in_no_group_of_ours_is_known_and_let_in_nowhere(service: Service, provider: Provider, groups: Any) -> None:
    problem(me(service, provider.token("bob", groups=groups)), 403)
    problem(service.http.post("/v1/sessions", json={}, headers=bearer(provider.token("bob", groups=groups))), 403)


def test_a_member_of_a_course_needs_no_group(service: Service, provider: Provider) -> None:
    """What is kept here and what the provider says are put together; a change here counts at once."""
    token = provider.token("cid@uni.example")
    problem(me(service, token), 403)
    at = "/v1/courses/os101/members/cid@uni.example"
    assert service.http.put(at, json={"role": "grader"}, headers=OPERATOR).status_code == 200
    assert known(service, token)["roles"] == {"os101": "grader"}
    assert known(service, provider.token("cid@uni.example", groups=["os101-staff"]))["roles"] == {"os101": "instructor"}
    assert service.http.delete(at, headers=OPERATOR).status_code == 204
    problem(me(service, token), 403)


def test_sessions_belong_to_the_person_whatever_token_he_brings(service: Service, provider: Provider) -> None:
    first, second = provider.token("dan", **STUDENT), provider.token("dan", "ec", jti="2", **STUDENT)
    made = service.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=bearer(first)).json()
    assert (made["owner"], made["course"]) == ("dan", "os101")
    assert service.http.get(f"/v1/sessions/{made['id']}", headers=bearer(second)).status_code == 200
    problem(service.http.get(f"/v1/sessions/{made['id']}", headers=bearer(provider.token("eve", **STUDENT))), 404)
    own = service.http.post("/v1/tokens", json={"subject": "dan", "role": "student", "course": "os101"}, headers=OPERATOR).json()["token"]
    assert service.http.get(f"/v1/sessions/{made['id']}", headers=bearer(own)).status_code == 200


def test_a_retry_with_a_fresh_token_is_the_same_callers(service: Service, provider: Provider) -> None:
    def create(token: str, key: str) -> Any:
        return service.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=bearer(token) | {"Idempotency-Key": key})

    first = create(provider.token("fay", **STUDENT), "once")
    again = create(provider.token("fay", jti="refreshed", **STUDENT), "once")
    other = create(provider.token("gus", **STUDENT), "once")
    assert first.json() == again.json() and again.headers["idempotent-replayed"] == "true"
    assert other.status_code == 201 and other.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("name", ["", "operator", " ada", "a/b", "a\nb", "x" * 201, 7, ["ada"], None])
def test_a_name_that_nobody_has_is_refused(service: Service, provider: Provider, name: Any) -> None:
    alg, key = provider.keys["one"]
    claims = {**provider.claims(**STUDENT), "sub": name}
    token = ".".join([*jwt.encode({"a": 1}, key, alg, {"kid": "one"}).split(".")[:1], segment(claims)])
    signed = token + "." + segment(jwt.get_algorithm_by_name(alg).sign(token.encode(), key))
    problem(me(service, signed), 401)


def test_claims_under_other_names() -> None:
    with providing() as provider:
        settings = {"oidc_subject": "preferred_username", "oidc_groups": "realm_access.roles"}
        with serving(provider, **settings) as service:
            service.http.post("/v1/courses", json={"id": "os101"}, headers=OPERATOR)
            token = provider.token("4711", preferred_username="ada", realm_access={"roles": ["os101-staff"]})
            assert known(service, token)["roles"] == {"os101": "instructor"} and known(service, token)["subject"] == "ada"


# ---- streams


def test_streams_take_such_tokens_too(service: Service, provider: Provider) -> None:
    who = provider.token("hal", **STUDENT)
    sid = service.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=bearer(who)).json()["id"]
    address = service.url.replace("http", "ws") + f"/v1/sessions/{sid}/events"
    encoded = base64.urlsafe_b64encode(who.encode()).decode().rstrip("=")
    protocols: Any = [f"base64url.bearer.authorization.pagewalk.{encoded}", "pagewalk.v1"]
    with connect(address, subprotocols=protocols) as one, connect(address, additional_headers=bearer(who)):
        assert one.subprotocol == "pagewalk.v1"
    ticket = service.http.post(f"/v1/sessions/{sid}/tickets", headers=bearer(who)).json()["ticket"]
    with connect(f"{address}?ticket={ticket}"):
        pass
    with pytest.raises(InvalidStatus) as refused, connect(address, additional_headers=bearer(provider.token("eve", **STUDENT))):
        pass
    assert refused.value.response.status_code == 404


def test_a_stream_ends_with_its_token(service: Service, provider: Provider) -> None:
    who = provider.token("ida", exp=int(time.time()) - 2, **STUDENT)  # good for some seconds yet, by the leeway
    sid = service.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=bearer(who)).json()["id"]
    with connect(service.url.replace("http", "ws") + f"/v1/sessions/{sid}/events", additional_headers=bearer(who)) as ws:
        with service.http.stream("GET", f"/v1/sessions/{sid}/events", headers=bearer(who) | {"Accept": "application/jsonl"}) as answer:
            assert json.loads(list(answer.iter_lines())[-1])["reason"] == "expired"
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=20)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401


def test_a_stream_ends_with_the_role(service: Service, provider: Provider) -> None:
    at = "/v1/courses/os101/members/jan"
    who = provider.token("jan")
    service.http.put(at, json={"role": "student"}, headers=OPERATOR)
    sid = service.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=bearer(who)).json()["id"]
    with connect(service.url.replace("http", "ws") + f"/v1/sessions/{sid}/events", additional_headers=bearer(who)) as ws:
        service.http.delete(at, headers=OPERATOR)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=20)
    assert closed.value.rcvd is not None and (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "what the caller may do has changed")


# ---- what is refused


def forged(provider: Provider, header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    return f"{segment(header)}.{segment(claims)}.{segment(signature)}"


def signed_with_the_public_key(provider: Provider) -> str:
    """The classic: HMAC with what everyone has."""
    public = provider.keys["one"][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{segment({'alg': 'HS256', 'kid': 'one'})}.{segment(provider.claims(groups=['operations']))}"
    return f"{text}.{segment(hmac.new(public, text.encode(), hashlib.sha256).digest())}"


def signed_by_another(provider: Provider, header: dict[str, Any]) -> str:
    key = make_key("RS256")
    public = jwt.get_algorithm_by_name("RS256").to_jwk(key.public_key(), as_dict=True)
    header = {name: (public if value == "mine" else value) for name, value in header.items()}
    return jwt.encode(provider.claims(groups=["operations"]), key, "RS256", header)


def tampered(provider: Provider) -> str:
    head, _, signature = provider.token(**STUDENT).split(".")
    return f"{head}.{segment(provider.claims(groups=['operations']))}.{signature}"


now = time.time
REFUSED: dict[str, Any] = {
    "for another audience": lambda p: p.token(aud="other", **STUDENT),
    "for no audience": lambda p: p.token(aud=None, **STUDENT),
    "for audiences without us": lambda p: p.token(aud=["a", "b"], **STUDENT),
    "for an audience like ours": lambda p: p.token(aud="pagewalk2", **STUDENT),
    "of another issuer": lambda p: p.token(iss="https://evil.example", **STUDENT),
    "of no issuer": lambda p: p.token(iss=None, **STUDENT),
    "of an issuer with a slash more": lambda p: p.token(iss=p.url + "/", **STUDENT),
    "expired": lambda p: p.token(exp=int(now()) - 60, **STUDENT),
    "that never expires": lambda p: p.token(exp=None, **STUDENT),
    "that expires at no time": lambda p: p.token(exp="soon", **STUDENT),
    "that expires at infinity": lambda p: p.token(exp=float("inf"), **STUDENT),
    "not good yet": lambda p: p.token(nbf=int(now()) + 60, **STUDENT),
    "of tomorrow": lambda p: p.token(iat=int(now()) + 86400, **STUDENT),
    "unsigned": lambda p: forged(p, {"alg": "none", "typ": "JWT"}, p.claims(groups=["operations"])),
    "unsigned in capitals": lambda p: forged(p, {"alg": "NONE", "kid": "one"}, p.claims(groups=["operations"])),
    "without an algorithm": lambda p: forged(p, {"kid": "one"}, p.claims(groups=["operations"]), b"x" * 256),
    "with a list of algorithms": lambda p: forged(p, {"alg": ["RS256"], "kid": "one"}, p.claims(groups=["operations"]), b"x" * 256),
    "signed with the public key": signed_with_the_public_key,
    "of RSA with the key of a curve": lambda p: jwt.encode(p.claims(**STUDENT), p.keys["one"][1], "RS256", {"kid": "ec"}),
    "of an algorithm that is not listed": lambda p: jwt.encode(p.claims(**STUDENT), p.keys["one"][1], "RS512", {"kid": "one"}),
    "tampered with": tampered,
    "without its signature": lambda p: p.token(**STUDENT).rpartition(".")[0] + ".",
    "with a wrong signature": lambda p: p.token(**STUDENT)[:-8] + "AAAAAAAA",
    "of a key that it brings along": lambda p: signed_by_another(p, {"kid": "one", "jwk": "mine"}),
    "of a key that it brings along, without a kid": lambda p: signed_by_another(p, {"jwk": "mine"}),
    "of a key at an address of its own": lambda p: signed_by_another(p, {"kid": "one", "jku": "http://127.0.0.1:1/keys"}),
    "of a key in a certificate": lambda p: signed_by_another(p, {"kid": "one", "x5u": "http://127.0.0.1:1/keys"}),
    "of a key that is none": lambda p: signed_by_another(p, {"kid": "none"}),
    "of a kid that is a path": lambda p: signed_by_another(p, {"kid": "../../../../dev/null"}),
    "with critical extensions": lambda p: p.token(header={"crit": ["exp"], "exp": 1}, **STUDENT),
    "with another form of payload": lambda p: p.token(header={"b64": False, "crit": ["b64"]}, **STUDENT),
    "for logging out": lambda p: p.token(header={"typ": "logout+jwt"}, **STUDENT),
    "of a typ that is a number": lambda p: forged(p, {"alg": "RS256", "typ": 7, "kid": "one"}, p.claims(**STUDENT), b"x" * 256),
    "of a kid that is a list": lambda p: forged(p, {"alg": "RS256", "kid": ["one"]}, p.claims(**STUDENT), b"x" * 256),
    "with a header that is a list": lambda p: f"{segment([1])}.{segment(p.claims())}.{segment(b'x')}",
    "with a deep header": lambda p: f"{segment(b'[' * 5000)}.{segment({})}.{segment(b'x')}",
    "with a number that is too long": lambda p: forged(p, {"alg": "RS256", "kid": "one"}, {"exp": 10**4000}, b"x" * 256),
    "whose payload is no JSON": lambda p: f"{segment({'alg': 'RS256', 'kid': 'one'})}.{segment(b'hello')}.{segment(b'x' * 256)}",
    "of four parts": lambda p: p.token(**STUDENT) + ".x",
    "encrypted": lambda p: ".".join([segment({"alg": "RSA-OAEP", "enc": "A256GCM"}), "aaaa", "bbbb", "cccc", "dddd"]),
    "of nine kilobytes": lambda p: p.token(padding="x" * 7000, **STUDENT),
    "of forty kilobytes": lambda p: p.token(padding="x" * 30_000, **STUDENT),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_token_that_is_not_good_is_refused(service: Service, provider: Provider, what: str) -> None:
    token = REFUSED[what](provider)
    told = problem(me(service, token), 401)
    assert token[:60] not in json.dumps(told)
    assert known(service, provider.token(**STUDENT))["subject"] == "ada"


def test_a_token_too_large_for_a_header_is_refused_by_the_server(service: Service, provider: Provider) -> None:
    answer = me(service, provider.token(padding="x" * 200_000, **STUDENT))
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("leeway", [{"exp": -2}, {"nbf": 2}, {"iat": 2}])
def test_a_clock_may_be_wrong_by_the_leeway(service: Service, provider: Provider, leeway: dict[str, int]) -> None:
    moved = {claim: int(time.time()) + seconds for claim, seconds in leeway.items()}
    assert known(service, provider.token("kim", **moved, **STUDENT))["subject"] == "kim"


def test_a_token_in_an_address_is_refused(service: Service, provider: Provider) -> None:
    problem(service.http.get("/v1/me", params={"token": provider.token(**STUDENT)}), 401, "header")


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": segment(b"x" * 32), "kid": "bad"},
        {"alg": "RS256", "bits": 1024},
        {"alg": "RS256", "use": "enc"},
        {"alg": "RS256", "key_ops": ["encrypt"]},
        {"alg": "ES384"},
    ],
    ids=lambda key: json.dumps(key)[:40],
)
def test_keys_that_are_not_for_this_are_not_taken(key: dict[str, Any]) -> None:
    with providing() as provider:
        if "kty" in key:
            provider.published.append(key)
            token = jwt.encode(provider.claims(groups=["operations"]), b"x" * 32, "HS256", {"kid": "bad"})
        else:
            more = {name: value for name, value in key.items() if name in ("use", "key_ops")}
            provider.rotate("bad", key["alg"], key.get("bits", 2048), keep=True, **more)
            alg, secret = provider.keys["bad"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)  # that it is short is what is tested
                token = jwt.encode(provider.claims(groups=["operations"]), secret, alg, {"kid": "bad"})
        with serving(provider) as service:
            problem(me(service, token), 401)
            assert known(service, provider.token(groups=["operations"]))["admin"]


# ---- the provider's keys


def test_rotated_keys_are_fetched_and_old_ones_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "REFETCH_S", 0.0)
    with providing() as provider, serving(provider) as service:
        old = provider.token(groups=["operations"])
        assert known(service, old)["admin"]
        for kid in ("two", "three"):
            provider.rotate(kid)
            assert known(service, provider.token(kid=kid, groups=["operations"]))["admin"]
        problem(me(service, provider.token(jti="fresh", groups=["operations"])), 401)  # of the first key
        assert provider.asked.count("/keys") == 4


def test_unknown_keys_do_not_make_us_ask_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "REFETCH_S", 3600.0)  # a slow machine takes longer than the usual time for what follows
    with providing() as provider, serving(provider) as service:
        for number in range(20):
            problem(me(service, signed_by_another(provider, {"kid": f"k{number}"})), 401)
        assert provider.asked.count("/keys") == 1
        assert known(service, provider.token(groups=["operations"]))["admin"]


def test_many_at_once_cause_one_fetch() -> None:
    with providing() as provider, serving(provider) as service, ThreadPoolExecutor(16) as pool:
        tokens = [provider.token(f"s{number}", groups=["operations"]) for number in range(32)]
        assert {answer.status_code for answer in pool.map(lambda token: me(service, token), tokens)} == {200}
        assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


def test_two_keys_of_one_name_are_nobodys() -> None:
    with providing() as provider, serving(provider) as service:
        first = provider.token(groups=["operations"])
        provider.rotate("one", keep=True)
        problem(me(service, first), 401)
        problem(me(service, provider.token(groups=["operations"])), 401)


def test_a_token_without_a_kid_needs_a_single_key() -> None:
    with providing() as provider, serving(provider) as service:
        alg, key = provider.keys["one"]
        token = jwt.encode(provider.claims(groups=["operations"]), key, alg)
        assert known(service, token)["admin"]
    with providing() as provider, serving(provider) as service:
        alg, key = provider.keys["one"]
        provider.rotate("two", keep=True)
        problem(me(service, jwt.encode(provider.claims(groups=["operations"]), key, alg)), 401)


def test_while_the_provider_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "REFETCH_S", 0.0)
    with providing() as provider:
        provider.stop()
        try:
            with serving(provider) as service:
                answer = me(service, provider.token(groups=["operations"]))
                problem(answer, 503, "identity provider")
                assert int(answer.headers["retry-after"]) >= 0
                assert me(service, "secret-of-the-operator").status_code == 200  # our own tokens are good as ever
                own = service.http.post("/v1/tokens", json={"subject": "root", "role": "admin"}, headers=OPERATOR).json()["token"]
                assert known(service, own)["admin"]
                sid = service.http.post("/v1/sessions", json={"machine": {"memory": "64M"}}, headers=bearer(own)).json()["id"]
                address = service.url.replace("http", "ws") + f"/v1/sessions/{sid}/events"
                who = bearer(provider.token(groups=["operations"]))
                with pytest.raises(InvalidStatus) as refused, connect(address, additional_headers=who):
                    pass
                assert refused.value.response.status_code == 503
                protocols: Any = ["pagewalk.v1"]
                with connect(address, additional_headers=who, subprotocols=protocols) as ws, pytest.raises(ConnectionClosed) as closed:
                    ws.recv(timeout=20)
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013

                provider.start(provider.port)
                assert known(service, provider.token(jti="again", groups=["operations"]))["admin"]
                provider.stop()
                assert known(service, provider.token(jti="known key", groups=["operations"]))["admin"]
                provider.rotate("two", keep=True)
                problem(me(service, provider.token(kid="two", groups=["operations"])), 503)
                monkeypatch.setattr(oidc, "STALE_S", -1.0)
                problem(me(service, provider.token(jti="stale key", groups=["operations"])), 503)
        finally:
            provider.start(provider.port)


@pytest.mark.parametrize(
    "spoil",
    [
        {"status": 500}, {"status": 302}, {"discovery": b"<html>"}, {"discovery": b"[]"}, {"discovery": b"{" * 100_000},
        {"discovery": {"issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys"}}, {"discovery": {}},
        {"discovery": b" " * (2 << 20)}, {"published": None}, {"published": {"a": 1}}, {"published": "one"},
        {"jwks_uri": None}, {"jwks_uri": 7}, {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": "http://127.0.0.1:1/keys"}, {"jwks_uri": "http://["},
    ],
    ids=repr,
)  # fmt: skip
def test_a_provider_that_answers_nonsense_is_as_one_who_is_away(spoil: dict[str, Any]) -> None:
    with providing() as provider, serving(provider) as service:
        if "jwks_uri" in spoil:
            provider.discovery = {**provider.discovery, **spoil}
        else:
            for name, value in spoil.items():
                setattr(provider, name, value)
        problem(me(service, provider.token(groups=["operations"])), 503)
        assert me(service, "secret-of-the-operator").status_code == 200
        assert "/elsewhere" not in provider.asked


def test_odd_keys_do_not_hide_the_good_one() -> None:
    odd: list[Any] = [
        1, None, [], {}, {"kty": "RSA"}, {"kty": "RSA", "n": "!", "e": "AQAB", "kid": "one"}, {"kty": "EC", "crv": "P-256", "x": "", "y": ""},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"}, {"kty": ["RSA"]}, {"kty": "RSA", "n": 5, "e": 6}, {"kty": "RSA", "key_ops": 5},
    ]  # fmt: skip
    with providing() as provider, serving(provider) as service:
        provider.published = [*odd, *provider.published, *odd]
        assert known(service, provider.token(groups=["operations"]))["admin"]


# ---- settings, and what is logged


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"oidc_issuer": "https://id.example"}, "PAGEWALK_OIDC_AUDIENCE"),
        ({"oidc_issuer": "http://id.example", "oidc_audience": "p"}, "https"),
        ({"oidc_issuer": "https://id.example", "oidc_audience": "p", "allow_anyone": True}, "ALLOW_ANYONE"),
    ],
)
def test_settings_that_would_not_be_safe_keep_the_service_from_starting(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(**settings).check()


@pytest.mark.parametrize(
    "settings",
    [
        {"oidc_issuer": "id.example"}, {"oidc_issuer": "https://id.example?x=1"}, {"oidc_algorithms": ["HS256"]}, {"oidc_algorithms": ["none"]},
        {"oidc_algorithms": []}, {"oidc_leeway": 301}, {"oidc_roles": {"a": "king"}}, {"oidc_roles": {"a-*": "admin"}},
        {"oidc_roles": {"a-*-*": "student of *"}}, {"oidc_roles": {"a": "student of *"}}, {"oidc_roles": {"a-*": "student of os101"}},
        {"oidc_roles": {"a": "student of ../x"}},
    ],
    ids=repr,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**settings)


def test_a_provider_closes_the_service_on_loopback_too() -> None:
    assert not Settings(oidc_issuer="https://id.example", oidc_audience="p").open
    Settings(host="0.0.0.0", oidc_issuer="https://id.example", oidc_audience="p").check()


def test_no_part_of_a_token_gets_into_the_log() -> None:
    root, out = logging.getLogger(), io.StringIO()
    before, level = list(root.handlers), root.level
    with providing() as provider:
        good = provider.token(groups=["operations"])
        bad = [REFUSED[what](provider) for what in REFUSED]
        try:
            logs.configure("debug", "json", out)
            with serving(provider, access_log=1.0, log_level="debug") as service:
                for token in [good, *bad]:
                    me(service, token)
                    service.http.get("/v1/me", params={"token": token[:4000]})
                    service.http.get(f"/v1/sessions/{token[:2000]}", headers=bearer(token))
        finally:
            root.handlers[:] = before
            root.setLevel(level)
    said = out.getvalue()
    assert "a JSON Web Token was refused" in said
    for token in [good, *bad]:
        for part in token.split("."):
            assert len(part) < 24 or not token.startswith("eyJ") or part[:24] not in said, part[:40]  # every true one begins so
