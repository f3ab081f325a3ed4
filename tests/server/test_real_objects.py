"""Real objects, and deliberately broken ones, through the way in: kept byte for byte, or refused without a trace."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID

from support.filesystems import quick_directory
from support.objects import chunks_of, stream
from support.stored import contents, files_below, findings
from tomowire.errors import FileFormatError, StoreFailed
from tomowire.server.archive import ArchiveStorage
from tomowire.server.incoming import Incoming, Outcome
from tomowire.server.reindex import reindex
from tomowire.wire.part10 import FileMeta, decode_file_meta

LARGEST = 4 << 20
CHUNK = 100_003

IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as made:
        yield made


def read(path: Path) -> tuple[FileMeta, bytes] | None:
    data = path.read_bytes()
    try:
        meta, start = decode_file_meta(data)
    except FileFormatError:
        return None
    return (meta, data[start:]) if meta.media_storage_sop_instance_uid else None


def announced(meta: FileMeta, **of_data_set: str) -> Incoming:
    """What a sender says: by the file's header, or better by its data set (a file's header may be of what it was made from)."""
    return Incoming(
        of_data_set.get("sop_class_uid") or meta.media_storage_sop_class_uid,
        of_data_set.get("sop_instance_uid") or meta.media_storage_sop_instance_uid,
        meta.transfer_syntax_uid,
        "MODALITY",
        "ARCHIVE",
        "127.0.0.1",
    )


def rows(root: Path) -> list[list[tuple[object, ...]]]:
    """What is known of each instance, but keys and times. (What is above it depends on which object came first.)"""
    with closing(sqlite3.connect(root / "index.sqlite")) as connection:
        cursor = connection.execute("SELECT * FROM instances")
        kept = [n for n, (name, *_) in enumerate(cursor.description) if not name.endswith(("_key", "received_at"))]
        return sorted(([row[number] for number in kept] for row in cursor), key=repr)


def samples(folder: Path) -> Iterator[tuple[Incoming, bytes, bool]]:
    """The real objects but the largest, and of the long series of one scanner a few; and whether they say where they belong."""
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        series = {"dcm_qa_nih", "bulk-studyforrest"} & set(path.parts)
        if "fuzz-pwnlab" in path.parts or (series and number % 10) or path.stat().st_size > LARGEST:
            continue
        if (found := read(path)) is not None:
            meta, data = found
            seen = pydicom.dcmread(path, specific_tags=IDENTIFIERS)
            uids = {name: UID(seen.get(name) or "") for name in IDENTIFIERS}
            incoming = announced(meta, sop_class_uid=uids["SOPClassUID"], sop_instance_uid=uids["SOPInstanceUID"])
            yield incoming, data, all(uid.is_valid for uid in uids.values())


async def test_real_objects_are_kept_byte_for_byte(shared_data: Path, directory: Path) -> None:
    sent: dict[str, bytes] = {}
    refused = 0
    async with ArchiveStorage(directory) as storage:
        for incoming, data, belongs in samples(shared_data):
            try:
                stored = await storage.ingest.receive(incoming, stream(chunks_of(data, CHUNK)))
            except StoreFailed as failure:
                assert failure.status & 0xF000 == 0xA000
                assert not belongs, incoming
                refused += 1
            else:
                assert belongs
                if stored.outcome is Outcome.STORED:
                    sent[stored.sop_instance_uid] = data
        assert contents(directory) == sent
        assert findings(directory) == []
    assert len(sent) > 120
    assert refused < 25
    before = rows(directory)
    assert reindex(directory) == len(sent)
    assert contents(directory) == sent
    assert rows(directory) == before


@pytest.mark.parametrize("chunk_size", [None, 1000])
async def test_broken_objects_are_stored_whole_or_not_at_all(
    shared_data: Path, directory: Path, chunk_size: int | None
) -> None:
    files = sorted(path for path in (shared_data / "fuzz-pwnlab").rglob("*.dcm"))
    assert len(files) >= 290
    sent: dict[str, bytes] = {}
    statuses: list[int] = []
    async with ArchiveStorage(directory) as storage:
        for path in files:
            meta, data = read(path) or (FileMeta("1.2.3", "1.2.3", "1.2.840.10008.1.2.1"), path.read_bytes())
            try:
                stored = await storage.ingest.receive(announced(meta), stream(chunks_of(data, chunk_size)))
            except StoreFailed as failure:
                statuses.append(failure.status)
                assert len(failure.comment) <= 64
            else:
                if stored.outcome is Outcome.STORED:
                    sent[stored.sop_instance_uid] = data
        assert contents(directory) == sent
        assert len(files_below(directory, ".")) == len(sent) + len({"lock", "journal", "sqlite", "-wal", "-shm"})
        assert findings(directory) == []
    assert statuses
    assert {status if status < 0xA000 else status & 0xF000 for status in statuses} <= {0x0117, 0xA000, 0xC000}
    assert 0xA700 not in statuses
