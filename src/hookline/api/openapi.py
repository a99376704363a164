"""The OpenAPI 3.1 document, from the route table and the wire's Structs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from hookline import __version__
from hookline.api.messages import Message, Messages, describe
from hookline.api.problems import MethodNotAllowed, RequestTimeout, UnsupportedMediaType
from hookline.api.route import NDJSON, AnyRoute, Nothing
from hookline.api.wire import Problem
from hookline.core.errors import (
    Forbidden,
    HooklineError,
    InvalidInput,
    InvalidJson,
    StorageUnavailable,
    TooLarge,
    Unauthorized,
)
from hookline.core.model import Scope

Json = dict[str, Any]

REF = "#/components/schemas/{name}"
PROBLEM = "application/problem+json"
_PATH = re.compile(r"\{(\w+)(?::\w+)?\}")

EVENT = "event."
"""Before the names of the catalogue's schemas, beside those of the API."""

INTRODUCTION = """\
Publish events, subscribe HTTP endpoints to them, and see what became of every delivery.

Requests carry an API key as `Authorization: Bearer hk_…`. A tenant's key sees that tenant alone; an operator key
acts for the tenant that the header `Hookline-Tenant` names. Errors are RFC 9457 problems with a stable `code`, and
`faults` that name everything that is wrong. Lists are paged by `limit` and `cursor`."""

EXAMPLES: dict[str, object] = {
    "EventInput": {
        "type": "order:created",
        "id": "order-4471-created",
        "object": {"type": "order", "id": "4471"},
        "data": {"number": "4471", "total": "59.90", "currency": "EUR"},
    },
    "SubscriptionInput": {
        "url": "https://shop.example.com/hooks",
        "events": ["order:*"],
        "name": "Order sync",
        "filter": 'data.currency == "EUR"',
    },
    "NewTenant": {"id": "acme", "name": "Acme Ltd"},
    "ReplayInput": {"from": "2026-01-31T00:00:00Z", "state": "failed", "dry_run": True},
    "EventTypeSpec": {
        "name": "order:created",
        "description": "An order was placed.",
        "schema": {"type": "object", "required": ["number"], "properties": {"number": {"type": "string"}}},
        "example": {"number": "4471"},
    },
}


def document(routes: Sequence[AnyRoute], described: Messages | None = None) -> Json:
    """The whole document. ``described`` are the events of its ``webhooks`` section; their keys begin with ``EVENT``."""
    described = describe(None, (), prefix=EVENT) if described is None else described
    shown = _shown_types(routes)
    schemas, components = msgspec.json.schema_components(shown, ref_template=REF)
    schema_of = dict(zip(map(repr, shown), schemas, strict=True))
    _finish(components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hookline",
            "version": __version__,
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": _paths(routes, schema_of),
        "webhooks": {
            message.type.name: _webhook(message, described.headers, described.content_type)
            for message in described.messages
        },
        "components": {
            "schemas": dict(sorted(components.items())) | described.schemas,
            "parameters": {name: _header(name, text) for name, text in described.headers.items()},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


SECURITY_SCHEMES: Json = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, `hk_…`."},
    "tenant": {
        "type": "apiKey",
        "in": "header",
        "name": "Hookline-Tenant",
        "description": "With an operator key: the id of the tenant to act for.",
    },
}


def _shown_types(routes: Sequence[AnyRoute]) -> list[Any]:
    wanted: list[Any] = [Problem]
    for route in routes:
        wanted += [kind for kind in (_body_type(route), route.answer) if kind not in (None, Nothing)]
        wanted += [info.type for info in msgspec.structs.fields(route.query)]
    return list({repr(kind): kind for kind in wanted}.values())


def _body_type(route: AnyRoute) -> Any:
    return route.document or route.body


def _finish(components: Json) -> None:
    """Add the examples, and let the parts of a merge patch be left out or be null."""
    for name, example in EXAMPLES.items():
        components[name]["examples"] = [example]
    change = components["SubscriptionChange"]
    components["SubscriptionChange"] = {
        **_patch_of(change, components),
        "title": change["title"],
        "description": change["description"],
    }


def _patch_of(schema: Json, components: Json) -> Json:
    """A schema in which each member of each object may be left out or null (RFC 7396)."""
    if "$ref" in schema:
        return _patch_of(components[schema["$ref"].rpartition("/")[2]], components)
    if "anyOf" in schema:
        return {"anyOf": [_patch_of(option, components) for option in schema["anyOf"]]}
    result = {key: value for key, value in schema.items() if key not in ("required", "default", "title")}
    if "properties" in schema:
        result["properties"] = {
            name: part if name in ("enabled", "version") else _or_null(_patch_of(part, components))
            for name, part in schema["properties"].items()
        }
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _or_null(schema["additionalProperties"])
    return result


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


# --- paths -------------------------------------------------------------------------------------------------


def _paths(routes: Sequence[AnyRoute], schema_of: Json) -> Json:
    paths: Json = {}
    for route in routes:
        path = _PATH.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schema_of)
    return paths


