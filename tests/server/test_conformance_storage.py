"""Conformance cases 46 to 52: storage (PS3.4 annex B, PS3.5 9.1, PS3.7 annex C), against a whole archive.

They are what implementations commonly get wrong. The requests are put together by hand; the expectations are those of the
standard's text. What is looked at beyond the status is the disk and the index.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from support.filesystems import tiny_disk
from support.objects import SECONDARY_CAPTURE, Sample, chunks_of, element, stream
from support.raw_peer import CT, RawPeer, associate_rq, message_pdus, store_rq
from support.stored import contents, files_below, findings
from tomowire.errors import StoreFailed
from tomowire.server.app import Archive, Settings
from tomowire.server.archive import ArchiveStorage
from tomowire.server.index.rows import NewRow
from tomowire.server.index.scanner import HeaderScanner
from tomowire.server.index.sqlite_reader import SqliteReader
from tomowire.server.index.sqlite_writer import SqliteWriter
from tomowire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CStoreRSP

EXPLICIT, DEFLATED, OTHER_CLASS = 1, 3, 5
CONTEXTS = (
    PresentationContextRQ(EXPLICIT, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(DEFLATED, SECONDARY_CAPTURE, (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(OTHER_CLASS, CT, (EXPLICIT_VR_LITTLE_ENDIAN,)),
)
UNDEFINED = 0xFFFFFFFF
STUDY, SERIES = 0x0020000D, 0x0020000E

SAMPLE = Sample()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive" / "data"


@contextlib.asynccontextmanager
async def associated(root: Path, duplicates: str = "keep") -> AsyncIterator[RawPeer]:
    """An association with an archive that begins with it and ends with it."""
    async with (
        Archive(Settings(root, port=0, duplicates=duplicates)) as archive,
        await RawPeer.connect(archive.port) as peer,
    ):
        await peer.associate(associate_rq(*CONTEXTS, called="TOMOWIRE"))
        yield peer
        await peer.release()


async def store(peer: RawPeer, uid: str, data: bytes, *, context_id: int = EXPLICIT) -> int:
    """The status with which the archive answers a C-STORE of this data set."""
    sop_class = CT if context_id == OTHER_CLASS else SECONDARY_CAPTURE
    await peer.send(message_pdus(context_id, store_rq(1, uid, sop_class), data))
    response = (await peer.read_message()).command
    assert isinstance(response, CStoreRSP)
    assert response.affected_sop_instance_uid == uid
    return response.status


def is_mismatch(status: int) -> bool:
    """PS3.4 Table B.2-1: A9xx; as a warning B007."""
    return status & 0xFF00 == 0xA900 or status == 0xB007


def is_not_understood(status: int) -> bool:
    """PS3.4 Table B.2-1: Cxxx."""
    return status & 0xF000 == 0xC000


def paths_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def assert_nothing_stored(root: Path) -> None:
    assert contents(root) == {}
    assert files_below(root) == set()
    assert files_below(root, "incoming") <= {"incoming/journal"}
    assert findings(root) == []


async def test_case_46_data_set_and_command_name_different_objects(root: Path) -> None:
    async with associated(root) as peer:
        assert is_mismatch(await store(peer, Sample(2).uid, SAMPLE.data_set))
        assert is_mismatch(await store(peer, SAMPLE.uid, SAMPLE.data_set, context_id=OTHER_CLASS))
        assert_nothing_stored(root)
        assert await store(peer, SAMPLE.uid, SAMPLE.data_set) == 0


@pytest.mark.parametrize(
    ("policy", "status", "kept"), [("keep", 0, "first"), ("replace", 0, "second"), ("reject", 0x0111, "first")]
)
async def test_case_47_an_object_is_sent_again(root: Path, policy: str, status: int, kept: str) -> None:
    other = replace(SAMPLE, content="second")
    async with associated(root, policy) as peer:
        for _ in range(2):
            assert await store(peer, SAMPLE.uid, SAMPLE.data_set) == 0
            assert len(files_below(root)) == 1
        assert await store(peer, SAMPLE.uid, other.data_set) == status
        assert contents(root) == {SAMPLE.uid: replace(SAMPLE, content=kept).data_set}
        assert len(files_below(root)) == 1
        assert findings(root) == []


@pytest.mark.parametrize("tag", [STUDY, SERIES])
async def test_case_48_no_study_or_series(root: Path, tag: int) -> None:
    there = element(tag, "UI", {STUDY: SAMPLE.study_uid, SERIES: SAMPLE.series_uid}[tag])
    assert SAMPLE.data_set.count(there) == 1
    async with associated(root) as peer:
        for instead in (b"", element(tag, "UI", "")):
            status = await store(peer, SAMPLE.uid, SAMPLE.data_set.replace(there, instead))
            assert is_mismatch(status) or is_not_understood(status)
        assert_nothing_stored(root)


@pytest.mark.parametrize("uid", ["../../x", "/tmp/x", "1.2\0.3", "1." * 32 + "1", "1.2/3", "..", "."], ids=repr)
async def test_case_49_a_uid_is_never_a_path(root: Path, uid: str) -> None:
    # PS3.5 9.1: digits and dots, 64 characters, no empty component.
    async with associated(root) as peer:
        named_by_both = Sample(overrides={0x00080018: ("UI", uid)})
        for announced, data in (
            (uid, named_by_both.data_set),
            (SAMPLE.uid, Sample(overrides={STUDY: ("UI", uid)}).data_set),
            (SAMPLE.uid, Sample(overrides={SERIES: ("UI", uid)}).data_set),
        ):
            assert await store(peer, announced, data) & 0xF000 in (0x0000, 0xA000, 0xC000)
        assert_nothing_stored(root)
    assert paths_below(root.parent.parent) == paths_below(root)


async def test_case_50_every_byte_is_kept(root: Path) -> None:
    """PS3.4 B.4.1, level 2: all elements, those included that nobody here knows."""
    sample = Sample(
        overrides={
            0x00080000: ("UL", "none"),  # a retired group length, and wrong
            0x00080060: ("LO", "OT"),  # CS by the dictionary
            0x00080070: ("LO", "trailing spaces      "),
            0x00090010: ("LO", "SOMEBODY 1.0"),
            0x00091001: ("UN", "private"),
            0x000B1001: ("LT", "of a private group that nobody has reserved"),
            0x00104000: ("LT", "\x7f control characters \x01"),
            0x00280103: ("SS", "\1\0"),  # US by the dictionary
        }
    )
    data = sample.data_set + element(0xFFFCFFFC, "OB", b"padding \xff")
    async with associated(root) as peer:
        assert await store(peer, sample.uid, data) == 0
    assert contents(root) == {sample.uid: data}
    assert findings(root) == []


async def test_case_51_a_deflate_bomb_costs_no_memory(root: Path) -> None:
    size = 256 << 20
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = Sample(size=0, content="").data_set[:-12] + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, size)
    zeros = bytes(1 << 20)
    parts = [compressor.compress(piece) for piece in (head, *[zeros] * (size >> 20))]
    bomb = b"".join((*parts, compressor.flush()))
    assert len(bomb) < size / 900
    async with associated(root) as peer:
        tracemalloc.start()
        try:
            assert await store(peer, SAMPLE.uid, bomb, context_id=DEFLATED) == 0
            assert tracemalloc.get_traced_memory()[1] < size / 16
        finally:
            tracemalloc.stop()
    assert contents(root) == {SAMPLE.uid: bomb}


async def test_case_51_sequences_within_sequences_without_end(root: Path) -> None:
    sequence = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, UNDEFINED)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    async with associated(root) as peer:
        assert is_not_understood(await store(peer, SAMPLE.uid, (sequence + item) * 100_000))
        assert_nothing_stored(root)
        assert await store(peer, SAMPLE.uid, SAMPLE.data_set) == 0


def longest_value() -> Iterator[bytes | memoryview]:
    """One value of the greatest length there is (PS3.5 7.1.1: even, and not the undefined one), and an element behind it."""
    length = 0xFFFFFFFE
    yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, length)
    block = memoryview(bytes(1 << 20))
    for start in range(0, length, len(block)):
        yield block[: length - start]
    yield element(0xFFFCFFFC, "OB", b"")


def many_fragments() -> Iterator[bytes | memoryview]:
    """Encapsulated pixel data (PS3.5 A.4) of 4200 fragments of a mebibyte."""
    yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    block = memoryview(bytes(1 << 20))
    for _ in range(4200):
        yield struct.pack("<HHI", 0xFFFE, 0xE000, len(block))
        yield block
    yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


@pytest.mark.parametrize("pixels", [longest_value, many_fragments])
def test_case_51_more_than_4_gib(tmp_path: Path, pixels: Callable[[], Iterator[bytes | memoryview]]) -> None:
    """Read as it comes, without the disk: nothing is held, and no length is cut to 32 bits."""
    head = SAMPLE.data_set[: -(12 + SAMPLE.size)]
    scanner = HeaderScanner(EXPLICIT_VR_LITTLE_ENDIAN)
    scanner.feed(head)
    total = len(head)
    pieces = pixels()
    total += len(first := next(pieces))
    scanner.feed(first)
    tracemalloc.start()
    try:
        for piece in pieces:
            scanner.feed(piece)
            total += len(piece)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20  # one of which is the test's own block
    finally:
        tracemalloc.stop()
    scanned = scanner.finish()
    assert scanned.length == total > 1 << 32
    row = NewRow(SAMPLE.record, 0, 340, total, bytes(32), received_at=0, received_from="MODALITY")
    with closing(SqliteWriter.open(tmp_path / "index.sqlite")) as writer:
        writer.insert(1, [row])
        assert writer.find([SAMPLE.uid])[SAMPLE.uid].data_set_size == total
        with SqliteReader.open(tmp_path / "index.sqlite") as reader:
            assert reader.statistics().data_set_bytes == total


def fill(disk: Path) -> Path:
    """Use up all room with one file."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.mark.parametrize("size", [64, 200_000])
