"""A connection that is there already, for a requestor to use instead of opening one: a socket, a transport or a pair of streams."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final, cast

from tomowire.errors import UsageError

Stream = asyncio.Transport | tuple[asyncio.StreamReader, asyncio.StreamWriter]

_TAKEN: Final = (
    "stream= takes a transport, or the reader and the writer of one connection, as asyncio.open_connection gives them"
)
_FOR_PROGRAMS: Final = (
    "start the program with one end of a socket.socketpair() as stdin and stdout, and give the other as sock="
)

_AT_ONCE: Final = 1 << 16
_FAMILIES: Final = {socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", socket.AF_INET)}


def check_socket(sock: socket.socket) -> socket.socket:
    """A connected stream socket, made non-blocking. Raises `UsageError` for another, and leaves it as it was."""
    if not isinstance(sock, socket.socket):
        raise UsageError(f"sock= takes a socket, and not {type(sock).__name__}")
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
    """The transport of an open stream. Raises `UsageError` for one that is closed, and for what is none."""
    if not isinstance(stream, tuple):
        _check_transport(stream)
        is_over = stream.is_closing()
        transport = stream
    else:
        kinds, given = (asyncio.StreamReader, asyncio.StreamWriter), list[object](stream)
        if len(given) != len(kinds) or not all(map(isinstance, given, kinds)):
            raise UsageError(f"{_TAKEN}, and not {tuple(type(each).__name__ for each in stream)}")
        reader, writer = stream
        transport = cast("asyncio.Transport", writer.transport)
        is_over = transport.is_closing() or reader.at_eof()
        if not isinstance(transport.get_protocol(), asyncio.StreamReaderProtocol):
            raise UsageError(f"{_TAKEN}: these are pipes, of which each goes one way; {_FOR_PROGRAMS}")
    if is_over:
        raise UsageError("the stream is closed")
    return transport


def _check_transport(transport: Any) -> None:
    """Not by its class: uvloop's are none of asyncio's."""
    if not (hasattr(transport, "set_protocol") and hasattr(transport, "get_extra_info")):
        raise UsageError(f"{_TAKEN}, and not {type(transport).__name__}")
    if transport.get_extra_info("pipe") is not None:
        raise UsageError(f"{_TAKEN}: a pipe goes one way; {_FOR_PROGRAMS}")


def take_over(stream: Stream, transport: asyncio.Transport, protocol: asyncio.BufferedProtocol) -> None:
    """`protocol` has the transport of `stream` from now on, and what a reader holds that nobody has read yet."""
    before = transport.get_protocol()
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if isinstance(stream, tuple):
        reader = stream[0]
        while data := _held_by(reader):
            feed(protocol, transport, data)
        if reader.at_eof() and not protocol.eof_received():
            transport.close()
        if isinstance(before, asyncio.StreamReaderProtocol):
            # For the reader and the writer it is the end: `await writer.wait_closed()` would wait for ever.
            before.connection_lost(None)
    if not transport.is_closing():
        transport.resume_reading()  # a reader that had enough has paused it


def feed(protocol: asyncio.BufferedProtocol, transport: asyncio.Transport, data: bytes) -> None:
    """Give `protocol` what came on its transport before it was its."""
    view = memoryview(data)
    while view:
        room = cast("memoryview", protocol.get_buffer(len(view)))
        taken = min(len(room), len(view))
        if not taken:  # more than anybody has to say before there is an association
            transport.abort()
            return
        room[:taken] = view[:taken]
        protocol.buffer_updated(taken)
        view = view[taken:]


def _held_by(reader: asyncio.StreamReader) -> bytes:
    """What can be read without waiting."""
    reading = reader.read(_AT_ONCE)
    try:
        reading.send(None)
    except StopIteration as done:
        return cast("bytes", done.value)
    except RuntimeError:  # somebody else is waiting for more: there is nothing
        return b""
    reading.close()  # it would have to wait
    return b""
