"""The REST API as a page: what its OpenAPI document says, operation by operation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final

_METHODS: Final = ("get", "put", "post", "patch", "delete")


def rest_api() -> str:
    """A heading for each topic, and for each of its operations what it takes and what it answers."""
    return "\n\n".join(_page(document()))


def document() -> dict[str, Any]:
    """The OpenAPI document. It is about no archive in particular, and no archive is needed for it."""
    from tomowire.web.api import make_api

    nothing: Any = SimpleNamespace()
    return make_api(nothing, nothing, asyncio.Event()).openapi()


def _page(api: Mapping[str, Any]) -> Iterator[str]:
    schemas = api["components"]["schemas"]
    for tag in api["tags"]:
        yield f"## {tag['name'].capitalize()}"
        yield str(tag["description"])
        for path, methods in api["paths"].items():
            for method in _METHODS:
                if method in methods and tag["name"] in methods[method]["tags"]:
                    yield from _operation(f"{method.upper()} /api{path}", methods[method], schemas)
    yield "## Parts of bodies and answers"
    for name in sorted(_parts(schemas)):
        yield f"### {name}"
        yield _one_line(schemas[name].get("description", ""))
        yield _fields(schemas[name], schemas)


def _parts(schemas: Mapping[str, Any]) -> set[str]:
    """The schemas that fields of others have."""
    found: set[str] = set()

    def look(schema: Any) -> None:
        if isinstance(schema, Mapping):
            name = str(schema.get("$ref", "")).rpartition("/")[2]
            if "properties" in schemas.get(name, {}):
                found.add(name)
            schema = list(schema.values())
        if isinstance(schema, list):
            for each in schema:
                look(each)

    look(dict(schemas))
    return found


def _operation(title: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{title}`"
    yield f"`{operation['operationId']}`, for the role {operation['x-role']}. {_one_line(operation['description'])}"
    if parameters := operation.get("parameters"):
        rows = [
            (f"`{each['name']}`", each["in"], _kind(each["schema"], schemas), _said(each, each["schema"]))
            for each in parameters
        ]
        yield _table(("parameter", "in", "what", ""), rows)
    if (body := operation.get("requestBody")) is not None:
        schema = body["content"]["application/json"]["schema"]
        yield "The body:"
        yield _fields(_followed(schema, schemas), schemas)
    yield from _answers(operation["responses"], schemas)


def _answers(responses: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    problems = [status for status in responses if int(status) >= 400]
    for status, response in responses.items():
        if status in problems:
            continue
        content = response.get("content", {})
        schema = content.get("application/json", {}).get("schema")
        if schema is None:
            yield f"{status}: {', '.join(f'`{kind}`' for kind in content) or 'nothing'}."
        else:
            yield f"{status}:"
            yield _fields(_followed(schema, schemas), schemas)
    yield f"Errors: {', '.join(problems)}."


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (f"`{name}`", _kind(each, schemas), "" if name in required else "may be left out", _said(each, each))
        for name, each in schema.get("properties", {}).items()
    ]
    return _table(("field", "what", "", ""), rows)


def _kind(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        found = _followed(schema, schemas)
        return _kind(found, schemas) if "enum" in found else f"[{found['title']}](#{found['title'].lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(each, schemas) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], schemas)}"
    text = str(schema.get("format") or schema.get("type") or "anything")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        text += f", {low:g} to {high:g}"
    return text


def _said(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    said = _one_line(field.get("description") or schema.get("description") or "")
    if schema.get("default") not in (None, [], {}):
        said = f"{said} Default: `{json.dumps(schema['default'])}`.".strip()
    return said


def _followed(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    kept = [number for number in range(len(header)) if header[number] or any(row[number] for row in rows)]
    lines = [[each[number].replace("|", "\\|") for number in kept] for each in (header, *rows)]
    lines.insert(1, ["---"] * len(kept))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())
