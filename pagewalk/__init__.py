"""pagewalk for programs: `from pagewalk import Client`."""

from pagewalk.client import Client, Session
from pagewalk.errors import ProblemError, Unreachable

__all__ = ["Client", "ProblemError", "Session", "Unreachable"]
