"""What is done for every request: an id, a line in the log, limits for its body, and an answer if all else fails.

Plain ASGI: nothing here looks into a body, and streams pass through.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from tomowire.server.logs import http_request
from tomowire.web.problems import MISTAKE, Problem, problem_response
from tomowire.web.target import in_origin_form

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger: Final = logging.getLogger("tomowire.http")

MOST_BODY: Final = 1 << 20
"""Bytes of a request's body: the longest that makes sense is a list of UIDs, or a configuration."""

MOST_HEADER: Final = 32 * 1024
MOST_ADDRESS: Final = 16 * 1024
"""Bytes: a query may have some filters with many values."""

BODY_TIMEOUT: Final = 30.0
"""Seconds in which all of it has to come."""

HAS_ENDED: Final = "has_ended"
"""Where the state of a request has the `Event` that its client sends no more."""

BROKEN: Final = "broken"
"""And why its body cannot be read, if that is so."""

_LONGEST_PATH: Final = 200

_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),  # all of it may be about patients
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class EveryRequest:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send)
        http_request.set(exchange.request_id)
        try:
            exchange.check()
            scope = in_origin_form(scope)
            app = self._app if scope["raw_path"] != b"*" else _METHODS
            await app(_as_get(scope), exchange.receive, exchange.send)
        except Problem as problem:  # of a body, where nobody caught it
            await exchange.fail(problem.status_code, problem.detail)
        except Exception as error:
            # In full only for who asks for it: the text of an exception may quote what was sent.
            logger.error("request %s: %s failed: %s", exchange.request_id, scope["method"], type(error).__name__)
            logger.debug("request %s failed", exchange.request_id, exc_info=True)
            await exchange.fail(500, MISTAKE)
        finally:
            exchange.log()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = self.request_id
        self._scope = scope
        self._receive = receive
        self._send = send
        self._began = time.perf_counter()
        self._body_until = asyncio.get_running_loop().time() + BODY_TIMEOUT
        self._body_left = MOST_BODY
        self._is_body_whole = False
        self._status = 0
        self._sent = 0

    def check(self) -> None:
        """Raises `Problem` for what can be refused by its header."""
        if self._scope["http_version"] not in ("1.0", "1.1"):
            raise Problem(505, "this server speaks HTTP/1.1")
        # h11 counts only what it has to keep until the rest comes.
        if len(self._scope["raw_path"]) + len(self._scope["query_string"]) > MOST_ADDRESS:
            raise Problem(414, f"an address has {MOST_ADDRESS} bytes at most")
        if sum(len(name) + len(value) + 4 for name, value in self._scope["headers"]) > MOST_HEADER:
            raise Problem(431, f"a header has {MOST_HEADER} bytes at most")
        lengths = [value for name, value in self._scope["headers"] if name == b"content-length"]
        if lengths and any(name == b"transfer-encoding" for name, _ in self._scope["headers"]):
            # RFC 9112 6.3: whoever stands between may have read it by the other one.
            raise Problem(400, "the length of the body is said in two ways")
        if lengths and int(lengths[0]) > MOST_BODY:
            raise Problem(413, _TOO_LONG)

    async def receive(self) -> Message:
        """Raises `Problem` for a body that is too long, too slow, or none."""
        if self._is_body_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._body_until):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, f"the request did not come within {BODY_TIMEOUT:g} s", headers=_CLOSE) from None
        if (why := self._scope["state"].get(BROKEN)) is not None:
            raise Problem(400, why, headers=_CLOSE)
        self._body_left -= len(message.get("body", b""))
        if self._body_left < 0:
            raise Problem(413, _TOO_LONG, headers=_CLOSE)
        self._is_body_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            given = {name.lower() for name, _ in message.get("headers", ())}
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode("ascii"))]
            headers += [header for header in _ALWAYS if header[0] not in given]
            message = {**message, "headers": headers}
        else:
            self._sent += len(message.get("body", b""))
        await self._send(message)

    async def fail(self, status: int, detail: str) -> None:
        """Answer with a problem. Where the answer has begun, the connection is closed in the middle of it."""
        if not self._status:
            response = problem_response(status, detail, request_id=self.request_id, headers=_CLOSE)
            await response(self._scope, self.receive, self.send)

    def log(self) -> None:
        """One line. What is asked for in a query may be a patient's name, and stays out of it."""
        level = (
            logging.INFO if self._status < 500 or self._status == 505 else logging.WARNING
        )  # that is no failure here
        if not logger.isEnabledFor(level):
            return
        host, port = self._scope.get("client") or ("?", 0)
        principal = self._scope["state"].get("principal")
        logger.log(
            level,
            "request %s: %s:%d %s %s %s: %d, %d bytes, %.1f ms",
            self.request_id,
            host,
            port,
            principal.name if principal is not None else "-",
            self._scope["method"],
            self._scope["raw_path"][:_LONGEST_PATH].decode(
                "ascii"
            ),  # as it came: there are no control characters in it
            self._status,
            self._sent,
            (time.perf_counter() - self._began) * 1e3,
        )


def _as_get(scope: Scope) -> Scope:
    """RFC 9110 9.3.2: HEAD is answered as GET is; the protocol leaves out the content. Who follows a log wants nothing else."""
    if scope["method"] != "HEAD" or scope["path"] == "/api/logs/stream":
        return scope
    return {**scope, "method": "GET", "is_head": True}


_METHODS: Final = Response(status_code=204, headers={"Allow": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"})
"""To `OPTIONS *` (RFC 9110 9.3.7): of the server as a whole."""

_CLOSE: Final = {"Connection": "close"}
_TOO_LONG: Final = f"a request has {MOST_BODY} bytes at most"
