"""The compiler of page loops: one decorator, one cache that can never be stale.

A *compiled page loop* runs page after page over the columns of `mm_types.State` at a few nanoseconds a
page and returns at the first page that needs a decision it does not own. The same functions run
uncompiled with `NUMBA_DISABLE_JIT=1` (for stepping, coverage and as an oracle of the compiled ones).

numba keys its on-disk cache by the file of the *outermost* function only, so an edited callee in another file would go
unnoticed. Here a loop's key is what it is made of (`fingerprint`): its own code, that of every step it calls, theirs in turn, the
values of the constants they use, and the layout of the columns it is given. An edit compiles the loops that it reaches again,
and no others.

Compiling is the longest wait of a set-up, so nothing is compiled that never runs. numba makes machine code of every function that a loop
calls, optimized by itself, though the loop is linked from their intermediate code and optimized whole once more. Here a step stays
intermediate code (`_Part`): only loops become machine code. It halves the time, and the loops are the same.

This module is the one place in `core/` that looks at its own surroundings; nothing here touches a simulated value.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _Cache, _CacheLocator
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

CONFIG: Any = numba.config
DISABLED = bool(CONFIG.DISABLE_JIT)  # NUMBA_DISABLE_JIT=1: every loop runs as plain Python
_NJIT: Any = numba.njit


def cache_dir() -> Path:
    """Where compiled loops are kept: below `$PAGEWALK_CACHE` or the user's cache folder."""
    root = os.environ.get("PAGEWALK_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "pagewalk" / "loops"


def fingerprint(loop: Callable[..., Any], signature: object = "") -> str:
    """A digest of all that a loop is compiled from, with the types of its arguments: equal exactly when the machine code would be."""
    digest = hashlib.sha256(f"{numba.__version__}{_how()}{signature}".encode())
    _describe(_function(loop), digest.update, set())
    return digest.hexdigest()[:24]


@functools.cache
def _how() -> str:
    """The text of what tells numba how to compile."""
    return "".join(Path(__file__).with_name(name).read_text() for name in ("jit.py", "columns.py"))


def _function(value: Any) -> Any:
    """The Python function behind a compiled one."""
    return getattr(value, "py_func", value)


def _describe(function: Any, write: Callable[[bytes], None], seen: set[str]) -> None:
    """Write down one function and, depth first, the functions and constants that it names."""
    name = f"{function.__module__}.{function.__qualname__}"
    write(name.encode())
    if name in seen:
        return
    seen.add(name)
    _describe_code(function.__code__, write)
    for name, value in _named(function):
        if isinstance(_function(value), FunctionType):
            _describe(_function(value), write, seen)
        else:
            write(f"{name}={value!r};".encode())


def _named(function: Any) -> Iterator[tuple[str, Any]]:
    """The globals that a function names, and what it names of modules of ours."""
    names = function.__code__.co_names
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            if value.__name__.startswith("core"):
                yield from ((f"{name}.{member}", getattr(value, member)) for member in names if hasattr(value, member))
        else:
            yield name, value


def _describe_code(code: CodeType, write: Callable[[bytes], None]) -> None:
    """Instructions, constants and names; not the lines they stand on."""
    write(code.co_code)
    write(repr((code.co_names, code.co_varnames)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _describe_code(constant, write)
        else:
            write(repr(sorted(constant) if isinstance(constant, frozenset) else constant).encode())


class _Locator(_CacheLocator):
    """Tells numba's cache where a loop's machine code is, and under which key."""

    signature: object = ""

    def __init__(self, loop: Callable[..., Any]) -> None:
        self.loop = loop

    def get_cache_path(self) -> str:
        return str(cache_dir())

    def get_source_stamp(self) -> str:
        return ""  # the key says it all

    def get_disambiguator(self) -> str:
        return fingerprint(self.loop, self.signature)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func)


def _files(loop: Callable[..., Any], signature: object) -> FunctionCache:
    """numba's own cache of one function, for one signature: files of their own, so that no two builds ever write to the same."""
    locator = type("_LocatorOf", (_Locator,), {"signature": signature})
    results = type("_ResultsOf", (CompileResultCacheImpl,), {"_locator_classes": [locator]})
    cache: FunctionCache = type("_CacheOf", (FunctionCache,), {"_impl_class": results})(loop)
    return cache


class LoopCache(_Cache):
    """The cache of one loop. Its keys are made when the loop is first called: then everything that it names is defined."""

    def __init__(self, loop: Callable[..., Any]) -> None:
        self.loop = loop

    @property
    def cache_path(self) -> str:
        return str(cache_dir())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        return _files(self.loop, sig).load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the machine code, where that is possible: a folder that is read only (an image's) is no reason not to run."""
        with suppress(OSError):
            _files(self.loop, sig).save_overload(sig, data)

    def enable(self) -> None:
        """A cache of loops is always on."""

    def disable(self) -> None:
        """See `enable`."""

    def flush(self) -> None:
        """Keys never go stale: there is nothing to forget."""


class _Part(JITCodeLibrary):
    """A step's intermediate code, to be linked into loops: neither optimized on its own nor made machine code of."""

    @property
    def codegen(self) -> Any:
        """The step's constants need no place in memory: nobody calls it from Python."""
        return _NoEnvironment(self._codegen)

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    def _optimize_final_module(self) -> None:
        """The loop that it becomes part of is optimized whole."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _NoEnvironment:
    """A code generator that sets up no environment: everything else is the true one's."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, name: str, env: Any) -> None:
        """There is no machine code to hold one."""


class _PartCompiler(Compiler):
    """numba's pipeline, with a `_Part` as what it makes."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        super().__init__(typingctx, targetctx, library, *rest)
        self.state.library = _Part(targetctx.codegen(), "part")


# Steps are called from compiled code only, so they have no Python entry points either.
WITHIN: dict[str, Any] = {} if DISABLED else {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _PartCompiler}


def njit(function: F) -> F:
    """Compile one page loop: cached on disk, without the GIL, integer arithmetic as C has it.

    `_nrt=False`: the loop owns nothing. It cannot allocate, and in exchange no array passed from step to step
    is reference-counted, which is worth a factor of twenty on a step of a few nanoseconds.
    """
    compiled: Any = _NJIT(nogil=True, error_model="numpy", _nrt=False)(function)
    if not DISABLED:
        compiled._cache = LoopCache(function)
    result: F = compiled
    return result


def inline(function: F) -> F:
    """A page loop's step: compiled and left to LLVM to inline; not cached apart from its callers."""
    return _once(_NJIT(nogil=True, error_model="numpy", forceinline=True, _nrt=False, **WITHIN)(function))


def step(function: F) -> F:
    """A step that is called rather than inlined: the rare branches of a loop, which would only bloat it."""
    return _once(_NJIT(nogil=True, error_model="numpy", _nrt=False, **WITHIN)(function))


def _once(compiled: Any) -> Any:
    """numba compiles a step anew for each constant that it is called with (the type of `0` is "the literal 0"), and for each width of its numbers
    (a column's may be of 32 bits); here it is an integer. LLVM still sees the constant wherever it inlines the step.
    """
    if DISABLED:
        return compiled
    resolve = compiled.get_call_template

    def plainly(args: Any, kws: Any) -> Any:
        return resolve(tuple(map(_plain, args)), {name: _plain(kind) for name, kind in kws.items()})

    compiled.get_call_template = plainly
    return compiled


def _plain(kind: Any) -> Any:
    """The type that a step takes an argument as."""
    plain = numba.types.unliteral(kind)
    return numba.types.int64 if plain in numba.types.signed_domain else plain


def _prefetch(typingctx: Any, array: Any, row: Any, column: Any) -> Any:
    """numba's intrinsic: LLVM's prefetch for writing, to all cache levels, of one element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        value = context.make_array(kind)(context, builder, args[0])
        at = [context.cast(builder, a, t, numba.types.intp) for a, t in zip(args[1:], signature.args[1:], strict=True)][: kind.ndim]
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, value, at), byte)
        shape = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, *(ir.Constant(i32, x) for x in (1, 3, 1))])
        return context.get_dummy_value()

    return numba.types.void(array, row, column), codegen


def _nothing(array: Any, row: int, column: int) -> None:
    """What prefetch is to a result."""


# `prefetch(array, row, column)`: the processor will want this element (of a table without columns: this row) soon.
# It changes no result, only the wait for it.
prefetch: Any = _nothing if DISABLED else intrinsic(_prefetch)
