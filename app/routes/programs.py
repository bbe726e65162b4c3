"""What the service knows without a session: the ready-made programs and the steps of their language, the constants of time."""

from fastapi import APIRouter
from starlette.responses import Response

from app.identity.guard import GuardedRoute
from app.routes import reply
from app.schemas import docs
from core import calibration_table, program_catalogue

router = APIRouter(prefix="/v1", tags=["programs"], route_class=GuardedRoute)


@router.get("/programs", responses=docs.ok("ReadyPrograms"))
async def list_programs() -> Response:
    """Ready-made programs with their parameters, and the steps that a program may be made of."""
    return reply.json(program_catalogue())


@router.get("/calibration", responses=docs.ok("Calibration"))
async def read_calibration() -> Response:
    """Every constant of simulated time: its value, unit, source, and whether it was measured, fitted or assumed."""
    return reply.json({"items": calibration_table(), "next_page_token": None})
