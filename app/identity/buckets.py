"""Token buckets: so many requests at once, refilled evenly.

A bucket of `quota` requests in `window` seconds is kept as one number for each caller, the time at which it will be full again (GCRA, the
generic cell rate algorithm of ATM networks). A request moves that time on by window/quota; a request that would move it further than a
window ahead is refused, and the difference says when to come again.

    quota 4, window 2 s: a request costs 0.5 s.   at 0.0 s four requests: full again at 2.0 s, none is left
                                                  at 0.1 s a fifth would make it 2.5 > 2.1: refused, come again in 0.4 s
                                                  at 0.5 s one more passes: 2.5 s

The headers are those of the IETF's draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy: "caller";q=4;w=2`, `RateLimit: "caller";r=0;t=2`.
A process counts for itself.
"""

import math
from typing import Final, NamedTuple

from app.errors import Problem
from app.settings import Rate

MOST_KEYS: Final = 50_000


class Level(NamedTuple):
    """How full a bucket is after a request."""

    left: int
    full_in: float
    retry_in: float  # 0 when the request may pass


class Bucket:
    """One bucket for each key, all of one rate."""

    def __init__(self, name: str, rate: Rate) -> None:
        self.name, self.rate = name, rate
        self._cost = rate.window / rate.quota
        self._full_at: dict[str, float] = {}
        self.policy: Final = f'"{name}";q={rate.quota};w={math.ceil(rate.window)}'.encode()

    def take(self, key: str, now: float) -> Level:
        """A request of `key` at the time `now`, in seconds of a clock that never goes back."""
        full_at = max(self._full_at.get(key, 0.0), now)
        after = full_at + self._cost
        spare = now + self.rate.window - after
        if spare < -1e-9:
            return Level(0, full_at - now, -spare)
        self._full_at[key] = after
        if len(self._full_at) > MOST_KEYS:
            self._forget(now)
        return Level(int(spare / self._cost + 1e-9), after - now, 0.0)

    def _forget(self, now: float) -> None:
        """Let go of the full buckets: a new one is the same."""
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}

    def state(self, level: Level) -> bytes:
        """A level as the item of a RateLimit header."""
        return b'"%s";r=%d;t=%d' % (self.name.encode(), level.left, math.ceil(level.full_in))

    def refusal(self, level: Level) -> Problem:
        """The 429 for a request that may not pass."""
        wait = max(1, math.ceil(level.retry_in))
        detail = f"too many requests: {self.rate.quota} in {self.rate.window:g} s are let pass for each {self.name}; come again in {wait} s"
        headers = {"Retry-After": str(wait), "RateLimit-Policy": self.policy.decode(), "RateLimit": self.state(level).decode()}
        return Problem(429, "too-many-requests", detail, headers)
