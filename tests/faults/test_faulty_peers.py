"""Every operation of the SCU against every faulty peer: it says whose fault it is, in time, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.files import write_file
from tomowire import (
    Association,
    AssociationAborted,
    AssociationLost,
    CEchoScu,
    CFindScu,
    CGetScu,
    CMoveScu,
    CStoreScu,
    NoAcceptedContext,
    OperationTimeout,
    Peer,
    PeerMisbehaved,
    Query,
    QueryFailed,
    RetrieveFailed,
    Status,
    Storage,
    StoreRequest,
    associate,
    getting,
    moving,
    querying,
    send_files,
    storage,
    verification,
)
from tomowire.services.dicom_file import DicomFile
from tomowire.testing import Behaviour, FaultyPeer, Talk
from tomowire.testing.raw import RawMessage
from tomowire.testing.samples import CT_IMAGE_STORAGE
from tomowire.wire.pdu import AAbort

pytestmark = pytest.mark.usefixtures("no_leaks")

SHORT, LONG = 0.2, 30.0
"""Seconds for what is late, and for what must not be, on a machine however busy."""
STUDY = Query.study("1.2.3")
BY_USER, BY_PROVIDER = AAbort(0, 0), 2

Operation = Callable[[Association, DicomFile, float], Awaitable[Any]]


async def echo(association: Association, file: DicomFile, timeout: float) -> Status:
    return await CEchoScu(association).echo(timeout=timeout)


async def store(association: Association, file: DicomFile, timeout: float) -> Status:
    return (await CStoreScu(association).send(file, timeout=timeout)).status


async def find(association: Association, file: DicomFile, timeout: float) -> list[Any]:
    return [each async for each in CFindScu(association).find(Query.studies(), timeout=timeout)]


async def get(association: Association, file: DicomFile, timeout: float) -> list[Any]:
    return [each async for each in CGetScu(association).get(STUDY, timeout=timeout)]


async def move(association: Association, file: DicomFile, timeout: float) -> list[Any]:
    return [each async for each in CMoveScu(association).move(STUDY, "DEST", timeout=timeout)]


async def all_of(answers: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in answers]


OPERATIONS: list[Operation] = [echo, store, find, get, move]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)


@pytest.fixture
def file(tmp_path: Path) -> DicomFile:
    """A CT of some hundred kilobytes."""
    return write_file(tmp_path, 1, bytes(300_000))


@asynccontextmanager
async def associated(peer: FaultyPeer, **options: Any) -> AsyncIterator[Association]:
    async def keep(request: StoreRequest) -> Status:
        await request.data.pass_over()
        return Status(0)

    contexts = [verification(), querying(), moving(), *getting(CT_IMAGE_STORAGE), *storage(CT_IMAGE_STORAGE)]
    options = {"association_timeout": LONG, "release_timeout": LONG, "services": [Storage(keep)], **options}
    async with associate(peer.address, contexts, **options) as association:
        yield association


@dataclass
class Case:
    """A faulty peer, what it makes of an operation, and what it is told, if anything."""

    peer: Callable[[], FaultyPeer]
    raises: type[Exception]
    says: str
    abort: AAbort | None = None


def aborted(reason: int) -> AAbort:
    return AAbort(BY_PROVIDER, reason)


# The peer's fault, whatever was asked

CASES = {
    "RST in the first byte": Case(FaultyPeer.resets, AssociationLost, "reset|closed"),
    "RST in the middle of a PDU": Case(lambda: FaultyPeer.resets(after_bytes=40), AssociationLost, "reset|closed"),
    "FIN in the middle of a PDU": Case(lambda: FaultyPeer.closes(after_bytes=40), AssociationLost, "closed"),
    "half a response": Case(FaultyPeer.truncates, AssociationLost, "closed"),
    "half a response, then RST": Case(lambda: FaultyPeer.truncates(then="reset"), AssociationLost, "reset|closed"),
    "an abort": Case(FaultyPeer.aborts, AssociationAborted, "the peer aborted the association"),
    "a wrong Message ID": Case(FaultyPeer.wrong_message_id, PeerMisbehaved, "which is not in use", BY_USER),
    "another kind of response": Case(FaultyPeer.wrong_response, PeerMisbehaved, "in response to", BY_USER),
    "a wrong length": Case(FaultyPeer.wrong_length, AssociationAborted, "PDV length .* contradicts", aborted(6)),
    "a malformed command set": Case(
        FaultyPeer.malformed_command_set, AssociationAborted, "goes past the end", aborted(6)
    ),
    "no DICOM at all": Case(FaultyPeer.babbles, AssociationAborted, "PDU type 48H is not defined", aborted(1)),
    "no context accepted": Case(FaultyPeer.refuses_contexts, NoAcceptedContext, "does not support", BY_USER),
    "a syntax that was not proposed": Case(
        FaultyPeer.unproposed_transfer_syntax, NoAcceptedContext, "transfer syntax", BY_USER
    ),
}


@each_operation
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_a_peer_does_wrong_is_said_and_ends_the_association(
    operation: Operation, case: Case, file: DicomFile
) -> None:
    async with asyncio.timeout(LONG), case.peer() as peer:
        with pytest.raises(case.raises, match=case.says):
            async with associated(peer) as association:
                await operation(association, file, LONG)
        await peer.wait_idle()
    assert peer.heard.connections == 1
    assert peer.heard.releases == 0
    told = [each for each in peer.heard.aborts if case.abort is not None]
    assert told == ([] if case.abort is None else [case.abort])


SILENT = {
    "silence after the association": FaultyPeer.falls_silent,
    "an answer that comes too late": lambda: FaultyPeer.answers_late(4 * SHORT),
    "half a response and then silence": lambda: FaultyPeer.truncates(then="silence"),
}


@each_operation
@pytest.mark.parametrize("faulty", SILENT.values(), ids=SILENT)
async def test_a_peer_that_does_not_answer_in_time_is_told_so_and_not_used_again(
    operation: Operation, faulty: Callable[[], FaultyPeer], file: DicomFile
) -> None:
    async with asyncio.timeout(LONG), faulty() as peer:
        async with associated(peer) as association:
            with pytest.raises(OperationTimeout, match=r"C-\w+.* 0\.2 s"):
                await operation(association, file, SHORT)
            assert not association.is_established
            with pytest.raises(AssociationAborted):
                await operation(association, file, LONG)
        await peer.wait_idle()
    assert peer.heard.connections == 1
    assert (
        len([each for each in peer.heard.requests if each.command.command_field != 0x0001 or operation is store]) == 1
    )
    assert peer.heard.releases == 0


async def test_what_comes_after_the_timeout_is_not_taken_for_the_answer_to_the_next_request() -> None:
    """The late answer has the Message ID that the first request of the next association has too."""
    async with asyncio.timeout(LONG), FaultyPeer.answers_late(4 * SHORT, times=1) as peer:
        with pytest.raises(OperationTimeout):
            async with associated(peer) as first:
                await CEchoScu(first).echo(timeout=SHORT)
        async with associated(peer) as second:
            assert await CEchoScu(second).echo(timeout=LONG) == 0
        await peer.wait_idle()
    assert [each.command.message_id for each in peer.heard.requests] == [1, 1]  # type: ignore[attr-defined]
    assert (peer.heard.connections, peer.heard.releases) == (2, 1)


async def test_a_late_association_is_not_used_for_the_next_request_of_a_peer() -> None:
    async with asyncio.timeout(LONG), FaultyPeer.answers_late(4 * SHORT, times=1) as peer, Peer(peer.address) as dicom:
        with pytest.raises(OperationTimeout):
            await all_of(dicom.find(Query.studies(), timeout=SHORT))
        assert len(await all_of(dicom.find(Query.studies(), timeout=LONG))) == 1
    assert peer.heard.connections == 2


class HangsUp(Behaviour):
    """Answers one request of each association, and then closes the connection."""

    async def answer(self, talk: Talk, message: RawMessage) -> None:
        await super().answer(talk, message)
        await talk.close()


async def test_a_peer_that_hangs_up_between_two_requests() -> None:
    async with asyncio.timeout(LONG), FaultyPeer(HangsUp()) as peer, Peer(peer.address) as dicom:
        for number in range(1, 4):
            assert len(await all_of(dicom.find(Query.studies(), timeout=LONG))) == 1
            await peer.wait_idle()
            assert peer.heard.connections == number


async def test_a_peer_that_accepts_the_connection_and_never_answers() -> None:
    async with asyncio.timeout(LONG), FaultyPeer.never_answers() as peer:
        with pytest.raises(OperationTimeout, match=r"did not answer the association request within 0\.2 s"):
            async with associated(peer, association_timeout=SHORT):
                pass


@pytest.mark.parametrize("then", ["close", "reset", "silence"])
async def test_half_of_the_acceptance(then: Any) -> None:
    expected = OperationTimeout if then == "silence" else AssociationLost
    async with asyncio.timeout(LONG), FaultyPeer.truncates("association", then) as peer:
        with pytest.raises(expected):
            async with associated(peer, association_timeout=SHORT if then == "silence" else LONG):
                pass


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_half_of_an_answers_identifier(then: Any, file: DicomFile) -> None:
    async with asyncio.timeout(LONG), FaultyPeer.truncates("data set", then) as peer:
        with pytest.raises(AssociationLost):
            async with associated(peer) as association:
                await find(association, file, LONG)


async def test_an_answer_that_is_given_twice_is_taken_once(file: DicomFile) -> None:
    """The second one belongs to nothing: from then on nothing of the peer can be trusted."""
    async with asyncio.timeout(LONG), FaultyPeer.answers_twice() as peer:
        async with associated(peer) as association:
            assert await echo(association, file, LONG) == 0
            await association.wait_closed()
            assert "which it had answered already" in str(association.error)
        await peer.wait_idle()
    assert peer.heard.aborts == [BY_USER]


# A status that the standard does not know (PS3.7 C): a failure, and no reason to end the association


@each_operation
async def test_an_unknown_status_is_a_failure_by_its_number(operation: Operation, file: DicomFile) -> None:
    async with (
        asyncio.timeout(LONG),
        FaultyPeer.answers(0x5A5A, "who knows", times=1) as peer,
        associated(peer) as association,
    ):
        status: Status
        try:
            status = await operation(association, file, LONG)
        except (QueryFailed, RetrieveFailed) as error:
            status = Status(error.status)
            assert error.error_comment == "who knows"
            assert "5A5AH (status unknown to the standard)" in str(error)
        assert status == 0x5A5A
        assert status.is_failure
        await operation(association, file, LONG)
    assert peer.heard.releases == 1


# Slow is not wrong


@each_operation
@pytest.mark.parametrize(
    "faulty",
    [lambda: FaultyPeer.trickles(5000), lambda: FaultyPeer.delays(0.05), FaultyPeer.unproposed_context],
    ids=["byte by byte", "each answer a little later", "a context more than was proposed"],
)
async def test_what_is_strange_but_right_is_put_up_with(
    operation: Operation, faulty: Callable[[], FaultyPeer], file: DicomFile
) -> None:
    async with asyncio.timeout(LONG), faulty() as peer, associated(peer) as association:
        await operation(association, file, LONG)
    assert peer.heard.releases == 1
    assert peer.heard.aborts == []


async def test_a_peer_that_stops_reading_in_the_middle_of_an_object(tmp_path: Path) -> None:
    large = write_file(tmp_path, 2, bytes(20_000_000))
    async with (
        asyncio.timeout(LONG),
        FaultyPeer.stops_reading(after_bytes=100_000) as peer,
        associated(peer) as association,
    ):
        with pytest.raises(OperationTimeout, match="C-STORE"):
            await store(association, large, SHORT)


# Many objects


async def test_objects_that_a_congested_peer_refuses_are_sent_again(file: DicomFile) -> None:
    async with asyncio.timeout(LONG), FaultyPeer.congested(times=2) as peer:
        sending = send_files(address_of(peer), [file], retry_waits=(0.01, 0.01, 0.01))
        assert [sent.status async for sent in sending] == [0]
    assert len(peer.heard.requests) == 3


async def test_objects_of_a_connection_that_was_reset_are_sent_on_the_next(tmp_path: Path) -> None:
    files = [write_file(tmp_path, number) for number in range(1, 5)]
    async with asyncio.timeout(LONG), FaultyPeer.resets(after_bytes=300, times=1) as peer:
        sending = send_files(address_of(peer), files, retry_waits=(0.01, 0.01, 0.01))
        assert {sent.file.sop_instance_uid: sent.status async for sent in sending} == {
            each.sop_instance_uid: 0 for each in files
        }
    assert peer.heard.connections > 1


def address_of(peer: FaultyPeer) -> Any:
    return Peer(peer.address).address
