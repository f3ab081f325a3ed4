"""What all operations of the API have in common: the role they need, the errors they may answer with, and what they work on."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from tomowire.errors import IndexUnavailable, TooManyLogins
from tomowire.server.app import Archive
from tomowire.server.audit.events import AccessRefused, Party
from tomowire.server.users import Principal, Role
from tomowire.web.api.query_parameters import QueryParameters
from tomowire.web.gate import Gate
from tomowire.web.problems import PROBLEM, Problem
from tomowire.web.requests import HAS_ENDED
from tomowire.web.target import names

ROLE: Final = "x-role"
"""Where the OpenAPI document says which role an operation needs."""

_MEANING: Final = {
    400: "What is asked for makes no sense now; `detail` says why.",
    401: "A login is needed, or the one given is not known.",
    403: "The login is known and may not do this, or a page of somebody else's asks.",
    404: "There is nothing with this id.",
    405: "Another method is needed at this address.",
    408: "The request did not come in time.",
    409: "Something stands against it, such as a study that is protected; `detail` says what.",
    412: "There is another version than the one in `If-Match`.",
    413: "The request is too long.",
    415: "The body is not JSON, or compressed.",
    416: "The range is not in the file.",
    422: "The request cannot be understood; `errors` says which part of it.",
    429: "Too many failed logins; `Retry-After` says when to try again.",
    500: "A mistake of the server; the log has it under `request_id`.",
    502: "A peer could not be reached, or refused.",
    503: "The index or the storage cannot be used now.",
    504: "A peer did not answer in time.",
}
MOST_PARTS: Final = 20_000
"""Commas in a body. Each part may be wrong in a way of its own, and all that is wrong is found while everybody waits."""

_JSON: Final = re.compile(r"application/([0-9a-z!#$&^_.-]+\+)?json")

_LINK: Final = {"description": 'The next page, with `rel="next"`.', "schema": {"type": "string"}}
_LOCATION: Final = {"description": "Where the job is.", "schema": {"type": "string"}}
_ALWAYS: Final = (401, 403, 422, 429, 500, 503)
_WITH_BODY: Final = (400, 408, 413, 415)


@dataclass(frozen=True)
class Asked:
    """Who asks, and what is asked about."""

    archive: Archive
    gate: Gate
    closing: asyncio.Event
    principal: Principal
    request: Request

    @property
    def party(self) -> Party:
        """Who asks, for the audit trail."""
        return Party(self.principal.name, self.request.client.host if self.request.client is not None else "")

    @property
    def has_ended(self) -> asyncio.Event:
        """Set when who asks sends no more, and may have gone."""
        ended: asyncio.Event = self.request.scope["state"][HAS_ENDED]
        return ended

    async def may_still(self, role: Role) -> bool:
        """Whether who asks would be let in now, with this role: not with a token that is revoked, nor as a user who was removed.

        While the index cannot be asked the answer stays what it was: the log is for who mends that.
        """
        try:
            principal: Principal | None = await self.request.scope["state"]["again"]()
        except (IndexUnavailable, TooManyLogins):
            return True
        return principal is not None and principal.role >= role


def _asked(request: Request) -> Asked:
    state = request.app.state
    return Asked(state.archive, state.gate, state.closing, request.scope["state"]["principal"], request)


Here = Annotated[Asked, Depends(_asked)]
"""The first parameter of each operation."""


class Operation(APIRoute):
    """Checks role, media type and the names in the query before anything of the request is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        role = Role((self.openapi_extra or {})[ROLE])
        has_body = self.body_field is not None
        query = QueryParameters.of(self.dependant.query_params)

        async def checked(given: Request) -> Response:
            request = _JsonRequest(given.scope, given.receive)
            request.scope["path_params"] = names(request.path_params)
            principal: Principal = request.scope["state"]["principal"]
            if principal.role < role:
                asked = _asked(request)
                asked.gate.tell(AccessRefused(by=asked.party, what=f"{self.operation_id}, over HTTP"))
                raise Problem(403, f"this takes the role {role.value}, and {principal.name} is {principal.role.value}")
            if has_body and not _is_json(request):
                raise Problem(415, "the body is to be JSON, and Content-Type to say application/json")
            if has_body and request.headers.get("content-encoding", "identity").lower() != "identity":
                raise Problem(415, "the body is to come as it is: none that is compressed (Content-Encoding) is taken")
            query.check(request.query_params)
            body = await request.body()  # where none is wanted too: with one that is none it was no request
            if has_body and body.count(b",") > MOST_PARTS:
                raise Problem(413, f"a body has {MOST_PARTS} parts at most")
            return await handle(request)

        return checked


class _JsonRequest(Request):
    """Of a key that an object has twice Python would take what is said last, and others what is said first (RFC 8259 4)."""

    async def json(self) -> Any:
        return json.loads(await self.body(), object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    counted = Counter(name for name, _ in pairs)
    errors = [{"in": "body", "name": name[:100], "detail": _TWICE} for name, count in counted.items() if count > 1]
    raise Problem(400, f"the body cannot be understood: {errors[0]['name']!r} {_TWICE}", errors=errors)


_TWICE: Final = "is given more than once"


def _is_json(request: Request) -> bool:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if _JSON.fullmatch(given):
        return True
    # Nothing at all is nothing of a wrong kind: whether it is enough is for validation to say.
    return (
        not given and request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers
    )


def topic(tag: str) -> APIRouter:
    """A router for the operations of one topic."""
    return APIRouter(tags=[tag], route_class=Operation)


def operation(
    name: str,
    role: Role,
    *problems: int,
    body: bool = False,
    link: bool = False,
    location: bool = False,
    media: str | tuple[str, ...] = (),
) -> dict[str, Any]:
    """Keywords for the decorators of a router. `problems` are the statuses of errors besides those that each operation may have.

    `body`: it takes one; `link`: the answer has a `Link` to the next page; `location`: it says where the job is that was made;
    `media`: the answer is not JSON but this.
    """
    statuses = sorted({*_ALWAYS, *problems, *(_WITH_BODY if body else ())})
    documented: dict[int | str, dict[str, Any]] = {status: _problem(status) for status in statuses}
    if link:
        documented[200] = {"headers": {"Link": _LINK}}
    if location:
        documented[202] = {"headers": {"Location": _LOCATION}}
    if media:
        kinds = (media,) if isinstance(media, str) else media
        documented[200] = {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}}
    if 416 in statuses:
        documented[206] = {"description": "A part of it.", "content": documented[200]["content"]}
    if 412 in statuses:
        documented[304] = {"description": "There is no other version than the one in `If-None-Match`."}
    return {"operation_id": name, "openapi_extra": {ROLE: role.value}, "responses": documented}


def _problem(status: int) -> dict[str, Any]:
    """How the OpenAPI document describes an error."""
    schema = {"$ref": "#/components/schemas/Problem"}
    documented: dict[str, Any] = {"description": _MEANING[status], "content": {PROBLEM: {"schema": schema}}}
    if status in (429, 503):
        documented["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
        }
    if status == 401:
        documented["headers"] = {
            "WWW-Authenticate": {"description": "`Basic` and `Bearer`.", "schema": {"type": "string"}}
        }
    return documented
