"""The other end of a connection, by hand: whoever holds it says which bytes are sent, and sees which come back.

Nothing here keeps to the rules of the protocol; that is the point.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from tomowire.wire.command_set import decode_command, encode_command
from tomowire.wire.pdu import PDU_HEADER, AAbort, PDataTF, decode_pdu, encode_pdu
from tomowire.wire.pdv import Pdv
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from tomowire.wire.command_set import Message
    from tomowire.wire.pdu import Pdu

DEFAULT_PATIENCE: Final = 30.0
"""Seconds for one step: none takes as long, and whoever waits for what does not come is told in the end."""

_READ: Final = 1 << 16
_FRAGMENT: Final = 1 << 14
_RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST."""


@value()
class RawMessage:
    """A whole message as it came."""

    context_id: int
    command: Message
    data: bytes | None


class Closed(Exception):
    """The other side has closed the connection."""


class Unexpected(AssertionError):
    """A PDU where another is due."""

    def __init__(self, pdu: Pdu) -> None:
        super().__init__(str(pdu))
        self.pdu = pdu


def p_data(context_id: int, data: bytes, *, command: bool, last: bool) -> bytes:
    """One P-DATA-TF PDU with one PDV."""
    return encode_pdu(PDataTF((Pdv(context_id, command, last, data),)))


def command_pdu(context_id: int, message: Message) -> bytes:
    """One P-DATA-TF PDU with a whole command set."""
    return p_data(context_id, encode_command(message), command=True, last=True)


def data_pdus(context_id: int, data: bytes, fragment: int = _FRAGMENT) -> list[bytes]:
    """The P-DATA-TF PDUs of a data set, in fragments of `fragment` bytes."""
    starts = range(0, max(len(data), 1), fragment)
    return [
        p_data(context_id, data[start : start + fragment], command=False, last=start + fragment >= len(data))
        for start in starts
    ]


def message_pdus(context_id: int, message: Message, data: bytes | None = None, fragment: int = _FRAGMENT) -> bytes:
    """The PDUs of a message, its data set in fragments of `fragment` bytes."""
    parts = [command_pdu(context_id, message)]
    if data is not None:
        parts += data_pdus(context_id, data, fragment)
    return b"".join(parts)


def with_wrong_length(pdu: bytes) -> bytes:
    """A PDU that says that it is ten bytes shorter than it is."""
    return pdu[:2] + struct.pack(">I", len(pdu) - PDU_HEADER.size - 10) + pdu[PDU_HEADER.size :]


def malformed_command_pdu(context_id: int, message: Message) -> bytes:
    """As `command_pdu`, but the length of the first element behind the group length goes past the end."""
    command = encode_command(message)
    command = command[:16] + struct.pack("<I", 0x7FFFFFFF) + command[20:]
    return p_data(context_id, command, command=True, last=True)


class RawConnection:
    """One connection of which every byte is one's own. No step takes longer than `patience` seconds: `TimeoutError`."""

    def __init__(self, sock: socket.socket, *, patience: float = DEFAULT_PATIENCE) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.patience = patience
        self.received = 0
        """Bytes that have been read from the socket."""
        self.most = _READ
        """How many bytes are read at once."""
        self.on_received: Callable[[], None] | None = None
        """Called whenever bytes have come; what it raises, reading raises."""
        self.last_command = b""
        """The last command set, as it came."""
        self._buffer = b""

    @classmethod
    async def connect(
        cls,
        port: int,
        *,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        patience: float = DEFAULT_PATIENCE,
    ) -> Self:
        """Open a connection."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(patience):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock, patience=patience)

    @property
    def buffered(self) -> int:
        """Bytes that have come, and have not been taken."""
        return len(self._buffer)

    async def send(self, *items: bytes | Pdu) -> None:
        """Send bytes and PDUs, in one go."""
        data = b"".join(item if isinstance(item, bytes) else encode_pdu(item) for item in items)
        async with asyncio.timeout(self.patience):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises `Closed`."""
        async with asyncio.timeout(self.patience):
            while len(self._buffer) < size:
                received = await self._receive()
                if not received:
                    raise Closed
                self._buffer += received
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def read_pdu(self) -> Pdu:
        """The next PDU. Raises `Closed`, and `PduError` for what is none."""
        pdu_type, length = PDU_HEADER.unpack(await self.read(PDU_HEADER.size))
        return decode_pdu(pdu_type, await self.read(length))

    async def read_message(self) -> RawMessage:
        """The next message, put together from its fragments.

        Raises `Unexpected` for another PDU than P-DATA-TF, `CommandSetError` for a command set that cannot be decoded.
        """
        parts: dict[bool, list[bytes]] = {True: [], False: []}
        command: Message | None = None
        while True:
            pdu = await self.read_pdu()
            if not isinstance(pdu, PDataTF):
                raise Unexpected(pdu)
            for pdv in pdu.pdvs:
                parts[pdv.is_command].append(bytes(pdv.data))
                if pdv.is_last and pdv.is_command:
                    self.last_command = b"".join(parts[True])
                    command = decode_command(self.last_command)
                if pdv.is_last and command is not None and (not pdv.is_command or not command.has_data_set):
                    return RawMessage(pdv.context_id, command, None if pdv.is_command else b"".join(parts[False]))

    async def read_until_closed(self) -> bytes:
        """All that still comes, until the other side closes or resets the connection."""
        parts = [self._buffer]
        self._buffer = b""
        async with asyncio.timeout(self.patience):
            while True:
                try:
                    received = await self._receive()
                except ConnectionResetError:
                    return b"".join(parts)
                if not received:
                    return b"".join(parts)
                parts.append(received)

    async def expect_abort(self) -> AAbort:
        """The A-ABORT that must come next (after whatever messages were on their way)."""
        while True:
            pdu = await self.read_pdu()
            if isinstance(pdu, AAbort):
                return pdu
            if not isinstance(pdu, PDataTF):
                raise Unexpected(pdu)

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close the connection with a TCP RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _receive(self) -> bytes:
        received = await asyncio.get_running_loop().sock_recv(self.socket, self.most)
        self.received += len(received)
        if received and self.on_received is not None:
            self.on_received()
        return received
