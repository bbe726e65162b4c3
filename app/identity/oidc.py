"""OpenID Connect: people who have signed in at the university's provider come in with its JSON Web Tokens.

    provider ── /.well-known/openid-configuration ──> its own name, where its keys are
             ── jwks_uri ───────────────────────────> public keys by `kid`; kept, fetched again for a `kid` that is not among them
    client ──── Authorization: Bearer eyJ… ─────────> signature, iss, aud, exp, nbf, iat; then who, and what in which course

What makes a token good is said by settings and keys, by no header of the token. Its `alg` must be one that PAGEWALK_OIDC_ALGORITHMS lists and that
fits the key of its `kid`. There is no `none`, and no HMAC: whoever has the public key, and everyone has, could sign with it. A key that is
published for encryption, that is not asymmetric, or of RSA with less than 2048 bits, is not taken. A header that changes the rules (`crit`), or
says that the token is for something else (`typ`), refuses it; `jku`, `x5u` and `jwk` are not looked at.

Nonsense costs little: a token over 8 KiB is not read, and an unknown `kid` makes us ask the provider once in REFETCH_S, whoever sends it. While the
provider does not answer, the keys that are known stay good for STALE_S; a token that cannot be judged without it is answered 503. Our own tokens
do not depend on any of this.

A group at the provider becomes a role by a rule, in which one `*` may stand for a course's name:

    {"os101-staff": "instructor of os101", "course-*": "student of *", "it-operations": "admin"}
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import jwt
import orjson

from app.errors import Problem
from app.identity.roles import Person, higher
from app.identity.tokens import digest
from app.schemas.groups import rules_of
from app.schemas.names import subject
from app.settings import Settings

KEYS_S: Final = 600.0  # then the keys are fetched again, by and by
REFETCH_S: Final = 10.0  # between two fetches
STALE_S: Final = 3600.0
TIMEOUT_S: Final = 5.0
LARGEST: Final = 1 << 20  # bytes of a document of the provider's
MOST_KEYS: Final = 100
MOST_GROUPS: Final = 1000
FITS: Final[Mapping[tuple[str, str], frozenset[str]]] = {  # kind of key, its curve: the algorithms
    ("RSA", ""): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
log = logging.getLogger("pagewalk.identity")


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """A member of the claims; a dot leads into an object, as in `realm_access.roles`, unless a member is called so."""
    if path in claims:
        return claims[path]
    head, dot, rest = path.partition(".")
    inner = claims.get(head) if dot else None
    return claim(inner, rest) if isinstance(inner, Mapping) else None


class Keys:
    """The provider's public keys.

    Parameters
    ----------
    issuer : str
        The provider's own name, an address.
    """

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._keys: list[Mapping[str, Any]] = []
        self._fetched = self._tried = -STALE_S  # on the monotonic clock
        self._broken = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, alg: str) -> jwt.PyJWK | None:
        """The key of a token, None when the provider has none such. Raises a 503 while that cannot be known."""
        now = time.monotonic()
        found = self._suiting(kid, alg)
        if (found is None or now - self._fetched > KEYS_S) and (self._fetching is not None or now - self._tried >= REFETCH_S):
            fetching = self._fetch_soon()
            if found is None:
                await asyncio.shield(fetching)
                found = self._suiting(kid, alg)
        if found is None and self._broken:
            detail = "the identity provider does not answer, so this token cannot be checked: try again; tokens of this service are good as ever"
            raise Problem(503, "no-identity-provider", detail, {"Retry-After": str(round(REFETCH_S))})
        return None if found is None else jwt.PyJWK(dict(found), alg)

    def _suiting(self, kid: str | None, alg: str) -> Mapping[str, Any] | None:
        """The one key with a `kid`, or without one the only key, that fits an algorithm; none when what is known is too old."""
        if time.monotonic() - self._fetched >= STALE_S:
            return None
        suiting = [key for key in self._keys if fits(key, alg) and (kid is None or key.get("kid") == kid)]
        return suiting[0] if len(suiting) == 1 else None

    def _fetch_soon(self) -> asyncio.Task[None]:
        """One fetch at a time, whoever waits for it."""
        if self._fetching is None:
            self._tried = time.monotonic()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S), httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as http:
                found = await self._document(http, f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
                if found.get("issuer") != self.issuer:
                    raise ValueError(f"its discovery document is of {str(found.get('issuer'))[:200]!r}")
                where = found.get("jwks_uri")
                if not isinstance(where, str) or not is_safe(where, self.issuer):
                    raise ValueError(f"its keys are at {str(where)[:200]!r}, which is no https address")
                keys = (await self._document(http, where)).get("keys")
            if not isinstance(keys, list):
                raise ValueError("its key set has no list of keys")
            self._keys = [key for key in keys[:MOST_KEYS] if is_sound(key)]
            self._fetched, self._broken = time.monotonic(), False
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError, OSError) as error:
            self._broken = True
            log.warning("the identity provider %s does not answer as it should: %s", self.issuer, error or type(error).__name__)
        finally:
            self._fetching = None

    async def _document(self, http: httpx2.AsyncClient, url: str) -> Mapping[str, Any]:
        """A JSON object of the provider's. Raises ValueError and the client's errors."""
        body = b""
        async with http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
            if answer.status_code != 200:
                raise ValueError(f"{url} is answered {answer.status_code}")
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > LARGEST:
                    raise ValueError(f"{url} has more than {LARGEST} bytes")
        found = orjson.loads(body)
        if not isinstance(found, dict):
            raise ValueError(f"{url} is no JSON object")
        return found


def is_safe(url: str, issuer: str) -> bool:
    """True for an https address; for an http one where the issuer is one of this machine itself."""
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and issuer.startswith("http://"))


def fits(key: Mapping[str, Any], alg: str) -> bool:
    """True for a key that an algorithm is used with."""
    kind = (str(key.get("kty")), str(key.get("crv", "")))
    return alg in FITS.get(kind, ()) and key.get("alg", alg) == alg


def is_sound(key: Any) -> bool:
    """True for a public key to check signatures with, long enough."""
    if not isinstance(key, dict) or key.get("use", "sig") != "sig" or key.get("key_ops", ["verify"]) != ["verify"]:
        return False
    kind = (str(key.get("kty")), str(key.get("crv", "")))
    if kind not in FITS or "d" in key:
        return False
    try:
        made = jwt.PyJWK(key, next(iter(FITS[kind])))
        return made.Algorithm.check_key_length(made.Algorithm.prepare_key(made.key)) is None
    except (jwt.PyJWTError, ValueError, TypeError):
        return False


class Provider:
    """Makes persons of the provider's tokens: the gate's `Verifier`.

    Parameters
    ----------
    settings : Settings
        With an `oidc_issuer`.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer is not None and settings.oidc_audience is not None, "settings.check() wants both"
        self.settings, self.issuer, self.audience = settings, settings.oidc_issuer, settings.oidc_audience
        self.keys = Keys(self.issuer)
        self._rules = rules_of(settings.oidc_roles)
        self._jwt = jwt.PyJWT({"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True})

    async def person(self, token: str) -> Person:
        """Who sends a token. Raises ValueError in words for the log, a 503 while that cannot be known."""
        try:
            header = jwt.get_unverified_header(token)
            alg = self._algorithm(header)
            key = await self.keys.find(header.get("kid"), alg)
            if key is None:
                raise ValueError("the provider has no key for it")
            claims = self._jwt.decode(
                token, key, algorithms=[alg], audience=self.audience, issuer=self.issuer, leeway=self.settings.oidc_leeway
            )
            return self._person(claims)
        except (jwt.PyJWTError, OverflowError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def _algorithm(self, header: Mapping[str, Any]) -> str:
        """The algorithm of a header, if it is one of ours. Raises ValueError."""
        alg, kind = header.get("alg"), header.get("typ", "JWT")
        if not isinstance(alg, str) or alg not in self.settings.oidc_algorithms:
            raise ValueError(f"alg {str(alg)[:20]!r} is not one of {', '.join(self.settings.oidc_algorithms)}")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise ValueError(f"typ {str(kind)[:40]!r} is not for us")
        if "crit" in header or "b64" in header:
            raise ValueError("its header has members that change what a token is")
        return alg

    def _person(self, claims: Mapping[str, Any]) -> Person:
        """Who the claims are about. Raises ValueError."""
        name = claim(claims, self.settings.oidc_subject)
        if not isinstance(name, str):
            raise ValueError(f"its claim {self.settings.oidc_subject} is no name")
        id = f"oidc:{digest(subject(name)).hex()[:16]}"
        return Person(id, name, self._roles(claim(claims, self.settings.oidc_groups)), float(claims["exp"]) + self.settings.oidc_leeway)

    def _roles(self, groups: Any) -> dict[str, str]:
        """Course → role, by the rules."""
        found: dict[str, str] = {}
        for rule in self._rules:
            for group in _names(groups):
                course = rule.grants(group)
                if course is not None:
                    found[course] = higher(rule.role, found.get(course))
        return found


def _names(groups: Any) -> Iterator[str]:
    """A claim's groups: a list, or one name, or names with blanks between them."""
    found: Sequence[Any] = groups.split() if isinstance(groups, str) else groups if isinstance(groups, list) else ()
    return (group for group in found[:MOST_GROUPS] if isinstance(group, str))
