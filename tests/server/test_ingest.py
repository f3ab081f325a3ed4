"""Objects on their way in: what is stored, what is refused and with which status, and that the refused leave nothing."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
import xxhash

from support.objects import SECONDARY_CAPTURE, Sample, chunks_of, stream
from support.places import lose_index, open_storage
from support.stored import contents, files_below, findings
from tomowire.aio.blocks import Block, BlockPool
from tomowire.aio.streams import Chunk
from tomowire.errors import AssociationLost, StoreFailed, UsageError
from tomowire.server.archive import ArchiveStorage
from tomowire.server.checksum import new_checksum
from tomowire.server.incoming import Outcome, Stored
from tomowire.server.ingest import SMALL
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

LARGE = Sample(2, size=3 * SMALL)

ways = pytest.mark.parametrize(
    ("size", "chunk_size"),
    [(64, None), (3 * SMALL, None), (3 * SMALL, SMALL), (10 * SMALL, SMALL - 1)],
    ids=["small", "one chunk", "some chunks", "odd chunks"],
)


@pytest.fixture
async def storage(request: pytest.FixtureRequest, tmp_path: Path, no_leaks: None) -> AsyncIterator[ArchiveStorage]:
    """In its data directory; a test that asks for `each_index` meets it in both places."""
    if "each_index" in request.fixturenames:
        request.getfixturevalue("each_index")
    async with open_storage(tmp_path) as opened:
        yield opened


async def receive(storage: ArchiveStorage, sample: Sample, chunk_size: int | None = None, **announced: str) -> Stored:
    chunks = stream(chunks_of(sample.data_set, chunk_size))
    return await storage.ingest.receive(sample.incoming(**announced), chunks)


async def refusal(receiving: object) -> tuple[int, str]:
    with pytest.raises(StoreFailed) as failure:
        await receiving  # type: ignore[misc]
    assert len(failure.value.comment) <= 64  # LO: PS3.5 6.2
    return failure.value.status, failure.value.comment


async def assert_empty(storage: ArchiveStorage) -> None:
    """Nothing of what was refused is there; and the next object is taken."""
    assert files_below(storage.root) == set()
    assert files_below(storage.root, "incoming") <= {"incoming/journal"}
    assert (await storage.index.counts()).instances == 0
    assert (await receive(storage, Sample(99))).outcome is Outcome.STORED


@ways
async def test_the_file_is_what_was_sent(storage: ArchiveStorage, size: int, chunk_size: int | None) -> None:
    sample = Sample(size=size)
    stored = await receive(storage, sample, chunk_size)
    assert stored == Stored(sample.uid, Outcome.STORED, stored.path, sample.study_uid)
    raw = (storage.root / stored.path).read_bytes()
    assert raw.endswith(sample.data_set)
    file = pydicom.dcmread(BytesIO(raw))
    assert file.SOPInstanceUID == sample.uid
    assert file.file_meta.MediaStorageSOPClassUID == SECONDARY_CAPTURE
    assert file.file_meta.MediaStorageSOPInstanceUID == sample.uid
    assert file.file_meta.TransferSyntaxUID == sample.transfer_syntax_uid
    assert file.file_meta.SourceApplicationEntityTitle == "MODALITY"
    assert contents(storage.root) == {sample.uid: sample.data_set}
    assert files_below(storage.root, "incoming") == {"incoming/journal"}
    assert findings(storage.root) == []


async def test_a_file_system_without_hard_links(storage: ArchiveStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as Linux says it of FAT

    monkeypatch.setattr(os, "link", refuse)
    foreign = storage.root / (await receive(storage, LARGE)).path.replace(LARGE.uid, Sample(3).uid)
    foreign.write_bytes(b"somebody's")
    assert (await receive(storage, LARGE)).outcome is Outcome.IDENTICAL
    third = await receive(storage, Sample(3, size=LARGE.size))
    assert contents(storage.root) == {each.uid: each.data_set for each in (LARGE, Sample(3, size=LARGE.size))}
    assert foreign.read_bytes() == b"somebody's"
    assert (storage.root / third.path) != foreign
    assert files_below(storage.root, "incoming") == {"incoming/journal"}


@pytest.mark.usefixtures("each_index")
async def test_the_index_answers(storage: ArchiveStorage) -> None:
    stored = await receive(storage, Sample())
    found = await storage.index.instance(Sample().uid)
    assert found is not None
    assert found.name.path == stored.path
    assert found.data_set_size == len(Sample().data_set)
    assert await storage.index.instance("1.2.3") is None
    assert [each async for each in storage.index.objects()] == [found]
    assert (await storage.index.statistics()).data_set_bytes == len(Sample().data_set)


@pytest.mark.usefixtures("each_index")
async def test_many_at_once(storage: ArchiveStorage) -> None:
    samples = [Sample(n, series=n % 7, study=n % 3, size=64 if n % 5 else 2 * SMALL) for n in range(200)]
    stored = await asyncio.gather(*(receive(storage, sample) for sample in samples))
    assert [each.outcome for each in stored] == [Outcome.STORED] * 200
    assert contents(storage.root) == {sample.uid: sample.data_set for sample in samples}
    assert findings(storage.root) == []


@pytest.mark.usefixtures("each_index")
async def test_a_patient_id_may_be_empty(storage: ArchiveStorage) -> None:
    assert (await receive(storage, Sample(patient_id=""))).outcome is Outcome.STORED


@pytest.mark.usefixtures("each_index")
async def test_leading_zeros_in_a_uid_are_tolerated(storage: ArchiveStorage) -> None:
    uids = {0x00080018: "1.2.03.4", 0x0020000D: "1.02", 0x0020000E: "1.2.003"}
    sample = Sample(overrides={tag: ("UI", uid) for tag, uid in uids.items()})
    stored = await receive(storage, sample, sop_instance_uid="1.2.03.4")
    assert stored.path.endswith("/1.02/1.2.003/1.2.03.4.dcm")
    assert findings(storage.root) == []


@pytest.mark.parametrize("uid", ["", "../../x", "/etc/passwd", "1.2\0", "1" * 65, "1.2.", "1.2/3"])
@ways
async def test_a_command_without_a_uid(storage: ArchiveStorage, uid: str, size: int, chunk_size: int | None) -> None:
    status, _ = await refusal(receive(storage, Sample(size=size), chunk_size, sop_instance_uid=uid))
    assert status == 0x0117  # PS3.7 Annex C: invalid SOP instance
    await assert_empty(storage)


@pytest.mark.parametrize("tag", [0x0020000D, 0x0020000E])
@pytest.mark.parametrize("uid", ["", "../../../../etc", "1.2.", "1" * 66])
@ways
async def test_a_data_set_without_study_or_series(
    storage: ArchiveStorage, tag: int, uid: str, size: int, chunk_size: int | None
) -> None:
    status, comment = await refusal(receive(storage, Sample(size=size, overrides={tag: ("UI", uid)}), chunk_size))
    assert status == 0xA900  # PS3.4 B.2.3: data set does not match SOP class
    assert ("Study" if tag == 0x0020000D else "Series") in comment
    await assert_empty(storage)


@pytest.mark.parametrize("changes", [{"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"}, {"sop_instance_uid": "1.2.3"}])
@ways
async def test_a_data_set_that_is_not_the_one_announced(
    storage: ArchiveStorage, changes: dict[str, str], size: int, chunk_size: int | None
) -> None:
    status, comment = await refusal(receive(storage, Sample(size=size), chunk_size, **changes))
    assert status == 0xA900
    assert "differ" in comment
    await assert_empty(storage)


@ways
async def test_a_data_set_cut_short(storage: ArchiveStorage, size: int, chunk_size: int | None) -> None:
    sample = Sample(size=size)
    for end in (1, 100, len(sample.data_set) - 1):
        chunks = chunks_of(sample.data_set[:end], chunk_size)
        status, comment = await refusal(storage.ingest.receive(sample.incoming(), stream(chunks)))
        assert status & 0xF000 == 0xC000  # PS3.4 B.2.3: cannot understand
        assert comment
    await assert_empty(storage)


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 200_000], ids=["none", "HTTP", "FF"])
@pytest.mark.parametrize(
    "transfer_syntax",
    [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.50"],
)
async def test_what_is_no_data_set(storage: ArchiveStorage, data: bytes, transfer_syntax: str) -> None:
    incoming = Sample().incoming(transfer_syntax_uid=transfer_syntax)
    status, _ = await refusal(storage.ingest.receive(incoming, stream(chunks_of(data))))
    # Nothing at all can be read as a data set without elements: then it is the one that was not announced.
    assert status & 0xF000 == 0xC000 or (status == 0xA900 and not data)
    await assert_empty(storage)


async def test_no_chunk_at_all(storage: ArchiveStorage) -> None:
    status, _ = await refusal(storage.ingest.receive(Sample().incoming(), stream([])))
    assert status & 0xF000 == 0xC000
    await assert_empty(storage)


async def test_chunks_that_end_without_a_last_one(storage: ArchiveStorage) -> None:
    chunks = chunks_of(LARGE.data_set, SMALL)[:-1]
    status, _ = await refusal(storage.ingest.receive(LARGE.incoming(), stream(chunks)))
    assert status & 0xF000 == 0xC000
    await assert_empty(storage)


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_connection_lost_in_the_middle(storage: ArchiveStorage, after: int) -> None:
    async def broken() -> AsyncIterator[Chunk]:
        for chunk in chunks_of(LARGE.data_set, SMALL)[:after]:
            yield chunk
        raise AssociationLost("the peer went away")

    with pytest.raises(AssociationLost):
        await storage.ingest.receive(LARGE.incoming(), broken())
    await assert_empty(storage)


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_cancelled_while_waiting_for_bytes(storage: ArchiveStorage, after: int) -> None:
    waiting = asyncio.Event()

    async def slow() -> AsyncIterator[Chunk]:
        for chunk in chunks_of(LARGE.data_set, SMALL)[:after]:
            yield chunk
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(storage.ingest.receive(LARGE.incoming(), slow()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await assert_empty(storage)


@pytest.mark.parametrize("passes", range(8))
@pytest.mark.parametrize("sample", [Sample(), LARGE], ids=["small", "large"])
async def test_cancelled_while_being_written(storage: ArchiveStorage, sample: Sample, passes: int) -> None:
    """The memory is given back, and then written over: what is stored must not have changed under the writer's hands."""
    data = bytearray(sample.data_set)
    chunks = [Chunk((memoryview(data),), True, len(data))]
    task = asyncio.create_task(storage.ingest.receive(sample.incoming(), stream(chunks)))
    for _ in range(passes):
        await asyncio.sleep(0)
    task.cancel()
    task.cancel()
    await asyncio.wait([task])
    data[:] = b"\xee" * len(data)
    await receive(storage, Sample(99))  # whatever was queued before is over when this returns
    held = contents(storage.root)
    del held[Sample(99).uid]
    assert held in ({}, {sample.uid: sample.data_set})
    assert findings(storage.root) == []
    assert files_below(storage.root, "incoming") == {"incoming/journal"}


