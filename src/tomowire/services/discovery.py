"""From what a person names (files, folders, DICOMDIR) to DICOM files, and to a reason for everything that is left out."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tomowire.errors import FileFormatError
from tomowire.services.dicom_file import DicomFile, inspect, is_marked
from tomowire.uids import MEDIA_STORAGE_DIRECTORY
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@value()
class Skipped:
    """A file that is not sent, and why; `errno` if the system said so. `is_error` when it was meant to be sent."""

    path: Path
    reason: str
    is_error: bool
    errno: int | None = None

    @property
    def error(self) -> Exception:
        """The same as an exception: `FileNotFoundError` and its kin, or `FileFormatError`."""
        if self.errno is not None:
            return OSError(self.errno, self.reason, str(self.path))
        return FileFormatError(self.reason)


def discover(
    paths: Iterable[str | os.PathLike[str]], *, read_dicomdir: Callable[[Path], Iterable[Path | Skipped]] | None = None
) -> Iterator[DicomFile | Skipped]:
    """Look at every file that `paths` name, folders with all that is below them in the order of their names.

    A DICOMDIR that is named itself stands for the files it refers to, if `read_dicomdir` is given; one that is met in a folder is
    passed over, since the files lie beside it. Blocking: it reads the beginning of each file. Nothing is raised for a single file.
    """
    for given in paths:
        path = Path(given)
        if given == "":  # as `Path` has it, it would be the folder that the process happens to be in
            yield Skipped(path, "an empty path names nothing", is_error=True)
            continue
        if path.is_dir():
            yield from map(_of_folder, _walk(path))
            continue
        there = _behind(path)
        seen = there if isinstance(there, Skipped) else _look_at(there)
        if isinstance(seen, DicomFile) and seen.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
            yield from _of_directory(path, read_dicomdir)
        else:
            yield _named(seen)


def _of_folder(found: Path | Skipped) -> DicomFile | Skipped:
    seen = found if isinstance(found, Skipped) else _look_at(found)
    if isinstance(seen, DicomFile) and seen.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        return Skipped(seen.path, "a DICOMDIR: the files it refers to are looked for by themselves", is_error=False)
    return seen


def _named(seen: DicomFile | Skipped) -> DicomFile | Skipped:
    """What a person named one by one was meant to be sent: that it is not DICOM is an error."""
    return replace(seen, is_error=True) if isinstance(seen, Skipped) else seen


def _unreadable(path: Path, error: OSError) -> Skipped:
    return Skipped(path, error.strerror or str(error), is_error=True, errno=error.errno)


def _walk(folder: Path) -> Iterator[Path | Skipped]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield _unreadable(folder, error)
        return
    for entry in listed:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path)
        else:
            yield path if entry.is_file(follow_symlinks=False) else _behind(path)


def _behind(path: Path) -> Path | Skipped:
    """What is no plain file in its folder: the same path if it leads to one. (Opening a pipe would wait for its other end.)"""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return _unreadable(path, error)
    if stat.S_ISREG(mode):
        return path
    # Links to folders are not followed: they may lead back to where the search came from.
    reason = "a link to a folder: name the folder itself" if stat.S_ISDIR(mode) else "neither a file nor a folder"
    return Skipped(path, reason, is_error=False)


def _look_at(path: Path) -> DicomFile | Skipped:
    try:
        try:
            return inspect(path)
        except FileFormatError as error:
            # A damaged DICOM file was meant to be sent; any other file just lies among them.
            return Skipped(path, str(error), is_error=is_marked(path))
    except OSError as error:
        return _unreadable(path, error)


def _of_directory(
    path: Path, read_dicomdir: Callable[[Path], Iterable[Path | Skipped]] | None
) -> Iterator[DicomFile | Skipped]:
    if read_dicomdir is None:
        yield Skipped(path, "a DICOMDIR: name the folder it lies in", is_error=True)
        return
    try:
        referred = list(read_dicomdir(path))
    except Exception as error:  # a foreign parser on a foreign file
        yield Skipped(path, f"the DICOMDIR cannot be read: {error}", is_error=True)
        return
    for each in referred:
        there = each if isinstance(each, Skipped) else _behind(each)
        yield _named(there if isinstance(there, Skipped) else _look_at(there))
