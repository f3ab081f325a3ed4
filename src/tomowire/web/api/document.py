"""What the OpenAPI document has besides the operations."""

from __future__ import annotations

from typing import Any, Final

DESCRIPTION: Final = """\
What an archive holds, whom it talks to and what it is doing.

Ids are the UIDs of DICOM. Times are RFC 3339 in UTC, durations are seconds, sizes are bytes. Lists come in pages: `limit` is how
many entries are wanted, and `next` of the answer goes into `after` for those that follow; it is null on the last page.

Each operation names the least role that may use it in `x-role`: `reader` looks, `operator` also moves and deletes,
`administrator` also changes the archive itself. Errors have the form of RFC 9457.
"""

TAGS: Final = [
    {"name": "status", "description": "The archive itself."},
    {"name": "studies", "description": "What the archive holds: studies, which can be protected from being deleted."},
    {"name": "series", "description": "What the archive holds: series."},
    {"name": "instances", "description": "What the archive holds: instances, with their files and tags."},
    {"name": "statistics", "description": "What the archive holds and gets, in numbers."},
    {"name": "associations", "description": "Who is connected over DICOM now."},
    {"name": "nodes", "description": "The peers that the archive knows by name."},
    {"name": "transfers", "description": "What becomes a job: send, retrieve, query, delete, reindex."},
    {"name": "jobs", "description": "Work that outlives a restart."},
    {"name": "logs", "description": "The log, as it is and as it comes."},
    {"name": "audit", "description": "Who did what (PS3.15 A.5)."},
    {"name": "configuration", "description": "The configuration that is in force."},
    {"name": "users", "description": "Who may use all this, and their tokens."},
    {"name": "shutdown", "description": "Ending the archive."},
]

_TEXT: Final = {"type": "string"}
COMPONENTS: Final[dict[str, dict[str, Any]]] = {
    "schemas": {
        "Problem": {
            "title": "Problem",
            "description": "What went wrong (RFC 9457).",
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string", "description": "`about:blank`: the status says of which kind it is."},
                "title": {"type": "string", "description": "The status in words."},
                "status": {"type": "integer", "description": "The HTTP status."},
                "detail": {"type": "string", "description": "What went wrong here, for people."},
                "request_id": {"type": "string", "description": "The log has it under this id."},
                "errors": {
                    "type": "array",
                    "description": "What of the request is wrong.",
                    "items": {
                        "type": "object",
                        "required": ["in", "name", "detail"],
                        "properties": {"in": _TEXT, "name": _TEXT, "detail": _TEXT},
                    },
                },
            },
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "there is no study 1.2.3",
                "request_id": "5a1d0c6f3b2e4a79",
            },
        }
    },
    "securitySchemes": {
        "basic": {"type": "http", "scheme": "basic", "description": "Name and password of a user."},
        "bearer": {"type": "http", "scheme": "bearer", "description": "A token."},
    },
}
SECURITY: Final[list[dict[str, list[str]]]] = [{"basic": []}, {"bearer": []}]


def tidy(document: dict[str, Any]) -> None:
    """What FastAPI cannot know: sums an operation up with the first sentence about it, and an answer with what its schema is."""
    schemas = document["components"]["schemas"]
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["summary"] = _first_sentence(operation["description"])
            for parameter in operation.get("parameters", ()):
                _without_null(parameter["schema"])
            for response in operation["responses"].values():
                if response["description"] == _UNSAID:
                    response["description"] = _said_of(response, schemas)


_UNSAID: Final = "Successful Response"


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")


def _without_null(schema: dict[str, Any]) -> None:
    """What is not given in a query is None here, and nobody can write null into an address."""
    kinds = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    if len(kinds) == 1:
        schema.update(kinds[0])
    elif kinds:
        schema["anyOf"] = kinds


def _said_of(response: dict[str, Any], schemas: dict[str, Any]) -> str:
    content = response.get("content")
    if content is None:
        return "It is done."
    name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    return str(schemas[name]["description"]) if name else "All of it."
