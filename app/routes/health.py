"""Whether the service lives, is ready, and what it is."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from app.deps import TheRegistry
from app.errors import Problem
from app.routes import reply
from app.schemas import docs

router = APIRouter(tags=["operating"])
API_VERSION: Final = "1"
LINUX: Final = "6.1"


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
    """The service takes work; 503 while it shuts down."""
    if registry.draining:
        raise Problem(503, "draining", "the service shuts down", {"Retry-After": "5"})
    return reply.json({"status": "ok"})


@router.get("/version", responses=docs.ok("Version"))
async def read_version() -> Response:
    """What runs here."""
    return reply.json({"name": "pagewalk", "version": release(), "api_version": API_VERSION, "linux": LINUX})
