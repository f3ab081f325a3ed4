"""One TLS handshake on a connection that is open, for either side.

`loop.start_tls` does the work. What it lacks is added here: it hands on what came with the end of the handshake before there is
anybody to take it, it does not tell how the other side began, and when a handshake fails it keeps the alert to itself that would
have told the other side why. And it would wait at the end until the other side has confirmed that.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import weakref
from typing import TYPE_CHECKING, Any, Final, cast

from tomowire.aio.existing import feed
from tomowire.aio.tls_reasons import is_tls
from tomowire.aio.writing import direct_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.connection import Connection

_BUFFER: Final = 64 * 1024
_FIRST: Final = 8

# The fatal alert "protocol_version" as a record (RFC 8446 5.1, 6.2). OpenSSL says nothing to a caller that does not speak TLS, and
# a closed connection may mean anything.
_NO_TLS_CAME: Final = bytes.fromhex("15 0301 0002 02 46")

# So long may what was written before take to leave, when the connection is closed.
_SHUTDOWN_TIMEOUT: Final = 5.0
# Who waits for a handshake sets the limit.
_NO_TIMEOUT: Final = 24 * 3600.0


class Handshake(asyncio.BufferedProtocol):
    """The protocol of a connection until TLS is agreed on: `run`, then `hand_over` to the `Connection`.

    `first` are the first bytes that came from the other side, at most 8; `has_begun` says whether `run` was called. `on_open` is
    called when the connection is open.
    """

    def __init__(self, on_open: Callable[[Handshake, asyncio.Transport], None] | None = None) -> None:
        self._on_open = on_open
        self.first = b""
        self.has_begun = False
        self._early: list[bytes] = []
        self._buffer = memoryview(b"")
        self._has_ended = False
        self._is_lost = False
        self._lost_by: Exception | None = None
        self._connection: Connection | None = None

    async def run(
        self, transport: asyncio.Transport, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None
    ) -> asyncio.Transport:
        """Shake hands, and give the transport that encrypts.

        Raises `ssl.SSLError` or another `OSError`. Whatever is raised, a cancellation too: the connection is closed then.
        """
        self.has_begun = True
        if self._is_lost or self._has_ended or transport.is_closing():
            transport.abort()
            raise ConnectionResetError("the connection was closed before the TLS handshake")
        try:
            tls = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                _Watched(context, self, transport),
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=_NO_TIMEOUT,
                ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT,
            )
            if tls is None or tls.get_extra_info("ssl_object") is None:  # closed without an error
                raise ConnectionResetError("the connection was closed during the TLS handshake")
        except BaseException:
            transport.abort()
            raise
        return tls

    def hand_over(self, tls: asyncio.Transport, connection: Connection) -> None:
        """`connection` is the protocol of `tls` from now on, and gets all that has happened on it already."""
        self._connection = connection
        tls.set_protocol(connection)
        connection.connection_made(tls)
        for data in self._early:
            feed(connection, tls, data)
        if self._has_ended:
            connection.eof_received()
        if self._is_lost:
            connection.connection_lost(self._lost_by)

    def take_early(self) -> bytes:
        """What came before `start_tls` was the protocol of the connection."""
        data = b"".join(self._early)
        self._early.clear()
        return data

    # From asyncio, before `start_tls` has taken over, and again between the end of the handshake and `hand_over`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast("asyncio.Transport", transport)
        opened.pause_reading()  # uvloop reads all the same
        if self._on_open is not None:
            self._on_open(self, opened)

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = memoryview(bytearray(_BUFFER))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._early.append(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        self._has_ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:  # it was on its way here when it was handed over
            self._connection.connection_lost(exc)
        self._is_lost, self._lost_by = True, exc


class _Watched(ssl.SSLContext):
    """A context as `start_tls` wants it, for one handshake: the real one, with an eye on what comes and what goes."""

    _context: ssl.SSLContext
    _handshake: Handshake
    _transport: asyncio.Transport

    def __new__(cls, context: ssl.SSLContext, handshake: Handshake, transport: asyncio.Transport) -> _Watched:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)  # any: nothing is done with it
        made._context, made._handshake, made._transport = context, handshake, transport
        return made

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **keywords: Any
    ) -> ssl.SSLObject:
        tls = self._context.wrap_bio(incoming, outgoing, *arguments, **keywords)
        incoming.write(self._handshake.take_early())
        _end_at_once(tls, self._transport)
        go_on = tls.do_handshake

        def do_handshake() -> None:
            if not self._handshake.first:
                came = incoming.read()
                incoming.write(came)
                self._handshake.first = came[:_FIRST]
            try:
                go_on()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError:
                alert = outgoing.read()
                if not alert and tls.server_side and not is_tls(self._handshake.first):
                    alert = _NO_TLS_CAME
                _send_now(self._transport, alert)
                del tls.do_handshake  # it refers to `tls`
                raise
            del tls.do_handshake

        tls.do_handshake = do_handshake  # type: ignore[method-assign]
        return tls


def _end_at_once(tls: ssl.SSLObject, transport: asyncio.Transport) -> None:
    """Close the connection when close_notify is on its way, as RFC 8446 6.1 allows: many peers wait for that, and confirm nothing.

    What DICOM had to say has been said and answered before (PS3.8 7.2), so nothing can be cut off by it.
    """
    loop = asyncio.get_running_loop()
    unwrap = type(tls).unwrap
    itself = weakref.ref(tls)

    def end() -> None:
        ending = itself()
        assert ending is not None
        del ending.unwrap  # once is enough
        try:
            unwrap(ending)
        except ssl.SSLWantReadError:
            # When the event loop hears this it sends close_notify, and would wait for the other side's.
            loop.call_soon(transport.close)
            raise

    tls.unwrap = end  # type: ignore[method-assign]


def _send_now(transport: asyncio.Transport, data: bytes) -> None:
    """Send an alert before the event loop drops the connection. When it cannot be sent, the other side has to guess."""
    descriptor = direct_descriptor(transport)
    if not data or transport.get_write_buffer_size():
        return
    if descriptor is None:
        transport.write(data)
        return
    try:
        os.write(descriptor, data)
    except OSError:
        return
