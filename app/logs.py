"""The service's log: one JSON object a line on standard error, each with the id of the request that it is about.

structlog makes the lines, those of uvicorn and of the standard library included. What could be a secret does not get in: values under the
names of secrets and everything that looks like a bearer token, ours or a JSON Web Token, are blanked.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
BLANK: Final = "[secret]"
SECRET_NAMES: Final = re.compile(r"token|secret|password|authorization|cookie|api_?key", re.IGNORECASE)
SECRET_VALUES: Final = re.compile(r"\bpw_[a-z]+_[\w-]+|\beyJ[\w-]{8,}(?:\.[\w-]*)*|(?i:\bbearer\s+)[\w.~+/=-]+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")

Fields = MutableMapping[str, Any]


def add_request_id(_: object, __: str, event: Fields) -> Fields:
    """Name the request that is being answered."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def blank_secrets(_: object, __: str, event: Fields) -> Fields:
    """Take secrets out, by the names that they go under and by what they look like."""
    for name, value in event.items():
        if SECRET_NAMES.search(name):
            event[name] = BLANK
        elif isinstance(value, str):
            event[name] = SECRET_VALUES.sub(BLANK, value)
    return event


SHARED: Final[tuple[Processor, ...]] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    add_request_id,
)


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send the log of this process to `stream` (standard error) as `json` or for people to read (`console`)."""
    last: Processor = structlog.processors.JSONRenderer(default=str) if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    finish: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        blank_secrets,
        last,
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=SHARED, processors=finish))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of ours; before `configure` it says what the standard library's would."""
    return structlog.stdlib.BoundLogger(logging.getLogger(name), [structlog.stdlib.filter_by_level, *SHARED, _for_anyone], {})


def _for_anyone(log: Any, method: str, event: Fields) -> Any:
    """Hand on to the formatter when there is one, else as a plain line."""
    if any(isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter) for handler in logging.getLogger().handlers):
        return structlog.stdlib.ProcessorFormatter.wrap_for_formatter(log, method, event)
    return structlog.stdlib.render_to_log_kwargs(log, method, event)
