"""The other end of a connection, by hand: a test says which bytes are sent, and sees which come back.

Nothing here knows the protocol's rules; that is the point. What is read is decoded with `tomowire.wire`, whose own tests hold it
to the standard.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from support.network import LOOPBACK
from tomowire.aio.connection import Connection
from tomowire.testing.raw import (
    Closed,
    RawConnection,
    RawMessage,
    Unexpected,
    command_pdu,
    message_pdus,
    p_data,
)
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tomowire.wire.items import PresentationContextAC, PresentationContextRQ
from tomowire.wire.messages import CEchoRQ, CStoreRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ, AReleaseRP, AReleaseRQ, Pdu, encode_pdu
from tomowire.wire.user_information import AsynchronousOperationsWindow, UserInformation

__all__ = [
    "CT",
    "ECHO",
    "MR",
    "RELEASE_RP",
    "RELEASE_RQ",
    "STORE",
    "Closed",
    "RawMessage",
    "RawPeer",
    "Unexpected",
    "associate_rq",
    "command_pdu",
    "echo_rq",
    "message_pdus",
    "p_data",
    "raw_acceptor",
    "store_rq",
]


CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"

RELEASE_RQ = encode_pdu(AReleaseRQ())
RELEASE_RP = encode_pdu(AReleaseRP())
ECHO = PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))
STORE = PresentationContextRQ(3, CT, (EXPLICIT_VR_LITTLE_ENDIAN,))


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


class RawPeer(RawConnection):
    """One connection of which every byte is the test's own."""

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
        then: Sequence[Pdu] = (),
    ) -> AAssociateRQ:
        """As the acceptor: read the A-ASSOCIATE-RQ, accept every context but those of the abstract syntaxes in `refuse`.

        `then` goes in the same segment.
        """
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
        response = AAssociateAC(request.called_ae_title, request.calling_ae_title, contexts, information)
        await self.send(b"".join(map(encode_pdu, (response, *then))))
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
    accepted: list[socket.socket] = []

    async def play(sock: socket.socket) -> None:
        async with RawPeer(sock) as peer:
            await script(peer)

    def accept() -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.append(sock)
        scripts.append(asyncio.create_task(play(sock)))

    # Not with `sock_accept`: what it has accepted at the moment of its cancellation is lost, and open.
    loop = asyncio.get_running_loop()
    loop.add_reader(listener, accept)
    try:
        yield listener.getsockname()[1]
    finally:
        loop.remove_reader(listener)
        for each in scripts:
            each.cancel()
        results = await asyncio.gather(*scripts, return_exceptions=True)
        for sock in (listener, *accepted):  # also of a script that was cancelled before it began
            sock.close()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
