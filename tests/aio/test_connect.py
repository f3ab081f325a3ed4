"""Opening an association: what can go wrong, in whose words, and what is left behind."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest

from support.network import LOOPBACK, free_port
from support.raw_peer import CT, RELEASE_RP, RawPeer, raw_acceptor
from tomowire.aio.connect import associate
from tomowire.errors import (
    AssociationAborted,
    AssociationLost,
    AssociationRejected,
    ConnectFailed,
    NoAcceptedContext,
    OperationTimeout,
    UsageError,
)
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tomowire.wire.pdu import AAbort, AAssociateAC, AAssociateRQ, AReleaseRQ, Pdu, encode_pdu

pytestmark = pytest.mark.usefixtures("no_leaks")


def to(port: int, **options: Any) -> Any:
    return associate(f"PEER@{LOOPBACK}:{port}", [verification()], **options)


async def enter(context: Any) -> None:
    async with context:
        raise AssertionError("there should be no association")


# Connecting


async def test_refused() -> None:
    port = free_port()
    with pytest.raises(
        ConnectFailed, match=rf"cannot connect to PEER@127\.0\.0\.1:{port}: refused; nothing listens there"
    ):
        await enter(to(port))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
async def test_a_name_that_cannot_be_resolved(host: str) -> None:
    with pytest.raises(ConnectFailed, match="the host name cannot be resolved"):
        await enter(associate(f"PEER@{host}:104", [verification()]))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse when the queue is full")
async def test_a_host_that_does_not_react() -> None:
    """Its queue of connections is full and nobody takes them out: what follows is not answered at all."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex((LOOPBACK, port))
        with pytest.raises(ConnectFailed, match=r"no answer within 0\.2 s"):
            await enter(to(port, connect_timeout=0.2))
        for each in waiting:
            each.close()


# Asking


async def test_rejected_in_words_with_the_codes_and_advice() -> None:
    async with raw_acceptor(lambda peer: peer.reject(1, 1, 7)) as port:
        with pytest.raises(AssociationRejected) as caught:
            await enter(to(port))
    assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, 7)
    assert "called AE title not recognized (result 1, source 1, reason 7)" in str(caught.value)


async def test_a_peer_that_does_not_answer_is_told_that_we_go() -> None:
    seen: list[Pdu] = []

    async def script(peer: RawPeer) -> None:
        seen.extend([await peer.read_pdu(), await peer.read_pdu()])

    async with raw_acceptor(script) as port:
        with pytest.raises(
            OperationTimeout, match=rf"PEER@.*:{port} did not answer the association request within 0\.2 s"
        ):
            await enter(to(port, association_timeout=0.2))
    assert isinstance(seen[0], AAssociateRQ)
    assert seen[1] == AAbort(0, 0)


async def test_a_peer_that_closes_instead_of_answering() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_pdu()

    async with raw_acceptor(script) as port:
        with pytest.raises(AssociationLost, match=r"closed the connection instead of answering.*is it a DICOM server"):
            await enter(to(port))


async def test_a_peer_that_aborts_instead_of_answering() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_pdu()
        await peer.send(AAbort(2, 0))

    async with raw_acceptor(script) as port:
        with pytest.raises(AssociationAborted, match="the peer aborted the association"):
            await enter(to(port))


@pytest.mark.parametrize(
    "greeting", [b"220 mail ESMTP\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.0 400 Bad Request\r\n\r\n"]
)
async def test_a_server_of_another_kind(greeting: bytes) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.send(greeting)
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        with pytest.raises(AssociationAborted, match="the peer broke the protocol"):
            await enter(to(port))


async def test_an_acceptance_in_pieces() -> None:
    async def script(peer: RawPeer) -> None:
        request = await peer.read_pdu()
        assert isinstance(request, AAssociateRQ)
        for byte in encode_pdu(AAssociateAC("", "", (), protocol_version=1)):
            await peer.send(bytes([byte]))
        await peer.answer_release()

    async with raw_acceptor(script) as port, to(port) as association:
        with pytest.raises(NoAcceptedContext, match="without a reason"):
            association.context(VERIFICATION)


