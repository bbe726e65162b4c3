"""How compiled code hands a machine's columns on: by reference.

A `NamedTuple` of arrays is, to numba, seven numbers an array: each call that LLVM does not inline would push all 220 of a `State` onto the stack,
most of the time of a step. Here it is one pointer to where they stand, written once when Python enters a loop, and never changed
while it runs: every load says so (`invariant.load`), so what LLVM knows of an array it knows until the loop returns.

The type's name stands for its layout by a digest. numba makes the name of every compiled step of the names of its arguments' types, and
the layout of a `State` is six thousand letters.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.core.typing.typeof import typeof_impl
from numba.extending import NativeValue, lower_getattr_generic, register_model, unbox

from core.jit import DISABLED

C = TypeVar("C", bound=type)
POINTER = ir.IntType(8).as_pointer()


class Columns(types.Type):
    """numba's type of a `by_reference` class, given the types of its arrays."""

    def __init__(self, values: Any) -> None:
        self.values = values
        super().__init__(f"{values.instance_class.__name__}_{hashlib.sha256(str(values).encode()).hexdigest()[:16]}")

    @property
    def key(self) -> Any:
        """Equal for equal classes with equal arrays."""
        return self.values.key


def by_reference(kind: C) -> C:
    """Class decorator for a NamedTuple of arrays: compiled code passes it by reference."""

    def typeof(value: Any, context: Any) -> Columns:
        return Columns(types.NamedTuple([typeof_impl(column, context) for column in value], kind))

    if not DISABLED:
        typeof_impl.register(kind)(typeof)
    return kind


@register_model(Columns)
class _Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, POINTER)


@infer_getattr
class _Attribute(AttributeTemplate):
    key = Columns

    def generic_resolve(self, columns: Any, name: str) -> Any:  # type: ignore[override]
        """The type of one array."""
        fields = columns.values.fields
        return columns.values[fields.index(name)] if name in fields else None


@lower_getattr_generic(Columns)
def _column(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    """One array's description, loaded number by number."""
    whole = builder.bitcast(value, context.get_value_type(kind.values).as_pointer())
    place = cgutils.gep_inbounds(builder, whole, 0, kind.values.fields.index(name))
    return _load(builder, place, context.get_value_type(kind.values[kind.values.fields.index(name)]))


def _load(builder: Any, place: Any, kind: Any) -> Any:
    """A value from memory that does not change."""
    if not isinstance(kind, (ir.LiteralStructType, ir.ArrayType)):
        number = builder.load(place)
        number.set_metadata("invariant.load", builder.module.add_metadata([]))
        return number
    members = kind.elements if isinstance(kind, ir.LiteralStructType) else [kind.element] * kind.count
    value = ir.Constant(kind, ir.Undefined)
    for at, member in enumerate(members):
        value = builder.insert_value(value, _load(builder, cgutils.gep_inbounds(builder, place, 0, at), member), at)
    return value


@unbox(Columns)
def _enter(kind: Any, obj: Any, c: Any) -> Any:
    """From Python: the arrays' descriptions are written where the loop finds them.

    The empty instruction keeps LLVM from seeing that the place was written at all, or it could move a load that never changes before it.
    """
    native = c.unbox(kind.values, obj)
    place = c.builder.bitcast(cgutils.alloca_once_value(c.builder, native.value), POINTER)
    place = c.builder.asm(ir.FunctionType(POINTER, [POINTER]), "", "=r,0,~{memory}", [place], True)
    return NativeValue(place, is_error=native.is_error, cleanup=native.cleanup)
