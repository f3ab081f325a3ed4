"""Sending to peers that do anything at any moment: each object has exactly one outcome, Success only if the peer said so."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from support.files import write_file
from support.network import LOOPBACK
from support.raw_peer import RELEASE_RP, RELEASE_RQ, Closed, RawMessage, RawPeer, Unexpected, command_pdu, raw_acceptor
from tomowire import Peer, Timeouts
from tomowire.aio.address import PeerAddress
from tomowire.services import retrying
from tomowire.services.adapting import AdaptivePace
from tomowire.services.dicom_file import DicomFile
from tomowire.services.sending import Sent, send_files
from tomowire.wire.messages import CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AAbort, AAssociateRJ

pytestmark = pytest.mark.usefixtures("no_leaks")

LIMITS = Timeouts(store=0.3, association=0.5, release=0.3, artim=0.2)


class Wild:
    """Does what is right, and up to so many times what is wrong, by chance; remembers what it was asked and what it answered."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.window = chance.choice([1, 4, 16])
        self.faults = chance.choice([0, 3, 10, 40])
        self.asked: Counter[str] = Counter()
        self.taken: set[str] = set()

    def is_wrong(self, how_often: float) -> bool:
        if self.faults and self.chance.random() < how_often:
            self.faults -= 1
            return True
        return False

    async def __call__(self, peer: RawPeer) -> None:
        with suppress(Closed, ConnectionError):
            if self.is_wrong(0.15):
                await self.do_not_open(peer)
                return
            await peer.accept(window=(self.window, 1))
            while True:
                try:
                    message = await peer.read_message()
                except Unexpected:
                    await peer.send(RELEASE_RP)
                    return
                self.asked[_uid(message)] += 1
                if self.is_wrong(0.08):
                    await self.end(peer, message)
                    return
                await self.answer(peer, message)

    async def do_not_open(self, peer: RawPeer) -> None:
        how = self.chance.randrange(4)
        if how == 0:
            peer.reset()
            return
        await peer.read_pdu()
        if how == 1:
            await peer.send(AAssociateRJ(2, 3, 2))
            await peer.read_until_closed()
        elif how == 2:
            await peer.send(AAbort(2, 0))

    async def answer(self, peer: RawPeer, message: RawMessage) -> None:
        status = self.chance.choice([0] * 20 + [0xA700, 0xC000])
        if not status:
            self.taken.add(_uid(message))
        await peer.send(_answer(message, status))

    async def end(self, peer: RawPeer, message: RawMessage) -> None:
        how = self.chance.randrange(7)
        if how == 0:
            peer.reset()
        elif how == 1:
            await peer.send(AAbort(0, 0))
        elif how == 2:  # the answer to another message
            await peer.send(_answer(message, 0, message_id=60_000))
            await peer.read_until_closed()
        elif how == 3:  # a part of the answer
            answer = _answer(message, 0)
            await peer.send(answer[: self.chance.randrange(1, len(answer))])
        elif how == 4:
            await peer.send(RELEASE_RQ)
            await peer.read_until_closed()
        elif how == 5:  # no answer
            await peer.read_until_closed()


def _uid(message: RawMessage) -> str:
    assert isinstance(message.command, CStoreRQ)
    return message.command.affected_sop_instance_uid


def _answer(message: RawMessage, status: int, message_id: int | None = None) -> bytes:
    assert isinstance(message.command, CStoreRQ)
    answered = message.command.message_id if message_id is None else message_id
    return command_pdu(message.context_id, CStoreRSP(message_id_being_responded_to=answered, status=status))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[DicomFile]:
    monkeypatch.setattr(retrying, "_FIRST_WAIT", 0.01)
    return [write_file(tmp_path, number, bytes((10, 1000, 200_000)[number % 3])) for number in range(30)]


async def sending(port: int, files: list[DicomFile], retries: int, chance: random.Random) -> AsyncGenerator[Sent, None]:
    options: dict[str, Any] = {"associations": chance.choice([1, 3])}
    address = PeerAddress("ANY", LOOPBACK, port)
    if chance.random() < 0.5:
        if chance.random() < 0.5 and retries:
            options["associations"] = AdaptivePace(4)
        results = send_files(
            address,
            files,
            retry_waits=retrying.retry_waits(retries),
            timeout=LIMITS.store,
            **LIMITS.for_association,
            **options,
        )
        async with aclosing(results):
            async for sent in results:
                yield sent
        return
    things = [file.path for file in files]
    given = things if chance.random() < 0.5 else [(each for each in things)]
    async with (
        Peer(address, timeouts=LIMITS) as peer,
        aclosing(peer.send(*given, retries=retries, **options)) as results,
    ):
        async for sent in results:
            yield sent


@pytest.mark.parametrize("seed", range(24))
async def test_each_object_has_one_outcome_whatever_the_peer_does(files: list[DicomFile], seed: int) -> None:
    """A third of the runs are cancelled, and a third left, at any moment: then no outcome is told twice, and nothing stays."""
    chance = random.Random(seed)
    peer, retries, told = Wild(chance), chance.choice([0, 1, 3]), list[Sent]()
    leave_after = chance.randrange(1, 30) if seed % 3 == 1 else None

    async def run(port: int) -> None:
        async with aclosing(sending(port, files, retries, chance)) as results:
            async for sent in results:
                told.append(sent)
                if len(told) == leave_after:
                    return

    async with asyncio.timeout(60), raw_acceptor(peer) as port:
        running = asyncio.create_task(run(port))
        if seed % 3 == 2:
            await asyncio.wait([running], timeout=chance.random() * 0.3)
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert not [task for task in asyncio.all_tasks() if "_lane" in str(task.get_coro())]
    uids = [sent.sop_instance_uid for sent in told]
    assert len(uids) == len(set(uids))
    if seed % 3 == 0:
        assert set(uids) == {file.sop_instance_uid for file in files}
    assert {sent.sop_instance_uid for sent in told if sent.status == 0} <= peer.taken
    if not retries:
        assert max(peer.asked.values(), default=0) <= 1
