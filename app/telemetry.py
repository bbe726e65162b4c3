"""Traces for OpenTelemetry, off unless `PAGEWALK_OTEL` says otherwise: one span a request, below the span of whoever asked.

Needs the extra `otel` (`pip install -e '.[otel]'`). Where spans go is said by OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`. A stream of events is one span, not one a message.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import REQUEST_ID

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

MISSING = "PAGEWALK_OTEL needs OpenTelemetry: pip install -c constraints.txt -e '.[otel]'"


def require() -> None:
    """Raises ValueError in plain words when OpenTelemetry is not installed."""
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        raise ValueError(MISSING)


def start() -> Callable[[], None]:
    """Send the spans of this process to where OpenTelemetry's variables say; returns how to end. Raises ValueError when it is not installed."""
    require()
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource({SERVICE_NAME: "pagewalk"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


class Traced:
    """An ASGI layer around the whole app: a span for each request and each websocket.

    Parameters
    ----------
    app : ASGIApp
        What is inside.
    tracer : Tracer, optional
        Default: that of the process.
    """

    def __init__(self, app: ASGIApp, tracer: "Tracer | None" = None) -> None:
        from opentelemetry import propagate, trace

        self.app, self._tracer, self._trace, self._propagate = app, tracer or trace.get_tracer("pagewalk"), trace, propagate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope.get("method", "WEBSOCKET")
        above = self._propagate.extract(headers)
        with self._tracer.start_as_current_span(method, context=above, kind=self._trace.SpanKind.SERVER) as span:

            async def send_seen(message: Message) -> None:
                if message["type"] in ("http.response.start", "websocket.accept"):
                    _describe(span, scope, method, message.get("status", 101))
                await send(message)

            await self.app(scope, receive, send_seen)


def _describe(span: "Span", scope: Scope, method: str, status: int) -> None:
    """Name a span for its route; addresses, bodies and tokens stay out of it."""
    route = getattr(scope.get("route"), "path", None) or scope.get("template") or "none"
    found: dict[str, Any] = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
    span.update_name(f"{method} {route}")
    span.set_attributes(found | {"pagewalk.request_id": REQUEST_ID.get() or ""})
    if status >= 500:
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR))
