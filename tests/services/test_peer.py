"""`Peer`: what a newcomer meets first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.network import LOOPBACK, free_port
from support.objects import Sample
from tomowire import (
    AssociationRejected,
    ConnectFailed,
    NoAcceptedContext,
    Peer,
    PeerAddress,
    Server,
    Status,
    Storage,
    StoreRequest,
    UsageError,
    Verification,
    listen,
)
from tomowire.errors import FileFormatError


class Receiver:
    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}
        self.callers: list[str] = []
        self.refuse: set[str] = set()
        self.wait = asyncio.Event()
        self.wait.set()

    async def keep(self, request: StoreRequest) -> Status:
        self.callers.append(request.association.calling_ae_title)
        await self.wait.wait()
        self.received[request.sop_instance_uid] = await request.data.read()
        return Status(0xA700 if request.sop_instance_uid in self.refuse else 0)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def server(no_leaks: None, receiver: Receiver) -> AsyncIterator[Server]:
    async with listen(LOOPBACK, 0, services=[Verification(), Storage(receiver.keep)], aet="ARCHIVE") as server:
        yield server


@pytest.fixture
def scans(tmp_path: Path) -> list[Sample]:
    samples = [Sample(number) for number in range(1, 21)]
    for sample in samples:
        folder = tmp_path / "scans" / str(sample.number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    (tmp_path / "scans" / "notes.txt").write_text("not an image")
    return samples


async def test_echo(server: Server) -> None:
    async with Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer:
        assert await peer.echo() == 0
        assert (await peer.echo()).is_success


async def test_send_tells_of_each_file(server: Server, receiver: Receiver, scans: list[Sample], tmp_path: Path) -> None:
    receiver.refuse = {scans[3].uid}
    async with Peer(PeerAddress("ARCHIVE", LOOPBACK, server.port), aet="WORKSTATION") as peer:
        results = {sent.path: sent async for sent in peer.send(tmp_path / "scans", retries=0)}
    assert set(results) == set((tmp_path / "scans").rglob("*.dcm"))
    assert receiver.received == {sample.uid: sample.data_set for sample in scans}
    assert set(receiver.callers) == {"WORKSTATION"}
    failed = [sent for sent in results.values() if sent.is_failure]
    assert [(sent.file.sop_instance_uid, sent.status) for sent in failed] == [(scans[3].uid, 0xA700)]


async def test_send_over_several_associations_takes_files_and_folders(
    server: Server, receiver: Receiver, scans: list[Sample], tmp_path: Path
) -> None:
    peer = Peer(f"ARCHIVE@{LOOPBACK}:{server.port}")
    paths = (str(tmp_path / "scans" / "0"), tmp_path / "scans" / "1" / "1.dcm")
    statuses = [sent.status async for sent in peer.send(*paths, associations=3)]
    assert statuses == [0] * 7


async def test_an_iteration_that_is_left_early_leaves_nothing_behind(
    server: Server, receiver: Receiver, scans: list[Sample], tmp_path: Path
) -> None:
    async with Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer:
        async for _ in peer.send(tmp_path / "scans"):
            receiver.wait.clear()
            break
    receiver.wait.set()
    assert len(receiver.received) < len(scans)


async def test_what_goes_wrong_with_the_association_is_the_error_of_the_files(
    scans: list[Sample], tmp_path: Path
) -> None:
    port = free_port()
    async with Peer(f"ARCHIVE@{LOOPBACK}:{port}") as peer:
        with pytest.raises(ConnectFailed):
            await peer.echo()
        results = [sent async for sent in peer.send(tmp_path / "scans")]
    assert len(results) == len(scans)
    assert all(isinstance(sent.error, ConnectFailed) and sent.status is None and sent.is_failure for sent in results)


async def test_options_reach_the_association(server: Server, scans: list[Sample], tmp_path: Path) -> None:
    stranger = Peer(f"OTHER@{LOOPBACK}:{server.port}", association_timeout=5.0)
    with pytest.raises(AssociationRejected) as rejected:
        await stranger.echo()
    assert (rejected.value.result, rejected.value.source, rejected.value.reason) == (1, 1, 7)
    with pytest.raises(TypeError, match="no_such_option"):
        await Peer(f"ARCHIVE@{LOOPBACK}:{server.port}", no_such_option=1).echo()


async def test_nothing_that_was_named_is_passed_over_in_silence(
    server: Server, receiver: Receiver, scans: list[Sample], tmp_path: Path
) -> None:
    folder = tmp_path / "scans"
    (folder / "damaged.dcm").write_bytes(scans[0].header[:180])
    named = (tmp_path / "missing", folder / "notes.txt", folder)
    async with Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer:
        results = {sent.path: sent async for sent in peer.send(*named)}
    failed = {path: sent.error for path, sent in results.items() if sent.is_failure}
    assert failed.keys() == {tmp_path / "missing", folder / "notes.txt", folder / "damaged.dcm"}
    assert isinstance(failed[tmp_path / "missing"], FileNotFoundError)
    assert isinstance(failed[folder / "notes.txt"], FileFormatError)
    assert "ends inside its file meta" in str(failed[folder / "damaged.dcm"])
    assert {str(sent.outcome) for sent in results.values() if not sent.is_failure} == {"0000H (success)"}
    assert receiver.received.keys() == {sample.uid for sample in scans}


async def test_a_peer_without_storage(scans: list[Sample], tmp_path: Path) -> None:
    async with listen(LOOPBACK, 0, services=[Verification()]) as server, Peer(f"X@{LOOPBACK}:{server.port}") as peer:
        results = [sent async for sent in peer.send(tmp_path / "scans")]
    assert len(results) == len(scans)
    assert all(isinstance(sent.error, NoAcceptedContext) for sent in results)


@pytest.mark.parametrize(
    ("address", "aet"), [("localhost:104", "ME"), ("A@localhost:0", "ME"), ("A@localhost", ""), ("A@localhost", "\\")]
)
def test_mistakes_are_seen_at_once(address: str, aet: str) -> None:
    with pytest.raises(UsageError):
        Peer(address, aet=aet)
