"""C-STORE, both sides."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.files import data_of, sparse_file, write_file
from support.network import LOOPBACK
from support.raw_peer import (
    CT,
    ECHO,
    MR,
    RELEASE_RP,
    STORE,
    RawPeer,
    associate_rq,
    command_pdu,
    echo_rq,
    message_pdus,
    p_data,
    raw_acceptor,
    store_rq,
)
from support.services import Keeper, serve
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.errors import (
    AssociationAborted,
    AssociationError,
    AssociationLost,
    FileFormatError,
    NoAcceptedContext,
    OperationTimeout,
    StoreFailed,
)
from tomowire.services.dicom_file import DicomFile
from tomowire.services.storage import CStoreScu, storage
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.services.verification import CEchoScu, Verification, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CStoreRQ, CStoreRSP, Response
from tomowire.wire.pdu import AAbort, AReleaseRQ, PDataTF

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
PRIVATE = "1.2.826.0.1.3680043.9.9999.1"


# SCP


async def ask(peer: RawPeer, message: CStoreRQ, data: bytes | None = b"data", context_id: int = 3) -> CStoreRSP:
    await peer.send(message_pdus(context_id, message, data))
    answer = (await peer.read_message()).command
    assert isinstance(answer, CStoreRSP)
    return answer


def message_pieces(message: CStoreRQ, pieces: list[bytes]) -> list[bytes]:
    """The PDUs of a message whose data set comes in several."""
    data = [p_data(3, piece, command=False, last=piece is pieces[-1]) for piece in pieces]
    return [command_pdu(3, message), *data]


@asynccontextmanager
async def peer_of(*services: Any) -> AsyncIterator[RawPeer]:
    async with listen(port=0, services=services) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate(associate_rq(STORE))
        yield peer
        await peer.release()


def outcomes(service: Storage, proposed: list[PresentationContextRQ]) -> Any:
    """The results that an acceptor with `service` gives to each proposed context."""

    async def negotiate() -> list[int]:
        async with listen(port=0, services=[service]) as server, await RawPeer.connect(server.port) as peer:
            answer = await peer.associate(associate_rq(*proposed))
            return [each.result for each in answer.presentation_contexts]

    return negotiate()


def contexts(pairs: list[tuple[str, str]]) -> list[PresentationContextRQ]:
    return [PresentationContextRQ(2 * index + 1, each, (syntax,)) for index, (each, syntax) in enumerate(pairs)]


async def test_every_storage_class_in_every_transfer_syntax_is_taken() -> None:
    service = Storage(Keeper().keep)
    classes, syntaxes = list(STORAGE_SOP_CLASSES), list(TRANSFER_SYNTAXES)
    assert len(classes) > 150
    count = max(len(classes), len(syntaxes))
    pairs = [(classes[number % len(classes)], syntaxes[number % len(syntaxes)]) for number in range(count)]
    for start in range(0, count, 128):
        chosen = contexts(pairs[start : start + 128])
        assert set(await outcomes(service, chosen)) == {0}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 3, 3, 4]),
        ({"any_sop_class": True}, [0, 0, 3, 4]),
        ({"sop_classes": {PRIVATE}}, [3, 0, 3, 3]),
        ({"transfer_syntaxes": {"1.2.3"}}, [4, 3, 3, 0]),
    ],
)
async def test_what_else_is_taken_can_be_set(options: dict[str, Any], expected: list[int]) -> None:
    """Results of PS3.8 Table 9-18: 3 abstract syntax, 4 transfer syntaxes not supported. Verification is no storage class."""
    pairs = [
        (CT, "1.2.840.10008.1.2"),
        (PRIVATE, "1.2.840.10008.1.2"),
        (VERIFICATION, "1.2.840.10008.1.2"),
        (CT, "1.2.3"),
    ]
    assert await outcomes(Storage(Keeper().keep, **options), contexts(pairs)) == expected


async def test_the_response_names_what_was_stored() -> None:
    """PS3.7 9.3.1.2."""
    keeper = Keeper()
    async with peer_of(Storage(keeper.keep)) as peer:
        answer = await ask(peer, store_rq(7, "1.2.3.4"))
    assert (answer.message_id_being_responded_to, answer.status) == (7, 0)
    assert (answer.affected_sop_class_uid, answer.affected_sop_instance_uid) == (CT, "1.2.3.4")
    assert answer.error_comment is None
    request = await keeper.next_begun()
    assert (request.sop_class_uid, request.sop_instance_uid) == (CT, "1.2.3.4")
    assert request.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN
    assert keeper.stored == {"1.2.3.4": b"data"}


async def test_a_class_that_is_not_that_of_the_context() -> None:
    """Conformance case 42: 0122H, and the handler never sees it."""
    keeper = Keeper()
    async with peer_of(Storage(keeper.keep)) as peer:
        answer = await ask(peer, store_rq(sop_class=MR))
        assert answer.status == 0x0122
        assert answer.error_comment is not None
        assert (await ask(peer, store_rq(2))).status == 0
    assert list(keeper.stored) == ["1.2.3"]


@pytest.mark.parametrize(
    "uid",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "",
        "1" * 65,
        "1." * 100 + "1",
        "1..2",
        ".1",
        "1.",
        "1.2\x003",
        "1.2 3",
        "1.2\n3",
        "1.٣",
    ],
)
async def test_an_instance_that_is_not_a_uid(uid: str) -> None:
    """Conformance case 49: 0117H, and the handler never sees it. The association goes on."""
    keeper = Keeper()
    raw = uid.encode("utf-8").decode("latin-1")
    async with peer_of(Storage(keeper.keep)) as peer:
        answer = await ask(peer, store_rq(1, raw))
        assert answer.status == 0x0117
        assert (await ask(peer, store_rq(2))).status == 0
    assert list(keeper.stored) == ["1.2.3"]


@pytest.mark.parametrize("uid", ["1.02.3", "0", "1" * 64, "1.2.3\0"])
async def test_what_real_devices_send_for_a_uid_is_taken(uid: str) -> None:
    keeper = Keeper()
    async with peer_of(Storage(keeper.keep)) as peer:
        assert (await ask(peer, store_rq(1, uid))).status == 0
    assert list(keeper.stored) == [uid.strip("\0")]


async def test_a_request_without_a_data_set() -> None:
    keeper = Keeper()
    request = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2", data_set_type=0x0101)
    async with peer_of(Storage(keeper.keep)) as peer:
        answer = await ask(peer, request, None)
        assert answer.status == 0xC000
        assert answer.error_comment == "the request has no data set"
    assert keeper.begun.empty()


async def test_a_refusal_has_its_status_and_a_comment_that_fits(caplog: pytest.LogCaptureFixture) -> None:
    """VR LO, default repertoire (PS3.7 Annex C): 64 characters, and what it cannot hold replaced."""

    async def refuse(request: StoreRequest) -> int:
        raise StoreFailed(0xA700, "no röom: " + "x" * 100)

    async with peer_of(Storage(refuse)) as peer:
        answer = await ask(peer, store_rq(1, "1.2.3.4"))
        assert answer.status == 0xA700
        assert answer.error_comment == ("no r?om: " + "x" * 100)[:64]
        assert answer.affected_sop_instance_uid == "1.2.3.4"
    assert "1.2.3.4 not stored: no röom" in caplog.text


@pytest.mark.parametrize(("given", "sent"), [(0xB000, 0xB000), (0xA900, 0xA900), (0, 0)])
async def test_the_status_that_the_handler_returns_is_sent(given: int, sent: int) -> None:
    async def keep(request: StoreRequest) -> Any:
        await request.data.read()
        return given

    async with peer_of(Storage(keep)) as peer:
        assert (await ask(peer, store_rq())).status == sent


async def test_a_handler_that_forgets_to_return_a_status_is_no_success(caplog: pytest.LogCaptureFixture) -> None:
    async def keep(request: StoreRequest) -> Any:
        await request.data.read()

    async with peer_of(Storage(keep)) as peer:
        assert (await ask(peer, store_rq())).status == 0x0110
    assert "the storage handler returned None" in caplog.text


async def test_no_success_before_the_data_set_is_whole() -> None:
    """Not even from a handler that does not want to see it: the rest may never come."""

    async def keep(request: StoreRequest) -> int:
        return 0

    async with peer_of(Storage(keep)) as peer:
        command, half, rest = message_pieces(store_rq(), [b"half", b"rest"])
        await peer.send(command + half)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.read_pdu()
        await peer.send(rest)
        answer = (await peer.read_message()).command
        assert isinstance(answer, CStoreRSP)
        assert answer.status == 0


async def test_what_a_peer_calls_a_uid_does_not_reach_the_log_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async with peer_of(Storage(Keeper().keep)) as peer:
        forged = "1.2\nERROR everything is lost\x1b[31m" + "9" * 10_000
        assert (await ask(peer, store_rq(instance=forged))).status == 0x0117
    messages = [record.getMessage() for record in caplog.records]
    assert any("not stored" in message for message in messages)
    assert not any("\n" in message or "\x1b" in message or len(message) > 500 for message in messages)


@pytest.mark.parametrize(
    ("sop_class", "result"),
    [
        ("1.2.840.10008.5.1.4.1.1.999", 0),  # a storage class that the standard may get
        (PRIVATE, 0),
        ("1.2.840.10008.5.1.4.1.2.2.1", 3),  # Study Root FIND
        ("1.2.840.10008.1.20.1", 3),  # Storage Commitment
        ("1.2.840.10008.3.1.2.3.3", 3),  # MPPS
        ("1.2.840.10008.5.1.4.31", 3),  # Modality Worklist FIND
    ],
)
async def test_any_sop_class_is_not_any_service(sop_class: str, result: int) -> None:
    proposed = contexts([(sop_class, EXPLICIT_VR_LITTLE_ENDIAN)])
    assert await outcomes(Storage(Keeper().keep, any_sop_class=True), proposed) == [result]


async def test_a_handler_that_breaks_is_a_processing_failure_for_that_object_only() -> None:
    async def keep(request: StoreRequest) -> int:
        if request.sop_instance_uid == "1.2":
            raise ZeroDivisionError
        return 0

    async with peer_of(Storage(keep)) as peer:
        assert (await ask(peer, store_rq(1, "1.2"))).status == 0x0110
        assert (await ask(peer, store_rq(2, "1.3"))).status == 0


# SCU


@asynccontextmanager
async def scu_of(port: int, **options: Any) -> AsyncIterator[CStoreScu]:
    proposal = [verification(), storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]
    async with associate(f"ANY@{LOOPBACK}:{port}", proposal, **options) as association:
        yield CStoreScu(association)


def association_of(scu: CStoreScu) -> Association:
    return scu._association


async def is_usable(scu: CStoreScu) -> bool:
    return (await CEchoScu(association_of(scu)).echo()).is_success


@pytest.mark.parametrize("size", [1, 2, 4095, MB - 1, MB, MB + 1, 3 * MB + 7])
@pytest.mark.parametrize("maximum_length", [0, 16384])
async def test_the_bytes_of_the_file_arrive(tmp_path: Path, size: int, maximum_length: int) -> None:
    """With the byte that a data set of odd length lacks (PS3.8 E.1: every fragment is even)."""
    data = (b"\x10\x00" + os.urandom(size))[:size]
    file = write_file(tmp_path, 1, data)
    keeper = Keeper()
    sent: list[int] = []
    async with serve(keeper, maximum_length=maximum_length) as server, scu_of(server.port) as scu:
        for source in (file, file.path, str(file.path)):
            response = await scu.send(source, on_bytes=sent.append)
            assert response.is_success
            assert (response.sop_class_uid, response.sop_instance_uid) == (CT, "1.2.1")
            assert keeper.stored == {"1.2.1": data + b"\0" * (size % 2)}
        assert (await scu.send(file, content=data, on_bytes=sent.append)).is_success
        assert keeper.stored == {"1.2.1": data + b"\0" * (size % 2)}
    assert size * 4 <= sum(sent) <= (size + 1) * 4


async def test_a_failure_is_a_value(tmp_path: Path) -> None:
    async def refuse(_: StoreRequest) -> int:
        raise StoreFailed(0xA900, "not that")

    async with (
        listen(port=0, services=[Storage(refuse), Verification()]) as server,
        scu_of(server.port) as scu,
    ):
        response = await scu.send(write_file(tmp_path))
        assert response.is_failure
        assert (response.status, response.error_comment) == (0xA900, "not that")
        assert await is_usable(scu)


async def test_a_warning_is_no_failure(tmp_path: Path) -> None:
    async with serve(Keeper(status=0xB000)) as server, scu_of(server.port) as scu:
        response = await scu.send(write_file(tmp_path))
        assert response.is_warning
        assert not response.is_failure
        assert not response.is_success


async def test_files_that_cannot_be_sent_do_not_harm_the_association(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not DICOM")
    file = write_file(tmp_path, 1, bytes(3 * MB))
    shorter = write_file(tmp_path, 2, bytes(3 * MB))
    os.truncate(shorter.path, MB)
    foreign = write_file(tmp_path, 3, sop_class=MR)
    compressed = write_file(tmp_path, 4, transfer_syntax="1.2.840.10008.1.2.4.50")
    async with serve() as server, scu_of(server.port) as scu:
        for source, error in [
            (text, FileFormatError),
            (tmp_path / "missing", FileNotFoundError),
            (tmp_path, IsADirectoryError),
            (DicomFile(tmp_path / "missing", CT, "1.2", EXPLICIT_VR_LITTLE_ENDIAN, 0, 10), FileNotFoundError),
            (shorter, OSError),
            (foreign, NoAcceptedContext),
            (compressed, NoAcceptedContext),
        ]:
            with pytest.raises(error):
                await scu.send(source)
        assert await is_usable(scu)
        assert (await scu.send(file)).is_success


async def test_a_file_that_shrinks_while_it_is_sent_ends_the_association(tmp_path: Path) -> None:
    """Half a message has gone out: nothing but an abort can follow."""
    file = sparse_file(tmp_path, 1, 64 * MB)
    keeper = Keeper()
    async with serve(keeper) as server, scu_of(server.port) as scu:

        def shrink(_: int) -> None:
            os.truncate(file.path, file.offset + 2 * MB)

        with pytest.raises(OSError, match=r"ended \d+ bytes early"):
            await scu.send(file, on_bytes=shrink)
        with pytest.raises(AssociationAborted):
            await is_usable(scu)
        assert isinstance(await keeper.next_end(), BaseException)
    assert keeper.stored == {}


async def test_a_progress_callback_that_fails_ends_it_too(tmp_path: Path) -> None:
    async with serve() as server, scu_of(server.port) as scu:

        def fail(_: int) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await scu.send(sparse_file(tmp_path, 1, 3 * MB), on_bytes=fail)


Script = Callable[[RawPeer], Awaitable[None]]

# So the peer sees a PDU for every 16 KiB.
SMALL_PDUS = 16 * 1024


def answering(status: int | None, *, after: int, then: Script) -> Script:
    """A peer that answers with `status` (None: not at all) when `after` PDUs of the message have come."""

    async def script(peer: RawPeer) -> None:
        await peer.accept(maximum_length=SMALL_PDUS)
        for _ in range(after):
            await peer.read_pdu()
        if status is not None:
            await peer.send(answer_with(status))
        await then(peer)

    return script


def answer_with(status: int) -> bytes:
    return command_pdu(3, CStoreRSP(message_id_being_responded_to=1, status=status, error_comment="why"))


async def read_on(peer: RawPeer) -> None:
    """Take all that comes, and answer the release at its end."""
    while isinstance(pdu := await peer.read_pdu(), PDataTF):
        pass
    assert isinstance(pdu, AReleaseRQ)
    await peer.send(RELEASE_RP)
    await peer.read_until_closed()


async def close(peer: RawPeer) -> None:
    peer.close()


async def abort(peer: RawPeer) -> None:
    await peer.send(AAbort(0, 0))


@pytest.mark.parametrize("status", [0, 0xA700])
async def test_an_answer_before_the_data_set_is_whole(tmp_path: Path, status: int) -> None:
    """It is an answer; the rest of the data set is sent, and the association goes on."""
    script = answering(status, after=3, then=read_on)
    async with raw_acceptor(script) as port, scu_of(port) as scu:
        response = await scu.send(sparse_file(tmp_path, 1, 3 * MB), retries=0)
        assert response.status == status


@pytest.mark.parametrize("then", [close, abort])
@pytest.mark.parametrize("after", [1, 2, 20])
async def test_a_peer_that_says_why_and_goes_away_is_heard(tmp_path: Path, then: Script, after: int) -> None:
    """Out of resources: it cannot take the rest. Writing to it fails before its words are read."""
    script = answering(0xA700, after=after, then=then)
    async with raw_acceptor(script) as port, scu_of(port) as scu:
        response = await scu.send(sparse_file(tmp_path, 1, 64 * MB))
        assert (response.status, response.error_comment) == (0xA700, "why")


async def test_success_for_half_an_object_is_not_believed(tmp_path: Path) -> None:
    script = answering(0, after=3, then=abort)
    async with raw_acceptor(script) as port, scu_of(port) as scu:
        with pytest.raises(AssociationAborted):
            await scu.send(sparse_file(tmp_path, 1, 64 * MB))


@pytest.mark.parametrize(("then", "error"), [(close, AssociationLost), (abort, AssociationAborted)])
@pytest.mark.parametrize("after", [0, 1, 2, 20, 200])
async def test_a_peer_that_goes_away_in_the_middle(
    tmp_path: Path, then: Script, error: type[Exception], after: int
) -> None:
    async with raw_acceptor(answering(None, after=after, then=then)) as port, scu_of(port) as scu:
        with pytest.raises(AssociationError) as caught:
            await scu.send(sparse_file(tmp_path, 1, 64 * MB))
        assert isinstance(caught.value, error)


async def test_a_peer_that_stops_reading_in_the_middle_is_given_up(tmp_path: Path) -> None:
    stay = asyncio.Event()

    async def stop(_: RawPeer) -> None:
        await stay.wait()

    async with raw_acceptor(answering(None, after=50, then=stop)) as port, scu_of(port) as scu:
        began = asyncio.get_running_loop().time()
        with pytest.raises(OperationTimeout, match=r"C-STORE of 1\.2\.1: nothing moved for 0\.3 s"):
            await scu.send(sparse_file(tmp_path, 1, 64 * MB), timeout=0.3)
        assert 0.3 <= asyncio.get_running_loop().time() - began < 10
        stay.set()


@pytest.mark.parametrize("in_memory", [False, True])
async def test_a_peer_that_reads_slowly_is_not_late(tmp_path: Path, in_memory: bool) -> None:
    """Every byte that moves counts: the transfer takes several times the timeout."""

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        control, pauses = 0, 60
        while control & 3 != 2:  # the last fragment of the data set
            header = await peer.read(12)
            left, control = int.from_bytes(header[2:6], "big") - 6, header[11]
            while left > 0:
                left -= len(await peer.read(min(left, 256 * 1024)))
                if pauses:
                    pauses -= 1
                    await asyncio.sleep(0.03)  # this is how slow it is
        await peer.send(answer_with(0))
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(RELEASE_RP)

    file = sparse_file(tmp_path, 1, 24 * MB)
    content = file.path.read_bytes()[file.offset :] if in_memory else None
    async with raw_acceptor(script, receive_buffer=1 << 16) as port, scu_of(port) as scu:
        began = asyncio.get_running_loop().time()
        assert (await scu.send(file, content=content, timeout=0.6)).is_success
        assert asyncio.get_running_loop().time() - began > 1.5


async def test_several_at_once_on_one_association(tmp_path: Path) -> None:
    """Small ones and large ones: as many outstanding as the window allows, none mixed with another."""
    keeper = Keeper()
    files = [
        write_file(tmp_path, number, data_of(number) * (100_000 if number % 5 == 0 else 1)) for number in range(30)
    ]
    async with serve(keeper, window=4) as server, scu_of(server.port) as scu:
        responses = await asyncio.gather(*(scu.send(file) for file in files))
    assert all(response.is_success for response in responses)
    assert keeper.most_running <= 4
    for number, file in enumerate(files):
        stored = keeper.stored[file.sop_instance_uid]
        assert stored[: file.size] == data_of(number) * (100_000 if number % 5 == 0 else 1)


async def test_both_services_on_one_association() -> None:
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.associate(associate_rq(ECHO, STORE))
        await peer.send(message_pdus(3, store_rq(1), b"data"), message_pdus(1, echo_rq(2)))
        answers = [(await peer.read_message()).command for _ in range(2)]
        assert all(isinstance(answer, Response) and answer.status == 0 for answer in answers)
        await peer.send(AReleaseRQ())
