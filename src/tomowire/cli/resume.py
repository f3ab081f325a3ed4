"""What a peer has taken, remembered from one run to the next."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Self

from tomowire.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tomowire.services.dicom_file import DicomFile


class ResumeFile:
    """A file with a line of JSON for each object that `peer` has acknowledged; without a path it remembers nothing.
    With `read_only` nothing is added, and no file is made.

    A line is written when the acknowledgement has come and never before, so after a crash an object may be sent once more, but
    none is left out. An object counts as the same while its path, size and SOP Instance UID are.

    Entering raises `UsageError` for a file that is something else, before a byte of it is changed; `OSError`.
    """

    def __init__(self, path: Path | None, peer: str, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        self._peer = peer
        self._done: set[tuple[str, ...]] = set()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            content = self._path.read_bytes() if self._path.exists() else b""
            self._done = _read(content, self._path)
            if self._read_only:
                return self
            self._file = self._path.open("ab", buffering=0)
            if content and not content.endswith(b"\n"):
                self._file.write(b"\n")
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
            import json  # here: it takes 1.5 ms of a start

            self._file.write(json.dumps(self._key(file)).encode("ascii") + b"\n")

    def _key(self, file: DicomFile) -> tuple[str, ...]:
        return (self._peer, str(file.path.absolute()), str(file.size), file.sop_instance_uid)


def _read(content: bytes, path: Path) -> set[tuple[str, ...]]:
    """The lines that can be read: the last one of a run that was killed while it wrote cannot."""
    if content and not content.startswith(b'["'):
        raise UsageError(f"{path} is not a file that --resume has written: name another one")
    import json

    rows = set()
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, list):
            rows.add(tuple(map(str, row)))
    return rows
