"""Request models made from the syscall table: one source for the routes, the batch union, the journal and the documents.

For each row of core.CALLS there are two models: the body of its own route, and the same with `op` and `pid` for a batch and the
journal. Nothing about a call is written here; a new row there is a new route here.

The models are the documents, and they say what is wrong with a body. A body that is right is read by their parsers alone (`_Reader`): of the 5 µs
that a model costs for each operation, half is the model.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Annotated, Any, Final, Literal, NamedTuple, Union

import orjson
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, WithJsonSchema, create_model

from app.errors import Problem, from_validation, malformed
from app.schemas.kinds import KINDS, MAX_I64, same
from core import CALLS, Call, Param

PAGE: Final = 4096
MAX_PID: Final = (1 << 22) - 1
SCALARS: Final = frozenset({"int", "size", "address", "duration", "bool", "prot", "choice"})  # kinds whose values are short and never change
REMEMBERED: Final = 512  # values of an argument


class Op(NamedTuple):
    """One operation on a kernel: a row of CALLS, who makes it, and its clean arguments."""

    op: str
    pid: int | None
    args: Mapping[str, Any]


class Body(BaseModel):
    """What every request body is: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="utf8")


def _one_of(choices: tuple[str, ...], value: object) -> Any:
    if value in choices and isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is not one of: {', '.join(choices)}")


def _some_of(choices: tuple[str, ...], value: object) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list of: {', '.join(choices)}")
    return [_one_of(choices, item) for item in value]


def _within(parse: Callable[[object], Any], low: int | None, high: int | None, value: object) -> Any:
    clean = parse(value)
    for number in clean if isinstance(clean, list) else (clean,):
        if (low is not None and number < low) or (high is not None and number > high):
            raise ValueError(f"{value!r} is out of range: it must lie between {low} and {high}")
    return clean


def _or_none(parse: Callable[[object], Any], value: object) -> Any:
    return None if value is None else parse(value)


def _parser(param: Param) -> Callable[[object], Any]:
    """The function that makes a clean argument of a JSON value."""
    parse = KINDS[param.kind].parse
    if param.choices:
        choices = tuple(param.choices)
        parse = partial(_some_of if param.kind == "flags" else _one_of, choices)
    if param.minimum is not None or param.maximum is not None:
        parse = partial(_within, parse, param.minimum, param.maximum)
    return parse if param.required or param.default is not None else partial(_or_none, parse)


def _remembered(param: Param) -> Callable[[object], Any]:
    """`_parser`, for bodies that are right: what a scalar was read as is remembered, by its type too. A list where none may be raises TypeError."""
    return lru_cache(REMEMBERED, typed=True)(_parser(param)) if param.kind in SCALARS else _parser(param)


def _bounded(schema: dict[str, Any], param: Param) -> dict[str, Any]:
    if "anyOf" in schema:
        return schema | {"anyOf": [_bounded(dict(item), param) for item in schema["anyOf"]]}
    if schema.get("type") == "array" and param.kind == "ints":
        return schema | {"items": _bounded(dict(schema["items"]), param)}
    if schema.get("type") != "integer":
        return schema
    low = {} if param.minimum is None else {"minimum": param.minimum}
    high = {} if param.maximum is None else {"maximum": param.maximum}
    return schema | low | high


def schema_of(param: Param) -> dict[str, Any]:
    """The JSON Schema of one argument."""
    schema = _bounded(dict(KINDS[param.kind].schema), param)
    if param.choices:
        words = {"type": "string", "enum": list(param.choices)}
        schema = {"type": "array", "items": words} if param.kind == "flags" else words
    if not param.required and param.default is None:
        schema = {"anyOf": [*schema.get("anyOf", [{k: v for k, v in schema.items() if k != "examples"}]), {"type": "null"}]}
    elif not param.required:
        schema = schema | {"default": KINDS[param.kind].render(param.default)}
    return schema | {"description": param.doc}


def _field(param: Param) -> tuple[Any, Any]:
    kind = Annotated[Any, PlainValidator(_parser(param)), WithJsonSchema(schema_of(param))]
    return (kind, ... if param.required else param.default)


