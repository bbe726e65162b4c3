"""The service as an ASGI app. Nothing happens at import: `create_app(settings)` builds it, its lifespan runs it."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp

from app import errors
from app.edge import Edge
from app.host.registry import Registry
from app.routes import calls, cgroups, events, files, health, monitor, processes, programs, replay, sessions
from app.schemas import documents
from app.settings import Settings

WS_MAX_SIZE = 256 << 10
SWITCH_S = 0.001  # a kernel in a thread gives the interpreter back to the event loop this often


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    registry: Registry = app.state.registry
    sys.setswitchinterval(SWITCH_S)
    sweeper = asyncio.create_task(registry.sweep())
    try:
        yield
    finally:
        sweeper.cancel()
        registry.drain()
        registry.close()


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service.

    Parameters
    ----------
    settings : Settings, optional
        Default: from the environment.
    """
    registry = Registry(settings or Settings())
    app = FastAPI(
        title="pagewalk",
        version=health.API_VERSION,
        description="A Linux 6.1 memory-management kernel you can curl.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        middleware=[Middleware(Edge, registry=registry)],
    )
    app.state.registry = registry
    app.router.routes.insert(0, processes.HOT)
    modules = (processes, files, cgroups, events, calls, sessions, monitor, programs, replay, health)
    for module in modules:
        app.include_router(module.router)
    app.state.table = [processes.HOT, *(route for module in modules for route in module.router.routes)]
    app.add_api_route("/docs", _docs(app), include_in_schema=False, response_class=HTMLResponse)
    errors.install(app)
    app.openapi = lambda: documents.document(app)  # type: ignore[method-assign]
    return app


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


def config(settings: Settings, app: ASGIApp) -> uvicorn.Config:
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
    )
