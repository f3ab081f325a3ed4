"""What went wrong, in one form for all (RFC 9457): `application/problem+json` with `type`, `title`, `status` and `detail`.

`errors` names what of the request is wrong, one entry for each place. `request_id` is what the log has too. An error of ours says
no more than that: what it was about is in the log.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from tomowire.errors import IndexUnavailable, TomowireError, TooManyLogins, UsageError
from tomowire.server.config.problems import nearest
from tomowire.web.forms import WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.applications import Starlette

logger: Final = logging.getLogger("tomowire.http")

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

PROBLEM: Final = "application/problem+json"
MISTAKE: Final = "this is a mistake of the server; its log tells more"
GONE: Final = 499
"""For the log alone: the client closed the connection."""
MOST_ERRORS: Final = 20
"""Of what is wrong with a request as much is told, and no more of it is thought about."""

_LONGEST: Final = 500
_LONGEST_PLACE: Final = 400
_NO_JSON: Final = (
    "the body is no JSON that can be read: no text in UTF-8, nested too deeply, or a number with too many digits"
)
_SAID: Final = {
    "extra_forbidden": "is not known",
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number, and has too many digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} {characters}",
    "string_too_long": "must have at most {max_length} {characters}",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "too_short": "must have at least {min_length} {entries}",
    "too_long": "must have at most {max_length} {entries}",
}
"""By the type of pydantic's error, in words that need no knowledge of Python."""
_LENGTHS: Final = {
    "too_short": "must have at least %(min_length)d characters",
    "too_long": "must have no more than %(max_length)d characters",
}


class Problem(HTTPException):
    """An answer that is an error: raised by whoever knows what is wrong."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Iterable[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.errors = list(errors)


def problem_response(
    status: int,
    detail: str,
    *,
    request_id: str = "",
    headers: Mapping[str, str] | None = None,
    errors: Iterable[Mapping[str, str]] = (),
) -> Response:
    """The answer. `detail` is for people."""
    content = problem_body(status, detail, request_id=request_id, errors=errors)
    return Response(content, status, headers, PROBLEM)


def problem_body(status: int, detail: str, *, request_id: str = "", errors: Iterable[Mapping[str, str]] = ()) -> bytes:
    """The same as bytes."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    body["detail"] = detail if len(detail) <= _LONGEST else detail[:_LONGEST] + "..."
    if listed := list(errors):
        body["errors"] = listed[:MOST_ERRORS]
    if request_id:
        body["request_id"] = request_id
    return json.dumps(body).encode("ascii")


def handlers() -> dict[int | type[Exception], Handler]:
    """What Starlette and FastAPI answer instead of their own texts."""
    from fastapi.exceptions import RequestValidationError

    return {
        HTTPException: _on_http,
        RequestValidationError: _on_validation,
        TomowireError: _on_ours,
        ClientDisconnect: _on_gone,
        Exception: _on_mistake,
    }


def _request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed(request)))
    detail = error.detail
    if not isinstance(error, Problem):
        detail = {
            404: "there is nothing at this address",
            405: f"this address cannot be asked to {request.method}; 'Allow' says what it can be",
            400: _NO_JSON,  # FastAPI has no other
        }.get(error.status_code, detail)
    errors = error.errors if isinstance(error, Problem) else ()
    if error.status_code in (204, 304):
        raise error
    return problem_response(error.status_code, detail, request_id=_request_id(request), headers=headers, errors=errors)


def _allowed(request: Request) -> set[str]:
    """The methods of all routes at the address; the first one that fits knows only its own (RFC 9110 15.5.6)."""
    app: Starlette = request.scope["app"]
    allowed: set[str] = set()
    for route in getattr(app.state, "operations", app.router.routes):
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            allowed |= getattr(route, "methods", None) or set()
    return allowed | ({"HEAD"} if "GET" in allowed else set())


async def _on_validation(request: Request, error: Exception) -> Response:
    from fastapi.exceptions import RequestValidationError

    assert isinstance(error, RequestValidationError)
    errors = [_place(each, request) for each in error.errors()[:MOST_ERRORS]]
    where = " ".join(errors[0][part] for part in ("in", "name") if errors[0].get(part)) if errors else ""
    first = ": ".join(filter(None, (where, errors[0]["detail"]))) if errors else ""
    return problem_response(
        422, f"the request cannot be understood: {first}", request_id=_request_id(request), errors=errors
    )


def _place(error: Mapping[str, Any], request: Request) -> dict[str, str]:
    """Where the mistake is and what it is, without the value: it may be a name, or megabytes."""
    where, *path = error["loc"]
    if error["type"] == "json_invalid":
        return {
            "in": "body",
            "name": "",
            "detail": f"this is no JSON: {error['ctx']['error']}, at character {path[0]}"[:300],
        }
    words = WORDS.get(error.get("ctx", {}).get("pattern", ""))
    detail = words or _length(error) or _said(error) or _known(error) or str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden" and len(path) == 1:
        near = nearest(str(path[0]), list(_known_in_body(request)))
        detail += f"; is {near} meant?" if near is not None else ""
    return {"in": str(where), "name": ".".join(map(str, path))[:100], "detail": detail[:_LONGEST_PLACE]}


def _said(error: Mapping[str, Any]) -> str:
    """In our own words; empty where there are none."""
    about = error.get("ctx", {})
    is_one = 1 in (about.get("min_length"), about.get("max_length"))
    units = (
        {"characters": "character", "entries": "entry"}
        if is_one
        else {"characters": "characters", "entries": "entries"}
    )
    return _SAID.get(error["type"], "").format(**{**about, **units})


def _known(error: Mapping[str, Any]) -> str:
    """Of what is to be one of a few, those; empty for anything else."""
    few = error.get("ctx", {}).get("expected", "").replace("'", "")
    return f"is not known; known are {few}" if error["type"] in ("enum", "literal_error") else ""


def _length(error: Mapping[str, Any]) -> str:
    """What is wrong with the length of a secret, in which the library counts "items"; empty for anything else."""
    about = error.get("ctx", {})
    return _LENGTHS.get(error["type"], "") % about if about.get("field_type") == "Value" else ""


def _known_in_body(request: Request) -> Iterable[str]:
    """The names that the operation knows at the top of its body."""
    body = getattr(request.scope.get("route"), "body_field", None)
    return getattr(body.field_info.annotation, "model_fields", ()) if body is not None else ()


async def _on_gone(*_: object) -> Response:
    """Who asked went away before all of it had come: nobody gets this answer, but the log has it."""
    return Response(status_code=GONE)


async def _on_mistake(request: Request, _: Exception) -> Response:
    return problem_response(500, MISTAKE, request_id=_request_id(request))


async def _on_ours(request: Request, error: Exception) -> Response:
    request_id = _request_id(request)
    if isinstance(error, IndexUnavailable):
        logger.error("request %s: the index cannot be used: %s", request_id, error)
        return problem_response(
            503, "the index cannot be used now", request_id=request_id, headers={"Retry-After": "5"}
        )
    if isinstance(error, TooManyLogins):  # passwords are hashed one after the other
        headers = {"Retry-After": str(max(1, math.ceil(error.seconds)))}
        return problem_response(429, str(error), request_id=request_id, headers=headers)
    if isinstance(error, UsageError):
        return problem_response(400, str(error), request_id=request_id)
    logger.error("request %s: %s failed: %s", request_id, request.method, type(error).__name__)
    return await _on_mistake(request, error)
