"""Who gets an association: the handlers that are asked, what they may do, and what happens when they fail."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Container
from dataclasses import replace
from typing import Any

import pytest

from support.network import LOOPBACK
from support.raw_peer import RELEASE_RQ, RawPeer, associate_rq, echo_rq, message_pdus
from support.services import serve
from tomowire.aio.association import Association
from tomowire.aio.association_request import AssociationRequest, Identified
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.errors import AssociationRejected
from tomowire.services.verification import CEchoScu, Verification, verification
from tomowire.wire.messages import CEchoRSP
from tomowire.wire.pdu import AAbort, AAssociateAC, AAssociateRJ, encode_pdu
from tomowire.wire.user_identity import UserIdentity

pytestmark = pytest.mark.usefixtures("no_leaks")

FOR_NOW = AAssociateRJ(2, 1, 1)


class Handler:
    """A handler of requests that waits until the test lets it go, and remembers how it ended."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.begun: asyncio.Queue[AssociationRequest] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.answer: Any = None
        self._stubborn = stubborn

    async def __call__(self, request: AssociationRequest) -> Any:
        self.begun.put_nowait(request)
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.ended.put_nowait("cancelled")
                if not self._stubborn:
                    raise
        return self.answer

    async def next(self, queue: asyncio.Queue[Any]) -> Any:
        async with asyncio.timeout(10):
            return await queue.get()


async def answer_to(port: int, **request: Any) -> AAssociateAC | AAssociateRJ:
    async with await RawPeer.connect(port) as peer:
        await peer.send(associate_rq(**request))
        answer = await peer.read_pdu()
        assert isinstance(answer, AAssociateAC | AAssociateRJ)
        return answer


def refusing(error: Exception | None) -> Callable[[AssociationRequest], Awaitable[bool | None]]:
    async def decide(request: AssociationRequest) -> bool | None:
        if error is not None:
            raise error
        return False

    return decide


