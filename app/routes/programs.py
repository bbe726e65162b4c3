"""What the service knows without a session: the ready-made programs and the steps of their language."""

from fastapi import APIRouter
from starlette.responses import Response

from app.routes import reply
from app.schemas import docs
from core import program_catalogue

router = APIRouter(prefix="/v1", tags=["programs"])


@router.get("/programs", responses=docs.ok("ReadyPrograms"))
async def list_programs() -> Response:
    """Ready-made programs with their parameters, and the steps that a program may be made of."""
    return reply.json(program_catalogue())
