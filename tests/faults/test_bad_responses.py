"""Responses that break PS3.7, or come too late, from scripted peers: what strict and what lenient make of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from pydicom import Dataset

from support.network import LOOPBACK
from support.raw_peer import CT, RawMessage, RawPeer, associate_rq, command_pdu, echo_rq, p_data, raw_acceptor
from tomowire import CEchoScu, CFindScu, Model, associate, listen, querying, storage, verification
from tomowire.aio.association import Association
from tomowire.errors import (
    AssociationAborted,
    OperationTimeout,
    PeerMisbehaved,
    QueryFailed,
    TomowireError,
    UsageError,
)
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.normalized import NormalizedScu
from tomowire.services.storage import CStoreScu
from tomowire.services.verification import Verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.command_set import encode_command
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.messages import (
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CStoreRQ,
    CStoreRSP,
    NSetRQ,
    NSetRSP,
    Request,
    Response,
)
from tomowire.wire.pdu import AReleaseRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

MPPS = "1.2.840.10008.3.1.2.3.3"
STATUS = bytes.fromhex("0000 0009 0200 0000 0000")
DATA_SET = bytes.fromhex("0000 0008 0200 0000")


def echo_rsp(message_id: int, status: int = 0) -> CEchoRSP:
    return CEchoRSP(message_id_being_responded_to=message_id, status=status)


def without(encoded: bytes, element: bytes) -> bytes:
    """A command set in which an element of two bytes, given up to its value, is missing."""
    at = encoded.index(element)
    return encoded[:at] + encoded[at + len(element) + (0 if element == STATUS else 2) :]


def raw(context_id: int, encoded: bytes) -> bytes:
    return p_data(context_id, encoded, command=True, last=True)


@dataclass(frozen=True)
class Bad:
    """A response to the echo with this Message ID. `is_told`: the echo fails at once where the association goes on."""

    make: Callable[[int], bytes]
    said: str
    is_told: bool


MESSAGE_ID = bytes.fromhex("0000 2001 0200 0000")

BAD = {
    "without a status": Bad(lambda number: raw(1, without(encode_command(echo_rsp(number)), STATUS)), "0900", True),
    "without a message id": Bad(
        lambda number: raw(1, without(encode_command(echo_rsp(number)), MESSAGE_ID)), "0120", True
    ),
    "cut short": Bad(lambda number: raw(1, encode_command(echo_rsp(number)) + b"\0\0"), "cut short", True),
    "of another kind": Bad(
        lambda number: command_pdu(1, CStoreRSP(message_id_being_responded_to=number, status=0)),
        "CStoreRSP in response to CEchoRQ",
        True,
    ),
    "to a message id never used": Bad(
        lambda number: command_pdu(1, echo_rsp(number + 100)), "which is not in use", False
    ),
    "pending, where there is one": Bad(
        lambda number: command_pdu(1, echo_rsp(number, 0xFF00)), "with a status of pending", False
    ),
    "with a data set, to a message id never used": Bad(
        lambda number: (
            command_pdu(
                1,
                CFindRSP(message_id_being_responded_to=number + 1, status=0xFF00, data_set_type=DATA_SET_PRESENT),
            )
            + p_data(1, bytes(1000), command=False, last=True)
        ),
        "which is not in use",
        False,
    ),
    "unreadable, with a data set": Bad(
        lambda number: (
            raw(1, without(encode_command(CFindRSP(message_id_being_responded_to=number, status=0)), STATUS)).replace(
                DATA_SET + b"\x01\x01", DATA_SET + b"\x01\x00"
            )
            + p_data(1, bytes(1000), command=False, last=True)
        ),
        "0900",
        True,
    ),
}


@asynccontextmanager
async def answered_by(
    answer: Callable[[RawPeer, RawMessage], Awaitable[None]],
    contexts: Sequence[ProposedContext] | None = None,
    **options: Any,
) -> AsyncIterator[Association]:
    """An association with a peer that has `answer` deal with each of our requests, until we release or abort."""

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        while True:
            try:
                message = await peer.read_message()
            except AssertionError:  # no message: A-RELEASE-RQ or A-ABORT
                break
            await answer(peer, message)
        await peer.send(bytes.fromhex("060000000004 00000000"))
        await peer.read_until_closed()

    async with (
        raw_acceptor(script) as port,
        associate(f"ANY@{LOOPBACK}:{port}", [contexts or [verification()]], **options) as association,
    ):
        yield association


def first_badly(bad: Bad, then_well: bool) -> Callable[[RawPeer, RawMessage], Awaitable[None]]:
    """Answers the first request with something bad, and if told so with a good response too; all others well."""
    seen: list[int] = []

    async def answer(peer: RawPeer, message: RawMessage) -> None:
        assert isinstance(message.command, Request)
        number = message.command.message_id
        seen.append(number)
        if len(seen) == 1:
            await peer.send(bad.make(number))
        if len(seen) > 1 or then_well:
            await peer.send(command_pdu(1, echo_rsp(number)))

    return answer


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_strict_aborts(bad: Bad) -> None:
    """The default of a requestor: what the peer says on this association cannot be trusted any more."""
    with pytest.raises((PeerMisbehaved, AssociationAborted), match=bad.said):
        async with answered_by(first_badly(bad, then_well=False)) as association:
            await CEchoScu(association).echo()


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_lenient_goes_on(bad: Bad, caplog: pytest.LogCaptureFixture) -> None:
    """What can only be an answer to the echo lets that fail; anything else is passed over, and the true answer counts."""
    async with answered_by(first_badly(bad, then_well=not bad.is_told), malformed="lenient") as association:
        scu = CEchoScu(association)
        if bad.is_told:
            with pytest.raises(PeerMisbehaved, match=bad.said):
                await scu.echo()
        else:
            assert (await scu.echo()).is_success
        assert (await scu.echo()).is_success
    (record,) = [each for each in caplog.records if "passed over" in each.message]
    assert bad.said in record.message


async def test_lenient_passes_over_an_answer_that_comes_once_more(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(peer: RawPeer, message: RawMessage) -> None:
        assert isinstance(message.command, CEchoRQ)
        await peer.send(command_pdu(1, echo_rsp(message.command.message_id)) * 3)

    async with answered_by(answer, malformed="lenient") as association:
        for _ in range(4):
            assert (await CEchoScu(association).echo()).is_success
    assert len([each for each in caplog.records if "passed over" in each.message]) == 1, "not once for each"


async def test_lenient_does_not_guess_whose_answer_it_is() -> None:
    """Two are outstanding and the response names none: both wait for their own."""
    contexts = [verification()]
    numbers: list[int] = []

    async def script(peer: RawPeer) -> None:
        await peer.accept(window=(2, 1))
        for _ in range(2):
            command = (await peer.read_message()).command
            assert isinstance(command, CEchoRQ)
            numbers.append(command.message_id)
        await peer.send(raw(1, without(encode_command(echo_rsp(1)), MESSAGE_ID)))
        await peer.send(*(command_pdu(1, echo_rsp(number)) for number in numbers))
        await peer.answer_release()

    async with (
        raw_acceptor(script) as port,
        associate(f"ANY@{LOOPBACK}:{port}", contexts, malformed="lenient", window=2) as association,
    ):
        scu = CEchoScu(association)
        assert await asyncio.gather(scu.echo(), scu.echo()) == [0, 0]


async def test_lenient_gives_back_the_place_of_what_failed_and_is_not_waited_for() -> None:
    """The one place in the window is free again after the bad answer to an operation that was cancelled."""
    release = asyncio.Event()
    asked = asyncio.Event()

    async def answer(peer: RawPeer, message: RawMessage) -> None:
        assert isinstance(message.command, CEchoRQ)
        number = message.command.message_id
        if not asked.is_set():
            asked.set()
            await release.wait()
            await peer.send(raw(1, without(encode_command(echo_rsp(number)), STATUS)))
        else:
            await peer.send(command_pdu(1, echo_rsp(number)))

    async with answered_by(answer, malformed="lenient", window=1) as association:
        task = asyncio.create_task(CEchoScu(association).echo())
        async with asyncio.timeout(10):
            await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        assert (await CEchoScu(association).echo()).is_success


def no_such_way(**options: str) -> None:
    listen(LOOPBACK, 0, services=[], **options)  # type: ignore[arg-type]


async def test_there_are_two_ways_only() -> None:
    with pytest.raises(UsageError, match=r'malformed is "strict" or "lenient", not \'loose\''):
        no_such_way(malformed="loose")
    with pytest.raises(UsageError, match="not 'loose'"):
        async with associate("ANY@localhost:1", [verification()], malformed="loose"):  # type: ignore[arg-type]
            pass


# The acceptor: lenient if nothing else is said


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_server_passes_over_what_answers_nothing(bad: Bad) -> None:
    async with (
        listen(LOOPBACK, 0, services=[Verification()], shutdown_grace=2) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.associate(associate_rq())
        await peer.send(bad.make(1) + command_pdu(1, echo_rq(7)))
        response = (await peer.read_message()).command
        assert isinstance(response, CEchoRSP)
        assert (response.message_id_being_responded_to, response.status) == (7, 0)
        await peer.release()


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_strict_server_aborts(bad: Bad) -> None:
    services = [Verification()]
    async with (
        listen(LOOPBACK, 0, services=services, malformed="strict", shutdown_grace=2) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.associate(associate_rq())
        await peer.send(bad.make(1))
        await peer.expect_abort()


# Statuses outside the standard: failures, for each service


def with_status(status: int) -> Callable[[RawPeer, RawMessage], Awaitable[None]]:
    kinds: dict[type[Any], type[Response]] = {
        CEchoRQ: CEchoRSP,
        CStoreRQ: CStoreRSP,
        CFindRQ: CFindRSP,
        NSetRQ: NSetRSP,
    }

    async def answer(peer: RawPeer, message: RawMessage) -> None:
        assert isinstance(message.command, Request)
        kind = kinds[type(message.command)]
        response = kind(message_id_being_responded_to=message.command.message_id, status=status)
        await peer.send(command_pdu(message.context_id, response))

    return answer


@pytest.mark.parametrize("status", [0x0002, 0x1234, 0x7FFF, 0xD000, 0xFF02, 0xFFFF])
async def test_a_status_that_the_standard_does_not_know_is_a_failure(status: int, sample_file: str) -> None:
    contexts = [
        verification(),
        querying(Model.STUDY_ROOT),
        *storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN]),
        ProposedContext(MPPS, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    ]
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    async with answered_by(with_status(status), contexts) as association:
        echoed = await CEchoScu(association).echo()
        stored = await CStoreScu(association).send(sample_file)
        changed = await NormalizedScu(association).set(MPPS, "1.2.3", b"")
        with pytest.raises(QueryFailed) as failed:
            async with aclosing(CFindScu(association).find(query)) as answers:
                assert [each async for each in answers] == []
    assert echoed.is_failure
    assert stored.is_failure
    assert changed.is_failure
    assert [int(each) for each in (echoed, stored.status, changed.status, failed.value.status)] == [status] * 4
    assert "status unknown to the standard" in str(echoed)


@pytest.fixture
def sample_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CT object in Explicit VR Little Endian."""
    from tomowire.wire.part10 import FileMeta, encode_file_meta

    path = tmp_path_factory.mktemp("sample") / "ct.dcm"
    meta = FileMeta(CT, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN)
    path.write_bytes(encode_file_meta(meta) + b"\x08\x00\x60\x00CS\x02\x00CT")
    return str(path)


