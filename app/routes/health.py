"""Whether the service lives, is ready, and what it is."""

import asyncio
import resource
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.deps import TheRegistry
from app.errors import Problem
from app.host.meter import add
from app.host.registry import Registry
from app.logs import logger
from app.metrics import render
from app.routes import reply
from app.schemas import docs

router = APIRouter(tags=["operating"])
API_VERSION: Final = "1"
LINUX: Final = "6.1"
STORE_S: Final = 2.0  # that the database may take to say that it is there
log = logger("pagewalk.health")


def release() -> str:
    """The installed version of pagewalk."""
    try:
        return version("pagewalk")
    except PackageNotFoundError:
        return "0.0.0"


@router.get("/livez", responses=docs.ok("Status"))
async def livez() -> Response:
    """The service answers."""
    return reply.json({"status": "ok"})


@router.get("/readyz", responses=docs.ok("Status"))
async def readyz(registry: TheRegistry) -> Response:
    """The service takes work; 503 while it shuts down, or when its database does not answer."""
    if registry.draining:
        raise Problem(503, "draining", "the service shuts down", {"Retry-After": "5"})
    if registry.store is not None:
        try:
            async with asyncio.timeout(STORE_S):
                await registry.store.read(lambda conn: conn.exec_driver_sql("select 1").scalar())
        except Exception as error:
            log.error("the database does not answer", error=f"{type(error).__name__}: {error}")
            raise Problem(503, "no-database", "the database does not answer: nothing can be committed", {"Retry-After": "5"}) from None
    return reply.json({"status": "ok"})


@router.get("/metrics", response_class=Response, responses=docs.text("application/openmetrics-text", "Prometheus' format, or OpenMetrics by Accept."))
async def read_metrics(request: Request, registry: TheRegistry) -> Response:
    """What the service counts: requests, simulated faults, sessions, queues, streams; with several workers of all of them."""
    snapshots = await request.app.state.gather()
    data, media = render(add(snapshots), release(), request.headers.get("accept", ""))
    return Response(data, headers={"Content-Type": media})


def local_snapshot(registry: Registry) -> dict[str, Any]:
    """What this process counts."""
    return registry.meter.snapshot({"resident_bytes": float(_resident()), "workers": 1, **registry.gauges()})


def _resident() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


@router.get("/version", responses=docs.ok("Version"))
async def read_version() -> Response:
    """What runs here."""
    return reply.json({"name": "pagewalk", "version": release(), "api_version": API_VERSION, "linux": LINUX})