def _operation(route: AnyRoute, schema_of: Json) -> Json:
    operation: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "security": _security(route),
        "parameters": [*_path_parameters(route), *_query_parameters(route, schema_of)],
        "responses": _responses(route, schema_of),
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not Nothing:
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {
                kind: {"schema": {} if kind == NDJSON else schema_of[repr(_body_type(route))]}
                for kind in route.media_types
            },
        }
    return operation


def _security(route: AnyRoute) -> list[Json]:
    if route.scope is None:
        return [{}, {"key": []}]
    if route.scope is Scope.OPERATOR:
        return [{"key": []}]
    return [{"key": []}, {"key": [], "tenant": []}]


def _path_parameters(route: AnyRoute) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PATH.findall(route.path)
    ]


def _query_parameters(route: AnyRoute, schema_of: Json) -> list[Json]:
    parameters: list[Json] = []
    for info in msgspec.structs.fields(route.query):
        schema = dict(schema_of[repr(info.type)])
        parameter: Json = {"name": info.encode_name, "in": "query", "required": info.required}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        if not info.required and isinstance(info.default, (int, str)):
            schema["default"] = info.default
        parameters.append({**parameter, "schema": schema})
    return parameters


def _responses(route: AnyRoute, schema_of: Json) -> Json:
    success: Json = {"description": route.summary, "headers": REQUEST_ID}
    if route.answer is not None:
        success["content"] = {route.answer_type: {"schema": schema_of[repr(route.answer)]}}
    by_status: dict[int, list[type[HooklineError]]] = {}
    for error in _errors(route):
        by_status.setdefault(error.status, []).append(error)
    return {
        str(route.status): success,
        **{str(status): _error_response(by_status[status]) for status in sorted(by_status)},
    }


REQUEST_ID: Json = {"X-Request-Id": {"description": "names this request", "schema": {"type": "string"}}}


def _errors(route: AnyRoute) -> list[type[HooklineError]]:
    """What the row names, and what its kind of route can always answer."""
    always: list[type[HooklineError]] = [InvalidInput, MethodNotAllowed, StorageUnavailable, HooklineError]
    always.append(Unauthorized)
    always.append(Forbidden)
    if route.body is not Nothing:
        always += [InvalidJson, TooLarge, UnsupportedMediaType, RequestTimeout]
    return list(dict.fromkeys([*route.errors, *always]))


def _error_response(errors: list[type[HooklineError]]) -> Json:
    codes = " or ".join(f"`{error.code}`: {error.title}" for error in errors)
    content = {PROBLEM: {"schema": {"$ref": REF.format(name="Problem")}}}
    return {"description": codes, "headers": REQUEST_ID, "content": content}


# --- webhooks ----------------------------------------------------------------------------------------------


def _webhook(message: Message, headers: Iterable[str], content_type: str) -> Json:
    body = dict(message.body)
    if message.example is not UNSET:
        body["examples"] = [message.example]
    return {
        "post": {
            "operationId": f"webhook {message.type.name}",
            "summary": message.type.name,
            "description": message.text,
            "deprecated": message.deprecated,
            "tags": [message.type.group] if message.type.group else [],
            "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in headers],
            "requestBody": {"required": True, "content": {content_type: {"schema": body}}},
            "responses": {
                "2XX": {"description": "received"},
                "410": {"description": "gone: the subscription is disabled, if its profile says so"},
                "default": {"description": "not received: it is sent again by the retry policy"},
            },
        }
    }


def _header(name: str, text: str) -> Json:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
