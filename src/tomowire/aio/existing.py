"""A connection that is there already, for a requestor to use instead of opening one: a socket, a transport or a pair of streams."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final, cast

from tomowire.errors import UsageError

Stream = asyncio.Transport | tuple[asyncio.StreamReader, asyncio.StreamWriter]

_FAMILIES: Final = {socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", socket.AF_INET)}


def check_socket(sock: socket.socket) -> socket.socket:
    """A connected stream socket, made non-blocking. Raises `UsageError` for another, and leaves it as it was."""
    if isinstance(sock, ssl.SSLSocket):
        raise UsageError("an SSLSocket cannot be used: give the socket below it, and ssl= for TLS")
    if sock.fileno() == -1:
        raise UsageError("the socket is closed")
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
        raise UsageError(f"the socket must be a stream over TCP or a Unix socket: {sock.family!r}, {sock.type!r}")
    try:
        sock.getpeername()
    except OSError as error:
        raise UsageError(f"the socket is not connected ({error.strerror})") from error
    sock.setblocking(False)
    return sock


def transport_of(stream: Stream) -> asyncio.Transport:
    """The transport of an open stream. Raises `UsageError` for one that is closed."""
    if isinstance(stream, tuple):
        reader, writer = stream
        transport = cast("asyncio.Transport", writer.transport)
        is_over = transport.is_closing() or reader.at_eof()
    else:
        transport = stream
        is_over = transport.is_closing()
    if is_over:
        raise UsageError("the stream is closed")
    return transport


def take_over(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    """`protocol` has the transport from now on."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if not transport.is_closing():
        transport.resume_reading()  # a reader that had enough has paused it
