"""The compiler of page loops: one decorator, one cache that can never be stale.

A *compiled page loop* runs page after page over the columns of `mm_types.State` at a few nanoseconds a
page and returns at the first page that needs a decision it does not own. The same functions run
uncompiled with `NUMBA_DISABLE_JIT=1` (for stepping, coverage and as an oracle of the compiled ones).

numba keys its on-disk cache by the file of the *outermost* function only, so an edited callee in another
file would go unnoticed. The cache folder is therefore named after a hash of every decorated function and every
module constant under `core/`: a change to any of them means a fresh folder. This module is the one place in `core/` that looks at its
own surroundings; nothing here touches a simulated value.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

CORE = Path(__file__).parent


DECORATED = re.compile(r"^@(?:njit|inline|step)\n(?:def .*?)(?=^\S(?!\s*def ))", re.M | re.S)
CONSTANT = re.compile(r"^[A-Z][A-Z0-9_, ]* = .*?(?=^\S)", re.M | re.S)


def _source_hash() -> str:
    """A short digest of what compiled code is made of: decorated functions and module constants, in path order."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(CORE.rglob("*.py")):
        text = path.read_text() + "\nend\n"
        for part in (*CONSTANT.findall(text), *DECORATED.findall(text)):
            digest.update(part.encode())
    return digest.hexdigest()[:16]


def cache_dir() -> Path:
    """Where compiled loops are kept: `$PAGEWALK_CACHE` or the user's cache folder, by source hash."""
    root = os.environ.get("PAGEWALK_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "pagewalk" / _source_hash()


CONFIG: Any = numba.config
DISABLED = bool(CONFIG.DISABLE_JIT)  # NUMBA_DISABLE_JIT=1: every loop runs as plain Python
if not os.environ.get("NUMBA_CACHE_DIR"):
    CONFIG.CACHE_DIR = str(cache_dir())
_NJIT: Any = numba.njit


# Steps are called from compiled code only: without their Python entry points they compile in half the time.
WITHIN = {} if DISABLED else {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def njit(function: F) -> F:
    """Compile one page loop: cached on disk, without the GIL, integer arithmetic as C has it.

    `_nrt=False`: the loop owns nothing. It cannot allocate, and in exchange no array passed from step to step
    is reference-counted, which is worth a factor of twenty on a step of a few nanoseconds.
    """
    compiled: F = _NJIT(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)
    return compiled


def inline(function: F) -> F:
    """A page loop's step: compiled and left to LLVM to inline; not cached apart from its callers."""
    compiled: F = _NJIT(nogil=True, error_model="numpy", forceinline=True, _nrt=False, **WITHIN)(function)
    return compiled


def step(function: F) -> F:
    """A step that is called rather than inlined: the rare branches of a loop, which would only bloat it."""
    compiled: F = _NJIT(nogil=True, error_model="numpy", _nrt=False, **WITHIN)(function)
    return compiled


def _prefetch(typingctx: Any, array: Any, row: Any, column: Any) -> Any:
    """numba's intrinsic: LLVM's prefetch for writing, to all cache levels, of one element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        value = context.make_array(kind)(context, builder, args[0])
        at = [context.cast(builder, a, t, numba.types.intp) for a, t in zip(args[1:], signature.args[1:], strict=True)]
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, value, at), byte)
        shape = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, *(ir.Constant(i32, x) for x in (1, 3, 1))])
        return context.get_dummy_value()

    return numba.types.void(array, row, column), codegen


def _nothing(array: Any, row: int, column: int) -> None:
    """What prefetch is to a result."""


# `prefetch(array, row, column)`: the processor will want this element soon. It changes no result, only the wait for it.
prefetch: Any = _nothing if DISABLED else intrinsic(_prefetch)
