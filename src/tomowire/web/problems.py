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
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from tomowire.errors import IndexUnavailable, TomowireError, TooManyLogins, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.applications import Starlette

logger: Final = logging.getLogger("tomowire.http")

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

PROBLEM: Final = "application/problem+json"
MISTAKE: Final = "this is a mistake of the server; its log tells more"
_MOST_ERRORS: Final = 20
_LONGEST: Final = 500


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
        body["errors"] = listed[:_MOST_ERRORS]
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
            405: f"this address cannot be asked to {request.method}",
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
    return allowed


async def _on_validation(request: Request, error: Exception) -> Response:
    from fastapi.exceptions import RequestValidationError

    assert isinstance(error, RequestValidationError)
    errors = [_place(each) for each in error.errors()[:_MOST_ERRORS]]
    first = f"{errors[0].get('in', '')} {errors[0].get('name', '')}: {errors[0]['detail']}" if errors else ""
    return problem_response(
        422, f"the request cannot be understood: {first.strip()}", request_id=_request_id(request), errors=errors
    )


def _place(error: Mapping[str, Any]) -> dict[str, str]:
    """Where the mistake is and what it is, without the value: it may be a name, or megabytes."""
    where, *path = error["loc"]
    return {"in": str(where), "name": ".".join(map(str, path))[:100], "detail": str(error["msg"])[:200]}


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
