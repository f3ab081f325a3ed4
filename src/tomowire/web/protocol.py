"""The connections of the HTTP port: uvicorn's protocol, made patient with those who are slow and not with those who are too slow.

uvicorn by itself waits for ever for the end of a request's header, and for a client that does not take its answer.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from email.utils import formatdate
from http import HTTPStatus
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tomowire.web.problems import PROBLEM, problem_body
from tomowire.web.requests import BROKEN, HAS_ENDED, MOST_ADDRESS, MOST_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

logger: Final = logging.getLogger("tomowire.http")

MOST_CONNECTIONS: Final = 256
"""Each takes a descriptor, and so does each object while it is written."""

HEADER_TIMEOUT: Final = 10.0
"""Seconds from the connection, or from the first byte of another request on it, to the end of the request's header."""

STALL_TIMEOUT: Final = 30.0
"""Seconds in which a client must take some of its answer, and in which a connection that was closed gets rid of the rest."""

MOST_IN_A_TURN: Final = 4 * 1024
"""Bytes: they may be seven hundred chunks, which everybody else has to wait for."""

KEEP_ALIVE: Final = 15
"""Seconds between two requests."""

TELL_INTERVAL: Final = 10.0
"""Seconds between two lines about connections that were dropped."""


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """uvicorn warns of each request that is none, and does not say from whom: see `send_400_response`. And it calls a mistake what
    was cancelled at the end."""
    failure = record.exc_info[1] if record.exc_info else None
    return record.levelno != logging.WARNING and not isinstance(failure, asyncio.CancelledError)


_uvicorn_logger: Final = logging.getLogger("tomowire.http.protocol")
_uvicorn_logger.addFilter(_is_worth_a_line)


class Connections:
    """All connections with the requests on them."""

    def __init__(self, app: ASGIApp) -> None:
        self._config = Config(
            app,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # what a client says of itself is not believed
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            h11_max_incomplete_event_size=MOST_HEADER + MOST_ADDRESS,
        )
        self._config.load()
        self._state = _State()
        self._open: dict[HttpConnection, None] = {}  # in the order in which they came
        self._on_none: asyncio.Event | None = None
        self._dropped: list[str] = []  # of whom, since the last line about it
        self._telling: asyncio.TimerHandle | None = None

    def new(self) -> HttpConnection:
        """The protocol of a new connection."""
        return HttpConnection(self._config, self._state, self._on_open, self._on_gone)

    async def close(self, grace: float) -> None:
        """Close those on which nothing is being answered now, and the others when that is done; after `grace` seconds at once."""
        _stop(self._telling)
        self._tell_dropped()
        _stop(self._telling)
        for connection in list(self._open):
            connection.shutdown()
        if not await self._wait_gone(grace):
            for task in list(self._state.tasks):
                task.cancel()
            self.kill()
            await self._wait_gone(grace)
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=max(grace, 1.0))

    def kill(self) -> None:
        """Close all connections, whatever is still to be sent."""
        for connection in list(self._open):
            connection.transport.abort()

    async def _wait_gone(self, seconds: float) -> bool:
        self._on_none = asyncio.Event()
        if not self._open:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._on_none.wait()
        except TimeoutError:
            return False
        return True

    def _on_open(self, connection: HttpConnection) -> None:
        self._open[connection] = None
        if self._on_none is not None:  # it was in the queue of the kernel
            connection.transport.abort()
        elif sum(not each.is_dropped for each in self._open) > MOST_CONNECTIONS:
            dropped = self._least_missed(connection)
            dropped.drop()
            self._dropped.append(dropped.peer)
            if self._telling is None:
                self._tell_dropped()

    def _least_missed(self, newcomer: HttpConnection) -> HttpConnection:
        """The one to drop, so that there is room for `newcomer`.

        Who has waited longest without asking for anything is the least likely to do so. Where nobody is idle it is one that
        its client holds, of those who have most: whoever asks and takes no answer cannot keep all others out.
        """
        others = [each for each in self._open if each is not newcomer and not each.is_dropped]
        idle = next((each for each in others if each.is_idle), None)
        if idle is not None:
            return idle
        count = Counter(each.peer for each in others)
        held = ((-count[each.peer], since, each) for each in others if (since := each.held_since) is not None)
        return min(held, key=itemgetter(0, 1), default=(0, 0.0, newcomer))[2]

    def _tell_dropped(self) -> None:
        """A line for all since the last one: in a flood each connection that comes costs another."""
        self._telling = None
        if self._dropped:
            logger.warning(
                "too many HTTP connections: %d dropped, the last of %s", len(self._dropped), self._dropped[-1]
            )
            self._dropped.clear()
            self._telling = asyncio.get_running_loop().call_later(TELL_INTERVAL, self._tell_dropped)

    def _on_gone(self, connection: HttpConnection) -> None:
        self._open.pop(connection, None)
        if not self._open and self._on_none is not None:
            self._on_none.set()


class _State(ServerState):
    """Each answer says when it was made (RFC 9110 6.6.1)."""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"date", formatdate(usegmt=True).encode("ascii"))]

    @default_headers.setter
    def default_headers(self, _: list[tuple[bytes, bytes]]) -> None:
        """uvicorn's own are none."""


