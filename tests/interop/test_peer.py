"""A `Peer` with other people's programs: what it keeps between calls, and what they think of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset

from support.dcmqrscp import dcmqrscp
from support.dcmtk import objects_below, storescp
from support.files import write_file
from support.network import LOOPBACK, free_port
from support.objects import Sample
from support.raw_peer import CT
from tomowire import Model, Peer, Query, Retrieved
from tomowire.services.adapting import AUTO

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]


def test_everything_over_the_associations_of_one_block(dcmtk: Callable[[str], Path], tmp_path: Path) -> None:
    """DCMTK's archive: C-ECHO, C-STORE, C-FIND and C-GET in turns, each kind on an association that was opened once."""
    samples = [Sample(number, study=number) for number in (1, 2, 3)]

    async def use(address: str) -> None:
        async with Peer(address) as peer:
            for number in (1, 2, 3):
                assert await peer.echo() == 0
                found = [each.StudyInstanceUID async for each in peer.find(Query.studies())]
                assert len(found) == len(samples) + number - 1
                new = write_new(tmp_path, 100 + number)
                assert [sent.status async for sent in peer.send(new)] == [0]
                got = [each async for each in peer.get(Query.study(samples[number - 1].study_uid), tmp_path / "got")]
                assert [each.status for each in got if isinstance(each, Retrieved)] == [0]
            assert 3 <= len(peer._pool._unused) <= 4

    with dcmqrscp(dcmtk("dcmqrscp"), tmp_path, samples, free_port()) as address:
        asyncio.run(use(address))
        log = (tmp_path / "log").read_text(errors="replace")
    assert "Association Aborted" not in log


def write_new(folder: Path, number: int) -> Path:
    sample = Sample(number, study=number)
    path = folder / f"new{number}.dcm"
    path.write_bytes(sample.header + sample.data_set)
    return path


@pytest.mark.parametrize("associations", [1, 3, AUTO])
def test_a_receiver_that_serves_one_association_at_a_time(
    dcmtk: Callable[[str], Path], tmp_path: Path, associations: Any
) -> None:
    """DCMTK's `storescp` leaves another association waiting until the one before is over: what is unused must give way."""
    files = [write_file(tmp_path, number) for number in range(1, 41)]

    async def use(port: int) -> None:
        async with Peer(f"STORESCP@{LOOPBACK}:{port}", association_timeout=20.0) as peer:
            for _ in range(2):
                assert await peer.echo() == 0
                results = [sent async for sent in peer.send([file.path for file in files], associations=associations)]
                assert [sent.status for sent in results] == [0] * len(files)

    with storescp(dcmtk("storescp"), tmp_path / "received") as port:
        asyncio.run(asyncio.wait_for(use(port), 60))
    assert len({each.sop_instance_uid for each in objects_below(tmp_path / "received")}) == len(files)


@asynccontextmanager
async def pynetdicom_scp(module: ModuleType, **settings: Any) -> AsyncIterator[tuple[str, list[str]]]:
    """An SCP for C-ECHO, C-STORE and C-FIND; gives its address, and the list of what has happened to associations."""
    happened: list[str] = []
    events = module.evt
    entity = module.AE("PEER")
    for name, setting in settings.items():
        setattr(entity, name, setting)
    for context in (module.sop_class.Verification, CT, Model.STUDY_ROOT.find):
        entity.add_supported_context(context)

    def find(_: Any) -> Any:
        answer = Dataset()
        answer.QueryRetrieveLevel, answer.StudyInstanceUID = "STUDY", "1.2.3"
        yield 0xFF00, answer

    handlers = [
        (events.EVT_C_STORE, lambda _: 0),
        (events.EVT_C_FIND, find),
        (events.EVT_ESTABLISHED, lambda _: happened.append("established")),
        (events.EVT_RELEASED, lambda _: happened.append("released")),
        (events.EVT_ABORTED, lambda _: happened.append("aborted")),
    ]
    port = free_port()
    server = entity.start_server((LOOPBACK, port), block=False, evt_handlers=handlers)
    try:
        yield f"PEER@{LOOPBACK}:{port}", happened
    finally:
        await asyncio.to_thread(server.shutdown)


async def test_a_server_of_pynetdicom_sees_each_association_released(pynetdicom: ModuleType, tmp_path: Path) -> None:
    file = write_file(tmp_path, 1)
    async with pynetdicom_scp(pynetdicom) as (address, happened):
        async with Peer(address) as peer:
            for _ in range(3):
                assert await peer.echo() == 0
                assert [sent.status async for sent in peer.send(file.path)] == [0]
                assert [each.StudyInstanceUID async for each in peer.find(Query.studies())] == ["1.2.3"]
        async with asyncio.timeout(10):
            while happened.count("released") < 3:  # noqa: ASYNC110 - it tells in a thread of its own
                await asyncio.sleep(0.01)
    assert sorted(happened) == ["established"] * 3 + ["released"] * 3


async def test_a_server_of_pynetdicom_that_ends_idle_associations(pynetdicom: ModuleType) -> None:
    async with pynetdicom_scp(pynetdicom, network_timeout=0.3) as (address, happened), Peer(address) as peer:
        for number in (1, 2, 3):
            assert await peer.echo() == 0
            async with asyncio.timeout(20):
                while happened.count("aborted") < number:  # noqa: ASYNC110 - it tells in a thread of its own
                    await asyncio.sleep(0.01)


async def test_a_server_of_pynetdicom_that_takes_one_association(pynetdicom: ModuleType, tmp_path: Path) -> None:
    files = [write_file(tmp_path, number) for number in range(1, 31)]
    async with pynetdicom_scp(pynetdicom, maximum_associations=1) as (address, _), Peer(address) as peer:
        for _ in range(2):
            assert await peer.echo() == 0
            async with asyncio.timeout(60):
                results = [sent async for sent in peer.send([file.path for file in files], associations=AUTO)]
            assert [sent.status for sent in results] == [0] * len(files)
