"""A real archive whose disk is full or read-only, or whose peers go away: A700 or nothing, and then on as before."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.filesystems import read_only, tiny_disk
from support.objects import SECONDARY_CAPTURE, Sample
from support.programs import Program, run_tomowire, serving
from support.raw_peer import RawPeer, associate_rq, message_pdus, store_rq
from support.stored import contents, files_below
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CStoreRSP

OUT_OF_RESOURCES = 0xA700
STORAGE = PresentationContextRQ(1, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
SMALL, LARGE = 20_000, 3_000_000

both_sizes = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])


async def store(peer: RawPeer, sample: Sample, message_id: int = 1) -> int:
    request = store_rq(message_id, sample.uid, SECONDARY_CAPTURE)
    await peer.send(message_pdus(1, request, sample.data_set, fragment=1 << 16))
    response = (await peer.read_message()).command
    assert isinstance(response, CStoreRSP)
    return response.status


def unfinished(data_dir: Path) -> list[Path]:
    return list((data_dir / "incoming").glob("*.part"))


def check(data_dir: Path) -> tuple[int, str]:
    done = run_tomowire("db", "check", "--data-dir", data_dir)
    return done.returncode, done.stdout


@both_sizes
async def test_a_full_disk(tmp_path: Path, size: int) -> None:
    samples = [Sample(number, size=size) for number in range(1, 200)]
    with tiny_disk(tmp_path / "disk", 12_000_000) as disk:
        data_dir = disk / "data"
        with serving("serve", "--data-dir", data_dir) as archive:
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(8_000_000 if size == SMALL else 4_000_000))
            async with await RawPeer.connect(archive.port) as peer:
                await peer.associate(associate_rq(STORAGE, called="TOMOWIRE"))
                taken: list[Sample] = []
                refused: list[Sample] = []
                for number, sample in enumerate(samples, 1):
                    status = await store(peer, sample, number)
                    assert status in (0, OUT_OF_RESOURCES)
                    (refused if status else taken).append(sample)
                    if len(refused) == 5:
                        break
                assert taken
                assert len(refused) == 5
                # On the same association, without a restart: there is room again.
                ballast.unlink()
                assert await store(peer, refused[0], 300) == 0
                await peer.release()
            assert unfinished(data_dir) == []
        assert contents(data_dir) == {sample.uid: sample.data_set for sample in (*taken, refused[0])}
        assert check(data_dir) == (0, "")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Program, Path]]:
    with serving("serve", "--data-dir", tmp_path / "data") as program:
        yield program, tmp_path / "data"


async def test_a_locked_index(archive: tuple[Program, Path]) -> None:
    program, data_dir = archive
    first, second = Sample(1), Sample(2)
    async with await RawPeer.connect(program.port) as peer:
        await peer.associate(associate_rq(STORAGE, called="TOMOWIRE"))
        with closing(sqlite3.connect(data_dir / "index.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert await store(peer, first) == OUT_OF_RESOURCES
            other.execute("ROLLBACK")
        assert files_below(data_dir) == set()
        assert unfinished(data_dir) == []
        assert await store(peer, second, 2) == 0
        await peer.release()
    assert contents(data_dir) == {second.uid: second.data_set}


@both_sizes
async def test_files_may_not_grow(tmp_path: Path, size: int) -> None:
    """RLIMIT_FSIZE: the kernel refuses to write beyond a size, as a full disk does, in the middle of a file."""
    limit = 10_000 if size == SMALL else 2_000_000
    small_enough, too_large = Sample(1, size=100), Sample(2, size=size)
    with serving("serve", "--data-dir", tmp_path / "data") as archive:
        resource.prlimit(archive.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        async with await RawPeer.connect(archive.port) as peer:
            await peer.associate(associate_rq(STORAGE, called="TOMOWIRE"))
            assert await store(peer, too_large) == OUT_OF_RESOURCES
            assert files_below(tmp_path / "data") == set()
            assert unfinished(tmp_path / "data") == []
            resource.prlimit(archive.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            assert await store(peer, too_large, 2) == 0
            assert await store(peer, small_enough, 3) == 0
            await peer.release()
    assert contents(tmp_path / "data").keys() == {small_enough.uid, too_large.uid}


def reset(peer: RawPeer) -> None:
    peer.reset()


def hang_up(peer: RawPeer) -> None:
    peer.close()


@both_sizes
@pytest.mark.parametrize("leave", [reset, hang_up])
async def test_a_connection_lost_in_the_middle_of_an_object(
    archive: tuple[Program, Path], size: int, leave: Callable[[RawPeer], None]
) -> None:
    program, data_dir = archive
    lost, kept = Sample(1, size=size), Sample(2, size=size)
    pdus = message_pdus(1, store_rq(1, lost.uid, SECONDARY_CAPTURE), lost.data_set, fragment=size // 20)
    for part in (0.01, 0.3, 0.6, 0.99):
        async with await RawPeer.connect(program.port) as peer:
            await peer.associate(associate_rq(STORAGE, called="TOMOWIRE", calling=f"LOST{int(part * 100)}"))
            await peer.send(pdus[: int(len(pdus) * part)])
            leave(peer)
        await asyncio.to_thread(program.stderr.wait_for, rf"LOST{int(part * 100)} -> .*the connection was closed", 10)
    async with await RawPeer.connect(program.port) as peer:
        await peer.associate(associate_rq(STORAGE, called="TOMOWIRE"))
        assert await store(peer, kept) == 0
        await peer.release()
    assert contents(data_dir) == {kept.uid: kept.data_set}
    assert len(files_below(data_dir)) == 1
    assert unfinished(data_dir) == []


@both_sizes
async def test_a_read_only_directory(archive: tuple[Program, Path], size: int) -> None:
    program, data_dir = archive
    sample = Sample(1, size=size)
    async with await RawPeer.connect(program.port) as peer:
        await peer.associate(associate_rq(STORAGE, called="TOMOWIRE"))
        with read_only(data_dir / "objects"):
            assert await store(peer, sample) == OUT_OF_RESOURCES
            assert unfinished(data_dir) == []
        assert await store(peer, sample, 2) == 0
        await peer.release()
    assert contents(data_dir) == {sample.uid: sample.data_set}
