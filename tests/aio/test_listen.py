"""The acceptor: whom it lets in, whom it drops, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import tracemalloc
import warnings

import pytest

from support.network import LOOPBACK, free_port
from support.raw_peer import (
    CT,
    ECHO,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    STORE,
    Closed,
    RawPeer,
    associate_rq,
    command_pdu,
    echo_rq,
    message_pdus,
    p_data,
    store_rq,
)
from support.services import Keeper, serve
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.errors import ConnectFailed, UsageError
from tomowire.services.storage_scp import Storage
from tomowire.services.verification import CEchoScu, Verification, verification
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CEchoRSP
from tomowire.wire.pdu import AAbort, AAssociateAC, AAssociateRJ, AReleaseRP, AReleaseRQ, PDataTF, encode_pdu
from tomowire.wire.user_information import ExtendedNegotiation, UserInformation

pytestmark = pytest.mark.usefixtures("no_leaks")

HTTP = b"GET / HTTP/1.1\r\nHost: archive\r\n\r\n"
TLS_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(506)
USER_ABORT = encode_pdu(AAbort(0, 0))


async def works(port: int) -> None:
    """An association with C-ECHO goes through."""
    async with associate(f"ANY@{LOOPBACK}:{port}", [verification()]) as association:
        assert (await CEchoScu(association).echo()).is_success


# Who does not ask for an association


async def seconds_until_dropped(peer: RawPeer) -> tuple[float, bytes]:
    began = asyncio.get_running_loop().time()
    received = await peer.read_until_closed()
    return asyncio.get_running_loop().time() - began, received


async def test_a_peer_that_says_nothing_is_dropped_by_artim_without_a_word() -> None:
    async with serve(artim_timeout=0.3) as server, await RawPeer.connect(server.port) as peer:
        seconds, received = await seconds_until_dropped(peer)
        assert 0.25 < seconds < 5
        assert received == b""


@pytest.mark.parametrize(
    "bytes_sent", [HTTP, TLS_HELLO, b"\n", b"\x00" * 70_000], ids=["http", "tls", "newline", "zeros"]
)
async def test_a_peer_that_speaks_something_else_is_aborted_and_dropped(bytes_sent: bytes) -> None:
    """PS3.8 Sta2, AA-1: A-ABORT of the service user, then ARTIM until the peer closes."""
    async with serve(artim_timeout=0.3) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(bytes_sent)
        seconds, received = await seconds_until_dropped(peer)
        assert seconds < 5
        assert received == (USER_ABORT if len(bytes_sent) >= 6 else b"")


@pytest.mark.parametrize("first_bytes", [b"", bytes.fromhex("010000080000")], ids=["header", "payload"])
async def test_a_byte_now_and_then_does_not_keep_artim_from_expiring(first_bytes: bytes) -> None:
    """Conformance case 6. The peer may be slow, but an A-ASSOCIATE-RQ has to be whole in time."""
    drops = encode_pdu(associate_rq())
    async with serve(artim_timeout=0.3) as server, await RawPeer.connect(server.port) as peer:

        async def drip() -> None:
            await peer.send(first_bytes)
            for byte in drops:
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        seconds, received = await seconds_until_dropped(peer)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        assert 0.25 < seconds < 5
        assert received == b""


async def test_a_peer_without_an_association_costs_no_more_than_its_first_block() -> None:
    count = 50
    async with serve(artim_timeout=30) as server:
        await works(server.port)
        gc.collect()
        tracemalloc.start()
        try:
            peers = [await RawPeer.connect(server.port) for _ in range(count)]
            for peer in peers:
                await peer.send(bytes.fromhex("01000008000000010000"))  # an A-ASSOCIATE-RQ of half a megabyte, it says
            await works(server.port)  # by now the others have been accepted and read
            cost = tracemalloc.get_traced_memory()[0] / count
        finally:
            tracemalloc.stop()
        for peer in peers:
            peer.close()
        assert cost < 40 * 1024


async def test_while_such_peers_hang_on_others_are_served() -> None:
    async with serve(artim_timeout=5) as server:
        silent = [await RawPeer.connect(server.port) for _ in range(20)]
        babbling = await RawPeer.connect(server.port)
        await babbling.send(HTTP)
        await works(server.port)
        for peer in (*silent, babbling):
            peer.close()


async def test_after_a_rejection_artim_closes_what_the_peer_leaves_open() -> None:
    """Conformance case 7: Sta13 ignores what comes, and ends by itself."""
    async with serve(artim_timeout=0.3, aet="RIGHT") as server, await RawPeer.connect(server.port) as peer:
        await peer.send(associate_rq(called="WRONG"))
        assert await peer.read_pdu() == AAssociateRJ(1, 1, 7)
        await peer.send(message_pdus(1, echo_rq()))
        seconds, received = await seconds_until_dropped(peer)
        assert seconds < 5
        assert received == b""


# Whom it lets in


@pytest.mark.parametrize(
    ("options", "called", "calling", "expected"),
    [
        ({"aet": "RIGHT"}, "WRONG", "ME", AAssociateRJ(1, 1, 7)),
        ({"aet": ["RIGHT", "ALSO"]}, "ALSO", "ME", None),
        ({"aet": "RIGHT"}, " RIGHT ", "ME", None),
        ({"calling_aets": ["YOU"]}, "X", "ME", AAssociateRJ(1, 1, 3)),
        ({"calling_aets": ["YOU", "ME"]}, "X", "ME", None),
        ({"admits": lambda title, address: title == "ME" and address.startswith(LOOPBACK)}, "X", "ME", None),
        ({"admits": lambda title, address: False}, "X", "ME", AAssociateRJ(1, 1, 3)),
        ({"admits": lambda title, address: True, "calling_aets": ["YOU"]}, "X", "ME", AAssociateRJ(1, 1, 3)),
        ({}, "ANYTHING", "ANYBODY", None),
    ],
)
async def test_ae_titles(options: dict[str, object], called: str, calling: str, expected: AAssociateRJ | None) -> None:
    async with serve(**options) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(associate_rq(called=called, calling=calling))
        answer = await peer.read_pdu()
        assert answer == expected if expected else isinstance(answer, AAssociateAC)


async def test_the_end_of_each_connection_is_told_once() -> None:
    ended: list[str] = []
    both = asyncio.Event()

    def on_end(association: Association) -> None:
        ended.append(association.calling_ae_title)
        if len(ended) == len({"ONE", "TWO"}):
            both.set()

    async with serve(on_ended=on_end) as server, asyncio.timeout(10):
        one, two = await RawPeer.connect(server.port), await RawPeer.connect(server.port)
        await one.associate(associate_rq(calling="ONE"))
        await two.associate(associate_rq(calling="TWO"))
        assert ended == []
        await one.release()
        two.reset()
        await both.wait()
        one.close()
    assert sorted(ended) == ["ONE", "TWO"]


async def test_beyond_the_limit_the_peer_is_rejected_for_now_and_let_in_later() -> None:
    """Conformance case 16: result 2, source 3, reason 2, and not a TCP reset."""
    async with serve(maximum_associations=2) as server:
        first, second, third, fourth = [await RawPeer.connect(server.port) for _ in range(4)]
        await first.associate()
        await second.associate()
        assert len(server.associations) == 2
        await third.send(associate_rq())
        assert await third.read_pdu() == AAssociateRJ(2, 3, 2)
        third.close()
        await first.release()
        await fourth.associate()
        for peer in (first, second, fourth):
            peer.close()


async def test_extended_negotiation_is_answered_only_when_it_was_proposed() -> None:
    """Conformance case 31; PS3.4 B.3.1.4: level 2, and no coercion."""
    async with serve() as server:
        for proposed, expected in [
            ((), ()),
            (
                (ExtendedNegotiation(CT, b"\x02\x00\x01\x00\x01\x00 and more"), ExtendedNegotiation(MR, b"\x02\x00")),
                (ExtendedNegotiation(CT, b"\x02\x00\x00\x00\x00\x00"),),
            ),
        ]:
            async with await RawPeer.connect(server.port) as peer:
                request = associate_rq(ECHO, STORE)
                await peer.send(
                    type(request)(
                        request.called_ae_title,
                        request.calling_ae_title,
                        request.presentation_contexts,
                        UserInformation(implementation_class_uid="1.2", extended_negotiations=proposed),
                    )
                )
                answer = await peer.read_pdu()
                assert isinstance(answer, AAssociateAC)
                assert answer.user_information.extended_negotiations == expected


async def test_each_service_answers_for_its_own_abstract_syntaxes() -> None:
    keeper = Keeper()
    services = [Verification(), Storage(keeper.keep, sop_classes={CT}), Storage(keeper.keep, sop_classes={MR})]
    contexts = [
        ECHO,
        STORE,
        PresentationContextRQ(5, MR, ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2")),
        PresentationContextRQ(7, "1.2.840.10008.5.1.4.1.2.2.1", ("1.2.840.10008.1.2",)),
        PresentationContextRQ(9, CT, ("1.2.3.4",)),
    ]
    async with listen(port=0, services=services) as server, await RawPeer.connect(server.port) as peer:
        answer = await peer.associate(associate_rq(*contexts))
        assert [each.result for each in answer.presentation_contexts] == [0, 0, 0, 3, 4]
        assert answer.presentation_contexts[2].transfer_syntax == "1.2.840.10008.1.2.4.50"
        await peer.send(message_pdus(3, store_rq(1, "1.1"), b"ct"), message_pdus(5, store_rq(2, "1.2", MR), b"mr"))
        assert {(await peer.read_message()).context_id for _ in range(2)} == {3, 5}
        assert keeper.stored == {"1.1": b"ct", "1.2": b"mr"}


# How an association ends


async def test_release() -> None:
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.release()
        assert server.associations == []


async def test_a_peer_that_stays_connected_after_its_release_is_dropped_by_artim() -> None:
    async with serve(artim_timeout=0.3) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.release()
        seconds, received = await seconds_until_dropped(peer)
        assert seconds < 5
        assert received == b""


async def test_a_peer_that_half_closes_after_its_release_request_gets_the_response() -> None:
    """Conformance case 10."""
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(RELEASE_RQ)
        peer.half_close()
        assert isinstance(await peer.read_pdu(), AReleaseRP)
        assert await peer.read_until_closed() == b""


async def test_the_same_while_a_request_is_being_served() -> None:
    """The answer to the request comes first, then that to the release."""
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(message_pdus(3, store_rq(), b"data"), RELEASE_RQ)
        peer.half_close()
        await keeper.next_begun()
        keeper.gate.set()
        assert (await peer.read_message()).command.status == 0  # type: ignore[attr-defined]
        assert isinstance(await peer.read_pdu(), AReleaseRP)
        assert await peer.read_until_closed() == b""


async def test_a_peer_that_half_closes_without_a_release_is_gone() -> None:
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(message_pdus(3, store_rq(), b"data"))
        await keeper.next_begun()
        peer.half_close()
        assert isinstance(await keeper.next_end(), asyncio.CancelledError)
        assert await peer.read_until_closed() == b""


async def test_the_acceptor_may_ask_for_release_itself() -> None:
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        (association,) = server.associations
        release = asyncio.create_task(association.release())
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(RELEASE_RP)
        assert await peer.read_until_closed() == b""
        await release
        assert association.error is None


async def test_both_sides_ask_for_release_at_once() -> None:
    """Conformance case 11, the acceptor's side (PS3.8 AR-8, AR-10): it gets its answer before it gives its own."""
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        (association,) = server.associations
        release = asyncio.create_task(association.release())
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(RELEASE_RQ)
        await peer.send(RELEASE_RP)
        assert isinstance(await peer.read_pdu(), AReleaseRP)
        peer.close()
        await release
        assert association.error is None


