"""How syslog messages travel: one in a datagram (RFC 5426), or one behind the other over TLS, each with its length (RFC 5425)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from tomowire.aio.tls import TlsClient

if TYPE_CHECKING:
    from tomowire.server.settings import AuditSettings

_LONGEST_DATAGRAM: Final = 65507
"""Bytes that a UDP datagram over IPv4 holds (RFC 5426 3.2)."""
_NO_LIMIT: Final = 1 << 62
_CLOSING: Final = 1.0
_TIMEOUT: Final = 20.0
"""Seconds for a connection, and in which something must move on it."""


def tls_of(settings: AuditSettings) -> TlsClient:
    """How a server is called over TLS."""
    return TlsClient(settings.syslog_authorities, settings.syslog_certificate, settings.syslog_key)


class UdpWay:
    """Datagrams to one address. That nobody takes them is told by the one before, if at all."""

    limit = _LONGEST_DATAGRAM

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._transport: asyncio.DatagramTransport | None = None
        self._errors = _Errors()

    async def connect(self) -> None:
        if self._transport is None:
            loop = asyncio.get_running_loop()
            self._errors = _Errors()
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self._errors, remote_addr=self._address)

    async def send(self, message: bytes) -> None:
        assert self._transport is not None
        self._errors.check()
        self._transport.sendto(message)
        # On this machine the system says at once that nobody listens: two turns of the event loop, and it has been heard.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._errors.check()

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
            await self._errors.closed.wait()


class _Errors(asyncio.DatagramProtocol):
    """What the system has said about datagrams that were sent."""

    def __init__(self) -> None:
        self._error: Exception | None = None
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def error_received(self, exc: Exception) -> None:
        self._error = exc

    def check(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


class TlsWay:
    """A TLS connection, opened anew when the server has closed it."""

    limit = _NO_LIMIT

    def __init__(self, host: str, port: int, tls: TlsClient) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @classmethod
    def to(cls, settings: AuditSettings) -> Self:
        """The server that the settings name."""
        assert settings.syslog_host is not None
        return cls(settings.syslog_host, settings.syslog_port, tls_of(settings))

    async def connect(self) -> None:
        if self._reader is not None and self._writer is not None:
            # What is written to a connection that the server has closed is lost without a word.
            if not (self._reader.at_eof() or self._writer.is_closing()):
                return
            await self.close()
        from tomowire.aio.tls_context import context_of_client

        context = await context_of_client(self._tls)
        async with asyncio.timeout(_TIMEOUT):
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        # `drain` waits until the kernel has all of it. (With 0, asyncio's TLS would never resume.)
        self._writer.transport.set_write_buffer_limits(high=1, low=0)

    async def send(self, message: bytes) -> None:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            raise ConnectionResetError("the server has closed the connection")
        self._writer.write(b"%d %s" % (len(message), message))
        async with asyncio.timeout(_TIMEOUT):
            await self._writer.drain()

    async def close(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()
            with suppress(OSError):
                async with asyncio.timeout(_CLOSING):
                    await writer.wait_closed()
            writer.transport.abort()
