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
            files.append(path.parent.joinpath(*parts))
    return files
