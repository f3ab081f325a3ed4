"""Any tree of files: each object in it is in the archive afterwards, and each file that is not is named, with the reason."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sqlite3
import struct
import subprocess
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.objects import Sample
from support.stored import contents, files_below, findings
from tomowire.errors import StoreFailed, UsageError
from tomowire.server import importing
from tomowire.server.archive import ArchiveStorage
from tomowire.server.import_state import Taken
from tomowire.server.importing import How, Imported, Importer, Result

SAMPLES = [Sample(number, series=number % 3, size=200 * number) for number in range(1, 9)]
LARGE = Sample(99, study=2, size=3_000_000)


def part10(sample: Sample) -> bytes:
    return sample.header + sample.data_set


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "tree"


async def run(root: Path, *paths: Path, index_url: str | None = None, **options: Any) -> list[Imported]:
    seen: list[Imported] = []
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        await Importer(storage, **options).run(paths, seen.append)
    assert files_below(root, "incoming") <= {"incoming/journal"}
    return seen


def results(seen: list[Imported]) -> dict[str, Result]:
    return {each.path.name: each.result for each in seen}


async def test_a_tree_with_all_kinds_of_things(root: Path, tree: Path) -> None:
    for number, sample in enumerate(SAMPLES):
        write(tree / "deep" / str(number) / f"{number}.dcm", part10(sample))
    write(tree / "large", part10(LARGE))
    write(tree / "without-header", Sample(50).data_set)
    write(tree / "notes.txt", b"none of your business")
    write(tree / "empty", b"")
    write(tree / "cut.dcm", part10(Sample(51, size=5000))[:-3000])
    write(tree / "damaged.dcm", b"\0" * 128 + b"DICM" + b"\xff" * 40)
    write(tree / os.fsdecode(b"no-text-\xff\xfe.dcm"), part10(Sample(52)))
    (tree / "loop").symlink_to(tree)
    (tree / "nowhere").symlink_to(tree / "gone")
    write(tree.parent / "elsewhere", part10(Sample(53)))
    (tree / "link").symlink_to(tree.parent / "elsewhere")
    os.mkfifo(tree / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tree / "socket"))
    try:
        async with asyncio.timeout(30):
            seen = await run(root, tree)
    finally:
        listener.close()
    found = results(seen)
    assert {name for name, result in found.items() if result is Result.FAILED} == {"cut.dcm", "damaged.dcm", "nowhere"}
    assert {name for name, result in found.items() if result is Result.SKIPPED} == {
        "notes.txt",
        "empty",
        "loop",
        "pipe",
        "socket",
    }
    stored = [*SAMPLES, LARGE, *(Sample(number) for number in (50, 52, 53))]
    assert contents(root) == {sample.uid: sample.data_set for sample in stored}
    assert findings(root) == []
    assert all(each.reason for each in seen if each.result in (Result.FAILED, Result.SKIPPED))


async def test_what_cannot_be_read_is_told(root: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(Root reads everything, so that the system has to be played.)"""
    write(tree / "closed" / "1.dcm", part10(SAMPLES[0]))
    write(tree / "secret.dcm", part10(SAMPLES[1]))
    write(tree / "open.dcm", part10(SAMPLES[2]))
    real_scan, real_inspect = os.scandir, importing.inspect

    def scan(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real_scan(path)

    def inspect(path: Path) -> Any:
        if path.name == "secret.dcm":
            raise PermissionError(13, "Permission denied", str(path))
        return real_inspect(path)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(importing, "inspect", inspect)
    seen = await run(root, tree)
    monkeypatch.undo()
    assert results(seen) == {"closed": Result.FAILED, "secret.dcm": Result.FAILED, "open.dcm": Result.STORED}
    assert {each.reason for each in seen if each.result is Result.FAILED} == {"Permission denied"}


async def test_a_file_has_no_command(root: Path, tmp_path: Path) -> None:
    sample = Sample(1, overrides={0x00080016: ("UI", "")})
    (imported,) = await run(root, write(tmp_path / "one.dcm", part10(sample)))
    assert imported.result is Result.FAILED
    assert "the data set has no SOP Class UID" in imported.reason


async def test_a_tree_deeper_than_a_stack(root: Path, tree: Path) -> None:
    write(tree / "1.dcm", part10(SAMPLES[0]))
    descriptor = os.open(tree, os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=descriptor)
            below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    finally:
        os.close(descriptor)
    try:
        assert results(await run(root, tree))["1.dcm"] is Result.STORED
    finally:
        await asyncio.to_thread(subprocess.run, ["rm", "-r", tree], check=True)  # pytest would not get so deep


async def test_what_is_there_already_is_known_and_what_differs_is_a_conflict(root: Path, tree: Path) -> None:
    for number, sample in enumerate(SAMPLES):
        write(tree / str(number), part10(sample))
    await run(root, tree)
    before = files_below(root)
    write(tree / "0", part10(Sample(1, series=1, size=200, content="other")))
    found = results(await run(root, tree))
    assert found.pop("0") is Result.CONFLICT
    assert set(found.values()) == {Result.KNOWN}
    assert files_below(root) == before


async def test_moved_files_are_gone_and_the_others_are_not(root: Path, tree: Path) -> None:
    paths = [write(tree / str(number), part10(sample)) for number, sample in enumerate(SAMPLES)]
    again = write(tree / "again", part10(SAMPLES[0]))
    other = write(tree / "other", part10(Sample(2, series=2, size=400, content="other")))
    kept = write(tree / "notes.txt", b"none of your business")
    inodes = {path.stat().st_ino for path in paths}
    await run(root, tree, how=How.MOVE, at_once=1)
    assert [path for path in (*paths, again, other, kept) if path.exists()] == [other, kept]
    assert contents(root) == {sample.uid: sample.data_set for sample in SAMPLES}
    assert findings(root) == []
    assert {(root / path).stat().st_ino for path in files_below(root)} == inodes  # not copied
    assert {(root / path).stat().st_mode & 0o777 for path in files_below(root)} == {0o640}


async def test_links_take_no_space(root: Path, tree: Path) -> None:
    paths = [write(tree / str(number), part10(sample)) for number, sample in enumerate(SAMPLES)]
    bare = write(tree / "bare", Sample(50).data_set)  # has no header that could be kept
    await run(root, tree, how=How.LINK)
    assert {path.stat().st_nlink for path in paths} == {2}
    assert bare.stat().st_nlink == 1
    assert contents(root) == {sample.uid: sample.data_set for sample in (*SAMPLES, Sample(50))}
    assert findings(root) == []


async def test_an_earlier_run_is_remembered(root: Path, tree: Path, tmp_path: Path) -> None:
    paths = [write(tree / str(number), part10(sample)) for number, sample in enumerate(SAMPLES)]
    with Taken(tmp_path / "resume") as taken:
        await run(root, tree, taken=taken)
    write(paths[0], part10(Sample(60, size=77)))
    with Taken(tmp_path / "resume") as taken:
        seen = await run(root, tree, taken=taken)
    assert [each.path for each in seen if each.reason != "imported by an earlier run"] == [paths[0]]
    assert len(contents(root)) == 9


@pytest.mark.parametrize("content", [b"my diary", None], ids=["text", "another database"])
def test_a_file_of_others_is_not_taken_for_what_is_remembered(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "resume"
    if content is not None:
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE diary (day TEXT)")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="not a file that --resume has written"), Taken(path):
        pass
    assert path.read_bytes() == before


async def test_a_full_disk_ends_it_and_the_next_run_goes_on(
    root: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, sample in enumerate(SAMPLES):
        write(tree / str(number), part10(sample))
    real, calls = os.writev, []

    def full(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(StoreFailed, match="No space"):
        await run(root, tree, at_once=1)
    monkeypatch.undo()
    assert 0 < len(contents(root)) < 8
    await run(root, tree)
    assert len(contents(root)) == 8


async def test_on_postgresql_too(root: Path, tree: Path, postgres_url: str) -> None:
    for number, sample in enumerate(SAMPLES):
        write(tree / str(number), part10(sample))
    seen = await run(root, tree, index_url=postgres_url)
    assert {each.result for each in seen} == {Result.STORED}
    assert {each.result for each in await run(root, tree, index_url=postgres_url)} == {Result.KNOWN}


class Storage:
    """A folder as Orthanc has it."""

    def __init__(self, folder: Path, *, index: bool) -> None:
        self.folder = folder
        self._rows: list[tuple[Any, ...]] = []
        self._index = index

    def add(self, number: int, content: bytes, *, kind: int = 1, compressed: bool = False) -> Path:
        uuid = f"{number:08x}-0000-4000-8000-{number:012x}"
        stored = struct.pack("<Q", len(content)) + zlib.compress(content) if compressed else content
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        self._rows.append((number, kind, uuid, len(stored), len(content), 2 if compressed else 1, md5))
        return write(self.folder / uuid[:2] / uuid[2:4] / uuid, stored)

    def finish(self) -> Path:
        if self._index:
            with closing(sqlite3.connect(self.folder / "index")) as index:
                index.execute(
                    "CREATE TABLE AttachedFiles(id INTEGER, fileType INTEGER, uuid TEXT, compressedSize INTEGER,"
                    " uncompressedSize INTEGER, compressionType INTEGER, uncompressedMD5 TEXT)"
                )
                index.executemany("INSERT INTO AttachedFiles VALUES (?, ?, ?, ?, ?, ?, ?)", self._rows)
                index.commit()
        return self.folder


def header_of(sample: Sample) -> bytes:
    """What Orthanc keeps beside a compressed object: all before the pixels."""
    content = part10(sample)
    return content[: content.rindex(b"\xe0\x7f\x10\x00")]


@pytest.mark.parametrize("index", [True, False], ids=["with index", "without"])
@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])
async def test_the_storage_of_an_orthanc(root: Path, tree: Path, *, index: bool, compressed: bool) -> None:
    storage = Storage(tree, index=index)
    report = part10(Sample(70))
    report = report[: report.rindex(b"\xe0\x7f\x10\x00")]  # an object that has no pixels
    storage.add(1, report, compressed=compressed)
    for number, sample in enumerate([*SAMPLES, LARGE], start=10):
        storage.add(2 * number, header_of(sample), kind=3, compressed=compressed)  # the header comes first
        storage.add(2 * number + 1, part10(sample), compressed=compressed)
        storage.add(1000 + number, b'{"0008,0016": {}}', kind=2, compressed=compressed)
    storage.add(5000, b"a PDF of a user", kind=1024)
    seen = await run(root, storage.finish())
    assert contents(root) == {sample.uid: sample.data_set for sample in (*SAMPLES, LARGE)} | {
        Sample(70).uid: report[len(Sample(70).header) :]
    }
    assert {each.result for each in seen} <= {Result.STORED, Result.SKIPPED}
    assert findings(root) == []
    assert {each.result for each in await run(root, tree)} <= {Result.KNOWN, Result.SKIPPED}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-10], "holds"),
        (lambda data: data[:20] + b"\xff" * 20 + data[40:], "cannot be inflated"),
        (lambda data: struct.pack("<Q", 5) + data[8:], "holds"),
        (lambda data: struct.pack("<Q", 1 << 40) + data[8:], "holds"),
    ],
    ids=["cut", "changed", "too small a size", "too large a size"],
)
async def test_a_damaged_attachment_is_told(
    root: Path, tree: Path, spoil: Callable[[bytes], bytes], words: str
) -> None:
    storage = Storage(tree, index=True)
    path = storage.add(1, part10(LARGE), compressed=True)
    storage.add(2, part10(SAMPLES[0]), compressed=True)
    path.write_bytes(spoil(path.read_bytes()))
    seen = await run(root, storage.finish())
    [failed] = [each for each in seen if each.result is Result.FAILED]
    assert words in failed.reason
    assert set(contents(root)) == {SAMPLES[0].uid}