async def test_a_handler_is_asked_before_there_is_an_association() -> None:
    handler = Handler()
    async with serve(on_request=handler) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(associate_rq(called="ARCHIVE", calling="MODALITY"))
        request = await handler.next(handler.begun)
        assert server.associations == []
        assert (request.calling_ae_title, request.called_ae_title) == ("MODALITY", "ARCHIVE")
        host, port = peer.socket.getsockname()
        assert request.peer_address == f"{host}:{port}"
        assert request.association.peer_host == host
        assert [each.context_id for each in request.contexts] == [1, 3]
        assert request.identity is None
        assert request.peer_certificate is None
        handler.gate.set()
        assert isinstance(await peer.read_pdu(), AAssociateAC)
        assert server.associations == [request.association]
        await peer.send(message_pdus(1, echo_rq()))
        assert isinstance((await peer.read_message()).command, CEchoRSP)
        await peer.release()


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (None, AAssociateRJ(1, 1, 1), "refused it"),
        (AssociationRejected("not at night"), AAssociateRJ(1, 1, 1), "not at night"),
        (AssociationRejected("later", result=2, source=3, reason=1), AAssociateRJ(2, 3, 1), "later"),
        (AssociationRejected("nonsense", result=300), FOR_NOW, "nonsense"),
    ],
)
async def test_it_refuses_with_false_or_with_result_source_and_reason(
    error: Exception | None, expected: AAssociateRJ, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(on_request=refusing(error)) as server:
        assert await answer_to(server.port) == expected
    assert f"rejected: {error or 'the handler of association requests refused it'}" in caplog.text
    assert words in caplog.text


async def test_an_exception_in_it_is_a_rejection_for_now_and_its_text_is_kept_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serve(on_request=refusing(ValueError("passcode 1234"))) as server:
        assert await answer_to(server.port) == FOR_NOW
    assert "the handler of its request failed: ValueError at " in caplog.text
    assert "1234" not in caplog.text


class Broken(Verification):
    """A provider with a mistake in it."""

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        raise ValueError("passcode 1234")


def broken(*_: object) -> bool:
    raise ValueError("passcode 1234")


async def text_for_bytes(request: AssociationRequest) -> Identified:
    return Identified("Jane", response="passcode 1234")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"admits": broken}, {"services": [Broken()]}, {"identify": text_for_bytes}],
    ids=["admits", "services", "identify"],
)
async def test_so_is_one_in_anything_else_that_is_asked(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asks = associate_rq()
    who = UserIdentity.jwt("a.b.c", positive_response=True)
    asks = replace(asks, user_information=replace(asks.user_information, user_identity=who))
    async with (
        listen(port=0, **{"services": [Verification()]} | options) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.send(asks)
        assert await peer.read_pdu() == FOR_NOW
    assert "the handler of its request failed: " in caplog.text
    assert "1234" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_one_that_cancels_itself_is_a_rejection_for_now() -> None:
    async def decide(request: AssociationRequest) -> None:
        raise asyncio.CancelledError

    async with serve(on_request=decide) as server:
        assert await answer_to(server.port) == FOR_NOW


@pytest.mark.parametrize("stubborn", [False, True])
async def test_one_that_takes_too_long_is_cancelled_and_the_peer_need_not_wait_for_that(
    stubborn: bool, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Handler(stubborn=stubborn)
    async with serve(on_request=handler, artim_timeout=0.2) as server:
        assert await answer_to(server.port) == FOR_NOW
        assert await handler.next(handler.ended) == "cancelled"
        handler.gate.set()
    assert "did not decide within 0.2 s" in caplog.text


@pytest.mark.parametrize("how", ["abort", "reset", "close"])
async def test_when_the_peer_goes_away_it_is_cancelled(how: str) -> None:
    handler = Handler()
    async with serve(on_request=handler) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(associate_rq())
        await handler.next(handler.begun)
        if how == "abort":
            await peer.send(encode_pdu(AAbort(0, 0)))
        elif how == "reset":
            peer.reset()
        else:
            peer.close()
        assert await handler.next(handler.ended) == "cancelled"


async def test_a_peer_that_does_not_wait_for_the_answer_is_aborted_and_the_handler_cancelled() -> None:
    """PS3.8 Table 9-10, Sta3: AA-8."""
    handler = Handler()
    async with serve(on_request=handler) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(associate_rq())
        await handler.next(handler.begun)
        await peer.send(RELEASE_RQ)
        assert await peer.expect_abort() == AAbort(2, 2)
        assert await handler.next(handler.ended) == "cancelled"


async def test_when_the_server_closes_who_waits_for_an_answer_is_rejected_for_now() -> None:
    handler = Handler()
    async with serve(on_request=handler) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(associate_rq())
        await handler.next(handler.begun)
        closing = asyncio.create_task(server.close())
        assert await peer.read_pdu() == AAssociateRJ(2, 3, 1)
        peer.close()
        await closing
        assert await handler.next(handler.ended) == "cancelled"


async def test_a_handler_that_will_not_be_cancelled_does_not_keep_the_server_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Handler(stubborn=True)
    async with serve(on_request=handler, shutdown_grace=0.1) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(associate_rq())
        await handler.next(handler.begun)
        await server.close()
    assert "the handler of its request has been cancelled, and goes on" in caplog.text
    handler.gate.set()


async def test_many_are_asked_about_at_the_same_time() -> None:
    handler = Handler()
    async with serve(on_request=handler) as server:
        peers = [await RawPeer.connect(server.port) for _ in range(20)]
        for peer in peers:
            await peer.send(associate_rq())
        for _ in peers:
            await handler.next(handler.begun)
        handler.gate.set()
        for peer in peers:
            assert isinstance(await peer.read_pdu(), AAssociateAC)
            await peer.release()
            peer.close()


async def test_titles_and_limits_come_first_and_the_handler_is_not_asked() -> None:
    handler = Handler()
    async with serve(on_request=handler, aet="RIGHT") as server:
        assert await answer_to(server.port, called="WRONG") == AAssociateRJ(1, 1, 7)
    assert handler.begun.empty()


async def test_the_requestor_is_told_in_words() -> None:
    async with serve(on_request=refusing(None)) as server:
        with pytest.raises(AssociationRejected, match="for good: no reason given"):
            async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]):
                pass


# Limits


async def test_one_who_waits_for_the_answer_has_a_place() -> None:
    """Otherwise all who ask while the handlers think would be let in."""
    handler = Handler()
    async with serve(on_request=handler, maximum_associations=1) as server:
        async with await RawPeer.connect(server.port) as first:
            await first.send(associate_rq())
            await handler.next(handler.begun)
            assert await answer_to(server.port) == AAssociateRJ(2, 3, 2)
            handler.gate.set()
            assert isinstance(await first.read_pdu(), AAssociateAC)
            await first.release()
        assert isinstance(await answer_to(server.port), AAssociateAC)


async def test_each_calling_ae_title_has_a_limit_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(maximum_per_title=2) as server:
        first, second, other = [await RawPeer.connect(server.port) for _ in range(3)]
        await first.associate(associate_rq(calling="CT"))
        await second.associate(associate_rq(calling="CT"))
        assert await answer_to(server.port, calling="CT") == AAssociateRJ(2, 3, 2)
        await other.associate(associate_rq(calling="MR"))
        await first.release()
        assert isinstance(await answer_to(server.port, calling="CT"), AAssociateAC)
        for peer in (first, second, other):
            peer.close()
    assert "the limit of associations of CT is reached" in caplog.text


async def test_each_address_has_a_limit_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(maximum_per_address=1) as server, await RawPeer.connect(server.port) as first:
        await first.associate(associate_rq(calling="CT"))
        assert await answer_to(server.port, calling="MR") == AAssociateRJ(2, 3, 2)
        await first.send(encode_pdu(AAbort(0, 0)))
        await first.read_until_closed()
        assert isinstance(await answer_to(server.port, calling="MR"), AAssociateAC)
    assert f"the limit of associations from {LOOPBACK} is reached" in caplog.text


async def test_of_too_many_connections_from_one_address_that_do_not_ask_the_oldest_is_closed() -> None:
    async with serve(maximum_waiting_per_address=2) as server:
        asked = await RawPeer.connect(server.port)
        await asked.associate()
        silent = [await RawPeer.connect(server.port) for _ in range(3)]
        assert await silent[0].read_until_closed() == b""
        await silent[1].associate()  # it has its turn still
        for peer in (asked, *silent):
            peer.close()


async def test_the_association_works_for_a_requestor_of_ours() -> None:
    handler = Handler()
    handler.gate.set()
    async with (
        serve(on_request=handler) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association,
    ):
        assert (await CEchoScu(association).echo()).is_success


# All of it at once

WAYS = ["let in", "let in later", "refuse", "fail", "hang"]


async def one_of_many_ways(request: AssociationRequest) -> None:
    """Do what the calling AE title, a number, says."""
    match WAYS[int(request.calling_ae_title)]:
        case "let in later":
            await asyncio.sleep(0.01)
        case "refuse":
            raise AssociationRejected("no")
        case "fail":
            raise ValueError
        case "hang":
            await asyncio.sleep(60)


async def visit(port: int, chance: random.Random) -> None:
    """Ask for an association, and leave in one of many ways."""
    async with await RawPeer.connect(port) as peer:
        await peer.send(associate_rq(calling=str(chance.randrange(len(WAYS)))))
        leaves = chance.choice(["abort", "reset", "close", "wait", "wait"])
        if leaves == "wait":
            if isinstance(await peer.read_pdu(), AAssociateAC):
                await peer.release()
        elif leaves == "reset":
            peer.reset()
        elif leaves == "abort":
            await peer.send(encode_pdu(AAbort(0, 0)))


async def test_whatever_peers_and_handlers_do_nothing_is_left_behind() -> None:
    """Peers that abort, vanish, wait or release, and handlers that let in, refuse, fail or take their time, all at once."""
    chance = random.Random(20261121)
    told: Counter[str] = Counter()

    def established(association: Association) -> None:
        told["established"] += 1

    async def ended(association: Association) -> None:
        await asyncio.sleep(0)
        told["ended"] += 1

    handlers = {"on_request": one_of_many_ways, "on_established": established, "on_ended": ended}
    async with serve(**handlers, artim_timeout=0.5, maximum_associations=20) as server:
        for _ in range(10):
            await asyncio.gather(*(visit(server.port, chance) for _ in range(20)))
    assert told["established"] == told["ended"] > 0
    assert server.associations == []