async def test_case_52_the_disk_is_full(tmp_path: Path, size: int) -> None:
    """PS3.4 Table B.2-1: A7xx, out of resources; what is given room later is stored."""
    sample = Sample(2, size=size)
    with tiny_disk(tmp_path / "disk", 4 << 20) as disk:
        async with associated(disk / "data") as peer:
            assert await store(peer, SAMPLE.uid, SAMPLE.data_set) == 0
            ballast = fill(disk)
            assert await store(peer, sample.uid, sample.data_set) & 0xFF00 == 0xA700
            assert contents(disk / "data") == {SAMPLE.uid: SAMPLE.data_set}
            assert len(files_below(disk / "data")) == 1
            ballast.unlink()
            assert await store(peer, sample.uid, sample.data_set) == 0
        assert findings(disk / "data") == []


async def test_case_52_the_index_cannot_be_written(root: Path) -> None:
    async with ArchiveStorage(root, busy_timeout=0.05) as storage:
        with closing(sqlite3.connect(root / "index.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreFailed) as failure:
                await storage.ingest.receive(SAMPLE.incoming(), stream(chunks_of(SAMPLE.data_set)))
            other.execute("ROLLBACK")
        assert failure.value.status & 0xFF00 == 0xA700
        assert_nothing_stored(root)


async def test_case_52_success_comes_after_the_commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the sender reads Success, another process finds the object in the index and the file has been synced."""
    synced: set[int] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    async with associated(root) as peer:
        for sample in (SAMPLE, Sample(2, size=200_000)):
            assert await store(peer, sample.uid, sample.data_set) == 0
            assert contents(root)[sample.uid] == sample.data_set
            (path,) = (root / name for name in files_below(root) if name.endswith(f"/{sample.uid}.dcm"))
            assert {path.stat().st_ino, path.parent.stat().st_ino} <= synced
