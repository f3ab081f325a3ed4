"""Responses that break PS3.7, in any order, among several operations: nobody waits for ever, and no place in the window is lost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tomowire.aio.operations import Operations
from tomowire.errors import CommandSetError, PeerMisbehaved
from tomowire.uids import VERIFICATION
from tomowire.wire.messages import CEchoRQ, CEchoRSP, CStoreRSP

OPERATIONS = 6
KINDS = ("good", "pending", "another kind", "unreadable", "unreadable, of nobody", "cancel")

events = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, OPERATIONS + 1)), max_size=30)


@given(window=st.sampled_from([0, 1, 2, 3, OPERATIONS]), happening=events)
def test_nobody_waits_for_ever_and_no_place_is_lost(window: int, happening: list[tuple[str, int]]) -> None:
    asyncio.run(_play(window, happening))


async def _play(window: int, happening: list[tuple[str, int]]) -> None:
    operations = Operations(asyncio.get_running_loop(), unsent=lambda: 0, on_late=lambda why: None)
    operations.window = window

    async def echo(number: int) -> str:
        request = CEchoRQ(message_id=number, affected_sop_class_uid=VERIFICATION)
        async with operations.new(request, f"C-ECHO {number}", None) as operation:
            operations.on_sent(number)
            try:
                await operation.only_response()
            except PeerMisbehaved as error:
                return str(error)
        return "answered"

    tasks = [asyncio.create_task(echo(number)) for number in range(1, OPERATIONS + 1)]
    for kind, number in happening:
        await asyncio.sleep(0)
        if kind == "cancel" and number <= OPERATIONS:
            tasks[number - 1].cancel()
        else:
            _happen(operations, kind, number)
    while True:  # now the peer answers what is still outstanding, one after the other
        for _ in range(3):
            await asyncio.sleep(0)
        outstanding = [number for number, each in operations._all.items() if each.is_outstanding]
        if not outstanding:
            break
        assert operations.on_response(CEchoRSP(message_id_being_responded_to=outstanding[0], status=0), None) is None
    async with asyncio.timeout(10):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    said = ("answered", "the peer sent CStoreRSP in response to", "the peer sent a response that cannot be read")
    assert all(isinstance(each, asyncio.CancelledError) or each.startswith(said) for each in results)
    assert (operations._all, operations._admitted, len(operations._queue)) == ({}, 0, 0)


def _happen(operations: Operations, kind: str, number: int) -> None:
    """Something comes from the peer; what it is worth must not matter."""
    match kind:
        case "good":
            operations.on_response(CEchoRSP(message_id_being_responded_to=number, status=0), None)
        case "pending":
            operations.on_response(CEchoRSP(message_id_being_responded_to=number, status=0xFF00), None)
        case "another kind":
            operations.on_response(CStoreRSP(message_id_being_responded_to=number, status=0), None)
        case "unreadable":
            operations.on_unreadable(CommandSetError("no status", message_id=number))
        case "unreadable, of nobody":
            operations.on_unreadable(CommandSetError("no Message ID"))
