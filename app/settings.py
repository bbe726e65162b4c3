"""The service's settings: every one has a safe default, `PAGEWALK_<NAME>` in the environment overrides it."""

import json
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.schemas.groups import rules_of
from app.schemas.kinds import parse_duration, parse_size

Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[int, BeforeValidator(parse_duration)]
SIZES: Final = (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("", 1))
DURATIONS: Final = (("h", 3600 * 10**9), ("s", 10**9), ("ms", 10**6), ("", 1))


class Rate(NamedTuple):
    """So many requests at once, and as many again in so many seconds."""

    quota: int
    window: float


def _rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lower() == "none":
        return None
    quota, _, window = value.partition("/")
    if not quota.isdecimal() or int(quota) < 1 or not window:
        raise ValueError(f"{value!r} is no rate: write requests/time, such as 600/60s, or none")
    seconds = parse_duration(window) / 10**9
    if seconds <= 0:
        raise ValueError(f"{value!r} is no rate: the time is longer than 0")
    return Rate(int(quota), seconds)


def _in_units(value: float, units: Sequence[tuple[str, int]]) -> str:
    unit, factor = next((unit, factor) for unit, factor in units if value % factor == 0)
    return f"{int(value // factor)}{unit}"


def written(field: FieldInfo) -> str | None:
    """A setting's default as the environment would give it; None where there is none."""
    value = field.default
    validators = {getattr(item, "func", None) for item in field.metadata}
    if value is None:
        return None
    if parse_size in validators:
        return _in_units(value, SIZES)
    if parse_duration in validators:
        return _in_units(value, DURATIONS)
    if isinstance(value, Rate):
        return f"{value.quota}/{_in_units(value.window * 10**9, DURATIONS)}"
    return str(value).lower() if isinstance(value, bool) else json.dumps(value) if isinstance(value, list | dict) else str(value)


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
RateLimit = Annotated[Rate | None, NoDecode, BeforeValidator(_rate)]


