"""Each way in which the faulty sender goes wrong, seen byte by byte from the SCP's end; and what it makes of what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from io import BytesIO

import pytest
from pydicom import dcmread

from support.network import LOOPBACK
from support.raw_peer import CT, RELEASE_RP, Closed, RawPeer, command_pdu, raw_acceptor
from support.services import Keeper, serve
from tomowire.errors import PduError, UsageError
from tomowire.testing import FaultySender, Outcome
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AAbort, AAssociateRJ, AReleaseRQ, PDataTF

pytestmark = pytest.mark.usefixtures("no_leaks")

Script = Callable[[RawPeer], Awaitable[None]]
SENDER = FaultySender(size=20_000)


async def play(script: Script, misbehave: Callable[[str], Awaitable[Outcome]]) -> Outcome:
    """Let the sender misbehave against a script, after the association has been accepted; both have come to their end."""
    over = asyncio.Event()

    async def accept(peer: RawPeer) -> None:
        try:
            await peer.accept()
            await script(peer)
        finally:
            over.set()

    async with raw_acceptor(accept) as port:
        outcome = await misbehave(f"SCP@{LOOPBACK}:{port}")
        await over.wait()
        return outcome


async def abort(peer: RawPeer) -> None:
    await peer.send(AAbort(2, 6))


async def everything(peer: RawPeer) -> bytes:
    """All bytes that come, until the sender has said that there are no more."""
    received = b""
    try:
        while True:
            received += await peer.read(1)
    except (Closed, ConnectionResetError):
        return received


# Nothing wrong


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", IMPLICIT_VR_LITTLE_ENDIAN])
async def test_a_whole_object_is_stored(syntax: str) -> None:
    keeper = Keeper()
    sender = FaultySender(size=20_000, sop_class_uid=CT, transfer_syntax_uid=syntax)
    async with serve(keeper) as server:
        outcome = await sender.well_behaved(f"SCP@{LOOPBACK}:{server.port}")
    assert outcome == Outcome(outcome.sop_instance_uid, status=0, released=True)
    (data,) = keeper.stored.values()
    dataset = dcmread(BytesIO(data), force=True) if syntax == IMPLICIT_VR_LITTLE_ENDIAN else None
    if dataset is not None:
        assert (dataset.SOPInstanceUID, dataset.SOPClassUID) == (outcome.sop_instance_uid, CT)
        assert len(dataset.PixelData) == 20_000


async def test_every_object_is_another() -> None:
    keeper = Keeper()
    async with serve(keeper) as server:
        for _ in range(3):
            await SENDER.well_behaved(f"SCP@{LOOPBACK}:{server.port}")
    assert len(keeper.stored) == 3


async def test_a_rejection_is_told() -> None:
    async def reject(peer: RawPeer) -> None:
        await peer.reject(1, 1, 7)

    async with raw_acceptor(reject) as port:
        outcome = await SENDER.resets(f"SCP@{LOOPBACK}:{port}")
    assert outcome == Outcome(outcome.sop_instance_uid, rejection=AAssociateRJ(1, 1, 7))


async def test_an_scp_that_does_not_take_such_objects_is_the_tests_mistake() -> None:
    async def refuse(peer: RawPeer) -> None:
        await peer.accept(refuse=[CT])
        await everything(peer)

    async with raw_acceptor(refuse) as port:
        with pytest.raises(UsageError, match="does not take CT Image Storage in Explicit VR Little Endian"):
            await SENDER.resets(f"SCP@{LOOPBACK}:{port}")


@pytest.mark.parametrize("inside", ["pdu", "object"])
async def test_a_rejection_is_told_also_where_half_of_something_was_to_be_sent(inside: str) -> None:
    async def reject(peer: RawPeer) -> None:
        await peer.reject(1, 1, 7)

    async with raw_acceptor(reject) as port:
        outcome = await SENDER.truncates(f"SCP@{LOOPBACK}:{port}", inside)  # type: ignore[arg-type]
    assert outcome == Outcome(outcome.sop_instance_uid, rejection=AAssociateRJ(1, 1, 7))


async def test_an_scp_that_goes_away_is_told() -> None:
    async def leave(peer: RawPeer) -> None:
        await peer.read_pdu()

    async with raw_acceptor(leave) as port:
        outcome = await SENDER.well_behaved(f"SCP@{LOOPBACK}:{port}")
    assert outcome == Outcome(outcome.sop_instance_uid, closed=True)


async def test_an_scp_that_says_nothing_is_not_waited_for_for_ever() -> None:
    async def wait(peer: RawPeer) -> None:
        await everything(peer)

    outcome = await play(wait, FaultySender(size=10, patience=0.2).well_behaved)
    assert outcome == Outcome(outcome.sop_instance_uid)


# Vanishing


async def test_it_never_asks_for_an_association() -> None:
    async with serve(artim_timeout=0.1) as server:
        outcome = await SENDER.never_asks(f"SCP@{LOOPBACK}:{server.port}")
    assert outcome == Outcome(outcome.sop_instance_uid, closed=True)


@pytest.mark.parametrize("way", [SENDER.resets, SENDER.closes])
async def test_it_goes_away_in_the_middle_of_a_pdu(way: Callable[..., Awaitable[Outcome]]) -> None:
    received: list[bytes] = []

    async def script(peer: RawPeer) -> None:
        received.append(await peer.read(100))
        received.append(await everything(peer))

    await play(script, lambda address: way(address, after_bytes=100))
    head, rest = received
    assert rest == b""
    (length,) = struct.unpack(">I", head[2:6])
    assert len(head) not in (6 + length, 0)


async def test_it_stops_in_the_middle_and_stays() -> None:
    async def script(peer: RawPeer) -> None:
        assert isinstance((await peer.read_pdu()), PDataTF)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await everything(peer)
        await abort(peer)

    outcome = await play(script, SENDER.falls_silent)
    assert (outcome.abort, outcome.closed) == (AAbort(2, 6), False)


async def test_it_asks_for_release_in_the_middle_of_the_data_set() -> None:
    async def script(peer: RawPeer) -> None:
        while isinstance(pdu := await peer.read_pdu(), PDataTF):
            assert pdu.pdvs[0].is_command or not pdu.pdvs[0].is_last
        assert pdu == AReleaseRQ()
        await abort(peer)

    assert (await play(script, SENDER.releases_early)).abort == AAbort(2, 6)


# Slow


async def test_it_sends_byte_by_byte_and_then_it_is_well() -> None:
    async def script(peer: RawPeer) -> None:
        message = await peer.read_message()
        assert isinstance(message.command, CStoreRQ)
        await peer.send(command_pdu(message.context_id, CStoreRSP(message_id_being_responded_to=1, status=0xB000)))
        assert await peer.read_pdu() == AReleaseRQ()
        await peer.send(RELEASE_RP)

    begun = asyncio.get_running_loop().time()
    outcome = await play(script, lambda address: FaultySender(size=10).trickles(address, 2000))
    assert asyncio.get_running_loop().time() - begun >= 0.1
    assert (outcome.status, outcome.released) == (0xB000, True)


async def test_slower_than_not_at_all_is_not_possible() -> None:
    with pytest.raises(UsageError):
        await SENDER.trickles("SCP@127.0.0.1:1", 0)


# Truncating


async def test_it_sends_half_of_the_association_request() -> None:
    received: list[bytes] = []

    async def script(peer: RawPeer) -> None:
        received.append(await everything(peer))

    async with raw_acceptor(script) as port:
        outcome = await SENDER.truncates(f"SCP@{LOOPBACK}:{port}", "association")
    (length,) = struct.unpack(">I", received[0][2:6])
    assert 6 < len(received[0]) < 6 + length
    assert outcome.closed


@pytest.mark.parametrize("inside", ["pdu", "data set"])
async def test_it_sends_half_of_the_data_set(inside: str) -> None:
    seen: list[PDataTF] = []

    async def script(peer: RawPeer) -> None:
        with contextlib.suppress(Closed):
            while isinstance(pdu := await peer.read_pdu(), PDataTF):
                seen.append(pdu)
        assert (peer.buffered > 0) == (inside == "pdu")

    await play(script, lambda address: SENDER.truncates(address, inside))  # type: ignore[arg-type]
    assert seen
    assert not any(pdv.is_last for pdu in seen for pdv in pdu.pdvs if not pdv.is_command)


async def test_it_sends_half_of_an_object_in_a_whole_message() -> None:
    keeper = Keeper()
    async with serve(keeper) as server:
        outcome = await SENDER.truncates(f"SCP@{LOOPBACK}:{server.port}", "object")
    assert (outcome.status, outcome.released) == (0, True)
    (data,) = keeper.stored.values()
    assert 5_000 < len(data) < 20_000


# Lying


async def test_the_length_of_a_pdu_contradicts_its_content() -> None:
    async def script(peer: RawPeer) -> None:
        with pytest.raises(PduError, match="does not fit"):
            await peer.read_pdu()
        await abort(peer)

    assert (await play(script, SENDER.wrong_length)).abort == AAbort(2, 6)


async def test_it_babbles() -> None:
    async def script(peer: RawPeer) -> None:
        assert await peer.read(5) == b"hello"
        await abort(peer)

    assert (await play(script, lambda address: SENDER.babbles(address, b"hello"))).abort == AAbort(2, 6)


async def test_a_command_set_cannot_be_decoded() -> None:
    async def script(peer: RawPeer) -> None:
        pdu = await peer.read_pdu()
        assert isinstance(pdu, PDataTF)
        assert struct.unpack("<I", bytes(pdu.pdvs[0].data)[16:20])[0] > len(pdu.pdvs[0].data)
        await abort(peer)

    assert (await play(script, SENDER.malformed_command_set)).abort == AAbort(2, 6)


async def test_it_sends_on_a_context_that_was_not_proposed() -> None:
    async def script(peer: RawPeer) -> None:
        assert (await peer.read_message()).context_id == 99
        await abort(peer)

    assert (await play(script, SENDER.unproposed_context)).abort == AAbort(2, 6)


async def test_a_command_that_nobody_knows_is_refused_by_its_status() -> None:
    """PS3.7 C.5.20: 0211H, unrecognized operation."""
    async with serve() as server:
        outcome = await SENDER.unknown_command(f"SCP@{LOOPBACK}:{server.port}")
    assert (outcome.status, outcome.released) == (0x0211, True)
