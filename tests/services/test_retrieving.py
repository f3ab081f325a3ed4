"""What C-GET and C-MOVE ask for, and what the last response of a peer played by hand means (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydicom import Dataset

from support.network import LOOPBACK
from support.raw_peer import RawMessage, RawPeer, message_pdus, raw_acceptor
from tomowire import (
    Association,
    CMoveScu,
    Model,
    Progress,
    Query,
    RetrieveFailed,
    SubOperationFailed,
    UsageError,
    associate,
    moving,
)
from tomowire.services.failed_list import encode_failed_list
from tomowire.services.identifiers import encode
from tomowire.services.retrieving import names_entities, retrieve_identifier
from tomowire.wire.messages import CMoveRQ, CMoveRSP

pytestmark = pytest.mark.usefixtures("no_leaks")

EXPLICIT = "1.2.840.10008.1.2.1"
NO_DATA = 0x0101
PATIENT, STUDY = Model.PATIENT_ROOT, Model.STUDY_ROOT


# Identifiers (PS3.4 C.4.2.1.4.1: Query/Retrieve Level and unique keys, nothing else)


@pytest.mark.parametrize(
    ("query", "model", "expected"),
    [
        (Query.patients().patient_id("P1"), PATIENT, {"QueryRetrieveLevel": "PATIENT", "PatientID": "P1"}),
        (Query.study("1.2"), STUDY, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}),
        (
            Query.study("1.2").patient_id("P1"),
            PATIENT,
            {"QueryRetrieveLevel": "STUDY", "PatientID": "P1", "StudyInstanceUID": "1.2"},
        ),
        (
            Query.series("1.2").series_uid("1.3", "1.4").returning("BodyPartExamined"),
            STUDY,
            {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2", "SeriesInstanceUID": ["1.3", "1.4"]},
        ),
        (
            Query.images("1.2", "1.3").sop_instance_uid("1.5"),
            STUDY,
            {
                "QueryRetrieveLevel": "IMAGE",
                "StudyInstanceUID": "1.2",
                "SeriesInstanceUID": "1.3",
                "SOPInstanceUID": "1.5",
            },
        ),
        # Above the level the peer decides: with relational retrieval nothing is needed there.
        (Query.series().series_uid("1.3"), STUDY, {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.3"}),
    ],
)
def test_only_unique_keys_are_sent(query: Query, model: Model, expected: dict[str, Any]) -> None:
    identifier = retrieve_identifier(query, model)
    assert {each.keyword: list(each.value) if each.VM > 1 else each.value for each in identifier} == expected
    assert names_entities(query, model)


@pytest.mark.parametrize(
    ("query", "model", "complaint"),
    [
        (Query.studies(), STUDY, "needs a value for StudyInstanceUID"),
        (Query.series("1.2"), STUDY, "needs a value for SeriesInstanceUID"),
        (Query.studies().patient_name("Smith*"), STUDY, "not PatientName: find first"),
        (Query.study("1.2").patient_id("P1"), STUDY, "no keys but StudyInstanceUID, and not PatientID"),
        (Query.patients().patient_id("P*"), PATIENT, "without wildcards"),
        (Query.patients().patient_id("P1"), STUDY, "Study Root model has no PATIENT level"),
    ],
)
def test_what_no_retrieval_can_ask_for(query: Query, model: Model, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        retrieve_identifier(query, model)
    assert not names_entities(query, model)


def test_an_identifier_of_ones_own_is_not_touched() -> None:
    raw = Dataset()
    raw.PatientComments = "anything"
    assert retrieve_identifier(raw) is raw


# The responses


def response(request: RawMessage, status: int, *counts: int | None, data: bytes | None = None, **more: Any) -> bytes:
    """One with the numbers of remaining, completed, failed and warning sub-operations."""
    assert isinstance(request.command, CMoveRQ)
    remaining, completed, failed, warning = counts or (None,) * 4
    answer = CMoveRSP(
        message_id_being_responded_to=request.command.message_id,
        affected_sop_class_uid=request.command.affected_sop_class_uid,
        status=status,
        data_set_type=NO_DATA if data is None else 1,
        number_of_remaining_suboperations=remaining,
        number_of_completed_suboperations=completed,
        number_of_failed_suboperations=failed,
        number_of_warning_suboperations=warning,
        **more,
    )
    return message_pdus(request.context_id, answer, data)


def failed_list(*uids: str) -> bytes:
    made = Dataset()
    made.FailedSOPInstanceUIDList = list(uids)
    return encode(made, EXPLICIT)


@asynccontextmanager
async def answering(*answers: tuple[Any, ...], data: bytes | None = None, **more: Any) -> AsyncIterator[Association]:
    """A peer that answers one C-MOVE with those statuses and counts; `data` comes with the last response."""

    async def play(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        await peer.send(*(response(request, *each) for each in answers[:-1]))
        await peer.send(response(request, *answers[-1], data=data, **more))
        await peer.answer_release()

    async with raw_acceptor(play) as port, associate(f"PEER@{LOOPBACK}:{port}", [moving()]) as association:
        yield association


async def progress_of(association: Association, told: list[Progress]) -> None:
    async for each in CMoveScu(association).move(Query.study("1.2"), "DEST"):
        told.append(each)  # noqa: PERF401  an extension would lose them when it raises


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(0x0000, None, 2, 0, 0)], [(0, 2, 0, 0)]),
        ([(0x0000, None, 0, 0, 0)], [(0, 0, 0, 0)]),
        # Of a peer that counts nothing it is not known how many there were.
        ([(0x0000,)], [(None, 0, 0, 0)]),
        ([(0xFF00,), (0x0000,)], [(None, 0, 0, 0), (None, 0, 0, 0)]),
        ([(0xFF00, 0, 0, 0, 0), (0x0000,)], [(0, 0, 0, 0), (0, 0, 0, 0)]),
        (
            [(0xFF00, 2, 0, 0, 0), (0xFF00, 1, 1, 0, 0), (0x0000, None, 2, 0, 0)],
            [(2, 0, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0)],
        ),
        # The counts are optional: what a response does not say has not changed.
        ([(0xFF00, 1, 1, 0, 0), (0xFF00,), (0x0000,)], [(1, 1, 0, 0), (None, 1, 0, 0), (0, 1, 0, 0)]),
        # PS3.4 Table C.4-2: B000H with warnings alone is no failure.
        ([(0xFF00, 1, 0, 0, 1), (0xB000, None, 1, 0, 1)], [(1, 0, 0, 1), (0, 1, 0, 1)]),
    ],
)
async def test_progress_is_what_the_responses_say(
    answers: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]
) -> None:
    told: list[Progress] = []
    async with answering(*answers) as association:
        await progress_of(association, told)
    assert [(each.remaining, each.completed, each.failed, each.warning) for each in told] == expected


@pytest.mark.parametrize("status", [0x0000, 0xB000])
async def test_what_the_peer_says_at_the_end_is_told_where_nothing_failed(status: int) -> None:
    told: list[Progress] = []
    async with answering((0xFF00, 1, 0, 0, 1), (status, None, 1, 0, 1), error_comment="coerced") as association:
        await progress_of(association, told)
    assert [each.error_comment for each in told] == [None, "coerced"]


@pytest.mark.parametrize(
    ("answer", "data", "expected"),
    [
        ((0xB000, None, 1, 2, 0), failed_list("1.5", "1.6"), [("1.5", 1), ("1.6", 1)]),
        ((0xA702, None, 0, 1, 0), failed_list("1.5"), [("1.5", 1)]),
        ((0xB000, None, 1, 2, 0), None, [(None, 2)]),
        ((0xB000, None, 1, 3, 0), failed_list("1.5"), [("1.5", 1), (None, 2)]),
        ((0xB000,), failed_list("1.5"), [("1.5", 1)]),
        # Counts are optional; that something was not transferred, or only with a warning, is said by the status alone.
        ((0xB000,), None, [(None, 1)]),
        ((0xB000, None, 3, 0, 0), None, [(None, 1)]),
        # Some peers report success, and count failures all the same. Nothing is assumed to have worked.
        ((0x0000, None, 1, 1, 0), None, [(None, 1)]),
        ((0xB000, None, 1, 1, 0), b"nonsense, this is", [(None, 1)]),
    ],
)
async def test_failed_sub_operations_come_in_one_group(
    answer: tuple[Any, ...], data: bytes | None, expected: list[tuple[str | None, int]]
) -> None:
    told: list[Progress] = []
    async with answering((0xFF00, 3, 0, 0, 0), answer, data=data) as association:
        with pytest.raises(ExceptionGroup, match="PEER did not transfer") as caught:
            await progress_of(association, told)
        assert association.is_established
    assert all(isinstance(each, SubOperationFailed) for each in caught.value.exceptions)
    assert [(each.sop_instance_uid, each.count) for each in caught.value.exceptions] == expected  # type: ignore[attr-defined]
    assert len(told) == 2


async def test_a_list_beyond_64_kilobytes() -> None:
    """Case 69: in Explicit VR it can only be sent as UN (PS3.5 6.2.2)."""
    uids = [f"1.2.840.10008.{number}.{'9' * 40}" for number in range(2000)]
    data = encode_failed_list(uids, EXPLICIT)
    assert len(data) > 1 << 16
    async with answering((0xB000, None, 1, 2000, 0), data=data) as association:
        with pytest.raises(ExceptionGroup) as caught:
            await progress_of(association, [])
    assert [getattr(each, "sop_instance_uid", None) for each in caught.value.exceptions] == uids


@pytest.mark.parametrize(
    ("answer", "count"), [((0xB000, None, 7, 200_000 & 0xFFFF, 0), 200_000 & 0xFFFF), ((0xA702,), 1)]
)
async def test_a_list_that_is_too_long_to_be_read(answer: tuple[Any, ...], count: int) -> None:
    """The counts stand, the rest of the association too; that the names are missing is said."""
    head = bytes.fromhex("08005800") + b"UN\0\0" + (13_000_000).to_bytes(4, "little")
    data = head + (b"1.2.840.10008.9999999999\\" * 520_000)[: 13_000_000 - 1] + b"\0"
    async with answering(answer, data=data) as association:
        with pytest.raises(ExceptionGroup, match="has more than 8 MiB and was not read") as caught:
            await progress_of(association, [])
        assert association.is_established
    assert [(each.sop_instance_uid, each.count) for each in caught.value.exceptions] == [(None, count)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ((0xA801,), "does not know the destination 'DEST': enter it there"),
        ((0xA701,), "short of something"),
        ((0xA702,), "reaches the destination"),
        ((0xA702, None, 0, 0, 0), "reaches the destination"),
        ((0xA900,), "unique key of each level"),
        ((0xC000, None, 1, 2, 0), "its log should say more"),
        ((0x0122,), "SOP class not supported"),
        ((0xFE00, 1, 1, 0, 0), "nobody here has cancelled it"),
    ],
)
async def test_a_failure_says_whose_fault_it_is(answer: tuple[Any, ...], advice: str) -> None:
    more = {"error_comment": "no such thing", "offending_element": (0x0020000D,)}
    async with answering(answer, **more) as association:
        with pytest.raises(RetrieveFailed) as caught:
            await progress_of(association, [])
        assert association.is_established
    failure = caught.value
    assert (failure.status, failure.error_comment) == (answer[0], "no such thing")
    assert failure.offending_elements == (0x0020000D,)
    if len(answer) > 1:
        assert (failure.completed, failure.failed, failure.warning) == answer[2:]
    for part in (f"{answer[0]:04X}H", "PEER", "no such thing", advice):
        assert part in str(failure)
