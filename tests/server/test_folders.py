"""Folders that come and go."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.leaks import open_descriptors
from tomowire.server.files import DataDirectory
from tomowire.server.folders import SeriesFolders


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    with DataDirectory.open(tmp_path) as opened:
        yield opened


def test_few_folders_stay_open(directory: DataDirectory) -> None:
    before = open_descriptors()
    folders = SeriesFolders(directory.root)
    for number in range(300):
        os.close(folders.create(f"objects/00/1.2/1.{number}", "1.dcm"))
    folders.trim()
    assert len(open_descriptors() - before) <= 64
    os.close(folders.create("objects/00/1.2/1.0", "2.dcm"))  # one that was closed
    folders.close()
    assert open_descriptors() == before


def test_a_folder_that_is_empty_again_is_removed(directory: DataDirectory) -> None:
    folders = SeriesFolders(directory.root)
    for path in ("1.2/1.3", "1.2/1.4"):
        os.close(folders.create(f"objects/00/{path}", "1.dcm"))
    folders.remove("objects/00/1.2/1.3/1.dcm")
    assert os.listdir(directory.root / "objects/00/1.2") == ["1.4"]
    folders.remove("objects/00/1.2/1.4/none.dcm")
    assert os.listdir(directory.root / "objects/00/1.2") == ["1.4"]
    folders.remove("objects/00/1.2/1.4/1.dcm")
    assert os.listdir(directory.root / "objects") == []
    os.close(folders.create("objects/00/1.2/1.3", "1.dcm"))
    folders.close()


def test_a_folder_that_somebody_removed_is_made_again(directory: DataDirectory) -> None:
    folders = SeriesFolders(directory.root)
    for name in ("1.dcm", "2.dcm"):
        os.close(folders.create("objects/00/1.2/1.3", name))
        shutil.rmtree(directory.root / "objects/00")
    descriptor, part = directory.create_part()
    os.close(descriptor)
    folders.adopt(part, "objects/00/1.2/1.3", "3.dcm")
    folders.sync("objects/00/1.2/1.3")
    folders.close()
    assert os.listdir(directory.root / "objects/00/1.2/1.3") == ["3.dcm"]


@pytest.mark.parametrize("links", [True, False])
def test_a_part_never_takes_the_place_of_a_file(
    directory: DataDirectory, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    folders = SeriesFolders(directory.root)
    descriptor = folders.create("objects/00/1.2/1.3", "1.dcm")
    os.write(descriptor, b"first")
    os.close(descriptor)
    descriptor, part = directory.create_part()
    os.close(descriptor)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(FileExistsError):
        folders.adopt(part, "objects/00/1.2/1.3", "1.dcm")
    folders.close()
    assert (directory.root / "objects/00/1.2/1.3/1.dcm").read_bytes() == b"first"
    assert part.exists()
