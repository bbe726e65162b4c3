"""The service as an ASGI app. Nothing happens at import: `create_app(settings)` builds it, its lifespan runs it."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse
from starlette.routing import Route

from app import errors
from app.edge import Edge
from app.host.registry import Registry
from app.identity.buckets import Bucket
from app.identity.gate import Gate
from app.identity.guard import require_rows
from app.identity.shield import Shield
from app.routes import cgroups, events, files, health, identity, keys, monitor, processes, programs, replay, sessions
from app.schemas import documents
from app.settings import Settings
from app.storage.identity import MemoryIdentity

WS_MAX_SIZE = 256 << 10
CORS: Final[dict[str, Any]] = {  # a page carries its token itself, so credentials (cookies) are never allowed
    "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "MKCOL", "PROPFIND"],
    "allow_headers": ["Authorization", "Content-Type", "Depth", "Idempotency-Key", "If-Match", "Last-Event-ID", "Range"],
    "expose_headers": ["Content-Range", "ETag", "Idempotent-Replayed", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After"],
    "allow_credentials": False,
    "max_age": 600,
}
SWITCH_S = 0.001  # a kernel in a thread gives the interpreter back to the event loop this often


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    registry: Registry = app.state.registry
    sys.setswitchinterval(SWITCH_S)
    gate: Gate = app.state.gate
    tasks = [asyncio.create_task(registry.sweep()), asyncio.create_task(gate.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await gate.note_use()
        registry.drain()
        registry.close()


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service.

    Parameters
    ----------
    settings : Settings, optional
        Default: from the environment.
    """
    settings = settings or Settings()
    registry = Registry(settings)
    gate = Gate(settings, MemoryIdentity())
    app = FastAPI(
        title="pagewalk",
        version=health.API_VERSION,
        description="A Linux 6.1 memory-management kernel you can curl.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=_layers(settings, registry, gate),
    )
    app.state.registry, app.state.gate = registry, gate
    app.router.routes.insert(0, processes.HOT)
    modules = (processes, files, cgroups, events, sessions, keys, identity, monitor, programs, replay, health)
    for module in modules:
        app.include_router(module.router)
    app.state.table = [processes.HOT, *(route for module in modules for route in module.router.routes)]
    app.add_api_route("/docs", _docs(app), include_in_schema=False, response_class=HTMLResponse)
    require_rows([*app.state.table, *(route for route in app.router.routes if isinstance(route, Route))])
    errors.install(app)
    app.openapi = lambda: documents.document(app)  # type: ignore[method-assign]
    return app


def _layers(settings: Settings, registry: Registry, gate: Gate) -> list[Middleware]:
    """What a request passes before it meets a route, outermost first."""
    address = None if settings.open or settings.rate_limit_address is None else Bucket("address", settings.rate_limit_address)
    layers = [Middleware(Shield, settings=settings, bucket=address, quota=gate.quota), Middleware(Edge, registry=registry)]
    if settings.origins:
        layers.insert(0, Middleware(CORSMiddleware, allow_origins=settings.origins, **CORS))
    return layers


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
        """Drain, then stop."""
        self._registry.drain()
        await super().shutdown(sockets)


def server(settings: Settings, app: FastAPI | None = None) -> Server:
    """A server for the service, with the limits that it needs; `.run(sockets=[...])` serves."""
    app = app or create_app(settings)
    return Server(config(settings, app), app.state.registry)


def config(settings: Settings, app: FastAPI) -> uvicorn.Config:
    """uvicorn's configuration for the service."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=WS_MAX_SIZE,
        timeout_graceful_shutdown=settings.drain_seconds,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
    )
