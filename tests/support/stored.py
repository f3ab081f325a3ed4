"""Looking at what an archive holds, by its index and its files."""

from __future__ import annotations

import os
from pathlib import Path

from support.places import check, index_url_of
from tomowire.server.findings import Finding
from tomowire.server.index.backend import backend_for


def contents(root: Path) -> dict[str, bytes]:
    """SOP Instance UID -> data set, for all that the index knows."""
    with backend_for(index_url_of(root), root).open_reader() as reader:
        return {
            row.name.sop_instance_uid: (root / row.name.path).read_bytes()[row.header_size :]
            for row in reader.objects()
        }


def files_below(root: Path, folder: str = "objects") -> set[str]:
    """All files in a folder of the data directory, but for what the archive keeps there besides objects."""
    files = {os.path.relpath(os.path.join(at, name), root) for at, _, names in os.walk(root / folder) for name in names}
    return files - {"incoming/committed"}


def findings(root: Path) -> list[Finding]:
    """What `tomowire db check` finds."""
    return list(check(root))