def _pascal(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _body_model(name: str, call: Call) -> type[Body]:
    fields: dict[str, Any] = {key: _field(param) for key, param in call.params.items()}
    return create_model(f"{_pascal(name)}Body", __base__=Body, __doc__=call.doc, **fields)


PID: Final = Param("int", "The process that makes the call.", minimum=1, maximum=MAX_PID)
SEQ: Final = Param("int", "The operation's number in a journal; not read.", required=False, minimum=0, maximum=MAX_I64)


def _op_model(name: str, call: Call) -> type[Body]:
    fields: dict[str, Any] = {key: _field(param) for key, param in call.params.items()}
    fields |= {"op": (Literal[name], ...), "seq": _field(SEQ)}
    if call.process:
        fields["pid"] = _field(PID)
    return create_model(f"{_pascal(name)}Op", __base__=Body, __doc__=call.doc, **fields)


BODIES: Final[Mapping[str, type[Body]]] = {name: _body_model(name, call) for name, call in CALLS.items()}
OPS: Final[Mapping[str, type[Body]]] = {name: _op_model(name, call) for name, call in CALLS.items()}
_UNION: Final[Any] = Annotated[Union[tuple(OPS.values())], Field(discriminator="op")]  # noqa: UP007
OP_ADAPTER: Final[TypeAdapter[Any]] = TypeAdapter(_UNION)

_VALIDATE: Final = {name: model.__pydantic_validator__.validate_json for name, model in BODIES.items()}
_ADDRESSES: Final = {name: tuple(key for key, kind in call.returns.items() if kind == "address") for name, call in CALLS.items()}


class _Reader:
    """The arguments of one call from a JSON object that is right; whatever is not, the model says how.

    Parameters
    ----------
    params : mapping
        By name; those that are not arguments of the call are read and left out.
    """

    __slots__ = ("_defaults", "_parsers", "_required")

    def __init__(self, params: Mapping[str, Param]) -> None:
        self._parsers = {name: _remembered(param) for name, param in params.items()}
        self._required = frozenset(name for name, param in params.items() if param.required)
        self._defaults = {name: param.default for name, param in params.items() if not param.required and param.default is not None}

    def read(self, members: Mapping[str, object]) -> dict[str, Any]:
        """Clean arguments. Raises ValueError, KeyError, TypeError."""
        clean, parsers = self._defaults.copy(), self._parsers
        for name, value in members.items():
            if (found := parsers[name](value)) is not None:
                clean[name] = found
        if not self._required <= clean.keys():
            raise KeyError(*self._required - clean.keys())
        return clean


_BODY_READERS: Final = {name: _Reader(call.params) for name, call in CALLS.items()}
_OP_READERS: Final = {
    name: _Reader({**call.params, "op": Param("choice", "", choices=(name,)), "seq": SEQ, **({"pid": PID} if call.process else {})})
    for name, call in CALLS.items()
}


def _clean(model: Any) -> dict[str, Any]:
    return {key: value for key, value in model.__dict__.items() if value is not None}


def process_call(name: str) -> Call:
    """The row of a process's call. Raises a 404 that lists what there is."""
    call = CALLS.get(name)
    if call is None or not call.process:
        known = ", ".join(sorted(key for key, row in CALLS.items() if row.process))
        raise Problem(404, "no-such-call", f"there is no call named {name[:60]!r}: there are {known}")
    return call


def parse_body(name: str, raw: bytes) -> dict[str, Any]:
    """The clean arguments of one call, from the bytes of its route's body. Raises a 422."""
    raw = raw or b"{}"
    try:
        return _BODY_READERS[name].read(orjson.loads(raw))
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    try:
        return _clean(_VALIDATE[name](raw))
    except ValidationError as error:
        raise from_validation(error) from None


def to_op(model: Any) -> Op:
    """An operation from a validated member of the union."""
    return _op(_clean(model))


def _op(args: dict[str, Any]) -> Op:
    args.pop("seq", None)
    return Op(args.pop("op"), args.pop("pid", None), args)


def parse_op(raw: bytes) -> Op:
    """An operation from the bytes that a journal has. Raises ValidationError."""
    try:
        return _read_op(orjson.loads(raw))
    except (ValueError, KeyError, TypeError, AttributeError):
        return to_op(OP_ADAPTER.validate_json(raw))


def _read_op(members: dict[str, Any]) -> Op:
    return _op(_OP_READERS[members["op"]].read(members))


Batch: Final[type[Body]] = create_model(
    "Batch",
    __base__=Body,
    __doc__="Many operations, carried out in order.",
    ops=(list[_UNION], Field(description="The operations; a line of a journal is one.")),
    stop_on_error=(bool, Field(False, strict=True, description="Stop after the first operation that answers an errno, a signal or a problem.")),
)


def _read_batch(raw: bytes) -> tuple[list[Op], bool]:
    """A batch that is right. Raises what makes it something else."""
    batch = orjson.loads(raw)
    stop = batch.pop("stop_on_error", False)
    ops = batch.pop("ops")
    if batch or not isinstance(stop, bool) or not isinstance(ops, list):
        raise ValueError("it is no batch")
    return list(map(_read_op, ops)), stop


def parse_batch(raw: bytes, limit: int) -> tuple[list[Op], bool]:
    """The operations of a batch and whether to stop at the first error. Raises a 422; nothing is carried out then."""
    try:
        ops, stop = _read_batch(raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        ops, stop = _validate_batch(raw)
    if len(ops) > limit:
        detail = f"a batch holds at most {limit} operations, this one {len(ops)}: send it in parts"
        raise malformed([{"loc": ("ops",), "msg": detail, "type": "too_long"}])
    return ops, stop


def _validate_batch(raw: bytes) -> tuple[list[Op], bool]:
    """By the model, which says what is wrong."""
    try:
        batch: Any = Batch.model_validate_json(raw)
    except ValidationError as error:
        raise from_validation(error) from None
    return [to_op(model) for model in batch.ops], batch.stop_on_error


def parse_pid(text: str) -> int:
    """A pid from a path. Raises a 404: what is no number names no process."""
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    raise Problem(404, "no-such-process", f"{text[:40]!r} is not a pid: it is a whole number, as POST .../processes answers it")


_RENDER: Final = {  # argument → its default, and its renderer where JSON does not hold it as it is
    name: {key: (param.default, None if KINDS[param.kind].render is same else KINDS[param.kind].render) for key, param in call.params.items()}
    for name, call in CALLS.items()
}


def render_op(op: Op) -> dict[str, Any]:
    """An operation as a JSON object: what a batch takes and a journal keeps."""
    rendered: dict[str, Any] = {"op": op.op} if op.pid is None else {"op": op.op, "pid": op.pid}
    params = _RENDER[op.op]
    for key, value in op.args.items():
        default, render = params[key]
        if value != default and key not in rendered:
            rendered[key] = value if render is None else render(value)
    return rendered


def accesses(op: Op) -> int:
    """How many pages a call may have to handle, from its arguments alone: the measure of its work."""
    get = op.args.get
    pages = get("pages")
    count = len(pages) if pages is not None else -(-int(get("length") or get("old_length") or 0) // PAGE)
    if (stride := get("stride")) and stride > 1:
        count //= stride
    return count * repeat if (repeat := get("repeat")) else count


def render_result(op: str, result: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A call's result with its addresses in hexadecimal."""
    keys = _ADDRESSES[op]
    if not result or not keys:
        return result
    return {key: f"{value:#x}" if key in keys and isinstance(value, int) else value for key, value in result.items()}


def render_schema(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in a few words, for tables."""
    if "anyOf" in schema:
        return " or ".join(render_schema(item) for item in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{item}`" for item in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {render_schema(schema.get('items', {})) or 'values'}"
    return "address" if schema.get("pattern") == "^0x[0-9a-f]+$" else str(schema.get("type", "any"))
