"""`Folder`: received objects become files, whole or not at all."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydicom import dcmread

from support.dcmtk import read_object
from support.filesystems import directory_of_nobody, tiny_disk
from support.network import LOOPBACK
from support.objects import SECONDARY_CAPTURE, Sample
from support.raw_peer import RawPeer, associate_rq, message_pdus, store_rq
from support.subprocesses import python_environment
from tomowire import Folder, Peer, Server, Storage, listen
from tomowire.services.folder import Kept
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ

STORAGE = PresentationContextRQ(1, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
LARGE = 3_000_000  # comes in several chunks


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Folder]:
    folder = Folder(tmp_path / "received")
    yield folder
    folder.close()
    assert [path for path in (tmp_path / "received").iterdir() if path.name.startswith(".")] == []


def receiver(folder: Folder) -> Server:
    return listen(LOOPBACK, 0, services=[Storage(folder.keep)], shutdown_grace=0)


def write(at: Path, *samples: Sample) -> list[Path]:
    at.mkdir(exist_ok=True)
    paths = [at / f"{sample.number}.dcm" for sample in samples]
    for path, sample in zip(paths, samples, strict=True):
        path.write_bytes(sample.header + sample.data_set)
    return paths


async def send(server: Server, at: Path, *samples: Sample) -> list[int | None]:
    async with Peer(f"ANY@{LOOPBACK}:{server.port}", aet="MODALITY", window=1) as peer:
        return [sent.status async for sent in peer.send(*write(at, *samples), retries=0)]


@pytest.mark.parametrize("size", [64, LARGE])
async def test_a_file_holds_what_came_and_says_where_from(folder: Folder, tmp_path: Path, size: int) -> None:
    sample = Sample(1, size=size)
    async with receiver(folder) as server:
        assert await send(server, tmp_path / "sent", sample) == [0]
    path = folder.path / f"{sample.uid}.dcm"
    assert read_object(path).data_set == sample.data_set
    meta = dcmread(path).file_meta
    assert meta.MediaStorageSOPInstanceUID == sample.uid
    assert meta.MediaStorageSOPClassUID == SECONDARY_CAPTURE
    assert meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN
    assert meta.SourceApplicationEntityTitle == "MODALITY"
    assert meta.ImplementationVersionName.startswith("TOMOWIRE")


async def test_names_are_the_callers_and_a_file_of_that_name_is_replaced(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "received", name=lambda request, first: f"{first.nbytes}/{request.transfer_syntax_uid}")
    first, second = Sample(1, content="first"), Sample(1, content="other")
    async with receiver(folder) as server:
        assert await send(server, tmp_path / "sent", first) == [0]
        assert await send(server, tmp_path / "sent", second) == [0]
    folder.close()
    path = folder.path / str(len(first.data_set)) / EXPLICIT_VR_LITTLE_ENDIAN
    assert read_object(path).data_set == second.data_set
    assert len(list(folder.path.rglob("*"))) == 2


@pytest.mark.parametrize("size", [64, LARGE])
async def test_a_lost_connection_leaves_nothing(folder: Folder, size: int) -> None:
    sample = Sample(1, size=size)
    request = store_rq(instance=sample.uid, sop_class=SECONDARY_CAPTURE)
    pdus = message_pdus(1, request, sample.data_set, fragment=len(sample.data_set) // 30)
    async with receiver(folder) as server:
        async with await RawPeer.connect(server.port) as peer:
            await peer.associate(associate_rq(STORAGE))
            await peer.send(pdus[: len(pdus) * 3 // 4])
            peer.reset()
        async with await RawPeer.connect(server.port) as peer:  # others go on
            await peer.associate(associate_rq(STORAGE))
            await peer.release()
    assert [path for path in folder.path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("size", [64, LARGE])
async def test_a_full_disk_is_a700_and_the_next_object_is_taken_when_there_is_room(tmp_path: Path, size: int) -> None:
    sample, other = Sample(1, size=size), Sample(2)
    with tiny_disk(tmp_path / "disk", 4_000_000) as disk:
        folder = Folder(disk / "received")
        (disk / "ballast").write_bytes(bytes(3_930_000))
        fill(disk / "rest")
        async with receiver(folder) as server:
            assert await send(server, tmp_path / "sent", sample) == [0xA700]
            assert [path for path in folder.path.rglob("*") if path.is_file()] == []
            (disk / "ballast").unlink()
            assert await send(server, tmp_path / "sent", sample, other) == [0, 0]
        assert read_object(folder.path / f"{sample.uid}.dcm").data_set == sample.data_set
        folder.close()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.mark.parametrize("is_made_again", [True, False])
async def test_a_folder_that_is_removed_refuses_what_comes_and_is_not_made_again(
    is_made_again: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it was may be the place of a disk that is not mounted any more, and what is written there is not seen again."""
    folder = Folder(tmp_path / "received")
    async with receiver(folder) as server:
        assert await send(server, tmp_path / "sent", Sample(1)) == [0]
        shutil.rmtree(folder.path)
        if is_made_again:
            folder.path.mkdir()
        assert await send(server, tmp_path / "sent", Sample(2)) == [0xA700]
    assert folder.path.exists() == is_made_again
    assert "the folder has been removed or replaced: start again" in caplog.text
    folder.close()


