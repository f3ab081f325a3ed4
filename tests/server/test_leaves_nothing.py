"""An archive that has served associations knows nothing of them any more."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from support.filled import fill, small_hospital
from support.network import LOOPBACK
from support.objects import ROOT
from support.raw_peer import RawPeer
from support.receiver import Receiver, write_samples
from tomowire import Peer, Query, Storage, listen
from tomowire.aio.association import Association
from tomowire.server.app import Archive, Settings
from tomowire.server.nodes import Node

pytestmark = pytest.mark.usefixtures("no_leaks")

ROUNDS = 3


def associations_alive() -> int:
    gc.collect()
    return sum(isinstance(each, Association) for each in gc.get_objects())


async def use(archive: Archive, folder: Path, number: int) -> None:
    """Everything that the archive keeps an account of: objects, queries, retrievals, and a connection that comes to nothing."""
    write_samples(folder, 2, first=100 + 10 * number)
    async with Peer(f"TOMOWIRE@{LOOPBACK}:{archive.port}") as peer:
        assert [sent.outcome async for sent in peer.send(folder)]
        assert [study async for study in peer.find(Query.studies())]
        assert [each async for each in peer.get(Query.study(f"{ROOT}.1.1"), folder / "got")]
        assert [each async for each in peer.move(Query.study(f"{ROOT}.1.1"), "DESTINATION")]
    async with await RawPeer.connect(archive.port) as nobody:
        await nobody.send(b"GET / HTTP/1.1\r\n\r\n")


async def test_no_association_is_kept(tmp_path: Path) -> None:
    """Not by the counts of its objects, nor by those of its retrievals."""
    await fill(tmp_path / "archive", small_hospital())
    receiver = Receiver()
    async with listen(LOOPBACK, 0, services=[Storage(receiver.keep)]) as destination:
        receiver.server = destination
        nodes = (Node("DESTINATION", LOOPBACK, destination.port),)
        async with Archive(Settings(tmp_path / "archive", port=0, nodes=nodes)) as archive:
            for number in range(ROUNDS):
                await use(archive, tmp_path / f"{number}", number)
    assert associations_alive() == 0
