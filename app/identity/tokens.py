"""The secrets that callers carry.

    pw_u_…  a person's or a program's token                    pw_o_…  an observer's link: reads one session
    pw_s_…  a session's own token: all of one session          pw_t_…  a ticket: opens one stream, once, within seconds

After the prefix stand 192 random bits in 32 characters. What is kept is the SHA-256 of a token, never the token. A slow hash (bcrypt,
argon2) makes guessing a *chosen* password dear; here there is nothing to guess: at 10^12 tries a second, half of 2^192 takes 10^38 years
with any hash. A fast one lets each request be checked in a microsecond. Look-ups go by that hash, so the time that they take tells about
the hash of what was sent and nothing about the token that would have been right.
"""

import hashlib
import re
import secrets
from typing import Final

USER, SESSION, OBSERVER, TICKET = "pw_u_", "pw_s_", "pw_o_", "pw_t_"
RANDOM_BYTES: Final = 24
_SHAPE: Final = re.compile(r"pw_[usot]_[A-Za-z0-9_-]{32}")
_ANYWHERE: Final = re.compile(r"(pw_[usot]_)[A-Za-z0-9_-]+")
_JWT: Final = re.compile(r"[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
MAX_LENGTH: Final = 8192


def make(prefix: str) -> str:
    """A new secret. It is shown once; keep `digest` of it."""
    return prefix + secrets.token_urlsafe(RANDOM_BYTES)


def digest(token: str | bytes) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode("utf-8", "surrogatepass")).digest()


def is_ours(token: str) -> bool:
    """True for what `make` could have made: anything else need not be looked up."""
    return _SHAPE.fullmatch(token) is not None


def is_jwt(token: str) -> bool:
    """True for what may be a JSON Web Token."""
    return _JWT.fullmatch(token) is not None


def redact(text: str) -> str:
    """A text that can be logged: its secrets keep their prefixes only."""
    return _ANYWHERE.sub(r"\1…", text)