def _are_rules(written: dict[str, str]) -> dict[str, str]:
    rules_of(written)
    return written


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """What an operator may choose. Sizes take `512M`, durations take `30s`."""

    model_config = SettingsConfigDict(env_prefix="PAGEWALK_", env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; any other than loopback wants tokens, or allow_anyone.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    root_path: str | None = Field(
        None, pattern=r"^(/[\w.~%-]+)+$", description="The part of the address space that a proxy gives the service: `/pagewalk`."
    )
    data: Path | None = Field(None, description="The folder that sessions are kept in, unless `database` says otherwise.")
    database: str | None = Field(None, description="Where sessions are kept: sqlite:///path, postgresql://user@host/name, or memory: (temporary).")
    durability: Literal["full", "normal"] = Field("full", description="full: what was answered survives a power cut; normal: only the process.")
    instance: str | None = Field(None, description="This service's name in a shared database; default: one of its own, kept in the data folder.")
    workers: int = Field(1, ge=1, le=256, description="Worker processes; sessions are spread over them.")
    token: SecretStr | None = Field(None, description="The operator's bearer token: may create, list and enter every session.")
    require_tokens: bool = Field(False, description="Ask for a token on loopback too. PAGEWALK_TOKEN implies it.")
    allow_anyone: bool = Field(False, description="Ask nobody for a token even where other machines can connect.")
    hosts: list[str] = Field([], description="Names that the service answers to, besides addresses and localhost (a JSON list).")
    origins: list[str] = Field([], description="Web origins, besides the service's own, whose pages may use it (a JSON list; [\"*\"] is any).")
    trusted_proxies: list[str] = Field([], description="Addresses of proxies whose X-Forwarded-For is believed (a JSON list).")
    ticket_seconds: int = Field(30, ge=1, le=3600, description="How long a ticket for a stream is good.")
    rate_limit: RateLimit = Field(Rate(2000, 20.0), description="Requests of one caller, of a service that asks for tokens; none: no limit.")
    rate_limit_address: RateLimit = Field(
        Rate(20_000, 20.0), description="Requests of one address, of a service that asks for tokens; none: no limit."
    )
    oidc_issuer: str | None = Field(
        None, pattern=r"^https?://[^\s?#]+$", description="OpenID Connect: the provider's name, an https address; its tokens are let in then."
    )
    oidc_audience: str | None = Field(None, description="What a token's `aud` must hold: the name that this service has at the provider.")
    oidc_subject: str = Field("sub", description="The claim that names a person: one that only the provider sets, and gives to nobody else.")
    oidc_groups: str = Field("groups", description="The claim that lists a person's groups; a dot leads into an object: `realm_access.roles`.")
    oidc_roles: Annotated[dict[str, str], AfterValidator(_are_rules)] = Field(
        {}, description='What a group makes of its members (a JSON object): {"os101-staff": "instructor of os101", "course-*": "student of *"}.'
    )
    oidc_algorithms: list[Algorithm] = Field(
        ["RS256", "ES256", "EdDSA"], min_length=1, description="The algorithms that a token may be signed with (a JSON list)."
    )
    oidc_leeway: int = Field(30, ge=0, le=300, description="Seconds that the provider's clock may be wrong.")
    max_sessions_per_owner: int = Field(32, ge=1, description="Sessions that one person, who is no administrator, may have.")

    max_sessions: int = Field(10_000, ge=1, description="Sessions, in memory or not.")
    live_memory: Size = Field(2 << 30, description="Bytes that kernels in memory may take; those used longest ago leave it first.")
    hibernate_after: Duration = Field(600 * 10**9, description="A session that nobody used for so long leaves memory until the next request.")
    snapshot_every: int = Field(5000, ge=1, description="Operations after which a snapshot is kept.")
    snapshot_replay: Duration = Field(
        10**9, description="A snapshot is kept when playing again what came after the last would take so long, and ten times as long as to make it."
    )
    max_machine_memory: Size = Field(64 << 30, description="Simulated RAM and swap of one machine, together.")
    max_pages_per_call: int = Field(1 << 23, ge=1, description="Accesses that one call may make.")
    max_advance: Duration = Field(24 * 3600 * 10**9, description="Simulated time that one request may let pass.")
    max_body: Size = Field(4 << 20, description="Bytes of one request.")
    max_trace: Size = Field(96 << 20, description="Bytes of one trace that is replayed.")
    max_batch: int = Field(10_000, ge=1, description="Operations of one batch.")
    max_answer: Size = Field(16 << 20, description="Bytes of one file read; ask for more with Range.")
    max_journal: int = Field(1_000_000, ge=1, description="Operations that one session may commit.")
    max_snapshots: int = Field(32, ge=1, description="Named snapshots of one session.")
    max_streams: int = Field(2048, ge=1, description="Open event streams of one session.")
    max_queue: int = Field(64, ge=1, description="Requests of one session that may wait for its turn; one more is answered 503.")
    max_waiting: int = Field(1024, ge=1, description="Requests of all sessions that may wait for a turn; one more is answered 503.")
    max_long_calls: int = Field(64, ge=1, description="Calls of over a millisecond that may be under way at once; one more is answered 503.")
    kernel_threads: int = Field(0, ge=0, description="Long calls that compute at the same time; 0: one for each processor.")
    session_ttl: Duration = Field(24 * 3600 * 10**9, description="A session that nobody used for so long is destroyed.")

    event_retention: int = Field(16_384, ge=16, description="Events a session keeps for those who resume.")
    send_timeout: float = Field(20.0, gt=0, description="Seconds a reader may block a stream before it is closed with 4429.")
    ws_deflate: bool = Field(False, description="Compress websockets (permessage-deflate): fewer bytes, several times the work and memory.")
    heartbeat: float = Field(15.0, gt=0, description="Seconds of silence after which a stream shows that it lives.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="What is written to the log, on standard error.")
    log_format: Literal["json", "console"] = Field("json", description="One JSON object a line, or lines for people to read.")
    access_log: float = Field(0.0, ge=0, le=1, description="The share of requests that is logged (at level info); failures of ours always are.")
    otel: bool = Field(False, description="Send traces to OpenTelemetry; where to is said by its own OTEL_ variables. Needs the extra `otel`.")
    drain_seconds: int = Field(5, ge=0, description="How long open requests may take to finish at shutdown.")

    @property
    def database_url(self) -> str:
        """The database's URL."""
        if self.database is not None:
            return self.database
        return "memory:" if self.data is None else f"sqlite:///{(self.data / 'sessions.sqlite').absolute()}"

    @property
    def loopback(self) -> bool:
        """True when only this machine can reach the service."""
        return _is_loopback(self.host)

    @property
    def open(self) -> bool:
        """An open service asks nobody for a token: on loopback while none is set, elsewhere only if that is said."""
        return (self.loopback or self.allow_anyone) and not self.asks

    @property
    def asks(self) -> bool:
        """True when the operator said that tokens are asked for."""
        return self.token is not None or self.require_tokens or self.oidc_issuer is not None

    def check(self) -> None:
        """Refuse an address that others can reach when nobody is asked, and settings that undo each other. Raises ValueError in plain words."""
        if not self.loopback and not self.asks and not self.allow_anyone:
            raise ValueError(
                f"{self.host} can be reached from other machines: set PAGEWALK_TOKEN to a secret that clients must send, or "
                "PAGEWALK_REQUIRE_TOKENS=1 and issue tokens with `pagewalk token issue`, or listen on 127.0.0.1; or say --allow-anyone"
            )
        if self.allow_anyone and self.asks:
            raise ValueError("PAGEWALK_ALLOW_ANYONE asks nobody, the other settings ask for tokens: say one of them")
        if self.oidc_issuer is not None and self.oidc_audience is None:
            raise ValueError("PAGEWALK_OIDC_AUDIENCE must say which of the tokens of PAGEWALK_OIDC_ISSUER are meant for this service")
        issuer = urlsplit(self.oidc_issuer or "")
        if issuer.scheme == "http" and not _is_loopback(issuer.hostname or ""):
            raise ValueError("PAGEWALK_OIDC_ISSUER: keys that come over http can be forged on the way: give an https address")
        if self.open and "*" in self.origins:
            raise ValueError('PAGEWALK_ORIGINS=["*"] would let any web page use a service that asks nobody for a token: list the origins')