class HttpConnection(H11Protocol):
    """One connection, with its deadlines."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        on_open: Callable[[HttpConnection], None],
        on_gone: Callable[[HttpConnection], None],
    ) -> None:
        self._has_ended = asyncio.Event()
        super().__init__(config, state, {HAS_ENDED: self._has_ended}, asyncio.get_running_loop())
        self.logger = _uvicorn_logger
        self.access_log = False
        self._tell_open = on_open
        self._tell_gone = on_gone
        self._header: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._unread = bytearray()
        self._turn: asyncio.Handle | None = None
        self._received = memoryview(b"")
        self._asked_at = self.loop.time()
        self.is_dropped = False

    @property
    def peer(self) -> str:
        """The address of the client."""
        return self.client[0] if self.client else "?"

    @property
    def is_answering(self) -> bool:
        """Whether a request has come that is not answered yet."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do on it before another request comes."""
        return not (self.is_answering or self.transport.is_closing() or self.transport.get_write_buffer_size())

    @property
    def held_since(self) -> float | None:
        """Since when it is its client that holds it: it sends no more of a request, takes no more of an answer, or asks again
        before it has one. None where a client only waits for us."""
        if self._stalled is not None:
            return self._stalled.when() - STALL_TIMEOUT
        if self.is_answering:
            asks_again = bool(self._unread or self.conn.trailing_data[0])
            return self._asked_at if self.cycle.more_body or asks_again else None
        return self._asked_at if self.transport.get_write_buffer_size() else None

    @property
    def _lacks_something(self) -> bool:
        """Whether a request has begun and does not end with what has come."""
        if self.is_answering:
            return bool(self.cycle.more_body)
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_header()
        self._tell_open(self)

    def drop(self) -> None:
        """End it at once, whatever is still to be sent."""
        self.is_dropped = True
        self.transport.abort()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._asked_at = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if self._turn is None:
            self._take_turn()

    def _take_turn(self) -> None:
        """Look through some of what has come, and have the rest wait until others have had their turn."""
        data = bytes(self._unread[:MOST_IN_A_TURN])
        del self._unread[:MOST_IN_A_TURN]
        self._read(data)
        if self.transport.is_closing():
            self._unread.clear()
        if self._unread:
            self.transport.pause_reading()
            self._turn = self.loop.call_soon(self._take_turn)
        elif self._turn is not None:
            self._turn = None
            if not self.flow.read_paused:
                self.transport.resume_reading()
            if self._has_ended.is_set():
                self._stays_open()

    def _read(self, data: bytes) -> None:
        if self.conn.their_state is h11.ERROR:  # nobody knows what it could be, and it would be kept
            return
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            data = data.lstrip(b"\r\n")  # RFC 9112 2.2: some send an empty line behind a body
        if not data:
            return
        super().data_received(data)
        if self.is_answering:
            _stop(self._header)
            self._header = None
        elif self._header is None:
            self._expect_header()
        self._watch_closing()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's says that it is never so
        """Who has said all there is may still read, as `nc -N` does: it gets its answer, and then the connection is closed."""
        self._has_ended.set()
        return self._stays_open() if self._turn is None else self.scheme == "http"

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or could be read in two ways. In the middle of an answer there is no place for another one."""
        status, why = _why_none(sys.exception())
        if self.is_answering and not self.cycle.response_started:
            self.cycle.scope["state"][BROKEN] = why  # whoever reads the body answers
            self.cycle.message_event.set()
            return
        logger.info("%s: sent what is no HTTP request", self.peer)
        if self.conn.our_state is not h11.IDLE:
            self.transport.abort()
            return
        body = problem_body(status, why)
        headers = [("Content-Type", PROBLEM), ("Content-Length", str(len(body))), ("Connection", "close")]
        reason = HTTPStatus(status).phrase
        answer = h11.Response(status_code=status, headers=headers, reason=reason)
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._watch_closing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_ended.is_set() and self._turn is None and not self.transport.is_closing():
            self._stays_open()
        self._watch_closing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_closing()

    def shutdown(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(STALL_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            _stop(self._stalled)
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn forgets it when the connection broke
        _stop(self._header)
        self._header = None
        _stop(self._stalled)
        self._stalled = None
        _stop(self._turn)
        self._tell_gone(self)

    # What `tls_handshake` hands over as to a `BufferedProtocol`

    def get_buffer(self, sizehint: int) -> memoryview:
        self._received = memoryview(bytearray(max(sizehint, 64 * 1024)))
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._received[:nbytes]))

    def _stays_open(self) -> bool:
        """Of one on which no more comes: whether it stays open. (None does with TLS: asyncio knows no half of it.)"""
        if self.scheme == "http":
            if self._lacks_something:
                self.conn.receive_data(b"")
                self.handle_events()
            if self.is_answering:
                return True
        self.transport.close()
        self._watch_closing()
        return False

    def _expect_header(self) -> None:
        self._header = self.loop.call_later(HEADER_TIMEOUT, self._on_no_header)

    def _on_no_header(self) -> None:
        self._header = None
        if not self.is_answering:
            self.transport.abort()

    def _watch_closing(self) -> None:
        """A connection that is to be closed when all is sent has to send it some time."""
        if self.transport.is_closing() and self._stalled is None and self.transport.get_write_buffer_size():
            self._stalled = self.loop.call_later(STALL_TIMEOUT, self.transport.abort)


def _why_none(error: BaseException | None) -> tuple[int, str]:
    """Status and words for what h11 could not read. What it quotes of that is left out."""
    if not isinstance(error, h11.RemoteProtocolError):
        return 400, _NONE
    if error.error_status_hint == 431:
        return 431, f"the header is too long: with the address it has {MOST_HEADER + MOST_ADDRESS} bytes at most"
    why = str(error).partition(": bytearray(")[0]
    return error.error_status_hint, f"{_NONE}: {why}{_HINTS.get(why, '')}"


_NONE: Final = "this is no request of HTTP/1.1"
_HINTS: Final = {
    "illegal request line": " (METHOD /path HTTP/1.1; spaces in the path, and all that is not ASCII, have to be percent-encoded)",
    "peer unexpectedly closed connection": " before the empty line that ends the header",
}


def _stop(timer: asyncio.Handle | None) -> None:
    if timer is not None:
        timer.cancel()
