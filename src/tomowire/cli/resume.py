"""What a peer has taken, remembered from one run to the next."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

    from tomowire.services.dicom_file import DicomFile


class ResumeFile:
    """A file with a line of JSON for each object that `peer` has acknowledged; without a path it remembers nothing.

    A line is written when the acknowledgement has come and never before, so after a crash an object may be sent once more, but
    none is left out. An object counts as the same while its path, size and SOP Instance UID are.
    """

    def __init__(self, path: Path | None, peer: str) -> None:
        self._path = path
        self._peer = peer
        self._done: set[tuple[str, ...]] = set()
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            if self._path.exists():
                self._done = set(map(tuple, self._read()))
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def has(self, file: DicomFile) -> bool:
        """Whether the peer has taken this object in an earlier run."""
        return bool(self._done) and self._key(file) in self._done

    def add(self, file: DicomFile) -> None:
        """The peer has taken this object."""
        if self._file is not None:
            self._file.write(json.dumps(self._key(file)) + "\n")
            self._file.flush()

    def _key(self, file: DicomFile) -> tuple[str, ...]:
        return (self._peer, str(file.path.absolute()), str(file.size), file.sop_instance_uid)

    def _read(self) -> list[list[str]]:
        assert self._path is not None
        rows = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue  # the last line of a run that was killed while it wrote
        return rows
