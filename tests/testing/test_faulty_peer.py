"""Each faulty peer does what its name says: seen byte by byte, from the other end of its connection."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.raw_peer import ECHO, STORE, Closed, RawPeer, associate_rq, command_pdu, echo_rq, message_pdus, store_rq
from tomowire.errors import UsageError
from tomowire.services.models import Model
from tomowire.testing import Behaviour, FaultyPeer, Rejection, Talk
from tomowire.testing.raw import RawMessage
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import (
    CCancelRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    CStoreRQ,
    CStoreRSP,
)
from tomowire.wire.pdu import AAbort, AAssociateAC, AAssociateRJ, AReleaseRP, AReleaseRQ, Pdu, encode_pdu

pytestmark = pytest.mark.usefixtures("no_leaks")

FIND, GET, MOVE = (
    PresentationContextRQ(5 + 2 * number, uid, (IMPLICIT_VR_LITTLE_ENDIAN,))
    for number, uid in enumerate((Model.STUDY_ROOT.find, Model.STUDY_ROOT.get, Model.STUDY_ROOT.move))
)
OBJECT = message_pdus(STORE.context_id, store_rq(), bytes(20_000), fragment=4000)
IDENTIFIER = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "


@asynccontextmanager
async def connected(peer: FaultyPeer, *, receive_buffer: int | None = None) -> AsyncIterator[RawPeer]:
    async with peer, await RawPeer.connect(peer.port, receive_buffer=receive_buffer) as raw:
        yield raw


@asynccontextmanager
async def associated(peer: FaultyPeer) -> AsyncIterator[RawPeer]:
    async with connected(peer) as raw:
        await raw.associate(associate_rq(ECHO, STORE, FIND, GET, MOVE))
        yield raw


async def echo(raw: RawPeer, message_id: int = 1) -> CEchoRSP:
    await raw.send(command_pdu(ECHO.context_id, echo_rq(message_id)))
    response = (await raw.read_message()).command
    assert isinstance(response, CEchoRSP)
    return response


# Well-behaved


async def test_without_a_fault_everything_is_answered() -> None:
    peer = FaultyPeer.well_behaved(aet="GOOD")
    async with associated(peer) as raw:
        assert peer.address == f"GOOD@127.0.0.1:{peer.port}"
        assert (await echo(raw)).status == 0

        await raw.send(OBJECT)
        stored = (await raw.read_message()).command
        assert isinstance(stored, CStoreRSP)
        assert (stored.status, stored.affected_sop_instance_uid) == (0, "1.2.3")

        find = CFindRQ(message_id=3, affected_sop_class_uid=Model.STUDY_ROOT.find)
        await raw.send(message_pdus(FIND.context_id, find, IDENTIFIER))
        pending, final = await raw.read_message(), await raw.read_message()
        assert isinstance(pending.command, CFindRSP)
        assert isinstance(final.command, CFindRSP)
        assert (pending.command.status, final.command.status) == (0xFF00, 0)
        assert pending.data is not None
        assert pending.data.startswith(IDENTIFIER)

        move = CMoveRQ(message_id=4, affected_sop_class_uid=Model.STUDY_ROOT.move, move_destination="X")
        await raw.send(message_pdus(MOVE.context_id, move, IDENTIFIER))
        moved = (await raw.read_message()).command
        assert isinstance(moved, CMoveRSP)
        assert (moved.status, moved.number_of_completed_suboperations) == (0, 1)

        get = CGetRQ(message_id=5, affected_sop_class_uid=Model.STUDY_ROOT.get)
        await raw.send(message_pdus(GET.context_id, get, IDENTIFIER))
        given = await raw.read_message()
        assert isinstance(given.command, CStoreRQ)
        assert given.data
        await raw.send(command_pdu(STORE.context_id, CStoreRSP(message_id_being_responded_to=1, status=0)))
        got = (await raw.read_message()).command
        assert isinstance(got, CGetRSP)
        assert (got.status, got.number_of_completed_suboperations) == (0, 1)

        await raw.send(command_pdu(FIND.context_id, CCancelRQ(message_id_being_responded_to=3)))
        await raw.release()
    heard = peer.heard
    assert (heard.connections, len(heard.associations), heard.cancels, heard.releases) == (1, 1, 1, 1)
    assert [type(each.command).__name__ for each in heard.requests] == [
        "CEchoRQ",
        "CStoreRQ",
        "CFindRQ",
        "CMoveRQ",
        "CGetRQ",
    ]
    assert heard.requests[1].data == bytes(20_000)


async def test_an_abort_is_remembered() -> None:
    peer = FaultyPeer.well_behaved()
    async with associated(peer) as raw:
        await raw.send(AAbort(0, 0))
        await raw.read_until_closed()
        await peer.wait_idle()
        assert peer.heard.aborts == [AAbort(0, 0)]


# Vanishing


@pytest.mark.parametrize("count", [1, 1000])
async def test_it_resets_the_connection_when_so_many_bytes_have_come(count: int) -> None:
    async with associated(FaultyPeer.resets(after_bytes=count)) as raw:
        await raw.send(OBJECT[: count - 1])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await raw.read(1)
        await raw.send(OBJECT[count - 1 : count])
        with pytest.raises(ConnectionResetError):
            await raw.read(1)


async def test_it_closes_the_connection_when_so_many_bytes_have_come() -> None:
    async with associated(FaultyPeer.closes(after_bytes=1000)) as raw:
        await raw.send(OBJECT[:5000])
        with pytest.raises(Closed):
            await raw.read(1)


async def test_it_stops_reading_when_so_many_bytes_have_come() -> None:
    async with associated(FaultyPeer.stops_reading(after_bytes=1000)) as raw:
        assert await raw.send_until_stalled(OBJECT, limit=100 << 20) > 1000


async def test_it_never_answers() -> None:
    peer = FaultyPeer.never_answers()
    async with connected(peer) as raw:
        await raw.send(associate_rq())
        raw.half_close()
        assert await raw.read_until_closed() == b""
    assert peer.heard.connections == 1


async def test_it_falls_silent_after_it_has_accepted() -> None:
    peer = FaultyPeer.falls_silent()
    async with associated(peer) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()), AReleaseRQ())
        raw.half_close()
        assert await raw.read_until_closed() == b""
    assert (len(peer.heard.requests), peer.heard.releases) == (1, 1)


async def test_it_answers_late() -> None:
    loop = asyncio.get_running_loop()
    async with associated(FaultyPeer.answers_late(0.2)) as raw:
        begun = loop.time()
        await echo(raw)
        assert loop.time() - begun >= 0.2


# Slow


async def test_it_sends_byte_by_byte() -> None:
    loop = asyncio.get_running_loop()
    async with connected(FaultyPeer.trickles(1000.0)) as raw:
        begun = loop.time()
        await raw.associate()
        assert loop.time() - begun >= 0.1, "more than a hundred bytes, each a millisecond after the other"


async def test_it_waits_before_each_thing_that_it_says() -> None:
    loop = asyncio.get_running_loop()
    async with connected(FaultyPeer.delays(0.1)) as raw:
        for do in (raw.associate, lambda: echo(raw), raw.release):
            begun = loop.time()
            await do()
            assert loop.time() - begun >= 0.1


# Truncating


async def test_it_sends_half_of_the_acceptance() -> None:
    async with connected(FaultyPeer.truncates("association")) as raw:
        await raw.send(associate_rq())
        sent = await raw.read_until_closed()
        (length,) = struct.unpack(">I", sent[2:6])
        assert 6 < len(sent) < 6 + length


async def test_it_sends_half_of_a_response() -> None:
    async with associated(FaultyPeer.truncates("pdu")) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        sent = await raw.read_until_closed()
        (length,) = struct.unpack(">I", sent[2:6])
        assert 6 < len(sent) < 6 + length


async def test_it_sends_half_of_a_data_set_in_whole_pdus() -> None:
    async with associated(FaultyPeer.truncates("data set")) as raw:
        assert (await echo(raw)).status == 0, "which has no data set"
        find = CFindRQ(message_id=3, affected_sop_class_uid=Model.STUDY_ROOT.find)
        await raw.send(message_pdus(FIND.context_id, find, IDENTIFIER))
        command, data = await raw.read_pdu(), await raw.read_pdu()
        assert command.pdvs[0].is_last  # type: ignore[union-attr]
        assert not data.pdvs[0].is_last  # type: ignore[union-attr]
        with pytest.raises(Closed):
            await raw.read(1)


async def test_then_it_may_reset_the_connection_or_stay() -> None:
    async with associated(FaultyPeer.truncates("pdu", then="reset")) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        await raw.read(10)
        with pytest.raises(ConnectionResetError):
            await raw.read(1000)
    async with associated(FaultyPeer.truncates("pdu", then="silence")) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        await raw.read(10)
        raw.half_close()
        await raw.read_until_closed()


# Refusing


@pytest.mark.parametrize("rejection", [*Rejection, (7, 8, 9)])
async def test_it_rejects(rejection: Rejection | tuple[int, int, int]) -> None:
    async with connected(FaultyPeer.rejects(rejection)) as raw:
        await raw.send(associate_rq())
        codes = rejection.value if isinstance(rejection, Rejection) else rejection
        assert await raw.read_pdu() == AAssociateRJ(*codes)


async def test_the_rejections_are_those_of_the_standard() -> None:
    """PS3.8 Table 9-21: for each source its reasons. A provider (presentation) rejects for now, all others for good."""
    assert {each.value[1:] for each in Rejection} == {(1, 1), (1, 2), (1, 3), (1, 7), (2, 1), (2, 2), (3, 1), (3, 2)}


async def test_it_refuses_all_contexts() -> None:
    async with connected(FaultyPeer.refuses_contexts()) as raw:
        accepted = await raw.associate()
        assert {each.result for each in accepted.presentation_contexts} == {3}


async def test_it_aborts() -> None:
    async with associated(FaultyPeer.aborts(source=2, reason=5)) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        assert await raw.expect_abort() == AAbort(2, 5)


async def test_it_answers_with_any_status() -> None:
    async with associated(FaultyPeer.answers(0x5A5A, "what?")) as raw:
        response = await echo(raw)
        assert (response.status, response.error_comment) == (0x5A5A, "what?")
        find = CFindRQ(message_id=3, affected_sop_class_uid=Model.STUDY_ROOT.find)
        await raw.send(message_pdus(FIND.context_id, find, IDENTIFIER))
        statuses = [(await raw.read_message()).command.status for _ in range(2)]  # type: ignore[attr-defined]
        assert statuses == [0xFF00, 0x5A5A]


async def test_it_is_congested_so_many_times() -> None:
    async with associated(FaultyPeer.congested(times=2)) as raw:
        assert [(await echo(raw)).status for _ in range(4)] == [0xA700, 0xA700, 0, 0]


# Lying


async def test_it_answers_what_was_never_asked() -> None:
    async with associated(FaultyPeer.wrong_message_id()) as raw:
        assert (await echo(raw, 7)).message_id_being_responded_to != 7


async def test_it_answers_another_kind_of_request() -> None:
    async with associated(FaultyPeer.wrong_response()) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        assert isinstance((await raw.read_message()).command, CStoreRSP)
        await raw.send(OBJECT)
        assert isinstance((await raw.read_message()).command, CEchoRSP)


async def test_it_answers_twice() -> None:
    async with associated(FaultyPeer.answers_twice()) as raw:
        assert await echo(raw, 7) == (await raw.read_message()).command


async def test_the_length_of_a_pdu_contradicts_its_content() -> None:
    async with associated(FaultyPeer.wrong_length()) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        header = await raw.read(10)
        pdu_length, pdv_length = struct.unpack(">2xI", header[:6])[0], struct.unpack(">I", header[6:])[0]
        assert pdv_length + 4 > pdu_length


async def test_a_command_set_cannot_be_decoded() -> None:
    async with associated(FaultyPeer.malformed_command_set()) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        pdv = (await raw.read_pdu()).pdvs[0]  # type: ignore[union-attr]
        (length,) = struct.unpack("<I", bytes(pdv.data)[16:20])
        assert length > len(pdv.data)


async def test_it_babbles() -> None:
    async with associated(FaultyPeer.babbles(b"hello")) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        assert await raw.read(5) == b"hello"


async def test_it_accepts_a_transfer_syntax_that_was_not_proposed() -> None:
    async with connected(FaultyPeer.unproposed_transfer_syntax()) as raw:
        accepted = await raw.associate()
        proposed = {IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN}
        assert all(each.transfer_syntax not in proposed for each in accepted.presentation_contexts)
        assert {each.result for each in accepted.presentation_contexts} == {0}


async def test_it_accepts_a_context_that_was_not_proposed() -> None:
    async with connected(FaultyPeer.unproposed_context()) as raw:
        accepted = await raw.associate()
        assert {each.context_id for each in accepted.presentation_contexts} > {ECHO.context_id, STORE.context_id}


# When, and how often


async def test_the_first_occasions_go_well_and_so_do_those_after_it() -> None:
    async with associated(FaultyPeer.answers(0x0110, after=1, times=2)) as raw:
        assert [(await echo(raw)).status for _ in range(5)] == [0, 0x0110, 0x0110, 0, 0]


async def test_of_some_faults_the_occasions_are_connections() -> None:
    async def is_accepted(peer: FaultyPeer) -> bool:
        async with await RawPeer.connect(peer.port) as raw:
            await raw.send(associate_rq())
            return isinstance(await raw.read_pdu(), AAssociateAC)

    async with FaultyPeer.rejects(after=1, times=1) as peer:
        assert [await is_accepted(peer) for _ in range(3)] == [True, False, True]


@pytest.mark.parametrize(
    "wrong", [lambda: FaultyPeer.resets(0), lambda: FaultyPeer.trickles(0), lambda: FaultyPeer.well_behaved().port]
)
async def test_what_cannot_be_asked_of_it(wrong: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        wrong()


# Bounds


@pytest.mark.parametrize(
    "peer",
    [FaultyPeer.falls_silent(patience=0.1), FaultyPeer.stops_reading(patience=0.1), FaultyPeer.closes(patience=0.1)],
    ids=lambda peer: type(peer.fault).__name__,
)
async def test_it_does_not_wait_for_ever(peer: FaultyPeer) -> None:
    async with associated(peer) as raw:
        await raw.send(command_pdu(ECHO.context_id, echo_rq()))
        await peer.wait_idle()
        with pytest.raises((Closed, ConnectionResetError)):
            await raw.read(1)


@pytest.mark.parametrize(
    "peer",
    [FaultyPeer.never_answers(), FaultyPeer.stops_reading(), FaultyPeer.answers_late(60), FaultyPeer.trickles(0.01)],
    ids=lambda peer: type(peer.fault).__name__,
)
async def test_at_the_end_of_the_block_all_is_closed_whatever_it_is_doing(peer: FaultyPeer) -> None:
    async with peer:
        raw = await RawPeer.connect(peer.port)
        await raw.send(associate_rq(), command_pdu(ECHO.context_id, echo_rq()))
        await asyncio.sleep(0.05)  # so that it is in the middle of it, most likely
    with raw.socket:
        assert isinstance(await raw.read_until_closed(), bytes)


# Faults of one's own


class Drops(Behaviour):
    """Answers the association request with a release request."""

    def __init__(self, and_then: Callable[[Talk], Awaitable[None]]) -> None:
        self.and_then = and_then

    async def associate(self, talk: Talk, request: object) -> None:
        await talk.send(AReleaseRQ())
        await self.and_then(talk)


async def say(peer: FaultyPeer, what: Pdu, then: Callable[[], object] = lambda: None) -> None:
    async with connected(peer) as raw:
        await raw.send(what)
        await raw.read_until_closed()
        then()


async def test_a_fault_can_be_written() -> None:
    async with connected(FaultyPeer(Drops(lambda talk: talk.close()))) as raw:
        await raw.send(associate_rq())
        assert await raw.read_until_closed() == encode_pdu(AReleaseRQ())


async def test_what_fails_in_it_is_raised_at_the_end_of_the_block() -> None:
    async def fail(talk: Talk) -> None:
        raise RuntimeError("a mistake in the test")

    with pytest.raises(RuntimeError, match="a mistake in the test"):
        await say(FaultyPeer(Drops(fail)), associate_rq())


async def test_but_never_hides_what_the_test_failed_with() -> None:
    async def fail(talk: Talk) -> None:
        raise RuntimeError("a mistake in the test")

    with pytest.raises(ZeroDivisionError) as caught:
        await say(FaultyPeer(Drops(fail)), associate_rq(), then=lambda: 1 / 0)
    assert caught.value.__notes__ == ["and the FaultyPeer failed: RuntimeError('a mistake in the test')"]


@pytest.mark.parametrize("first", [AReleaseRP(), AReleaseRQ()])
async def test_a_requestor_that_breaks_the_protocol_is_the_tests_failure(first: Pdu) -> None:
    with pytest.raises(AssertionError, match="ARelease"):
        await say(FaultyPeer.well_behaved(), first)


def test_messages_are_values() -> None:
    assert RawMessage(1, echo_rq(), None) == RawMessage(1, echo_rq(), None)
