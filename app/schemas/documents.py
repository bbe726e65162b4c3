"""The documents: openapi.json, asyncapi.yaml and the tables of calls, files and events, made from the code."""

import html
import json
from collections.abc import Mapping
from typing import Any, Final

import yaml
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.schemas import docs
from app.schemas.calls import render_schema
from app.schemas.events import BATCH, event_schemas
from app.schemas.links import add_links
from app.schemas.policy import POLICY_QUERY, policy_messages
from app.settings import Settings, written
from core import CALLS, FILES

BATCH_PATH: Final = "/v1/sessions/{sid}/batch"
CALL_PATH: Final = "/v1/sessions/{sid}/processes/{pid}/"
PROBLEM_RESPONSE: Final = {
    "description": "What was wrong, and what would be right.",
    "content": {"application/problem+json": {"schema": docs.ref("Problem")}},
}
CLOSE_CODES: Final[Mapping[int, str]] = {
    1000: "The session is over.",
    1009: "The client's message is too large.",
    1012: "The service restarts: reconnect with after=<last id>.",
    1013: "The service cannot take it just now: try again.",
    4400: "The client's message is not understood; the reason says why.",
    4401: "The token is missing or wrong, was revoked or has run out, or its rights have changed.",
    4403: "The page's origin may not read these events.",
    4404: "There is no such session.",
    4409: "Another program is this session's policy already.",
    4410: "The cursor is no longer, or not yet, there: read the session's state again.",
    4429: "The reader took nothing any more, or there are too many streams.",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the service, with one path for each system call; of the hot routes FastAPI knows nothing."""
    if app.openapi_schema:
        return app.openapi_schema
    built = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    paths = built["paths"]
    paths[BATCH_PATH] = {"post": docs.batch_operation()}
    for name, row in CALLS.items():
        if row.process:
            paths[CALL_PATH + name] = {"post": docs.call_operation(name)}
    for path, item in paths.items():
        for method, operation in item.items():
            if method in docs.HTTP_METHODS:
                _finish(method, operation)
                operation["security"] = app.state.security(method.upper(), path)
    schemas = built.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update(docs.model_schemas())
    schemas.update(docs.SCHEMAS)
    built["components"]["schemas"] = dict(sorted(schemas.items()))
    built["components"]["securitySchemes"] = security_schemes(app.state.registry.settings, "apiKey")
    if root := app.state.registry.settings.root_path:
        built["servers"] = [{"url": root}]
    add_links(built)
    app.openapi_schema = built
    return built


def security_schemes(settings: Settings, in_address: str) -> dict[str, Any]:
    """What a caller may bring; OpenAPI and AsyncAPI have different words for what stands in the address."""
    issuer = (settings.oidc_issuer or "https://provider.example").rstrip("/")
    return {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A person's token (`pw_u_…`), a session's own (`pw_s_…`) or the operator's. A browser's websocket brings it as the "
            "subprotocol `base64url.bearer.authorization.pagewalk.<base64url of the token>` beside `pagewalk.v1`.",
        },
        "openid": {
            "type": "openIdConnect",
            "openIdConnectUrl": f"{issuer}/.well-known/openid-configuration",
            "description": "A JSON Web Token of the provider that PAGEWALK_OIDC_ISSUER names, sent as a bearer token, where there is one.",
        },
        "password": {"type": "http", "scheme": "basic", "description": "For WebDAV clients: any name, the token as the password."},
        "observer": {"type": in_address, "in": "query", "name": "token", "description": "An observer's link: reads one session."},
        "ticket": {"type": in_address, "in": "query", "name": "ticket", "description": "A ticket: opens one stream, once, soon."},
    }


def _finish(method: str, operation: dict[str, Any]) -> None:
    """Every operation may answer a problem; every POST may carry an Idempotency-Key."""
    responses = operation["responses"]
    responses.pop("422", None)
    responses["4XX"] = PROBLEM_RESPONSE
    responses["5XX"] = PROBLEM_RESPONSE
    if method == "post":
        key = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 255}}
        operation.setdefault("parameters", []).append(key | {"description": "Makes a retry safe: the first answer is given again."})


def page(built: Mapping[str, Any]) -> str:
    """The OpenAPI document as a page that needs nothing from elsewhere."""
    rows = []
    for path, item in built["paths"].items():
        for method, operation in item.items():
            summary = html.escape(operation.get("description") or operation.get("summary", ""))
            rows.append(f"<tr><td><b>{method.upper()}</b></td><td><code>{html.escape(path)}</code></td><td>{summary}</td></tr>")
    style = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem;max-width:80rem}td{padding:.2rem .8rem .2rem 0;vertical-align:top}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>pagewalk: the API</title><style>{style}</style></head>'
        "<body><h1>pagewalk</h1>"
        f'<p>{html.escape(built["info"]["description"])} The whole contract: <a href="openapi.json">openapi.json</a>.</p>'
        f"<table>{''.join(rows)}</table></body></html>"
    )


def _secured(*names: str) -> list[dict[str, str]]:
    return [{"$ref": f"#/components/securitySchemes/{name}"} for name in names]


def asyncapi(app: FastAPI) -> dict[str, Any]:
    """The AsyncAPI document of the event stream."""
    schemas = event_schemas()
    asks: tuple[tuple[str, str, str], ...] = (
        ("after", "integer", "The id of the last event that is known; the stream begins at the present without it."),
        ("types", "string", "Event types, comma-separated."),
        ("pid", "integer", "Events of this process."),
        ("cgroup", "string", "A cgroup's path; events of the groups below it belong to it."),
        ("batch", "integer", "Each message is an array of as many events as there are, up to this number; without it, one event."),
        ("ticket", "string", "Opens this stream once, for browsers, which set no header here."),
        ("token", "string", "An observer's link; no other token stands in an address."),
    )
    query: dict[str, Any] = {name: {"type": kind, "description": text} for name, kind, text in asks}
    query["batch"] |= {"minimum": 1, "maximum": BATCH}
    messages: dict[str, Any] = {name: {"name": name, "payload": {"$ref": f"#/components/schemas/{name}"}} for name in schemas}
    subscribe = {
        "type": {"const": "subscribe"},
        "types": {"type": "array", "items": {"type": "string"}},
        "pid": {"type": "integer"},
        "cgroup": {"type": "string"},
    }
    messages["subscribe"] = {
        "name": "subscribe",
        "payload": {"type": "object", "properties": subscribe, "required": ["type"], "additionalProperties": False},
    }
    any_event = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in schemas]}
    several = {"type": "array", "minItems": 1, "maxItems": BATCH, "items": any_event}
    messages["batch"] = {"name": "batch", "summary": "With `?batch=N`: several events in one message.", "payload": several}
    channel, asked = "#/channels/events", "#/channels/policy"
    said = policy_messages()
    policy = {name: {"name": name, "payload": payload} for name, (_, payload) in said.items()}
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "pagewalk events",
            "version": app.version,
            "description": "Closing codes: " + " ".join(f"{code}: {text}" for code, text in CLOSE_CODES.items()),
        },
        "channels": {
            "events": {
                "address": "/v1/sessions/{sid}/events",
                "parameters": {"sid": {"description": "The session."}},
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET", "query": {"type": "object", "properties": query}, "bindingVersion": "0.1.0"}},
            },
            "policy": {
                "address": "/v1/sessions/{sid}/policy",
                "description": "A program that connects here chooses the pages that reclaim takes, until it leaves.",
                "parameters": {"sid": {"description": "The session."}},
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in policy},
                "bindings": {"ws": {"method": "GET", "query": {"type": "object", "properties": POLICY_QUERY}, "bindingVersion": "0.1.0"}},
            },
        },
        "operations": {
            "sendEvents": {
                "action": "send",
                "channel": {"$ref": channel},
                "messages": [{"$ref": f"{channel}/messages/{name}"} for name in (*schemas, "batch")],
                "security": _secured("token", "openid", "ticket", "observer"),
            },
            "receiveSubscribe": {
                "action": "receive",
                "channel": {"$ref": channel},
                "security": _secured("token", "openid", "ticket", "observer"),
                "messages": [{"$ref": f"{channel}/messages/subscribe"}],
            },
            **{
                f"{action}Policy": {
                    "action": action,
                    "channel": {"$ref": asked},
                    "security": _secured("token", "openid", "ticket"),
                    "messages": [{"$ref": f"{asked}/messages/{name}"} for name, (way, _) in said.items() if way == action],
                }
                for action in ("send", "receive")
            },
        },
        "components": {
            "messages": {**messages, **policy},
            "schemas": schemas,
            "securitySchemes": security_schemes(app.state.registry.settings, "httpApiKey"),
        },
    }


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(map(_cell, row)) + " |\n" for row in lines)


def calls_table() -> str:
    """Every call: its number, its arguments, how far it is Linux's."""
    rows: list[tuple[object, ...]] = []
    for name, row in CALLS.items():
        params = ", ".join(f"`{key}`{'' if param.required else '?'}" for key, param in row.params.items()) or "–"
        returns = ", ".join(f"`{key}`" for key in row.returns) or "–"
        number = "–" if row.number is None else row.number
        rows.append((f"`{name}`", number, params, returns, row.support, f"{row.doc} {row.note}"))
    return "# Calls\n\nGenerated from the table of system calls. `?` marks what may be left out.\n\n" + _table(
        ("call", "x86-64 number", "arguments", "result", "support", "what it does"), rows
    )


def files_table() -> str:
    """Every file of the tree."""
    rows: list[tuple[object, ...]] = [(f"`{row.pattern}`", f"{row.mode:04o}", row.support, row.doc) for row in FILES]
    return "# Files\n\nGenerated from the table of files: what `GET .../fs/<path>` reads and `PUT` writes.\n\n" + _table(
        ("path", "mode", "support", "what it is"), rows
    )


def events_table() -> str:
    """Every type of event with its members."""
    text = "# Events\n\nGenerated from the trace catalogue. Every event has `id`, `seq`, `clock_ns` and `type`.\n"
    for name, schema in event_schemas().items():
        rows: list[tuple[object, ...]] = [
            (f"`{key}`", render_schema(item), "" if key in schema["required"] else "may be absent") for key, item in schema["properties"].items()
        ]
        text += f"\n## {name}\n\n{_cell(schema['description'])}\n\n" + _table(("member", "type", ""), rows)
    return text


def settings_table() -> str:
    """Every setting, with its default as the environment would give it."""
    rows: list[tuple[object, ...]] = []
    for name, field in Settings.model_fields.items():
        default = written(field)
        rows.append((f"`PAGEWALK_{name.upper()}`", "none" if default is None else f"`{default}`", field.description or ""))
    text = "# Settings\n\nGenerated from the settings. Flags win over the environment, the environment over the defaults; every default is safe.\n"
    text += "Sizes are written `512M`, durations `30s`, rates `600/60s`, lists as JSON.\n\n"
    return text + _table(("variable", "default", "means"), rows)


def documents(app: FastAPI) -> dict[str, str]:
    """File name and content of everything that is generated."""
    return {
        "openapi.json": json.dumps(document(app), indent=1, sort_keys=False, ensure_ascii=False) + "\n",
        "asyncapi.yaml": yaml.safe_dump(asyncapi(app), sort_keys=False, allow_unicode=True, width=120),
        "calls.md": calls_table(),
        "files.md": files_table(),
        "events.md": events_table(),
        "settings.md": settings_table(),
    }