async def test_a_request_that_crosses_the_acceptors_release_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    """PS3.8 AR-6 delivers it, but in Sta7 nothing can be sent. The handler is not to blame."""
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        (association,) = server.associations
        release = asyncio.create_task(association.release())
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(message_pdus(1, echo_rq()))
        await works(server.port)
        await peer.send(RELEASE_RP)
        assert await peer.read_until_closed() == b""
        await release
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


ABORT = encode_pdu(AAbort(0, 0))
WHOLE = message_pdus(3, store_rq(), b"data")
HALF_COMMAND = p_data(3, b"\x00\x00\x00\x00", command=True, last=False)
HALF_DATA = command_pdu(3, store_rq()) + p_data(3, b"half", command=False, last=False)
ENDS = {
    "abort": lambda peer: peer.send(ABORT),
    "close": lambda peer: _async(peer.close),
    "reset": lambda peer: _async(peer.reset),
    "nonsense": lambda peer: peer.send(b"\xff" * 6),
}


async def _async(function) -> None:  # type: ignore[no-untyped-def]
    function()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("before", [b"", HALF_COMMAND, HALF_DATA, WHOLE, WHOLE + HALF_DATA])
async def test_however_and_whenever_the_peer_goes_away_its_handlers_are_cancelled_and_nothing_is_kept(
    before: bytes, end: str
) -> None:
    """Conformance cases 8 and 9 (PS3.8 AA-3, AA-4, AA-8)."""
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as other:
        await other.associate()
        async with await RawPeer.connect(server.port) as peer:
            await peer.associate()
            await peer.send(before)
            handlers = before.count(b"1.2.3\0")
            for _ in range(handlers):
                await keeper.next_begun()
            await ENDS[end](peer)
            for _ in range(handlers):
                assert isinstance(await keeper.next_end(), asyncio.CancelledError)
        await other.send(message_pdus(1, echo_rq(7)))
        assert isinstance((await other.read_message()).command, CEchoRSP)
    assert keeper.stored == {}


