"""Names of files are made of UIDs and of nothing else; a data directory has one user."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.filesystems import tiny_disk
from support.leaks import open_descriptors
from support.subprocesses import python_environment
from tomowire.errors import InvalidUid, UsageError
from tomowire.server.files import DataDirectory, ObjectName, object_file_name, series_folder

uids = st.from_regex(r"(0|[1-9][0-9]{0,4})(\.(0|[1-9][0-9]{0,4})){0,9}", fullmatch=True)

# PS3.5 9.1 allows none of these; most of them would be bad names for a file.
NOT_UIDS = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "1.2/3",
    "1.2\0",
    "1..2",
    "1.a",
    "1.2.",
    "1" * 65,
    "1.2\n",
    "١.٢",
]


@given(uids, uids, uids, st.integers(0, 10**6))
def test_a_path_says_which_object_it_is_of(study: str, series: str, instance: str, generation: int) -> None:
    name = ObjectName(study, series, instance, generation)
    assert ObjectName.parse(name.path) == name


@given(uids, uids, uids, uids, st.integers(0, 9), st.integers(0, 9))
def test_no_two_objects_share_a_path(study: str, series: str, one: str, other: str, first: int, second: int) -> None:
    names = {ObjectName(study, series, one, first), ObjectName(study, series, other, second)}
    assert len({name.path for name in names}) == len(names)


def test_the_study_decides_the_folder_by_its_sha256() -> None:
    # printf 1.2.3 | sha256sum
    assert series_folder("1.2.3", "1.2.4") == "objects/c4/1.2.3/1.2.4"
    assert object_file_name("1.2.5") == "1.2.5.dcm"
    assert object_file_name("1.2.5", 3) == "1.2.5-3.dcm"


@pytest.mark.parametrize("text", NOT_UIDS)
def test_what_is_no_uid_becomes_no_path(text: str) -> None:
    for study, series, instance in ((text, "1.2", "1.2"), ("1.2", text, "1.2"), ("1.2", "1.2", text)):
        with pytest.raises(InvalidUid):
            _ = ObjectName(study, series, instance).path


@pytest.mark.parametrize(
    "path",
    [
        "objects/00/1.2.3/1.2.4/1.2.5.dcm",  # not the study's folder
        "objects/c4/1.2.3/1.2.4/1.2.5",
        "objects/c4/1.2.3/1.2.4/1.2.5-0.dcm",
        "objects/c4/1.2.3/1.2.4/1.2.5-01.dcm",
        "objects/c4/1.2.3/1.2.4/1..5.dcm",
        "objects/c4/1.2.3/../1.2.4/1.2.5.dcm",
        "/objects/c4/1.2.3/1.2.4/1.2.5.dcm",
        "objects/c4/1.2.3/1.2.4/.nfs0001",
    ],
)
def test_foreign_paths_are_told_apart(path: str) -> None:
    assert ObjectName.parse("objects/c4/1.2.3/1.2.4/1.2.5.dcm") is not None
    assert ObjectName.parse(path) is None


def test_a_second_process_is_told_who_uses_the_directory(tmp_path: Path) -> None:
    script = f"""if True:
        import sys
        from tomowire.server.files import DataDirectory
        directory = DataDirectory.open({str(tmp_path)!r})
        print("open", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=python_environment()) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(UsageError, match=f"in use by another process .PID {other.pid}."):
            DataDirectory.open(tmp_path)
        with DataDirectory.inspect(tmp_path) as seen:
            assert not seen.is_locked
        other.kill()
    with DataDirectory.open(tmp_path) as mine:  # the lock went with the process
        assert mine.is_locked


def test_looking_at_a_folder_does_not_make_it_an_archive(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the data directory"):
        DataDirectory.inspect(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_names_nobody_after_an_orderly_end(tmp_path: Path) -> None:
    """Its number may be another process' by the time that somebody sends a signal to it."""
    for opened in (DataDirectory.open, DataDirectory.inspect):
        with opened(tmp_path):
            assert (tmp_path / "lock").read_text("ascii").strip() == str(os.getpid())
        assert (tmp_path / "lock").read_bytes().strip() == b""


@pytest.mark.parametrize("names", [[], ["lost+found", ".DS_Store"], ["lock"]], ids="+".join)
def test_an_empty_folder_becomes_a_data_directory(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with DataDirectory.open(tmp_path) as directory:
        assert directory.is_locked
    (tmp_path / "notes.txt").touch()
    with DataDirectory.open(tmp_path):  # it is one by now
        pass


def test_a_folder_full_of_other_things_does_not(tmp_path: Path) -> None:
    (tmp_path / "IM0001").touch()
    with pytest.raises(UsageError, match=r"not empty, and not the data directory of an archive.*--data-dir"):
        DataDirectory.open(tmp_path)
    assert os.listdir(tmp_path) == ["IM0001"]


@pytest.mark.parametrize("begin", [DataDirectory.open, DataDirectory.inspect])
def test_a_lock_that_a_full_disk_does_not_take_says_where_and_is_not_held(
    begin: Callable[[Path], DataDirectory], tmp_path: Path
) -> None:
    with tiny_disk(tmp_path / "disk", 1 << 20) as root:
        (root / "objects").mkdir()
        with (root / "fill").open("wb") as file:
            figures = os.statvfs(root)
            os.posix_fallocate(file.fileno(), 0, figures.f_bavail * figures.f_frsize)
        before = open_descriptors()
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as failure:
            begin(root)
        assert failure.value.filename == str(root / "lock")
        assert open_descriptors() == before
        (root / "fill").unlink()
        with begin(root) as directory:
            assert directory.is_locked


def test_part_files_of_the_last_run_are_not_written_over(tmp_path: Path) -> None:
    with DataDirectory.open(tmp_path) as directory:
        first = new_part(directory)
    with DataDirectory.open(tmp_path) as directory:
        second = new_part(directory)
        assert first != second
        assert set(directory.parts()) == {first, second}


def new_part(directory: DataDirectory) -> Path:
    descriptor, path = directory.create_part()
    os.close(descriptor)
    return path
