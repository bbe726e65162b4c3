"""The service's settings: every one has a safe default, `PAGEWALK_<NAME>` in the environment overrides it."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.schemas.kinds import parse_duration, parse_size

Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[int, BeforeValidator(parse_duration)]


class Settings(BaseSettings):
    """What an operator may choose. Sizes take `512M`, durations take `30s`."""

    model_config = SettingsConfigDict(env_prefix="PAGEWALK_", env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    root_path: str | None = Field(
        None, pattern=r"^(/[\w.~%-]+)+$", description="The part of the address space that a proxy gives the service: `/pagewalk`."
    )
    data: Path | None = Field(None, description="Where sessions are kept; memory only when absent.")
    workers: int = Field(1, ge=1, le=256, description="Worker processes; sessions are spread over them.")
    token: SecretStr | None = Field(None, description="The operator's bearer token: may create, list and enter every session.")
    origins: list[str] = Field([], description="Web origins, besides the service's own, whose pages may open a websocket.")

    max_sessions: int = Field(256, ge=1)
    max_machine_memory: Size = Field(64 << 30, description="Simulated RAM and swap of one machine, together.")
    max_pages_per_call: int = Field(1 << 23, ge=1, description="Accesses that one call may make.")
    max_advance: Duration = Field(24 * 3600 * 10**9, description="Simulated time that one request may let pass.")
    max_body: Size = Field(4 << 20, description="Bytes of one request.")
    max_trace: Size = Field(96 << 20, description="Bytes of one trace that is replayed.")
    max_batch: int = Field(10_000, ge=1, description="Operations of one batch.")
    max_answer: Size = Field(16 << 20, description="Bytes of one file read; ask for more with Range.")
    max_journal: int = Field(1_000_000, ge=1, description="Operations that one session may commit.")
    max_snapshots: int = Field(32, ge=1, description="Named snapshots of one session.")
    max_streams: int = Field(64, ge=1, description="Open event streams of one session.")
    max_queue: int = Field(64, ge=1, description="Requests of one session that may wait for its turn; one more is answered 503.")
    max_waiting: int = Field(1024, ge=1, description="Requests of all sessions that may wait for a turn; one more is answered 503.")
    max_long_calls: int = Field(64, ge=1, description="Calls of over a millisecond that may be under way at once; one more is answered 503.")
    kernel_threads: int = Field(0, ge=0, description="Long calls that compute at the same time; 0: one for each processor.")
    session_ttl: Duration = Field(24 * 3600 * 10**9, description="A session that nobody used for so long is destroyed.")

    event_retention: int = Field(16_384, ge=16, description="Events a session keeps for those who resume.")
    send_timeout: float = Field(20.0, gt=0, description="Seconds a reader may block a stream before it is closed with 4429.")
    heartbeat: float = Field(15.0, gt=0, description="Seconds of silence after which a stream shows that it lives.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="What is written to the log, on standard error.")
    log_format: Literal["json", "console"] = Field("json", description="One JSON object a line, or lines for people to read.")
    access_log: float = Field(0.0, ge=0, le=1, description="The share of requests that is logged (at level info); failures of ours always are.")
    drain_seconds: int = Field(5, ge=0, description="How long open requests may take to finish at shutdown.")

    @property
    def loopback(self) -> bool:
        """True when only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def open(self) -> bool:
        """An open service asks nobody for a token: loopback without an operator's token."""
        return self.token is None and self.loopback

    def check(self) -> None:
        """Refuse an address that others can reach when there is no token. Raises ValueError in plain words."""
        if self.token is None and not self.loopback:
            raise ValueError(
                f"{self.host} can be reached from other machines: set PAGEWALK_TOKEN to a secret that clients must send, or listen on 127.0.0.1"
            )
