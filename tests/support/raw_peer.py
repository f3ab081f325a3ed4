"""The other end of a connection, by hand: a test says which bytes are sent, and sees which come back.

Nothing here knows the protocol's rules; that is the point. What is read is decoded with `tomowire.wire`, whose own tests hold it
to the standard.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from support.network import LOOPBACK
from tomowire.aio.connection import Connection
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tomowire.wire.command_set import Message, decode_command, encode_command
from tomowire.wire.items import PresentationContextAC, PresentationContextRQ
from tomowire.wire.messages import CEchoRQ, CStoreRQ
from tomowire.wire.pdu import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    Pdu,
    decode_pdu,
    encode_pdu,
)
from tomowire.wire.pdv import Pdv
from tomowire.wire.user_information import AsynchronousOperationsWindow, UserInformation

SECONDS = 10.0
"""No step of a script takes longer; a test that waits for ever fails instead."""

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"

RELEASE_RQ = encode_pdu(AReleaseRQ())
RELEASE_RP = encode_pdu(AReleaseRP())
ECHO = PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))
STORE = PresentationContextRQ(3, CT, (EXPLICIT_VR_LITTLE_ENDIAN,))


@dataclass(frozen=True)
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


def message_pdus(context_id: int, message: Message, data: bytes | None = None, fragment: int = 1 << 14) -> bytes:
    """The PDUs of a message, its data set in fragments of `fragment` bytes."""
    parts = [command_pdu(context_id, message)]
    if data is not None:
        parts += (
            p_data(context_id, data[start : start + fragment], command=False, last=start + fragment >= len(data))
            for start in range(0, max(len(data), 1), fragment)
        )
    return b"".join(parts)


def associate_rq(
    *contexts: PresentationContextRQ,
    called: str = "CALLED",
    calling: str = "CALLING",
    window: tuple[int, int] | None = None,
    maximum_length: int = 0,
) -> AAssociateRQ:
    """A plain A-ASSOCIATE-RQ."""
    return AAssociateRQ(
        called,
        calling,
        contexts or (ECHO, STORE),
        UserInformation(
            maximum_length=maximum_length,
            implementation_class_uid="1.2.3",
            asynchronous_operations_window=AsynchronousOperationsWindow(*window) if window else None,
        ),
    )


def echo_rq(message_id: int = 1) -> CEchoRQ:
    return CEchoRQ(message_id=message_id, affected_sop_class_uid=VERIFICATION)


def store_rq(message_id: int = 1, instance: str = "1.2.3", sop_class: str = CT) -> CStoreRQ:
    return CStoreRQ(message_id=message_id, affected_sop_class_uid=sop_class, affected_sop_instance_uid=instance)


class RawPeer:
    """One connection of which every byte is the test's own."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._buffer = b""

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> RawPeer:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, port))
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    async def send(self, *items: bytes | Pdu) -> None:
        """Send bytes and PDUs, in one go."""
        data = b"".join(item if isinstance(item, bytes) else encode_pdu(item) for item in items)
        async with asyncio.timeout(SECONDS):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def send_until_stalled(self, data: bytes, *, limit: int, already: int = 0) -> int:
        """Send `data` again and again until the other side takes nothing for some time; return the number of bytes it took.

        `already` is what it took before, and is counted. Fails after `limit` bytes.
        """
        sent = already
        view = memoryview(data)
        while sent < limit:
            try:
                sent += self.socket.send(view[sent % len(view) :])
            except BlockingIOError:
                if await self._is_stalled():
                    return sent
        raise AssertionError(f"the other side took {sent} bytes without a pause")

    async def send_until_held(self, data: bytes, connection: Connection) -> int:
        """Send `data` again and again, and read nothing, until `connection`, the other side, cannot write and does not read."""
        sent = 0
        while not (connection.is_reading_held and connection.is_writing_paused):
            sent = await self.send_until_stalled(data, limit=200 << 20, already=sent)
        return sent

    async def _is_stalled(self) -> bool:
        """Whether nothing can be sent for three times 0.15 s in which the loop had nothing else to do.

        The other side may live in this very loop: when it is busy there, the time does not count.
        """
        loop = asyncio.get_running_loop()
        quiet = 0
        while quiet < 3:
            began = loop.time()
            if await self._writable(0.15):
                return False
            quiet = quiet + 1 if loop.time() - began < 0.2 else 0
        return True

    async def _writable(self, seconds: float) -> bool:
        """Whether bytes can be sent, now or within `seconds`."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self.socket, ready.set)
        try:
            async with asyncio.timeout(seconds):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_writer(self.socket)
        return True

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises `Closed`."""
        async with asyncio.timeout(SECONDS):
            while len(self._buffer) < size:
                received = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
                if not received:
                    raise Closed
                self._buffer += received
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def read_pdu(self) -> Pdu:
        """The next PDU. Raises `Closed`."""
        pdu_type, length = struct.unpack(">BxI", await self.read(6))
        return decode_pdu(pdu_type, await self.read(length))

    async def read_message(self) -> RawMessage:
        """The next message, put together from its fragments."""
        parts: dict[bool, bytes] = {True: b"", False: b""}
        command: Message | None = None
        while True:
            pdu = await self.read_pdu()
            if not isinstance(pdu, PDataTF):
                raise Unexpected(pdu)
            for pdv in pdu.pdvs:
                parts[pdv.is_command] += bytes(pdv.data)
                if pdv.is_last and pdv.is_command:
                    command = decode_command(parts[True])
                if pdv.is_last and command is not None and (not pdv.is_command or not command.has_data_set):
                    return RawMessage(pdv.context_id, command, None if pdv.is_command else parts[False])

    async def read_until_closed(self) -> bytes:
        """All that still comes, until the other side closes or resets the connection."""
        parts = [self._buffer]
        self._buffer = b""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    received = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
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
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    async def __aenter__(self) -> RawPeer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # What most scripts begin or end with

    async def associate(self, request: AAssociateRQ | None = None) -> AAssociateAC:
        """As the requestor: ask for an association and get one."""
        await self.send(request or associate_rq())
        response = await self.read_pdu()
        assert isinstance(response, AAssociateAC), response
        return response

    async def accept(
        self,
        *,
        window: tuple[int, int] | None = None,
        maximum_length: int = 0,
        refuse: Sequence[str] = (),
    ) -> AAssociateRQ:
        """As the acceptor: read the A-ASSOCIATE-RQ, accept every context but those of the abstract syntaxes in `refuse`."""
        request = await self.read_pdu()
        assert isinstance(request, AAssociateRQ), request
        contexts = tuple(
            PresentationContextAC(
                each.context_id, 3 if each.abstract_syntax in refuse else 0, each.transfer_syntaxes[0]
            )
            for each in request.presentation_contexts
        )
        information = UserInformation(
            maximum_length=maximum_length,
            implementation_class_uid="1.2.3",
            asynchronous_operations_window=AsynchronousOperationsWindow(*window) if window else None,
        )
        await self.send(AAssociateAC(request.called_ae_title, request.calling_ae_title, contexts, information))
        return request

    async def reject(self, result: int = 1, source: int = 1, reason: int = 1) -> None:
        """As the acceptor: read the A-ASSOCIATE-RQ and reject it."""
        await self.read_pdu()
        await self.send(AAssociateRJ(result, source, reason))
        await self.read_until_closed()

    async def release(self) -> None:
        """As the requestor: release, and see the connection closed."""
        await self.send(RELEASE_RQ)
        assert isinstance(await self.read_pdu(), AReleaseRP)

    async def answer_release(self) -> None:
        """As the acceptor: the next PDU is A-RELEASE-RQ; answer it and wait until the requestor closes."""
        pdu = await self.read_pdu()
        assert isinstance(pdu, AReleaseRQ), pdu
        await self.send(RELEASE_RP)
        assert await self.read_until_closed() == b""


@asynccontextmanager
async def raw_acceptor(
    script: Callable[[RawPeer], Awaitable[None]], *, receive_buffer: int | None = None
) -> AsyncIterator[int]:
    """Listen; `script` plays every connection, each in a task of its own. Gives the port.

    At the end scripts that are still running are cancelled, and an exception of one of them is raised.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if receive_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listener.bind((LOOPBACK, 0))
    listener.listen(128)
    listener.setblocking(False)
    scripts: list[asyncio.Task[None]] = []

    async def play(sock: socket.socket) -> None:
        async with RawPeer(sock) as peer:
            await script(peer)

    async def accept() -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            scripts.append(asyncio.create_task(play(sock)))

    accepting = asyncio.create_task(accept())
    try:
        yield listener.getsockname()[1]
    finally:
        accepting.cancel()
        for each in scripts:
            each.cancel()
        results = await asyncio.gather(accepting, *scripts, return_exceptions=True)
        listener.close()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
