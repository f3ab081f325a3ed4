"""C-GET and C-MOVE with other sides that do anything at any moment: the account is right, and there is always an end.

At every moment remaining, completed, failed and warning come to the number of objects (PS3.7 9.1.3.1.6 to .9); what counts as
completed has arrived; and the Failed SOP Instance UID List names those that failed, each once (PS3.4 C.4.2.1.4.2).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from support.files import write_file
from support.network import LOOPBACK
from support.raw_peer import Closed, RawPeer, Unexpected, message_pdus, raw_acceptor
from support.retrievals import Counts, Requestor, Stock, getting, moving
from tomowire import PeerAddress
from tomowire.services.dicom_file import DicomFile
from tomowire.services.move_scp import Destination
from tomowire.wire.messages import CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AAbort, AReleaseRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

OBJECTS = 24
ALL = {f"1.2.{number}" for number in range(1, OBJECTS + 1)}
SUCCESS, WARNINGS, REFUSALS = 0, (0xB000, 0xB006, 0xB007), (0xA900, 0xC000, 0x0122, 0x0124, 0x7777)
CANCELLED = 0xFE00
UNKNOWN_CONTEXT = b"\x04\0\0\0\0\x06\0\0\0\x02\x05\x03"
ABORT = AAbort(0, 0)


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(1, OBJECTS + 1)]


class Rough:
    """Answers C-STORE requests as chance has it, and remembers what it has said of each object at last.

    Over several `associations` what it refuses comes once more: it may be one that does not bear them.
    """

    def __init__(self, chance: random.Random, *, cancel_at: int | None, associations: int = 1) -> None:
        self.chance = chance
        self.said: dict[str, int] = {}
        self._again: set[str] = set()
        self._associations = associations
        self.cancel: Callable[[], Awaitable[None]] | None = None
        self._cancel_at = cancel_at

    async def answer(self, peer: RawPeer, context_id: int, request: CStoreRQ) -> None:
        chance, uid = self.chance, request.affected_sop_instance_uid
        if (before := self.said.get(uid)) is not None:
            assert self._associations > 1, "an object was sent again that had been answered"
            assert before in REFUSALS, "an object was sent again that had been stored"
            assert uid not in self._again, "an object was sent again more than once"
            self._again.add(uid)
        (status,) = chance.choices([SUCCESS, chance.choice(WARNINGS), chance.choice(REFUSALS)], [6, 1, 2])
        self.said[uid] = status
        response = CStoreRSP(
            message_id_being_responded_to=request.message_id,
            affected_sop_class_uid=request.affected_sop_class_uid,
            affected_sop_instance_uid=chance.choice([uid, uid, None, "1.2.3.4"]),  # optional, and not always right
            status=status,
        )
        if len(self.said) == self._cancel_at and self.cancel is not None:
            await self.cancel()
        await peer.send(message_pdus(context_id, response))

    def count(self, *statuses: int) -> int:
        return sum(status in statuses for status in self.said.values())


async def play_destination(peer: RawPeer, rough: Rough, leaves: float) -> None:
    """One association: in the middle of it the peer may be gone, abort, or send what is no answer."""
    chance = rough.chance
    if chance.random() < leaves:
        await peer.reject()
        return
    await peer.accept()
    while True:
        try:
            message = await peer.read_message()
        except Unexpected as unexpected:
            assert isinstance(unexpected.pdu, AReleaseRQ | AAbort)
            return  # without an answer
        except (Closed, ConnectionError):
            return
        assert isinstance(message.command, CStoreRQ)
        if chance.random() < leaves:
            nonsense: list[bytes | AAbort] = [b"", ABORT, UNKNOWN_CONTEXT, b"\x42" + chance.randbytes(29)]
            await peer.send(chance.choice(nonsense))
            return
        await rough.answer(peer, message.context_id, message.command)


def check(requestor: Requestor, end: Counts, failed: list[str], rough: Rough) -> None:
    told = [*requestor.pending, *([end] if end.status == CANCELLED else [])]
    remaining = OBJECTS
    for each in told:
        assert each.remaining is not None
        assert each.remaining + (each.completed or 0) + (each.failed or 0) + (each.warning or 0) == OBJECTS
        assert each.remaining <= remaining
        remaining = each.remaining
    assert (end.completed, end.warning) == (rough.count(SUCCESS), rough.count(*WARNINGS))
    refused = {uid for uid, status in rough.said.items() if status in REFUSALS}
    assert len(failed) == len(set(failed)) == end.failed
    assert set(failed) >= refused
    if end.status != CANCELLED:
        assert end.remaining is None
        assert set(failed) == refused | (ALL - rough.said.keys())
        assert end.status == (0 if end.completed == OBJECTS else 0xA702 if end.failed == OBJECTS else 0xB000)


@pytest.mark.parametrize("seed", range(20))
async def test_a_destination_that_does_anything(files: list[DicomFile], seed: int) -> None:
    chance = random.Random(seed)
    leaves = chance.choice([0.0, 0.05, 0.3, 1.0])
    cancel_at, associations = chance.choice([None, chance.randrange(1, OBJECTS)]), chance.choice([1, 3])
    rough = Rough(chance, cancel_at=cancel_at, associations=associations)

    async def script(peer: RawPeer) -> None:
        await play_destination(peer, rough, leaves)

    async with raw_acceptor(script) as port:
        destination = Destination(PeerAddress("DEST", LOOPBACK, port), associations, options={"retry_waits": (0.0,)})
        async with moving(Stock(files, batch=chance.choice([1, 7, 100])), destination, timeout=10) as requestor:
            rough.cancel = requestor.cancel
            await requestor.move()
            check(requestor, *(await requestor.take_all())[:2], rough)
            await requestor.peer.release()


@pytest.mark.parametrize("seed", range(10))
async def test_a_requestor_that_answers_anything(files: list[DicomFile], seed: int) -> None:
    chance = random.Random(seed)
    rough = Rough(chance, cancel_at=chance.choice([None, chance.randrange(1, OBJECTS)]))
    window = chance.choice([None, (1, 4)])
    async with getting(Stock(files, batch=chance.choice([1, 7, 100])), window=window) as requestor:
        rough.cancel = requestor.cancel
        await requestor.get()
        check(requestor, *(await requestor.take_all(answer=rough.answer))[:2], rough)
        await requestor.peer.release()
