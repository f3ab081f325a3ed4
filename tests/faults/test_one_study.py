"""One study, stored, replaced, asked for and retrieved over twenty associations at once, and the archive killed in between.

Afterwards the index and the files agree, each object is the one that got Success last (or the one that was on its way), and nobody
was ever given an object that is a mixture of two.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest

from support.filesystems import quick_directory
from support.network import LOOPBACK
from support.objects import Sample
from support.programs import Program, start
from support.stored import contents, findings
from tomowire import CFindScu, CGetScu, CStoreScu, PeerAddress, Query, associate, storage
from tomowire.errors import AssociationError, SubOperationFailed
from tomowire.server.findings import FindingKind
from tomowire.services.get import Receiver, getting
from tomowire.services.models import querying
from tomowire.services.storage_scp import StoreRequest

CLASS = "Secondary Capture Image Storage"
STORERS, QUERIERS, GETTERS = 8, 6, 6
OBJECTS, SERIES = 48, 3
SIZES = (64, 5_000, 70_000, 300_000)
ROUNDS, ACKNOWLEDGED_IN_A_ROUND = 2, 100


def sample(number: int, version: int) -> Sample:
    return Sample(number, number % SERIES + 1, content=f"version {version}", size=SIZES[number % len(SIZES)])


@dataclass
class Study:
    """What has been sent of each object, and what of it got Success last."""

    sent: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    retrieved: int = 0
    answers: int = 0
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: int = 0

    def store(self, each: Sample) -> bytes:
        self.sent[each.uid].append(each.data_set)
        return each.header + each.data_set

    def stored(self, each: Sample) -> None:
        self.acknowledged[each.uid] = each.data_set
        self.wanted -= 1
        if self.wanted <= 0 and self.retrieved and self.answers:
            self.enough.set()

    def check(self, root: Path) -> None:
        held = contents(root)
        assert held.keys() <= self.sent.keys()
        for uid, data_set in self.acknowledged.items():
            # The last to be sent may have been stored without anybody's having been told.
            assert held[uid] in (data_set, self.sent[uid][-1])


async def store(peer: PeerAddress, study: Study, own: int, first_version: int) -> None:
    """Objects of one's own, again and again, each time with other content."""
    async with associate(peer, storage(CLASS)) as association:
        scu = CStoreScu(association)
        for version in range(first_version, first_version + 1000):
            for number in range(own, OBJECTS, STORERS):
                each = sample(number, version)
                response = await scu.send(BytesIO(study.store(each)), retries=0)
                assert response.is_success, response
                study.stored(each)


async def ask(peer: PeerAddress, study: Study) -> None:
    async with associate(peer, [querying()]) as association:
        while True:
            for series in range(1, SERIES + 1):
                query = Query.images(sample(0, 0).study_uid, sample(series - 1, 0).series_uid)
                found = [str(each.SOPInstanceUID) async for each in CFindScu(association).find(query, timeout=30)]
                assert len(set(found)) == len(found) <= OBJECTS // SERIES
                assert set(found) <= study.sent.keys()
                study.answers += len(found)


async def retrieve(peer: PeerAddress, study: Study) -> None:
    async def keep(request: StoreRequest) -> int:
        data = await request.data.read()
        assert data in study.sent[request.sop_instance_uid]
        study.retrieved += 1
        return 0

    receiver = Receiver(keep)
    async with associate(peer, getting(CLASS), services=[receiver]) as association:
        while True:
            try:
                async with aclosing(
                    CGetScu(association, receiver).get(Query.study(sample(0, 0).study_uid))
                ) as progress:
                    async for _ in progress:
                        pass
            except* SubOperationFailed:  # replaced between being found and being read
                pass


async def until_killed(program: Program, study: Study, round_: int) -> None:
    peer = PeerAddress("TOMOWIRE", LOOPBACK, program.port)
    work = [
        *(store(peer, study, own, 1000 * round_) for own in range(STORERS)),
        *(ask(peer, study) for _ in range(QUERIERS)),
        *(retrieve(peer, study) for _ in range(GETTERS)),
    ]
    tasks = [asyncio.create_task(each) for each in work]
    enough = asyncio.create_task(study.enough.wait())
    try:
        async with asyncio.timeout(60):
            await asyncio.wait([*tasks, enough], return_when=asyncio.FIRST_COMPLETED)
        assert enough.done() or [task.result() for task in tasks if task.done()]
        program.process.kill()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        enough.cancel()
        program.process.kill()
        program.process.wait()
    for error in results:
        if not isinstance(error, AssociationError):
            assert isinstance(error, BaseException)
            raise error


def started(data_dir: Path) -> Program:
    program = start(["serve", "--data-dir", data_dir, "--duplicates", "replace", "--port", "0"])
    program.wait_until_listening()
    return program


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with quick_directory() as folder:
        yield folder / "data"


async def test_twenty_at_one_study_and_a_kill(data_dir: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    study = Study()
    for round_ in range(ROUNDS):
        program = await asyncio.to_thread(started, data_dir)
        study.enough.clear()
        study.wanted = chance.randrange(1, ACKNOWLEDGED_IN_A_ROUND)
        await until_killed(program, study, round_)
        study.check(data_dir)
        assert {each.kind for each in findings(data_dir)} <= {FindingKind.UNFINISHED}, seed
    program = await asyncio.to_thread(started, data_dir)
    assert await asyncio.to_thread(program.end) == 0
    study.check(data_dir)
    assert findings(data_dir) == []
