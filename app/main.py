"""The service as an ASGI app. Nothing happens at import: `create_app(settings)` builds it, its lifespan runs it."""

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app import errors, telemetry
from app.connections import HttpConnection
from app.edge import Edge
from app.host.registry import Registry
from app.identity.buckets import Bucket
from app.identity.gate import Gate
from app.identity.guard import require_rows, schemes
from app.identity.oidc import Provider
from app.identity.shield import Shield
from app.observe import Observe
from app.prefix import Prefix
from app.routes import calls, cgroups, events, files, health, hot, identity, keys, monitor, processes, programs, replay, sessions
from app.schemas import documents
from app.settings import Settings
from app.storage.identity import IdentityStore, adopt

WS_MAX_SIZE = 256 << 10
CORS: Final[dict[str, Any]] = {  # a page carries its token itself, so credentials (cookies) are never allowed
    "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "MKCOL", "PROPFIND"],
    "allow_headers": ["Authorization", "Content-Type", "Depth", "Idempotency-Key", "If-Match", "Last-Event-ID", "Range", "X-Request-Id"],
    "expose_headers": [
        "Content-Range", "ETag", "Idempotent-Replayed", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id",
    ],
    "allow_credentials": False,
    "max_age": 600,
}
GOODBYE_S = 2.0  # for streams to be closed with a reason
PATIENCE = 0.8  # of the drain time; then long calls are cancelled
GARBAGE = (2_000, 5, 1_000)  # objects and rounds after which Python looks for circles of garbage
SWITCH_S = 0.0002  # whoever computes gives the interpreter to a thread that waits for it this often


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    registry: Registry = app.state.registry
    sys.setswitchinterval(SWITCH_S)
    app.state.loop = asyncio.get_running_loop()
    await registry.start()
    gate: Gate = app.state.gate
    gate.store = IdentityStore(registry.writer)
    if registry.settings.data is not None:
        await asyncio.to_thread(adopt, registry.writer.database, registry.settings.data)
    tasks = [asyncio.create_task(registry.sweep()), asyncio.create_task(gate.run())]
    end_traces = telemetry.start() if registry.settings.otel else None
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await gate.note_use()
        registry.drain()
        registry.abandon()
        await asyncio.sleep(0)
        await registry.stop()
        registry.close()
        if end_traces is not None:
            end_traces()


class Service(FastAPI):
    """FastAPI, with the hot routes behind the same layers but beside the framework: of what it costs they need nothing."""

    _hot: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if not hot.matches(scope):
            await super().__call__(scope, receive, send)
            return
        if self._hot is None:
            self._hot = self._layered(hot.serve)
        scope["app"] = self
        await self._hot(scope, receive, send)

    def _layered(self, app: ASGIApp) -> ASGIApp:
        for layer, args, kwargs in reversed(self.user_middleware):
            app = layer(app, *args, **kwargs)
        return app


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service; its settings are by default the environment's."""
    settings = settings or Settings()
    registry = Registry(settings)
    gate = Gate(settings, Provider(settings) if settings.oidc_issuer else None)
    app = Service(
        title="pagewalk",
        version=health.API_VERSION,
        description="A Linux 6.1 memory-management kernel you can curl.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        middleware=_layers(registry, gate),
    )
    app.state.registry, app.state.gate = registry, gate
    app.state.gather = _gather_here(registry)
    app.state.security = schemes
    app.router.routes[:0] = hot.ROUTES
    modules = (processes, files, cgroups, events, calls, sessions, keys, identity, monitor, programs, replay, health)
    for module in modules:
        app.include_router(module.router)
    app.state.table = [*hot.ROUTES, *(route for module in modules for route in module.router.routes)]
    app.add_api_route("/docs", _docs(app), include_in_schema=False, response_class=HTMLResponse)
    require_rows([*app.state.table, *(route for route in app.router.routes if isinstance(route, Route))])
    errors.install(app)
    app.openapi = lambda: documents.document(app)  # type: ignore[method-assign]
    return app


def _layers(registry: Registry, gate: Gate) -> list[Middleware]:
    """What every request passes, the outermost first."""
    settings = registry.settings
    address = None if settings.open or settings.rate_limit_address is None else Bucket("address", settings.rate_limit_address)
    traced = [Middleware(telemetry.Traced)] if settings.otel else []
    return [
        Middleware(Observe, meter=registry.meter, share=settings.access_log),
        *traced,
        *([Middleware(CORSMiddleware, allow_origins=settings.origins, **CORS)] if settings.origins else []),
        Middleware(Shield, settings=settings, bucket=address, quota=gate.quota),
        Middleware(Edge, registry=registry, under_way=set()),
    ]


def _gather_here(registry: Registry) -> Callable[[], Awaitable[list[dict[str, Any]]]]:
    """What this process counts; several workers put a function of theirs in its place that asks them all."""

    async def gather() -> list[dict[str, Any]]:
        return [health.local_snapshot(registry)]

    return gather


def _docs(app: FastAPI) -> Any:
    async def show() -> HTMLResponse:
        return HTMLResponse(documents.page(app.openapi()))

    return show


class Server(uvicorn.Server):
    """uvicorn, which ends the event streams before it waits for open requests."""

    def __init__(self, config: uvicorn.Config, registry: Registry) -> None:
        super().__init__(config)
        self._registry = registry

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let streams say goodbye, let open requests finish; long calls that would not in time are cancelled, and answered so."""
        self._registry.drain()
        await self._registry.goodbyes(min(GOODBYE_S, self._registry.settings.drain_seconds))
        last_call = asyncio.create_task(self._last_call(self._registry.settings.drain_seconds * PATIENCE))
        try:
            await super().shutdown(sockets)
        finally:
            last_call.cancel()

    async def _last_call(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._registry.abandon()


def settle_in() -> None:
    """For a process that does nothing but serve, once all is loaded: what is there now stays, so collections of garbage need not look at it.

    The event loop stands still while they are looked for: ten milliseconds for every 25,000 objects. So the young are looked at often and few at
    a time. A collection of everything walks the objects of all sessions in memory; neither kernels nor connections have circles, so it finds
    next to nothing, and is wanted seldom.
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE)


def server(settings: Settings, app: FastAPI | None = None) -> Server:
    """A server for the service, with the limits that it needs; `.run(sockets=[...])` serves."""
    app = app or create_app(settings)
    return Server(config(settings, app), app.state.registry)


def config(settings: Settings, app: ASGIApp) -> uvicorn.Config:
    """uvicorn's configuration for the service."""
    return uvicorn.Config(
        Prefix(app, settings.root_path) if settings.root_path else app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,
        lifespan="on",
        server_header=False,
        http=HttpConnection,
        ws="websockets-sansio",
        ws_max_size=WS_MAX_SIZE,
        ws_per_message_deflate=settings.ws_deflate,
        timeout_graceful_shutdown=settings.drain_seconds,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
    )