class Vanishing(Folder):
    """A folder that somebody removes when the first object has been written, and has no name yet."""

    def _finish(self, part: str, name: str) -> Kept:
        shutil.rmtree(self.path)
        return super()._finish(part, name)


@pytest.mark.parametrize("size", [64, LARGE])
async def test_a_folder_that_is_removed_while_an_object_comes_keeps_nothing_of_it(size: int, tmp_path: Path) -> None:
    folder = Vanishing(tmp_path / "received")
    async with receiver(folder) as server:
        assert await send(server, tmp_path / "sent", Sample(1, size=size)) == [0xA700]
    assert not folder.path.exists()
    folder.close()


async def test_a_folder_that_may_not_be_written_to_is_a700() -> None:
    with directory_of_nobody() as place:
        folder = Folder(place / "received")
        async with receiver(folder) as server:
            (incoming,) = folder.path.iterdir()
            incoming.chmod(0o500)
            assert await send(server, place / "sent", Sample(1)) == [0xA700]
            incoming.chmod(0o700)
            assert await send(server, place / "sent", Sample(1)) == [0]
        folder.close()


async def test_a_cancelled_handler_leaves_nothing(folder: Folder, tmp_path: Path) -> None:
    """The server is closed while an object is on its way in."""
    sample = Sample(1, size=LARGE)
    request = store_rq(instance=sample.uid, sop_class=SECONDARY_CAPTURE)
    pdus = message_pdus(1, request, sample.data_set, fragment=100_000)
    async with receiver(folder) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate(associate_rq(STORAGE))
        await peer.send(pdus[:2_500_000])
        async with asyncio.timeout(20):
            while not any(path.is_file() for path in folder.path.rglob("*")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert [path for path in folder.path.rglob("*") if path.is_file()] == []


def test_leftovers_of_dead_processes_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    program = f"from tomowire import Folder; Folder({str(tmp_path)!r}); import os; os._exit(9)"
    subprocess.run([sys.executable, "-c", program], env=python_environment(), check=False)
    (dead,) = tmp_path.iterdir()
    (dead / "0").write_bytes(b"half")
    mine = Folder(tmp_path)
    assert not dead.exists()
    (here,) = tmp_path.iterdir()
    child = subprocess.run([sys.executable, "-c", program], env=python_environment(), check=False)
    assert child.returncode == 9
    assert here.exists()
    mine.close()
    assert not here.exists()


def test_a_process_with_the_same_number_does_not_keep_leftovers_alive(tmp_path: Path) -> None:
    """As in a container, where the first process is 1 each time: what counts is who holds the lock."""
    program = f"""
import os
from tomowire import Folder
Folder({str(tmp_path)!r})
os.execv({sys.executable!r}, [{sys.executable!r}, "-c", "from tomowire import Folder; Folder({str(tmp_path)!r})"])
"""
    subprocess.run([sys.executable, "-c", program], env=python_environment(), check=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_two_in_the_same_folder_leave_each_other_alone(tmp_path: Path) -> None:
    first = Folder(tmp_path)
    (here,) = tmp_path.iterdir()
    second = Folder(tmp_path)
    assert here.exists()
    assert len(list(tmp_path.iterdir())) == 2
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == []
