"""C-ECHO, both sides."""

from __future__ import annotations

import pytest

from support.network import LOOPBACK
from support.raw_peer import RawPeer, associate_rq, command_pdu, echo_rq, raw_acceptor
from support.services import serve
from tomowire.aio.connect import associate
from tomowire.errors import NoAcceptedContext
from tomowire.services.storage import storage
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, VERIFICATION
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CEchoRQ, CEchoRSP

pytestmark = pytest.mark.usefixtures("no_leaks")


async def test_both_ends() -> None:
    async with serve() as server, associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association:
        scu = CEchoScu(association)
        assert [(await scu.echo()).is_success for _ in range(3)] == [True] * 3


async def test_the_request_is_that_of_the_standard() -> None:
    """PS3.7 9.3.5.1: affected SOP class, a Message ID, no data set."""
    seen: list[CEchoRQ] = []

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for _ in range(2):
            message = await peer.read_message()
            assert isinstance(message.command, CEchoRQ)
            seen.append(message.command)
            answer = CEchoRSP(message_id_being_responded_to=message.command.message_id, status=0x0122)
            await peer.send(command_pdu(message.context_id, answer))
        await peer.answer_release()

    async with raw_acceptor(script) as port, associate(f"ANY@{LOOPBACK}:{port}", [verification()]) as association:
        for _ in range(2):
            status = await CEchoScu(association).echo()
            assert status.is_failure, "a failure is a value"
            assert str(status) == "0122H (SOP class not supported)"
    assert [(each.affected_sop_class_uid, each.message_id, each.has_data_set) for each in seen] == [
        (VERIFICATION, 1, False),
        (VERIFICATION, 2, False),
    ]


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_BIG_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN])
async def test_command_sets_are_implicit_little_endian_whatever_the_transfer_syntax(syntax: str) -> None:
    """Conformance case 38 (PS3.7 6.3.1)."""
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate(associate_rq(PresentationContextRQ(1, VERIFICATION, (syntax,))))
        await peer.send(command_pdu(1, echo_rq(9)))
        answer = (await peer.read_message()).command
        assert isinstance(answer, CEchoRSP)
        assert answer.message_id_being_responded_to == 9


async def test_an_echo_for_another_sop_class_is_refused() -> None:
    """Conformance case 42; the association goes on."""
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        for sop_class, status in (("1.2.840.10008.5.1.4.1.1.2", 0x0122), (VERIFICATION, 0)):
            await peer.send(command_pdu(1, CEchoRQ(message_id=9, affected_sop_class_uid=sop_class)))
            answer = (await peer.read_message()).command
            assert isinstance(answer, CEchoRSP)
            assert answer.status == status


async def test_without_a_context_for_it_nothing_is_sent() -> None:
    async with (
        serve() as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [storage("CT Image Storage")]) as association,
    ):
        with pytest.raises(NoAcceptedContext, match="not proposed"):
            await CEchoScu(association).echo()