async def test_an_abort_that_comes_with_the_request_leaves_no_handler() -> None:
    """In one segment: the request is known only after the association is over."""
    keeper = Keeper(reads=False)
    keeper.gate.clear()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(HALF_DATA + ABORT)
        assert await peer.read_until_closed() == b""
    assert keeper.running == 0


@pytest.mark.parametrize("behind", [ABORT, RELEASE_RQ, HTTP, WHOLE, encode_pdu(associate_rq())])
async def test_what_comes_with_the_association_request_is_too_early(
    behind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """In one segment, before the answer (PS3.8 Sta3): an abort ends it, all else is aborted."""
    async with serve() as server:
        async with await RawPeer.connect(server.port) as peer:
            await peer.send(encode_pdu(associate_rq()) + behind)
            if behind != ABORT:
                assert (await peer.expect_abort()).source == 2
            peer.half_close()
            assert await peer.read_until_closed() == b""
        await works(server.port)
        assert server.associations == []
    assert "Traceback" not in caplog.text


async def test_an_abort_behind_a_release_request(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(RELEASE_RQ + ABORT)
        assert await peer.read_until_closed() == b""
    assert "Traceback" not in caplog.text


async def send_slowly(peer: RawPeer, data: bytes) -> None:
    for number in range(len(data)):
        await peer.send(data[number : number + 1])
        await asyncio.sleep(0.05)


async def test_a_request_behind_a_breach_of_the_protocol_is_not_begun() -> None:
    """Its data set would never be whole: the handler would wait for ever."""
    keeper = Keeper()
    stray = command_pdu(1, CEchoRSP(message_id_being_responded_to=99, status=0))
    async with serve(keeper, malformed="strict") as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(stray + HALF_DATA)
        assert (await peer.expect_abort()).source == 0
    assert keeper.begun.empty()
    assert keeper.running == 0


async def test_an_association_on_which_nothing_comes_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(idle_timeout=0.2) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        assert (await peer.expect_abort()).source == 0
    assert "nothing came from the peer for 0.2 s" in caplog.text


async def test_a_byte_now_and_then_does_not_keep_an_association(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(idle_timeout=0.3) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        drip = asyncio.ensure_future(send_slowly(peer, HALF_DATA + bytes(1000)))
        try:
            await peer.expect_abort()
        finally:
            drip.cancel()
    assert "no whole message" in caplog.text


async def test_whole_messages_now_and_then_do() -> None:
    async with serve(idle_timeout=0.3) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        for number in range(8):
            await asyncio.sleep(0.1)
            await peer.send(command_pdu(1, echo_rq(number)))
            assert (await peer.read_message()).command.status == 0  # type: ignore[attr-defined]
        await peer.release()


async def test_connections_without_an_association_are_not_unlimited(caplog: pytest.LogCaptureFixture) -> None:
    """Their descriptors are needed for the files of others; who has waited longest is dropped."""
    async with serve(maximum_associations=2) as server:
        waiting = [await RawPeer.connect(server.port) for _ in range(2 + 64)]
        try:
            await works(server.port)  # one more, and it gets its association
            assert await waiting[0].read_until_closed() == b""
            assert "too many connections" in caplog.text
        finally:
            for peer in waiting:
                peer.close()


@pytest.mark.parametrize(("options", "remain"), [({}, 2 + 64), ({"maximum_waiting_per_address": 5}, 5)])
async def test_nor_when_they_come_all_at_once(options: dict[str, int], remain: int) -> None:
    async with (
        serve(maximum_associations=2, artim_timeout=60.0, **options) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        # The server's loop does not run meanwhile: it finds all of them when it does.
        waiting = [stack.enter_context(socket.create_connection((LOOPBACK, server.port))) for _ in range(100)]
        await works(server.port)
        async with asyncio.timeout(10):
            for sock in waiting[: 100 + 1 - remain]:
                sock.setblocking(False)
                await closed_by_the_other(sock)
        waiting[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting[-1].recv(1)


async def closed_by_the_other(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""


@pytest.mark.parametrize(
    ("called", "calling", "text"),
    [("OTHER", "CALLER", "it called 'OTHER'"), ("HERE", "STRANGER", "'STRANGER' is not one of the callers")],
)
async def test_the_log_says_why_a_caller_was_rejected(
    called: str, calling: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        listen(port=0, services=[Verification()], aet="HERE", calling_aets=["CALLER"]) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.send(encode_pdu(associate_rq(ECHO, called=called, calling=calling)))
        assert isinstance(await peer.read_pdu(), AAssociateRJ)
    assert [record.levelname for record in caplog.records if text in record.getMessage()] == ["WARNING"]


async def test_who_only_looks_whether_the_port_is_open_makes_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as server:
        peer = await RawPeer.connect(server.port)
        peer.close()
        await works(server.port)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_half_a_message_does_not_keep_an_idle_association() -> None:
    keeper = Keeper()
    async with serve(keeper, idle_timeout=0.2) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(HALF_DATA)
        await peer.expect_abort()
        assert isinstance(await keeper.next_end(), asyncio.CancelledError)


async def test_a_handler_that_takes_its_time_is_not_the_peers_silence() -> None:
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper, idle_timeout=0.1) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(WHOLE)
        await keeper.next_begun()
        asyncio.get_running_loop().call_later(0.4, keeper.gate.set)
        assert (await peer.read_message()).command.status == 0  # type: ignore[attr-defined]


async def test_the_peer_has_its_time_anew_when_it_has_been_answered() -> None:
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper, idle_timeout=0.4) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(WHOLE)
        await keeper.next_begun()
        # The handler takes longer than a peer may be silent.
        asyncio.get_running_loop().call_later(0.7, keeper.gate.set)
        await peer.read_message()
        await asyncio.sleep(0.25)  # now the peer does, but not as long
        await peer.send(message_pdus(1, echo_rq(2)))
        assert isinstance((await peer.read_message()).command, CEchoRSP)


async def test_that_nothing_came_while_nothing_was_read_is_not_the_peers_silence() -> None:
    keeper = Keeper(reads=False)
    keeper.gate.clear()
    fragment = p_data(3, bytes(100_000), command=False, last=False)
    async with serve(keeper, idle_timeout=0.4) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(command_pdu(3, store_rq()))
        await keeper.next_begun()
        sent = await peer.send_until_stalled(fragment, limit=200 << 20)
        await asyncio.sleep(0.5)  # the handler takes longer than a peer may be silent
        keeper.gate.set()
        await peer.send(fragment[sent % len(fragment) :])
        await asyncio.sleep(0.2)  # now the peer does, but not as long
        await peer.send(p_data(3, b"", command=False, last=True))
        assert (await peer.read_message()).command.status == 0  # type: ignore[attr-defined]


async def test_a_thousand_associations_leave_nothing_behind() -> None:
    """The fixture looks for tasks, timers and file descriptors; half of the associations end badly."""
    keeper = Keeper()
    async with serve(keeper, maximum_associations=1000) as server:

        async def lane(number: int) -> None:
            for turn in range(50):
                if turn % 2:
                    await works(server.port)
                    continue
                async with await RawPeer.connect(server.port) as peer:
                    await peer.associate()
                    await peer.send((WHOLE, HALF_DATA, ABORT, RELEASE_RQ, HTTP)[turn // 2 % 5])
                    if number % 2:
                        peer.reset()

        await asyncio.gather(*(lane(number) for number in range(20)))
        await works(server.port)
    assert server.associations == []


# Shutting down


async def test_closing_waits_for_what_is_in_progress() -> None:
    keeper = Keeper()
    keeper.gate.clear()
    server = serve(keeper, shutdown_grace=10)
    await server.start()
    port = server.port
    async with await RawPeer.connect(port) as peer:
        await peer.associate()
        await peer.send(WHOLE)
        await keeper.next_begun()
        closing = asyncio.create_task(server.close())
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await RawPeer.connect(port)
        keeper.gate.set()
        assert (await peer.read_message()).command.status == 0  # type: ignore[attr-defined]
        assert not closing.done()
        await peer.release()
    async with asyncio.timeout(20):
        await closing
        await waiting
    assert list(keeper.stored) == ["1.2.3"]


async def test_after_its_grace_it_aborts_and_cancels() -> None:
    keeper = Keeper()
    keeper.gate.clear()
    server = serve(keeper, shutdown_grace=0.2)
    await server.start()
    async with await RawPeer.connect(server.port) as busy, await RawPeer.connect(server.port) as idle:
        await busy.associate()
        await idle.associate()
        await busy.send(WHOLE)
        await keeper.next_begun()
        async with asyncio.timeout(8):
            closing = asyncio.create_task(server.close())
            for peer in (busy, idle):
                assert await peer.expect_abort() == AAbort(0, 0)
                peer.close()
            await closing
        assert isinstance(await keeper.next_end(), asyncio.CancelledError)


async def test_a_peer_that_does_not_close_after_the_abort_does_not_hold_it_up() -> None:
    server = serve(shutdown_grace=0)
    await server.start()
    async with await RawPeer.connect(server.port) as peer:
        await peer.associate()
        async with asyncio.timeout(8):
            await server.close()
        assert await peer.read_until_closed() == USER_ABORT


async def test_connections_without_an_association_do_not_hold_it_up() -> None:
    server = serve(artim_timeout=30, shutdown_grace=30)
    await server.start()
    async with await RawPeer.connect(server.port) as silent, await RawPeer.connect(server.port) as rejected:
        await works(server.port)
        await rejected.send(HTTP)
        assert isinstance(await rejected.read_pdu(), AAbort)
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(20):
            await server.close()
        assert asyncio.get_running_loop().time() - began < 10
        assert await silent.read_until_closed() == b""


async def test_who_asks_while_it_closes_is_rejected() -> None:
    """Result 2, source 3, reason 1: rejected-transient, temporary congestion."""
    keeper = Keeper()
    keeper.gate.clear()
    server = serve(keeper)
    await server.start()
    async with await RawPeer.connect(server.port) as busy, await RawPeer.connect(server.port) as late:
        await busy.associate()
        await busy.send(WHOLE)
        await keeper.next_begun()
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        await late.send(associate_rq())
        assert await late.read_pdu() == AAssociateRJ(2, 3, 1)
        late.close()
        keeper.gate.set()
        await busy.read_message()
        await busy.release()
        busy.close()
        await closing


async def test_a_handler_that_does_not_end_when_cancelled_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    finish, begun = asyncio.Event(), asyncio.Event()

    async def stubborn(_: object) -> int:
        begun.set()
        while not finish.is_set():
            try:
                await finish.wait()
            except asyncio.CancelledError:
                continue
        return 0

    server = listen(port=0, services=[Storage(stubborn)], shutdown_grace=0)
    await server.start()
    async with await RawPeer.connect(server.port) as peer:
        await peer.associate(associate_rq(STORE))
        await peer.send(WHOLE)
        await begun.wait()
        async with asyncio.timeout(20):
            await server.close()
    assert "CStoreRQ" in caplog.text
    finish.set()


async def test_closing_waits_for_the_clean_up_of_handlers_whose_association_is_gone() -> None:
    """What they clean up may belong to someone who is closed next, such as the archive's storage."""
    cleaned, begun = asyncio.Event(), asyncio.Event()
    may_clean = asyncio.Event()

    async def tidy(_: object) -> int:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await may_clean.wait()
            cleaned.set()
        return 0

    server = listen(port=0, services=[Storage(tidy)])
    await server.start()
    async with await RawPeer.connect(server.port) as peer:
        await peer.associate(associate_rq(STORE))
        await peer.send(WHOLE)
        await begun.wait()
        peer.reset()
    await works_not(server.port)
    closing = asyncio.create_task(server.close())
    await asyncio.wait([closing], timeout=0.2)
    assert not closing.done()
    may_clean.set()
    await closing
    assert cleaned.is_set()


async def works_not(port: int) -> None:
    """A round trip, at the end of which what was sent before has been seen."""
    async with await RawPeer.connect(port) as peer:
        await peer.send(associate_rq(ECHO))
        await peer.read_pdu()


async def test_cancelling_the_closing_leaves_no_association() -> None:
    keeper = Keeper()
    keeper.gate.clear()
    server = serve(keeper, shutdown_grace=30)
    await server.start()
    async with await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(WHOLE)
        await keeper.next_begun()
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await peer.read_until_closed() == USER_ABORT
        assert isinstance(await keeper.next_end(), asyncio.CancelledError)
        await server.wait_closed()


async def test_a_connection_that_is_being_accepted_when_it_closes_is_closed_too() -> None:
    """In whichever of asyncio's steps: from the kernel's queue to the protocol there are several turns of the loop."""
    for turns in range(8):
        server = serve(artim_timeout=30)
        await server.start()
        sock = socket.create_connection((LOOPBACK, server.port))  # blocks the loop: it cannot have been accepted yet
        async with RawPeer(sock) as peer:
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.close()
            for _ in range(8):
                await asyncio.sleep(0)
            with warnings.catch_warnings():
                # In one of the steps asyncio itself forgets the connection, and leaves it to the garbage collector.
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
            assert await peer.read_until_closed() == b""


# The server itself


async def test_a_port_in_use_is_said_plainly() -> None:
    async with serve() as server:
        with pytest.raises(ConnectFailed, match=f"cannot listen on 127.0.0.1, port {server.port}: "):
            await listen("127.0.0.1", server.port, services=[]).start()


async def test_it_has_no_address_before_it_listens() -> None:
    with pytest.raises(UsageError):
        _ = serve().port


async def test_it_listens_where_it_is_told_to() -> None:
    port = free_port()
    async with listen([LOOPBACK, "127.0.0.2"], port, services=[Verification()]) as server:
        assert sorted(server.addresses) == [(LOOPBACK, port), ("127.0.0.2", port)]
        await works(port)


async def test_who_calls_is_known_to_the_handler_and_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keeper = Keeper()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate(associate_rq(called="ARCHIVE", calling="MODALITY"))
        await peer.send(WHOLE)
        request = await keeper.next_begun()
        host, port = peer.socket.getsockname()
        assert request.association.calling_ae_title == "MODALITY"
        assert request.association.called_ae_title == "ARCHIVE"
        assert request.association.peer_address == f"{host}:{port}"
        assert not request.association.is_requestor
        await peer.read_message()
    assert f"MODALITY -> ARCHIVE ({host}:{port}): association accepted" in caplog.text


async def test_small_messages_are_not_delayed() -> None:
    """TCP_NODELAY on the accepted socket: without it a peer's delayed ACK costs some 40 ms for every message."""
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        (association,) = server.associations
        assert association.connection.peer_address
        times = []
        for number in range(20):
            began = asyncio.get_running_loop().time()
            await peer.send(message_pdus(1, echo_rq(number)))
            await peer.read_message()
            times.append(asyncio.get_running_loop().time() - began)
        assert sorted(times)[10] < 0.03


async def test_pdus_may_come_a_byte_at_a_time_or_all_at_once() -> None:
    """Conformance case 1."""
    keeper = Keeper()
    script = [encode_pdu(associate_rq()), message_pdus(1, echo_rq(1)), WHOLE, RELEASE_RQ]
    outcomes = []
    for step in (1, 7, 1 << 20):
        async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
            await peer.send(script[0])
            ac = await peer.read_pdu()
            rest = b"".join(script[1:])
            for start in range(0, len(rest), step):
                await peer.send(rest[start : start + step])
                await asyncio.sleep(0)
            answers = {type((await peer.read_message()).command) for _ in range(2)}
            outcomes.append((ac, answers, await peer.read_pdu()))
    assert outcomes[0] == outcomes[1] == outcomes[2]


async def test_the_answer_to_a_p_data_before_the_association_is_an_abort() -> None:
    """Conformance case 5: PS3.8 Sta2, AA-1."""
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.send(message_pdus(1, echo_rq()))
        assert await peer.read_pdu() == AAbort(0, 0)
        peer.half_close()
        with pytest.raises(Closed):
            await peer.read_pdu()


async def test_a_second_associate_request_is_an_abort() -> None:
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(associate_rq())
        assert await peer.read_pdu() == AAbort(2, 2)


async def test_pdus_of_the_announced_maximum_length_and_not_a_byte_more() -> None:
    keeper = Keeper()
    fits, too_long = bytes(4096 - 6), bytes(4096 - 4)
    async with serve(keeper, maximum_length=4096) as server, await RawPeer.connect(server.port) as peer:
        answer = await peer.associate()
        assert answer.user_information.maximum_length == 4096
        await peer.send(command_pdu(3, store_rq()), p_data(3, fits, command=False, last=True))
        assert isinstance(await peer.read_pdu(), PDataTF)
        await peer.send(command_pdu(3, store_rq()), p_data(3, too_long, command=False, last=True))
        assert await peer.expect_abort() == AAbort(2, 6)
