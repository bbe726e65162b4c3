"""A kernel of this process as a target of operations: what `pagewalk run` and the conformance suite use by default.

The same request models and renderers as the routes stand before it, so a file of operations means the same here and
over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from app.errors import from_validation
from app.schemas.calls import OP_ADAPTER, render_result, to_op
from app.schemas.kinds import hex_address
from app.target import DEAD_STATES, Answer, Operation, Refused
from core import FsError, Kernel, Machine, Result


class KernelTarget:
    """A `core.Kernel` of this process, behind the same models as the routes: the same bodies, the same answers."""

    def __init__(self, machine: Mapping[str, Any] | None = None, seed: int = 0) -> None:
        try:
            built = Machine.from_dict(dict(machine or {}))
        except ValueError as error:
            raise Refused(422, str(error)) from error
        self.kernel = Kernel.boot(built, seed)

    def apply(self, op: Operation) -> Answer:
        with refusals():
            call = to_op(OP_ADAPTER.validate_python(op))
            result = self.kernel.call(call.op, call.pid, **call.args)
        return self._answer(call.op, result)

    def _answer(self, op: str, result: Result) -> Answer:
        address = result.fault_address
        return {
            "result": render_result(op, result.result),
            "errno": result.errno,
            "signal": result.signal,
            "fault_address": None if address is None else hex_address(address),
            "faults": {"minor": result.minor, "major": result.major},
            "killed": list(result.killed),
            "elapsed_ns": result.elapsed_ns,
            "clock_ns": self.kernel.clock_ns,
            **({"tlb": result.tlb} if result.tlb is not None else {}),
        }

    def read(self, path: str) -> bytes:
        with refusals():
            return self.kernel.read(path)

    def pread(self, path: str, offset: int, length: int) -> bytes:
        with refusals():
            return self.kernel.pread(path, offset, length)

    def live(self) -> set[int]:
        rows = self.kernel.view("processes")
        return {row["pid"] for row in rows if row["state"] not in DEAD_STATES}

    def close(self) -> None:
        pass


FS_STATUS = {"ENOENT": 404, "ESRCH": 404, "EBUSY": 409, "EEXIST": 409, "EACCES": 403, "EPERM": 403}


@contextmanager
def refusals() -> Iterator[None]:
    """The core's and the models' refusals, as the service would give them."""
    try:
        yield
    except FsError as error:
        raise Refused(FS_STATUS.get(error.errno, 422), str(error), error.errno) from error
    except ValidationError as error:
        raise Refused(422, from_validation(error).detail) from error
    except LookupError as error:
        raise Refused(404, str(error.args[0]) if error.args else "no such process") from error
