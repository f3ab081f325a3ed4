"""The files that a DICOMDIR refers to."""

from __future__ import annotations

import os
from pathlib import Path

from tomowire.services.discovery import Skipped


def referenced_files(path: Path) -> list[Path | Skipped]:
    """Paths of the files in the File-set of the DICOMDIR at `path` (PS3.3 F.3), in its order. Raises what pydicom raises.

    A DICOMDIR may come from anywhere: what it names outside its own folder is not looked at, and comes as `Skipped`.
    """
    from pydicom import dcmread

    records = dcmread(path).get("DirectoryRecordSequence") or []
    files: list[Path | Skipped] = []
    for record in records:
        name = record.get("ReferencedFileID")
        if name:
            parts = [name] if isinstance(name, str) else list(name)
            files.append(_below(path, parts))
    return files


def _below(dicomdir: Path, parts: list[str]) -> Path | Skipped:
    """PS3.10 8.2: a File ID is a way down from the folder of the DICOMDIR. Links may not lead out of it either."""
    if all(_is_name(part) for part in parts):
        found = _find(dicomdir.parent, parts)
        if Path(os.path.realpath(found)).is_relative_to(os.path.realpath(dicomdir.parent)):
            return found
    return Skipped(dicomdir, f"it refers to {'/'.join(parts)!r}, which is not below its folder", is_error=True)


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and not set(part) & set("/\\\0")


def _find(folder: Path, parts: list[str]) -> Path:
    """The file with the components `parts`. File IDs are in capitals (PS3.10 8.5); copied from a disc, names often are not."""
    named = folder.joinpath(*parts)
    if named.exists():
        return named
    found = folder
    for part in parts:
        same = [each for each in found.iterdir() if each.name.upper() == part.upper()] if found.is_dir() else []
        if not same:
            return named
        found = same[0]
    return found