async def test_an_acceptor_that_wants_no_data_at_all() -> None:
    """A maximum length in which no byte fits: nothing could ever be sent."""

    async def script(peer: RawPeer) -> None:
        await peer.accept(maximum_length=6)
        assert await peer.read_pdu() == AAbort(2, 6)

    async with raw_acceptor(script) as port:
        with pytest.raises(AssociationAborted, match="leaves no room"):
            await enter(to(port))


async def test_no_context_accepted_is_an_association_all_the_same() -> None:
    """Conformance case 26."""

    async def script(peer: RawPeer) -> None:
        await peer.accept(refuse=[VERIFICATION])
        await peer.answer_release()

    async with raw_acceptor(script) as port, to(port) as association:
        with pytest.raises(NoAcceptedContext, match="the peer does not support this SOP class"):
            await CEchoScu(association).echo()


# The caller's mistakes, before anything is sent


@pytest.mark.parametrize(
    ("contexts", "options", "complaint"),
    [
        ([], {}, "1 to 128 presentation contexts"),
        ([verification()] * 129, {}, "1 to 128 presentation contexts"),
        ([ProposedContext(CT, ())], {}, "no transfer syntax"),
        ([ProposedContext("1.2.\N{SNOWMAN}", (IMPLICIT_VR_LITTLE_ENDIAN,))], {}, "characters"),
        ([verification()], {"aet": "SEVENTEEN-LETTERS"}, "not an AE title"),
        ([verification()], {"aet": ""}, "not an AE title"),
    ],
)
async def test_mistakes_of_the_caller(contexts: list[ProposedContext], options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        await enter(associate(f"PEER@{LOOPBACK}:{free_port()}", contexts, **options))


async def test_128_contexts_are_proposed_with_the_odd_ids() -> None:
    proposed: list[int] = []

    async def script(peer: RawPeer) -> None:
        request = await peer.accept()
        proposed.extend(each.context_id for each in request.presentation_contexts)
        await peer.answer_release()

    contexts = [ProposedContext(f"1.2.3.{number}", (IMPLICIT_VR_LITTLE_ENDIAN,)) for number in range(128)]
    async with raw_acceptor(script) as port, associate(f"PEER@{LOOPBACK}:{port}", contexts) as association:
        assert len(association.agreement.contexts) == 128
    assert proposed == list(range(1, 256, 2))


# Leaving the block


async def ends_of(body: Any) -> list[Pdu]:
    """What the peer sees when `body` is the content of the `async with`."""
    seen: list[Pdu] = []

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        seen.append(await peer.read_pdu())
        if isinstance(seen[0], AReleaseRQ):
            await peer.send(RELEASE_RP)

    async with raw_acceptor(script) as port:
        try:
            async with to(port) as association:
                await body(association)
        except ZeroDivisionError:
            pass
        assert association.connection.is_closed
    return seen


async def test_at_its_end_the_association_is_released() -> None:
    async def nothing(_: object) -> None:
        return

    assert await ends_of(nothing) == [AReleaseRQ()]


async def test_left_by_an_exception_it_is_aborted() -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError

    assert await ends_of(fail) == [AAbort(0, 0)]


async def test_what_the_caller_released_is_not_released_again() -> None:
    async def release(association: Any) -> None:
        await association.release()

    assert await ends_of(release) == [AReleaseRQ()]


async def test_the_title_names_both_ends() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.answer_release()

    async with raw_acceptor(script) as port, to(port, aet="ME") as association:
        assert association.title == f"ME -> PEER ({LOOPBACK}:{port})"
        assert association.peer_address == f"{LOOPBACK}:{port}"


async def test_many_at_once() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.answer_release()

    async def one(port: int) -> None:
        async with to(port):
            pass

    async with raw_acceptor(script) as port:
        await asyncio.gather(*(one(port) for _ in range(50)))
