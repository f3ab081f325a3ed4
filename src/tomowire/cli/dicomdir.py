"""The files that a DICOMDIR refers to."""

from __future__ import annotations

from pathlib import Path


def referenced_files(path: Path) -> list[Path]:
    """Paths of the files in the File-set of the DICOMDIR at `path` (PS3.3 F.3), in its order. Raises what pydicom raises."""
    from pydicom import dcmread

    records = dcmread(path).get("DirectoryRecordSequence") or []
    files = []
    for record in records:
        name = record.get("ReferencedFileID")
        if name:
            parts = [name] if isinstance(name, str) else list(name)
            files.append(_find(path.parent, parts))
    return files


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
