"""What is done in a soak: one association after the other, in a random mixture, of which much goes wrong on purpose."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from support.network import LOOPBACK
from support.objects import SECONDARY_CAPTURE, Sample
from tomowire import (
    Association,
    AssociationError,
    CEchoScu,
    CFindScu,
    CGetScu,
    CMoveScu,
    CStoreScu,
    Destination,
    Find,
    FindAnswers,
    FindRequest,
    Get,
    Move,
    NoAcceptedContext,
    OperationTimeout,
    Peer,
    PeerAddress,
    PeerMisbehaved,
    Query,
    QueryFailed,
    Retrieval,
    RetrieveFailed,
    RetrieveRequest,
    Server,
    Status,
    Storage,
    StoreFailed,
    StoreRequest,
    SubOperationFailed,
    Verification,
    associate,
    getting,
    listen,
    moving,
    querying,
    send_files,
    storage,
    verification,
)
from tomowire.errors import DataSetError
from tomowire.services.dicom_file import DicomFile, inspect
from tomowire.testing import FaultyPeer, FaultySender
from tomowire.testing.samples import sample_match
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN

SHORT = 0.05
LONG = 20.0
"""Seconds for what is meant to be late, and for what must not be."""

EXPECTED = (
    AssociationError,
    DataSetError,
    NoAcceptedContext,
    OperationTimeout,
    PeerMisbehaved,
    QueryFailed,
    RetrieveFailed,
    SubOperationFailed,
)
"""What may come of an association on which something goes wrong. Anything else is a fault of tomowire."""

FAULTS: tuple[Callable[[], FaultyPeer], ...] = (
    FaultyPeer.well_behaved,
    FaultyPeer.resets,
    lambda: FaultyPeer.resets(after_bytes=20_000),
    FaultyPeer.closes,
    lambda: FaultyPeer.closes(after_bytes=500),
    FaultyPeer.stops_reading,
    FaultyPeer.never_answers,
    FaultyPeer.falls_silent,
    lambda: FaultyPeer.answers_late(2 * SHORT),
    lambda: FaultyPeer.trickles(10_000),
    lambda: FaultyPeer.delays(SHORT / 10),
    lambda: FaultyPeer.truncates("association"),
    FaultyPeer.truncates,
    lambda: FaultyPeer.truncates("data set", then="reset"),
    lambda: FaultyPeer.truncates(then="silence"),
    FaultyPeer.rejects,
    FaultyPeer.refuses_contexts,
    FaultyPeer.aborts,
    lambda: FaultyPeer.answers(0x5A5A),
    FaultyPeer.congested,
    FaultyPeer.wrong_message_id,
    FaultyPeer.wrong_response,
    FaultyPeer.answers_twice,
    FaultyPeer.wrong_length,
    FaultyPeer.malformed_command_set,
    FaultyPeer.babbles,
    FaultyPeer.unproposed_transfer_syntax,
    FaultyPeer.unproposed_context,
)


class Handlers:
    """An SCP of everything, whose handlers are not always well either. It keeps nothing."""

    def __init__(self, files: Sequence[DicomFile], chance: random.Random) -> None:
        self._files = files
        self._chance = chance
        self.own_address: PeerAddress | None = None

    @property
    def services(self) -> list[Any]:
        return [
            Verification(),
            Storage(self.keep),
            Find(self.answer),
            Get(self.objects),
            Move(self.objects, self.destination),
        ]

    async def keep(self, request: StoreRequest) -> Status:
        await self._go_wrong(StoreFailed(0xA700, "out of resources"))
        await request.data.pass_over()
        return Status(0x0000)

    async def answer(self, request: FindRequest) -> AsyncIterator[FindAnswers]:
        await self._go_wrong(QueryFailed(0xC000))
        for _ in range(self._chance.randrange(5)):
            yield FindAnswers([sample_match(request.transfer_syntax_uid)] * self._chance.randrange(20))

    async def objects(self, request: RetrieveRequest) -> Retrieval:
        await self._go_wrong(RetrieveFailed(0xC000))
        return Retrieval(len(self._files), self._batches())

    async def _batches(self) -> AsyncIterator[Sequence[DicomFile]]:
        for each in self._files:
            yield [each]

    async def destination(self, request: RetrieveRequest, title: str) -> Destination | None:
        return Destination(self.own_address) if self.own_address is not None else None

    async def _go_wrong(self, refusal: Exception) -> None:
        """Sometimes: refuse, fail, take a while, or wait for ever (until the association is over)."""
        match self._chance.randrange(30):
            case 0:
                raise refusal
            case 1:
                raise ZeroDivisionError
            case 2:
                await asyncio.sleep(SHORT / 5)
            case 3:
                await asyncio.get_running_loop().create_future()


class Work:
    """Does one thing after the other: `await work.turn()` is one association of ours, or a few."""

    def __init__(self, chance: random.Random, files: Sequence[DicomFile], server: Server) -> None:
        self._chance = chance
        self._files = files
        self._address = f"SOAK@{LOOPBACK}:{server.port}"
        self.outcomes: Counter[str] = Counter()
        """How many turns ended how."""

    async def turn(self) -> None:
        """Raises what should not have happened; `TimeoutError` for a turn that does not end."""
        disturbance = self._chance.choice(
            (self._left_alone, self._cancelled, self._against_a_faulty_peer, self._by_a_sender)
        )
        if self._chance.random() < 0.02:
            disturbance = self._on_a_server_of_its_own
        async with asyncio.timeout(3 * LONG):
            await disturbance()

    async def _left_alone(self) -> None:
        # Not longer: some handlers wait for ever.
        await self._counted(self._address, SHORT / 10 if self._chance.random() < 0.2 else 4 * SHORT)

    async def _cancelled(self) -> None:
        task = asyncio.create_task(self._counted(self._address, 4 * SHORT))
        if self._chance.random() < 0.5:
            for _ in range(self._chance.randrange(100)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self._chance.random() * SHORT)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            self.outcomes["cancelled"] += 1
        else:
            task.result()

    async def _against_a_faulty_peer(self) -> None:
        async with self._chance.choice(FAULTS)() as peer:
            await self._counted(peer.address, SHORT)

    async def _by_a_sender(self) -> None:
        sender = FaultySender(sop_class_uid=SECONDARY_CAPTURE, size=self._chance.choice((100, 50_000)), patience=LONG)
        way = self._chance.choice(
            (
                sender.well_behaved,
                sender.resets,
                sender.closes,
                sender.releases_early,
                sender.truncates,
                sender.babbles,
                sender.wrong_length,
                sender.malformed_command_set,
                sender.unknown_command,
                sender.unproposed_context,
            )
        )
        # The handler may be one that waits for ever.
        try:
            async with asyncio.timeout(4 * SHORT):
                await way(self._address)
        except TimeoutError:
            self.outcomes["sender: not answered"] += 1
        else:
            self.outcomes[f"sender: {way.__name__}"] += 1

    async def _on_a_server_of_its_own(self) -> None:
        handlers = Handlers(self._files, self._chance)
        async with listen(LOOPBACK, 0, services=handlers.services, shutdown_grace=SHORT) as server:
            using = asyncio.create_task(self._counted(f"OWN@{LOOPBACK}:{server.port}", 4 * SHORT))
            await asyncio.sleep(self._chance.random() * SHORT)
        await using

    async def _counted(self, address: str, timeout: float) -> None:
        try:
            await self._use(address, timeout)
        except* EXPECTED as group:
            for error in _leaves(group):
                self.outcomes[type(error).__name__] += 1
        else:
            self.outcomes["well"] += 1

    async def _use(self, address: str, timeout: float) -> None:
        if self._chance.random() < 0.3:
            await self._use_peer(address, timeout)
        else:
            async with _associated(address, timeout) as association:
                for use in self._chance.choices((self._echo, self._store, self._find, self._get, self._move), k=2):
                    await use(association, timeout)

    async def _use_peer(self, address: str, timeout: float) -> None:
        async with Peer(address, association_timeout=4 * SHORT, release_timeout=4 * SHORT) as peer:
            match self._chance.randrange(3):
                case 0:
                    await self._echo_in_time(peer, timeout)
                case 1:
                    await self._send_files(address, timeout)
                case _:
                    async for _ in peer.find(Query.studies(), timeout=timeout, grace=SHORT):
                        if self._chance.random() < 0.1:
                            break

    async def _echo_in_time(self, peer: Peer, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await peer.echo()
        except TimeoutError:
            self.outcomes["out of time"] += 1

    async def _send_files(self, address: str, timeout: float) -> None:
        options = {
            "association_timeout": 4 * SHORT,
            "release_timeout": 4 * SHORT,
            "timeout": timeout,
            "retry_waits": (0.0,),
        }
        sending = send_files(address, self._files, associations=self._chance.randrange(1, 3), **options)
        async with aclosing(sending):
            async for sent in sending:
                self.outcomes[f"object {'not ' if sent.is_failure else ''}sent"] += 1

    async def _echo(self, association: Association, timeout: float) -> None:
        await asyncio.gather(
            *(CEchoScu(association).echo(timeout=timeout) for _ in range(self._chance.randrange(1, 4)))
        )

    async def _store(self, association: Association, timeout: float) -> None:
        await CStoreScu(association).send(self._chance.choice(self._files), timeout=timeout)

    async def _find(self, association: Association, timeout: float) -> None:
        await self._iterate(CFindScu(association).find(Query.studies(), timeout=timeout, grace=SHORT))

    async def _get(self, association: Association, timeout: float) -> None:
        await self._iterate(CGetScu(association).get(Query.study("1.2.3"), timeout=timeout, grace=SHORT))

    async def _move(self, association: Association, timeout: float) -> None:
        await self._iterate(CMoveScu(association).move(Query.study("1.2.3"), "SOAK", timeout=timeout, grace=SHORT))

    async def _iterate(self, answers: Any) -> None:
        async with aclosing(answers):
            async for _ in answers:
                if self._chance.random() < 0.05:
                    break


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    return [
        leaf
        for each in group.exceptions
        for leaf in (_leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    ]


@asynccontextmanager
async def _associated(address: str, timeout: float) -> AsyncIterator[Association]:
    async def keep(request: StoreRequest) -> Status:
        await request.data.pass_over()
        return Status(0x0000)

    contexts = [verification(), querying(), moving(), *getting(SECONDARY_CAPTURE), *storage(SECONDARY_CAPTURE)]
    async with associate(
        address,
        contexts,
        association_timeout=4 * SHORT,
        release_timeout=4 * SHORT,
        services=[Storage(keep)],
        performed=4,
    ) as association:
        yield association


def make_files(folder: Path) -> list[DicomFile]:
    """A small object, one that comes in several pieces, and one in between."""
    files = []
    for number, size in enumerate((100, 300_000, 20_000), 1):
        sample = Sample(number, size=size, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)
        path = folder / f"{number}.dcm"
        path.write_bytes(sample.header + sample.data_set)
        files.append(inspect(path))
    return files
