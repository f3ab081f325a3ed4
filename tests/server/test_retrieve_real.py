"""Real objects of many kinds: stored, found, and retrieved as they were, byte for byte."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.filesystems import quick_directory
from support.network import LOOPBACK, free_port
from support.stored import contents
from tomowire import CGetScu, Peer, Query, Status, Storage, StoreRequest, associate, getting, listen
from tomowire.protocol.negotiation import ProposedContext
from tomowire.server.app import Archive, Settings
from tomowire.server.nodes import Node
from tomowire.services.dicom_file import DicomFile, inspect

LEFT_OUT = {"fuzz-pwnlab", "bulk-studyforrest", "dcm_qa_nih"}
"""Broken ones, and long series of one scanner."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as made:
        yield made


class Kept:
    """What came, by SOP Instance UID: the transfer syntax and the data set."""

    def __init__(self) -> None:
        self.data_sets: dict[str, bytes] = {}
        self.transfer_syntaxes: set[str] = set()
        self.sop_classes: set[str] = set()

    async def keep(self, request: StoreRequest) -> Status:
        self.data_sets[request.sop_instance_uid] = await request.data.read()
        self.transfer_syntaxes.add(request.transfer_syntax_uid)
        self.sop_classes.add(request.sop_class_uid)
        return Status(0)


@asynccontextmanager
async def filled(directory: Path, shared_data: Path, *nodes: Node) -> AsyncIterator[tuple[Peer, dict[str, bytes]]]:
    """An archive with the real objects, as a peer, and the data sets that it has, with the byte that one of odd length lacks."""
    folders = [shared_data / name for name in os.listdir(shared_data) if "." not in name and name not in LEFT_OUT]
    async with (
        Archive(Settings(directory, port=0, nodes=nodes, any_sop_class=True)) as archive,
        Peer(f"TOMOWIRE@{LOOPBACK}:{archive.port}") as peer,
    ):
        async for _ in peer.send(*folders):
            pass
        stored = {uid: data + b"\0" * (len(data) % 2) for uid, data in contents(directory).items()}
        assert len(stored) > 70
        yield peer, stored


async def test_c_get_of_everything(no_leaks: None, shared_data: Path, directory: Path) -> None:
    """With a presentation context for every pair of SOP class and transfer syntax that there is."""
    kept = Kept()
    async with filled(directory, shared_data) as (peer, stored):
        pairs = {(each.sop_class_uid, each.transfer_syntax_uid) for each in files_of(directory)}
        contexts = [ProposedContext(sop_class, (syntax,), scu=False, scp=True) for sop_class, syntax in sorted(pairs)]
        query = Query.studies().study_uid(*[study.StudyInstanceUID async for study in peer.find(Query.studies())])
        async with associate(
            peer.address, [*getting(), *contexts], services=[Storage(kept.keep, any_sop_class=True)]
        ) as association:
            progress = [each async for each in CGetScu(association).get(query)]
    assert kept.data_sets == stored
    assert len(kept.transfer_syntaxes) > 10
    assert len(kept.sop_classes) > 15
    assert (progress[-1].completed, progress[-1].failed, progress[-1].warning) == (len(stored), 0, 0)


def files_of(directory: Path) -> list[DicomFile]:
    return [inspect(path) for path in directory.rglob("*.dcm")]


async def test_c_move_of_everything(no_leaks: None, shared_data: Path, directory: Path) -> None:
    kept = Kept()
    port = free_port()
    async with (
        listen(LOOPBACK, port, aet="RECEIVER", services=[Storage(kept.keep, any_sop_class=True)]),
        filled(directory, shared_data, Node("RECEIVER", LOOPBACK, port, 2)) as (peer, stored),
    ):
        progress = [each async for each in peer.move(Query.studies(), "RECEIVER")]
    assert kept.data_sets == stored
    assert (progress[-1].completed, progress[-1].failed, progress[-1].warning) == (len(stored), 0, 0)
