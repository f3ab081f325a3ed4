"""Who asks (RFC 7617 Basic, RFC 6750 bearer tokens), and whether a browser was sent here by somebody else's page.

On the loopback address, as long as there is no user, nobody has to log in: who can connect is on this machine. But so is a browser
that shows a page of somebody else's: that page can make it ask us (a foreign `Origin`), or give its own name our address (DNS
rebinding: a foreign `Host`). Both are refused. A request that changes something is never taken from a foreign `Origin`, login or
not: browsers send a password that they know with whatever page asks.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers

from tomowire.errors import IndexUnavailable, LoginFailed, TooManyLogins
from tomowire.web.gate import ANYBODY
from tomowire.web.problems import problem_response

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tomowire.web.gate import Gate

logger: Final = logging.getLogger("tomowire.http")

NO_LOGIN: Final = frozenset({"/healthz", "/readyz"})
"""What answers to everybody: it says nothing of what is stored."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CHALLENGE: Final = 'Basic realm="tomowire", charset="UTF-8", Bearer realm="tomowire"'
_LONGEST: Final = 64 + 1024
"""Characters of the longest name and password that a user can have: hashing a longer one is work for nothing."""
_LONGEST_ENCODED: Final = (_LONGEST + 1) * 4 * 4 // 3 + 4
"""The same in UTF-8 and base64."""


class Login:
    """Finds out who asks and puts it in `scope["state"]["principal"]`, and what asks again in `"again"`; or refuses."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._check(scope)
        await (response or self._app)(scope, receive, send)

    async def _check(self, scope: Scope) -> Response | None:
        """The refusal, if there is one."""
        if scope["path"] in NO_LOGIN:
            return None
        headers = Headers(scope=scope)
        try:
            is_open = await self._gate.is_open()
            if (foreign := self._why_foreign(scope, headers, is_open=is_open)) is not None:
                return _refusal(scope, 403, foreign)
            if is_open or (scope["path"] == "/metrics" and not self._gate.settings.metrics_login):
                scope["state"] |= {"principal": ANYBODY, "again": self._gate.anybody_again}
                return None
            return await self._log_in(scope, headers)
        except IndexUnavailable as error:
            logger.error("nobody can log in: the index cannot be used: %s", error)
            return _refusal(scope, 503, "the index cannot be used now", {"Retry-After": "5"})

    def _why_foreign(self, scope: Scope, headers: Headers, *, is_open: bool) -> str | None:
        """Why the request is none that this server's own pages or programs would make; None if it is one."""
        host, origin = headers.get("host"), headers.get("origin")
        if is_open and not self._gate.knows_host(host):
            return "this server is not known by the name in 'Host': a person can add it to 'hosts' in [http]"
        if not is_open and scope["method"] in _SAFE:
            return None
        if not self._gate.knows_origin(origin, host, scope["scheme"]):
            return "the page that asks ('Origin') is not one of this server's"
        if origin is None and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "the page that asks ('Sec-Fetch-Site') is not one of this server's"
        return None

    async def _log_in(self, scope: Scope, headers: Headers) -> Response | None:
        given = headers.get("authorization")
        if given is None:
            return _refusal(scope, 401, "this needs a login: a name and password, or a token", _CHALLENGED)
        address = (scope.get("client") or ("", 0))[0]
        credentials = _credentials(given)
        if credentials is None:
            return _refusal(scope, 401, _NO_CREDENTIALS, _CHALLENGED)
        try:
            name, secret = credentials
            scope["state"]["principal"] = await self._gate.log_in(address, name, secret)
            # No `partial`: what prints one prints the secret.
            scope["state"]["again"] = lambda: self._gate.again(name, secret)
        except TooManyLogins as error:
            seconds = max(1, math.ceil(error.seconds))
            text = f"{error}: try again in {seconds} s"
            return _refusal(scope, 429, text, {"Retry-After": str(seconds)})
        except LoginFailed as error:
            return _refusal(scope, 401, str(error), _CHALLENGED)
        return None


def _refusal(scope: Scope, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return problem_response(status, detail, request_id=scope["state"]["request_id"], headers=headers)


_CHALLENGED: Final = {"WWW-Authenticate": _CHALLENGE}


_NO_CREDENTIALS: Final = (
    "the login cannot be understood: 'Authorization' is to be Bearer with a token, or Basic with name:password in UTF-8 and"
    " base64"
)


def _credentials(given: str) -> tuple[str, str] | None:
    """Name and password; of a token the name is empty. None for what is neither: there is nothing in it to be guessed."""
    scheme, _, rest = given.strip().partition(" ")
    rest = rest.strip()
    if len(rest) > _LONGEST_ENCODED:
        return None
    if scheme.lower() == "bearer":
        return ("", rest) if rest else None
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    if not (colon and name) or len(name) + len(password) > _LONGEST or "\0" in name + password:
        return None
    return name, password
