"""The SCP against a requestor that goes wrong in every way: it says what is wrong, keeps no half object, and serves the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from support.network import LOOPBACK
from support.services import Keeper, serve
from tomowire.testing import FaultySender, Outcome
from tomowire.wire.pdu import AAbort

pytestmark = pytest.mark.usefixtures("no_leaks")

LONG = 30.0
SENDER = FaultySender(size=50_000, patience=LONG)
PROVIDER = 2
UNRECOGNIZED, UNEXPECTED, INVALID = 1, 2, 6
"""Reasons of an A-ABORT by the provider (PS3.8 Table 9-26)."""

Way = Callable[[str], Awaitable[Outcome]]


@asynccontextmanager
async def under_test(keeper: Keeper, **options: float) -> AsyncIterator[str]:
    """An SCP that is there for the next one, whatever happened; every handler that was called has ended."""
    async with asyncio.timeout(LONG), serve(keeper, **options) as server:
        address = f"SCP@{LOOPBACK}:{server.port}"
        yield address
        good = await SENDER.well_behaved(address)
        assert (good.status, good.released) == (0, True)
        assert good.sop_instance_uid in keeper.stored
    assert keeper.running == 0


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (SENDER.babbles, UNRECOGNIZED),
        (SENDER.wrong_length, INVALID),
        (SENDER.unproposed_context, INVALID),
        (SENDER.releases_early, UNEXPECTED),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_what_breaks_the_protocol_is_aborted_by_the_provider(way: Way, reason: int) -> None:
    keeper = Keeper()
    async with under_test(keeper) as address:
        outcome = await way(address)
        assert outcome.abort == AAbort(PROVIDER, reason)
        assert outcome.status is None
        assert keeper.stored == {}


async def test_a_command_set_that_cannot_be_read_is_aborted() -> None:
    keeper = Keeper()
    async with under_test(keeper) as address:
        assert (await SENDER.malformed_command_set(address)).abort is not None
        assert keeper.stored == {}


async def test_a_command_that_nobody_knows_is_answered_and_the_association_goes_on() -> None:
    async with under_test(Keeper()) as address:
        outcome = await SENDER.unknown_command(address)
        assert (outcome.status, outcome.released) == (0x0211, True)


@pytest.mark.parametrize(
    "way",
    [
        SENDER.resets,
        SENDER.closes,
        lambda address: SENDER.truncates(address, "pdu"),
        lambda address: SENDER.truncates(address, "data set"),
    ],
    ids=["resets", "closes", "truncates a PDU", "truncates the data set"],
)
async def test_half_an_object_is_never_kept_and_its_handler_is_told(way: Way) -> None:
    keeper = Keeper()
    async with under_test(keeper) as address:
        outcome = await way(address)
        assert outcome.status is None
        assert isinstance(await keeper.next_end(), BaseException)
        assert keeper.stored == {}


@pytest.mark.parametrize("after_bytes", [1, 11, 12, 13, 200])
async def test_wherever_it_goes_away_nothing_is_kept(after_bytes: int) -> None:
    keeper = Keeper()
    async with under_test(keeper) as address:
        await SENDER.resets(address, after_bytes)
        await SENDER.closes(address, after_bytes)
        assert keeper.stored == {}


async def test_half_of_an_association_request_gets_no_answer() -> None:
    async with under_test(Keeper()) as address:
        outcome = await SENDER.truncates(address, "association")
        assert (outcome.closed, outcome.rejection) == (True, None)


async def test_who_never_asks_for_an_association_is_dropped() -> None:
    async with under_test(Keeper(), artim_timeout=0.2) as address:
        assert (await SENDER.never_asks(address)).closed


async def test_who_falls_silent_in_the_middle_is_aborted() -> None:
    keeper = Keeper()
    async with under_test(keeper, idle_timeout=0.2) as address:
        outcome = await SENDER.falls_silent(address)
        assert outcome.abort is not None
        assert isinstance(await keeper.next_end(), BaseException)
        assert keeper.stored == {}


async def test_an_object_that_comes_byte_by_byte_is_as_good_as_any() -> None:
    keeper = Keeper()
    async with under_test(keeper) as address:
        outcome = await FaultySender(size=100).trickles(address, 5000)
        assert (outcome.status, outcome.released) == (0, True)
        assert keeper.stored.keys() == {outcome.sop_instance_uid}
