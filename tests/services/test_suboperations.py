"""The account of sub-operations, and the list of those that failed: what no test over a network gets to quickly."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from tomowire.aio.responses import LARGEST_DATA_SET
from tomowire.errors import ConnectFailed, TranscodingFailed
from tomowire.protocol.status import Status
from tomowire.services import failed_list
from tomowire.services.failed_list import FailedList, encode_failed_list
from tomowire.services.identifiers import decode
from tomowire.services.storage import StoreResponse
from tomowire.services.suboperations import SubOperations, describe
from tomowire.wire.command_set import decode_command, encode_command
from tomowire.wire.messages import CGetRQ, CGetRSP, CMoveRQ, CMoveRSP

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
GET, MOVE = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.2.2"


class Association:
    title = "A -> B"


class Context:
    transfer_syntax = EXPLICIT


class Request:
    """What an account asks of a request."""

    association = Association()
    context = Context()
    cancelled = False

    def __init__(self) -> None:
        self.responses: list[tuple[Any, bytes | None]] = []
        self.told = asyncio.Event()

    async def respond(self, response: Any, data: bytes | None = None) -> None:
        self.responses.append((decode_command(encode_command(response)), data))
        self.told.set()


def account(total: int | None, *, move: bool = False) -> tuple[SubOperations, Request]:
    request = Request()
    message = (
        CMoveRQ(message_id=7, affected_sop_class_uid=MOVE, move_destination="DEST")
        if move
        else CGetRQ(message_id=7, affected_sop_class_uid=GET)
    )
    operations = SubOperations(request, message)  # type: ignore[arg-type]
    operations.total = total
    return operations, request


def response(status: int, number: int = 1) -> StoreResponse:
    return StoreResponse(Status(status), "1.2", f"1.2.{number}")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("count", [1, 2, 3, 7000, 65_535])
def test_case_69_the_list_of_failures_can_be_read_at_any_length(syntax: str, count: int) -> None:
    """PS3.5 7.1.2, 6.2.2: beyond 64 KB explicit VR has UN, which whoever knows the tag reads as UI."""
    uids = [f"1.2.826.0.1.3680043.10.1234.3.{number}" for number in range(count)]
    encoded = encode_failed_list(uids, syntax)
    assert len(encoded) % 2 == 0
    (listed,) = decode(encoded, syntax)
    assert listed.tag == 0x00080058
    values = listed.value
    if isinstance(values, bytes):  # UN, where pydicom is told to leave it
        values = values.decode("ascii").rstrip("\0").split("\\")
    assert ([values] if count == 1 else list(values)) == uids


def test_the_list_in_explicit_vr_byte_by_byte() -> None:
    assert encode_failed_list(["1.2"], EXPLICIT) == b"\x08\0\x58\0UI\x04\0" + b"1.2\0"
    assert encode_failed_list(["1.2"], IMPLICIT) == b"\x08\0\x58\0\x04\0\0\0" + b"1.2\0"
    assert encode_failed_list(["1" * 65_534], EXPLICIT)[:8] == b"\x08\0\x58\0UI\xfe\xff"
    assert encode_failed_list(["1" * 65_535], EXPLICIT)[:12] == b"\x08\0\x58\0UN\0\0\0\0\x01\0"


def test_another_reader_takes_the_long_list_for_uids() -> None:
    uids = [f"1.2.826.0.1.3680043.10.1234.3.{number}" for number in range(3000)]
    data = dcmread(DicomBytesIO(encode_failed_list(uids, IMPLICIT)), force=True)
    assert list(data.FailedSOPInstanceUIDList) == uids


async def test_a_list_for_which_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each UID takes its length and a backslash; the list stops where a requestor of ours would stop reading, and that is told."""
    monkeypatch.setattr(failed_list, "_LARGEST", 100)
    operations, request = account(30)
    for number in range(10, 40):
        operations.not_done(f"1.2.3.{number}", "refused")
    await operations.respond(operations.status)
    ((sent, data),) = request.responses
    assert (sent.status, sent.number_of_failed_suboperations) == (0xA702, 30)
    assert data is not None
    listed = decode(data, EXPLICIT).FailedSOPInstanceUIDList
    assert list(listed) == [f"1.2.3.{number}" for number in range(10, 10 + (100 + 1) // 9)]
    assert sent.error_comment == "19 more have failed than are listed: refused"


def test_many_failures_take_no_more_memory_than_the_list() -> None:
    tracemalloc.start()
    try:
        made = FailedList()
        for number in range(300_000):
            made.add(f"1.2.826.0.1.3680043.10.1234.3.{number:07}")
        assert tracemalloc.get_traced_memory()[0] < 12 << 20
    finally:
        tracemalloc.stop()
    encoded = made.encode(EXPLICIT)
    assert len(encoded) <= LARGEST_DATA_SET
    assert len(encoded) - 12 == -(-((300_000 - made.left_out) * 38 - 1) // 2) * 2


@pytest.mark.parametrize("move", [False, True])
async def test_case_75_counters_clamp(move: bool) -> None:
    """PS3.7 Annex E: they are US, of which 65,535 is the largest."""
    operations, request = account(200_000, move=move)
    operations.completed, operations.failed, operations.warning = 70_000, 65_535, 3
    await operations.respond(Status(0xFE00))
    ((sent, _),) = request.responses
    assert isinstance(sent, CMoveRSP if move else CGetRSP)
    assert sent.number_of_completed_suboperations == 65_535
    assert sent.number_of_failed_suboperations == 65_535
    assert sent.number_of_warning_suboperations == 3
    assert sent.number_of_remaining_suboperations == 64_462
    operations.total = 300_000
    await operations.respond(Status(0xFE00))
    assert request.responses[1][0].number_of_remaining_suboperations == 65_535


@pytest.mark.parametrize(
    ("completed", "failed", "warning", "status"),
    [
        (0, 0, 0, 0x0000),
        (5, 0, 0, 0x0000),
        (4, 1, 0, 0xB000),
        (4, 0, 1, 0xB000),
        (0, 0, 5, 0xB000),
        (0, 1, 4, 0xB000),
        (0, 5, 0, 0xA702),
    ],
)
def test_the_final_status(completed: int, failed: int, warning: int, status: int) -> None:
    """PS3.4 Tables C.4-2 and C.4-3."""
    operations, request = account(completed + failed + warning)
    operations.completed, operations.failed, operations.warning = completed, failed, warning
    assert operations.status == status
    request.cancelled = True
    assert operations.status == status, "a C-CANCEL that came too late changes nothing"
    operations.total = 6
    assert operations.status == 0xFE00


@pytest.mark.parametrize("status", [0x0110, 0x0122, 0xA700, 0xA900, 0xC001, 0xFE00, 0x1234])
async def test_whatever_is_no_success_and_no_warning_has_failed(status: int) -> None:
    operations, request = account(2)
    operations.answered(response(0))
    operations.answered(response(status, 2))
    assert (operations.completed, operations.failed, operations.warning) == (1, 1, 0)
    await operations.respond(operations.status)
    assert request.responses[0][1] == encode_failed_list(["1.2.2"], EXPLICIT)


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0001, 0x0107, 0x0116])
def test_warnings(status: int) -> None:
    operations, _ = account(1)
    operations.answered(response(status))
    assert (operations.completed, operations.failed, operations.warning) == (0, 0, 1)


async def test_a_success_has_no_list_and_pending_responses_have_none() -> None:
    operations, request = account(2)
    operations.not_done("1.2.1", "refused")
    async with operations.reporting():
        await request.told.wait()
    ((pending, data),) = request.responses
    assert (pending.status, pending.number_of_remaining_suboperations, data) == (0xFF00, 1, None)
    assert not pending.has_data_set


async def test_an_object_without_a_uid_is_counted_and_not_listed() -> None:
    operations, request = account(1)
    operations.not_done("", "lost")
    await operations.respond(operations.status)
    ((sent, data),) = request.responses
    assert (sent.status, sent.number_of_failed_suboperations, data) == (0xA702, 1, None)


def test_more_than_was_promised() -> None:
    operations, _ = account(1)
    operations.answered(response(0, 1))
    operations.answered(response(0, 2))
    assert (operations.completed, operations.remaining, operations.status) == (2, 0, 0)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectFailed("cannot connect to X"), "cannot connect to X"),
        (FileNotFoundError(2, "No such file or directory", "/data/secret"), "cannot be read: No such file"),
        (OSError("/data/secret has become shorter"), "cannot be read: it is shorter"),
        (KeyError("Doe^Jane"), "internal error (KeyError)"),
        (TranscodingFailed("cannot transcode 1.2.3: 'Doe^Jane' is no number"), "it could not be transcoded"),
    ],
)
def test_what_is_told_of_an_error(error: Exception, text: str) -> None:
    assert text in describe(error)
    assert "secret" not in describe(error)
    assert "Doe" not in describe(error)
