"""A simulated Linux 6.1 memory subsystem on x86-64, as a value: the public surface.

>>> from core import Kernel, Machine
>>> k = Kernel.boot(Machine.from_dict({"memory": "512M"}))
>>> pid = k.call("spawn", comm="a").result["pid"]
"""

from __future__ import annotations

from core.abi.errno import Errno
from core.calibration import calibration_table
from core.events import EVENTS, Event
from core.events import from_dict as event_from_dict
from core.fs.tree import FILES, FsError
from core.jit import cache_dir
from core.kernel import Kernel, Result
from core.machine import Costs, Machine
from core.mm.policy_client import Advisor
from core.mm.touches import Touched
from core.monitor import text as vmstat_text
from core.panic import KernelBug
from core.programs.program import catalogue as program_catalogue
from core.programs.program import parse as parse_program
from core.replay import MAX_SIZES, Trace, compare_policies, generate_trace, trace_from_bytes, trace_of_touches
from core.replay import POLICIES as REPLAY_POLICIES
from core.sentences import says
from core.syscalls.table import CALLS, Call, Param

__all__ = [
    "CALLS",
    "EVENTS",
    "FILES",
    "MAX_SIZES",
    "REPLAY_POLICIES",
    "Advisor",
    "Call",
    "Costs",
    "Errno",
    "Event",
    "FsError",
    "Kernel",
    "KernelBug",
    "Machine",
    "Param",
    "Result",
    "Touched",
    "Trace",
    "cache_dir",
    "calibration_table",
    "compare_policies",
    "event_from_dict",
    "generate_trace",
    "parse_program",
    "program_catalogue",
    "says",
    "trace_from_bytes",
    "trace_of_touches",
    "vmstat_text",
]