async def test_a_changed_attachment_is_told(root: Path, tree: Path) -> None:
    storage = Storage(tree, index=True)
    path = storage.add(1, part10(LARGE))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    [failed] = await run(root, storage.finish())
    assert "MD5" in failed.reason
    assert contents(root) == {}


async def test_a_bomb_fills_no_disk(root: Path, tree: Path) -> None:
    """What says that it is small is not inflated further than that."""
    storage = Storage(tree, index=False)
    path = storage.add(1, part10(LARGE), compressed=True)
    path.write_bytes(struct.pack("<Q", 1000) + zlib.compress(b"\0" * (1 << 26)))
    storage.add(2, part10(SAMPLES[0]))
    seen = await run(root, storage.finish())
    assert sorted(each.result.value for each in seen) == ["skipped", "stored"]


async def test_an_index_cannot_lead_out_of_its_folder(root: Path, tree: Path) -> None:
    storage = Storage(tree, index=True)
    storage.add(1, part10(SAMPLES[0]))
    storage._rows.append((2, 1, "../../../../etc/passwd", 1, 1, 1, ""))
    assert len(await run(root, storage.finish())) == 1


async def test_the_folder_of_an_orthanc_is_not_emptied(root: Path, tree: Path) -> None:
    storage = Storage(tree, index=True)
    storage.add(1, part10(SAMPLES[0]))
    with pytest.raises(UsageError, match="leave out --move"):
        await run(root, storage.finish(), how=How.MOVE)


async def test_an_index_that_is_in_use_or_is_none_is_told(root: Path, tree: Path) -> None:
    storage = Storage(tree, index=True)
    storage.add(1, part10(SAMPLES[0]))
    folder = storage.finish()
    with closing(sqlite3.connect(folder / "index")) as index:
        index.execute("DROP TABLE AttachedFiles")
        index.commit()
    with pytest.raises(UsageError, match="cannot be read"):
        await run(root, folder)