async def test_memory_is_given_back_when_it_is_not_used_any_more(storage: ArchiveStorage) -> None:
    """Each chunk is written over as soon as it is released: what is stored must not change."""

    class Reused(Block):
        def release(self) -> None:
            super().release()
            self.view[:] = b"\xee" * len(self.view)

    async def chunks() -> AsyncIterator[Chunk]:
        data = LARGE.data_set
        pool = BlockPool(lambda: None)
        for start in range(0, len(data), SMALL):
            piece = data[start : start + SMALL]
            block = Reused(pool, len(piece))
            block.view[:] = piece
            block.pins += 1
            blocks.append(block)
            chunk = Chunk((block.view,), start + SMALL >= len(data), len(piece), [block])
            yield chunk
            chunk.pass_by()

    blocks: list[Block] = []
    await storage.ingest.receive(LARGE.incoming(), chunks())
    assert len(blocks) > 2
    assert not any(block.pins for block in blocks)
    assert contents(storage.root) == {LARGE.uid: LARGE.data_set}
    assert findings(storage.root) == []


@pytest.mark.usefixtures("each_index")
@pytest.mark.parametrize("sample", [Sample(), LARGE], ids=["small", "large"])
async def test_the_checksum_is_the_xxh3_of_the_data_set(storage: ArchiveStorage, sample: Sample) -> None:
    assert new_checksum().hexdigest() == "99aa06d3014798d86001c324468d497f"  # of nothing: xxHash's own test vector
    await receive(storage, sample)
    stored = await storage.index.ask(lambda reader: reader.instance(sample.uid))
    assert stored is not None
    assert stored.checksum == xxhash.xxh3_128_digest(sample.data_set)


async def test_closing_stores_what_is_waiting(each_index: str, tmp_path: Path, no_leaks: None) -> None:
    async with open_storage(tmp_path) as storage:
        tasks = [asyncio.create_task(receive(storage, Sample(n))) for n in range(50)]
        await asyncio.sleep(0)
    assert len(contents(tmp_path)) == 50
    assert all([(await task).is_new for task in tasks])
    status, comment = await refusal(receive(storage, Sample(51)))
    assert status == 0xA700
    assert "closed" in comment


async def test_one_directory_has_one_archive(storage: ArchiveStorage) -> None:
    with pytest.raises(UsageError, match="in use"):
        async with open_storage(storage.root):
            pass
    assert (await receive(storage, Sample())).is_new


async def test_objects_without_an_index_are_not_begun_anew(each_index: str, tmp_path: Path, no_leaks: None) -> None:
    async with open_storage(tmp_path) as storage:
        await receive(storage, Sample())
    lose_index(tmp_path)
    with pytest.raises(UsageError, match="db reindex"):
        async with open_storage(tmp_path):
            pass
    assert len(files_below(tmp_path)) == 1
