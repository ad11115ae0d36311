"""The OpenAPI 3.1 description, made from the routes as they stand and what is said beside them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from litestar import Litestar
from litestar.enums import ParamType
from litestar.handlers import HTTPRouteHandler
from litestar.params import ParameterKwarg
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from farebox.http import decision_operations, events
from farebox.http.code import status_of
from farebox.http.operation import OPERATION, Example, Operation
from farebox.http.problem import MEDIA_TYPE, ProblemDetails

_GIVEN = frozenset({"farebox", "principal", "key_memory", "live", "body", "request"})
_PUBLIC = frozenset({"/healthz", "/readyz"})
_REFERENCE = "#/components/schemas/{name}"
_IN_PATH = re.compile(r"\{(\w+)\}")
_METHODS = ("put", "post", "get", "delete")
_ALWAYS = ("key_missing", "key_malformed", "key_unknown", "key_revoked", "scope_missing")
Described = tuple[str, str, str, list[str], Operation, dict[str, FieldDefinition]]


def describe_api(app: Litestar, version: str) -> dict[str, Any]:
    """Return the description of every route that has an `Operation`."""
    described = [*_described(app), *_hot()]
    schema_of, components = _schemas(described)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for path, method, name, tags, operation, parameters in described:
        paths[path][method] = _operation(path, name, tags, operation, parameters, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Farebox",
            "version": version,
            "summary": "Meter what customers use and bill it exactly.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"api_key": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def examples(app: Litestar) -> Iterator[tuple[str, Example]]:
    """Yield the method and every example: noun by noun as the app has them, writing before reading.

    Later ones build on earlier ones; events come last.
    """
    nouns: dict[str, int] = {}
    described = list(_described(app))
    for path, *_ in described:
        nouns.setdefault(_noun(path), len(nouns))
    described.sort(key=lambda one: (nouns[_noun(one[0])], _METHODS.index(one[1])))
    for _, method, _, _, operation, _ in [*described, *_hot()]:
        for example in operation.examples:
            yield method.upper(), example


def _noun(path: str) -> str:
    return "/".join(path.split("/")[:3])


def _described(app: Litestar) -> Iterator[Described]:
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            operation = handler.opt.get(OPERATION)
            if not isinstance(operation, Operation):
                continue
            method = next(iter(handler.http_methods - {"OPTIONS", "HEAD"})).lower()
            tags = sorted({tag for owner in handler.ownership_layers for tag in owner.tags or ()})
            parameters = _parameters(handler)
            name = str(handler.operation_id or handler.handler_name)
            yield route.path_format, method, name, tags, operation, parameters


def _hot() -> Iterator[Described]:
    """Yield the hot paths, which stand before the router, so that no route speaks for them."""
    for path, name, operation in decision_operations.OPERATIONS:
        yield path, "post", name, ["Decisions"], operation, {}
    yield events.PATH, "post", "send_events", ["Events"], events.operation, {}


def _parameters(handler: HTTPRouteHandler) -> dict[str, FieldDefinition]:
    given = handler.parsed_fn_signature.parameters
    return {name: field for name, field in given.items() if name not in _GIVEN}


def _schemas(described: Iterable[Described]) -> tuple[dict[Any, Any], dict[str, Any]]:
    types: dict[Any, Any] = {ProblemDetails: None}
    for *_, operation, parameters in described:
        for one in (operation.request, operation.answer):
            if one is not None:
                types[one] = None
        for field in parameters.values():
            types[field.annotation] = None
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    readable = (_with_numbers(schema) for schema in schemas)
    return dict(zip(types, readable, strict=True)), _with_numbers(components)


def _with_numbers(schema: Any) -> Any:
    """Say that a decimal may be sent as a number too; it comes back as text."""
    if isinstance(schema, dict):
        if schema.get("format") == "decimal":
            return {**schema, "type": ["string", "number"]}
        return {key: _with_numbers(value) for key, value in schema.items()}
    return [_with_numbers(item) for item in schema] if isinstance(schema, list) else schema


def _operation(
    path: str,
    name: str,
    tags: list[str],
    operation: Operation,
    parameters: dict[str, FieldDefinition],
    schema_of: dict[Any, Any],
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": name,
        "summary": operation.summary,
        "tags": tags,
        "responses": _responses(path, operation, schema_of),
    }
    if operation.description:
        described["description"] = operation.description
    if path in _PUBLIC:
        described["security"] = []
    shown = [_parameter(path, key, field, schema_of) for key, field in parameters.items()]
    shown += [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _IN_PATH.findall(path)
        if name not in parameters
    ]
    if shown:
        described["parameters"] = shown
    if operation.request is not None or operation is events.operation:
        schema = schema_of.get(operation.request, {})
        described["requestBody"] = {
            "required": True,
            "content": {
                kind: _content(schema, [e for e in operation.examples if e.content_type == kind])
                for kind in operation.request_types
            },
        }
    return described


def _content(schema: Any, found: list[Example]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    bodies = [example.body for example in found if example.body is not None]
    if bodies:
        content["examples"] = {str(at): {"value": body} for at, body in enumerate(bodies, 1)}
    return content


def _responses(path: str, operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    problem = {MEDIA_TYPE: {"schema": schema_of[ProblemDetails]}}
    answers: dict[int, list[Any]] = defaultdict(list)
    for example in operation.examples:
        if example.answer:
            answers[example.status].append(example.answer)
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in (*(() if path in _PUBLIC else _ALWAYS), *operation.codes):
        by_status[status_of(code)].append(f"`{code}`")
    responses: dict[str, Any] = {
        str(status): {
            "description": ", ".join(dict.fromkeys(codes)),
            "content": {MEDIA_TYPE: {**problem[MEDIA_TYPE], **_shown(answers[status])}},
        }
        for status, codes in sorted(by_status.items())
    }
    for status in {operation.status, *(e.status for e in operation.examples if e.status < 300)}:
        success: dict[str, Any] = {"description": "As asked."}
        if operation.answer is not None:
            content = {"schema": schema_of[operation.answer], **_shown(answers[status])}
            success["content"] = {operation.answer_type: content}
        responses[str(status)] = success
    responses["default"] = {"description": "Any other problem.", "content": problem}
    return dict(sorted(responses.items()))


def _shown(answers: list[Any]) -> dict[str, Any]:
    if not answers:
        return {}
    return {"examples": {str(at): {"value": answer} for at, answer in enumerate(answers, 1)}}


def _parameter(
    path: str, name: str, field: FieldDefinition, schema_of: dict[Any, Any]
) -> dict[str, Any]:
    schema = dict(schema_of[field.annotation])
    given = field.kwarg_definition
    shown: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
    if f"{{{name}}}" in path:
        shown |= {"in": "path", "required": True}
    elif isinstance(given, ParameterKwarg):
        if given.name:
            shown["name"] = given.name
        if given.param_type is ParamType.HEADER:
            shown["in"] = "header"
        if given.description:
            shown["description"] = given.description
        for key, limit in (("minimum", given.ge), ("maximum", given.le)):
            if limit is not None:
                schema[key] = limit
    if field.has_default and field.default is not None:
        schema["default"] = field.default
    return shown
