"""The events as JSON Schema, made from the core's catalogue."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Final

from app.schemas.views import is_address
from core import EVENTS, Event

BATCH: Final = 256  # events of one message at most
_SIMPLE: Final[Mapping[Any, str]] = {int: "integer", str: "string", bool: "boolean", float: "number"}
_HEAD: Final[Mapping[str, Any]] = {"id": {"type": "integer"}, "seq": {"type": "integer"}, "clock_ns": {"type": "integer"}}
_HEX: Final[Mapping[str, Any]] = {"type": "string", "pattern": "^0x[0-9a-f]+$"}


def _schema(hint: Any) -> dict[str, Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        parts = [_schema(item) for item in typing.get_args(hint) if item is not type(None)]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    if origin is typing.Literal:
        return {"enum": list(typing.get_args(hint))}
    if origin in (list, tuple) or hint in (list, tuple):
        args = [item for item in typing.get_args(hint) if item is not Ellipsis]
        return {"type": "array"} | ({"items": _schema(args[0])} if args else {})
    if origin is dict or hint is dict:
        return {"type": "object"}
    return {"type": _SIMPLE[hint]} if hint in _SIMPLE else {}


def _optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _event_schema(name: str, kind: type[Event]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind) if field.name not in _HEAD]
    members = {key: dict(_HEX) if is_address(key) else _schema(hints[key]) for key in fields}
    required = [*_HEAD, "type", *(key for key in fields if not _optional(hints[key]))]
    return {
        "type": "object",
        "description": inspect.getdoc(kind) or name,
        "properties": {**_HEAD, "type": {"const": name}, **members},
        "required": required,
    }


def _control(name: str, doc: str, members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": doc,
        "properties": {**_HEAD, "type": {"const": name}, **members},
        "required": [*_HEAD, "type", *members],
    }


def event_schemas() -> dict[str, dict[str, Any]]:
    """Each type of event, and those that tell about the stream and the service."""
    number = {"type": "integer"}
    gap = {"from": number, "to": number, "reason": {"enum": ["slow", "rewind"]}}
    maybe = {"anyOf": [number, {"type": "null"}]}
    unit = {"enum": ["pages", "ns", "operations"]}
    progress = {"call": number, "op": {"type": "string"}, "pid": maybe, "done": number, "total": maybe, "unit": unit}
    control = {
        "gap": _control("gap", "Events that this reader will not get: it was too slow, or the session went back in time. Read the state again.", gap),
        "progress": _control("progress", "How far a long call is; told while it runs, to those who listen, and not kept.", progress),
        "end": _control(
            "end",
            "The last of server-sent events or JSON Lines: the caller's token was revoked or has run out, what he may do changed, the session was "
            "deleted, or the service restarts (resume after this id then). A websocket says it by its closing code.",
            {"reason": {"enum": ["revoked", "expired", "changed", "deleted", "restarting"]}},
        ),
        "bookmark": _control("bookmark", "Nothing to tell up to this id; resume after it.", {}),
    }
    return {name: _event_schema(name, kind) for name, kind in EVENTS.items()} | control