# Peers that are too late, or say nothing


@pytest.mark.parametrize("malformed", ["strict", "lenient"])
async def test_an_answer_after_the_timeout_finds_the_association_closed(malformed: str) -> None:
    """It could be taken for that of a later request: the association is aborted, and not used again."""
    aborted = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        command = (await peer.read_message()).command
        assert isinstance(command, CEchoRQ)
        await peer.expect_abort()
        aborted.set()
        await peer.send(command_pdu(1, echo_rsp(command.message_id)))
        await peer.read_until_closed()

    options: dict[str, Any] = {"malformed": malformed}
    async with raw_acceptor(script) as port:
        async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], **options) as association:
            with pytest.raises(OperationTimeout, match=r"C-ECHO: nothing moved for 0.05 s"):
                await CEchoScu(association).echo(timeout=0.05)
            with pytest.raises(TomowireError):
                await CEchoScu(association).echo()
        async with asyncio.timeout(10):
            await aborted.wait()


async def test_a_peer_that_accepts_and_never_answers_the_release() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        with pytest.raises(OperationTimeout, match="did not answer the release request within"):
            async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], release_timeout=0.05):
                pass


@pytest.mark.parametrize("malformed", ["strict", "lenient"])
async def test_a_reset_in_the_middle_of_a_pdu_is_a_lost_association(malformed: str) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        command = (await peer.read_message()).command
        assert isinstance(command, CEchoRQ)
        await peer.send(command_pdu(1, echo_rsp(command.message_id))[:20])
        peer.reset()

    options: dict[str, Any] = {"malformed": malformed}
    async with raw_acceptor(script) as port:
        with pytest.raises(ConnectionError):
            async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], **options) as association:
                await CEchoScu(association).echo()
