"""Every status of DIMSE-N (PS3.7 annex C), with pynetdicom in both directions: the code, its class, and what it is about."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset

from support.network import LOOPBACK
from tomowire import (
    Normalized,
    NormalizedAnswer,
    NormalizedRequest,
    NormalizedScu,
    OperationFailed,
    ProposedContext,
    associate,
    listen,
)

pytestmark = pytest.mark.interop

COMMITMENT, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
TAG = 0x00081195

WARNINGS = [0x0107, 0x0116]  # C.4.2, C.4.3
FAILURES = [
    *(0x0105, 0x0106, 0x0110, 0x0111, 0x0112, 0x0113, 0x0114, 0x0115, 0x0117, 0x0118, 0x0119),
    *(0x0120, 0x0121, 0x0122, 0x0123, 0x0124, 0x0210, 0x0211, 0x0212, 0x0213),
]


async def say(request: NormalizedRequest) -> NormalizedAnswer:
    """Answer with the status that the type of the action says."""
    status = int(request.type_id or 0)
    if status in FAILURES:
        raise OperationFailed(status, "a comment", error_id=7, offending_elements=(TAG,))
    return NormalizedAnswer(status=status, comment="a comment", error_id=7, offending_elements=(TAG,))


async def test_our_scp_tells_their_scu_each_status(pynetdicom: ModuleType) -> None:
    received: list[Any] = []

    def ask(port: int) -> list[int]:
        entity = pynetdicom.AE("THEIRS")
        entity.add_requested_context(COMMITMENT, EXPLICIT)
        remember = (pynetdicom.evt.EVT_DIMSE_RECV, lambda event: received.append(event.message.command_set))
        association = entity.associate(LOOPBACK, port, evt_handlers=[remember])
        assert association.is_established
        answers: list[Any] = []
        try:
            for code in (*WARNINGS, *FAILURES):
                answer, _ = association.send_n_action(None, code, COMMITMENT, INSTANCE)
                if not answer:  # its two threads take from one queue: now and then a response gets lost between them
                    received.clear()
                    return []
                answers.append(answer)
        finally:
            association.release()
        return [answer.Status for answer in answers]

    def work(port: int) -> list[int]:
        return ask(port) or ask(port) or ask(port)

    async with listen(LOOPBACK, 0, services=[Normalized([COMMITMENT], action=say)]) as server:
        statuses = await asyncio.to_thread(work, server.port)
    assert statuses == [*WARNINGS, *FAILURES]
    for code, command in zip(statuses, received, strict=True):
        assert (command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (COMMITMENT, INSTANCE)
        assert (command.ActionTypeID, command.ErrorComment, command.ErrorID) == (code, "a comment", 7)
        assert command.OffendingElement == TAG


async def test_their_scp_tells_our_scu_each_status(pynetdicom: ModuleType) -> None:
    def act(event: Any) -> tuple[Dataset, None]:
        status = Dataset()
        status.Status, status.ErrorComment, status.ErrorID = event.action_type, "a comment", 7
        return status, None

    entity = pynetdicom.AE("THEIRS")
    entity.add_supported_context(COMMITMENT, EXPLICIT)
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_N_ACTION, act)])
    try:
        address = f"THEIRS@{LOOPBACK}:{server.socket.getsockname()[1]}"
        async with associate(address, [ProposedContext(COMMITMENT, (EXPLICIT,))]) as association:
            scu = NormalizedScu(association)
            responses = [await scu.action(COMMITMENT, INSTANCE, code) for code in (*WARNINGS, *FAILURES)]
    finally:
        server.shutdown()
    assert [int(each.status) for each in responses] == [*WARNINGS, *FAILURES]
    assert [each.is_warning for each in responses] == [each in WARNINGS for each in (*WARNINGS, *FAILURES)]
    assert [each.is_failure for each in responses] == [each in FAILURES for each in (*WARNINGS, *FAILURES)]
    assert {(each.error_comment, each.error_id) for each in responses} == {("a comment", 7)}
