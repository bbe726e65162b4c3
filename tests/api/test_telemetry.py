"""Traces: one span a request, named by its route, below the caller's span; none unless wanted."""

import asyncio
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from app import telemetry
from app.main import create_app
from app.settings import Settings
from app.telemetry import Traced
from tests.api.client import running


def traced(path: str, headers: tuple[tuple[bytes, bytes], ...] = (), method: str = "GET"):
    """The spans of one request to the app, without a socket."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    service = create_app(Settings())
    app = Traced(service, provider.get_tracer("test"))
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": list(headers),
             "http_version": "1.1", "scheme": "http", "server": ("x", 80), "client": ("y", 1), "root_path": "",
             "asgi": {"version": "3.0"}}  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        return None

    async def once():
        async with service.router.lifespan_context(service):
            await app(scope, receive, send)

    asyncio.run(once())
    return exporter.get_finished_spans()


def test_a_request_is_a_span_named_by_its_route():
    above = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = ((b"traceparent", above), (b"authorization", b"Bearer hush"), (b"x-request-id", b"mine"))
    (span,) = traced("/v1/sessions/s_secret/fs/proc/meminfo", headers)
    assert span.name == "GET /v1/sessions/{sid}/fs/{path:path}" and span.kind is SpanKind.SERVER
    assert span.attributes["http.response.status_code"] == 404 and span.attributes["pagewalk.request_id"] == "mine"
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c" and f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.status.status_code is StatusCode.UNSET
    assert "hush" not in span.to_json() and "s_secret" not in span.to_json()


def test_nothing_is_traced_unless_wanted():
    assert not [layer for layer in create_app(Settings()).user_middleware if layer.cls is Traced]
    assert [layer for layer in create_app(Settings(otel=True)).user_middleware if layer.cls is Traced]


def test_without_the_extra_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install"):
        telemetry.require()


def test_spans_are_sent_where_the_variables_say(monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
    got: list[tuple[str, bytes]] = []
    came = Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()
            came.set()

        def log_message(self, format, *args):
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_address[1]}")
        with running(otel=True) as service:
            assert service.http.get("/version").status_code == 200
        assert came.wait(20)
        collector.shutdown()
    assert got[0][0] == "/v1/traces" and b"GET /version" in got[0][1] and b"pagewalk" in got[0][1]
