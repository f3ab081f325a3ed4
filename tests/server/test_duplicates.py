"""One SOP Instance UID twice: what is kept, what the sender hears, and that no reader ever meets a mixture."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from support.objects import Sample, chunks_of, stream
from support.places import open_storage
from support.stored import contents, files_below, findings
from tomowire.errors import StoreFailed
from tomowire.server.archive import ArchiveStorage
from tomowire.server.incoming import DuplicatePolicy, Outcome, Stored
from tomowire.server.ingest import SMALL
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.usefixtures("each_index")

KEEP, REPLACE, REJECT = DuplicatePolicy.KEEP, DuplicatePolicy.REPLACE, DuplicatePolicy.REJECT

policies = pytest.mark.parametrize("policy", DuplicatePolicy, ids=lambda policy: policy.value)
sizes = pytest.mark.parametrize(
    ("size", "each_index"),
    [(64, "sqlite"), (64, "postgresql"), (2 * SMALL, "sqlite")],
    ids=["small", "small in postgresql", "large"],
    indirect=["each_index"],
)


async def receive(storage: ArchiveStorage, sample: Sample) -> Stored | int:
    try:
        return await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
    except StoreFailed as failure:
        return failure.status


def outcome(result: Stored | int) -> Outcome | int:
    return result if isinstance(result, int) else result.outcome


@policies
@sizes
async def test_the_same_object_again_is_success_and_one_copy(
    tmp_path: Path, policy: DuplicatePolicy, size: int
) -> None:
    sample = Sample(size=size)
    async with open_storage(tmp_path, policy=policy) as storage:
        first = await receive(storage, sample)
        before = {path: (tmp_path / path).stat().st_mtime_ns for path in files_below(tmp_path)}
        again = await receive(storage, sample)
        assert isinstance(first, Stored)
        assert again == Stored(sample.uid, Outcome.IDENTICAL, first.path, sample.study_uid)
        assert {path: (tmp_path / path).stat().st_mtime_ns for path in files_below(tmp_path)} == before
        assert files_below(tmp_path, "incoming") == {"incoming/journal"}


@sizes
@pytest.mark.parametrize(
    ("policy", "expected", "kept"),
    [(KEEP, Outcome.KEPT_FIRST, 0), (REPLACE, Outcome.REPLACED, 1), (REJECT, 0x0111, 0)],
    ids=["keep", "replace", "reject"],
)
@pytest.mark.parametrize("changes", [{}, {"series": 5}, {"study": 5, "patient_id": "P5"}], ids=str)
async def test_other_content_under_the_same_uid(
    tmp_path: Path,
    policy: DuplicatePolicy,
    expected: Outcome | int,
    kept: int,
    size: int,
    changes: dict[str, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Sample(size=size)
    second = replace(first, content="second", **changes)  # type: ignore[arg-type]
    async with open_storage(tmp_path, policy=policy) as storage:
        assert outcome(await receive(storage, first)) is Outcome.STORED
        assert outcome(await receive(storage, second)) == expected
        assert contents(tmp_path) == {first.uid: (first, second)[kept].data_set}
        assert len(files_below(tmp_path)) == 1
        assert files_below(tmp_path, "incoming") == {"incoming/journal"}
        assert findings(tmp_path) == []
        assert first.uid in caplog.text  # somebody should know
        assert "Doe" not in caplog.text


async def test_the_same_bytes_in_another_transfer_syntax_are_other_content(tmp_path: Path) -> None:
    # The scanner reads explicit VR under an implicit context: there are senders that get that wrong.
    sample = Sample()
    async with open_storage(tmp_path, policy=REJECT) as storage:
        assert outcome(await receive(storage, sample)) is Outcome.STORED
        implicit = replace(sample, transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN)
        assert outcome(await receive(storage, implicit)) in (0x0111, 0xC000)
        assert len(files_below(tmp_path)) == 1


@policies
@sizes
async def test_all_at_once(tmp_path: Path, policy: DuplicatePolicy, size: int) -> None:
    """Forty versions of three objects, on as many associations: each object is one of its versions, whole."""
    versions = [Sample(number, content=f"version {version}", size=size) for version in range(40) for number in range(3)]
    async with open_storage(tmp_path, policy=policy) as storage:
        results = await asyncio.gather(*(receive(storage, sample) for sample in versions))
        outcomes = [outcome(result) for result in results]
        assert outcomes.count(Outcome.STORED) == 3
        assert set(outcomes) == {
            Outcome.STORED,
            {KEEP: Outcome.KEPT_FIRST, REPLACE: Outcome.REPLACED, REJECT: 0x0111}[policy],
        }
        held = contents(tmp_path)
        assert len(held) == len(files_below(tmp_path)) == 3
        assert all(data in [s.data_set for s in versions if s.uid == uid] for uid, data in held.items())
        assert findings(tmp_path) == []


async def test_replaced_again_and_again_under_names_never_used_before(tmp_path: Path) -> None:
    names = []
    for start in range(3):
        async with open_storage(tmp_path, policy=REPLACE) as storage:
            for version in range(3):
                last = Sample(content=f"{start}.{version}")
                await receive(storage, last)
                names += files_below(tmp_path)
                assert contents(tmp_path) == {last.uid: last.data_set}
    assert len(set(names)) == len(names) == 9


async def test_whoever_reads_the_replaced_file_reads_it_to_the_end(tmp_path: Path) -> None:
    async with open_storage(tmp_path, policy=REPLACE) as storage:
        first = await receive(storage, Sample())
        assert isinstance(first, Stored)
        with (tmp_path / first.path).open("rb") as file:
            await receive(storage, Sample(content="second"))
            assert file.read().endswith(Sample().data_set)


async def test_a_file_that_the_index_does_not_know_is_never_written_over(tmp_path: Path) -> None:
    async with open_storage(tmp_path) as storage:
        first = await receive(storage, Sample())
        assert isinstance(first, Stored)
        foreign = tmp_path / first.path.replace(Sample().uid, Sample(2).uid)
        foreign.write_bytes(b"somebody's")
        second = await receive(storage, Sample(2))
        assert isinstance(second, Stored)
        assert foreign.read_bytes() == b"somebody's"
        assert contents(tmp_path)[Sample(2).uid] == Sample(2).data_set


@policies
@sizes
@pytest.mark.parametrize("content", ["first", "second"])
@pytest.mark.parametrize("left", [None, 0, 100], ids=["missing", "empty", "cut"])
async def test_an_object_whose_file_is_lost_is_stored_anew(
    tmp_path: Path,
    policy: DuplicatePolicy,
    size: int,
    content: str,
    left: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Sample(size=size)
    async with open_storage(tmp_path, policy=policy) as storage:
        stored = await receive(storage, first)
        assert isinstance(stored, Stored)
        if left is None:
            (tmp_path / stored.path).unlink()
        else:
            os.truncate(tmp_path / stored.path, left)
        again = replace(first, content=content)
        assert outcome(await receive(storage, again)) is Outcome.REPLACED
        assert "missing or cut short" in caplog.text
        assert first.uid in caplog.text
        assert contents(tmp_path) == {first.uid: again.data_set}
        assert findings(tmp_path) == []
        assert len(files_below(tmp_path)) == 1
        assert files_below(tmp_path, "incoming") == {"incoming/journal"}


async def test_a_folder_that_is_lost_is_made_anew(tmp_path: Path) -> None:
    async with open_storage(tmp_path) as storage:
        await receive(storage, Sample())
        shutil.rmtree(tmp_path / "objects")
        (tmp_path / "objects").mkdir()
        assert outcome(await receive(storage, Sample())) is Outcome.REPLACED
        assert findings(tmp_path) == []
